// SPDX-License-Identifier: MIT
// task_group: starts tasks, and does not end before they have.
//
//     co_await asyncio::task_group([&](asyncio::TaskGroup& group) -> asyncio::Coro<> {
//         group.create_task(fetch(a));
//         group.create_task(fetch(b));
//         co_return;
//     });
//     // both have ended here
//
// If one of the tasks fails, or the body does, the others are cancelled and waited for, and their
// failures are thrown as one ExceptionGroup, that of the body last. A task that is cancelled is no
// failure. KeyboardInterrupt and SystemExit are thrown as they are. A cancel of the task that runs
// the group cancels the group's tasks; when they have ended it goes on as CancelledError, unless
// there are failures: these come first, and the cancel comes at the next await.
//
// A task may refer to what outlives the group; not to a local of the body, which may have returned
// before its tasks end: give them values, or arguments.
#pragma once

#include <asyncio/as_result.hpp>
#include <asyncio/detail/scopes.hpp>
#include <asyncio/detail/waiting.hpp>
#include <asyncio/exception_groups.hpp>
#include <asyncio/tasks.hpp>

#include <concepts>
#include <exception>
#include <memory>
#include <optional>
#include <source_location>
#include <type_traits>
#include <utility>

ASYNCIO_BEGIN_NAMESPACE

// The tasks of one body. Used once, by the task that runs the body. (asyncio.TaskGroup)
class ASYNCIO_API TaskGroup final : detail::FutureWatcher {
  public:
    TaskGroup() = default;
    ~TaskGroup();

    // As asyncio::create_task, on the group's loop; the group waits for the task. Also while the
    // body has ended and tasks are left, so that these can start others. Throws RuntimeError before
    // the body has begun, when all has ended, and once the group cancels its tasks; a coroutine is
    // closed then. (TaskGroup.create_task)
    template <class T>
    Task<T> create_task(Coro<T> coroutine,
                        std::source_location created = std::source_location::current()) {
        return add(coroutine, created, nullptr);
    }
    template <class T>
    Task<T> create_task(TaskOptions options, Coro<T> coroutine,
                        std::source_location created = std::source_location::current()) {
        return add(coroutine, created, &options);
    }
    template <class A>
        requires detail::TaskableAwaitable<std::decay_t<A>>
    auto create_task(A&& awaitable,
                     std::source_location created = std::source_location::current()) {
        ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(A);
        auto coroutine = detail::await_it<std::decay_t<A>>(std::forward<A>(awaitable));
        return add(coroutine, created, nullptr);
    }
    template <class A>
        requires detail::TaskableAwaitable<std::decay_t<A>>
    auto create_task(TaskOptions options, A&& awaitable,
                     std::source_location created = std::source_location::current()) {
        ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(A);
        auto coroutine = detail::await_it<std::decay_t<A>>(std::forward<A>(awaitable));
        return add(coroutine, created, &options);
    }
    template <class F, class... Args>
        requires detail::CoroutineFunction<F, Args...>
    auto create_task(F&& function, Args&&... arguments) {
        ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(F, Args...);
        return add_bound(nullptr, std::forward<F>(function), std::forward<Args>(arguments)...);
    }
    template <class F, class... Args>
        requires detail::CoroutineFunction<F, Args...>
    auto create_task(TaskOptions options, F&& function, Args&&... arguments) {
        ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(F, Args...);
        return add_bound(&options, std::forward<F>(function), std::forward<Args>(arguments)...);
    }

    // Refused with a sentence.
    template <class T>
    Task<T> create_task(const Coro<T>&, detail::AnyArgument, detail::AnyArgument = 0) {
        static_assert(detail::never<sizeof(Task<T>)>,
                      "options come first: create_task(TaskOptions().name(...), coroutine); "
                      "arguments come after a function: create_task(function, arguments...)");
        return {};
    }
    template <int n = 0>
    Task<> create_task(detail::AnyArgument, detail::AnyArgument = 0, detail::AnyArgument = 0,
                       detail::AnyArgument = 0) {
        static_assert(detail::never<n>,
                      "create_task takes a coroutine, another awaitable, or a function that "
                      "returns a coroutine and the arguments for it; TaskOptions come first");
        return {};
    }

    TaskGroup(const TaskGroup&) = delete;
    TaskGroup& operator=(const TaskGroup&) = delete;

    // --- for the library, in this order ---

    // For the current task.
    void enter();
    // The body has ended, with this exception or null.
    void leave(const std::exception_ptr& failure);
    // While it has tasks: wait(), then waited(), and again.
    bool has_tasks() const noexcept { return !tasks_.empty(); }
    detail::Gate& wait();
    void waited(const Result<void>& result);
    // Throws what the group throws.
    void finish(const std::exception_ptr& failure);

  private:
    template <class T>
    Task<T> add(Coro<T>& coroutine, detail::Location created, TaskOptions* options) {
        std::unique_ptr<detail::FutureWatch> watch;
        try {
            watch = make_watch();
        } catch (...) {
            coroutine.close();
            throw;
        }
        Task<T> task = detail::make_task(parent_->loop(), coroutine, created, options);
        add(watch.release(), task.state());
        return task;
    }
    template <class F, class... Args>
    auto add_bound(TaskOptions* options, F&& function, Args&&... arguments) {
        std::unique_ptr<detail::FutureWatch> watch = make_watch();
        auto task = detail::create_bound_task(parent_->loop(), options, std::forward<F>(function),
                                              std::forward<Args>(arguments)...);
        add(watch.release(), task.state());
        return task;
    }

    // For a task that is made next, so that nothing can fail any more when it is there. Throws if
    // the group takes none.
    std::unique_ptr<detail::FutureWatch> make_watch();
    void add(detail::FutureWatch* watch, detail::FutureBase& task) noexcept;
    void abort();
    void future_done(detail::FutureWatch& watch) override;
    void future_dropped(detail::FutureWatch& watch) noexcept override;
    void find_awaiters(detail::Awaiters& awaiters) const override {
        awaiters.tasks.push_back(parent_);
    }

    detail::TaskBase* parent_ = nullptr; // runs the body: set once entered
    detail::WatchList tasks_;            // those that are not done
    detail::WatchList failed_;           // in the order in which they failed
    std::optional<detail::Gate> gate_;
    std::exception_ptr interrupt_; // the first KeyboardInterrupt or SystemExit
    std::exception_ptr cancelled_; // to go on as it is, unless there are failures
    bool exiting_ = false;
    bool aborting_ = false;
    bool parent_cancel_requested_ = false;
};

namespace detail {

template <class T, class Body> Coro<T> run_task_group(TaskGroup* given, Body body) {
    TaskGroup own;
    TaskGroup& group = given != nullptr ? *given : own;
    group.enter();
    std::optional<Result<T>> result;
    try {
        result.emplace(co_await as_result(call_body(body, group)));
    } catch (...) { // out of body() itself, if it is no coroutine but gives one
        result.emplace(std::current_exception());
    }
    group.leave(result->exception());
    while (group.has_tasks()) {
        const Result<void> waited = co_await as_result(group.wait());
        group.waited(waited);
    }
    group.finish(result->exception());
    co_return std::move(*result).value();
}

} // namespace detail

// Runs body(group), which must return a coroutine, inside the task that awaits, waits for the tasks
// of the group, and gives the body's result. The body is kept until the end. Throws as the head of
// this file says. (async with asyncio.TaskGroup() as group)
template <detail::BodyOf<TaskGroup> Body>
ASYNCIO_CORO_WRAPPER Coro<detail::BodyResult<Body, TaskGroup>> task_group(Body&& body) {
    ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(Body);
    return detail::run_task_group<detail::BodyResult<Body, TaskGroup>, std::decay_t<Body>>(
        nullptr, std::forward<Body>(body));
}

// The same with a TaskGroup of yours, which must live until the end. Throws RuntimeError if it was
// used before.
template <detail::BodyOf<TaskGroup> Body>
ASYNCIO_CORO_WRAPPER Coro<detail::BodyResult<Body, TaskGroup>> task_group(TaskGroup& group,
                                                                          Body&& body) {
    ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(Body);
    return detail::run_task_group<detail::BodyResult<Body, TaskGroup>, std::decay_t<Body>>(
        &group, std::forward<Body>(body));
}

// Refused with a sentence.
template <int n = 0> detail::Refused task_group(detail::AnyArgument, detail::AnyArgument = 0) {
    static_assert(detail::never<n>,
                  "task_group takes a body, after a TaskGroup of yours if there is one: a function "
                  "that returns a coroutine, [&](asyncio::TaskGroup& group) -> asyncio::Coro<> { "
                  "... }");
    return {};
}

ASYNCIO_END_NAMESPACE
