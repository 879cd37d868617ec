// SPDX-License-Identifier: MIT
//
// Depth costs no stack: neither a long row of awaits that complete at once, nor a long chain of
// coroutines that await each other, at any level of optimisation and under sanitizers.

#include <asyncio/asyncio.hpp>
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <utility>

namespace {

using asyncio::Coro;

constexpr int many = 1'000'000;
constexpr int deep = 100'000;

Coro<int> one() { co_return 1; }

// The distance on the stack from where the first was made: what a run really used.
class StackUse {
  public:
    __attribute__((noinline)) void look() {
        const auto address = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
        low_ = address < low_ ? address : low_;
        high_ = address > high_ ? address : high_;
    }
    std::size_t bytes() const { return high_ - low_; }

  private:
    std::uintptr_t low_ = UINTPTR_MAX;
    std::uintptr_t high_ = 0;
};

// A chain of `depth` coroutines; the innermost awaits `leaf`.
template <class Leaf> Coro<int> chain(int depth, Leaf& leaf) {
    if (depth == 0) co_return co_await leaf();
    const int below = co_await chain(depth - 1, leaf);
    co_return below + 1;
}

template <class Body> auto run_it(Body& body) { return asyncio::run(body()); }

} // namespace

TEST(Depth, a_million_children_that_return_at_once) {
    auto body = []() -> Coro<int> {
        int sum = 0;
        for (int i = 0; i < many; ++i) sum += co_await one();
        co_return sum;
    };
    EXPECT_EQ(run_it(body), many);
}

TEST(Depth, a_million_awaits_of_a_done_future) {
    auto body = []() -> Coro<int> {
        auto future = asyncio::create_future<int>();
        future.set_result(1);
        int sum = 0;
        for (int i = 0; i < many; ++i) sum += co_await future;
        co_return sum;
    };
    EXPECT_EQ(run_it(body), many);
}

TEST(Depth, a_million_awaits_of_a_done_task) {
    auto body = []() -> Coro<int> {
        auto task = asyncio::create_task(one());
        int sum = 0;
        for (int i = 0; i < many; ++i) sum += co_await task;
        co_return sum;
    };
    EXPECT_EQ(run_it(body), many);
}

TEST(Depth, a_million_foreign_awaitables_that_do_not_suspend) {
    struct Ready {
        bool await_ready() const { return true; }
        void await_suspend(std::coroutine_handle<>) const {}
        int await_resume() const { return 1; }
    };
    struct Refuses {
        bool await_ready() const { return false; }
        bool await_suspend(std::coroutine_handle<>) const { return false; }
        int await_resume() const { return 1; }
    };
    auto body = []() -> Coro<int> {
        int sum = 0;
        for (int i = 0; i < many / 2; ++i) {
            sum += co_await Ready();
            sum += co_await Refuses();
        }
        co_return sum;
    };
    EXPECT_EQ(run_it(body), many);
}

TEST(Depth, a_million_results_of_children_that_fail_at_once) {
    // Fewer: each costs a throw.
    constexpr int some = 100'000;
    auto fails = []() -> Coro<int> {
        throw asyncio::RuntimeError("no");
        co_return 1;
    };
    auto body = [&]() -> Coro<int> {
        int failures = 0;
        for (int i = 0; i < some; ++i) {
            const auto result = co_await asyncio::as_result(fails());
            failures += result ? 0 : 1;
        }
        co_return failures;
    };
    EXPECT_EQ(run_it(body), some);
}

TEST(Depth, a_million_yields) {
    auto body = []() -> Coro<int> {
        int sum = 0;
        for (int i = 0; i < many; ++i) {
            co_await asyncio::sleep(0);
            ++sum;
        }
        co_return sum;
    };
    EXPECT_EQ(run_it(body), many);
}

TEST(Depth, a_chain_of_100000_coroutines_uses_no_stack) {
    StackUse stack;
    auto leaf = [&]() -> Coro<int> {
        stack.look();
        co_return 0;
    };
    auto body = [&]() -> Coro<int> {
        stack.look();
        co_return co_await chain(deep, leaf);
    };
    EXPECT_EQ(run_it(body), deep);
    EXPECT_LT(stack.bytes(), 16'384u);
}

TEST(Depth, a_chain_of_100000_coroutines_that_suspends_at_its_end) {
    StackUse stack;
    auto leaf = [&]() -> Coro<int> {
        stack.look();
        co_await asyncio::sleep(0);
        stack.look();
        co_return 0;
    };
    auto body = [&]() -> Coro<int> {
        stack.look();
        const int depth = co_await chain(deep, leaf);
        stack.look();
        co_return depth;
    };
    EXPECT_EQ(run_it(body), deep);
    EXPECT_LT(stack.bytes(), 16'384u);
}

TEST(Depth, an_exception_goes_through_1000_frames) {
    auto leaf = []() -> Coro<int> {
        throw asyncio::RuntimeError("from below");
        co_return 0;
    };
    auto body = [&]() -> Coro<std::string> {
        try {
            co_await chain(1'000, leaf);
        } catch (const asyncio::RuntimeError& error) {
            co_return error.what();
        }
        co_return "";
    };
    EXPECT_EQ(run_it(body), "from below");
}

TEST(Depth, a_cancel_arrives_at_a_depth_of_10000_and_goes_through_it) {
    auto leaf = []() -> Coro<int> {
        co_await asyncio::sleep(3600);
        co_return 0;
    };
    auto body = [&]() -> Coro<bool> {
        auto task = asyncio::create_task(chain(10'000, leaf));
        co_await asyncio::sleep(0);
        task.cancel();
        static_cast<void>(co_await asyncio::as_result(task));
        co_return task.cancelled();
    };
    EXPECT_TRUE(run_it(body));
}

TEST(Depth, tasks_that_await_tasks_10000_deep) {
    struct Nest {
        static Coro<int> task(int depth) {
            if (depth == 0) co_return 0;
            auto inner = asyncio::create_task(task(depth - 1));
            const int below = co_await inner;
            co_return below + 1;
        }
    };
    auto body = []() -> Coro<int> { co_return co_await Nest::task(10'000); };
    EXPECT_EQ(run_it(body), 10'000);
}

TEST(Depth, a_cancel_goes_along_1000_tasks_that_await_each_other) {
    struct Nest {
        static Coro<int> task(int depth) {
            if (depth == 0) {
                co_await asyncio::sleep(3600);
                co_return 0;
            }
            auto inner = asyncio::create_task(task(depth - 1));
            const int below = co_await inner;
            co_return below + 1;
        }
    };
    constexpr int depth = 1'000;
    auto body = []() -> Coro<bool> {
        auto task = asyncio::create_task(Nest::task(depth));
        for (int i = 0; i < depth + 2; ++i) co_await asyncio::sleep(0);
        task.cancel();
        static_cast<void>(co_await asyncio::as_result(task));
        co_return task.cancelled();
    };
    EXPECT_TRUE(run_it(body));
}

TEST(Depth, closing_a_loop_destroys_a_suspended_chain_of_100000_coroutines) {
    struct Counted {
        int& alive;
        explicit Counted(int& n) : alive(n) { ++alive; }
        Counted(const Counted&) = delete;
        Counted& operator=(const Counted&) = delete;
        ~Counted() { --alive; }
    };
    struct Chain {
        static Coro<int> of(int depth, int& alive, int& out_of_order) {
            struct Order { // the inner frames are gone when this one's locals go
                int& alive;
                int& out_of_order;
                int mine;
                ~Order() { out_of_order += alive == mine ? 0 : 1; }
            };
            const Counted counted(alive);
            const Order order{alive, out_of_order, alive};
            if (depth == 0) {
                co_await asyncio::sleep(3600);
                co_return 0;
            }
            if (depth % 2 == 0) {
                const auto below = co_await asyncio::as_result(of(depth - 1, alive, out_of_order));
                co_return below.value() + 1;
            }
            const int below = co_await of(depth - 1, alive, out_of_order);
            co_return below + 1;
        }
    };
    int alive = 0;
    int out_of_order = 0;
    {
        auto loop = asyncio::new_event_loop();
        loop->set_exception_handler([](asyncio::EventLoop&, const asyncio::ExceptionContext&) {});
        asyncio::create_task(*loop, Chain::of(deep, alive, out_of_order));
        loop->stop();
        loop->run_forever();
        EXPECT_EQ(alive, deep + 1);
    }
    EXPECT_EQ(alive, 0);
    EXPECT_EQ(out_of_order, 0);
}
