// SPDX-License-Identifier: MIT
//
// Prints what the frames of typical coroutines take, and the types that live in them or stand for
// a task: "row unit size" in lines, for ./run. A frame's size is what the compiler asks the frame
// pool for, so this program stands in for the pool.
#include <asyncio/asyncio.hpp>
#include <asyncio/detail/frame_pool.hpp>

#include <chrono>
#include <cstddef>
#include <cstdio>
#include <new>
#include <utility>
#include <vector>

namespace {
std::size_t first_request = 0; // since this was set to 0
}

ASYNCIO_BEGIN_NAMESPACE
namespace detail {
void* pool_allocate(std::size_t size) {
    if (first_request == 0) first_request = size;
    return ::operator new(size);
}
void pool_deallocate(void* block, std::size_t) noexcept { ::operator delete(block); }
std::size_t pool_mapped_bytes() noexcept { return 0; }
} // namespace detail
ASYNCIO_END_NAMESPACE

namespace {

using namespace std::chrono_literals;
using asyncio::Coro;

// ---- Coroutines as users write them. Not inlined, or Clang may leave out the frame.
#define OUT_OF_LINE [[gnu::noinline]]

OUT_OF_LINE Coro<> returns() { co_return; }
OUT_OF_LINE Coro<int> returns_int() { co_return 1; }
OUT_OF_LINE Coro<> yields() { co_await asyncio::sleep(0); }
OUT_OF_LINE Coro<> sleeps() { co_await asyncio::sleep(1s); }
OUT_OF_LINE Coro<> sleeps_twice() {
    co_await asyncio::sleep(1s);
    co_await asyncio::sleep(2s);
}
OUT_OF_LINE Coro<> awaits_child() { co_await returns(); }
OUT_OF_LINE Coro<int> awaits_two_children() {
    const int first = co_await returns_int();
    const int second = co_await returns_int();
    co_return first + second;
}
OUT_OF_LINE Coro<> awaits_task() { co_await asyncio::create_task(returns()); }
OUT_OF_LINE Coro<int> awaits_future(asyncio::Future<int> future) { co_return co_await future; }
OUT_OF_LINE Coro<> gathers_two() { co_await asyncio::gather(returns(), returns()); }
OUT_OF_LINE Coro<> gathers_range() {
    std::vector<Coro<>> many;
    co_await asyncio::gather(std::move(many));
}
OUT_OF_LINE Coro<> sleeps_as_result() {
    static_cast<void>(co_await asyncio::as_result(asyncio::sleep(1s)));
}
OUT_OF_LINE Coro<> child_as_result() {
    static_cast<void>(co_await asyncio::as_result(returns_int()));
}
OUT_OF_LINE Coro<int> finally() { co_return co_await asyncio::try_finally(returns_int, returns); }
OUT_OF_LINE Coro<> acquires(asyncio::Lock& lock) {
    co_await lock.acquire();
    lock.release();
}
OUT_OF_LINE Coro<> acquires_scoped(asyncio::Lock& lock) { auto held = co_await lock.scoped(); }
OUT_OF_LINE Coro<> acquires_permit(asyncio::Semaphore& semaphore) {
    auto held = co_await semaphore.scoped();
}
OUT_OF_LINE Coro<> waits_for_event(asyncio::Event& event) { co_await event.wait(); }
OUT_OF_LINE Coro<> puts(asyncio::Queue<int>& queue) { co_await queue.put(1); }
OUT_OF_LINE Coro<int> gets(asyncio::Queue<int>& queue) { co_return co_await queue.get(); }
OUT_OF_LINE Coro<> awaits_timeout() { co_await asyncio::timeout(1s, returns); }
OUT_OF_LINE Coro<> awaits_wait_for() { co_await asyncio::wait_for(returns(), 1s); }
OUT_OF_LINE Coro<> fills(asyncio::TaskGroup&) { co_return; }
OUT_OF_LINE Coro<> awaits_group() { co_await asyncio::task_group(fills); }
OUT_OF_LINE Coro<int> main_of_a_program() {
    auto first = asyncio::create_task(returns_int());
    auto second = asyncio::create_task(returns_int());
    co_await asyncio::sleep(1s);
    const int one = co_await first;
    const int two = co_await second;
    co_return one + two;
}

void print(const char* name, std::size_t bytes) { std::printf("%s bytes %zu\n", name, bytes); }

template <class Make> void frame(const char* name, Make make) {
    first_request = 0;
    const auto coroutine = make(); // destroyed without being awaited
    print(name, first_request);
}

Coro<> print_frames() {
    asyncio::get_running_loop().set_exception_handler(
        [](asyncio::EventLoop&, const asyncio::ExceptionContext&) {});
    frame("frame.returns", returns);
    frame("frame.returns_int", returns_int);
    frame("frame.yields", yields);
    frame("frame.sleeps", sleeps);
    frame("frame.sleeps_twice", sleeps_twice);
    frame("frame.sleeps_as_result", sleeps_as_result);
    frame("frame.awaits_child", awaits_child);
    frame("frame.awaits_two_children", awaits_two_children);
    frame("frame.child_as_result", child_as_result);
    frame("frame.awaits_task", awaits_task);
    auto future = asyncio::create_future<int>();
    frame("frame.awaits_future", [&] { return awaits_future(future); });
    frame("frame.gathers_two", gathers_two);
    frame("frame.gathers_range", gathers_range);
    frame("frame.finally", finally);
    frame("frame.try_finally", [] { return asyncio::try_finally(returns_int, returns); });
    frame("frame.main_of_a_program", main_of_a_program);
    asyncio::Lock lock;
    asyncio::Semaphore semaphore;
    asyncio::Event event;
    asyncio::Condition condition;
    asyncio::Barrier barrier(1);
    asyncio::Queue<int> queue;
    frame("frame.acquires", [&] { return acquires(lock); });
    frame("frame.acquires_scoped", [&] { return acquires_scoped(lock); });
    frame("frame.acquires_permit", [&] { return acquires_permit(semaphore); });
    frame("frame.waits_for_event", [&] { return waits_for_event(event); });
    frame("frame.condition_wait", [&] { return condition.wait(); });
    frame("frame.barrier_wait", [&] { return barrier.wait(); });
    frame("frame.puts", [&] { return puts(queue); });
    frame("frame.gets", [&] { return gets(queue); });
    frame("frame.awaits_timeout", awaits_timeout);
    frame("frame.timeout", [] { return asyncio::timeout(1s, returns); });
    frame("frame.awaits_wait_for", awaits_wait_for);
    Coro<> waited = returns();
    frame("frame.wait_for", [&] { return asyncio::wait_for(std::move(waited), 1s); });
    frame("frame.awaits_group", awaits_group);
    frame("frame.task_group", [] { return asyncio::task_group(fills); });
    co_return;
}

template <class T> void type(const char* name) { print(name, sizeof(T)); }

void print_types() {
    namespace detail = asyncio::detail;
    type<Coro<>>("type.Coro<>");
    type<asyncio::Task<>>("type.Task<>");
    type<asyncio::Future<int>>("type.Future<int>");
    type<asyncio::Handle>("type.Handle");
    type<asyncio::TimerHandle>("type.TimerHandle");
    type<asyncio::EventLoop>("type.EventLoop");
    type<asyncio::Result<int>>("type.Result<int>");
    type<detail::TaskState<void>>("type.TaskState<void>");
    type<detail::TaskState<int>>("type.TaskState<int>");
    type<detail::FutureState<int>>("type.FutureState<int>");
    type<detail::HandleState>("type.HandleState");
    type<detail::ThreadSafeState>("type.ThreadSafeState");
    type<detail::Promise<void>>("type.Promise<void>");
    type<detail::Promise<int>>("type.Promise<int>");
    type<detail::CoroAwaiter<void>>("type.CoroAwaiter<void>");
    type<detail::SleepAwaiter>("type.SleepAwaiter");
    type<detail::TaskWaiter>("type.TaskWaiter");
    type<detail::GatherChild>("type.GatherChild");
    type<asyncio::Lock>("type.Lock");
    type<asyncio::Event>("type.Event");
    type<asyncio::Semaphore>("type.Semaphore");
    type<asyncio::Condition>("type.Condition");
    type<asyncio::Barrier>("type.Barrier");
    type<asyncio::Queue<int>>("type.Queue<int>");
    type<asyncio::Timeout>("type.Timeout");
    type<asyncio::TaskGroup>("type.TaskGroup");
    type<detail::FutureWatch>("type.FutureWatch");
    type<detail::Acquire<asyncio::Lock>>("type.Acquire<Lock>");
    type<detail::QueueGetWaiter<asyncio::Queue<int>, int>>("type.QueueGetWaiter");
}

} // namespace

int main() {
    print_types();
    asyncio::run(print_frames());
}
