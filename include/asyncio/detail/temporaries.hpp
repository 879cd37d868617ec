// SPDX-License-Identifier: MIT
// A compiler bug that every function which may stand in an awaited expression must get round.
//
// GCC 12 destroys a temporary closure or aggregate twice if it owns something and stands in one
// full expression with a co_await; GCC 13.3, GCC 14 and Clang are right. What can see such a
// temporary refuses it there: see tests/compile_fail/temporaries.cpp and tests/traps.cpp.
#pragma once

#include <asyncio/detail/config.hpp>

#include <cstddef>
#include <string_view>
#include <type_traits>

#if !defined(ASYNCIO_DESTROYS_TEMPORARIES_TWICE)
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 13
#define ASYNCIO_DESTROYS_TEMPORARIES_TWICE 1
#else
#define ASYNCIO_DESTROYS_TEMPORARIES_TWICE 0
#endif
#endif

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

// Whether T is a lambda's type, by its name: "... [with T = main()::<lambda()>]".
template <class T> consteval bool is_closure() {
    std::string_view name = __PRETTY_FUNCTION__;
    if (!name.ends_with(">]")) return false;
    name.remove_suffix(1);
    // Names of operators and of characters have brackets without a partner: then rather refuse.
    if (name.find("operator<") != name.npos || name.find("operator>") != name.npos ||
        name.find('\'') != name.npos) {
        return name.find("<lambda") != name.npos;
    }
    int depth = 0;
    for (std::size_t i = name.size(); i-- > 0;) {
        const char c = name[i];
        if (c == '>' || c == ')') ++depth;
        if (c == '<' || c == '(') --depth;
        if (depth == 0) return name.substr(i).starts_with("<lambda");
    }
    return false;
}

// A temporary that an affected compiler would destroy twice.
template <class T> consteval bool is_unsafe_temporary() {
#if ASYNCIO_DESTROYS_TEMPORARIES_TWICE
    using Plain = std::remove_cvref_t<T>;
    if constexpr (std::is_lvalue_reference_v<T> || !std::is_class_v<Plain>) {
        return false;
    } else if constexpr (std::is_trivially_destructible_v<Plain>) {
        return false;
    } else {
        return std::is_aggregate_v<Plain> || is_closure<Plain>();
    }
#else
    return false;
#endif
}

template <class... T> consteval bool any_unsafe_temporary() {
    return (false || ... || is_unsafe_temporary<T>());
}

} // namespace detail
ASYNCIO_END_NAMESPACE

// Forwarding references as template arguments: F is an lvalue reference for a named object.
#define ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(...)                                                     \
    static_assert(                                                                                 \
        !::asyncio::detail::any_unsafe_temporary<__VA_ARGS__>(),                                   \
        "this compiler (GCC before 13) destroys a temporary lambda or aggregate that owns "        \
        "something twice if a co_await stands in the same expression: name it first and pass it "  \
        "as it is (auto f = [p] {...}; create_task(f)), or with asyncio::moved(f) to move it in; " \
        "or pass a lambda without owning captures and give it what it needs as arguments")
