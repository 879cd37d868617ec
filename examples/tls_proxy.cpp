// SPDX-License-Identifier: MIT
//
// TLS for a server that has none: clients speak TLS with this, and this speaks plainly with the
// server behind it, the origin. Either side may be slow, and is waited for; either side may end
// first, and the other one is heard to its end.
#include "command_line.hpp"

#include <asyncio/asyncio.hpp>
#include <asyncio/ssl.hpp>
#include <exception>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
using namespace std::chrono_literals;

constexpr const char* usage =
    "tls_proxy [--limit N] CERTIFICATE KEY HOST PORT ORIGIN_HOST ORIGIN_PORT\n"
    "Takes TLS from clients at HOST and PORT, by a certificate and its key (PEM files), and "
    "passes\n"
    "on what is in it to the origin. Port 0 is any that is free. At most N clients at a time, "
    "1000\n"
    "if not said; others wait for their turn.\n";

struct Origin {
    Origin(std::string name, std::uint16_t number, int most)
        : host(std::move(name)), port(number), limit(static_cast<std::ptrdiff_t>(most)) {}
    std::string host;
    std::uint16_t port;
    asyncio::Semaphore limit;
};

// One direction, to its end. The drain is what holds back the sender while the receiver is slow.
asyncio::Coro<> pass_on(asyncio::StreamReader from, asyncio::StreamWriter to) {
    while (true) {
        const std::string data = co_await from.read(64 * 1024);
        if (data.empty()) break;
        to.write(data);
        co_await to.drain();
    }
    if (to.can_write_eof()) {
        to.write_eof(); // and the other direction goes on
    } else {
        to.close(); // TLS ends as a whole
    }
}

asyncio::Coro<> proxy(std::shared_ptr<Origin> origin, asyncio::StreamReader reader,
                      asyncio::StreamWriter writer) {
    const auto turn = co_await origin->limit.scoped();
    try {
        auto streams =
            co_await asyncio::wait_for(asyncio::open_connection(origin->host, origin->port), 10s);
        auto& [origin_reader, origin_writer] = streams;
        co_await asyncio::task_group([&](asyncio::TaskGroup& group) -> asyncio::Coro<> {
            group.create_task(pass_on(reader, origin_writer));
            group.create_task(pass_on(origin_reader, writer));
            co_return;
        }); // if one of them fails, the other one is cancelled
    } catch (const asyncio::TimeoutError&) {
        std::cerr << "the origin does not answer\n";
    } catch (const std::exception& error) {
        std::cerr << writer.get_extra_info(asyncio::peername).text() << ": " << error.what()
                  << '\n';
    }
}

asyncio::Coro<int> async_main(command_line::Words words) {
    const int most =
        command_line::number(words.option("--limit").value_or("1000"), "the limit", 1, 100'000);
    const std::string certificate = words.next("CERTIFICATE");
    const std::string key = words.next("KEY");
    const std::string host = words.next("HOST");
    const auto port = command_line::port(words.next("PORT"));
    const std::string origin_host = words.next("ORIGIN_HOST");
    const auto origin_port = command_line::port(words.next("ORIGIN_PORT"), 1);
    words.end();

    auto context = asyncio::ssl::create_default_context(asyncio::ssl::Purpose::CLIENT_AUTH);
    context.load_cert_chain(certificate, key);

    const auto origin = std::make_shared<Origin>(origin_host, origin_port, most);
    const auto handler = [origin](asyncio::StreamReader reader, asyncio::StreamWriter writer) {
        return proxy(origin, std::move(reader), std::move(writer));
    };
    const auto server = co_await asyncio::start_server(
        handler, host, port,
        asyncio::ServerOptions().ssl(context).ssl_handshake_timeout(10s).backlog(1000));
    co_await command_line::serve(server);
    co_return 0;
}

int main(int argc, char** argv) { return command_line::run(argc, argv, usage, async_main); }
