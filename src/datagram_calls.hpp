// SPDX-License-Identifier: MIT
// The calls by which a datagram is received and sent, as endpoints and transports share them.
#pragma once

#include <asyncio/detail/channel.hpp>
#include <asyncio/sockets.hpp>

#include <string>
#include <string_view>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

// The next datagram, whole, in the block, or in `large` if that is too small. False: would block.
bool receive_whole(SocketState& socket, const SystemCalls& calls, const char* operation,
                   const IoBlock& block, std::string& large, std::string_view& data,
                   Address& address);

// To this address if it is of a family. False: would block.
bool send_one(SocketState& socket, const SystemCalls& calls, const char* operation,
              std::string_view data, const Address& address);

} // namespace detail
ASYNCIO_END_NAMESPACE
