// SPDX-License-Identifier: MIT
// The programs of examples/, as a user has them: started with words, talked to, and ended by
// Control-C. EXAMPLES is the folder in which they were built.
#include "support/process.hpp"
#if EXAMPLES_WITH_SSL
#include "support/certificates.hpp"

#include <asyncio/ssl.hpp>
#include <openssl/ssl.h>
#endif

#include <asyncio/asyncio.hpp>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <unistd.h>
#include <utility>
#include <vector>

using namespace std::chrono_literals;
using asyncio::Coro;
using asyncio::StreamReader;
using asyncio::Streams;
using asyncio::StreamWriter;
using asyncio_test::Process;

namespace {

// A program of ours that runs, and what it writes, line by line.
class Program : public Process {
  public:
    explicit Program(const std::string& name, const std::vector<std::string>& words = {})
        : Process([&](Process::Parent& parent) -> int {
              ::dup2(parent.descriptor(), STDOUT_FILENO);
              ::dup2(parent.descriptor(), STDERR_FILENO);
              const std::string path = EXAMPLES "/" + name;
              std::vector<char*> arguments = {const_cast<char*>(path.c_str())};
              for (const std::string& word : words)
                  arguments.push_back(const_cast<char*>(word.c_str()));
              arguments.push_back(nullptr);
              ::execv(path.c_str(), arguments.data());
              return 99;
          }) {}
    // Of a server, which says it first.
    std::uint16_t port() {
        const std::string text = line();
        EXPECT_EQ(text.substr(0, 23), "listening on 127.0.0.1:") << text;
        return static_cast<std::uint16_t>(std::stoi(text.substr(text.rfind(':') + 1)));
    }
    std::string end() {
        interrupt();
        return wait();
    }
};

// Everything that a program writes, and how it ends.
std::string outcome_of(const std::string& name, const std::vector<std::string>& words) {
    Program program(name, words);
    std::string all;
    for (std::string line = program.line(); !line.empty(); line = program.line()) {
        if (!all.empty()) all += " / ";
        all += line;
    }
    return all + " / " + program.wait();
}

const std::vector<std::string> any_port = {"127.0.0.1", "0"};

TEST(EchoExample, client_and_server_talk) {
    Program server("echo_server", any_port);
    const std::string port = std::to_string(server.port());
    EXPECT_EQ(outcome_of("echo_client", {"127.0.0.1", port, "hello", "and again"}),
              "hello / and again / exited with 0");
    EXPECT_EQ(server.end(), "exited with 0");
}

TEST(EchoExample, gives_back_a_stream_and_its_end) {
    Program server("echo_server", any_port);
    const std::uint16_t port = server.port();
    asyncio::run([&]() -> Coro<> {
        auto streams = co_await asyncio::open_connection("127.0.0.1", port);
        auto& [reader, writer] = streams;
        const std::string sent(8 << 20, 'x');
        writer.write(sent);
        writer.write_eof();
        const std::string received = co_await reader.read();
        EXPECT_TRUE(received == sent) << received.size();
    });
    EXPECT_EQ(server.end(), "exited with 0");
}

TEST(EchoExample, ends_though_a_client_does_not_read) {
    Program server("echo_server", any_port);
    const std::uint16_t port = server.port();
    asyncio::run([&]() -> Coro<> {
        auto streams = co_await asyncio::open_connection("127.0.0.1", port);
        streams.second.write(std::string(64 << 20, 'x'));
        std::size_t before = 0;
        // Until nothing moves any more: the server has stopped to read, as we do not.
        while (streams.second.get_write_buffer_size() != before) {
            before = streams.second.get_write_buffer_size();
            co_await asyncio::sleep(200ms);
        }
        EXPECT_GT(before, 0u);
        EXPECT_EQ(server.end(), "exited with 0");
        streams.second.abort();
    });
}

TEST(EchoExample, says_what_is_wrong) {
    EXPECT_EQ(outcome_of("echo_server", {"127.0.0.1", "http"}).substr(0, 45),
              "a port is a number from 0 to 65535, not 'http");
    EXPECT_NE(outcome_of("echo_server", {"--quickly"}).find("exited with 2"), std::string::npos);
    EXPECT_NE(outcome_of("echo_server", {"--help"}).find("exited with 0"), std::string::npos);
    EXPECT_NE(outcome_of("echo_client", {"127.0.0.1", "1", "x"}).find("Connection refused"),
              std::string::npos);
    Program server("echo_server", any_port);
    const std::string port = std::to_string(server.port());
    EXPECT_NE(outcome_of("echo_server", {"127.0.0.1", port}).find("Address already in use"),
              std::string::npos);
    EXPECT_EQ(server.end(), "exited with 0");
}

// Comes to a chat under a name, and reads up to its own arrival.
Coro<Streams> come(std::uint16_t port, std::string name) {
    auto streams = co_await asyncio::open_connection("127.0.0.1", port);
    auto& [reader, writer] = streams;
    const std::string question = co_await reader.readline();
    EXPECT_EQ(question, "Your name?\n");
    writer.write(name + '\n');
    const std::string arrival = co_await reader.readline();
    EXPECT_EQ(arrival, "* " + name + " has come\n");
    co_return streams;
}

TEST(ChatExample, tells_all_others_what_one_says) {
    Program server("chat_server", any_port);
    const std::uint16_t port = server.port();
    asyncio::run([&]() -> Coro<> {
        auto ann = co_await come(port, "ann");
        auto bob = co_await come(port, "bob");
        auto cid = co_await come(port, "cid");
        ann.second.write("hello\n/who\n");
        const std::string to_ann = co_await ann.first.readuntil("cid has come\n");
        EXPECT_EQ(to_ann, "* bob has come\n* cid has come\n");
        const std::string who = co_await ann.first.readline();
        EXPECT_EQ(who, "ann, bob, cid\n");
        const std::string to_bob = co_await bob.first.readuntil("hello\n");
        EXPECT_EQ(to_bob, "* cid has come\n<ann> hello\n");
        const std::string to_cid = co_await cid.first.readline();
        EXPECT_EQ(to_cid, "<ann> hello\n");

        ann.second.write("/quit\n");
        const std::string bye = co_await ann.first.read();
        EXPECT_TRUE(bye.ends_with("Bye.\n")) << bye;
        cid.second.abort(); // without a word
        const std::string left = co_await bob.first.readuntil("cid has left\n");
        EXPECT_EQ(left, "* ann has left\n* cid has left\n");
    });
    EXPECT_EQ(server.end(), "exited with 0");
}

TEST(ChatExample, takes_each_name_once_and_no_long_lines) {
    Program server("chat_server", any_port);
    const std::uint16_t port = server.port();
    asyncio::run([&]() -> Coro<> {
        auto ann = co_await come(port, "ann");
        auto streams = co_await asyncio::open_connection("127.0.0.1", port);
        auto& [reader, writer] = streams;
        writer.write("ann\nn o\neve\n" + std::string(10'000, 'x') + '\n');
        const std::string all = co_await reader.read();
        EXPECT_EQ(all, "Your name?\nThat one is taken. Your name?\n"
                       "One word of at most 20 letters, please. Your name?\n"
                       "* eve has come\nThat line is too long. Bye.\n");
    });
    EXPECT_EQ(server.end(), "exited with 0");
}

TEST(ChatExample, is_not_held_up_by_who_does_not_read) {
    Program server("chat_server", any_port);
    const std::uint16_t port = server.port();
    asyncio::run([&]() -> Coro<> {
        auto slow = co_await come(port, "slow");
        auto ann = co_await come(port, "ann");
        auto bob = co_await come(port, "bob");
        const std::string line = std::string(1000, 'x') + '\n';
        const std::string all_of_it = "<ann> " + line;
        int lines = 0; // until the slow one is dropped: the kernel keeps a lot for it
        for (std::string got; got != "* slow has left\n" && lines < 100'000; ++lines) {
            ann.second.write(line);
            got = co_await bob.first.readline();
            while (got != all_of_it && got != "* slow has left\n")
                got = co_await bob.first.readline();
        }
        EXPECT_GT(lines, 1000);
        EXPECT_LT(lines, 100'000);
    });
    EXPECT_EQ(server.line(), "slow does not read, and is dropped");
    EXPECT_EQ(server.end(), "exited with 0");
}

TEST(PortScannerExample, finds_what_is_open) {
    asyncio::Socket open(AF_INET, SOCK_STREAM);
    open.bind(asyncio::Address("127.0.0.1", 0));
    open.listen();
    const std::string port = std::to_string(open.getsockname().port());
    EXPECT_EQ(outcome_of("port_scanner", {"127.0.0.1", port}),
              "ports " + port + " to " + port + " of 127.0.0.1 / " + port +
                  " is open / 1 open, 0 without an answer / exited with 0");
    const int number = open.getsockname().port();
    const std::string range =
        std::to_string(number - 500) + "-" + std::to_string(std::min(number + 500, 65535));
    const std::string many = outcome_of("port_scanner", {"--limit", "50", "127.0.0.1", range});
    EXPECT_NE(many.find(" / " + port + " is open / "), std::string::npos) << many;
    EXPECT_EQ(outcome_of("port_scanner", {"127.0.0.1", "9-1"}).substr(0, 43),
              "a port is a number from 9 to 65535, not '1'");
}

TEST(PortScannerExample, gives_up_on_a_port_that_does_not_answer) {
    // The kernel is silent where nobody accepts and the queue is full.
    asyncio::run([]() -> Coro<> {
        asyncio::Socket full(AF_INET, SOCK_STREAM);
        full.bind(asyncio::Address("127.0.0.1", 0));
        full.listen(0);
        const asyncio::Address address = full.getsockname();
        std::vector<asyncio::Socket> waiting;
        bool silent = false;
        while (!silent) {
            waiting.emplace_back(AF_INET, SOCK_STREAM);
            try {
                co_await asyncio::wait_for(asyncio::sock_connect(waiting.back(), address), 100ms);
            } catch (const asyncio::TimeoutError&) {
                silent = true;
            }
        }
        const std::string port = std::to_string(address.port());
        const std::string outcome =
            outcome_of("port_scanner", {"--timeout", "100", "127.0.0.1", port});
        EXPECT_EQ(outcome, "ports " + port + " to " + port +
                               " of 127.0.0.1 / 0 open, 1 without an answer / exited with 0");
    });
}

#if EXAMPLES_WITH_SSL

// A proxy in front of an origin of ours.
class ProxyExample : public testing::Test {
  protected:
    asyncio_test::Authority authority_;
    const asyncio_test::Issued issued_ =
        authority_.issue({.names = {"DNS:localhost", "IP:127.0.0.1"}});

    std::unique_ptr<Program> proxy_to(const asyncio::Server& origin,
                                      std::vector<std::string> words = {}) const {
        for (const std::string& word :
             {issued_.certificate, issued_.key, std::string("127.0.0.1"), std::string("0"),
              std::string("127.0.0.1"), std::to_string(origin.sockets().at(0).port())})
            words.push_back(word);
        return std::make_unique<Program>("tls_proxy", words);
    }
    Coro<Streams> connect(std::uint16_t port) const {
        auto context = asyncio::ssl::create_default_context(asyncio::ssl::Purpose::SERVER_AUTH,
                                                            {.cafile = authority_.file()});
        co_return co_await asyncio::open_connection("127.0.0.1", port,
                                                    asyncio::ConnectionOptions().ssl(context));
    }
};

Coro<> echo(StreamReader reader, StreamWriter writer) {
    while (true) {
        const std::string data = co_await reader.read(64 * 1024);
        if (data.empty()) break;
        writer.write(data);
        co_await writer.drain();
    }
}

TEST_F(ProxyExample, passes_on_both_ways) {
    asyncio::run([&]() -> Coro<> {
        auto origin = co_await asyncio::start_server(echo, "127.0.0.1", 0);
        auto proxy = proxy_to(origin);
        const std::uint16_t port = proxy->port();
        auto streams = co_await connect(port);
        auto& [reader, writer] = streams;
        const std::string sent(8 << 20, 'x');
        writer.write(sent);
        const std::string received = co_await reader.readexactly(sent.size());
        EXPECT_TRUE(received == sent);
        writer.close();
        co_await writer.wait_closed();
        origin.close();
        co_await origin.wait_closed(); // the origin has heard of the client's end
        EXPECT_EQ(proxy->end(), "exited with 0");
    });
}

TEST_F(ProxyExample, lets_a_client_wait_for_its_turn) {
    asyncio::run([&]() -> Coro<> {
        auto origin = co_await asyncio::start_server(echo, "127.0.0.1", 0);
        auto proxy = proxy_to(origin, {"--limit", "1"});
        const std::uint16_t port = proxy->port();
        auto first = co_await connect(port);
        first.second.write("a\n");
        const std::string a = co_await first.first.readline();
        EXPECT_EQ(a, "a\n");
        auto second = co_await connect(port);
        second.second.write("b\n");
        bool waited = false;
        try {
            co_await asyncio::wait_for(second.first.readline(), 200ms);
        } catch (const asyncio::TimeoutError&) {
            waited = true;
        }
        EXPECT_TRUE(waited);
        first.second.close();
        const std::string b = co_await second.first.readline();
        EXPECT_EQ(b, "b\n");
        EXPECT_EQ(proxy->end(), "exited with 0");
    });
}

TEST_F(ProxyExample, hears_the_origin_to_its_end_when_the_client_has_ended) {
    asyncio::run([&]() -> Coro<> {
        asyncio::Event served;
        const auto answer_at_the_end = [&](StreamReader reader, StreamWriter writer) -> Coro<> {
            const std::string all = co_await reader.read();
            writer.write("it was " + all + ", " + std::string(2 << 20, 'y'));
            writer.close();
            co_await writer.wait_closed();
            served.set();
        };
        auto origin = co_await asyncio::start_server(answer_at_the_end, "127.0.0.1", 0);
        auto proxy = proxy_to(origin);
        const std::uint16_t port = proxy->port();
        // A client that ends its side of TLS, and reads on.
        Process client([port](Process::Parent& parent) -> int {
            const asyncio::Address address("127.0.0.1", port);
            const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
            if (::connect(socket, address.data(), address.size()) != 0) return 1;
            SSL_CTX* const context = SSL_CTX_new(TLS_client_method());
            SSL* const ssl = SSL_new(context);
            SSL_set_fd(ssl, socket);
            if (SSL_connect(ssl) != 1 || SSL_write(ssl, "short", 5) != 5) return 2;
            SSL_shutdown(ssl);
            std::string all;
            char block[4096];
            for (int count = 1; count > 0;) {
                count = SSL_read(ssl, block, sizeof block);
                if (count > 0) all.append(block, static_cast<std::size_t>(count));
            }
            parent.tell(all.substr(0, 14) + std::to_string(all.size()));
            SSL_free(ssl);
            SSL_CTX_free(context);
            ::close(socket);
            return 0;
        });
        co_await served.wait();
        EXPECT_EQ(client.line(), "it was short, " + std::to_string(14 + (2 << 20)));
        EXPECT_EQ(client.wait(), "exited with 0");
        EXPECT_EQ(proxy->end(), "exited with 0");
    });
}

TEST_F(ProxyExample, says_what_is_wrong) {
    EXPECT_NE(outcome_of("tls_proxy", {"none.pem", "none.key", "127.0.0.1", "0", "127.0.0.1", "1"})
                  .find("No such file or directory"),
              std::string::npos);
    EXPECT_NE(outcome_of("tls_proxy", {"none.pem"}).find("KEY is missing"), std::string::npos);
}

#endif

} // namespace
