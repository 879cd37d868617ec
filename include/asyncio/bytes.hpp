// SPDX-License-Identifier: MIT
// What is sent and received: bytes that somebody else keeps.
//
// A function that takes ReadableBytes takes a string, a literal, or a contiguous range of char,
// std::byte or unsigned char; one that takes WritableBytes, a range of these that is not const.
// What is given must stay where it is until the await is over. Bytes that are received come as a
// std::string. (bytes, memoryview)
//
//     "a\0b"            3 bytes: a literal is what stands in it, zeros included, as b"a\0b" is
//     char buffer[16]   16 bytes, whatever is in them; so is std::array<char, 16>
//     const char* text  up to the first zero
//
// An array of const char is taken for a literal: a zero at its end does not count. Who has a C
// string in an array says std::string_view(buffer), and whose const array ends in a zero that
// counts, std::span(array).
#pragma once

#include <asyncio/detail/config.hpp>

#include <concepts>
#include <cstddef>
#include <ranges>
#include <span>
#include <string_view>
#include <type_traits>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

template <class T>
concept ByteLike = std::same_as<T, char> || std::same_as<T, std::byte> ||
                   std::same_as<T, unsigned char> || std::same_as<T, char8_t>;
template <class R>
concept ByteRange = std::ranges::contiguous_range<R> && std::ranges::sized_range<R> &&
                    ByteLike<std::remove_cv_t<std::ranges::range_value_t<R>>>;

constexpr const char* chars_of(const char* bytes) noexcept { return bytes; }
template <ByteLike Byte> const char* chars_of(const Byte* bytes) noexcept {
    return reinterpret_cast<const char*>(bytes);
}
// How many of an array's bytes count: of a literal not the zero that ends it.
template <class Byte, std::size_t size>
constexpr std::size_t bytes_in(const Byte (&array)[size], bool is_const) noexcept {
    constexpr bool is_text = std::same_as<Byte, char> || std::same_as<Byte, char8_t>;
    return is_text && is_const && array[size - 1] == Byte{} ? size - 1 : size;
}

} // namespace detail

class ReadableBytes {
  public:
    constexpr ReadableBytes() noexcept = default;
    constexpr ReadableBytes(std::string_view text) noexcept : bytes_(text) {}
    // A template, so that it is no better for an array than those below.
    template <class Pointer>
        requires(std::same_as<Pointer, const char*> || std::same_as<Pointer, char*>)
    constexpr ReadableBytes(const Pointer& text) noexcept : bytes_(text) {}
    template <class Byte, std::size_t size>
        requires(detail::ByteLike<std::remove_const_t<Byte>>)
    constexpr ReadableBytes(Byte (&array)[size]) noexcept
        : bytes_(detail::chars_of(array), detail::bytes_in(array, std::is_const_v<Byte>)) {}
    constexpr ReadableBytes(const char* data, std::size_t size) noexcept : bytes_(data, size) {}
    template <class R>
        requires(detail::ByteRange<const R> && !std::is_array_v<R>)
    ReadableBytes(const R& range) noexcept
        : bytes_(reinterpret_cast<const char*>(std::ranges::data(range)),
                 std::ranges::size(range)) {}

    constexpr const char* data() const noexcept { return bytes_.data(); }
    constexpr std::size_t size() const noexcept { return bytes_.size(); }
    constexpr bool empty() const noexcept { return bytes_.empty(); }
    constexpr operator std::string_view() const noexcept { return bytes_; }

  private:
    std::string_view bytes_;
};

class WritableBytes {
  public:
    constexpr WritableBytes() noexcept = default;
    constexpr WritableBytes(char* data, std::size_t size) noexcept : bytes_(data, size) {}
    template <class R>
        requires(detail::ByteRange<R> &&
                 !std::is_const_v<std::remove_reference_t<std::ranges::range_reference_t<R>>> &&
                 (std::is_lvalue_reference_v<R> || std::ranges::borrowed_range<R>))
    // NOLINTNEXTLINE(cppcoreguidelines-missing-std-forward): what it refers to is written to
    WritableBytes(R&& range) noexcept
        : bytes_(reinterpret_cast<char*>(std::ranges::data(range)), std::ranges::size(range)) {}

    constexpr char* data() const noexcept { return bytes_.data(); }
    constexpr std::size_t size() const noexcept { return bytes_.size(); }
    constexpr bool empty() const noexcept { return bytes_.empty(); }
    constexpr operator std::span<char>() const noexcept { return bytes_; }

  private:
    std::span<char> bytes_;
};

ASYNCIO_END_NAMESPACE
