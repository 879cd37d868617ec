// SPDX-License-Identifier: MIT
//
// The rows of the floor. Each does what the row of the same name in ours.cpp does, on the bare
// runtime of floor.hpp or in raw C; a few have no counterpart and stand for what the machine itself
// asks: a poll, a clock read.
#include "floor.hpp"
#include "harness.hpp"

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <sys/eventfd.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace {

using bench::Measurement;
using bench::Samples;

constexpr std::int64_t millisecond = 1'000'000;
constexpr std::int64_t second = 1000 * millisecond;

class RegisteredSocket {
  public:
    RegisteredSocket() {
        bare::poll_fd = epoll_create1(EPOLL_CLOEXEC);
        epoll_event interest{};
        interest.events = EPOLLIN | EPOLLET;
        epoll_ctl(bare::poll_fd, EPOLL_CTL_ADD, socket_.fd(), &interest);
    }
    ~RegisteredSocket() { close(std::exchange(bare::poll_fd, -1)); }
    RegisteredSocket(const RegisteredSocket&) = delete;
    RegisteredSocket& operator=(const RegisteredSocket&) = delete;

  private:
    bench::IdleSocket socket_;
};

class FarTimer {
  public:
    FarTimer() {
        timer_.when = bare::clock_ns() + 3600 * second;
        bare::timers.insert(&timer_);
    }
    ~FarTimer() { bare::timers.remove(&timer_); }
    FarTimer(const FarTimer&) = delete;
    FarTimer& operator=(const FarTimer&) = delete;

  private:
    bare::Timer timer_;
};

// ---- Sleeping tasks

bare::Coro nap(int) { co_await bare::Sleep(10 * second); }
bare::OneBlock nap_in_one_block(int) { co_await bare::Sleep(10 * second); }

Measurement bytes_of(std::size_t count, double before) {
    const double bytes = (bench::resident_bytes() - before) / static_cast<double>(count);
    return Measurement{bytes, "B", {bytes}};
}

bare::Coro sleep_in_bulk(std::size_t count) {
    std::vector<bare::Task> tasks;
    tasks.reserve(count);
    const double before = bench::resident_bytes();
    for (std::size_t i = 0; i < count; ++i) tasks.emplace_back(nap(static_cast<int>(i)));
    co_await bare::Yield{};
    co_await bare::Yield{};
    bench::report_and_exit(bytes_of(count, before));
}
Measurement bytes_task() {
    bare::run(sleep_in_bulk(bench::scaled(1'000'000)));
    return {};
}

bare::Coro sleep_in_one_block(std::size_t count) {
    std::vector<bare::OneBlock> tasks;
    tasks.reserve(count);
    const double before = bench::resident_bytes();
    for (std::size_t i = 0; i < count; ++i) tasks.push_back(nap_in_one_block(static_cast<int>(i)));
    co_await bare::Yield{};
    co_await bare::Yield{};
    bench::report_and_exit(bytes_of(count, before));
}
Measurement bytes_task_one_block() {
    bare::run(sleep_in_one_block(bench::scaled(1'000'000)));
    return {};
}

bare::Coro short_nap() { co_await bare::Sleep(10 * millisecond); }
bare::Coro spawn_fire_join(std::size_t count) {
    std::vector<bare::Task> tasks;
    tasks.reserve(count);
    for (std::size_t i = 0; i < count; ++i) tasks.emplace_back(short_nap());
    for (const bare::Task& task : tasks) co_await task;
}
Measurement sleepers_cpu() {
    const std::size_t count = bench::scaled(1'000'000);
    const double began = bench::cpu_seconds();
    bare::run(spawn_fire_join(count));
    const double value = (bench::cpu_seconds() - began) * 1e6 / static_cast<double>(count);
    return Measurement{value, "s", {value}};
}

// ---- Cancelling

[[gnu::noinline]] bare::Coro deep_nap(int further_frames) {
    if (further_frames == 0) {
        co_await bare::Sleep(1000 * second);
    } else {
        co_await deep_nap(further_frames - 1);
    }
}
bare::Coro cancel_all(std::size_t count, int further_frames, double* microseconds) {
    std::vector<bare::Task> tasks;
    tasks.reserve(count);
    for (std::size_t i = 0; i < count; ++i) tasks.emplace_back(deep_nap(further_frames));
    co_await bare::Yield{};
    const double began = bench::cpu_seconds();
    for (bare::Task& task : tasks) task.cancel();
    while (!tasks.back().done()) co_await bare::Yield{};
    *microseconds = (bench::cpu_seconds() - began) * 1e6 / static_cast<double>(count);
}
double microseconds_to_cancel(std::size_t count, int further_frames) {
    double microseconds = 0;
    bare::run(cancel_all(count, further_frames, &microseconds));
    return microseconds;
}
Measurement cancel_asleep() {
    Samples samples("us", 3);
    while (samples.more()) samples.add(microseconds_to_cancel(bench::scaled(100'000), 0));
    return samples.median();
}
Measurement cancel_frame() {
    Samples samples("us", 3);
    while (samples.more()) {
        const double shallow = microseconds_to_cancel(bench::scaled(20'000), 0);
        samples.add((microseconds_to_cancel(bench::scaled(20'000), 8) - shallow) / 8);
    }
    return samples.median();
}

// ---- Yield

// Main is one of the tasks that yield, and takes the time; no task is created meanwhile.
bare::Coro yield_until(const bool& stop) {
    while (!stop) co_await bare::Yield{};
}
bare::Coro yield_in_tasks(std::size_t count, std::size_t times, Samples& samples) {
    bool stop = false;
    std::vector<bare::Task> others;
    others.reserve(count - 1);
    for (std::size_t i = 1; i < count; ++i) others.emplace_back(yield_until(stop));
    while (samples.more()) {
        samples.start();
        for (std::size_t i = 0; i < times; ++i) co_await bare::Yield{};
        samples.stop(count * times);
    }
    stop = true;
    for (const bare::Task& task : others) co_await task;
}
Measurement yields(std::size_t count, std::size_t times) {
    Samples samples("ns");
    bare::run(yield_in_tasks(count, times, samples));
    return samples.median();
}
Measurement yield_1() { return yields(1, bench::scaled(5'000'000)); }
Measurement yield_100() { return yields(100, bench::scaled(50'000)); }
Measurement yield_100k() { return yields(100'000, 50); }

Measurement yield_1_socket() {
    const RegisteredSocket socket;
    return yields(1, bench::scaled(500'000));
}
Measurement yield_100_socket() {
    const RegisteredSocket socket;
    return yields(100, bench::scaled(50'000));
}
Measurement yield_1_socket_timer() {
    const RegisteredSocket socket;
    const FarTimer timer;
    return yields(1, bench::scaled(500'000));
}
Measurement yield_100_socket_timer() {
    const RegisteredSocket socket;
    const FarTimer timer;
    return yields(100, bench::scaled(50'000));
}
Measurement yield_1_timer() {
    const FarTimer timer;
    return yields(1, bench::scaled(2'000'000));
}

// What the kernel asks for one look at its descriptors, and the machine for one look at the clock.
Measurement poll() {
    const RegisteredSocket socket;
    Samples samples("ns");
    const std::size_t count = bench::scaled(500'000);
    while (samples.more()) {
        samples.start();
        for (std::size_t i = 0; i < count; ++i) bare::poll_once(0);
        samples.stop(count);
    }
    return samples.median();
}
Measurement clock_read() {
    Samples samples("ns");
    const std::size_t count = bench::scaled(2'000'000);
    while (samples.more()) {
        samples.start();
        for (std::size_t i = 0; i < count; ++i) {
            bare::clock_ns();
            bench::clobber();
        }
        samples.stop(count);
    }
    return samples.median();
}

// ---- Tasks and children

[[gnu::noinline]] bare::Coro nothing() { co_return; }

bare::Coro create_and_await(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) co_await bare::Task(nothing());
}
bare::Coro await_children(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) co_await nothing();
}
using Batch = bare::Coro (*)(std::size_t);

bare::Coro time_batches(Batch batch, std::size_t count, Samples& samples) {
    while (samples.more()) {
        samples.start();
        co_await batch(count);
        samples.stop(count);
    }
}
Measurement batches(Batch batch, std::size_t count) {
    Samples samples("ns");
    bare::run(time_batches(batch, count, samples));
    return samples.median();
}
Measurement create_await() { return batches(create_and_await, bench::scaled(1'000'000)); }
Measurement child_await() { return batches(await_children, bench::scaled(3'000'000)); }

bare::Coro count_batch(Batch batch, std::size_t count, std::uint64_t& allocations) {
    co_await batch(count);
    const std::uint64_t before = bench::allocations();
    co_await batch(count);
    allocations = bench::allocations() - before;
}
Measurement allocations_of(Batch batch) {
    const std::size_t count = bench::scaled(100'000);
    std::uint64_t allocations = 0;
    bare::run(count_batch(batch, count, allocations));
    const double each = static_cast<double>(allocations) / static_cast<double>(count);
    return Measurement{each, "mallocs", {static_cast<double>(allocations)}};
}
Measurement child_mallocs() { return allocations_of(await_children); }
Measurement create_mallocs() { return allocations_of(create_and_await); }

// ---- Locks, events and queues

// Two tasks want it in turn: who gives it back finds the other one waiting, and waits itself. Main
// holds it until both have come.
bare::Coro hand_over(bare::Semaphore& lock, std::size_t times) {
    for (std::size_t i = 0; i < times; ++i) {
        co_await lock.acquire();
        lock.release();
    }
}
bare::Coro hand_over_in_pairs(std::size_t count) {
    bare::Semaphore lock(1);
    co_await lock.acquire();
    const bare::Task one(hand_over(lock, count / 2));
    const bare::Task other(hand_over(lock, count / 2));
    co_await bare::Yield{};
    lock.release();
    co_await one;
    co_await other;
}
Measurement handover() { return batches(hand_over_in_pairs, bench::scaled(2'000'000)); }

bare::Coro answer(bare::Event& mine, bare::Event& other, std::size_t times) {
    for (std::size_t i = 0; i < times; ++i) {
        co_await mine.wait();
        mine.clear();
        other.set();
    }
}
bare::Coro wake_each_other(std::size_t count) {
    bare::Event ping;
    bare::Event pong;
    const bare::Task other(answer(pong, ping, count / 2));
    ping.set();
    co_await answer(ping, pong, count / 2);
    co_await other;
}
Measurement event_wake_1() { return batches(wake_each_other, bench::scaled(2'000'000)); }

constexpr std::size_t waiting_tasks = 10'000;

bare::Coro wait_again(bare::Event& event, const bool& stop) {
    while (!stop) co_await event.wait();
}
bare::Coro wake_all(std::size_t times, Samples& samples) {
    bare::Event event;
    bool stop = false;
    std::vector<bare::Task> waiting;
    waiting.reserve(waiting_tasks);
    for (std::size_t i = 0; i < waiting_tasks; ++i) waiting.emplace_back(wait_again(event, stop));
    co_await bare::Yield{};
    while (samples.more()) {
        samples.start();
        for (std::size_t i = 0; i < times; ++i) {
            event.set();
            event.clear();
            co_await bare::Yield{};
        }
        samples.stop(times * waiting_tasks);
    }
    stop = true;
    event.set();
    for (const bare::Task& task : waiting) co_await task;
}
Measurement event_wake_10k() {
    Samples samples("ns");
    bare::run(wake_all(bench::scaled(200), samples));
    return samples.median();
}

template <class Channel> bare::Coro produce(Channel& channel, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) co_await channel.put(1);
}
template <std::size_t maxsize> bare::Coro pass_messages(std::size_t count) {
    bare::Channel<int, maxsize> channel;
    const bare::Task producer(produce(channel, count));
    std::size_t sum = 0;
    for (std::size_t i = 0; i < count; ++i) {
        const int message = co_await channel.get();
        sum += static_cast<std::size_t>(message);
    }
    co_await producer;
    if (sum != count) std::abort();
}
template <std::size_t maxsize> Measurement queue() {
    return batches(pass_messages<maxsize>, bench::scaled(2'000'000));
}

Measurement queue_mallocs() { return allocations_of(pass_messages<1024>); }

// ---- Limits and groups

[[gnu::noinline]] bare::Coro yielding() { co_await bare::Yield{}; }
[[gnu::noinline]] bare::Coro with_limit(std::int64_t nanoseconds) {
    bare::Timer timer;
    timer.when = bare::clock_ns() + nanoseconds;
    bare::timers.insert(&timer);
    co_await yielding();
    bare::timers.remove(&timer);
}
bare::Coro limit_many(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) co_await with_limit(10 * second);
}
Measurement timeout_unexpired() { return batches(limit_many, bench::scaled(500'000)); }

// A thousand tasks, awaited one by one: all have ended when the first await goes on.
bare::Coro run_groups(std::size_t count) {
    constexpr std::size_t children = 1000;
    for (std::size_t i = 0; i < count / children; ++i) {
        std::vector<bare::Task> tasks;
        tasks.reserve(children);
        for (std::size_t k = 0; k < children; ++k) tasks.emplace_back(nothing());
        for (const bare::Task& task : tasks) co_await task;
    }
}
Measurement group_1000() { return batches(run_groups, bench::scaled(500'000)); }

// ---- Timers

// A callback, its argument and a count of handles.
struct Callback : bare::Timer, bare::Pooled {
    void (*function)(void*) = nullptr;
    void* argument = nullptr;
    std::uint32_t references = 1;
};

Callback* arm(std::int64_t when) {
    auto* timer = new Callback;
    timer->when = when;
    bare::timers.insert(timer);
    return timer;
}
void disarm(Callback* timer) {
    bare::timers.remove(timer);
    delete timer;
}

struct ResidentTimers {
    explicit ResidentTimers(std::size_t count) : first_deadline(bare::clock_ns() + 3600 * second) {
        bench::Random random;
        timers.reserve(count);
        for (std::size_t i = 0; i < count; ++i) {
            const auto offset = static_cast<std::int64_t>(random.next() % (60 * second));
            timers.push_back(arm(first_deadline + offset));
        }
        last_deadline = first_deadline + 60 * second;
    }
    std::vector<Callback*> timers;
    std::int64_t first_deadline;
    std::int64_t last_deadline;
};

template <bool relative> Measurement timer_hot() {
    ResidentTimers resident(1000);
    std::int64_t when = resident.last_deadline;
    Samples samples("ns");
    const std::size_t count = bench::scaled(2'000'000);
    while (samples.more()) {
        samples.start();
        for (std::size_t i = 0; i < count; ++i) {
            Callback* timer = arm(relative ? bare::clock_ns() + 7200 * second : ++when);
            bench::clobber();
            disarm(timer);
        }
        samples.stop(count);
    }
    return samples.median();
}

// A million connections, each with an idle timer that is armed anew when something is heard of it.
Measurement timer_1m() {
    ResidentTimers resident(bench::scaled(1'000'000));
    std::int64_t when = resident.last_deadline;
    Samples samples("ns", 3);
    while (samples.more()) {
        samples.start();
        for (Callback*& timer : resident.timers) {
            disarm(timer);
            timer = arm(++when);
        }
        samples.stop(resident.timers.size());
    }
    return samples.median();
}

// ---- The door for other threads

// A lock-free stack of posted nodes, taken whole and turned round, and an eventfd that is written
// only for a loop that sleeps.
class Door {
  public:
    struct Post {
        Post* next = nullptr;
    };

    Door() : event_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)), epoll_(epoll_create1(EPOLL_CLOEXEC)) {
        epoll_event interest{};
        interest.events = EPOLLIN;
        epoll_ctl(epoll_, EPOLL_CTL_ADD, event_, &interest);
    }
    ~Door() {
        close(epoll_);
        close(event_);
    }
    Door(const Door&) = delete;
    Door& operator=(const Door&) = delete;

    void post(Post* post) {
        post->next = posted_.load(std::memory_order_relaxed);
        while (!posted_.compare_exchange_weak(post->next, post)) {
        }
        if (asleep_.load() && asleep_.exchange(false)) {
            const std::uint64_t one = 1;
            if (write(event_, &one, sizeof one) != sizeof one) std::abort();
        }
    }
    Post* take_all() {
        Post* turned = nullptr;
        for (Post* post = posted_.exchange(nullptr); post != nullptr;) {
            Post* next = std::exchange(post->next, turned);
            turned = std::exchange(post, next);
        }
        return turned;
    }
    void wait() {
        asleep_.store(true);
        if (posted_.load() == nullptr) {
            epoll_event events[8];
            epoll_wait(epoll_, events, 8, -1);
            std::uint64_t count = 0;
            if (read(event_, &count, sizeof count) < 0 && errno != EAGAIN) std::abort();
        }
        asleep_.store(false);
    }

  private:
    std::atomic<Post*> posted_{nullptr};
    std::atomic<bool> asleep_{false};
    int event_;
    int epoll_;
};

Measurement threadsafe_awake() {
    struct Counted : Door::Post, bare::Pooled {};
    Door door;
    Samples samples("ns");
    const std::size_t count = bench::scaled(1'000'000);
    constexpr std::size_t burst = 250;
    while (samples.more()) {
        samples.start();
        for (std::size_t i = 0; i < count / burst; ++i) {
            for (std::size_t k = 0; k < burst; ++k) door.post(new Counted);
            for (Door::Post* post = door.take_all(); post != nullptr;) {
                Door::Post* next = post->next;
                delete static_cast<Counted*>(post);
                bench::clobber();
                post = next;
            }
        }
        samples.stop(count);
    }
    return samples.median();
}

// Another thread knocks when the loop has surely fallen asleep; the figure is what one knock takes
// of that thread.
Measurement threadsafe_asleep() {
    Door door;
    std::atomic<std::size_t> heard{0};
    const std::size_t count = bench::scaled(3000);
    std::vector<double> raw;
    std::thread knocker([&] {
        std::vector<Door::Post> posts(count);
        for (std::size_t i = 0; i < count; ++i) {
            std::this_thread::sleep_for(std::chrono::microseconds(50));
            const std::int64_t began = bench::monotonic_ns();
            door.post(&posts[i]);
            raw.push_back(static_cast<double>(bench::monotonic_ns() - began));
            while (heard.load() == i) std::this_thread::yield();
        }
    });
    while (heard.load() < count) {
        door.wait();
        for (Door::Post* post = door.take_all(); post != nullptr;) {
            post = post->next; // the node may go as soon as it is counted
            heard.fetch_add(1);
        }
    }
    knocker.join();
    return Measurement{bench::median(raw), "ns", {}};
}

Measurement eventfd_write_read() {
    const int event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    Samples samples("ns");
    const std::size_t count = bench::scaled(200'000);
    while (samples.more()) {
        samples.start();
        for (std::size_t i = 0; i < count; ++i) {
            std::uint64_t value = 1;
            if (write(event, &value, sizeof value) < 0 || read(event, &value, sizeof value) < 0)
                std::abort();
        }
        samples.stop(count);
    }
    close(event);
    return samples.median();
}

// ---- Start

bare::Coro first_callback() {
    bench::report_first_callback();
    co_return;
}
Measurement start() { return bench::start_of_process({"asyncio_bench_floor", "--first-callback"}); }

constexpr bench::Row rows[] = {
    {"bytes_task", bytes_task},
    {"bytes_task_one_block", bytes_task_one_block},
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
    {"poll", poll},
    {"clock_read", clock_read},
    {"create_await", create_await},
    {"create_await_dressed", create_await}, // the floor has nothing to wear
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
    {"eventfd_write_read", eventfd_write_read},
    {"start", start},
};

} // namespace

int main(int argc, char** argv) {
    if (argc == 2 && std::strcmp(argv[1], "--first-callback") == 0) {
        const RegisteredSocket socket;
        bare::run(first_callback());
        return 0;
    }
    return bench::run_program(argc, argv, "floor", rows);
}
