// SPDX-License-Identifier: MIT
// The samples of docs/testing.md, word for word: tests/docs/samples compares them.
#include <asyncio/asyncio.hpp>
#include <asyncio/testing/cancel_everywhere.hpp>
#include <asyncio/testing/fail_everywhere.hpp>
#include <asyncio/testing/virtual_time.hpp>
#include <gtest/gtest.h>

#include <cerrno>
#include <cstdint>
#include <string>
#include <system_error>
#include <vector>

using namespace std::chrono_literals;

namespace {

struct Server {
    int refusals = 0; // so many attempts fail
    bool open = false;
    bool accepts() { return refusals-- <= 0; }
};

// Tries until the server accepts, and waits twice as long each time.
asyncio::Coro<> connect(Server& server) {
    for (auto delay = 1s; !server.accepts(); delay *= 2) co_await asyncio::sleep(delay);
    server.open = true;
}

TEST(Connect, waits_twice_as_long_each_time) {
    asyncio::testing::VirtualClock clock;
    const auto begin = clock.now_ns();
    Server server{.refusals = 5};
    asyncio::run(connect(server), asyncio::RunOptions().clock(clock));
    EXPECT_EQ(clock.now_ns() - begin, std::chrono::nanoseconds(31s).count());
}

asyncio::Coro<> wait_for_reply(asyncio::Future<std::string> reply) { co_await reply; }
asyncio::Coro<> ask() { co_await wait_for_reply(asyncio::create_future<std::string>()); }

TEST(Ask, gets_a_reply) {
    asyncio::testing::VirtualClock clock;
    EXPECT_THROW(asyncio::run(ask(), asyncio::RunOptions().clock(clock)), asyncio::DeadlockError);
}

asyncio::Coro<> both(std::vector<std::string>& log) {
    const auto add = [&log](std::string word) -> asyncio::Coro<> {
        log.push_back(word);
        co_return;
    };
    co_await asyncio::gather(add("left"), add("right"));
}

TEST(Both, adds_both_words_in_any_order) {
    for (std::uint64_t seed = 0; seed < 1000; ++seed) {
        asyncio::testing::VirtualClock clock;
        std::vector<std::string> log;
        asyncio::run(both(log), asyncio::RunOptions().clock(clock).shuffle_ready(seed));
        EXPECT_EQ(log.size(), 2u) << "seed " << seed;
    }
}

asyncio::Coro<> use(Server& server) {
    co_await asyncio::try_finally(
        [&]() -> asyncio::Coro<> {
            co_await connect(server);
            co_await asyncio::sleep(10s);
        },
        [&] { server.open = false; });
}

TEST(Use, closes_the_connection_wherever_it_is_cancelled) {
    const int cancels = asyncio::testing::cancel_everywhere([]() -> asyncio::Coro<> {
        Server server{.refusals = 2};
        const auto closed = [&] { EXPECT_FALSE(server.open); };
        co_await asyncio::try_finally([&] { return use(server); }, closed);
    });
    EXPECT_GE(cancels, 3);
}

// Sends a greeting through a connection, and ends it.
asyncio::Coro<> greet() {
    auto ends = asyncio::Socket::pair();
    co_await asyncio::sock_sendall(ends.first, "hello");
    ends.first.close();
    std::string heard;
    for (;;) {
        const std::string some = co_await asyncio::sock_recv(ends.second, 100);
        if (some.empty()) break;
        heard += some;
    }
    EXPECT_EQ(heard, "hello");
}

TEST(Greet, is_heard_or_fails_whatever_the_kernel_says) {
    using namespace asyncio::testing;
    for (const SystemCall call : {SystemCall::socketpair, SystemCall::send, SystemCall::recv}) {
        fail_everywhere(faults_of(call), greet);
    }
    const std::vector<Fault> one_byte = {Fault::shortened(SystemCall::recv, 1)};
    const FaultReport report = fail_everywhere(one_byte, greet);
    EXPECT_EQ(report.tallies()[0].failed, 0);
}

TEST(Greet, is_cut_off_by_a_reset) {
    asyncio::testing::Faults faults;                                  // before the loop is made
    faults.make({asyncio::testing::SystemCall::recv, ECONNRESET}, 1); // not the first: the second
    const auto options = asyncio::RunOptions().loop(
        asyncio::LoopOptions().system_calls(asyncio::testing::Faults::table()));
    EXPECT_THROW(asyncio::run(greet(), options), std::system_error);
    EXPECT_EQ(faults.fired(), 1);
}

asyncio::Coro<std::vector<std::string>> parse(std::string text) {
    std::vector<std::string> words(1);
    for (const char c : text) {
        if (c == ',') {
            words.emplace_back();
            co_await asyncio::sleep(0);
        } else {
            words.back() += c;
        }
    }
    co_return words;
}

TEST(Parse, never_blocks_the_loop) {
    std::vector<std::string> reports;
    const auto main = [&]() -> asyncio::Coro<> {
        asyncio::get_running_loop().set_exception_handler(
            [&](asyncio::EventLoop&, const asyncio::ExceptionContext& context) {
                reports.push_back(context.message);
            });
        co_await parse("a,b,c");
    };
    asyncio::run(main(), asyncio::RunOptions().debug(true));
    EXPECT_EQ(reports, std::vector<std::string>());
}

} // namespace
