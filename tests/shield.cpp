// SPDX-License-Identifier: MIT
// The traces are CPython's.
#include <asyncio/asyncio.hpp>

#include "support/in_virtual_time.hpp"
#include "support/turns.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <tuple>
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
using asyncio_test::in_virtual_time;
using asyncio_test::Log;
using asyncio_test::Reports;
using asyncio_test::text_of;
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

TEST(Shield, whose_waiting_was_cancelled_leaves_a_failure_to_who_looks_at_it) {
    Reports reports;
    in_virtual_time([&]() -> Coro<> {
        reports.watch(get_running_loop());
        auto task = create_task(fail(2));
        auto future = create_future<int>();
        for (int i = 0; i < 2; ++i) { // however many shields there are
            auto of_task = shield(task);
            auto of_future = shield(future);
            of_task.cancel();
            of_future.cancel();
            co_await sleep(0);
            EXPECT_TRUE(of_task.cancelled());
            EXPECT_TRUE(of_future.cancelled());
        }
        future.set_exception(ValueError("bad"));
        co_await sleep(5s);
        EXPECT_EQ(text_of(task.exception()), "ValueError: bad");
        EXPECT_EQ(text_of(future.exception()), "ValueError: bad");
    });
    EXPECT_EQ(reports.count(), 0U) << reports.text();
}

TEST(Shield, whose_waiting_was_cancelled_leaves_a_failure_that_nobody_sees_to_be_reported_once) {
    Reports reports;
    in_virtual_time([&]() -> Coro<> {
        reports.watch(get_running_loop());
        auto task = create_task(fail(2));
        auto first = shield(task);
        auto second = shield(task);
        first.cancel();
        second.cancel();
        co_await sleep(5s);
        EXPECT_EQ(reports.count(), 0U) << reports.text(); // it might still be looked at
    });
    EXPECT_EQ(reports.count("Task exception was never retrieved"), 1U);
    EXPECT_EQ(reports.count(), 1U) << reports.text();
    EXPECT_EQ(text_of(reports.all[0].exception), "ValueError: bad");
}

TEST(Shield, that_is_cancelled_as_the_inner_future_fails_leaves_the_failure_alone) {
    Reports reports;
    in_virtual_time([&]() -> Coro<> {
        reports.watch(get_running_loop());
        auto future = create_future<int>();
        auto outer = shield(future);
        future.set_exception(ValueError("bad"));
        outer.cancel();
        co_await sleep(0);
        EXPECT_TRUE(outer.cancelled());
        EXPECT_EQ(reports.count(), 0U);
    });
    EXPECT_EQ(reports.count("Future exception was never retrieved"), 1U);
    EXPECT_EQ(reports.count(), 1U) << reports.text();
}

TEST(Shield, tells_of_a_result_that_somebody_else_sets_as_the_inner_task_ends) {
    Reports reports;
    in_virtual_time([&]() -> Coro<> {
        reports.watch(get_running_loop());
        asyncio::Future<int> outer;
        for (const bool fails : {false, true}) {
            outer = shield(create_task([&outer, fails]() -> Coro<int> {
                outer.set_result(2);
                if (fails) throw ValueError("bad");
                co_return 1;
            }));
            co_await sleep(1s);
            EXPECT_EQ(outer.result(), 2);
        }
    });
    EXPECT_EQ(reports.count("Exception in callback"), 2U) << reports.text();
    EXPECT_EQ(reports.count(), 2U) << reports.text();
}

TEST(Shield, of_a_result_in_a_future_gives_it_at_once_and_of_a_pending_one_later) {
    in_virtual_time([]() -> Coro<> {
        auto done = create_future<int>();
        done.set_result(42);
        EXPECT_TRUE(shield(done) == done);
        auto future = create_future<int>();
        auto outer = shield(future);
        future.set_exception(ValueError("bad"));
        co_await sleep(0);
        EXPECT_EQ(text_of(outer.exception()), "ValueError: bad");
        auto cancelled = create_future<int>();
        outer = shield(cancelled);
        cancelled.cancel();
        co_await sleep(0);
        EXPECT_TRUE(outer.cancelled());
    });
}

TEST(Shield, of_a_gather_leaves_it_alone_and_gathered_leaves_its_child_alone) {
    in_virtual_time([]() -> Coro<> {
        auto a = create_future<int>();
        auto b = create_future<int>();
        auto gathered = asyncio::gather(a, b);
        auto outer = shield(gathered);
        co_await sleep(0);
        outer.cancel();
        co_await sleep(0);
        EXPECT_TRUE(outer.cancelled());
        a.set_result(1);
        b.set_result(2);
        const auto both = co_await gathered;
        EXPECT_EQ(both, std::make_tuple(1, 2));

        auto c = create_future<int>();
        auto d = create_future<int>();
        auto shielded = shield(c);
        auto other = shield(d);
        auto parent = asyncio::gather(shielded, other);
        co_await sleep(0);
        EXPECT_TRUE(parent.cancel());
        const auto result = co_await as_result(parent);
        EXPECT_TRUE(result.failed_with<CancelledError>());
        EXPECT_FALSE(parent.cancelled()); // a child was, and that is a failure
        EXPECT_TRUE(shielded.cancelled() && other.cancelled());
        EXPECT_FALSE(c.done() || d.done());
    });
}

TEST(Shield, of_a_coroutine_needs_a_running_loop) {
    EXPECT_EQ(asyncio_test::thrown_by([] { return shield(nop()); }).substr(0, 12), "RuntimeError");
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
