// SPDX-License-Identifier: MIT
// AsyncGenerator<T>: a coroutine that gives many values, one by one, and may await in between.
//
//     asyncio::AsyncGenerator<int> countdown(int n) {
//         for (; n > 0; --n) {
//             co_yield n;
//             co_await asyncio::sleep(1s);
//         }
//     }
//
//     auto numbers = countdown(10);
//     while (auto number = co_await numbers.next()) std::cout << *number << '\n';
//
// Its body runs inside the task that awaits next(), and stands still at each co_yield until the
// next one. (asynchronous generators; PEP 525)
//
// Who leaves the loop early has two ways. `co_await numbers.aclose()` has the body end: its
// co_yield throws GeneratorExit, and it may await while it cleans up. A generator that is only
// destroyed is destroyed at once with its locals, and its body does not go on: what has to be
// awaited for a clean-up needs aclose(). That differs from Python, where a generator that is
// dropped closes itself some turns later: in C++ what its body refers to would be gone by then.
// Generators that are left when run() ends are closed by it.
#pragma once

#include <asyncio/tasks.hpp>

#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <source_location>
#include <type_traits>
#include <utility>

ASYNCIO_BEGIN_NAMESPACE

template <class T> class AsyncGenerator;

// Thrown by a generator's co_yield when it is closed. Outside std::exception, as in Python; let it
// pass, or return: who yields once more gets aclose() to throw RuntimeError. (GeneratorExit)
class ASYNCIO_API GeneratorExit final {
  public:
    GeneratorExit() noexcept;
    GeneratorExit(const GeneratorExit&) noexcept;
    GeneratorExit& operator=(const GeneratorExit&) noexcept;
    ~GeneratorExit();
    const char* what() const noexcept;
};

namespace detail {

class GeneratorBase;

// What the promises of generators have, whatever the type of the values.
class ASYNCIO_API GeneratorPromiseBase : public PromiseBase {
  public:
    // Where it stands still: goes on with who awaits next().
    struct Yielding {
        bool await_ready() const noexcept { return false; }
        template <class Promise, int = ASYNCIO_TRAMPOLINE>
        auto
        await_suspend(std::coroutine_handle<Promise> frame,
                      std::source_location where = std::source_location::current()) const noexcept {
            PromiseBase& promise = frame.promise();
            promise.where = where;
            promise.task->set_innermost(promise.outer());
#if !ASYNCIO_TRAMPOLINE
            return promise.outer();
#endif
        }
        void await_resume() const {
            if (generator.is_closing) throw GeneratorExit();
        }
        const GeneratorPromiseBase& generator;
    };

    ~GeneratorPromiseBase(); // tells the owner
    void return_void() const noexcept {}

    GeneratorBase* owner = nullptr; // null: it was destroyed while the body runs
    bool is_closing = false;

  protected:
    GeneratorPromiseBase() = default;
};

// Owns the frame, but while an await of it is under way.
class ASYNCIO_API GeneratorBase {
  public:
    GeneratorBase(GeneratorBase&& other) noexcept { take(other); }
    GeneratorBase& operator=(GeneratorBase&& other) noexcept;
    ~GeneratorBase() { drop(); }

    // An await of the body, until it yields or ends.
    class ASYNCIO_API Step {
      public:
        using AsyncioAwaiter = void;

        Step(GeneratorBase& generator, bool closes) noexcept
            : generator_(&generator), closes_(closes) {}
        Step(Step&& other) noexcept : Step(*other.generator_, other.closes_) {}
        Step& operator=(Step&&) = delete;
        // The frame is still there only if the frame that awaits it is destroyed meanwhile.
        ~Step() {
            if (frame_) [[unlikely]] {
                destroy_inner(frame_);
            }
        }

        bool await_ready() const { return !generator_->ready_to_run(closes_); }
        template <std::derived_from<PromiseBase> Outer, int = ASYNCIO_TRAMPOLINE>
        auto await_suspend(std::coroutine_handle<Outer> outer,
                           std::source_location where = std::source_location::current()) noexcept {
            PromiseBase& from = outer.promise();
            from.where = where;
            frame_ = generator_->frame_;
            generator_->state_ = running;
            GeneratorPromiseBase& inner = generator_->promise();
            inner.is_closing = closes_;
            inner.set_outer(outer);
            inner.task = from.task;
            from.task->set_innermost(frame_);
#if !ASYNCIO_TRAMPOLINE
            return frame_;
#endif
        }

      protected:
        // The promise if the body has yielded; null if it has ended, or if nobody has the generator
        // any more: then the frame is gone. What the body threw is in `thrown`.
        GeneratorPromiseBase* finish(std::exception_ptr& thrown) noexcept;

      private:
        GeneratorBase* generator_;
        std::coroutine_handle<> frame_; // while the body runs
        bool closes_;
    };

  protected:
    explicit GeneratorBase(GeneratorPromiseBase& promise) noexcept
        : frame_(std::coroutine_handle<PromiseBase>::from_promise(promise)) {
        promise.owner = this;
    }
    // What becomes of aclose().
    static void end_close(const GeneratorPromiseBase* yielded, std::exception_ptr thrown);

  private:
    friend class GeneratorPromiseBase;
    friend class GeneratorsLeft;

    enum State : std::uint8_t { created, suspended, running };

    GeneratorPromiseBase& promise() const noexcept {
        return static_cast<GeneratorPromiseBase&>(promise_of(frame_));
    }
    // False if the body has ended; and if it is to be closed and never began, which ends it. Throws
    // RuntimeError if it runs.
    bool ready_to_run(bool closes);
    void take(GeneratorBase& other) noexcept;
    void drop() noexcept;
    void unlink() noexcept;

    std::coroutine_handle<> frame_; // null: the body has ended
    State state_ = created;
    // Of those of a loop that have begun and not ended.
    GeneratorBase* next_ = nullptr;
    GeneratorBase** link_ = nullptr; // what points here
};

template <class T> class GeneratorPromise final : public GeneratorPromiseBase {
  public:
    AsyncGenerator<T> get_return_object() noexcept;

    struct YieldingCopy : Yielding {
        T copy;
        YieldingCopy(GeneratorPromise& promise, const T& given) : Yielding{promise}, copy(given) {}
        template <class Promise, int = ASYNCIO_TRAMPOLINE>
        auto await_suspend(std::coroutine_handle<Promise> frame,
                           std::source_location where = std::source_location::current()) noexcept {
            frame.promise().value = std::addressof(copy);
            return Yielding::await_suspend(frame, where);
        }
    };
    Yielding yield_value(T&& value_given) noexcept {
        value = std::addressof(value_given);
        return {*this};
    }
    YieldingCopy yield_value(const T& value_given) {
        static_assert(std::is_copy_constructible_v<T>,
                      "this value cannot be copied: co_yield std::move(value)");
        return {*this, value_given};
    }

    T* value = nullptr; // inside of the frame, while it stands at a co_yield
};

} // namespace detail

template <class T>
class [[nodiscard(
    "a generator does nothing until next() is awaited")]] ASYNCIO_CORO_TYPE AsyncGenerator
    : public detail::GeneratorBase {
  public:
    static_assert(std::is_object_v<T> && std::is_move_constructible_v<T>,
                  "a generator gives values that can be moved: a std::reference_wrapper, or a "
                  "pointer, in place of a reference");
    using promise_type = detail::GeneratorPromise<T>;
    using value_type = T;

    AsyncGenerator(AsyncGenerator&&) noexcept = default;
    AsyncGenerator& operator=(AsyncGenerator&&) noexcept = default;
    // Destroys the body where it stands, with its locals; if it runs just now, in another task,
    // once it yields or ends.
    ~AsyncGenerator() = default;

    class [[nodiscard("nothing runs until it is awaited")]] Next final : public Step {
      public:
        explicit Next(AsyncGenerator& generator) noexcept : Step(generator, false) {}
        std::optional<T> await_resume() { return take_result().value(); }
        Result<std::optional<T>> take_result() {
            std::exception_ptr thrown;
            auto* promise = static_cast<promise_type*>(this->finish(thrown));
            if (thrown != nullptr) return Result<std::optional<T>>(std::move(thrown));
            if (promise == nullptr) return Result<std::optional<T>>(std::optional<T>());
            return Result<std::optional<T>>(std::optional<T>(std::move(*promise->value)));
        }
    };
    class [[nodiscard("nothing is closed until it is awaited")]] Close final : public Step {
      public:
        explicit Close(AsyncGenerator& generator) noexcept : Step(generator, true) {}
        void await_resume() {
            std::exception_ptr thrown;
            const auto* yielded = this->finish(thrown);
            AsyncGenerator::end_close(yielded, std::move(thrown));
        }
    };

    // Runs the body to its next co_yield, and gives that value; empty when the body has ended, and
    // from then on. Throws what the body throws. A cancel of the task arrives at the await in the
    // body at which it stands; a body that lets it pass has ended then. Throws RuntimeError if the
    // body runs already, in another task. (__anext__)
    Next next() noexcept { return Next(*this); }
    // Ends the body: see above. Does nothing if it has ended, or has not begun. Throws what the
    // body throws, but for GeneratorExit, and RuntimeError if it yields once more. (aclose)
    Close aclose() noexcept { return Close(*this); }

  private:
    friend promise_type;
    explicit AsyncGenerator(promise_type& promise) noexcept : GeneratorBase(promise) {}
};

namespace detail {

template <class T> AsyncGenerator<T> GeneratorPromise<T>::get_return_object() noexcept {
    return AsyncGenerator<T>(*this);
}

} // namespace detail

// Closes all generators of the loop that have begun and not ended, and waits for that; failures go
// to the exception handler. run() and Runner::close() do that by themselves.
// (loop.shutdown_asyncgens)
ASYNCIO_API Coro<> shutdown_asyncgens();

ASYNCIO_END_NAMESPACE
