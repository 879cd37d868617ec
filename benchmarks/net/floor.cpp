// SPDX-License-Identifier: MIT
//
// The least that a server does: epoll at its edges, no library, a struct a connection. A read is
// tried right after an edge, and one that brings less than there is room for says that no more has
// come; so an echo is three system calls. The modes are those of load.cpp; sockets and protocols
// are the same down here.
//
// TLS is OpenSSL on the descriptor itself, watched by its level: a record is read as a whole
// (read_ahead), so that the call which would find nothing is left out too.
#include <arpa/inet.h>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <string_view>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

namespace {

enum class Mode { echo, sink, source };

constexpr std::size_t room = 64 * 1024;
constexpr std::uint64_t sink_unit = 16 * 1024 * 1024;

struct Connection {
    int socket;
    SSL* ssl;
    std::uint64_t moved; // bytes, by a sink or a source
    std::size_t begin;   // what is still to be sent: [begin, end) of `kept`, and then no reading
    std::size_t end;
    char* kept;
};

Mode mode = Mode::echo;
int poll;
int listener;
SSL_CTX* tls;
char buffer[room + 256]; // one for all: what is read is sent at once, or else kept

[[noreturn]] void fail(const char* what) {
    std::perror(what);
    std::exit(1);
}

void end(Connection* connection) {
    SSL_free(connection->ssl);
    close(connection->socket);
    std::free(connection->kept);
    delete connection;
}

// Both return what recv and send do: bytes, 0 for the end, -1 with EAGAIN or an error.
ssize_t result_of(SSL* ssl, int done) {
    if (done > 0) return done;
    switch (SSL_get_error(ssl, done)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        errno = EAGAIN;
        return -1;
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    default:
        ERR_clear_error();
        errno = EPROTO;
        return -1;
    }
}
ssize_t receive(Connection* connection) {
    if (connection->ssl == nullptr) return recv(connection->socket, buffer, room, 0);
    return result_of(connection->ssl, SSL_read(connection->ssl, buffer, room));
}
ssize_t send(Connection* connection, const char* data, std::size_t size) {
    if (connection->ssl == nullptr) return ::send(connection->socket, data, size, MSG_NOSIGNAL);
    return result_of(connection->ssl, SSL_write(connection->ssl, data, static_cast<int>(size)));
}

// TLS is watched by its level, and so for one thing at a time.
void watch(Connection* connection, std::uint32_t events) {
    if (connection->ssl == nullptr) return;
    epoll_event wanted{events, {.ptr = connection}};
    epoll_ctl(poll, EPOLL_CTL_MOD, connection->socket, &wanted);
}

// Sends what is kept; false when the connection is gone or the kernel takes no more for now.
bool send_kept(Connection* connection) {
    while (connection->begin < connection->end) {
        const ssize_t sent = send(connection, connection->kept + connection->begin,
                                  connection->end - connection->begin);
        if (sent < 0) {
            if (errno != EAGAIN) end(connection);
            return false;
        }
        connection->begin += static_cast<std::size_t>(sent);
    }
    watch(connection, EPOLLIN);
    return true;
}
bool echo(Connection* connection, std::size_t size) {
    const ssize_t sent = send(connection, buffer, size);
    if (sent == static_cast<ssize_t>(size)) return true;
    if (sent < 0 && errno != EAGAIN) {
        end(connection);
        return false;
    }
    const std::size_t taken = sent > 0 ? static_cast<std::size_t>(sent) : 0;
    if (connection->kept == nullptr) connection->kept = static_cast<char*>(std::malloc(room));
    connection->begin = 0;
    connection->end = size - taken;
    std::memcpy(connection->kept, buffer + taken, connection->end);
    watch(connection, EPOLLOUT);
    return false;
}

void finish(Connection* connection) {
    if (connection->ssl != nullptr) SSL_shutdown(connection->ssl);
    end(connection);
}

void ready(Connection* connection) {
    if (mode == Mode::source) {
        watch(connection, EPOLLOUT);
        while (true) {
            // The next byte is always the one after the last that the kernel took. As much at once
            // as the others send: what fits into one segment (65,483 bytes here) takes half the
            // time.
            const ssize_t sent = send(connection, buffer + (connection->moved & 0xff), room);
            if (sent < 0) break;
            connection->moved += static_cast<std::uint64_t>(sent);
        }
        if (errno != EAGAIN) end(connection);
        return;
    }
    if (connection->begin < connection->end && !send_kept(connection)) return;
    while (true) {
        const ssize_t length = receive(connection);
        if (length < 0 && errno == EAGAIN) return;
        if (length < 0) return end(connection);
        if (length == 0) return finish(connection);
        const auto size = static_cast<std::size_t>(length);
        if (mode == Mode::sink) {
            connection->moved += size;
            if (connection->moved >= sink_unit) {
                connection->moved -= sink_unit;
                send(connection, ".", 1);
            }
        } else if (!echo(connection, size)) {
            return;
        }
        if (connection->ssl != nullptr ? SSL_has_pending(connection->ssl) == 0 : size < room)
            return;
    }
}

void accept_all() {
    while (true) {
        const int socket = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (socket < 0) return;
        const int yes = 1;
        setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        auto* connection = new Connection{socket, nullptr, 0, 0, 0, nullptr};
        std::uint32_t events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
        if (tls != nullptr) {
            connection->ssl = SSL_new(tls);
            SSL_set_fd(connection->ssl, socket);
            SSL_set_accept_state(connection->ssl);
            events = EPOLLIN;
        }
        epoll_event wanted{events, {.ptr = connection}};
        if (epoll_ctl(poll, EPOLL_CTL_ADD, socket, &wanted) != 0) fail("epoll_ctl");
    }
}

void bind_to_free_port(int socket) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(socket, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) fail("bind");
}
void print_port(int socket) {
    sockaddr_in address{};
    socklen_t size = sizeof address;
    if (getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size) != 0) fail("getsockname");
    std::printf("%d\n", ntohs(address.sin_port));
    std::fflush(stdout);
}

[[noreturn]] void serve() {
    for (std::size_t i = 0; i < sizeof buffer; ++i)
        buffer[i] = static_cast<char>(i); // what a source sends
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener < 0) fail("socket");
    bind_to_free_port(listener);
    if (listen(listener, 1024) != 0) fail("listen");
    print_port(listener);
    poll = epoll_create1(EPOLL_CLOEXEC);
    epoll_event events[256] = {{EPOLLIN | EPOLLET, {.ptr = nullptr}}};
    if (epoll_ctl(poll, EPOLL_CTL_ADD, listener, events) != 0) fail("epoll_ctl");
    while (true) {
        const int count = epoll_wait(poll, events, 256, -1);
        for (int i = 0; i < count; ++i) {
            if (auto* connection = static_cast<Connection*>(events[i].data.ptr)) {
                ready(connection);
            } else {
                accept_all();
            }
        }
    }
}

// As many datagrams in one call as there are, and back in one.
[[noreturn]] void serve_udp() {
    constexpr int batch = 64;
    constexpr std::size_t largest = 2048;
    static char data[batch][largest];
    static sockaddr_in from[batch];
    static iovec pieces[batch];
    static mmsghdr messages[batch];
    const int socket = ::socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (socket < 0) fail("socket");
    bind_to_free_port(socket);
    print_port(socket);
    poll = epoll_create1(EPOLL_CLOEXEC);
    epoll_event event{EPOLLIN | EPOLLET, {.ptr = nullptr}};
    if (epoll_ctl(poll, EPOLL_CTL_ADD, socket, &event) != 0) fail("epoll_ctl");
    for (int i = 0; i < batch; ++i)
        messages[i].msg_hdr = {&from[i], sizeof from[i], &pieces[i], 1, nullptr, 0, 0};
    int used = batch;
    while (true) {
        epoll_wait(poll, &event, 1, -1);
        do {
            for (int i = 0; i < used; ++i) pieces[i] = {data[i], largest};
            used = recvmmsg(socket, messages, batch, 0, nullptr);
            for (int i = 0; i < used; ++i) pieces[i].iov_len = messages[i].msg_len;
            if (used > 0) sendmmsg(socket, messages, static_cast<unsigned>(used), 0);
        } while (used == batch);
    }
}

} // namespace

int main(int argc, char** argv) {
    const std::string_view name = argc > 1 ? argv[1] : "";
    if (name == "--modes") {
        std::puts("streams read peek sockets protocols sink source tls tls_sink tls_source udp");
        return 0;
    }
    if (name == "udp") serve_udp();
    if (name.ends_with("sink")) mode = Mode::sink;
    if (name.ends_with("source")) mode = Mode::source;
    if (name.starts_with("tls")) {
        tls = SSL_CTX_new(TLS_server_method());
        if (argc < 3 || SSL_CTX_use_certificate_chain_file(tls, argv[2]) != 1 ||
            SSL_CTX_use_PrivateKey_file(tls, argv[2], SSL_FILETYPE_PEM) != 1) {
            std::fputs("no certificate\n", stderr);
            return 1;
        }
        SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
        SSL_CTX_set_read_ahead(tls, 1);
    }
    serve();
}
