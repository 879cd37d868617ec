// SPDX-License-Identifier: MIT
#include <asyncio/version.hpp>
#include <gtest/gtest.h>
#include <string>

TEST(Version, the_library_and_its_header_agree) {
    EXPECT_EQ(asyncio::version(), std::to_string(ASYNCIO_VERSION_MAJOR) + "." +
                                      std::to_string(ASYNCIO_VERSION_MINOR) + "." +
                                      std::to_string(ASYNCIO_VERSION_PATCH));
}
