// SPDX-License-Identifier: MIT
// Python's asyncio streams at the other end.
#include "peers/certificates.hpp"
#include "peers/echo.hpp"

namespace {

using namespace asyncio_test;
namespace ssl = asyncio::ssl;

const std::string script = "python3 " ASYNCIO_PEERS_FOLDER "/streams.py ";

std::string as_server(const Certificates& certificates) {
    return " --cert " + certificates.issued.certificate + " --key " + certificates.issued.key;
}
std::string as_client(const Certificates& certificates) {
    return " --cafile " + certificates.authority.file();
}

struct PeersPython : testing::Test {
    void SetUp() override { ASYNCIO_NEED("python3", "python3"); }
};

Coro<std::uint16_t> port_of(Program& program) {
    const std::string line = co_await program.line_with("port ");
    co_return number_after(line, ' ');
}
Coro<Streams> connect(Program& server, asyncio::ConnectionOptions options = {}) {
    const std::uint16_t port = co_await port_of(server);
    auto streams = co_await asyncio::open_connection("127.0.0.1", port, options);
    co_return streams;
}
asyncio::ConnectionOptions trusting(const Certificates& certificates) {
    return asyncio::ConnectionOptions().ssl(certificates.client());
}
std::string version_of(const StreamWriter& writer) {
    return writer.get_extra_info(asyncio::ssl_object)->version();
}

const std::string whole = "end after 1048576";

// A client of Python's, with these options, whose data a server of ours sends back.
Coro<> expect_client(EchoServer& server, std::string options, std::string last) {
    auto python = co_await start(script + "client " + options);
    const std::string end = co_await server.next_end();
    EXPECT_EQ(end, whole);
    co_await expect_last(*python, last);
    co_await server.close();
}
// The same of a server of ours that comes to that by this handler.
template <class Handler>
Coro<> expect_client_of(Handler handler, std::shared_ptr<Ends> ends, std::string options,
                        asyncio::ServerOptions serving = {}) {
    auto server = co_await asyncio::start_server(handler, "127.0.0.1", 0, serving);
    auto python = co_await start(script + "client " + options +
                                 std::to_string(server.sockets().at(0).port()));
    const std::string end = co_await ends->all.get();
    EXPECT_EQ(end, whole);
    co_await expect_last(*python, "right, TLSv1.3\n");
    server.close();
    co_await server.wait_closed();
}
// A server of Python's sends back what we send it.
Coro<> expect_server(Program& server, Streams streams) {
    co_await expect_echo(streams.first, streams.second, mebibyte);
    if (streams.second.can_write_eof()) {
        streams.second.write_eof();
        const std::string rest = co_await streams.first.read();
        EXPECT_EQ(rest, "");
    }
    streams.second.close();
    co_await streams.second.wait_closed();
    co_await expect_last(server, "ended after 1048576\n");
}

TEST_F(PeersPython, client_of_ours) {
    run_limited([]() -> Coro<> {
        auto server = co_await EchoServer::start();
        co_await expect_client(*server, "--port " + server->port(), "right, plain\n");
    });
}

TEST_F(PeersPython, server_of_ours) {
    run_limited([]() -> Coro<> {
        auto python = co_await start(script + "server");
        auto streams = co_await connect(*python);
        co_await expect_server(*python, std::move(streams));
    });
}

TEST_F(PeersPython, client_of_ours_over_a_unix_socket) {
    run_limited([]() -> Coro<> {
        const TemporaryFolder folder;
        const std::string path = folder.file("socket");
        auto server = co_await EchoServer::start_unix(path);
        co_await expect_client(*server, "--unix " + path, "right, plain\n");
    });
}

TEST_F(PeersPython, server_of_ours_over_a_unix_socket) {
    run_limited([]() -> Coro<> {
        const TemporaryFolder folder;
        const std::string path = folder.file("socket");
        auto python = co_await start(script + "server --unix " + path);
        co_await python->line_with("listening");
        auto streams = co_await asyncio::open_unix_connection(path);
        co_await expect_server(*python, std::move(streams));
    });
}

TEST_F(PeersPython, client_of_ours_in_tls) {
    run_limited([]() -> Coro<> {
        const Certificates certificates;
        const ssl::Context context = certificates.server();
        auto server = co_await EchoServer::start(asyncio::ServerOptions().ssl(context));
        co_await expect_client(*server, "--port " + server->port() + as_client(certificates),
                               "right, TLSv1.3\n");
    });
}

TEST_F(PeersPython, server_of_ours_in_tls) {
    run_limited([]() -> Coro<> {
        const Certificates certificates;
        auto python = co_await start(script + "server" + as_server(certificates));
        auto streams = co_await connect(*python, trusting(certificates));
        EXPECT_EQ(version_of(streams.second), "TLSv1.3");
        EXPECT_FALSE(streams.second.can_write_eof());
        co_await expect_server(*python, std::move(streams));
    });
}

// A server of ours that upgrades when it is asked to, and then echoes.
TEST_F(PeersPython, client_of_ours_upgrades) {
    run_limited([]() -> Coro<> {
        const Certificates certificates;
        const ssl::Context context = certificates.server();
        auto ends = std::make_shared<Ends>();
        const auto handler = [&](StreamReader reader, StreamWriter writer) -> Coro<> {
            const std::string line = co_await reader.readline();
            EXPECT_EQ(line, "STARTTLS\n");
            writer.write("go\n");
            co_await writer.start_tls(context);
            EXPECT_EQ(writer.get_extra_info(asyncio::ssl_object)->server_hostname(), "localhost");
            co_await echo(reader, writer, ends);
        };
        co_await expect_client_of(handler, ends,
                                  "--upgrade" + as_client(certificates) + " --port ");
    });
}

TEST_F(PeersPython, server_of_ours_upgrades) {
    run_limited([]() -> Coro<> {
        const Certificates certificates;
        auto python = co_await start(script + "server --upgrade" + as_server(certificates));
        auto streams = co_await connect(*python);
        auto& [reader, writer] = streams;
        writer.write("STARTTLS\n");
        const std::string answer = co_await reader.readline();
        EXPECT_EQ(answer, "go\n");
        const ssl::Context context = certificates.client();
        co_await writer.start_tls(context);
        EXPECT_EQ(version_of(writer), "TLSv1.3");
        co_await expect_server(*python, std::move(streams));
    });
}

// An HTTPS proxy of Python's, and what we speak through it: TLS inside of TLS.
TEST_F(PeersPython, passes_on_our_tls_inside_of_its_own) {
    run_limited([]() -> Coro<> {
        const Certificates certificates;
        auto server = co_await start(script + "server" + as_server(certificates));
        const std::uint16_t target = co_await port_of(*server);
        auto proxy = co_await start(script + "proxy" + as_server(certificates));
        auto streams = co_await connect(*proxy, trusting(certificates));
        auto& [reader, writer] = streams;
        writer.write("CONNECT 127.0.0.1:" + std::to_string(target) + " HTTP/1.1\r\n\r\n");
        const std::string answer = co_await reader.readuntil("\r\n\r\n");
        EXPECT_EQ(answer, "HTTP/1.1 200 OK\r\n\r\n");
        const ssl::Context context = certificates.client();
        asyncio::StartTlsOptions inner;
        inner.server_hostname("localhost");
        co_await writer.start_tls(context, inner);
        EXPECT_EQ(writer.get_extra_info(asyncio::ssl_object)->server_hostname(), "localhost");
        co_await expect_server(*server, std::move(streams));
        co_await expect_last(*proxy, "tunnel closed\n");
    });
}

// The other way round: a client of Python's that does so, and both ends of TLS are ours.
TEST_F(PeersPython, client_of_ours_in_tls_inside_of_tls) {
    run_limited([]() -> Coro<> {
        const Certificates certificates;
        const ssl::Context context = certificates.server();
        auto ends = std::make_shared<Ends>();
        const auto handler = [&](StreamReader reader, StreamWriter writer) -> Coro<> {
            const std::string request = co_await reader.readuntil("\r\n\r\n");
            EXPECT_EQ(request, "CONNECT 127.0.0.1:1 HTTP/1.1\r\n\r\n");
            writer.write("HTTP/1.1 200 OK\r\n\r\n");
            co_await writer.start_tls(context);
            co_await echo(reader, writer, ends);
        };
        co_await expect_client_of(handler, ends, "--port 1" + as_client(certificates) + " --proxy ",
                                  asyncio::ServerOptions().ssl(context));
    });
}

TEST_F(PeersPython, client_of_ours_resets) {
    run_limited([]() -> Coro<> {
        auto server = co_await EchoServer::start();
        auto python = co_await start(script + "client --reset --port " + server->port());
        const std::string end = co_await server->next_end();
        EXPECT_EQ(end, "Connection reset by peer after 10");
        co_await expect_last(*python, "reset\n");
        co_await server->close();
    });
}

TEST_F(PeersPython, server_of_ours_resets) {
    run_limited([]() -> Coro<> {
        auto python = co_await start(script + "server --reset");
        auto streams = co_await connect(*python);
        auto& [reader, writer] = streams;
        writer.write("hello");
        co_await python->line_with("reset");
        auto first = co_await asyncio::as_result(reader.read());
        EXPECT_TRUE(first.failed_with<std::system_error>());
        EXPECT_NE(failure_of(first).find("reset by peer"), std::string::npos) << failure_of(first);
        auto drained = co_await asyncio::as_result(writer.drain());
        EXPECT_FALSE(drained.has_value());
        co_await expect_success(*python);
    });
}

// What Python sees of it when we do so.
TEST_F(PeersPython, is_reset_by_us) {
    run_limited([]() -> Coro<> {
        auto python = co_await start(script + "server");
        auto streams = co_await connect(*python);
        auto& [reader, writer] = streams;
        writer.write("hello");
        const std::string_view first = co_await reader.peek(5);
        EXPECT_EQ(first, "hello");
        const linger at_once = {1, 0};
        ::setsockopt(writer.get_extra_info(asyncio::socket_info).fileno(), SOL_SOCKET, SO_LINGER,
                     &at_once, sizeof at_once);
        writer.abort();
        co_await expect_last(*python,
                             "failed: ConnectionResetError: [Errno 104] Connection reset by "
                             "peer\n");
    });
}

TEST_F(PeersPython, refuses_a_certificate_of_ours_that_it_does_not_trust) {
    run_limited([]() -> Coro<> {
        const Certificates certificates;
        const Certificates others;
        Report report(asyncio::get_running_loop());
        const ssl::Context context = certificates.server();
        auto server = co_await EchoServer::start(asyncio::ServerOptions().ssl(context));
        auto python =
            co_await start(script + "client --port " + server->port() + as_client(others));
        // asyncio leaves the alert unsent, so that we see the end of the connection and no reason.
        const std::string text = co_await report.text();
        EXPECT_NE(text.find("the TLS handshake with a client failed"), std::string::npos) << text;
        EXPECT_NE(text.find("UNEXPECTED_EOF"), std::string::npos) << text;
        const std::string status = co_await python->end();
        EXPECT_EQ(status, "exited with 1");
        EXPECT_NE(python->errors().find("CERTIFICATE_VERIFY_FAILED"), std::string::npos)
            << python->errors();
        co_await server->close();
    });
}

} // namespace
