// SPDX-License-Identifier: MIT
//
// The version of asyncio-cpp: the macros say what you compile against, version() says what you
// run with. CMakeLists.txt reads the numbers from here.
#pragma once

#include <asyncio/detail/config.hpp>
#include <string_view>

#define ASYNCIO_VERSION_MAJOR 0
#define ASYNCIO_VERSION_MINOR 1
#define ASYNCIO_VERSION_PATCH 0

ASYNCIO_BEGIN_NAMESPACE

/// The version of the library that is loaded, as "major.minor.patch".
[[nodiscard]] ASYNCIO_API std::string_view version() noexcept;

ASYNCIO_END_NAMESPACE
