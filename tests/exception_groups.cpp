// SPDX-License-Identifier: MIT
#include <asyncio/exception_groups.hpp>
#include <asyncio/exceptions.hpp>

#include "support/in_virtual_time.hpp"

#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

using asyncio::CancelledError;
using asyncio::ExceptionGroup;
using asyncio::ValueError;
using asyncio_test::text_of;
using asyncio_test::thrown_by;

namespace {

template <class E> std::exception_ptr made(E exception) {
    return std::make_exception_ptr(exception);
}

// "message[ValueError: a, inner[...]]"
std::string shape(const ExceptionGroup& group) {
    std::string text = group.message() + "[";
    for (const std::exception_ptr& exception : group) {
        if (text.back() != '[') text += ", ";
        try {
            std::rethrow_exception(exception);
        } catch (const ExceptionGroup& inner) {
            text += shape(inner);
        } catch (...) {
            text += text_of(exception);
        }
    }
    return text + "]";
}
std::string shape(const std::optional<ExceptionGroup>& group) {
    return group ? shape(*group) : "nothing";
}

ExceptionGroup tree() {
    const ExceptionGroup inner("inner", {made(ValueError("b")), made(std::runtime_error("c"))});
    return {"outer", {made(ValueError("a")), made(inner), made(std::logic_error("d"))}};
}

} // namespace

TEST(ExceptionGroup, shows_its_tree) {
    EXPECT_STREQ(tree().what(), "outer (3 sub-exceptions)\n"
                                "  + asyncio::ValueError: a\n"
                                "  + asyncio::ExceptionGroup: inner (2 sub-exceptions)\n"
                                "      + asyncio::ValueError: b\n"
                                "      + std::runtime_error: c\n"
                                "  + std::logic_error: d");
    const ExceptionGroup odd("odd", {made(42), made(CancelledError("stop")),
                                     made(asyncio::KeyboardInterrupt()),
                                     made(asyncio::SystemExit(3)), made(ValueError("two\nlines"))});
    EXPECT_STREQ(odd.what(), "odd (5 sub-exceptions)\n"
                             "  + int\n"
                             "  + asyncio::CancelledError: stop\n"
                             "  + asyncio::KeyboardInterrupt\n"
                             "  + asyncio::SystemExit: 3\n"
                             "  + asyncio::ValueError: two\n"
                             "    lines");
    EXPECT_STREQ(ExceptionGroup("one", {made(ValueError(""))}).what(),
                 "one (1 sub-exception)\n  + asyncio::ValueError");
}

TEST(ExceptionGroup, is_refused_without_exceptions) {
    EXPECT_EQ(thrown_by([] { return ExceptionGroup("x", {}); }).substr(0, 10), "ValueError");
    EXPECT_EQ(thrown_by([] { return ExceptionGroup("x", {nullptr}); }).substr(0, 10), "ValueError");
}

TEST(ExceptionGroup, gives_what_it_holds) {
    const ExceptionGroup group = tree();
    EXPECT_EQ(group.size(), 3U);
    EXPECT_EQ(group.message(), "outer");
    EXPECT_EQ(text_of(group.exceptions().front()), "ValueError: a");
    try {
        throw group;
    } catch (const std::exception& error) {
        EXPECT_STREQ(error.what(), group.what());
    }
}

// The results are CPython's.
TEST(ExceptionGroup, splits_by_type_and_keeps_the_nesting) {
    const auto parts = tree().split<ValueError>();
    EXPECT_EQ(shape(parts.matching), "outer[ValueError: a, inner[ValueError: b]]");
    EXPECT_EQ(shape(parts.rest), "outer[inner[exception: c], exception: d]");

    const auto logic = tree().split<std::logic_error>(); // ValueError is one, too
    EXPECT_EQ(shape(logic.matching), "outer[ValueError: a, inner[ValueError: b], exception: d]");
    EXPECT_EQ(shape(logic.rest), "outer[inner[exception: c]]");

    const auto all = tree().split<std::exception>(); // so is the group itself
    EXPECT_EQ(shape(all.matching), shape(tree()));
    EXPECT_EQ(shape(all.rest), "nothing");

    const auto none = tree().split<std::system_error>();
    EXPECT_EQ(shape(none.matching), "nothing");
    EXPECT_EQ(shape(none.rest), shape(tree()));
    EXPECT_EQ(shape(tree().subgroup<std::runtime_error>()), "outer[inner[exception: c]]");
}

TEST(ExceptionGroup, splits_by_a_predicate_that_sees_groups_first) {
    std::vector<std::string> seen;
    const auto parts = tree().split([&](const std::exception_ptr& exception) {
        const std::string text = text_of(exception);
        seen.push_back(text.substr(0, text.find(" (")));
        return text.find("inner (2") == text.find(':') + 2;
    });
    EXPECT_EQ(seen, (std::vector<std::string>{"exception: outer", "ValueError: a",
                                              "exception: inner", "exception: d"}));
    EXPECT_EQ(shape(parts.matching), "outer[inner[ValueError: b, exception: c]]");
    EXPECT_EQ(shape(parts.rest), "outer[ValueError: a, exception: d]");
    EXPECT_EQ(shape(tree().subgroup([](const std::exception_ptr&) { return false; })), "nothing");
}
