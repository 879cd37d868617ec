// SPDX-License-Identifier: MIT
// Lets each system call of a coroutine fail in turn, to see whether it loses or leaks anything.
//
//     using namespace asyncio::testing;
//     fail_everywhere(faults_of(SystemCall::recv), []() -> asyncio::Coro<> {
//         co_await transfer();
//     });
//
// For each of the faults the body is run again and again, in real time and on a new loop: in run k
// the call number k of that kind meets it. The runs of a fault end with one in which it was not
// met. Each run must end, within FaultOptions::patience: with a result, or with a std::system_error
// of that errno (see FaultOptions::may_fail_otherwise). Whichever it is, the loop must serve after
// it, nothing must have been reported to the exception handler, and when the loop is closed no
// descriptor must be left open. A body that takes a LeakToken copies that into what must be
// destroyed.
//
// A body checks by itself that a run which does not fail has done what it should.
#pragma once

#include <asyncio/runners.hpp>
#include <asyncio/testing/cancel_everywhere.hpp>
#include <asyncio/testing/faults.hpp>

#include <span>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

ASYNCIO_BEGIN_NAMESPACE
namespace testing {
namespace detail {
class FaultRuns;
}

// What went wrong, and with which fault.
class ASYNCIO_API FaultFailure : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
    FaultFailure(const FaultFailure&) noexcept;
    FaultFailure& operator=(const FaultFailure&) noexcept;
    ~FaultFailure() override;
};

// Chained setters: `FaultOptions().may_report(true)`.
class FaultOptions {
  public:
    // A run that takes longer than this is taken to hang. Default: 10 seconds.
    FaultOptions& patience(Delay limit) noexcept {
        patience_ = limit;
        return *this;
    }
    // The body may end with what it likes, as one may whose first failure is a consequence of the
    // fault in another of its tasks.
    FaultOptions& may_fail_otherwise(bool allowed) noexcept {
        may_fail_otherwise_ = allowed;
        return *this;
    }
    // The exception handler may be told of something.
    FaultOptions& may_report(bool allowed) noexcept {
        may_report_ = allowed;
        return *this;
    }
    // Each fault meets this many calls, from number k on. Default: 1.
    FaultOptions& at_once(long count) noexcept {
        at_once_ = count;
        return *this;
    }
    // Only each so-manieth call is met, for a body that makes many. Default: 1, each.
    FaultOptions& every(long step) noexcept {
        every_ = step;
        return *this;
    }
    Delay patience() const noexcept { return patience_; }
    bool may_fail_otherwise() const noexcept { return may_fail_otherwise_; }
    bool may_report() const noexcept { return may_report_; }
    long at_once() const noexcept { return at_once_; }
    long every() const noexcept { return every_; }

  private:
    Delay patience_ = std::chrono::seconds(10);
    bool may_fail_otherwise_ = false;
    bool may_report_ = false;
    long at_once_ = 1;
    long every_ = 1;
};

// What became of the runs with one fault.
struct FaultTally {
    Fault fault;
    long survived = 0; // the fault was met, and the body gave its result all the same
    long failed = 0;   // the fault was met, and the body threw
    std::vector<std::string> texts = {}; // of what it threw, each once
};

class FaultReport {
  public:
    // How many faults were met, one in each run but for FaultOptions::at_once.
    long faults() const noexcept { return faults_; }
    // One for each fault that was asked for, in that order.
    const std::vector<FaultTally>& tallies() const noexcept { return tallies_; }

  private:
    friend class detail::FaultRuns;
    long faults_ = 0;
    std::vector<FaultTally> tallies_;
};

namespace detail {

class ASYNCIO_API FaultRuns {
  public:
    explicit FaultRuns(const FaultOptions& options) noexcept : options_(options) {}
    FaultRuns(const FaultRuns&) = delete;
    FaultRuns& operator=(const FaultRuns&) = delete;
    FaultReport run(std::span<const Fault> faults);

  protected:
    ~FaultRuns() = default;
    virtual void run_body(Runner& runner, const LeakToken& token) = 0;

  private:
    // How many faults were met.
    long run_with(FaultTally& tally, long first);
    FaultOptions options_;
};

} // namespace detail

// Throws FaultFailure for a run that goes wrong, and if not one fault was met. Prints a line that
// says how many were. The body is a function or lambda that returns a coroutine, and takes nothing
// or a LeakToken.
template <class Body>
FaultReport fail_everywhere(std::span<const Fault> faults, Body body,
                            const FaultOptions& options = {}) {
    class Runs final : public detail::FaultRuns {
      public:
        Runs(Body& b, const FaultOptions& o) noexcept : FaultRuns(o), body_(b) {}

      private:
        void run_body(Runner& runner, const LeakToken& token) override {
            if constexpr (std::is_invocable_v<Body&, LeakToken>) {
                runner.run(std::ref(body_), token);
            } else {
                runner.run(std::ref(body_));
            }
        }
        Body& body_;
    };
    return Runs(body, options).run(faults);
}

} // namespace testing
ASYNCIO_END_NAMESPACE
