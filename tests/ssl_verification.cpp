// SPDX-License-Identifier: MIT
// Whom TLS lets in: certificates, host names, and what is said of those that are refused.
#include "support/certificates.hpp"
#include "support/tls_pair.hpp"

#include <asyncio/exceptions.hpp>
#include <asyncio/ssl.hpp>
#include <gtest/gtest.h>

#include <chrono>
#include <openssl/ssl.h>
#include <string>
#include <string_view>

namespace ssl = asyncio::ssl;
using namespace std::chrono_literals;
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
ssl::Context client_context() {
    return ssl::create_default_context(ssl::Purpose::SERVER_AUTH, {.cafile = authority().file()});
}
ssl::Context server_context(const Issued& issued) {
    ssl::Context context = ssl::create_default_context(ssl::Purpose::CLIENT_AUTH);
    context.load_cert_chain(issued.certificate, issued.key);
    return context;
}

// The error of a client that asks for `host` and gets a certificate like this; "" if it takes it.
struct Verdict {
    std::string text;
    std::string message;
    int code = 0;
    std::string other_end;
};
Verdict verdict(const ssl::Context& client, const ssl::Context& server, const std::string& host) {
    TlsPair pair(client, server, host);
    Verdict verdict;
    if (pair.handshake()) return verdict;
    verdict.other_end = pair.server.error();
    try {
        pair.client.rethrow();
    } catch (const ssl::CertVerificationError& e) {
        verdict = {e.what(), e.verify_message(), e.verify_code(), verdict.other_end};
        EXPECT_EQ(e.reason(), "CERTIFICATE_VERIFY_FAILED");
        EXPECT_EQ(e.library(), "SSL");
    } catch (const std::exception& e) {
        verdict.text = std::string("not a CertVerificationError: ") + e.what();
    }
    return verdict;
}
Verdict verdict(const Wanted& wanted, const std::string& host) {
    return verdict(client_context(), server_context(authority().issue(wanted)), host);
}

} // namespace

TEST(SslVerification, takes_a_certificate_for_the_host) {
    EXPECT_EQ(verdict({.names = {"DNS:example.org"}}, "example.org").text, "");
    EXPECT_EQ(verdict({.names = {"DNS:example.org"}}, "EXAMPLE.org.").text, "");
    EXPECT_EQ(verdict({.names = {"DNS:*.example.org"}}, "www.example.org").text, "");
    EXPECT_EQ(verdict({.names = {"IP:127.0.0.1"}}, "127.0.0.1").text, "");
    EXPECT_EQ(verdict({.names = {"IP:fe80::1"}}, "fe80::1%2").text, "");
    EXPECT_EQ(verdict({.key_type = "RSA"}, "localhost").text, "");
    EXPECT_EQ(verdict({.key_type = "ED25519"}, "localhost").text, "");
}

TEST(SslVerification, refuses_a_certificate_for_another_host) {
    const Verdict other = verdict({.names = {"DNS:example.org"}}, "example.com");
    EXPECT_EQ(other.text, "certificate verify failed for 'example.com': Hostname mismatch, "
                          "certificate is not valid for 'example.com'");
    EXPECT_EQ(other.message, "Hostname mismatch, certificate is not valid for 'example.com'");
    EXPECT_EQ(other.code, X509_V_ERR_HOSTNAME_MISMATCH);
    EXPECT_EQ(other.other_end, "the TLS handshake with the client failed: the peer sent the alert "
                               "'bad certificate'");
    const Verdict address = verdict({.names = {"IP:127.0.0.1"}}, "127.0.0.2");
    EXPECT_EQ(address.text, "certificate verify failed for '127.0.0.2': IP address mismatch, "
                            "certificate is not valid for '127.0.0.2'");
    EXPECT_EQ(address.code, X509_V_ERR_IP_ADDRESS_MISMATCH);
    // A name is no address, nor the reverse.
    EXPECT_EQ(verdict({.names = {"DNS:127.0.0.1"}}, "127.0.0.1").code,
              X509_V_ERR_IP_ADDRESS_MISMATCH);
    EXPECT_EQ(verdict({.names = {"DNS:*.example.org"}}, "a.b.example.org").code,
              X509_V_ERR_HOSTNAME_MISMATCH);
    EXPECT_EQ(verdict({.names = {"DNS:w*.example.org"}}, "www.example.org").code,
              X509_V_ERR_HOSTNAME_MISMATCH);
}

TEST(SslVerification, takes_a_common_name_for_the_host_only_if_told_to) {
    const Wanted wanted{.names = {}, .common_name = "example.org"};
    EXPECT_EQ(verdict(wanted, "example.org").code, X509_V_ERR_HOSTNAME_MISMATCH);
    ssl::Context client = client_context();
    EXPECT_FALSE(client.hostname_checks_common_name());
    client.set_hostname_checks_common_name(true);
    EXPECT_EQ(verdict(client, server_context(authority().issue(wanted)), "example.org").text, "");
}

TEST(SslVerification, refuses_certificates_out_of_their_time) {
    const Verdict expired = verdict({.from = -48h, .until = -24h}, "localhost");
    EXPECT_EQ(expired.text, "certificate verify failed for 'localhost': certificate has expired");
    EXPECT_EQ(expired.code, X509_V_ERR_CERT_HAS_EXPIRED);
    EXPECT_EQ(expired.other_end, "the TLS handshake with the client failed: the peer sent the "
                                 "alert 'certificate expired'");
    const Verdict early = verdict({.from = 24h, .until = 48h}, "localhost");
    EXPECT_EQ(early.text,
              "certificate verify failed for 'localhost': certificate is not yet valid");
}

TEST(SslVerification, refuses_whom_it_does_not_know) {
    const Issued itself = authority().self_signed({});
    EXPECT_EQ(verdict(client_context(), server_context(itself), "localhost").text,
              "certificate verify failed for 'localhost': self-signed certificate");
    Authority other("another root");
    const Verdict unknown = verdict(client_context(), server_context(other.issue({})), "localhost");
    EXPECT_EQ(unknown.text, "certificate verify failed for 'localhost': unable to get local issuer "
                            "certificate");
    EXPECT_EQ(unknown.other_end, "the TLS handshake with the client failed: the peer sent the "
                                 "alert 'unknown ca'");
    // A client's certificate is none for a server.
    EXPECT_EQ(verdict({.usage = "clientAuth"}, "localhost").text,
              "certificate verify failed for 'localhost': unsuitable certificate purpose");
    // The system's roots have not signed ours.
    EXPECT_NE(
        verdict(ssl::create_default_context(), server_context(authority().issue({})), "localhost")
            .code,
        0);
}

TEST(SslVerification, trusts_by_file_folder_and_data) {
    const ssl::Context server = server_context(authority().issue({}));
    const std::string pem = asyncio_test::contents_of(authority().file());
    ssl::Context nobody(ssl::PROTOCOL_TLS_CLIENT);
    EXPECT_EQ(verdict(nobody, server, "localhost").code,
              X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY);
    ssl::Context by_data(ssl::PROTOCOL_TLS_CLIENT);
    by_data.load_verify_locations({.cadata = pem});
    EXPECT_EQ(verdict(by_data, server, "localhost").text, "");
    ssl::Context by_folder(ssl::PROTOCOL_TLS_CLIENT);
    by_folder.load_verify_locations({.capath = authority().path()});
    EXPECT_EQ(verdict(by_folder, server, "localhost").text, "");

    // The server's own certificate in DER, as it came to us: trusted by itself.
    ssl::Context careless(ssl::PROTOCOL_TLS_CLIENT);
    careless.set_check_hostname(false);
    careless.set_verify_mode(ssl::CERT_NONE);
    TlsPair pair(careless, server, "localhost");
    ASSERT_TRUE(pair.handshake());
    EXPECT_FALSE(pair.client.object().getpeercert());
    const std::string der = pair.client.object().getpeercert_der();
    ASSERT_FALSE(der.empty());
    ssl::Context pinned = ssl::create_default_context(ssl::Purpose::SERVER_AUTH, {.cadata = der});
    EXPECT_EQ(verdict(pinned, server, "localhost").text, "");
    EXPECT_EQ(verdict(pinned, server_context(authority().issue({})), "localhost").code,
              X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY);
}

TEST(SslVerification, honours_ssl_cert_file) {
    const ssl::Context server = server_context(authority().issue({}));
    ::setenv("SSL_CERT_FILE", authority().file().c_str(), 1);
    const Verdict known = verdict(ssl::create_default_context(), server, "localhost");
    ::unsetenv("SSL_CERT_FILE");
    EXPECT_EQ(known.text, "");
}

TEST(SslVerification, checks_nothing_if_told_so) {
    ssl::Context client(ssl::PROTOCOL_TLS_CLIENT);
    client.set_check_hostname(false);
    client.set_verify_mode(ssl::CERT_NONE);
    const ssl::Context server =
        server_context(authority().self_signed({.from = -48h, .until = -24h}));
    EXPECT_EQ(verdict(client, server, "elsewhere").text, "");
    EXPECT_EQ(verdict(client, server, "").text, "");
    // The chain, and not the name.
    ssl::Context chain = client_context();
    chain.set_check_hostname(false);
    EXPECT_EQ(verdict(chain, server_context(authority().issue({})), "elsewhere").text, "");
    EXPECT_EQ(verdict(chain, server, "elsewhere").code, X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT);
}

TEST(SslVerification, refuses_names_that_are_none) {
    const ssl::Context client = client_context();
    const auto refused = [&](const std::string& host) -> std::string {
        try {
            client.tls()->client(host);
        } catch (const asyncio::ValueError& e) {
            return e.what();
        }
        return "taken";
    };
    EXPECT_EQ(refused(""), "check_hostname requires server_hostname");
    EXPECT_EQ(refused(".org"),
              "server_hostname cannot be an empty string or start with a leading dot.");
    EXPECT_EQ(refused(std::string("a\0b", 3)), "server_hostname must not contain a zero byte");
    EXPECT_EQ(refused("example.org:443"), "'example.org:443' cannot be a server_hostname: it is "
                                          "neither a host name nor an IP address");
    EXPECT_EQ(refused("[::1]"),
              "'[::1]' cannot be a server_hostname: it is neither a host name nor an IP address");
    EXPECT_EQ(refused("b\xc3\xbc"
                      "cher.example"),
              "'b\xc3\xbc"
              "cher.example' cannot be a server_hostname: a name with other letters than ASCII's "
              "must be given in its form with xn--");
    EXPECT_EQ(refused("a..b"), "'a..b' cannot be a server_hostname: a part of it is empty");
    EXPECT_EQ(refused("a.."), "'a..' cannot be a server_hostname: a part of it is empty");
    EXPECT_NE(refused(std::string(64, 'a')), "taken");
    EXPECT_NE(refused(std::string(254, 'a')), "taken");
    EXPECT_EQ(refused("xn--bcher-kva.example"), "taken");
    EXPECT_EQ(refused("_dmarc.example.org."), "taken");
    EXPECT_EQ(refused(std::string(63, 'a')), "taken");
}

// --- Clients' certificates -----------------------------------------------------------------------

class SslClientCertificates : public testing::TestWithParam<TLSVersion> {
  protected:
    ssl::Context client() const {
        ssl::Context context = client_context();
        context.set_maximum_version(GetParam());
        return context;
    }
    static ssl::Context server(ssl::VerifyMode mode) {
        ssl::Context context =
            ssl::create_default_context(ssl::Purpose::CLIENT_AUTH, {.cafile = authority().file()});
        const Issued issued = authority().issue({});
        context.load_cert_chain(issued.certificate, issued.key);
        context.set_verify_mode(mode);
        return context;
    }
    // In TLS 1.3 a client learns after its handshake that it is refused.
    static std::string client_error(TlsPair& pair) {
        if (pair.client.status == TlsStatus::done) {
            pair.carry(pair.server, pair.client, [](TlsEnd&) {});
            pair.client.step_read();
        }
        return pair.client.error();
    }
};
INSTANTIATE_TEST_SUITE_P(Versions, SslClientCertificates,
                         testing::Values(TLSVersion::TLSv1_2, TLSVersion::TLSv1_3),
                         [](const auto& one) {
                             return one.param == TLSVersion::TLSv1_2 ? "TLSv1_2" : "TLSv1_3";
                         });

TEST_P(SslClientCertificates, are_seen_by_the_server) {
    ssl::Context showing = client();
    const Issued issued =
        authority().issue({.names = {"URI:spiffe://here/me"}, .common_name = "me"});
    showing.load_cert_chain(issued.certificate, issued.key);
    for (const ssl::VerifyMode mode : {ssl::CERT_OPTIONAL, ssl::CERT_REQUIRED}) {
        TlsPair pair(showing, server(mode), "localhost");
        ASSERT_TRUE(pair.handshake()) << pair.server.error();
        const auto certificate = pair.server.object().getpeercert();
        ASSERT_TRUE(certificate);
        EXPECT_EQ(certificate->subject, (ssl::Certificate::Name{{"commonName", "me"}}));
        EXPECT_EQ(certificate->issuer, (ssl::Certificate::Name{{"commonName", "the tests' root"}}));
        EXPECT_EQ(certificate->subject_alt_names,
                  (ssl::Certificate::Name{{"URI", "spiffe://here/me"}}));
        EXPECT_EQ(certificate->version, 3);
        EXPECT_FALSE(certificate->serial_number.empty());
        const auto now = std::chrono::system_clock::now();
        EXPECT_LT(certificate->not_before, now);
        EXPECT_GT(certificate->not_before, now - 2h);
        EXPECT_GT(certificate->not_after, now);
        EXPECT_EQ(pair.server.object().getpeercert_der().substr(0, 1), "\x30");
    }
    // And not asked for.
    TlsPair pair(showing, server(ssl::CERT_NONE), "localhost");
    ASSERT_TRUE(pair.handshake());
    EXPECT_FALSE(pair.server.object().getpeercert());
    EXPECT_EQ(pair.server.object().getpeercert_der(), "");
}

TEST_P(SslClientCertificates, may_be_missing_where_they_are_optional) {
    TlsPair pair(client(), server(ssl::CERT_OPTIONAL), "localhost");
    ASSERT_TRUE(pair.handshake()) << pair.server.error();
    EXPECT_FALSE(pair.server.object().getpeercert());
    EXPECT_EQ(pair.send(pair.client, pair.server, "hello"), "hello");
}

TEST_P(SslClientCertificates, are_missed_where_they_are_required) {
    TlsPair pair(client(), server(ssl::CERT_REQUIRED), "localhost");
    EXPECT_FALSE(pair.handshake());
    EXPECT_EQ(pair.server.error(), "the TLS handshake with the client failed: it showed no "
                                   "certificate, which this server requires");
    EXPECT_EQ(client_error(pair), GetParam() == TLSVersion::TLSv1_3
                                      ? "TLS with 'localhost' failed: the peer sent the alert "
                                        "'certificate required'"
                                      : "the TLS handshake with 'localhost' failed: the peer sent "
                                        "the alert 'handshake failure'");
}

TEST_P(SslClientCertificates, are_refused_if_they_are_not_good) {
    ssl::Context showing = client();
    Authority other("somebody else");
    const Issued issued = other.issue({});
    showing.load_cert_chain(issued.certificate, issued.key);
    for (const ssl::VerifyMode mode : {ssl::CERT_OPTIONAL, ssl::CERT_REQUIRED}) {
        TlsPair pair(showing, server(mode), "localhost");
        EXPECT_FALSE(pair.handshake());
        EXPECT_EQ(pair.server.error(), "certificate verify failed for the client: unable to get "
                                       "local issuer certificate");
        EXPECT_NE(client_error(pair).find("the peer sent the alert 'unknown ca'"),
                  std::string::npos)
            << pair.client.error();
    }
}

// OpenSSL compares neither certificates nor names when it resumes a session.
TEST_P(SslClientCertificates, are_not_spared_by_a_session_of_less_trust) {
    const ssl::Context asking = client();
    ssl::Context strict = server(ssl::CERT_REQUIRED);
    ssl::Context lax = server(ssl::CERT_NONE);
    lax.set_servername_callback(
        [&](ssl::Object& object, std::optional<std::string_view> name, const ssl::Context&) {
            if (name == "strict.example") object.set_context(strict);
        });
    ssl::Context careless = asking;
    TlsPair first(careless, lax, "localhost");
    ASSERT_TRUE(first.handshake());
    first.settle();
    ssl::Session session = first.client.object().session();
    ASSERT_TRUE(session);
    // The name in the client's message is all that our own client would not do.
    TlsPair second(careless, lax, "localhost", std::string::npos, &session);
    lax.set_servername_callback([&](ssl::Object& object, std::optional<std::string_view>,
                                    const ssl::Context&) { object.set_context(strict); });
    // Nor does it help that the first one becomes another in between.
    lax.set_verify_flags(lax.verify_flags());
    EXPECT_FALSE(second.handshake());
    EXPECT_FALSE(second.server.object().session_reused());
    EXPECT_EQ(second.server.error(), "the TLS handshake with the client failed: it showed no "
                                     "certificate, which this server requires");
    // Nor by one from before the same context became strict.
    lax.set_servername_callback(nullptr);
    {
        TlsPair again(careless, lax, "localhost");
        ASSERT_TRUE(again.handshake());
        again.settle();
        session = again.client.object().session();
    }
    TlsPair fourth(asking, lax, "localhost", std::string::npos, &session);
    ASSERT_TRUE(fourth.handshake());
    EXPECT_TRUE(fourth.client.object().session_reused());
    lax.set_verify_mode(ssl::CERT_REQUIRED);
    TlsPair fifth(asking, lax, "localhost", std::string::npos, &session);
    EXPECT_FALSE(fifth.handshake());
    EXPECT_FALSE(fifth.server.object().session_reused());
}
