// SPDX-License-Identifier: MIT
// TLS and memory: a warm connection allocates nothing for a message, and when the k-th allocation
// fails, for every k, ours or OpenSSL's, it is an error and nothing leaks.
//
// A program of its own, since what OpenSSL allocates by is set once, before it is used.
#include "support/certificates.hpp"
#include "support/some_bytes.hpp"
#include "support/tls_pair.hpp"
#include "support/what_of.hpp"

#include <asyncio/asyncio.hpp>
#include <asyncio/ssl.hpp>
#include <asyncio/testing/virtual_time.hpp>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <malloc.h>
#include <memory>
#include <new>
#include <openssl/crypto.h>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ssl = asyncio::ssl;
using asyncio::Coro;
using asyncio_test::Authority;
using asyncio_test::Issued;
using asyncio_test::TlsEnd;
using asyncio_test::TlsPair;
using asyncio_test::TlsStatus;
using asyncio_test::what_of;

namespace {

constexpr std::size_t never = static_cast<std::size_t>(-1);

struct Allocator {
    std::size_t count = 0;
    std::size_t largest = 0; // bytes
    std::size_t until_failure = never;
    std::ptrdiff_t living = 0; // blocks
    std::size_t bytes = 0;     // of these
    bool failed = false;

    ASYNCIO_NOINLINE void* allocate(std::size_t size, void* old = nullptr) {
        ++count;
        largest = std::max(largest, size);
        if (until_failure != never && until_failure-- == 0) {
            until_failure = never;
            failed = true;
            return nullptr;
        }
        const std::size_t old_bytes = ::malloc_usable_size(old);
        void* const block = std::realloc(old, size > 0 ? size : 1);
        if (block == nullptr) return nullptr;
        if (old == nullptr) ++living;
        bytes += ::malloc_usable_size(block) - old_bytes;
        return block;
    }
    ASYNCIO_NOINLINE void free(void* block) noexcept {
        if (block == nullptr) return;
        --living;
        bytes -= ::malloc_usable_size(block);
        std::free(block);
    }
    void fail_at(std::size_t k) noexcept {
        until_failure = k;
        failed = false;
    }
};
constinit Allocator ours;
constinit Allocator openssls;

const bool replaced =
    CRYPTO_set_mem_functions(
        [](std::size_t size, const char*, int) { return openssls.allocate(size); },
        [](void* block, std::size_t size, const char*, int) {
            return openssls.allocate(size, block);
        },
        [](void* block, const char*, int) { openssls.free(block); }) == 1;

} // namespace

void* operator new(std::size_t size) {
    if (void* const block = ours.allocate(size)) return block;
    throw std::bad_alloc();
}
void operator delete(void* block) noexcept { ours.free(block); }
void operator delete(void* block, std::size_t) noexcept { ours.free(block); }

namespace {

struct Ends {
    Authority authority;
    Issued issued = authority.issue({});
    std::string root = authority.file();

    ssl::Context client() const {
        ssl::Context context =
            ssl::create_default_context(ssl::Purpose::SERVER_AUTH, {.cafile = root});
        context.set_alpn_protocols({"inside"});
        return context;
    }
    ssl::Context server() const {
        ssl::Context context = ssl::create_default_context(ssl::Purpose::CLIENT_AUTH);
        context.load_cert_chain(issued.certificate, issued.key);
        context.set_alpn_protocols({"inside"});
        return context;
    }
};

} // namespace

TEST(TlsMemory, a_warm_connection_allocates_nothing_for_a_message) {
    ASSERT_TRUE(replaced);
    for (const ssl::TLSVersion version : {ssl::TLSVersion::TLSv1_2, ssl::TLSVersion::TLSv1_3}) {
        const Ends ends;
        ssl::Context client = ends.client();
        client.set_maximum_version(version);
        TlsPair pair(client, ends.server(), "localhost");
        ASSERT_TRUE(pair.handshake());
        pair.settle();
        const std::string message(40000, 'x');
        static std::array<char, 65536> received;
        const auto exchange = [&](TlsEnd& from, TlsEnd& to, std::size_t size) {
            EXPECT_EQ(from.session->write(std::string_view(message).substr(0, size)),
                      TlsStatus::done);
            std::string_view ciphertext = from.session->output();
            const std::size_t sent = ciphertext.size();
            // Some of it fed, some lent.
            to.session->feed(ciphertext.substr(0, 10));
            ciphertext.remove_prefix(10);
            std::size_t count = 0;
            std::size_t all = 0;
            while (to.session->read(received, count, ciphertext) == TlsStatus::done) all += count;
            from.session->take_output(sent);
            EXPECT_EQ(all, size);
        };
        const auto both = [&] {
            for (const std::size_t size : {1u, 64u, 1000u, 16384u, 40000u}) {
                exchange(pair.client, pair.server, size);
                exchange(pair.server, pair.client, size);
            }
        };
        both();
        const std::size_t of_ours = ours.count;
        openssls.largest = 0;
        for (int i = 0; i < 100; ++i) both();
        EXPECT_EQ(ours.count - of_ours, 0u);
        // OpenSSL has a note of some bytes in each record that it makes or takes apart.
        EXPECT_LE(openssls.largest, 64u);
        // The counters do count.
        pair.client.session->release_memory();
        exchange(pair.client, pair.server, 1000);
        EXPECT_GT(ours.count, of_ours);
        EXPECT_GT(openssls.largest, 16384u);
    }
}

TEST(TlsMemory, an_idle_connection_gives_its_buffers_back) {
    const Ends ends;
    TlsPair pair(ends.client(), ends.server(), "localhost");
    ASSERT_TRUE(pair.handshake());
    pair.settle();
    const std::ptrdiff_t before = openssls.living;
    pair.client.session->release_memory();
    EXPECT_EQ(openssls.living, before - 2); // what it reads into, what it writes from
    EXPECT_EQ(pair.send(pair.client, pair.server, "hello"), "hello");
    EXPECT_EQ(pair.send(pair.server, pair.client, "hello"), "hello");
    EXPECT_EQ(openssls.living, before);
}

// Of the connections that have been used, those that were used last keep their buffers.
TEST(TlsMemory, of_many_idle_connections_is_that_of_few) {
    constexpr int count = 100; // each has two ends
    const auto handle = [](asyncio::StreamReader reader, asyncio::StreamWriter writer) -> Coro<> {
        while (auto line = co_await reader.next()) writer.write(*line);
    };
    // What a session gives back, in blocks of OpenSSL's; 2 if it was warm.
    const auto given_back = [](const asyncio::StreamWriter& writer) {
        const std::ptrdiff_t before = openssls.living;
        writer.state().tls()->release_memory();
        return before - openssls.living;
    };
    const auto echo = [](const asyncio::Streams& streams) -> Coro<> {
        streams.second.write("hello\n");
        const std::string line = co_await streams.first.readline();
        EXPECT_EQ(line, "hello\n");
    };
    const Ends ends;
    asyncio::run([&]() -> Coro<> {
        auto server = co_await asyncio::start_server(handle, "127.0.0.1", 0,
                                                     asyncio::ServerOptions().ssl(ends.server()));
        const std::uint16_t port = server.sockets().at(0).port();
        const ssl::Context client = ends.client();
        std::vector<asyncio::Streams> all;
        for (int i = 0; i < count; ++i) {
            const asyncio::ConnectionOptions options = asyncio::ConnectionOptions().ssl(client);
            all.push_back(co_await asyncio::open_connection("localhost", port, options));
            co_await echo(all.back());
        }
        // The first is cold, and is warm again once it is used.
        EXPECT_EQ(given_back(all.front().second), 0);
        co_await echo(all.front());
        EXPECT_EQ(given_back(all.front().second), 2);
        std::ptrdiff_t warm = 0;
        for (const asyncio::Streams& streams : all) warm += given_back(streams.second) / 2;
        EXPECT_GE(warm, asyncio::detail::WarmSessions::most / 2 - 2);
        EXPECT_LE(warm, asyncio::detail::WarmSessions::most / 2 + 2);
        // One that ends is forgotten, and its place taken.
        all.erase(all.begin(), all.begin() + count / 2);
        co_await asyncio::sleep(0);
        for (const asyncio::Streams& streams : all) co_await echo(streams);
        server.close();
        server.abort_clients();
    }());
}

namespace {

// All that a program does with TLS; true if it went well, and else it throws.
bool whole_life(const Ends& ends) {
    ssl::Context client = ends.client();
    ssl::Context server = ends.server();
    server.set_servername_callback([](ssl::Object& object, auto, const ssl::Context& context) {
        object.set_context(context);
    });
    TlsPair pair(client, server, "localhost");
    if (!pair.handshake()) {
        pair.server.rethrow();
        pair.client.rethrow();
        return false;
    }
    pair.settle();
    pair.client.rethrow();
    pair.server.rethrow();
    const std::string message(20000, 'x');
    pair.send(pair.client, pair.server, message);
    pair.client.rethrow();
    pair.server.rethrow();
    if (pair.server.received != message) return false;
    const auto certificate = pair.client.object().getpeercert();
    const std::string der = pair.client.object().getpeercert_der();
    const std::optional<ssl::Cipher> cipher = pair.client.object().cipher();
    const ssl::Session session = pair.client.object().session();
    TlsPair again(client, server, "localhost", std::string::npos, &session);
    if (!again.handshake()) {
        again.server.rethrow();
        again.client.rethrow();
        return false;
    }
    pair.client.session->shutdown();
    pair.carry(pair.client, pair.server, [](TlsEnd& end) { end.step_read(); });
    pair.client.rethrow();
    pair.server.rethrow();
    return certificate && !der.empty() && cipher && pair.server.status == TlsStatus::closed;
}

// Runs a whole life for each allocation, which fails; gives how many did.
enum class Told { as_bad_alloc, somehow };
std::size_t fail_each(const Ends& ends, Allocator& allocator, Told how, std::size_t step = 1) {
    for (int i = 0; i < 2; ++i) EXPECT_TRUE(whole_life(ends)); // what is made once is there
    for (std::size_t k = 0;; k += step) {
        const std::ptrdiff_t before = ours.living;
        const std::ptrdiff_t openssls_before = openssls.living;
        std::string told;
        bool good = false;
        allocator.fail_at(k);
        try {
            good = whole_life(ends);
        } catch (const std::bad_alloc&) {
            told = "bad_alloc";
        } catch (const std::exception& e) {
            allocator.until_failure = never;
            told = e.what();
        }
        allocator.until_failure = never;
        EXPECT_EQ(good, told.empty()) << "allocation " << k;
        if (how == Told::as_bad_alloc) {
            EXPECT_EQ(told, allocator.failed ? "bad_alloc" : "") << "allocation " << k;
            EXPECT_EQ(openssls.living, openssls_before) << "allocation " << k;
        }
        std::string().swap(told);
        EXPECT_EQ(ours.living, before) << "allocation " << k;
        EXPECT_EQ(ERR_peek_error(), 0u) << "allocation " << k;
        if (!allocator.failed) return k;
    }
}

} // namespace

TEST(TlsMemory, an_allocation_of_ours_that_fails_is_bad_alloc) {
    const Ends ends;
    EXPECT_GT(fail_each(ends, ours, Told::as_bad_alloc), 30u);
}

// Thousands, of which some are tried. OpenSSL itself does without some, and does not free all.
TEST(TlsMemory, an_allocation_of_openssls_that_fails_is_an_error) {
    const Ends ends;
    EXPECT_GT(fail_each(ends, openssls, Told::somehow, 101), 1000u);
}

// What a big message needed is not kept for the small ones that follow.
TEST(TlsMemory, a_big_message_leaves_no_big_buffers_behind) {
    const Ends ends;
    TlsPair pair(ends.client(), ends.server(), "localhost");
    ASSERT_TRUE(pair.handshake());
    pair.settle();
    const std::size_t before = ours.bytes;
    {
        const std::string big(std::size_t{16} << 20, 'x');
        EXPECT_EQ(pair.client.session->write(big), TlsStatus::done);
        EXPECT_GT(ours.bytes - before, 2 * big.size());
        while (!pair.client.session->output().empty()) {
            const std::size_t size = pair.client.session->output().size();
            pair.client.session->take_output(std::min(size, std::size_t{100'000}));
        }
    }
    EXPECT_LT(ours.bytes, before + 500'000);
}

namespace {

struct Outcome {
    std::string of_client;
    std::string of_server;
    std::size_t reports = 0;
};
template <class T> std::string told_by(const asyncio::Result<T>& result) {
    return result.exception() != nullptr ? what_of(result) : "";
}

struct Contexts {
    explicit Contexts(const Ends& ends) : client(ends.client()), server(ends.server()) {}
    ssl::Context client;
    ssl::Context server;
};

Coro<asyncio::Streams> stream_of(asyncio::Socket socket) {
    asyncio::ConnectionOptions options;
    options.sock(std::move(socket));
    auto streams = co_await asyncio::open_connection(options);
    co_return streams;
}

// Who is not told by the peer hangs up.
Coro<> start_tls(asyncio::StreamWriter writer, const ssl::Context& context,
                 asyncio::StartTlsOptions options) {
    try {
        co_await writer.start_tls(context, options);
    } catch (...) {
        writer.abort();
        throw;
    }
}

// One more level of TLS; after that every allocation succeeds.
Coro<> upgrade(const Contexts& contexts, const asyncio::Streams& client,
               const asyncio::Streams& server, Outcome& told) {
    const auto of_server = asyncio::StartTlsOptions().server_side(true);
    const auto of_client = asyncio::StartTlsOptions().server_hostname("localhost");
    auto upgrading = asyncio::create_task(start_tls(server.second, contexts.server, of_server));
    const auto upgraded =
        co_await asyncio::as_result(start_tls(client.second, contexts.client, of_client));
    const auto other = co_await asyncio::as_result(upgrading);
    ours.until_failure = never;
    told.of_client = told_by(upgraded);
    told.of_server = told_by(other);
}

// The k-th allocation fails while the last level of TLS begins.
Coro<> begin_with_failure(const Contexts& contexts, int levels, std::size_t k, Outcome& told) {
    auto both = asyncio::Socket::pair();
    const asyncio::Streams client = co_await stream_of(std::move(both.first));
    const asyncio::Streams server = co_await stream_of(std::move(both.second));
    for (int i = 1; i < levels; ++i) co_await upgrade(contexts, client, server, told);
    EXPECT_EQ(told.of_client + told.of_server, "");
    ours.fail_at(k);
    try {
        co_await upgrade(contexts, client, server, told);
    } catch (const std::bad_alloc& error) { // nothing has begun
        ours.until_failure = never;
        told.of_client = error.what();
    }
    client.second.abort();
    server.second.abort();
}

// It fails while the server writes and the client reads, which reads on as long as it can.
Coro<> talk_with_failure(const Contexts& contexts, int levels, std::size_t k, Outcome& told) {
    auto both = asyncio::Socket::pair();
    const asyncio::Streams client = co_await stream_of(std::move(both.first));
    const asyncio::Streams server = co_await stream_of(std::move(both.second));
    for (int i = 0; i < levels; ++i) co_await upgrade(contexts, client, server, told);
    const std::string data = asyncio_test::some_bytes(100'000);
    std::string received;
    received.reserve(data.size());
    static std::array<char, 1000> buffer;
    ours.fail_at(k);
    server.second.write(data);
    if (server.second.is_closing()) {
        told.of_server = "std::bad_alloc";
        server.second.abort();
    }
    for (int failures = 0; failures < 3 && received.size() < data.size();) {
        const auto got = co_await asyncio::as_result(client.first.read_into(buffer));
        if (!got.has_value()) {
            ++failures;
            told.of_client = told_by(got);
        } else if (*got == 0) {
            break;
        } else {
            received.append(buffer.data(), *got);
        }
    }
    ours.until_failure = never;
    EXPECT_TRUE(data.starts_with(received)) << received.size();
    if (told.of_server.empty() && received.size() < data.size()) {
        EXPECT_EQ(told.of_client, "std::bad_alloc");
    }
    client.second.abort();
    server.second.abort();
}

// Reads until the end, answers what nobody waits for any more, and ends.
Coro<> answer_late(asyncio::StreamReader reader, asyncio::StreamWriter writer) {
    const std::string all = co_await reader.read();
    writer.write(std::string(100'000, 'y'));
    writer.close();
    co_await writer.wait_closed();
}

// It fails while a stream that is warm is closed with so much in it that is not sent yet.
Coro<> close_with_failure(const Contexts& contexts, int levels, std::size_t unsent, std::size_t k,
                          Outcome& told) {
    auto both = asyncio::Socket::pair();
    asyncio::Streams client = co_await stream_of(std::move(both.first));
    asyncio::Streams server = co_await stream_of(std::move(both.second));
    for (int i = 0; i < levels; ++i) co_await upgrade(contexts, client, server, told);
    server.second.write("hello\n");
    const std::string line = co_await client.first.readline();
    EXPECT_EQ(line, "hello\n");
    auto answering =
        asyncio::create_task(answer_late, std::move(server.first), std::move(server.second));
    client.second.write(std::string(unsent, 'x'));
    ours.fail_at(k);
    client.second.close();
    try {
        const auto closed = co_await asyncio::as_result(client.second.wait_closed());
        told.of_client = told_by(closed);
    } catch (const std::bad_alloc& error) {
        told.of_client = error.what();
    }
    try {
        const auto answered = co_await asyncio::as_result(answering);
        told.of_server = told_by(answered);
    } catch (const std::bad_alloc& error) {
        told.of_server = error.what();
    }
    ours.until_failure = never;
}

struct Silent final : asyncio::Protocol {};

// It fails while a transport is made over TLS, and speaks another one inside of it.
Coro<> transport_with_failure(const Contexts& contexts, std::size_t k, Outcome& told) {
    auto both = asyncio::Socket::pair();
    asyncio::Streams server = co_await stream_of(std::move(both.second));
    auto answering = asyncio::create_task(
        [](const Contexts& made, asyncio::StreamReader from, asyncio::StreamWriter to) -> Coro<> {
            const auto options = asyncio::StartTlsOptions().server_side(true);
            for (int i = 0; i < 2; ++i) co_await start_tls(to, made.server, options);
            static_cast<void>(co_await from.read());
        }(contexts, std::move(server.first), std::move(server.second)));
    const auto factory = [] { return std::make_shared<Silent>(); };
    const auto options = asyncio::StartTlsOptions().server_hostname("localhost");
    auto outer = asyncio::ConnectionOptions()
                     .ssl(contexts.client)
                     .server_hostname("localhost")
                     .sock(std::move(both.first));
    const auto secure = factory();
    ours.fail_at(k);
    asyncio::Transport transport;
    std::shared_ptr<Silent> plain;
    try {
        auto created = co_await asyncio::create_connection(factory, std::move(outer));
        transport = created.transport;
        plain = created.protocol;
        co_await asyncio::start_tls(transport, secure, contexts.client, options);
        ours.until_failure = never;
        EXPECT_FALSE(transport.is_closing());
        transport.close();
    } catch (const std::exception& error) {
        ours.until_failure = never;
        told.of_client = error.what();
    }
    if (!told.of_client.empty() && !transport.is_closing()) { // nothing has begun
        EXPECT_EQ(transport.get_protocol(), plain);
        transport.abort();
    }
    transport = asyncio::Transport();
    const auto answered = co_await asyncio::as_result(answering);
    told.of_server = told_by(answered);
}

// Runs life(k, told) for each allocation in it, the k-th, which fails.
template <class Life> void fail_each_of(const char* what, Life life) {
    bool has_failed = true;
    std::size_t k = never; // at first, to make what stays; then from 0 on
    for (; has_failed || k == 0; ++k) {
        ASSERT_LT(k + 1, 2'000u) << "it never comes to an end";
        SCOPED_TRACE(std::string(what) + ", allocation " + std::to_string(k));
        const std::ptrdiff_t before = ours.living;
        const std::ptrdiff_t openssls_before = openssls.living;
        {
            Outcome told;
            asyncio::testing::VirtualClock clock;
            const auto loop = asyncio::new_event_loop(asyncio::LoopOptions().clock(clock));
            loop->set_exception_handler(
                [&](asyncio::EventLoop&, const asyncio::ExceptionContext&) { ++told.reports; });
            asyncio::run_until_complete(*loop, life(k, told));
            loop->close();
            has_failed = ours.failed;
            const std::string all = told.of_client + ", " + told.of_server;
            const bool is_told =
                all.find("std::bad_alloc") != std::string::npos || told.reports != 0;
            EXPECT_EQ(is_told, has_failed) << all;
            if (!has_failed) {
                EXPECT_EQ(all, ", ");
            }
            for (const char* late : {"timed out", "in time"})
                EXPECT_EQ(all.find(late), std::string::npos) << all;
        }
        EXPECT_EQ(ours.living, before);
        if (k != never) {
            EXPECT_EQ(openssls.living, openssls_before);
        }
        if (testing::Test::HasFailure()) return;
    }
    std::printf("%s: %zu allocations failed\n", what, k - 1);
    EXPECT_GT(k, 3u);
}

constexpr const char* name_of_level[] = {"no TLS", "TLS", "TLS inside of TLS"};

} // namespace

TEST(TlsMemory, an_allocation_that_fails_while_a_stream_begins_tls_is_told_and_ends_it) {
    const Contexts contexts{Ends()};
    for (const int levels : {1, 2}) {
        fail_each_of(name_of_level[levels], [&](std::size_t k, Outcome& told) {
            return begin_with_failure(contexts, levels, k, told);
        });
    }
}

// Then what has come is given, and nothing but that.
TEST(TlsMemory, an_allocation_that_fails_while_a_stream_is_read_is_told_as_what_it_is) {
    const Contexts contexts{Ends()};
    for (const int levels : {1, 2}) {
        fail_each_of(name_of_level[levels], [&](std::size_t k, Outcome& told) {
            return talk_with_failure(contexts, levels, k, told);
        });
    }
}

// In the timer for its end, in what the peer still sends, and wherever else.
TEST(TlsMemory, an_allocation_that_fails_while_a_stream_is_closed_is_told_and_ends_it) {
    const Contexts contexts{Ends()};
    for (const int levels : {1, 2}) {
        for (const std::size_t unsent : {std::size_t{1}, std::size_t{1} << 20}) {
            SCOPED_TRACE(unsent);
            fail_each_of(name_of_level[levels], [&](std::size_t k, Outcome& told) {
                return close_with_failure(contexts, levels, unsent, k, told);
            });
        }
    }
}

TEST(TlsMemory, an_allocation_that_fails_while_a_transport_begins_tls_is_told_and_ends_it) {
    const Contexts contexts{Ends()};
    fail_each_of("transports", [&](std::size_t k, Outcome& told) {
        return transport_with_failure(contexts, k, told);
    });
}
