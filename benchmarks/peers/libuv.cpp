// SPDX-License-Identifier: MIT
//
// The rows on libuv, where they have a meaning without coroutines: a yield is an idle callback,
// called once in each turn of the loop, which polls the kernel in each; a timer is a uv_timer_t
// that belongs to the caller, so arming one allocates nothing; its times are whole milliseconds,
// counted from the loop's own idea of now. The door for threads carries no calls, so a queue with a
// lock stands beside it.
#include "../harness.hpp"

#include <atomic>
#include <chrono>
#include <mutex>
#include <stdexcept>
#include <string_view>
#include <thread>
#include <uv.h>
#include <vector>

namespace {

using namespace std::chrono_literals;
using bench::Measurement;
using bench::Samples;

constexpr std::uint64_t hour = 3'600'000;

template <class Handle> uv_handle_t* handle_of(Handle& handle) {
    return reinterpret_cast<uv_handle_t*>(&handle);
}

struct Loop : uv_loop_t {
    Loop() {
        if (uv_loop_init(this) != 0) throw std::runtime_error("uv_loop_init failed");
    }
    ~Loop() {
        uv_walk(this, [](uv_handle_t* handle, void*) { uv_close(handle, nullptr); }, nullptr);
        uv_run(this, UV_RUN_DEFAULT);
        uv_loop_close(this);
    }
    Loop(const Loop&) = delete;
    Loop& operator=(const Loop&) = delete;
};

// ---- Yield

struct Company {
    bool socket = false;
    bool timer = false;
};
Measurement yields(std::size_t count, std::size_t times, Company company = {}) {
    bench::IdleSocket idle;
    std::vector<uv_idle_t> others(count);
    uv_poll_t poll;
    uv_timer_t timer;
    Loop loop;
    if (company.socket) {
        uv_poll_init(&loop, &poll, idle.fd());
        uv_poll_start(&poll, UV_READABLE, [](uv_poll_t*, int, int) {});
    }
    if (company.timer) {
        uv_timer_init(&loop, &timer);
        uv_timer_start(&timer, [](uv_timer_t*) {}, hour, 0);
    }
    for (uv_idle_t& other : others) {
        uv_idle_init(&loop, &other);
        uv_idle_start(&other, [](uv_idle_t*) { bench::clobber(); });
    }
    Samples samples("ns");
    while (samples.more()) {
        samples.start();
        for (std::size_t i = 0; i < times; ++i) uv_run(&loop, UV_RUN_NOWAIT);
        samples.stop(count * times);
    }
    return samples.median();
}
Measurement yield_1() { return yields(1, bench::scaled(500'000)); }
Measurement yield_100() { return yields(100, bench::scaled(50'000)); }
Measurement yield_100k() { return yields(100'000, 50); }
Measurement yield_1_timer() {
    return yields(1, bench::scaled(500'000), {.socket = false, .timer = true});
}
Measurement yield_1_socket() {
    return yields(1, bench::scaled(500'000), {.socket = true, .timer = false});
}
Measurement yield_100_socket() {
    return yields(100, bench::scaled(50'000), {.socket = true, .timer = false});
}
Measurement yield_1_socket_timer() {
    return yields(1, bench::scaled(500'000), {.socket = true, .timer = true});
}
Measurement yield_100_socket_timer() {
    return yields(100, bench::scaled(50'000), {.socket = true, .timer = true});
}

// ---- Timers

void nothing(uv_timer_t*) {}

Measurement timer_hot() {
    std::vector<uv_timer_t> resident(1000);
    uv_timer_t timer;
    Loop loop;
    bench::Random random;
    for (uv_timer_t& each : resident) {
        uv_timer_init(&loop, &each);
        uv_timer_start(&each, nothing, hour + random.next() % 60'000, 0);
    }
    uv_timer_init(&loop, &timer);
    Samples samples("ns");
    const std::size_t count = bench::scaled(2'000'000);
    while (samples.more()) {
        samples.start();
        for (std::size_t i = 0; i < count; ++i) {
            uv_timer_start(&timer, nothing, 2 * hour, 0);
            uv_timer_stop(&timer);
        }
        samples.stop(count);
    }
    return samples.median();
}
Measurement timer_1m() {
    std::vector<uv_timer_t> resident(bench::scaled(1'000'000));
    Loop loop;
    bench::Random random;
    for (uv_timer_t& each : resident) {
        uv_timer_init(&loop, &each);
        uv_timer_start(&each, nothing, hour + random.next() % 60'000, 0);
    }
    Samples samples("ns", 3);
    while (samples.more()) {
        samples.start();
        for (uv_timer_t& each : resident) uv_timer_start(&each, nothing, 2 * hour, 0);
        samples.stop(resident.size());
    }
    return samples.median();
}

// ---- The door for other threads

struct Door {
    explicit Door(uv_loop_t& loop) {
        uv_async_init(&loop, &async,
                      [](uv_async_t* handle) { static_cast<Door*>(handle->data)->run(); });
        async.data = this;
    }
    void call(void (*function)(void*), void* argument) {
        {
            const std::lock_guard held(lock);
            calls.push_back({function, argument});
        }
        uv_async_send(&async);
    }
    void run() {
        {
            const std::lock_guard held(lock);
            taken.swap(calls);
        }
        for (const Call& each : taken) each.function(each.argument);
        taken.clear();
    }

    struct Call {
        void (*function)(void*);
        void* argument;
    };
    uv_async_t async;
    std::mutex lock;
    std::vector<Call> calls;
    std::vector<Call> taken;
};

Measurement threadsafe_awake() {
    Loop loop;
    Door door(loop);
    Samples samples("ns");
    const std::size_t count = bench::scaled(1'000'000);
    constexpr std::size_t burst = 250;
    std::size_t ran = 0;
    while (samples.more()) {
        samples.start();
        for (std::size_t i = 0; i < count / burst; ++i) {
            ran = 0;
            for (std::size_t k = 0; k < burst; ++k)
                door.call([](void* number) { ++*static_cast<std::size_t*>(number); }, &ran);
            while (ran < burst) uv_run(&loop, UV_RUN_NOWAIT);
        }
        samples.stop(count);
    }
    return samples.median();
}

struct Knocks {
    std::vector<double> nanoseconds;
    double writes = 0;
};
Knocks knock(std::size_t count) {
    Loop loop;
    Door door(loop);
    Knocks knocks;
    std::atomic<std::size_t> heard{0};
    std::thread knocker([&] {
        const std::int64_t before = bench::write_calls();
        for (std::size_t i = 0; i < count; ++i) {
            std::this_thread::sleep_for(50us);
            const std::int64_t began = bench::monotonic_ns();
            door.call([](void* number) { ++*static_cast<std::atomic<std::size_t>*>(number); },
                      &heard);
            knocks.nanoseconds.push_back(static_cast<double>(bench::monotonic_ns() - began));
            while (heard.load() == i) std::this_thread::yield();
        }
        knocks.writes =
            static_cast<double>(bench::write_calls() - before) / static_cast<double>(count);
        door.call([](void* argument) { uv_stop(static_cast<uv_loop_t*>(argument)); }, &loop);
    });
    uv_run(&loop, UV_RUN_DEFAULT);
    knocker.join();
    return knocks;
}
Measurement threadsafe_asleep() {
    return Measurement{bench::median(knock(bench::scaled(3000)).nanoseconds), "ns", {}};
}
Measurement threadsafe_wake_writes() {
    const double writes = knock(bench::scaled(1000)).writes;
    return Measurement{writes, "writes", {writes}};
}

constexpr bench::Row rows[] = {
    {"yield_1", yield_1},
    {"yield_100", yield_100},
    {"yield_100k", yield_100k},
    {"yield_1_timer", yield_1_timer},
    {"yield_1_socket", yield_1_socket},
    {"yield_100_socket", yield_100_socket},
    {"yield_1_socket_timer", yield_1_socket_timer},
    {"yield_100_socket_timer", yield_100_socket_timer},
    {"timer_hot", timer_hot},
    {"timer_1m", timer_1m},
    {"threadsafe_awake", threadsafe_awake},
    {"threadsafe_asleep", threadsafe_asleep},
    {"threadsafe_wake_writes", threadsafe_wake_writes},
};

} // namespace

int main(int argc, char** argv) {
    if (argc == 2 && std::string_view(argv[1]) == "--first-callback") {
        uv_timer_t timer;
        Loop loop;
        uv_timer_init(&loop, &timer);
        uv_timer_start(&timer, [](uv_timer_t*) { bench::report_first_callback(); }, 0, 0);
        uv_run(&loop, UV_RUN_DEFAULT);
        return 0;
    }
    return bench::run_program(argc, argv, "libuv", rows);
}
