// SPDX-License-Identifier: MIT
#include <asyncio/queues.hpp>

ASYNCIO_BEGIN_NAMESPACE

const char* QueueEmpty::what() const noexcept {
    return "the queue is empty: await get() to wait for an item";
}
const char* QueueFull::what() const noexcept {
    return "the queue is full: await put() to wait for room";
}
const char* QueueShutDown::what() const noexcept {
    return "the queue was shut down: it takes no more items, and gives what is left in it";
}

namespace detail {

void QueueBase::task_done() {
    if (unfinished_ == 0) throw ValueError("task_done() called too many times");
    if (--unfinished_ == 0) finished_.set();
}

void QueueBase::shut_down(bool dropped_all) noexcept {
    is_shut_down_ = true;
    if (dropped_all) {
        unfinished_ -= std::min(unfinished_, size_);
        size_ = 0;
        if (unfinished_ == 0) finished_.set();
    }
    while (getters_.wake_next()) {
    }
    while (putters_.wake_next()) {
    }
}

void QueueBase::throw_cannot_put() const {
    if (is_shut_down_) throw QueueShutDown();
    throw QueueFull();
}

void QueueBase::throw_cannot_get() const {
    if (is_shut_down_) throw QueueShutDown();
    throw QueueEmpty();
}

void QueueWaiter::run() {
    if (!waits_on()) Waiter::run();
}
void QueueWaiter::run_in_debug() {
    if (!waits_on()) Waiter::run_in_debug();
}

bool QueueWaiter::waits_on() noexcept {
    if (is_orphaned() || is_cancel_due() || !must_wait()) return false;
    wait_again();
    return true;
}

std::exception_ptr QueueWaiter::take_failure() {
    const bool may_have_item = was_woken();
    if (std::exception_ptr failure = leave("Queue")) return failure;
    if (!is_cancel_due()) return nullptr;
    // What this task was woken for is for the next.
    if (may_have_item) {
        if (puts_ && !queue_->full()) queue_->putters_.wake_next();
        if (!puts_ && !queue_->empty()) queue_->getters_.wake_next();
    }
    return take_cancelled();
}

void QueueWaiter::finish() {
    if (leave_if_had()) [[likely]] {
        return;
    }
    if (std::exception_ptr failure = take_failure()) std::rethrow_exception(std::move(failure));
}

} // namespace detail
ASYNCIO_END_NAMESPACE
