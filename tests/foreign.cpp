// SPDX-License-Identifier: MIT
// Awaitables that are not ours.
#include "support/in_virtual_time.hpp"

#include <asyncio/asyncio.hpp>
#include <gtest/gtest.h>

#include <atomic>
#include <coroutine>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using namespace std::chrono_literals;
using asyncio::as_result;
using asyncio::Coro;
using asyncio::create_task;
using asyncio::get_running_loop;
using asyncio::sleep;
using asyncio_test::in_virtual_time;
using asyncio_test::text_of;

namespace {

using Log = std::vector<std::string>;

// Where an awaiter has left the handle that it must resume.
struct Slot {
    std::coroutine_handle<> handle;
    int value = 0;
    void resume_with(int v) {
        value = v;
        std::exchange(handle, nullptr).resume();
    }
};

struct ByVoid {
    Slot& slot;
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> handle) const noexcept { slot.handle = handle; }
    int await_resume() const {
        if (slot.value < 0) throw std::runtime_error("negative");
        return slot.value;
    }
    ~ByVoid() { slot.handle = nullptr; } // a source that knows when nobody waits any more
    explicit ByVoid(Slot& s) noexcept : slot(s) {}
    ByVoid(const ByVoid&) = delete;
    ByVoid& operator=(const ByVoid&) = delete;
};

struct ByBool {
    Slot* slot;
    bool suspends;
    bool await_ready() const noexcept { return false; }
    bool await_suspend(std::coroutine_handle<> handle) const noexcept {
        if (suspends) slot->handle = handle;
        return suspends;
    }
    int await_resume() const noexcept { return slot->value; }
};

enum class Give { itself, noop, another };
struct ByHandle {
    Slot* slot;
    Give give;
    std::coroutine_handle<> other = nullptr;
    bool await_ready() const noexcept { return false; }
    std::coroutine_handle<> await_suspend(std::coroutine_handle<> handle) const noexcept {
        if (give == Give::itself) return handle;
        slot->handle = handle;
        return give == Give::noop ? std::coroutine_handle<>(std::noop_coroutine()) : other;
    }
    int await_resume() const noexcept { return slot->value; }
};

struct ResumesInside {
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> handle) const { handle.resume(); }
    int await_resume() const noexcept { return 3; }
};

struct Thrower {
    int where;
    bool await_ready() const {
        if (where == 0) throw std::runtime_error("ready");
        return false;
    }
    bool await_suspend(std::coroutine_handle<>) const {
        if (where == 1) throw std::runtime_error("suspend");
        return false;
    }
    void await_resume() const {
        if (where == 2) throw std::runtime_error("resume");
    }
};

struct WithMember {
    Slot* slot;
    ByBool operator co_await() const { return {slot, true}; }
};
struct WithFree {
    Slot* slot;
};
ByBool operator co_await(WithFree awaitable) { return {awaitable.slot, true}; }

// A small coroutine of another library.
struct Other {
    struct promise_type {
        Other get_return_object() noexcept {
            return Other(std::coroutine_handle<promise_type>::from_promise(*this));
        }
        std::suspend_always initial_suspend() const noexcept { return {}; }
        struct Final {
            bool await_ready() const noexcept { return false; }
            std::coroutine_handle<>
            await_suspend(std::coroutine_handle<promise_type> ended) const noexcept {
                return ended.promise().outer;
            }
            void await_resume() const noexcept {}
        };
        Final final_suspend() const noexcept { return {}; }
        void return_value(int v) noexcept { value = v; }
        void unhandled_exception() const noexcept { std::terminate(); }
        int value = 0;
        std::coroutine_handle<> outer = std::noop_coroutine();
    };
    struct Awaiter {
        std::coroutine_handle<promise_type> frame;
        bool await_ready() const noexcept { return false; }
        std::coroutine_handle<> await_suspend(std::coroutine_handle<> outer) const noexcept {
            frame.promise().outer = outer;
            return frame;
        }
        int await_resume() const noexcept { return frame.promise().value; }
    };
    Awaiter operator co_await() const noexcept { return {frame}; }

    explicit Other(std::coroutine_handle<promise_type> f) noexcept : frame(f) {}
    Other(Other&& other) noexcept : frame(std::exchange(other.frame, nullptr)) {}
    Other& operator=(Other&&) = delete;
    ~Other() {
        if (frame) frame.destroy();
    }
    std::coroutine_handle<promise_type> frame;
};

Other other_library(Slot* slot) {
    const int value = co_await ByBool{slot, true};
    co_return value + 1;
}

// A new std::thread is joined when the test ends.
struct Threads {
    std::vector<std::thread> all;
    ~Threads() {
        for (auto& thread : all) thread.join();
    }
};
struct OnThread {
    Threads& threads;
    std::unique_ptr<int> value = {};
    explicit OnThread(Threads& t) noexcept : threads(t) {}
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> handle) {
        threads.all.emplace_back([this, handle] {
            value = std::make_unique<int>(5);
            handle.resume();
        });
    }
    std::unique_ptr<int> await_resume() noexcept { return std::move(value); }
};

} // namespace

TEST(Foreign, an_awaiter_is_resumed_later_from_a_callback) {
    in_virtual_time([]() -> Coro<> {
        Slot slot;
        Log log;
        get_running_loop().call_later(1s, [&] {
            slot.resume_with(5);
            log.push_back("resume returned");
        });
        const int value = co_await ByVoid(slot);
        log.push_back("resumed");
        EXPECT_EQ(value, 5);
        EXPECT_EQ(log, (Log{"resume returned", "resumed"})); // on the loop, not inside the notifier
    });
}

TEST(Foreign, await_suspend_may_return_bool) {
    in_virtual_time([]() -> Coro<> {
        Slot slot;
        bool others_ran = false;
        get_running_loop().call_soon([&] { others_ran = true; });
        slot.value = 1;
        const int at_once = co_await ByBool{&slot, false};
        EXPECT_EQ(at_once, 1);
        EXPECT_FALSE(others_ran);
        get_running_loop().call_soon([&] { slot.resume_with(2); });
        const int later = co_await ByBool{&slot, true};
        EXPECT_EQ(later, 2);
        EXPECT_TRUE(others_ran);
    });
}

TEST(Foreign, await_suspend_may_return_a_handle) {
    in_virtual_time([]() -> Coro<> {
        Slot slot;
        slot.value = 1;
        const int itself = co_await ByHandle{&slot, Give::itself};
        EXPECT_EQ(itself, 1);
        get_running_loop().call_soon([&] { slot.resume_with(2); });
        const int noop = co_await ByHandle{&slot, Give::noop};
        EXPECT_EQ(noop, 2);
    });
}

TEST(Foreign, a_coroutine_of_another_library_is_awaited) {
    in_virtual_time([]() -> Coro<> {
        Slot slot;
        get_running_loop().call_later(1s, [&] { slot.resume_with(5); });
        const Other other = other_library(&slot);
        const int value = co_await other;
        EXPECT_EQ(value, 6);
    });
}

TEST(Foreign, resuming_inside_await_suspend_goes_on_in_the_next_turn) {
    in_virtual_time([]() -> Coro<> {
        Log log;
        get_running_loop().call_soon([&] { log.push_back("a turn"); });
        const int value = co_await ResumesInside();
        log.push_back("resumed");
        EXPECT_EQ(value, 3);
        EXPECT_EQ(log, (Log{"a turn", "resumed"}));
    });
}

TEST(Foreign, operators_co_await_and_awaiters_by_name_are_found) {
    in_virtual_time([]() -> Coro<> {
        Slot slot;
        auto soon = [&](int value) {
            get_running_loop().call_soon([&, value] { slot.resume_with(value); });
        };
        soon(1);
        const int member = co_await WithMember{&slot};
        soon(2);
        const WithMember named_member{&slot};
        const int by_name = co_await named_member;
        soon(3);
        const int free_operator = co_await WithFree{&slot};
        soon(4);
        ByBool named{&slot, true};
        const int awaiter = co_await named;
        EXPECT_EQ(member * 1000 + by_name * 100 + free_operator * 10 + awaiter, 1234);
        co_await std::suspend_never();
    });
}

TEST(Foreign, what_an_awaiter_throws_comes_out_of_the_await) {
    in_virtual_time([]() -> Coro<> {
        const std::string expected[] = {"ready", "suspend", "resume"};
        for (int where = 0; where < 3; ++where) {
            std::string seen;
            try {
                co_await Thrower{where};
            } catch (const std::runtime_error& error) {
                seen = error.what();
            }
            EXPECT_EQ(seen, expected[where]);
            co_await sleep(0); // and the task still works
        }
        co_await Thrower{3};
    });
}

TEST(Foreign, a_cancel_while_waiting_delivers_the_value_and_stays_for_the_next_await) {
    in_virtual_time([]() -> Coro<> {
        Slot slot;
        int seen = 0;
        auto task = create_task([&]() -> Coro<> {
            seen = co_await ByVoid(slot);
            co_await sleep(1h);
            ADD_FAILURE() << "the cancel was lost";
        });
        co_await sleep(1s);
        task.cancel("stop");
        co_await sleep(1s);
        EXPECT_FALSE(task.done());
        slot.resume_with(7);
        auto result = co_await as_result(task);
        EXPECT_EQ(seen, 7);
        EXPECT_EQ(text_of(result.exception()), "CancelledError: stop");
    });
}

TEST(Foreign, a_cancel_that_was_pending_before_the_wait_stays_too) {
    in_virtual_time([]() -> Coro<> {
        Slot slot;
        int seen = 0;
        asyncio::Task<> task;
        task = create_task([&]() -> Coro<> {
            task.cancel("own");
            const int at_once = co_await ByBool{&slot, false};
            seen = at_once + co_await ByVoid(slot);
            co_await sleep(1h);
        });
        co_await sleep(1s);
        slot.resume_with(7);
        static_cast<void>(co_await as_result(task));
        EXPECT_TRUE(task.cancelled());
        EXPECT_EQ(seen, 7);
    });
}

TEST(Foreign, a_loop_may_close_while_one_is_waited_for) {
    Slot slot;
    auto loop = asyncio::new_event_loop();
    asyncio_test::Reports reports(*loop);
    auto task = create_task(*loop, [&]() -> Coro<> { static_cast<void>(co_await ByVoid(slot)); });
    loop->stop();
    loop->run_forever();
    EXPECT_TRUE(slot.handle);
    loop->close();
    EXPECT_FALSE(slot.handle); // the awaiter was destroyed, and has withdrawn
    EXPECT_TRUE(task.cancelled());
    loop->set_exception_handler(nullptr);
}

TEST(Foreign, can_be_a_task_and_part_of_a_gather) {
    in_virtual_time([]() -> Coro<> {
        Slot a;
        Slot b;
        get_running_loop().call_later(1s, [&] { a.resume_with(1); });
        get_running_loop().call_later(2s, [&] { b.resume_with(2); });
        auto first = WithMember{&a};
        auto second = WithFree{&b};
        const auto both = co_await asyncio::gather(first, second);
        EXPECT_EQ(both, std::tuple(1, 2));
    });
}

TEST(Foreign, a_thread_may_resume_and_the_task_goes_on_on_its_own) {
    Threads threads;
    asyncio::run([](Threads& t) -> Coro<> {
        const auto home = std::this_thread::get_id();
        for (int i = 0; i < 50; ++i) {
            const auto value = co_await OnThread(t);
            EXPECT_EQ(*value, 5);
            EXPECT_EQ(std::this_thread::get_id(), home);
        }
    }(threads));
}

TEST(Foreign, many_tasks_wait_for_a_thread_each) {
    Threads threads;
    asyncio::run([](Threads& t) -> Coro<> {
        auto wait = [&]() -> Coro<int> {
            const auto value = co_await OnThread(t);
            co_return *value;
        };
        std::vector<Coro<int>> many;
        for (int i = 0; i < 40; ++i) many.push_back(wait());
        const auto values = co_await asyncio::gather(many);
        EXPECT_EQ(values, std::vector<int>(40, 5));
    }(threads));
}
