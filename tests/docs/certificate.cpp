// SPDX-License-Identifier: MIT
// certificate FOLDER: makes cert.pem, for localhost and signed by itself, and its key.pem, as the
// guide's chapter on TLS has them made by the openssl command.
#include "support/certificates.hpp"

#include <cstdio>
#include <exception>
#include <filesystem>
#include <string>

int main(int argc, char** argv) {
    try {
        const std::string folder = argc > 1 ? argv[1] : ".";
        asyncio_test::Authority authority;
        const asyncio_test::Issued issued = authority.self_signed({.names = {"DNS:localhost"}});
        const auto over = std::filesystem::copy_options::overwrite_existing;
        std::filesystem::copy_file(issued.certificate, folder + "/cert.pem", over);
        std::filesystem::copy_file(issued.key, folder + "/key.pem", over);
        return 0;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
