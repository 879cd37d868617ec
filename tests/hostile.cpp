// SPDX-License-Identifier: MIT
// Code of a user's that calls back, destroys or throws where nobody expects it.
#include <asyncio/asyncio.hpp>
#include <asyncio/testing/virtual_time.hpp>

#include <gtest/gtest.h>

#include <coroutine>
#include <memory>
#include <stdexcept>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>

using namespace std::chrono_literals;
using asyncio::AnyTask;
using asyncio::ContextVar;
using asyncio::Coro;
using asyncio::create_future;
using asyncio::create_task;
using asyncio::EventLoop;
using asyncio::EventLoopOwner;
using asyncio::ExceptionContext;
using asyncio::Future;
using asyncio::new_event_loop;

namespace {

Coro<> nop() { co_return; }

TEST(Hostile, a_callback_may_own_the_loop_that_drops_it) {
    auto owner = std::make_shared<EventLoopOwner>(new_event_loop());
    EventLoop* loop = owner->get();
    loop->call_soon([owner] {});
    owner.reset();
    loop->close();
}

TEST(Hostile, a_task_may_own_the_loop_that_destroys_it) {
    auto owner = std::make_shared<EventLoopOwner>(new_event_loop());
    EventLoop* loop = owner->get();
    loop->set_exception_handler([](EventLoop&, const ExceptionContext&) {});
    create_task(
        *loop, [](std::shared_ptr<EventLoopOwner>) -> Coro<> { co_await asyncio::sleep(1); },
        owner);
    owner.reset();
    loop->close();
}

TEST(Hostile, a_report_may_destroy_the_loop_of_a_negative_delay) {
    auto loop = new_event_loop();
    loop->set_exception_handler([&](EventLoop&, const ExceptionContext&) { loop.reset(); });
    EXPECT_THROW(loop->call_later(-1s, [] {}), asyncio::RuntimeError);
    EXPECT_EQ(loop, nullptr);
}

// Closes the loop when it is copied.
struct Closer {
    EventLoop* loop;
    explicit Closer(EventLoop* l) : loop(l) {}
    Closer(const Closer& other) : loop(other.loop) { loop->close(); }
    void operator()() const {}
};

TEST(Hostile, a_callable_may_close_the_loop_as_it_is_copied) {
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    auto loop = new_event_loop();
    const Closer soon(loop.get());
    EXPECT_THROW(loop->call_soon(soon), asyncio::RuntimeError);
    loop = new_event_loop();
    const Closer later(loop.get());
    EXPECT_THROW(loop->call_at(asyncio::TimePoint(), later), asyncio::RuntimeError);
    loop = new_event_loop();
    const Closer reader(loop.get());
    EXPECT_THROW(loop->add_reader(ends[0], reader), asyncio::RuntimeError);
    EXPECT_THROW(loop->backend(), asyncio::RuntimeError);
    ::close(ends[0]);
    ::close(ends[1]);
}

TEST(Hostile, a_child_that_closes_its_copy_of_a_loop_leaves_the_parents_alone) {
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    auto loop = new_event_loop();
    bool readable = false;
    loop->add_reader(ends[0], [&] {
        readable = true;
        loop->stop();
    });
    const pid_t child = ::fork();
    if (child == 0) {
        loop.reset();
        ::_exit(0);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_EQ(::write(ends[1], "x", 1), 1);
    const auto late = loop->call_later(10s, [&] { loop->stop(); });
    loop->run_forever();
    EXPECT_TRUE(readable);
    loop.reset();
    ::close(ends[0]);
    ::close(ends[1]);
}

TEST(Hostile, a_task_may_gather_itself_and_still_be_cancelled) {
    asyncio::testing::VirtualClock clock;
    asyncio::run(
        []() -> Coro<> {
            const auto self = []() -> Coro<> {
                co_await asyncio::gather(asyncio::current_task(), asyncio::sleep(1000));
            };
            const auto task = create_task(self);
            co_await asyncio::sleep(1);
            task.cancel();
            const auto end = co_await asyncio::as_result(task);
            EXPECT_FALSE(end.has_value());
            EXPECT_TRUE(task.cancelled());
        }(),
        asyncio::RunOptions().clock(clock));
}

TEST(Hostile, gather_refuses_a_coroutine_for_a_closed_loop) {
    auto loop = new_event_loop();
    const auto future = create_future<int>(*loop);
    loop->close();
    EXPECT_THROW(static_cast<void>(asyncio::gather(future, nop())), asyncio::RuntimeError);
}

TEST(Hostile, run_until_complete_refuses_a_future_of_another_loop) {
    auto a = new_event_loop();
    auto b = new_event_loop();
    EXPECT_THROW(asyncio::run_until_complete(*a, create_future(*b)), asyncio::ValueError);
}

TEST(Hostile, callbacks_of_futures_are_numbered_by_loop) {
    auto a = new_event_loop();
    const auto future = create_future(*a);
    const auto first = future.add_done_callback([] {});
    std::uint64_t elsewhere = 0;
    auto b = new_event_loop();
    elsewhere = create_future(*b).add_done_callback([] {}).serial;
    const auto second = future.add_done_callback([] {});
    EXPECT_NE(first.serial, second.serial);
    EXPECT_EQ(elsewhere, first.serial); // of another loop, so that it is no ambiguity
    EXPECT_EQ(future.remove_done_callback(first), 1U);
    EXPECT_EQ(future.remove_done_callback(first), 0U);
}

// Removes another callback while it is compared; or throws.
struct Comparing {
    const Future<int>* future = nullptr;
    asyncio::DoneCallbackId other{};
    bool throws = false;
    std::string pad = std::string(50, 'x');
    void operator()() const {}
    bool operator==(const Comparing&) const {
        if (throws) throw std::runtime_error("comparison");
        if (future != nullptr) future->remove_done_callback(other);
        return false;
    }
};

TEST(Hostile, a_comparison_may_remove_callbacks_or_throw) {
    auto loop = new_event_loop();
    const auto future = create_future<int>(*loop);
    future.add_done_callback(Comparing());
    const auto second = future.add_done_callback(Comparing());
    Comparing removing;
    removing.future = &future;
    removing.other = second;
    EXPECT_EQ(future.remove_done_callback(removing), 0U);
    EXPECT_EQ(future.remove_done_callback(second), 0U); // the comparison did
    Comparing throwing;
    throwing.throws = true;
    EXPECT_THROW(future.remove_done_callback(throwing), std::runtime_error);
}

struct SetsTwice {
    std::shared_ptr<int> value = std::make_shared<int>(1);
    explicit SetsTwice(const Future<SetsTwice>* future) {
        if (future == nullptr) return;
        EXPECT_THROW(future->set_result(static_cast<const Future<SetsTwice>*>(nullptr)),
                     asyncio::InvalidStateError);
        EXPECT_FALSE(future->cancel());
    }
};

TEST(Hostile, a_value_cannot_set_the_future_that_it_is_made_in) {
    auto loop = new_event_loop();
    const auto future = create_future<SetsTwice>(*loop);
    future.set_result(&future);
    EXPECT_EQ(*future.result().value, 1);
}

struct Changing;
ContextVar<Changing>& changing();
// Sets its own variable when it is copied.
struct Changing {
    std::string text;
    bool changes;
    Changing(std::string t, bool c) : text(std::move(t)), changes(c) {}
    Changing(Changing&&) = default;
    Changing(const Changing& other) : changes(false) {
        if (other.changes) changing().set(Changing("new", false));
        text = other.text;
    }
    Changing& operator=(const Changing&) = delete;
    Changing& operator=(Changing&&) = delete;
    ~Changing() = default;
};
ContextVar<Changing>& changing() {
    static ContextVar<Changing> variable("changing");
    return variable;
}

TEST(Hostile, a_value_may_be_replaced_while_it_is_copied) {
    changing().set(Changing(std::string(60, 'x'), true));
    EXPECT_EQ(changing().get().text, std::string(60, 'x'));
    EXPECT_EQ(changing().get().text, "new");
}

std::coroutine_handle<> parked;
struct Park {
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> handle) const noexcept { parked = handle; }
    void await_resume() const noexcept {}
};

TEST(Hostile, another_library_may_destroy_the_handle_that_it_was_given) {
    auto loop = new_event_loop();
    loop->set_exception_handler([](EventLoop&, const ExceptionContext&) {});
    const auto task = create_task(*loop, []() -> Coro<> { co_await Park(); });
    loop->stop();
    loop->run_forever();
    parked.destroy();
    loop->close();
    EXPECT_TRUE(task.cancelled());
}

TEST(Hostile, a_clock_may_stand_below_zero) {
    asyncio::testing::VirtualClock clock;
    clock.advance(-2000s);
    asyncio::run(
        [](asyncio::testing::VirtualClock& c) -> Coro<> {
            const std::int64_t begin = c.now_ns();
            co_await asyncio::sleep(1s);
            EXPECT_EQ(c.now_ns() - begin, 1'000'000'000);
        }(clock),
        asyncio::RunOptions().clock(clock));
}

class NoText : public std::exception {
  public:
    const char* what() const noexcept override { return nullptr; }
};

TEST(Hostile, an_exception_may_have_no_text) {
    testing::internal::CaptureStderr();
    EventLoop::default_exception_handler(
        {.message = "test", .exception = std::make_exception_ptr(NoText())});
    EXPECT_NE(testing::internal::GetCapturedStderr().find("NoText"), std::string::npos);
}

} // namespace
