// SPDX-License-Identifier: MIT
// Transports over TLS: handshakes, upgrades, ends in order and not in order.
#include "support/protocols.hpp"
#include "support/tls_by_hand.hpp"
#include "support/tls_contexts.hpp"

#include <asyncio/asyncio.hpp>
#include <asyncio/ssl.hpp>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <sys/socket.h>
#include <vector>

using namespace std::chrono_literals;
namespace ssl = asyncio::ssl;
using asyncio::ConnectionOptions;
using asyncio::Coro;
using asyncio::ServerOptions;
using asyncio::StartTlsOptions;
using asyncio::Transport;
using asyncio_test::client_context;
using asyncio_test::Recorder;
using asyncio_test::Recording;
using asyncio_test::server_context;
using asyncio_test::TlsByHand;
using asyncio_test::turns;
using asyncio_test::until;
using asyncio_test::what_of;
using Events = std::vector<std::string>;

namespace {

struct Echo : Recorder {
    void data_received(std::string_view data) override {
        transport.write(data);
        Recorder::data_received(data);
    }
};

struct Buffered : Recording<asyncio::BufferedProtocol> {
    std::string received;
    char buffer[7];
    asyncio::WritableBytes get_buffer(std::ptrdiff_t) override { return buffer; }
    void buffer_updated(std::size_t count) override { received.append(buffer, count); }
};

struct Told {
    std::vector<std::string> messages;
    Told() {
        asyncio::get_running_loop().set_exception_handler(
            [this](asyncio::EventLoop&, const asyncio::ExceptionContext& context) {
                messages.push_back(context.message + ": " + what_of(context.exception));
            });
    }
    ~Told() { asyncio::get_running_loop().set_exception_handler(nullptr); }
    Told(const Told&) = delete;
    Told& operator=(const Told&) = delete;
};

const auto recorder = [] { return std::make_unique<Recorder>(); };

TEST(SslTransports, talk_and_end_in_order) {
    asyncio::run([]() -> Coro<> {
        auto echo = std::make_shared<Echo>();
        echo->keeps_open = true; // means nothing with TLS
        const auto factory = [&] { return echo; };
        auto server = co_await asyncio::create_server(factory, "127.0.0.1", 0,
                                                      ServerOptions().ssl(server_context()));
        const std::uint16_t port = server.sockets().at(0).port();
        auto created = co_await asyncio::create_connection(
            recorder, "127.0.0.1", port, ConnectionOptions().ssl(client_context()));
        EXPECT_EQ(created.protocol->events, Events{"made"});
        const ssl::Object* object = created.transport.get_extra_info(asyncio::ssl_object);
        EXPECT_EQ(object->version(), "TLSv1.3");
        EXPECT_FALSE(created.transport.can_write_eof());
        EXPECT_THROW(created.transport.write_eof(), asyncio::RuntimeError);
        created.transport.write("hello");
        co_await until([&] { return created.protocol->received == "hello"; });
        const std::string much(3 << 20, 'x');
        created.transport.get_extra_info(asyncio::socket_info)
            .setsockopt(SOL_SOCKET, SO_SNDBUF, 10'000);
        created.transport.write(much);
        EXPECT_TRUE(created.protocol->has("pause"));
        co_await until([&] { return created.protocol->received.size() == 5 + much.size(); });
        co_await until([&] { return created.protocol->has("resume"); });
        created.transport.close();
        co_await until([&] { return created.protocol->is_lost() && echo->is_lost(); });
        EXPECT_EQ(created.protocol->loss, nullptr);
        EXPECT_EQ(echo->loss, nullptr) << what_of(echo->loss);
        EXPECT_TRUE(echo->has("eof"));
        server.close();
        co_await server.wait_closed();
    });
}

TEST(SslTransports, that_are_closed_do_not_wait_for_a_peer_that_takes_nothing) {
    struct Deaf : Recorder {
        void connection_made(Transport made) override {
            made.pause_reading();
            Recorder::connection_made(std::move(made));
        }
    };
    asyncio::run([]() -> Coro<> {
        const auto deaf = [] { return std::make_unique<Deaf>(); };
        auto server = co_await asyncio::create_server(deaf, "127.0.0.1", 0,
                                                      ServerOptions().ssl(server_context()));
        auto created = co_await asyncio::create_connection(
            recorder, "127.0.0.1", server.sockets().at(0).port(),
            ConnectionOptions().ssl(client_context()).ssl_shutdown_timeout(50ms));
        created.transport.get_extra_info(asyncio::socket_info)
            .setsockopt(SOL_SOCKET, SO_SNDBUF, 10'000);
        created.transport.write(std::string(16 << 20, 'x'));
        EXPECT_GT(created.transport.get_write_buffer_size(), 0U);
        created.transport.close();
        co_await until([&] { return created.protocol->is_lost(); });
        const std::string why = what_of(created.protocol->loss);
        EXPECT_NE(why.find("SSL shutdown timed out"), std::string::npos) << why;
        server.close();
        server.abort_clients();
        co_await server.wait_closed();
    });
}

TEST(SslTransports, of_a_socket_that_was_accepted_elsewhere) {
    asyncio::run([]() -> Coro<> {
        auto sockets = asyncio::Socket::pair();
        auto options = ConnectionOptions()
                           .ssl(client_context())
                           .server_hostname("localhost")
                           .sock(std::move(sockets.first));
        auto creating = asyncio::create_task(asyncio::create_connection(recorder, options));
        const auto factory = [] { return std::make_unique<Echo>(); };
        const auto serving = ConnectionOptions().ssl(server_context());
        auto accepted =
            co_await asyncio::connect_accepted_socket(factory, std::move(sockets.second), serving);
        EXPECT_NE(accepted.transport.get_extra_info(asyncio::ssl_object), nullptr);
        EXPECT_EQ(accepted.protocol->events, Events{"made"});
        auto created = co_await creating;
        created.transport.write("hello");
        co_await until([&] { return created.protocol->received == "hello"; });
        created.transport.close();
        co_await until([&] { return created.protocol->is_lost() && accepted.protocol->is_lost(); });
        EXPECT_EQ(accepted.protocol->loss, nullptr) << what_of(accepted.protocol->loss);
        EXPECT_EQ(created.protocol->loss, nullptr) << what_of(created.protocol->loss);
    });
}

// In order the protocol is told, and it is closed in time; else it is lost at once.
TEST(SslTransports, end_with_a_peer_that_ends_and_takes_nothing) {
    asyncio::run([]() -> Coro<> {
        for (const bool in_order : {true, false}) {
            SCOPED_TRACE(in_order ? "by a close_notify" : "below TLS");
            auto sockets = asyncio::Socket::pair();
            auto options = ConnectionOptions()
                               .ssl(client_context())
                               .server_hostname("localhost")
                               .ssl_shutdown_timeout(50ms)
                               .sock(std::move(sockets.first));
            auto creating = asyncio::create_task(asyncio::create_connection(recorder, options));
            TlsByHand peer(std::move(sockets.second), server_context());
            co_await peer.handshake();
            auto created = co_await creating;
            created.transport.write(std::string(16 << 20, 'x'));
            EXPECT_GT(created.transport.get_write_buffer_size(), 0U);
            if (in_order) {
                co_await peer.end_tls();
            } else {
                peer.socket().shutdown(SHUT_WR);
            }
            co_await until([&] { return created.protocol->is_lost(); });
            const std::string why = what_of(created.protocol->loss);
            EXPECT_EQ(created.protocol->has("eof"), in_order);
            EXPECT_NE(why.find(in_order ? "SSL shutdown timed out" : "without a close_notify"),
                      std::string::npos)
                << why;
        }
    });
}

TEST(SslTransports, receive_into_buffers_of_a_protocol) {
    asyncio::run([]() -> Coro<> {
        const auto echo = [] { return std::make_unique<Echo>(); };
        auto server = co_await asyncio::create_server(echo, "127.0.0.1", 0,
                                                      ServerOptions().ssl(server_context()));
        const auto factory = [] { return std::make_unique<Buffered>(); };
        auto created =
            co_await asyncio::create_connection(factory, "127.0.0.1", server.sockets().at(0).port(),
                                                ConnectionOptions().ssl(client_context()));
        std::string sent;
        for (int i = 0; i < 1000; ++i) sent += std::to_string(i) + ",";
        created.transport.write(sent);
        co_await until([&] { return created.protocol->received == sent; });
        created.transport.pause_reading();
        created.transport.write("more");
        co_await turns(10);
        EXPECT_EQ(created.protocol->received, sent);
        created.transport.resume_reading();
        co_await until([&] { return created.protocol->received == sent + "more"; });
        created.transport.abort();
        server.close();
        server.abort_clients();
        co_await server.wait_closed();
    });
}

TEST(SslTransports, are_not_made_for_a_server_that_nobody_vouches_for) {
    asyncio::run([]() -> Coro<> {
        const Told told;
        auto echo = std::make_shared<Echo>();
        const auto factory = [&] { return echo; };
        auto server = co_await asyncio::create_server(factory, "127.0.0.1", 0,
                                                      ServerOptions().ssl(server_context()));
        auto protocol = std::make_shared<Recorder>();
        const auto client = [&] { return protocol; };
        const ssl::Context trusting_others = ssl::create_default_context();
        auto creating =
            asyncio::create_connection(client, "127.0.0.1", server.sockets().at(0).port(),
                                       ConnectionOptions().ssl(trusting_others));
        auto task = asyncio::create_task(std::move(creating));
        auto result = co_await asyncio::as_result(task);
        EXPECT_TRUE(result.failed_with<ssl::CertVerificationError>());
        co_await until([&] { return !told.messages.empty(); });
        EXPECT_EQ(told.messages.size(), 1u);
        EXPECT_TRUE(told.messages.at(0).starts_with("the TLS handshake with a client failed: "))
            << told.messages.at(0);
        server.close();
        co_await server.wait_closed();
        co_await turns(3);
        EXPECT_EQ(echo->events, Events{});
        EXPECT_EQ(protocol->events, Events{});
    });
}

TEST(SslTransports, turn_away_who_says_nothing_in_time_and_who_talks_something_else) {
    asyncio::run([]() -> Coro<> {
        const Told told;
        auto server = co_await asyncio::create_server(
            recorder, "127.0.0.1", 0,
            ServerOptions().ssl(server_context()).ssl_handshake_timeout(20ms));
        const std::uint16_t port = server.sockets().at(0).port();
        auto silent = co_await asyncio::open_connection("127.0.0.1", port);
        std::string end = co_await silent.first.read(10);
        EXPECT_EQ(end, "");
        EXPECT_EQ(told.messages.size(), 1u);
        EXPECT_NE(told.messages.at(0).find("has not ended in time"), std::string::npos);
        auto plain = co_await asyncio::open_connection("127.0.0.1", port);
        plain.second.write("GET / HTTP/1.0\r\n\r\n");
        co_await until([&] { return told.messages.size() == 2; });
        EXPECT_NE(told.messages.at(1).find("does not speak TLS"), std::string::npos)
            << told.messages.at(1);
        server.close();
        co_await server.wait_closed();
    });
}

TEST(SslTransports, that_wait_for_a_handshake_end_by_a_cancel_and_by_time) {
    asyncio::run([]() -> Coro<> {
        auto accepted = [](asyncio::StreamReader reader, asyncio::StreamWriter) -> Coro<> {
            co_await reader.read();
        };
        auto server = co_await asyncio::start_server(accepted, "127.0.0.1", 0);
        const std::uint16_t port = server.sockets().at(0).port();
        auto protocol = std::make_shared<Recorder>();
        const auto factory = [&] { return protocol; };
        auto late = asyncio::create_task(asyncio::create_connection(
            factory, "127.0.0.1", port,
            ConnectionOptions().ssl(client_context()).ssl_handshake_timeout(20ms)));
        auto result = co_await asyncio::as_result(late);
        EXPECT_TRUE(result.failed_with<asyncio::TimeoutError>());
        auto task = asyncio::create_task(asyncio::create_connection(
            factory, "127.0.0.1", port, ConnectionOptions().ssl(client_context())));
        co_await asyncio::sleep(5ms);
        task.cancel();
        auto cancelled = co_await asyncio::as_result(task);
        EXPECT_TRUE(cancelled.failed_with<asyncio::CancelledError>());
        server.close();
        co_await server.wait_closed(); // both are closed
        EXPECT_EQ(protocol->events, Events{});
    });
}

// A byte that TLS should have got is not lost, wherever it was.
TEST(SslTransports, are_upgraded_with_what_was_received_already) {
    struct Upgrading : Recorder {
        std::shared_ptr<Echo> secure = std::make_shared<Echo>();
        std::string failure;
        void data_received(std::string_view data) override {
            Recorder::data_received(data);
            const std::size_t end = received.find('\n');
            if (end == std::string::npos) return;
            transport.pause_reading();
            transport.write("go on\n");
            static_cast<void>(asyncio::create_task(upgrade(received.substr(end + 1))));
        }
        Coro<> upgrade(std::string rest) {
            try {
                auto options = StartTlsOptions().received(rest);
                const ssl::Context context = server_context();
                auto upgraded = co_await asyncio::start_tls(transport, secure, context, options);
                EXPECT_EQ(upgraded, transport);
                secure->transport = upgraded;
                transport = Transport();
            } catch (const std::exception& error) {
                failure = error.what();
            }
        }
    };
    asyncio::run([]() -> Coro<> {
        auto upgrading = std::make_shared<Upgrading>();
        const auto factory = [&] { return upgrading; };
        auto server = co_await asyncio::create_server(factory, "127.0.0.1", 0);
        const std::uint16_t port = server.sockets().at(0).port();
        auto created = co_await asyncio::create_connection(recorder, "127.0.0.1", port);
        auto& [transport, plain] = created;
        // The beginning of TLS goes out with the end of the plain text.
        auto secure = std::make_shared<Recorder>();
        transport.pause_reading();
        transport.write("start tls\n");
        const ssl::Context context = client_context();
        auto options = StartTlsOptions().received("");
        // The answer in plain text is to be read before.
        transport.resume_reading();
        co_await until([&] { return plain->received == "go on\n"; });
        EXPECT_EQ(upgrading->failure, "");
        co_await asyncio::start_tls(transport, secure, context, options);
        EXPECT_EQ(transport.get_protocol(), secure);
        transport.write("secret");
        co_await until([&] { return secure->received == "secret"; });
        EXPECT_EQ(upgrading->received, "start tls\n");
        EXPECT_EQ(upgrading->secure->received, "secret");
        EXPECT_EQ(upgrading->events, (Events{"made", "data"}));
        transport.close();
        co_await until([&] { return secure->is_lost() && upgrading->secure->is_lost(); });
        EXPECT_EQ(secure->events, (Events{"data", "lost"}));
        EXPECT_EQ(upgrading->secure->events, (Events{"data", "eof", "lost"}));
        server.close();
    });
}

TEST(SslTransports, are_upgraded_when_the_hello_came_with_the_plain_text) {
    struct Waiting : Recorder {
        void data_received(std::string_view data) override {
            Recorder::data_received(data);
            transport.pause_reading();
        }
    };
    asyncio::run([]() -> Coro<> {
        auto sockets = asyncio::Socket::pair();
        auto waiting = std::make_shared<Waiting>();
        const auto factory = [&] { return waiting; };
        auto accepted =
            co_await asyncio::connect_accepted_socket(factory, std::move(sockets.second));
        auto options = ConnectionOptions().sock(std::move(sockets.first));
        auto client = co_await asyncio::create_connection(recorder, options);
        // One segment: the plain text is still kept when TLS begins.
        const int small = 1;
        client.transport.get_extra_info(asyncio::socket_info)
            .setsockopt(SOL_SOCKET, SO_SNDBUF, small);
        const std::string plain(100'000, 'p');
        client.transport.write(plain);
        EXPECT_GT(client.transport.get_write_buffer_size(), 0u);
        auto secure = std::make_shared<Recorder>();
        const ssl::Context context = client_context();
        auto upgrade = StartTlsOptions().server_hostname("localhost");
        auto task =
            asyncio::create_task(asyncio::start_tls(client.transport, secure, context, upgrade));
        while (waiting->received.size() <= plain.size()) {
            co_await turns(2);
            accepted.transport.resume_reading();
        }
        accepted.transport.pause_reading();
        EXPECT_THROW(client.transport.write("too early"), asyncio::RuntimeError);
        const std::string rest = waiting->received.substr(plain.size());
        auto echo = std::make_shared<Echo>();
        const ssl::Context serving = server_context();
        auto given = StartTlsOptions().received(rest);
        auto upgraded = co_await asyncio::start_tls(accepted.transport, echo, serving, given);
        echo->transport = upgraded;
        co_await task;
        client.transport.write("hello");
        co_await until([&] { return secure->received == "hello"; });
        EXPECT_EQ(waiting->received.substr(0, plain.size()), plain);
        client.transport.abort();
        co_await until([&] { return echo->is_lost(); });
        // Cut off without a close_notify.
        EXPECT_NE(what_of(echo->loss).find("cut off"), std::string::npos) << what_of(echo->loss);
        EXPECT_FALSE(echo->has("eof"));
    });
}

// Nobody is told of the connection once more.
TEST(SslTransports, are_upgraded_with_a_protocol_of_buffers_and_change_it_for_another) {
    const std::string hello(100'000, '1');
    asyncio::run([&]() -> Coro<> {
        const auto handler = [&](asyncio::StreamReader reader,
                                 asyncio::StreamWriter writer) -> Coro<> {
            std::string data = co_await reader.readexactly(hello.size());
            EXPECT_TRUE(data == hello);
            co_await writer.start_tls(server_context());
            for (const char* answer : {"O", "2"}) {
                writer.write(answer);
                data = co_await reader.readexactly(hello.size());
                EXPECT_TRUE(data == hello);
            }
            writer.close();
            co_await writer.wait_closed();
        };
        auto server = co_await asyncio::start_server(handler, "127.0.0.1", 0);
        const std::uint16_t port = server.sockets().at(0).port();
        const auto factory = [] { return std::make_unique<Buffered>(); };
        auto created = co_await asyncio::create_connection(factory, "127.0.0.1", port);
        auto& [transport, first] = created;
        transport.write(hello);
        const ssl::Context context = client_context();
        co_await asyncio::start_tls(transport, first, context);
        co_await until([&] { return first->received == "O"; });
        auto second = std::make_shared<Recorder>();
        transport.set_protocol(second);
        EXPECT_EQ(transport.get_protocol(), second);
        transport.write(hello);
        co_await until([&] { return second->received == "2"; });
        transport.write(hello);
        co_await until([&] { return second->is_lost(); });
        EXPECT_EQ(first->events, Events{"made"});
        EXPECT_EQ(second->events, (Events{"data", "eof", "lost"}));
        EXPECT_EQ(second->loss, nullptr) << what_of(second->loss);
        server.close();
        co_await server.wait_closed();
    });
}

// Who waits for the connection is told that it is made, and who waits for TLS that it is begun.
TEST(SslTransports, are_upgraded_in_connection_made) {
    struct Upgrading : Recorder {
        std::shared_ptr<Recorder> secure = std::make_shared<Recorder>();
        std::string version;
        void connection_made(Transport made) override {
            Recorder::connection_made(made);
            const auto options = asyncio::TaskOptions().eager_start(true);
            static_cast<void>(asyncio::create_task(options, upgrade(made)));
        }
        Coro<> upgrade(Transport made) {
            const ssl::Context context = client_context();
            const auto options = StartTlsOptions().server_hostname("localhost");
            co_await asyncio::start_tls(made, secure, context, options);
            version = made.get_extra_info(asyncio::ssl_object)->cipher().value().name;
        }
    };
    asyncio::run([]() -> Coro<> {
        const auto handler = [](asyncio::StreamReader reader,
                                asyncio::StreamWriter writer) -> Coro<> {
            co_await writer.start_tls(server_context());
            writer.write("in secret");
            static_cast<void>(co_await asyncio::as_result(reader.read()));
        };
        auto server = co_await asyncio::start_server(handler, "127.0.0.1", 0);
        const std::uint16_t port = server.sockets().at(0).port();
        auto upgrading = std::make_shared<Upgrading>();
        const auto factory = [&] { return upgrading; };
        auto task = asyncio::create_task(asyncio::create_connection(factory, "127.0.0.1", port));
        auto created = co_await asyncio::as_result(asyncio::wait_for(task, 5s));
        EXPECT_TRUE(created.has_value()) << what_of(created.exception());
        co_await until([&] { return upgrading->secure->received == "in secret"; });
        EXPECT_NE(upgrading->version, "");
        if (created.has_value()) created.value().transport.abort();
        server.close();
        server.abort_clients();
        co_await server.wait_closed();
    });
}

TEST(SslTransports, resume_a_session_that_is_given) {
    asyncio::run([]() -> Coro<> {
        const auto factory = [] { return std::make_unique<Echo>(); };
        auto server = co_await asyncio::create_server(factory, "127.0.0.1", 0,
                                                      ServerOptions().ssl(server_context()));
        const std::uint16_t port = server.sockets().at(0).port();
        ConnectionOptions options;
        options.ssl(client_context());
        for (const bool expected : {false, true}) {
            auto created =
                co_await asyncio::create_connection(recorder, "127.0.0.1", port, options);
            auto& [transport, protocol] = created;
            transport.write("x");
            co_await until([&] { return protocol->received == "x"; });
            const ssl::Object* object = transport.get_extra_info(asyncio::ssl_object);
            EXPECT_EQ(object->session_reused(), expected);
            options.ssl_session(object->session());
            transport.close();
            co_await until([&] { return protocol->is_lost(); });
        }
        auto sockets = asyncio::Socket::pair();
        options.ssl(server_context());
        auto task = asyncio::create_task(
            asyncio::connect_accepted_socket(recorder, std::move(sockets.first), options));
        auto refused = co_await asyncio::as_result(task);
        EXPECT_TRUE(refused.failed_with<asyncio::ValueError>());
        server.close();
        co_await server.wait_closed();
    });
}

TEST(SslTransports, that_fail_to_be_upgraded_are_lost) {
    asyncio::run([]() -> Coro<> {
        auto ends = co_await asyncio_test::connected<Recorder>();
        auto secure = std::make_shared<Recorder>();
        const ssl::Context context = client_context();
        auto options = StartTlsOptions().server_hostname("localhost");
        auto task =
            asyncio::create_task(asyncio::start_tls(ends.transport, secure, context, options));
        co_await turns(2);
        co_await asyncio::sock_sendall(ends.peer, "this is no TLS at all\r\n");
        auto result = co_await asyncio::as_result(task);
        EXPECT_TRUE(result.failed_with<ssl::Error>());
        co_await until([&] { return secure->is_lost(); });
        EXPECT_NE(secure->loss, nullptr);
        EXPECT_EQ(ends.protocol->events, Events{"made"});
        auto again =
            asyncio::create_task(asyncio::start_tls(ends.transport, secure, context, options));
        auto refused = co_await asyncio::as_result(again);
        EXPECT_TRUE(refused.failed_with<asyncio::RuntimeError>());
    });
}

TEST(SslTransports, are_dropped_when_the_loop_closes_amid_a_handshake) {
    std::weak_ptr<Recorder> watched;
    {
        const auto loop = asyncio::new_event_loop();
        auto sockets = asyncio::Socket::pair();
        auto protocol = std::make_shared<Recorder>();
        watched = protocol;
        const auto factory = [protocol] { return protocol; };
        auto options = ConnectionOptions()
                           .sock(std::move(sockets.first))
                           .ssl(client_context())
                           .server_hostname("localhost");
        auto task = asyncio::create_task(*loop, asyncio::create_connection(factory, options));
        asyncio::run_until_complete(*loop, turns(5));
        protocol.reset();
        loop->set_exception_handler([](asyncio::EventLoop&, const asyncio::ExceptionContext&) {});
        loop->close();
    }
    EXPECT_TRUE(watched.expired());
}

} // namespace
