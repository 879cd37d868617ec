// SPDX-License-Identifier: MIT
// Future<T>: a result that somebody sets later.
//
//     auto future = asyncio::create_future<int>();
//     loop.call_later(1s, [future]() mutable { future.set_result(42); });
//     int answer = co_await future;
//
// A Future is a handle: copies mean the same future. It belongs to the loop that it was made for,
// and to that loop's thread. Once it is done it never changes, and awaiting it does not suspend.
// One that is destroyed with an exception which nobody looked at is reported to the exception
// handler. (asyncio.Future)
//
// Another thread may set it only through the loop, and a handle is not copied there: it moves
// along.
//
//     std::thread([future = std::move(future), &loop]() mutable {
//         loop.call_soon_threadsafe([future = std::move(future)] { future.set_result(42); });
//     });
#pragma once

#include <asyncio/coroutine.hpp>
#include <asyncio/detail/task_state.hpp>
#include <asyncio/result.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <source_location>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

ASYNCIO_BEGIN_NAMESPACE

class AnyFuture;

// Names a callback that add_done_callback has added, for remove_done_callback.
struct DoneCallbackId {
    std::uint64_t serial;
};

namespace detail {

[[noreturn]] ASYNCIO_API void throw_empty_handle();

// Base is FutureBase or TaskBase; adds the value.
template <class T, class Base> class WithValue : public Base {
  public:
    static_assert(!std::is_rvalue_reference_v<T>,
                  "a future or task gives a value, an lvalue reference or void");
    static_assert(alignof(Stored<T>) <= 16,
                  "the result of a future or task cannot be aligned to more than 16 bytes: give it "
                  "a std::unique_ptr to it");
    explicit WithValue(EventLoop& loop) noexcept : Base(loop) {}
    ~WithValue() override {
        if (this->state() == FutureBase::finished) value_.~Stored<T>();
    }
    void* value() noexcept final { return std::addressof(value_); }

  protected:
    template <class... Args> void make_value(Args&&... arguments) {
        ::new (static_cast<void*>(std::addressof(value_)))
            Stored<T>(std::forward<Args>(arguments)...);
    }

  private:
    union {
        Stored<T> value_;
    };
};

template <class Base> class WithValue<void, Base> : public Base {
  public:
    explicit WithValue(EventLoop& loop) noexcept : Base(loop) {}
};

// A future that is no task: keeps where it was made.
class ASYNCIO_API PlainFuture : public FutureBase {
  public:
    void set_created(Location created) noexcept { created_ = created; }

  protected:
    explicit PlainFuture(EventLoop& loop) noexcept : FutureBase(loop) {}
    ~PlainFuture() override;

  private:
    Location created_at() const noexcept override { return created_; }

    Location created_;
};

template <class T> class FutureState : public WithValue<T, PlainFuture> {
  public:
    explicit FutureState(EventLoop& loop) noexcept : WithValue<T, PlainFuture>(loop) {}

    template <class... Args> void set_result(Args&&... arguments) {
        this->throw_if_done();
        if constexpr (!std::is_void_v<T>) {
            typename FutureBase::BeingSet being_set(*this); // making the value may call back
            this->make_value(std::forward<Args>(arguments)...);
        }
        this->finish_with_value();
    }
};

template <class T> Stored<T>& value_of(FutureBase& future) noexcept {
    return *static_cast<Stored<T>*>(future.value());
}

// Gives the value of a future that is finished: a copy; or moved out, if `Move` and this is the
// last handle (or the value cannot be copied).
template <class T, bool Move> T give_value(FutureBase& future) {
    if constexpr (std::is_reference_v<T>) {
        return static_cast<T>(*value_of<T>(future));
    } else if constexpr (!std::is_void_v<T>) {
        if constexpr (Move && !is_copyable<T>) {
            if (future.is_taken()) future.throw_unless_value();
            future.mark_taken();
            return std::move(value_of<T>(future));
        } else {
            if (future.is_taken()) future.throw_unless_value();
            if constexpr (Move) {
                if (future.is_unique()) return std::move(value_of<T>(future));
            }
            return std::as_const(value_of<T>(future));
        }
    }
}

template <class T, bool Move> class FutureAwaiter final : public TaskWaiter {
  public:
    using AsyncioAwaiter = void;

    explicit FutureAwaiter(FutureBase& future) noexcept : TaskWaiter(future) {}
    FutureAwaiter(FutureBase& future, Adopt) noexcept : TaskWaiter(future, adopt) {}

    bool await_ready() const noexcept { return future_->done(); }
    template <std::derived_from<PromiseBase> Promise>
    void await_suspend(std::coroutine_handle<Promise> frame,
                       std::source_location where = std::source_location::current()) noexcept {
        frame.promise().where = where;
        wait(*frame.promise().task, frame);
    }
    T await_resume() {
        throw_unless_value();
        return give_value<T, Move>(*future_);
    }
    Result<T> take_result() {
        if (std::exception_ptr failure = take_failure()) return Result<T>(std::move(failure));
        if constexpr (std::is_void_v<T>) {
            return {};
        } else {
            return Result<T>(give_value<T, Move>(*future_));
        }
    }
};

class ASYNCIO_API DoneCallbackBase : public FutureWaiter, public Pooled {
  public:
    void scheduled(FutureBase& future) noexcept override;
    void forgotten() noexcept override;
    void discard() noexcept override;
    void run() override;
    void run_in_debug() override;
    bool keeps_order() const noexcept override { return true; }
    DoneCallbackBase* as_done_callback() noexcept override { return this; }

    virtual bool equals(const void* type, const void* function) const = 0;

    static DoneCallbackId attach(DoneCallbackBase* callback);
    static std::size_t remove(FutureBase& future, DoneCallbackId id);
    static std::size_t remove_equal(FutureBase& future, const void* type, const void* function);
    template <class Predicate>
    static std::size_t remove_if(FutureBase& future, Predicate predicate) {
        // Destroyed only when the list has been gone through: a callable's destructor may do
        // anything, such as removing other callbacks.
        struct Removed {
            FutureWaiter* first = nullptr;
            ~Removed() {
                while (first != nullptr) std::exchange(first, first->next_waiter())->forgotten();
            }
        };
        Removed removed;
        std::size_t count = 0;
        future.for_each_waiter([&](FutureWaiter& waiter) {
            DoneCallbackBase* callback = waiter.as_done_callback();
            if (callback == nullptr || !predicate(*callback)) return;
            future.remove_waiter(*callback);
            callback->next_link = std::exchange(removed.first, callback);
            ++count;
        });
        return count;
    }

  protected:
    explicit DoneCallbackBase(FutureBase& future) noexcept;
    virtual ~DoneCallbackBase();
    virtual void invoke() = 0;

    FutureBase* future_;

  private:
    friend class asyncio::AnyFuture;

    OwnContext context_;
    std::uint64_t serial_;
};

template <class F>
inline constexpr char callback_type = 0; // its address tells callback types apart

template <class F, class HandleType> class DoneCallback final : public DoneCallbackBase {
  public:
    template <class G>
    DoneCallback(FutureBase& future, G&& function)
        : DoneCallbackBase(future), function_(std::forward<G>(function)) {}

    bool equals(const void* type, const void* function) const override {
        if constexpr (std::equality_comparable<F>) {
            return type == &callback_type<F> && *static_cast<const F*>(function) == function_;
        } else {
            return false;
        }
    }

  private:
    void invoke() override {
        if constexpr (std::is_invocable_v<F&, HandleType>) {
            static_cast<void>(function_(HandleType::of(*future_)));
        } else if constexpr (std::is_invocable_v<F&>) {
            static_cast<void>(function_());
        }
    }

    F function_;
};

} // namespace detail

// What all futures and tasks have, whatever the type of their result. Awaiting it waits, and throws
// what the future ended with; the result is not given.
class ASYNCIO_API AnyFuture {
  public:
    using value_type = void;

    // Of nothing: every call but valid() throws RuntimeError.
    AnyFuture() noexcept = default;
    AnyFuture(const AnyFuture& other) noexcept : state_(other.state_) {
        if (state_ != nullptr) state_->retain();
    }
    AnyFuture(AnyFuture&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
    AnyFuture& operator=(AnyFuture other) noexcept {
        std::swap(state_, other.state_);
        return *this;
    }
    ~AnyFuture() {
        if (state_ != nullptr) state_->release();
    }

    bool valid() const noexcept { return state_ != nullptr; }
    // Whether both are handles of the same future.
    friend bool operator==(const AnyFuture& a, const AnyFuture& b) noexcept {
        return a.state_ == b.state_;
    }

    // It has a result or an exception, or was cancelled. (Future.done)
    bool done() const { return state().done(); }
    bool cancelled() const { return state().state() == detail::FutureBase::cancelled_state; }
    // A future: it ends with CancelledError, and who waits is told in the next turn. A task: see
    // Task. False if it is done already: the one effect then is that a failure counts as seen.
    // (Future.cancel)
    bool cancel(const std::string& message = {}) const {
        detail::FutureBase& future = state();
        future.loop().check_thread();
        return future.cancel(message);
    }
    // The exception that it ended with, null if with a result. Throws InvalidStateError while it is
    // pending, CancelledError if it was cancelled. (Future.exception)
    std::exception_ptr exception() const {
        detail::FutureBase& future = state();
        if (future.state() == detail::FutureBase::failed) return future.retrieve();
        if (future.state() == detail::FutureBase::finished) return nullptr;
        future.throw_unless_value();
        return nullptr;
    }
    // (Future.get_loop)
    EventLoop& get_loop() const { return state().loop(); }

    // Calls function(future), or function(), in the turn after the future is done (the next turn if
    // it is done already), in the order in which they were added, in the context that is current
    // now, or, if a Context is passed first, in that one. What it throws goes to the exception
    // handler. Throws RuntimeError if it is done already and its loop is closed.
    // (Future.add_done_callback)
    template <class F> DoneCallbackId add_done_callback(F&& function) const {
        return add_callback<AnyFuture>(nullptr, std::forward<F>(function));
    }
    template <class F> DoneCallbackId add_done_callback(InContext context, F&& function) const {
        return add_callback<AnyFuture>(&context, std::forward<F>(function));
    }
    // Removes the callback if it is not scheduled yet; returns the number removed, 0 or 1.
    std::size_t remove_done_callback(DoneCallbackId id) const {
        return detail::DoneCallbackBase::remove(state(), id);
    }
    // Removes all callbacks that compare equal: functions and comparable function objects.
    // (Future.remove_done_callback)
    template <class F>
        requires std::equality_comparable<std::decay_t<F>>
    std::size_t remove_done_callback(const F& function) const {
        const std::decay_t<F> wanted = function;
        return detail::DoneCallbackBase::remove_equal(
            state(), &detail::callback_type<std::decay_t<F>>, static_cast<const void*>(&wanted));
    }

    detail::FutureAwaiter<void, false> operator co_await() const {
        return detail::FutureAwaiter<void, false>(state());
    }

    // For the library.
    static AnyFuture of(detail::FutureBase& state) noexcept { return AnyFuture(state); }
    detail::FutureBase& state() const {
        if (state_ == nullptr) [[unlikely]] {
            detail::throw_empty_handle();
        }
        return *state_;
    }

  protected:
    explicit AnyFuture(detail::FutureBase& state) noexcept : state_(&state) { state.retain(); }

    template <class HandleType, class F>
    DoneCallbackId add_callback(InContext* context, F&& function) const {
        using Function = std::decay_t<F>;
        static_assert(std::is_invocable_v<Function&, HandleType> || std::is_invocable_v<Function&>,
                      "a done-callback is called with the future, or without arguments");
        static_assert(!detail::makes_coroutine<Function&, HandleType> &&
                          !detail::makes_coroutine<Function&>,
                      "a done-callback that is a coroutine would never run: call create_task in "
                      "a plain function");
        detail::FutureBase& future = state();
        future.loop().check_thread();
        detail::DoneCallbackBase* callback =
            new detail::DoneCallback<Function, HandleType>(future, std::forward<F>(function));
        if (context != nullptr) callback->context_.variables.swap(context->context_);
        return detail::DoneCallbackBase::attach(callback);
    }

    detail::FutureBase* state_ = nullptr;
};

template <class T = void> class Future : public AnyFuture {
  public:
    using value_type = T;

    Future() noexcept = default;

    // The result: throws the exception instead, CancelledError if it was cancelled,
    // InvalidStateError while it is pending. The reference is good for as long as a handle lives.
    // (Future.result)
    decltype(auto) result() const {
        detail::FutureBase& future = state();
        future.throw_unless_value();
        if constexpr (std::is_reference_v<T>) {
            return static_cast<T>(*detail::value_of<T>(future));
        } else if constexpr (!std::is_void_v<T>) {
            return std::as_const(detail::value_of<T>(future));
        }
    }

    // Makes it done; who waits goes on in the next turn. Throws InvalidStateError if it is done
    // already. (Future.set_result)
    template <class U = T>
        requires(!std::is_void_v<T> && !std::is_reference_v<T> && std::is_constructible_v<T, U &&>)
    void set_result(U&& value) const {
        settable().set_result(std::forward<U>(value));
    }
    template <class U = T>
        requires std::is_reference_v<U>
    void set_result(std::remove_reference_t<U>& value) const {
        settable().set_result(std::addressof(value));
    }
    template <class U = T>
        requires std::is_reference_v<U>
    void set_result(const std::remove_reference_t<U>&& value) const = delete; // would dangle
    void set_result() const
        requires std::is_void_v<T>
    {
        settable().set_result();
    }
    // The same with an exception object or an exception_ptr. (Future.set_exception)
    template <class E> void set_exception(E&& exception) const {
        if constexpr (std::is_same_v<std::remove_cvref_t<E>, std::exception_ptr>) {
            state().set_exception(std::forward<E>(exception));
        } else {
            state().set_exception(std::make_exception_ptr(std::forward<E>(exception)));
        }
    }

    // As AnyFuture's; the function may take a Future<T>.
    template <class F> DoneCallbackId add_done_callback(F&& function) const {
        return add_callback<Future>(nullptr, std::forward<F>(function));
    }
    template <class F> DoneCallbackId add_done_callback(InContext context, F&& function) const {
        return add_callback<Future>(&context, std::forward<F>(function));
    }

    // Waits until it is done, and gives a copy of the result or throws the exception. If the task
    // that waits is cancelled, so is this future. `co_await std::move(future)` moves the result out
    // if this is the last handle.
    auto operator co_await() const& {
        static_assert(
            gives_copies,
            "this result cannot be copied: write `co_await std::move(future)` to move it out");
        // Moved if it was refused, so that nothing but the refusal is reported.
        return detail::FutureAwaiter<T, !gives_copies>(state());
    }
    auto operator co_await() && {
        detail::FutureBase& future = state();
        state_ = nullptr;
        return detail::FutureAwaiter<T, true>(future, detail::adopt);
    }

    // For the library: the state must be one of a T.
    static Future of(detail::FutureBase& state) noexcept { return Future(state); }

  protected:
    explicit Future(detail::FutureBase& state) noexcept : AnyFuture(state) {}

  private:
    static constexpr bool gives_copies =
        std::is_void_v<T> || std::is_reference_v<T> || detail::is_copyable<T>;

    detail::FutureState<T>& settable() const {
        detail::FutureBase& future = state();
        if (future.is_task()) throw RuntimeError("Task does not support set_result operation");
        return static_cast<detail::FutureState<T>&>(future);
    }
};

// A future of the loop, which must be set by somebody. Reports tell the line of this call.
// (loop.create_future)
template <class T = void>
Future<T> create_future(EventLoop& loop,
                        std::source_location created = std::source_location::current()) {
    loop.throw_if_closed();
    auto* state = new detail::FutureState<T>(loop);
    state->set_created(created);
    return Future<T>::of(*state);
}
// Of the running loop. Throws RuntimeError if none runs.
template <class T = void>
Future<T> create_future(std::source_location created = std::source_location::current()) {
    return create_future<T>(get_running_loop(), created);
}

ASYNCIO_END_NAMESPACE
