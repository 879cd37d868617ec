// SPDX-License-Identifier: MIT
#include <asyncio/asyncio.hpp>
#include <asyncio/detail/location.hpp>
#include <gtest/gtest.h>

#include <map>
#include <source_location>
#include <string>
#include <typeinfo>

using asyncio::Coro;
using asyncio::detail::Location;
using asyncio::detail::readable_function;
using asyncio::detail::readable_type;

namespace shop {

struct Cart {
    Coro<> pay(int) { co_return; }
    Coro<int> operator()(int) const { co_return 1; }
    static Coro<> close(const std::string&) { co_return; }
};
// NOLINTNEXTLINE(cppcoreguidelines-avoid-reference-coroutine-parameters): never run
Coro<> operator<(const Cart&, int) { co_return; }
template <class T> Coro<T> copy(T value, std::map<std::string, int>) { co_return value; }

namespace {
Coro<void (*)(int)> hidden(std::string) { co_return nullptr; }
template <class T> Coro<> in_template() {
    const auto inner = [](T) -> Coro<> { co_return; };
    return inner(T());
}
} // namespace
} // namespace shop

namespace {

// The name that reports give to the function of a coroutine.
template <class T> std::string name_of(Coro<T> coroutine) {
    const auto frame = coroutine.take();
    const std::string name = frame.promise().where.function();
    frame.destroy();
    return name;
}

struct Failure {};

} // namespace

TEST(Location, names_the_function_of_a_coroutine_without_types) {
    EXPECT_EQ(name_of(shop::Cart().pay(1)), "shop::Cart::pay");
    EXPECT_EQ(name_of(shop::Cart()(1)), "shop::Cart::operator()");
    EXPECT_EQ(name_of(shop::Cart::close("")), "shop::Cart::close");
    EXPECT_EQ(name_of(shop::Cart() < 1), "shop::operator<");
    EXPECT_EQ(name_of(shop::copy<std::string>("", {})), "shop::copy");
    EXPECT_EQ(name_of(shop::hidden("")), "shop::hidden");
}

TEST(Location, names_the_function_around_a_lambda) {
    const std::string here = "Location_names_the_function_around_a_lambda_Test::TestBody";
    int captured = 0;
    const auto capturing = [&captured](int, std::string) -> Coro<int> { co_return captured; };
    const auto generic = [](auto value) -> Coro<> {
        static_cast<void>(value);
        co_return;
    };
    const auto outer = [] {
        const auto inner = []() -> Coro<> { co_return; };
        return inner();
    };
    EXPECT_EQ(name_of(capturing(1, "")), here + "::<lambda>");
    EXPECT_EQ(name_of(generic(std::map<int, int>())), here + "::<lambda>");
    EXPECT_EQ(name_of(outer()), here + "::<lambda>::<lambda>");
    EXPECT_EQ(name_of(shop::in_template<int>()), "shop::in_template::<lambda>");
}

TEST(Location, keeps_a_name_that_it_cannot_read) {
    EXPECT_EQ(readable_function("main"), "main");
    EXPECT_EQ(readable_function(""), "");
    EXPECT_EQ(readable_function("<<<"), "<<<");
    EXPECT_EQ(readable_function("int f(("), "f");
    EXPECT_EQ(readable_function("decltype(auto) a::f(int)"), "a::f");
    EXPECT_EQ(readable_function("int *f(int)"), "f");
    EXPECT_EQ(readable_function("A::operator bool() const"), "A::operator bool");
    EXPECT_EQ(readable_function("auto A::f(T) const & [T = a::B<int>]"), "A::f");
    EXPECT_EQ(readable_function("void f(T) [with T = a::B<int>]"), "f");
    EXPECT_EQ(readable_function("void operators_of(int)"), "operators_of");
}

TEST(Location, names_types_without_what_only_linkers_need) {
    EXPECT_EQ(readable_type(typeid(asyncio::RuntimeError)), "asyncio::RuntimeError");
    EXPECT_EQ(readable_type(typeid(Failure)), "Failure");
    EXPECT_EQ(readable_type(typeid(int)), "int");
}

TEST(Location, is_a_file_and_a_line) {
    const Location here = std::source_location::current();
    EXPECT_TRUE(here.text().ends_with("location.cpp:" + std::to_string(__LINE__ - 1)));
}
