// SPDX-License-Identifier: MIT
// sleep: the simplest thing to wait for, and the one to read first.
//
//     co_await asyncio::sleep(2s);
//     co_await asyncio::sleep(0);                  // lets the others run, for one turn of the loop
//     auto word = co_await asyncio::sleep(1s, "done"s);
#pragma once

#include <asyncio/clock.hpp>
#include <asyncio/coroutine.hpp>
#include <asyncio/detail/task_state.hpp>

#include <concepts>
#include <coroutine>
#include <source_location>
#include <type_traits>
#include <utility>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

// The timer that a sleeping frame holds.
class ASYNCIO_API SleepTimer : public Timer {
  public:
    using AsyncioAwaiter = void;

    bool await_ready() const noexcept { return false; }
    template <std::derived_from<PromiseBase> Promise>
    void await_suspend(std::coroutine_handle<Promise> frame,
                       std::source_location where = std::source_location::current()) noexcept {
        frame.promise().where = where;
        task_ = frame.promise().task;
        if (when_ns <= 0) {
            task_->yield(frame);
        } else {
            begin(frame);
        }
    }
    void await_resume() {
        if (task_->cancel_due()) [[unlikely]] {
            task_->throw_cancelled();
        }
    }
    Result<void> take_result() {
        if (task_->cancel_due()) return Result<void>(task_->take_cancelled());
        return {};
    }

    // The timer is due: one turn for it, and one for the task, as in asyncio, where the timer sets
    // a future. A cancel may have come in the same turn, and has woken the task itself then.
    void run() override {
        if (!task_->is_interrupted()) task_->wake();
    }
    // If it is due already, it stays in the ready queue, and finds the task interrupted.
    CancelOutcome try_cancel() noexcept override {
        if (is_armed()) leave();
        return CancelOutcome::done_now;
    }

  protected:
    explicit SleepTimer(std::int64_t delay_ns) noexcept { when_ns = delay_ns; }
    ~SleepTimer() {
        if (is_armed()) [[unlikely]] { // the frame is destroyed while it sleeps
            leave();
        }
    }
    SleepTimer(const SleepTimer&) = delete;
    SleepTimer& operator=(const SleepTimer&) = delete;

  private:
    void begin(std::coroutine_handle<> frame) noexcept {
        EventLoop& loop = task_->loop();
        const std::int64_t now_ns = loop.clock().now_ns();
        if (__builtin_add_overflow(now_ns, when_ns, &when_ns)) when_ns = INT64_MAX;
        loop.core().timers.arm(*this);
        task_->suspend(frame, *this);
    }
    void leave() noexcept;

    TaskBase* task_;
};

class SleepAwaiter final : public SleepTimer {
  public:
    explicit SleepAwaiter(std::int64_t delay_ns) noexcept : SleepTimer(delay_ns) {}
};

template <class T> class SleepAwaiterWithResult final : public SleepTimer {
  public:
    SleepAwaiterWithResult(std::int64_t delay_ns, T&& result)
        : SleepTimer(delay_ns), result_(std::move(result)) {}
    T await_resume() {
        SleepTimer::await_resume();
        return std::move(result_);
    }
    Result<T> take_result() {
        Result<void> slept = SleepTimer::take_result();
        if (!slept) return Result<T>(slept.exception());
        return Result<T>(std::move(result_));
    }

  private:
    T result_;
};

template <class T> class [[nodiscard("nobody sleeps until it is awaited")]] Sleep {
  public:
    Sleep(std::int64_t delay_ns, T&& result) : delay_ns_(delay_ns), result_(std::move(result)) {}
    SleepAwaiterWithResult<T> operator co_await() { return {delay_ns_, std::move(result_)}; }

  private:
    std::int64_t delay_ns_;
    T result_;
};

// A sleep without a result, as its delay in nanoseconds: see PromiseBase::await_transform for why
// it is an enumeration.
enum class SleepFor : std::int64_t {};
inline SleepAwaiter operator co_await(SleepFor delay_ns) noexcept {
    return SleepAwaiter(static_cast<std::int64_t>(delay_ns));
}

} // namespace detail

// Waits for the delay, never less, from the time of the await on; with 0 or a negative delay for
// exactly one turn of the loop. The delay is a std::chrono::duration, or a number of seconds. Gives
// `result`, if there is one. A cancel ends it at once. Throws ValueError for a delay of NaN.
// (asyncio.sleep)
template <class Rep, class Period>
[[nodiscard("nobody sleeps until it is awaited")]] detail::SleepFor
sleep(std::chrono::duration<Rep, Period> delay) {
    return static_cast<detail::SleepFor>(Delay(delay).nanoseconds());
}
[[nodiscard("nobody sleeps until it is awaited")]] inline detail::SleepFor sleep(Delay delay) {
    return static_cast<detail::SleepFor>(delay.nanoseconds());
}
template <class Seconds>
    requires std::integral<Seconds> || std::floating_point<Seconds>
[[nodiscard("nobody sleeps until it is awaited")]] detail::SleepFor sleep(Seconds delay) {
    return static_cast<detail::SleepFor>(Delay(delay).nanoseconds());
}

template <class T> detail::Sleep<std::decay_t<T>> sleep(Delay delay, T&& result) {
    ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(T);
    return {delay.nanoseconds(), std::decay_t<T>(std::forward<T>(result))};
}

ASYNCIO_END_NAMESPACE
