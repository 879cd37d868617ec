// SPDX-License-Identifier: MIT
#include <asyncio/sockets.hpp>

#include "uninterrupted.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <climits>
#include <fcntl.h>
#include <limits>
#include <memory>
#include <optional>
#include <sys/uio.h>
#include <system_error>

ASYNCIO_BEGIN_NAMESPACE
namespace {

constexpr std::size_t parts_at_once = 64; // of scattered and gathered buffers, on the stack

// On Linux EWOULDBLOCK is the same number.
bool means_blocked(int error) noexcept { return error == EAGAIN; }

template <class GetName> Address name_of(int descriptor, const char* operation, GetName get_name) {
    sockaddr_storage storage{};
    socklen_t size = sizeof storage;
    if (get_name(descriptor, reinterpret_cast<sockaddr*>(&storage), &size) != 0)
        detail::throw_system_error(errno, operation);
    return Address(reinterpret_cast<sockaddr*>(&storage),
                   std::min<socklen_t>(size, sizeof storage));
}

} // namespace

namespace detail {

void SocketState::close() noexcept {
    const int descriptor = give_up();
    // EINTR: on Linux it is closed all the same.
    if (descriptor >= 0) current_system_calls().close(descriptor);
}

Address current_peer(const SocketState& socket, const SystemCalls& calls) noexcept {
    sockaddr_storage storage{};
    socklen_t size = sizeof storage;
    if (calls.getpeername(socket.descriptor(), reinterpret_cast<sockaddr*>(&storage), &size) != 0)
        return socket.peer;
    return Address(reinterpret_cast<sockaddr*>(&storage),
                   std::min<socklen_t>(size, sizeof storage));
}

int SocketState::give_up() noexcept {
    const int descriptor = std::exchange(descriptor_, -1);
    if (descriptor >= 0) Channel::detach();
    disarm();
    return descriptor;
}

void SocketState::write_later() {
    if (is_armed()) return;
    constexpr std::uint32_t longest_ms = 20;
    write_again_ms_ = write_again_ms_ == 0 ? 1 : std::min(2 * write_again_ms_, longest_ms);
    try {
        arm(loop(), std::chrono::milliseconds(write_again_ms_));
    } catch (...) {
        clear(unwritable);
        throw;
    }
}

void SocketState::timed_out() {
    if (is_attached()) edges().became_writable(loop().core().ready);
}

void SocketOperation::throw_if_closed() const {
    if (socket().descriptor() < 0)
        throw_system_error(EBADF, std::string(name_) + ": the socket was closed meanwhile");
}

void SocketOperation::attach() {
    throw_if_closed();
    socket().attach(get_running_loop(), socket().descriptor());
}

SocketOperation::Attempt SocketOperation::failed(Direction way) {
    const int error = errno;
    if (means_blocked(error)) {
        direction = way;
        socket().would_block(way);
        stand_in_line();
        return Attempt::blocked;
    }
    std::string what = name_;
    const Address peer = current_peer(socket(), socket().io().calls());
    if (peer.size() > sizeof(sa_family_t)) { // not a Unix socket without a name
        what += way == Direction::read ? " from " : " to ";
        what += peer.text();
    }
    throw_system_error(error, what);
}

void SocketOperation::stand_in_line() noexcept {
    if (has_place) return;
    has_place = true;
    SocketOperation** end = &socket().lines_[static_cast<std::size_t>(direction)];
    while (*end != nullptr) end = &(*end)->next_in_line_;
    *end = this;
}

void SocketOperation::let_next_come() noexcept {
    has_place = false;
    if (direction == Direction::write) socket().has_written();
    SocketOperation** link = &socket().lines_[static_cast<std::size_t>(direction)];
    while (*link != this) link = &(*link)->next_in_line_;
    *link = next_in_line_;
    // Who comes next may have found no more in its way than this one, which no edge ends.
    const bool is_somebody_left = socket().lines_[static_cast<std::size_t>(direction)] != nullptr;
    if (is_somebody_left && socket().is_attached() && socket().believed(direction))
        socket().wake(direction);
}

// Makes one call of one direction: `count` is what it has given, which is short if it is less than
// `wanted`.
template <class Call>
SocketOperation::Attempt SocketOperation::make_call(Direction way, std::size_t wanted,
                                                    std::size_t& count, Call call) {
    const SystemCalls& table = calls();
    if (!may_call(way)) return Attempt::blocked;
    const ssize_t result = uninterrupted([&] { return call(table, socket().descriptor()); });
    if (result < 0) return failed(way);
    count = static_cast<std::size_t>(result);
    if (way == Direction::read && count < wanted && socket().is_short_read_the_end())
        socket().read_short();
    return Attempt::done;
}

SockRecv::Attempt SockRecv::attempt() {
    if (size_ == 0) return Attempt::done; // as in asyncio, where the kernel is not asked
    // Into a block of the loop's first: how much will come is not known, and memory that is not
    // needed is not touched.
    std::optional<IoBlock> block;
    std::size_t count = 0;
    const Attempt attempt =
        make_call(Direction::read, size_, count, [&](const SystemCalls& table, int descriptor) {
            if (size_ > Io::block_size) {
                data_.resize(size_);
                return table.recv(descriptor, data_.data(), size_, 0);
            }
            if (!block.has_value()) block.emplace(socket().io());
            return table.recv(descriptor, block->span().data(), size_, 0);
        });
    if (attempt != Attempt::done) {
        data_ = std::string();
    } else if (block.has_value()) {
        data_.assign(block->span().data(), count);
    } else {
        data_.resize(count);
    }
    return attempt;
}

SockRecvInto::Attempt SockRecvInto::attempt() {
    if (buffer_.empty()) return Attempt::done;
    return make_call(Direction::read, buffer_.size(), count_,
                     [&](const SystemCalls& table, int descriptor) {
                         return table.recv(descriptor, buffer_.data(), buffer_.size(), 0);
                     });
}

SockRecvScattered::Attempt SockRecvScattered::attempt() {
    iovec parts[parts_at_once];
    std::size_t used = 0;
    std::size_t room = 0;
    for (const WritableBytes& buffer : buffers_) {
        if (buffer.empty()) continue;
        if (used == parts_at_once) break;
        parts[used++] = {buffer.data(), buffer.size()};
        room += buffer.size();
    }
    if (room == 0) return Attempt::done;
    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = used;
    return make_call(Direction::read, room, count_, [&](const SystemCalls& table, int descriptor) {
        return table.recvmsg(descriptor, &message, 0);
    });
}

namespace {

// recvfrom(), by the table's recvmsg.
ssize_t receive_from(const SystemCalls& table, int descriptor, char* data, std::size_t size,
                     Address& address) {
    sockaddr_storage storage{};
    iovec part{data, size};
    msghdr message{};
    message.msg_name = &storage;
    message.msg_namelen = sizeof storage;
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    const ssize_t count = table.recvmsg(descriptor, &message, 0);
    if (count >= 0) address = Address(reinterpret_cast<sockaddr*>(&storage), message.msg_namelen);
    return count;
}

} // namespace

SockRecvFrom::Attempt SockRecvFrom::attempt() {
    std::size_t count = 0;
    data_.resize(size_);
    const Attempt attempt =
        make_call(Direction::read, size_, count, [&](const SystemCalls& table, int descriptor) {
            return receive_from(table, descriptor, data_.data(), size_, address_);
        });
    if (attempt == Attempt::done) data_.resize(count);
    return attempt;
}

SockRecvFromInto::Attempt SockRecvFromInto::attempt() {
    return make_call(
        Direction::read, buffer_.size(), count_, [&](const SystemCalls& table, int descriptor) {
            return receive_from(table, descriptor, buffer_.data(), buffer_.size(), address_);
        });
}

SockSendAll::Attempt SockSendAll::attempt() {
    while (!rest_.empty()) {
        std::size_t count = 0;
        const Attempt attempt = make_call(
            Direction::write, rest_.size(), count, [&](const SystemCalls& table, int descriptor) {
                return table.send(descriptor, rest_.data(), rest_.size(), MSG_NOSIGNAL);
            });
        if (attempt == Attempt::blocked) return attempt;
        rest_.remove_prefix(count);
        if (!rest_.empty()) socket().would_block(Direction::write);
    }
    return Attempt::done;
}

SockSendGathered::Attempt SockSendGathered::attempt() {
    for (;;) {
        iovec parts[parts_at_once];
        std::size_t used = 0;
        std::size_t offset = sent_of_first_;
        std::size_t offered = 0;
        for (const ReadableBytes& part : rest_) {
            if (used == parts_at_once) break;
            parts[used++] = {const_cast<char*>(part.data()) + offset, part.size() - offset};
            offered += part.size() - offset;
            offset = 0;
        }
        std::size_t sent = 0;
        if (offered != 0) {
            msghdr message{};
            message.msg_iov = parts;
            message.msg_iovlen = used;
            const Attempt attempt = make_call(
                Direction::write, offered, sent, [&](const SystemCalls& table, int descriptor) {
                    return table.sendmsg(descriptor, &message, MSG_NOSIGNAL);
                });
            if (attempt == Attempt::blocked) return attempt;
            if (sent < offered) socket().would_block(Direction::write);
        }
        while (!rest_.empty() && sent >= rest_.front().size() - sent_of_first_) {
            sent -= rest_.front().size() - sent_of_first_;
            sent_of_first_ = 0;
            rest_ = rest_.subspan(1);
        }
        if (rest_.empty()) return Attempt::done;
        sent_of_first_ += sent;
    }
}

SockSendTo::Attempt SockSendTo::attempt() {
    if (must_write_later()) return Attempt::blocked;
    iovec part{const_cast<char*>(data_.data()), data_.size()};
    msghdr message{};
    message.msg_name = const_cast<sockaddr*>(address_.data());
    message.msg_namelen = address_.size();
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    const Attempt attempt = make_call(
        Direction::write, data_.size(), count_, [&](const SystemCalls& table, int descriptor) {
            const ssize_t count = table.sendmsg(descriptor, &message, MSG_NOSIGNAL);
            const int error = errno;
            if (count < 0 && !means_blocked(error) && error != EINTR)
                throw_system_error(error, std::string(name) + " to " + address_.text());
            return count;
        });
    if (attempt == Attempt::blocked && socket().family() == AF_UNIX &&
        !socket().believed(Direction::write))
        socket().write_later();
    return attempt;
}

// Attached only once it is under way: before, the kernel would tell of a hang-up.
SockConnect::Attempt SockConnect::attempt() {
    if (socket().descriptor() < 0) throw_if_closed();
    EventLoop& loop = get_running_loop();
    const SystemCalls& table = loop.backend().calls();
    direction = Direction::write;
    const auto fail = [&](int error) {
        throw_system_error(error, std::string(name) + " to " + address_.text());
    };
    if (!begun_) {
        // Of a socket of datagrams it ends the connection; of others it would do nothing.
        if (address_.family() == AF_UNSPEC && socket().type() != SOCK_DGRAM)
            throw ValueError("sock_connect to no address: Address() is none");
        was_attached_ = socket().is_attached();
        socket().forget_hangup();
        if (table.connect(socket().descriptor(), address_.data(), address_.size()) == 0) {
            socket().attach(loop, socket().descriptor());
            socket().peer = address_;
            return Attempt::done;
        }
        // Interrupted by a signal, it goes on all the same. EAGAIN, of a Unix socket, says that the
        // backlog of the server is full, and no edge tells when it is not any more.
        if (errno != EINPROGRESS && errno != EINTR) fail(errno);
        socket().attach(loop, socket().descriptor());
        socket().would_block(Direction::write);
        begun_ = true;
        return Attempt::blocked;
    }
    int error = 0;
    socklen_t size = sizeof error;
    if (table.getsockopt(socket().descriptor(), SOL_SOCKET, SO_ERROR, &error, &size) != 0)
        error = errno;
    if (error != 0) fail(error);
    // An edge of before may have come late; or who reads at the same time has taken the error.
    if (was_attached_ || socket().has_hung_up()) {
        sockaddr_storage storage{};
        size = sizeof storage;
        if (table.getpeername(socket().descriptor(), reinterpret_cast<sockaddr*>(&storage),
                              &size) != 0) {
            if (errno != ENOTCONN || socket().has_hung_up()) fail(errno);
            socket().would_block(Direction::write);
            return Attempt::blocked;
        }
    }
    socket().peer = address_;
    return Attempt::done;
}

SockAccept::Attempt SockAccept::attempt() {
    const SystemCalls& table = calls();
    if (!may_call(Direction::read)) return Attempt::blocked;
    for (int tries = 0;; ++tries) {
        sockaddr_storage storage{};
        socklen_t size = sizeof storage;
        const int descriptor =
            table.accept4(socket().descriptor(), reinterpret_cast<sockaddr*>(&storage), &size,
                          SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (descriptor >= 0) {
            struct Close {
                const SystemCalls& table;
                int descriptor;
                ~Close() {
                    if (descriptor >= 0) table.close(descriptor);
                }
            } owner{table, descriptor};
            accepted_.address = Address(reinterpret_cast<sockaddr*>(&storage), size);
            accepted_.socket =
                adopt_socket(descriptor, socket().family(), socket().type(), socket().protocol());
            owner.descriptor = -1;
            accepted_.socket.state(name).peer = accepted_.address;
            return Attempt::done;
        }
        // Errors of a connection that is gone already, see accept(2): so many in a row would be
        // something else.
        constexpr int most_tries = 1000;
        if (tries == most_tries) return failed(Direction::read);
        switch (errno) {
        case EINTR:
        case ECONNABORTED:
        case EPROTO:
        case ENETDOWN:
        case ENOPROTOOPT:
        case EHOSTDOWN:
        case ENONET:
        case EHOSTUNREACH:
        case ENETUNREACH:
            continue;
        default:
            return failed(Direction::read);
        }
    }
}

Socket adopt_socket(int descriptor, int family, int type, int protocol) {
    return Socket(new SocketState(descriptor, family, type, protocol));
}

} // namespace detail

Socket::Socket(int family, int type, int protocol) {
    const SystemCalls& calls = detail::current_system_calls();
    const int descriptor = calls.socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);
    if (descriptor < 0) detail::throw_system_error(errno, "socket");
    try {
        state_ = new detail::SocketState(descriptor, family, type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC),
                                         protocol);
    } catch (...) {
        calls.close(descriptor);
        throw;
    }
}

Socket Socket::from_descriptor(int descriptor) {
    const SystemCalls& calls = detail::current_system_calls();
    const auto option = [&](int name) {
        int value = 0;
        socklen_t size = sizeof value;
        if (calls.getsockopt(descriptor, SOL_SOCKET, name, &value, &size) != 0)
            detail::throw_system_error(errno,
                                       "descriptor " + std::to_string(descriptor) + " as a Socket");
        return value;
    };
    const int family = option(SO_DOMAIN);
    const int type = option(SO_TYPE);
    const int protocol = option(SO_PROTOCOL);
    auto state = std::make_unique<detail::SocketState>(-1, family, type, protocol);
    const int flags = calls.fcntl(descriptor, F_GETFL, 0);
    if (flags < 0 || calls.fcntl(descriptor, F_SETFL, flags | O_NONBLOCK) != 0)
        detail::throw_system_error(errno, "making a socket non-blocking");
    Socket socket = detail::adopt_socket(descriptor, family, type, protocol);
    socket.state_->peer = detail::current_peer(*socket.state_, calls);
    return socket;
}

std::pair<Socket, Socket> Socket::pair(int type) {
    const SystemCalls& calls = detail::current_system_calls();
    int descriptors[2] = {-1, -1};
    if (calls.socketpair(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, descriptors) != 0)
        detail::throw_system_error(errno, "socketpair");
    type &= ~(SOCK_NONBLOCK | SOCK_CLOEXEC);
    std::pair<Socket, Socket> both;
    try {
        both.first = detail::adopt_socket(descriptors[0], AF_UNIX, type, 0);
    } catch (...) {
        calls.close(descriptors[0]);
        calls.close(descriptors[1]);
        throw;
    }
    try {
        both.second = detail::adopt_socket(descriptors[1], AF_UNIX, type, 0);
    } catch (...) {
        calls.close(descriptors[1]);
        throw;
    }
    return both;
}

detail::SocketState& Socket::state(const char* operation) const {
    if (!is_open()) {
        detail::throw_system_error(EBADF, std::string(operation) + ": the socket is closed");
    }
    return *state_;
}

void Socket::bind(const Address& address) {
    if (detail::current_system_calls().bind(state("bind").descriptor(), address.data(),
                                            address.size()) != 0) {
        const int error = errno;
        detail::throw_system_error(error, "bind to " + address.text());
    }
}

void Socket::listen(int backlog) {
    if (detail::current_system_calls().listen(state("listen").descriptor(), backlog) != 0)
        detail::throw_system_error(errno, "listen");
}

void Socket::shutdown(int how) {
    if (detail::current_system_calls().shutdown(state("shutdown").descriptor(), how) != 0)
        detail::throw_system_error(errno, "shutdown");
}

Address Socket::getsockname() const {
    return detail::socket_name(state("getsockname").descriptor());
}

Address Socket::getpeername() const { return detail::peer_name(state("getpeername").descriptor()); }

void Socket::setsockopt(int level, int option, int value) {
    setsockopt(level, option, ReadableBytes(reinterpret_cast<const char*>(&value), sizeof value));
}

void Socket::setsockopt(int level, int option, ReadableBytes value) {
    detail::set_socket_option(state("setsockopt").descriptor(), level, option, value);
}

int Socket::getsockopt(int level, int option) const {
    return detail::get_socket_option(state("getsockopt").descriptor(), level, option);
}

namespace detail {

Address socket_name(int descriptor) {
    return name_of(descriptor, "getsockname", current_system_calls().getsockname);
}

Address peer_name(int descriptor) {
    return name_of(descriptor, "getpeername", current_system_calls().getpeername);
}

void set_socket_option(int descriptor, int level, int option, ReadableBytes value) {
    if (current_system_calls().setsockopt(descriptor, level, option, value.data(),
                                          static_cast<socklen_t>(value.size())) != 0)
        throw_system_error(errno, "setsockopt " + std::to_string(option) + " of level " +
                                      std::to_string(level));
}

int get_socket_option(int descriptor, int level, int option) {
    int value = 0;
    socklen_t size = sizeof value;
    if (current_system_calls().getsockopt(descriptor, level, option, &value, &size) != 0)
        throw_system_error(errno, "getsockopt " + std::to_string(option) + " of level " +
                                      std::to_string(level));
    return value;
}

} // namespace detail

ASYNCIO_END_NAMESPACE
