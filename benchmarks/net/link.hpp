// SPDX-License-Identifier: MIT
//
// A connection of the generator's, plain or with TLS: non-blocking, on loopback, registered at its
// edges. What it returns says how many bytes went through; nothing is kept or copied in here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <netinet/in.h>
#include <openssl/ssl.h>

namespace net {

// Throws with what the system, or OpenSSL, says of the last call.
[[noreturn]] void fail(const char* what);
[[noreturn]] void fail_tls(const char* what);

// TLS 1.3 with X25519 and AES-128-GCM, whatever a server would rather have: so all do the same
// work. The certificate is not looked at, its signature is.
SSL_CTX* tls_context();

class Link {
  public:
    static constexpr long nothing_now = -1; // wait for the next edge

    // Connects to this port of 127.0.0.1. `source` above 0 is the last number of a loopback address
    // to come from: one address has only 28,000 ports, and each is held back after its use.
    Link(int epoll, std::uint16_t port, SSL_CTX* tls, void* owner, int source = 0);
    ~Link();
    Link(const Link&) = delete;
    Link& operator=(const Link&) = delete;

    // Is it connected, and the handshake done? Each call does what can be done now.
    bool established();

    // Bytes moved, 0 for the peer's end, or nothing_now.
    long receive(char* data, std::size_t size);
    long send(const char* data, std::size_t size);

    // Says that no more will be sent, in TLS's way and in TCP's. Then: has the peer closed too?
    // What else it sends is not looked at.
    void send_end();
    bool peer_has_closed();

  private:
    int socket_;
    SSL* ssl_ = nullptr;
    bool connected_ = false;
};

} // namespace net
