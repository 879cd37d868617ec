// SPDX-License-Identifier: MIT
//
// Tells the row `start` when the first callback of a fresh process runs.
#include "harness.hpp"

#include <asyncio/asyncio.hpp>

asyncio::Coro<> async_main() {
    bench::report_first_callback();
    co_return;
}

int main() { asyncio::run(async_main()); }
