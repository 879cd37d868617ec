// SPDX-License-Identifier: MIT
#include "support/datagrams.hpp"
#include "support/in_virtual_time.hpp"

#include <asyncio/asyncio.hpp>
#include <asyncio/testing/cancel_everywhere.hpp>
#include <asyncio/testing/faults.hpp>
#include <asyncio/testing/virtual_time.hpp>
#include <gtest/gtest.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <unistd.h>
#include <vector>

using namespace std::chrono_literals;
using asyncio::Address;
using asyncio::as_result;
using asyncio::Coro;
using asyncio::create_task;
using asyncio::DatagramEndpoint;
using asyncio::DatagramOptions;
using asyncio::DatagramProtocol;
using asyncio::DatagramTransport;
using asyncio::open_datagram_endpoint;
using asyncio::OutgoingDatagram;
using asyncio::ReceivedFrom;
using asyncio::sleep;
using asyncio::Socket;
using asyncio::testing::Faults;
using asyncio::testing::SystemCall;
using asyncio_test::code_of;
using asyncio_test::connected_to;
using asyncio_test::Reports;
using asyncio_test::text_of;

namespace {

// So that there is no room for another one: gives how many it has taken.
int fill(const Address& address) {
    int count = 0;
    for (;;) {
        const Socket socket(AF_UNIX, SOCK_DGRAM); // each has a buffer of its own
        if (::sendto(socket.fileno(), "x", 1, MSG_DONTWAIT, address.data(), address.size()) != 1)
            break;
        ++count;
    }
    EXPECT_EQ(errno, EAGAIN);
    return count;
}

} // namespace

TEST(Datagrams, of_unix_are_whole_though_they_are_large) {
    const std::string path = testing::TempDir() + "asyncio_datagrams_" + std::to_string(::getpid());
    asyncio::run([&]() -> Coro<> {
        const Address address = Address::unix_path(path);
        {
            Socket left_over(AF_UNIX, SOCK_DGRAM);
            left_over.bind(address);
        }
        DatagramEndpoint server =
            co_await open_datagram_endpoint(DatagramOptions().local_addr(address));
        DatagramEndpoint client = co_await open_datagram_endpoint(connected_to(address));
        const std::string large(100'000, 'x');
        co_await client.send(large);
        co_await client.send("small");
        const ReceivedFrom got = co_await server.recvfrom();
        EXPECT_EQ(got.data, large);
        EXPECT_EQ(got.address.family(), AF_UNSPEC);
        const std::string small = co_await server.recv();
        EXPECT_EQ(small, "small");

        // It waits for room.
        fill(address);
        auto waiting = create_task([](DatagramEndpoint& c) -> Coro<> { co_await c.send("last"); },
                                   std::ref(client));
        for (int i = 0; i < 5; ++i) co_await sleep(0);
        EXPECT_FALSE(waiting.done());
        std::string data = "x";
        while (data == "x") data = co_await server.recv();
        EXPECT_EQ(data, "last");
        co_await waiting;
    });
    std::filesystem::remove(path);
}

// A Unix socket whose receiver, to which it is not connected, has no room. There are three ways in
// which coroutines send, and each is to wait in the same way.
namespace {

Address abstract_address() {
    static int number = 0;
    return Address::unix_path(std::string(1, '\0') + "asyncio_datagrams_" +
                              std::to_string(::getpid()) + "_" + std::to_string(++number));
}
struct ReceiverWithoutRoom {
    Address address = abstract_address();
    DatagramEndpoint receiver{make(address)};
    DatagramEndpoint sender{Socket(AF_UNIX, SOCK_DGRAM), address};
    int filled = fill(address);

    static Socket make(const Address& address) {
        Socket socket(AF_UNIX, SOCK_DGRAM);
        socket.bind(address);
        return socket;
    }
    Coro<> make_room(int count) const {
        for (int i = 0; i < count; ++i) {
            const std::string data = co_await receiver.recv();
            EXPECT_EQ(data, "x");
        }
    }
};
Coro<> send_by(int way, DatagramEndpoint& sender, std::string data, Address address) {
    if (way == 0) {
        co_await asyncio::sock_sendto(sender.socket(), data, address);
    } else if (way == 1) {
        co_await sender.sendto(data, address);
    } else {
        const std::array<OutgoingDatagram, 1> one = {OutgoingDatagram{data, address}};
        const std::size_t count = co_await sender.sendmany(one);
        EXPECT_EQ(count, 1U);
    }
}
constexpr int ways = 3;
long sends(const Faults& faults) {
    return faults.calls(SystemCall::sendmsg) + faults.calls(SystemCall::sendmmsg);
}
template <class Body> void run_counted(Body body) {
    asyncio::testing::VirtualClock clock;
    Faults faults;
    asyncio::run(body(faults), asyncio::RunOptions().clock(clock).loop(
                                   asyncio::LoopOptions().system_calls(Faults::table())));
}

} // namespace

TEST(Datagrams, of_unix_wait_for_room_without_being_connected_and_do_not_spin) {
    run_counted([](Faults& faults) -> Coro<> {
        for (int way = 0; way < ways; ++way) {
            SCOPED_TRACE(way);
            ReceiverWithoutRoom ends;
            const long before = sends(faults);
            auto task = create_task(send_by(way, ends.sender, "last", ends.address));
            co_await sleep(1s);
            EXPECT_FALSE(task.done());
            const long tries = sends(faults) - before;
            EXPECT_GE(tries, 40);
            EXPECT_LE(tries, 60);
            for (int i = 0; i < 1000; ++i) co_await sleep(0); // in no time
            EXPECT_EQ(sends(faults) - before, tries);
            co_await ends.make_room(ends.filled);
            co_await asyncio::wait_for(task, 21ms);
            const std::string last = co_await ends.receiver.recv();
            EXPECT_EQ(last, "last");
            // The next one begins with a short while again.
            co_await send_by(way, ends.sender, "x", ends.address);
            ends.filled = fill(ends.address) + 1;
            auto next = create_task(send_by(way, ends.sender, "next", ends.address));
            co_await sleep(0);
            co_await ends.make_room(ends.filled);
            co_await asyncio::wait_for(next, 3ms);
            const std::string text = co_await ends.receiver.recv();
            EXPECT_EQ(text, "next");
        }
    });
}

TEST(Datagrams, of_unix_that_wait_for_room_keep_their_order_though_some_are_cancelled) {
    run_counted([](Faults&) -> Coro<> {
        for (int way = 0; way < ways; ++way) {
            SCOPED_TRACE(way);
            ReceiverWithoutRoom ends;
            std::vector<asyncio::Task<>> tasks;
            for (int i = 0; i < 6; ++i) {
                tasks.push_back(create_task(
                    send_by((way + i) % ways, ends.sender, std::to_string(i), ends.address)));
                co_await sleep(3ms);
            }
            for (const int i : {0, 3, 5}) {
                tasks[static_cast<std::size_t>(i)].cancel(); // the first, one amid, the last
                const auto result = co_await as_result(tasks[static_cast<std::size_t>(i)]);
                EXPECT_TRUE(result.failed_with<asyncio::CancelledError>());
            }
            // Room for one at a time; and there is always one more who comes just then.
            std::vector<asyncio::Task<>> late;
            std::string got;
            for (int i = 0; i < ends.filled + 5; ++i) {
                const std::string data = co_await ends.receiver.recv();
                if (data != "x") got += data;
                if (i < 2)
                    late.push_back(
                        create_task(send_by(way, ends.sender, i == 0 ? "a" : "b", ends.address)));
                co_await sleep(25ms);
            }
            EXPECT_EQ(got, "124ab");
            for (auto& task : tasks) EXPECT_TRUE(task.done());
            for (auto& task : late) co_await task;
        }
    });
}

TEST(Datagrams, of_unix_that_wait_for_room_stand_a_cancel_at_every_await_and_a_close) {
    for (int way = 0; way < ways; ++way) {
        SCOPED_TRACE(way);
        const int cancels =
            asyncio::testing::cancel_everywhere([way](asyncio::testing::LeakToken token) -> Coro<> {
                ReceiverWithoutRoom ends;
                co_await asyncio::task_group([&](asyncio::TaskGroup& group) -> Coro<> {
                    group.create_task([&]() -> Coro<> {
                        const auto kept = token;
                        co_await send_by(way, ends.sender, "last", ends.address);
                    });
                    co_await sleep(5ms);
                    co_await ends.make_room(ends.filled);
                });
                const std::string last = co_await ends.receiver.recv();
                EXPECT_EQ(last, "last");
            });
        EXPECT_GE(cancels, 3);
    }
    run_counted([](Faults&) -> Coro<> {
        for (int way = 0; way < ways; ++way) {
            ReceiverWithoutRoom ends;
            auto task = create_task(send_by(way, ends.sender, "never", ends.address));
            co_await sleep(5ms);
            ends.sender.close();
            const auto result = co_await as_result(task);
            EXPECT_EQ(code_of(result), std::errc::bad_file_descriptor);
        }
    });
    // Left waiting when the loop closes.
    ReceiverWithoutRoom left;
    auto loop = asyncio::new_event_loop();
    const Reports reports(*loop); // of tasks that are destroyed
    for (int way = 0; way < ways; ++way) {
        auto task = asyncio::create_task(*loop, send_by(way, left.sender, "never", left.address));
        asyncio::run_until_complete(*loop, []() -> Coro<> { co_await sleep(5ms); }());
        EXPECT_FALSE(task.done());
    }
    loop.reset();
    EXPECT_EQ(reports.count(), 3U) << reports.text();
}

// --- callbacks ---

namespace {

struct Recorder : DatagramProtocol {
    std::vector<std::string> log;

    void connection_made(DatagramTransport) override { log.emplace_back("made"); }
    void connection_lost(std::exception_ptr exception) override {
        log.push_back("lost " + text_of(exception));
    }
};

} // namespace

TEST(DatagramTransports, of_unix_keep_what_a_receiver_has_no_room_for) {
    run_counted([](Faults& faults) -> Coro<> {
        ReceiverWithoutRoom ends;
        auto made = co_await asyncio::create_datagram_endpoint(
            [] { return std::make_shared<Recorder>(); }, Socket(AF_UNIX, SOCK_DGRAM));
        const long before = sends(faults);
        made.transport.sendto("one", ends.address);
        made.transport.sendto("two", ends.address);
        EXPECT_EQ(made.transport.get_write_buffer_size(), 2 * (3U + 8U));
        co_await sleep(1s);
        EXPECT_LE(sends(faults) - before, 60);
        co_await ends.make_room(ends.filled);
        made.transport.close();
        const std::string one = co_await ends.receiver.recv();
        const std::string two = co_await ends.receiver.recv();
        EXPECT_EQ(one + " " + two, "one two");
        for (int i = 0; i < 1000 && made.protocol->log.size() < 2; ++i) co_await sleep(0);
        EXPECT_EQ(made.protocol->log, (std::vector<std::string>{"made", "lost null"}));
    });
}
