// SPDX-License-Identifier: MIT
#include <asyncio/bytes.hpp>
#include <gtest/gtest.h>

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <string_view>
#include <vector>

using asyncio::ReadableBytes;
using asyncio::WritableBytes;
using namespace std::string_literals;

namespace {

std::string text(ReadableBytes bytes) { return std::string(std::string_view(bytes)); }

template <class T>
concept Readable = std::convertible_to<T, ReadableBytes>;
template <class T>
concept Writable = std::convertible_to<T, WritableBytes>;

// What must not be taken: numbers of more than a byte, what is not contiguous, what is no memory.
static_assert(!Readable<std::vector<int>> && !Readable<std::vector<std::int8_t>> &&
              !Readable<std::vector<bool>> && !Readable<std::deque<char>> && !Readable<int> &&
              !Readable<std::u16string> && !Readable<void*> && !Readable<std::nullptr_t> &&
              !Readable<const int (&)[4]>);
// Nor what cannot be written to, or is gone when the await begins.
static_assert(!Writable<const std::string&> && !Writable<std::string> &&
              !Writable<std::string_view> && !Writable<std::span<const char>> &&
              !Writable<std::vector<char>> && !Writable<const std::array<char, 3>&> &&
              !Writable<std::vector<int>&> && !Writable<const char*> &&
              !Writable<const char (&)[4]>);
static_assert(Writable<std::string&> && Writable<std::vector<std::byte>&> &&
              Writable<std::span<char>> && Writable<std::span<unsigned char>&> &&
              Writable<std::array<std::byte, 3>&> && Writable<char (&)[4]> &&
              Writable<unsigned char (&)[4]> && Writable<const std::span<char>&>);

} // namespace

TEST(Bytes, are_read_from_all_that_is_made_of_them) {
    EXPECT_EQ(text("literal"), "literal");
    EXPECT_EQ(text("with\0zero"s), "with\0zero"s);
    EXPECT_EQ(text(std::string_view("view")), "view");
    const std::vector<std::byte> bytes = {std::byte{'a'}, std::byte{0}, std::byte{0xff}};
    EXPECT_EQ(text(bytes), "a\0\xff"s);
    EXPECT_EQ(text(std::vector<unsigned char>{'a', 'b'}), "ab");
    const std::array<char, 2> array = {'x', 'y'};
    EXPECT_EQ(text(array), "xy");
    EXPECT_EQ(text(std::span<const char>(array).first(1)), "x");
    EXPECT_EQ(text(std::span<const std::byte>(bytes).subspan(2)), "\xff");
    EXPECT_EQ(text(std::u8string(u8"\u00e4")), "\xc3\xa4");
    EXPECT_EQ(text({array.data(), 2}), "xy");
    EXPECT_EQ(text({}), "");
    EXPECT_EQ(text(std::vector<char>()), "");
    EXPECT_TRUE(ReadableBytes("").empty());
    EXPECT_EQ(ReadableBytes("abc").size(), 3U);
    const std::string kept = "stays";
    EXPECT_EQ(ReadableBytes(kept).data(), kept.data());
}

// As b"a\0b" in Python.
TEST(Bytes, of_a_literal_are_what_stands_in_it) {
    static_assert(ReadableBytes("abc").size() == 3 && ReadableBytes("").empty());
    EXPECT_EQ(text("a\0b"), "a\0b"s);
    EXPECT_EQ(text("\0"), "\0"s);
    EXPECT_EQ(text("ends\0"), "ends\0"s);
    EXPECT_EQ(text(u8"\u00e4"), "\xc3\xa4");
    const char without_zero[3] = {'a', '\0', 'c'};
    EXPECT_EQ(text(without_zero), "a\0c"s);
    constexpr ReadableBytes constant("x\0y");
    EXPECT_EQ(constant.size(), 3U);
}

TEST(Bytes, of_an_array_are_all_of_it_and_of_a_c_string_those_before_its_zero) {
    char buffer[5] = {'a', '\0', 'b'};
    EXPECT_EQ(text(buffer), "a\0b\0\0"s);
    EXPECT_EQ(text(buffer).size(), WritableBytes(buffer).size());
    EXPECT_EQ(ReadableBytes(buffer).data(), buffer);
    char8_t utf8[2] = {u8'a', 0};
    EXPECT_EQ(text(utf8), "a\0"s);
    const unsigned char numbers[3] = {1, 2, 0};
    EXPECT_EQ(text(numbers), "\1\2\0"s);
    std::byte bytes[2] = {};
    EXPECT_EQ(text(bytes), "\0\0"s);
    const std::array<char, 3> array = {'x', 0, 0};
    EXPECT_EQ(text(array), "x\0\0"s);
    const char ends_in_zero[2] = {'a', 0};
    EXPECT_EQ(text(std::span(ends_in_zero)), "a\0"s);

    const char* const c_string = "a\0b";
    EXPECT_EQ(text(c_string), "a");
    char* const writable = buffer;
    EXPECT_EQ(text(writable), "a");
    EXPECT_EQ(text(std::string_view(buffer)), "a");
}

TEST(Bytes, are_written_to_what_stays) {
    const auto fill = [](WritableBytes bytes) {
        std::size_t count = 0;
        for (char& byte : std::span<char>(bytes)) byte = static_cast<char>('a' + count++);
        return bytes.size();
    };
    std::string string(3, ' ');
    EXPECT_EQ(fill(string), 3U);
    EXPECT_EQ(string, "abc");
    std::vector<std::byte> bytes(2);
    EXPECT_EQ(fill(bytes), 2U);
    EXPECT_EQ(bytes[1], std::byte{'b'});
    std::array<unsigned char, 4> array = {};
    EXPECT_EQ(fill(array), 4U);
    EXPECT_EQ(array[3], 'd');
    char plain[5] = {};
    EXPECT_EQ(fill(plain), 5U);
    EXPECT_EQ(plain[4], 'e');
    EXPECT_EQ(fill(std::span<char>(plain).subspan(3)), 2U);
    EXPECT_EQ(plain[3], 'a');
    EXPECT_EQ(fill({plain, 1}), 1U);
    EXPECT_EQ(fill({}), 0U);
    EXPECT_TRUE(WritableBytes().empty());
}
