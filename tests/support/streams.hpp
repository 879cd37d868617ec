// SPDX-License-Identifier: MIT
// A stream, and the socket at its other end, by which a test decides what comes in which pieces.
//
//     auto ends = co_await stream_and_socket();
//     co_await asyncio::sock_sendall(ends.peer, "hello");
//     const std::string text = co_await ends.reader.read(10);
#pragma once

#include <asyncio/asyncio.hpp>

#include <memory>
#include <string>
#include <sys/socket.h>
#include <utility>

namespace asyncio_test {

struct StreamAndSocket {
    StreamAndSocket(asyncio::Streams streams, asyncio::Socket other)
        : reader(std::move(streams.first)), writer(std::move(streams.second)),
          peer(std::move(other)) {}

    asyncio::StreamReader reader;
    asyncio::StreamWriter writer;
    asyncio::Socket peer;
};

inline asyncio::Coro<StreamAndSocket> stream_and_socket(asyncio::ConnectionOptions options = {}) {
    asyncio::Socket listener(AF_INET, SOCK_STREAM);
    listener.bind(asyncio::Address("127.0.0.1", 0));
    listener.listen();
    asyncio::Socket socket(AF_INET, SOCK_STREAM);
    co_await asyncio::sock_connect(socket, listener.getsockname());
    options.sock(std::move(socket));
    auto streams = co_await asyncio::open_connection(options);
    asyncio::Accepted accepted = co_await asyncio::sock_accept(listener);
    co_return StreamAndSocket(std::move(streams), std::move(accepted.socket));
}

// Lets the kernel keep little of what is written, so that the rest is kept by the stream.
inline void make_small(const asyncio::StreamWriter& writer) {
    writer.get_extra_info(asyncio::socket_info).setsockopt(SOL_SOCKET, SO_SNDBUF, 4096);
}

// Closes the socket so that the other end is told of a reset.
inline void reset(asyncio::Socket& socket) {
    const linger at_once{1, 0};
    ::setsockopt(socket.fileno(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    socket.close();
}

inline asyncio::Coro<> some_turns(int count = 4) {
    for (int i = 0; i < count; ++i) co_await asyncio::sleep(0);
}

// The same on a pair of Unix sockets, for which nothing is waited.
inline asyncio::Coro<StreamAndSocket> stream_and_socket_of_unix() {
    auto both = asyncio::Socket::pair();
    asyncio::ConnectionOptions options;
    options.sock(std::move(both.first));
    auto streams = co_await asyncio::open_connection(options);
    co_return StreamAndSocket(std::move(streams), std::move(both.second));
}

// Takes turns while somebody else has the token: where waiting for the kernel alone is taken to
// hang.
inline asyncio::Coro<> tick(std::shared_ptr<int> token) {
    while (token.use_count() > 1) co_await asyncio::sleep(0);
}

} // namespace asyncio_test
