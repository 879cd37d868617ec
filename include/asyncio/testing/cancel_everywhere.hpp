// SPDX-License-Identifier: MIT
// Cancels a coroutine at each of its awaits, to see whether it cleans up after itself.
//
//     const int cancels = asyncio::testing::cancel_everywhere([]() -> asyncio::Coro<> {
//         co_await transfer(1s);
//     });
//
// The body is run in virtual time, on a new loop, again and again: in run k its task is cancelled
// in turn k of the loop, at the await to which it has come by then; in the first run that is before
// its first step. The runs end with one that is done before its turn comes. Each run must end: with
// CancelledError if it was cancelled (see CancelOptions::may_catch), with a result if not. It must
// leave no task, timer or reader behind that goes on in time (see
// CancelOptions::may_leave_tasks), report nothing to the exception handler, and destroy its
// locals: a body that takes a LeakToken copies that into what must be destroyed.
//
// What the body waits for must be done by tasks, timers and descriptors of its own loop: other
// threads are not waited for. A body that waits for descriptors alone does so in real time, for at
// most 10 seconds.
#pragma once

#include <asyncio/tasks.hpp>

#include <memory>
#include <stdexcept>
#include <type_traits>
#include <utility>

ASYNCIO_BEGIN_NAMESPACE
namespace testing {

// Counts its copies; those that are left after a run are a failure.
using LeakToken = std::shared_ptr<const int>;

// What went wrong, and at which await the cancel came in that run.
class ASYNCIO_API CancelFailure : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
    CancelFailure(const CancelFailure&) noexcept;
    CancelFailure& operator=(const CancelFailure&) noexcept;
    ~CancelFailure() override;
};

// Chained setters: `CancelOptions().may_catch(true)`.
class CancelOptions {
  public:
    // The body may catch the CancelledError, and end with a result or with what it throws instead.
    CancelOptions& may_catch(bool allowed) noexcept {
        may_catch_ = allowed;
        return *this;
    }
    // Tasks that it leaves behind may go on, in virtual time, and must come to their end.
    CancelOptions& may_leave_tasks(bool allowed) noexcept {
        may_leave_tasks_ = allowed;
        return *this;
    }
    // A body that takes more turns of the loop than this is taken to run for ever. Default: 1000.
    CancelOptions& most_turns(int count) noexcept {
        most_turns_ = count;
        return *this;
    }
    bool may_catch() const noexcept { return may_catch_; }
    bool may_leave_tasks() const noexcept { return may_leave_tasks_; }
    int most_turns() const noexcept { return most_turns_; }

  private:
    bool may_catch_ = false;
    bool may_leave_tasks_ = false;
    int most_turns_ = 1000;
};

namespace detail {

class ASYNCIO_API CancelRuns {
  public:
    explicit CancelRuns(const CancelOptions& options) noexcept : options_(options) {}
    CancelRuns(const CancelRuns&) = delete;
    CancelRuns& operator=(const CancelRuns&) = delete;
    int run();

  protected:
    ~CancelRuns() = default;
    virtual Task<> start(EventLoop& loop, const LeakToken& token) = 0;

  private:
    // Whether the body came so far that it was cancelled.
    bool run_with_cancel_in(int turn);
    CancelOptions options_;
};

} // namespace detail

// Returns at how many awaits a cancel came; an await that lasts for several turns counts for each.
// Throws CancelFailure for a run that goes wrong, and if there was no await to be cancelled at. The
// body is a function or lambda that returns a coroutine, and takes nothing or a LeakToken.
template <class Body> int cancel_everywhere(Body body, const CancelOptions& options = {}) {
    class Runs final : public detail::CancelRuns {
      public:
        Runs(Body& b, const CancelOptions& o) noexcept : CancelRuns(o), body_(b) {}

      private:
        Task<> start(EventLoop& loop, const LeakToken& token) override {
            // Called in the task's first step, where a loop runs.
            return create_task(
                loop,
                [](Body* function, LeakToken given) -> Coro<> {
                    if constexpr (std::is_invocable_v<Body&, LeakToken>) {
                        co_await (*function)(std::move(given));
                    } else {
                        given.reset();
                        co_await (*function)();
                    }
                },
                &body_, token);
        }
        Body& body_;
    };
    return Runs(body, options).run();
}

} // namespace testing
ASYNCIO_END_NAMESPACE
