// SPDX-License-Identifier: MIT
// Debug mode: what takes too long, and what comes from the wrong thread.
#include "support/in_virtual_time.hpp"

#include <asyncio/asyncio.hpp>
#include <asyncio/testing/virtual_time.hpp>
#include <gtest/gtest.h>

#include <source_location>
#include <string>
#include <thread>

using namespace std::chrono_literals;
using asyncio::Coro;
using asyncio::create_future;
using asyncio::create_task;
using asyncio::EventLoop;
using asyncio::LoopOptions;
using asyncio::testing::VirtualClock;
using asyncio_test::Reports;
using asyncio_test::thrown_by;

namespace {

const std::string file = std::source_location::current().file_name();
std::string at(int line) { return file + ":" + std::to_string(line); }

Coro<> one_turn() { co_await asyncio::sleep(0); }
void turn(EventLoop& loop) {
    loop.stop();
    loop.run_forever();
}

struct Debug : testing::Test {
    VirtualClock clock;
    Reports reports;
    asyncio::EventLoopOwner owner = asyncio::new_event_loop(LoopOptions().clock(clock).debug(true));
    EventLoop& loop = *owner;
    Debug() { reports.watch(loop); }
};

int slow_line = 0;
int next_line = 0;
int outer_line = 0;
int created_line = 0;

// clang-format off
Coro<> slow(VirtualClock& clock) {
    slow_line = __LINE__; co_await asyncio::sleep(1s);
    clock.advance(123ms);
    next_line = __LINE__; co_await asyncio::sleep(1s);
}
Coro<> outer(VirtualClock& clock) { outer_line = __LINE__; co_await slow(clock); }
// clang-format on

} // namespace

TEST_F(Debug, reports_a_step_of_a_task_that_takes_too_long_with_where_it_ran) {
    // clang-format off
    const auto task = create_task(loop, outer(clock)); created_line = __LINE__;
    // clang-format on
    task.set_name("worker");
    asyncio::run_until_complete(loop, task);
    ASSERT_EQ(reports.count(), 1u) << reports.text();
    EXPECT_EQ(reports.text(), "Executing <Task pending name='worker' created at " +
                                  at(created_line) +
                                  "> took 0.123 seconds\n"
                                  "ran from: " +
                                  at(slow_line) +
                                  " in slow\n"
                                  "stands at: " +
                                  at(next_line) + " in slow\n" + at(outer_line) + " in outer\n");
}

TEST_F(Debug, reports_a_step_that_ends_its_task) {
    const auto last_step = [](VirtualClock& c) -> Coro<> {
        co_await create_task(one_turn()); // goes on by the wait for a future
        c.advance(1s);
    };
    asyncio::run_until_complete(loop, last_step(clock));
    EXPECT_EQ(reports.count(), 1u) << reports.text();
    EXPECT_EQ(reports.count("Executing <Task finished name="), 1u) << reports.text();
    EXPECT_EQ(reports.count("took 1.000 seconds\nran from: " + file), 1u) << reports.text();
    EXPECT_EQ(reports.count("stands at"), 0u) << reports.text();
}

TEST_F(Debug, reports_callbacks_that_take_too_long) {
    const auto slow_call = [this] { clock.advance(100ms); };
    // clang-format off
    loop.call_soon(slow_call); const int soon = __LINE__;
    loop.call_soon_threadsafe(slow_call); const int threadsafe = __LINE__;
    const auto future = create_future(loop); const int made = __LINE__;
    // clang-format on
    future.add_done_callback(slow_call);
    future.set_result();
    turn(loop);
    turn(loop);
    ASSERT_EQ(reports.count(), 3u) << reports.text();
    const auto message = [](const std::string& what, int line) {
        return "Executing " + what + " created at " + at(line) + "> took 0.100 seconds";
    };
    EXPECT_EQ(reports.count(message("<Handle", soon)), 1u) << reports.text();
    EXPECT_EQ(reports.count(message("<ThreadSafeHandle", threadsafe)), 1u) << reports.text();
    EXPECT_EQ(reports.count(message("a callback of <Future finished", made)), 1u) << reports.text();
}

TEST_F(Debug, is_silent_on_what_is_quick_enough) {
    EXPECT_EQ(loop.slow_callback_duration(), 100ms);
    loop.call_soon([this] { clock.advance(99'999'999ns); });
    turn(loop);
    EXPECT_EQ(reports.count(), 0u) << reports.text();
    loop.set_slow_callback_duration(2s);
    EXPECT_EQ(loop.slow_callback_duration(), 2s);
    loop.call_soon([this] { clock.advance(1s); });
    turn(loop);
    EXPECT_EQ(reports.count(), 0u) << reports.text();
    loop.set_slow_callback_duration(0.5);
    loop.call_soon([this] { clock.advance(1s); });
    turn(loop);
    EXPECT_EQ(reports.count(), 1u) << reports.text();
}

TEST_F(Debug, begins_and_ends_with_the_next_turn_while_the_loop_runs) {
    const auto main = [](VirtualClock& c, Reports& all) -> Coro<> {
        EventLoop& running = asyncio::get_running_loop();
        running.set_debug(false);
        co_await asyncio::sleep(0);
        c.advance(1s);
        co_await asyncio::sleep(0);
        EXPECT_EQ(all.count(), 0u) << all.text();
        running.set_debug(true);
        co_await asyncio::sleep(0);
        c.advance(1s);
        co_await asyncio::sleep(0);
        EXPECT_EQ(all.count(), 1u) << all.text();
    };
    asyncio::run_until_complete(loop, main(clock, reports));
}

TEST_F(Debug, lets_interrupts_out_and_goes_on) {
    loop.call_soon([] { throw asyncio::KeyboardInterrupt(); });
    EXPECT_THROW(turn(loop), asyncio::KeyboardInterrupt);
    asyncio::run_until_complete(loop, one_turn());
    EXPECT_EQ(reports.count(), 0u) << reports.text();
}

// --- the wrong thread ---

namespace {

// What each call throws on a thread of its own while the loop runs here; the loop is not touched if
// the calls are refused.
std::string thrown_elsewhere(EventLoop& loop, void (*call)(EventLoop&, asyncio::Future<>&)) {
    std::string text;
    auto future = create_future(loop);
    loop.call_soon([&] {
        std::thread other([&] {
            testing::internal::CaptureStderr();
            text = thrown_by([&] {
                call(loop, future);
                return 0;
            });
            EXPECT_EQ(testing::internal::GetCapturedStderr(), ""); // a coroutine is closed
        });
        other.join();
    });
    turn(loop);
    return text;
}

using CallElsewhere = void (*)(EventLoop&, asyncio::Future<>&);
constexpr CallElsewhere calls[] = {
    [](EventLoop& l, asyncio::Future<>&) { l.call_soon([] {}); },
    [](EventLoop& l, asyncio::Future<>&) { l.call_later(1s, [] {}); },
    [](EventLoop& l, asyncio::Future<>&) { l.call_at(l.time(), [] {}); },
    [](EventLoop& l, asyncio::Future<>&) { l.add_reader(0, [] {}); },
    [](EventLoop& l, asyncio::Future<>&) { create_task(l, one_turn()); },
    [](EventLoop& l, asyncio::Future<>&) { create_task(l, one_turn); },
    [](EventLoop& l, asyncio::Future<>&) { create_future(l); },
    [](EventLoop&, asyncio::Future<>& f) { f.cancel(); },
    [](EventLoop&, asyncio::Future<>& f) { f.set_result(); },
    [](EventLoop&, asyncio::Future<>& f) { f.set_exception(42); },
    [](EventLoop&, asyncio::Future<>& f) { f.add_done_callback([] {}); },
};

} // namespace

TEST_F(Debug, refuses_calls_from_the_wrong_thread) {
    std::size_t number = 0;
    for (const CallElsewhere call : calls) {
        EXPECT_EQ(thrown_elsewhere(loop, call),
                  "RuntimeError: Non-thread-safe operation invoked on an event loop other than the "
                  "current one: use call_soon_threadsafe()")
            << number;
        ++number;
    }
    EXPECT_EQ(reports.count(), 0u) << reports.text();
    EXPECT_TRUE(asyncio::all_tasks(loop).empty());
}

TEST_F(Debug, takes_calls_of_any_thread_by_the_door_and_while_the_loop_stands) {
    EXPECT_EQ(thrown_elsewhere(
                  loop, [](EventLoop& l, asyncio::Future<>&) { l.call_soon_threadsafe([] {}); }),
              "nothing");
    bool called = false;
    std::thread([&] { loop.call_soon([&] { called = true; }); }).join();
    turn(loop);
    EXPECT_TRUE(called);
    loop.close();
    EXPECT_EQ(
        thrown_by([&] { return loop.call_soon([] {}); }).find("RuntimeError: Event loop is closed"),
        0u);
}
