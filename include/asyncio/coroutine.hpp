// SPDX-License-Identifier: MIT
// Coro<T>: what a coroutine function returns.
//
//     asyncio::Coro<int> answer() {
//         co_await asyncio::sleep(1s);
//         co_return 42;
//     }
//
// A Coro is lazy: nothing of the body runs before it is awaited or made a task. It is moved, never
// copied, and awaited once. Awaiting it runs it as part of the task that awaits, at once and
// without a trip through the event loop; `create_task` runs it beside that task. Its frame, with
// its parameters, is destroyed as soon as it has finished. One that is destroyed without ever
// having been awaited is reported to the exception handler. (a coroutine object)
#pragma once

#include <asyncio/detail/task_state.hpp>
#include <asyncio/detail/temporaries.hpp>
#include <asyncio/result.hpp>

#include <concepts>
#include <coroutine>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

ASYNCIO_BEGIN_NAMESPACE

template <class T = void> class Coro;

namespace detail {

template <class A>
concept Awaiter = requires(std::remove_reference_t<A>& awaiter) {
    { awaiter.await_ready() } -> std::convertible_to<bool>;
    awaiter.await_resume();
};
template <class A>
concept HasMemberCoAwait =
    requires(A&& awaitable) { std::forward<A>(awaitable).operator co_await(); };
template <class A>
concept HasFreeCoAwait = requires(A&& awaitable) { operator co_await(std::forward<A>(awaitable)); };

template <class A>
concept Awaitable = HasMemberCoAwait<A> || HasFreeCoAwait<A> || Awaiter<A>;

// The library's own awaiters, which know tasks; all others are bridged.
template <class A>
concept OwnAwaiter = requires { typename std::remove_cvref_t<A>::AsyncioAwaiter; };

// A foreign awaiter gets a handle that it may resume when and on which thread it likes: the task
// that awaits then goes on, on its own loop.
class ASYNCIO_API ForeignWait : public Operation {
  public:
    using AsyncioAwaiter = void;

    // Once the loop is closed, the handle must not be resumed any more: the frame is gone.
    // Never withdrawn: the value is delivered, and the cancel stays pending for the next await.
    CancelOutcome try_cancel() noexcept override { return CancelOutcome::already_done; }

  protected:
    ForeignWait() = default;
    ~ForeignWait();

    ForeignWait(const ForeignWait&) = delete;
    ForeignWait& operator=(const ForeignWait&) = delete;

    // Makes the bridge, which an awaiter that is ready does without. Throws std::bad_alloc.
    void begin(TaskBase& task, std::coroutine_handle<> frame);
    void take_back() noexcept { task_->unsuspend(); }

    struct Bridge; // a coroutine whose only step is to call resumed()
    std::coroutine_handle<> bridge_;

  private:
    void run() override { task_->step(); }
    void run_in_debug() override { task_->step_in_debug(); }
    void resumed() noexcept;

    TaskBase* task_ = nullptr;
};

template <class A> class ForeignAwaiter final : public ForeignWait {
  public:
    template <class Make> explicit ForeignAwaiter(Make make) : awaiter_(make()) {}

    bool await_ready() { return static_cast<bool>(awaiter_.await_ready()); }

    template <class Promise>
    bool await_suspend(std::coroutine_handle<Promise> frame,
                       std::source_location where = std::source_location::current()) {
        frame.promise().where = where;
        begin(*frame.promise().task, frame);
        using Answer = decltype(awaiter_.await_suspend(bridge_));
        try {
            if constexpr (std::is_void_v<Answer>) {
                awaiter_.await_suspend(bridge_);
                return true;
            } else if constexpr (std::is_same_v<Answer, bool>) {
                if (awaiter_.await_suspend(bridge_)) return true;
            } else {
                static_cast<std::coroutine_handle<>>(awaiter_.await_suspend(bridge_)).resume();
                return true;
            }
        } catch (...) {
            take_back();
            throw;
        }
        take_back();
        return false;
    }

    decltype(auto) await_resume() { return awaiter_.await_resume(); }

  private:
    A awaiter_;
};

// What takes this in place of its arguments refuses them with a sentence. Every other function is
// a better match, also one of the user's that is found beside ours: a conversion is worse than
// none, and a template worse than a function.
struct AnyArgument {
    template <class T> AnyArgument(const T&) noexcept {}
};
// For the static_assert in it, which would fail at once if it depended on nothing.
template <auto...> inline constexpr bool never = false;

// What a refused co_await gives, so that nothing but the refusal is reported.
struct [[maybe_unused]] Refused {
    struct Anything {
        template <class T> operator T() const;
    };
    bool await_ready() const noexcept { return true; }
    void await_suspend(std::coroutine_handle<>) const noexcept {}
    Anything await_resume() const noexcept { return {}; }
};

// An awaitable that is known to be no temporary, to be awaited by moving from it.
template <class A> struct MoveFrom {
    A& awaitable;
};

// One of the library's own awaiters, awaited where it stands: of a reference to a temporary GCC 12
// would keep a copy beside that, and await the copy.
template <class W> struct AwaiterRef {
    using AsyncioAwaiter = void;

    bool await_ready() { return awaiter.await_ready(); }
    template <class Promise>
    auto await_suspend(std::coroutine_handle<Promise> frame,
                       std::source_location where = std::source_location::current()) {
        if constexpr (requires { awaiter.await_suspend(frame, where); }) {
            return awaiter.await_suspend(frame, where);
        } else {
            return awaiter.await_suspend(frame);
        }
    }
    decltype(auto) await_resume() { return awaiter.await_resume(); }
    auto take_result()
        requires requires(W& w) { w.take_result(); }
    {
        return awaiter.take_result();
    }

    W& awaiter;
};

// What all promises have in common.
class PromiseBase : public PooledFrame {
  public:
    TaskBase* task = nullptr;
    Location where; // of the await at which this frame stands; first: of the function

    // A plain pointer as the default argument: a std::source_location would take 8 bytes of each
    // frame on GCC.
    std::suspend_always
    initial_suspend(const void* function = __builtin_source_location()) noexcept {
        where = Location(function);
        return {};
    }

    // The frame that awaits this one. The outermost frame of a task has none, and keeps in its
    // place where the task was made, marked by the lowest bit.
    bool is_outermost() const noexcept { return (outer_ & 1) != 0; }
    std::coroutine_handle<> outer() const noexcept {
        return std::coroutine_handle<>::from_address(reinterpret_cast<void*>(outer_));
    }
    void set_outer(std::coroutine_handle<> frame) noexcept {
        outer_ = reinterpret_cast<std::uintptr_t>(frame.address());
    }
    Location created() const noexcept {
        return Location(reinterpret_cast<const void*>(outer_ & ~std::uintptr_t{1}));
    }
    void set_outermost(Location created) noexcept {
        outer_ = reinterpret_cast<std::uintptr_t>(created.pointer()) | 1;
    }

    struct FinalAwaiter {
        bool await_ready() const noexcept { return false; }
        void await_resume() const noexcept {}
        // The number makes the two kinds of code two functions for the linker.
        template <class Promise, int = ASYNCIO_TRAMPOLINE>
        auto await_suspend(std::coroutine_handle<Promise> frame) const noexcept {
            PromiseBase& promise = frame.promise();
            const bool is_outermost = promise.is_outermost();
            if (is_outermost) {
                promise.task->set_returned(frame);
            } else {
                promise.task->set_innermost(promise.outer());
            }
#if !ASYNCIO_TRAMPOLINE
            return is_outermost ? std::coroutine_handle<>(std::noop_coroutine()) : promise.outer();
#endif
        }
    };
    FinalAwaiter final_suspend() const noexcept { return {}; }

    void unhandled_exception() noexcept { task->set_thrown(std::current_exception()); }

    // An awaitable that is an enumeration is taken by value: GCC keeps no temporary of it in the
    // frame.
    template <class A>
        requires std::is_enum_v<A>
    decltype(auto) await_transform(A awaitable) const {
        return operator co_await(awaitable);
    }
    template <class A>
        requires(!std::is_enum_v<std::remove_cvref_t<A>>)
    decltype(auto) await_transform(A&& awaitable) const {
        ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(A);
        return transform(std::forward<A>(awaitable));
    }
    template <class A> decltype(auto) await_transform(MoveFrom<A> from) const {
        return transform(std::move(from.awaitable));
    }

  private:
    template <class A> decltype(auto) transform(A&& awaitable) const {
        if constexpr (OwnAwaiter<A>) {
            return AwaiterRef<std::remove_reference_t<A>>{awaitable};
        } else if constexpr (HasMemberCoAwait<A>) {
            using W = decltype(std::forward<A>(awaitable).operator co_await());
            if constexpr (OwnAwaiter<W>) {
                return std::forward<A>(awaitable).operator co_await();
            } else {
                return ForeignAwaiter<W>(
                    [&]() -> W { return std::forward<A>(awaitable).operator co_await(); });
            }
        } else if constexpr (HasFreeCoAwait<A>) {
            using W = decltype(operator co_await(std::forward<A>(awaitable)));
            return ForeignAwaiter<W>(
                [&]() -> W { return operator co_await(std::forward<A>(awaitable)); });
        } else if constexpr (Awaiter<A>) {
            return ForeignAwaiter<A&&>([&]() -> A&& { return std::forward<A>(awaitable); });
        } else {
            static_assert(
                Awaiter<A>,
                "co_await takes a Coro, a Task, a Future or another awaitable. A function must "
                "be called first; sleep must be asyncio::sleep, not the one of <unistd.h>");
            return Refused();
        }
    }

    friend struct DebuggerFacts;

    std::uintptr_t outer_ = 0;
};

// Finds the promise behind a handle of unknown type. Right because every promise begins with its
// PromiseBase and none is aligned to more than 16.
inline PromiseBase& promise_of(std::coroutine_handle<> frame) noexcept {
    return std::coroutine_handle<PromiseBase>::from_address(frame.address()).promise();
}

// Whether a T& may refer to a U without a temporary in between, which would be gone.
template <class T, class U>
inline constexpr bool refers_to =
    std::is_lvalue_reference_v<U> &&
    std::is_convertible_v<std::add_pointer_t<U>, std::add_pointer_t<T>>;

template <class T> class Promise final : public PromiseBase {
  public:
    static_assert(!std::is_rvalue_reference_v<T>,
                  "a coroutine returns a value, an lvalue reference or void");
    static_assert(alignof(Stored<T>) <= 16,
                  "the result of a coroutine cannot be aligned to more than 16 bytes: "
                  "return a std::unique_ptr to it");

    Promise() noexcept {}
    ~Promise() {
        if (has_value_) value_.~Stored<T>();
    }
    Promise(const Promise&) = delete;
    Promise& operator=(const Promise&) = delete;

    Coro<T> get_return_object() noexcept;

    template <class U = T>
        requires(std::is_reference_v<T> || std::is_convertible_v<U &&, T>)
    void return_value(U&& value) {
        if constexpr (std::is_reference_v<T>) {
            static_assert(refers_to<T, U>, "a coroutine that returns a reference needs an object "
                                           "for it that outlives the coroutine, not a temporary");
            if constexpr (refers_to<T, U>) {
                T reference = std::forward<U>(value);
                value_ = std::addressof(reference);
            }
        } else {
            ::new (static_cast<void*>(std::addressof(value_))) T(std::forward<U>(value));
        }
        has_value_ = true;
    }

    // Requires: the body has returned. Once.
    Stored<T>& value() noexcept { return value_; }

  private:
    union {
        Stored<T> value_;
    };
    bool has_value_ = false;
};

template <> class Promise<void> final : public PromiseBase {
  public:
    Coro<void> get_return_object() noexcept;
    void return_void() const noexcept {}
};

ASYNCIO_API void report_never_awaited(PromiseBase& promise) noexcept;
[[noreturn]] ASYNCIO_API void throw_not_awaitable(bool was_awaited);

// Destroys the frames of a task that will not go on, but for the outermost, which it returns: from
// the innermost outwards, as they would end, but one by one, so that depth costs no stack here
// either. The returned one must be destroyed next.
ASYNCIO_API std::coroutine_handle<>
destroy_inner_frames(std::coroutine_handle<> innermost) noexcept;
// Destroys a frame that another one awaits, unless destroy_inner_frames() has just done that.
ASYNCIO_API void destroy_inner(std::coroutine_handle<> frame) noexcept;

// Runs a coroutine inside the task that awaits it. Owns its frame.
template <class T> class CoroAwaiter {
  public:
    using AsyncioAwaiter = void;
    using Frame = std::coroutine_handle<Promise<T>>;

    explicit CoroAwaiter(Frame frame) noexcept : frame_(frame) {}
    // The frame is still there only if the frame that awaits it is destroyed before it goes on.
    ~CoroAwaiter() {
        if (frame_) [[unlikely]] {
            destroy_inner(frame_);
        }
    }
    CoroAwaiter(const CoroAwaiter&) = delete;
    CoroAwaiter& operator=(const CoroAwaiter&) = delete;

    bool await_ready() const noexcept { return false; }

    template <std::derived_from<PromiseBase> Outer, int = ASYNCIO_TRAMPOLINE>
    auto await_suspend(std::coroutine_handle<Outer> outer,
                       std::source_location where = std::source_location::current()) noexcept {
        PromiseBase& from = outer.promise();
        from.where = where;
        PromiseBase& promise = frame_.promise();
        promise.set_outer(outer);
        promise.task = from.task;
        from.task->set_innermost(frame_);
#if !ASYNCIO_TRAMPOLINE
        return frame_;
#endif
    }

    T await_resume() {
        TaskBase& task = *frame_.promise().task;
        if (task.has_thrown()) [[unlikely]] {
            std::exception_ptr exception = task.take_thrown();
            destroy();
            std::rethrow_exception(std::move(exception));
        }
        if constexpr (std::is_void_v<T>) {
            destroy();
        } else if constexpr (std::is_reference_v<T>) {
            std::remove_reference_t<T>* value = frame_.promise().value();
            destroy();
            return *value;
        } else {
            T value = std::move(frame_.promise().value());
            destroy();
            return value;
        }
    }

    Result<T> take_result() {
        struct AtEnd {
            CoroAwaiter& awaiter;
            ~AtEnd() { awaiter.destroy(); }
        };
        const AtEnd at_end{*this};
        if (TaskBase& task = *frame_.promise().task; task.has_thrown())
            return Result<T>(task.take_thrown());
        if constexpr (std::is_void_v<T>) {
            return {};
        } else if constexpr (std::is_reference_v<T>) {
            return Result<T>(*frame_.promise().value());
        } else {
            return Result<T>(std::move(frame_.promise().value()));
        }
    }

  private:
    void destroy() noexcept { std::exchange(frame_, nullptr).destroy(); }

    Frame frame_;
};

} // namespace detail

template <class T>
class [[nodiscard(
    "a coroutine does nothing until it is awaited or made a task")]] ASYNCIO_CORO_TYPE Coro {
  public:
    using promise_type = detail::Promise<T>;
    using value_type = T;

    // Compilers show this line to who copies one.
    Coro(const Coro&) = delete; // it is awaited once: hand it on with std::move
    Coro& operator=(const Coro&) = delete;
    Coro(Coro&& other) noexcept : frame_(std::exchange(other.frame_, nullptr)) {}
    Coro& operator=(Coro&& other) noexcept {
        std::swap(frame_, other.frame_);
        return *this;
    }
    ~Coro() {
        if (owns()) [[unlikely]] {
            detail::report_never_awaited(frame_.promise());
            frame_.destroy();
        }
    }

    // Runs the coroutine to its end inside the awaiting task: gives its result, or throws what it
    // threw. A cancel of the task arrives at the innermost await. Throws RuntimeError if it was
    // awaited or moved from before.
    detail::CoroAwaiter<T> operator co_await() & { return detail::CoroAwaiter<T>(take()); }
    detail::CoroAwaiter<T> operator co_await() && { return detail::CoroAwaiter<T>(take()); }

    // Destroys it without running it, and without a report. (coroutine.close)
    void close() noexcept {
        if (owns()) frame_.destroy();
        frame_ = nullptr;
    }

    // For the library: gives up the frame. Throws RuntimeError as awaiting does.
    std::coroutine_handle<promise_type> take() {
        if (!owns()) [[unlikely]] {
            detail::throw_not_awaitable(frame_ != nullptr);
        }
        return std::exchange(frame_, awaited());
    }

  private:
    friend promise_type;
    explicit Coro(std::coroutine_handle<promise_type> frame) noexcept : frame_(frame) {}

    // Stands for a frame that has been given up, to tell it from one that was moved away.
    static std::coroutine_handle<promise_type> awaited() noexcept {
        static constexpr std::uintptr_t mark = 16;
        return std::coroutine_handle<promise_type>::from_address(reinterpret_cast<void*>(mark));
    }
    bool owns() const noexcept { return frame_ != nullptr && frame_ != awaited(); }

    std::coroutine_handle<promise_type> frame_;
};

namespace detail {

template <class T> Coro<T> Promise<T>::get_return_object() noexcept {
    return Coro<T>(std::coroutine_handle<Promise>::from_promise(*this));
}
inline Coro<void> Promise<void>::get_return_object() noexcept {
    return Coro<void>(std::coroutine_handle<Promise>::from_promise(*this));
}

template <class T> inline constexpr bool is_coro = false;
template <class T> inline constexpr bool is_coro<Coro<T>> = true;

} // namespace detail
ASYNCIO_END_NAMESPACE
