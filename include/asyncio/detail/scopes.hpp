// SPDX-License-Identifier: MIT
// What `async with` becomes: a scope, and the body that runs in it.
#pragma once

#include <asyncio/detail/callables.hpp>

#include <type_traits>
#include <utility>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

template <class Body, class Scope>
inline constexpr bool is_body = [] {
    using B = std::decay_t<Body>;
    if constexpr (std::is_invocable_v<B&, Scope&>) {
        return is_coro<std::remove_cvref_t<std::invoke_result_t<B&, Scope&>>>;
    } else {
        return gives_coroutine<Body>;
    }
}();
template <class Body, class Scope>
concept BodyOf = is_body<Body, Scope>;

// body(scope), or body() if it does not take that: must return a coroutine.
template <class Body, class Scope>
    requires BodyOf<Body, Scope>
ASYNCIO_CORO_WRAPPER auto call_body(Body& body, Scope& scope) {
    if constexpr (std::is_invocable_v<Body&, Scope&>) {
        return body(scope);
    } else {
        return body();
    }
}

template <class Body, class Scope>
using BodyResult = typename decltype(call_body(std::declval<std::decay_t<Body>&>(),
                                               std::declval<Scope&>()))::value_type;

} // namespace detail
ASYNCIO_END_NAMESPACE
