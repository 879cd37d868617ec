// SPDX-License-Identifier: MIT
// run: the way into asyncio.
//
//     int main() { asyncio::run(async_main()); }
#pragma once

#include <asyncio/tasks.hpp>

#include <type_traits>
#include <utility>

ASYNCIO_BEGIN_NAMESPACE

// How run() makes its loop. Chained setters: `RunOptions().debug(true)`.
class RunOptions {
  public:
    // See LoopOptions.
    RunOptions& loop(const LoopOptions& options) noexcept {
        loop_ = options;
        return *this;
    }
    RunOptions& debug(bool on) noexcept {
        loop_.debug(on);
        return *this;
    }
    RunOptions& clock(Clock& clock) noexcept {
        loop_.clock(clock);
        return *this;
    }
    const LoopOptions& loop_options() const noexcept { return loop_; }

  private:
    LoopOptions loop_;
};

namespace detail {

// Runs the loop until the future is done. Throws RuntimeError if the loop is stopped before.
ASYNCIO_API void run_until_done(EventLoop& loop, FutureBase& future);

// The loop of one run().
class ASYNCIO_API RunScope {
  public:
    // Throws RuntimeError if a loop runs in this thread.
    explicit RunScope(const RunOptions& options);
    EventLoop& loop() const noexcept { return *loop_; }
    // Runs until the main task is done; then cancels the tasks that are left, waits for them,
    // reports those that failed, and closes the loop.
    void run(FutureBase& main);

  private:
    void cancel_all_tasks();
    EventLoopOwner loop_;
};

template <class T> T result_of(Task<T> task) {
    task.state().throw_unless_value();
    return give_value<T, true>(task.state());
}

} // namespace detail

// Runs the loop until the coroutine is done; gives its result, or throws what it threw. Throws
// RuntimeError if the loop is stopped before, is closed, or a loop runs in this thread already; in
// the latter cases the coroutine is closed. (loop.run_until_complete)
template <class T>
T run_until_complete(EventLoop& loop, Coro<T> coroutine,
                     std::source_location created = std::source_location::current()) {
    try {
        loop.throw_if_cannot_run();
    } catch (...) {
        coroutine.close();
        throw;
    }
    Task<T> task = create_task(loop, std::move(coroutine), created);
    detail::run_until_done(loop, task.state());
    return detail::result_of(std::move(task));
}
template <class T> T run_until_complete(EventLoop& loop, const Future<T>& future) {
    static_assert(
        std::is_void_v<T> || std::is_reference_v<T> || detail::is_copyable<T>,
        "this result cannot be copied: pass the coroutine itself to run_until_complete()");
    detail::run_until_done(loop, future.state());
    future.state().throw_unless_value();
    return detail::give_value<T, false>(future.state());
}

// Runs the coroutine on a loop of its own, and gives its result or throws what it threw. Before it
// returns, the tasks that are left are cancelled and waited for, what they failed with is reported
// to the exception handler, and the loop is closed. Throws RuntimeError if a loop runs in this
// thread. (asyncio.run)
template <class T>
T run(Coro<T> coroutine, const RunOptions& options = {},
      std::source_location created = std::source_location::current()) {
    if (get_running_loop_or_null() != nullptr) coroutine.close();
    detail::RunScope scope(options);
    Task<T> task = create_task(scope.loop(), std::move(coroutine), created);
    scope.run(task.state());
    return detail::result_of(std::move(task));
}

// Any other awaitable.
template <detail::TaskableAwaitable A>
decltype(auto) run(A awaitable, const RunOptions& options = {},
                   std::source_location created = std::source_location::current()) {
    return run(detail::await_it(std::move(awaitable)), options, created);
}

// Calls function(arguments...), which must return a coroutine, and runs that; both are kept until
// it has ended. RunOptions come first. Takes what create_task refuses: it never runs where there is
// something to await.
template <class F, class... Args>
    requires detail::CoroutineFunction<F, Args...>
decltype(auto) run(const RunOptions& options, F&& function, Args&&... arguments) {
    detail::RunScope scope(options);
    auto task = detail::create_bound_task(scope.loop(), std::forward<F>(function),
                                          std::forward<Args>(arguments)...);
    scope.run(task.state());
    return detail::result_of(std::move(task));
}
template <class F, class... Args>
    requires detail::CoroutineFunction<F, Args...>
decltype(auto) run(F&& function, Args&&... arguments) {
    return run(RunOptions(), std::forward<F>(function), std::forward<Args>(arguments)...);
}

ASYNCIO_END_NAMESPACE
