// SPDX-License-Identifier: MIT
// Eager tasks and task factories. The orders were taken from CPython.
#include <asyncio/asyncio.hpp>
#include <asyncio/testing/virtual_time.hpp>

#include "support/in_virtual_time.hpp"
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

TEST(EagerTasks, can_set_what_their_maker_waits_for_and_be_cancelled_too_late) {
    const auto main = []() -> Coro<> {
        auto future = asyncio::create_future<std::string>();
        const auto set = [&]() -> Coro<> {
            future.set_result("set");
            co_return;
        };
        auto task = create_task(eagerly(), set());
        EXPECT_TRUE(task.done());
        const std::string text = co_await future;
        EXPECT_EQ(text, "set");
        auto quick = create_task(eagerly(), at_once(1));
        EXPECT_FALSE(quick.cancel());
        const int one = co_await quick;
        EXPECT_EQ(one, 1);
        EXPECT_FALSE(quick.cancelled());
        const auto waits = []() -> Coro<> { co_await asyncio::sleep(1000); };
        auto slow = create_task(eagerly(), waits());
        EXPECT_TRUE(slow.cancel("a message"));
        EXPECT_EQ(slow.cancelling(), 1U);
        const auto result = co_await asyncio::as_result(slow);
        EXPECT_EQ(asyncio_test::text_of(result.exception()), "CancelledError: a message");
    };
    asyncio::run(main());
}

TEST(EagerTasks, are_among_all_tasks_while_they_are_not_done) {
    const auto main = []() -> Coro<> {
        const auto has = [](const AnyTask& task) {
            const auto all = asyncio::all_tasks();
            return std::find(all.begin(), all.end(), task) != all.end();
        };
        bool seen = false;
        const auto looks = [&](asyncio::Future<>* until) -> Coro<> {
            seen = has(asyncio::current_task());
            if (until != nullptr) co_await *until;
        };
        auto quick = create_task(eagerly(), looks(nullptr));
        EXPECT_TRUE(seen);
        EXPECT_FALSE(has(quick));
        seen = false;
        auto future = asyncio::create_future();
        auto slow = create_task(eagerly(), looks(&future));
        EXPECT_TRUE(seen);
        EXPECT_TRUE(has(slow));
        future.set_result();
        co_await slow;
        EXPECT_FALSE(has(slow));
    };
    asyncio::run(main());
}

namespace {

Coro<int> chain(int depth) {
    if (depth == 0) co_return 0;
    const int below = co_await chain(depth - 1);
    co_return below + 1;
}
Coro<> groups_of_groups(int depth) {
    if (depth == 0) co_return;
    co_await asyncio::task_group([&](asyncio::TaskGroup& group) -> Coro<> {
        for (int i = 0; i < 5; ++i) group.create_task(groups_of_groups(depth - 1));
        co_return;
    });
}
Coro<> gathers_of_gathers(int depth) {
    if (depth == 0) co_return;
    std::vector<Coro<>> children;
    for (int i = 0; i < 5; ++i) children.push_back(gathers_of_gathers(depth - 1));
    co_await asyncio::gather(children);
}

} // namespace

TEST(TaskFactories, are_asked_for_each_task_and_for_no_coroutine_that_is_awaited) {
    for (const bool eager : {false, true}) {
        const auto loop = asyncio::new_event_loop();
        int made = 0;
        int done_at_once = 0;
        asyncio::set_task_factory(*loop, [&](EventLoop& its, NewTask& task, TaskOptions options) {
            ++made;
            AnyTask result = eager ? asyncio::eager_task_factory(its, task, std::move(options))
                                   : task(std::move(options));
            done_at_once += result.done();
            return result;
        });
        EXPECT_EQ(asyncio::run_until_complete(*loop, chain(100)), 100);
        EXPECT_EQ(made, 1);
        for (Coro<> (*program)(int) : {&groups_of_groups, &gathers_of_gathers}) {
            made = 0;
            done_at_once = 0;
            asyncio::run_until_complete(*loop, program(4));
            EXPECT_EQ(made, 1 + 5 + 25 + 125 + 625);
            // The first one, before the loop runs, is none of them; the leaves of a group are.
            if (!eager) {
                EXPECT_EQ(done_at_once, 0);
            } else if (program == &groups_of_groups) {
                EXPECT_EQ(done_at_once, 625);
            } else {
                EXPECT_EQ(done_at_once, made - 1);
            }
        }
    }
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
