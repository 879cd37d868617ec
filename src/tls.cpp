// SPDX-License-Identifier: MIT
#include <asyncio/detail/tls.hpp>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

TlsSession::~TlsSession() = default;
TlsContext::~TlsContext() = default;

} // namespace detail
ASYNCIO_END_NAMESPACE
