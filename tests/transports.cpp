// SPDX-License-Identifier: MIT
// What a transport does when it is told to, at every point of its life.
#include "support/protocols.hpp"

#include <asyncio/asyncio.hpp>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <sys/socket.h>
#include <system_error>
#include <unistd.h>
#include <vector>

using asyncio::ConnectionOptions;
using asyncio::Coro;
using asyncio::Server;
using asyncio::Transport;
using asyncio_test::connected;
using asyncio_test::Recorder;
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

// Closed by the peer with what it has not read: the connection is reset.
void reset(asyncio::Socket& socket) {
    const linger at_once{1, 0};
    socket.setsockopt(
        SOL_SOCKET, SO_LINGER,
        asyncio::ReadableBytes(reinterpret_cast<const char*>(&at_once), sizeof at_once));
    socket.close();
}

struct TcpPair {
    asyncio::Socket one;
    asyncio::Socket other;
};

Coro<TcpPair> tcp_pair() {
    asyncio::Socket listener(AF_INET, SOCK_STREAM);
    listener.bind(asyncio::Address("127.0.0.1", 0));
    listener.listen();
    TcpPair pair;
    pair.one = asyncio::Socket(AF_INET, SOCK_STREAM);
    const asyncio::Address address = listener.getsockname();
    co_await asyncio::sock_connect(pair.one, address);
    auto accepted = co_await asyncio::sock_accept(listener);
    pair.other = std::move(accepted.socket);
    co_return pair;
}

// --- how they are made
// ----------------------------------------------------------------------------

TEST(Transports, of_a_server_and_a_client_talk) {
    asyncio::run([]() -> Coro<> {
        std::vector<std::shared_ptr<Echo>> made;
        const auto factory = [&] { return made.emplace_back(std::make_shared<Echo>()); };
        auto server = co_await asyncio::create_server(factory, "127.0.0.1", 0);
        const std::uint16_t port = server.sockets().at(0).port();
        const auto client = [] { return std::make_unique<Recorder>(); };
        auto created = co_await asyncio::create_connection(client, "127.0.0.1", port);
        created.transport.write("hello, ");
        const std::vector<std::string> parts = {"wo", "r"};
        created.transport.writelines(parts);
        created.transport.writelines({"l", "d"});
        co_await until([&] { return created.protocol->received == "hello, world"; });
        EXPECT_EQ(created.transport.get_extra_info(asyncio::peername).port(), port);
        EXPECT_EQ(created.transport.get_extra_info(asyncio::sockname),
                  made.at(0)->transport.get_extra_info(asyncio::peername));
        EXPECT_GE(created.transport.get_extra_info(asyncio::socket_info).fileno(), 0);
        EXPECT_EQ(created.transport.get_extra_info(asyncio::ssl_object), nullptr);
        EXPECT_EQ(created.transport.get_protocol(), created.protocol);
        server.close();
        EXPECT_FALSE(made.at(0)->is_lost()); // the connection goes on
        created.transport.close();
        co_await server.wait_closed();
        EXPECT_TRUE(made.at(0)->is_lost());
        co_await until([&] { return created.protocol->is_lost(); });
    });
}

TEST(Transports, serve_without_any_task) {
    const auto loop = asyncio::new_event_loop();
    struct Client : Recorder {
        void data_received(std::string_view data) override {
            Recorder::data_received(data);
            if (received == "ping") asyncio::get_running_loop().stop();
        }
    };
    const auto server = asyncio::run_until_complete(
        *loop, asyncio::create_server([] { return std::make_unique<Echo>(); }, "127.0.0.1", 0));
    const auto created = asyncio::run_until_complete(
        *loop, asyncio::create_connection([] { return std::make_unique<Client>(); }, "127.0.0.1",
                                          server.sockets().at(0).port()));
    created.transport.write("ping");
    loop->run_forever();
    EXPECT_EQ(created.protocol->received, "ping");
    server.close();
}

TEST(Transports, of_unix_sockets_talk) {
    asyncio::run([]() -> Coro<> {
        const std::string name = std::string("\0asyncio-test-", 14) + std::to_string(::getpid());
        const auto echo = [] { return std::make_unique<Echo>(); };
        auto server = co_await asyncio::create_unix_server(echo, name);
        const auto client = [] { return std::make_unique<Recorder>(); };
        auto created = co_await asyncio::create_unix_connection(client, name);
        created.transport.write("hello");
        co_await until([&] { return created.protocol->received == "hello"; });
        EXPECT_EQ(created.transport.get_extra_info(asyncio::peername).path(), name);
        server.close();
        server.abort_clients();
        co_await until([&] { return created.protocol->is_lost(); });
    });
}

TEST(Transports, of_a_socket_that_was_accepted_elsewhere) {
    asyncio::run([]() -> Coro<> {
        auto pair = co_await tcp_pair();
        const auto echo = [] { return std::make_unique<Echo>(); };
        auto socket = std::move(pair.one);
        auto created = co_await asyncio::connect_accepted_socket(echo, std::move(socket));
        co_await asyncio::sock_sendall(pair.other, "hello");
        const std::string answer = co_await asyncio::sock_recv(pair.other, 100);
        EXPECT_EQ(answer, "hello");
        created.transport.abort();
    });
}

template <class T> Coro<std::string> refusal(Coro<T> coroutine) {
    try {
        co_await std::move(coroutine);
    } catch (const std::exception& error) {
        co_return error.what();
    }
    co_return "nothing";
}

TEST(Transports, refuse_options_that_contradict_each_other) {
    asyncio::run([]() -> Coro<> {
        const auto client = [] { return std::make_unique<Recorder>(); };
        auto nothing = asyncio::create_connection(client, ConnectionOptions());
        std::string text = co_await refusal(std::move(nothing));
        EXPECT_EQ(text, "host and port was not specified and no sock specified");
        auto options = ConnectionOptions().sock(asyncio::Socket(AF_INET, SOCK_DGRAM));
        auto datagrams = asyncio::create_connection(client, options);
        text = co_await refusal(std::move(datagrams));
        EXPECT_EQ(text, "A Stream Socket was expected");
        auto both = asyncio::create_connection(client, "127.0.0.1", 1, options);
        text = co_await refusal(std::move(both));
        EXPECT_EQ(text, "host/port and sock can not be specified at the same time");
        auto name = asyncio::create_connection(client, "127.0.0.1", 1,
                                               ConnectionOptions().server_hostname("a"));
        text = co_await refusal(std::move(name));
        EXPECT_EQ(text, "server_hostname is only meaningful with ssl");
        auto unbound = asyncio::create_server(client, asyncio::ServerOptions());
        text = co_await refusal(std::move(unbound));
        EXPECT_NE(text.find("Neither host/port nor sock"), std::string::npos);
    });
}

TEST(Transports, of_nothing_say_so) {
    const Transport transport;
    EXPECT_TRUE(transport.is_closing());
    EXPECT_THROW(transport.write("x"), asyncio::RuntimeError);
    EXPECT_THROW(transport.close(), asyncio::RuntimeError);
    EXPECT_THROW(static_cast<void>(transport.get_protocol()), asyncio::RuntimeError);
}

TEST(Transports, are_not_made_if_the_factory_fails) {
    asyncio::run([]() -> Coro<> {
        std::vector<std::string> told;
        asyncio::get_running_loop().set_exception_handler(
            [&](asyncio::EventLoop&, const asyncio::ExceptionContext& context) {
                told.push_back(what_of(context.exception));
            });
        const auto fails = []() -> std::unique_ptr<Recorder> { throw std::logic_error("no"); };
        const auto null = [] { return std::unique_ptr<Recorder>(); };
        auto pair = co_await tcp_pair();
        auto options = ConnectionOptions().sock(std::move(pair.one));
        auto creating = asyncio::create_connection(fails, options);
        std::string text = co_await refusal(std::move(creating));
        EXPECT_EQ(text, "no");
        const std::string end = co_await asyncio::sock_recv(pair.other, 10);
        EXPECT_EQ(end, "");
        auto server = co_await asyncio::create_server(null, "127.0.0.1", 0);
        const std::uint16_t port = server.sockets().at(0).port();
        auto streams = co_await asyncio::open_connection("127.0.0.1", port);
        const std::string rest = co_await streams.first.read();
        EXPECT_EQ(rest, "");
        EXPECT_EQ(told.size(), 1u);
        EXPECT_NE(told.at(0).find("a protocol factory must give"), std::string::npos);
        server.close();
    });
}

// --- reading
// --------------------------------------------------------------------------------------

TEST(Transports, pause_and_resume_reading_at_once) {
    asyncio::run([]() -> Coro<> {
        struct Pausing : Recorder {
            void data_received(std::string_view data) override {
                Recorder::data_received(data);
                transport.pause_reading();
                transport.pause_reading();
            }
        };
        auto pair = co_await tcp_pair();
        auto options = ConnectionOptions().sock(std::move(pair.one));
        const auto factory = [] { return std::make_unique<Pausing>(); };
        auto created = co_await asyncio::create_connection(factory, options);
        auto& [transport, protocol] = created;
        EXPECT_TRUE(transport.is_reading());
        const std::string data(1 << 20, 'x');
        auto sending = asyncio::create_task(
            [&]() -> Coro<> { co_await asyncio::sock_sendall(pair.other, data); });
        co_await until([&] { return !protocol->received.empty(); });
        while (protocol->received.size() < data.size()) {
            EXPECT_FALSE(transport.is_reading());
            const std::size_t before = protocol->received.size();
            co_await turns(3);
            EXPECT_EQ(protocol->received.size(), before);
            transport.resume_reading();
            transport.resume_reading();
            EXPECT_TRUE(transport.is_reading());
            co_await until([&] { return protocol->received.size() > before; });
            EXPECT_LE(protocol->received.size() - before, 256u * 1024);
        }
        co_await sending;
        transport.resume_reading();
        transport.pause_reading(); // before anything came of it
        co_await asyncio::sock_sendall(pair.other, "more");
        co_await turns(5);
        EXPECT_EQ(protocol->received.size(), data.size());
        transport.close();
        EXPECT_FALSE(transport.is_reading());
        transport.resume_reading();
        transport.pause_reading();
        transport.resume_reading();
        EXPECT_FALSE(transport.is_reading());
        co_await until([&] { return protocol->is_lost(); });
        transport.resume_reading();
        transport.pause_reading();
        EXPECT_EQ(protocol->received.size(), data.size());
    });
}

TEST(Transports, paused_in_connection_made_read_nothing_until_resumed) {
    asyncio::run([]() -> Coro<> {
        struct Paused : Recorder {
            void connection_made(Transport given) override {
                Recorder::connection_made(given);
                transport.pause_reading();
                transport.write("written at once");
            }
        };
        auto ends = co_await connected<Paused>();
        const std::string first = co_await asyncio::sock_recv(ends.peer, 100);
        EXPECT_EQ(first, "written at once");
        co_await asyncio::sock_sendall(ends.peer, "x");
        ends.peer.close();
        co_await turns(5);
        EXPECT_EQ(ends.protocol->events, Events{"made"});
        ends.transport.resume_reading();
        co_await until([&] { return ends.protocol->is_lost(); });
        EXPECT_EQ(ends.protocol->events, (Events{"made", "data", "eof", "lost"}));
    });
}

TEST(Transports, let_others_run_between_two_receives) {
    asyncio::run([]() -> Coro<> {
        auto pair = co_await tcp_pair();
        pair.other.setsockopt(SOL_SOCKET, SO_SNDBUF, 1 << 20);
        pair.one.setsockopt(SOL_SOCKET, SO_RCVBUF, 1 << 20);
        auto options = ConnectionOptions().sock(std::move(pair.one));
        const auto factory = [] { return std::make_unique<Recorder>(); };
        auto created = co_await asyncio::create_connection(factory, options);
        created.transport.pause_reading();
        co_await asyncio::sock_sendall(pair.other, std::string(300'000, 'x'));
        created.transport.resume_reading();
        std::size_t seen = 0;
        for (int turn = 0; created.protocol->received.size() < 300'000 && turn < 1000; ++turn) {
            co_await asyncio::sleep(0);
            EXPECT_LE(created.protocol->received.size() - seen, 64u * 1024);
            seen = created.protocol->received.size();
        }
        EXPECT_EQ(seen, 300'000u);
    });
}

TEST(Transports, change_protocols_between_two_messages_and_inside_a_callback) {
    asyncio::run([]() -> Coro<> {
        struct Once : Recorder {
            std::shared_ptr<asyncio::Protocol> next;
            bool* gone = nullptr;
            ~Once() override {
                if (gone != nullptr) *gone = true;
            }
            void data_received(std::string_view data) override {
                bool is_gone = false;
                gone = &is_gone;
                transport.set_protocol(next);
                EXPECT_EQ(transport.get_protocol(), next);
                received = data; // it is still here
                EXPECT_FALSE(is_gone);
                gone = nullptr;
                const Transport keep = transport;
                transport = Transport();
                keep.write("switched");
            }
        };
        auto next = std::make_shared<Recorder>();
        auto once = std::make_shared<Once>();
        once->next = next;
        auto ends = co_await connected<Once>(once);
        const std::weak_ptr<Once> watched = once;
        ends.protocol.reset();
        once.reset();
        co_await asyncio::sock_sendall(ends.peer, "one");
        const std::string answer = co_await asyncio::sock_recv(ends.peer, 100);
        EXPECT_EQ(answer, "switched");
        EXPECT_TRUE(watched.expired());
        co_await asyncio::sock_sendall(ends.peer, "two");
        co_await until([&] { return next->received == "two"; });
        EXPECT_THROW(ends.transport.set_protocol(std::shared_ptr<asyncio::Protocol>()),
                     asyncio::ValueError);
        ends.transport.abort();
        co_await until([&] { return next->is_lost(); });
        EXPECT_EQ(next->events, (Events{"data", "lost"}));
        ends.transport.set_protocol(next); // too late
        EXPECT_EQ(ends.transport.get_protocol(), nullptr);
    });
}

// --- writing and closing
// --------------------------------------------------------------------------

TEST(Transports, end_their_side_after_what_is_kept) {
    asyncio::run([]() -> Coro<> {
        auto ends = co_await connected<Recorder>();
        const std::string data(1 << 20, 'x');
        EXPECT_TRUE(ends.transport.can_write_eof());
        ends.transport.write(data);
        ends.transport.write_eof();
        ends.transport.write_eof();
        EXPECT_THROW(ends.transport.write("y"), asyncio::RuntimeError);
        std::size_t received = 0;
        for (;;) {
            const std::string part = co_await asyncio::sock_recv(ends.peer, 100'000);
            if (part.empty()) break;
            received += part.size();
        }
        EXPECT_EQ(received, data.size());
        co_await asyncio::sock_sendall(ends.peer, "answer");
        co_await until([&] { return ends.protocol->received == "answer"; });
        EXPECT_FALSE(ends.transport.is_closing());
        ends.peer.close();
        co_await until([&] { return ends.protocol->is_lost(); });
    });
}

TEST(Transports, drop_what_is_written_after_close_and_say_so_from_the_fifth_time_on) {
    asyncio::run([]() -> Coro<> {
        std::vector<std::string> told;
        asyncio::get_running_loop().set_exception_handler(
            [&](asyncio::EventLoop&, const asyncio::ExceptionContext& context) {
                told.push_back(context.message);
            });
        auto ends = co_await connected<Recorder>();
        ends.transport.close();
        ends.transport.close();
        for (int i = 0; i < 4; ++i) ends.transport.write("x");
        EXPECT_EQ(told.size(), 0u);
        ends.transport.write("x");
        EXPECT_EQ(told.size(), 1u);
        co_await until([&] { return ends.protocol->is_lost(); });
        ends.transport.write("x");
        EXPECT_EQ(told.size(), 2u);
        ends.transport.close();
        ends.transport.abort();
        const std::string end = co_await asyncio::sock_recv(ends.peer, 10);
        EXPECT_EQ(end, "");
        EXPECT_EQ(ends.protocol->events, (Events{"made", "lost"}));
    });
}

TEST(Transports, abort_drops_what_is_kept) {
    asyncio::run([]() -> Coro<> {
        auto ends = co_await connected<Recorder>();
        ends.transport.write(std::string(8 << 20, 'x'));
        ends.transport.close();
        co_await turns(3);
        EXPECT_FALSE(ends.protocol->is_lost()); // the peer reads nothing
        ends.transport.abort();
        EXPECT_EQ(ends.transport.get_write_buffer_size(), 0u);
        co_await asyncio::sleep(0);
        EXPECT_TRUE(ends.protocol->is_lost());
        EXPECT_EQ(ends.protocol->loss, nullptr);
    });
}

TEST(Transports, know_their_socket_until_connection_lost_is_over) {
    asyncio::run([]() -> Coro<> {
        struct Asking : Recorder {
            int descriptor = -1;
            asyncio::Address name;
            void connection_lost(std::exception_ptr exception) override {
                descriptor = transport.get_extra_info(asyncio::socket_info).fileno();
                name = transport.get_extra_info(asyncio::sockname);
                Recorder::connection_lost(exception);
            }
        };
        auto pair = co_await tcp_pair();
        const asyncio::Address name = pair.one.getsockname();
        auto options = ConnectionOptions().sock(std::move(pair.one));
        const auto factory = [] { return std::make_unique<Asking>(); };
        auto created = co_await asyncio::create_connection(factory, options);
        created.transport.close();
        co_await until([&] { return created.protocol->is_lost(); });
        EXPECT_GE(created.protocol->descriptor, 0);
        EXPECT_EQ(created.protocol->name, name);
        EXPECT_EQ(created.transport.get_extra_info(asyncio::socket_info).fileno(), -1);
    });
}

// In each state: nothing under way, kept data, paused, half closed by either side.
TEST(Transports, that_are_reset_lose_their_connection_with_the_error) {
    asyncio::run([]() -> Coro<> {
        for (int state = 0; state < 5; ++state) {
            auto pair = co_await tcp_pair();
            auto protocol = std::make_shared<Recorder>();
            protocol->keeps_open = true;
            auto options = ConnectionOptions().sock(std::move(pair.one));
            const auto factory = [&] { return protocol; };
            auto created = co_await asyncio::create_connection(factory, options);
            const Transport transport = created.transport;
            if (state == 1 || state == 4) transport.write(std::string(32 << 20, 'x'));
            if (state == 2) transport.pause_reading();
            if (state == 3) transport.write_eof();
            if (state == 4) transport.close();
            co_await turns(3);
            reset(pair.other);
            co_await turns(3);
            // Who does not read learns by writing.
            if (state == 2) transport.write("x");
            co_await until([&] { return protocol->is_lost(); });
            EXPECT_NE(what_of(protocol->loss).find("127.0.0.1:"), std::string::npos)
                << state << ": " << what_of(protocol->loss);
            EXPECT_EQ(protocol->events.back(), "lost");
            EXPECT_FALSE(protocol->has("eof"));
        }
    });
}

TEST(Transports, close_and_abort_in_every_callback) {
    asyncio::run([]() -> Coro<> {
        struct Ending : Recorder {
            std::string at;
            bool aborts = false;
            void end(const std::string& here) {
                if (at != here) return;
                const Transport last = transport;
                transport = Transport();
                if (aborts) {
                    last.abort();
                } else {
                    last.close();
                }
            }
            void connection_made(Transport given) override {
                Recorder::connection_made(given);
                end("made");
            }
            void data_received(std::string_view data) override {
                Recorder::data_received(data);
                end("data");
            }
            bool eof_received() override {
                Recorder::eof_received();
                end("eof");
                return true;
            }
            void connection_lost(std::exception_ptr exception) override {
                const Transport last = transport;
                Recorder::connection_lost(exception);
                transport = last;
                end("lost");
            }
            void pause_writing() override {
                Recorder::pause_writing();
                end("pause");
            }
        };
        for (const char* at : {"made", "data", "eof", "lost", "pause"}) {
            for (const bool aborts : {false, true}) {
                auto protocol = std::make_shared<Ending>();
                protocol->at = at;
                protocol->aborts = aborts;
                auto ends = co_await connected<Ending>(protocol);
                const std::string here = at;
                ends.transport = Transport(); // nobody holds it but the loop and the protocol
                if (here == "data" || here == "lost" || here == "eof")
                    co_await asyncio::sock_sendall(ends.peer, "x");
                if (here == "pause") protocol->transport.write(std::string(8 << 20, 'x'));
                if (here == "eof" || here == "lost") ends.peer.shutdown(SHUT_WR);
                if (here == "lost") {
                    co_await until([&] { return protocol->has("eof"); });
                    protocol->transport.close();
                }
                for (;;) {
                    const std::string part = co_await asyncio::sock_recv(ends.peer, 1 << 20);
                    if (part.empty()) break;
                }
                co_await until([&] { return protocol->is_lost(); });
                EXPECT_EQ(protocol->events.back(), "lost") << at << aborts;
                EXPECT_EQ(protocol->loss, nullptr) << at << aborts;
            }
        }
    });
}

TEST(Transports, are_served_on_hosts_in_braces) {
    asyncio::run([]() -> Coro<> {
        const auto factory = [] { return std::make_shared<Echo>(); };
        auto starting = asyncio::create_server(factory, {"127.0.0.1", "127.0.0.2"}, 0);
        auto server = co_await std::move(starting);
        EXPECT_EQ(server.sockets().size(), 2U);
    });
}

TEST(Transports, of_a_factory_that_closes_its_server_go_on) {
    asyncio::run([]() -> Coro<> {
        std::optional<Server> server;
        const auto factory = [&] {
            server->close();
            server.reset();
            return std::make_shared<Echo>();
        };
        auto started = co_await asyncio::create_server(factory, "127.0.0.1", 0);
        const int port = started.sockets().at(0).port();
        server.emplace(std::move(started));
        auto streams = co_await asyncio::open_connection("127.0.0.1", port);
        streams.second.write("x");
        const std::string answer = co_await streams.first.readexactly(1);
        EXPECT_EQ(answer, "x");
        EXPECT_FALSE(server.has_value());
        const auto refused =
            co_await asyncio::as_result(asyncio::open_connection("127.0.0.1", port));
        EXPECT_FALSE(refused) << "nobody listens any more";
    });
}

TEST(Transports, close_their_server_from_a_callback) {
    asyncio::run([]() -> Coro<> {
        struct Closing : Recorder {
            std::optional<Server>* server = nullptr;
            void data_received(std::string_view data) override {
                transport.write(data);
                server->value().close();
                server->value().abort_clients();
                server->reset();
            }
        };
        std::optional<Server> server;
        std::vector<std::shared_ptr<Closing>> made;
        const auto factory = [&] {
            made.push_back(std::make_shared<Closing>());
            made.back()->server = &server;
            return made.back();
        };
        auto started = co_await asyncio::create_server(factory, "127.0.0.1", 0);
        const std::uint16_t port = started.sockets().at(0).port();
        server.emplace(started);
        auto streams = co_await asyncio::open_connection("127.0.0.1", port);
        streams.second.write("x");
        const std::string answer = co_await streams.first.read(10);
        EXPECT_EQ(answer, "x");
        co_await started.wait_closed();
        EXPECT_TRUE(made.at(0)->is_lost());
        EXPECT_FALSE(started.is_serving());
    });
}

TEST(Transports, are_dropped_with_their_protocols_when_the_loop_closes) {
    std::vector<std::weak_ptr<Recorder>> watched;
    Transport kept;
    {
        const auto loop = asyncio::new_event_loop();
        for (int state = 0; state < 4; ++state) {
            auto ends = asyncio::run_until_complete(*loop, connected<Recorder>());
            watched.emplace_back(ends.protocol);
            if (state == 1) ends.transport.write(std::string(8 << 20, 'x'));
            if (state == 2) ends.transport.close();
            if (state == 3) ends.transport.pause_reading();
            kept = ends.transport;
        }
        loop->close();
    }
    for (const auto& protocol : watched) EXPECT_TRUE(protocol.expired());
    EXPECT_TRUE(kept.is_closing());
    EXPECT_EQ(kept.get_protocol(), nullptr);
    kept.write("x");
    kept.resume_reading();
    kept.set_write_buffer_limits(0, 0);
    kept.close();
    kept.abort();
}

TEST(Transports, that_a_cancel_meets_while_they_are_made_are_closed) {
    asyncio::run([]() -> Coro<> {
        auto pair = co_await tcp_pair();
        auto protocol = std::make_shared<Recorder>();
        const auto factory = [&] { return protocol; };
        auto options = ConnectionOptions().sock(std::move(pair.one));
        auto task = asyncio::create_task(asyncio::create_connection(factory, options));
        co_await asyncio::sleep(0); // it waits for connection_made() now
        task.cancel();
        auto result = co_await asyncio::as_result(task);
        EXPECT_TRUE(result.failed_with<asyncio::CancelledError>());
        const std::string end = co_await asyncio::sock_recv(pair.other, 10);
        EXPECT_EQ(end, "");
        co_await until([&] { return protocol->is_lost(); });
        EXPECT_EQ(protocol->events, (Events{"made", "lost"}));
    });
}

TEST(Transports, work_under_every_order_of_what_is_ready) {
    for (std::uint64_t seed = 0; seed < 50; ++seed) {
        const auto loop =
            asyncio::new_event_loop(asyncio::LoopOptions().shuffle_ready(seed).debug(true));
        asyncio::run_until_complete(*loop, []() -> Coro<> {
            auto pair = co_await tcp_pair();
            auto protocol = std::make_shared<Echo>();
            const auto factory = [&] { return protocol; };
            auto options = ConnectionOptions().sock(std::move(pair.one));
            auto created = co_await asyncio::create_connection(factory, options);
            co_await asyncio::sock_sendall(pair.other, "hello");
            const std::string answer = co_await asyncio::sock_recv(pair.other, 10);
            EXPECT_EQ(answer, "hello");
            created.transport.close();
            created.transport.abort();
            co_await until([&] { return protocol->is_lost(); });
            EXPECT_EQ(protocol->events, (Events{"made", "data", "lost"}));
        }());
    }
}

} // namespace
