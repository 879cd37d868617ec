// SPDX-License-Identifier: MIT
// TLS: what a connection is to be protected by, and what is known of one that is. Python's ssl.
//
//     ssl::Context client = ssl::create_default_context();
//     ssl::Context server(ssl::PROTOCOL_TLS_SERVER);
//     server.load_cert_chain("chain.pem", "key.pem");
//     server.set_alpn_protocols({"h2", "http/1.1"});
//
// A Context is given to what opens connections, which take it as it is then; what is set later is
// for later ones. A client's checks who answers unless it is told otherwise: the chain up to a root
// that it trusts, and that the certificate is for the host that was asked for. A connection that
// ends without a close_notify fails, since somebody may have cut it.
//
// All this is in a library of its own, asyncio::ssl, which is linked to OpenSSL 3.
#pragma once

#include <asyncio/detail/config.hpp>
#include <asyncio/detail/tls.hpp>

#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {
class SslContext;
class SslSession;
struct SavedSession;
} // namespace detail

namespace ssl {

class Context;

// Which end of connections a Context is for. (ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLS_SERVER)
enum Protocol : int { PROTOCOL_TLS_CLIENT, PROTOCOL_TLS_SERVER };

// Whom a Context is to check, as seen from the other end: a client's the server. (ssl.Purpose)
enum class Purpose { SERVER_AUTH, CLIENT_AUTH };

// Whether the peer must show a certificate. CERT_OPTIONAL: a client may have none, but what it
// shows must be good; for a client it is CERT_REQUIRED. (ssl.VerifyMode)
enum VerifyMode : int { CERT_NONE, CERT_OPTIONAL, CERT_REQUIRED };

// (ssl.TLSVersion)
enum class TLSVersion {
    MINIMUM_SUPPORTED = -2, // what OpenSSL is built and configured for
    MAXIMUM_SUPPORTED = -1,
    TLSv1 = 0x0301,
    TLSv1_1 = 0x0302,
    TLSv1_2 = 0x0303,
    TLSv1_3 = 0x0304,
};

// Bits of Context::options(). (ssl.Options)
using Options = std::uint64_t;
inline constexpr Options OP_LEGACY_SERVER_CONNECT = 1u
                                                    << 2; // of a client: servers without RFC 5746
inline constexpr Options OP_NO_TICKET = 1u << 14;         // sessions stay with the server
inline constexpr Options OP_CIPHER_SERVER_PREFERENCE = 1u << 22; // on by default
inline constexpr Options OP_NO_RENEGOTIATION = 1u << 30;         // on by default

// Bits of Context::verify_flags(). (ssl.VerifyFlags)
using VerifyFlags = unsigned long;
inline constexpr VerifyFlags VERIFY_DEFAULT = 0;
inline constexpr VerifyFlags VERIFY_CRL_CHECK_LEAF = 0x4;
inline constexpr VerifyFlags VERIFY_CRL_CHECK_CHAIN = 0xc;
inline constexpr VerifyFlags VERIFY_X509_STRICT = 0x20;
inline constexpr VerifyFlags VERIFY_ALLOW_PROXY_CERTS = 0x40;
inline constexpr VerifyFlags VERIFY_X509_TRUSTED_FIRST = 0x8000;
inline constexpr VerifyFlags VERIFY_X509_PARTIAL_CHAIN = 0x80000;

// What one end tells the other when it gives up. (ssl.AlertDescription)
enum AlertDescription : int {
    ALERT_DESCRIPTION_HANDSHAKE_FAILURE = 40,
    ALERT_DESCRIPTION_BAD_CERTIFICATE = 42,
    ALERT_DESCRIPTION_UNSUPPORTED_CERTIFICATE = 43,
    ALERT_DESCRIPTION_CERTIFICATE_REVOKED = 44,
    ALERT_DESCRIPTION_CERTIFICATE_EXPIRED = 45,
    ALERT_DESCRIPTION_CERTIFICATE_UNKNOWN = 46,
    ALERT_DESCRIPTION_ILLEGAL_PARAMETER = 47,
    ALERT_DESCRIPTION_UNKNOWN_CA = 48,
    ALERT_DESCRIPTION_ACCESS_DENIED = 49,
    ALERT_DESCRIPTION_DECODE_ERROR = 50,
    ALERT_DESCRIPTION_DECRYPT_ERROR = 51,
    ALERT_DESCRIPTION_PROTOCOL_VERSION = 70,
    ALERT_DESCRIPTION_INSUFFICIENT_SECURITY = 71,
    ALERT_DESCRIPTION_INTERNAL_ERROR = 80,
    ALERT_DESCRIPTION_USER_CANCELLED = 90,
    ALERT_DESCRIPTION_UNRECOGNIZED_NAME = 112,
};

// --- Errors

// TLS has failed, or OpenSSL has refused something. what() says what, and for which host. As in
// Python it is among the system's errors, so that one handler sees to whatever befalls a
// connection. (ssl.SSLError)
class ASYNCIO_API Error : public std::system_error {
  public:
    // OpenSSL's number of the error, and the whole of what().
    Error(unsigned long openssl_code, const std::string& text);
    Error(const Error&) noexcept;
    Error& operator=(const Error&) noexcept;
    ~Error() override;

    const char* what() const noexcept override;
    // Where in OpenSSL it arose: "SSL", "X509", "PEM", ...
    std::string library() const;
    // Its name there: "WRONG_VERSION_NUMBER", "CERTIFICATE_VERIFY_FAILED", ...
    std::string reason() const;

  private:
    std::runtime_error text_; // a string whose copies cannot throw
};

// The peer's certificate was not accepted. (ssl.SSLCertVerificationError)
class ASYNCIO_API CertVerificationError : public Error {
  public:
    CertVerificationError(unsigned long openssl_code, const std::string& text, int verify_code,
                          const std::string& verify_message);
    CertVerificationError(const CertVerificationError&) noexcept;
    CertVerificationError& operator=(const CertVerificationError&) noexcept;
    ~CertVerificationError() override;

    // OpenSSL's X509_V_ERR_...: 10 expired, 18 self-signed, 19 and 20 unknown root, 62 wrong host,
    // 64 wrong address.
    int verify_code() const noexcept { return verify_code_; }
    // "certificate has expired", "Hostname mismatch, certificate is not valid for 'example.org'"
    const char* verify_message() const noexcept { return verify_message_.what(); }

  private:
    int verify_code_;
    std::runtime_error verify_message_;
};
using CertificateError = CertVerificationError;

// The connection ended below TLS, without a close_notify. (ssl.SSLEOFError)
class ASYNCIO_API EOFError : public Error {
  public:
    using Error::Error;
    EOFError(const EOFError&) noexcept;
    EOFError& operator=(const EOFError&) noexcept;
    ~EOFError() override;
};

// The peer has ended TLS in order, where it is not expected to. (ssl.SSLZeroReturnError)
class ASYNCIO_API ZeroReturnError : public Error {
  public:
    using Error::Error;
    ZeroReturnError(const ZeroReturnError&) noexcept;
    ZeroReturnError& operator=(const ZeroReturnError&) noexcept;
    ~ZeroReturnError() override;
};

// The category of Error::code(), whose value is OpenSSL's number.
ASYNCIO_API const std::error_category& error_category() noexcept;

// --- What is known of a connection

struct Cipher {
    std::string name;     // "TLS_AES_256_GCM_SHA384"
    std::string protocol; // the first version that has it: "TLSv1.3"
    int bits = 0;         // of the secret key
};

// A certificate's contents.
struct Certificate {
    using Name = std::vector<std::pair<std::string, std::string>>;
    Name subject; // {"commonName", "example.org"}, in the certificate's order
    Name issuer;
    int version = 0;
    std::string serial_number; // hexadecimal
    std::chrono::sys_seconds not_before;
    std::chrono::sys_seconds not_after;
    Name subject_alt_names; // {"DNS", "*.example.org"}, {"IP Address", "127.0.0.1"}
};

// What two ends have agreed upon, which spares a later connection to the same host the certificates
// (and one round trip in TLS 1.2). Copies share it. (ssl.SSLSession)
class ASYNCIO_API Session {
  public:
    // None.
    Session() noexcept;
    Session(const Session&) noexcept;
    Session& operator=(const Session&) noexcept;
    Session(Session&&) noexcept;
    Session& operator=(Session&&) noexcept;
    ~Session();

    explicit operator bool() const noexcept { return state_ != nullptr; }
    // What follows requires a session.
    std::string id() const;
    std::chrono::sys_seconds time() const;
    std::chrono::seconds timeout() const; // how long after time() it is good
    bool has_ticket() const;
    std::chrono::seconds ticket_lifetime_hint() const;

  private:
    friend class detail::SslContext;
    friend class detail::SslSession;
    explicit Session(std::shared_ptr<const detail::SavedSession> state) noexcept;

    std::shared_ptr<const detail::SavedSession> state_;
};

// One connection, as TLS sees it. It belongs to the connection and goes with it. Before the
// handshake is done most of it is empty. (ssl.SSLObject, ssl.SSLSocket)
class ASYNCIO_API Object {
  public:
    Object(const Object&) = delete;
    Object& operator=(const Object&) = delete;

    // "TLSv1.3", "TLSv1.2"
    virtual std::string version() const = 0;
    // Nothing before there is one.
    virtual std::optional<Cipher> cipher() const = 0;
    // The peer's certificate; none if it showed none, or the context does not verify it.
    virtual std::optional<Certificate> getpeercert() const = 0;
    // The same in DER, verified or not: verify_mode() tells. Empty if it showed none.
    virtual std::string getpeercert_der() const = 0;
    // What ALPN has agreed upon; empty if it has not.
    virtual std::string selected_alpn_protocol() const = 0;
    // A client's: the host it was made for. A server's: the name that the client asked for (SNI),
    // which Python has only in the callback. Empty if there is none.
    virtual const std::string& server_hostname() const noexcept = 0;
    virtual bool server_side() const noexcept = 0;
    // What a later connection may be given. In TLS 1.3 the server sends it after the handshake, so
    // there is none before something was read.
    virtual Session session() const = 0;
    // The handshake has resumed an earlier session.
    virtual bool session_reused() const noexcept = 0;

    virtual const Context& context() const noexcept = 0;
    // Another server's context from here on: its certificate, its checks, its settings. Throws
    // RuntimeError outside of a servername callback, ValueError if it is a client's.
    virtual void set_context(const Context& context) = 0;

  protected:
    Object() = default;
    virtual ~Object();
};

// --- Context

// PEM files, a folder of such as `openssl rehash` names them, certificates themselves (PEM, or
// DER).
struct VerifyLocations {
    std::string_view cafile = {};
    std::string_view capath = {};
    std::string_view cadata = {};
};

// (SSLContext.session_stats())
struct SessionStats {
    long number = 0;
    long connect = 0;
    long connect_good = 0;
    long accept = 0;
    long accept_good = 0;
    long hits = 0;
    long misses = 0;
    long timeouts = 0;
    long cache_full = 0;
};

// Settings, certificates and sessions that connections share. Copies are handles of the same; it
// lives as long as a connection of it does. To be set up by one thread, and then used by many.
// (ssl.SSLContext)
class ASYNCIO_API Context {
    // Callbacks of any type.
    class ASYNCIO_API ServernameCallback {
      public:
        virtual ~ServernameCallback();
        virtual std::optional<AlertDescription>
        call(Object& object, std::optional<std::string_view> name, const Context& initial) = 0;
    };
    class ASYNCIO_API PasswordCallback {
      public:
        virtual std::string call() = 0;

      protected:
        ~PasswordCallback();
    };

  public:
    // TLS 1.2 at least, no compression, no renegotiation, Python's choice of ciphers. A client's
    // verifies and checks host names, but trusts nobody yet; a server's asks for no certificates.
    // Throws ssl::Error if OpenSSL cannot be set up.
    explicit Context(Protocol protocol);
    Context(const Context&) noexcept;
    Context& operator=(const Context&) noexcept;
    Context(Context&&) noexcept;
    Context& operator=(Context&&) noexcept;
    ~Context();
    // The same one.
    friend bool operator==(const Context& a, const Context& b) noexcept {
        return a.state_ == b.state_;
    }

    Protocol protocol() const noexcept;

    // Our certificate, followed by those between it and the root, and its private key: PEM, in one
    // file or two. A second pair, of another type of key, is offered beside the first. Throws
    // std::system_error if a file cannot be read, ssl::Error if it does not hold what it should,
    // and what password() throws, which gives the key's password and is called only if it is
    // encrypted.
    void load_cert_chain(std::string_view certfile, std::string_view keyfile = {},
                         std::string_view password = {});
    template <class F>
        requires std::is_invocable_r_v<std::string, F&>
    void load_cert_chain(std::string_view certfile, std::string_view keyfile, F password) {
        struct Callback final : PasswordCallback {
            F& function;
            explicit Callback(F& f) noexcept : function(f) {}
            std::string call() override { return function(); }
        } callback(password);
        load_cert_chain_with(certfile, keyfile, &callback);
    }

    // Whom to trust, besides those already given. Throws ValueError if nothing is given,
    // std::system_error if the file cannot be read, ssl::Error if it holds no certificates.
    void load_verify_locations(const VerifyLocations& locations);
    // The system's roots; or those of SSL_CERT_FILE and SSL_CERT_DIR in the environment.
    void load_default_certs();
    void set_default_verify_paths() { load_default_certs(); }

    // For TLS 1.2, in OpenSSL's notation. Throws ssl::Error if none is left.
    void set_ciphers(std::string_view ciphers);
    // For TLS 1.3: "TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256". Throws ssl::Error for a
    // name that OpenSSL does not know.
    void set_ciphersuites(std::string_view ciphersuites);
    std::vector<Cipher> get_ciphers() const;
    // For the exchange of keys, what we like best first: "X25519:P-256". Throws ssl::Error for one
    // that OpenSSL does not know.
    void set_groups(std::string_view groups);

    // Throw ValueError for a version that OpenSSL does not have.
    TLSVersion minimum_version() const noexcept;
    void set_minimum_version(TLSVersion version);
    TLSVersion maximum_version() const noexcept;
    void set_maximum_version(TLSVersion version);

    VerifyMode verify_mode() const noexcept;
    // Throws ValueError for CERT_NONE while check_hostname is on.
    void set_verify_mode(VerifyMode mode);
    // Whether a client compares the certificate with the host it asked for, a name or an IP
    // address.
    bool check_hostname() const noexcept;
    // Turned on, turns CERT_NONE into CERT_REQUIRED.
    void set_check_hostname(bool check);
    // Whether a certificate without any DNS name is good for its subject's common name. Off, unlike
    // Python: certificates for the open network have not been made so for many years.
    bool hostname_checks_common_name() const noexcept;
    void set_hostname_checks_common_name(bool check) noexcept;
    VerifyFlags verify_flags() const noexcept;
    void set_verify_flags(VerifyFlags flags);

    // What to speak inside, what we like best first; the server chooses, and where the two have
    // nothing in common it is nothing. Throws ValueError unless each has 1 to 255 bytes.
    void set_alpn_protocols(std::initializer_list<std::string_view> protocols);
    void set_alpn_protocols(std::span<const std::string> protocols);

    // A server's: called as callback(Object&, std::optional<std::string_view> name, const Context&)
    // when a client says whom it wants (nothing: it does not say), before anything is answered. It
    // may call set_context() on the object, and return an AlertDescription to refuse the client
    // (or std::nullopt; or return nothing at all). What it throws is the error of the handshake,
    // and the client gets the alert handshake_failure. A context that is switched to is a copy in
    // the callback: one that holds itself so lives for ever. (SSLContext.sni_callback)
    template <class F>
        requires std::invocable<F&, Object&, std::optional<std::string_view>, const Context&>
    void set_servername_callback(F callback) {
        struct Callback final : ServernameCallback {
            F function;
            explicit Callback(F&& f) : function(std::move(f)) {}
            std::optional<AlertDescription> call(Object& object,
                                                 std::optional<std::string_view> name,
                                                 const Context& initial) override {
                using Result = std::invoke_result_t<F&, Object&, std::optional<std::string_view>,
                                                    const Context&>;
                if constexpr (std::is_void_v<Result>) {
                    function(object, name, initial);
                    return std::nullopt;
                } else {
                    return function(object, name, initial);
                }
            }
        };
        set_servername_callback_of(std::make_shared<Callback>(std::move(callback)));
    }
    void set_servername_callback(std::nullptr_t) noexcept;

    // How many sessions a TLS 1.3 server hands out after a full handshake: 2, if not set.
    std::size_t num_tickets() const noexcept;
    void set_num_tickets(std::size_t count);
    SessionStats session_stats() const;

    Options options() const noexcept;
    // Throws ValueError if OP_NO_RENEGOTIATION is not among them.
    void set_options(Options options);

    // The secrets of each connection are added to this file, by which Wireshark and others read
    // along; an empty path ends it. Throws std::system_error if it cannot be opened. For looking
    // into faults only. (SSLContext.keylog_filename)
    void set_keylog_filename(std::string_view path);

    // Seen from below, for streams and transports.
    std::shared_ptr<detail::TlsContext> tls() const;

  private:
    friend class detail::SslContext;
    friend class detail::SslSession;
    explicit Context(std::shared_ptr<detail::SslContext> state) noexcept;
    void load_cert_chain_with(std::string_view certfile, std::string_view keyfile,
                              PasswordCallback* password);
    void set_servername_callback_of(std::shared_ptr<ServernameCallback> callback);

    std::shared_ptr<detail::SslContext> state_;
};

// What one wants, for clients: certificates and host names are checked, by the rules of RFC 5280
// without exceptions, against the locations or, if none is given, the system's roots. For servers:
// no certificates are asked for. Besides SSLKEYLOGFILE in the environment, as in Python.
ASYNCIO_API Context create_default_context(Purpose purpose = Purpose::SERVER_AUTH,
                                           const VerifyLocations& locations = {});

// "OpenSSL 3.0.17 1 Jul 2025", of the library that is loaded. (ssl.OPENSSL_VERSION)
ASYNCIO_API const char* openssl_version() noexcept;

} // namespace ssl
ASYNCIO_END_NAMESPACE
