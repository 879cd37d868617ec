// SPDX-License-Identifier: MIT
// The traces are CPython's.
#include <asyncio/asyncio.hpp>

#include "support/in_virtual_time.hpp"
#include "support/turns.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <ranges>
#include <string>
#include <vector>

using namespace std::chrono_literals;
using asyncio::as_result;
using asyncio::CancelledError;
using asyncio::Coro;
using asyncio::create_future;
using asyncio::create_task;
using asyncio::get_running_loop;
using asyncio::sleep;
using asyncio::ValueError;
using asyncio::wait;
using asyncio_test::in_virtual_time;
using asyncio_test::Log;
using asyncio_test::Reports;
using asyncio_test::Trace;
using asyncio_test::trace_of;

namespace {

Coro<> nop() { co_return; }
Coro<int> nap(int seconds, int value = 0) {
    co_await sleep(seconds);
    co_return value;
}
Coro<int> fail(int seconds) {
    co_await sleep(seconds);
    throw ValueError("x");
}

template <class T> std::vector<T> list(T one) { return std::vector<T>(1, one); }

} // namespace

TEST(Wait, takes_the_turns_that_cpython_takes) {
    EXPECT_EQ(trace_of([](Log& log) -> Coro<> {
                  auto task = create_task(nop());
                  int begin = log.turns().now();
                  const auto note = [&](const std::string& what) {
                      log(what + " " + std::to_string(log.turns().now() - begin));
                      begin = log.turns().now();
                  };
                  const auto all = list(task);
                  auto waited = co_await wait(all);
                  note("task");
                  waited = co_await wait(all);
                  note("done");
                  const auto never = list(create_future());
                  auto none = co_await wait(never, asyncio::ALL_COMPLETED, 0);
                  note("timeout 0");
                  EXPECT_EQ(none.done.size(), 0U);
                  EXPECT_EQ(none.pending.size(), 1U);
                  none = co_await wait(never, asyncio::ALL_COMPLETED, 1s);
                  note("timeout 1");
              }),
              (Trace{"4 task 3", "6 done 2", "8 timeout 0 2", "10 timeout 1 2"}));
}

TEST(Wait, ends_when_it_is_told_to) {
    EXPECT_EQ(trace_of([](Log& log) -> Coro<> {
                  for (const auto when : {asyncio::FIRST_COMPLETED, asyncio::FIRST_EXCEPTION,
                                          asyncio::ALL_COMPLETED}) {
                      std::vector<asyncio::Task<int>> tasks;
                      tasks.push_back(create_task(nap(3)));
                      tasks.push_back(create_task(nap(1)));
                      tasks.push_back(create_task(fail(2)));
                      tasks.push_back(create_task(nap(9)));
                      const auto waited = co_await wait(tasks, when, 20s);
                      std::string text = std::to_string(when);
                      for (const auto& task : tasks) {
                          bool done = false;
                          for (const auto& one : waited.done) done = done || one == task;
                          text += done ? " True" : " False";
                      }
                      log(text);
                      EXPECT_EQ(waited.done.size() + waited.pending.size(), 4U);
                      for (const auto& task : tasks) task.cancel();
                      co_await sleep(0);
                      static_cast<void>(tasks[2].state().retrieve());
                  }
              }),
              (Trace{"6 0 False True False False", "15 1 False True True False",
                     "30 2 True True True True"}));
}

TEST(Wait, cancels_nothing_when_it_is_cancelled) {
    EXPECT_EQ(trace_of([](Log& log) -> Coro<> {
                  auto task = create_task(nap(5, 1));
                  const auto worker = [](Log& to, asyncio::Task<int> waited_for) -> Coro<> {
                      try {
                          const auto all = list(waited_for);
                          co_await wait(all);
                      } catch (const CancelledError&) {
                          to(std::string("w cancelled ") + (waited_for.done() ? "True" : "False"));
                          throw;
                      }
                  };
                  auto waiting = create_task(worker(log, task));
                  co_await sleep(1s);
                  waiting.cancel();
                  const auto result = co_await as_result(waiting);
                  EXPECT_TRUE(result.failed_with<CancelledError>());
                  log("u");
                  const int value = co_await task;
                  log(std::to_string(value));
              }),
              (Trace{"5 w cancelled False", "6 u", "9 1"}));
}

TEST(Wait, takes_futures_of_several_types_and_each_once) {
    in_virtual_time([]() -> Coro<> {
        auto number = create_task(nap(1, 7));
        auto nothing = create_task(nop());
        auto future = create_future<std::string>();
        const std::vector<asyncio::AnyFuture> all = {number, nothing, future, number};
        get_running_loop().call_later(2s, [&] { future.set_result("x"); });
        const auto waited = co_await wait(all);
        EXPECT_EQ(waited.done.size(), 3U);
        EXPECT_TRUE(waited.done[0] == number && waited.done[1] == nothing);
        EXPECT_TRUE(waited.pending.empty());
        EXPECT_TRUE(get_running_loop().core().timers.empty());
    });
}

TEST(Wait, refuses_what_it_cannot_wait_for) {
    in_virtual_time([]() -> Coro<> {
        const auto none = co_await as_result(wait(std::vector<asyncio::Task<int>>()));
        EXPECT_TRUE(none.failed_with<ValueError>());
        const auto other = asyncio::new_event_loop();
        const auto foreign = list(create_future(*other));
        const auto refused = co_await as_result(wait(foreign));
        EXPECT_TRUE(refused.failed_with<ValueError>());
    });
}

TEST(Wait, leaves_a_failure_that_it_has_not_looked_at_to_be_reported) {
    Reports reports;
    in_virtual_time([&]() -> Coro<> {
        reports.watch(get_running_loop());
        std::vector<asyncio::Task<int>> tasks;
        tasks.push_back(create_task(fail(1)));
        tasks.push_back(create_task(nap(2)));
        co_await wait(tasks);
        EXPECT_EQ(reports.count(), 0U);
        tasks.clear();
        EXPECT_EQ(reports.count("never retrieved"), 1U);
    });
}

TEST(Wait, of_what_is_done_gives_the_same_at_once) {
    in_virtual_time([]() -> Coro<> {
        std::vector<asyncio::Task<int>> tasks;
        tasks.push_back(create_task(nap(1)));
        tasks.push_back(create_task(fail(2)));
        for (int i = 0; i < 2; ++i) {
            const auto begin = get_running_loop().time();
            const auto waited = co_await wait(tasks);
            EXPECT_EQ(waited.done.size(), 2U);
            EXPECT_TRUE(waited.pending.empty());
            EXPECT_EQ(get_running_loop().time() - begin, i == 0 ? 2s : 0s);
            int failed = 0;
            for (const auto& task : waited.done) failed += task.exception() != nullptr;
            EXPECT_EQ(failed, 1);
        }
    });
}

// When it comes to look again, more may be done than what it was woken for.
TEST(Wait, takes_all_for_done_that_are_done_when_it_goes_on) {
    in_virtual_time([]() -> Coro<> {
        const auto turns = [](int count) -> Coro<> {
            for (int i = 0; i < count; ++i) co_await sleep(0);
        };
        std::vector<asyncio::Task<>> tasks;
        tasks.push_back(create_task(turns(2)));
        tasks.push_back(create_task(turns(1)));
        const auto waiting = create_task(wait(tasks, asyncio::FIRST_COMPLETED));
        const auto waited = co_await waiting;
        EXPECT_EQ(waited.done.size(), 2U);

        // One whose sleep ends in the turn in which the time is up.
        std::vector<asyncio::Task<int>> sleepers;
        sleepers.push_back(create_task(nap(1)));
        sleepers.push_back(create_task(nap(2)));
        co_await sleep(0);
        const auto timed = co_await wait(sleepers, asyncio::ALL_COMPLETED, 1s);
        EXPECT_EQ(timed.done, std::vector<asyncio::Task<int>>(1, sleepers[0]));
        EXPECT_EQ(timed.pending, std::vector<asyncio::Task<int>>(1, sleepers[1]));
        // One that fails before it has waited at all.
        sleepers[0] = create_task(fail(0));
        const auto first = co_await wait(sleepers, asyncio::FIRST_EXCEPTION);
        EXPECT_EQ(first.done, std::vector<asyncio::Task<int>>(1, sleepers[0]));
        EXPECT_NE(sleepers[0].exception(), nullptr);
    });
}

TEST(Wait, takes_a_range_that_makes_its_tasks_as_it_is_gone_through) {
    in_virtual_time([]() -> Coro<> {
        auto tasks = std::views::iota(0, 10) |
                     std::views::transform([](int i) { return create_task(nap(i, i)); });
        const auto waited = co_await wait(tasks);
        EXPECT_EQ(waited.done.size(), 10U);
        EXPECT_TRUE(waited.pending.empty());
        EXPECT_EQ(waited.done[9].result(), 9);
    });
}

TEST(Wait, of_a_loop_that_closes_goes_with_it) {
    asyncio::testing::VirtualClock clock;
    Reports reports;
    auto loop = asyncio::new_event_loop(asyncio::LoopOptions().clock(clock));
    reports.watch(*loop);
    const auto token = std::make_shared<int>(1);
    create_task(
        *loop,
        [](std::shared_ptr<int> kept) -> Coro<> {
            std::vector<asyncio::Task<int>> tasks;
            tasks.push_back(create_task(nap(5)));
            tasks.push_back(create_task(nap(0)));
            co_await wait(tasks, asyncio::ALL_COMPLETED, 1s);
            EXPECT_GT(kept.use_count(), 0);
        },
        token);
    for (int i = 0; i < 3; ++i) {
        loop->stop();
        loop->run_forever();
    }
    loop.reset();
    EXPECT_EQ(token.use_count(), 1);
}
