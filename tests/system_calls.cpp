// SPDX-License-Identifier: MIT
// How many system calls things cost, counted in the table through which a loop makes all of them.
#include <asyncio/asyncio.hpp>
#include <asyncio/kernel/system_calls.hpp>
#include <gtest/gtest.h>

#include <cstddef>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <vector>

using namespace std::chrono_literals;
using asyncio::as_result;
using asyncio::Coro;
using asyncio::create_task;
using asyncio::get_running_loop;
using asyncio::SystemCalls;
using asyncio::Task;

namespace {

std::size_t made = 0; // while it runs, by any loop that uses counting_calls()

const SystemCalls& counting_calls() {
    static const SystemCalls calls = [] {
        SystemCalls table = SystemCalls::real();
        table.epoll_ctl = [](int epoll, int operation, int descriptor, epoll_event* event) {
            ++made;
            return SystemCalls::real().epoll_ctl(epoll, operation, descriptor, event);
        };
        table.epoll_wait = [](int epoll, epoll_event* events, int capacity, int timeout) {
            ++made;
            return SystemCalls::real().epoll_wait(epoll, events, capacity, timeout);
        };
        table.epoll_pwait2 = [](int epoll, epoll_event* events, int capacity,
                                const timespec* timeout, const sigset_t* mask) {
            ++made;
            return SystemCalls::real().epoll_pwait2(epoll, events, capacity, timeout, mask);
        };
        table.read = [](int descriptor, void* buffer, std::size_t size) {
            ++made;
            return SystemCalls::real().read(descriptor, buffer, size);
        };
        table.write = [](int descriptor, const void* buffer, std::size_t size) {
            ++made;
            return SystemCalls::real().write(descriptor, buffer, size);
        };
        return table;
    }();
    return calls;
}

template <class Body> void run_counted(Body body) {
    asyncio::run(body(),
                 asyncio::RunOptions().loop(asyncio::LoopOptions().system_calls(counting_calls())));
}

Coro<> nothing() { co_return; }
Coro<> yield_times(int times) {
    for (int i = 0; i < times; ++i) co_await asyncio::sleep(0);
}
Coro<> sleep_until_cancelled() { static_cast<void>(co_await as_result(asyncio::sleep(1h))); }

} // namespace

TEST(SystemCalls, the_counter_counts) {
    run_counted([]() -> Coro<> {
        const std::size_t before = made;
        co_await asyncio::sleep(1ns);
        EXPECT_GE(made - before, 1U) << "a sleep waits in the kernel";
    });
}

TEST(SystemCalls, tasks_timers_and_cancelling_make_none_while_no_descriptor_is_watched) {
    run_counted([]() -> Coro<> {
        asyncio::EventLoop& loop = get_running_loop();
        const std::size_t before = made;
        co_await yield_times(100);
        EXPECT_EQ(made - before, 0U) << "yield";

        co_await create_task(nothing());
        EXPECT_EQ(made - before, 0U) << "task";

        auto timer = loop.call_later(1h, [] {});
        co_await yield_times(2);
        timer.cancel();
        EXPECT_EQ(made - before, 0U) << "timer";

        auto task = create_task(sleep_until_cancelled());
        co_await yield_times(2);
        task.cancel();
        co_await yield_times(2);
        EXPECT_EQ(made - before, 0U) << "cancel";

        for (int i = 0; i < 100; ++i) loop.call_soon_threadsafe([] {});
        co_await yield_times(2);
        EXPECT_EQ(made - before, 0U) << "call_soon_threadsafe while the loop is awake";
        static_cast<void>(co_await as_result(task));
    });
}

TEST(SystemCalls, a_turn_polls_once_while_a_descriptor_is_watched_however_many_tasks_run_in_it) {
    run_counted([]() -> Coro<> {
        asyncio::EventLoop& loop = get_running_loop();
        int ends[2];
        const bool made_pair = ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0;
        EXPECT_TRUE(made_pair);
        loop.add_reader(ends[0], [] {});
        std::vector<Task<>> tasks;
        for (int i = 0; i < 100; ++i) tasks.push_back(create_task(yield_times(100)));
        co_await yield_times(2);
        const std::size_t before = made;
        co_await yield_times(50);
        EXPECT_EQ(made - before, 50U);
        for (const Task<>& task : tasks) co_await task;
        loop.remove_reader(ends[0]);
        ::close(ends[0]);
        ::close(ends[1]);
    });
}
