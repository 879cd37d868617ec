// SPDX-License-Identifier: MIT
#include <asyncio/asyncio.hpp>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

using namespace std::chrono_literals;
using asyncio::Address;
using asyncio::Coro;
using asyncio::Server;
using asyncio::StreamReader;
using asyncio::Streams;
using asyncio::StreamWriter;

namespace {

Coro<> echo(StreamReader reader, StreamWriter writer) {
    for (;;) {
        const std::string data = co_await reader.read(1000);
        if (data.empty()) break;
        writer.write(data);
        co_await writer.drain();
    }
}

Coro<Streams> connect(const Server& server) {
    co_return co_await asyncio::open_connection("127.0.0.1", server.sockets().at(0).port());
}

TEST(Streams, echo) {
    asyncio::run([]() -> Coro<> {
        auto server = co_await asyncio::start_server(echo, "127.0.0.1", 0);
        auto streams = co_await connect(server);
        auto& [reader, writer] = streams;
        for (const std::string text : {"hello", "again", "and again"}) {
            writer.write(text);
            co_await writer.drain();
            const std::string answer = co_await reader.readexactly(text.size());
            EXPECT_EQ(answer, text);
        }
        writer.write_eof();
        const std::string rest = co_await reader.read();
        EXPECT_EQ(rest, "");
        EXPECT_TRUE(reader.at_eof());
        writer.close();
        co_await writer.wait_closed();
        server.close();
        co_await server.wait_closed();
    });
}

TEST(Streams, read_lines_and_what_is_left_without_an_end) {
    asyncio::run([]() -> Coro<> {
        const auto handle = [](StreamReader, StreamWriter writer) {
            writer.write("one\ntwo\nthree");
        };
        auto server = co_await asyncio::start_server(handle, "127.0.0.1", 0);
        auto streams = co_await connect(server);
        std::vector<std::string> lines;
        while (auto line = co_await streams.first.next()) lines.push_back(*line);
        EXPECT_EQ(lines, (std::vector<std::string>{"one\n", "two\n", "three"}));
    });
}

TEST(Streams, hold_back_who_writes_more_than_is_read) {
    asyncio::run([]() -> Coro<> {
        const std::string data(8 << 20, 'x');
        std::size_t received = 0;
        const auto handle = [&](StreamReader reader, StreamWriter) -> Coro<> {
            const std::string all = co_await reader.read();
            received = all.size();
        };
        auto server = co_await asyncio::start_server(handle, "127.0.0.1", 0);
        auto streams = co_await connect(server);
        streams.second.write(data);
        EXPECT_GT(streams.second.get_write_buffer_size(), 0u);
        co_await streams.second.drain();
        EXPECT_LE(streams.second.get_write_buffer_size(), 16u * 1024);
        streams.second.close();
        co_await streams.second.wait_closed();
        server.close();
        co_await server.wait_closed();
        EXPECT_EQ(received, data.size());
    });
}

TEST(Streams, serve_forever_until_cancelled) {
    asyncio::run([]() -> Coro<> {
        auto server = co_await asyncio::start_server(echo, "127.0.0.1", 0);
        auto task = asyncio::create_task(server.serve_forever());
        auto streams = co_await connect(server);
        streams.second.write("x");
        const std::string answer = co_await streams.first.read(10);
        EXPECT_EQ(answer, "x");
        task.cancel();
        auto result = co_await asyncio::as_result(task);
        EXPECT_TRUE(result.failed_with<asyncio::CancelledError>());
        const std::string end = co_await streams.first.read(10);
        EXPECT_EQ(end, "");
    });
}

TEST(Streams, loop_closed_with_everything_open) {
    auto left = asyncio::run([]() -> Coro<Streams> {
        auto server = co_await asyncio::start_server(echo, "127.0.0.1", 0);
        auto streams = co_await connect(server);
        streams.second.write("x");
        const std::string answer = co_await streams.first.read(10);
        EXPECT_EQ(answer, "x");
        co_return streams;
    });
    EXPECT_TRUE(left.second.is_closing());
    EXPECT_TRUE(left.first.at_eof());
}

} // namespace
