// SPDX-License-Identifier: MIT
// The one door by which other threads reach a loop: a lock-free queue with many producers and one
// consumer, which tells the producer whether the loop must be woken.
//
// One atomic word holds the whole state: a stack of what has come (newest first), or one of two
// marks. The transitions:
//   empty   -> asleep   the loop, before it blocks in the kernel
//   asleep  -> a node   a producer; this one, and no other, wakes the loop
//   any     -> a node   a producer; the loop is awake and will look
//   any     -> empty    the loop, as it takes all
//   any     -> closed   the loop, as it closes; producers are refused from then on
#pragma once

#include <asyncio/detail/operation.hpp>

#include <atomic>
#include <cstdint>
#include <sched.h>
#include <utility>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

class ThreadDoor {
  public:
    enum class Entered { loop_awake, loop_must_be_woken, refused };

    // Any thread, and in a signal handler that interrupts any of them. Unless refused, the loop
    // owns the node from now on. Who is told that the loop must be woken wakes it, and then says so
    // by woken(), the last time that it touches the loop.
    Entered enter(Runnable& node) noexcept {
        std::uintptr_t seen = state_.load(std::memory_order_relaxed);
        do {
            if (seen == closed) return Entered::refused;
            node.next_link = seen <= closed ? nullptr : reinterpret_cast<Runnable*>(seen);
            // acq_rel: the loop sees what this thread did before it entered.
        } while (!state_.compare_exchange_weak(seen, reinterpret_cast<std::uintptr_t>(&node),
                                               std::memory_order_acq_rel,
                                               std::memory_order_relaxed));
        return seen == asleep ? Entered::loop_must_be_woken : Entered::loop_awake;
    }

    // release: pairs with the acquire in close(), after which the loop may be destroyed.
    void woken() noexcept { wakes_given_.fetch_add(1, std::memory_order_release); }

    // The rest is for the loop's thread.

    bool empty() const noexcept { return state_.load(std::memory_order_relaxed) == none; }

    // False if something has come: the loop must not block.
    bool try_fall_asleep() noexcept {
        std::uintptr_t expected = none;
        if (state_.compare_exchange_strong(expected, asleep, std::memory_order_acq_rel,
                                           std::memory_order_relaxed)) {
            fell_asleep_ = true;
        }
        // Still asleep if the last wait failed; who came since then is going to wake the loop.
        return expected <= asleep;
    }

    // Appends what has come to `queue`, in the order in which it came, and leaves the door open.
    void take_all(ReadyQueue& queue) noexcept { take(queue, none); }

    // The same, and refuses whoever comes later. Waits for a producer that is just about to wake
    // the loop: after the return none of them touches the loop any more.
    void close(ReadyQueue& queue) noexcept {
        take(queue, closed);
        while (wakes_given_.load(std::memory_order_acquire) != wakes_owed_) ::sched_yield();
    }

  private:
    void take(ReadyQueue& queue, std::uintptr_t leave) noexcept {
        const std::uintptr_t seen = state_.exchange(leave, std::memory_order_acq_rel);
        // The first to come while the loop slept owes it a wake-up, which may be still to come.
        if (std::exchange(fell_asleep_, false) && seen > closed) ++wakes_owed_;
        if (seen <= closed) return;
        auto& newest = *reinterpret_cast<Runnable*>(seen);
        Runnable* oldest = &newest;
        for (Runnable* node = newest.next_link; node != nullptr;) { // turn the stack round
            Runnable* next = node->next_link;
            node->next_link = oldest;
            oldest = node;
            node = next;
        }
        queue.append(*oldest, newest);
    }

    static constexpr std::uintptr_t none = 0;
    static constexpr std::uintptr_t asleep = 1;
    static constexpr std::uintptr_t closed = 2;

    std::atomic<std::uintptr_t> state_ = none;
    std::atomic<std::uint32_t> wakes_given_ = 0;
    std::uint32_t wakes_owed_ = 0;
    bool fell_asleep_ = false;
};

} // namespace detail
ASYNCIO_END_NAMESPACE
