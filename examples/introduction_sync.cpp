// SPDX-License-Identifier: MIT
//
// The introduction without asyncio: the second task starts when the first has ended.
#include <chrono>
#include <iostream>
#include <thread>
using namespace std::chrono_literals;

static void task(int i) {
    std::cout << "Start " << i << '\n';
    std::this_thread::sleep_for(2s);
    std::cout << "End " << i << '\n';
}

int main() {
    task(1);
    task(2);
} // Start 1, End 1, Start 2, End 2, in 4 seconds
