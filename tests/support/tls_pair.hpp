// SPDX-License-Identifier: MIT
// Two ends of TLS back to back in memory.
//
//     TlsPair pair(client_context, server_context, "localhost");
//     pair.handshake();
//     EXPECT_EQ(pair.server_reads(pair.client_writes("hello")), "hello");
//
// What one end puts out is fed to the other in pieces of `chunk` bytes, with a step after each.
#pragma once

#include <asyncio/ssl.hpp>

#include <algorithm>
#include <exception>
#include <memory>
#include <string>
#include <string_view>

namespace asyncio_test {

using TlsSession = asyncio::detail::TlsSession;
using TlsStatus = TlsSession::Status;

// What an exception says; "" if there is none.
inline std::string tls_error(const std::exception_ptr& error) {
    if (error == nullptr) return {};
    try {
        std::rethrow_exception(error);
    } catch (const std::exception& e) {
        return e.what();
    } catch (...) {
        return "something else";
    }
}

struct TlsEnd {
    std::unique_ptr<TlsSession> session = nullptr;
    TlsStatus status = TlsStatus::want_input; // of the last step
    std::string received = {};

    const asyncio::ssl::Object& object() const { return session->object(); }
    std::string error() const { return tls_error(session->error()); }
    // Throws what it failed by.
    void rethrow() const {
        if (session->error() != nullptr) std::rethrow_exception(session->error());
    }

    void step_handshake() {
        if (status == TlsStatus::want_input) status = session->handshake();
    }
    // All that can be read.
    void step_read() {
        char buffer[5000];
        std::size_t count = 0;
        while ((status = session->read(buffer, count)) == TlsStatus::done)
            received.append(buffer, count);
    }
};

struct TlsPair {
    TlsEnd client;
    TlsEnd server;
    std::size_t chunk;

    TlsPair(const asyncio::ssl::Context& client_context,
            const asyncio::ssl::Context& server_context, const std::string& host,
            std::size_t chunk_size = std::string::npos,
            const asyncio::ssl::Session* session = nullptr)
        : chunk(chunk_size) {
        client.session = client_context.tls()->client(host, session);
        server.session = server_context.tls()->server();
    }

    // Carries over what there is; true if there was something.
    template <class Step> bool carry(TlsEnd& from, TlsEnd& to, Step step) const {
        bool any = false;
        while (!from.session->output().empty()) {
            const std::string piece(from.session->output().substr(0, chunk));
            from.session->take_output(piece.size());
            to.session->feed(piece);
            step(to);
            any = true;
        }
        return any;
    }

    // True if both are done.
    bool handshake() {
        const auto step = [](TlsEnd& end) { end.step_handshake(); };
        client.step_handshake();
        bool moved = true;
        while (moved) {
            moved = carry(client, server, step);
            moved = carry(server, client, step) || moved;
        }
        return client.status == TlsStatus::done && server.status == TlsStatus::done;
    }

    // Each end reads what there is, until nothing moves any more: tickets, say.
    void settle() {
        const auto step = [](TlsEnd& end) { end.step_read(); };
        client.step_read();
        server.step_read();
        bool moved = true;
        while (moved) {
            moved = carry(client, server, step);
            moved = carry(server, client, step) || moved;
        }
    }

    // What `to` receives of it.
    std::string send(TlsEnd& from, TlsEnd& to, std::string_view data) {
        if ((from.status = from.session->write(data)) != TlsStatus::done) return from.error();
        to.received.clear();
        carry(from, to, [](TlsEnd& end) { end.step_read(); });
        return to.received;
    }
};

} // namespace asyncio_test
