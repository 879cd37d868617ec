// SPDX-License-Identifier: MIT
// Address: where a socket is bound, or whom it is connected to.
//
//     asyncio::Address("127.0.0.1", 8080)           // IPv4
//     asyncio::Address("fe80::1%eth0", 8080)        // IPv6, with its scope
//     asyncio::Address::unix_path("/run/app.sock")  // a Unix socket; "\0name" for an abstract one
//
// A numeric address, never a name: names are for getaddrinfo() and open_connection(). What Python's
// socket module writes as a tuple or a path is one type here.
#pragma once

#include <asyncio/detail/config.hpp>

#include <cstddef>
#include <cstdint>
#include <netinet/in.h>
#include <string>
#include <string_view>
#include <sys/socket.h>
#include <sys/un.h>

ASYNCIO_BEGIN_NAMESPACE

class ASYNCIO_API Address {
  public:
    // Of no family: what an unbound Unix socket has.
    Address() noexcept : any_{} {}
    // An IPv4 or IPv6 address, in numbers; of IPv6 with its scope after a %, as a name of an
    // interface or a number. Throws ValueError for anything else, and for a port that is none: 0 to
    // 65,535.
    Address(std::string_view host, int port);
    // A Unix socket in the file system; or, where it begins with a zero byte, an abstract name.
    // Throws ValueError if it is empty or longer than 107 bytes.
    static Address unix_path(std::string_view path);
    // What the kernel gave. Requires: size <= sizeof(sockaddr_storage).
    Address(const sockaddr* address, socklen_t size) noexcept;

    // AF_INET, AF_INET6, AF_UNIX, AF_UNSPEC, or what the kernel knows besides.
    int family() const noexcept { return any_.ss_family; }
    // "127.0.0.1", "::1", "fe80::1%2"; empty for other families.
    std::string host() const;
    // 0 for other families than IPv4 and IPv6.
    std::uint16_t port() const noexcept;
    // The same address with another port. Throws ValueError as above.
    Address with_port(int port) const;
    // Of IPv6: the number of the interface that a link-local address is meant on; else 0.
    std::uint32_t scope_id() const noexcept {
        return family() == AF_INET6 ? ipv6_.sin6_scope_id : 0;
    }
    std::uint32_t flow_info() const noexcept {
        return family() == AF_INET6 ? ntohl(ipv6_.sin6_flowinfo) : 0;
    }
    // Of a Unix socket; an abstract name begins with a zero byte. Empty for other families.
    std::string path() const;
    // "127.0.0.1:80", "[::1]:80", "/run/app.sock", "@abstract": for messages. Each zero byte of a
    // Unix socket's name is written as an @.
    std::string text() const;

    const sockaddr* data() const noexcept { return &plain_; }
    socklen_t size() const noexcept { return size_; }

    friend ASYNCIO_API bool operator==(const Address& a, const Address& b) noexcept;

  private:
    union {
        sockaddr_storage any_;
        sockaddr plain_;
        sockaddr_in ipv4_;
        sockaddr_in6 ipv6_;
        sockaddr_un unix_;
    };
    socklen_t size_ = sizeof(sa_family_t);
};

ASYNCIO_END_NAMESPACE
