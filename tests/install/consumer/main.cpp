// SPDX-License-Identifier: MIT
//
// What a user's program may look like: exit status 0 if the library does what it says.
#include <asyncio/version.hpp>
#include <iostream>

#if __has_include(<asyncio/asyncio.hpp>)
#include <asyncio/asyncio.hpp>
#include <chrono>
#include <tuple>
using namespace std::chrono_literals;

asyncio::Coro<int> twice(int i) {
    co_await asyncio::sleep(1ms);
    co_return 2 * i;
}
asyncio::Coro<int> async_main() {
    auto both = co_await asyncio::gather(twice(1), twice(20));
    auto& [a, b] = both;
    co_return a + b;
}
static bool works() { return asyncio::run(async_main()) == 42; }
#else
static bool works() { return true; }
#endif

int main() {
    std::cout << "asyncio " << asyncio::version() << '\n';
    return works() ? 0 : 1;
}
