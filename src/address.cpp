// SPDX-License-Identifier: MIT
#include <asyncio/address.hpp>
#include <asyncio/exceptions.hpp>

#include <algorithm>
#include <arpa/inet.h>
#include <charconv>
#include <cstring>
#include <net/if.h>
#include <utility>

ASYNCIO_BEGIN_NAMESPACE
namespace {

constexpr std::size_t path_offset = offsetof(sockaddr_un, sun_path);

// For messages, which end at a zero byte.
std::string printable(std::string text) {
    std::replace(text.begin(), text.end(), '\0', '@');
    return text;
}

[[noreturn]] void throw_not_numeric(std::string_view host) {
    throw ValueError("'" + printable(std::string(host)) +
                     "' is not a numeric IPv4 or IPv6 address: look names up with getaddrinfo()");
}

std::uint16_t checked_port(int port) {
    const auto checked = static_cast<std::uint16_t>(port);
    if (checked != port) {
        throw ValueError("a port is a number from 0 to 65535, and not " + std::to_string(port));
    }
    return checked;
}

// A number, or the name of an interface; 0 if it is neither.
std::uint32_t scope_of(const std::string& text) {
    std::uint32_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error == std::errc() && end == text.data() + text.size()) return number;
    return ::if_nametoindex(text.c_str());
}

} // namespace

Address::Address(std::string_view host, int port) : Address() {
    const in_port_t in_network_order = htons(checked_port(port));
    if (host.find('\0') != std::string_view::npos) throw_not_numeric(host);
    const std::size_t percent = host.find('%');
    const std::string number(host.substr(0, percent));
    if (in_addr v4{};
        percent == std::string_view::npos && ::inet_pton(AF_INET, number.c_str(), &v4) == 1) {
        ipv4_ = sockaddr_in{};
        ipv4_.sin_family = AF_INET;
        ipv4_.sin_port = in_network_order;
        ipv4_.sin_addr = v4;
        size_ = sizeof(sockaddr_in);
        return;
    }
    in6_addr v6{};
    if (::inet_pton(AF_INET6, number.c_str(), &v6) != 1) throw_not_numeric(host);
    ipv6_ = sockaddr_in6{};
    ipv6_.sin6_family = AF_INET6;
    ipv6_.sin6_port = in_network_order;
    ipv6_.sin6_addr = v6;
    size_ = sizeof(sockaddr_in6);
    if (percent != std::string_view::npos) {
        const std::string scope(host.substr(percent + 1));
        ipv6_.sin6_scope_id = scope_of(scope);
        if (ipv6_.sin6_scope_id == 0 && scope != "0") {
            throw ValueError("there is no network interface '" + scope + "', which the address '" +
                             std::string(host) + "' names");
        }
    }
}

Address Address::unix_path(std::string_view path) {
    Address address;
    if (path.empty()) {
        throw ValueError(
            "the path of a Unix socket must not be empty; an abstract name begins with a "
            "zero byte: std::string(\"\\0name\", 5)");
    }
    const bool abstract = path.front() == '\0';
    if (path.size() > sizeof address.unix_.sun_path - (abstract ? 0 : 1)) {
        throw ValueError("the path of a Unix socket takes at most 107 bytes, and this has " +
                         std::to_string(path.size()) + ": " + printable(std::string(path)));
    }
    if (!abstract && path.find('\0') != std::string_view::npos)
        throw ValueError("a path must not contain a zero byte");
    address.unix_ = sockaddr_un{};
    address.unix_.sun_family = AF_UNIX;
    std::memcpy(address.unix_.sun_path, path.data(), path.size());
    address.size_ = static_cast<socklen_t>(path_offset + path.size() + (abstract ? 0 : 1));
    return address;
}

Address::Address(const sockaddr* address, socklen_t size) noexcept : Address() {
    if (size < sizeof(sa_family_t)) return;
    if (size > sizeof any_) size = sizeof any_;
    std::memcpy(&any_, address, size);
    size_ = size;
}

std::string Address::host() const {
    char text[INET6_ADDRSTRLEN] = "";
    if (family() == AF_INET) return ::inet_ntop(AF_INET, &ipv4_.sin_addr, text, sizeof text);
    if (family() != AF_INET6) return {};
    std::string host = ::inet_ntop(AF_INET6, &ipv6_.sin6_addr, text, sizeof text);
    if (ipv6_.sin6_scope_id != 0) host += "%" + std::to_string(ipv6_.sin6_scope_id);
    return host;
}

std::uint16_t Address::port() const noexcept {
    if (family() == AF_INET) return ntohs(ipv4_.sin_port);
    return family() == AF_INET6 ? ntohs(ipv6_.sin6_port) : std::uint16_t{0};
}

Address Address::with_port(int port) const {
    const in_port_t in_network_order = htons(checked_port(port));
    Address other = *this;
    if (family() == AF_INET) other.ipv4_.sin_port = in_network_order;
    if (family() == AF_INET6) other.ipv6_.sin6_port = in_network_order;
    return other;
}

std::string Address::path() const {
    if (family() != AF_UNIX || size_ <= path_offset) return {};
    const std::size_t room = size_ - path_offset;
    if (unix_.sun_path[0] == '\0') return std::string(unix_.sun_path, room);
    return std::string(unix_.sun_path, ::strnlen(unix_.sun_path, room));
}

std::string Address::text() const {
    switch (family()) {
    case AF_INET:
        return host() + ":" + std::to_string(port());
    case AF_INET6:
        return "[" + host() + "]:" + std::to_string(port());
    case AF_UNIX: {
        std::string text = path();
        if (text.empty()) return "an unnamed Unix socket";
        return printable(std::move(text));
    }
    case AF_UNSPEC:
        return "no address";
    default:
        return "an address of family " + std::to_string(family());
    }
}

bool operator==(const Address& a, const Address& b) noexcept {
    return a.size_ == b.size_ && std::memcmp(&a.any_, &b.any_, a.size_) == 0;
}

ASYNCIO_END_NAMESPACE
