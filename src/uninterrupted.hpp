// SPDX-License-Identifier: MIT
#pragma once

#include <asyncio/detail/config.hpp>

#include <cerrno>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

// Makes a call again for as long as a signal interrupts it.
template <class Call> auto uninterrupted(Call call) {
    for (;;) {
        const auto result = call();
        if (result >= 0 || errno != EINTR) return result;
    }
}

} // namespace detail
ASYNCIO_END_NAMESPACE
