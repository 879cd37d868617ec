// SPDX-License-Identifier: MIT
// What tests of datagrams share: endpoints on loopback, and a kernel that has no room to send.
#pragma once

#include <asyncio/datagrams.hpp>
#include <asyncio/result.hpp>
#include <asyncio/runners.hpp>

#include <cerrno>
#include <exception>
#include <sys/epoll.h>
#include <system_error>

namespace asyncio_test {

inline asyncio::DatagramOptions on_loopback() {
    return asyncio::DatagramOptions().local_addr(asyncio::Address("127.0.0.1", 0));
}
inline asyncio::DatagramOptions connected_to(const asyncio::Address& address) {
    return asyncio::DatagramOptions().remote_addr(address);
}

// A port at which nobody listens.
inline asyncio::Address nobody() {
    asyncio::Socket socket(AF_INET, SOCK_DGRAM);
    socket.bind(asyncio::Address("127.0.0.1", 0));
    return socket.getsockname();
}

// The code of a failure; 0 for none.
template <class T> std::errc code_of(const asyncio::Result<T>& result) {
    if (result) return {};
    try {
        std::rethrow_exception(result.exception());
    } catch (const std::system_error& error) {
        return static_cast<std::errc>(error.code().value());
    } catch (...) {
        return std::errc::not_supported;
    }
}

// A loop whose kernel has no room to send, for as long as it is told to.
struct FullKernel {
    static inline int blocks_left = 0;
    static inline int blocked = 0;
    static inline int epoll = -1;
    static inline int descriptor = -1;
    static inline epoll_event event{};

    static const asyncio::SystemCalls& calls() {
        static const asyncio::SystemCalls table = [] {
            asyncio::SystemCalls t = asyncio::SystemCalls::real();
            t.epoll_ctl = [](int e, int operation, int d, epoll_event* what) {
                if (operation == EPOLL_CTL_ADD && (what->events & EPOLLET) != 0 &&
                    (what->events & EPOLLOUT) != 0) {
                    epoll = e;
                    descriptor = d;
                    event = *what;
                }
                return ::epoll_ctl(e, operation, d, what);
            };
            t.sendmsg = [](int d, const msghdr* message, int flags) -> ssize_t {
                return refuses(d) ? -1 : ::sendmsg(d, message, flags);
            };
            t.sendmmsg = [](int d, mmsghdr* messages, unsigned count, int flags) {
                return refuses(d) ? -1 : ::sendmmsg(d, messages, count, flags);
            };
            return t;
        }();
        return table;
    }
    // The last descriptor that was attached; -1: for ever.
    static bool refuses(int d) {
        if (d != descriptor || blocks_left == 0) return false;
        ++blocked;
        if (blocks_left > 0) {
            --blocks_left;
            make_edge();
        }
        errno = EAGAIN;
        return true;
    }
    // What the kernel does when there is room again.
    static void make_edge() { ::epoll_ctl(epoll, EPOLL_CTL_MOD, descriptor, &event); }
    static void reset(int blocks) {
        blocks_left = blocks;
        blocked = 0;
        descriptor = -1;
    }
};

template <class Body> void run_with_full_kernel(Body body) {
    FullKernel::reset(0);
    auto loop = asyncio::new_event_loop(asyncio::LoopOptions().system_calls(FullKernel::calls()));
    asyncio::run_until_complete(*loop, body());
}

} // namespace asyncio_test
