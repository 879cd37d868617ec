// SPDX-License-Identifier: MIT
// Servers of streams over TLS on this machine, and clients that trust them.
//
//     auto server = co_await serve(echo);
//     auto [reader, writer] = co_await connect(port_of(server));
//     ...
//     co_await stop(server);
#pragma once

#include "support/tls_contexts.hpp"

#include <asyncio/asyncio.hpp>
#include <asyncio/ssl.hpp>

#include <cstdint>
#include <string>

namespace asyncio_test {

// Sends back what comes, until the end.
inline asyncio::Coro<> echo(asyncio::StreamReader reader, asyncio::StreamWriter writer) {
    for (;;) {
        const std::string data = co_await reader.read(65536);
        if (data.empty()) break;
        writer.write(data);
        co_await writer.drain();
    }
    writer.close();
}

template <class Handler>
asyncio::Coro<asyncio::Server> serve(Handler handler,
                                     asyncio::ssl::Context context = server_context()) {
    auto server = co_await asyncio::start_server(handler, "127.0.0.1", 0,
                                                 asyncio::ServerOptions().ssl(context));
    co_return server;
}
inline std::uint16_t port_of(const asyncio::Server& server) {
    return server.sockets().at(0).port();
}
// With nobody connected any more.
inline asyncio::Coro<> stop(asyncio::Server server) {
    server.close();
    co_await server.wait_closed();
}

inline asyncio::ConnectionOptions trusting() {
    return asyncio::ConnectionOptions().ssl(client_context());
}
inline asyncio::Coro<asyncio::Streams> connect(std::uint16_t port,
                                               asyncio::ConnectionOptions options = trusting()) {
    auto streams = co_await asyncio::open_connection("127.0.0.1", port, options);
    co_return streams;
}

} // namespace asyncio_test
