// SPDX-License-Identifier: MIT
#include <asyncio/futures.hpp>

#include "guarded.hpp"
#include "is_a.hpp"

#include <vector>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

// Reported while the whole object still stands, so that a task can describe itself.
void FutureBase::destroy() noexcept {
    if ((flags_ & unretrieved_flag) != 0) [[unlikely]] {
        const ReportScope in_its_context(*this);
        loop_->report([this] {
            const std::string kind = is_task() ? "Task" : "Future";
            return ExceptionContext{
                .message = kind + " exception was never retrieved",
                .exception = exception_,
                .details = {{is_task() ? "task" : "future", describe()}},
            };
        });
    }
    delete this;
}

void FutureBase::seen() noexcept {
    flags_ &= static_cast<std::uint16_t>(~unretrieved_flag);
    // May hold what holds this task.
    if (ContextRef* context = report_context()) *context = ContextRef();
}

void FutureBase::forget_waiters() noexcept {
    for_each_waiter([](FutureWaiter& waiter) { waiter.forgotten(); });
}

PlainFuture::~PlainFuture() = default;

std::string FutureBase::describe() const {
    const State now = state();
    std::string text = now == pending           ? "<Future pending"
                       : now == cancelled_state ? "<Future cancelled"
                                                : "<Future finished";
    if (const Location created = created_at(); created.pointer() != nullptr)
        text += " created at " + created.text();
    return text + ">";
}

void FutureBase::throw_if_done() const {
    loop_->check_thread();
    if (done() || (flags_ & being_set_flag) != 0)
        throw InvalidStateError(
            "invalid state: the future has its result already, and takes no other");
}

bool FutureBase::cancel(const std::string& message) {
    if (done()) {
        static_cast<void>(retrieve()); // who cancels it wants to hear nothing of it
        return false;
    }
    if ((flags_ & being_set_flag) != 0) return false;
    finish_with_exception(std::make_exception_ptr(CancelledError(message)), cancelled_state);
    return true;
}

void FutureBase::set_exception(std::exception_ptr exception) {
    if (exception == nullptr) throw ValueError("set_exception() got a null exception_ptr");
    if (is_task()) throw RuntimeError("Task does not support set_exception operation");
    throw_if_done();
    finish_with_exception(std::move(exception), failed);
}

void FutureBase::finish_with_exception(std::exception_ptr exception, State state) noexcept {
    exception_ = std::move(exception);
    if (state == failed) flags_ |= unretrieved_flag;
    finish(state);
}

// All who wait are queued in the order in which they came; none runs before the next turn.
void FutureBase::finish(State state) noexcept {
    flags_ |= state;
    if (first_waiter_ == nullptr) return;
    FutureWaiter* first = std::exchange(first_waiter_, nullptr);
    if ((flags_ & notice_flag) != 0) {
        for (FutureWaiter* waiter = first; waiter != nullptr; waiter = waiter->next_waiter()) {
            waiter->scheduled(*this);
        }
    }
    if (loop_->is_closed()) [[unlikely]] { // no turn will come
        while (first != nullptr) std::exchange(first, first->next_waiter())->discard();
        return;
    }
    loop_->core().ready.append(*first, *first->previous_waiter);
}

void FutureBase::throw_unless_value() {
    switch (state()) {
    case pending:
        throw InvalidStateError("Result is not set: the future is not done; await it first");
    case finished:
        if (is_taken()) throw InvalidStateError("the result was moved out by an earlier await");
        return;
    default:
        std::rethrow_exception(retrieve());
    }
}

void FutureBase::add_waiter(FutureWaiter& waiter, bool wants_notice) noexcept {
    waiter.next_link = nullptr;
    if (first_waiter_ == nullptr) {
        first_waiter_ = &waiter;
        waiter.previous_waiter = &waiter;
    } else {
        FutureWaiter* last = first_waiter_->previous_waiter;
        last->next_link = &waiter;
        waiter.previous_waiter = last;
        first_waiter_->previous_waiter = &waiter;
    }
    if (wants_notice) flags_ |= notice_flag;
}

void FutureBase::remove_waiter(FutureWaiter& waiter) noexcept {
    FutureWaiter* next = waiter.next_waiter();
    FutureWaiter* previous = waiter.previous_waiter;
    if (first_waiter_ == &waiter) {
        first_waiter_ = next;
        if (next != nullptr) next->previous_waiter = previous;
        return;
    }
    previous->next_link = next;
    (next != nullptr ? next : first_waiter_)->previous_waiter = previous;
}

TaskWaiter::~TaskWaiter() {
    // Still in the list only if the frame is destroyed while it waits, by a loop that closes.
    if (task_ != nullptr && is_linked()) future_->remove_waiter(*this);
    future_->release();
}

void TaskWaiter::detach() noexcept {
    future_->remove_waiter(*this);
    previous_waiter = nullptr;
}

void TaskWaiter::wait(TaskBase& task, std::coroutine_handle<> frame) noexcept {
    task_ = &task;
    if (future_ == task_ || &future_->loop() != &task.loop()) [[unlikely]] {
        task.yield(frame); // the error is thrown in the next turn, as asyncio does
        return;
    }
    future_->add_waiter(*this, false);
    task.suspend_for(frame, *this);
}

// Cancelling a task cancels what it waits for: the wait then ends in its own time.
CancelOutcome TaskWaiter::try_cancel() noexcept {
    try {
        return future_->cancel(task_->cancel_message()) ? CancelOutcome::pending
                                                        : CancelOutcome::already_done;
    } catch (...) { // no memory for the CancelledError: this task's own is made when it is thrown
        return CancelOutcome::already_done;
    }
}

void TaskWaiter::throw_cancelled() { std::rethrow_exception(take_failure()); }
void TaskWaiter::throw_failure() { std::rethrow_exception(take_failure()); }

std::exception_ptr TaskWaiter::take_failure() {
    if (task_ != nullptr && task_->cancel_due()) {
        if (future_->done()) {
            const std::exception_ptr& exception = future_->retrieve();
            if (is_a<CancelledError>(exception)) { // also that of a gather, which fails with it
                task_->forget_cancel();
                return exception;
            }
        }
        return task_->take_cancelled();
    }
    if (future_->done()) return future_->retrieve();
    if (future_ == task_) {
        return std::make_exception_ptr(
            RuntimeError("Task cannot await on itself: " + future_->describe()));
    }
    return std::make_exception_ptr(RuntimeError(
        "Task got a Future attached to a different loop: await it on its own loop, and hand the "
        "result over with call_soon_threadsafe(); " +
        future_->describe()));
}

DoneCallbackBase::DoneCallbackBase(FutureBase& future) noexcept
    : future_(&future), context_{context_for(future.loop())},
      serial_(++future.loop().core().last_done_callback) {}

DoneCallbackBase::~DoneCallbackBase() = default;

void DoneCallbackBase::scheduled(FutureBase& future) noexcept { future.retain(); }
void DoneCallbackBase::forgotten() noexcept { delete this; }
void DoneCallbackBase::discard() noexcept {
    FutureBase* future = future_;
    delete this;
    future->release();
}

void DoneCallbackBase::run() {
    struct AtEnd {
        DoneCallbackBase* callback;
        ~AtEnd() { callback->discard(); }
    };
    const AtEnd at_end{this};
    call_guarded(
        future_->loop(), context_, [this] { invoke(); },
        [this] {
            return ExceptionContext{
                .message = "Exception in callback of a future",
                .exception = std::current_exception(),
                .details = {{"future", future_->describe()}},
            };
        });
}

void DoneCallbackBase::run_in_debug() {
    const AnyFuture keep = AnyFuture::of(*future_);
    keep.get_loop().run_watched([this] { run(); },
                                [&keep] {
                                    return ExceptionContext{.message = "a callback of " +
                                                                       keep.state().describe()};
                                });
}

DoneCallbackId DoneCallbackBase::attach(DoneCallbackBase* callback) {
    FutureBase& future = *callback->future_;
    const DoneCallbackId id{callback->serial_};
    if (future.done()) {
        if (future.loop().is_closed()) {
            callback->forgotten();
            future.loop().throw_if_closed();
        }
        callback->scheduled(future);
        future.loop().core().ready.push(*callback);
    } else {
        future.add_waiter(*callback, true);
    }
    return id;
}

std::size_t DoneCallbackBase::remove(FutureBase& future, DoneCallbackId id) {
    return remove_if(future,
                     [id](DoneCallbackBase& callback) { return callback.serial_ == id.serial; });
}

// The comparison is the user's, and may throw, or add and remove callbacks: so each callback is
// looked for again after it.
std::size_t DoneCallbackBase::remove_equal(FutureBase& future, const void* type,
                                           const void* function) {
    const AnyFuture keep = AnyFuture::of(future);
    std::vector<std::uint64_t> serials;
    future.for_each_waiter([&](FutureWaiter& waiter) {
        if (DoneCallbackBase* callback = waiter.as_done_callback()) {
            serials.push_back(callback->serial_);
        }
    });
    std::size_t count = 0;
    for (const std::uint64_t serial : serials) {
        DoneCallbackBase* found = nullptr;
        future.for_each_waiter([&](FutureWaiter& waiter) {
            DoneCallbackBase* callback = waiter.as_done_callback();
            if (callback != nullptr && callback->serial_ == serial) found = callback;
        });
        if (found == nullptr || !found->equals(type, function)) continue;
        count += remove(future, DoneCallbackId{serial});
    }
    return count;
}

void throw_empty_handle() {
    throw RuntimeError("this Task or Future is empty: it was default-constructed or moved away");
}

} // namespace detail
ASYNCIO_END_NAMESPACE
