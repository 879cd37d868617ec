// SPDX-License-Identifier: MIT
// TLS inside of TLS: what an HTTPS proxy is asked for, which passes on a connection that it cannot
// read.
//
//     caller <- plain text - inner - records of the inner one - outer <- ciphertext -> network
//
// The inner session's ciphertext is the outer one's plain text, and that is moved on in every step,
// so that output(), which is the outer one's, has all there is to send. The handshake is the
// inner's: the outer one has had its own. A third level is a stack on this one.
#pragma once

#include <asyncio/detail/tls.hpp>

#include <cstddef>
#include <exception>
#include <memory>
#include <span>
#include <string_view>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

class StackedTls final : public TlsSession {
  public:
    // Requires: the outer one's handshake is done.
    StackedTls(std::unique_ptr<TlsSession> outer, std::unique_ptr<TlsSession> inner) noexcept;

    TlsSession& outer() const noexcept { return *outer_; }

    Status handshake() noexcept override;
    Status read(std::span<char> into, std::size_t& count) noexcept override;
    Status read(std::span<char> into, std::size_t& count,
                std::string_view& ciphertext) noexcept override;
    Status write(std::string_view plain) noexcept override;
    // The inner session's end, both ways, and then the outer one's: the peer of the outer one may
    // be somebody who passes on the inner one's answer, and stops to when it ends.
    Status shutdown() noexcept override;

    void feed(std::string_view ciphertext) override { outer_->feed(ciphertext); }
    void feed_eof() noexcept override { outer_->feed_eof(); }
    std::string_view output() const noexcept override { return outer_->output(); }
    void take_output(std::size_t count) noexcept override { outer_->take_output(count); }
    void release_memory() noexcept override;

    std::exception_ptr error() const noexcept override { return error_; }
    const ssl::Object& object() const noexcept override { return inner_->object(); }

  private:
    Status failed(std::exception_ptr why) noexcept;
    // After a step of the inner session's: what it puts out goes to the outer one. Gives the step's
    // status, or failed.
    Status pushed(Status step) noexcept;
    // More for the inner session from the outer one. done: try again; want_input: there is none.
    Status pull(std::string_view& ciphertext) noexcept;

    std::unique_ptr<TlsSession> outer_;
    std::unique_ptr<TlsSession> inner_; // goes first
    std::exception_ptr error_;
    bool outer_ended_ = false; // by the peer
    bool inner_over_ = false;  // of shutdown()
};

} // namespace detail
ASYNCIO_END_NAMESPACE
