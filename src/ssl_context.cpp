// SPDX-License-Identifier: MIT
// Context: settings and certificates.
#include "ssl_state.hpp"

#include <asyncio/exceptions.hpp>
#include <asyncio/ssl.hpp>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

ASYNCIO_BEGIN_NAMESPACE
namespace {

// Python's: forward secrecy, authenticated encryption first, no SHA-1, no anonymous ones.
constexpr const char* default_ciphers =
    "@SECLEVEL=2:ECDH+AESGCM:ECDH+CHACHA20:ECDH+AES:DHE+AES:!aNULL:!eNULL:!aDSS:!SHA1:!AESCCM";

static_assert(ssl::OP_LEGACY_SERVER_CONNECT == SSL_OP_LEGACY_SERVER_CONNECT);
static_assert(ssl::OP_NO_TICKET == SSL_OP_NO_TICKET);
static_assert(ssl::OP_CIPHER_SERVER_PREFERENCE == SSL_OP_CIPHER_SERVER_PREFERENCE);
static_assert(ssl::OP_NO_RENEGOTIATION == SSL_OP_NO_RENEGOTIATION);
static_assert(ssl::VERIFY_CRL_CHECK_LEAF == X509_V_FLAG_CRL_CHECK);
static_assert(ssl::VERIFY_CRL_CHECK_CHAIN == (X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL));
static_assert(ssl::VERIFY_X509_STRICT == X509_V_FLAG_X509_STRICT);
static_assert(ssl::VERIFY_ALLOW_PROXY_CERTS == X509_V_FLAG_ALLOW_PROXY_CERTS);
static_assert(ssl::VERIFY_X509_TRUSTED_FIRST == X509_V_FLAG_TRUSTED_FIRST);
static_assert(ssl::VERIFY_X509_PARTIAL_CHAIN == X509_V_FLAG_PARTIAL_CHAIN);

int select_alpn(SSL*, const unsigned char** out, unsigned char* out_size,
                const unsigned char* offered, unsigned offered_size, void* context) noexcept {
    const std::string& ours = static_cast<const detail::SslContext*>(context)->alpn;
    unsigned char* chosen = nullptr;
    const int result = SSL_select_next_proto(
        &chosen, out_size, reinterpret_cast<const unsigned char*>(ours.data()),
        static_cast<unsigned>(ours.size()), offered, offered_size);
    if (result != OPENSSL_NPN_NEGOTIATED) return SSL_TLSEXT_ERR_NOACK;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

bool is_version(ssl::TLSVersion version) noexcept {
    switch (version) {
    case ssl::TLSVersion::MINIMUM_SUPPORTED:
    case ssl::TLSVersion::MAXIMUM_SUPPORTED:
    case ssl::TLSVersion::TLSv1:
    case ssl::TLSVersion::TLSv1_1:
    case ssl::TLSVersion::TLSv1_2:
    case ssl::TLSVersion::TLSv1_3:
        return true;
    }
    return false;
}

} // namespace

// --- SslContext ----------------------------------------------------------------------------------

namespace detail {

SslContext::SslContext(ssl::Protocol p)
    : protocol(p), verify_mode(p == ssl::PROTOCOL_TLS_CLIENT ? ssl::CERT_REQUIRED : ssl::CERT_NONE),
      check_hostname(p == ssl::PROTOCOL_TLS_CLIENT) {
    if (p != ssl::PROTOCOL_TLS_CLIENT && p != ssl::PROTOCOL_TLS_SERVER)
        throw ValueError("a Context is for PROTOCOL_TLS_CLIENT or PROTOCOL_TLS_SERVER");
    ERR_clear_error();
    context_.reset(
        SSL_CTX_new(p == ssl::PROTOCOL_TLS_CLIENT ? TLS_client_method() : TLS_server_method()));
    if (context_ == nullptr) throw_openssl("cannot set up OpenSSL");
    // Also what a system's openssl.cnf may have said otherwise. A connection that is cut must not
    // look like one that has ended.
    SSL_CTX_clear_options(get(), SSL_OP_IGNORE_UNEXPECTED_EOF | SSL_OP_LEGACY_SERVER_CONNECT |
                                     SSL_OP_ALLOW_UNSAFE_LEGACY_RENEGOTIATION);
    SSL_CTX_set_options(get(), SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION |
                                   SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_mode(get(), SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_AUTO_RETRY);
    SSL_CTX_clear_mode(get(), SSL_MODE_ENABLE_PARTIAL_WRITE);
    if (SSL_CTX_set_min_proto_version(get(), TLS1_2_VERSION) != 1)
        throw_openssl("cannot ask OpenSSL for TLS 1.2");
    if (SSL_CTX_set_cipher_list(get(), default_ciphers) != 1)
        throw_openssl("cannot choose OpenSSL's ciphers");
    // A client keeps its own sessions.
    SSL_CTX_set_session_cache_mode(get(), p == ssl::PROTOCOL_TLS_CLIENT ? SSL_SESS_CACHE_OFF
                                                                        : SSL_SESS_CACHE_SERVER);
    X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(get()), X509_V_FLAG_TRUSTED_FIRST);
    SSL_CTX_set_alpn_select_cb(get(), &select_alpn, this);
    if (p == ssl::PROTOCOL_TLS_SERVER) call_at_client_hello(get());
    verify_as_set();
    trust_changed();
}

SslContext::~SslContext() = default;

void SslContext::verify_as_set() noexcept {
    int mode = SSL_VERIFY_NONE;
    if (verify_mode == ssl::CERT_OPTIONAL) mode = SSL_VERIFY_PEER;
    if (verify_mode == ssl::CERT_REQUIRED) mode = SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
    SSL_CTX_set_verify(get(), mode, nullptr);
}

void SslContext::trust_changed() {
    ++trust;
    // A server takes no session with another id, be it its own of before or another context's.
    if (RAND_bytes(session_id, sizeof session_id) != 1 ||
        SSL_CTX_set_session_id_context(get(), session_id, sizeof session_id) != 1)
        throw_openssl("cannot have an id for sessions");
}

} // namespace detail

// --- Context -------------------------------------------------------------------------------------

namespace ssl {

Context::Context(Protocol protocol) : state_(std::make_shared<detail::SslContext>(protocol)) {}
Context::Context(std::shared_ptr<detail::SslContext> state) noexcept : state_(std::move(state)) {}
Context::Context(const Context&) noexcept = default;
Context& Context::operator=(const Context&) noexcept = default;
Context::Context(Context&&) noexcept = default;
Context& Context::operator=(Context&&) noexcept = default;
Context::~Context() = default;
Context::ServernameCallback::~ServernameCallback() = default;
Context::PasswordCallback::~PasswordCallback() = default;

std::shared_ptr<detail::TlsContext> Context::tls() const { return state_; }
Protocol Context::protocol() const noexcept { return state_->protocol; }

void Context::set_ciphers(std::string_view ciphers) {
    const std::string list = detail::c_string(ciphers);
    ERR_clear_error();
    if (SSL_CTX_set_cipher_list(state_->get(), list.c_str()) != 1)
        detail::throw_openssl("no cipher can be selected by '" + list + "'");
}

void Context::set_ciphersuites(std::string_view ciphersuites) {
    const std::string list = detail::c_string(ciphersuites);
    ERR_clear_error();
    if (SSL_CTX_set_ciphersuites(state_->get(), list.c_str()) != 1)
        detail::throw_openssl("no cipher suite can be selected by '" + list + "'");
}

void Context::set_groups(std::string_view groups) {
    std::string list = detail::c_string(groups);
    ERR_clear_error();
    if (SSL_CTX_ctrl(state_->get(), SSL_CTRL_SET_GROUPS_LIST, 0, list.data()) != 1)
        detail::throw_openssl("no groups can be selected by '" + list + "'");
    state_->groups = std::move(list);
}

std::vector<Cipher> Context::get_ciphers() const {
    std::vector<Cipher> ciphers;
    const detail::Owned<SSL> connection(SSL_new(state_->get()));
    if (connection == nullptr) detail::throw_openssl("cannot list the ciphers");
    struct Freed {
        void operator()(STACK_OF(SSL_CIPHER) * list) const noexcept { sk_SSL_CIPHER_free(list); }
    };
    const std::unique_ptr<STACK_OF(SSL_CIPHER), Freed> list(
        SSL_get1_supported_ciphers(connection.get()));
    for (int i = 0; i < sk_SSL_CIPHER_num(list.get()); ++i) {
        const SSL_CIPHER* cipher = sk_SSL_CIPHER_value(list.get(), i);
        ciphers.push_back({SSL_CIPHER_get_name(cipher), SSL_CIPHER_get_version(cipher),
                           SSL_CIPHER_get_bits(cipher, nullptr)});
    }
    ERR_clear_error();
    return ciphers;
}

namespace {
int openssl_version_of(TLSVersion version) {
    if (!is_version(version))
        throw ValueError("Unsupported TLS version " + std::to_string(static_cast<int>(version)));
    if (version == TLSVersion::MINIMUM_SUPPORTED || version == TLSVersion::MAXIMUM_SUPPORTED)
        return 0;
    return static_cast<int>(version);
}
} // namespace

TLSVersion Context::minimum_version() const noexcept {
    const long version = SSL_CTX_get_min_proto_version(state_->get());
    return version == 0 ? TLSVersion::MINIMUM_SUPPORTED : static_cast<TLSVersion>(version);
}
void Context::set_minimum_version(TLSVersion version) {
    // As in Python the one extreme is allowed for the other end too.
    const int asked =
        version == TLSVersion::MAXIMUM_SUPPORTED ? TLS1_3_VERSION : openssl_version_of(version);
    if (SSL_CTX_set_min_proto_version(state_->get(), asked) != 1)
        detail::throw_openssl("this OpenSSL does not have the TLS version asked for");
}
TLSVersion Context::maximum_version() const noexcept {
    const long version = SSL_CTX_get_max_proto_version(state_->get());
    return version == 0 ? TLSVersion::MAXIMUM_SUPPORTED : static_cast<TLSVersion>(version);
}
void Context::set_maximum_version(TLSVersion version) {
    const int asked =
        version == TLSVersion::MINIMUM_SUPPORTED ? TLS1_VERSION : openssl_version_of(version);
    if (SSL_CTX_set_max_proto_version(state_->get(), asked) != 1)
        detail::throw_openssl("this OpenSSL does not have the TLS version asked for");
}

VerifyMode Context::verify_mode() const noexcept { return state_->verify_mode; }
void Context::set_verify_mode(VerifyMode mode) {
    if (mode != CERT_NONE && mode != CERT_OPTIONAL && mode != CERT_REQUIRED)
        throw ValueError("invalid value for verify_mode");
    if (mode == CERT_NONE && state_->check_hostname)
        throw ValueError("Cannot set verify_mode to CERT_NONE when check_hostname is enabled.");
    if (mode == state_->verify_mode) return;
    state_->trust_changed();
    state_->verify_mode = mode;
    state_->verify_as_set();
}

bool Context::check_hostname() const noexcept { return state_->check_hostname; }
void Context::set_check_hostname(bool check) {
    if (check == state_->check_hostname) return;
    state_->trust_changed();
    state_->check_hostname = check;
    if (check && state_->verify_mode == CERT_NONE) set_verify_mode(CERT_REQUIRED);
}

bool Context::hostname_checks_common_name() const noexcept { return state_->checks_common_name; }
void Context::set_hostname_checks_common_name(bool check) noexcept {
    state_->checks_common_name = check;
}

VerifyFlags Context::verify_flags() const noexcept {
    return X509_VERIFY_PARAM_get_flags(SSL_CTX_get0_param(state_->get()));
}
void Context::set_verify_flags(VerifyFlags flags) {
    state_->trust_changed();
    X509_VERIFY_PARAM* const parameters = SSL_CTX_get0_param(state_->get());
    X509_VERIFY_PARAM_clear_flags(parameters, X509_VERIFY_PARAM_get_flags(parameters));
    X509_VERIFY_PARAM_set_flags(parameters, flags);
}

namespace {
template <class Protocols> std::string alpn_of(const Protocols& protocols) {
    std::string list;
    for (const std::string_view protocol : protocols) {
        if (protocol.empty() || protocol.size() > 255)
            throw ValueError("ALPN protocols must be 1 to 255 in length");
        list += static_cast<char>(static_cast<unsigned char>(protocol.size()));
        list += protocol;
    }
    if (list.size() > 65535) throw ValueError("the ALPN protocols must be 65535 bytes at most");
    return list;
}
void set_alpn(detail::SslContext& context, std::string list) {
    // Of a client; 0 is success.
    if (SSL_CTX_set_alpn_protos(context.get(), reinterpret_cast<const unsigned char*>(list.data()),
                                static_cast<unsigned>(list.size())) != 0)
        detail::throw_openssl("cannot set the ALPN protocols");
    context.alpn = std::move(list);
}
} // namespace

void Context::set_alpn_protocols(std::initializer_list<std::string_view> protocols) {
    set_alpn(*state_, alpn_of(protocols));
}
void Context::set_alpn_protocols(std::span<const std::string> protocols) {
    set_alpn(*state_, alpn_of(protocols));
}

void Context::set_servername_callback_of(std::shared_ptr<ServernameCallback> callback) {
    if (state_->protocol != PROTOCOL_TLS_SERVER)
        throw ValueError("a servername callback is for a server's Context, PROTOCOL_TLS_SERVER");
    state_->servername_callback = std::move(callback);
}
void Context::set_servername_callback(std::nullptr_t) noexcept {
    state_->servername_callback = nullptr;
}

std::size_t Context::num_tickets() const noexcept { return SSL_CTX_get_num_tickets(state_->get()); }
void Context::set_num_tickets(std::size_t count) {
    if (state_->protocol != PROTOCOL_TLS_SERVER)
        throw ValueError("SSLContext.num_tickets is for a server's Context, PROTOCOL_TLS_SERVER");
    if (SSL_CTX_set_num_tickets(state_->get(), count) != 1)
        detail::throw_openssl("cannot set the number of tickets");
}

SessionStats Context::session_stats() const {
    SSL_CTX* const context = state_->get();
    SessionStats stats;
    stats.number = SSL_CTX_sess_number(context);
    stats.connect = SSL_CTX_sess_connect(context);
    stats.connect_good = SSL_CTX_sess_connect_good(context);
    stats.accept = SSL_CTX_sess_accept(context);
    stats.accept_good = SSL_CTX_sess_accept_good(context);
    stats.hits = SSL_CTX_sess_hits(context);
    stats.misses = SSL_CTX_sess_misses(context);
    stats.timeouts = SSL_CTX_sess_timeouts(context);
    stats.cache_full = SSL_CTX_sess_cache_full(context);
    return stats;
}

Options Context::options() const noexcept { return SSL_CTX_get_options(state_->get()); }
void Context::set_options(Options options) {
    if ((options & OP_NO_RENEGOTIATION) == 0) {
        throw ValueError("OP_NO_RENEGOTIATION cannot be taken away: a connection does not "
                         "negotiate TLS anew, which TLS 1.3 has done away with");
    }
    constexpr std::uint64_t ours =
        OP_LEGACY_SERVER_CONNECT | OP_NO_TICKET | OP_CIPHER_SERVER_PREFERENCE | OP_NO_RENEGOTIATION;
    SSL_CTX_clear_options(state_->get(), ours & ~options);
    SSL_CTX_set_options(state_->get(), ours & options);
}

void Context::set_keylog_filename(std::string_view path) {
    const std::string name = detail::c_string(path);
    SSL_CTX* const context = state_->get();
    if (name.empty()) {
        SSL_CTX_set_keylog_callback(context, nullptr);
        state_->keylog.reset();
        return;
    }
    std::unique_ptr<std::FILE, detail::Freed> file(std::fopen(name.c_str(), "ae"));
    if (file == nullptr)
        throw std::system_error(errno, std::generic_category(), "cannot open '" + name + "'");
    state_->keylog = std::move(file);
    SSL_CTX_set_keylog_callback(context, &detail::write_keylog);
}

Context create_default_context(Purpose purpose, const VerifyLocations& locations) {
    if (purpose != Purpose::SERVER_AUTH && purpose != Purpose::CLIENT_AUTH)
        throw ValueError("the purpose of a context is SERVER_AUTH or CLIENT_AUTH");
    const bool client = purpose == Purpose::SERVER_AUTH;
    Context context(client ? PROTOCOL_TLS_CLIENT : PROTOCOL_TLS_SERVER);
    context.set_verify_flags(context.verify_flags() | VERIFY_X509_PARTIAL_CHAIN |
                             VERIFY_X509_STRICT);
    if (!locations.cafile.empty() || !locations.capath.empty() || !locations.cadata.empty()) {
        context.load_verify_locations(locations);
    } else if (client) {
        context.load_default_certs();
    }
    if (const char* const keylog = ::secure_getenv("SSLKEYLOGFILE");
        keylog != nullptr && *keylog != '\0')
        context.set_keylog_filename(keylog);
    return context;
}

const char* openssl_version() noexcept { return OpenSSL_version(OPENSSL_VERSION); }

} // namespace ssl
ASYNCIO_END_NAMESPACE
