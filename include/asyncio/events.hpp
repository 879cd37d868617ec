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
#include <asyncio/detail/debugger.hpp>
#include <asyncio/detail/frame_pool.hpp>
#include <asyncio/detail/thread_door.hpp>
#include <asyncio/detail/timer_heap.hpp>
#include <asyncio/exceptions.hpp>
#include <asyncio/kernel/backend.hpp>

#include <atomic>
#include <chrono>
#include <cstdint>
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
    void run_in_debug() override;
    bool keeps_order() const noexcept override { return true; }
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
    OwnContext context_;
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
    bool cancelled() const noexcept {
        wait_for_its_end();
        return stage_.load(std::memory_order_acquire) == called_off;
    }

    void run() override;
    void run_in_debug() override;
    bool keeps_order() const noexcept override { return true; }
    void discard() noexcept override;

  protected:
    ThreadSafeState(EventLoop& loop, std::source_location where) noexcept;
    virtual ~ThreadSafeState();

    virtual void invoke() = 0;
    virtual void drop() noexcept = 0;

  private:
    friend class asyncio::EventLoop;

    enum Stage : int { waiting, running, over, called_off };

    // If it is running, and on another thread.
    void wait_for_its_end() const noexcept;

    std::atomic<std::uint32_t> references_ = 2; // the loop's and the handle's
    std::atomic<int> stage_ = waiting;
    EventLoop* loop_;
    OwnContext context_;
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

// What a floor above keeps in a loop.
class ASYNCIO_API LoopExtra {
  public:
    virtual ~LoopExtra();
    LoopExtra(const LoopExtra&) = delete;
    LoopExtra& operator=(const LoopExtra&) = delete;

  protected:
    LoopExtra() = default;
};

// The same, to be shut down by a Runner after the tasks. close() destroys it.
class ASYNCIO_API ShutdownStep : public LoopExtra {
  public:
    // Called while the loop does not run, and may run it. What it throws is reported, but for
    // KeyboardInterrupt and SystemExit, which leave Runner::close().
    virtual void shut_down(EventLoop& loop) = 0;
};
// In this order.
enum ShutdownStage { shutdown_asyncgens, shutdown_default_executor, shutdown_stages };

// What the floors above share with the loop; nothing for users.
struct LoopCore {
    ReadyQueue ready;
    TimerHeap timers;
    ContextRef context;                // the current one, while the loop runs
    ContextRef* own_context = nullptr; // while Context::run() has put `context` aside: where
    OwnContext* callback = nullptr;    // of the callback that runs now, if one does
    TaskBase* current_task = nullptr;
    Runnable* tasks = nullptr;               // those that are not done; each unlinks itself
    std::unique_ptr<LoopExtra> task_factory; // null: tasks are made as usual
    std::unique_ptr<LoopExtra> io;           // what sockets share; null: there were none
    std::uint64_t last_done_callback = 0;
    std::uint32_t references = 1; // futures and handles may outlive the loop's owner
    std::unique_ptr<ShutdownStep> shutdown_steps[shutdown_stages]; // null: there is nothing to do
    std::unique_ptr<LoopExtra> resolver;                           // null: no name was looked up
    // Work of threads that somebody waits for, and whose end comes by the door: it takes no virtual
    // time.
    std::size_t outside_jobs = 0;
};

struct CloseLoop {
    ASYNCIO_API void operator()(EventLoop* loop) const noexcept;
};

ASYNCIO_API ContextRef ref_of(const Context& context) noexcept;
template <class F>
concept NoContext = !std::is_same_v<std::remove_cvref_t<F>, Context>;

} // namespace detail

// A Context, and the place where it was passed: how call_soon and its like take one.
class InContext {
  public:
    InContext(const Context& context,
              std::source_location where = std::source_location::current()) noexcept
        : context_(detail::ref_of(context)), where_(where) {}

  private:
    friend class EventLoop;
    friend class AnyFuture;
    detail::ContextRef context_;
    std::source_location where_;
};

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
    // How the loop waits: "epoll", or "auto" for the best that this machine has, which is epoll so
    // far. new_event_loop() throws ValueError for another name. Default: what the variable
    // ASYNCIO_BACKEND says, else "auto". The loop tells by loop.backend().name().
    LoopOptions& backend(std::string name) {
        backend_ = std::move(name);
        return *this;
    }
    // For tests: what is ready in a turn runs in an order that is drawn by this seed, the same for
    // the same program and seed wherever it runs. A program that is right in every order that the
    // library promises is right under every seed: callbacks (of call_soon, call_soon_threadsafe,
    // call_later, add_done_callback) keep their order among themselves, and what becomes ready in a
    // turn still runs in a later one. What is shuffled is which of the tasks that are ready takes
    // its turn first, and when the callbacks come in between.
    LoopOptions& shuffle_ready(std::uint64_t seed) noexcept {
        shuffled_ = true;
        seed_ = seed;
        return *this;
    }

  private:
    friend class EventLoop;
    friend class RunOptions;
    // What the other names, and for the rest what this one does.
    void take(const LoopOptions& other) {
        if (other.clock_ != nullptr) clock_ = other.clock_;
        if (other.calls_ != nullptr) calls_ = other.calls_;
        if (other.debug_ >= 0) debug_ = other.debug_;
        if (!other.backend_.empty()) backend_ = other.backend_;
        if (other.shuffled_) shuffle_ready(other.seed_);
    }

    Clock* clock_ = nullptr;
    const SystemCalls* calls_ = nullptr;
    int debug_ = -1;      // not chosen
    std::string backend_; // empty: not chosen
    bool shuffled_ = false;
    std::uint64_t seed_ = 0;
};

// Owns a loop, and closes it at the end of its life.
using EventLoopOwner = std::unique_ptr<EventLoop, detail::CloseLoop>;

// A loop that is neither running nor closed. Throws std::system_error if the kernel refuses it the
// descriptors that it needs, ValueError for an unknown backend. (asyncio.new_event_loop)
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
    void stop() noexcept { turn_flags_ |= stop_flag; }
    bool is_running() const noexcept { return running_; }
    bool is_closed() const noexcept { return closed_; }
    // Drops all callbacks and timers, and destroys the tasks that are still pending, with a report
    // of each to the exception handler. A second call does nothing. Throws RuntimeError if the loop
    // is running. (loop.close)
    void close();

    // Calls function(arguments...) in the next turn, in the order of the calls; in a copy of the
    // current context, or, if a Context is passed first, in that one. The arguments are kept as
    // copies (std::ref for a reference) and moved into the call. Throws RuntimeError if the loop is
    // closed. (loop.call_soon)
    template <detail::NoContext F>
    Handle call_soon(F&& function, std::source_location where = std::source_location::current());
    template <detail::NoContext F, class A, class... Args>
    Handle call_soon(F&& function, A&& first, Args&&... arguments);
    template <class F, class... Args>
    Handle call_soon(InContext context, F&& function, Args&&... arguments);

    // Any thread: the same, and wakes the loop if it sleeps; calls of one thread keep their order,
    // and so do calls of call_soon and of this of which one was over before the other began.
    // The function runs, and is destroyed, on the loop's thread. Throws RuntimeError if the loop is
    // closed. (loop.call_soon_threadsafe)
    template <detail::NoContext F>
    ThreadSafeHandle
    call_soon_threadsafe(F&& function,
                         std::source_location where = std::source_location::current());
    template <detail::NoContext F, class A, class... Args>
    ThreadSafeHandle call_soon_threadsafe(F&& function, A&& first, Args&&... arguments);
    template <class F, class... Args>
    ThreadSafeHandle call_soon_threadsafe(InContext context, F&& function, Args&&... arguments);

    // Calls function(arguments...) after the delay, never early; equal deadlines in the order of
    // the calls. A negative delay is reported to the exception handler: its deadline has passed
    // already. Throws RuntimeError if the loop is closed, ValueError for a delay of NaN. A Context
    // comes after the delay. (loop.call_later)
    template <detail::NoContext F>
    TimerHandle call_later(Delay delay, F&& function,
                           std::source_location where = std::source_location::current());
    template <detail::NoContext F, class A, class... Args>
    TimerHandle call_later(Delay delay, F&& function, A&& first, Args&&... arguments);
    template <class F, class... Args>
    TimerHandle call_later(Delay delay, InContext context, F&& function, Args&&... arguments);
    // The same at a point in time on the loop's clock. (loop.call_at)
    template <detail::NoContext F>
    TimerHandle call_at(TimePoint when, F&& function,
                        std::source_location where = std::source_location::current());
    template <detail::NoContext F, class A, class... Args>
    TimerHandle call_at(TimePoint when, F&& function, A&& first, Args&&... arguments);
    template <class F, class... Args>
    TimerHandle call_at(TimePoint when, InContext context, F&& function, Args&&... arguments);

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

    // In debug mode a callback, or a step of a task, that takes slow_callback_duration() or longer
    // is reported to the exception handler, from the next turn on; and what belongs to the loop's
    // thread (call_soon, create_task, cancel, set_result, ...) throws RuntimeError if it is called
    // from another one while the loop runs. Set it before other threads know the loop.
    // (loop.get_debug, loop.set_debug)
    bool get_debug() const noexcept { return (turn_flags_ & debug_flag) != 0; }
    void set_debug(bool on) noexcept;
    // On the loop's clock; default 100 ms. (loop.slow_callback_duration)
    std::chrono::nanoseconds slow_callback_duration() const noexcept {
        return std::chrono::nanoseconds(slow_ns_);
    }
    void set_slow_callback_duration(Delay duration) noexcept { slow_ns_ = duration.nanoseconds(); }

    Clock& clock() const noexcept { return *clock_; }
    // Throws RuntimeError if the loop is closed.
    Backend& backend() const {
        throw_if_closed();
        return *backend_;
    }

    // For the floors above.
    Backend& backend_while_closing() const noexcept { return *backend_; }
    detail::LoopCore& core() noexcept { return core_; }
    void retain() noexcept { ++core_.references; }
    void release() noexcept {
        if (--core_.references == 0) delete this;
    }
    // In debug mode also if the loop runs in another thread.
    void throw_if_closed() const {
        if (guarded_) [[unlikely]] {
            if (closed_) throw_closed();
            throw_if_elsewhere();
        }
    }
    // In debug mode: throws RuntimeError if the loop runs in another thread.
    void check_thread() const {
        if (guarded_) [[unlikely]] {
            throw_if_elsewhere();
        }
    }
    // As run_forever() does, which calls this first.
    void throw_if_cannot_run() const;
    // Any thread: queues a node, and wakes the loop. False if the loop is closed.
    bool enter_from_any_thread(detail::Runnable& node) noexcept;
    // The same in a signal handler, which may have interrupted this loop anywhere.
    bool enter_from_signal_handler(detail::Runnable& node) noexcept;
    // call_exception_handler(make()); if there is no memory for that, a line on standard error.
    template <class Make> void tell(Make make) {
        try {
            call_exception_handler(make());
        } catch (const KeyboardInterrupt&) {
            throw;
        } catch (const SystemExit&) {
            throw;
        } catch (...) {
            report_failed();
        }
    }
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

    // For run_in_debug(): calls step(), and reports tell(), an ExceptionContext whose message is
    // what was executed, if that took too long.
    template <class Step, class Tell> void run_watched(Step step, Tell tell) {
        const std::int64_t begin_ns = clock_->now_ns();
        step();
        std::int64_t took_ns = 0;
        if (__builtin_sub_overflow(clock_->now_ns(), begin_ns, &took_ns)) took_ns = INT64_MAX;
        if (took_ns < slow_ns_) [[likely]]
            return;
        report([&] {
            ExceptionContext context = tell();
            context.message = slow_message(context.message, took_ns);
            return context;
        });
    }

  private:
    friend EventLoopOwner new_event_loop(const LoopOptions&);
    friend struct detail::CloseLoop;
    friend class detail::HandleState;
    friend struct detail::DebuggerFacts;

    struct Handler {
        virtual ~Handler() = default;
        virtual void operator()(EventLoop& loop, const ExceptionContext& context) = 0;
    };
    struct Descriptors; // the callbacks of add_reader and add_writer
    struct Shuffle;

    // What the end of a turn looks at: 0 if another plain one follows.
    static constexpr std::uint8_t stop_flag = 1; // the turn that runs is the last one
    static constexpr std::uint8_t debug_flag = 2;
    static constexpr std::uint8_t shuffle_flag = 4;

    explicit EventLoop(const LoopOptions& options);
    ~EventLoop();

    template <bool Plain> void run_once();
    void run_watched_turn();
    void run_ready_watched();
    void wait_for_work();
    [[noreturn]] void throw_deadlock() const;
    void throw_if_elsewhere() const;
    static std::string slow_message(const std::string& what, std::int64_t took_ns);
    void run_batch();
    void drop_ready() noexcept;
    [[noreturn]] static void throw_closed();
    static void report_failed() noexcept;
    // A State that keeps the function, with the arguments if there are any.
    template <class State, class F, class... Args>
    State* make_callback(std::source_location where, F&& function, Args&&... arguments);
    template <class State, class F, class... Args>
    State* make_callback(InContext& context, F&& function, Args&&... arguments);
    Handle schedule_soon(detail::HandleState* state);
    // Callbacks are called in the order of the calls, by whatever door they come.
    void take_what_came_before() noexcept {
        if (!door_.empty()) [[unlikely]] {
            door_.take_all(core_.ready);
        }
    }
    ThreadSafeHandle schedule_threadsafe(detail::ThreadSafeState* state);
    TimerHandle schedule_later(detail::HandleState* state, Delay delay);
    TimerHandle schedule_at(detail::HandleState* state, std::int64_t when_ns);
    void watch(int descriptor, bool writing, detail::HandleState* state);
    bool unwatch(int descriptor, bool writing) noexcept;

    detail::LoopCore core_;
    bool running_ = false;
    std::uint8_t turn_flags_ = 0;
    bool closed_ = false;
    bool guarded_ = false; // closed, or in debug mode
    bool jumps_ = false;   // the clock does
    detail::ThreadDoor door_;
    Clock* clock_;
    std::unique_ptr<Backend> backend_;
    std::unique_ptr<Clock> own_clock_;
    std::unique_ptr<Descriptors> descriptors_;
    std::shared_ptr<Handler> exception_handler_;
    std::unique_ptr<Shuffle> shuffle_;
    std::int64_t slow_ns_ = 100'000'000;
    std::atomic<bool> occupied_ = false; // running_, for other threads
    detail::LivingLoop living_;
};

namespace detail {

// The running loop's current context, or the thread's own where no loop runs.
ASYNCIO_API ContextRef& current_context() noexcept;
// The same, while no loop runs in this thread.
ASYNCIO_API OwnContext& context_of_thread() noexcept;
// What is made for this loop now inherits this.
inline ContextRef context_for(EventLoop& loop) noexcept {
    return (loop.is_running() ? loop.core().context : current_context()).variables();
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
    // Whether it was cancelled before it began, so that it never runs. Waits as cancel() does.
    bool cancelled() const noexcept { return state_ == nullptr || state_->cancelled(); }

  private:
    detail::ThreadSafeState* state_ = nullptr;
};

template <class State, class F, class... Args>
State* EventLoop::make_callback(std::source_location where, F&& function, Args&&... arguments) {
    // Of another thread nothing is read here: the door refuses when the loop is closed.
    if constexpr (!std::is_same_v<State, detail::ThreadSafeState>) throw_if_closed();
    if constexpr (sizeof...(Args) == 0) {
        using C = detail::Callback<std::decay_t<F>, State>;
        return new C(std::forward<F>(function), *this, where);
    } else {
        using B = detail::Bound<std::decay_t<F>, std::decay_t<Args>...>;
        return new detail::Callback<B, State>(
            B(std::forward<F>(function), std::forward<Args>(arguments)...), *this, where);
    }
}
template <class State, class F, class... Args>
State* EventLoop::make_callback(InContext& context, F&& function, Args&&... arguments) {
    State* state = make_callback<State>(context.where_, std::forward<F>(function),
                                        std::forward<Args>(arguments)...);
    state->context_.variables.swap(context.context_);
    return state;
}

template <detail::NoContext F>
Handle EventLoop::call_soon(F&& function, std::source_location where) {
    return schedule_soon(make_callback<detail::HandleState>(where, std::forward<F>(function)));
}
template <detail::NoContext F, class A, class... Args>
Handle EventLoop::call_soon(F&& function, A&& first, Args&&... arguments) {
    return schedule_soon(make_callback<detail::HandleState>(
        std::source_location(), std::forward<F>(function), std::forward<A>(first),
        std::forward<Args>(arguments)...));
}
template <class F, class... Args>
Handle EventLoop::call_soon(InContext context, F&& function, Args&&... arguments) {
    return schedule_soon(make_callback<detail::HandleState>(context, std::forward<F>(function),
                                                            std::forward<Args>(arguments)...));
}

template <detail::NoContext F>
ThreadSafeHandle EventLoop::call_soon_threadsafe(F&& function, std::source_location where) {
    return schedule_threadsafe(
        make_callback<detail::ThreadSafeState>(where, std::forward<F>(function)));
}
template <detail::NoContext F, class A, class... Args>
ThreadSafeHandle EventLoop::call_soon_threadsafe(F&& function, A&& first, Args&&... arguments) {
    return schedule_threadsafe(make_callback<detail::ThreadSafeState>(
        std::source_location(), std::forward<F>(function), std::forward<A>(first),
        std::forward<Args>(arguments)...));
}
template <class F, class... Args>
ThreadSafeHandle EventLoop::call_soon_threadsafe(InContext context, F&& function,
                                                 Args&&... arguments) {
    return schedule_threadsafe(make_callback<detail::ThreadSafeState>(
        context, std::forward<F>(function), std::forward<Args>(arguments)...));
}

template <detail::NoContext F>
TimerHandle EventLoop::call_later(Delay delay, F&& function, std::source_location where) {
    return schedule_later(make_callback<detail::HandleState>(where, std::forward<F>(function)),
                          delay);
}
template <detail::NoContext F, class A, class... Args>
TimerHandle EventLoop::call_later(Delay delay, F&& function, A&& first, Args&&... arguments) {
    return schedule_later(make_callback<detail::HandleState>(
                              std::source_location(), std::forward<F>(function),
                              std::forward<A>(first), std::forward<Args>(arguments)...),
                          delay);
}
template <class F, class... Args>
TimerHandle EventLoop::call_later(Delay delay, InContext context, F&& function,
                                  Args&&... arguments) {
    return schedule_later(make_callback<detail::HandleState>(context, std::forward<F>(function),
                                                             std::forward<Args>(arguments)...),
                          delay);
}

template <detail::NoContext F>
TimerHandle EventLoop::call_at(TimePoint when, F&& function, std::source_location where) {
    return schedule_at(make_callback<detail::HandleState>(where, std::forward<F>(function)),
                       when.time_since_epoch().count());
}
template <detail::NoContext F, class A, class... Args>
TimerHandle EventLoop::call_at(TimePoint when, F&& function, A&& first, Args&&... arguments) {
    return schedule_at(make_callback<detail::HandleState>(
                           std::source_location(), std::forward<F>(function),
                           std::forward<A>(first), std::forward<Args>(arguments)...),
                       when.time_since_epoch().count());
}
template <class F, class... Args>
TimerHandle EventLoop::call_at(TimePoint when, InContext context, F&& function,
                               Args&&... arguments) {
    return schedule_at(make_callback<detail::HandleState>(context, std::forward<F>(function),
                                                          std::forward<Args>(arguments)...),
                       when.time_since_epoch().count());
}

template <class F>
void EventLoop::add_reader(int descriptor, F&& function, std::source_location where) {
    watch(descriptor, false, make_callback<detail::HandleState>(where, std::forward<F>(function)));
}

template <class F>
void EventLoop::add_writer(int descriptor, F&& function, std::source_location where) {
    watch(descriptor, true, make_callback<detail::HandleState>(where, std::forward<F>(function)));
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
