// SPDX-License-Identifier: MIT
//
// The servers on libuv, with its callbacks, which stand for streams and for protocols. What is read
// is written at once, and what the kernel does not take is queued; then nothing is read until it
// has gone. libuv has no TLS. The modes are those of ../load.cpp.
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <netinet/in.h>
#include <string_view>
#include <uv.h>

namespace {

enum class Mode { echo, sink, source };

constexpr std::size_t room = 64 * 1024;
constexpr std::size_t sink_unit = 16 * 1024 * 1024;

struct Connection {
    uv_tcp_t handle;
    uv_write_t write;
    std::size_t received = 0;
    char data[room];
};

Mode mode = Mode::echo;
uv_loop_t* loop;

void check(int result) {
    if (result >= 0) return;
    std::fprintf(stderr, "%s\n", uv_strerror(result));
    std::exit(1);
}

template <class Handle> uv_stream_t* stream_of(Handle& handle) {
    return reinterpret_cast<uv_stream_t*>(&handle);
}
Connection* connection_of(void* stream) {
    return static_cast<Connection*>(static_cast<uv_handle_t*>(stream)->data);
}

void end(Connection* connection) {
    auto* handle = reinterpret_cast<uv_handle_t*>(&connection->handle);
    if (uv_is_closing(handle) == 0) {
        uv_close(handle, [](uv_handle_t* closed) { delete connection_of(closed); });
    }
}

void allocate(uv_handle_t* handle, std::size_t, uv_buf_t* buffer) {
    *buffer = uv_buf_init(connection_of(handle)->data, room);
}
void on_read(uv_stream_t* stream, ssize_t length, const uv_buf_t*);

void sink(Connection* connection, std::size_t length) {
    connection->received += length;
    if (connection->received < sink_unit) return;
    connection->received -= sink_unit;
    char dot = '.';
    uv_buf_t answer = uv_buf_init(&dot, 1);
    uv_try_write(stream_of(connection->handle), &answer, 1);
}

void after_echo(uv_write_t* request, int status) {
    if (status < 0) return end(connection_of(request->handle));
    uv_read_start(request->handle, allocate, on_read);
}
void on_read(uv_stream_t* stream, ssize_t length, const uv_buf_t*) {
    Connection* connection = connection_of(stream);
    if (length < 0) return end(connection);
    if (length == 0) return;
    if (mode == Mode::sink) return sink(connection, static_cast<std::size_t>(length));
    uv_buf_t data = uv_buf_init(connection->data, static_cast<unsigned>(length));
    const int written = uv_try_write(stream, &data, 1);
    if (written == length) return;
    if (written < 0 && written != UV_EAGAIN) return end(connection);
    if (written > 0) {
        data.base += written;
        data.len -= static_cast<std::size_t>(written);
    }
    uv_read_stop(stream);
    uv_write(&connection->write, stream, &data, 1, after_echo);
}

void feed(Connection* connection) {
    uv_buf_t data = uv_buf_init(connection->data, room);
    uv_write(&connection->write, stream_of(connection->handle), &data, 1,
             [](uv_write_t* request, int status) {
                 if (status < 0) return end(connection_of(request->handle));
                 feed(connection_of(request->handle));
             });
}

void on_connection(uv_stream_t* listener, int status) {
    check(status);
    auto* connection = new Connection;
    check(uv_tcp_init(loop, &connection->handle));
    connection->handle.data = connection;
    check(uv_accept(listener, stream_of(connection->handle)));
    uv_tcp_nodelay(&connection->handle, 1);
    if (mode != Mode::source) {
        check(uv_read_start(stream_of(connection->handle), allocate, on_read));
        return;
    }
    for (std::size_t i = 0; i < room; ++i) connection->data[i] = static_cast<char>(i);
    feed(connection);
}

void print_port(int result, const sockaddr_in& address) {
    check(result);
    std::printf("%d\n", ntohs(address.sin_port));
    std::fflush(stdout);
}

void listen(uv_tcp_t& listener, const sockaddr_in& any) {
    check(uv_tcp_init(loop, &listener));
    check(uv_tcp_bind(&listener, reinterpret_cast<const sockaddr*>(&any), 0));
    check(uv_listen(stream_of(listener), 1024, on_connection));
    sockaddr_in address{};
    int size = sizeof address;
    print_port(uv_tcp_getsockname(&listener, reinterpret_cast<sockaddr*>(&address), &size),
               address);
}

void receive(uv_udp_t& socket, const sockaddr_in& any) {
    check(uv_udp_init(loop, &socket));
    check(uv_udp_bind(&socket, reinterpret_cast<const sockaddr*>(&any), 0));
    check(uv_udp_recv_start(
        &socket,
        [](uv_handle_t*, std::size_t, uv_buf_t* buffer) {
            static char data[room];
            *buffer = uv_buf_init(data, room);
        },
        [](uv_udp_t* handle, ssize_t length, const uv_buf_t* buffer, const sockaddr* from,
           unsigned) {
            if (from == nullptr) return; // nothing more for now
            uv_buf_t answer = uv_buf_init(buffer->base, static_cast<unsigned>(length));
            uv_udp_try_send(handle, &answer, 1, from);
        }));
    sockaddr_in address{};
    int size = sizeof address;
    print_port(uv_udp_getsockname(&socket, reinterpret_cast<sockaddr*>(&address), &size), address);
}

} // namespace

int main(int argc, char** argv) {
    const std::string_view name = argc > 1 ? argv[1] : "";
    if (name == "--modes") {
        std::puts("streams protocols sink source udp");
        return 0;
    }
    if (name == "sink") mode = Mode::sink;
    if (name == "source") mode = Mode::source;
    loop = uv_default_loop();
    sockaddr_in any{};
    check(uv_ip4_addr("127.0.0.1", 0, &any));
    uv_tcp_t listener;
    uv_udp_t socket;
    if (name == "udp") {
        receive(socket, any);
    } else {
        listen(listener, any);
    }
    return uv_run(loop, UV_RUN_DEFAULT);
}
