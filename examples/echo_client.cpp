// SPDX-License-Identifier: MIT
//
// A client of the echo server: sends lines, and shows what comes back.
#include "command_line.hpp"

#include <asyncio/asyncio.hpp>
#include <iostream>
#include <string>
using namespace std::chrono_literals;

constexpr const char* usage = "echo_client HOST PORT LINE...\n"
                              "Sends each line to a server, and shows what comes back.\n";

asyncio::Coro<int> async_main(command_line::Words words) {
    const std::string host = words.next("HOST");
    const auto port = command_line::port(words.next("PORT"), 1);
    std::string line = words.next("LINE");

    auto streams = co_await asyncio::wait_for(asyncio::open_connection(host, port), 10s);
    auto& [reader, writer] = streams;
    for (; !line.empty(); line = words.next_or("LINE", "")) {
        writer.write(line + '\n');
        co_await writer.drain();
        const std::string answer = co_await asyncio::wait_for(reader.readline(), 10s);
        if (answer.empty()) throw std::runtime_error("the server has closed the connection");
        std::cout << answer << std::flush;
    }
    writer.close();
    co_await writer.wait_closed();
    co_return 0;
}

int main(int argc, char** argv) { return command_line::run(argc, argv, usage, async_main); }
