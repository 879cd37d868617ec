// SPDX-License-Identifier: MIT
#include <asyncio/events.hpp>
#include <asyncio/kernel/backend.hpp>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <iterator>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

using asyncio::EventLoopOwner;
using asyncio::LoopOptions;
using asyncio::SystemCalls;
using namespace std::chrono_literals;

namespace {

// Which call fails, with which errno, how many times. A call that is not among them is the
// kernel's.
enum class Call { none, epoll_create1, epoll_ctl, epoll_wait, epoll_pwait2, eventfd, write };
Call failing = Call::none;
int failing_errno = 0;
int failures_left = 0;
int failures_made = 0;
std::vector<int> operations; // of epoll_ctl
int waits_in_ms = 0;

bool fails(Call call) {
    if (failing != call || failures_left == 0) return false;
    --failures_left;
    ++failures_made;
    errno = failing_errno;
    return true;
}

void let_fail(Call call, int error, int times = 1'000'000) {
    failing = call;
    failing_errno = error;
    failures_left = times;
    failures_made = 0;
    operations.clear();
    waits_in_ms = 0;
}

const SystemCalls& faulty_calls() {
    static const SystemCalls calls = [] {
        SystemCalls table = SystemCalls::real();
        table.epoll_create1 = [](int flags) {
            return fails(Call::epoll_create1) ? -1 : ::epoll_create1(flags);
        };
        table.epoll_ctl = [](int epoll, int operation, int descriptor, epoll_event* event) {
            operations.push_back(operation);
            if (fails(Call::epoll_ctl)) return -1;
            return ::epoll_ctl(epoll, operation, descriptor, event);
        };
        table.epoll_wait = [](int epoll, epoll_event* events, int capacity, int timeout) {
            if (timeout > 0) ++waits_in_ms;
            if (fails(Call::epoll_wait)) return -1;
            return ::epoll_wait(epoll, events, capacity, timeout);
        };
        table.epoll_pwait2 = [](int epoll, epoll_event* events, int capacity,
                                const timespec* timeout, const sigset_t* mask) {
            if (fails(Call::epoll_pwait2)) return -1;
            return SystemCalls::real().epoll_pwait2(epoll, events, capacity, timeout, mask);
        };
        table.eventfd = [](unsigned int value, int flags) {
            return fails(Call::eventfd) ? -1 : SystemCalls::real().eventfd(value, flags);
        };
        table.write = [](int descriptor, const void* buffer, std::size_t size) -> ssize_t {
            return fails(Call::write) ? -1 : ::write(descriptor, buffer, size);
        };
        return table;
    }();
    return calls;
}

std::ptrdiff_t open_descriptors() {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"),
                         std::filesystem::directory_iterator());
}

struct Epoll : testing::Test {
    Epoll() { let_fail(Call::none, 0); }
    ~Epoll() override {
        for (const int descriptor : to_close) ::close(descriptor);
    }
    Epoll(const Epoll&) = delete;
    Epoll& operator=(const Epoll&) = delete;

    static EventLoopOwner make_loop() {
        return asyncio::new_event_loop(LoopOptions().system_calls(faulty_calls()));
    }
    // One that can be read.
    int filled_pipe() {
        std::array<int, 2> pipe = {};
        EXPECT_EQ(::pipe2(pipe.data(), O_CLOEXEC | O_NONBLOCK), 0);
        EXPECT_EQ(::write(pipe[1], "x", 1), 1);
        to_close.insert(to_close.end(), pipe.begin(), pipe.end());
        return pipe[0];
    }
    static void one_turn(const EventLoopOwner& loop) {
        loop->stop();
        loop->run_forever();
    }
    std::vector<int> to_close;
};

} // namespace

TEST_F(Epoll, each_call_that_fails_at_construction_is_named_and_leaks_no_descriptor) {
    const std::pair<Call, std::string> calls[] = {
        {Call::epoll_create1, "epoll_create1"},
        {Call::eventfd, "eventfd"},
        {Call::epoll_ctl, "epoll_ctl"},
    };
    const std::ptrdiff_t before = open_descriptors();
    for (const auto& [call, name] : calls) {
        let_fail(call, EMFILE);
        try {
            make_loop();
            ADD_FAILURE() << name << " did not fail";
        } catch (const std::system_error& error) {
            EXPECT_EQ(error.code(), std::errc::too_many_files_open);
            EXPECT_EQ(std::string(error.what()).find(name), 0U) << error.what();
        }
        EXPECT_EQ(failures_made, 1);
        EXPECT_EQ(open_descriptors(), before) << name;
    }
}

TEST_F(Epoll, a_loop_that_is_closed_keeps_no_descriptor) {
    const std::ptrdiff_t before = open_descriptors();
    const EventLoopOwner loop = make_loop();
    EXPECT_EQ(open_descriptors(), before + 2);
    loop->close();
    EXPECT_EQ(open_descriptors(), before);
}

TEST_F(Epoll, without_epoll_pwait2_waits_are_rounded_up_and_timers_are_never_early) {
    for (const int error : {ENOSYS, EPERM}) {
        const EventLoopOwner loop = make_loop();
        let_fail(Call::epoll_pwait2, error);
        int early = 0;
        for (const int us : {300, 1700, 2999, 5001}) {
            const auto deadline = loop->time() + std::chrono::microseconds(us);
            loop->call_at(deadline, [&, deadline] { early += loop->time() < deadline ? 1 : 0; });
        }
        loop->call_later(6ms, [&] { loop->stop(); });
        loop->run_forever();
        EXPECT_EQ(early, 0);
        EXPECT_EQ(failures_made, 1); // it is not asked again
        EXPECT_GE(waits_in_ms, 1);
        EXPECT_LE(waits_in_ms, 20); // no busy waiting
    }
}

TEST_F(Epoll, a_wait_that_a_signal_interrupts_is_begun_again) {
    const EventLoopOwner loop = make_loop();
    const int pipe = filled_pipe();
    let_fail(Call::epoll_wait, EINTR, 3);
    loop->add_reader(pipe, [&] { loop->stop(); });
    loop->run_forever();
    EXPECT_EQ(failures_made, 3);
    loop->remove_reader(pipe);
    let_fail(Call::epoll_pwait2, EINTR, 3);
    const auto deadline = loop->time() + 2ms;
    loop->call_at(deadline, [&] {
        EXPECT_GE(loop->time(), deadline);
        loop->stop();
    });
    loop->run_forever();
    EXPECT_EQ(failures_made, 3);
}

TEST_F(Epoll, an_interrupted_wait_is_no_deadlock_in_virtual_time) {
    struct Still final : asyncio::Clock {
        std::int64_t now_ns() noexcept override { return 0; }
        bool jumps() const noexcept override { return true; }
    } clock;
    const EventLoopOwner loop =
        asyncio::new_event_loop(LoopOptions().clock(clock).system_calls(faulty_calls()));
    let_fail(Call::epoll_wait, EINTR, 1);
    loop->add_reader(filled_pipe(), [&] { loop->stop(); });
    EXPECT_NO_THROW(loop->run_forever());
    EXPECT_EQ(failures_made, 1);
}

TEST_F(Epoll, an_error_of_a_wait_leaves_the_run_as_a_system_error_and_the_loop_can_be_closed) {
    for (const Call call : {Call::epoll_wait, Call::epoll_pwait2}) {
        const EventLoopOwner loop = make_loop();
        bool ran = false;
        if (call == Call::epoll_pwait2) loop->call_later(1h, [] {});
        let_fail(call, EBADF, 1);
        try {
            loop->run_forever();
            ADD_FAILURE() << "no exception";
        } catch (const std::system_error& error) {
            EXPECT_EQ(error.code(), std::errc::bad_file_descriptor);
            EXPECT_EQ(std::string(error.what()).find("epoll_wait"), 0U);
        }
        EXPECT_FALSE(loop->is_running());
        loop->call_soon([&] { ran = true; });
        one_turn(loop); // still serves
        EXPECT_TRUE(ran);
        loop->close();
    }
}

TEST_F(Epoll, callbacks_that_were_ready_survive_an_error_of_the_wait) {
    const EventLoopOwner loop = make_loop();
    const int pipe = filled_pipe();
    std::string log;
    loop->add_reader(pipe, [&] { log += "io "; });
    loop->call_soon([&] { log += "soon "; });
    let_fail(Call::epoll_wait, EBADF, 1);
    EXPECT_THROW(one_turn(loop), std::system_error);
    EXPECT_EQ(log, "");
    one_turn(loop);
    EXPECT_EQ(log, "soon io ");
}

TEST_F(Epoll, a_change_of_a_descriptor_that_epoll_has_forgotten_adds_it_again) {
    const EventLoopOwner loop = make_loop();
    const int pipe = filled_pipe();
    int called = 0;
    loop->add_reader(pipe, [&] { ++called; });
    let_fail(Call::epoll_ctl, ENOENT, 1);
    // Since the kernel has not really forgotten it, the ADD that follows says EEXIST.
    EXPECT_THROW(loop->add_reader(pipe, [&] { ++called; }), std::system_error);
    EXPECT_EQ(operations, (std::vector<int>{EPOLL_CTL_MOD, EPOLL_CTL_ADD}));
    one_turn(loop);
    EXPECT_EQ(called, 1); // what was there stays
}

TEST_F(Epoll, an_addition_of_a_descriptor_that_epoll_still_knows_changes_it) {
    const EventLoopOwner loop = make_loop();
    const int pipe = filled_pipe();
    int called = 0;
    loop->add_reader(pipe, [&] { ++called; });
    // The removal does not reach the kernel, as if the descriptor lived on under another number.
    let_fail(Call::epoll_ctl, EBADF, 1);
    EXPECT_TRUE(loop->remove_reader(pipe));
    one_turn(loop);
    EXPECT_EQ(called, 0);
    operations.clear();
    loop->add_reader(pipe, [&] { called += 10; });
    EXPECT_EQ(operations, (std::vector<int>{EPOLL_CTL_ADD, EPOLL_CTL_MOD}));
    one_turn(loop);
    EXPECT_EQ(called, 10);
}

TEST_F(Epoll, an_addition_that_fails_leaves_nothing_behind) {
    const EventLoopOwner loop = make_loop();
    const int pipe = filled_pipe();
    let_fail(Call::epoll_ctl, ENOSPC, 1);
    EXPECT_THROW(loop->add_reader(pipe, [] {}), std::system_error);
    EXPECT_FALSE(loop->remove_reader(pipe));
    EXPECT_FALSE(loop->backend().watches_any());
    bool called = false;
    loop->add_reader(pipe, [&] { called = true; });
    one_turn(loop);
    EXPECT_TRUE(called);
}

TEST_F(Epoll, a_wake_up_survives_a_full_counter_and_an_interrupt) {
    for (const int error : {EAGAIN, EINTR}) {
        const auto backend = asyncio::make_epoll_backend(faulty_calls());
        let_fail(Call::write, error, 2);
        backend->wake();
        EXPECT_EQ(failures_made, 2);
        asyncio::detail::ReadyQueue ready;
        backend->wait(asyncio::Backend::no_timeout, ready); // hangs if the wake-up was lost
        EXPECT_TRUE(ready.empty());
    }
}

TEST_F(Epoll, a_wake_up_before_the_wait_is_not_lost_and_is_seen_once) {
    const auto backend = asyncio::make_epoll_backend(faulty_calls());
    asyncio::detail::ReadyQueue ready;
    for (int i = 0; i < 3; ++i) {
        backend->wake();
        backend->wake();
        backend->wait(asyncio::Backend::no_timeout, ready);
        const auto before = std::chrono::steady_clock::now();
        backend->wait(1'000'000, ready);
        EXPECT_GE(std::chrono::steady_clock::now() - before, 1ms);
    }
    EXPECT_STREQ(backend->name(), "epoll");
}

TEST_F(Epoll, more_ready_descriptors_than_one_wait_can_tell_are_all_served) {
    const EventLoopOwner loop = make_loop();
    std::vector<int> counts(400, 0);
    for (int& count : counts) loop->add_reader(filled_pipe(), [&count] { ++count; });
    for (int i = 0; i < 4; ++i) one_turn(loop);
    // Level-triggered, and nobody reads: none starves.
    EXPECT_GE(*std::min_element(counts.begin(), counts.end()), 2);
}
