// SPDX-License-Identifier: MIT
// What is sent and received: bytes that somebody else keeps.
//
// A function that takes ReadableBytes takes a string, a literal, or a contiguous range of char,
// std::byte or unsigned char; one that takes WritableBytes, a range of these that is not const.
// What is given must stay where it is until the await is over. Bytes that are received come as a
// std::string. (bytes, memoryview)
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

} // namespace detail

class ReadableBytes {
  public:
    constexpr ReadableBytes() noexcept = default;
    constexpr ReadableBytes(std::string_view text) noexcept : bytes_(text) {}
    constexpr ReadableBytes(const char* text) noexcept : bytes_(text) {}
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
