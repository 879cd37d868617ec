// SPDX-License-Identifier: MIT
#include <asyncio/timeouts.hpp>

#include "is_a.hpp"

ASYNCIO_BEGIN_NAMESPACE

Timeout::Timeout(std::optional<Delay> delay, std::optional<TimePoint> when) noexcept
    : when_(when), delay_ns_(delay ? delay->nanoseconds() : 0), relative_(delay.has_value()) {}

Timeout::~Timeout() {
    if (stage_ == active) unschedule(); // the frame is destroyed while the body runs
}

void Timeout::enter() {
    if (stage_ != created)
        throw RuntimeError("Timeout has already been entered: make another one for each use");
    EventLoop& loop = get_running_loop();
    task_ = loop.core().current_task;
    if (task_ == nullptr) throw RuntimeError("Timeout should be used inside a task");
    cancelling_ = task_->cancelling();
    if (relative_) {
        std::int64_t deadline_ns = 0;
        if (__builtin_add_overflow(loop.clock().now_ns(), delay_ns_, &deadline_ns)) {
            deadline_ns = delay_ns_ < 0 ? INT64_MIN : INT64_MAX;
        }
        when_ = TimePoint(std::chrono::nanoseconds(deadline_ns));
        schedule(delay_ns_ <= 0);
    } else if (when_) {
        schedule(*when_ <= loop.time());
    }
    stage_ = active;
}

void Timeout::reschedule(std::optional<TimePoint> when) {
    if (stage_ == created)
        throw RuntimeError("Timeout has not been entered: it can be rescheduled while its body "
                           "runs");
    if (stage_ != active)
        throw RuntimeError(std::string("Cannot change state of ") +
                           (stage_ == expiring ? "expiring"
                            : stage_ == over   ? "expired"
                                               : "finished") +
                           " Timeout");
    unschedule();
    when_ = when;
    if (when_) schedule(*when_ <= task_->loop().time());
}

void Timeout::schedule(bool passed) {
    if (passed) {
        soon_ = task_->loop().call_soon([this] { expire(); });
    } else if (!pending_) {
        arm();
    } // else run() does
}

void Timeout::unschedule() noexcept {
    soon_.cancel();
    if (is_armed()) {
        task_->loop().core().timers.disarm(*this);
        pending_ = false;
    }
    stale_ = pending_;
}

void Timeout::arm() noexcept {
    when_ns = when_->time_since_epoch().count();
    task_->loop().core().timers.arm(*this);
    pending_ = true;
}

void Timeout::run() {
    pending_ = false;
    if (leaving_) {
        task_->step();
    } else {
        due();
    }
}

void Timeout::run_in_debug() {
    pending_ = false;
    if (leaving_) {
        task_->step_in_debug();
    } else {
        due();
    }
}

void Timeout::due() {
    if (!std::exchange(stale_, false)) {
        expire();
    } else if (when_ && soon_.cancelled()) { // it was rescheduled meanwhile
        arm();
    }
}

void Timeout::expire() {
    task_->cancel({});
    stage_ = expiring;
}

bool Timeout::leave() noexcept {
    unschedule();
    return pending_;
}

void Timeout::finish(const std::exception_ptr& failure) {
    if (stage_ != expiring) {
        stage_ = exited;
        return;
    }
    stage_ = over;
    // If more cancels were asked for than when the body began, another one came from outside.
    if (task_->uncancel() <= cancelling_ && detail::is_a<CancelledError>(failure)) {
        throw TimeoutError();
    }
}

ASYNCIO_END_NAMESPACE
