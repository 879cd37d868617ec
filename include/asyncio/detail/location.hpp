// SPDX-License-Identifier: MIT
// Places in source files, and the names of functions and types, as people read them in reports.
#pragma once

#include <asyncio/detail/config.hpp>

#include <bit>
#include <source_location>
#include <string>
#include <string_view>
#include <typeinfo>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

// A std::source_location as the pointer that it is, in both our compilers.
class Location {
  public:
    Location() = default;
    explicit Location(const void* pointer) noexcept : pointer_(pointer) {}
    Location(std::source_location where) noexcept : pointer_(std::bit_cast<const void*>(where)) {}
    std::source_location get() const noexcept {
        return std::bit_cast<std::source_location>(pointer_);
    }
    const void* pointer() const noexcept { return pointer_; }
    // "file.cpp:12"
    ASYNCIO_API std::string text() const;
    // "shop::Cart::pay"
    ASYNCIO_API std::string function() const;

  private:
    const void* pointer_ = nullptr;
};

// What compilers write for a function, cut to its qualified name: without the types of result and
// parameters, template arguments, and the names of anonymous and inline namespaces of ours. A
// lambda in f is "f::<lambda>". The same for a coroutine, and on both our compilers.
ASYNCIO_API std::string readable_function(std::string_view name);
// "asyncio::TimeoutError"
ASYNCIO_API std::string readable_type(const std::type_info& type);

} // namespace detail
ASYNCIO_END_NAMESPACE
