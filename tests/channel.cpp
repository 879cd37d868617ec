// SPDX-License-Identifier: MIT
// What a descriptor's registration makes of edges, seen through sockets: who is served when, and
// that no edge is lost or believed for too long.
#include <asyncio/asyncio.hpp>
#include <gtest/gtest.h>

#include "support/process.hpp"
#include "support/sockets.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <functional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace std::chrono_literals;
using asyncio::Address;
using asyncio::Coro;
using asyncio::Socket;
using asyncio_test::connected;
using asyncio_test::failure_of;
using asyncio_test::listening;
using asyncio_test::outcome_of;
using asyncio_test::Process;
using asyncio_test::receive;
using asyncio_test::receive_all;
using asyncio_test::reset;

namespace {

// Reads `count` bytes, one at a time, and notes whose they were.
Coro<> read_bytes(const Socket& socket, int count, char name, std::string& log) {
    for (int i = 0; i < count; ++i) {
        log += name;
        log += co_await asyncio::sock_recv(socket, 1);
    }
}
Coro<> note_byte(const Socket& socket, char name, std::string& log) {
    const std::string data = co_await asyncio::sock_recv(socket, 1);
    log += name + data;
}

// Whether nothing more can be read, and nothing spins.
Coro<bool> blocks(const Socket& socket) {
    const auto result =
        co_await asyncio::as_result(asyncio::wait_for(asyncio::sock_recv(socket, 1), 2ms));
    co_return result.failed_with<asyncio::TimeoutError>();
}

// Polls the kernel, and lets what is ready run.
Coro<> a_few_turns() {
    for (int i = 0; i < 5; ++i) co_await asyncio::sleep(0);
}

} // namespace

TEST(Channel, serves_readers_in_the_order_in_which_they_came) {
    asyncio::run([]() -> Coro<> {
        auto both = co_await connected();
        std::string log;
        std::vector<asyncio::Task<>> readers;
        const auto add = [&](char name) {
            readers.push_back(
                asyncio::create_task(note_byte, std::cref(both.first), name, std::ref(log)));
        };
        for (const char name : {'a', 'b', 'c'}) add(name);
        co_await a_few_turns();
        co_await asyncio::sock_sendall(both.second, "1");
        co_await a_few_turns();
        EXPECT_EQ(log, "a1");
        add('d');
        co_await a_few_turns();
        co_await asyncio::sock_sendall(both.second, "23456");
        add('e'); // comes when there is something already, and others wait
        for (const auto& reader : readers) co_await reader;
        EXPECT_EQ(log, "a1b2c3d4e5");
        const std::string rest = co_await asyncio::sock_recv(both.first, 10);
        EXPECT_EQ(rest, "6");
    });
}

TEST(Channel, lets_readers_that_read_on_take_turns) {
    asyncio::run([]() -> Coro<> {
        auto both = co_await connected();
        std::string log;
        const auto first =
            asyncio::create_task(read_bytes, std::cref(both.first), 3, 'a', std::ref(log));
        const auto second =
            asyncio::create_task(read_bytes, std::cref(both.first), 3, 'b', std::ref(log));
        co_await a_few_turns();
        co_await asyncio::sock_sendall(both.second, "123456");
        co_await first;
        co_await second;
        std::erase_if(log, [](char c) { return c < '0' || c > '9'; });
        EXPECT_EQ(log, "123456");
        bool ended = co_await blocks(both.first);
        EXPECT_TRUE(ended);
    });
}

TEST(Channel, gives_the_turn_of_a_reader_that_is_cancelled_to_the_next) {
    asyncio::run([]() -> Coro<> {
        auto both = co_await connected();
        std::string log;
        std::vector<asyncio::Task<>> readers;
        for (const char name : {'a', 'b', 'c', 'd'}) {
            readers.push_back(
                asyncio::create_task(note_byte, std::cref(both.first), name, std::ref(log)));
        }
        co_await a_few_turns();
        readers[1].cancel(); // while it waits
        co_await asyncio::sock_sendall(both.second, "123");
        // In the turn in which the edge has queued them, but before they run.
        asyncio::get_running_loop().call_soon([&] { readers[0].cancel(); });
        for (const auto& reader : readers) {
            static_cast<void>(co_await asyncio::as_result(reader));
        }
        EXPECT_EQ(log, "c1d2");
        const std::string rest = co_await asyncio::sock_recv(both.first, 10);
        EXPECT_EQ(rest, "3");
    });
}

TEST(Channel, does_not_mix_what_several_send) {
    asyncio::run([]() -> Coro<> {
        auto both = co_await connected();
        both.first.setsockopt(SOL_SOCKET, SO_SNDBUF, 20'000);
        const auto send_letters = [](const Socket& socket, char letter) -> Coro<> {
            const std::string data(300'000, letter);
            co_await asyncio::sock_sendall(socket, data);
        };
        std::vector<asyncio::Task<>> senders;
        for (const char letter : {'a', 'b', 'c'}) {
            senders.push_back(asyncio::create_task(send_letters, std::cref(both.first), letter));
        }
        const auto reader =
            asyncio::create_task(receive_all, std::cref(both.second), std::size_t{1'200'000});
        // One that comes again and again, whenever there may be room.
        co_await a_few_turns();
        const auto last = asyncio::create_task(send_letters, std::cref(both.first), 'd');
        std::string expected;
        for (const char letter : {'a', 'b', 'c', 'd'}) expected += std::string(300'000, letter);
        const std::string all = co_await reader;
        EXPECT_TRUE(all == expected);
        co_await last;
        for (const auto& sender : senders) co_await sender;
    });
}

TEST(Channel, lets_two_awaits_in_one_expression_wait_one_after_the_other) {
    asyncio::run([]() -> Coro<> {
        auto both = co_await connected();
        const auto two = [](const Socket& socket) -> Coro<std::string> {
            co_return (co_await asyncio::sock_recv(socket, 1)) +
                (co_await asyncio::sock_recv(socket, 1));
        };
        const auto task = asyncio::create_task(two, std::cref(both.first));
        for (const char* byte : {"x", "x"}) {
            co_await a_few_turns();
            co_await asyncio::sock_sendall(both.second, byte);
        }
        const auto result = co_await asyncio::as_result(asyncio::wait_for(task, 5s));
        EXPECT_EQ(outcome_of(result), "'xx'");
    });
}

TEST(Channel, lets_others_run_while_a_task_reads_what_is_always_there) {
    asyncio::run([]() -> Coro<> {
        auto both = co_await connected();
        constexpr int bytes = 10'000;
        co_await asyncio::sock_sendall(both.second, std::string(bytes, 'x'));
        int read = 0;
        std::vector<int> seen; // how much was read, in each turn
        const auto reader = asyncio::create_task(
            [](const Socket& socket, int& count) -> Coro<> {
                for (; count < bytes; ++count) co_await asyncio::sock_recv(socket, 1);
            },
            std::cref(both.first), std::ref(read));
        while (!reader.done()) {
            seen.push_back(read);
            co_await asyncio::sleep(0);
        }
        int most = 0;
        for (std::size_t i = 1; i < seen.size(); ++i) most = std::max(most, seen[i] - seen[i - 1]);
        constexpr int budget = asyncio::detail::Io::budget;
        EXPECT_LE(most, budget + 1);
        EXPECT_GE(most, budget / 2); // and it does not take a turn for each
        EXPECT_GE(static_cast<int>(seen.size()), bytes / (budget + 1));
    });
}

TEST(Channel, lets_others_run_while_a_task_sends_what_always_fits) {
    asyncio::run([]() -> Coro<> {
        auto both = co_await connected();
        int sent = 0;
        int turns = 0;
        const auto sender = asyncio::create_task(
            [](const Socket& socket, int& count) -> Coro<> {
                for (; count < 1000; ++count) co_await asyncio::sock_sendall(socket, "x");
            },
            std::cref(both.first), std::ref(sent));
        for (; !sender.done(); ++turns) co_await asyncio::sleep(0);
        EXPECT_GE(turns, 1000 / 65);
    });
}

TEST(Channel, keeps_its_place_in_the_next_turn_when_its_budget_is_spent_or_is_cancelled_there) {
    asyncio::run([]() -> Coro<> {
        auto both = co_await connected();
        co_await asyncio::sock_sendall(both.second, std::string(1000, 'x'));
        int read = 0;
        const auto reader = asyncio::create_task(
            [](const Socket& socket, int& count) -> Coro<> {
                for (;; ++count) co_await asyncio::sock_recv(socket, 1);
            },
            std::cref(both.first), std::ref(read));
        while (read == 0) co_await asyncio::sleep(0);
        const int before = read;
        reader.cancel();
        const auto result = co_await asyncio::as_result(reader);
        EXPECT_TRUE(result.failed_with<asyncio::CancelledError>());
        EXPECT_EQ(read, before);
        const auto left = static_cast<std::size_t>(1000 - before);
        const std::string rest = co_await receive_all(both.first, left);
        EXPECT_EQ(rest.size(), left); // none was lost
    });
}

// --- ends and short reads

TEST(Channel, sees_the_end_that_comes_together_with_the_last_data) {
    asyncio::run([]() -> Coro<> {
        for (const bool has_waited : {false, true}) {
            auto both = co_await connected();
            const auto reader = asyncio::create_task(receive_all, std::cref(both.first), SIZE_MAX);
            if (has_waited) co_await a_few_turns();
            co_await asyncio::sock_sendall(both.second, "last");
            both.second.close();
            const auto all = co_await asyncio::as_result(asyncio::wait_for(reader, 10s));
            EXPECT_EQ(outcome_of(all), "'last'");
            // And again, as often as it is asked.
            for (int i = 0; i < 3; ++i) {
                const std::string end = co_await asyncio::sock_recv(both.first, 10);
                EXPECT_EQ(end, "");
            }
        }
    });
}

TEST(Channel, waits_after_a_read_that_was_just_filled_up) {
    asyncio::run([]() -> Coro<> {
        auto tcp = co_await connected();
        auto pair = Socket::pair();
        for (auto* both : {&tcp, &pair}) {
            for (int i = 0; i < 3; ++i) {
                co_await asyncio::sock_sendall(both->second, "12345678");
                std::string data = co_await asyncio::sock_recv(both->first, 4);
                EXPECT_EQ(data, "1234");
                data = co_await asyncio::sock_recv(both->first, 4);
                EXPECT_EQ(data, "5678");
                const bool ended = co_await blocks(both->first);
                EXPECT_TRUE(ended);
            }
        }
    });
}

TEST(Channel, reads_on_after_a_short_read_of_a_unix_socket) {
    asyncio::run([]() -> Coro<> {
        auto both = Socket::pair();
        // A descriptor goes along with the first byte: the kernel reads no further at once.
        const auto send_with_descriptor = [](int descriptor, const char* text) {
            alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control = {};
            iovec part{const_cast<char*>(text), std::strlen(text)};
            msghdr message{};
            message.msg_iov = &part;
            message.msg_iovlen = 1;
            message.msg_control = control.data();
            message.msg_controllen = control.size();
            cmsghdr* header = CMSG_FIRSTHDR(&message);
            header->cmsg_level = SOL_SOCKET;
            header->cmsg_type = SCM_RIGHTS;
            header->cmsg_len = CMSG_LEN(sizeof(int));
            std::memcpy(CMSG_DATA(header), &descriptor, sizeof descriptor);
            return ::sendmsg(descriptor, &message, 0);
        };
        const auto reader = asyncio::create_task(receive_all, std::cref(both.first), 6UL);
        co_await a_few_turns();
        EXPECT_EQ(send_with_descriptor(both.second.fileno(), "ab"), 2);
        EXPECT_EQ(send_with_descriptor(both.second.fileno(), "cd"), 2);
        EXPECT_EQ(::send(both.second.fileno(), "ef", 2, 0), 2);
        const auto all = co_await asyncio::as_result(asyncio::wait_for(reader, 10s));
        EXPECT_EQ(outcome_of(all), "'abcdef'");
    });
}

TEST(Channel, reads_on_after_what_another_process_has_sent) {
    asyncio::run([]() -> Coro<> {
        auto both = Socket::pair();
        // What has other credentials is not read together with what was there before.
        both.first.setsockopt(SOL_SOCKET, SO_PASSCRED, 1);
        const auto reader = asyncio::create_task(receive_all, std::cref(both.first), 6UL);
        co_await a_few_turns();
        const int descriptor = both.second.fileno();
        EXPECT_EQ(::send(descriptor, "ab", 2, 0), 2);
        Process child([&](Process::Parent&) {
            return ::send(descriptor, "cd", 2, 0) == 2 ? ::_exit(0), 0 : 1;
        });
        EXPECT_EQ(child.wait(), "exited with 0");
        EXPECT_EQ(::send(descriptor, "ef", 2, 0), 2);
        const auto all = co_await asyncio::as_result(asyncio::wait_for(reader, 10s));
        EXPECT_EQ(outcome_of(all), "'abcdef'");
    });
}

// At urgent data a read stops, although more is there.
TEST(Channel, reads_on_after_a_read_that_urgent_data_has_cut_short) {
    asyncio::run([]() -> Coro<> {
        auto both = co_await connected();
        for (int i = 0; i < 3; ++i) {
            const auto reader = asyncio::create_task(receive_all, std::cref(both.first), 6UL);
            co_await a_few_turns();
            EXPECT_EQ(::send(both.second.fileno(), "abc!", 4, MSG_OOB), 4);
            EXPECT_EQ(::send(both.second.fileno(), "def", 3, 0), 3);
            const auto all = co_await asyncio::as_result(asyncio::wait_for(reader, 10s));
            EXPECT_EQ(outcome_of(all), "'abcdef'");
        }
        const bool ended = co_await blocks(both.first);
        EXPECT_TRUE(ended);
    });
}

TEST(Channel, goes_on_one_way_when_the_other_has_ended) {
    asyncio::run([]() -> Coro<> {
        auto both = co_await connected();
        both.first.shutdown(SHUT_WR);
        const std::string end = co_await receive_all(both.second);
        EXPECT_EQ(end, "");
        const std::string data(1 << 20, 'x');
        const auto reader = asyncio::create_task(receive_all, std::cref(both.first), SIZE_MAX);
        co_await asyncio::sock_sendall(both.second, data);
        both.second.close();
        const std::string all = co_await reader;
        EXPECT_TRUE(all == data);
    });
}

TEST(Channel, tells_a_reader_that_this_side_was_shut_down) {
    asyncio::run([]() -> Coro<> {
        auto both = co_await connected();
        const auto reader = asyncio::create_task(receive, std::cref(both.first), 10UL);
        co_await a_few_turns();
        both.first.shutdown(SHUT_RD);
        const auto result = co_await asyncio::as_result(asyncio::wait_for(reader, 10s));
        EXPECT_EQ(outcome_of(result), "''");
    });
}

// --- resets

TEST(Channel, tells_who_waits_of_a_reset) {
    asyncio::run([]() -> Coro<> {
        auto both = co_await connected();
        const std::string peer = both.second.getsockname().text();
        const auto reader = asyncio::create_task(receive, std::cref(both.first), 10UL);
        const auto sender = asyncio::create_task(asyncio_test::send, std::cref(both.first),
                                                 std::string(8 << 20, 'x'));
        co_await a_few_turns();
        EXPECT_FALSE(sender.done());
        reset(both.second);
        const auto read = co_await asyncio::as_result(asyncio::wait_for(reader, 10s));
        const auto sent = co_await asyncio::as_result(asyncio::wait_for(sender, 10s));
        EXPECT_EQ(failure_of(read),
                  "exception: sock_recv from " + peer + ": Connection reset by peer");
        // The kernel tells of a reset once; after that there is no way any more.
        EXPECT_EQ(failure_of(sent), "exception: sock_sendall to " + peer + ": Broken pipe");
        const std::string end = co_await asyncio::sock_recv(both.first, 10);
        EXPECT_EQ(end, "");
    });
}

TEST(Channel, tells_a_sender_that_waits_alone_of_a_reset) {
    asyncio::run([]() -> Coro<> {
        auto both = co_await connected();
        const std::string peer = both.second.getsockname().text();
        const auto sender = asyncio::create_task(asyncio_test::send, std::cref(both.first),
                                                 std::string(8 << 20, 'x'));
        co_await a_few_turns();
        reset(both.second);
        const auto sent = co_await asyncio::as_result(asyncio::wait_for(sender, 10s));
        EXPECT_EQ(failure_of(sent),
                  "exception: sock_sendall to " + peer + ": Connection reset by peer");
    });
}

TEST(Channel, tells_of_a_reset_that_came_before_anybody_waited) {
    asyncio::run([]() -> Coro<> {
        for (const bool has_seen_data : {false, true}) {
            auto both = co_await connected();
            const std::string peer = both.second.getsockname().text();
            if (has_seen_data) {
                co_await asyncio::sock_sendall(both.second, "xy");
                co_await asyncio::sock_recv(both.first, 1);
            }
            reset(both.second);
            co_await a_few_turns();
            std::string log;
            for (int i = 0; i < 4; ++i) {
                auto result = co_await asyncio::as_result(
                    asyncio::wait_for(asyncio::sock_recv(both.first, 10), 10s));
                log += outcome_of(result) + " ";
            }
            // What was there may be read first, or be lost with the connection.
            EXPECT_NE(log.find("exception: sock_recv from " + peer + ": Connection reset by peer "),
                      std::string::npos)
                << log;
            EXPECT_EQ(log.substr(log.size() - 3), "'' ") << log;
        }
    });
}

TEST(Channel, tells_of_a_reset_after_this_side_has_ended) {
    asyncio::run([]() -> Coro<> {
        auto both = co_await connected();
        const std::string peer = both.second.getsockname().text();
        both.first.shutdown(SHUT_WR);
        const auto reader = asyncio::create_task(receive, std::cref(both.first), 10UL);
        co_await a_few_turns();
        reset(both.second);
        const auto read = co_await asyncio::as_result(asyncio::wait_for(reader, 10s));
        EXPECT_EQ(failure_of(read),
                  "exception: sock_recv from " + peer + ": Connection reset by peer");
    });
}

TEST(Channel, accepts_a_connection_that_was_reset_before_that) {
    asyncio::run([]() -> Coro<> {
        const Socket server = listening();
        auto acceptor = asyncio::create_task(
            [](const Socket& socket) -> Coro<asyncio::Accepted> {
                co_return co_await asyncio::sock_accept(socket);
            },
            std::cref(server));
        co_await a_few_turns();
        Socket client(AF_INET, SOCK_STREAM);
        co_await asyncio::sock_connect(client, server.getsockname());
        const std::string peer = client.getsockname().text();
        reset(client);
        const asyncio::Accepted accepted = co_await std::move(acceptor);
        const auto read = co_await asyncio::as_result(asyncio::sock_recv(accepted.socket, 10));
        EXPECT_EQ(failure_of(read),
                  "exception: sock_recv from " + peer + ": Connection reset by peer");
    });
}

TEST(Channel, tells_who_connects_of_a_refusal_by_both_ways_of_asking) {
    asyncio::run([]() -> Coro<> {
        const Address address = listening().getsockname();
        // Attached before it is connected, as one that somebody has tried to read.
        const Socket client(AF_INET, SOCK_STREAM);
        auto read = co_await asyncio::as_result(asyncio::sock_recv(client, 1));
        EXPECT_EQ(failure_of(read), "exception: sock_recv: Transport endpoint is not connected");
        auto result = co_await asyncio::as_result(
            asyncio::wait_for(asyncio::sock_connect(client, address), 10s));
        EXPECT_EQ(failure_of(result),
                  "exception: sock_connect to " + address.text() + ": Connection refused");
    });
}

TEST(Channel, connects_one_that_somebody_has_tried_to_read_before) {
    asyncio::run([]() -> Coro<> {
        const Socket server = listening();
        const Socket client(AF_INET, SOCK_STREAM);
        auto read = co_await asyncio::as_result(asyncio::sock_recv(client, 1));
        EXPECT_EQ(failure_of(read), "exception: sock_recv: Transport endpoint is not connected");
        co_await a_few_turns();
        co_await asyncio::sock_connect(client, server.getsockname());
        const bool waits = co_await blocks(client); // and does not take it for hung up
        EXPECT_TRUE(waits);
        asyncio::Accepted accepted = co_await asyncio::sock_accept(server);
        co_await asyncio::sock_sendall(accepted.socket, "hello");
        const std::string data = co_await asyncio::sock_recv(client, 10);
        EXPECT_EQ(data, "hello");
        accepted.socket.close();
        const std::string end = co_await asyncio::sock_recv(client, 10);
        EXPECT_EQ(end, "");
    });
}

// --- numbers that come again, and copies in other processes

TEST(Channel, forgets_the_edges_of_a_descriptor_whose_number_comes_again) {
    asyncio::run([]() -> Coro<> {
        for (int i = 0; i < 20; ++i) {
            auto old = co_await connected();
            auto fresh = Socket::pair();
            const auto reader = asyncio::create_task(receive, std::cref(old.first), 10UL);
            co_await a_few_turns();
            // The edge is there, but the loop has not seen it.
            EXPECT_EQ(::send(old.second.fileno(), "x", 1, 0), 1);
            const int number = old.first.fileno();
            old.first.close();
            EXPECT_EQ(::dup2(fresh.first.fileno(), number), number);
            const Socket reused = Socket::from_descriptor(number);
            const auto waiter = asyncio::create_task(receive, std::cref(reused), 10UL);
            const auto result = co_await asyncio::as_result(reader);
            EXPECT_EQ(failure_of(result).find("exception: sock_recv: the socket was closed"), 0U);
            co_await a_few_turns();
            EXPECT_FALSE(waiter.done());
            co_await asyncio::sock_sendall(fresh.second, "new");
            const std::string data = co_await waiter;
            EXPECT_EQ(data, "new");
        }
    });
}

TEST(Channel, of_a_closed_socket_hears_nothing_of_its_copy_in_a_child) {
    asyncio::run([]() -> Coro<> {
        auto both = co_await connected();
        const auto reader = asyncio::create_task(receive, std::cref(both.first), 10UL);
        co_await a_few_turns();
        int wait_here[2] = {-1, -1};
        EXPECT_EQ(::pipe2(wait_here, O_CLOEXEC), 0);
        Process child([&](Process::Parent& parent) {
            ::close(wait_here[1]);
            parent.tell("ready");
            char byte = 0;
            static_cast<void>(::read(wait_here[0], &byte, 1)); // keeps all descriptors until then
            ::_exit(0);
            return 0;
        });
        EXPECT_EQ(child.line(), "ready");
        both.first.close(); // in the child it lives on
        const auto result = co_await asyncio::as_result(reader);
        EXPECT_EQ(failure_of(result).find("exception: sock_recv: the socket was closed"), 0U);
        co_await asyncio::sock_sendall(both.second, "to the child");
        co_await a_few_turns(); // an edge would go to what is no more
        both.second.close();
        co_await a_few_turns();
        ::close(wait_here[0]);
        ::close(wait_here[1]);
        EXPECT_EQ(child.wait(), "exited with 0");
    });
}

TEST(Channel, stays_watched_when_a_child_closes_its_copy) {
    asyncio::run([]() -> Coro<> {
        auto both = co_await connected();
        const auto reader = asyncio::create_task(receive, std::cref(both.first), 10UL);
        co_await a_few_turns();
        Process child([&](Process::Parent&) {
            both.first.close(); // of the child; epoll is the parent's too
            ::_exit(0);
            return 0;
        });
        EXPECT_EQ(child.wait(), "exited with 0");
        co_await asyncio::sock_sendall(both.second, "hello");
        const auto result = co_await asyncio::as_result(asyncio::wait_for(reader, 5s));
        EXPECT_EQ(outcome_of(result), "'hello'");
    });
}
