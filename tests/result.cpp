// SPDX-License-Identifier: MIT
#include <asyncio/result.hpp>

#include <gtest/gtest.h>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

using asyncio::Result;

namespace {
template <class T> Result<T> failed(const char* text) {
    return Result<T>(std::make_exception_ptr(std::runtime_error(text)));
}
} // namespace

TEST(Result, holds_a_value) {
    Result<std::string> result = std::string("abc");
    EXPECT_TRUE(result.has_value());
    EXPECT_TRUE(static_cast<bool>(result));
    EXPECT_EQ(result.exception(), nullptr);
    EXPECT_EQ(result.value(), "abc");
    EXPECT_EQ(*result, "abc");
    result.value() += "d";
    const Result<std::string>& constant = result;
    EXPECT_EQ(constant.value(), "abcd");
    static_assert(std::is_same_v<decltype(constant.value()), const std::string&>);
    static_assert(std::is_same_v<decltype(result.value()), std::string&>);
    EXPECT_FALSE(result.failed_with<std::exception>());
}

TEST(Result, holds_an_exception_and_throws_it_as_often_as_asked) {
    auto result = failed<int>("x");
    EXPECT_FALSE(result.has_value());
    EXPECT_FALSE(static_cast<bool>(result));
    EXPECT_NE(result.exception(), nullptr);
    EXPECT_THROW(static_cast<void>(result.value()), std::runtime_error);
    EXPECT_THROW(static_cast<void>(*result), std::runtime_error);
    EXPECT_THROW(static_cast<void>(std::move(result).value()), std::runtime_error);
    EXPECT_TRUE(result.failed_with<std::exception>()); // NOLINT(bugprone-use-after-move)
    EXPECT_TRUE(result.failed_with<std::runtime_error>());
    EXPECT_FALSE(result.failed_with<std::logic_error>());
}

TEST(Result, tells_a_cancel_and_things_that_are_no_exceptions) {
    const Result<int> cancelled(std::make_exception_ptr(asyncio::CancelledError("c")));
    EXPECT_TRUE(cancelled.failed_with<asyncio::CancelledError>());
    EXPECT_FALSE(cancelled.failed_with<std::exception>());
    const Result<int> odd(std::make_exception_ptr(42));
    EXPECT_TRUE(odd.failed_with<int>());
    EXPECT_FALSE(odd.failed_with<std::exception>());
}

TEST(Result, of_nothing) {
    const Result<> good;
    EXPECT_TRUE(good.has_value());
    static_assert(std::is_void_v<decltype(good.value())>);
    EXPECT_NO_THROW(good.value());
    const auto bad = failed<void>("x");
    EXPECT_FALSE(bad);
    EXPECT_THROW(bad.value(), std::runtime_error);
    EXPECT_THROW(failed<void>("y").value(), std::runtime_error);
}

TEST(Result, of_a_reference_gives_the_object_itself) {
    int object = 1;
    const Result<int&> result(object);
    EXPECT_EQ(&result.value(), &object);
    EXPECT_EQ(&*result, &object);
    EXPECT_EQ(&Result<int&>(object).value(), &object);
    static_assert(std::is_same_v<decltype(result.value()), int&>);
    EXPECT_THROW(static_cast<void>(failed<int&>("x").value()), std::runtime_error);
}

TEST(Result, of_what_can_only_be_moved) {
    Result<std::unique_ptr<int>> result = std::make_unique<int>(5);
    auto other = std::move(result);
    const std::unique_ptr<int> value = std::move(other).value();
    EXPECT_EQ(*value, 5);
    static_assert(!std::is_copy_constructible_v<Result<std::unique_ptr<int>>>);
    static_assert(std::is_move_constructible_v<Result<std::unique_ptr<int>>>);
}

TEST(Result, copies_share_the_exception) {
    const auto a = failed<int>("x");
    const auto b = a; // NOLINT(performance-unnecessary-copy-initialization)
    EXPECT_EQ(a.exception(), b.exception());
}

TEST(Result, is_made_from_what_its_value_is_made_from) {
    const Result<std::string> text = "abc";
    EXPECT_EQ(text.value(), "abc");
    static_assert(!std::is_constructible_v<Result<std::string>, int*>);
    static_assert(!std::is_default_constructible_v<Result<int>>);
    // Not a failure taken for `true`, or for `false`.
    static_assert(!std::is_convertible_v<Result<int>, Result<bool>>);
    static_assert(!std::is_convertible_v<Result<int>, bool>);
}

// Containers say of themselves that they can be copied, whatever is in them.
static_assert(asyncio::detail::is_copyable<std::vector<int>>);
static_assert(!asyncio::detail::is_copyable<std::vector<std::unique_ptr<int>>>);
static_assert(!asyncio::detail::is_copyable<std::map<int, std::unique_ptr<int>>>);
static_assert(!asyncio::detail::is_copyable<std::vector<std::vector<std::unique_ptr<int>>>>);
static_assert(
    !asyncio::detail::is_copyable<std::tuple<int, std::vector<Result<std::unique_ptr<int>>>>>);
static_assert(asyncio::detail::is_copyable<std::vector<Result<void>>>);
static_assert(asyncio::detail::is_copyable<std::map<std::string, std::vector<int>>>);
