// SPDX-License-Identifier: MIT
// What the kernel has told of a descriptor that is watched at its edges, and who waits for more.
//
// Plain data, which a backend writes without calling anybody: it is on the path of every message.
#pragma once

#include <asyncio/detail/operation.hpp>

#include <cstddef>
#include <cstdint>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

class Channel;
struct Edges;

enum class Direction : std::uint8_t { read, write };

// Who waits for an edge. When it comes it is queued, and its run() tries again. Whoever owns one
// that may still wait calls stop_waiting() before it is gone.
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
    explicit ChannelWaiter(Edges& edges) noexcept : edges_(&edges) {}
    ~ChannelWaiter() = default;

    // Waits for the next edge. Requires: idle, and the channel is open.
    void wait_for(Direction direction) noexcept;
    // Runs in the next turn, without waiting.
    void wait_a_turn() noexcept;
    // First in run().
    void begin_run() noexcept { state_ = idle; }
    bool is_queued() const noexcept { return state_ == queued; }

    Edges* const edges_; // those of its channel

  private:
    friend class Channel;
    friend struct Edges;

    enum State : std::uint8_t { idle, linked, queued };

    void unlink() noexcept;

    // While linked; Runnable::next_link is the next one then. Of the first: the last.
    ChannelWaiter* previous_;
    State state_ = idle;
    Direction direction_ = Direction::read; // while linked
};

struct Edges {
    struct List {
        ChannelWaiter* first = nullptr;

        void queue_all(ReadyQueue& ready) noexcept {
            if (first == nullptr) return;
            for (ChannelWaiter* waiter = first; waiter != nullptr;
                 waiter = static_cast<ChannelWaiter*>(waiter->next_link)) {
                waiter->state_ = ChannelWaiter::queued;
            }
            ready.append(*first, *first->previous_);
            first = nullptr;
        }
    };

    // What `flags` says. The first two are those of poll(2), so that what a backend is told can be
    // taken away in one piece.
    static constexpr std::uint32_t unreadable = 1; // a system call is believed to block
    static constexpr std::uint32_t unwritable = 4;
    static constexpr std::uint32_t hangup = 1 << 4; // no more data will come than what is there
    // After a read that was not filled up there may be more: the end, of which no other edge tells;
    // or what comes after urgent data, at which a read stops. Always set with `hangup`.
    static constexpr std::uint32_t reads_on = 1 << 5;
    // From here on they are the channel's owner's, who can ask for several at once.
    static constexpr unsigned first_of_owner = 8;

    std::uint32_t flags = 0;
    List lists[2]; // by Direction

    bool has(std::uint32_t any) const noexcept { return (flags & any) != 0; }
    void set(std::uint32_t all) noexcept { flags |= all; }
    void clear(std::uint32_t all) noexcept { flags &= ~all; }

    // For a backend, which queues what is to run and runs nothing itself.
    void became_readable(ReadyQueue& ready) noexcept {
        clear(unreadable);
        lists[0].queue_all(ready);
    }
    void became_writable(ReadyQueue& ready) noexcept {
        clear(unwritable);
        lists[1].queue_all(ready);
    }
};

inline void ChannelWaiter::wait_for(Direction direction) noexcept {
    state_ = linked;
    direction_ = direction;
    Edges::List& list = edges_->lists[static_cast<std::size_t>(direction)];
    next_link = nullptr;
    if (list.first == nullptr) [[likely]] {
        list.first = this;
    } else {
        list.first->previous_->next_link = this;
        previous_ = list.first->previous_;
    }
    list.first->previous_ = this;
}

} // namespace detail
ASYNCIO_END_NAMESPACE
