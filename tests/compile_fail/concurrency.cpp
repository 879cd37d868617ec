// SPDX-License-Identifier: MIT
//
// What is refused of floor 4, each with one sentence; and what stands next to it and is right.
// Temporaries that GCC 12 destroys twice are in temporaries.cpp.

// CASE_group_body_of_nothing: fails only with "task_group takes a body, after a TaskGroup"
// CASE_group_body_of_a_value: fails only with "task_group takes a body, after a TaskGroup"
// CASE_group_body_is_a_coroutine: fails only with "task_group takes a body, after a TaskGroup"
// CASE_group_body_takes_a_copy: fails with "task_group takes a body, after a TaskGroup"
// CASE_group_comes_last: fails only with "task_group takes a body, after a TaskGroup"
// CASE_group_for_a_value: fails only with "task_group takes a body, after a TaskGroup"
// CASE_group_dropped: fails only with "a coroutine does nothing until"
// CASE_group_task_options_last: fails only with "options come first: create_task(TaskOptions()"
// CASE_group_task_name: fails only with "options come first: create_task(TaskOptions()"
// CASE_group_task_of_nothing: fails only with "create_task takes a coroutine, another"
// CASE_group_task_of_nothing_with_options: fails only with "create_task takes a coroutine, another"
// CASE_group_task_of_a_task: fails only with "create_task takes a coroutine, another"
// CASE_group_right: compiles
// CASE_timeout_last: fails only with "timeout takes the time first, then a body"
// CASE_timeout_of_a_coroutine: fails only with "wait_for(coroutine, 2s)"
// CASE_timeout_of_nothing: fails only with "timeout takes the time first, then a body"
// CASE_timeout_without_body: fails only with "timeout takes the time first, then a body"
// CASE_timeout_body_takes_an_int: fails only with "timeout takes the time first, then a body"
// CASE_timeout_dropped: fails only with "a coroutine does nothing until"
// CASE_timeout_at_a_delay: fails only with "timeout_at takes a time on the loop's clock first"
// CASE_timeout_right: compiles
// CASE_wait_for_the_time_first: fails only with "wait_for takes what is awaited,"
// CASE_wait_for_ever: fails only with "wait_for takes what is awaited,"
// CASE_wait_for_a_number: fails only with "wait_for takes what is awaited,"
// CASE_wait_for_a_function_with_arguments: fails only with "wait_for takes what is awaited,"
// CASE_wait_for_a_named_coroutine: fails with "awaited once: hand it on with std::move"
// CASE_wait_for_dropped: fails only with "a coroutine does nothing until"
// CASE_wait_for_right: compiles
// CASE_wait_of_one: fails only with "wait takes a range of tasks or futures, then"
// CASE_wait_of_two: fails only with "wait takes a range of tasks or futures, then"
// CASE_wait_time_second: fails only with "wait takes a range of tasks or futures, then"
// CASE_wait_for_coroutines: fails only with "make a task of each coroutine first, by"
// CASE_wait_dropped: fails only with "a coroutine does nothing until"
// CASE_wait_right: compiles
// CASE_as_completed_of_two: fails only with "as_completed takes a range of what"
// CASE_as_completed_of_numbers: fails only with "as_completed takes a range of what"
// CASE_as_completed_next_dropped: fails only with "a coroutine does nothing until"
// CASE_shield_a_number: fails only with "shield takes a coroutine, a task, a future,"
// CASE_ensure_a_number: fails only with "ensure_future takes a coroutine, a task"
// CASE_ensure_a_number_with_loop: fails only with "ensure_future takes a coroutine, a task"
// CASE_gather_a_number: fails only with "gather takes coroutines, tasks, futures,"
// CASE_gather_a_number_for_results: fails only with "gather takes coroutines, tasks, futures,"
// CASE_gather_numbers: fails only with "gather takes coroutines, tasks, futures,"
// CASE_futures_right: compiles
// CASE_threadsafe_the_loop_first: fails with "run_coroutine_threadsafe takes a coroutine"
// CASE_threadsafe_of_nothing: fails with "run_coroutine_threadsafe takes a coroutine"
// CASE_threadsafe_awaited: fails only with "co_await takes a Coro, a Task, a Future"
// CASE_threadsafe_right: compiles
// CASE_lock_acquire_dropped: fails only with "nobody waits, and nothing is had, until"
// CASE_lock_scoped_dropped: fails only with "nobody waits, and nothing is had, until"
// CASE_event_wait_dropped: fails only with "nobody waits, and nothing is had, until"
// CASE_condition_wait_dropped: fails only with "a coroutine does nothing until"
// CASE_condition_wait_for_dropped: fails only with "a coroutine does nothing until"
// CASE_semaphore_acquire_dropped: fails only with "nobody waits, and nothing is had, until"
// CASE_barrier_wait_dropped: fails only with "a coroutine does nothing until"
// CASE_queue_put_dropped: fails only with "nothing is put until it is awaited"
// CASE_queue_get_dropped: fails only with "nobody waits, and nothing is had, until"
// CASE_queue_join_dropped: fails only with "nobody waits, and nothing is had, until"
// CASE_generator_next_dropped: fails only with "nothing runs until it is awaited"
// CASE_generator_close_dropped: fails only with "nothing is closed until it is awaited"
// CASE_scoped_released: compiles
// CASE_scoped_released [clang]: fails only with "it is released at once unless kept"
// CASE_scoped_right: compiles

#include <asyncio/asyncio.hpp>

#include <coroutine>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

using asyncio::Coro;
using asyncio::Task;
using asyncio::TaskGroup;
using asyncio::TaskOptions;
using namespace std::chrono_literals;

Coro<int> one() { co_return 1; }
Coro<> two(int, long) { co_return; }
Coro<> body(TaskGroup&) { co_return; }

#ifdef CASE_group_body_of_nothing
Coro<> f() {
    co_await asyncio::task_group([](TaskGroup&) {});
}
#endif
#ifdef CASE_group_body_of_a_value
Coro<> f() {
    co_await asyncio::task_group([](TaskGroup& group) { return group.has_tasks(); });
}
#endif
#ifdef CASE_group_body_is_a_coroutine
Coro<> f() { co_await asyncio::task_group(one()); }
#endif
#ifdef CASE_group_body_takes_a_copy
Coro<> f() {
    co_await asyncio::task_group([](TaskGroup) -> Coro<> { co_return; });
}
#endif
#ifdef CASE_group_comes_last
Coro<> f(TaskGroup& group) { co_await asyncio::task_group(body, group); }
#endif
#ifdef CASE_group_for_a_value
Coro<int> f() {
    int n = co_await asyncio::task_group([] { return 1; });
    co_return n;
}
#endif
#ifdef CASE_group_dropped
void f() { asyncio::task_group(body); }
#endif
#ifdef CASE_group_task_options_last
void f(TaskGroup& group) { group.create_task(one(), TaskOptions().name("n")); }
#endif
#ifdef CASE_group_task_name
void f(TaskGroup& group) { group.create_task(one(), "n"); }
#endif
#ifdef CASE_group_task_of_nothing
void f(TaskGroup& group) {
    group.create_task([] {});
}
#endif
#ifdef CASE_group_task_of_nothing_with_options
void f(TaskGroup& group) {
    group.create_task(TaskOptions().name("n"), [] {});
}
#endif
#ifdef CASE_group_task_of_a_task
void f(TaskGroup& group, Task<> task) { group.create_task(task); }
#endif
#ifdef CASE_group_right
Coro<> f(TaskGroup& group) {
    co_await asyncio::task_group(body);
    co_await asyncio::task_group([]() -> Coro<> { co_return; });
    int n = co_await asyncio::task_group(group, [&](TaskGroup& g) -> Coro<int> {
        g.create_task(one());
        g.create_task(TaskOptions().name("n"), one());
        g.create_task(two, 1, 2L);
        g.create_task(TaskOptions().name("n"), two, 1, 2L);
        g.create_task(asyncio::sleep(1s));
        g.create_task(TaskOptions().name("n"), asyncio::sleep(1s));
        co_return 1;
    });
    static_cast<void>(n);
}
#endif
#ifdef CASE_timeout_last
Coro<> f() { co_await asyncio::timeout(one, 2s); }
#endif
#ifdef CASE_timeout_of_a_coroutine
Coro<> f() { co_await asyncio::timeout(2s, one()); }
#endif
#ifdef CASE_timeout_of_nothing
Coro<> f() {
    co_await asyncio::timeout(2s, [] {});
}
#endif
#ifdef CASE_timeout_without_body
Coro<> f() { co_await asyncio::timeout(2s); }
#endif
#ifdef CASE_timeout_body_takes_an_int
Coro<> f() {
    co_await asyncio::timeout(2s, [](int) -> Coro<> { co_return; });
}
#endif
#ifdef CASE_timeout_dropped
void f() { asyncio::timeout(2s, one); }
#endif
#ifdef CASE_timeout_at_a_delay
Coro<> f() { co_await asyncio::timeout_at(2s, one); }
#endif
#ifdef CASE_timeout_right
Coro<> f(std::optional<asyncio::Delay> delay, asyncio::Timeout& limit) {
    co_await asyncio::timeout(2s, one);
    co_await asyncio::timeout(2, one);
    co_await asyncio::timeout(0.5, [](asyncio::Timeout&) -> Coro<> { co_return; });
    co_await asyncio::timeout(std::nullopt, one);
    co_await asyncio::timeout(delay, one);
    co_await asyncio::timeout(limit, [&](asyncio::Timeout& t) mutable -> Coro<> {
        t.reschedule(std::nullopt);
        co_return;
    });
    co_await asyncio::timeout_at(asyncio::get_running_loop().time() + 2s, one);
    co_await asyncio::timeout_at(std::nullopt, one);
}
#endif
#ifdef CASE_wait_for_the_time_first
Coro<> f() { co_await asyncio::wait_for(2s, one()); }
#endif
#ifdef CASE_wait_for_ever
Coro<> f() { co_await asyncio::wait_for(one()); }
#endif
#ifdef CASE_wait_for_a_number
Coro<> f() { co_await asyncio::wait_for(1, 2s); }
#endif
#ifdef CASE_wait_for_a_function_with_arguments
Coro<> f() { co_await asyncio::wait_for(two, 2s); }
#endif
#ifdef CASE_wait_for_a_named_coroutine
Coro<> f() {
    auto named = one();
    co_await asyncio::wait_for(named, 2s);
}
#endif
#ifdef CASE_wait_for_dropped
void f() { asyncio::wait_for(one(), 2s); }
#endif
#ifdef CASE_wait_for_right
Coro<> f(Task<> task, std::optional<asyncio::Delay> delay) {
    int n = co_await asyncio::wait_for(one(), 2s);
    n += co_await asyncio::wait_for(one, 2);
    auto named = one();
    n += co_await asyncio::wait_for(std::move(named), n);
    co_await asyncio::wait_for(task, std::nullopt);
    co_await asyncio::wait_for(asyncio::shield(task), delay);
    co_await asyncio::wait_for(asyncio::sleep(1s), {});
    co_await asyncio::wait_for(std::suspend_never(), 2s);
}
#endif
#ifdef CASE_wait_of_one
Coro<> f(Task<> task) { co_await asyncio::wait(task); }
#endif
#ifdef CASE_wait_of_two
Coro<> f(Task<> a, Task<> b) { co_await asyncio::wait(a, b); }
#endif
#ifdef CASE_wait_time_second
Coro<> f(std::vector<Task<>> tasks) { co_await asyncio::wait(tasks, 2s); }
#endif
#ifdef CASE_wait_for_coroutines
Coro<> f(std::vector<Coro<>> tasks) { co_await asyncio::wait(tasks); }
#endif
#ifdef CASE_wait_dropped
void f(std::vector<Task<>> tasks) { asyncio::wait(tasks); }
#endif
#ifdef CASE_wait_right
Coro<> f(std::vector<Task<>> tasks, std::optional<asyncio::Delay> delay) {
    co_await asyncio::wait(tasks);
    co_await asyncio::wait(tasks, asyncio::FIRST_COMPLETED);
    co_await asyncio::wait(tasks, asyncio::FIRST_EXCEPTION, 2s);
    co_await asyncio::wait(tasks, asyncio::ALL_COMPLETED, delay);
    co_await asyncio::wait(std::as_const(tasks), asyncio::ALL_COMPLETED, std::nullopt);
    co_await asyncio::wait(std::move(tasks), {}, {});
}
#endif
#ifdef CASE_as_completed_of_two
void f(Task<> a, Task<> b) { auto ended = asyncio::as_completed(a, b); }
#endif
#ifdef CASE_as_completed_of_numbers
void f(std::vector<int> numbers) { auto ended = asyncio::as_completed(numbers); }
#endif
#ifdef CASE_as_completed_next_dropped
void f(asyncio::AsCompleted<Task<>> ended) { ended.next(); }
#endif
#ifdef CASE_shield_a_number
Coro<> f() { co_await asyncio::shield(1); }
#endif
#ifdef CASE_ensure_a_number
void f() { auto future = asyncio::ensure_future(1); }
#endif
#ifdef CASE_ensure_a_number_with_loop
void f(asyncio::EventLoop& loop) { asyncio::ensure_future(loop, 1); }
#endif
#ifdef CASE_gather_a_number
Coro<> f() { co_await asyncio::gather(one(), 1); }
#endif
#ifdef CASE_gather_a_number_for_results
Coro<> f() { co_await asyncio::gather(asyncio::return_exceptions, 1); }
#endif
#ifdef CASE_gather_numbers
Coro<> f(std::vector<int> numbers) { co_await asyncio::gather(numbers); }
#endif
#ifdef CASE_futures_right
Coro<> f(Task<> task, asyncio::Future<int> future, std::vector<Coro<int>> coroutines,
         const std::vector<Task<>> tasks, asyncio::EventLoop& loop) {
    co_await asyncio::shield(task);
    co_await asyncio::shield(one());
    co_await asyncio::shield(one);
    co_await asyncio::shield(asyncio::sleep(1s));
    co_await asyncio::ensure_future(future);
    co_await asyncio::ensure_future(loop, one());
    co_await asyncio::gather();
    co_await asyncio::gather(asyncio::return_exceptions);
    co_await asyncio::gather(task, future, one(), one, asyncio::sleep(1s));
    co_await asyncio::gather(asyncio::return_exceptions, task, future, one(), one);
    co_await asyncio::gather(tasks);
    co_await asyncio::gather(asyncio::return_exceptions, tasks);
    auto ended = asyncio::as_completed(std::move(coroutines), 2s);
    while (auto each = co_await ended.next()) co_await *each;
    Task<> array[] = {task, task};
    co_await asyncio::as_completed(array).next();
}
#endif
#ifdef CASE_threadsafe_the_loop_first
void f(asyncio::EventLoop& loop) { asyncio::run_coroutine_threadsafe(loop, one()); }
#endif
#ifdef CASE_threadsafe_of_nothing
void f(asyncio::EventLoop& loop) {
    asyncio::run_coroutine_threadsafe([] {}, loop);
}
#endif
#ifdef CASE_threadsafe_awaited
Coro<> f(asyncio::EventLoop& loop) { co_await asyncio::run_coroutine_threadsafe(one(), loop); }
#endif
#ifdef CASE_threadsafe_right
void f(asyncio::EventLoop& loop, std::shared_ptr<int> p) {
    asyncio::run_coroutine_threadsafe(one(), loop);
    asyncio::run_coroutine_threadsafe(one, loop).result(2s);
    asyncio::run_coroutine_threadsafe([p]() -> Coro<int> { co_return *p; }, loop);
}
#endif
#ifdef CASE_lock_acquire_dropped
asyncio::Lock lock;
void f() { lock.acquire(); }
#endif
#ifdef CASE_lock_scoped_dropped
asyncio::Lock lock;
void f() { lock.scoped(); }
#endif
#ifdef CASE_event_wait_dropped
asyncio::Event event;
void f() { event.wait(); }
#endif
#ifdef CASE_condition_wait_dropped
asyncio::Condition condition;
void f() { condition.wait(); }
#endif
#ifdef CASE_condition_wait_for_dropped
asyncio::Condition condition;
void f() {
    condition.wait_for([] { return true; });
}
#endif
#ifdef CASE_semaphore_acquire_dropped
asyncio::Semaphore semaphore(1);
void f() { semaphore.acquire(); }
#endif
#ifdef CASE_barrier_wait_dropped
asyncio::Barrier barrier(1);
void f() { barrier.wait(); }
#endif
#ifdef CASE_queue_put_dropped
asyncio::Queue<int> queue;
void f() { queue.put(1); }
#endif
#ifdef CASE_queue_get_dropped
asyncio::Queue<int> queue;
void f() { queue.get(); }
#endif
#ifdef CASE_queue_join_dropped
asyncio::Queue<int> queue;
void f() { queue.join(); }
#endif
#ifdef CASE_generator_next_dropped
void f(asyncio::AsyncGenerator<int> numbers) { numbers.next(); }
#endif
#ifdef CASE_generator_close_dropped
void f(asyncio::AsyncGenerator<int> numbers) { numbers.aclose(); }
#endif
#ifdef CASE_scoped_released
asyncio::Lock lock;
Coro<> f() { co_await lock.scoped(); }
#endif
#ifdef CASE_scoped_right
asyncio::Lock lock;
Coro<> f() { auto held = co_await lock.scoped(); }
#endif
