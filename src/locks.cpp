// SPDX-License-Identifier: MIT
#include <asyncio/locks.hpp>

#include <asyncio/as_result.hpp>

#include <string>

ASYNCIO_BEGIN_NAMESPACE

BrokenBarrierError::BrokenBarrierError(const BrokenBarrierError&) noexcept = default;
BrokenBarrierError& BrokenBarrierError::operator=(const BrokenBarrierError&) noexcept = default;
BrokenBarrierError::~BrokenBarrierError() = default;

namespace detail {
namespace {

void throw_if(std::exception_ptr failure) {
    if (failure != nullptr) std::rethrow_exception(std::move(failure));
}
Result<void> result_of(std::exception_ptr failure) {
    if (failure != nullptr) return Result<void>(std::move(failure));
    return {};
}

} // namespace

LockAcquire::LockAcquire(Lock& lock) noexcept : Waiter(lock.waiters_), lock_(&lock) {}
SemaphoreAcquire::SemaphoreAcquire(Semaphore& semaphore) noexcept
    : Waiter(semaphore.waiters_), semaphore_(&semaphore) {}
EventWait::EventWait(Event& event) noexcept : Waiter(event.waiters_), event_(&event) {}

std::exception_ptr LockAcquire::take_failure() {
    if (std::exception_ptr failure = leave("Lock")) return failure;
    if (is_cancel_due()) {
        // It may have been this task's turn.
        if (!lock_->locked_) lock_->waiters_.wake_if_first();
        return take_cancelled();
    }
    lock_->locked_ = true;
    return nullptr;
}
void LockAcquire::finish() { throw_if(take_failure()); }
Result<void> LockAcquire::take_result() {
    return has_waited() ? result_of(take_failure()) : Result<void>();
}

std::exception_ptr SemaphoreAcquire::take_failure() {
    const bool has_permit = was_woken();
    if (std::exception_ptr failure = leave("Semaphore")) return failure;
    const bool is_cancelled = is_cancel_due();
    if (is_cancelled && has_permit) ++semaphore_->value_;
    // Others may have had to wait only because somebody came before them.
    while (semaphore_->value_ > 0 && semaphore_->wake_next()) {
    }
    return is_cancelled ? take_cancelled() : nullptr;
}
void SemaphoreAcquire::finish() { throw_if(take_failure()); }
Result<void> SemaphoreAcquire::take_result() {
    return has_waited() ? result_of(take_failure()) : Result<void>();
}

std::exception_ptr EventWait::take_failure() {
    const bool was_set = was_woken();
    std::exception_ptr failure = leave("Event");
    if (was_set && is_orphaned() && !is_cancel_due()) return nullptr;
    if (failure != nullptr) return failure;
    return is_cancel_due() ? take_cancelled() : nullptr;
}
void EventWait::finish() { throw_if(take_failure()); }
Result<void> EventWait::take_result() {
    return has_waited() ? result_of(take_failure()) : Result<void>();
}

Result<void> ConditionWait::take_result() {
    if (std::exception_ptr failure = leave("Condition")) return result_of(std::move(failure));
    return result_of(is_cancel_due() ? take_cancelled() : nullptr);
}

void throw_not_held() {
    throw RuntimeError("it was released already: a scope releases what it holds once");
}

// While the loop closes it goes without saying: a Condition's wait() has released the lock.
void report_release_failed() noexcept {
    EventLoop* loop = get_running_loop_or_null();
    if (loop == nullptr) return;
    const std::exception_ptr failure = std::current_exception();
    loop->report([&failure] {
        return ExceptionContext{
            .message = "A scope ended that could not release what it held: it was released "
                       "already; call release() of what scoped() gave, not of the lock itself",
            .exception = failure,
        };
    });
}

} // namespace detail

void Lock::release() {
    if (!locked_) throw RuntimeError("Lock is not acquired.");
    locked_ = false;
    waiters_.wake_if_first();
}

Semaphore::Semaphore(std::ptrdiff_t value, std::ptrdiff_t bound) : value_(value), bound_(bound) {
    if (value < 0) throw ValueError("Semaphore initial value must be >= 0");
}

void Semaphore::release() {
    if (value_ >= bound_) throw ValueError("BoundedSemaphore released too many times");
    ++value_;
    wake_next();
}

// Whoever is woken has the permit already, so that nobody can come in between.
bool Semaphore::wake_next() noexcept {
    if (!waiters_.wake_next()) return false;
    --value_;
    return true;
}

// A coroutine, since it waits twice, the second time as often as it is cancelled.
Coro<> Condition::wait_unless_destroyed(bool* destroyed) {
    if (!locked()) throw RuntimeError("cannot wait on un-acquired lock");
    waiters_.bind_or_throw(get_running_loop(), "Condition");
    release();
    std::exception_ptr failure;
    {
        detail::ConditionWait notified(waiters_);
        const Result<void> result = co_await as_result(notified);
        if (notified.is_orphaned()) {
            if (destroyed != nullptr) *destroyed = true;
            std::rethrow_exception(result.exception());
        }
        failure = result.exception();
    }
    for (bool acquired = false; !acquired;) {
        detail::LockAcquire lock(*lock_);
        const Result<void> result = co_await as_result(lock);
        if (lock.is_orphaned()) {
            if (destroyed != nullptr) *destroyed = true;
            std::rethrow_exception(result.exception());
        }
        if (!result) failure = result.exception();
        acquired = result.has_value() || lock.was_refused();
    }
    if (failure == nullptr) co_return;
    notify_any(1); // this task may have been the one that was told
    std::rethrow_exception(std::move(failure));
}

void Condition::notify(std::size_t count) {
    if (!locked()) throw RuntimeError("cannot notify on un-acquired lock");
    notify_any(count);
}

void Condition::notify_any(std::size_t count) noexcept {
    while (count-- > 0 && waiters_.wake_next()) {
    }
}

Barrier::Barrier(std::ptrdiff_t parties) : parties_(parties) {
    if (parties < 1) throw ValueError("parties must be >= 1");
}

Coro<std::ptrdiff_t> Barrier::wait() {
    co_await condition_.acquire();
    std::ptrdiff_t index = -1;
    std::exception_ptr failure;
    bool destroyed = false;
    try {
        while (state_ == draining || state_ == resetting)
            co_await condition_.wait_unless_destroyed(&destroyed);
        if (state_ == is_broken) throw BrokenBarrierError("Barrier aborted");
        index = count_++;
        if (index + 1 == parties_) {
            state_ = draining;
            condition_.notify_all();
        } else {
            while (state_ == filling) co_await condition_.wait_unless_destroyed(&destroyed);
            if (state_ != draining) throw BrokenBarrierError("Abort or reset of barrier");
        }
    } catch (...) {
        failure = std::current_exception();
    }
    // No destructor does the rest: a loop that closes destroys frames in any order.
    if (!destroyed) {
        if (index >= 0) leave();
        condition_.release();
    }
    if (failure != nullptr) std::rethrow_exception(std::move(failure));
    co_return index;
}

void Barrier::leave() noexcept {
    if (--count_ > 0) return;
    if (state_ == resetting || state_ == draining) state_ = filling;
    condition_.notify_any(SIZE_MAX);
}

Coro<> Barrier::reset() {
    co_await condition_.acquire();
    state_ = count_ > 0 ? resetting : filling;
    condition_.notify_all();
    condition_.release();
}

Coro<> Barrier::abort() {
    co_await condition_.acquire();
    state_ = is_broken;
    condition_.notify_all();
    condition_.release();
}

ASYNCIO_END_NAMESPACE
