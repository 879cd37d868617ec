// SPDX-License-Identifier: MIT
#include <asyncio/datagrams.hpp>
#include <asyncio/futures.hpp>

#include "guarded.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <ctime>
#include <deque>
#include <linux/errqueue.h>
#include <net/if.h>
#include <new>
#include <sys/stat.h>

ASYNCIO_BEGIN_NAMESPACE
namespace {

using detail::Direction;
using detail::Io;
using detail::SocketState;

constexpr std::size_t most_at_once = DatagramEndpoint::most_at_once;

// Makes a call again for as long as a signal interrupts it.
template <class Call> auto uninterrupted(Call call) {
    for (;;) {
        const auto result = call();
        if (result >= 0 || errno != EINTR) return result;
    }
}

Address address_of(const msghdr& message) {
    return Address(static_cast<const sockaddr*>(message.msg_name), message.msg_namelen);
}

[[noreturn]] ASYNCIO_COLD void throw_failed(int error, SocketState& socket,
                                            const SystemCalls& calls, const char* operation,
                                            const char* preposition, const Address* address) {
    std::string what = operation;
    const bool is_told = address != nullptr && address->family() != AF_UNSPEC;
    const Address peer = is_told ? *address : detail::current_peer(socket, calls);
    if (peer.size() > sizeof(sa_family_t)) what += preposition + peer.text();
    detail::throw_system_error(error, what);
}

// What the control data of a message from the error queue says; null if nothing.
const sock_extended_err* error_in(msghdr& message) {
    for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr;
         part = CMSG_NXTHDR(&message, part)) {
        if ((part->cmsg_level == SOL_IP && part->cmsg_type == IP_RECVERR) ||
            (part->cmsg_level == SOL_IPV6 && part->cmsg_type == IPV6_RECVERR))
            return reinterpret_cast<const sock_extended_err*>(CMSG_DATA(part));
    }
    return nullptr;
}

// Throws the first error that the kernel has kept for this socket, if there is one.
ASYNCIO_COLD void throw_queued_error(SocketState& socket, const SystemCalls& calls,
                                     const char* operation) {
    for (;;) {
        sockaddr_storage destination{};
        alignas(cmsghdr) char control[512];
        msghdr message{};
        message.msg_name = &destination;
        message.msg_namelen = sizeof destination;
        message.msg_control = control;
        message.msg_controllen = sizeof control;
        const ssize_t result = uninterrupted(
            [&] { return calls.recvmsg(socket.descriptor(), &message, MSG_ERRQUEUE); });
        if (result < 0) {
            socket.may_have_errors = false;
            return;
        }
        const sock_extended_err* error = error_in(message);
        // One of this machine's own has failed the call that has met it.
        if (error == nullptr || error->ee_origin == SO_EE_ORIGIN_LOCAL) continue;
        const Address address = address_of(message);
        throw DatagramError(
            std::error_code(static_cast<int>(error->ee_errno), std::generic_category()),
            std::string(operation) + ": of a datagram to " + address.text(), address);
    }
}

// Makes a call that receives, and gives what it has given; -1 if it would block.
template <class Call>
auto receive_by(SocketState& socket, const SystemCalls& calls, const char* operation, Call call)
    -> decltype(call()) {
    if (socket.may_have_errors) [[unlikely]]
        throw_queued_error(socket, calls, operation);
    if (!socket.believed(Direction::read)) return -1;
    for (bool again = false;; again = true) {
        const auto result = uninterrupted(call);
        if (result >= 0) return result;
        const int error = errno;
        if (error == EAGAIN) {
            socket.would_block(Direction::read);
            return -1;
        }
        if (socket.queues_errors && !again) {
            // It says that something has been queued, but not what; or it is left over from an
            // error that was taken from the queue already, and then it is gone now.
            throw_queued_error(socket, calls, operation);
            continue;
        }
        throw_failed(error, socket, calls, operation, " from ", nullptr);
    }
}

// Makes a call that sends, to this address if it is of a family; -1 if it would block.
template <class Call>
auto send_by(SocketState& socket, const SystemCalls& calls, const char* operation,
             const Address& address, Call call) -> decltype(call()) {
    if (!socket.believed(Direction::write)) return -1;
    for (bool again = false;; again = true) {
        const auto result = uninterrupted(call);
        if (result >= 0) return result;
        const int error = errno;
        if (error == EAGAIN) {
            socket.would_block(Direction::write);
            if (socket.family() == AF_UNIX && address.family() != AF_UNSPEC) socket.write_later();
            return -1;
        }
        if (socket.queues_errors && !again) {
            // Perhaps that of an earlier one, which is kept for who receives.
            socket.may_have_errors = true;
            socket.wake(Direction::read);
            continue;
        }
        throw_failed(error, socket, calls, operation, " to ", &address);
    }
}

// A block of the loop's, for a datagram.
class Block {
  public:
    explicit Block(Io& io) : io_(io), memory_(io.take_block()) {}
    ~Block() { io_.give_block(memory_); }
    Block(const Block&) = delete;
    Block& operator=(const Block&) = delete;
    char* data() const noexcept { return memory_; }

  private:
    Io& io_;
    char* memory_;
};

// The next datagram, whole, in the block, or in `large` if that is too small. False: would block.
bool receive_whole(SocketState& socket, const SystemCalls& calls, const char* operation,
                   const Block& block, std::string& large, std::string_view& data,
                   Address& address) {
    sockaddr_storage storage;
    iovec part{block.data(), Io::block_size};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    // Of UDP none is larger than a block.
    if (socket.family() != AF_INET && socket.family() != AF_INET6) {
        const ssize_t size = receive_by(socket, calls, operation, [&] {
            return calls.recvmsg(socket.descriptor(), &message, MSG_PEEK | MSG_TRUNC);
        });
        if (size < 0) return false;
        if (static_cast<std::size_t>(size) > Io::block_size) {
            large.resize(static_cast<std::size_t>(size));
            part = {large.data(), large.size()};
        }
    }
    message.msg_name = &storage;
    const ssize_t size = receive_by(socket, calls, operation, [&] {
        message.msg_namelen = sizeof storage;
        return calls.recvmsg(socket.descriptor(), &message, 0);
    });
    if (size < 0) return false;
    data = {static_cast<const char*>(part.iov_base), static_cast<std::size_t>(size)};
    address = address_of(message);
    return true;
}

// False: would block.
bool send_one(SocketState& socket, const SystemCalls& calls, const char* operation,
              std::string_view data, const Address& address) {
    iovec part{const_cast<char*>(data.data()), data.size()};
    msghdr message{};
    if (address.family() != AF_UNSPEC) {
        message.msg_name = const_cast<sockaddr*>(address.data());
        message.msg_namelen = address.size();
    }
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    return send_by(socket, calls, operation, address,
                   [&] { return calls.sendmsg(socket.descriptor(), &message, MSG_NOSIGNAL); }) >= 0;
}

// Those that come in one batch count for the budget one by one.
void spend_for(Io& io, std::size_t count) {
    for (std::size_t i = 1; i < count; ++i) io.spend();
}

} // namespace

DatagramError::DatagramError(std::error_code code, const std::string& what,
                             const Address& destination)
    : std::system_error(code, what), destination_(destination) {}
DatagramError::DatagramError(const DatagramError&) noexcept = default;
DatagramError& DatagramError::operator=(const DatagramError&) noexcept = default;
DatagramError::~DatagramError() = default;

namespace detail {

DatagramRecv::Attempt DatagramRecv::attempt() {
    const SystemCalls& table = calls();
    const Block block(socket().io());
    std::string_view data;
    Address address;
    if (!receive_whole(socket(), table, name, block, data_, data, address)) return Attempt::blocked;
    if (data.data() != data_.data()) data_.assign(data);
    data_.resize(data.size());
    return Attempt::done;
}

DatagramRecvFrom::Attempt DatagramRecvFrom::attempt() {
    const SystemCalls& table = calls();
    const Block block(socket().io());
    std::string_view data;
    if (!receive_whole(socket(), table, name, block, data_, data, address_))
        return Attempt::blocked;
    if (data.data() != data_.data()) data_.assign(data);
    data_.resize(data.size());
    return Attempt::done;
}

DatagramRecvInto::Attempt DatagramRecvInto::attempt() {
    const SystemCalls& table = calls();
    sockaddr_storage storage;
    iovec part{buffer_.data(), buffer_.size()};
    msghdr message{};
    message.msg_name = &storage;
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    const ssize_t size = receive_by(socket(), table, name, [&] {
        message.msg_namelen = sizeof storage;
        return table.recvmsg(socket().descriptor(), &message, MSG_TRUNC);
    });
    if (size < 0) return Attempt::blocked;
    received_.full_size = static_cast<std::size_t>(size);
    received_.count = std::min(received_.full_size, buffer_.size());
    received_.address = address_of(message);
    return Attempt::done;
}

DatagramRecvMany::Attempt DatagramRecvMany::attempt() {
    const SystemCalls& table = calls();
    const std::size_t count = std::min(slots_.size(), most_at_once);
    if (count == 0) return Attempt::done;
    sockaddr_storage storages[most_at_once];
    iovec parts[most_at_once];
    mmsghdr messages[most_at_once];
    for (std::size_t i = 0; i < count; ++i) {
        const WritableBytes buffer = slots_[i].buffer();
        parts[i] = {buffer.data(), buffer.size()};
        messages[i] = {};
        messages[i].msg_hdr.msg_name = &storages[i];
        messages[i].msg_hdr.msg_namelen = sizeof storages[i];
        messages[i].msg_hdr.msg_iov = &parts[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    // If it gives fewer, there may be an error left, of which no edge tells: so the socket is
    // believed in until it says EAGAIN.
    const int got = receive_by(socket(), table, name, [&] {
        return table.recvmmsg(socket().descriptor(), messages, static_cast<unsigned>(count),
                              MSG_TRUNC, nullptr);
    });
    if (got < 0) return Attempt::blocked;
    count_ = static_cast<std::size_t>(got);
    for (std::size_t i = 0; i < count_; ++i)
        slots_[i].set(messages[i].msg_len, address_of(messages[i].msg_hdr));
    spend_for(socket().io(), count_);
    return Attempt::done;
}

DatagramSend::Attempt DatagramSend::attempt() {
    const SystemCalls& table = calls();
    if (must_write_later() || !may_call(Direction::write)) return Attempt::blocked;
    if (send_one(socket(), table, address_.family() != AF_UNSPEC ? name : "send", data_, address_))
        return Attempt::done;
    stand_in_line();
    return Attempt::blocked;
}

DatagramSendMany::Attempt DatagramSendMany::attempt() {
    const SystemCalls& table = calls();
    const std::size_t count = std::min(datagrams_.size(), most_at_once);
    if (count == 0) return Attempt::done;
    if (must_write_later() || !may_call(Direction::write)) return Attempt::blocked;
    iovec parts[most_at_once];
    mmsghdr messages[most_at_once];
    const auto address = [this](std::size_t i) -> const Address& {
        return datagrams_[i].address.family() != AF_UNSPEC ? datagrams_[i].address : remote_;
    };
    for (std::size_t i = 0; i < count; ++i) {
        parts[i] = {const_cast<char*>(datagrams_[i].data.data()), datagrams_[i].data.size()};
        messages[i] = {};
        if (address(i).family() != AF_UNSPEC) {
            messages[i].msg_hdr.msg_name = const_cast<sockaddr*>(address(i).data());
            messages[i].msg_hdr.msg_namelen = address(i).size();
        }
        messages[i].msg_hdr.msg_iov = &parts[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    const int sent = send_by(socket(), table, name, address(0), [&] {
        return table.sendmmsg(socket().descriptor(), messages, static_cast<unsigned>(count),
                              MSG_NOSIGNAL);
    });
    if (sent < 0) {
        stand_in_line();
        return Attempt::blocked;
    }
    count_ = static_cast<std::size_t>(sent);
    spend_for(socket().io(), count_);
    return Attempt::done;
}

namespace {

// Of a Unix socket that is gone: its name is in the way.
void remove_stale(const Address& address) {
    const std::string path = address.path();
    if (path.empty() || path.front() == '\0') return;
    const SystemCalls& calls = current_system_calls();
    struct stat status{};
    if (calls.stat(path.c_str(), &status) == 0 && S_ISSOCK(status.st_mode))
        calls.unlink(path.c_str());
}

int family_of(const DatagramOptions& options) {
    int family = options.family();
    for (const auto& address : {options.local_addr(), options.remote_addr()}) {
        if (!address) continue;
        if (family != AF_UNSPEC && family != address->family()) {
            throw ValueError("local_addr, remote_addr and family of an endpoint must be of one "
                             "family, and " +
                             address->text() + " is of another");
        }
        family = address->family();
    }
    if (family == AF_UNSPEC) {
        throw ValueError("unexpected address family: give the endpoint a local_addr, a "
                         "remote_addr, or a family");
    }
    return family;
}

} // namespace

Socket make_datagram_socket(const DatagramOptions& options) {
    Socket socket(family_of(options), SOCK_DGRAM);
    if (options.ipv6_only()) {
        if (socket.family() != AF_INET6) throw ValueError("ipv6_only is for an endpoint of IPv6");
        socket.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, *options.ipv6_only() ? 1 : 0);
    }
    if (options.reuse_port()) socket.setsockopt(SOL_SOCKET, SO_REUSEPORT, 1);
    if (options.allow_broadcast()) socket.setsockopt(SOL_SOCKET, SO_BROADCAST, 1);
    if (options.report_errors()) report_errors(socket);
    if (options.local_addr()) {
        if (socket.family() == AF_UNIX) remove_stale(*options.local_addr());
        socket.bind(*options.local_addr());
    }
    if (const auto& remote = options.remote_addr(); remote && !options.allow_broadcast()) {
        // Connecting a socket of datagrams does not wait.
        if (uninterrupted([&] {
                return current_system_calls().connect(socket.fileno(), remote->data(),
                                                      remote->size());
            }) != 0) {
            const int error = errno;
            throw_system_error(error, "connect to " + remote->text());
        }
        socket.state("connect").peer = *remote;
    }
    return socket;
}

void check_datagram_socket(const Socket& socket) {
    if (!socket.is_open()) throw ValueError("a datagram socket was expected, and this is closed");
    if (socket.type() == SOCK_STREAM)
        throw ValueError("a datagram socket was expected, and this is one of streams");
}

} // namespace detail

void report_errors(Socket& socket, bool on) {
    SocketState& state = socket.state("report_errors");
    if (socket.family() == AF_INET6) {
        socket.setsockopt(IPPROTO_IPV6, IPV6_RECVERR, on ? 1 : 0);
        // It may send to IPv4 too.
        if (socket.getsockopt(IPPROTO_IPV6, IPV6_V6ONLY) == 0)
            socket.setsockopt(IPPROTO_IP, IP_RECVERR, on ? 1 : 0);
    } else {
        socket.setsockopt(IPPROTO_IP, IP_RECVERR, on ? 1 : 0);
    }
    state.queues_errors = on;
    state.may_have_errors = false; // what was kept is dropped by the kernel
}

namespace {

// The number of an interface; 0 for an empty name.
unsigned interface_number(std::string_view interface) {
    unsigned number = 0;
    if (interface.empty()) return number;
    const char* const end = interface.data() + interface.size();
    // NOLINTNEXTLINE(bugprone-suspicious-stringview-data-usage): it is told where it ends
    const auto parsed = std::from_chars(interface.data(), end, number);
    if (parsed.ec == std::errc() && parsed.ptr == end) return number;
    number = ::if_nametoindex(std::string(interface).c_str());
    if (number == 0)
        throw ValueError("there is no network interface '" + std::string(interface) + "'");
    return number;
}

bool is_group(const Address& address) {
    if (address.family() == AF_INET) {
        sockaddr_in ipv4{};
        __builtin_memcpy(&ipv4, address.data(), sizeof ipv4);
        return IN_MULTICAST(ntohl(ipv4.sin_addr.s_addr));
    }
    if (address.family() != AF_INET6) return false;
    sockaddr_in6 ipv6{};
    __builtin_memcpy(&ipv6, address.data(), sizeof ipv6);
    return IN6_IS_ADDR_MULTICAST(&ipv6.sin6_addr);
}

void change_membership(Socket& socket, int option, const Address& group,
                       std::string_view interface) {
    if (!is_group(group)) {
        throw ValueError(group.text() + " is no multicast group: these are from 224.0.0.0 to "
                                        "239.255.255.255, or begin with ff");
    }
    group_req request{};
    request.gr_interface = interface.empty() ? group.scope_id() : interface_number(interface);
    __builtin_memcpy(&request.gr_group, group.data(), group.size());
    const int level = group.family() == AF_INET ? IPPROTO_IP : IPPROTO_IPV6;
    if (detail::current_system_calls().setsockopt(socket.state("join_group").descriptor(), level,
                                                  option, &request, sizeof request) != 0) {
        detail::throw_system_error(
            errno, (option == MCAST_JOIN_GROUP ? "join_group " : "leave_group ") + group.host());
    }
}

// The option for the socket's family.
void set_option(Socket& socket, int ipv4, int ipv6, int value) {
    if (socket.family() == AF_INET6) {
        socket.setsockopt(IPPROTO_IPV6, ipv6, value);
    } else {
        socket.setsockopt(IPPROTO_IP, ipv4, value);
    }
}

} // namespace

void join_group(Socket& socket, const Address& group, std::string_view interface) {
    change_membership(socket, MCAST_JOIN_GROUP, group, interface);
}

void leave_group(Socket& socket, const Address& group, std::string_view interface) {
    change_membership(socket, MCAST_LEAVE_GROUP, group, interface);
}

void set_multicast_interface(Socket& socket, std::string_view interface) {
    const auto number = static_cast<int>(interface_number(interface));
    if (socket.family() == AF_INET6) {
        socket.setsockopt(IPPROTO_IPV6, IPV6_MULTICAST_IF, number);
        return;
    }
    ip_mreqn request{};
    request.imr_ifindex = number;
    socket.setsockopt(IPPROTO_IP, IP_MULTICAST_IF,
                      ReadableBytes(reinterpret_cast<const char*>(&request), sizeof request));
}

void set_multicast_ttl(Socket& socket, std::uint8_t hops) {
    set_option(socket, IP_MULTICAST_TTL, IPV6_MULTICAST_HOPS, hops);
}

void set_multicast_loop(Socket& socket, bool on) {
    set_option(socket, IP_MULTICAST_LOOP, IPV6_MULTICAST_LOOP, on ? 1 : 0);
}

Coro<DatagramEndpoint> open_datagram_endpoint(DatagramOptions options) {
    const bool connected = !options.allow_broadcast();
    co_return DatagramEndpoint(detail::make_datagram_socket(options),
                               connected ? Address() : options.remote_addr().value_or(Address()));
}

DatagramProtocol::~DatagramProtocol() = default;
// NOLINTBEGIN(performance-unnecessary-value-param): whoever overrides these wants to keep it
void DatagramProtocol::connection_made(DatagramTransport) {}
void DatagramProtocol::datagram_received(std::string_view, const Address&) {}
void DatagramProtocol::error_received(const std::system_error&) {}
void DatagramProtocol::connection_lost(std::exception_ptr) {}
// NOLINTEND(performance-unnecessary-value-param)
void DatagramProtocol::pause_writing() {}
void DatagramProtocol::resume_writing() {}

namespace detail {

// What a DatagramTransport points to. Counted: one reference for the loop until the transport is
// lost, one for each handle, and one for each node that comes up in the ready queue after that.
class DatagramTransportState final : public Pooled, public SocketOwner {
  public:
    DatagramTransportState(EventLoop& loop, Socket socket, const Address& remote,
                           std::shared_ptr<DatagramProtocol> protocol)
        : loop_(loop), context_{context_for(loop)}, socket_(std::move(socket)),
          channel_(socket_.state("create_datagram_endpoint")), protocol_(std::move(protocol)),
          sockname_(name_or_none([this] { return socket_.getsockname(); })),
          peername_(name_or_none([this] { return socket_.getpeername(); })),
          remote_(remote.family() != AF_UNSPEC ? remote : peername_) {
        loop.retain();
        try {
            channel_.attach(loop, channel_.descriptor());
        } catch (...) {
            loop.release();
            throw;
        }
        channel_.owner = this;
    }
    DatagramTransportState(const DatagramTransportState&) = delete;
    DatagramTransportState& operator=(const DatagramTransportState&) = delete;

    void retain() noexcept { ++references_; }
    void release() noexcept {
        if (--references_ == 0) delete this;
    }

    // The loop's reference is there from the beginning. Reading begins after connection_made(), and
    // after who made the transport was woken.
    Future<> start() {
        DatagramTransport self(this);
        Future<> waiter = create_future(loop_);
        try {
            loop_.call_soon([self] {
                const std::shared_ptr<DatagramProtocol> protocol = self.get_protocol();
                if (protocol != nullptr) protocol->connection_made(self);
            });
            loop_.call_soon([waiter]() mutable {
                if (!waiter.done()) waiter.set_result();
            });
            loop_.call_soon([self] {
                DatagramTransportState& state = self.state();
                if (!state.closing_) state.arm(state.reader_, Direction::read);
            });
        } catch (...) {
            let_go();
            throw;
        }
        return waiter;
    }

    void sendto(std::string_view data, const Address* address) {
        loop_.check_thread();
        if (remote_.family() != AF_UNSPEC) {
            if (address != nullptr && *address != remote_) {
                throw ValueError("Invalid address: this endpoint sends to " + remote_.text() +
                                 " only, not to " + address->text());
            }
        } else if (address == nullptr) {
            throw ValueError("sendto() needs an address: this endpoint has no remote_addr");
        }
        if (lost_ != 0) {
            if (lost_ < told_at) {
                ++lost_;
                return;
            }
            loop_.tell([this] {
                return ExceptionContext{.message = "sendto() was called again after the transport "
                                                   "was lost, and the data was dropped",
                                        .details = {{"transport", describe()}}};
            });
            return;
        }
        if (closed_behind_our_back()) return;
        Address to; // none if it is connected: then the kernel knows
        if (peername_.family() == AF_UNSPEC) to = address != nullptr ? *address : remote_;
        if (queue_.empty()) {
            try {
                if (send_one(channel_, loop_calls(), "sendto", data, to)) return;
            } catch (const std::system_error& error) {
                report_error(error);
                return;
            }
        }
        queue_.push_back({std::string(data), to});
        queued_size_ += data.size() + header_size;
        arm(writer_, Direction::write);
        maybe_pause();
    }

    void close() {
        loop_.check_thread();
        if (closing_) return;
        closing_ = true;
        reader_.retire();
        if (queue_.empty()) lose_soon(nullptr);
    }
    void abort() {
        loop_.check_thread();
        force_close(nullptr);
    }
    bool is_closing() const noexcept { return closing_; }

    void set_protocol(std::shared_ptr<DatagramProtocol> protocol) {
        if (protocol == nullptr) throw ValueError("set_protocol() needs a protocol, not null");
        if (held_) protocol_ = std::move(protocol);
    }
    const std::shared_ptr<DatagramProtocol>& protocol() const noexcept { return protocol_; }
    std::size_t write_buffer_size() const noexcept { return queued_size_; }
    std::pair<std::size_t, std::size_t> limits() const noexcept { return {low_, high_}; }
    void set_limits(std::optional<std::size_t> high, std::optional<std::size_t> low) {
        constexpr std::size_t usual = std::size_t{64} * 1024;
        const std::size_t new_high = high ? *high : low ? 4 * *low : usual;
        const std::size_t new_low = low.value_or(new_high / 4);
        if (new_high < new_low) {
            throw ValueError("high (" + std::to_string(new_high) + ") must be >= low (" +
                             std::to_string(new_low) + ")");
        }
        high_ = new_high;
        low_ = new_low;
        maybe_pause();
    }
    const Address& sockname() const noexcept { return sockname_; }
    const Address& peername() const noexcept { return peername_; }
    Socket& socket() noexcept { return socket_; }

    void loop_closed() noexcept override { let_go(); }

  private:
    static constexpr std::size_t header_size = 8;
    // LOG_THRESHOLD_FOR_CONNLOST_WRITES of asyncio: the loss itself counts for the first.
    static constexpr unsigned told_at = 5;

    // Waits for the socket; comes up in the ready queue.
    class Node final : public ChannelWaiter {
      public:
        Node(DatagramTransportState& state, void (*work)(DatagramTransportState&)) noexcept
            : ChannelWaiter(state.channel_.edges()), state_(state), work_(work) {}
        using ChannelWaiter::wait_a_turn;
        using ChannelWaiter::wait_for;

        void run() override {
            begin_run();
            const DatagramTransport keep(&state_);
            if (std::exchange(outlives_, false)) state_.release();
            state_.call(state_.context_, [this] { work_(state_); });
        }
        void run_in_debug() override {
            const DatagramTransport keep(&state_);
            state_.loop_.run_watched(
                [this] { run(); },
                [this] { return ExceptionContext{.message = state_.describe()}; });
        }
        void discard() noexcept override {
            begin_run();
            const DatagramTransport keep(&state_);
            if (std::exchange(outlives_, false)) state_.release();
            state_.let_go();
        }
        CancelOutcome try_cancel() noexcept override { return CancelOutcome::already_done; }

        // Nothing waits any more; what is in the ready queue keeps the state.
        void retire() noexcept {
            if (stop_waiting() || outlives_) return;
            outlives_ = true;
            state_.retain();
        }

      private:
        DatagramTransportState& state_;
        // No pointer to a member: GCC 12 evaluates a call by one wrongly for UBSan.
        void (*work_)(DatagramTransportState&);
        bool outlives_ = false;
    };

    // connection_lost() to come, in a turn of its own.
    class Loss final : public Runnable {
      public:
        explicit Loss(DatagramTransportState& state) noexcept : state_(state) {}
        void run() override {
            const DatagramTransport keep(&state_);
            state_.call(context, [this] { state_.lose(); });
        }
        void run_in_debug() override {
            const DatagramTransport keep(&state_);
            state_.loop_.run_watched(
                [this] { run(); },
                [this] { return ExceptionContext{.message = state_.describe()}; });
        }
        void discard() noexcept override { state_.let_go(); }
        bool keeps_order() const noexcept override { return true; }
        OwnContext context;

      private:
        DatagramTransportState& state_;
    };

    struct Queued {
        std::string data;
        Address address;
    };

    ~DatagramTransportState() {
        channel_.owner = nullptr;
        socket_.close();
        loop_.release();
    }

    template <class Get> static Address name_or_none(Get get) {
        try {
            return get();
        } catch (const std::system_error&) {
            return {};
        }
    }
    const SystemCalls& loop_calls() const { return loop_.backend_while_closing().calls(); }
    std::string describe() const {
        std::string text = "<DatagramTransport";
        if (closing_) text += " closing";
        if (sockname_.family() != AF_UNSPEC) text += " at " + sockname_.text();
        if (remote_.family() != AF_UNSPEC) text += " to " + remote_.text();
        return text + ">";
    }
    // Calls work(), which calls the user's.
    template <class Work> void call(OwnContext& context, Work work) {
        call_guarded(loop_, context, work, [this] {
            return ExceptionContext{.message = "Exception in callback",
                                    .exception = std::current_exception(),
                                    .details = {{"transport", describe()}}};
        });
    }
    void report_error(const std::system_error& error) {
        const std::shared_ptr<DatagramProtocol> protocol = protocol_;
        protocol->error_received(error);
    }
    // What fails pausing and resuming is told, and goes no further.
    template <class Call> void tell_protocol(Call call_it, const char* name) {
        const std::shared_ptr<DatagramProtocol> protocol = protocol_;
        try {
            call_it(*protocol);
        } catch (const KeyboardInterrupt&) {
            throw;
        } catch (const SystemExit&) {
            throw;
        } catch (...) {
            loop_.tell([&] {
                return ExceptionContext{.message = std::string("protocol.") + name + "() failed",
                                        .exception = std::current_exception(),
                                        .details = {{"transport", describe()}}};
            });
        }
    }
    void maybe_pause() {
        if (queued_size_ <= high_ || paused_ || lost_ != 0) return;
        paused_ = true;
        tell_protocol([](DatagramProtocol& protocol) { protocol.pause_writing(); },
                      "pause_writing");
    }
    void maybe_resume() {
        if (!paused_ || queued_size_ > low_ || lost_ != 0) return;
        paused_ = false;
        tell_protocol([](DatagramProtocol& protocol) { protocol.resume_writing(); },
                      "resume_writing");
    }

    // Of a failure that is no error of the system.
    void fatal_error(const char* message) {
        const std::exception_ptr failure = std::current_exception();
        force_close(failure);
        loop_.tell([&] {
            return ExceptionContext{
                .message = message, .exception = failure, .details = {{"transport", describe()}}};
        });
    }
    bool closed_behind_our_back() {
        if (socket_.is_open()) return false;
        force_close(make_system_error(EBADF, "DatagramTransport: the socket was closed meanwhile"));
        return true;
    }
    // Has the node come up again: by an edge, or in the next turn if the socket is believed to be
    // ready now.
    void arm(Node& node, Direction direction) noexcept {
        if (node.is_waiting()) return;
        if (!channel_.is_attached()) {
            force_close(nullptr);
        } else if (channel_.believed(direction) ||
                   (direction == Direction::read && channel_.may_have_errors)) {
            node.wait_a_turn();
        } else {
            node.wait_for(direction);
        }
    }

    void read_ready() {
        if (closing_ || closed_behind_our_back()) return;
        struct Again {
            DatagramTransportState& state;
            ~Again() {
                if (!state.closing_) state.arm(state.reader_, Direction::read);
            }
        } const again{*this};
        const Block block(channel_.io());
        for (unsigned i = 0; i < Io::budget && !closing_; ++i) {
            if (!receive_next(block)) return;
        }
    }
    // Whether to go on at once.
    bool receive_next(const Block& block) {
        std::string large;
        std::string_view data;
        Address address;
        try {
            if (closed_behind_our_back() ||
                !receive_whole(channel_, loop_calls(), "recvfrom", block, large, data, address))
                return false;
        } catch (const std::system_error& error) {
            report_error(error);
            return false;
        } catch (...) {
            fatal_error("Fatal read error on datagram transport");
            return false;
        }
        const std::shared_ptr<DatagramProtocol> protocol = protocol_;
        protocol->datagram_received(data, address);
        return true;
    }

    void write_ready() {
        if (lost_ != 0 || closed_behind_our_back()) return;
        struct Again {
            DatagramTransportState& state;
            ~Again() {
                if (state.lost_ != 0) return;
                if (!state.queue_.empty()) {
                    state.arm(state.writer_, Direction::write);
                } else if (state.closing_) { // an interrupt has left a callback
                    state.lose_soon(nullptr);
                }
            }
        } const again{*this};
        if (channel_.writes_later()) channel_.would_block(Direction::write);
        for (unsigned i = 0; i < Io::budget && !queue_.empty(); ++i) {
            if (!send_next()) break;
        }
        maybe_resume(); // may send
        if (lost_ == 0 && closing_ && queue_.empty()) {
            ++lost_;
            lose();
        }
    }
    // Whether to go on at once.
    bool send_next() {
        const auto drop = [this] {
            queued_size_ -= queue_.front().data.size() + header_size;
            queue_.pop_front();
        };
        const Queued& next = queue_.front();
        try {
            if (closed_behind_our_back() ||
                !send_one(channel_, loop_calls(), "sendto", next.data, next.address))
                return false;
        } catch (const std::system_error& error) {
            drop();
            report_error(error);
            return true;
        }
        drop();
        channel_.has_written();
        return true;
    }

    void lose_soon(std::exception_ptr why) noexcept {
        ++lost_;
        loss_ = std::move(why);
        loss_node_.context = {context_for(loop_)};
        loop_.core().ready.push(loss_node_);
    }
    void force_close(std::exception_ptr why) noexcept {
        if (lost_ != 0) return;
        queue_.clear();
        queued_size_ = 0;
        closing_ = true;
        reader_.retire();
        writer_.retire();
        lose_soon(std::move(why));
    }
    void lose() {
        struct AtEnd {
            DatagramTransportState& state;
            ~AtEnd() { state.let_go(); }
        } const at_end{*this};
        const std::shared_ptr<DatagramProtocol> protocol = protocol_;
        protocol->connection_lost(std::exchange(loss_, nullptr));
    }
    // The end: the loop's reference goes. Nothing is called any more.
    void let_go() noexcept {
        if (!std::exchange(held_, false)) return;
        closing_ = true;
        if (lost_ == 0) ++lost_;
        queue_.clear();
        queued_size_ = 0;
        reader_.retire();
        writer_.retire();
        socket_.close();
        {
            const std::shared_ptr<DatagramProtocol> protocol = std::exchange(protocol_, nullptr);
        } // its destructor may do anything
        release();
    }

    EventLoop& loop_;
    OwnContext context_;
    Socket socket_;
    SocketState& channel_;
    std::shared_ptr<DatagramProtocol> protocol_;
    Address sockname_;
    Address peername_;
    Address remote_;
    std::uint32_t references_ = 1;
    bool held_ = true; // by the loop
    bool closing_ = false;
    bool paused_ = false;
    unsigned lost_ = 0; // 0 until connection_lost() is to come; counts what is dropped then
    std::exception_ptr loss_;
    std::size_t high_ = std::size_t{64} * 1024;
    std::size_t low_ = std::size_t{16} * 1024;
    std::size_t queued_size_ = 0;
    std::deque<Queued> queue_;
    Node reader_{*this, [](DatagramTransportState& state) { state.read_ready(); }};
    Node writer_{*this, [](DatagramTransportState& state) { state.write_ready(); }};
    Loss loss_node_{*this};
};

Coro<DatagramTransport> start_datagram_transport(Socket socket, Address remote,
                                                 std::shared_ptr<DatagramProtocol> protocol) {
    if (protocol == nullptr)
        throw ValueError("the protocol factory of create_datagram_endpoint() gave null");
    EventLoop& loop = get_running_loop();
    auto* state = new DatagramTransportState(loop, std::move(socket), remote, std::move(protocol));
    DatagramTransport transport(state);
    Future<> waiter = state->start();
    try {
        co_await waiter;
    } catch (...) {
        transport.close();
        throw;
    }
    co_return transport;
}

} // namespace detail

DatagramTransport::DatagramTransport(detail::DatagramTransportState* state) noexcept
    : state_(state) {
    if (state_ != nullptr) state_->retain();
}
DatagramTransport::DatagramTransport(const DatagramTransport& other) noexcept
    : DatagramTransport(other.state_) {}
DatagramTransport::~DatagramTransport() {
    if (state_ != nullptr) state_->release();
}

detail::DatagramTransportState& DatagramTransport::state() const {
    if (state_ == nullptr) {
        throw RuntimeError("this DatagramTransport is of nothing: keep the one that "
                           "connection_made() or create_datagram_endpoint() gives");
    }
    return *state_;
}

void DatagramTransport::sendto(ReadableBytes data) const { state().sendto(data, nullptr); }
void DatagramTransport::sendto(ReadableBytes data, const Address& address) const {
    state().sendto(data, &address);
}
void DatagramTransport::close() const { state().close(); }
void DatagramTransport::abort() const { state().abort(); }
bool DatagramTransport::is_closing() const noexcept {
    return state_ == nullptr || state_->is_closing();
}
void DatagramTransport::set_protocol(std::shared_ptr<DatagramProtocol> protocol) const {
    state().set_protocol(std::move(protocol));
}
std::shared_ptr<DatagramProtocol> DatagramTransport::get_protocol() const {
    return state().protocol();
}
std::size_t DatagramTransport::get_write_buffer_size() const { return state().write_buffer_size(); }
std::pair<std::size_t, std::size_t> DatagramTransport::get_write_buffer_limits() const {
    return state().limits();
}
void DatagramTransport::set_write_buffer_limits(std::optional<std::size_t> high,
                                                std::optional<std::size_t> low) const {
    state().set_limits(high, low);
}
const Address& DatagramTransport::sockname() const { return state().sockname(); }
const Address& DatagramTransport::peername() const { return state().peername(); }
Socket& DatagramTransport::socket() const { return state().socket(); }

ASYNCIO_END_NAMESPACE
