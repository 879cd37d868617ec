// SPDX-License-Identifier: MIT
// Context variables: values that belong to a task and to what it starts.
//
//     asyncio::ContextVar<std::string> request_id("request_id", "none");
//     request_id.set("4711");
//     ... request_id.get() ...     // "4711" here, and in tasks and callbacks started from here
//
// Code always runs in a context, which holds the values. A task, a scheduled callback and a
// done-callback each have one of their own: a copy of the one that was current when they were made,
// or a Context that they were given. What they set is seen by nobody else, unless they share that
// Context. (contextvars)
//
//     asyncio::Context context = asyncio::copy_context();
//     context.run([] { request_id.set("4712"); });
//     context.get(request_id);     // 4712, and here it is still "4711"
#pragma once

#include <asyncio/events.hpp>

#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

ASYNCIO_BEGIN_NAMESPACE

// get() of a variable that has neither a value nor a default. (LookupError)
class ASYNCIO_API LookupError : public std::out_of_range {
  public:
    using std::out_of_range::out_of_range;
    LookupError(const LookupError&) noexcept;
    LookupError& operator=(const LookupError&) noexcept;
    ~LookupError() override;
};

namespace detail {

// The value of the variable in the current context, or null.
ASYNCIO_API const std::shared_ptr<const void>* find_variable(std::uint64_t variable) noexcept;
// The value of the variable in these variables, or null.
ASYNCIO_API const std::shared_ptr<const void>* find_variable(const ContextRef& variables,
                                                             std::uint64_t variable) noexcept;
// A number that no other variable, and no other context of a Context, has.
ASYNCIO_API std::uint64_t new_variable() noexcept;
// Changes the current context; an empty value removes the variable.
ASYNCIO_API void set_variable(std::uint64_t variable, std::shared_ptr<const void> value);
// A number that tells the current context from all others.
ASYNCIO_API std::uint64_t current_context_id() noexcept;
[[noreturn]] ASYNCIO_API void throw_lookup_error(const std::string& name);
[[noreturn]] ASYNCIO_API void throw_not_in_context(const std::string& name);

// What set() changed. Move-only, since it can be used once.
class ASYNCIO_API TokenBase {
  public:
    TokenBase(TokenBase&& other) noexcept
        : old_(std::move(other.old_)), variable_(other.variable_), context_(other.context_),
          used_(std::exchange(other.used_, true)) {}
    TokenBase& operator=(TokenBase&&) = delete;

  protected:
    // Sets the variable.
    TokenBase(std::uint64_t variable, std::shared_ptr<const void> value);
    ~TokenBase();

    void reset(std::uint64_t variable);
    // The same if it can be done.
    void try_reset() noexcept;
    const std::shared_ptr<const void>& old() const noexcept { return old_; }

  private:
    std::shared_ptr<const void> old_;
    std::uint64_t variable_;
    std::uint64_t context_;
    bool used_ = false;
};

} // namespace detail

// A variable whose value depends on the context. T is copyable; variables are made once, as static
// objects or longer-lived members, and each is a variable of its own, whatever its name. May be
// used in any thread, also while no loop runs: then the thread has a context of its own.
// (contextvars.ContextVar)
template <class T> class ContextVar {
  public:
    // What a set() changed, for reset(). (contextvars.Token)
    class Token : public detail::TokenBase {
      public:
        Token(Token&&) noexcept = default;

        // The variable. (Token.var)
        const ContextVar& var() const noexcept { return *var_; }
        // What it was before; empty if it had no value. (Token.old_value, Token.MISSING)
        std::optional<T> old_value() const {
            if (this->old() == nullptr) return std::nullopt;
            return *static_cast<const T*>(this->old().get());
        }

      private:
        friend class ContextVar;
        Token(const ContextVar& var, std::shared_ptr<const void> value)
            : TokenBase(var.number_, std::move(value)), var_(&var) {}
        const ContextVar* var_;
    };

    // Resets the variable at the end of its life. (`with var.set(value):`)
    class [[nodiscard]] Scoped : private Token {
      public:
        Scoped(Scoped&&) noexcept = default;
        // In another context, as when a suspended coroutine is destroyed: does nothing.
        ~Scoped() { this->try_reset(); }

      private:
        friend class ContextVar;
        explicit Scoped(Token&& token) noexcept : Token(std::move(token)) {}
    };

    explicit ContextVar(std::string name) : name_(std::move(name)) {}
    ContextVar(std::string name, T value)
        : name_(std::move(name)), default_(std::in_place, std::move(value)) {}
    ContextVar(const ContextVar&) = delete;
    ContextVar& operator=(const ContextVar&) = delete;

    const std::string& name() const noexcept { return name_; }

    // A copy of the value in the current context, else the default. Throws LookupError if there is
    // neither. (ContextVar.get)
    T get() const {
        if (const auto* value = detail::find_variable(number_)) return copy_of(*value);
        if (!default_) detail::throw_lookup_error(name_);
        return *default_;
    }
    // The same with another default.
    T get(T otherwise) const {
        if (const auto* value = detail::find_variable(number_)) return copy_of(*value);
        return otherwise;
    }
    // Sets it in the current context. The token may be dropped. (ContextVar.set)
    Token set(T value) const { return Token(*this, std::make_shared<const T>(std::move(value))); }
    // Sets it until the end of the scope: `auto scoped = var.scoped(value);`
    Scoped scoped(T value) const { return Scoped(set(std::move(value))); }
    // Puts back what was there before the set() that gave the token. Throws ValueError for a token
    // of another variable, or of a set() in another context; RuntimeError for one that was used.
    // (ContextVar.reset)
    void reset(Token& token) const { token.TokenBase::reset(number_); }
    void reset(Token&& token) const { reset(token); }

  private:
    friend class Context;

    // NOLINTNEXTLINE(performance-unnecessary-value-param): kept while it is copied
    static T copy_of(std::shared_ptr<const void> kept) { // T's copy constructor may set() it
        return *static_cast<const T*>(kept.get());
    }

    // Not its address: a context may hold the value of a variable that is destroyed, and another
    // may have taken its place.
    const std::uint64_t number_ = detail::new_variable();
    std::string name_;
    std::optional<T> default_;
};

// A context, by a handle: copies mean the same context; copy() makes another. Belongs to one thread
// at a time. (contextvars.Context)
class ASYNCIO_API Context {
  public:
    // One without any value.
    Context() : Context(detail::ContextRef()) {}
    Context(const Context&) = default; // and no move: there is no handle of nothing
    Context& operator=(const Context&) = default;

    // Calls function(arguments...) in this context, and gives what it returns. A coroutine that it
    // makes does not run in it: use `create_task(TaskOptions().context(context), ...)`. Throws
    // RuntimeError if something runs in this context already. (Context.run)
    template <class F, class... Args> decltype(auto) run(F&& function, Args&&... arguments) const {
        const Entered entered(*box_.box());
        return std::forward<F>(function)(std::forward<Args>(arguments)...);
    }
    // Another context with the same values. (Context.copy)
    Context copy() const { return Context(box_.variables()); }

    // The value that was set in this context; the variable's default does not count. Without one:
    // empty; `otherwise`; and for [] LookupError. (Context.get, Context[...])
    template <class T> std::optional<T> get(const ContextVar<T>& variable) const {
        const auto* value = find(variable);
        if (value == nullptr) return std::nullopt;
        return variable.copy_of(*value);
    }
    template <class T>
    T get(const ContextVar<T>& variable, std::type_identity_t<T> otherwise) const {
        const auto* value = find(variable);
        return value != nullptr ? variable.copy_of(*value) : otherwise;
    }
    template <class T> T operator[](const ContextVar<T>& variable) const {
        const auto* value = find(variable);
        if (value == nullptr) detail::throw_not_in_context(variable.name());
        return variable.copy_of(*value);
    }
    // (variable in context)
    template <class T> bool contains(const ContextVar<T>& variable) const noexcept {
        return find(variable) != nullptr;
    }
    // How many variables have a value. (len(context))
    std::size_t size() const noexcept;

    // Whether both are handles of the same context.
    friend bool operator==(const Context& a, const Context& b) noexcept {
        return a.box_.get() == b.box_.get();
    }

    // For the library.
    explicit Context(detail::ContextRef variables);
    static Context of(detail::ContextBox& box) noexcept;
    const detail::ContextRef& ref() const noexcept { return box_; }

  private:
    // While it lives, the context is the current one.
    class ASYNCIO_API Entered {
      public:
        explicit Entered(detail::ContextBox& box);
        ~Entered();
        Entered(const Entered&) = delete;
        Entered& operator=(const Entered&) = delete;

      private:
        detail::ContextRef& current_;
        detail::ContextRef outer_;
        detail::LoopCore* core_ = nullptr; // set if outer_ is the own context of what runs
    };
    struct Named {};
    Context(detail::ContextRef box, Named) noexcept : box_(std::move(box)) {}

    template <class T>
    const std::shared_ptr<const void>* find(const ContextVar<T>& variable) const noexcept {
        return detail::find_variable(box_.box()->variables, variable.number_);
    }

    detail::ContextRef box_; // always a ContextBox
};

// A context with the values of the current one. What is set in either is not seen in the other.
// (contextvars.copy_context)
ASYNCIO_API Context copy_context();

ASYNCIO_END_NAMESPACE
