// SPDX-License-Identifier: MIT
// The k-th allocation fails, for every k: std::bad_alloc arrives, nothing leaks, the loop goes on.
//
// A program of its own, with the library's pool left out, so that each frame, task and callback is
// an allocation which these operators see.
#include <asyncio/asyncio.hpp>
#include <asyncio/testing/virtual_time.hpp>

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

using namespace std::chrono_literals;
using asyncio::Coro;
using asyncio::create_task;
using asyncio::EventLoop;
using asyncio::get_running_loop;
using asyncio::TaskOptions;

namespace {

constexpr std::size_t never = static_cast<std::size_t>(-1);
thread_local constinit std::size_t until_failure = never; // of this thread's allocations
thread_local constinit bool has_failed = false;
std::atomic<std::ptrdiff_t> living = 0; // blocks

void* allocate(std::size_t size, std::size_t alignment) {
    if (until_failure != never && until_failure-- == 0) {
        until_failure = never;
        has_failed = true;
        throw std::bad_alloc();
    }
    void* block =
        alignment > alignof(std::max_align_t)
            ? std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment)
            : std::malloc(size > 0 ? size : 1);
    if (block == nullptr) throw std::bad_alloc();
    living.fetch_add(1, std::memory_order_relaxed);
    return block;
}
void deallocate(void* block) noexcept {
    if (block == nullptr) return;
    living.fetch_sub(1, std::memory_order_relaxed);
    std::free(block);
}

} // namespace

void* operator new(std::size_t size) { return allocate(size, 0); }
void* operator new(std::size_t size, std::align_val_t alignment) {
    return allocate(size, static_cast<std::size_t>(alignment));
}
void operator delete(void* block) noexcept { deallocate(block); }
void operator delete(void* block, std::size_t) noexcept { deallocate(block); }
void operator delete(void* block, std::align_val_t) noexcept { deallocate(block); }
void operator delete(void* block, std::size_t, std::align_val_t) noexcept { deallocate(block); }

namespace {

// So many calls of accept4() find the process out of descriptors.
int accepts_without_descriptor = 0;
const asyncio::SystemCalls& system_calls() {
    static const asyncio::SystemCalls table = [] {
        asyncio::SystemCalls calls = asyncio::SystemCalls::real();
        calls.accept4 = [](int listener, sockaddr* address, socklen_t* size, int flags) {
            if (accepts_without_descriptor == 0) return ::accept4(listener, address, size, flags);
            --accepts_without_descriptor;
            errno = EMFILE;
            return -1;
        };
        return calls;
    }();
    return table;
}

// Whether a failure may go unseen: where something else is told in its place.
enum class Told { always, perhaps };

// Runs body(loop) once for each allocation that it makes, which fails.
enum class Reports { none, some }; // without a failure
template <class Body>
void fail_each(const char* name, Told told, Body body, Reports reports = Reports::none) {
    std::size_t failures = 0;
    static_cast<void>(system_calls()); // what is made once is there
    for (std::size_t k = 0;; ++k) {
        ASSERT_LT(k, 100'000U) << "it never comes to an end";
        const std::ptrdiff_t before = living;
        bool reported = false;
        bool thrown = false;
        bool failed = false;
        {
            asyncio::testing::VirtualClock clock;
            const auto loop = asyncio::new_event_loop(
                asyncio::LoopOptions().clock(clock).system_calls(system_calls()));
            loop->set_exception_handler(
                [&](EventLoop&, const asyncio::ExceptionContext&) { reported = true; });
            const auto main = [&]() -> Coro<> {
                has_failed = false;
                until_failure = k;
                try {
                    co_await body();
                } catch (const std::bad_alloc&) {
                    thrown = true;
                } catch (...) {
                    ADD_FAILURE() << name << ", allocation " << k << ": another exception came";
                }
                until_failure = never;
                failed = has_failed;
                // The loop goes on: what had begun comes to its end, and new things run.
                co_await asyncio::sleep(1h);
                auto both = co_await asyncio::gather(asyncio::sleep(1s, 1), asyncio::sleep(2s, 2));
                EXPECT_EQ(std::get<0>(both) + std::get<1>(both), 3);
                EXPECT_EQ(asyncio::all_tasks().size(), 1U) << name << ", allocation " << k;
            };
            asyncio::run_until_complete(*loop, main());
            loop->close();
        }
        EXPECT_EQ(living, before) << name << ", allocation " << k << " leaks";
        if (!failed) {
            EXPECT_FALSE(thrown) << name;
            EXPECT_EQ(reported, reports == Reports::some) << name;
            break;
        }
        ++failures;
        if (told == Told::always) {
            EXPECT_TRUE(thrown || reported)
                << name << ": nobody was told that allocation " << k << " failed";
        }
        if (::testing::Test::HasFailure()) return;
    }
    std::printf("%s: %zu allocations failed\n", name, failures);
    EXPECT_GT(failures, 0U) << name;
}

constexpr const char* long_text = "a text that is far too long to be kept inside of a std::string";

Coro<int> child(int value) {
    co_await asyncio::sleep(1s);
    co_return value;
}
Coro<> spawn() { static_cast<void>(co_await create_task(child(1))); }

TEST(MemoryFailure, in_the_harness_is_seen) {
    until_failure = 1;
    const auto first = std::make_unique<int>(1);
    EXPECT_THROW(std::make_unique<int>(2), std::bad_alloc);
    EXPECT_EQ(until_failure, never);
    const auto third = std::make_unique<int>(3);
    EXPECT_EQ(*first + *third, 4);
}

TEST(MemoryFailure, in_create_task) {
    fail_each("create_task(coroutine)", Told::always, spawn);
    fail_each("create_task(function, argument)", Told::always,
              []() -> Coro<> { co_await create_task(child, 1); });
    fail_each("create_task(awaitable)", Told::always,
              []() -> Coro<> { co_await create_task(asyncio::sleep(1s)); });
    fail_each("create_task(options, coroutine)", Told::always, []() -> Coro<> {
        co_await create_task(TaskOptions().name(long_text).context(asyncio::Context()), child(1));
    });
    fail_each("create_task(options, function, argument)", Told::always,
              []() -> Coro<> { co_await create_task(TaskOptions().name(long_text), child, 1); });
    fail_each("an eager task", Told::always, []() -> Coro<> {
        co_await create_task(TaskOptions().name(long_text).eager_start(true), child(1));
    });
    fail_each("a task that is dropped", Told::always, []() -> Coro<> {
        create_task(child(1));
        co_return;
    });
    fail_each("a task with a big result", Told::always, []() -> Coro<> {
        const auto body = []() -> Coro<std::vector<std::string>> {
            co_await asyncio::sleep(0);
            co_return std::vector<std::string>(3, long_text);
        };
        auto task = create_task(body());
        const std::vector<std::string> copy = co_await task;
        EXPECT_EQ(copy.size(), 3U);
    });
    fail_each("a task by way of a factory", Told::always, []() -> Coro<> {
        asyncio::set_task_factory(get_running_loop(),
                                  [](EventLoop&, asyncio::NewTask& task, TaskOptions options) {
                                      return task(std::move(options));
                                  });
        struct Unset {
            ~Unset() { asyncio::set_task_factory(get_running_loop(), nullptr); }
        };
        const Unset unset;
        co_await create_task(TaskOptions().name(long_text), child(1));
    });
}

TEST(MemoryFailure, in_awaits) {
    const auto depth_3 = []() -> Coro<> {
        const auto middle = []() -> Coro<int> {
            const int value = co_await child(1);
            co_return value + 1;
        };
        EXPECT_EQ(co_await middle(), 2);
    };
    fail_each("a chain of coroutines", Told::always, depth_3);
    fail_each("as_result", Told::perhaps, []() -> Coro<> {
        const auto failing = []() -> Coro<std::string> {
            co_await asyncio::sleep(0);
            throw std::runtime_error(long_text);
        };
        const auto result = co_await asyncio::as_result(failing());
        EXPECT_FALSE(result.has_value());
    });
    fail_each("try_finally", Told::always, []() -> Coro<> {
        bool cleaned = false;
        std::exception_ptr failure;
        try {
            co_await asyncio::try_finally([&]() -> Coro<> { co_await create_task(child(1)); },
                                          [&]() -> Coro<> {
                                              cleaned = true;
                                              co_return;
                                          });
        } catch (...) {
            failure = std::current_exception();
        }
        if (failure != nullptr) std::rethrow_exception(failure);
        EXPECT_TRUE(cleaned);
    });
}

TEST(MemoryFailure, in_gather) {
    fail_each("gather of two", Told::always, []() -> Coro<> {
        auto both = co_await asyncio::gather(child(1), child(2));
        EXPECT_EQ(std::get<0>(both) + std::get<1>(both), 3);
    });
    fail_each("gather of a mix", Told::always, []() -> Coro<> {
        auto future = asyncio::create_future<int>();
        get_running_loop().call_later(2s, [future] { future.set_result(7); });
        auto task = create_task(child(1));
        auto all = co_await asyncio::gather(future, task, child(2), spawn, asyncio::sleep(3s));
        EXPECT_EQ(std::get<0>(all), 7);
    });
    fail_each("gather of a range", Told::always, []() -> Coro<> {
        std::vector<Coro<int>> coroutines;
        for (int i = 0; i < 5; ++i) coroutines.push_back(child(i));
        const std::vector<int> values = co_await asyncio::gather(std::move(coroutines));
        EXPECT_EQ(values.size(), 5U);
    });
    fail_each("gather with exceptions returned", Told::perhaps, []() -> Coro<> {
        auto all = co_await asyncio::gather(asyncio::return_exceptions, child(1), spawn());
        static_cast<void>(all);
    });
}

TEST(MemoryFailure, in_task_groups) {
    // A group that fails for want of memory says so in an ExceptionGroup.
    const auto unwrapped = [](auto body) -> Coro<> {
        std::exception_ptr failure;
        try {
            co_await body();
        } catch (const asyncio::ExceptionGroup& group) {
            failure = group.exceptions().front();
        }
        if (failure != nullptr) std::rethrow_exception(failure);
    };
    fail_each("a group of two", Told::always, [&]() -> Coro<> {
        co_await unwrapped([]() -> Coro<> {
            const int sum =
                co_await asyncio::task_group([](asyncio::TaskGroup& group) -> Coro<int> {
                    auto first = group.create_task(child(1));
                    auto second = group.create_task(TaskOptions().name(long_text), child, 2);
                    group.create_task(asyncio::sleep(2s));
                    const int one = co_await first;
                    const int two = co_await second;
                    co_return one + two;
                });
            EXPECT_EQ(sum, 3);
        });
    });
    fail_each("a group that fails", Told::perhaps, []() -> Coro<> {
        bool failed = false;
        try {
            co_await asyncio::task_group([](asyncio::TaskGroup& group) -> Coro<> {
                const auto failing = []() -> Coro<> {
                    co_await asyncio::sleep(0);
                    throw std::runtime_error(long_text);
                };
                group.create_task(child(1));
                group.create_task(failing());
                group.create_task(failing());
                co_await asyncio::sleep(5s);
            });
        } catch (const asyncio::ExceptionGroup&) {
            failed = true;
        } catch (const std::bad_alloc&) {
            failed = true;
        }
        EXPECT_TRUE(failed);
        EXPECT_EQ(asyncio::current_task().cancelling(), 0U);
    });
}

TEST(MemoryFailure, in_timeouts) {
    fail_each("timeout, wait_for", Told::perhaps, []() -> Coro<> {
        co_await asyncio::timeout(2s, [](asyncio::Timeout& limit) -> Coro<> {
            limit.reschedule(get_running_loop().time() + 3s);
            const int value = co_await asyncio::wait_for(child(1), 2s);
            EXPECT_EQ(value, 1);
        });
        const auto late = co_await asyncio::as_result(asyncio::wait_for(asyncio::sleep(9s), 1s));
        EXPECT_FALSE(late.has_value());
        const auto none = co_await asyncio::as_result(asyncio::wait_for(child(1), 0));
        EXPECT_FALSE(none.has_value());
        const auto at_once = co_await asyncio::as_result(asyncio::timeout(0, spawn));
        EXPECT_FALSE(at_once.has_value());
        EXPECT_EQ(asyncio::current_task().cancelling(), 0U);
    });
}

TEST(MemoryFailure, in_waits_for_several) {
    fail_each("wait, as_completed, shield", Told::always, []() -> Coro<> {
        std::vector<asyncio::Task<int>> tasks;
        for (int i = 0; i < 3; ++i) tasks.push_back(create_task(child(i)));
        const auto first = co_await asyncio::wait(tasks, asyncio::FIRST_COMPLETED, 5s);
        EXPECT_FALSE(first.done.empty());
        tasks.push_back(create_task(child(3)));
        tasks.push_back(tasks.back());
        auto ended = asyncio::as_completed(tasks, 9s);
        int count = 0;
        while (auto task = co_await ended.next()) ++count;
        EXPECT_EQ(count, 4);
        const int value = co_await asyncio::shield(child(7));
        EXPECT_EQ(value, 7);
    });
    fail_each("run_coroutine_threadsafe", Told::always, []() -> Coro<> {
        const auto future = asyncio::run_coroutine_threadsafe(child(1), get_running_loop());
        future.add_done_callback([] {});
        co_await asyncio::sleep(2s);
        EXPECT_EQ(future.result(), 1);
    });
}

TEST(MemoryFailure, in_call_graphs) {
    fail_each("a call graph", Told::always, []() -> Coro<> {
        auto first = create_task(child(1));
        const auto waiting = [first]() -> Coro<> { co_await asyncio::shield(first); };
        auto second = create_task(waiting);
        co_await asyncio::sleep(0);
        const asyncio::FutureCallGraph graph = asyncio::capture_call_graph(first);
        EXPECT_LE(graph.awaited_by().size(), 1U); // none if the shield has failed
        EXPECT_FALSE(asyncio::format_call_graph(first).empty());
        EXPECT_FALSE(asyncio::format_call_graph().empty());
        co_await second;
    });
}

TEST(MemoryFailure, in_callbacks_and_timers) {
    fail_each("call_soon, call_later, call_at", Told::always, []() -> Coro<> {
        EventLoop& loop = get_running_loop();
        int calls = 0;
        std::array<char, 100> large{};
        const auto count = [&calls, large] { calls += 1 + large[0]; };
        std::vector<asyncio::Handle> handles;
        const auto cancel_all = [&handles] {
            for (asyncio::Handle& handle : handles) handle.cancel();
        };
        struct AtEnd { // what was scheduled refers to this frame
            decltype(cancel_all)& cancel;
            ~AtEnd() { cancel(); }
        };
        const AtEnd at_end{cancel_all};
        handles.reserve(8);
        handles.push_back(loop.call_soon(count));
        handles.push_back(loop.call_later(1s, count));
        handles.push_back(loop.call_at(loop.time() + 2s, count));
        handles.push_back(
            loop.call_soon([&calls](const std::string& text) { calls += text.empty() ? 0 : 1; },
                           std::string(long_text)));
        handles.push_back(loop.call_soon(asyncio::copy_context(), count));
        co_await asyncio::sleep(5s);
        EXPECT_EQ(calls, 5);
    });
    fail_each("a callback that needs memory", Told::always, []() -> Coro<> {
        get_running_loop().call_soon([] { static_cast<void>(std::string(long_text)); });
        co_await asyncio::sleep(1s);
    });
    fail_each("done-callbacks", Told::always, []() -> Coro<> {
        auto future = asyncio::create_future<std::string>();
        static int calls = 0; // a callback may come after the end of this frame
        calls = 0;
        future.add_done_callback([] { ++calls; });
        future.add_done_callback(
            [text = std::string(long_text)] { static_cast<void>(text.size()); });
        future.set_result(long_text);
        co_await future;
        co_await asyncio::sleep(0);
        EXPECT_EQ(calls, 1);
    });
    // What cannot be reported, for want of memory, is a line on standard error.
    fail_each(
        "reports of callbacks", Told::perhaps,
        []() -> Coro<> {
            get_running_loop().call_soon([] { throw std::runtime_error(long_text); });
            get_running_loop().call_soon_threadsafe([] { throw 42; });
            auto future = asyncio::create_future();
            future.add_done_callback([] { throw 43; });
            future.set_result();
            co_await asyncio::sleep(1s);
        },
        Reports::some);
    fail_each("many timers", Told::always, []() -> Coro<> {
        std::vector<asyncio::Task<int>> tasks;
        for (int i = 0; i < 10; ++i) tasks.push_back(create_task(child(i)));
        for (const auto& task : tasks) co_await task;
    });
    fail_each("readers", Told::always, []() -> Coro<> {
        struct Pipe {
            int ends[2];
            Pipe() {
                if (pipe(ends) != 0) std::abort();
            }
            ~Pipe() {
                get_running_loop().remove_reader(ends[0]);
                close(ends[0]);
                close(ends[1]);
            }
        };
        const Pipe pipe;
        auto readable = asyncio::create_future();
        get_running_loop().add_reader(pipe.ends[0], [readable, descriptor = pipe.ends[0]] {
            get_running_loop().remove_reader(descriptor);
            readable.set_result();
        });
        EXPECT_EQ(write(pipe.ends[1], "x", 1), 1);
        co_await readable;
    });
}

TEST(MemoryFailure, in_futures_and_cancels) {
    fail_each("set_exception", Told::perhaps, []() -> Coro<> {
        auto future = asyncio::create_future();
        future.set_exception(std::runtime_error(long_text));
        const auto result = co_await asyncio::as_result(future);
        EXPECT_FALSE(result.has_value());
    });
    fail_each("cancel", Told::perhaps, []() -> Coro<> {
        auto outer = create_task(spawn());
        struct Cancel { // it is cancelled also if the other cancels failed
            asyncio::Task<> task;
            ~Cancel() { task.cancel(); }
        };
        const Cancel cancel{outer};
        co_await asyncio::sleep(0);
        co_await asyncio::sleep(0);
        outer.cancel(long_text);
        const auto result = co_await asyncio::as_result(outer);
        EXPECT_FALSE(result.has_value());
        EXPECT_TRUE(outer.done());
    });
    fail_each("cancel of a gather", Told::perhaps, []() -> Coro<> {
        const auto gathering = []() -> Coro<> { co_await asyncio::gather(child(1), child(2)); };
        auto outer = create_task(gathering());
        co_await asyncio::sleep(0);
        co_await asyncio::sleep(0);
        outer.cancel(long_text);
        const auto result = co_await asyncio::as_result(outer);
        EXPECT_FALSE(result.has_value());
    });
    fail_each("cancel before the first step", Told::perhaps, []() -> Coro<> {
        auto task = create_task(child(1));
        task.cancel(long_text);
        const auto result = co_await asyncio::as_result(task);
        EXPECT_FALSE(result.has_value());
    });
    fail_each("cancel in the last step", Told::perhaps, []() -> Coro<> {
        const auto late = []() -> Coro<std::string> {
            asyncio::current_task().cancel(long_text);
            co_return long_text;
        };
        auto task = create_task(late());
        const auto result = co_await asyncio::as_result(task);
        EXPECT_FALSE(result.has_value());
    });
    fail_each("cancel of a gather that returns exceptions", Told::perhaps, []() -> Coro<> {
        const auto gathering = []() -> Coro<> {
            auto all = co_await asyncio::gather(asyncio::return_exceptions, child(1), child(2));
            static_cast<void>(all);
        };
        auto outer = create_task(gathering());
        co_await asyncio::sleep(0);
        co_await asyncio::sleep(0);
        outer.cancel(long_text);
        const auto result = co_await asyncio::as_result(outer);
        EXPECT_FALSE(result.has_value());
    });
    fail_each("names", Told::always, []() -> Coro<> {
        auto task = create_task(child(1));
        task.set_name(long_text);
        EXPECT_EQ(task.get_name(), long_text);
        co_await task;
    });
}

TEST(MemoryFailure, in_locks) {
    fail_each("a lock", Told::always, []() -> Coro<> {
        const auto lock = std::make_shared<asyncio::Lock>();
        const auto user = [](std::shared_ptr<asyncio::Lock> shared) -> Coro<> {
            const auto held = co_await shared->scoped();
            co_await asyncio::sleep(1s);
        };
        std::exception_ptr failure;
        std::vector<asyncio::Task<>> tasks;
        tasks.reserve(3);
        try {
            for (int i = 0; i < 3; ++i) tasks.push_back(create_task(user, lock));
        } catch (...) {
            failure = std::current_exception();
        }
        for (auto& task : tasks) co_await task;
        EXPECT_FALSE(lock->locked());
        if (failure != nullptr) std::rethrow_exception(failure);
    });
    fail_each("a lock whose waiter is cancelled", Told::perhaps, []() -> Coro<> {
        struct Shared {
            asyncio::Lock lock;
            asyncio::Semaphore semaphore{0};
        };
        const auto shared = std::make_shared<Shared>();
        struct AtEnd { // so that whoever waits comes to an end
            Shared& shared;
            ~AtEnd() {
                shared.semaphore.release();
                shared.semaphore.release();
            }
        };
        const AtEnd at_end{*shared};
        const auto user = [](std::shared_ptr<Shared> s) -> Coro<> {
            const auto permit = co_await s->semaphore.scoped();
            const auto held = co_await s->lock.scoped();
        };
        auto first = create_task(user, shared);
        auto second = create_task(user, shared);
        co_await asyncio::sleep(0);
        shared->semaphore.release();
        first.cancel(); // it has a permit on its way
        const auto result = co_await asyncio::as_result(first);
        EXPECT_FALSE(result.has_value());
        const auto passed_on = co_await asyncio::as_result(second);
        EXPECT_TRUE(passed_on.has_value());
        EXPECT_FALSE(shared->lock.locked());
        EXPECT_FALSE(shared->semaphore.locked());
    });
    fail_each("a condition", Told::always, []() -> Coro<> {
        const auto condition = std::make_shared<asyncio::Condition>();
        const auto waiter = [](std::shared_ptr<asyncio::Condition> c) -> Coro<> {
            const auto held = co_await c->scoped();
            co_await c->wait();
        };
        auto task = create_task(waiter, condition);
        co_await asyncio::sleep(0);
        {
            const auto held = co_await condition->scoped();
            condition->notify();
        }
        co_await task;
        EXPECT_FALSE(condition->locked());
    });
    fail_each("a barrier", Told::always, []() -> Coro<> {
        const auto barrier = std::make_shared<asyncio::Barrier>(2);
        const auto party = [](std::shared_ptr<asyncio::Barrier> b) -> Coro<> {
            std::exception_ptr failure;
            try {
                co_await b->wait();
            } catch (const std::bad_alloc&) {
                failure = std::current_exception();
            } catch (const asyncio::BrokenBarrierError&) {
                co_return;
            }
            if (failure == nullptr) co_return;
            co_await b->abort();
            std::rethrow_exception(failure);
        };
        auto a = create_task(party, barrier);
        std::exception_ptr failure;
        try {
            auto b = create_task(party, barrier);
            co_await b;
        } catch (...) {
            failure = std::current_exception();
        }
        if (failure != nullptr) co_await barrier->abort();
        co_await a;
        EXPECT_EQ(barrier->n_waiting(), 0);
        if (failure != nullptr) std::rethrow_exception(failure);
    });
}

TEST(MemoryFailure, in_queues) {
    const auto producer_and_consumer = [](auto shared) -> Coro<> {
        // What could not be put is not in it, and whoever waits for it is not left alone.
        const auto produce = [](decltype(shared) queue) -> Coro<> {
            std::exception_ptr failure;
            try {
                for (int i = 0; i < 20; ++i) co_await queue->put(std::string(long_text));
            } catch (const std::bad_alloc&) {
                failure = std::current_exception();
            }
            queue->shutdown();
            if (failure != nullptr) std::rethrow_exception(failure);
        };
        auto producer = create_task(produce, shared);
        for (;;) {
            const auto item = co_await asyncio::as_result(shared->get());
            if (item.template failed_with<asyncio::QueueShutDown>()) break;
            EXPECT_EQ(*item, long_text);
            shared->task_done();
        }
        EXPECT_TRUE(shared->empty());
        co_await shared->join();
        co_await producer;
    };
    fail_each("Queue", Told::always, [&]() -> Coro<> {
        co_await producer_and_consumer(std::make_shared<asyncio::Queue<std::string>>(3));
    });
    fail_each("PriorityQueue", Told::always, [&]() -> Coro<> {
        co_await producer_and_consumer(std::make_shared<asyncio::PriorityQueue<std::string>>());
    });
    fail_each("LifoQueue", Told::always, [&]() -> Coro<> {
        co_await producer_and_consumer(std::make_shared<asyncio::LifoQueue<std::string>>(1));
    });
}

Coro<> echo_lines(asyncio::StreamReader reader, asyncio::StreamWriter writer) {
    for (;;) {
        const std::string line = co_await reader.readline();
        if (line.empty()) break;
        writer.write(line);
        co_await writer.drain();
    }
    writer.close();
    co_await writer.wait_closed();
}
// Whoever is at the other end of what has failed sees an end that came too early.
Coro<bool> talk(asyncio::StreamReader reader, asyncio::StreamWriter writer) {
    // More than the kernel takes at once, so that some of it is kept.
    const std::string much = std::string(500'000, 'x') + "\n";
    writer.write(std::string(long_text) + "\n");
    const std::string line = co_await reader.readline();
    writer.write(much);
    const auto rest = co_await asyncio::as_result(reader.readexactly(much.size()));
    if (rest.failed_with<std::bad_alloc>()) std::rethrow_exception(rest.exception());
    writer.close();
    co_await writer.wait_closed();
    co_return line == std::string(long_text) + "\n" && rest && *rest == much;
}
Coro<bool> tried(Coro<bool> talking) {
    const auto result = co_await asyncio::as_result(std::move(talking));
    if (result) co_return *result;
    if (!result.failed_with<std::system_error>()) std::rethrow_exception(result.exception());
    co_return false;
}

TEST(MemoryFailure, in_streams) {
    fail_each("a pair of streams", Told::always, []() -> Coro<> {
        auto both = asyncio::Socket::pair();
        asyncio::ConnectionOptions options;
        options.limit(1 << 20).sock(std::move(both.first));
        auto ours = co_await asyncio::open_connection(options);
        options.sock(std::move(both.second));
        auto theirs = co_await asyncio::open_connection(options);
        auto echo = create_task(echo_lines, std::move(theirs.first), std::move(theirs.second));
        const auto talked = co_await asyncio::as_result(
            create_task(tried(talk(std::move(ours.first), std::move(ours.second)))));
        const auto echoed = co_await asyncio::as_result(echo);
        if (echoed.failed_with<std::bad_alloc>()) std::rethrow_exception(echoed.exception());
        if (!talked) std::rethrow_exception(talked.exception());
        EXPECT_TRUE(*talked || echoed.exception() != nullptr);
    });
}

TEST(MemoryFailure, in_servers) {
    fail_each("a server of streams", Told::always, []() -> Coro<> {
        asyncio::ServerOptions options;
        options.limit(1 << 20);
        auto server = co_await asyncio::start_server(echo_lines, "127.0.0.1", 0, options);
        struct Close {
            asyncio::Server& server;
            ~Close() {
                server.close();
                server.abort_clients();
            }
        };
        const Close close{server};
        auto ours = co_await asyncio::open_connection("127.0.0.1", server.sockets().at(0).port(),
                                                      asyncio::ConnectionOptions().limit(1 << 20));
        co_await tried(talk(std::move(ours.first), std::move(ours.second)));
        server.close();
        server.abort_clients();
        co_await server.wait_closed();
    });
}

// Without memory for the timer of its pause, the next client is what it waits for. What cannot be
// reported is a line on standard error.
TEST(MemoryFailure, in_servers_without_descriptors) {
    fail_each(
        "a server without descriptors", Told::perhaps,
        []() -> Coro<> {
            auto server = co_await asyncio::start_server(echo_lines, "127.0.0.1", 0);
            struct Close {
                asyncio::Server& server;
                ~Close() {
                    accepts_without_descriptor = 0;
                    server.close();
                    server.abort_clients();
                }
            };
            const Close close{server};
            const std::uint16_t port = server.sockets().at(0).port();
            accepts_without_descriptor = 1;
            auto turned_away = co_await asyncio::open_connection("127.0.0.1", port);
            const auto nothing = co_await asyncio::as_result(turned_away.first.read(1));
            if (nothing.failed_with<std::bad_alloc>()) std::rethrow_exception(nothing.exception());
            EXPECT_EQ(accepts_without_descriptor, 0);
            auto ours = co_await asyncio::open_connection("127.0.0.1", port);
            ours.second.write("hello\n");
            const auto line =
                co_await asyncio::as_result(asyncio::wait_for(ours.first.readline(), 1h));
            if (line.failed_with<std::bad_alloc>()) std::rethrow_exception(line.exception());
            EXPECT_FALSE(line.failed_with<asyncio::TimeoutError>()) << "it accepts no more";
            // Else its connection was one for which there was no memory.
            EXPECT_TRUE(has_failed || *line == "hello\n");
        },
        Reports::some);
}

TEST(MemoryFailure, in_context_variables) {
    static asyncio::ContextVar<std::string> one("one", "none");
    static asyncio::ContextVar<int> two("two");
    fail_each("context variables", Told::always, []() -> Coro<> {
        auto token = one.set(long_text);
        two.set(2);
        const asyncio::Context context = asyncio::copy_context();
        context.run([] { two.set(3); });
        one.reset(token);
        EXPECT_EQ(one.get(), "none");
        EXPECT_EQ(asyncio::current_task().get_context()[two], 2);
        co_await create_task(TaskOptions().context(context), child(1));
    });
}

TEST(MemoryFailure, at_the_thread_safe_door) {
    fail_each("call_soon_threadsafe", Told::always, []() -> Coro<> {
        auto done = asyncio::create_future<std::size_t>();
        std::array<char, 100> large{};
        get_running_loop().call_soon_threadsafe(
            [done, large](const std::string& text) { done.set_result(text.size() + large.size()); },
            std::string(long_text));
        EXPECT_GT(co_await done, 0U);
    });
    // On another thread, whose own allocations fail; the loop's do not.
    std::size_t failures = 0;
    for (std::size_t k = 0;; ++k) {
        ASSERT_LT(k, 1'000U);
        const std::ptrdiff_t before = living;
        bool failed = false;
        {
            const auto loop = asyncio::new_event_loop();
            int calls = 0;
            std::thread thread([&] {
                has_failed = false;
                until_failure = k;
                try {
                    loop->call_soon_threadsafe(
                        [&calls](const std::string& text) { calls += text.empty() ? 0 : 1; },
                        std::string(long_text));
                } catch (const std::bad_alloc&) {
                    failed = true;
                }
                until_failure = never;
                EXPECT_EQ(failed, has_failed);
                loop->call_soon_threadsafe([&] { loop->stop(); });
            });
            loop->run_forever();
            thread.join();
            EXPECT_EQ(calls, failed ? 0 : 1);
        }
        EXPECT_EQ(living, before) << "allocation " << k << " leaks";
        if (!failed) break;
        ++failures;
    }
    std::printf("call_soon_threadsafe on another thread: %zu allocations failed\n", failures);
    EXPECT_GT(failures, 0U);
}

TEST(MemoryFailure, in_run) {
    std::size_t failures = 0;
    for (std::size_t k = 0;; ++k) {
        ASSERT_LT(k, 100'000U);
        const std::ptrdiff_t before = living;
        bool thrown = false;
        has_failed = false;
        {
            const auto main = []() -> Coro<int> {
                create_task(child(1)); // left over, and cancelled
                co_return 42;
            };
            until_failure = k;
            try {
                EXPECT_EQ(asyncio::run(main()), 42);
            } catch (const std::bad_alloc&) {
                thrown = true;
            }
            until_failure = never;
        }
        EXPECT_EQ(living, before) << "allocation " << k << " leaks";
        EXPECT_EQ(thrown, has_failed) << "allocation " << k;
        if (!has_failed || HasFailure()) break;
        ++failures;
    }
    std::printf("run: %zu allocations failed\n", failures);
    EXPECT_GT(failures, 0U);
}

} // namespace
