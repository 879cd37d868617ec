// SPDX-License-Identifier: MIT
#include "support/in_virtual_time.hpp"

#include <asyncio/asyncio.hpp>
#include <asyncio/testing/virtual_time.hpp>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <set>
#include <source_location>
#include <string>
#include <vector>

using namespace std::chrono_literals;
using asyncio::Coro;
using asyncio::create_future;
using asyncio::create_task;
using asyncio::get_running_loop;
using asyncio::RunOptions;
using asyncio::testing::VirtualClock;
using asyncio_test::in_virtual_time;

namespace {

const std::string file = std::source_location::current().file_name();
std::string at(int line) { return file + ":" + std::to_string(line); }

template <class Main> std::string deadlock_of(Main main) {
    try {
        in_virtual_time(main);
    } catch (const asyncio::DeadlockError& error) {
        return error.what();
    }
    return "none";
}

} // namespace

// --- the clock ---

TEST(VirtualTime, stops_at_the_ends_of_time) {
    VirtualClock clock;
    clock.advance(std::chrono::nanoseconds(INT64_MAX));
    EXPECT_EQ(clock.now_ns(), INT64_MAX);
    clock.advance(1s);
    EXPECT_EQ(clock.now_ns(), INT64_MAX);
    clock.advance(-std::chrono::nanoseconds(INT64_MAX));
    EXPECT_EQ(clock.now_ns(), 0);
    clock.advance(-std::chrono::nanoseconds(INT64_MAX));
    clock.advance(-1s);
    EXPECT_EQ(clock.now_ns(), INT64_MIN);
}

// --- deadlocks ---

namespace {

int wait_line = 0;
int made_line[2] = {};
// clang-format off
Coro<> waits(asyncio::Future<> future) { wait_line = __LINE__; co_await future; }
Coro<> locks(asyncio::Future<> future) { co_await waits(future); }
constexpr int locks_line = __LINE__ - 1;
// clang-format on

} // namespace

TEST(Deadlock, lists_the_tasks_that_wait_in_the_order_in_which_they_were_made) {
    int main_line = 0;
    const auto main = [&]() -> Coro<> {
        const auto never = create_future();
        // clang-format off
        const auto first = create_task(waits(never)); made_line[0] = __LINE__;
        const auto second = create_task(locks(never)); made_line[1] = __LINE__;
        first.set_name("first");
        second.set_name("second");
        asyncio::current_task().set_name("main");
        main_line = __LINE__; co_await first;
        // clang-format on
    };
    const std::string text = deadlock_of(main);
    const std::string begin =
        "deadlock: nothing is ready and no timer is armed, so that virtual time could never "
        "advance; these tasks wait for what can never come:\n"
        "  <Task pending name='main' created at ";
    EXPECT_TRUE(text.starts_with(begin)) << text;
    const std::size_t line_end = text.find('\n', begin.size());
    ASSERT_NE(line_end, std::string::npos);
    EXPECT_EQ(
        text.substr(line_end),
        "\n    " + at(main_line) +
            " in Deadlock_lists_the_tasks_that_wait_in_the_order_in_which_they_were_made_Test::"
            "TestBody::<lambda>\n"
            "  <Task pending name='first' created at " +
            at(made_line[0]) + ">\n    " + at(wait_line) +
            " in waits\n"
            "  <Task pending name='second' created at " +
            at(made_line[1]) + ">\n    " + at(wait_line) + " in waits\n    " + at(locks_line) +
            " in locks");
}

TEST(Deadlock, of_a_loop_without_tasks_lists_none) {
    VirtualClock clock;
    const auto loop = asyncio::new_event_loop(asyncio::LoopOptions().clock(clock));
    try {
        loop->run_forever();
        ADD_FAILURE();
    } catch (const asyncio::RuntimeError& error) { // which it is
        EXPECT_STREQ(error.what(), "deadlock: nothing is ready and no timer is armed, so that "
                                   "virtual time could never advance");
    }
}

TEST(Deadlock, cancels_who_waited_and_cleans_up) {
    bool cleaned = false;
    const auto main = [&]() -> Coro<> {
        struct Cleans {
            bool& flag;
            ~Cleans() { flag = true; }
        };
        const Cleans at_end{cleaned};
        co_await create_future();
    };
    EXPECT_NE(deadlock_of(main), "none");
    EXPECT_TRUE(cleaned);
}

// --- seeded schedules ---

namespace {

using Steps = std::string;

template <class Main> auto run_shuffled(std::uint64_t seed, Main main) {
    VirtualClock clock;
    return asyncio::run(main(), RunOptions().clock(clock).shuffle_ready(seed));
}

Coro<> one_step() { co_return; }
Coro<> two_steps(Steps& steps, char name) {
    steps += name;
    co_await asyncio::sleep(0);
    steps += static_cast<char>(name - 'a' + 'A');
}

Steps steps_with(std::uint64_t seed) {
    Steps steps;
    run_shuffled(seed, [&]() -> Coro<> {
        std::vector<Coro<>> all;
        for (char name = 'a'; name <= 'f'; ++name) all.push_back(two_steps(steps, name));
        co_await asyncio::gather(all);
    });
    return steps;
}

} // namespace

TEST(ShuffleReady, is_the_same_for_the_same_seed_on_every_compiler) {
    EXPECT_EQ(steps_with(1), "cabefdEACBDF");
    EXPECT_EQ(steps_with(2), "baecfdFABDCE");
    EXPECT_EQ(steps_with(1), steps_with(1));
}

TEST(ShuffleReady, makes_many_orders_and_loses_nothing) {
    std::set<Steps> seen;
    std::set<char> first;
    for (std::uint64_t seed = 0; seed < 200; ++seed) {
        const Steps steps = steps_with(seed);
        seen.insert(steps);
        first.insert(steps.front());
        Steps sorted = steps;
        std::sort(sorted.begin(), sorted.end());
        EXPECT_EQ(sorted, "ABCDEFabcdef");
        // What is made ready in a turn runs in a later one.
        EXPECT_TRUE(std::all_of(steps.begin(), steps.begin() + 6, [](char c) { return c >= 'a'; }))
            << steps;
    }
    EXPECT_GT(seen.size(), 190u);
    EXPECT_EQ(first.size(), 6u);
}

TEST(ShuffleReady, keeps_the_order_of_callbacks) {
    for (std::uint64_t seed = 0; seed < 100; ++seed) {
        std::vector<int> called;
        std::vector<int> done;
        std::vector<int> timed;
        run_shuffled(seed, [&]() -> Coro<> {
            const auto future = create_future();
            for (int i = 0; i < 10; ++i) {
                get_running_loop().call_soon([&called, i] { called.push_back(i); });
                get_running_loop().call_later(1s, [&timed, i] { timed.push_back(i); });
                future.add_done_callback([&done, i] { done.push_back(i); });
                create_task(one_step());
            }
            future.set_result();
            co_await asyncio::sleep(2s);
        });
        const std::vector<int> wanted = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
        EXPECT_EQ(called, wanted);
        EXPECT_EQ(done, wanted);
        EXPECT_EQ(timed, wanted);
    }
}

TEST(ShuffleReady, finds_a_program_that_depends_on_order) {
    // The second task takes for granted that the first has run.
    const auto runs_well = [](std::uint64_t seed) {
        bool ready = false;
        bool good = false;
        run_shuffled(seed, [&]() -> Coro<> {
            const auto prepares = [&]() -> Coro<> {
                ready = true;
                co_return;
            };
            const auto uses = [&]() -> Coro<> {
                good = ready;
                co_return;
            };
            co_await asyncio::gather(prepares, uses);
        });
        return good;
    };
    int well = 0;
    for (std::uint64_t seed = 0; seed < 100; ++seed) well += runs_well(seed) ? 1 : 0;
    EXPECT_GT(well, 25);
    EXPECT_LT(well, 75);
}

TEST(ShuffleReady, lets_a_program_pass_that_does_not) {
    for (std::uint64_t seed = 0; seed < 1000; ++seed) {
        const int sum = run_shuffled(seed, []() -> Coro<int> {
            const auto ready = create_future<int>();
            const auto prepares = [&]() -> Coro<> {
                co_await asyncio::sleep(0);
                ready.set_result(20);
            };
            const auto uses = [&]() -> Coro<int> {
                const int given = co_await ready;
                co_await asyncio::sleep(1s);
                co_return given + 1;
            };
            auto results = co_await asyncio::gather(uses, prepares, uses);
            co_return std::get<0>(results) + std::get<2>(results);
        });
        EXPECT_EQ(sum, 42) << "seed " << seed;
    }
}

TEST(ShuffleReady, survives_a_turn_that_an_interrupt_has_cut_short) {
    for (std::uint64_t seed = 0; seed < 50; ++seed) {
        VirtualClock clock;
        const auto loop =
            asyncio::new_event_loop(asyncio::LoopOptions().clock(clock).shuffle_ready(seed));
        const auto task = create_task(*loop, []() -> Coro<> { co_await asyncio::sleep(1s); });
        loop->stop();
        loop->run_forever();
        loop->call_later(1s, [] { throw asyncio::KeyboardInterrupt(); });
        bool interrupted = false;
        for (int i = 0; i < 3 && !interrupted; ++i) {
            try {
                clock.advance(1s);
                loop->stop();
                loop->run_forever();
            } catch (const asyncio::KeyboardInterrupt&) {
                interrupted = true;
            }
        }
        EXPECT_TRUE(interrupted);
        // The sleep may be in the queue still; cancelled, its task comes behind it.
        const bool asked = task.cancel();
        EXPECT_TRUE(asked);
        for (int i = 0; i < 3; ++i) {
            loop->stop();
            loop->run_forever();
        }
        EXPECT_TRUE(task.done());
    }
}
