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

#include <concepts>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

ASYNCIO_BEGIN_NAMESPACE

// How a task is made. Chained setters: `TaskOptions().name("fetch").eager_start(true)`.
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
    const std::string& name() const noexcept { return name_; }

    // The task runs in this context, and not in a copy of the current one. Tasks that share a
    // context see what the others set.
    TaskOptions& context(const Context& context) & noexcept {
        context_ = context.ref();
        return *this;
    }
    TaskOptions&& context(const Context& context) && noexcept {
        return std::move(this->context(context));
    }
    std::optional<Context> context() const noexcept {
        if (context_.get() == nullptr) return std::nullopt;
        return Context::of(*context_.box());
    }

    // True: the task's first step runs at once, inside create_task; if it never has to wait, the
    // task is done when create_task returns. Only where the task's loop runs, else the first step
    // is in the next turn as usual. Unset: as the loop's task factory has it; without one, false.
    TaskOptions& eager_start(bool on) & noexcept {
        eager_start_ = on ? on_ : off;
        return *this;
    }
    TaskOptions&& eager_start(bool on) && noexcept { return std::move(eager_start(on)); }
    std::optional<bool> eager_start() const noexcept {
        if (eager_start_ == unset) return std::nullopt;
        return eager_start_ == on_;
    }

  private:
    enum Choice : unsigned char { unset, off, on_ };

    std::string name_;
    detail::ContextRef context_; // null: none was given
    Choice eager_start_ = unset;
};

namespace detail {

template <class T> class TaskState : public WithValue<T, TaskBase> {
  public:
    explicit TaskState(EventLoop& loop) noexcept : WithValue<T, TaskBase>(loop) {}
    TaskState(EventLoop& loop, Coro<T>& coroutine, Location created) : TaskState(loop) {
        const std::coroutine_handle<Promise<T>> frame = coroutine.take();
        this->start(frame, frame.promise(), created);
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
        // If this throws, kept_ is destroyed by the language, a member of a union as it is.
        std::coroutine_handle<Promise<T>> coroutine = kept_.call().take();
        this->start(coroutine, coroutine.promise(), Location());
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
    void set_name(const std::string& name) const { task().set_name(name); }
    // The context in which the task runs. Throws InvalidStateError once it is done: then it has let
    // go of its context, which might hold the task. (Task.get_context)
    Context get_context() const { return task().get_context(); }
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
    void set_name(const std::string& name) const { task().set_name(name); }
    Context get_context() const { return task().get_context(); }
    unsigned cancelling() const { return task().cancelling(); }
    unsigned uncancel() const { return task().uncancel(); }

    // As Future's; the function may take a Task<T>.
    template <class F> DoneCallbackId add_done_callback(F&& function) const {
        return this->template add_callback<Task>(nullptr, std::forward<F>(function));
    }
    template <class F> DoneCallbackId add_done_callback(InContext context, F&& function) const {
        return this->template add_callback<Task>(&context, std::forward<F>(function));
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

class NewTask;

// How the tasks of a loop are made, if not as usual: a function that is called as
// factory(EventLoop&, NewTask&, TaskOptions), and returns what NewTask gave it. An empty one stands
// for the usual way. (the task factory of loop.set_task_factory)
//
//     asyncio::set_task_factory(loop, [](asyncio::EventLoop&, asyncio::NewTask& task,
//                                        asyncio::TaskOptions options) {
//         asyncio::AnyTask made = task(options);
//         log(made.get_name());
//         return made;
//     });
class ASYNCIO_API TaskFactory {
  public:
    TaskFactory() noexcept = default;
    TaskFactory(std::nullptr_t) noexcept {}
    template <class F>
        requires(
            !std::same_as<std::remove_cvref_t<F>, TaskFactory> &&
            std::is_invocable_r_v<AnyTask, std::decay_t<F>&, EventLoop&, NewTask&, TaskOptions>)
    TaskFactory(F&& function)
        : function_(std::make_shared<Holder<std::decay_t<F>>>(std::forward<F>(function))) {}

    explicit operator bool() const noexcept { return function_ != nullptr; }
    AnyTask operator()(EventLoop& loop, NewTask& task, TaskOptions options) const;

  private:
    struct Function {
        virtual ~Function() = default;
        virtual AnyTask call(EventLoop& loop, NewTask& task, TaskOptions options) = 0;
    };
    template <class F> struct Holder final : Function {
        explicit Holder(const F& given) : function(given) {}
        explicit Holder(F&& given) : function(std::move(given)) {}
        AnyTask call(EventLoop& loop, NewTask& task, TaskOptions options) override {
            return function(loop, task, std::move(options));
        }
        F function;
    };
    std::shared_ptr<Function> function_;
};

// Applies to all tasks that are made from now on, by create_task and by what calls it.
// (loop.set_task_factory, loop.get_task_factory)
ASYNCIO_API void set_task_factory(EventLoop& loop, TaskFactory factory);
ASYNCIO_API TaskFactory get_task_factory(EventLoop& loop);

// The factory whose tasks start eagerly, unless their options say otherwise:
// `set_task_factory(loop, eager_task_factory)`. (asyncio.eager_task_factory)
ASYNCIO_API AnyTask eager_task_factory(EventLoop& loop, NewTask& task, TaskOptions options);

namespace detail {

// The task that the loop's factory makes by way of make(closure). Throws RuntimeError if the
// factory returns another, or if the loop is closed.
ASYNCIO_API ASYNCIO_COLD AnyTask make_by_factory(EventLoop& loop, const TaskOptions* options,
                                                 TaskBase& (*make)(void*), void* closure);

} // namespace detail

// The task that a factory was asked for, not made yet.
class ASYNCIO_API NewTask {
  public:
    // Makes it. Throws RuntimeError the second time.
    AnyTask operator()(const TaskOptions& options = {});
    NewTask(const NewTask&) = delete;
    NewTask& operator=(const NewTask&) = delete;

  private:
    friend AnyTask detail::make_by_factory(EventLoop&, const TaskOptions*,
                                           detail::TaskBase& (*)(void*), void*);
    NewTask(EventLoop& loop, detail::TaskBase& (*make)(void*), void* closure) noexcept
        : loop_(loop), make_(make), closure_(closure) {}

    EventLoop& loop_;
    detail::TaskBase& (*make_)(void*);
    void* closure_;
    AnyTask made_;
    bool is_asked_ = false;
};

namespace detail {

[[noreturn]] ASYNCIO_API void throw_loop_closed();

// A new task takes up its options, and its first step is scheduled, or run.
ASYNCIO_API void begin_task(TaskBase& task, const TaskOptions& options);

// The one way to make a task: make() gives its state, which neither runs nor is scheduled.
template <class T, class Make>
ASYNCIO_ALWAYS_INLINE inline Task<T> make_task_by(EventLoop& loop, const TaskOptions* options,
                                                  Make make) {
    loop.throw_if_closed();
    if (loop.core().task_factory != nullptr) [[unlikely]] {
        const auto call = [](void* closure) -> TaskBase& {
            return (*static_cast<Make*>(closure))();
        };
        return Task<T>::of(make_by_factory(loop, options, call, &make).state());
    }
    TaskBase& state = make();
    Task<T> task = Task<T>::of(state);
    if (options == nullptr) {
        state.schedule();
    } else {
        begin_task(state, *options);
    }
    return task;
}

// create_task, with the place where it stands; with a null one, where the coroutine's function
// stands. Unless it becomes a task, the coroutine is closed.
template <class T>
ASYNCIO_ALWAYS_INLINE inline Task<T> make_task(EventLoop& loop, Coro<T>& coroutine,
                                               Location created,
                                               const TaskOptions* options = nullptr) {
    try {
        return make_task_by<T>(loop, options,
                               [&coroutine, &loop, created]() ASYNCIO_ALWAYS_INLINE -> TaskBase& {
                                   return *new TaskState<T>(loop, coroutine, created);
                               });
    } catch (...) {
        coroutine.close();
        throw;
    }
}

template <class F, class... Args>
auto create_bound_task(EventLoop& loop, const TaskOptions* options, F&& function,
                       Args&&... arguments) {
    using T = CoroutineResult<F, Args...>;
    using State = BoundTaskState<T, std::decay_t<F>, std::decay_t<Args>...>;
    return make_task_by<T>(loop, options, [&]() ASYNCIO_ALWAYS_INLINE -> TaskBase& {
        TaskBase& state =
            *new State(loop, std::forward<F>(function), std::forward<Args>(arguments)...);
        if (loop.is_closed()) [[unlikely]] { // by the function
            state.never_begin();
            throw_loop_closed();
        }
        return state;
    });
}

// Throws if none runs: then the coroutine is closed.
template <class T> EventLoop& running_loop_for(Coro<T>& coroutine) {
    EventLoop* loop = get_running_loop_or_null();
    if (loop == nullptr) [[unlikely]] {
        coroutine.close();
        get_running_loop();
    }
    return *loop;
}

} // namespace detail

// Makes the coroutine a task of the loop: its first step is in the next turn, in a copy of the
// current context. Throws RuntimeError if no loop is given and none runs, or if the loop is closed;
// the coroutine is closed then. (asyncio.create_task, loop.create_task)
template <class T>
Task<T> create_task(EventLoop& loop, Coro<T> coroutine,
                    std::source_location created = std::source_location::current()) {
    return detail::make_task(loop, coroutine, created);
}

template <class T>
Task<T> create_task(Coro<T> coroutine,
                    std::source_location created = std::source_location::current()) {
    return detail::make_task(detail::running_loop_for(coroutine), coroutine, created);
}

template <class T>
Task<T> create_task(const TaskOptions& options, Coro<T> coroutine,
                    std::source_location created = std::source_location::current()) {
    return detail::make_task(detail::running_loop_for(coroutine), coroutine, created, &options);
}

template <class T>
Task<T> create_task(EventLoop& loop, const TaskOptions& options, Coro<T> coroutine,
                    std::source_location created = std::source_location::current()) {
    return detail::make_task(loop, coroutine, created, &options);
}

// Makes a task of any other awaitable: `create_task(asyncio::sleep(1s))`.
template <class A>
    requires detail::TaskableAwaitable<std::decay_t<A>>
auto create_task(A&& awaitable, std::source_location created = std::source_location::current()) {
    ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(A);
    return create_task(detail::await_it<std::decay_t<A>>(std::forward<A>(awaitable)), created);
}

template <class A>
    requires detail::TaskableAwaitable<std::decay_t<A>>
auto create_task(EventLoop& loop, A&& awaitable,
                 std::source_location created = std::source_location::current()) {
    ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(A);
    return create_task(loop, detail::await_it<std::decay_t<A>>(std::forward<A>(awaitable)),
                       created);
}

template <class A>
    requires detail::TaskableAwaitable<std::decay_t<A>>
auto create_task(const TaskOptions& options, A&& awaitable,
                 std::source_location created = std::source_location::current()) {
    ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(A);
    return create_task(options, detail::await_it<std::decay_t<A>>(std::forward<A>(awaitable)),
                       created);
}

template <class A>
    requires detail::TaskableAwaitable<std::decay_t<A>>
auto create_task(EventLoop& loop, const TaskOptions& options, A&& awaitable,
                 std::source_location created = std::source_location::current()) {
    ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(A);
    return create_task(loop, options, detail::await_it<std::decay_t<A>>(std::forward<A>(awaitable)),
                       created);
}

// Calls function(arguments...), which must return a coroutine, and makes that a task. The callable
// and the arguments are kept (std::ref for a reference) until the coroutine has ended, so that a
// lambda with captures is safe here. With TaskOptions: they come first, after the loop if it is
// given.
template <class F, class... Args>
    requires detail::CoroutineFunction<F, Args...>
auto create_task(EventLoop& loop, F&& function, Args&&... arguments) {
    ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(F, Args...);
    return detail::create_bound_task(loop, nullptr, std::forward<F>(function),
                                     std::forward<Args>(arguments)...);
}

template <class F, class... Args>
    requires detail::CoroutineFunction<F, Args...>
auto create_task(F&& function, Args&&... arguments) {
    ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(F, Args...);
    return detail::create_bound_task(get_running_loop(), nullptr, std::forward<F>(function),
                                     std::forward<Args>(arguments)...);
}

template <class F, class... Args>
    requires detail::CoroutineFunction<F, Args...>
auto create_task(const TaskOptions& options, F&& function, Args&&... arguments) {
    ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(F, Args...);
    return detail::create_bound_task(get_running_loop(), &options, std::forward<F>(function),
                                     std::forward<Args>(arguments)...);
}

template <class F, class... Args>
    requires detail::CoroutineFunction<F, Args...>
auto create_task(EventLoop& loop, const TaskOptions& options, F&& function, Args&&... arguments) {
    ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(F, Args...);
    return detail::create_bound_task(loop, &options, std::forward<F>(function),
                                     std::forward<Args>(arguments)...);
}

// Refused with a sentence.
template <class T>
Task<T> create_task(const Coro<T>&, detail::AnyArgument, detail::AnyArgument = 0) {
    static_assert(detail::never<sizeof(Task<T>)>,
                  "options come first: create_task(TaskOptions().name(...), coroutine); arguments "
                  "come after a function: create_task(function, arguments...)");
    return {};
}
template <class T>
Task<T> create_task(EventLoop&, const Coro<T>&, detail::AnyArgument, detail::AnyArgument = 0) {
    static_assert(detail::never<sizeof(Task<T>)>,
                  "options come first: create_task(loop, TaskOptions().name(...), coroutine); "
                  "arguments come after a function: create_task(loop, function, arguments...)");
    return {};
}
template <class T> Task<T> create_task(const Future<T>&) {
    static_assert(detail::never<sizeof(Task<T>)>,
                  "a task or future is under way already: co_await it, or pass it to "
                  "ensure_future() or shield()");
    return {};
}
template <int n = 0>
Task<> create_task(detail::AnyArgument, detail::AnyArgument = 0, detail::AnyArgument = 0,
                   detail::AnyArgument = 0, detail::AnyArgument = 0) {
    static_assert(detail::never<n>,
                  "create_task takes a coroutine, another awaitable, or a function that returns a "
                  "coroutine and the arguments for it; a loop and TaskOptions come first");
    return {};
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
