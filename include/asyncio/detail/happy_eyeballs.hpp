// SPDX-License-Identifier: MIT
// Connecting to a host that has several addresses: one after the other, or as RFC 8305 has it
// ("happy eyeballs"), where an address that does not answer soon is not waited for any longer
// before the next is tried beside it. The first that answers wins; the others are cancelled and
// waited for.
//
//     Socket socket = co_await connect_to_one_of(
//         std::move(addresses), RaceOptions().happy_eyeballs_delay(250ms));
//
// How one address is tried is a function of whoever calls, so that a test needs no network:
// connect(const AddressInfo*, AttemptErrors*) returns a Coro of what is connected, and closes that
// if it is cancelled. A std::system_error of it is an address that does not answer; whatever else
// it throws ends all attempts, and is thrown on. (create_connection, staggered_race)
#pragma once

#include <asyncio/as_result.hpp>
#include <asyncio/clock.hpp>
#include <asyncio/detail/waiting.hpp>
#include <asyncio/dns.hpp>
#include <asyncio/sockets.hpp>
#include <asyncio/tasks.hpp>

#include <cstddef>
#include <exception>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

// What went wrong with one address: the local addresses to which it could not be bound, and last
// why it was given up.
using AttemptErrors = std::vector<std::exception_ptr>;

// The addresses in turns by family: the first of each family, the second of each, and so on; but
// before that some of the first family, so that it has this many at the beginning.
ASYNCIO_API std::vector<AddressInfo> interleave_addresses(std::vector<AddressInfo> addresses,
                                                          std::size_t first_family_count);

ASYNCIO_API bool is_system_error(const std::exception_ptr& exception) noexcept;

// No address answers. With `all_errors` an ExceptionGroup of all there is. Else one exception: the
// only one, or the first if all have the same text, or a std::system_error with the first's code
// and the text of all of them.
[[noreturn]] ASYNCIO_API void throw_attempt_errors(const std::vector<AttemptErrors>& errors,
                                                   bool all_errors);

// The attempts of a race, and their end.
class ASYNCIO_API AttemptRace final : FutureWatcher, Timed {
  public:
    // For the current task.
    explicit AttemptRace(Delay delay);
    ~AttemptRace();
    AttemptRace(const AttemptRace&) = delete;
    AttemptRace& operator=(const AttemptRace&) = delete;

    // No attempt has won yet, and the race has not been ended by a cancel, or by what is no
    // std::system_error.
    bool is_open() const noexcept {
        return winner_ == nullptr && unexpected_ == nullptr && cancelled_ == nullptr;
    }
    bool has_running() const noexcept { return !running_.empty(); }
    // The last one to begin has failed, or has had its time.
    bool is_next_due() const noexcept { return is_next_due_; }

    // make() gives the next attempt, as a task. `has_next`: there is another one after that.
    template <class Make> void begin(bool has_next, Make make) noexcept {
        try {
            std::unique_ptr<FutureWatch> watch(new FutureWatch(*this));
            give_time(has_next);
            const auto task = make();
            add(watch.release(), task.state());
        } catch (...) {
            unexpected_ = std::current_exception();
        }
    }
    // Opens when the next attempt is due, or none is needed any more.
    Gate& wait();
    void waited(const Result<void>& result);
    // Cancels those that are left: then wait(), while there are any.
    void stop();
    // Gives the winner, null if there is none; or throws what has ended the race. A cancel that
    // came when somebody had won is delivered at the next await. Requires: none is running.
    FutureBase* finish();

  private:
    void give_time(bool has_next);
    void add(FutureWatch* watch, FutureBase& attempt) noexcept;
    void future_done(FutureWatch& watch) override;
    void future_dropped(FutureWatch& watch) noexcept override;
    void find_awaiters(Awaiters& awaiters) const override { awaiters.tasks.push_back(parent_); }
    void timed_out() override;
    void open_if_over() noexcept;
    void cancel_running();

    TaskBase* parent_;
    Delay delay_;
    WatchList running_;
    FutureWatch* latest_ = nullptr;       // the last to begin, while it is running
    std::unique_ptr<FutureWatch> winner_; // keeps its task
    std::exception_ptr unexpected_;       // no std::system_error
    std::exception_ptr cancelled_;        // to go on as it is, unless there is a winner
    std::optional<Gate> gate_;
    bool is_next_due_ = true;
    bool is_stopped_ = false;
};

template <class Connect>
using Connected =
    typename std::invoke_result_t<Connect&, const AddressInfo*, AttemptErrors*>::value_type;

template <class Connect>
Coro<Connected<Connect>> attempt(Connect* connect, const AddressInfo* address,
                                 AttemptErrors* errors) {
    Result<Connected<Connect>> result = co_await as_result((*connect)(address, errors));
    if (!result && is_system_error(result.exception())) errors->push_back(result.exception());
    co_return std::move(result).value();
}

template <class Connect>
Coro<Connected<Connect>> connect_in_turn(std::vector<AddressInfo> addresses, Connect connect,
                                         bool all_errors) {
    std::vector<AttemptErrors> errors(addresses.size());
    for (std::size_t i = 0; i < addresses.size(); ++i) {
        const AddressInfo* address = &addresses[i];
        Result<Connected<Connect>> result =
            co_await as_result(attempt(&connect, address, &errors[i]));
        if (result || !is_system_error(result.exception())) co_return std::move(result).value();
    }
    throw_attempt_errors(errors, all_errors);
}

template <class Connect>
Coro<Connected<Connect>> connect_staggered(std::vector<AddressInfo> addresses, Connect connect,
                                           Delay delay, bool all_errors) {
    std::vector<AttemptErrors> errors(addresses.size());
    AttemptRace race(delay);
    std::size_t begun = 0;
    while (race.is_open() && (race.has_running() || begun < addresses.size())) {
        if (begun < addresses.size() && race.is_next_due()) {
            const std::size_t next = begun++;
            race.begin(begun < addresses.size(), [&] {
                return create_task(attempt(&connect, &addresses[next], &errors[next]));
            });
        } else {
            const Result<void> waited = co_await as_result(race.wait());
            race.waited(waited);
        }
    }
    race.stop();
    while (race.has_running()) {
        const Result<void> waited = co_await as_result(race.wait());
        race.waited(waited);
    }
    if (FutureBase* winner = race.finish()) co_return give_value<Connected<Connect>, true>(*winner);
    throw_attempt_errors(errors, all_errors);
}

// Gives what connect() has connected first. Requires: there is an address. Without a delay the next
// address is tried when one has failed. After a cancel nothing is left open.
template <class Connect>
Coro<Connected<Connect>> happy_eyeballs(std::vector<AddressInfo> addresses, Connect connect,
                                        std::optional<Delay> delay, bool all_errors) {
    if (!delay) return connect_in_turn(std::move(addresses), std::move(connect), all_errors);
    return connect_staggered(std::move(addresses), std::move(connect), *delay, all_errors);
}

// How connect_to_one_of() goes about it. Chained setters.
class RaceOptions {
  public:
    // Default: one address after the other.
    RaceOptions& happy_eyeballs_delay(std::optional<Delay> delay) noexcept {
        delay_ = delay;
        return *this;
    }
    // How many addresses of the first family come before the families take turns; 0: the order is
    // left as it is. Default: 1 with a delay, else 0.
    RaceOptions& interleave(std::optional<int> count) noexcept {
        interleave_ = count;
        return *this;
    }
    RaceOptions& all_errors(bool on) noexcept {
        all_errors_ = on;
        return *this;
    }
    // The socket is bound to the first of these that is of its family and can be had.
    RaceOptions& local_addresses(std::vector<AddressInfo> addresses) noexcept {
        local_addresses_ = std::move(addresses);
        binds_ = true;
        return *this;
    }

  private:
    friend Coro<Socket> connect_to_one_of(std::vector<AddressInfo> addresses, RaceOptions options);

    std::optional<Delay> delay_;
    std::optional<int> interleave_;
    bool all_errors_ = false;
    bool binds_ = false;
    std::vector<AddressInfo> local_addresses_;
};

// A socket that is connected to the first of the addresses that answers. Throws std::system_error
// if none does (an ExceptionGroup with all_errors), ValueError if there is no address.
ASYNCIO_API Coro<Socket> connect_to_one_of(std::vector<AddressInfo> addresses,
                                           RaceOptions options = {});

} // namespace detail
ASYNCIO_END_NAMESPACE
