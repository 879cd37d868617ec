// SPDX-License-Identifier: MIT
#include <asyncio/detail/thread_door.hpp>
#include <asyncio/events.hpp>
#include <asyncio/testing/virtual_time.hpp>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

using asyncio::EventLoop;
using asyncio::EventLoopOwner;
using asyncio::LoopOptions;
using asyncio::RuntimeError;
using asyncio::SystemCalls;
using asyncio::ThreadSafeHandle;
using namespace std::chrono_literals;

namespace {

std::atomic<std::size_t> writes = 0;  // of any loop that uses counting_calls()
std::atomic<std::size_t> sleeps = 0;  // waits that may block
std::atomic<bool> fail_waits = false; // with EBADF

const SystemCalls& counting_calls() {
    static const SystemCalls calls = [] {
        SystemCalls table = SystemCalls::real();
        table.write = [](int descriptor, const void* buffer, std::size_t size) {
            writes.fetch_add(1, std::memory_order_relaxed);
            return ::write(descriptor, buffer, size);
        };
        table.epoll_wait = [](int epoll, epoll_event* events, int capacity, int timeout) {
            if (fail_waits) {
                errno = EBADF;
                return -1;
            }
            if (timeout != 0) sleeps.fetch_add(1, std::memory_order_relaxed);
            return ::epoll_wait(epoll, events, capacity, timeout);
        };
        return table;
    }();
    return calls;
}

void wait_until(const auto& condition) {
    while (!condition()) std::this_thread::yield();
}

} // namespace

TEST(ThreadDoor,
     four_threads_with_a_hundred_thousand_calls_each_lose_nothing_and_keep_their_order) {
    constexpr std::size_t thread_count = 4;
    constexpr std::size_t calls = 100'000;
    // Awake all the time, asleep whenever it can, and by turns.
    for (const int mode : {0, 1, 2}) {
        const EventLoopOwner loop = asyncio::new_event_loop();
        std::array<std::size_t, thread_count> next = {};
        std::size_t wrong = 0;
        std::size_t done = 0;
        struct Spin {
            EventLoop& loop;
            std::size_t& done;
            int mode;
            std::size_t turns = 0;
            void operator()() {
                if (done == thread_count) return;
                ++turns;
                if (mode == 2 && turns % 64 == 0) {
                    loop.call_later(std::chrono::microseconds(turns % 128), std::ref(*this));
                } else {
                    loop.call_soon(std::ref(*this));
                }
            }
        } spin{*loop, done, mode};
        if (mode != 1) loop->call_soon(std::ref(spin));
        std::vector<std::thread> threads;
        for (std::size_t thread = 0; thread < thread_count; ++thread) {
            threads.emplace_back([&, thread] {
                for (std::size_t i = 0; i < calls; ++i) {
                    loop->call_soon_threadsafe([&, thread, i] {
                        if (next[thread]++ != i) ++wrong;
                        if (i + 1 == calls && ++done == thread_count) loop->stop();
                    });
                    if (mode != 0 && i % 1000 == 0) std::this_thread::yield();
                }
            });
        }
        loop->run_forever();
        for (std::thread& thread : threads) thread.join();
        EXPECT_EQ(wrong, 0U);
        for (const std::size_t count : next) EXPECT_EQ(count, calls);
    }
}

TEST(ThreadDoor, a_sleeping_loop_is_woken_by_every_call_of_a_thread) {
    const EventLoopOwner loop =
        asyncio::new_event_loop(LoopOptions().system_calls(counting_calls()));
    sleeps = 0;
    std::atomic<int> seen = 0;
    std::thread thread([&] {
        std::size_t slept = 0;
        for (int i = 0; i < 2000; ++i) {
            if (i % 2 == 0) { // just before the loop falls asleep, or just after
                wait_until([&] { return sleeps.load() > slept; });
                slept = sleeps;
            }
            loop->call_soon_threadsafe([&] { seen.fetch_add(1); });
            wait_until([&] { return seen.load() == i + 1; }); // hangs if a wake-up is lost
        }
        loop->call_soon_threadsafe([&] { loop->stop(); });
    });
    loop->run_forever();
    thread.join();
    EXPECT_EQ(seen.load(), 2000);
}

TEST(ThreadDoor,
     a_sleeping_loop_is_woken_by_a_thread_while_a_timer_and_a_descriptor_are_waited_for) {
    const EventLoopOwner loop = asyncio::new_event_loop();
    std::array<int, 2> pipe = {};
    ASSERT_EQ(::pipe2(pipe.data(), O_CLOEXEC | O_NONBLOCK), 0);
    loop->call_later(1h, [] { ADD_FAILURE(); });
    loop->add_reader(pipe[0], [] { ADD_FAILURE(); });
    std::thread thread([&] { loop->call_soon_threadsafe([&] { loop->stop(); }); });
    loop->run_forever();
    thread.join();
    loop->close();
    ::close(pipe[0]);
    ::close(pipe[1]);
}

TEST(ThreadDoor, calls_of_threads_to_a_loop_that_is_awake_write_nothing) {
    const EventLoopOwner loop =
        asyncio::new_event_loop(LoopOptions().system_calls(counting_calls()));
    writes = 0;
    std::size_t ran = 0;
    loop->call_soon([&] {
        std::thread thread([&] {
            for (int i = 0; i < 1000; ++i) loop->call_soon_threadsafe([&] { ++ran; });
        });
        thread.join();
    });
    loop->stop();
    loop->run_forever();
    EXPECT_EQ(ran, 0U);
    loop->stop();
    loop->run_forever();
    EXPECT_EQ(ran, 1000U);
    EXPECT_EQ(writes.load(), 0U);
}

TEST(ThreadDoor, a_thread_wakes_a_sleeping_loop_with_one_write_for_many_calls) {
    const EventLoopOwner loop =
        asyncio::new_event_loop(LoopOptions().system_calls(counting_calls()));
    writes = 0;
    sleeps = 0;
    std::size_t ran = 0;
    std::thread thread([&] {
        for (int round = 0; round < 200; ++round) {
            const std::size_t slept = sleeps;
            std::atomic<bool> taken = false;
            // While the first of them runs, the others come: the loop is awake.
            std::atomic<int> entered = 0;
            loop->call_soon_threadsafe([&] {
                ++ran;
                wait_until([&] { return entered.load() == 100; });
                taken = true;
            });
            for (int i = 0; i < 100; ++i) {
                loop->call_soon_threadsafe([&] { ++ran; });
                ++entered;
            }
            wait_until([&] { return taken.load(); });
            wait_until([&] { return sleeps.load() > slept; });
        }
        loop->call_soon_threadsafe([&] { loop->stop(); });
    });
    loop->run_forever();
    thread.join();
    EXPECT_EQ(ran, 200U * 101);
    EXPECT_LE(writes.load(), sleeps.load()); // never two for one sleep
    EXPECT_GT(writes.load(), 0U);
    EXPECT_LT(writes.load(), 200U * 3);
}

TEST(ThreadDoor, a_callable_runs_and_is_destroyed_on_the_thread_of_the_loop) {
    const EventLoopOwner loop = asyncio::new_event_loop();
    const std::thread::id home = std::this_thread::get_id();
    struct Guard {
        explicit Guard(std::thread::id& where) : destroyed_on(&where) {}
        Guard(const Guard&) = delete;
        Guard& operator=(const Guard&) = delete;
        ~Guard() { *destroyed_on = std::this_thread::get_id(); }
        std::thread::id* destroyed_on;
    };
    std::thread::id ran_on, first_destroyed_on, second_destroyed_on;
    std::thread([&] {
        loop->call_soon_threadsafe([&, guard = std::make_unique<Guard>(first_destroyed_on)] {
            ran_on = std::this_thread::get_id();
        });
        ThreadSafeHandle handle = loop->call_soon_threadsafe(
            [guard = std::make_unique<Guard>(second_destroyed_on)] { ADD_FAILURE(); });
        handle.cancel();
        EXPECT_TRUE(handle.cancelled());
    }).join();
    loop->stop();
    loop->run_forever();
    EXPECT_EQ(ran_on, home);
    EXPECT_EQ(first_destroyed_on, home);
    EXPECT_EQ(second_destroyed_on, home);
}

TEST(ThreadDoor, a_cancel_from_another_thread_keeps_the_callback_from_running) {
    const EventLoopOwner loop = asyncio::new_event_loop();
    bool ran = false;
    ThreadSafeHandle handle = loop->call_soon_threadsafe([&] { ran = true; });
    std::thread([&] { handle.cancel(); }).join();
    EXPECT_TRUE(handle.cancelled());
    loop->stop();
    loop->run_forever();
    EXPECT_FALSE(ran);
    handle.cancel();
}

TEST(ThreadDoor, a_cancel_from_another_thread_waits_for_the_end_of_a_callback_that_runs) {
    for (int round = 0; round < 50; ++round) {
        const EventLoopOwner loop = asyncio::new_event_loop();
        std::atomic<bool> running = false;
        int written = 0; // not atomic: ThreadSanitizer sees whether cancel() orders it
        std::thread thread([&] {
            ThreadSafeHandle handle = loop->call_soon_threadsafe([&] {
                running = true;
                for (int i = 0; i < 20; ++i) {
                    std::this_thread::yield();
                    ++written;
                }
            });
            wait_until([&] { return running.load(); });
            handle.cancel();
            EXPECT_EQ(written, 20);
            EXPECT_FALSE(handle.cancelled()); // it has run
            loop->call_soon_threadsafe([&] { loop->stop(); });
        });
        loop->run_forever();
        thread.join();
    }
}

TEST(ThreadDoor, a_cancel_from_another_thread_returns_if_the_callback_throws) {
    const EventLoopOwner loop = asyncio::new_event_loop();
    std::atomic<bool> running = false;
    std::thread thread([&] {
        ThreadSafeHandle handle = loop->call_soon_threadsafe([&] {
            running = true;
            for (int i = 0; i < 20; ++i) std::this_thread::yield();
            throw asyncio::KeyboardInterrupt();
        });
        wait_until([&] { return running.load(); });
        handle.cancel();
    });
    EXPECT_THROW(loop->run_forever(), asyncio::KeyboardInterrupt);
    thread.join();
}

TEST(ThreadDoor, a_threadsafe_callback_may_cancel_itself) {
    const EventLoopOwner loop = asyncio::new_event_loop();
    ThreadSafeHandle handle;
    std::string log;
    handle = loop->call_soon_threadsafe([&, text = std::string(100, 'x')] {
        handle.cancel();
        log = text.substr(0, 2);
    });
    loop->stop();
    loop->run_forever();
    EXPECT_EQ(log, "xx");
}

TEST(ThreadDoor, who_asks_whether_a_callback_was_cancelled_waits_for_the_end_of_one_that_runs) {
    const EventLoopOwner loop = asyncio::new_event_loop();
    std::atomic<bool> has_begun = false;
    bool has_ended = false;
    std::thread thread([&] {
        const ThreadSafeHandle handle = loop->call_soon_threadsafe([&] {
            has_begun = true;
            std::this_thread::sleep_for(50ms);
            has_ended = true;
        });
        while (!has_begun) std::this_thread::yield();
        EXPECT_FALSE(handle.cancelled());
        EXPECT_TRUE(has_ended);
        loop->call_soon_threadsafe([&] { loop->stop(); });
    });
    loop->run_forever();
    thread.join();
}

// As in CPython, where all of them append to one queue.
TEST(ThreadDoor, callbacks_run_in_the_order_of_the_calls_by_whatever_door_they_come) {
    const EventLoopOwner loop = asyncio::new_event_loop();
    std::string log;
    const auto say = [&](char what) { return [&log, what] { log += what; }; };
    const auto from_a_thread = [&](char what) {
        std::thread([&] { loop->call_soon_threadsafe(say(what)); }).join();
    };
    const auto call_all = [&] {
        loop->call_soon_threadsafe(say('a'));
        loop->call_soon(say('b'));
        from_a_thread('c');
        loop->call_soon(say('d'));
        from_a_thread('e');
        loop->call_soon_threadsafe(say('f'));
    };
    call_all(); // before the loop runs
    loop->stop();
    loop->run_forever();
    EXPECT_EQ(log, "abcdef");
    log.clear();
    loop->call_soon(call_all); // and while it does
    loop->call_soon([&] { loop->call_soon([&] { loop->stop(); }); });
    loop->run_forever();
    EXPECT_EQ(log, "abcdef");
}

TEST(ThreadDoor, a_race_of_cancel_and_run_across_threads_either_runs_or_not) {
    constexpr int rounds = 20'000;
    const EventLoopOwner loop = asyncio::new_event_loop();
    int ran = 0;
    int called_off = 0;
    std::thread thread([&] {
        for (int i = 0; i < rounds; ++i) {
            ThreadSafeHandle handle = loop->call_soon_threadsafe([&] { ++ran; });
            if (i % 3 == 0) std::this_thread::yield();
            handle.cancel();
            if (handle.cancelled()) ++called_off;
        }
        loop->call_soon_threadsafe([&] { loop->stop(); });
    });
    loop->run_forever();
    thread.join();
    EXPECT_EQ(ran + called_off, rounds);
}

TEST(ThreadDoor, a_loop_that_is_closed_while_threads_call_refuses_them_with_a_runtime_error) {
    std::size_t refused = 0;
    for (int round = 0; round < 1000; ++round) {
        const EventLoopOwner loop = asyncio::new_event_loop();
        std::atomic<std::size_t> made = 0;
        std::atomic<std::size_t> destroyed = 0;
        struct Counted {
            explicit Counted(std::atomic<std::size_t>& count) : destroyed(&count) {}
            Counted(const Counted&) = delete;
            Counted& operator=(const Counted&) = delete;
            ~Counted() { destroyed->fetch_add(1); }
            std::atomic<std::size_t>* destroyed;
        };
        std::atomic<std::size_t> refusals = 0;
        const auto produce = [&] {
            try {
                for (;;) {
                    ++made;
                    loop->call_soon_threadsafe([c = std::make_unique<Counted>(destroyed)] {});
                    // Not more than can be destroyed at the end of the round.
                    if (made > 2000) std::this_thread::yield();
                }
            } catch (const RuntimeError& error) {
                EXPECT_EQ(std::string(error.what()).find("Event loop is closed"), 0U);
                ++refusals;
            }
        };
        std::thread one(produce);
        std::thread two(produce);
        if (round % 2 == 0) {
            loop->call_later(std::chrono::microseconds(round % 50), [&] { loop->stop(); });
            loop->run_forever();
        }
        loop->close();
        one.join();
        two.join();
        refused += refusals;
        EXPECT_EQ(destroyed.load(), made.load());
    }
    EXPECT_EQ(refused, 2000U);
}

TEST(ThreadDoor, a_loop_may_be_destroyed_as_soon_as_the_last_call_of_a_thread_has_been_taken) {
    for (int round = 0; round < 1000; ++round) {
        auto* loop = asyncio::new_event_loop().release();
        std::thread thread([loop] { loop->call_soon_threadsafe([loop] { loop->stop(); }); });
        loop->run_forever();
        asyncio::detail::CloseLoop()(loop); // the thread may still be in its wake-up
        thread.join();
    }
}

// A wait that failed leaves the door as if the loop slept; what comes then owes it a wake-up.
TEST(ThreadDoor, a_thread_that_calls_after_a_wait_has_failed_does_not_keep_the_loop_from_closing) {
    const EventLoopOwner loop =
        asyncio::new_event_loop(LoopOptions().system_calls(counting_calls()));
    fail_waits = true;
    EXPECT_THROW(loop->run_forever(), std::system_error);
    fail_waits = false;
    bool ran = false;
    std::thread([&] {
        loop->call_soon_threadsafe([&] {
            ran = true;
            loop->stop();
        });
    }).join();
    loop->run_forever();
    EXPECT_TRUE(ran);
    loop->close();
}

TEST(ThreadDoor, a_thread_wakes_a_loop_in_virtual_time_that_waits_for_a_descriptor) {
    asyncio::testing::VirtualClock clock;
    const EventLoopOwner loop =
        asyncio::new_event_loop(LoopOptions().clock(clock).system_calls(counting_calls()));
    std::array<int, 2> pipe = {};
    ASSERT_EQ(::pipe2(pipe.data(), O_CLOEXEC | O_NONBLOCK), 0);
    loop->add_reader(pipe[0], [] { ADD_FAILURE(); });
    sleeps = 0;
    std::thread thread([&] {
        wait_until([&] { return sleeps.load() > 0; });
        loop->call_soon_threadsafe([&] { loop->stop(); });
    });
    loop->run_forever();
    thread.join();
    loop->close();
    ::close(pipe[0]);
    ::close(pipe[1]);
}
