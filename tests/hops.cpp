// SPDX-License-Identifier: MIT
// How many turns of the loop lie between a suspension and its end: the numbers of CPython 3.14.
#include <asyncio/asyncio.hpp>

#include "support/turns.hpp"

#include <gtest/gtest.h>

#include <ostream>
#include <thread>

using asyncio::Coro;
using asyncio::create_future;
using asyncio::create_task;
using asyncio::gather;
using asyncio::get_running_loop;
using asyncio_test::Turns;

namespace {

Coro<> nop() { co_return; }
Coro<> forever() { co_await create_future(); }

Coro<int> await_a_done_future(Turns& turns) {
    auto future = create_future<int>();
    future.set_result(1);
    const int begin = turns.now();
    co_await future;
    co_return turns.now() - begin;
}

Coro<int> await_a_failed_future(Turns& turns) {
    auto future = create_future<int>();
    future.set_exception(asyncio::ValueError("no"));
    const int begin = turns.now();
    try {
        co_await future;
        co_return -1;
    } catch (const asyncio::ValueError&) {
    }
    co_return turns.now() - begin;
}

Coro<int> await_a_done_task(Turns& turns) {
    auto task = create_task(nop());
    co_await task;
    const int begin = turns.now();
    co_await task;
    co_return turns.now() - begin;
}

Coro<int> await_a_coroutine(Turns& turns) {
    const int begin = turns.now();
    co_await nop();
    co_return turns.now() - begin;
}

Coro<int> sleep_0(Turns& turns) {
    const int begin = turns.now();
    co_await asyncio::sleep(0);
    co_return turns.now() - begin;
}

Coro<int> sleep_below_0(Turns& turns) {
    const int begin = turns.now();
    co_await asyncio::sleep(-1);
    co_return turns.now() - begin;
}

Coro<int> late_done_callback(Turns& turns) {
    auto future = create_future();
    future.set_result();
    const int begin = turns.now();
    int end = -1;
    future.add_done_callback([&] { end = turns.now(); });
    while (end < 0) co_await asyncio::sleep(0);
    co_return end - begin;
}

// From the turn of the timer, which is that of a callback due at the same time.
Coro<int> sleep_d(Turns& turns) {
    int begin = -1;
    get_running_loop().call_later(1, [&] { begin = turns.now(); });
    co_await asyncio::sleep(1);
    co_return turns.now() - begin;
}

Coro<int> future_set_by_a_callback(Turns& turns) {
    auto future = create_future();
    get_running_loop().call_soon([future] { future.set_result(); });
    const int begin = turns.now();
    co_await future;
    co_return turns.now() - begin;
}

Coro<int> future_set_by_call_soon_threadsafe(Turns& turns) {
    auto future = create_future();
    get_running_loop().call_soon_threadsafe([future] { future.set_result(); });
    const int begin = turns.now();
    co_await future;
    co_return turns.now() - begin;
}

// From the turn of the callback.
Coro<int> future_set_by_another_thread(Turns& turns) {
    auto future = create_future();
    int begin = -1;
    std::thread other([&, &loop = get_running_loop()] {
        loop.call_soon_threadsafe([&] {
            begin = turns.now();
            future.set_result();
        });
    });
    other.join();
    co_await future;
    co_return turns.now() - begin;
}

Coro<int> await_a_new_task(Turns& turns) {
    auto task = create_task(nop());
    const int begin = turns.now();
    co_await task;
    co_return turns.now() - begin;
}

Coro<int> await_a_new_task_of_a_callable(Turns& turns) {
    auto task = create_task(nop);
    const int begin = turns.now();
    co_await task;
    co_return turns.now() - begin;
}

Coro<int> gather_of_coroutines(Turns& turns) {
    const int begin = turns.now();
    co_await gather(nop(), nop(), nop());
    co_return turns.now() - begin;
}

Coro<int> gather_of_a_range(Turns& turns) {
    std::vector<Coro<>> all;
    for (int i = 0; i < 3; ++i) all.push_back(nop());
    const int begin = turns.now();
    co_await gather(std::move(all));
    co_return turns.now() - begin;
}

Coro<int> gather_of_nothing(Turns& turns) {
    const int begin = turns.now();
    co_await gather();
    co_return turns.now() - begin;
}

Coro<int> gather_of_done_futures(Turns& turns) {
    auto future = create_future();
    future.set_result();
    auto task = create_task(nop());
    co_await task;
    const int begin = turns.now();
    co_await gather(future, task);
    co_return turns.now() - begin;
}

template <class T> Coro<> until_cancelled(asyncio::Task<T> task) {
    try {
        co_await task;
        ADD_FAILURE() << "it was not cancelled";
    } catch (const asyncio::CancelledError&) {
    }
}

Coro<int> cancel_of_a_waiting_task(Turns& turns) {
    auto task = create_task(forever());
    co_await asyncio::sleep(0);
    const int begin = turns.now();
    task.cancel();
    co_await until_cancelled(task);
    co_return turns.now() - begin;
}

Coro<> sleep_long() { co_await asyncio::sleep(1000); }

Coro<int> cancel_of_a_sleeping_task(Turns& turns) {
    auto task = create_task(sleep_long());
    co_await asyncio::sleep(0);
    const int begin = turns.now();
    task.cancel();
    co_await until_cancelled(task);
    co_return turns.now() - begin;
}

Coro<int> cancel_of_a_task_not_started(Turns& turns) {
    auto task = create_task(forever());
    const int begin = turns.now();
    task.cancel();
    co_await until_cancelled(task);
    co_return turns.now() - begin;
}

// A task that awaits itself gets its error in a step of its own.
Coro<int> await_of_itself(Turns& turns) {
    const asyncio::AnyTask self = asyncio::current_task();
    const int begin = turns.now();
    try {
        co_await self;
        co_return -1;
    } catch (const asyncio::RuntimeError&) {
    }
    co_return turns.now() - begin;
}

struct Row {
    const char* operation;
    Coro<int> (*measure)(Turns&);
    int turns;
};

constexpr Row rows[] = {
    {"await_a_done_future", await_a_done_future, 0},
    {"await_a_failed_future", await_a_failed_future, 0},
    {"await_a_done_task", await_a_done_task, 0},
    {"await_a_coroutine", await_a_coroutine, 0},
    {"sleep_0", sleep_0, 1},
    {"sleep_below_0", sleep_below_0, 1},
    {"late_done_callback", late_done_callback, 1},
    {"sleep_d_after_its_timer", sleep_d, 1},
    {"future_set_by_a_callback", future_set_by_a_callback, 2},
    {"future_set_by_call_soon_threadsafe", future_set_by_call_soon_threadsafe, 2},
    {"future_set_by_another_thread", future_set_by_another_thread, 1},
    {"await_a_new_task", await_a_new_task, 2},
    {"await_a_new_task_of_a_callable", await_a_new_task_of_a_callable, 2},
    {"gather_of_coroutines", gather_of_coroutines, 3},
    {"gather_of_a_range", gather_of_a_range, 3},
    {"gather_of_nothing", gather_of_nothing, 0},
    {"gather_of_done_futures", gather_of_done_futures, 0},
    {"cancel_of_a_waiting_task", cancel_of_a_waiting_task, 2},
    {"cancel_of_a_sleeping_task", cancel_of_a_sleeping_task, 2},
    {"cancel_of_a_task_not_started", cancel_of_a_task_not_started, 2},
    {"await_of_itself", await_of_itself, 1},
};

void PrintTo(const Row& row, std::ostream* out) { *out << row.operation; }

class Hops : public testing::TestWithParam<Row> {};

TEST_P(Hops, take_as_many_turns_as_in_cpython) {
    Turns turns;
    EXPECT_EQ(turns.run(GetParam().measure, turns), GetParam().turns);
}

INSTANTIATE_TEST_SUITE_P(Table, Hops, testing::ValuesIn(rows),
                         [](const testing::TestParamInfo<Row>& row) {
                             return std::string(row.param.operation);
                         });

} // namespace
