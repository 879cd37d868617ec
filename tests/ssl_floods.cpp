// SPDX-License-Identifier: MIT
// Peers that speak TLS as fast as they can, and say nothing by it: whatever a connection waits for,
// others have their turns meanwhile.
#include "support/protocols.hpp"
#include "support/streams.hpp"
#include "support/tls_contexts.hpp"
#include "support/tls_pair.hpp"

#include <asyncio/asyncio.hpp>
#include <asyncio/ssl.hpp>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <openssl/bio.h>
#include <openssl/ssl.h>
#include <stdexcept>
#include <string>
#include <string_view>
#include <sys/socket.h>
#include <system_error>
#include <utility>

namespace ssl = asyncio::ssl;
using asyncio::ConnectionOptions;
using asyncio::Coro;
using asyncio::create_task;
using asyncio::StartTlsOptions;
using asyncio::SystemCalls;
using asyncio_test::authority;
using asyncio_test::client_context;
using asyncio_test::Recorder;
using asyncio_test::server_context;
using asyncio_test::TlsEnd;
using asyncio_test::TlsStatus;
using asyncio_test::turns;
using asyncio_test::until;

namespace {

// What has come for one connection of ours, which gets a piece of it by each call; then what really
// has come.
struct Flood {
    static constexpr std::size_t piece = 2700;
    int descriptor = -1;
    std::string data;
    std::size_t taken = 0;

    bool is_over() const noexcept { return taken == data.size(); }
    int pieces() const noexcept { return static_cast<int>(data.size() / piece); }
};
Flood flood;

asyncio::RunOptions with_a_flood() {
    static const SystemCalls table = [] {
        SystemCalls t = SystemCalls::real();
        t.recv = [](int descriptor, void* into, std::size_t size, int flags) -> ssize_t {
            if (descriptor != flood.descriptor || flood.is_over())
                return ::recv(descriptor, into, size, flags);
            const std::size_t count =
                std::min({size, Flood::piece, flood.data.size() - flood.taken});
            std::memcpy(into, flood.data.data() + flood.taken, count);
            flood.taken += count;
            return static_cast<ssize_t>(count);
        };
        return t;
    }();
    return asyncio::RunOptions().loop(asyncio::LoopOptions().system_calls(table));
}

// A server's end of TLS by OpenSSL alone: it makes what ours never sends.
class Peer {
  public:
    explicit Peer(asyncio::Socket socket) : socket_(std::move(socket)) {
        static const asyncio_test::Issued issued = authority().issue({});
        SSL_CTX* const context = SSL_CTX_new(TLS_server_method());
        SSL_CTX_use_certificate_chain_file(context, issued.certificate.c_str());
        SSL_CTX_use_PrivateKey_file(context, issued.key.c_str(), SSL_FILETYPE_PEM);
        ssl_.reset(SSL_new(context));
        SSL_CTX_free(context);
        SSL_set_accept_state(ssl_.get());
        SSL_set_bio(ssl_.get(), BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    }

    Coro<> send(std::string ciphertext) { co_await asyncio::sock_sendall(socket_, ciphertext); }
    Coro<> handshake() {
        for (;;) {
            const bool is_done = SSL_do_handshake(ssl_.get()) == 1;
            const std::string output = taken();
            if (!output.empty()) co_await asyncio::sock_sendall(socket_, output);
            if (is_done) co_return;
            co_await feed();
        }
    }
    // That of a session inside of it.
    Coro<> handshake(TlsEnd& inside) {
        for (;;) {
            inside.step_handshake();
            co_await send(sealed(inside));
            if (inside.status != TlsStatus::want_input) co_return;
            co_await feed();
            char plain[16384];
            std::size_t count = 0;
            while (SSL_read_ex(ssl_.get(), plain, sizeof plain, &count) == 1)
                inside.session->feed({plain, count});
        }
    }

    std::string sealed(std::string_view plain) {
        std::size_t count = 0;
        if (!plain.empty()) SSL_write_ex(ssl_.get(), plain.data(), plain.size(), &count);
        return taken();
    }
    std::string sealed(TlsEnd& inside) {
        std::string all = sealed(inside.session->output());
        inside.session->take_output(inside.session->output().size());
        return all;
    }
    std::string changes_of_keys(int count, int kind = SSL_KEY_UPDATE_NOT_REQUESTED) {
        for (int i = 0; i < count; ++i) {
            if (SSL_key_update(ssl_.get(), kind) != 1 || SSL_do_handshake(ssl_.get()) != 1)
                throw std::runtime_error("the keys cannot be changed");
        }
        return taken();
    }
    std::string end() {
        SSL_shutdown(ssl_.get());
        return taken();
    }

  private:
    struct Freed {
        void operator()(SSL* ssl) const noexcept { SSL_free(ssl); }
    };

    Coro<> feed() {
        const std::string data = co_await asyncio::sock_recv(socket_, 65536);
        if (data.empty()) throw std::runtime_error("the client has ended");
        BIO_write(SSL_get_rbio(ssl_.get()), data.data(), static_cast<int>(data.size()));
    }
    std::string taken() {
        char* data = nullptr;
        BIO* const output = SSL_get_wbio(ssl_.get());
        std::string all;
        if (const long size = BIO_get_mem_data(output, &data); size > 0)
            all.assign(data, static_cast<std::size_t>(size));
        static_cast<void>(BIO_reset(output));
        return all;
    }

    asyncio::Socket socket_;
    std::unique_ptr<SSL, Freed> ssl_;
};

void begin_flood(int descriptor, std::string data) {
    flood = {.descriptor = descriptor, .data = std::move(data)};
}
// Others have had a turn at least for so many pieces of it.
void expect_turns_in_flood(int count) {
    constexpr int most_pieces_in_a_turn = 17;
    EXPECT_TRUE(flood.is_over());
    EXPECT_GE(count, flood.pieces() / most_pieces_in_a_turn);
    EXPECT_GT(flood.pieces(), 5 * most_pieces_in_a_turn);
    flood = {};
}

class Turns {
  public:
    Turns() : task_(create_task(count_them, &count_)) {}
    Turns(const Turns&) = delete;
    Turns& operator=(const Turns&) = delete;
    ~Turns() { task_.cancel(); }
    int count() const noexcept { return count_; }

  private:
    static Coro<> count_them(int* counter) {
        for (;; ++*counter) co_await asyncio::sleep(0);
    }
    int count_ = 0;
    asyncio::Task<> task_;
};

ConnectionOptions options_for(asyncio::Socket socket) {
    ConnectionOptions options;
    options.ssl(client_context()).server_hostname("localhost").sock(std::move(socket));
    return options;
}
int descriptor_of(const asyncio::StreamWriter& writer) {
    return writer.get_extra_info(asyncio::socket_info).fileno();
}

// Nothing has come before the flood then, as tickets have.
Coro<> expect_greeting(Peer& peer, asyncio::StreamReader reader, std::string sealed) {
    co_await peer.send(std::move(sealed));
    const std::string text = co_await reader.readexactly(2);
    EXPECT_EQ(text, "hi");
}
Coro<asyncio::Streams> greeted(Peer& peer, asyncio::Socket socket) {
    auto opening = create_task(asyncio::open_connection(options_for(std::move(socket))));
    co_await peer.handshake();
    asyncio::Streams streams = co_await opening;
    co_await expect_greeting(peer, streams.first, peer.sealed("hi"));
    co_return streams;
}

constexpr int many = 10'000; // of what has 27 bytes

} // namespace

TEST(SslFloods, of_changes_of_keys_do_not_hold_up_others_while_a_stream_is_read) {
    asyncio::run(with_a_flood(), []() -> Coro<> {
        auto both = asyncio::Socket::pair();
        Peer peer(std::move(both.second));
        auto [reader, writer] = co_await greeted(peer, std::move(both.first));
        begin_flood(descriptor_of(writer), peer.changes_of_keys(many));
        const Turns others;
        co_await peer.send(peer.sealed("hello"));
        const std::string text = co_await reader.readexactly(5);
        EXPECT_EQ(text, "hello");
        expect_turns_in_flood(others.count());
        begin_flood(descriptor_of(writer), peer.changes_of_keys(many));
        const Turns again;
        co_await peer.send(peer.sealed("hello"));
        std::string buffer(10, ' ');
        const std::size_t count = co_await reader.read_into(buffer);
        EXPECT_EQ(count, 5U);
        expect_turns_in_flood(again.count());
        writer.abort();
    });
}

TEST(SslFloods, of_changes_of_keys_do_not_hold_up_others_while_a_transport_receives) {
    asyncio::run(with_a_flood(), []() -> Coro<> {
        auto both = asyncio::Socket::pair();
        const auto factory = [] { return std::make_unique<Recorder>(); };
        const ConnectionOptions options = options_for(std::move(both.first));
        auto creating = create_task(asyncio::create_connection(factory, options));
        Peer peer(std::move(both.second));
        co_await peer.handshake();
        auto created = co_await creating;
        co_await turns(3);
        begin_flood(created.transport.get_extra_info(asyncio::socket_info).fileno(),
                    peer.changes_of_keys(many));
        const Turns others;
        co_await peer.send(peer.sealed("hello"));
        co_await until([&] { return created.protocol->received == "hello"; });
        expect_turns_in_flood(others.count());
        created.transport.abort();
    });
}

// Each of which is answered: a peer that does not take the answers does not make us keep them all.
TEST(SslFloods, of_requests_for_new_keys_are_cut_off_when_nobody_takes_the_answers) {
    asyncio::run(with_a_flood(), []() -> Coro<> {
        auto both = asyncio::Socket::pair();
        Peer peer(std::move(both.second));
        auto [reader, writer] = co_await greeted(peer, std::move(both.first));
        asyncio_test::make_small(writer);
        begin_flood(descriptor_of(writer), peer.changes_of_keys(many, SSL_KEY_UPDATE_REQUESTED));
        co_await peer.send(peer.sealed("hello"));
        const auto read = co_await asyncio::as_result(reader.readexactly(5));
        EXPECT_TRUE(read.failed_with<std::system_error>());
        EXPECT_NE(asyncio_test::what_of(read).find("new keys"), std::string::npos)
            << asyncio_test::what_of(read);
        EXPECT_LT(writer.get_write_buffer_size(), 150'000U);
        flood = {};
        writer.abort();
    });
}

// The outer session goes on as long as its peer likes, and the inner one hears nothing.
TEST(SslFloods, of_the_outer_session_do_not_hold_up_others_during_the_inner_handshake) {
    asyncio::run(with_a_flood(), []() -> Coro<> {
        auto both = asyncio::Socket::pair();
        Peer peer(std::move(both.second));
        auto [reader, writer] = co_await greeted(peer, std::move(both.first));
        auto upgrading = create_task([](asyncio::StreamWriter to) -> Coro<> {
            co_await to.start_tls(client_context(), StartTlsOptions().server_hostname("localhost"));
        }(writer));
        co_await turns(5);
        begin_flood(descriptor_of(writer), peer.changes_of_keys(many));
        const Turns others;
        co_await peer.send(peer.changes_of_keys(1));
        co_await until([] { return flood.is_over(); });
        expect_turns_in_flood(others.count());
        EXPECT_FALSE(upgrading.done());
        upgrading.cancel();
        const auto cancelled = co_await asyncio::as_result(upgrading);
        EXPECT_TRUE(cancelled.failed_with<asyncio::CancelledError>());
    });
}

TEST(SslFloods, of_data_do_not_hold_up_others_while_a_connection_is_closed) {
    for (const bool inside : {false, true}) {
        SCOPED_TRACE(inside ? "TLS inside of TLS" : "TLS");
        asyncio::run(with_a_flood(), [inside]() -> Coro<> {
            auto both = asyncio::Socket::pair();
            auto opening =
                create_task(asyncio::open_connection(options_for(std::move(both.first))));
            Peer peer(std::move(both.second));
            co_await peer.handshake();
            auto [reader, writer] = co_await opening;
            TlsEnd inner{.session = server_context().tls()->server()};
            if (inside) {
                auto upgrading = create_task([](asyncio::StreamWriter to) -> Coro<> {
                    co_await to.start_tls(client_context(),
                                          StartTlsOptions().server_hostname("localhost"));
                }(writer));
                co_await peer.handshake(inner);
                co_await upgrading;
            }
            const auto sealed = [&](const std::string& plain) {
                if (!inside) return peer.sealed(plain);
                inner.session->write(plain);
                return peer.sealed(inner);
            };
            co_await expect_greeting(peer, reader, sealed("hi"));
            std::string data;
            for (int i = 0; i < 300; ++i) data += sealed(std::string(2000, 'x'));
            begin_flood(descriptor_of(writer), std::move(data));
            const Turns others;
            writer.close();
            std::string last = sealed("the last of it");
            if (inside) {
                inner.session->shutdown();
                last += peer.sealed(inner);
            }
            last += peer.end();
            co_await peer.send(std::move(last));
            const auto closed = co_await asyncio::as_result(writer.wait_closed());
            EXPECT_TRUE(closed.has_value()) << asyncio_test::what_of(closed.exception());
            expect_turns_in_flood(others.count());
        });
    }
}
