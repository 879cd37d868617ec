// SPDX-License-Identifier: MIT
// Virtual time: a clock that jumps to the next deadline when a loop has nothing to do, so that a
// test of an hour of sleeping takes no time, and always takes the same course.
//
//     asyncio::testing::VirtualClock clock;
//     asyncio::run(main(), asyncio::RunOptions().clock(clock));
//
// If nothing is ready, no timer is armed and no descriptor is watched, nothing can ever happen
// again: then the run throws DeadlockError, which lists the tasks that wait, instead of hanging.
// While a task waits for a thread of the library's own (a look-up by getaddrinfo()), time stands
// still. Other threads are not seen: one that is still to call call_soon_threadsafe() does not keep
// a loop from that, so use the real clock where such threads take part.
#pragma once

#include <asyncio/clock.hpp>

ASYNCIO_BEGIN_NAMESPACE
namespace testing {

class ASYNCIO_API VirtualClock final : public Clock {
  public:
    // Begins at 1000 s, so that times before the beginning can be written.
    VirtualClock() noexcept = default;
    std::int64_t now_ns() noexcept override { return now_ns_; }
    bool jumps() const noexcept override { return true; }
    void jump_to(std::int64_t when_ns) noexcept override {
        if (when_ns > now_ns_) now_ns_ = when_ns;
    }
    // As if that much time had passed while code was running.
    // Stops at the ends of time, 292 years away.
    void advance(Delay delay) noexcept {
        if (__builtin_add_overflow(now_ns_, delay.nanoseconds(), &now_ns_))
            now_ns_ = delay.nanoseconds() < 0 ? INT64_MIN : INT64_MAX;
    }

  private:
    std::int64_t now_ns_ = 1'000'000'000'000;
};

} // namespace testing
ASYNCIO_END_NAMESPACE
