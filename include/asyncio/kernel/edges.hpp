// SPDX-License-Identifier: MIT
// What the kernel has told of a descriptor that is watched at its edges, and who waits for more.
//
// Plain data, which a backend writes without calling anybody: it is on the path of every message.
#pragma once

#include <asyncio/detail/operation.hpp>

#include <cstddef>
#include <cstdint>
#include <utility>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

class Channel;
struct Edges;

enum class Direction : std::uint8_t { read, write };

// Who waits for an edge. When it comes it is queued, and its run() tries again.
class ASYNCIO_API ChannelWaiter : public Operation {
  public:
    bool is_waiting() const noexcept { return state_ != idle; }

    // Ends the wait: what stands in a list leaves it; what stands in the ready queue comes up
    // there, and must find that it has nothing to do. True if it is out already.
    bool stop_waiting() noexcept {
        if (state_ == linked) unlink();
        return state_ == idle;
    }

  protected:
    ChannelWaiter() = default;
    ~ChannelWaiter() {
        if (state_ == linked) [[unlikely]] {
            unlink();
        }
    }

    // Waits for the next edge. Requires: idle, and the channel is open.
    void wait_for(Edges& edges, Direction direction) noexcept;
    // Runs in the next turn, without waiting.
    void wait_a_turn(Channel& channel) noexcept;
    // First in run().
    void begin_run() noexcept { state_ = idle; }
    bool is_queued() const noexcept { return state_ == queued; }

  private:
    friend class Channel;
    friend struct Edges;

    enum State : std::uint8_t { idle, linked, queued };

    ASYNCIO_API void unlink() noexcept;

    Edges* waited_for_; // while linked; then Runnable::next_link is the next one
    ChannelWaiter* previous_;
    State state_ = idle;
    Direction direction_;
};

struct Edges {
    struct List {
        ChannelWaiter* first = nullptr;
        ChannelWaiter* last = nullptr;

        void queue_all(ReadyQueue& ready) noexcept {
            if (first == nullptr) return;
            for (ChannelWaiter* waiter = first; waiter != nullptr;
                 waiter = static_cast<ChannelWaiter*>(waiter->next_link)) {
                waiter->state_ = ChannelWaiter::queued;
            }
            ready.append(*first, *last);
            first = last = nullptr;
        }
    };

    // What is believed: a system call would not block.
    bool readable = true;
    bool writable = true;
    // No more data will come than what is there.
    bool hangup = false;
    // After a read that was not filled up there may be more: the end, of which no other edge tells;
    // or what comes after urgent data, at which a read stops. Always true with `hangup`.
    bool reads_on = false;
    List lists[2]; // by Direction

    // For a backend, which queues what is to run and runs nothing itself.
    void became_readable(ReadyQueue& ready) noexcept {
        readable = true;
        lists[0].queue_all(ready);
    }
    void became_writable(ReadyQueue& ready) noexcept {
        writable = true;
        lists[1].queue_all(ready);
    }
};

inline void ChannelWaiter::wait_for(Edges& edges, Direction direction) noexcept {
    state_ = linked;
    waited_for_ = &edges;
    direction_ = direction;
    Edges::List& list = edges.lists[static_cast<std::size_t>(direction)];
    next_link = nullptr;
    previous_ = list.last;
    if (list.last != nullptr) {
        list.last->next_link = this;
    } else {
        list.first = this;
    }
    list.last = this;
}

} // namespace detail
ASYNCIO_END_NAMESPACE
