// SPDX-License-Identifier: MIT
// What futures and tasks are made of, whatever the type of their result.
//
// A future is a counted block with a state and a list of those who wait. A task is a future that
// drives a coroutine: its step resumes the innermost frame, and returns when that waits again.
#pragma once

#include <asyncio/detail/location.hpp>
#include <asyncio/events.hpp>

#include <coroutine>
#include <cstdint>
#include <exception>
#include <source_location>
#include <string>
#include <vector>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

class FutureBase;
class DoneCallbackBase;

// A CancelledError with this message, or, where there is no memory for that, without one.
template <class Message> std::exception_ptr make_cancelled(Message message) noexcept {
    try {
        return std::make_exception_ptr(CancelledError(message()));
    } catch (...) {
        return std::make_exception_ptr(CancelledError());
    }
}

// Who waits for a future, as call graphs show it. See graph.hpp.
struct Awaiters {
    std::vector<FutureBase*> tasks;
    // Futures by way of which others wait: in their place stands who waits for them.
    std::vector<FutureBase*> stand_ins;
};

// Someone who waits for a future: linked in the future's list until it is done, then in the ready
// queue. All of them run in the turn after the future was done, in the order in which they came.
class ASYNCIO_API FutureWaiter : public Operation {
  public:
    // The future is done, and this is about to be queued. Asked only if `wants_notice`.
    virtual void scheduled(FutureBase&) noexcept {}
    // The future was destroyed without ever being done.
    virtual void forgotten() noexcept {}
    virtual DoneCallbackBase* as_done_callback() noexcept { return nullptr; }
    // Adds on whose behalf it waits, if that is known.
    virtual void find_awaiters(Awaiters&) const {}
    CancelOutcome try_cancel() noexcept override { return CancelOutcome::already_done; }

    // For FutureBase.
    FutureWaiter* next_waiter() const noexcept { return static_cast<FutureWaiter*>(next_link); }
    FutureWaiter* previous_waiter = nullptr; // of the first: the last

  protected:
    FutureWaiter() = default;
    ~FutureWaiter() = default;
};

class ASYNCIO_API FutureBase : public Runnable, public Pooled {
  public:
    enum State : std::uint16_t { pending, finished, failed, cancelled_state };

    void retain() noexcept { ++references_; }
    void release() noexcept {
        if (--references_ == 0) destroy();
    }
    bool is_unique() const noexcept { return references_ == 1; }

    EventLoop& loop() const noexcept { return *loop_; }
    State state() const noexcept { return static_cast<State>(flags_ & state_mask); }
    bool done() const noexcept { return state() != pending; }
    bool is_task() const noexcept { return (flags_ & task_flag) != 0; }

    // False if done already.
    virtual bool cancel(const std::string& message);
    // Throws InvalidStateError if done already.
    void set_exception(std::exception_ptr exception);
    void throw_if_done() const;
    void finish_with_value() noexcept { finish(finished); }
    void finish_with_exception(std::exception_ptr exception, State state) noexcept;

    // Throws InvalidStateError while pending, and the exception if there is one (which counts as
    // retrieved then).
    void throw_unless_value();
    // The exception, null if there is none. Requires: done. Counts as retrieved.
    const std::exception_ptr& retrieve() noexcept {
        if ((flags_ & unretrieved_flag) != 0) [[unlikely]] {
            seen();
        }
        return exception_;
    }
    // Where the value is. Requires: finished, and the result is neither void nor taken.
    virtual void* value() noexcept { return nullptr; }
    // The value was moved out by an await of the last handle.
    void mark_taken() noexcept { flags_ |= taken_flag; }
    bool is_taken() const noexcept { return (flags_ & taken_flag) != 0; }

    // Requires: pending. With `wants_notice`, the waiter's scheduled() is called.
    void add_waiter(FutureWaiter& waiter, bool wants_notice) noexcept;
    // Requires: in the list.
    void remove_waiter(FutureWaiter& waiter) noexcept;
    // Calls visit(waiter) for each in the list; it may remove the waiter it is given.
    template <class Visit> void for_each_waiter(Visit visit) {
        for (FutureWaiter* waiter = first_waiter_; waiter != nullptr;) {
            FutureWaiter* next = waiter->next_waiter();
            visit(*waiter);
            waiter = next;
        }
    }

    // The context in which reports of it are made; null: the current one.
    virtual ContextRef* report_context() noexcept { return nullptr; }
    // "<Future pending created at file:line>", for reports.
    virtual std::string describe() const;

    // While one lives, a value is being made, by code that may call back: nothing else may be set.
    struct BeingSet {
        FutureBase& future;
        explicit BeingSet(FutureBase& f) noexcept : future(f) { future.flags_ |= being_set_flag; }
        ~BeingSet() { future.flags_ &= static_cast<std::uint16_t>(~being_set_flag); }
    };

  protected:
    friend struct DebuggerFacts;

    static constexpr std::uint16_t state_mask = 3;
    static constexpr std::uint16_t task_flag = 1 << 2;
    static constexpr std::uint16_t unretrieved_flag = 1 << 3; // has an exception nobody has seen
    static constexpr std::uint16_t notice_flag = 1 << 4;      // some waiter wants notice
    static constexpr std::uint16_t taken_flag = 1 << 5;
    // Of tasks:
    static constexpr std::uint16_t started_flag = 1 << 6;
    static constexpr std::uint16_t suspended_flag = 1 << 7;
    static constexpr std::uint16_t returned_flag = 1 << 8; // the outermost frame has finished
    static constexpr std::uint16_t thrown_flag = 1
                                                 << 9; // an exception is on its way between frames
    static constexpr std::uint16_t must_cancel_flag =
        1 << 10; // asked for, not delivered; uncancel() withdraws it
    static constexpr std::uint16_t interrupt_flag =
        1 << 11; // its wait was cancelled: the await throws
    static constexpr std::uint16_t details_flag = 1 << 12; // identity_ points to TaskDetails
    static constexpr std::uint16_t awaits_flag = 1 << 13;  // waiting_for_ is a TaskWaiter
    static constexpr std::uint16_t mark_flag = 1 << 14;    // on the chain that cancel() follows
    static constexpr std::uint16_t being_set_flag = 1 << 15;

    explicit FutureBase(EventLoop& loop, std::uint16_t flags = 0) noexcept
        : flags_(flags), loop_(&loop) {
        loop.retain();
    }
    // Here and not in a source: what ends a task is one function then, and not one for each base.
    virtual ~FutureBase() {
        if (first_waiter_ != nullptr) [[unlikely]] {
            forget_waiters();
        }
        exception_.~exception_ptr();
        loop_->release();
    }

    ASYNCIO_COLD void forget_waiters() noexcept;
    void finish(State state) noexcept;
    void destroy() noexcept;
    // The exception is retrieved: there is nothing to report any more.
    ASYNCIO_COLD void seen() noexcept;

    std::uint32_t references_ = 0;
    std::uint16_t flags_;
    std::uint16_t cancelling_ = 0; // of tasks
    EventLoop* loop_;
    FutureWaiter* first_waiter_ = nullptr;
    // While a task is suspended: what it waits for, or null if it is in the ready queue. Else: the
    // exception that it, or the future, ended with or that is on its way between frames.
    union {
        std::exception_ptr exception_ = nullptr;
        Operation* waiting_for_;
    };

  private:
    void run() override {}
    // Where create_future() was called; null if it was made otherwise.
    virtual Location created_at() const noexcept { return Location(); }
};

// While it lives, the current context is the one in which reports of this future are made, as with
// asyncio's call_exception_handler.
class ReportScope {
  public:
    explicit ReportScope(FutureBase& future) noexcept {
        if (const ContextRef* own = future.report_context()) {
            swaps_ = true;
            context_ = *own; // a copy: the handler may have the future let go of its own
            context_.swap(current_context());
        }
    }
    ~ReportScope() {
        if (swaps_) context_.swap(current_context());
    }
    ReportScope(const ReportScope&) = delete;
    ReportScope& operator=(const ReportScope&) = delete;

  private:
    ContextRef context_;
    bool swaps_ = false;
};

class PromiseBase;
class TaskWaiter;

// What few tasks need.
struct TaskDetails : Pooled {
    std::uint64_t number = 0; // of "Task-N"
    bool named = false;
    std::string name;
    std::string cancel_message;
};

class ASYNCIO_API TaskBase : public FutureBase {
  public:
    bool cancel(const std::string& message) override;
    unsigned cancelling() const noexcept { return cancelling_; }
    unsigned uncancel() noexcept;

    std::string name() const;
    void set_name(const std::string& name);
    std::uint64_t number() const noexcept; // of "Task-N"
    // Gives the context a name, if it has none.
    Context get_context();
    // Before the first step.
    void set_context(ContextRef context) noexcept { context_.swap(context); }
    Location created() const noexcept;
    // "<Task pending name='Task-1' in f at file:line created at file:line>"
    std::string describe() const override;
    // The awaits at which its frames stand, the innermost first; of one that has not begun, where
    // its function stands. Empty once its coroutine has ended.
    std::vector<Location> await_chain() const;
    // Its coroutine runs just now, or has called what makes and runs an eager task.
    bool is_running() const noexcept {
        return (flags_ & (started_flag | suspended_flag | returned_flag)) == started_flag &&
               !done();
    }
    // describe() for a report that has the await chain on lines of its own, and that.
    std::vector<ExceptionContext::Detail> report() const;
    std::string describe_tasks() const override;
    ContextRef* report_context() noexcept override { return &context_; }

    // --- for awaitables, on behalf of the task that runs now ---

    // The frame waits for `operation`, which has been set going; called last in await_suspend.
    void suspend(std::coroutine_handle<> frame, Operation& operation) noexcept {
        resume_ = frame;
        waiting_for_ = &operation;
        flags_ |= suspended_flag;
        if ((flags_ & must_cancel_flag) != 0) [[unlikely]] {
            cancel_wait();
        }
    }
    // The same for a TaskWaiter.
    void suspend_for(std::coroutine_handle<> frame, Operation& waiter) noexcept {
        flags_ |= awaits_flag;
        suspend(frame, waiter);
    }
    // The frame waits for the next turn.
    void yield(std::coroutine_handle<> frame) noexcept {
        resume_ = frame;
        flags_ |= suspended_flag;
        schedule(); // waiting_for_ is null already
    }
    // Takes a suspend() back: the frame goes on at once.
    void unsuspend() noexcept {
        waiting_for_ = nullptr;
        flags_ &= static_cast<std::uint16_t>(~suspended_flag);
    }

    // --- for operations, when the wait is over ---

    // The task goes on in the next turn.
    void wake() noexcept {
        waiting_for_ = nullptr;
        loop_->core().ready.push(*this);
    }
    // A cancel has ended the wait and woken the task: what comes too late must leave it alone.
    bool is_interrupted() const noexcept { return (flags_ & interrupt_flag) != 0; }
    // The task, which has waited, goes on now: from an operation's run().
    void step();
    // The same, in the function that calls it.
    ASYNCIO_ALWAYS_INLINE void step_here() {
        waiting_for_ = nullptr;
        flags_ &= static_cast<std::uint16_t>(~(suspended_flag | awaits_flag));
        LoopCore& core = loop_->core();
        core.current_task = this;
        swap_context(core);
        go_on(core);
    }
    // The same from an operation's run_in_debug().
    void step_in_debug() {
        waiting_for_ = nullptr;
        TaskBase::run_in_debug();
    }

    // In await_resume, if the task was suspended there: whether the await must throw
    // CancelledError.
    bool cancel_due() const noexcept { return (flags_ & (must_cancel_flag | interrupt_flag)) != 0; }
    [[noreturn]] void throw_cancelled();
    std::exception_ptr take_cancelled() noexcept;
    // The await throws a CancelledError of another source, which covers the task's own.
    void forget_cancel() noexcept {
        flags_ &= static_cast<std::uint16_t>(~(must_cancel_flag | interrupt_flag));
    }

    std::string cancel_message() const;

    // --- for promises ---

    void set_thrown(std::exception_ptr exception) noexcept {
        exception_ = std::move(exception);
        flags_ |= thrown_flag;
    }
    bool has_thrown() const noexcept { return (flags_ & thrown_flag) != 0; }
    std::exception_ptr take_thrown() noexcept {
        flags_ &= static_cast<std::uint16_t>(~thrown_flag);
        return std::exchange(exception_, nullptr);
    }
    // The frame that runs next; on GCC, TaskBase::run is what resumes it.
    void set_innermost(std::coroutine_handle<> frame) noexcept { resume_ = frame; }
    void set_returned(std::coroutine_handle<> outermost) noexcept {
        resume_ = outermost;
        flags_ |= returned_flag;
    }

    // --- for create_task, once each ---

    // The first step is in the next turn.
    void schedule() noexcept { loop_->core().ready.push(*this); }
    // The first step is now, while whoever makes the task waits. Throws RuntimeError if something
    // runs in the task's context; then the first step is in the next turn.
    void run_eagerly();
    // Neither of these: it is as if the task had never been made.
    void never_begin() noexcept;

    // --- for current_task and all_tasks ---

    static TaskBase* first(EventLoop& loop) noexcept {
        return static_cast<TaskBase*>(loop.core().tasks);
    }
    TaskBase* next_task() const noexcept { return next_task_; }

  protected:
    explicit TaskBase(EventLoop& loop) noexcept
        : FutureBase(loop, task_flag), context_(context_for(loop)) {}
    ~TaskBase() override {
        if ((flags_ & details_flag) != 0) drop_details();
    }

    // Hands the coroutine to the task and the task to the loop; schedule() or run_eagerly() is
    // next. A `created` of null: where the coroutine's function stands.
    void start(std::coroutine_handle<> coroutine, PromiseBase& promise, Location created) noexcept;

    // The coroutine has ended: moves the result out of its frame if `with_value`, and destroys the
    // frame. True if there is a value now; false, with set_thrown(), if moving it threw.
    virtual bool end(std::coroutine_handle<> outermost, bool with_value) noexcept = 0;
    // end() has moved a result in that is dropped: the task was cancelled meanwhile.
    virtual void drop_value() noexcept {}

  private:
    friend struct DebuggerFacts;

    void run() override; // one step
    void run_in_debug() override;
    void discard() noexcept override {}
    // The task that this one waits for, if it does and that is not done.
    TaskBase* awaited_task() const noexcept;
    void cancel_here() noexcept;
    void swap_context(LoopCore& core) noexcept {
        if (core.context.get() != context_.get()) core.context.swap(context_);
    }
    void abandon() noexcept override;
    ASYNCIO_COLD void never_begin_cancelled();
    // waiting_for_ is null: from here on its place holds an exception, so far none.
    ASYNCIO_ALWAYS_INLINE void go_on(LoopCore& core) {
        do {
            // On GCC each frame that is awaited or finishes comes back here and names the next one.
            resume_.resume();
            if ((flags_ & suspended_flag) != 0) {
                swap_context(core);
                core.current_task = nullptr;
                return;
            }
        } while ((flags_ & returned_flag) == 0);
        finish_task();
    }
    void finish_task();
    ASYNCIO_COLD void finish_without_value();
    ASYNCIO_COLD void cancel_wait() noexcept;
    void save_cancel_message(const std::string& message);
    TaskDetails& details();
    void drop_details() noexcept;
    const TaskDetails* details_or_null() const noexcept {
        return (flags_ & details_flag) != 0 ? reinterpret_cast<const TaskDetails*>(identity_)
                                            : nullptr;
    }
    void unlink(Location created) noexcept;
    std::string describe(const std::string& place) const;
    std::coroutine_handle<> outermost() const noexcept;

    std::coroutine_handle<> resume_;
    // The loop's tasks that are not done. One that is done keeps where it was made instead, which
    // is in the outermost frame before.
    union {
        TaskBase* next_task_ = nullptr;
        Location created_;
    };
    TaskBase* previous_task_ = nullptr;
    std::uint64_t identity_ = 0; // N of "Task-N", or a TaskDetails*
    ContextRef context_;
};

// Chooses the constructor that takes over a reference.
struct Adopt {};
inline constexpr Adopt adopt;

// A task that waits for a future, from inside a frame.
class ASYNCIO_API TaskWaiter : public FutureWaiter {
  public:
    CancelOutcome try_cancel() noexcept override;
    void find_awaiters(Awaiters& awaiters) const override { awaiters.tasks.push_back(task_); }
    FutureBase& future() const noexcept { return *future_; }
    // Ends the wait though the future is not done. The await then throws CancelledError.
    void detach() noexcept;

  protected:
    explicit TaskWaiter(FutureBase& future) noexcept : future_(&future) { future.retain(); }
    TaskWaiter(FutureBase& future, Adopt) noexcept : future_(&future) {}
    ~TaskWaiter();

    TaskWaiter(const TaskWaiter&) = delete;
    TaskWaiter& operator=(const TaskWaiter&) = delete;

    void wait(TaskBase& task, std::coroutine_handle<> frame) noexcept;
    // After the wait: throws what the await must throw, if anything.
    void throw_unless_value() {
        if (task_ != nullptr && task_->cancel_due()) [[unlikely]] {
            throw_cancelled();
        }
        if (future_->state() != FutureBase::finished) [[unlikely]] {
            throw_failure();
        }
    }
    // The same without throwing; null if there is a value.
    std::exception_ptr take_failure();

    FutureBase* future_;
    TaskBase* task_ = nullptr; // set once the task has waited

  private:
    friend struct DebuggerFacts;

    void run() override { task_->step(); }
    void run_in_debug() override { task_->step_in_debug(); }
    bool is_linked() const noexcept { return previous_waiter != nullptr && !future_->done(); }
    [[noreturn]] ASYNCIO_COLD void throw_cancelled();
    [[noreturn]] ASYNCIO_COLD void throw_failure();
};

} // namespace detail
ASYNCIO_END_NAMESPACE
