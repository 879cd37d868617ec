// SPDX-License-Identifier: MIT
// as_completed: gives tasks in the order in which they end.
//
//     auto ended = asyncio::as_completed(tasks);
//     while (auto task = co_await ended.next()) use(task->result());
#pragma once

#include <asyncio/as_result.hpp>
#include <asyncio/clock.hpp>
#include <asyncio/detail/waiting.hpp>
#include <asyncio/ensure_future.hpp>
#include <asyncio/futures.hpp>

#include <cstddef>
#include <memory>
#include <optional>
#include <ranges>
#include <source_location>
#include <type_traits>
#include <utility>
#include <vector>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

class ASYNCIO_API CompletedQueue final : FutureWatcher, Timed {
  public:
    CompletedQueue() = default;
    ~CompletedQueue();

    void add(FutureBase& future);
    using Timed::arm;

    // One that waits in next(). It is in line while it lives, unless it was woken.
    class Getter {
      public:
        explicit Getter(CompletedQueue& queue) noexcept;
        ~Getter();
        Getter(const Getter&) = delete;
        Getter& operator=(const Getter&) = delete;
        Gate gate;

      private:
        friend class CompletedQueue;
        CompletedQueue& queue_;
        Getter* next_ = nullptr;
    };

    // False if there will be nothing more.
    bool claim() noexcept { return unclaimed_ > 0 && unclaimed_-- > 0; }
    void unclaim() noexcept { ++unclaimed_; }
    bool empty() const noexcept { return done_.empty() && timeouts_ == 0; }
    // Requires: not empty(). Throws TimeoutError.
    AnyFuture take();
    // For a getter that was woken and has been cancelled.
    void wake_next() noexcept;

  private:
    void future_done(FutureWatch& watch) override;
    void future_dropped(FutureWatch& watch) noexcept override;
    void find_awaiters(Awaiters& awaiters) const override;
    void timed_out() override;

    WatchList pending_;
    WatchList done_;
    Getter* first_getter_ = nullptr;
    std::size_t count_ = 0;     // of pending_
    std::size_t unclaimed_ = 0; // of all, how many next() is not called for
    std::size_t timeouts_ = 0;
};

template <class F> Coro<std::optional<F>> next_completed(std::shared_ptr<CompletedQueue> queue) {
    if (!queue->claim()) co_return std::nullopt;
    while (queue->empty()) {
        CompletedQueue::Getter getter(*queue);
        const Result<void> waited = co_await as_result(getter.gate);
        if (waited) continue;
        if (getter.gate.is_open() && !queue->empty()) queue->wake_next();
        queue->unclaim();
        waited.value();
    }
    const AnyFuture future = queue->take();
    co_return F::of(future.state());
}

} // namespace detail

// What as_completed() gives. Copies mean the same one. If all of them and every next() are gone,
// the tasks go on unwatched.
template <class F> class AsCompleted {
  public:
    // The next one that is done: the same task or future that was given, or the task that was made
    // of what was given. Nothing when all have been given. Throws TimeoutError, once for each that
    // is left, when the time is up. A cancel of the waiting task loses nothing: ask again.
    // (__anext__)
    ASYNCIO_CORO_WRAPPER Coro<std::optional<F>> next() { return detail::next_completed<F>(queue_); }

    // For the library.
    explicit AsCompleted(std::shared_ptr<detail::CompletedQueue> queue) noexcept
        : queue_(std::move(queue)) {}

  private:
    std::shared_ptr<detail::CompletedQueue> queue_;
};

// Over a range of tasks, futures, coroutines (which are moved from), callables that make them, or
// other awaitables: what is no future becomes a task at once. The same future given twice counts
// once. The timeout counts from now on, for all of them together. Throws RuntimeError if no loop
// runs, ValueError for a future of another loop. (asyncio.as_completed)
template <std::ranges::input_range Range>
    requires detail::Startable<std::ranges::range_value_t<Range>>
// NOLINTNEXTLINE(cppcoreguidelines-missing-std-forward): its elements are moved, one by one
auto as_completed(Range&& awaitables, std::optional<Delay> timeout = std::nullopt,
                  std::source_location created = std::source_location::current()) {
    ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(Range);
    using A = std::ranges::range_value_t<Range>;
    using F = decltype(detail::start_on(std::declval<EventLoop&>(), std::declval<A>(),
                                        detail::Location()));
    constexpr bool move = !std::is_lvalue_reference_v<Range>;
    EventLoop& loop = get_running_loop();
    std::vector<F> futures;
    for (auto&& awaitable : awaitables) {
        if constexpr (move || detail::is_coro<A>) {
            futures.push_back(detail::start_on(loop, std::move(awaitable), created));
        } else {
            futures.push_back(detail::start_on(loop, awaitable, created));
        }
    }
    detail::drop_repeated(futures);
    auto queue = std::make_shared<detail::CompletedQueue>();
    for (const F& future : futures) queue->add(future.state());
    if (!futures.empty() && timeout) queue->arm(loop, *timeout);
    return AsCompleted<F>(std::move(queue));
}

// Refused with a sentence.
template <int n = 0> detail::Refused as_completed(detail::AnyArgument, detail::AnyArgument = 0) {
    static_assert(detail::never<n>,
                  "as_completed takes a range of what can be awaited, such as a std::vector of "
                  "tasks, and the time limit");
    return {};
}

ASYNCIO_END_NAMESPACE
