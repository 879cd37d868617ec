// SPDX-License-Identifier: MIT
#include <asyncio/detail/location.hpp>

#include <cctype>
#include <cstdlib>
#include <cxxabi.h>
#include <memory>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {
namespace {

void replace_all(std::string& text, std::string_view from, std::string_view to) {
    for (std::size_t at = text.find(from); at != std::string::npos;
         at = text.find(from, at + to.size())) {
        text.replace(at, from.size(), to);
    }
}

bool is_word(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }

// The end of what is in brackets from `at` on.
std::size_t end_of_brackets(std::string_view text, std::size_t at) {
    int depth = 0;
    for (; at < text.size(); ++at) {
        const char c = text[at];
        if (c == '(' || c == '<' || c == '[' || c == '{') ++depth;
        if (c == ')' || c == '>' || c == ']' || c == '}') --depth;
        if (depth == 0) return at + 1;
    }
    return at;
}

} // namespace

std::string Location::text() const {
    const std::source_location where = get();
    return std::string(where.file_name()) + ":" + std::to_string(where.line());
}

std::string Location::function() const { return readable_function(get().function_name()); }

// Goes through the text, and copies what is outside of brackets: up to the bracket of the
// parameters, after which nothing follows but what is inside of the function.
std::string readable_function(std::string_view name) {
    std::string text(name);
    replace_all(text, "(anonymous namespace)::", "");
    replace_all(text, "{anonymous}::", "");
    replace_all(text, "(anonymous class)", "<lambda>");
    replace_all(text, "asyncio::v0::", "asyncio::");
    constexpr std::string_view lambda = "<lambda";
    std::string result;
    const std::string_view rest = text;
    for (std::size_t at = 0; at < rest.size();) {
        const std::string_view here = rest.substr(at);
        if (here.starts_with(lambda)) {
            result += "<lambda>";
            at = end_of_brackets(rest, at);
        } else if (here.starts_with("operator") && (at == 0 || !is_word(rest[at - 1])) &&
                   (here.size() == 8 || !is_word(here[8]))) {
            // Up to the parameters; the first "()" may be part of the name.
            const std::size_t parameters =
                here.find('(', here.substr(8).starts_with("()") ? 10 : 8);
            result += here.substr(0, parameters);
            at = parameters == std::string_view::npos ? rest.size() : at + parameters;
        } else if (here.front() == '(') {
            at = end_of_brackets(rest, at);
            if (result == "decltype") continue; // decltype(auto)
            const std::size_t inner = rest.find("::", at);
            const std::string_view between = rest.substr(at, inner - at);
            // "f() const::<lambda()>"; what else follows, "[with T = a::b]", is no part of a name.
            if (inner == std::string_view::npos ||
                between.find_first_not_of(" abcdefghijklmnopqrstuvwxyz&") != std::string::npos) {
                break;
            }
            at = inner;
        } else if (here.front() == '<') {
            at = end_of_brackets(rest, at);
        } else if (here.front() == ' ') {
            result.clear(); // a word of the result's type
            ++at;
        } else {
            result += here.front();
            ++at;
        }
    }
    result.erase(0, result.find_first_not_of("*&"));
    replace_all(result, "<lambda>::operator()", "<lambda>");
    return result.empty() ? std::string(name) : result;
}

std::string readable_type(const std::type_info& type) {
    int status = 0;
    const auto release = [](char* text) { std::free(text); };
    const std::unique_ptr<char, decltype(release)> demangled(
        abi::__cxa_demangle(type.name(), nullptr, nullptr, &status));
    std::string text = status == 0 && demangled != nullptr ? demangled.get() : type.name();
    replace_all(text, "(anonymous namespace)::", "");
    replace_all(text, "asyncio::v0::", "asyncio::");
    replace_all(text, "std::__cxx11::", "std::");
    // What std::throw_with_nested makes of an exception.
    constexpr std::string_view nested = "std::_Nested_exception<";
    if (text.starts_with(nested))
        text = text.substr(nested.size(), text.size() - nested.size() - 1);
    return text;
}

} // namespace detail
ASYNCIO_END_NAMESPACE
