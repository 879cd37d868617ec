// SPDX-License-Identifier: MIT
// as_result: awaits without throwing.
//
//     asyncio::Result<int> result = co_await asyncio::as_result(fetch(url));
//     if (!result) ...    // result.exception() is what fetch threw
//
// An exception that goes through frames costs more than a microsecond for each; as a Result it
// costs nothing of that. Catches everything that is awaited, CancelledError too: pass that on by
// result.value(). Thrown is what is wrong before the await: an empty handle, a coroutine used up.
#pragma once

#include <asyncio/detail/callables.hpp>

#include <concepts>
#include <coroutine>
#include <exception>
#include <source_location>
#include <type_traits>
#include <utility>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

template <class W> class ResultAwaiter {
  public:
    using AsyncioAwaiter = void;
    // A foreign awaiter may throw before it waits, and may give an rvalue reference.
    static constexpr bool is_foreign = std::derived_from<std::remove_reference_t<W>, ForeignWait>;
    using T = WithoutRvalueReference<
        decltype(std::declval<std::remove_reference_t<W>&>().await_resume())>;

    template <class Make> explicit ResultAwaiter(Make make) : awaiter_(make()) {}

    bool await_ready() {
        if constexpr (is_foreign) {
            try {
                return awaiter_.await_ready();
            } catch (...) {
                failure_ = std::current_exception();
                return true;
            }
        } else {
            return awaiter_.await_ready();
        }
    }
    template <std::derived_from<PromiseBase> Promise>
    auto await_suspend(std::coroutine_handle<Promise> frame,
                       std::source_location where = std::source_location::current()) {
        if constexpr (is_foreign) {
            try {
                return awaiter_.await_suspend(frame, where);
            } catch (...) {
                failure_ = std::current_exception();
                return false;
            }
        } else {
            return awaiter_.await_suspend(frame, where);
        }
    }
    Result<T> await_resume() {
        if constexpr (is_foreign) {
            if (failure_ != nullptr) return Result<T>(std::move(failure_));
        }
        try {
            if constexpr (requires { awaiter_.take_result(); }) {
                return awaiter_.take_result(); // throws if moving the value does, or it is taken
            } else if constexpr (std::is_void_v<T>) {
                awaiter_.await_resume();
                return {};
            } else {
                return Result<T>(awaiter_.await_resume());
            }
        } catch (...) {
            return Result<T>(std::current_exception());
        }
    }

  private:
    struct Nothing {};

    W awaiter_;
    [[no_unique_address]] std::conditional_t<is_foreign, std::exception_ptr, Nothing> failure_ = {};
};

// What PromiseBase::await_transform makes of an awaitable.
template <class A>
using TransformedAwaiter =
    decltype(std::declval<const PromiseBase&>().await_transform(std::declval<A>()));

template <class A> class [[nodiscard("nothing is awaited without co_await")]] AsResult {
  public:
    explicit AsResult(A&& awaitable) : awaitable_(std::forward<A>(awaitable)) {}
    auto operator co_await() && {
        using W = TransformedAwaiter<A>;
        return ResultAwaiter<W>(
            [this]() -> W { return PromiseBase().await_transform(std::forward<A>(awaitable_)); });
    }

  private:
    A awaitable_;
};

} // namespace detail

// Awaits a Coro, a task, a future or another awaitable, and gives its Result.
template <detail::Awaitable A> detail::AsResult<A> as_result(A&& awaitable) {
    ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(A);
    return detail::AsResult<A>(std::forward<A>(awaitable));
}

ASYNCIO_END_NAMESPACE
