// SPDX-License-Identifier: MIT
// Sockets and the loops that they belong to: one at a time, and what becomes of each when the other
// is closed.
#include <asyncio/asyncio.hpp>
#include <gtest/gtest.h>

#include "support/reports.hpp"
#include "support/sockets.hpp"

#include <chrono>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <iterator>
#include <optional>
#include <string>
#include <utility>

#include <fcntl.h>

using namespace std::chrono_literals;
using asyncio::Address;
using asyncio::Coro;
using asyncio::EventLoop;
using asyncio::Socket;
using asyncio_test::connected;
using asyncio_test::Ends;
using asyncio_test::failure_of;
using asyncio_test::listening;
using asyncio_test::outcome_of;
using asyncio_test::receive;
using asyncio_test::Reports;
using asyncio_test::thrown_by;

namespace {

std::ptrdiff_t open_descriptors() {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"),
                         std::filesystem::directory_iterator());
}

Coro<> send_one(const Socket& socket) { co_await asyncio::sock_sendall(socket, "x"); }

// A task for each wait that a socket knows.
void wait_in_all_ways(EventLoop& loop, Ends& both, const Socket& server) {
    asyncio::create_task(loop, receive, std::cref(both.first), 10UL);
    asyncio::create_task(loop, receive, std::cref(both.first), 10UL);
    asyncio::create_task(loop, asyncio_test::send, std::cref(both.first),
                         std::string(8 << 20, 'x'));
    asyncio::create_task(loop, asyncio_test::send, std::cref(both.first), std::string("after it"));
    asyncio::create_task(
        loop, [](const Socket& socket) -> Coro<> { co_await asyncio::sock_accept(socket); },
        std::cref(server));
}

void a_few_turns(EventLoop& loop) {
    for (int i = 0; i < 5; ++i) {
        loop.stop();
        loop.run_forever();
    }
}

} // namespace

TEST(SocketLoops, a_socket_is_refused_in_a_second_loop) {
    asyncio::Runner first;
    asyncio::Runner second;
    Ends both = first.run(connected());
    const std::string refusal = "RuntimeError: descriptor " + std::to_string(both.first.fileno()) +
                                " is used in another event loop: a socket stays in the loop in "
                                "which it was first awaited";
    EXPECT_EQ(thrown_by([&] { second.run(receive(both.first, 1)); }), refusal);
    EXPECT_EQ(thrown_by([&] { second.run(send_one(both.first)); }), refusal);
    // And it goes on where it was.
    first.run(send_one(both.second));
    EXPECT_EQ(first.run(receive(both.first, 1)), "x");
}

TEST(SocketLoops, a_socket_that_outlives_its_loop_can_be_used_in_the_next) {
    std::optional<Ends> both = asyncio::run(connected());
    for (int i = 0; i < 3; ++i) {
        asyncio::run([&]() -> Coro<> {
            const auto reader = asyncio::create_task(receive, std::cref(both->first), 10UL);
            co_await asyncio::sleep(0);
            co_await asyncio::sock_sendall(both->second, "hello");
            const std::string data = co_await reader;
            EXPECT_EQ(data, "hello");
            // What the loop before knew of it is forgotten, as is what it has just learnt.
            const auto waits = co_await asyncio::as_result(
                asyncio::wait_for(asyncio::sock_recv(both->first, 1), 1ms));
            EXPECT_TRUE(waits.failed_with<asyncio::TimeoutError>());
        });
    }
    both.reset(); // without any loop
}

TEST(SocketLoops, a_loop_that_is_closed_lets_go_of_sockets_and_of_those_who_wait) {
    const std::ptrdiff_t before = open_descriptors();
    {
        Ends both;
        Socket server;
        Reports reports;
        {
            const auto loop = asyncio::new_event_loop();
            reports.watch(*loop);
            both = asyncio::run_until_complete(*loop, connected());
            server = listening();
            wait_in_all_ways(*loop, both, server);
            a_few_turns(*loop);
            EXPECT_TRUE(loop->backend().watches_any());
            loop->close();
            EXPECT_EQ(reports.count("Task was destroyed but it is pending"), 5U) << reports.text();
        }
        EXPECT_TRUE(both.first.is_open());
        EXPECT_EQ(open_descriptors(), before + 3);
        // Nobody is left in its lines.
        asyncio::run([&]() -> Coro<> {
            co_await asyncio::sock_sendall(both.second, "hello");
            const std::string data = co_await asyncio::sock_recv(both.first, 10);
            EXPECT_EQ(data, "hello");
            const auto accepting = asyncio::create_task(
                [](const Socket& socket) -> Coro<> { co_await asyncio::sock_accept(socket); },
                std::cref(server));
            const Socket client(AF_INET, SOCK_STREAM);
            co_await asyncio::sock_connect(client, server.getsockname());
            co_await asyncio::wait_for(accepting, 10s);
        });
    }
    EXPECT_EQ(open_descriptors(), before);
}

TEST(SocketLoops, a_loop_may_be_closed_while_those_who_wait_are_queued) {
    Ends both;
    Socket server;
    {
        const auto loop = asyncio::new_event_loop();
        const Reports reports(*loop);
        both = asyncio::run_until_complete(*loop, connected());
        server = listening();
        wait_in_all_ways(*loop, both, server);
        a_few_turns(*loop);
        // The edge queues them, and the callback that stops the loop leaves them there.
        EXPECT_EQ(::send(both.second.fileno(), "x", 1, 0), 1);
        loop->call_soon([&] { throw asyncio::KeyboardInterrupt(); });
        EXPECT_THROW(loop->run_forever(), asyncio::KeyboardInterrupt);
        loop->close();
        EXPECT_EQ(reports.count("Task was destroyed but it is pending"), 5U) << reports.text();
    }
    asyncio::run([&]() -> Coro<> {
        const std::string data = co_await asyncio::sock_recv(both.first, 10);
        EXPECT_EQ(data, "x");
    });
}

TEST(SocketLoops, sockets_may_be_closed_while_their_loop_does_not_run) {
    const auto loop = asyncio::new_event_loop();
    Ends both = asyncio::run_until_complete(*loop, connected());
    const auto reader = asyncio::create_task(*loop, receive, std::cref(both.first), 10UL);
    a_few_turns(*loop);
    both.first.close();
    both.second = Socket();
    EXPECT_EQ(thrown_by([&] { asyncio::run_until_complete(*loop, reader); }),
              "exception: sock_recv: the socket was closed meanwhile: Bad file descriptor");
}

TEST(SocketLoops, a_socket_may_be_destroyed_while_a_task_waits_for_it) {
    asyncio::run([]() -> Coro<> {
        std::optional<Ends> both(co_await connected());
        const auto reader = asyncio::create_task(receive, std::cref(both->first), 10UL);
        const auto sender = asyncio::create_task(asyncio_test::send, std::cref(both->first),
                                                 std::string(8 << 20, 'x'));
        co_await asyncio::sleep(0);
        co_await asyncio::sleep(0);
        both.reset();
        const auto read = co_await asyncio::as_result(reader);
        EXPECT_EQ(outcome_of(read),
                  "exception: sock_recv: the socket was closed meanwhile: Bad file descriptor");
        const auto sent = co_await asyncio::as_result(sender);
        EXPECT_EQ(failure_of(sent),
                  "exception: sock_sendall: the socket was closed meanwhile: Bad file descriptor");
    });
}

TEST(SocketLoops, a_socket_may_be_destroyed_before_what_uses_it_begins) {
    asyncio::run([]() -> Coro<> {
        std::optional<Ends> both(co_await connected());
        const auto reader = asyncio::create_task(asyncio::sock_recv(both->first, 10));
        auto later = asyncio::sock_sendall(both->first, "x");
        both.reset();
        const auto read = co_await asyncio::as_result(reader);
        EXPECT_EQ(outcome_of(read),
                  "exception: sock_recv: the socket was closed meanwhile: Bad file descriptor");
        const auto sent = co_await asyncio::as_result(std::move(later));
        EXPECT_EQ(failure_of(sent),
                  "exception: sock_sendall: the socket was closed meanwhile: Bad file descriptor");
    });
}

TEST(SocketLoops, a_descriptor_is_used_by_a_socket_or_by_add_reader_and_not_by_both) {
    asyncio::run([]() -> Coro<> {
        auto both = co_await connected();
        EventLoop& loop = asyncio::get_running_loop();
        const int descriptor = both.first.fileno();
        const std::string refusal = "RuntimeError: descriptor " + std::to_string(descriptor) +
                                    " is in use already, by a socket, a stream or a transport, or "
                                    "by add_reader() or add_writer()";
        EXPECT_EQ(thrown_by([&] { loop.add_reader(descriptor, [] {}); }), refusal);
        EXPECT_EQ(thrown_by([&] { loop.add_writer(descriptor, [] {}); }), refusal);
        EXPECT_FALSE(loop.remove_reader(descriptor));

        const Socket other(AF_INET, SOCK_DGRAM);
        loop.add_writer(other.fileno(), [] {});
        auto refused = co_await asyncio::as_result(asyncio::sock_recv(other, 1));
        EXPECT_EQ(failure_of(refused).find("RuntimeError: descriptor " +
                                           std::to_string(other.fileno()) + " is in use already"),
                  0U);
        EXPECT_TRUE(loop.remove_writer(other.fileno()));
        auto waits =
            co_await asyncio::as_result(asyncio::wait_for(asyncio::sock_recv(other, 1), 1ms));
        EXPECT_TRUE(waits.failed_with<asyncio::TimeoutError>());

        // A second Socket of the same descriptor.
        auto again = Socket::from_descriptor(descriptor);
        auto twice = co_await asyncio::as_result(asyncio::sock_recv(again, 1));
        EXPECT_EQ(failure_of(twice), refusal);
        static_cast<void>(again.detach());
        // All of that has changed nothing.
        co_await asyncio::sock_sendall(both.second, "hello");
        const std::string data = co_await asyncio::sock_recv(both.first, 10);
        EXPECT_EQ(data, "hello");
    });
}

TEST(SocketLoops, sockets_can_be_made_and_set_up_without_a_loop) {
    Socket server = listening();
    EXPECT_NE(server.getsockname().port(), 0);
    auto pair = Socket::pair();
    EXPECT_TRUE(pair.first.is_open());
    asyncio::run([&]() -> Coro<> {
        const Socket client(AF_INET, SOCK_STREAM);
        co_await asyncio::sock_connect(client, server.getsockname());
        co_await asyncio::sock_accept(server);
    });
}
