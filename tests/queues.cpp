// SPDX-License-Identifier: MIT
// The traces are those of CPython 3.13; see conformance/ for many more.
#include <asyncio/asyncio.hpp>
#include <asyncio/testing/cancel_everywhere.hpp>

#include "support/in_virtual_time.hpp"
#include "support/reports.hpp"
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
using asyncio::Coro;
using asyncio::create_task;
using asyncio::gather;
using asyncio::LifoQueue;
using asyncio::PriorityQueue;
using asyncio::Queue;
using asyncio::QueueEmpty;
using asyncio::QueueFull;
using asyncio::QueueShutDown;
using asyncio::return_exceptions;
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

Coro<> getter(Log& log, Queue<int>& queue, std::string name) {
    try {
        const int item = co_await queue.get();
        log(name + " got " + std::to_string(item));
    } catch (const asyncio::CancelledError&) {
        log(name + " cancelled");
        throw;
    } catch (const QueueShutDown&) {
        log(name + " refused");
    }
}

Coro<> putter(Log& log, Queue<int>& queue, int item) {
    try {
        co_await queue.put(item);
        log("put " + std::to_string(item));
    } catch (const asyncio::CancelledError&) {
        log(std::to_string(item) + " cancelled");
        throw;
    } catch (const QueueShutDown&) {
        log("put " + std::to_string(item) + " refused");
    }
}

template <class F> int turns_of(F function) {
    Turns turns;
    return turns.run(+function, turns);
}

} // namespace

TEST(Queue, gives_items_in_the_order_in_which_they_came) {
    in_virtual_time([]() -> Coro<> {
        Queue<int> queue;
        EXPECT_TRUE(queue.empty());
        for (int i = 0; i < 100; ++i) co_await queue.put(i);
        EXPECT_EQ(queue.qsize(), 100U);
        EXPECT_FALSE(queue.full());
        EXPECT_EQ(queue.maxsize(), 0);
        for (int i = 0; i < 100; ++i) {
            const int item = co_await queue.get();
            EXPECT_EQ(item, i);
        }
        EXPECT_TRUE(queue.empty());
    });
}

TEST(Queue, is_full_at_its_limit) {
    Queue<int> queue(2);
    EXPECT_EQ(queue.maxsize(), 2);
    queue.put_nowait(1);
    EXPECT_FALSE(queue.full());
    queue.put_nowait(2);
    EXPECT_TRUE(queue.full());
    EXPECT_THROW(queue.put_nowait(3), QueueFull);
    EXPECT_EQ(queue.get_nowait(), 1);
    EXPECT_EQ(queue.get_nowait(), 2);
    EXPECT_THROW(queue.get_nowait(), QueueEmpty);
}

TEST(Queue, without_a_limit_is_never_full) {
    Queue<int> queue(-1);
    for (int i = 0; i < 10; ++i) queue.put_nowait(i);
    EXPECT_FALSE(queue.full());
}

TEST(Queue, of_one_goes_to_and_fro) {
    EXPECT_EQ(trace_of([](Log& log) -> Coro<> {
                  Queue<int> queue(1);
                  const auto puts = [&]() -> Coro<> {
                      for (int i = 0; i < 4; ++i) {
                          co_await queue.put(i);
                          log("put " + std::to_string(i));
                      }
                  };
                  const auto gets = [&](std::string name) -> Coro<> {
                      for (int i = 0; i < 2; ++i) {
                          const int item = co_await queue.get();
                          log(name + " got " + std::to_string(item));
                      }
                  };
                  co_await gather(puts(), gets("a"), gets("b"));
              }),
              Trace({"2 put 0", "2 a got 0", "3 put 1", "4 a got 1", "5 put 2", "6 b got 2",
                     "7 put 3", "8 b got 3"}));
}

TEST(Queue, an_item_may_be_taken_before_the_one_who_was_woken_for_it_who_then_waits_as_the_last) {
    EXPECT_EQ(trace_of([](Log& log) -> Coro<> {
                  Queue<int> queue;
                  auto a = create_task(getter(log, queue, "a"));
                  auto b = create_task(getter(log, queue, "b"));
                  co_await sleep(0);
                  queue.put_nowait(1);
                  log("stolen " + std::to_string(queue.get_nowait()));
                  co_await sleep(0);
                  co_await sleep(0);
                  queue.put_nowait(2);
                  queue.put_nowait(3);
                  co_await gather(a, b);
              }),
              Trace({"2 stolen 1", "5 b got 2", "5 a got 3"}));
}

TEST(Queue, a_getter_that_is_cancelled_leaves_the_item_to_the_next) {
    EXPECT_EQ(trace_of([](Log& log) -> Coro<> {
                  Queue<int> queue;
                  auto a = create_task(getter(log, queue, "a"));
                  auto b = create_task(getter(log, queue, "b"));
                  co_await sleep(0);
                  queue.put_nowait(1);
                  a.cancel();
                  log("put, a cancelled");
                  co_await gather(return_exceptions, a, b);
              }),
              Trace({"2 put, a cancelled", "3 a cancelled", "4 b got 1"}));
}

TEST(Queue, a_putter_that_is_cancelled_leaves_its_place_to_the_next) {
    EXPECT_EQ(trace_of([](Log& log) -> Coro<> {
                  Queue<int> queue(1);
                  queue.put_nowait(0);
                  auto a = create_task(putter(log, queue, 1));
                  auto b = create_task(putter(log, queue, 2));
                  co_await sleep(0);
                  queue.get_nowait();
                  a.cancel();
                  log("taken, 1 cancelled");
                  co_await gather(return_exceptions, a, b);
                  log("left " + std::to_string(queue.get_nowait()));
              }),
              Trace({"2 taken, 1 cancelled", "3 1 cancelled", "4 put 2", "6 left 2"}));
}

TEST(Queue, a_value_that_was_taken_is_not_lost_to_a_cancel_that_comes_in_the_same_turn) {
    in_virtual_time([]() -> Coro<> {
        Queue<std::unique_ptr<int>> queue;
        std::unique_ptr<int> got;
        const auto user = [&]() -> Coro<> {
            got = co_await queue.get();
            co_await sleep(0); // here it is cancelled
            ADD_FAILURE();
        };
        auto task = create_task(user());
        co_await sleep(0);
        co_await queue.put(std::make_unique<int>(7));
        asyncio::get_running_loop().call_soon([&] { task.cancel(); });
        const auto result = co_await as_result(task);
        EXPECT_TRUE(result.failed_with<asyncio::CancelledError>());
        EXPECT_NE(got, nullptr);
        EXPECT_TRUE(queue.empty());
    });
}

TEST(Queue, with_an_item_takes_no_turn_and_filled_by_a_callback_two) {
    EXPECT_EQ(turns_of([](Turns& turns) -> Coro<int> {
                  Queue<int> queue(1);
                  const int begin = turns.now();
                  co_await queue.put(1);
                  co_await queue.get();
                  co_return turns.now() - begin;
              }),
              0);
    EXPECT_EQ(turns_of([](Turns& turns) -> Coro<int> {
                  Queue<int> queue;
                  const int begin = turns.now();
                  asyncio::get_running_loop().call_soon([&] { queue.put_nowait(1); });
                  co_await queue.get();
                  co_return turns.now() - begin;
              }),
              2);
}

TEST(Queue, takes_items_that_can_only_be_moved_and_strings_from_literals) {
    in_virtual_time([]() -> Coro<> {
        Queue<std::unique_ptr<int>> pointers(1);
        co_await pointers.put(std::make_unique<int>(1));
        auto full = create_task(pointers.put(std::make_unique<int>(2)));
        co_await sleep(0);
        auto first = co_await pointers.get();
        auto second = co_await pointers.get();
        EXPECT_EQ(*first + *second, 3);
        co_await full;

        Queue<std::string> words;
        co_await words.put("one");
        const std::string two = "two";
        co_await words.put(two);
        words.put_nowait("three");
        const auto word = co_await words.get();
        EXPECT_EQ(word, "one");
        EXPECT_EQ(words.get_nowait(), two);
    });
}

TEST(Queue, leaves_an_item_that_it_refuses_at_once_to_the_caller) {
    Queue<std::unique_ptr<int>> queue(1);
    queue.put_nowait(std::make_unique<int>(1));
    auto item = std::make_unique<int>(2);
    EXPECT_THROW(queue.put_nowait(std::move(item)), QueueFull);
    // NOLINTNEXTLINE(bugprone-use-after-move): that is what is tested
    EXPECT_NE(item, nullptr);
}

TEST(Queue, as_a_result_does_not_throw) {
    in_virtual_time([]() -> Coro<> {
        Queue<int> queue(1);
        const auto put = co_await as_result(queue.put(1));
        EXPECT_TRUE(put.has_value());
        const auto full = [&]() -> Coro<std::string> {
            const auto refused = co_await as_result(queue.put(2));
            co_return text_of(refused.exception());
        };
        auto task = create_task(full());
        co_await sleep(0);
        task.cancel("enough");
        EXPECT_EQ(co_await task, "CancelledError: enough");
        const auto got = co_await as_result(queue.get());
        EXPECT_EQ(got.value(), 1);
        queue.shutdown();
        const auto nothing = co_await as_result(queue.get());
        EXPECT_TRUE(nothing.failed_with<QueueShutDown>());
    });
}

TEST(Queue, join_waits_until_each_item_is_done) {
    in_virtual_time([]() -> Coro<> {
        Queue<int> queue;
        co_await queue.join(); // there is nothing to wait for
        int done = 0;
        const auto worker = [&]() -> Coro<> {
            for (;;) {
                co_await queue.get();
                co_await sleep(1s);
                ++done;
                queue.task_done();
            }
        };
        for (int i = 0; i < 5; ++i) queue.put_nowait(i);
        auto a = create_task(worker());
        auto b = create_task(worker());
        co_await queue.join();
        EXPECT_EQ(done, 5);
        a.cancel();
        b.cancel();
        EXPECT_EQ(thrown_by([&] {
                      queue.task_done();
                      return 0;
                  }),
                  "ValueError: task_done() called too many times");
    });
}

TEST(Queue, shut_down_refuses_puts_and_gives_what_is_left) {
    EXPECT_EQ(
        trace_of([](Log& log) -> Coro<> {
            Queue<int> queue(1);
            queue.put_nowait(1);
            auto a = create_task(putter(log, queue, 2));
            co_await sleep(0);
            queue.shutdown();
            log("shut down");
            co_await a;
            co_await getter(log, queue, "x");
            co_await getter(log, queue, "y");
            co_await putter(log, queue, 3);
        }),
        Trace({"2 shut down", "3 put 2 refused", "4 x got 1", "4 y refused", "4 put 3 refused"}));
}

TEST(Queue, shut_down_at_once_drops_what_is_left_and_counts_it_as_done) {
    EXPECT_EQ(trace_of([](Log& log) -> Coro<> {
                  Queue<int> queue(2);
                  queue.put_nowait(1);
                  queue.put_nowait(2);
                  const auto joins = [&]() -> Coro<> {
                      co_await queue.join();
                      log("joined");
                  };
                  auto a = create_task(joins());
                  auto b = create_task(putter(log, queue, 3));
                  co_await sleep(0);
                  queue.get_nowait();
                  queue.shutdown(true);
                  log("shut down, " + std::to_string(queue.qsize()));
                  co_await sleep(0);
                  co_await sleep(0);
                  log("done");
                  queue.task_done();
                  co_await gather(a, b);
              }),
              Trace({"2 shut down, 0", "3 put 3 refused", "4 done", "5 joined"}));
}

TEST(Queue, whose_items_use_it_when_they_are_dropped_is_shut_down_already) {
    struct Item {
        Queue<std::unique_ptr<Item>>* queue;
        std::string* seen;
        ~Item() {
            *seen += thrown_by([this] {
                queue->put_nowait(nullptr);
                return 0;
            });
            queue->shutdown(true);
        }
    };
    std::string seen;
    Queue<std::unique_ptr<Item>> queue;
    queue.put_nowait(std::unique_ptr<Item>(new Item{&queue, &seen}));
    queue.shutdown(true);
    EXPECT_EQ(seen, "exception: the queue was shut down: it takes no more items, and gives what is "
                    "left in it");
}

TEST(Queue, of_another_loop_refuses_to_wait_on_either_side) {
    Queue<int> queue(1);
    in_virtual_time([&]() -> Coro<> {
        asyncio::get_running_loop().call_soon([&] { queue.put_nowait(1); });
        co_await queue.get();
    });
    in_virtual_time([&]() -> Coro<> {
        const auto get = co_await as_result(queue.get());
        EXPECT_EQ(text_of(get.exception()),
                  "RuntimeError: Queue is bound to a different event loop: the one in which "
                  "somebody first had to wait for it; make one for each loop");
        co_await queue.put(1);
        const auto put = co_await as_result(queue.put(2));
        EXPECT_TRUE(put.failed_with<asyncio::RuntimeError>());
    });
}

TEST(Queue, destroyed_while_tasks_wait_throws_to_them) {
    in_virtual_time([]() -> Coro<> {
        auto queue = std::make_unique<Queue<int>>(1);
        auto a = create_task(queue->get());
        auto b = create_task(queue->get());
        co_await sleep(0);
        queue->put_nowait(1); // a is on its way
        queue.reset();
        auto full = std::make_unique<Queue<int>>(1);
        full->put_nowait(1);
        auto d = create_task(full->put(2));
        auto e = create_task(full->join());
        co_await sleep(0);
        full.reset();
        const auto results = co_await gather(return_exceptions, a, b, d, e);
        EXPECT_TRUE(std::get<0>(results).failed_with<asyncio::RuntimeError>());
        EXPECT_TRUE(std::get<1>(results).failed_with<asyncio::RuntimeError>());
        EXPECT_TRUE(std::get<2>(results).failed_with<asyncio::RuntimeError>());
        EXPECT_TRUE(std::get<3>(results).failed_with<asyncio::RuntimeError>());
    });
}

TEST(Queue, waited_for_when_the_loop_closes_is_left_alone) {
    Reports reports;
    const auto queue = std::make_unique<Queue<std::shared_ptr<int>>>(1);
    const auto token = std::make_shared<int>(1);
    {
        const auto loop = asyncio::new_event_loop();
        reports.watch(*loop);
        queue->put_nowait(token);
        const auto puts = [&]() -> Coro<> { co_await queue->put(token); };
        create_task(*loop, puts);
        create_task(*loop, puts);
        loop->call_soon([&] {
            // One of them is woken, and does not come to it.
            static_cast<void>(queue->get_nowait());
            loop->stop();
        });
        loop->run_forever();
    }
    EXPECT_EQ(token.use_count(), 1);
    EXPECT_EQ(reports.count("Task was destroyed but it is pending!"), 2U);
    EXPECT_TRUE(queue->empty());
}

TEST(Queue, a_putter_goes_on_in_the_turn_after_that_in_which_there_is_room) {
    in_virtual_time([]() -> Coro<> {
        Queue<int> queue(2);
        int put = 0;
        const auto puts = [&]() -> Coro<> {
            for (int i = 0; i < 3; ++i) {
                co_await queue.put(i);
                ++put;
            }
        };
        auto task = create_task(puts());
        co_await sleep(0);
        co_await sleep(0);
        EXPECT_EQ(put, 2);
        const int first = co_await queue.get();
        EXPECT_EQ(first, 0);
        co_await sleep(0);
        EXPECT_EQ(put, 3);
        EXPECT_EQ(queue.get_nowait(), 1);
        EXPECT_EQ(queue.get_nowait(), 2);
        EXPECT_TRUE(task.done());
    });
}

TEST(Queue, lets_items_go_by_timers_and_callbacks_too) {
    in_virtual_time([]() -> Coro<> {
        auto& loop = asyncio::get_running_loop();
        Queue<int> queue(1);
        loop.call_later(1s, [&] { queue.put_nowait(1); });
        int item = co_await queue.get();
        EXPECT_EQ(item, 1);
        loop.call_later(1s, [&] { queue.get_nowait(); });
        co_await queue.put(2);
        co_await queue.put(3);
        item = co_await queue.get();
        EXPECT_EQ(item, 3);
        // Two putters that have not come to it yet when the item is asked for.
        auto a = create_task(queue.put(4));
        auto b = create_task(queue.put(5));
        item = co_await queue.get();
        EXPECT_EQ(item, 4);
        item = co_await queue.get();
        EXPECT_EQ(item, 5);
        co_await gather(a, b);
    });
}

TEST(Queue, a_getter_that_was_cancelled_before_does_not_keep_the_item_from_the_next) {
    in_virtual_time([]() -> Coro<> {
        Queue<std::string> queue;
        auto a = create_task(queue.get());
        auto b = create_task(queue.get());
        co_await sleep(0);
        a.cancel();
        co_await sleep(0);
        EXPECT_TRUE(a.done());
        co_await queue.put("a");
        co_await sleep(0);
        EXPECT_TRUE(b.done());
        const std::string item = co_await b;
        EXPECT_EQ(item, "a");
        const auto late = co_await as_result(asyncio::wait_for(queue.get(), 1s));
        EXPECT_TRUE(late.failed_with<asyncio::TimeoutError>());
        queue.put_nowait("b"); // there is nobody
        EXPECT_EQ(queue.get_nowait(), "b");
    });
}

TEST(Queue, gives_the_items_of_a_cancelled_getter_to_it_or_others_when_they_ask) {
    in_virtual_time([]() -> Coro<> {
        Queue<int> queue;
        auto reader = create_task(queue.get());
        co_await sleep(0);
        queue.put_nowait(1);
        queue.put_nowait(2);
        reader.cancel();
        const auto cancelled = co_await as_result(reader);
        EXPECT_TRUE(cancelled.failed_with<asyncio::CancelledError>());
        int item = co_await queue.get(); // 2 would mean that 1 is lost
        EXPECT_EQ(item, 1);
        EXPECT_EQ(queue.get_nowait(), 2);

        std::vector<asyncio::Task<int>> readers;
        for (int i = 0; i < 3; ++i) readers.push_back(create_task(queue.get()));
        co_await sleep(0);
        queue.put_nowait(1);
        queue.put_nowait(2);
        readers[0].cancel();
        const auto first = co_await as_result(readers[0]);
        EXPECT_TRUE(first.failed_with<asyncio::CancelledError>());
        item = co_await readers[1];
        item += co_await readers[2];
        EXPECT_EQ(item, 3);
    });
}

TEST(Queue, a_putter_that_is_cancelled_when_there_is_room_has_put_nothing) {
    in_virtual_time([]() -> Coro<> {
        Queue<int> queue(1);
        queue.put_nowait(1);
        auto writer = create_task(queue.put(2));
        co_await sleep(0);
        EXPECT_EQ(queue.get_nowait(), 1);
        writer.cancel();
        const auto cancelled = co_await as_result(writer);
        EXPECT_TRUE(cancelled.failed_with<asyncio::CancelledError>());
        EXPECT_TRUE(queue.empty());
        co_await queue.put(2);
        EXPECT_EQ(queue.get_nowait(), 2);
        EXPECT_EQ(queue.qsize(), 0U);
    });
}

TEST(Queue, a_putter_that_is_cancelled_does_not_hinder_those_around_it) {
    in_virtual_time([]() -> Coro<> {
        Queue<std::string> queue(1);
        auto a = create_task(queue.put("a"));
        auto b = create_task(queue.put("b"));
        auto c = create_task(queue.put("c"));
        co_await sleep(0);
        EXPECT_TRUE(a.done());
        EXPECT_FALSE(b.done());
        c.cancel();
        co_await sleep(0);
        EXPECT_TRUE(c.done());
        EXPECT_EQ(queue.get_nowait(), "a");
        co_await sleep(0);
        EXPECT_EQ(queue.get_nowait(), "b");
        co_await b;
    });
}

TEST(Queue, wakes_as_many_putters_as_places_are_made_at_once) {
    in_virtual_time([]() -> Coro<> {
        Queue<int> queue(2);
        const auto empties = [&]() -> Coro<> {
            co_await sleep(0);
            while (!queue.empty()) queue.get_nowait();
        };
        const auto all = [&]() -> Coro<> {
            co_await gather(empties(), queue.put(0), queue.put(1), queue.put(2), queue.put(3));
        };
        co_await asyncio::wait_for(all(), 1s);
        EXPECT_EQ(queue.qsize(), 2U);
        // And one place after the other is enough.
        Queue<int> narrow(1);
        const auto gets = [&]() -> Coro<> {
            for (int i = 0; i < 5; ++i) {
                const int item = co_await narrow.get();
                EXPECT_EQ(item, i);
            }
        };
        const auto puts = [&]() -> Coro<> {
            for (int i = 0; i < 5; ++i) co_await narrow.put(i);
        };
        co_await asyncio::wait_for(gather(puts(), gets()), 1s);
    });
}

namespace {

// The rules of join and shutdown, which are those of all three kinds.
template <class Q> Coro<> joins(Q& queue) {
    EXPECT_EQ(thrown_by([&] {
                  queue.task_done();
                  return 0;
              }).substr(0, 10),
              "ValueError");
    co_await queue.join();
    co_await queue.join();
    for (int i = 0; i < 100; ++i) queue.put_nowait(i);
    int sum = 0;
    bool running = true;
    const auto worker = [&]() -> Coro<> {
        while (running) {
            sum += co_await queue.get();
            queue.task_done();
        }
    };
    auto a = create_task(worker());
    auto b = create_task(worker());
    co_await queue.join();
    EXPECT_EQ(sum, 4950);
    running = false;
    for (int i = 0; i < 2; ++i) queue.put_nowait(0);
    co_await gather(a, b);
}

template <class Q> Coro<> expect_shut_down(Q& queue) {
    const auto put = co_await as_result(queue.put(1));
    EXPECT_TRUE(put.template failed_with<QueueShutDown>());
    EXPECT_THROW(queue.put_nowait(1), QueueShutDown);
    const auto get = co_await as_result(queue.get());
    EXPECT_TRUE(get.template failed_with<QueueShutDown>());
    EXPECT_THROW(queue.get_nowait(), QueueShutDown);
}

template <class Q> void expect_nothing_unfinished(Q& queue) {
    EXPECT_EQ(thrown_by([&] {
                  queue.task_done();
                  return 0;
              }).substr(0, 10),
              "ValueError");
}

template <class Q> Coro<> shuts_down_empty() {
    Q queue;
    auto getting = create_task(queue.get());
    co_await sleep(0);
    queue.shutdown();
    EXPECT_EQ(queue.qsize(), 0U);
    co_await queue.join();
    co_await sleep(0);
    EXPECT_TRUE(getting.done());
    const auto got = co_await as_result(getting);
    EXPECT_TRUE(got.template failed_with<QueueShutDown>());
    co_await expect_shut_down(queue);
}

template <class Q> Coro<> shuts_down_full() {
    Q queue(1);
    queue.put_nowait(7);
    auto joining = create_task(queue.join());
    auto putting = create_task(queue.put(8));
    co_await sleep(0);
    EXPECT_FALSE(putting.done());
    queue.shutdown();
    EXPECT_EQ(queue.qsize(), 1U);
    co_await sleep(0);
    EXPECT_TRUE(putting.done());
    const auto put = co_await as_result(putting);
    EXPECT_TRUE(put.template failed_with<QueueShutDown>());
    const int item = co_await queue.get();
    EXPECT_EQ(item, 7);
    co_await sleep(0);
    EXPECT_FALSE(joining.done());
    co_await expect_shut_down(queue);
    queue.task_done();
    co_await sleep(0);
    EXPECT_TRUE(joining.done());
    expect_nothing_unfinished(queue);
}

template <class Q> Coro<> shuts_down_at_once(int taken) {
    Q queue;
    for (int i = 0; i <= taken; ++i) queue.put_nowait(7);
    auto joining = create_task(queue.join());
    for (int i = 0; i < taken; ++i) {
        const int item = co_await queue.get();
        EXPECT_EQ(item, 7);
    }
    queue.shutdown(true);
    EXPECT_EQ(queue.qsize(), 0U);
    co_await sleep(0);
    EXPECT_EQ(joining.done(), taken == 0);
    co_await expect_shut_down(queue);
    for (int i = 0; i < taken; ++i) queue.task_done();
    expect_nothing_unfinished(queue);
    co_await sleep(0);
    EXPECT_TRUE(joining.done());
}

template <class Q> Coro<> shuts_down() {
    co_await shuts_down_empty<Q>();
    co_await shuts_down_full<Q>();
    for (const int taken : {0, 1}) co_await shuts_down_at_once<Q>(taken);
}

} // namespace

TEST(Queues, of_each_kind_can_be_joined) {
    in_virtual_time([]() -> Coro<> {
        Queue<int> queue;
        co_await joins(queue);
        LifoQueue<int> lifo;
        co_await joins(lifo);
        PriorityQueue<int> priority;
        co_await joins(priority);
    });
}

TEST(Queues, of_each_kind_can_be_shut_down) {
    in_virtual_time([]() -> Coro<> {
        co_await shuts_down<Queue<int>>();
        co_await shuts_down<LifoQueue<int>>();
        co_await shuts_down<PriorityQueue<int>>();
    });
}

TEST(LifoQueue, gives_the_last_first) {
    in_virtual_time([]() -> Coro<> {
        LifoQueue<int> queue(3);
        for (int i = 0; i < 3; ++i) co_await queue.put(i);
        EXPECT_TRUE(queue.full());
        for (int i = 3; i-- > 0;) {
            const int item = co_await queue.get();
            EXPECT_EQ(item, i);
        }
    });
}

TEST(PriorityQueue, gives_the_smallest_first) {
    in_virtual_time([]() -> Coro<> {
        PriorityQueue<int> queue;
        for (const int item : {3, 1, 4, 1, 5, 9, 2, 6}) co_await queue.put(item);
        std::vector<int> order;
        while (!queue.empty()) {
            const int item = co_await queue.get();
            order.push_back(item);
        }
        EXPECT_EQ(order, (std::vector<int>{1, 1, 2, 3, 4, 5, 6, 9}));
    });
}

TEST(PriorityQueue, takes_another_comparison_as_a_type_or_as_an_object) {
    PriorityQueue<int, std::greater<int>> largest_first;
    const auto by_last_digit = [](int a, int b) { return a % 10 < b % 10; };
    PriorityQueue<int, decltype(by_last_digit)> digits(0, by_last_digit);
    for (const int item : {31, 12, 23}) {
        largest_first.put_nowait(item);
        digits.put_nowait(item);
    }
    EXPECT_EQ(largest_first.get_nowait(), 31);
    EXPECT_EQ(digits.get_nowait(), 31);
    EXPECT_EQ(digits.get_nowait(), 12);
}

// The order of Python's heapq, for the same pushes.
TEST(PriorityQueue, gives_equal_items_in_the_order_of_heapq) {
    struct Item {
        int priority;
        int number;
        bool operator<(const Item& other) const { return priority < other.priority; }
    };
    PriorityQueue<Item> queue;
    int number = 0;
    for (const int priority : {3, 1, 2, 1, 3, 2, 1, 2, 3, 1, 2, 3})
        queue.put_nowait(Item{priority, number++});
    std::vector<int> order;
    while (!queue.empty()) order.push_back(queue.get_nowait().number);
    EXPECT_EQ(order, (std::vector<int>{1, 6, 3, 9, 2, 5, 10, 7, 11, 8, 4, 0}));
}

TEST(PriorityQueue, whose_comparison_throws_goes_on) {
    const auto compare = [](int a, int b) {
        if (a == 13 || b == 13) throw std::runtime_error("13");
        return a < b;
    };
    PriorityQueue<int, decltype(compare)> queue(0, compare);
    queue.put_nowait(1);
    EXPECT_THROW(queue.put_nowait(13), std::runtime_error);
    EXPECT_EQ(queue.qsize(), 1U);
    EXPECT_EQ(queue.get_nowait(), 1);
    EXPECT_THROW(queue.get_nowait(), QueueEmpty);
}

TEST(PriorityQueue, shut_down_at_once_keeps_nothing) {
    PriorityQueue<int> queue;
    for (int i = 0; i < 5; ++i) queue.put_nowait(i);
    queue.shutdown(true);
    EXPECT_TRUE(queue.empty());
    EXPECT_THROW(queue.get_nowait(), QueueShutDown);
}

// --- cancelled at each of their awaits ---

TEST(QueuesCancelledEverywhere, no_item_is_lost_between_producer_and_consumers) {
    EXPECT_GE(cancel_everywhere([](LeakToken token) -> Coro<> {
                  struct Shared {
                      Queue<LeakToken> queue{1};
                      int put = 0;
                      int got = 0;
                  };
                  const auto shared = std::make_shared<Shared>();
                  const auto producer = [](std::shared_ptr<Shared> s, LeakToken item) -> Coro<> {
                      for (int i = 0; i < 6; ++i) {
                          co_await s->queue.put(item);
                          ++s->put;
                      }
                      s->queue.shutdown();
                  };
                  // Takes what this body does not take, since it was cancelled.
                  const auto consumer = [](std::shared_ptr<Shared> s) -> Coro<> {
                      for (;;) {
                          const auto item = co_await as_result(s->queue.get());
                          if (!item) break;
                          ++s->got;
                      }
                      EXPECT_TRUE(s->queue.empty());
                      EXPECT_EQ(s->put, 6);
                      EXPECT_EQ(s->got, 6);
                  };
                  create_task(producer, shared, token);
                  create_task(consumer, shared);
                  for (int i = 0; i < 3; ++i) {
                      const LeakToken item = co_await shared->queue.get();
                      ++shared->got;
                      co_await sleep(0);
                  }
              }),
              4);
}

TEST(QueuesCancelledEverywhere, a_producer_that_is_cancelled_does_not_block_the_others) {
    EXPECT_GE(cancel_everywhere(
                  [](LeakToken token) -> Coro<> {
                      struct Shared {
                          Queue<LeakToken> queue{1};
                          int left = 2;
                      };
                      const auto shared = std::make_shared<Shared>();
                      const auto producer = [](std::shared_ptr<Shared> s,
                                               LeakToken item) -> Coro<> {
                          for (int i = 0; i < 3; ++i) co_await s->queue.put(item);
                          if (--s->left == 0) s->queue.shutdown();
                      };
                      const auto consumer = [](std::shared_ptr<Shared> s) -> Coro<> {
                          for (;;) {
                              const auto item = co_await as_result(s->queue.get());
                              if (!item) co_return;
                              co_await sleep(1s);
                              s->queue.task_done();
                          }
                      };
                      create_task(producer, shared, token);
                      create_task(producer, shared, token);
                      create_task(consumer, shared);
                      for (int i = 0; i < 2; ++i) co_await shared->queue.put(token);
                      co_await shared->queue.join();
                  },
                  asyncio::testing::CancelOptions().may_leave_tasks(true)),
              6);
}
