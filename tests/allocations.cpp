// SPDX-License-Identifier: MIT
// How many allocations things cost. AddressSanitizer counts them (its builds leave out the frame
// pool, so that it sees each frame); without it, the pool tells whether it has grown.
#include "support/in_virtual_time.hpp"

#include <asyncio/asyncio.hpp>
#include <asyncio/detail/frame_pool.hpp>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#define COUNTS_ALLOCATIONS 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define COUNTS_ALLOCATIONS 1
#endif
#endif
#ifndef COUNTS_ALLOCATIONS
#define COUNTS_ALLOCATIONS 0
#endif
#if COUNTS_ALLOCATIONS
// As in <sanitizer/allocator_interface.h>, which GCC does not install.
extern "C" int __sanitizer_install_malloc_and_free_hooks(void (*)(const volatile void*,
                                                                  std::size_t),
                                                         void (*)(const volatile void*));
#endif

using namespace std::chrono_literals;
using asyncio::as_result;
using asyncio::Coro;
using asyncio::create_future;
using asyncio::create_task;
using asyncio::get_running_loop;
using asyncio::sleep;
using asyncio_test::in_virtual_time;

namespace {

Coro<int> child(int value) { co_return value; }
Coro<> yielding() { co_await sleep(0); }

} // namespace

#if COUNTS_ALLOCATIONS

namespace {

std::size_t counted = 0; // the tests that count have one thread
void count_one(const volatile void*, std::size_t) { ++counted; }
void count_none(const volatile void*) {}

std::size_t allocations() {
    static const bool installed =
        __sanitizer_install_malloc_and_free_hooks(count_one, count_none) > 0;
    EXPECT_TRUE(installed);
    return counted;
}

} // namespace

TEST(Allocations, the_counter_counts) {
    const std::size_t before = allocations();
    const auto shared = std::make_shared<int>(1);
    EXPECT_EQ(shared.use_count(), 1);
    EXPECT_EQ(allocations() - before, 1U);
}

TEST(Allocations, an_await_allocates_nothing_but_the_frame_of_a_child) {
    in_virtual_time([]() -> Coro<> {
        co_await sleep(1s); // the heap of timers has its room now
        auto done = create_future<int>();
        done.set_result(1);

        std::size_t before = allocations();
        co_await sleep(0);
        EXPECT_EQ(allocations() - before, 0U) << "yield";

        before = allocations();
        co_await sleep(1s);
        EXPECT_EQ(allocations() - before, 0U) << "sleep";

        before = allocations();
        co_await done;
        EXPECT_EQ(allocations() - before, 0U) << "a done future";

        before = allocations();
        static_cast<void>(co_await as_result(sleep(1s)));
        EXPECT_EQ(allocations() - before, 0U) << "as_result";

        before = allocations();
        co_await child(1);
        EXPECT_EQ(allocations() - before, 1U) << "a child";

        before = allocations();
        co_await std::suspend_never();
        EXPECT_EQ(allocations() - before, 0U) << "a foreign awaiter that is ready";

        auto pending = create_future<int>();
        get_running_loop().call_soon([&] {
            before = allocations();
            pending.set_result(1);
        });
        co_await pending;
        EXPECT_EQ(allocations() - before, 0U) << "waking up from a future";
    });
}

TEST(Allocations, a_task_takes_its_frame_and_its_state) {
    in_virtual_time([]() -> Coro<> {
        std::size_t before = allocations();
        auto task = create_task(child(1));
        EXPECT_EQ(allocations() - before, 2U);
        co_await task;
        EXPECT_EQ(allocations() - before, 2U) << "await";

        before = allocations();
        auto from_function = create_task(child, 1);
        EXPECT_EQ(allocations() - before, 2U);
        co_await from_function;

        const long state = 5;
        before = allocations();
        auto from_callable = create_task([state]() -> Coro<long> { co_return state; });
        EXPECT_EQ(allocations() - before, 2U);
        co_await from_callable;
        EXPECT_EQ(allocations() - before, 2U);

        before = allocations();
        auto yields = create_task(yielding());
        co_await yields;
        EXPECT_EQ(allocations() - before, 2U);
    });
}

TEST(Allocations, futures_and_callbacks_take_one_each) {
    in_virtual_time([]() -> Coro<> {
        std::size_t before = allocations();
        auto future = create_future<int>();
        EXPECT_EQ(allocations() - before, 1U);
        before = allocations();
        future.add_done_callback([] {});
        EXPECT_EQ(allocations() - before, 1U);
        before = allocations();
        future.set_result(1);
        co_await sleep(0);
        EXPECT_EQ(allocations() - before, 0U);
        before = allocations();
        get_running_loop().call_soon([] {});
        EXPECT_EQ(allocations() - before, 1U);
    });
}

TEST(Allocations, a_timer_takes_one_and_gives_it_back_when_cancelled) {
    in_virtual_time([]() -> Coro<> {
        asyncio::EventLoop& loop = get_running_loop();
        loop.call_later(1s, [] {}).cancel(); // the heap of timers has its room now

        std::size_t before = allocations();
        for (int i = 0; i < 10; ++i) loop.call_later(1s, [] {}).cancel();
        EXPECT_EQ(allocations() - before, 10U) << "armed and cancelled";

        before = allocations();
        bool fired = false;
        loop.call_later(1s, [&fired] { fired = true; });
        co_await sleep(2s);
        EXPECT_TRUE(fired);
        EXPECT_EQ(allocations() - before, 1U) << "armed and fired";
    });
}

TEST(Allocations, waiting_for_a_lock_an_event_or_a_queue_takes_none) {
    in_virtual_time([]() -> Coro<> {
        asyncio::Lock lock;
        asyncio::Semaphore semaphore(0);
        asyncio::Event event;
        asyncio::Queue<int> queue(1);
        std::size_t before = 0;
        std::size_t waits = 0;
        const auto waiter = [&](int round) -> Coro<> {
            co_await lock.acquire();
            co_await semaphore.acquire();
            co_await event.wait();
            const int item = co_await queue.get();
            waits += static_cast<std::size_t>(item);
            co_await queue.put(round);
            co_await queue.put(round); // full
            co_await queue.join();
        };
        for (int round = 0; round < 2; ++round) {
            before = allocations();
            co_await lock.acquire();
            auto task = create_task(waiter(round));
            co_await sleep(0);
            lock.release();
            co_await sleep(0);
            semaphore.release();
            co_await sleep(0);
            event.set();
            co_await sleep(0);
            co_await queue.put(1);
            co_await sleep(0);
            co_await sleep(0);
            const int first = co_await queue.get();
            const int second = co_await queue.get();
            EXPECT_EQ(first + second, 2 * round);
            for (int i = 0; i < 3; ++i) queue.task_done();
            co_await task;
            lock.release();
            event.clear();
            // In the second round: the task's frame and its state. A Queue keeps its room.
            if (round == 1) {
                EXPECT_EQ(allocations() - before, 2U);
            }
        }
        EXPECT_EQ(waits, 2U);
    });
}

TEST(Allocations, a_wait_on_a_condition_takes_its_frame) {
    in_virtual_time([]() -> Coro<> {
        asyncio::Condition condition;
        const auto waiter = [&]() -> Coro<> {
            co_await condition.acquire();
            co_await condition.wait();
            condition.release();
        };
        auto task = create_task(waiter());
        const std::size_t before = allocations();
        co_await sleep(0);
        co_await condition.acquire();
        condition.notify();
        condition.release();
        co_await task;
        EXPECT_EQ(allocations() - before, 1U);
    });
}

TEST(Allocations, a_limit_takes_its_frame) {
    in_virtual_time([]() -> Coro<> {
        co_await sleep(1s); // the heap of timers has its room now

        std::size_t before = allocations();
        co_await asyncio::timeout(10s, yielding);
        EXPECT_EQ(allocations() - before, 2U) << "timeout, and the body's";

        before = allocations();
        co_await asyncio::wait_for(yielding(), 10s);
        EXPECT_EQ(allocations() - before, 2U) << "wait_for, and what it waits for";

        before = allocations();
        co_await asyncio::timeout(10s, [](asyncio::Timeout& limit) -> Coro<> {
            limit.reschedule(get_running_loop().time() + 20s);
            co_await sleep(0);
        });
        EXPECT_EQ(allocations() - before, 2U) << "set to another time";
    });
}

TEST(Allocations, a_group_takes_one_for_each_task_beside_the_task_and_a_gather_one_for_all) {
    in_virtual_time([]() -> Coro<> {
        std::size_t before = allocations();
        co_await asyncio::task_group([](asyncio::TaskGroup& group) -> Coro<> {
            for (int i = 0; i < 10; ++i) group.create_task(yielding());
            co_return;
        });
        EXPECT_EQ(allocations() - before, 2U + 10 * 3U);

        std::vector<Coro<>> many;
        many.reserve(10);
        for (int i = 0; i < 10; ++i) many.push_back(yielding());
        before = allocations();
        co_await asyncio::gather(std::move(many));
        // The frames are there; states, the gather, its children, the vector of results.
        EXPECT_EQ(allocations() - before, 10U + 3U);
    });
}

TEST(Allocations, a_datagram_takes_none_but_for_the_string_of_who_wants_one) {
    struct Counts final : asyncio::DatagramProtocol {
        int received = 0;
        void datagram_received(std::string_view, const asyncio::Address&) override { ++received; }
    };
    asyncio::run([]() -> Coro<> {
        const auto options =
            asyncio::DatagramOptions().local_addr(asyncio::Address("127.0.0.1", 0));
        auto endpoint = co_await asyncio::open_datagram_endpoint(options);
        auto made = co_await asyncio::create_datagram_endpoint(
            [] { return std::make_shared<Counts>(); }, options);
        const asyncio::Address self = endpoint.sockname();
        const std::string data(100, 'x');
        std::vector<char> room(16 * 200);
        std::vector<asyncio::DatagramSlot> slots;
        for (std::size_t i = 0; i < 16; ++i)
            slots.emplace_back(asyncio::WritableBytes(room.data() + i * 200, 200));
        const std::vector<asyncio::OutgoingDatagram> outgoing(
            16, asyncio::OutgoingDatagram{data, self});
        std::size_t total = 0;
        for (int round = 0; round < 3; ++round) {
            std::size_t before = allocations();
            co_await endpoint.sendto(data, self);
            const asyncio::ReceivedInto got = co_await endpoint.recvfrom_into(room);
            total += got.count;
            const std::size_t one = allocations() - before;

            before = allocations();
            co_await endpoint.sendto(data, self);
            const std::string text = co_await endpoint.recv();
            total += text.size();
            const std::size_t string = allocations() - before;

            before = allocations();
            const std::size_t sent = co_await endpoint.sendmany(outgoing);
            std::size_t received = 0;
            while (received < sent) received += co_await endpoint.recvmany(slots);
            total += received;
            const std::size_t batch = allocations() - before;

            before = allocations();
            const int already = made.protocol->received;
            for (int i = 0; i < 10; ++i) made.transport.sendto(data, made.transport.sockname());
            while (made.protocol->received < already + 10) co_await sleep(0);
            const std::size_t callbacks = allocations() - before;
            if (round == 0) continue; // attaching, and the loop's block
            EXPECT_EQ(one, 0U) << "into a buffer";
            EXPECT_EQ(string, 1U) << "the string";
            EXPECT_EQ(batch, 0U) << "a batch";
            EXPECT_EQ(callbacks, 0U) << "a protocol";
        }
        EXPECT_EQ(total, 3 * 216U);
        made.transport.close();
        co_await sleep(0);
    });
}

TEST(Allocations, cancelling_takes_the_exception_and_nothing_else) {
    in_virtual_time([]() -> Coro<> {
        auto sleeps = []() -> Coro<> { co_await sleep(1h); };
        auto does_not_throw = []() -> Coro<> { static_cast<void>(co_await as_result(sleep(1h))); };
        co_await sleep(1s);

        auto task = create_task(sleeps());
        co_await sleep(0);
        std::size_t before = allocations();
        task.cancel();
        EXPECT_EQ(allocations() - before, 0U) << "to ask for it";
        while (!task.done()) co_await sleep(0);
        EXPECT_EQ(allocations() - before, 1U) << "to deliver it";

        auto quiet = create_task(does_not_throw());
        co_await sleep(0);
        before = allocations();
        quiet.cancel();
        while (!quiet.done()) co_await sleep(0);
        EXPECT_EQ(allocations() - before, 1U) << "as a result";
    });
}

namespace {

// Answers each message with the next one, and counts what a thousand of them cost.
template <class Base> struct Bouncing : Base {
    explicit Bouncing(bool* is_done = nullptr) : done(is_done) {}
    bool* done;
    asyncio::Transport transport;
    std::size_t messages = 0;
    std::size_t before = 0;
    std::size_t cost = 0;

    void connection_made(asyncio::Transport given) override { transport = given; }
    void bounce(std::string_view data) {
        ++messages;
        if (messages == 100) before = allocations();
        if (messages == 1100) {
            cost = allocations() - before;
            if (done != nullptr) {
                *done = true;
                return;
            }
        }
        transport.write(data);
    }
};
struct Bouncer : Bouncing<asyncio::Protocol> {
    using Bouncing::Bouncing;
    void data_received(std::string_view data) override { bounce(data); }
};
struct BufferedBouncer : Bouncing<asyncio::BufferedProtocol> {
    using Bouncing::Bouncing;
    char buffer[1000];
    asyncio::WritableBytes get_buffer(std::ptrdiff_t) override { return buffer; }
    void buffer_updated(std::size_t count) override { bounce({buffer, count}); }
};

} // namespace

TEST(Allocations, a_message_of_a_transport_costs_none) {
    const auto loop = asyncio::new_event_loop();
    bool done = false;
    const auto server = asyncio::run_until_complete(
        *loop, asyncio::create_server([] { return std::make_unique<Bouncer>(); }, "127.0.0.1", 0));
    const auto client = asyncio::run_until_complete(
        *loop, asyncio::create_connection([&] { return std::make_unique<BufferedBouncer>(&done); },
                                          "127.0.0.1", server.sockets().at(0).port()));
    client.transport.write("a message, which is sent to and fro");
    asyncio::run_until_complete(*loop, [](bool& is_done) -> Coro<> {
        while (!is_done) co_await sleep(0);
    }(done));
    EXPECT_EQ(client.protocol->cost, 0U);
    EXPECT_EQ(client.protocol->messages, 1100U);
}

TEST(Allocations, a_message_of_a_stream_costs_none_but_the_string_of_who_wants_one) {
    asyncio::run([]() -> Coro<> {
        auto both = asyncio::Socket::pair();
        asyncio::ConnectionOptions options;
        options.sock(std::move(both.first));
        auto ours = co_await asyncio::open_connection(options);
        options.sock(std::move(both.second));
        auto theirs = co_await asyncio::open_connection(options);
        auto echo =
            create_task([](asyncio::StreamReader reader, asyncio::StreamWriter writer) -> Coro<> {
                for (;;) {
                    const std::string_view data = co_await reader.peek();
                    if (data.empty()) break;
                    writer.write(data);
                    reader.consume(data.size());
                    co_await writer.drain();
                }
            }(theirs.first, theirs.second));
        // Longer than what a string keeps in itself.
        const std::string_view sent =
            "a message of 64 bytes, which goes to and fro and to and fro..";
        char buffer[200];
        std::size_t before = 0;
        std::size_t got = 0;
        for (int round = 0; round < 1100; ++round) {
            if (round == 100) before = allocations();
            ours.second.write(sent);
            got += co_await ours.first.read_into(buffer);
            co_await ours.second.drain();
        }
        EXPECT_EQ(allocations() - before, 0U);
        EXPECT_EQ(got, 1100 * sent.size());
        before = allocations();
        ours.second.write(sent);
        const std::string text = co_await ours.first.readexactly(sent.size());
        EXPECT_EQ(allocations() - before, 1U);
        EXPECT_EQ(text, sent);
        ours.second.close();
        co_await echo;
    });
}

#endif

TEST(Allocations, the_pool_does_not_grow_with_work_that_ends) {
    in_virtual_time([]() -> Coro<> {
        auto round = []() -> Coro<> {
            co_await child(1);
            co_await sleep(1ns);
            co_await create_task(yielding());
            co_await asyncio::gather(yielding(), child(2));
            static_cast<void>(co_await as_result(child(3)));
            auto future = create_future<int>();
            future.add_done_callback([] {});
            future.set_result(1);
            co_await std::move(future);
            co_await asyncio::timeout(10s, yielding);
            co_await asyncio::wait_for(yielding(), 10s);
            co_await asyncio::task_group([](asyncio::TaskGroup& group) -> Coro<> {
                group.create_task(yielding());
                co_await group.create_task(child(4));
            });
        };
        asyncio::Queue<int> queue;
        const auto send_some = [&]() -> Coro<> {
            for (int i = 0; i < 7; ++i) co_await queue.put(i);
            for (int i = 0; i < 7; ++i) static_cast<void>(queue.get_nowait());
        };
        for (int i = 0; i < 100; ++i) {
            co_await round();
            co_await send_some();
        }
        const std::size_t before = asyncio::detail::pool_mapped_bytes();
        for (int i = 0; i < 5'000; ++i) {
            co_await round();
            co_await send_some();
        }
        EXPECT_EQ(asyncio::detail::pool_mapped_bytes(), before);
    });
}
