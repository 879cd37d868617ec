// SPDX-License-Identifier: MIT
// What the examples have in common: their words, their errors, and how they end.
#pragma once

#include <asyncio/asyncio.hpp>

#include <algorithm>
#include <charconv>
#include <exception>
#include <iostream>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace command_line {

class UsageError : public std::runtime_error {
    using std::runtime_error::runtime_error;
};

// The words behind a program's name, as they are taken from it one by one.
class Words {
  public:
    Words(int count, char** words) : words_(words + (count > 0 ? 1 : 0), words + count) {}

    bool has(std::string_view word) const {
        return std::find(words_.begin(), words_.end(), word) != words_.end();
    }
    // What follows a word like --limit; nothing if it is not there. To be taken before next().
    std::optional<std::string> option(std::string_view name) {
        const auto found = std::find(words_.begin(), words_.end(), name);
        if (found == words_.end()) return std::nullopt;
        if (found + 1 == words_.end()) throw UsageError(std::string(name) + " wants a value");
        std::string value = found[1];
        words_.erase(found, found + 2);
        return value;
    }
    std::string next(const char* what) {
        if (words_.empty()) throw UsageError(std::string(what) + " is missing");
        if (words_.front().starts_with("--"))
            throw UsageError("there is no option " + words_.front());
        std::string word = std::move(words_.front());
        words_.erase(words_.begin());
        return word;
    }
    std::string next_or(const char* what, std::string fallback) {
        return words_.empty() ? std::move(fallback) : next(what);
    }
    void end() const {
        if (!words_.empty()) throw UsageError("'" + words_.front() + "' is one word too many");
    }

  private:
    std::vector<std::string> words_;
};

inline int number(std::string_view text, const char* what, int from, int to) {
    int value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value < from || value > to)
        throw UsageError(std::string(what) + " is a number from " + std::to_string(from) + " to " +
                         std::to_string(to) + ", not '" + std::string(text) + "'");
    return value;
}
inline std::uint16_t port(std::string_view text, int from = 0) {
    return static_cast<std::uint16_t>(number(text, "a port", from, 65535));
}

// Serves until Control-C, and cuts the connections then. (serve_forever() lets them send what they
// have still to send, which takes for ever if a client does not read.)
inline asyncio::Coro<> serve(asyncio::Server server) {
    struct AtEnd {
        asyncio::Server& server;
        ~AtEnd() {
            server.close();
            server.abort_clients();
        }
    };
    const AtEnd at_end{server};
    for (const auto& address : server.sockets())
        std::cout << "listening on " << address.text() << std::endl;
    asyncio::Event forever;
    co_await forever.wait();
}

// main() of a program: 0 or what async_main gives, 1 for what has failed, 2 for words that it does
// not understand. Control-C is how a server is meant to end.
inline int run(int count, char** words, const char* usage,
               asyncio::Coro<int> (*async_main)(Words words)) {
    const Words given(count, words);
    if (given.has("--help") || given.has("-h")) {
        std::cout << usage;
        return 0;
    }
    try {
        return asyncio::run(async_main(given));
    } catch (const UsageError& error) {
        std::cerr << error.what() << "\n\n" << usage;
        return 2;
    } catch (const asyncio::KeyboardInterrupt&) {
        return 0;
    } catch (const std::exception& error) {
        std::cerr << error.what() << '\n';
        return 1;
    }
}

} // namespace command_line
