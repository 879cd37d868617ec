// SPDX-License-Identifier: MIT
//
// Which ports of a host are open? Many are tried side by side, but never more than a limit.
#include "command_line.hpp"

#include <asyncio/asyncio.hpp>
#include <cerrno>
#include <iostream>
#include <string>
#include <system_error>
#include <vector>

constexpr const char* usage =
    "port_scanner [--limit N] [--timeout MILLISECONDS] HOST [FIRST-LAST]\n"
    "Says which ports of a host are open. Default: ports 1-1024, 200 side by side, a second for\n"
    "each. Do that to hosts of your own only.\n";

enum class State { open, closed, silent };

asyncio::Coro<State> try_port(asyncio::Semaphore& limit, asyncio::Address address,
                              std::chrono::milliseconds timeout) {
    const auto turn = co_await limit.scoped();
    const asyncio::Socket socket(address.family(), SOCK_STREAM);
    try {
        co_await asyncio::wait_for(asyncio::sock_connect(socket, address), timeout);
        co_return State::open;
    } catch (const asyncio::TimeoutError&) {
        co_return State::silent;
    } catch (const std::system_error& error) {
        if (error.code().value() != ECONNREFUSED) throw;
        co_return State::closed;
    }
}

asyncio::Coro<int> async_main(command_line::Words words) {
    const int most =
        command_line::number(words.option("--limit").value_or("200"), "the limit", 1, 10'000);
    const std::chrono::milliseconds timeout(
        command_line::number(words.option("--timeout").value_or("1000"), "the timeout", 1, 60'000));
    const std::string host = words.next("HOST");
    const std::string range = words.next_or("FIRST-LAST", "1-1024");
    words.end();
    const auto dash = range.find('-');
    const int first = command_line::port(range.substr(0, dash), 1);
    const int last = dash == range.npos ? first : command_line::port(range.substr(dash + 1), first);

    const auto found =
        co_await asyncio::getaddrinfo(host, "", asyncio::GetAddrInfoOptions().type(SOCK_STREAM));
    const asyncio::Address& address = found.front().address;
    std::cout << "ports " << first << " to " << last << " of " << address.host() << std::endl;

    asyncio::Semaphore limit(static_cast<std::ptrdiff_t>(most));
    std::vector<asyncio::Coro<State>> tries;
    for (int port = first; port <= last; ++port)
        tries.push_back(
            try_port(limit, address.with_port(static_cast<std::uint16_t>(port)), timeout));
    const std::vector<State> states = co_await asyncio::gather(std::move(tries));

    int open = 0;
    int silent = 0;
    for (std::size_t i = 0; i < states.size(); ++i) {
        silent += states[i] == State::silent;
        if (states[i] != State::open) continue;
        ++open;
        std::cout << static_cast<std::size_t>(first) + i << " is open\n";
    }
    std::cout << open << " open, " << silent << " without an answer\n";
    co_return 0;
}

int main(int argc, char** argv) { return command_line::run(argc, argv, usage, async_main); }
