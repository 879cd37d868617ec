// SPDX-License-Identifier: MIT
// The order of steps. Each trace, in which a number is the turn of the loop, was taken from CPython
// 3.13 (asyncio.run on a loop that counts its turns) with the same program in Python.
#include <asyncio/asyncio.hpp>

#include "support/turns.hpp"

#include <gtest/gtest.h>

using asyncio::Coro;
using asyncio::create_task;
using asyncio::gather;
using asyncio::get_running_loop;
using asyncio_test::Log;
using asyncio_test::Trace;
using asyncio_test::trace_of;

namespace {

Coro<std::string> worker(Log& log, std::string name, int turns) {
    log(name + " starts");
    for (int i = 1; i <= turns; ++i) {
        co_await asyncio::sleep(0);
        log(name + " " + std::to_string(i));
    }
    co_return name;
}

Coro<> sleeper(Log& log, std::string name, int seconds = 1000) {
    log(name + " starts");
    try {
        co_await asyncio::sleep(seconds);
        log(name + " woke");
    } catch (const asyncio::CancelledError&) {
        log(name + " cancelled");
        throw;
    }
}

Coro<> turns(int count) {
    for (int i = 0; i < count; ++i) co_await asyncio::sleep(0);
}

template <class T> Coro<> wait_for_cancelled(Log& log, asyncio::Task<T> task) {
    try {
        co_await task;
    } catch (const asyncio::CancelledError&) {
        log("main saw it");
    }
}

void note_later(Log& log, const std::string& label) {
    get_running_loop().call_soon([&log, label] { log(label); });
}

TEST(Order, a_clock_counts_the_turns_as_a_callback_that_reschedules_itself_does) {
    struct Ticker {
        int ticks = 0;
        asyncio::Handle next = {};
        ~Ticker() { next.cancel(); }
        void schedule() {
            next = get_running_loop().call_soon([this] {
                ++ticks;
                schedule();
            });
        }
    };
    const auto program = [](Log& log) -> Coro<> {
        Ticker ticker;
        ticker.schedule();
        const int begin = log.turns().now();
        for (int i = 1; i <= 20; ++i) {
            co_await asyncio::sleep(0);
            EXPECT_EQ(ticker.ticks, i);
            EXPECT_EQ(log.turns().now() - begin, i);
        }
    };
    trace_of(program);
}

TEST(Order, tasks_take_turns) {
    const auto program = [](Log& log) -> Coro<> {
        auto a = create_task(worker(log, "a", 2));
        auto b = create_task(worker(log, "b", 1));
        log("main");
        co_await a;
        log("main has a");
        co_await b;
        log("main has b");
    };
    EXPECT_EQ(trace_of(program), (Trace{"1 main", "2 a starts", "2 b starts", "3 a 1", "3 b 1",
                                        "4 a 2", "5 main has a", "5 main has b"}));
}

TEST(Order, tasks_and_callbacks_share_one_queue) {
    const auto program = [](Log& log) -> Coro<> {
        get_running_loop().call_soon([&log] {
            log("x");
            note_later(log, "z");
        });
        auto t = create_task(worker(log, "t", 1));
        note_later(log, "y");
        co_await asyncio::sleep(0);
        log("main 1");
        co_await asyncio::sleep(0);
        log("main 2");
        co_await t;
        log("main has t");
    };
    EXPECT_EQ(trace_of(program), (Trace{"2 x", "2 t starts", "2 y", "2 main 1", "3 z", "3 t 1",
                                        "3 main 2", "3 main has t"}));
}

TEST(Order, a_cancelled_sleeper) {
    const auto program = [](Log& log) -> Coro<> {
        auto t = create_task(sleeper(log, "t"));
        t.add_done_callback([&log] { log("callback"); });
        co_await asyncio::sleep(0);
        t.cancel();
        log("cancel");
        note_later(log, "after");
        co_await wait_for_cancelled(log, t);
    };
    EXPECT_EQ(trace_of(program), (Trace{"2 t starts", "2 cancel", "3 t cancelled", "3 after",
                                        "4 callback", "4 main saw it"}));
}

TEST(Order, a_cancel_before_the_first_step) {
    const auto program = [](Log& log) -> Coro<> {
        auto t = create_task(sleeper(log, "t"));
        t.add_done_callback([&log] { log("callback"); });
        t.cancel();
        log("cancel");
        note_later(log, "after");
        co_await wait_for_cancelled(log, t);
    };
    EXPECT_EQ(trace_of(program), (Trace{"1 cancel", "2 after", "3 callback", "3 main saw it"}));
}

TEST(Order, gather_of_unequal_workers) {
    const auto program = [](Log& log) -> Coro<> {
        note_later(log, "before");
        auto all = gather(worker(log, "a", 2), worker(log, "b", 0), worker(log, "c", 1));
        note_later(log, "behind");
        all.add_done_callback([&log] { log("gathered"); });
        log("main waits");
        co_await all;
        log("main goes on");
    };
    EXPECT_EQ(trace_of(program),
              (Trace{"1 main waits", "2 before", "2 a starts", "2 b starts", "2 c starts",
                     "2 behind", "3 a 1", "3 c 1", "4 a 2", "6 gathered", "6 main goes on"}));
}

Coro<> fails_late(Log& log) {
    log("bad starts");
    co_await asyncio::sleep(0);
    log("bad fails");
    throw asyncio::ValueError("bad");
}

TEST(Order, gather_with_a_failure) {
    const auto program = [](Log& log) -> Coro<> {
        auto w = create_task(worker(log, "w", 5));
        try {
            co_await gather(fails_late(log), w);
        } catch (const asyncio::ValueError&) {
            log("main caught");
        }
        co_await w;
        log("main has w");
    };
    EXPECT_EQ(trace_of(program),
              (Trace{"2 w starts", "2 bad starts", "3 w 1", "3 bad fails", "4 w 2", "5 w 3",
                     "5 main caught", "6 w 4", "7 w 5", "8 main has w"}));
}

Coro<> gathers_two_sleepers(Log& log) {
    log("outer starts");
    try {
        co_await gather(sleeper(log, "a"), sleeper(log, "b"));
    } catch (const asyncio::CancelledError&) {
        log("outer cancelled");
        throw;
    }
}

TEST(Order, a_cancelled_gather) {
    const auto program = [](Log& log) -> Coro<> {
        auto t = create_task(gathers_two_sleepers(log));
        co_await turns(2);
        get_running_loop().call_soon([&log, &t] {
            log("cancel");
            t.cancel();
        });
        co_await wait_for_cancelled(log, t);
    };
    EXPECT_EQ(trace_of(program),
              (Trace{"2 outer starts", "3 a starts", "3 b starts", "4 cancel", "5 a cancelled",
                     "5 b cancelled", "7 outer cancelled", "8 main saw it"}));
}

Coro<> waits_for(Log& log, asyncio::Future<int> future, std::string name) {
    log(name + " waits");
    const int value = co_await future;
    log(name + " got " + std::to_string(value));
}

TEST(Order, waiters_and_callbacks_of_a_future) {
    const auto program = [](Log& log) -> Coro<> {
        auto future = asyncio::create_future<int>();
        auto a = create_task(waits_for(log, future, "a"));
        future.add_done_callback([&log] { log("callback 1"); });
        auto b = create_task(waits_for(log, future, "b"));
        co_await asyncio::sleep(0);
        future.add_done_callback([&log] { log("callback 2"); });
        get_running_loop().call_soon([&log, future] {
            log("set");
            future.set_result(7);
        });
        const int value = co_await future;
        log("main got " + std::to_string(value));
        future.add_done_callback([&log] { log("late callback"); });
        co_await a;
        log("main has a");
        co_await b;
        log("main has b");
    };
    EXPECT_EQ(trace_of(program), (Trace{"2 a waits", "2 b waits", "3 set", "4 callback 1",
                                        "4 a got 7", "4 b got 7", "4 callback 2", "4 main got 7",
                                        "4 main has a", "4 main has b", "5 late callback"}));
}

Coro<> swallows_one_cancel(Log& log) {
    log("t starts");
    try {
        co_await asyncio::sleep(1000);
    } catch (const asyncio::CancelledError&) {
        log("t swallows");
    }
    co_await asyncio::sleep(0);
    log("t goes on");
    try {
        co_await asyncio::create_future();
    } catch (const asyncio::CancelledError&) {
        log("t gives in");
        throw;
    }
}

TEST(Order, a_cancel_that_is_swallowed) {
    const auto program = [](Log& log) -> Coro<> {
        auto t = create_task(swallows_one_cancel(log));
        co_await asyncio::sleep(0);
        t.cancel();
        co_await turns(3);
        t.cancel();
        log("cancelling " + std::to_string(t.cancelling()));
        co_await wait_for_cancelled(log, t);
    };
    EXPECT_EQ(trace_of(program), (Trace{"2 t starts", "3 t swallows", "4 t goes on",
                                        "5 cancelling 2", "6 t gives in", "7 main saw it"}));
}

Coro<> nest(Log& log, std::string name) {
    log(name + " starts");
    try {
        if (name == "c") {
            co_await asyncio::sleep(1000);
        } else {
            auto inner = create_task(nest(log, name == "a" ? "b" : "c"));
            co_await inner;
        }
    } catch (const asyncio::CancelledError&) {
        log(name);
        throw;
    }
}

TEST(Order, a_cancel_goes_inward_through_tasks) {
    const auto program = [](Log& log) -> Coro<> {
        auto a = create_task(nest(log, "a"));
        co_await turns(4);
        a.cancel();
        log("cancel");
        co_await wait_for_cancelled(log, a);
    };
    EXPECT_EQ(trace_of(program), (Trace{"2 a starts", "3 b starts", "4 c starts", "5 cancel", "6 c",
                                        "7 b", "8 a", "9 main saw it"}));
}

Coro<int> three(Log& log) {
    log("three");
    co_await asyncio::sleep(0);
    log("three again");
    co_return 3;
}
Coro<int> two(Log& log) {
    log("two");
    const int value = co_await three(log);
    log("two again");
    co_return value;
}
Coro<int> one(Log& log) {
    log("one");
    const int value = co_await two(log);
    log("one again");
    co_return value;
}

TEST(Order, coroutines_inside_one_another_take_no_turn) {
    const auto program = [](Log& log) -> Coro<> {
        auto w = create_task(worker(log, "w", 2));
        int value = co_await one(log);
        log("main " + std::to_string(value));
        value = co_await two(log);
        log("main " + std::to_string(value));
        co_await w;
        log("main has w");
    };
    EXPECT_EQ(trace_of(program),
              (Trace{"1 one", "1 two", "1 three", "2 w starts", "2 three again", "2 two again",
                     "2 one again", "2 main 3", "2 two", "2 three", "3 w 1", "3 three again",
                     "3 two again", "3 main 3", "4 w 2", "5 main has w"}));
}

TEST(Order, a_handle_cancelled_in_its_own_turn) {
    const auto program = [](Log& log) -> Coro<> {
        asyncio::Handle y;
        get_running_loop().call_soon([&] {
            log("x cancels y");
            y.cancel();
        });
        y = get_running_loop().call_soon([&log] { log("y"); });
        note_later(log, "z");
        co_await asyncio::sleep(0);
        log("main");
    };
    EXPECT_EQ(trace_of(program), (Trace{"2 x cancels y", "2 z", "2 main"}));
}

Coro<int> cancels_itself(Log& log, bool and_waits) {
    log("starts");
    asyncio::current_task().cancel();
    if (and_waits) {
        log("goes on");
        try {
            co_await asyncio::sleep(1000);
        } catch (const asyncio::CancelledError&) {
            log("thrown");
            throw;
        }
    }
    log("returns");
    co_return 1;
}

TEST(Order, a_task_that_cancels_itself) {
    const auto program = [](Log& log) -> Coro<> {
        auto waits = create_task(cancels_itself(log, true));
        co_await wait_for_cancelled(log, waits);
        auto returns = create_task(cancels_itself(log, false));
        co_await wait_for_cancelled(log, returns);
    };
    EXPECT_EQ(trace_of(program), (Trace{"2 starts", "2 goes on", "3 thrown", "4 main saw it",
                                        "5 starts", "5 returns", "6 main saw it"}));
}

Coro<> waits_or_is_cancelled(Log& log, asyncio::Future<int> future) {
    try {
        co_await future;
        log("value");
    } catch (const asyncio::CancelledError&) {
        log("cancelled");
        throw;
    }
}

TEST(Order, a_future_done_and_a_cancel_in_one_turn) {
    const auto program = [](Log& log) -> Coro<> {
        auto future = asyncio::create_future<int>();
        auto t = create_task(waits_or_is_cancelled(log, future));
        t.add_done_callback([&log] { log("callback"); });
        co_await asyncio::sleep(0);
        future.set_result(1);
        log(t.cancel() ? "cancel true" : "cancel false");
        co_await asyncio::sleep(0);
        log("main 1");
        co_await asyncio::sleep(0);
        log("main 2");
        log(t.cancelled() ? "cancelled true" : "cancelled false");
    };
    EXPECT_EQ(trace_of(program), (Trace{"2 cancel true", "3 cancelled", "3 main 1", "4 callback",
                                        "4 main 2", "4 cancelled true"}));
}

TEST(Order, timers_and_sleepers) {
    const auto program = [](Log& log) -> Coro<> {
        asyncio::EventLoop& loop = get_running_loop();
        auto a = create_task(sleeper(log, "a", 2));
        auto b = create_task(sleeper(log, "b", 1));
        loop.call_later(1.5, [&log] { log("timer 1.5"); });
        loop.call_later(0.5, [&log] {
            log("timer 0.5");
            note_later(log, "soon");
        });
        loop.call_later(0, [&log] { log("timer 0"); });
        note_later(log, "soon 0");
        co_await a;
        log("main has a");
        log(b.done() ? "b done" : "b pending");
    };
    EXPECT_EQ(trace_of(program),
              (Trace{"2 a starts", "2 b starts", "2 soon 0", "2 timer 0", "3 timer 0.5", "4 soon",
                     "6 b woke", "7 timer 1.5", "9 a woke", "10 main has a", "10 b done"}));
}

Coro<> waits_for_task(Log& log, asyncio::Task<std::string> task, std::string name) {
    log(name + " waits");
    const std::string value = co_await task;
    log(name + " has " + value);
}

TEST(Order, two_who_await_one_task) {
    const auto program = [](Log& log) -> Coro<> {
        auto t = create_task(worker(log, "t", 1));
        auto a = create_task(waits_for_task(log, t, "a"));
        auto b = create_task(waits_for_task(log, t, "b"));
        co_await a;
        log("main has a");
        co_await t;
        log("main has t");
        co_await b;
        log("main has b");
    };
    EXPECT_EQ(trace_of(program),
              (Trace{"2 t starts", "2 a waits", "2 b waits", "3 t 1", "4 a has t", "4 b has t",
                     "5 main has a", "5 main has t", "5 main has b"}));
}

TEST(Order, a_sleep_due_and_a_cancel_in_one_turn) {
    const auto program = [](Log& log) -> Coro<> {
        auto t = create_task(sleeper(log, "t", 1));
        t.add_done_callback([&log] { log("callback"); });
        co_await asyncio::sleep(0);
        get_running_loop().call_later(0.5, [&] {
            log.turns().advance(5); // the sleep is due in the next turn, behind the callback
            get_running_loop().call_soon([&] {
                log("cancel");
                t.cancel();
            });
        });
        co_await wait_for_cancelled(log, t);
    };
    EXPECT_EQ(trace_of(program),
              (Trace{"2 t starts", "4 cancel", "5 t cancelled", "6 callback", "6 main saw it"}));
}

TEST(Order, nested_gathers_and_a_future_given_twice) {
    const auto program = [](Log& log) -> Coro<> {
        auto a = create_task(worker(log, "a", 1));
        co_await gather(gather(a, worker(log, "b", 0)), a, worker(log, "c", 2));
        log("main");
        auto done = gather(a, a);
        log(done.done() ? "done" : "pending");
        co_await done;
        log("main again");
    };
    EXPECT_EQ(trace_of(program), (Trace{"2 a starts", "2 b starts", "2 c starts", "3 a 1", "3 c 1",
                                        "4 c 2", "6 main", "6 done", "6 main again"}));
}

} // namespace
