// SPDX-License-Identifier: MIT
#include <asyncio/sleep.hpp>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

// Out of line: each yield has the destructor that calls it in its frame's way.
void SleepTimer::leave() noexcept { task_->loop().core().timers.disarm(*this); }

} // namespace detail
ASYNCIO_END_NAMESPACE
