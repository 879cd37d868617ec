// SPDX-License-Identifier: MIT
//
// Our servers, as they would be written in Python: see peers/servers.py. `streams` reads into a
// buffer of the handler's, as the peers with a buffer to read into do; `read` is the same with a
// string for each message, as in Python, and `peek` copies nothing. The modes are those of
// load.cpp.
#include <asyncio/asyncio.hpp>
#include <asyncio/ssl.hpp>

#include <array>
#include <cstddef>
#include <cstdio>
#include <memory>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace {

using asyncio::Coro;
using asyncio::Socket;
using asyncio::StreamReader;
using asyncio::StreamWriter;

constexpr std::size_t room = std::size_t{64} * 1024;
constexpr std::size_t sink_unit = std::size_t{16} * 1024 * 1024;

void print_port(const asyncio::Address& address) {
    std::printf("%d\n", address.port());
    std::fflush(stdout);
}

// ---- Streams

Coro<> echo(StreamReader reader, StreamWriter writer) {
    std::vector<char> buffer(room);
    while (true) {
        const std::size_t length = co_await reader.read_into(buffer);
        if (length == 0) break;
        writer.write(std::string_view(buffer.data(), length));
        co_await writer.drain();
    }
}

Coro<> echo_by_read(StreamReader reader, StreamWriter writer) {
    while (true) {
        const std::string data = co_await reader.read(room);
        if (data.empty()) break;
        writer.write(data);
        co_await writer.drain();
    }
}

Coro<> echo_by_peek(StreamReader reader, StreamWriter writer) {
    while (true) {
        const std::string_view data = co_await reader.peek();
        if (data.empty()) break;
        writer.write(data);
        reader.consume(data.size());
        co_await writer.drain();
    }
}

Coro<> sink(StreamReader reader, StreamWriter writer) {
    std::vector<char> buffer(room);
    std::size_t received = 0;
    while (true) {
        const std::size_t length = co_await reader.read_into(buffer);
        if (length == 0) break;
        received += length;
        if (received < sink_unit) continue;
        received -= sink_unit;
        writer.write(".");
        co_await writer.drain();
    }
}

Coro<> source(StreamReader, StreamWriter writer) {
    std::string block(room, '\0');
    for (std::size_t i = 0; i < room; ++i) block[i] = static_cast<char>(i);
    while (true) {
        writer.write(block);
        co_await writer.drain();
    }
}

// What a client does that goes away is no error here.
template <Coro<> (*serve)(StreamReader, StreamWriter)>
Coro<> handle(StreamReader reader, StreamWriter writer) {
    try {
        co_await serve(std::move(reader), std::move(writer));
    } catch (const std::system_error&) {
    }
}

template <Coro<> (*serve)(StreamReader, StreamWriter)> Coro<> streams(std::string certificate) {
    auto options = asyncio::ServerOptions().backlog(1024);
    if (!certificate.empty()) {
        asyncio::ssl::Context context(asyncio::ssl::PROTOCOL_TLS_SERVER);
        context.load_cert_chain(certificate);
        options.ssl(context);
    }
    auto server = co_await asyncio::start_server(handle<serve>, "127.0.0.1", 0, options);
    print_port(server.sockets().front());
    co_await server.serve_forever();
}

// ---- Sockets

Coro<> echo_by_socket(Socket socket) {
    std::vector<char> buffer(room);
    try {
        while (true) {
            const std::size_t length = co_await asyncio::sock_recv_into(socket, buffer);
            if (length == 0) break;
            co_await asyncio::sock_sendall(socket, std::string_view(buffer.data(), length));
        }
    } catch (const std::system_error&) {
    }
}

Coro<> sockets() {
    Socket listener(AF_INET, SOCK_STREAM);
    listener.bind(asyncio::Address("127.0.0.1", 0));
    listener.listen(1024);
    print_port(listener.getsockname());
    while (true) {
        asyncio::Accepted accepted = co_await asyncio::sock_accept(listener);
        accepted.socket.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1);
        static_cast<void>(asyncio::create_task(echo_by_socket(std::move(accepted.socket))));
    }
}

// ---- Protocols

struct Echo : asyncio::Protocol {
    void connection_made(asyncio::Transport made) override { transport = std::move(made); }
    void data_received(std::string_view data) override { transport.write(data); }
    // The peer does not read: neither do we.
    void pause_writing() override { transport.pause_reading(); }
    void resume_writing() override { transport.resume_reading(); }

    asyncio::Transport transport;
};

Coro<> protocols() {
    auto server =
        co_await asyncio::create_server([] { return std::make_shared<Echo>(); }, "127.0.0.1", 0,
                                        asyncio::ServerOptions().backlog(1024));
    print_port(server.sockets().front());
    co_await server.serve_forever();
}

// ---- Datagrams, in batches

Coro<> datagrams() {
    auto endpoint = co_await asyncio::open_datagram_endpoint(
        asyncio::DatagramOptions().local_addr(asyncio::Address("127.0.0.1", 0)));
    print_port(endpoint.sockname());
    constexpr std::size_t largest = 2048;
    std::vector<char> buffers(endpoint.most_at_once * largest);
    std::vector<asyncio::DatagramSlot> slots;
    for (std::size_t i = 0; i < endpoint.most_at_once; ++i)
        slots.emplace_back(asyncio::WritableBytes(buffers.data() + i * largest, largest));
    std::vector<asyncio::OutgoingDatagram> answers;
    while (true) {
        const std::size_t count = co_await endpoint.recvmany(slots);
        answers.clear();
        for (std::size_t i = 0; i < count; ++i)
            answers.push_back({slots[i].data(), slots[i].address()});
        std::size_t sent = 0;
        while (sent < count) sent += co_await endpoint.sendmany(std::span(answers).subspan(sent));
    }
}

Coro<> serve(std::string mode, std::string certificate) {
    if (mode == "udp") {
        co_await datagrams();
    } else if (mode == "sockets") {
        co_await sockets();
    } else if (mode == "protocols") {
        co_await protocols();
    } else if (mode == "read") {
        co_await streams<echo_by_read>("");
    } else if (mode == "peek") {
        co_await streams<echo_by_peek>("");
    } else if (mode.ends_with("sink")) {
        co_await streams<sink>(certificate);
    } else if (mode.ends_with("source")) {
        co_await streams<source>(certificate);
    } else {
        co_await streams<echo>(certificate);
    }
}

} // namespace

int main(int argc, char** argv) {
    const std::string mode = argc > 1 ? argv[1] : "";
    if (mode == "--modes") {
        std::puts("streams read peek sockets protocols sink source tls tls_sink tls_source udp");
        return 0;
    }
    asyncio::run(serve(mode, argc > 2 ? argv[2] : ""));
}
