// SPDX-License-Identifier: MIT
// What the loop runs: intrusive nodes, so that queueing a thing never allocates.
//
// A Runnable waits in at most one list at a time, linked by its own `next_link`. An Operation is a
// Runnable that somebody waits for and that can be asked to stop.
#pragma once

#include <asyncio/detail/config.hpp>

#include <string>
#include <utility>

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

// Of the chain that begins here and ends with a null, which is walked.
inline Runnable* last_of(Runnable* first) noexcept {
    while (first->next_link != nullptr) first = first->next_link;
    return first;
}

// A first-in, first-out queue of Runnables; every operation takes constant time.
class ReadyQueue {
  public:
    ReadyQueue() = default;
    ReadyQueue(const ReadyQueue&) = delete;
    ReadyQueue& operator=(const ReadyQueue&) = delete;

    bool empty() const noexcept { return head_ == nullptr; }
    // Null if it is empty.
    Runnable* first() const noexcept { return head_; }

    void push(Runnable& node) noexcept { append(node, node); }

    // Appends the chain first -> ... -> last.
    void append(Runnable& first, Runnable& last) noexcept {
        last.next_link = nullptr;
        *end_ = &first;
        end_ = &last.next_link;
    }

    // Puts the chain first -> ... -> last, which ends there, before all others.
    void prepend(Runnable& first, Runnable& last) noexcept {
        if (head_ == nullptr) end_ = &last.next_link;
        last.next_link = head_;
        head_ = &first;
    }

    Runnable& pop() noexcept {
        Runnable* node = head_;
        head_ = node->next_link;
        if (head_ == nullptr) end_ = &head_;
        return *node;
    }

    // Leaves none. What is taken is a chain from the first, which is null if there is none, to the
    // null after its last.
    Runnable* take_all() noexcept {
        end_ = &head_;
        return std::exchange(head_, nullptr);
    }

  private:
    Runnable* head_ = nullptr;
    Runnable** end_ = &head_; // where the next one is linked
};

} // namespace detail
ASYNCIO_END_NAMESPACE
