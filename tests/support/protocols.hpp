// SPDX-License-Identifier: MIT
// A protocol that writes down what it is told, and the two ends of a connection for it.
//
//     auto ends = co_await connected<Recorder>();
//     co_await sock_sendall(ends.peer, "hello");
//     co_await until([&] { return ends.protocol->received == "hello"; });
#pragma once

#include "support/what_of.hpp"

#include <asyncio/asyncio.hpp>
#include <gtest/gtest.h>

#include <chrono>
#include <exception>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace asyncio_test {

// Lets others run until it holds; for ten seconds at most.
template <class Condition> asyncio::Coro<> until(Condition condition) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (!condition()) {
        if (std::chrono::steady_clock::now() > deadline) {
            ADD_FAILURE() << "waited in vain";
            co_return;
        }
        co_await asyncio::sleep(0);
    }
}

inline asyncio::Coro<> turns(int count) {
    for (int i = 0; i < count; ++i) co_await asyncio::sleep(0);
}

// What both kinds of protocols write down.
template <class Base> struct Recording : Base {
    std::vector<std::string> events;
    asyncio::Transport transport;
    std::exception_ptr loss;
    bool keeps_open = false;

    void connection_made(asyncio::Transport given) override {
        transport = given;
        events.emplace_back("made");
    }
    void connection_lost(std::exception_ptr exception) override {
        loss = exception;
        events.emplace_back("lost");
        transport = asyncio::Transport();
    }
    void pause_writing() override { events.emplace_back("pause"); }
    void resume_writing() override { events.emplace_back("resume"); }
    bool eof_received() override {
        events.emplace_back("eof");
        return keeps_open;
    }

    bool has(std::string_view event) const {
        for (const std::string& one : events) {
            if (one == event) return true;
        }
        return false;
    }
    bool is_lost() const { return has("lost"); }
};

struct Recorder : Recording<asyncio::Protocol> {
    std::string received;
    void data_received(std::string_view data) override {
        if (received.empty()) events.emplace_back("data");
        received += data;
    }
};

template <class P> struct Ends {
    Ends(asyncio::Transport t, std::shared_ptr<P> p, asyncio::Socket s)
        : transport(std::move(t)), protocol(std::move(p)), peer(std::move(s)) {}
    asyncio::Transport transport;
    std::shared_ptr<P> protocol;
    asyncio::Socket peer;
};

// A transport at one end of a pair of Unix sockets.
template <class P> asyncio::Coro<Ends<P>> connected(std::shared_ptr<P> protocol) {
    auto sockets = asyncio::Socket::pair();
    auto options = asyncio::ConnectionOptions().sock(std::move(sockets.first));
    const auto factory = [&] { return protocol; };
    auto created = co_await asyncio::create_connection(factory, options);
    co_return Ends<P>(created.transport, created.protocol, std::move(sockets.second));
}
template <class P> asyncio::Coro<Ends<P>> connected() {
    auto protocol = std::make_shared<P>();
    co_return co_await connected<P>(protocol);
}

} // namespace asyncio_test
