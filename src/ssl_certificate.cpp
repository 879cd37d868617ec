// SPDX-License-Identifier: MIT
// What is in a certificate.
#include "ssl_state.hpp"

#include <arpa/inet.h>
#include <ctime>
#include <openssl/bn.h>
#include <openssl/x509v3.h>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {
namespace {

using Name = ssl::Certificate::Name;

std::string text_of(const ASN1_STRING* string) {
    unsigned char* utf8 = nullptr;
    const int size = ASN1_STRING_to_UTF8(&utf8, string);
    if (size < 0) {
        ERR_clear_error();
        return {};
    }
    std::string text(reinterpret_cast<const char*>(utf8), static_cast<std::size_t>(size));
    OPENSSL_free(utf8);
    return text;
}
// For what is ASCII by its type.
std::string bytes_of(const ASN1_STRING* string) {
    return std::string(reinterpret_cast<const char*>(ASN1_STRING_get0_data(string)),
                       static_cast<std::size_t>(ASN1_STRING_length(string)));
}

std::string text_of(const ASN1_OBJECT* object) {
    if (const int nid = OBJ_obj2nid(object); nid != NID_undef) return OBJ_nid2ln(nid);
    char text[80];
    OBJ_obj2txt(text, sizeof text, object, 1);
    return text;
}

Name name_of(const X509_NAME* name) {
    Name parts;
    for (int i = 0; i < X509_NAME_entry_count(name); ++i) {
        const X509_NAME_ENTRY* entry = X509_NAME_get_entry(name, i);
        parts.emplace_back(text_of(X509_NAME_ENTRY_get_object(entry)),
                           text_of(X509_NAME_ENTRY_get_data(entry)));
    }
    return parts;
}

std::chrono::sys_seconds time_of(const ASN1_TIME* time) {
    std::tm parts{};
    if (ASN1_TIME_to_tm(time, &parts) != 1) ERR_clear_error();
    return std::chrono::sys_seconds(std::chrono::seconds(::timegm(&parts)));
}

std::string address_of(const ASN1_OCTET_STRING* address) {
    char text[INET6_ADDRSTRLEN] = "";
    const int size = ASN1_STRING_length(address);
    if (size != 4 && size != 16) return "<invalid>";
    ::inet_ntop(size == 4 ? AF_INET : AF_INET6, ASN1_STRING_get0_data(address), text, sizeof text);
    return text;
}

Name alt_names_of(X509* certificate) {
    Name names;
    struct Freed {
        void operator()(GENERAL_NAMES* list) const noexcept { GENERAL_NAMES_free(list); }
    };
    const std::unique_ptr<GENERAL_NAMES, Freed> list(static_cast<GENERAL_NAMES*>(
        X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)));
    for (int i = 0; i < sk_GENERAL_NAME_num(list.get()); ++i) {
        const GENERAL_NAME* name = sk_GENERAL_NAME_value(list.get(), i);
        switch (name->type) {
        case GEN_DNS:
            names.emplace_back("DNS", bytes_of(name->d.dNSName));
            break;
        case GEN_EMAIL:
            names.emplace_back("email", bytes_of(name->d.rfc822Name));
            break;
        case GEN_URI:
            names.emplace_back("URI", bytes_of(name->d.uniformResourceIdentifier));
            break;
        case GEN_IPADD:
            names.emplace_back("IP Address", address_of(name->d.iPAddress));
            break;
        case GEN_RID:
            names.emplace_back("Registered ID", text_of(name->d.registeredID));
            break;
        case GEN_DIRNAME: {
            std::string text;
            for (const auto& [key, value] : name_of(name->d.directoryName))
                text.append("/").append(key).append("=").append(value);
            names.emplace_back("DirName", std::move(text));
            break;
        }
        default:
            names.emplace_back("other name", "");
        }
    }
    return names;
}

std::string serial_of(X509* certificate) {
    struct Freed {
        void operator()(BIGNUM* number) const noexcept { BN_free(number); }
    };
    const std::unique_ptr<BIGNUM, Freed> number(
        ASN1_INTEGER_to_BN(X509_get0_serialNumber(certificate), nullptr));
    if (number == nullptr) return {};
    char* digits = BN_bn2hex(number.get());
    if (digits == nullptr) return {};
    std::string text = digits;
    OPENSSL_free(digits);
    return text;
}

} // namespace

ssl::Certificate contents_of(X509* certificate) {
    ssl::Certificate contents;
    contents.subject = name_of(X509_get_subject_name(certificate));
    contents.issuer = name_of(X509_get_issuer_name(certificate));
    contents.version = static_cast<int>(X509_get_version(certificate)) + 1;
    contents.serial_number = serial_of(certificate);
    contents.not_before = time_of(X509_get0_notBefore(certificate));
    contents.not_after = time_of(X509_get0_notAfter(certificate));
    contents.subject_alt_names = alt_names_of(certificate);
    ERR_clear_error();
    return contents;
}

std::string der_of(X509* certificate) {
    const int size = i2d_X509(certificate, nullptr);
    if (size <= 0) throw_openssl("cannot write the peer's certificate down");
    std::string der(static_cast<std::size_t>(size), '\0');
    auto* at = reinterpret_cast<unsigned char*>(der.data());
    i2d_X509(certificate, &at);
    return der;
}

} // namespace detail
ASYNCIO_END_NAMESPACE
