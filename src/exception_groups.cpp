// SPDX-License-Identifier: MIT
#include <asyncio/exception_groups.hpp>

#include <asyncio/detail/location.hpp>

#include "is_a.hpp"

#include <algorithm>

ASYNCIO_BEGIN_NAMESPACE

struct ExceptionGroup::Data {
    std::string message;
    Exceptions exceptions;
    std::string what;
};

namespace {

// Calls visit(group) if it is one. What it visits lives as long as the exception.
template <class Visit> bool visit_group(const std::exception_ptr& exception, Visit visit) {
    if (!detail::is_a<ExceptionGroup>(exception)) return false;
    try {
        std::rethrow_exception(exception);
    } catch (const ExceptionGroup& group) {
        visit(group);
    }
    return true;
}

std::string headline(const std::string& message, std::size_t count) {
    return message + " (" + std::to_string(count) + " sub-exception" + (count == 1 ? ")" : "s)");
}

// Each line of the text, indented.
void append_indented(std::string& tree, const std::string& text) {
    std::size_t begin = 0;
    for (bool first = true; begin <= text.size(); first = false) {
        const std::size_t end = std::min(text.find('\n', begin), text.size());
        tree += first ? "\n  + " : "\n    ";
        tree.append(text, begin, end - begin);
        begin = end + 1;
    }
}

} // namespace

namespace detail {

std::string describe_exception(const std::exception_ptr& exception) {
    const std::type_info* type = exception.__cxa_exception_type();
    std::string text = type != nullptr ? readable_type(*type) : "unknown type";
    const auto add = [&text](const char* what) {
        if (what != nullptr && *what != '\0') text += std::string(": ") + what;
    };
    try {
        std::rethrow_exception(exception);
    } catch (const std::exception& error) {
        add(error.what());
    } catch (const CancelledError& error) {
        add(error.message());
    } catch (const SystemExit& exit) {
        add(std::to_string(exit.code()).c_str());
    } catch (...) {
        return text; // of what type it is has been said
    }
    return text;
}

} // namespace detail

ExceptionGroup::ExceptionGroup(std::string message, Exceptions exceptions) {
    if (exceptions.empty())
        throw ValueError("an ExceptionGroup must hold at least one exception: throw it only if "
                         "there is one");
    std::string what = headline(message, exceptions.size());
    for (const std::exception_ptr& one : exceptions) {
        if (one == nullptr) throw ValueError("an ExceptionGroup cannot hold a null exception_ptr");
        append_indented(what, detail::describe_exception(one));
    }
    data_ = std::make_shared<const Data>(
        Data{std::move(message), std::move(exceptions), std::move(what)});
}

ExceptionGroup::ExceptionGroup(const ExceptionGroup&) noexcept = default;
ExceptionGroup& ExceptionGroup::operator=(const ExceptionGroup&) noexcept = default;
ExceptionGroup::~ExceptionGroup() = default;

const std::string& ExceptionGroup::message() const noexcept { return data_->message; }
const ExceptionGroup::Exceptions& ExceptionGroup::exceptions() const noexcept {
    return data_->exceptions;
}
const char* ExceptionGroup::what() const noexcept { return data_->what.c_str(); }

ExceptionGroup::Parts ExceptionGroup::split_by(Matches matches, void* closure) const {
    return split_by(std::make_exception_ptr(*this), matches, closure);
}

ExceptionGroup::Parts ExceptionGroup::split_by(const std::exception_ptr& self, Matches matches,
                                               void* closure) const {
    Parts parts;
    if (matches(closure, self)) {
        parts.matching = *this;
        return parts;
    }
    Exceptions matching;
    Exceptions rest;
    for (const std::exception_ptr& one : exceptions()) {
        const bool is_group = visit_group(one, [&](const ExceptionGroup& group) {
            const Parts inner = group.split_by(one, matches, closure);
            if (inner.matching)
                matching.push_back(inner.rest ? std::make_exception_ptr(*inner.matching) : one);
            if (inner.rest)
                rest.push_back(inner.matching ? std::make_exception_ptr(*inner.rest) : one);
        });
        if (!is_group) (matches(closure, one) ? matching : rest).push_back(one);
    }
    if (rest.empty()) {
        parts.matching = *this;
    } else if (matching.empty()) {
        parts.rest = *this;
    } else {
        parts.matching.emplace(message(), std::move(matching));
        parts.rest.emplace(message(), std::move(rest));
    }
    return parts;
}

ASYNCIO_END_NAMESPACE
