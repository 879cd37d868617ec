// SPDX-License-Identifier: MIT
#include <asyncio/detail/location.hpp>
#include <asyncio/events.hpp>
#include <asyncio/exception_groups.hpp>

#include "guarded.hpp"

#include <cstdio>
#include <cstdlib>
#include <pthread.h>
#include <unordered_map>

ASYNCIO_BEGIN_NAMESPACE
namespace {

constinit thread_local EventLoop* running_loop = nullptr;
// Emptied when the thread ends, never destroyed: destructors of static objects come later.
union Undestroyed {
    detail::OwnContext context{};
    ~Undestroyed() {} // NOLINT
};
constinit thread_local Undestroyed outside_of_loops;
struct EmptyAtThreadExit {
    bool armed = false;
    ~EmptyAtThreadExit() { outside_of_loops.context.variables = detail::ContextRef(); }
};
thread_local EmptyAtThreadExit empty_at_thread_exit;

// "<Handle created at main.cpp:12>". The place is unknown where arguments were given along.
std::string describe(const char* kind, std::source_location where) {
    std::string text = std::string("<") + kind;
    if (where.line() != 0) {
        text += " created at " + detail::Location(where).text();
    }
    return text + ">";
}

// See LoopOptions::backend.
std::unique_ptr<Backend> make_backend(std::string name, const SystemCalls& calls) {
    const char* variable = name.empty() ? std::getenv("ASYNCIO_BACKEND") : nullptr;
    if (variable != nullptr) name = variable;
    if (name.empty() || name == "auto" || name == "epoll") return make_epoll_backend(calls);
    throw ValueError("there is no backend '" + name + "'" +
                     (variable != nullptr ? ", which the variable ASYNCIO_BACKEND names" : "") +
                     ": choose epoll, or auto for the best that this machine has");
}

// What std::throw_with_nested has put into it; null if it has not.
std::exception_ptr cause_of(const std::exception_ptr& exception) {
    try {
        std::rethrow_exception(exception);
    } catch (const std::nested_exception& nested) {
        return nested.nested_ptr();
    } catch (...) {
        return nullptr;
    }
}

// "  key: text". Text of several lines begins on one of its own.
void append_entry(std::string& block, const std::string& key, const std::string& text) {
    block += "  " + key + ":";
    const bool several = text.find('\n') != std::string::npos;
    block += several ? "\n    " : " ";
    for (const char c : text) {
        block += c;
        if (c == '\n') block += "    ";
    }
    block += '\n';
}

} // namespace

ASYNCIO_NOINLINE EventLoop* get_running_loop_or_null() noexcept { return running_loop; }

ASYNCIO_NOINLINE EventLoop& get_running_loop() {
    EventLoop* loop = running_loop;
    if (loop == nullptr) {
        throw RuntimeError("no running event loop: call this from a coroutine or callback that "
                           "asyncio::run() runs");
    }
    return *loop;
}

namespace detail {

LoopExtra::~LoopExtra() = default;
ContextMap::~ContextMap() = default;
ContextBox::~ContextBox() = default;

ASYNCIO_NOINLINE ContextRef& current_context() noexcept {
    if (running_loop != nullptr) return running_loop->core().context;
    return context_of_thread().variables;
}

ASYNCIO_NOINLINE OwnContext& context_of_thread() noexcept {
    empty_at_thread_exit.armed = true;
    return outside_of_loops.context;
}

HandleState::HandleState(EventLoop& loop, std::source_location where) noexcept
    : loop_(&loop), context_{context_for(loop)}, where_(where) {
    loop.retain();
}

HandleState::~HandleState() { loop_->release(); }

void HandleState::invoke_guarded() {
    call_guarded(
        *loop_, context_, [this] { invoke(); },
        [this] {
            return ExceptionContext{
                .message = "Exception in callback",
                .exception = std::current_exception(),
                .details = {{"handle", describe("Handle", where_)}},
            };
        });
}

// Gives back the reference of the queue.
void HandleState::run() {
    struct AtEnd {
        HandleState* state;
        ~AtEnd() {
            state->executing_ = false;
            // What is cancelled by itself is destroyed only now that it has ended.
            if (!state->repeats_ || state->cancelled_) state->drop();
            state->release();
        }
    };
    const AtEnd at_end{this};
    queued_ = false;
    if (cancelled_) return;
    executing_ = true;
    invoke_guarded();
}

void HandleState::run_in_debug() {
    const Handle keep(this);
    loop_->run_watched([this] { run(); },
                       [this] { return ExceptionContext{.message = describe("Handle", where_)}; });
}

void HandleState::discard() noexcept {
    cancelled_ = true;
    drop();
    release();
}

void HandleState::cancel() noexcept {
    cancelled_ = true;
    // A timer leaves at once; what is in the ready queue leaves when it comes up. The loop's
    // reference goes last: the callable may own the last handle.
    const bool armed = is_armed();
    if (armed) loop_->core().timers.disarm(*this);
    if (!executing_) drop();
    if (armed) release();
}

CancelOutcome HandleState::try_cancel() noexcept {
    cancel();
    return CancelOutcome::done_now;
}

ThreadSafeState::ThreadSafeState(EventLoop& loop, std::source_location where) noexcept
    : loop_(&loop), context_{current_context().variables()}, where_(where) {}

ThreadSafeState::~ThreadSafeState() = default;

void ThreadSafeState::run() {
    struct Release {
        ThreadSafeState* state;
        ~Release() {
            state->drop();
            // release: whoever waits in cancel() sees what the callback did.
            int expected = running;
            if (state->stage_.compare_exchange_strong(expected, over, std::memory_order_release)) {
                state->stage_.notify_all();
            }
            state->release();
        }
    };
    const Release at_end{this};
    int expected = waiting;
    if (!stage_.compare_exchange_strong(expected, running, std::memory_order_acq_rel)) return;
    call_guarded(
        *loop_, context_, [this] { invoke(); },
        [this] {
            return ExceptionContext{
                .message = "Exception in callback",
                .exception = std::current_exception(),
                .details = {{"handle", describe("ThreadSafeHandle", where_)}},
            };
        });
}

void ThreadSafeState::run_in_debug() {
    retain();
    const ThreadSafeHandle keep(this);
    loop_->run_watched(
        [this] { run(); },
        [this] { return ExceptionContext{.message = describe("ThreadSafeHandle", where_)}; });
}

void ThreadSafeState::discard() noexcept {
    int expected = waiting;
    stage_.compare_exchange_strong(expected, called_off, std::memory_order_acq_rel);
    drop();
    release();
}

void ThreadSafeState::cancel() noexcept {
    int expected = waiting;
    if (stage_.compare_exchange_strong(expected, called_off, std::memory_order_acq_rel)) return;
    wait_for_its_end();
}

void ThreadSafeState::wait_for_its_end() const noexcept {
    if (stage_.load(std::memory_order_acquire) != running) return;
    if (get_running_loop_or_null() != loop_) stage_.wait(running, std::memory_order_acquire);
}

void CloseLoop::operator()(EventLoop* loop) const noexcept {
    // A loop that is destroyed while it runs is destroyed by one of its own callbacks, so that
    // there is nowhere to go on.
    if (loop->is_running()) {
        std::fputs("asyncio: an event loop was destroyed while it is running; stop() it and let "
                   "run_forever() return first\n",
                   stderr);
        std::abort();
    }
    try {
        loop->close();
    } catch (...) {
        const std::exception_ptr failure = std::current_exception();
        loop->report([&failure] {
            return ExceptionContext{.message = "closing the event loop failed",
                                    .exception = failure};
        });
    }
    // Futures and handles may keep the loop, and the handler may keep them, or refer to what ends
    // with the owner.
    // NOLINTBEGIN(clang-analyzer-cplusplus.NewDelete): the owner's reference is still there
    loop->set_exception_handler(nullptr);
    loop->release();
    // NOLINTEND(clang-analyzer-cplusplus.NewDelete)
}

} // namespace detail

// The callbacks of add_reader and add_writer. Each holds a reference to its handle.
struct EventLoop::Descriptors {
    struct Callback final : Watcher {
        detail::HandleState* state = nullptr;

        void descriptor_ready(detail::ReadyQueue& ready) noexcept override {
            // Still there from the last time, if an exception left that turn before its end.
            if (state->queued_) return;
            state->queued_ = true;
            state->retain();
            ready.push(*state);
        }
        Watcher* if_set() noexcept { return state != nullptr ? this : nullptr; }
        // The callable's destructor may do anything, so whoever calls this is done with the table.
        static void retire(detail::HandleState* old) noexcept {
            if (old == nullptr) return;
            old->cancel();
            old->release();
        }
    };
    struct Pair {
        Callback reader;
        Callback writer;
    };
    std::unordered_map<int, Pair> by_number;
};

// Permutes what is ready, but for the order among callbacks.
struct EventLoop::Shuffle {
    // SplitMix64.
    std::uint64_t state;
    std::vector<detail::Runnable*> batch;
    std::vector<detail::Runnable*> callbacks;
    // An exception has left a turn before its end. What is left of it must run before what it has
    // made ready: a sleep that is due, for one, before the step of its task that was cancelled.
    bool interrupted = false;

    explicit Shuffle(std::uint64_t seed) noexcept : state(seed) {}

    // At least 0 and less than `bound`.
    std::size_t draw(std::size_t bound) noexcept {
        __extension__ using Wide = unsigned __int128;
        std::uint64_t z = (state += 0x9e3779b97f4a7c15);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
        z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
        z ^= z >> 31;
        return static_cast<std::size_t>((Wide{z} * bound) >> 64);
    }

    void permute(detail::ReadyQueue& ready) {
        batch.clear();
        callbacks.clear();
        for (detail::Runnable* node = ready.first(); node != nullptr; node = node->next_link) {
            batch.push_back(node);
            if (node->keeps_order()) callbacks.push_back(node);
        }
        for (std::size_t i = batch.size(); i > 1; --i) std::swap(batch[i - 1], batch[draw(i)]);
        ready.take_all();
        auto next_callback = callbacks.begin();
        for (detail::Runnable* node : batch) {
            ready.push(node->keeps_order() ? **next_callback++ : *node);
        }
    }
};

EventLoopOwner new_event_loop(const LoopOptions& options) {
    // A forked child has a copy of the loop, and is not run by it.
    static const int child_runs_none =
        ::pthread_atfork(nullptr, nullptr, [] { running_loop = nullptr; });
    static_cast<void>(child_runs_none);
    return EventLoopOwner(new EventLoop(options));
}

EventLoop::EventLoop(const LoopOptions& options)
    : clock_(options.clock_),
      backend_(make_backend(options.backend_,
                            options.calls_ != nullptr ? *options.calls_ : SystemCalls::real())),
      descriptors_(std::make_unique<Descriptors>()) {
    if (clock_ == nullptr) {
        own_clock_ = std::make_unique<MonotonicClock>();
        clock_ = own_clock_.get();
    }
    jumps_ = clock_->jumps();
    if (options.debug_ >= 0) {
        set_debug(options.debug_ == 1);
    } else if (const char* text = std::getenv("ASYNCIO_DEBUG")) {
        set_debug(*text != '\0' && std::string(text) != "0");
    }
    if (options.shuffled_) {
        shuffle_ = std::make_unique<Shuffle>(options.seed_);
        turn_flags_ |= shuffle_flag;
    }
}

EventLoop::~EventLoop() = default;

void EventLoop::throw_closed() {
    throw RuntimeError(
        "Event loop is closed: it takes no more callbacks; make another with new_event_loop()");
}

void EventLoop::set_debug(bool on) noexcept {
    turn_flags_ =
        static_cast<std::uint8_t>(on ? turn_flags_ | debug_flag : turn_flags_ & ~debug_flag);
    guarded_ = closed_ || on;
}

void EventLoop::throw_if_elsewhere() const {
    if (running_loop == this || !occupied_.load(std::memory_order_relaxed)) return;
    throw RuntimeError("Non-thread-safe operation invoked on an event loop other than the current "
                       "one: use call_soon_threadsafe()");
}

std::string EventLoop::slow_message(const std::string& what, std::int64_t took_ns) {
    char text[40];
    std::snprintf(text, sizeof text, " took %.3f seconds", static_cast<double>(took_ns) / 1e9);
    return "Executing " + what + text;
}

void EventLoop::throw_if_cannot_run() const {
    throw_if_closed();
    if (running_) throw RuntimeError("This event loop is already running");
    if (running_loop != nullptr) {
        throw RuntimeError(
            "Cannot run the event loop while another loop is running in this thread");
    }
}

void EventLoop::run_forever() {
    throw_if_cannot_run();
    struct Running {
        EventLoop& loop;
        explicit Running(EventLoop& l) : loop(l) {
            loop.retain();
            loop.running_ = true;
            loop.occupied_.store(true, std::memory_order_relaxed);
            running_loop = &loop;
            loop.living_.thread = __builtin_thread_pointer();
        }
        ~Running() {
            running_loop = nullptr;
            loop.living_.thread = nullptr;
            loop.running_ = false;
            loop.occupied_.store(false, std::memory_order_relaxed);
            loop.turn_flags_ &= static_cast<std::uint8_t>(~stop_flag);
            loop.release();
        }
    };
    const Running running(*this);
    do {
        if ((turn_flags_ & (debug_flag | shuffle_flag)) != 0) {
            run_watched_turn();
        } else {
            do {
                run_once<true>();
            } while (turn_flags_ == 0);
        }
    } while ((turn_flags_ & stop_flag) == 0);
}

ASYNCIO_NOINLINE void EventLoop::run_watched_turn() { run_once<false>(); }

// In debug mode, or shuffled.
void EventLoop::run_ready_watched() {
    if (shuffle_ != nullptr && !std::exchange(shuffle_->interrupted, true))
        shuffle_->permute(core_.ready);
    const bool debug = get_debug();
    for (const detail::Runnable* last = detail::last_of(core_.ready.first());;) {
        detail::Runnable& next = core_.ready.pop();
        const bool is_last = &next == last;
        if (debug) {
            next.run_in_debug();
        } else {
            next.run();
        }
        if (is_last) break;
    }
    if (shuffle_ != nullptr) shuffle_->interrupted = false;
}

// One turn. See the head of events.hpp for the order, which is CPython's.
template <bool Plain> ASYNCIO_ALWAYS_INLINE inline void EventLoop::run_once() {
    if (!core_.ready.empty() || (turn_flags_ & stop_flag) != 0) {
        // While no descriptor is watched, a poll could find nothing, and is left out.
        if (backend_->watches_any()) {
            const int found = backend_->wait(0);
            if (!door_.empty()) door_.take_all(core_.ready);
            backend_->tell(found, core_.ready);
        } else if (!door_.empty()) {
            door_.take_all(core_.ready);
        }
    } else if (core_.timers.empty() && !jumps_) {
        const int found = backend_->wait(door_.try_fall_asleep() ? Backend::no_timeout : 0);
        door_.take_all(core_.ready);
        backend_->tell(found, core_.ready);
    } else {
        wait_for_work();
    }

    if (detail::Timer* timer = core_.timers.earliest();
        timer != nullptr && clock_->may_have_reached(timer->when_ns)) {
        const std::int64_t now_ns = clock_->now_ns();
        while (timer != nullptr && timer->when_ns <= now_ns) {
            core_.timers.pop();
            core_.ready.push(*timer);
            timer = core_.timers.earliest();
        }
    }

    if (core_.ready.empty()) return;
    if constexpr (!Plain) {
        run_ready_watched();
        return;
    }
    run_batch();
}

// What is ready now, and nothing that becomes ready meanwhile.
ASYNCIO_ALWAYS_INLINE inline void EventLoop::run_batch() {
    // What is left when KeyboardInterrupt or SystemExit comes out waits for the next turn.
    struct Batch {
        detail::ReadyQueue& ready;
        detail::Runnable* next = ready.take_all();
        explicit Batch(detail::ReadyQueue& queue) noexcept : ready(queue) {}
        ~Batch() {
            if (next != nullptr) [[unlikely]] {
                ready.prepend(*next, *detail::last_of(next));
            }
        }
    };
    Batch batch(core_.ready);
    while (batch.next != nullptr) {
        // The node may be gone after its run.
        std::exchange(batch.next, batch.next->next_link)->run();
    }
}

// Nothing is ready: blocks in the kernel until something is, or a timer is due.
void EventLoop::wait_for_work() {
    const detail::Timer* timer = core_.timers.earliest();
    std::int64_t timeout_ns = Backend::no_timeout;
    if (timer != nullptr) {
        const std::int64_t now_ns = clock_->now_ns();
        timeout_ns = timer->when_ns <= now_ns                            ? 0
                     : now_ns < 0 && timer->when_ns > INT64_MAX + now_ns ? INT64_MAX
                                                                         : timer->when_ns - now_ns;
    }
    int found = 0;
    bool may_jump = false;
    if (jumps_) [[unlikely]] {
        // What is done outside is waited for in real time, while virtual time stands still. With no
        // deadline to jump to, descriptors and other threads are waited for as well.
        const bool outside = core_.outside_jobs != 0;
        if (outside || backend_->watches_any()) {
            const bool block =
                (timer == nullptr || (outside && timeout_ns != 0)) && door_.try_fall_asleep();
            found = backend_->wait(block ? Backend::no_timeout : 0);
        } else if (timer == nullptr && door_.empty()) {
            throw_deadlock();
        }
        may_jump = timer != nullptr && !outside && door_.empty();
    } else {
        if (timeout_ns != 0 && !door_.try_fall_asleep()) timeout_ns = 0;
        found = backend_->wait(timeout_ns);
    }
    door_.take_all(core_.ready);
    backend_->tell(found, core_.ready);
    if (may_jump && core_.ready.empty()) clock_->jump_to(timer->when_ns);
}

void EventLoop::throw_deadlock() const {
    std::string text = "deadlock: nothing is ready and no timer is armed, so that virtual time "
                       "could never advance";
    if (core_.tasks != nullptr)
        text += "; these tasks wait for what can never come:" + core_.tasks->describe_tasks();
    throw DeadlockError(text);
}

void EventLoop::drop_ready() noexcept {
    while (!core_.ready.empty()) core_.ready.pop().discard();
}

void EventLoop::close() {
    if (running_) throw RuntimeError("Cannot close a running event loop: stop() it first");
    if (closed_) return;
    closed_ = true;
    guarded_ = true;
    // What is dropped below may own the loop.
    struct Keep {
        EventLoop& loop;
        explicit Keep(EventLoop& l) noexcept : loop(l) { loop.retain(); }
        ~Keep() { loop.release(); }
    };
    const Keep keep(*this);
    door_.close(core_.ready);
    drop_ready();
    // A task's frame may, as it is destroyed, make others ready: these are dropped before the frame
    // that holds them goes.
    while (core_.tasks != nullptr) {
        core_.tasks->abandon();
        drop_ready();
    }
    while (!core_.timers.empty()) core_.timers.pop().discard();
    core_.resolver.reset();
    for (auto& step : core_.shutdown_steps) step.reset();
    drop_ready();
    core_.io.reset();
    // May hold futures, which hold the loop.
    core_.task_factory.reset();
    core_.context = detail::ContextRef();
    const auto watched = std::exchange(descriptors_->by_number, {});
    for (const auto& [descriptor, callbacks] : watched) { // the kernel forgets them with the epoll
        Descriptors::Callback::retire(callbacks.reader.state);
        Descriptors::Callback::retire(callbacks.writer.state);
    }
    drop_ready();
    backend_.reset();
}

Handle EventLoop::schedule_soon(detail::HandleState* state) {
    Handle handle(state);
    throw_if_closed(); // again: copying the callable is code of the user's
    state->retain();
    take_what_came_before();
    core_.ready.push(*state);
    return handle;
}

TimerHandle EventLoop::schedule_at(detail::HandleState* state, std::int64_t when_ns) {
    TimerHandle handle(state);
    throw_if_closed();
    state->retain();
    state->when_ns = when_ns;
    core_.timers.arm(*state);
    return handle;
}

TimerHandle EventLoop::schedule_later(detail::HandleState* state, Delay delay) {
    const TimerHandle keep(state); // and with it the loop: the report may destroy its owner
    const std::int64_t now_ns = clock_->now_ns();
    const std::int64_t delay_ns = delay.nanoseconds();
    if (delay_ns < 0) [[unlikely]] {
        call_exception_handler({
            .message = "call_later() got a negative delay, " + std::to_string(delay_ns) +
                       " ns: the callback runs as soon as possible; pass 0, or use call_soon()",
            .details = {{"handle", describe("TimerHandle", state->where_)}},
        });
    }
    std::int64_t when_ns = 0;
    if (__builtin_add_overflow(now_ns, delay_ns, &when_ns)) {
        when_ns = delay_ns < 0 ? INT64_MIN : INT64_MAX;
    }
    return schedule_at(state, when_ns);
}

ThreadSafeHandle EventLoop::schedule_threadsafe(detail::ThreadSafeState* state) {
    ThreadSafeHandle handle(state);
    if (!enter_from_any_thread(*state)) {
        state->release();
        throw_closed();
    }
    return handle;
}

bool EventLoop::enter_from_any_thread(detail::Runnable& node) noexcept {
    // On its own thread the loop is not asleep, and the order among call_soon and this is kept.
    if (running_loop == this) {
        take_what_came_before();
        core_.ready.push(node);
        return true;
    }
    return enter_from_signal_handler(node);
}

bool EventLoop::enter_from_signal_handler(detail::Runnable& node) noexcept {
    switch (door_.enter(node)) {
    case detail::ThreadDoor::Entered::loop_awake:
        return true;
    case detail::ThreadDoor::Entered::loop_must_be_woken:
        backend_->wake();
        door_.woken();
        return true;
    case detail::ThreadDoor::Entered::refused:
        break;
    }
    return false;
}

void EventLoop::watch(int descriptor, bool writing, detail::HandleState* state) {
    Handle handle(state);
    throw_if_closed();
    state->repeats_ = true;
    if (descriptor < 0) throw ValueError("Invalid file descriptor: " + std::to_string(descriptor));
    const auto [entry, is_new] = descriptors_->by_number.try_emplace(descriptor);
    auto& [reader, writer] = entry->second;
    try {
        backend_->watch(descriptor, writing ? reader.if_set() : &reader,
                        writing ? &writer : writer.if_set());
    } catch (...) {
        if (is_new) descriptors_->by_number.erase(entry);
        throw;
    }
    state->retain();
    Descriptors::Callback::retire(std::exchange((writing ? writer : reader).state, state));
}

bool EventLoop::unwatch(int descriptor, bool writing) noexcept {
    const auto entry = descriptors_->by_number.find(descriptor);
    if (entry == descriptors_->by_number.end()) return false;
    auto& [reader, writer] = entry->second;
    detail::HandleState* old = std::exchange((writing ? writer : reader).state, nullptr);
    if (old == nullptr) return false;
    try {
        backend_->watch(descriptor, reader.if_set(), writer.if_set());
    } catch (...) {
        // The descriptor was closed before it was removed: there is nothing left to watch.
        backend_->watch(descriptor, nullptr, nullptr);
    }
    if (reader.state == nullptr && writer.state == nullptr) descriptors_->by_number.erase(entry);
    Descriptors::Callback::retire(old);
    return true;
}

bool EventLoop::remove_reader(int descriptor) noexcept { return unwatch(descriptor, false); }
bool EventLoop::remove_writer(int descriptor) noexcept { return unwatch(descriptor, true); }

void EventLoop::call_exception_handler(const ExceptionContext& context) {
    if (exception_handler_ == nullptr) {
        default_exception_handler(context);
        return;
    }
    const std::shared_ptr<Handler> handler = exception_handler_; // it may replace itself
    try {
        (*handler)(*this, context);
    } catch (const KeyboardInterrupt&) {
        throw;
    } catch (const SystemExit&) {
        throw;
    } catch (...) {
        const std::exception_ptr thrown = std::current_exception();
        try {
            ExceptionContext failure = {
                .message = "Unhandled error in exception handler",
                .exception = thrown,
                .details = {{"while handling", context.message}},
            };
            failure.details.insert(failure.details.end(), context.details.begin(),
                                   context.details.end());
            if (context.exception != nullptr)
                failure.details.push_back(
                    {"of the exception", detail::describe_exception(context.exception)});
            default_exception_handler(failure);
        } catch (...) { // no memory
            report_failed();
        }
    }
}

void EventLoop::report_failed() noexcept {
    std::fputs(
        "asyncio: a failure could not be reported: no memory, or the exception handler threw\n",
        stderr);
}

void EventLoop::default_exception_handler(const ExceptionContext& context) noexcept {
    try {
        std::string text = "asyncio: " + context.message + "\n";
        for (const ExceptionContext::Detail& detail : context.details) {
            append_entry(text, detail.key, detail.text);
        }
        const char* key = "exception";
        for (std::exception_ptr exception = context.exception; exception != nullptr;
             exception = cause_of(exception)) {
            append_entry(text, key, detail::describe_exception(exception));
            key = "caused by";
        }
        std::fwrite(text.data(), 1, text.size(), stderr);
    } catch (...) {
        report_failed();
    }
}

ASYNCIO_END_NAMESPACE
