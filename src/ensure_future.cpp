// SPDX-License-Identifier: MIT
#include <asyncio/ensure_future.hpp>

#include <algorithm>
#include <functional>
#include <numeric>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

void throw_not_of_loop(const FutureBase& future) {
    throw ValueError("the future belongs to a different loop than the one that is given: await it "
                     "on its own loop; " +
                     future.describe());
}

// Empty if none is.
std::vector<bool> find_repeated(const std::vector<const FutureBase*>& futures) {
    std::vector<std::size_t> order(futures.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
        return futures[a] == futures[b] ? a < b : std::less<>()(futures[a], futures[b]);
    });
    std::vector<bool> repeated;
    for (std::size_t i = 1; i < order.size(); ++i) {
        if (futures[order[i]] != futures[order[i - 1]]) continue;
        repeated.resize(futures.size());
        repeated[order[i]] = true;
    }
    return repeated;
}

} // namespace detail
ASYNCIO_END_NAMESPACE
