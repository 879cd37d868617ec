// SPDX-License-Identifier: MIT
#include <asyncio/sleep.hpp>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

void SleepTimer::begin(std::coroutine_handle<> frame) noexcept {
    const std::int64_t delay_ns = when_ns;
    const std::int64_t now_ns = task_->loop().clock().now_ns();
    when_ns = delay_ns > INT64_MAX - now_ns ? INT64_MAX : now_ns + delay_ns;
    task_->loop().core().timers.arm(*this);
    task_->suspend(frame, *this);
}

// The timer is due: one turn for it, and one for the task, as in asyncio, where the timer sets a
// future. A cancel may have come in the same turn, and then wakes the task itself.
void SleepTimer::run() {
    if (!task_->is_interrupted()) task_->wake();
}

// Due already and in the ready queue: there it stays, and finds the task interrupted.
CancelOutcome SleepTimer::try_cancel() noexcept {
    if (is_armed()) leave();
    return CancelOutcome::done_now;
}

void SleepTimer::leave() noexcept { task_->loop().core().timers.disarm(*this); }

} // namespace detail
ASYNCIO_END_NAMESPACE
