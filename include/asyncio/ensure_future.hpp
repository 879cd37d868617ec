// SPDX-License-Identifier: MIT
// ensure_future: makes a task of whatever can be awaited, unless it is a future already.
//
//     auto task = asyncio::ensure_future(fetch(url));     // a Task, as of create_task
//     auto same = asyncio::ensure_future(task);           // the same one
#pragma once

#include <asyncio/tasks.hpp>

#include <concepts>
#include <cstddef>
#include <source_location>
#include <type_traits>
#include <utility>
#include <vector>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

template <class T>
concept FutureHandle = std::derived_from<std::remove_cvref_t<T>, AnyFuture> &&
                       requires { typename std::remove_cvref_t<T>::value_type; };

// What can be awaited, or started by its call, and the type of its result.
template <class A> struct Started;
template <class A>
    requires is_coro<std::remove_cvref_t<A>> || FutureHandle<A>
struct Started<A> {
    using Type = typename std::remove_cvref_t<A>::value_type;
};
template <TaskableAwaitable A> struct Started<A> {
    using Type = AwaitResult<A>;
};
template <CoroutineFunction F> struct Started<F> {
    using Type = CoroutineResult<F>;
};
template <class A> using StartedType = typename Started<std::remove_cvref_t<A>>::Type;

template <class A>
concept Startable = requires { typename StartedType<A>; };

[[noreturn]] ASYNCIO_API void throw_not_of_loop(const FutureBase& future);

// `where` is that of the call, or null if it cannot be had. A coroutine is used up, also if it has
// a name.
template <class A> auto start_on(EventLoop& loop, A&& awaitable, Location where) {
    if constexpr (FutureHandle<A>) {
        if (&awaitable.state().loop() != &loop) throw_not_of_loop(awaitable.state());
        return std::remove_cvref_t<A>(std::forward<A>(awaitable));
    } else if constexpr (is_coro<std::remove_cvref_t<A>>) {
        return make_task(loop, awaitable, where);
    } else if constexpr (CoroutineFunction<A>) {
        return create_bound_task(loop, nullptr, std::forward<A>(awaitable));
    } else {
        auto coroutine = await_it(std::forward<A>(awaitable));
        return make_task(loop, coroutine, where);
    }
}

// Leaves out what is the same future as one before it.
ASYNCIO_API std::vector<bool> find_repeated(const std::vector<const FutureBase*>& futures);
template <class F> void drop_repeated(std::vector<F>& futures) {
    std::vector<const FutureBase*> states;
    states.reserve(futures.size());
    for (const F& future : futures) states.push_back(&future.state());
    const std::vector<bool> repeated = find_repeated(states);
    if (repeated.empty()) return;
    std::size_t kept = 0;
    for (std::size_t i = 0; i < futures.size(); ++i) {
        if (!repeated[i]) futures[kept++] = std::move(futures[i]);
    }
    futures.resize(kept);
}

// start_on the running loop.
template <class A> auto start_it(A&& awaitable, Location where) {
    if constexpr (FutureHandle<A>) {
        return std::remove_cvref_t<A>(std::forward<A>(awaitable));
    } else if constexpr (is_coro<std::remove_cvref_t<A>>) {
        return start_on(running_loop_for(awaitable), std::forward<A>(awaitable), where);
    } else {
        return start_on(get_running_loop(), std::forward<A>(awaitable), where);
    }
}

} // namespace detail

// A Future or Task as it is; a coroutine, a callable that makes one, or another awaitable as a new
// task of the running loop, or of the one that is given. Throws RuntimeError if no loop runs or it
// is closed (a coroutine is closed then), ValueError for a future of another loop than the one that
// is given. (asyncio.ensure_future)
template <detail::Startable A>
auto ensure_future(A&& awaitable, std::source_location created = std::source_location::current()) {
    ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(A);
    return detail::start_it(std::forward<A>(awaitable), created);
}
template <detail::Startable A>
auto ensure_future(EventLoop& loop, A&& awaitable,
                   std::source_location created = std::source_location::current()) {
    ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(A);
    return detail::start_on(loop, std::forward<A>(awaitable), created);
}

// Refused with a sentence.
template <int n = 0> detail::Refused ensure_future(detail::AnyArgument, detail::AnyArgument = 0) {
    static_assert(detail::never<n>,
                  "ensure_future takes a coroutine, a task, a future, another awaitable, or a "
                  "function without arguments that returns a coroutine; after a loop if one is "
                  "given");
    return {};
}

ASYNCIO_END_NAMESPACE
