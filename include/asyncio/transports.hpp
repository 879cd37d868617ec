// SPDX-License-Identifier: MIT
// Transports: connections for callbacks, with or without a coroutine in sight.
//
//     auto created = co_await asyncio::create_connection(
//         [] { return std::make_unique<MyProtocol>(); }, "example.org", 80);
//     created.transport.write("hello\n");
//
// and a server, each of whose connections gets a protocol of its own:
//
//     auto server = asyncio::run_until_complete(
//         *loop, asyncio::create_server([] { return std::make_unique<Echo>(); }, "127.0.0.1",
//         8080));
//     loop->run_forever();
//
// A factory gives a std::unique_ptr or a std::shared_ptr of a class derived from Protocol or
// BufferedProtocol. The loop keeps a transport, and the transport its protocol, until
// connection_lost() is over, also if nobody else holds them. See protocols.hpp for what is called.
// (asyncio.transports)
#pragma once

#include <asyncio/bytes.hpp>
#include <asyncio/connections.hpp>
#include <asyncio/coroutine.hpp>
#include <asyncio/detail/callables.hpp>
#include <asyncio/detail/temporaries.hpp>
#include <asyncio/extra_info.hpp>
#include <asyncio/protocols.hpp>
#include <asyncio/server.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <ranges>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

class TransportState;
// As the transport holds it: one of the two.
using AnyProtocol = std::shared_ptr<BaseProtocol>;

} // namespace detail

// A connection's handle; copies mean the same one. Belongs to the loop's thread. Except for
// is_closing(), everything throws RuntimeError of a transport of nothing. (asyncio.Transport)
class ASYNCIO_API Transport {
  public:
    // Of nothing: is_closing() is true.
    Transport() noexcept = default;
    Transport(const Transport& other) noexcept;
    Transport(Transport&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
    Transport& operator=(Transport other) noexcept {
        std::swap(state_, other.state_);
        return *this;
    }
    ~Transport();

    // Sends the data at once, as far as the kernel takes it, and keeps a copy of the rest, which
    // goes out by and by; may call pause_writing(). After close(), or when the connection has
    // failed, the data is dropped; the fifth time, and each that follows, is reported to the
    // exception handler. Throws RuntimeError after write_eof(), and while start_tls() is under way.
    // (WriteTransport.write)
    void write(ReadableBytes data) const;
    // The same of several pieces, in one system call. (WriteTransport.writelines)
    void writelines(std::span<const ReadableBytes> parts) const;
    void writelines(std::initializer_list<ReadableBytes> parts) const {
        writelines(std::span<const ReadableBytes>(parts));
    }
    template <class Range>
        requires(std::ranges::input_range<Range> && !detail::ByteRange<Range> &&
                 std::constructible_from<ReadableBytes, std::ranges::range_reference_t<Range>> &&
                 !std::convertible_to<Range, std::span<const ReadableBytes>>)
    void writelines(const Range& parts) const {
        std::vector<ReadableBytes> pieces;
        for (const auto& part : parts) pieces.emplace_back(part);
        writelines(std::span<const ReadableBytes>(pieces));
    }
    // Ends our side, once everything is sent: the peer reads to the end, and may go on sending.
    // Throws RuntimeError with TLS. (WriteTransport.write_eof, WriteTransport.can_write_eof)
    void write_eof() const;
    bool can_write_eof() const;

    // Nothing is received any more; what is kept still goes out; then comes connection_lost(), in
    // a turn of its own. A second call does nothing. (BaseTransport.close)
    void close() const;
    // The same, and what is kept is dropped. (WriteTransport.abort)
    void abort() const;
    // One of these was called, or the connection has failed. (BaseTransport.is_closing)
    bool is_closing() const noexcept;

    // No data_received() until resume_reading(), also if called from there: what comes waits in the
    // kernel, and holds the peer back. A second call does nothing, nor does either of them once the
    // transport closes. (ReadTransport.pause_reading, resume_reading, is_reading)
    void pause_reading() const;
    void resume_reading() const;
    bool is_reading() const;

    // What is kept because the kernel would not take it, in bytes. (get_write_buffer_size)
    std::size_t get_write_buffer_size() const;
    // Low and high. (get_write_buffer_limits)
    std::pair<std::size_t, std::size_t> get_write_buffer_limits() const;
    // Defaults: 64 KiB for high, or four times low; a quarter of high for low. Throws ValueError
    // unless high >= low. May call pause_writing() or resume_writing(). (set_write_buffer_limits)
    void set_write_buffer_limits(std::optional<std::size_t> high = std::nullopt,
                                 std::optional<std::size_t> low = std::nullopt) const;

    // Who is told from now on; the new one's connection_made() is not called. Does nothing once the
    // connection was lost. Throws ValueError for null. (BaseTransport.set_protocol)
    void set_protocol(std::shared_ptr<Protocol> protocol) const;
    void set_protocol(std::shared_ptr<BufferedProtocol> protocol) const;
    // Null once the connection was lost. (BaseTransport.get_protocol)
    std::shared_ptr<BaseProtocol> get_protocol() const;

    // The peer's address, ours (of no family once it is closed); the socket; and the ssl::Object,
    // null without TLS, which lives as long as the transport. (BaseTransport.get_extra_info)
    Address get_extra_info(PeerName) const;
    Address get_extra_info(SockName) const;
    TransportSocket get_extra_info(SocketOf) const;
    const ssl::Object* get_extra_info(SslObject) const;

    friend bool operator==(const Transport& a, const Transport& b) noexcept {
        return a.state_ == b.state_;
    }

    // For the library.
    explicit Transport(detail::TransportState& state) noexcept;
    detail::TransportState& state(const char* operation) const;

  private:
    detail::TransportState* state_ = nullptr;
};

// What create_connection() and its like give: `created.transport`, `created.protocol`.
template <class P> struct CreatedConnection {
    CreatedConnection(Transport t, std::shared_ptr<P> p)
        : transport(std::move(t)), protocol(std::move(p)) {}

    Transport transport;
    std::shared_ptr<P> protocol;
};

namespace detail {

class ASYNCIO_API ProtocolFactory {
  public:
    virtual ~ProtocolFactory();
    ProtocolFactory(const ProtocolFactory&) = delete;
    ProtocolFactory& operator=(const ProtocolFactory&) = delete;
    // Not null.
    virtual AnyProtocol make() = 0;

  protected:
    ProtocolFactory() = default;
    [[noreturn]] ASYNCIO_COLD static void throw_null();
};

template <class P>
concept ProtocolClass = std::derived_from<P, Protocol> || std::derived_from<P, BufferedProtocol>;
template <class Pointer> inline constexpr bool is_protocol_pointer = false;
template <ProtocolClass P> inline constexpr bool is_protocol_pointer<std::shared_ptr<P>> = true;
template <ProtocolClass P> inline constexpr bool is_protocol_pointer<std::unique_ptr<P>> = true;
template <class F>
concept MakesProtocol = std::is_invocable_v<std::decay_t<F>&> &&
                        is_protocol_pointer<std::invoke_result_t<std::decay_t<F>&>>;
template <class F> using ProtocolOf = typename std::invoke_result_t<std::decay_t<F>&>::element_type;

template <class F> class FactoryOf final : public ProtocolFactory {
  public:
    explicit FactoryOf(const F& function) : function_(function) {}
    explicit FactoryOf(F&& function) : function_(std::move(function)) {}
    AnyProtocol make() override {
        made = function_();
        if (made == nullptr) throw_null();
        return made;
    }
    std::shared_ptr<ProtocolOf<F>> made; // the last one

  private:
    F function_;
};

template <class F> std::shared_ptr<FactoryOf<std::decay_t<F>>> factory_of(F&& function) {
    return std::make_shared<FactoryOf<std::decay_t<F>>>(std::forward<F>(function));
}

ASYNCIO_API Coro<Transport> create_by_host(std::shared_ptr<ProtocolFactory> factory,
                                           std::string host, int port, ConnectionOptions options);
ASYNCIO_API Coro<Transport> create_by_socket(std::shared_ptr<ProtocolFactory> factory,
                                             ConnectionOptions options);
ASYNCIO_API Coro<Transport> create_by_path(std::shared_ptr<ProtocolFactory> factory,
                                           std::string path, ConnectionOptions options);
ASYNCIO_API Coro<Transport> create_accepted(std::shared_ptr<ProtocolFactory> factory,
                                            std::shared_ptr<Socket> socket,
                                            ConnectionOptions options);
ASYNCIO_API Coro<Transport> start_tls_with(Transport transport, AnyProtocol protocol,
                                           std::shared_ptr<TlsContext> context,
                                           StartTlsOptions options);
ASYNCIO_API Coro<Server> serve_protocols_at_hosts(std::shared_ptr<ProtocolFactory> factory,
                                                  std::vector<std::string> hosts, int port,
                                                  ServerOptions options);
ASYNCIO_API Coro<Server> serve_protocols_at_path(std::shared_ptr<ProtocolFactory> factory,
                                                 std::string path, ServerOptions options);

// With the protocol, by its own type.
template <class F>
Coro<CreatedConnection<ProtocolOf<F>>> created(std::shared_ptr<FactoryOf<F>> factory,
                                               Coro<Transport> creating) {
    Transport transport = co_await std::move(creating);
    co_return CreatedConnection<ProtocolOf<F>>(std::move(transport), std::move(factory->made));
}

} // namespace detail

// Connects to a host, which is a name or a numeric address, and makes a transport with the protocol
// that factory() gives. Returns after connection_made(). Throws std::system_error if no address of
// it answers, GaiError if it has none, ssl::Error and TimeoutError of the handshake (then
// connection_made() is not called), and what the factory throws; after a cancel the transport is
// closed. (loop.create_connection)
template <detail::MakesProtocol F>
ASYNCIO_CORO_WRAPPER Coro<CreatedConnection<detail::ProtocolOf<F>>>
create_connection(F&& factory, std::string host, int port, ConnectionOptions options = {}) {
    ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(F);
    auto made = detail::factory_of(std::forward<F>(factory));
    return detail::created<std::decay_t<F>>(
        made, detail::create_by_host(made, std::move(host), port, std::move(options)));
}
// With a socket of the caller's, in the options. Throws ValueError without one.
template <detail::MakesProtocol F>
ASYNCIO_CORO_WRAPPER Coro<CreatedConnection<detail::ProtocolOf<F>>>
create_connection(F&& factory, ConnectionOptions options) {
    ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(F);
    auto made = detail::factory_of(std::forward<F>(factory));
    return detail::created<std::decay_t<F>>(made,
                                            detail::create_by_socket(made, std::move(options)));
}
// To a Unix socket: a path, or an abstract name that begins with a zero byte. With TLS the options
// must name the server_hostname. (loop.create_unix_connection)
template <detail::MakesProtocol F>
ASYNCIO_CORO_WRAPPER Coro<CreatedConnection<detail::ProtocolOf<F>>>
create_unix_connection(F&& factory, std::string path, ConnectionOptions options = {}) {
    ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(F);
    auto made = detail::factory_of(std::forward<F>(factory));
    return detail::created<std::decay_t<F>>(
        made, detail::create_by_path(made, std::move(path), std::move(options)));
}
// The same for a socket that somebody else has accepted: this side is the server. Of the options
// those of TLS count. Throws ValueError unless it is a stream's. (loop.connect_accepted_socket)
template <detail::MakesProtocol F>
ASYNCIO_CORO_WRAPPER Coro<CreatedConnection<detail::ProtocolOf<F>>>
connect_accepted_socket(F&& factory, Socket socket, ConnectionOptions options = {}) {
    ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(F);
    auto made = detail::factory_of(std::forward<F>(factory));
    return detail::created<std::decay_t<F>>(
        made, detail::create_accepted(made, std::make_shared<Socket>(std::move(socket)),
                                      std::move(options)));
}

// Listens on a host and port, and makes a transport with a protocol of factory() for each
// connection that comes. An empty host means every interface, of IPv4 and IPv6; port 0 any that is
// free, which server.sockets() tells. What the factory throws, and a handshake that fails, go to
// the exception handler, and the connection is closed. Throws std::system_error if an address is
// taken, GaiError for a host that has no address. (loop.create_server)
template <detail::MakesProtocol F>
ASYNCIO_CORO_WRAPPER Coro<Server> create_server(F&& factory, std::string host, int port,
                                                ServerOptions options = {}) {
    ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(F);
    std::vector<std::string> hosts;
    hosts.push_back(std::move(host));
    return detail::serve_protocols_at_hosts(detail::factory_of(std::forward<F>(factory)),
                                            std::move(hosts), port, std::move(options));
}
// On several hosts.
template <detail::MakesProtocol F>
ASYNCIO_CORO_WRAPPER Coro<Server> create_server(F&& factory, std::vector<std::string> hosts,
                                                int port, ServerOptions options = {}) {
    ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(F);
    return detail::serve_protocols_at_hosts(detail::factory_of(std::forward<F>(factory)),
                                            std::move(hosts), port, std::move(options));
}
template <detail::MakesProtocol F>
ASYNCIO_CORO_WRAPPER Coro<Server> create_server(F&& factory,
                                                std::initializer_list<std::string_view> hosts,
                                                int port, ServerOptions options = {}) {
    return create_server(std::forward<F>(factory),
                         std::vector<std::string>(hosts.begin(), hosts.end()), port,
                         std::move(options));
}
// With a socket of the caller's, in the options. Throws ValueError without one.
template <detail::MakesProtocol F>
ASYNCIO_CORO_WRAPPER Coro<Server> create_server(F&& factory, ServerOptions options) {
    ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(F);
    return detail::serve_protocols_at_hosts(detail::factory_of(std::forward<F>(factory)), {}, 0,
                                            std::move(options));
}
// The same on a Unix socket: a path, or an abstract name that begins with a zero byte.
// (loop.create_unix_server)
template <detail::MakesProtocol F>
ASYNCIO_CORO_WRAPPER Coro<Server> create_unix_server(F&& factory, std::string path,
                                                     ServerOptions options = {}) {
    ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(F);
    return detail::serve_protocols_at_path(detail::factory_of(std::forward<F>(factory)),
                                           std::move(path), std::move(options));
}

// The connection goes on in TLS, by an ssl::Context, and `protocol` is told of it from now on,
// without another connection_made(). Gives the same transport: whoever holds it writes through TLS
// now. What was written before goes out first. Call pause_reading() when the plain text is over,
// so that nothing of TLS is taken for it. Throws ssl::Error, with what failed and for which host,
// and TimeoutError; after a failure, or a cancel, the transport is aborted. Throws RuntimeError if
// it is closing, if write_eof() was called, or while a handshake is under way. If the connection
// speaks TLS already, the new one is spoken inside of it. (loop.start_tls)
template <detail::ProtocolClass P, class Context>
    requires requires(const Context& context) { context.tls(); }
ASYNCIO_CORO_WRAPPER Coro<Transport> start_tls(const Transport& transport,
                                               std::shared_ptr<P> protocol, const Context& context,
                                               const StartTlsOptions& options = {}) {
    return detail::start_tls_with(transport, std::move(protocol), context.tls(), options);
}

// Refused with a sentence.
template <int n = 0>
detail::Refused create_connection(detail::AnyArgument, detail::AnyArgument = 0,
                                  detail::AnyArgument = 0, detail::AnyArgument = 0) {
    static_assert(detail::never<n>,
                  "create_connection takes a factory, a host and a port, then ConnectionOptions; "
                  "or a factory and ConnectionOptions().sock(socket). A factory is a function "
                  "without arguments that returns a std::shared_ptr of a class derived from "
                  "Protocol or BufferedProtocol: [] { return std::make_shared<Echo>(); }");
    return {};
}
template <int n = 0>
detail::Refused create_unix_connection(detail::AnyArgument, detail::AnyArgument = 0,
                                       detail::AnyArgument = 0) {
    static_assert(
        detail::never<n>,
        "create_unix_connection takes a factory, a path, then ConnectionOptions. A factory is a "
        "function without arguments that returns a std::shared_ptr of a class derived from "
        "Protocol or BufferedProtocol: [] { return std::make_shared<Echo>(); }");
    return {};
}
template <int n = 0>
detail::Refused connect_accepted_socket(detail::AnyArgument, detail::AnyArgument = 0,
                                        detail::AnyArgument = 0) {
    static_assert(
        detail::never<n>,
        "connect_accepted_socket takes a factory, a Socket, then ConnectionOptions. A factory is a "
        "function without arguments that returns a std::shared_ptr of a class derived from "
        "Protocol or BufferedProtocol: [] { return std::make_shared<Echo>(); }");
    return {};
}
template <int n = 0>
detail::Refused create_server(detail::AnyArgument, detail::AnyArgument = 0, detail::AnyArgument = 0,
                              detail::AnyArgument = 0) {
    static_assert(detail::never<n>,
                  "create_server takes a factory, a host or several, a port, then ServerOptions; "
                  "or a factory and ServerOptions().sock(socket). A factory is a function without "
                  "arguments that returns a std::shared_ptr of a class derived from Protocol or "
                  "BufferedProtocol: [] { return std::make_shared<Echo>(); }");
    return {};
}
template <int n = 0>
detail::Refused create_unix_server(detail::AnyArgument, detail::AnyArgument = 0,
                                   detail::AnyArgument = 0) {
    static_assert(detail::never<n>,
                  "create_unix_server takes a factory, a path, then ServerOptions. A factory is a "
                  "function without arguments that returns a std::shared_ptr of a class derived "
                  "from Protocol or BufferedProtocol: [] { return std::make_shared<Echo>(); }");
    return {};
}

ASYNCIO_END_NAMESPACE
