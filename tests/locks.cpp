// SPDX-License-Identifier: MIT
// The traces are those of CPython 3.13; see conformance/ for many more.
#include <asyncio/asyncio.hpp>
#include <asyncio/testing/cancel_everywhere.hpp>

#include "support/in_virtual_time.hpp"
#include "support/reports.hpp"
#include "support/turns.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

using namespace std::chrono_literals;
using asyncio::as_result;
using asyncio::Barrier;
using asyncio::BoundedSemaphore;
using asyncio::Condition;
using asyncio::Coro;
using asyncio::create_task;
using asyncio::Event;
using asyncio::gather;
using asyncio::Lock;
using asyncio::return_exceptions;
using asyncio::Semaphore;
using asyncio::sleep;
using asyncio::Task;
using asyncio::testing::cancel_everywhere;
using asyncio::testing::LeakToken;
using asyncio_test::in_virtual_time;
using asyncio_test::Log;
using asyncio_test::Reports;
using asyncio_test::text_of;
using asyncio_test::thrown_by;
using asyncio_test::Trace;
using asyncio_test::trace_of;
using asyncio_test::Turns;

namespace {

// Asks for the lock; says what came of it.
Coro<> lock_user(Log& log, Lock& lock, std::string name) {
    try {
        co_await lock.acquire();
        log(name + " has it");
    } catch (const asyncio::CancelledError&) {
        log(name + " cancelled");
        throw;
    }
    lock.release();
}

template <class F> int turns_of(F function) {
    Turns turns;
    return turns.run(+function, turns);
}

} // namespace

// --- Lock ---

TEST(Lock, is_free_at_first_and_locked_while_it_is_held) {
    in_virtual_time([]() -> Coro<> {
        Lock lock;
        EXPECT_FALSE(lock.locked());
        co_await lock.acquire();
        EXPECT_TRUE(lock.locked());
        lock.release();
        EXPECT_FALSE(lock.locked());
    });
}

TEST(Lock, released_when_it_is_free_throws) {
    Lock lock;
    EXPECT_EQ(thrown_by([&] {
                  lock.release();
                  return 0;
              }),
              "RuntimeError: Lock is not acquired.");
}

TEST(Lock, goes_from_one_to_the_next_in_the_order_in_which_they_asked) {
    EXPECT_EQ(trace_of([](Log& log) -> Coro<> {
                  Lock lock;
                  const auto user = [&](std::string name) -> Coro<> {
                      log(name + " asks");
                      co_await lock.acquire();
                      log(name + " has it");
                      co_await sleep(0);
                      lock.release();
                      log(name + (lock.locked() ? " leaves it locked" : " leaves it free"));
                  };
                  co_await gather(user("a"), user("b"), user("c"));
              }),
              Trace({"2 a asks", "2 a has it", "2 b asks", "2 c asks", "3 a leaves it free",
                     "4 b has it", "5 b leaves it free", "6 c has it", "7 c leaves it free"}));
}

TEST(Lock, nobody_comes_in_before_who_waits) {
    EXPECT_EQ(trace_of([](Log& log) -> Coro<> {
                  Lock lock;
                  const auto greedy = [&]() -> Coro<> {
                      for (int i = 0; i < 3; ++i) {
                          co_await lock.acquire();
                          log("greedy " + std::to_string(i));
                          co_await sleep(0);
                          lock.release();
                      }
                  };
                  const auto modest = [&]() -> Coro<> {
                      for (int i = 0; i < 2; ++i) {
                          co_await lock.acquire();
                          log("modest " + std::to_string(i));
                          lock.release();
                      }
                  };
                  co_await gather(greedy(), modest());
              }),
              Trace({"2 greedy 0", "4 modest 0", "5 greedy 1", "7 modest 1", "8 greedy 2"}));
}

TEST(Lock, cancelled_before_it_is_released_goes_to_the_next) {
    EXPECT_EQ(trace_of([](Log& log) -> Coro<> {
                  Lock lock;
                  co_await lock.acquire();
                  auto a = create_task(lock_user(log, lock, "a"));
                  auto b = create_task(lock_user(log, lock, "b"));
                  co_await sleep(0);
                  a.cancel();
                  lock.release();
                  log("released, a cancelled");
                  co_await gather(return_exceptions, a, b);
              }),
              Trace({"2 released, a cancelled", "3 a cancelled", "4 b has it"}));
}

TEST(Lock, cancelled_after_it_was_released_in_the_same_turn_goes_to_the_next) {
    EXPECT_EQ(trace_of([](Log& log) -> Coro<> {
                  Lock lock;
                  co_await lock.acquire();
                  auto a = create_task(lock_user(log, lock, "a"));
                  auto b = create_task(lock_user(log, lock, "b"));
                  co_await sleep(0);
                  lock.release();
                  a.cancel();
                  log("released, a cancelled");
                  co_await gather(return_exceptions, a, b);
              }),
              Trace({"2 released, a cancelled", "3 a cancelled", "4 b has it"}));
}

TEST(Lock, a_cancel_that_is_withdrawn_in_the_turn_of_the_release_leaves_it_to_the_task) {
    in_virtual_time([]() -> Coro<> {
        Lock lock;
        co_await lock.acquire();
        const auto user = [&]() -> Coro<> { co_await lock.acquire(); };
        auto task = create_task(user());
        co_await sleep(0);
        lock.release();
        task.cancel();
        task.uncancel();
        co_await task;
        EXPECT_TRUE(lock.locked());
    });
}

TEST(Lock, free_takes_no_turn) {
    EXPECT_EQ(turns_of([](Turns& turns) -> Coro<int> {
                  Lock lock;
                  const int begin = turns.now();
                  co_await lock.acquire();
                  co_return turns.now() - begin;
              }),
              0);
}

TEST(Lock, released_by_a_callback_takes_two_turns) {
    EXPECT_EQ(turns_of([](Turns& turns) -> Coro<int> {
                  Lock lock;
                  co_await lock.acquire();
                  const int begin = turns.now();
                  asyncio::get_running_loop().call_soon([&] { lock.release(); });
                  co_await lock.acquire();
                  co_return turns.now() - begin;
              }),
              2);
}

TEST(Lock, scoped_is_released_at_the_end_of_the_scope) {
    in_virtual_time([]() -> Coro<> {
        Lock lock;
        {
            const auto held = co_await lock.scoped();
            EXPECT_TRUE(held.held());
            EXPECT_TRUE(lock.locked());
        }
        EXPECT_FALSE(lock.locked());
        try {
            const auto held = co_await lock.scoped();
            throw std::runtime_error("x");
        } catch (const std::runtime_error&) {
            EXPECT_FALSE(lock.locked());
        }
    });
}

TEST(Lock, scoped_can_be_released_early_and_moved) {
    in_virtual_time([]() -> Coro<> {
        Lock lock;
        auto held = co_await lock.scoped();
        {
            const auto moved = std::move(held);
            EXPECT_TRUE(lock.locked());
        }
        EXPECT_FALSE(lock.locked());
        auto again = co_await lock.scoped();
        again.release();
        EXPECT_FALSE(lock.locked());
        EXPECT_FALSE(again.held());
        EXPECT_EQ(thrown_by([&] {
                      again.release();
                      return 0;
                  }),
                  "RuntimeError: it was released already: a scope releases what it holds once");
    });
}

TEST(Lock, scoped_whose_lock_was_released_behind_its_back_is_reported) {
    Reports reports;
    in_virtual_time([&]() -> Coro<> {
        reports.watch(asyncio::get_running_loop());
        Lock lock;
        const auto held = co_await lock.scoped();
        lock.release();
    });
    EXPECT_EQ(reports.count("A scope ended that could not release what it held"), 1U);
    EXPECT_EQ(reports.count(), 1U) << reports.text();
}

TEST(Lock, as_a_result_does_not_throw) {
    in_virtual_time([]() -> Coro<> {
        Lock lock;
        const auto free = co_await as_result(lock.acquire());
        EXPECT_TRUE(free.has_value());
        const auto user = [&]() -> Coro<std::string> {
            const auto held = co_await as_result(lock.scoped());
            co_return text_of(held.exception());
        };
        auto task = create_task(user());
        co_await sleep(0);
        task.cancel("enough");
        const std::string text = co_await task;
        EXPECT_EQ(text, "CancelledError: enough");
        EXPECT_TRUE(lock.locked());
    });
}

TEST(Lock, can_become_a_task_and_be_gathered) {
    in_virtual_time([]() -> Coro<> {
        Lock lock;
        Semaphore semaphore(1);
        co_await gather(lock.acquire(), semaphore.acquire());
        EXPECT_TRUE(lock.locked());
        EXPECT_TRUE(semaphore.locked());
        auto task = create_task(lock.acquire());
        lock.release();
        co_await task;
        EXPECT_TRUE(lock.locked());
    });
}

TEST(Lock, of_another_loop_refuses_to_wait_but_not_to_be_taken) {
    Lock lock;
    const auto contend = [&]() -> Coro<> {
        co_await lock.acquire();
        asyncio::get_running_loop().call_soon([&] { lock.release(); });
        co_await lock.acquire();
        lock.release();
    };
    in_virtual_time(contend);
    in_virtual_time([&]() -> Coro<> {
        co_await lock.acquire();
        const auto refused = co_await as_result(lock.acquire());
        EXPECT_EQ(text_of(refused.exception()),
                  "RuntimeError: Lock is bound to a different event loop: the one in which "
                  "somebody first had to wait for it; make one for each loop");
        lock.release();
    });
}

TEST(Lock, destroyed_while_tasks_wait_throws_to_them) {
    in_virtual_time([]() -> Coro<> {
        auto lock = std::make_unique<Lock>();
        co_await lock->acquire();
        auto a = create_task(lock->acquire());
        auto b = create_task(lock->acquire());
        auto c = create_task(lock->acquire());
        co_await sleep(0);
        b.cancel();
        lock->release(); // a is on its way
        lock.reset();
        const auto results = co_await gather(return_exceptions, a, b, c);
        const std::string expected = "RuntimeError: Lock was destroyed while a task waited for it: "
                                     "keep it until the tasks that use it have ended";
        EXPECT_EQ(text_of(std::get<0>(results).exception()), expected);
        EXPECT_TRUE(std::get<1>(results).failed_with<asyncio::CancelledError>());
        EXPECT_EQ(text_of(std::get<2>(results).exception()), expected);
    });
}

TEST(Lock, destroyed_and_cancelled_in_the_same_turn_is_cancelled) {
    in_virtual_time([]() -> Coro<> {
        auto lock = std::make_unique<Lock>();
        co_await lock->acquire();
        auto a = create_task(lock->acquire());
        co_await sleep(0);
        lock.reset();
        a.cancel();
        const auto result = co_await as_result(a);
        EXPECT_TRUE(result.failed_with<asyncio::CancelledError>());
    });
}

// --- whatever order frames are destroyed in ---

TEST(Locks, waited_for_when_the_loop_closes_are_left_alone) {
    Reports reports;
    struct All {
        Lock lock;
        Event event;
        Semaphore semaphore{0};
        Condition condition;
        Barrier barrier{2};
    };
    for (const bool owner_is_older : {true, false}) {
        const auto loop = asyncio::new_event_loop();
        reports.watch(*loop);
        All* all = nullptr;
        const auto owner = [&]() -> Coro<> {
            All own;
            all = &own;
            co_await own.lock.acquire();
            co_await own.event.wait();
        };
        if (owner_is_older) create_task(*loop, owner);
        for (int i = 0; i < 2; ++i) {
            create_task(*loop, [&]() -> Coro<> {
                co_await sleep(0);
                co_await all->condition.acquire();
                co_await all->condition.wait();
            });
            create_task(*loop, [&]() -> Coro<> {
                co_await sleep(0);
                const auto held = co_await all->lock.scoped();
            });
            create_task(*loop, [&]() -> Coro<> {
                co_await sleep(0);
                const auto held = co_await all->semaphore.scoped();
            });
        }
        create_task(*loop, [&]() -> Coro<> {
            co_await sleep(0);
            co_await all->barrier.wait();
        });
        // The frames of the younger tasks go first.
        if (!owner_is_older) create_task(*loop, owner);
        for (int i = 0; i < 4; ++i) {
            loop->call_soon([] {});
            loop->stop();
            loop->run_forever();
        }
        loop->close();
    }
    EXPECT_EQ(reports.count("Task was destroyed but it is pending!"), reports.count());
    EXPECT_EQ(reports.count(), 16U) << reports.text();
}

TEST(Locks, a_scope_that_ends_with_its_loop_while_it_waits_on_a_condition_is_not_reported) {
    Reports reports;
    Condition condition;
    const auto loop = asyncio::new_event_loop();
    reports.watch(*loop);
    create_task(*loop, [&]() -> Coro<> {
        const auto held = co_await condition.scoped();
        co_await condition.wait();
    });
    loop->call_soon([&] { loop->stop(); });
    loop->run_forever();
    loop->close();
    EXPECT_EQ(reports.count("Task was destroyed but it is pending!"), 1U);
    EXPECT_EQ(reports.count(), 1U) << reports.text();
}

// --- Event ---

TEST(Event, wakes_all_who_wait_also_if_it_is_cleared_at_once) {
    EXPECT_EQ(trace_of([](Log& log) -> Coro<> {
                  Event event;
                  const auto waiter = [&](std::string name) -> Coro<> {
                      co_await event.wait();
                      log(name + (event.is_set() ? " set" : " cleared"));
                  };
                  auto a = create_task(waiter("a"));
                  auto b = create_task(waiter("b"));
                  co_await sleep(0);
                  event.set();
                  event.clear();
                  log("set and cleared");
                  auto c = create_task(waiter("c"));
                  co_await sleep(0);
                  co_await sleep(0);
                  log("set");
                  event.set();
                  co_await c;
              }),
              Trace({"2 set and cleared", "3 a cleared", "3 b cleared", "4 set", "5 c set"}));
}

TEST(Event, set_takes_no_turn_and_set_by_a_callback_two) {
    EXPECT_EQ(turns_of([](Turns& turns) -> Coro<int> {
                  Event event;
                  event.set();
                  const int begin = turns.now();
                  co_await event.wait();
                  co_return turns.now() - begin;
              }),
              0);
    EXPECT_EQ(turns_of([](Turns& turns) -> Coro<int> {
                  Event event;
                  const int begin = turns.now();
                  asyncio::get_running_loop().call_soon([&] { event.set(); });
                  co_await event.wait();
                  co_return turns.now() - begin;
              }),
              2);
}

TEST(Event, a_cancel_in_the_turn_in_which_it_is_set_is_thrown) {
    in_virtual_time([]() -> Coro<> {
        Event event;
        auto before = create_task(event.wait());
        auto after = create_task(event.wait());
        co_await sleep(0);
        before.cancel();
        event.set();
        after.cancel();
        const auto results = co_await gather(return_exceptions, before, after);
        EXPECT_TRUE(std::get<0>(results).failed_with<asyncio::CancelledError>());
        EXPECT_TRUE(std::get<1>(results).failed_with<asyncio::CancelledError>());
    });
}

TEST(Event, destroyed_when_it_has_just_been_set_has_been_waited_for) {
    in_virtual_time([]() -> Coro<> {
        auto event = std::make_unique<Event>();
        auto task = create_task(event->wait());
        co_await sleep(0);
        event->set();
        event.reset();
        co_await task;
        EXPECT_FALSE(task.cancelled());
    });
}

TEST(Event, of_another_loop_refuses_to_wait) {
    Event event;
    in_virtual_time([&]() -> Coro<> {
        asyncio::get_running_loop().call_soon([&] { event.set(); });
        co_await event.wait();
    });
    in_virtual_time([&]() -> Coro<> {
        co_await event.wait(); // is set, so that nobody waits
        event.clear();
        const auto refused = co_await as_result(event.wait());
        EXPECT_TRUE(refused.failed_with<asyncio::RuntimeError>());
    });
}

// --- Condition ---

TEST(Condition, needs_its_lock) {
    in_virtual_time([]() -> Coro<> {
        Condition condition;
        const auto waited = co_await as_result(condition.wait());
        EXPECT_EQ(text_of(waited.exception()), "RuntimeError: cannot wait on un-acquired lock");
        const auto notify = [&] {
            condition.notify();
            return 0;
        };
        EXPECT_EQ(thrown_by(notify), "RuntimeError: cannot notify on un-acquired lock");
        const auto held = co_await condition.scoped();
        EXPECT_EQ(thrown_by(notify), "nothing");
    });
}

TEST(Condition, gives_the_lock_to_one_after_the_other) {
    EXPECT_EQ(trace_of([](Log& log) -> Coro<> {
                  Condition condition;
                  const auto waiter = [&](std::string name) -> Coro<> {
                      const auto held = co_await condition.scoped();
                      log(name + " waits");
                      co_await condition.wait();
                      log(name + " has it");
                  };
                  auto a = create_task(waiter("a"));
                  auto b = create_task(waiter("b"));
                  co_await sleep(0);
                  {
                      const auto held = co_await condition.scoped();
                      condition.notify_all();
                      log("notified");
                      co_await sleep(0);
                      co_await sleep(0);
                      log("releases");
                  }
                  co_await gather(a, b);
                  log("end");
              }),
              Trace({"2 a waits", "2 b waits", "2 notified", "4 releases", "5 a has it",
                     "6 b has it", "8 end"}));
}

TEST(Condition, cancelled_has_its_lock_again_before_it_throws_and_throws_the_last_cancel) {
    EXPECT_EQ(trace_of([](Log& log) -> Coro<> {
                  Condition condition;
                  const auto waiter = [&]() -> Coro<> {
                      const auto held = co_await condition.scoped();
                      try {
                          co_await condition.wait();
                      } catch (const asyncio::CancelledError& error) {
                          log(std::string("cancelled by ") + error.message() +
                              (condition.locked() ? ", locked" : ", free"));
                          throw;
                      }
                  };
                  auto task = create_task(waiter());
                  co_await sleep(0);
                  co_await condition.acquire();
                  task.cancel("first");
                  for (int i = 0; i < 3; ++i) co_await sleep(0);
                  task.cancel("second");
                  co_await sleep(0);
                  co_await sleep(0);
                  log("releases");
                  condition.release();
                  const auto result = co_await as_result(task);
                  EXPECT_TRUE(result.failed_with<asyncio::CancelledError>());
                  log("end");
              }),
              Trace({"7 releases", "8 cancelled by second, locked", "9 end"}));
}

TEST(Condition, notified_and_cancelled_passes_it_on) {
    EXPECT_EQ(trace_of([](Log& log) -> Coro<> {
                  Condition condition;
                  const auto waiter = [&](std::string name) -> Coro<> {
                      const auto held = co_await condition.scoped();
                      try {
                          co_await condition.wait();
                          log(name + " told");
                      } catch (const asyncio::CancelledError&) {
                          log(name + " cancelled");
                          throw;
                      }
                  };
                  auto a = create_task(waiter("a"));
                  auto b = create_task(waiter("b"));
                  co_await sleep(0);
                  co_await condition.acquire();
                  condition.notify();
                  a.cancel();
                  log("a notified and cancelled");
                  condition.release();
                  co_await gather(return_exceptions, a, b);
              }),
              Trace({"2 a notified and cancelled", "3 a cancelled", "4 b told"}));
}

TEST(Condition, wait_for_gives_what_the_predicate_gave) {
    in_virtual_time([]() -> Coro<> {
        Lock lock;
        Condition condition(lock);
        int items = 0;
        const auto producer = [&]() -> Coro<> {
            for (int i = 0; i < 3; ++i) {
                co_await sleep(1s);
                const auto held = co_await lock.scoped();
                ++items;
                condition.notify();
            }
        };
        auto task = create_task(producer());
        const auto held = co_await condition.scoped();
        int asked = 0;
        const int enough = co_await condition.wait_for([&] {
            ++asked;
            return items >= 2 ? items : 0;
        });
        EXPECT_EQ(enough, 2);
        EXPECT_EQ(asked, 3);
        EXPECT_TRUE(lock.locked());
        task.cancel();
    });
}

TEST(Condition, notify_tells_as_many_as_it_is_asked_to) {
    in_virtual_time([]() -> Coro<> {
        Condition condition;
        int told = 0;
        const auto waiter = [&]() -> Coro<> {
            const auto held = co_await condition.scoped();
            co_await condition.wait();
            ++told;
        };
        std::vector<Task<>> tasks;
        for (int i = 0; i < 5; ++i) tasks.push_back(create_task(waiter()));
        co_await sleep(0);
        const auto notify = [&](std::size_t count) -> Coro<int> {
            {
                const auto held = co_await condition.scoped();
                condition.notify(count);
            }
            co_await sleep(1s);
            co_return told;
        };
        EXPECT_EQ(co_await notify(0), 0);
        EXPECT_EQ(co_await notify(1), 1);
        EXPECT_EQ(co_await notify(2), 3);
        EXPECT_EQ(co_await notify(9), 5);
        co_await gather(tasks);
    });
}

TEST(Condition, destroyed_while_tasks_wait_throws_to_them) {
    in_virtual_time([]() -> Coro<> {
        auto condition = std::make_unique<Condition>();
        const auto waiter = [&]() -> Coro<> {
            co_await condition->acquire();
            co_await condition->wait();
        };
        auto waiting = create_task(waiter());
        auto told = create_task(waiter());
        co_await sleep(0);
        co_await condition->acquire();
        condition->notify();
        co_await sleep(0); // waits for the lock now
        condition.reset();
        const auto results = co_await gather(return_exceptions, waiting, told);
        EXPECT_TRUE(std::get<0>(results).failed_with<asyncio::RuntimeError>());
        EXPECT_TRUE(std::get<1>(results).failed_with<asyncio::RuntimeError>());
    });
}

// --- Semaphore ---

TEST(Semaphore, refuses_a_negative_value) {
    EXPECT_EQ(thrown_by([] { return Semaphore(-1).locked(); }),
              "ValueError: Semaphore initial value must be >= 0");
    EXPECT_EQ(thrown_by([] { return BoundedSemaphore(-1).locked(); }),
              "ValueError: Semaphore initial value must be >= 0");
}

TEST(Semaphore, lets_in_as_many_as_it_has_permits) {
    EXPECT_EQ(trace_of([](Log& log) -> Coro<> {
                  Semaphore semaphore(2);
                  const auto user = [&](std::string name) -> Coro<> {
                      {
                          const auto permit = co_await semaphore.scoped();
                          log(name + " in");
                          co_await sleep(0);
                          co_await sleep(0);
                      }
                      log(name + " out");
                  };
                  co_await gather(user("a"), user("b"), user("c"), user("d"), user("e"));
              }),
              Trace({"2 a in", "2 b in", "4 a out", "4 b out", "5 c in", "5 d in", "7 c out",
                     "7 d out", "8 e in", "10 e out"}));
}

TEST(Semaphore, cancelled_with_a_permit_on_its_way_gives_it_to_the_next) {
    EXPECT_EQ(trace_of([](Log& log) -> Coro<> {
                  Semaphore semaphore(0);
                  const auto user = [&](std::string name) -> Coro<> {
                      try {
                          co_await semaphore.acquire();
                          log(name + " in");
                      } catch (const asyncio::CancelledError&) {
                          log(name + " cancelled");
                          throw;
                      }
                  };
                  auto a = create_task(user("a"));
                  auto b = create_task(user("b"));
                  co_await sleep(0);
                  semaphore.release();
                  a.cancel();
                  log("released to a, cancelled");
                  co_await gather(return_exceptions, a, b);
                  log(semaphore.locked() ? "locked" : "free");
              }),
              Trace({"2 released to a, cancelled", "3 a cancelled", "4 b in", "6 locked"}));
}

TEST(Semaphore, is_locked_while_somebody_waits_though_there_are_permits) {
    in_virtual_time([]() -> Coro<> {
        Semaphore semaphore(1);
        co_await semaphore.acquire();
        auto task = create_task(semaphore.acquire());
        co_await sleep(0);
        semaphore.release();
        semaphore.release();
        EXPECT_TRUE(semaphore.locked());
        co_await task;
        EXPECT_FALSE(semaphore.locked());
    });
}

TEST(BoundedSemaphore, refuses_to_be_released_too_often) {
    in_virtual_time([]() -> Coro<> {
        BoundedSemaphore semaphore(2);
        const auto release = [&] {
            semaphore.release();
            return 0;
        };
        EXPECT_EQ(thrown_by(release), "ValueError: BoundedSemaphore released too many times");
        {
            const auto permit = co_await semaphore.scoped();
        }
        EXPECT_EQ(thrown_by(release), "ValueError: BoundedSemaphore released too many times");
        co_await semaphore.acquire();
        EXPECT_EQ(thrown_by(release), "nothing");
    });
}

// --- Barrier ---

TEST(Barrier, refuses_to_be_for_nobody) {
    EXPECT_EQ(thrown_by([] { return Barrier(0).parties(); }), "ValueError: parties must be >= 1");
}

TEST(Barrier, lets_go_all_at_once_and_numbers_them) {
    EXPECT_EQ(trace_of([](Log& log) -> Coro<> {
                  Barrier barrier(2);
                  EXPECT_EQ(barrier.parties(), 2);
                  const auto party = [&](std::string name) -> Coro<> {
                      log(name + " comes");
                      const auto index = co_await barrier.wait();
                      log(name + " goes as " + std::to_string(index));
                  };
                  co_await gather(party("a"), party("b"), party("c"), party("d"));
                  log(std::to_string(barrier.n_waiting()));
              }),
              Trace({"2 a comes", "2 b comes", "2 b goes as 1", "2 c comes", "2 d comes",
                     "3 a goes as 0", "4 d goes as 1", "5 c goes as 0", "7 0"}));
}

TEST(Barrier, reset_and_aborted_breaks_for_those_who_wait) {
    EXPECT_EQ(trace_of([](Log& log) -> Coro<> {
                  Barrier barrier(3);
                  const auto party = [&](std::string name) -> Coro<> {
                      try {
                          const auto index = co_await barrier.wait();
                          log(name + " goes as " + std::to_string(index));
                      } catch (const asyncio::BrokenBarrierError&) {
                          log(name + " broken");
                      }
                  };
                  std::vector<Task<>> tasks;
                  for (const char* name : {"a", "b"}) tasks.push_back(create_task(party(name)));
                  co_await sleep(0);
                  co_await barrier.reset();
                  log("reset");
                  for (const char* name : {"c", "d", "e"})
                      tasks.push_back(create_task(party(name)));
                  co_await gather(tasks);
                  auto last = create_task(party("f"));
                  co_await sleep(0);
                  co_await barrier.abort();
                  log("aborted");
                  co_await last;
                  co_await party("g");
                  co_await barrier.reset();
                  log(barrier.broken() ? "broken" : "whole");
              }),
              Trace({"2 reset", "3 a broken", "3 b broken", "3 e goes as 2", "4 c goes as 0",
                     "4 d goes as 1", "7 aborted", "8 f broken", "9 g broken", "9 whole"}));
}

TEST(Barrier, a_party_that_is_cancelled_is_not_counted) {
    in_virtual_time([]() -> Coro<> {
        Barrier barrier(2);
        auto a = create_task(barrier.wait());
        co_await sleep(0);
        EXPECT_EQ(barrier.n_waiting(), 1);
        a.cancel();
        const auto result = co_await as_result(a);
        EXPECT_TRUE(result.failed_with<asyncio::CancelledError>());
        EXPECT_EQ(barrier.n_waiting(), 0);
        EXPECT_FALSE(barrier.broken());
        const auto indices = co_await gather(barrier.wait(), barrier.wait());
        EXPECT_EQ(std::get<0>(indices) + std::get<1>(indices), 1);
    });
}

TEST(Barrier, destroyed_while_tasks_wait_throws_to_them) {
    in_virtual_time([]() -> Coro<> {
        auto barrier = std::make_unique<Barrier>(3);
        auto a = create_task(barrier->wait());
        auto b = create_task(barrier->wait());
        co_await sleep(0);
        b.cancel();
        barrier.reset();
        const auto results = co_await gather(return_exceptions, a, b);
        EXPECT_TRUE(std::get<0>(results).failed_with<asyncio::RuntimeError>());
        EXPECT_TRUE(std::get<1>(results).failed_with<asyncio::CancelledError>());
    });
}

// --- cancelled at each of their awaits ---

namespace {

// Takes the lock and gives it back, some turns later.
Coro<> hold(Lock* lock, LeakToken token) {
    const auto held = co_await lock->scoped();
    co_await sleep(1s);
    EXPECT_GT(token.use_count(), 0);
}

} // namespace

TEST(LocksCancelledEverywhere, a_lock_is_free_in_the_end) {
    std::unique_ptr<Lock> lock;
    const auto check = [&] { EXPECT_FALSE(lock != nullptr && lock->locked()); };
    EXPECT_GE(cancel_everywhere([&](LeakToken token) -> Coro<> {
                  check();
                  lock = std::make_unique<Lock>();
                  co_await gather(hold(lock.get(), token), hold(lock.get(), token),
                                  hold(lock.get(), token));
                  const auto held = co_await lock->scoped();
                  co_await sleep(1s);
              }),
              8);
    check();
}

TEST(LocksCancelledEverywhere, one_of_several_holders_leaves_the_others_alone) {
    EXPECT_GE(cancel_everywhere([](LeakToken token) -> Coro<> {
                  struct Shared {
                      Lock lock;
                      Semaphore semaphore{2};
                      int finished = 0;
                  };
                  const auto shared = std::make_shared<Shared>();
                  const auto other = [](std::shared_ptr<Shared> s, LeakToken) -> Coro<> {
                      for (int i = 0; i < 3; ++i) {
                          const auto permit = co_await s->semaphore.scoped();
                          const auto held = co_await s->lock.scoped();
                          co_await sleep(0);
                      }
                      ++s->finished;
                      if (s->finished == 3) {
                          EXPECT_FALSE(s->lock.locked());
                      }
                  };
                  for (int i = 0; i < 3; ++i) create_task(other, shared, token);
                  for (int i = 0; i < 5; ++i) {
                      const auto permit = co_await shared->semaphore.scoped();
                      const auto held = co_await shared->lock.scoped();
                      co_await sleep(0);
                  }
              }),
              10);
}

TEST(LocksCancelledEverywhere, an_event) {
    EXPECT_GE(cancel_everywhere(
                  [](LeakToken token) -> Coro<> {
                      const auto event = std::make_shared<Event>();
                      const auto setter = [](std::shared_ptr<Event> e, LeakToken) -> Coro<> {
                          co_await sleep(1s);
                          e->set();
                      };
                      const auto waiter = [](std::shared_ptr<Event> e, LeakToken) -> Coro<> {
                          co_await e->wait();
                      };
                      co_await gather(waiter(event, token), setter(event, token),
                                      waiter(event, token));
                      co_await event->wait();
                      event->clear();
                      create_task(setter(event, token));
                      co_await event->wait();
                  },
                  asyncio::testing::CancelOptions().may_leave_tasks(true)),
              5);
}

TEST(LocksCancelledEverywhere, a_condition_holds_its_lock_whenever_wait_returns) {
    EXPECT_GE(cancel_everywhere(
                  [](LeakToken token) -> Coro<> {
                      struct Shared {
                          Condition condition;
                          int items = 0;
                      };
                      const auto shared = std::make_shared<Shared>();
                      const auto producer = [](std::shared_ptr<Shared> s, LeakToken) -> Coro<> {
                          for (int i = 0; i < 4; ++i) {
                              const auto held = co_await s->condition.scoped();
                              ++s->items;
                              s->condition.notify();
                              co_await sleep(1s);
                          }
                      };
                      auto task = create_task(producer, shared, token);
                      for (int i = 0; i < 3; ++i) {
                          const auto held = co_await shared->condition.scoped();
                          // A scope that is left without the lock would be reported.
                          co_await shared->condition.wait_for([&] { return shared->items > 0; });
                          --shared->items;
                      }
                      co_await task;
                  },
                  asyncio::testing::CancelOptions().may_leave_tasks(true)),
              8);
}

TEST(LocksCancelledEverywhere, a_barrier) {
    EXPECT_GE(cancel_everywhere([](LeakToken token) -> Coro<> {
                  const auto barrier = std::make_shared<Barrier>(3);
                  const auto party = [](std::shared_ptr<Barrier> b, LeakToken) -> Coro<> {
                      co_await b->wait();
                      co_await sleep(1s);
                      co_await b->wait();
                  };
                  co_await gather(party(barrier, token), party(barrier, token),
                                  party(barrier, token));
                  EXPECT_EQ(barrier->n_waiting(), 0);
                  co_await barrier->abort();
                  co_await barrier->reset();
              }),
              4);
}
