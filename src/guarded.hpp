// SPDX-License-Identifier: MIT
// How a callback of the user's is called: in its context, and guarded.
#pragma once

#include <asyncio/events.hpp>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

// Calls invoke() in `context`, which keeps what is set there. What it throws is told to the
// exception handler, in the same context, as failure() describes it; but KeyboardInterrupt and
// SystemExit go on.
template <class Invoke, class Failure>
void call_guarded(EventLoop& loop, OwnContext& context, Invoke invoke, Failure failure) {
    struct Scope {
        LoopCore& core;
        OwnContext& context;
        OwnContext* outer;
        Scope(LoopCore& c, OwnContext& own) noexcept
            : core(c), context(own), outer(std::exchange(c.callback, &own)) {
            core.context.swap(context.variables);
        }
        ~Scope() {
            core.context.swap(context.variables);
            core.callback = outer;
        }
    };
    const Scope scope(loop.core(), context);
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
