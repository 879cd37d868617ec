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
                std::string text = context.message;
                for (const auto& detail : context.details)
                    text += "\n" + detail.key + ": " + detail.text;
                texts_.push_back(std::move(text));
            });
    }

    std::size_t count() const noexcept { return texts_.size(); }
    // How many of them contain the text.
    std::size_t count(const std::string& part) const {
        std::size_t found = 0;
        for (const std::string& text : texts_) {
            if (text.find(part) != std::string::npos) ++found;
        }
        return found;
    }
    // All of them, for messages of tests.
    std::string text() const {
        std::string all;
        for (const std::string& text : texts_) all += text + "\n";
        return all;
    }

  private:
    std::vector<std::string> texts_;
};

} // namespace asyncio_test
