// SPDX-License-Identifier: MIT
// The traces are CPython's.
#include <asyncio/asyncio.hpp>

#include "support/in_virtual_time.hpp"
#include "support/turns.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

using namespace std::chrono_literals;
using asyncio::as_completed;
using asyncio::as_result;
using asyncio::CancelledError;
using asyncio::Coro;
using asyncio::create_future;
using asyncio::create_task;
using asyncio::sleep;
using asyncio_test::in_virtual_time;
using asyncio_test::Log;
using asyncio_test::thrown_by;
using asyncio_test::Trace;
using asyncio_test::trace_of;

namespace {

Coro<> nop() { co_return; }
Coro<std::string> nap(int seconds, std::string value) {
    co_await sleep(seconds);
    co_return value;
}

} // namespace

TEST(AsCompleted, takes_the_turns_that_cpython_takes) {
    EXPECT_EQ(trace_of([](Log& log) -> Coro<> {
                  int begin = log.turns().now();
                  const auto note = [&](const std::string& what) {
                      log(what + " " + std::to_string(log.turns().now() - begin));
                      begin = log.turns().now();
                  };
                  const std::vector<asyncio::Task<>> tasks(1, create_task(nop()));
                  auto ended = as_completed(tasks);
                  auto next = co_await ended.next();
                  note("task");
                  EXPECT_TRUE(next == tasks[0]);
                  next = co_await ended.next();
                  EXPECT_FALSE(next.has_value());
                  note("end");
                  auto again = as_completed(tasks);
                  next = co_await again.next();
                  note("done");
                  std::vector<asyncio::Future<>> futures(2);
                  for (auto& future : futures) future = create_future();
                  auto never = as_completed(futures, 1s);
                  const auto result = co_await as_result(never.next());
                  EXPECT_TRUE(result.failed_with<asyncio::TimeoutError>());
                  note("timeout");
              }),
              (Trace{"4 task 3", "4 end 0", "6 done 2", "8 timeout 2"}));
}

TEST(AsCompleted, gives_each_task_once_in_the_order_of_their_ends) {
    EXPECT_EQ(trace_of([](Log& log) -> Coro<> {
                  std::vector<asyncio::Task<std::string>> tasks;
                  tasks.push_back(create_task(nap(3, "c")));
                  tasks.push_back(create_task(nap(1, "a")));
                  tasks.push_back(create_task(nap(2, "b")));
                  tasks.push_back(tasks[0]);
                  auto ended = as_completed(tasks);
                  while (auto task = co_await ended.next()) log(task->result());
              }),
              (Trace{"6 a", "10 b", "14 c"}));
}

TEST(AsCompleted, throws_for_each_that_is_left_when_the_time_is_up) {
    EXPECT_EQ(trace_of([](Log& log) -> Coro<> {
                  std::vector<Coro<std::string>> coroutines;
                  coroutines.push_back(nap(3, "c"));
                  coroutines.push_back(nap(1, "a"));
                  coroutines.push_back(nap(5, "b"));
                  auto ended = as_completed(coroutines, 2s);
                  for (int i = 0; i < 4; ++i) {
                      const auto next = co_await as_result(ended.next());
                      log(!next                          ? "TimeoutError"
                          : next.value() == std::nullopt ? "stop"
                                                         : next.value()->result());
                  }
              }),
              (Trace{"6 a", "8 TimeoutError", "8 TimeoutError", "8 stop"}));
}

TEST(AsCompleted, serves_several_who_wait) {
    EXPECT_EQ(trace_of([](Log& log) -> Coro<> {
                  std::vector<asyncio::Task<std::string>> tasks;
                  tasks.push_back(create_task(nap(3, "c")));
                  tasks.push_back(create_task(nap(1, "a")));
                  auto ended = as_completed(tasks);
                  const auto getter = [](Log& to, decltype(ended) from,
                                         std::string name) -> Coro<> {
                      const auto next = co_await as_result(from.next());
                      if (!next) {
                          to(name + " cancelled");
                      } else {
                          to(name + " " + (next.value() ? next.value()->result() : "stop"));
                      }
                  };
                  std::vector<asyncio::Task<>> getters;
                  getters.push_back(create_task(getter(log, ended, "1")));
                  getters.push_back(create_task(getter(log, ended, "2")));
                  co_await sleep(0);
                  getters[0].cancel();
                  co_await asyncio::wait(getters);
                  co_await getter(log, ended, "3");
                  co_await getter(log, ended, "4");
              }),
              (Trace{"3 1 cancelled", "8 2 a", "14 3 c", "14 4 stop"}));
}

TEST(AsCompleted, passes_a_wake_on_when_who_got_it_is_cancelled) {
    in_virtual_time([]() -> Coro<> {
        std::vector<asyncio::Future<int>> futures(3);
        for (auto& future : futures) future = asyncio::create_future<int>();
        auto ended = as_completed(futures);
        const auto getter = [](decltype(ended) from) -> Coro<int> {
            const auto next = co_await from.next();
            co_return next->result();
        };
        auto first = create_task(getter(ended));
        auto second = create_task(getter(ended));
        co_await sleep(0);
        futures[0].set_result(5);
        co_await sleep(0); // its watch has run: the first is about to go on
        first.cancel();
        const auto lost = co_await as_result(first);
        EXPECT_TRUE(lost.failed_with<CancelledError>());
        const int value = co_await second;
        EXPECT_EQ(value, 5);
    });
}

// Asked again, it gives all of them: a cancel of the one who waited is not counted.
TEST(AsCompleted, loses_nothing_when_who_waits_is_cancelled) {
    in_virtual_time([]() -> Coro<> {
        std::vector<asyncio::Future<int>> futures(2);
        for (auto& future : futures) future = asyncio::create_future<int>();
        auto ended = as_completed(futures);
        auto waiting = create_task(ended.next());
        co_await sleep(0);
        waiting.cancel();
        const auto lost = co_await as_result(waiting);
        EXPECT_TRUE(lost.failed_with<CancelledError>());
        futures[1].set_result(1);
        futures[0].set_result(0);
        std::vector<int> values;
        while (auto future = co_await ended.next()) values.push_back(future->result());
        EXPECT_EQ(values, (std::vector<int>{1, 0}));
    });
}

TEST(AsCompleted, gives_the_tasks_that_it_was_given_and_others_for_coroutines) {
    in_virtual_time([]() -> Coro<> {
        std::vector<asyncio::Task<std::string>> tasks;
        for (const char* name : {"a", "b"}) tasks.push_back(create_task(nap(0, name)));
        auto ended = as_completed(tasks);
        int same = 0;
        while (auto task = co_await ended.next()) same += *task == tasks[0] || *task == tasks[1];
        EXPECT_EQ(same, 2);
        std::vector<Coro<std::string>> coroutines;
        for (const char* name : {"c", "d"}) coroutines.push_back(nap(0, name));
        auto others = as_completed(std::move(coroutines));
        std::string names;
        while (auto task = co_await others.next()) {
            names += task->result();
            co_await sleep(0); // it goes on where it was
        }
        EXPECT_EQ(names, "cd");
    });
}

TEST(AsCompleted, of_coroutines_needs_a_running_loop) {
    std::vector<Coro<std::string>> coroutines;
    coroutines.push_back(nap(0, "a"));
    EXPECT_EQ(thrown_by([&] { return as_completed(coroutines); }).substr(0, 12), "RuntimeError");
    coroutines.front().close();
}

TEST(AsCompleted, can_be_dropped_and_is_over_at_once_without_tasks) {
    in_virtual_time([]() -> Coro<> {
        std::vector<asyncio::Task<std::string>> tasks;
        auto none = as_completed(tasks, 1s);
        const auto next = co_await none.next();
        EXPECT_FALSE(next.has_value());
        tasks.push_back(create_task(nap(1, "a")));
        tasks.push_back(create_task(nap(0, "b")));
        co_await sleep(0);
        {
            auto dropped = as_completed(tasks, 5s);
            co_await sleep(0);
        }
        EXPECT_EQ(thrown_by([] {
                      const auto loop = asyncio::new_event_loop();
                      return as_completed(
                          std::vector<asyncio::Future<>>(1, create_future<>(*loop)));
                  }).substr(0, 10),
                  "ValueError");
        const auto text = co_await tasks[0];
        EXPECT_EQ(text, "a");
        EXPECT_TRUE(asyncio::get_running_loop().core().timers.empty());
    });
}
