// SPDX-License-Identifier: MIT
// run_coroutine_threadsafe: gives a coroutine to the loop of another thread, and waits for it
// there.
//
//     auto future = asyncio::run_coroutine_threadsafe(fetch(url), loop);   // any thread
//     int status = future.result(5s);                                      // blocks this thread
//
// Only for threads that run no loop: a coroutine awaits, and must not block.
#pragma once

#include <asyncio/clock.hpp>
#include <asyncio/ensure_future.hpp>
#include <asyncio/futures.hpp>
#include <asyncio/tasks.hpp>

#include <atomic>
#include <concepts>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <source_location>
#include <type_traits>
#include <utility>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

class ConcurrentCallback {
  public:
    virtual ~ConcurrentCallback() = default;
    virtual void call() = 0;
};

// What a ConcurrentFuture points to. What threads share is behind a mutex; the task, and what the
// FutureWaiter is made of, belong to the loop's thread. While it is pending, the loop is there: one
// that closes ends it first.
class ASYNCIO_API ConcurrentState : public FutureWaiter {
  public:
    void retain() noexcept { references_.fetch_add(1, std::memory_order_relaxed); }
    void release() noexcept {
        if (references_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
    }

    // Any thread.
    bool done() const;
    bool cancelled() const;
    bool cancel();
    // Until it is done; throws TimeoutError.
    void wait(std::optional<Delay> timeout) const;
    // Requires: done. Null if there is a value.
    const std::exception_ptr& exception() const noexcept { return exception_; }
    void add_callback(std::unique_ptr<ConcurrentCallback> callback);

    // The loop's thread; one of these, once.
    void started(FutureBase& task) noexcept;
    void failed(std::exception_ptr exception);
    void dropped() noexcept;

  protected:
    explicit ConcurrentState(EventLoop& loop);
    virtual ~ConcurrentState();

    // Requires: the task has a value.
    virtual void take_value(FutureBase& task) = 0;

  private:
    enum Status { pending, finished, failure, cancelled_status };
    struct Shared; // the mutex, and what it guards besides
    struct CancelRequest final : Runnable {
        explicit CancelRequest(ConcurrentState& s) noexcept : state(s) {}
        void run() override;
        void discard() noexcept override { state.release(); }
        ConcurrentState& state;
    };

    void run() override;
    void discard() noexcept override;
    void finish(Status status, std::exception_ptr exception);

    std::atomic<std::uint32_t> references_ = 1;
    EventLoop* loop_;
    FutureBase* task_ = nullptr;
    CancelRequest cancel_request_{*this};
    std::exception_ptr exception_; // set before the status, never changed after it
    std::unique_ptr<Shared> shared_;
};

template <class T> class ConcurrentStateOf final : public ConcurrentState {
  public:
    explicit ConcurrentStateOf(EventLoop& loop) : ConcurrentState(loop) {}
    Stored<T>& value() noexcept { return *value_; }

  private:
    void take_value(FutureBase& task) override {
        if constexpr (std::is_reference_v<T>) {
            value_.emplace(value_of<T>(task));
        } else if constexpr (!std::is_void_v<T>) {
            value_.emplace(give_value<T, true>(task));
        }
    }

    std::optional<Stored<T>> value_;
};

// What the loop calls. If it never does, the future is cancelled.
template <class T, class A> class ConcurrentStart {
  public:
    ConcurrentStart(ConcurrentStateOf<T>& state, EventLoop& loop, A&& start, Location created)
        : state_(&state), loop_(&loop), start_(std::move(start)), created_(created) {
        state.retain();
    }
    ConcurrentStart(ConcurrentStart&& other) noexcept
        : state_(std::exchange(other.state_, nullptr)), loop_(other.loop_),
          start_(std::move(other.start_)), created_(other.created_) {}
    ConcurrentStart& operator=(ConcurrentStart&&) = delete;
    ~ConcurrentStart() {
        if (state_ == nullptr) return;
        if constexpr (is_coro<A>) start_.close();
        state_->dropped();
        state_->release();
    }

    void operator()() {
        struct Release {
            ConcurrentState* state;
            ~Release() { state->release(); }
        };
        const Release state{std::exchange(state_, nullptr)};
        try {
            state.state->started(start_on(*loop_, std::move(start_), created_).state());
        } catch (...) { // the loop hears of it too
            state.state->failed(std::current_exception());
            throw;
        }
    }

  private:
    ConcurrentStateOf<T>* state_;
    EventLoop* loop_;
    A start_;
    Location created_;
};

} // namespace detail

// A result that another thread makes. Copies mean the same one; they may be used, and dropped, on
// any thread. (concurrent.futures.Future)
template <class T = void> class ConcurrentFuture {
  public:
    using value_type = T;

    ConcurrentFuture(const ConcurrentFuture& other) noexcept : state_(other.state_) {
        state_->retain();
    }
    ConcurrentFuture& operator=(ConcurrentFuture other) noexcept {
        std::swap(state_, other.state_);
        return *this;
    }
    ~ConcurrentFuture() { state_->release(); }

    // It has a result or an exception, or was cancelled.
    bool done() const { return state_->done(); }
    bool cancelled() const { return state_->cancelled(); }
    // It is cancelled now, and the task as soon as the loop comes to it. False if it is done.
    bool cancel() const { return state_->cancel(); }

    // Blocks until it is done, for no longer than the timeout, which throws TimeoutError and leaves
    // the task alone. Gives the result, or throws the task's exception; CancelledError if it was
    // cancelled, or its loop closed. Throws RuntimeError on the loop's own thread, where it would
    // wait for ever. The reference is good for as long as a handle lives; of a temporary, the
    // result is moved out.
    decltype(auto) result(std::optional<Delay> timeout = std::nullopt) const& {
        wait_for_value(timeout);
        if constexpr (std::is_reference_v<T>) {
            return static_cast<T>(*state_->value());
        } else if constexpr (!std::is_void_v<T>) {
            return std::as_const(state_->value());
        }
    }
    T result(std::optional<Delay> timeout = std::nullopt) && {
        wait_for_value(timeout);
        if constexpr (std::is_reference_v<T>) {
            return static_cast<T>(*state_->value());
        } else if constexpr (!std::is_void_v<T>) {
            return std::move(state_->value());
        }
    }
    // Blocks in the same way. Null if there is a result; throws CancelledError if it was cancelled.
    std::exception_ptr exception(std::optional<Delay> timeout = std::nullopt) const {
        state_->wait(timeout);
        if (state_->cancelled()) std::rethrow_exception(state_->exception());
        return state_->exception();
    }

    // Calls function(future), or function(), when it is done: on the loop's thread, on that which
    // cancels it, or at once if it is done already. What it throws is written to standard error.
    template <class F> void add_done_callback(F&& function) const {
        using Function = std::decay_t<F>;
        struct Callback final : detail::ConcurrentCallback {
            Callback(F&& given, detail::ConcurrentStateOf<T>& future)
                : function(std::forward<F>(given)), state(future) {}
            void call() override {
                if constexpr (std::is_invocable_v<Function&, ConcurrentFuture>) {
                    state.retain();
                    function(ConcurrentFuture(state));
                } else {
                    function();
                }
            }
            Function function;
            detail::ConcurrentStateOf<T>& state;
        };
        state_->add_callback(std::make_unique<Callback>(std::forward<F>(function), *state_));
    }

    // For the library: takes over a reference.
    explicit ConcurrentFuture(detail::ConcurrentStateOf<T>& state) noexcept : state_(&state) {}

  private:
    void wait_for_value(std::optional<Delay> timeout) const {
        state_->wait(timeout);
        if (state_->exception() != nullptr) std::rethrow_exception(state_->exception());
    }

    detail::ConcurrentStateOf<T>* state_;
};

// Any thread: makes the coroutine, or what a callable makes on the loop's thread, a task of the
// loop. Throws RuntimeError if the loop is closed; a coroutine is closed then. If the loop closes
// before the task has ended, the future is cancelled. (asyncio.run_coroutine_threadsafe)
template <class A>
    requires detail::is_coro<std::decay_t<A>> || detail::CoroutineFunction<A>
ConcurrentFuture<detail::StartedType<A>>
run_coroutine_threadsafe(A&& coroutine, EventLoop& loop,
                         std::source_location created = std::source_location::current()) {
    using T = detail::StartedType<A>;
    auto* state = new detail::ConcurrentStateOf<T>(loop);
    ConcurrentFuture<T> future(*state);
    std::decay_t<A> start(std::forward<A>(coroutine));
    loop.call_soon_threadsafe(
        detail::ConcurrentStart<T, std::decay_t<A>>(*state, loop, std::move(start), created));
    return future;
}

// Refused with a sentence.
template <int n = 0>
detail::Refused run_coroutine_threadsafe(detail::AnyArgument, detail::AnyArgument = 0,
                                         detail::AnyArgument = 0) {
    static_assert(
        detail::never<n>,
        "run_coroutine_threadsafe takes a coroutine, or a function without arguments that "
        "makes one, and then the loop: run_coroutine_threadsafe(work(x), loop)");
    return {};
}

ASYNCIO_END_NAMESPACE
