// SPDX-License-Identifier: MIT
#include <asyncio/dns.hpp>
#include <asyncio/server.hpp>
#include <asyncio/sleep.hpp>

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/stat.h>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {
namespace {

// A descriptor to be let go when there are no more; none if there are no more already.
int open_reserve() noexcept {
    return current_system_calls().open("/dev/null", O_RDONLY | O_CLOEXEC);
}
void close_reserve(int& reserve) noexcept {
    if (reserve >= 0) current_system_calls().close(std::exchange(reserve, -1));
}

} // namespace

// A socket that listens, and accepts.
class Listener final : public ChannelWaiter, Timed {
  public:
    Listener(ServerState& server, Socket socket, std::string unix_path)
        : ChannelWaiter(socket.state("accept").edges()), server_(server),
          socket_(std::move(socket)), unix_path_(std::move(unix_path)) {
        struct stat of_path{};
        if (!unix_path_.empty() && current_system_calls().stat(unix_path_.c_str(), &of_path) == 0) {
            device_ = of_path.st_dev;
            inode_ = of_path.st_ino;
        }
    }
    ~Listener() { stop(); }
    Listener(const Listener&) = delete;
    Listener& operator=(const Listener&) = delete;

    const Socket& socket() const noexcept { return socket_; }

    void start() {
        socket_.listen(server_.settings().backlog);
        SocketState& state = socket_.state("listen");
        state.attach(server_.loop(), state.descriptor());
        reserve_ = open_reserve();
        server_.retain();
        started_ = true;
        wait_a_turn();
    }

    void stop() noexcept {
        disarm();
        if (socket_.is_open() && !unix_path_.empty()) remove_path();
        socket_.close();
        close_reserve(reserve_);
    }

    // Its loop is closed, and nobody would accept who comes.
    void discard() noexcept override {
        stop();
        release_server();
    }
    CancelOutcome try_cancel() noexcept override { return CancelOutcome::already_done; }

  private:
    // Only if it is still ours: another server may have bound to the path meanwhile.
    void remove_path() const noexcept {
        const SystemCalls& calls = current_system_calls();
        struct stat of_path{};
        if (calls.stat(unix_path_.c_str(), &of_path) == 0 && of_path.st_dev == device_ &&
            of_path.st_ino == inode_)
            calls.unlink(unix_path_.c_str());
    }
    void release_server() noexcept {
        if (std::exchange(started_, false)) server_.release();
    }

    // From start() on it always waits, until its socket is closed and it has come up once more.
    void run() override {
        begin_run();
        struct AtEnd {
            Listener& listener;
            ~AtEnd() { listener.end_run(); }
        };
        const AtEnd at_end{*this};
        constexpr int most_in_a_turn = 64;
        for (int i = 0; i < most_in_a_turn; ++i) {
            if (!socket_.is_open() || backs_off_) return;
            if (!accept_one(socket_.state("accept"))) return;
        }
    }
    void end_run() noexcept {
        if (!socket_.is_open()) {
            release_server();
            return;
        }
        SocketState& state = socket_.state("accept");
        if (backs_off_ || !state.believed(Direction::read)) {
            wait_for(Direction::read);
        } else {
            wait_a_turn();
        }
    }

    // False: no more in this turn.
    bool accept_one(SocketState& state) {
        const SystemCalls& calls = state.io().calls();
        sockaddr_storage storage{};
        socklen_t size = sizeof storage;
        const int descriptor =
            calls.accept4(state.descriptor(), reinterpret_cast<sockaddr*>(&storage), &size,
                          SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (descriptor < 0) return after_failure(state, errno);
        const Address peer(reinterpret_cast<sockaddr*>(&storage), size);
        const int on = 1;
        if (peer.family() == AF_INET || peer.family() == AF_INET6)
            calls.setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if (server_.settings().keep_alive)
            calls.setsockopt(descriptor, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
        try {
            server_.accepted(descriptor, peer);
        } catch (const KeyboardInterrupt&) {
            throw;
        } catch (const SystemExit&) {
            throw;
        } catch (...) {
            server_.loop().tell([&] {
                return ExceptionContext{.message =
                                            "a connection that was accepted could not be served",
                                        .exception = std::current_exception(),
                                        .details = {{"peer", peer.text()}}};
            });
        }
        return true;
    }

    bool after_failure(SocketState& state, int error) {
        switch (error) {
        case EAGAIN:
            state.would_block(Direction::read);
            return false;
        case EMFILE:
        case ENFILE:
        case ENOBUFS:
        case ENOMEM:
            turn_away(state, error);
            back_off(state);
            server_.loop().tell([&] {
                return ExceptionContext{
                    .message = "socket.accept() out of system resource: connections are turned "
                               "away; the server tries again in a second",
                    .exception = failure(error)};
            });
            return false;
        case EINTR:
        case ECONNABORTED:
        case EPROTO:
        case ENETDOWN:
        case ENOPROTOOPT:
        case EHOSTDOWN:
        case ENONET:
        case EHOSTUNREACH:
        case ENETUNREACH:
        case EPERM:      // a firewall's rules
            return true; // that one is gone; see accept(2)
        default: {
            const std::exception_ptr why = failure(error);
            stop();
            server_.loop().tell([&] {
                return ExceptionContext{
                    .message = "a server cannot accept connections any more, and listens no more "
                               "on this address",
                    .exception = why};
            });
            return false;
        }
        }
    }
    void back_off(SocketState& state) noexcept {
        try {
            arm(server_.loop(), 1);
            backs_off_ = true;
        } catch (...) { // no memory for the timer: the next client to come is what it waits for
            state.would_block(Direction::read);
        }
    }
    // With the address, if that can be had now.
    std::exception_ptr failure(int error) const noexcept {
        try {
            return make_system_error(error, "accept on " + socket_.getsockname().text());
        } catch (...) {
            return std::current_exception();
        }
    }

    // Those at the door learn at once that there is no room, by the descriptor kept for this.
    void turn_away(SocketState& state, int error) noexcept {
        if (reserve_ < 0 || (error != EMFILE && error != ENFILE)) return;
        const SystemCalls& calls = state.io().calls();
        close_reserve(reserve_);
        constexpr int most = 64;
        for (int i = 0; i < most; ++i) {
            const int descriptor =
                calls.accept4(state.descriptor(), nullptr, nullptr, SOCK_CLOEXEC);
            if (descriptor < 0) break;
            calls.close(descriptor);
        }
        reserve_ = open_reserve();
    }

    void timed_out() override {
        backs_off_ = false;
        if (reserve_ < 0) reserve_ = open_reserve();
        if (stop_waiting()) wait_a_turn();
    }

    ServerState& server_;
    Socket socket_;
    std::string unix_path_;
    dev_t device_ = 0; // of the path
    ino_t inode_ = 0;
    int reserve_ = -1;
    bool started_ = false;
    bool backs_off_ = false;
};

ServerState::ServerState(EventLoop& loop, ServerSettings settings)
    : loop_(&loop), settings_(std::move(settings)) {
    loop.retain();
}

ServerState::~ServerState() {
    listeners_.clear();
    loop_->release();
}

void ServerState::check_loop() const {
    if (loop_->is_closed())
        throw RuntimeError("the event loop of the server is closed: start another server");
    if (&get_running_loop() != loop_)
        throw RuntimeError("the server belongs to another event loop");
}

void ServerState::add(Socket socket, std::string unix_path) {
    listeners_.push_back(
        std::make_unique<Listener>(*this, std::move(socket), std::move(unix_path)));
}

void ServerState::start_serving() {
    if (closed_) throw RuntimeError("the server is closed: start another one");
    if (std::exchange(serving_, true)) return;
    try {
        for (const auto& listener : listeners_) listener->start();
    } catch (...) {
        close(); // also those that listen already, and would go on without an owner
        throw;
    }
}

void ServerState::close() noexcept {
    if (std::exchange(closed_, true)) return;
    struct Keep {
        ServerState& server;
        explicit Keep(ServerState& s) noexcept : server(s) { server.retain(); }
        ~Keep() { server.release(); }
    };
    const Keep keep(*this);
    serving_ = false;
    for (const auto& listener : listeners_) listener->stop();
    while (forever_.wake_next()) {
    }
    if (empty()) wake_waiters();
}

std::vector<Address> ServerState::addresses() const {
    std::vector<Address> addresses;
    for (const auto& listener : listeners_) {
        if (listener->socket().is_open()) addresses.push_back(listener->socket().getsockname());
    }
    return addresses;
}

void ServerState::became_empty() noexcept {
    if (closed_) wake_waiters();
}

void ServerState::wake_waiters() noexcept {
    while (end_waiters_.wake_next()) {
    }
}

namespace {

class EndWait final : public Waiter {
  public:
    explicit EndWait(ServerState& server) noexcept : Waiter(server.end_waiters()) {}
    bool await_ready() const noexcept { return false; }
    void await_resume() {
        if (std::exception_ptr failure = leave("Server")) std::rethrow_exception(failure);
        if (is_cancel_due()) std::rethrow_exception(take_cancelled());
    }
};

} // namespace

// Until close() or a cancel, both of which end in CancelledError.
class ForeverWait final : public Waiter {
  public:
    explicit ForeverWait(ServerState& server) noexcept : Waiter(server.forever_) {}
    bool await_ready() const noexcept { return false; }
    void await_resume() {
        if (std::exception_ptr failure = leave("Server")) std::rethrow_exception(failure);
        if (is_cancel_due()) std::rethrow_exception(take_cancelled());
        throw CancelledError("the server was closed");
    }
};

namespace {

Socket bound_socket(const ServerSettings& settings, const Address& address) {
    Socket socket(address.family(), SOCK_STREAM);
    if (settings.reuse_address) socket.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1);
    if (settings.reuse_port) socket.setsockopt(SOL_SOCKET, SO_REUSEPORT, 1);
    // The IPv4 address has a socket of its own.
    if (address.family() == AF_INET6) socket.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, 1);
    socket.bind(address);
    return socket;
}

// In debug mode, as asyncio does.
void tell_of_skipped(EventLoop& loop, const Address& address, const std::exception_ptr& why) {
    if (!loop.get_debug()) return;
    loop.tell([&] {
        return ExceptionContext{.message = "a server does not listen on " + address.text() +
                                           ", which this machine does not have",
                                .exception = why};
    });
}

} // namespace

// NOLINTNEXTLINE(cppcoreguidelines-avoid-reference-coroutine-parameters): who awaits it holds it
Coro<> bind_server(ServerState& server, std::vector<std::string> hosts, int port) {
    const ServerSettings& settings = server.settings();
    std::vector<Address> addresses;
    for (const std::string& host : hosts) {
        auto found = co_await getaddrinfo(host, port,
                                          GetAddrInfoOptions()
                                              .family(settings.family)
                                              .type(SOCK_STREAM)
                                              .flags(settings.flags | AI_PASSIVE));
        for (const AddressInfo& one : found) {
            if (std::find(addresses.begin(), addresses.end(), one.address) == addresses.end())
                addresses.push_back(one.address);
        }
    }
    std::uint16_t drawn = 0;
    std::exception_ptr unsupported;
    std::size_t bound = 0;
    for (const Address& address : addresses) {
        try {
            Socket socket = bound_socket(
                settings, port == 0 && drawn != 0 ? address.with_port(drawn) : address);
            if (port == 0) drawn = socket.getsockname().port();
            server.add(std::move(socket));
            ++bound;
        } catch (const std::system_error& error) {
            // A machine without IPv6 may still give its addresses.
            if (error.code() != std::errc::address_family_not_supported &&
                error.code() != std::errc::address_not_available)
                throw;
            unsupported = std::current_exception();
            tell_of_skipped(server.loop(), address, unsupported);
        }
    }
    if (bound == 0) std::rethrow_exception(unsupported);
}

void bind_unix_server(ServerState& server, std::string_view path) {
    const Address address = Address::unix_path(path);
    const std::string name(path);
    const bool has_file = path.front() != '\0';
    const SystemCalls& calls = current_system_calls();
    struct stat of_path{};
    // Removed without asking who listens there, as asyncio does: a server that died has left it. If
    // that fails, so will bind().
    if (has_file && calls.stat(name.c_str(), &of_path) == 0 && S_ISSOCK(of_path.st_mode))
        calls.unlink(name.c_str());
    Socket socket(AF_UNIX, SOCK_STREAM);
    socket.bind(address);
    server.add(std::move(socket),
               has_file && server.settings().cleanup_socket ? name : std::string());
}

namespace {

void check_tls_settings(const ServerSettings& settings) {
    if (settings.tls == nullptr) settings.tls_timeouts.refuse();
}

// Serves from now on; a cancel in here closes it, since nobody has it to close.
Coro<> begin_serving(Server server) {
    server.state().start_serving();
    std::exception_ptr cancelled;
    try {
        co_await sleep(0); // as in asyncio, so that who comes next finds it listening
    } catch (...) {
        cancelled = std::current_exception();
    }
    if (cancelled == nullptr) co_return;
    server.close();
    std::rethrow_exception(cancelled);
}

} // namespace

Coro<Server> bind_and_start(Server server, std::vector<std::string> hosts, int port,
                            std::shared_ptr<Socket> sock) {
    ServerState& state = server.state();
    check_tls_settings(state.settings());
    if (sock != nullptr) {
        if (!hosts.empty())
            throw ValueError("host/port and sock can not be specified at the same time");
        if (sock->type() != SOCK_STREAM)
            throw ValueError("A Stream Socket was expected for a server");
        state.add(std::move(*sock));
    } else if (hosts.empty()) {
        throw ValueError("Neither host/port nor sock were specified: call ServerOptions().sock(), "
                         "or give a host");
    } else {
        co_await bind_server(state, std::move(hosts), port);
    }
    if (state.settings().start_serving) co_await begin_serving(server);
    co_return server;
}

Coro<Server> bind_unix_and_start(Server server, std::string path, std::shared_ptr<Socket> sock) {
    ServerState& state = server.state();
    check_tls_settings(state.settings());
    if (sock != nullptr) {
        if (!path.empty()) throw ValueError("path and sock can not be specified at the same time");
        if (sock->family() != AF_UNIX || sock->type() != SOCK_STREAM)
            throw ValueError("A UNIX Domain Stream Socket was expected for a server");
        state.add(std::move(*sock));
    } else {
        bind_unix_server(state, path);
    }
    if (state.settings().start_serving) co_await begin_serving(server);
    co_return server;
}

} // namespace detail

Coro<> Server::start(Server server) {
    server.state_->check_loop();
    server.state_->start_serving();
    // So that who comes after this finds it listening, as in asyncio.
    co_await sleep(0);
}

Coro<> Server::serve(Server server) {
    detail::ServerState& state = *server.state_;
    state.check_loop();
    if (std::exchange(state.served_forever, true))
        throw RuntimeError("the server is already being awaited on serve_forever()");
    struct AtEnd {
        detail::ServerState& state;
        ~AtEnd() { state.served_forever = false; }
    };
    const AtEnd at_end{state}; // NOLINT(clang-analyzer-deadcode.DeadStores): its end counts
    state.start_serving();
    std::exception_ptr cancelled;
    try {
        co_await detail::WaitFor<detail::ServerState, detail::ForeverWait>(state);
    } catch (const CancelledError&) {
        cancelled = std::current_exception();
    }
    server.close();
    server.close_clients();
    co_await server.wait_closed();
    std::rethrow_exception(cancelled);
}

Coro<> Server::wait(Server server) {
    if (server.state_->has_ended()) co_return;
    server.state_->check_loop();
    co_await detail::WaitFor<detail::ServerState, detail::EndWait>(*server.state_);
}

void Server::close_clients() const noexcept {
    state_->for_each([](detail::Connection& connection) { connection.close(); });
}

void Server::abort_clients() const noexcept {
    state_->for_each([](detail::Connection& connection) { connection.abort(); });
}

ASYNCIO_END_NAMESPACE
