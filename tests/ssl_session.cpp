// SPDX-License-Identifier: MIT
// TLS in memory: handshakes, data, ends and errors, in pieces of any size.
#include "support/certificates.hpp"
#include "support/tls_pair.hpp"

#include <asyncio/exceptions.hpp>
#include <asyncio/ssl.hpp>
#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <openssl/ssl.h>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

namespace ssl = asyncio::ssl;
using asyncio_test::Authority;
using asyncio_test::Issued;
using asyncio_test::TlsEnd;
using asyncio_test::TlsPair;
using asyncio_test::TlsStatus;
using asyncio_test::Wanted;
using ssl::TLSVersion;

namespace {

Authority& authority() {
    static Authority made;
    return made;
}
const Issued& localhost() {
    static const Issued issued = authority().issue(
        {.names = {"DNS:localhost", "DNS:*.example.org", "IP:127.0.0.1", "IP:::1"}});
    return issued;
}

ssl::Context client_context() {
    return ssl::create_default_context(ssl::Purpose::SERVER_AUTH, {.cafile = authority().file()});
}
ssl::Context server_context(const Issued& issued = localhost()) {
    ssl::Context context = ssl::create_default_context(ssl::Purpose::CLIENT_AUTH);
    context.load_cert_chain(issued.certificate, issued.key);
    return context;
}
void only(ssl::Context& context, TLSVersion version) {
    context.set_minimum_version(version);
    context.set_maximum_version(version);
}

std::string known_bytes(std::size_t size) {
    std::string bytes(size, '\0');
    for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(i * 31 + i / 253);
    return bytes;
}

// The type and the text by which an end failed.
struct Failure {
    std::string kind;
    std::string text;
    std::string reason;
    int verify_code = 0;
};
Failure failure_of(const TlsEnd& end) {
    try {
        end.rethrow();
    } catch (const ssl::CertVerificationError& e) {
        return {"CertVerificationError", e.what(), e.reason(), e.verify_code()};
    } catch (const ssl::EOFError& e) {
        return {"EOFError", e.what(), e.reason(), 0};
    } catch (const ssl::ZeroReturnError& e) {
        return {"ZeroReturnError", e.what(), e.reason(), 0};
    } catch (const ssl::Error& e) {
        return {"Error", e.what(), e.reason(), 0};
    } catch (const std::exception& e) {
        return {"other", e.what(), "", 0};
    }
    return {};
}

template <class F> std::string value_error(F f) {
    try {
        f();
    } catch (const asyncio::ValueError& e) {
        return e.what();
    }
    return "no ValueError";
}

// Every way to cut what is carried, in both versions.
class SslSession : public testing::TestWithParam<std::tuple<TLSVersion, std::size_t>> {
  protected:
    TLSVersion version() const { return std::get<0>(GetParam()); }
    std::size_t chunk() const { return std::get<1>(GetParam()); }
    std::string version_name() const {
        return version() == TLSVersion::TLSv1_3 ? "TLSv1.3" : "TLSv1.2";
    }
    ssl::Context client() const {
        ssl::Context context = client_context();
        only(context, version());
        return context;
    }
};

constexpr std::array both_versions = {TLSVersion::TLSv1_2, TLSVersion::TLSv1_3};

} // namespace

INSTANTIATE_TEST_SUITE_P(Chunks, SslSession,
                         testing::Combine(testing::ValuesIn(both_versions),
                                          testing::Values(1, 2, 5, 63, 1460, std::string::npos)),
                         [](const auto& one) {
                             const std::size_t chunk = std::get<1>(one.param);
                             return std::string(std::get<0>(one.param) == TLSVersion::TLSv1_2
                                                    ? "TLSv1_2_"
                                                    : "TLSv1_3_") +
                                    (chunk == std::string::npos ? "whole" : std::to_string(chunk));
                         });

TEST_P(SslSession, carries_data_both_ways_after_a_handshake) {
    TlsPair pair(client(), server_context(), "localhost", chunk());
    ASSERT_TRUE(pair.handshake()) << pair.client.error() << pair.server.error();
    for (const std::size_t size : {1u, 100u, 16384u, 16385u, 40000u}) {
        const std::string bytes = known_bytes(size);
        EXPECT_TRUE(pair.send(pair.client, pair.server, bytes) == bytes) << size;
        EXPECT_TRUE(pair.send(pair.server, pair.client, bytes) == bytes) << size;
    }
    EXPECT_EQ(pair.client.object().version(), version_name());
    EXPECT_EQ(pair.server.object().version(), version_name());
    EXPECT_EQ(pair.client.object().cipher()->name, pair.server.object().cipher()->name);
    EXPECT_EQ(pair.client.object().cipher()->protocol, version_name());
    EXPECT_GE(pair.client.object().cipher()->bits, 128);
    EXPECT_FALSE(pair.client.object().server_side());
    EXPECT_TRUE(pair.server.object().server_side());
    EXPECT_EQ(pair.client.object().server_hostname(), "localhost");
    EXPECT_EQ(pair.server.object().server_hostname(), "localhost");
}

TEST_P(SslSession, ends_in_order_both_ways) {
    TlsPair pair(client(), server_context(), "localhost", chunk());
    ASSERT_TRUE(pair.handshake());
    ASSERT_EQ(pair.client.session->write("the last words"), TlsStatus::done);
    EXPECT_EQ(pair.client.session->shutdown(), TlsStatus::want_input);
    pair.carry(pair.client, pair.server, [](TlsEnd& end) { end.step_read(); });
    EXPECT_EQ(pair.server.received, "the last words");
    EXPECT_EQ(pair.server.status, TlsStatus::closed);
    // An end of the connection below is none of its business any more.
    pair.server.session->feed_eof();
    std::array<char, 8> buffer{};
    std::size_t count = 0;
    EXPECT_EQ(pair.server.session->read(buffer, count), TlsStatus::closed);
    // The other side is still open; what comes on it after our end is dropped.
    ASSERT_EQ(pair.server.session->write(known_bytes(20000)), TlsStatus::done);
    EXPECT_EQ(pair.server.session->shutdown(), TlsStatus::done);
    pair.carry(pair.server, pair.client, [](TlsEnd& end) { end.status = end.session->shutdown(); });
    EXPECT_EQ(pair.client.status, TlsStatus::done);
    EXPECT_EQ(pair.client.session->read(buffer, count), TlsStatus::closed);
    EXPECT_EQ(pair.client.error(), "");
    EXPECT_EQ(pair.server.error(), "");
}

TEST_P(SslSession, may_be_written_to_while_its_output_is_taken_in_parts) {
    TlsPair pair(client(), server_context(), "localhost", chunk());
    ASSERT_TRUE(pair.handshake());
    const std::string bytes = known_bytes(30000);
    std::string_view left = bytes;
    std::string wire;
    std::size_t part = 1;
    while (!left.empty()) {
        ASSERT_EQ(pair.client.session->write(left.substr(0, 1000)), TlsStatus::done);
        left.remove_prefix(1000);
        part = part * 7 % 3000;
        const std::string taken(pair.client.session->output().substr(0, part));
        pair.client.session->take_output(taken.size());
        wire += taken;
    }
    wire += pair.client.session->output();
    // So also what is fed while a part of that before is not read yet.
    std::string received;
    std::array<char, 700> buffer{};
    std::size_t count = 0;
    for (std::size_t at = 0; at < wire.size(); at += 1700) {
        pair.server.session->feed(std::string_view(wire).substr(at, 1700));
        if (pair.server.session->read(buffer, count) == TlsStatus::done)
            received.append(buffer.data(), count);
    }
    while (pair.server.session->read(buffer, count) == TlsStatus::done)
        received.append(buffer.data(), count);
    EXPECT_TRUE(received == bytes);
}

TEST_P(SslSession, fails_where_the_data_is_cut) {
    TlsPair pair(client(), server_context(), "localhost", chunk());
    ASSERT_TRUE(pair.handshake());
    pair.settle();
    ASSERT_EQ(pair.server.session->write(std::string(300, 'x')), TlsStatus::done);
    const std::string all(pair.server.session->output());
    for (const bool in_a_record : {false, true}) {
        if (in_a_record) pair.client.session->feed(all.substr(0, all.size() / 2));
        pair.client.step_read();
        ASSERT_EQ(pair.client.status, TlsStatus::want_input);
    }
    pair.client.session->feed_eof();
    pair.client.step_read();
    EXPECT_EQ(pair.client.status, TlsStatus::failed);
    EXPECT_EQ(pair.client.received, "");
    const Failure failure = failure_of(pair.client);
    EXPECT_EQ(failure.kind, "EOFError");
    EXPECT_EQ(failure.reason, "UNEXPECTED_EOF_WHILE_READING");
    EXPECT_EQ(failure.text,
              "TLS with 'localhost' failed: the peer has ended the connection without "
              "a close_notify, so what it sent may be cut off");
}

TEST_P(SslSession, reads_whole_records_before_a_cut) {
    TlsPair pair(client(), server_context(), "localhost", chunk());
    ASSERT_TRUE(pair.handshake());
    ASSERT_EQ(pair.server.session->write("complete"), TlsStatus::done);
    pair.carry(pair.server, pair.client, [](TlsEnd&) {});
    pair.client.session->feed_eof();
    pair.client.step_read();
    EXPECT_EQ(pair.client.received, "complete");
    EXPECT_EQ(failure_of(pair.client).kind, "EOFError");
}

TEST_P(SslSession, resumes_a_session) {
    const ssl::Context context = client();
    const ssl::Context server = server_context();
    ssl::Session session;
    {
        TlsPair pair(context, server, "localhost", chunk());
        ASSERT_TRUE(pair.handshake());
        pair.settle();
        EXPECT_FALSE(pair.client.object().session_reused());
        session = pair.client.object().session();
        // Dropped without an end.
    }
    ASSERT_TRUE(session);
    EXPECT_TRUE(session.has_ticket());
    EXPECT_GT(session.timeout().count(), 0);
    EXPECT_LE(session.time(), std::chrono::system_clock::now());
    TlsPair pair(context, server, "localhost", chunk(), &session);
    ASSERT_TRUE(pair.handshake()) << pair.client.error() << pair.server.error();
    EXPECT_TRUE(pair.client.object().session_reused());
    EXPECT_TRUE(pair.server.object().session_reused());
    EXPECT_EQ(pair.send(pair.client, pair.server, "again"), "again");
    EXPECT_EQ(pair.send(pair.server, pair.client, "and back"), "and back");
    EXPECT_EQ(server.session_stats().hits, 1);
    EXPECT_EQ(server.session_stats().accept_good, 2);
    // The certificate was not sent again, and is still known.
    EXPECT_EQ(pair.client.object().getpeercert()->subject_alt_names.front().second, "localhost");
}

TEST_P(SslSession, agrees_on_a_protocol_inside) {
    ssl::Context offering = client();
    ssl::Context choosing = server_context();
    offering.set_alpn_protocols({"http/1.1", "h2"});
    choosing.set_alpn_protocols({"h2", "http/1.1"});
    TlsPair pair(offering, choosing, "localhost", chunk());
    ASSERT_TRUE(pair.handshake());
    EXPECT_EQ(pair.client.object().selected_alpn_protocol(), "h2");
    EXPECT_EQ(pair.server.object().selected_alpn_protocol(), "h2");
}

TEST_P(SslSession, refuses_a_client_that_speaks_no_tls) {
    TlsPair pair(client(), server_context(), "localhost", chunk());
    struct Case {
        std::string sent;
        std::string text;
    };
    for (const Case& one :
         {Case{"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
               "the TLS handshake with the client failed: the peer does not speak TLS: http "
               "request"},
          Case{"SSH-2.0-OpenSSH_9.2\r\n", "the TLS handshake with the client failed: the peer does "
                                          "not speak TLS: "},
          Case{known_bytes(5000),
               "the TLS handshake with the client failed: the peer does not speak TLS: "}}) {
        TlsEnd server{server_context().tls()->server()};
        std::string_view left = one.sent;
        while (!left.empty() && server.status == TlsStatus::want_input) {
            server.session->feed(left.substr(0, chunk()));
            left.remove_prefix(std::min(left.size(), chunk()));
            server.step_handshake();
        }
        EXPECT_EQ(server.status, TlsStatus::failed);
        EXPECT_EQ(server.error().substr(0, one.text.size()), one.text);
        EXPECT_EQ(failure_of(server).kind, "Error");
    }
}

TEST_P(SslSession, fails_where_the_handshake_is_cut) {
    // The server's whole first flight, to know how long it is.
    TlsPair pair(client(), server_context(), "localhost", chunk());
    pair.client.step_handshake();
    pair.server.session->feed(pair.client.session->output());
    pair.server.step_handshake();
    const std::string flight(pair.server.session->output());
    ASSERT_GT(flight.size(), 500u);
    for (const std::size_t cut : {std::size_t{0}, std::size_t{3}, flight.size() / 2}) {
        TlsPair other(client(), server_context(), "localhost", chunk());
        other.client.step_handshake();
        other.server.session->feed(other.client.session->output());
        other.server.step_handshake();
        other.client.session->feed(other.server.session->output().substr(0, cut));
        other.client.step_handshake();
        ASSERT_EQ(other.client.status, TlsStatus::want_input);
        other.client.session->feed_eof();
        other.client.step_handshake();
        EXPECT_EQ(other.client.status, TlsStatus::failed) << cut;
        EXPECT_EQ(failure_of(other.client).kind, "EOFError");
        EXPECT_EQ(other.client.error(),
                  "the TLS handshake with 'localhost' failed: the peer closed "
                  "the connection during the handshake");
    }
}

TEST_P(SslSession, refuses_garbage_after_the_handshake) {
    TlsPair pair(client(), server_context(), "localhost", chunk());
    ASSERT_TRUE(pair.handshake());
    pair.settle();
    ASSERT_EQ(pair.server.session->write("some text"), TlsStatus::done);
    std::string record(pair.server.session->output());
    record.back() = static_cast<char>(record.back() ^ 1);
    pair.client.session->feed(record);
    pair.client.step_read();
    EXPECT_EQ(pair.client.status, TlsStatus::failed);
    EXPECT_EQ(pair.client.received, "");
    EXPECT_EQ(failure_of(pair.client).reason, "DECRYPTION_FAILED_OR_BAD_RECORD_MAC");
    EXPECT_EQ(pair.client.error(),
              "TLS with 'localhost' failed: decryption failed or bad record mac");
    // It tells the server why, which says so in its turn.
    pair.server.session->take_output(pair.server.session->output().size());
    EXPECT_TRUE(pair.carry(pair.client, pair.server, [](TlsEnd& end) { end.step_read(); }));
    EXPECT_EQ(pair.server.error(),
              "TLS with the client failed: the peer sent the alert 'bad record mac'");
    // And stays so.
    EXPECT_EQ(pair.client.session->write("more"), TlsStatus::failed);
    EXPECT_EQ(pair.client.session->shutdown(), TlsStatus::failed);
}

TEST_P(SslSession, takes_ciphertext_that_it_is_lent) {
    TlsPair pair(client(), server_context(), "localhost", chunk());
    ASSERT_TRUE(pair.handshake());
    pair.settle();
    const std::string bytes = known_bytes(40000);
    ASSERT_EQ(pair.server.session->write(bytes), TlsStatus::done);
    std::string ciphertext(pair.server.session->output());
    // The first part is fed, the rest lent; after some records what is left is fed.
    pair.client.session->feed(std::string_view(ciphertext).substr(0, 100));
    std::string_view lent = std::string_view(ciphertext).substr(100);
    std::string received;
    std::array<char, 7000> buffer{};
    std::size_t count = 0;
    TlsStatus status = TlsStatus::done;
    while ((status = pair.client.session->read(buffer, count, lent)) == TlsStatus::done) {
        received.append(buffer.data(), count);
        if (received.size() > 15000 && !lent.empty()) {
            pair.client.session->feed(lent);
            std::ranges::fill(ciphertext, '\0');
            lent = {};
        }
    }
    EXPECT_EQ(status, TlsStatus::want_input);
    EXPECT_TRUE(received == bytes);
    EXPECT_TRUE(lent.empty());
}

TEST_P(SslSession, gives_memory_back_at_any_time) {
    TlsPair pair(client(), server_context(), "localhost", chunk());
    const auto release = [&] {
        pair.client.session->release_memory();
        pair.server.session->release_memory();
    };
    release();
    ASSERT_TRUE(pair.handshake());
    release();
    const std::string bytes = known_bytes(30000);
    EXPECT_TRUE(pair.send(pair.client, pair.server, bytes) == bytes);
    release();
    ASSERT_EQ(pair.server.session->write(bytes), TlsStatus::done);
    release();
    std::string received;
    pair.carry(pair.server, pair.client, [&](TlsEnd& end) {
        std::array<char, 100> buffer{}; // so that a record's rest stays in OpenSSL
        std::size_t count = 0;
        while (end.session->read(buffer, count) == TlsStatus::done) {
            received.append(buffer.data(), count);
            release();
        }
    });
    EXPECT_TRUE(received == bytes);
}

TEST_P(SslSession, may_outlive_its_contexts) {
    std::optional<TlsPair> pair;
    {
        ssl::Context serving = server_context();
        ssl::Context other = server_context();
        serving.set_servername_callback(
            [other](ssl::Object& object, auto, auto&) { object.set_context(other); });
        pair.emplace(client(), serving, "localhost", chunk());
    }
    ASSERT_TRUE(pair->handshake());
    EXPECT_EQ(pair->send(pair->client, pair->server, "still here"), "still here");
    const ssl::Session session = pair->client.object().session();
    pair.reset(); // and the session outlives that
}

TEST_P(SslSession, calls_back_with_the_name_and_switches_the_context) {
    const Issued other = authority().issue({.names = {"DNS:other.example"}});
    ssl::Context second = server_context(other);
    second.set_alpn_protocols({"second"});
    ssl::Context first = server_context();
    first.set_alpn_protocols({"first"});
    std::vector<std::string> names;
    bool first_was_given = false;
    first.set_servername_callback([&](ssl::Object& object, std::optional<std::string_view> name,
                                      const ssl::Context& initial) {
        first_was_given = initial == first && object.context() == first;
        names.emplace_back(name ? *name : "none");
        if (name == "other.example") object.set_context(second);
    });
    ssl::Context asking = client();
    asking.set_alpn_protocols({"first", "second"});
    TlsPair pair(asking, first, "other.example", chunk());
    ASSERT_TRUE(pair.handshake()) << pair.client.error();
    EXPECT_EQ(pair.client.object().selected_alpn_protocol(), "second");
    EXPECT_TRUE(pair.server.object().context() == second);
    EXPECT_EQ(pair.client.object().getpeercert()->subject_alt_names.front().second,
              "other.example");
    TlsPair same(asking, first, "localhost", chunk());
    ASSERT_TRUE(same.handshake()) << same.client.error();
    EXPECT_EQ(same.client.object().selected_alpn_protocol(), "first");
    EXPECT_TRUE(first_was_given);
    TlsPair address(asking, first, "127.0.0.1", chunk());
    ASSERT_TRUE(address.handshake()) << address.client.error();
    EXPECT_EQ(address.server.object().server_hostname(), "");
    EXPECT_EQ(names, (std::vector<std::string>{"other.example", "localhost", "none"}));
}
