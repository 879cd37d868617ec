// SPDX-License-Identifier: MIT
#include "stacked_tls.hpp"

#include <utility>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {
namespace {

constexpr std::size_t record_size = 16 * 1024; // the most plain text that a record of TLS has

} // namespace

StackedTls::StackedTls(std::unique_ptr<TlsSession> outer,
                       std::unique_ptr<TlsSession> inner) noexcept
    : outer_(std::move(outer)), inner_(std::move(inner)) {}

TlsSession::Status StackedTls::failed(std::exception_ptr why) noexcept {
    if (error_ == nullptr) error_ = std::move(why); // the first one is the reason
    return Status::failed;
}

TlsSession::Status StackedTls::pushed(Status step) noexcept {
    if (step == Status::failed) failed(inner_->error()); // there may be an alert all the same
    const std::string_view records = inner_->output();
    if (!records.empty()) {
        const Status written = outer_->write(records);
        if (written != Status::done) return failed(outer_->error());
        inner_->take_output(records.size());
    }
    return step;
}

TlsSession::Status StackedTls::pull(std::string_view& ciphertext) noexcept {
    if (outer_ended_) return Status::want_input;
    char records[record_size];
    std::size_t count = 0;
    switch (outer_->read(records, count, ciphertext)) {
    case Status::done:
        try {
            inner_->feed({records, count});
        } catch (...) { // there was no memory
            return failed(std::current_exception());
        }
        return Status::done;
    case Status::want_input:
        return Status::want_input;
    case Status::closed:
        // To the inner session that is what the end of a connection is to the outer one: it is cut
        // off, unless its own end has come before.
        outer_ended_ = true;
        inner_->feed_eof();
        return Status::done;
    case Status::failed:
        break;
    }
    return failed(outer_->error());
}

TlsSession::Status StackedTls::handshake() noexcept {
    if (error_ != nullptr) return Status::failed;
    std::string_view nothing;
    for (;;) {
        const Status status = pushed(inner_->handshake());
        if (status != Status::want_input) return status;
        const Status more = pull(nothing);
        if (more != Status::done) return more;
    }
}

TlsSession::Status StackedTls::read(std::span<char> into, std::size_t& count) noexcept {
    std::string_view nothing;
    return read(into, count, nothing);
}

TlsSession::Status StackedTls::read(std::span<char> into, std::size_t& count,
                                    std::string_view& ciphertext) noexcept {
    count = 0;
    if (error_ != nullptr) return Status::failed;
    for (;;) {
        const Status step = inner_->read(into, count);
        const Status status = pushed(step);
        // What was read is given, also if there was no memory for an answer: that is told next.
        if (step == Status::done) return step;
        if (status != Status::want_input) return status;
        const Status more = pull(ciphertext);
        if (more != Status::done) return more;
    }
}

TlsSession::Status StackedTls::write(std::string_view plain) noexcept {
    if (error_ != nullptr) return Status::failed;
    return pushed(inner_->write(plain));
}

TlsSession::Status StackedTls::shutdown() noexcept {
    if (error_ != nullptr) return Status::failed;
    std::string_view nothing;
    while (!inner_over_) {
        const Status status = pushed(inner_->shutdown());
        if (status == Status::want_input) {
            const Status more = pull(nothing);
            if (more != Status::done) return more;
            continue;
        }
        inner_over_ = true;
        if (status == Status::failed) { // the outer one may end in order for all that
            static_cast<void>(outer_->shutdown());
            return status;
        }
    }
    const Status status = outer_->shutdown();
    return status == Status::failed ? failed(outer_->error()) : status;
}

void StackedTls::release_memory() noexcept {
    inner_->release_memory();
    outer_->release_memory();
}

} // namespace detail
ASYNCIO_END_NAMESPACE
