// SPDX-License-Identifier: MIT
// What is left when KeyboardInterrupt, SystemExit or stop() ends a run before its time, as
// CPython's own tests have it: see cpython.md, and ctrl_c.cpp for the key itself.
#include <asyncio/asyncio.hpp>
#include <asyncio/testing/virtual_time.hpp>

#include "support/in_virtual_time.hpp"

#include <gtest/gtest.h>

#include <chrono>

using asyncio::Coro;
using asyncio::create_task;
using asyncio::run_until_complete;
using asyncio_test::Reports;
using asyncio_test::thrown_by;

namespace {

Coro<> nap(int seconds) { co_await asyncio::sleep(seconds); }
Coro<> interrupt() {
    throw asyncio::KeyboardInterrupt();
    co_return;
}

} // namespace

TEST(Interrupts, of_the_coroutine_that_is_run_are_not_reported_when_the_loop_closes) {
    Reports reports;
    {
        const auto loop = asyncio::new_event_loop();
        reports.watch(*loop);
        EXPECT_THROW(run_until_complete(*loop, interrupt()), asyncio::KeyboardInterrupt);
    }
    EXPECT_EQ(reports.count(), 0U) << reports.text();
}

TEST(Interrupts, of_a_run_do_not_stop_the_next_one) {
    const auto loop = asyncio::new_event_loop();
    EXPECT_THROW(run_until_complete(*loop, interrupt()), asyncio::KeyboardInterrupt);
    bool called = false;
    loop->call_soon([&] { // in the second turn
        loop->call_soon([&] {
            called = true;
            loop->stop();
        });
    });
    loop->run_forever();
    EXPECT_TRUE(called);
}

TEST(Interrupts, of_a_callback_leave_the_loop_to_run_something_else) {
    asyncio::testing::VirtualClock clock;
    const auto loop = asyncio::new_event_loop(asyncio::LoopOptions().clock(clock));
    loop->call_soon([] { throw asyncio::SystemExit(3); });
    EXPECT_THROW(run_until_complete(*loop, nap(1)), asyncio::SystemExit);
    // The first one ends during this run, which is not its business.
    const auto begin = loop->time();
    run_until_complete(*loop, nap(2));
    EXPECT_EQ(loop->time() - begin, std::chrono::seconds(2));
}

TEST(Interrupts, by_stop_leave_a_task_that_can_be_cancelled_later) {
    asyncio::testing::VirtualClock clock;
    const auto loop = asyncio::new_event_loop(asyncio::LoopOptions().clock(clock));
    int naps = 0;
    const auto napper = [&]() -> Coro<> {
        while (naps < 10) {
            co_await asyncio::sleep(1);
            if (++naps == 2) loop->stop();
        }
    };
    auto task = create_task(*loop, napper());
    EXPECT_EQ(thrown_by([&] {
                  run_until_complete(*loop, task);
                  return 0;
              }).substr(0, 58),
              "RuntimeError: Event loop stopped before Future completed. ");
    EXPECT_FALSE(task.done());
    EXPECT_EQ(naps, 2);
    task.cancel();
    EXPECT_THROW(run_until_complete(*loop, task), asyncio::CancelledError);
    EXPECT_EQ(naps, 2);
}
