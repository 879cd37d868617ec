// SPDX-License-Identifier: MIT
#include <asyncio/asyncio.hpp>

#include "support/in_virtual_time.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using namespace std::chrono_literals;
using asyncio::CancelledError;
using asyncio::ConcurrentFuture;
using asyncio::Coro;
using asyncio::create_future;
using asyncio::EventLoop;
using asyncio::run_coroutine_threadsafe;
using asyncio::sleep;
using asyncio::ValueError;
using asyncio_test::Reports;
using asyncio_test::text_of;
using asyncio_test::thrown_by;

namespace {

Coro<int> give(int value) {
    co_await sleep(0);
    co_return value;
}
Coro<> forever() { co_await create_future(); }
Coro<int> fail() {
    co_await sleep(0);
    throw ValueError("bad");
}

// A loop that runs on a thread of its own.
class LoopThread {
  public:
    LoopThread() : owner_(asyncio::new_event_loop()), thread_([this] { owner_->run_forever(); }) {}
    ~LoopThread() { end(); }
    LoopThread(const LoopThread&) = delete;
    LoopThread& operator=(const LoopThread&) = delete;

    EventLoop& loop() { return *owner_; }
    // The thread has ended; the loop is still there.
    void end() {
        if (!thread_.joinable()) return;
        owner_->call_soon_threadsafe([this] { owner_->stop(); });
        thread_.join();
    }
    void close() {
        end();
        owner_->close();
    }

  private:
    asyncio::EventLoopOwner owner_;
    std::thread thread_;
};

} // namespace

TEST(ConcurrentFutureThread, gives_results_to_another_thread) {
    LoopThread other;
    EXPECT_EQ(run_coroutine_threadsafe(give(1), other.loop()).result(), 1);
    const auto future = run_coroutine_threadsafe(give(2), other.loop());
    EXPECT_EQ(future.result(1h), 2);
    EXPECT_EQ(future.result(), 2);
    EXPECT_TRUE(future.done());
    EXPECT_FALSE(future.cancelled());
    EXPECT_FALSE(future.cancel());
    EXPECT_EQ(future.exception(), nullptr);
    run_coroutine_threadsafe([]() -> Coro<> { co_await sleep(0); }, other.loop()).result();

    auto owned = run_coroutine_threadsafe(
                     []() -> Coro<std::unique_ptr<int>> { co_return std::make_unique<int>(3); },
                     other.loop())
                     .result();
    EXPECT_EQ(*owned, 3);
    int place = 0;
    int& same =
        run_coroutine_threadsafe([&]() -> Coro<int&> { co_return place; }, other.loop()).result();
    EXPECT_EQ(&same, &place);
    // The callable, and what it captures, are kept.
    const std::string text = "a text that is far too long to be kept inside of a std::string";
    EXPECT_EQ(run_coroutine_threadsafe(
                  [text]() -> Coro<std::string> {
                      co_await sleep(0);
                      co_return text;
                  },
                  other.loop())
                  .result(),
              text);
}

TEST(ConcurrentFutureThread, gives_exceptions_to_another_thread) {
    LoopThread other;
    const Reports reports;
    const auto future = run_coroutine_threadsafe(fail(), other.loop());
    EXPECT_EQ(thrown_by([&] { return future.result(); }), "ValueError: bad");
    EXPECT_EQ(text_of(future.exception()), "ValueError: bad");
    EXPECT_FALSE(future.cancelled());
    const auto cancelled = run_coroutine_threadsafe(
        []() -> Coro<> {
            co_await sleep(0);
            throw CancelledError("own");
        },
        other.loop());
    EXPECT_EQ(thrown_by([&] {
                  cancelled.result();
                  return 0;
              }),
              "CancelledError: own");
    EXPECT_TRUE(cancelled.cancelled());
}

TEST(ConcurrentFutureThread, gives_what_the_task_factory_throws_to_both_threads) {
    Reports reports;
    LoopThread other;
    other.loop().call_soon_threadsafe([&] {
        reports.watch(other.loop());
        asyncio::set_task_factory(
            other.loop(),
            [](EventLoop&, asyncio::NewTask&, asyncio::TaskOptions) -> asyncio::AnyTask {
                throw ValueError("no task");
            });
    });
    const auto future = run_coroutine_threadsafe(give(1), other.loop());
    EXPECT_EQ(thrown_by([&] { return future.result(); }), "ValueError: no task");
    other.end();
    EXPECT_EQ(reports.count(), 1U) << reports.text();
    EXPECT_EQ(text_of(reports.all.at(0).exception), "ValueError: no task");
    asyncio::set_task_factory(other.loop(), nullptr);
}

TEST(ConcurrentFutureThread, waits_no_longer_than_the_timeout_and_leaves_the_task_alone) {
    LoopThread other;
    std::atomic<bool> go = false;
    const auto future = run_coroutine_threadsafe(
        [&]() -> Coro<int> {
            while (!go) co_await sleep(1ms);
            co_return 5;
        },
        other.loop());
    EXPECT_THROW(static_cast<void>(future.result(1ms)), asyncio::TimeoutError);
    EXPECT_THROW(static_cast<void>(future.result(0)), asyncio::TimeoutError);
    EXPECT_THROW(static_cast<void>(future.exception(-1s)), asyncio::TimeoutError);
    EXPECT_FALSE(future.done());
    go = true;
    EXPECT_EQ(future.result(), 5);
}

TEST(ConcurrentFutureThread, cancels_the_task) {
    LoopThread other;
    std::atomic<int> told = 0;
    auto began = run_coroutine_threadsafe([]() -> Coro<> { co_return; }, other.loop());
    began.result();
    std::atomic<bool> waits = false;
    const auto future = run_coroutine_threadsafe(
        [&]() -> Coro<> {
            waits = true;
            waits.notify_all();
            try {
                co_await forever();
            } catch (const CancelledError&) {
                told = 1;
                told.notify_all();
                throw;
            }
        },
        other.loop());
    waits.wait(false);
    EXPECT_TRUE(future.cancel());
    EXPECT_TRUE(future.cancelled());
    EXPECT_FALSE(future.cancel());
    EXPECT_EQ(thrown_by([&] {
                  future.result();
                  return 0;
              }),
              "CancelledError: ");
    told.wait(0); // the task hears of it
}

TEST(ConcurrentFutureThread, calls_back_when_it_is_done) {
    LoopThread other;
    std::atomic<int> sum = 0;
    const auto future = run_coroutine_threadsafe(give(5), other.loop());
    future.add_done_callback([&](const ConcurrentFuture<int>& done) { sum += done.result(); });
    future.add_done_callback([] { throw ValueError("goes to standard error"); });
    future.add_done_callback([&, owned = std::make_unique<int>(3)] {
        sum += *owned;
        sum.notify_all();
    });
    for (int seen = sum; seen != 8; seen = sum) sum.wait(seen);
    future.add_done_callback([&] { sum += 10; }); // at once
    EXPECT_EQ(sum, 18);

    const auto cancelled = run_coroutine_threadsafe(forever(), other.loop());
    cancelled.add_done_callback([&, caller = std::this_thread::get_id()] {
        if (std::this_thread::get_id() == caller) sum += 100;
    });
    cancelled.cancel();
    EXPECT_EQ(sum, 118);
}

TEST(ConcurrentFutureThread, refuses_a_closed_loop_and_closes_the_coroutine) {
    Reports reports;
    const auto loop = asyncio::new_event_loop();
    reports.watch(*loop);
    loop->close();
    EXPECT_EQ(thrown_by([&] { return run_coroutine_threadsafe(give(1), *loop); }).substr(0, 36),
              "RuntimeError: Event loop is closed: ");
    EXPECT_EQ(reports.text(), "");
}

TEST(ConcurrentFutureThread, is_cancelled_by_a_loop_that_closes) {
    std::optional<ConcurrentFuture<>> begun;
    std::optional<ConcurrentFuture<>> not_begun;
    {
        const auto loop = asyncio::new_event_loop();
        const Reports reports(*loop);
        begun = run_coroutine_threadsafe(forever(), *loop);
        loop->stop();
        loop->run_forever();
        loop->stop();
        loop->run_forever();
        not_begun = run_coroutine_threadsafe(forever(), *loop);
        EXPECT_FALSE(begun->done());
        loop->close();
        EXPECT_EQ(reports.count("pending"), 1U) << reports.text();
        EXPECT_EQ(reports.count(), 1U);
    }
    for (const auto& future : {*begun, *not_begun}) {
        EXPECT_TRUE(future.cancelled());
        EXPECT_EQ(thrown_by([&] {
                      future.result();
                      return 0;
                  }),
                  "CancelledError: its event loop was closed");
        EXPECT_FALSE(future.cancel());
    }
}

TEST(ConcurrentFutureThread, cancelled_before_the_loop_has_seen_it_has_its_first_step) {
    const auto loop = asyncio::new_event_loop();
    int ran = 0;
    const auto future = run_coroutine_threadsafe(
        [&]() -> Coro<> {
            ++ran;
            co_await forever();
        },
        *loop);
    EXPECT_TRUE(future.cancel());
    for (int i = 0; i < 5; ++i) {
        loop->stop();
        loop->run_forever();
    }
    EXPECT_EQ(ran, 1);
    EXPECT_TRUE(asyncio::all_tasks(*loop).empty());
}

TEST(ConcurrentFutureThread, on_the_thread_of_the_loop_says_that_it_would_wait_for_ever) {
    asyncio::run([]() -> Coro<> {
        const auto future = run_coroutine_threadsafe(give(1), asyncio::get_running_loop());
        EXPECT_EQ(thrown_by([&] { return future.result(); }).substr(0, 45),
                  "RuntimeError: result() would wait for ever: t");
        while (!future.done()) co_await sleep(0);
        EXPECT_EQ(future.result(), 1);
    });
}

TEST(ConcurrentFutureThread, takes_and_cancels_many_from_many_threads_while_the_loop_closes) {
    for (int round = 0; round < 20; ++round) {
        LoopThread other;
        other.loop().set_exception_handler([](EventLoop&, const asyncio::ExceptionContext&) {});
        std::atomic<int> done = 0;
        std::vector<std::thread> threads;
        for (int i = 0; i < 3; ++i) {
            threads.emplace_back([&, i] {
                for (int k = 0; k < 50; ++k) {
                    std::optional<ConcurrentFuture<int>> future;
                    try {
                        future = run_coroutine_threadsafe(
                            [k]() -> Coro<int> {
                                if (k % 5 == 0) co_await sleep(1h);
                                co_return co_await give(k);
                            },
                            other.loop());
                    } catch (const asyncio::RuntimeError&) {
                        return; // closed
                    }
                    if ((k + i) % 3 == 0 || k % 5 == 0) future->cancel();
                    try {
                        EXPECT_EQ(future->result(), k);
                    } catch (const CancelledError&) {
                    }
                    ++done;
                }
            });
        }
        while (done < round) std::this_thread::yield();
        other.close(); // the loop itself lives until the threads have ended
        for (std::thread& thread : threads) thread.join();
    }
}
