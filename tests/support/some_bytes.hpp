// SPDX-License-Identifier: MIT
// Bytes of which no two pieces are alike.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace asyncio_test {

inline std::string some_bytes(std::size_t size) {
    std::string bytes(size, '\0');
    std::uint32_t state = 1;
    for (char& byte : bytes) {
        state = state * 1664525 + 1013904223;
        byte = static_cast<char>(state >> 24);
    }
    return bytes;
}

} // namespace asyncio_test
