// SPDX-License-Identifier: MIT
#include <asyncio/try_finally.hpp>

#include "support/in_virtual_time.hpp"
#include <gtest/gtest.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

using namespace std::chrono_literals;
using asyncio::as_result;
using asyncio::Coro;
using asyncio::create_task;
using asyncio::sleep;
using asyncio::try_finally;
using asyncio_test::in_virtual_time;
using asyncio_test::text_of;

namespace {
using Log = std::vector<std::string>;
} // namespace

TEST(TryFinally, gives_the_value_after_the_clean_up) {
    in_virtual_time([]() -> Coro<> {
        Log log;
        auto body = [&]() -> Coro<std::unique_ptr<int>> {
            co_await sleep(1s);
            log.push_back("body");
            co_return std::make_unique<int>(5);
        };
        auto cleanup = [&]() -> Coro<> {
            co_await sleep(1s);
            log.push_back("cleanup");
        };
        const auto value = co_await try_finally(body, cleanup);
        EXPECT_EQ(*value, 5);
        EXPECT_EQ(log, (Log{"body", "cleanup"}));
    });
}

TEST(TryFinally, of_nothing_and_of_a_reference) {
    in_virtual_time([]() -> Coro<> {
        int object = 0;
        int cleanups = 0;
        co_await try_finally([]() -> Coro<> { co_return; }, [&] { ++cleanups; });
        int& reference =
            co_await try_finally([&]() -> Coro<int&> { co_return object; }, [&] { ++cleanups; });
        EXPECT_EQ(&reference, &object);
        EXPECT_EQ(cleanups, 2);
    });
}

TEST(TryFinally, throws_what_the_body_threw_after_the_clean_up) {
    in_virtual_time([]() -> Coro<> {
        Log log;
        auto result = co_await as_result(try_finally(
            []() -> Coro<int> {
                co_await sleep(1s);
                throw std::runtime_error("body");
            },
            [&]() -> Coro<> {
                co_await sleep(1s);
                log.push_back("cleanup");
            }));
        EXPECT_EQ(text_of(result.exception()), "exception: body");
        EXPECT_EQ(log, (Log{"cleanup"}));
    });
}

TEST(TryFinally, cleans_up_after_a_body_that_throws_before_it_is_a_coroutine) {
    in_virtual_time([]() -> Coro<> {
        bool cleaned = false;
        auto result = co_await as_result(try_finally(
            []() -> Coro<int> { // no coroutine itself
                throw std::runtime_error("early");
            },
            [&] { cleaned = true; }));
        EXPECT_EQ(text_of(result.exception()), "exception: early");
        EXPECT_TRUE(cleaned);
    });
}

TEST(TryFinally, what_the_clean_up_throws_replaces_what_the_body_threw) {
    in_virtual_time([]() -> Coro<> {
        auto body = []() -> Coro<> {
            co_await sleep(0);
            throw std::runtime_error("body");
        };
        auto thrown = co_await as_result(try_finally(body, []() -> Coro<> {
            co_await sleep(0);
            throw std::runtime_error("cleanup");
        }));
        EXPECT_EQ(text_of(thrown.exception()), "exception: cleanup");
        auto plain = co_await as_result(
            try_finally(body, [] { throw std::runtime_error("plain cleanup"); }));
        EXPECT_EQ(text_of(plain.exception()), "exception: plain cleanup");
        auto after_value = co_await as_result(
            try_finally([]() -> Coro<int> { co_return 1; }, [] { throw std::runtime_error("c"); }));
        EXPECT_EQ(text_of(after_value.exception()), "exception: c");
    });
}

TEST(TryFinally, a_cancel_of_the_body_goes_on_after_a_clean_up_that_may_await) {
    in_virtual_time([]() -> Coro<> {
        Log log;
        auto task = create_task([&]() -> Coro<> {
            co_await try_finally(
                [&]() -> Coro<> {
                    co_await sleep(10s);
                    log.push_back("not reached");
                },
                [&]() -> Coro<> {
                    co_await sleep(1s);
                    log.push_back("cleanup");
                });
            log.push_back("not reached either");
        });
        co_await sleep(1s);
        task.cancel("stop");
        auto result = co_await as_result(task);
        EXPECT_EQ(text_of(result.exception()), "CancelledError: stop");
        EXPECT_TRUE(task.cancelled());
        EXPECT_EQ(log, (Log{"cleanup"}));
    });
}

TEST(TryFinally, a_cancel_during_the_clean_up_ends_it) {
    in_virtual_time([]() -> Coro<> {
        Log log;
        auto task = create_task([&]() -> Coro<> {
            co_await try_finally([&]() -> Coro<> { co_await sleep(10s); },
                                 [&]() -> Coro<> {
                                     log.push_back("begin");
                                     co_await sleep(10s);
                                     log.push_back("not reached");
                                 });
        });
        co_await sleep(1s);
        task.cancel("first");
        co_await sleep(1s);
        EXPECT_FALSE(task.done());
        task.cancel("second");
        auto result = co_await as_result(task);
        EXPECT_EQ(text_of(result.exception()), "CancelledError: second");
        EXPECT_EQ(log, (Log{"begin"}));
    });
}

TEST(TryFinally, a_cancel_before_the_first_step_runs_neither) {
    in_virtual_time([]() -> Coro<> {
        Log log;
        auto task = create_task(try_finally(
            [&]() -> Coro<> {
                log.push_back("body");
                co_return;
            },
            [&] { log.push_back("cleanup"); }));
        task.cancel();
        static_cast<void>(co_await as_result(task));
        EXPECT_TRUE(task.cancelled());
        EXPECT_TRUE(log.empty());
    });
}

TEST(TryFinally, both_callables_live_until_the_end_and_no_longer) {
    in_virtual_time([]() -> Coro<> {
        auto alive = std::make_shared<int>(0);
        std::weak_ptr<int> watch = alive;
        auto body = [alive]() -> Coro<> {
            co_await sleep(1s);
            EXPECT_EQ(*alive, 0);
        };
        auto cleanup = [alive]() -> Coro<> {
            co_await sleep(1s);
            EXPECT_EQ(*alive, 0);
        };
        auto task = create_task(try_finally(asyncio::moved(body), asyncio::moved(cleanup)));
        alive.reset();
        EXPECT_FALSE(watch.expired());
        co_await task;
        EXPECT_TRUE(watch.expired());
    });
}

TEST(TryFinally, can_be_nested) {
    in_virtual_time([]() -> Coro<> {
        Log log;
        auto inner = [&]() -> Coro<int> {
            return try_finally([]() -> Coro<int> { co_return 1; }, [&] { log.push_back("inner"); });
        };
        const int value = co_await try_finally(inner, [&] { log.push_back("outer"); });
        EXPECT_EQ(value, 1);
        EXPECT_EQ(log, (Log{"inner", "outer"}));
    });
}
