// SPDX-License-Identifier: MIT
#include <asyncio/as_completed.hpp>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

CompletedQueue::~CompletedQueue() {
    pending_.stop_all();
    done_.delete_all();
}

void CompletedQueue::add(FutureBase& future) {
    auto* watch = new FutureWatch(*this);
    pending_.push(*watch);
    watch->begin(future);
    ++count_;
    ++unclaimed_;
}

AnyFuture CompletedQueue::take() {
    FutureWatch* watch = done_.first();
    if (watch == nullptr) {
        --timeouts_;
        throw TimeoutError();
    }
    AnyFuture future = AnyFuture::of(watch->future());
    done_.remove(*watch);
    delete watch;
    return future;
}

void CompletedQueue::wake_next() noexcept {
    while (first_getter_ != nullptr) {
        Getter& getter = *first_getter_;
        first_getter_ = std::exchange(getter.next_, nullptr);
        if (getter.gate.is_awaited()) {
            getter.gate.open();
            return;
        }
    }
}

CompletedQueue::Getter::Getter(CompletedQueue& queue) noexcept : queue_(queue) {
    Getter** last = &queue.first_getter_;
    while (*last != nullptr) last = &(*last)->next_;
    *last = this;
}

CompletedQueue::Getter::~Getter() {
    for (Getter** place = &queue_.first_getter_; *place != nullptr; place = &(*place)->next_) {
        if (*place != this) continue;
        *place = next_;
        return;
    }
}

void CompletedQueue::future_done(FutureWatch& watch) {
    pending_.remove(watch);
    done_.push(watch);
    if (--count_ == 0) disarm();
    wake_next();
}

void CompletedQueue::future_dropped(FutureWatch& watch) noexcept {
    pending_.remove(watch);
    --count_;
    delete &watch;
}

void CompletedQueue::find_awaiters(Awaiters& awaiters) const {
    for (const Getter* getter = first_getter_; getter != nullptr; getter = getter->next_) {
        getter->gate.find_awaiters(awaiters);
    }
}

void CompletedQueue::timed_out() {
    pending_.stop_all();
    timeouts_ += count_;
    for (std::size_t i = std::exchange(count_, 0); i > 0; --i) wake_next();
}

} // namespace detail
ASYNCIO_END_NAMESPACE
