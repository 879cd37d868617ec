// SPDX-License-Identifier: MIT
//
// What a user's program may look like: exit status 0 if the library does what it says.
#include <asyncio/asyncio.hpp>
#include <asyncio/version.hpp>
#include <chrono>
#include <iostream>
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

int main() {
    std::cout << "asyncio " << asyncio::version() << '\n';
    return asyncio::run(async_main()) == 42 ? 0 : 1;
}
