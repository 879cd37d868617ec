// SPDX-License-Identifier: MIT
// How many system calls a message of a stream costs.
#include <asyncio/asyncio.hpp>
#include <asyncio/testing/faults.hpp>
#include <gtest/gtest.h>

#include <cerrno>
#include <cstddef>
#include <string_view>
#include <system_error>
#include <utility>

using asyncio::Coro;
using asyncio::testing::Faults;
using asyncio::testing::SystemCall;

namespace {

Coro<> echo(asyncio::StreamReader reader, asyncio::StreamWriter writer) {
    char buffer[1000];
    for (;;) {
        const std::size_t count = co_await reader.read_into(buffer);
        if (count == 0) break;
        writer.write(std::string_view(buffer, count));
        co_await writer.drain();
    }
    writer.close();
}

long all_calls(const Faults& faults) {
    long all = 0;
    for (const SystemCall call : asyncio::testing::all_system_calls()) all += faults.calls(call);
    return all;
}

} // namespace

// So that drain() and wait_closed() tell, and the peer is not left to wait for an end.
TEST(StreamCalls, a_shutdown_that_fails_is_an_error) {
    Faults faults;
    asyncio::run(
        [](Faults& made) -> Coro<> {
            auto both = asyncio::Socket::pair();
            asyncio::ConnectionOptions options;
            options.sock(std::move(both.first));
            auto [reader, writer] = co_await asyncio::open_connection(options);
            made.make({SystemCall::shutdown, ENOBUFS});
            writer.write_eof();
            const auto drained = co_await asyncio::as_result(writer.drain());
            EXPECT_TRUE(drained.failed_with<std::system_error>());
            EXPECT_EQ(made.fired(SystemCall::shutdown), 1);
        }(faults),
        asyncio::RunOptions().loop(asyncio::LoopOptions().system_calls(Faults::table())));
}

// A receive, a send, and a wait in each turn: at either end, since both are in one loop here.
TEST(StreamCalls, an_echo_takes_three_at_each_end) {
    Faults faults;
    asyncio::run(
        [](const Faults& counts) -> Coro<> {
            auto server = co_await asyncio::start_server(echo, "127.0.0.1", 0);
            auto [reader, writer] =
                co_await asyncio::open_connection("127.0.0.1", server.sockets().at(0).port());
            char buffer[1000];
            constexpr int rounds = 200;
            long before = 0;
            long receives = 0;
            long sends = 0;
            for (int round = 0; round < rounds + 10; ++round) {
                if (round == 10) {
                    before = all_calls(counts);
                    receives = counts.calls(SystemCall::recv);
                    sends = counts.calls(SystemCall::send);
                }
                writer.write("a message of some length, as they are");
                const std::size_t count = co_await reader.read_into(buffer);
                EXPECT_EQ(count, 37U);
                co_await writer.drain();
            }
            EXPECT_EQ(counts.calls(SystemCall::recv) - receives, 2 * rounds);
            EXPECT_EQ(counts.calls(SystemCall::send) - sends, 2 * rounds);
            EXPECT_LE(all_calls(counts) - before, 6 * rounds);
            writer.close();
            co_await writer.wait_closed();
            server.close();
            co_await server.wait_closed();
        }(faults),
        asyncio::RunOptions().loop(asyncio::LoopOptions().system_calls(Faults::table())));
}
