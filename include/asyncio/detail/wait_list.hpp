// SPDX-License-Identifier: MIT
// Those who wait for a lock, an event or a queue, as nodes inside the frames that wait.
//
// A Waiter stands for the future that asyncio puts into a deque: it is linked from its await on
// until its task goes on, also when it has been woken or cancelled meanwhile. What the primitives
// decide by (who is first, whether somebody waits) depends on that.
#pragma once

#include <asyncio/coroutine.hpp>
#include <asyncio/detail/task_state.hpp>

#include <concepts>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <source_location>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

class WaitList;

class ASYNCIO_API Waiter : public Operation {
  public:
    using AsyncioAwaiter = void;

    // False, and the await goes on at once to throw RuntimeError, in a loop that is not the list's.
    template <std::derived_from<PromiseBase> Promise>
    bool await_suspend(std::coroutine_handle<Promise> frame,
                       std::source_location where = std::source_location::current()) noexcept {
        frame.promise().where = where;
        return begin(*frame.promise().task, frame, *list_);
    }

    CancelOutcome try_cancel() noexcept override;

    // Of a wait that failed: its list was destroyed meanwhile.
    bool is_orphaned() const noexcept { return list_ == nullptr; }
    // Of a wait that failed: it could not begin, in this loop.
    bool was_refused() const noexcept { return state_ == refused; }

  protected:
    explicit Waiter(WaitList& list) noexcept : list_(&list) {}
    Waiter(const Waiter&) = delete;
    Waiter& operator=(const Waiter&) = delete;
    ~Waiter() {
        if (is_linked()) [[unlikely]] { // the frame is destroyed while it waits
            unlink();
        }
    }

    // `owner` is the list that knows the loop.
    bool begin(TaskBase& task, std::coroutine_handle<> frame, WaitList& owner) noexcept;
    bool has_waited() const noexcept { return state_ != fresh; }
    bool was_woken() const noexcept { return state_ == woken; }
    // After the wait, if it has what it waited for and no cancel came: leaves the list.
    bool leave_if_had() noexcept;
    // After the wait: leaves the list. Gives what the await must throw if the primitive, by this
    // name, is of another loop or was destroyed: then nothing of it may be touched.
    std::exception_ptr leave(const char* primitive);
    // Waits on, as the last of the list. Requires: woken, and called by run().
    void wait_again() noexcept;
    bool is_cancel_due() const noexcept { return task_->cancel_due(); }
    std::exception_ptr take_cancelled() const { return task_->take_cancelled(); }

    void run() override { task_->step(); }
    void run_in_debug() override { task_->step_in_debug(); }

  private:
    friend class WaitList;

    enum State : std::uint8_t { fresh, waiting, woken, cancelled, refused, orphaned };

    bool is_linked() const noexcept {
        return list_ != nullptr && state_ != fresh && state_ != refused;
    }
    void unlink() noexcept;

    WaitList* list_;
    Waiter* next_;
    Waiter* previous_;
    TaskBase* task_;
    State state_ = fresh;
};

// First in, first out. Belongs to the first loop in which somebody had to wait.
class ASYNCIO_API WaitList {
  public:
    WaitList() = default;
    WaitList(const WaitList&) = delete;
    WaitList& operator=(const WaitList&) = delete;
    // Who still waits gets a RuntimeError.
    ~WaitList();

    // Whether there is somebody who was not cancelled.
    bool has_living() const noexcept { return living_ != 0; }
    // Wakes the first who was neither woken nor cancelled; false if there is none.
    bool wake_next() noexcept {
        if (next_to_wake_ == nullptr) return false;
        wake(*next_to_wake_);
        return true;
    }
    // The same if that is the very first.
    void wake_if_first() noexcept {
        if (next_to_wake_ == first_) wake_next();
    }
    // Whether it belongs to this loop, as it does from now on if it had none.
    bool bind(EventLoop& loop) noexcept;
    // The same as an exception, for a primitive of this name.
    void bind_or_throw(EventLoop& loop, const char* primitive);

  private:
    friend class Waiter;

    void wake(Waiter& waiter) noexcept;
    void append(Waiter& waiter) noexcept;
    void remove(Waiter& waiter) noexcept;
    void unlink(Waiter& waiter) noexcept;
    void skip(const Waiter& waiter) noexcept;

    EventLoop* loop_ = nullptr;
    Waiter* first_ = nullptr;
    Waiter* last_ = nullptr;
    Waiter* next_to_wake_ = nullptr; // none before it is waiting
    std::size_t living_ = 0;         // linked and not cancelled
};

// What acquire(), wait() and get() give: no more than who is waited for, since GCC keeps two copies
// of it in the frame. The waiter is made as it is awaited.
template <class Primitive, class Awaiter>
class [[nodiscard("nobody waits, and nothing is had, until it is awaited")]] WaitFor {
  public:
    explicit WaitFor(Primitive& primitive) noexcept : primitive_(&primitive) {}
    Awaiter operator co_await() const noexcept { return Awaiter(*primitive_); }

  private:
    Primitive* primitive_;
};

} // namespace detail
ASYNCIO_END_NAMESPACE
