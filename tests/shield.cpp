// SPDX-License-Identifier: MIT
// The traces are CPython's.
#include <asyncio/asyncio.hpp>
#include <asyncio/testing/cancel_everywhere.hpp>

#include "support/in_virtual_time.hpp"
#include "support/turns.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>

using namespace std::chrono_literals;
using asyncio::as_result;
using asyncio::CancelledError;
using asyncio::Coro;
using asyncio::create_future;
using asyncio::create_task;
using asyncio::get_running_loop;
using asyncio::shield;
using asyncio::sleep;
using asyncio::ValueError;
using asyncio::testing::cancel_everywhere;
using asyncio_test::in_virtual_time;
using asyncio_test::Log;
using asyncio_test::Reports;
using asyncio_test::text_of;
using Token = asyncio::testing::LeakToken;
using asyncio_test::Trace;
using asyncio_test::trace_of;

namespace {

Coro<> nop() { co_return; }
Coro<int> nap(int seconds, int value) {
    co_await sleep(seconds);
    co_return value;
}
Coro<int> fail(int seconds) {
    co_await sleep(seconds);
    throw ValueError("bad");
}

} // namespace

TEST(Shield, takes_the_turns_that_cpython_takes) {
    EXPECT_EQ(trace_of([](Log& log) -> Coro<> {
                  int begin = log.turns().now();
                  const auto note = [&](const std::string& what) {
                      log(what + " " + std::to_string(log.turns().now() - begin));
                      begin = log.turns().now();
                  };
                  co_await shield(nop());
                  note("coroutine");
                  auto task = create_task(nop());
                  co_await shield(task);
                  note("task");
                  co_await shield(task);
                  note("done");
              }),
              (Trace{"4 coroutine 3", "7 task 3", "7 done 0"}));
}

TEST(Shield, lets_the_inner_task_go_on_when_the_waiting_is_cancelled) {
    EXPECT_EQ(trace_of([](Log& log) -> Coro<> {
                  auto task = create_task(nap(5, 1));
                  const auto worker = [](Log& to, asyncio::Task<int> inner) -> Coro<> {
                      try {
                          co_await shield(inner);
                      } catch (const CancelledError& error) {
                          to(std::string("w cancelled ") + (inner.done() ? "True " : "False ") +
                             error.message());
                          throw;
                      }
                  };
                  auto waiting = create_task(worker(log, task));
                  co_await sleep(1s);
                  waiting.cancel("m");
                  const auto result = co_await as_result(waiting);
                  EXPECT_TRUE(result.failed_with<CancelledError>());
                  log("u");
                  const int value = co_await task;
                  log(std::to_string(value));
              }),
              (Trace{"5 w cancelled False m", "6 u", "9 1"}));
}

TEST(Shield, ends_as_the_inner_task_does) {
    EXPECT_EQ(trace_of([](Log& log) -> Coro<> {
                  auto task = create_task(nap(5, 1));
                  auto outer = shield(task);
                  co_await sleep(1s);
                  task.cancel("in");
                  auto result = co_await as_result(outer);
                  log(text_of(result.exception()) + (outer.cancelled() ? " True" : " False"));
                  auto failing = create_task(fail(1));
                  result = co_await as_result(shield(failing));
                  log(text_of(result.exception()));
              }),
              (Trace{"7 CancelledError:  True", "12 ValueError: bad"}));
}

TEST(Shield, gives_values_of_all_kinds) {
    in_virtual_time([]() -> Coro<> {
        auto owned = co_await shield([]() -> Coro<std::unique_ptr<int>> {
            co_await sleep(1s);
            co_return std::make_unique<int>(3);
        });
        EXPECT_EQ(*owned, 3);
        int place = 0;
        auto future = create_future<int&>();
        auto outer = shield(future);
        future.set_result(place);
        int& same = co_await outer;
        EXPECT_EQ(&same, &place);
        const std::string word = co_await shield(sleep(1s, std::string("word")));
        EXPECT_EQ(word, "word");
    });
}

TEST(Shield, reports_once_what_fails_after_the_waiting_was_cancelled) {
    Reports reports;
    in_virtual_time([&]() -> Coro<> {
        reports.watch(get_running_loop());
        auto task = create_task(fail(2));
        auto first = shield(task);
        auto second = shield(task);
        first.cancel();
        second.cancel();
        co_await sleep(5s);
        EXPECT_EQ(reports.count("exception in shielded future"), 1U);
        EXPECT_EQ(reports.count(), 1U) << reports.text();
        EXPECT_EQ(text_of(reports.all[0].exception), "ValueError: bad");
    });
    EXPECT_EQ(reports.count(), 1U) << reports.text();
}

TEST(Shield, that_is_dropped_leaves_a_future_alone_and_hears_of_a_task) {
    Reports reports;
    in_virtual_time([&]() -> Coro<> {
        reports.watch(get_running_loop());
        auto future = create_future<int>();
        shield(future);
        future.set_result(1);
        shield(create_task(fail(1)));
        co_await sleep(2s);
        EXPECT_EQ(reports.count("Future exception was never retrieved"), 1U) << reports.text();
        EXPECT_EQ(reports.count(), 1U);
        auto never = create_future<int>();
        auto outer = shield(never);
        outer.cancel();
        co_await sleep(0);
    });
}

TEST(Shield, of_a_loop_that_closes_goes_with_it) {
    Reports reports;
    auto loop = asyncio::new_event_loop();
    reports.watch(*loop);
    asyncio::Future<int> outer;
    const auto starter = [&]() -> Coro<> {
        outer = shield(nap(5, 1));
        shield(create_future());
        co_await shield(nap(6, 1));
    };
    create_task(*loop, starter);
    loop->stop();
    loop->run_forever();
    loop.reset();
    EXPECT_FALSE(outer.done());
}

TEST(CancelEverywhere, shield) {
    EXPECT_GE(cancel_everywhere(
                  [](Token token) -> Coro<> {
                      const auto child = [](Token kept, int seconds) -> Coro<> {
                          co_await sleep(seconds);
                          EXPECT_GT(kept.use_count(), 0);
                      };
                      co_await shield(child(token, 1));
                      auto task = create_task(child, token, 2);
                      co_await asyncio::wait_for(shield(task), 5s);
                  },
                  asyncio::testing::CancelOptions().may_leave_tasks(true)),
              6);
}
