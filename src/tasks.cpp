// SPDX-License-Identifier: MIT
#include <asyncio/tasks.hpp>

#include "is_a.hpp"

#include <atomic>
#include <cstddef>

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

// A line for each frame: "main.cpp:12 in work".
std::string describe_chain(const std::vector<Location>& chain) {
    std::string text;
    for (const Location& where : chain) {
        if (!text.empty()) text += "\n";
        text += where.text() + " in " + where.function();
    }
    return text;
}

} // namespace

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
}

std::coroutine_handle<> TaskBase::outermost() const noexcept {
    std::coroutine_handle<> frame = resume_;
    while (!promise_of(frame).is_outermost()) frame = promise_of(frame).outer();
    return frame;
}

Location TaskBase::created() const noexcept {
    if (done()) return created_;
    // While the coroutine is being destroyed, its frame is of no use.
    return (flags_ & returned_flag) != 0 ? Location() : promise_of(outermost()).created();
}

void TaskBase::drop_details() noexcept { delete &details(); }

void TaskBase::unlink(Location created) noexcept {
    if (next_task_ != nullptr) next_task_->previous_task_ = previous_task_;
    if (previous_task_ != nullptr) {
        previous_task_->next_task_ = next_task_;
    } else {
        loop_->core().tasks = next_task_;
    }
    created_ = created;
}

void TaskBase::step() { step_here(); }

void TaskBase::run() {
    LoopCore& core = loop_->core();
    const std::uint16_t before = flags_;
    flags_ = static_cast<std::uint16_t>((before & ~(suspended_flag | awaits_flag)) | started_flag);
    core.current_task = this;
    swap_context(core);
    if ((before & started_flag) == 0 && cancel_due()) [[unlikely]] {
        never_begin_cancelled();
        return;
    }
    go_on(core);
}

// Cancelled before its first step: the body never runs.
void TaskBase::never_begin_cancelled() {
    set_thrown(take_cancelled());
    flags_ |= returned_flag;
    finish_task();
}

void TaskBase::run_eagerly() {
    // What runs now is put aside, as if it were suspended, and goes on when this task's step is
    // over.
    struct Aside {
        LoopCore& core;
        TaskBase* task;
        ContextRef* own;
        ContextBox* displaced;
        explicit Aside(LoopCore& c) noexcept
            : core(c), task(c.current_task), own(std::exchange(c.own_context, nullptr)),
              displaced(c.context.box()) {
            if (displaced != nullptr) displaced->displaced = true;
            if (task != nullptr) task->context_.swap(own != nullptr ? *own : core.context);
        }
        ~Aside() {
            if (task != nullptr) task->context_.swap(own != nullptr ? *own : core.context);
            if (displaced != nullptr) displaced->displaced = false;
            core.own_context = own;
            core.current_task = task;
        }
    };
    const ContextBox* box = context_.box();
    LoopCore& core = loop_->core();
    if (box != nullptr && (box->displaced || core.context.get() == box)) {
        never_begin();
        throw RuntimeError("cannot enter context: something runs in it already, so that an eager "
                           "task cannot begin there; give it a copy()");
    }
    const Aside aside(core);
    run();
}

void TaskBase::never_begin() noexcept {
    unlink(Location());
    static_cast<void>(end(resume_, false));
    flags_ |= cancelled_state;
    release();
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
    // A context may hold what holds this task. After a failure it is kept for the report of that.
    if (!has_thrown()) context_ = ContextRef();
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
        context_ = ContextRef();
        finish_with_exception(std::move(exception), cancelled_state);
        release();
        return;
    }
    const bool interrupts = is_interrupt(exception);
    finish_with_exception(exception, failed);
    release();
    if (interrupts) std::rethrow_exception(std::move(exception));
}

bool TaskBase::cancel(const std::string& message) {
    if (done()) return FutureBase::cancel(message);
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
    if (details_or_null() == nullptr) { // there is no message
        forget_cancel();
        throw CancelledError();
    }
    std::rethrow_exception(take_cancelled());
}

std::exception_ptr TaskBase::take_cancelled() noexcept {
    forget_cancel();
    return make_cancelled([this] { return cancel_message(); });
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
    return "Task-" + std::to_string(number());
}

std::uint64_t TaskBase::number() const noexcept {
    const TaskDetails* details = details_or_null();
    return details != nullptr ? details->number : identity_;
}

Context TaskBase::get_context() {
    if (done()) {
        throw InvalidStateError("a task that is done has no context any more: call get_context() "
                                "before, the Context lives for as long as you keep it");
    }
    // While the task runs, its context is the loop's, or is put aside by Context::run().
    LoopCore& core = loop_->core();
    ContextRef& context = core.current_task != this     ? context_
                          : core.own_context != nullptr ? *core.own_context
                                                        : core.context;
    if (context.box() == nullptr) {
        context = ContextRef(new ContextBox(context, number() * 2));
    }
    return Context::of(*context.box());
}

void TaskBase::set_name(const std::string& name) {
    details().name = name;
    details().named = true;
}

std::vector<Location> TaskBase::await_chain() const {
    std::vector<Location> chain;
    if (done() || (flags_ & returned_flag) != 0) return chain;
    for (std::coroutine_handle<> frame = resume_;; frame = promise_of(frame).outer()) {
        chain.push_back(promise_of(frame).where);
        if (promise_of(frame).is_outermost()) return chain;
    }
}

std::string TaskBase::describe(const std::string& place) const {
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
    return text + " name='" + name() + "'" + place + " created at " + created().text() + ">";
}

std::string TaskBase::describe() const {
    if (done() || (flags_ & returned_flag) != 0) return describe(std::string());
    const Location where = promise_of(resume_).where;
    return describe(" in " + where.function() + " at " + where.text());
}

std::vector<ExceptionContext::Detail> TaskBase::report() const {
    std::vector<ExceptionContext::Detail> details = {{"task", describe(std::string())}};
    const std::string chain = describe_chain(await_chain());
    if (!chain.empty()) {
        details.push_back({(flags_ & started_flag) != 0 ? "stands at" : "not started", chain});
    }
    return details;
}

std::string TaskBase::describe_tasks() const {
    std::vector<const TaskBase*> tasks;
    for (const TaskBase* task = this; task != nullptr; task = task->next_task_) {
        tasks.push_back(task);
    }
    std::string text;
    for (auto task = tasks.rbegin(); task != tasks.rend(); ++task) {
        text += "\n  " + (*task)->describe(std::string());
        for (const Location& where : (*task)->await_chain()) {
            text += "\n    " + where.text() + " in " + where.function();
        }
    }
    return text;
}

void TaskBase::run_in_debug() {
    const AnyTask keep = AnyTask::of(*this);
    const Location from = promise_of(resume_).where;
    loop_->run_watched([this] { TaskBase::run(); },
                       [this, from] {
                           ExceptionContext context{.message = describe(std::string())};
                           context.details = report();
                           context.details.front() = {"ran from",
                                                      from.text() + " in " + from.function()};
                           return context;
                       });
}

void TaskBase::abandon() noexcept {
    {
        const ReportScope in_its_context(*this);
        loop_->report([this] {
            return ExceptionContext{
                .message =
                    "Task was destroyed but it is pending! Await or cancel it before the event "
                    "loop is closed",
                .details = report(),
            };
        });
    }
    // The exception handler may have cancelled this task, or completed what it waits for: then it,
    // or a wait inside its frames, is in the queue, and must not outlive itself there.
    for (ReadyQueue& ready = loop_->core().ready; !ready.empty();) ready.pop().discard();
    unlink(promise_of(outermost()).created());
    waiting_for_ = nullptr;
    flags_ |= returned_flag; // who asks from now on where it stands must not look at its frames
    static_cast<void>(end(destroy_inner_frames(resume_), false));
    context_ = ContextRef();
    finish_with_exception(make_cancelled([] { return std::string("its event loop was closed"); }),
                          cancelled_state);
    release();
}

void throw_loop_closed() {
    throw RuntimeError("Event loop is closed: the function that was to make a coroutine closed it");
}

void begin_task(TaskBase& task, const TaskOptions& options) {
    if (!options.name().empty()) {
        try {
            task.set_name(options.name());
        } catch (...) {
            task.never_begin();
            throw;
        }
    }
    if (const std::optional<Context> context = options.context()) task.set_context(context->ref());
    if (options.eager_start() == true && get_running_loop_or_null() == &task.loop()) {
        task.run_eagerly();
    } else {
        task.schedule();
    }
}

namespace {

struct FactoryHolder final : LoopExtra {
    explicit FactoryHolder(TaskFactory given) noexcept : factory(std::move(given)) {}
    TaskFactory factory;
};

} // namespace

// See debugger.cpp.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Winvalid-offsetof"
ASYNCIO_KEEP_FOR_DEBUGGER const DebuggerFact DebuggerFacts::tasks[] = {
    {"FutureBase.flags", offsetof(FutureBase, flags_)},
    {"FutureBase.state_mask", FutureBase::state_mask},
    {"FutureBase.task_flag", FutureBase::task_flag},
    {"FutureBase.first_waiter", offsetof(FutureBase, first_waiter_)},
    {"TaskBase.size", sizeof(TaskBase)},
    {"TaskBase.cancelling", offsetof(TaskBase, cancelling_)},
    {"TaskBase.waiting_for", offsetof(TaskBase, waiting_for_)},
    {"TaskBase.resume", offsetof(TaskBase, resume_)},
    {"TaskBase.next_task", offsetof(TaskBase, next_task_)},
    {"TaskBase.identity", offsetof(TaskBase, identity_)},
    {"TaskBase.started_flag", TaskBase::started_flag},
    {"TaskBase.suspended_flag", TaskBase::suspended_flag},
    {"TaskBase.returned_flag", TaskBase::returned_flag},
    {"TaskBase.details_flag", TaskBase::details_flag},
    {"TaskBase.awaits_flag", TaskBase::awaits_flag},
    {"TaskDetails.number", offsetof(TaskDetails, number)},
    {"TaskDetails.named", offsetof(TaskDetails, named)},
    {"TaskDetails.name", offsetof(TaskDetails, name)},
    {"TaskWaiter.future", offsetof(TaskWaiter, future_)},
    {"frame.promise", 2 * sizeof(void*)}, // as promise_of() has it
    {"PromiseBase.where", offsetof(PromiseBase, where)},
    {"PromiseBase.outer", offsetof(PromiseBase, outer_)},
    {nullptr},
};
#pragma GCC diagnostic pop
} // namespace detail

AnyTask TaskFactory::operator()(EventLoop& loop, NewTask& task, TaskOptions options) const {
    if (function_ == nullptr) return task(options);
    const std::shared_ptr<Function> function = function_; // it may replace itself
    return function->call(loop, task, std::move(options));
}

AnyTask NewTask::operator()(const TaskOptions& options) {
    if (std::exchange(is_asked_, true))
        throw RuntimeError("a task factory makes one task: this one is made already");
    loop_.throw_if_closed();
    detail::TaskBase& state = make_(closure_);
    made_ = AnyTask::of(state);
    detail::begin_task(state, options);
    return made_;
}

namespace detail {

AnyTask make_by_factory(EventLoop& loop, const TaskOptions* options, TaskBase& (*make)(void*),
                        void* closure) {
    loop.throw_if_closed();
    NewTask task(loop, make, closure);
    const AnyTask answer =
        get_task_factory(loop)(loop, task, options != nullptr ? *options : TaskOptions());
    if (!task.made_.valid() || !answer.valid() || !(answer == task.made_))
        throw RuntimeError("a task factory must return the task that its NewTask made");
    return answer;
}

} // namespace detail

void set_task_factory(EventLoop& loop, TaskFactory factory) {
    std::unique_ptr<detail::LoopExtra> changed;
    if (factory) changed = std::make_unique<detail::FactoryHolder>(std::move(factory));
    changed.swap(loop.core().task_factory);
}

TaskFactory get_task_factory(EventLoop& loop) {
    const auto* holder = static_cast<detail::FactoryHolder*>(loop.core().task_factory.get());
    return holder != nullptr ? holder->factory : TaskFactory();
}

AnyTask eager_task_factory(EventLoop&, NewTask& task, TaskOptions options) {
    if (!options.eager_start()) options.eager_start(true);
    return task(options);
}

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
