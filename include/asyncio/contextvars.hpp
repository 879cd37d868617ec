// SPDX-License-Identifier: MIT
// Context variables: values that belong to a task and to what it starts.
//
//     asyncio::ContextVar<std::string> request_id("request_id", "none");
//     request_id.set("4711");
//     ... request_id.get() ...     // "4711" here, and in tasks and callbacks started from here
//
// A task, a scheduled callback and a done-callback begin with the variables as they were where they
// were made; what they set is seen by nobody else. (contextvars.ContextVar)
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
// A number that no other variable has.
ASYNCIO_API std::uint64_t new_variable() noexcept;
// Changes the current context; an empty value removes the variable.
ASYNCIO_API void set_variable(std::uint64_t variable, std::shared_ptr<const void> value);
[[noreturn]] ASYNCIO_API void throw_lookup_error(const std::string& name);

} // namespace detail

template <class T> class ContextVar {
  public:
    // What set() changed, for reset(). (contextvars.Token)
    class Token {
      private:
        friend class ContextVar;
        std::uint64_t variable_ = 0;
        std::shared_ptr<const void> old_;
        bool used_ = false;
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
        if (const auto* value = detail::find_variable(number_)) {
            const std::shared_ptr<const void> kept = *value; // T's copy constructor may set() it
            return *static_cast<const T*>(kept.get());
        }
        if (!default_) detail::throw_lookup_error(name_);
        return *default_;
    }
    // The same with another default.
    T get(T otherwise) const {
        if (const auto* value = detail::find_variable(number_)) {
            const std::shared_ptr<const void> kept = *value; // T's copy constructor may set() it
            return *static_cast<const T*>(kept.get());
        }
        return otherwise;
    }
    // Sets it in the current context. (ContextVar.set)
    Token set(T value) const {
        Token token;
        token.variable_ = number_;
        if (const auto* old = detail::find_variable(number_)) token.old_ = *old;
        detail::set_variable(number_, std::make_shared<const T>(std::move(value)));
        return token;
    }
    // Puts back what was there before the set() that gave the token. Throws ValueError for a token
    // of another variable, RuntimeError for one that was used. (ContextVar.reset)
    void reset(Token& token) const {
        if (token.variable_ != number_)
            throw ValueError("the token was created by a different ContextVar");
        if (token.used_) throw RuntimeError("the token has already been used once");
        detail::set_variable(number_, token.old_);
        token.used_ = true;
    }
    void reset(Token&& token) const { reset(token); }

  private:
    // Not its address: a context may hold the value of a variable that is destroyed, and another
    // may have taken its place.
    const std::uint64_t number_ = detail::new_variable();
    std::string name_;
    std::optional<T> default_;
};

ASYNCIO_END_NAMESPACE
