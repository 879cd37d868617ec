// SPDX-License-Identifier: MIT
// try_finally: a clean-up that awaits. C++ cannot co_await in a handler or in a destructor.
//
//     co_await asyncio::try_finally(
//         [&]() -> asyncio::Coro<> { co_await connection.work(); },
//         [&]() -> asyncio::Coro<> { co_await connection.close(); });
#pragma once

#include <asyncio/as_result.hpp>
#include <asyncio/detail/callables.hpp>

#include <exception>
#include <optional>
#include <type_traits>
#include <utility>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

template <class T, class Body, class Cleanup> Coro<T> run_with_cleanup(Body body, Cleanup cleanup) {
    std::optional<Result<T>> result;
    try {
        result.emplace(co_await as_result(body()));
    } catch (...) { // out of body() itself, if it is no coroutine but gives one
        result.emplace(std::current_exception());
    }
    using Cleaning = std::invoke_result_t<Cleanup&>;
    if constexpr (std::is_void_v<Cleaning>) {
        cleanup();
    } else if constexpr (Awaitable<Cleaning>) {
        static_cast<void>(co_await cleanup());
    } else {
        static_cast<void>(cleanup());
    }
    co_return std::move(*result).value();
}

} // namespace detail

// Runs body(), which must return a coroutine, then cleanup(), however the body ended: with a
// result, an exception or a cancel. Gives what the body gave, or throws what it threw; what the
// clean-up throws replaces that. The clean-up may return an awaitable, such as a coroutine: that
// gets a CancelledError only from a cancel that comes while it runs. Both callables are kept until
// the end. (try: ... finally: ...)
template <detail::CoroutineFunction Body, class Cleanup>
    requires std::is_invocable_v<std::decay_t<Cleanup>&>
ASYNCIO_CORO_WRAPPER Coro<detail::CoroutineResult<Body>> try_finally(Body&& body,
                                                                     Cleanup&& cleanup) {
    ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(Body, Cleanup);
    return detail::run_with_cleanup<detail::CoroutineResult<Body>, std::decay_t<Body>,
                                    std::decay_t<Cleanup>>(std::forward<Body>(body),
                                                           std::forward<Cleanup>(cleanup));
}

ASYNCIO_END_NAMESPACE
