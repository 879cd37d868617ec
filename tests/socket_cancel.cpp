// SPDX-License-Identifier: MIT
// Awaits of sockets that are cancelled, time out, or find their socket closed.
#include <asyncio/asyncio.hpp>
#include <asyncio/testing/cancel_everywhere.hpp>
#include <gtest/gtest.h>

#include "support/sockets.hpp"

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <sys/socket.h>
#include <utility>
#include <vector>

using namespace std::chrono_literals;
using asyncio::Address;
using asyncio::Coro;
using asyncio::Socket;
using asyncio::testing::cancel_everywhere;
using asyncio::testing::LeakToken;
using asyncio_test::connected;
using asyncio_test::failure_of;
using asyncio_test::listening;
using asyncio_test::receive;

namespace {

Coro<> a_few_turns() {
    for (int i = 0; i < 5; ++i) co_await asyncio::sleep(0);
}

// Two ends that nobody closes too early, with a token that must go with them.
struct Connection {
    Socket client;
    Socket server;
    LeakToken token;
};

Coro<> ping(const Socket& socket, int times) {
    for (int i = 0; i < times; ++i) {
        co_await asyncio::sock_sendall(socket, "ping");
        std::string answer;
        while (answer.size() < 4) {
            const std::string more = co_await asyncio::sock_recv(socket, 4 - answer.size());
            if (more.empty()) co_return;
            answer += more;
        }
        EXPECT_EQ(answer, "pong");
    }
}
Coro<> pong(const Socket& socket) {
    for (;;) {
        const std::string data = co_await asyncio::sock_recv(socket, 4);
        if (data.empty()) break;
        co_await asyncio::sock_sendall(socket, "pong");
    }
}

} // namespace

TEST(SocketCancel, loses_no_byte_of_a_read) {
    asyncio::run([]() -> Coro<> {
        auto both = co_await connected();
        const auto task = asyncio::create_task(receive, std::cref(both.first), 100UL);
        co_await asyncio::sleep(0);
        co_await asyncio::sock_sendall(both.second, "kept");
        task.cancel();
        const auto result = co_await asyncio::as_result(task);
        EXPECT_TRUE(result.failed_with<asyncio::CancelledError>());
        const std::string kept = co_await asyncio::sock_recv(both.first, 100);
        EXPECT_EQ(kept, "kept");
    });
}

TEST(SocketCancel, loses_no_connection_of_an_accept) {
    asyncio::run([]() -> Coro<> {
        for (const bool is_queued : {false, true}) {
            const Socket server = listening();
            const Address address = server.getsockname();
            const auto task = asyncio::create_task(
                [](const Socket& socket) -> Coro<> { co_await asyncio::sock_accept(socket); },
                std::cref(server));
            co_await a_few_turns();
            const Socket client(AF_INET, SOCK_STREAM);
            static_cast<void>(::connect(client.fileno(), address.data(), address.size()));
            if (is_queued) { // by the edge, in the turn in which this is called before it
                asyncio::get_running_loop().call_soon([&task] { task.cancel(); });
            } else {
                task.cancel();
            }
            const auto result = co_await asyncio::as_result(task);
            EXPECT_TRUE(result.failed_with<asyncio::CancelledError>());
            const asyncio::Accepted accepted = co_await asyncio::sock_accept(server);
            EXPECT_EQ(accepted.address, client.getsockname());
        }
    });
}

TEST(SocketCancel, ends_a_send_to_a_peer_that_never_reads_while_others_run) {
    asyncio::run([]() -> Coro<> {
        auto both = co_await connected();
        const auto task = asyncio::create_task(asyncio_test::send, std::cref(both.first),
                                               std::string(16 << 20, 'x'));
        auto other = co_await connected();
        const auto server = asyncio::create_task(pong, std::cref(other.second));
        co_await ping(other.first, 50);
        EXPECT_FALSE(task.done());
        task.cancel();
        const auto result = co_await asyncio::as_result(task);
        EXPECT_TRUE(result.failed_with<asyncio::CancelledError>());
        co_await ping(other.first, 50);
        other.first.close();
        co_await server;
        // What was sent before can be read, and the other direction goes on.
        co_await asyncio::sock_sendall(both.second, "hello");
        const std::string data = co_await asyncio::sock_recv(both.first, 10);
        EXPECT_EQ(data, "hello");
    });
}

TEST(SocketCancel, of_one_that_was_not_begun_makes_no_call) {
    asyncio::run([]() -> Coro<> {
        auto both = co_await connected();
        co_await asyncio::sock_sendall(both.second, "kept");
        const auto task = asyncio::create_task(receive, std::cref(both.first), 100UL);
        task.cancel();
        const auto result = co_await asyncio::as_result(task);
        EXPECT_TRUE(result.failed_with<asyncio::CancelledError>());
        const std::string kept = co_await asyncio::sock_recv(both.first, 100);
        EXPECT_EQ(kept, "kept");
    });
}

TEST(SocketCancel, each_wait_may_time_out_and_be_made_again) {
    asyncio::run([]() -> Coro<> {
        auto both = co_await connected();
        const Socket server = listening();
        const Socket datagrams(AF_INET, SOCK_DGRAM);
        std::array<char, 10> buffer = {};
        const std::array<asyncio::WritableBytes, 1> buffers = {buffer};
        const std::string large(16 << 20, 'x');
        const std::array<asyncio::ReadableBytes, 2> parts = {large, large};
        const auto times_out = [](auto awaitable) -> Coro<bool> {
            const auto result =
                co_await asyncio::as_result(asyncio::wait_for(std::move(awaitable), 1ms));
            co_return result.template failed_with<asyncio::TimeoutError>();
        };
        for (int i = 0; i < 3; ++i) {
            std::vector<bool> outcomes;
            outcomes.push_back(co_await times_out(asyncio::sock_recv(both.first, 10)));
            outcomes.push_back(co_await times_out(asyncio::sock_recv_into(both.first, buffer)));
            outcomes.push_back(co_await times_out(asyncio::sock_recv_into(
                both.first, std::span<const asyncio::WritableBytes>(buffers))));
            outcomes.push_back(co_await times_out(asyncio::sock_recvfrom(datagrams, 10)));
            outcomes.push_back(co_await times_out(asyncio::sock_recvfrom_into(datagrams, buffer)));
            outcomes.push_back(co_await times_out(asyncio::sock_sendall(both.second, large)));
            outcomes.push_back(co_await times_out(asyncio::sock_sendall(
                both.second, std::span<const asyncio::ReadableBytes>(parts))));
            outcomes.push_back(co_await times_out(asyncio::sock_accept(server)));
            EXPECT_EQ(outcomes, std::vector<bool>(8, true));
            // Drained, so that the next round has to fill it again.
            for (bool more = true; more;) {
                const auto got = co_await asyncio::as_result(
                    asyncio::wait_for(asyncio::sock_recv(both.first, 1 << 20), 20ms));
                more = got.has_value();
            }
        }
    });
}

TEST(SocketCancel, a_connect_that_times_out_leaves_a_socket_to_be_closed) {
    asyncio::run([]() -> Coro<> {
        // A full backlog: the kernel drops what comes, and who connects waits.
        Socket server(AF_INET, SOCK_STREAM);
        server.bind(Address("127.0.0.1", 0));
        server.listen(0);
        std::vector<Socket> clients;
        bool has_timed_out = false;
        while (!has_timed_out && clients.size() < 20) {
            clients.emplace_back(AF_INET, SOCK_STREAM);
            const auto result = co_await asyncio::as_result(asyncio::wait_for(
                asyncio::sock_connect(clients.back(), server.getsockname()), 20ms));
            has_timed_out = result.failed_with<asyncio::TimeoutError>();
        }
        EXPECT_TRUE(has_timed_out);
        clients.back().close();
    });
}

// Nothing of it was sent.
TEST(SocketCancel, of_a_send_that_waits_makes_way_for_the_next_one) {
    asyncio::run([]() -> Coro<> {
        for (const bool is_woken : {false, true}) {
            auto both = co_await connected();
            both.first.setsockopt(SOL_SOCKET, SO_SNDBUF, 1024);
            const auto fill = [&both] {
                const std::string spaces(8192, ' ');
                std::size_t sent = 0;
                for (std::size_t size = spaces.size(); size > 0; size /= 2) {
                    ssize_t count = 0;
                    while ((count = ::send(both.first.fileno(), spaces.data(), size, 0)) > 0)
                        sent += static_cast<std::size_t>(count);
                }
                return sent;
            };
            while (fill() != 0) co_await asyncio::sleep(1ms); // until the peer's side is full too
            const auto cancelled = asyncio::create_task(asyncio_test::send, std::cref(both.first),
                                                        std::string("hello"));
            co_await a_few_turns();
            EXPECT_FALSE(cancelled.done());
            const auto receiving =
                asyncio::create_task(asyncio_test::receive_all, std::cref(both.second), SIZE_MAX);
            if (is_woken) { // by the edge, in the turn in which this is called before it
                asyncio::get_running_loop().call_soon([&cancelled] { cancelled.cancel(); });
            } else {
                cancelled.cancel();
            }
            co_await asyncio::sock_sendall(both.first, "world");
            both.first.shutdown(SHUT_WR);
            std::string all = co_await receiving;
            const auto result = co_await asyncio::as_result(cancelled);
            EXPECT_TRUE(result.failed_with<asyncio::CancelledError>());
            std::erase(all, ' ');
            EXPECT_EQ(all, "world");
        }
    });
}

// Where the kernel has done with the first attempt: else it says that one is under way.
TEST(SocketCancel, of_a_connect_that_has_ended_leaves_a_socket_that_may_connect) {
    asyncio::run([]() -> Coro<> {
        const auto begin_and_cancel = [](const Socket& socket, Address address) -> Coro<> {
            const auto connect = [](const Socket& client, Address to) -> Coro<> {
                co_await asyncio::sock_connect(client, to);
            };
            const auto task = asyncio::create_task(connect, std::cref(socket), address);
            co_await asyncio::sleep(0);
            task.cancel();
            const auto result = co_await asyncio::as_result(task);
            EXPECT_TRUE(result.failed_with<asyncio::CancelledError>()) << failure_of(result);
        };
        const auto expect_connected = [](const Socket& client, const Socket& server) -> Coro<> {
            const asyncio::Accepted accepted = co_await asyncio::sock_accept(server);
            EXPECT_EQ(accepted.address, client.getsockname());
            auto reader = asyncio::create_task(receive, std::cref(client), 10UL);
            co_await asyncio::sleep(0);
            co_await asyncio::sock_sendall(accepted.socket, "hello");
            const std::string data = co_await reader;
            EXPECT_EQ(data, "hello");
        };
        { // refused
            Socket server(AF_INET, SOCK_STREAM);
            server.bind(Address("127.0.0.1", 0));
            const Address address = server.getsockname();
            const Socket client(AF_INET, SOCK_STREAM);
            co_await begin_and_cancel(client, address);
            server.listen();
            const auto told = co_await asyncio::as_result(asyncio::sock_connect(client, address));
            EXPECT_EQ(failure_of(told),
                      "exception: sock_connect to " + address.text() + ": Connection refused");
            co_await asyncio::sock_connect(client, address);
            co_await expect_connected(client, server);
        }
        { // connected
            const Socket server = listening();
            const Socket client(AF_INET, SOCK_STREAM);
            co_await begin_and_cancel(client, server.getsockname());
            co_await asyncio::sock_connect(client, server.getsockname());
            co_await expect_connected(client, server);
        }
    });
}

TEST(SocketCancel, who_waits_is_told_when_the_socket_is_closed) {
    asyncio::run([]() -> Coro<> {
        auto both = co_await connected();
        Socket server = listening();
        const auto accept = [](const Socket& socket) -> Coro<> {
            co_await asyncio::sock_accept(socket);
        };
        const auto reader = asyncio::create_task(receive, std::cref(both.first), 10UL);
        const auto second = asyncio::create_task(receive, std::cref(both.first), 10UL);
        const auto sender = asyncio::create_task(asyncio_test::send, std::cref(both.first),
                                                 std::string(16 << 20, 'x'));
        const auto acceptor = asyncio::create_task(accept, std::cref(server));
        co_await a_few_turns();
        both.first.close();
        server.close();
        const std::string rest = ": the socket was closed meanwhile: Bad file descriptor";
        auto read = co_await asyncio::as_result(reader);
        EXPECT_EQ(failure_of(read), "exception: sock_recv" + rest);
        read = co_await asyncio::as_result(second);
        EXPECT_EQ(failure_of(read), "exception: sock_recv" + rest);
        const auto sent = co_await asyncio::as_result(sender);
        EXPECT_EQ(failure_of(sent), "exception: sock_sendall" + rest);
        const auto accepted = co_await asyncio::as_result(acceptor);
        EXPECT_EQ(failure_of(accepted), "exception: sock_accept" + rest);
    });
}

TEST(SocketCancel, a_close_and_a_cancel_at_the_same_time_are_a_cancel) {
    asyncio::run([]() -> Coro<> {
        for (const bool close_first : {false, true}) {
            auto both = co_await connected();
            const auto reader = asyncio::create_task(receive, std::cref(both.first), 10UL);
            co_await a_few_turns();
            if (close_first) both.first.close();
            reader.cancel();
            both.first.close();
            const auto read = co_await asyncio::as_result(reader);
            EXPECT_TRUE(read.failed_with<asyncio::CancelledError>());
        }
    });
}

TEST(SocketCancel, everywhere_in_a_conversation_leaves_nothing_behind) {
    const int cancels = cancel_everywhere([](LeakToken token) -> Coro<> {
        Connection connection;
        connection.token = token;
        const Socket server = listening();
        connection.client = Socket(AF_INET, SOCK_STREAM);
        co_await asyncio::sock_connect(connection.client, server.getsockname());
        asyncio::Accepted accepted = co_await asyncio::sock_accept(server);
        connection.server = std::move(accepted.socket);
        co_await asyncio::task_group([&](asyncio::TaskGroup& group) -> Coro<> {
            group.create_task(pong(connection.server));
            co_await ping(connection.client, 5);
            connection.client.shutdown(SHUT_WR);
        });
    });
    EXPECT_GE(cancels, 10);
}

TEST(SocketCancel, everywhere_in_a_transfer_leaves_nothing_behind) {
    const int cancels = cancel_everywhere([](LeakToken token) -> Coro<> {
        auto both = Socket::pair();
        const LeakToken kept = token;
        both.first.setsockopt(SOL_SOCKET, SO_SNDBUF, 30'000);
        const std::string data(500'000, 'x');
        std::size_t received = 0;
        co_await asyncio::task_group([&](asyncio::TaskGroup& group) -> Coro<> {
            group.create_task(asyncio::sock_sendall(both.first, data));
            while (received < data.size()) {
                const std::string some = co_await asyncio::sock_recv(both.second, 20'000);
                received += some.size();
            }
        });
    });
    EXPECT_GE(cancels, 10);
}

TEST(SocketCancel, everywhere_in_waits_with_a_limit_leaves_nothing_behind) {
    const int cancels = cancel_everywhere([](LeakToken token) -> Coro<> {
        auto both = Socket::pair();
        const LeakToken kept = token;
        const auto nothing =
            co_await asyncio::as_result(asyncio::wait_for(asyncio::sock_recv(both.first, 10), 1h));
        if (!nothing.failed_with<asyncio::TimeoutError>()) throw asyncio::CancelledError();
        co_await asyncio::sock_sendall(both.second, "x");
        const std::string data = co_await asyncio::wait_for(asyncio::sock_recv(both.first, 10), 1h);
        EXPECT_EQ(data, "x");
    });
    EXPECT_GE(cancels, 3);
}
