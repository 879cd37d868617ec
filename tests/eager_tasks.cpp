// SPDX-License-Identifier: MIT
// Eager tasks and task factories. The orders were taken from CPython.
#include <asyncio/asyncio.hpp>
#include <asyncio/testing/virtual_time.hpp>

#include "support/reports.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

using asyncio::AnyTask;
using asyncio::Coro;
using asyncio::create_task;
using asyncio::EventLoop;
using asyncio::get_running_loop;
using asyncio::NewTask;
using asyncio::TaskFactory;
using asyncio::TaskOptions;

namespace {

using Log = std::vector<std::string>;

TaskOptions eagerly() { return TaskOptions().eager_start(true); }

Coro<int> at_once(int value) { co_return value; }
Coro<> steps(Log& log, std::string name, int count) {
    for (int i = 0; i < count; ++i) {
        log.push_back(name + std::to_string(i));
        co_await asyncio::sleep(0);
    }
    log.push_back(name + " ends");
}

TEST(EagerTasks, that_never_wait_are_done_at_once) {
    const auto main = []() -> Coro<> {
        auto task = create_task(eagerly(), at_once(42));
        EXPECT_TRUE(task.done());
        EXPECT_EQ(task.result(), 42);
        EXPECT_EQ(co_await task, 42);
        EXPECT_EQ(asyncio::all_tasks().size(), 1U);
        EXPECT_FALSE(task.cancel());
    };
    asyncio::run(main());
}

TEST(EagerTasks, take_their_first_step_inside_create_task) {
    Log log;
    const auto main = [&]() -> Coro<> {
        auto lazy = create_task(steps(log, "lazy", 2));
        log.emplace_back("create");
        auto task = create_task(eagerly(), steps(log, "eager", 2));
        log.emplace_back("created");
        EXPECT_FALSE(task.done());
        co_await asyncio::sleep(0);
        log.emplace_back("main");
        co_await task;
        co_await lazy;
    };
    asyncio::run(main());
    EXPECT_EQ(log, (Log{"create", "eager0", "created", "lazy0", "eager1", "main", "lazy1",
                        "eager ends", "lazy ends"}));
}

TEST(EagerTasks, are_the_current_task_while_they_step) {
    const auto main = []() -> Coro<> {
        const AnyTask me = asyncio::current_task();
        AnyTask seen;
        std::size_t count = 0;
        const auto child = [&]() -> Coro<> {
            const AnyTask child_task = asyncio::current_task();
            seen = child_task;
            count = asyncio::all_tasks().size();
            co_await asyncio::sleep(0);
            EXPECT_TRUE(asyncio::current_task() == child_task);
        };
        auto task = create_task(eagerly(), child());
        EXPECT_TRUE(seen == AnyTask(task));
        EXPECT_EQ(count, 2U);
        EXPECT_TRUE(asyncio::current_task() == me);
        const auto parent = [&]() -> Coro<> {
            const AnyTask before = asyncio::current_task();
            auto inner = create_task(eagerly(), child());
            EXPECT_TRUE(asyncio::current_task() == before);
            co_await inner;
        };
        co_await create_task(eagerly(), parent());
        co_await task;
    };
    asyncio::run(main());
}

TEST(EagerTasks, have_a_context_of_their_own) {
    asyncio::ContextVar<std::string> var("var", "none");
    const auto main = [&]() -> Coro<> {
        var.set("main");
        const auto child = [&]() -> Coro<> {
            EXPECT_EQ(var.get(), "main");
            var.set("child");
            EXPECT_EQ(asyncio::current_task().get_context()[var], "child");
            co_await asyncio::sleep(0);
            EXPECT_EQ(var.get(), "child");
        };
        auto task = create_task(eagerly(), child());
        EXPECT_EQ(var.get(), "main");
        EXPECT_EQ(asyncio::current_task().get_context()[var], "main");
        EXPECT_EQ(task.get_context()[var], "child");
        co_await task;
        EXPECT_EQ(var.get(), "main");

        const asyncio::Context context = asyncio::copy_context();
        auto in_it = create_task(eagerly().context(context), child());
        EXPECT_EQ(context[var], "child");
        co_await in_it;
        // What runs now is in this context already, and then the body never runs.
        const asyncio::Context mine = asyncio::current_task().get_context();
        bool ran = false;
        const auto refused = [&]() -> Coro<> {
            ran = true;
            co_return;
        };
        EXPECT_THROW(create_task(eagerly().context(mine), refused()), asyncio::RuntimeError);
        co_await asyncio::sleep(0);
        co_await asyncio::sleep(0);
        EXPECT_FALSE(ran);
        EXPECT_EQ(asyncio::all_tasks().size(), 1U);
        const auto nested = [&]() -> Coro<> {
            EXPECT_THROW(static_cast<void>(create_task(eagerly().context(mine), at_once(1))),
                         asyncio::RuntimeError);
            EXPECT_THROW(mine.run([] {}), asyncio::RuntimeError);
            co_return;
        };
        co_await create_task(eagerly(), nested());
        mine.copy().run([] {});
    };
    asyncio::run(main());
}

TEST(EagerTasks, fail_and_are_cancelled_as_others_are) {
    const auto main = []() -> Coro<> {
        const auto failing = []() -> Coro<> {
            throw std::runtime_error("at once");
            co_return;
        };
        auto failed = create_task(eagerly(), failing());
        EXPECT_TRUE(failed.done());
        const auto result = co_await asyncio::as_result(failed);
        EXPECT_FALSE(result.has_value());

        const auto cancelling = []() -> Coro<> {
            asyncio::current_task().cancel("itself");
            co_await asyncio::sleep(0);
        };
        auto cancelled = create_task(eagerly(), cancelling());
        EXPECT_FALSE(cancelled.done());
        const auto ended = co_await asyncio::as_result(cancelled);
        EXPECT_FALSE(ended.has_value());
        EXPECT_TRUE(cancelled.cancelled());

        // One that asks for its own cancel and never waits is cancelled all the same.
        const auto too_late = []() -> Coro<int> {
            asyncio::current_task().cancel();
            co_return 1;
        };
        auto lost = create_task(eagerly(), too_late());
        EXPECT_TRUE(lost.cancelled());
        Log log;
        auto waiting = create_task(eagerly(), steps(log, "step", 3));
        waiting.cancel();
        const auto waited = co_await asyncio::as_result(waiting);
        EXPECT_TRUE(waiting.cancelled());
        EXPECT_EQ(log, Log{"step0"});
    };
    asyncio::run(main());
}

TEST(EagerTasks, let_a_keyboard_interrupt_out_of_create_task) {
    const auto interrupting = []() -> Coro<> {
        throw asyncio::KeyboardInterrupt();
        co_return;
    };
    bool seen = false;
    const auto main = [&]() -> Coro<> {
        const AnyTask me = asyncio::current_task();
        get_running_loop().set_exception_handler(
            [](EventLoop&, const asyncio::ExceptionContext&) {}); // never retrieved
        try {
            create_task(eagerly(), interrupting());
        } catch (const asyncio::KeyboardInterrupt&) {
            seen = true;
        }
        EXPECT_TRUE(asyncio::current_task() == me);
        co_return;
    };
    asyncio::run(main());
    EXPECT_TRUE(seen);
}

TEST(EagerTasks, start_as_usual_where_their_loop_does_not_run) {
    const auto loop = asyncio::new_event_loop();
    auto task = create_task(*loop, eagerly().name("later"), at_once(1));
    EXPECT_FALSE(task.done());
    EXPECT_EQ(task.get_name(), "later");
    EXPECT_EQ(asyncio::run_until_complete(*loop, task), 1);
    const auto main = [&]() -> Coro<int> {
        auto other = create_task(*loop, eagerly(), at_once(2));
        EXPECT_FALSE(other.done());
        co_return 0;
    };
    asyncio::run(main());
    while (!asyncio::all_tasks(*loop).empty()) {
        loop->stop();
        loop->run_forever();
    }
}

TEST(EagerTasks, start_in_callbacks_too) {
    const auto main = []() -> Coro<> {
        asyncio::ContextVar<int> var("var", 0);
        const auto done = asyncio::create_future<int>();
        const auto child = [&]() -> Coro<int> {
            EXPECT_TRUE(asyncio::current_task().valid());
            EXPECT_EQ(var.get(), 1);
            var.set(2);
            co_return 3;
        };
        get_running_loop().call_soon([&] {
            var.set(1);
            auto task = create_task(eagerly(), child());
            EXPECT_EQ(var.get(), 1);
            EXPECT_FALSE(asyncio::current_task().valid());
            done.set_result(task.result());
        });
        EXPECT_EQ(co_await done, 3);
    };
    asyncio::run(main());
}

TEST(EagerTasks, keep_their_callable_until_they_end) {
    const auto main = []() -> Coro<> {
        int value = 7;
        auto body = [&value, text = std::string(100, 'x')]() -> Coro<std::size_t> {
            co_await asyncio::sleep(0);
            co_return text.size() + static_cast<std::size_t>(value);
        };
        auto task = create_task(eagerly(), asyncio::moved(body));
        EXPECT_EQ(co_await task, 107U);
        EXPECT_EQ(co_await create_task(get_running_loop(), eagerly(), at_once, 5), 5);
    };
    asyncio::run(main());
}

TEST(TaskFactories, make_the_tasks_of_a_loop) {
    const auto main = []() -> Coro<> {
        EventLoop& loop = get_running_loop();
        EXPECT_FALSE(asyncio::get_task_factory(loop));
        Log made;
        asyncio::set_task_factory(loop, [&](EventLoop& its, NewTask& task, TaskOptions options) {
            EXPECT_EQ(&its, &loop);
            options.name("made-" + options.name());
            AnyTask result = task(std::move(options));
            made.push_back(result.get_name());
            return result;
        });
        EXPECT_TRUE(asyncio::get_task_factory(loop));
        EXPECT_EQ(co_await create_task(TaskOptions().name("one"), at_once(1)), 1);
        EXPECT_EQ(co_await create_task(at_once, 2), 2);
        auto both = co_await asyncio::gather(at_once(3), at_once(4));
        EXPECT_EQ(std::get<1>(both), 4);
        EXPECT_EQ(made, (Log{"made-one", "made-", "made-", "made-"}));
        asyncio::set_task_factory(loop, nullptr);
        co_await create_task(at_once(5));
        EXPECT_EQ(made.size(), 4U);
    };
    asyncio::run(main());
}

TEST(TaskFactories, can_be_eager) {
    const auto main = []() -> Coro<> {
        EventLoop& loop = get_running_loop();
        asyncio::set_task_factory(loop, asyncio::eager_task_factory);
        EXPECT_TRUE(create_task(at_once(1)).done());
        EXPECT_TRUE(create_task(at_once, 1).done());
        auto lazy = create_task(TaskOptions().eager_start(false), at_once(1));
        EXPECT_FALSE(lazy.done());
        co_await lazy;
        // All are done on the spot, so that gather has nothing to wait for.
        const auto all = asyncio::gather(at_once(1), at_once(2));
        EXPECT_TRUE(all.done());
        asyncio::set_task_factory(loop, asyncio::get_task_factory(loop));
        EXPECT_TRUE(create_task(at_once(1)).done());
    };
    asyncio::run(main());
}

TEST(TaskFactories, that_fail_close_the_coroutine) {
    asyncio_test::Reports reports;
    const auto main = [&]() -> Coro<> {
        EventLoop& loop = get_running_loop();
        reports.watch(loop);
        asyncio::set_task_factory(loop, [](EventLoop&, NewTask&, TaskOptions) -> AnyTask {
            throw std::runtime_error("no tasks today");
        });
        EXPECT_THROW(static_cast<void>(create_task(at_once(1))), std::runtime_error);
        EXPECT_THROW(static_cast<void>(create_task(at_once, 1)), std::runtime_error);
        asyncio::set_task_factory(
            loop, [](EventLoop&, NewTask&, TaskOptions) { return asyncio::current_task(); });
        EXPECT_THROW(static_cast<void>(create_task(at_once(1))), asyncio::RuntimeError);
        asyncio::set_task_factory(loop, [](EventLoop&, NewTask& task, TaskOptions) {
            task();
            return task();
        });
        EXPECT_THROW(static_cast<void>(create_task(at_once(1))), asyncio::RuntimeError);
        asyncio::set_task_factory(loop, nullptr);
        EXPECT_EQ(co_await create_task(at_once(1)), 1);
    };
    asyncio::run(main());
    EXPECT_EQ(reports.count(), 0U) << reports.text();
}

TEST(TaskFactories, and_functions_that_close_the_loop_leave_nothing_behind) {
    auto loop = asyncio::new_event_loop();
    const auto closing = [&loop]() -> Coro<int> {
        loop->close();
        return at_once(1);
    };
    EXPECT_THROW(create_task(*loop, closing), asyncio::RuntimeError);
    loop = asyncio::new_event_loop();
    asyncio::set_task_factory(*loop, [made = std::vector<AnyTask>()](EventLoop&, NewTask& task,
                                                                     TaskOptions options) mutable {
        made.push_back(task(std::move(options)));
        return made.back();
    });
    EXPECT_EQ(asyncio::run_until_complete(*loop, at_once(2)), 2);
    EXPECT_THROW(create_task(*loop, closing), asyncio::RuntimeError);
    // The factory held a task, which held the loop: leak checkers see whether it still does.
}

TEST(TaskFactories, may_replace_themselves) {
    const auto main = []() -> Coro<> {
        EventLoop& loop = get_running_loop();
        std::string text(100, 'x');
        asyncio::set_task_factory(loop, [text](EventLoop& its, NewTask& task, TaskOptions options) {
            asyncio::set_task_factory(its, nullptr);
            options.name(text);
            return task(std::move(options));
        });
        EXPECT_EQ(create_task(at_once(1)).get_name(), text);
        EXPECT_NE(create_task(at_once(1)).get_name(), text);
        co_await asyncio::sleep(0);
    };
    asyncio::run(main());
}

} // namespace
