// SPDX-License-Identifier: MIT
// What a loop asks of the kernel: to watch descriptors, to wait, to be woken.
#pragma once

#include <asyncio/detail/operation.hpp>
#include <asyncio/kernel/edges.hpp>
#include <asyncio/kernel/system_calls.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>

ASYNCIO_BEGIN_NAMESPACE

// Who is told that a watched descriptor is ready. Queues what is to run, and runs nothing itself;
// may be told again before that has run.
class ASYNCIO_API Watcher {
  public:
    virtual void descriptor_ready(detail::ReadyQueue& ready) noexcept = 0;

  protected:
    ~Watcher() = default;
};

// One way to wait for descriptors. Belongs to one loop; everything but wake() is called on the
// loop's thread only. Errors of the system are thrown as std::system_error.
class ASYNCIO_API Backend {
  public:
    static constexpr std::int64_t no_timeout = -1;

    virtual ~Backend();

    // "epoll"
    virtual const char* name() const noexcept = 0;

    // Who is told when a descriptor can be read, and when it can be written; null: nobody. Told
    // again at each wait() for as long as it holds. Both null: the descriptor is forgotten, which
    // never throws.
    virtual void watch(int descriptor, Watcher* reader, Watcher* writer) = 0;

    // Watches both directions at their edges, by one registration until detach(): what is not used
    // up is not told of again. A descriptor is either attached or watched, not both: throws
    // RuntimeError then, and std::system_error if the kernel cannot watch it.
    virtual void attach(int descriptor, detail::Edges& edges) = 0;
    // Before the descriptor is closed. Requires: attached.
    virtual void detach(int descriptor) noexcept = 0;

    const SystemCalls& calls() const noexcept { return calls_; }

    // True if a descriptor is watched, other than the loop's own for wake().
    bool watches_any() const noexcept { return watched_count_ != 0; }

    // Waits until a watched descriptor is ready, wake() was called, a signal came, or `timeout_ns`
    // have passed (0: does not wait; no_timeout: no bound); never earlier without one of these
    // reasons. Gives what tell() is to be called with next, before anything else is waited for.
    // Inline for the two that a busy loop makes, since each call is dear.
    int wait(std::int64_t timeout_ns) {
        if (timeout_ns <= 0) [[likely]]
            return poll_(poll_descriptor_, poll_events_, poll_capacity_, timeout_ns < 0 ? -1 : 0);
        return wait_for(timeout_ns);
    }
    // Tells those who watch: for each descriptor who reads, then who writes. Throws if the wait has
    // failed; errno must still be as it was.
    void tell(int found, detail::ReadyQueue& ready) {
        if (found != 0) tell_each(found, ready);
    }
    void wait(std::int64_t timeout_ns, detail::ReadyQueue& ready) { tell(wait(timeout_ns), ready); }

    // Any thread, and in a signal handler: makes a wait() that is under way, or the next one,
    // return. Keeps to what signal-safety(7) allows; may change errno.
    virtual void wake() noexcept = 0;

  protected:
    explicit Backend(const SystemCalls& calls) noexcept : calls_(calls) {}

    // For a time, which is more than 0.
    virtual int wait_for(std::int64_t timeout_ns) = 0;
    virtual void tell_each(int found, detail::ReadyQueue& ready) = 0;

    const SystemCalls& calls_;
    std::size_t watched_count_ = 0;
    // epoll_wait, and what it is called with.
    int (*poll_)(int, epoll_event*, int, int) = nullptr;
    epoll_event* poll_events_ = nullptr;
    int poll_descriptor_ = -1;
    int poll_capacity_ = 0;
};

// epoll, on every Linux. Throws std::system_error if the process has no descriptors left.
ASYNCIO_API std::unique_ptr<Backend>
make_epoll_backend(const SystemCalls& calls = SystemCalls::real());

ASYNCIO_END_NAMESPACE
