// SPDX-License-Identifier: MIT
#include <asyncio/gather.hpp>

#include "support/in_virtual_time.hpp"
#include <asyncio/as_result.hpp>
#include <asyncio/sleep.hpp>
#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <functional>
#include <list>
#include <memory>
#include <ranges>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

using namespace std::chrono_literals;
using asyncio::as_result;
using asyncio::Coro;
using asyncio::create_future;
using asyncio::create_task;
using asyncio::Future;
using asyncio::gather;
using asyncio::get_running_loop;
using asyncio::new_event_loop;
using asyncio::return_exceptions;
using asyncio::sleep;
using asyncio::Task;
using asyncio_test::in_virtual_time;
using asyncio_test::Reports;
using asyncio_test::text_of;
using asyncio_test::thrown_by;

namespace {

using Log = std::vector<std::string>;

Coro<int> after(std::chrono::milliseconds delay, int value) {
    co_await sleep(delay);
    co_return value;
}
Coro<int> at_once(int value) { co_return value; }
Coro<> nothing() { co_return; }
Coro<int> fails(std::string text, std::chrono::milliseconds delay = 0ms) {
    co_await sleep(delay);
    throw std::runtime_error(text);
}

} // namespace

// --- results ---

TEST(Gather, results_come_in_the_order_of_the_arguments) {
    in_virtual_time([]() -> Coro<> {
        auto results = co_await gather(after(30ms, 1), after(10ms, 2), after(20ms, 3));
        static_assert(std::is_same_v<decltype(results), std::tuple<int, int, int>>);
        EXPECT_EQ(results, (std::tuple(1, 2, 3)));
    });
}

TEST(Gather, children_run_at_the_same_time) {
    in_virtual_time([]() -> Coro<> {
        const auto begin = get_running_loop().time();
        co_await gather(sleep(2s), sleep(2s), after(2000ms, 1));
        EXPECT_EQ(get_running_loop().time() - begin, 2s);
    });
}

TEST(Gather, children_take_their_first_step_in_the_order_of_the_arguments) {
    in_virtual_time([]() -> Coro<> {
        Log log;
        auto child = [&](const char* name) -> Coro<> {
            log.push_back(name);
            co_return;
        };
        auto all = gather(
            child("a"), [&] { return child("b"); }, create_task(child("task first")), child("c"));
        EXPECT_TRUE(log.empty());
        co_await all;
        EXPECT_EQ(log.size(), 4U);
        std::erase(log, "task first"); // was made a task before gather was called
        EXPECT_EQ(log, (Log{"a", "b", "c"}));
    });
}

TEST(Gather, any_mix_of_awaitables_and_callables_is_taken) {
    in_virtual_time([]() -> Coro<> {
        auto future = create_future<std::string>();
        get_running_loop().call_later(5ms, [future] { future.set_result("future"); });
        auto task = create_task(after(1ms, 2));
        auto coroutine = after(1ms, 1);
        auto callable = [] { return after(1ms, 3); };
        const asyncio::AnyFuture any = task;
        auto results = co_await gather(std::move(coroutine), task, future, sleep(1ms), callable,
                                       sleep(1ms, std::string("slept")), any, nothing());
        static_assert(std::is_same_v<decltype(results),
                                     std::tuple<int, int, std::string, std::monostate, int,
                                                std::string, std::monostate, std::monostate>>);
        EXPECT_EQ(std::get<0>(results), 1);
        EXPECT_EQ(std::get<1>(results), 2);
        EXPECT_EQ(std::get<2>(results), "future");
        EXPECT_EQ(std::get<4>(results), 3);
        EXPECT_EQ(std::get<5>(results), "slept");
        EXPECT_EQ(task.result(), 2);
    });
}

TEST(Gather, a_reference_comes_as_a_reference_wrapper) {
    in_virtual_time([]() -> Coro<> {
        int object = 1;
        auto give = [&]() -> Coro<int&> { co_return object; };
        auto results = co_await gather(give(), at_once(2));
        static_assert(
            std::is_same_v<decltype(results), std::tuple<std::reference_wrapper<int>, int>>);
        EXPECT_EQ(&std::get<0>(results).get(), &object);
        auto with_results = co_await gather(return_exceptions, give());
        EXPECT_EQ(&std::get<0>(with_results).value(), &object);
    });
}

TEST(Gather, what_can_only_be_moved_is_moved_out) {
    in_virtual_time([]() -> Coro<> {
        auto make = [](int n) -> Coro<std::unique_ptr<int>> { co_return std::make_unique<int>(n); };
        auto task = create_task(make(2));
        auto [first, second] = co_await gather(make(1), task);
        EXPECT_EQ(*first, 1);
        EXPECT_EQ(*second, 2);
        EXPECT_THROW(static_cast<void>(task.result()), asyncio::InvalidStateError);
        std::vector<Coro<std::unique_ptr<int>>> many;
        for (int i = 0; i < 3; ++i) many.push_back(make(i));
        auto values = co_await gather(return_exceptions, many);
        EXPECT_EQ(*values.at(2).value(), 2);
    });
}

TEST(Gather, a_result_that_cannot_be_moved_out_twice_fails_the_gather) {
    in_virtual_time([]() -> Coro<> {
        auto make = []() -> Coro<std::unique_ptr<int>> { co_return std::make_unique<int>(1); };
        auto task = create_task(make());
        auto result = co_await as_result(gather(task, task));
        EXPECT_TRUE(result.failed_with<asyncio::InvalidStateError>());
    });
}

// --- ranges ---

TEST(Gather, a_range_of_coroutines_is_used_up_whether_named_or_moved_in) {
    in_virtual_time([]() -> Coro<> {
        std::vector<Coro<int>> named;
        for (int i = 0; i < 5; ++i) named.push_back(after(std::chrono::milliseconds(10 - i), i));
        const auto results = co_await gather(named);
        static_assert(std::is_same_v<decltype(results), const std::vector<int>>);
        EXPECT_EQ(results, (std::vector<int>{0, 1, 2, 3, 4}));
        std::vector<Coro<int>> moved;
        moved.push_back(at_once(7));
        const auto more = co_await gather(std::move(moved));
        EXPECT_EQ(more, (std::vector<int>{7}));
    });
}

TEST(Gather, a_range_of_tasks_keeps_its_tasks) {
    in_virtual_time([]() -> Coro<> {
        std::vector<Task<int>> tasks;
        for (int i = 0; i < 3; ++i) tasks.push_back(create_task(after(1ms, i)));
        const auto results = co_await gather(tasks);
        EXPECT_EQ(results, (std::vector<int>{0, 1, 2}));
        EXPECT_EQ(tasks.at(1).result(), 1);
        const std::vector<Task<int>>& constant = tasks;
        const auto again = co_await gather(constant);
        EXPECT_EQ(again, results);
        std::array<Future<int>, 2> futures{tasks.at(0), tasks.at(2)};
        const auto third = co_await gather(futures);
        EXPECT_EQ(third, (std::vector<int>{0, 2}));
    });
}

TEST(Gather, views_lists_and_ranges_of_callables_and_sleeps_are_taken) {
    in_virtual_time([]() -> Coro<> {
        auto squares =
            std::views::iota(1, 5) | std::views::transform([](int n) { return after(1ms, n * n); });
        const auto results = co_await gather(squares);
        EXPECT_EQ(results, (std::vector<int>{1, 4, 9, 16}));

        auto filtered = std::views::iota(0, 10) |
                        std::views::filter([](int n) { return n % 2 == 1; }) |
                        std::views::transform([](int n) { return at_once(n); });
        const auto odd = co_await gather(return_exceptions, filtered);
        EXPECT_EQ(odd.size(), 5U);
        EXPECT_EQ(odd.at(4).value(), 9);

        std::list<Coro<int>> list;
        list.push_back(at_once(1));
        list.push_back(at_once(2));
        const auto from_list = co_await gather(list);
        EXPECT_EQ(from_list, (std::vector<int>{1, 2}));

        std::vector<Coro<int> (*)()> functions(3, [] { return at_once(5); });
        const auto from_functions = co_await gather(functions);
        EXPECT_EQ(from_functions, (std::vector<int>{5, 5, 5}));

        std::vector sleeps{sleep(1ms), sleep(2ms)};
        const auto slept = co_await gather(sleeps);
        EXPECT_EQ(slept.size(), 2U);
    });
}

TEST(Gather, ten_thousand_children) {
    in_virtual_time([]() -> Coro<> {
        std::vector<Coro<int>> many;
        for (int i = 0; i < 10'000; ++i) many.push_back(after(std::chrono::milliseconds(i % 7), i));
        const auto results = co_await gather(many);
        EXPECT_EQ(results.size(), 10'000U);
        bool right = true;
        for (int i = 0; i < 10'000; ++i) right = right && results[static_cast<std::size_t>(i)] == i;
        EXPECT_TRUE(right);
    });
}

// --- done at once ---

TEST(Gather, of_nothing_is_done_at_once) {
    in_virtual_time([]() -> Coro<> {
        auto none = gather();
        EXPECT_TRUE(none.done());
        EXPECT_EQ(none.result(), std::tuple<>());
        auto none_either = gather(return_exceptions);
        EXPECT_TRUE(none_either.done());
        auto empty = gather(std::vector<Coro<int>>());
        EXPECT_TRUE(empty.done());
        EXPECT_TRUE(empty.result().empty());
        co_await none;
    });
}

TEST(Gather, of_what_is_done_is_done_on_return) {
    in_virtual_time([]() -> Coro<> {
        auto a = create_future<int>();
        auto b = create_future<int>();
        a.set_result(1);
        b.set_result(2);
        auto both = gather(a, b);
        EXPECT_TRUE(both.done());
        EXPECT_EQ(both.result(), std::tuple(1, 2));
        auto failed = create_future<int>();
        failed.set_exception(std::runtime_error("x"));
        auto with_failed = gather(a, failed, failed);
        EXPECT_TRUE(with_failed.done());
        EXPECT_EQ(text_of(with_failed.exception()), "exception: x");
        auto with_pending = gather(a, at_once(3));
        EXPECT_FALSE(with_pending.done());
        auto early = gather(failed, after(1s, 3));
        EXPECT_TRUE(early.done());
        EXPECT_NE(early.exception(), nullptr);
        auto results = co_await with_pending;
        EXPECT_EQ(results, std::tuple(1, 3));
    });
}

// --- duplicates ---

TEST(Gather, what_is_given_twice_runs_once_and_counts_twice) {
    in_virtual_time([]() -> Coro<> {
        int runs = 0;
        auto task = create_task([&]() -> Coro<int> {
            ++runs;
            co_await sleep(1ms);
            co_return 5;
        });
        auto other = create_future<int>();
        get_running_loop().call_later(2ms, [other] { other.set_result(6); });
        const auto results = co_await gather(task, other, task, other, task);
        EXPECT_EQ(results, std::tuple(5, 6, 5, 6, 5));
        EXPECT_EQ(runs, 1);
        const std::vector<Task<int>> twice(3, task);
        const auto done = gather(twice);
        EXPECT_TRUE(done.done());
        EXPECT_EQ(done.result(), (std::vector<int>{5, 5, 5}));
        auto mixed = co_await gather(return_exceptions, task, other, task);
        EXPECT_EQ(std::get<2>(mixed).value(), 5);
    });
}

// --- failures ---

TEST(Gather, the_first_failure_comes_out_while_the_others_run_on) {
    in_virtual_time([]() -> Coro<> {
        bool finished = false;
        auto slow = [&]() -> Coro<> {
            co_await sleep(1s);
            finished = true;
        };
        const auto begin = get_running_loop().time();
        auto result = co_await as_result(gather(slow(), fails("first", 10ms), fails("x", 20ms)));
        EXPECT_EQ(text_of(result.exception()), "exception: first");
        EXPECT_EQ(get_running_loop().time() - begin, 10ms);
        EXPECT_FALSE(finished);
        co_await sleep(2s);
        EXPECT_TRUE(finished);
    });
}

TEST(Gather, failures_after_the_first_are_not_reported) {
    in_virtual_time([]() -> Coro<> {
        Reports reports(get_running_loop());
        auto result = co_await as_result(
            gather(fails("first", 10ms), fails("second", 20ms), fails("third", 10ms)));
        EXPECT_EQ(text_of(result.exception()), "exception: first");
        co_await sleep(1s);
        EXPECT_TRUE(reports.all.empty());
        get_running_loop().set_exception_handler(nullptr);
    });
}

TEST(Gather, a_cancelled_child_fails_the_gather_which_is_not_cancelled_itself) {
    in_virtual_time([]() -> Coro<> {
        auto child = create_task(after(1s, 1));
        auto sibling = create_task(after(2s, 2));
        auto both = gather(child, sibling);
        co_await sleep(0);
        child.cancel("only this");
        auto result = co_await as_result(both);
        EXPECT_EQ(text_of(result.exception()), "CancelledError: only this");
        EXPECT_TRUE(both.done());
        EXPECT_FALSE(both.cancelled());
        EXPECT_EQ(text_of(both.exception()), "CancelledError: only this");
        EXPECT_FALSE(sibling.done());
        const int value = co_await sibling;
        EXPECT_EQ(value, 2);
    });
}

TEST(Gather, with_return_exceptions_each_has_a_result) {
    in_virtual_time([]() -> Coro<> {
        Reports reports(get_running_loop());
        auto cancelled = create_task(after(1s, 1));
        get_running_loop().call_later(15ms, [cancelled] { cancelled.cancel("c"); });
        {
            auto results = co_await gather(return_exceptions, at_once(1), fails("f", 10ms),
                                           cancelled, nothing(), after(2000ms, 5));
            static_assert(
                std::is_same_v<std::tuple_element_t<3, decltype(results)>, asyncio::Result<void>>);
            EXPECT_EQ(std::get<0>(results).value(), 1);
            EXPECT_EQ(text_of(std::get<1>(results).exception()), "exception: f");
            EXPECT_EQ(text_of(std::get<2>(results).exception()), "CancelledError: c");
            EXPECT_TRUE(std::get<3>(results).has_value());
            EXPECT_EQ(std::get<4>(results).value(), 5);
        }
        EXPECT_TRUE(reports.all.empty());
        get_running_loop().set_exception_handler(nullptr);
    });
}

// --- cancelling ---

TEST(Gather, a_cancel_cancels_all_children) {
    in_virtual_time([]() -> Coro<> {
        auto a = create_task(after(1s, 1));
        auto b = create_future<int>();
        auto all = gather(a, b, sleep(10s));
        co_await sleep(0);
        EXPECT_TRUE(all.cancel("stop"));
        EXPECT_FALSE(all.done());
        EXPECT_TRUE(b.cancelled());
        auto result = co_await as_result(all);
        EXPECT_EQ(text_of(result.exception()), "CancelledError: stop");
        EXPECT_FALSE(all.cancelled());
        EXPECT_TRUE(a.cancelled());
        EXPECT_FALSE(all.cancel());
        co_await sleep(1ms);
        EXPECT_EQ(asyncio::all_tasks().size(), 1U);
    });
}

TEST(Gather, a_cancel_says_false_when_no_child_is_pending) {
    in_virtual_time([]() -> Coro<> {
        auto a = create_future<int>();
        auto both = gather(a, a);
        a.set_result(1);
        EXPECT_FALSE(both.done()); // in the next turn
        EXPECT_FALSE(both.cancel());
        const auto results = co_await both;
        EXPECT_EQ(results, std::tuple(1, 1));
    });
}

TEST(Gather, a_cancel_ends_with_return_exceptions_only_when_all_children_have_ended) {
    in_virtual_time([]() -> Coro<> {
        Log log;
        auto stubborn = [&]() -> Coro<int> {
            static_cast<void>(co_await as_result(sleep(10s)));
            co_await sleep(1s);
            log.push_back("stubborn");
            co_return 1;
        };
        auto all = gather(return_exceptions, stubborn(), sleep(10s));
        all.add_done_callback([&] { log.push_back("all"); });
        co_await sleep(0);
        EXPECT_TRUE(all.cancel("stop"));
        auto result = co_await as_result(all);
        EXPECT_EQ(text_of(result.exception()), "CancelledError: stop");
        EXPECT_FALSE(all.cancelled());
        EXPECT_EQ(log, (Log{"stubborn", "all"}));
    });
}

TEST(Gather, a_cancel_that_every_child_swallows_fails_it_all_the_same) {
    in_virtual_time([]() -> Coro<> {
        auto stubborn = [](int value) -> Coro<int> {
            static_cast<void>(co_await as_result(sleep(10s)));
            co_return value;
        };
        auto all = gather(stubborn(1), stubborn(2));
        co_await sleep(0);
        EXPECT_TRUE(all.cancel());
        auto result = co_await as_result(all);
        EXPECT_TRUE(result.failed_with<asyncio::CancelledError>());
    });
}

TEST(Gather, cancelling_the_task_that_awaits_it_cancels_the_children) {
    in_virtual_time([]() -> Coro<> {
        auto child = create_task(after(10s, 1));
        auto waiter = create_task([&]() -> Coro<> { co_await gather(child, sleep(20s)); });
        co_await sleep(1s);
        EXPECT_TRUE(waiter.cancel("outside"));
        auto result = co_await as_result(waiter);
        EXPECT_TRUE(waiter.cancelled());
        EXPECT_EQ(text_of(result.exception()), "CancelledError: outside");
        EXPECT_TRUE(child.cancelled());
        co_await sleep(1ms);
        EXPECT_EQ(asyncio::all_tasks().size(), 1U);
    });
}

TEST(Gather, cancelling_the_waiter_when_all_children_are_done_but_unheard_of_cancels_it) {
    in_virtual_time([]() -> Coro<> {
        auto future = create_future<int>();
        auto waiter = create_task([&]() -> Coro<> { co_await gather(future); });
        co_await sleep(0);
        future.set_result(1);
        EXPECT_TRUE(waiter.cancel());
        static_cast<void>(co_await as_result(waiter));
        EXPECT_TRUE(waiter.cancelled());
    });
}

TEST(Gather, nested_gathers_nest_results_failures_and_cancels) {
    in_virtual_time([]() -> Coro<> {
        const auto results = co_await gather(gather(at_once(1), at_once(2)), at_once(3));
        EXPECT_EQ(results, std::tuple(std::tuple(1, 2), 3));
        auto failed = co_await as_result(gather(gather(at_once(1), fails("deep")), sleep(1s)));
        EXPECT_EQ(text_of(failed.exception()), "exception: deep");
        auto inner_child = create_task(after(10s, 1));
        auto outer = gather(gather(inner_child, sleep(9s)), sleep(8s));
        co_await sleep(0);
        EXPECT_TRUE(outer.cancel());
        static_cast<void>(co_await as_result(outer));
        EXPECT_TRUE(inner_child.cancelled());
        co_await sleep(2s);
        EXPECT_EQ(asyncio::all_tasks().size(), 1U);
    });
}

TEST(Gather, ends_with_its_last_child_and_hears_of_none_after_a_failure) {
    auto loop = new_event_loop();
    Reports reports(*loop);
    const auto turn = [&] {
        loop->stop();
        loop->run_forever();
    };
    {
        std::vector<Future<int>> futures;
        for (int i = 0; i < 5; ++i) futures.push_back(create_future<int>(*loop));
        auto all = gather(futures);
        int called = 0;
        all.add_done_callback([&] { ++called; });
        futures[1].set_result(1);
        futures[0].set_result(2);
        turn();
        turn();
        EXPECT_FALSE(all.done());
        futures[2].set_exception(asyncio::ValueError("first"));
        turn();
        turn();
        EXPECT_EQ(called, 1);
        EXPECT_EQ(text_of(all.exception()), "ValueError: first");
        // Too late for it.
        futures[3].cancel();
        futures[4].set_exception(asyncio::ValueError("late"));
        turn();
        turn();
        EXPECT_EQ(called, 1);
        EXPECT_EQ(text_of(all.exception()), "ValueError: first");
    }
    EXPECT_EQ(reports.count(), 0U) << reports.text();
    loop->set_exception_handler(nullptr);
}

TEST(Gather, with_return_exceptions_takes_cancelled_children_for_results) {
    in_virtual_time([]() -> Coro<> {
        std::vector<Future<int>> futures;
        for (int i = 0; i < 6; ++i) futures.push_back(create_future<int>());
        auto all = gather(return_exceptions, futures);
        futures[0].set_result(1);
        futures[1].set_exception(asyncio::ValueError("one"));
        futures[2].cancel("two");
        co_await sleep(0);
        co_await sleep(0);
        EXPECT_FALSE(all.done());
        futures[3].set_result(3);
        futures[4].cancel();
        futures[5].set_exception(asyncio::ValueError("five"));
        const auto results = co_await all;
        EXPECT_EQ(results[0].value(), 1);
        EXPECT_EQ(text_of(results[1].exception()), "ValueError: one");
        EXPECT_EQ(text_of(results[2].exception()), "CancelledError: two");
        EXPECT_EQ(results[3].value(), 3);
        EXPECT_EQ(text_of(results[4].exception()), "CancelledError: ");
        EXPECT_EQ(text_of(results[5].exception()), "ValueError: five");
        EXPECT_FALSE(all.cancelled());
    });
}

// --- dropped ---

// Its own CancelledError is not replaced by that of the second cancel.
TEST(Gather, that_failed_with_a_cancel_gives_that_to_a_task_that_is_cancelled_again) {
    in_virtual_time([]() -> Coro<> {
        Task<> child;
        auto task = create_task([&]() -> Coro<> {
            child = create_task([]() -> Coro<> { co_await sleep(5s); });
            co_await gather(child);
        });
        co_await sleep(1s);
        child.cancel("first");
        co_await sleep(0); // the child ends, and its gather hears of it in the next turn
        task.cancel("second");
        const auto result = co_await as_result(task);
        EXPECT_EQ(text_of(result.exception()), "CancelledError: first");
    });
}

TEST(Gather, children_of_a_dropped_gather_run_on) {
    in_virtual_time([]() -> Coro<> {
        int finished = 0;
        auto child = [&]() -> Coro<> {
            co_await sleep(1s);
            ++finished;
        };
        static_cast<void>(gather(child(), child()));
        co_await sleep(2s);
        EXPECT_EQ(finished, 2);
    });
}

TEST(Gather, failures_of_a_dropped_gather_are_reported_once) {
    in_virtual_time([]() -> Coro<> {
        Reports reports(get_running_loop());
        static_cast<void>(gather(fails("a", 10ms), fails("b", 20ms), at_once(1)));
        co_await sleep(1s);
        EXPECT_EQ(reports.all.size(), 1U);
        EXPECT_EQ(reports.count("never retrieved"), 1U);
        EXPECT_EQ(text_of(reports.all.at(0).exception), "exception: a");
        get_running_loop().set_exception_handler(nullptr);
    });
}

TEST(Gather, a_dropped_gather_of_futures_lets_go_of_them) {
    auto loop = new_event_loop();
    auto future = create_future<std::shared_ptr<int>>(*loop);
    const auto alive = std::make_shared<int>(0);
    static_cast<void>(gather(future, future));
    future.set_result(alive);
    loop->stop();
    loop->run_forever();
    future = {};
    EXPECT_EQ(alive.use_count(), 1);
}

TEST(Gather, a_loop_that_closes_ends_a_pending_gather) {
    auto loop = new_event_loop();
    Reports reports(*loop);
    auto future = create_future<int>(*loop);
    auto task = create_task(*loop, after(1s, 1));
    auto both = gather(future, task);
    auto waiter = create_task(*loop, [&]() -> Coro<> { co_await both; });
    loop->stop();
    loop->run_forever();
    loop->close();
    EXPECT_TRUE(waiter.cancelled());
    EXPECT_TRUE(task.cancelled());
    future.set_result(1);
    loop->set_exception_handler(nullptr);
}

// --- loops ---

TEST(Gather, of_coroutines_needs_a_running_loop) {
    auto coroutine = at_once(1);
    EXPECT_THROW(gather(std::move(coroutine)), asyncio::RuntimeError);
    std::vector<Coro<int>> many;
    many.push_back(at_once(1));
    EXPECT_THROW(gather(many), asyncio::RuntimeError);
    EXPECT_THROW(gather(), asyncio::RuntimeError);
    EXPECT_THROW(gather(std::vector<Task<int>>()), asyncio::RuntimeError);
    coroutine.close(); // NOLINT(bugprone-use-after-move)
    for (auto& left : many) left.close();
}

TEST(Gather, of_futures_takes_their_loop) {
    auto loop = new_event_loop();
    auto a = create_future<int>(*loop);
    auto b = create_future<int>(*loop);
    auto both = gather(a, b);
    EXPECT_EQ(&both.get_loop(), loop.get());
    auto range = gather(std::vector<Future<int>>{a, b});
    loop->call_soon([&] {
        a.set_result(1);
        b.set_result(2);
    });
    EXPECT_EQ(asyncio::run_until_complete(*loop, both), std::tuple(1, 2));
    EXPECT_EQ(asyncio::run_until_complete(*loop, range), (std::vector<int>{1, 2}));
}

TEST(Gather, of_futures_of_different_loops_is_refused) {
    auto loop = new_event_loop();
    auto other_loop = new_event_loop();
    auto a = create_future<int>(*loop);
    auto b = create_future<int>(*other_loop);
    EXPECT_THROW(gather(a, b), asyncio::ValueError);
    EXPECT_THROW(gather(std::vector<Future<int>>{a, b}), asyncio::ValueError);
    in_virtual_time([&]() -> Coro<> {
        auto coroutine = at_once(1);
        EXPECT_THROW(gather(std::move(coroutine), a), asyncio::ValueError);
        EXPECT_THROW(gather(return_exceptions, a), asyncio::ValueError);
        co_await sleep(0);
    });
    a.set_result(1);
    b.set_result(1);
    loop->stop();
    loop->run_forever();
}

TEST(Gather, an_empty_handle_is_refused) {
    in_virtual_time([]() -> Coro<> {
        EXPECT_THROW(gather(Future<int>()), asyncio::RuntimeError);
        EXPECT_THROW(gather(std::vector<Task<int>>(2)), asyncio::RuntimeError);
        co_return;
    });
}

TEST(Gather, a_coroutine_that_was_awaited_before_is_refused) {
    in_virtual_time([]() -> Coro<> {
        auto coroutine = at_once(1);
        co_await coroutine;
        EXPECT_THROW(gather(at_once(2), std::move(coroutine)), asyncio::RuntimeError);
        co_await sleep(0);
    });
}

TEST(Gather, a_result_whose_copy_throws_fails_the_gather) {
    struct Thrower {
        Thrower() = default;
        Thrower(Thrower&&) = default;
        Thrower(const Thrower&) { throw std::runtime_error("no copy"); }
        Thrower& operator=(const Thrower&) = delete;
        ~Thrower() = default;
    };
    in_virtual_time([]() -> Coro<> {
        auto task = create_task([]() -> Coro<Thrower> { co_return Thrower(); });
        auto result = co_await as_result(gather(task, sleep(1ms)));
        EXPECT_EQ(text_of(result.exception()), "exception: no copy");
    });
}

TEST(Gather, keeps_the_callables_until_their_coroutines_have_ended) {
    in_virtual_time([]() -> Coro<> {
        const auto alive = std::make_shared<int>(3);
        auto callable = [alive]() -> Coro<int> {
            co_await sleep(1s);
            co_return *alive;
        };
        const auto results = co_await gather(callable, callable);
        EXPECT_EQ(results, std::tuple(3, 3));
        EXPECT_EQ(alive.use_count(), 2); // here and in `callable`
    });
}
