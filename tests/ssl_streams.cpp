// SPDX-License-Identifier: MIT
// Streams over TLS: talks, upgrades, ends that are in order and such that are not, and what a
// client is told of servers that it must not trust.
#include "support/in_virtual_time.hpp"
#include "support/reports.hpp"
#include "support/sockets.hpp"
#include "support/temporary_folder.hpp"
#include "support/tls_by_hand.hpp"
#include "support/tls_contexts.hpp"
#include "support/tls_streams.hpp"
#include "support/what_of.hpp"

#include <asyncio/asyncio.hpp>
#include <asyncio/ssl.hpp>
#include <asyncio/testing/cancel_everywhere.hpp>
#include <gtest/gtest.h>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <sys/socket.h>
#include <utility>
#include <vector>

using namespace std::chrono_literals;
namespace ssl = asyncio::ssl;
using asyncio::as_result;
using asyncio::ConnectionOptions;
using asyncio::Coro;
using asyncio::create_task;
using asyncio::ServerOptions;
using asyncio::StreamReader;
using asyncio::StreamWriter;
using asyncio_test::authority;
using asyncio_test::client_context;
using asyncio_test::connect;
using asyncio_test::echo;
using asyncio_test::Issued;
using asyncio_test::port_of;
using asyncio_test::Reports;
using asyncio_test::serve;
using asyncio_test::server_context;
using asyncio_test::stop;
using asyncio_test::TlsByHand;
using asyncio_test::TlsStatus;
using asyncio_test::trusting;
using asyncio_test::Wanted;
using asyncio_test::what_of;

namespace {

// What connecting to a server with this certificate fails with.
Coro<std::string> refusal(Issued issued, ConnectionOptions options) {
    Reports reports(asyncio::get_running_loop());
    auto server = co_await serve(echo, server_context(issued));
    auto task = create_task(connect(port_of(server), options));
    const auto result = co_await as_result(task);
    EXPECT_TRUE(result.failed_with<ssl::CertVerificationError>()) << what_of(result);
    co_await stop(server);
    EXPECT_EQ(reports.count("the TLS handshake with a client failed"), 1U) << reports.text();
    asyncio::get_running_loop().set_exception_handler(nullptr);
    co_return what_of(result);
}

} // namespace

TEST(SslStreams, talk_and_end_in_order) {
    asyncio::run([]() -> Coro<> {
        auto server = co_await serve(echo);
        auto [reader, writer] = co_await connect(port_of(server), trusting());
        EXPECT_FALSE(writer.can_write_eof());
        EXPECT_EQ(writer.get_extra_info(asyncio::ssl_object)->version(), "TLSv1.3");
        writer.write("one\ntwo\n");
        std::string line = co_await reader.readline();
        EXPECT_EQ(line, "one\n");
        line = co_await reader.readuntil("\n");
        EXPECT_EQ(line, "two\n");
        const std::string much(1 << 20, 'x');
        auto writing = create_task([](StreamWriter to, std::string data) -> Coro<> {
            to.write(data);
            co_await to.drain();
        }(writer, much));
        const std::string back = co_await reader.readexactly(much.size());
        EXPECT_TRUE(back == much);
        co_await writing;
        writer.close();
        co_await writer.wait_closed();
        co_await stop(server);
    });
}

TEST(SslStreams, talk_over_a_unix_socket) {
    const asyncio_test::TemporaryFolder folder;
    const std::string path = folder.file("socket");
    asyncio::run([&]() -> Coro<> {
        auto server =
            co_await asyncio::start_unix_server(echo, path, ServerOptions().ssl(server_context()));
        auto [reader, writer] =
            co_await asyncio::open_unix_connection(path, trusting().server_hostname("localhost"));
        EXPECT_NE(writer.get_extra_info(asyncio::ssl_object), nullptr);
        writer.write("GET / HTTP/1.0\r\n\r\n");
        const std::string line = co_await reader.readline();
        EXPECT_EQ(line, "GET / HTTP/1.0\r\n");
        writer.close();
        co_await writer.wait_closed();
        // A path is not what a certificate could be for.
        auto task = create_task(asyncio::open_unix_connection(path, trusting()));
        const auto nameless = co_await as_result(task);
        EXPECT_TRUE(nameless.failed_with<asyncio::ValueError>()) << what_of(nameless);
        co_await stop(server);
    });
}

TEST(SslStreams, are_many_at_once_over_sockets_that_are_given) {
    const std::string first(300'000, 'A');
    const std::string second(300'000, 'B');
    asyncio::run([&]() -> Coro<> {
        const auto handler = [&](StreamReader reader, StreamWriter writer) -> Coro<> {
            std::string data = co_await reader.readexactly(first.size());
            EXPECT_TRUE(data == first);
            writer.write("OK");
            data = co_await reader.readexactly(second.size());
            EXPECT_TRUE(data == second);
            writer.write("SPAM");
            writer.close();
        };
        auto server = co_await serve(handler);
        const asyncio::Address address = server.sockets().at(0);
        const ssl::Context context = client_context();
        int count = 0;
        const auto client = [&]() -> Coro<> {
            asyncio::Socket socket(AF_INET, SOCK_STREAM);
            co_await asyncio::sock_connect(socket, address);
            ConnectionOptions options;
            options.ssl(context).server_hostname("localhost").sock(std::move(socket));
            auto [reader, writer] = co_await asyncio::open_connection(options);
            writer.write(first);
            std::string answer = co_await reader.readexactly(2);
            EXPECT_EQ(answer, "OK");
            writer.write(second);
            answer = co_await reader.readexactly(4);
            EXPECT_EQ(answer, "SPAM");
            writer.close();
            co_await writer.wait_closed();
            ++count;
        };
        std::vector<asyncio::Task<>> all;
        for (int i = 0; i < 25; ++i) all.push_back(create_task(client));
        for (const auto& task : all) co_await task;
        EXPECT_EQ(count, 25);
        co_await stop(server);
    });
}

TEST(SslStreams, tell_who_a_server_is_not_and_for_which_host) {
    asyncio::run([]() -> Coro<> {
        Wanted expired;
        expired.names = {"IP:127.0.0.1"};
        expired.from = -48h;
        expired.until = -24h;
        std::string text = co_await refusal(authority().issue(expired), trusting());
        EXPECT_NE(text.find("127.0.0.1"), std::string::npos) << text;
        EXPECT_NE(text.find("certificate has expired"), std::string::npos) << text;

        Wanted own;
        own.names = {"IP:127.0.0.1"};
        text = co_await refusal(authority().self_signed(own), trusting());
        EXPECT_NE(text.find("self-signed certificate"), std::string::npos) << text;

        Wanted other;
        other.names = {"DNS:other.example"};
        text = co_await refusal(authority().issue(other), trusting());
        EXPECT_NE(text.find("127.0.0.1"), std::string::npos) << text;
        EXPECT_NE(text.find("IP address mismatch"), std::string::npos) << text;

        text = co_await refusal(authority().issue(other),
                                trusting().server_hostname("wanted.example"));
        EXPECT_NE(text.find("wanted.example"), std::string::npos) << text;
        EXPECT_NE(text.find("ostname mismatch"), std::string::npos) << text;
    });
}

TEST(SslStreams, tell_of_servers_that_do_not_speak_tls) {
    asyncio::run([]() -> Coro<> {
        const std::vector<std::pair<std::string, std::string>> cases = {
            {"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak TLS"},
            {std::string("\x16\x03\x01\x00\x04garbage", 12), ""},
            {std::string("\x15\x03\x03\x00\x02\x02\x28", 7), "handshake failure"},
        };
        for (const auto& [answer, told] : cases) {
            const auto handler = [&answer](StreamReader reader, StreamWriter writer) -> Coro<> {
                co_await reader.read(1000);
                writer.write(answer);
                co_await reader.read();
            };
            auto server = co_await asyncio::start_server(handler, "127.0.0.1", 0);
            auto task = create_task(connect(port_of(server), trusting()));
            const auto result = co_await as_result(task);
            EXPECT_TRUE(result.failed_with<ssl::Error>()) << what_of(result);
            EXPECT_NE(what_of(result).find("127.0.0.1"), std::string::npos) << what_of(result);
            EXPECT_NE(what_of(result).find(told), std::string::npos) << what_of(result);
            co_await stop(server);
        }
    });
}

TEST(SslStreams, end_a_handshake_that_takes_too_long_or_is_hung_up_on) {
    asyncio::run([]() -> Coro<> {
        const auto silent = [](StreamReader reader, StreamWriter) -> Coro<> {
            co_await reader.read();
        };
        auto server = co_await asyncio::start_server(silent, "127.0.0.1", 0);
        auto late = create_task(connect(port_of(server), trusting().ssl_handshake_timeout(20ms)));
        const auto result = co_await as_result(late);
        EXPECT_TRUE(result.failed_with<asyncio::TimeoutError>()) << what_of(result);
        co_await stop(server);

        const auto rude = [](StreamReader reader, StreamWriter writer) -> Coro<> {
            co_await reader.read(1000);
            writer.close();
        };
        auto other = co_await asyncio::start_server(rude, "127.0.0.1", 0);
        auto hung_up = create_task(connect(port_of(other), trusting()));
        const auto ended = co_await as_result(hung_up);
        EXPECT_TRUE(ended.failed_with<ssl::EOFError>()) << what_of(ended);
        co_await stop(other);
    });
}

// In whatever order the options are set.
TEST(SslStreams, take_their_timeouts_before_and_after_the_context) {
    asyncio::run([]() -> Coro<> {
        const auto server_options =
            ServerOptions().ssl_handshake_timeout(10s).ssl_shutdown_timeout(10s).ssl(
                server_context());
        auto server = co_await asyncio::start_server(echo, "127.0.0.1", 0, server_options);
        const auto options = ConnectionOptions()
                                 .ssl_shutdown_timeout(10s)
                                 .ssl(client_context())
                                 .ssl_handshake_timeout(10s);
        auto [reader, writer] = co_await connect(port_of(server), options);
        writer.write("hello\n");
        const std::string line = co_await reader.readline();
        EXPECT_EQ(line, "hello\n");
        writer.close();
        co_await writer.wait_closed();
        co_await stop(server);
    });
}

TEST(SslStreams, serve_on_after_clients_that_do_not_speak_tls) {
    asyncio::run([]() -> Coro<> {
        Reports reports(asyncio::get_running_loop());
        auto server = co_await serve(echo);
        const std::vector<std::string> texts = {"GET / HTTP/1.0\r\n\r\n",
                                                "\x16\x03\x01garbage!!!!"};
        for (const std::string& text : texts) {
            auto plain = co_await asyncio::open_connection("127.0.0.1", port_of(server));
            plain.second.write(text);
            plain.second.write_eof();
            static_cast<void>(co_await as_result(plain.first.read()));
        }
        EXPECT_EQ(reports.count(), 2U) << reports.text();
        auto good = co_await connect(port_of(server), trusting());
        good.second.write("hello");
        const std::string text = co_await good.first.readexactly(5);
        EXPECT_EQ(text, "hello");
        good.second.close();
        co_await good.second.wait_closed();
        co_await stop(server);
        asyncio::get_running_loop().set_exception_handler(nullptr);
    });
}

TEST(SslStreams, tell_of_what_is_no_tls_any_more) {
    asyncio::run([]() -> Coro<> {
        std::string told_to_server;
        const auto handler = [&](StreamReader reader, StreamWriter writer) -> Coro<> {
            writer.write("A\n");
            co_await reader.readexactly(1);
            const std::string text = "please corrupt the SSL connection";
            ::send(writer.get_extra_info(asyncio::socket_info).fileno(), text.data(), text.size(),
                   MSG_NOSIGNAL);
            const auto alert = co_await as_result(reader.read());
            told_to_server = what_of(alert);
        };
        auto server = co_await serve(handler);
        auto [reader, writer] = co_await connect(port_of(server), trusting());
        const std::string line = co_await reader.readline();
        EXPECT_EQ(line, "A\n");
        writer.write("B");
        for (int i = 0; i < 2; ++i) {
            const auto garbage = co_await as_result(reader.readline());
            EXPECT_TRUE(garbage.failed_with<ssl::Error>()) << what_of(garbage);
            EXPECT_EQ(what_of(garbage).find("TLS with '127.0.0.1' failed: "), 0U)
                << what_of(garbage);
        }
        writer.close();
        const auto closed = co_await as_result(writer.wait_closed());
        EXPECT_TRUE(closed.failed_with<ssl::Error>()) << what_of(closed);
        co_await stop(server);
        EXPECT_NE(told_to_server.find("the peer sent the alert"), std::string::npos)
            << told_to_server;
    });
}

// Who ends the connection below TLS, as an attacker can, has not said that this was all.
TEST(SslStreams, do_not_take_a_truncated_text_for_a_whole_one) {
    asyncio::run([]() -> Coro<> {
        const auto cut = [](StreamReader reader, StreamWriter writer) -> Coro<> {
            writer.write("half of");
            co_await writer.drain();
            ::shutdown(writer.get_extra_info(asyncio::socket_info).fileno(), SHUT_WR);
            static_cast<void>(co_await as_result(reader.read()));
        };
        auto server = co_await serve(cut);
        auto [reader, writer] = co_await connect(port_of(server), trusting());
        const auto all = co_await as_result(reader.read());
        EXPECT_TRUE(all.failed_with<ssl::EOFError>()) << what_of(all);
        EXPECT_EQ(reader.buffered(), "half of") << "what came is still there";
        writer.close();
        co_await stop(server);
    });
}

// The client's hello is in the reader already when the server turns to TLS.
TEST(SslStreams, are_upgraded_and_keep_what_was_read_too_far) {
    asyncio::run([]() -> Coro<> {
        const auto handler = [](StreamReader reader, StreamWriter writer) -> Coro<> {
            const std::string line = co_await reader.readline();
            EXPECT_EQ(line, "STARTTLS\n");
            const std::string_view hello = co_await reader.peek();
            EXPECT_EQ(hello.front(), '\x16');
            co_await writer.start_tls(server_context());
            writer.write("in secret\n");
            const std::string answer = co_await reader.readline();
            EXPECT_EQ(answer, "so it is\n");
            writer.close();
        };
        auto server = co_await asyncio::start_server(handler, "127.0.0.1", 0);
        auto [reader, writer] = co_await asyncio::open_connection("127.0.0.1", port_of(server));
        writer.write("STARTTLS\n");
        co_await writer.start_tls(client_context(),
                                  asyncio::StartTlsOptions().server_hostname("localhost"));
        EXPECT_NE(writer.get_extra_info(asyncio::ssl_object), nullptr);
        const std::string line = co_await reader.readline();
        EXPECT_EQ(line, "in secret\n");
        writer.write("so it is\n");
        const std::string end = co_await reader.read();
        EXPECT_EQ(end, "");
        writer.close();
        co_await writer.wait_closed();
        co_await stop(server);
    });
}

TEST(SslStreams, are_aborted_when_an_upgrade_fails) {
    asyncio::run([]() -> Coro<> {
        const auto handler = [](StreamReader reader, StreamWriter writer) -> Coro<> {
            const auto upgraded = co_await as_result(writer.start_tls(server_context()));
            EXPECT_TRUE(upgraded.failed_with<ssl::Error>()) << what_of(upgraded);
            EXPECT_TRUE(writer.is_closing());
            static_cast<void>(reader);
        };
        auto server = co_await asyncio::start_server(handler, "127.0.0.1", 0);
        auto [reader, writer] = co_await asyncio::open_connection("127.0.0.1", port_of(server));
        writer.write("this is no TLS at all\n");
        static_cast<void>(co_await as_result(reader.read()));
        writer.close();
        co_await stop(server);
    });
}

TEST(SslStreams, send_what_is_kept_when_they_are_closed) {
    asyncio::run([]() -> Coro<> {
        const std::string much(1 << 20, 'x');
        std::string received;
        asyncio::Event done;
        const auto sink = [&](StreamReader reader, StreamWriter) -> Coro<> {
            co_await asyncio::sleep(20ms);
            received = co_await reader.read();
            done.set();
        };
        auto server = co_await serve(sink);
        auto [reader, writer] = co_await connect(port_of(server), trusting());
        writer.get_extra_info(asyncio::socket_info).setsockopt(SOL_SOCKET, SO_SNDBUF, 10'000);
        writer.write(much);
        EXPECT_GT(writer.get_write_buffer_size(), 0U);
        writer.close();
        writer.write("too late"); // dropped, as without TLS
        co_await writer.wait_closed();
        co_await done.wait();
        EXPECT_TRUE(received == much) << received.size();
        const std::string end = co_await reader.read();
        EXPECT_EQ(end, "");
        co_await stop(server);
    });
}

// A peer may end its side and read on: what it is still to get comes, also through a socket that
// takes little at once.
TEST(SslStreams, send_what_is_kept_though_the_peer_has_ended_its_side) {
    asyncio::run([]() -> Coro<> {
        for (const bool in_order : {true, false}) {
            for (const bool is_slow : {false, true}) {
                SCOPED_TRACE(in_order ? "by a close_notify" : "below TLS");
                auto both = co_await asyncio_test::connected();
                if (is_slow) both.first.setsockopt(SOL_SOCKET, SO_SNDBUF, 10'000);
                ConnectionOptions options = trusting();
                options.server_hostname("localhost").sock(std::move(both.first));
                auto opening = create_task(asyncio::open_connection(options));
                TlsByHand peer(std::move(both.second), server_context());
                co_await peer.handshake();
                auto [reader, writer] = co_await opening;
                const std::string much(is_slow ? 1 << 20 : 16 << 20, 'x');
                writer.write(much);
                EXPECT_GT(writer.get_write_buffer_size(), 0U);
                if (in_order) {
                    co_await peer.end_tls();
                } else {
                    peer.socket().shutdown(SHUT_WR);
                }
                const auto end = co_await as_result(reader.read());
                if (in_order) {
                    EXPECT_EQ(*end, "");
                } else {
                    EXPECT_TRUE(end.failed_with<ssl::EOFError>()) << what_of(end);
                }
                EXPECT_GT(writer.get_write_buffer_size(), 0U);
                writer.close();
                const std::string received = co_await peer.rest();
                EXPECT_TRUE(received == much) << received.size();
                EXPECT_EQ(peer.status(), in_order ? TlsStatus::closed : TlsStatus::failed);
                const auto closed = co_await as_result(writer.wait_closed());
                EXPECT_EQ(closed.failed_with<ssl::EOFError>(), !in_order) << what_of(closed);
                EXPECT_EQ(closed.has_value(), in_order) << what_of(closed);
            }
        }
    });
}

TEST(SslStreams, that_are_closed_do_not_wait_for_a_peer_that_has_ended_and_takes_nothing) {
    asyncio::run([]() -> Coro<> {
        for (const bool in_order : {true, false}) {
            SCOPED_TRACE(in_order ? "by a close_notify" : "below TLS");
            auto both = co_await asyncio_test::connected();
            ConnectionOptions options = trusting();
            options.server_hostname("localhost")
                .ssl_shutdown_timeout(50ms)
                .sock(std::move(both.first));
            auto opening = create_task(asyncio::open_connection(options));
            TlsByHand peer(std::move(both.second), server_context());
            co_await peer.handshake();
            auto [reader, writer] = co_await opening;
            writer.write(std::string(16 << 20, 'x'));
            if (in_order) {
                co_await peer.end_tls();
            } else {
                peer.socket().shutdown(SHUT_WR);
            }
            static_cast<void>(co_await as_result(reader.read()));
            EXPECT_GT(writer.get_write_buffer_size(), 0U);
            writer.close();
            const auto closed = co_await as_result(asyncio::wait_for(writer.wait_closed(), 10s));
            EXPECT_TRUE(closed.failed_with<asyncio::TimeoutError>()) << what_of(closed);
            EXPECT_EQ(what_of(closed).find("SSL shutdown timed out: "), 0U) << what_of(closed);
            writer.abort();
        }
    });
}

namespace {

bool kernel_is_full = false;

asyncio::RunOptions with_a_kernel_that_may_be_full() {
    static const asyncio::SystemCalls table = [] {
        asyncio::SystemCalls t = asyncio::SystemCalls::real();
        t.send = [](int descriptor, const void* data, std::size_t size, int flags) -> ssize_t {
            if (!kernel_is_full) return ::send(descriptor, data, size, flags);
            errno = EAGAIN;
            return -1;
        };
        return t;
    }();
    return asyncio::RunOptions().loop(asyncio::LoopOptions().system_calls(table));
}

} // namespace

// Nothing is kept, but there is no room for the close_notify.
TEST(SslStreams, that_are_closed_do_not_wait_for_a_peer_that_has_ended_and_takes_no_close_notify) {
    asyncio::run(with_a_kernel_that_may_be_full(), []() -> Coro<> {
        auto both = co_await asyncio_test::connected();
        ConnectionOptions options = trusting();
        options.server_hostname("localhost").ssl_shutdown_timeout(50ms).sock(std::move(both.first));
        auto opening = create_task(asyncio::open_connection(options));
        TlsByHand peer(std::move(both.second), server_context());
        co_await peer.handshake();
        auto [reader, writer] = co_await opening;
        co_await peer.end_tls();
        const std::string end = co_await reader.read();
        EXPECT_EQ(end, "");
        kernel_is_full = true;
        writer.close();
        const auto closed = co_await as_result(asyncio::wait_for(writer.wait_closed(), 2s));
        kernel_is_full = false;
        EXPECT_EQ(what_of(closed).find("SSL shutdown timed out: "), 0U) << what_of(closed);
        writer.abort();
    });
}

TEST(SslStreams, send_what_is_kept_while_they_read) {
    asyncio::run([]() -> Coro<> {
        const std::string much(1 << 20, 'x');
        std::size_t sent = 0;
        const auto source = [&](StreamReader reader, StreamWriter writer) -> Coro<> {
            writer.get_extra_info(asyncio::socket_info).setsockopt(SOL_SOCKET, SO_SNDBUF, 10'000);
            writer.write(much);
            const std::string end = co_await reader.read();
            EXPECT_EQ(end, "bye");
            sent = much.size() - writer.get_write_buffer_size();
            writer.close();
            co_await writer.wait_closed();
        };
        auto server = co_await serve(source);
        auto [reader, writer] = co_await connect(port_of(server), trusting());
        const std::string first = co_await reader.readexactly(1000);
        writer.write("bye");
        const std::string rest = co_await reader.readexactly(much.size() - 1000);
        EXPECT_TRUE(first + rest == much);
        writer.close();
        co_await writer.wait_closed();
        co_await stop(server);
        EXPECT_GT(sent, 0U);
    });
}

TEST(SslStreams, are_many_at_once_and_take_lists_of_pieces) {
    asyncio::run([]() -> Coro<> {
        auto server = co_await serve(echo);
        const ConnectionOptions options = trusting();
        std::vector<asyncio::Task<>> all;
        const auto talk = [&](int number) -> Coro<> {
            auto [reader, writer] = co_await connect(port_of(server), options);
            const std::string middle = std::to_string(number);
            const std::vector<asyncio::ReadableBytes> pieces = {"number ", middle, "\n"};
            for (int i = 0; i < 10; ++i) {
                writer.writelines(std::span<const asyncio::ReadableBytes>(pieces));
                const std::string line = co_await reader.readline();
                EXPECT_EQ(line, "number " + middle + "\n");
            }
            writer.close();
            co_await writer.wait_closed();
        };
        for (int i = 0; i < 40; ++i) all.push_back(create_task(talk, i));
        for (const auto& task : all) co_await task;
        co_await stop(server);
    });
}

TEST(SslStreams, are_not_upgraded_while_somebody_reads) {
    asyncio::run([]() -> Coro<> {
        auto plain = co_await asyncio::start_server(echo, "127.0.0.1", 0);
        auto [from, to] = co_await asyncio::open_connection("127.0.0.1", port_of(plain));
        auto reading = create_task([](StreamReader it) -> Coro<std::string> {
            std::string data = co_await it.read(5);
            co_return data;
        }(from));
        co_await asyncio::sleep(0);
        const auto during = co_await as_result(to.start_tls(client_context()));
        EXPECT_TRUE(what_of(during).starts_with("start_tls() while a coroutine waits"))
            << what_of(during);
        to.write("still");
        const std::string text = co_await reading;
        EXPECT_EQ(text, "still");
        to.close();
        co_await to.wait_closed();
        co_await stop(plain);
    });
}

// What was written goes out all the same.
TEST(SslStreams, are_not_upgraded_when_they_are_closed) {
    asyncio::run([]() -> Coro<> {
        const std::string much(4 << 20, 'x');
        for (const bool in_tls : {false, true}) {
            SCOPED_TRACE(in_tls);
            auto both = co_await asyncio_test::connected();
            ConnectionOptions options = in_tls ? trusting() : ConnectionOptions();
            if (in_tls) options.server_hostname("localhost");
            options.sock(std::move(both.first));
            auto opening = create_task(asyncio::open_connection(options));
            TlsByHand peer(std::move(both.second), server_context());
            if (in_tls) co_await peer.handshake();
            auto [reader, writer] = co_await opening;
            writer.set_write_buffer_limits(2 * much.size());
            writer.write(much);
            EXPECT_GT(writer.get_write_buffer_size(), 0U);
            writer.close();
            const auto upgraded = co_await as_result(writer.start_tls(
                client_context(), asyncio::StartTlsOptions().server_hostname("localhost")));
            EXPECT_TRUE(upgraded.failed_with<asyncio::RuntimeError>()) << what_of(upgraded);
            std::string received;
            if (in_tls) {
                received = co_await peer.rest();
                EXPECT_EQ(peer.status(), TlsStatus::closed);
                co_await peer.end_tls();
            } else {
                received = co_await asyncio_test::receive_all(peer.socket());
            }
            EXPECT_TRUE(received == much) << received.size();
            co_await writer.wait_closed();
        }
    });
}

TEST(SslStreams, whose_upgrade_is_cancelled_or_takes_too_long_are_aborted) {
    asyncio::run([]() -> Coro<> {
        const auto silent = [](StreamReader reader, StreamWriter) -> Coro<> {
            static_cast<void>(co_await as_result(reader.read()));
        };
        auto server = co_await asyncio::start_server(silent, "127.0.0.1", 0);
        auto late = co_await asyncio::open_connection("127.0.0.1", port_of(server));
        const auto timed_out = co_await as_result(late.second.start_tls(
            client_context(), asyncio::StartTlsOptions().ssl_handshake_timeout(20ms)));
        EXPECT_TRUE(timed_out.failed_with<asyncio::TimeoutError>()) << what_of(timed_out);
        EXPECT_TRUE(late.second.is_closing());

        auto other = co_await asyncio::open_connection("127.0.0.1", port_of(server));
        auto upgrading = create_task([](StreamWriter writer) -> Coro<> {
            co_await writer.start_tls(client_context());
        }(other.second));
        co_await asyncio::sleep(5ms);
        upgrading.cancel();
        const auto cancelled = co_await as_result(upgrading);
        EXPECT_TRUE(cancelled.failed_with<asyncio::CancelledError>()) << what_of(cancelled);
        EXPECT_TRUE(other.second.is_closing());
        server.close();
        co_await server.wait_closed(); // both are gone
    });
}

namespace {

// The session of a connection that has read something, which is when TLS 1.3 has one.
Coro<ssl::Session> session_with(std::uint16_t port, ConnectionOptions options, bool expected) {
    auto [reader, writer] = co_await connect(port, options);
    writer.write("x");
    co_await reader.readexactly(1);
    const ssl::Object* object = writer.get_extra_info(asyncio::ssl_object);
    EXPECT_EQ(object->session_reused(), expected) << object->version();
    ssl::Session session = object->session();
    writer.close();
    co_await writer.wait_closed();
    co_return session;
}

} // namespace

TEST(SslStreams, resume_a_session_that_is_given) {
    for (const ssl::TLSVersion version : {ssl::TLSVersion::TLSv1_2, ssl::TLSVersion::TLSv1_3}) {
        Reports reports; // clients that are refused hang up
        asyncio::run([&]() -> Coro<> {
            reports.watch(asyncio::get_running_loop());
            auto server = co_await serve(echo);
            ssl::Context context = client_context();
            context.set_maximum_version(version);
            ConnectionOptions options;
            options.ssl(context).ssl_session(ssl::Session()); // none
            ssl::Session session = co_await session_with(port_of(server), options, false);
            EXPECT_TRUE(session);
            options.ssl_session(session);
            session = co_await session_with(port_of(server), options, true);

            options.ssl(client_context());
            auto task = create_task(connect(port_of(server), options));
            const auto foreign = co_await as_result(task);
            EXPECT_TRUE(foreign.failed_with<asyncio::ValueError>());
            EXPECT_EQ(what_of(foreign), "Session refers to a different SSLContext.");
            options.ssl(context).server_hostname("localhost");
            auto other = create_task(connect(port_of(server), options));
            const auto elsewhere = co_await as_result(other);
            EXPECT_EQ(what_of(elsewhere), "the session is one with '127.0.0.1', and cannot be "
                                          "resumed with 'localhost'");
            co_await stop(server);
        });
    }
}

TEST(SslStreams, resume_a_session_when_they_are_upgraded) {
    Reports reports;
    asyncio::run([&]() -> Coro<> {
        reports.watch(asyncio::get_running_loop());
        const ssl::Context serving = server_context();
        const auto upgrading = [&](StreamReader reader, StreamWriter writer) -> Coro<> {
            co_await writer.start_tls(serving);
            co_await echo(reader, writer);
        };
        auto server = co_await asyncio::start_server(upgrading, "127.0.0.1", 0);
        const ssl::Context context = client_context();
        asyncio::StartTlsOptions options;
        for (const bool expected : {false, true}) {
            auto [reader, writer] = co_await asyncio::open_connection("127.0.0.1", port_of(server));
            co_await writer.start_tls(context, options);
            writer.write("x");
            co_await reader.readexactly(1);
            const ssl::Object* object = writer.get_extra_info(asyncio::ssl_object);
            EXPECT_EQ(object->session_reused(), expected);
            options.ssl_session(object->session());
            writer.close();
            co_await writer.wait_closed();
        }
        // Which is nothing of a server's, nor of a connection without TLS.
        auto [reader, writer] = co_await asyncio::open_connection("127.0.0.1", port_of(server));
        auto as_server = options;
        as_server.server_side(true);
        const auto refused = co_await as_result(writer.start_tls(serving, as_server));
        EXPECT_TRUE(refused.failed_with<asyncio::ValueError>());
        EXPECT_EQ(what_of(refused), "ssl_session is only meaningful with a client's side of TLS");
        writer.close();
        ConnectionOptions plain;
        plain.ssl_session(*options.ssl_session());
        auto task = create_task(connect(port_of(server), plain));
        const auto without = co_await as_result(task);
        EXPECT_TRUE(without.failed_with<asyncio::ValueError>());
        EXPECT_EQ(what_of(without), "ssl_session is only meaningful with ssl");
        server.close();
        server.abort_clients();
        co_await server.wait_closed();
    });
}

TEST(SslStreams, may_be_cancelled_at_every_await) {
    const ssl::Context of_server = server_context();
    const ssl::Context of_client = client_context();
    const int cancels = asyncio::testing::cancel_everywhere(
        [&](asyncio::testing::LeakToken token) -> Coro<> {
            asyncio::get_running_loop().set_exception_handler(
                [](asyncio::EventLoop&, const asyncio::ExceptionContext&) {});
            static_cast<void>(token);
            auto server = co_await asyncio::start_server(echo, "127.0.0.1", 0,
                                                         ServerOptions().ssl(of_server));
            ConnectionOptions options;
            options.ssl(of_client).server_hostname("localhost");
            std::exception_ptr failure;
            try {
                auto [reader, writer] = co_await connect(port_of(server), options);
                writer.write("hello");
                const std::string text = co_await reader.readexactly(5);
                EXPECT_EQ(text, "hello");
                writer.close();
                co_await writer.wait_closed();
            } catch (...) {
                failure = std::current_exception();
            }
            server.close();
            server.abort_clients();
            co_await server.wait_closed();
            if (failure != nullptr) std::rethrow_exception(failure);
        },
        asyncio::testing::CancelOptions().may_leave_tasks(true));
    EXPECT_GT(cancels, 5);
}

// Not taken for the time that the handshake may take.
TEST(SslStreams, tell_a_timeout_that_the_servername_callback_throws_as_it_is) {
    ssl::Context context = server_context();
    context.set_servername_callback(
        [](auto&, auto, auto&) { throw asyncio::TimeoutError("the list of hosts is slow"); });
    std::string told;
    asyncio::run([&]() -> Coro<> {
        asyncio::get_running_loop().set_exception_handler(
            [&](asyncio::EventLoop&, const asyncio::ExceptionContext& report) {
                told += asyncio_test::text_of(report.exception);
            });
        auto server = co_await serve(echo, context);
        const auto result =
            co_await as_result(connect(port_of(server), ConnectionOptions().ssl(client_context())));
        EXPECT_NE(result.exception(), nullptr);
        for (int i = 0; i < 1000 && told.empty(); ++i) co_await asyncio::sleep(1ms);
        server.close();
    });
    EXPECT_EQ(told, "exception: the list of hosts is slow");
}

TEST(SslStreams, are_not_begun_after_the_end_of_our_side) {
    asyncio::run([]() -> Coro<> {
        auto both = asyncio::Socket::pair();
        auto streams =
            co_await asyncio::open_connection(ConnectionOptions().sock(std::move(both.first)));
        streams.second.write_eof();
        const ssl::Context context = client_context();
        const auto options = asyncio::StartTlsOptions().server_hostname("localhost");
        const auto result = co_await as_result(streams.second.start_tls(context, options));
        EXPECT_TRUE(result.failed_with<asyncio::RuntimeError>());
    });
}
