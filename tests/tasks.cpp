// SPDX-License-Identifier: MIT
#include <asyncio/asyncio.hpp>
#include <asyncio/testing/virtual_time.hpp>

#include "support/reports.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <coroutine>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

using asyncio::AnyTask;
using asyncio::CancelledError;
using asyncio::Coro;
using asyncio::create_future;
using asyncio::create_task;
using asyncio::current_task;
using asyncio::Future;
using asyncio::get_running_loop;
using asyncio::InvalidStateError;
using asyncio::RunOptions;
using asyncio::RuntimeError;
using asyncio::Task;
using asyncio::TaskOptions;
using asyncio::testing::VirtualClock;
using asyncio_test::Reports;

namespace {

// Runs a body in virtual time; the body's reports are collected.
template <class F> void run_test(F body) {
    VirtualClock clock;
    asyncio::run(body(), RunOptions().clock(clock));
}

Coro<> nop() { co_return; }
Coro<int> answer() { co_return 42; }
Coro<> sleep_long() { co_await asyncio::sleep(1000); }
Coro<> turns(int count) {
    for (int i = 0; i < count; ++i) co_await asyncio::sleep(0);
}

// Awaits it, and says how it ended: "result", "cancelled <message>" or "failed <what>".
template <class T> Coro<std::string> end_of(Task<T> task) {
    try {
        co_await task;
        co_return "result";
    } catch (const CancelledError& error) {
        co_return *error.message() == '\0' ? std::string("cancelled")
                                           : std::string("cancelled ") + error.message();
    } catch (const std::exception& error) {
        co_return std::string("failed ") + error.what();
    }
}

// Sets a flag when it is destroyed.
struct SetsFlag {
    explicit SetsFlag(bool& flag) : flag_(&flag) {}
    SetsFlag(SetsFlag&& other) noexcept : flag_(std::exchange(other.flag_, nullptr)) {}
    ~SetsFlag() {
        if (flag_ != nullptr) *flag_ = true;
    }
    bool* flag_;
};

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

// --- results and failures ---

TEST(Tasks, give_their_result_to_all_who_ask) {
    run_test([]() -> Coro<> {
        const auto task = create_task(answer());
        EXPECT_FALSE(task.done());
        EXPECT_THROW(task.result(), InvalidStateError);
        EXPECT_THROW(task.exception(), InvalidStateError);
        const int first = co_await task;
        const int second = co_await task;
        EXPECT_EQ(first, 42);
        EXPECT_EQ(second, 42);
        EXPECT_TRUE(task.done());
        EXPECT_FALSE(task.cancelled());
        EXPECT_EQ(task.result(), 42);
        EXPECT_EQ(task.exception(), nullptr);
        EXPECT_FALSE(task.cancel());
        EXPECT_EQ(task.cancelling(), 0u);
    });
}

Coro<> throws(const char* text) {
    co_await asyncio::sleep(0);
    throw std::runtime_error(text);
}

TEST(Tasks, give_their_exception_to_all_who_ask) {
    run_test([]() -> Coro<> {
        const auto task = create_task(throws("boom"));
        for (int i = 0; i < 2; ++i) {
            const std::string end = co_await end_of(task);
            EXPECT_EQ(end, "failed boom");
        }
        EXPECT_THROW(task.result(), std::runtime_error);
        EXPECT_NE(task.exception(), nullptr);
        EXPECT_FALSE(task.cancelled());
    });
}

TEST(Tasks, take_any_type_as_an_exception) {
    run_test([]() -> Coro<> {
        const auto throws_42 = []() -> Coro<> {
            co_await nop();
            throw 42;
        };
        const auto task = create_task(throws_42());
        try {
            co_await task;
            ADD_FAILURE();
        } catch (int number) {
            EXPECT_EQ(number, 42);
        }
    });
}

Coro<int&> reference_to(int& value) { co_return value; }

TEST(Tasks, give_references) {
    run_test([]() -> Coro<> {
        int value = 1;
        const auto task = create_task(reference_to(value));
        int& awaited = co_await task;
        EXPECT_EQ(&awaited, &value);
        EXPECT_EQ(&task.result(), &value);
    });
}

Coro<std::unique_ptr<int>> make_unique_int(int value) { co_return std::make_unique<int>(value); }

TEST(Tasks, give_move_only_results_once) {
    run_test([]() -> Coro<> {
        auto task = create_task(make_unique_int(3));
        const auto copy = task;
        const auto value = co_await std::move(task);
        EXPECT_EQ(*value, 3);
        EXPECT_THROW(copy.result(), InvalidStateError);

        const auto watched = create_task(make_unique_int(4));
        co_await asyncio::sleep(0);
        EXPECT_EQ(*watched.result(), 4); // by reference
    });
}

struct CountsCopies {
    explicit CountsCopies(int& count) : copies(&count) {}
    CountsCopies(const CountsCopies& other) : copies(other.copies) { ++*copies; }
    CountsCopies(CountsCopies&& other) noexcept : copies(other.copies) {}
    int* copies;
};

TEST(Tasks, give_copies_except_to_the_last_handle) {
    run_test([]() -> Coro<> {
        const auto make = [](int& count) -> Coro<CountsCopies> { co_return CountsCopies(count); };
        int copies = 0;
        auto task = create_task(make(copies));
        static_cast<void>(co_await task);
        EXPECT_EQ(copies, 1);
        static_cast<void>(co_await std::move(task));
        EXPECT_EQ(copies, 1);
    });
}

struct ThrowsWhenMoved {
    explicit ThrowsWhenMoved(int at) : moves_left(at) {}
    ThrowsWhenMoved(const ThrowsWhenMoved&) = default;
    ThrowsWhenMoved(ThrowsWhenMoved&& other) : moves_left(other.moves_left - 1) {
        if (moves_left < 0) throw std::runtime_error("moved too often");
    }
    int moves_left;
};

TEST(Tasks, fail_with_what_the_move_of_their_result_throws) {
    run_test([]() -> Coro<> {
        // The move into the coroutine's promise throws, then the one out of it, then none.
        std::vector<std::string> ends;
        for (int at = 0; at < 4; ++at) {
            bool destroyed = false;
            const auto make = [](int moves, SetsFlag) -> Coro<ThrowsWhenMoved> {
                co_return ThrowsWhenMoved(moves);
            };
            const auto task = create_task(make(at, SetsFlag(destroyed)));
            ends.push_back(co_await end_of(task));
            EXPECT_TRUE(destroyed);
        }
        EXPECT_EQ(ends, (std::vector<std::string>{"failed moved too often",
                                                  "failed moved too often", "result", "result"}));
    });
}

TEST(Tasks, awaited_in_a_coroutine_whose_result_does_not_move_fail_it) {
    run_test([]() -> Coro<> {
        bool destroyed = false;
        const auto make = [](SetsFlag) -> Coro<ThrowsWhenMoved> { co_return ThrowsWhenMoved(1); };
        try {
            static_cast<void>(co_await make(SetsFlag(destroyed)));
            ADD_FAILURE();
        } catch (const std::runtime_error&) {
        }
        EXPECT_TRUE(destroyed);
    });
}

TEST(Tasks, refuse_to_be_given_a_result) {
    run_test([]() -> Coro<> {
        const auto task = create_task(answer());
        const Future<int>& future = task;
        EXPECT_THROW(future.set_result(1), RuntimeError);
        EXPECT_THROW(future.set_exception(std::runtime_error("no")), RuntimeError);
        const int value = co_await task;
        EXPECT_EQ(value, 42);
    });
}

TEST(Tasks, that_await_themselves_get_an_error) {
    run_test([]() -> Coro<> {
        const auto awaits_itself = []() -> Coro<> { co_await current_task(); };
        const auto task = create_task(awaits_itself());
        const std::string end = co_await end_of(task);
        EXPECT_TRUE(contains(end, "failed Task cannot await on itself")) << end;
    });
}

// --- lives ---

TEST(Tasks, destroy_frame_and_parameters_when_they_finish_though_a_handle_lives) {
    run_test([]() -> Coro<> {
        bool parameter = false;
        bool local = false;
        bool at_result = false;
        const auto body = [](SetsFlag, bool& l) -> Coro<int> {
            const SetsFlag guard(l);
            co_await asyncio::sleep(0);
            co_return 1;
        };
        const auto task = create_task(body(SetsFlag(parameter), local));
        task.add_done_callback([&] { at_result = parameter && local; });
        co_await asyncio::sleep(0);
        EXPECT_FALSE(parameter);
        EXPECT_FALSE(local);
        co_await task;
        EXPECT_TRUE(at_result);

        bool failed_parameter = false;
        const auto fails = [](SetsFlag) -> Coro<> {
            co_await asyncio::sleep(0);
            throw std::runtime_error("no");
        };
        const auto failing = create_task(fails(SetsFlag(failed_parameter)));
        const std::string end = co_await end_of(failing);
        EXPECT_EQ(end, "failed no");
        EXPECT_TRUE(failed_parameter);
    });
}

TEST(Tasks, run_to_their_end_without_a_handle) {
    run_test([]() -> Coro<> {
        bool ended = false;
        const auto body = [](bool& flag) -> Coro<> {
            co_await asyncio::sleep(1);
            auto future = create_future();
            get_running_loop().call_soon([future] { future.set_result(); });
            co_await future;
            flag = true;
        };
        create_task(body(ended));
        co_await asyncio::sleep(2);
        EXPECT_TRUE(ended);
    });
}

TEST(Tasks, that_fail_unseen_are_reported_with_the_line_that_made_them) {
    Reports reports;
    int line = 0;
    run_test([&]() -> Coro<> {
        reports.watch(get_running_loop());
        {
            // clang-format off
            line = __LINE__; create_task(TaskOptions().name("sinner"), throws("boom"));
            // clang-format on
        }
        co_await turns(3);
        EXPECT_EQ(reports.count(), 1u);
    });
    EXPECT_EQ(reports.count("Task exception was never retrieved"), 1u);
    EXPECT_EQ(reports.count("tasks.cpp:" + std::to_string(line)), 1u) << reports.text();
    EXPECT_EQ(reports.count("name='sinner'"), 1u) << reports.text();
}

TEST(Tasks, that_fail_are_not_reported_if_somebody_looked) {
    Reports reports;
    run_test([&]() -> Coro<> {
        reports.watch(get_running_loop());
        {
            const auto by_await = create_task(throws("1"));
            const auto by_result = create_task(throws("2"));
            const auto by_exception = create_task(throws("3"));
            const auto by_as_result = create_task(throws("4"));
            static_cast<void>(co_await end_of(by_await));
            static_cast<void>(co_await asyncio::as_result(by_as_result));
            EXPECT_THROW(by_result.result(), std::runtime_error);
            EXPECT_NE(by_exception.exception(), nullptr);
        }
        {
            const auto not_seen = create_task(throws("5"));
            co_await turns(3);
            EXPECT_TRUE(not_seen.done());
            EXPECT_FALSE(not_seen.cancelled());
        }
        const auto cancelled = create_task(sleep_long());
        cancelled.cancel();
        co_await turns(2);
    });
    EXPECT_EQ(reports.count(), 1u) << reports.text();
}

// --- cancel ---

TEST(TaskCancel, counts_every_call) {
    run_test([]() -> Coro<> {
        const auto task = create_task(sleep_long());
        EXPECT_EQ(task.cancelling(), 0u);
        EXPECT_TRUE(task.cancel());
        EXPECT_TRUE(task.cancel());
        EXPECT_EQ(task.cancelling(), 2u);
        EXPECT_EQ(task.uncancel(), 1u);
        EXPECT_TRUE(task.cancel());
        EXPECT_EQ(task.cancelling(), 2u);
        const std::string end = co_await end_of(task);
        EXPECT_EQ(end, "cancelled");
        EXPECT_FALSE(task.cancel());
        EXPECT_EQ(task.cancelling(), 2u);
        EXPECT_TRUE(task.cancelled());
        EXPECT_TRUE(task.done());
        EXPECT_THROW(task.result(), CancelledError);
        EXPECT_THROW(task.exception(), CancelledError);
        EXPECT_EQ(task.uncancel(), 1u);
        EXPECT_EQ(task.uncancel(), 0u);
        EXPECT_EQ(task.uncancel(), 0u);
    });
}

TEST(TaskCancel, before_the_first_step_keeps_the_body_from_running) {
    run_test([]() -> Coro<> {
        bool ran = false;
        bool destroyed = false;
        const auto body = [](bool& flag, SetsFlag) -> Coro<> {
            flag = true;
            co_return;
        };
        const auto task = create_task(body(ran, SetsFlag(destroyed)));
        EXPECT_TRUE(task.cancel("not now"));
        EXPECT_FALSE(task.cancelled()); // only at its first step
        EXPECT_FALSE(destroyed);
        const std::string end = co_await end_of(task);
        EXPECT_EQ(end, "cancelled not now");
        EXPECT_FALSE(ran);
        EXPECT_TRUE(destroyed);
        EXPECT_TRUE(task.cancelled());
    });
}

TEST(TaskCancel, before_the_first_step_can_be_withdrawn) {
    run_test([]() -> Coro<> {
        const auto task = create_task(answer());
        task.cancel();
        task.cancel();
        EXPECT_EQ(task.uncancel(), 1u);
        EXPECT_EQ(task.uncancel(), 0u);
        const int value = co_await task;
        EXPECT_EQ(value, 42);
    });
}

TEST(TaskCancel, of_a_sleep) {
    run_test([]() -> Coro<> {
        const auto begin = get_running_loop().time();
        const auto task = create_task(sleep_long());
        co_await asyncio::sleep(1);
        task.cancel("enough");
        const std::string end = co_await end_of(task);
        EXPECT_EQ(end, "cancelled enough");
        EXPECT_EQ(get_running_loop().time() - begin, std::chrono::seconds(1));
    });
}

TEST(TaskCancel, of_a_sleep_of_one_turn) {
    run_test([]() -> Coro<> {
        const auto task = create_task(turns(3));
        co_await asyncio::sleep(0);
        task.cancel("enough");
        const std::string end = co_await end_of(task);
        EXPECT_EQ(end, "cancelled enough");
    });
}

Coro<int> wait_for(Future<int> future) { co_return co_await future; }

TEST(TaskCancel, cancels_the_future_that_it_waits_for) {
    run_test([]() -> Coro<> {
        const auto future = create_future<int>();
        const auto task = create_task(wait_for(future));
        const auto other = create_task(wait_for(future));
        co_await asyncio::sleep(0);
        task.cancel("enough");
        EXPECT_TRUE(future.cancelled());
        EXPECT_FALSE(task.done());
        std::string end = co_await end_of(task);
        EXPECT_EQ(end, "cancelled enough");
        end = co_await end_of(other);
        EXPECT_EQ(end, "cancelled enough");
        EXPECT_EQ(other.cancelling(), 0u);
    });
}

template <class T> Coro<T> wait_for_task(Task<T> task) { co_return co_await task; }

TEST(TaskCancel, goes_inward_through_tasks) {
    run_test([]() -> Coro<> {
        const auto inner = create_task(sleep_long());
        const auto middle = create_task(wait_for_task(inner));
        const auto outer = create_task(wait_for_task(middle));
        co_await turns(2);
        outer.cancel("enough");
        EXPECT_EQ(inner.cancelling(), 1u);
        const std::string end = co_await end_of(outer);
        EXPECT_EQ(end, "cancelled enough");
        EXPECT_TRUE(inner.cancelled());
        EXPECT_TRUE(middle.cancelled());
    });
}

TEST(TaskCancel, of_a_task_whose_inner_task_does_not_give_in_gives_its_result) {
    run_test([]() -> Coro<> {
        const auto stubborn = []() -> Coro<int> {
            try {
                co_await asyncio::sleep(1000);
            } catch (const CancelledError&) {
            }
            co_await asyncio::sleep(1);
            co_return 7;
        };
        const auto outer = create_task(wait_for_task(create_task(stubborn())));
        co_await turns(2);
        outer.cancel();
        const int value = co_await outer;
        EXPECT_EQ(value, 7);
        EXPECT_FALSE(outer.cancelled());
        EXPECT_EQ(outer.cancelling(), 1u);
    });
}

Coro<> chain(int depth, std::vector<std::string>& log) {
    const std::string name = std::to_string(depth);
    try {
        if (depth == 3) {
            co_await asyncio::sleep(1000);
        } else {
            co_await chain(depth + 1, log);
        }
    } catch (const CancelledError& error) {
        log.push_back(name + " " + error.message());
        throw;
    }
}

TEST(TaskCancel, arrives_at_the_innermost_of_three_coroutines) {
    run_test([]() -> Coro<> {
        std::vector<std::string> log;
        const auto task = create_task(chain(1, log));
        co_await asyncio::sleep(0);
        task.cancel("x");
        const std::string end = co_await end_of(task);
        EXPECT_EQ(end, "cancelled x");
        EXPECT_EQ(log, (std::vector<std::string>{"3 x", "2 x", "1 x"}));
    });
}

TEST(TaskCancel, of_itself_is_thrown_at_the_next_await_that_waits) {
    run_test([]() -> Coro<> {
        std::vector<std::string> log;
        const auto body = [](std::vector<std::string>& lines) -> Coro<> {
            current_task().cancel("me");
            EXPECT_EQ(current_task().cancelling(), 1u);
            co_await nop(); // does not wait
            auto done = create_future();
            done.set_result();
            co_await done; // nor does this
            lines.push_back("still running");
            try {
                co_await create_future();
                lines.push_back("waited");
            } catch (const CancelledError& error) {
                lines.push_back(error.message());
                throw;
            }
        };
        const auto task = create_task(body(log));
        const std::string end = co_await end_of(task);
        EXPECT_EQ(end, "cancelled me");
        EXPECT_EQ(log, (std::vector<std::string>{"still running", "me"}));
    });
}

TEST(TaskCancel, of_itself_is_thrown_at_each_kind_of_wait) {
    run_test([]() -> Coro<> {
        const auto body = [](int kind) -> Coro<> {
            current_task().cancel("me");
            const auto inner = create_task(sleep_long());
            if (kind == 0) co_await asyncio::sleep(0);
            if (kind == 1) co_await asyncio::sleep(1000);
            if (kind == 2) co_await create_future<int>();
            if (kind == 3) co_await inner;
            if (kind == 4) co_await asyncio::gather(inner, sleep_long());
            if (kind == 5) static_cast<void>(co_await asyncio::sleep(1000, 1));
        };
        for (int kind = 0; kind < 6; ++kind) {
            const auto task = create_task(body(kind));
            const std::string end = co_await end_of(task);
            EXPECT_EQ(end, "cancelled me") << kind;
        }
    });
}

TEST(TaskCancel, of_itself_is_passed_on_to_the_task_that_it_awaits_next) {
    run_test([]() -> Coro<> {
        const auto stubborn = []() -> Coro<int> {
            try {
                co_await asyncio::sleep(1000);
            } catch (const CancelledError&) {
                co_return 7;
            }
            co_return 0;
        };
        const auto body = [](Task<int> inner) -> Coro<int> {
            co_await asyncio::sleep(0);
            current_task().cancel();
            const int value = co_await inner;
            co_await asyncio::sleep(0); // the cancel is used up
            co_return value;
        };
        const auto task = create_task(body(create_task(stubborn())));
        const int value = co_await task;
        EXPECT_EQ(value, 7);
    });
}

TEST(TaskCancel, at_return_drops_the_result) {
    run_test([]() -> Coro<> {
        bool destroyed = false;
        const auto body = [](bool& flag) -> Coro<std::unique_ptr<SetsFlag>> {
            current_task().cancel("late");
            co_return std::make_unique<SetsFlag>(flag);
        };
        auto task = create_task(body(destroyed));
        co_await asyncio::sleep(0);
        EXPECT_TRUE(task.cancelled());
        EXPECT_TRUE(destroyed);
        const std::string end =
            co_await end_of(create_task(wait_for_task(create_task([]() -> Coro<> {
                current_task().cancel("late");
                co_return;
            }))));
        EXPECT_EQ(end, "cancelled late");
    });
}

TEST(TaskCancel, at_return_loses_to_an_exception) {
    run_test([]() -> Coro<> {
        const auto body = []() -> Coro<> {
            current_task().cancel();
            co_await nop();
            throw std::runtime_error("stronger");
        };
        const auto task = create_task(body());
        const std::string end = co_await end_of(task);
        EXPECT_EQ(end, "failed stronger");
    });
}

TEST(TaskCancel, twice_in_one_turn_is_delivered_once_with_the_first_message) {
    run_test([]() -> Coro<> {
        for (const bool sleeps : {true, false}) {
            std::vector<std::string> log;
            const auto body = [](bool sleep, std::vector<std::string>& lines) -> Coro<> {
                for (int i = 0; i < 2; ++i) {
                    try {
                        if (sleep) {
                            co_await asyncio::sleep(5);
                        } else {
                            auto future = create_future();
                            get_running_loop().call_later(5, [future] {
                                if (!future.done()) future.set_result();
                            });
                            co_await future;
                        }
                        lines.push_back("waited");
                    } catch (const CancelledError& error) {
                        lines.push_back(error.message());
                    }
                }
            };
            const auto task = create_task(body(sleeps, log));
            co_await asyncio::sleep(0);
            EXPECT_TRUE(task.cancel("first"));
            EXPECT_TRUE(task.cancel("second"));
            const std::string end = co_await end_of(task);
            EXPECT_EQ(end, "result");
            EXPECT_EQ(task.cancelling(), 2u);
            EXPECT_EQ(log, (std::vector<std::string>{"first", "waited"})) << sleeps;
        }
    });
}

TEST(TaskCancel, before_the_first_step_carries_the_last_message) {
    run_test([]() -> Coro<> {
        const auto task = create_task(sleep_long());
        task.cancel("first");
        task.cancel("second");
        const std::string end = co_await end_of(task);
        EXPECT_EQ(end, "cancelled second");
        const auto other = create_task(sleep_long());
        other.cancel("first");
        other.cancel();
        const std::string other_end = co_await end_of(other);
        EXPECT_EQ(other_end, "cancelled");
    });
}

TEST(TaskCancel, wins_over_a_future_done_in_the_same_turn) {
    run_test([]() -> Coro<> {
        for (const bool future_first : {true, false}) {
            const auto future = create_future<int>();
            const auto task = create_task(wait_for(future));
            co_await asyncio::sleep(0);
            if (future_first) {
                future.set_result(1);
                EXPECT_TRUE(task.cancel("enough"));
                EXPECT_EQ(future.result(), 1); // the future keeps it
            } else {
                EXPECT_TRUE(task.cancel("enough"));
                EXPECT_THROW(future.set_result(1), InvalidStateError);
            }
            const std::string end = co_await end_of(task);
            EXPECT_EQ(end, "cancelled enough");
        }
    });
}

TEST(TaskCancel, wins_over_a_failure_in_the_same_turn) {
    Reports reports;
    run_test([&]() -> Coro<> {
        reports.watch(get_running_loop());
        const auto future = create_future<int>();
        const auto task = create_task(wait_for(future));
        co_await asyncio::sleep(0);
        future.set_exception(std::runtime_error("no"));
        task.cancel("enough");
        const std::string end = co_await end_of(task);
        EXPECT_EQ(end, "cancelled enough");
    });
    EXPECT_EQ(reports.count(), 0u) << reports.text();
}

TEST(TaskCancel, wins_over_a_task_done_in_the_same_turn) {
    run_test([]() -> Coro<> {
        const auto slow = create_task(turns(1));
        const auto waiter = create_task(wait_for_task(slow));
        co_await asyncio::sleep(0);
        get_running_loop().call_soon([&] {
            EXPECT_TRUE(slow.done());
            EXPECT_TRUE(waiter.cancel("enough"));
        });
        const std::string waiter_end = co_await end_of(waiter);
        EXPECT_EQ(waiter_end, "cancelled enough");
    });
}

TEST(TaskCancel, wins_over_a_sleep_due_in_the_same_turn) {
    VirtualClock clock;
    asyncio::run(
        [](VirtualClock& time) -> Coro<> {
            const auto task = create_task(sleep_long());
            co_await asyncio::sleep(0);
            get_running_loop().call_soon([&] {
                // Runs before the timer, which is due in this turn too.
                task.cancel("before");
            });
            time.advance(2000);
            std::string end = co_await end_of(task);
            EXPECT_EQ(end, "cancelled before");

            const auto other = create_task(sleep_long());
            co_await asyncio::sleep(0);
            get_running_loop().call_later(1000, [&] {
                // Runs after the timer; the task is queued already.
                other.cancel("after");
            });
            end = co_await end_of(other);
            EXPECT_EQ(end, "cancelled after");
        }(clock),
        RunOptions().clock(clock));
}

TEST(TaskCancel, that_is_swallowed_lets_the_task_go_on) {
    run_test([]() -> Coro<> {
        const auto body = []() -> Coro<int> {
            int cancels = 0;
            for (int i = 0; i < 3; ++i) {
                try {
                    co_await asyncio::sleep(10);
                } catch (const CancelledError&) {
                    ++cancels;
                }
            }
            co_return cancels;
        };
        const auto task = create_task(body());
        co_await asyncio::sleep(1);
        task.cancel();
        co_await asyncio::sleep(1);
        task.cancel();
        const int cancels = co_await task;
        EXPECT_EQ(cancels, 2);
        EXPECT_FALSE(task.cancelled());
        EXPECT_EQ(task.cancelling(), 2u); // swallowing takes nothing back
    });
}

TEST(TaskCancel, error_thrown_by_the_body_alone_counts_as_cancelled) {
    run_test([]() -> Coro<> {
        const auto body = []() -> Coro<int> {
            co_await nop();
            throw CancelledError("mine");
        };
        const auto task = create_task(body());
        const std::string end = co_await end_of(task);
        EXPECT_EQ(end, "cancelled mine");
        EXPECT_TRUE(task.cancelled());
        EXPECT_EQ(task.cancelling(), 0u);
    });
}

TEST(TaskCancel, becomes_another_exception_if_the_body_throws_one) {
    run_test([]() -> Coro<> {
        const auto body = []() -> Coro<> {
            try {
                co_await asyncio::sleep(10);
            } catch (const CancelledError&) {
                throw std::runtime_error("instead");
            }
        };
        const auto task = create_task(body());
        co_await asyncio::sleep(0);
        task.cancel();
        const std::string end = co_await end_of(task);
        EXPECT_EQ(end, "failed instead");
        EXPECT_FALSE(task.cancelled());
    });
}

// Python ends a ring by RecursionError; here it is broken open, so that all of it ends.
TEST(TaskCancel, ends_tasks_that_wait_for_each_other_in_a_ring) {
    run_test([]() -> Coro<> {
        std::vector<Task<>> ring(3);
        const auto wait_for_next = [&ring](std::size_t i) -> Coro<> { co_await ring[i]; };
        for (std::size_t i = 0; i < 3; ++i) ring[i] = create_task(wait_for_next, (i + 1) % 3);
        co_await asyncio::sleep(0);
        EXPECT_TRUE(ring[1].cancel("enough"));
        for (const Task<>& task : ring) {
            EXPECT_EQ(task.cancelling(), 1U);
            const std::string end = co_await end_of(task);
            EXPECT_EQ(end, "cancelled enough");
        }
    });
}

TEST(TaskCancel, ends_a_ring_that_closes_while_a_cancel_is_pending) {
    run_test([]() -> Coro<> {
        std::vector<Task<>> ring(2);
        const auto wait_for_other = [&ring](std::size_t i) -> Coro<> {
            if (i == 0) current_task().cancel("self");
            co_await ring[1 - i];
        };
        ring[0] = create_task(turns(1)); // replaced, so that the second waits for the first's heir
        ring[1] = create_task(wait_for_other, std::size_t{1});
        ring[0] = create_task(wait_for_other, std::size_t{0});
        const std::string first = co_await end_of(ring[0]);
        const std::string second = co_await end_of(ring[1]);
        EXPECT_EQ(first, "cancelled self");
        EXPECT_EQ(second, "cancelled self");
    });
}

TEST(TaskCancel, goes_down_a_chain_of_100000_tasks) {
    run_test([]() -> Coro<> {
        constexpr std::size_t length = 100'000;
        std::vector<Task<>> chain;
        chain.reserve(length);
        chain.push_back(create_task(sleep_long()));
        const auto wait_for = [](Task<> inner) -> Coro<> { co_await inner; };
        while (chain.size() < length) chain.push_back(create_task(wait_for(chain.back())));
        co_await asyncio::sleep(1);
        chain.back().cancel("down");
        const std::string end = co_await end_of(chain.back());
        EXPECT_EQ(end, "cancelled down");
        EXPECT_TRUE(chain.front().cancelled());
    });
}

TEST(TaskUncancel, to_zero_withdraws_a_cancel_that_was_not_delivered) {
    run_test([]() -> Coro<> {
        const auto body = []() -> Coro<int> {
            current_task().cancel();
            EXPECT_EQ(current_task().uncancel(), 0u);
            co_await asyncio::sleep(1);
            co_return 1;
        };
        int value = co_await create_task(body());
        EXPECT_EQ(value, 1);

        // A future was done first, so that the cancel waits for the task's next step.
        const auto future = create_future<int>();
        const auto task = create_task(wait_for(future));
        co_await asyncio::sleep(0);
        future.set_result(2);
        task.cancel();
        EXPECT_EQ(task.uncancel(), 0u);
        value = co_await task;
        EXPECT_EQ(value, 2);
    });
}

TEST(TaskUncancel, above_zero_withdraws_nothing) {
    run_test([]() -> Coro<> {
        const auto task = create_task(answer());
        task.cancel();
        task.cancel();
        EXPECT_EQ(task.uncancel(), 1u);
        const std::string end = co_await end_of(task);
        EXPECT_EQ(end, "cancelled");
    });
}

TEST(TaskUncancel, does_not_withdraw_a_cancel_that_was_delivered) {
    run_test([]() -> Coro<> {
        const auto sleeping = create_task(sleep_long());
        const auto waiting = create_task(wait_for(create_future<int>()));
        co_await asyncio::sleep(0);
        sleeping.cancel();
        waiting.cancel();
        EXPECT_EQ(sleeping.uncancel(), 0u);
        EXPECT_EQ(waiting.uncancel(), 0u);
        std::string end = co_await end_of(sleeping);
        EXPECT_EQ(end, "cancelled");
        end = co_await end_of(waiting);
        EXPECT_EQ(end, "cancelled");
    });
}

// --- KeyboardInterrupt and SystemExit ---

TEST(Tasks, that_end_with_an_interrupt_store_it_and_let_it_out_of_run_forever) {
    const auto loop = asyncio::new_event_loop();
    const Reports reports(*loop);
    std::vector<std::string> log;
    const auto interrupts = []() -> Coro<> {
        co_await asyncio::sleep(0);
        throw asyncio::KeyboardInterrupt();
    };
    {
        const auto task = create_task(*loop, interrupts());
        task.add_done_callback([&] { log.push_back("callback"); });
        loop->call_soon([&] { loop->call_soon([&] { log.push_back("rest of the turn"); }); });
        EXPECT_THROW(loop->run_forever(), asyncio::KeyboardInterrupt);
        EXPECT_TRUE(task.done());
        EXPECT_FALSE(task.cancelled());
        EXPECT_THROW(task.result(), asyncio::KeyboardInterrupt);
        EXPECT_FALSE(loop->is_running());
        EXPECT_FALSE(asyncio::current_task(*loop).valid());
        EXPECT_TRUE(log.empty());
        loop->stop();
        loop->run_forever();
        EXPECT_EQ(log, (std::vector<std::string>{"rest of the turn", "callback"}));
    }
    EXPECT_EQ(reports.count(), 0u);
}

// --- names, current_task, all_tasks ---

TEST(Tasks, have_names) {
    run_test([]() -> Coro<> {
        const auto first = create_task(nop());
        const auto second = create_task(nop());
        const auto number = [](const Task<>& task) {
            const std::string name = task.get_name();
            EXPECT_EQ(name.substr(0, 5), "Task-");
            return std::stoul(name.substr(5));
        };
        EXPECT_EQ(number(second), number(first) + 1);
        first.set_name("one");
        EXPECT_EQ(first.get_name(), "one");
        first.cancel("with a message");
        EXPECT_EQ(first.get_name(), "one");
        second.cancel("with a message");
        EXPECT_EQ(number(second), number(create_task(nop())) - 1);
        const auto named = create_task(TaskOptions().name("fetch"), answer());
        const auto called = create_task(TaskOptions().name("call"), answer);
        EXPECT_EQ(named.get_name(), "fetch");
        EXPECT_EQ(called.get_name(), "call");
        co_await named;
        co_await called;
        EXPECT_EQ(AnyTask(named).get_name(), "fetch");
        named.set_name("");
        EXPECT_EQ(named.get_name(), "");
    });
}

TEST(CurrentTask, is_the_one_that_runs) {
    run_test([]() -> Coro<> {
        const AnyTask main = current_task();
        AnyTask seen;
        bool in_callback = true;
        const auto inner = [](AnyTask& task) -> Coro<> {
            task = current_task();
            co_return;
        };
        co_await inner(seen);
        EXPECT_EQ(seen, main); // the same task, in another coroutine
        const auto task = create_task(inner(seen));
        get_running_loop().call_soon([&] { in_callback = current_task().valid(); });
        task.add_done_callback([&] { in_callback |= current_task().valid(); });
        co_await turns(3);
        EXPECT_EQ(seen, AnyTask(task));
        EXPECT_FALSE(in_callback);
        EXPECT_EQ(current_task(), main);
        EXPECT_EQ(current_task(get_running_loop()), main);
    });
    EXPECT_THROW(current_task(), RuntimeError);
    const auto loop = asyncio::new_event_loop();
    EXPECT_FALSE(current_task(*loop).valid());
}

TEST(AllTasks, are_those_that_are_not_done) {
    run_test([]() -> Coro<> {
        const auto has = [](const AnyTask& task) {
            const auto all = asyncio::all_tasks();
            return std::find(all.begin(), all.end(), task) != all.end();
        };
        EXPECT_EQ(asyncio::all_tasks().size(), 1u);
        EXPECT_TRUE(has(current_task()));
        const auto a = create_task(nop());
        const auto b = create_task(sleep_long());
        const auto c = create_task(sleep_long());
        EXPECT_EQ(asyncio::all_tasks().size(), 4u);
        co_await asyncio::sleep(0);
        EXPECT_FALSE(has(a));
        EXPECT_TRUE(has(b));
        EXPECT_TRUE(has(c));
        b.cancel();
        EXPECT_TRUE(has(b));
        co_await asyncio::sleep(0);
        EXPECT_FALSE(has(b));
        EXPECT_EQ(asyncio::all_tasks().size(), 2u);
    });
    EXPECT_THROW(asyncio::all_tasks(), RuntimeError);
}

// --- create_task ---

TEST(CreateTask, of_a_callable_keeps_it_and_its_arguments_until_the_end) {
    run_test([]() -> Coro<> {
        bool function_gone = false;
        bool argument_gone = false;
        auto function = [kept = SetsFlag(function_gone), text = std::string(100, 'f')](
                            const SetsFlag&, const std::string& argument) -> Coro<std::string> {
            co_await asyncio::sleep(1);
            co_return text + argument;
        };
        const auto task =
            create_task(asyncio::moved(function), SetsFlag(argument_gone), std::string(100, 'a'));
        co_await asyncio::sleep(0);
        EXPECT_FALSE(function_gone);
        EXPECT_FALSE(argument_gone);
        const std::string result = co_await task;
        EXPECT_EQ(result, std::string(100, 'f') + std::string(100, 'a'));
        EXPECT_TRUE(function_gone);
        EXPECT_TRUE(argument_gone);
    });
}

TEST(CreateTask, of_a_callable_destroys_it_also_when_cancelled_before_the_first_step) {
    run_test([]() -> Coro<> {
        bool gone = false;
        const auto function = [](const SetsFlag&) -> Coro<> { co_return; };
        const auto task = create_task(function, SetsFlag(gone));
        task.cancel();
        co_await asyncio::sleep(0);
        EXPECT_TRUE(task.cancelled());
        EXPECT_TRUE(gone);
    });
}

TEST(CreateTask, copies_a_named_callable) {
    run_test([]() -> Coro<> {
        Task<std::string> task;
        {
            const std::string text(100, 'x');
            const auto function = [text]() -> Coro<std::string> {
                co_await asyncio::sleep(1);
                co_return text;
            };
            task = create_task(function);
        }
        const std::string result = co_await task;
        EXPECT_EQ(result, std::string(100, 'x'));
    });
}

Coro<> add(int& sum, int number) {
    co_await asyncio::sleep(0);
    sum += number;
}

TEST(CreateTask, takes_references_by_std_ref) {
    run_test([]() -> Coro<> {
        int sum = 1;
        co_await create_task(add, std::ref(sum), 2);
        EXPECT_EQ(sum, 3);
        co_await create_task(&add, std::ref(sum), 4);
        EXPECT_EQ(sum, 7);
    });
}

Coro<int> take(std::unique_ptr<int> value) {
    co_await asyncio::sleep(0);
    co_return *value;
}

TEST(CreateTask, takes_move_only_arguments) {
    run_test([]() -> Coro<> {
        auto value = std::make_unique<int>(5);
        const auto task = create_task(take, std::move(value));
        const int result = co_await task;
        EXPECT_EQ(result, 5);
    });
}

struct Counter {
    int count = 0;
    Coro<int> add(int number) {
        co_await asyncio::sleep(0);
        co_return count += number;
    }
    Coro<int> get() const { co_return count; }
};

TEST(CreateTask, takes_member_functions) {
    run_test([]() -> Coro<> {
        Counter counter;
        int result = co_await create_task(&Counter::add, &counter, 2);
        EXPECT_EQ(result, 2);
        result = co_await create_task(&Counter::add, std::ref(counter), 3);
        EXPECT_EQ(result, 5);
        const auto shared = std::make_shared<Counter>();
        result = co_await create_task(&Counter::add, shared, 1);
        EXPECT_EQ(result, 1);
        result = co_await create_task(&Counter::get, counter); // a copy
        EXPECT_EQ(result, 5);
        auto unique = std::make_unique<Counter>();
        result = co_await create_task(&Counter::add, std::move(unique), 9);
        EXPECT_EQ(result, 9);
    });
}

TEST(CreateTask, of_a_callable_that_throws_lets_that_out_and_makes_no_task) {
    run_test([]() -> Coro<> {
        bool gone = false;
        const auto function = [](const SetsFlag&) -> Coro<> {
            // Not a coroutine: it throws before there is one.
            throw std::logic_error("not now");
        };
        EXPECT_THROW(create_task(function, SetsFlag(gone)), std::logic_error);
        EXPECT_TRUE(gone);
        EXPECT_EQ(asyncio::all_tasks().size(), 1u);
        co_await asyncio::sleep(0);
    });
}

TEST(CreateTask, of_a_callable_that_throws_destroys_it_and_its_arguments_once) {
    run_test([]() -> Coro<> {
        const auto captured = std::make_shared<int>(1);
        const auto argument = std::make_shared<int>(2);
        const auto throws = [captured](std::shared_ptr<int>) -> Coro<> (*)() {
            throw std::logic_error("no coroutine");
        };
        const auto call = [throws](std::shared_ptr<int> given) -> Coro<> {
            return throws(std::move(given))();
        };
        EXPECT_THROW(create_task(call, argument), std::logic_error);
        EXPECT_EQ(captured.use_count(), 3); // with both lambdas
        EXPECT_EQ(argument.use_count(), 1);
        co_return;
    });
}

TEST(CreateTask, of_a_coroutine_used_up_before_is_refused) {
    run_test([]() -> Coro<> {
        auto coroutine = answer();
        co_await coroutine;
        EXPECT_THROW(create_task(std::move(coroutine)), RuntimeError);
        EXPECT_EQ(asyncio::all_tasks().size(), 1u);
    });
}

TEST(CreateTask, of_another_awaitable) {
    run_test([]() -> Coro<> {
        const auto begin = get_running_loop().time();
        const auto a = create_task(asyncio::sleep(1));
        const auto b = create_task(asyncio::sleep(1, std::string("word")));
        co_await a;
        const std::string word = co_await b;
        EXPECT_EQ(word, "word");
        EXPECT_EQ(get_running_loop().time() - begin, std::chrono::seconds(1));
        const auto c = create_task(asyncio::sleep(1000));
        co_await asyncio::sleep(0);
        c.cancel();
        const std::string end = co_await end_of(c);
        EXPECT_EQ(end, "cancelled");
    });
}

// An awaitable that can only be moved.
struct GivesOwned {
    explicit GivesOwned(int number) : owned(std::make_unique<int>(number)) {}
    std::unique_ptr<int> owned;
    bool await_ready() const noexcept { return true; }
    void await_suspend(std::coroutine_handle<>) const noexcept {}
    std::unique_ptr<int> await_resume() noexcept { return std::move(owned); }
};

TEST(CreateTask, of_another_awaitable_on_a_loop_that_does_not_run_yet) {
    VirtualClock clock;
    const auto loop = asyncio::new_event_loop(asyncio::LoopOptions().clock(clock));
    const asyncio::Context context;
    const asyncio::ContextVar<int> variable("variable", 1);
    context.run([&] { variable.set(2); });
    const auto begin = loop->time();
    const auto a = create_task(*loop, asyncio::sleep(1, std::string("word")));
    const auto b = create_task(*loop, TaskOptions().name("b").context(context), GivesOwned(42));
    EXPECT_EQ(b.get_name(), "b");
    EXPECT_EQ(b.get_context().get(variable), 2);
    EXPECT_FALSE(a.done());
    asyncio::run_until_complete(*loop, a);
    EXPECT_EQ(a.result(), "word");
    EXPECT_EQ(*b.result(), 42);
    EXPECT_EQ(loop->time() - begin, std::chrono::seconds(1));
}

TEST(CreateTask, of_another_awaitable_with_options) {
    run_test([]() -> Coro<> {
        auto& loop = get_running_loop();
        const auto eager = create_task(loop, TaskOptions().eager_start(true),
                                       asyncio::sleep(std::chrono::seconds(1)));
        const auto named = create_task(TaskOptions().name("named"), asyncio::sleep(0, 1));
        EXPECT_EQ(named.get_name(), "named");
        const int one = co_await named;
        EXPECT_EQ(one, 1);
        const auto begin = loop.time();
        co_await eager;
        EXPECT_EQ(loop.time() - begin, std::chrono::seconds(1));
    });
}

// The standard error of the function.
template <class F> std::string errors_of(F function) {
    testing::internal::CaptureStderr();
    function();
    return testing::internal::GetCapturedStderr();
}

TEST(CreateTask, without_a_loop_is_refused_and_closes_the_coroutine) {
    const std::string errors = errors_of([] {
        bool gone = false;
        const auto body = [](SetsFlag) -> Coro<> { co_return; };
        EXPECT_THROW(create_task(body(SetsFlag(gone))), RuntimeError);
        EXPECT_TRUE(gone);
        EXPECT_THROW(create_task(TaskOptions().name("x"), answer()), RuntimeError);
        EXPECT_THROW(create_task(answer), RuntimeError);
        EXPECT_THROW(create_task(asyncio::sleep(1)), RuntimeError);
    });
    EXPECT_EQ(errors, "");
}

TEST(CreateTask, on_a_closed_loop_is_refused_and_closes_the_coroutine) {
    const auto loop = asyncio::new_event_loop();
    loop->close();
    const std::string errors = errors_of([&] {
        bool gone = false;
        const auto body = [](SetsFlag) -> Coro<> { co_return; };
        EXPECT_THROW(create_task(*loop, body(SetsFlag(gone))), RuntimeError);
        EXPECT_TRUE(gone);
        EXPECT_THROW(create_task(*loop, answer), RuntimeError);
        EXPECT_THROW(create_task(*loop, asyncio::sleep(1)), RuntimeError);
        EXPECT_THROW(create_task(*loop, TaskOptions(), asyncio::sleep(1)), RuntimeError);
    });
    EXPECT_EQ(errors, "");
}

} // namespace
