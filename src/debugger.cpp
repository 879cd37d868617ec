// SPDX-License-Identifier: MIT
#include <asyncio/detail/debugger.hpp>
#include <asyncio/events.hpp>

#include <mutex>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {
namespace {

// Held for a few instructions when a loop is made or destroyed.
constinit std::mutex list_lock;
constinit LivingLoop* newest_loop = nullptr;

} // namespace

LivingLoop::LivingLoop() {
    const std::scoped_lock lock(list_lock);
    next_ = newest_loop;
    if (next_ != nullptr) next_->previous_ = this;
    newest_loop = this;
}

LivingLoop::~LivingLoop() {
    const std::scoped_lock lock(list_lock);
    if (next_ != nullptr) next_->previous_ = previous_;
    (previous_ != nullptr ? previous_->next_ : newest_loop) = next_;
}

// Conditionally supported by the standard, and by both our compilers for what has no virtual base.
#pragma GCC diagnostic ignored "-Winvalid-offsetof"

ASYNCIO_KEEP_FOR_DEBUGGER const DebuggerFact DebuggerFacts::loops[] = {
    {"newest_loop", 0, static_cast<const void*>(&newest_loop)},
    {"LivingLoop.next", offsetof(LivingLoop, next_)},
    {"LivingLoop.thread", offsetof(LivingLoop, thread)},
    {"EventLoop.living", offsetof(EventLoop, living_)},
    {"EventLoop.closed", offsetof(EventLoop, closed_)},
    {"EventLoop.own_clock", offsetof(EventLoop, own_clock_)},
    {"EventLoop.tasks", offsetof(EventLoop, core_) + offsetof(LoopCore, tasks)},
    {"EventLoop.current_task", offsetof(EventLoop, core_) + offsetof(LoopCore, current_task)},
    {"EventLoop.timers",
     offsetof(EventLoop, core_) + offsetof(LoopCore, timers) + offsetof(TimerHeap, root_)},
    {"Runnable.next_link", offsetof(Runnable, next_link)},
    {"Timer.child", offsetof(Timer, child_)},
    {"Timer.when_ns", offsetof(Timer, when_ns)},
    {"Timer.sequence", offsetof(Timer, sequence_)},
    {nullptr},
};

} // namespace detail
ASYNCIO_END_NAMESPACE
