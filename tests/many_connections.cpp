// SPDX-License-Identifier: MIT
// Ten thousand connections at once, on one loop.
#include <asyncio/asyncio.hpp>
#include <gtest/gtest.h>

#include "support/process.hpp"
#include "support/sockets.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <sys/resource.h>
#include <unistd.h>

using asyncio::Address;
using asyncio::Coro;
using asyncio::Socket;
using asyncio_test::listening;
using asyncio_test::Process;

namespace {

constexpr std::size_t connections = 10'000;
constexpr rlim_t descriptors = connections + 500; // the other ends are in a child

// Lets the process have so many, and puts the limit back at the end.
class ManyDescriptors {
  public:
    ManyDescriptors() {
        ::getrlimit(RLIMIT_NOFILE, &former_);
        rlimit wanted = former_;
        wanted.rlim_cur = std::max(former_.rlim_cur, descriptors);
        wanted.rlim_max = std::max(former_.rlim_max, descriptors);
        error_ = ::setrlimit(RLIMIT_NOFILE, &wanted) == 0 ? 0 : errno;
    }
    ~ManyDescriptors() { ::setrlimit(RLIMIT_NOFILE, &former_); }
    ManyDescriptors(const ManyDescriptors&) = delete;
    ManyDescriptors& operator=(const ManyDescriptors&) = delete;

    // 0 if it has them.
    int error() const noexcept { return error_; }

  private:
    rlimit former_ = {};
    int error_ = 0;
};

// What the server has done.
struct Tally {
    std::size_t open = 0;
    std::size_t most_open = 0;
    std::size_t echoed = 0;
};

Coro<> echo(Socket socket, Tally& tally) {
    tally.most_open = std::max(tally.most_open, ++tally.open);
    std::array<char, 64> buffer;
    for (;;) {
        const std::size_t count = co_await asyncio::sock_recv_into(socket, buffer);
        if (count == 0) break;
        co_await asyncio::sock_sendall(socket, {buffer.data(), count});
        ++tally.echoed;
    }
    --tally.open;
}
Coro<> serve_sockets(Socket server, Tally& tally) {
    co_await asyncio::task_group([&](asyncio::TaskGroup& group) -> Coro<> {
        for (std::size_t i = 0; i < connections; ++i) {
            asyncio::Accepted accepted = co_await asyncio::sock_accept(server);
            group.create_task(echo, std::move(accepted.socket), std::ref(tally));
        }
    });
}

// The same of streams. `server` ends when all have come and gone.
Coro<> echo_stream(asyncio::StreamReader reader, asyncio::StreamWriter writer, Tally& tally,
                   asyncio::Event& over) {
    tally.most_open = std::max(tally.most_open, ++tally.open);
    for (;;) {
        const std::string_view data = co_await reader.peek();
        if (data.empty()) break;
        writer.write(data);
        reader.consume(data.size());
        co_await writer.drain();
        ++tally.echoed;
    }
    writer.close();
    co_await writer.wait_closed();
    if (--tally.open == 0 && tally.most_open == connections) over.set();
}
Coro<> serve_streams(Socket listener, Tally& tally) {
    asyncio::Event over;
    const auto handler = [&](asyncio::StreamReader reader, asyncio::StreamWriter writer) {
        return echo_stream(std::move(reader), std::move(writer), tally, over);
    };
    asyncio::ServerOptions options;
    options.sock(std::move(listener));
    auto server = co_await asyncio::start_server(handler, options);
    co_await over.wait();
    server.close();
    co_await server.wait_closed();
}

// Connects, and goes on when all have: then says something and hears it. Whether it was the same.
Coro<> ask_by_socket(Address address, std::size_t number, asyncio::Barrier& all,
                     std::size_t& heard) {
    const Socket socket(AF_INET, SOCK_STREAM);
    co_await asyncio::sock_connect(socket, address);
    co_await all.wait();
    const std::string question = "connection " + std::to_string(number);
    co_await asyncio::sock_sendall(socket, question);
    std::string answer;
    while (answer.size() < question.size()) {
        const std::string more = co_await asyncio::sock_recv(socket, 64);
        if (more.empty()) break;
        answer += more;
    }
    if (answer == question) ++heard;
    co_await all.wait(); // none is closed before all have heard
}
Coro<> ask_by_stream(Address address, std::size_t number, asyncio::Barrier& all,
                     std::size_t& heard) {
    auto [reader, writer] = co_await asyncio::open_connection(address.host(), address.port());
    co_await all.wait();
    const std::string question = "connection " + std::to_string(number) + "\n";
    writer.write(question);
    const std::string answer = co_await reader.readline();
    if (answer == question) ++heard;
    co_await all.wait();
    writer.close();
    co_await writer.wait_closed();
}
template <class Ask> Coro<std::size_t> ask_all(Ask ask, Address address) {
    std::size_t heard = 0;
    asyncio::Barrier all(connections);
    co_await asyncio::task_group([&](asyncio::TaskGroup& group) -> Coro<> {
        for (std::size_t i = 0; i < connections; ++i) {
            group.create_task(ask(address, i, all, heard));
            // Not more at once than the kernel holds for a server.
            if (i % 64 == 63) co_await asyncio::sleep(0.001);
        }
    });
    co_return heard;
}

} // namespace

namespace {

template <class Serve, class Ask> void expect_echoes(Serve serve, Ask ask) {
    const ManyDescriptors many;
    if (many.error() != 0) {
        GTEST_SKIP() << "this process may not have " << descriptors
                     << " descriptors: " << std::strerror(many.error());
    }
    Socket server = listening();
    const Address address = server.getsockname();
    Process clients([&](Process::Parent& parent) {
        ::alarm(250);
        parent.tell("heard " + std::to_string(asyncio::run(ask_all(ask, address))));
        return 0;
    });
    Tally tally;
    asyncio::run(serve(std::move(server), tally));
    EXPECT_EQ(clients.line(), "heard " + std::to_string(connections));
    EXPECT_EQ(clients.wait(), "exited with 0");
    EXPECT_EQ(tally.most_open, connections);
    EXPECT_EQ(tally.echoed, connections);
    EXPECT_EQ(tally.open, 0U);
}

} // namespace

TEST(ManyConnections, over_sockets_each_get_an_echo) {
    expect_echoes(serve_sockets, ask_by_socket);
}

TEST(ManyConnections, over_streams_each_get_an_echo) {
    expect_echoes(serve_streams, ask_by_stream);
}
