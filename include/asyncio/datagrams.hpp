// SPDX-License-Identifier: MIT
// Datagrams: UDP, and Unix sockets of messages, for coroutines and for callbacks.
//
//     auto endpoint = co_await asyncio::open_datagram_endpoint(
//         asyncio::DatagramOptions().local_addr(asyncio::Address("127.0.0.1", 9999)));
//     for (;;) {
//         asyncio::ReceivedFrom got = co_await endpoint.recvfrom();
//         co_await endpoint.sendto(got.data, got.address);
//     }
//
// A datagram arrives whole or not at all: what does not fit into a buffer is told, never cut off in
// silence. A cancel ends an await at once, and neither loses what was received nor leaves open
// whether something was sent. An error that comes back from the network ("port unreachable") fails
// one await as a std::system_error, and the endpoint goes on.
//
// Python has this for callbacks only: create_datagram_endpoint(), a DatagramProtocol, and a
// DatagramTransport, which are here too. A DatagramEndpoint is what that function makes, as
// open_connection() opens for coroutines what create_connection() creates for callbacks.
#pragma once

#include <asyncio/detail/temporaries.hpp>
#include <asyncio/sockets.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>

ASYNCIO_BEGIN_NAMESPACE

// How the socket of an endpoint is made. Chained setters. At least one of an address and a family
// must be given. There is no reuse_address: on Linux it would let another process take over a port
// of UDP that is in use. (the arguments of loop.create_datagram_endpoint)
class DatagramOptions {
  public:
    struct HostAndPort {
        HostAndPort(std::string name, int number) : host(std::move(name)), port(number) {}
        std::string host;
        int port;
    };

    // Where it is bound; port 0 is any that is free. Of a Unix socket: what a socket that is gone
    // has left in the file system is removed.
    DatagramOptions& local_addr(const Address& address) {
        local_ = address;
        local_host_ = nullptr;
        return *this;
    }
    // The same by a host, which is a name or a numeric address; empty, it is every interface, of
    // IPv4 unless family() says AF_INET6. It is looked up as the endpoint is made, which throws
    // GaiError if it has no address.
    DatagramOptions& local_addr(std::string host, int port) {
        local_host_ = std::make_shared<const HostAndPort>(std::move(host), port);
        local_.reset();
        return *this;
    }
    // Whom it is connected to: send() goes there, it receives only from there, and is told when
    // nobody listens there. A DatagramTransport sends only there. With allow_broadcast it is not
    // connected, and only sends there unless told otherwise.
    DatagramOptions& remote_addr(const Address& address) {
        remote_ = address;
        remote_host_ = nullptr;
        return *this;
    }
    // The same by a host, as above. Of several addresses the first counts that works, with a local
    // one of the same family.
    DatagramOptions& remote_addr(std::string host, int port) {
        remote_host_ = std::make_shared<const HostAndPort>(std::move(host), port);
        remote_.reset();
        return *this;
    }
    // AF_INET, AF_INET6 or AF_UNIX, where no address tells it.
    DatagramOptions& family(int family) noexcept {
        family_ = family;
        return *this;
    }
    // Others, of the same user, that ask for it too may be bound to the same port; each datagram
    // goes to one of them.
    DatagramOptions& reuse_port(bool on) noexcept {
        reuse_port_ = on;
        return *this;
    }
    // Without it, sending to a broadcast address fails (EACCES).
    DatagramOptions& allow_broadcast(bool on) noexcept {
        allow_broadcast_ = on;
        return *this;
    }
    // Of IPv6: false takes IPv4 too, as ::ffff:127.0.0.1. Default: as the system is set.
    DatagramOptions& ipv6_only(bool on) noexcept {
        ipv6_only_ = on;
        return *this;
    }
    // See report_errors().
    DatagramOptions& report_errors(bool on) noexcept {
        report_errors_ = on;
        return *this;
    }

    const std::optional<Address>& local_addr() const noexcept { return local_; }
    const std::optional<Address>& remote_addr() const noexcept { return remote_; }
    // Null if there is none, or an address.
    const std::shared_ptr<const HostAndPort>& local_host() const noexcept { return local_host_; }
    const std::shared_ptr<const HostAndPort>& remote_host() const noexcept { return remote_host_; }
    int family() const noexcept { return family_; }
    bool reuse_port() const noexcept { return reuse_port_; }
    bool allow_broadcast() const noexcept { return allow_broadcast_; }
    const std::optional<bool>& ipv6_only() const noexcept { return ipv6_only_; }
    bool report_errors() const noexcept { return report_errors_; }

  private:
    std::optional<Address> local_;
    std::optional<Address> remote_;
    std::shared_ptr<const HostAndPort> local_host_;
    std::shared_ptr<const HostAndPort> remote_host_;
    int family_ = AF_UNSPEC;
    bool reuse_port_ = false;
    bool allow_broadcast_ = false;
    bool report_errors_ = false;
    std::optional<bool> ipv6_only_;
};

// An error that came back for a datagram sent earlier: see report_errors().
class ASYNCIO_API DatagramError : public std::system_error {
  public:
    DatagramError(std::error_code code, const std::string& what, const Address& destination);
    DatagramError(const DatagramError&) noexcept;
    DatagramError& operator=(const DatagramError&) noexcept;
    ~DatagramError() override;
    // Where that datagram was sent to.
    const Address& destination() const noexcept { return destination_; }

  private:
    Address destination_;
};

// Of IPv4 and IPv6: has the kernel keep the errors that come back ("port unreachable", "host
// unreachable") together with the destination. Then each arrives as a DatagramError from the next
// await that receives, in the order in which they came; a send never fails because of an earlier
// one. Without it, a socket that is connected gets such an error from its next await, be it to
// receive or to send, which is then not done; and one that is not connected never hears of it.
// Throws std::system_error.
ASYNCIO_API void report_errors(Socket& socket, bool on = true);

// Multicast, of IPv4 and IPv6. A group is an address; its port does not matter. An interface is a
// name ("eth0") or a number; without one the kernel chooses, or an IPv6 address tells it by its
// scope ("ff02::1%eth0"). They throw ValueError for an interface that is not there and an address
// that is no group, std::system_error for what the kernel refuses.
ASYNCIO_API void join_group(Socket& socket, const Address& group, std::string_view interface = {});
ASYNCIO_API void leave_group(Socket& socket, const Address& group, std::string_view interface = {});
// Through which interface datagrams to groups are sent.
ASYNCIO_API void set_multicast_interface(Socket& socket, std::string_view interface);
// How many hops datagrams to groups go; 0: none leaves this machine. Default: 1.
ASYNCIO_API void set_multicast_ttl(Socket& socket, std::uint8_t hops);
// Whether this machine gets them too, if it is in the group. Default: yes.
ASYNCIO_API void set_multicast_loop(Socket& socket, bool on);

// What recv_into() and recvfrom_into() give.
struct ReceivedInto {
    std::size_t count;     // bytes in the buffer
    std::size_t full_size; // of the datagram
    Address address;       // who sent it; of no family if that was a Unix socket without a name
    // The buffer was too small, and the rest is gone.
    bool truncated() const noexcept { return full_size > count; }
};

// Room for one datagram, to be filled by recvmany(), again and again.
class DatagramSlot {
  public:
    DatagramSlot() noexcept = default;
    explicit DatagramSlot(WritableBytes buffer) noexcept : buffer_(buffer) {}

    WritableBytes buffer() const noexcept { return buffer_; }
    // What came: a view of the buffer.
    std::string_view data() const noexcept { return {buffer_.data(), count_}; }
    const Address& address() const noexcept { return address_; }
    std::size_t full_size() const noexcept { return full_size_; }
    bool truncated() const noexcept { return full_size_ > count_; }

    // For the library.
    void set(std::size_t full_size, const Address& address) noexcept {
        full_size_ = full_size;
        count_ = full_size < buffer_.size() ? full_size : buffer_.size();
        address_ = address;
    }

  private:
    WritableBytes buffer_;
    std::size_t count_ = 0;
    std::size_t full_size_ = 0;
    Address address_;
};

// What sendmany() sends. Without an address: to the remote address.
struct OutgoingDatagram {
    ReadableBytes data;
    Address address = {};
};

namespace detail {

class ASYNCIO_API DatagramRecv final : public SocketOperation {
  public:
    static constexpr const char* name = "recv";
    explicit DatagramRecv(SocketState* socket) noexcept : SocketOperation(*socket, name) {}
    std::string result() noexcept { return std::move(data_); }

  private:
    Attempt attempt() override;
    std::string data_;
};

class ASYNCIO_API DatagramRecvFrom final : public SocketOperation {
  public:
    static constexpr const char* name = "recvfrom";
    explicit DatagramRecvFrom(SocketState* socket) noexcept : SocketOperation(*socket, name) {}
    ReceivedFrom result() { return {std::move(data_), address_}; }

  private:
    Attempt attempt() override;
    std::string data_;
    Address address_;
};

class ASYNCIO_API DatagramRecvInto final : public SocketOperation {
  public:
    static constexpr const char* name = "recvfrom_into";
    DatagramRecvInto(SocketState* socket, WritableBytes buffer) noexcept
        : SocketOperation(*socket, name), buffer_(buffer) {}
    const ReceivedInto& result() const noexcept { return received_; }

  private:
    Attempt attempt() override;
    WritableBytes buffer_;
    ReceivedInto received_{};
};

class ASYNCIO_API DatagramRecvMany final : public SocketOperation {
  public:
    static constexpr const char* name = "recvmany";
    DatagramRecvMany(SocketState* socket, std::span<DatagramSlot> slots) noexcept
        : SocketOperation(*socket, name), slots_(slots) {}
    std::size_t result() const noexcept { return count_; }

  private:
    Attempt attempt() override;
    std::span<DatagramSlot> slots_;
    std::size_t count_ = 0;
};

class ASYNCIO_API DatagramSend final : public SocketOperation {
  public:
    static constexpr const char* name = "sendto";
    DatagramSend(SocketState* socket, ReadableBytes data, const Address& address) noexcept
        : SocketOperation(*socket, name), data_(data), address_(address) {}
    void result() const noexcept {}

  private:
    Attempt attempt() override;
    ReadableBytes data_;
    Address address_;
};

class ASYNCIO_API DatagramSendMany final : public SocketOperation {
  public:
    static constexpr const char* name = "sendmany";
    DatagramSendMany(SocketState* socket, std::span<const OutgoingDatagram> datagrams,
                     const Address& remote) noexcept
        : SocketOperation(*socket, name), datagrams_(datagrams), remote_(remote) {}
    std::size_t result() const noexcept { return count_; }

  private:
    Attempt attempt() override;
    std::span<const OutgoingDatagram> datagrams_;
    Address remote_;
    std::size_t count_ = 0;
};

// The socket that the options describe, and the remote address; of no family if there is none.
// Throws ValueError, std::system_error, GaiError.
struct OpenedDatagramSocket {
    OpenedDatagramSocket(Socket opened, const Address& to)
        : socket(std::move(opened)), remote(to) {}
    Socket socket;
    Address remote;
};
ASYNCIO_API Coro<OpenedDatagramSocket> open_datagram_socket(DatagramOptions options);
// Throws ValueError for a socket of streams, and for none.
ASYNCIO_API void check_datagram_socket(const Socket& socket);

} // namespace detail

// A socket of datagrams, for coroutines. Closes it at the end of its life. Awaits of several tasks
// take their turns as with a Socket; what is passed to an await must stay where it is until that is
// over. All of them throw std::system_error: EBADF once it is closed, EMSGSIZE for a datagram that
// is too large to be sent (more than 65,507 bytes of UDP over IPv4), and what the network reports.
class DatagramEndpoint {
  public:
    // Of nothing: is_closed() is true.
    DatagramEndpoint() noexcept = default;
    // Of a socket that is there. `remote`: where to send what is sent without an address, if it is
    // not connected. Throws ValueError for a socket of streams.
    explicit DatagramEndpoint(Socket socket, const Address& remote = {})
        : socket_(std::move(socket)), remote_(remote) {
        detail::check_datagram_socket(socket_);
    }

    // The next datagram, whole, and who sent it. (loop.sock_recvfrom)
    detail::IoAwaiter<detail::DatagramRecvFrom> recvfrom() const {
        return detail::IoAwaiter<detail::DatagramRecvFrom>(
            &socket_.state(detail::DatagramRecvFrom::name));
    }
    // The next datagram, whole.
    detail::IoAwaiter<detail::DatagramRecv> recv() const {
        return detail::IoAwaiter<detail::DatagramRecv>(&socket_.state(detail::DatagramRecv::name));
    }
    // The same into a buffer, without an allocation. Of a datagram that is larger the rest is lost,
    // and truncated() tells it: an exception would let anyone who can send make you pay for one.
    // (loop.sock_recvfrom_into)
    detail::IoAwaiter<detail::DatagramRecvInto> recvfrom_into(WritableBytes buffer) const {
        return detail::IoAwaiter<detail::DatagramRecvInto>(
            &socket_.state(detail::DatagramRecvInto::name), buffer);
    }

    // How many datagrams one recvmany() or sendmany() moves at most, by one system call.
    static constexpr std::size_t most_at_once = 64;
    // Fills slots from the first on with what is there, and waits only if that is nothing. Gives
    // how many were filled: at least one, unless there are no slots; now and then fewer than are
    // there, after some time in which few came. Allocates nothing.
    detail::IoAwaiter<detail::DatagramRecvMany> recvmany(std::span<DatagramSlot> slots) const {
        return detail::IoAwaiter<detail::DatagramRecvMany>(
            &socket_.state(detail::DatagramRecvMany::name), slots);
    }

    // To the remote address, which there must be.
    detail::IoAwaiter<detail::DatagramSend> send(ReadableBytes data) const {
        return sendto(data, remote_);
    }
    // Waits for room if there is none. For that of a Unix socket to which this one is not connected
    // it looks again and again, up to 50 times a second, since the kernel does not tell of it.
    // (loop.sock_sendto)
    detail::IoAwaiter<detail::DatagramSend> sendto(ReadableBytes data,
                                                   const Address& address) const {
        return detail::IoAwaiter<detail::DatagramSend>(&socket_.state(detail::DatagramSend::name),
                                                       data, address);
    }
    // Sends from the first on as many as the kernel takes now, and waits only if that is none.
    // Gives how many: fewer than there are if there is no more room, if they are more than
    // most_at_once, or if one fails; call it again with the rest, and it throws what the first of
    // these fails with. Cancelled, it has sent none. Allocates nothing.
    detail::IoAwaiter<detail::DatagramSendMany>
    sendmany(std::span<const OutgoingDatagram> datagrams) const {
        return detail::IoAwaiter<detail::DatagramSendMany>(
            &socket_.state(detail::DatagramSendMany::name), datagrams, remote_);
    }

    // Who waits gets a std::system_error (EBADF).
    void close() noexcept { socket_.close(); }
    bool is_closed() const noexcept { return !socket_.is_open(); }
    // Where it is bound.
    Address sockname() const { return socket_.getsockname(); }
    // Whom it is connected to. Throws std::system_error (ENOTCONN) if it is not.
    Address peername() const { return socket_.getpeername(); }
    // For its options.
    Socket& socket() noexcept { return socket_; }
    const Socket& socket() const noexcept { return socket_; }

  private:
    Socket socket_;
    Address remote_;
};

// Throws ValueError for options that contradict each other, std::system_error for what the kernel
// refuses, with the address.
ASYNCIO_API Coro<DatagramEndpoint> open_datagram_endpoint(DatagramOptions options);

class DatagramTransport;

// What is told of an endpoint, by callbacks. Derive from it what you need. Called in the loop's
// thread, never from inside one of its own calls but for error_received(), pause_writing() and
// resume_writing(). What they throw goes to the exception handler, and the endpoint goes on.
// (asyncio.DatagramProtocol)
class ASYNCIO_API DatagramProtocol {
  public:
    DatagramProtocol() = default;
    DatagramProtocol(const DatagramProtocol&) = delete;
    DatagramProtocol& operator=(const DatagramProtocol&) = delete;
    virtual ~DatagramProtocol();

    // First of all. (BaseProtocol.connection_made)
    virtual void connection_made(DatagramTransport transport);
    // The data is good until the return. (DatagramProtocol.datagram_received)
    virtual void datagram_received(std::string_view data, const Address& address);
    // A send or receive has failed: an error that came back from the network, as a rule; see
    // report_errors(). (DatagramProtocol.error_received)
    virtual void error_received(const std::system_error& error);
    // Last of all. Null if the transport was closed or aborted. Not called if the loop is closed
    // first. (BaseProtocol.connection_lost)
    virtual void connection_lost(std::exception_ptr exception);
    // The write buffer is above its high-water mark; is not above the low one again.
    // (BaseProtocol.pause_writing, BaseProtocol.resume_writing)
    virtual void pause_writing();
    virtual void resume_writing();
};

namespace detail {
class DatagramTransportState;
ASYNCIO_API Coro<DatagramTransport>
start_datagram_transport(Socket socket, Address remote, std::shared_ptr<DatagramProtocol> protocol);
} // namespace detail

// The sending side of an endpoint, as callbacks use it. Copies mean the same transport, which the
// loop keeps until it is closed; belongs to the loop's thread. All but is_closing() throw
// RuntimeError of a transport of nothing. (asyncio.DatagramTransport)
class ASYNCIO_API DatagramTransport {
  public:
    // Of nothing: is_closing() is true.
    DatagramTransport() noexcept = default;
    DatagramTransport(const DatagramTransport& other) noexcept;
    DatagramTransport(DatagramTransport&& other) noexcept
        : state_(std::exchange(other.state_, nullptr)) {}
    DatagramTransport& operator=(DatagramTransport other) noexcept {
        std::swap(state_, other.state_);
        return *this;
    }
    ~DatagramTransport();

    // Sends at once if the kernel has room, else keeps a copy and sends it later. What fails goes
    // to error_received(). Without an address: to the remote one. Throws ValueError if there is
    // none, and for an address other than the remote one where there is. After the transport was
    // lost or aborted the data is dropped; the fifth time, and each that follows, is reported to
    // the exception handler. (DatagramTransport.sendto)
    void sendto(ReadableBytes data) const;
    void sendto(ReadableBytes data, const Address& address) const;

    // Receives nothing more, sends what is in the buffer, then calls connection_lost().
    // (BaseTransport.close)
    void close() const;
    // The same without sending it. (DatagramTransport.abort)
    void abort() const;
    // (BaseTransport.is_closing)
    bool is_closing() const noexcept;

    // Throws ValueError for null. (BaseTransport.set_protocol, BaseTransport.get_protocol)
    void set_protocol(std::shared_ptr<DatagramProtocol> protocol) const;
    // Null once the transport was lost.
    std::shared_ptr<DatagramProtocol> get_protocol() const;

    // Bytes that wait to be sent, and 8 more for each datagram. (get_write_buffer_size)
    std::size_t get_write_buffer_size() const;
    // Low and high. (get_write_buffer_limits)
    std::pair<std::size_t, std::size_t> get_write_buffer_limits() const;
    // Defaults: 64 KiB for high, or four times low; a quarter of high for low. Throws ValueError
    // unless high >= low. May call pause_writing(). (set_write_buffer_limits)
    void set_write_buffer_limits(std::optional<std::size_t> high = {},
                                 std::optional<std::size_t> low = {}) const;

    // As it was when the transport was made; of no family if there was none.
    // (get_extra_info("sockname"), get_extra_info("peername"))
    const Address& sockname() const;
    const Address& peername() const;
    // For its options; leave receiving, sending and closing to the transport.
    // (get_extra_info("socket"))
    Socket& socket() const;

    friend bool operator==(const DatagramTransport& a, const DatagramTransport& b) noexcept {
        return a.state_ == b.state_;
    }

  private:
    friend class detail::DatagramTransportState;
    friend Coro<DatagramTransport>
        detail::start_datagram_transport(Socket, Address, std::shared_ptr<DatagramProtocol>);
    explicit DatagramTransport(detail::DatagramTransportState* state) noexcept;
    detail::DatagramTransportState& state() const;

    detail::DatagramTransportState* state_ = nullptr;
};

// What create_datagram_endpoint() gives.
template <class P> struct CreatedDatagramEndpoint {
    DatagramTransport transport;
    std::shared_ptr<P> protocol;
};

namespace detail {

template <class F> struct DatagramFactory {
    static constexpr bool fits = false;
    using Protocol = DatagramProtocol;
};
template <class F>
    requires requires(F& factory) {
        typename std::invoke_result_t<F&>::element_type;
        requires std::derived_from<typename std::invoke_result_t<F&>::element_type,
                                   DatagramProtocol>;
        requires std::same_as<std::invoke_result_t<F&>,
                              std::shared_ptr<typename std::invoke_result_t<F&>::element_type>>;
    }
struct DatagramFactory<F> {
    static constexpr bool fits = true;
    using Protocol = typename std::invoke_result_t<F&>::element_type;
};

template <class P, class F>
Coro<CreatedDatagramEndpoint<P>> create_datagram(F factory, DatagramOptions options) {
    OpenedDatagramSocket opened = co_await open_datagram_socket(std::move(options));
    CreatedDatagramEndpoint<P> created;
    created.protocol = factory();
    created.transport = co_await start_datagram_transport(std::move(opened.socket), opened.remote,
                                                          created.protocol);
    co_return created;
}
template <class P, class F>
Coro<CreatedDatagramEndpoint<P>> create_datagram_of(F factory, Socket socket) {
    check_datagram_socket(socket);
    CreatedDatagramEndpoint<P> created;
    created.protocol = factory();
    created.transport =
        co_await start_datagram_transport(std::move(socket), Address(), created.protocol);
    co_return created;
}

} // namespace detail

// Calls factory(), which gives a std::shared_ptr of a class derived from DatagramProtocol, and
// gives that and the transport, after connection_made() was called. A cancel closes the transport.
// Throws as open_datagram_endpoint(), and what factory() throws. (loop.create_datagram_endpoint)
template <class F>
ASYNCIO_CORO_WRAPPER auto create_datagram_endpoint(F&& factory, const DatagramOptions& options) {
    ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(F);
    using Factory = detail::DatagramFactory<std::decay_t<F>>;
    static_assert(Factory::fits, "create_datagram_endpoint takes a function without arguments that "
                                 "returns a std::shared_ptr of a class derived from "
                                 "DatagramProtocol: [] { return std::make_shared<Echo>(); }");
    return detail::create_datagram<typename Factory::Protocol>(
        std::decay_t<F>(std::forward<F>(factory)), options);
}
// With a socket that is there. (loop.create_datagram_endpoint with sock)
template <class F> ASYNCIO_CORO_WRAPPER auto create_datagram_endpoint(F&& factory, Socket socket) {
    ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(F);
    using Factory = detail::DatagramFactory<std::decay_t<F>>;
    static_assert(Factory::fits, "create_datagram_endpoint takes a function without arguments that "
                                 "returns a std::shared_ptr of a class derived from "
                                 "DatagramProtocol: [] { return std::make_shared<Echo>(); }");
    return detail::create_datagram_of<typename Factory::Protocol>(
        std::decay_t<F>(std::forward<F>(factory)), std::move(socket));
}

ASYNCIO_END_NAMESPACE
