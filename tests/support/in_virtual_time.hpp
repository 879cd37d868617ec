// SPDX-License-Identifier: MIT
// Runs a test's body as the main task of a loop in virtual time.
//
//     in_virtual_time([&]() -> asyncio::Coro<> { ... });
//
// Reports are what the loop's exception handler is told while one lives.
#pragma once

#include <asyncio/asyncio.hpp>
#include <asyncio/testing/virtual_time.hpp>

#include <string>
#include <utility>
#include <vector>

namespace asyncio_test {

template <class Body> auto in_virtual_time(Body body) {
    asyncio::testing::VirtualClock clock;
    return asyncio::run(body(), asyncio::RunOptions().clock(clock));
}

class Reports {
  public:
    explicit Reports(asyncio::EventLoop& loop) {
        loop.set_exception_handler(
            [this](asyncio::EventLoop&, const asyncio::ExceptionContext& context) {
                all.push_back(context);
            });
    }
    std::size_t count(const std::string& part) const {
        std::size_t n = 0;
        for (const auto& context : all) {
            if (context.message.find(part) != std::string::npos) ++n;
        }
        return n;
    }
    std::vector<asyncio::ExceptionContext> all;
};

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
