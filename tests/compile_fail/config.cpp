// SPDX-License-Identifier: MIT
//
// What asyncio says to a compiler, or to flags, that it cannot work with: one sentence, first.

// CASE_1: compiles

// CASE_2 flags: -fno-exceptions
// CASE_2: fails with "asyncio needs C++ exceptions: compile without -fno-exceptions."

// CASE_3 flags: -std=c++17
// CASE_3: fails with "asyncio needs C++20: compile with -std=c++20 or newer."

// CASE_4 flags: -U__GNUC__ -D__GNUC__=11 -U__clang_major__ -D__clang_major__=15
// CASE_4 [gcc]: fails with "asyncio needs GCC 12 or newer, or Clang 16 or newer."
// CASE_4 [clang]: fails with "asyncio needs Clang 16 or newer."

#include <asyncio/detail/config.hpp>

#ifdef CASE_1
void asserts(int n) { ASYNCIO_ASSERT(n > 0); }
#endif
#ifdef CASE_2
#endif
#ifdef CASE_3
#endif
#ifdef CASE_4
#endif
