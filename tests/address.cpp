// SPDX-License-Identifier: MIT
#include <asyncio/address.hpp>
#include <asyncio/exceptions.hpp>
#include <gtest/gtest.h>

#include "support/in_virtual_time.hpp"

#include <arpa/inet.h>
#include <climits>
#include <cstddef>
#include <cstring>
#include <net/if.h>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

using asyncio::Address;
using asyncio_test::thrown_by;
using namespace std::string_literals;

namespace {

std::string error_of(std::string_view host) {
    return thrown_by([&] { return Address(host, 80); });
}
std::string not_numeric(const std::string& host) {
    return "ValueError: '" + host +
           "' is not a numeric IPv4 or IPv6 address: look names up with getaddrinfo()";
}

} // namespace

TEST(Address, of_ipv4_has_host_and_port) {
    const Address address("192.0.2.1", 8080);
    EXPECT_EQ(address.family(), AF_INET);
    EXPECT_EQ(address.host(), "192.0.2.1");
    EXPECT_EQ(address.port(), 8080);
    EXPECT_EQ(address.text(), "192.0.2.1:8080");
    EXPECT_EQ(address.path(), "");
    EXPECT_EQ(address.scope_id(), 0U);
    EXPECT_EQ(address.flow_info(), 0U);
    ASSERT_EQ(address.size(), sizeof(sockaddr_in));
    const auto* kernels = reinterpret_cast<const sockaddr_in*>(address.data());
    EXPECT_EQ(ntohs(kernels->sin_port), 8080);
    EXPECT_EQ(ntohl(kernels->sin_addr.s_addr), 0xc0000201U);
}

TEST(Address, of_ipv6_has_host_and_port_and_is_written_in_brackets) {
    const std::pair<const char*, const char*> hosts[] = {
        {"::1", "::1"},
        {"2001:DB8:0:0::1", "2001:db8::1"},
        {"::ffff:192.0.2.1", "::ffff:192.0.2.1"},
        {"::", "::"},
    };
    for (const auto& [given, canonical] : hosts) {
        const Address address(given, 443);
        EXPECT_EQ(address.family(), AF_INET6);
        EXPECT_EQ(address.host(), canonical);
        EXPECT_EQ(address.port(), 443);
        EXPECT_EQ(address.text(), "[" + std::string(canonical) + "]:443");
        EXPECT_EQ(address.size(), sizeof(sockaddr_in6));
        EXPECT_EQ(address.scope_id(), 0U);
    }
}

TEST(Address, of_ipv6_takes_its_scope_as_a_name_or_a_number) {
    const unsigned int loopback = ::if_nametoindex("lo");
    ASSERT_NE(loopback, 0U);
    const Address by_name("fe80::1%lo", 80);
    EXPECT_EQ(by_name.scope_id(), loopback);
    EXPECT_EQ(by_name.host(), "fe80::1%" + std::to_string(loopback));
    EXPECT_EQ(by_name.text(), "[fe80::1%" + std::to_string(loopback) + "]:80");
    EXPECT_EQ(by_name, Address(by_name.host(), 80));

    const Address by_number("fe80::1%4294967295", 80); // whether there is such an interface or not
    EXPECT_EQ(by_number.scope_id(), 4294967295U);
    EXPECT_EQ(Address("fe80::1%0", 80), Address("fe80::1", 80));
    EXPECT_NE(Address("fe80::1%1", 80), Address("fe80::1%2", 80));
}

TEST(Address, refuses_what_is_no_numeric_address) {
    for (const std::string host :
         {"localhost", "", "1.2.3", "1.2.3.4.5", "256.0.0.1", "1.2.3.4 ", " 1.2.3.4", "01.2.3.4.",
          "[::1]", "::1::", ":::", "12345::", "1.2.3.4:80", "1.2.3.4%lo", "%lo", "example.org"}) {
        EXPECT_EQ(error_of(host), not_numeric(host));
    }
    const std::string with_zero = "127.0.0.1\0.example.org"s;
    EXPECT_EQ(error_of(with_zero), not_numeric("127.0.0.1@.example.org")); // whole, as a message
}

TEST(Address, refuses_a_scope_that_is_no_interface) {
    for (const std::string scope : {"no_such_if", "", "4294967296", "-1", "1x", "lo%lo"}) {
        EXPECT_EQ(error_of("fe80::1%" + scope), "ValueError: there is no network interface '" +
                                                    scope + "', which the address 'fe80::1%" +
                                                    scope + "' names");
    }
}

TEST(Address, of_unix_has_a_path) {
    const Address address = Address::unix_path("/run/app.sock");
    EXPECT_EQ(address.family(), AF_UNIX);
    EXPECT_EQ(address.path(), "/run/app.sock");
    EXPECT_EQ(address.text(), "/run/app.sock");
    EXPECT_EQ(address.host(), "");
    EXPECT_EQ(address.port(), 0);
    EXPECT_EQ(address.size(), offsetof(sockaddr_un, sun_path) + 14); // with a zero at the end
    const auto* kernels = reinterpret_cast<const sockaddr_un*>(address.data());
    EXPECT_STREQ(kernels->sun_path, "/run/app.sock");
    // As the kernel gives it back.
    EXPECT_EQ(Address(address.data(), address.size()), address);

    const std::string longest(107, 'p');
    EXPECT_EQ(Address::unix_path(longest).path(), longest);
    EXPECT_LE(Address::unix_path(longest).size(), sizeof(sockaddr_un));
}

TEST(Address, of_unix_may_be_abstract_and_may_then_contain_zeros) {
    const std::string name = "\0with\0zero"s;
    const Address address = Address::unix_path(name);
    EXPECT_EQ(address.path(), name);
    EXPECT_EQ(address.text(), "@with@zero"); // what() ends at a zero
    EXPECT_EQ(address.size(), offsetof(sockaddr_un, sun_path) + name.size());
    EXPECT_EQ(address, Address::unix_path(name));
    EXPECT_NE(address, Address::unix_path(name + "\0"s)); // a zero at the end counts
    const std::string longest = "\0"s + std::string(107, 'n');
    EXPECT_EQ(Address::unix_path(longest).path(), longest);
}

TEST(Address, refuses_paths_that_no_socket_can_have) {
    const auto error = [](const std::string& path) {
        return thrown_by([&] { return Address::unix_path(path); });
    };
    EXPECT_EQ(
        error(""),
        "ValueError: the path of a Unix socket must not be empty; an abstract name begins with a "
        "zero byte: std::string(\"\\0name\", 5)");
    const std::string too_long(108, 'p');
    EXPECT_EQ(error(too_long),
              "ValueError: the path of a Unix socket takes at most 107 bytes, and this has 108: " +
                  too_long);
    EXPECT_EQ(error("\0"s + std::string(108, 'n'))
                  .find("ValueError: the path of a Unix socket "
                        "takes at most"),
              0U);
    EXPECT_EQ(error("/run/a\0b"s), "ValueError: a path must not contain a zero byte");
}

TEST(Address, of_nothing_is_what_an_unbound_unix_socket_has) {
    const Address nothing;
    EXPECT_EQ(nothing.family(), AF_UNSPEC);
    EXPECT_EQ(nothing.text(), "no address");
    EXPECT_EQ(nothing.host(), "");
    EXPECT_EQ(nothing.path(), "");
    EXPECT_EQ(nothing.port(), 0);
    EXPECT_EQ(nothing, Address());
    EXPECT_EQ(Address(nothing.data(), 0), nothing);

    sockaddr_un unnamed{};
    unnamed.sun_family = AF_UNIX;
    const Address of_unix(reinterpret_cast<const sockaddr*>(&unnamed), sizeof(sa_family_t));
    EXPECT_EQ(of_unix.family(), AF_UNIX);
    EXPECT_EQ(of_unix.path(), "");
    EXPECT_EQ(of_unix.text(), "an unnamed Unix socket");
    EXPECT_NE(of_unix, nothing);
}

TEST(Address, takes_what_the_kernel_gives) {
    sockaddr_in6 kernels{};
    kernels.sin6_family = AF_INET6;
    kernels.sin6_port = htons(5);
    kernels.sin6_addr = in6addr_loopback;
    kernels.sin6_scope_id = 7;
    kernels.sin6_flowinfo = htonl(0x12345);
    const Address address(reinterpret_cast<const sockaddr*>(&kernels), sizeof kernels);
    EXPECT_EQ(address.host(), "::1%7");
    EXPECT_EQ(address.scope_id(), 7U);
    EXPECT_EQ(address.flow_info(), 0x12345U);
    EXPECT_EQ(std::memcmp(address.data(), &kernels, sizeof kernels), 0);

    sockaddr_storage other{};
    other.ss_family = AF_NETLINK;
    const Address netlink(reinterpret_cast<const sockaddr*>(&other), 12);
    EXPECT_EQ(netlink.family(), AF_NETLINK);
    EXPECT_EQ(netlink.text(), "an address of family " + std::to_string(AF_NETLINK));
    EXPECT_EQ(netlink.size(), 12U);

    // A path that fills all of sun_path has no zero at its end; the kernel then counts one more.
    sockaddr_storage full{};
    full.ss_family = AF_UNIX;
    std::memset(reinterpret_cast<char*>(&full) + offsetof(sockaddr_un, sun_path), 'p', 108);
    const Address long_path(reinterpret_cast<const sockaddr*>(&full), sizeof(sockaddr_un) + 1);
    EXPECT_EQ(long_path.path(), std::string(108, 'p'));
}

TEST(Address, can_be_had_with_another_port) {
    EXPECT_EQ(Address("127.0.0.1", 1).with_port(65535), Address("127.0.0.1", 65535));
    EXPECT_EQ(Address("fe80::1%3", 1).with_port(2), Address("fe80::1%3", 2));
    EXPECT_EQ(Address::unix_path("/a").with_port(2), Address::unix_path("/a"));
    EXPECT_EQ(Address().with_port(2), Address());
}

TEST(Address, is_refused_a_port_that_is_none) {
    for (const int port : {-1, 65536, 70000, INT_MIN}) {
        const std::string expected =
            "ValueError: a port is a number from 0 to 65535, and not " + std::to_string(port);
        EXPECT_EQ(thrown_by([&] { return Address("127.0.0.1", port); }), expected);
        EXPECT_EQ(thrown_by([&] { return Address("::1", 1).with_port(port); }), expected);
    }
}

TEST(Address, is_equal_only_to_the_same_one) {
    const std::vector<Address> all = {
        Address(),
        Address("127.0.0.1", 1),
        Address("127.0.0.1", 2),
        Address("127.0.0.2", 1),
        Address("::1", 1),
        Address("::ffff:127.0.0.1", 1),
        Address::unix_path("/a"),
        Address::unix_path("/ab"),
        Address::unix_path("\0/a"s),
    };
    for (std::size_t i = 0; i < all.size(); ++i) {
        for (std::size_t j = 0; j < all.size(); ++j) EXPECT_EQ(all[i] == all[j], i == j);
    }
    Address copy = all[4];
    EXPECT_EQ(copy, all[4]);
    copy = all[6];
    EXPECT_EQ(copy, all[6]);
}
