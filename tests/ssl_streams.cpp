// SPDX-License-Identifier: MIT
// Streams over TLS: talks, upgrades, ends that are in order and such that are not, and what a
// client is told of servers that it must not trust.
#include "support/reports.hpp"
#include "support/tls_contexts.hpp"

#include <asyncio/asyncio.hpp>
#include <asyncio/ssl.hpp>
#include <asyncio/testing/cancel_everywhere.hpp>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <sys/socket.h>
#include <utility>
#include <vector>

using namespace std::chrono_literals;
namespace ssl = asyncio::ssl;
using asyncio::as_result;
using asyncio::ConnectionOptions;
using asyncio::Coro;
using asyncio::create_task;
using asyncio::ServerOptions;
using asyncio::StreamReader;
using asyncio::StreamWriter;
using asyncio_test::authority;
using asyncio_test::client_context;
using asyncio_test::Issued;
using asyncio_test::Reports;
using asyncio_test::server_context;
using asyncio_test::Wanted;

namespace {

Coro<> echo(StreamReader reader, StreamWriter writer) {
    for (;;) {
        const std::string data = co_await reader.read(65536);
        if (data.empty()) break;
        writer.write(data);
        co_await writer.drain();
    }
    writer.close();
}
Coro<asyncio::Server> serve(ssl::Context context) {
    auto server =
        co_await asyncio::start_server(echo, "127.0.0.1", 0, ServerOptions().ssl(context));
    co_return server;
}
std::uint16_t port_of(const asyncio::Server& server) { return server.sockets().at(0).port(); }
Coro<asyncio::Streams> connect(std::uint16_t port, ConnectionOptions options) {
    auto streams = co_await asyncio::open_connection("127.0.0.1", port, options);
    co_return streams;
}
ConnectionOptions trusting() { return ConnectionOptions().ssl(client_context()); }

template <class T> std::string what_of(const asyncio::Result<T>& result) {
    if (result.exception() == nullptr) return "nothing";
    try {
        std::rethrow_exception(result.exception());
    } catch (const std::exception& error) {
        return error.what();
    }
}

// What connecting to a server with this certificate fails with.
Coro<std::string> refusal(Issued issued, ConnectionOptions options) {
    Reports reports(asyncio::get_running_loop());
    auto server = co_await serve(server_context(issued));
    auto task = create_task(connect(port_of(server), options));
    const auto result = co_await as_result(task);
    EXPECT_TRUE(result.failed_with<ssl::CertVerificationError>()) << what_of(result);
    server.close();
    co_await server.wait_closed();
    EXPECT_EQ(reports.count("the TLS handshake with a client failed"), 1U) << reports.text();
    asyncio::get_running_loop().set_exception_handler(nullptr);
    co_return what_of(result);
}

} // namespace

TEST(SslStreams, talk_and_end_in_order) {
    asyncio::run([]() -> Coro<> {
        auto server = co_await serve(server_context());
        auto [reader, writer] = co_await connect(port_of(server), trusting());
        EXPECT_FALSE(writer.can_write_eof());
        EXPECT_EQ(writer.get_extra_info(asyncio::ssl_object)->version(), "TLSv1.3");
        writer.write("one\ntwo\n");
        std::string line = co_await reader.readline();
        EXPECT_EQ(line, "one\n");
        line = co_await reader.readuntil("\n");
        EXPECT_EQ(line, "two\n");
        const std::string much(1 << 20, 'x');
        auto writing = create_task([](StreamWriter to, std::string data) -> Coro<> {
            to.write(data);
            co_await to.drain();
        }(writer, much));
        const std::string back = co_await reader.readexactly(much.size());
        EXPECT_TRUE(back == much);
        co_await writing;
        writer.close();
        co_await writer.wait_closed();
        server.close();
        co_await server.wait_closed();
    });
}

TEST(SslStreams, tell_who_a_server_is_not_and_for_which_host) {
    asyncio::run([]() -> Coro<> {
        Wanted expired;
        expired.names = {"IP:127.0.0.1"};
        expired.from = -48h;
        expired.until = -24h;
        std::string text = co_await refusal(authority().issue(expired), trusting());
        EXPECT_NE(text.find("127.0.0.1"), std::string::npos) << text;
        EXPECT_NE(text.find("certificate has expired"), std::string::npos) << text;

        Wanted own;
        own.names = {"IP:127.0.0.1"};
        text = co_await refusal(authority().self_signed(own), trusting());
        EXPECT_NE(text.find("self-signed certificate"), std::string::npos) << text;

        Wanted other;
        other.names = {"DNS:other.example"};
        text = co_await refusal(authority().issue(other), trusting());
        EXPECT_NE(text.find("127.0.0.1"), std::string::npos) << text;
        EXPECT_NE(text.find("IP address mismatch"), std::string::npos) << text;

        text = co_await refusal(authority().issue(other),
                                trusting().server_hostname("wanted.example"));
        EXPECT_NE(text.find("wanted.example"), std::string::npos) << text;
        EXPECT_NE(text.find("ostname mismatch"), std::string::npos) << text;
    });
}

TEST(SslStreams, tell_of_servers_that_do_not_speak_tls) {
    asyncio::run([]() -> Coro<> {
        const std::vector<std::pair<std::string, std::string>> cases = {
            {"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak TLS"},
            {std::string("\x16\x03\x01\x00\x04garbage", 12), ""},
            {std::string("\x15\x03\x03\x00\x02\x02\x28", 7), "handshake failure"},
        };
        for (const auto& [answer, told] : cases) {
            const auto handler = [&answer](StreamReader reader, StreamWriter writer) -> Coro<> {
                co_await reader.read(1000);
                writer.write(answer);
                co_await reader.read();
            };
            auto server = co_await asyncio::start_server(handler, "127.0.0.1", 0);
            auto task = create_task(connect(port_of(server), trusting()));
            const auto result = co_await as_result(task);
            EXPECT_TRUE(result.failed_with<ssl::Error>()) << what_of(result);
            EXPECT_NE(what_of(result).find("127.0.0.1"), std::string::npos) << what_of(result);
            EXPECT_NE(what_of(result).find(told), std::string::npos) << what_of(result);
            server.close();
            co_await server.wait_closed();
        }
    });
}

TEST(SslStreams, end_a_handshake_that_takes_too_long_or_is_hung_up_on) {
    asyncio::run([]() -> Coro<> {
        const auto silent = [](StreamReader reader, StreamWriter) -> Coro<> {
            co_await reader.read();
        };
        auto server = co_await asyncio::start_server(silent, "127.0.0.1", 0);
        auto late = create_task(connect(port_of(server), trusting().ssl_handshake_timeout(20ms)));
        const auto result = co_await as_result(late);
        EXPECT_TRUE(result.failed_with<asyncio::TimeoutError>()) << what_of(result);
        server.close();
        co_await server.wait_closed();

        const auto rude = [](StreamReader reader, StreamWriter writer) -> Coro<> {
            co_await reader.read(1000);
            writer.close();
        };
        auto other = co_await asyncio::start_server(rude, "127.0.0.1", 0);
        auto hung_up = create_task(connect(port_of(other), trusting()));
        const auto ended = co_await as_result(hung_up);
        EXPECT_TRUE(ended.failed_with<ssl::EOFError>()) << what_of(ended);
        other.close();
        co_await other.wait_closed();
    });
}

// In whatever order the options are set.
TEST(SslStreams, take_their_timeouts_before_and_after_the_context) {
    asyncio::run([]() -> Coro<> {
        const auto server_options =
            ServerOptions().ssl_handshake_timeout(10s).ssl_shutdown_timeout(10s).ssl(
                server_context());
        auto server = co_await asyncio::start_server(echo, "127.0.0.1", 0, server_options);
        const auto options = ConnectionOptions()
                                 .ssl_shutdown_timeout(10s)
                                 .ssl(client_context())
                                 .ssl_handshake_timeout(10s);
        auto [reader, writer] = co_await connect(port_of(server), options);
        writer.write("hello\n");
        const std::string line = co_await reader.readline();
        EXPECT_EQ(line, "hello\n");
        writer.close();
        co_await writer.wait_closed();
        server.close();
        co_await server.wait_closed();
    });
}

TEST(SslStreams, serve_on_after_clients_that_do_not_speak_tls) {
    asyncio::run([]() -> Coro<> {
        Reports reports(asyncio::get_running_loop());
        auto server = co_await serve(server_context());
        const std::vector<std::string> texts = {"GET / HTTP/1.0\r\n\r\n",
                                                "\x16\x03\x01garbage!!!!"};
        for (const std::string& text : texts) {
            auto plain = co_await asyncio::open_connection("127.0.0.1", port_of(server));
            plain.second.write(text);
            plain.second.write_eof();
            static_cast<void>(co_await as_result(plain.first.read()));
        }
        EXPECT_EQ(reports.count(), 2U) << reports.text();
        auto good = co_await connect(port_of(server), trusting());
        good.second.write("hello");
        const std::string text = co_await good.first.readexactly(5);
        EXPECT_EQ(text, "hello");
        good.second.close();
        co_await good.second.wait_closed();
        server.close();
        co_await server.wait_closed();
        asyncio::get_running_loop().set_exception_handler(nullptr);
    });
}

// Who ends the connection below TLS, as an attacker can, has not said that this was all.
TEST(SslStreams, do_not_take_a_truncated_text_for_a_whole_one) {
    asyncio::run([]() -> Coro<> {
        const auto cut = [](StreamReader reader, StreamWriter writer) -> Coro<> {
            writer.write("half of");
            co_await writer.drain();
            ::shutdown(writer.get_extra_info(asyncio::socket_info).fileno(), SHUT_WR);
            static_cast<void>(co_await as_result(reader.read()));
        };
        auto server = co_await asyncio::start_server(cut, "127.0.0.1", 0,
                                                     ServerOptions().ssl(server_context()));
        auto [reader, writer] = co_await connect(port_of(server), trusting());
        const auto all = co_await as_result(reader.read());
        EXPECT_TRUE(all.failed_with<ssl::EOFError>()) << what_of(all);
        EXPECT_EQ(reader.buffered(), "half of") << "what came is still there";
        writer.close();
        server.close();
        co_await server.wait_closed();
    });
}

// The client's hello is in the reader already when the server turns to TLS.
TEST(SslStreams, are_upgraded_and_keep_what_was_read_too_far) {
    asyncio::run([]() -> Coro<> {
        const auto handler = [](StreamReader reader, StreamWriter writer) -> Coro<> {
            const std::string line = co_await reader.readline();
            EXPECT_EQ(line, "STARTTLS\n");
            const std::string_view hello = co_await reader.peek();
            EXPECT_EQ(hello.front(), '\x16');
            co_await writer.start_tls(server_context());
            writer.write("in secret\n");
            const std::string answer = co_await reader.readline();
            EXPECT_EQ(answer, "so it is\n");
            writer.close();
        };
        auto server = co_await asyncio::start_server(handler, "127.0.0.1", 0);
        auto [reader, writer] = co_await asyncio::open_connection("127.0.0.1", port_of(server));
        writer.write("STARTTLS\n");
        co_await writer.start_tls(client_context(),
                                  asyncio::StartTlsOptions().server_hostname("localhost"));
        EXPECT_NE(writer.get_extra_info(asyncio::ssl_object), nullptr);
        const std::string line = co_await reader.readline();
        EXPECT_EQ(line, "in secret\n");
        writer.write("so it is\n");
        const std::string end = co_await reader.read();
        EXPECT_EQ(end, "");
        writer.close();
        co_await writer.wait_closed();
        server.close();
        co_await server.wait_closed();
    });
}

TEST(SslStreams, are_aborted_when_an_upgrade_fails) {
    asyncio::run([]() -> Coro<> {
        const auto handler = [](StreamReader reader, StreamWriter writer) -> Coro<> {
            const auto upgraded = co_await as_result(writer.start_tls(server_context()));
            EXPECT_TRUE(upgraded.failed_with<ssl::Error>()) << what_of(upgraded);
            EXPECT_TRUE(writer.is_closing());
            static_cast<void>(reader);
        };
        auto server = co_await asyncio::start_server(handler, "127.0.0.1", 0);
        auto [reader, writer] = co_await asyncio::open_connection("127.0.0.1", port_of(server));
        writer.write("this is no TLS at all\n");
        static_cast<void>(co_await as_result(reader.read()));
        writer.close();
        server.close();
        co_await server.wait_closed();
    });
}

TEST(SslStreams, send_what_is_kept_when_they_are_closed) {
    asyncio::run([]() -> Coro<> {
        const std::string much(1 << 20, 'x');
        std::string received;
        asyncio::Event done;
        const auto sink = [&](StreamReader reader, StreamWriter) -> Coro<> {
            co_await asyncio::sleep(20ms);
            received = co_await reader.read();
            done.set();
        };
        auto server = co_await asyncio::start_server(sink, "127.0.0.1", 0,
                                                     ServerOptions().ssl(server_context()));
        auto [reader, writer] = co_await connect(port_of(server), trusting());
        writer.get_extra_info(asyncio::socket_info).setsockopt(SOL_SOCKET, SO_SNDBUF, 10'000);
        writer.write(much);
        EXPECT_GT(writer.get_write_buffer_size(), 0U);
        writer.close();
        writer.write("too late"); // dropped, as without TLS
        co_await writer.wait_closed();
        co_await done.wait();
        EXPECT_TRUE(received == much) << received.size();
        const std::string end = co_await reader.read();
        EXPECT_EQ(end, "");
        server.close();
        co_await server.wait_closed();
    });
}

TEST(SslStreams, send_what_is_kept_while_they_read) {
    asyncio::run([]() -> Coro<> {
        const std::string much(1 << 20, 'x');
        std::size_t sent = 0;
        const auto source = [&](StreamReader reader, StreamWriter writer) -> Coro<> {
            writer.get_extra_info(asyncio::socket_info).setsockopt(SOL_SOCKET, SO_SNDBUF, 10'000);
            writer.write(much);
            const std::string end = co_await reader.read();
            EXPECT_EQ(end, "bye");
            sent = much.size() - writer.get_write_buffer_size();
            writer.close();
            co_await writer.wait_closed();
        };
        auto server = co_await asyncio::start_server(source, "127.0.0.1", 0,
                                                     ServerOptions().ssl(server_context()));
        auto [reader, writer] = co_await connect(port_of(server), trusting());
        const std::string first = co_await reader.readexactly(1000);
        writer.write("bye");
        const std::string rest = co_await reader.readexactly(much.size() - 1000);
        EXPECT_TRUE(first + rest == much);
        writer.close();
        co_await writer.wait_closed();
        server.close();
        co_await server.wait_closed();
        EXPECT_GT(sent, 0U);
    });
}

TEST(SslStreams, are_many_at_once_and_take_lists_of_pieces) {
    asyncio::run([]() -> Coro<> {
        auto server = co_await serve(server_context());
        const ConnectionOptions options = trusting();
        std::vector<asyncio::Task<>> all;
        const auto talk = [&](int number) -> Coro<> {
            auto [reader, writer] = co_await connect(port_of(server), options);
            const std::string middle = std::to_string(number);
            const std::vector<asyncio::ReadableBytes> pieces = {"number ", middle, "\n"};
            for (int i = 0; i < 10; ++i) {
                writer.writelines(std::span<const asyncio::ReadableBytes>(pieces));
                const std::string line = co_await reader.readline();
                EXPECT_EQ(line, "number " + middle + "\n");
            }
            writer.close();
            co_await writer.wait_closed();
        };
        for (int i = 0; i < 40; ++i) all.push_back(create_task(talk, i));
        for (const auto& task : all) co_await task;
        server.close();
        co_await server.wait_closed();
    });
}

TEST(SslStreams, are_not_upgraded_twice_nor_while_somebody_reads) {
    asyncio::run([]() -> Coro<> {
        auto server = co_await serve(server_context());
        auto [reader, writer] = co_await connect(port_of(server), trusting());
        const auto twice = co_await as_result(writer.start_tls(client_context()));
        EXPECT_EQ(what_of(twice), "start_tls() on a connection that speaks TLS already");
        writer.close();
        co_await writer.wait_closed();
        server.close();
        co_await server.wait_closed();

        auto plain = co_await asyncio::start_server(echo, "127.0.0.1", 0);
        auto [from, to] = co_await asyncio::open_connection("127.0.0.1", port_of(plain));
        auto reading = create_task([](StreamReader it) -> Coro<std::string> {
            std::string data = co_await it.read(5);
            co_return data;
        }(from));
        co_await asyncio::sleep(0);
        const auto during = co_await as_result(to.start_tls(client_context()));
        EXPECT_TRUE(what_of(during).starts_with("start_tls() while a coroutine waits"))
            << what_of(during);
        to.write("still");
        const std::string text = co_await reading;
        EXPECT_EQ(text, "still");
        to.close();
        co_await to.wait_closed();
        plain.close();
        co_await plain.wait_closed();
    });
}

TEST(SslStreams, whose_upgrade_is_cancelled_or_takes_too_long_are_aborted) {
    asyncio::run([]() -> Coro<> {
        const auto silent = [](StreamReader reader, StreamWriter) -> Coro<> {
            static_cast<void>(co_await as_result(reader.read()));
        };
        auto server = co_await asyncio::start_server(silent, "127.0.0.1", 0);
        auto late = co_await asyncio::open_connection("127.0.0.1", port_of(server));
        const auto timed_out = co_await as_result(late.second.start_tls(
            client_context(), asyncio::StartTlsOptions().ssl_handshake_timeout(20ms)));
        EXPECT_TRUE(timed_out.failed_with<asyncio::TimeoutError>()) << what_of(timed_out);
        EXPECT_TRUE(late.second.is_closing());

        auto other = co_await asyncio::open_connection("127.0.0.1", port_of(server));
        auto upgrading = create_task([](StreamWriter writer) -> Coro<> {
            co_await writer.start_tls(client_context());
        }(other.second));
        co_await asyncio::sleep(5ms);
        upgrading.cancel();
        const auto cancelled = co_await as_result(upgrading);
        EXPECT_TRUE(cancelled.failed_with<asyncio::CancelledError>()) << what_of(cancelled);
        EXPECT_TRUE(other.second.is_closing());
        server.close();
        co_await server.wait_closed(); // both are gone
    });
}

TEST(SslStreams, may_be_cancelled_at_every_await) {
    const ssl::Context of_server = server_context();
    const ssl::Context of_client = client_context();
    const int cancels = asyncio::testing::cancel_everywhere(
        [&](asyncio::testing::LeakToken token) -> Coro<> {
            asyncio::get_running_loop().set_exception_handler(
                [](asyncio::EventLoop&, const asyncio::ExceptionContext&) {});
            static_cast<void>(token);
            auto server = co_await asyncio::start_server(echo, "127.0.0.1", 0,
                                                         ServerOptions().ssl(of_server));
            ConnectionOptions options;
            options.ssl(of_client).server_hostname("localhost");
            std::exception_ptr failure;
            try {
                auto [reader, writer] = co_await connect(port_of(server), options);
                writer.write("hello");
                const std::string text = co_await reader.readexactly(5);
                EXPECT_EQ(text, "hello");
                writer.close();
                co_await writer.wait_closed();
            } catch (...) {
                failure = std::current_exception();
            }
            server.close();
            server.abort_clients();
            co_await server.wait_closed();
            if (failure != nullptr) std::rethrow_exception(failure);
        },
        asyncio::testing::CancelOptions().may_leave_tasks(true));
    EXPECT_GT(cancels, 5);
}
