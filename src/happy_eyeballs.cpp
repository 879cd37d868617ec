// SPDX-License-Identifier: MIT
#include <asyncio/detail/happy_eyeballs.hpp>
#include <asyncio/exception_groups.hpp>

#include <algorithm>
#include <cerrno>
#include <string>
#include <system_error>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

// --- Order and errors ---

std::vector<AddressInfo> interleave_addresses(std::vector<AddressInfo> addresses,
                                              std::size_t first_family_count) {
    // By family, in the order in which these came.
    std::vector<std::vector<AddressInfo>> families;
    for (AddressInfo& address : addresses) {
        const auto same = std::find_if(families.begin(), families.end(), [&](const auto& family) {
            return family.front().family == address.family;
        });
        std::vector<AddressInfo>& family = same != families.end() ? *same : families.emplace_back();
        family.push_back(std::move(address));
    }
    addresses.clear();
    std::vector<std::size_t> taken(families.size());
    const auto take = [&](std::size_t family) {
        addresses.push_back(std::move(families[family][taken[family]++]));
    };
    while (!families.empty() && taken[0] + 1 < first_family_count &&
           taken[0] < families[0].size()) {
        take(0);
    }
    for (bool any = true; any;) {
        any = false;
        for (std::size_t family = 0; family < families.size(); ++family) {
            if (taken[family] == families[family].size()) continue;
            take(family);
            any = true;
        }
    }
    return addresses;
}

bool is_system_error(const std::exception_ptr& exception) noexcept {
    try {
        std::rethrow_exception(exception);
    } catch (const std::system_error&) {
        return true;
    } catch (...) {
        return false;
    }
}

namespace {

// Several errors as one, in the words of all of them.
class MergedError final : public std::system_error {
  public:
    MergedError(std::error_code code, const std::string& text)
        : std::system_error(code), text_(text) {}
    const char* what() const noexcept override { return text_.what(); }

  private:
    std::runtime_error text_; // a string whose copies cannot throw
};

// Requires: a std::system_error.
std::pair<std::error_code, std::string> code_and_text(const std::exception_ptr& exception) {
    try {
        std::rethrow_exception(exception);
    } catch (const std::system_error& error) {
        return {error.code(), error.what()};
    }
}

} // namespace

void throw_attempt_errors(const std::vector<AttemptErrors>& errors, bool all_errors) {
    ExceptionGroup::Exceptions all;
    for (const AttemptErrors& some : errors) all.insert(all.end(), some.begin(), some.end());
    // Cancelled all of them, and not by whoever waits here.
    if (all.empty())
        throw TimeoutError("create_connection failed: no address was tried to the end");
    if (all_errors) throw ExceptionGroup("create_connection failed", std::move(all));
    const auto [code, text] = code_and_text(all.front());
    bool same = true;
    std::string merged = "Multiple exceptions: " + text;
    for (std::size_t i = 1; i < all.size(); ++i) {
        const std::string other = code_and_text(all[i]).second;
        if (other != text) same = false;
        merged += ", " + other;
    }
    if (same) std::rethrow_exception(all.front());
    throw MergedError(code, merged);
}

// --- The race ---

AttemptRace::AttemptRace(Delay delay)
    : parent_(get_running_loop().core().current_task), delay_(delay) {}

AttemptRace::~AttemptRace() {
    running_.stop_all(); // of a loop that closes: else there are none
}

void AttemptRace::give_time(bool has_next) {
    is_next_due_ = false;
    disarm();
    if (has_next) arm(parent_->loop(), delay_);
}

void AttemptRace::add(FutureWatch* watch, FutureBase& attempt) noexcept {
    running_.push(*watch);
    latest_ = watch;
    watch->begin(attempt);
}

void AttemptRace::timed_out() {
    is_next_due_ = true;
    if (gate_ && !is_stopped_) gate_->open();
}

void AttemptRace::future_done(FutureWatch& watch) {
    running_.remove(watch);
    std::unique_ptr<FutureWatch> ended(&watch);
    if (latest_ == &watch) {
        latest_ = nullptr;
        is_next_due_ = true;
    }
    switch (watch.future().state()) {
    case FutureBase::finished:
        if (is_open() && !is_stopped_) winner_ = std::move(ended);
        break;
    case FutureBase::failed:
        if (const std::exception_ptr& exception = watch.future().retrieve();
            unexpected_ == nullptr && !is_system_error(exception)) {
            unexpected_ = exception;
        }
        break;
    default:
        break;
    }
    open_if_over();
}

void AttemptRace::open_if_over() noexcept {
    if (!gate_) return;
    if (!has_running() || (!is_stopped_ && (is_next_due_ || !is_open()))) gate_->open();
}

void AttemptRace::future_dropped(FutureWatch& watch) noexcept {
    running_.remove(watch);
    delete &watch;
}

Gate& AttemptRace::wait() { return gate_.emplace(); }

void AttemptRace::waited(const Result<void>& result) {
    gate_.reset();
    if (result) return;
    cancelled_ = result.exception();
    if (is_stopped_) cancel_running(); // once more, as asyncio does
}

void AttemptRace::stop() {
    is_stopped_ = true;
    disarm();
    cancel_running();
}

void AttemptRace::cancel_running() {
    for (FutureWatch* watch = running_.first(); watch != nullptr; watch = watch->next) {
        watch->future().cancel({});
    }
}

FutureBase* AttemptRace::finish() {
    if (cancelled_ != nullptr) {
        if (winner_ == nullptr && unexpected_ == nullptr) std::rethrow_exception(cancelled_);
        // What has come comes first: the cancel is delivered at the next await, and counts as
        // before.
        if (parent_->cancelling() > 0) {
            parent_->uncancel();
            parent_->cancel({});
        }
    }
    if (unexpected_ != nullptr) std::rethrow_exception(unexpected_);
    return winner_ != nullptr ? &winner_->future() : nullptr;
}

// --- Sockets ---

namespace {

std::string name_of_family(int family) {
    switch (family) {
    case AF_INET:
        return "AF_INET";
    case AF_INET6:
        return "AF_INET6";
    default:
        return std::to_string(family);
    }
}

void bind_to_one_of(Socket& socket, const std::vector<AddressInfo>& addresses,
                    AttemptErrors& errors) {
    for (const AddressInfo& local : addresses) {
        if (local.family != socket.family()) continue;
        try {
            socket.bind(local.address);
            return;
        } catch (const std::system_error& error) {
            errors.push_back(std::make_exception_ptr(
                std::system_error(error.code(), "error while attempting to bind on address " +
                                                    local.address.text())));
        }
    }
    if (errors.empty()) {
        throw_system_error(EADDRNOTAVAIL, "no matching local address with family=" +
                                              name_of_family(socket.family()) + " found");
    }
    const std::exception_ptr last = std::move(errors.back());
    errors.pop_back(); // it comes back as that by which the attempt fails
    std::rethrow_exception(last);
}

Coro<Socket> connect_socket(const AddressInfo* remote, const std::vector<AddressInfo>* locals,
                            AttemptErrors* errors) {
    Socket socket(remote->family, remote->type, remote->protocol);
    if (locals != nullptr) bind_to_one_of(socket, *locals, *errors);
    co_await sock_connect(socket, remote->address);
    co_return socket;
}

class ConnectSocket {
  public:
    // Null: it is bound to no local address.
    explicit ConnectSocket(std::unique_ptr<std::vector<AddressInfo>> locals) noexcept
        : locals_(std::move(locals)) {}
    Coro<Socket> operator()(const AddressInfo* remote, AttemptErrors* errors) const {
        return connect_socket(remote, locals_.get(), errors);
    }

  private:
    std::unique_ptr<std::vector<AddressInfo>> locals_;
};

} // namespace

Coro<Socket> connect_to_one_of(std::vector<AddressInfo> addresses, RaceOptions options) {
    if (addresses.empty()) throw ValueError("there is no address to connect to");
    const int count = options.interleave_.value_or(options.delay_.has_value() ? 1 : 0);
    if (count != 0) {
        addresses = interleave_addresses(std::move(addresses),
                                         static_cast<std::size_t>(std::max(count, 1)));
    }
    std::unique_ptr<std::vector<AddressInfo>> locals;
    if (options.binds_) {
        locals = std::make_unique<std::vector<AddressInfo>>(std::move(options.local_addresses_));
    }
    return happy_eyeballs(std::move(addresses), ConnectSocket(std::move(locals)), options.delay_,
                          options.all_errors_);
}

} // namespace detail
ASYNCIO_END_NAMESPACE
