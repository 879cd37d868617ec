// SPDX-License-Identifier: MIT
// Nothing here is cancelled at every await: capturing a graph is no await, and changes nothing.
#include <asyncio/asyncio.hpp>

#include "support/in_virtual_time.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <tuple>
#include <utility>
#include <vector>

using namespace std::chrono_literals;
using asyncio::AnyFuture;
using asyncio::CallGraphOptions;
using asyncio::capture_call_graph;
using asyncio::Coro;
using asyncio::create_future;
using asyncio::create_task;
using asyncio::format_call_graph;
using asyncio::FrameCallGraphEntry;
using asyncio::Future;
using asyncio::FutureCallGraph;
using asyncio::print_call_graph;
using asyncio::sleep;
using asyncio::Task;
using asyncio::TaskOptions;
using asyncio_test::in_virtual_time;
using asyncio_test::Reports;
using asyncio_test::thrown_by;

namespace {

TaskOptions named(const char* name) { return TaskOptions().name(name); }
Coro<> forever() { co_await create_future(); }
Coro<> wait_for_task(Task<> task) { co_await task; }
Coro<> turns(int count) {
    for (; count > 0; --count) co_await sleep(0);
}

// "child(a(main) b(main))": names of tasks, and who awaits each. Not for rings.
std::string awaiters(const FutureCallGraph& graph) {
    std::string text = graph.task().valid() ? graph.task().get_name() : "future";
    std::string by;
    for (const FutureCallGraph& one : graph.awaited_by()) {
        by += (by.empty() ? "" : " ") + awaiters(one);
    }
    return by.empty() ? text : text + "(" + by + ")";
}
std::string awaiters(const AnyFuture& future) { return awaiters(capture_call_graph(future)); }

// What differs from run to run, cut out: addresses, folders, numbers of tasks, and lines inside the
// library.
std::string readable(const std::string& text) {
    std::string result;
    for (std::size_t at = 0; at < text.size();) {
        if (text.compare(at, 5, "id=0x") == 0) {
            result += "id=.";
            at = text.find(')', at);
        } else if (text.compare(at, 5, "Task-") == 0) {
            result += "Task-.";
            at = text.find('\'', at);
        } else if (text.compare(at, 6, "File '") == 0) {
            const std::size_t end = text.find('\'', at + 6);
            const std::string path = text.substr(at + 6, end - at - 6);
            result += "File '" + path.substr(path.rfind('/') + 1) + "'";
            at = end + 1;
            if (!path.ends_with(".cpp")) {
                result += ", line .";
                at = text.find(", in", at);
            }
        } else {
            result += text[at++];
        }
    }
    return result;
}
// Runs the body as the task "main".
template <class Body> void in_main(Body body) {
    in_virtual_time([&body]() -> Coro<> {
        asyncio::current_task().set_name("main");
        co_await body();
    });
}

} // namespace

TEST(Graph, a_task_is_awaited_by_those_that_await_it_in_their_order) {
    in_main([]() -> Coro<> {
        auto child = create_task(named("child"), forever());
        auto a = create_task(named("a"), wait_for_task(child));
        auto b = create_task(named("b"), wait_for_task(child));
        EXPECT_EQ(awaiters(child), "child");
        co_await sleep(0);
        EXPECT_EQ(awaiters(child), "child(a b)");
        EXPECT_EQ(awaiters(a), "a");
        a.cancel(); // and with it child, and with that b
        co_await turns(3);
        EXPECT_EQ(awaiters(child), "child");
    });
}

TEST(Graph, the_children_of_a_gather_are_awaited_by_who_awaits_the_gather) {
    in_main([]() -> Coro<> {
        auto child = create_task(named("child"), forever());
        auto inner = asyncio::gather(child, child, create_task(forever()));
        EXPECT_EQ(awaiters(child), "child"); // nobody waits yet
        auto outer = asyncio::gather(asyncio::return_exceptions, inner, child);
        auto waiting = [&]() -> Coro<> { co_await outer; };
        auto a = create_task(named("a"), waiting);
        auto b = create_task(named("b"), waiting);
        co_await sleep(0);
        EXPECT_EQ(awaiters(child), "child(a b)");
        EXPECT_EQ(awaiters(inner), "future(a b)");
        EXPECT_EQ(awaiters(outer), "future(a b)");
        a.cancel();
        co_await turns(3);
    });
}

TEST(Graph, a_gather_that_has_failed_waits_no_more) {
    in_main([]() -> Coro<> {
        auto child = create_task(named("child"), forever());
        auto failing = []() -> Coro<> {
            co_await sleep(0);
            throw asyncio::ValueError("bad");
        };
        auto all = asyncio::gather(child, failing);
        auto waiting = [&]() -> Coro<> {
            const auto result = co_await asyncio::as_result(all);
            EXPECT_FALSE(result);
            co_await sleep(1s);
        };
        auto a = create_task(named("a"), waiting);
        co_await sleep(0);
        EXPECT_EQ(awaiters(child), "child(a)");
        co_await turns(4);
        EXPECT_EQ(awaiters(child), "child");
        co_await a;
    });
}

TEST(Graph, what_is_shielded_is_awaited_until_the_shield_is_cancelled) {
    in_main([]() -> Coro<> {
        auto child = create_task(named("child"), forever());
        auto shield = asyncio::shield(child);
        auto waiting = [&]() -> Coro<> { co_await shield; };
        auto a = create_task(named("a"), waiting);
        co_await sleep(0);
        EXPECT_EQ(awaiters(child), "child(a)");
        EXPECT_EQ(awaiters(shield), "future(a)");
        a.cancel();
        co_await turns(2);
        EXPECT_EQ(awaiters(child), "child");
    });
}

TEST(Graph, wait_awaits_all_that_are_not_done) {
    in_main([]() -> Coro<> {
        std::vector<Task<>> tasks;
        tasks.push_back(create_task(named("first"), turns(2)));
        tasks.push_back(create_task(named("second"), forever()));
        auto waiting = [&]() -> Coro<> { co_await asyncio::wait(tasks); };
        auto a = create_task(named("a"), waiting);
        co_await sleep(0);
        EXPECT_EQ(awaiters(tasks[0]), "first(a)");
        EXPECT_EQ(awaiters(tasks[1]), "second(a)");
        co_await tasks[0];
        EXPECT_EQ(awaiters(tasks[0]), "first");
        EXPECT_EQ(awaiters(tasks[1]), "second(a)");
        a.cancel();
        co_await sleep(0);
        EXPECT_EQ(awaiters(tasks[1]), "second");
    });
}

TEST(Graph, as_completed_awaits_what_is_left_while_next_is_awaited) {
    in_main([]() -> Coro<> {
        std::vector<Task<>> tasks;
        tasks.push_back(create_task(named("first"), turns(3)));
        tasks.push_back(create_task(named("second"), forever()));
        auto ended = asyncio::as_completed(tasks);
        EXPECT_EQ(awaiters(tasks[1]), "second");
        auto waiting = [&]() -> Coro<> { co_await ended.next(); };
        auto a = create_task(named("a"), waiting);
        auto b = create_task(named("b"), waiting);
        co_await sleep(0);
        EXPECT_EQ(awaiters(tasks[0]), "first(a b)");
        EXPECT_EQ(awaiters(tasks[1]), "second(a b)");
        co_await a;
        EXPECT_EQ(awaiters(tasks[1]), "second(b)");
        tasks[1].cancel();
        co_await b;
    });
}

TEST(Graph, a_task_group_awaits_its_tasks_from_the_beginning) {
    in_main([]() -> Coro<> {
        asyncio::TaskGroup group;
        Task<> child;
        auto body = [&](asyncio::TaskGroup& g) -> Coro<> {
            child = g.create_task(named("child"), turns(5));
            co_await turns(2);
        };
        auto running = [&]() -> Coro<> { co_await asyncio::task_group(group, body); };
        auto a = create_task(named("a"), running);
        co_await sleep(0);
        EXPECT_EQ(awaiters(child), "child(a)"); // the body stands elsewhere
        co_await turns(3);
        EXPECT_EQ(awaiters(child), "child(a)");
        co_await a;
        EXPECT_EQ(awaiters(child), "child");
    });
}

TEST(Graph, wait_for_awaits_also_what_it_has_cancelled) {
    in_main([]() -> Coro<> {
        auto child = create_task(named("child"), forever());
        auto waiting = [&]() -> Coro<> { co_await asyncio::wait_for(child, 1s); };
        auto a = create_task(named("a"), waiting);
        co_await sleep(0);
        EXPECT_EQ(awaiters(child), "child(a)");
        a.cancel();

        auto stubborn = []() -> Coro<> {
            const auto result = co_await asyncio::as_result(sleep(1s));
            EXPECT_FALSE(result);
            co_await turns(3);
        };
        auto slow = create_task(named("slow"), stubborn);
        co_await sleep(0);
        auto cancelling = [&]() -> Coro<> { co_await asyncio::wait_for(slow, 0s); };
        auto b = create_task(named("b"), cancelling);
        co_await turns(2);
        EXPECT_EQ(awaiters(slow), "slow(b)");
        co_await b;
    });
}

TEST(Graph, a_callback_awaits_nothing) {
    in_main([]() -> Coro<> {
        auto future = create_future();
        future.add_done_callback([] {});
        EXPECT_EQ(awaiters(future), "future");
        co_return;
    });
}

TEST(Graph, who_awaits_in_two_ways_counts_once) {
    in_main([]() -> Coro<> {
        Task<> child;
        auto body = [&](asyncio::TaskGroup& group) -> Coro<> {
            child = group.create_task(named("child"), turns(3));
            co_await asyncio::gather(child, asyncio::shield(child));
        };
        auto running = [&]() -> Coro<> { co_await asyncio::task_group(body); };
        auto a = create_task(named("a"), running);
        co_await turns(2);
        EXPECT_EQ(awaiters(child), "child(a)");
        co_await a;
    });
}

namespace {

std::string formatted;
void ask() { formatted = format_call_graph(); }

// clang-format off: the tests count these lines
constexpr unsigned top = __LINE__;
Coro<> settle() { formatted = format_call_graph(); co_return; }
Coro<> settle_later() { co_await sleep(0); ask(); }
Coro<> shop(Coro<> (*settling)()) { co_await settling(); }
Coro<> buy(Coro<> (*settling)()) { co_await create_task(named("shop"), shop(settling)); }
// clang-format on

std::string at_line(unsigned below_top) {
    return "|   File 'graph.cpp', line " + std::to_string(top + below_top) + ", in async ";
}

} // namespace

namespace {

// The sample of docs/debugging.md, word for word: tests/docs/samples compares them.
constexpr unsigned sample = __LINE__ + 1;

asyncio::Coro<int> price(std::string item) {
    if (item == "milk") asyncio::print_call_graph();
    co_return 10;
}
asyncio::Coro<int> pay() {
    auto prices = co_await asyncio::gather(price("tea"), price("milk"));
    co_return std::get<0>(prices) + std::get<1>(prices);
}
asyncio::Coro<> async_main() {
    auto body = [](asyncio::TaskGroup& group) -> asyncio::Coro<> {
        group.create_task(asyncio::TaskOptions().name("paying"), pay());
        co_return;
    };
    co_await asyncio::task_group(body);
}

} // namespace

TEST(Graph, looks_as_in_cpython_and_in_the_guide) {
    ::testing::internal::CaptureStdout();
    asyncio::run(async_main());
    const std::string text = readable(::testing::internal::GetCapturedStdout());
    const auto at = [](unsigned line, const char* function) {
        return "|   File 'graph.cpp', line " + std::to_string(sample + line) + ", in async " +
               function + "()\n";
    };
    const std::string expected =
        "* Task(name='Task-.', id=.)\n"
        "  + Call stack:\n"
        "  " +
        at(2, "price") +
        "  + Awaited by:\n"
        "    * Task(name='paying', id=.)\n"
        "      + Call stack:\n"
        "      " +
        at(6, "pay") +
        "      + Awaited by:\n"
        "        * Task(name='Task-.', id=.)\n"
        "          + Call stack:\n"
        "          |   File 'taskgroups.hpp', line ., in async asyncio::detail::run_task_group()\n"
        "          " +
        at(14, "async_main");
    EXPECT_EQ(text, expected);
}

TEST(Graph, of_coroutines_that_await_each_other) {
    in_virtual_time([]() -> Coro<> { co_await create_task(named("buyer"), buy(settle)); });
    EXPECT_TRUE(readable(formatted).starts_with("* Task(name='shop', id=.)\n"
                                                "  + Call stack:\n"
                                                "  " +
                                                at_line(1) + "settle()\n  " + at_line(3) +
                                                "shop()\n"
                                                "  + Awaited by:\n"
                                                "    * Task(name='buyer', id=.)\n"
                                                "      + Call stack:\n"
                                                "      " +
                                                at_line(4) +
                                                "buy()\n"
                                                "      + Awaited by:\n"
                                                "        * Task(name='Task-"))
        << formatted;
}

TEST(Graph, a_plain_function_asks_for_the_coroutine_that_calls_it) {
    in_virtual_time([]() -> Coro<> { co_await create_task(named("buyer"), buy(settle_later)); });
    const std::string line = "|   File 'graph.cpp', line " + std::to_string(top - 3) + ", in ask()";
    const std::string after = "|   File 'graph.cpp', after line " + std::to_string(top + 2) +
                              ", in async settle_later()\n";
    EXPECT_TRUE(readable(formatted).starts_with("* Task(name='shop', id=.)\n"
                                                "  + Call stack:\n"
                                                "  " +
                                                line + "\n  " + after + "  " + at_line(3) +
                                                "shop()\n"))
        << formatted;
}

TEST(Graph, a_future_is_no_task_and_has_no_call_stack) {
    in_main([]() -> Coro<> {
        auto future = create_future<int>();
        EXPECT_EQ(readable(format_call_graph(future)), "* Future(id=.)");
        auto a = create_task(named("a"), [](Future<int> f) -> Coro<> { co_await f; }, future);
        co_await sleep(0);
        EXPECT_TRUE(readable(format_call_graph(future))
                        .starts_with("* Future(id=.)\n"
                                     "  + Awaited by:\n"
                                     "    * Task(name='a', id=.)\n"
                                     "      + Call stack:\n"
                                     "      |   File 'graph.cpp', line "));
        future.set_result(1);
        co_await a;
    });
}

TEST(Graph, a_task_that_has_not_begun_stands_where_its_function_does) {
    in_main([]() -> Coro<> {
        auto task = create_task(named("shop"), shop(settle));
        EXPECT_EQ(readable(format_call_graph(task)), "* Task(name='shop', id=.)\n"
                                                     "  + Call stack:\n"
                                                     "  " +
                                                         at_line(3) + "shop()");
        co_await task;
        EXPECT_EQ(readable(format_call_graph(task)), "* Task(name='shop', id=.)");
    });
}

namespace {

std::vector<std::string> stack_of(const std::optional<FutureCallGraph>& graph) {
    std::vector<std::string> names;
    for (const FrameCallGraphEntry& entry : graph->call_stack()) names.push_back(entry.function());
    return names;
}
using Names = std::vector<std::string>;

std::optional<FutureCallGraph> captured;
Coro<> a(CallGraphOptions options) {
    captured = capture_call_graph(options);
    co_return;
}
Coro<> b(CallGraphOptions options) { co_await a(options); }
Coro<> c(CallGraphOptions options) { co_await b(options); }
Names own_stack(const CallGraphOptions& options) {
    in_virtual_time([&options]() -> Coro<> { co_await create_task(c, options); });
    return stack_of(captured);
}

Coro<> x() { co_await forever(); }
Coro<> y() { co_await x(); }
Names stack_of_another(const CallGraphOptions& options) {
    in_virtual_time([&options]() -> Coro<> {
        auto task = create_task(y());
        co_await sleep(0);
        captured = capture_call_graph(task, options);
        task.cancel();
    });
    return stack_of(captured);
}

} // namespace

TEST(Graph, depth_leaves_out_functions_of_the_task_that_runs) {
    EXPECT_EQ(own_stack({}), (Names{"a", "b", "c"}));
    EXPECT_EQ(own_stack(CallGraphOptions().depth(0)), (Names{"a", "b", "c"}));
    EXPECT_EQ(own_stack(CallGraphOptions().depth(1)), (Names{"a", "b", "c"}));
    EXPECT_EQ(own_stack(CallGraphOptions().depth(2)), (Names{"b", "c"}));
    EXPECT_EQ(own_stack(CallGraphOptions().depth(9)), Names{});
    EXPECT_EQ(stack_of_another(CallGraphOptions().depth(2)), (Names{"forever", "x", "y"}));
}

TEST(Graph, limit_leaves_the_outermost_or_the_innermost) {
    for (const auto& [limit, names] :
         std::vector<std::pair<std::ptrdiff_t, Names>>{{0, {}},
                                                       {1, {"y"}},
                                                       {2, {"x", "y"}},
                                                       {3, {"forever", "x", "y"}},
                                                       {9, {"forever", "x", "y"}},
                                                       {-1, {"forever"}},
                                                       {-2, {"forever", "x"}},
                                                       {-3, {"forever", "x", "y"}},
                                                       {PTRDIFF_MAX, {"forever", "x", "y"}},
                                                       {PTRDIFF_MIN, {"forever", "x", "y"}}}) {
        EXPECT_EQ(stack_of_another(CallGraphOptions().limit(limit)), names) << limit;
    }
    EXPECT_EQ(own_stack(CallGraphOptions().limit(1)), Names{"c"});
    EXPECT_EQ(own_stack(CallGraphOptions().limit(-1)), Names{"a"});
    EXPECT_EQ(own_stack(CallGraphOptions().limit(-1).depth(2)), Names{"b"});
    EXPECT_EQ(own_stack(CallGraphOptions().limit(0)), Names{});
}

TEST(Graph, limit_goes_for_those_that_wait_too) {
    in_main([]() -> Coro<> {
        auto future = create_future();
        auto inner = [&]() -> Coro<> { co_await future; };
        auto outer = [&]() -> Coro<> { co_await inner(); };
        auto task = create_task(named("a"), outer);
        co_await sleep(0);
        const auto stack_with = [&](std::ptrdiff_t limit) {
            return capture_call_graph(future, CallGraphOptions().limit(limit))
                .awaited_by()
                .at(0)
                .call_stack()
                .size();
        };
        EXPECT_EQ(stack_with(9), 2U);
        EXPECT_EQ(stack_with(1), 1U);
        EXPECT_EQ(stack_with(0), 0U);
        task.cancel();
    });
}

TEST(Graph, of_a_callback_there_is_none) {
    in_main([]() -> Coro<> {
        auto done = create_future();
        auto task = create_task(named("a"), forever());
        asyncio::get_running_loop().call_soon([&] {
            EXPECT_FALSE(capture_call_graph().has_value());
            EXPECT_EQ(format_call_graph(), "");
            EXPECT_EQ(awaiters(task), "a");
            EXPECT_EQ(awaiters(done), "future(main)");
            done.set_result();
        });
        co_await done;
    });
}

TEST(Graph, without_a_loop_that_runs_a_future_must_be_given) {
    EXPECT_EQ(thrown_by([] { return capture_call_graph(); }),
              "RuntimeError: no running event loop: call this from a coroutine or callback that "
              "asyncio::run() runs");
    EXPECT_EQ(thrown_by([] { return capture_call_graph(Task<>()); }),
              "RuntimeError: this Task or Future is empty: it was default-constructed or moved "
              "away");
    Reports reports;
    auto loop = asyncio::new_event_loop();
    reports.watch(*loop);
    const auto task = create_task(*loop, named("a"), forever());
    const auto future = create_future(*loop);
    EXPECT_EQ(awaiters(task), "a");
    EXPECT_EQ(awaiters(future), "future");
}

TEST(Graph, tasks_that_wait_for_each_other_are_a_ring) {
    in_main([]() -> Coro<> {
        std::vector<Task<>> ring(3);
        auto waiting = [&](std::size_t other) -> Coro<> { co_await ring[other]; };
        ring[0] = create_task(named("a"), waiting, std::size_t{1});
        ring[1] = create_task(named("b"), waiting, std::size_t{2});
        ring[2] = create_task(named("c"), waiting, std::size_t{0});
        co_await sleep(0);
        FutureCallGraph graph = capture_call_graph(ring[0]);
        for (const char* name : {"a", "c", "b", "a", "c", "b"}) {
            EXPECT_EQ(graph.task().get_name(), name);
            graph = graph.awaited_by().at(0);
        }
        const std::string text = readable(format_call_graph(ring[0], CallGraphOptions().limit(0)));
        EXPECT_EQ(text, "* Task(name='a', id=.)\n"
                        "  + Awaited by:\n"
                        "    * Task(name='c', id=.)\n"
                        "      + Awaited by:\n"
                        "        * Task(name='b', id=.)\n"
                        "          + Awaited by:\n"
                        "            * Task(name='a', id=.), see above");
        ring[0].cancel();
    });
}

// As a tree, 30 levels of this would have a billion leaves.
TEST(Graph, what_is_awaited_in_many_ways_is_told_once) {
    in_main([]() -> Coro<> {
        std::vector<Task<>> all;
        auto both = [&](std::size_t below) -> Coro<> {
            co_await asyncio::gather(all[below], all[below + 1]);
        };
        auto future = create_future();
        auto waiting = [&]() -> Coro<> { co_await future; };
        all.push_back(create_task(waiting));
        all.push_back(create_task(waiting));
        for (std::size_t level = 1; level < 30; ++level) {
            all.push_back(create_task(both, all.size() - 2));
            all.push_back(create_task(both, all.size() - 3));
        }
        co_await sleep(0);
        const FutureCallGraph graph = capture_call_graph(future);
        FutureCallGraph one = graph;
        for (int level = 0; level < 30; ++level) {
            EXPECT_EQ(one.awaited_by().size(), 2U);
            one = one.awaited_by().at(1);
        }
        EXPECT_TRUE(one.awaited_by().empty());
        EXPECT_LT(format_call_graph(future).size(), 60'000U);
        future.set_result();
        co_await asyncio::gather(all);
    });
}

TEST(Graph, a_task_put_aside_for_an_eager_one_has_gone_on) {
    in_main([]() -> Coro<> {
        const asyncio::AnyTask main = asyncio::current_task();
        co_await sleep(0);
        auto eager = [main]() -> Coro<> {
            captured = capture_call_graph(main);
            EXPECT_EQ(stack_of(capture_call_graph()).size(), 1U);
            co_return;
        };
        create_task(named("eager").eager_start(true), eager);
        EXPECT_TRUE(captured->call_stack().front().has_gone_on);
        EXPECT_FALSE(captured->call_stack().back().has_gone_on);
        captured.reset();
        co_return;
    });
}

TEST(Graph, what_has_no_future_stands_at_the_end_of_the_call_stack) {
    in_main([]() -> Coro<> {
        asyncio::Lock lock;
        co_await lock.acquire();
        auto locking = [&]() -> Coro<> {
            auto held = co_await lock.scoped();
            co_return;
        };
        auto numbers = [&]() -> asyncio::AsyncGenerator<int> {
            co_await locking();
            co_yield 1;
        };
        auto counting = [&]() -> Coro<> {
            auto generator = numbers();
            while (const auto number = co_await generator.next()) EXPECT_EQ(*number, 1);
        };
        auto task = create_task(counting);
        co_await sleep(0);
        EXPECT_EQ(capture_call_graph(task).call_stack().size(), 3U);
        lock.release();
        co_await task;
    });
}

TEST(Graph, keeps_the_futures_in_it_alive) {
    std::optional<FutureCallGraph> kept;
    in_main([&]() -> Coro<> {
        auto future = create_future();
        auto task = create_task(named("a"), [](Future<> f) -> Coro<> { co_await f; }, future);
        co_await sleep(0);
        kept = capture_call_graph(future);
        future.set_result();
        co_await task;
    });
    EXPECT_EQ(awaiters(*kept), "future(a)");
    const FutureCallGraph inner = kept->awaited_by().at(0);
    kept.reset();
    EXPECT_EQ(inner.call_stack().size(), 1U);
    EXPECT_TRUE(inner.future().done());
}

TEST(Graph, depth_costs_no_stack) {
    static constexpr int deep = 100'000;
    in_main([]() -> Coro<> {
        auto future = create_future();
        auto first = create_task([](Future<> f) -> Coro<> { co_await f; }, future);
        auto last = first;
        for (int i = 1; i < deep; ++i) last = create_task(wait_for_task(last));
        co_await sleep(0);
        std::optional<FutureCallGraph> graph = capture_call_graph(future);
        int levels = 0;
        for (FutureCallGraph at = *graph; !at.awaited_by().empty(); at = at.awaited_by()[0]) {
            ++levels;
        }
        EXPECT_EQ(levels, deep);
        graph.reset();
        const std::string text = format_call_graph(future, CallGraphOptions().limit(0));
        EXPECT_TRUE(text.ends_with(") at level 100000")) << text.substr(text.size() - 200);
        EXPECT_LT(text.size(), deep * 300U);
        future.set_result();
        co_await last;
    });
    struct Deep {
        static Coro<> down(int depth) {
            if (depth == 0) {
                captured = capture_call_graph();
            } else {
                co_await down(depth - 1);
            }
        }
    };
    in_main([]() -> Coro<> { co_await create_task(Deep::down(deep)); });
    EXPECT_EQ(captured->call_stack().size(), deep + 1U);
    captured.reset();
}

TEST(Graph, is_printed_to_a_file) {
    const auto close = [](std::FILE* file) { std::fclose(file); };
    const std::unique_ptr<std::FILE, decltype(close)> file(std::tmpfile(), close);
    ASSERT_NE(file, nullptr);
    in_main([&]() -> Coro<> {
        auto future = create_future();
        print_call_graph(file.get(), future);
        print_call_graph(file.get(), CallGraphOptions().limit(0));
        asyncio::get_running_loop().call_soon([&] { print_call_graph(file.get()); });
        co_await sleep(0);
    });
    std::rewind(file.get());
    std::array<char, 1000> buffer{};
    const std::string text(buffer.data(), std::fread(buffer.data(), 1, 1000, file.get()));
    EXPECT_EQ(readable(text), "* Future(id=.)\n* Task(name='main', id=.)\n\n");

    const std::unique_ptr<std::FILE, decltype(close)> read_only(std::fopen("/dev/null", "r"),
                                                                close);
    in_main([&]() -> Coro<> {
        EXPECT_THROW(print_call_graph(read_only.get()), std::system_error);
        co_return;
    });
}

TEST(Graph, is_printed_to_stdout) {
    ::testing::internal::CaptureStdout();
    in_main([]() -> Coro<> {
        print_call_graph(CallGraphOptions().limit(0));
        print_call_graph(create_future());
        co_return;
    });
    EXPECT_EQ(readable(::testing::internal::GetCapturedStdout()),
              "* Task(name='main', id=.)\n* Future(id=.)\n");
}

// As a loop closes, frames go one by one, and what they were waited for by goes with them.
TEST(Graph, may_be_asked_for_while_a_loop_closes) {
    std::vector<std::string> seen;
    asyncio::TaskGroup group; // outlives the task that runs it
    std::vector<AnyFuture> all;
    const auto look = [&] {
        for (const AnyFuture& future : all) {
            seen.push_back(format_call_graph(future));
            seen.push_back(thrown_by([] { return capture_call_graph(); }));
        }
    };
    struct AtEnd {
        const decltype(look)& call;
        ~AtEnd() { call(); }
    };
    {
        asyncio::testing::VirtualClock clock;
        auto loop = asyncio::new_event_loop(asyncio::LoopOptions().clock(clock));
        loop->set_exception_handler([&](asyncio::EventLoop&, const auto&) { look(); });
        auto child = [&]() -> Coro<> {
            const AtEnd at_end{look};
            co_await forever();
        };
        auto body = [&](asyncio::TaskGroup& g) -> Coro<> {
            all.emplace_back(g.create_task(child));
            all.emplace_back(g.create_task(child));
            co_await asyncio::shield(asyncio::gather(g.create_task(child), child));
        };
        auto running = [&]() -> Coro<> {
            const AtEnd at_end{look};
            co_await asyncio::task_group(group, body);
        };
        create_task(*loop, running);
        loop->call_later(1s, [&] { loop->stop(); });
        loop->run_forever();
        look();
        EXPECT_NE(seen.front().find("Awaited by"), std::string::npos);
        all.pop_back();
    }
    EXPECT_GT(seen.size(), 10U);
    EXPECT_EQ(seen.back(),
              "RuntimeError: no running event loop: call this from a coroutine or callback that "
              "asyncio::run() runs");
}
