// SPDX-License-Identifier: MIT
// How connections are made: what open_connection() and create_connection() have in common.
//
//     asyncio::open_connection("example.org", 443,
//                              asyncio::ConnectionOptions().ssl(context).happy_eyeballs_delay(250ms));
//
// A host is resolved, its addresses are tried, and the socket that has connected becomes a pair of
// streams, or a transport with a protocol.
#pragma once

#include <asyncio/clock.hpp>
#include <asyncio/coroutine.hpp>
#include <asyncio/detail/connection.hpp>
#include <asyncio/detail/tls.hpp>
#include <asyncio/sockets.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

ASYNCIO_BEGIN_NAMESPACE

// How open_connection() and create_connection() connect. Chained setters.
class ASYNCIO_API ConnectionOptions {
  public:
    ConnectionOptions() noexcept = default;
    // Out of line: inlined, they make GCC 12 warn of members that are not initialized.
    ConnectionOptions(const ConnectionOptions& other);
    ConnectionOptions(ConnectionOptions&& other) noexcept;
    ConnectionOptions& operator=(const ConnectionOptions& other);
    ConnectionOptions& operator=(ConnectionOptions&& other) noexcept;
    ~ConnectionOptions();

    // Of streams: the limit of the reader. Default: 64 KiB. Throws ValueError for 0.
    ConnectionOptions& limit(std::size_t limit) {
        limit_ = detail::checked_limit(limit);
        return *this;
    }
    // AF_INET or AF_INET6. Default: both.
    ConnectionOptions& family(int family) noexcept {
        family_ = family;
        return *this;
    }
    // Of getaddrinfo. Default: none.
    ConnectionOptions& flags(int flags) noexcept {
        flags_ = flags;
        return *this;
    }
    // Takes over a socket that is connected, in place of host and port.
    ConnectionOptions& sock(Socket socket) {
        sock_ = std::make_shared<Socket>(std::move(socket));
        return *this;
    }
    // Binds to this host and port first.
    ConnectionOptions& local_addr(std::string host, int port = 0) {
        local_host_ = std::move(host);
        local_port_ = port;
        return *this;
    }
    // RFC 8305: if an address has not answered after this time, the next one is tried beside it.
    // Default: one address after the other.
    ConnectionOptions& happy_eyeballs_delay(Delay delay) noexcept {
        happy_eyeballs_delay_ = delay;
        return *this;
    }
    // How many addresses of the first family come before the families take turns. Default: 1 with
    // happy_eyeballs_delay, else 0: the order of getaddrinfo.
    ConnectionOptions& interleave(int count) noexcept {
        interleave_ = count;
        return *this;
    }
    // If no address answers, throws an ExceptionGroup with each failure. Default: one
    // std::system_error that sums them up.
    ConnectionOptions& all_errors(bool on) noexcept {
        all_errors_ = on;
        return *this;
    }
    // Speaks TLS, by an ssl::Context of a client.
    template <class Context>
        requires requires(const Context& context) { context.tls(); }
    ConnectionOptions& ssl(const Context& context) {
        tls_ = context.tls();
        return *this;
    }
    // Whom the certificate must name. Default: the host.
    ConnectionOptions& server_hostname(std::string name) {
        server_hostname_ = std::move(name);
        return *this;
    }
    // An ssl::Session that an earlier connection by the same context to the same name has had,
    // which is resumed if the server agrees: Object::session_reused() tells. The call throws
    // ValueError if it is another context's or host's, and without ssl(). An empty one is none.
    template <std::same_as<ssl::Session> Session>
    ConnectionOptions& ssl_session(const Session& session) {
        ssl_session_ = session ? std::make_shared<const Session>(session) : nullptr;
        return *this;
    }
    // Default: 60 s and 30 s. Throw ValueError unless it is positive; and so does the call without
    // ssl().
    ConnectionOptions& ssl_handshake_timeout(Delay timeout) {
        tls_timeouts_.set_handshake(timeout);
        return *this;
    }
    ConnectionOptions& ssl_shutdown_timeout(Delay timeout) {
        tls_timeouts_.set_shutdown(timeout);
        return *this;
    }

    // For the library.
    std::size_t limit() const noexcept { return limit_; }
    int family() const noexcept { return family_; }
    int flags() const noexcept { return flags_; }
    const std::shared_ptr<Socket>& sock() const noexcept { return sock_; }
    const std::optional<std::string>& local_host() const noexcept { return local_host_; }
    int local_port() const noexcept { return local_port_; }
    const std::optional<Delay>& happy_eyeballs_delay() const noexcept {
        return happy_eyeballs_delay_;
    }
    const std::optional<int>& interleave() const noexcept { return interleave_; }
    bool all_errors() const noexcept { return all_errors_; }
    const std::shared_ptr<detail::TlsContext>& tls() const noexcept { return tls_; }
    const std::optional<std::string>& server_hostname() const noexcept { return server_hostname_; }
    const std::shared_ptr<const ssl::Session>& ssl_session() const noexcept { return ssl_session_; }
    const detail::TlsTimeouts& tls_timeouts() const noexcept { return tls_timeouts_; }
    Delay handshake_timeout() const noexcept { return tls_timeouts_.handshake(); }
    Delay shutdown_timeout() const noexcept { return tls_timeouts_.shutdown(); }

  private:
    std::size_t limit_ = 64 * 1024;
    int family_ = AF_UNSPEC;
    int flags_ = 0;
    std::shared_ptr<Socket> sock_;
    std::optional<std::string> local_host_;
    int local_port_ = 0;
    std::optional<Delay> happy_eyeballs_delay_;
    std::optional<int> interleave_;
    bool all_errors_ = false;
    std::shared_ptr<detail::TlsContext> tls_;
    std::shared_ptr<const ssl::Session> ssl_session_;
    std::optional<std::string> server_hostname_;
    detail::TlsTimeouts tls_timeouts_;
};

// How TLS is begun on a connection.
class StartTlsOptions {
  public:
    // Whom the certificate must name. Default, of a client: the host of open_connection().
    StartTlsOptions& server_hostname(std::string name) {
        server_hostname_ = std::move(name);
        return *this;
    }
    // This side is the server of TLS. Default: whether start_server() made the connection.
    StartTlsOptions& server_side(bool on) noexcept {
        server_side_ = on;
        return *this;
    }
    // Of a client: what ConnectionOptions::ssl_session() is. The call throws ValueError on a
    // server's side.
    template <std::same_as<ssl::Session> Session>
    StartTlsOptions& ssl_session(const Session& session) {
        ssl_session_ = session ? std::make_shared<const Session>(session) : nullptr;
        return *this;
    }
    // Default: 60 s. Throws ValueError unless it is positive.
    StartTlsOptions& ssl_handshake_timeout(Delay timeout) {
        tls_timeouts_.set_handshake(timeout);
        return *this;
    }
    // Default: 30 s. Throws ValueError unless it is positive.
    StartTlsOptions& ssl_shutdown_timeout(Delay timeout) {
        tls_timeouts_.set_shutdown(timeout);
        return *this;
    }

    // Of transports: what the protocol was given with the end of the plain text, and is the
    // beginning of TLS already. A stream knows that by itself.
    StartTlsOptions& received(std::string bytes) {
        received_ = std::move(bytes);
        return *this;
    }

    // For the library.
    const std::optional<std::string>& server_hostname() const noexcept { return server_hostname_; }
    const std::optional<bool>& server_side() const noexcept { return server_side_; }
    const std::shared_ptr<const ssl::Session>& ssl_session() const noexcept { return ssl_session_; }
    const std::string& received() const noexcept { return received_; }
    Delay handshake_timeout() const noexcept { return tls_timeouts_.handshake(); }
    Delay shutdown_timeout() const noexcept { return tls_timeouts_.shutdown(); }

  private:
    std::optional<std::string> server_hostname_;
    std::optional<bool> server_side_;
    std::string received_;
    std::shared_ptr<const ssl::Session> ssl_session_;
    detail::TlsTimeouts tls_timeouts_;
};

namespace detail {

// A socket that is connected.
struct Connecting {
    Connecting(Socket connected, Address to, std::string name)
        : socket(std::move(connected)), peer(to), host(std::move(name)) {}

    Socket socket;
    Address peer;
    std::string host; // as it was asked for; empty for a socket of the caller's or of Unix
};

// Each checks the options first, and throws ValueError if they contradict each other.
ASYNCIO_API void check_tls_options(const ConnectionOptions& options);
ASYNCIO_API Coro<Connecting> connect_to(std::string host, int port, ConnectionOptions options);
ASYNCIO_API Coro<Connecting> connect_to_unix(std::string path, ConnectionOptions options);
// Of what only a client has: throws ValueError.
ASYNCIO_API void check_server_options(const StartTlsOptions& options);
// Of the caller's socket.
ASYNCIO_API Connecting connected_socket(const ConnectionOptions& options);

// Small packets go out at once: TCP_NODELAY. Nothing for other sockets.
ASYNCIO_API void send_without_delay(int descriptor, const Address& peer) noexcept;

} // namespace detail
ASYNCIO_END_NAMESPACE
