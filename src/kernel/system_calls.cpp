// SPDX-License-Identifier: MIT
#include <asyncio/kernel/system_calls.hpp>

#include <cerrno>
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
};

} // namespace

const SystemCalls& SystemCalls::real() noexcept { return real_calls; }

ASYNCIO_END_NAMESPACE
