// SPDX-License-Identifier: MIT
#include <asyncio/as_result.hpp>

#include "support/in_virtual_time.hpp"
#include <gtest/gtest.h>

#include <coroutine>
#include <memory>
#include <stdexcept>
#include <string>
#include <typeinfo>

using namespace std::chrono_literals;
using asyncio::as_result;
using asyncio::Coro;
using asyncio::create_future;
using asyncio::create_task;
using asyncio::Result;
using asyncio::sleep;
using asyncio_test::in_virtual_time;
using asyncio_test::text_of;

namespace {

Coro<int> gives(int value) {
    co_await sleep(1ms);
    co_return value;
}
Coro<int> fails(const char* text) {
    co_await sleep(1ms);
    throw std::runtime_error(text);
}

struct Ready {
    int value;
    bool await_ready() const noexcept { return true; }
    void await_suspend(std::coroutine_handle<>) const noexcept {}
    int await_resume() const {
        if (value < 0) throw std::runtime_error("await_resume");
        return value;
    }
};
struct ThrowsInSuspend {
    bool await_ready() const noexcept { return false; }
    bool await_suspend(std::coroutine_handle<>) const { throw std::runtime_error("await_suspend"); }
    void await_resume() const noexcept {}
};
struct ThrowsInReady {
    bool await_ready() const { throw std::runtime_error("await_ready"); }
    void await_suspend(std::coroutine_handle<>) const noexcept {}
    void await_resume() const noexcept {}
};
struct GivesRvalue {
    std::unique_ptr<int> value = std::make_unique<int>(7);
    bool await_ready() const noexcept { return true; }
    void await_suspend(std::coroutine_handle<>) const noexcept {}
    std::unique_ptr<int>&& await_resume() { return std::move(value); }
};

} // namespace

TEST(AsResult, of_a_coroutine) {
    in_virtual_time([]() -> Coro<> {
        auto good = co_await as_result(gives(5));
        static_assert(std::is_same_v<decltype(good), Result<int>>);
        EXPECT_EQ(good.value(), 5);
        auto bad = co_await as_result(fails("x"));
        EXPECT_EQ(text_of(bad.exception()), "exception: x");
        auto named = gives(6);
        auto from_named = co_await as_result(named);
        EXPECT_EQ(from_named.value(), 6);
        int object = 0;
        auto reference = [&]() -> Coro<int&> { co_return object; };
        auto of_reference = co_await as_result(reference());
        EXPECT_EQ(&of_reference.value(), &object);
        auto unique = []() -> Coro<std::unique_ptr<int>> { co_return std::make_unique<int>(1); };
        auto of_unique = co_await as_result(unique());
        EXPECT_EQ(*of_unique.value(), 1);
    });
}

TEST(AsResult, of_a_task_and_of_a_future) {
    in_virtual_time([]() -> Coro<> {
        auto task = create_task(gives(5));
        auto from_task = co_await as_result(task);
        EXPECT_EQ(from_task.value(), 5);
        auto failing = create_task(fails("t"));
        auto from_failing = co_await as_result(failing);
        EXPECT_EQ(text_of(from_failing.exception()), "exception: t");
        auto unique = create_future<std::unique_ptr<int>>();
        unique.set_result(std::make_unique<int>(3));
        auto from_unique = co_await as_result(std::move(unique));
        EXPECT_EQ(*from_unique.value(), 3);
        auto nothing = create_future();
        nothing.set_result();
        auto from_nothing = co_await as_result(nothing);
        static_assert(std::is_same_v<decltype(from_nothing), Result<void>>);
        EXPECT_TRUE(from_nothing);
        auto any = co_await as_result(asyncio::AnyFuture(nothing));
        EXPECT_TRUE(any);
        auto cancelled = create_future<int>();
        cancelled.cancel("c");
        auto from_cancelled = co_await as_result(cancelled);
        EXPECT_EQ(text_of(from_cancelled.exception()), "CancelledError: c");
    });
}

TEST(AsResult, of_a_sleep_and_of_a_gather) {
    in_virtual_time([]() -> Coro<> {
        auto slept = co_await as_result(sleep(1s));
        EXPECT_TRUE(slept);
        auto with_result = co_await as_result(sleep(1s, std::string("word")));
        EXPECT_EQ(with_result.value(), "word");
        auto yielded = co_await as_result(sleep(0));
        EXPECT_TRUE(yielded);
        auto both = co_await as_result(asyncio::gather(gives(1), gives(2)));
        EXPECT_EQ(both.value(), std::tuple(1, 2));
        auto failed = co_await as_result(asyncio::gather(gives(1), fails("g")));
        EXPECT_EQ(text_of(failed.exception()), "exception: g");
    });
}

TEST(AsResult, of_an_awaitable_that_is_not_ours) {
    in_virtual_time([]() -> Coro<> {
        auto good = co_await as_result(Ready{5});
        EXPECT_EQ(good.value(), 5);
        Ready named{-1};
        auto bad = co_await as_result(named);
        EXPECT_EQ(text_of(bad.exception()), "exception: await_resume");
        auto in_suspend = co_await as_result(ThrowsInSuspend());
        EXPECT_EQ(text_of(in_suspend.exception()), "exception: await_suspend");
        auto in_ready = co_await as_result(ThrowsInReady());
        EXPECT_EQ(text_of(in_ready.exception()), "exception: await_ready");
        GivesRvalue gives_rvalue;
        auto moved = co_await as_result(gives_rvalue);
        static_assert(std::is_same_v<decltype(moved), Result<std::unique_ptr<int>>>);
        EXPECT_EQ(*moved.value(), 7);
        auto never = co_await as_result(std::suspend_never());
        EXPECT_TRUE(never);
    });
}

TEST(AsResult, of_an_as_result) {
    in_virtual_time([]() -> Coro<> {
        auto nested = co_await as_result(as_result(fails("x")));
        EXPECT_TRUE(nested);
        EXPECT_EQ(text_of(nested.value().exception()), "exception: x");
    });
}

TEST(AsResult, a_cancel_comes_as_a_result_and_is_delivered_with_it) {
    in_virtual_time([]() -> Coro<> {
        std::string seen;
        auto task = create_task([&]() -> Coro<int> {
            auto slept = co_await as_result(sleep(10s));
            seen = text_of(slept.exception());
            co_await sleep(1s); // not cancelled again
            co_return 5;
        });
        co_await sleep(1s);
        task.cancel("stop");
        const int value = co_await task;
        EXPECT_EQ(value, 5);
        EXPECT_EQ(seen, "CancelledError: stop");
        EXPECT_EQ(task.cancelling(), 1U);
    });
}

TEST(AsResult, a_cancel_is_passed_on_by_value) {
    in_virtual_time([]() -> Coro<> {
        auto task = create_task([]() -> Coro<> {
            auto slept = co_await as_result(sleep(10s));
            slept.value();
        });
        co_await sleep(1s);
        task.cancel("stop");
        static_cast<void>(co_await as_result(task));
        EXPECT_TRUE(task.cancelled());
    });
}

TEST(AsResult, a_cancel_reaches_through_a_coroutine_a_task_a_gather_and_a_future) {
    in_virtual_time([]() -> Coro<> {
        auto inner = []() -> Coro<> { co_await sleep(10s); };
        for (int what = 0; what < 4; ++what) {
            std::string seen;
            auto task = create_task([&]() -> Coro<> {
                std::exception_ptr exception;
                if (what == 0) {
                    auto result = co_await as_result(inner());
                    exception = result.exception();
                } else if (what == 1) {
                    auto result = co_await as_result(create_task(inner()));
                    exception = result.exception();
                } else if (what == 2) {
                    auto result = co_await as_result(asyncio::gather(inner(), inner()));
                    exception = result.exception();
                } else {
                    auto result = co_await as_result(create_future<int>());
                    exception = result.exception();
                }
                seen = text_of(exception);
            });
            co_await sleep(1s);
            task.cancel("stop");
            co_await task;
            EXPECT_EQ(seen, "CancelledError: stop") << what;
        }
    });
}

TEST(AsResult, without_an_await_nothing_runs_and_the_coroutine_is_reported) {
    in_virtual_time([]() -> Coro<> {
        asyncio_test::Reports reports(asyncio::get_running_loop());
        {
            static_cast<void>(as_result(gives(1)));
        }
        EXPECT_EQ(reports.count("was never awaited"), 1U);
        asyncio::get_running_loop().set_exception_handler(nullptr);
        co_return;
    });
}
