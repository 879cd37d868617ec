// SPDX-License-Identifier: MIT
#include <asyncio/asyncio.hpp>
#include <asyncio/testing/virtual_time.hpp>

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

using asyncio::ContextVar;
using asyncio::Coro;
using asyncio::create_task;
using asyncio::get_running_loop;
using namespace std::chrono_literals;

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

TEST(ContextVars, of_many_tasks_are_not_mixed) {
    asyncio::testing::VirtualClock clock;
    const auto sets = [](int number) -> Coro<> {
        for (int i = 0; i < 10; ++i) {
            without_default.set(number + i);
            co_await asyncio::sleep((number * 7 + i * 3) % 5); // they take turns
            EXPECT_EQ(without_default.get(), number + i);
        }
    };
    const auto main = [&]() -> Coro<> {
        std::vector<Coro<>> many;
        for (int i = 0; i < 100; ++i) many.push_back(sets(i % 10));
        co_await asyncio::gather(many);
        // Nor with those of the callbacks of what a task waits for.
        for (int i = 0; i < 2; ++i) {
            auto future = asyncio::create_future();
            future.add_done_callback([] { without_default.set(1000); });
            without_default.set(i);
            get_running_loop().call_soon([&] { future.set_result(); });
            co_await future;
            EXPECT_EQ(without_default.get(), i);
            co_await asyncio::sleep(1);
            EXPECT_EQ(without_default.get(), i);
        }
    };
    asyncio::run(main(), asyncio::RunOptions().clock(clock));
    EXPECT_EQ(without_default.get(-1), -1);
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

// --- Context ---

TEST(Contexts, hold_what_was_set_when_they_were_copied) {
    const auto main = []() -> Coro<> {
        with_default.set("before");
        const asyncio::Context copied = asyncio::copy_context();
        with_default.set("after");
        EXPECT_EQ(copied[with_default], "before");
        EXPECT_EQ(copied.get(with_default), "before");
        EXPECT_TRUE(copied.contains(with_default));
        EXPECT_FALSE(copied.contains(without_default));
        EXPECT_EQ(copied.get(without_default), std::nullopt);
        EXPECT_EQ(copied.get(without_default, 7), 7);
        EXPECT_THROW(static_cast<void>(copied[without_default]), asyncio::LookupError);
        EXPECT_EQ(copied.size(), 1U);
        const asyncio::Context empty;
        EXPECT_EQ(empty.size(), 0U);
        EXPECT_EQ(empty.get(with_default), std::nullopt) << "a default is no value of a context";
        co_return;
    };
    asyncio::Context().run([&] { asyncio::run(main()); });
}

TEST(Contexts, keep_what_is_set_while_they_run) {
    const asyncio::Context context;
    const auto set = [](const std::string& text) {
        with_default.set(text);
        return text.size();
    };
    EXPECT_EQ(context.run(set, "inside"), 6U);
    EXPECT_EQ(with_default.get(), "none");
    EXPECT_EQ(context[with_default], "inside");
    EXPECT_EQ(context.run([] { return with_default.get(); }), "inside");
    const asyncio::Context other = context.copy();
    EXPECT_FALSE(other == context);
    other.run(set, "other");
    EXPECT_EQ(context[with_default], "inside");
    EXPECT_EQ(other[with_default], "other");
    int number = 0;
    int& same = context.run([&]() -> int& { return number; });
    EXPECT_EQ(&same, &number);
}

TEST(Contexts, are_left_by_an_exception) {
    const asyncio::Context context;
    EXPECT_THROW(context.run([] {
        with_default.set("inside");
        throw 42;
    }),
                 int);
    EXPECT_EQ(with_default.get(), "none");
    EXPECT_EQ(context[with_default], "inside");
}

TEST(Contexts, are_not_entered_twice) {
    const asyncio::Context one;
    const asyncio::Context two;
    one.run([&] {
        EXPECT_THROW(one.run([] {}), asyncio::RuntimeError);
        two.run([&] {
            EXPECT_THROW(one.run([] {}), asyncio::RuntimeError);
            EXPECT_THROW(two.run([] {}), asyncio::RuntimeError);
        });
        two.run([] {});
        EXPECT_THROW(one.run([] {}), asyncio::RuntimeError);
    });
    one.run([] {});
    const auto main = [&]() -> Coro<> {
        const auto child = [&]() -> Coro<> {
            EXPECT_THROW(one.run([] {}), asyncio::RuntimeError);
            two.run([&] { EXPECT_THROW(one.run([] {}), asyncio::RuntimeError); });
            co_await asyncio::sleep(0);
        };
        auto task = create_task(asyncio::TaskOptions().context(one), child());
        co_await asyncio::sleep(0);
        one.run([] {}); // the task waits, and is not in it
        co_await task;
    };
    asyncio::run(main());
}

TEST(Contexts, are_shared_by_the_tasks_and_callbacks_that_are_given_them) {
    const auto main = []() -> Coro<> {
        const asyncio::Context shared = asyncio::copy_context();
        const auto child = [](std::string text) -> Coro<std::string> {
            std::string before = with_default.get();
            with_default.set(text);
            co_await asyncio::sleep(0);
            co_return before + " " + with_default.get();
        };
        auto first = create_task(asyncio::TaskOptions().context(shared), child("first"));
        auto second = create_task(asyncio::TaskOptions().context(shared), child("second"));
        EXPECT_TRUE(first.get_context() == shared);
        EXPECT_EQ(co_await first, "none second");
        EXPECT_EQ(co_await second, "first second");
        EXPECT_EQ(shared[with_default], "second");
        EXPECT_EQ(with_default.get(), "none");
        auto bound = create_task(asyncio::TaskOptions().context(shared), get_it);
        EXPECT_EQ(co_await bound, "second");

        asyncio::EventLoop& loop = get_running_loop();
        std::vector<std::string> seen;
        const auto look = [&seen](std::string next) {
            seen.push_back(with_default.get());
            with_default.set(std::move(next));
        };
        loop.call_soon(shared, look, "a");
        loop.call_later(std::chrono::seconds(0), shared, look, "b");
        loop.call_at(loop.time(), shared, look, "c");
        loop.call_soon_threadsafe(shared, look, "d");
        auto future = asyncio::create_future(loop);
        future.add_done_callback(shared, [&] { look("e"); });
        first.add_done_callback(shared, [&](const asyncio::Task<std::string>&) { look("f"); });
        asyncio::AnyFuture(future).add_done_callback(shared, [&] { look("g"); });
        loop.call_soon(shared, [&] { look("h"); });
        future.set_result();
        co_await asyncio::sleep(std::chrono::milliseconds(1));
        EXPECT_EQ(seen.size(), 8U);
        EXPECT_EQ(seen[0], "second");
        EXPECT_EQ(seen[1], "a");
        EXPECT_EQ(seen[2], "d");
        EXPECT_EQ(with_default.get(), "none");
        EXPECT_NE(shared[with_default], "second");
    };
    asyncio::testing::VirtualClock clock;
    asyncio::run(main(), asyncio::RunOptions().clock(clock));
}

TEST(Contexts, of_children_are_copies_also_in_a_shared_one) {
    const auto main = []() -> Coro<> {
        const asyncio::Context shared = asyncio::copy_context();
        const auto grandchild = []() -> Coro<> {
            with_default.set("grandchild");
            co_return;
        };
        const auto child = [&]() -> Coro<> {
            with_default.set("child");
            co_await create_task(grandchild());
            EXPECT_EQ(with_default.get(), "child");
        };
        co_await create_task(asyncio::TaskOptions().context(shared), child());
        EXPECT_EQ(shared[with_default], "child");
    };
    asyncio::run(main());
}

TEST(Contexts, of_a_task_show_what_it_sets) {
    const auto main = []() -> Coro<> {
        auto token = with_default.set("one");
        const asyncio::Context mine = asyncio::current_task().get_context();
        EXPECT_TRUE(mine == asyncio::current_task().get_context());
        EXPECT_EQ(mine[with_default], "one");
        with_default.set("two");
        EXPECT_EQ(mine[with_default], "two");
        EXPECT_THROW(mine.run([] {}), asyncio::RuntimeError) << "this task runs in it";
        co_await asyncio::sleep(0);
        EXPECT_EQ(with_default.get(), "two");
        with_default.reset(token); // set in this context, before it had a name
        EXPECT_FALSE(mine.contains(with_default));

        // One that is done has let go of its context.
        auto task = create_task(get_it());
        const asyncio::Context its = task.get_context();
        co_await task;
        EXPECT_EQ(its.size(), 0U);
        EXPECT_THROW(task.get_context(), asyncio::InvalidStateError);

        // Another context that is entered is not the task's.
        const asyncio::Context other;
        other.run([&] { EXPECT_TRUE(asyncio::current_task().get_context() == mine); });
        const asyncio::AnyTask me = asyncio::current_task();
        const auto child = [&]() -> Coro<> {
            EXPECT_TRUE(me.get_context() == mine);
            co_return;
        };
        other.run([&] { create_task(asyncio::TaskOptions().eager_start(true), child()); });
        EXPECT_TRUE(me.get_context() == mine);
    };
    asyncio::Context().run([&] { asyncio::run(main()); });
}

TEST(Contexts, outlive_loops_and_threads) {
    const asyncio::Context context;
    std::thread([&] { context.run([] { with_default.set("thread"); }); }).join();
    EXPECT_EQ(context[with_default], "thread");
    context.run([] {
        const auto main = []() -> Coro<> {
            EXPECT_EQ(with_default.get(), "thread");
            with_default.set("main");
            co_return;
        };
        asyncio::run(main());
    });
    EXPECT_EQ(context[with_default], "thread");
}

TEST(Contexts, of_tasks_do_not_keep_the_tasks_alive) {
    struct Session {
        asyncio::Task<> worker;
    };
    ContextVar<std::shared_ptr<Session>> session("session", nullptr);
    ContextVar<asyncio::AnyTask> itself("itself");
    std::weak_ptr<Session> watched;
    const auto main = [&]() -> Coro<> {
        itself.set(asyncio::current_task());
        auto made = std::make_shared<Session>();
        watched = made;
        session.set(made);
        const auto body = [&]() -> Coro<> {
            itself.set(asyncio::current_task());
            co_await asyncio::sleep(0);
        };
        made->worker = create_task(body());
        co_await made->worker;
    };
    asyncio::Context().run([&] { asyncio::run(main()); });
    EXPECT_TRUE(watched.expired());
}

TEST(Contexts, of_tasks_are_those_in_which_they_are_reported) {
    std::vector<std::string> seen;
    const auto failing = [](std::string name) -> Coro<> {
        with_default.set(std::move(name));
        throw 1;
        co_return;
    };
    const auto cancelled = []() -> Coro<> {
        with_default.set("at shutdown");
        try {
            co_await asyncio::sleep(1h);
        } catch (const asyncio::CancelledError&) {
        }
        throw 2;
    };
    const auto main = [&]() -> Coro<> {
        get_running_loop().set_exception_handler(
            [&](asyncio::EventLoop&, const asyncio::ExceptionContext&) {
                seen.push_back(with_default.get());
                with_default.set("the handler's");
            });
        create_task(failing("never retrieved"));
        co_await asyncio::sleep(0);
        co_await asyncio::sleep(0);
        create_task(failing("another"));
        create_task(cancelled());
        get_running_loop().call_soon([] {
            with_default.set("callback");
            throw 3;
        });
        co_await asyncio::sleep(0);
        co_await asyncio::sleep(0);
        EXPECT_EQ(with_default.get(), "none");
    };
    asyncio::Context().run([&] { asyncio::run(main()); });
    EXPECT_EQ(seen,
              (std::vector<std::string>{"never retrieved", "another", "callback", "at shutdown"}));
}

// --- Tokens ---

TEST(Tokens, tell_what_was_before) {
    ContextVar<int> var("var");
    auto first = var.set(1);
    auto second = var.set(2);
    EXPECT_EQ(&second.var(), &var);
    EXPECT_EQ(first.old_value(), std::nullopt);
    EXPECT_EQ(second.old_value(), 1);
    var.reset(first);
    EXPECT_EQ(var.get(0), 0) << "what was before the first set, whatever came between";
    var.reset(second);
    EXPECT_EQ(var.get(), 1);
}

TEST(Tokens, are_used_once_also_if_moved) {
    ContextVar<int> var("var");
    auto token = var.set(1);
    auto moved = std::move(token);
    EXPECT_THROW(var.reset(token), asyncio::RuntimeError); // NOLINT(bugprone-use-after-move)
    var.reset(moved);
    EXPECT_THROW(var.reset(moved), asyncio::RuntimeError);
}

TEST(Tokens, are_refused_in_other_contexts) {
    const auto main = []() -> Coro<> {
        auto token = with_default.set("main");
        const auto child = [&]() -> Coro<> {
            EXPECT_THROW(with_default.reset(token), asyncio::ValueError);
            EXPECT_EQ(with_default.get(), "main");
            co_return;
        };
        co_await create_task(child());
        const auto done = asyncio::create_future();
        get_running_loop().call_soon([&] {
            EXPECT_THROW(with_default.reset(token), asyncio::ValueError);
            done.set_result();
        });
        co_await done;
        const asyncio::Context context = asyncio::copy_context();
        context.run([&] { EXPECT_THROW(with_default.reset(token), asyncio::ValueError); });
        std::optional<ContextVar<std::string>::Token> inside;
        context.run([&] { inside.emplace(with_default.set("context")); });
        EXPECT_THROW(with_default.reset(*inside), asyncio::ValueError);
        context.run([&] { with_default.reset(*inside); });
        EXPECT_EQ(context[with_default], "main");
        const auto await_it = [&]() -> Coro<> { // the same task, so the same context
            co_await asyncio::sleep(0);
            with_default.reset(token);
        };
        co_await await_it();
        EXPECT_EQ(with_default.get(), "none");
    };
    asyncio::run(main());
}

TEST(Tokens, are_refused_by_a_task_that_took_the_place_of_another) {
    const auto main = []() -> Coro<> {
        std::optional<ContextVar<std::string>::Token> token;
        const auto set = [&]() -> Coro<> {
            token.emplace(with_default.set("child"));
            co_return;
        };
        const auto reset = [&]() -> Coro<> {
            EXPECT_THROW(with_default.reset(*token), asyncio::ValueError);
            co_return;
        };
        co_await create_task(set());
        for (int i = 0; i < 10; ++i) co_await create_task(reset());
    };
    asyncio::run(main());
}

TEST(Tokens, of_a_repeated_callback_are_good_in_its_next_call) {
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    const auto loop = asyncio::new_event_loop();
    std::optional<ContextVar<std::string>::Token> token;
    int calls = 0;
    loop->add_writer(ends[1], [&] {
        if (++calls == 1) {
            token.emplace(with_default.set("first"));
        } else {
            EXPECT_EQ(with_default.get(), "first") << "its context lives as long as it does";
            with_default.reset(*token);
            EXPECT_EQ(with_default.get(), "none");
            loop->remove_writer(ends[1]);
            loop->stop();
        }
    });
    loop->run_forever();
    EXPECT_EQ(calls, 2);
    close(ends[0]);
    close(ends[1]);
}

TEST(Tokens, of_a_scope_reset_at_its_end) {
    {
        const auto scoped = with_default.scoped("inside");
        EXPECT_EQ(with_default.get(), "inside");
    }
    EXPECT_EQ(with_default.get(), "none");
    // A frame that is destroyed while it is suspended is destroyed elsewhere: nothing to reset.
    const auto forever = []() -> Coro<> {
        const auto scoped = with_default.scoped("inside");
        co_await asyncio::create_future();
    };
    const auto loop = asyncio::new_event_loop();
    loop->set_exception_handler([](asyncio::EventLoop&, const asyncio::ExceptionContext&) {});
    create_task(*loop, forever());
    loop->call_soon([&] { loop->stop(); });
    loop->run_forever();
    const auto outside = with_default.scoped("outside");
    loop->close();
    EXPECT_EQ(with_default.get(), "outside");
}

} // namespace
