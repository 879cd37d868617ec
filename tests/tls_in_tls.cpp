// SPDX-License-Identifier: MIT
// TLS inside of TLS, as it is spoken through a proxy that speaks TLS itself.
#include "support/protocols.hpp"
#include "support/reports.hpp"
#include "support/some_bytes.hpp"
#include "support/tls_contexts.hpp"
#include "support/tls_streams.hpp"

#include <asyncio/asyncio.hpp>
#include <asyncio/ssl.hpp>
#include <asyncio/testing/cancel_everywhere.hpp>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <exception>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

using namespace std::chrono_literals;
namespace ssl = asyncio::ssl;
using asyncio::as_result;
using asyncio::ConnectionOptions;
using asyncio::Coro;
using asyncio::create_task;
using asyncio::ServerOptions;
using asyncio::StartTlsOptions;
using asyncio::StreamReader;
using asyncio::StreamWriter;
using asyncio_test::authority;
using asyncio_test::client_context;
using asyncio_test::connect;
using asyncio_test::echo;
using asyncio_test::port_of;
using asyncio_test::Recorder;
using asyncio_test::Reports;
using asyncio_test::serve;
using asyncio_test::server_context;
using asyncio_test::some_bytes;
using asyncio_test::stop;
using asyncio_test::until;
using asyncio_test::what_of;

namespace {

constexpr std::size_t mebibyte = 1 << 20;

// Of a server that is not asked for by its address.
ssl::Context inner_server() {
    static const asyncio_test::Issued issued = authority().issue({.names = {"DNS:inner.example"}});
    return server_context(issued);
}

// Both ends of TLS in one place: it asks for "inner" in the outer one.
Coro<> echo_inside(StreamReader reader, StreamWriter writer) {
    for (;;) {
        const std::string line = co_await reader.readline();
        if (line != "CONNECT\n") break;
        writer.write("200\n");
        co_await writer.start_tls(inner_server());
    }
    co_await echo(reader, writer);
}
StartTlsOptions inner() { return StartTlsOptions().server_hostname("inner.example"); }

Coro<> ask(StreamReader reader, StreamWriter writer, std::string request = "CONNECT\n") {
    writer.write(request);
    const std::string answer = co_await reader.readline();
    EXPECT_EQ(answer, "200\n");
}

Coro<> write_in_pieces(StreamWriter writer, std::string data) {
    std::size_t size = 1;
    for (std::size_t at = 0; at < data.size(); at += size, size = size * 7 % 40'009) {
        writer.write(std::string_view(data).substr(at, size));
        co_await writer.drain();
    }
}
Coro<> expect_echo(StreamReader reader, StreamWriter writer) {
    const std::string data = some_bytes(mebibyte);
    auto writing = create_task(write_in_pieces(writer, data));
    std::string back;
    std::size_t size = 1;
    while (back.size() < data.size()) {
        const std::size_t wanted = std::min(size, data.size() - back.size());
        const std::string piece = co_await reader.readexactly(wanted);
        back += piece;
        size = size * 11 % 50'021;
    }
    co_await writing;
    EXPECT_TRUE(back == data);
}

} // namespace

TEST(TlsInTls, carries_data_both_ways_and_ends_in_order) {
    Reports reports;
    asyncio::run([&]() -> Coro<> {
        reports.watch(asyncio::get_running_loop());
        auto server = co_await serve(echo_inside);
        {
            auto [reader, writer] = co_await connect(port_of(server));
            const ssl::Object* outer = writer.get_extra_info(asyncio::ssl_object);
            co_await ask(reader, writer);
            co_await writer.start_tls(client_context(), inner());
            const ssl::Object* object = writer.get_extra_info(asyncio::ssl_object);
            EXPECT_NE(object, outer);
            EXPECT_EQ(object->server_hostname(), "inner.example");
            EXPECT_EQ(outer->server_hostname(), "127.0.0.1"); // it is still there
            EXPECT_FALSE(writer.can_write_eof());
            writer.write("\n");
            co_await expect_echo(reader, writer);
            writer.close();
            co_await writer.wait_closed();
        }
        co_await stop(server);
        EXPECT_EQ(reports.text(), "");
    });
}

TEST(TlsInTls, is_spoken_at_three_levels_and_more) {
    asyncio::run([]() -> Coro<> {
        auto server = co_await serve(echo_inside);
        {
            auto [reader, writer] = co_await connect(port_of(server));
            for (int level = 0; level < 4; ++level) {
                co_await ask(reader, writer);
                co_await writer.start_tls(client_context(), inner());
            }
            writer.write("\n");
            co_await expect_echo(reader, writer);
            writer.close();
            co_await writer.wait_closed();
        }
        co_await stop(server);
    });
}

// The hello comes with the outer plain text before it.
TEST(TlsInTls, begins_with_what_was_read_too_far) {
    asyncio::run([]() -> Coro<> {
        const auto handler = [](StreamReader reader, StreamWriter writer) -> Coro<> {
            const std::string line = co_await reader.readline();
            EXPECT_EQ(line, "CONNECT\n");
            const std::string_view hello = co_await reader.peek();
            EXPECT_EQ(hello.front(), '\x16');
            co_await writer.start_tls(inner_server());
            writer.write("in secret\n");
            writer.close();
        };
        auto server = co_await serve(handler);
        {
            auto [reader, writer] = co_await connect(port_of(server));
            writer.write("CONNECT\n");
            co_await writer.start_tls(client_context(), inner());
            const std::string all = co_await reader.read();
            EXPECT_EQ(all, "in secret\n");
            writer.close();
            co_await writer.wait_closed();
        }
        co_await stop(server);
    });
}

// Whoever ends the outer one has not said that the text inside is whole; nor has the network.
TEST(TlsInTls, does_not_take_a_truncated_text_for_a_whole_one) {
    for (const bool in_order : {true, false}) {
        asyncio::run([&]() -> Coro<> {
            // A proxy: it passes on what the inner server says, but not its end.
            auto target = co_await asyncio::start_server(
                [](StreamReader reader, StreamWriter writer) -> Coro<> {
                    co_await writer.start_tls(inner_server());
                    writer.write("half of it");
                    static_cast<void>(co_await as_result(reader.read()));
                },
                "127.0.0.1", 0);
            const std::uint16_t port = port_of(target);
            const auto proxy = [&](StreamReader reader, StreamWriter writer) -> Coro<> {
                auto there = co_await asyncio::open_connection("127.0.0.1", port);
                auto up = create_task([](StreamReader from, StreamWriter to) -> Coro<> {
                    for (;;) {
                        const std::string data = co_await from.read(65536);
                        if (data.empty()) break;
                        to.write(data);
                    }
                }(reader, there.second));
                for (;;) {
                    auto data =
                        co_await as_result(asyncio::wait_for(there.first.read(65536), 200ms));
                    if (!data.has_value()) break;
                    writer.write(data.value());
                }
                if (in_order) {
                    writer.close();
                } else {
                    co_await writer.drain();
                    writer.abort();
                }
                up.cancel();
                static_cast<void>(co_await as_result(up));
                there.second.abort();
            };
            auto server = co_await serve(proxy);
            {
                auto [reader, writer] = co_await connect(port_of(server));
                co_await writer.start_tls(client_context(), inner());
                const std::string half = co_await reader.readexactly(10);
                EXPECT_EQ(half, "half of it");
                const auto rest = co_await as_result(reader.read());
                EXPECT_TRUE(rest.failed_with<ssl::EOFError>()) << what_of(rest);
                const std::string name = in_order ? "inner.example" : "127.0.0.1";
                EXPECT_NE(what_of(rest).find(name), std::string::npos) << what_of(rest);
                writer.close();
                static_cast<void>(co_await as_result(writer.wait_closed()));
            }
            co_await stop(server);
            co_await stop(target);
        });
    }
}

TEST(TlsInTls, tells_who_the_inner_server_is_not) {
    asyncio::run([]() -> Coro<> {
        auto told = std::make_shared<std::string>();
        const auto handler = [told](StreamReader, StreamWriter writer) -> Coro<> {
            const auto upgraded = co_await as_result(writer.start_tls(inner_server()));
            *told = what_of(upgraded);
        };
        auto server = co_await serve(handler);
        auto [reader, writer] = co_await connect(port_of(server));
        const auto refused = co_await as_result(
            writer.start_tls(client_context(), StartTlsOptions().server_hostname("other.example")));
        EXPECT_TRUE(refused.failed_with<ssl::CertVerificationError>());
        EXPECT_EQ(what_of(refused),
                  "certificate verify failed for 'other.example': Hostname mismatch, certificate "
                  "is not valid for 'other.example'");
        EXPECT_TRUE(writer.is_closing());
        // The alert has gone through the outer one.
        co_await until([&] { return !told->empty(); });
        EXPECT_NE(told->find("the peer sent the alert"), std::string::npos) << *told;
        co_await stop(server);
    });
}

TEST(TlsInTls, tells_of_an_outer_end_during_the_handshake) {
    asyncio::run([]() -> Coro<> {
        auto server = co_await serve([](StreamReader, StreamWriter writer) -> Coro<> {
            writer.close();
            co_return;
        });
        auto [reader, writer] = co_await connect(port_of(server));
        const auto ended = co_await as_result(writer.start_tls(client_context(), inner()));
        EXPECT_TRUE(ended.failed_with<ssl::EOFError>());
        EXPECT_EQ(what_of(ended),
                  "the TLS handshake with 'inner.example' failed: the peer closed the connection "
                  "during the handshake");
        co_await stop(server);
    });
}

TEST(TlsInTls, is_aborted_by_a_cancel_and_by_time_and_refuses_what_comes_meanwhile) {
    Reports reports;
    asyncio::run([&]() -> Coro<> {
        reports.watch(asyncio::get_running_loop());
        const auto silent = [](StreamReader reader, StreamWriter) -> Coro<> {
            static_cast<void>(co_await as_result(reader.read()));
        };
        auto server = co_await serve(silent);
        {
            auto [reader, writer] = co_await connect(port_of(server));
            const auto late = co_await as_result(
                writer.start_tls(client_context(), inner().ssl_handshake_timeout(20ms)));
            EXPECT_TRUE(late.failed_with<asyncio::TimeoutError>());
            EXPECT_TRUE(writer.is_closing());
        }
        auto [reader, writer] = co_await connect(port_of(server));
        auto upgrading = create_task([](StreamWriter to) -> Coro<> {
            co_await to.start_tls(client_context(), inner());
        }(writer));
        co_await asyncio::sleep(5ms);
        EXPECT_THROW(writer.write("too early"), asyncio::RuntimeError);
        const auto twice = co_await as_result(writer.start_tls(client_context(), inner()));
        EXPECT_TRUE(twice.failed_with<asyncio::RuntimeError>());
        EXPECT_EQ(what_of(twice),
                  "start_tls() while the handshake of TLS is under way: await it first");
        upgrading.cancel();
        const auto cancelled = co_await as_result(upgrading);
        EXPECT_TRUE(cancelled.failed_with<asyncio::CancelledError>());
        EXPECT_TRUE(writer.is_closing());
        co_await stop(server);
    });
}

TEST(TlsInTls, fails_to_begin_on_a_connection_that_is_closed_meanwhile) {
    asyncio::run([]() -> Coro<> {
        const auto silent = [](StreamReader reader, StreamWriter) -> Coro<> {
            static_cast<void>(co_await as_result(reader.read()));
        };
        auto server = co_await serve(silent);
        for (const bool in_order : {true, false}) {
            auto [reader, writer] = co_await connect(port_of(server));
            auto upgrading = create_task([](StreamWriter to) -> Coro<> {
                co_await to.start_tls(client_context(), inner());
            }(writer));
            co_await asyncio::sleep(5ms);
            if (in_order) {
                writer.close();
            } else {
                writer.abort();
            }
            const auto closed = co_await as_result(upgrading);
            EXPECT_NE(what_of(closed).find("the connection was closed meanwhile"),
                      std::string::npos)
                << what_of(closed);
            const std::string end = co_await reader.read();
            EXPECT_EQ(end, "");
        }
        co_await stop(server);
    });
}

namespace {

auto echo_inside(const ssl::Context& inside) {
    return [&inside](StreamReader reader, StreamWriter writer) -> Coro<> {
        co_await writer.start_tls(inside);
        co_await echo(reader, writer);
    };
}

} // namespace

TEST(TlsInTls, may_be_cancelled_at_every_await) {
    const ssl::Context of_server = server_context();
    const ssl::Context of_client = client_context();
    const ssl::Context inside = inner_server();
    const auto handler = echo_inside(inside);
    const int cancels = asyncio::testing::cancel_everywhere(
        [&](asyncio::testing::LeakToken token) -> Coro<> {
            asyncio::get_running_loop().set_exception_handler(
                [](asyncio::EventLoop&, const asyncio::ExceptionContext&) {});
            static_cast<void>(token);
            auto server = co_await serve(handler, of_server);
            std::exception_ptr failure;
            try {
                auto [reader, writer] =
                    co_await connect(port_of(server), ConnectionOptions().ssl(of_client));
                co_await writer.start_tls(of_client, inner());
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
    EXPECT_GT(cancels, 8);
}

// A peer that takes part in the handshake of the inner session, and in nothing after that.
TEST(TlsInTls, does_not_wait_for_ever_for_a_peer_that_does_not_answer_its_end) {
    asyncio::run([]() -> Coro<> {
        const auto handler = [](StreamReader, StreamWriter writer) -> Coro<> {
            co_await writer.start_tls(inner_server());
            co_await asyncio::create_future<int>();
        };
        auto server = co_await serve(handler);
        {
            auto [reader, writer] = co_await connect(port_of(server));
            co_await writer.start_tls(client_context(), inner().ssl_shutdown_timeout(50ms));
            writer.close();
            const auto closed = co_await as_result(asyncio::wait_for(writer.wait_closed(), 10s));
            EXPECT_EQ(what_of(closed).find("SSL shutdown timed out: "), 0U) << what_of(closed);
        }
        server.close();
        server.abort_clients();
    });
}

TEST(TlsInTls, is_dropped_with_a_loop_that_closes_wherever_it_is) {
    const ssl::Context of_server = server_context();
    const ssl::Context of_client = client_context();
    const ssl::Context inside = inner_server();
    const auto handler = echo_inside(inside);
    const auto talk = [&]() -> Coro<> {
        auto server = co_await serve(handler, of_server);
        auto [reader, writer] =
            co_await connect(port_of(server), ConnectionOptions().ssl(of_client));
        co_await writer.start_tls(of_client, inner());
        writer.write(std::string(100'000, 'x'));
        co_await reader.readexactly(50'000);
        writer.close();
        co_await writer.wait_closed();
    };
    bool is_over = false;
    for (int count = 0; !is_over; ++count) {
        ASSERT_LT(count, 1000);
        Reports reports; // of tasks that the loop ends
        const auto loop = asyncio::new_event_loop();
        reports.watch(*loop);
        const auto task = create_task(*loop, talk());
        asyncio::run_until_complete(*loop, asyncio_test::turns(count));
        is_over = task.done();
        if (is_over) {
            EXPECT_EQ(task.exception(), nullptr);
        }
        loop->close();
    }
}

TEST(TlsInTls, upgrades_transports) {
    struct Inside : Recorder {
        void data_received(std::string_view data) override {
            transport.write(data);
            Recorder::data_received(data);
        }
    };
    struct Upgrading : Recorder {
        std::shared_ptr<Inside> secure = std::make_shared<Inside>();
        void data_received(std::string_view data) override {
            Recorder::data_received(data);
            const std::size_t end = received.find('\n');
            if (end == std::string::npos) return;
            transport.pause_reading();
            static_cast<void>(create_task(upgrade(received.substr(end + 1))));
        }
        Coro<> upgrade(std::string rest) {
            const auto options = StartTlsOptions().received(rest);
            const ssl::Context context = inner_server();
            secure->transport = transport;
            co_await asyncio::start_tls(transport, secure, context, options);
            transport = asyncio::Transport();
        }
    };
    asyncio::run([]() -> Coro<> {
        auto upgrading = std::make_shared<Upgrading>();
        const auto factory = [&] { return upgrading; };
        auto server = co_await asyncio::create_server(factory, "127.0.0.1", 0,
                                                      ServerOptions().ssl(server_context()));
        const std::uint16_t port = port_of(server);
        const auto recorder = [] { return std::make_unique<Recorder>(); };
        auto created = co_await asyncio::create_connection(
            recorder, "127.0.0.1", port, ConnectionOptions().ssl(client_context()));
        auto& [transport, plain] = created;
        transport.write("CONNECT\n");
        auto secure = std::make_shared<Recorder>();
        const ssl::Context context = client_context();
        const StartTlsOptions options = inner();
        auto task = create_task(asyncio::start_tls(transport, secure, context, options));
        co_await asyncio::sleep(0);
        auto meanwhile = create_task(asyncio::start_tls(transport, secure, context, options));
        auto twice = co_await as_result(meanwhile);
        EXPECT_TRUE(twice.failed_with<asyncio::RuntimeError>()) << what_of(twice);
        co_await task;
        EXPECT_EQ(transport.get_extra_info(asyncio::ssl_object)->server_hostname(),
                  "inner.example");
        const std::string data = some_bytes(mebibyte);
        std::size_t size = 1;
        for (std::size_t at = 0; at < data.size(); at += size, size = size * 7 % 40'009)
            transport.write(std::string_view(data).substr(at, size));
        co_await until([&] { return secure->received.size() == data.size(); });
        EXPECT_TRUE(secure->received == data);
        EXPECT_TRUE(upgrading->secure->received == data);
        EXPECT_EQ(plain->received, "");
        transport.close();
        co_await until([&] { return secure->is_lost() && upgrading->secure->is_lost(); });
        EXPECT_EQ(secure->loss, nullptr) << what_of(secure->loss);
        EXPECT_EQ(upgrading->secure->loss, nullptr) << what_of(upgrading->secure->loss);
        EXPECT_TRUE(upgrading->secure->has("eof"));
        co_await stop(server);
    });
}

TEST(TlsInTls, of_a_transport_that_fails_is_lost) {
    asyncio::run([]() -> Coro<> {
        const auto factory = [] { return std::make_unique<Recorder>(); };
        auto server = co_await asyncio::create_server(factory, "127.0.0.1", 0,
                                                      ServerOptions().ssl(server_context()));
        const std::uint16_t port = port_of(server);
        auto created = co_await asyncio::create_connection(
            factory, "127.0.0.1", port, ConnectionOptions().ssl(client_context()));
        auto secure = std::make_shared<Recorder>();
        const ssl::Context context = client_context();
        const StartTlsOptions options = inner().ssl_handshake_timeout(20ms);
        auto task = create_task(asyncio::start_tls(created.transport, secure, context, options));
        auto late = co_await as_result(task);
        EXPECT_TRUE(late.failed_with<asyncio::TimeoutError>()) << what_of(late);
        co_await until([&] { return secure->is_lost(); });
        co_await stop(server);
    });
}
