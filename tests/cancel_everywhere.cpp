// SPDX-License-Identifier: MIT
// Bodies that are cancelled at each of their suspension points.
#include <asyncio/asyncio.hpp>
#include <asyncio/testing/cancel_everywhere.hpp>
#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <unistd.h>
#include <vector>

using namespace std::chrono_literals;
using asyncio::as_completed;
using asyncio::as_result;
using asyncio::CancelledError;
using asyncio::Coro;
using asyncio::create_future;
using asyncio::create_task;
using asyncio::ExceptionGroup;
using asyncio::gather;
using asyncio::get_running_loop;
using asyncio::shield;
using asyncio::sleep;
using asyncio::task_group;
using asyncio::TaskGroup;
using asyncio::timeout;
using asyncio::Timeout;
using asyncio::try_finally;
using asyncio::ValueError;
using asyncio::wait;
using asyncio::wait_for;
using asyncio::testing::cancel_everywhere;
using asyncio::testing::CancelFailure;
using asyncio::testing::CancelOptions;
using Token = asyncio::testing::LeakToken;

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

Coro<> naps(Token token, int seconds) {
    co_await sleep(seconds);
    co_await sleep(0);
    EXPECT_GT(token.use_count(), 0);
}

// Two that end at the same time, and one later.
std::vector<asyncio::Task<>> three_naps(const Token& token) {
    std::vector<asyncio::Task<>> tasks;
    for (const int seconds : {1, 1, 3}) tasks.push_back(create_task(naps, token, seconds));
    return tasks;
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

TEST(CancelEverywhere, nested_coroutines) {
    EXPECT_GE(cancel_everywhere([](Token token) -> Coro<> {
                  const int sum = co_await nested(token, 20);
                  EXPECT_EQ(sum, 21);
                  const int again = co_await nested(token, 3);
                  EXPECT_EQ(again, 4);
              }),
              5);
}

const auto left_tasks_end = asyncio::testing::CancelOptions().may_leave_tasks(true);

TEST(CancelEverywhere, tasks) {
    EXPECT_GE(cancel_everywhere(
                  [](Token token) -> Coro<> {
                      auto a = create_task(leaf(token, 1));
                      auto b = create_task(nested, token, 2);
                      const int first = co_await a;
                      const int second = co_await b;
                      EXPECT_EQ(first + second, 4);
                  },
                  left_tasks_end),
              4);
}

TEST(CancelEverywhere, tasks_that_await_each_other) {
    EXPECT_GE(cancel_everywhere(
                  [](Token token) -> Coro<> {
                      auto a = create_task(leaf(token, 1));
                      auto await_it = [](asyncio::Task<int> task, Token) -> Coro<int> {
                          co_return co_await task;
                      };
                      auto b = create_task(await_it, a, token);
                      auto c = create_task(await_it, b, token);
                      const int value = co_await c;
                      EXPECT_EQ(value, 1);
                  },
                  left_tasks_end),
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
    EXPECT_GE(cancel_everywhere(
                  [](Token token) -> Coro<> {
                      auto fails = [](Token) -> Coro<int> {
                          co_await sleep(1s);
                          throw std::runtime_error("x");
                      };
                      auto results = co_await gather(asyncio::return_exceptions, leaf(token, 1),
                                                     fails(token), leaf(token, 2));
                      EXPECT_FALSE(std::get<1>(results));
                  },
                  CancelOptions().may_catch(true)),
              4);
}

TEST(CancelEverywhere, as_result_of_each_step) {
    EXPECT_GE(cancel_everywhere(
                  [](Token token) -> Coro<> {
                      auto slept = co_await as_result(sleep(1s));
                      auto from_leaf = co_await as_result(leaf(token, 1));
                      auto from_task = co_await as_result(create_task(leaf(token, 1)));
                      auto from_gather = co_await as_result(gather(leaf(token, 1), sleep(5s)));
                      // No more than one of them was cancelled.
                      EXPECT_GE(slept.has_value() + from_leaf.has_value() + from_task.has_value() +
                                    from_gather.has_value(),
                                3);
                  },
                  CancelOptions().may_catch(true)),
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
              3);
}

TEST(CancelEverywhere, one_future_that_several_tasks_await) {
    EXPECT_GE(cancel_everywhere(
                  [](Token token) -> Coro<> {
                      auto future = create_future<int>();
                      auto waiter = [future](Token) -> Coro<int> { co_return co_await future; };
                      auto setter = [future](Token) -> Coro<> {
                          co_await sleep(1s);
                          if (!future.done()) future.set_result(1);
                      };
                      const auto results =
                          co_await gather(asyncio::return_exceptions, waiter(token), waiter(token),
                                          setter(token), future);
                      EXPECT_EQ(std::get<1>(results).value(), 1);
                  },
                  CancelOptions().may_catch(true)),
              4);
}

TEST(CancelEverywhere, a_body_that_swallows_the_cancel_and_goes_on) {
    EXPECT_GE(cancel_everywhere(
                  [](Token token) -> Coro<> {
                      for (int i = 0; i < 3; ++i) {
                          bool cancelled = false;
                          try {
                              co_await leaf(token, i);
                          } catch (const asyncio::CancelledError&) {
                              cancelled = true;
                          }
                          if (cancelled) co_await sleep(1s);
                      }
                  },
                  CancelOptions().may_catch(true)),
              9);
}

TEST(CancelEverywhere, as_completed) {
    EXPECT_GE(cancel_everywhere(
                  [](Token token) -> Coro<> {
                      const auto tasks = three_naps(token);
                      auto ended = as_completed(tasks, 9s);
                      while (auto task = co_await ended.next()) EXPECT_TRUE(task->done());
                  },
                  left_tasks_end),
              4);
}

TEST(CancelEverywhere, shield) {
    EXPECT_GE(cancel_everywhere(
                  [](Token token) -> Coro<> {
                      co_await shield(naps(token, 1));
                      auto task = create_task(naps, token, 2);
                      co_await asyncio::wait_for(shield(task), 5s);
                  },
                  left_tasks_end),
              6);
}

TEST(CancelEverywhere, task_groups) {
    EXPECT_GE(cancel_everywhere([](Token token) -> Coro<> {
                  co_await task_group([&](TaskGroup& group) -> Coro<> {
                      const Token local = token;
                      group.create_task(naps, token, 1);
                      group.create_task(naps, token, 3);
                      co_await sleep(2s);
                      co_await task_group([&](TaskGroup& inner) -> Coro<> {
                          inner.create_task(naps, token, 4);
                          co_return;
                      });
                  });
                  const auto result = co_await as_result(task_group([&](TaskGroup& g) -> Coro<> {
                      g.create_task(naps, token, 5);
                      co_await sleep(1s);
                      throw ValueError("x");
                  }));
                  if (result.failed_with<CancelledError>()) throw CancelledError();
                  EXPECT_TRUE(result.failed_with<ExceptionGroup>());
              }),
              10);
}

TEST(CancelEverywhere, timeouts) {
    EXPECT_GE(cancel_everywhere([](Token token) -> Coro<> {
                  const Token local = token;
                  co_await timeout(3s, [&](Timeout& limit) -> Coro<> {
                      const Token inner = local;
                      co_await sleep(1s);
                      limit.reschedule(get_running_loop().time() + 5s);
                      co_await sleep(0);
                      co_await wait_for(sleep(1s), 2s);
                  });
                  const auto late = co_await as_result(timeout(1s, [&] { return naps(token, 5); }));
                  if (late.failed_with<CancelledError>()) throw CancelledError();
                  const auto at_once =
                      co_await as_result(timeout(0, [&] { return naps(token, 5); }));
                  if (at_once.failed_with<CancelledError>()) throw CancelledError();
                  const auto none = co_await as_result(wait_for(naps(token, 5), 0));
                  if (none.failed_with<CancelledError>()) throw CancelledError();
                  auto task = create_task(naps, token, 5);
                  const auto other = co_await as_result(wait_for(task, 1s));
                  if (other.failed_with<CancelledError>()) throw CancelledError();
              }),
              8);
}

TEST(CancelEverywhere, wait) {
    EXPECT_GE(cancel_everywhere(
                  [](Token token) -> Coro<> {
                      const auto tasks = three_naps(token);
                      const auto first = co_await wait(tasks, asyncio::FIRST_COMPLETED, 5s);
                      EXPECT_GE(first.done.size(), 1U);
                      co_await wait(tasks, asyncio::ALL_COMPLETED, 1s);
                      co_await wait(tasks);
                  },
                  left_tasks_end),
              6);
}

// --- the harness itself: it must see what is wrong ---

namespace {

template <class Body> std::string failure_of(Body body, const CancelOptions& options = {}) {
    try {
        cancel_everywhere(body, options);
    } catch (const CancelFailure& failure) {
        return failure.what();
    }
    return "none";
}

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

} // namespace

TEST(CancelEverywhere, sees_a_hang_and_says_where) {
    const std::string seen = failure_of([]() -> Coro<> {
        static_cast<void>(co_await as_result(sleep(1s)));
        auto never = create_future();
        co_await never;
    });
    EXPECT_TRUE(contains(seen, "cancelled in turn 1, at ")) << seen;
    EXPECT_TRUE(contains(seen, "the body hangs: it is not done, nothing is ready")) << seen;
    EXPECT_TRUE(contains(seen, "<Task pending name='Task-")) << seen;
}

TEST(CancelEverywhere, sees_a_cancel_that_is_swallowed) {
    const auto swallows = []() -> Coro<> { static_cast<void>(co_await as_result(sleep(1s))); };
    const std::string seen = failure_of(swallows);
    EXPECT_TRUE(contains(seen, "ended as if it had not been")) << seen;
    EXPECT_EQ(failure_of(swallows, CancelOptions().may_catch(true)), "none");
}

TEST(CancelEverywhere, sees_a_body_that_fails) {
    const auto fails = []() -> Coro<> {
        co_await sleep(1s);
        throw std::runtime_error("broken");
    };
    EXPECT_TRUE(contains(failure_of(fails), "without a cancel, the body failed: broken"));
    EXPECT_TRUE(contains(failure_of(fails, CancelOptions().may_catch(true)), "failed: broken"));
}

TEST(CancelEverywhere, sees_what_a_cancel_was_turned_into) {
    const auto translates = []() -> Coro<> {
        try {
            co_await sleep(1s);
        } catch (const asyncio::CancelledError&) {
            throw std::runtime_error("translated");
        }
    };
    EXPECT_TRUE(contains(failure_of(translates), "the body failed: translated"));
    EXPECT_EQ(failure_of(translates, CancelOptions().may_catch(true)), "none");
}

TEST(CancelEverywhere, sees_what_is_not_destroyed) {
    static Token kept;
    const std::string seen = failure_of([](Token token) -> Coro<> {
        kept = token;
        co_await sleep(1s);
    });
    EXPECT_TRUE(contains(seen, "did not destroy all copies of its LeakToken")) << seen;
    kept.reset();
}

TEST(CancelEverywhere, sees_a_timer_that_is_left) {
    const std::string seen = failure_of([]() -> Coro<> {
        get_running_loop().call_later(1h, [] {});
        co_await sleep(1s);
    });
    EXPECT_TRUE(contains(seen, "left a timer behind")) << seen;
}

TEST(CancelEverywhere, sees_a_task_that_is_left) {
    const std::string seen = failure_of([]() -> Coro<> {
        create_task([]() -> Coro<> { co_await create_future(); });
        co_await sleep(1s);
    });
    EXPECT_TRUE(contains(seen, "left tasks behind:\n  <Task pending")) << seen;
}

TEST(CancelEverywhere, finds_a_task_that_a_cancel_orphans) {
    // On the good path it is cancelled; a cancel of the body leaves it to go on alone.
    const auto orphaning = [](Token) -> Coro<> {
        auto child = create_task(asyncio::sleep(100s));
        co_await asyncio::sleep(1s);
        child.cancel();
    };
    const std::string seen = failure_of(orphaning);
    EXPECT_TRUE(contains(seen, "left tasks behind:\n  <Task pending")) << seen;
}

TEST(CancelEverywhere, finds_a_reader_that_is_left) {
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    const auto leaving = [&](Token) -> Coro<> {
        asyncio::get_running_loop().add_reader(ends[0], [] {});
        co_await asyncio::sleep(1s);
    };
    const std::string seen = failure_of(leaving);
    EXPECT_TRUE(contains(seen, "left a reader or writer behind")) << seen;
    ::close(ends[0]);
    ::close(ends[1]);
}

TEST(CancelEverywhere, sees_a_report) {
    const std::string seen = failure_of([]() -> Coro<> {
        co_await sleep(0);
        get_running_loop().call_exception_handler({.message = "something odd"});
    });
    EXPECT_TRUE(contains(seen, "had this reported to the exception handler: something odd"))
        << seen;
}

TEST(CancelEverywhere, sees_a_body_without_an_end) {
    const auto endless = []() -> Coro<> {
        for (int i = 0; i < 100; ++i) static_cast<void>(co_await as_result(sleep(1s)));
    };
    EXPECT_TRUE(
        contains(failure_of(endless, CancelOptions().most_turns(5)), "is not done after 5"));
}

TEST(CancelEverywhere, sees_that_there_was_nothing_to_cancel) {
    int ran = 0;
    const std::string seen = failure_of([&]() -> Coro<> {
        ++ran;
        co_return;
    });
    EXPECT_TRUE(contains(seen, "no cancel was made")) << seen;
    EXPECT_EQ(ran, 1); // cancelled before its first step, and then left alone
}
