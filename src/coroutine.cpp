// SPDX-License-Identifier: MIT
#include <asyncio/coroutine.hpp>

#include <string>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

// Its body is empty: resumed, it comes to its final suspension, where await_suspend runs with the
// frame already suspended. So the task may destroy the bridge from then on, on another thread too.
struct ForeignWait::Bridge {
    struct promise_type : PooledFrame {
        ForeignWait& wait;
        explicit promise_type(ForeignWait& w) noexcept : wait(w) {}
        // Here also if the foreign side destroys the handle that it was given.
        ~promise_type() { wait.bridge_ = nullptr; }

        struct Tell {
            bool await_ready() const noexcept { return false; }
            void await_suspend(std::coroutine_handle<promise_type> bridge) const noexcept {
                bridge.promise().wait.resumed();
            }
            void await_resume() const noexcept {}
        };
        Bridge get_return_object() noexcept {
            return {std::coroutine_handle<promise_type>::from_promise(*this)};
        }
        std::suspend_always initial_suspend() const noexcept { return {}; }
        Tell final_suspend() const noexcept { return {}; }
        void return_void() const noexcept {}
        void unhandled_exception() const noexcept {}
    };
    std::coroutine_handle<> handle;

    // The awaiter owns the bridge, and so outlives it.
    // NOLINTNEXTLINE(cppcoreguidelines-avoid-reference-coroutine-parameters)
    static Bridge make(ForeignWait&) { co_return; }
};

ForeignWait::~ForeignWait() {
    if (bridge_) bridge_.destroy();
}

void ForeignWait::begin(TaskBase& task, std::coroutine_handle<> frame) {
    bridge_ = Bridge::make(*this).handle;
    task_ = &task;
    task.suspend(frame, *this);
}

// Refused if the loop is closed: then the frame is gone or about to go.
void ForeignWait::resumed() noexcept { task_->loop().enter_from_any_thread(*this); }

void report_never_awaited(PromiseBase& promise) noexcept {
    EventLoop::report(get_running_loop_or_null(), [&promise] {
        return ExceptionContext{
            .message = "coroutine '" + promise.where.function() +
                       "' was never awaited: co_await it, pass it to create_task() or gather(), or "
                       "close() it",
            .details = {{"defined", promise.where.text()}},
        };
    });
}

namespace {
// The frame that destroy_inner_frames() has destroyed while the awaiter that owns it, in the next
// frame outwards, does not know yet. That awaiter is the first thing destroyed with its frame.
constinit thread_local void* destroyed_inner = nullptr;
} // namespace

ASYNCIO_NOINLINE std::coroutine_handle<>
destroy_inner_frames(std::coroutine_handle<> innermost) noexcept {
    std::coroutine_handle<> frame = innermost;
    while (!promise_of(frame).is_outermost()) {
        const std::coroutine_handle<> outer = promise_of(frame).outer();
        frame.destroy();
        ASYNCIO_ASSERT(destroyed_inner == nullptr);
        destroyed_inner = frame.address();
        frame = outer;
    }
    return frame;
}

ASYNCIO_NOINLINE void destroy_inner(std::coroutine_handle<> frame) noexcept {
    if (frame.address() == destroyed_inner) {
        destroyed_inner = nullptr;
        return;
    }
    frame.destroy();
}

void throw_not_awaitable(bool was_awaited) {
    if (was_awaited) {
        throw RuntimeError("cannot reuse already awaited coroutine: call the coroutine function "
                           "again for a new one");
    }
    throw RuntimeError(
        "cannot await a coroutine that was moved away: await the one it was moved to");
}

} // namespace detail
ASYNCIO_END_NAMESPACE
