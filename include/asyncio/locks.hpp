// SPDX-License-Identifier: MIT
// Lock, Event, Condition, Semaphore, BoundedSemaphore and Barrier: tasks of one loop wait for each
// other. No threads: nothing here may be touched by another one.
//
//     asyncio::Lock lock;
//     {
//         auto held = co_await lock.scoped();     // async with lock:
//         co_await change_the_account();
//     }                                           // released, however the scope is left
//
// Who comes first is served first, and who has to wait waits inside its own frame, so that waiting
// allocates nothing. A task that is cancelled while it waits gets nothing, and what it was about to
// get goes to the next. Each belongs to the loop in which somebody first had to wait for it: a wait
// in another loop throws RuntimeError. It must stay where it is until the tasks that use it have
// ended; one that is destroyed before throws RuntimeError to those who wait.
#pragma once

#include <asyncio/coroutine.hpp>
#include <asyncio/detail/temporaries.hpp>
#include <asyncio/detail/wait_list.hpp>
#include <asyncio/exceptions.hpp>
#include <asyncio/result.hpp>

#include <concepts>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <source_location>
#include <type_traits>
#include <utility>

ASYNCIO_BEGIN_NAMESPACE

class Lock;
class Event;
class Semaphore;
class Condition;

// The barrier was aborted, or reset while somebody waited. (asyncio.BrokenBarrierError)
class ASYNCIO_API BrokenBarrierError : public RuntimeError {
  public:
    using RuntimeError::RuntimeError;
    BrokenBarrierError(const BrokenBarrierError&) noexcept;
    BrokenBarrierError& operator=(const BrokenBarrierError&) noexcept;
    ~BrokenBarrierError() override;
};

namespace detail {

// Waits for a Lock, a permit of a Semaphore or an Event. The primitive says by try_now() that there
// is nothing to wait for, and is told by after_wait() how a wait has ended.
template <class Primitive> class Acquire final : public Waiter {
  public:
    explicit Acquire(Primitive& primitive) noexcept
        : Waiter(primitive.waiters_), primitive_(&primitive) {}
    bool await_ready() const noexcept { return primitive_->try_now(); }
    void await_resume() {
        if (has_waited()) finish();
    }
    Result<void> take_result();

  private:
    void finish();
    std::exception_ptr take_failure();
    Primitive* primitive_;
};

// The waiter for a notify().
class ConditionWait final : public Waiter {
  public:
    explicit ConditionWait(WaitList& waiters) noexcept : Waiter(waiters) {}
    bool await_ready() const noexcept { return false; }
    void await_resume() { take_result().value(); }
    Result<void> take_result();
};

[[noreturn]] ASYNCIO_API void throw_not_held();
// A scope ended that cannot give back what it held.
ASYNCIO_API ASYNCIO_COLD void report_release_failed() noexcept;

} // namespace detail

// Holds a Lock, or one permit of a Semaphore, until the end of its scope. (async with)
template <class Primitive> class [[nodiscard("it is released at once unless kept")]] Scoped {
  public:
    Scoped(Scoped&& other) noexcept : primitive_(std::exchange(other.primitive_, nullptr)) {}
    Scoped& operator=(Scoped&&) = delete;
    // If it cannot be released, since somebody has done so already, the exception handler is told.
    ~Scoped() {
        if (primitive_ == nullptr) return;
        try {
            primitive_->release();
        } catch (...) {
            detail::report_release_failed();
        }
    }
    // Before the end of the scope. Throws RuntimeError if it holds nothing any more.
    void release() {
        if (primitive_ == nullptr) detail::throw_not_held();
        std::exchange(primitive_, nullptr)->release();
    }
    bool held() const noexcept { return primitive_ != nullptr; }

    // For the library: it was acquired.
    explicit Scoped(Primitive& primitive) noexcept : primitive_(&primitive) {}

  private:
    Primitive* primitive_;
};

namespace detail {

template <class Primitive> class ScopedAcquire {
  public:
    using AsyncioAwaiter = void;

    explicit ScopedAcquire(Primitive& primitive) noexcept
        : acquire_(primitive), primitive_(&primitive) {}
    bool await_ready() const noexcept { return acquire_.await_ready(); }
    template <std::derived_from<PromiseBase> Promise>
    bool await_suspend(std::coroutine_handle<Promise> frame,
                       std::source_location where = std::source_location::current()) noexcept {
        return acquire_.await_suspend(frame, where);
    }
    Scoped<Primitive> await_resume() {
        acquire_.await_resume();
        return Scoped<Primitive>(*primitive_);
    }
    Result<Scoped<Primitive>> take_result() {
        Result<void> acquired = acquire_.take_result();
        if (!acquired) return Result<Scoped<Primitive>>(acquired.exception());
        return Result<Scoped<Primitive>>(Scoped<Primitive>(*primitive_));
    }

  private:
    Acquire<Primitive> acquire_;
    Primitive* primitive_;
};

template <class Primitive> using WaitToAcquire = WaitFor<Primitive, Acquire<Primitive>>;
template <class Primitive> using WaitForScope = WaitFor<Primitive, ScopedAcquire<Primitive>>;

} // namespace detail

// One task at a time. Not recursive: a task that acquires it twice waits for itself.
// (asyncio.Lock)
class ASYNCIO_API Lock {
  public:
    Lock() = default;

    // Waits until nobody holds it, and those who came before have had it. A cancel ends the wait,
    // with nothing acquired. (Lock.acquire)
    detail::WaitToAcquire<Lock> acquire() noexcept { return detail::WaitToAcquire<Lock>(*this); }
    // The same, and gives what releases it at the end of the scope: `auto held = co_await
    // lock.scoped();` (async with lock)
    detail::WaitForScope<Lock> scoped() noexcept { return detail::WaitForScope<Lock>(*this); }
    // The first who waits goes on in the next turn, and no other comes in between. Any task may
    // release it. Throws RuntimeError if it is not locked. (Lock.release)
    void release();
    // False also in the turn in which it goes from one task to the next. (Lock.locked)
    bool locked() const noexcept { return locked_; }

  private:
    friend class detail::Acquire<Lock>;
    bool try_now() noexcept {
        if (locked_ || waiters_.has_living()) return false;
        locked_ = true;
        return true;
    }
    void after_wait(bool, bool cancelled) noexcept {
        if (!cancelled) {
            locked_ = true;
        } else if (!locked_) { // it may have been this task's turn
            waiters_.wake_if_first();
        }
    }

    detail::WaitList waiters_;
    bool locked_ = false;
};

// A flag that tasks can wait for. (asyncio.Event)
class ASYNCIO_API Event {
  public:
    Event() = default;

    // Waits until the flag is set; who waits when it is set goes on in the next turn, also if it is
    // cleared before. (Event.wait)
    detail::WaitToAcquire<Event> wait() noexcept { return detail::WaitToAcquire<Event>(*this); }
    // (Event.set, Event.clear, Event.is_set)
    void set() noexcept {
        is_set_ = true;
        while (waiters_.wake_next()) {
        }
    }
    void clear() noexcept { is_set_ = false; }
    bool is_set() const noexcept { return is_set_; }

  private:
    friend class detail::Acquire<Event>;
    bool try_now() const noexcept { return is_set_; }
    void after_wait(bool, bool) const noexcept {}

    detail::WaitList waiters_;
    bool is_set_ = false;
};

// As many permits as it was made with, and one more for each release that was not preceded by an
// acquire. (asyncio.Semaphore)
class ASYNCIO_API Semaphore {
  public:
    // Throws ValueError for a negative value.
    explicit Semaphore(std::ptrdiff_t value = 1) : Semaphore(value, PTRDIFF_MAX) {}

    // Takes a permit; waits until there is one, and those who came before have had theirs. A cancel
    // ends the wait, with nothing taken. (Semaphore.acquire)
    detail::WaitToAcquire<Semaphore> acquire() noexcept {
        return detail::WaitToAcquire<Semaphore>(*this);
    }
    // The same, and gives what releases it at the end of the scope. (async with semaphore)
    detail::WaitForScope<Semaphore> scoped() noexcept {
        return detail::WaitForScope<Semaphore>(*this);
    }
    // Gives a permit to the first who waits, who goes on in the next turn. (Semaphore.release)
    void release();
    // Whether an acquire would have to wait: there is no permit, or somebody came before.
    // (Semaphore.locked)
    bool locked() const noexcept { return value_ == 0 || waiters_.has_living(); }

  protected:
    Semaphore(std::ptrdiff_t value, std::ptrdiff_t bound);

  private:
    friend class detail::Acquire<Semaphore>;
    bool try_now() noexcept {
        if (locked()) return false;
        --value_;
        return true;
    }
    void after_wait(bool has_permit, bool cancelled) noexcept {
        if (cancelled && has_permit) ++value_;
        // Others may have had to wait only because somebody came before them.
        while (value_ > 0 && wake_next()) {
        }
    }
    // Whoever is woken has the permit already, so that nobody can come in between.
    bool wake_next() noexcept {
        if (!waiters_.wake_next()) return false;
        --value_;
        return true;
    }

    detail::WaitList waiters_;
    std::ptrdiff_t value_;
    std::ptrdiff_t bound_;
};

// A Semaphore whose release() throws ValueError if it has all its permits already.
// (asyncio.BoundedSemaphore)
class ASYNCIO_API BoundedSemaphore : public Semaphore {
  public:
    explicit BoundedSemaphore(std::ptrdiff_t value = 1) : Semaphore(value, value) {}
};

// A lock, and tasks that hold it in turn, waiting for what the others change.
//
//     auto held = co_await condition.scoped();
//     co_await condition.wait_for([&] { return !jobs.empty(); });
//
// (asyncio.Condition)
class ASYNCIO_API Condition {
  public:
    // With a lock of its own.
    Condition() = default;
    // With this lock, which must outlive it.
    explicit Condition(Lock& lock) noexcept : lock_(&lock) {}
    Condition(const Condition&) = delete;
    Condition& operator=(const Condition&) = delete;

    // The lock's. (Condition.acquire, async with condition, Condition.release, Condition.locked)
    detail::WaitToAcquire<Lock> acquire() noexcept { return lock_->acquire(); }
    detail::WaitForScope<Lock> scoped() noexcept { return lock_->scoped(); }
    void release() { lock_->release(); }
    bool locked() const noexcept { return lock_->locked(); }

    // Releases the lock, waits for a notify(), and has the lock again when it goes on, also when it
    // throws: a cancel ends the wait for the notify, but not the one for the lock. May return
    // without a notify, so look again at what you wait for. Throws RuntimeError if the lock is not
    // held. (Condition.wait)
    ASYNCIO_CORO_WRAPPER Coro<> wait() { return wait_unless_destroyed(nullptr); }
    // Waits until predicate() holds; it is asked at once, and after each notify(). Gives what it
    // returned. (Condition.wait_for)
    template <class Predicate>
        requires std::is_invocable_v<std::decay_t<Predicate>&>
    ASYNCIO_CORO_WRAPPER auto wait_for(Predicate&& predicate) {
        ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(Predicate);
        return wait_until<std::decay_t<Predicate>>(std::forward<Predicate>(predicate));
    }
    // Tells the first `count` who wait; each goes on as it gets the lock. Throws RuntimeError if
    // the lock is not held. (Condition.notify, Condition.notify_all)
    void notify(std::size_t count = 1);
    void notify_all() { notify(SIZE_MAX); }

  private:
    friend class Barrier;

    // Sets *destroyed if `this` is gone when it throws.
    Coro<> wait_unless_destroyed(bool* destroyed);
    template <class Predicate>
    Coro<std::remove_cvref_t<std::invoke_result_t<Predicate&>>> wait_until(Predicate predicate) {
        auto result = predicate();
        while (!result) {
            co_await wait();
            result = predicate();
        }
        co_return result;
    }
    void notify_any(std::size_t count) noexcept;

    Lock own_;
    Lock* lock_ = &own_;
    detail::WaitList waiters_;
};

// Tasks that wait until there are enough of them, again and again. (asyncio.Barrier)
class ASYNCIO_API Barrier {
  public:
    // Throws ValueError unless there is at least one party.
    explicit Barrier(std::ptrdiff_t parties);

    // Waits until `parties` tasks do; the last does not wait. Gives each another number from 0 on,
    // in the order in which they came. Who comes while the tasks of the last time have not all gone
    // on waits for these first. A cancel ends the wait, and the others wait on. Throws
    // BrokenBarrierError once it is aborted, or if it is reset meanwhile. (Barrier.wait, async with
    // barrier)
    Coro<std::ptrdiff_t> wait();
    // Throws BrokenBarrierError to those who wait; the barrier is as new then, also if it was
    // aborted. (Barrier.reset)
    Coro<> reset();
    // Throws BrokenBarrierError to those who wait, and to all who come until it is reset.
    // (Barrier.abort)
    Coro<> abort();

    // (Barrier.parties, Barrier.n_waiting, Barrier.broken)
    std::ptrdiff_t parties() const noexcept { return parties_; }
    std::ptrdiff_t n_waiting() const noexcept { return state_ == filling ? count_ : 0; }
    bool broken() const noexcept { return state_ == is_broken; }

  private:
    enum State : std::uint8_t { filling, draining, resetting, is_broken };

    void leave() noexcept;

    Condition condition_;
    std::ptrdiff_t parties_;
    std::ptrdiff_t count_ = 0; // inside wait()
    State state_ = filling;
};

namespace detail {

extern template class ASYNCIO_API Acquire<Lock>;
extern template class ASYNCIO_API Acquire<Semaphore>;
extern template class ASYNCIO_API Acquire<Event>;

} // namespace detail
ASYNCIO_END_NAMESPACE
