// SPDX-License-Identifier: MIT
// What protocols are told, in which order, and what becomes of what they throw.
#include "support/protocols.hpp"

#include <asyncio/asyncio.hpp>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <sys/socket.h>
#include <system_error>
#include <vector>

using asyncio::Coro;
using asyncio::Transport;
using asyncio_test::connected;
using asyncio_test::Ends;
using asyncio_test::Recorder;
using asyncio_test::Recording;
using asyncio_test::turns;
using asyncio_test::until;
using asyncio_test::what_of;
using Events = std::vector<std::string>;

namespace {

// What is told to the exception handler of the running loop.
struct Told {
    std::vector<std::string> messages;
    std::vector<std::string> exceptions;
    Told() {
        asyncio::get_running_loop().set_exception_handler(
            [this](asyncio::EventLoop&, const asyncio::ExceptionContext& context) {
                messages.push_back(context.message);
                exceptions.push_back(what_of(context.exception));
            });
    }
    ~Told() { asyncio::get_running_loop().set_exception_handler(nullptr); }
    Told(const Told&) = delete;
    Told& operator=(const Told&) = delete;
};

TEST(Protocols, are_told_of_a_connection_from_its_beginning_to_its_end) {
    asyncio::run([]() -> Coro<> {
        auto ends = co_await connected<Recorder>();
        EXPECT_EQ(ends.protocol->events, Events{"made"});
        EXPECT_EQ(ends.protocol->transport, ends.transport);
        co_await asyncio::sock_sendall(ends.peer, "hello");
        co_await until([&] { return ends.protocol->received == "hello"; });
        ends.peer.close();
        co_await until([&] { return ends.protocol->is_lost(); });
        EXPECT_EQ(ends.protocol->events, (Events{"made", "data", "eof", "lost"}));
        EXPECT_EQ(ends.protocol->loss, nullptr);
        EXPECT_TRUE(ends.transport.is_closing());
        EXPECT_EQ(ends.transport.get_protocol(), nullptr);
    });
}

TEST(Protocols, are_made_in_one_turn_and_given_data_in_the_next) {
    asyncio::run([]() -> Coro<> {
        auto sockets = asyncio::Socket::pair();
        co_await asyncio::sock_sendall(sockets.second, "early");
        auto protocol = std::make_shared<Recorder>();
        const auto factory = [&] { return protocol; };
        auto options = asyncio::ConnectionOptions().sock(std::move(sockets.first));
        co_await asyncio::create_connection(factory, options);
        // As in asyncio, who created it goes on before the first data comes.
        EXPECT_EQ(protocol->events, Events{"made"});
        co_await asyncio::sleep(0);
        EXPECT_EQ(protocol->events, (Events{"made", "data"}));
        protocol->transport.close();
        EXPECT_EQ(protocol->events, (Events{"made", "data"}));
        co_await asyncio::sleep(0);
        EXPECT_EQ(protocol->events, (Events{"made", "data", "lost"}));
    });
}

TEST(Protocols, that_keep_open_at_eof_may_go_on_writing) {
    asyncio::run([]() -> Coro<> {
        auto protocol = std::make_shared<Recorder>();
        protocol->keeps_open = true;
        auto ends = co_await connected<Recorder>(protocol);
        ends.peer.shutdown(SHUT_WR);
        co_await until([&] { return protocol->has("eof"); });
        co_await turns(5);
        EXPECT_FALSE(ends.transport.is_closing());
        ends.transport.write("still here");
        const std::string answer = co_await asyncio::sock_recv(ends.peer, 100);
        EXPECT_EQ(answer, "still here");
        EXPECT_EQ(protocol->events, (Events{"made", "eof"}));
        ends.transport.close();
        co_await until([&] { return protocol->is_lost(); });
        EXPECT_EQ(protocol->events, (Events{"made", "eof", "lost"}));
    });
}

TEST(Protocols, are_paused_above_the_high_mark_and_resumed_at_the_low_one) {
    asyncio::run([]() -> Coro<> {
        auto ends = co_await connected<Recorder>();
        ends.transport.set_write_buffer_limits(1000, 100);
        EXPECT_EQ(ends.transport.get_write_buffer_limits(), std::make_pair(100ul, 1000ul));
        const std::string data(1 << 20, 'x');
        ends.transport.write(data);
        EXPECT_EQ(ends.protocol->events, (Events{"made", "pause"}));
        EXPECT_GT(ends.transport.get_write_buffer_size(), 1000u);
        ends.transport.write(data); // no second call
        EXPECT_EQ(ends.protocol->events, (Events{"made", "pause"}));
        std::size_t received = 0;
        while (received < 2 * data.size()) {
            const std::string part = co_await asyncio::sock_recv(ends.peer, 100'000);
            received += part.size();
            if (ends.protocol->has("resume")) {
                EXPECT_LE(ends.transport.get_write_buffer_size(), 100u);
            }
        }
        co_await until([&] { return ends.protocol->has("resume"); });
        EXPECT_EQ(ends.protocol->events, (Events{"made", "pause", "resume"}));
        EXPECT_THROW(ends.transport.set_write_buffer_limits(1, 2), asyncio::ValueError);
    });
}

TEST(Protocols, are_not_resumed_once_the_transport_closes) {
    asyncio::run([]() -> Coro<> {
        auto ends = co_await connected<Recorder>();
        const std::string data(1 << 20, 'x');
        ends.transport.write(data);
        ends.transport.close();
        EXPECT_EQ(ends.protocol->events, (Events{"made", "pause"}));
        std::size_t received = 0;
        for (;;) {
            const std::string part = co_await asyncio::sock_recv(ends.peer, 100'000);
            if (part.empty()) break;
            received += part.size();
        }
        EXPECT_EQ(received, data.size()); // what was written before close() went out
        co_await until([&] { return ends.protocol->is_lost(); });
        EXPECT_EQ(ends.protocol->events, (Events{"made", "pause", "lost"}));
    });
}

TEST(Protocols, are_paused_at_once_if_the_limit_sinks_below_what_is_kept) {
    asyncio::run([]() -> Coro<> {
        auto ends = co_await connected<Recorder>();
        ends.transport.set_write_buffer_limits(8 << 20);
        ends.transport.write(std::string(1 << 20, 'x'));
        EXPECT_EQ(ends.protocol->events, Events{"made"});
        ends.transport.set_write_buffer_limits(0);
        EXPECT_EQ(ends.protocol->events, (Events{"made", "pause"}));
        ends.transport.set_write_buffer_limits(8 << 20);
        EXPECT_EQ(ends.protocol->events, (Events{"made", "pause", "resume"}));
    });
}

struct Throwing : Recorder {
    std::string at;
    std::function<void()> what = [] { throw std::logic_error("thrown by the protocol"); };
    void fail(const char* callback) const {
        if (at == callback) what();
    }
    void connection_made(Transport given) override {
        Recorder::connection_made(given);
        fail("connection_made");
    }
    void data_received(std::string_view data) override {
        Recorder::data_received(data);
        fail("data_received");
    }
    bool eof_received() override {
        Recorder::eof_received();
        fail("eof_received");
        return false;
    }
    void connection_lost(std::exception_ptr exception) override {
        Recorder::connection_lost(exception);
        fail("connection_lost");
    }
    void pause_writing() override {
        Recorder::pause_writing();
        fail("pause_writing");
    }
    void resume_writing() override {
        Recorder::resume_writing();
        fail("resume_writing");
    }
};

Coro<Ends<Throwing>> throwing(const char* at) {
    auto protocol = std::make_shared<Throwing>();
    protocol->at = at;
    co_return co_await connected<Throwing>(protocol);
}

TEST(Protocols, that_throw_for_data_lose_their_connection) {
    asyncio::run([]() -> Coro<> {
        const Told told;
        auto ends = co_await throwing("data_received");
        co_await asyncio::sock_sendall(ends.peer, "x");
        co_await until([&] { return ends.protocol->is_lost(); });
        EXPECT_EQ(told.messages, Events{"Fatal error: protocol.data_received() call failed."});
        EXPECT_EQ(told.exceptions, Events{"thrown by the protocol"});
        EXPECT_EQ(what_of(ends.protocol->loss), "thrown by the protocol");
    });
}

TEST(Protocols, that_throw_at_eof_lose_their_connection) {
    asyncio::run([]() -> Coro<> {
        const Told told;
        auto ends = co_await throwing("eof_received");
        ends.peer.close();
        co_await until([&] { return ends.protocol->is_lost(); });
        EXPECT_EQ(told.messages, Events{"Fatal error: protocol.eof_received() call failed."});
        EXPECT_EQ(what_of(ends.protocol->loss), "thrown by the protocol");
    });
}

TEST(Protocols, that_throw_a_system_error_lose_their_connection_without_a_word) {
    asyncio::run([]() -> Coro<> {
        const Told told;
        auto ends = co_await throwing("data_received");
        ends.protocol->what = [] { throw std::system_error(EIO, std::generic_category(), "disk"); };
        co_await asyncio::sock_sendall(ends.peer, "x");
        co_await until([&] { return ends.protocol->is_lost(); });
        EXPECT_EQ(told.messages, Events{});
        EXPECT_NE(what_of(ends.protocol->loss).find("disk"), std::string::npos);
    });
}

TEST(Protocols, that_throw_elsewhere_keep_their_connection) {
    asyncio::run([]() -> Coro<> {
        for (const char* at : {"connection_made", "pause_writing", "resume_writing"}) {
            const Told told;
            auto ends = co_await throwing(at);
            ends.transport.write(std::string(1 << 20, 'x'));
            std::size_t received = 0;
            while (received < 1u << 20) {
                const std::string part = co_await asyncio::sock_recv(ends.peer, 100'000);
                received += part.size();
            }
            co_await asyncio::sock_sendall(ends.peer, "hello");
            co_await until([&] { return ends.protocol->received == "hello"; });
            EXPECT_FALSE(ends.transport.is_closing()) << at;
            EXPECT_EQ(told.messages.size(), 1u) << at;
            EXPECT_EQ(told.exceptions, Events{"thrown by the protocol"}) << at;
        }
    });
}

TEST(Protocols, that_throw_at_the_end_are_reported) {
    asyncio::run([]() -> Coro<> {
        const Told told;
        auto ends = co_await throwing("connection_lost");
        ends.transport.close();
        co_await until([&] { return ends.protocol->is_lost(); });
        EXPECT_EQ(told.messages, Events{"protocol.connection_lost() failed"});
        // The connection is closed all the same.
        const std::string end = co_await asyncio::sock_recv(ends.peer, 10);
        EXPECT_EQ(end, "");
    });
}

Coro<> provoke(Ends<Throwing>& ends, std::string at) {
    if (at == "data_received") co_await asyncio::sock_sendall(ends.peer, "a");
    if (at == "pause_writing") ends.transport.write(std::string(1 << 20, 'x'));
    if (at == "connection_lost") ends.transport.abort();
    co_await turns(3);
    ADD_FAILURE() << "no interrupt came";
}

Coro<> go_on_after_interrupt(Ends<Throwing>& ends) {
    ends.protocol->what = [] {};
    if (!ends.transport.is_closing()) {
        const std::string before = ends.protocol->received;
        co_await asyncio::sock_sendall(ends.peer, "b");
        co_await until([&] { return ends.protocol->received == before + "b"; });
        ends.transport.abort();
    }
    co_await until([&] { return ends.protocol->is_lost(); });
    const std::string rest = co_await asyncio::sock_recv(ends.peer, 10);
    EXPECT_TRUE(rest.empty() || rest[0] == 'x');
}

TEST(Protocols, that_are_interrupted_leave_run_forever_and_go_on_after_that) {
    for (const char* at : {"data_received", "connection_lost", "pause_writing"}) {
        const auto loop = asyncio::new_event_loop();
        auto ends = asyncio::run_until_complete(*loop, throwing(at));
        ends.protocol->what = [] { throw asyncio::KeyboardInterrupt(); };
        // The task is stopped before its end, and dropped by a loop of its own.
        auto task = asyncio::create_task(*loop, provoke(ends, at));
        EXPECT_THROW(loop->run_forever(), asyncio::KeyboardInterrupt) << at;
        task.cancel();
        asyncio::run_until_complete(*loop, go_on_after_interrupt(ends));
    }
}

// Every callback's variables are those of the transport, whoever set them.
TEST(Protocols, run_in_the_context_in_which_the_transport_was_made) {
    static asyncio::ContextVar<int> variable("variable", 0);
    struct Seen : Recorder {
        std::vector<int> values;
        void connection_made(Transport given) override {
            values.push_back(variable.get());
            Recorder::connection_made(given);
        }
        void data_received(std::string_view data) override {
            values.push_back(variable.get());
            variable.set(2); // stays for the callbacks to come
            Recorder::data_received(data);
        }
        void connection_lost(std::exception_ptr exception) override {
            values.push_back(variable.get());
            Recorder::connection_lost(exception);
        }
    };
    asyncio::run([]() -> Coro<> {
        variable.set(1);
        auto ends = co_await connected<Seen>();
        variable.set(7);
        co_await asyncio::sock_sendall(ends.peer, "x");
        co_await until([&] { return !ends.protocol->received.empty(); });
        ends.transport.close();
        co_await until([&] { return ends.protocol->is_lost(); });
        EXPECT_EQ(ends.protocol->values, (std::vector<int>{1, 1, 2}));
        EXPECT_EQ(variable.get(), 7);
    });
}

// --- buffered ones
// --------------------------------------------------------------------------------

struct Buffered : Recording<asyncio::BufferedProtocol> {
    std::string received;
    std::string buffer = std::string(4, '\0');
    std::function<void()> in_get_buffer = [] {};
    std::function<void()> in_updated = [] {};

    asyncio::WritableBytes get_buffer(std::ptrdiff_t size_hint) override {
        EXPECT_EQ(size_hint, -1);
        in_get_buffer();
        return buffer;
    }
    void buffer_updated(std::size_t count) override {
        EXPECT_LE(count, buffer.size());
        EXPECT_GT(count, 0u);
        received.append(buffer, 0, count);
        in_updated();
    }
};

TEST(BufferedProtocols, receive_into_their_own_buffer_piece_by_piece) {
    asyncio::run([]() -> Coro<> {
        auto ends = co_await connected<Buffered>();
        co_await asyncio::sock_sendall(ends.peer, "hello, buffers");
        co_await until([&] { return ends.protocol->received == "hello, buffers"; });
        ends.protocol->keeps_open = true;
        ends.peer.shutdown(SHUT_WR);
        co_await until([&] { return ends.protocol->has("eof"); });
        ends.transport.write("bye");
        const std::string answer = co_await asyncio::sock_recv(ends.peer, 10);
        EXPECT_EQ(answer, "bye");
        ends.transport.close();
        co_await until([&] { return ends.protocol->is_lost(); });
        EXPECT_EQ(ends.protocol->events, (Events{"made", "eof", "lost"}));
    });
}

TEST(BufferedProtocols, that_give_no_room_lose_their_connection) {
    asyncio::run([]() -> Coro<> {
        const Told told;
        auto ends = co_await connected<Buffered>();
        co_await turns(2);
        ends.protocol->buffer.clear();
        co_await asyncio::sock_sendall(ends.peer, "x");
        co_await until([&] { return ends.protocol->is_lost(); });
        EXPECT_EQ(told.messages, Events{"Fatal error: protocol.get_buffer() call failed."});
        EXPECT_EQ(what_of(ends.protocol->loss), "get_buffer() returned an empty buffer");
    });
}

TEST(BufferedProtocols, that_throw_lose_their_connection) {
    asyncio::run([]() -> Coro<> {
        for (const bool early : {true, false}) {
            const Told told;
            auto ends = co_await connected<Buffered>();
            const auto fail = [] { throw std::logic_error("no room"); };
            (early ? ends.protocol->in_get_buffer : ends.protocol->in_updated) = fail;
            co_await asyncio::sock_sendall(ends.peer, "x");
            co_await until([&] { return ends.protocol->is_lost(); });
            EXPECT_EQ(told.messages,
                      Events{early ? "Fatal error: protocol.get_buffer() call failed."
                                   : "Fatal error: protocol.buffer_updated() call failed."});
            EXPECT_EQ(what_of(ends.protocol->loss), "no room");
        }
    });
}

TEST(BufferedProtocols, may_pause_or_close_or_hand_over_as_they_give_their_buffer) {
    asyncio::run([]() -> Coro<> {
        auto ends = co_await connected<Buffered>();
        co_await turns(2);
        ends.protocol->in_get_buffer = [&] { ends.transport.pause_reading(); };
        co_await asyncio::sock_sendall(ends.peer, "abc");
        co_await turns(5);
        EXPECT_EQ(ends.protocol->received, "");
        const auto next = std::make_shared<Recorder>();
        ends.protocol->in_get_buffer = [&] { ends.transport.set_protocol(next); };
        ends.transport.resume_reading();
        co_await until([&] { return next->received == "abc"; });
        EXPECT_EQ(ends.protocol->received, "");
        const auto last = std::make_shared<Buffered>();
        last->in_get_buffer = [&] { ends.transport.close(); };
        ends.transport.set_protocol(last);
        co_await asyncio::sock_sendall(ends.peer, "def");
        co_await until([&] { return last->is_lost(); });
        EXPECT_EQ(last->received, "");
    });
}

} // namespace
