// SPDX-License-Identifier: MIT
//
// What is refused of futures and tasks, each with one sentence.

// CASE_await_task: fails only with "write `co_await std::move(future)` to move it out"
// CASE_await_future: fails only with "write `co_await std::move(future)` to move it out"
// CASE_await_const_future: fails only with "write `co_await std::move(future)` to move it out"
// CASE_await_vector: fails only with "write `co_await std::move(future)` to move it out"
// CASE_as_result: fails only with "write `co_await std::move(future)` to move it out"
// CASE_await_moved: compiles
// CASE_await_copyable: compiles

// CASE_set_result_of_task: fails only with "a task gets its result, or its exception,"
// CASE_set_void_result_of_task: fails only with "a task gets its result, or its exception,"
// CASE_set_exception_of_task: fails only with "a task gets its result, or its exception,"
// CASE_set_result_of_future: compiles

// CASE_options_last: fails only with "options come first: create_task(TaskOptions()"
// CASE_options_last_with_loop: fails only with "options come first: create_task(loop, Task"
// CASE_name_after_coroutine: fails only with "options come first: create_task(TaskOptions()"
// CASE_argument_after_coroutine: fails only with "create_task(loop, function, arguments...)"
// CASE_options_first: compiles

// CASE_task_of_plain_function: fails only with "a function that returns a coroutine"
// CASE_task_of_plain_function_with_loop: fails only with "a function that returns a coroutine"
// CASE_task_without_argument: fails only with "create_task takes a coroutine, another awaitable"
// CASE_task_of_number: fails only with "create_task takes a coroutine, another awaitable"
// CASE_task_of_number_with_options: fails only with "create_task takes a coroutine, another"
// CASE_task_with_loop_owner: fails only with "a loop and TaskOptions come first"
// CASE_task_of_task: fails only with "a task or future is under way already"
// CASE_task_of_future: fails only with "a task or future is under way already"
// CASE_task_of_task_with_options: fails only with "create_task takes a coroutine, another"
// CASE_tasks_right: compiles

// CASE_run_true: fails only with "RunOptions().debug(true)"
// CASE_run_loop_options: fails only with "run takes RunOptions after the coroutine"
// CASE_run_for_a_value: fails only with "RunOptions().debug(true)"
// CASE_run_plain_function: fails only with "run takes a coroutine, another awaitable, or a"
// CASE_run_number: fails only with "run takes a coroutine, another awaitable, or a"
// CASE_run_task: fails only with "run takes a coroutine, another awaitable, or a"
// CASE_run_right: compiles

// CASE_functions_of_yours: compiles

// CASE_over_aligned: fails only with "cannot be aligned to more than 16 bytes"
// CASE_rvalue_reference: fails only with "a future or task gives a value, an"

// CASE_done_callback: fails only with "a done-callback is called with the future"
// CASE_done_callback_of_two: fails only with "a done-callback is called with the future"
// CASE_done_callback_coroutine: fails only with "a done-callback that is a coroutine"
// CASE_done_callbacks: compiles

#include <asyncio/asyncio.hpp>

#include <memory>
#include <string>
#include <vector>

using asyncio::AnyFuture;
using asyncio::Coro;
using asyncio::Future;
using asyncio::Task;
using MoveOnly = std::unique_ptr<int>;

#ifdef CASE_await_task
Coro<MoveOnly> f(Task<MoveOnly> task) { co_return co_await task; }
#endif
#ifdef CASE_await_future
Coro<MoveOnly> f(Future<MoveOnly> future) { co_return co_await future; }
#endif
#ifdef CASE_await_const_future
Coro<MoveOnly> f(const Future<MoveOnly> future) { co_return co_await future; }
#endif
#ifdef CASE_await_vector
Coro<> f(Task<std::vector<MoveOnly>> task) { co_await task; }
#endif
#ifdef CASE_as_result
Coro<> f(Task<MoveOnly> task) { static_cast<void>(co_await asyncio::as_result(task)); }
#endif
#ifdef CASE_await_moved
Coro<> f(Task<MoveOnly> task, Future<std::vector<MoveOnly>> future, Task<MoveOnly> another) {
    co_await std::move(task);
    co_await std::move(future);
    static_cast<void>(co_await asyncio::as_result(std::move(another)));
}
#endif
#ifdef CASE_await_copyable
Coro<> f(Task<std::string> a, Future<> b, const Future<int&> c) {
    co_await a;
    co_await b;
    co_await c;
}
#endif

#ifdef CASE_set_result_of_task
void f(Task<int> task) { task.set_result(1); }
#endif
#ifdef CASE_set_void_result_of_task
void f(Task<> task) { task.set_result(); }
#endif
#ifdef CASE_set_exception_of_task
void f(Task<int> task) { task.set_exception(asyncio::RuntimeError("")); }
#endif
#ifdef CASE_set_result_of_future
void f(Future<int> a, Future<> b, Future<int&> c, int n) {
    a.set_result(1);
    b.set_result();
    c.set_result(n);
}
#endif

#ifdef CASE_options_last
asyncio::Coro<int> work();
void f() {
    asyncio::TaskOptions options;
    asyncio::create_task(work(), options);
    asyncio::create_task(work(), asyncio::TaskOptions().name("n"));
}
#endif
#ifdef CASE_options_first
asyncio::Coro<int> work();
void f() {
    asyncio::TaskOptions options;
    asyncio::create_task(options, work());
    asyncio::create_task(asyncio::TaskOptions().name("n"), work());
}
#endif

#ifdef CASE_options_last_with_loop
asyncio::Coro<int> work();
void f(asyncio::EventLoop& loop) {
    asyncio::create_task(loop, work(), asyncio::TaskOptions().name("n"));
}
#endif
#ifdef CASE_name_after_coroutine
asyncio::Coro<int> work();
void f() { asyncio::create_task(work(), "n"); }
#endif
#ifdef CASE_argument_after_coroutine
asyncio::Coro<int> work();
void f(asyncio::EventLoop& loop) { asyncio::create_task(loop, work(), 1, "n"); }
#endif
#ifdef CASE_task_of_plain_function
void work(int);
void f() { asyncio::create_task(work, 1); }
#endif
#ifdef CASE_task_of_plain_function_with_loop
void f(asyncio::EventLoop& loop) {
    asyncio::create_task(loop, [] { return 1; });
}
#endif
#ifdef CASE_task_without_argument
asyncio::Coro<int> work(int, int);
void f() { asyncio::create_task(work, 1); }
#endif
#ifdef CASE_task_of_number
void f(asyncio::EventLoop& loop) { asyncio::create_task(loop, 1); }
#endif
#ifdef CASE_task_of_number_with_options
void f(asyncio::EventLoop& loop) {
    asyncio::create_task(loop, asyncio::TaskOptions(), 1);
    asyncio::create_task(asyncio::TaskOptions(), 1);
}
#endif
#ifdef CASE_task_with_loop_owner
asyncio::Coro<int> work();
void f(asyncio::EventLoopOwner loop) { asyncio::create_task(loop, work()); }
#endif
#ifdef CASE_task_of_task
void f(Task<> task) { asyncio::create_task(task); }
#endif
#ifdef CASE_task_of_future
void f(const Future<int> future) { asyncio::create_task(future); }
#endif
#ifdef CASE_task_of_task_with_options
void f(Task<> task) { asyncio::create_task(asyncio::TaskOptions(), task); }
#endif
#ifdef CASE_tasks_right
asyncio::Coro<int> work(int, const char*);
void f(asyncio::EventLoop& loop, std::source_location where) {
    const asyncio::TaskOptions options;
    asyncio::create_task(work(1, "text"), where);
    asyncio::create_task(loop, work(1, "text"), where);
    asyncio::create_task(options, work(1, "text"), where);
    asyncio::create_task(loop, options, work(1, "text"), where);
    asyncio::create_task(work, 1, "text");
    asyncio::create_task(loop, work, 1, "text");
    asyncio::create_task(options, work, 1, "text");
    asyncio::create_task(loop, options, work, 1, "text");
    asyncio::create_task(asyncio::sleep(1));
    asyncio::create_task(loop, asyncio::sleep(1), where);
    asyncio::create_task(options, asyncio::sleep(1, 1));
    asyncio::create_task(loop, options, asyncio::sleep(0), where);
    asyncio::create_task({}, work(1, "text"));
}
#endif

#ifdef CASE_run_true
asyncio::Coro<int> work();
void f() { asyncio::run(work(), true); }
#endif
#ifdef CASE_run_loop_options
asyncio::Coro<> work();
void f() { asyncio::run(work(), asyncio::LoopOptions().debug(true)); }
#endif
#ifdef CASE_run_for_a_value
asyncio::Coro<std::string> work(bool);
std::string f() { return asyncio::run(work(true), true, 1); }
#endif
#ifdef CASE_run_plain_function
int f() {
    return asyncio::run([] { return 1; });
}
#endif
#ifdef CASE_run_number
void f() { asyncio::run(1); }
#endif
#ifdef CASE_run_task
void f(Task<> task) { asyncio::run(task); }
#endif
#ifdef CASE_run_right
asyncio::Coro<int> work(int = 1);
int f() {
    asyncio::RunOptions options;
    asyncio::run(work(), options);
    asyncio::run(work(), asyncio::RunOptions().debug(true));
    asyncio::run(work(), {});
    asyncio::run(options, work, 1);
    asyncio::run(work, 1);
    asyncio::run([] { return work(); });
    asyncio::run(asyncio::sleep(1), options);
    return asyncio::run(work());
}
#endif

#ifdef CASE_functions_of_yours // are found beside ours, and fit better than a refusal
namespace yours {
asyncio::Coro<int> work();
Task<int> create_task(Coro<int> coroutine, std::string) {
    return asyncio::create_task(std::move(coroutine));
}
template <class T> T run(Coro<T> coroutine, long) { return asyncio::run(std::move(coroutine)); }
void wait(Task<int>, double);
void wait_for(const AnyFuture&, std::string);
void timeout(Task<int>, long);
struct Many {
    Many(std::vector<Task<int>>);
};
void gather(Many);
void f() {
    const auto task = create_task(work(), "name");
    run(work(), 1);
    wait(task, 1);
    wait_for(task, "text");
    timeout(task, 1);
    gather(std::vector{task});
}
} // namespace yours
#endif

struct alignas(32) OverAligned {
    int number;
};
#ifdef CASE_over_aligned
void f() { static_cast<void>(asyncio::create_future<OverAligned>()); }
#endif
#ifdef CASE_rvalue_reference
void f() { static_cast<void>(asyncio::create_future<int&&>()); }
#endif

#ifdef CASE_done_callback
void f(Future<int> future) {
    future.add_done_callback([](std::string) {});
}
#endif
#ifdef CASE_done_callback_of_two
void f(Task<int> task) {
    task.add_done_callback([](Task<int>, int) {});
}
#endif
#ifdef CASE_done_callback_coroutine
void f(Future<int> future) {
    future.add_done_callback([](Future<int>) -> Coro<> { co_return; });
}
#endif
#ifdef CASE_done_callbacks
void f(Future<int> future, Task<int> task, AnyFuture any) {
    future.add_done_callback([](Future<int>) {});
    future.add_done_callback([](const AnyFuture&) { return 1; });
    task.add_done_callback([](Task<int>) {});
    task.add_done_callback([](const Future<int>&) {});
    any.add_done_callback([](AnyFuture) {});
    any.add_done_callback([] {});
}
#endif
