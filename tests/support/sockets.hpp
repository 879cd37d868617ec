// SPDX-License-Identifier: MIT
// Sockets for tests: listening, connected to each other, and what their awaits have failed with.
#pragma once

#include <asyncio/asyncio.hpp>
#include <gtest/gtest.h>

#include "support/in_virtual_time.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

namespace asyncio_test {

// On a free port of 127.0.0.1, unless another address is given.
inline asyncio::Socket listening(const asyncio::Address& address = asyncio::Address("127.0.0.1",
                                                                                    0)) {
    asyncio::Socket socket(address.family(), SOCK_STREAM);
    socket.bind(address);
    socket.listen();
    return socket;
}

// The client's end and the server's.
using Ends = std::pair<asyncio::Socket, asyncio::Socket>;
inline asyncio::Coro<Ends> connected(asyncio::Address address = asyncio::Address("127.0.0.1", 0)) {
    const asyncio::Socket server = listening(address);
    asyncio::Socket client(address.family(), SOCK_STREAM);
    co_await asyncio::sock_connect(client, server.getsockname());
    asyncio::Accepted accepted = co_await asyncio::sock_accept(server);
    co_return Ends(std::move(client), std::move(accepted.socket));
}

// To be made a task of: a handle and not a copy of the socket.
inline asyncio::Coro<std::string> receive(const asyncio::Socket& socket, std::size_t size) {
    co_return co_await asyncio::sock_recv(socket, size);
}
// Until the peer ends, or there are so many bytes.
inline asyncio::Coro<std::string> receive_all(const asyncio::Socket& socket,
                                              std::size_t most = SIZE_MAX) {
    std::string all;
    while (all.size() < most) {
        const std::string data = co_await asyncio::sock_recv(socket, 65536);
        if (data.empty()) break;
        all += data;
    }
    co_return all;
}
inline asyncio::Coro<> send(const asyncio::Socket& socket, std::string data) {
    co_await asyncio::sock_sendall(socket, data);
}

// "exception: text of it", "CancelledError: ", or "null" if it has given a result.
template <class T> std::string failure_of(const asyncio::Result<T>& result) {
    return text_of(result.exception());
}

// The same, or what it has given in quotes.
inline std::string outcome_of(const asyncio::Result<std::string>& result) {
    return result ? "'" + *result + "'" : failure_of(result);
}

// The peer is told of a reset, and not of an end.
inline void reset(asyncio::Socket& socket) {
    const linger at_once{.l_onoff = 1, .l_linger = 0};
    socket.setsockopt(
        SOL_SOCKET, SO_LINGER,
        asyncio::ReadableBytes(reinterpret_cast<const char*>(&at_once), sizeof at_once));
    socket.close();
}

} // namespace asyncio_test
