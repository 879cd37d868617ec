// SPDX-License-Identifier: MIT
// Collects what goes to a loop's exception handler. Must outlive the loop and its tasks.
#pragma once

#include <asyncio/events.hpp>

#include <cstddef>
#include <string>
#include <vector>

namespace asyncio_test {

class Reports {
  public:
    Reports() = default;
    explicit Reports(asyncio::EventLoop& loop) { watch(loop); }
    Reports(const Reports&) = delete;
    Reports& operator=(const Reports&) = delete;

    void watch(asyncio::EventLoop& loop) {
        loop.set_exception_handler(
            [this](asyncio::EventLoop&, const asyncio::ExceptionContext& context) {
                all.push_back(context);
            });
    }

    std::size_t count() const noexcept { return all.size(); }
    // How many of them contain the text.
    std::size_t count(const std::string& part) const {
        std::size_t found = 0;
        for (const auto& context : all) {
            if (text_of(context).find(part) != std::string::npos) ++found;
        }
        return found;
    }
    // All of them, for messages of tests.
    std::string text() const {
        std::string text;
        for (const auto& context : all) text += text_of(context) + "\n";
        return text;
    }

    // Mutable, since tests have const Reports, and the handler goes on writing.
    mutable std::vector<asyncio::ExceptionContext> all;

  private:
    static std::string text_of(const asyncio::ExceptionContext& context) {
        std::string text = context.message;
        for (const auto& detail : context.details) text += "\n" + detail.key + ": " + detail.text;
        return text;
    }
};

} // namespace asyncio_test
