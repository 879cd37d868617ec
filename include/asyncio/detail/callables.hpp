// SPDX-License-Identifier: MIT
// Callables that make coroutines: how they are kept alive, and which awaitables become tasks.
#pragma once

#include <asyncio/coroutine.hpp>

#include <concepts>
#include <cstddef>
#include <tuple>
#include <type_traits>
#include <utility>

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
    if constexpr (std::is_enum_v<A>) {
        co_return co_await awaitable;
    } else {
        co_return co_await MoveFrom<A>{awaitable};
    }
}

} // namespace detail

// Passes a named callable to create_task and its like by moving from it: for compilers on which a
// temporary one is refused. `auto f = [p = std::move(p)] {...}; co_await create_task(moved(f));`
template <class F> detail::Moved<F> moved(F& function) { return detail::Moved<F>(function); }

ASYNCIO_END_NAMESPACE
