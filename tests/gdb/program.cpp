// SPDX-License-Identifier: MIT
// What tests/gdb/run looks at. "states": a task in each state, on one of four loops, when it comes
// to stop_here(). "wait": everybody waits in the kernel. The lines stand in expected_*.txt.
#include <asyncio/asyncio.hpp>

#include <semaphore>
#include <source_location>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

using namespace std::chrono_literals;
using asyncio::Coro;

extern "C" __attribute__((noinline)) void stop_here() { __asm__ volatile("" ::: "memory"); }

namespace shop {
namespace {

// Of a coroutine that has not begun GCC has the last line, and Clang the first; so it is one.
Coro<int> price() { co_return co_await asyncio::sleep(1h, 1); }

struct Cart {
    template <class T> Coro<T> total(const std::string& /*what*/) {
        const int in_cents = co_await price();
        co_return in_cents * 100;
    }
};

Coro<int> pay(int customer) {
    Cart cart;
    const auto total = [&cart](int count) -> Coro<int> {
        co_return count* co_await cart.total<int>("everything");
    };
    co_return co_await total(customer);
}

} // namespace
} // namespace shop

namespace {

template <class T> Coro<> wait_for(T awaitable) { co_await awaitable; }

Coro<> gather_two() {
    std::vector<Coro<int>> both;
    both.push_back(shop::price());
    both.push_back(shop::pay(2));
    co_await asyncio::gather(std::move(both));
}

Coro<> clean_up_slowly(asyncio::Future<int> rubbish) {
    try {
        co_await asyncio::sleep(1h);
    } catch (const asyncio::CancelledError&) {
        asyncio::current_task().set_name("cleaner");
    }
    co_await rubbish;
}

Coro<> yield_for_ever() {
    for (;;) co_await asyncio::sleep(0);
}

template <class T>
asyncio::Task<T> named(const char* name, Coro<T> coroutine,
                       std::source_location where = std::source_location::current()) {
    return asyncio::create_task(asyncio::TaskOptions().name(name), std::move(coroutine), where);
}

// A coroutine's parameters go when it has returned.
class StopAtEnd {
  public:
    StopAtEnd() = default;
    StopAtEnd(StopAtEnd&& other) noexcept : armed_(std::exchange(other.armed_, false)) {}
    StopAtEnd& operator=(StopAtEnd&&) = delete;
    ~StopAtEnd() {
        if (armed_) stop_here();
    }

  private:
    bool armed_ = true;
};
Coro<> stop_eagerly(StopAtEnd /*stop*/) { co_return; }

Coro<> states() {
    auto never = asyncio::create_future<int>();
    auto done = asyncio::create_future<int>();
    auto payment = named("payment", shop::pay(1));
    auto waiter = named("a name that is longer than what fits into the string itself",
                        wait_for<asyncio::Future<int>>(never));
    auto follower = named("follower", wait_for<asyncio::Task<int>>(payment));
    auto gatherer = named("gatherer", gather_two());
    auto cleaner = named("will clean up", clean_up_slowly(never));
    auto yielder = named("yielder", yield_for_ever());
    auto woken = named("woken", wait_for<asyncio::Future<int>>(done));
    auto cancelled = named("cancelled", shop::pay(4));
    co_await asyncio::sleep(0);
    cleaner.cancel();
    co_await asyncio::sleep(0);
    done.set_result(1);
    cancelled.cancel();
    auto fresh = named("fresh", shop::price());
    auto options = asyncio::TaskOptions();
    options.name("eager").eager_start(true);
    StopAtEnd stop;
    asyncio::create_task(options, stop_eagerly(std::move(stop)));
    for (const asyncio::AnyTask& task : asyncio::all_tasks()) {
        if (!(task == asyncio::current_task())) task.cancel();
    }
}

std::binary_semaphore is_running(0);
std::binary_semaphore may_end(0);

Coro<> block() { co_return is_running.release(), may_end.acquire(); }

Coro<> wait() {
    auto payment = named("payment", shop::pay(1));
    co_await payment;
}

} // namespace

int main(int argc, char** argv) {
    if (argc == 2 && std::string_view(argv[1]) == "wait") {
        asyncio::run(wait());
        return 0;
    }
    auto unused = asyncio::new_event_loop();
    auto closed = asyncio::new_event_loop();
    closed->close();
    asyncio::new_event_loop()->close();
    std::thread other([] { asyncio::run(block()); });
    is_running.acquire();
    asyncio::run(states());
    may_end.release();
    other.join();
}
