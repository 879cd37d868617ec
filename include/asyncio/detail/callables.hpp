// SPDX-License-Identifier: MIT
// Callables that make coroutines: how they are kept alive, which awaitables become tasks, and what
// a compiler bug forbids.
#pragma once

#include <asyncio/coroutine.hpp>

#include <concepts>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

// GCC up to 12 destroys a temporary closure or aggregate twice if it owns something and stands in
// one full expression with a co_await. COMPILERS: found by tests/compile_fail and tests/traps.
#if !defined(ASYNCIO_DESTROYS_TEMPORARIES_TWICE)
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 13
#define ASYNCIO_DESTROYS_TEMPORARIES_TWICE 1
#else
#define ASYNCIO_DESTROYS_TEMPORARIES_TWICE 0
#endif
#endif

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

// A callable and its arguments, each kept as std::decay_t of what was given.
template <class F, class... Args> class KeptCall {
  public:
    template <class G, class... Given>
    explicit KeptCall(G&& function, Given&&... arguments)
        : function_(std::forward<G>(function)), arguments_(std::forward<Given>(arguments)...) {}

    // As std::apply would, of which Clang's lifetime checks want no coroutines.
    ASYNCIO_CORO_WRAPPER decltype(auto) call() {
        return call_with(std::index_sequence_for<Args...>());
    }

  private:
    template <std::size_t... I>
    ASYNCIO_CORO_WRAPPER decltype(auto) call_with(std::index_sequence<I...>) {
        if constexpr (std::is_member_function_pointer_v<F>) {
            return call_member(std::get<I>(std::move(arguments_))...);
        } else {
            return function_(std::get<I>(std::move(arguments_))...);
        }
    }
    template <class Object, class... Rest>
    ASYNCIO_CORO_WRAPPER decltype(auto) call_member(Object&& object, Rest&&... rest) {
        if constexpr (requires { ((*object).*function_)(std::forward<Rest>(rest)...); }) {
            return ((*object).*function_)(std::forward<Rest>(rest)...);
        } else if constexpr (requires { (object.get().*function_)(std::forward<Rest>(rest)...); }) {
            return (object.get().*function_)(std::forward<Rest>(rest)...);
        } else {
            return (std::forward<Object>(object).*function_)(std::forward<Rest>(rest)...);
        }
    }

    F function_;
    std::tuple<Args...> arguments_;
};

// The wrapper that moved() makes: a callable moved out of a named one.
template <class F> class Moved {
  public:
    explicit Moved(F& function) : function_(std::move(function)) {}
    template <class... Args>
    ASYNCIO_CORO_WRAPPER auto operator()(Args&&... arguments) -> std::invoke_result_t<F&, Args...> {
        return function_(std::forward<Args>(arguments)...);
    }

  private:
    F function_;
};

template <class F, class... Args>
inline constexpr bool gives_coroutine = [] {
    if constexpr (std::is_invocable_v<std::decay_t<F>&, std::decay_t<Args>&&...>) {
        return is_coro<
            std::remove_cvref_t<std::invoke_result_t<std::decay_t<F>&, std::decay_t<Args>&&...>>>;
    } else {
        return false;
    }
}();

// F(Args...) makes a coroutine.
template <class F, class... Args>
concept CoroutineFunction = gives_coroutine<F, Args...>;

template <class F, class... Args>
using CoroutineResult = typename std::remove_cvref_t<
    std::invoke_result_t<std::decay_t<F>&, std::decay_t<Args>&&...>>::value_type;

// Whether T is a lambda's type, by its name: "... [with T = main()::<lambda()>]".
template <class T> consteval bool is_closure() {
    std::string_view name = __PRETTY_FUNCTION__;
    const std::size_t begin = name.find("T = ");
    if (begin == std::string_view::npos) return false;
    name.remove_prefix(begin + 4);
    int depth = 0;
    std::size_t last_part = 0; // where the part after the last "::" outside of <> and () begins
    for (std::size_t i = 0; i < name.size(); ++i) {
        const char c = name[i];
        if (c == ';' || (c == ']' && depth == 0)) break;
        if (c == '<' || c == '(' || c == '[' || c == '{') ++depth;
        if (c == '>' || c == ')' || c == ']' || c == '}') --depth;
        if (depth == 0 && c == ':' && i + 1 < name.size() && name[i + 1] == ':') last_part = i + 2;
    }
    return name.substr(last_part).starts_with("<lambda");
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

// Forwarding references as template arguments: F is an lvalue reference for a named object.
#define ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(...)                                                     \
    static_assert(                                                                                 \
        !::asyncio::detail::any_unsafe_temporary<__VA_ARGS__>(),                                   \
        "this compiler (GCC before 13) destroys a temporary lambda or aggregate that owns "        \
        "something "                                                                               \
        "twice if a co_await stands in the same expression: name it first and pass it as it is "   \
        "(auto f = [p] {...}; create_task(f)), or with asyncio::moved(f) to move it in; or pass "  \
        "a "                                                                                       \
        "lambda without owning captures and give it what it needs as arguments")

template <class... T> consteval bool any_unsafe_temporary() {
    return (false || ... || is_unsafe_temporary<T>());
}

// An awaitable, other than a Coro or a future, that can become a task of its own.
template <class A>
concept TaskableAwaitable = Awaitable<A> && std::move_constructible<A> && !is_coro<A> &&
                            !requires(const A& future) { future.add_done_callback([] {}); };

// What `co_await std::declval<A>()` gives.
template <class A> decltype(auto) awaiter_of(A&& awaitable) {
    if constexpr (HasMemberCoAwait<A>) {
        return std::forward<A>(awaitable).operator co_await();
    } else if constexpr (HasFreeCoAwait<A>) {
        return operator co_await(std::forward<A>(awaitable));
    } else {
        return std::forward<A>(awaitable);
    }
}
// How a result is kept that some foreign awaiters give as an rvalue reference.
template <class T>
using WithoutRvalueReference =
    std::conditional_t<std::is_rvalue_reference_v<T>, std::remove_reference_t<T>, T>;
template <class A>
using AwaitResult = WithoutRvalueReference<
    decltype(std::declval<std::remove_reference_t<decltype(awaiter_of(std::declval<A>()))>&>()
                 .await_resume())>;

template <class A> Coro<AwaitResult<A>> await_it(A awaitable) {
    co_return co_await std::move(awaitable);
}

} // namespace detail

// Passes a named callable to create_task and its like by moving from it: for compilers on which a
// temporary one is refused. `auto f = [p = std::move(p)] {...}; co_await create_task(moved(f));`
template <class F> detail::Moved<F> moved(F& function) { return detail::Moved<F>(function); }

ASYNCIO_END_NAMESPACE
