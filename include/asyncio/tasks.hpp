// SPDX-License-Identifier: MIT
// Task<T>: a coroutine that runs beside the others.
//
//     asyncio::Task<int> task = asyncio::create_task(fetch(url));
//     ...                         // the task takes turns with this coroutine at each co_await
//     int status = co_await task; // gives the result, or throws what fetch threw
//
// A Task is a Future that drives a coroutine. The loop keeps it alive while it runs, so a handle
// may be dropped; a failure that nobody looks at is reported to the exception handler.
// (asyncio.Task)
#pragma once

#include <asyncio/contextvars.hpp>
#include <asyncio/detail/callables.hpp>
#include <asyncio/futures.hpp>

#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

ASYNCIO_BEGIN_NAMESPACE

// How a task is made. Chained setters: `TaskOptions().name("fetch")`.
class TaskOptions {
  public:
    // What the task is called in reports; default "Task-N".
    TaskOptions& name(std::string text) & {
        name_ = std::move(text);
        return *this;
    }
    TaskOptions&& name(std::string text) && {
        name_ = std::move(text);
        return std::move(*this);
    }
    const std::string& name() const& noexcept { return name_; }
    std::string name() && { return std::move(name_); }

  private:
    std::string name_;
};

namespace detail {

template <class T> class TaskState : public WithValue<T, TaskBase> {
  public:
    explicit TaskState(EventLoop& loop) noexcept : WithValue<T, TaskBase>(loop) {}
    TaskState(EventLoop& loop, std::coroutine_handle<Promise<T>> coroutine,
              Location created) noexcept
        : TaskState(loop) {
        this->start(coroutine, coroutine.promise(), created);
    }

  protected:
    bool end(std::coroutine_handle<> outermost, bool with_value) noexcept override {
        auto frame = std::coroutine_handle<Promise<T>>::from_address(outermost.address());
        if constexpr (!std::is_void_v<T>) {
            if (with_value) {
                try {
                    this->make_value(std::move(frame.promise().value()));
                } catch (...) {
                    this->set_thrown(std::current_exception());
                    with_value = false;
                }
            }
        }
        frame.destroy();
        return with_value;
    }
    void drop_value() noexcept override {
        if constexpr (!std::is_void_v<T>) value_of<T>(*this).~Stored<T>();
    }
};

// A task that also keeps the callable, and the arguments, that its coroutine was made from: until
// the coroutine has ended, where they cannot move.
template <class T, class F, class... Args> class BoundTaskState final : public TaskState<T> {
  public:
    template <class G, class... Given>
    explicit BoundTaskState(EventLoop& loop, G&& function, Given&&... arguments)
        : TaskState<T>(loop), kept_(std::forward<G>(function), std::forward<Given>(arguments)...) {
        try {
            std::coroutine_handle<Promise<T>> coroutine = kept_.call().take();
            this->start(coroutine, coroutine.promise(), Location());
        } catch (...) {
            kept_.~Kept();
            throw;
        }
    }
    // Alive from the constructor to end(), which is always called before this.
    ~BoundTaskState() override {}

  private:
    using Kept = KeptCall<F, Args...>;

    bool end(std::coroutine_handle<> outermost, bool with_value) noexcept override {
        with_value = TaskState<T>::end(outermost, with_value);
        kept_.~Kept();
        return with_value;
    }

    union {
        Kept kept_;
    };
};

} // namespace detail

// A task of any type, as current_task() and all_tasks() give it. (asyncio.Task)
class ASYNCIO_API AnyTask : public AnyFuture {
  public:
    AnyTask() noexcept = default;

    // "Task-1", unless named otherwise. (Task.get_name, Task.set_name)
    std::string get_name() const { return task().name(); }
    void set_name(std::string name) const { task().set_name(std::move(name)); }
    // How many cancels were asked for and not taken back. (Task.cancelling)
    unsigned cancelling() const { return task().cancelling(); }
    // Takes one cancel back; returns how many are left. At 0, a cancel that was not delivered yet
    // is withdrawn. (Task.uncancel)
    unsigned uncancel() const { return task().uncancel(); }

    static AnyTask of(detail::FutureBase& state) noexcept { return AnyTask(state); }

  private:
    explicit AnyTask(detail::FutureBase& state) noexcept : AnyFuture(state) {}
    detail::TaskBase& task() const { return static_cast<detail::TaskBase&>(state()); }
};

// cancel(message): the task gets a CancelledError at the await where it stands, in the next turn;
// if it has not begun, its body never runs. Each call counts (see cancelling), also while the task
// is being cancelled. What the task waits for is cancelled with it. False if it is done already. A
// task that catches the CancelledError and goes on is not cancelled. (Task.cancel)
template <class T = void> class Task : public Future<T> {
  public:
    Task() noexcept = default;

    operator AnyTask() const { return AnyTask::of(this->state()); }

    std::string get_name() const { return task().name(); }
    void set_name(std::string name) const { task().set_name(std::move(name)); }
    unsigned cancelling() const { return task().cancelling(); }
    unsigned uncancel() const { return task().uncancel(); }

    // As Future's; the function may take a Task<T>.
    template <class F> DoneCallbackId add_done_callback(F&& function) const {
        return this->template add_callback<Task>(std::forward<F>(function));
    }

    // A task gets its result from its coroutine.
    template <class... Args> void set_result(Args&&...) const { refuse<Args...>(); }
    template <class... Args> void set_exception(Args&&...) const { refuse<Args...>(); }

    static Task of(detail::FutureBase& state) noexcept { return Task(state); }

  private:
    explicit Task(detail::FutureBase& state) noexcept : Future<T>(state) {}
    detail::TaskBase& task() const { return static_cast<detail::TaskBase&>(this->state()); }
    template <class... Args> static void refuse() {
        static_assert(sizeof...(Args) > sizeof(Task) * 1000,
                      "a task gets its result, or its exception, from its coroutine: only a Future "
                      "has it set by others");
    }
};

namespace detail {

// create_task, with the place where it stands; with a null one, where the coroutine's function
// stands.
template <class T> Task<T> make_task(EventLoop& loop, Coro<T>& coroutine, Location created) {
    if (loop.is_closed()) coroutine.close();
    loop.throw_if_closed();
    return Task<T>::of(*new TaskState<T>(loop, coroutine.take(), created));
}

template <class F, class... Args>
auto create_bound_task(EventLoop& loop, F&& function, Args&&... arguments) {
    using T = CoroutineResult<F, Args...>;
    using State = BoundTaskState<T, std::decay_t<F>, std::decay_t<Args>...>;
    loop.throw_if_closed();
    return Task<T>::of(
        *new State(loop, std::forward<F>(function), std::forward<Args>(arguments)...));
}

} // namespace detail

// Makes the coroutine a task of the loop: its first step is in the next turn, in the context that
// is current now. Throws RuntimeError if no loop is given and none runs, or if the loop is closed;
// the coroutine is closed then. (asyncio.create_task, loop.create_task)
template <class T>
Task<T> create_task(EventLoop& loop, Coro<T> coroutine,
                    std::source_location created = std::source_location::current()) {
    return detail::make_task(loop, coroutine, created);
}

template <class T>
Task<T> create_task(Coro<T> coroutine,
                    std::source_location created = std::source_location::current()) {
    EventLoop* loop = get_running_loop_or_null();
    if (loop == nullptr) [[unlikely]] {
        coroutine.close();
        get_running_loop();
    }
    return create_task(*loop, std::move(coroutine), created);
}

template <class T>
Task<T> create_task(TaskOptions options, Coro<T> coroutine,
                    std::source_location created = std::source_location::current()) {
    Task<T> task = create_task(std::move(coroutine), created);
    if (!options.name().empty()) task.set_name(std::move(options).name());
    return task;
}

// Makes a task of any other awaitable: `create_task(asyncio::sleep(1s))`.
template <class A>
    requires detail::TaskableAwaitable<std::decay_t<A>>
auto create_task(A&& awaitable, std::source_location created = std::source_location::current()) {
    ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(A);
    return create_task(detail::await_it<std::decay_t<A>>(std::forward<A>(awaitable)), created);
}

template <detail::TaskableAwaitable A>
auto create_task(TaskOptions options, A awaitable,
                 std::source_location created = std::source_location::current()) {
    return create_task(std::move(options), detail::await_it(std::move(awaitable)), created);
}

// Calls function(arguments...), which must return a coroutine, and makes that a task. The callable
// and the arguments are kept (std::ref for a reference) until the coroutine has ended, so that a
// lambda with captures is safe here. With TaskOptions: they come first.
template <class F, class... Args>
    requires detail::CoroutineFunction<F, Args...>
auto create_task(EventLoop& loop, F&& function, Args&&... arguments) {
    ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(F, Args...);
    return detail::create_bound_task(loop, std::forward<F>(function),
                                     std::forward<Args>(arguments)...);
}

template <class F, class... Args>
    requires detail::CoroutineFunction<F, Args...>
auto create_task(F&& function, Args&&... arguments) {
    ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(F, Args...);
    return detail::create_bound_task(get_running_loop(), std::forward<F>(function),
                                     std::forward<Args>(arguments)...);
}

template <class F, class... Args>
    requires detail::CoroutineFunction<F, Args...>
auto create_task(TaskOptions options, F&& function, Args&&... arguments) {
    ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(F, Args...);
    auto task = detail::create_bound_task(get_running_loop(), std::forward<F>(function),
                                          std::forward<Args>(arguments)...);
    if (!options.name().empty()) task.set_name(std::move(options).name());
    return task;
}

// The task that runs now; not valid() in a callback. Throws RuntimeError if no loop runs.
// (asyncio.current_task)
ASYNCIO_API AnyTask current_task();
// The task that runs now on this loop; not valid() if none does.
ASYNCIO_API AnyTask current_task(EventLoop& loop);

// The tasks of the loop that are not done, in no particular order. (asyncio.all_tasks)
ASYNCIO_API std::vector<AnyTask> all_tasks();
ASYNCIO_API std::vector<AnyTask> all_tasks(EventLoop& loop);

ASYNCIO_END_NAMESPACE
