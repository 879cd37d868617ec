// SPDX-License-Identifier: MIT
// What the loop runs: intrusive nodes, so that queueing a thing never allocates.
//
// A Runnable waits in at most one list at a time, linked by its own `next_link`. An Operation is a
// Runnable that somebody waits for and that can be asked to stop.
#pragma once

#include <asyncio/detail/config.hpp>

#include <string>

ASYNCIO_BEGIN_NAMESPACE

// What became of a wait that was asked to stop.
enum class CancelOutcome {
    done_now,     // detached from its source: the task may resume with CancelledError
    pending,      // somebody else lets go first, and then resumes the task
    already_done, // the result is there and must not be lost: deliver it, the cancel stays pending
};

namespace detail {

class ASYNCIO_API Runnable {
  public:
    // Called by the loop, once for each time that the node was queued. Lets nothing out but
    // KeyboardInterrupt and SystemExit, which leave run_forever.
    virtual void run() = 0;
    // Taken from the queue without having run: the loop is closing.
    virtual void discard() noexcept {}
    // The loop is closing while this is one of its tasks.
    virtual void abandon() noexcept {}
    // run() in debug mode: what runs code of the user's tells if that took too long.
    virtual void run_in_debug() { run(); }
    // A callback, which a shuffled turn runs after those that were queued before it.
    virtual bool keeps_order() const noexcept { return false; }
    // Of the first of a loop's tasks: all of them with their await chains, for a report.
    virtual std::string describe_tasks() const { return {}; }

    Runnable* next_link; // set when it is queued

    Runnable(const Runnable&) = delete;
    Runnable& operator=(const Runnable&) = delete;

  protected:
    Runnable() = default;
    ~Runnable() = default;
};

class ASYNCIO_API Operation : public Runnable {
  public:
    // Called by Task::cancel on the innermost wait. Never resumes the task by itself.
    virtual CancelOutcome try_cancel() noexcept = 0;

  protected:
    Operation() = default;
    ~Operation() = default;
};

// A first-in, first-out queue of Runnables; every operation takes constant time.
class ReadyQueue {
  public:
    bool empty() const noexcept { return head_ == nullptr; }
    // Meaningful unless empty.
    Runnable* first() const noexcept { return head_; }
    Runnable* last() const noexcept { return tail_; }

    void push(Runnable& node) noexcept { append(node, node); }

    void append(const ReadyQueue& other) noexcept {
        if (!other.empty()) append(*other.head_, *other.tail_);
    }

    // Appends the chain first -> ... -> last.
    void append(Runnable& first, Runnable& last) noexcept {
        last.next_link = nullptr;
        if (head_ == nullptr) {
            head_ = &first;
        } else {
            tail_->next_link = &first;
        }
        tail_ = &last;
    }

    // Puts the chain first -> ... -> last, which ends there, before all others.
    void prepend(Runnable& first, Runnable& last) noexcept {
        last.next_link = head_;
        if (head_ == nullptr) tail_ = &last;
        head_ = &first;
    }

    Runnable& pop() noexcept {
        Runnable* node = head_;
        head_ = node->next_link;
        return *node;
    }

    // Leaves none. What is taken is a chain from first() to the null after its last.
    ReadyQueue take_all() noexcept {
        const ReadyQueue all = *this;
        head_ = nullptr;
        return all;
    }

  private:
    Runnable* head_ = nullptr;
    Runnable* tail_ = nullptr; // meaningful only while head_ is set
};

} // namespace detail
ASYNCIO_END_NAMESPACE
