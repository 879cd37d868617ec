// SPDX-License-Identifier: MIT
// timeout, timeout_at and wait_for: a limit to how long something may take.
//
//     int status = co_await asyncio::wait_for(fetch(url), 2s);
//
//     co_await asyncio::timeout(2s, [&]() -> asyncio::Coro<> {
//         co_await connection.send(request);
//         response = co_await connection.receive();
//     });
//
// When the time is up, the task is cancelled: the await at which the body stands throws
// CancelledError, so that it cleans up as it always does, and where the body has ended this becomes
// a TimeoutError. A cancel that came from outside stays a CancelledError, also if the time was up
// in the same turn. A body that ends in its own way, with a value or another exception, ends so.
// std::nullopt for a time means that it is never up.
#pragma once

#include <asyncio/as_result.hpp>
#include <asyncio/clock.hpp>
#include <asyncio/detail/scopes.hpp>
#include <asyncio/detail/waiting.hpp>
#include <asyncio/ensure_future.hpp>
#include <asyncio/events.hpp>

#include <concepts>
#include <coroutine>
#include <cstdint>
#include <exception>
#include <optional>
#include <source_location>
#include <type_traits>
#include <utility>

ASYNCIO_BEGIN_NAMESPACE

// The time limit of one body. Belongs to the task that runs the body, and is used once. It is a
// node in the frame where it stands, and allocates nothing unless it is set to a time that has
// passed. (asyncio.Timeout)
class ASYNCIO_API Timeout final : detail::Timer {
  public:
    // Counted from when the body begins.
    explicit Timeout(std::optional<Delay> delay) noexcept : Timeout(delay, std::nullopt) {}
    // A point in time on the loop's clock. (timeout_at)
    static Timeout at(std::optional<TimePoint> when) noexcept {
        return Timeout(std::nullopt, when);
    }
    ~Timeout();

    // When the time is up; nothing if that is never, or if a delay does not count yet.
    // (Timeout.when)
    std::optional<TimePoint> when() const noexcept { return when_; }
    // The time is up then, instead; at once, that is in the next turn, if that has passed already.
    // Throws RuntimeError before the body begins, after it has ended, and once the time is up.
    // (Timeout.reschedule)
    void reschedule(std::optional<TimePoint> when);
    // The time was up before the body ended, whether or not that led to a TimeoutError.
    // (Timeout.expired)
    bool expired() const noexcept { return stage_ == expiring || stage_ == over; }

    Timeout(const Timeout&) = delete;
    Timeout& operator=(const Timeout&) = delete;

    // --- for the library, in this order ---

    Timeout(std::optional<Delay> delay, std::optional<TimePoint> when) noexcept;
    // The time begins to count, for the current task.
    void enter();
    // The body has ended. True if the frame must wait for left() before it may end.
    bool leave() noexcept;
    // Throws TimeoutError if that is what the body's CancelledError becomes. Takes null if the body
    // has a result.
    void finish(const std::exception_ptr& failure);

    // The timer is in the ready queue, from which nothing can be taken: until it runs, later in
    // this turn.
    class Left {
      public:
        using AsyncioAwaiter = void;
        explicit Left(Timeout& timeout) noexcept : timeout_(timeout) {}
        bool await_ready() const noexcept { return false; }
        template <std::derived_from<detail::PromiseBase> Promise>
        void await_suspend(std::coroutine_handle<Promise> frame) const noexcept {
            timeout_.leaving_ = true;
            timeout_.task_->suspend(frame, timeout_);
        }
        void await_resume() const noexcept {}

      private:
        Timeout& timeout_;
    };
    Left left() noexcept { return Left(*this); }

  private:
    enum Stage : std::uint8_t { created, active, expiring, over, exited };

    void run() override;
    void run_in_debug() override;
    void discard() noexcept override { pending_ = false; }
    void due();
    CancelOutcome try_cancel() noexcept override { return CancelOutcome::already_done; }
    void schedule(bool passed);
    void unschedule() noexcept;
    void arm() noexcept;
    void expire();

    std::optional<TimePoint> when_;
    std::int64_t delay_ns_ = 0; // before enter()
    detail::TaskBase* task_ = nullptr;
    Handle soon_; // in place of the timer, if the time has passed when it is set
    unsigned cancelling_ = 0;
    Stage stage_ = created;
    bool relative_ = false;
    bool pending_ = false; // the timer is armed, or in the ready queue
    bool stale_ = false;   // in the ready queue, and not to run there
    bool leaving_ = false;
};

namespace detail {

template <class T, class Body>
Coro<T> run_with_timeout(Timeout* given, std::optional<Delay> delay, std::optional<TimePoint> when,
                         Body body) {
    Timeout own(delay, when);
    Timeout& timeout = given != nullptr ? *given : own;
    timeout.enter();
    std::optional<Result<T>> result;
    try {
        result.emplace(co_await as_result(call_body(body, timeout)));
    } catch (...) { // out of body() itself, if it is no coroutine but gives one
        result.emplace(std::current_exception());
    }
    if (timeout.leave()) co_await timeout.left();
    timeout.finish(result->exception());
    co_return std::move(*result).value();
}

// as_result of something that is known to be no temporary.
template <class A> class ResultOfKept {
  public:
    explicit ResultOfKept(A& kept) noexcept : kept_(kept) {}
    auto operator co_await() && {
        using From = std::conditional_t<std::is_enum_v<A>, A, MoveFrom<A>>;
        using W = TransformedAwaiter<From>;
        return ResultAwaiter<W>(
            [this]() -> W { return PromiseBase().await_transform(From{kept_}); });
    }

  private:
    A& kept_;
};

template <class T, class A>
Coro<T> wait_for_kept(A kept, std::optional<Delay> delay, Location created) {
    if (delay && delay->nanoseconds() <= 0) {
        // What has not begun never begins.
        Future<T> future = start_it(std::move(kept), created);
        if (!future.done()) {
            CancelAndWait cancelled(future.state());
            co_await cancelled.done();
            if (future.cancelled()) {
                static_cast<void>(future.state().retrieve());
                throw TimeoutError();
            }
        }
        future.state().throw_unless_value();
        co_return give_value<T, true>(future.state());
    }
    Timeout timeout(delay);
    timeout.enter();
    std::optional<Result<T>> result;
    try {
        if constexpr (CoroutineFunction<A>) {
            result.emplace(co_await as_result(kept()));
        } else {
            result.emplace(co_await ResultOfKept<A>(kept));
        }
    } catch (...) { // before the await: an empty handle, or out of kept()
        result.emplace(std::current_exception());
    }
    if (timeout.leave()) co_await timeout.left();
    timeout.finish(result->exception());
    co_return std::move(*result).value();
}

} // namespace detail

// Runs body(timeout), or body(), which must return a coroutine, inside the task that awaits, and
// gives its result. Throws TimeoutError if the time was up and the body ended with CancelledError;
// what else the body throws passes, and so does the CancelledError of a cancel from outside. The
// delay counts from the await on; with 0 or less the body runs to its first wait. The Timeout can
// be asked and set to another time by the body. The body is kept until the end. (asyncio.timeout)
template <detail::BodyOf<Timeout> Body>
ASYNCIO_CORO_WRAPPER Coro<detail::BodyResult<Body, Timeout>> timeout(std::optional<Delay> delay,
                                                                     Body&& body) {
    ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(Body);
    return detail::run_with_timeout<detail::BodyResult<Body, Timeout>, std::decay_t<Body>>(
        nullptr, delay, std::nullopt, std::forward<Body>(body));
}

// The same with a Timeout of yours, which must live until the end, to ask whether it has expired().
// Throws RuntimeError if it was used before.
template <detail::BodyOf<Timeout> Body>
ASYNCIO_CORO_WRAPPER Coro<detail::BodyResult<Body, Timeout>> timeout(Timeout& limit, Body&& body) {
    ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(Body);
    return detail::run_with_timeout<detail::BodyResult<Body, Timeout>, std::decay_t<Body>>(
        &limit, std::nullopt, std::nullopt, std::forward<Body>(body));
}

// The same until a point in time on the loop's clock: `loop.time() + 2s`. (asyncio.timeout_at)
template <detail::BodyOf<Timeout> Body>
ASYNCIO_CORO_WRAPPER Coro<detail::BodyResult<Body, Timeout>>
timeout_at(std::optional<TimePoint> when, Body&& body) {
    ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(Body);
    return detail::run_with_timeout<detail::BodyResult<Body, Timeout>, std::decay_t<Body>>(
        nullptr, std::nullopt, when, std::forward<Body>(body));
}

// Awaits a coroutine, a future, a callable that makes a coroutine, or another awaitable inside the
// task that awaits, for no longer than the delay (std::nullopt: for as long as it takes), and gives
// its result. When the time is up, it is cancelled and waited for, and TimeoutError is thrown; if
// it ends with a value nevertheless, that is the result. With a delay of 0 or less, what has not
// begun never begins. To let a task go on, wait for asyncio::shield(task). A cancel of the waiting
// task cancels it. (asyncio.wait_for)
template <detail::Startable A>
ASYNCIO_CORO_WRAPPER Coro<detail::StartedType<A>>
wait_for(A&& awaitable, std::optional<Delay> delay,
         std::source_location created = std::source_location::current()) {
    ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(A);
    return detail::wait_for_kept<detail::StartedType<A>, std::decay_t<A>>(
        std::forward<A>(awaitable), delay, created);
}

// Refused with a sentence.
template <int n = 0> detail::Refused timeout(detail::AnyArgument, detail::AnyArgument = 0) {
    static_assert(detail::never<n>,
                  "timeout takes the time first, then a body: a function, called with a Timeout& "
                  "or nothing, that returns a coroutine; for a coroutine there is "
                  "wait_for(coroutine, 2s)");
    return {};
}
template <int n = 0> detail::Refused timeout_at(detail::AnyArgument, detail::AnyArgument = 0) {
    static_assert(detail::never<n>,
                  "timeout_at takes a time on the loop's clock first, loop.time() + 2s, then a "
                  "body: a function, called with a Timeout& or nothing, that returns a coroutine");
    return {};
}
template <int n = 0> detail::Refused wait_for(detail::AnyArgument, detail::AnyArgument = 0) {
    static_assert(detail::never<n>, "wait_for takes what is awaited, then how long, or "
                                    "std::nullopt: wait_for(coroutine, 2s)");
    return {};
}

ASYNCIO_END_NAMESPACE
