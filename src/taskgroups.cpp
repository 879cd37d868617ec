// SPDX-License-Identifier: MIT
#include <asyncio/taskgroups.hpp>

#include "is_a.hpp"

ASYNCIO_BEGIN_NAMESPACE

TaskGroup::~TaskGroup() {
    tasks_.stop_all(); // of a loop that closes: else there are none
    failed_.delete_all();
}

void TaskGroup::enter() {
    if (parent_ != nullptr)
        throw RuntimeError("TaskGroup has already been entered: make another one for each use");
    detail::TaskBase* task = get_running_loop().core().current_task;
    if (task == nullptr) throw RuntimeError("TaskGroup should be used inside a task");
    parent_ = task;
}

std::unique_ptr<detail::FutureWatch> TaskGroup::make_watch() {
    if (parent_ == nullptr)
        throw RuntimeError("TaskGroup has not been entered: create its tasks in the body of "
                           "task_group()");
    if (exiting_ && !has_tasks())
        throw RuntimeError("TaskGroup is finished: it takes no more tasks");
    if (aborting_)
        throw RuntimeError("TaskGroup is shutting down: it is cancelling its tasks, and takes no "
                           "more");
    return std::unique_ptr<detail::FutureWatch>(new detail::FutureWatch(*this));
}

// Also a task that is done already is heard of in the next turn: else a failure would cancel the
// body too early.
void TaskGroup::add(detail::FutureWatch* watch, detail::FutureBase& task) noexcept {
    tasks_.push(*watch);
    watch->begin(task);
}

void TaskGroup::abort() {
    aborting_ = true;
    for (detail::FutureWatch* watch = tasks_.first(); watch != nullptr; watch = watch->next) {
        watch->future().cancel({});
    }
}

void TaskGroup::future_done(detail::FutureWatch& watch) {
    tasks_.remove(watch);
    if (!has_tasks() && gate_) gate_->open();
    if (watch.future().state() != detail::FutureBase::failed) {
        delete &watch;
        return;
    }
    failed_.push(watch);
    const std::exception_ptr& exception = watch.future().retrieve();
    if (interrupt_ == nullptr && detail::is_interrupt(exception)) interrupt_ = exception;
    if (!aborting_ && !parent_cancel_requested_) {
        abort();
        // So that the body ends; finish() takes it back.
        parent_cancel_requested_ = true;
        parent_->cancel({});
    }
}

void TaskGroup::future_dropped(detail::FutureWatch& watch) noexcept {
    tasks_.remove(watch);
    delete &watch;
}

void TaskGroup::leave(const std::exception_ptr& failure) {
    exiting_ = true;
    if (failure == nullptr) return;
    if (interrupt_ == nullptr && detail::is_interrupt(failure)) interrupt_ = failure;
    if (detail::is_a<CancelledError>(failure)) cancelled_ = failure;
    if (!aborting_) abort();
}

detail::Gate& TaskGroup::wait() { return gate_.emplace(); }

void TaskGroup::waited(const Result<void>& result) {
    gate_.reset();
    if (result || aborting_) return;
    cancelled_ = result.exception();
    abort();
}

void TaskGroup::finish(const std::exception_ptr& failure) {
    if (interrupt_ != nullptr) std::rethrow_exception(interrupt_);
    if (parent_cancel_requested_) parent_->uncancel();
    if (cancelled_ != nullptr && failed_.empty()) std::rethrow_exception(cancelled_);
    const bool body_failed = failure != nullptr && !detail::is_a<CancelledError>(failure);
    if (failed_.empty() && !body_failed) return;
    // The failures come first: the cancel is delivered at the next await, and counts as before.
    if (parent_->cancelling() > 0) {
        parent_->uncancel();
        parent_->cancel({});
    }
    ExceptionGroup::Exceptions errors;
    for (detail::FutureWatch* watch = failed_.first(); watch != nullptr; watch = watch->next) {
        errors.push_back(watch->future().retrieve());
    }
    if (body_failed) errors.push_back(failure);
    throw ExceptionGroup("unhandled errors in a TaskGroup", std::move(errors));
}

ASYNCIO_END_NAMESPACE
