// SPDX-License-Identifier: MIT
#include "ssl_state.hpp"

#include <asyncio/exceptions.hpp>
#include <asyncio/ssl.hpp>

#include <cctype>
#include <new>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

TakenErrors TakenErrors::take() noexcept {
    TakenErrors taken;
    bool is_wrapper = true;
    while (const unsigned long error = ERR_get_error()) {
        // "PEM lib" and its like only say in which part of OpenSSL another one arose.
        const int reason = ERR_GET_REASON(error);
        const bool wraps = (reason & ERR_RFLAG_COMMON) != 0 && (reason & ERR_RFLAG_FATAL) == 0;
        if (!wraps || is_wrapper) taken.last = error;
        is_wrapper = is_wrapper && wraps;
        if (ERR_SYSTEM_ERROR(error) && taken.system_error == 0) taken.system_error = reason;
    }
    return taken;
}

std::string c_string(std::string_view text) {
    if (text.find('\0') != std::string_view::npos)
        throw ValueError("a path or a list for OpenSSL must not contain a zero byte");
    return std::string(text);
}

std::string text_of(unsigned long openssl_code) {
    if (openssl_code == 0) return "OpenSSL gives no reason";
    if (const char* text = ERR_reason_error_string(openssl_code)) return text;
    return "OpenSSL's error " + std::to_string(openssl_code);
}

void throw_openssl(const std::string& text) {
    const TakenErrors taken = TakenErrors::take();
    if (ERR_GET_REASON(taken.last) == ERR_R_MALLOC_FAILURE) throw std::bad_alloc();
    if (taken.system_error != 0)
        throw std::system_error(taken.system_error, std::generic_category(), text);
    throw ssl::Error(taken.last, text + ": " + text_of(taken.last));
}

} // namespace detail

namespace ssl {
namespace {

class Category final : public std::error_category {
  public:
    const char* name() const noexcept override { return "ssl"; }
    std::string message(int code) const override {
        return detail::text_of(static_cast<unsigned>(code));
    }
};

// OpenSSL's texts as Python's names: "wrong version number" as "WRONG_VERSION_NUMBER".
std::string as_name(std::string text) {
    for (char& c : text)
        c = std::isalnum(static_cast<unsigned char>(c)) != 0
                ? static_cast<char>(std::toupper(static_cast<unsigned char>(c)))
                : '_';
    return text;
}

} // namespace

const std::error_category& error_category() noexcept {
    static const Category category;
    return category;
}

// Everything is defined here, so that each class has one type_info, in the library.

Error::Error(unsigned long openssl_code, const std::string& text)
    : std::system_error(static_cast<int>(openssl_code), error_category()), text_(text) {}
Error::Error(const Error&) noexcept = default;
Error& Error::operator=(const Error&) noexcept = default;
Error::~Error() = default;
const char* Error::what() const noexcept { return text_.what(); }
std::string Error::library() const {
    const char* text = ERR_lib_error_string(static_cast<unsigned>(code().value()));
    if (text == nullptr) return {};
    std::string name = text;
    for (const std::string_view rest : {" routines", " certificate"})
        if (name.ends_with(rest)) name.resize(name.size() - rest.size());
    return as_name(std::move(name));
}
std::string Error::reason() const {
    const char* text = ERR_reason_error_string(static_cast<unsigned>(code().value()));
    return text == nullptr ? std::string() : as_name(text);
}

CertVerificationError::CertVerificationError(unsigned long openssl_code, const std::string& text,
                                             int verify_code, const std::string& verify_message)
    : Error(openssl_code, text), verify_code_(verify_code), verify_message_(verify_message) {}
CertVerificationError::CertVerificationError(const CertVerificationError&) noexcept = default;
CertVerificationError&
CertVerificationError::operator=(const CertVerificationError&) noexcept = default;
CertVerificationError::~CertVerificationError() = default;

EOFError::EOFError(const EOFError&) noexcept = default;
EOFError& EOFError::operator=(const EOFError&) noexcept = default;
EOFError::~EOFError() = default;

ZeroReturnError::ZeroReturnError(const ZeroReturnError&) noexcept = default;
ZeroReturnError& ZeroReturnError::operator=(const ZeroReturnError&) noexcept = default;
ZeroReturnError::~ZeroReturnError() = default;

} // namespace ssl
ASYNCIO_END_NAMESPACE
