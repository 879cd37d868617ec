// SPDX-License-Identifier: MIT
// The sockets of datagrams: how they are made, and the options that only they have.
#include <asyncio/datagrams.hpp>
#include <asyncio/dns.hpp>

#include "uninterrupted.hpp"

#include <cerrno>
#include <charconv>
#include <exception>
#include <memory>
#include <net/if.h>
#include <optional>
#include <string>
#include <string_view>
#include <sys/stat.h>
#include <system_error>
#include <utility>
#include <vector>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {
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

// Of addresses, not of hosts.
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

// The addresses of a host; or the one that was given, or none.
Coro<std::vector<std::optional<Address>>>
addresses_of(std::shared_ptr<const DatagramOptions::HostAndPort> host,
             std::optional<Address> address, GetAddrInfoOptions lookup) {
    std::vector<std::optional<Address>> addresses;
    if (host == nullptr) {
        addresses.push_back(address);
        co_return addresses;
    }
    const auto found = co_await getaddrinfo(host->host, host->port, lookup);
    for (const AddressInfo& one : found) addresses.emplace_back(one.address);
    co_return addresses;
}

// What works first. (loop.create_datagram_endpoint)
OpenedDatagramSocket first_socket_of(const std::vector<std::optional<Address>>& locals,
                                     const std::vector<std::optional<Address>>& remotes,
                                     DatagramOptions options) {
    std::exception_ptr first_failure;
    for (const auto& remote : remotes) {
        for (const auto& local : locals) {
            if (remote && local && remote->family() != local->family()) continue;
            if (remote) options.remote_addr(*remote);
            if (local) options.local_addr(*local);
            try {
                return OpenedDatagramSocket(make_datagram_socket(options),
                                            remote.value_or(Address()));
            } catch (const std::system_error&) {
                if (first_failure == nullptr) first_failure = std::current_exception();
            }
        }
    }
    if (first_failure != nullptr) std::rethrow_exception(first_failure);
    throw ValueError("local_addr and remote_addr have no address of the same family");
}

} // namespace

Coro<OpenedDatagramSocket> open_datagram_socket(DatagramOptions options) {
    if (options.local_host() == nullptr && options.remote_host() == nullptr) {
        co_return OpenedDatagramSocket(make_datagram_socket(options),
                                       options.remote_addr().value_or(Address()));
    }
    GetAddrInfoOptions lookup;
    lookup.family(options.family()).type(SOCK_DGRAM);
    const auto remotes =
        co_await addresses_of(options.remote_host(), options.remote_addr(), lookup);
    lookup.flags(AI_PASSIVE);
    const auto locals = co_await addresses_of(options.local_host(), options.local_addr(), lookup);
    co_return first_socket_of(locals, remotes, std::move(options));
}

void check_datagram_socket(const Socket& socket) {
    if (!socket.is_open()) throw ValueError("a datagram socket was expected, and this is closed");
    if (socket.type() == SOCK_STREAM)
        throw ValueError("a datagram socket was expected, and this is one of streams");
}

} // namespace detail

void report_errors(Socket& socket, bool on) {
    detail::SocketState& state = socket.state("report_errors");
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

ASYNCIO_END_NAMESPACE
