// SPDX-License-Identifier: MIT
// Contexts of TLS for tests: a server's for this machine, and a client's that trusts it.
//
//     auto server = co_await asyncio::start_server(
//         handle, "127.0.0.1", 0, asyncio::ServerOptions().ssl(server_context()));
//     auto streams = co_await asyncio::open_connection(
//         "127.0.0.1", port, asyncio::ConnectionOptions().ssl(client_context()));
#pragma once

#include "support/certificates.hpp"

#include <asyncio/ssl.hpp>

#include <string>

namespace asyncio_test {

// Of all the tests of a program that need no other one.
inline Authority& authority() {
    static Authority made;
    return made;
}

inline asyncio::ssl::Context client_context(const Authority& trusted = authority()) {
    asyncio::ssl::Context context = asyncio::ssl::create_default_context();
    const std::string roots = trusted.file();
    asyncio::ssl::VerifyLocations locations;
    locations.cafile = roots;
    context.load_verify_locations(locations);
    return context;
}

inline asyncio::ssl::Context server_context(const Issued& issued) {
    asyncio::ssl::Context context(asyncio::ssl::PROTOCOL_TLS_SERVER);
    context.load_cert_chain(issued.certificate, issued.key);
    return context;
}
// Of localhost and 127.0.0.1.
inline asyncio::ssl::Context server_context() {
    static const Issued issued = authority().issue({.names = {"DNS:localhost", "IP:127.0.0.1"}});
    return server_context(issued);
}

} // namespace asyncio_test
