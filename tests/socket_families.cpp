// SPDX-License-Identifier: MIT
// Sockets of each family and type, and what their addresses are.
#include <asyncio/asyncio.hpp>
#include <gtest/gtest.h>

#include "support/sockets.hpp"

#include <array>
#include <chrono>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <net/if.h>
#include <unistd.h>

using namespace std::chrono_literals;
using namespace std::string_literals;
using asyncio::Address;
using asyncio::Coro;
using asyncio::Socket;
using asyncio_test::connected;
using asyncio_test::failure_of;
using asyncio_test::listening;
using asyncio_test::receive;
using asyncio_test::receive_all;

namespace {

// A path of its own, which is removed at the end.
struct TemporaryPath {
    std::string path = testing::TempDir() + "asyncio-" + std::to_string(::getpid()) + ".sock";
    TemporaryPath() { std::filesystem::remove(path); }
    ~TemporaryPath() { std::filesystem::remove(path); }
    TemporaryPath(const TemporaryPath&) = delete;
    TemporaryPath& operator=(const TemporaryPath&) = delete;
};

Socket datagram_socket(const Address& address) {
    Socket socket(address.family(), SOCK_DGRAM);
    socket.bind(address);
    return socket;
}

Coro<> exchange(const asyncio_test::Ends& both) {
    co_await asyncio::sock_sendall(both.first, "ping");
    const std::string ping = co_await asyncio::sock_recv(both.second, 100);
    EXPECT_EQ(ping, "ping");
    co_await asyncio::sock_sendall(both.second, "pong");
    const std::string pong = co_await asyncio::sock_recv(both.first, 100);
    EXPECT_EQ(pong, "pong");
}

} // namespace

TEST(SocketFamilies, ipv6_connects_and_tells_its_addresses) {
    asyncio::run([]() -> Coro<> {
        auto both = co_await connected(Address("::1", 0));
        EXPECT_EQ(both.first.family(), AF_INET6);
        EXPECT_EQ(both.first.getpeername(), both.second.getsockname());
        EXPECT_EQ(both.second.getpeername(), both.first.getsockname());
        EXPECT_EQ(both.first.getsockname().host(), "::1");
        EXPECT_NE(both.first.getsockname().port(), 0);
        co_await exchange(both);
    });
}

TEST(SocketFamilies, ipv6_that_is_not_bound_to_it_alone_takes_ipv4_too) {
    asyncio::run([]() -> Coro<> {
        Socket server(AF_INET6, SOCK_STREAM);
        server.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, 0);
        server.bind(Address("::", 0));
        server.listen();
        const Socket client(AF_INET, SOCK_STREAM);
        co_await asyncio::sock_connect(client, Address("127.0.0.1", server.getsockname().port()));
        const asyncio::Accepted accepted = co_await asyncio::sock_accept(server);
        EXPECT_EQ(accepted.address.host(), "::ffff:127.0.0.1");
        EXPECT_EQ(accepted.socket.family(), AF_INET6);
    });
}

TEST(SocketFamilies, ipv6_link_local_addresses_need_their_scope) {
    // Only what this machine has itself: nothing leaves it.
    std::string link_local;
    std::vector<std::string> lines;
    if (FILE* file = std::fopen("/proc/net/if_inet6", "r")) {
        std::array<char, 200> line = {};
        while (std::fgets(line.data(), line.size(), file) != nullptr)
            lines.emplace_back(line.data());
        std::fclose(file);
    }
    for (const std::string& line : lines) {
        if (!line.starts_with("fe80")) continue;
        std::string host;
        for (std::size_t i = 0; i < 32; i += 4) host += (i != 0 ? ":" : "") + line.substr(i, 4);
        link_local = host + "%" + line.substr(line.find_last_of(' ') + 1);
        link_local.pop_back(); // the end of the line
    }
    if (link_local.empty()) GTEST_SKIP() << "no interface of this machine has a link-local address";
    asyncio::run([&]() -> Coro<> {
        const Socket server = listening(Address(link_local, 0));
        const Address address = server.getsockname();
        EXPECT_NE(address.scope_id(), 0U);
        EXPECT_EQ(address.host(), Address(link_local, 0).host());
        const Socket client(AF_INET6, SOCK_STREAM);
        co_await asyncio::sock_connect(client, address);
        const asyncio::Accepted accepted = co_await asyncio::sock_accept(server);
        EXPECT_EQ(accepted.address.scope_id(), address.scope_id());
        const Socket without(AF_INET6, SOCK_STREAM);
        const std::string bare = link_local.substr(0, link_local.find('%'));
        const auto result = co_await asyncio::as_result(
            asyncio::sock_connect(without, Address(bare, address.port())));
        EXPECT_EQ(failure_of(result), "exception: sock_connect to " +
                                          Address(bare, address.port()).text() +
                                          ": Invalid argument");
    });
}

TEST(SocketFamilies, unix_sockets_have_paths) {
    asyncio::run([]() -> Coro<> {
        const TemporaryPath temporary;
        const Address address = Address::unix_path(temporary.path);
        auto both = co_await connected(address);
        EXPECT_EQ(both.first.getpeername(), address);
        EXPECT_EQ(both.second.getsockname(), address);
        EXPECT_EQ(both.first.getsockname().text(), "an unnamed Unix socket");
        EXPECT_EQ(both.second.getpeername().path(), "");
        co_await exchange(both);
        // Nobody listens any more, though the file is there.
        const Socket client(AF_UNIX, SOCK_STREAM);
        auto refused = co_await asyncio::as_result(asyncio::sock_connect(client, address));
        EXPECT_EQ(failure_of(refused),
                  "exception: sock_connect to " + temporary.path + ": Connection refused");
        std::filesystem::remove(temporary.path);
        auto missing = co_await asyncio::as_result(asyncio::sock_connect(client, address));
        EXPECT_EQ(failure_of(missing),
                  "exception: sock_connect to " + temporary.path + ": No such file or directory");
    });
}

TEST(SocketFamilies, unix_sockets_have_abstract_names_with_zeros) {
    asyncio::run([]() -> Coro<> {
        const std::string name = "\0asyncio-test\0"s + std::to_string(::getpid());
        const Address address = Address::unix_path(name);
        auto both = co_await connected(address);
        EXPECT_EQ(both.first.getpeername(), address);
        EXPECT_EQ(both.first.getpeername().path(), name);
        co_await exchange(both);
        Socket first(AF_UNIX, SOCK_STREAM);
        first.bind(address);
        Socket second(AF_UNIX, SOCK_STREAM);
        EXPECT_EQ(asyncio_test::thrown_by([&] { second.bind(address); }),
                  "exception: bind to @asyncio-test@" + std::to_string(::getpid()) +
                      ": Address already in use");
    });
}

// A connect to a Unix socket cannot wait: the kernel tells nobody when the server has room again.
TEST(SocketFamilies, unix_servers_whose_backlog_is_full_refuse_with_eagain) {
    asyncio::run([]() -> Coro<> {
        const TemporaryPath temporary;
        const Address address = Address::unix_path(temporary.path);
        Socket server(AF_UNIX, SOCK_STREAM);
        server.bind(address);
        server.listen(1);
        std::vector<Socket> clients;
        std::string failure = "null";
        while (failure == "null" && clients.size() < 10) {
            clients.emplace_back(AF_UNIX, SOCK_STREAM);
            const auto result =
                co_await asyncio::as_result(asyncio::sock_connect(clients.back(), address));
            failure = failure_of(result);
        }
        EXPECT_EQ(failure, "exception: sock_connect to " + temporary.path +
                               ": Resource temporarily unavailable");
        co_await asyncio::sock_accept(server);
        co_await asyncio::sock_connect(clients.back(), address); // now there is
    });
}

TEST(SocketFamilies, pairs_are_connected_to_each_other) {
    asyncio::run([]() -> Coro<> {
        for (const int type : {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET}) {
            auto both = Socket::pair(type);
            EXPECT_EQ(both.first.type(), type);
            EXPECT_EQ(both.second.type(), type);
            co_await exchange(both);
        }
        auto both = Socket::pair();
        both.first.close();
        const std::string end = co_await asyncio::sock_recv(both.second, 1);
        EXPECT_EQ(end, "");
        const auto sent = co_await asyncio::as_result(asyncio::sock_sendall(both.second, "x"));
        EXPECT_EQ(failure_of(sent), "exception: sock_sendall: Broken pipe"); // and no SIGPIPE
    });
}

TEST(SocketFamilies, messages_stay_apart_and_are_cut_off_at_the_size) {
    asyncio::run([]() -> Coro<> {
        for (const int type : {SOCK_DGRAM, SOCK_SEQPACKET}) {
            auto both = Socket::pair(type);
            for (const char* message : {"one", "two", "three", ""}) {
                co_await asyncio::sock_sendall(both.first, message);
            }
            std::string data = co_await asyncio::sock_recv(both.second, 100);
            EXPECT_EQ(data, "one");
            data = co_await asyncio::sock_recv(both.second, 2);
            EXPECT_EQ(data, "tw");
            std::array<char, 100> buffer = {};
            const std::size_t count = co_await asyncio::sock_recv_into(both.second, buffer);
            EXPECT_EQ(std::string_view(buffer.data(), count), "three");
        }
    });
}

TEST(SocketFamilies, datagrams_tell_who_sent_them) {
    asyncio::run([]() -> Coro<> {
        for (const char* host : {"127.0.0.1", "::1"}) {
            const Socket server = datagram_socket(Address(host, 0));
            const Socket client = datagram_socket(Address(host, 0));
            const Address to_server = server.getsockname();
            const std::size_t sent = co_await asyncio::sock_sendto(client, "hello", to_server);
            EXPECT_EQ(sent, 5U);
            const asyncio::ReceivedFrom received = co_await asyncio::sock_recvfrom(server, 100);
            EXPECT_EQ(received.data, "hello");
            EXPECT_EQ(received.address, client.getsockname());
            // One of no bytes is a message too.
            co_await asyncio::sock_sendto(server, "", received.address);
            std::array<char, 10> buffer = {};
            const asyncio::CountFrom empty = co_await asyncio::sock_recvfrom_into(client, buffer);
            EXPECT_EQ(empty.count, 0U);
            EXPECT_EQ(empty.address, to_server);
            co_await asyncio::sock_sendto(server, "cut off", received.address);
            const asyncio::CountFrom cut = co_await asyncio::sock_recvfrom_into(
                client, asyncio::WritableBytes(buffer.data(), 3));
            EXPECT_EQ(std::string_view(buffer.data(), cut.count), "cut");
            // Nothing is left over of it.
            const auto none = co_await asyncio::as_result(
                asyncio::wait_for(asyncio::sock_recvfrom(client, 10), 1ms));
            EXPECT_TRUE(none.failed_with<asyncio::TimeoutError>());
        }
    });
}

TEST(SocketFamilies, datagrams_wait_for_who_sends_them) {
    asyncio::run([]() -> Coro<> {
        const Socket server = datagram_socket(Address("127.0.0.1", 0));
        const Socket client(AF_INET, SOCK_DGRAM);
        const auto echo = asyncio::create_task(
            [](const Socket& socket) -> Coro<> {
                for (int i = 0; i < 10; ++i) {
                    const asyncio::ReceivedFrom got = co_await asyncio::sock_recvfrom(socket, 100);
                    co_await asyncio::sock_sendto(socket, got.data, got.address);
                }
            },
            std::cref(server));
        for (int i = 0; i < 10; ++i) {
            const std::string text = "message " + std::to_string(i);
            co_await asyncio::sleep(0);
            co_await asyncio::sock_sendto(client, text, server.getsockname());
            const asyncio::ReceivedFrom answer = co_await asyncio::sock_recvfrom(client, 100);
            EXPECT_EQ(answer.data, text);
            EXPECT_EQ(answer.address, server.getsockname());
        }
        co_await echo;
    });
}

TEST(SocketFamilies, connected_datagrams_need_no_address_and_hear_that_nobody_is_there) {
    asyncio::run([]() -> Coro<> {
        Socket server = datagram_socket(Address("127.0.0.1", 0));
        const Socket client(AF_INET, SOCK_DGRAM);
        co_await asyncio::sock_connect(client, server.getsockname());
        EXPECT_EQ(client.getpeername(), server.getsockname());
        co_await asyncio::sock_sendall(client, "hello");
        const std::string data = co_await asyncio::sock_recv(server, 100);
        EXPECT_EQ(data, "hello");
        const std::string peer = server.getsockname().text();
        server.close();
        const auto reader = asyncio::create_task(receive, std::cref(client), 10UL);
        co_await asyncio::sleep(0);
        co_await asyncio::sock_sendall(client, "to nobody");
        const auto result = co_await asyncio::as_result(reader);
        EXPECT_EQ(failure_of(result), "exception: sock_recv from " + peer + ": Connection refused");
        EXPECT_FALSE(client.state("test").has_hung_up());
        const auto waits =
            co_await asyncio::as_result(asyncio::wait_for(asyncio::sock_recv(client, 1), 1ms));
        EXPECT_TRUE(waits.failed_with<asyncio::TimeoutError>());
    });
}

TEST(SocketFamilies, datagrams_that_are_too_long_or_go_nowhere_say_so) {
    asyncio::run([]() -> Coro<> {
        const Socket client(AF_INET, SOCK_DGRAM);
        const Address address("127.0.0.1", 9);
        const std::string large(100'000, 'x');
        auto result = co_await asyncio::as_result(asyncio::sock_sendto(client, large, address));
        EXPECT_EQ(failure_of(result), "exception: sock_sendto to 127.0.0.1:9: Message too long");
        auto other =
            co_await asyncio::as_result(asyncio::sock_sendto(client, "x", Address("::1", 9)));
        EXPECT_EQ(failure_of(other), "exception: sock_sendto to [::1]:9: Address family not "
                                     "supported by protocol");
        auto unconnected = co_await asyncio::as_result(asyncio::sock_sendall(client, "x"));
        EXPECT_EQ(failure_of(unconnected), "exception: sock_sendall: Destination address required");
    });
}

TEST(SocketFamilies, unix_datagrams_go_on_when_the_receiver_has_room_again) {
    asyncio::run([]() -> Coro<> {
        const Address address =
            Address::unix_path("\0asyncio-datagrams-"s + std::to_string(::getpid()));
        const Socket server = datagram_socket(address);
        const Socket filler(AF_UNIX, SOCK_DGRAM);
        const Socket client(AF_UNIX, SOCK_DGRAM);
        std::size_t queued = 0;
        while (::sendto(filler.fileno(), "x", 1, MSG_DONTWAIT, address.data(), address.size()) == 1)
            ++queued;
        const auto sender = asyncio::create_task(
            [](const Socket& socket, Address to) -> Coro<> {
                co_await asyncio::sock_sendto(socket, "last", to);
            },
            std::cref(client), address);
        for (int i = 0; i < 10; ++i) co_await asyncio::sleep(0);
        EXPECT_FALSE(sender.done());
        for (std::size_t i = 0; i < queued; ++i) co_await asyncio::sock_recv(server, 10);
        co_await asyncio::wait_for(sender, 10s);
        const asyncio::ReceivedFrom last = co_await asyncio::sock_recvfrom(server, 10);
        EXPECT_EQ(last.data, "last");
        EXPECT_EQ(last.address, Address()); // the client has no name
    });
}
