// SPDX-License-Identifier: MIT
//
// The servers on standalone Asio: `streams` and all others with C++20 coroutines, `protocols` with
// handlers. The modes are those of ../load.cpp.
#include <asio.hpp>
#include <asio/ssl.hpp>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

namespace {

using asio::awaitable;
using asio::co_spawn;
using asio::detached;
using asio::use_awaitable;
using asio::ip::tcp;
using asio::ip::udp;
using Tls = asio::ssl::stream<tcp::socket>;

constexpr std::size_t room = 64 * 1024;
constexpr std::size_t sink_unit = 16 * 1024 * 1024;

template <class Stream> awaitable<void> echo(Stream& stream) {
    std::vector<char> data(room);
    while (true) {
        const std::size_t length =
            co_await stream.async_read_some(asio::buffer(data), use_awaitable);
        co_await asio::async_write(stream, asio::buffer(data, length), use_awaitable);
    }
}
template <class Stream> awaitable<void> sink(Stream& stream) {
    std::vector<char> data(room);
    std::size_t received = 0;
    while (true) {
        received += co_await stream.async_read_some(asio::buffer(data), use_awaitable);
        if (received < sink_unit) continue;
        received -= sink_unit;
        co_await asio::async_write(stream, asio::buffer(".", 1), use_awaitable);
    }
}
template <class Stream> awaitable<void> source(Stream& stream) {
    std::vector<char> data(room);
    for (std::size_t i = 0; i < room; ++i) data[i] = static_cast<char>(i);
    while (true) co_await asio::async_write(stream, asio::buffer(data), use_awaitable);
}
template <class Stream> awaitable<void> serve(Stream& stream, std::string_view mode) {
    if (mode.ends_with("sink")) {
        co_await sink(stream);
    } else if (mode.ends_with("source")) {
        co_await source(stream);
    } else {
        co_await echo(stream);
    }
}

// A connection ends with an exception, for the end of the stream is one too.
awaitable<void> plain(tcp::socket socket, std::string_view mode) {
    try {
        co_await serve(socket, mode);
    } catch (const std::system_error&) {
    }
}
awaitable<void> encrypted(tcp::socket socket, asio::ssl::context& context, std::string_view mode) {
    Tls stream(std::move(socket), context);
    try {
        co_await stream.async_handshake(asio::ssl::stream_base::server, use_awaitable);
        co_await serve(stream, mode);
    } catch (const std::system_error&) {
    }
}

// The same echo with handlers.
class Session : public std::enable_shared_from_this<Session> {
  public:
    explicit Session(tcp::socket socket) : socket_(std::move(socket)) {}
    void read() {
        socket_.async_read_some(
            asio::buffer(data_),
            [self = shared_from_this()](asio::error_code error, std::size_t length) {
                if (!error) self->write(length);
            });
    }

  private:
    void write(std::size_t length) {
        asio::async_write(socket_, asio::buffer(data_, length),
                          [self = shared_from_this()](asio::error_code error, std::size_t) {
                              if (!error) self->read();
                          });
    }
    tcp::socket socket_;
    std::array<char, room> data_;
};

void print_port(int port) {
    std::printf("%d\n", port);
    std::fflush(stdout);
}

awaitable<void> accept(asio::io_context& context, std::string_view mode, const char* certificate) {
    asio::ssl::context tls(asio::ssl::context::tls_server);
    if (mode.starts_with("tls")) {
        tls.use_certificate_chain_file(certificate);
        tls.use_private_key_file(certificate, asio::ssl::context::pem);
    }
    tcp::acceptor acceptor(context, {asio::ip::address_v4::loopback(), 0});
    print_port(acceptor.local_endpoint().port());
    while (true) {
        tcp::socket socket = co_await acceptor.async_accept(use_awaitable);
        socket.set_option(tcp::no_delay(true));
        if (mode.starts_with("tls")) {
            co_spawn(context, encrypted(std::move(socket), tls, mode), detached);
        } else if (mode == "protocols") {
            std::make_shared<Session>(std::move(socket))->read();
        } else {
            co_spawn(context, plain(std::move(socket), mode), detached);
        }
    }
}

awaitable<void> datagrams(asio::io_context& context) {
    udp::socket socket(context, {asio::ip::address_v4::loopback(), 0});
    print_port(socket.local_endpoint().port());
    std::array<char, 2048> data;
    while (true) {
        udp::endpoint from;
        const std::size_t length =
            co_await socket.async_receive_from(asio::buffer(data), from, use_awaitable);
        co_await socket.async_send_to(asio::buffer(data, length), from, use_awaitable);
    }
}

} // namespace

int main(int argc, char** argv) {
    const std::string_view mode = argc > 1 ? argv[1] : "";
    if (mode == "--modes") {
        std::puts("streams protocols sink source tls tls_sink tls_source udp");
        return 0;
    }
    asio::io_context context(1);
    const auto report = [](const std::exception_ptr& error) {
        if (error != nullptr) std::rethrow_exception(error);
    };
    if (mode == "udp") {
        co_spawn(context, datagrams(context), report);
    } else {
        co_spawn(context, accept(context, mode, argc > 2 ? argv[2] : ""), report);
    }
    context.run();
}
