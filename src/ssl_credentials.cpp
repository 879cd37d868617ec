// SPDX-License-Identifier: MIT
// Context: who we are, and whom we trust.
#include "ssl_state.hpp"

#include <asyncio/exceptions.hpp>
#include <asyncio/ssl.hpp>

#include <exception>
#include <openssl/crypto.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

ASYNCIO_BEGIN_NAMESPACE
namespace {

constexpr std::size_t password_limit = 1024;
constexpr const char* password_too_long = "password cannot be longer than 1024 bytes";
static_assert(PEM_BUFSIZE == password_limit);

// The password of a key, asked for by OpenSSL through C: what is thrown is thrown again after it.
template <class Callback> struct PasswordQuestion {
    Callback* callback; // none: there is no password
    bool asked = false;
    std::exception_ptr thrown = nullptr;

    static int answer(char* into, int size, int, void* question) noexcept {
        auto& self = *static_cast<PasswordQuestion*>(question);
        self.asked = true;
        if (self.callback == nullptr) return -1;
        try {
            std::string password = self.callback->call();
            if (password.size() > static_cast<std::size_t>(size))
                throw ValueError(password_too_long);
            const std::size_t length = password.copy(into, password.size());
            OPENSSL_cleanse(password.data(), length);
            return static_cast<int>(length);
        } catch (...) {
            self.thrown = std::current_exception();
            return -1;
        }
    }
};

} // namespace

namespace ssl {

void Context::load_cert_chain(std::string_view certfile, std::string_view keyfile,
                              std::string_view password) {
    if (password.size() > password_limit) throw ValueError(password_too_long);
    struct Given final : PasswordCallback {
        std::string_view password;
        explicit Given(std::string_view p) noexcept : password(p) {}
        std::string call() override { return std::string(password); }
    } given(password);
    load_cert_chain_with(certfile, keyfile, password.empty() ? nullptr : &given);
}

void Context::load_cert_chain_with(std::string_view certfile, std::string_view keyfile,
                                   PasswordCallback* password) {
    const std::string certificate = detail::c_string(certfile);
    const std::string key = keyfile.empty() ? certificate : detail::c_string(keyfile);
    SSL_CTX* const context = state_->get();
    ERR_clear_error();

    // OpenSSL would ask the terminal for a password.
    PasswordQuestion<PasswordCallback> question{password};
    struct Asked {
        SSL_CTX* context;
        Asked(SSL_CTX* c, PasswordQuestion<PasswordCallback>& q) noexcept : context(c) {
            SSL_CTX_set_default_passwd_cb(c, &PasswordQuestion<PasswordCallback>::answer);
            SSL_CTX_set_default_passwd_cb_userdata(c, &q);
        }
        Asked(const Asked&) = delete;
        Asked& operator=(const Asked&) = delete;
        ~Asked() {
            SSL_CTX_set_default_passwd_cb(context, nullptr);
            SSL_CTX_set_default_passwd_cb_userdata(context, nullptr);
        }
    } asked(context, question);
    const auto refuse = [&](const std::string& what) {
        if (question.thrown == nullptr && !question.asked) detail::throw_openssl(what);
        const auto taken = detail::TakenErrors::take();
        if (question.thrown != nullptr) std::rethrow_exception(question.thrown);
        throw Error(taken.last,
                    what + (password == nullptr
                                ? ": it is encrypted, so load_cert_chain() needs its password"
                                : ": it is encrypted, and the password is not the right one"));
    };

    if (SSL_CTX_use_certificate_chain_file(context, certificate.c_str()) != 1)
        refuse("cannot take a certificate from '" + certificate + "'");
    if (SSL_CTX_use_PrivateKey_file(context, key.c_str(), SSL_FILETYPE_PEM) != 1) {
        if (const unsigned long last = ERR_peek_last_error();
            ERR_GET_LIB(last) == ERR_LIB_X509 &&
            ERR_GET_REASON(last) == X509_R_KEY_VALUES_MISMATCH) {
            const auto taken = detail::TakenErrors::take();
            throw Error(taken.last, "the private key in '" + key +
                                        "' does not belong to the certificate in '" + certificate +
                                        "': " + detail::text_of(taken.last));
        }
        refuse("cannot take a private key from '" + key + "'");
    }
    if (SSL_CTX_check_private_key(context) != 1)
        detail::throw_openssl("the private key in '" + key +
                              "' does not belong to the certificate in '" + certificate + "'");
}

void Context::load_verify_locations(const VerifyLocations& locations) {
    if (locations.cafile.empty() && locations.capath.empty() && locations.cadata.empty())
        throw ValueError("cafile, capath and cadata cannot be all omitted");
    SSL_CTX* const context = state_->get();
    ERR_clear_error();
    state_->trust_changed();
    if (!locations.cadata.empty()) {
        const bool pem = locations.cadata.find("-----BEGIN ") != std::string_view::npos;
        detail::Owned<BIO> data(
            BIO_new_mem_buf(locations.cadata.data(), static_cast<int>(locations.cadata.size())));
        if (data == nullptr) detail::throw_openssl("cannot read cadata");
        std::size_t count = 0;
        for (;;) {
            if (!pem && BIO_eof(data.get()) != 0) break;
            const detail::Owned<X509> certificate(
                pem ? PEM_read_bio_X509(data.get(), nullptr, nullptr, nullptr)
                    : d2i_X509_bio(data.get(), nullptr));
            if (certificate == nullptr) {
                const unsigned long last = ERR_peek_last_error();
                if (pem && count > 0 && ERR_GET_LIB(last) == ERR_LIB_PEM &&
                    ERR_GET_REASON(last) == PEM_R_NO_START_LINE)
                    break; // the end
                detail::throw_openssl("cannot take certificates from cadata");
            }
            if (X509_STORE_add_cert(SSL_CTX_get_cert_store(context), certificate.get()) != 1)
                detail::throw_openssl("cannot take a certificate from cadata");
            ++count;
        }
        ERR_clear_error();
    }
    if (!locations.cafile.empty()) {
        const std::string file = detail::c_string(locations.cafile);
        if (SSL_CTX_load_verify_file(context, file.c_str()) != 1)
            detail::throw_openssl("cannot take certificates from '" + file + "'");
    }
    if (!locations.capath.empty()) {
        const std::string folder = detail::c_string(locations.capath);
        if (SSL_CTX_load_verify_dir(context, folder.c_str()) != 1)
            detail::throw_openssl("cannot take certificates from the folder '" + folder + "'");
    }
}

void Context::load_default_certs() {
    ERR_clear_error();
    state_->trust_changed();
    if (SSL_CTX_set_default_verify_paths(state_->get()) != 1)
        detail::throw_openssl("cannot take the system's roots");
    ERR_clear_error(); // a system without any is none of our errors
}

} // namespace ssl
ASYNCIO_END_NAMESPACE
