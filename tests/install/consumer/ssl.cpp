// SPDX-License-Identifier: MIT
//
// What a user's program with TLS may look like: exit status 0 if the library does what it says.
#include <asyncio/asyncio.hpp>
#include <asyncio/ssl.hpp>
#include <iostream>

asyncio::Coro<bool> async_main() {
    const asyncio::ssl::Context context = asyncio::ssl::create_default_context();
    co_await asyncio::sleep(0);
    try {
        asyncio::ssl::Context(asyncio::ssl::PROTOCOL_TLS_SERVER).load_cert_chain("/nowhere.pem");
    } catch (const std::system_error& e) {
        std::cout << e.what() << '\n';
        co_return context.check_hostname();
    }
    co_return false;
}

int main() {
    std::cout << asyncio::ssl::openssl_version() << '\n';
    return asyncio::run(async_main()) ? 0 : 1;
}
