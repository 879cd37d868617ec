// SPDX-License-Identifier: MIT
// What the library tells a debugger. The listing itself is tested with gdb: see tests/gdb/run.
#include <asyncio/detail/debugger.hpp>

#include <asyncio/asyncio.hpp>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <string_view>
#include <thread>
#include <vector>

using asyncio::detail::DebuggerFact;
using asyncio::detail::DebuggerFacts;

namespace {

const DebuggerFact& fact(const DebuggerFact* list, std::string_view name) {
    while (list->name != nullptr && list->name != name) ++list;
    return *list;
}

template <class T> T read(const void* object, std::string_view field) {
    const std::size_t offset = fact(DebuggerFacts::loops, field).number;
    return *reinterpret_cast<const T*>(static_cast<const std::byte*>(object) + offset);
}

// As a debugger finds them, the newest first.
std::vector<const void*> living_loops() {
    const std::size_t offset = fact(DebuggerFacts::loops, "EventLoop.living").number;
    std::vector<const void*> loops;
    const void* node =
        *static_cast<const void* const*>(fact(DebuggerFacts::loops, "newest_loop").address);
    for (; node != nullptr; node = read<const void*>(node, "LivingLoop.next")) {
        loops.push_back(static_cast<const std::byte*>(node) - offset);
    }
    return loops;
}

const void* thread_of(const asyncio::EventLoop& loop) {
    const std::size_t offset = fact(DebuggerFacts::loops, "EventLoop.living").number;
    return read<const void*>(reinterpret_cast<const std::byte*>(&loop) + offset,
                             "LivingLoop.thread");
}

} // namespace

TEST(Debugger, the_list_holds_each_loop_as_long_as_it_exists) {
    const std::vector<const void*> before = living_loops();
    auto first = asyncio::new_event_loop();
    auto second = asyncio::new_event_loop();
    auto third = asyncio::new_event_loop();
    std::vector<const void*> expected = {third.get(), second.get(), first.get()};
    expected.insert(expected.end(), before.begin(), before.end());
    EXPECT_EQ(living_loops(), expected);

    second.reset();
    expected.erase(expected.begin() + 1);
    EXPECT_EQ(living_loops(), expected);
    {
        const auto keeps_it = asyncio::create_future(*third);
        third.reset();
        EXPECT_EQ(living_loops(), expected);
    }
    expected.erase(expected.begin());
    EXPECT_EQ(living_loops(), expected);
    first.reset();
    EXPECT_EQ(living_loops(), before);
}

TEST(Debugger, the_list_is_right_while_many_threads_make_and_close_loops) {
    const std::vector<const void*> before = living_loops();
    std::array<std::vector<asyncio::EventLoopOwner>, 4> kept;
    std::vector<std::thread> threads;
    for (std::vector<asyncio::EventLoopOwner>& mine : kept) {
        threads.emplace_back([&mine] {
            for (int i = 0; i < 60; ++i) {
                mine.push_back(asyncio::new_event_loop());
                auto loop = asyncio::new_event_loop();
                asyncio::run([]() -> asyncio::Coro<> { co_return; }());
                if (i % 3 == 0) mine.erase(mine.begin());
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    std::vector<const void*> expected = before;
    for (const auto& loops : kept) {
        for (const auto& loop : loops) expected.push_back(loop.get());
    }
    std::vector<const void*> found = living_loops();
    std::sort(expected.begin(), expected.end());
    std::sort(found.begin(), found.end());
    EXPECT_EQ(found, expected);
    for (auto& loops : kept) loops.clear();
    EXPECT_EQ(living_loops(), before);
}

TEST(Debugger, a_loop_tells_which_thread_runs_it) {
    auto loop = asyncio::new_event_loop();
    EXPECT_EQ(thread_of(*loop), nullptr);
    const void* seen = nullptr;
    loop->call_soon([&] {
        seen = thread_of(*loop);
        loop->stop();
    });
    loop->run_forever();
    EXPECT_EQ(seen, __builtin_thread_pointer());
    EXPECT_EQ(thread_of(*loop), nullptr);
}

// What the script takes for granted beyond the facts.
TEST(Debugger, promises_and_bases_stand_where_the_script_looks_for_them) {
    alignas(16) std::array<std::byte, 64> frame{};
    const auto* promise =
        &asyncio::detail::promise_of(std::coroutine_handle<>::from_address(frame.data()));
    EXPECT_EQ(reinterpret_cast<const std::byte*>(promise) - frame.data(),
              static_cast<std::ptrdiff_t>(fact(DebuggerFacts::tasks, "frame.promise").number));

    const auto first_base_is = []<class Base, class Derived>(Base*, Derived* object) {
        return static_cast<void*>(static_cast<Base*>(object)) == static_cast<void*>(object);
    };
    // Any address with room for the object does: no base is virtual.
    using Largest = std::aligned_union_t<0, asyncio::detail::TaskBase, asyncio::detail::SleepTimer,
                                         asyncio::detail::TaskWaiter, asyncio::detail::GatherChild>;
    Largest room{};
    auto* here = reinterpret_cast<asyncio::detail::TaskBase*>(&room);
    EXPECT_TRUE(first_base_is(static_cast<asyncio::detail::Runnable*>(nullptr), here));
    auto* timer = reinterpret_cast<asyncio::detail::SleepTimer*>(&room);
    EXPECT_TRUE(first_base_is(static_cast<asyncio::detail::Operation*>(nullptr), timer));
    auto* waiter = reinterpret_cast<asyncio::detail::TaskWaiter*>(&room);
    EXPECT_TRUE(first_base_is(static_cast<asyncio::detail::Operation*>(nullptr), waiter));
    auto* child = reinterpret_cast<asyncio::detail::GatherChild*>(&room);
    EXPECT_TRUE(first_base_is(static_cast<asyncio::detail::FutureWaiter*>(nullptr), child));
}
