// SPDX-License-Identifier: MIT
// What an exception_ptr holds, without throwing it.
#pragma once

#include <asyncio/exceptions.hpp>

#include <exception>
#include <typeinfo>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

// Whether it holds an E, which must be final: so the type itself tells.
template <class E> bool is_a(const std::exception_ptr& exception) noexcept {
    if (exception == nullptr) return false;
#ifdef __cpp_rtti
    const std::type_info* type = exception.__cxa_exception_type();
    return type != nullptr && *type == typeid(E);
#else
    try {
        std::rethrow_exception(exception);
    } catch (const E&) {
        return true;
    } catch (...) {
        return false;
    }
#endif
}

inline bool is_interrupt(const std::exception_ptr& exception) noexcept {
    return is_a<KeyboardInterrupt>(exception) || is_a<SystemExit>(exception);
}

} // namespace detail
ASYNCIO_END_NAMESPACE
