// SPDX-License-Identifier: MIT
// asyncio_conformance: runs conformance programs on the library.
//
//     asyncio_conformance --run SEED COUNT   random programs: each, its log and a line "."; what
//                                            occurred how often, in the end
//     asyncio_conformance --serve            the same for the programs on standard input
//     asyncio_conformance --golden FILE      holds the programs of seed 1 and on against CPython's
//                                            traces in the file, which conform.py has recorded
#include "language.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <fstream>
#include <iostream>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace conformance {
namespace {

using Log = std::vector<std::string>;

// In how many programs what occurred.
class Statistics {
  public:
    void add(const Log& log) {
        ++programs_;
        std::set<std::string_view> seen;
        for (const std::string& line : log) {
            for (const auto& [name, text] : outcomes) {
                if (line.find(text) != std::string::npos) seen.insert(name);
            }
            // "turn task node name result"
            std::string_view rest = line;
            for (int i = 0; i < 3; ++i)
                rest.remove_prefix(std::min(rest.size(), rest.find(' ') + 1));
            // A statement that had nothing to work on does not count.
            if (!rest.ends_with(" -")) seen.insert(rest.substr(0, rest.find(' ')));
        }
        for (std::size_t i = 0; i < statement_count; ++i)
            statements_[i] += seen.count(name_of(static_cast<Op>(i)));
        for (std::size_t i = 0; i < std::size(outcomes); ++i)
            occurred_[i] += seen.count(outcomes[i].first);
    }
    void print(std::ostream& out) const {
        out << "Of " << programs_ << " programs, so many per cent had:\n";
        for (std::size_t i = 0; i < statement_count; ++i)
            print_one(out, i, name_of(static_cast<Op>(i)), statements_[i]);
        out << "\nand these outcomes:\n";
        for (std::size_t i = 0; i < std::size(outcomes); ++i)
            print_one(out, i, outcomes[i].first, occurred_[i]);
        out << "\n";
    }
    // The statements that fewer than one program in a hundred has executed.
    std::vector<std::string_view> rare() const {
        std::vector<std::string_view> names;
        for (std::size_t i = 0; i < statement_count; ++i) {
            if (statements_[i] * 100 <= programs_) names.push_back(name_of(static_cast<Op>(i)));
        }
        return names;
    }

  private:
    static constexpr std::pair<std::string_view, std::string_view> outcomes[] = {
        {"cancelled", "!CancelledError"},
        {"cancelled in the end", "!CancelledError(end)"},
        {"swallowed cancel", "caught CancelledError"},
        {"timed out", "!TimeoutError(the time is up)"},
        {"group of errors", "!Group("},
        {"group in a group", "Group(unhandled errors in a TaskGroup)[Group"},
        {"deadlock", "deadlock"},
        {"never ends", "left for ever"},
        {"never retrieved", "unretrieved"},
        {"failed callback", "handler callback"},
        {"escaped SystemExit", "escaped SystemExit"},
        {"broken barrier", "BrokenBarrierError"},
        {"queue shut down", "QueueShutDown"},
        {"queue empty", "QueueEmpty"},
        {"queue full", "QueueFull"},
        {"ValueError", "!ValueError"},
        {"RuntimeError", "!RuntimeError"},
        {"InvalidStateError", "!InvalidStateError"},
        {"LookupError", "!LookupError"},
    };

    void print_one(std::ostream& out, std::size_t i, std::string_view name,
                   std::size_t count) const {
        char text[64];
        std::snprintf(text, sizeof text, "%-21.*s%5.1f", static_cast<int>(name.size()), name.data(),
                      100.0 * static_cast<double>(count) / static_cast<double>(programs_));
        out << text << (i % 4 == 3 ? "\n" : "   ");
    }

    std::size_t programs_ = 0;
    std::size_t statements_[statement_count] = {};
    std::size_t occurred_[std::size(outcomes)] = {};
};

void print_log(const Node& program) {
    for (const std::string& line : run(program)) std::cout << line << '\n';
    std::cout << "." << std::endl;
}

int run_random(std::size_t seed, std::size_t count) {
    Statistics statistics;
    for (std::size_t i = seed; i < seed + count; ++i) {
        const Node program = generate(i);
        std::cout << print(program) << std::endl; // now, since it may be the last thing it does
        const Log log = run(program);
        for (const std::string& line : log) std::cout << line << '\n';
        std::cout << ".\n";
        statistics.add(log);
    }
    statistics.print(std::cout);
    return 0;
}

int serve() {
    std::string text;
    while (std::getline(std::cin, text)) print_log(parse(text));
    return 0;
}

// FNV-1a.
class Hash {
  public:
    void add(std::string_view text) {
        for (const char c : text) value_ = (value_ ^ static_cast<unsigned char>(c)) * 16777619U;
    }
    std::uint32_t value() const { return value_; }

  private:
    std::uint32_t value_ = 2166136261U;
};

// As golden() of conform.py: a letter for each line, and the hash of all.
std::string golden(const Log& log) {
    constexpr std::string_view letters =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    std::string text;
    Hash all;
    for (const std::string& line : log) {
        Hash one;
        one.add(line);
        text += letters[one.value() % letters.size()];
        if (text.size() > 1) all.add("\n");
        all.add(line);
    }
    char hash[16];
    std::snprintf(hash, sizeof hash, " %08x", all.value());
    return text + hash;
}

void show_difference(std::size_t seed, const Node& program, const Log& log,
                     const std::string& expected) {
    const std::string ours = golden(log);
    const auto [mine, theirs] =
        std::mismatch(ours.begin(), ours.end(), expected.begin(), expected.end());
    const auto good = static_cast<std::size_t>(mine - ours.begin());
    std::cout << "Seed " << seed << " differs from CPython. The program:\n"
              << print(program)
              << "\nOur log; CPython's differs from the line that is marked on:\n";
    for (std::size_t i = 0; i < log.size(); ++i)
        std::cout << (i == good ? "==> " : "    ") << log[i] << '\n';
    if (good >= log.size()) std::cout << "==> (the end, or a line whose letter is the same)\n";
    std::cout << "To have both logs, and the program made small: ./dev conform --seed " << seed
              << " --count 1\n";
}

int compare(const std::string& path) {
    std::ifstream file(path);
    if (!file) throw std::runtime_error("cannot read " + path);
    Statistics statistics;
    std::size_t different = 0;
    std::size_t seed = 0;
    for (std::string expected; std::getline(file, expected);) {
        const Node program = generate(++seed);
        const Log log = run(program);
        statistics.add(log);
        const Log in_debug_mode = run(program, true);
        if (in_debug_mode != log) std::cout << "Debug mode changes seed " << seed << '\n';
        if (in_debug_mode == log && (expected == "ring" || golden(log) == expected)) continue;
        if (++different == 1) show_difference(seed, program, log, expected);
    }
    statistics.print(std::cout);
    std::cout << seed << " programs, " << different << " differ from CPython\n";
    for (const std::string_view name : statistics.rare()) std::cout << "too rare: " << name << '\n';
    return seed > 0 && different == 0 && statistics.rare().empty() ? 0 : 1;
}

} // namespace
} // namespace conformance

int main(int argc, char** argv) {
    const std::vector<std::string> arguments(argv + 1, argv + argc);
    const std::string mode = arguments.empty() ? "" : arguments[0];
    try {
        if (mode == "--run" && arguments.size() == 3)
            return conformance::run_random(std::stoul(arguments[1]), std::stoul(arguments[2]));
        if (mode == "--serve" && arguments.size() == 1) return conformance::serve();
        if (mode == "--golden" && arguments.size() == 2) return conformance::compare(arguments[1]);
        std::cerr << "--run SEED COUNT, --serve or --golden FILE\n";
    } catch (const std::exception& error) {
        std::cerr << error.what() << '\n';
    }
    return 2;
}
