// SPDX-License-Identifier: MIT
//
// Hello world: what it takes to compile, and its size beside the shared library.
#include <asyncio/asyncio.hpp>
#include <cstdio>

asyncio::Coro<> async_main() {
    std::puts("Hello");
    co_await asyncio::sleep(0);
    std::puts("World");
}

int main() { asyncio::run(async_main()); }
