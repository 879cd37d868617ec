// SPDX-License-Identifier: MIT
// ssl::Context: what can be set, and what it does to connections.
#include "support/certificates.hpp"
#include "support/tls_pair.hpp"

#include <asyncio/exceptions.hpp>
#include <asyncio/ssl.hpp>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <openssl/ssl.h>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace ssl = asyncio::ssl;
using asyncio_test::Authority;
using asyncio_test::Issued;
using asyncio_test::TlsEnd;
using asyncio_test::TlsPair;
using asyncio_test::TlsStatus;
using ssl::TLSVersion;

namespace {

Authority& authority() {
    static Authority made;
    return made;
}
ssl::Context client_context() {
    return ssl::create_default_context(ssl::Purpose::SERVER_AUTH, {.cafile = authority().file()});
}
ssl::Context server_context() {
    static const Issued issued = authority().issue({});
    ssl::Context context = ssl::create_default_context(ssl::Purpose::CLIENT_AUTH);
    context.load_cert_chain(issued.certificate, issued.key);
    return context;
}
void only(ssl::Context& context, TLSVersion version) {
    context.set_minimum_version(version);
    context.set_maximum_version(version);
}

template <class Expected, class F> std::string thrown(F f) {
    try {
        f();
    } catch (const Expected& e) {
        return e.what();
    } catch (const std::exception& e) {
        return std::string("another: ") + e.what();
    }
    return "nothing";
}
template <class F> std::string value_error(F f) { return thrown<asyncio::ValueError>(f); }
template <class F> std::string ssl_error(F f) { return thrown<ssl::Error>(f); }

constexpr TLSVersion both_versions[] = {TLSVersion::TLSv1_2, TLSVersion::TLSv1_3};

} // namespace

TEST(SslContext, has_safe_defaults) {
    const ssl::Context client = ssl::create_default_context();
    EXPECT_EQ(client.protocol(), ssl::PROTOCOL_TLS_CLIENT);
    EXPECT_EQ(client.verify_mode(), ssl::CERT_REQUIRED);
    EXPECT_TRUE(client.check_hostname());
    EXPECT_EQ(client.minimum_version(), TLSVersion::TLSv1_2);
    EXPECT_EQ(client.maximum_version(), TLSVersion::MAXIMUM_SUPPORTED);
    EXPECT_NE(client.options() & ssl::OP_NO_RENEGOTIATION, ssl::Options{});
    const auto strict = ssl::VERIFY_X509_STRICT | ssl::VERIFY_X509_PARTIAL_CHAIN;
    EXPECT_EQ(client.verify_flags() & strict, strict);
    const ssl::Context server = ssl::create_default_context(ssl::Purpose::CLIENT_AUTH);
    EXPECT_EQ(server.protocol(), ssl::PROTOCOL_TLS_SERVER);
    EXPECT_EQ(server.verify_mode(), ssl::CERT_NONE);
    EXPECT_FALSE(server.check_hostname());
    for (const ssl::Cipher& cipher : client.get_ciphers()) {
        EXPECT_GE(cipher.bits, 128) << cipher.name;
        EXPECT_EQ(cipher.name.find("NULL"), std::string::npos);
    }
    EXPECT_EQ(std::string(ssl::openssl_version()).substr(0, 9), "OpenSSL 3");
    ssl::Context copy = client;
    EXPECT_TRUE(copy == client);
    EXPECT_FALSE(copy == ssl::create_default_context());
}

TEST(SslContext, keeps_the_rules_between_its_settings) {
    ssl::Context context(ssl::PROTOCOL_TLS_CLIENT);
    EXPECT_EQ(value_error([&] { context.set_verify_mode(ssl::CERT_NONE); }),
              "Cannot set verify_mode to CERT_NONE when check_hostname is enabled.");
    context.set_check_hostname(false);
    EXPECT_EQ(context.verify_mode(), ssl::CERT_REQUIRED);
    context.set_verify_mode(ssl::CERT_NONE);
    context.set_check_hostname(true);
    EXPECT_EQ(context.verify_mode(), ssl::CERT_REQUIRED);
    context.set_verify_mode(ssl::CERT_OPTIONAL);
    EXPECT_EQ(context.verify_mode(), ssl::CERT_OPTIONAL);
    EXPECT_EQ(value_error([&] { context.set_verify_mode(static_cast<ssl::VerifyMode>(7)); }),
              "invalid value for verify_mode");

    context.set_minimum_version(TLSVersion::TLSv1_3);
    context.set_maximum_version(TLSVersion::TLSv1_3);
    EXPECT_EQ(context.minimum_version(), TLSVersion::TLSv1_3);
    EXPECT_EQ(context.maximum_version(), TLSVersion::TLSv1_3);
    context.set_minimum_version(TLSVersion::MINIMUM_SUPPORTED);
    EXPECT_EQ(context.minimum_version(), TLSVersion::MINIMUM_SUPPORTED);
    context.set_minimum_version(TLSVersion::MAXIMUM_SUPPORTED);
    EXPECT_EQ(context.minimum_version(), TLSVersion::TLSv1_3);
    EXPECT_EQ(value_error([&] { context.set_minimum_version(static_cast<TLSVersion>(5)); }),
              "Unsupported TLS version 5");

    context.set_options(context.options() | ssl::OP_NO_TICKET);
    EXPECT_EQ(context.options() & ssl::OP_NO_TICKET, ssl::OP_NO_TICKET);
    context.set_options(context.options() & ~ssl::OP_NO_TICKET);
    EXPECT_EQ(context.options() & ssl::OP_NO_TICKET, ssl::Options{});
    EXPECT_EQ(
        value_error([&] { context.set_options(context.options() & ~ssl::OP_NO_RENEGOTIATION); }),
        "OP_NO_RENEGOTIATION cannot be taken away: a connection does not negotiate TLS anew, "
        "which TLS 1.3 has done away with");

    EXPECT_EQ(value_error([&] { context.set_alpn_protocols({"h2", ""}); }),
              "ALPN protocols must be 1 to 255 in length");
    EXPECT_EQ(value_error([&] { context.set_alpn_protocols({std::string(256, 'a')}); }),
              "ALPN protocols must be 1 to 255 in length");
    const std::vector<std::string> protocols = {"h2", std::string(255, 'a')};
    context.set_alpn_protocols(protocols);
    EXPECT_EQ(value_error([&] { context.set_num_tickets(1); }),
              "SSLContext.num_tickets is for a server's Context, PROTOCOL_TLS_SERVER");
    EXPECT_EQ(value_error([&] { context.set_servername_callback([](auto&, auto, auto&) {}); }),
              "a servername callback is for a server's Context, PROTOCOL_TLS_SERVER");
    EXPECT_EQ(value_error([&] { context.tls()->server(); }),
              "a server needs a Context of PROTOCOL_TLS_SERVER");
    EXPECT_EQ(value_error([&] { server_context().tls()->client("localhost"); }),
              "a client needs a Context of PROTOCOL_TLS_CLIENT");
    EXPECT_EQ(value_error([&] { context.load_verify_locations({}); }),
              "cafile, capath and cadata cannot be all omitted");
    EXPECT_EQ(ssl_error([&] { ssl::Context(ssl::PROTOCOL_TLS_SERVER).tls()->server(); }),
              "a server's Context needs a certificate: call load_cert_chain()");
}

TEST(SslContext, says_why_it_does_not_take_a_certificate) {
    const Issued one = authority().issue({});
    const Issued two = authority().issue({});
    const Issued closed = authority().issue({.password = "open sesame"});
    const std::string nowhere = authority().folder().file("nowhere.pem");
    ssl::Context context(ssl::PROTOCOL_TLS_SERVER);

    try {
        context.load_cert_chain(nowhere);
        ADD_FAILURE() << "there is no such file";
    } catch (const std::system_error& e) {
        EXPECT_EQ(e.code(), std::errc::no_such_file_or_directory);
        EXPECT_EQ(std::string(e.what()),
                  "cannot take a certificate from '" + nowhere + "': No such file or directory");
    }
    EXPECT_EQ(thrown<std::system_error>([&] { context.load_cert_chain(one.certificate, nowhere); }),
              "cannot take a private key from '" + nowhere + "': No such file or directory");
    EXPECT_EQ(
        thrown<std::system_error>([&] { context.load_verify_locations({.cafile = nowhere}); }),
        "cannot take certificates from '" + nowhere + "': No such file or directory");
    EXPECT_EQ(ssl_error([&] { context.load_cert_chain(one.key); }),
              "cannot take a certificate from '" + one.key + "': no start line");
    EXPECT_NE(ssl_error([&] {
                  context.load_cert_chain(one.certificate);
              }).find("cannot take a private key from '" + one.certificate + "': "),
              std::string::npos);
    EXPECT_EQ(ssl_error([&] { context.load_cert_chain(one.certificate, two.key); }),
              "the private key in '" + two.key + "' does not belong to the certificate in '" +
                  one.certificate + "': key values mismatch");
    EXPECT_EQ(ssl_error([&] {
                  context.load_verify_locations({.cadata = "no certificate"});
              }).substr(0, 36),
              "cannot take certificates from cadata");
    EXPECT_EQ(ssl_error([&] {
                  context.load_verify_locations({.cadata = "-----BEGIN CERTIFICATE-----\nAAAA"});
              }).substr(0, 36),
              "cannot take certificates from cadata");

    EXPECT_EQ(ssl_error([&] { context.load_cert_chain(closed.certificate, closed.key); }),
              "cannot take a private key from '" + closed.key +
                  "': it is encrypted, so load_cert_chain() needs its password");
    EXPECT_EQ(ssl_error([&] { context.load_cert_chain(closed.certificate, closed.key, "sesame"); }),
              "cannot take a private key from '" + closed.key +
                  "': it is encrypted, and the password is not the right one");
    EXPECT_EQ(value_error([&] {
                  context.load_cert_chain(closed.certificate, closed.key, std::string(1025, 'a'));
              }),
              "password cannot be longer than 1024 bytes");
    EXPECT_EQ(value_error([&] {
                  context.load_cert_chain(closed.certificate, closed.key,
                                          [] { return std::string(1025, 'a'); });
              }),
              "password cannot be longer than 1024 bytes");
    EXPECT_EQ(thrown<std::logic_error>([&] {
                  context.load_cert_chain(closed.certificate, closed.key, []() -> std::string {
                      throw std::logic_error("I have forgotten it");
                  });
              }),
              "I have forgotten it");
    EXPECT_EQ(ERR_peek_error(), 0u);
    context.load_cert_chain(closed.certificate, closed.key, "open sesame");
    int asked = 0;
    context.load_cert_chain(closed.certificate, closed.key, [&] {
        ++asked;
        return std::string("open sesame");
    });
    EXPECT_EQ(asked, 1);
    TlsPair pair(client_context(), context, "localhost");
    EXPECT_TRUE(pair.handshake());
}

TEST(SslContext, refuses_ciphers_that_there_are_not) {
    ssl::Context context(ssl::PROTOCOL_TLS_CLIENT);
    try {
        context.set_ciphers("no-such-cipher");
        ADD_FAILURE() << "there is no such cipher";
    } catch (const ssl::Error& e) {
        EXPECT_EQ(std::string(e.what()),
                  "no cipher can be selected by 'no-such-cipher': no cipher match");
        EXPECT_EQ(e.reason(), "NO_CIPHER_MATCH");
        EXPECT_EQ(e.library(), "SSL");
        EXPECT_EQ(e.code().category(), ssl::error_category());
        EXPECT_EQ(e.code().message(), "no cipher match");
    }
    EXPECT_EQ(ssl_error([&] { context.set_ciphersuites("TLS_NONE"); }),
              "no cipher suite can be selected by 'TLS_NONE': no cipher match");
    context.set_ciphersuites("TLS_CHACHA20_POLY1305_SHA256");
    context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256");
    const std::vector<ssl::Cipher> ciphers = context.get_ciphers();
    ASSERT_EQ(ciphers.size(), 2u);
    EXPECT_EQ(ciphers[0].name, "TLS_CHACHA20_POLY1305_SHA256");
    EXPECT_EQ(ciphers[1].name, "ECDHE-ECDSA-AES128-GCM-SHA256");
}

// --- What two ends do not have in common ---------------------------------------------------------

TEST(SslContext, connects_nobody_without_a_version_in_common) {
    ssl::Context client = client_context();
    ssl::Context server = server_context();
    only(client, TLSVersion::TLSv1_3);
    only(server, TLSVersion::TLSv1_2);
    TlsPair pair(client, server, "localhost");
    EXPECT_FALSE(pair.handshake());
    EXPECT_EQ(pair.server.error(),
              "the TLS handshake with the client failed: unsupported protocol");
    EXPECT_EQ(pair.client.error(), "the TLS handshake with 'localhost' failed: the peer sent the "
                                   "alert 'protocol version'");
    TlsPair other(client_context(), server, "localhost");
    EXPECT_TRUE(other.handshake());
    EXPECT_EQ(other.client.object().version(), "TLSv1.2");
}

TEST(SslContext, connects_nobody_without_a_cipher_in_common) {
    for (const TLSVersion version : both_versions) {
        ssl::Context client = client_context();
        ssl::Context server = server_context();
        only(client, version);
        client.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256");
        server.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384");
        client.set_ciphersuites("TLS_AES_128_GCM_SHA256");
        server.set_ciphersuites("TLS_AES_256_GCM_SHA384");
        TlsPair pair(client, server, "localhost");
        EXPECT_FALSE(pair.handshake());
        EXPECT_EQ(pair.server.error(),
                  "the TLS handshake with the client failed: no shared cipher");
        EXPECT_EQ(pair.client.error(), "the TLS handshake with 'localhost' failed: the peer sent "
                                       "the alert 'handshake failure'");
        server.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256");
        server.set_ciphersuites("TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256");
        TlsPair other(client, server, "localhost");
        EXPECT_TRUE(other.handshake());
        EXPECT_EQ(other.client.object().cipher()->bits, 128);
    }
}

TEST(SslContext, agrees_on_no_protocol_inside_without_one_in_common) {
    ssl::Context client = client_context();
    ssl::Context server = server_context();
    client.set_alpn_protocols({"h2"});
    for (const bool offered : {false, true}) {
        if (offered) server.set_alpn_protocols({"http/1.1"});
        TlsPair pair(client, server, "localhost");
        ASSERT_TRUE(pair.handshake());
        EXPECT_EQ(pair.client.object().selected_alpn_protocol(), "");
        EXPECT_EQ(pair.server.object().selected_alpn_protocol(), "");
    }
}

// --- The name that a client asks for -------------------------------------------------------------

TEST(SslContext, refuses_by_an_alert_what_the_callback_refuses) {
    ssl::Context server = server_context();
    server.set_servername_callback([](ssl::Object&, std::optional<std::string_view> name, auto&) {
        return name == "localhost" ? std::nullopt
                                   : std::optional(name ? ssl::ALERT_DESCRIPTION_UNRECOGNIZED_NAME
                                                        : ssl::ALERT_DESCRIPTION_ACCESS_DENIED);
    });
    TlsPair known(client_context(), server, "localhost");
    EXPECT_TRUE(known.handshake());
    TlsPair other(client_context(), server, "other.example");
    EXPECT_FALSE(other.handshake());
    EXPECT_EQ(other.server.error(), "the TLS handshake with the client failed: the servername "
                                    "callback refused the name 'other.example'");
    EXPECT_EQ(other.client.error(), "the TLS handshake with 'other.example' failed: the peer sent "
                                    "the alert 'unrecognized name'");
    TlsPair none(client_context(), server, "127.0.0.1");
    EXPECT_FALSE(none.handshake());
    EXPECT_EQ(none.server.error(), "the TLS handshake with the client failed: the servername "
                                   "callback refused a client without a name");
    EXPECT_EQ(none.client.error(), "the TLS handshake with '127.0.0.1' failed: the peer sent the "
                                   "alert 'access denied'");
}

TEST(SslContext, fails_by_what_the_callback_throws) {
    ssl::Context server(ssl::PROTOCOL_TLS_SERVER); // without a certificate: another one may have it
    server.set_servername_callback([](auto&, auto, auto&) { throw std::out_of_range("not so"); });
    TlsPair pair(client_context(), server, "localhost");
    EXPECT_FALSE(pair.handshake());
    EXPECT_THROW(pair.server.rethrow(), std::out_of_range);
    EXPECT_EQ(pair.server.error(), "not so");
    EXPECT_EQ(pair.client.error(), "the TLS handshake with 'localhost' failed: the peer sent the "
                                   "alert 'handshake failure'");

    server.set_servername_callback(
        [&](ssl::Object& object, auto, auto&) { object.set_context(client_context()); });
    TlsPair wrong(client_context(), server, "localhost");
    EXPECT_FALSE(wrong.handshake());
    EXPECT_EQ(wrong.server.error(), "a server needs a Context of PROTOCOL_TLS_SERVER");
}

TEST(SslContext, switches_settings_with_the_context) {
    ssl::Context strict = server_context();
    only(strict, TLSVersion::TLSv1_2);
    strict.set_ciphers("ECDHE-ECDSA-CHACHA20-POLY1305");
    strict.load_verify_locations({.cafile = authority().file()});
    strict.set_verify_mode(ssl::CERT_REQUIRED);
    ssl::Context first(ssl::PROTOCOL_TLS_SERVER);
    only(first, TLSVersion::TLSv1_3);
    ssl::Object* kept = nullptr;
    first.set_servername_callback([&](ssl::Object& object, auto, auto&) {
        object.set_context(strict);
        kept = &object;
    });
    TlsPair without(client_context(), first, "localhost");
    EXPECT_FALSE(without.handshake());
    EXPECT_EQ(without.server.error(), "the TLS handshake with the client failed: it showed no "
                                      "certificate, which this server requires");
    ssl::Context showing = client_context();
    const Issued issued = authority().issue({.common_name = "me"});
    showing.load_cert_chain(issued.certificate, issued.key);
    TlsPair with(showing, first, "localhost");
    ASSERT_TRUE(with.handshake()) << with.server.error();
    EXPECT_EQ(with.client.object().version(), "TLSv1.2");
    EXPECT_EQ(with.client.object().cipher()->name, "ECDHE-ECDSA-CHACHA20-POLY1305");
    EXPECT_EQ(with.server.object().getpeercert()->subject.front().second, "me");
    EXPECT_EQ(thrown<asyncio::RuntimeError>([&] { kept->set_context(first); }),
              "the context of a connection can be changed in a servername callback only, before "
              "the handshake");
}

// A client that guesses the wrong group says hello twice.
TEST(SslContext, calls_back_once_though_the_client_says_hello_twice) {
    ssl::Context client = client_context();
    client.set_groups("X25519:P-256");
    ssl::Context server = server_context();
    server.set_groups("P-256");
    const ssl::Context second = server_context();
    int calls = 0;
    server.set_servername_callback(
        [&](ssl::Object& object, std::optional<std::string_view> name, auto&) {
            ++calls;
            EXPECT_EQ(name, "localhost");
            object.set_context(second);
        });
    TlsPair pair(client, server, "localhost");
    pair.client.step_handshake();
    pair.carry(pair.client, pair.server, [](TlsEnd& end) { end.step_handshake(); });
    EXPECT_LT(pair.server.session->output().size(), 200u); // a HelloRetryRequest: no certificate
    EXPECT_EQ(calls, 1);
    ASSERT_TRUE(pair.handshake());
    EXPECT_EQ(calls, 1);
    EXPECT_TRUE(pair.server.object().context() == second);
    EXPECT_EQ(ssl_error([&] { server.set_groups("no-such-group"); }).substr(0, 46),
              "no groups can be selected by 'no-such-group': ");
}

// --- Sessions ------------------------------------------------------------------------------------

TEST(SslContext, resumes_a_session_only_where_it_was_made) {
    const ssl::Context client = client_context();
    const ssl::Context server = server_context();
    TlsPair pair(client, server, "localhost");
    EXPECT_FALSE(pair.client.object().session());
    ASSERT_TRUE(pair.handshake());
    pair.settle();
    const ssl::Session session = pair.client.object().session();
    ASSERT_TRUE(session);
    EXPECT_FALSE(session.id().empty());
    EXPECT_EQ(value_error([&] { client.tls()->client("other.example", &session); }),
              "the session is one with 'localhost', and cannot be resumed with 'other.example'");
    EXPECT_EQ(value_error([&] { client_context().tls()->client("localhost", &session); }),
              "Session refers to a different SSLContext.");
    const ssl::Session none;
    TlsPair fresh(client, server, "localhost", std::string::npos, &none);
    ASSERT_TRUE(fresh.handshake());
    EXPECT_FALSE(fresh.client.object().session_reused());
    // Another server does not know it.
    TlsPair other(client, server_context(), "localhost", std::string::npos, &session);
    ASSERT_TRUE(other.handshake());
    EXPECT_FALSE(other.client.object().session_reused());
}

TEST(SslContext, resumes_no_session_from_before_it_was_stricter) {
    ssl::Context client = client_context();
    client.set_check_hostname(false);
    client.set_verify_mode(ssl::CERT_NONE);
    ssl::Context server(ssl::PROTOCOL_TLS_SERVER);
    const Issued itself = authority().self_signed({});
    server.load_cert_chain(itself.certificate, itself.key);
    TlsPair pair(client, server, "localhost");
    ASSERT_TRUE(pair.handshake());
    pair.settle();
    const ssl::Session session = pair.client.object().session();
    ASSERT_TRUE(session);
    client.set_check_hostname(true);
    TlsPair again(client, server, "localhost", std::string::npos, &session);
    EXPECT_FALSE(again.handshake());
    EXPECT_EQ(again.client.error(),
              "certificate verify failed for 'localhost': self-signed certificate");
}

TEST(SslContext, keeps_sessions_itself_without_tickets) {
    for (const TLSVersion version : both_versions) {
        ssl::Context client = client_context();
        only(client, version);
        ssl::Context server = server_context();
        server.set_options(server.options() | ssl::OP_NO_TICKET);
        ssl::Session session;
        {
            TlsPair pair(client, server, "localhost");
            ASSERT_TRUE(pair.handshake());
            pair.settle();
            session = pair.client.object().session();
            ASSERT_TRUE(session);
        }
        EXPECT_GT(server.session_stats().number, 0);
        TlsPair pair(client, server, "localhost", std::string::npos, &session);
        ASSERT_TRUE(pair.handshake());
        EXPECT_TRUE(pair.client.object().session_reused());
    }
}

TEST(SslContext, hands_out_as_many_tickets_as_are_asked_for) {
    ssl::Context client = client_context();
    ssl::Context server = server_context();
    EXPECT_EQ(server.num_tickets(), 2u);
    std::vector<std::size_t> sizes;
    for (const std::size_t count : {0u, 1u, 5u}) {
        server.set_num_tickets(count);
        EXPECT_EQ(server.num_tickets(), count);
        TlsPair pair(client, server, "localhost");
        ASSERT_TRUE(pair.handshake());
        pair.settle();
        EXPECT_EQ(static_cast<bool>(pair.client.object().session()), count != 0);
    }
}

// --- What a peer may do later --------------------------------------------------------------------

namespace {

// OpenSSL itself against a session of ours.
class Raw {
  public:
    // A client of a server of ours; or a server, if it has a certificate.
    Raw(std::unique_ptr<asyncio::detail::TlsSession> of_ours, TLSVersion version,
        const Issued* issued = nullptr)
        : session(std::move(of_ours)),
          context_(SSL_CTX_new(issued == nullptr ? TLS_client_method() : TLS_server_method())),
          ssl(SSL_new(context_)), in_(BIO_new(BIO_s_mem())), out_(BIO_new(BIO_s_mem())) {
        SSL_set_min_proto_version(ssl, static_cast<int>(version));
        SSL_set_max_proto_version(ssl, static_cast<int>(version));
        SSL_set_bio(ssl, in_, out_);
        if (issued != nullptr) {
            SSL_use_certificate_file(ssl, issued->certificate.c_str(), SSL_FILETYPE_PEM);
            SSL_use_PrivateKey_file(ssl, issued->key.c_str(), SSL_FILETYPE_PEM);
            SSL_set_accept_state(ssl);
        } else {
            SSL_set_connect_state(ssl);
        }
    }
    Raw(const Raw&) = delete;
    Raw& operator=(const Raw&) = delete;
    ~Raw() {
        SSL_free(ssl);
        SSL_CTX_free(context_);
        ERR_clear_error();
    }
    void to_ours() {
        char buffer[20000];
        int size = 0;
        while ((size = BIO_read(out_, buffer, sizeof buffer)) > 0)
            session->feed({buffer, static_cast<std::size_t>(size)});
    }
    void from_ours() {
        const std::string output(session->output());
        session->take_output(output.size());
        BIO_write(in_, output.data(), static_cast<int>(output.size()));
    }
    bool handshake() {
        for (int i = 0; i < 5; ++i) {
            SSL_do_handshake(ssl);
            to_ours();
            session->handshake();
            from_ours();
        }
        return SSL_is_init_finished(ssl) == 1;
    }
    std::string reads() {
        char buffer[1000];
        const int size = SSL_read(ssl, buffer, sizeof buffer);
        return size > 0 ? std::string(buffer, static_cast<std::size_t>(size)) : std::string();
    }
    std::string ours_reads() {
        std::string received;
        char buffer[1000];
        std::size_t count = 0;
        while ((status = session->read(buffer, count)) == TlsStatus::done)
            received.append(buffer, count);
        return received;
    }

    std::unique_ptr<asyncio::detail::TlsSession> session;
    TlsStatus status = TlsStatus::want_input; // of our last read

  private:
    SSL_CTX* context_;

  public:
    SSL* ssl;

  private:
    BIO* in_;
    BIO* out_;
};

} // namespace

TEST(SslContext, renegotiates_with_nobody) {
    const Issued issued = authority().issue({});
    for (const bool with_a_server : {false, true}) {
        Raw peer(with_a_server ? client_context().tls()->client("localhost")
                               : server_context().tls()->server(),
                 TLSVersion::TLSv1_2, with_a_server ? &issued : nullptr);
        ASSERT_TRUE(peer.handshake());
        ASSERT_EQ(SSL_renegotiate(peer.ssl), 1);
        SSL_do_handshake(peer.ssl);
        peer.to_ours();
        EXPECT_EQ(peer.ours_reads(), "");
        EXPECT_EQ(peer.status, TlsStatus::want_input);
        // An alert, no_renegotiation, and not another handshake.
        EXPECT_GT(peer.session->output().size(), 0u);
        EXPECT_LT(peer.session->output().size(), 60u);
        peer.from_ours();
        if (!with_a_server) {
            EXPECT_LE(SSL_do_handshake(peer.ssl), 0);
            EXPECT_EQ(ERR_GET_REASON(ERR_peek_last_error()), SSL_R_NO_RENEGOTIATION);
        }
        // Ours goes on.
        EXPECT_EQ(peer.session->write("still"), TlsStatus::done);
    }
}

TEST(SslContext, follows_a_change_of_keys) {
    Raw client(server_context().tls()->server(), TLSVersion::TLSv1_3);
    ASSERT_TRUE(client.handshake());
    ASSERT_EQ(SSL_key_update(client.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
    ASSERT_EQ(SSL_write(client.ssl, "by new keys", 11), 11);
    client.to_ours();
    EXPECT_EQ(client.ours_reads(), "by new keys");
    ASSERT_EQ(client.session->write("and back"), TlsStatus::done);
    // Before it goes a change of our keys, which was asked for: 5 + 5 + 17 bytes.
    EXPECT_GT(client.session->output().size(), 5 + 8 + 17 + 20u);
    client.from_ours();
    EXPECT_EQ(client.reads(), "and back");
}

TEST(SslContext, leaves_no_error_of_one_connection_to_the_next) {
    const ssl::Context server = server_context();
    TlsPair good(client_context(), server, "localhost");
    ASSERT_TRUE(good.handshake());
    TlsEnd bad{server.tls()->server()};
    bad.session->feed("GET / HTTP/1.0\r\n\r\n");
    bad.step_handshake();
    EXPECT_EQ(bad.status, TlsStatus::failed);
    EXPECT_EQ(ERR_peek_error(), 0u);
    // Even of one that is not ours.
    ERR_raise(ERR_LIB_SSL, SSL_R_BAD_PACKET);
    EXPECT_EQ(good.send(good.client, good.server, "undisturbed"), "undisturbed");
    good.server.step_read();
    EXPECT_EQ(good.server.status, TlsStatus::want_input);
}

TEST(SslContext, writes_secrets_down_if_told_to) {
    const std::string file = authority().folder().file("keys.log");
    ssl::Context client = client_context();
    client.set_keylog_filename(file);
    TlsPair pair(client, server_context(), "localhost");
    ASSERT_TRUE(pair.handshake());
    const std::string log = asyncio_test::contents_of(file);
    EXPECT_NE(log.find("CLIENT_TRAFFIC_SECRET_0 "), std::string::npos);
    EXPECT_EQ(log.back(), '\n');
    client.set_keylog_filename({});
    TlsPair silent(client, server_context(), "localhost");
    ASSERT_TRUE(silent.handshake());
    EXPECT_EQ(asyncio_test::contents_of(file), log);
    EXPECT_EQ(thrown<std::system_error>([&] { client.set_keylog_filename("/nowhere/keys"); }),
              "cannot open '/nowhere/keys': No such file or directory");
}
