// SPDX-License-Identifier: MIT
#include "support/in_virtual_time.hpp"
#include "support/streams.hpp"

#include <asyncio/asyncio.hpp>
#include <asyncio/testing/cancel_everywhere.hpp>
#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <memory>
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
using asyncio::sock_sendall;
using asyncio::StreamReader;
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

// What the await gives or throws, as a text.
template <class Awaitable> Coro<std::string> outcome(Awaitable awaitable) {
    const auto result = co_await as_result(std::move(awaitable));
    if (result) co_return std::string(*result);
    try {
        std::rethrow_exception(result.exception());
    } catch (const asyncio::IncompleteReadError& error) {
        co_return "incomplete: " + error.partial() + " of " +
            (error.expected() ? std::to_string(*error.expected()) : "?");
    } catch (const asyncio::LimitOverrunError& error) {
        co_return "over the limit at " + std::to_string(error.consumed()) + ": " + error.what();
    } catch (...) {
        co_return text_of(std::current_exception());
    }
}

Coro<std::string> all_of(StreamReader reader, std::size_t size) {
    std::string all;
    for (;;) {
        const std::string data = co_await reader.read(static_cast<std::ptrdiff_t>(size));
        if (data.empty()) break;
        EXPECT_LE(data.size(), size);
        all += data;
    }
    co_return all;
}

Coro<std::string> read_in_all_ways(StreamReader reader) {
    std::string all = co_await reader.readexactly(3);
    all += "|" + co_await reader.readline();
    const std::array<std::string_view, 2> separators{"--", ";"};
    all += "|" + co_await reader.readuntil(std::span<const std::string_view>(separators));
    all += "|" + co_await reader.readuntil("END");
    const std::string_view seen = co_await reader.peek(4);
    all += "|" + std::string(seen.substr(0, 4));
    reader.consume(2);
    std::array<char, 2> two{};
    std::size_t count = co_await reader.read_into(two);
    if (count < 2) count += co_await reader.read_into(std::span<char>(two).subspan(count));
    all += "|" + std::string(two.data(), count);
    all += "|" + co_await reader.read();
    co_return all;
}
constexpr std::string_view for_all_ways = "abcline\nx-y--zENDPEEKrest of it";
constexpr std::string_view in_all_ways = "abc|line\n|x-y--|zEND|PEEK|EK|rest of it";

} // namespace

TEST(StreamReader, read_gives_what_is_there_at_most_so_much_and_nothing_at_the_end) {
    run([]() -> Coro<> {
        auto ends = co_await stream_and_socket();
        co_await sock_sendall(ends.peer, "hello, world");
        std::string text = co_await ends.reader.read(0);
        EXPECT_EQ(text, "");
        text = co_await ends.reader.read(5);
        EXPECT_EQ(text, "hello");
        text = co_await ends.reader.read(100);
        EXPECT_EQ(text, ", world");
        EXPECT_FALSE(ends.reader.at_eof());
        co_await sock_sendall(ends.peer, "last");
        ends.peer.shutdown(SHUT_WR);
        text = co_await ends.reader.read();
        EXPECT_EQ(text, "last");
        EXPECT_TRUE(ends.reader.at_eof());
        EXPECT_EQ(ends.reader.exception(), nullptr);
        for (const int size : {-1, 0, 1}) {
            text = co_await ends.reader.read(size);
            EXPECT_EQ(text, "");
        }
    });
}

TEST(StreamReader, read_without_a_size_takes_everything_up_to_the_end_however_much_it_is) {
    run([]() -> Coro<> {
        auto ends = co_await stream_and_socket(ConnectionOptions().limit(10));
        std::string data(3 << 20, ' ');
        for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i * 7 + i / 251);
        auto task = create_task(all_of(ends.reader, std::string::npos / 2));
        co_await sock_sendall(ends.peer, data);
        ends.peer.shutdown(SHUT_WR);
        const std::string all = co_await task;
        EXPECT_TRUE(all == data);
    });
    run([]() -> Coro<> {
        auto ends = co_await stream_and_socket();
        const std::string data(3 << 20, 'x');
        auto sending = create_task([](asyncio::Socket peer, std::string_view bytes) -> Coro<> {
            co_await sock_sendall(peer, bytes);
        }(std::move(ends.peer), data));
        const std::string all = co_await ends.reader.read();
        EXPECT_TRUE(all == data);
        co_await sending;
    });
}

TEST(StreamReader, reads_the_same_in_every_chunking) {
    run([]() -> Coro<> {
        for (std::size_t first = 0; first <= for_all_ways.size(); ++first) {
            for (std::size_t second = first; second <= for_all_ways.size();
                 second += first % 3 + 1) {
                auto ends = co_await stream_and_socket();
                auto task = create_task(read_in_all_ways(ends.reader));
                co_await some_turns(2);
                co_await sock_sendall(ends.peer, for_all_ways.substr(0, first));
                co_await some_turns();
                co_await sock_sendall(ends.peer, for_all_ways.substr(first, second - first));
                co_await some_turns();
                co_await sock_sendall(ends.peer, for_all_ways.substr(second));
                ends.peer.close();
                const std::string all = co_await task;
                EXPECT_EQ(all, in_all_ways) << first << ", " << second;
            }
        }
        auto ends = co_await stream_and_socket();
        auto task = create_task(read_in_all_ways(ends.reader));
        for (const char byte : for_all_ways) {
            co_await sock_sendall(ends.peer, std::string_view(&byte, 1));
            co_await some_turns();
        }
        ends.peer.close();
        const std::string all = co_await task;
        EXPECT_EQ(all, in_all_ways);
    });
}

TEST(StreamReader, readexactly_gives_all_or_says_what_there_was) {
    run([]() -> Coro<> {
        auto ends = co_await stream_and_socket();
        std::string text = co_await ends.reader.readexactly(0);
        EXPECT_EQ(text, "");
        const std::string data(200'000, 'y');
        auto sending = create_task([](asyncio::Socket peer, std::string_view bytes) -> Coro<> {
            co_await sock_sendall(peer, bytes);
            co_await sock_sendall(peer, "rest");
        }(std::move(ends.peer), data));
        text = co_await ends.reader.readexactly(data.size());
        EXPECT_TRUE(text == data);
        text = co_await outcome(ends.reader.readexactly(5));
        EXPECT_EQ(text, "incomplete: rest of 5");
        text = co_await outcome(ends.reader.readexactly(1));
        EXPECT_EQ(text, "incomplete:  of 1");
        EXPECT_TRUE(ends.reader.at_eof());
        co_await sending;
    });
}

TEST(StreamReader, readuntil_takes_the_separator_too) {
    run([]() -> Coro<> {
        auto ends = co_await stream_and_socket();
        co_await sock_sendall(ends.peer, "a\nbAABAAAB..");
        std::string text = co_await ends.reader.readuntil();
        EXPECT_EQ(text, "a\n");
        text = co_await ends.reader.readuntil("AAAB");
        EXPECT_EQ(text, "bAABAAAB");
        text = co_await outcome(ends.reader.readuntil(""));
        EXPECT_EQ(text, "ValueError: Separator should be at least one-byte string");
        const std::array<std::string_view, 2> with_empty{"x", ""};
        text =
            co_await outcome(ends.reader.readuntil(std::span<const std::string_view>(with_empty)));
        EXPECT_EQ(text, "ValueError: Separator should be at least one-byte string");
        text = co_await outcome(ends.reader.readuntil(std::span<const std::string_view>()));
        EXPECT_EQ(text, "ValueError: Separator should be at least one-byte string");
        ends.peer.close();
        text = co_await outcome(ends.reader.readuntil("!"));
        EXPECT_EQ(text, "incomplete: .. of ?");
        text = co_await outcome(ends.reader.readuntil("!"));
        EXPECT_EQ(text, "incomplete:  of ?") << "the error takes what there was";
    });
}

TEST(StreamReader, readuntil_takes_bytes_with_zeros_in_them) {
    run([]() -> Coro<> {
        auto ends = co_await stream_and_socket();
        co_await sock_sendall(ends.peer, "name\0va\0lue\0\0rest\x01\x02");
        std::string text = co_await ends.reader.readuntil("\0");
        EXPECT_EQ(text, std::string("name\0", 5));
        text = co_await ends.reader.readuntil("\0\0");
        EXPECT_EQ(text, std::string("va\0lue\0\0", 8));
        const std::array<unsigned char, 2> bytes{1, 2};
        text = co_await ends.reader.readuntil(bytes);
        EXPECT_EQ(text, "rest\x01\x02");
    });
}

TEST(StreamReader, of_several_separators_the_one_that_ends_first_counts_and_then_the_shortest) {
    struct Example {
        std::string_view data;
        std::vector<std::string_view> separators;
        std::string_view expected;
    };
    const std::vector<Example> examples = {
        {"line\r\nnext", {"\n", "\r\n"}, "line\r\n"},
        {"line\r\nnext", {"\r\n", "\n"}, "line\r\n"},
        {"xxAByyCD", {"CD", "AB"}, "xxAB"},
        {"xxABCDyy", {"ABCD", "BC"}, "xxABC"},
        {"xxABCDyy", {"BC", "ABCD"}, "xxABC"},
        {"xABC", {"ABC", "C", "BC"}, "xABC"},
        {"aXXXXXXXXb;", {"XXXXXXXXc", ";"}, "aXXXXXXXXb;"},
    };
    run([&]() -> Coro<> {
        for (const Example& example : examples) {
            for (std::size_t piece = 1; piece <= example.data.size(); ++piece) {
                auto ends = co_await stream_and_socket();
                const std::span<const std::string_view> separators = example.separators;
                auto task = create_task(outcome(ends.reader.readuntil(separators)));
                for (std::size_t i = 0; i < example.data.size(); i += piece) {
                    co_await sock_sendall(ends.peer, example.data.substr(i, piece));
                    co_await some_turns();
                }
                ends.peer.close();
                const std::string text = co_await task;
                EXPECT_EQ(text, example.expected) << "in pieces of " << piece;
            }
        }
    });
    // The limit excludes the separator: the shortest of equal ends has the longest chunk.
    run([]() -> Coro<> {
        auto ends = co_await stream_and_socket(ConnectionOptions().limit(3));
        const std::array<std::string_view, 2> separators{"BC", "C"};
        co_await sock_sendall(ends.peer, "xxABC");
        const std::string text =
            co_await outcome(ends.reader.readuntil(std::span<const std::string_view>(separators)));
        EXPECT_EQ(text, "over the limit at 4: Separator is found, but chunk is longer than limit");
    });
}

TEST(StreamReader, readuntil_over_the_limit_leaves_the_data) {
    run([]() -> Coro<> {
        auto ends = co_await stream_and_socket(ConnectionOptions().limit(3));
        EXPECT_EQ(ends.reader.limit(), 3U);
        co_await sock_sendall(ends.peer, "abc--");
        std::string text = co_await ends.reader.readuntil("--");
        EXPECT_EQ(text, "abc--") << "the separator is not counted";

        co_await sock_sendall(ends.peer, "abcd--");
        text = co_await outcome(ends.reader.readuntil("--"));
        EXPECT_EQ(text, "over the limit at 4: Separator is found, but chunk is longer than limit");
        EXPECT_EQ(ends.reader.buffered(), "abcd--");
        text = co_await ends.reader.readexactly(4 + 2);
        EXPECT_EQ(text, "abcd--");

        co_await sock_sendall(ends.peer, "12345-");
        text = co_await outcome(ends.reader.readuntil("--"));
        EXPECT_EQ(text, "over the limit at 5: Separator is not found, and chunk exceed the limit");
        EXPECT_EQ(ends.reader.buffered(), "12345-");
        ends.reader.consume(5);
        co_await sock_sendall(ends.peer, "-");
        text = co_await ends.reader.readuntil("--");
        EXPECT_EQ(text, "--");
        // The limit is for separators alone.
        co_await sock_sendall(ends.peer, "1234567890");
        text = co_await ends.reader.readexactly(10);
        EXPECT_EQ(text, "1234567890");
    });
}

TEST(StreamReader, readline_drops_a_line_over_the_limit_as_far_as_it_has_come) {
    run([]() -> Coro<> {
        auto ends = co_await stream_and_socket(ConnectionOptions().limit(3));
        co_await sock_sendall(ends.peer, "toolong\nok\n");
        std::string text = co_await outcome(ends.reader.readline());
        EXPECT_EQ(text, "ValueError: Separator is found, but chunk is longer than limit");
        text = co_await ends.reader.readline();
        EXPECT_EQ(text, "ok\n");
        co_await sock_sendall(ends.peer, "toolong");
        text = co_await outcome(ends.reader.readline());
        EXPECT_EQ(text, "ValueError: Separator is not found, and chunk exceed the limit");
        EXPECT_EQ(ends.reader.buffered(), "");
        co_await sock_sendall(ends.peer, "end\nrest");
        text = co_await ends.reader.readline();
        EXPECT_EQ(text, "end\n");
        ends.peer.close();
        text = co_await outcome(ends.reader.readline());
        EXPECT_EQ(text, "ValueError: Separator is not found, and chunk exceed the limit");
        text = co_await ends.reader.readline();
        EXPECT_EQ(text, "");
        const std::optional<std::string> none = co_await ends.reader.next();
        EXPECT_EQ(none, std::nullopt);
    });
}

TEST(StreamReader, peek_takes_nothing_out_and_consume_does) {
    run([]() -> Coro<> {
        auto ends = co_await stream_and_socket();
        co_await sock_sendall(ends.peer, "abcdef");
        std::string_view seen = co_await ends.reader.peek();
        EXPECT_EQ(seen, "abcdef");
        seen = co_await ends.reader.peek();
        EXPECT_EQ(seen, "abcdef");
        seen = co_await ends.reader.peek(0);
        EXPECT_EQ(seen, "abcdef");
        EXPECT_EQ(ends.reader.buffered(), "abcdef");
        ends.reader.consume(0);
        ends.reader.consume(4);
        EXPECT_EQ(ends.reader.buffered(), "ef");
        EXPECT_THROW(ends.reader.consume(3), asyncio::ValueError);
        EXPECT_EQ(ends.reader.buffered(), "ef");
        auto task = create_task([](StreamReader reader) -> Coro<std::string> {
            const std::string_view more = co_await reader.peek(5);
            co_return std::string(more);
        }(ends.reader));
        co_await some_turns();
        EXPECT_FALSE(task.done());
        EXPECT_THROW(ends.reader.consume(1), asyncio::RuntimeError);
        co_await sock_sendall(ends.peer, "gh");
        co_await some_turns();
        EXPECT_FALSE(task.done());
        co_await sock_sendall(ends.peer, "ij");
        const std::string five = co_await task;
        EXPECT_EQ(five, "efghij");
        ends.peer.close();
        seen = co_await ends.reader.peek(100);
        EXPECT_EQ(seen, "efghij") << "less only at the end";
        EXPECT_FALSE(ends.reader.at_eof());
        ends.reader.consume(6);
        EXPECT_TRUE(ends.reader.at_eof());
        seen = co_await ends.reader.peek();
        EXPECT_EQ(seen, "");
    });
}

TEST(StreamReader, a_second_reader_is_refused_and_the_first_goes_on) {
    run([]() -> Coro<> {
        auto ends = co_await stream_and_socket();
        auto first = create_task(outcome(ends.reader.readexactly(2)));
        co_await some_turns(1);
        const StreamReader copy = ends.reader;
        const std::string refused =
            "() called while another coroutine is already waiting for incoming data: only one "
            "task at a time may read from a stream";
        std::string text = co_await outcome(copy.read(1));
        EXPECT_EQ(text, "RuntimeError: read" + refused);
        text = co_await outcome(copy.readline());
        EXPECT_EQ(text, "RuntimeError: readline" + refused);
        text = co_await outcome(copy.readuntil("x"));
        EXPECT_EQ(text, "RuntimeError: readuntil" + refused);
        text = co_await outcome(copy.readexactly(1));
        EXPECT_EQ(text, "RuntimeError: readexactly" + refused);
        text = co_await outcome(copy.peek());
        EXPECT_EQ(text, "RuntimeError: peek" + refused);
        std::array<char, 4> buffer{};
        const auto into = co_await as_result(copy.read_into(buffer));
        EXPECT_EQ(text_of(into.exception()), "RuntimeError: read_into" + refused);
        co_await sock_sendall(ends.peer, "ab");
        text = co_await first;
        EXPECT_EQ(text, "ab");
        co_await sock_sendall(ends.peer, "c");
        text = co_await copy.read(1);
        EXPECT_EQ(text, "c");
        // One that was cancelled makes way.
        auto cancelled = create_task(outcome(ends.reader.read(1)));
        co_await some_turns(1);
        cancelled.cancel();
        static_cast<void>(co_await as_result(cancelled));
        co_await sock_sendall(ends.peer, "d");
        text = co_await copy.read(1);
        EXPECT_EQ(text, "d");
    });
}

TEST(StreamReader, a_cancel_at_any_await_loses_no_byte) {
    const int cancels = asyncio::testing::cancel_everywhere(
        [](asyncio::testing::LeakToken token) -> Coro<> {
            auto ends = co_await stream_and_socket_of_unix();
            const auto ticks = std::make_shared<int>();
            auto ticking = create_task(asyncio_test::tick(ticks));
            std::string all;
            std::exception_ptr cancelled;
            const auto reading = [&]() -> Coro<> {
                all += co_await ends.reader.readexactly(3);
                all += co_await ends.reader.readline();
                all += co_await ends.reader.readuntil("--");
                const std::string_view seen = co_await ends.reader.peek(4);
                EXPECT_EQ(seen.substr(0, 4), "PEEK");
                std::array<char, 2> two{};
                const std::size_t count = co_await ends.reader.read_into(two);
                all.append(two.data(), count);
                all += co_await ends.reader.read(2);
            };
            const auto sending = [&]() -> Coro<> {
                for (const std::string_view piece : {"ab", "cli", "ne\nx-", "-PE", "EK!!"}) {
                    ::send(ends.peer.fileno(), piece.data(), piece.size(), MSG_NOSIGNAL);
                    co_await some_turns(3);
                }
            };
            auto task = create_task(sending());
            try {
                co_await reading();
            } catch (const asyncio::CancelledError&) {
                cancelled = std::current_exception();
            }
            static_cast<void>(token);
            co_await task;
            ends.peer.shutdown(SHUT_WR);
            all += co_await ends.reader.read();
            EXPECT_EQ(all, "abcline\nx--PEEK!!");
            ends.writer.close();
            co_await ends.writer.wait_closed();
            if (cancelled != nullptr) std::rethrow_exception(cancelled);
        },
        asyncio::testing::CancelOptions().may_leave_tasks(true));
    EXPECT_GT(cancels, 5);
}

TEST(StreamReader, a_reset_is_thrown_by_every_read_after_what_came_before_it) {
    run([]() -> Coro<> {
        auto ends = co_await stream_and_socket();
        auto task = create_task(outcome(ends.reader.read(10)));
        co_await some_turns();
        asyncio_test::reset(ends.peer);
        const std::string text = co_await task;
        EXPECT_TRUE(text.starts_with("exception: recv from 127.0.0.1:")) << text;
        EXPECT_TRUE(text.ends_with(": Connection reset by peer")) << text;
        EXPECT_NE(ends.reader.exception(), nullptr);
        EXPECT_TRUE(ends.reader.at_eof());
        std::string again = co_await outcome(ends.reader.read(10));
        EXPECT_EQ(again, text);
        again = co_await outcome(ends.reader.readline());
        EXPECT_EQ(again, text);
        const auto drained = co_await as_result(ends.writer.drain());
        EXPECT_EQ(text_of(drained.exception()), text);
        ends.writer.close();
        const auto closed = co_await as_result(ends.writer.wait_closed());
        EXPECT_EQ(text_of(closed.exception()), text);
    });
}

// What has come before is lost neither.
TEST(StreamReader, readexactly_throws_a_reset_if_there_is_too_little_and_leaves_it) {
    run([]() -> Coro<> {
        auto ends = co_await stream_and_socket();
        co_await sock_sendall(ends.peer, "line\n");
        std::string text = co_await ends.reader.readexactly(2);
        EXPECT_EQ(text, "li");
        asyncio_test::reset(ends.peer);
        for (int i = 0; i < 2; ++i) {
            text = co_await outcome(ends.reader.readexactly(4));
            EXPECT_TRUE(text.starts_with("exception: recv from 127.0.0.1:")) << text;
            EXPECT_TRUE(text.ends_with(": Connection reset by peer")) << text;
            EXPECT_EQ(ends.reader.buffered(), "ne\n");
        }
        text = co_await ends.reader.readexactly(3);
        EXPECT_EQ(text, "ne\n");
    });
}

TEST(StreamReader, a_reset_after_a_read_that_was_cancelled_is_for_the_next_one) {
    run([]() -> Coro<> {
        auto ends = co_await stream_and_socket();
        auto cancelled = create_task(outcome(ends.reader.readline()));
        co_await some_turns(1);
        cancelled.cancel();
        const auto result = co_await as_result(cancelled);
        EXPECT_EQ(text_of(result.exception()), "null") << "outcome() has caught it";
        EXPECT_EQ(*result, "CancelledError: ");
        asyncio_test::reset(ends.peer);
        co_await some_turns();
        EXPECT_EQ(ends.reader.exception(), nullptr) << "nobody has asked the kernel yet";
        const std::string text = co_await outcome(ends.reader.readline());
        EXPECT_TRUE(text.ends_with(": Connection reset by peer")) << text;
    });
}

TEST(StreamReader, an_incomplete_read_says_how_much_there_was_of_how_much) {
    run([]() -> Coro<> {
        const auto what_of = [](auto awaitable) -> Coro<std::string> {
            const auto result = co_await as_result(std::move(awaitable));
            EXPECT_TRUE(result.template failed_with<asyncio::IncompleteReadError>());
            co_return text_of(result.exception());
        };
        auto ends = co_await stream_and_socket();
        co_await sock_sendall(ends.peer, "some dataAA");
        ends.peer.close();
        std::string text = co_await what_of(ends.reader.readuntil("AAA"));
        EXPECT_EQ(text, "exception: 11 bytes read on a total of undefined expected bytes: the "
                        "peer ended before");
        EXPECT_EQ(ends.reader.buffered(), "");
        text = co_await what_of(ends.reader.readexactly(36));
        EXPECT_EQ(text,
                  "exception: 0 bytes read on a total of 36 expected bytes: the peer ended before");
        auto others = co_await stream_and_socket();
        auto reading = create_task(
            [](StreamReader reader) -> Coro<> { co_await reader.readexactly(36); }(others.reader));
        co_await some_turns(1);
        co_await sock_sendall(others.peer, "line1\nline2\nline3\n");
        others.peer.close();
        const auto result = co_await as_result(reading);
        EXPECT_EQ(
            text_of(result.exception()),
            "exception: 18 bytes read on a total of 36 expected bytes: the peer ended before");
        EXPECT_EQ(others.reader.buffered(), "");
    });
}

TEST(StreamReader, a_connection_that_is_closed_gives_what_was_received_and_then_the_end) {
    run([]() -> Coro<> {
        auto ends = co_await stream_and_socket();
        co_await sock_sendall(ends.peer, "one\ntwo");
        const std::string_view seen = co_await ends.reader.peek(7);
        EXPECT_EQ(seen, "one\ntwo");
        ends.writer.close();
        co_await ends.writer.wait_closed();
        EXPECT_FALSE(ends.reader.at_eof());
        std::string text = co_await ends.reader.readline();
        EXPECT_EQ(text, "one\n");
        text = co_await ends.reader.read();
        EXPECT_EQ(text, "two");
        EXPECT_TRUE(ends.reader.at_eof());
        text = co_await outcome(ends.reader.readexactly(1));
        EXPECT_EQ(text, "incomplete:  of 1");
    });
    run([]() -> Coro<> { // one that waits is woken
        auto ends = co_await stream_and_socket();
        auto task = create_task(outcome(ends.reader.read(1)));
        co_await some_turns();
        ends.writer.close();
        const std::string text = co_await task;
        EXPECT_EQ(text, "");
    });
}

TEST(StreamReader, what_comes_as_one_with_the_end_is_read_and_so_is_the_end) {
    run([]() -> Coro<> {
        for (const bool waits : {false, true}) {
            auto ends = co_await stream_and_socket();
            std::optional<asyncio::Task<std::string>> task;
            if (waits) task = create_task(all_of(ends.reader, 3));
            co_await some_turns();
            ::send(ends.peer.fileno(), "together", 8, 0);
            ends.peer.close();
            if (!waits) task = create_task(all_of(ends.reader, 3));
            const std::string all = co_await *task;
            EXPECT_EQ(all, "together");
        }
    });
}
