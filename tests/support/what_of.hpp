// SPDX-License-Identifier: MIT
// What an exception says, or what an await has failed with; "nothing" if there is none.
#pragma once

#include <asyncio/result.hpp>

#include <exception>
#include <string>

namespace asyncio_test {

inline std::string what_of(const std::exception_ptr& exception) {
    if (exception == nullptr) return "nothing";
    try {
        std::rethrow_exception(exception);
    } catch (const std::exception& error) {
        return error.what();
    } catch (...) {
        return "something else";
    }
}
template <class T> std::string what_of(const asyncio::Result<T>& result) {
    return what_of(result.exception());
}

} // namespace asyncio_test
