// SPDX-License-Identifier: MIT
#include <asyncio/connections.hpp>
#include <asyncio/detail/happy_eyeballs.hpp>
#include <asyncio/dns.hpp>
#include <asyncio/extra_info.hpp>

#include <netinet/in.h>
#include <netinet/tcp.h>

ASYNCIO_BEGIN_NAMESPACE

ConnectionOptions::ConnectionOptions(const ConnectionOptions&) = default;
ConnectionOptions::ConnectionOptions(ConnectionOptions&&) noexcept = default;
ConnectionOptions& ConnectionOptions::operator=(const ConnectionOptions&) = default;
ConnectionOptions& ConnectionOptions::operator=(ConnectionOptions&&) noexcept = default;
ConnectionOptions::~ConnectionOptions() = default;

namespace detail {
namespace {

Connecting take_connected(const ConnectionOptions& options, int family) {
    Socket& socket = *options.sock();
    if (!socket.is_open() || socket.type() != SOCK_STREAM)
        throw ValueError("A Stream Socket was expected");
    if (family != AF_UNSPEC && socket.family() != family)
        throw ValueError("A UNIX Domain Stream Socket was expected");
    const Address peer = socket.getpeername();
    return Connecting(std::move(socket), peer, std::string());
}

} // namespace

void check_tls_options(const ConnectionOptions& options) {
    if (options.tls() != nullptr) return;
    if (options.server_hostname().has_value())
        throw ValueError("server_hostname is only meaningful with ssl");
    if (options.ssl_session() != nullptr)
        throw ValueError("ssl_session is only meaningful with ssl");
    options.tls_timeouts().refuse();
}

void check_server_options(const StartTlsOptions& options) {
    if (options.server_hostname().has_value())
        throw ValueError("server_hostname is only meaningful with a client's side of TLS");
    if (options.ssl_session() != nullptr)
        throw ValueError("ssl_session is only meaningful with a client's side of TLS");
}

Coro<Connecting> connect_to(std::string host, int port, ConnectionOptions options) {
    if (options.sock() != nullptr)
        throw ValueError("host/port and sock can not be specified at the same time");
    check_tls_options(options);
    GetAddrInfoOptions lookup;
    lookup.family(options.family()).type(SOCK_STREAM).flags(options.flags());
    RaceOptions race;
    race.happy_eyeballs_delay(options.happy_eyeballs_delay())
        .interleave(options.interleave())
        .all_errors(options.all_errors());
    auto addresses = co_await getaddrinfo(host, port, lookup);
    if (options.local_host().has_value()) {
        auto local = co_await getaddrinfo(*options.local_host(), options.local_port(), lookup);
        race.local_addresses(std::move(local));
    }
    Socket socket = co_await connect_to_one_of(std::move(addresses), std::move(race));
    const Address peer = socket.getpeername();
    co_return Connecting(std::move(socket), peer, std::move(host));
}

Coro<Connecting> connect_to_unix(std::string path, ConnectionOptions options) {
    if (options.tls() != nullptr && !options.server_hostname().has_value())
        throw ValueError("you have to pass server_hostname when using ssl");
    check_tls_options(options);
    if (options.sock() != nullptr) {
        if (!path.empty()) throw ValueError("path and sock can not be specified at the same time");
        co_return take_connected(options, AF_UNIX);
    }
    const Address address = Address::unix_path(path);
    Socket socket(AF_UNIX, SOCK_STREAM);
    co_await sock_connect(socket, address);
    co_return Connecting(std::move(socket), address, std::string());
}

Connecting connected_socket(const ConnectionOptions& options) {
    if (options.sock() == nullptr)
        throw ValueError("host and port was not specified and no sock specified");
    check_tls_options(options);
    if (options.tls() != nullptr && !options.server_hostname().has_value())
        throw ValueError("You must set server_hostname when using ssl without a host");
    return take_connected(options, AF_UNSPEC);
}

void send_without_delay(int descriptor, const Address& peer) noexcept {
    if (peer.family() != AF_INET && peer.family() != AF_INET6) return;
    const int on = 1;
    current_system_calls().setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

} // namespace detail

Address TransportSocket::getsockname() const { return detail::socket_name(descriptor_); }
Address TransportSocket::getpeername() const { return detail::peer_name(descriptor_); }
void TransportSocket::setsockopt(int level, int option, int value) const {
    detail::set_socket_option(descriptor_, level, option,
                              ReadableBytes(reinterpret_cast<const char*>(&value), sizeof value));
}
int TransportSocket::getsockopt(int level, int option) const {
    return detail::get_socket_option(descriptor_, level, option);
}

ASYNCIO_END_NAMESPACE
