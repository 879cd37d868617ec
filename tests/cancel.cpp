// SPDX-License-Identifier: MIT
// Cancels of tasks, as CPython's own tests ask for them: see cpython.md, and tasks.cpp for others.
#include <asyncio/asyncio.hpp>

#include "support/in_virtual_time.hpp"
#include "support/reports.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

using namespace std::chrono_literals;
using asyncio::as_result;
using asyncio::CancelledError;
using asyncio::Coro;
using asyncio::create_future;
using asyncio::create_task;
using asyncio::current_task;
using asyncio::gather;
using asyncio::get_running_loop;
using asyncio::return_exceptions;
using asyncio::sleep;
using asyncio::ValueError;
using asyncio_test::in_virtual_time;
using asyncio_test::Reports;
using asyncio_test::text_of;
using asyncio_test::thrown_by;

namespace {

Coro<> nap(int seconds) { co_await sleep(seconds); }
Coro<> nop() { co_return; }
Coro<> fail() {
    throw ValueError("x");
    co_return;
}

} // namespace

TEST(Cancel, message_comes_out_of_result_and_exception_and_of_who_awaits) {
    in_virtual_time([]() -> Coro<> {
        for (const bool has_begun : {true, false}) {
            for (const char* message : {"", "my message"}) {
                auto task = create_task(nap(10));
                if (has_begun) co_await sleep(0);
                task.cancel(message);
                const std::vector<asyncio::Task<>> all(1, task);
                co_await asyncio::wait(all);
                const std::string expected = std::string("CancelledError: ") + message;
                EXPECT_EQ(thrown_by([&] {
                              task.result();
                              return 0;
                          }),
                          expected);
                EXPECT_EQ(thrown_by([&] { return task.exception(); }), expected);
                const auto result = co_await as_result(task);
                EXPECT_EQ(text_of(result.exception()), expected);
            }
        }
    });
}

TEST(Cancel, of_the_future_that_a_task_waits_for_cancels_the_task) {
    in_virtual_time([]() -> Coro<> {
        const auto wait = [](asyncio::Future<> future) -> Coro<> { co_await future; };
        for (const bool both : {false, true}) {
            auto future = create_future();
            auto task = create_task(wait(future));
            co_await sleep(0);
            EXPECT_TRUE(future.cancel("future"));
            if (both) {
                EXPECT_TRUE(task.cancel("task"));
            }
            const auto result = co_await as_result(task);
            EXPECT_TRUE(result.failed_with<CancelledError>());
            EXPECT_TRUE(task.cancelled());
            EXPECT_EQ(task.cancelling(), both ? 1U : 0U);
            EXPECT_FALSE(task.cancel());
        }
    });
}

TEST(Cancel, that_becomes_an_interrupt_ends_the_task_with_it) {
    const auto loop = asyncio::new_event_loop();
    auto task = create_task(*loop, []() -> Coro<> {
        bool cancelled = false;
        try {
            co_await sleep(10s);
        } catch (const CancelledError&) {
            cancelled = true;
        }
        if (cancelled) throw asyncio::SystemExit(3);
    });
    const auto turn = [&] {
        loop->call_soon([&] { loop->stop(); });
        loop->run_forever();
    };
    turn();
    EXPECT_TRUE(task.cancel());
    EXPECT_FALSE(task.done());
    EXPECT_THROW(turn(), asyncio::SystemExit);
    EXPECT_TRUE(task.done());
    EXPECT_FALSE(task.cancelled());
    EXPECT_THROW(std::rethrow_exception(task.exception()), asyncio::SystemExit);
}

TEST(Cancel, of_what_has_failed_says_no_and_keeps_the_failure_from_being_reported) {
    Reports reports;
    in_virtual_time([&]() -> Coro<> {
        reports.watch(get_running_loop());
        {
            auto task = create_task(fail());
            co_await sleep(1s);
            EXPECT_FALSE(task.cancel());
            auto future = create_future<int>();
            future.set_exception(ValueError("y"));
            EXPECT_FALSE(future.cancel());
        }
        // What had a value, was looked at or was never done is not told of either.
        auto done = create_future<int>();
        done.set_result(42);
        create_future<int>();
    });
    EXPECT_EQ(reports.count(), 0U) << reports.text();
}

TEST(Cancel, of_a_gather_whose_children_have_ended_says_no) {
    in_virtual_time([]() -> Coro<> {
        auto future = create_future<int>();
        const auto child = [](asyncio::Future<int> f) -> Coro<int> {
            const int value = co_await f;
            co_return value;
        };
        auto gathered = gather(child(future));
        co_await sleep(0);
        // Called after the child's last step, and before the gather hears of it.
        bool accepted = true;
        future.add_done_callback([&] { accepted = gathered.cancel(); });
        future.set_result(42);
        const auto result = co_await gathered;
        EXPECT_EQ(std::get<0>(result), 42);
        EXPECT_FALSE(accepted);
        EXPECT_FALSE(gathered.cancelled());
    });
}

TEST(Cancel, goes_with_its_message_through_a_gather_that_returns_exceptions) {
    in_virtual_time([]() -> Coro<> {
        for (const char* message : {"", "my message"}) {
            auto task = create_task([]() -> Coro<> {
                for (int i = 0; i < 20; ++i) co_await gather(return_exceptions, sleep(50ms));
            });
            co_await sleep(220ms);
            task.cancel(message);
            const auto result = co_await as_result(task);
            EXPECT_EQ(text_of(result.exception()), std::string("CancelledError: ") + message);
            EXPECT_TRUE(task.cancelled());
        }
    });
}

TEST(Cancel, counts_no_more_when_the_task_has_taken_it_back) {
    in_virtual_time([]() -> Coro<> {
        auto task = create_task([]() -> Coro<> {
            const auto first = co_await as_result(sleep(10s));
            EXPECT_TRUE(first.failed_with<CancelledError>());
            EXPECT_EQ(current_task().uncancel(), 0U);
            co_await sleep(10s);
        });
        co_await sleep(1s);
        EXPECT_TRUE(task.cancel());
        EXPECT_EQ(task.cancelling(), 1U);
        EXPECT_FALSE(task.cancelled());
        co_await sleep(1s);
        EXPECT_EQ(task.cancelling(), 0U);
        EXPECT_FALSE(task.done());
        EXPECT_TRUE(task.cancel());
        EXPECT_EQ(task.cancelling(), 1U);
        const auto result = co_await as_result(task);
        EXPECT_TRUE(task.cancelled());
        // Too late to be taken back.
        EXPECT_EQ(task.uncancel(), 0U);
        EXPECT_TRUE(task.cancelled());
    });
}

// A limit to a block, made of call_later, cancel and uncancel alone.
TEST(Cancel, and_uncancel_are_enough_to_limit_a_block) {
    in_virtual_time([]() -> Coro<> {
        const auto limited = [](asyncio::Delay nap, asyncio::Delay limit) -> Coro<std::string> {
            auto task = current_task();
            bool timed_out = false;
            auto timer = get_running_loop().call_later(limit, [&] {
                timed_out = true;
                task.cancel();
            });
            const auto block = co_await as_result(sleep(nap));
            timer.cancel();
            const bool is_ours = timed_out && task.uncancel() == 0;
            if (!is_ours) block.value();
            co_await sleep(0); // not cancelled any more
            co_return block ? "finished" : "timed out";
        };
        auto late = create_task(limited(10s, 100ms));
        std::string end = co_await late;
        EXPECT_EQ(end, "timed out");
        EXPECT_EQ(late.cancelling(), 0U);
        auto in_time = create_task(limited(0s, 10s));
        end = co_await in_time;
        EXPECT_EQ(end, "finished");
        EXPECT_EQ(in_time.cancelling(), 0U);
        // A cancel from outside in the same turn is not swallowed.
        auto both = create_task(limited(10s, 100ms));
        get_running_loop().call_later(100ms, [&] { both.cancel("outside"); });
        const auto result = co_await as_result(both);
        EXPECT_TRUE(result.failed_with<CancelledError>());
        EXPECT_EQ(both.cancelling(), 1U);
    });
}

TEST(Cancel, of_a_waiting_task_leaves_none_behind_in_the_future) {
    Reports reports;
    in_virtual_time([&]() -> Coro<> {
        reports.watch(get_running_loop());
        auto future = create_future<int>();
        for (int i = 0; i < 3; ++i) {
            auto task = create_task([&]() -> Coro<int> {
                const int value = co_await asyncio::shield(future);
                co_return value;
            });
            co_await sleep(0);
            task.cancel();
            const auto result = co_await as_result(task);
            EXPECT_TRUE(result.failed_with<CancelledError>());
        }
        future.set_result(1);
        co_await sleep(0);
    });
    EXPECT_EQ(reports.count(), 0U) << reports.text();
}

TEST(CurrentTaskInTurns, is_that_of_each_step) {
    in_virtual_time([]() -> Coro<> {
        auto first = create_future();
        auto second = create_future();
        asyncio::Task<> a;
        asyncio::Task<> b;
        a = create_task([&]() -> Coro<> {
            EXPECT_TRUE(current_task() == a);
            co_await first;
            EXPECT_TRUE(current_task() == a);
            second.set_result();
        });
        b = create_task([&]() -> Coro<> {
            EXPECT_TRUE(current_task() == b);
            first.set_result();
            co_await second;
            EXPECT_TRUE(current_task() == b);
        });
        co_await gather(a, b);
        co_await nop();
    });
    EXPECT_EQ(thrown_by([] { return asyncio::current_task(); }).substr(0, 31),
              "RuntimeError: no running event ");
}
