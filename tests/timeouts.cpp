// SPDX-License-Identifier: MIT
// timeout, timeout_at, Timeout and wait_for. The traces are CPython's.
#include <asyncio/asyncio.hpp>

#include "support/in_virtual_time.hpp"
#include "support/turns.hpp"

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

using namespace std::chrono_literals;
using asyncio::as_result;
using asyncio::CancelledError;
using asyncio::Coro;
using asyncio::create_future;
using asyncio::create_task;
using asyncio::current_task;
using asyncio::get_running_loop;
using asyncio::sleep;
using asyncio::timeout;
using asyncio::Timeout;
using asyncio::timeout_at;
using asyncio::TimeoutError;
using asyncio::wait_for;
using asyncio_test::in_virtual_time;
using asyncio_test::Log;
using asyncio_test::Reports;
using asyncio_test::thrown_by;
using asyncio_test::Trace;
using asyncio_test::trace_of;
using asyncio_test::Turns;

namespace {

std::string told(bool a, bool b) {
    return std::string(a ? "True" : "False") + (b ? " True" : " False");
}
std::string cancelling() { return std::to_string(current_task().cancelling()); }

Coro<> nop() { co_return; }
Coro<> forever() { co_await create_future(); }
Coro<> nap(int seconds) { co_await sleep(seconds); }

// How many turns a wait takes that may end with TimeoutError.
template <class A> Coro<int> turns_of(Turns& turns, A awaitable) {
    const int begin = turns.now();
    const auto result = co_await as_result(std::move(awaitable));
    static_cast<void>(result);
    co_return turns.now() - begin;
}

Coro<> hops(Log& log) {
    Turns& turns = log.turns();
    const auto note = [&](const char* what, int count) {
        log(std::string(what) + " " + std::to_string(count));
    };
    int count = co_await turns_of(turns, wait_for(nop(), 1s));
    note("coroutine", count);
    auto task = create_task(nop());
    count = co_await turns_of(turns, wait_for(task, 1s));
    note("task", count);
    count = co_await turns_of(turns, wait_for(nop(), 0));
    note("coroutine, 0", count);
    count = co_await turns_of(turns, wait_for(create_future(), 0));
    note("future, 0", count);
    auto started = create_task(forever());
    co_await sleep(0);
    count = co_await turns_of(turns, wait_for(started, 0));
    note("started task, 0", count);
    count = co_await turns_of(turns, timeout(0, []() { return nap(1000); }));
    note("timeout(0)", count);
    count = co_await turns_of(turns, timeout(-1, []() { return nap(0); }));
    note("timeout(-1) of sleep(0)", count);
    count = co_await turns_of(turns, timeout(0, nop));
    note("timeout(0) of nothing", count);
    co_await sleep(0); // the handle that it has cancelled takes a turn
    count = co_await turns_of(turns, wait_for(sleep(5s), 1s));
    note("wait_for(sleep)", count);
    count = co_await turns_of(turns, timeout(1s, [] { return nap(5); }));
    note("timeout(sleep)", count);
}

} // namespace

TEST(Timeouts, take_the_turns_that_cpython_takes) {
    Trace counts;
    for (const std::string& line : trace_of(hops))
        counts.push_back(line.substr(line.find(' ') + 1));
    EXPECT_EQ(counts, (Trace{"coroutine 0", "task 2", "coroutine, 0 3", "future, 0 2",
                             "started task, 0 3", "timeout(0) 2", "timeout(-1) of sleep(0) 1",
                             "timeout(0) of nothing 0", "wait_for(sleep) 2", "timeout(sleep) 2"}));
}

// Its time is up before what the body makes ready, though that is in the same turn.
TEST(Timeouts, of_a_time_that_has_passed_come_before_what_the_body_waits_for) {
    in_virtual_time([]() -> Coro<> {
        for (const int seconds : {0, -1}) {
            const auto result = co_await as_result(timeout(seconds, [] { return nap(0); }));
            EXPECT_TRUE(result.failed_with<TimeoutError>());
        }
    });
}

TEST(Timeouts, give_what_the_body_gives) {
    in_virtual_time([]() -> Coro<> {
        const int number = co_await timeout(1s, []() -> Coro<int> { co_return 42; });
        EXPECT_EQ(number, 42);
        auto owned = co_await timeout(std::nullopt, []() -> Coro<std::unique_ptr<int>> {
            co_await sleep(1h);
            co_return std::make_unique<int>(7);
        });
        EXPECT_EQ(*owned, 7);
        int place = 0;
        int& same = co_await timeout(1s, [&]() -> Coro<int&> { co_return place; });
        EXPECT_EQ(&same, &place);
        const auto asked = co_await timeout(
            5s, [](Timeout& limit) -> Coro<asyncio::TimePoint> { co_return *limit.when(); });
        EXPECT_EQ(asked, get_running_loop().time() + 5s);
    });
}

TEST(Timeouts, become_a_TimeoutError_and_leave_no_cancel_behind) {
    in_virtual_time([]() -> Coro<> {
        const auto begin = get_running_loop().time();
        bool cleaned = false;
        std::string thrown;
        try {
            co_await timeout(2s, [&]() -> Coro<> {
                try {
                    co_await sleep(1h);
                } catch (const CancelledError&) {
                    cleaned = true;
                    throw;
                }
            });
        } catch (const TimeoutError& error) {
            thrown = error.what();
        }
        EXPECT_EQ(thrown, "the time is up");
        EXPECT_TRUE(cleaned);
        EXPECT_EQ(get_running_loop().time() - begin, 2s);
        EXPECT_EQ(current_task().cancelling(), 0U);
        co_await sleep(1s);
        EXPECT_TRUE(get_running_loop().core().timers.empty());
    });
}

TEST(Timeouts, that_are_nested_tell_their_own_cancels) {
    EXPECT_EQ(trace_of([](Log& log) -> Coro<> {
                  Timeout outer(2s);
                  Timeout inner(1s);
                  try {
                      co_await timeout(outer, [&]() -> Coro<> {
                          try {
                              co_await timeout(inner, [] { return nap(10); });
                          } catch (const TimeoutError&) {
                              log("inner " + told(inner.expired(), outer.expired()));
                          }
                          co_await sleep(10s);
                      });
                  } catch (const TimeoutError&) {
                      log("outer " + told(inner.expired(), outer.expired()));
                  }
              }),
              (Trace{"3 inner True False", "5 outer True True"}));
    EXPECT_EQ(trace_of([](Log& log) -> Coro<> {
                  Timeout outer(1s);
                  Timeout inner(2s);
                  try {
                      co_await timeout(outer, [&]() -> Coro<> {
                          try {
                              co_await timeout(inner, [] { return nap(10); });
                          } catch (const CancelledError&) {
                              log(std::string("inner cancelled ") +
                                  (inner.expired() ? "True" : "False"));
                              throw;
                          }
                      });
                  } catch (const TimeoutError&) {
                      log("outer " + told(inner.expired(), outer.expired()));
                  }
              }),
              (Trace{"3 inner cancelled False", "3 outer False True"}));
    EXPECT_EQ(trace_of([](Log& log) -> Coro<> {
                  Timeout outer(0);
                  Timeout inner(0);
                  try {
                      co_await timeout(outer, [&]() -> Coro<> {
                          try {
                              co_await timeout(inner, [] { return nap(10); });
                          } catch (const CancelledError&) {
                              log("inner cancelled " + cancelling());
                              throw;
                          }
                      });
                  } catch (const TimeoutError&) {
                      log("outer " + told(inner.expired(), outer.expired()) + " " + cancelling());
                  }
              }),
              (Trace{"3 inner cancelled 1", "3 outer True True 0"}));
}

TEST(Timeouts, keep_a_cancel_that_came_from_outside_in_the_same_window) {
    EXPECT_EQ(trace_of([](Log& log) -> Coro<> {
                  const auto worker = [](Log& to) -> Coro<> {
                      Timeout limit(1s);
                      try {
                          co_await timeout(limit, [&]() -> Coro<> {
                              to("body");
                              co_await sleep(5s);
                          });
                      } catch (const CancelledError& error) {
                          to(std::string("CancelledError ") + error.message() + " cancelling " +
                             cancelling() + " expired " + (limit.expired() ? "True" : "False"));
                          throw;
                      }
                  };
                  auto task = create_task(worker(log));
                  get_running_loop().call_later(1s, [task] { task.cancel("outside"); });
                  log("go");
                  try {
                      co_await task;
                  } catch (const CancelledError& error) {
                      log(std::string("main ") + error.message());
                  }
              }),
              (Trace{"1 go", "2 body", "4 CancelledError outside cancelling 1 expired True",
                     "5 main outside"}));
}

TEST(Timeouts, of_a_body_that_swallows_the_cancel_have_expired_and_throw_nothing) {
    EXPECT_EQ(trace_of([](Log& log) -> Coro<> {
                  Timeout limit(1s);
                  co_await timeout(limit, [&]() -> Coro<> {
                      try {
                          co_await sleep(10s);
                      } catch (const CancelledError&) {
                          log("swallowed " + cancelling());
                      }
                      co_await sleep(0);
                      log("on");
                  });
                  log("end " + told(limit.expired(), false) + " " + cancelling());
              }),
              (Trace{"3 swallowed 1", "4 on", "4 end True False 0"}));
}

TEST(Timeouts, let_another_exception_of_the_body_pass) {
    EXPECT_EQ(trace_of([](Log& log) -> Coro<> {
                  Timeout limit(1s);
                  try {
                      co_await timeout(limit, []() -> Coro<> {
                          try {
                              co_await sleep(10s);
                          } catch (const CancelledError&) {
                              throw asyncio::ValueError("x");
                          }
                      });
                  } catch (const asyncio::ValueError&) {
                      log("ValueError " + told(limit.expired(), false) + " " + cancelling());
                  }
              }),
              (Trace{"3 ValueError True False 0"}));
}

TEST(Timeouts, of_a_task_that_has_swallowed_a_cancel_before_count_from_there) {
    EXPECT_EQ(trace_of([](Log& log) -> Coro<> {
                  const auto worker = [](Log& to) -> Coro<> {
                      try {
                          co_await sleep(10s);
                      } catch (const CancelledError&) {
                          to("swallow");
                      }
                      try {
                          co_await timeout(1s, [] { return nap(10); });
                      } catch (const TimeoutError&) {
                          to("TimeoutError " + cancelling());
                      }
                  };
                  auto task = create_task(worker(log));
                  co_await sleep(0);
                  task.cancel();
                  co_await task;
              }),
              (Trace{"3 swallow", "5 TimeoutError 1"}));
}

TEST(Timeouts, that_come_after_the_value_but_before_the_task_win) {
    EXPECT_EQ(trace_of([](Log& log) -> Coro<> {
                  auto future = create_future<int>();
                  const auto when = get_running_loop().time() + 1s;
                  get_running_loop().call_at(when, [future] { future.set_result(1); });
                  try {
                      co_await timeout_at(when, [&]() -> Coro<> {
                          co_await future;
                          ADD_FAILURE();
                      });
                  } catch (const TimeoutError&) {
                      log("TimeoutError " + cancelling());
                  }
              }),
              (Trace{"3 TimeoutError 0"}));
}

// The body ends after the loop has seen that the timer is due, but before the timer runs.
TEST(Timeouts, that_are_due_in_the_turn_in_which_the_body_ends_have_not_expired) {
    Turns turns;
    const int left = turns.run(
        +[](Turns& time) -> Coro<int> {
            for (const bool cancelled : {false, true}) {
                Timeout limit(1s);
                bool told_late = false;
                auto waiting = create_task([&]() -> Coro<> {
                    co_await timeout(limit, []() -> Coro<> { co_await sleep(0); });
                    EXPECT_FALSE(limit.expired());
                    if (cancelled) {
                        try {
                            co_await sleep(1s);
                            ADD_FAILURE();
                        } catch (const CancelledError&) {
                            told_late = true;
                            throw;
                        }
                    }
                });
                co_await sleep(0);
                // Now the body is ready, and in the next turn the timer is due too.
                time.advance(2s);
                if (cancelled) {
                    get_running_loop().call_soon([&] { waiting.cancel(); });
                }
                const auto result = co_await as_result(waiting);
                EXPECT_EQ(result.has_value(), !cancelled);
                EXPECT_EQ(told_late, cancelled);
            }
            co_return get_running_loop().core().timers.earliest() == nullptr ? 0 : 1;
        },
        turns);
    EXPECT_EQ(left, 1); // that of Turns
}

TEST(Timeouts, can_be_rescheduled_while_the_body_runs) {
    EXPECT_EQ(
        trace_of([](Log& log) -> Coro<> {
            auto& loop = get_running_loop();
            Timeout limit(1s);
            log(thrown_by([&] { limit.reschedule(std::nullopt); }).substr(0, 44));
            co_await timeout(limit, [&]() -> Coro<> {
                limit.reschedule(loop.time() + 5s);
                co_await sleep(3s);
                log("on");
                limit.reschedule(std::nullopt);
                co_await sleep(30s);
                log(limit.when() ? "when" : "never");
                limit.reschedule(loop.time() - 1s);
                try {
                    co_await sleep(1s);
                } catch (const CancelledError&) {
                    log("c");
                }
                log(thrown_by([&] { limit.reschedule(std::nullopt); }));
            });
            log(thrown_by([&] { limit.reschedule(std::nullopt); }));
            const auto again = co_await as_result(timeout(limit, nop));
            log(asyncio_test::text_of(again.exception()));
            Timeout in_time(1s);
            co_await timeout(in_time, nop);
            log(thrown_by([&] { in_time.reschedule(std::nullopt); }));
        }),
        (Trace{"1 RuntimeError: Timeout has not been entered: ", "3 on", "5 never", "7 c",
               "7 RuntimeError: Cannot change state of expiring Timeout",
               "7 RuntimeError: Cannot change state of expired Timeout",
               "7 RuntimeError: Timeout has already been entered: make another one for each use",
               "7 RuntimeError: Cannot change state of finished Timeout"}));
}

TEST(Timeouts, that_are_rescheduled_in_the_turn_in_which_they_are_due_follow_the_new_time) {
    Turns turns;
    turns.run(
        +[](Turns& time) -> Coro<int> {
            for (const int later : {10, 0, -1}) {
                Timeout limit(1s);
                auto waiting = create_task([&]() -> Coro<> {
                    co_await timeout(limit, [&]() -> Coro<> {
                        co_await sleep(0);
                        if (later < 0) {
                            limit.reschedule(std::nullopt);
                        } else {
                            limit.reschedule(get_running_loop().time() + later * 1s);
                        }
                        co_await sleep(1h);
                    });
                });
                co_await sleep(0);
                time.advance(2s);
                const auto begin = get_running_loop().time();
                const auto result = co_await as_result(waiting);
                EXPECT_EQ(result.failed_with<TimeoutError>(), later >= 0);
                EXPECT_EQ(get_running_loop().time() - begin, later < 0 ? 3600s : later * 1s);
            }
            co_return 0;
        },
        turns);
}

TEST(Timeouts, are_not_armed_when_the_body_cannot_be_made) {
    in_virtual_time([]() -> Coro<> {
        const auto failing = [](Timeout&) -> Coro<> {
            throw std::runtime_error("no body");
            co_return;
        };
        const auto result = co_await as_result(timeout(1s, failing));
        EXPECT_TRUE(result.failed_with<std::runtime_error>());
        const auto plain = [](Timeout&) -> Coro<> { throw std::logic_error("no coroutine"); };
        const auto second = co_await as_result(timeout(1s, plain));
        EXPECT_TRUE(second.failed_with<std::logic_error>());
        EXPECT_TRUE(get_running_loop().core().timers.empty());
    });
}

TEST(Timeouts, of_a_loop_that_closes_go_with_it) {
    asyncio::testing::VirtualClock clock;
    Reports reports;
    auto loop = asyncio::new_event_loop(asyncio::LoopOptions().clock(clock));
    reports.watch(*loop);
    const auto token = std::make_shared<int>(1);
    create_task(
        *loop,
        [](std::shared_ptr<int> kept) -> Coro<> {
            co_await timeout(1s, [&] { return nap(static_cast<int>(kept.use_count()) * 10); });
        },
        token);
    create_task(
        *loop,
        [](std::shared_ptr<int> kept) -> Coro<> {
            co_await timeout(0, [&] { return nap(static_cast<int>(kept.use_count()) * 10); });
        },
        token);
    loop->call_soon([&] { loop->stop(); });
    loop->run_forever();
    loop.reset();
    EXPECT_EQ(reports.count("pending"), 2U);
    EXPECT_EQ(token.use_count(), 1);
}

TEST(Timeouts, of_a_point_in_time_keep_it_when_they_have_expired) {
    in_virtual_time([]() -> Coro<> {
        const auto deadline = get_running_loop().time() + 1s;
        Timeout limit = Timeout::at(deadline);
        const auto result = co_await as_result(timeout(limit, [] { return nap(10); }));
        EXPECT_TRUE(result.failed_with<TimeoutError>());
        EXPECT_TRUE(limit.expired());
        EXPECT_EQ(limit.when(), deadline);
        EXPECT_EQ(get_running_loop().time(), deadline);
    });
}

TEST(Timeouts, of_the_same_point_in_time_one_in_the_other_leave_the_error_to_the_outer) {
    in_virtual_time([]() -> Coro<> {
        const auto deadline = get_running_loop().time() + 1s;
        Timeout outer = Timeout::at(deadline);
        Timeout inner = Timeout::at(deadline);
        bool cancelled = false;
        const auto result = co_await as_result(timeout(outer, [&]() -> Coro<> {
            const auto inside = co_await as_result(timeout(inner, [] { return nap(10); }));
            cancelled = inside.failed_with<CancelledError>();
            inside.value();
        }));
        EXPECT_TRUE(result.failed_with<TimeoutError>());
        EXPECT_TRUE(cancelled);
        EXPECT_TRUE(outer.expired());
        EXPECT_TRUE(inner.expired());
    });
}

TEST(Timeouts, that_were_not_needed_say_so) {
    in_virtual_time([]() -> Coro<> {
        Timeout in_time(10s);
        co_await timeout(in_time, [] { return nap(1); });
        EXPECT_FALSE(in_time.expired());
        EXPECT_GT(in_time.when(), get_running_loop().time());
        Timeout never(std::nullopt);
        co_await timeout(never, [] { return nap(1000); });
        EXPECT_FALSE(never.expired());
        EXPECT_EQ(never.when(), std::nullopt);
        Timeout never_at = Timeout::at(std::nullopt);
        co_await timeout(never_at, [] { return nap(1000); });
        EXPECT_FALSE(never_at.expired());
        EXPECT_EQ(never_at.when(), std::nullopt);
    });
}

TEST(Timeouts, of_no_time_or_less_are_when_the_body_begins_or_before) {
    in_virtual_time([]() -> Coro<> {
        const auto now = get_running_loop().time();
        for (const int seconds : {0, -11}) {
            Timeout limit(seconds);
            const auto result = co_await as_result(timeout(limit, [] { return nap(10); }));
            EXPECT_TRUE(result.failed_with<TimeoutError>());
            EXPECT_TRUE(limit.expired());
            EXPECT_EQ(limit.when(), now + seconds * 1s);
            EXPECT_EQ(get_running_loop().time(), now);
        }
    });
}

TEST(Timeouts, of_a_body_that_fails_in_time_have_not_expired) {
    in_virtual_time([]() -> Coro<> {
        Timeout limit(1s);
        const auto failing = []() -> Coro<> {
            throw asyncio::ValueError("x");
            co_return;
        };
        const auto result = co_await as_result(timeout(limit, failing));
        EXPECT_TRUE(result.failed_with<asyncio::ValueError>());
        EXPECT_FALSE(limit.expired());
    });
}

TEST(Timeouts, of_a_task_that_cancels_itself_in_time_leave_it_its_cancel) {
    in_virtual_time([]() -> Coro<> {
        const auto cancels_itself = [](Timeout& limit) -> Coro<> {
            co_await timeout(limit, []() -> Coro<> {
                current_task().cancel();
                co_await sleep(20s);
            });
        };
        Timeout limit(10s);
        auto task = create_task(cancels_itself, std::ref(limit));
        auto result = co_await as_result(task);
        EXPECT_TRUE(result.failed_with<CancelledError>());
        EXPECT_FALSE(limit.expired());
        // Also after a cancel that was swallowed, which counts no more.
        Timeout second(10s);
        auto other = create_task([&]() -> Coro<> {
            current_task().cancel();
            const auto slept = co_await as_result(sleep(1s));
            EXPECT_TRUE(slept.failed_with<CancelledError>());
            co_await cancels_itself(second);
        });
        result = co_await as_result(other);
        EXPECT_TRUE(result.failed_with<CancelledError>());
        EXPECT_FALSE(second.expired());
        EXPECT_EQ(other.cancelling(), 2U);
    });
}

TEST(Timeouts, that_were_rescheduled_to_never_leave_a_cancel_from_outside_alone) {
    in_virtual_time([]() -> Coro<> {
        const auto deadline = get_running_loop().time() + 10s;
        Timeout limit = Timeout::at(deadline);
        auto task =
            create_task([&]() -> Coro<> { co_await timeout(limit, [] { return nap(50); }); });
        co_await sleep(0);
        EXPECT_EQ(limit.when(), deadline);
        limit.reschedule(deadline + 20s);
        EXPECT_EQ(limit.when(), deadline + 20s);
        limit.reschedule(std::nullopt);
        EXPECT_EQ(limit.when(), std::nullopt);
        task.cancel();
        const auto result = co_await as_result(task);
        EXPECT_TRUE(result.failed_with<CancelledError>());
        EXPECT_FALSE(limit.expired());
    });
}

TEST(Timeouts, that_come_due_together_while_the_loop_is_busy_each_throw_their_own) {
    asyncio::testing::VirtualClock clock;
    const auto main = [&]() -> Coro<> {
        // The inner one has time left when the body stops keeping the loop; the outer one has not.
        Timeout outer(1s);
        Timeout inner(60s);
        bool timed_out_inside = false;
        auto result = co_await as_result(timeout(outer, [&]() -> Coro<> {
            const auto inside = co_await as_result(timeout(inner, [&]() -> Coro<> {
                clock.advance(5s);
                co_await sleep(600s);
            }));
            timed_out_inside = inside.failed_with<TimeoutError>();
            inside.value();
        }));
        EXPECT_TRUE(result.failed_with<TimeoutError>());
        EXPECT_FALSE(timed_out_inside);
        EXPECT_FALSE(inner.expired());

        // Both are late. The inner one is first, and the outer one comes at the await after it.
        const auto begin = get_running_loop().time();
        Timeout late_outer(10s);
        Timeout late_inner(1s);
        result = co_await as_result(timeout(late_outer, [&]() -> Coro<> {
            const auto inside = co_await as_result(timeout(late_inner, [&]() -> Coro<> {
                clock.advance(9s);
                co_await sleep(600s);
            }));
            timed_out_inside = inside.failed_with<TimeoutError>();
            co_await sleep(600s);
        }));
        EXPECT_TRUE(result.failed_with<TimeoutError>());
        EXPECT_TRUE(timed_out_inside);
        EXPECT_EQ(get_running_loop().time() - begin, 10s);
    };
    asyncio::run(main(), asyncio::RunOptions().clock(clock));
}

TEST(Timeouts, in_the_clean_up_after_a_timeout_are_told_from_it) {
    in_virtual_time([]() -> Coro<> {
        bool inner = false;
        const auto result = co_await as_result(timeout(1s, [&]() -> Coro<> {
            co_await asyncio::try_finally([] { return nap(5); },
                                          [&]() -> Coro<> {
                                              const auto inside = co_await as_result(
                                                  timeout(1s, [] { return nap(5); }));
                                              inner = inside.failed_with<TimeoutError>();
                                          });
        }));
        EXPECT_TRUE(inner);
        EXPECT_TRUE(result.failed_with<TimeoutError>());
        EXPECT_EQ(current_task().cancelling(), 0U);
    });
}

TEST(Timeouts, are_refused_inside_of_themselves) {
    in_virtual_time([]() -> Coro<> {
        Timeout limit(1s);
        const auto outer = co_await as_result(timeout(limit, [&]() -> Coro<> {
            const auto inside = co_await as_result(timeout(limit, nop));
            EXPECT_EQ(
                asyncio_test::text_of(inside.exception()),
                "RuntimeError: Timeout has already been entered: make another one for each use");
            co_await sleep(2s); // it is as it was
        }));
        EXPECT_TRUE(outer.failed_with<TimeoutError>());
    });
}

TEST(WaitFor, runs_a_coroutine_inside_the_task_that_waits) {
    in_virtual_time([]() -> Coro<> {
        const auto whoami = []() -> Coro<std::string> { co_return current_task().get_name(); };
        const std::string name = co_await wait_for(whoami(), 1s);
        EXPECT_EQ(name, current_task().get_name());
        const std::string same = co_await wait_for(whoami, 1s); // a callable
        EXPECT_EQ(same, name);
        const std::string word = co_await wait_for(sleep(1s, std::string("word")), 2s);
        EXPECT_EQ(word, "word");
        auto owned = co_await wait_for(
            []() -> Coro<std::unique_ptr<int>> { co_return std::make_unique<int>(3); },
            std::nullopt);
        EXPECT_EQ(*owned, 3);
    });
}

TEST(WaitFor, cancels_what_it_waits_for_and_waits_until_it_has_ended) {
    in_virtual_time([]() -> Coro<> {
        bool cleaned = false;
        auto task = create_task([&]() -> Coro<> {
            try {
                co_await sleep(1h);
            } catch (const CancelledError&) {
            }
            co_await sleep(1s);
            cleaned = true;
            throw CancelledError();
        });
        const auto result = co_await as_result(wait_for(task, 1s));
        EXPECT_TRUE(result.failed_with<TimeoutError>());
        EXPECT_TRUE(cleaned);
        EXPECT_TRUE(task.cancelled());
    });
}

TEST(WaitFor, gives_the_value_of_what_swallows_the_cancel) {
    EXPECT_EQ(trace_of([](Log& log) -> Coro<> {
                  const auto stubborn = [](Log& to) -> Coro<int> {
                      try {
                          co_await sleep(10s);
                      } catch (const CancelledError&) {
                          to("swallow");
                      }
                      co_await sleep(1s);
                      co_return 5;
                  };
                  int got = co_await wait_for(stubborn(log), 1s);
                  log("got " + std::to_string(got));
                  auto task = create_task(stubborn(log));
                  co_await sleep(0);
                  got = co_await wait_for(task, 0);
                  log("got0 " + std::to_string(got));
              }),
              (Trace{"3 swallow", "5 got 5", "7 swallow", "11 got0 5"}));
}

TEST(WaitFor, with_no_time_left_begins_nothing_but_takes_what_is_there) {
    in_virtual_time([]() -> Coro<> {
        bool ran = false;
        const auto body = [&]() -> Coro<int> {
            ran = true;
            co_return 1;
        };
        auto result = co_await as_result(wait_for(body(), 0));
        EXPECT_TRUE(result.failed_with<TimeoutError>());
        result = co_await as_result(wait_for(body, -1s));
        EXPECT_TRUE(result.failed_with<TimeoutError>());
        const auto slept = co_await as_result(wait_for(sleep(0), 0));
        EXPECT_TRUE(slept.failed_with<TimeoutError>());
        EXPECT_FALSE(ran);

        auto done = create_task(body);
        co_await done;
        const int value = co_await wait_for(done, 0);
        EXPECT_EQ(value, 1);
        auto failed = create_future<int>();
        failed.set_exception(asyncio::ValueError("bad"));
        result = co_await as_result(wait_for(failed, 0));
        EXPECT_TRUE(result.failed_with<asyncio::ValueError>());
        auto cancelled = create_future<int>();
        cancelled.cancel();
        result = co_await as_result(wait_for(cancelled, 0));
        EXPECT_TRUE(result.failed_with<CancelledError>()); // it did not run out of time
    });
}

TEST(WaitFor, of_an_empty_handle_says_so_and_leaves_no_timer) {
    in_virtual_time([]() -> Coro<> {
        const auto result = co_await as_result(wait_for(asyncio::Task<int>(), 1s));
        EXPECT_TRUE(result.failed_with<asyncio::RuntimeError>());
        EXPECT_TRUE(get_running_loop().core().timers.empty());
    });
}

TEST(WaitFor, cancelled_from_outside_cancels_what_it_waits_for) {
    in_virtual_time([]() -> Coro<> {
        for (const bool limited : {false, true}) {
            auto inner = create_task(forever());
            const std::optional<asyncio::Delay> limit =
                limited ? std::optional<asyncio::Delay>(60s) : std::nullopt;
            auto waiting = create_task(wait_for(inner, limit));
            get_running_loop().call_soon([waiting] { waiting.cancel(); });
            const auto result = co_await as_result(waiting);
            EXPECT_TRUE(result.failed_with<CancelledError>());
            EXPECT_TRUE(inner.cancelled());
        }
    });
}

TEST(WaitFor, cancelled_from_outside_waits_for_what_does_not_give_in) {
    in_virtual_time([]() -> Coro<> {
        const auto end = get_running_loop().time() + 10s;
        bool ended = false;
        const auto stubborn = [&]() -> Coro<> {
            while (get_running_loop().time() < end) {
                const auto slept = co_await as_result(sleep(end - get_running_loop().time()));
                static_cast<void>(slept);
            }
            ended = true;
        };
        auto waiting = create_task(wait_for(stubborn(), 20s));
        co_await sleep(1s);
        waiting.cancel();
        co_await waiting;
        EXPECT_TRUE(ended);
        EXPECT_FALSE(waiting.cancelled());
    });
}

TEST(WaitFor, cancelled_in_the_turn_in_which_the_value_comes_is_cancelled) {
    in_virtual_time([]() -> Coro<> {
        const auto done = []() -> Coro<std::string> { co_return "done"; };
        auto inner = create_task(done());
        bool went_on = false;
        auto waiting = create_task([&]() -> Coro<> {
            co_await wait_for(inner, 100s);
            co_await sleep(1s);
            went_on = true;
        });
        co_await sleep(0);
        waiting.cancel();
        const auto result = co_await as_result(waiting);
        EXPECT_TRUE(result.failed_with<CancelledError>());
        EXPECT_EQ(inner.result(), "done");
        EXPECT_FALSE(went_on);
    });
}

TEST(WaitFor, with_no_time_left_cancels_what_runs_and_waits_for_its_clean_up) {
    in_virtual_time([]() -> Coro<> {
        for (const int seconds : {0, -1}) {
            int step = 0;
            auto task = create_task([&]() -> Coro<> {
                step = 1;
                co_await asyncio::try_finally([] { return nap(10); },
                                              [&]() -> Coro<> {
                                                  co_await sleep(2s);
                                                  step = 2;
                                              });
            });
            co_await sleep(0);
            EXPECT_EQ(step, 1);
            const auto result = co_await as_result(wait_for(task, seconds));
            EXPECT_TRUE(result.failed_with<TimeoutError>());
            EXPECT_TRUE(task.cancelled());
            EXPECT_EQ(step, 2);
        }
    });
}

TEST(WaitFor, throws_what_the_clean_up_throws_when_the_time_is_up) {
    in_virtual_time([]() -> Coro<> {
        for (const int seconds : {1, 0}) {
            auto task = create_task([]() -> Coro<> {
                bool cancelled = false;
                try {
                    co_await sleep(20s);
                } catch (const CancelledError&) {
                    cancelled = true;
                }
                if (cancelled) throw asyncio::ValueError("clean-up");
            });
            co_await sleep(0);
            const auto result = co_await as_result(wait_for(task, seconds));
            EXPECT_TRUE(result.failed_with<asyncio::ValueError>());
        }
    });
}

TEST(WaitFor, gives_a_value_that_a_callback_sets_in_time) {
    in_virtual_time([]() -> Coro<> {
        auto future = create_future<std::string>();
        get_running_loop().call_soon([future] { future.set_result("ok"); });
        const std::string word = co_await wait_for(future, 200ms);
        EXPECT_EQ(word, "ok");
        EXPECT_TRUE(get_running_loop().core().timers.empty());
    });
}

TEST(WaitFor, of_a_shield_leaves_what_is_behind_it_alone) {
    in_virtual_time([]() -> Coro<> {
        const auto slow = []() -> Coro<std::string> {
            co_await sleep(2s);
            co_return "done";
        };
        for (const int seconds : {0, 1}) {
            auto task = create_task(slow());
            auto shielded = asyncio::shield(task);
            const auto result = co_await as_result(wait_for(shielded, seconds));
            EXPECT_TRUE(result.failed_with<TimeoutError>());
            EXPECT_TRUE(shielded.cancelled());
            EXPECT_FALSE(task.done());
            const std::string word = co_await task;
            EXPECT_EQ(word, "done");
        }
        auto task = create_task(slow());
        const std::string word = co_await wait_for(asyncio::shield(task), std::nullopt);
        EXPECT_EQ(word, "done");
    });
}
