// SPDX-License-Identifier: MIT
#include <asyncio/version.hpp>

#define ASYNCIO_TEXT_OF(number) #number
#define ASYNCIO_DOTTED(major, minor, patch)                                                        \
    ASYNCIO_TEXT_OF(major) "." ASYNCIO_TEXT_OF(minor) "." ASYNCIO_TEXT_OF(patch)

ASYNCIO_BEGIN_NAMESPACE

std::string_view version() noexcept {
    return ASYNCIO_DOTTED(ASYNCIO_VERSION_MAJOR, ASYNCIO_VERSION_MINOR, ASYNCIO_VERSION_PATCH);
}

ASYNCIO_END_NAMESPACE
