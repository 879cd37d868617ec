// SPDX-License-Identifier: MIT
#include <asyncio/asyncio.hpp>

#include "support/in_virtual_time.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <type_traits>

using namespace std::chrono_literals;
using asyncio::Coro;
using asyncio::create_future;
using asyncio::create_task;
using asyncio::ensure_future;
using asyncio::get_running_loop;
using asyncio_test::in_virtual_time;
using asyncio_test::Reports;
using asyncio_test::thrown_by;

namespace {

Coro<int> give() { co_return 1; }

} // namespace

TEST(EnsureFuture, gives_futures_back_and_makes_tasks_of_the_rest) {
    in_virtual_time([]() -> Coro<> {
        auto task = create_task(give());
        const auto same = ensure_future(task);
        static_assert(std::is_same_v<decltype(ensure_future(task)), asyncio::Task<int>>);
        EXPECT_TRUE(same == task);
        const auto future = create_future<std::string>();
        EXPECT_TRUE(ensure_future(future) == future);
        EXPECT_TRUE(ensure_future(get_running_loop(), future) == future);

        auto of_coroutine = ensure_future(give());
        auto of_callable = ensure_future(give);
        auto of_sleep = ensure_future(asyncio::sleep(1s));
        const int sum = co_await of_coroutine + co_await of_callable;
        EXPECT_EQ(sum, 2);
        co_await of_sleep;
        co_await task;
    });
}

TEST(EnsureFuture, refuses_another_loop_and_closes_the_coroutine_without_one) {
    Reports reports;
    const auto loop = asyncio::new_event_loop();
    reports.watch(*loop);
    const auto other = asyncio::new_event_loop();
    const auto future = create_future(*other);
    EXPECT_EQ(thrown_by([&] { return ensure_future(*loop, future); }).substr(0, 10), "ValueError");
    EXPECT_EQ(thrown_by([] { return ensure_future(give()); }).substr(0, 12), "RuntimeError");
    auto task = ensure_future(*loop, give());
    EXPECT_EQ(asyncio::run_until_complete(*loop, task), 1);
    loop->close();
    EXPECT_EQ(thrown_by([&] { return ensure_future(*loop, give()); }).substr(0, 12),
              "RuntimeError");
    EXPECT_EQ(reports.text(), "");
}
