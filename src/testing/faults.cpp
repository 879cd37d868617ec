// SPDX-License-Identifier: MIT
#include <asyncio/exceptions.hpp>
#include <asyncio/testing/faults.hpp>

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <sys/stat.h>
#include <sys/uio.h>
#include <system_error>
#include <unordered_map>

ASYNCIO_BEGIN_NAMESPACE
namespace testing {
namespace {

constinit thread_local Faults* current = nullptr;

struct Kind {
    SystemCall call;
    const char* name;
    std::vector<int> errors;
};

// From the pages of section 2, and what tcp(7), udp(7), unix(7) and ip(7) say of the call besides.
// EWOULDBLOCK is EAGAIN on Linux. Left out: ERESTARTSYS, which no program ever sees.
const std::vector<Kind>& all_kinds() {
    using enum SystemCall;
    static const std::vector<Kind> kinds = {
        {epoll_create1, "epoll_create1", {EINVAL, EMFILE, ENFILE, ENOMEM}},
        {epoll_ctl, "epoll_ctl", {EBADF, EEXIST, EINVAL, ELOOP, ENOENT, ENOMEM, ENOSPC, EPERM}},
        {epoll_wait, "epoll_wait", {EBADF, EFAULT, EINTR, EINVAL}},
        {epoll_pwait2, "epoll_pwait2", {EBADF, EFAULT, EINTR, EINVAL, ENOSYS, EPERM}},
        {eventfd, "eventfd", {EINVAL, EMFILE, ENFILE, ENODEV, ENOMEM}},
        {read, "read", {EAGAIN, EBADF, EFAULT, EINTR, EINVAL, EIO, EISDIR, ECONNRESET}},
        {write,
         "write",
         {EAGAIN, EBADF, EDESTADDRREQ, EDQUOT, EFAULT, EFBIG, EINTR, EINVAL, EIO, ENOSPC, EPERM,
          EPIPE, ECONNRESET}},
        {close, "close", {EBADF, EINTR, EIO, ENOSPC, EDQUOT}},
        {fcntl,
         "fcntl",
         {EACCES, EAGAIN, EBADF, EBUSY, EDEADLK, EFAULT, EINTR, EINVAL, EMFILE, ENOLCK, ENOTDIR,
          EPERM}},
        {open, "open", {EACCES, EBADF,  EBUSY,   EDQUOT,  EEXIST,       EFAULT, EFBIG,
                        EINTR,  EINVAL, EISDIR,  ELOOP,   EMFILE,       ENFILE, ENODEV,
                        ENOENT, ENOMEM, ENOSPC,  ENOTDIR, ENAMETOOLONG, ENXIO,  EOVERFLOW,
                        EPERM,  EROFS,  ETXTBSY, EAGAIN,  EOPNOTSUPP}},
        {stat, "stat", {EACCES, EFAULT, ELOOP, ENAMETOOLONG, ENOENT, ENOMEM, ENOTDIR, EOVERFLOW}},
        {unlink,
         "unlink",
         {EACCES, EBUSY, EFAULT, EIO, EISDIR, ELOOP, ENAMETOOLONG, ENOENT, ENOMEM, ENOTDIR, EPERM,
          EROFS}},
        {socket,
         "socket",
         {EACCES, EAFNOSUPPORT, EINVAL, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPROTONOSUPPORT,
          ESOCKTNOSUPPORT, EPERM}},
        {socketpair,
         "socketpair",
         {EAFNOSUPPORT, EFAULT, EMFILE, ENFILE, EOPNOTSUPP, EPROTONOSUPPORT, ENOMEM}},
        {bind,
         "bind",
         {EACCES, EADDRINUSE, EBADF, EINVAL, ENOTSOCK, EADDRNOTAVAIL, EFAULT, ELOOP, ENAMETOOLONG,
          ENOENT, ENOMEM, ENOTDIR, EROFS, ENODEV}},
        {listen, "listen", {EADDRINUSE, EBADF, ENOTSOCK, EOPNOTSUPP}},
        {accept4,
         "accept4",
         {EAGAIN,     EBADF,       ECONNABORTED, EFAULT,          EINTR,           EINVAL,
          EMFILE,     ENFILE,      ENOBUFS,      ENOMEM,          ENOSR,           ENOTSOCK,
          EOPNOTSUPP, EPERM,       EPROTO,       EPROTONOSUPPORT, ESOCKTNOSUPPORT, ETIMEDOUT,
          ENETDOWN,   ENOPROTOOPT, EHOSTDOWN,    ENONET,          EHOSTUNREACH,    ENETUNREACH}},
        {connect, "connect", {EACCES,      EPERM,     EADDRINUSE,   EADDRNOTAVAIL, EAFNOSUPPORT,
                              EAGAIN,      EALREADY,  EBADF,        ECONNREFUSED,  EFAULT,
                              EINPROGRESS, EINTR,     EISCONN,      ENETUNREACH,   ENOTSOCK,
                              EPROTOTYPE,  ETIMEDOUT, EHOSTUNREACH, ENOENT,        ENOMEM}},
        {shutdown, "shutdown", {EBADF, EINVAL, ENOTCONN, ENOTSOCK}},
        {getsockname, "getsockname", {EBADF, EFAULT, EINVAL, ENOBUFS, ENOTSOCK}},
        {getpeername, "getpeername", {EBADF, EFAULT, EINVAL, ENOBUFS, ENOTCONN, ENOTSOCK}},
        {getsockopt, "getsockopt", {EBADF, EFAULT, EINVAL, ENOPROTOOPT, ENOTSOCK}},
        {setsockopt, "setsockopt", {EBADF, EFAULT, EINVAL, ENOPROTOOPT, ENOTSOCK, EPERM, ENOMEM}},
        {recv,
         "recv",
         {EAGAIN, EBADF, ECONNREFUSED, EFAULT, EINTR, EINVAL, ENOMEM, ENOTCONN, ENOTSOCK,
          ECONNRESET, ETIMEDOUT, EHOSTUNREACH}},
        {recvmsg,
         "recvmsg",
         {EAGAIN, EBADF, ECONNREFUSED, EFAULT, EINTR, EINVAL, ENOMEM, ENOTCONN, ENOTSOCK,
          ECONNRESET, ETIMEDOUT, EHOSTUNREACH}},
        {recvmmsg,
         "recvmmsg",
         {EAGAIN, EBADF, ECONNREFUSED, EFAULT, EINTR, EINVAL, ENOMEM, ENOTCONN, ENOTSOCK}},
        {send,
         "send",
         {EACCES, EAGAIN, EALREADY, EBADF, ECONNRESET, EDESTADDRREQ, EFAULT, EINTR, EINVAL, EISCONN,
          EMSGSIZE, ENOBUFS, ENOMEM, ENOTCONN, ENOTSOCK, EOPNOTSUPP, EPIPE, ETIMEDOUT,
          EHOSTUNREACH}},
        {sendmsg, "sendmsg", {EACCES,       EAGAIN,     EALREADY,  EBADF,        ECONNRESET,
                              EDESTADDRREQ, EFAULT,     EINTR,     EINVAL,       EISCONN,
                              EMSGSIZE,     ENOBUFS,    ENOMEM,    ENOTCONN,     ENOTSOCK,
                              EOPNOTSUPP,   EPIPE,      ETIMEDOUT, EHOSTUNREACH, ECONNREFUSED,
                              EPERM,        ENETUNREACH}},
        {sendmmsg, "sendmmsg", {EACCES,       EAGAIN,  EALREADY,     EBADF,    ECONNRESET,
                                EDESTADDRREQ, EFAULT,  EINTR,        EINVAL,   EISCONN,
                                EMSGSIZE,     ENOBUFS, ENOMEM,       ENOTCONN, ENOTSOCK,
                                EOPNOTSUPP,   EPIPE,   ECONNREFUSED, EPERM,    ENETUNREACH}},
        {so_error,
         "so_error",
         {ECONNREFUSED, ECONNRESET, ETIMEDOUT, ENETUNREACH, EHOSTUNREACH, EACCES, EPERM,
          ENOPROTOOPT, EADDRNOTAVAIL}},
    };
    return kinds;
}

bool can_be_shortened(SystemCall call) noexcept {
    switch (call) {
    case SystemCall::read:
    case SystemCall::write:
    case SystemCall::recv:
    case SystemCall::recvmsg:
    case SystemCall::recvmmsg:
    case SystemCall::send:
    case SystemCall::sendmsg:
    case SystemCall::sendmmsg:
        return true;
    default:
        return false;
    }
}

bool moves_messages(SystemCall call) noexcept {
    return call == SystemCall::recvmmsg || call == SystemCall::sendmmsg;
}

// What keeps no boundaries: where less was read, the rest is there for the next call.
bool is_stream(int descriptor) noexcept {
    struct stat status = {};
    if (::fstat(descriptor, &status) != 0) return false;
    if (S_ISFIFO(status.st_mode)) return true;
    if (!S_ISSOCK(status.st_mode)) return false;
    int type = 0;
    socklen_t size = sizeof type;
    return ::getsockopt(descriptor, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_STREAM;
}

} // namespace

std::span<const SystemCall> all_system_calls() noexcept {
    static const std::vector<SystemCall> calls = [] {
        std::vector<SystemCall> all;
        for (const Kind& kind : all_kinds()) all.push_back(kind.call);
        return all;
    }();
    return calls;
}

const char* name_of(SystemCall call) noexcept {
    return all_kinds()[static_cast<std::size_t>(call)].name;
}

std::span<const int> errors_of(SystemCall call) noexcept {
    return all_kinds()[static_cast<std::size_t>(call)].errors;
}

std::vector<Fault> faults_of(SystemCall call) {
    std::vector<Fault> faults;
    for (const int error : errors_of(call)) faults.emplace_back(call, error);
    return faults;
}

std::string Fault::text() const {
    std::string text = name_of(call_);
    if (error_ != 0) return text + " fails: " + std::generic_category().message(error_);
    return text + " of at most " + std::to_string(most_) +
           (moves_messages(call_) ? " messages" : " bytes");
}

struct Faults::Registrations {
    struct One {
        int epoll;
        epoll_event event;
    };
    std::unordered_map<int, std::vector<One>> by_descriptor;

    void note(int epoll, int operation, int descriptor, const epoll_event* event) {
        std::vector<One>& all = by_descriptor[descriptor];
        std::erase_if(all, [&](const One& one) { return one.epoll == epoll; });
        if (operation != EPOLL_CTL_DEL) all.push_back({epoll, *event});
        if (all.empty()) by_descriptor.erase(descriptor);
    }
    void forget(int descriptor) {
        by_descriptor.erase(descriptor);
        for (auto entry = by_descriptor.begin(); entry != by_descriptor.end();) {
            std::erase_if(entry->second, [&](const One& one) { return one.epoll == descriptor; });
            entry = entry->second.empty() ? by_descriptor.erase(entry) : std::next(entry);
        }
    }
    // To set an edge-triggered registration anew tells of what is there already.
    void arm_again(int descriptor) noexcept {
        const auto entry = by_descriptor.find(descriptor);
        if (entry == by_descriptor.end()) return;
        for (One& one : entry->second) {
            if ((one.event.events & EPOLLET) != 0)
                ::epoll_ctl(one.epoll, EPOLL_CTL_MOD, descriptor, &one.event);
        }
    }
};

Faults::Faults() : registrations_(std::make_unique<Registrations>()) {
    if (current != nullptr) {
        throw RuntimeError("there is a testing::Faults in this thread already: make() its faults "
                           "there, or let it go first");
    }
    current = this;
}

Faults::~Faults() { current = nullptr; }

void Faults::make(const Fault& fault, long first, long count) {
    if (fault.error() <= 0 && fault.most() == 0) {
        throw ValueError("a Fault needs an errno, which is positive, or a size of at least 1");
    }
    if (fault.most() != 0 && !can_be_shortened(fault.call())) {
        throw ValueError(std::string("a call of ") + name_of(fault.call()) +
                         " cannot be shortened: it moves no bytes");
    }
    rules_.push_back({fault, first, count});
}

long Faults::fired() const noexcept {
    long sum = 0;
    for (const Counts& counts : counts_) sum += counts.fired;
    return sum;
}

// The entries of the table.
struct FaultyCalls {
    // Counts a call that asks for `amount` of a descriptor. The fault that it meets, or null.
    static const Fault* meet(SystemCall call, int descriptor = -1, std::size_t amount = 0) {
        if (current == nullptr) return nullptr;
        Faults& faults = *current;
        ++faults.counts_[Faults::index(call)].calls;
        const Fault* met = nullptr;
        for (Faults::Rule& rule : faults.rules_) {
            if (rule.fault.call() != call) continue;
            if (rule.fault.error() == 0 &&
                (amount <= rule.fault.most() || !(moves_messages(call) || is_stream(descriptor))))
                continue;
            if (rule.skipped > 0) {
                --rule.skipped;
            } else if (rule.left > 0) {
                --rule.left;
                if (met == nullptr) met = &rule.fault;
            }
        }
        if (met != nullptr) ++faults.counts_[Faults::index(call)].fired;
        return met;
    }

    // A call that fails or is made.
    template <class Make> static auto simple(SystemCall call, Make make) -> decltype(make()) {
        if (const Fault* fault = meet(call)) {
            errno = fault->error();
            return -1;
        }
        return make();
    }

    // A call that may block, and that may be shortened: make(amount).
    template <class Make>
    static auto transfer(SystemCall call, int descriptor, std::size_t amount, Make make)
        -> decltype(make(amount)) {
        const Fault* fault = meet(call, descriptor, amount);
        if (fault == nullptr) return make(amount);
        if (const int error = fault->error(); error != 0) {
            if (error == EAGAIN) current->registrations_->arm_again(descriptor);
            errno = error;
            return -1;
        }
        const auto result = make(fault->most());
        const int error = errno;
        if (result > 0) current->registrations_->arm_again(descriptor);
        errno = error;
        return result;
    }

    // The first bytes of the parts of a message; calls use(message).
    template <class Use> static ssize_t cut(const msghdr& message, std::size_t most, Use use) {
        std::vector<iovec> parts;
        for (std::size_t i = 0; i < message.msg_iovlen && most > 0; ++i) {
            iovec part = message.msg_iov[i];
            part.iov_len = std::min(part.iov_len, most);
            most -= part.iov_len;
            parts.push_back(part);
        }
        msghdr shorter = message;
        shorter.msg_iov = parts.data();
        shorter.msg_iovlen = parts.size();
        return use(shorter);
    }
    static std::size_t size_of(const msghdr& message) noexcept {
        std::size_t size = 0;
        for (std::size_t i = 0; i < message.msg_iovlen; ++i) size += message.msg_iov[i].iov_len;
        return size;
    }

    static int epoll_ctl(int epoll, int operation, int descriptor, epoll_event* event) {
        const Fault* fault = meet(SystemCall::epoll_ctl);
        if (fault != nullptr && operation != EPOLL_CTL_DEL) {
            errno = fault->error();
            return -1;
        }
        const int result = SystemCalls::real().epoll_ctl(epoll, operation, descriptor, event);
        if (result == 0 && current != nullptr)
            current->registrations_->note(epoll, operation, descriptor, event);
        if (fault == nullptr) return result;
        errno = fault->error();
        return -1;
    }

    static int close(int descriptor) {
        const Fault* fault = meet(SystemCall::close);
        if (current != nullptr) current->registrations_->forget(descriptor);
        const int result = SystemCalls::real().close(descriptor);
        if (fault == nullptr) return result;
        errno = fault->error();
        return -1;
    }

    static int connect(int descriptor, const sockaddr* address, socklen_t size) {
        const Fault* fault = meet(SystemCall::connect);
        if (fault != nullptr && fault->error() != EINTR && fault->error() != EINPROGRESS) {
            errno = fault->error();
            return -1;
        }
        const int result = SystemCalls::real().connect(descriptor, address, size);
        if (fault == nullptr || (result != 0 && errno != EINPROGRESS)) return result;
        errno = fault->error();
        return -1;
    }

    static int getsockopt(int descriptor, int level, int option, void* value, socklen_t* size) {
        const int result = simple(SystemCall::getsockopt, [&] {
            return SystemCalls::real().getsockopt(descriptor, level, option, value, size);
        });
        if (result != 0 || level != SOL_SOCKET || option != SO_ERROR || *size != sizeof(int))
            return result;
        if (const Fault* fault = meet(SystemCall::so_error))
            *static_cast<int*>(value) = fault->error();
        return result;
    }

    static ssize_t recvmsg(int descriptor, msghdr* message, int flags) {
        const std::size_t all = size_of(*message);
        return transfer(SystemCall::recvmsg, descriptor, all, [&](std::size_t most) {
            if (most == all) return SystemCalls::real().recvmsg(descriptor, message, flags);
            return cut(*message, most, [&](msghdr& shorter) {
                const ssize_t result = SystemCalls::real().recvmsg(descriptor, &shorter, flags);
                message->msg_namelen = shorter.msg_namelen;
                message->msg_controllen = shorter.msg_controllen;
                message->msg_flags = shorter.msg_flags;
                return result;
            });
        });
    }

    static ssize_t sendmsg(int descriptor, const msghdr* message, int flags) {
        const std::size_t all = size_of(*message);
        return transfer(SystemCall::sendmsg, descriptor, all, [&](std::size_t most) {
            if (most == all) return SystemCalls::real().sendmsg(descriptor, message, flags);
            return cut(*message, most, [&](const msghdr& shorter) {
                return SystemCalls::real().sendmsg(descriptor, &shorter, flags);
            });
        });
    }
};

const SystemCalls& Faults::table() noexcept {
    using enum SystemCall;
    static const SystemCalls calls = [] {
        SystemCalls table = SystemCalls::real(); // what is not known here is never met by a fault
        table.epoll_create1 = [](int flags) {
            return FaultyCalls::simple(epoll_create1,
                                       [&] { return SystemCalls::real().epoll_create1(flags); });
        };
        table.epoll_ctl = &FaultyCalls::epoll_ctl;
        table.epoll_wait = [](int epoll, epoll_event* events, int capacity, int timeout_ms) {
            return FaultyCalls::simple(epoll_wait, [&] {
                return SystemCalls::real().epoll_wait(epoll, events, capacity, timeout_ms);
            });
        };
        table.epoll_pwait2 = [](int epoll, epoll_event* events, int capacity,
                                const timespec* timeout, const sigset_t* mask) {
            return FaultyCalls::simple(epoll_pwait2, [&] {
                return SystemCalls::real().epoll_pwait2(epoll, events, capacity, timeout, mask);
            });
        };
        table.eventfd = [](unsigned int value, int flags) {
            return FaultyCalls::simple(eventfd,
                                       [&] { return SystemCalls::real().eventfd(value, flags); });
        };
        table.read = [](int descriptor, void* buffer, std::size_t size) {
            return FaultyCalls::transfer(read, descriptor, size, [&](std::size_t most) {
                return SystemCalls::real().read(descriptor, buffer, most);
            });
        };
        table.write = [](int descriptor, const void* buffer, std::size_t size) {
            return FaultyCalls::transfer(write, descriptor, size, [&](std::size_t most) {
                return SystemCalls::real().write(descriptor, buffer, most);
            });
        };
        table.close = &FaultyCalls::close;
        table.fcntl = [](int descriptor, int command, int argument) {
            return FaultyCalls::simple(
                fcntl, [&] { return SystemCalls::real().fcntl(descriptor, command, argument); });
        };
        table.open = [](const char* path, int flags) {
            return FaultyCalls::simple(open, [&] { return SystemCalls::real().open(path, flags); });
        };
        table.stat = [](const char* path, struct ::stat* status) {
            return FaultyCalls::simple(stat,
                                       [&] { return SystemCalls::real().stat(path, status); });
        };
        table.unlink = [](const char* path) {
            return FaultyCalls::simple(unlink, [&] { return SystemCalls::real().unlink(path); });
        };
        table.socket = [](int family, int type, int protocol) {
            return FaultyCalls::simple(
                socket, [&] { return SystemCalls::real().socket(family, type, protocol); });
        };
        table.socketpair = [](int family, int type, int protocol, int* descriptors) {
            return FaultyCalls::simple(socketpair, [&] {
                return SystemCalls::real().socketpair(family, type, protocol, descriptors);
            });
        };
        table.bind = [](int descriptor, const sockaddr* address, socklen_t size) {
            return FaultyCalls::simple(
                bind, [&] { return SystemCalls::real().bind(descriptor, address, size); });
        };
        table.listen = [](int descriptor, int backlog) {
            return FaultyCalls::simple(
                listen, [&] { return SystemCalls::real().listen(descriptor, backlog); });
        };
        table.accept4 = [](int descriptor, sockaddr* address, socklen_t* size, int flags) {
            return FaultyCalls::transfer(accept4, descriptor, 0, [&](std::size_t) {
                return SystemCalls::real().accept4(descriptor, address, size, flags);
            });
        };
        table.connect = &FaultyCalls::connect;
        table.shutdown = [](int descriptor, int how) {
            return FaultyCalls::simple(
                shutdown, [&] { return SystemCalls::real().shutdown(descriptor, how); });
        };
        table.getsockname = [](int descriptor, sockaddr* address, socklen_t* size) {
            return FaultyCalls::simple(getsockname, [&] {
                return SystemCalls::real().getsockname(descriptor, address, size);
            });
        };
        table.getpeername = [](int descriptor, sockaddr* address, socklen_t* size) {
            return FaultyCalls::simple(getpeername, [&] {
                return SystemCalls::real().getpeername(descriptor, address, size);
            });
        };
        table.getsockopt = &FaultyCalls::getsockopt;
        table.setsockopt = [](int descriptor, int level, int option, const void* value,
                              socklen_t size) {
            return FaultyCalls::simple(setsockopt, [&] {
                return SystemCalls::real().setsockopt(descriptor, level, option, value, size);
            });
        };
        table.recv = [](int descriptor, void* buffer, std::size_t size, int flags) {
            return FaultyCalls::transfer(recv, descriptor, size, [&](std::size_t most) {
                return SystemCalls::real().recv(descriptor, buffer, most, flags);
            });
        };
        table.recvmsg = &FaultyCalls::recvmsg;
        table.recvmmsg = [](int descriptor, mmsghdr* messages, unsigned int count, int flags,
                            timespec* timeout) {
            return FaultyCalls::transfer(recvmmsg, descriptor, count, [&](std::size_t most) {
                return SystemCalls::real().recvmmsg(
                    descriptor, messages, static_cast<unsigned int>(most), flags, timeout);
            });
        };
        table.send = [](int descriptor, const void* data, std::size_t size, int flags) {
            return FaultyCalls::transfer(send, descriptor, size, [&](std::size_t most) {
                return SystemCalls::real().send(descriptor, data, most, flags);
            });
        };
        table.sendmsg = &FaultyCalls::sendmsg;
        table.sendmmsg = [](int descriptor, mmsghdr* messages, unsigned int count, int flags) {
            return FaultyCalls::transfer(sendmmsg, descriptor, count, [&](std::size_t most) {
                return SystemCalls::real().sendmmsg(descriptor, messages,
                                                    static_cast<unsigned int>(most), flags);
            });
        };
        return table;
    }();
    return calls;
}

} // namespace testing
ASYNCIO_END_NAMESPACE
