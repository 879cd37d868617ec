// SPDX-License-Identifier: MIT
//
// What is refused of servers, connections and endpoints, each with one sentence; and what stands
// next to it and is right.

// CASE_handler_of_one_stream: fails only with "start_server takes a handler, a host"
// CASE_handler_with_a_result: fails only with "start_server takes a handler, a host"
// CASE_handler_that_is_a_coroutine: fails only with "start_server takes a handler, a host"
// CASE_server_without_a_handler: fails only with "start_server takes a handler, a host"
// CASE_server_without_a_host: fails only with "start_server takes a handler, a host"
// CASE_server_of_a_path: fails only with "start_unix_server takes a handler, a path"
// CASE_factory_that_is_a_protocol: fails only with "create_server takes a factory, a host"
// CASE_factory_of_a_plain_pointer: fails only with "create_server takes a factory, a host"
// CASE_factory_of_something_else: fails only with "create_connection takes a factory, a host"
// CASE_factory_with_an_argument: fails only with "create_connection takes a factory, a host"
// CASE_connection_of_a_path: fails only with "create_unix_connection takes a factory, a path"
// CASE_server_of_protocols_at_a_path: fails only with "create_unix_server takes a factory, a path"
// CASE_accepted_descriptor: fails only with "connect_accepted_socket takes a factory, a Socket"
// CASE_right: compiles
// CASE_several_hosts_in_braces: compiles
// CASE_server_dropped: fails only with "a coroutine does nothing until"

#include <asyncio/asyncio.hpp>

#include <memory>
#include <string>
#include <vector>

using asyncio::Coro;
using asyncio::StreamReader;
using asyncio::StreamWriter;

struct Echo : asyncio::Protocol {};
Coro<> handle(StreamReader reader, StreamWriter writer);
void plain(StreamReader reader, StreamWriter writer);

#ifdef CASE_handler_of_one_stream
Coro<> one(StreamReader reader);
Coro<> f() { co_await asyncio::start_server(one, "127.0.0.1", 0); }
#endif
#ifdef CASE_handler_with_a_result
int sum(StreamReader reader, StreamWriter writer);
Coro<> f() { co_await asyncio::start_server(sum, "127.0.0.1", 0); }
#endif
#ifdef CASE_handler_that_is_a_coroutine
Coro<> coroutine();
Coro<> f() { co_await asyncio::start_server(coroutine(), "127.0.0.1", 0); }
#endif
#ifdef CASE_server_without_a_handler
Coro<> f() { co_await asyncio::start_server("127.0.0.1", 0); }
#endif
#ifdef CASE_server_without_a_host
Coro<> f() { co_await asyncio::start_server(handle, 8080); }
#endif
#ifdef CASE_server_of_a_path
Coro<> f() { co_await asyncio::start_unix_server("/run/app.sock", handle); }
#endif
#ifdef CASE_factory_that_is_a_protocol
Coro<> f() { co_await asyncio::create_server(std::make_shared<Echo>(), "127.0.0.1", 0); }
#endif
#ifdef CASE_factory_of_a_plain_pointer
Echo* make();
Coro<> f() { co_await asyncio::create_server(make, "127.0.0.1", 0); }
#endif
#ifdef CASE_factory_of_something_else
std::shared_ptr<int> make();
Coro<> f() { co_await asyncio::create_connection(make, "127.0.0.1", 1); }
#endif
#ifdef CASE_factory_with_an_argument
std::shared_ptr<Echo> make(int);
Coro<> f() { co_await asyncio::create_connection(make, "127.0.0.1", 1); }
#endif
#ifdef CASE_connection_of_a_path
Coro<> f() { co_await asyncio::create_unix_connection("/run/app.sock"); }
#endif
#ifdef CASE_server_of_protocols_at_a_path
Coro<> f() { co_await asyncio::create_unix_server(handle, "/run/app.sock"); }
#endif
#ifdef CASE_accepted_descriptor
std::shared_ptr<Echo> make();
Coro<> f() { co_await asyncio::connect_accepted_socket(make, 5); }
#endif
#ifdef CASE_right
std::shared_ptr<Echo> make();
std::unique_ptr<Echo> make_unique();
Coro<> f(std::string host, std::vector<std::string> hosts, unsigned short port) {
    auto server = co_await asyncio::start_server(handle, "127.0.0.1", 0);
    server = co_await asyncio::start_server(plain, host, port);
    server = co_await asyncio::start_server(handle, hosts, port, asyncio::ServerOptions());
    server = co_await asyncio::start_unix_server(plain, host);
    server = co_await asyncio::create_server(make, host, port);
    server = co_await asyncio::create_server(make_unique, hosts, port);
    server = co_await asyncio::create_unix_server(make, "/run/app.sock");
    auto created = co_await asyncio::create_connection(make, "127.0.0.1", port);
    created = co_await asyncio::create_unix_connection(make, "/run/app.sock");
    created = co_await asyncio::connect_accepted_socket(make, asyncio::Socket());
}
#endif
#ifdef CASE_several_hosts_in_braces
Coro<asyncio::Server> f() { return asyncio::start_server(handle, {"127.0.0.1", "::1"}, 0); }
Coro<asyncio::Server> g(std::string host) {
    return asyncio::create_server([] { return std::make_shared<Echo>(); }, {host}, 0,
                                  asyncio::ServerOptions().backlog(1));
}
#endif
#ifdef CASE_server_dropped
void f() { asyncio::start_server(handle, "127.0.0.1", 0); }
#endif
