// SPDX-License-Identifier: MIT
// Bodies that are cancelled at each of their suspension points.
#include "support/cancel_everywhere.hpp"

#include <asyncio/asyncio.hpp>
#include <gtest/gtest-spi.h>
#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <vector>

using namespace std::chrono_literals;
using asyncio::as_result;
using asyncio::Coro;
using asyncio::create_future;
using asyncio::create_task;
using asyncio::gather;
using asyncio::get_running_loop;
using asyncio::sleep;
using asyncio::try_finally;
using asyncio_test::cancel_everywhere;
using asyncio_test::Token;

namespace {

Coro<int> leaf(Token token, int value) {
    co_await sleep(1s);
    co_await sleep(0);
    co_return value + static_cast<int>(token.use_count() * 0);
}

Coro<int> nested(Token token, int depth) {
    if (depth == 0) co_return co_await leaf(token, 1);
    const int below = co_await nested(token, depth - 1);
    co_return below + 1;
}

} // namespace

TEST(CancelEverywhere, sleeps) {
    EXPECT_GE(cancel_everywhere([](Token token) -> Coro<> {
                  const Token local = token;
                  co_await sleep(1s);
                  co_await sleep(0);
                  const auto word = co_await sleep(2s, std::string("word"));
                  EXPECT_EQ(word, "word");
                  co_await sleep(1ns);
              }),
              5);
}

TEST(CancelEverywhere, a_body_that_never_suspends_is_cancelled_before_its_first_step_only) {
    int ran = 0;
    EXPECT_EQ(cancel_everywhere([&](Token) -> Coro<> {
                  ++ran;
                  co_return;
              }),
              1);
    EXPECT_EQ(ran, 1);
}

TEST(CancelEverywhere, nested_coroutines) {
    EXPECT_GE(cancel_everywhere([](Token token) -> Coro<> {
                  const int sum = co_await nested(token, 20);
                  EXPECT_EQ(sum, 21);
                  const int again = co_await nested(token, 3);
                  EXPECT_EQ(again, 4);
              }),
              5);
}

TEST(CancelEverywhere, tasks) {
    EXPECT_GE(cancel_everywhere([](Token token) -> Coro<> {
                  auto a = create_task(leaf(token, 1));
                  auto b = create_task(nested, token, 2);
                  const int first = co_await a;
                  const int second = co_await b;
                  EXPECT_EQ(first + second, 4);
              }),
              4);
}

TEST(CancelEverywhere, tasks_that_await_each_other) {
    EXPECT_GE(cancel_everywhere([](Token token) -> Coro<> {
                  auto a = create_task(leaf(token, 1));
                  auto await_it = [](asyncio::Task<int> task, Token) -> Coro<int> {
                      co_return co_await task;
                  };
                  auto b = create_task(await_it, a, token);
                  auto c = create_task(await_it, b, token);
                  const int value = co_await c;
                  EXPECT_EQ(value, 1);
              }),
              4);
}

TEST(CancelEverywhere, gather_of_coroutines) {
    EXPECT_GE(cancel_everywhere([](Token token) -> Coro<> {
                  const auto results =
                      co_await gather(leaf(token, 1), nested(token, 2), sleep(3s), leaf(token, 4));
                  EXPECT_EQ(std::get<3>(results), 4);
              }),
              6);
}

TEST(CancelEverywhere, gather_of_a_range_and_nested) {
    EXPECT_GE(cancel_everywhere([](Token token) -> Coro<> {
                  std::vector<Coro<int>> many;
                  for (int i = 0; i < 10; ++i) many.push_back(leaf(token, i));
                  const auto results = co_await gather(gather(many), gather(leaf(token, 1)));
                  EXPECT_EQ(std::get<0>(results).at(9), 9);
              }),
              4);
}

TEST(CancelEverywhere, gather_with_return_exceptions) {
    EXPECT_GE(cancel_everywhere([](Token token) -> Coro<> {
                  auto fails = [](Token) -> Coro<int> {
                      co_await sleep(1s);
                      throw std::runtime_error("x");
                  };
                  auto results = co_await gather(asyncio::return_exceptions, leaf(token, 1),
                                                 fails(token), leaf(token, 2));
                  EXPECT_FALSE(std::get<1>(results));
              }),
              4);
}

TEST(CancelEverywhere, as_result_of_each_step) {
    EXPECT_GE(cancel_everywhere([](Token token) -> Coro<> {
                  auto slept = co_await as_result(sleep(1s));
                  auto from_leaf = co_await as_result(leaf(token, 1));
                  auto from_task = co_await as_result(create_task(leaf(token, 1)));
                  auto from_gather = co_await as_result(gather(leaf(token, 1), sleep(5s)));
                  // No more than one of them was cancelled.
                  EXPECT_GE(slept.has_value() + from_leaf.has_value() + from_task.has_value() +
                                from_gather.has_value(),
                            3);
              }),
              8);
}

TEST(CancelEverywhere, try_finally_cleans_up_once_it_has_begun) {
    int begun = 0;
    int cleaned = 0;
    EXPECT_GE(cancel_everywhere([&](Token token) -> Coro<> {
                  auto body = [&]() -> Coro<int> {
                      ++begun;
                      co_return co_await leaf(token, 1);
                  };
                  auto cleanup = [&]() -> Coro<> {
                      ++cleaned;
                      co_await sleep(1s);
                      co_await sleep(0);
                  };
                  const int value = co_await try_finally(body, cleanup);
                  EXPECT_EQ(value, 1);
              }),
              5);
    EXPECT_GT(begun, 1);
    EXPECT_EQ(begun, cleaned);
}

TEST(CancelEverywhere, futures_set_by_timers) {
    EXPECT_GE(cancel_everywhere([](Token token) -> Coro<> {
                  auto future = create_future<Token>();
                  auto timer = get_running_loop().call_later(1s, [future, token]() mutable {
                      if (!future.done()) future.set_result(std::move(token));
                  });
                  struct Cancel {
                      asyncio::TimerHandle& timer;
                      ~Cancel() { timer.cancel(); }
                  };
                  const Cancel at_end{timer};
                  const Token value = co_await std::move(future);
                  EXPECT_EQ(value, token);
                  co_await sleep(0);
              }),
              4);
}

TEST(CancelEverywhere, one_future_that_several_tasks_await) {
    EXPECT_GE(cancel_everywhere([](Token token) -> Coro<> {
                  auto future = create_future<int>();
                  auto waiter = [future](Token) -> Coro<int> { co_return co_await future; };
                  auto setter = [future](Token) -> Coro<> {
                      co_await sleep(1s);
                      if (!future.done()) future.set_result(1);
                  };
                  const auto results = co_await gather(asyncio::return_exceptions, waiter(token),
                                                       waiter(token), setter(token), future);
                  EXPECT_EQ(std::get<1>(results).value(), 1);
              }),
              4);
}

TEST(CancelEverywhere, a_body_that_swallows_the_cancel_and_goes_on) {
    EXPECT_GE(cancel_everywhere([](Token token) -> Coro<> {
                  for (int i = 0; i < 3; ++i) {
                      bool cancelled = false;
                      try {
                          co_await leaf(token, i);
                      } catch (const asyncio::CancelledError&) {
                          cancelled = true;
                      }
                      if (cancelled) co_await sleep(1s);
                  }
              }),
              9);
}

// --- the harness itself: it must see what is wrong ---

namespace {

template <class Body> std::string failures_of(Body body, int most = 5) {
    ::testing::TestPartResultArray results;
    {
        const ::testing::ScopedFakeTestPartResultReporter fake(
            ::testing::ScopedFakeTestPartResultReporter::INTERCEPT_ONLY_CURRENT_THREAD, &results);
        cancel_everywhere(body, most);
    }
    std::string text;
    for (int i = 0; i < results.size(); ++i) text += results.GetTestPartResult(i).message();
    return text;
}

} // namespace

TEST(CancelEverywhere, sees_a_hang) {
    const std::string seen = failures_of([]() -> Coro<> {
        static_cast<void>(co_await as_result(sleep(1s)));
        auto never = create_future();
        co_await never;
    });
    EXPECT_NE(seen.find("the body is not done"), std::string::npos) << seen;
}

TEST(CancelEverywhere, sees_what_is_not_destroyed) {
    static Token kept;
    const std::string seen = failures_of([](Token token) -> Coro<> {
        kept = token;
        co_await sleep(1s);
    });
    EXPECT_NE(seen.find("a local was not destroyed"), std::string::npos) << seen;
    kept.reset();
}

TEST(CancelEverywhere, sees_a_timer_that_is_left) {
    const std::string seen = failures_of([]() -> Coro<> {
        get_running_loop().call_later(1h, [] {});
        co_await sleep(1s);
    });
    EXPECT_NE(seen.find("a timer is left"), std::string::npos) << seen;
}

TEST(CancelEverywhere, sees_a_body_without_an_end) {
    const std::string seen = failures_of([]() -> Coro<> {
        for (int i = 0; i < 100; ++i) static_cast<void>(co_await as_result(sleep(1s)));
    });
    EXPECT_NE(seen.find("does not end within"), std::string::npos) << seen;
}
