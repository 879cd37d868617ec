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
// CASE_options_first: compiles

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
