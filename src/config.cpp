// SPDX-License-Identifier: MIT
#include <asyncio/detail/config.hpp>
#include <cstdio>
#include <cstdlib>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

void assertion_failed(const char* condition, const char* file, int line) noexcept {
    std::fprintf(stderr, "%s:%d: asyncio: an invariant does not hold: %s\n", file, line, condition);
    std::abort();
}

} // namespace detail
ASYNCIO_END_NAMESPACE
