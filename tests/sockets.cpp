// SPDX-License-Identifier: MIT
#include <asyncio/asyncio.hpp>
#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

using namespace std::chrono_literals;
using asyncio::Address;
using asyncio::Coro;
using asyncio::Socket;

namespace {

Socket listener() {
    Socket socket(AF_INET, SOCK_STREAM);
    socket.bind(Address("127.0.0.1", 0));
    socket.listen();
    return socket;
}

Coro<std::pair<Socket, Socket>> connected() {
    Socket server = listener();
    Socket client(AF_INET, SOCK_STREAM);
    co_await asyncio::sock_connect(client, server.getsockname());
    asyncio::Accepted accepted = co_await asyncio::sock_accept(server);
    EXPECT_EQ(accepted.address, client.getsockname());
    co_return std::pair<Socket, Socket>(std::move(client), std::move(accepted.socket));
}

Coro<> echo(Socket& socket) {
    for (;;) {
        const std::string data = co_await asyncio::sock_recv(socket, 1000);
        if (data.empty()) break;
        co_await asyncio::sock_sendall(socket, data);
    }
    socket.close();
}

TEST(Sockets, echo_what_they_get_until_the_peer_ends) {
    asyncio::run([]() -> Coro<> {
        auto both = co_await connected();
        auto task = asyncio::create_task(echo(both.second));
        for (const std::string text : {"hello", "again", "and again"}) {
            co_await asyncio::sock_sendall(both.first, text);
            const std::string answer = co_await asyncio::sock_recv(both.first, 100);
            EXPECT_EQ(answer, text);
        }
        both.first.shutdown(SHUT_WR);
        const std::string end = co_await asyncio::sock_recv(both.first, 100);
        EXPECT_EQ(end, "");
        co_await task;
    });
}

TEST(Sockets, move_a_mebibyte_both_ways_at_the_same_time) {
    asyncio::run([]() -> Coro<> {
        auto both = co_await connected();
        const std::string data(1 << 20, 'x');
        const auto receive = [&](Socket& socket) -> Coro<std::size_t> {
            std::size_t total = 0;
            std::array<char, 4096> buffer;
            while (total < data.size()) {
                const std::size_t count = co_await asyncio::sock_recv_into(socket, buffer);
                if (count == 0) break;
                total += count;
            }
            co_return total;
        };
        auto results = co_await asyncio::gather(asyncio::sock_sendall(both.first, data),
                                                asyncio::sock_sendall(both.second, data),
                                                receive(both.first), receive(both.second));
        EXPECT_EQ(std::get<2>(results), data.size());
        EXPECT_EQ(std::get<3>(results), data.size());
    });
}

TEST(Sockets, refuse_says_who_was_asked) {
    asyncio::run([]() -> Coro<> {
        Address address;
        {
            Socket closed = listener();
            address = closed.getsockname();
        }
        Socket client(AF_INET, SOCK_STREAM);
        auto result = co_await asyncio::as_result(asyncio::sock_connect(client, address));
        try {
            result.value();
            ADD_FAILURE() << "connected to nobody";
        } catch (const std::system_error& error) {
            EXPECT_EQ(error.code(), std::errc::connection_refused);
            EXPECT_EQ(std::string(error.what()),
                      "sock_connect to " + address.text() + ": Connection refused");
        }
    });
}

TEST(Sockets, lose_no_byte_when_a_read_is_cancelled) {
    asyncio::run([]() -> Coro<> {
        auto both = co_await connected();
        auto task = asyncio::create_task(
            [](Socket& s) -> Coro<std::string> { co_return co_await asyncio::sock_recv(s, 100); },
            std::ref(both.first));
        co_await asyncio::sleep(0);
        co_await asyncio::sock_sendall(both.second, "kept");
        task.cancel();
        auto result = co_await asyncio::as_result(task);
        EXPECT_TRUE(result.failed_with<asyncio::CancelledError>());
        const std::string kept = co_await asyncio::sock_recv(both.first, 100);
        EXPECT_EQ(kept, "kept");
    });
}

TEST(Sockets, wake_who_waits_when_they_are_closed) {
    asyncio::run([]() -> Coro<> {
        auto both = co_await connected();
        auto task = asyncio::create_task(
            [](Socket& s) -> Coro<std::string> { co_return co_await asyncio::sock_recv(s, 100); },
            std::ref(both.first));
        co_await asyncio::sleep(0);
        both.first.close();
        auto result = co_await asyncio::as_result(task);
        try {
            static_cast<void>(result.value());
            ADD_FAILURE() << "read from a closed socket";
        } catch (const std::system_error& error) {
            EXPECT_EQ(error.code(), std::errc::bad_file_descriptor);
        }
    });
}

TEST(Sockets, of_datagrams_do_not_hang_up_at_an_error) {
    asyncio::run([]() -> Coro<> {
        Socket peer(AF_INET, SOCK_DGRAM);
        peer.bind(Address("127.0.0.1", 0));
        const Address address = peer.getsockname();
        peer.close();
        Socket socket(AF_INET, SOCK_DGRAM);
        co_await asyncio::sock_connect(socket, address);
        auto task = asyncio::create_task(
            [](Socket& s) -> Coro<std::string> { co_return co_await asyncio::sock_recv(s, 100); },
            std::ref(socket));
        co_await asyncio::sleep(0);
        co_await asyncio::sock_sendall(socket, "to nobody");
        auto result = co_await asyncio::as_result(task);
        EXPECT_TRUE(result.failed_with<std::system_error>());
        EXPECT_FALSE(socket.state("test").has_hung_up());
    });
}

} // namespace
