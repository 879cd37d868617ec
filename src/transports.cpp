// SPDX-License-Identifier: MIT
#include <asyncio/transports.hpp>

#include "transport_state.hpp"

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

ProtocolFactory::~ProtocolFactory() = default;

void ProtocolFactory::throw_null() {
    throw ValueError("a protocol factory must give a protocol, not a null pointer");
}

namespace {

// After the first turn, or the handshake. What fails, and a cancel, end the connection.
// NOLINTNEXTLINE(cppcoreguidelines-avoid-reference-coroutine-parameters): who awaits it holds it
Coro<> arrive(Transport transport, Arrival& arrival) {
    std::exception_ptr failure;
    try {
        co_await arrival.gate;
    } catch (...) {
        failure = std::current_exception();
    }
    if (failure == nullptr) failure = arrival.failure;
    if (failure == nullptr) co_return;
    const TransportState& state = transport.state("create_connection");
    if (state.is_made() && !state.is_handshaking()) {
        transport.close();
    } else {
        transport.abort();
    }
    std::rethrow_exception(failure);
}

Coro<Transport> begin_transport(std::shared_ptr<ProtocolFactory> factory, Connecting connected,
                                ConnectionOptions options, bool is_server) {
    EventLoop& loop = get_running_loop();
    AnyProtocol protocol = factory->make();
    std::unique_ptr<TlsSession> session;
    if (options.tls() != nullptr) {
        session = is_server
                      ? options.tls()->server()
                      : options.tls()->client(options.server_hostname().value_or(connected.host),
                                              options.ssl_session().get());
    }
    send_without_delay(connected.socket.fileno(), connected.peer);
    TransportState& state = new_transport(loop, connected.socket.detach(), connected.peer,
                                          std::move(protocol), context_for(loop));
    const Transport transport(state);
    Arrival arrival(state);
    state.connected_to(std::move(connected.host));
    if (is_server) state.came_to_server();
    try {
        if (session != nullptr) {
            state.start(std::move(session), options.handshake_timeout(),
                        options.shutdown_timeout());
        } else {
            state.start();
        }
        co_await arrive(transport, arrival);
    } catch (...) {
        if (!state.is_closing()) state.abort(); // there was no memory
        throw;
    }
    co_return transport;
}

class ProtocolServer final : public ServerState {
  public:
    ProtocolServer(EventLoop& loop, const ServerOptions& options,
                   std::shared_ptr<ProtocolFactory> factory)
        : ServerState(loop, options.settings()), factory_(std::move(factory)) {
        context_.variables = context_for(loop);
    }

  private:
    void accepted(int descriptor, const Address& peer) override {
        OwnedDescriptor open(descriptor);
        AnyProtocol protocol;
        {
            const InCallback scope(loop(), context_);
            protocol = factory_->make();
        }
        std::unique_ptr<TlsSession> session;
        if (settings().tls != nullptr) session = settings().tls->server();
        TransportState& state =
            new_transport(loop(), open.take(), peer, std::move(protocol), context_.variables);
        const Transport keep(state);
        state.join(*this);
        state.came_to_server();
        try {
            if (session != nullptr) {
                state.start(std::move(session), settings().tls_timeouts.handshake(),
                            settings().tls_timeouts.shutdown());
            } else {
                state.start();
            }
        } catch (...) { // no memory for the timer
            state.abort();
            throw;
        }
    }

    std::shared_ptr<ProtocolFactory> factory_;
    OwnContext context_;
};

} // namespace

Coro<Transport> create_by_host(std::shared_ptr<ProtocolFactory> factory, std::string host, int port,
                               ConnectionOptions options) {
    Connecting connected = co_await connect_to(std::move(host), port, options);
    co_return co_await begin_transport(std::move(factory), std::move(connected), std::move(options),
                                       false);
}

Coro<Transport> create_by_socket(std::shared_ptr<ProtocolFactory> factory,
                                 ConnectionOptions options) {
    Connecting connected = connected_socket(options);
    co_return co_await begin_transport(std::move(factory), std::move(connected), std::move(options),
                                       false);
}

Coro<Transport> create_by_path(std::shared_ptr<ProtocolFactory> factory, std::string path,
                               ConnectionOptions options) {
    Connecting connected = co_await connect_to_unix(std::move(path), options);
    co_return co_await begin_transport(std::move(factory), std::move(connected), std::move(options),
                                       false);
}

Coro<Transport> create_accepted(std::shared_ptr<ProtocolFactory> factory,
                                std::shared_ptr<Socket> socket, ConnectionOptions options) {
    if (!socket->is_open() || socket->type() != SOCK_STREAM)
        throw ValueError("A Stream Socket was expected");
    if (options.tls() == nullptr) options.tls_timeouts().refuse();
    if (options.ssl_session() != nullptr)
        throw ValueError("ssl_session is only meaningful with a client's side of TLS");
    const Address peer = socket->getpeername();
    Connecting connected(std::move(*socket), peer, std::string());
    co_return co_await begin_transport(std::move(factory), std::move(connected), std::move(options),
                                       true);
}

Coro<Transport> start_tls_with(Transport transport, AnyProtocol protocol,
                               std::shared_ptr<TlsContext> context, StartTlsOptions options) {
    TransportState& state = transport.state("start_tls");
    if (state.is_in_handshake())
        throw RuntimeError("start_tls() while the handshake of TLS is under way: await it first");
    if (state.is_closing()) throw RuntimeError("start_tls() on a transport that is closing");
    if (state.has_written_eof()) throw RuntimeError("start_tls() after write_eof()");
    if (!state.is_made()) throw RuntimeError("start_tls() before connection_made()");
    const bool is_server = options.server_side().value_or(state.is_server());
    if (is_server) check_server_options(options);
    std::unique_ptr<TlsSession> session =
        is_server ? context->server()
                  : context->client(options.server_hostname().value_or(state.host()),
                                    options.ssl_session().get());
    session->feed(options.received());
    Arrival arrival(state);
    try {
        state.upgrade(std::move(session), options.handshake_timeout(), options.shutdown_timeout(),
                      std::move(protocol));
        co_await arrive(transport, arrival);
    } catch (...) {
        if (!state.is_closing()) state.abort(); // there was no memory
        throw;
    }
    co_return transport;
}

Coro<Server> serve_protocols_at_hosts(std::shared_ptr<ProtocolFactory> factory,
                                      std::vector<std::string> hosts, int port,
                                      ServerOptions options) {
    const Server server(new ProtocolServer(get_running_loop(), options, std::move(factory)));
    co_return co_await bind_and_start(server, std::move(hosts), port, options.sock());
}

Coro<Server> serve_protocols_at_path(std::shared_ptr<ProtocolFactory> factory, std::string path,
                                     ServerOptions options) {
    const Server server(new ProtocolServer(get_running_loop(), options, std::move(factory)));
    co_return co_await bind_unix_and_start(server, std::move(path), options.sock());
}

} // namespace detail

Transport::Transport(detail::TransportState& state) noexcept : state_(&state) { state.retain(); }
Transport::Transport(const Transport& other) noexcept : state_(other.state_) {
    if (state_ != nullptr) state_->retain();
}
Transport::~Transport() {
    if (state_ != nullptr) state_->release();
}

detail::TransportState& Transport::state(const char* operation) const {
    if (state_ == nullptr) [[unlikely]] {
        throw RuntimeError(std::string(operation) +
                           "() on a transport of nothing: keep the one that connection_made() "
                           "was given");
    }
    return *state_;
}

void Transport::write(ReadableBytes data) const { state("write").write(std::string_view(data)); }
void Transport::writelines(std::span<const ReadableBytes> parts) const {
    state("writelines").write(parts);
}
void Transport::write_eof() const { state("write_eof").write_eof(); }
bool Transport::can_write_eof() const { return state("can_write_eof").can_write_eof(); }

void Transport::close() const { state("close").close(); }
void Transport::abort() const { state("abort").abort(); }
bool Transport::is_closing() const noexcept { return state_ == nullptr || state_->is_closing(); }

void Transport::pause_reading() const { state("pause_reading").pause_reading(); }
void Transport::resume_reading() const { state("resume_reading").resume_reading(); }
bool Transport::is_reading() const { return state("is_reading").is_reading(); }

std::size_t Transport::get_write_buffer_size() const {
    return state("get_write_buffer_size").write_buffer_size();
}
std::pair<std::size_t, std::size_t> Transport::get_write_buffer_limits() const {
    const detail::TransportState& state = this->state("get_write_buffer_limits");
    return {state.low_water(), state.high_water()};
}
void Transport::set_write_buffer_limits(std::optional<std::size_t> high,
                                        std::optional<std::size_t> low) const {
    state("set_write_buffer_limits").set_write_buffer_limits(high, low);
}

void Transport::set_protocol(std::shared_ptr<Protocol> protocol) const {
    state("set_protocol").set_protocol(std::move(protocol));
}
void Transport::set_protocol(std::shared_ptr<BufferedProtocol> protocol) const {
    state("set_protocol").set_protocol(std::move(protocol));
}
std::shared_ptr<BaseProtocol> Transport::get_protocol() const {
    return state("get_protocol").protocol();
}

Address Transport::get_extra_info(PeerName) const { return state("get_extra_info").peername(); }
Address Transport::get_extra_info(SockName) const { return state("get_extra_info").sockname(); }
TransportSocket Transport::get_extra_info(SocketOf) const {
    return TransportSocket(state("get_extra_info").descriptor());
}
const ssl::Object* Transport::get_extra_info(SslObject) const {
    const detail::TlsSession* session = state("get_extra_info").tls();
    return session != nullptr ? &session->object() : nullptr;
}

ASYNCIO_END_NAMESPACE
