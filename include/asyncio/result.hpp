// SPDX-License-Identifier: MIT
// A value, or the exception that came instead of it.
//
// `gather(return_exceptions, ...)` gives Results, and `as_result(awaitable)` turns an exception
// into one without unwinding the stack, which makes failures and cancellations cheap on hot paths.
#pragma once

#include <asyncio/exceptions.hpp>

#include <exception>
#include <memory>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

// How a result of type T is kept.
template <class T> struct Storage {
    using Type = std::remove_cv_t<T>;
};
template <> struct Storage<void> {
    using Type = std::monostate;
};
template <class T> struct Storage<T&> {
    using Type = T*;
};
template <class T> struct Storage<T&&> { // refused where it is used
    using Type = T*;
};
template <class T> using Stored = typename Storage<T>::Type;

// Whether a T can be copied. A container says that it can whatever it contains, and fails to
// compile if it is; so this looks into those of the standard library.
template <class T> inline constexpr bool is_copyable = std::is_copy_constructible_v<T>;
template <class T>
    requires requires {
        typename T::value_type;
        typename T::allocator_type;
    }
inline constexpr bool is_copyable<T> =
    std::is_copy_constructible_v<T> && is_copyable<typename T::value_type>;
template <class... T>
inline constexpr bool is_copyable<std::tuple<T...>> = (true && ... && is_copyable<T>);
template <class... T>
inline constexpr bool is_copyable<std::variant<T...>> = (true && ... && is_copyable<T>);
template <class A, class B>
inline constexpr bool is_copyable<std::pair<A, B>> = is_copyable<A> && is_copyable<B>;
template <class T> inline constexpr bool is_copyable<std::optional<T>> = is_copyable<T>;
template <class T> inline constexpr bool is_copyable<const T> = is_copyable<T>;

} // namespace detail

template <class T = void> class Result;

namespace detail {
template <class T> inline constexpr bool is_result = false;
template <class T> inline constexpr bool is_result<Result<T>> = true;
} // namespace detail

template <class T> class [[nodiscard]] Result {
  public:
    using value_type = T;
    static_assert(!std::is_same_v<T, std::exception_ptr>,
                  "a Result of a std::exception_ptr could not be told from a failure");

    // With a value: Result<int>(1), Result<void>(), Result<Session&>(session).
    Result()
        requires std::is_void_v<T>
        : value_(std::in_place) {}
    template <class U = T>
        requires(!std::is_void_v<T> && !std::is_reference_v<T> &&
                 std::is_constructible_v<T, U &&> &&
                 !std::is_same_v<std::remove_cvref_t<U>, Result> &&
                 !(std::is_same_v<T, bool> && detail::is_result<std::remove_cvref_t<U>>) &&
                 !std::is_same_v<std::remove_cvref_t<U>, std::exception_ptr>)
    Result(U&& value) : value_(std::in_place, std::forward<U>(value)) {}
    template <class U = T>
        requires std::is_lvalue_reference_v<U>
    Result(std::remove_reference_t<U>& value) : value_(std::in_place, std::addressof(value)) {}
    // With an exception, which must not be null.
    explicit Result(std::exception_ptr exception) noexcept : exception_(std::move(exception)) {}

    bool has_value() const noexcept { return value_.has_value(); }
    explicit operator bool() const noexcept { return has_value(); }
    // Null if there is a value.
    const std::exception_ptr& exception() const noexcept { return exception_; }

    // The value; throws the exception if there is none.
    decltype(auto) value() & { return get(*this); }
    decltype(auto) value() const& { return get(*this); }
    T value() && {
        check();
        if constexpr (std::is_lvalue_reference_v<T>) {
            return **value_;
        } else if constexpr (!std::is_void_v<T>) {
            return std::move(*value_);
        }
    }
    decltype(auto) operator*() & { return value(); }
    decltype(auto) operator*() const& { return value(); }
    T operator*() && { return std::move(*this).value(); }

    // Whether the exception is an Error. Costs an unwinding if there is an exception.
    template <class Error> bool failed_with() const {
        if (has_value()) return false;
        try {
            std::rethrow_exception(exception_);
        } catch (const Error&) {
            return true;
        } catch (...) {
            return false;
        }
    }

  private:
    void check() const {
        if (!has_value()) std::rethrow_exception(exception_);
    }
    template <class Self> static decltype(auto) get(Self& self) {
        self.check();
        if constexpr (std::is_lvalue_reference_v<T>) {
            return static_cast<T>(**self.value_);
        } else if constexpr (!std::is_void_v<T>) {
            return (*self.value_);
        }
    }

    std::optional<detail::Stored<T>> value_;
    std::exception_ptr exception_;
};

namespace detail {
template <class T>
inline constexpr bool is_copyable<Result<T>> = std::is_void_v<T> || is_copyable<Stored<T>>;
} // namespace detail

ASYNCIO_END_NAMESPACE
