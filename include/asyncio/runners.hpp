// SPDX-License-Identifier: MIT
// run: the way into asyncio. Runner: the same for several mains on one loop.
//
//     int main() { asyncio::run(async_main()); }
//
// Control-C. While main runs, on the main thread of a process that leaves SIGINT at its default
// action, the first SIGINT cancels main. It gets CancelledError at its await and can clean up; then
// the other tasks are cancelled and cleaned up too, and run() throws KeyboardInterrupt. A main that
// catches the CancelledError and ends otherwise has the last word: its result, or its exception, is
// run()'s. The second SIGINT, and one that comes when main has ended, has the default action: the
// process ends at once, as it would without asyncio, and a shell sees 130. That also ends code that
// never comes to an await, and a main that went on after the first.
//
// A KeyboardInterrupt that nobody catches ends the process by SIGINT too, after the clean-up; what
// is in the buffer of stdout is written out. (From the first Control-C on, a std::terminate_handler
// sees to that; for everything else it calls the one that was there before.)
//
// SIGINT is left alone where it is ignored or has a handler of yours, on other threads, and with
// RunOptions().handle_sigint(false). When main has ended, SIGINT is as it was before.
#pragma once

#include <asyncio/tasks.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

ASYNCIO_BEGIN_NAMESPACE

// How run() and Runner make their loop. Chained setters: `RunOptions().debug(true)`.
class RunOptions {
  public:
    // Options of the loop, see LoopOptions, which is also where the ones that follow are told. What
    // was chosen here before and is not chosen by these options stays.
    RunOptions& loop(const LoopOptions& options) {
        loop_.take(options);
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
    RunOptions& backend(std::string name) {
        loop_.backend(std::move(name));
        return *this;
    }
    // Whether Control-C cancels main: see above. Default: it does.
    RunOptions& handle_sigint(bool on) noexcept {
        handle_sigint_ = on;
        return *this;
    }
    RunOptions& shuffle_ready(std::uint64_t seed) noexcept {
        loop_.shuffle_ready(seed);
        return *this;
    }
    const LoopOptions& loop_options() const noexcept { return loop_; }
    bool handles_sigint() const noexcept { return handle_sigint_; }

  private:
    LoopOptions loop_;
    bool handle_sigint_ = true;
};

namespace detail {

// Runs the loop until the future is done. Throws RuntimeError if the loop is stopped before.
ASYNCIO_API void run_until_done(EventLoop& loop, FutureBase& future);

// What a Runner does, whatever the type of main's result.
class ASYNCIO_API RunnerCore {
  public:
    RunnerCore(const RunOptions& options, const char* caller);
    ~RunnerCore(); // reports what close() throws
    RunnerCore(const RunnerCore&) = delete;
    RunnerCore& operator=(const RunnerCore&) = delete;

    EventLoop& loop(); // made by the first call
    // The same for the next main. Throws RuntimeError if a loop runs in this thread.
    EventLoop& loop_for_main();
    // The main runs in this context, or in that of all mains. Requires: there is a loop.
    TaskOptions options_for_main(const Context* context) const;
    // Runs until the task is done. Throws KeyboardInterrupt if Control-C has ended it.
    void run(TaskBase& main);
    // The same, and close() before it returns or throws.
    void run_and_close(TaskBase& main);
    void close();

  private:
    void cancel_all_tasks();
    void shut_down(ShutdownStep& step);
    void close_and_report() noexcept;

    RunOptions options_;
    const char* caller_;
    std::optional<Context> context_; // of all mains; there once the loop is
    EventLoopOwner loop_;
    bool closed_ = false;
};

template <class T>
Task<T> create_main(RunnerCore& runner, const Context* context, Coro<T>& coroutine,
                    std::source_location created) {
    try {
        EventLoop& loop = runner.loop_for_main();
        TaskOptions options = runner.options_for_main(context);
        return make_task(loop, coroutine, created, &options);
    } catch (...) {
        coroutine.close();
        throw;
    }
}

template <class F, class... Args>
auto create_bound_main(RunnerCore& runner, const Context* context, F&& function,
                       Args&&... arguments) {
    EventLoop& loop = runner.loop_for_main();
    TaskOptions options = runner.options_for_main(context);
    return create_bound_task(loop, &options, std::forward<F>(function),
                             std::forward<Args>(arguments)...);
}

template <class T> Coro<T> await_future(Future<T> future) { co_return co_await future; }

inline TaskBase& task_state(const AnyTask& task) { return static_cast<TaskBase&>(task.state()); }

// NOLINTNEXTLINE(performance-unnecessary-value-param): the last handle, which goes with it
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

// Runs several mains, one after the other, on one loop and in one context: what one main sets in a
// ContextVar, the next one sees, and tasks that one leaves behind go on when the next one runs.
//
//     asyncio::Runner runner;
//     auto connection = runner.run(connect());
//     runner.run(use(connection));
//
// Belongs to one thread. (asyncio.Runner)
class Runner {
  public:
    // The loop is made by the first call of run() or get_loop(), which throw what new_event_loop()
    // throws.
    explicit Runner(const RunOptions& options = {}) : core_(options, "Runner.run()") {}
    // Calls close(), and reports what that throws to the loop's exception handler.
    ~Runner() = default;

    // Runs the coroutine until it is done; gives its result, or throws what it threw. Throws
    // KeyboardInterrupt if Control-C has ended it: see above. Throws RuntimeError if a loop runs in
    // this thread or the runner is closed, and closes the coroutine then; also if the loop is
    // stopped before. (Runner.run)
    template <class T>
    T run(Coro<T> coroutine, std::source_location created = std::source_location::current()) {
        Task<T> task = detail::create_main(core_, nullptr, coroutine, created);
        core_.run(detail::task_state(task));
        return detail::result_of(std::move(task));
    }
    // Waits for a future or a task of this runner's loop, and gives a copy of its result.
    template <class T>
    T run(const Future<T>& future, std::source_location created = std::source_location::current()) {
        return run(detail::await_future(future), created);
    }
    // Any other awaitable.
    template <detail::TaskableAwaitable A>
    decltype(auto) run(A awaitable,
                       std::source_location created = std::source_location::current()) {
        return run(detail::await_it(std::move(awaitable)), created);
    }
    // Calls function(arguments...), which must return a coroutine, and runs that; both are kept
    // until it has ended.
    template <class F, class... Args>
        requires detail::CoroutineFunction<F, Args...>
    decltype(auto) run(F&& function, Args&&... arguments) {
        auto task = detail::create_bound_main(core_, nullptr, std::forward<F>(function),
                                              std::forward<Args>(arguments)...);
        core_.run(detail::task_state(task));
        return detail::result_of(std::move(task));
    }

    // The same in this context, and not in that of the other mains. (Runner.run's `context`)
    template <class T>
    T run(const Context& context, Coro<T> coroutine,
          std::source_location created = std::source_location::current()) {
        Task<T> task = detail::create_main(core_, &context, coroutine, created);
        core_.run(detail::task_state(task));
        return detail::result_of(std::move(task));
    }
    template <class F, class... Args>
        requires detail::CoroutineFunction<F, Args...>
    decltype(auto) run(const Context& context, F&& function, Args&&... arguments) {
        auto task = detail::create_bound_main(core_, &context, std::forward<F>(function),
                                              std::forward<Args>(arguments)...);
        core_.run(detail::task_state(task));
        return detail::result_of(std::move(task));
    }

    // The loop. Throws RuntimeError if the runner is closed. (Runner.get_loop)
    EventLoop& get_loop() { return core_.loop(); }

    // Cancels the tasks that are left, waits for them, and reports those that failed to the
    // exception handler; then shuts down asynchronous generators and the default executor, and
    // closes the loop. Tasks that are made meanwhile and not done then are destroyed, with a report
    // of each. Does nothing if the loop was never made, or the second time. Throws RuntimeError if
    // a loop runs in this thread; KeyboardInterrupt or SystemExit, at the end, if a task threw it.
    // (Runner.close)
    void close() { core_.close(); }

  private:
    detail::RunnerCore core_;
};

// Runs the coroutine in a Runner of its own: gives its result or throws what it threw, when the
// runner is closed. Throws RuntimeError if a loop runs in this thread. (asyncio.run)
template <class T>
T run(Coro<T> coroutine, const RunOptions& options = {},
      std::source_location created = std::source_location::current()) {
    detail::RunnerCore runner(options, "asyncio::run()");
    Task<T> task = detail::create_main(runner, nullptr, coroutine, created);
    runner.run_and_close(detail::task_state(task));
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
    detail::RunnerCore runner(options, "asyncio::run()");
    auto task = detail::create_bound_main(runner, nullptr, std::forward<F>(function),
                                          std::forward<Args>(arguments)...);
    runner.run_and_close(detail::task_state(task));
    return detail::result_of(std::move(task));
}
template <class F, class... Args>
    requires detail::CoroutineFunction<F, Args...>
decltype(auto) run(F&& function, Args&&... arguments) {
    return run(RunOptions(), std::forward<F>(function), std::forward<Args>(arguments)...);
}

// Refused with a sentence.
template <class T>
detail::Refused::Anything run(const Coro<T>&, detail::AnyArgument, detail::AnyArgument = 0) {
    static_assert(detail::never<sizeof(Task<T>)>,
                  "run takes RunOptions after the coroutine: run(coroutine, "
                  "RunOptions().debug(true)); arguments come after a function: run(function, "
                  "arguments...)");
    return {};
}
template <int n = 0>
detail::Refused::Anything run(detail::AnyArgument, detail::AnyArgument = 0,
                              detail::AnyArgument = 0) {
    static_assert(detail::never<n>,
                  "run takes a coroutine, another awaitable, or a function that returns a "
                  "coroutine and the arguments for it; RunOptions come before a function");
    return {};
}

ASYNCIO_END_NAMESPACE
