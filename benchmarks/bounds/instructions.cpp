// SPDX-License-Identifier: MIT
//
// What ./run counts instructions of, under callgrind. Each row does its operation n times and then
// 3n times, and has callgrind write a dump after each: the difference of the two is 2n operations,
// without what it takes to begin and to end. Without valgrind the program does its work and says
// nothing. No clock decides what happens in here, so that the counts are the same each time; nor
// does the network, whose loopback has delivered what is sent when send() returns.
#include <asyncio/asyncio.hpp>
#include <asyncio/testing/virtual_time.hpp>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
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

// ---- Locks, events and queues: who waits is waiting already when it gets what it waits for

template <class Primitive> Coro<> hold(Primitive& primitive, std::size_t times) {
    for (std::size_t i = 0; i < times; ++i) {
        co_await primitive.acquire();
        primitive.release();
    }
}
// Of one task to the other and back.
template <class Primitive> Coro<> hand_over(std::size_t times) {
    Primitive primitive;
    co_await primitive.acquire();
    auto one = asyncio::create_task(hold(primitive, times / 2));
    auto other = asyncio::create_task(hold(primitive, times / 2));
    co_await asyncio::sleep(0);
    primitive.release();
    co_await one;
    co_await other;
}
// Nobody else wants it.
Coro<> lock_free(std::size_t times) {
    asyncio::Lock lock;
    for (std::size_t i = 0; i < times; ++i) auto held = co_await lock.scoped();
}

Coro<> answer(asyncio::Event& mine, asyncio::Event& other, std::size_t times) {
    for (std::size_t i = 0; i < times; ++i) {
        co_await mine.wait();
        mine.clear();
        other.set();
    }
}
Coro<> event_wake(std::size_t times) {
    asyncio::Event ping;
    asyncio::Event pong;
    auto other = asyncio::create_task(answer(pong, ping, times / 2));
    ping.set();
    co_await answer(ping, pong, times / 2);
    co_await other;
}

Coro<> produce(asyncio::Queue<int>& queue, std::size_t times) {
    for (std::size_t i = 0; i < times; ++i) co_await queue.put(1);
}
// A message, put and got.
template <std::size_t maxsize> Coro<> queue(std::size_t times) {
    asyncio::Queue<int> queue(maxsize);
    auto producer = asyncio::create_task(produce(queue, times));
    for (std::size_t i = 0; i < times; ++i) co_await queue.get();
    co_await producer;
}

// ---- Limits and groups

Coro<> timeout(std::size_t times) {
    for (std::size_t i = 0; i < times; ++i) co_await asyncio::timeout(10s, nothing);
}
Coro<> wait_for(std::size_t times) {
    for (std::size_t i = 0; i < times; ++i) co_await asyncio::wait_for(nothing(), 10s);
}
constexpr std::size_t children = 100;
Coro<> fill(asyncio::TaskGroup& group) {
    for (std::size_t i = 0; i < children; ++i) group.create_task(nothing());
    co_return;
}
Coro<> task_group(std::size_t times) {
    for (std::size_t i = 0; i < times / children; ++i) co_await asyncio::task_group(fill);
}
Coro<> gather(std::size_t times) {
    for (std::size_t i = 0; i < times / children; ++i) {
        std::vector<Coro<>> many;
        many.reserve(children);
        for (std::size_t k = 0; k < children; ++k) many.push_back(nothing());
        co_await asyncio::gather(std::move(many));
    }
}

// ---- Messages of 64 bytes through the kernel, there and back: each is read and written once

// With room for more: a read that is filled up does not say that there is no more.
using Room = std::array<char, 1024>;
constexpr std::string_view message =
    "----------------------------------------------------------------";

Coro<> echo(asyncio::StreamReader reader, asyncio::StreamWriter writer) {
    Room room;
    while (const std::size_t length = co_await reader.read_into(room)) {
        writer.write(std::string_view(room.data(), length));
        co_await writer.drain();
    }
}
Coro<> stream_message(std::size_t times) {
    auto server = co_await asyncio::start_server(echo, "127.0.0.1", 0);
    auto streams = co_await asyncio::open_connection("127.0.0.1", server.sockets().front().port());
    auto& [reader, writer] = streams;
    Room room;
    for (std::size_t i = 0; i < times / 2; ++i) {
        writer.write(message);
        co_await writer.drain();
        co_await reader.read_into(room);
    }
    writer.close();
    co_await writer.wait_closed();
    server.close();
    co_await server.wait_closed();
}

Coro<> echo_by_socket(const asyncio::Socket& socket) {
    Room room;
    while (const std::size_t length = co_await asyncio::sock_recv_into(socket, room))
        co_await asyncio::sock_sendall(socket, std::string_view(room.data(), length));
}
Coro<> socket_message(std::size_t times) {
    asyncio::Socket listener(AF_INET, SOCK_STREAM);
    listener.bind(asyncio::Address("127.0.0.1", 0));
    listener.listen();
    asyncio::Socket client(AF_INET, SOCK_STREAM);
    co_await asyncio::sock_connect(client, listener.getsockname());
    const asyncio::Accepted server = co_await asyncio::sock_accept(listener);
    auto task = asyncio::create_task(echo_by_socket(server.socket));
    Room room;
    for (std::size_t i = 0; i < times / 2; ++i) {
        co_await asyncio::sock_sendall(client, message);
        co_await asyncio::sock_recv_into(client, room);
    }
    client.close();
    co_await task;
}

// ---- The rows

struct Row {
    const char* name;
    Batch batch;
    std::size_t times;
    // Not in virtual time: what a loop does that waits for the kernel is counted too.
    bool waits_for_the_kernel = false;
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
    Row{"lock_free", lock_free, 2000},
    Row{"lock_handover", hand_over<asyncio::Lock>, 2000},
    Row{"semaphore_handover", hand_over<asyncio::Semaphore>, 2000},
    Row{"event_wake", event_wake, 2000},
    Row{"queue_1024", queue<1024>, 4096},
    Row{"queue_1", queue<1>, 2000},
    Row{"timeout", timeout, 2000},
    Row{"wait_for", wait_for, 2000},
    Row{"task_group_child", task_group, 2000},
    Row{"gather_child", gather, 2000},
    Row{"cancel", cancel<nap>, 1000},
    Row{"cancel_2_frames", cancel<outer_nap>, 1000},
    Row{"cancel_as_result", cancel<nap_without_throwing>, 1000},
    Row{"stream_message", stream_message, 2000, true},
    Row{"socket_message", socket_message, 2000, true},
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
        if (row.waits_for_the_kernel) {
            asyncio::run(measure(row));
            continue;
        }
        asyncio::testing::VirtualClock clock;
        asyncio::run(measure(row), asyncio::RunOptions().clock(clock));
    }
}
