// SPDX-License-Identifier: MIT
// What the default exception handler writes for each thing that would else fail in silence: whole
// blocks, as a user reads them.
#include "support/in_virtual_time.hpp"

#include <asyncio/asyncio.hpp>
#include <asyncio/testing/virtual_time.hpp>
#include <gtest/gtest.h>

#include <exception>
#include <source_location>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

using namespace std::chrono_literals;
using asyncio::Coro;
using asyncio::create_task;
using asyncio::LoopOptions;
using asyncio::testing::VirtualClock;
using asyncio_test::in_virtual_time;

namespace {

const std::string file = std::source_location::current().file_name();
std::string at(int line) { return file + ":" + std::to_string(line); }

int fetch_line = 0;
int work_line = 0;

// clang-format off
Coro<> fetch(int) { fetch_line = __LINE__; co_await asyncio::sleep(100s); }
Coro<> work() { work_line = __LINE__; co_await fetch(1); }
constexpr int work_defined = __LINE__ - 1;
constexpr int fetch_defined = __LINE__ - 3;
// clang-format on

Coro<> one_turn() { co_await asyncio::sleep(0); }

struct ConfigError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

template <class F> std::string written_by(F function) {
    testing::internal::CaptureStderr();
    try {
        function();
    } catch (...) {
        testing::internal::GetCapturedStderr();
        throw;
    }
    return testing::internal::GetCapturedStderr();
}

} // namespace

TEST(Reports, of_a_coroutine_that_is_never_awaited) {
    const auto main = []() -> Coro<> {
        {
            const auto forgotten = fetch(1);
        }
        co_return;
    };
    EXPECT_EQ(written_by([&] { asyncio::run(main()); }),
              "asyncio: coroutine 'fetch' was never awaited: co_await it, pass it to create_task() "
              "or gather(), or close() it\n"
              "  defined: " +
                  at(fetch_defined) + "\n");
}

TEST(Reports, of_a_task_whose_exception_nobody_read) {
    int made = 0;
    const auto main = [](int& line) -> Coro<> {
        const auto fails = []() -> Coro<> {
            co_await asyncio::sleep(0);
            try {
                throw std::system_error(std::make_error_code(std::errc::no_such_file_or_directory),
                                        "open");
            } catch (...) {
                std::throw_with_nested(ConfigError("cannot start:\nno configuration"));
            }
        };
        {
            // clang-format off
            auto task = create_task(fails()); line = __LINE__;
            // clang-format on
            task.set_name("starter");
        }
        co_await asyncio::sleep(1s);
    };
    const std::string text = written_by([&] { in_virtual_time([&] { return main(made); }); });
    EXPECT_EQ(text, "asyncio: Task exception was never retrieved\n"
                    "  task: <Task finished name='starter' created at " +
                        at(made) +
                        ">\n"
                        "  exception:\n"
                        "    ConfigError: cannot start:\n"
                        "    no configuration\n"
                        "  caused by: std::system_error: open: No such file or directory\n");
}

TEST(Reports, of_a_future_whose_exception_nobody_read) {
    int made = 0;
    const auto main = [](int& line) -> Coro<> {
        // clang-format off
        { const auto future = asyncio::create_future<int>(); line = __LINE__;
          future.set_exception(std::runtime_error("nobody looks")); }
        // clang-format on
        co_return;
    };
    const std::string text = written_by([&] { asyncio::run(main(made)); });
    EXPECT_EQ(text, "asyncio: Future exception was never retrieved\n"
                    "  future: <Future finished created at " +
                        at(made) +
                        ">\n"
                        "  exception: std::runtime_error: nobody looks\n");
}

TEST(Reports, of_tasks_that_are_destroyed_while_they_are_pending) {
    VirtualClock clock;
    int made[2] = {};
    const auto block_of = [&](const std::string& where) {
        return "asyncio: Task was destroyed but it is pending! Await or cancel it before the event "
               "loop is closed\n" +
               where;
    };
    const std::string text = written_by([&] {
        auto loop = asyncio::new_event_loop(LoopOptions().clock(clock));
        // clang-format off
        auto waits = create_task(*loop, work()); made[0] = __LINE__;
        waits.set_name("worker");
        asyncio::run_until_complete(*loop, one_turn());
        auto not_started = create_task(*loop, work()); made[1] = __LINE__;
        // clang-format on
        not_started.set_name("late");
        loop.reset();
    });
    EXPECT_EQ(text, block_of("  task: <Task pending name='late' created at " + at(made[1]) +
                             ">\n"
                             "  not started: " +
                             at(work_defined) + " in work\n") +
                        block_of("  task: <Task pending name='worker' created at " + at(made[0]) +
                                 ">\n"
                                 "  stands at:\n"
                                 "    " +
                                 at(fetch_line) +
                                 " in fetch\n"
                                 "    " +
                                 at(work_line) + " in work\n"));
}

TEST(Reports, of_a_failed_callback_tell_where_it_was_scheduled) {
    int made = 0;
    const std::string text = written_by([&] {
        const auto loop = asyncio::new_event_loop();
        // clang-format off
        loop->call_soon([] { throw 42; }); made = __LINE__;
        // clang-format on
        loop->stop();
        loop->run_forever();
    });
    EXPECT_EQ(text, "asyncio: Exception in callback\n"
                    "  handle: <Handle created at " +
                        at(made) +
                        ">\n"
                        "  exception: int\n");
}

// --- the await chain ---

TEST(AwaitChain, leads_from_the_innermost_await_outwards) {
    in_virtual_time([]() -> Coro<> {
        const auto task = create_task(work());
        auto& state = static_cast<asyncio::detail::TaskBase&>(task.state());
        EXPECT_EQ(state.await_chain().size(), 1u);
        co_await asyncio::sleep(0);
        const auto chain = state.await_chain();
        EXPECT_EQ(chain.size(), 2u);
        EXPECT_EQ(chain.front().text() + chain.front().function(), at(fetch_line) + "fetch");
        EXPECT_EQ(chain.back().text() + chain.back().function(), at(work_line) + "work");
        task.cancel();
        static_cast<void>(co_await asyncio::as_result(task));
        EXPECT_TRUE(state.await_chain().empty());
    });
}

TEST(AwaitChain, of_the_task_that_runs_ends_where_it_runs) {
    static std::vector<std::string> seen;
    seen.clear();
    const auto look = []() -> Coro<> {
        const auto& state =
            static_cast<asyncio::detail::TaskBase&>(asyncio::current_task().state());
        for (const auto& where : state.await_chain()) seen.push_back(where.function());
        co_return;
    };
    struct Named {
        static Coro<> middle(Coro<> inner) {
            co_await inner;
            co_await asyncio::sleep(0);
        }
        static Coro<> outer(Coro<> inner) { co_await middle(std::move(inner)); }
    };
    in_virtual_time([&] { return Named::outer(look()); });
    EXPECT_EQ(seen.size(), 3u);
    if (seen.size() != 3) return;
    EXPECT_TRUE(seen[0].ends_with("TestBody::<lambda>")) << seen[0];
    EXPECT_TRUE(seen[1].ends_with("Named::middle")) << seen[1];
    EXPECT_TRUE(seen[2].ends_with("Named::outer")) << seen[2];
}
