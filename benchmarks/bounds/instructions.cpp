// SPDX-License-Identifier: MIT
//
// What ./run counts instructions of, under callgrind. Each row does its operation n times and then
// 3n times, and has callgrind write a dump after each: the difference of the two is 2n operations,
// without what it takes to begin and to end. Without valgrind the program does its work and says
// nothing. No clock decides what happens in here, so that the counts are the same each time.
#include <asyncio/asyncio.hpp>
#include <asyncio/testing/virtual_time.hpp>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <string>
#include <valgrind/callgrind.h>
#include <vector>

namespace {

using namespace std::chrono_literals;
using asyncio::Coro;
using asyncio::Task;

using Batch = Coro<> (*)(std::size_t times);

// ---- The operations

Coro<> yield(std::size_t times) {
    for (std::size_t i = 0; i < times; ++i) co_await asyncio::sleep(0);
}

Coro<> yield_until(const bool& stop) {
    while (!stop) co_await asyncio::sleep(0);
}
// 100 tasks, this one included; times / 100 turns.
Coro<> yield_100(std::size_t times) {
    bool stop = false;
    std::vector<Task<>> others;
    others.reserve(99);
    for (int i = 0; i < 99; ++i) others.push_back(asyncio::create_task(yield_until(stop)));
    for (std::size_t i = 0; i < times / 100; ++i) co_await asyncio::sleep(0);
    stop = true;
    for (const Task<>& task : others) co_await task;
}

Coro<> sleep(std::size_t times) {
    for (std::size_t i = 0; i < times; ++i) co_await asyncio::sleep(1s);
}

[[gnu::noinline]] Coro<> nothing() { co_return; }

Coro<> create_await(std::size_t times) {
    for (std::size_t i = 0; i < times; ++i) co_await asyncio::create_task(nothing());
}
asyncio::ContextVar<int> variable{"variable"};
Coro<> create_await_dressed(std::size_t times) {
    variable.set(1);
    for (std::size_t i = 0; i < times; ++i) {
        co_await asyncio::create_task(asyncio::TaskOptions().name("x"), nothing());
    }
}
Coro<> child_await(std::size_t times) {
    for (std::size_t i = 0; i < times; ++i) co_await nothing();
}
Coro<> gather_2(std::size_t times) {
    for (std::size_t i = 0; i < times; ++i) co_await asyncio::gather(nothing(), nothing());
}

Coro<> future_await(std::size_t times) {
    asyncio::EventLoop& loop = asyncio::get_running_loop();
    for (std::size_t i = 0; i < times; ++i) {
        auto future = asyncio::create_future<int>();
        loop.call_soon([&future] { future.set_result(1); });
        co_await future;
    }
}
Coro<> call_soon(std::size_t times) {
    asyncio::EventLoop& loop = asyncio::get_running_loop();
    for (std::size_t i = 0; i < times; ++i) {
        loop.call_soon([] {});
        if (i % 100 == 99) co_await asyncio::sleep(0);
    }
}
Coro<> call_soon_threadsafe(std::size_t times) {
    asyncio::EventLoop& loop = asyncio::get_running_loop();
    for (std::size_t i = 0; i < times; ++i) {
        loop.call_soon_threadsafe([] {});
        if (i % 100 == 99) co_await asyncio::sleep(0);
    }
}

// Armed and cancelled while 1,000 others stay.
Coro<> timer(std::size_t times) {
    asyncio::EventLoop& loop = asyncio::get_running_loop();
    asyncio::TimePoint when = loop.time() + 1h;
    std::vector<asyncio::TimerHandle> others;
    for (int i = 0; i < 1000; ++i) others.push_back(loop.call_at(when + i * 1ms, [] {}));
    when += 2h;
    for (std::size_t i = 0; i < times; ++i) loop.call_at(when += 1ns, [] {}).cancel();
    for (asyncio::TimerHandle& other : others) other.cancel();
    co_return;
}

Coro<> nap() { co_await asyncio::sleep(1h); }
Coro<> outer_nap() { co_await nap(); }
Coro<> nap_without_throwing() {
    static_cast<void>(co_await asyncio::as_result(asyncio::sleep(1h)));
}

// Tasks that sleep, made, cancelled and awaited, 100 at a time.
template <Coro<> (*body)()> Coro<> cancel(std::size_t times) {
    std::vector<Task<>> tasks;
    tasks.reserve(100);
    for (std::size_t i = 0; i < times; i += 100) {
        for (int k = 0; k < 100; ++k) tasks.push_back(asyncio::create_task(body()));
        co_await asyncio::sleep(0);
        for (Task<>& task : tasks) task.cancel();
        while (!tasks.back().done()) co_await asyncio::sleep(0);
        tasks.clear();
    }
}

// ---- The rows

struct Row {
    const char* name;
    Batch batch;
    std::size_t times;
};
constexpr std::array rows{
    Row{"yield_1", yield, 2000},
    Row{"yield_100", yield_100, 20'000},
    Row{"sleep", sleep, 2000},
    Row{"create_await", create_await, 2000},
    Row{"create_await_dressed", create_await_dressed, 2000},
    Row{"child_await", child_await, 2000},
    Row{"gather_2", gather_2, 2000},
    Row{"future_await", future_await, 2000},
    Row{"call_soon", call_soon, 2000},
    Row{"call_soon_threadsafe", call_soon_threadsafe, 2000},
    Row{"timer", timer, 2000},
    Row{"cancel", cancel<nap>, 1000},
    Row{"cancel_2_frames", cancel<outer_nap>, 1000},
    Row{"cancel_as_result", cancel<nap_without_throwing>, 1000},
};

void dump(const Row& row, std::size_t times) {
    const std::string label = std::string(row.name) + ' ' + std::to_string(times);
    CALLGRIND_DUMP_STATS_AT(label.c_str());
}

Coro<> measure(const Row& row) {
    co_await row.batch(row.times); // pools and queues grow
    CALLGRIND_ZERO_STATS;
    co_await row.batch(row.times);
    dump(row, row.times);
    co_await row.batch(3 * row.times);
    dump(row, 3 * row.times);
}

} // namespace

int main() {
    for (const Row& row : rows) {
        asyncio::testing::VirtualClock clock;
        asyncio::run(measure(row), asyncio::RunOptions().clock(clock));
    }
}
