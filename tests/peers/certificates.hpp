// SPDX-License-Identifier: MIT
// A certificate for this machine, a context for each end, and what a loop reports.
#pragma once

#include "support/tls_contexts.hpp"

#include <asyncio/asyncio.hpp>
#include <asyncio/ssl.hpp>

#include <exception>
#include <string>
#include <vector>

namespace asyncio_test {

struct Certificates {
    Certificates() : issued(issue({"DNS:localhost", "IP:127.0.0.1"}, "a server's")) {}

    Issued issue(const std::vector<std::string>& names, const std::string& common_name) {
        Wanted wanted;
        wanted.names = names;
        wanted.common_name = common_name;
        return authority.issue(wanted);
    }
    asyncio::ssl::Context server() const { return server_context(issued); }
    asyncio::ssl::Context client() const { return client_context(authority); }

    Authority authority;
    Issued issued;
};

// Waits for what a loop reports first: its message, its details, and its error, with the reason of
// OpenSSL's.
class Report {
  public:
    explicit Report(asyncio::EventLoop& loop) : loop_(loop) {
        loop.set_exception_handler(
            [this](asyncio::EventLoop&, const asyncio::ExceptionContext& context) {
                text_ += context.message + "\n";
                for (const auto& detail : context.details) text_ += detail.text + "\n";
                add(context.exception);
                reported_.set();
            });
    }
    ~Report() { loop_.set_exception_handler(nullptr); }
    Report(const Report&) = delete;
    Report& operator=(const Report&) = delete;

    asyncio::Coro<std::string> text() {
        co_await reported_.wait();
        co_return text_;
    }

  private:
    void add(const std::exception_ptr& exception) {
        if (exception == nullptr) return;
        try {
            std::rethrow_exception(exception);
        } catch (const asyncio::ssl::Error& error) {
            text_ += error.reason() + "\n" + error.what();
        } catch (const std::exception& error) {
            text_ += error.what();
        }
    }

    asyncio::EventLoop& loop_;
    asyncio::Event reported_;
    std::string text_;
};

} // namespace asyncio_test
