// SPDX-License-Identifier: MIT
#include <asyncio/asyncio.hpp>
#include <asyncio/testing/fail_everywhere.hpp>
#include <gtest/gtest.h>

#include <cerrno>
#include <chrono>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

using asyncio::Coro;
using asyncio::Socket;
using asyncio::testing::Fault;
using asyncio::testing::FaultFailure;
using asyncio::testing::FaultOptions;
using asyncio::testing::LeakToken;
using asyncio::testing::SystemCall;
using namespace std::chrono_literals;

namespace {

const std::vector<Fault> no_memory = {{SystemCall::recv, ENOMEM}};

Coro<> read_three_bytes() {
    auto both = Socket::pair();
    for (int i = 0; i < 3; ++i) {
        co_await asyncio::sock_sendall(both.second, "x");
        co_await asyncio::sock_recv(both.first, 1);
    }
}

template <class Body>
std::string failure_of(Body body, const std::vector<Fault>& faults = no_memory,
                       const FaultOptions& options = {}) {
    try {
        asyncio::testing::fail_everywhere(faults, body, options);
    } catch (const FaultFailure& failure) {
        return failure.what();
    }
    return "nothing";
}

} // namespace

TEST(FailEverywhere, meets_each_call_with_each_fault) {
    int runs = 0;
    const auto body = [&]() -> Coro<> {
        ++runs;
        return read_three_bytes();
    };
    const std::vector<Fault> faults = {{SystemCall::recv, ENOMEM}, {SystemCall::recv, EINTR}};
    testing::internal::CaptureStdout();
    const auto report = asyncio::testing::fail_everywhere(faults, body);
    EXPECT_EQ(testing::internal::GetCapturedStdout(),
              "fail_everywhere: 6 faults, in calls of recv\n");
    EXPECT_EQ(report.faults(), 6);
    // One without a fault at the end of each; and who is interrupted calls again.
    EXPECT_EQ(runs, 8);
    ASSERT_EQ(report.tallies().size(), 2U);
    EXPECT_EQ(report.tallies()[0].failed, 3);
    EXPECT_EQ(report.tallies()[0].survived, 0);
    EXPECT_EQ(report.tallies()[0].texts,
              std::vector<std::string>{"sock_recv: Cannot allocate memory"});
    EXPECT_EQ(report.tallies()[1].failed, 0);
    EXPECT_EQ(report.tallies()[1].survived, 3);
    EXPECT_EQ(report.tallies()[1].fault.error(), EINTR);
}

TEST(FailEverywhere, can_meet_several_calls_at_once_and_leave_out_some) {
    const std::vector<Fault> interrupts = {{SystemCall::recv, EINTR}};
    const auto several =
        asyncio::testing::fail_everywhere(interrupts, &read_three_bytes, FaultOptions().at_once(5));
    EXPECT_EQ(several.faults(), 15);
    const auto some =
        asyncio::testing::fail_everywhere(no_memory, &read_three_bytes, FaultOptions().every(2));
    EXPECT_EQ(some.faults(), 2);
}

TEST(FailEverywhere, meets_the_calls_that_make_the_loop) {
    const std::vector<Fault> faults = {{SystemCall::epoll_create1, EMFILE},
                                       {SystemCall::eventfd, ENFILE}};
    const auto report = asyncio::testing::fail_everywhere(faults, &read_three_bytes);
    EXPECT_EQ(report.faults(), 2);
    EXPECT_EQ(report.tallies()[1].texts,
              std::vector<std::string>{"eventfd: Too many open files in system"});
}

TEST(FailEverywhere, finds_that_no_fault_was_met) {
    EXPECT_EQ(failure_of([]() -> Coro<> { co_await asyncio::sleep(0); }),
              "fail_everywhere: no fault was met, since the body makes no such call (of recv): "
              "give it one, or ask for others");
}

TEST(FailEverywhere, finds_a_descriptor_that_leaks) {
    std::vector<int> leaked;
    const std::string failure = failure_of([&]() -> Coro<> {
        auto both = Socket::pair();
        leaked.push_back(::open("/dev/null", O_RDONLY | O_CLOEXEC));
        co_await asyncio::sock_sendall(both.second, "x");
        co_await asyncio::sock_recv(both.first, 1);
        ::close(leaked.back());
        leaked.pop_back();
    });
    ASSERT_EQ(leaked.size(), 1U);
    EXPECT_EQ(failure, "fail_everywhere: where call number 0 of recv fails: Cannot allocate "
                       "memory, the body leaks descriptor " +
                           std::to_string(leaked.back()) + ", which is /dev/null");
    ::close(leaked.back());
}

TEST(FailEverywhere, finds_an_object_that_is_not_destroyed) {
    LeakToken kept;
    const std::string failure = failure_of([&](LeakToken token) -> Coro<> {
        auto both = Socket::pair();
        kept = token;
        co_await asyncio::sock_sendall(both.second, "x");
        co_await asyncio::sock_recv(both.first, 1);
        kept.reset();
    });
    EXPECT_NE(failure.find("did not destroy all copies of its LeakToken"), std::string::npos)
        << failure;
}

TEST(FailEverywhere, finds_a_hang_and_tells_who_waits) {
    const auto body = []() -> Coro<> {
        auto both = Socket::pair();
        co_await asyncio::sock_sendall(both.second, "x");
        const auto result = co_await asyncio::as_result(asyncio::sock_recv(both.first, 1));
        if (result.exception() != nullptr) co_await asyncio::create_future<int>();
    };
    const std::string failure = failure_of(body, no_memory, FaultOptions().patience(20ms));
    EXPECT_NE(failure.find("the body hangs:\n  <Task pending"), std::string::npos) << failure;
    EXPECT_NE(failure.find("fail_everywhere.cpp:"), std::string::npos) << failure;
}

TEST(FailEverywhere, finds_tasks_that_do_not_end_when_they_are_cancelled) {
    const auto stubborn = []() -> Coro<> {
        for (int i = 0; i < 10; ++i) {
            static_cast<void>(co_await asyncio::as_result(asyncio::create_future<int>()));
        }
    };
    const auto body = [&]() -> Coro<> {
        auto both = Socket::pair();
        asyncio::create_task(stubborn());
        co_await asyncio::sock_sendall(both.second, "x");
        co_await asyncio::sock_recv(both.first, 1);
    };
    const std::string failure = failure_of(body, no_memory, FaultOptions().patience(20ms));
    EXPECT_NE(failure.find("the body leaves tasks behind that do not end when cancelled"),
              std::string::npos)
        << failure;
}

TEST(FailEverywhere, finds_a_loop_that_does_not_serve_any_more) {
    struct Stopper {
        void operator()() const {
            loop->stop();
            loop->call_soon(*this);
        }
        asyncio::EventLoop* loop;
    };
    const auto body = []() -> Coro<> {
        auto both = Socket::pair();
        co_await asyncio::sock_sendall(both.second, "x");
        const auto result = co_await asyncio::as_result(asyncio::sock_recv(both.first, 1));
        if (result.exception() == nullptr) co_return;
        auto& loop = asyncio::get_running_loop();
        loop.call_soon(Stopper{&loop});
    };
    const std::string failure = failure_of(body);
    EXPECT_NE(failure.find("leaves a loop behind that does not serve any more"), std::string::npos)
        << failure;
}

TEST(FailEverywhere, finds_a_failure_that_is_not_the_fault) {
    const auto body = []() -> Coro<> {
        auto both = Socket::pair();
        co_await asyncio::sock_sendall(both.second, "x");
        const auto result = co_await asyncio::as_result(asyncio::sock_recv(both.first, 1));
        if (result.exception() != nullptr) throw std::system_error(EIO, std::generic_category());
    };
    const std::string failure = failure_of(body);
    EXPECT_EQ(failure, "fail_everywhere: where call number 0 of recv fails: Cannot allocate "
                       "memory, the body failed: Input/output error");
    EXPECT_EQ(failure_of(body, no_memory, FaultOptions().may_fail_otherwise(true)), "nothing");
}

TEST(FailEverywhere, finds_a_body_that_fails_without_a_fault) {
    const std::string failure = failure_of([]() -> Coro<> {
        throw std::runtime_error("of itself");
        co_return;
    });
    EXPECT_EQ(failure, "fail_everywhere: where call number 0 of recv fails: Cannot allocate "
                       "memory, the body failed although the fault was not met: of itself");
}

TEST(FailEverywhere, finds_what_is_reported_to_the_exception_handler) {
    const auto body = []() -> Coro<> {
        auto both = Socket::pair();
        co_await asyncio::sock_sendall(both.second, "x");
        const auto result = co_await asyncio::as_result(asyncio::sock_recv(both.first, 1));
        if (result.exception() != nullptr)
            asyncio::get_running_loop().call_exception_handler({.message = "look here"});
    };
    const std::string failure = failure_of(body);
    EXPECT_NE(failure.find("had this reported to the exception handler: look here"),
              std::string::npos)
        << failure;
    EXPECT_EQ(failure_of(body, no_memory, FaultOptions().may_report(true)), "nothing");
}
