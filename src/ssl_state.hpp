// SPDX-License-Identifier: MIT
// What the sources of asyncio::ssl share: OpenSSL's objects with owners, its errors, and the state
// behind a Context. The only header of ours that includes OpenSSL's.
#pragma once

#include <asyncio/ssl.hpp>

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <cstdint>
#include <cstdio>
#include <exception>
#include <memory>
#include <string>
#include <string_view>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

struct Freed {
    void operator()(std::FILE* file) const noexcept { std::fclose(file); }
    void operator()(BIO* bio) const noexcept { BIO_free_all(bio); }
    void operator()(SSL* ssl) const noexcept { SSL_free(ssl); }
    void operator()(SSL_CTX* context) const noexcept { SSL_CTX_free(context); }
    void operator()(SSL_SESSION* session) const noexcept { SSL_SESSION_free(session); }
    void operator()(X509* certificate) const noexcept { X509_free(certificate); }
};
template <class T> using Owned = std::unique_ptr<T, Freed>;

// --- Errors: OpenSSL queues them by thread -------------------------------------------------------

// Takes all there are: the last that says something, which is what OpenSSL was about when it gave
// up; and the system's errno, if one of them is that.
struct TakenErrors {
    unsigned long last = 0;
    int system_error = 0;

    static TakenErrors take() noexcept;
    bool is(int library, int reason) const noexcept {
        return ERR_GET_LIB(last) == library && ERR_GET_REASON(last) == reason;
    }
};
// What C wants of a path or a list: a zero at its end, and none before it. Throws ValueError.
std::string c_string(std::string_view text);
// "certificate verify failed", in OpenSSL's words.
std::string text_of(unsigned long openssl_code);
// Takes what is queued and throws it: "<text>: <reason>". Memory that OpenSSL lacked is bad_alloc.
[[noreturn]] void throw_openssl(const std::string& text);

// --- What a Context is a handle of ---------------------------------------------------------------

class SslContext final : public TlsContext, public std::enable_shared_from_this<SslContext> {
  public:
    explicit SslContext(ssl::Protocol protocol);
    ~SslContext() override;

    std::unique_ptr<TlsSession> client(const std::string& server_hostname,
                                       const ssl::Session* session) override;
    std::unique_ptr<TlsSession> server() override;

    SSL_CTX* get() const noexcept { return context_.get(); }
    ssl::Context handle() noexcept { return ssl::Context(shared_from_this()); }

    // Sets OpenSSL's mode by verify_mode.
    void verify_as_set() noexcept;
    // Whom we trust has changed: no session from before it is resumed. (OpenSSL compares neither
    // certificates nor names when it resumes one.)
    void trust_changed();

    const ssl::Protocol protocol;
    ssl::VerifyMode verify_mode;
    bool check_hostname;
    bool checks_common_name = false;
    std::uint64_t trust = 0; // counts its changes
    std::string groups;      // empty: OpenSSL's
    std::string alpn;        // as in the extension: each with its length before it
    unsigned char session_id[SSL_MAX_SID_CTX_LENGTH]{}; // whose sessions a server resumes
    std::unique_ptr<std::FILE, Freed> keylog;
    std::shared_ptr<ssl::Context::ServernameCallback> servername_callback;

  private:
    Owned<SSL_CTX> context_;
};

// By the session that calls them; see ssl_session.cpp.
void call_at_client_hello(SSL_CTX* context) noexcept;
void write_keylog(const SSL* ssl, const char* line) noexcept;

// What a Session is a handle of.
struct SavedSession {
    std::shared_ptr<const SslContext> context;
    std::string server_hostname;
    std::uint64_t trust;
    Owned<SSL_SESSION> session;
};

// A host as a client names it.
struct ServerHostname {
    std::string name; // without a dot at the end, or a scope
    bool is_address = false;

    // Throws ValueError if it is neither a name nor an address.
    explicit ServerHostname(std::string_view given);
};

ssl::Certificate contents_of(X509* certificate);
std::string der_of(X509* certificate);

} // namespace detail
ASYNCIO_END_NAMESPACE
