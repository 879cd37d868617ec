// SPDX-License-Identifier: MIT
// How a callback of the user's is called: in its context, and guarded.
#pragma once

#include <asyncio/events.hpp>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

// A callback of the user's runs in `context`, which keeps what is set there.
class InCallback {
  public:
    InCallback(EventLoop& loop, OwnContext& own) noexcept
        : core_(loop.core()), context_(own), outer_(std::exchange(core_.callback, &own)) {
        core_.context.swap(context_.variables);
    }
    InCallback(const InCallback&) = delete;
    InCallback& operator=(const InCallback&) = delete;
    ~InCallback() {
        core_.context.swap(context_.variables);
        core_.callback = outer_;
    }

  private:
    LoopCore& core_;
    OwnContext& context_;
    OwnContext* outer_;
};

// Calls invoke() in `context`. What it throws is told to the exception handler, in the same
// context, as failure() describes it; but KeyboardInterrupt and SystemExit go on.
template <class Invoke, class Failure>
void call_guarded(EventLoop& loop, OwnContext& context, Invoke invoke, Failure failure) {
    const InCallback scope(loop, context);
    try {
        invoke();
    } catch (const KeyboardInterrupt&) {
        throw;
    } catch (const SystemExit&) {
        throw;
    } catch (...) {
        loop.tell(failure);
    }
}

} // namespace detail
ASYNCIO_END_NAMESPACE
