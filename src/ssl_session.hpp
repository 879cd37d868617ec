// SPDX-License-Identifier: MIT
// One connection's TLS, by OpenSSL, in memory.
//
// OpenSSL reads and writes through a BIO of ours. It reads what was fed, then what the step at hand
// was lent, one record at a time; what it writes is appended to the output. All calls go through a
// Step: OpenSSL's queue of errors belongs to the thread, so it is empty before each and after.
#pragma once

#include "ssl_state.hpp"

#include <cstddef>
#include <exception>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

class SslSession final : public TlsSession, public ssl::Object {
  public:
    // A client's. `host`: what server_hostname was read as; none if that is empty.
    SslSession(std::shared_ptr<SslContext> context, const std::string& server_hostname,
               const ServerHostname* host, const SavedSession* resumed);
    // A server's.
    explicit SslSession(std::shared_ptr<SslContext> context);
    ~SslSession() override;

    Status handshake() noexcept override;
    Status read(std::span<char> into, std::size_t& count) noexcept override;
    Status read(std::span<char> into, std::size_t& count,
                std::string_view& ciphertext) noexcept override;
    Status write(std::string_view plain) noexcept override;
    Status shutdown() noexcept override;

    void feed(std::string_view ciphertext) override;
    void feed_eof() noexcept override { eof_ = true; }
    std::string_view output() const noexcept override {
        return std::string_view(output_).substr(output_taken_);
    }
    void take_output(std::size_t count) noexcept override;
    void release_memory() noexcept override;

    std::exception_ptr error() const noexcept override { return error_; }
    const ssl::Object& object() const noexcept override { return *this; }

    std::string version() const override;
    std::optional<ssl::Cipher> cipher() const override;
    std::optional<ssl::Certificate> getpeercert() const override;
    std::string getpeercert_der() const override;
    std::string selected_alpn_protocol() const override;
    const std::string& server_hostname() const noexcept override { return server_hostname_; }
    bool server_side() const noexcept override { return server_side_; }
    ssl::Session session() const override;
    bool session_reused() const noexcept override;
    const ssl::Context& context() const noexcept override { return context_; }
    void set_context(const ssl::Context& context) override;

    void log_secrets(const char* line) const noexcept;

  private:
    friend struct SslCallbacks;

    SslSession(std::shared_ptr<SslContext> context, bool server_side);
    Status stopped(int result) noexcept;
    std::string what_failed() const;
    std::exception_ptr error_of(int kind, const TakenErrors& taken) const;
    std::exception_ptr verification_error(const TakenErrors& taken) const;
    bool speaks_no_tls() const noexcept;
    // Calls the servername callback; gives the alert by which the client is refused.
    std::optional<ssl::AlertDescription> client_said_hello();

    // The context it began with has the callback and OpenSSL's cache of sessions; a servername
    // callback may have put another one above it. Both must outlive ssl_.
    std::shared_ptr<SslContext> first_context_;
    std::shared_ptr<SslContext> current_;
    ssl::Context context_;
    Owned<SSL> ssl_;
    std::uint64_t trust_; // the context's when it began
    std::string server_hostname_;
    std::exception_ptr error_;
    std::exception_ptr thrown_; // by a callback, or in the BIO
    std::string fed_;
    std::size_t fed_used_ = 0;
    std::string_view lent_;
    std::string output_;
    std::size_t output_taken_ = 0;
    bool server_side_;
    bool eof_ = false;
    bool handshaken_ = false;
    bool in_callback_ = false;
    bool said_hello_ = false;
    int began_with_ = -1; // the first byte of the peer's; -1 before it
};

} // namespace detail
ASYNCIO_END_NAMESPACE
