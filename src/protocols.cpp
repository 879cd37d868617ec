// SPDX-License-Identifier: MIT
#include <asyncio/protocols.hpp>
#include <asyncio/transports.hpp>

ASYNCIO_BEGIN_NAMESPACE

BaseProtocol::~BaseProtocol() = default;
// NOLINTBEGIN(performance-unnecessary-value-param): whoever overrides these wants to keep it
void BaseProtocol::connection_made(Transport) {}
void BaseProtocol::connection_lost(std::exception_ptr) {}
// NOLINTEND(performance-unnecessary-value-param)
void BaseProtocol::pause_writing() {}
void BaseProtocol::resume_writing() {}

Protocol::~Protocol() = default;
void Protocol::data_received(std::string_view) {}
bool Protocol::eof_received() { return false; }

BufferedProtocol::~BufferedProtocol() = default;
void BufferedProtocol::buffer_updated(std::size_t) {}
bool BufferedProtocol::eof_received() { return false; }

ASYNCIO_END_NAMESPACE
