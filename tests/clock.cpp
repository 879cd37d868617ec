// SPDX-License-Identifier: MIT
#include <asyncio/clock.hpp>
#include <asyncio/exceptions.hpp>
#include <asyncio/testing/virtual_time.hpp>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <cstdint>
#include <limits>
#include <ratio>
#include <type_traits>

using asyncio::Delay;
using namespace std::chrono_literals;

namespace {

constexpr std::int64_t second = 1'000'000'000;
constexpr std::int64_t most = INT64_MAX;

template <class T> class DelayOfIntegers : public testing::Test {};
using Integers = testing::Types<signed char, unsigned char, char, short, unsigned short, int,
                                unsigned int, long, unsigned long, long long, unsigned long long>;
TYPED_TEST_SUITE(DelayOfIntegers, Integers);

template <class T> class DelayOfFloats : public testing::Test {};
using Floats = testing::Types<float, double, long double>;
TYPED_TEST_SUITE(DelayOfFloats, Floats);

// What a whole number of seconds comes to.
template <class T> std::int64_t expected_of(T seconds) {
    constexpr std::int64_t bound = most / second;
    if (std::is_signed_v<T> && static_cast<std::int64_t>(seconds) < -bound) return -most;
    if (static_cast<std::uint64_t>(seconds) > std::uint64_t{bound} && !(seconds < T{})) return most;
    return static_cast<std::int64_t>(seconds) * second;
}

} // namespace

TYPED_TEST(DelayOfIntegers, whole_numbers_are_seconds) {
    using Limits = std::numeric_limits<TypeParam>;
    for (const int number : {0, 1, 2, 5, 60, 100, 127}) {
        const auto seconds = static_cast<TypeParam>(number);
        EXPECT_EQ(Delay(seconds).nanoseconds(), number * second) << number;
        EXPECT_EQ(Delay(std::chrono::duration<TypeParam>(seconds)).nanoseconds(), number * second);
    }
    EXPECT_EQ(Delay(Limits::max()).nanoseconds(), expected_of(Limits::max()));
    EXPECT_EQ(Delay(Limits::min()).nanoseconds(), expected_of(Limits::min()));
    if constexpr (std::is_signed_v<TypeParam>) {
        EXPECT_EQ(Delay(static_cast<TypeParam>(-3)).nanoseconds(), -3 * second);
    }
}

TYPED_TEST(DelayOfIntegers, durations_of_any_unit_keep_their_length) {
    const auto number = static_cast<TypeParam>(100);
    EXPECT_EQ(Delay(std::chrono::duration<TypeParam, std::nano>(number)).nanoseconds(), 100);
    EXPECT_EQ(Delay(std::chrono::duration<TypeParam, std::micro>(number)).nanoseconds(), 100'000);
    EXPECT_EQ(Delay(std::chrono::duration<TypeParam, std::milli>(number)).nanoseconds(),
              100'000'000);
    EXPECT_EQ(Delay(std::chrono::duration<TypeParam, std::ratio<3600>>(number)).nanoseconds(),
              100 * 3600 * second);
    EXPECT_EQ(Delay(std::chrono::duration<TypeParam, std::pico>(number)).nanoseconds(), 1);
}

TYPED_TEST(DelayOfFloats, a_number_that_is_not_a_number_is_a_value_error) {
    using Limits = std::numeric_limits<TypeParam>;
    EXPECT_THROW(Delay{Limits::quiet_NaN()}, asyncio::ValueError);
    EXPECT_THROW(Delay{-Limits::quiet_NaN()}, asyncio::ValueError);
    EXPECT_THROW(Delay{std::chrono::duration<TypeParam>(Limits::quiet_NaN())}, asyncio::ValueError);
    try {
        Delay{Limits::quiet_NaN()};
    } catch (const asyncio::ValueError& error) {
        EXPECT_STREQ(error.what(), "Invalid delay: NaN (not a number)");
    }
}

TYPED_TEST(DelayOfFloats, fractions_are_kept_and_infinity_is_the_longest_delay) {
    using Limits = std::numeric_limits<TypeParam>;
    EXPECT_EQ(Delay(static_cast<TypeParam>(0.25)).nanoseconds(), second / 4);
    EXPECT_EQ(Delay(static_cast<TypeParam>(-1.5)).nanoseconds(), -3 * second / 2);
    EXPECT_EQ(Delay(TypeParam{0}).nanoseconds(), 0);
    EXPECT_EQ(Delay(-TypeParam{0}).nanoseconds(), 0);
    EXPECT_EQ(Delay(Limits::infinity()).nanoseconds(), most);
    EXPECT_EQ(Delay(-Limits::infinity()).nanoseconds(), -most);
    EXPECT_EQ(Delay(Limits::max()).nanoseconds(), most);
    EXPECT_EQ(Delay(Limits::lowest()).nanoseconds(), -most);
    EXPECT_EQ(Delay(static_cast<TypeParam>(1e-30)).nanoseconds(), 1);
}

TEST(Delay, fractions_of_a_nanosecond_are_rounded_up) {
    EXPECT_EQ(Delay(1e-10).nanoseconds(), 1);
    EXPECT_EQ(Delay(1.5e-9).nanoseconds(), 2);
    EXPECT_EQ(Delay(-1.5e-9).nanoseconds(), -1);
    using Picoseconds = std::chrono::duration<std::int64_t, std::pico>;
    EXPECT_EQ(Delay(Picoseconds(1)).nanoseconds(), 1);
    EXPECT_EQ(Delay(Picoseconds(1000)).nanoseconds(), 1);
    EXPECT_EQ(Delay(Picoseconds(1001)).nanoseconds(), 2);
    EXPECT_EQ(Delay(Picoseconds(-1001)).nanoseconds(), -1);
    EXPECT_EQ(Delay(Picoseconds(most)).nanoseconds(), most / 1000 + 1);
}

TEST(Delay, a_unit_that_is_no_whole_number_of_nanoseconds_is_rounded_up) {
    using Frames = std::chrono::duration<long, std::ratio<1, 60>>;
    EXPECT_EQ(Delay(Frames(1)).nanoseconds(), 16'666'667);
    EXPECT_EQ(Delay(Frames(60)).nanoseconds(), second);
    EXPECT_EQ(Delay(Frames(-1)).nanoseconds(), -16'666'666);
}

TEST(Delay, what_is_beyond_292_years_counts_as_292_years) {
    EXPECT_EQ(Delay(std::chrono::hours(24L * 365 * 300)).nanoseconds(), most);
    EXPECT_EQ(Delay(-std::chrono::hours(24L * 365 * 300)).nanoseconds(), -most);
    EXPECT_EQ(Delay(std::chrono::hours::max()).nanoseconds(), most);
    EXPECT_EQ(Delay(std::chrono::hours::min()).nanoseconds(), -most);
    EXPECT_EQ(Delay(std::chrono::milliseconds::max()).nanoseconds(), most);
    EXPECT_EQ(Delay(std::chrono::milliseconds::min()).nanoseconds(), -most);
    EXPECT_EQ(Delay(std::chrono::nanoseconds::max()).nanoseconds(), most);
    EXPECT_EQ(Delay(std::chrono::duration<std::int64_t, std::ratio<31556952>>(293)).nanoseconds(),
              most);
    EXPECT_EQ(Delay(std::chrono::duration<std::int64_t, std::ratio<31556952>>(292)).nanoseconds(),
              std::int64_t{292} * 31556952 * second);
    EXPECT_EQ(Delay(most / second).nanoseconds(), most / second * second);
    EXPECT_EQ(Delay(most / second + 1).nanoseconds(), most);
    EXPECT_EQ(Delay(1e300).nanoseconds(), most);
    EXPECT_EQ(Delay(std::chrono::duration<double, std::ratio<3600>>(1e12)).nanoseconds(), most);
}

TEST(Delay, the_longest_negative_delay_is_negated_without_overflow) {
    EXPECT_EQ(Delay(std::chrono::nanoseconds::min()).nanoseconds(), -most);
}

TEST(Delay, literals_read_as_in_python) {
    EXPECT_EQ(Delay(2s).nanoseconds(), 2 * second);
    EXPECT_EQ(Delay(1.5s).nanoseconds(), 3 * second / 2);
    EXPECT_EQ(Delay(1h).nanoseconds(), 3600 * second);
    EXPECT_EQ(Delay(1ns).nanoseconds(), 1);
    EXPECT_EQ(Delay(0.25).nanoseconds(), second / 4);
    EXPECT_EQ(Delay(2).nanoseconds(), 2 * second);
    EXPECT_EQ(Delay(2U).nanoseconds(), 2 * second);
}

TEST(MonotonicClock, is_the_clock_of_the_system_and_never_goes_back) {
    asyncio::MonotonicClock clock;
    std::int64_t last = clock.now_ns();
    EXPECT_NEAR(static_cast<double>(last),
                static_cast<double>(std::chrono::steady_clock::now().time_since_epoch().count()),
                1e10);
    for (int i = 0; i < 100'000; ++i) {
        const std::int64_t now = clock.now_ns();
        ASSERT_GE(now, last);
        last = now;
    }
    EXPECT_FALSE(clock.jumps());
}

// The cheap question may be wrong in one direction only: a deadline that is reached is never
// denied.
TEST(MonotonicClock, may_have_reached_is_never_false_of_a_deadline_that_is_reached) {
    asyncio::MonotonicClock clock;
    const std::int64_t end = clock.now_ns() + second / 5; // many ticks of the coarse clock
    std::size_t asked = 0;
    for (std::int64_t now = clock.now_ns(); now < end; now = clock.now_ns()) {
        ASSERT_TRUE(clock.may_have_reached(now)) << "after " << asked;
        ++asked;
    }
    EXPECT_GT(asked, 1000U);
    EXPECT_TRUE(clock.may_have_reached(INT64_MIN));
}

TEST(MonotonicClock, may_have_reached_is_false_of_a_deadline_that_is_far_away) {
    asyncio::MonotonicClock clock;
    EXPECT_FALSE(clock.may_have_reached(clock.now_ns() + 10 * second));
    EXPECT_FALSE(clock.may_have_reached(INT64_MAX));
}

TEST(VirtualClock, jumps_forward_only_and_may_be_advanced) {
    asyncio::testing::VirtualClock clock;
    EXPECT_TRUE(clock.jumps());
    const std::int64_t start = clock.now_ns();
    clock.jump_to(start + 5);
    EXPECT_EQ(clock.now_ns(), start + 5);
    clock.jump_to(start);
    EXPECT_EQ(clock.now_ns(), start + 5);
    clock.advance(1s);
    EXPECT_EQ(clock.now_ns(), start + 5 + second);
    EXPECT_TRUE(clock.may_have_reached(clock.now_ns()));
}
