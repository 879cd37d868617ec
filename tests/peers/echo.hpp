// SPDX-License-Identifier: MIT
// What these tests have in common: a server of ours that echoes, and a client of ours that checks.
#pragma once

#include "support/program.hpp"

#include <asyncio/ssl.hpp>

#include <exception>
#include <memory>
#include <string>
#include <utility>

namespace asyncio_test {

using asyncio::Coro;
using asyncio::StreamReader;
using asyncio::Streams;
using asyncio::StreamWriter;

inline constexpr std::size_t mebibyte = 1 << 20;

// What has become of a server's connections: for each how many bytes came until the end, or what
// its reading failed with.
struct Ends {
    asyncio::Queue<std::string> all;
};

// Sends back what comes, until the end.
inline Coro<> echo(StreamReader reader, StreamWriter writer, std::shared_ptr<Ends> ends) {
    std::size_t count = 0;
    std::string what;
    try {
        for (;;) {
            const std::string data = co_await reader.read(1 << 16);
            if (data.empty()) break;
            count += data.size();
            writer.write(data);
            co_await writer.drain();
        }
        what = "end after " + std::to_string(count);
    } catch (const asyncio::ssl::EOFError&) {
        what = "cut off after " + std::to_string(count);
    } catch (const std::system_error& error) {
        what = error.code().message() + " after " + std::to_string(count);
    }
    writer.close();
    ends->all.put_nowait(what);
}

class EchoServer {
  public:
    static Coro<std::unique_ptr<EchoServer>> start(asyncio::ServerOptions options = {}) {
        auto ends = std::make_shared<Ends>();
        const auto handler = [ends](StreamReader reader, StreamWriter writer) {
            return echo(std::move(reader), std::move(writer), ends);
        };
        auto server = co_await asyncio::start_server(handler, "127.0.0.1", 0, std::move(options));
        co_return std::unique_ptr<EchoServer>(new EchoServer(std::move(server), ends));
    }
    static Coro<std::unique_ptr<EchoServer>> start_unix(std::string path) {
        auto ends = std::make_shared<Ends>();
        const auto handler = [ends](StreamReader reader, StreamWriter writer) {
            return echo(std::move(reader), std::move(writer), ends);
        };
        auto server = co_await asyncio::start_unix_server(handler, std::move(path));
        co_return std::unique_ptr<EchoServer>(new EchoServer(std::move(server), ends));
    }

    std::uint16_t port_number() const { return server_.sockets().at(0).port(); }
    std::string port() const { return std::to_string(port_number()); }
    // Of the next connection that has ended.
    Coro<std::string> next_end() {
        std::string end = co_await ends_->all.get();
        co_return end;
    }
    Coro<> close() {
        server_.close();
        co_await server_.wait_closed();
    }

  private:
    EchoServer(asyncio::Server server, std::shared_ptr<Ends> ends)
        : server_(std::move(server)), ends_(std::move(ends)) {}

    asyncio::Server server_;
    std::shared_ptr<Ends> ends_;
};

// Writes all of it while somebody else reads.
inline Coro<> write_all(StreamWriter writer, std::string data) {
    for (std::size_t at = 0; at < data.size(); at += 50'000) {
        writer.write(std::string_view(data).substr(at, 50'000));
        co_await writer.drain();
    }
}

// Sends so much, and expects it back.
inline Coro<> expect_echo(StreamReader reader, StreamWriter writer, std::size_t size) {
    const std::string data = some_bytes(size);
    auto writing = asyncio::create_task(write_all(writer, data));
    const std::string back = co_await reader.readexactly(size);
    co_await writing;
    EXPECT_TRUE(back == data) << "what came back is not what was sent";
}

// What is written to one end comes out at the other, both ways at once.
inline Coro<> expect_both_ways(Streams one, Streams other, std::size_t size) {
    const std::string data = some_bytes(size);
    auto there = asyncio::create_task(write_all(one.second, data));
    auto back = asyncio::create_task(write_all(other.second, data));
    auto arrived =
        asyncio::create_task([](StreamReader reader, std::size_t count) -> Coro<std::string> {
            std::string all = co_await reader.readexactly(count);
            co_return all;
        }(other.first, size));
    const std::string at_one = co_await one.first.readexactly(size);
    const std::string at_other = co_await arrived;
    co_await there;
    co_await back;
    EXPECT_TRUE(at_one == data) << "on the way back something has changed";
    EXPECT_TRUE(at_other == data) << "on the way there something has changed";
}

// What an await has failed with; "" if it has not.
template <class T> std::string failure_of(const asyncio::Result<T>& result) {
    if (result.has_value()) return {};
    try {
        std::rethrow_exception(result.exception());
    } catch (const std::exception& error) {
        return error.what();
    }
}

} // namespace asyncio_test
