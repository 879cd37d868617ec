// SPDX-License-Identifier: MIT
// Server: sockets that listen, and the connections that came by them.
//
//     asyncio::Server server = co_await asyncio::start_server(handle, "127.0.0.1", 8080);
//     co_await server.serve_forever();
//
// A Server is a handle: copies mean the same one, and the loop keeps it going until it is closed.
// Closing it ends the listening and leaves the connections alone. (asyncio.Server)
//
// In a turn it accepts at most 64 connections, so that others run too. When the process or the
// machine has no more descriptors, it ends those connections that wait at the door, by a descriptor
// that it holds in reserve for this, reports that, and tries again after a second.
#pragma once

#include <asyncio/address.hpp>
#include <asyncio/clock.hpp>
#include <asyncio/coroutine.hpp>
#include <asyncio/detail/connection.hpp>
#include <asyncio/detail/wait_list.hpp>
#include <asyncio/sockets.hpp>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

class Listener;

// What start_server(), create_server() and their like have in common.
struct ServerSettings {
    int family = AF_UNSPEC;
    int flags = 0; // of getaddrinfo, beside AI_PASSIVE
    int backlog = 100;
    bool reuse_address = true;
    bool reuse_port = false;
    bool keep_alive = false;
    bool start_serving = true;
    bool cleanup_socket = true; // of a Unix socket: its path is removed when the server closes
    std::shared_ptr<TlsContext> tls;
    TlsTimeouts tls_timeouts;
};

// What a Server points to. Derived: what becomes of a connection.
class ASYNCIO_API ServerState : public ConnectionList, public Pooled {
  public:
    ServerState(EventLoop& loop, ServerSettings settings);

    void retain() noexcept { ++references_; }
    void release() noexcept {
        if (--references_ == 0) delete this;
    }

    // Adds a socket that is bound. Listens at once if the server does.
    void add(Socket socket, std::string unix_path = {});
    void start_serving();
    void close() noexcept;
    bool is_serving() const noexcept { return serving_ && !loop_->is_closed(); }
    // Throws RuntimeError unless its loop is the one that runs.
    void check_loop() const;
    bool is_closed() const noexcept { return closed_; }
    EventLoop& loop() const noexcept { return *loop_; }
    const ServerSettings& settings() const noexcept { return settings_; }
    std::vector<Address> addresses() const;
    std::vector<int> descriptors() const;

    // Who waits for the end of it all, and who serves for ever.
    WaitList& end_waiters() noexcept { return end_waiters_; }
    bool has_ended() const noexcept { return closed_ && empty(); }
    bool served_forever = false; // somebody is in serve_forever()

  protected:
    ~ServerState() override;

    // A connection came: takes over the descriptor, also if it throws.
    virtual void accepted(int descriptor, const Address& peer) = 0;

  private:
    friend class Listener;

    void became_empty() noexcept override;
    void wake_waiters() noexcept;

    std::uint32_t references_ = 1;
    EventLoop* loop_;
    ServerSettings settings_;
    std::vector<std::unique_ptr<Listener>> listeners_;
    WaitList end_waiters_;
    WaitList forever_;
    bool serving_ = false;
    bool closed_ = false;

    friend class ForeverWait;
};

// Resolves, binds, and adds the sockets of hosts; an empty host is every interface, of IPv4 and
// IPv6. Port 0: the first address draws one, and the others take the same.
ASYNCIO_API Coro<> bind_server(ServerState& server, std::vector<std::string> hosts, int port);
// Throws std::system_error. A socket at this path is removed first, as asyncio does.
ASYNCIO_API void bind_unix_server(ServerState& server, std::string_view path);

} // namespace detail

// How a server is made. Chained setters: `ServerOptions().backlog(500).reuse_port(true)`.
class ServerOptions {
  public:
    // AF_INET or AF_INET6. Default: both.
    ServerOptions& family(int family) noexcept {
        settings_.family = family;
        return *this;
    }
    // Of getaddrinfo, beside AI_PASSIVE.
    ServerOptions& flags(int flags) noexcept {
        settings_.flags = flags;
        return *this;
    }
    // Takes over a socket that is bound, in place of host and port.
    ServerOptions& sock(Socket socket) {
        sock_ = std::make_shared<Socket>(std::move(socket));
        return *this;
    }
    // How many connections the kernel holds before they are accepted. Default: 100.
    ServerOptions& backlog(int backlog) noexcept {
        settings_.backlog = backlog;
        return *this;
    }
    // Binds though connections of an earlier server linger on this port. Default: true.
    ServerOptions& reuse_address(bool on) noexcept {
        settings_.reuse_address = on;
        return *this;
    }
    // Shares the port with other servers that say so too: one loop for each core. Default: false.
    ServerOptions& reuse_port(bool on) noexcept {
        settings_.reuse_port = on;
        return *this;
    }
    // The kernel probes connections on which nothing moves. Default: false.
    ServerOptions& keep_alive(bool on) noexcept {
        settings_.keep_alive = on;
        return *this;
    }
    // False: it listens only from start_serving() or serve_forever() on. Default: true.
    ServerOptions& start_serving(bool on) noexcept {
        settings_.start_serving = on;
        return *this;
    }
    // Of a Unix socket: whether its path is removed when the server closes. Default: true.
    ServerOptions& cleanup_socket(bool on) noexcept {
        settings_.cleanup_socket = on;
        return *this;
    }
    // Speaks TLS, by an ssl::Context of a server.
    template <class Context>
        requires requires(const Context& context) { context.tls(); }
    ServerOptions& ssl(const Context& context) {
        settings_.tls = context.tls();
        return *this;
    }
    // A client that takes longer for the handshake is turned away. Default: 60 s. Throws ValueError
    // unless it is positive; and so does the call without ssl().
    ServerOptions& ssl_handshake_timeout(Delay timeout) {
        settings_.tls_timeouts.set_handshake(timeout);
        return *this;
    }
    // How long a connection that closes waits for the client's end of TLS. Default: 30 s. Throws
    // as ssl_handshake_timeout().
    ServerOptions& ssl_shutdown_timeout(Delay timeout) {
        settings_.tls_timeouts.set_shutdown(timeout);
        return *this;
    }
    // Of streams: the limit of each reader. Default: 64 KiB. Throws ValueError for 0.
    ServerOptions& limit(std::size_t limit) {
        limit_ = detail::checked_limit(limit);
        return *this;
    }

    // For the library.
    const detail::ServerSettings& settings() const noexcept { return settings_; }
    std::size_t limit() const noexcept { return limit_; }
    const std::shared_ptr<Socket>& sock() const noexcept { return sock_; }

  private:
    detail::ServerSettings settings_;
    std::size_t limit_ = 64 * 1024;
    std::shared_ptr<Socket> sock_;
};

class ASYNCIO_API Server {
  public:
    Server(const Server& other) noexcept : state_(other.state_) { state_->retain(); }
    Server& operator=(Server other) noexcept {
        std::swap(state_, other.state_);
        return *this;
    }
    ~Server() { state_->release(); }

    // Listens from now on. Throws RuntimeError if it is closed; std::system_error if it cannot, and
    // then it is closed. (Server.start_serving)
    ASYNCIO_CORO_WRAPPER Coro<> start_serving() const { return start(*this); }
    // Listens until it is cancelled, or until close(); then closes the server and its connections,
    // waits for their end, and throws CancelledError. As in asyncio, it waits for ever if a client
    // does not read what was written to it, unless it is cancelled once more, or somebody calls
    // abort_clients(). Throws RuntimeError if it is closed, or if somebody is in here already.
    // (Server.serve_forever)
    ASYNCIO_CORO_WRAPPER Coro<> serve_forever() const { return serve(*this); }
    // Ends the listening; the connections go on. A second call does nothing. (Server.close)
    void close() const noexcept { state_->close(); }
    // Waits until it is closed and its last connection is gone. (Server.wait_closed)
    ASYNCIO_CORO_WRAPPER Coro<> wait_closed() const { return wait(*this); }
    // Closes each connection: what was written still goes out. (Server.close_clients)
    void close_clients() const noexcept;
    // The same without that. (Server.abort_clients)
    void abort_clients() const noexcept;
    bool is_serving() const noexcept { return state_->is_serving(); }
    EventLoop& get_loop() const noexcept { return state_->loop(); }
    // Where it listens; empty once it is closed. (Server.sockets, with getsockname() of each)
    std::vector<Address> sockets() const { return state_->addresses(); }

    // For the library.
    detail::ServerState& state() const noexcept { return *state_; }
    // For the library: takes over a reference.
    explicit Server(detail::ServerState* adopted) noexcept : state_(adopted) {}

  private:
    static Coro<> start(Server server);
    static Coro<> serve(Server server);
    static Coro<> wait(Server server);

    detail::ServerState* state_;
};

namespace detail {

// Binds to hosts and a port, or takes the socket; and starts serving if the settings say so.
ASYNCIO_API Coro<Server> bind_and_start(Server server, std::vector<std::string> hosts, int port,
                                        std::shared_ptr<Socket> sock);
ASYNCIO_API Coro<Server> bind_unix_and_start(Server server, std::string path,
                                             std::shared_ptr<Socket> sock);

} // namespace detail

ASYNCIO_END_NAMESPACE
