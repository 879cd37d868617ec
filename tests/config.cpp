// SPDX-License-Identifier: MIT
#include <asyncio/detail/config.hpp>
#include <gtest/gtest.h>

TEST(Config, an_assertion_that_holds_does_nothing) {
    int evaluated = 0;
    ASYNCIO_ASSERT(++evaluated == 1);
    EXPECT_LE(evaluated, 1);
}

#if defined(ASYNCIO_ASSERTIONS) && ASYNCIO_ASSERTIONS
TEST(ConfigDeathTest, an_assertion_that_fails_says_what_and_where_and_aborts) {
    EXPECT_DEATH(ASYNCIO_ASSERT(1 + 1 == 3),
                 "tests/config.cpp:[0-9]+: asyncio: an invariant does not hold: 1 \\+ 1 == 3");
}
#else
TEST(Config, an_assertion_that_is_off_is_not_evaluated) {
    int evaluated = 0;
    ASYNCIO_ASSERT(++evaluated == 1);
    EXPECT_EQ(evaluated, 0);
}
#endif
