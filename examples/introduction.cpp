// SPDX-License-Identifier: MIT
//
// The introduction with asyncio: while one task waits, the other runs, on the same thread.
#include <asyncio/asyncio.hpp>
#include <iostream>
using namespace std::chrono_literals;

asyncio::Coro<> task(int i) {
    std::cout << "Start " << i << '\n';
    co_await asyncio::sleep(2s);
    std::cout << "End " << i << '\n';
}
asyncio::Coro<> async_main() { co_await asyncio::gather(task(1), task(2)); }

int main() { asyncio::run(async_main()); } // Start 1, Start 2, End 1, End 2, in 2 seconds
