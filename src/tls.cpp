// SPDX-License-Identifier: MIT
#include <asyncio/detail/tls.hpp>
#include <asyncio/exceptions.hpp>

#include <cstdio>
#include <string>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

TlsSession::~TlsSession() = default;
TlsContext::~TlsContext() = default;

// The one that has been here longest goes, though it may be busy: then it comes again.
void WarmSessions::add(TlsSession& session) noexcept {
    TlsSession*& place = sessions_[next_];
    if (place != nullptr) {
        place->release_memory();
        place->warm_place_ = 0;
    }
    place = &session;
    next_ = (next_ + 1) % most;
    session.warm_place_ = static_cast<std::size_t>(&place - sessions_) + 1;
}

Delay TlsTimeouts::checked(const char* name, Delay timeout) {
    if (timeout.nanoseconds() > 0) return timeout;
    char seconds[32];
    std::snprintf(seconds, sizeof seconds, "%.10g",
                  static_cast<double>(timeout.nanoseconds()) / 1e9);
    throw ValueError(std::string(name) + " should be a positive number, got " + seconds);
}

void TlsTimeouts::refuse() const {
    if (handshake_.has_value())
        throw ValueError("ssl_handshake_timeout is only meaningful with ssl");
    if (shutdown_.has_value()) throw ValueError("ssl_shutdown_timeout is only meaningful with ssl");
}

} // namespace detail
ASYNCIO_END_NAMESPACE
