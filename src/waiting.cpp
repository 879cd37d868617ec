// SPDX-License-Identifier: MIT
#include <asyncio/detail/waiting.hpp>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

FutureWatch::~FutureWatch() {
    if (future_ != nullptr) future_->release();
}

void FutureWatch::begin(FutureBase& future) noexcept {
    future_ = &future;
    future.retain();
    if (future.done()) {
        future.loop().core().ready.push(*this);
    } else {
        future.add_waiter(*this, false);
    }
}

// While a loop closes, a watcher may outlive the task that it watches for.
void FutureWatch::find_awaiters(Awaiters& awaiters) const {
    if (watcher_ != nullptr && !future_->loop().is_closed()) watcher_->find_awaiters(awaiters);
}

void FutureWatch::stop() noexcept {
    watcher_ = nullptr;
    if (future_->done()) return; // in the ready queue
    future_->remove_waiter(*this);
    delete this;
}

void FutureWatch::run() {
    if (watcher_ == nullptr) {
        delete this;
    } else {
        watcher_->future_done(*this);
    }
}

void FutureWatch::discard() noexcept {
    if (watcher_ == nullptr) {
        delete this;
    } else {
        watcher_->future_dropped(*this);
    }
}

void WatchList::push(FutureWatch& watch) noexcept {
    watch.next = nullptr;
    watch.previous = last_;
    (last_ != nullptr ? last_->next : first_) = &watch;
    last_ = &watch;
}

void WatchList::remove(FutureWatch& watch) noexcept {
    (watch.previous != nullptr ? watch.previous->next : first_) = watch.next;
    (watch.next != nullptr ? watch.next->previous : last_) = watch.previous;
}

void WatchList::stop_all() noexcept {
    last_ = nullptr;
    while (first_ != nullptr) std::exchange(first_, first_->next)->stop();
}

void WatchList::delete_all() noexcept {
    last_ = nullptr;
    while (first_ != nullptr) delete std::exchange(first_, first_->next);
}

class Timed::Node final : public Timer, public Pooled {
  public:
    explicit Node(Timed& timed) noexcept : timed_(&timed) {}

    void arm(EventLoop& loop, Delay delay) noexcept {
        timers_ = &loop.core().timers;
        if (__builtin_add_overflow(loop.clock().now_ns(), delay.nanoseconds(), &when_ns)) {
            when_ns = delay.nanoseconds() < 0 ? INT64_MIN : INT64_MAX;
        }
        timers_->arm(*this);
    }
    void stop() noexcept {
        if (is_armed()) {
            timers_->disarm(*this);
            delete this;
        } else {
            timed_ = nullptr; // in the ready queue
        }
    }

  private:
    void run() override {
        Timed* timed = timed_;
        discard();
        if (timed != nullptr) timed->timed_out();
    }
    void discard() noexcept override {
        if (timed_ != nullptr) timed_->timer_ = nullptr;
        delete this;
    }
    CancelOutcome try_cancel() noexcept override { return CancelOutcome::done_now; }

    Timed* timed_;
    TimerHeap* timers_ = nullptr;
};

void Timed::arm(EventLoop& loop, Delay delay) {
    timer_ = new Node(*this);
    timer_->arm(loop, delay);
}

void Timed::disarm() noexcept {
    if (timer_ != nullptr) std::exchange(timer_, nullptr)->stop();
}

CancelAndWait::CancelAndWait(FutureBase& future) : watch_(new FutureWatch(*this)) {
    watch_->begin(future);
    try {
        future.cancel({});
    } catch (...) {
        watch_->stop();
        throw;
    }
}

CancelAndWait::~CancelAndWait() {
    if (watch_ != nullptr) watch_->stop();
}

void CancelAndWait::future_done(FutureWatch& watch) {
    delete &watch;
    watch_ = nullptr;
    done_.open();
}

void CancelAndWait::future_dropped(FutureWatch& watch) noexcept {
    delete &watch;
    watch_ = nullptr;
}

} // namespace detail
ASYNCIO_END_NAMESPACE
