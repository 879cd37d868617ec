// SPDX-License-Identifier: MIT
// task_group and TaskGroup. The traces are CPython's.
#include <asyncio/asyncio.hpp>

#include "support/in_virtual_time.hpp"
#include "support/turns.hpp"

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

using namespace std::chrono_literals;
using asyncio::as_result;
using asyncio::CancelledError;
using asyncio::Coro;
using asyncio::create_task;
using asyncio::current_task;
using asyncio::ExceptionGroup;
using asyncio::get_running_loop;
using asyncio::sleep;
using asyncio::task_group;
using asyncio::TaskGroup;
using asyncio::TaskOptions;
using asyncio::ValueError;
using asyncio_test::in_virtual_time;
using asyncio_test::Log;
using asyncio_test::Reports;
using asyncio_test::text_of;
using asyncio_test::thrown_by;
using asyncio_test::Trace;
using asyncio_test::trace_of;

namespace {

std::string cancelling() { return std::to_string(current_task().cancelling()); }

Coro<> nop() { co_return; }
Coro<> nap(int seconds) { co_await sleep(seconds); }
Coro<int> give(int value) {
    co_await sleep(1s);
    co_return value;
}
Coro<> fail(Log& log, int seconds, std::string text) {
    try {
        co_await sleep(seconds);
    } catch (const CancelledError&) {
        log("cancelled " + text);
        throw;
    }
    throw ValueError(text);
}
// Fails because it is cancelled.
Coro<> fail_on_cancel(Log& log) {
    try {
        co_await sleep(10s);
    } catch (const CancelledError&) {
        log("child");
        throw ValueError("child");
    }
}

std::string shown(const std::exception_ptr& exception) {
    try {
        std::rethrow_exception(exception);
    } catch (const ExceptionGroup& group) {
        std::string text = group.message() + "[";
        for (const auto& one : group) text += (text.back() == '[' ? "" : ", ") + shown(one);
        return text + "]";
    } catch (const asyncio::TimeoutError&) {
        return "TimeoutError";
    } catch (...) {
        return text_of(exception);
    }
}

// Logs how it ended, and the task's cancels then.
template <class Body> Coro<> ending(Log& log, Body body, bool pass_on = false) {
    const auto result = co_await as_result(body());
    log((result ? "value" : shown(result.exception())) + " " + cancelling());
    if (pass_on) result.value();
}

// A failure, and a clean-up that fails in place of a cancel.
Coro<> fail_after(int seconds, std::string text) {
    co_await sleep(seconds);
    throw ValueError(text);
}
Coro<> fail_at_once(std::string text) {
    throw ValueError(text);
    co_return;
}
Coro<> fail_when_cancelled(std::string text) {
    bool cancelled = false;
    try {
        co_await sleep(10s);
    } catch (const CancelledError&) {
        cancelled = true;
    }
    if (cancelled) throw ValueError(text);
}

// How it ends: "value", or what it throws.
template <class A> Coro<std::string> end_of(A awaitable) {
    const auto result = co_await as_result(std::move(awaitable));
    co_return result ? "value" : shown(result.exception());
}
// The same of a task that is cancelled from outside after a second.
template <class F> Coro<std::string> end_when_cancelled(F function) {
    auto task = create_task(function);
    co_await sleep(1s);
    EXPECT_FALSE(task.done());
    task.cancel("outside");
    co_return co_await end_of(task);
}
std::string group_of(const std::string& what) {
    return "unhandled errors in a TaskGroup[" + what + "]";
}

// Once with tasks that begin in the next turn, once with tasks that begin at once.
void lazy_and_eager(Coro<> (*body)()) {
    for (const bool eager : {false, true}) {
        const testing::ScopedTrace where(__FILE__, __LINE__, eager ? "eager" : "lazy");
        in_virtual_time([&]() -> Coro<> {
            if (eager) asyncio::set_task_factory(get_running_loop(), asyncio::eager_task_factory);
            co_await body();
            EXPECT_EQ(current_task().cancelling(), 0U);
            co_await sleep(0); // where a cancel that was left behind would come
        });
    }
}

} // namespace

TEST(TaskGroup, takes_the_turns_that_cpython_takes) {
    EXPECT_EQ(trace_of([](Log& log) -> Coro<> {
                  int begin = log.turns().now();
                  const auto note = [&](const std::string& what) {
                      log(what + " " + std::to_string(log.turns().now() - begin));
                      begin = log.turns().now();
                  };
                  co_await task_group(nop);
                  note("empty");
                  co_await task_group([](TaskGroup& group) -> Coro<> {
                      group.create_task(nop());
                      co_return;
                  });
                  note("nop");
                  // 3.14: that it is done is heard of by a callback, as of any other.
                  co_await task_group([](TaskGroup& group) -> Coro<> {
                      group.create_task(TaskOptions().eager_start(true), nop());
                      co_return;
                  });
                  note("eager nop");
              }),
              (Trace{"1 empty 0", "4 nop 3", "6 eager nop 2"}));
}

TEST(TaskGroup, waits_for_its_tasks_and_gives_the_results_of_the_body) {
    in_virtual_time([]() -> Coro<> {
        asyncio::Task<int> first;
        asyncio::Task<int> second;
        const int body = co_await task_group([&](TaskGroup& group) -> Coro<int> {
            first = group.create_task(give(1));
            second = group.create_task(give, 2); // a callable and its argument
            auto named = group.create_task(TaskOptions().name("named"), give(3));
            EXPECT_EQ(named.get_name(), "named");
            auto bound = group.create_task(TaskOptions().name("bound"), give, 4);
            EXPECT_EQ(bound.get_name(), "bound");
            group.create_task(sleep(5s));
            group.create_task(TaskOptions().name("sleep"), sleep(6s));
            co_return 7;
        });
        EXPECT_EQ(body, 7);
        EXPECT_EQ(first.result() + second.result(), 3);
        EXPECT_EQ(asyncio::all_tasks().size(), 1U);
    });
}

TEST(TaskGroup, cancels_the_others_and_the_body_when_a_task_fails) {
    EXPECT_EQ(
        trace_of([](Log& log) -> Coro<> {
            co_await ending(log, [&] {
                return task_group([&](TaskGroup& group) -> Coro<> {
                    group.create_task(fail(log, 1, "a"));
                    group.create_task(fail(log, 5, "b"));
                    try {
                        co_await sleep(10s);
                    } catch (const CancelledError&) {
                        log("body " + cancelling());
                        throw;
                    }
                });
            });
        }),
        (Trace{"6 cancelled b", "6 body 1", "8 unhandled errors in a TaskGroup[ValueError: a] 0"}));
}

TEST(TaskGroup, throws_all_failures_that_of_the_body_last) {
    EXPECT_EQ(trace_of([](Log& log) -> Coro<> {
                  co_await ending(log, [&] {
                      return task_group([&](TaskGroup& group) -> Coro<> {
                          group.create_task(fail(log, 0, "a"));
                          group.create_task(fail(log, 0, "b"));
                          group.create_task(fail(log, 3, "c"));
                          co_return;
                      });
                  });
              }),
              (Trace{"5 cancelled c",
                     "7 unhandled errors in a TaskGroup[ValueError: a, ValueError: b] 0"}));
    EXPECT_EQ(trace_of([](Log& log) -> Coro<> {
                  co_await ending(log, [&] {
                      return task_group([&](TaskGroup& group) -> Coro<> {
                          group.create_task(fail_on_cancel(log));
                          co_await sleep(1s);
                          throw asyncio::LookupError("body");
                      });
                  });
              }),
              (Trace{"5 child",
                     "7 unhandled errors in a TaskGroup[ValueError: child, exception: body] 0"}));
}

TEST(TaskGroup, passes_a_cancel_from_outside_on) {
    EXPECT_EQ(
        trace_of([](Log& log) -> Coro<> {
            const auto worker = [](Log& to) -> Coro<> {
                const auto grouped = [&] {
                    return task_group([&](TaskGroup& group) -> Coro<> {
                        group.create_task(fail(to, 9, "x"));
                        to("in");
                        co_return;
                    });
                };
                co_await ending(to, grouped, true);
            };
            auto task = create_task(worker(log));
            co_await sleep(1s);
            task.cancel("out");
            const auto result = co_await as_result(task);
            log("main " + text_of(result.exception()));
        }),
        (Trace{"2 in", "7 cancelled x", "9 CancelledError: out 1", "10 main CancelledError: out"}));
}

TEST(TaskGroup, throws_failures_before_a_cancel_from_outside_which_comes_at_the_next_await) {
    EXPECT_EQ(trace_of([](Log& log) -> Coro<> {
                  const auto worker = [](Log& to) -> Coro<int> {
                      const auto grouped = [&] {
                          return task_group([&](TaskGroup& group) -> Coro<> {
                              group.create_task(fail_on_cancel(to));
                              co_return;
                          });
                      };
                      co_await ending(to, grouped);
                      try {
                          co_await sleep(0);
                          to("no");
                      } catch (const CancelledError&) {
                          to("delivered " + cancelling());
                      }
                      co_return 7;
                  };
                  auto task = create_task(worker(log));
                  co_await sleep(1s);
                  task.cancel("out");
                  const int value = co_await task;
                  log(std::to_string(value));
              }),
              (Trace{"7 child", "9 unhandled errors in a TaskGroup[ValueError: child] 1",
                     "10 delivered 1", "11 7"}));
}

TEST(TaskGroup, waits_for_its_tasks_however_often_it_is_cancelled) {
    EXPECT_EQ(trace_of([](Log& log) -> Coro<> {
                  const auto slow = [](Log& to) -> Coro<> {
                      bool cancelled = false;
                      try {
                          co_await sleep(10s);
                      } catch (const CancelledError&) {
                          cancelled = true;
                      }
                      EXPECT_TRUE(cancelled);
                      to("slow");
                      co_await sleep(5s);
                      to("slow end");
                  };
                  const auto worker = [&slow](Log& to) -> Coro<> {
                      const auto grouped = [&] {
                          return task_group([&](TaskGroup& group) -> Coro<> {
                              group.create_task(slow(to));
                              co_return;
                          });
                      };
                      co_await ending(to, grouped, true);
                  };
                  auto task = create_task(worker(log));
                  co_await sleep(1s);
                  task.cancel("one");
                  co_await sleep(1s);
                  task.cancel("two");
                  co_await sleep(1s);
                  log(task.done() ? "True" : "False");
                  const auto result = co_await as_result(task);
                  log("main " + text_of(result.exception()));
              }),
              (Trace{"7 slow", "12 False", "14 slow end", "16 CancelledError: one 2",
                     "17 main CancelledError: one"}));
}

TEST(TaskGroup, takes_a_cancelled_task_for_no_failure) {
    EXPECT_EQ(trace_of([](Log& log) -> Coro<> {
                  asyncio::Task<> first;
                  asyncio::Task<> second;
                  co_await task_group([&](TaskGroup& group) -> Coro<> {
                      first = group.create_task(nap(9));
                      second = group.create_task(nap(2));
                      co_await sleep(1s);
                      first.cancel();
                  });
                  log(std::string("end") + (first.cancelled() ? " True" : " False") +
                      (second.cancelled() ? " True" : " False"));
              }),
              (Trace{"10 end True False"}));
}

TEST(TaskGroup, refuses_tasks_and_closes_the_coroutine_when_it_takes_none) {
    EXPECT_EQ(
        trace_of([](Log& log) -> Coro<> {
            const Reports reports(get_running_loop());
            const auto try_it = [&](TaskGroup& group) {
                log(thrown_by([&] { return group.create_task(nop()); }));
                EXPECT_NE(thrown_by([&] { return group.create_task(nop); }), "nothing");
                EXPECT_NE(thrown_by([&] { return group.create_task(sleep(1s)); }), "nothing");
            };
            TaskGroup group;
            try_it(group);
            co_await task_group(group, [&]() -> Coro<> {
                group.create_task([&]() -> Coro<> { // from inside a task, when the body has ended
                    co_await sleep(1s);
                    group.create_task(nap(1));
                    log("added");
                });
                co_return;
            });
            try_it(group);
            TaskGroup failing;
            const auto result = co_await as_result(task_group(failing, [&]() -> Coro<> {
                failing.create_task([&]() -> Coro<> {
                    try {
                        co_await sleep(9s);
                    } catch (const CancelledError&) {
                        try_it(failing);
                    }
                });
                co_await sleep(1s);
                throw ValueError("x");
            }));
            EXPECT_TRUE(result.failed_with<ExceptionGroup>());
            log("g");
            const auto again = co_await as_result(task_group(failing, nop));
            log(text_of(again.exception()));
            EXPECT_EQ(reports.text(), "");
        }),
        (Trace{"1 RuntimeError: TaskGroup has not been entered: create its tasks in the body of "
               "task_group()",
               "4 added", "9 RuntimeError: TaskGroup is finished: it takes no more tasks",
               "13 RuntimeError: TaskGroup is shutting down: it is cancelling its tasks, and takes "
               "no more",
               "15 g",
               "15 RuntimeError: TaskGroup has already been entered: make another one for each "
               "use"}));
}

TEST(TaskGroup, nests) {
    EXPECT_EQ(trace_of([](Log& log) -> Coro<> {
                  co_await ending(log, [&] {
                      return task_group([&](TaskGroup& outer) -> Coro<> {
                          outer.create_task(fail(log, 5, "o"));
                          co_await task_group([&](TaskGroup& inner) -> Coro<> {
                              inner.create_task(fail(log, 1, "i"));
                              co_await sleep(9s);
                          });
                      });
                  });
              }),
              (Trace{"7 cancelled o", "9 unhandled errors in a TaskGroup[unhandled errors in a "
                                      "TaskGroup[ValueError: i]] 0"}));
}

TEST(TaskGroup, takes_its_cancel_back_when_the_body_swallows_it) {
    EXPECT_EQ(trace_of([](Log& log) -> Coro<> {
                  co_await ending(log, [&] {
                      return task_group([&](TaskGroup& group) -> Coro<> {
                          group.create_task(fail(log, 1, "a"));
                          try {
                              co_await sleep(9s);
                          } catch (const CancelledError&) {
                              log("sw " + cancelling());
                          }
                          co_await sleep(1s);
                          log("on");
                      });
                  });
              }),
              (Trace{"6 sw 1", "8 on", "8 unhandled errors in a TaskGroup[ValueError: a] 0"}));
}

TEST(TaskGroup, inside_of_a_timeout) {
    EXPECT_EQ(trace_of([](Log& log) -> Coro<> {
                  co_await ending(log, [&] {
                      return asyncio::timeout(1s, [&]() -> Coro<> {
                          co_await task_group([&](TaskGroup& group) -> Coro<> {
                              group.create_task(fail(log, 9, "x"));
                              co_return;
                          });
                      });
                  });
              }),
              (Trace{"5 cancelled x", "7 TimeoutError 0"}));
    EXPECT_EQ(trace_of([](Log& log) -> Coro<> {
                  co_await ending(log, [&] {
                      return asyncio::timeout(1s, [&]() -> Coro<> {
                          co_await task_group([&](TaskGroup& group) -> Coro<> {
                              group.create_task(fail_on_cancel(log));
                              co_return;
                          });
                      });
                  });
                  co_await sleep(0);
                  log("on");
              }),
              (Trace{"5 child", "7 unhandled errors in a TaskGroup[ValueError: child] 0", "8 on"}));
}

TEST(TaskGroup, throws_an_interrupt_of_the_body_as_it_is) {
    const auto main = []() -> Coro<> {
        co_await task_group([](TaskGroup& group) -> Coro<> {
            group.create_task([]() -> Coro<> {
                try {
                    co_await sleep(9s);
                } catch (const CancelledError&) {
                    throw ValueError("not shown");
                }
            });
            co_await sleep(1s);
            throw asyncio::SystemExit(3);
        });
    };
    try {
        in_virtual_time(main);
        ADD_FAILURE();
    } catch (const asyncio::SystemExit& exit) {
        EXPECT_EQ(exit.code(), 3);
    }
}

TEST(TaskGroup, throws_an_interrupt_of_a_task_as_it_is_when_the_loop_goes_on) {
    asyncio::testing::VirtualClock clock;
    auto loop = asyncio::new_event_loop(asyncio::LoopOptions().clock(clock));
    auto task = create_task(*loop, []() -> Coro<> {
        co_await task_group([](TaskGroup& group) -> Coro<> {
            group.create_task([]() -> Coro<> {
                co_await sleep(1s);
                throw asyncio::KeyboardInterrupt();
            });
            group.create_task(nap(9));
            co_return;
        });
    });
    EXPECT_THROW(asyncio::run_until_complete(*loop, task), asyncio::KeyboardInterrupt);
    EXPECT_FALSE(task.done());
    EXPECT_THROW(asyncio::run_until_complete(*loop, task), asyncio::KeyboardInterrupt);
    EXPECT_TRUE(task.done());
    EXPECT_THROW(task.result(), asyncio::KeyboardInterrupt);
}

TEST(TaskGroup, of_a_loop_that_closes_goes_with_it) {
    asyncio::testing::VirtualClock clock;
    Reports reports;
    auto loop = asyncio::new_event_loop(asyncio::LoopOptions().clock(clock));
    reports.watch(*loop);
    const auto token = std::make_shared<int>(1);
    const auto hold = [](std::shared_ptr<int> kept, int seconds) -> Coro<> {
        co_await sleep(seconds);
        if (kept.use_count() > 0 && seconds == 0) throw ValueError("x");
    };
    create_task(
        *loop,
        [&hold](std::shared_ptr<int> kept) -> Coro<> {
            co_await task_group([&](TaskGroup& group) -> Coro<> {
                group.create_task(hold, kept, 5);
                group.create_task(hold, kept, 6);
                co_return;
            });
        },
        token);
    create_task(
        *loop,
        [&hold](std::shared_ptr<int> kept) -> Coro<> { // closed as it aborts
            co_await task_group([&](TaskGroup& group) -> Coro<> {
                group.create_task(hold, kept, 5);
                group.create_task(hold, kept, 0);
                co_return;
            });
        },
        token);
    int turns = 0;
    while (++turns < 5) {
        loop->stop();
        loop->run_forever();
    }
    loop.reset();
    EXPECT_GE(reports.count("pending"), 4U) << reports.text();
    EXPECT_EQ(token.use_count(), 1);
}

TEST(TaskGroup, takes_tasks_while_its_body_waits_and_while_it_waits_for_others) {
    lazy_and_eager([]() -> Coro<> {
        std::vector<asyncio::Task<int>> tasks;
        co_await task_group([&](TaskGroup& group) -> Coro<> {
            tasks.push_back(group.create_task(give(1)));
            co_await sleep(1500ms);
            EXPECT_TRUE(tasks[0].done());
            tasks.push_back(group.create_task(give(2)));
            group.create_task([&]() -> Coro<> {
                co_await sleep(500ms); // the body has ended
                tasks.push_back(group.create_task(give(3)));
                tasks.push_back(group.create_task(give(4)));
            });
        });
        EXPECT_EQ(tasks.size(), 4U);
        for (int i = 0; i < 4; ++i) EXPECT_EQ(tasks[static_cast<std::size_t>(i)].result(), i + 1);
    });
}

TEST(TaskGroup, whose_tasks_start_others_without_end_ends_when_one_fails) {
    lazy_and_eager([]() -> Coro<> {
        int heads = 0;
        const auto grow = [&](const auto& self, TaskGroup& group) -> Coro<> {
            ++heads;
            co_await sleep(1s);
            for (int i = 0; i < 2; ++i) group.create_task(self, std::cref(self), std::ref(group));
        };
        const std::string end = co_await end_of(task_group([&](TaskGroup& group) -> Coro<> {
            group.create_task(grow, std::cref(grow), std::ref(group));
            group.create_task([&]() -> Coro<> {
                while (heads < 10) co_await sleep(1500ms);
                throw ValueError("cut off");
            });
            co_return;
        }));
        EXPECT_EQ(end, group_of("ValueError: cut off"));
        EXPECT_GE(heads, 10);
        EXPECT_EQ(asyncio::all_tasks().size(), 1U);
    });
}

TEST(TaskGroup, cancelled_from_outside_cancels_its_body_and_each_task) {
    lazy_and_eager([]() -> Coro<> {
        int cancelled = 0;
        const auto wait = [&]() -> Coro<> {
            try {
                co_await sleep(10s);
            } catch (const CancelledError&) {
                ++cancelled;
                throw;
            }
        };
        for (const int tasks : {0, 5}) {
            cancelled = 0;
            const std::string end = co_await end_when_cancelled([&]() -> Coro<> {
                co_await task_group([&](TaskGroup& group) -> Coro<> {
                    for (int i = 0; i < tasks; ++i) group.create_task(wait);
                    co_await wait();
                });
            });
            EXPECT_EQ(end, "CancelledError: outside");
            EXPECT_EQ(cancelled, tasks + 1);
        }
    });
}

TEST(TaskGroup, throws_what_tasks_and_body_throw_in_place_of_a_cancel_from_outside) {
    lazy_and_eager([]() -> Coro<> {
        std::string end = co_await end_when_cancelled([]() -> Coro<> {
            co_await task_group([](TaskGroup& group) -> Coro<> {
                group.create_task(fail_when_cancelled("a"));
                group.create_task(fail_when_cancelled("b"));
                co_await sleep(10s);
            });
        });
        EXPECT_EQ(end, group_of("ValueError: a, ValueError: b"));
        end = co_await end_when_cancelled([]() -> Coro<> {
            co_await task_group([](TaskGroup&) { return fail_when_cancelled("body"); });
        });
        EXPECT_EQ(end, group_of("ValueError: body"));
        // The body, which is cancelled by the group, fails in its own way.
        end = co_await end_of(task_group([](TaskGroup& group) -> Coro<> {
            group.create_task(fail_after(1, "task"));
            co_await fail_when_cancelled("body");
        }));
        EXPECT_EQ(end, group_of("ValueError: task, ValueError: body"));
    });
}

TEST(TaskGroup, whose_body_fails_at_once_cancels_its_tasks_before_they_have_begun) {
    lazy_and_eager([]() -> Coro<> {
        const bool is_eager = static_cast<bool>(asyncio::get_task_factory(get_running_loop()));
        bool has_begun = false;
        asyncio::Task<> task;
        const std::string end = co_await end_of(task_group([&](TaskGroup& group) -> Coro<> {
            task = group.create_task([&]() -> Coro<> {
                has_begun = true;
                co_await sleep(1s);
            });
            throw ValueError("x");
        }));
        EXPECT_EQ(end, group_of("ValueError: x"));
        EXPECT_TRUE(task.cancelled());
        EXPECT_EQ(has_begun, is_eager);
    });
}

TEST(TaskGroup, nested_throws_a_group_of_groups_when_it_is_cancelled_from_outside) {
    lazy_and_eager([]() -> Coro<> {
        for (const bool outer_has_a_task : {false, true}) {
            const std::string end = co_await end_when_cancelled([&]() -> Coro<> {
                co_await task_group([&](TaskGroup& outer) -> Coro<> {
                    if (outer_has_a_task) outer.create_task(nap(10));
                    co_await task_group([](TaskGroup& inner) -> Coro<> {
                        inner.create_task(fail_when_cancelled("a"));
                        inner.create_task(fail_when_cancelled("b"));
                        co_await sleep(10s);
                    });
                });
            });
            EXPECT_EQ(end, group_of(group_of("ValueError: a, ValueError: b")));
        }
    });
}

TEST(TaskGroup, that_fails_cancels_a_group_inside_of_it_which_adds_nothing) {
    lazy_and_eager([]() -> Coro<> {
        const std::string end = co_await end_of(task_group([](TaskGroup& outer) -> Coro<> {
            outer.create_task(fail_after(1, "outer"));
            co_await task_group([](TaskGroup& inner) -> Coro<> {
                inner.create_task(fail_after(10, "inner"));
                co_return;
            });
        }));
        EXPECT_EQ(end, group_of("ValueError: outer"));
    });
}

TEST(TaskGroup, hears_of_a_task_that_fails_while_the_body_cleans_up_after_a_cancel) {
    lazy_and_eager([]() -> Coro<> {
        const auto run = []() -> Coro<> {
            co_await task_group([](TaskGroup& group) -> Coro<> {
                group.create_task(fail_after(3, "late"));
                bool cancelled = false;
                try {
                    co_await sleep(10s);
                } catch (const CancelledError&) {
                    cancelled = true;
                }
                EXPECT_TRUE(cancelled);
                const auto rest = co_await as_result(sleep(5s)); // cut short by the failure
                EXPECT_TRUE(rest.failed_with<CancelledError>());
                rest.value();
            });
        };
        std::string end = co_await end_when_cancelled(run);
        EXPECT_EQ(end, group_of("ValueError: late"));
        end = co_await end_when_cancelled([&]() -> Coro<> { co_await create_task(run); });
        EXPECT_EQ(end, group_of("ValueError: late"));
    });
}

TEST(TaskGroup, throws_an_interrupt_that_the_body_throws_when_a_task_fails) {
    lazy_and_eager([]() -> Coro<> {
        bool interrupted = false;
        try {
            co_await task_group([](TaskGroup& group) -> Coro<> {
                group.create_task(fail_after(1, "hidden"));
                bool cancelled = false;
                try {
                    co_await sleep(10s);
                } catch (const CancelledError&) {
                    cancelled = true;
                }
                if (cancelled) throw asyncio::KeyboardInterrupt();
            });
        } catch (const asyncio::KeyboardInterrupt&) {
            interrupted = true;
        }
        EXPECT_TRUE(interrupted);
        EXPECT_EQ(current_task().uncancel(), 0U); // as CPython, it leaves its own cancel behind
    });
}

TEST(TaskGroup, gives_its_tasks_the_contexts_that_they_are_given) {
    lazy_and_eager([]() -> Coro<> {
        asyncio::ContextVar<int> variable("variable");
        const auto set = [&](int value) -> Coro<> {
            co_await sleep(0);
            variable.set(value);
        };
        co_await task_group([&](TaskGroup& group) -> Coro<> {
            auto context = asyncio::copy_context();
            EXPECT_FALSE(context.contains(variable));
            for (const int value : {1, 2}) {
                auto task = group.create_task(TaskOptions().context(context), set(value));
                co_await task;
                EXPECT_EQ(context[variable], value);
            }
        });
        EXPECT_FALSE(asyncio::copy_context().contains(variable));
    });
}

TEST(TaskGroup, is_refused_inside_of_itself) {
    lazy_and_eager([]() -> Coro<> {
        TaskGroup group;
        std::string inside;
        co_await task_group(group, [&]() -> Coro<> {
            inside = co_await end_of(task_group(group, nop));
            group.create_task(nap(1)); // it is as it was
        });
        EXPECT_EQ(inside, "RuntimeError: TaskGroup has already been entered: make another one for "
                          "each use");
    });
}

TEST(TaskGroup, throws_also_what_the_clean_up_of_its_body_throws) {
    lazy_and_eager([]() -> Coro<> {
        const std::string end = co_await end_of(task_group([](TaskGroup& group) -> Coro<> {
            co_await asyncio::try_finally(
                [&group]() -> Coro<> {
                    group.create_task(fail_after(0, "task"));
                    co_await sleep(1s);
                },
                []() -> Coro<> {
                    throw ValueError("close");
                    co_return;
                });
        }));
        EXPECT_EQ(end, group_of("ValueError: task, ValueError: close"));
    });
}

TEST(TaskGroup, keeps_the_cancel_of_the_group_around_it_when_both_fail_at_once) {
    lazy_and_eager([]() -> Coro<> {
        std::string inner_end;
        std::string between;
        const std::string end = co_await end_of(task_group([&](TaskGroup& outer) -> Coro<> {
            inner_end = co_await end_of(task_group([&](TaskGroup& inner) -> Coro<> {
                inner.create_task(fail_after(0, "inner"));
                outer.create_task(fail_after(0, "outer"));
                co_return;
            }));
            between = cancelling();
        }));
        EXPECT_EQ(inner_end, group_of("ValueError: inner"));
        EXPECT_EQ(between, "1");
        EXPECT_EQ(end, group_of("ValueError: outer"));
    });
}

TEST(TaskGroup, keeps_a_cancel_from_outside_that_comes_with_a_failure) {
    lazy_and_eager([]() -> Coro<> {
        asyncio::Event begun;
        auto task = create_task([&]() -> Coro<> {
            const std::string end = co_await end_of(task_group([&](TaskGroup& group) -> Coro<> {
                group.create_task([&]() -> Coro<> {
                    begun.set();
                    co_await sleep(0);
                    throw ValueError("x");
                });
                co_await sleep(1s);
                ADD_FAILURE();
            }));
            EXPECT_EQ(end, group_of("ValueError: x"));
            EXPECT_EQ(cancelling(), "1");
            co_await sleep(1s);
            ADD_FAILURE();
        });
        co_await begun.wait();
        EXPECT_EQ(task.cancelling(), 0U);
        task.cancel("outside");
        EXPECT_EQ(task.cancelling(), 1U);
        const auto result = co_await as_result(task);
        EXPECT_TRUE(result.failed_with<CancelledError>());
        EXPECT_TRUE(task.cancelled());
    });
}

TEST(TaskGroup, cancels_a_task_that_is_being_made_when_another_fails) {
    lazy_and_eager([]() -> Coro<> {
        bool cancelled = false;
        const std::string end = co_await end_of(task_group([&](TaskGroup& group) -> Coro<> {
            group.create_task([&]() -> Coro<> {
                group.create_task(fail_at_once("made"));
                try {
                    co_await sleep(0); // tasks that begin at once are cancelled here
                    co_await sleep(0); // and the others here
                } catch (const CancelledError&) {
                    cancelled = true;
                }
            });
            co_return;
        }));
        EXPECT_TRUE(cancelled);
        EXPECT_EQ(end, group_of("ValueError: made"));
    });
}
