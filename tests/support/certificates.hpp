// SPDX-License-Identifier: MIT
// Certificates for tests, made as they are wanted, in files of a folder that goes with its owner.
//
//     Authority authority;                                 // a root of its own
//     Issued server = authority.issue({.names = {"DNS:localhost", "IP:127.0.0.1"}});
//     client.load_verify_locations({.cafile = authority.file()});
//     context.load_cert_chain(server.certificate, server.key);
#pragma once

#include "support/temporary_folder.hpp"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace asyncio_test {

inline std::string contents_of(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

// What a certificate is to be.
struct Wanted {
    std::vector<std::string> names = {"DNS:localhost"}; // "DNS:...", "IP:...", "URI:..."
    std::string common_name = "a test's";
    std::chrono::seconds from = std::chrono::hours(-1); // from now
    std::chrono::seconds until = std::chrono::hours(24);
    std::string key_type = "EC"; // or "RSA", "ED25519"
    std::string password = {};   // of the key's file; none: it is not encrypted
    std::string usage = "serverAuth,clientAuth";
};

// Where it is; the certificate's file has the whole chain but the root.
struct Issued {
    std::string certificate;
    std::string key;
};

class Authority {
  public:
    explicit Authority(const std::string& name = "the tests' root")
        : key_(key_of_type("EC")), certificate_(X509_new()) {
        Wanted wanted;
        wanted.common_name = name;
        fill(certificate_.get(), wanted, key_.get(), certificate_.get(), key_.get(), true);
        write(file(), certificate_.get());
    }
    // Its certificate.
    std::string file() const { return folder_.file("root.pem"); }
    // Its certificate where capath may look for it.
    std::string path() const {
        const std::string path = folder_.file("roots");
        char name[32];
        std::snprintf(name, sizeof name, "/%08lx.0", X509_subject_name_hash(certificate_.get()));
        std::filesystem::create_directories(path);
        write(path + name, certificate_.get());
        return path;
    }
    const TemporaryFolder& folder() const noexcept { return folder_; }

    Issued issue(const Wanted& wanted) { return issue_by(wanted, true); }
    // Signed by itself.
    Issued self_signed(const Wanted& wanted) { return issue_by(wanted, false); }

  private:
    struct Freed {
        void operator()(X509* certificate) const noexcept { X509_free(certificate); }
        void operator()(EVP_PKEY* key) const noexcept { EVP_PKEY_free(key); }
        void operator()(BIO* file) const noexcept { BIO_free_all(file); }
        void operator()(X509_EXTENSION* extension) const noexcept {
            X509_EXTENSION_free(extension);
        }
    };
    template <class T> using Owned = std::unique_ptr<T, Freed>;

    static void check(bool good, const char* what) {
        if (!good)
            throw std::runtime_error(std::string("cannot make a certificate: ") + what + ": " +
                                     std::to_string(ERR_peek_last_error()));
    }

    static Owned<EVP_PKEY> key_of_type(const std::string& type) {
        EVP_PKEY* key = nullptr;
        if (type == "EC") {
            key = EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-256");
        } else if (type == "RSA") {
            key = EVP_PKEY_Q_keygen(nullptr, nullptr, "RSA", std::size_t{2048});
        } else {
            key = EVP_PKEY_Q_keygen(nullptr, nullptr, type.c_str());
        }
        check(key != nullptr, "the key");
        return Owned<EVP_PKEY>(key);
    }

    static void extend(X509* certificate, X509* issuer, int extension, const std::string& value) {
        X509V3_CTX context;
        X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
        context.db = nullptr;
        const Owned<X509_EXTENSION> made(
            X509V3_EXT_conf_nid(nullptr, &context, extension, value.c_str()));
        check(made != nullptr, value.c_str());
        check(X509_add_ext(certificate, made.get(), -1) == 1, "an extension");
    }

    static void fill(X509* certificate, const Wanted& wanted, EVP_PKEY* key, X509* issuer,
                     EVP_PKEY* issuer_key, bool authority) {
        static long serial = 1000;
        check(X509_set_version(certificate, 2) == 1, "the version");
        ASN1_INTEGER_set(X509_get_serialNumber(certificate), ++serial);
        X509_gmtime_adj(X509_getm_notBefore(certificate), static_cast<long>(wanted.from.count()));
        X509_gmtime_adj(X509_getm_notAfter(certificate), static_cast<long>(wanted.until.count()));
        X509_NAME* const name = X509_get_subject_name(certificate);
        check(X509_NAME_add_entry_by_txt(
                  name, "CN", MBSTRING_UTF8,
                  reinterpret_cast<const unsigned char*>(wanted.common_name.c_str()), -1, -1,
                  0) == 1,
              "the name");
        X509_set_issuer_name(certificate, X509_get_subject_name(issuer));
        X509_set_pubkey(certificate, key);
        extend(certificate, issuer, NID_subject_key_identifier, "hash");
        if (authority) {
            extend(certificate, issuer, NID_basic_constraints, "critical,CA:TRUE");
            extend(certificate, issuer, NID_key_usage, "critical,keyCertSign,cRLSign");
        } else {
            if (issuer != certificate)
                extend(certificate, issuer, NID_authority_key_identifier, "keyid:always");
            if (!wanted.usage.empty()) extend(certificate, issuer, NID_ext_key_usage, wanted.usage);
            std::string names;
            for (const std::string& one : wanted.names) names += (names.empty() ? "" : ",") + one;
            if (!names.empty()) extend(certificate, issuer, NID_subject_alt_name, names);
        }
        const bool digests = EVP_PKEY_is_a(issuer_key, "ED25519") == 0;
        check(X509_sign(certificate, issuer_key, digests ? EVP_sha256() : nullptr) > 0,
              "the signature");
    }

    static void write(const std::string& path, X509* certificate) {
        const Owned<BIO> file(BIO_new_file(path.c_str(), "w"));
        check(file != nullptr && PEM_write_bio_X509(file.get(), certificate) == 1, path.c_str());
    }

    Issued issue_by(const Wanted& wanted, bool by_us) {
        const Owned<EVP_PKEY> key = key_of_type(wanted.key_type);
        const Owned<X509> certificate(X509_new());
        fill(certificate.get(), wanted, key.get(), by_us ? certificate_.get() : certificate.get(),
             by_us ? key_.get() : key.get(), false);
        const std::string number = std::to_string(++issued_);
        const Issued issued{folder_.file(number + ".pem"), folder_.file(number + ".key")};
        write(issued.certificate, certificate.get());
        const Owned<BIO> file(BIO_new_file(issued.key.c_str(), "w"));
        std::string password = wanted.password;
        check(
            file != nullptr &&
                PEM_write_bio_PrivateKey(
                    file.get(), key.get(), password.empty() ? nullptr : EVP_aes_128_cbc(),
                    password.empty() ? nullptr : reinterpret_cast<unsigned char*>(password.data()),
                    static_cast<int>(password.size()), nullptr, nullptr) == 1,
            "the key's file");
        return issued;
    }

    TemporaryFolder folder_;
    Owned<EVP_PKEY> key_;
    Owned<X509> certificate_;
    int issued_ = 0;
};

} // namespace asyncio_test
