// SPDX-License-Identifier: MIT
// shield: waits for something that goes on if the waiting is cancelled.
//
//     auto saving = asyncio::create_task(save(document));
//     co_await asyncio::shield(saving);    // a cancel of this task ends the wait, not the saving
#pragma once

#include <asyncio/ensure_future.hpp>
#include <asyncio/futures.hpp>

#include <source_location>
#include <type_traits>
#include <utility>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

// Hears of the inner future, for the outer one, of which it is a part.
class ASYNCIO_API Shield {
  public:
    Shield(const Shield&) = delete;
    Shield& operator=(const Shield&) = delete;

    void begin();

  protected:
    // Both are kept by the other: the outer one by an inner task until that is done.
    Shield(FutureBase& outer, FutureBase& inner) noexcept;
    ~Shield();

    // Both have a value of the same type.
    virtual void copy_value(FutureBase& inner) = 0;

  private:
    struct Inner final : FutureWaiter {
        explicit Inner(Shield& s) noexcept : shield(s) {}
        void scheduled(FutureBase&) noexcept override;
        void run() override;
        void discard() noexcept override;
        void find_awaiters(Awaiters& awaiters) const override {
            awaiters.stand_ins.push_back(&shield.outer_);
        }
        Shield& shield;
    };
    struct Outer final : FutureWaiter {
        explicit Outer(Shield& s) noexcept : shield(s) {}
        void scheduled(FutureBase&) noexcept override;
        void run() override;
        void discard() noexcept override;
        Shield& shield;
    };

    void inner_done();
    void outer_done();

    FutureBase& outer_;
    FutureBase& inner_;
    Inner inner_waiter_{*this};
    Outer outer_waiter_{*this};
    bool watching_ = false; // inner_waiter_ is in the list of the inner future
};

template <class T> class ShieldState final : public FutureState<T>, Shield {
  public:
    explicit ShieldState(FutureBase& inner) noexcept
        : FutureState<T>(inner.loop()), Shield(static_cast<FutureBase&>(*this), inner) {}
    using Shield::begin;

  private:
    void copy_value(FutureBase& inner) override {
        if constexpr (std::is_void_v<T>) {
            this->set_result();
        } else if constexpr (std::is_reference_v<T>) {
            this->set_result(value_of<T>(inner));
        } else {
            this->set_result(give_value<T, true>(inner));
        }
    }
};

} // namespace detail

// A future of what the awaitable gives: a Future or Task as it is, everything else as a new task.
// What becomes of that becomes of this future; but if this future is cancelled, or a task that
// awaits it is, it goes on. If it fails after that, and nobody looks at it, its exception goes to
// the exception handler, as that of any future. What is done already is returned itself. A result
// that cannot be copied is moved out of the inner future. Throws as ensure_future. (asyncio.shield)
template <detail::Startable A>
Future<detail::StartedType<A>>
shield(A&& awaitable, std::source_location created = std::source_location::current()) {
    ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(A);
    using T = detail::StartedType<A>;
    const auto inner = detail::start_it(std::forward<A>(awaitable), created);
    if (inner.done()) return Future<T>::of(inner.state());
    auto* state = new detail::ShieldState<T>(inner.state());
    auto outer = Future<T>::of(*state);
    state->begin();
    return outer;
}

// Refused with a sentence.
template <int n = 0> detail::Refused shield(detail::AnyArgument) {
    static_assert(detail::never<n>,
                  "shield takes a coroutine, a task, a future, another awaitable, or a function "
                  "without arguments that returns a coroutine");
    return {};
}

ASYNCIO_END_NAMESPACE
