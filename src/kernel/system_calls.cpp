// SPDX-License-Identifier: MIT
#include <asyncio/kernel/system_calls.hpp>

#include <cerrno>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

ASYNCIO_BEGIN_NAMESPACE
namespace {

// Not in glibc before 2.35, nor in Linux before 5.11: there the answer is ENOSYS.
int call_epoll_pwait2(int epoll, epoll_event* events, int capacity, const timespec* timeout,
                      const sigset_t* mask) {
#ifdef SYS_epoll_pwait2
    return static_cast<int>(
        ::syscall(SYS_epoll_pwait2, epoll, events, capacity, timeout, mask, _NSIG / 8));
#else
    errno = ENOSYS;
    return -1;
#endif
}

constexpr SystemCalls real_calls = {
    .epoll_create1 = &::epoll_create1,
    .epoll_ctl = &::epoll_ctl,
    .epoll_wait = &::epoll_wait,
    .epoll_pwait2 = &call_epoll_pwait2,
    .eventfd = [](unsigned int value, int flags) { return ::eventfd(value, flags); },
    .read = &::read,
    .write = &::write,
    .close = &::close,
    .fcntl = [](int descriptor, int command,
                int argument) { return ::fcntl(descriptor, command, argument); },
    .open = [](const char* path, int flags) { return ::open(path, flags); },
    .stat = [](const char* path, struct ::stat* status) { return ::stat(path, status); },
    .unlink = &::unlink,
    .socket = [](int family, int type, int protocol) { return ::socket(family, type, protocol); },
    .socketpair =
        [](int family, int type, int protocol, int* descriptors) {
            return ::socketpair(family, type, protocol, descriptors);
        },
    .bind = [](int descriptor, const sockaddr* address,
               socklen_t size) { return ::bind(descriptor, address, size); },
    .listen = [](int descriptor, int backlog) { return ::listen(descriptor, backlog); },
    .accept4 = [](int descriptor, sockaddr* address, socklen_t* size,
                  int flags) { return ::accept4(descriptor, address, size, flags); },
    .connect = [](int descriptor, const sockaddr* address,
                  socklen_t size) { return ::connect(descriptor, address, size); },
    .shutdown = [](int descriptor, int how) { return ::shutdown(descriptor, how); },
    .getsockname = [](int descriptor, sockaddr* address,
                      socklen_t* size) { return ::getsockname(descriptor, address, size); },
    .getpeername = [](int descriptor, sockaddr* address,
                      socklen_t* size) { return ::getpeername(descriptor, address, size); },
    .getsockopt =
        [](int descriptor, int level, int option, void* value, socklen_t* size) {
            return ::getsockopt(descriptor, level, option, value, size);
        },
    .setsockopt =
        [](int descriptor, int level, int option, const void* value, socklen_t size) {
            return ::setsockopt(descriptor, level, option, value, size);
        },
    .recv = &::recv,
    .recvmsg = &::recvmsg,
    .recvmmsg =
        [](int descriptor, mmsghdr* messages, unsigned int count, int flags, timespec* timeout) {
            return ::recvmmsg(descriptor, messages, count, flags, timeout);
        },
    .send = &::send,
    .sendmsg = &::sendmsg,
    .sendmmsg = [](int descriptor, mmsghdr* messages, unsigned int count,
                   int flags) { return ::sendmmsg(descriptor, messages, count, flags); },
    .pthread_create = &::pthread_create,
    .getaddrinfo = &::getaddrinfo,
    .freeaddrinfo = &::freeaddrinfo,
    .getnameinfo = &::getnameinfo,
};

} // namespace

const SystemCalls& SystemCalls::real() noexcept { return real_calls; }

ASYNCIO_END_NAMESPACE
