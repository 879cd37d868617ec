// SPDX-License-Identifier: MIT
#include <asyncio/events.hpp>

#include <cstdio>
#include <cstdlib>
#include <cxxabi.h>
#include <unordered_map>

ASYNCIO_BEGIN_NAMESPACE
namespace {

constinit thread_local EventLoop* running_loop = nullptr;
// Emptied when the thread ends, never destroyed: destructors of static objects come later.
union Undestroyed {
    detail::ContextRef context{};
    ~Undestroyed() {} // NOLINT
};
constinit thread_local Undestroyed outside_of_loops;
struct EmptyAtThreadExit {
    bool armed = false;
    ~EmptyAtThreadExit() { outside_of_loops.context = detail::ContextRef(); }
};
thread_local EmptyAtThreadExit empty_at_thread_exit;

// "<Handle created at main.cpp:12>". The place is unknown where arguments were given along.
std::string describe(const char* kind, std::source_location where) {
    std::string text = std::string("<") + kind;
    if (where.line() != 0) {
        text +=
            std::string(" created at ") + where.file_name() + ":" + std::to_string(where.line());
    }
    return text + ">";
}

std::string describe(const std::exception_ptr& exception) {
    std::string type = "unknown type";
    if (const std::type_info* info = exception.__cxa_exception_type()) {
        int status = 0;
        char* name = abi::__cxa_demangle(info->name(), nullptr, nullptr, &status);
        type = status == 0 && name != nullptr ? name : info->name();
        std::free(name);
    }
    try {
        std::rethrow_exception(exception);
    } catch (const std::exception& error) {
        const char* what = error.what();
        return type + ": " + (what != nullptr ? what : "");
    } catch (const CancelledError& error) {
        return type + ": " + error.message();
    } catch (...) {
        return type;
    }
}

// Makes `context` the loop's current one, and puts the former back.
class ContextScope {
  public:
    ContextScope(detail::LoopCore& core, detail::ContextRef& context) noexcept
        : core_(core), outer_(std::move(core.context)) {
        core_.context = context;
    }
    ~ContextScope() { core_.context = std::move(outer_); }
    ContextScope(const ContextScope&) = delete;
    ContextScope& operator=(const ContextScope&) = delete;

  private:
    detail::LoopCore& core_;
    detail::ContextRef outer_;
};

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

ContextMap::~ContextMap() = default;

ASYNCIO_NOINLINE ContextRef& current_context() noexcept {
    if (running_loop != nullptr) return running_loop->core().context;
    empty_at_thread_exit.armed = true;
    return outside_of_loops.context;
}

HandleState::HandleState(EventLoop& loop, std::source_location where) noexcept
    : loop_(&loop), context_(context_for(loop)), where_(where) {
    loop.retain();
}

HandleState::~HandleState() { loop_->release(); }

void HandleState::invoke_guarded() {
    const ContextScope scope(loop_->core(), context_);
    try {
        invoke();
    } catch (const KeyboardInterrupt&) {
        throw;
    } catch (const SystemExit&) {
        throw;
    } catch (...) {
        loop_->call_exception_handler({
            .message = "Exception in callback",
            .exception = std::current_exception(),
            .details = {{"handle", describe("Handle", where_)}},
        });
    }
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
    : loop_(&loop), context_(current_context()), where_(where) {}

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
    const ContextScope scope(loop_->core(), context_);
    try {
        invoke();
    } catch (const KeyboardInterrupt&) {
        throw;
    } catch (const SystemExit&) {
        throw;
    } catch (...) {
        loop_->call_exception_handler({
            .message = "Exception in callback",
            .exception = std::current_exception(),
            .details = {{"handle", describe("ThreadSafeHandle", where_)}},
        });
    }
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
    if (expected != running || get_running_loop_or_null() == loop_) return;
    stage_.wait(running, std::memory_order_acquire);
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

EventLoopOwner new_event_loop(const LoopOptions& options) {
    return EventLoopOwner(new EventLoop(options));
}

EventLoop::EventLoop(const LoopOptions& options)
    : clock_(options.clock_),
      backend_(
          make_epoll_backend(options.calls_ != nullptr ? *options.calls_ : SystemCalls::real())),
      descriptors_(std::make_unique<Descriptors>()) {
    if (clock_ == nullptr) {
        own_clock_ = std::make_unique<MonotonicClock>();
        clock_ = own_clock_.get();
    }
    if (options.debug_ >= 0) {
        debug_ = options.debug_ == 1;
    } else if (const char* text = std::getenv("ASYNCIO_DEBUG")) {
        debug_ = *text != '\0' && std::string(text) != "0";
    }
}

EventLoop::~EventLoop() = default;

void EventLoop::throw_closed() {
    throw RuntimeError(
        "Event loop is closed: it takes no more callbacks; make another with new_event_loop()");
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
            running_loop = &loop;
        }
        ~Running() {
            running_loop = nullptr;
            loop.running_ = false;
            loop.stopping_ = false;
            loop.release();
        }
    };
    const Running running(*this);
    do {
        run_once();
    } while (!stopping_);
}

// One turn. See the head of events.hpp for the order, which is CPython's.
void EventLoop::run_once() {
    if (!core_.ready.empty() || stopping_) {
        // While no descriptor is watched, a poll could find nothing, and is left out.
        if (backend_->watches_any()) {
            detail::ReadyQueue from_kernel;
            backend_->wait(0, from_kernel);
            if (!door_.empty()) door_.take_all(core_.ready);
            core_.ready.append(from_kernel);
        } else if (!door_.empty()) {
            door_.take_all(core_.ready);
        }
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
    for (const detail::Runnable* last = core_.ready.last();;) {
        detail::Runnable& next = core_.ready.pop();
        const bool is_last = &next == last;
        next.run();
        if (is_last) break;
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
    detail::ReadyQueue from_kernel;
    if (clock_->jumps()) {
        // With no deadline to jump to, descriptors and other threads are waited for in real time.
        if (backend_->watches_any()) {
            const bool block = timer == nullptr && door_.try_fall_asleep();
            backend_->wait(block ? Backend::no_timeout : 0, from_kernel);
        } else if (timer == nullptr && door_.empty()) {
            throw RuntimeError("deadlock: nothing is ready and no timer is armed, so that virtual "
                               "time could never advance");
        }
        if (timer != nullptr && from_kernel.empty() && door_.empty()) {
            clock_->jump_to(timer->when_ns);
        }
    } else {
        if (timeout_ns != 0 && !door_.try_fall_asleep()) timeout_ns = 0;
        backend_->wait(timeout_ns, from_kernel);
    }
    door_.take_all(core_.ready);
    core_.ready.append(from_kernel);
}

void EventLoop::drop_ready() noexcept {
    while (!core_.ready.empty()) core_.ready.pop().discard();
}

void EventLoop::close() {
    if (running_) throw RuntimeError("Cannot close a running event loop: stop() it first");
    if (closed_) return;
    closed_ = true;
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

std::int64_t EventLoop::deadline_after(Delay delay, std::source_location where) {
    const std::int64_t now_ns = clock_->now_ns();
    const std::int64_t delay_ns = delay.nanoseconds();
    if (delay_ns < 0) [[unlikely]] {
        call_exception_handler({
            .message = "call_later() got a negative delay, " + std::to_string(delay_ns) +
                       " ns: the callback runs as soon as possible; pass 0, or use call_soon()",
            .details = {{"handle", describe("TimerHandle", where)}},
        });
        throw_if_closed(); // by the handler
    }
    std::int64_t when_ns = 0;
    if (__builtin_add_overflow(now_ns, delay_ns, &when_ns)) {
        return delay_ns < 0 ? INT64_MIN : INT64_MAX;
    }
    return when_ns;
}

bool EventLoop::enter_from_any_thread(detail::Runnable& node) noexcept {
    // On its own thread the loop is not asleep, and the order among call_soon and this is kept.
    if (running_loop == this) {
        core_.ready.push(node);
        return true;
    }
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
        ExceptionContext failure = {
            .message = "Unhandled error in exception handler",
            .exception = std::current_exception(),
            .details = {{"while handling", context.message}},
        };
        failure.details.insert(failure.details.end(), context.details.begin(),
                               context.details.end());
        if (context.exception != nullptr)
            failure.details.push_back({"of the exception", describe(context.exception)});
        default_exception_handler(failure);
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
            text += "  " + detail.key + ": " + detail.text + "\n";
        }
        if (context.exception != nullptr)
            text += "  exception: " + describe(context.exception) + "\n";
        std::fwrite(text.data(), 1, text.size(), stderr);
    } catch (...) {
        report_failed();
    }
}

ASYNCIO_END_NAMESPACE
