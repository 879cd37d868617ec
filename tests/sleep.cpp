// SPDX-License-Identifier: MIT
#include <asyncio/asyncio.hpp>
#include <asyncio/testing/virtual_time.hpp>

#include "support/reports.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

using asyncio::Coro;
using asyncio::create_task;
using asyncio::get_running_loop;
using asyncio::RunOptions;
using asyncio::testing::VirtualClock;
using std::chrono::nanoseconds;
using namespace std::chrono_literals;

namespace {

// How long the sleep took, in virtual time.
template <class D> nanoseconds time_of_sleep(D delay) {
    const auto main = [](D d) -> Coro<nanoseconds> {
        const auto begin = get_running_loop().time();
        co_await asyncio::sleep(d);
        co_return get_running_loop().time() - begin;
    };
    VirtualClock clock;
    return asyncio::run(main(delay), RunOptions().clock(clock));
}

TEST(Sleep, waits_for_its_delay) {
    EXPECT_EQ(time_of_sleep(2), 2s);
    EXPECT_EQ(time_of_sleep(2s), 2s);
    EXPECT_EQ(time_of_sleep(1500ms), 1500ms);
    EXPECT_EQ(time_of_sleep(1ns), 1ns);
    EXPECT_EQ(time_of_sleep(24h), 24h);
}

TEST(Sleep, takes_numbers_of_any_width_and_sign) {
    EXPECT_EQ(time_of_sleep(7u), 7s);
    EXPECT_EQ(time_of_sleep(7ull), 7s);
    EXPECT_EQ(time_of_sleep(static_cast<unsigned char>(200)), 200s);
    EXPECT_EQ(time_of_sleep(static_cast<short>(30'000)), 30'000s);
    EXPECT_EQ(time_of_sleep(static_cast<signed char>(100)), 100s);
    EXPECT_EQ(time_of_sleep(static_cast<short>(-1)), 0s);
    EXPECT_EQ(time_of_sleep(std::chrono::duration<unsigned, std::milli>(8)), 8ms);
    EXPECT_EQ(time_of_sleep(std::chrono::duration<unsigned, std::nano>(8)), 8ns);
    EXPECT_EQ(time_of_sleep(std::chrono::duration<signed char, std::ratio<60>>(2)), 2min);
    EXPECT_GT(time_of_sleep(std::chrono::duration<std::uint64_t, std::nano>(UINT64_MAX)), 1h);
}

TEST(Sleep, takes_fractions_of_seconds) {
    EXPECT_EQ(time_of_sleep(0.25), 250ms);
    EXPECT_EQ(time_of_sleep(0.1), 100ms);
    EXPECT_EQ(time_of_sleep(0.5f), 500ms);
    EXPECT_EQ(time_of_sleep(std::chrono::duration<double>(1.5)), 1500ms);
    EXPECT_EQ(time_of_sleep(std::chrono::duration<double, std::milli>(2.5)), 2500us);
}

TEST(Sleep, rounds_up_what_is_below_a_nanosecond) {
    EXPECT_EQ(time_of_sleep(1e-10), 1ns);
    EXPECT_EQ(time_of_sleep(1.2e-9), 2ns);
    EXPECT_EQ(time_of_sleep(std::chrono::duration<int, std::pico>(1)), 1ns);
}

TEST(Sleep, of_nothing_or_less_takes_no_time) {
    EXPECT_EQ(time_of_sleep(0), 0ns);
    EXPECT_EQ(time_of_sleep(0.0), 0ns);
    EXPECT_EQ(time_of_sleep(-0.0), 0ns);
    EXPECT_EQ(time_of_sleep(-1), 0ns);
    EXPECT_EQ(time_of_sleep(-1e300), 0ns);
    EXPECT_EQ(time_of_sleep(-1h), 0ns);
    EXPECT_EQ(time_of_sleep(-std::numeric_limits<double>::infinity()), 0ns);
}

TEST(Sleep, of_nothing_lets_the_others_run_once) {
    const auto main = []() -> Coro<> {
        std::string log;
        const auto note = [&log](char c) { log += c; };
        for (const int delay : {0, -1}) {
            get_running_loop().call_soon(note, 'a');
            get_running_loop().call_soon([&] { get_running_loop().call_soon(note, 'x'); });
            log += '(';
            co_await asyncio::sleep(delay);
            log += ')';
            co_await asyncio::sleep(0);
        }
        EXPECT_EQ(log, "(a)x(a)x");
    };
    asyncio::run(main());
}

TEST(Sleep, of_a_very_long_time_is_endless) {
    const auto main = []() -> Coro<> {
        const auto a = create_task(asyncio::sleep(std::numeric_limits<double>::infinity()));
        const auto b = create_task(asyncio::sleep(1e300));
        const auto c = create_task(asyncio::sleep(std::chrono::hours::max()));
        const auto d = create_task(asyncio::sleep(std::numeric_limits<unsigned long long>::max()));
        co_await asyncio::sleep(24h * 365 * 100);
        for (const asyncio::AnyTask& task :
             {asyncio::AnyTask(a), asyncio::AnyTask(b), asyncio::AnyTask(c), asyncio::AnyTask(d)}) {
            EXPECT_FALSE(task.done());
        }
    };
    VirtualClock clock;
    asyncio::run(main(), RunOptions().clock(clock));
}

TEST(Sleep, of_not_a_number_is_refused) {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    EXPECT_THROW(static_cast<void>(asyncio::sleep(nan)), asyncio::ValueError);
    EXPECT_THROW(static_cast<void>(asyncio::sleep(std::chrono::duration<float>(std::nanf("")))),
                 asyncio::ValueError);
    EXPECT_THROW(static_cast<void>(asyncio::sleep(nan, 1)), asyncio::ValueError);
}

TEST(Sleep, gives_its_result) {
    const auto main = []() -> Coro<> {
        const int number = co_await asyncio::sleep(1, 42);
        EXPECT_EQ(number, 42);
        const std::string text = "some text that is too long to be stored in place";
        const std::string word = co_await asyncio::sleep(0, text);
        EXPECT_EQ(word, text);
        auto pointer = std::make_unique<int>(7);
        const auto moved = co_await asyncio::sleep(1s, std::move(pointer));
        EXPECT_EQ(*moved, 7);
        const std::string literal = co_await asyncio::sleep(-1, "literal");
        EXPECT_EQ(literal, "literal");
    };
    VirtualClock clock;
    asyncio::run(main(), RunOptions().clock(clock));
}

TEST(Sleep, counts_from_the_await_on) {
    const auto main = [](VirtualClock& clock) -> Coro<> {
        auto sleeping = asyncio::sleep(1);
        clock.advance(10);
        const auto begin = get_running_loop().time();
        co_await sleeping;
        EXPECT_EQ(get_running_loop().time() - begin, 1s);
    };
    VirtualClock clock;
    asyncio::run(main(clock), RunOptions().clock(clock));
}

TEST(Sleep, is_never_early_on_the_real_clock) {
    const auto main = []() -> Coro<> {
        for (const auto delay : {1us, 300us, 999us, 1000us, 1001us, 3000us}) {
            for (int i = 0; i < 5; ++i) {
                const auto begin = std::chrono::steady_clock::now();
                co_await asyncio::sleep(delay);
                EXPECT_GE(std::chrono::steady_clock::now() - begin, delay);
            }
        }
    };
    asyncio::run(main());
}

TEST(Sleep, of_equal_length_ends_in_the_order_of_the_awaits) {
    const auto main = []() -> Coro<> {
        std::vector<int> log;
        const auto child = [](std::vector<int>& numbers, int number) -> Coro<> {
            co_await asyncio::sleep(1);
            numbers.push_back(number);
        };
        for (int i = 0; i < 20; ++i) create_task(child(log, i));
        co_await asyncio::sleep(2);
        for (int i = 0; i < 20; ++i) EXPECT_EQ(log[static_cast<std::size_t>(i)], i);
    };
    VirtualClock clock;
    asyncio::run(main(), RunOptions().clock(clock));
}

TEST(Sleep, that_is_cancelled_leaves_no_timer_in_the_loop) {
    const auto main = []() -> Coro<> {
        auto& timers = get_running_loop().core().timers;
        std::vector<asyncio::Task<>> tasks;
        for (int i = 0; i < 10; ++i) {
            tasks.push_back(create_task(asyncio::sleep(1000 + i % 3)));
        }
        const auto with_result = create_task(asyncio::sleep(1000, 1));
        co_await asyncio::sleep(0);
        EXPECT_FALSE(timers.empty());
        for (const auto& task : tasks) task.cancel();
        with_result.cancel();
        EXPECT_TRUE(timers.empty());
        co_await asyncio::sleep(0);
        for (const auto& task : tasks) EXPECT_TRUE(task.cancelled());
        EXPECT_TRUE(with_result.cancelled());
    };
    VirtualClock clock;
    asyncio::run(main(), RunOptions().clock(clock));
}

TEST(Sleep, as_a_result_gives_a_cancel_without_throwing) {
    const auto main = []() -> Coro<> {
        const auto child = []() -> Coro<std::string> {
            auto slept = co_await asyncio::as_result(asyncio::sleep(1000));
            EXPECT_TRUE(slept.failed_with<asyncio::CancelledError>());
            auto again = co_await asyncio::as_result(asyncio::sleep(1, std::string("word")));
            co_return again.value();
        };
        const auto task = create_task(child());
        co_await asyncio::sleep(0);
        task.cancel();
        const std::string word = co_await task;
        EXPECT_EQ(word, "word");
    };
    VirtualClock clock;
    asyncio::run(main(), RunOptions().clock(clock));
}

TEST(Sleep, takes_a_delay_that_is_handed_on) {
    VirtualClock clock;
    const auto body = [](VirtualClock& c, asyncio::Delay delay) -> asyncio::Coro<> {
        const std::int64_t begin = c.now_ns();
        co_await asyncio::sleep(delay);
        EXPECT_EQ(c.now_ns() - begin, 2'000'000'000);
    };
    asyncio::run(body(clock, 2), asyncio::RunOptions().clock(clock));
}

TEST(Sleep, is_destroyed_with_its_loop) {
    VirtualClock clock;
    auto loop = asyncio::new_event_loop(asyncio::LoopOptions().clock(clock));
    const asyncio_test::Reports reports(*loop);
    const auto a = create_task(*loop, asyncio::detail::await_it(asyncio::sleep(1000)));
    const auto b = create_task(
        *loop, asyncio::detail::await_it(asyncio::sleep(1000, std::make_unique<int>(1))));
    const auto due = create_task(*loop, asyncio::detail::await_it(asyncio::sleep(1)));
    loop->call_later(1, [&] { loop->stop(); }); // the timer of `due` is run, but not its task
    loop->run_forever();
    EXPECT_FALSE(due.done());
    loop.reset();
    EXPECT_TRUE(a.cancelled());
    EXPECT_TRUE(b.cancelled());
    EXPECT_TRUE(due.cancelled());
    EXPECT_EQ(reports.count("Task was destroyed but it is pending!"), 3u) << reports.text();
}

} // namespace
