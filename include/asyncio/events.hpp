// SPDX-License-Identifier: MIT
// The event loop: callbacks, timers, descriptors, and one door for other threads.
//
// A loop belongs to the thread that runs it. It knows nothing of coroutines and is useful without
// them:
//
//     auto loop = asyncio::new_event_loop();
//     loop->call_later(2s, [&] { std::puts("two seconds later"); loop->stop(); });
//     loop->run_forever();
//
// A turn of the loop: wait for descriptors (not at all if something is ready to run), then run what
// was ready before, then what the descriptors made ready, then the timers that are due. What is
// scheduled meanwhile waits for the next turn. (asyncio: BaseEventLoop._run_once)
#pragma once

#include <asyncio/clock.hpp>
#include <asyncio/detail/context.hpp>
#include <asyncio/detail/frame_pool.hpp>
#include <asyncio/detail/thread_door.hpp>
#include <asyncio/detail/timer_heap.hpp>
#include <asyncio/exceptions.hpp>
#include <asyncio/kernel/backend.hpp>

#include <atomic>
#include <exception>
#include <memory>
#include <source_location>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

ASYNCIO_BEGIN_NAMESPACE

class EventLoop;
class Handle;
class TimerHandle;
class ThreadSafeHandle;

// What an exception handler is told. (the context dict of loop.call_exception_handler)
struct ExceptionContext {
    struct Detail {
        std::string key; // "task", "future", "handle", "created", ...
        std::string text;
    };

    std::string message;               // one sentence, never empty
    std::exception_ptr exception = {}; // null if nothing was thrown
    std::vector<Detail> details = {};
};

namespace detail {

class TaskBase;

// A callback that was scheduled, together with its timer: what a Handle points to. Counted without
// atomics: one reference for the loop while it is scheduled, one for each handle.
class ASYNCIO_API HandleState : public Timer, public Pooled {
  public:
    void retain() noexcept { ++references_; }
    void release() noexcept {
        if (--references_ == 0) delete this;
    }
    void cancel() noexcept;
    bool cancelled() const noexcept { return cancelled_; }

    void run() override;
    void discard() noexcept override;
    CancelOutcome try_cancel() noexcept override;

  protected:
    HandleState(EventLoop& loop, std::source_location where) noexcept;
    virtual ~HandleState();

    virtual void invoke() = 0;
    virtual void drop() noexcept = 0; // destroys the callable, early

    // Calls invoke() in this handle's context; failures go to the exception handler.
    void invoke_guarded();

  private:
    friend class asyncio::EventLoop;

    std::uint32_t references_ = 0;
    bool cancelled_ = false;
    bool executing_ = false;
    bool repeats_ = false; // a descriptor's callback stays until it is cancelled
    bool queued_ = false;  // for these: in the ready queue
    EventLoop* loop_;
    ContextRef context_;
    std::source_location where_;
};

// The same for call_soon_threadsafe: what two threads share is atomic.
class ASYNCIO_API ThreadSafeState : public Runnable {
  public:
    void retain() noexcept { references_.fetch_add(1, std::memory_order_relaxed); }
    void release() noexcept {
        if (references_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
    }
    void cancel() noexcept;
    bool cancelled() const noexcept { return stage_.load(std::memory_order_acquire) == called_off; }

    void run() override;
    void discard() noexcept override;

  protected:
    ThreadSafeState(EventLoop& loop, std::source_location where) noexcept;
    virtual ~ThreadSafeState();

    virtual void invoke() = 0;
    virtual void drop() noexcept = 0;

  private:
    friend class asyncio::EventLoop;

    enum Stage : int { waiting, running, over, called_off };

    std::atomic<std::uint32_t> references_ = 2; // the loop's and the handle's
    std::atomic<int> stage_ = waiting;
    EventLoop* loop_;
    ContextRef context_;
    std::source_location where_;
};

template <class F, class... Args>
concept makes_coroutine =
    requires { typename std::remove_cvref_t<std::invoke_result_t<F, Args...>>::promise_type; };

template <class F>
inline constexpr bool is_coroutine = requires { typename F::promise_type; } || makes_coroutine<F&>;

template <class F, class Base> class Callback final : public Base {
  public:
    static_assert(!is_coroutine<F>,
                  "a callback that is a coroutine would never run: use create_task");
    static_assert(is_coroutine<F> || std::is_invocable_v<F&>,
                  "a callback is called without arguments (beyond those given with it)");

    template <class G>
    Callback(G&& function, EventLoop& loop, std::source_location where)
        : Base(loop, where), function_(std::forward<G>(function)) {}
    ~Callback() override { destroy(); }

    Callback(const Callback&) = delete;
    Callback& operator=(const Callback&) = delete;

  private:
    void invoke() override {
        if constexpr (std::is_invocable_v<F&>) static_cast<void>(function_());
    }
    void drop() noexcept override { destroy(); }
    void destroy() noexcept {
        if (alive_) {
            alive_ = false;
            function_.~F();
        }
    }

    union {
        F function_;
    };
    bool alive_ = true;
};

// A callable with its arguments, as std::bind_front would keep them.
template <class F, class... Args> class Bound {
  public:
    template <class G, class... Given>
    explicit Bound(G&& function, Given&&... arguments)
        : function_(std::forward<G>(function)), arguments_(std::forward<Given>(arguments)...) {}
    decltype(auto) operator()()
        requires std::is_invocable_v<F&, Args...>
    {
        return std::apply(function_, std::move(arguments_));
    }

  private:
    F function_;
    std::tuple<Args...> arguments_;
};

// What the floors above share with the loop; nothing for users.
struct LoopCore {
    ReadyQueue ready;
    TimerHeap timers;
    ContextRef context; // the current one, while the loop runs
    TaskBase* current_task = nullptr;
    Runnable* tasks = nullptr; // those that are not done; each unlinks itself
    std::uint64_t last_done_callback = 0;
    std::uint32_t references = 1; // futures and handles may outlive the loop's owner
};

struct CloseLoop {
    ASYNCIO_API void operator()(EventLoop* loop) const noexcept;
};

} // namespace detail

// How a loop is made. Chained setters: `LoopOptions().debug(true)`.
class LoopOptions {
  public:
    // Read the time from this clock, which must outlive the loop. Default: a MonotonicClock.
    LoopOptions& clock(Clock& clock) noexcept {
        clock_ = &clock;
        return *this;
    }
    // Make system calls through this table, which must outlive the loop. Default: the kernel's own.
    LoopOptions& system_calls(const SystemCalls& calls) noexcept {
        calls_ = &calls;
        return *this;
    }
    // See EventLoop::set_debug. Default: whether the variable ASYNCIO_DEBUG is set, and not to 0.
    LoopOptions& debug(bool on) noexcept {
        debug_ = on ? 1 : 0;
        return *this;
    }

  private:
    friend class EventLoop;
    Clock* clock_ = nullptr;
    const SystemCalls* calls_ = nullptr;
    int debug_ = -1;
};

// Owns a loop, and closes it at the end of its life.
using EventLoopOwner = std::unique_ptr<EventLoop, detail::CloseLoop>;

// A loop that is neither running nor closed. Throws std::system_error if the kernel refuses it the
// descriptors that it needs. (asyncio.new_event_loop)
ASYNCIO_API EventLoopOwner new_event_loop(const LoopOptions& options = {});

// The loop that runs in this thread. Throws RuntimeError if none does. (asyncio.get_running_loop)
ASYNCIO_API EventLoop& get_running_loop();

// The same, or nullptr. (asyncio._get_running_loop)
ASYNCIO_API EventLoop* get_running_loop_or_null() noexcept;

class ASYNCIO_API EventLoop {
  public:
    EventLoop(const EventLoop&) = delete;
    EventLoop& operator=(const EventLoop&) = delete;

    // Runs turns until stop(). Throws RuntimeError if a loop already runs in this thread, or if
    // this one is closed; lets KeyboardInterrupt and SystemExit out of a callback or task at once:
    // then what was ready stays so, for the next run. (loop.run_forever)
    void run_forever();
    // The turn that runs now is the last one; before run_forever: it makes one turn. (loop.stop)
    void stop() noexcept { stopping_ = true; }
    bool is_running() const noexcept { return running_; }
    bool is_closed() const noexcept { return closed_; }
    // Drops all callbacks and timers, and destroys the tasks that are still pending, with a report
    // of each to the exception handler. A second call does nothing. Throws RuntimeError if the loop
    // is running. (loop.close)
    void close();

    // Calls function(arguments...) in the next turn, in the order of the calls. The arguments are
    // kept as copies (std::ref for a reference) and moved into the call. Throws RuntimeError if the
    // loop is closed. (loop.call_soon)
    template <class F>
    Handle call_soon(F&& function, std::source_location where = std::source_location::current());
    template <class F, class A, class... Args>
    Handle call_soon(F&& function, A&& first, Args&&... arguments);

    // Any thread: the same, and wakes the loop if it sleeps; calls of one thread keep their order.
    // The function runs, and is destroyed, on the loop's thread. Throws RuntimeError if the loop is
    // closed. (loop.call_soon_threadsafe)
    template <class F>
    ThreadSafeHandle
    call_soon_threadsafe(F&& function,
                         std::source_location where = std::source_location::current());
    template <class F, class A, class... Args>
    ThreadSafeHandle call_soon_threadsafe(F&& function, A&& first, Args&&... arguments);

    // Calls function(arguments...) after the delay, never early; equal deadlines in the order of
    // the calls. A negative delay is reported to the exception handler: its deadline has passed
    // already. Throws RuntimeError if the loop is closed, ValueError for a delay of NaN.
    // (loop.call_later)
    template <class F>
    TimerHandle call_later(Delay delay, F&& function,
                           std::source_location where = std::source_location::current());
    template <class F, class A, class... Args>
    TimerHandle call_later(Delay delay, F&& function, A&& first, Args&&... arguments);
    // The same at a point in time on the loop's clock. (loop.call_at)
    template <class F>
    TimerHandle call_at(TimePoint when, F&& function,
                        std::source_location where = std::source_location::current());
    template <class F, class A, class... Args>
    TimerHandle call_at(TimePoint when, F&& function, A&& first, Args&&... arguments);

    // The loop's clock now. (loop.time)
    TimePoint time() const noexcept {
        return TimePoint(std::chrono::nanoseconds(clock_->now_ns()));
    }

    // Calls function() in each turn in which the descriptor can be read (written), until removed;
    // replaces what was there. Throws RuntimeError if the loop is closed, ValueError for a negative
    // descriptor, std::system_error if the kernel cannot watch it (a regular file, a closed one);
    // then what was there stays. (loop.add_reader, loop.add_writer)
    template <class F>
    void add_reader(int descriptor, F&& function,
                    std::source_location where = std::source_location::current());
    template <class F>
    void add_writer(int descriptor, F&& function,
                    std::source_location where = std::source_location::current());
    // False if there was none. Remove before you close the descriptor.
    bool remove_reader(int descriptor) noexcept;
    bool remove_writer(int descriptor) noexcept;

    // Who is told of failures that nobody else can be told of: handler(EventLoop&, const
    // ExceptionContext&). What the handler throws goes to default_exception_handler.
    // (loop.set_exception_handler)
    template <class F> void set_exception_handler(F&& handler);
    void set_exception_handler(std::nullptr_t) noexcept { exception_handler_.reset(); }
    // Never throws, but for KeyboardInterrupt and SystemExit out of the handler.
    // (loop.call_exception_handler)
    void call_exception_handler(const ExceptionContext& context);
    // Writes one block to standard error. (loop.default_exception_handler)
    static void default_exception_handler(const ExceptionContext& context) noexcept;

    // A flag for you to read: nothing in the library looks at it yet. (loop.get_debug,
    // loop.set_debug)
    bool get_debug() const noexcept { return debug_; }
    void set_debug(bool on) noexcept { debug_ = on; }

    Clock& clock() const noexcept { return *clock_; }
    // Throws RuntimeError if the loop is closed.
    Backend& backend() const {
        throw_if_closed();
        return *backend_;
    }

    // For the floors above.
    detail::LoopCore& core() noexcept { return core_; }
    void retain() noexcept { ++core_.references; }
    void release() noexcept {
        if (--core_.references == 0) delete this;
    }
    void throw_if_closed() const {
        if (closed_) [[unlikely]] {
            throw_closed();
        }
    }
    // As run_forever() does, which calls this first.
    void throw_if_cannot_run() const;
    // Any thread: queues a node, and wakes the loop. False if the loop is closed.
    bool enter_from_any_thread(detail::Runnable& node) noexcept;
    // call_exception_handler(make()) for destructors: what the handler throws is dropped, and so is
    // the report if there is no memory for it; then a line on standard error says so.
    template <class Make> void report(Make make) noexcept { report(this, make); }
    // The same; without a loop, to the default handler.
    template <class Make> static void report(EventLoop* loop, Make make) noexcept {
        try {
            if (loop != nullptr) {
                loop->call_exception_handler(make());
            } else {
                default_exception_handler(make());
            }
        } catch (...) {
            report_failed();
        }
    }

  private:
    friend EventLoopOwner new_event_loop(const LoopOptions&);
    friend struct detail::CloseLoop;
    friend class detail::HandleState;

    struct Handler {
        virtual ~Handler() = default;
        virtual void operator()(EventLoop& loop, const ExceptionContext& context) = 0;
    };
    struct Descriptors; // the callbacks of add_reader and add_writer

    explicit EventLoop(const LoopOptions& options);
    ~EventLoop();

    void run_once();
    void wait_for_work();
    void drop_ready() noexcept;
    [[noreturn]] static void throw_closed();
    static void report_failed() noexcept;
    Handle schedule_soon(detail::HandleState* state);
    TimerHandle schedule_at(detail::HandleState* state, std::int64_t when_ns);
    std::int64_t deadline_after(Delay delay, std::source_location where);
    void watch(int descriptor, bool writing, detail::HandleState* state);
    bool unwatch(int descriptor, bool writing) noexcept;

    detail::LoopCore core_;
    bool running_ = false;
    bool stopping_ = false;
    bool closed_ = false;
    bool debug_ = false;
    detail::ThreadDoor door_;
    Clock* clock_;
    std::unique_ptr<Backend> backend_;
    std::unique_ptr<Clock> own_clock_;
    std::unique_ptr<Descriptors> descriptors_;
    std::shared_ptr<Handler> exception_handler_;
};

namespace detail {

// The running loop's current context, or the thread's own where no loop runs.
ASYNCIO_API ContextRef& current_context() noexcept;
// The same, for what is made for this loop now.
inline const ContextRef& context_for(EventLoop& loop) noexcept {
    return loop.is_running() ? loop.core().context : current_context();
}

} // namespace detail

// A callback that was scheduled. Copies mean the same callback. Belongs to the loop's thread.
// (asyncio.Handle)
class ASYNCIO_API Handle {
  public:
    Handle() noexcept = default; // of nothing: cancelled() is true
    explicit Handle(detail::HandleState* state) noexcept : state_(state) {
        if (state_ != nullptr) state_->retain();
    }
    Handle(const Handle& other) noexcept : Handle(other.state_) {}
    Handle(Handle&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
    Handle& operator=(Handle other) noexcept {
        std::swap(state_, other.state_);
        return *this;
    }
    ~Handle() {
        if (state_ != nullptr) state_->release();
    }

    // The callback will not run, and is destroyed now. No effect on one that has run.
    void cancel() noexcept {
        if (state_ != nullptr) state_->cancel();
    }
    bool cancelled() const noexcept { return state_ == nullptr || state_->cancelled(); }

  protected:
    detail::HandleState* state_ = nullptr;
};

// The same with a deadline. A cancelled one leaves the loop at once. (asyncio.TimerHandle)
class ASYNCIO_API TimerHandle : public Handle {
  public:
    using Handle::Handle;
    // The deadline on the loop's clock.
    TimePoint when() const noexcept {
        return TimePoint(std::chrono::nanoseconds(state_ == nullptr ? 0 : state_->when_ns));
    }
};

// What call_soon_threadsafe returns: may be used on any thread. (asyncio.Handle, as of 3.14)
class ASYNCIO_API ThreadSafeHandle {
  public:
    ThreadSafeHandle() noexcept = default;
    explicit ThreadSafeHandle(detail::ThreadSafeState* adopted) noexcept : state_(adopted) {}
    ThreadSafeHandle(const ThreadSafeHandle& other) noexcept : state_(other.state_) {
        if (state_ != nullptr) state_->retain();
    }
    ThreadSafeHandle(ThreadSafeHandle&& other) noexcept
        : state_(std::exchange(other.state_, nullptr)) {}
    ThreadSafeHandle& operator=(ThreadSafeHandle other) noexcept {
        std::swap(state_, other.state_);
        return *this;
    }
    ~ThreadSafeHandle() {
        if (state_ != nullptr) state_->release();
    }

    // After the return the callback either never runs or has ended: if it is running on the loop's
    // thread, waits for its end (but not when it is the callback itself that cancels).
    void cancel() noexcept {
        if (state_ != nullptr) state_->cancel();
    }
    bool cancelled() const noexcept { return state_ == nullptr || state_->cancelled(); }

  private:
    detail::ThreadSafeState* state_ = nullptr;
};

template <class F> Handle EventLoop::call_soon(F&& function, std::source_location where) {
    throw_if_closed();
    using State = detail::Callback<std::decay_t<F>, detail::HandleState>;
    return schedule_soon(new State(std::forward<F>(function), *this, where));
}

template <class F, class A, class... Args>
Handle EventLoop::call_soon(F&& function, A&& first, Args&&... arguments) {
    using B = detail::Bound<std::decay_t<F>, std::decay_t<A>, std::decay_t<Args>...>;
    return call_soon(
        B(std::forward<F>(function), std::forward<A>(first), std::forward<Args>(arguments)...),
        std::source_location());
}

template <class F>
ThreadSafeHandle EventLoop::call_soon_threadsafe(F&& function, std::source_location where) {
    using State = detail::Callback<std::decay_t<F>, detail::ThreadSafeState>;
    auto* state = new State(std::forward<F>(function), *this, where);
    ThreadSafeHandle handle(state);
    if (!enter_from_any_thread(*state)) {
        state->release();
        throw_closed();
    }
    return handle;
}

template <class F, class A, class... Args>
ThreadSafeHandle EventLoop::call_soon_threadsafe(F&& function, A&& first, Args&&... arguments) {
    using B = detail::Bound<std::decay_t<F>, std::decay_t<A>, std::decay_t<Args>...>;
    return call_soon_threadsafe(
        B(std::forward<F>(function), std::forward<A>(first), std::forward<Args>(arguments)...),
        std::source_location());
}

template <class F>
TimerHandle EventLoop::call_later(Delay delay, F&& function, std::source_location where) {
    throw_if_closed();
    using State = detail::Callback<std::decay_t<F>, detail::HandleState>;
    auto* state = new State(std::forward<F>(function), *this, where);
    const TimerHandle keep(state); // and with it the loop: the report may destroy its owner
    return schedule_at(state, deadline_after(delay, where));
}

template <class F, class A, class... Args>
TimerHandle EventLoop::call_later(Delay delay, F&& function, A&& first, Args&&... arguments) {
    using B = detail::Bound<std::decay_t<F>, std::decay_t<A>, std::decay_t<Args>...>;
    return call_later(
        delay,
        B(std::forward<F>(function), std::forward<A>(first), std::forward<Args>(arguments)...),
        std::source_location());
}

template <class F>
TimerHandle EventLoop::call_at(TimePoint when, F&& function, std::source_location where) {
    throw_if_closed();
    using State = detail::Callback<std::decay_t<F>, detail::HandleState>;
    return schedule_at(new State(std::forward<F>(function), *this, where),
                       when.time_since_epoch().count());
}

template <class F, class A, class... Args>
TimerHandle EventLoop::call_at(TimePoint when, F&& function, A&& first, Args&&... arguments) {
    using B = detail::Bound<std::decay_t<F>, std::decay_t<A>, std::decay_t<Args>...>;
    return call_at(
        when,
        B(std::forward<F>(function), std::forward<A>(first), std::forward<Args>(arguments)...),
        std::source_location());
}

template <class F>
void EventLoop::add_reader(int descriptor, F&& function, std::source_location where) {
    throw_if_closed();
    using State = detail::Callback<std::decay_t<F>, detail::HandleState>;
    watch(descriptor, false, new State(std::forward<F>(function), *this, where));
}

template <class F>
void EventLoop::add_writer(int descriptor, F&& function, std::source_location where) {
    throw_if_closed();
    using State = detail::Callback<std::decay_t<F>, detail::HandleState>;
    watch(descriptor, true, new State(std::forward<F>(function), *this, where));
}

template <class F> void EventLoop::set_exception_handler(F&& handler) {
    constexpr bool fits =
        std::is_invocable_v<std::decay_t<F>&, EventLoop&, const ExceptionContext&>;
    static_assert(fits,
                  "an exception handler is called as handler(EventLoop&, const ExceptionContext&)");
    struct Holder final : Handler {
        explicit Holder(F&& function) : function_(std::forward<F>(function)) {}
        void operator()(EventLoop& loop, const ExceptionContext& context) override {
            if constexpr (fits) function_(loop, context);
        }
        std::decay_t<F> function_;
    };
    exception_handler_ = std::make_shared<Holder>(std::forward<F>(handler));
}

ASYNCIO_END_NAMESPACE
