// SPDX-License-Identifier: MIT
//
// Hello world on the bare runtime: what the compiler asks at the least, with the standard headers
// that an API in the words of asyncio cannot do without (durations, names, results of gather).
#include "floor.hpp"

#include <chrono>
#include <cstdio>
#include <string>
#include <tuple>
#include <vector>

namespace {
bare::Coro async_main() {
    std::puts("Hello");
    co_await bare::Yield{};
    std::puts("World");
}
} // namespace

int main() { bare::run(async_main()); }
