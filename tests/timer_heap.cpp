// SPDX-License-Identifier: MIT
#include <asyncio/detail/timer_heap.hpp>
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <random>
#include <set>
#include <utility>
#include <vector>

namespace {

using asyncio::detail::Timer;
using asyncio::detail::TimerHeap;

class TestTimer final : public Timer {
  public:
    void run() override {}
    asyncio::CancelOutcome try_cancel() noexcept override {
        return asyncio::CancelOutcome::done_now;
    }
    std::size_t number = 0;
    std::uint64_t armed_as = 0; // what the oracle believes the order of arming to be
};

// The same as the heap, by a library that is right.
struct Oracle {
    using Entry = std::pair<std::pair<std::int64_t, std::uint64_t>, std::size_t>;
    std::set<Entry> entries;
    std::uint64_t armed = 0;

    static Entry entry_of(const TestTimer& timer) {
        return {{timer.when_ns, timer.armed_as}, timer.number};
    }
    void arm(TestTimer& timer) {
        timer.armed_as = ++armed;
        entries.insert(entry_of(timer));
    }
    void disarm(const TestTimer& timer) { entries.erase(entry_of(timer)); }
    std::size_t pop() {
        const std::size_t number = entries.begin()->second;
        entries.erase(entries.begin());
        return number;
    }
};

struct Weights {
    unsigned int arm;
    unsigned int disarm;
    unsigned int pop;
};

class TimerHeapAgainstOracle : public testing::TestWithParam<unsigned int> {};

std::size_t run_random_operations(unsigned int seed, std::size_t operations, Weights weights,
                                  std::int64_t latest) {
    constexpr std::size_t timer_count = 3000;
    std::mt19937_64 random(seed);
    std::vector<std::unique_ptr<TestTimer>> timers;
    for (std::size_t i = 0; i < timer_count; ++i) {
        timers.push_back(std::make_unique<TestTimer>());
        timers.back()->number = i;
    }
    TimerHeap heap;
    Oracle oracle;
    std::size_t compared = 0;
    const auto below = [&random](std::uint64_t bound) { return random() % bound; };
    for (std::size_t i = 0; i < operations; ++i) {
        const auto choice = below(weights.arm + weights.disarm + weights.pop);
        TestTimer& timer = *timers[below(timer_count)];
        if (choice >= weights.arm + weights.disarm) {
            if (oracle.entries.empty()) continue;
            auto& first = static_cast<TestTimer&>(heap.pop());
            const std::size_t expected = oracle.pop();
            if (first.number != expected || first.is_armed()) {
                ADD_FAILURE() << "operation " << i << " popped timer " << first.number
                              << " instead of " << expected;
                return compared;
            }
            ++compared;
        } else if (timer.is_armed()) {
            if (choice < weights.arm) continue;
            heap.disarm(timer);
            oracle.disarm(timer);
            EXPECT_FALSE(timer.is_armed());
        } else if (choice < weights.arm) {
            timer.when_ns = static_cast<std::int64_t>(below(static_cast<std::uint64_t>(latest)));
            heap.arm(timer);
            oracle.arm(timer);
            EXPECT_TRUE(timer.is_armed());
        }
        if (heap.empty() != oracle.entries.empty()) {
            ADD_FAILURE() << "operation " << i << ": heap.empty() is " << heap.empty();
            return compared;
        }
        if (!heap.empty()) {
            const auto& first = static_cast<const TestTimer&>(*heap.earliest());
            if (first.number != oracle.entries.begin()->second) {
                ADD_FAILURE() << "operation " << i << ": the earliest is " << first.number;
                return compared;
            }
        }
    }
    while (!oracle.entries.empty()) {
        if (static_cast<TestTimer&>(heap.pop()).number != oracle.pop()) {
            ADD_FAILURE() << "wrong order at the end";
            return compared;
        }
        ++compared;
    }
    EXPECT_TRUE(heap.empty());
    return compared;
}

} // namespace

TEST_P(TimerHeapAgainstOracle, a_growing_and_shrinking_heap_keeps_the_order) {
    EXPECT_GT(run_random_operations(GetParam(), 100'000, {4, 2, 2}, 1'000'000'000), 10'000U);
}

TEST_P(TimerHeapAgainstOracle, equal_deadlines_keep_the_order_of_arming) {
    EXPECT_GT(run_random_operations(GetParam(), 100'000, {4, 2, 2}, 5), 10'000U);
}

TEST_P(TimerHeapAgainstOracle, mostly_disarmed_timers_keep_the_order) {
    EXPECT_GT(run_random_operations(GetParam(), 100'000, {10, 10, 1}, 1000), 100U);
}

TEST_P(TimerHeapAgainstOracle, a_heap_that_is_nearly_empty_keeps_the_order) {
    EXPECT_GT(run_random_operations(GetParam(), 100'000, {2, 200, 2}, 50), 500U);
}

INSTANTIATE_TEST_SUITE_P(Seeds, TimerHeapAgainstOracle, testing::Range(1U, 7U));

TEST(TimerHeap, a_disarmed_timer_can_be_armed_again_with_another_deadline) {
    TimerHeap heap;
    TestTimer a, b;
    a.when_ns = 1;
    b.when_ns = 2;
    heap.arm(a);
    heap.arm(b);
    heap.disarm(a);
    a.when_ns = 3;
    heap.arm(a);
    EXPECT_EQ(&heap.pop(), &b);
    EXPECT_EQ(&heap.pop(), &a);
    EXPECT_TRUE(heap.empty());
}

TEST(TimerHeap, a_million_timers_that_are_armed_in_order_are_popped_without_deep_recursion) {
    TimerHeap heap;
    std::vector<TestTimer> timers(1'000'000);
    for (std::size_t i = 0; i < timers.size(); ++i) {
        timers[i].when_ns = static_cast<std::int64_t>(i);
        heap.arm(timers[i]);
    }
    for (std::size_t i = 0; i < timers.size(); ++i) {
        if (&heap.pop() != &timers[i]) FAIL() << "timer " << i;
    }
}

TEST(TimerHeap, the_most_extreme_deadlines_are_ordered) {
    TimerHeap heap;
    TestTimer last, first, middle;
    last.when_ns = INT64_MAX;
    first.when_ns = INT64_MIN;
    heap.arm(last);
    heap.arm(middle);
    heap.arm(first);
    EXPECT_EQ(&heap.pop(), &first);
    EXPECT_EQ(&heap.pop(), &middle);
    EXPECT_EQ(&heap.pop(), &last);
}
