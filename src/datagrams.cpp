// SPDX-License-Identifier: MIT
#include <asyncio/datagrams.hpp>

#include "datagram_calls.hpp"
#include "uninterrupted.hpp"

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <linux/errqueue.h>

ASYNCIO_BEGIN_NAMESPACE
namespace {

using detail::Direction;
using detail::Io;
using detail::IoBlock;
using detail::SocketState;
using detail::uninterrupted;

constexpr std::size_t most_at_once = DatagramEndpoint::most_at_once;

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

bool receive_whole(SocketState& socket, const SystemCalls& calls, const char* operation,
                   const IoBlock& block, std::string& large, std::string_view& data,
                   Address& address) {
    sockaddr_storage storage;
    iovec part{block.span().data(), block.span().size()};
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

DatagramRecv::Attempt DatagramRecv::attempt() {
    const SystemCalls& table = calls();
    const IoBlock block(socket().io());
    std::string_view data;
    Address address;
    if (!receive_whole(socket(), table, name, block, data_, data, address)) return Attempt::blocked;
    if (data.data() != data_.data()) data_.assign(data);
    data_.resize(data.size());
    return Attempt::done;
}

DatagramRecvFrom::Attempt DatagramRecvFrom::attempt() {
    const SystemCalls& table = calls();
    const IoBlock block(socket().io());
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
    std::uint8_t& batch = socket().batch;
    const std::size_t count = std::min<std::size_t>(slots_.size(), batch);
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
    // As many as come of late, and soon all again if more do.
    if (count_ == batch) {
        batch = static_cast<std::uint8_t>(std::min<std::size_t>(most_at_once, 4 * count_));
    } else if (count_ <= batch / 4U) {
        batch = std::max<std::uint8_t>(4, batch / 2);
    }
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

} // namespace detail

Coro<DatagramEndpoint> open_datagram_endpoint(DatagramOptions options) {
    const bool connected = !options.allow_broadcast();
    detail::OpenedDatagramSocket opened = co_await detail::open_datagram_socket(std::move(options));
    co_return DatagramEndpoint(std::move(opened.socket), connected ? Address() : opened.remote);
}

ASYNCIO_END_NAMESPACE
