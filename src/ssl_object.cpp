// SPDX-License-Identifier: MIT
// What is known of a connection: SslSession as the Object it is for users, and Session.
#include "ssl_session.hpp"

#include <asyncio/exceptions.hpp>

#include <cstdio>
#include <utility>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

// --- A server's name -----------------------------------------------------------------------------

// In the first callback there is: what comes after, the resumption of sessions too, is done by the
// context that is chosen here.
std::optional<ssl::AlertDescription> SslSession::client_said_hello() {
    const unsigned char* data = nullptr;
    std::size_t size = 0;
    std::optional<std::string_view> name;
    std::string asked;
    // RFC 6066: the size of the list, then one entry: its type (a name is 0), its size, itself.
    // What is not so is refused by OpenSSL afterwards.
    if (SSL_client_hello_get0_ext(ssl_.get(), TLSEXT_TYPE_server_name, &data, &size) == 1 &&
        size > 5 && data[2] == TLSEXT_NAMETYPE_host_name) {
        const std::size_t length = (std::size_t{data[3]} << 8) | data[4];
        const std::string_view given(reinterpret_cast<const char*>(data) + 5, size - 5);
        if (length == given.size() && length <= TLSEXT_MAXLEN_host_name &&
            given.find('\0') == std::string_view::npos)
            asked = given;
    }
    if (std::exchange(said_hello_, true)) {
        // Again, since we asked for another key share (RFC 8446, 4.1.4): all else must be the same.
        if (asked != server_hostname_) return ssl::ALERT_DESCRIPTION_ILLEGAL_PARAMETER;
        return std::nullopt;
    }
    server_hostname_ = std::move(asked);
    if (!server_hostname_.empty()) name = server_hostname_;
    // The callback may take itself away.
    const auto callback = first_context_->servername_callback;
    if (callback == nullptr) return std::nullopt;
    return callback->call(*this, name, first_context_->handle());
}

void SslSession::set_context(const ssl::Context& context) {
    if (!in_callback_)
        throw RuntimeError("the context of a connection can be changed in a servername callback "
                           "only, before the handshake");
    if (context.protocol() != ssl::PROTOCOL_TLS_SERVER)
        throw ValueError("a server needs a Context of PROTOCOL_TLS_SERVER");
    const std::shared_ptr<SslContext> next = context.state_;
    SSL* const ssl = ssl_.get();
    SSL_CTX* const to = next->get();
    if (SSL_set_SSL_CTX(ssl, to) == nullptr) throw_openssl("cannot switch the context");
    current_ = next;
    context_ = context;
    // OpenSSL takes over certificates and ciphers; what else counts it has copied from the first.
    SSL_set_verify(ssl, SSL_CTX_get_verify_mode(to), nullptr);
    X509_VERIFY_PARAM* const parameters = SSL_get0_param(ssl);
    X509_VERIFY_PARAM_clear_flags(parameters, X509_VERIFY_PARAM_get_flags(parameters));
    SSL_clear_options(ssl, SSL_get_options(ssl));
    SSL_set_options(ssl, SSL_CTX_get_options(to));
    if (X509_VERIFY_PARAM_set1(parameters, SSL_CTX_get0_param(to)) != 1 ||
        SSL_set_session_id_context(ssl, next->session_id, sizeof next->session_id) != 1 ||
        SSL_set_min_proto_version(ssl, SSL_CTX_get_min_proto_version(to)) != 1 ||
        SSL_set_max_proto_version(ssl, SSL_CTX_get_max_proto_version(to)) != 1 ||
        SSL_set_num_tickets(ssl, SSL_CTX_get_num_tickets(to)) != 1)
        throw_openssl("cannot switch the context");
    std::string groups = next->groups;
    if (!groups.empty() && SSL_ctrl(ssl, SSL_CTRL_SET_GROUPS_LIST, 0, groups.data()) != 1)
        throw_openssl("cannot switch the context");
}

void SslSession::log_secrets(const char* line) const noexcept {
    std::FILE* const file = current_->keylog.get();
    if (file == nullptr) return;
    std::fprintf(file, "%s\n", line);
    std::fflush(file);
}

// --- What is known of it -------------------------------------------------------------------------

std::string SslSession::version() const {
    return handshaken_ ? SSL_get_version(ssl_.get()) : std::string();
}

std::optional<ssl::Cipher> SslSession::cipher() const {
    const SSL_CIPHER* const cipher = SSL_get_current_cipher(ssl_.get());
    if (cipher == nullptr) return std::nullopt;
    return ssl::Cipher{SSL_CIPHER_get_name(cipher), SSL_CIPHER_get_version(cipher),
                       SSL_CIPHER_get_bits(cipher, nullptr)};
}

std::optional<ssl::Certificate> SslSession::getpeercert() const {
    if ((SSL_get_verify_mode(ssl_.get()) & SSL_VERIFY_PEER) == 0) return std::nullopt;
    const Owned<X509> certificate(SSL_get1_peer_certificate(ssl_.get()));
    if (certificate == nullptr) return std::nullopt;
    return contents_of(certificate.get());
}

std::string SslSession::getpeercert_der() const {
    const Owned<X509> certificate(SSL_get1_peer_certificate(ssl_.get()));
    return certificate == nullptr ? std::string() : der_of(certificate.get());
}

std::string SslSession::selected_alpn_protocol() const {
    const unsigned char* data = nullptr;
    unsigned size = 0;
    SSL_get0_alpn_selected(ssl_.get(), &data, &size);
    return std::string(reinterpret_cast<const char*>(data), size);
}

ssl::Session SslSession::session() const {
    Owned<SSL_SESSION> session(SSL_get1_session(ssl_.get()));
    if (!handshaken_ || session == nullptr || SSL_SESSION_is_resumable(session.get()) == 0)
        return {};
    auto saved = std::make_shared<SavedSession>();
    saved->context = current_;
    saved->server_hostname = server_hostname_;
    saved->trust = trust_;
    saved->session = std::move(session);
    return ssl::Session(std::move(saved));
}

bool SslSession::session_reused() const noexcept { return SSL_session_reused(ssl_.get()) != 0; }

} // namespace detail

namespace ssl {

Object::~Object() = default;

Session::Session() noexcept = default;
Session::Session(std::shared_ptr<const detail::SavedSession> state) noexcept
    : state_(std::move(state)) {}
Session::Session(const Session&) noexcept = default;
Session& Session::operator=(const Session&) noexcept = default;
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;
Session::~Session() = default;

std::string Session::id() const {
    unsigned size = 0;
    const unsigned char* const id = SSL_SESSION_get_id(state_->session.get(), &size);
    return std::string(reinterpret_cast<const char*>(id), size);
}
std::chrono::sys_seconds Session::time() const {
    return std::chrono::sys_seconds(
        std::chrono::seconds(SSL_SESSION_get_time(state_->session.get())));
}
std::chrono::seconds Session::timeout() const {
    return std::chrono::seconds(SSL_SESSION_get_timeout(state_->session.get()));
}
bool Session::has_ticket() const { return SSL_SESSION_has_ticket(state_->session.get()) != 0; }
std::chrono::seconds Session::ticket_lifetime_hint() const {
    return std::chrono::seconds(SSL_SESSION_get_ticket_lifetime_hint(state_->session.get()));
}

} // namespace ssl
ASYNCIO_END_NAMESPACE
