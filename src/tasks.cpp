// SPDX-License-Identifier: MIT
#include <asyncio/tasks.hpp>

#include <atomic>
#include <typeinfo>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {
namespace {

// N of "Task-N", counted over all loops. A locked instruction costs as much as the rest of making a
// task's identity, so it is spared while the process has one thread.
std::uint64_t next_number() noexcept {
    static constinit std::atomic<std::uint64_t> last = 0;
    if (process_has_one_thread()) {
        const std::uint64_t number = last.load(std::memory_order_relaxed) + 1;
        last.store(number, std::memory_order_relaxed);
        return number;
    }
    return last.fetch_add(1, std::memory_order_relaxed) + 1;
}

template <class E> bool is_a(const std::exception_ptr& exception) noexcept {
#ifdef __cpp_rtti
    // CancelledError, KeyboardInterrupt and SystemExit are final, so the type itself tells.
    const std::type_info* type = exception.__cxa_exception_type();
    return type != nullptr && *type == typeid(E);
#else
    try {
        std::rethrow_exception(exception);
    } catch (const E&) {
        return true;
    } catch (...) {
        return false;
    }
#endif
}

} // namespace

std::string Location::text() const {
    const std::source_location where = get();
    return std::string(where.file_name()) + ":" + std::to_string(where.line());
}

void TaskBase::start(std::coroutine_handle<> coroutine, PromiseBase& promise,
                     Location created) noexcept {
    promise.task = this;
    promise.set_outermost(created.pointer() != nullptr ? created : promise.where);
    resume_ = coroutine;
    identity_ = next_number();
    LoopCore& core = loop_->core();
    next_task_ = first(*loop_);
    if (next_task_ != nullptr) next_task_->previous_task_ = this;
    core.tasks = this;
    retain(); // the loop's reference, until the task is done
    core.ready.push(*this);
}

std::coroutine_handle<> TaskBase::outermost() const noexcept {
    std::coroutine_handle<> frame = resume_;
    while (!promise_of(frame).is_outermost()) frame = promise_of(frame).outer();
    return frame;
}

Location TaskBase::created() const noexcept {
    return done() ? created_ : promise_of(outermost()).created();
}

TaskBase::~TaskBase() {
    if ((flags_ & details_flag) != 0) delete &details();
}

void TaskBase::unlink(Location created) noexcept {
    if (next_task_ != nullptr) next_task_->previous_task_ = previous_task_;
    if (previous_task_ != nullptr) {
        previous_task_->next_task_ = next_task_;
    } else {
        loop_->core().tasks = next_task_;
    }
    created_ = created;
}

// waiting_for_ is null: from here on its place holds an exception, so far none.
void TaskBase::run() {
    LoopCore& core = loop_->core();
    flags_ &= static_cast<std::uint16_t>(~(suspended_flag | awaits_flag));
    core.current_task = this;
    swap_context(core);
    if ((flags_ & started_flag) == 0) {
        flags_ |= started_flag;
        if (cancel_due()) [[unlikely]] { // before its first step: the body never runs
            set_thrown(take_cancelled());
            flags_ |= returned_flag;
        }
    }
    while ((flags_ & (suspended_flag | returned_flag)) == 0) {
        // On GCC each frame that is awaited or finishes comes back here and names the next one.
        resume_.resume();
    }
    if ((flags_ & returned_flag) != 0) {
        finish_task();
        return;
    }
    swap_context(core);
    core.current_task = nullptr;
}

void TaskBase::finish_task() {
    LoopCore& core = loop_->core();
    const Location created = promise_of(resume_).created();
    // What the coroutine threw, or moving its result, is in exception_ already.
    bool has_value = end(resume_, !has_thrown());
    if ((flags_ & must_cancel_flag) != 0 && has_value)
        [[unlikely]] { // too late for it to be thrown
        drop_value();
        exception_ = take_cancelled();
        has_value = false;
    }
    swap_context(core);
    context_ = ContextRef();
    core.current_task = nullptr;
    unlink(created);
    if (has_value) [[likely]] {
        finish_with_value();
        release();
    } else {
        finish_without_value();
    }
}

void TaskBase::finish_without_value() {
    std::exception_ptr exception = take_thrown();
    if (is_a<CancelledError>(exception)) {
        finish_with_exception(std::move(exception), cancelled_state);
        release();
        return;
    }
    const bool interrupts = is_a<KeyboardInterrupt>(exception) || is_a<SystemExit>(exception);
    finish_with_exception(exception, failed);
    release();
    if (interrupts) std::rethrow_exception(std::move(exception));
}

bool TaskBase::cancel(const std::string& message) {
    if (done()) return false;
    // A task that waits for a task passes the cancel on, and so forth: a loop, since the chain may
    // be long, and may be closed to a ring.
    struct Marks {
        TaskBase* first;
        ~Marks() {
            for (TaskBase* task = first; task != nullptr && (task->flags_ & mark_flag) != 0;
                 task = task->awaited_task()) {
                task->flags_ &= static_cast<std::uint16_t>(~mark_flag);
            }
        }
    };
    TaskBase* last = this;
    {
        const Marks marks{this};
        for (TaskBase* task = this; task != nullptr; task = task->awaited_task()) {
            if ((task->flags_ & mark_flag) != 0) { // a ring: it is broken open here
                last->flags_ |= interrupt_flag;
                break;
            }
            // If one is being delivered already, it is that one's message which arrives.
            if (!task->is_interrupted()) task->save_cancel_message(message);
            if (task->cancelling_ != UINT16_MAX) ++task->cancelling_;
            task->flags_ |= mark_flag;
            last = task;
        }
    }
    if (last->is_interrupted() && last->awaited_task() != nullptr) {
        static_cast<TaskWaiter*>(last->waiting_for_)->detach();
        last->wake();
    } else {
        last->cancel_here();
    }
    return true;
}

void TaskBase::cancel_here() noexcept {
    if ((flags_ & suspended_flag) != 0 && waiting_for_ != nullptr) {
        switch (waiting_for_->try_cancel()) {
        case CancelOutcome::done_now:
            flags_ |= interrupt_flag;
            wake();
            return;
        case CancelOutcome::pending:
            return;
        case CancelOutcome::already_done:
            break;
        }
    }
    flags_ |= must_cancel_flag;
}

TaskBase* TaskBase::awaited_task() const noexcept {
    if ((flags_ & awaits_flag) == 0 || waiting_for_ == nullptr) return nullptr;
    FutureBase& future = static_cast<TaskWaiter*>(waiting_for_)->future();
    return future.is_task() && !future.done() ? static_cast<TaskBase*>(&future) : nullptr;
}

void TaskBase::suspend(std::coroutine_handle<> frame, TaskWaiter& waiter) noexcept {
    flags_ |= awaits_flag;
    suspend(frame, static_cast<Operation&>(waiter));
}

// The task has begun to wait while a cancel was pending.
void TaskBase::cancel_wait() noexcept {
    switch (waiting_for_->try_cancel()) {
    case CancelOutcome::done_now:
        flags_ |= interrupt_flag;
        wake();
        break;
    case CancelOutcome::pending:
        break;
    case CancelOutcome::already_done:
        return;
    }
    flags_ &= static_cast<std::uint16_t>(~must_cancel_flag);
}

unsigned TaskBase::uncancel() noexcept {
    if (cancelling_ > 0 && --cancelling_ == 0)
        flags_ &= static_cast<std::uint16_t>(~must_cancel_flag);
    return cancelling_;
}

void TaskBase::throw_cancelled() {
    forget_cancel();
    throw CancelledError(cancel_message());
}

std::exception_ptr TaskBase::take_cancelled() {
    forget_cancel();
    return std::make_exception_ptr(CancelledError(cancel_message()));
}

TaskDetails& TaskBase::details() {
    if ((flags_ & details_flag) == 0) {
        auto* details = new TaskDetails();
        details->number = identity_;
        identity_ = reinterpret_cast<std::uint64_t>(details);
        flags_ |= details_flag;
    }
    return *reinterpret_cast<TaskDetails*>(identity_);
}

void TaskBase::save_cancel_message(const std::string& message) {
    if (!message.empty() || details_or_null() != nullptr) details().cancel_message = message;
}

std::string TaskBase::cancel_message() const {
    const TaskDetails* details = details_or_null();
    return details != nullptr ? details->cancel_message : std::string();
}

std::string TaskBase::name() const {
    const TaskDetails* details = details_or_null();
    if (details != nullptr && details->named) return details->name;
    return "Task-" + std::to_string(details != nullptr ? details->number : identity_);
}

void TaskBase::set_name(std::string name) {
    details().name = std::move(name);
    details().named = true;
}

std::string TaskBase::describe() const {
    std::string text = "<Task ";
    switch (state()) {
    case pending:
        text += (flags_ & must_cancel_flag) != 0 ? "cancelling" : "pending";
        break;
    case cancelled_state:
        text += "cancelled";
        break;
    default:
        text += "finished";
        break;
    }
    text += " name='" + name() + "'";
    if (!done() && (flags_ & returned_flag) == 0) {
        const Location where = promise_of(resume_).where;
        text += std::string(" in ") + where.get().function_name() + " at " + where.text();
    }
    return text + " created at " + created().text() + ">";
}

void TaskBase::abandon() noexcept {
    loop_->report([this] {
        return ExceptionContext{
            .message = "Task was destroyed but it is pending! Await or cancel it before the event "
                       "loop is closed",
            .details = {{"task", describe()}},
        };
    });
    // The exception handler may have cancelled this task, or completed what it waits for: then it,
    // or a wait inside its frames, is in the queue, and must not outlive itself there.
    for (ReadyQueue& ready = loop_->core().ready; !ready.empty();) ready.pop().discard();
    unlink(promise_of(outermost()).created());
    waiting_for_ = nullptr;
    static_cast<void>(end(destroy_inner_frames(resume_), false));
    context_ = ContextRef();
    std::exception_ptr exception;
    try {
        exception = std::make_exception_ptr(CancelledError("its event loop was closed"));
    } catch (...) {
        exception = std::current_exception();
    }
    finish_with_exception(std::move(exception), cancelled_state);
    release();
}

} // namespace detail

AnyTask current_task(EventLoop& loop) {
    detail::TaskBase* task = loop.core().current_task;
    return task == nullptr ? AnyTask() : AnyTask::of(*task);
}
AnyTask current_task() { return current_task(get_running_loop()); }

std::vector<AnyTask> all_tasks(EventLoop& loop) {
    std::vector<AnyTask> tasks;
    for (detail::TaskBase* task = detail::TaskBase::first(loop); task != nullptr;
         task = task->next_task()) {
        tasks.push_back(AnyTask::of(*task));
    }
    return tasks;
}
std::vector<AnyTask> all_tasks() { return all_tasks(get_running_loop()); }

ASYNCIO_END_NAMESPACE
