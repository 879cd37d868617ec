// SPDX-License-Identifier: MIT
// Sockets, and the awaits that move bytes through them: the lowest floor of the network.
//
//     asyncio::Socket socket(AF_INET, SOCK_STREAM);
//     co_await asyncio::sock_connect(socket, asyncio::Address("127.0.0.1", 8080));
//     co_await asyncio::sock_sendall(socket, "hello\n");
//     std::string answer = co_await asyncio::sock_recv(socket, 4096);
//
// A Socket owns its descriptor, which is non-blocking and closed on exec. It belongs to the loop in
// which it is first awaited. Reading and writing at the same time, by two tasks, is normal; of
// several that read (or write) at the same time each gets its turn, in the order in which they
// came, and what two send by sock_sendall() is not mixed. A cancel ends an await at once, and no
// byte that has been received is lost by it; of sock_sendall() it cannot be known how much was
// sent. Who waits for a socket that is closed gets a std::system_error (EBADF). Streams are easier:
// see streams.hpp.
#pragma once

#include <asyncio/address.hpp>
#include <asyncio/bytes.hpp>
#include <asyncio/detail/channel.hpp>
#include <asyncio/detail/frame_pool.hpp>
#include <asyncio/detail/waiting.hpp>
#include <asyncio/result.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

ASYNCIO_BEGIN_NAMESPACE

class Socket;

// What sock_recvfrom() gives.
struct ReceivedFrom {
    std::string data;
    Address address;
};
// What sock_recvfrom_into() gives.
struct CountFrom {
    std::size_t count;
    Address address;
};

namespace detail {

// Who keeps a socket for as long as its loop lives.
class ASYNCIO_API SocketOwner {
  public:
    // The loop is closing: must close the socket.
    virtual void loop_closed() noexcept = 0;

  protected:
    ~SocketOwner() = default;
};

class SocketOperation;

// What a Socket points to. Operations that are under way keep it, not the descriptor.
class ASYNCIO_API SocketState final : public Channel, public Pooled, Timed {
  public:
    SocketState(int descriptor, int family, int type, int protocol) noexcept
        : descriptor_(descriptor), family_(family), type_(type), protocol_(protocol) {}
    ~SocketState() override { close(); }

    void retain() noexcept { ++references_; }
    void release() noexcept {
        if (--references_ == 0) delete this;
    }
    int descriptor() const noexcept { return descriptor_; }
    int family() const noexcept { return family_; }
    int type() const noexcept { return type_; }
    int protocol() const noexcept { return protocol_; }
    // Whether a read that was not filled up has emptied the kernel's buffer: not with messages,
    // which SCTP has for streams too, and a Unix socket stops at what a process with other
    // credentials has sent.
    bool is_short_read_the_end() const noexcept {
        return type_ == SOCK_STREAM && (family_ == AF_INET || family_ == AF_INET6) &&
               (protocol_ == 0 || protocol_ == IPPROTO_TCP);
    }
    void close() noexcept;
    int give_up() noexcept; // the descriptor, for its next owner

    // A call to write has met a receiver that has no room, of which no edge tells: that of a Unix
    // socket of datagrams, if this one is not connected to it. Who waits to write tries again after
    // a while, and after a longer one each time. (asyncio waits for the socket to be writable,
    // which such a one always is, so that its loop spins.) Throws std::bad_alloc; then it is
    // believed to be writable.
    ASYNCIO_COLD void write_later();
    // Until then edges say nothing: each call that has failed so makes one.
    bool writes_later() const noexcept { return is_armed(); }
    // It has gone out, or nobody waits for it any more: the next while is a short one.
    void has_written() noexcept { write_again_ms_ = 0; }

    SocketOwner* owner = nullptr;
    // For messages: after a reset the kernel does not know any more. Of no family if we never did.
    Address peer;
    // Of datagrams: the kernel keeps the errors that come back; see report_errors().
    bool queues_errors = false;
    bool may_have_errors = false; // there, which no call has reported yet
    // How many the next recvmany() asks for at most: what is asked for has to be written down
    // first.
    std::uint8_t batch = 64;

  private:
    void loop_closed() noexcept override {
        if (owner != nullptr) {
            owner->loop_closed();
        } else {
            detach();
        }
    }
    void timed_out() override;

    std::uint32_t references_ = 1;
    std::uint32_t write_again_ms_ = 0;
    int descriptor_;
    int family_;
    int type_;
    int protocol_;
    // Who has had to wait, by Direction, in the order in which they came: only the first makes
    // calls.
    SocketOperation* lines_[2] = {nullptr, nullptr};

    friend class SocketOperation;
};

// As the kernel knows it, else as we do.
Address current_peer(const SocketState& socket, const SystemCalls& calls) noexcept;
// A Socket of a descriptor that is non-blocking already.
ASYNCIO_API Socket adopt_socket(int descriptor, int family, int type, int protocol);
// These throw std::system_error.
ASYNCIO_API Address socket_name(int descriptor);
ASYNCIO_API Address peer_name(int descriptor);
ASYNCIO_API void set_socket_option(int descriptor, int level, int option, ReadableBytes value);
ASYNCIO_API int get_socket_option(int descriptor, int level, int option);

} // namespace detail

// (socket.socket)
class ASYNCIO_API Socket {
  public:
    // Of nothing: is_open() is false.
    Socket() noexcept = default;
    // Throws std::system_error.
    Socket(int family, int type, int protocol = 0);
    // Takes over a descriptor, makes it non-blocking, and asks the kernel what it is. Throws
    // std::system_error if it is no socket; the descriptor stays the caller's then.
    // (socket.socket(fileno=...))
    static Socket from_descriptor(int descriptor);
    // Two that are connected to each other, of Unix. (socket.socketpair)
    static std::pair<Socket, Socket> pair(int type = SOCK_STREAM);

    Socket(Socket&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
    Socket& operator=(Socket&& other) noexcept {
        std::swap(state_, other.state_);
        return *this;
    }
    Socket(const Socket&) = delete;
    Socket& operator=(const Socket&) = delete;
    // Closes it.
    ~Socket() {
        close();
        if (state_ != nullptr) state_->release();
    }

    bool is_open() const noexcept { return state_ != nullptr && state_->descriptor() >= 0; }
    // -1 if it is closed. (socket.fileno)
    int fileno() const noexcept { return state_ != nullptr ? state_->descriptor() : -1; }
    // AF_INET, ... and SOCK_STREAM, ... (socket.family, socket.type, socket.proto)
    int family() const noexcept { return state_ != nullptr ? state_->family() : AF_UNSPEC; }
    int type() const noexcept { return state_ != nullptr ? state_->type() : 0; }
    int protocol() const noexcept { return state_ != nullptr ? state_->protocol() : 0; }

    // Who waits for it gets a std::system_error (EBADF). A second call does nothing. (socket.close)
    void close() noexcept {
        if (state_ != nullptr) state_->close();
    }
    // Gives up the descriptor, for somebody else to close. (socket.detach)
    [[nodiscard("somebody must close it")]] int detach() noexcept {
        return state_ != nullptr ? state_->give_up() : -1;
    }

    // These throw std::system_error, with the address in the text.
    void bind(const Address& address);
    void listen(int backlog = SOMAXCONN);
    // SHUT_RD, SHUT_WR or SHUT_RDWR.
    void shutdown(int how);
    Address getsockname() const;
    Address getpeername() const;
    void setsockopt(int level, int option, int value);
    void setsockopt(int level, int option, ReadableBytes value);
    int getsockopt(int level, int option) const;

    // For the library: throws std::system_error (EBADF) if it is closed.
    detail::SocketState& state(const char* operation) const;

  private:
    friend Socket detail::adopt_socket(int, int, int, int);
    explicit Socket(detail::SocketState* state) noexcept : state_(state) {}

    detail::SocketState* state_ = nullptr;
};

// What sock_accept() gives.
struct Accepted {
    Socket socket;
    Address address;
};

namespace detail {

// An operation on a Socket.
class ASYNCIO_API SocketOperation : public IoOperation {
  public:
    bool await_ready() noexcept { return is_ready(); }
    // Not only when it is destroyed: the same expression may await once more.
    void check() {
        leave_line();
        IoOperation::check();
    }
    std::exception_ptr take_failure() noexcept {
        leave_line();
        return IoOperation::take_failure();
    }
    void end() noexcept {
        IoOperation::end(); // first: who leaves the line wakes all that wait
        leave_line();
        socket().release();
    }

  protected:
    SocketOperation(SocketState& socket, const char* name) noexcept
        : IoOperation(socket), name_(name) {
        socket.retain();
    }
    SocketOperation(SocketOperation&& other) noexcept
        : SocketOperation(std::move(other), other.name_) {}
    SocketOperation(IoOperation&& other, const char* name) noexcept
        : IoOperation(std::move(other)), name_(name) {
        socket().retain();
    }
    ~SocketOperation() = default;

    SocketState& socket() const noexcept { return static_cast<SocketState&>(channel()); }
    // Attaches the socket. Throws if it was closed meanwhile.
    const SystemCalls& calls() {
        if (!socket().is_attached() || &socket().loop() != get_running_loop_or_null())
            [[unlikely]] {
            attach();
        }
        return socket().io().calls();
    }
    template <class Call>
    Attempt make_call(Direction way, std::size_t wanted, std::size_t& count, Call call);
    // Whether to make a call: it is not believed to block, and nobody who came before waits for
    // this direction. If not, it is to wait for that too.
    bool may_call(Direction way) noexcept {
        direction = way;
        const SocketOperation* first = socket().lines_[static_cast<std::size_t>(way)];
        if (socket().believed(way) && (first == nullptr || first == this)) [[likely]]
            return true;
        stand_in_line();
        return false;
    }
    // Of a call that has failed: blocked, or throws. EINTR must not come here.
    Attempt failed(Direction way);
    ASYNCIO_COLD void throw_if_closed() const;
    void stand_in_line() noexcept;
    // Whether it waits for the time of SocketState::write_later(), and was woken before.
    bool must_write_later() noexcept {
        if (!has_place || !socket().writes_later()) [[likely]]
            return false;
        socket().would_block(Direction::write);
        return true;
    }

    const char* name_;

  private:
    void attach();
    // The next one's turn, if this one has waited.
    void leave_line() noexcept {
        if (has_place) [[unlikely]] {
            let_next_come();
        }
    }
    void let_next_come() noexcept;

    SocketOperation* next_in_line_ = nullptr;
};

class ASYNCIO_API SockRecv final : public SocketOperation {
  public:
    static constexpr const char* name = "sock_recv";
    SockRecv(SocketState* socket, std::size_t size) noexcept
        : SocketOperation(*socket, name), size_(size) {}
    std::string result() noexcept { return std::move(data_); }

  private:
    Attempt attempt() override;
    std::size_t size_;
    std::string data_;
};

class ASYNCIO_API SockRecvInto final : public SocketOperation {
  public:
    static constexpr const char* name = "sock_recv_into";
    SockRecvInto(SocketState* socket, WritableBytes buffer) noexcept
        : SocketOperation(*socket, name), buffer_(buffer) {}
    std::size_t result() const noexcept { return count_; }

  private:
    Attempt attempt() override;
    WritableBytes buffer_;
    std::size_t count_ = 0;
};

class ASYNCIO_API SockRecvScattered final : public SocketOperation {
  public:
    static constexpr const char* name = "sock_recv_into";
    SockRecvScattered(SocketState* socket, std::span<const WritableBytes> buffers) noexcept
        : SocketOperation(*socket, name), buffers_(buffers) {}
    std::size_t result() const noexcept { return count_; }

  private:
    Attempt attempt() override;
    std::span<const WritableBytes> buffers_;
    std::size_t count_ = 0;
};

class ASYNCIO_API SockRecvFrom final : public SocketOperation {
  public:
    static constexpr const char* name = "sock_recvfrom";
    SockRecvFrom(SocketState* socket, std::size_t size) noexcept
        : SocketOperation(*socket, name), size_(size) {}
    ReceivedFrom result() { return {std::move(data_), address_}; }

  private:
    Attempt attempt() override;
    std::size_t size_;
    std::string data_;
    Address address_;
};

class ASYNCIO_API SockRecvFromInto final : public SocketOperation {
  public:
    static constexpr const char* name = "sock_recvfrom_into";
    SockRecvFromInto(SocketState* socket, WritableBytes buffer) noexcept
        : SocketOperation(*socket, name), buffer_(buffer) {}
    CountFrom result() const noexcept { return {count_, address_}; }

  private:
    Attempt attempt() override;
    WritableBytes buffer_;
    std::size_t count_ = 0;
    Address address_;
};

class ASYNCIO_API SockSendAll final : public SocketOperation {
  public:
    static constexpr const char* name = "sock_sendall";
    SockSendAll(SocketState* socket, ReadableBytes data) noexcept
        : SocketOperation(*socket, name), rest_(data) {}
    void result() const noexcept {}

  private:
    Attempt attempt() override;
    std::string_view rest_;
};

class ASYNCIO_API SockSendGathered final : public SocketOperation {
  public:
    static constexpr const char* name = "sock_sendall";
    SockSendGathered(SocketState* socket, std::span<const ReadableBytes> parts) noexcept
        : SocketOperation(*socket, name), rest_(parts) {}
    void result() const noexcept {}

  private:
    Attempt attempt() override;
    std::span<const ReadableBytes> rest_;
    std::size_t sent_of_first_ = 0;
};

class ASYNCIO_API SockSendTo final : public SocketOperation {
  public:
    static constexpr const char* name = "sock_sendto";
    SockSendTo(SocketState* socket, ReadableBytes data, const Address& address) noexcept
        : SocketOperation(*socket, name), data_(data), address_(address) {}
    std::size_t result() const noexcept { return count_; }

  private:
    Attempt attempt() override;
    ReadableBytes data_;
    Address address_;
    std::size_t count_ = 0;
};

class ASYNCIO_API SockConnect final : public SocketOperation {
  public:
    static constexpr const char* name = "sock_connect";
    SockConnect(SocketState* socket, const Address& address) noexcept
        : SocketOperation(*socket, name), address_(address) {}
    void result() const noexcept {}

  private:
    Attempt attempt() override;
    Address address_;
    bool begun_ = false;
    bool was_attached_ = false;
};

class ASYNCIO_API SockAccept final : public SocketOperation {
  public:
    static constexpr const char* name = "sock_accept";
    explicit SockAccept(SocketState* socket) noexcept : SocketOperation(*socket, name) {}
    Accepted result() noexcept { return std::move(accepted_); }

  private:
    Attempt attempt() override;
    Accepted accepted_;
};

} // namespace detail

// Up to `size` bytes, as soon as there are some; nothing if the peer has ended, or at once if
// `size` is 0. Of a socket of messages: the next one, cut off at `size`. (loop.sock_recv)
inline detail::IoAwaiter<detail::SockRecv> sock_recv(const Socket& socket, std::size_t size) {
    return detail::IoAwaiter<detail::SockRecv>(&socket.state(detail::SockRecv::name), size);
}
// The same into a buffer: gives how much, 0 if the peer has ended. (loop.sock_recv_into)
inline detail::IoAwaiter<detail::SockRecvInto> sock_recv_into(const Socket& socket,
                                                              WritableBytes buffer) {
    return detail::IoAwaiter<detail::SockRecvInto>(&socket.state(detail::SockRecvInto::name),
                                                   buffer);
}
// The same into several buffers, one after the other.
inline detail::IoAwaiter<detail::SockRecvScattered>
sock_recv_into(const Socket& socket, std::span<const WritableBytes> buffers) {
    return detail::IoAwaiter<detail::SockRecvScattered>(
        &socket.state(detail::SockRecvScattered::name), buffers);
}
// A message, cut off at `size`, and who sent it. (loop.sock_recvfrom)
inline detail::IoAwaiter<detail::SockRecvFrom> sock_recvfrom(const Socket& socket,
                                                             std::size_t size) {
    return detail::IoAwaiter<detail::SockRecvFrom>(&socket.state(detail::SockRecvFrom::name), size);
}
// (loop.sock_recvfrom_into)
inline detail::IoAwaiter<detail::SockRecvFromInto> sock_recvfrom_into(const Socket& socket,
                                                                      WritableBytes buffer) {
    return detail::IoAwaiter<detail::SockRecvFromInto>(
        &socket.state(detail::SockRecvFromInto::name), buffer);
}
// All of the data, however many calls that takes. After a failure or a cancel, part of it may have
// been sent. (loop.sock_sendall)
inline detail::IoAwaiter<detail::SockSendAll> sock_sendall(const Socket& socket,
                                                           ReadableBytes data) {
    return detail::IoAwaiter<detail::SockSendAll>(&socket.state(detail::SockSendAll::name), data);
}
// The same of several pieces, one after the other.
inline detail::IoAwaiter<detail::SockSendGathered>
sock_sendall(const Socket& socket, std::span<const ReadableBytes> parts) {
    return detail::IoAwaiter<detail::SockSendGathered>(
        &socket.state(detail::SockSendGathered::name), parts);
}
// One message to this address; gives how much was sent. Waits for room as
// DatagramEndpoint::sendto() does. (loop.sock_sendto)
inline detail::IoAwaiter<detail::SockSendTo> sock_sendto(const Socket& socket, ReadableBytes data,
                                                         const Address& address) {
    return detail::IoAwaiter<detail::SockSendTo>(&socket.state(detail::SockSendTo::name), data,
                                                 address);
}
// Throws std::system_error if the peer refuses or cannot be reached. After a cancel the socket is
// of no use but to be closed. (loop.sock_connect)
inline detail::IoAwaiter<detail::SockConnect> sock_connect(const Socket& socket,
                                                           const Address& address) {
    return detail::IoAwaiter<detail::SockConnect>(&socket.state(detail::SockConnect::name),
                                                  address);
}
// The next connection that somebody makes to this socket, which must listen. One that was ended
// before it could be accepted is passed over. (loop.sock_accept)
inline detail::IoAwaiter<detail::SockAccept> sock_accept(const Socket& socket) {
    return detail::IoAwaiter<detail::SockAccept>(&socket.state(detail::SockAccept::name));
}

ASYNCIO_END_NAMESPACE
