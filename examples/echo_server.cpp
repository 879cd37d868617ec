// SPDX-License-Identifier: MIT
//
// An echo server: each client gets back what it sends. A client that does not read what comes back
// is not read from either, so that it cannot fill the memory.
#include "command_line.hpp"

#include <asyncio/asyncio.hpp>
#include <iostream>
#include <string>
#include <system_error>

constexpr const char* usage = "echo_server [HOST [PORT]]\n"
                              "Sends back to each client what it sends.\n"
                              "Default: 127.0.0.1 8007; port 0 is any that is free.\n";

asyncio::Coro<> echo(asyncio::StreamReader reader, asyncio::StreamWriter writer) {
    try {
        while (true) {
            const std::string data = co_await reader.read(64 * 1024);
            if (data.empty()) break; // the client has ended
            writer.write(data);
            co_await writer.drain();
        }
    } catch (const std::system_error& error) {
        std::cerr << writer.get_extra_info(asyncio::peername).text() << ": " << error.what()
                  << '\n';
    }
} // the writer is gone: the connection closes, once everything is sent

asyncio::Coro<int> async_main(command_line::Words words) {
    const std::string host = words.next_or("HOST", "127.0.0.1");
    const auto port = command_line::port(words.next_or("PORT", "8007"));
    words.end();

    const auto server = co_await asyncio::start_server(echo, host, port);
    co_await command_line::serve(server);
    co_return 0;
}

int main(int argc, char** argv) { return command_line::run(argc, argv, usage, async_main); }
