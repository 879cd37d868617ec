// SPDX-License-Identifier: MIT
// ExceptionGroup: several exceptions that happened side by side, thrown as one.
//
//     try {
//         co_await asyncio::task_group(body);
//     } catch (const asyncio::ExceptionGroup& group) {
//         auto parts = group.split<std::system_error>();
//         if (parts.matching) log(parts.matching->what());
//         if (parts.rest) throw *parts.rest;
//     }
//
// C++ has no `except*`: split() and subgroup() stand for it. Groups may be nested. There is one
// class for Python's two: a group is a std::exception also if a CancelledError is among what it
// holds, which a TaskGroup never does.
#pragma once

#include <asyncio/detail/config.hpp>

#include <cstddef>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

ASYNCIO_BEGIN_NAMESPACE

// (ExceptionGroup, BaseExceptionGroup)
class ASYNCIO_API ExceptionGroup final : public std::exception {
  public:
    using Exceptions = std::vector<std::exception_ptr>;
    using const_iterator = Exceptions::const_iterator;

    // Throws ValueError if there are no exceptions, or a null one.
    ExceptionGroup(std::string message, Exceptions exceptions);
    ExceptionGroup(const ExceptionGroup&) noexcept;
    ExceptionGroup& operator=(const ExceptionGroup&) noexcept;
    ~ExceptionGroup() override;

    // Without the number of exceptions. (ExceptionGroup.message)
    const std::string& message() const noexcept;
    // In their order; a group among them is one exception. (ExceptionGroup.exceptions)
    const Exceptions& exceptions() const noexcept;
    const_iterator begin() const noexcept { return exceptions().begin(); }
    const_iterator end() const noexcept { return exceptions().end(); }
    std::size_t size() const noexcept { return exceptions().size(); }

    // The message as Python gives it, "unhandled errors in a TaskGroup (2 sub-exceptions)", and
    // below it the tree, a line for each exception.
    const char* what() const noexcept override;

    struct Parts;

    // The group in two, each with the message and the nesting that it had: the exceptions that are
    // an E, or for which matches(exception_ptr) is true, and the rest. A part without exceptions is
    // not there. If a whole group matches, it goes as a whole. (ExceptionGroup.split)
    template <class E> Parts split() const;
    template <class F>
        requires std::is_invocable_r_v<bool, F&, const std::exception_ptr&>
    Parts split(F&& matches) const;

    // The first of these parts. (ExceptionGroup.subgroup)
    template <class E> std::optional<ExceptionGroup> subgroup() const;
    template <class F>
        requires std::is_invocable_r_v<bool, F&, const std::exception_ptr&>
    std::optional<ExceptionGroup> subgroup(F&& matches) const;

  private:
    struct Data;
    using Matches = bool (*)(void* closure, const std::exception_ptr& exception);

    Parts split_by(Matches matches, void* closure) const;
    Parts split_by(const std::exception_ptr& self, Matches matches, void* closure) const;

    template <class E> static bool is_a(void*, const std::exception_ptr& one) {
        try {
            std::rethrow_exception(one);
        } catch (const E&) {
            return true;
        } catch (...) {
            return false;
        }
    }

    std::shared_ptr<const Data> data_;
};

struct ExceptionGroup::Parts {
    std::optional<ExceptionGroup> matching;
    std::optional<ExceptionGroup> rest;
};

template <class E> ExceptionGroup::Parts ExceptionGroup::split() const {
    return split_by(&is_a<E>, nullptr);
}
template <class F>
    requires std::is_invocable_r_v<bool, F&, const std::exception_ptr&>
ExceptionGroup::Parts ExceptionGroup::split(F&& matches) const { // NOLINT: called, never kept
    const auto call = [](void* closure, const std::exception_ptr& one) -> bool {
        return (*static_cast<std::remove_reference_t<F>*>(closure))(one);
    };
    return split_by(call, const_cast<void*>(static_cast<const void*>(std::addressof(matches))));
}
template <class E> std::optional<ExceptionGroup> ExceptionGroup::subgroup() const {
    return split<E>().matching;
}
template <class F>
    requires std::is_invocable_r_v<bool, F&, const std::exception_ptr&>
std::optional<ExceptionGroup> ExceptionGroup::subgroup(F&& matches) const {
    return split(std::forward<F>(matches)).matching;
}

namespace detail {

// "std::runtime_error: text": the type and what() of any exception.
ASYNCIO_API std::string describe_exception(const std::exception_ptr& exception);

} // namespace detail
ASYNCIO_END_NAMESPACE
