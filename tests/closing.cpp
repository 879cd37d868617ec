// SPDX-License-Identifier: MIT
// What is promised of bytes that are under way when a connection ends, of reads that never end, and
// of streams and servers that are used where they cannot work.
#include "support/in_virtual_time.hpp"
#include "support/reports.hpp"
#include "support/streams.hpp"

#include <asyncio/asyncio.hpp>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <string>
#include <sys/socket.h>
#include <utility>
#include <vector>

using namespace std::chrono_literals;
using asyncio::as_result;
using asyncio::Coro;
using asyncio::create_task;
using asyncio::Runner;
using asyncio::Server;
using asyncio::ServerOptions;
using asyncio::sleep;
using asyncio::sock_sendall;
using asyncio::start_server;
using asyncio::StreamReader;
using asyncio::StreamWriter;
using asyncio::SystemCalls;
using asyncio_test::Reports;
using asyncio_test::some_turns;
using asyncio_test::stream_and_socket;
using asyncio_test::stream_and_socket_of_unix;
using asyncio_test::text_of;

namespace {

template <class Awaitable> Coro<std::string> failure_of(Awaitable awaitable) {
    const auto result = co_await as_result(std::move(awaitable));
    co_return text_of(result.exception());
}

// Slowly, so that the sender has closed long before.
Coro<std::size_t> count_to_the_end(StreamReader reader) {
    std::vector<char> buffer(50'000);
    std::size_t all = 0;
    for (;;) {
        co_await sleep(1ms);
        const std::size_t count = co_await reader.read_into(buffer);
        if (count == 0) break;
        all += count;
    }
    co_return all;
}

} // namespace

TEST(Closing, delivers_what_was_written_though_a_request_was_not_read) {
    for (const std::size_t size : {std::size_t{3}, std::size_t{3'000'000}}) {
        SCOPED_TRACE(size);
        asyncio::run([size]() -> Coro<> {
            const auto handle = [size](StreamReader, StreamWriter writer) -> Coro<> {
                co_await sleep(5ms); // the request has come
                writer.write(std::string(size, 'x'));
            };
            Server server = co_await start_server(handle, "127.0.0.1", 0);
            auto streams =
                co_await asyncio::open_connection("127.0.0.1", server.sockets().at(0).port());
            streams.second.write("a request that nobody reads");
            const std::size_t got = co_await count_to_the_end(streams.first);
            EXPECT_EQ(got, size);
        });
    }
}

TEST(Closing, delivers_what_was_written_though_a_greeting_was_not_read) {
    constexpr std::size_t size = 4'000'000;
    asyncio::run([]() -> Coro<> {
        std::optional<asyncio::Result<std::size_t>> got;
        asyncio::Event over;
        const auto handle = [&](StreamReader reader, StreamWriter writer) -> Coro<> {
            writer.write("220 hello\r\n");
            got = co_await as_result(count_to_the_end(reader));
            over.set();
        };
        Server server = co_await start_server(handle, "127.0.0.1", 0);
        auto streams =
            co_await asyncio::open_connection("127.0.0.1", server.sockets().at(0).port());
        co_await sleep(5ms); // the greeting has come
        const std::string data(size, 'x');
        streams.second.write(data);
        streams.second.close();
        co_await streams.second.wait_closed();
        co_await over.wait();
        EXPECT_EQ(text_of(got->exception()), "null");
        if (*got) {
            EXPECT_EQ(**got, data.size());
        }
    });
}

TEST(Closing, in_the_turn_in_which_a_read_is_woken_gives_it_the_end) {
    for (const bool debug : {false, true}) {
        for (const int way : {0, 1, 2, 3}) {
            SCOPED_TRACE(way);
            asyncio::run(asyncio::RunOptions().debug(debug), [way]() -> Coro<> {
                auto ends = co_await stream_and_socket_of_unix();
                ends.writer.write(std::string(1'000'000, 'x')); // waits for room
                auto task = create_task([](StreamReader reader, int how) -> Coro<std::string> {
                    if (how == 0) co_return std::string(co_await reader.peek());
                    if (how == 1) co_return co_await reader.read(10);
                    if (how == 2) co_return co_await reader.readline();
                    std::string buffer(10, ' ');
                    buffer.resize(co_await reader.read_into(buffer));
                    co_return buffer;
                }(ends.reader, way));
                co_await sleep(1ms);
                std::string dropped(65536, ' ');
                while (::recv(ends.peer.fileno(), dropped.data(), dropped.size(), MSG_DONTWAIT) >
                       0) {
                }
                co_await sleep(0); // there is room, and the connection comes up after us
                ends.writer.abort();
                const std::string got = co_await task;
                EXPECT_EQ(got, "");
            });
        }
    }
}

// --- a peer that is faster than who reads

namespace {

bool is_fast = false;
long delivered = 0;

const SystemCalls& kernel_with_a_fast_peer() {
    static const SystemCalls table = [] {
        SystemCalls t = SystemCalls::real();
        t.recv = [](int descriptor, void* into, std::size_t size, int flags) -> ssize_t {
            if (!is_fast) return ::recv(descriptor, into, size, flags);
            if (delivered == 0) return 0;
            --delivered;
            const std::size_t count = std::min(size, std::size_t{64} * 1024);
            std::memset(into, 'x', count);
            return static_cast<ssize_t>(count);
        };
        return t;
    }();
    return table;
}
asyncio::RunOptions with_a_fast_peer() {
    return asyncio::RunOptions().loop(
        asyncio::LoopOptions().system_calls(kernel_with_a_fast_peer()));
}

} // namespace

TEST(FastPeer, does_not_hold_up_others) {
    enum class Way { exactly, peek, all };
    for (const Way way : {Way::exactly, Way::peek, Way::all}) {
        SCOPED_TRACE(static_cast<int>(way));
        asyncio::run(with_a_fast_peer(), [way]() -> Coro<> {
            auto ends = co_await stream_and_socket_of_unix();
            is_fast = true;
            delivered = 400;
            bool over = false;
            long turns = 0;
            auto other = create_task([](const bool* is_over, long* count) -> Coro<> {
                for (; !*is_over; ++*count) co_await sleep(0);
            }(&over, &turns));
            constexpr std::size_t size = std::size_t{12} << 20;
            std::size_t got = 0;
            if (way == Way::exactly) {
                const std::string data = co_await ends.reader.readexactly(size);
                got = data.size();
            } else if (way == Way::peek) {
                const std::string_view data = co_await ends.reader.peek(size);
                got = data.size();
            } else {
                const std::string data = co_await ends.reader.read();
                got = data.size();
            }
            EXPECT_GE(got, size);
            over = true;
            is_fast = false;
            EXPECT_GE(turns, 10);
            co_await other;
            ends.writer.abort();
        });
    }
}

TEST(FastPeer, does_not_keep_a_cancel_from_a_read_which_loses_nothing) {
    asyncio::run(with_a_fast_peer(), []() -> Coro<> {
        auto ends = co_await stream_and_socket_of_unix();
        is_fast = true;
        delivered = 1'000'000;
        const std::string text = co_await failure_of(
            asyncio::wait_for(ends.reader.readexactly(std::size_t{1} << 40), 20ms));
        is_fast = false;
        EXPECT_TRUE(text.starts_with("exception: ")) << text; // TimeoutError
        const std::string_view kept = co_await ends.reader.peek();
        EXPECT_GT(kept.size(), std::size_t{1} << 16);
        EXPECT_EQ(kept.find_first_not_of('x'), std::string_view::npos);
        ends.writer.abort();
    });
}

// What closing reads and drops of it has an end.
TEST(FastPeer, does_not_hold_up_others_when_it_is_closed) {
    asyncio::run(with_a_fast_peer(), []() -> Coro<> {
        auto ends = co_await stream_and_socket_of_unix();
        is_fast = true;
        delivered = 100'000;
        ends.writer.close();
        co_await ends.writer.wait_closed();
        is_fast = false;
        EXPECT_LT(delivered, 100'000);
        EXPECT_GE(delivered, 100'000 - 64);
    });
}

// --- where they cannot work

TEST(Streams, of_another_loop_are_refused_in_place_of_waiting_for_ever) {
    Runner theirs;
    Runner ours;
    auto ends = theirs.run(stream_and_socket());
    const std::string refused =
        "RuntimeError: a connection or socket of another event loop is awaited: it stays in the "
        "loop in which it was made";
    ours.run([&]() -> Coro<> {
        std::string text = co_await failure_of(asyncio::wait_for(ends.reader.readline(), 5s));
        EXPECT_EQ(text, refused);
        text = co_await failure_of(asyncio::wait_for(ends.reader.peek(), 5s));
        EXPECT_EQ(text, refused);
        while (ends.writer.get_write_buffer_size() == 0)
            ends.writer.write(std::string(std::size_t{1} << 20, 'x'));
        text = co_await failure_of(asyncio::wait_for(ends.writer.drain(), 5s));
        EXPECT_EQ(text, refused);
        text = co_await failure_of(asyncio::wait_for(ends.writer.wait_closed(), 5s));
        EXPECT_EQ(text, refused);
    });
    // It is none the worse for it.
    theirs.run([&]() -> Coro<> {
        co_await sock_sendall(ends.peer, "line\n");
        const std::string line = co_await ends.reader.readline();
        EXPECT_EQ(line, "line\n");
    });
}

TEST(Streams, that_were_moved_from_may_be_copied_and_assigned) {
    asyncio::run([]() -> Coro<> {
        auto ends = co_await stream_and_socket();
        StreamWriter writer = std::move(ends.writer);
        StreamReader reader = std::move(ends.reader);
        // NOLINTBEGIN(bugprone-use-after-move,hicpp-invalid-access-moved)
        StreamWriter no_writer = ends.writer;
        StreamReader no_reader = ends.reader;
        // NOLINTEND(bugprone-use-after-move,hicpp-invalid-access-moved)
        no_writer = writer;
        no_reader = reader;
        co_await sock_sendall(ends.peer, "x");
        const std::string data = co_await no_reader.read(1);
        EXPECT_EQ(data, "x");
    });
}

TEST(Streams, refuse_a_negative_size) {
    asyncio::run([]() -> Coro<> {
        auto ends = co_await stream_and_socket();
        const std::string text =
            co_await failure_of(ends.reader.readexactly(static_cast<std::size_t>(-1)));
        EXPECT_EQ(text, "ValueError: readexactly size can not be less than zero");
    });
}

TEST(Streams, that_an_exception_handler_writes_to_do_not_tell_of_it_again_and_again) {
    asyncio::run([]() -> Coro<> {
        auto ends = co_await stream_and_socket();
        int told = 0;
        asyncio::get_running_loop().set_exception_handler(
            [&](asyncio::EventLoop&, const asyncio::ExceptionContext& context) {
                ++told;
                ends.writer.write(context.message);
            });
        ends.writer.close();
        co_await ends.writer.wait_closed();
        for (int i = 0; i < 10; ++i) ends.writer.write("lost");
        EXPECT_EQ(told, 6); // from the fifth on
        asyncio::get_running_loop().set_exception_handler(nullptr);
    });
}

TEST(Server, of_a_loop_that_is_closed_refuses_to_serve) {
    const auto handle = [](StreamReader, StreamWriter) {};
    for (const bool started : {false, true}) {
        SCOPED_TRACE(started);
        const Server server = asyncio::run(
            start_server(handle, "127.0.0.1", 0, ServerOptions().start_serving(started)));
        EXPECT_FALSE(server.is_serving());
        EXPECT_EQ(server.sockets().empty(), started);
        asyncio::run([&]() -> Coro<> {
            const std::string refused =
                "RuntimeError: the event loop of the server is closed: start another server";
            std::string text = co_await failure_of(server.start_serving());
            EXPECT_EQ(text, refused);
            text = co_await failure_of(server.serve_forever());
            EXPECT_EQ(text, refused);
            text = co_await failure_of(server.wait_closed());
            EXPECT_EQ(text, refused);
            server.close();
        });
    }
}

TEST(Server, of_another_loop_is_refused) {
    Runner theirs;
    Runner ours;
    const auto handle = [](StreamReader, StreamWriter) {};
    const Server server = theirs.run(start_server(handle, "127.0.0.1", 0));
    ours.run([&]() -> Coro<> {
        const std::string text = co_await failure_of(server.serve_forever());
        EXPECT_EQ(text, "RuntimeError: the server belongs to another event loop");
    });
}

TEST(Server, lets_a_system_exit_of_the_exception_handler_out) {
    asyncio::EventLoopOwner loop = asyncio::new_event_loop();
    loop->set_exception_handler([](asyncio::EventLoop&, const asyncio::ExceptionContext&) {
        throw asyncio::SystemExit(7);
    });
    EXPECT_THROW(asyncio::run_until_complete(*loop,
                                             []() -> Coro<> {
                                                 const auto handle = [](StreamReader,
                                                                        StreamWriter) -> Coro<> {
                                                     throw std::runtime_error("a handler's");
                                                     co_return;
                                                 };
                                                 Server server =
                                                     co_await start_server(handle, "127.0.0.1", 0);
                                                 auto streams = co_await asyncio::open_connection(
                                                     "127.0.0.1", server.sockets().at(0).port());
                                                 co_await sleep(5s);
                                             }()),
                 asyncio::SystemExit);
    loop->set_exception_handler(nullptr);
}
