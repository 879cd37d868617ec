// SPDX-License-Identifier: MIT
// The system-call seam: every system call that a loop makes goes through such a table, so that a
// test can make the k-th call of a kind fail, loop by loop.
//
// Each entry has the signature and the errno convention of the call whose name it bears. So do
// those that are no system calls but make some: a thread that starts, and names that are looked up
// (on a thread of the pool, perhaps when the loop is gone already).
#pragma once

#include <asyncio/detail/config.hpp>

#include <csignal>
#include <ctime>
#include <netdb.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>

ASYNCIO_BEGIN_NAMESPACE

struct ASYNCIO_API SystemCalls {
    int (*epoll_create1)(int flags);
    int (*epoll_ctl)(int epoll, int operation, int descriptor, epoll_event* event);
    int (*epoll_wait)(int epoll, epoll_event* events, int capacity, int timeout_ms);
    int (*epoll_pwait2)(int epoll, epoll_event* events, int capacity, const timespec* timeout,
                        const sigset_t* mask);
    int (*eventfd)(unsigned int value, int flags);
    ssize_t (*read)(int descriptor, void* buffer, std::size_t size);
    ssize_t (*write)(int descriptor, const void* buffer, std::size_t size);
    int (*close)(int descriptor);
    int (*fcntl)(int descriptor, int command, int argument);
    int (*open)(const char* path, int flags);
    int (*stat)(const char* path, struct ::stat* status);
    int (*unlink)(const char* path);

    int (*socket)(int family, int type, int protocol);
    int (*socketpair)(int family, int type, int protocol, int* descriptors);
    int (*bind)(int descriptor, const sockaddr* address, socklen_t size);
    int (*listen)(int descriptor, int backlog);
    int (*accept4)(int descriptor, sockaddr* address, socklen_t* size, int flags);
    int (*connect)(int descriptor, const sockaddr* address, socklen_t size);
    int (*shutdown)(int descriptor, int how);
    int (*getsockname)(int descriptor, sockaddr* address, socklen_t* size);
    int (*getpeername)(int descriptor, sockaddr* address, socklen_t* size);
    int (*getsockopt)(int descriptor, int level, int option, void* value, socklen_t* size);
    int (*setsockopt)(int descriptor, int level, int option, const void* value, socklen_t size);
    ssize_t (*recv)(int descriptor, void* buffer, std::size_t size, int flags);
    ssize_t (*recvmsg)(int descriptor, msghdr* message, int flags);
    int (*recvmmsg)(int descriptor, mmsghdr* messages, unsigned int count, int flags,
                    timespec* timeout);
    ssize_t (*send)(int descriptor, const void* data, std::size_t size, int flags);
    ssize_t (*sendmsg)(int descriptor, const msghdr* message, int flags);
    int (*sendmmsg)(int descriptor, mmsghdr* messages, unsigned int count, int flags);

    int (*pthread_create)(pthread_t* thread, const pthread_attr_t* attributes,
                          void* (*start)(void*), void* argument);
    int (*getaddrinfo)(const char* host, const char* service, const addrinfo* hints,
                       addrinfo** result);
    void (*freeaddrinfo)(addrinfo* result);
    int (*getnameinfo)(const sockaddr* address, socklen_t size, char* host, socklen_t host_size,
                       char* service, socklen_t service_size, int flags);

    // The kernel's own.
    static const SystemCalls& real() noexcept;
};

ASYNCIO_END_NAMESPACE
