// SPDX-License-Identifier: MIT
#include <asyncio/clock.hpp>
#include <asyncio/exceptions.hpp>

#include <cmath>
#include <ctime>

ASYNCIO_BEGIN_NAMESPACE
namespace {

std::int64_t read(clockid_t clock) noexcept {
    timespec now;
    ::clock_gettime(clock, &now);
    return static_cast<std::int64_t>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}

} // namespace

void Delay::set(double seconds) {
    if (std::isnan(seconds)) throw ValueError("Invalid delay: NaN (not a number)");
    const double nanoseconds = std::ceil(seconds * 1e9);
    if (nanoseconds >= 9.2e18) {
        nanoseconds_ = max_;
    } else if (nanoseconds <= -9.2e18) {
        nanoseconds_ = -max_;
    } else {
        nanoseconds_ = static_cast<std::int64_t>(nanoseconds);
    }
}

Clock::~Clock() = default;
bool Clock::may_have_reached(std::int64_t) noexcept { return true; }
bool Clock::jumps() const noexcept { return false; }
void Clock::jump_to(std::int64_t) noexcept {}

// The coarse clock is the time of the last timer tick: one load, where the exact time costs 25 ns.
// It is late by a tick at most; twice that is taken, for a tick that was itself late.
MonotonicClock::MonotonicClock() noexcept : coarse_lag_ns_(20'000'000) {
    timespec resolution;
    if (::clock_getres(CLOCK_MONOTONIC_COARSE, &resolution) == 0) {
        coarse_lag_ns_ = 2 * (resolution.tv_sec * 1'000'000'000 + resolution.tv_nsec);
    }
}

std::int64_t MonotonicClock::now_ns() noexcept { return read(CLOCK_MONOTONIC); }

bool MonotonicClock::may_have_reached(std::int64_t when_ns) noexcept {
    return read(CLOCK_MONOTONIC_COARSE) + coarse_lag_ns_ >= when_ns;
}

ASYNCIO_END_NAMESPACE
