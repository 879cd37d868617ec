// SPDX-License-Identifier: MIT
#include <asyncio/asyncio.hpp>
#include <asyncio/testing/virtual_time.hpp>

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

using asyncio::ContextVar;
using asyncio::Coro;
using asyncio::create_task;
using asyncio::get_running_loop;

namespace {

ContextVar<std::string> with_default("with_default", "none");
ContextVar<int> without_default("without_default");

Coro<std::string> get_it() { co_return with_default.get(); }

TEST(ContextVars, give_their_default) {
    EXPECT_EQ(with_default.name(), "with_default");
    EXPECT_EQ(with_default.get(), "none");
    EXPECT_EQ(with_default.get("other"), "other");
    EXPECT_EQ(without_default.get(7), 7);
    try {
        without_default.get();
        FAIL();
    } catch (const asyncio::LookupError& error) {
        EXPECT_NE(std::string(error.what()).find("'without_default'"), std::string::npos);
    }
}

TEST(ContextVars, are_set_and_reset) {
    const auto main = []() -> Coro<> {
        auto first = with_default.set("first");
        EXPECT_EQ(with_default.get(), "first");
        EXPECT_EQ(with_default.get("other"), "first");
        auto second = with_default.set("second");
        EXPECT_EQ(with_default.get(), "second");
        with_default.reset(second);
        EXPECT_EQ(with_default.get(), "first");
        with_default.reset(first);
        EXPECT_EQ(with_default.get(), "none");
        auto number = without_default.set(1);
        EXPECT_EQ(without_default.get(), 1);
        without_default.reset(number);
        EXPECT_THROW(without_default.get(), asyncio::LookupError);
        co_return;
    };
    asyncio::run(main());
}

TEST(ContextVars, refuse_tokens_of_others_and_used_ones) {
    ContextVar<std::string> other("other");
    auto token = with_default.set("x");
    EXPECT_THROW(other.reset(token), asyncio::ValueError);
    EXPECT_EQ(with_default.get(), "x");
    with_default.reset(token);
    EXPECT_THROW(with_default.reset(token), asyncio::RuntimeError);
    EXPECT_EQ(with_default.get(), "none");
}

TEST(ContextVars, at_the_place_of_a_destroyed_one_begin_anew) {
    std::allocator<ContextVar<int>> memory;
    ContextVar<int>* const number = memory.allocate(1);
    std::construct_at(number, "number");
    number->set(1);
    std::destroy_at(number);
    std::construct_at(number, "again");
    EXPECT_THROW(number->get(), asyncio::LookupError);
    number->set(2);
    EXPECT_EQ(number->get(), 2);
    std::destroy_at(number);
    memory.deallocate(number, 1);
}

TEST(ContextVars, are_inherited_by_tasks_at_their_making) {
    const auto main = []() -> Coro<> {
        with_default.set("before");
        const auto task = create_task(get_it());
        const auto of_callable = create_task(get_it);
        with_default.set("after");
        std::string got = co_await task;
        EXPECT_EQ(got, "before");
        got = co_await of_callable;
        EXPECT_EQ(got, "before");
        got = co_await get_it();
        EXPECT_EQ(got, "after"); // a plain await is the same task
        const auto [gathered] = co_await asyncio::gather(get_it());
        EXPECT_EQ(gathered, "after");
    };
    asyncio::run(main());
    EXPECT_EQ(with_default.get(), "none");
}

TEST(ContextVars, set_in_a_task_are_seen_by_nobody_else) {
    const auto main = []() -> Coro<> {
        const auto child = [](std::string mine) -> Coro<bool> {
            with_default.set(mine);
            for (int i = 0; i < 3; ++i) {
                co_await asyncio::sleep(0);
                if (with_default.get() != mine) co_return false;
            }
            auto future = asyncio::create_future();
            get_running_loop().call_soon([future] { future.set_result(); });
            co_await future;
            if (with_default.get() != mine) co_return false;
            co_await asyncio::sleep(1);
            co_return with_default.get() == mine;
        };
        const auto a = create_task(child("a"));
        const auto b = create_task(child("b"));
        with_default.set("main");
        const bool a_kept_its_own = co_await a;
        const bool b_kept_its_own = co_await b;
        EXPECT_TRUE(a_kept_its_own);
        EXPECT_TRUE(b_kept_its_own);
        EXPECT_EQ(with_default.get(), "main");
    };
    asyncio::testing::VirtualClock clock;
    asyncio::run(main(), asyncio::RunOptions().clock(clock));
}

Coro<> sets(std::string value) {
    with_default.set(std::move(value));
    co_return;
}

TEST(ContextVars, set_in_an_awaited_coroutine_stay_set) {
    const auto main = []() -> Coro<> {
        co_await sets("inner");
        EXPECT_EQ(with_default.get(), "inner");
        co_await create_task(sets("task"));
        EXPECT_EQ(with_default.get(), "inner");
    };
    asyncio::run(main());
}

TEST(ContextVars, are_inherited_by_callbacks_when_they_are_scheduled) {
    const auto main = []() -> Coro<> {
        std::vector<std::string> log;
        const auto note = [&log] {
            log.push_back(with_default.get());
            with_default.set("set by a callback");
        };
        with_default.set("soon");
        get_running_loop().call_soon(note);
        with_default.set("threadsafe");
        get_running_loop().call_soon_threadsafe(note);
        with_default.set("later");
        get_running_loop().call_later(0, note);
        with_default.set("done");
        auto future = asyncio::create_future();
        future.add_done_callback(note);
        with_default.set("main");
        future.set_result();
        future.add_done_callback(note);
        with_default.set("end");
        co_await asyncio::sleep(0);
        co_await asyncio::sleep(0);
        EXPECT_EQ(log, (std::vector<std::string>{"soon", "threadsafe", "done", "main", "later"}));
        EXPECT_EQ(with_default.get(), "end");
    };
    asyncio::run(main());
}

TEST(ContextVars, are_inherited_from_the_caller_of_run) {
    auto token = with_default.set("outside");
    const auto main = []() -> Coro<> {
        EXPECT_EQ(with_default.get(), "outside");
        with_default.set("inside");
        co_return;
    };
    asyncio::run(main());
    EXPECT_EQ(with_default.get(), "outside");
    asyncio::run(main);
    with_default.reset(token);
}

TEST(ContextVars, are_inherited_from_outside_by_what_is_scheduled_there) {
    const auto loop = asyncio::new_event_loop();
    std::vector<std::string> log;
    const auto note = [&log] { log.push_back(with_default.get()); };
    auto token = with_default.set("outside");
    loop->call_soon(note);
    loop->call_later(0, note);
    loop->call_soon_threadsafe(note);
    auto future = asyncio::create_future(*loop);
    future.add_done_callback(note);
    const auto task = create_task(*loop, get_it());
    with_default.reset(token);
    future.set_result();
    EXPECT_EQ(asyncio::run_until_complete(*loop, task), "outside");
    EXPECT_EQ(log, std::vector<std::string>(4, "outside"));
}

TEST(ContextVars, are_inherited_by_tasks_of_another_loop) {
    const auto other = asyncio::new_event_loop();
    asyncio::Task<std::string> task;
    const auto main = [](asyncio::EventLoop& loop, asyncio::Task<std::string>& made) -> Coro<> {
        with_default.set("first loop");
        made = create_task(loop, get_it());
        co_return;
    };
    asyncio::run(main(*other, task));
    EXPECT_EQ(asyncio::run_until_complete(*other, task), "first loop");
}

TEST(ContextVars, go_along_with_call_soon_threadsafe_from_a_thread) {
    const auto main = []() -> Coro<> {
        auto got = asyncio::create_future<std::string>();
        std::thread thread([&got, &loop = get_running_loop()] {
            EXPECT_EQ(with_default.get(), "none"); // a thread begins with nothing
            with_default.set("thread");
            loop.call_soon_threadsafe([&got] { got.set_result(with_default.get()); });
        });
        with_default.set("main");
        thread.join();
        const std::string value = co_await got;
        EXPECT_EQ(value, "thread");
    };
    asyncio::run(main());
}

TEST(ContextVars, live_no_longer_than_the_contexts_that_hold_them) {
    ContextVar<std::shared_ptr<int>> shared("shared");
    std::weak_ptr<int> watch;
    const auto main = [](ContextVar<std::shared_ptr<int>>& variable,
                         std::weak_ptr<int>& weak) -> Coro<> {
        auto value = std::make_shared<int>(1);
        weak = value;
        variable.set(std::move(value));
        const auto child = create_task(asyncio::detail::await_it(asyncio::sleep(0)));
        co_await child;
        EXPECT_FALSE(weak.expired());
    };
    asyncio::run(main(shared, watch));
    EXPECT_TRUE(watch.expired());
}

} // namespace
