// SPDX-License-Identifier: MIT
#include "support/in_virtual_time.hpp"
#include "support/reports.hpp"
#include "support/streams.hpp"
#include "support/temporary_folder.hpp"

#include <asyncio/asyncio.hpp>
#include <asyncio/testing/fail_everywhere.hpp>
#include <gtest/gtest.h>

#include <chrono>
#include <cstddef>
#include <fcntl.h>
#include <filesystem>
#include <memory>
#include <netdb.h>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <unistd.h>
#include <utility>
#include <vector>

using namespace std::chrono_literals;
using asyncio::Address;
using asyncio::as_result;
using asyncio::ConnectionOptions;
using asyncio::Coro;
using asyncio::create_task;
using asyncio::get_running_loop;
using asyncio::Server;
using asyncio::ServerOptions;
using asyncio::Socket;
using asyncio::start_server;
using asyncio::start_unix_server;
using asyncio::StreamReader;
using asyncio::Streams;
using asyncio::StreamWriter;
using asyncio::testing::Faults;
using asyncio::testing::SystemCall;
using asyncio_test::in_virtual_time;
using asyncio_test::Reports;
using asyncio_test::some_turns;
using asyncio_test::text_of;

namespace {

Coro<> echo(StreamReader reader, StreamWriter writer) {
    for (;;) {
        const std::string data = co_await reader.read(1000);
        if (data.empty()) break;
        writer.write(data);
        co_await writer.drain();
    }
}

Coro<Streams> connect(Address address) {
    Socket socket(address.family(), SOCK_STREAM);
    co_await asyncio::sock_connect(socket, address);
    ConnectionOptions options;
    options.sock(std::move(socket));
    co_return co_await asyncio::open_connection(options);
}
Coro<Streams> connect(const Server& server) { co_return co_await connect(server.sockets().at(0)); }

Coro<> expect_echo(const Streams& streams) {
    streams.second.write("hello");
    const std::string answer = co_await streams.first.readexactly(5);
    EXPECT_EQ(answer, "hello");
}

template <class Awaitable> Coro<std::string> failure_of(Awaitable awaitable) {
    const auto result = co_await as_result(std::move(awaitable));
    co_return text_of(result.exception());
}

template <class Body> void with_faults(Body body) {
    asyncio::testing::VirtualClock clock;
    asyncio::run(body(), asyncio::RunOptions().clock(clock).loop(
                             asyncio::LoopOptions().system_calls(Faults::table())));
}

} // namespace

TEST(Server, listens_on_several_hosts_and_shares_a_port_that_was_drawn) {
    asyncio::run([]() -> Coro<> {
        const std::vector<std::string> hosts = {"127.0.0.1", "127.0.0.2", "127.0.0.1"};
        auto server = co_await start_server(echo, hosts, 0);
        const auto sockets = server.sockets();
        EXPECT_EQ(sockets.size(), 2U) << "one that is named twice is bound once";
        EXPECT_EQ(sockets.at(0).port(), sockets.at(1).port());
        for (const Address& address : sockets) {
            auto streams = co_await connect(address);
            co_await expect_echo(streams);
        }
        server.close();
        EXPECT_TRUE(server.sockets().empty());
        co_await server.wait_closed();
        // In braces, where they would be taken for two ends of one string.
        auto starting = start_server(echo, {"127.0.0.1", "127.0.0.2"}, 0);
        server = co_await std::move(starting);
        EXPECT_EQ(server.sockets().size(), 2U);
    });
}

TEST(Server, tells_in_debug_mode_of_an_address_that_this_machine_does_not_have) {
    for (const bool debug : {false, true}) {
        Reports reports;
        asyncio::run(asyncio::RunOptions().debug(debug), [&]() -> Coro<> {
            reports.watch(get_running_loop());
            const std::vector<std::string> hosts = {"192.0.2.1", "127.0.0.1"};
            auto server = co_await start_server(echo, hosts, 0);
            EXPECT_EQ(server.sockets().size(), 1U);
            get_running_loop().set_exception_handler(nullptr);
        });
        EXPECT_EQ(reports.count("a server does not listen on 192.0.2.1:0, which this machine does "
                                "not have"),
                  debug ? 1U : 0U);
    }
}

TEST(Server, refuses_a_port_that_is_none) {
    asyncio::run([]() -> Coro<> {
        const std::string none = "ValueError: a port is a number from 0 to 65535, and not 65536";
        std::string text = co_await failure_of(start_server(echo, "127.0.0.1", 65536));
        EXPECT_EQ(text, none);
        text = co_await failure_of(asyncio::open_connection("127.0.0.1", 65536));
        EXPECT_EQ(text, none);
        ConnectionOptions options;
        options.local_addr("127.0.0.1", 65536);
        text = co_await failure_of(asyncio::open_connection("127.0.0.1", 1, options));
        EXPECT_EQ(text, none);
    });
}

TEST(Server, an_empty_host_is_every_interface_of_both_families) {
    asyncio::run([]() -> Coro<> {
        auto server = co_await start_server(echo, "", 0);
        const auto sockets = server.sockets();
        for (const Address& address : sockets) {
            EXPECT_EQ(address.port(), sockets.at(0).port());
            const Address here(address.family() == AF_INET ? "127.0.0.1" : "::1", address.port());
            auto streams = co_await connect(here);
            co_await expect_echo(streams);
        }
        auto v4 = co_await start_server(echo, "", 0, ServerOptions().family(AF_INET));
        EXPECT_EQ(v4.sockets().size(), 1U);
        EXPECT_EQ(v4.sockets().at(0).family(), AF_INET);
    });
}

TEST(Server, serves_with_every_kind_of_handler) {
    asyncio::run([]() -> Coro<> {
        const auto expect = [](const Server& server, std::string_view expected) -> Coro<> {
            auto streams = co_await connect(server);
            const std::string all = co_await streams.first.read();
            EXPECT_EQ(all, expected);
        };
        const auto plain = [](StreamReader, StreamWriter writer) { writer.write("plain"); };
        auto server = co_await start_server(plain, "127.0.0.1", 0);
        co_await expect(server, "plain");
        const auto owned = std::make_shared<std::string>("owned by the handler");
        const auto owning = [owned](StreamReader, StreamWriter writer) -> Coro<> {
            co_await asyncio::sleep(0);
            writer.write(*owned);
        };
        {
            auto other = co_await start_server(owning, "127.0.0.1", 0);
            EXPECT_GE(owned.use_count(), 3);
            co_await expect(other, *owned);
            co_await expect(other, *owned);
            other.close();
            co_await other.wait_closed();
        }
        co_await some_turns();
        EXPECT_EQ(owned.use_count(), 2) << "nothing but the handler itself";
    });
}

TEST(Server, a_handler_that_throws_is_reported_and_its_connection_closed) {
    Reports reports;
    asyncio::run([&]() -> Coro<> {
        reports.watch(get_running_loop());
        std::vector<StreamWriter> kept;
        const auto coroutine = [&](StreamReader reader, StreamWriter writer) -> Coro<> {
            kept.push_back(writer);
            static_cast<void>(co_await reader.read(1));
            throw std::runtime_error("of the handler");
        };
        const auto plain = [&](StreamReader, StreamWriter writer) {
            kept.push_back(writer);
            throw std::runtime_error("of the plain handler");
        };
        auto server = co_await start_server(coroutine, "127.0.0.1", 0);
        auto streams = co_await connect(server);
        streams.second.write("x");
        std::string all = co_await streams.first.read();
        EXPECT_EQ(all, "");
        EXPECT_EQ(reports.count("Unhandled exception in client_connected_cb"), 1U)
            << reports.text();
        EXPECT_EQ(reports.count("peer: 127.0.0.1:"), 1U);
        EXPECT_EQ(text_of(reports.all.at(0).exception), "exception: of the handler");
        auto other = co_await start_server(plain, "127.0.0.1", 0);
        streams = co_await connect(other);
        all = co_await streams.first.read();
        EXPECT_EQ(all, "");
        EXPECT_EQ(reports.count("Unhandled exception in client_connected_cb"), 2U);
        // Cancelled is no error, but the end of the connection too.
        const auto cancelled = [&](StreamReader, StreamWriter writer) -> Coro<> {
            kept.push_back(writer);
            asyncio::current_task().cancel();
            co_await asyncio::sleep(1h);
        };
        auto third = co_await start_server(cancelled, "127.0.0.1", 0);
        streams = co_await connect(third);
        all = co_await streams.first.read();
        EXPECT_EQ(all, "");
        EXPECT_EQ(reports.count(), 2U) << reports.text();
    }());
}

TEST(Server, listens_only_from_start_serving_on_if_told_so) {
    asyncio::run([]() -> Coro<> {
        auto server =
            co_await start_server(echo, "127.0.0.1", 0, ServerOptions().start_serving(false));
        EXPECT_FALSE(server.is_serving());
        const std::string refused = co_await failure_of(connect(server));
        EXPECT_NE(refused.find(std::generic_category().message(ECONNREFUSED)), std::string::npos)
            << refused;
        co_await server.start_serving();
        co_await server.start_serving();
        EXPECT_TRUE(server.is_serving());
        auto streams = co_await connect(server);
        co_await expect_echo(streams);
        server.close();
        server.close();
        EXPECT_FALSE(server.is_serving());
        const std::string closed = co_await failure_of(server.start_serving());
        EXPECT_EQ(closed, "RuntimeError: the server is closed: start another one");
        const std::string forever = co_await failure_of(server.serve_forever());
        EXPECT_EQ(forever, closed);
        co_await expect_echo(streams);
    });
}

TEST(Server, a_start_that_fails_leaves_nothing_that_listens) {
    Faults faults;
    with_faults([&]() -> Coro<> {
        faults.make({SystemCall::listen, EADDRINUSE}, 1);
        const std::vector<std::string> hosts{"127.0.0.1", "127.0.0.2"};
        auto server = co_await start_server(echo, hosts, 0, ServerOptions().start_serving(false));
        const Address first = server.sockets().at(0);
        const std::string text = co_await failure_of(server.start_serving());
        EXPECT_NE(text.find(std::generic_category().message(EADDRINUSE)), std::string::npos);
        EXPECT_FALSE(server.is_serving());
        EXPECT_TRUE(server.sockets().empty());
        const std::string refused = co_await failure_of(connect(first));
        EXPECT_NE(refused.find(std::generic_category().message(ECONNREFUSED)), std::string::npos)
            << refused;
        co_await server.wait_closed();
    });
}

TEST(Server, serve_forever_ends_by_a_cancel_or_by_close_and_serves_once) {
    asyncio::run([]() -> Coro<> {
        for (const bool by_cancel : {true, false}) {
            auto server =
                co_await start_server(echo, "127.0.0.1", 0, ServerOptions().start_serving(false));
            auto task = create_task(server.serve_forever());
            co_await some_turns(1);
            EXPECT_TRUE(server.is_serving());
            const std::string twice = co_await failure_of(server.serve_forever());
            EXPECT_EQ(twice,
                      "RuntimeError: the server is already being awaited on serve_forever()");
            auto streams = co_await connect(server);
            co_await expect_echo(streams);
            if (by_cancel) {
                task.cancel();
            } else {
                server.close();
            }
            const std::string text = co_await failure_of(std::move(task));
            EXPECT_TRUE(text.starts_with("CancelledError: ")) << text;
            EXPECT_FALSE(server.is_serving());
            const std::string end = co_await streams.first.read();
            EXPECT_EQ(end, "");
        }
    });
}

TEST(Server, wait_closed_waits_for_the_connections_which_close_leaves_alone) {
    asyncio::run([]() -> Coro<> {
        auto server = co_await start_server(echo, "127.0.0.1", 0);
        auto waiting = create_task(server.wait_closed());
        auto streams = co_await connect(server);
        co_await expect_echo(streams);
        server.close();
        co_await some_turns();
        EXPECT_FALSE(waiting.done());
        co_await expect_echo(streams);
        streams.second.close();
        co_await waiting;
        co_await server.wait_closed();
    });
}

TEST(Server, close_clients_sends_what_was_written_and_abort_clients_drops_it) {
    asyncio::run([]() -> Coro<> {
        for (const bool aborts : {false, true}) {
            constexpr std::size_t size = 16 << 20;
            bool ended = false;
            const auto handler = [&](StreamReader reader, StreamWriter writer) -> Coro<> {
                writer.write(std::string(size, 'x'));
                static_cast<void>(co_await reader.read());
                ended = true;
            };
            auto server = co_await start_server(handler, "127.0.0.1", 0);
            auto streams = co_await connect(server);
            const std::string first = co_await streams.first.readexactly(1);
            EXPECT_EQ(first, "x");
            server.close();
            if (aborts) {
                server.abort_clients();
                server.abort_clients();
            } else {
                server.close_clients();
                server.close_clients();
            }
            std::vector<char> buffer(100'000);
            std::size_t received = 1;
            for (;;) {
                const std::size_t count = co_await streams.first.read_into(buffer);
                if (count == 0) break;
                received += count;
            }
            if (aborts) {
                EXPECT_LT(received, size);
            } else {
                EXPECT_EQ(received, size);
            }
            co_await server.wait_closed();
            EXPECT_TRUE(ended);
        }
    });
}

TEST(Server, out_of_descriptors_turns_clients_away_and_tries_again_after_a_second) {
    for (const int error : {EMFILE, ENFILE, ENOBUFS, ENOMEM}) {
        SCOPED_TRACE(error);
        Reports reports;
        Faults faults;
        with_faults([&]() -> Coro<> {
            reports.watch(get_running_loop());
            auto server = co_await start_server(echo, "127.0.0.1", 0);
            co_await some_turns();
            const long before = faults.calls(SystemCall::accept4);
            faults.make({SystemCall::accept4, error});
            const auto began = get_running_loop().time();
            auto first = co_await connect(server);
            first.second.write("x");
            const auto answer = co_await as_result(first.first.read(1));
            EXPECT_EQ(reports.count("out of system resource"), 1U) << reports.text();
            EXPECT_LT(faults.calls(SystemCall::accept4) - before, 6) << "it does not spin";
            if (error == EMFILE || error == ENFILE) {
                EXPECT_TRUE(!answer || (*answer).empty()) << "turned away at once";
                EXPECT_LT(get_running_loop().time() - began, 900ms);
            } else {
                EXPECT_EQ(*answer, "x") << "served later";
                EXPECT_GE(get_running_loop().time() - began, 900ms);
            }
            auto second = co_await connect(server);
            co_await expect_echo(second);
            EXPECT_GE(get_running_loop().time() - began, 900ms);
            EXPECT_EQ(reports.count(), 1U) << reports.text();
            // Closed while it backs off.
            faults.make({SystemCall::accept4, error});
            auto third = co_await connect(server);
            co_await some_turns();
            server.close();
            second.second.close();
            first.second.close();
            co_await server.wait_closed();
        });
    }
}

TEST(Server, passes_over_connections_that_are_gone_and_ends_with_errors_that_stay) {
    Reports reports;
    Faults faults;
    with_faults([&]() -> Coro<> {
        reports.watch(get_running_loop());
        auto server = co_await start_server(echo, "127.0.0.1", 0);
        co_await some_turns();
        for (const int error : {ECONNABORTED, EPROTO, EINTR, EPERM}) {
            faults.make({SystemCall::accept4, error});
            auto streams = co_await connect(server);
            co_await expect_echo(streams);
        }
        EXPECT_EQ(reports.count(), 0U) << reports.text();
        faults.make({SystemCall::accept4, EINVAL});
        auto streams = co_await as_result(connect(server));
        co_await some_turns();
        EXPECT_EQ(reports.count("listens no more"), 1U) << reports.text();
        server.close();
        co_await server.wait_closed();
    });
}

TEST(Server, of_a_unix_socket_removes_a_path_that_was_left_and_its_own_when_it_closes) {
    const asyncio_test::TemporaryFolder folder;
    const std::string path = folder.file("socket");
    asyncio::run([&]() -> Coro<> {
        {
            Socket dead(AF_UNIX, SOCK_STREAM);
            dead.bind(Address::unix_path(path));
        }
        EXPECT_TRUE(std::filesystem::exists(path));
        auto server = co_await start_unix_server(echo, path);
        auto streams = co_await asyncio::open_unix_connection(path);
        co_await expect_echo(streams);
        server.close();
        EXPECT_FALSE(std::filesystem::exists(path)) << "removed while its connections go on";
        co_await expect_echo(streams);
        // Not if it is another's by now.
        auto first = co_await start_unix_server(echo, path);
        auto second = co_await start_unix_server(echo, path);
        first.close();
        EXPECT_TRUE(std::filesystem::exists(path));
        auto to_second = co_await asyncio::open_unix_connection(path);
        co_await expect_echo(to_second);
        second.close();
        EXPECT_FALSE(std::filesystem::exists(path));
        // Nor if it is to stay.
        auto third = co_await start_unix_server(echo, path, ServerOptions().cleanup_socket(false));
        third.close();
        EXPECT_TRUE(std::filesystem::exists(path));
        // One that is bound already has its path removed as well; one that is gone is no error.
        std::filesystem::remove(path);
        ServerOptions bound;
        Socket socket(AF_UNIX, SOCK_STREAM);
        socket.bind(Address::unix_path(path));
        bound.sock(std::move(socket));
        auto fourth = co_await start_unix_server(echo, "", bound);
        auto to_fourth = co_await asyncio::open_unix_connection(path);
        co_await expect_echo(to_fourth);
        std::filesystem::remove(path);
        fourth.close();
        EXPECT_FALSE(fourth.is_serving());
        // What is no socket stays.
        const std::string file = folder.file("file");
        ::close(::creat(file.c_str(), 0600));
        const std::string text = co_await failure_of(start_unix_server(echo, file));
        EXPECT_NE(text.find(std::generic_category().message(EADDRINUSE)), std::string::npos)
            << text;
        EXPECT_TRUE(std::filesystem::exists(file));
    });
}

// Each call that looks after the path, and the one that opens the descriptor in reserve, fails once
// with each error.
TEST(Server, of_a_unix_socket_stands_failures_of_what_looks_after_its_path) {
    const asyncio_test::TemporaryFolder folder;
    const std::string path = folder.file("socket");
    std::vector<asyncio::testing::Fault> faults;
    for (const SystemCall call : {SystemCall::open, SystemCall::stat, SystemCall::unlink}) {
        for (const auto& fault : asyncio::testing::faults_of(call)) faults.push_back(fault);
    }
    const auto body = [&]() -> Coro<> {
        std::filesystem::remove(path);
        {
            Socket dead(AF_UNIX, SOCK_STREAM);
            dead.bind(Address::unix_path(path));
        }
        auto server = co_await start_unix_server(echo, path);
        auto streams = co_await asyncio::open_unix_connection(path);
        co_await expect_echo(streams);
        server.close();
        streams.second.close();
        co_await server.wait_closed();
    };
    const auto report = asyncio::testing::fail_everywhere(
        faults, body, asyncio::testing::FaultOptions().may_fail_otherwise(true));
    for (const auto& tally : report.tallies()) {
        SCOPED_TRACE(tally.fault.text());
        const SystemCall call = tally.fault.call();
        // stat: before it is bound, after that, and when it closes; the first two calls to unlink
        // are before and at the end.
        EXPECT_EQ(tally.survived, call == SystemCall::stat ? 2 : 1);
        EXPECT_EQ(tally.failed, call == SystemCall::open ? 0 : 1);
        for (const std::string& text : tally.texts) {
            EXPECT_EQ(text, "bind to " + path + ": " + std::generic_category().message(EADDRINUSE));
        }
    }
}

TEST(Server, without_a_descriptor_in_reserve_lets_clients_wait_until_it_has_one) {
    Reports reports;
    Faults faults;
    with_faults([&]() -> Coro<> {
        reports.watch(get_running_loop());
        faults.make({SystemCall::open, EMFILE});
        auto server = co_await start_server(echo, "127.0.0.1", 0);
        EXPECT_EQ(faults.fired(SystemCall::open), 1);
        faults.make({SystemCall::accept4, EMFILE});
        const auto began = get_running_loop().time();
        auto first = co_await connect(server);
        co_await expect_echo(first);
        EXPECT_GE(get_running_loop().time() - began, 900ms) << "served later";
        EXPECT_EQ(reports.count("out of system resource"), 1U) << reports.text();
        EXPECT_EQ(faults.calls(SystemCall::open), 2);
        // By now it has one.
        faults.make({SystemCall::accept4, EMFILE});
        const auto again = get_running_loop().time();
        auto second = co_await connect(server);
        second.second.write("x");
        const auto answer = co_await as_result(second.first.read(1));
        EXPECT_TRUE(!answer || (*answer).empty()) << "turned away at once";
        EXPECT_LT(get_running_loop().time() - again, 900ms);
        server.close();
        first.second.close();
        co_await server.wait_closed();
    });
}

TEST(Server, of_an_abstract_name_leaves_no_file) {
    asyncio::run([]() -> Coro<> {
        const std::string name = std::string(1, '\0') + "asyncio" + std::to_string(::getpid());
        auto server = co_await start_unix_server(echo, name);
        auto streams = co_await asyncio::open_unix_connection(name);
        co_await expect_echo(streams);
        server.close();
    });
}

TEST(Server, shares_a_port_only_if_told_so) {
    asyncio::run([]() -> Coro<> {
        const ServerOptions shared = ServerOptions().reuse_port(true).keep_alive(true).backlog(5);
        auto one = co_await start_server(echo, "127.0.0.1", 0, shared);
        const std::uint16_t port = one.sockets().at(0).port();
        auto two = co_await start_server(echo, "127.0.0.1", port, shared);
        const std::string text = co_await failure_of(start_server(echo, "127.0.0.1", port));
        EXPECT_NE(text.find("127.0.0.1:" + std::to_string(port)), std::string::npos) << text;
        EXPECT_NE(text.find(std::generic_category().message(EADDRINUSE)), std::string::npos);
    });
}

TEST(Server, refuses_arguments_that_contradict_each_other) {
    asyncio::run([]() -> Coro<> {
        std::string text = co_await failure_of(start_server(echo, ServerOptions()));
        EXPECT_EQ(text, "ValueError: Neither host/port nor sock were specified: call "
                        "ServerOptions().sock(), or give a host");
        text = co_await failure_of(start_server(echo, std::vector<std::string>(), 0));
        EXPECT_EQ(text, "ValueError: Neither host/port nor sock were specified: call "
                        "ServerOptions().sock(), or give a host");
        ServerOptions with_socket;
        with_socket.sock(Socket(AF_INET, SOCK_STREAM));
        text = co_await failure_of(start_server(echo, "127.0.0.1", 0, with_socket));
        EXPECT_EQ(text, "ValueError: host/port and sock can not be specified at the same time");
        ServerOptions datagrams;
        datagrams.sock(Socket(AF_INET, SOCK_DGRAM));
        text = co_await failure_of(start_server(echo, datagrams));
        EXPECT_EQ(text, "ValueError: A Stream Socket was expected for a server");
        ServerOptions inet;
        inet.sock(Socket(AF_INET, SOCK_STREAM));
        text = co_await failure_of(start_unix_server(echo, "", inet));
        EXPECT_EQ(text, "ValueError: A UNIX Domain Stream Socket was expected for a server");
        text = co_await failure_of(start_unix_server(echo, ""));
        EXPECT_EQ(text, "ValueError: the path of a Unix socket must not be empty; an abstract name "
                        "begins with a "
                        "zero byte: std::string(\"\\0name\", 5)");
        Socket bound(AF_INET, SOCK_STREAM);
        bound.bind(Address("127.0.0.1", 0));
        ServerOptions good;
        good.sock(std::move(bound));
        auto server = co_await start_server(echo, good);
        auto streams = co_await connect(server);
        co_await expect_echo(streams);
        text = co_await failure_of(asyncio::open_connection(ConnectionOptions()));
        EXPECT_TRUE(text.starts_with("ValueError: ")) << text;
    });
}

TEST(Server, limits_and_timeouts_that_are_not_positive_are_refused_where_they_are_set) {
    const auto refusal_of = [](auto set) -> std::string {
        try {
            set();
        } catch (const asyncio::ValueError& error) {
            return error.what();
        }
        return "nothing";
    };
    EXPECT_EQ(refusal_of([] { ServerOptions().limit(0); }), "Limit cannot be <= 0");
    EXPECT_EQ(refusal_of([] { ConnectionOptions().limit(0); }), "Limit cannot be <= 0");
    const auto check = [&](auto options) {
        using Options = decltype(options);
        EXPECT_EQ(refusal_of([] { Options().ssl_handshake_timeout(0); }),
                  "ssl_handshake_timeout should be a positive number, got 0");
        EXPECT_EQ(refusal_of([] { Options().ssl_handshake_timeout(-10); }),
                  "ssl_handshake_timeout should be a positive number, got -10");
        EXPECT_EQ(refusal_of([] { Options().ssl_shutdown_timeout(0s); }),
                  "ssl_shutdown_timeout should be a positive number, got 0");
        EXPECT_EQ(refusal_of([] { Options().ssl_shutdown_timeout(-20ms); }),
                  "ssl_shutdown_timeout should be a positive number, got -0.02");
        EXPECT_EQ(refusal_of([] { Options().ssl_handshake_timeout(1ms).ssl_shutdown_timeout(1); }),
                  "nothing");
        EXPECT_EQ(options.handshake_timeout().nanoseconds(), 60'000'000'000);
        EXPECT_EQ(options.shutdown_timeout().nanoseconds(), 30'000'000'000);
    };
    check(ConnectionOptions());
    check(asyncio::StartTlsOptions());
    EXPECT_EQ(refusal_of([] { ServerOptions().ssl_handshake_timeout(0); }),
              "ssl_handshake_timeout should be a positive number, got 0");
    EXPECT_EQ(refusal_of([] { ServerOptions().ssl_shutdown_timeout(-1); }),
              "ssl_shutdown_timeout should be a positive number, got -1");
}

TEST(Server, refuses_timeouts_of_tls_without_tls) {
    asyncio::run([]() -> Coro<> {
        const std::string handshake =
            "ValueError: ssl_handshake_timeout is only meaningful with ssl";
        const std::string shutdown = "ValueError: ssl_shutdown_timeout is only meaningful with ssl";
        const auto first = ServerOptions().ssl_handshake_timeout(1);
        const auto second = ServerOptions().ssl_shutdown_timeout(1);
        std::string text = co_await failure_of(start_server(echo, "127.0.0.1", 0, first));
        EXPECT_EQ(text, handshake);
        text = co_await failure_of(start_unix_server(echo, "/nowhere/at/all", second));
        EXPECT_EQ(text, shutdown);

        const auto one = ConnectionOptions().ssl_handshake_timeout(1);
        const auto other = ConnectionOptions().ssl_shutdown_timeout(1);
        text = co_await failure_of(asyncio::open_connection("127.0.0.1", 1, one));
        EXPECT_EQ(text, handshake);
        text = co_await failure_of(asyncio::open_unix_connection("/nowhere/at/all", other));
        EXPECT_EQ(text, shutdown);
        auto pair = Socket::pair();
        ConnectionOptions with_socket = other;
        with_socket.sock(std::move(pair.first));
        text = co_await failure_of(asyncio::open_connection(with_socket));
        EXPECT_EQ(text, shutdown);
        const auto factory = [] { return std::make_shared<asyncio::Protocol>(); };
        auto accepted = asyncio::connect_accepted_socket(factory, std::move(pair.second), one);
        text = co_await failure_of(std::move(accepted));
        EXPECT_EQ(text, handshake);
    });
}

TEST(Server, a_host_that_does_not_resolve_is_said) {
    static const asyncio::SystemCalls calls = [] {
        asyncio::SystemCalls table = asyncio::SystemCalls::real();
        table.getaddrinfo = [](const char*, const char*, const addrinfo*, addrinfo**) {
            return EAI_NONAME;
        };
        return table;
    }();
    const auto body = []() -> Coro<> {
        std::string text = co_await failure_of(start_server(echo, "nowhere.invalid", 0));
        EXPECT_NE(text.find("'nowhere.invalid'"), std::string::npos) << text;
        text = co_await failure_of(asyncio::open_connection("nowhere.invalid", 1));
        EXPECT_NE(text.find("'nowhere.invalid'"), std::string::npos) << text;
    };
    asyncio::run(body(), asyncio::RunOptions().loop(asyncio::LoopOptions().system_calls(calls)));
}

TEST(Server, goes_on_without_a_handle_until_the_loop_is_closed) {
    asyncio::run([]() -> Coro<> {
        Address address;
        {
            auto server = co_await start_server(echo, "127.0.0.1", 0);
            address = server.sockets().at(0);
        }
        auto streams = co_await connect(address);
        co_await expect_echo(streams);
        auto unserved =
            co_await start_server(echo, "127.0.0.1", 0, ServerOptions().start_serving(false));
        static_cast<void>(unserved);
    });
}

TEST(Server, accepts_more_clients_than_a_turn_takes) {
    asyncio::run([]() -> Coro<> {
        auto server = co_await start_server(echo, "127.0.0.1", 0, ServerOptions().backlog(500));
        std::vector<Streams> all;
        for (int i = 0; i < 200; ++i) all.push_back(co_await connect(server));
        for (const Streams& streams : all) co_await expect_echo(streams);
        server.close();
        all.clear();
        co_await server.wait_closed();
    });
}
