// SPDX-License-Identifier: MIT
//
// The rows of the library, each under the name of its floor in floor.cpp. What is measured is
// written as a user would write it, against the public header alone.
#include "harness.hpp"

#include <asyncio/asyncio.hpp>
#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
using asyncio::Coro;
using asyncio::Task;
using bench::Measurement;
using bench::Samples;

// Keeps an idle socket registered with the running loop.
class RegisteredSocket {
  public:
    RegisteredSocket() : loop_(asyncio::get_running_loop()) {
        loop_.add_reader(socket_.fd(), [] {});
    }
    ~RegisteredSocket() { loop_.remove_reader(socket_.fd()); }
    RegisteredSocket(const RegisteredSocket&) = delete;
    RegisteredSocket& operator=(const RegisteredSocket&) = delete;

  private:
    asyncio::EventLoop& loop_;
    bench::IdleSocket socket_;
};

// Keeps a timer armed that does not fire.
class FarTimer {
  public:
    FarTimer() : handle_(asyncio::get_running_loop().call_later(1h, [] {})) {}
    ~FarTimer() { handle_.cancel(); }
    FarTimer(const FarTimer&) = delete;
    FarTimer& operator=(const FarTimer&) = delete;

  private:
    asyncio::TimerHandle handle_;
};

// ---- Sleeping tasks

Coro<> nap(int) { co_await asyncio::sleep(10s); }

Coro<> sleep_in_bulk(std::size_t count) {
    std::vector<Task<>> tasks;
    tasks.reserve(count);
    const double before = bench::resident_bytes();
    for (std::size_t i = 0; i < count; ++i)
        tasks.push_back(asyncio::create_task(nap(static_cast<int>(i))));
    co_await asyncio::sleep(0);
    co_await asyncio::sleep(0);
    const double bytes = (bench::resident_bytes() - before) / static_cast<double>(count);
    bench::report_and_exit(Measurement{bytes, "B", {bytes}});
}
Measurement bytes_task() {
    asyncio::run(sleep_in_bulk(bench::scaled(1'000'000)));
    return {};
}

Coro<> short_nap() { co_await asyncio::sleep(10ms); }
Coro<> spawn_fire_join(std::size_t count) {
    std::vector<Task<>> tasks;
    tasks.reserve(count);
    for (std::size_t i = 0; i < count; ++i) tasks.push_back(asyncio::create_task(short_nap()));
    for (const Task<>& task : tasks) co_await task;
}
Measurement sleepers_cpu() {
    const std::size_t count = bench::scaled(1'000'000);
    const double began = bench::cpu_seconds();
    asyncio::run(spawn_fire_join(count));
    const double value = (bench::cpu_seconds() - began) * 1e6 / static_cast<double>(count);
    return Measurement{value, "s", {value}};
}

// ---- Cancelling

[[gnu::noinline]] Coro<> deep_nap(int further_frames) {
    if (further_frames == 0) {
        co_await asyncio::sleep(1000s);
    } else {
        co_await deep_nap(further_frames - 1);
    }
}
Coro<double> cancel_all(std::size_t count, int further_frames) {
    std::vector<Task<>> tasks;
    tasks.reserve(count);
    for (std::size_t i = 0; i < count; ++i)
        tasks.push_back(asyncio::create_task(deep_nap(further_frames)));
    co_await asyncio::sleep(0);
    const double began = bench::cpu_seconds();
    for (Task<>& task : tasks) task.cancel();
    while (!tasks.back().done()) co_await asyncio::sleep(0);
    co_return (bench::cpu_seconds() - began) * 1e6 / static_cast<double>(count);
}
Measurement cancel_asleep() {
    Samples samples("us", 3);
    while (samples.more()) samples.add(asyncio::run(cancel_all(bench::scaled(100'000), 0)));
    return samples.median();
}
Measurement cancel_frame() {
    Samples samples("us", 3);
    while (samples.more()) {
        const double shallow = asyncio::run(cancel_all(bench::scaled(20'000), 0));
        samples.add((asyncio::run(cancel_all(bench::scaled(20'000), 8)) - shallow) / 8);
    }
    return samples.median();
}

// ---- Yield

// Main is one of the tasks that yield, and takes the time; no task is created meanwhile.
Coro<> yield_until(const bool& stop) {
    while (!stop) co_await asyncio::sleep(0);
}
Coro<Measurement> yields(std::size_t count, std::size_t times) {
    bool stop = false;
    std::vector<Task<>> others;
    others.reserve(count - 1);
    for (std::size_t i = 1; i < count; ++i) {
        others.push_back(asyncio::create_task(yield_until(stop)));
    }
    Samples samples("ns");
    while (samples.more()) {
        samples.start();
        for (std::size_t i = 0; i < times; ++i) co_await asyncio::sleep(0);
        samples.stop(count * times);
    }
    stop = true;
    for (const Task<>& task : others) co_await task;
    co_return samples.median();
}
template <class... Company> Coro<Measurement> yields_beside(std::size_t count, std::size_t times) {
    [[maybe_unused]] const std::tuple<Company...> company;
    co_return co_await yields(count, times);
}

Measurement yield_1() { return asyncio::run(yields(1, bench::scaled(5'000'000))); }
Measurement yield_100() { return asyncio::run(yields(100, bench::scaled(50'000))); }
Measurement yield_100k() { return asyncio::run(yields(100'000, 50)); }
Measurement yield_1_timer() {
    return asyncio::run(yields_beside<FarTimer>(1, bench::scaled(2'000'000)));
}
Measurement yield_1_socket() {
    return asyncio::run(yields_beside<RegisteredSocket>(1, bench::scaled(500'000)));
}
Measurement yield_100_socket() {
    return asyncio::run(yields_beside<RegisteredSocket>(100, bench::scaled(50'000)));
}
Measurement yield_1_socket_timer() {
    return asyncio::run(yields_beside<RegisteredSocket, FarTimer>(1, bench::scaled(500'000)));
}
Measurement yield_100_socket_timer() {
    return asyncio::run(yields_beside<RegisteredSocket, FarTimer>(100, bench::scaled(50'000)));
}

// ---- Tasks and children

[[gnu::noinline]] Coro<> nothing() { co_return; }

Coro<> create_and_await(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) co_await asyncio::create_task(nothing());
}
Coro<> create_dressed_and_await(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
        co_await asyncio::create_task(asyncio::TaskOptions().name("x"), nothing());
    }
}
Coro<> await_children(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) co_await nothing();
}
using Batch = Coro<> (*)(std::size_t);

Coro<Measurement> time_batches(Batch batch, std::size_t count) {
    Samples samples("ns");
    while (samples.more()) {
        samples.start();
        co_await batch(count);
        samples.stop(count);
    }
    co_return samples.median();
}
asyncio::ContextVar<int> variable{"variable"};

Coro<Measurement> time_dressed(std::size_t count) {
    variable.set(1);
    co_return co_await time_batches(create_dressed_and_await, count);
}
Measurement create_await() {
    return asyncio::run(time_batches(create_and_await, bench::scaled(1'000'000)));
}
Measurement create_await_dressed() { return asyncio::run(time_dressed(bench::scaled(1'000'000))); }
Measurement child_await() {
    return asyncio::run(time_batches(await_children, bench::scaled(3'000'000)));
}

Coro<Measurement> count_allocations(Batch batch) {
    const std::size_t count = bench::scaled(100'000);
    co_await batch(count);
    const std::uint64_t before = bench::allocations();
    co_await batch(count);
    const auto allocations = static_cast<double>(bench::allocations() - before);
    co_return Measurement{allocations / static_cast<double>(count), "mallocs", {allocations}};
}
Measurement create_mallocs() { return asyncio::run(count_allocations(create_and_await)); }
Measurement child_mallocs() { return asyncio::run(count_allocations(await_children)); }

// ---- Locks, events and queues

// Two tasks want it in turn: who gives it back finds the other one waiting, and waits itself. Main
// holds it until both have come; else the first would be through before the second has begun.
struct Turns {
    int last = -1;
    void take(int task) {
        if (std::exchange(last, task) == task) throw std::runtime_error("nobody was waiting");
    }
};
template <class Primitive>
Coro<> hand_over(Primitive& primitive, Turns& turns, int task, std::size_t times) {
    for (std::size_t i = 0; i < times; ++i) {
        auto held = co_await primitive.scoped();
        turns.take(task);
    }
}
template <class Primitive> Coro<> hand_over_in_pairs(std::size_t count) {
    Primitive primitive;
    Turns turns;
    auto held = co_await primitive.scoped();
    auto first = asyncio::create_task(hand_over(primitive, turns, 0, count / 2));
    auto second = asyncio::create_task(hand_over(primitive, turns, 1, count / 2));
    co_await asyncio::sleep(0);
    held.release();
    co_await first;
    co_await second;
}
Measurement lock_handover() {
    return asyncio::run(time_batches(hand_over_in_pairs<asyncio::Lock>, bench::scaled(2'000'000)));
}
Measurement semaphore_handover() {
    return asyncio::run(
        time_batches(hand_over_in_pairs<asyncio::Semaphore>, bench::scaled(2'000'000)));
}

// Two tasks that wake each other.
Coro<> answer(asyncio::Event& mine, asyncio::Event& other, std::size_t times) {
    for (std::size_t i = 0; i < times; ++i) {
        co_await mine.wait();
        mine.clear();
        other.set();
    }
}
Coro<> wake_each_other(std::size_t count) {
    asyncio::Event ping;
    asyncio::Event pong;
    auto other = asyncio::create_task(answer(pong, ping, count / 2));
    ping.set();
    co_await answer(ping, pong, count / 2);
    co_await other;
}
Measurement event_wake_1() {
    return asyncio::run(time_batches(wake_each_other, bench::scaled(2'000'000)));
}

constexpr std::size_t waiting_tasks = 10'000;

Coro<> wait_again(asyncio::Event& event, std::size_t& woken, const bool& stop) {
    while (!stop) {
        co_await event.wait();
        ++woken;
    }
}
Coro<Measurement> wake_all(std::size_t times) {
    asyncio::Event event;
    std::size_t woken = 0;
    bool stop = false;
    std::vector<Task<>> waiting;
    waiting.reserve(waiting_tasks);
    for (std::size_t i = 0; i < waiting_tasks; ++i)
        waiting.push_back(asyncio::create_task(wait_again(event, woken, stop)));
    co_await asyncio::sleep(0);
    Samples samples("ns");
    while (samples.more()) {
        woken = 0;
        samples.start();
        for (std::size_t i = 0; i < times; ++i) {
            event.set();
            event.clear();
            co_await asyncio::sleep(0);
        }
        samples.stop(times * waiting_tasks);
        if (woken != times * waiting_tasks) throw std::runtime_error("not all have waited again");
    }
    stop = true;
    event.set();
    for (const Task<>& task : waiting) co_await task;
    co_return samples.median();
}
Measurement event_wake_10k() { return asyncio::run(wake_all(bench::scaled(200))); }

Coro<> produce(asyncio::Queue<int>& queue, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) co_await queue.put(1);
}
template <std::size_t maxsize> Coro<> pass_messages(std::size_t count) {
    asyncio::Queue<int> queue(maxsize);
    auto producer = asyncio::create_task(produce(queue, count));
    std::size_t sum = 0;
    for (std::size_t i = 0; i < count; ++i) {
        const int message = co_await queue.get();
        sum += static_cast<std::size_t>(message);
    }
    co_await producer;
    if (sum != count) throw std::runtime_error("messages were lost");
}
template <std::size_t maxsize> Measurement queue() {
    return asyncio::run(time_batches(pass_messages<maxsize>, bench::scaled(2'000'000)));
}

Measurement queue_mallocs() { return asyncio::run(count_allocations(pass_messages<1024>)); }

// ---- Limits and groups

Coro<> yielding() { co_await asyncio::sleep(0); }
Coro<> limit_body(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) co_await asyncio::timeout(10s, yielding);
}
Coro<> wait_for_it(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) co_await asyncio::wait_for(yielding(), 10s);
}
Measurement timeout_unexpired() {
    return asyncio::run(time_batches(limit_body, bench::scaled(500'000)));
}
Measurement wait_for_unexpired() {
    return asyncio::run(time_batches(wait_for_it, bench::scaled(500'000)));
}

constexpr std::size_t children = 1000;

Coro<> fill(asyncio::TaskGroup& group) {
    for (std::size_t i = 0; i < children; ++i) group.create_task(nothing());
    co_return;
}
Coro<> run_groups(std::size_t count) {
    for (std::size_t i = 0; i < count / children; ++i) co_await asyncio::task_group(fill);
}
Coro<> gather_many(std::size_t count) {
    for (std::size_t i = 0; i < count / children; ++i) {
        std::vector<Coro<>> many;
        many.reserve(children);
        for (std::size_t k = 0; k < children; ++k) many.push_back(nothing());
        co_await asyncio::gather(std::move(many));
    }
}
Measurement task_group_1000() {
    return asyncio::run(time_batches(run_groups, bench::scaled(500'000)));
}
Measurement gather_1000() {
    return asyncio::run(time_batches(gather_many, bench::scaled(500'000)));
}

// ---- Timers

// Timers in the hour after the next one; the loop is never run.
struct ResidentTimers {
    explicit ResidentTimers(std::size_t count)
        : loop(asyncio::new_event_loop()), last_deadline(loop->time() + 1h + 60s) {
        bench::Random random;
        handles.reserve(count);
        for (std::size_t i = 0; i < count; ++i) {
            const std::chrono::nanoseconds before(random.next() % 60'000'000'000);
            handles.push_back(loop->call_at(last_deadline - before, [] {}));
        }
    }
    asyncio::EventLoopOwner loop;
    asyncio::TimePoint last_deadline;
    std::vector<asyncio::TimerHandle> handles;
};

template <bool relative> Measurement timer_hot() {
    ResidentTimers resident(1000);
    asyncio::EventLoop& loop = *resident.loop;
    asyncio::TimePoint when = resident.last_deadline;
    Samples samples("ns");
    const std::size_t count = bench::scaled(2'000'000);
    while (samples.more()) {
        samples.start();
        for (std::size_t i = 0; i < count; ++i) {
            asyncio::TimerHandle handle =
                relative ? loop.call_later(2h, [] {}) : loop.call_at(when += 1ns, [] {});
            handle.cancel();
        }
        samples.stop(count);
    }
    return samples.median();
}
Measurement timer_1m() {
    ResidentTimers resident(bench::scaled(1'000'000));
    asyncio::TimePoint when = resident.last_deadline;
    Samples samples("ns", 3);
    while (samples.more()) {
        samples.start();
        for (asyncio::TimerHandle& handle : resident.handles) {
            handle.cancel();
            handle = resident.loop->call_at(when += 1ns, [] {});
        }
        samples.stop(resident.handles.size());
    }
    return samples.median();
}

// ---- The door for other threads

// From the loop's own thread: the price of the door itself, without a second core that fights for a
// cache line.
Coro<Measurement> post_to_oneself() {
    asyncio::EventLoop& loop = asyncio::get_running_loop();
    Samples samples("ns");
    const std::size_t count = bench::scaled(1'000'000);
    constexpr std::size_t burst = 250;
    std::size_t ran = 0;
    while (samples.more()) {
        samples.start();
        for (std::size_t i = 0; i < count / burst; ++i) {
            ran = 0;
            for (std::size_t k = 0; k < burst; ++k) loop.call_soon_threadsafe([&ran] { ++ran; });
            while (ran < burst) co_await asyncio::sleep(0);
        }
        samples.stop(count);
    }
    co_return samples.median();
}
Measurement threadsafe_awake() { return asyncio::run(post_to_oneself()); }

Coro<Measurement> post_from_beside() {
    asyncio::EventLoop& loop = asyncio::get_running_loop();
    Samples samples("ns", 3);
    const std::size_t count = bench::scaled(300'000);
    while (samples.more()) {
        std::size_t ran = 0;
        double caller = 0;
        std::thread thread([&] {
            const double began = bench::seconds(CLOCK_THREAD_CPUTIME_ID);
            for (std::size_t i = 0; i < count; ++i) loop.call_soon_threadsafe([&ran] { ++ran; });
            caller = bench::seconds(CLOCK_THREAD_CPUTIME_ID) - began;
        });
        while (ran < count) co_await asyncio::sleep(0);
        thread.join();
        samples.add(caller * 1e9 / static_cast<double>(count));
    }
    co_return samples.median();
}
Measurement threadsafe_cross() { return asyncio::run(post_from_beside()); }

struct Knocks {
    std::vector<double> nanoseconds;
    double writes = 0; // system calls that wrote, for each
};

// Another thread knocks when the loop has surely fallen asleep, and waits until it is heard.
Knocks knock(std::size_t count) {
    const asyncio::EventLoopOwner loop = asyncio::new_event_loop();
    Knocks knocks;
    std::atomic<std::size_t> heard{0};
    std::thread knocker([&] {
        const std::int64_t before = bench::write_calls();
        for (std::size_t i = 0; i < count; ++i) {
            std::this_thread::sleep_for(50us);
            const std::int64_t began = bench::monotonic_ns();
            loop->call_soon_threadsafe([&heard] { ++heard; });
            knocks.nanoseconds.push_back(static_cast<double>(bench::monotonic_ns() - began));
            while (heard.load() == i) std::this_thread::yield();
        }
        const std::int64_t after = bench::write_calls();
        knocks.writes =
            before < 0 ? -1 : static_cast<double>(after - before) / static_cast<double>(count);
        loop->call_soon_threadsafe([&loop] { loop->stop(); });
    });
    loop->run_forever();
    knocker.join();
    return knocks;
}
Measurement threadsafe_asleep() {
    return Measurement{bench::median(knock(bench::scaled(3000)).nanoseconds), "ns", {}};
}
Measurement writes_measured(double writes) {
    if (writes < 0)
        throw std::runtime_error("this kernel does not count system calls in /proc/self/io");
    return Measurement{writes, "writes", {writes}};
}
Measurement threadsafe_wake_writes() { return writes_measured(knock(bench::scaled(1000)).writes); }

Measurement threadsafe_burst_writes() {
    const asyncio::EventLoopOwner loop = asyncio::new_event_loop();
    double writes = 0;
    loop->call_soon([&] {
        std::thread thread([&] {
            const std::int64_t before = bench::write_calls();
            for (int i = 0; i < 1000; ++i) loop->call_soon_threadsafe([] {});
            writes = before < 0 ? -1 : static_cast<double>(bench::write_calls() - before);
        });
        thread.join();
        loop->stop();
    });
    loop->run_forever();
    return writes_measured(writes);
}

// ---- Start

Measurement start() { return bench::start_of_process({"asyncio_bench_start"}); }

constexpr bench::Row rows[] = {
    {"bytes_task", bytes_task},
    {"sleepers_cpu", sleepers_cpu},
    {"cancel_asleep", cancel_asleep},
    {"cancel_frame", cancel_frame},
    {"yield_1", yield_1},
    {"yield_100", yield_100},
    {"yield_100k", yield_100k},
    {"yield_1_timer", yield_1_timer},
    {"yield_1_socket", yield_1_socket},
    {"yield_100_socket", yield_100_socket},
    {"yield_1_socket_timer", yield_1_socket_timer},
    {"yield_100_socket_timer", yield_100_socket_timer},
    {"create_await", create_await},
    {"create_await_dressed", create_await_dressed},
    {"create_mallocs", create_mallocs},
    {"child_await", child_await},
    {"child_mallocs", child_mallocs},
    {"lock_handover", lock_handover},
    {"semaphore_handover", semaphore_handover},
    {"event_wake_1", event_wake_1},
    {"event_wake_10k", event_wake_10k},
    {"queue_1024", queue<1024>},
    {"queue_1", queue<1>},
    {"queue_mallocs", queue_mallocs},
    {"timeout_unexpired", timeout_unexpired},
    {"wait_for_unexpired", wait_for_unexpired},
    {"task_group_1000", task_group_1000},
    {"gather_1000", gather_1000},
    {"timer_hot", timer_hot<false>},
    {"timer_hot_relative", timer_hot<true>},
    {"timer_1m", timer_1m},
    {"threadsafe_awake", threadsafe_awake},
    {"threadsafe_cross", threadsafe_cross},
    {"threadsafe_asleep", threadsafe_asleep},
    {"threadsafe_wake_writes", threadsafe_wake_writes},
    {"threadsafe_burst_writes", threadsafe_burst_writes},
    {"start", start},
};

} // namespace

int main(int argc, char** argv) { return bench::run_program(argc, argv, "ours", rows); }
