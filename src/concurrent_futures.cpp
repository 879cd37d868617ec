// SPDX-License-Identifier: MIT
#include <asyncio/concurrent_futures.hpp>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <vector>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {
namespace {

void call(ConcurrentCallback& callback) {
    try {
        callback.call();
    } catch (...) {
        EventLoop::default_exception_handler({
            .message = "Exception in callback of a ConcurrentFuture",
            .exception = std::current_exception(),
        });
    }
}

} // namespace

struct ConcurrentState::Shared {
    std::mutex mutex;
    std::condition_variable changed;
    Status status = pending;
    bool started = false;
    std::vector<std::unique_ptr<ConcurrentCallback>> callbacks;
};

ConcurrentState::ConcurrentState(EventLoop& loop)
    : loop_(&loop), shared_(std::make_unique<Shared>()) {}

ConcurrentState::~ConcurrentState() = default;

bool ConcurrentState::done() const {
    const std::lock_guard lock(shared_->mutex);
    return shared_->status != pending;
}

bool ConcurrentState::cancelled() const {
    const std::lock_guard lock(shared_->mutex);
    return shared_->status == cancelled_status;
}

void ConcurrentState::wait(std::optional<Delay> timeout) const {
    std::unique_lock lock(shared_->mutex);
    const auto is_done = [this] { return shared_->status != pending; };
    if (is_done()) return;
    if (get_running_loop_or_null() == loop_)
        throw RuntimeError("result() would wait for ever: this is the thread of the loop that is "
                           "to run the task; await the coroutine instead");
    // Beyond a year, adding it to the time might overflow.
    if (!timeout || std::chrono::nanoseconds(timeout->nanoseconds()) > std::chrono::years(1)) {
        shared_->changed.wait(lock, is_done);
    } else if (!shared_->changed.wait_for(lock, std::chrono::nanoseconds(timeout->nanoseconds()),
                                          is_done)) {
        throw TimeoutError();
    }
}

void ConcurrentState::add_callback(std::unique_ptr<ConcurrentCallback> callback) {
    {
        const std::lock_guard lock(shared_->mutex);
        if (shared_->status == pending) {
            shared_->callbacks.push_back(std::move(callback));
            return;
        }
    }
    call(*callback);
}

bool ConcurrentState::cancel() {
    const std::exception_ptr exception = std::make_exception_ptr(CancelledError());
    std::vector<std::unique_ptr<ConcurrentCallback>> callbacks;
    {
        const std::lock_guard lock(shared_->mutex);
        if (shared_->status != pending) return false;
        shared_->status = cancelled_status;
        exception_ = exception;
        callbacks.swap(shared_->callbacks);
        // The loop is there: to end, it would need the mutex first.
        if (shared_->started) {
            retain();
            if (!loop_->enter_from_any_thread(cancel_request_)) release();
        }
    }
    shared_->changed.notify_all();
    for (const auto& callback : callbacks) call(*callback);
    return true;
}

void ConcurrentState::finish(Status status, std::exception_ptr exception) {
    std::vector<std::unique_ptr<ConcurrentCallback>> callbacks;
    {
        const std::lock_guard lock(shared_->mutex);
        if (shared_->status != pending) return; // cancelled
        exception_ = std::move(exception);
        shared_->status = status;
        callbacks.swap(shared_->callbacks);
    }
    shared_->changed.notify_all();
    for (const auto& callback : callbacks) call(*callback);
}

void ConcurrentState::started(FutureBase& task) noexcept {
    task_ = &task;
    task.retain();
    retain();
    if (task.done()) {
        loop_->core().ready.push(*this);
    } else {
        task.add_waiter(*this, false);
    }
    const std::lock_guard lock(shared_->mutex);
    shared_->started = true;
    if (shared_->status == cancelled_status) { // before it was started: its first step comes first
        retain();
        loop_->core().ready.push(cancel_request_);
    }
}

void ConcurrentState::failed(std::exception_ptr exception) {
    finish(failure, std::move(exception));
}

void ConcurrentState::dropped() noexcept {
    std::exception_ptr exception;
    try {
        exception = std::make_exception_ptr(CancelledError("its event loop was closed"));
    } catch (...) {
        exception = std::current_exception();
    }
    finish(cancelled_status, std::move(exception));
}

void ConcurrentState::CancelRequest::run() {
    struct Release {
        ConcurrentState& state;
        ~Release() { state.release(); }
    };
    const Release at_end{state};
    if (state.task_ != nullptr) state.task_->cancel({});
}

void ConcurrentState::run() {
    struct Release {
        ConcurrentState& state;
        FutureBase& task;
        ~Release() {
            task.release();
            state.release();
        }
    };
    const Release at_end{*this, *std::exchange(task_, nullptr)};
    FutureBase& task = at_end.task;
    switch (task.state()) {
    case FutureBase::cancelled_state:
        finish(cancelled_status, task.retrieve());
        return;
    case FutureBase::failed:
        finish(failure, task.retrieve());
        return;
    default:
        break;
    }
    try {
        if (!cancelled()) take_value(task);
    } catch (...) { // copying it threw
        finish(failure, std::current_exception());
        return;
    }
    finish(finished, nullptr);
}

void ConcurrentState::discard() noexcept {
    FutureBase* task = std::exchange(task_, nullptr);
    dropped();
    task->release();
    release();
}

} // namespace detail
ASYNCIO_END_NAMESPACE
