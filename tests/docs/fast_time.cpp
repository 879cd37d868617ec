// SPDX-License-Identifier: MIT
// Linked into a program of the guide, it makes time jump: who sleeps or waits for a timer goes on
// at once, and every clock says that the time has passed. The program is as the reader has it.
// Takes the place of the library's table of system calls, and of two functions of the C library.
#include <asyncio/kernel/system_calls.hpp>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <ctime>
#include <fcntl.h>
#include <netdb.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

namespace {

constexpr std::int64_t second_ns = 1'000'000'000;
std::atomic<std::int64_t> now_ns = 4711 * second_ns + 123456789; // as good as any

std::int64_t in_ns(const timespec& time) { return time.tv_sec * second_ns + time.tv_nsec; }

int wait(int epoll, epoll_event* events, int capacity, std::int64_t timeout_ns) {
    if (timeout_ns < 0) return ::epoll_wait(epoll, events, capacity, -1);
    const int count = ::epoll_wait(epoll, events, capacity, 0);
    if (count == 0) now_ns += timeout_ns;
    return count;
}

constexpr asyncio::SystemCalls fast_calls = {
    .epoll_create1 = &::epoll_create1,
    .epoll_ctl = &::epoll_ctl,
    .epoll_wait =
        [](int epoll, epoll_event* events, int capacity, int timeout_ms) {
            return wait(epoll, events, capacity, std::int64_t{1'000'000} * timeout_ms);
        },
    .epoll_pwait2 =
        [](int epoll, epoll_event* events, int capacity, const timespec* timeout, const sigset_t*) {
            return wait(epoll, events, capacity, timeout == nullptr ? -1 : in_ns(*timeout));
        },
    .eventfd = [](unsigned int value, int flags) { return ::eventfd(value, flags); },
    .read = &::read,
    .write = &::write,
    .close = &::close,
    .fcntl = [](int descriptor, int command,
                int argument) { return ::fcntl(descriptor, command, argument); },
    .open = [](const char* path, int flags) { return ::open(path, flags); },
    .stat = &::stat,
    .unlink = &::unlink,
    .socket = &::socket,
    .socketpair = &::socketpair,
    .bind = &::bind,
    .listen = &::listen,
    .accept4 = &::accept4,
    .connect = &::connect,
    .shutdown = &::shutdown,
    .getsockname = &::getsockname,
    .getpeername = &::getpeername,
    .getsockopt = &::getsockopt,
    .setsockopt = &::setsockopt,
    .recv = &::recv,
    .recvmsg = &::recvmsg,
    .recvmmsg = &::recvmmsg,
    .send = &::send,
    .sendmsg = &::sendmsg,
    .sendmmsg = &::sendmmsg,
    .pthread_create = &::pthread_create,
    .getaddrinfo = &::getaddrinfo,
    .freeaddrinfo = &::freeaddrinfo,
    .getnameinfo = &::getnameinfo,
};

} // namespace

const asyncio::SystemCalls& asyncio::SystemCalls::real() noexcept { return fast_calls; }

extern "C" int clock_gettime(clockid_t, timespec* time) noexcept {
    const std::int64_t now = now_ns;
    time->tv_sec = now / second_ns;
    time->tv_nsec = now % second_ns;
    return 0;
}

extern "C" int nanosleep(const timespec* wanted, timespec*) {
    now_ns += in_ns(*wanted);
    return 0;
}
