// SPDX-License-Identifier: MIT
// What get_extra_info() of streams and transports is asked for, and the socket that it gives.
//
//     asyncio::Address peer = writer.get_extra_info(asyncio::peername);
//     writer.get_extra_info(asyncio::socket_info).setsockopt(SOL_SOCKET, SO_SNDBUF, 65536);
//
// A tag stands for each of asyncio's strings, so that what comes back has its own type, and a name
// that is spelled wrong does not compile.
#pragma once

#include <asyncio/address.hpp>

ASYNCIO_BEGIN_NAMESPACE

// The peer's address, ours, the ssl::Object, the socket. ("peername", "sockname", "ssl_object",
// "socket")
inline constexpr struct PeerName {
} peername;
inline constexpr struct SockName {
} sockname;
inline constexpr struct SslObject {
} ssl_object;
inline constexpr struct SocketOf {
} socket_info;

// A connection's socket, to look at and to set options of, not to read from or to close.
// (asyncio.trsock.TransportSocket)
class ASYNCIO_API TransportSocket {
  public:
    // -1 once the connection is closed.
    int fileno() const noexcept { return descriptor_; }
    // These throw std::system_error.
    Address getsockname() const;
    Address getpeername() const;
    void setsockopt(int level, int option, int value) const;
    int getsockopt(int level, int option) const;

    // For the library.
    explicit TransportSocket(int descriptor) noexcept : descriptor_(descriptor) {}

  private:
    int descriptor_;
};

ASYNCIO_END_NAMESPACE
