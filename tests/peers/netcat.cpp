// SPDX-License-Identifier: MIT
// socat and nc at the other end: TCP, Unix sockets with paths and abstract names, UDP.
#include "peers/certificates.hpp"
#include "peers/echo.hpp"

namespace {

using namespace asyncio_test;
namespace ssl = asyncio::ssl;

// Of the name of OpenBSD's, since other programs are called nc too.
#define ASYNCIO_NEED_NC ASYNCIO_NEED("nc.openbsd", "netcat-openbsd")
#define ASYNCIO_NEED_SOCAT ASYNCIO_NEED("socat", "socat")

// 1 MiB through the program to our echo and back, then our end of input, which must end it.
Coro<> expect_client(EchoServer& server, std::string command) {
    auto program = co_await start(std::move(command));
    co_await expect_echo(program->out(), program->in(), mebibyte);
    co_await expect_success(*program);
    EXPECT_EQ(program->rest(), "");
    const std::string end = co_await server.next_end();
    EXPECT_EQ(end, "end after 1048576");
    co_await server.close();
}

// What we write to a server comes out of its output, and what we write to its input comes to us;
// then it ends its side, and we ours after some more.
Coro<> expect_server(Program& program, Streams streams) {
    auto& [reader, writer] = streams;
    co_await expect_both_ways(streams, Streams(program.out(), program.in()), mebibyte);
    program.in().write_eof();
    const std::string end = co_await reader.read();
    EXPECT_EQ(end, "");
    writer.write("after the end");
    const std::string rest = co_await program.out().readexactly(13);
    EXPECT_EQ(rest, "after the end");
    writer.close();
    co_await writer.wait_closed();
    co_await expect_success(program);
}

// A server that does not say when it is ready.
Coro<Streams> open_when_there(std::string path) {
    for (;;) {
        auto opened = co_await asyncio::as_result(asyncio::open_unix_connection(path));
        if (opened.has_value()) co_return *std::move(opened);
        co_await asyncio::sleep(0.005);
    }
}

TEST(PeersNetcat, client_of_ours) {
    ASYNCIO_NEED_NC;
    run_limited([]() -> Coro<> {
        auto server = co_await EchoServer::start();
        co_await expect_client(*server, "nc.openbsd -N 127.0.0.1 " + server->port());
    });
}

TEST(PeersNetcat, client_of_ours_at_a_path) {
    ASYNCIO_NEED_NC;
    run_limited([]() -> Coro<> {
        const TemporaryFolder folder;
        const std::string path = folder.file("socket");
        auto server = co_await EchoServer::start_unix(path);
        co_await expect_client(*server, "nc.openbsd -N -U " + path);
        EXPECT_FALSE(std::filesystem::exists(path));
    });
}

TEST(PeersNetcat, server_of_ours) {
    ASYNCIO_NEED_NC;
    run_limited([]() -> Coro<> {
        auto nc = co_await start("nc.openbsd -v -N -l 127.0.0.1 0", Errors::with_output);
        const std::string line = co_await nc->line_with("Listening on");
        auto streams = co_await asyncio::open_connection("127.0.0.1", number_after(line, ' '));
        co_await nc->line_with("Connection received on");
        co_await expect_server(*nc, streams);
    });
}

TEST(PeersNetcat, server_of_ours_at_a_path) {
    ASYNCIO_NEED_NC;
    run_limited([]() -> Coro<> {
        const TemporaryFolder folder;
        const std::string path = folder.file("socket");
        auto nc = co_await start("nc.openbsd -v -N -l -U " + path, Errors::with_output);
        co_await nc->line_with("Listening on");
        auto streams = co_await asyncio::open_unix_connection(path);
        co_await nc->line_with("Connection received on");
        co_await expect_server(*nc, streams);
    });
}

TEST(PeersNetcat, ends_when_we_do) {
    ASYNCIO_NEED_NC;
    run_limited([]() -> Coro<> {
        const auto handler = [](StreamReader reader, StreamWriter writer) -> Coro<> {
            writer.write("hello\n");
            writer.write_eof();
            // Its side is open still.
            const std::string line = co_await reader.readline();
            EXPECT_EQ(line, "good-bye\n");
        };
        auto server = co_await asyncio::start_server(handler, "127.0.0.1", 0);
        auto nc = co_await start("nc.openbsd -N 127.0.0.1 " +
                                 std::to_string(server.sockets().at(0).port()));
        const std::string line = co_await nc->out().readline();
        EXPECT_EQ(line, "hello\n");
        nc->in().write("good-bye\n");
        co_await expect_success(*nc);
        server.close();
        co_await server.wait_closed();
    });
}

TEST(PeersNetcat, datagrams_to_us) {
    ASYNCIO_NEED_NC;
    run_limited([]() -> Coro<> {
        auto endpoint = co_await asyncio::open_datagram_endpoint(
            asyncio::DatagramOptions().local_addr(asyncio::Address("127.0.0.1", 0)));
        auto nc =
            co_await start("nc.openbsd -u 127.0.0.1 " + std::to_string(endpoint.sockname().port()));
        for (const std::string text : {"hello", "again"}) {
            nc->in().write(text);
            const asyncio::ReceivedFrom got = co_await endpoint.recvfrom();
            EXPECT_EQ(got.data, text);
            co_await endpoint.sendto(got.data + ", you", got.address);
            const std::string answer = co_await nc->out().readexactly(text.size() + 5);
            EXPECT_EQ(answer, text + ", you");
        }
    });
}

TEST(PeersNetcat, datagrams_from_us) {
    ASYNCIO_NEED_NC;
    run_limited([]() -> Coro<> {
        auto nc = co_await start("nc.openbsd -v -u -l 127.0.0.1 0", Errors::with_output);
        const std::string line = co_await nc->line_with("Bound on");
        auto endpoint =
            co_await asyncio::open_datagram_endpoint(asyncio::DatagramOptions().remote_addr(
                asyncio::Address("127.0.0.1", number_after(line, ' '))));
        co_await endpoint.send("hello\n");
        co_await nc->line_with("hello");
        nc->in().write("good-bye");
        const std::string answer = co_await endpoint.recv();
        EXPECT_EQ(answer, "good-bye");
        // Nobody is there any more, and an await says so.
        nc->signal(SIGKILL);
        const std::string status = co_await nc->end();
        EXPECT_EQ(status, "killed by signal 9");
        co_await endpoint.send("are you there?");
        auto refused = co_await asyncio::as_result(endpoint.recv());
        EXPECT_NE(failure_of(refused).find("refused"), std::string::npos) << failure_of(refused);
    });
}

TEST(PeersSocat, client_of_ours) {
    ASYNCIO_NEED_SOCAT;
    run_limited([]() -> Coro<> {
        auto server = co_await EchoServer::start();
        co_await expect_client(*server, "socat -t 10 - TCP4:127.0.0.1:" + server->port());
    });
}

TEST(PeersSocat, client_of_ours_at_a_path) {
    ASYNCIO_NEED_SOCAT;
    run_limited([]() -> Coro<> {
        const TemporaryFolder folder;
        const std::string path = folder.file("socket");
        auto server = co_await EchoServer::start_unix(path);
        co_await expect_client(*server, "socat -t 10 - UNIX-CONNECT:" + path);
    });
}

TEST(PeersSocat, client_of_ours_at_an_abstract_name) {
    ASYNCIO_NEED_SOCAT;
    run_limited([]() -> Coro<> {
        const std::string name = "asyncio_peers_" + std::to_string(::getpid());
        auto server = co_await EchoServer::start_unix(std::string(1, '\0') + name);
        co_await expect_client(*server, "socat -t 10 - ABSTRACT-CONNECT:" + name);
    });
}

TEST(PeersSocat, server_of_ours) {
    ASYNCIO_NEED_SOCAT;
    run_limited([]() -> Coro<> {
        auto socat =
            co_await start("socat -d -d -t 10 TCP4-LISTEN:0,bind=127.0.0.1 -", Errors::with_output);
        const std::string line = co_await socat->line_with("listening on");
        auto streams = co_await asyncio::open_connection("127.0.0.1", number_after(line, ':'));
        co_await socat->line_with("starting data transfer loop");
        // Its messages stand between what comes out: this is for the other way.
        const std::string data = some_bytes(mebibyte);
        auto writing = asyncio::create_task(write_all(socat->in(), data));
        const std::string back = co_await streams.first.readexactly(mebibyte);
        co_await writing;
        EXPECT_TRUE(back == data);
        streams.second.write_eof();
        co_await socat->line_with("is at EOF");
        socat->in().write("after the end");
        socat->in().write_eof();
        const std::string rest = co_await streams.first.read();
        EXPECT_EQ(rest, "after the end");
        co_await expect_success(*socat);
    });
}

TEST(PeersSocat, server_of_ours_at_a_path) {
    ASYNCIO_NEED_SOCAT;
    run_limited([]() -> Coro<> {
        const TemporaryFolder folder;
        const std::string path = folder.file("socket");
        auto socat = co_await start("socat -t 10 UNIX-LISTEN:" + path + " -");
        auto streams = co_await open_when_there(path);
        co_await expect_server(*socat, streams);
    });
}

TEST(PeersSocat, server_of_ours_at_an_abstract_name) {
    ASYNCIO_NEED_SOCAT;
    run_limited([]() -> Coro<> {
        const std::string name = "asyncio_peers_of_socat_" + std::to_string(::getpid());
        auto socat = co_await start("socat -t 10 ABSTRACT-LISTEN:" + name + " -");
        auto streams = co_await open_when_there(std::string(1, '\0') + name);
        co_await expect_server(*socat, streams);
    });
}

TEST(PeersSocat, datagrams_echoed_by_us) {
    ASYNCIO_NEED_SOCAT;
    run_limited([]() -> Coro<> {
        auto endpoint = co_await asyncio::open_datagram_endpoint(
            asyncio::DatagramOptions().local_addr(asyncio::Address("127.0.0.1", 0)));
        auto socat = co_await start("socat -b 65000 - UDP4:127.0.0.1:" +
                                    std::to_string(endpoint.sockname().port()));
        for (const std::size_t size : {1u, 1000u, 20'000u}) {
            const std::string data = some_bytes(size);
            socat->in().write(data);
            const asyncio::ReceivedFrom got = co_await endpoint.recvfrom();
            EXPECT_TRUE(got.data == data) << got.data.size() << " of " << size;
            co_await endpoint.sendto(got.data, got.address);
            const std::string back = co_await socat->out().readexactly(size);
            EXPECT_TRUE(back == data);
        }
    });
}

TEST(PeersSocat, datagrams_echoed_by_it) {
    ASYNCIO_NEED_SOCAT;
    run_limited([]() -> Coro<> {
        auto socat = co_await start("socat -d -d -b 65000 UDP4-LISTEN:0,bind=127.0.0.1 EXEC:cat",
                                    Errors::with_output);
        const std::string line = co_await socat->line_with("listening on");
        auto endpoint =
            co_await asyncio::open_datagram_endpoint(asyncio::DatagramOptions().remote_addr(
                asyncio::Address("127.0.0.1", number_after(line, ':'))));
        for (const std::size_t size : {1u, 1000u, 20'000u}) {
            const std::string data = some_bytes(size);
            co_await endpoint.send(data);
            const std::string back = co_await endpoint.recv();
            EXPECT_TRUE(back == data) << back.size() << " of " << size;
        }
    });
}

TEST(PeersSocat, datagrams_of_a_unix_socket) {
    ASYNCIO_NEED_SOCAT;
    run_limited([]() -> Coro<> {
        const TemporaryFolder folder;
        const std::string ours = folder.file("ours");
        auto endpoint = co_await asyncio::open_datagram_endpoint(
            asyncio::DatagramOptions().local_addr(asyncio::Address::unix_path(ours)));
        auto socat =
            co_await start("socat - UNIX-CLIENT:" + ours + ",type=2,bind=" + folder.file("theirs"));
        socat->in().write("hello");
        const asyncio::ReceivedFrom got = co_await endpoint.recvfrom();
        EXPECT_EQ(got.data, "hello");
        EXPECT_EQ(got.address.path(), folder.file("theirs"));
        co_await endpoint.sendto("good-bye", got.address);
        const std::string answer = co_await socat->out().readexactly(8);
        EXPECT_EQ(answer, "good-bye");
    });
}

// A server that speaks TLS is spoken to in something else, which ends that connection and no other.
Coro<> expect_server_survives(std::string sent, std::string reason) {
    const Certificates certificates;
    Report report(asyncio::get_running_loop());
    const ssl::Context context = certificates.server();
    auto server = co_await EchoServer::start(asyncio::ServerOptions().ssl(context));
    auto nc = co_await start("nc.openbsd -N 127.0.0.1 " + server->port());
    nc->in().write(sent);
    const std::string text = co_await report.text();
    EXPECT_NE(text.find("the TLS handshake with a client failed"), std::string::npos) << text;
    EXPECT_NE(text.find(reason), std::string::npos) << text;
    const std::string status = co_await nc->end();
    // An alert at most.
    EXPECT_LE(nc->rest().size(), 7u) << status;

    const ssl::Context client = certificates.client();
    asyncio::ConnectionOptions options;
    options.ssl(client);
    auto streams = co_await asyncio::open_connection("127.0.0.1", server->port_number(), options);
    co_await expect_echo(streams.first, streams.second, 1000);
    streams.second.close();
    co_await streams.second.wait_closed();
    co_await server->close();
}

TEST(PeersNetcat, speaks_plain_text_to_our_tls) {
    ASYNCIO_NEED_NC;
    run_limited([]() -> Coro<> {
        co_await expect_server_survives("GET / HTTP/1.0\r\n\r\n", "HTTP_REQUEST");
    });
}

TEST(PeersNetcat, speaks_garbage_to_our_tls) {
    ASYNCIO_NEED_NC;
    run_limited([]() -> Coro<> {
        co_await expect_server_survives(some_bytes(1000), "WRONG_VERSION_NUMBER");
    });
}

// It begins as TLS does.
TEST(PeersNetcat, speaks_garbage_in_a_record_of_tls) {
    ASYNCIO_NEED_NC;
    run_limited([]() -> Coro<> {
        co_await expect_server_survives(std::string("\x16\x03\x01\x01\x00", 5) + some_bytes(256),
                                        "UNEXPECTED_MESSAGE");
    });
}

TEST(PeersNetcat, answers_our_tls_in_plain_text) {
    ASYNCIO_NEED_NC;
    run_limited([]() -> Coro<> {
        auto nc = co_await start("nc.openbsd -v -N -l 127.0.0.1 0", Errors::with_output);
        const std::string line = co_await nc->line_with("Listening on");
        nc->in().write("220 smtp.example.org, and not TLS\r\n");
        const ssl::Context context(ssl::PROTOCOL_TLS_CLIENT);
        asyncio::ConnectionOptions options;
        options.ssl(context).server_hostname("localhost");
        auto opened = co_await asyncio::as_result(
            asyncio::open_connection("127.0.0.1", number_after(line, ' '), options));
        EXPECT_TRUE(opened.failed_with<ssl::Error>()) << failure_of(opened);
        EXPECT_NE(failure_of(opened).find("localhost"), std::string::npos) << failure_of(opened);
    });
}

} // namespace
