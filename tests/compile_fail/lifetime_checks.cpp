// SPDX-License-Identifier: MIT
//
// What Clang sees with ASYNCIO_LIFETIME_CHECKS=1: a coroutine that is kept while it refers to a
// temporary which is gone. GCC knows no such check, and takes the macro without a word.

// Without any case: the library's own headers, with the checks on.

// CASE_dangling_argument: compiles
// CASE_dangling_argument [clang]: fails with "-Wdangling"
// CASE_dangling_capture: compiles
// CASE_dangling_capture [clang]: fails with "-Wdangling"
// CASE_wrapper_without_a_mark: compiles
// CASE_wrapper_without_a_mark [clang]: fails with "coroutine wrapper"
// CASE_without_the_checks flags: -UASYNCIO_LIFETIME_CHECKS
// CASE_without_the_checks: compiles
// CASE_right: compiles

#define ASYNCIO_LIFETIME_CHECKS 1
#ifdef CASE_without_the_checks
#undef ASYNCIO_LIFETIME_CHECKS
#endif
#include <asyncio/asyncio.hpp>
#include <asyncio/testing/virtual_time.hpp>

#include <string>

using asyncio::Coro;

Coro<std::size_t> by_reference(const std::string& text) { co_return text.size(); }
Coro<std::size_t> by_value(std::string text) { co_return text.size(); }

#if defined(CASE_dangling_argument) || defined(CASE_without_the_checks)
Coro<std::size_t> f() {
    auto kept = by_reference(std::string("gone at the end of this line"));
    co_return co_await std::move(kept);
}
#endif
#ifdef CASE_dangling_capture
Coro<std::size_t> f() {
    std::string text;
    auto kept = [text]() -> Coro<std::size_t> { co_return text.size(); }();
    co_return co_await std::move(kept);
}
#endif
#ifdef CASE_wrapper_without_a_mark
Coro<std::size_t> f(const std::string& text) { return by_reference(text); }
#endif
#ifdef CASE_right
ASYNCIO_CORO_WRAPPER Coro<std::size_t> wrapper(const std::string& text) {
    return by_reference(text);
}
Coro<std::size_t> f() {
    co_await by_reference(std::string("lives until the await is over"));
    auto kept = by_value(std::string("moved in"));
    co_await std::move(kept);
    const std::string named;
    auto refers = by_reference(named);
    co_await std::move(refers);
    co_await wrapper(named);
    auto function = [&named]() -> Coro<std::size_t> { co_return named.size(); };
    auto plain = [&named] { static_cast<void>(named); };
    co_await function();
    co_await asyncio::create_task(function);
    co_await asyncio::create_task(by_value, named);
    co_await asyncio::gather(function, by_value(named), asyncio::sleep(1));
    co_await asyncio::try_finally(function, plain);
    static_cast<void>(co_await asyncio::as_result(by_value(named)));
    co_return 1;
}
void g() {
    asyncio::run(f());
    asyncio::run(f);
}
#endif
