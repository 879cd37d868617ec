// SPDX-License-Identifier: MIT
// Time as the loop sees it: the clock that it reads, and delays.
#pragma once

#include <asyncio/detail/config.hpp>

#include <chrono>
#include <concepts>
#include <cstdint>

ASYNCIO_BEGIN_NAMESPACE

// A point in time on a loop's clock. (the float of loop.time())
using TimePoint = std::chrono::time_point<std::chrono::steady_clock, std::chrono::nanoseconds>;

// A delay: any std::chrono::duration, or a number of seconds as in Python: `sleep(2s)`, `sleep(0)`,
// `sleep(0.25)`. Fractions of a nanosecond are rounded up, so that a delay never ends early; what
// is beyond 292 years counts as 292 years. Throws ValueError if the number is NaN.
class Delay {
  public:
    template <class Rep, class Period> Delay(std::chrono::duration<Rep, Period> delay) {
        if constexpr (std::floating_point<Rep>) {
            set(std::chrono::duration<double>(delay).count());
        } else {
            // The limits have no room in a narrow type, and no sign in an unsigned one.
            using Wide = std::chrono::duration<std::int64_t, Period>;
            Wide wide = Wide::max();
            if constexpr (std::unsigned_integral<Rep>) {
                if (delay.count() <= std::uint64_t{max_})
                    wide = Wide(static_cast<std::int64_t>(delay.count()));
            } else {
                wide = Wide(static_cast<std::int64_t>(delay.count()));
            }
            if constexpr (std::ratio_less_equal_v<Period, std::nano>) {
                nanoseconds_ = std::chrono::ceil<std::chrono::nanoseconds>(wide).count();
            } else {
                constexpr Wide most = std::chrono::floor<Wide>(std::chrono::nanoseconds(max_));
                nanoseconds_ = wide > most    ? max_
                               : wide < -most ? -max_
                                              : std::chrono::nanoseconds(wide).count();
            }
        }
    }
    template <class Seconds>
        requires std::integral<Seconds> || std::floating_point<Seconds>
    Delay(Seconds seconds) {
        if constexpr (std::integral<Seconds>) {
            *this = Delay(std::chrono::duration<Seconds>(seconds));
        } else {
            set(static_cast<double>(seconds));
        }
    }

    std::int64_t nanoseconds() const noexcept { return nanoseconds_; }

  private:
    ASYNCIO_API void set(double seconds);

    static constexpr std::int64_t max_ = INT64_MAX;
    std::int64_t nanoseconds_ = 0;
};

// What a loop reads the time from. The default is the monotonic clock of the system; see
// asyncio/testing/virtual_time.hpp for one that jumps.
class ASYNCIO_API Clock {
  public:
    virtual ~Clock();
    virtual std::int64_t now_ns() noexcept = 0;
    // False only if now_ns() is certain to be below `when_ns`; cheaper to ask than the time itself.
    virtual bool may_have_reached(std::int64_t when_ns) noexcept;
    // True for a clock that does not run by itself: instead of waiting until `when_ns`, a loop with
    // nothing to do calls jump_to(when_ns).
    virtual bool jumps() const noexcept;
    virtual void jump_to(std::int64_t when_ns) noexcept;
};

// CLOCK_MONOTONIC.
class ASYNCIO_API MonotonicClock final : public Clock {
  public:
    MonotonicClock() noexcept;
    std::int64_t now_ns() noexcept override;
    bool may_have_reached(std::int64_t when_ns) noexcept override;

  private:
    std::int64_t coarse_lag_ns_; // how far the coarse clock may be behind
};

ASYNCIO_END_NAMESPACE
