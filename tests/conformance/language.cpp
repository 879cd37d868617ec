// SPDX-License-Identifier: MIT
#include "language.hpp"

#include <array>
#include <cctype>
#include <charconv>
#include <map>
#include <stdexcept>

namespace conformance {
namespace {

#define CONFORMANCE_NAME(name) std::string_view(#name),
constexpr std::array names{CONFORMANCE_ASYNCHRONOUS(CONFORMANCE_NAME) CONFORMANCE_SYNCHRONOUS(
    CONFORMANCE_NAME) CONFORMANCE_PARTS(CONFORMANCE_NAME)};
#undef CONFORMANCE_NAME

const std::map<std::string_view, Op>& ops() {
    static const std::map<std::string_view, Op> all = [] {
        std::map<std::string_view, Op> by_name;
        for (std::size_t i = 0; i < names.size(); ++i)
            by_name[name_of(static_cast<Op>(i))] = static_cast<Op>(i);
        return by_name;
    }();
    return all;
}

class Parser {
  public:
    explicit Parser(std::string_view text) : text_(text) {}

    Node program() {
        Node node = parse_node();
        skip_spaces();
        if (at_ != text_.size()) fail("the text goes on after the program");
        return node;
    }

  private:
    Node parse_node() {
        skip_spaces();
        if (!take('(')) fail("'(' is missing");
        const std::size_t begin = at_;
        while (at_ < text_.size() && (std::islower(text_[at_]) != 0 || text_[at_] == '_')) ++at_;
        const auto found = ops().find(text_.substr(begin, at_ - begin));
        if (found == ops().end()) fail("no statement has this name");
        Node node{found->second, {}, {}, next_id_++};
        for (;;) {
            skip_spaces();
            if (take(')')) return node;
            if (at_ < text_.size() && text_[at_] == '(') {
                node.children.push_back(parse_node());
                continue;
            }
            long number = 0;
            const auto [end, error] =
                std::from_chars(text_.data() + at_, text_.data() + text_.size(), number);
            if (error != std::errc()) fail("a number, '(' or ')' is missing");
            at_ = static_cast<std::size_t>(end - text_.data());
            node.numbers.push_back(number);
        }
    }
    void skip_spaces() {
        while (at_ < text_.size() && text_[at_] == ' ') ++at_;
    }
    bool take(char c) {
        if (at_ == text_.size() || text_[at_] != c) return false;
        ++at_;
        return true;
    }
    [[noreturn]] void fail(const std::string& what) const {
        throw std::runtime_error(what + " at character " + std::to_string(at_) + " of " +
                                 std::string(text_));
    }

    std::string_view text_;
    std::size_t at_ = 0;
    int next_id_ = 0;
};

void number_from(Node& node, int& id) {
    node.id = id++;
    for (Node& child : node.children) number_from(child, id);
}

} // namespace

std::string_view name_of(Op op) {
    std::string_view name = names[static_cast<std::size_t>(op)];
    if (name.back() == '_') name.remove_suffix(1); // return_, a word of C++
    return name;
}

Node parse(std::string_view text) { return Parser(text).program(); }

std::string print(const Node& node) {
    std::string text = "(";
    text += name_of(node.op);
    for (const long number : node.numbers) text += " " + std::to_string(number);
    for (const Node& child : node.children) text += " " + print(child);
    return text + ")";
}

void number_nodes(Node& program) {
    int id = 0;
    number_from(program, id);
}

} // namespace conformance
