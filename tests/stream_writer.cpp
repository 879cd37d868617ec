// SPDX-License-Identifier: MIT
#include "support/in_virtual_time.hpp"
#include "support/reports.hpp"
#include "support/some_bytes.hpp"
#include "support/streams.hpp"
#include "support/turns.hpp"

#include <asyncio/asyncio.hpp>
#include <asyncio/testing/cancel_everywhere.hpp>
#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <memory>
#include <netinet/tcp.h>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

using namespace std::chrono_literals;
using asyncio::as_result;
using asyncio::ConnectionOptions;
using asyncio::Coro;
using asyncio::create_task;
using asyncio::get_running_loop;
using asyncio::sock_recv;
using asyncio::sock_sendall;
using asyncio::Socket;
using asyncio::StreamReader;
using asyncio::StreamWriter;
using asyncio_test::make_small;
using asyncio_test::Reports;
using asyncio_test::reset;
using asyncio_test::some_bytes;
using asyncio_test::some_turns;
using asyncio_test::stream_and_socket;
using asyncio_test::stream_and_socket_of_unix;
using asyncio_test::text_of;

namespace {

template <class Body> void run(Body body) {
    for (const bool debug : {false, true}) {
        SCOPED_TRACE(debug ? "debug" : "release");
        asyncio::run(body(), asyncio::RunOptions().debug(debug));
    }
}

Coro<std::string> all_from(const Socket& socket) {
    std::string all;
    for (;;) {
        const std::string data = co_await sock_recv(socket, 65536);
        if (data.empty()) break;
        all += data;
    }
    co_return all;
}

// What it throws; "null" for nothing.
template <class Awaitable> Coro<std::string> failure_of(Awaitable awaitable) {
    const auto result = co_await as_result(std::move(awaitable));
    co_return text_of(result.exception());
}

bool says(const std::string& text, std::string_view operation, int error) {
    return text.starts_with("exception: " + std::string(operation)) &&
           text.ends_with(": " + std::generic_category().message(error));
}

} // namespace

TEST(StreamWriter, write_sends_at_once_and_keeps_nothing_if_the_kernel_takes_it) {
    run([]() -> Coro<> {
        auto ends = co_await stream_and_socket();
        ends.writer.write("hello");
        ends.writer.write("");
        EXPECT_EQ(ends.writer.get_write_buffer_size(), 0U);
        char buffer[10];
        EXPECT_EQ(::recv(ends.peer.fileno(), buffer, sizeof buffer, MSG_DONTWAIT), 5);
    });
}

TEST(StreamWriter, writelines_sends_all_pieces_in_order) {
    run([]() -> Coro<> {
        auto ends = co_await stream_and_socket();
        ends.writer.writelines(std::vector<std::string>{"a", "", "bc", "d"});
        ends.writer.writelines(std::vector<std::string>{});
        ends.writer.writelines(std::vector<std::string>{"", ""});
        const std::string e = "e";
        ends.writer.writelines({e, "f", ""});
        const std::array<asyncio::ReadableBytes, 2> pieces{"e", "f"};
        ends.writer.writelines(pieces);
        std::vector<std::string> many;
        std::string expected = "abcdefef";
        for (int i = 0; i < 200; ++i) {
            many.push_back(std::to_string(i));
            expected += many.back();
        }
        ends.writer.writelines(many);
        ends.writer.close();
        const std::string all = co_await all_from(ends.peer);
        EXPECT_EQ(all, expected);
    });
    run([]() -> Coro<> { // of which the kernel takes a part
        auto ends = co_await stream_and_socket();
        make_small(ends.writer);
        const std::string data = some_bytes(1 << 20);
        const std::array<asyncio::ReadableBytes, 3> pieces{
            std::string_view(data).substr(0, 10), std::string_view(data).substr(10, 500'000),
            std::string_view(data).substr(500'010)};
        ends.writer.writelines(pieces);
        EXPECT_GT(ends.writer.get_write_buffer_size(), 100'000U);
        ends.writer.writelines(pieces);
        ends.writer.close();
        const std::string all = co_await all_from(ends.peer);
        EXPECT_TRUE(all == data + data);
    });
}

TEST(StreamWriter, what_is_kept_goes_out_in_order_whoever_writes_meanwhile) {
    run([]() -> Coro<> {
        auto ends = co_await stream_and_socket();
        make_small(ends.writer);
        const std::string data = some_bytes(2 << 20);
        auto reading = create_task(all_from(ends.peer));
        std::size_t size = 1;
        for (std::size_t i = 0; i < data.size(); i += size, size = size * 5 % 70'001 + 1) {
            ends.writer.write(std::string_view(data).substr(i, size));
            if (size % 3 == 0) co_await ends.writer.drain();
            if (size % 7 == 0) co_await asyncio::sleep(0);
        }
        ends.writer.write_eof();
        const std::string all = co_await reading;
        EXPECT_TRUE(all == data);
        EXPECT_EQ(ends.writer.get_write_buffer_size(), 0U);
    });
}

TEST(StreamWriter, the_water_marks_are_as_in_asyncio) {
    run([]() -> Coro<> {
        auto ends = co_await stream_and_socket();
        const StreamWriter& writer = ends.writer;
        using Limits = std::pair<std::size_t, std::size_t>;
        EXPECT_EQ(writer.get_write_buffer_limits(), Limits(16 * 1024, 64 * 1024));
        writer.set_write_buffer_limits(1000);
        EXPECT_EQ(writer.get_write_buffer_limits(), Limits(250, 1000));
        writer.set_write_buffer_limits(std::nullopt, 100);
        EXPECT_EQ(writer.get_write_buffer_limits(), Limits(100, 400));
        writer.set_write_buffer_limits(7, 7);
        EXPECT_EQ(writer.get_write_buffer_limits(), Limits(7, 7));
        try {
            writer.set_write_buffer_limits(6, 7);
            ADD_FAILURE();
        } catch (const asyncio::ValueError& error) {
            EXPECT_STREQ(error.what(),
                         "the high-water mark (6) must not be below the low-water mark (7)");
        }
        EXPECT_EQ(writer.get_write_buffer_limits(), Limits(7, 7));
        writer.set_write_buffer_limits();
        EXPECT_EQ(writer.get_write_buffer_limits(), Limits(16 * 1024, 64 * 1024));
        co_return;
    });
}

TEST(StreamWriter, drain_waits_above_the_high_mark_until_the_low_one) {
    run([]() -> Coro<> {
        auto ends = co_await stream_and_socket();
        make_small(ends.writer);
        // Until the kernel is full.
        while (ends.writer.get_write_buffer_size() == 0) ends.writer.write(std::string(1000, 'x'));
        const std::size_t kept = ends.writer.get_write_buffer_size();
        ends.writer.set_write_buffer_limits(kept, 0);
        co_await ends.writer.drain(); // at the mark is not above it
        ends.writer.write("x");
        auto first = create_task(failure_of(ends.writer.drain()));
        auto second = create_task(failure_of(ends.writer.drain()));
        auto cancelled = create_task(failure_of(ends.writer.drain()));
        co_await some_turns();
        EXPECT_FALSE(first.done());
        cancelled.cancel();
        static_cast<void>(co_await as_result(cancelled));
        auto reading = create_task(all_from(ends.peer));
        const std::string ended = co_await first;
        EXPECT_EQ(ended, "null");
        EXPECT_EQ(ends.writer.get_write_buffer_size(), 0U);
        const std::string also = co_await second;
        EXPECT_EQ(also, "null");
        ends.writer.close();
        static_cast<void>(co_await reading);
    });
    run([]() -> Coro<> { // limits that are set lower than what is kept
        auto ends = co_await stream_and_socket();
        make_small(ends.writer);
        while (ends.writer.get_write_buffer_size() == 0) ends.writer.write(std::string(1000, 'x'));
        co_await ends.writer.drain();
        ends.writer.set_write_buffer_limits(0);
        auto drain = create_task(failure_of(ends.writer.drain()));
        co_await some_turns();
        EXPECT_FALSE(drain.done());
        ends.writer.set_write_buffer_limits(1 << 20, 1 << 20);
        const std::string ended = co_await drain;
        EXPECT_EQ(ended, "null");
    });
}

TEST(StreamWriter, drain_takes_no_turn_unless_it_waits_and_one_once_it_is_closed) {
    const auto trace = asyncio_test::trace_of([](asyncio_test::Log& log) -> Coro<> {
        auto both = Socket::pair();
        auto streams =
            co_await asyncio::open_connection(ConnectionOptions().sock(std::move(both.first)));
        const int before = log.turns().now();
        const auto turns = [&] { return std::to_string(log.turns().now() - before); };
        streams.second.write("x");
        co_await streams.second.drain();
        EXPECT_EQ(turns(), "0");
        streams.second.close();
        const std::string text = co_await failure_of(streams.second.drain());
        EXPECT_TRUE(says(text, "drain: the connection to ", ECONNRESET)) << text;
        EXPECT_EQ(turns(), "1");
        co_await streams.second.wait_closed();
        const auto now = log.turns().now();
        co_await streams.second.wait_closed();
        EXPECT_EQ(log.turns().now(), now) << "when it is closed already";
    });
    EXPECT_TRUE(trace.empty());
}

TEST(StreamWriter, many_drains_in_a_row_let_others_run) {
    run([]() -> Coro<> {
        auto ends = co_await stream_and_socket();
        bool ran = false;
        get_running_loop().call_soon([&] { ran = true; });
        for (int i = 0; i < 100; ++i) co_await ends.writer.drain();
        EXPECT_TRUE(ran);
    });
}

TEST(StreamWriter, write_after_close_is_dropped_and_reported_from_the_fifth_on) {
    Reports reports;
    asyncio::run([&]() -> Coro<> {
        reports.watch(get_running_loop());
        auto ends = co_await stream_and_socket();
        ends.writer.write("before");
        ends.writer.close();
        EXPECT_TRUE(ends.writer.is_closing());
        for (int i = 0; i < 4; ++i) ends.writer.write("after");
        EXPECT_EQ(reports.count(), 0U) << reports.text();
        ends.writer.writelines(std::vector<std::string>{"after"});
        EXPECT_EQ(reports.count("writing to a connection that is closed"), 1U);
        EXPECT_EQ(reports.count("peer: 127.0.0.1:"), 1U);
        for (int i = 0; i < 300; ++i) ends.writer.write("after");
        EXPECT_EQ(reports.count(), 301U);
        const std::string all = co_await all_from(ends.peer);
        EXPECT_EQ(all, "before");
        co_await ends.writer.wait_closed();
        ends.writer.write("after");
        EXPECT_EQ(reports.count(), 302U);
        const std::string text = co_await failure_of(ends.writer.drain());
        EXPECT_TRUE(says(text, "drain: the connection to 127.0.0.1:", ECONNRESET)) << text;
    }());
}

TEST(StreamWriter, write_eof_ends_our_side_once_everything_is_sent) {
    run([]() -> Coro<> {
        auto ends = co_await stream_and_socket();
        make_small(ends.writer);
        EXPECT_TRUE(ends.writer.can_write_eof());
        const std::string data = some_bytes(300'000);
        ends.writer.write(data);
        ends.writer.write_eof();
        ends.writer.write_eof();
        EXPECT_FALSE(ends.writer.is_closing());
        for (const std::string_view more : {"more", ""}) {
            try {
                ends.writer.write(more);
                ADD_FAILURE();
            } catch (const asyncio::RuntimeError& error) {
                EXPECT_STREQ(error.what(), "Cannot call write() after write_eof()");
            }
        }
        const std::string all = co_await all_from(ends.peer);
        EXPECT_TRUE(all == data);
        co_await sock_sendall(ends.peer, "an answer");
        const std::string answer = co_await ends.reader.read(100);
        EXPECT_EQ(answer, "an answer");
        ends.writer.close();
        ends.writer.write_eof();
        co_await ends.writer.wait_closed();
        ends.writer.write_eof();
    });
}

TEST(StreamWriter, close_sends_what_is_kept_and_abort_drops_it) {
    run([]() -> Coro<> {
        auto ends = co_await stream_and_socket();
        make_small(ends.writer);
        const std::string data = some_bytes(1 << 20);
        ends.writer.write(data);
        ends.writer.close();
        ends.writer.close();
        auto closed = create_task(failure_of(ends.writer.wait_closed()));
        co_await some_turns();
        EXPECT_FALSE(closed.done());
        const std::string all = co_await all_from(ends.peer);
        EXPECT_TRUE(all == data);
        const std::string text = co_await closed;
        EXPECT_EQ(text, "null");
    });
    run([]() -> Coro<> {
        for (const bool closed_before : {false, true}) {
            auto ends = co_await stream_and_socket();
            make_small(ends.writer);
            const std::string data = some_bytes(1 << 20);
            ends.writer.write(data);
            if (closed_before) ends.writer.close();
            ends.writer.abort();
            ends.writer.abort();
            co_await ends.writer.wait_closed();
            const std::string all = co_await all_from(ends.peer);
            EXPECT_LT(all.size(), data.size());
            EXPECT_TRUE(data.starts_with(all));
        }
    });
}

TEST(StreamWriter, a_drain_that_waits_when_it_is_closed_ends_well_if_all_is_sent) {
    run([]() -> Coro<> {
        auto ends = co_await stream_and_socket();
        make_small(ends.writer);
        ends.writer.write(std::string(1 << 20, 'x'));
        auto before = create_task(failure_of(ends.writer.drain()));
        co_await some_turns();
        ends.writer.close();
        auto after = create_task(failure_of(ends.writer.drain()));
        co_await some_turns();
        EXPECT_FALSE(before.done());
        EXPECT_FALSE(after.done());
        const std::string all = co_await all_from(ends.peer);
        EXPECT_EQ(all.size(), 1U << 20);
        std::string text = co_await before;
        EXPECT_EQ(text, "null");
        text = co_await after;
        EXPECT_EQ(text, "null");
    });
    run([]() -> Coro<> {
        auto ends = co_await stream_and_socket();
        make_small(ends.writer);
        ends.writer.write(std::string(1 << 20, 'x'));
        auto drain = create_task(failure_of(ends.writer.drain()));
        co_await some_turns();
        ends.writer.abort();
        const std::string text = co_await drain;
        EXPECT_TRUE(says(text, "drain: the connection to ", ECONNRESET)) << text;
    });
}

TEST(StreamWriter, the_last_handle_that_goes_closes_it) {
    run([]() -> Coro<> {
        auto ends = co_await stream_and_socket();
        const StreamReader reader = ends.reader;
        {
            std::optional<StreamWriter> writer = std::move(ends.writer);
            StreamWriter copy = *writer;
            writer.reset();
            co_await some_turns();
            EXPECT_FALSE(copy.is_closing());
            writer = copy;
            copy = StreamWriter(*writer);
            StreamWriter& itself = copy;
            copy = itself;
            copy.write("sent");
            ends.writer = std::move(copy);
            writer.reset();
            EXPECT_FALSE(ends.writer.is_closing());
            auto other = co_await stream_and_socket();
            ends.writer = other.writer;
        }
        const std::string all = co_await all_from(ends.peer);
        EXPECT_EQ(all, "sent");
        EXPECT_TRUE(reader.at_eof());
    });
}

TEST(StreamWriter, get_extra_info_tells_of_the_connection) {
    run([]() -> Coro<> {
        auto ends = co_await stream_and_socket();
        EXPECT_EQ(ends.writer.get_extra_info(asyncio::peername), ends.peer.getsockname());
        EXPECT_EQ(ends.writer.get_extra_info(asyncio::sockname), ends.peer.getpeername());
        EXPECT_EQ(ends.writer.get_extra_info(asyncio::ssl_object), nullptr);
        const auto socket = ends.writer.get_extra_info(asyncio::socket_info);
        EXPECT_GE(socket.fileno(), 0);
        EXPECT_EQ(socket.getsockname(), ends.peer.getpeername());
        EXPECT_EQ(socket.getsockopt(IPPROTO_TCP, TCP_NODELAY), 1);
        ends.writer.close();
        co_await ends.writer.wait_closed();
        EXPECT_EQ(ends.writer.get_extra_info(asyncio::peername), ends.peer.getsockname());
        EXPECT_EQ(ends.writer.get_extra_info(asyncio::sockname).family(), AF_UNSPEC);
        EXPECT_EQ(ends.writer.get_extra_info(asyncio::socket_info).fileno(), -1);
    });
}

TEST(StreamWriter, a_reset_ends_a_drain_that_waits_and_what_comes_after_it) {
    run([]() -> Coro<> {
        auto ends = co_await stream_and_socket();
        make_small(ends.writer);
        ends.writer.write(std::string(1 << 20, 'x'));
        auto drain = create_task(failure_of(ends.writer.drain()));
        co_await some_turns();
        reset(ends.peer);
        const std::string text = co_await drain;
        EXPECT_TRUE(says(text, "send to 127.0.0.1:", ECONNRESET) ||
                    says(text, "send to 127.0.0.1:", EPIPE))
            << text;
        EXPECT_TRUE(ends.writer.is_closing());
        std::string again = co_await failure_of(ends.writer.drain());
        EXPECT_EQ(again, text);
        EXPECT_EQ(ends.writer.get_write_buffer_size(), 0U);
        ends.writer.write_eof();
        ends.writer.close();
        again = co_await failure_of(ends.writer.wait_closed());
        EXPECT_EQ(again, text);
    });
    run([]() -> Coro<> { // before a write
        auto ends = co_await stream_and_socket();
        reset(ends.peer);
        ends.writer.write("x");
        const std::string text = co_await failure_of(ends.writer.drain());
        EXPECT_TRUE(says(text, "send to 127.0.0.1:", ECONNRESET)) << text;
    });
    run([]() -> Coro<> { // while close() waits for what is kept
        auto ends = co_await stream_and_socket();
        make_small(ends.writer);
        ends.writer.write(std::string(1 << 20, 'x'));
        ends.writer.close();
        auto closed = create_task(failure_of(ends.writer.wait_closed()));
        co_await some_turns();
        reset(ends.peer);
        const std::string text = co_await closed;
        EXPECT_TRUE(says(text, "send to 127.0.0.1:", ECONNRESET) ||
                    says(text, "send to 127.0.0.1:", EPIPE))
            << text;
    });
    run([]() -> Coro<> { // with everything sent
        auto ends = co_await stream_and_socket();
        ends.writer.close();
        reset(ends.peer);
        const std::string text = co_await failure_of(ends.writer.wait_closed());
        EXPECT_EQ(text, "null");
    });
}

TEST(StreamWriter, a_broken_pipe_keeps_what_was_received) {
    run([]() -> Coro<> {
        auto both = Socket::pair();
        auto streams =
            co_await asyncio::open_connection(ConnectionOptions().sock(std::move(both.first)));
        co_await sock_sendall(both.second, "line\nrest");
        both.second.close();
        streams.second.write("x");
        const std::string text = co_await failure_of(streams.second.drain());
        EXPECT_TRUE(says(text, "send to ", EPIPE)) << text;
        std::string data = co_await streams.first.readline();
        EXPECT_EQ(data, "line\n");
        data = co_await streams.first.read();
        EXPECT_EQ(data, "rest");
    });
}

TEST(StreamWriter, a_cancel_at_any_await_lets_what_was_written_go_out) {
    const int cancels = asyncio::testing::cancel_everywhere(
        [](asyncio::testing::LeakToken token) -> Coro<> {
            auto ends = co_await stream_and_socket_of_unix();
            const auto ticks = std::make_shared<int>();
            auto ticking = create_task(asyncio_test::tick(ticks));
            make_small(ends.writer);
            ends.writer.set_write_buffer_limits(0);
            const std::string data = some_bytes(200'000);
            auto reading = create_task(all_from(ends.peer));
            std::exception_ptr cancelled;
            static_cast<void>(token);
            std::size_t written = 0;
            try {
                for (int i = 0; i < 4; ++i) {
                    ends.writer.write(std::string_view(data).substr(written, 50'000));
                    written += 50'000;
                    co_await ends.writer.drain();
                }
                ends.writer.close();
                co_await ends.writer.wait_closed();
            } catch (const asyncio::CancelledError&) {
                cancelled = std::current_exception();
            }
            ends.writer.close();
            const std::string all = co_await reading;
            EXPECT_TRUE(all == std::string_view(data).substr(0, written));
            co_await ends.writer.wait_closed();
            if (cancelled != nullptr) std::rethrow_exception(cancelled);
        },
        asyncio::testing::CancelOptions().may_leave_tasks(true));
    EXPECT_GT(cancels, 3);
}

TEST(StreamWriter, an_echo_without_a_copy_writes_what_it_peeks_at) {
    run([]() -> Coro<> {
        auto ends = co_await stream_and_socket();
        make_small(ends.writer);
        const std::string data = some_bytes(1 << 20);
        const auto echo = [&]() -> Coro<> {
            for (;;) {
                const std::string_view seen = co_await ends.reader.peek();
                if (seen.empty()) break;
                ends.writer.write(seen);
                ends.reader.consume(seen.size());
                co_await ends.writer.drain();
            }
            ends.writer.write_eof();
        };
        const auto send = [&]() -> Coro<> {
            co_await sock_sendall(ends.peer, data);
            ends.peer.shutdown(SHUT_WR);
        };
        auto echoing = create_task(echo());
        auto sending = create_task(send());
        const std::string all = co_await all_from(ends.peer);
        EXPECT_TRUE(all == data);
        co_await echoing;
        co_await sending;
    });
}

TEST(StreamWriter, a_loop_may_be_closed_at_each_stage_and_the_handles_live_on) {
    enum class Stage { open, kept, drains, closes, closed, failed, waits };
    for (const Stage stage : {Stage::open, Stage::kept, Stage::drains, Stage::closes, Stage::closed,
                              Stage::failed, Stage::waits}) {
        SCOPED_TRACE(static_cast<int>(stage));
        std::optional<asyncio_test::StreamAndSocket> left;
        std::vector<asyncio::Task<std::string>> tasks;
        {
            const auto loop = asyncio::new_event_loop();
            const auto main = [&]() -> Coro<> {
                left = co_await stream_and_socket();
                if (stage == Stage::open) co_return;
                make_small(left->writer);
                left->writer.write(std::string(1 << 20, 'x'));
                if (stage == Stage::drains)
                    tasks.push_back(create_task(failure_of(left->writer.drain())));
                if (stage == Stage::closes) {
                    left->writer.close();
                    tasks.push_back(create_task(failure_of(left->writer.wait_closed())));
                }
                if (stage == Stage::closed) left->writer.abort();
                if (stage == Stage::failed) reset(left->peer);
                if (stage == Stage::waits) {
                    tasks.push_back(create_task([](StreamReader reader) -> Coro<std::string> {
                        co_return co_await reader.readline();
                    }(left->reader)));
                }
                co_await some_turns();
            };
            asyncio::run_until_complete(*loop, main());
            loop->close();
        }
        EXPECT_TRUE(left->writer.is_closing());
        EXPECT_TRUE(left->reader.at_eof());
        left->writer.write("more");
        left->writer.close();
        left->writer.abort();
        EXPECT_EQ(left->writer.get_extra_info(asyncio::socket_info).fileno(), -1);
        left.reset();
    }
}
