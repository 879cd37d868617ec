// SPDX-License-Identifier: MIT
// Counts the turns of a loop exactly, in virtual time, and notes what happens in which turn.
//
//     Turns turns;
//     Trace trace = turns.run(program);   // Coro<> program(Log&), which calls log("label")
//
// A loop asks its clock once in each turn whether the earliest timer may be due, so that a clock
// which is asked counts turns, as long as some timer is armed: `run` arms one that is never due.
#pragma once

#include <asyncio/runners.hpp>
#include <asyncio/testing/virtual_time.hpp>

#include <string>
#include <utility>
#include <vector>

namespace asyncio_test {

using Trace = std::vector<std::string>;

class Turns final : public asyncio::Clock {
  public:
    // The turn that runs now; the first is 1.
    int now() const noexcept { return turn_; }
    void advance(asyncio::Delay delay) noexcept { time_.advance(delay); }

    std::int64_t now_ns() noexcept override { return time_.now_ns(); }
    bool jumps() const noexcept override { return true; }
    void jump_to(std::int64_t when_ns) noexcept override { time_.jump_to(when_ns); }
    bool may_have_reached(std::int64_t when_ns) noexcept override {
        ++turn_;
        return time_.now_ns() >= when_ns;
    }

    // Runs function(log_or_turns) on a new loop, the first step of which is in turn 1.
    template <class T, class Argument>
    T run(asyncio::Coro<T> (*function)(Argument&), Argument& argument) {
        const asyncio::EventLoopOwner loop =
            asyncio::new_event_loop(asyncio::LoopOptions().clock(*this));
        turn_ = 0;
        loop->call_later(1e9, [] {});
        return asyncio::run_until_complete(*loop, function(argument));
    }

  private:
    asyncio::testing::VirtualClock time_;
    int turn_ = 0;
};

// Notes "turn label".
class Log {
  public:
    void operator()(const std::string& label) {
        lines_.push_back(std::to_string(turns_.now()) + " " + label);
    }
    Turns& turns() noexcept { return turns_; }
    const Trace& lines() const noexcept { return lines_; }

  private:
    Turns turns_;
    Trace lines_;
};

inline Trace trace_of(asyncio::Coro<> (*program)(Log&)) {
    Log log;
    log.turns().run(program, log);
    return log.lines();
}

} // namespace asyncio_test
