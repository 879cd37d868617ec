// SPDX-License-Identifier: MIT
// Cancels a coroutine at each of its suspension points.
//
//     EXPECT_GT(cancel_everywhere([]() -> asyncio::Coro<> { ... }), 0);
//
// The body is run in virtual time, again and again: in run k its task, or a task that it has
// started, is cancelled in turn k of the loop, when it stands at the await that it has come to. A
// run must end (virtual time throws if it would hang), leave no task and no timer behind, and
// destroy all its locals: each body gets a Token to copy into what must be destroyed. Returns how
// many cancels were made; the runs end when the body is done before its turn comes.
#pragma once

#include <asyncio/asyncio.hpp>
#include <asyncio/testing/virtual_time.hpp>
#include <gtest/gtest.h>

#include <exception>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

namespace asyncio_test {

using Token = std::shared_ptr<int>;

template <class Body> int cancel_everywhere(Body body, int most = 1000) {
    int injected = 0;
    for (int turn = 0; turn < most; ++turn) {
        SCOPED_TRACE("cancel in turn " + std::to_string(turn));
        const Token token = std::make_shared<int>(turn);
        asyncio::testing::VirtualClock clock;
        auto loop = asyncio::new_event_loop(asyncio::LoopOptions().clock(clock));
        std::vector<std::string> reports;
        loop->set_exception_handler(
            [&](asyncio::EventLoop&, const asyncio::ExceptionContext& context) {
                reports.push_back(context.message);
            });

        bool cancelled_here = false;
        auto call = [&]() -> asyncio::Coro<> {
            if constexpr (std::is_invocable_v<Body&, Token>) {
                co_await body(token);
            } else {
                co_await body();
            }
        };
        auto task = asyncio::create_task(*loop, call);
        task.add_done_callback([&] { loop->stop(); });

        // One turn at a time. A turn that has nothing ready jumps to the next timer.
        bool hangs = false;
        for (int i = 0; !task.done() && !hangs; ++i) {
            if (i == turn) {
                cancelled_here = task.cancel("everywhere");
                EXPECT_TRUE(cancelled_here);
            }
            loop->call_soon([] {}); // a turn of its own, also if only a timer is left
            loop->stop();
            loop->run_forever();
            if (loop->core().ready.empty() && !task.done()) {
                if (loop->core().timers.empty()) {
                    hangs = true;
                } else {
                    clock.jump_to(loop->core().timers.earliest()->when_ns);
                }
            }
        }
        EXPECT_FALSE(hangs) << "nothing is ready, no timer is armed, and the body is not done";

        // What the body has started and not waited for ends too.
        for (int i = 0; i < most && !asyncio::all_tasks(*loop).empty(); ++i) {
            if (loop->core().ready.empty() && !loop->core().timers.empty())
                clock.jump_to(loop->core().timers.earliest()->when_ns);
            loop->call_soon([] {});
            loop->stop();
            loop->run_forever();
        }
        for (int i = 0; i < 3; ++i) { // callbacks that are left
            loop->call_soon([] {});
            loop->stop();
            loop->run_forever();
        }
        EXPECT_TRUE(asyncio::all_tasks(*loop).empty()) << "a task is left";
        EXPECT_TRUE(loop->core().timers.empty()) << "a timer is left";
        if (task.done() && !task.cancelled()) {
            if (const std::exception_ptr exception = task.exception()) {
                // A gather or a future that was cancelled beneath the body may fail it.
                EXPECT_TRUE(cancelled_here);
            }
        }
        EXPECT_EQ(token.use_count(), 1) << "a local was not destroyed";
        EXPECT_TRUE(reports.empty()) << reports.front();
        loop.reset();
        EXPECT_EQ(token.use_count(), 1);
        if (!cancelled_here || ::testing::Test::HasFailure()) return injected;
        ++injected;
    }
    ADD_FAILURE() << "the body does not end within " << most << " turns";
    return injected;
}

} // namespace asyncio_test
