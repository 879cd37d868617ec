// SPDX-License-Identifier: MIT
// wait: waits for the first, for the first failure, or for all of several futures.
//
//     auto waited = co_await asyncio::wait(tasks, asyncio::FIRST_COMPLETED);
//     for (const auto& task : waited.done) use(task.result());
//     for (const auto& task : waited.pending) task.cancel();
#pragma once

#include <asyncio/clock.hpp>
#include <asyncio/detail/waiting.hpp>
#include <asyncio/ensure_future.hpp>
#include <asyncio/futures.hpp>

#include <optional>
#include <ranges>
#include <type_traits>
#include <utility>
#include <vector>

ASYNCIO_BEGIN_NAMESPACE

// When wait() returns. (asyncio.FIRST_COMPLETED, ...)
enum ReturnWhen {
    FIRST_COMPLETED,
    FIRST_EXCEPTION, // or all have ended; a cancel is none
    ALL_COMPLETED,
};

// What wait() gives: the same futures that it was given, in their order, each once.
template <class F> struct Waited {
    std::vector<F> done;
    std::vector<F> pending;
};

namespace detail {

// Opens when what `return_when` says is true of the futures, or when the time is up.
class ASYNCIO_API WaitForMany final : FutureWatcher, Timed {
  public:
    explicit WaitForMany(ReturnWhen return_when) noexcept : return_when_(return_when) {}
    ~WaitForMany() { watches_.stop_all(); }

    using Timed::arm;
    void add(FutureBase& future);

    Gate gate;

  private:
    void future_done(FutureWatch& watch) override;
    void future_dropped(FutureWatch& watch) noexcept override;
    void find_awaiters(Awaiters& awaiters) const override { gate.find_awaiters(awaiters); }
    void timed_out() override { gate.open(); }

    WatchList watches_; // of those that are not done
    ReturnWhen return_when_;
};

template <class F>
Coro<Waited<F>> wait_for_many(std::vector<F> futures, ReturnWhen return_when,
                              std::optional<Delay> timeout) {
    if (futures.empty())
        throw ValueError("wait() got no futures: there must be at least one to wait for");
    drop_repeated(futures);
    EventLoop& loop = get_running_loop();
    {
        WaitForMany waiting(return_when);
        if (timeout) waiting.arm(loop, *timeout);
        for (const F& future : futures) waiting.add(future.state());
        co_await waiting.gate;
    }
    Waited<F> waited;
    for (F& future : futures) {
        (future.done() ? waited.done : waited.pending).push_back(std::move(future));
    }
    co_return waited;
}

} // namespace detail

// Waits for tasks and futures, in a range: for the first, the first that fails, or all; for no
// longer than the timeout, if there is one. Cancels nothing and throws nothing of theirs, nor
// TimeoutError: what is not done by then is among the pending. If the task that waits is cancelled,
// they go on. Throws ValueError for an empty range, and for a future of another loop. Coroutines
// must be made tasks first. (asyncio.wait)
template <std::ranges::input_range Range>
// NOLINTNEXTLINE(cppcoreguidelines-missing-std-forward): its elements are copied
ASYNCIO_CORO_WRAPPER auto wait(Range&& futures, ReturnWhen return_when = ALL_COMPLETED,
                               std::optional<Delay> timeout = std::nullopt) {
    ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(Range);
    using F = std::remove_cvref_t<std::ranges::range_value_t<Range>>;
    static_assert(detail::FutureHandle<F>, "wait takes a range of tasks or futures: make a task of "
                                           "each coroutine first, by create_task");
    if constexpr (detail::FutureHandle<F>) {
        std::vector<F> all;
        for (auto&& future : futures) all.push_back(future);
        return detail::wait_for_many<F>(std::move(all), return_when, timeout);
    } else {
        return detail::Refused();
    }
}

// Refused with a sentence.
template <int n = 0>
detail::Refused wait(detail::AnyArgument, detail::AnyArgument = 0, detail::AnyArgument = 0) {
    static_assert(detail::never<n>,
                  "wait takes a range of tasks or futures, then when to return, then the time "
                  "limit: wait(tasks, asyncio::ALL_COMPLETED, 2s); gather takes them one by one");
    return {};
}

ASYNCIO_END_NAMESPACE
