// SPDX-License-Identifier: MIT
// What waiting for several futures is made of: a gate that the frame waits at, and watches, one for
// each future, that tell when it is done.
#pragma once

#include <asyncio/clock.hpp>
#include <asyncio/coroutine.hpp>
#include <asyncio/detail/frame_pool.hpp>
#include <asyncio/detail/task_state.hpp>

#include <concepts>
#include <coroutine>
#include <source_location>
#include <utility>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

// What a frame waits for until somebody opens it: as a future that nobody else sees.
class ASYNCIO_API Gate final : public Operation {
  public:
    Gate() = default;

    // A frame waits, and has not been cancelled.
    bool is_awaited() const noexcept {
        return task_ != nullptr && !open_ && !task_->is_interrupted();
    }
    bool is_open() const noexcept { return open_; }
    // A task whose frame waits, or that has been woken and has not gone on yet.
    void find_awaiters(Awaiters& awaiters) const {
        if (task_ != nullptr) awaiters.tasks.push_back(task_);
    }
    // The frame goes on in the next turn.
    void open() noexcept {
        if (std::exchange(open_, true)) return;
        if (task_ != nullptr && !task_->is_interrupted()) task_->wake();
    }

    class Awaiter {
      public:
        using AsyncioAwaiter = void;
        explicit Awaiter(Gate& gate) noexcept : gate_(gate) {}

        bool await_ready() const noexcept { return gate_.open_; }
        template <std::derived_from<PromiseBase> Promise>
        void
        await_suspend(std::coroutine_handle<Promise> frame,
                      std::source_location where = std::source_location::current()) const noexcept {
            frame.promise().where = where;
            gate_.task_ = frame.promise().task;
            gate_.task_->suspend(frame, gate_);
        }
        void await_resume() const {
            TaskBase* task = std::exchange(gate_.task_, nullptr);
            if (task != nullptr && task->cancel_due()) task->throw_cancelled();
        }
        Result<void> take_result() const {
            TaskBase* task = std::exchange(gate_.task_, nullptr);
            if (task == nullptr || !task->cancel_due()) return {};
            return Result<void>(task->take_cancelled());
        }

      private:
        Gate& gate_;
    };
    Awaiter operator co_await() noexcept { return Awaiter(*this); }

    CancelOutcome try_cancel() noexcept override { return CancelOutcome::done_now; }
    void run() override {}

  private:
    TaskBase* task_ = nullptr; // while it waits
    bool open_ = false;
};

class FutureWatch;

// Who is told by watches. Whichever of the two is called, the watch is the watcher's to delete.
class ASYNCIO_API FutureWatcher {
  public:
    virtual void future_done(FutureWatch& watch) = 0;
    // The loop was closed instead.
    virtual void future_dropped(FutureWatch& watch) noexcept = 0;
    // Adds on whose behalf it watches.
    virtual void find_awaiters(Awaiters& awaiters) const = 0;

    FutureWatcher(const FutureWatcher&) = delete;
    FutureWatcher& operator=(const FutureWatcher&) = delete;

  protected:
    FutureWatcher() = default;
    ~FutureWatcher() = default;
};

// Tells its watcher that a future is done, in the turn after that (in the next turn if it is done
// already), as a done-callback would. It is not part of the frame that waits, since it may stand in
// the ready queue when that has ended.
class ASYNCIO_API FutureWatch final : public FutureWaiter, public Pooled {
  public:
    explicit FutureWatch(FutureWatcher& watcher) noexcept : watcher_(&watcher) {}
    ~FutureWatch();

    void begin(FutureBase& future) noexcept;
    FutureBase& future() const noexcept { return *future_; }
    void find_awaiters(Awaiters& awaiters) const override;
    // The watcher is not told any more; the watch deletes itself. Requires: begun, and not told
    // yet.
    void stop() noexcept;

    FutureWatch* next = nullptr; // in a WatchList
    FutureWatch* previous = nullptr;

  private:
    void run() override;
    void discard() noexcept override;

    FutureBase* future_ = nullptr;
    FutureWatcher* watcher_; // null once stopped
};

// A watcher's watches, in the order in which they came.
class ASYNCIO_API WatchList {
  public:
    WatchList() = default;
    WatchList(const WatchList&) = delete;
    WatchList& operator=(const WatchList&) = delete;

    bool empty() const noexcept { return first_ == nullptr; }
    FutureWatch* first() const noexcept { return first_; }
    void push(FutureWatch& watch) noexcept;
    void remove(FutureWatch& watch) noexcept;
    // Of watches that have begun and not told yet.
    void stop_all() noexcept;
    // Of watches that have told.
    void delete_all() noexcept;

  private:
    FutureWatch* first_ = nullptr;
    FutureWatch* last_ = nullptr;
};

// Who is told after a while, if it has not ended before. The timer is no part of it, since it may
// stand in the ready queue then.
class ASYNCIO_API Timed {
  public:
    Timed(const Timed&) = delete;
    Timed& operator=(const Timed&) = delete;

  protected:
    Timed() = default;
    ~Timed() { disarm(); }
    void arm(EventLoop& loop, Delay delay);
    void disarm() noexcept;
    // Neither disarmed nor told yet.
    bool is_armed() const noexcept { return timer_ != nullptr; }
    virtual void timed_out() = 0;

  private:
    class Node;
    Node* timer_ = nullptr;
};

// Cancels a future, and opens when that is done, whatever it ended with.
class ASYNCIO_API CancelAndWait final : FutureWatcher {
  public:
    explicit CancelAndWait(FutureBase& future);
    ~CancelAndWait();

    Gate& done() noexcept { return done_; }

  private:
    void future_done(FutureWatch& watch) override;
    void future_dropped(FutureWatch& watch) noexcept override;
    void find_awaiters(Awaiters& awaiters) const override { done_.find_awaiters(awaiters); }

    Gate done_;
    FutureWatch* watch_;
};

} // namespace detail
ASYNCIO_END_NAMESPACE
