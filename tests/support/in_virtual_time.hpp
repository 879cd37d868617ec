// SPDX-License-Identifier: MIT
// Runs a test's body as the main task of a loop in virtual time.
//
//     in_virtual_time([&]() -> asyncio::Coro<> { ... });
#pragma once

#include <asyncio/asyncio.hpp>
#include <asyncio/testing/virtual_time.hpp>

#include "support/reports.hpp"

#include <string>
#include <utility>

namespace asyncio_test {

template <class Body> auto in_virtual_time(Body body) {
    asyncio::testing::VirtualClock clock;
    return asyncio::run(body(), asyncio::RunOptions().clock(clock));
}

// What is thrown by calling f: "RuntimeError: text", or "nothing".
template <class F> std::string thrown_by(F&& f) {
    try {
        static_cast<void>(f());
    } catch (const asyncio::InvalidStateError& error) {
        return std::string("InvalidStateError: ") + error.what();
    } catch (const asyncio::RuntimeError& error) {
        return std::string("RuntimeError: ") + error.what();
    } catch (const asyncio::ValueError& error) {
        return std::string("ValueError: ") + error.what();
    } catch (const asyncio::CancelledError& error) {
        return std::string("CancelledError: ") + error.message();
    } catch (const std::exception& error) {
        return std::string("exception: ") + error.what();
    }
    return "nothing";
}

inline std::string text_of(const std::exception_ptr& exception) {
    if (exception == nullptr) return "null";
    return thrown_by([&] { std::rethrow_exception(exception); });
}

} // namespace asyncio_test
