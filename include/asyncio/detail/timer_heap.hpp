// SPDX-License-Identifier: MIT
// The loop's timers: an intrusive pairing heap, ordered by deadline and then by the order of
// arming.
//
// A timer is a node inside whatever waits, so arming allocates nothing and cannot fail. Arming and
// cancelling a timer that has no children in the heap (one armed not long ago) take constant time;
// taking the earliest takes O(log n) amortised. A cancelled timer leaves the heap at once.
// Source: Fredman, Sedgewick, Sleator, Tarjan, "The pairing heap", Algorithmica 1 (1986).
#pragma once

#include <asyncio/detail/operation.hpp>

#include <cstdint>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

// While a timer is armed, Runnable::next_link is its right sibling in the heap.
class ASYNCIO_API Timer : public Operation {
  public:
    bool is_armed() const noexcept { return sequence_ != 0; }

    std::int64_t when_ns = 0; // nanoseconds on the loop's clock

    // For TimerHeap.
    Timer* sibling() const noexcept { return static_cast<Timer*>(next_link); }
    bool before(const Timer& other) const noexcept {
        return when_ns < other.when_ns || (when_ns == other.when_ns && sequence_ < other.sequence_);
    }

    std::uint64_t sequence_ = 0; // 0: not in the heap
    // Set when it is armed.
    Timer* child_;
    Timer* previous_; // the left sibling, or the parent of a first child

  protected:
    Timer() = default;
    ~Timer() = default;
};

class TimerHeap {
  public:
    bool empty() const noexcept { return root_ == nullptr; }
    Timer* earliest() const noexcept { return root_; }

    // Requires: not armed. The deadline is timer.when_ns.
    void arm(Timer& timer) noexcept {
        timer.sequence_ = ++armed_;
        timer.child_ = nullptr;
        timer.next_link = nullptr;
        timer.previous_ = nullptr;
        root_ = root_ == nullptr ? &timer : meld(root_, &timer);
    }

    // Requires: armed in this heap.
    void disarm(Timer& timer) noexcept {
        if (&timer == root_) {
            pop();
            return;
        }
        if (timer.previous_->child_ == &timer) {
            timer.previous_->child_ = timer.sibling();
        } else {
            timer.previous_->next_link = timer.next_link;
        }
        if (timer.next_link != nullptr) timer.sibling()->previous_ = timer.previous_;
        timer.sequence_ = 0;
        if (timer.child_ != nullptr) root_ = meld(root_, merge_children(timer.child_));
    }

    // Requires: not empty.
    Timer& pop() noexcept {
        Timer* first = root_;
        root_ = first->child_ == nullptr ? nullptr : merge_children(first->child_);
        first->sequence_ = 0;
        return *first;
    }

  private:
    // Both are roots (no siblings, no parent).
    static Timer* meld(Timer* a, Timer* b) noexcept {
        if (b->before(*a)) {
            Timer* swap = a;
            a = b;
            b = swap;
        }
        b->previous_ = a;
        b->next_link = a->child_;
        if (a->child_ != nullptr) a->child_->previous_ = b;
        a->child_ = b;
        return a;
    }

    // The two passes: meld pairs from left to right, then the winners from right to left.
    static Timer* merge_children(Timer* first) noexcept {
        Timer* winners = nullptr; // linked by next_link, the last pair first
        do {
            Timer* a = first;
            Timer* b = a->sibling();
            first = b == nullptr ? nullptr : b->sibling();
            a->next_link = nullptr;
            if (b != nullptr) {
                b->next_link = nullptr;
                a = meld(a, b);
            }
            a->next_link = winners;
            winners = a;
        } while (first != nullptr);
        Timer* root = winners;
        winners = root->sibling();
        root->next_link = nullptr;
        while (winners != nullptr) {
            Timer* next = winners->sibling();
            winners->next_link = nullptr;
            root = meld(root, winners);
            winners = next;
        }
        root->previous_ = nullptr;
        return root;
    }

    friend struct DebuggerFacts;

    Timer* root_ = nullptr;
    std::uint64_t armed_ = 0;
};

} // namespace detail
ASYNCIO_END_NAMESPACE
