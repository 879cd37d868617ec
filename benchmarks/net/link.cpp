// SPDX-License-Identifier: MIT
#include "link.hpp"

#include <cerrno>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stdexcept>
#include <string>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <system_error>
#include <unistd.h>

namespace net {

void fail(const char* what) { throw std::system_error(errno, std::generic_category(), what); }

void fail_tls(const char* what) {
    char text[256] = "the connection broke";
    if (const unsigned long code = ERR_get_error()) ERR_error_string_n(code, text, sizeof text);
    throw std::runtime_error(std::string(what) + ": " + text);
}

SSL_CTX* tls_context() {
    SSL_CTX* context = SSL_CTX_new(TLS_client_method());
    if (context == nullptr || SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256") != 1 ||
        SSL_CTX_set1_groups_list(context, "X25519") != 1) {
        fail_tls("cannot set TLS up");
    }
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_read_ahead(context, 1);
    return context;
}

Link::Link(int epoll, std::uint16_t port, SSL_CTX* tls, void* owner, int source)
    : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) {
    if (socket_ < 0) fail("socket");
    const int yes = 1;
    setsockopt(socket_, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    if (source > 0) {
        // The port is chosen in connect, where only the pair of both ends has to be new.
        setsockopt(socket_, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes);
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK + static_cast<unsigned>(source));
        if (bind(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) fail("bind");
    }
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 &&
        errno != EINPROGRESS) {
        fail("connect");
    }
    if (tls != nullptr) {
        ssl_ = SSL_new(tls);
        if (ssl_ == nullptr || SSL_set_fd(ssl_, socket_) != 1) fail_tls("no TLS connection");
        SSL_set_connect_state(ssl_);
    }
    epoll_event wanted{EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, {.ptr = owner}};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, socket_, &wanted) != 0) fail("epoll_ctl");
}

Link::~Link() {
    SSL_free(ssl_);
    close(socket_);
}

bool Link::established() {
    if (connected_) return true;
    if (ssl_ != nullptr) {
        ERR_clear_error();
        const int done = SSL_do_handshake(ssl_);
        if (done != 1) {
            const int error = SSL_get_error(ssl_, done);
            if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return false;
            fail_tls("no handshake");
        }
    }
    return connected_ =
               true; // a plain one is, when it is said to be ready; or the first call tells
}

long Link::receive(char* data, std::size_t size) {
    if (ssl_ == nullptr) {
        const ssize_t length = recv(socket_, data, size, 0);
        if (length < 0 && errno != EAGAIN) fail("recv");
        return length < 0 ? nothing_now : length;
    }
    std::size_t length = 0;
    ERR_clear_error();
    const int done = SSL_read_ex(ssl_, data, size, &length);
    if (done == 1) return static_cast<long>(length);
    const int error = SSL_get_error(ssl_, done);
    if (error == SSL_ERROR_ZERO_RETURN) return 0;
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return nothing_now;
    fail_tls("SSL_read");
}

long Link::send(const char* data, std::size_t size) {
    if (ssl_ == nullptr) {
        const ssize_t length = ::send(socket_, data, size, MSG_NOSIGNAL);
        if (length < 0 && errno != EAGAIN) fail("send");
        return length < 0 ? nothing_now : length;
    }
    std::size_t length = 0;
    ERR_clear_error();
    const int done = SSL_write_ex(ssl_, data, size, &length);
    if (done == 1) return static_cast<long>(length);
    const int error = SSL_get_error(ssl_, done);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return nothing_now;
    fail_tls("SSL_write");
}

void Link::send_end() {
    if (ssl_ != nullptr) SSL_shutdown(ssl_);
    shutdown(socket_, SHUT_WR);
}

bool Link::peer_has_closed() {
    char ignored[4096];
    ssize_t length = 0;
    while ((length = recv(socket_, ignored, sizeof ignored, 0)) > 0) {
    }
    if (length < 0 && errno != EAGAIN && errno != ECONNRESET) fail("recv");
    return length == 0 || errno == ECONNRESET;
}

} // namespace net
