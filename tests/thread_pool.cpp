// SPDX-License-Identifier: MIT
#include <asyncio/asyncio.hpp>
#include <asyncio/detail/thread_pool.hpp>
#include <asyncio/testing/virtual_time.hpp>
#include <gtest/gtest.h>

#include "support/in_virtual_time.hpp"
#include "support/process.hpp"

#include <atomic>
#include <cerrno>
#include <csignal>
#include <fstream>
#include <functional>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define ASYNCIO_TSAN 1
#endif
#endif
#ifndef ASYNCIO_TSAN
#define ASYNCIO_TSAN 0
#endif

using asyncio::Coro;
using asyncio::create_future;
using asyncio::EventLoop;
using asyncio::Future;
using asyncio::get_running_loop;
using asyncio::LoopOptions;
using asyncio::RunOptions;
using asyncio::SystemCalls;
using asyncio::detail::ThreadJob;
using asyncio::detail::ThreadPool;
using asyncio_test::in_virtual_time;
using asyncio_test::Process;
using asyncio_test::Reports;
using asyncio_test::thrown_by;
using namespace std::chrono_literals;

namespace {

constexpr auto waited_for = ThreadPool::AtShutdown::wait;
constexpr auto left_alone = ThreadPool::AtShutdown::leave;

// What became of jobs.
struct Counts {
    std::atomic<int> worked = 0;
    std::atomic<int> finished = 0;
    std::atomic<int> let_go = 0;
    std::atomic<int> destroyed = 0;
};

// Calls a function on a thread, and another one on the loop's when it comes back.
class Work final : public ThreadJob {
  public:
    explicit Work(std::function<void()> work, std::function<void()> finished = {},
                  Counts* counts = nullptr)
        : work_(std::move(work)), finished_(std::move(finished)), counts_(counts) {}
    ~Work() override {
        if (counts_ != nullptr) ++counts_->destroyed;
    }
    void work() noexcept override {
        if (work_) work_();
        if (counts_ != nullptr) ++counts_->worked;
    }
    void finished() override {
        if (counts_ != nullptr) ++counts_->finished;
        if (finished_) finished_();
    }
    void let_go() noexcept override {
        if (counts_ != nullptr) ++counts_->let_go;
    }

  private:
    std::function<void()> work_;
    std::function<void()> finished_;
    Counts* counts_;
};

// A job that counts and works as told; submitted to the pool of the loop.
Work& submit(EventLoop& loop, ThreadPool::AtShutdown at_shutdown, Counts* counts,
             std::function<void()> work = {}, std::function<void()> finished = {}) {
    auto job = std::make_unique<Work>(std::move(work), std::move(finished), counts);
    Work& it = *job;
    ThreadPool::of(loop).submit(std::move(job), at_shutdown);
    return it;
}

// Runs on a thread and waits for that.
Coro<> in_thread(std::function<void()> work) {
    const auto done = create_future();
    submit(get_running_loop(), waited_for, nullptr, std::move(work), [done] { done.set_result(); });
    co_await done;
}

// Holds up threads until it is opened. Copies are the same one: a thread may be the last to leave.
class Barrier {
  public:
    void pass() const { opened_->wait(false); }
    void open() const {
        const auto opened = opened_;
        *opened = true;
        opened->notify_all();
    }

  private:
    std::shared_ptr<std::atomic<bool>> opened_ = std::make_shared<std::atomic<bool>>(false);
};

void wait_until(const auto& condition) {
    while (!condition()) std::this_thread::yield();
}

std::string name_of_this_thread() {
    char name[16] = "";
    ::pthread_getname_np(::pthread_self(), name, sizeof name);
    return name;
}

// Threads of this process, as the kernel counts them.
int threads_of_process() {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
        if (line.rfind("Threads:", 0) == 0) return std::stoi(line.substr(8));
    }
    return -1;
}

std::atomic<int> threads_left = 0; // that pthread_create() of this table starts
std::atomic<int> refused = 0;

const SystemCalls& few_threads() {
    static const SystemCalls calls = [] {
        SystemCalls table = SystemCalls::real();
        table.pthread_create = [](pthread_t* thread, const pthread_attr_t* attributes,
                                  void* (*start)(void*), void* argument) {
            if (threads_left.fetch_sub(1) <= 0) {
                ++refused;
                return EAGAIN;
            }
            return ::pthread_create(thread, attributes, start, argument);
        };
        return table;
    }();
    return calls;
}

} // namespace

TEST(ThreadPool, a_job_works_on_a_thread_of_a_known_name_and_comes_back_to_the_loop) {
    asyncio::run([]() -> Coro<> {
        std::string name;
        std::thread::id worked_on;
        std::thread::id finished_on;
        const auto done = create_future();
        submit(
            get_running_loop(), waited_for, nullptr,
            [&] {
                name = name_of_this_thread();
                worked_on = std::this_thread::get_id();
            },
            [&] {
                finished_on = std::this_thread::get_id();
                done.set_result();
            });
        co_await done;
        EXPECT_EQ(name, "asyncio_0");
        EXPECT_EQ(finished_on, std::this_thread::get_id());
        EXPECT_NE(worked_on, std::this_thread::get_id());
    });
}

TEST(ThreadPool, an_idle_thread_is_used_before_another_is_started) {
    asyncio::run([]() -> Coro<> {
        ThreadPool& pool = ThreadPool::of(get_running_loop());
        EXPECT_EQ(pool.thread_count(), 0U) << "lazily";
        // A thread that has just come back may not have lain down yet.
        std::set<std::thread::id> threads;
        for (int i = 0; i < 200; ++i) {
            co_await in_thread([&] { threads.insert(std::this_thread::get_id()); });
            std::this_thread::yield();
        }
        EXPECT_EQ(pool.thread_count(), threads.size());
        EXPECT_LE(threads.size(), 3U);
    });
}

TEST(ThreadPool, as_many_jobs_as_there_may_be_threads_work_at_the_same_time_and_no_more) {
    asyncio::run([]() -> Coro<> {
        EventLoop& loop = get_running_loop();
        ThreadPool& pool = ThreadPool::of(loop);
        EXPECT_GE(pool.limit(), 5U);
        EXPECT_LE(pool.limit(), 32U);
        Barrier barrier;
        Counts counts;
        std::atomic<std::size_t> inside = 0;
        std::set<std::string> names;
        std::mutex mutex;
        const auto all = create_future();
        const std::size_t jobs = pool.limit() + 3;
        for (std::size_t i = 0; i < jobs; ++i) {
            submit(
                loop, waited_for, &counts,
                [&] {
                    {
                        const std::lock_guard lock(mutex);
                        names.insert(name_of_this_thread());
                    }
                    ++inside;
                    barrier.pass();
                },
                [&] {
                    if (static_cast<std::size_t>(counts.finished) == jobs) all.set_result();
                });
        }
        wait_until([&] { return inside == pool.limit(); });
        EXPECT_EQ(pool.thread_count(), pool.limit());
        EXPECT_EQ(names.size(), pool.limit());
        EXPECT_TRUE(names.contains("asyncio_" + std::to_string(pool.limit() - 1)));
        barrier.open();
        co_await all;
        EXPECT_EQ(static_cast<std::size_t>(counts.worked), jobs);
        EXPECT_EQ(pool.thread_count(), pool.limit());
    });
}

TEST(ThreadPool, jobs_that_wait_for_a_thread_are_begun_in_their_order) {
    asyncio::run([]() -> Coro<> {
        EventLoop& loop = get_running_loop();
        ThreadPool& pool = ThreadPool::of(loop);
        Barrier first;
        Barrier others;
        for (std::size_t i = 0; i + 1 < pool.limit(); ++i) {
            submit(loop, waited_for, nullptr, [others] { others.pass(); });
        }
        submit(loop, waited_for, nullptr, [first] { first.pass(); });
        std::string order;
        const auto done = create_future();
        for (const char c : std::string("abcdef")) {
            submit(
                loop, waited_for, nullptr, [&order, c] { order += c; },
                [done, c] {
                    if (c == 'f') done.set_result();
                });
        }
        first.open(); // only this thread is free
        co_await done;
        EXPECT_EQ(order, "abcdef");
        others.open();
    });
}

TEST(ThreadPool, signals_are_blocked_in_its_threads_but_for_faults) {
    asyncio::run([]() -> Coro<> {
        sigset_t blocked;
        co_await in_thread([&] { ::pthread_sigmask(SIG_BLOCK, nullptr, &blocked); });
        for (const int signal : {SIGINT, SIGTERM, SIGCHLD, SIGALRM, SIGUSR1, SIGPIPE, SIGHUP}) {
            EXPECT_EQ(::sigismember(&blocked, signal), 1) << signal;
        }
        for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT}) {
            EXPECT_EQ(::sigismember(&blocked, signal), 0) << signal;
        }
        sigset_t ours;
        ::pthread_sigmask(SIG_BLOCK, nullptr, &ours);
        EXPECT_EQ(::sigismember(&ours, SIGTERM), 0) << "as before in the loop's own thread";
    });
}

TEST(ThreadPool, the_end_of_run_waits_for_a_job_that_works_and_then_tells_the_loop) {
    Counts counts;
    Barrier barrier;
    asyncio::run([](Counts* c, Barrier* b) -> Coro<> {
        EventLoop& loop = get_running_loop();
        submit(loop, waited_for, c, [&loop, b] {
            // Served by the loop, which runs meanwhile.
            loop.call_soon_threadsafe([b] { b->open(); });
            b->pass();
        });
        co_return;
    }(&counts, &barrier));
    EXPECT_EQ(counts.finished, 1);
    EXPECT_EQ(counts.destroyed, 1);
    EXPECT_EQ(counts.let_go, 0);
}

TEST(ThreadPool, the_end_of_run_waits_for_no_job_that_may_be_left) {
    Counts counts;
    Barrier barrier;
    std::atomic<bool> begun = false;
    asyncio::run([](Counts* c, Barrier* b, std::atomic<bool>* started) -> Coro<> {
        submit(get_running_loop(), left_alone, c, [b, started] {
            *started = true;
            b->pass();
        });
        wait_until([started] { return started->load(); });
        co_return;
    }(&counts, &barrier, &begun));
    EXPECT_EQ(counts.worked, 0);
    EXPECT_EQ(counts.let_go, 1);
    EXPECT_EQ(counts.destroyed, 0) << "its thread works on";
    barrier.open();
    wait_until([&] { return counts.destroyed == 1; });
    EXPECT_EQ(counts.worked, 1);
    EXPECT_EQ(counts.finished, 0);
}

TEST(ThreadPool, after_five_minutes_the_end_of_run_goes_on_without_the_threads_and_says_so) {
    // Told by the job that the time is up.
    class Told final : public asyncio::Clock {
      public:
        std::int64_t now_ns() noexcept override { return now_; }
        std::atomic<std::int64_t> now_ = 1;
    };
    Told clock;
    Counts counts;
    Barrier barrier;
    Reports reports;
    asyncio::run(
        [](Told* time, Counts* c, Barrier* b, Reports* r) -> Coro<> {
            EventLoop& loop = get_running_loop();
            r->watch(loop);
            // The five minutes begin when main has ended.
            struct WatchTimers {
                EventLoop& loop;
                Barrier armed;
                void operator()() const {
                    if (loop.core().timers.empty()) {
                        loop.call_soon(*this);
                    } else {
                        armed.open();
                    }
                }
            };
            const WatchTimers watch{.loop = loop, .armed = {}};
            loop.call_soon(watch);
            submit(loop, waited_for, c, [&loop, time, b, armed = watch.armed] {
                armed.pass();
                time->now_ = 299'999'999'999;
                loop.call_soon_threadsafe([time, &loop] {
                    loop.call_soon([time, &loop] { // the loop has seen that it is not yet time
                        time->now_ = 301'000'000'000;
                        loop.call_soon([] {});
                    });
                });
                b->pass();
            });
            co_return;
        }(&clock, &counts, &barrier, &reports),
        RunOptions().clock(clock));
    EXPECT_EQ(counts.worked, 0);
    EXPECT_EQ(counts.let_go, 1);
    EXPECT_EQ(reports.count("did not finish joining its threads within 300 seconds"), 1U)
        << reports.text();
    barrier.open();
    wait_until([&] { return counts.destroyed == 1; });
}

TEST(ThreadPool, a_loop_that_closes_drops_what_no_thread_has_begun) {
    Counts running;
    Counts queued;
    Barrier barrier;
    {
        const auto loop = asyncio::new_event_loop();
        const std::size_t limit = ThreadPool::of(*loop).limit();
        std::atomic<std::size_t> inside = 0;
        for (std::size_t i = 0; i < limit; ++i) {
            submit(*loop, waited_for, &running, [&] {
                ++inside;
                barrier.pass();
            });
        }
        for (int i = 0; i < 5; ++i) submit(*loop, waited_for, &queued);
        wait_until([&] { return inside == limit; });
        loop->close();
        EXPECT_EQ(queued.let_go, 5);
        EXPECT_EQ(queued.destroyed, 5);
        EXPECT_EQ(running.let_go, static_cast<int>(limit));
        EXPECT_EQ(running.destroyed, 0);
        barrier.open();
        wait_until([&] { return running.destroyed == static_cast<int>(limit); });
    }
    EXPECT_EQ(queued.worked, 0);
    EXPECT_EQ(running.finished, 0);
}

TEST(ThreadPool, a_loop_that_closes_takes_its_idle_threads_along) {
    const auto once = [] { asyncio::run([]() -> Coro<> { co_await in_thread([] {}); }); };
    once(); // ThreadSanitizer has a thread of its own from the first one on
    std::this_thread::sleep_for(50ms);
    const int before = threads_of_process();
    for (int i = 0; i < 20; ++i) {
        once();
        // The kernel counts a thread for a moment after it was joined.
        wait_until([&] { return threads_of_process() <= before; });
    }
}

TEST(ThreadPool, what_has_come_back_to_a_closing_loop_is_let_go_on_its_thread) {
    // Not run any more, so that what comes back stays at the door.
    Counts counts;
    {
        const auto loop = asyncio::new_event_loop();
        for (int i = 0; i < 10; ++i) submit(*loop, waited_for, &counts);
        wait_until([&] { return counts.worked == 10; });
    }
    EXPECT_EQ(counts.finished, 0);
    EXPECT_EQ(counts.let_go, 10);
    wait_until([&] { return counts.destroyed == 10; });
}

TEST(ThreadPool, a_job_that_no_thread_has_begun_can_be_withdrawn) {
    asyncio::run([]() -> Coro<> {
        EventLoop& loop = get_running_loop();
        ThreadPool& pool = ThreadPool::of(loop);
        Barrier barrier;
        std::atomic<std::size_t> inside = 0;
        Work* working = nullptr;
        for (std::size_t i = 0; i < pool.limit(); ++i) {
            working = &submit(loop, waited_for, nullptr, [&inside, barrier] {
                ++inside;
                barrier.pass();
            });
        }
        wait_until([&] { return inside == pool.limit(); });
        Counts counts;
        Work& first = submit(loop, waited_for, &counts);
        Work& second = submit(loop, waited_for, &counts);
        Work& third = submit(loop, waited_for, &counts);
        EXPECT_TRUE(pool.withdraw(second)); // in the middle, at an end, the only one
        EXPECT_TRUE(pool.withdraw(third));
        EXPECT_TRUE(pool.withdraw(first));
        EXPECT_EQ(counts.destroyed, 3);
        EXPECT_EQ(counts.let_go, 0);
        EXPECT_FALSE(pool.withdraw(*working));
        EXPECT_EQ(loop.core().outside_jobs, pool.limit());
        barrier.open();
        co_await in_thread([] {});
        EXPECT_EQ(counts.worked, 0);
    });
}

TEST(ThreadPool, where_no_thread_can_be_started_the_job_is_refused_with_a_sentence) {
    threads_left = 0;
    Counts counts;
    const auto loop = asyncio::new_event_loop(LoopOptions().system_calls(few_threads()));
    try {
        submit(*loop, waited_for, &counts);
        ADD_FAILURE() << "it was taken";
    } catch (const std::system_error& error) {
        EXPECT_EQ(error.code().value(), EAGAIN);
        EXPECT_NE(std::string(error.what()).find("cannot start a thread"), std::string::npos)
            << error.what();
    }
    EXPECT_EQ(counts.destroyed, 1);
    EXPECT_EQ(loop->core().outside_jobs, 0U);
    threads_left = 1; // and the next one is taken
    submit(*loop, waited_for, &counts, {}, [&] { loop->stop(); });
    loop->run_forever();
    EXPECT_EQ(counts.finished, 1);
}

TEST(ThreadPool, whichever_thread_cannot_be_started_the_jobs_are_done_by_those_that_there_are) {
    int faults = 0;
    for (int k = 1;; ++k) {
        threads_left = k;
        refused = 0;
        Counts counts;
        std::size_t threads = 0;
        const auto loop = asyncio::new_event_loop(LoopOptions().system_calls(few_threads()));
        const std::size_t limit = ThreadPool::of(*loop).limit();
        const int jobs = static_cast<int>(limit) * 2;
        std::atomic<int> inside = 0;
        Barrier barrier;
        for (int i = 0; i < jobs; ++i) {
            submit(
                *loop, waited_for, &counts,
                [&] {
                    ++inside;
                    barrier.pass();
                },
                [&] {
                    if (counts.finished == jobs) loop->stop();
                });
        }
        threads = ThreadPool::of(*loop).thread_count();
        EXPECT_EQ(threads, std::min(limit, static_cast<std::size_t>(k)));
        wait_until([&] { return inside == static_cast<int>(threads); });
        barrier.open();
        loop->run_forever();
        EXPECT_EQ(counts.worked, jobs);
        if (refused == 0) break;
        faults += refused;
    }
    EXPECT_GT(faults, 0);
    std::printf("%d faults of pthread_create\n", faults);
}

TEST(ThreadPool, virtual_time_stands_still_while_a_job_works) {
    in_virtual_time([]() -> Coro<> {
        EventLoop& loop = get_running_loop();
        const auto before = loop.time();
        bool early = false;
        const auto timer = loop.call_later(1ms, [&] { early = true; });
        Barrier barrier;
        std::thread opener([&] {
            // Long enough for a loop that does not wait to have jumped.
            std::this_thread::sleep_for(20ms);
            barrier.open();
        });
        co_await in_thread([&] { barrier.pass(); });
        EXPECT_FALSE(early);
        EXPECT_EQ(loop.time(), before);
        opener.join();
        co_await asyncio::sleep(1h); // and then it jumps again
        EXPECT_TRUE(early);
        EXPECT_EQ(loop.time() - before, 1h);
    });
}

TEST(ThreadPool, in_virtual_time_a_wait_for_a_job_is_no_deadlock_and_what_is_due_is_done) {
    in_virtual_time([]() -> Coro<> {
        EventLoop& loop = get_running_loop();
        Barrier barrier;
        // Due in the same turn as the job begins: done while it works.
        loop.call_later(0, [&] { barrier.open(); });
        co_await in_thread([&] { barrier.pass(); });
    });
    const std::string thrown = thrown_by([] {
        in_virtual_time([]() -> Coro<> {
            co_await in_thread([] {});
            co_await create_future();
        });
        return 0;
    });
    EXPECT_EQ(thrown.rfind("RuntimeError: deadlock", 0), 0U) << thrown;
}

TEST(ThreadPool, no_job_is_taken_once_it_is_shut_down) {
    std::string thrown;
    asyncio::run([](std::string* text) -> Coro<> {
        struct AtEnd {
            std::string* text;
            EventLoop& loop;
            ~AtEnd() {
                // The pool is shut down, and the loop runs until this has come back.
                *text = thrown_by([this] {
                    submit(loop, waited_for, nullptr);
                    return 0;
                });
            }
        };
        auto at_end = std::make_shared<AtEnd>(text, get_running_loop());
        submit(
            get_running_loop(), waited_for, nullptr,
            [] { std::this_thread::sleep_for(50ms); }, // it comes back after the loop has stopped
            [at_end = std::move(at_end)]() mutable {});
        co_return;
    }(&thrown));
    EXPECT_EQ(thrown.rfind("RuntimeError: Executor shutdown has been called", 0), 0U) << thrown;
}

TEST(ThreadPool, a_forked_child_neither_hangs_nor_crashes) {
    const auto loop = asyncio::new_event_loop();
    Barrier barrier;
    std::atomic<bool> inside = false;
    Counts counts;
    submit(*loop, waited_for, &counts, [&] {
        inside = true;
        barrier.pass();
    });
    wait_until([&] { return inside.load(); });
    std::fflush(nullptr);
    const pid_t child = ::fork();
    if (child == 0) {
        ::alarm(20);
        // The copy is of no use but to be closed.
        const std::string thrown = thrown_by([&] {
            submit(*loop, waited_for, nullptr);
            return 0;
        });
        if (thrown.find("process that was forked") == std::string::npos) ::_exit(2);
        ThreadPool::of(*loop).shut_down(*loop);
        loop->close();
#if ASYNCIO_TSAN
        ::_exit(0); // ThreadSanitizer starts no thread in the child of a process that had some
#endif
        // A new loop has threads of its own.
        int worked = 0;
        asyncio::run([](int* w) -> Coro<> { co_await in_thread([w] { *w = 1; }); }(&worked));
        ::_exit(worked == 1 ? 0 : 3);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_TRUE(WIFEXITED(status)) << status;
    EXPECT_EQ(WEXITSTATUS(status), 0);
    barrier.open();
    loop->close();
    wait_until([&] { return counts.destroyed == 1; });
}

TEST(ThreadPool, a_process_may_end_while_a_thread_works) {
    Process child([](Process::Parent&) -> int {
        asyncio::run([]() -> Coro<> {
            static const Barrier& never = *new Barrier; // never destroyed
            static std::atomic<bool> begun = false;
            submit(get_running_loop(), left_alone, nullptr, [] {
                begun = true;
                never.pass();
            });
            wait_until([] { return begun.load(); });
            co_return;
        });
        std::exit(7); // with the destructors of static objects
    });
    EXPECT_EQ(child.wait(), "exited with 7");
}

TEST(ThreadPool, stress_of_loops_that_close_at_any_moment_loses_and_leaks_nothing) {
    Counts counts;
    int submitted = 0;
    int finished = 0;
    for (int round = 0; round < 300; ++round) {
        const auto loop = asyncio::new_event_loop();
        int back = 0;
        const int jobs = 1 + round % 40;
        for (int i = 0; i < jobs; ++i) {
            ++submitted;
            submit(
                *loop, i % 3 == 0 ? left_alone : waited_for, &counts,
                [i] {
                    for (int turn = 0; turn < i % 5; ++turn) std::this_thread::yield();
                },
                [&, jobs, round] {
                    ++finished;
                    // All of them, or so many: then the loop closes while others come.
                    if (++back == (round % 2 == 0 ? jobs : 1 + jobs / 2)) loop->stop();
                });
        }
        if (round % 7 != 0) loop->run_forever();
    }
    wait_until([&] { return counts.destroyed == submitted; });
    EXPECT_EQ(counts.finished, finished);
    EXPECT_EQ(counts.finished + counts.let_go, submitted);
    EXPECT_GT(counts.let_go, 0);
}

TEST(ThreadPool, stress_of_ten_thousand_jobs_and_withdrawals_on_one_loop) {
    Counts counts;
    int withdrawn = 0;
    constexpr int jobs = 10'000;
    asyncio::run([](Counts* c, int* gone) -> Coro<> {
        EventLoop& loop = get_running_loop();
        ThreadPool& pool = ThreadPool::of(loop);
        for (int i = 0; i < jobs; ++i) {
            Work& job = submit(loop, waited_for, c);
            if (i % 4 == 0 && pool.withdraw(job)) ++*gone;
            if (i % 64 == 0) co_await asyncio::sleep(0);
        }
    }(&counts, &withdrawn));
    EXPECT_EQ(counts.finished + withdrawn, jobs);
    EXPECT_EQ(counts.worked, counts.finished);
    EXPECT_EQ(counts.destroyed, jobs);
}
