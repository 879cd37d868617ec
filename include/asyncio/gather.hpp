// SPDX-License-Identifier: MIT
// gather: runs several awaitables at the same time, and collects their results.
//
//     auto both = co_await asyncio::gather(fetch(a), fetch(b));
//     auto& [first, second] = both;
//
// Takes any mix of coroutines, tasks, futures, other awaitables, and callables that make
// coroutines. What is not yet a future becomes a task at once, in the order of the arguments.
#pragma once

#include <asyncio/ensure_future.hpp>
#include <asyncio/tasks.hpp>

#include <functional>
#include <iterator>
#include <ranges>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

ASYNCIO_BEGIN_NAMESPACE

// First argument of gather: failures become results. (gather's return_exceptions=True)
struct ReturnExceptions {
    explicit ReturnExceptions() = default;
};
inline constexpr ReturnExceptions return_exceptions{};

namespace detail {

// What of a result is kept in a gathered one: void -> monostate, T& -> reference_wrapper.
template <class T> struct GatheredValue {
    using Type = T;
};
template <> struct GatheredValue<void> {
    using Type = std::monostate;
};
template <class T> struct GatheredValue<T&> {
    using Type = std::reference_wrapper<T>;
};
template <class T, bool ReturnExceptions>
using Gathered = std::conditional_t<ReturnExceptions, Result<T>, typename GatheredValue<T>::Type>;

// One child of a gather: waits for its future, and tells the gather.
class GatherBase;
class ASYNCIO_API GatherChild final : public FutureWaiter {
  public:
    GatherChild() = default;
    ~GatherChild();
    GatherChild(GatherChild&& other) noexcept; // before watch() only
    GatherChild& operator=(GatherChild&&) = delete;

    void adopt(FutureBase& future, bool owned) noexcept {
        future_ = &future;
        owned_ = owned;
    }
    FutureBase& future() const noexcept { return *future_; }
    bool owned() const noexcept { return owned_; }

    void watch(GatherBase& gather) noexcept;
    void scheduled(FutureBase&) noexcept override;
    void run() override;
    void discard() noexcept override;
    void find_awaiters(Awaiters& awaiters) const override;

  private:
    friend class GatherBase;
    friend struct DebuggerFacts;

    FutureBase* future_ = nullptr;
    GatherBase* gather_ = nullptr; // null for a second appearance of the same future
    bool owned_ = false;           // made by gather, so that its value may be moved out
    bool watching_ = false;
};

// What all gathers share. Its state is a FutureState's; this holds the children.
class ASYNCIO_API GatherBase {
  public:
    // Requires: all children adopted.
    void begin();
    bool cancel_children(const std::string& message);
    void child_done(FutureBase& child);
    FutureBase& outer() noexcept { return *outer_; }

  protected:
    GatherBase(FutureBase& outer, bool return_exceptions) noexcept
        : outer_(&outer), return_exceptions_(return_exceptions) {}
    ~GatherBase() = default;

    // Sets the outer future's result from the children, which are all done.
    virtual void collect() = 0;
    virtual GatherChild* children(std::size_t& count) noexcept = 0;

  private:
    friend struct DebuggerFacts;

    FutureBase* outer_;
    bool return_exceptions_;
    bool cancel_requested_ = false;
    bool cancelling_ = false;
    std::size_t unfinished_ = 0;
    std::string cancel_message_;
};

// The value of one child.
template <class T, bool ReturnExceptions>
Gathered<T, ReturnExceptions> gathered(GatherChild& child) {
    FutureBase& future = child.future();
    if constexpr (ReturnExceptions) {
        if (future.state() != FutureBase::finished) return Result<T>(future.retrieve());
    }
    if constexpr (std::is_void_v<T>) {
        return {};
    } else if constexpr (std::is_reference_v<T>) {
        return *value_of<T>(future);
    } else if constexpr (!is_copyable<T>) {
        return give_value<T, true>(future);
    } else {
        if (child.owned() && future.is_unique()) return std::move(value_of<T>(future));
        return give_value<T, false>(future);
    }
}

template <bool ReturnExceptions, class... T>
class GatherTuple final : public FutureState<std::tuple<Gathered<T, ReturnExceptions>...>>,
                          public GatherBase {
  public:
    using Value = std::tuple<Gathered<T, ReturnExceptions>...>;

    explicit GatherTuple(EventLoop& loop) noexcept
        : FutureState<Value>(loop), GatherBase(static_cast<FutureBase&>(*this), ReturnExceptions) {}

    GatherChild& child(std::size_t i) noexcept { return children_[i]; }
    bool cancel(const std::string& message) override { return this->cancel_children(message); }

  private:
    void collect() override { collect_all(std::index_sequence_for<T...>()); }
    template <std::size_t... I> void collect_all(std::index_sequence<I...>) {
        this->set_result(gathered<T, ReturnExceptions>(children_[I])...);
    }
    GatherChild* children(std::size_t& count) noexcept override {
        count = sizeof...(T);
        return children_;
    }

    GatherChild children_[sizeof...(T) == 0 ? 1 : sizeof...(T)];
};

template <bool ReturnExceptions, class T>
class GatherVector final : public FutureState<std::vector<Gathered<T, ReturnExceptions>>>,
                           public GatherBase {
  public:
    using Value = std::vector<Gathered<T, ReturnExceptions>>;

    explicit GatherVector(EventLoop& loop) noexcept
        : FutureState<Value>(loop), GatherBase(static_cast<FutureBase&>(*this), ReturnExceptions) {}

    std::vector<GatherChild>& children() noexcept { return children_; }
    bool cancel(const std::string& message) override { return this->cancel_children(message); }

  private:
    void collect() override {
        Value values;
        values.reserve(children_.size());
        for (GatherChild& child : children_) values.push_back(gathered<T, ReturnExceptions>(child));
        this->set_result(std::move(values));
    }
    GatherChild* children(std::size_t& count) noexcept override {
        count = children_.size();
        return children_.data();
    }

    std::vector<GatherChild> children_;
};

[[noreturn]] ASYNCIO_API void throw_different_loop(const FutureBase& future);

template <class A> EventLoop* loop_of(const A& argument) {
    if constexpr (FutureHandle<A>) {
        return &argument.get_loop();
    } else {
        return nullptr;
    }
}

// `where` is that of the gather, or null if it cannot be had.
template <class A>
void adopt_argument(EventLoop& loop, GatherChild& child, A&& argument, Location where) {
    const auto keep = [&child](const AnyFuture& future, bool owned) {
        future.state().retain();
        child.adopt(future.state(), owned);
    };
    if constexpr (FutureHandle<A>) {
        if (&argument.state().loop() != &loop) throw_different_loop(argument.state());
        keep(argument, false);
    } else if constexpr (is_coro<std::remove_cvref_t<A>>) { // used up, also if it has a name
        keep(make_task(loop, argument, where), true);
    } else if constexpr (CoroutineFunction<A>) {
        keep(create_bound_task(loop, nullptr, std::forward<A>(argument)), true);
    } else {
        auto coroutine = await_it(std::forward<A>(argument));
        keep(make_task(loop, coroutine, where), true);
    }
}

template <bool ReturnExceptions, class... A> auto gather_tuple(A&&... arguments) {
    using Gather = GatherTuple<ReturnExceptions, StartedType<A>...>;
    EventLoop* loop = get_running_loop_or_null();
    if (loop == nullptr) { // a future knows its own
        ((loop = loop != nullptr ? loop : loop_of(arguments)), ...);
    }
    if (loop == nullptr) get_running_loop(); // throws
    auto future = Future<typename Gather::Value>::of(*new Gather(*loop));
    auto& gather = static_cast<Gather&>(future.state());
    std::size_t i = 0;
    (adopt_argument(*loop, gather.child(i++), std::forward<A>(arguments), Location()), ...);
    gather.begin();
    return future;
}

// Elements are moved from if `Move`; coroutines always.
template <bool ReturnExceptions, bool Move, class Range>
auto gather_range(Range& range, Location where) {
    using A = std::ranges::range_value_t<Range>;
    using T = StartedType<A>;
    using Gather = GatherVector<ReturnExceptions, T>;
    EventLoop* loop = get_running_loop_or_null();
    if constexpr (FutureHandle<A>) {
        if (loop == nullptr && std::ranges::begin(range) != std::ranges::end(range))
            loop = loop_of(*std::ranges::begin(range));
    }
    if (loop == nullptr) get_running_loop(); // throws
    auto future = Future<typename Gather::Value>::of(*new Gather(*loop));
    auto& gather = static_cast<Gather&>(future.state());
    if constexpr (std::ranges::sized_range<Range>)
        gather.children().reserve(std::ranges::size(range));
    for (auto&& argument : range) {
        gather.children().emplace_back();
        if constexpr (Move) {
            adopt_argument(*loop, gather.children().back(), std::move(argument), where);
        } else {
            adopt_argument(*loop, gather.children().back(), argument, where);
        }
    }
    gather.begin();
    return future;
}

} // namespace detail

// A future of a std::tuple with the results in the order of the arguments: std::monostate for void,
// std::reference_wrapper for a reference. The first failure fails it at once, while the others run
// on; a child that was cancelled counts as failed with CancelledError. Cancelling it cancels all
// children, and so it fails with CancelledError as soon as one of them has ended. The same future
// given twice counts once. Without arguments it is done already. Throws RuntimeError if no loop
// runs (unless a future tells the loop), ValueError for a future of another loop. (asyncio.gather)
template <detail::Startable... A> auto gather(A&&... awaitables) {
    ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(A...);
    return detail::gather_tuple<false>(std::forward<A>(awaitables)...);
}

// The same, with a Result for each: failures and cancelled children do not fail it. Cancelled, it
// ends, with CancelledError, when all children have.
template <detail::Startable... A> auto gather(ReturnExceptions, A&&... awaitables) {
    ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(A...);
    return detail::gather_tuple<true>(std::forward<A>(awaitables)...);
}

// A future of a std::vector, over a range of coroutines (which are moved from), tasks, futures,
// other awaitables or callables.
template <std::ranges::input_range Range>
    requires detail::Startable<std::ranges::range_value_t<Range>>
auto gather(Range&& awaitables, std::source_location where = std::source_location::current()) {
    ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(Range);
    constexpr bool move = !std::is_lvalue_reference_v<Range>;
    auto&& range = std::forward<Range>(awaitables);
    return detail::gather_range<false, move>(range, where);
}
template <std::ranges::input_range Range>
    requires detail::Startable<std::ranges::range_value_t<Range>>
auto gather(ReturnExceptions, Range&& awaitables,
            std::source_location where = std::source_location::current()) {
    ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(Range);
    constexpr bool move = !std::is_lvalue_reference_v<Range>;
    auto&& range = std::forward<Range>(awaitables);
    return detail::gather_range<true, move>(range, where);
}

// Refused with a sentence.
template <int n = 0>
detail::Refused gather(detail::AnyArgument, detail::AnyArgument = 0, detail::AnyArgument = 0,
                       detail::AnyArgument = 0, detail::AnyArgument = 0, detail::AnyArgument = 0) {
    static_assert(
        detail::never<n>,
        "gather takes coroutines, tasks, futures, other awaitables, and functions without "
        "arguments that return a coroutine; or one range of such");
    return {};
}

ASYNCIO_END_NAMESPACE
