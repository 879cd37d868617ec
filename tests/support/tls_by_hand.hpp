// SPDX-License-Identifier: MIT
// A server's end of TLS on a socket of the test's own, by which it decides what is read, and when
// which side ends.
//
//     TlsByHand peer(std::move(socket), server_context());
//     co_await peer.handshake();
//     co_await peer.end_tls();                       // and it goes on reading
//     const std::string all = co_await peer.rest();
#pragma once

#include "support/tls_pair.hpp"

#include <asyncio/asyncio.hpp>
#include <asyncio/ssl.hpp>

#include <string>
#include <utility>

namespace asyncio_test {

class TlsByHand {
  public:
    TlsByHand(asyncio::Socket socket, const asyncio::ssl::Context& context)
        : socket_(std::move(socket)) {
        end_.session = context.tls()->server();
    }

    asyncio::Socket& socket() noexcept { return socket_; }
    TlsStatus status() const noexcept { return end_.status; }

    asyncio::Coro<> handshake() {
        end_.step_handshake();
        while (end_.status == TlsStatus::want_input) {
            co_await feed();
            end_.step_handshake();
            co_await flush();
        }
    }
    // Sends a close_notify and waits for none.
    asyncio::Coro<> end_tls() {
        end_.session->shutdown();
        co_await flush();
    }
    // All that comes until the peer ends, in whatever way: status() tells it.
    asyncio::Coro<std::string> rest() {
        end_.status = TlsStatus::want_input;
        while (end_.status == TlsStatus::want_input) {
            co_await feed();
            end_.step_read();
        }
        co_return std::move(end_.received);
    }

  private:
    asyncio::Coro<> feed() {
        const std::string data = co_await asyncio::sock_recv(socket_, 65536);
        if (data.empty()) {
            end_.session->feed_eof();
        } else {
            end_.session->feed(data);
        }
    }
    asyncio::Coro<> flush() {
        const std::string output(end_.session->output());
        end_.session->take_output(output.size());
        co_await asyncio::sock_sendall(socket_, output);
    }

    asyncio::Socket socket_;
    TlsEnd end_;
};

} // namespace asyncio_test
