// SPDX-License-Identifier: MIT
// Lock, Event, Condition and Semaphore where tasks that wait are cancelled, woken and overtaken, as
// CPython's own tests have it: see cpython.md, and locks.cpp for others.
#include <asyncio/asyncio.hpp>

#include "support/in_virtual_time.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <tuple>
#include <vector>

using namespace std::chrono_literals;
using asyncio::as_result;
using asyncio::BoundedSemaphore;
using asyncio::CancelledError;
using asyncio::Condition;
using asyncio::Coro;
using asyncio::create_future;
using asyncio::create_task;
using asyncio::Event;
using asyncio::gather;
using asyncio::get_running_loop;
using asyncio::Lock;
using asyncio::return_exceptions;
using asyncio::Semaphore;
using asyncio::sleep;
using asyncio::Task;
using asyncio_test::in_virtual_time;
using asyncio_test::text_of;
using asyncio_test::thrown_by;

namespace {

using Numbers = std::vector<int>;

// Acquires it, and notes that.
template <class Primitive> Coro<> take(Primitive& primitive, Numbers& order, int number) {
    co_await primitive.acquire();
    order.push_back(number);
}

template <class Primitive> Coro<> cancelled_by_a_callback(Primitive& primitive) {
    auto task = create_task(primitive.acquire());
    get_running_loop().call_soon([&] { task.cancel(); });
    const auto result = co_await as_result(task);
    EXPECT_TRUE(result.template failed_with<CancelledError>());
}

// Waits on the condition with its lock, and keeps that.
Coro<> wait_and_keep(Condition& condition, Numbers& order, int number) {
    co_await condition.acquire();
    co_await condition.wait();
    order.push_back(number);
}

Coro<> wait_and_release(Condition& condition, Numbers& order, int number) {
    co_await wait_and_keep(condition, order, number);
    condition.release();
}

// Eats what there is, until it is less than nothing.
struct Store {
    Condition condition;
    int state = 0;

    Coro<> consume() {
        const auto held = co_await condition.scoped();
        for (;;) {
            co_await condition.wait_for([this] { return state != 0; });
            if (state < 0) co_return;
            --state;
        }
    }
};

} // namespace

// --- Lock ---

TEST(ContendedLock, goes_to_each_in_turn_as_it_is_released) {
    in_virtual_time([]() -> Coro<> {
        Lock lock;
        Numbers order;
        co_await lock.acquire();
        auto first = create_task(take(lock, order, 1));
        auto second = create_task(take(lock, order, 2));
        co_await sleep(0);
        EXPECT_EQ(order, Numbers{});
        lock.release();
        co_await sleep(0);
        EXPECT_EQ(order, Numbers{1});
        co_await sleep(0);
        EXPECT_EQ(order, Numbers{1});
        auto third = create_task(take(lock, order, 3)); // before the second one comes to it
        lock.release();
        co_await sleep(0);
        EXPECT_EQ(order, (Numbers{1, 2}));
        lock.release();
        co_await sleep(0);
        EXPECT_EQ(order, (Numbers{1, 2, 3}));
        EXPECT_TRUE(first.done() && second.done() && third.done());
    });
}

TEST(ContendedLock, is_free_of_one_who_was_cancelled_while_waiting) {
    in_virtual_time([]() -> Coro<> {
        Lock lock;
        co_await lock.acquire();
        co_await cancelled_by_a_callback(lock);
        lock.release();
        co_await lock.acquire(); // at once: nobody waits
        EXPECT_TRUE(lock.locked());
    });
}

TEST(ContendedLock, passes_one_by_who_is_cancelled_as_it_is_released) {
    in_virtual_time([]() -> Coro<> {
        Lock lock;
        const auto hold = [&](asyncio::Future<> until) -> Coro<> {
            const auto held = co_await lock.scoped();
            co_await until;
        };
        auto until = create_future();
        auto done = create_future();
        done.set_result();
        auto a = create_task(hold(until));
        auto b = create_task(hold(done));
        auto c = create_task(hold(done));
        co_await sleep(0);
        EXPECT_TRUE(lock.locked());
        until.set_result();
        b.cancel();
        co_await sleep(0);
        EXPECT_FALSE(lock.locked());
        EXPECT_TRUE(a.done());
        EXPECT_TRUE(b.cancelled());
        co_await c;
    });
}

TEST(ContendedLock, is_not_given_twice_when_a_cancel_and_a_release_come_together) {
    in_virtual_time([]() -> Coro<> {
        Lock lock;
        Numbers order;
        co_await lock.acquire();
        auto a = create_task(take(lock, order, 1));
        auto b = create_task(take(lock, order, 2));
        auto c = create_task(take(lock, order, 3));
        co_await sleep(0);
        get_running_loop().call_soon([&] {
            a.cancel();
            lock.release();
        });
        const auto result = co_await as_result(a);
        EXPECT_TRUE(result.failed_with<CancelledError>());
        EXPECT_EQ(order, Numbers{2});
        EXPECT_TRUE(b.done());
        EXPECT_FALSE(c.done());
        c.cancel();
        co_await sleep(0);
        EXPECT_TRUE(c.cancelled());
    });
}

TEST(ContendedLock, cancelled_by_the_last_who_waited_is_there_for_one_who_comes) {
    in_virtual_time([]() -> Coro<> {
        Lock lock;
        co_await lock.acquire();
        auto cancelled = create_task(lock.acquire());
        co_await sleep(0);
        auto comes = create_task(lock.acquire());
        cancelled.cancel();
        lock.release();
        co_await sleep(0);
        EXPECT_TRUE(lock.locked());
        EXPECT_TRUE(cancelled.cancelled());
        co_await comes;
    });
}

// --- Event ---

TEST(ContendedEvent, lets_who_has_just_come_go_first) {
    in_virtual_time([]() -> Coro<> {
        Event event;
        Numbers order;
        const auto wait = [&](int number) -> Coro<> {
            co_await event.wait();
            order.push_back(number);
        };
        auto a = create_task(wait(1));
        auto b = create_task(wait(2));
        co_await sleep(0);
        auto c = create_task(wait(3));
        event.set();
        co_await sleep(0);
        EXPECT_EQ(order, (Numbers{3, 1, 2})); // for the third, it was set when it looked
        EXPECT_TRUE(a.done() && b.done() && c.done());
    });
}

TEST(ContendedEvent, set_twice_and_cleared_between_wakes_who_waits_once) {
    in_virtual_time([]() -> Coro<> {
        Event event;
        int woken = 0;
        const auto wait = [&]() -> Coro<> {
            co_await event.wait();
            ++woken;
        };
        auto task = create_task(wait());
        co_await sleep(0);
        event.set();
        event.clear();
        EXPECT_FALSE(event.is_set());
        event.set();
        event.set();
        co_await sleep(0);
        EXPECT_EQ(woken, 1);
        EXPECT_TRUE(task.done());
        event.clear();
        auto waiting = create_task(event.wait());
        get_running_loop().call_soon([&] { waiting.cancel(); });
        const auto result = co_await as_result(waiting);
        EXPECT_TRUE(result.failed_with<CancelledError>());
        event.set(); // there is nobody
    });
}

// --- Condition ---

TEST(ContendedCondition, lets_one_go_on_as_the_other_releases_the_lock) {
    in_virtual_time([]() -> Coro<> {
        Condition condition;
        Numbers order;
        std::vector<Task<>> tasks;
        for (const int i : {1, 2, 3})
            tasks.push_back(create_task(wait_and_keep(condition, order, i)));
        co_await sleep(0);
        EXPECT_FALSE(condition.locked());
        co_await condition.acquire();
        condition.notify();
        co_await sleep(0);
        EXPECT_EQ(order, Numbers{});
        EXPECT_TRUE(condition.locked());
        condition.release();
        co_await sleep(0);
        EXPECT_EQ(order, Numbers{1});
        EXPECT_TRUE(condition.locked());
        condition.notify(2); // by another one than the task that holds the lock
        co_await sleep(0);
        EXPECT_EQ(order, Numbers{1});
        condition.release();
        co_await sleep(0);
        EXPECT_EQ(order, (Numbers{1, 2}));
        condition.release();
        co_await sleep(0);
        EXPECT_EQ(order, (Numbers{1, 2, 3}));
        EXPECT_TRUE(condition.locked());
        for (const auto& task : tasks) EXPECT_TRUE(task.done());
    });
}

TEST(ContendedCondition, notifies_those_who_wait_and_no_more) {
    in_virtual_time([]() -> Coro<> {
        Condition condition;
        Numbers order;
        std::vector<Task<>> tasks;
        for (const int i : {1, 2, 3})
            tasks.push_back(create_task(wait_and_release(condition, order, i)));
        co_await sleep(0);
        co_await condition.acquire();
        condition.notify(1);
        condition.release();
        co_await sleep(0);
        EXPECT_EQ(order, Numbers{1});
        co_await condition.acquire();
        condition.notify(1);
        condition.notify(2048);
        condition.release();
        co_await sleep(0);
        EXPECT_EQ(order, (Numbers{1, 2, 3}));
        for (const auto& task : tasks) EXPECT_TRUE(task.done());
        co_await condition.acquire();
        condition.notify_all();
    });
}

TEST(ContendedCondition, cancelled_while_it_waits_has_the_lock_again) {
    in_virtual_time([]() -> Coro<> {
        Condition condition;
        co_await condition.acquire();
        auto waiting = create_task(condition.wait());
        get_running_loop().call_soon([&] { waiting.cancel(); });
        const auto result = co_await as_result(waiting);
        EXPECT_TRUE(result.failed_with<CancelledError>());
        EXPECT_TRUE(condition.locked());
    });
}

TEST(ContendedCondition, cancelled_and_released_in_one_turn_has_the_lock_again) {
    in_virtual_time([]() -> Coro<> {
        Condition condition;
        co_await condition.acquire();
        auto waiting = create_task(condition.wait());
        co_await sleep(0);
        EXPECT_FALSE(condition.locked());
        co_await condition.acquire();
        condition.notify();
        get_running_loop().call_soon([&] { waiting.cancel(); });
        get_running_loop().call_soon([&] { condition.release(); });
        const auto result = co_await as_result(waiting);
        EXPECT_TRUE(result.failed_with<CancelledError>());
        EXPECT_TRUE(condition.locked());
    });
}

TEST(ContendedCondition, cancelled_while_it_waits_for_the_lock_is_cancelled_when_it_has_it) {
    in_virtual_time([]() -> Coro<> {
        Condition condition;
        auto waiting = create_task([&]() -> Coro<> {
            const auto held = co_await condition.scoped();
            co_await condition.wait();
        });
        co_await sleep(0);
        co_await condition.acquire();
        condition.notify();
        co_await sleep(0); // it waits for the lock now
        waiting.cancel();
        co_await sleep(0);
        EXPECT_FALSE(waiting.done());
        condition.release();
        co_await sleep(0);
        EXPECT_TRUE(waiting.cancelled());
        EXPECT_FALSE(condition.locked());
    });
}

TEST(ContendedCondition, throws_the_cancel_as_it_came) {
    in_virtual_time([]() -> Coro<> {
        for (const bool while_waiting_for_the_lock : {false, true}) {
            Condition condition;
            bool wake = false;
            std::string inside;
            auto waiting = create_task([&]() -> Coro<> {
                const auto held = co_await condition.scoped();
                const auto waited = co_await as_result(condition.wait_for([&] { return wake; }));
                inside = text_of(waited.exception());
                waited.value();
            });
            co_await sleep(0);
            if (while_waiting_for_the_lock) {
                co_await condition.acquire();
                wake = true;
                condition.notify();
                co_await sleep(0);
                waiting.cancel("foo");
                condition.release();
            } else {
                waiting.cancel("foo");
            }
            const auto result = co_await as_result(waiting);
            EXPECT_EQ(text_of(result.exception()), "CancelledError: foo");
            EXPECT_EQ(inside, "CancelledError: foo");
        }
    });
}

TEST(ContendedCondition, asks_the_predicate_after_each_notify_and_first_without_the_lock) {
    in_virtual_time([]() -> Coro<> {
        Condition condition;
        // What is true at once needs no lock.
        const auto list = co_await condition.wait_for([] { return std::make_unique<int>(1); });
        EXPECT_EQ(*list, 1);
        const auto refused = co_await as_result(condition.wait_for([] { return false; }));
        EXPECT_EQ(text_of(refused.exception()), "RuntimeError: cannot wait on un-acquired lock");
        EXPECT_EQ(thrown_by([&] {
                      condition.notify_all();
                      return 0;
                  }),
                  "RuntimeError: cannot notify on un-acquired lock");

        bool is_true = false;
        auto waiting = create_task([&]() -> Coro<> {
            const auto held = co_await condition.scoped();
            co_await condition.wait_for([&] { return is_true; });
        });
        co_await sleep(0);
        for (const bool now : {false, true}) {
            is_true = now;
            co_await condition.acquire();
            condition.notify();
            condition.release();
            co_await sleep(0);
            EXPECT_EQ(waiting.done(), now);
        }
    });
}

TEST(ContendedCondition, and_its_lock_are_locked_together) {
    in_virtual_time([]() -> Coro<> {
        Lock lock;
        Condition condition(lock);
        {
            const auto held = co_await condition.scoped();
            EXPECT_TRUE(lock.locked() && condition.locked());
        }
        EXPECT_FALSE(lock.locked() || condition.locked());
        {
            const auto held = co_await lock.scoped();
            EXPECT_TRUE(lock.locked() && condition.locked());
        }
        EXPECT_FALSE(lock.locked() || condition.locked());
    });
}

TEST(ContendedCondition, of_a_lock_of_another_loop_refuses_to_wait) {
    Lock lock;
    in_virtual_time([&]() -> Coro<> { // somebody waits here first
        co_await lock.acquire();
        get_running_loop().call_soon([&] { lock.release(); });
        co_await lock.acquire();
        lock.release();
    });
    Condition other;
    in_virtual_time([&]() -> Coro<> {
        co_await other.acquire();
        const auto result = co_await as_result(asyncio::wait_for(other.wait(), 1s));
        EXPECT_TRUE(result.failed_with<asyncio::TimeoutError>());
        EXPECT_TRUE(other.locked()); // also when the time is up, the lock is held again
        other.release();
    });
    in_virtual_time([&]() -> Coro<> {
        co_await lock.acquire();
        Condition condition(lock);
        const auto acquired = co_await as_result(condition.acquire());
        EXPECT_TRUE(acquired.failed_with<asyncio::RuntimeError>());
        co_await other.acquire();
        const auto waited = co_await as_result(other.wait());
        EXPECT_TRUE(waited.failed_with<asyncio::RuntimeError>());
        EXPECT_TRUE(other.locked());
    });
}

TEST(ContendedCondition, loses_no_notify_to_a_cancel) {
    in_virtual_time([]() -> Coro<> {
        for (const bool while_waiting_for_the_lock : {false, true}) {
            Store store;
            auto first = create_task(store.consume());
            auto second = create_task(store.consume());
            co_await sleep(0);
            {
                const auto held = co_await store.condition.scoped();
                ++store.state;
                store.condition.notify(1);
                if (while_waiting_for_the_lock) co_await sleep(0);
                first.cancel();
                const auto eaten = co_await as_result(asyncio::wait_for(
                    store.condition.wait_for([&] { return store.state == 0; }), 1s));
                static_cast<void>(eaten); // nobody says so: the time is up
                EXPECT_EQ(store.state, 0);
                store.state = -1;
                store.condition.notify_all();
            }
            co_await second;
            EXPECT_TRUE(first.cancelled());
        }
    });
}

// --- Semaphore ---

TEST(ContendedSemaphore, of_no_permits_is_locked) {
    EXPECT_TRUE(Semaphore(0).locked());
    EXPECT_FALSE(Semaphore().locked());
    in_virtual_time([]() -> Coro<> {
        Semaphore semaphore;
        co_await semaphore.acquire();
        EXPECT_TRUE(semaphore.locked());
        semaphore.release();
        EXPECT_FALSE(semaphore.locked());
        BoundedSemaphore bounded;
        EXPECT_EQ(thrown_by([&] {
                      bounded.release();
                      return 0;
                  }).substr(0, 10),
                  "ValueError");
    });
}

TEST(ContendedSemaphore, gives_its_permits_to_those_who_came_first) {
    in_virtual_time([]() -> Coro<> {
        Semaphore semaphore(3);
        Numbers order;
        co_await semaphore.acquire();
        co_await semaphore.acquire();
        EXPECT_FALSE(semaphore.locked());
        std::vector<Task<>> tasks;
        for (const int i : {1, 2, 3}) tasks.push_back(create_task(take(semaphore, order, i)));
        co_await sleep(0);
        EXPECT_EQ(order, Numbers{1});
        EXPECT_TRUE(semaphore.locked());
        tasks.push_back(create_task(take(semaphore, order, 4)));
        semaphore.release();
        semaphore.release();
        co_await sleep(0);
        EXPECT_EQ(order, (Numbers{1, 2, 3}));
        EXPECT_TRUE(semaphore.locked());
        semaphore.release();
        co_await gather(tasks);
    });
}

TEST(ContendedSemaphore, passes_by_those_who_were_cancelled) {
    in_virtual_time([]() -> Coro<> {
        Semaphore semaphore(0);
        std::vector<Task<>> tasks;
        for (int i = 0; i < 4; ++i) tasks.push_back(create_task(semaphore.acquire()));
        co_await sleep(0);
        tasks[0].cancel();
        tasks[1].cancel();
        semaphore.release();
        co_await sleep(0);
        co_await sleep(0);
        EXPECT_TRUE(tasks[2].done());
        EXPECT_FALSE(tasks[3].done());
        EXPECT_TRUE(semaphore.locked());
        tasks[3].cancel();
        co_await sleep(0);
        semaphore.release();
        co_await semaphore.acquire(); // at once: nobody waits
        co_await cancelled_by_a_callback(semaphore);
    });
}

TEST(ContendedSemaphore, is_free_again_after_a_cancel_of_who_was_to_have_it) {
    in_virtual_time([]() -> Coro<> {
        Semaphore semaphore(1);
        Task<> second;
        auto first = create_task([&]() -> Coro<> {
            {
                const auto permit = co_await semaphore.scoped();
                co_await sleep(0);
            }
            second.cancel(); // it has been woken
        });
        second = create_task([&]() -> Coro<> {
            const auto permit = co_await semaphore.scoped();
            ADD_FAILURE();
        });
        const auto results = co_await gather(return_exceptions, first, second);
        EXPECT_TRUE(std::get<0>(results).has_value());
        EXPECT_TRUE(std::get<1>(results).failed_with<CancelledError>());
        co_await asyncio::wait_for(semaphore.acquire(), 1s);
    });
}

TEST(ContendedSemaphore, lets_nobody_overtake) {
    in_virtual_time([]() -> Coro<> {
        Semaphore semaphore(1);
        std::vector<std::string> order;
        const auto twice = [&](const std::string& name) -> Coro<> {
            for (const char* time : {"_1", "_2"}) {
                const auto permit = co_await semaphore.scoped();
                order.push_back(name + time);
                co_await sleep(10ms);
            }
        };
        const std::string a = "a";
        const std::string b = "b";
        const std::string c = "c";
        co_await gather(twice(a), twice(b), twice(c));
        EXPECT_EQ(order, (std::vector<std::string>{"a_1", "b_1", "c_1", "a_2", "b_2", "c_2"}));

        // The second one releases and asks again: the third, who waits, comes before it.
        Numbers numbers;
        auto one = create_task(take(semaphore, numbers, 1));
        auto two = create_task([&]() -> Coro<> {
            co_await take(semaphore, numbers, 2);
            semaphore.release();
            co_await take(semaphore, numbers, 4);
        });
        auto three = create_task(take(semaphore, numbers, 3));
        co_await sleep(0);
        semaphore.release();
        semaphore.release();
        co_await gather(one, two, three);
        EXPECT_EQ(numbers, (Numbers{1, 2, 3, 4}));
    });
}

TEST(ContendedSemaphore, gives_two_permits_to_the_two_behind_who_was_cancelled) {
    in_virtual_time([]() -> Coro<> {
        Semaphore semaphore(0);
        Numbers order;
        auto a = create_task(take(semaphore, order, 1));
        auto b = create_task(take(semaphore, order, 2));
        auto c = create_task(take(semaphore, order, 3));
        co_await sleep(0);
        a.cancel();
        co_await sleep(0);
        semaphore.release();
        semaphore.release();
        co_await gather(return_exceptions, a, b, c);
        EXPECT_EQ(order, (Numbers{2, 3}));
    });
}

TEST(ContendedSemaphore, one_who_gets_a_permit_wakes_the_next_for_what_is_left) {
    in_virtual_time([]() -> Coro<> {
        Semaphore semaphore(0);
        Numbers order;
        Task<> fourth;
        auto first = create_task([&]() -> Coro<> {
            co_await semaphore.acquire();
            EXPECT_TRUE(semaphore.locked());
            // It runs after the third, and so after the second.
            fourth = create_task([&]() -> Coro<> {
                order.push_back(4);
                co_return;
            });
            order.push_back(1);
        });
        auto second = create_task([&]() -> Coro<> {
            for (int i = 0; i < 3; ++i) semaphore.release();
            EXPECT_TRUE(semaphore.locked()); // the first has not had its permit yet
            co_await take(semaphore, order, 2);
        });
        auto third = create_task(take(semaphore, order, 3));
        co_await sleep(0);
        EXPECT_TRUE(semaphore.locked());
        co_await sleep(0);
        co_await gather(first, second, third, fourth);
        EXPECT_EQ(order, (Numbers{1, 2, 3, 4}));
    });
}
