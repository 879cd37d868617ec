// SPDX-License-Identifier: MIT
#include <asyncio/futures.hpp>

#include "support/in_virtual_time.hpp"
#include <asyncio/as_result.hpp>
#include <asyncio/contextvars.hpp>
#include <asyncio/sleep.hpp>
#include <asyncio/tasks.hpp>
#include <gtest/gtest.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

using asyncio::AnyFuture;
using asyncio::Coro;
using asyncio::create_future;
using asyncio::create_task;
using asyncio::Future;
using asyncio::get_running_loop;
using asyncio::new_event_loop;
using asyncio::sleep;
using asyncio::Task;
using asyncio_test::in_virtual_time;
using asyncio_test::Reports;
using asyncio_test::text_of;
using asyncio_test::thrown_by;

namespace {

using Log = std::vector<std::string>;

struct CopiesCounted {
    int copies = 0;
    int moves = 0;
    CopiesCounted() = default;
    CopiesCounted(const CopiesCounted& other) : copies(other.copies + 1), moves(other.moves) {}
    CopiesCounted(CopiesCounted&& other) noexcept : copies(other.copies), moves(other.moves + 1) {}
    CopiesCounted& operator=(const CopiesCounted&) = delete;
    CopiesCounted& operator=(CopiesCounted&&) = delete;
    ~CopiesCounted() = default;
};

// Runs whatever is ready: as many turns as there are in a row.
void run_turns(asyncio::EventLoop& loop, int turns = 1) {
    for (int i = 0; i < turns; ++i) {
        loop.stop();
        loop.run_forever();
    }
}

} // namespace

// --- states ---

TEST(Futures, a_new_future_is_pending) {
    auto loop = new_event_loop();
    auto future = create_future<int>(*loop);
    EXPECT_TRUE(future.valid());
    EXPECT_FALSE(future.done());
    EXPECT_FALSE(future.cancelled());
    EXPECT_EQ(&future.get_loop(), loop.get());
    EXPECT_TRUE(thrown_by([&] { future.result(); }).starts_with("InvalidStateError: "));
    EXPECT_TRUE(thrown_by([&] { future.exception(); }).starts_with("InvalidStateError: "));
}

TEST(Futures, a_result_makes_it_done) {
    auto loop = new_event_loop();
    auto future = create_future<std::string>(*loop);
    future.set_result("abc");
    EXPECT_TRUE(future.done());
    EXPECT_FALSE(future.cancelled());
    EXPECT_EQ(future.result(), "abc");
    EXPECT_EQ(future.exception(), nullptr);
}

TEST(Futures, an_exception_makes_it_done) {
    auto loop = new_event_loop();
    auto future = create_future<int>(*loop);
    future.set_exception(std::out_of_range("far"));
    EXPECT_TRUE(future.done());
    EXPECT_FALSE(future.cancelled());
    EXPECT_EQ(text_of(future.exception()), "exception: far");
    EXPECT_THROW(future.result(), std::out_of_range);
    EXPECT_THROW(future.result(), std::out_of_range); // as often as one likes
}

TEST(Futures, an_exception_may_be_given_as_a_pointer_but_not_as_a_null_one) {
    auto loop = new_event_loop();
    auto future = create_future<int>(*loop);
    EXPECT_TRUE(
        thrown_by([&] { future.set_exception(std::exception_ptr()); }).starts_with("ValueError: "));
    EXPECT_FALSE(future.done());
    future.set_exception(std::make_exception_ptr(std::out_of_range("far")));
    EXPECT_THROW(future.result(), std::out_of_range);
}

TEST(Futures, a_cancel_makes_it_done) {
    auto loop = new_event_loop();
    auto future = create_future<int>(*loop);
    EXPECT_TRUE(future.cancel("enough"));
    EXPECT_TRUE(future.done());
    EXPECT_TRUE(future.cancelled());
    EXPECT_EQ(thrown_by([&] { future.result(); }), "CancelledError: enough");
    EXPECT_EQ(thrown_by([&] { future.exception(); }), "CancelledError: enough");
    EXPECT_FALSE(future.cancel("again"));
    EXPECT_EQ(thrown_by([&] { future.result(); }), "CancelledError: enough");
}

TEST(Futures, a_cancelled_error_that_is_set_is_a_failure_and_no_cancel) {
    auto loop = new_event_loop();
    auto future = create_future<int>(*loop);
    future.set_exception(asyncio::CancelledError("set"));
    EXPECT_FALSE(future.cancelled());
    EXPECT_EQ(text_of(future.exception()), "CancelledError: set");
}

TEST(Futures, what_is_done_takes_no_other_result) {
    auto loop = new_event_loop();
    for (int how = 0; how < 3; ++how) {
        auto future = create_future<int>(*loop);
        if (how == 0) future.set_result(1);
        if (how == 1) future.set_exception(std::out_of_range("first"));
        if (how == 2) future.cancel();
        EXPECT_THROW(future.set_result(2), asyncio::InvalidStateError);
        EXPECT_THROW(future.set_exception(std::domain_error("second")), asyncio::InvalidStateError);
        EXPECT_FALSE(future.cancel());
        if (how == 0) {
            EXPECT_EQ(future.result(), 1);
        }
        if (how == 1) {
            EXPECT_EQ(text_of(future.exception()), "exception: first");
        }
        if (how == 2) {
            EXPECT_TRUE(future.cancelled());
        }
    }
}

TEST(Futures, copies_are_handles_of_the_same_future) {
    auto loop = new_event_loop();
    auto future = create_future<int>(*loop);
    Future<int> copy = future;
    AnyFuture any = future;
    const auto other = create_future<int>(*loop);
    EXPECT_TRUE(copy == future);
    EXPECT_TRUE(any == future);
    EXPECT_FALSE(other == future);
    copy.set_result(5);
    EXPECT_TRUE(any.done());
    EXPECT_EQ(future.result(), 5);
    other.cancel();
}

TEST(Futures, a_copy_of_the_result_that_throws_leaves_the_future_pending) {
    struct Thrower {
        Thrower() = default;
        Thrower(const Thrower&) { throw std::runtime_error("no copy"); }
        Thrower& operator=(const Thrower&) = delete;
        ~Thrower() = default;
    };
    auto loop = new_event_loop();
    auto future = create_future<Thrower>(*loop);
    const Thrower value;
    EXPECT_THROW(future.set_result(value), std::runtime_error);
    EXPECT_FALSE(future.done());
    future.cancel();
}

// --- empty handles ---

TEST(Futures, an_empty_handle_throws_runtime_error) {
    const Future<int> empty;
    EXPECT_FALSE(empty.valid());
    EXPECT_THROW(static_cast<void>(empty.done()), asyncio::RuntimeError);
    EXPECT_THROW(static_cast<void>(empty.cancelled()), asyncio::RuntimeError);
    EXPECT_THROW(empty.cancel(), asyncio::RuntimeError);
    EXPECT_THROW(static_cast<void>(empty.exception()), asyncio::RuntimeError);
    EXPECT_THROW(static_cast<void>(empty.result()), asyncio::RuntimeError);
    EXPECT_THROW(empty.set_result(1), asyncio::RuntimeError);
    EXPECT_THROW(empty.set_exception(1), asyncio::RuntimeError);
    EXPECT_THROW(static_cast<void>(empty.get_loop()), asyncio::RuntimeError);
    EXPECT_THROW(empty.add_done_callback([] {}), asyncio::RuntimeError);
    EXPECT_THROW(empty.remove_done_callback(asyncio::DoneCallbackId{1}), asyncio::RuntimeError);
    EXPECT_THROW(static_cast<void>(AnyFuture().done()), asyncio::RuntimeError);
    EXPECT_TRUE(AnyFuture() == empty);
}

TEST(Futures, awaiting_an_empty_handle_throws_runtime_error) {
    in_virtual_time([]() -> Coro<> {
        Future<int> empty;
        bool thrown = false;
        try {
            co_await empty;
        } catch (const asyncio::RuntimeError&) {
            thrown = true;
        }
        EXPECT_TRUE(thrown);
        thrown = false;
        try {
            co_await std::move(empty);
        } catch (const asyncio::RuntimeError&) {
            thrown = true;
        }
        EXPECT_TRUE(thrown);
    });
}

TEST(Futures, a_handle_that_was_moved_from_is_empty) {
    auto loop = new_event_loop();
    auto future = create_future<int>(*loop);
    Future<int> other = std::move(future);
    EXPECT_FALSE(future.valid()); // NOLINT(bugprone-use-after-move)
    EXPECT_TRUE(other.valid());
    other = Future<int>();
    EXPECT_FALSE(other.valid());
}

TEST(Futures, a_future_needs_a_loop_that_is_not_closed) {
    EXPECT_THROW(create_future<int>(), asyncio::RuntimeError);
    auto loop = new_event_loop();
    loop->close();
    EXPECT_THROW(create_future<int>(*loop), asyncio::RuntimeError);
}

// --- callbacks ---

TEST(Futures, callbacks_run_in_the_next_turn_in_the_order_of_registration) {
    auto loop = new_event_loop();
    Log log;
    auto future = create_future<int>(*loop);
    future.add_done_callback(
        [&](Future<int> f) { log.push_back("a" + std::to_string(f.result())); });
    future.add_done_callback([&](AnyFuture f) { log.push_back(f.done() ? "b" : "?"); });
    future.add_done_callback([&] { log.push_back("c"); });
    loop->call_soon([&] {
        future.set_result(7);
        log.push_back("set");
        loop->call_soon([&] { log.push_back("later"); });
    });
    loop->call_soon([&] { log.push_back("same turn"); });
    run_turns(*loop, 2);
    EXPECT_EQ(log, (Log{"set", "same turn", "a7", "b", "c", "later"}));
}

TEST(Futures, a_cancel_runs_no_callback_at_once) {
    auto loop = new_event_loop();
    Log log;
    auto future = create_future<int>(*loop);
    future.add_done_callback([&](Future<int> f) { log.push_back(f.cancelled() ? "yes" : "no"); });
    future.cancel();
    EXPECT_TRUE(log.empty());
    run_turns(*loop);
    EXPECT_EQ(log, (Log{"yes"}));
}

TEST(Futures, a_callback_that_is_added_to_a_done_future_runs_in_the_next_turn) {
    auto loop = new_event_loop();
    Log log;
    auto future = create_future<>(*loop);
    future.set_result();
    loop->call_soon([&] {
        future.add_done_callback([&] { log.push_back("callback"); });
        loop->call_soon([&] { log.push_back("after"); });
        log.push_back("added");
    });
    loop->call_soon([&] { log.push_back("same turn"); });
    run_turns(*loop);
    EXPECT_EQ(log, (Log{"added", "same turn"}));
    run_turns(*loop);
    EXPECT_EQ(log, (Log{"added", "same turn", "callback", "after"}));
}

TEST(Futures, a_callback_runs_in_the_context_of_its_registration) {
    in_virtual_time([]() -> Coro<> {
        asyncio::ContextVar<int> variable("variable", 0);
        Log log;
        auto future = create_future<>();
        auto add = [&](const char* name) {
            future.add_done_callback([&, name] {
                log.push_back(name + std::to_string(variable.get()));
                variable.set(99); // nobody else sees it
            });
        };
        variable.set(1);
        add("a");
        variable.set(2);
        add("b");
        variable.set(3);
        future.set_result();
        add("late");
        variable.set(4);
        co_await sleep(0);
        EXPECT_EQ(log, (Log{"a1", "b2", "late3"}));
        EXPECT_EQ(variable.get(), 4);
    });
}

TEST(Futures, a_callback_is_removed_by_its_id) {
    auto loop = new_event_loop();
    Log log;
    auto future = create_future<>(*loop);
    const auto a = future.add_done_callback([&] { log.push_back("a"); });
    const auto b = future.add_done_callback([&] { log.push_back("b"); });
    const auto c = future.add_done_callback([&] { log.push_back("c"); });
    EXPECT_EQ(future.remove_done_callback(b), 1U);
    EXPECT_EQ(future.remove_done_callback(b), 0U);
    EXPECT_EQ(future.remove_done_callback(a), 1U);
    const auto d = future.add_done_callback([&] { log.push_back("d"); });
    future.set_result();
    EXPECT_EQ(future.remove_done_callback(c), 0U); // scheduled
    EXPECT_EQ(future.remove_done_callback(d), 0U);
    run_turns(*loop);
    EXPECT_EQ(log, (Log{"c", "d"}));
    EXPECT_EQ(future.remove_done_callback(c), 0U);
}

TEST(Futures, any_callback_of_three_can_be_removed_and_the_others_keep_their_order) {
    auto loop = new_event_loop();
    for (unsigned removed = 0; removed < 8; ++removed) {
        Log log;
        Log expected;
        auto future = create_future<>(*loop);
        std::vector<asyncio::DoneCallbackId> ids;
        for (const char* name : {"a", "b", "c"}) {
            ids.push_back(future.add_done_callback([&log, name] { log.push_back(name); }));
        }
        for (unsigned i = 0; i < 3; ++i) {
            if ((removed & (1U << i)) != 0) {
                EXPECT_EQ(future.remove_done_callback(ids[i]), 1U);
            } else {
                expected.push_back(std::string(1, static_cast<char>('a' + i)));
            }
        }
        future.add_done_callback([&] { log.push_back("d"); });
        expected.push_back("d");
        future.set_result();
        run_turns(*loop);
        EXPECT_EQ(log, expected) << removed;
    }
}

namespace {
int calls_of_plain = 0;
void plain(AnyFuture) { ++calls_of_plain; }
void other_plain(AnyFuture) { ++calls_of_plain; }
struct Numbered {
    int number;
    std::vector<int>* log;
    void operator()(AnyFuture) const { log->push_back(number); }
    bool operator==(const Numbered& other) const { return number == other.number; }
};
} // namespace

TEST(Futures, equal_callbacks_are_removed_together_and_counted) {
    auto loop = new_event_loop();
    calls_of_plain = 0;
    std::vector<int> log;
    auto future = create_future<>(*loop);
    future.add_done_callback(plain);
    future.add_done_callback(Numbered{1, &log});
    future.add_done_callback(&plain);
    future.add_done_callback(other_plain);
    future.add_done_callback(Numbered{2, &log});
    future.add_done_callback([&] { log.push_back(3); });
    future.add_done_callback(Numbered{1, &log});
    EXPECT_EQ(future.remove_done_callback(plain), 2U);
    EXPECT_EQ(future.remove_done_callback(plain), 0U);
    EXPECT_EQ(future.remove_done_callback(Numbered{1, &log}), 2U);
    EXPECT_EQ(future.remove_done_callback(Numbered{4, &log}), 0U);
    future.set_result();
    run_turns(*loop);
    EXPECT_EQ(calls_of_plain, 1);
    EXPECT_EQ(log, (std::vector<int>{2, 3}));
}

TEST(Futures, a_callback_that_is_removed_may_remove_others_as_it_is_destroyed) {
    struct Remover {
        AnyFuture future;
        asyncio::DoneCallbackId id;
        ~Remover() { future.remove_done_callback(id); }
    };
    auto loop = new_event_loop();
    auto future = create_future<>(*loop);
    auto remover = std::make_shared<Remover>(Remover{future, {0}});
    future.add_done_callback([](AnyFuture) {});
    const auto first = future.add_done_callback([remover] {});
    remover->id = future.add_done_callback([] {});
    remover.reset();
    EXPECT_EQ(future.remove_done_callback(first), 1U);
    future.set_result();
    run_turns(*loop);
}

TEST(Futures, a_callback_that_throws_is_reported_and_the_others_run) {
    auto loop = new_event_loop();
    Reports reports(*loop);
    Log log;
    auto future = create_future<>(*loop);
    future.add_done_callback([] { throw std::runtime_error("bad"); });
    future.add_done_callback([&] { log.push_back("next"); });
    future.set_result();
    run_turns(*loop);
    EXPECT_EQ(log, (Log{"next"}));
    ASSERT_EQ(reports.all.size(), 1U);
    EXPECT_EQ(reports.count("Exception in callback"), 1U);
    EXPECT_EQ(text_of(reports.all[0].exception), "exception: bad");
}

TEST(Futures, keyboard_interrupt_leaves_a_callback_and_the_rest_waits_for_the_next_run) {
    auto loop = new_event_loop();
    Log log;
    auto future = create_future<>(*loop);
    future.add_done_callback([] { throw asyncio::KeyboardInterrupt(); });
    future.add_done_callback([&] { log.push_back("next"); });
    future.set_result();
    EXPECT_THROW(run_turns(*loop), asyncio::KeyboardInterrupt);
    EXPECT_TRUE(log.empty());
    run_turns(*loop);
    EXPECT_EQ(log, (Log{"next"}));
}

TEST(Futures, a_callback_may_add_and_remove_callbacks_and_drop_the_last_handle) {
    auto loop = new_event_loop();
    Log log;
    auto future = create_future<>(*loop);
    future.add_done_callback([&](AnyFuture f) {
        log.push_back("first");
        future = Future<>();
        f.add_done_callback([&] { log.push_back("late"); });
    });
    future.add_done_callback([&](AnyFuture f) {
        log.push_back("second");
        f = AnyFuture();
    });
    future.set_result();
    run_turns(*loop, 2);
    EXPECT_EQ(log, (Log{"first", "second", "late"}));
    EXPECT_FALSE(future.valid());
}

TEST(Futures, a_callback_that_holds_its_own_future_lets_go_once_it_has_run) {
    auto loop = new_event_loop();
    const auto alive = std::make_shared<int>(0);
    {
        auto future = create_future<>(*loop);
        future.add_done_callback([alive, future] {});
        future.set_result();
    }
    EXPECT_EQ(alive.use_count(), 2);
    run_turns(*loop);
    EXPECT_EQ(alive.use_count(), 1);
}

TEST(Futures, a_future_that_is_dropped_destroys_its_callbacks_without_calling_them) {
    auto loop = new_event_loop();
    const auto alive = std::make_shared<int>(0);
    bool called = false;
    {
        auto future = create_future<>(*loop);
        future.add_done_callback([alive, &called] { called = true; });
        future.add_done_callback([alive, &called] { called = true; });
        EXPECT_EQ(alive.use_count(), 3);
    }
    EXPECT_EQ(alive.use_count(), 1);
    run_turns(*loop);
    EXPECT_FALSE(called);
}

TEST(Futures, a_callback_keeps_its_future_from_when_it_is_scheduled) {
    auto loop = new_event_loop();
    std::string got;
    {
        auto future = create_future<std::string>(*loop);
        future.add_done_callback([&](Future<std::string> f) { got = f.result(); });
        future.set_result("kept");
    }
    run_turns(*loop);
    EXPECT_EQ(got, "kept");
}

// --- never retrieved ---

TEST(Futures, an_exception_that_nobody_has_seen_is_reported_once) {
    auto loop = new_event_loop();
    Reports reports(*loop);
    create_future<int>(*loop).set_exception(std::runtime_error("lost"));
    ASSERT_EQ(reports.all.size(), 1U);
    EXPECT_EQ(reports.all[0].message, "Future exception was never retrieved");
    EXPECT_EQ(text_of(reports.all[0].exception), "exception: lost");
}

TEST(Futures, a_look_at_the_exception_is_enough_to_keep_it_from_being_reported) {
    auto loop = new_event_loop();
    Reports reports(*loop);
    for (int how = 0; how < 2; ++how) {
        auto future = create_future<int>(*loop);
        future.set_exception(std::runtime_error("seen"));
        if (how == 0) {
            EXPECT_NE(future.exception(), nullptr);
        }
        if (how == 1) {
            EXPECT_THROW(future.result(), std::runtime_error);
        }
    }
    {
        auto future = create_future<int>(*loop);
        future.cancel();
        auto second = create_future<int>(*loop);
        second.set_result(1);
    }
    EXPECT_TRUE(reports.all.empty());
}

TEST(Futures, an_await_that_throws_it_keeps_it_from_being_reported) {
    in_virtual_time([]() -> Coro<> {
        Reports reports(get_running_loop());
        {
            auto future = create_future<int>();
            future.set_exception(std::runtime_error("seen"));
            auto result = co_await asyncio::as_result(future);
            EXPECT_FALSE(result);
        }
        {
            auto future = create_future<int>();
            auto waiter =
                create_task([](Future<int> f) -> Coro<int> { co_return co_await f; }, future);
            co_await sleep(0);
            future.set_exception(std::runtime_error("seen"));
            auto result = co_await asyncio::as_result(waiter);
            EXPECT_EQ(text_of(result.exception()), "exception: seen");
        }
        EXPECT_TRUE(reports.all.empty());
        get_running_loop().set_exception_handler(nullptr);
    });
}

TEST(Futures, a_task_that_fails_unseen_is_reported_with_its_name_and_where_it_was_made) {
    in_virtual_time([]() -> Coro<> {
        Reports reports(get_running_loop());
        create_task(asyncio::TaskOptions().name("doomed"), []() -> Coro<> {
            co_await sleep(0);
            throw std::runtime_error("lost");
        });
        co_await sleep(1);
        EXPECT_EQ(reports.count("Task exception was never retrieved"), 1U);
        if (!reports.all.empty()) {
            EXPECT_EQ(reports.all[0].details.size(), 1U);
            const std::string text = reports.all[0].details[0].text;
            EXPECT_NE(text.find("name='doomed'"), std::string::npos) << text;
            EXPECT_NE(text.find("futures.cpp:"), std::string::npos) << text;
        }
        get_running_loop().set_exception_handler(nullptr);
    });
}

// --- await ---

TEST(Futures, tasks_that_await_one_future_resume_in_the_order_in_which_they_came) {
    in_virtual_time([]() -> Coro<> {
        Log log;
        auto future = create_future<int>();
        auto waiter = [&](std::string name) -> Coro<> {
            const int value = co_await future;
            log.push_back(name + std::to_string(value));
        };
        auto a = create_task(waiter("a"));
        auto b = create_task(waiter("b"));
        co_await sleep(0);
        future.add_done_callback([&] { log.push_back("callback"); });
        auto c = create_task(waiter("c"));
        co_await sleep(0);
        future.set_result(1);
        EXPECT_TRUE(log.empty());
        co_await sleep(0);
        EXPECT_EQ(log, (Log{"a1", "b1", "callback", "c1"}));
    });
}

TEST(Futures, awaiting_what_is_done_does_not_suspend) {
    in_virtual_time([]() -> Coro<> {
        auto future = create_future<int>();
        future.set_result(1);
        bool others_ran = false;
        get_running_loop().call_soon([&] { others_ran = true; });
        for (int i = 0; i < 1000; ++i) co_await future;
        co_await AnyFuture(future);
        auto failed = create_future<int>();
        failed.set_exception(1);
        auto result = co_await asyncio::as_result(failed);
        EXPECT_FALSE(result);
        EXPECT_FALSE(others_ran);
        co_await sleep(0);
        EXPECT_TRUE(others_ran);
    });
}

TEST(Futures, cancelling_the_task_that_waits_cancels_the_future_and_the_other_waiters) {
    in_virtual_time([]() -> Coro<> {
        auto future = create_future<int>();
        auto waiter = [&]() -> Coro<int> { co_return co_await future; };
        auto a = create_task(waiter());
        auto b = create_task(waiter());
        co_await sleep(0);
        EXPECT_TRUE(a.cancel("stop"));
        EXPECT_TRUE(future.cancelled()); // at once
        EXPECT_FALSE(a.done());
        EXPECT_THROW(future.set_result(1), asyncio::InvalidStateError);
        co_await sleep(0);
        EXPECT_TRUE(a.cancelled());
        EXPECT_TRUE(b.cancelled());
        EXPECT_EQ(b.cancelling(), 0U);
        EXPECT_EQ(thrown_by([&] { b.result(); }), "CancelledError: stop");
    });
}

TEST(Futures, a_cancel_between_the_result_and_the_resumption_wins_and_the_future_keeps_its_value) {
    in_virtual_time([]() -> Coro<> {
        auto future = create_future<int>();
        auto waiter = create_task([&]() -> Coro<int> { co_return co_await future; });
        co_await sleep(0);
        future.set_result(5);
        EXPECT_TRUE(waiter.cancel());
        co_await sleep(0);
        EXPECT_TRUE(waiter.cancelled());
        EXPECT_EQ(future.result(), 5);
    });
}

TEST(Futures, an_exception_that_a_cancel_covers_counts_as_seen) {
    in_virtual_time([]() -> Coro<> {
        Reports reports(get_running_loop());
        {
            auto future = create_future<int>();
            auto waiter =
                create_task([](Future<int> f) -> Coro<int> { co_return co_await f; }, future);
            co_await sleep(0);
            future.set_exception(std::runtime_error("covered"));
            waiter.cancel();
            co_await sleep(0);
            EXPECT_TRUE(waiter.cancelled());
        }
        EXPECT_TRUE(reports.all.empty());
        get_running_loop().set_exception_handler(nullptr);
    });
}

TEST(Futures, a_pending_future_of_another_loop_is_refused_one_turn_later) {
    auto other = new_event_loop();
    auto foreign = create_future<int>(*other);
    in_virtual_time([&]() -> Coro<> {
        Log log;
        get_running_loop().call_soon([&] { log.push_back("a turn"); });
        try {
            co_await foreign;
        } catch (const asyncio::RuntimeError& error) {
            log.push_back("refused");
            EXPECT_NE(std::string(error.what()).find("different loop"), std::string::npos);
        }
        EXPECT_EQ(log, (Log{"a turn", "refused"}));
        auto result = co_await asyncio::as_result(std::move(foreign));
        EXPECT_FALSE(result);
    });
}

TEST(Futures, a_done_future_of_another_loop_gives_its_result) {
    auto other = new_event_loop();
    auto foreign = create_future<int>(*other);
    foreign.set_result(3);
    in_virtual_time([&]() -> Coro<> {
        const int value = co_await foreign;
        EXPECT_EQ(value, 3);
    });
}

TEST(Futures, a_cancel_while_a_foreign_future_is_being_refused_leaves_that_future_alone) {
    auto other = new_event_loop();
    auto foreign = create_future<int>(*other);
    in_virtual_time([&]() -> Coro<> {
        auto waiter = create_task([&]() -> Coro<int> { co_return co_await foreign; });
        co_await sleep(0);
        waiter.cancel();
        co_await sleep(0);
        EXPECT_TRUE(waiter.cancelled());
    });
    EXPECT_FALSE(foreign.done());
}

TEST(Futures, a_task_that_awaits_itself_gets_runtime_error_one_turn_later) {
    in_virtual_time([]() -> Coro<> {
        Task<> self;
        Log log;
        self = create_task([&]() -> Coro<> {
            get_running_loop().call_soon([&] { log.push_back("a turn"); });
            try {
                co_await self;
            } catch (const asyncio::RuntimeError& error) {
                log.push_back(std::string(error.what()).substr(0, 27));
            }
        });
        co_await self;
        EXPECT_EQ(log, (Log{"a turn", "Task cannot await on itself"}));
    });
}

// --- results ---

TEST(Futures, awaiting_a_named_future_copies_and_a_moved_one_moves) {
    in_virtual_time([]() -> Coro<> {
        auto future = create_future<CopiesCounted>();
        future.set_result(CopiesCounted());
        EXPECT_EQ(future.result().copies, 0);
        const CopiesCounted copy = co_await future;
        EXPECT_EQ(copy.copies, 1);
        Future<CopiesCounted> second = future;
        const CopiesCounted not_last = co_await std::move(second);
        EXPECT_EQ(not_last.copies, 1); // another handle still shows the value
        const CopiesCounted moved = co_await std::move(future);
        EXPECT_EQ(moved.copies, 0);
    });
}

TEST(Futures, a_move_only_result_is_moved_out_and_then_gone) {
    in_virtual_time([]() -> Coro<> {
        auto future = create_future<std::unique_ptr<int>>();
        Future<std::unique_ptr<int>> other = future;
        future.set_result(std::make_unique<int>(5));
        EXPECT_EQ(*other.result(), 5);
        const std::unique_ptr<int> value = co_await std::move(future);
        EXPECT_EQ(*value, 5);
        EXPECT_TRUE(other.done());
        EXPECT_EQ(other.exception(), nullptr);
        EXPECT_THROW(static_cast<void>(other.result()), asyncio::InvalidStateError);
        bool thrown = false;
        Future<std::unique_ptr<int>> third = other;
        try {
            co_await std::move(other);
        } catch (const asyncio::InvalidStateError&) {
            thrown = true;
        }
        EXPECT_TRUE(thrown);
        auto result = co_await asyncio::as_result(std::move(third));
        EXPECT_TRUE(result.failed_with<asyncio::InvalidStateError>());
    });
}

TEST(Futures, a_future_of_a_reference_gives_the_object_itself) {
    in_virtual_time([]() -> Coro<> {
        int object = 1;
        auto future = create_future<int&>();
        future.set_result(object);
        EXPECT_EQ(&future.result(), &object);
        int& awaited = co_await future;
        EXPECT_EQ(&awaited, &object);
        int& moved = co_await std::move(future);
        EXPECT_EQ(&moved, &object);
    });
}

template <class T, class U>
concept CanBeSetTo =
    requires(Future<T> future, U&& value) { future.set_result(std::forward<U>(value)); };
static_assert(CanBeSetTo<std::string, const char*>);
static_assert(!CanBeSetTo<std::string, int*>);
static_assert(CanBeSetTo<int&, int&>);
static_assert(!CanBeSetTo<int&, int>);
static_assert(!CanBeSetTo<int&, std::nullptr_t>);
static_assert(!CanBeSetTo<const std::string&, std::string>, "the reference would dangle");
static_assert(CanBeSetTo<const std::string&, const std::string&>);
static_assert(!CanBeSetTo<void, int>);

TEST(Futures, a_future_of_nothing_only_says_that_it_is_done) {
    in_virtual_time([]() -> Coro<> {
        auto future = create_future();
        get_running_loop().call_soon([&] { future.set_result(); });
        co_await future;
        static_assert(std::is_void_v<decltype(future.result())>);
        future.result();
        EXPECT_EQ(future.exception(), nullptr);
    });
}

TEST(Futures, awaiting_any_future_waits_and_throws_but_gives_nothing) {
    in_virtual_time([]() -> Coro<> {
        auto future = create_future<std::unique_ptr<int>>();
        get_running_loop().call_soon([&] { future.set_result(nullptr); });
        const AnyFuture any = future;
        co_await any;
        EXPECT_TRUE(future.done());
        auto failing = create_future<int>();
        get_running_loop().call_soon([&] { failing.set_exception(std::out_of_range("x")); });
        bool thrown = false;
        try {
            co_await AnyFuture(failing);
        } catch (const std::out_of_range&) {
            thrown = true;
        }
        EXPECT_TRUE(thrown);
    });
}

TEST(Futures, a_result_lives_until_the_last_handle_goes) {
    auto loop = new_event_loop();
    const auto alive = std::make_shared<int>(1);
    {
        auto future = create_future<std::shared_ptr<int>>(*loop);
        future.set_result(alive);
        const AnyFuture last = future;
        future = {};
        EXPECT_EQ(alive.use_count(), 2);
    }
    EXPECT_EQ(alive.use_count(), 1);
}

// --- tasks as futures ---

TEST(Futures, a_task_that_is_taken_for_a_future_cannot_be_set) {
    in_virtual_time([]() -> Coro<> {
        auto task = create_task([]() -> Coro<int> { co_return 1; });
        const Future<int> sliced = task;
        EXPECT_THROW(sliced.set_result(2), asyncio::RuntimeError);
        EXPECT_THROW(sliced.set_exception(std::runtime_error("no")), asyncio::RuntimeError);
        const int value = co_await sliced;
        EXPECT_EQ(value, 1);
        EXPECT_THROW(sliced.set_result(2), asyncio::RuntimeError);
    });
}

// --- lifetimes ---

TEST(Futures, a_future_may_outlive_its_loop) {
    auto loop = new_event_loop();
    auto pending = create_future<int>(*loop);
    auto failed = create_future<int>(*loop);
    failed.set_exception(std::runtime_error("late"));
    const auto alive = std::make_shared<int>(0);
    bool called = false;
    pending.add_done_callback([alive, &called] { called = true; });
    loop.reset();
    EXPECT_TRUE(pending.get_loop().is_closed());
    pending.set_result(1);
    EXPECT_EQ(pending.result(), 1);
    EXPECT_NE(failed.exception(), nullptr);
    EXPECT_FALSE(called);
    EXPECT_EQ(alive.use_count(), 1); // no turn will ever come: the callback is gone
}

TEST(Futures, a_callback_for_a_done_future_of_a_closed_loop_is_refused) {
    auto loop = new_event_loop();
    auto future = create_future<int>(*loop);
    future.set_result(1);
    loop->close();
    const auto alive = std::make_shared<int>(0);
    EXPECT_THROW(future.add_done_callback([alive] {}), asyncio::RuntimeError);
    EXPECT_EQ(alive.use_count(), 1);
}

TEST(Futures, a_loop_that_closes_drops_callbacks_that_are_scheduled) {
    auto loop = new_event_loop();
    const auto alive = std::make_shared<int>(0);
    bool called = false;
    auto future = create_future<>(*loop);
    future.add_done_callback([alive, &called, future] { called = true; });
    future.set_result();
    loop->close();
    EXPECT_FALSE(called);
    EXPECT_EQ(alive.use_count(), 1);
}

TEST(Futures, a_loop_may_close_while_a_task_waits_for_a_future) {
    auto loop = new_event_loop();
    Reports reports(*loop);
    const auto alive = std::make_shared<int>(0);
    auto future = create_future<int>(*loop);
    auto waiter = [](Future<int> f, std::shared_ptr<int>) -> Coro<int> { co_return co_await f; };
    auto a = create_task(*loop, waiter(future, alive));
    auto b = create_task(*loop, waiter(future, alive));
    run_turns(*loop);
    loop->close();
    EXPECT_EQ(alive.use_count(), 1);
    EXPECT_TRUE(a.cancelled());
    EXPECT_TRUE(b.cancelled());
    EXPECT_EQ(reports.count("Task was destroyed but it is pending"), 2U);
    future.set_result(1);
    loop->set_exception_handler(nullptr);
}

TEST(Futures, a_frame_that_a_closing_loop_destroys_may_set_a_future_that_another_awaits) {
    struct SetsAtEnd {
        Future<int> future;
        ~SetsAtEnd() {
            if (!future.done()) future.set_result(1);
        }
    };
    auto loop = new_event_loop();
    Reports reports(*loop);
    auto future = create_future<int>(*loop);
    auto never = create_future<int>(*loop);
    auto setter = [](Future<int> f, Future<int> n) -> Coro<> {
        const SetsAtEnd at_end{f};
        co_await n;
    };
    auto waiter = [](Future<int> f) -> Coro<> { co_await f; };
    auto a = create_task(*loop, waiter(future));
    auto b = create_task(*loop, setter(future, never));
    auto c = create_task(*loop, waiter(future));
    run_turns(*loop);
    loop->close();
    EXPECT_TRUE(a.cancelled() && b.cancelled() && c.cancelled());
    EXPECT_EQ(future.result(), 1);
    loop->set_exception_handler(nullptr);
}
