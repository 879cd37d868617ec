// SPDX-License-Identifier: MIT
#include <asyncio/events.hpp>
#include <asyncio/testing/virtual_time.hpp>
#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

using asyncio::EventLoop;
using asyncio::EventLoopOwner;
using asyncio::ExceptionContext;
using asyncio::Handle;
using asyncio::LoopOptions;
using asyncio::RuntimeError;
using asyncio::TimePoint;
using asyncio::TimerHandle;
using asyncio::ValueError;
using asyncio::testing::VirtualClock;
using namespace std::chrono_literals;

namespace {

using Log = std::vector<std::string>;

// A pipe or a pair of sockets, closed at the end.
struct Ends {
    std::array<int, 2> fd = {-1, -1};

    Ends() = default;
    Ends(const Ends&) = delete;
    Ends& operator=(const Ends&) = delete;
    ~Ends() {
        close(0);
        close(1);
    }
    void close(std::size_t end) {
        if (fd[end] >= 0) ::close(fd[end]);
        fd[end] = -1;
    }
};

struct Pipe : Ends {
    Pipe() { EXPECT_EQ(::pipe2(fd.data(), O_CLOEXEC | O_NONBLOCK), 0); }
    int reads() const { return fd[0]; }
    int writes() const { return fd[1]; }
    void fill() const { EXPECT_EQ(::write(fd[1], "x", 1), 1); }
    void drain() const {
        char byte = 0;
        EXPECT_EQ(::read(fd[0], &byte, 1), 1);
    }
};

struct Sockets : Ends {
    Sockets() {
        EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fd.data()),
                  0);
    }
};

// A loop under virtual time, and what its exception handler was told.
struct Fixture : testing::Test {
    VirtualClock clock;
    EventLoopOwner owner = asyncio::new_event_loop(LoopOptions().clock(clock));
    EventLoop& loop = *owner;
    Log log;
    std::vector<ExceptionContext> reports;

    Fixture() {
        loop.set_exception_handler(
            [this](EventLoop&, const ExceptionContext& context) { reports.push_back(context); });
    }
    auto say(std::string what) {
        return [this, what = std::move(what)] { log.push_back(what); };
    }
    void one_turn() {
        loop.stop();
        loop.run_forever();
    }
    void turns(int count) {
        for (int i = 0; i < count; ++i) one_turn();
    }
};

// The text of what a call throws, which must be an E and not something else.
template <class E, class F> std::string text_of(F call) {
    try {
        call();
    } catch (const E& error) {
        return error.what();
    } catch (...) {
        return "another exception";
    }
    return "no exception";
}

std::string text_in(const std::exception_ptr& exception) {
    try {
        std::rethrow_exception(exception);
    } catch (const std::exception& error) {
        return error.what();
    } catch (...) {
        return "no std::exception";
    }
}

bool has(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

// Calls a function as it is destroyed.
class AtDestruction {
  public:
    explicit AtDestruction(std::function<void()> function)
        : function_(std::make_shared<Once>(std::move(function))) {}
    void operator()() const {}

  private:
    struct Once {
        explicit Once(std::function<void()> f) : function(std::move(f)) {}
        Once(const Once&) = delete;
        Once& operator=(const Once&) = delete;
        ~Once() { function(); }
        std::function<void()> function;
    };
    std::shared_ptr<Once> function_;
};

struct Events : Fixture {};
struct EventsTimers : Fixture {};
struct EventsDescriptors : Fixture {};
struct EventsHandlers : Fixture {};
struct EventsClosed : Fixture {};

} // namespace

// ---- call_soon and turns

TEST_F(Events, call_soon_runs_in_the_order_of_the_calls) {
    for (int i = 0; i < 1000; ++i) loop.call_soon([this, i] { log.push_back(std::to_string(i)); });
    one_turn();
    ASSERT_EQ(log.size(), 1000U);
    for (std::size_t i = 0; i < 1000; ++i) EXPECT_EQ(log[i], std::to_string(i));
}

TEST_F(Events, call_soon_keeps_copies_of_its_arguments_and_moves_them_into_the_call) {
    std::string text = "a text that is too long to stand in the string object";
    auto pointer = std::make_unique<int>(7);
    int by_reference = 0;
    loop.call_soon(
        [this](const std::string& kept, std::unique_ptr<int> owned, int& target) {
            log.push_back(kept);
            log.push_back(std::to_string(*owned));
            target = 1;
        },
        text, std::move(pointer), std::ref(by_reference));
    text = "changed";
    one_turn();
    EXPECT_EQ(log, (Log{"a text that is too long to stand in the string object", "7"}));
    EXPECT_EQ(by_reference, 1);
}

TEST_F(Events, call_soon_takes_member_functions_function_pointers_and_move_only_callables) {
    struct Counter {
        void add(int number) { sum += number; }
        int sum = 0;
    } counter;
    loop.call_soon(&Counter::add, &counter, 2);
    loop.call_soon([p = std::make_unique<int>(40), &counter] { counter.sum += *p; });
    static int called = 0;
    loop.call_soon(+[] { ++called; });
    one_turn();
    EXPECT_EQ(counter.sum, 42);
    EXPECT_EQ(called, 1);
}

TEST_F(Events, a_callback_that_is_scheduled_by_a_callback_runs_in_the_next_turn) {
    loop.call_soon([this] {
        log.push_back("a");
        loop.call_soon(say("c"));
    });
    loop.call_soon(say("b"));
    one_turn();
    EXPECT_EQ(log, (Log{"a", "b"}));
    one_turn();
    EXPECT_EQ(log, (Log{"a", "b", "c"}));
}

TEST_F(Events, a_callable_is_destroyed_right_after_its_call) {
    loop.call_soon(AtDestruction([this] { log.push_back("destroyed"); }));
    loop.call_soon(say("next"));
    one_turn();
    EXPECT_EQ(log, (Log{"destroyed", "next"}));
}

TEST_F(Events, a_callable_with_a_large_alignment_is_aligned) {
    struct alignas(128) Aligned {
        char bytes[128] = {};
    };
    bool aligned = false;
    for (int i = 0; i < 8; ++i) {
        aligned = false;
        loop.call_soon([big = Aligned(), &aligned] {
            aligned = reinterpret_cast<std::uintptr_t>(&big) % 128 == 0;
        });
        one_turn();
        EXPECT_TRUE(aligned);
        aligned = false;
        loop.call_soon_threadsafe([big = Aligned(), &aligned] {
            aligned = reinterpret_cast<std::uintptr_t>(&big) % 128 == 0;
        });
        one_turn();
        EXPECT_TRUE(aligned);
    }
}

// SEMANTICS 2.1, the example that was measured on CPython.
TEST_F(Events, a_turn_runs_what_was_ready_then_descriptors_then_timers) {
    const Pipe pipe;
    pipe.fill();
    loop.add_reader(pipe.reads(), [&] {
        log.push_back("io");
        pipe.drain();
    });
    loop.call_later(0, say("timer0"));
    loop.call_at(loop.time() - 1s, say("timer-past"));
    loop.call_soon([this] {
        log.push_back("soon1");
        loop.stop();
    });
    loop.call_soon([this] {
        log.push_back("soon2");
        loop.call_soon(say("soon2.next"));
    });
    loop.run_forever();
    EXPECT_EQ(log, (Log{"soon1", "soon2", "io", "timer-past", "timer0"}));
    one_turn();
    EXPECT_EQ(log, (Log{"soon1", "soon2", "io", "timer-past", "timer0", "soon2.next"}));
}

TEST_F(Events, the_order_in_a_turn_is_the_same_in_real_time) {
    const EventLoopOwner real = asyncio::new_event_loop();
    const Pipe pipe;
    pipe.fill();
    real->add_reader(pipe.reads(), [&] {
        log.push_back("io");
        pipe.drain();
    });
    real->call_later(0, say("timer0"));
    real->call_at(real->time() - 1s, say("timer-past"));
    real->call_soon(say("soon1"));
    real->call_soon([&] {
        log.push_back("soon2");
        real->call_soon([&] {
            log.push_back("soon2.next");
            real->stop();
        });
    });
    real->run_forever();
    EXPECT_EQ(log, (Log{"soon1", "soon2", "io", "timer-past", "timer0", "soon2.next"}));
}

TEST_F(Events, what_comes_by_the_thread_door_before_a_run_joins_the_first_turn_before_descriptors) {
    const Pipe pipe;
    pipe.fill();
    loop.add_reader(pipe.reads(), [&] {
        log.push_back("io");
        pipe.drain();
    });
    loop.call_soon_threadsafe(say("door"));
    loop.call_soon(say("soon"));
    one_turn();
    EXPECT_EQ(log, (Log{"soon", "door", "io"}));
}

TEST_F(Events, call_soon_threadsafe_on_the_loops_own_thread_keeps_the_order_with_call_soon) {
    loop.call_soon([this] {
        loop.call_soon(say("a"));
        loop.call_soon_threadsafe(say("b"));
        loop.call_soon(say("c"));
    });
    turns(2);
    EXPECT_EQ(log, (Log{"a", "b", "c"}));
}

// ---- stop

TEST_F(Events, stop_before_run_forever_makes_one_turn) {
    loop.call_soon([this] {
        log.push_back("first");
        loop.call_soon(say("second"));
    });
    loop.stop();
    loop.run_forever();
    EXPECT_EQ(log, (Log{"first"}));
}

TEST_F(Events, stop_before_run_forever_does_not_wait_for_timers_or_descriptors) {
    const EventLoopOwner real = asyncio::new_event_loop();
    const Pipe pipe;
    real->call_later(1h, say("never"));
    real->add_reader(pipe.reads(), say("never"));
    real->stop();
    real->run_forever();
    EXPECT_EQ(log, Log{});
    loop.call_later(1h, say("never"));
    const TimePoint before = loop.time();
    one_turn();
    EXPECT_EQ(loop.time(), before);
}

TEST_F(Events, stop_during_a_batch_lets_its_rest_run_and_nothing_that_it_scheduled) {
    loop.call_soon([this] {
        loop.stop();
        loop.call_soon(say("later"));
        loop.call_later(0, say("timer"));
    });
    loop.call_soon(say("rest"));
    loop.run_forever();
    EXPECT_EQ(log, (Log{"rest"}));
    one_turn();
    EXPECT_EQ(log, (Log{"rest", "later", "timer"}));
}

TEST_F(Events, a_stop_holds_for_one_run_only) {
    loop.stop();
    loop.run_forever();
    int turn = 0;
    std::function<void()> again = [&] {
        if (++turn == 3) {
            loop.stop();
        } else {
            loop.call_soon(again);
        }
    };
    loop.call_soon(again);
    loop.run_forever();
    EXPECT_EQ(turn, 3);
}

// ---- what leaves run_forever

TEST_F(Events, keyboard_interrupt_leaves_at_once_and_the_rest_of_the_batch_waits_for_the_next_run) {
    loop.call_soon(say("a"));
    loop.call_soon([] { throw asyncio::KeyboardInterrupt(); });
    loop.call_soon(say("b"));
    loop.call_soon(say("c"));
    EXPECT_THROW(loop.run_forever(), asyncio::KeyboardInterrupt);
    EXPECT_EQ(log, (Log{"a"}));
    EXPECT_FALSE(loop.is_running());
    EXPECT_EQ(asyncio::get_running_loop_or_null(), nullptr);
    one_turn();
    EXPECT_EQ(log, (Log{"a", "b", "c"}));
    EXPECT_TRUE(reports.empty());
}

TEST_F(Events, system_exit_leaves_at_once_with_its_code) {
    loop.call_soon([] { throw asyncio::SystemExit(3); });
    loop.call_soon(say("rest"));
    try {
        loop.run_forever();
        FAIL() << "no exception";
    } catch (const asyncio::SystemExit& exit) {
        EXPECT_EQ(exit.code(), 3);
    }
    EXPECT_EQ(log, Log{});
    one_turn();
    EXPECT_EQ(log, (Log{"rest"}));
}

TEST_F(Events, an_interrupt_out_of_every_kind_of_callback_leaves_and_destroys_the_callable) {
    const Pipe pipe;
    pipe.fill();
    int destroyed = 0;
    const auto interrupt = [&] {
        return [end = AtDestruction([&] { ++destroyed; })]() -> void {
            throw asyncio::KeyboardInterrupt();
        };
    };
    loop.call_soon(interrupt());
    EXPECT_THROW(loop.run_forever(), asyncio::KeyboardInterrupt);
    EXPECT_EQ(destroyed, 1);
    loop.call_later(1, interrupt());
    EXPECT_THROW(loop.run_forever(), asyncio::KeyboardInterrupt);
    EXPECT_EQ(destroyed, 2);
    loop.call_soon_threadsafe(interrupt());
    EXPECT_THROW(loop.run_forever(), asyncio::KeyboardInterrupt);
    EXPECT_EQ(destroyed, 3);
    loop.add_reader(pipe.reads(), interrupt());
    EXPECT_THROW(loop.run_forever(), asyncio::KeyboardInterrupt);
    EXPECT_EQ(destroyed, 3); // it stays
    EXPECT_TRUE(loop.remove_reader(pipe.reads()));
    EXPECT_EQ(destroyed, 4);
}

TEST_F(Events, a_descriptor_left_over_by_an_interrupt_is_called_once_in_the_next_turn) {
    const Pipe pipe;
    pipe.fill();
    loop.call_soon([] { throw asyncio::KeyboardInterrupt(); });
    loop.add_reader(pipe.reads(), say("io"));
    EXPECT_THROW(loop.run_forever(), asyncio::KeyboardInterrupt);
    one_turn();
    EXPECT_EQ(log, (Log{"io"}));
}

TEST_F(Events, other_exceptions_go_to_the_handler_and_the_batch_goes_on) {
    loop.call_soon([] { throw std::runtime_error("broken"); });
    loop.call_soon(say("a"));
    loop.call_soon([] { throw 42; });
    loop.call_soon(say("b"));
    loop.call_soon([] { throw asyncio::CancelledError("why"); });
    loop.call_later(0, []() -> void { throw ValueError("timer"); });
    loop.call_soon_threadsafe([] { throw ValueError("door"); });
    loop.call_soon(say("c"));
    turns(2);
    EXPECT_EQ(log, (Log{"a", "b", "c"}));
    ASSERT_EQ(reports.size(), 5U);
    for (const ExceptionContext& report : reports) {
        EXPECT_EQ(report.message, "Exception in callback");
        ASSERT_EQ(report.details.size(), 1U);
        EXPECT_EQ(report.details[0].key, "handle");
        EXPECT_TRUE(has(report.details[0].text, "events.cpp:")) << report.details[0].text;
    }
    EXPECT_EQ(text_in(reports[0].exception), "broken");
    EXPECT_THROW(std::rethrow_exception(reports[1].exception), int);
    EXPECT_THROW(std::rethrow_exception(reports[2].exception), asyncio::CancelledError);
}

// ---- run_forever where it may not be called

TEST_F(Events, run_forever_inside_itself_is_a_runtime_error) {
    loop.call_soon([this] {
        EXPECT_TRUE(has(text_of<RuntimeError>([this] { loop.run_forever(); }),
                        "This event loop is already running"));
        loop.call_soon(say("next"));
    });
    turns(2);
    EXPECT_EQ(log, (Log{"next"}));
}

TEST_F(Events, run_forever_while_another_loop_runs_is_a_runtime_error) {
    const EventLoopOwner other = asyncio::new_event_loop();
    other->stop();
    loop.call_soon([&] {
        EXPECT_TRUE(has(text_of<RuntimeError>([&] { other->run_forever(); }),
                        "Cannot run the event loop while another loop is running"));
        EXPECT_FALSE(other->is_running());
        EXPECT_EQ(&asyncio::get_running_loop(), &loop);
        log.push_back("checked");
    });
    one_turn();
    EXPECT_EQ(log, (Log{"checked"}));
    other->run_forever(); // its own stop() still holds
}

TEST_F(Events, run_forever_of_a_closed_loop_is_a_runtime_error) {
    loop.close();
    EXPECT_TRUE(has(text_of<RuntimeError>([this] { loop.run_forever(); }), "closed"));
    EXPECT_FALSE(loop.is_running());
}

TEST_F(Events, the_running_loop_is_known_only_while_it_runs) {
    EXPECT_EQ(asyncio::get_running_loop_or_null(), nullptr);
    EXPECT_TRUE(has(text_of<RuntimeError>([] { asyncio::get_running_loop(); }),
                    "no running event loop: call this from a coroutine or callback"));
    EXPECT_FALSE(loop.is_running());
    loop.call_soon([this] {
        EXPECT_EQ(&asyncio::get_running_loop(), &loop);
        EXPECT_TRUE(loop.is_running());
        log.push_back("checked");
    });
    one_turn();
    EXPECT_EQ(log, (Log{"checked"}));
    EXPECT_FALSE(loop.is_running());
    EXPECT_EQ(asyncio::get_running_loop_or_null(), nullptr);
}

// ---- Handle

TEST_F(Events, a_cancelled_callback_does_not_run_and_is_destroyed_at_once) {
    bool destroyed = false;
    const AtDestruction end([&] { destroyed = true; });
    Handle handle;
    EXPECT_TRUE(handle.cancelled());
    handle.cancel(); // of nothing
    handle = loop.call_soon(
        [this, end = AtDestruction([&] { destroyed = true; })] { log.push_back("ran"); });
    loop.call_soon(say("next"));
    EXPECT_FALSE(handle.cancelled());
    handle.cancel();
    EXPECT_TRUE(handle.cancelled());
    EXPECT_TRUE(destroyed);
    handle.cancel();
    one_turn();
    EXPECT_EQ(log, (Log{"next"}));
}

TEST_F(Events, a_callback_may_cancel_another_of_the_same_batch) {
    Handle second;
    loop.call_soon([&] { second.cancel(); });
    second = loop.call_soon(say("second"));
    loop.call_soon(say("third"));
    one_turn();
    EXPECT_EQ(log, (Log{"third"}));
}

TEST_F(Events, the_last_callback_of_a_batch_may_be_cancelled_in_the_batch) {
    Handle last;
    loop.call_soon([&] {
        last.cancel();
        loop.call_soon(say("next turn"));
    });
    last = loop.call_soon(say("last"));
    one_turn();
    EXPECT_EQ(log, Log{});
    one_turn();
    EXPECT_EQ(log, (Log{"next turn"}));
}

TEST_F(Events, a_callback_that_cancels_itself_while_it_runs_is_destroyed_when_it_has_ended) {
    Handle handle;
    handle = loop.call_soon([this, &handle, text = std::string(100, 'x'),
                             end = AtDestruction([this] { log.push_back("destroyed"); })] {
        handle.cancel();
        EXPECT_TRUE(handle.cancelled());
        log.push_back("still " + text.substr(0, 3));
    });
    one_turn();
    EXPECT_EQ(log, (Log{"still xxx", "destroyed"}));
}

TEST_F(Events, copies_of_a_handle_mean_the_same_callback) {
    const Handle first = loop.call_soon(say("no"));
    Handle second = first;
    Handle third = std::move(second);
    third.cancel();
    EXPECT_TRUE(first.cancelled());
    one_turn();
    EXPECT_EQ(log, Log{});
}

TEST_F(Events, cancelling_after_the_run_changes_nothing) {
    Handle handle = loop.call_soon(say("ran"));
    one_turn();
    handle.cancel();
    one_turn();
    EXPECT_EQ(log, (Log{"ran"}));
}

TEST_F(Events, a_callable_that_owns_its_only_handle_may_cancel_it_in_its_destructor) {
    struct Owner {
        Owner() = default;
        Owner(const Owner&) = delete;
        Owner& operator=(const Owner&) = delete;
        ~Owner() { handle.cancel(); }
        TimerHandle handle;
    };
    for (const bool timer : {true, false}) {
        auto kept = std::make_shared<Owner>();
        Owner& raw = *kept;
        if (timer) {
            raw.handle = loop.call_later(1, [kept = std::move(kept)] {});
            raw.handle.cancel();
        } else {
            loop.call_soon([kept = std::move(kept)] {});
        }
    }
    one_turn();
}

TEST_F(Events, a_destructor_of_a_callable_may_call_back_into_the_loop) {
    Handle cancelled =
        loop.call_soon(AtDestruction([this] { loop.call_soon(say("from cancel")); }));
    loop.call_soon(AtDestruction([this] { loop.call_soon(say("from run")); }));
    TimerHandle timer = loop.call_later(1h, AtDestruction([this, &cancelled] {
                                            cancelled.cancel();
                                            loop.call_later(0, say("from timer"));
                                        }));
    timer.cancel();
    turns(2);
    EXPECT_EQ(log, (Log{"from cancel", "from timer", "from run"}));
}

TEST_F(Events, handles_may_outlive_their_loop) {
    const Pipe pipe;
    Handle soon = loop.call_soon(say("no"));
    TimerHandle later = loop.call_later(1, say("no"));
    asyncio::ThreadSafeHandle door = loop.call_soon_threadsafe(say("no"));
    Handle ran = loop.call_soon(say("yes"));
    const TimePoint when = later.when();
    loop.add_reader(pipe.reads(), say("no"));
    soon.cancel();
    soon = loop.call_soon([] {});
    owner.reset();
    EXPECT_TRUE(soon.cancelled());
    EXPECT_TRUE(later.cancelled());
    EXPECT_TRUE(door.cancelled());
    EXPECT_EQ(later.when(), when);
    soon.cancel();
    later.cancel();
    door.cancel();
    ran.cancel();
    EXPECT_EQ(log, Log{});
}

// ---- timers

TEST_F(EventsTimers, run_by_deadline_and_equal_deadlines_in_the_order_of_arming) {
    const TimePoint base = loop.time();
    for (int i = 0; i < 8; ++i) loop.call_at(base + 1s, say("b" + std::to_string(i)));
    loop.call_at(base + 2s, [this] {
        log.push_back("c");
        loop.stop();
    });
    for (int i = 0; i < 4; ++i) loop.call_later(0.5, say("a" + std::to_string(i)));
    loop.run_forever();
    EXPECT_EQ(log,
              (Log{"a0", "a1", "a2", "a3", "b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7", "c"}));
    EXPECT_EQ(loop.time(), base + 2s);
}

TEST_F(EventsTimers, are_never_early_and_have_the_resolution_of_a_nanosecond) {
    const TimePoint base = loop.time();
    std::vector<std::int64_t> at;
    for (const int delay : {3, 1, 2}) {
        loop.call_later(std::chrono::nanoseconds(delay),
                        [&] { at.push_back((loop.time() - base).count()); });
    }
    loop.call_later(1us, [this] { loop.stop(); });
    loop.run_forever();
    EXPECT_EQ(at, (std::vector<std::int64_t>{1, 2, 3}));
}

TEST_F(EventsTimers, are_never_early_in_real_time) {
    const EventLoopOwner real = asyncio::new_event_loop();
    int left = 0;
    int early = 0;
    for (int us = 0; us < 20'000; us += 37) {
        ++left;
        const TimePoint armed = real->time();
        real->call_later(std::chrono::microseconds(us), [&, armed, us] {
            if (real->time() - armed < std::chrono::microseconds(us)) ++early;
            if (--left == 0) real->stop();
        });
    }
    real->run_forever();
    EXPECT_EQ(early, 0);
}

TEST_F(EventsTimers, a_relative_deadline_reads_the_clock_when_it_is_armed) {
    const TimePoint base = loop.time();
    clock.advance(1s);
    const TimerHandle handle = loop.call_later(2, [this] { loop.stop(); });
    EXPECT_EQ(handle.when(), base + 3s);
    loop.run_forever();
    EXPECT_EQ(loop.time(), base + 3s);
}

TEST_F(EventsTimers, one_armed_by_a_timer_waits_for_the_next_turn_even_if_it_is_due) {
    loop.call_later(1, [this] {
        log.push_back("a");
        loop.call_later(0, say("c"));
        loop.call_soon(say("b"));
        loop.stop();
    });
    loop.run_forever();
    EXPECT_EQ(log, (Log{"a"}));
    one_turn();
    EXPECT_EQ(log, (Log{"a", "b", "c"}));
}

TEST_F(EventsTimers, a_negative_delay_is_reported_and_runs_in_the_next_turn) {
    const TimerHandle handle = loop.call_later(-1s, say("ran"));
    ASSERT_EQ(reports.size(), 1U);
    EXPECT_TRUE(has(reports[0].message, "call_later() got a negative delay, -1000000000 ns"))
        << reports[0].message;
    EXPECT_TRUE(has(reports[0].message, "call_soon()"));
    EXPECT_EQ(reports[0].exception, nullptr);
    ASSERT_EQ(reports[0].details.size(), 1U);
    EXPECT_TRUE(has(reports[0].details[0].text, "events.cpp:"));
    EXPECT_EQ(log, Log{});
    one_turn();
    EXPECT_EQ(log, (Log{"ran"}));
}

// As in CPython: the deadline of a negative delay lies in the past.
TEST_F(EventsTimers, a_negative_delay_comes_before_a_delay_of_zero) {
    loop.call_later(0, say("zero"));
    loop.call_later(-1, say("negative"));
    one_turn();
    EXPECT_EQ(log, (Log{"negative", "zero"}));
}

TEST_F(EventsTimers, negative_delays_come_in_the_order_of_their_deadlines) {
    loop.call_later(-1, say("one"));
    loop.call_later(-2, say("two"));
    one_turn();
    EXPECT_EQ(log, (Log{"two", "one"}));
}

TEST_F(EventsTimers, a_delay_that_is_not_a_number_is_a_value_error) {
    EXPECT_THROW(loop.call_later(std::nan(""), say("no")), ValueError);
}

TEST_F(EventsTimers, the_longest_delays_do_not_overflow) {
    const TimerHandle far = loop.call_later(std::chrono::nanoseconds::max(), say("no"));
    EXPECT_EQ(far.when().time_since_epoch().count(), INT64_MAX);
    loop.call_later(std::chrono::nanoseconds::min(), say("at once"));
    loop.call_at(TimePoint::min(), say("first"));
    loop.call_at(TimePoint::max(), say("no"));
    one_turn();
    EXPECT_EQ(log, (Log{"first", "at once"}));
}

TEST_F(EventsTimers, a_clock_below_zero_does_not_overflow) {
    struct Below final : asyncio::Clock {
        std::int64_t now = INT64_MIN + 10;
        std::int64_t now_ns() noexcept override { return now; }
        bool jumps() const noexcept override { return true; }
        void jump_to(std::int64_t when) noexcept override { now = when; }
    } below;
    const EventLoopOwner other = asyncio::new_event_loop(LoopOptions().clock(below));
    other->set_exception_handler([](EventLoop&, const ExceptionContext&) {});
    other->call_at(TimePoint::max(), [&] {
        log.push_back("last");
        other->stop();
    });
    other->call_later(1s, say("second"));
    other->call_later(-1h, say("first"));
    other->run_forever();
    EXPECT_EQ(log, (Log{"first", "second", "last"}));
    EXPECT_EQ(below.now, INT64_MAX);
}

TEST_F(EventsTimers, a_far_deadline_does_not_end_a_real_wait) {
    const EventLoopOwner real = asyncio::new_event_loop();
    real->call_at(TimePoint::max(), say("no"));
    real->call_later(5ms, [&] { real->stop(); });
    real->run_forever();
    EXPECT_EQ(log, Log{});
}

TEST_F(EventsTimers, a_cancelled_one_leaves_no_corpse) {
    bool destroyed = false;
    for (int i = 0; i < 1000; ++i) {
        TimerHandle handle = loop.call_later(1h, AtDestruction([&] { destroyed = true; }));
        handle.cancel();
        EXPECT_TRUE(destroyed);
        EXPECT_TRUE(handle.cancelled());
        destroyed = false;
        ASSERT_TRUE(loop.core().timers.empty());
    }
    // Nothing is left to wait for, so that virtual time cannot advance.
    EXPECT_TRUE(has(text_of<RuntimeError>([this] { loop.run_forever(); }), "deadlock"));
}

TEST_F(EventsTimers, a_due_one_may_be_cancelled_by_an_earlier_one_of_the_same_turn) {
    TimerHandle second;
    loop.call_later(1, [&] {
        second.cancel();
        loop.stop();
    });
    second = loop.call_later(1, say("no"));
    loop.run_forever();
    one_turn();
    EXPECT_EQ(log, Log{});
}

TEST_F(EventsTimers, when_is_the_deadline_before_and_after_the_run_and_of_a_cancelled_one) {
    const TimePoint when = loop.time() + 3s;
    TimerHandle handle = loop.call_at(when, [this] { loop.stop(); });
    EXPECT_EQ(handle.when(), when);
    loop.run_forever();
    EXPECT_EQ(handle.when(), when);
    handle.cancel();
    EXPECT_EQ(handle.when(), when);
    EXPECT_EQ(TimerHandle().when(), TimePoint());
}

TEST_F(EventsTimers, keep_arguments_too) {
    loop.call_later(1, [this](const std::string& text) { log.push_back(text); }, "later");
    loop.call_at(
        loop.time() + 2s,
        [this](std::unique_ptr<int> p) {
            log.push_back(std::to_string(*p));
            loop.stop();
        },
        std::make_unique<int>(5));
    loop.run_forever();
    EXPECT_EQ(log, (Log{"later", "5"}));
}

// ---- virtual time together with descriptors and signals

TEST_F(EventsTimers, virtual_time_does_not_jump_while_a_descriptor_is_ready) {
    const Pipe pipe;
    pipe.fill();
    const TimePoint base = loop.time();
    loop.add_reader(pipe.reads(), [&] {
        EXPECT_EQ(loop.time(), base);
        pipe.drain();
        log.push_back("io");
    });
    loop.call_later(1h, [this] { loop.stop(); });
    loop.run_forever();
    EXPECT_EQ(log, (Log{"io"}));
    EXPECT_EQ(loop.time(), base + 1h);
}

// ---- descriptors

TEST_F(EventsDescriptors,
       a_reader_is_called_in_each_turn_for_as_long_as_there_is_something_to_read) {
    const Pipe pipe;
    pipe.fill();
    loop.add_reader(pipe.reads(), say("io"));
    turns(3);
    EXPECT_EQ(log, (Log{"io", "io", "io"}));
    pipe.drain();
    one_turn();
    EXPECT_EQ(log.size(), 3U);
    pipe.fill();
    one_turn();
    EXPECT_EQ(log.size(), 4U);
    EXPECT_TRUE(loop.remove_reader(pipe.reads()));
    one_turn();
    EXPECT_EQ(log.size(), 4U);
}

TEST_F(EventsDescriptors, a_writer_is_called_until_the_pipe_is_full) {
    const Pipe pipe;
    const std::string block(65536, 'x');
    loop.add_writer(pipe.writes(), [&] {
        log.push_back("io");
        EXPECT_GT(::write(pipe.writes(), block.data(), block.size()), 0);
    });
    turns(3);
    EXPECT_EQ(log, (Log{"io"}));
    EXPECT_TRUE(loop.remove_writer(pipe.writes()));
}

TEST_F(EventsDescriptors, reader_and_writer_of_one_descriptor_are_called_in_this_order) {
    const Sockets sockets;
    EXPECT_EQ(::write(sockets.fd[1], "x", 1), 1);
    loop.add_writer(sockets.fd[0], say("writer"));
    loop.add_reader(sockets.fd[0], say("reader"));
    one_turn();
    EXPECT_EQ(log, (Log{"reader", "writer"}));
    EXPECT_TRUE(loop.remove_reader(sockets.fd[0]));
    EXPECT_FALSE(loop.remove_reader(sockets.fd[0]));
    one_turn();
    EXPECT_EQ(log, (Log{"reader", "writer", "writer"}));
    EXPECT_TRUE(loop.remove_writer(sockets.fd[0]));
    EXPECT_FALSE(loop.remove_writer(sockets.fd[0]));
    one_turn();
    EXPECT_EQ(log.size(), 3U);
}

TEST_F(EventsDescriptors, adding_again_replaces_and_destroys_the_former) {
    const Pipe pipe;
    pipe.fill();
    bool destroyed = false;
    loop.add_reader(pipe.reads(), [this, end = AtDestruction([&] { destroyed = true; })] {
        log.push_back("first");
    });
    loop.add_reader(pipe.reads(), say("second"));
    EXPECT_TRUE(destroyed);
    one_turn();
    EXPECT_EQ(log, (Log{"second"}));
}

TEST_F(EventsDescriptors, a_callback_may_replace_itself) {
    const Pipe pipe;
    pipe.fill();
    loop.add_reader(pipe.reads(), [&, text = std::string(100, 'x')] {
        loop.add_reader(pipe.reads(), say("second"));
        log.push_back("first " + text.substr(0, 1));
    });
    turns(2);
    EXPECT_EQ(log, (Log{"first x", "second"}));
}

TEST_F(EventsDescriptors, one_that_is_replaced_in_the_batch_in_which_it_is_ready_is_not_called) {
    const Pipe pipe;
    pipe.fill();
    loop.add_reader(pipe.reads(), say("first"));
    loop.call_soon([&] { loop.add_reader(pipe.reads(), say("second")); });
    one_turn();
    EXPECT_EQ(log, Log{});
    one_turn();
    EXPECT_EQ(log, (Log{"second"}));
}

TEST_F(EventsDescriptors, a_callback_may_remove_itself) {
    const Pipe pipe;
    pipe.fill();
    loop.add_reader(pipe.reads(), [&, text = std::string(100, 'x'),
                                   end = AtDestruction([this] { log.push_back("destroyed"); })] {
        EXPECT_TRUE(loop.remove_reader(pipe.reads()));
        log.push_back("ran " + text.substr(0, 1));
    });
    turns(2);
    EXPECT_EQ(log, (Log{"ran x", "destroyed"}));
}

TEST_F(EventsDescriptors, one_that_is_removed_by_another_of_the_same_batch_is_not_called) {
    const Pipe first;
    const Pipe second;
    first.fill();
    second.fill();
    const auto remove_both = [&](std::string name) {
        return [&, name = std::move(name)] {
            log.push_back(name);
            loop.remove_reader(first.reads());
            loop.remove_reader(second.reads());
        };
    };
    loop.add_reader(first.reads(), remove_both("one"));
    loop.add_reader(second.reads(), remove_both("one"));
    turns(2);
    EXPECT_EQ(log, (Log{"one"}));
}

TEST_F(EventsDescriptors, a_descriptor_that_was_closed_first_can_still_be_removed) {
    Pipe pipe;
    const int number = pipe.reads();
    loop.add_reader(number, say("no"));
    pipe.close(0);
    EXPECT_TRUE(loop.remove_reader(number));
    EXPECT_FALSE(loop.remove_reader(number));
    one_turn();
    EXPECT_EQ(log, Log{});
    EXPECT_FALSE(loop.backend().watches_any());
}

TEST_F(EventsDescriptors, removing_one_of_two_from_a_closed_descriptor_keeps_the_other_removable) {
    Sockets sockets;
    const int number = sockets.fd[0];
    loop.add_reader(number, say("no"));
    loop.add_writer(number, say("no"));
    sockets.close(0);
    EXPECT_TRUE(loop.remove_reader(number));
    EXPECT_TRUE(loop.remove_writer(number));
    EXPECT_FALSE(loop.remove_writer(number));
    EXPECT_FALSE(loop.backend().watches_any());
    one_turn();
    EXPECT_EQ(log, Log{});
}

TEST_F(EventsDescriptors, a_number_that_comes_back_after_a_close_is_watched_anew) {
    Pipe old;
    const int number = old.reads();
    loop.add_reader(number, say("old"));
    old.close(0);
    old.close(1);
    Pipe next; // takes the same numbers
    ASSERT_EQ(next.reads(), number);
    next.fill();
    loop.add_reader(number, say("new"));
    one_turn();
    EXPECT_EQ(log, (Log{"new"}));
    EXPECT_TRUE(loop.remove_reader(number));
    one_turn();
    EXPECT_EQ(log, (Log{"new"}));
}

TEST_F(EventsDescriptors, a_number_that_comes_back_after_a_proper_removal_is_watched_anew) {
    int number = -1;
    for (int i = 0; i < 3; ++i) {
        const Pipe pipe;
        EXPECT_TRUE(number < 0 || pipe.reads() == number);
        number = pipe.reads();
        pipe.fill();
        loop.add_reader(number, say(std::to_string(i)));
        one_turn();
        EXPECT_TRUE(loop.remove_reader(number));
    }
    EXPECT_EQ(log, (Log{"0", "1", "2"}));
}

TEST_F(EventsDescriptors, a_regular_file_is_a_system_error_that_says_what_to_do) {
    const int file = ::open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    ASSERT_GE(file, 0);
    bool destroyed = false;
    try {
        loop.add_reader(file, AtDestruction([&] { destroyed = true; }));
        ADD_FAILURE() << "no exception";
    } catch (const std::system_error& error) {
        EXPECT_EQ(error.code(), std::errc::operation_not_permitted);
        EXPECT_TRUE(has(error.what(), "watching descriptor " + std::to_string(file)));
        EXPECT_TRUE(has(error.what(), "a regular file is always ready; read it directly"));
    }
    EXPECT_TRUE(destroyed);
    EXPECT_FALSE(loop.remove_reader(file));
    EXPECT_FALSE(loop.backend().watches_any());
    ::close(file);
}

TEST_F(EventsDescriptors, a_number_that_is_not_open_is_a_system_error) {
    Pipe pipe;
    const int number = pipe.reads();
    pipe.close(0);
    try {
        loop.add_reader(number, say("no"));
        ADD_FAILURE() << "no exception";
    } catch (const std::system_error& error) {
        EXPECT_EQ(error.code(), std::errc::bad_file_descriptor);
    }
    EXPECT_FALSE(loop.remove_reader(number));
}

TEST_F(EventsDescriptors, a_negative_number_is_a_value_error) {
    EXPECT_EQ(text_of<ValueError>([this] { loop.add_reader(-1, say("no")); }),
              "Invalid file descriptor: -1");
    EXPECT_EQ(text_of<ValueError>([this] { loop.add_writer(-7, say("no")); }),
              "Invalid file descriptor: -7");
    EXPECT_FALSE(loop.remove_reader(-1));
    EXPECT_FALSE(loop.remove_writer(12345));
}

TEST_F(EventsDescriptors, what_was_there_stays_if_adding_fails) {
    Pipe pipe;
    const int number = pipe.reads();
    loop.add_reader(number, say("old"));
    pipe.close(0);
    EXPECT_THROW(loop.add_reader(number, say("new")), std::system_error);
    EXPECT_TRUE(loop.remove_reader(number));
}

TEST_F(EventsDescriptors, a_hang_up_is_told_to_reader_and_writer) {
    Sockets sockets;
    loop.add_reader(sockets.fd[0], say("reader"));
    loop.add_writer(sockets.fd[0], say("writer"));
    sockets.close(1);
    one_turn();
    EXPECT_EQ(log, (Log{"reader", "writer"}));
}

TEST_F(EventsDescriptors, an_error_is_told_to_a_writer_whose_pipe_was_full) {
    Pipe pipe;
    const std::string block(65536, 'x');
    EXPECT_GT(::write(pipe.writes(), block.data(), block.size()), 0);
    loop.add_writer(pipe.writes(), say("writer"));
    one_turn();
    EXPECT_EQ(log, Log{});
    pipe.close(0);
    one_turn();
    EXPECT_EQ(log, (Log{"writer"}));
}

TEST_F(EventsDescriptors, a_hang_up_is_told_to_a_lone_reader) {
    Pipe pipe;
    loop.add_reader(pipe.reads(), say("reader"));
    pipe.close(1);
    one_turn();
    EXPECT_EQ(log, (Log{"reader"}));
}

TEST_F(EventsDescriptors, a_failing_callback_is_reported_and_stays) {
    const Pipe pipe;
    pipe.fill();
    loop.add_reader(pipe.reads(), [] { throw std::runtime_error("reader"); });
    turns(2);
    ASSERT_EQ(reports.size(), 2U);
    EXPECT_EQ(text_in(reports[1].exception), "reader");
}

TEST_F(EventsDescriptors, a_destructor_of_a_reader_may_remove_and_add_others) {
    const Pipe first;
    const Pipe second;
    second.fill();
    loop.add_reader(second.reads(), say("no"));
    loop.add_reader(first.reads(), AtDestruction([&] {
                        EXPECT_TRUE(loop.remove_reader(second.reads()));
                        EXPECT_FALSE(loop.remove_reader(first.reads()));
                        loop.add_reader(second.reads(), say("second"));
                    }));
    EXPECT_TRUE(loop.remove_reader(first.reads()));
    one_turn();
    EXPECT_EQ(log, (Log{"second"}));
}

TEST_F(EventsDescriptors, a_thousand_readers_are_all_called) {
    std::vector<std::unique_ptr<Pipe>> pipes;
    std::size_t called = 0;
    for (int i = 0; i < 400; ++i) {
        pipes.push_back(std::make_unique<Pipe>());
        pipes.back()->fill();
        loop.add_reader(pipes.back()->reads(), [&called, p = pipes.back().get()] {
            p->drain();
            ++called;
        });
    }
    turns(4);
    EXPECT_EQ(called, pipes.size());
}

// ---- the exception handler

TEST_F(EventsHandlers, the_default_one_writes_one_block_to_standard_error) {
    loop.set_exception_handler(nullptr);
    loop.call_soon([] { throw std::runtime_error("broken"); });
    testing::internal::CaptureStderr();
    one_turn();
    const std::string text = testing::internal::GetCapturedStderr();
    EXPECT_TRUE(text.starts_with("asyncio: Exception in callback\n  handle: <Handle created at "))
        << text;
    EXPECT_TRUE(has(text, "tests/events.cpp:")) << text;
    EXPECT_TRUE(text.ends_with("  exception: std::runtime_error: broken\n")) << text;
}

TEST_F(EventsHandlers, the_default_one_describes_what_is_no_std_exception) {
    const auto described = [](const std::exception_ptr& exception) {
        testing::internal::CaptureStderr();
        EventLoop::default_exception_handler({.message = "m", .exception = exception});
        return testing::internal::GetCapturedStderr();
    };
    EXPECT_EQ(described(std::make_exception_ptr(42)), "asyncio: m\n  exception: int\n");
    EXPECT_EQ(described(std::make_exception_ptr(asyncio::CancelledError("why"))),
              "asyncio: m\n  exception: asyncio::CancelledError: why\n");
    EXPECT_EQ(described(nullptr), "asyncio: m\n");
}

TEST_F(EventsHandlers, a_custom_one_gets_the_loop_and_the_context) {
    EventLoop* given = nullptr;
    loop.set_exception_handler([&](EventLoop& which, const ExceptionContext& context) {
        given = &which;
        log.push_back(context.message);
    });
    loop.call_exception_handler({.message = "something happened"});
    EXPECT_EQ(given, &loop);
    EXPECT_EQ(log, (Log{"something happened"}));
}

TEST_F(EventsHandlers, a_custom_one_is_told_of_callbacks_until_it_is_taken_away) {
    loop.set_exception_handler([&](EventLoop&, const ExceptionContext& context) {
        log.push_back(context.message.substr(0, 21));
        EXPECT_NE(context.exception, nullptr);
    });
    loop.call_soon([] { throw std::runtime_error("first"); });
    one_turn();
    EXPECT_EQ(log, (Log{"Exception in callback"}));
    loop.set_exception_handler(nullptr);
    loop.call_soon([] { throw std::runtime_error("second"); });
    testing::internal::CaptureStderr();
    one_turn();
    EXPECT_TRUE(has(testing::internal::GetCapturedStderr(), "std::runtime_error: second"));
    EXPECT_EQ(log, (Log{"Exception in callback"}));
}

TEST_F(EventsHandlers, what_a_handler_throws_goes_to_the_default_one_with_what_it_was_told) {
    loop.set_exception_handler(
        [](EventLoop&, const ExceptionContext&) { throw std::logic_error("handler"); });
    loop.call_soon([] { throw std::runtime_error("the first failure"); });
    loop.call_soon(say("next"));
    testing::internal::CaptureStderr();
    one_turn();
    const std::string text = testing::internal::GetCapturedStderr();
    EXPECT_TRUE(text.starts_with("asyncio: Unhandled error in exception handler\n")) << text;
    EXPECT_TRUE(has(text, "std::logic_error: handler")) << text;
    EXPECT_TRUE(has(text, "Exception in callback")) << text;
    EXPECT_TRUE(has(text, "std::runtime_error: the first failure")) << text;
    EXPECT_EQ(log, (Log{"next"}));
}

TEST_F(EventsHandlers, an_interrupt_out_of_a_handler_leaves_the_run) {
    loop.set_exception_handler(
        [](EventLoop&, const ExceptionContext&) { throw asyncio::SystemExit(4); });
    loop.call_soon([] { throw std::runtime_error("broken"); });
    loop.call_soon(say("rest"));
    EXPECT_THROW(loop.run_forever(), asyncio::SystemExit);
    EXPECT_EQ(log, Log{});
    one_turn();
    EXPECT_EQ(log, (Log{"rest"}));
}

TEST_F(EventsHandlers, a_handler_may_replace_itself) {
    loop.set_exception_handler(
        [this, text = std::string(100, 'x')](EventLoop& which, const ExceptionContext&) {
            which.set_exception_handler(
                [this](EventLoop&, const ExceptionContext&) { log.push_back("second"); });
            log.push_back("first " + text.substr(0, 1));
        });
    loop.call_exception_handler({.message = "a"});
    loop.call_exception_handler({.message = "b"});
    EXPECT_EQ(log, (Log{"first x", "second"}));
}

TEST_F(EventsHandlers, a_handler_may_stop_the_loop_and_schedule) {
    loop.set_exception_handler([this](EventLoop& which, const ExceptionContext&) {
        which.stop();
        which.call_soon(say("scheduled"));
    });
    loop.call_soon([] { throw 1; });
    loop.run_forever();
    EXPECT_EQ(log, Log{});
    one_turn();
    EXPECT_EQ(log, (Log{"scheduled"}));
}

// ---- close

TEST_F(EventsClosed, every_way_in_is_a_runtime_error_that_says_what_to_do) {
    const Pipe pipe;
    loop.close();
    EXPECT_TRUE(loop.is_closed());
    const std::string expected =
        "Event loop is closed: it takes no more callbacks; make another with new_event_loop()";
    EXPECT_EQ(text_of<RuntimeError>([&] { loop.call_soon(say("no")); }), expected);
    EXPECT_EQ(text_of<RuntimeError>([&] { loop.call_soon([](int) {}, 1); }), expected);
    EXPECT_EQ(text_of<RuntimeError>([&] { loop.call_later(1, say("no")); }), expected);
    EXPECT_EQ(text_of<RuntimeError>([&] { loop.call_later(-1, say("no")); }), expected);
    EXPECT_EQ(text_of<RuntimeError>([&] { loop.call_at(loop.time(), say("no")); }), expected);
    EXPECT_EQ(text_of<RuntimeError>([&] { loop.call_soon_threadsafe(say("no")); }), expected);
    EXPECT_EQ(text_of<RuntimeError>([&] { loop.add_reader(pipe.reads(), say("no")); }), expected);
    EXPECT_EQ(text_of<RuntimeError>([&] { loop.add_writer(pipe.writes(), say("no")); }), expected);
    EXPECT_EQ(text_of<RuntimeError>([&] { loop.run_forever(); }), expected);
    EXPECT_FALSE(loop.remove_reader(pipe.reads()));
    EXPECT_FALSE(loop.remove_writer(pipe.writes()));
    EXPECT_TRUE(reports.empty());
    EXPECT_EQ(log, Log{});
}

TEST_F(EventsClosed, a_second_close_does_nothing) {
    loop.close();
    loop.close();
    EXPECT_TRUE(loop.is_closed());
}

TEST_F(EventsClosed, closing_while_it_runs_is_a_runtime_error) {
    loop.call_soon([this] {
        EXPECT_TRUE(has(text_of<RuntimeError>([this] { loop.close(); }),
                        "Cannot close a running event loop: stop() it first"));
        loop.call_soon(say("next"));
    });
    turns(2);
    EXPECT_FALSE(loop.is_closed());
    EXPECT_EQ(log, (Log{"next"}));
}

TEST_F(EventsClosed, close_destroys_what_was_scheduled_without_running_it) {
    const Pipe pipe;
    int destroyed = 0;
    const auto counted = [&] {
        return [this, end = AtDestruction([&] { ++destroyed; })] { log.push_back("ran"); };
    };
    const Handle soon = loop.call_soon(counted());
    const TimerHandle later = loop.call_later(1, counted());
    const asyncio::ThreadSafeHandle door = loop.call_soon_threadsafe(counted());
    loop.add_reader(pipe.reads(), counted());
    loop.add_writer(pipe.writes(), counted());
    loop.close();
    EXPECT_EQ(destroyed, 5);
    EXPECT_TRUE(soon.cancelled());
    EXPECT_TRUE(later.cancelled());
    EXPECT_TRUE(door.cancelled());
    EXPECT_EQ(log, Log{});
}

TEST_F(EventsClosed, destructors_that_run_in_close_find_a_closed_loop_and_may_cancel_others) {
    const Pipe pipe;
    TimerHandle timer = loop.call_later(5, [] {});
    Handle handle;
    loop.call_soon(AtDestruction([&] {
        EXPECT_TRUE(loop.is_closed());
        EXPECT_TRUE(has(text_of<RuntimeError>([&] { loop.call_soon([] {}); }), "closed"));
        EXPECT_TRUE(has(text_of<RuntimeError>([&] { loop.call_later(1, [] {}); }), "closed"));
        timer.cancel();
        handle.cancel();
        loop.remove_reader(pipe.reads());
        loop.close();
        log.push_back("destroyed");
    }));
    handle = loop.call_soon([] {});
    loop.add_reader(pipe.reads(), [] {});
    loop.add_writer(pipe.writes(), AtDestruction([&] {
                        EXPECT_FALSE(loop.remove_writer(pipe.writes()));
                        log.push_back("writer");
                    }));
    loop.close();
    EXPECT_EQ(log, (Log{"destroyed", "writer"}));
}

TEST_F(EventsClosed, an_owner_closes_the_loop_and_ends_its_life) {
    bool destroyed = false;
    loop.call_later(1, AtDestruction([&] { destroyed = true; }));
    owner.reset();
    EXPECT_TRUE(destroyed);
}

TEST(EventsClosedDeathTest, a_loop_that_is_destroyed_while_it_runs_aborts_with_a_sentence) {
    EXPECT_DEATH(
        {
            EventLoopOwner owner = asyncio::new_event_loop();
            owner->call_soon([&] { owner.reset(); });
            owner->run_forever();
        },
        "an event loop was destroyed while it is running; stop\\(\\) it");
}

// ---- debug

TEST(EventsDebug, is_off_unless_asked_for) {
    ::unsetenv("ASYNCIO_DEBUG");
    const EventLoopOwner loop = asyncio::new_event_loop();
    EXPECT_FALSE(loop->get_debug());
    loop->set_debug(true);
    EXPECT_TRUE(loop->get_debug());
    loop->set_debug(false);
    EXPECT_FALSE(loop->get_debug());
    EXPECT_TRUE(asyncio::new_event_loop(LoopOptions().debug(true))->get_debug());
}

TEST(EventsDebug, follows_the_environment_unless_the_options_say_otherwise) {
    const auto debug_with = [](const char* text, const LoopOptions& options = {}) {
        ::setenv("ASYNCIO_DEBUG", text, 1);
        const bool debug = asyncio::new_event_loop(options)->get_debug();
        ::unsetenv("ASYNCIO_DEBUG");
        return debug;
    };
    EXPECT_TRUE(debug_with("1"));
    EXPECT_TRUE(debug_with("yes"));
    EXPECT_FALSE(debug_with("0"));
    EXPECT_FALSE(debug_with(""));
    EXPECT_FALSE(debug_with("1", LoopOptions().debug(false)));
    EXPECT_TRUE(debug_with("0", LoopOptions().debug(true)));
}
