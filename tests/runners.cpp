// SPDX-License-Identifier: MIT
#include <asyncio/asyncio.hpp>
#include <asyncio/testing/virtual_time.hpp>

#include "support/reports.hpp"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstdlib>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>
#include <vector>

using asyncio::Coro;
using asyncio::create_task;
using asyncio::get_running_loop;
using asyncio::LoopOptions;
using asyncio::Runner;
using asyncio::RunOptions;
using asyncio::testing::VirtualClock;
using asyncio_test::Reports;

namespace {

Coro<int> answer() { co_return 42; }
Coro<> nop() { co_return; }
Coro<> sleep_long() { co_await asyncio::sleep(1000); }

// Sets a flag when it is destroyed, moved from or not.
struct SetsFlag {
    explicit SetsFlag(bool& flag) : flag_(&flag) {}
    SetsFlag(SetsFlag&& other) noexcept : flag_(std::exchange(other.flag_, nullptr)) {}
    ~SetsFlag() {
        if (flag_ != nullptr) *flag_ = true;
    }
    bool* flag_;
};

template <class Error, class F> std::string message_of(F function) {
    try {
        function();
    } catch (const Error& error) {
        return error.what();
    } catch (...) {
        return "another exception";
    }
    return "no exception";
}

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

// --- what comes out ---

TEST(Run, gives_the_result) {
    EXPECT_EQ(asyncio::run(answer()), 42);
    asyncio::run(nop());
}

Coro<int&> reference_to(int& value) { co_return value; }

TEST(Run, gives_a_reference) {
    int value = 1;
    int& result = asyncio::run(reference_to(value));
    EXPECT_EQ(&result, &value);
}

Coro<std::unique_ptr<int>> move_only() { co_return std::make_unique<int>(7); }

TEST(Run, gives_a_move_only_result) {
    const std::unique_ptr<int> result = asyncio::run(move_only());
    EXPECT_EQ(*result, 7);
}

struct Own {
    int number;
};
Coro<int> throws_own() {
    co_await asyncio::sleep(0);
    throw Own{5};
}

TEST(Run, lets_the_exception_out_as_itself) {
    try {
        asyncio::run(throws_own());
        FAIL();
    } catch (const Own& own) {
        EXPECT_EQ(own.number, 5);
    }
}

TEST(Run, of_an_awaitable_that_is_no_coroutine) {
    asyncio::run(asyncio::sleep(0));
    EXPECT_EQ(asyncio::run(asyncio::sleep(0, 3)), 3);
}

TEST(Run, of_a_callable_keeps_it_and_its_arguments_until_the_end) {
    bool destroyed = false;
    bool seen = true;
    auto function = [kept = SetsFlag(destroyed), &destroyed,
                     &seen](const std::string& text) -> Coro<std::string> {
        co_await asyncio::sleep(0);
        seen = destroyed;
        co_return text + "!";
    };
    EXPECT_EQ(asyncio::run(asyncio::moved(function), std::string(100, 'x')),
              std::string(100, 'x') + "!");
    EXPECT_FALSE(seen);
    EXPECT_TRUE(destroyed);
}

TEST(Run, of_a_callable_that_throws) {
    const auto function = []() -> Coro<> { throw std::logic_error("not a coroutine yet"); };
    EXPECT_EQ(message_of<std::logic_error>([&] { asyncio::run(function); }), "not a coroutine yet");
}

TEST(Run, gives_a_cancelled_main_as_cancelled_error) {
    const auto main = []() -> Coro<> {
        asyncio::current_task().cancel("enough");
        co_await asyncio::sleep(1);
    };
    EXPECT_EQ(message_of<asyncio::CancelledError>([&] { asyncio::run(main()); }), "enough");
}

// --- in the wrong place ---

TEST(Run, inside_a_running_loop_is_refused_and_closes_the_coroutine) {
    Reports reports;
    const auto main = [](Reports& all) -> Coro<> {
        all.watch(get_running_loop());
        const std::string text = message_of<asyncio::RuntimeError>([] { asyncio::run(answer()); });
        EXPECT_TRUE(contains(text, "asyncio::run() cannot be called from a running event loop"))
            << text;
        EXPECT_TRUE(contains(message_of<asyncio::RuntimeError>([] { asyncio::run(answer); }),
                             "running event loop"));
        co_await asyncio::sleep(0); // the loop is as it was
    };
    asyncio::run(main(reports));
    EXPECT_EQ(reports.count(), 0u) << reports.text();
}

TEST(RunUntilComplete, inside_a_running_loop_is_refused_and_leaves_nothing_behind) {
    Reports reports;
    bool ran = false;
    const auto main = [](Reports& all, bool& flag) -> Coro<> {
        all.watch(get_running_loop());
        const auto child = [](bool& f) -> Coro<> {
            f = true;
            co_return;
        };
        EXPECT_TRUE(contains(message_of<asyncio::RuntimeError>([&] {
                                 asyncio::run_until_complete(get_running_loop(), child(flag));
                             }),
                             "already running"));
        const auto other = asyncio::new_event_loop();
        EXPECT_TRUE(contains(message_of<asyncio::RuntimeError>(
                                 [&] { asyncio::run_until_complete(*other, child(flag)); }),
                             "another loop is running"));
        EXPECT_TRUE(all_tasks(*other).empty());
        EXPECT_EQ(asyncio::all_tasks().size(), 1u);
        co_await asyncio::sleep(0);
        co_await asyncio::sleep(0);
    };
    asyncio::run(main(reports, ran));
    EXPECT_FALSE(ran);
    EXPECT_EQ(reports.count(), 0u) << reports.text();
}

TEST(RunUntilComplete, on_a_closed_loop_is_refused_and_closes_the_coroutine) {
    const auto loop = asyncio::new_event_loop();
    const Reports reports(*loop);
    loop->close();
    EXPECT_TRUE(contains(
        message_of<asyncio::RuntimeError>([&] { asyncio::run_until_complete(*loop, answer()); }),
        "Event loop is closed"));
    EXPECT_EQ(reports.count(), 0u);
}

TEST(RunUntilComplete, works_several_times_on_one_loop) {
    const auto loop = asyncio::new_event_loop();
    asyncio::Task<int> left;
    const auto first = [](asyncio::Task<int>& task) -> Coro<int> {
        const auto slow = []() -> Coro<int> {
            for (int i = 0; i < 10; ++i) co_await asyncio::sleep(0);
            co_return 10;
        };
        task = create_task(slow());
        co_return 1;
    };
    EXPECT_EQ(asyncio::run_until_complete(*loop, first(left)), 1);
    EXPECT_FALSE(left.done());
    EXPECT_THROW(asyncio::run_until_complete(*loop, throws_own()), Own);
    EXPECT_EQ(asyncio::run_until_complete(*loop, left), 10);
    EXPECT_EQ(asyncio::run_until_complete(*loop, left), 10); // done already
    EXPECT_EQ(asyncio::run_until_complete(*loop, move_only()) != nullptr, true);
    EXPECT_FALSE(loop->is_closed());
}

TEST(RunUntilComplete, of_a_future) {
    const auto loop = asyncio::new_event_loop();
    auto future = asyncio::create_future<std::string>(*loop);
    loop->call_soon([future] { future.set_result("set"); });
    EXPECT_EQ(asyncio::run_until_complete(*loop, future), "set");
}

TEST(RunUntilComplete, does_not_see_what_an_earlier_one_left_undone) {
    // The callback raises in the turn in which the first future is done; what was to stop the loop
    // for it must not stop the second run.
    const auto loop = asyncio::new_event_loop();
    const auto future = asyncio::create_future(*loop);
    loop->call_soon([future] {
        future.set_result();
        throw asyncio::KeyboardInterrupt();
    });
    EXPECT_THROW(asyncio::run_until_complete(*loop, future), asyncio::KeyboardInterrupt);
    const auto three_turns = []() -> Coro<int> {
        for (int i = 0; i < 3; ++i) co_await asyncio::sleep(0);
        co_return 3;
    };
    EXPECT_EQ(asyncio::run_until_complete(*loop, three_turns()), 3);
}

// --- a loop that stops too early ---

TEST(Run, of_a_loop_that_is_stopped_early_says_so) {
    VirtualClock clock;
    const auto main = []() -> Coro<> {
        get_running_loop().call_later(1, [&loop = get_running_loop()] { loop.stop(); });
        co_await asyncio::sleep(5);
    };
    const std::string text =
        message_of<asyncio::RuntimeError>([&] { asyncio::run(main(), RunOptions().clock(clock)); });
    EXPECT_TRUE(contains(text, "Event loop stopped before Future completed.")) << text;
}

TEST(RunUntilComplete, of_a_loop_that_is_stopped_early_can_go_on) {
    VirtualClock clock;
    const auto loop = asyncio::new_event_loop(LoopOptions().clock(clock));
    const auto task = create_task(*loop, asyncio::detail::await_it(asyncio::sleep(5, 1)));
    loop->call_later(1, [&] { loop->stop(); });
    EXPECT_THROW(asyncio::run_until_complete(*loop, task), asyncio::RuntimeError);
    EXPECT_FALSE(task.done());
    EXPECT_EQ(asyncio::run_until_complete(*loop, task), 1);
}

TEST(Run, in_virtual_time_reports_a_deadlock) {
    VirtualClock clock;
    const auto main = []() -> Coro<> { co_await asyncio::create_future(); };
    const std::string text =
        message_of<asyncio::RuntimeError>([&] { asyncio::run(main(), RunOptions().clock(clock)); });
    EXPECT_TRUE(contains(text, "deadlock")) << text;
}

// --- what is left when main ends ---

TEST(Run, cancels_the_tasks_that_are_left_and_waits_for_them) {
    VirtualClock clock;
    int cleaned = 0;
    asyncio::Task<> kept;
    const auto main = [](int& count, asyncio::Task<>& task) -> Coro<> {
        const auto child = [](int& c) -> Coro<> {
            try {
                co_await asyncio::sleep(1000);
            } catch (const asyncio::CancelledError&) {
                ++c;
            }
            co_await asyncio::sleep(2); // a slow clean-up
            ++c;
        };
        for (int i = 0; i < 3; ++i) task = create_task(child(count));
        co_await asyncio::sleep(0);
    };
    asyncio::run(main(cleaned, kept), RunOptions().clock(clock));
    EXPECT_EQ(cleaned, 6);
    EXPECT_TRUE(kept.done());
    EXPECT_FALSE(kept.cancelled());
    EXPECT_EQ(kept.cancelling(), 1u);
    EXPECT_TRUE(kept.get_loop().is_closed());
}

TEST(Run, lets_a_task_made_in_the_last_step_take_its_first_one) {
    bool ran = false;
    asyncio::Task<> kept;
    const auto main = [](bool& flag, asyncio::Task<>& task) -> Coro<> {
        const auto child = [](bool& f) -> Coro<> {
            f = true;
            co_return;
        };
        task = create_task(child(flag));
        co_return;
    };
    asyncio::run(main(ran, kept));
    EXPECT_TRUE(ran); // it was queued before the end of main was noticed
    EXPECT_TRUE(kept.done());
    EXPECT_FALSE(kept.cancelled());
}

TEST(Run, reports_failures_of_the_tasks_that_were_left_once) {
    Reports reports;
    const auto main = [](Reports& all) -> Coro<> {
        all.watch(get_running_loop());
        const auto child = [](bool fails) -> Coro<> {
            try {
                co_await asyncio::sleep(1000);
            } catch (const asyncio::CancelledError&) {
                if (!fails) throw;
            }
            throw std::runtime_error("clean-up failed");
        };
        create_task(child(true));
        create_task(child(false));
        co_await asyncio::sleep(0);
    };
    asyncio::run(main(reports));
    EXPECT_EQ(reports.count(), 1u) << reports.text();
    EXPECT_EQ(reports.count("unhandled exception during asyncio::run() shutdown"), 1u);
}

TEST(Run, destroys_tasks_that_are_created_during_the_shutdown) {
    Reports reports;
    bool destroyed = false;
    const auto main = [](Reports& all, bool& flag) -> Coro<> {
        all.watch(get_running_loop());
        const auto late = [](SetsFlag) -> Coro<> { co_await asyncio::sleep(1000); };
        const auto child = [](const auto& make, bool& f) -> Coro<> {
            try {
                co_await asyncio::sleep(1000);
            } catch (const asyncio::CancelledError&) {
                create_task(make(SetsFlag(f)));
                throw;
            }
        };
        create_task(child(late, flag));
        co_await asyncio::sleep(0);
    };
    asyncio::run(main(reports, destroyed));
    EXPECT_EQ(reports.count(), 1u) << reports.text();
    EXPECT_EQ(reports.count("Task was destroyed but it is pending!"), 1u) << reports.text();
    EXPECT_TRUE(destroyed);
}

TEST(Run, shuts_down_also_after_an_exception_of_main) {
    bool destroyed = false;
    const auto main = [](bool& flag) -> Coro<> {
        const auto child = [](SetsFlag) -> Coro<> { co_await asyncio::sleep(1000); };
        create_task(child(SetsFlag(flag)));
        co_await asyncio::sleep(0);
        throw Own{1};
    };
    EXPECT_THROW(asyncio::run(main(destroyed)), Own);
    EXPECT_TRUE(destroyed);
}

// --- KeyboardInterrupt and SystemExit ---

template <class Interrupt> Coro<> interrupted_main(Reports& reports, int& cleaned) {
    reports.watch(get_running_loop());
    const auto child = [](int& count) -> Coro<> {
        try {
            co_await asyncio::sleep(1000);
        } catch (const asyncio::CancelledError&) {
            ++count;
        }
        co_await asyncio::sleep(0); // the clean-up takes turns
        co_await asyncio::sleep(0);
        ++count;
    };
    create_task(child(cleaned));
    co_await asyncio::sleep(0);
    throw Interrupt();
}

TEST(Run, lets_a_keyboard_interrupt_of_main_out_after_the_clean_up) {
    Reports reports;
    int cleaned = 0;
    EXPECT_THROW(asyncio::run(interrupted_main<asyncio::KeyboardInterrupt>(reports, cleaned)),
                 asyncio::KeyboardInterrupt);
    EXPECT_EQ(cleaned, 2);
    EXPECT_EQ(reports.count(), 0u) << reports.text();
}

TEST(Run, lets_a_system_exit_of_main_out_after_the_clean_up) {
    Reports reports;
    int cleaned = 0;
    EXPECT_THROW(asyncio::run(interrupted_main<asyncio::SystemExit>(reports, cleaned)),
                 asyncio::SystemExit);
    EXPECT_EQ(cleaned, 2);
    EXPECT_EQ(reports.count(), 0u) << reports.text();
}

TEST(Run, lets_the_system_exit_of_another_task_out_and_cancels_main) {
    bool cancelled = false;
    const auto main = [](bool& flag) -> Coro<> {
        const auto child = []() -> Coro<> {
            co_await asyncio::sleep(0);
            throw asyncio::SystemExit(3);
        };
        const auto task = create_task(child());
        try {
            co_await asyncio::sleep(1000);
        } catch (const asyncio::CancelledError&) {
            flag = true;
            EXPECT_THROW(task.result(), asyncio::SystemExit); // stored, too
            throw;
        }
    };
    try {
        asyncio::run(main(cancelled));
        FAIL();
    } catch (const asyncio::SystemExit& exit) {
        EXPECT_EQ(exit.code(), 3);
    }
    EXPECT_TRUE(cancelled);
}

// --- options ---

// A variable of the environment, set for as long as this lives.
class Environment {
  public:
    Environment(const char* name, const char* value) : name_(name) {
        if (const char* old = std::getenv(name)) old_ = old;
        ::setenv(name, value, 1);
    }
    ~Environment() {
        if (old_) {
            ::setenv(name_, old_->c_str(), 1);
        } else {
            ::unsetenv(name_);
        }
    }
    Environment(const Environment&) = delete;
    Environment& operator=(const Environment&) = delete;

  private:
    const char* name_;
    std::optional<std::string> old_;
};

Coro<std::string> backend_name() { co_return get_running_loop().backend().name(); }

TEST(RunOptions, choose_a_backend_and_the_loop_tells_which) {
    const Environment none("ASYNCIO_BACKEND", "");
    EXPECT_EQ(asyncio::run(backend_name()), "epoll");
    EXPECT_EQ(asyncio::run(backend_name(), RunOptions().backend("epoll")), "epoll");
    EXPECT_EQ(asyncio::run(backend_name(), RunOptions().backend("auto")), "epoll");
}

// Whatever the order: a clock that got lost here would make a test wait for real.
TEST(RunOptions, of_the_loop_join_those_that_were_chosen_before) {
    VirtualClock clock;
    VirtualClock other;
    const asyncio::SystemCalls& calls = asyncio::SystemCalls::real();
    using Used = std::pair<const asyncio::Clock*, bool>;
    const auto used = [](const RunOptions& options) {
        return asyncio::run(
            []() -> Coro<Used> {
                asyncio::EventLoop& loop = get_running_loop();
                co_return Used{&loop.clock(), loop.get_debug()};
            }(),
            options);
    };
    EXPECT_EQ(used(RunOptions().clock(clock).debug(true).loop(LoopOptions().system_calls(calls))),
              (Used(&clock, true)));
    EXPECT_EQ(used(RunOptions().loop(LoopOptions().system_calls(calls)).clock(clock).debug(false)),
              (Used(&clock, false)));
    EXPECT_EQ(
        used(RunOptions().clock(clock).debug(true).loop(LoopOptions().clock(other).debug(false))),
        (Used(&other, false)));
}

TEST(RunOptions, with_an_unknown_backend_are_refused_and_close_the_coroutine) {
    const std::string text = message_of<asyncio::ValueError>(
        [] { asyncio::run(backend_name(), RunOptions().backend("kqueue")); });
    EXPECT_TRUE(contains(text, "'kqueue'")) << text;
    EXPECT_TRUE(contains(text, "choose epoll, or auto")) << text;
    EXPECT_FALSE(contains(text, "ASYNCIO_BACKEND")) << text;
}

TEST(RunOptions, come_before_the_variable_for_the_backend) {
    const Environment unknown("ASYNCIO_BACKEND", "xyz");
    const std::string text = message_of<asyncio::ValueError>([] { asyncio::run(backend_name()); });
    EXPECT_TRUE(contains(text, "'xyz'")) << text;
    EXPECT_TRUE(contains(text, "ASYNCIO_BACKEND")) << text;
    EXPECT_EQ(asyncio::run(backend_name(), RunOptions().backend("epoll")), "epoll");
    const Environment known("ASYNCIO_BACKEND", "auto");
    EXPECT_EQ(asyncio::run(backend_name()), "epoll");
}

// --- Runner ---

TEST(Runner, runs_several_mains_on_one_loop) {
    Runner runner;
    asyncio::EventLoop& loop = runner.get_loop();
    const auto main = []() -> Coro<asyncio::EventLoop*> { co_return &get_running_loop(); };
    EXPECT_EQ(runner.run(main()), &loop);
    EXPECT_EQ(runner.run(main), &loop);
    EXPECT_EQ(runner.run(asyncio::sleep(0, 3)), 3);
    EXPECT_EQ(*runner.run(move_only()), 7);
    EXPECT_THROW(runner.run(throws_own()), Own);
    EXPECT_EQ(runner.run(answer()), 42);
    EXPECT_FALSE(loop.is_closed());
}

TEST(Runner, keeps_the_callable_and_its_arguments_until_the_end) {
    Runner runner;
    auto function = [](const std::string& text, int times) -> Coro<std::string> {
        co_await asyncio::sleep(0);
        std::string all;
        for (int i = 0; i < times; ++i) all += text;
        co_return all;
    };
    EXPECT_EQ(runner.run(function, std::string(40, 'x'), 3), std::string(120, 'x'));
}

Coro<> throws_int() {
    co_await asyncio::sleep(0);
    throw 42;
}

TEST(Runner, lets_an_exception_out_as_itself) {
    Runner runner;
    const auto failure = std::make_exception_ptr(Own{5});
    const auto main = [](std::exception_ptr exception) -> Coro<> {
        co_await asyncio::sleep(0);
        std::rethrow_exception(exception);
    };
    try {
        runner.run(main(failure));
        FAIL();
    } catch (const Own&) {
        EXPECT_EQ(std::current_exception(), failure); // the same object
    }
    try {
        asyncio::run(throws_int());
        FAIL();
    } catch (int number) {
        EXPECT_EQ(number, 42);
    }
}

TEST(Runner, lets_a_task_go_on_in_the_next_main) {
    VirtualClock clock;
    Runner runner{RunOptions().clock(clock)};
    asyncio::Task<int> task;
    const auto first = [](asyncio::Task<int>& t) -> Coro<> {
        t = create_task(asyncio::detail::await_it(asyncio::sleep(5, 1)));
        co_await asyncio::sleep(1);
    };
    const auto second = [](asyncio::Task<int> t) -> Coro<int> { co_return co_await t; };
    runner.run(first(task));
    EXPECT_FALSE(task.done());
    EXPECT_EQ(runner.run(second(task)), 1);
    EXPECT_EQ(runner.run(task), 1);
}

TEST(Runner, waits_for_a_task_and_a_future_of_its_loop) {
    Runner runner;
    const auto task = create_task(runner.get_loop(), answer());
    EXPECT_EQ(runner.run(task), 42);
    const auto future = asyncio::create_future(runner.get_loop());
    runner.get_loop().call_soon([future] { future.set_result(); });
    runner.run(future);
    Runner other;
    const auto pending = asyncio::create_future(runner.get_loop());
    EXPECT_TRUE(
        contains(message_of<asyncio::RuntimeError>([&] { other.run(pending); }), "different loop"));
}

const asyncio::ContextVar<int> variable("variable", 0);

TEST(Runner, runs_all_its_mains_in_one_context_and_nobody_else_in_it) {
    variable.set(1);
    Runner runner;
    const auto increment = []() -> Coro<int> {
        co_await asyncio::sleep(0);
        const int value = variable.get() + 1;
        variable.set(value);
        co_await asyncio::sleep(0);
        co_return value;
    };
    const auto child = [](auto function) -> Coro<int> { co_return co_await create_task(function); };
    EXPECT_EQ(runner.run(increment()), 2); // copied from here by the first
    variable.set(100);                     // too late
    EXPECT_EQ(runner.run(increment()), 3);
    EXPECT_EQ(runner.run(increment), 4);
    EXPECT_EQ(runner.run(child(increment)), 5); // a child has a copy of its own
    EXPECT_EQ(runner.run(increment()), 5);
    const auto fails = []() -> Coro<> {
        variable.set(10);
        co_await asyncio::sleep(0);
        throw Own{1};
    };
    EXPECT_THROW(runner.run(fails()), Own);
    EXPECT_EQ(runner.run(increment()), 11);
    EXPECT_EQ(variable.get(), 100);
    const asyncio::Context context = asyncio::copy_context();
    EXPECT_EQ(runner.run(context, increment()), 101);
    EXPECT_EQ(runner.run(context, increment), 102);
    EXPECT_EQ(context[variable], 102);
    EXPECT_EQ(runner.run(increment()), 12);
    Runner other;
    EXPECT_EQ(other.run(increment()), 101);
    variable.set(0);
}

TEST(Runner, makes_its_loop_when_it_is_asked_for_one) {
    Runner runner{RunOptions().backend("none such")};
    EXPECT_THROW(runner.get_loop(), asyncio::ValueError);
    EXPECT_THROW(runner.run(answer()), asyncio::ValueError);
    runner.close(); // of nothing: as in asyncio, no end
    EXPECT_THROW(runner.get_loop(), asyncio::ValueError);
}

TEST(Runner, that_is_closed_refuses_and_closes_the_coroutine) {
    Runner runner;
    EXPECT_EQ(runner.run(answer()), 42);
    asyncio::EventLoop& loop = runner.get_loop();
    const Reports reports(loop);
    runner.close();
    EXPECT_TRUE(loop.is_closed());
    runner.close(); // once is enough
    for (const std::string& text :
         {message_of<asyncio::RuntimeError>([&] { runner.run(answer()); }),
          message_of<asyncio::RuntimeError>([&] { runner.run(answer); }),
          message_of<asyncio::RuntimeError>([&] { runner.get_loop(); })}) {
        EXPECT_TRUE(contains(text, "Runner is closed")) << text;
    }
    EXPECT_EQ(reports.count(), 0u) << reports.text();
}

TEST(Runner, inside_a_running_loop_is_refused) {
    Runner runner;
    Reports reports;
    const auto main = [](Runner& same, Reports& all) -> Coro<> {
        all.watch(get_running_loop());
        Runner other;
        all.watch(other.get_loop());
        for (const std::string& text :
             {message_of<asyncio::RuntimeError>([&] { same.run(answer()); }),
              message_of<asyncio::RuntimeError>([&] { other.run(answer()); }),
              message_of<asyncio::RuntimeError>([&] { other.run(answer); })}) {
            EXPECT_TRUE(contains(text, "Runner.run() cannot be called from a running event loop"))
                << text;
        }
        EXPECT_TRUE(
            contains(message_of<asyncio::RuntimeError>([&] { same.close(); }), "already running"));
        co_await asyncio::sleep(0); // all is as it was
        EXPECT_EQ(asyncio::all_tasks().size(), 1u);
    };
    runner.run(main(runner, reports));
    EXPECT_EQ(runner.run(answer()), 42);
    // The other one could not be closed properly where it was destroyed, and says so.
    EXPECT_EQ(reports.count(), 1u) << reports.text();
    EXPECT_EQ(reports.count("closing the runner failed"), 1u) << reports.text();
}

TEST(Runner, cancels_what_is_left_when_it_is_closed_or_destroyed) {
    for (const bool destroyed : {false, true}) {
        auto runner = std::make_unique<Runner>();
        const Reports reports(runner->get_loop());
        int cleaned = 0;
        const auto main = [](int& count) -> Coro<> {
            const auto child = [](int& c) -> Coro<> {
                try {
                    co_await asyncio::sleep(1000);
                } catch (const asyncio::CancelledError&) {
                    ++c;
                }
                co_await asyncio::sleep(0);
                ++c;
            };
            create_task(child(count));
            co_await asyncio::sleep(0);
        };
        runner->run(main(cleaned));
        EXPECT_EQ(cleaned, 0);
        if (!destroyed) runner->close();
        runner.reset();
        EXPECT_EQ(cleaned, 2);
        EXPECT_EQ(reports.count(), 0u) << reports.text();
    }
}

// Leaves a task that throws this when it is cancelled.
template <class Failure> Coro<> leaves_one_that_throws() {
    const auto child = []() -> Coro<> {
        try {
            co_await asyncio::sleep(1000);
        } catch (const asyncio::CancelledError&) {
            throw Failure();
        }
    };
    create_task(child());
    co_await asyncio::sleep(0);
}

TEST(Runner, closed_throws_the_system_exit_of_a_task_and_destroyed_reports_it) {
    {
        Runner runner;
        runner.run(leaves_one_that_throws<asyncio::SystemExit>());
        EXPECT_THROW(runner.close(), asyncio::SystemExit);
        EXPECT_THROW(runner.get_loop(), asyncio::RuntimeError);
        runner.close();
    }
    EXPECT_THROW(asyncio::run(leaves_one_that_throws<asyncio::SystemExit>()), asyncio::SystemExit);
    Reports reports;
    {
        Runner runner;
        reports.watch(runner.get_loop());
        runner.run(leaves_one_that_throws<asyncio::SystemExit>());
    }
    EXPECT_EQ(reports.count("closing the runner failed"), 1u) << reports.text();
}

TEST(Run, keeps_the_exception_of_main_if_the_shutdown_throws_too) {
    Reports reports;
    const auto main = [](Reports& all) -> Coro<> {
        all.watch(get_running_loop());
        co_await leaves_one_that_throws<asyncio::SystemExit>();
        throw asyncio::KeyboardInterrupt();
    };
    EXPECT_THROW(asyncio::run(main(reports)), asyncio::KeyboardInterrupt);
    EXPECT_EQ(reports.count("closing the runner failed"), 1u) << reports.text();
}

// --- what hangs on a loop is shut down in order ---

class Step final : public asyncio::detail::ShutdownStep {
  public:
    Step(std::string name, std::vector<std::string>& log, std::function<void()> also = {})
        : name_(std::move(name)), log_(log), also_(std::move(also)) {}
    ~Step() override { log_.push_back("destroyed " + name_); }
    void shut_down(asyncio::EventLoop& loop) override {
        EXPECT_FALSE(loop.is_closed());
        asyncio::run_until_complete(loop, note(name_, log_));
        if (also_) also_();
    }

  private:
    static Coro<> note(std::string name, std::vector<std::string>& log) {
        co_await asyncio::sleep(0);
        log.push_back(name);
    }
    std::string name_;
    std::vector<std::string>& log_;
    std::function<void()> also_;
};

using Lines = std::vector<std::string>;

// Hangs the steps on the loop that runs, the later one first, and leaves a task behind.
Coro<> with_steps(Lines& log, std::function<void()> first = {}, std::function<void()> second = {}) {
    auto& steps = get_running_loop().core().shutdown_steps;
    steps[asyncio::detail::shutdown_default_executor] =
        std::make_unique<Step>("executor", log, std::move(second));
    steps[asyncio::detail::shutdown_asyncgens] =
        std::make_unique<Step>("generators", log, std::move(first));
    const auto child = [](Lines& lines) -> Coro<> {
        try {
            co_await asyncio::sleep(1000);
        } catch (const asyncio::CancelledError&) {
        }
        co_await asyncio::sleep(0);
        lines.push_back("task");
    };
    create_task(child(log));
    co_await asyncio::sleep(0);
}

const Lines in_order = {"task", "generators", "executor", "destroyed generators",
                        "destroyed executor"};

TEST(ShutdownSteps, run_in_order_after_the_tasks_and_before_the_loop_is_closed) {
    Lines log;
    asyncio::run(with_steps(log));
    EXPECT_EQ(log, in_order);
}

TEST(ShutdownSteps, run_also_when_main_has_failed) {
    Lines log;
    const auto main = [](Lines& lines) -> Coro<> {
        co_await with_steps(lines);
        throw Own{1};
    };
    EXPECT_THROW(asyncio::run(main(log)), Own);
    EXPECT_EQ(log, in_order);
}

TEST(ShutdownSteps, that_throw_are_reported_and_the_next_one_runs) {
    Lines log;
    Reports reports;
    const auto main = [](Lines& lines, Reports& all) -> Coro<int> {
        all.watch(get_running_loop());
        co_await with_steps(
            lines, [] { throw Own{1}; }, [] { throw std::runtime_error("executor failed"); });
        co_return 5;
    };
    EXPECT_EQ(asyncio::run(main(log, reports)), 5);
    EXPECT_EQ(log, in_order);
    EXPECT_EQ(reports.count(), 2u) << reports.text();
    EXPECT_EQ(reports.count("unhandled exception during the shutdown"), 2u) << reports.text();
}

TEST(ShutdownSteps, run_all_though_one_interrupts_and_what_interrupts_is_thrown) {
    Lines log;
    Runner runner;
    runner.run(with_steps(log, [] { throw asyncio::SystemExit(3); }));
    EXPECT_THROW(runner.close(), asyncio::SystemExit);
    EXPECT_EQ(log, in_order);
}

TEST(ShutdownSteps, run_though_a_task_interrupts_the_wait_for_the_tasks) {
    Lines log;
    const auto main = [](Lines& lines) -> Coro<> {
        co_await with_steps(lines); // this one's clean-up takes one turn more than the other's
        co_await leaves_one_that_throws<asyncio::SystemExit>();
    };
    EXPECT_THROW(asyncio::run(main(log)), asyncio::SystemExit);
    EXPECT_EQ(log.size(), 5u);
    EXPECT_EQ(log.back(), "destroyed executor");
}

TEST(ShutdownSteps, are_destroyed_by_a_loop_that_no_runner_closes) {
    Lines log;
    auto loop = asyncio::new_event_loop();
    loop->core().shutdown_steps[asyncio::detail::shutdown_asyncgens] =
        std::make_unique<Step>("generators", log);
    loop->close();
    EXPECT_EQ(log, Lines{"destroyed generators"});
}

// --- closing a loop with tasks alive ---

TEST(ClosingALoop, destroys_pending_tasks_with_a_report_of_each) {
    VirtualClock clock;
    auto loop = asyncio::new_event_loop(LoopOptions().clock(clock));
    Reports reports(*loop);
    bool flags[4] = {};
    const auto child = [](SetsFlag, int seconds) -> Coro<int> {
        co_await asyncio::sleep(seconds);
        co_return 1;
    };
    const auto waits = [](SetsFlag, asyncio::Task<int> task) -> Coro<int> {
        co_return co_await task;
    };
    const auto sleeps = create_task(*loop, child(SetsFlag(flags[0]), 1000));
    const auto waits_for_it = create_task(*loop, waits(SetsFlag(flags[1]), sleeps));
    const auto yields = create_task(*loop, [](SetsFlag) -> Coro<> {
        for (;;) co_await asyncio::sleep(0);
    }(SetsFlag(flags[2])));
    asyncio::run_until_complete(*loop, nop());
    const auto not_started = create_task(*loop, child(SetsFlag(flags[3]), 1));
    bool called_back = false;
    sleeps.add_done_callback([&] { called_back = true; });

    loop->close();

    EXPECT_EQ(reports.count(), 4u) << reports.text();
    EXPECT_EQ(reports.count("Task was destroyed but it is pending!"), 4u);
    EXPECT_EQ(reports.count(sleeps.get_name()), 1u) << reports.text();
    EXPECT_EQ(reports.count("runners.cpp:"), 4u) << reports.text();
    for (const bool flag : flags) EXPECT_TRUE(flag);
    EXPECT_FALSE(called_back);
    loop.reset();
    // The handles outlive the loop.
    for (const auto& task : {sleeps, waits_for_it, not_started}) {
        EXPECT_TRUE(task.done());
        EXPECT_TRUE(task.cancelled());
        EXPECT_THROW(task.result(), asyncio::CancelledError);
        EXPECT_FALSE(task.cancel());
    }
    EXPECT_TRUE(yields.cancelled());
}

TEST(ClosingALoop, survives_an_exception_handler_that_cancels_and_completes_what_is_left) {
    auto loop = asyncio::new_event_loop();
    const auto future = asyncio::create_future(*loop);
    int reports = 0;
    const auto waits = [](asyncio::Future<> f) -> Coro<> { co_await f; };
    {
        create_task(*loop, waits(future));
        create_task(*loop, sleep_long());
        create_task(*loop, waits(future));
        create_task(*loop, sleep_long());
    }
    asyncio::run_until_complete(*loop, nop());
    loop->set_exception_handler([&](asyncio::EventLoop& l, const asyncio::ExceptionContext&) {
        ++reports;
        for (const auto& task : all_tasks(l)) task.cancel();
        if (!future.done()) future.set_result();
    });
    loop.reset();
    EXPECT_EQ(reports, 4);
}

TEST(ClosingALoop, survives_locals_that_cancel_and_complete_others) {
    auto loop = asyncio::new_event_loop();
    Reports reports(*loop);
    const auto future = asyncio::create_future(*loop);
    struct Cancels {
        asyncio::EventLoop& loop;
        asyncio::Future<> future;
        ~Cancels() {
            for (const auto& task : all_tasks(loop)) task.cancel();
            if (!future.done()) future.set_result();
        }
    };
    const auto guards = [](asyncio::EventLoop& l, asyncio::Future<> f) -> Coro<> {
        const Cancels guard{l, f};
        co_await sleep_long();
    };
    const auto waits = [](asyncio::Future<> f) -> Coro<> { co_await f; };
    create_task(*loop, waits(future));
    create_task(*loop, sleep_long());
    create_task(*loop, guards(*loop, future));
    create_task(*loop, waits(future));
    create_task(*loop, sleep_long());
    create_task(*loop, guards(*loop, future));
    asyncio::run_until_complete(*loop, nop());
    loop.reset();
    EXPECT_EQ(reports.count("Task was destroyed but it is pending!"), 6u) << reports.text();
}

TEST(Runners, in_a_forked_child_of_a_coroutine_start_afresh) {
    int status = -1;
    const auto main = [&]() -> Coro<> {
        const pid_t child = ::fork();
        if (child == 0) {
            int code = 1;
            try {
                const auto nothing = []() -> Coro<int> { co_return 7; };
                code = asyncio::run(nothing());
            } catch (...) {
                code = 2;
            }
            ::_exit(code);
        }
        while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
        }
        co_return;
    };
    asyncio::run(main());
    EXPECT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), 7);
}

} // namespace
