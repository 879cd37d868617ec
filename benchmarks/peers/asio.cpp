// SPDX-License-Identifier: MIT
//
// The rows on standalone Asio's C++20 coroutines, under the names of ours.cpp. A task is a
// co_spawn; it has no handle, so an awaited one is co_spawn with use_awaitable, and many are joined
// by a count. A yield is a post. A cancel is a signal emitted to the slot of a co_spawn. What runs
// on one thread only says so to the io_context, which then takes no lock.
#include "../harness.hpp"

#include <asio.hpp>
#include <asio/experimental/awaitable_operators.hpp>
#include <asio/experimental/channel.hpp>
#include <atomic>
#include <chrono>
#include <stdexcept>
#include <string_view>
#include <thread>
#include <vector>

namespace {

using namespace std::chrono_literals;
using asio::awaitable;
using asio::co_spawn;
using asio::detached;
using bench::Measurement;
using bench::Samples;

using Awaiting = asio::use_awaitable_t<asio::io_context::executor_type>;
using Executor = asio::io_context::executor_type;
using Timer = asio::basic_waitable_timer<std::chrono::steady_clock,
                                         asio::wait_traits<std::chrono::steady_clock>, Executor>;
template <class T = void> using Coro = awaitable<T, Executor>;

// The executor's own type, where any_io_executor would stand: no type erasure on hot paths.
constexpr Awaiting awaiting;

Coro<> yield(Executor executor) { return asio::post(executor, awaiting); }

template <class Body> void run(Body body) {
    asio::io_context context(ASIO_CONCURRENCY_HINT_UNSAFE);
    co_spawn(context.get_executor(), body(context.get_executor()),
             [](const std::exception_ptr& failed) {
                 if (failed != nullptr) std::rethrow_exception(failed);
             });
    context.run();
}

// ---- Sleeping tasks

Coro<> nap(Executor executor, std::chrono::nanoseconds delay) {
    Timer timer(executor, delay);
    co_await timer.async_wait(awaiting);
}

Coro<> sleep_in_bulk(Executor executor, std::size_t count) {
    const double before = bench::resident_bytes();
    for (std::size_t i = 0; i < count; ++i) co_spawn(executor, nap(executor, 10s), detached);
    co_await yield(executor);
    co_await yield(executor);
    const double bytes = (bench::resident_bytes() - before) / static_cast<double>(count);
    bench::report_and_exit(Measurement{bytes, "B", {bytes}});
}
Measurement bytes_task() {
    run([](Executor executor) { return sleep_in_bulk(executor, bench::scaled(1'000'000)); });
    return {};
}

Measurement sleepers_cpu() {
    const std::size_t count = bench::scaled(1'000'000);
    const double began = bench::cpu_seconds();
    asio::io_context context(ASIO_CONCURRENCY_HINT_UNSAFE);
    for (std::size_t i = 0; i < count; ++i) {
        co_spawn(context.get_executor(), nap(context.get_executor(), 10ms), detached);
    }
    context.run(); // until the last has ended
    const double value = (bench::cpu_seconds() - began) * 1e6 / static_cast<double>(count);
    return Measurement{value, "s", {value}};
}

// ---- Cancelling

Coro<> deep_nap(Executor executor, int further_frames) {
    if (further_frames == 0) {
        Timer timer(executor, 1000s);
        co_await timer.async_wait(awaiting);
    } else {
        co_await deep_nap(executor, further_frames - 1);
    }
}
double cancel_all(std::size_t count, int further_frames) {
    asio::io_context context(ASIO_CONCURRENCY_HINT_UNSAFE);
    std::vector<asio::cancellation_signal> signals(count);
    std::size_t cancelled = 0;
    for (asio::cancellation_signal& signal : signals) {
        co_spawn(context.get_executor(), deep_nap(context.get_executor(), further_frames),
                 asio::bind_cancellation_slot(signal.slot(),
                                              [&cancelled](const std::exception_ptr& failed) {
                                                  cancelled += failed != nullptr ? 1 : 0;
                                              }));
    }
    context.poll();
    const double began = bench::cpu_seconds();
    for (asio::cancellation_signal& signal : signals)
        signal.emit(asio::cancellation_type::terminal);
    context.run();
    if (cancelled != count) throw std::runtime_error("not all were cancelled");
    return (bench::cpu_seconds() - began) * 1e6 / static_cast<double>(count);
}
Measurement cancel_asleep() {
    Samples samples("us", 3);
    while (samples.more()) samples.add(cancel_all(bench::scaled(100'000), 0));
    return samples.median();
}
Measurement cancel_frame() {
    Samples samples("us", 3);
    while (samples.more()) {
        const double shallow = cancel_all(bench::scaled(20'000), 0);
        samples.add((cancel_all(bench::scaled(20'000), 8) - shallow) / 8);
    }
    return samples.median();
}

// ---- Yield

Coro<> yield_until(Executor executor, const bool& stop) {
    while (!stop) co_await yield(executor);
}
struct Company {
    bool socket = false;
    bool timer = false;
};
Coro<> yield_in_tasks(Executor executor, std::size_t count, std::size_t times, Company company,
                      Samples& samples) {
    bench::IdleSocket idle;
    asio::posix::basic_stream_descriptor<Executor> descriptor(executor);
    if (company.socket) {
        descriptor.assign(idle.fd());
        descriptor.async_wait(asio::posix::descriptor_base::wait_read, [](std::error_code) {});
    }
    Timer timer(executor);
    if (company.timer) {
        timer.expires_after(1h);
        timer.async_wait([](std::error_code) {});
    }
    bool stop = false;
    for (std::size_t i = 1; i < count; ++i) {
        co_spawn(executor, yield_until(executor, stop), detached);
    }
    while (samples.more()) {
        samples.start();
        for (std::size_t i = 0; i < times; ++i) co_await yield(executor);
        samples.stop(count * times);
    }
    stop = true;
    for (int i = 0; i < 3; ++i) co_await yield(executor); // the others end
    if (company.socket) {
        descriptor.cancel();
        descriptor.release();
    }
}
Measurement yields(std::size_t count, std::size_t times, Company company = {}) {
    Samples samples("ns");
    run([&](Executor executor) {
        return yield_in_tasks(executor, count, times, company, samples);
    });
    return samples.median();
}
Measurement yield_1() { return yields(1, bench::scaled(1'000'000)); }
Measurement yield_100() { return yields(100, bench::scaled(20'000)); }
Measurement yield_100k() { return yields(100'000, 20); }
Measurement yield_1_timer() {
    return yields(1, bench::scaled(500'000), {.socket = false, .timer = true});
}
Measurement yield_1_socket() {
    return yields(1, bench::scaled(500'000), {.socket = true, .timer = false});
}
Measurement yield_100_socket() {
    return yields(100, bench::scaled(20'000), {.socket = true, .timer = false});
}
Measurement yield_1_socket_timer() {
    return yields(1, bench::scaled(500'000), {.socket = true, .timer = true});
}
Measurement yield_100_socket_timer() {
    return yields(100, bench::scaled(20'000), {.socket = true, .timer = true});
}

// ---- Tasks and children

[[gnu::noinline]] Coro<> nothing() { co_return; }

Coro<> create_and_await(Executor executor, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) co_await co_spawn(executor, nothing(), awaiting);
}
Coro<> await_children(Executor, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) co_await nothing();
}
using Batch = Coro<> (*)(Executor, std::size_t);

Coro<> time_batches(Executor executor, Batch batch, std::size_t count, Samples& samples) {
    while (samples.more()) {
        samples.start();
        co_await batch(executor, count);
        samples.stop(count);
    }
}
Measurement batches(Batch batch, std::size_t count) {
    Samples samples("ns");
    run([&](Executor executor) { return time_batches(executor, batch, count, samples); });
    return samples.median();
}
Measurement create_await() { return batches(create_and_await, bench::scaled(500'000)); }
Measurement child_await() { return batches(await_children, bench::scaled(2'000'000)); }

Coro<> count_batch(Executor executor, Batch batch, std::size_t count, std::uint64_t& allocations) {
    co_await batch(executor, count);
    const std::uint64_t before = bench::allocations();
    co_await batch(executor, count);
    allocations = bench::allocations() - before;
}
Measurement allocations_of(Batch batch) {
    const std::size_t count = bench::scaled(100'000);
    std::uint64_t allocations = 0;
    run([&](Executor executor) { return count_batch(executor, batch, count, allocations); });
    const double each = static_cast<double>(allocations) / static_cast<double>(count);
    return Measurement{each, "mallocs", {static_cast<double>(allocations)}};
}
Measurement create_mallocs() { return allocations_of(create_and_await); }
Measurement child_mallocs() { return allocations_of(await_children); }

// ---- Locks, events and queues: all of them are channels, and a lock is one with a token in it. An
// event for many is a timer that is cancelled.

using Channel = asio::experimental::basic_channel<Executor, asio::experimental::channel_traits<>,
                                                  void(std::error_code, int)>;

// Two coroutines want it in turn; the token says who had it last. The one that measures holds it
// until both have come.
Coro<> hand_over(Channel& lock, int self, std::size_t times) {
    for (std::size_t i = 0; i < times; ++i) {
        const int last = co_await lock.async_receive(awaiting);
        if (last == self) throw std::runtime_error("nobody was waiting");
        lock.try_send(std::error_code(), self);
    }
}
Coro<> hand_over_in_pairs(Executor executor, std::size_t count) {
    Channel lock(executor, 1);
    Channel done(executor, 2);
    const auto end = [&done](const std::exception_ptr& failed) {
        if (failed != nullptr) std::rethrow_exception(failed);
        done.try_send(std::error_code(), 0);
    };
    for (int self = 0; self < 2; ++self) co_spawn(executor, hand_over(lock, self, count / 2), end);
    co_await yield(executor);
    lock.try_send(std::error_code(), -1);
    for (int i = 0; i < 2; ++i) co_await done.async_receive(awaiting);
}
Measurement handover() { return batches(hand_over_in_pairs, bench::scaled(500'000)); }

Coro<> answer(Channel& mine, Channel& other, std::size_t times) {
    for (std::size_t i = 0; i < times; ++i) {
        co_await mine.async_receive(awaiting);
        other.try_send(std::error_code(), 0);
    }
}
Coro<> wake_each_other(Executor executor, std::size_t count) {
    Channel ping(executor, 1);
    Channel pong(executor, 1);
    Channel done(executor, 1);
    co_spawn(executor, answer(pong, ping, count / 2),
             [&done](const std::exception_ptr&) { done.try_send(std::error_code(), 0); });
    ping.try_send(std::error_code(), 0);
    co_await answer(ping, pong, count / 2);
    co_await done.async_receive(awaiting);
}
Measurement event_wake_1() { return batches(wake_each_other, bench::scaled(500'000)); }

constexpr std::size_t waiting_tasks = 10'000;

Coro<> wait_again(Timer& event, std::size_t& woken, const bool& stop) {
    while (!stop) {
        std::error_code cancelled;
        co_await event.async_wait(asio::redirect_error(awaiting, cancelled));
        ++woken;
    }
}
Coro<> wake_all(Executor executor, std::size_t times, Samples& samples) {
    Timer event(executor, Timer::time_point::max());
    std::size_t woken = 0;
    bool stop = false;
    for (std::size_t i = 0; i < waiting_tasks; ++i)
        co_spawn(executor, wait_again(event, woken, stop), detached);
    co_await yield(executor);
    while (samples.more()) {
        woken = 0;
        samples.start();
        for (std::size_t i = 1; i <= times; ++i) {
            event.cancel();
            while (woken < i * waiting_tasks) co_await yield(executor);
        }
        samples.stop(times * waiting_tasks);
    }
    stop = true;
    event.cancel();
    for (int i = 0; i < 3; ++i) co_await yield(executor); // the others end
}
Measurement event_wake_10k() {
    Samples samples("ns");
    run([&](Executor executor) { return wake_all(executor, bench::scaled(50), samples); });
    return samples.median();
}

Coro<> produce(Channel& channel, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
        co_await channel.async_send(std::error_code(), 1, awaiting);
    }
}
template <std::size_t maxsize> Coro<> pass_messages(Executor executor, std::size_t count) {
    Channel channel(executor, maxsize);
    Channel done(executor, 1);
    co_spawn(executor, produce(channel, count),
             [&done](const std::exception_ptr&) { done.try_send(std::error_code(), 0); });
    std::size_t sum = 0;
    for (std::size_t i = 0; i < count; ++i) {
        const int message = co_await channel.async_receive(awaiting);
        sum += static_cast<std::size_t>(message);
    }
    co_await done.async_receive(awaiting);
    if (sum != count) throw std::runtime_error("messages were lost");
}
template <std::size_t maxsize> Measurement queue() {
    return batches(pass_messages<maxsize>, bench::scaled(500'000));
}

Measurement queue_mallocs() { return allocations_of(pass_messages<1024>); }

// ---- Limits and groups

Coro<> limit_many(Executor executor, std::size_t count) {
    using namespace asio::experimental::awaitable_operators;
    for (std::size_t i = 0; i < count; ++i) {
        Timer timer(executor, 10s);
        co_await (yield(executor) || timer.async_wait(awaiting));
    }
}
Measurement timeout_unexpired() { return batches(limit_many, bench::scaled(100'000)); }

// A thousand are spawned; the last one tells.
Coro<> run_groups(Executor executor, std::size_t count) {
    constexpr std::size_t children = 1000;
    for (std::size_t i = 0; i < count / children; ++i) {
        Channel done(executor, 1);
        std::size_t left = children;
        for (std::size_t k = 0; k < children; ++k) {
            co_spawn(executor, nothing(), [&](const std::exception_ptr&) {
                if (--left == 0) done.try_send(std::error_code(), 0);
            });
        }
        co_await done.async_receive(awaiting);
    }
}
Measurement group_1000() { return batches(run_groups, bench::scaled(500'000)); }

// ---- Timers. A cancelled wait still calls its handler, in the loop: that is part of it, in
// batches of 100.

struct ResidentTimers {
    explicit ResidentTimers(std::size_t count) : when(std::chrono::steady_clock::now() + 1h + 60s) {
        bench::Random random;
        timers.reserve(count);
        for (std::size_t i = 0; i < count; ++i) {
            timers.emplace_back(context.get_executor());
            timers.back().expires_at(when -
                                     std::chrono::nanoseconds(random.next() % 60'000'000'000));
            timers.back().async_wait([](std::error_code) {});
        }
    }
    asio::io_context context{ASIO_CONCURRENCY_HINT_UNSAFE};
    std::chrono::steady_clock::time_point when;
    std::vector<Timer> timers;
};

template <bool relative> Measurement timer_hot() {
    ResidentTimers resident(1000);
    Timer timer(resident.context.get_executor());
    Samples samples("ns");
    const std::size_t count = bench::scaled(500'000);
    while (samples.more()) {
        samples.start();
        for (std::size_t i = 0; i < count; ++i) {
            if (relative) {
                timer.expires_after(2h);
            } else {
                timer.expires_at(resident.when += 1ns);
            }
            timer.async_wait([](std::error_code) {});
            timer.cancel();
            if (i % 100 == 99) resident.context.poll();
        }
        samples.stop(count);
    }
    return samples.median();
}
Measurement timer_1m() {
    ResidentTimers resident(bench::scaled(1'000'000));
    Samples samples("ns", 3);
    while (samples.more()) {
        samples.start();
        std::size_t since_poll = 0;
        for (Timer& timer : resident.timers) {
            timer.expires_at(resident.when += 1ns); // cancels the wait
            timer.async_wait([](std::error_code) {});
            if (++since_poll % 100 == 0) resident.context.poll();
        }
        samples.stop(resident.timers.size());
    }
    return samples.median();
}

// ---- The door for other threads: post, on a context with its locks

Measurement threadsafe_awake() {
    asio::io_context context(1);
    Samples samples("ns");
    const std::size_t count = bench::scaled(500'000);
    constexpr std::size_t burst = 250;
    std::size_t ran = 0;
    while (samples.more()) {
        samples.start();
        for (std::size_t i = 0; i < count / burst; ++i) {
            for (std::size_t k = 0; k < burst; ++k) asio::post(context, [&ran] { ++ran; });
            context.restart();
            context.poll();
        }
        samples.stop(count);
    }
    return samples.median();
}

Measurement threadsafe_asleep() {
    asio::io_context context(1);
    auto work = asio::make_work_guard(context);
    const std::size_t count = bench::scaled(3000);
    std::vector<double> nanoseconds;
    std::atomic<std::size_t> heard{0};
    std::thread knocker([&] {
        for (std::size_t i = 0; i < count; ++i) {
            std::this_thread::sleep_for(50us);
            const std::int64_t began = bench::monotonic_ns();
            asio::post(context, [&heard] { ++heard; });
            nanoseconds.push_back(static_cast<double>(bench::monotonic_ns() - began));
            while (heard.load() == i) std::this_thread::yield();
        }
        work.reset();
    });
    context.run();
    knocker.join();
    return Measurement{bench::median(nanoseconds), "ns", {}};
}

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
    {"create_mallocs", create_mallocs},
    {"child_await", child_await},
    {"child_mallocs", child_mallocs},
    {"lock_handover", handover},
    {"semaphore_handover", handover},
    {"event_wake_1", event_wake_1},
    {"event_wake_10k", event_wake_10k},
    {"queue_1024", queue<1024>},
    {"queue_1", queue<1>},
    {"queue_mallocs", queue_mallocs},
    {"timeout_unexpired", timeout_unexpired},
    {"wait_for_unexpired", timeout_unexpired},
    {"task_group_1000", group_1000},
    {"gather_1000", group_1000},
    {"timer_hot", timer_hot<false>},
    {"timer_hot_relative", timer_hot<true>},
    {"timer_1m", timer_1m},
    {"threadsafe_awake", threadsafe_awake},
    {"threadsafe_asleep", threadsafe_asleep},
};

} // namespace

int main(int argc, char** argv) {
    if (argc == 2 && std::string_view(argv[1]) == "--first-callback") {
        asio::io_context context(1);
        co_spawn(
            context,
            []() -> awaitable<void> {
                bench::report_first_callback();
                co_return;
            },
            detached);
        context.run();
        return 0;
    }
    return bench::run_program(argc, argv, "asio", rows);
}
