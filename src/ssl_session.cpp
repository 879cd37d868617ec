// SPDX-License-Identifier: MIT
#include "ssl_session.hpp"

#include <asyncio/exceptions.hpp>

#include <algorithm>
#include <arpa/inet.h>
#include <cstring>
#include <new>
#include <openssl/bio.h>
#include <openssl/x509v3.h>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

// --- What OpenSSL calls --------------------------------------------------------------------------

// No exception may cross OpenSSL's frames: it is kept, and is the error of the step.
struct SslCallbacks {
    static SslSession& of(BIO* bio) noexcept {
        return *static_cast<SslSession*>(BIO_get_data(bio));
    }

    static int read(BIO* bio, char* into, int wanted) noexcept {
        SslSession& session = of(bio);
        BIO_clear_retry_flags(bio);
        if (wanted <= 0) return 0;
        const auto room = static_cast<std::size_t>(wanted);
        std::size_t count = 0;
        if (session.fed_used_ < session.fed_.size()) {
            count = std::min(room, session.fed_.size() - session.fed_used_);
            std::memcpy(into, session.fed_.data() + session.fed_used_, count);
            session.fed_used_ += count;
        } else {
            count = std::min(room, session.lent_.size());
            if (count != 0) std::memcpy(into, session.lent_.data(), count);
            session.lent_.remove_prefix(count);
        }
        if (count == 0) {
            if (session.eof_) return 0;
            BIO_set_retry_read(bio);
            return -1;
        }
        if (session.began_with_ < 0) session.began_with_ = static_cast<unsigned char>(*into);
        return static_cast<int>(count);
    }

    static int write(BIO* bio, const char* data, int size) noexcept {
        SslSession& session = of(bio);
        BIO_clear_retry_flags(bio);
        if (size <= 0) return 0;
        try {
            std::string& output = session.output_;
            if (session.output_taken_ > output.size() / 2) {
                output.erase(0, session.output_taken_);
                session.output_taken_ = 0;
            }
            output.append(data, static_cast<std::size_t>(size));
        } catch (...) {
            session.thrown_ = std::current_exception();
            return -1;
        }
        return size;
    }

    static long control(BIO* bio, int command, long, void*) noexcept {
        const SslSession& session = of(bio);
        const std::size_t left = session.fed_.size() - session.fed_used_ + session.lent_.size();
        switch (command) {
        case BIO_CTRL_FLUSH:
            return 1;
        case BIO_CTRL_EOF:
            return session.eof_ && left == 0 ? 1 : 0;
        case BIO_CTRL_PENDING:
            return static_cast<long>(left);
        case BIO_CTRL_WPENDING:
            return static_cast<long>(session.output().size());
        default:
            return 0;
        }
    }

    static int create(BIO* bio) noexcept {
        BIO_set_init(bio, 1);
        return 1;
    }

    static const BIO_METHOD* method() {
        static BIO_METHOD* const made = [] {
            BIO_METHOD* const method =
                BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "asyncio");
            if (method == nullptr || BIO_meth_set_read(method, &read) != 1 ||
                BIO_meth_set_write(method, &write) != 1 ||
                BIO_meth_set_ctrl(method, &control) != 1 ||
                BIO_meth_set_create(method, &create) != 1)
                throw_openssl("cannot set up OpenSSL's input and output");
            return method;
        }();
        return made;
    }

    static int client_hello(SSL* ssl, int* alert, void*) noexcept {
        auto& session = *static_cast<SslSession*>(SSL_get_ex_data(ssl, 0));
        session.in_callback_ = true;
        int result = SSL_CLIENT_HELLO_SUCCESS;
        try {
            if (const std::optional<ssl::AlertDescription> refused = session.client_said_hello()) {
                *alert = *refused;
                result = SSL_CLIENT_HELLO_ERROR;
            }
        } catch (...) {
            session.thrown_ = std::current_exception();
            *alert = SSL_AD_HANDSHAKE_FAILURE;
            result = SSL_CLIENT_HELLO_ERROR;
        }
        session.in_callback_ = false;
        return result;
    }
};

void call_at_client_hello(SSL_CTX* context) noexcept {
    SSL_CTX_set_client_hello_cb(context, &SslCallbacks::client_hello, nullptr);
}

void write_keylog(const SSL* ssl, const char* line) noexcept {
    const auto& session = *static_cast<const SslSession*>(SSL_get_ex_data(ssl, 0));
    session.log_secrets(line);
}

// --- Making one ----------------------------------------------------------------------------------

ServerHostname::ServerHostname(std::string_view given) : name(given) {
    const auto refuse = [&](const char* why) {
        throw ValueError("'" + std::string(given) + "' cannot be a server_hostname: " + why);
    };
    if (given.empty() || given.front() == '.')
        throw ValueError("server_hostname cannot be an empty string or start with a leading dot.");
    if (given.find('\0') != std::string_view::npos)
        throw ValueError("server_hostname must not contain a zero byte");
    unsigned char address[sizeof(in6_addr)];
    const std::string without_scope(given.substr(0, given.find('%')));
    if (::inet_pton(AF_INET, name.c_str(), address) == 1 ||
        ::inet_pton(AF_INET6, without_scope.c_str(), address) == 1) {
        name = without_scope;
        is_address = true;
        return;
    }
    if (name.back() == '.') name.pop_back();
    if (name.size() > 253) refuse("a host name has at most 253 characters");
    std::size_t label = 0;
    for (const char c : name) {
        if (static_cast<unsigned char>(c) >= 0x80)
            refuse("a name with other letters than ASCII's must be given in its form with xn--");
        const bool usual = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                           (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
        if (!usual) refuse("it is neither a host name nor an IP address");
        if (c == '.' && label == 0) refuse("a part of it is empty");
        label = c == '.' ? 0 : label + 1;
        if (label > 63) refuse("a part of it has more than 63 characters");
    }
    if (label == 0) refuse("a part of it is empty");
}

std::unique_ptr<TlsSession> SslContext::client(const std::string& server_hostname,
                                               const ssl::Session* session) {
    if (protocol != ssl::PROTOCOL_TLS_CLIENT)
        throw ValueError("a client needs a Context of PROTOCOL_TLS_CLIENT");
    std::optional<ServerHostname> host;
    if (!server_hostname.empty()) {
        host.emplace(server_hostname);
    } else if (check_hostname) {
        throw ValueError("check_hostname requires server_hostname");
    }
    const SavedSession* resumed = session == nullptr ? nullptr : session->state_.get();
    if (resumed != nullptr) {
        if (resumed->context.get() != this)
            throw ValueError("Session refers to a different SSLContext.");
        if (resumed->server_hostname != server_hostname)
            throw ValueError("the session is one with '" + resumed->server_hostname +
                             "', and cannot be resumed with '" + server_hostname + "'");
        if (resumed->trust != trust) resumed = nullptr;
    }
    return std::make_unique<SslSession>(shared_from_this(), server_hostname,
                                        host ? &*host : nullptr, resumed);
}

std::unique_ptr<TlsSession> SslContext::server() {
    if (protocol != ssl::PROTOCOL_TLS_SERVER)
        throw ValueError("a server needs a Context of PROTOCOL_TLS_SERVER");
    if (SSL_CTX_get0_certificate(get()) == nullptr && servername_callback == nullptr)
        throw ssl::Error(ERR_PACK(ERR_LIB_SSL, 0, SSL_R_NO_CERTIFICATE_SET),
                         "a server's Context needs a certificate: call load_cert_chain()");
    return std::make_unique<SslSession>(shared_from_this());
}

SslSession::SslSession(std::shared_ptr<SslContext> context, const std::string& server_hostname,
                       const ServerHostname* host, const SavedSession* resumed)
    : SslSession(std::move(context), false) {
    server_hostname_ = server_hostname;
    SSL* const ssl = ssl_.get();
    SSL_set_connect_state(ssl);
    if (host != nullptr) {
        // RFC 6066: the server is told a name, never an address.
        std::string name = host->name;
        if (!host->is_address && SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME,
                                          TLSEXT_NAMETYPE_host_name, name.data()) != 1)
            throw_openssl("cannot ask for '" + name + "'");
        if (current_->check_hostname) {
            X509_VERIFY_PARAM* const parameters = SSL_get0_param(ssl);
            unsigned flags = X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS;
            if (!current_->checks_common_name) flags |= X509_CHECK_FLAG_NEVER_CHECK_SUBJECT;
            X509_VERIFY_PARAM_set_hostflags(parameters, flags);
            const int set =
                host->is_address
                    ? X509_VERIFY_PARAM_set1_ip_asc(parameters, host->name.c_str())
                    : X509_VERIFY_PARAM_set1_host(parameters, host->name.data(), host->name.size());
            if (set != 1) throw_openssl("cannot check certificates for '" + host->name + "'");
        }
    }
    if (resumed != nullptr && SSL_set_session(ssl, resumed->session.get()) != 1)
        throw_openssl("cannot resume the session with '" + server_hostname_ + "'");
}

SslSession::SslSession(std::shared_ptr<SslContext> context) : SslSession(std::move(context), true) {
    SSL_set_accept_state(ssl_.get());
}

SslSession::SslSession(std::shared_ptr<SslContext> context, bool server_side)
    : first_context_(std::move(context)), current_(first_context_), context_(current_->handle()),
      trust_(current_->trust), server_side_(server_side) {
    ERR_clear_error();
    ssl_.reset(SSL_new(current_->get()));
    if (ssl_ == nullptr) throw_openssl("cannot begin a TLS session");
    BIO* const bio = BIO_new(SslCallbacks::method());
    if (bio == nullptr) throw_openssl("cannot begin a TLS session");
    BIO_set_data(bio, this);
    SSL_set_bio(ssl_.get(), bio, bio);
    if (SSL_set_ex_data(ssl_.get(), 0, this) != 1) throw_openssl("cannot begin a TLS session");
}

SslSession::~SslSession() {
    // A connection that was dropped without a close_notify would else take its session with it, so
    // that it is not resumed; only one that went wrong should.
    if (error_ == nullptr && handshaken_)
        SSL_set_shutdown(ssl_.get(), SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    ssl_.reset();
    ERR_clear_error();
}

// --- Steps ---------------------------------------------------------------------------------------

SslSession::Status SslSession::handshake() noexcept {
    if (error_ != nullptr) return Status::failed;
    ERR_clear_error();
    const int result = SSL_do_handshake(ssl_.get());
    if (result != 1) return stopped(result);
    handshaken_ = true;
    return Status::done;
}

SslSession::Status SslSession::read(std::span<char> into, std::size_t& count) noexcept {
    std::string_view nothing;
    return read(into, count, nothing);
}

SslSession::Status SslSession::read(std::span<char> into, std::size_t& count,
                                    std::string_view& ciphertext) noexcept {
    ASYNCIO_ASSERT(!into.empty());
    count = 0;
    if (error_ != nullptr) return Status::failed;
    ERR_clear_error();
    lent_ = ciphertext;
    const int result = SSL_read_ex(ssl_.get(), into.data(), into.size(), &count);
    ciphertext = lent_;
    lent_ = {};
    return result == 1 ? Status::done : stopped(result);
}

SslSession::Status SslSession::write(std::string_view plain) noexcept {
    if (error_ != nullptr) return Status::failed;
    if (plain.empty()) return Status::done; // OpenSSL has no record without anything in it
    ERR_clear_error();
    std::size_t written = 0;
    const int result = SSL_write_ex(ssl_.get(), plain.data(), plain.size(), &written);
    return result == 1 ? Status::done : stopped(result);
}

SslSession::Status SslSession::shutdown() noexcept {
    if (error_ != nullptr) return Status::failed;
    if (SSL_is_init_finished(ssl_.get()) == 0) return Status::done;
    ERR_clear_error();
    if ((SSL_get_shutdown(ssl_.get()) & SSL_SENT_SHUTDOWN) == 0) {
        if (const int result = SSL_shutdown(ssl_.get()); result < 0) return stopped(result);
    }
    // SSL_shutdown() takes data for an error; SSL_read() does not.
    char dropped[4096];
    for (;;) {
        std::size_t count = 0;
        const int result = SSL_read_ex(ssl_.get(), dropped, sizeof dropped, &count);
        if (result == 1) continue;
        const Status status = stopped(result);
        return status == Status::closed ? Status::done : status;
    }
}

void SslSession::feed(std::string_view ciphertext) {
    if (fed_used_ == fed_.size()) {
        fed_.clear();
        fed_used_ = 0;
    } else if (fed_used_ > fed_.size() / 2) {
        fed_.erase(0, fed_used_);
        fed_used_ = 0;
    }
    fed_.append(ciphertext);
}

void SslSession::take_output(std::size_t count) noexcept {
    constexpr std::size_t most_kept = std::size_t{256} * 1024; // not that of one big write
    ASYNCIO_ASSERT(count <= output_.size() - output_taken_);
    output_taken_ += count;
    if (output_taken_ == output_.size()) {
        output_.clear();
        output_taken_ = 0;
        if (output_.capacity() > most_kept) std::string().swap(output_);
    }
}

void SslSession::release_memory() noexcept {
    // Before 3.0.14 OpenSSL freed them also with a part of a record in them (CVE-2024-4741).
    if (handshaken_ && SSL_has_pending(ssl_.get()) == 0) SSL_free_buffers(ssl_.get());
    if (fed_used_ == fed_.size()) {
        std::string().swap(fed_);
        fed_used_ = 0;
    }
    if (output_.empty()) std::string().swap(output_);
}

// --- Errors --------------------------------------------------------------------------------------

SslSession::Status SslSession::stopped(int result) noexcept {
    const int kind = SSL_get_error(ssl_.get(), result);
    if (thrown_ == nullptr) {
        if (kind == SSL_ERROR_WANT_READ) return Status::want_input;
        if (kind == SSL_ERROR_ZERO_RETURN && handshaken_) return Status::closed;
    }
    const TakenErrors taken = TakenErrors::take();
    try {
        error_ = thrown_ != nullptr ? std::exchange(thrown_, nullptr) : error_of(kind, taken);
    } catch (...) {
        error_ = std::current_exception();
    }
    return Status::failed;
}

// "the TLS handshake with 'example.org' failed"
std::string SslSession::what_failed() const {
    std::string peer = server_side_ ? "the client" : "the server";
    if (!server_side_ && !server_hostname_.empty()) peer = "'" + server_hostname_ + "'";
    return (handshaken_ ? "TLS with " : "the TLS handshake with ") + peer + " failed";
}

std::exception_ptr SslSession::error_of(int kind, const TakenErrors& taken) const {
    const auto made = [&](const std::string& why) {
        return std::make_exception_ptr(ssl::Error(taken.last, what_failed() + ": " + why));
    };
    const int reason = ERR_GET_REASON(taken.last);
    if (reason == ERR_R_MALLOC_FAILURE) return std::make_exception_ptr(std::bad_alloc());
    if (kind == SSL_ERROR_ZERO_RETURN) {
        return std::make_exception_ptr(
            ssl::ZeroReturnError(ERR_PACK(ERR_LIB_SSL, 0, SSL_R_PROTOCOL_IS_SHUTDOWN),
                                 what_failed() + ": the peer has closed the connection"));
    }
    if (ERR_GET_LIB(taken.last) != ERR_LIB_SSL) return made(text_of(taken.last));

    switch (reason) {
    case SSL_R_CERTIFICATE_VERIFY_FAILED:
        return verification_error(taken);
    case SSL_R_UNEXPECTED_EOF_WHILE_READING:
        return std::make_exception_ptr(ssl::EOFError(
            taken.last,
            what_failed() + (handshaken_ ? ": the peer has ended the connection without a "
                                           "close_notify, so what it sent may be cut off"
                                         : ": the peer closed the connection during the "
                                           "handshake")));
    case SSL_R_HTTP_REQUEST:
    case SSL_R_HTTPS_PROXY_REQUEST:
        return made("the peer does not speak TLS: " + text_of(taken.last));
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
        return made("it showed no certificate, which this server requires");
    case SSL_R_CALLBACK_FAILED:
        return made("the servername callback refused " +
                    (server_hostname_.empty() ? "a client without a name"
                                              : "the name '" + server_hostname_ + "'"));
    default:
        break;
    }
    if (reason >= SSL_AD_REASON_OFFSET && reason < SSL_AD_REASON_OFFSET + 256) {
        // OpenSSL says "sslv3 alert handshake failure", whatever the version is.
        std::string alert = text_of(taken.last);
        if (const std::size_t space = alert.find(' '); space != std::string::npos)
            alert.erase(0, space + 1);
        if (alert.starts_with("alert ")) alert.erase(0, 6);
        return made("the peer sent the alert '" + alert + "'");
    }
    if (!handshaken_ && speaks_no_tls())
        return made("the peer does not speak TLS: " + text_of(taken.last));
    return made(text_of(taken.last));
}

std::exception_ptr SslSession::verification_error(const TakenErrors& taken) const {
    const long code = SSL_get_verify_result(ssl_.get());
    std::string message;
    switch (code) {
    case X509_V_ERR_HOSTNAME_MISMATCH:
        message = "Hostname mismatch, certificate is not valid for '" + server_hostname_ + "'";
        break;
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
        message = "IP address mismatch, certificate is not valid for '" + server_hostname_ + "'";
        break;
    default:
        message = X509_verify_cert_error_string(code);
    }
    std::string text = "certificate verify failed";
    if (server_side_) {
        text += " for the client";
    } else if (!server_hostname_.empty()) {
        text += " for '" + server_hostname_ + "'";
    }
    return std::make_exception_ptr(ssl::CertVerificationError(taken.last, text + ": " + message,
                                                              static_cast<int>(code), message));
}

// By its first byte: a record of TLS is a handshake, an alert, or else what should come later.
bool SslSession::speaks_no_tls() const noexcept {
    return began_with_ >= 0 &&
           (began_with_ < SSL3_RT_CHANGE_CIPHER_SPEC || began_with_ > SSL3_RT_APPLICATION_DATA);
}

} // namespace detail
ASYNCIO_END_NAMESPACE
