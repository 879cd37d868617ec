// SPDX-License-Identifier: MIT
//
// What every other header needs first: the compilers we build with and what differs between them,
// the macros that open and close the namespace and export symbols, and ASYNCIO_ASSERT. Includes
// nothing.
#pragma once

#if !defined(__linux__)
#error "asyncio needs Linux."
#elif defined(__clang__) && __clang_major__ < 16
#error "asyncio needs Clang 16 or newer."
#elif !defined(__clang__) && (!defined(__GNUC__) || __GNUC__ < 12)
#error "asyncio needs GCC 12 or newer, or Clang 16 or newer."
#elif __cplusplus < 202002L
#error "asyncio needs C++20: compile with -std=c++20 or newer."
#elif !defined(__cpp_exceptions)
#error "asyncio needs C++ exceptions: compile without -fno-exceptions."
#endif

// The library is compiled with -fvisibility=hidden; this marks what users may link to. It is on
// classes too whose type information must be one and the same across shared libraries, as those
// of exceptions.
#define ASYNCIO_API __attribute__((visibility("default")))
#define ASYNCIO_NOINLINE __attribute__((noinline))
#define ASYNCIO_ALWAYS_INLINE __attribute__((always_inline))
#define ASYNCIO_COLD __attribute__((noinline, cold))

// The inline namespace is part of each symbol's name: a program that mixes two incompatible
// versions does not link, instead of going wrong.
#define ASYNCIO_BEGIN_NAMESPACE                                                                    \
    namespace asyncio {                                                                            \
    inline namespace v0 {
#define ASYNCIO_END_NAMESPACE                                                                      \
    }                                                                                              \
    }

// GCC makes symmetric transfer a tail call only at -O2 and without sanitizers, so on GCC each
// step of a task is a trampoline; Clang always transfers. Chosen by compiler alone, so that every
// translation unit agrees.
#if defined(__clang__)
#define ASYNCIO_TRAMPOLINE 0
#else
#define ASYNCIO_TRAMPOLINE 1
#endif

// With ASYNCIO_LIFETIME_CHECKS=1, Clang warns of a coroutine that is kept while it refers to a
// temporary which is gone (-Wdangling). Not by default, since Clang then refuses every function
// that returns a Coro without being a coroutine or marked ASYNCIO_CORO_WRAPPER; and so
// std::function, std::invoke and std::apply with coroutine functions do not compile.
#if defined(__clang__) && defined(ASYNCIO_LIFETIME_CHECKS) && ASYNCIO_LIFETIME_CHECKS
#define ASYNCIO_CORO_TYPE [[clang::coro_return_type, clang::coro_lifetimebound]]
#define ASYNCIO_CORO_WRAPPER [[clang::coro_wrapper]]
#else
#define ASYNCIO_CORO_TYPE
#define ASYNCIO_CORO_WRAPPER
#endif

ASYNCIO_BEGIN_NAMESPACE
namespace detail {
/// Says what did not hold and where on standard error, then aborts.
[[noreturn]] ASYNCIO_API void assertion_failed(const char* condition, const char* file,
                                               int line) noexcept;
} // namespace detail
ASYNCIO_END_NAMESPACE

// ASYNCIO_ASSERT states an invariant of ours; a broken promise of the caller throws instead. On
// with the CMake option ASYNCIO_ASSERTIONS, for the library and all who link to it. It must never
// decide the layout of a type, or what a program does when the condition holds.
#if defined(ASYNCIO_ASSERTIONS) && ASYNCIO_ASSERTIONS
#define ASYNCIO_ASSERT(...)                                                                        \
    ((__VA_ARGS__) ? static_cast<void>(0)                                                          \
                   : ::asyncio::detail::assertion_failed(#__VA_ARGS__, __FILE__, __LINE__))
#else
// Unevaluated, but seen: what only an assertion uses is not reported as unused.
#define ASYNCIO_ASSERT(...) static_cast<void>(sizeof((__VA_ARGS__) ? 1 : 0))
#endif
