// SPDX-License-Identifier: MIT
#include <asyncio/graph.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <string_view>
#include <system_error>
#include <unordered_map>
#include <unordered_set>
#include <utility>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

// A graph, and not a tree: what two tasks wait for is there once, and a ring of tasks is a ring.
struct CallGraphNodes {
    struct Node {
        AnyFuture future;
        std::vector<FrameCallGraphEntry> call_stack;
        std::vector<std::size_t> awaited_by;
    };
    std::vector<Node> nodes; // the first is the one that was asked for
};

namespace {

using Stack = std::vector<FrameCallGraphEntry>;

// Those who wait for the future, each once; in place of what others are waited for by, who waits
// for that.
std::vector<FutureBase*> awaiters_of(FutureBase& future) {
    Awaiters awaiters;
    const auto ask = [&awaiters](FutureBase& asked) {
        asked.for_each_waiter([&](FutureWaiter& waiter) { waiter.find_awaiters(awaiters); });
    };
    ask(future);
    std::unordered_set<const FutureBase*> seen;
    for (std::size_t i = 0; i < awaiters.stand_ins.size(); ++i) {
        if (seen.insert(awaiters.stand_ins[i]).second) ask(*awaiters.stand_ins[i]);
    }
    std::erase_if(awaiters.tasks,
                  [&seen](const FutureBase* task) { return !seen.insert(task).second; });
    return awaiters.tasks;
}

Stack stack_of(const TaskBase& task) {
    Stack stack;
    for (const Location& where : task.await_chain()) {
        stack.push_back({.frame = where.get(), .is_coroutine = true});
    }
    if (!stack.empty() && task.is_running()) stack.front().has_gone_on = true;
    return stack;
}

// Whether a place is in the coroutine that was at another one before. GCC 12 sometimes gives a
// lambda's own name to a place in it, and not that of the function that it makes of a coroutine.
bool is_same_function(std::source_location place, std::source_location before) {
    const std::string_view here = place.function_name();
    const std::string_view there = before.function_name();
    if (here == there) return true;
    if (here.find(".Frame*") != here.npos || there.find(".Frame*") == there.npos) return false;
    const std::string name = readable_function(here);
    return name.ends_with("<lambda>") && name == readable_function(there);
}

// Of the task that runs, asked for at `where`. The frame knows only the await that it passed last;
// if it is the one that asks, `where` is the better one.
Stack stack_of_current(const TaskBase& task, std::source_location where, std::size_t depth) {
    Stack stack = stack_of(task);
    FrameCallGraphEntry asking{.frame = where};
    if (!stack.empty() && is_same_function(where, stack.front().frame)) {
        asking.is_coroutine = true;
        stack.front() = asking;
    } else {
        stack.insert(stack.begin(), asking);
    }
    const std::size_t skipped = depth > 0 ? std::min(depth - 1, stack.size()) : 0;
    stack.erase(stack.begin(), stack.begin() + static_cast<std::ptrdiff_t>(skipped));
    return stack;
}

void cut(Stack& stack, std::optional<std::ptrdiff_t> limit) {
    const auto size = static_cast<std::ptrdiff_t>(stack.size());
    if (!limit || (*limit >= 0 ? *limit : -(*limit + 1)) >= size) return;
    if (*limit > 0) {
        stack.erase(stack.begin(), stack.end() - *limit);
    } else {
        stack.erase(stack.begin() - *limit, stack.end());
    }
}

FutureCallGraph capture(FutureBase& first, const CallGraphOptions& options,
                        std::source_location where) {
    first.loop().check_thread();
    EventLoop* running = get_running_loop_or_null();
    auto graph = std::make_shared<CallGraphNodes>();
    std::vector<CallGraphNodes::Node>& nodes = graph->nodes;
    std::unordered_map<const FutureBase*, std::size_t> places;
    const auto place_of = [&](FutureBase& future) {
        const auto [found, is_new] = places.try_emplace(&future, nodes.size());
        if (is_new) nodes.push_back({AnyFuture::of(future), {}, {}});
        return found->second;
    };
    place_of(first);
    for (std::size_t i = 0; i < nodes.size(); ++i) {
        FutureBase& future = nodes[i].future.state();
        if (future.is_task() && options.limit() != 0) {
            const auto& task = static_cast<TaskBase&>(future);
            const bool asks =
                i == 0 && running == &task.loop() && running->core().current_task == &task;
            Stack stack = asks ? stack_of_current(task, where, options.depth()) : stack_of(task);
            cut(stack, options.limit());
            nodes[i].call_stack = std::move(stack);
        }
        for (FutureBase* awaiter : awaiters_of(future)) {
            const std::size_t place = place_of(*awaiter);
            nodes[i].awaited_by.push_back(place);
        }
    }
    return {std::move(graph), 0};
}

std::string id_of(const FutureBase& future) {
    std::array<char, 2 + 2 * sizeof(void*)> text{'0', 'x'};
    const auto end = std::to_chars(text.data() + 2, text.data() + text.size(),
                                   reinterpret_cast<std::uintptr_t>(&future), 16);
    return std::string(text.data(), end.ptr);
}

std::string title_of(FutureBase& future) {
    const std::string id = "id=" + id_of(future) + ")";
    if (!future.is_task()) return "* Future(" + id;
    return "* Task(name='" + static_cast<TaskBase&>(future).name() + "', " + id;
}

std::string line_of(const FrameCallGraphEntry& entry) {
    return std::string("  |   File '") + entry.frame.file_name() + "', " +
           (entry.has_gone_on ? "after " : "") + "line " + std::to_string(entry.frame.line()) +
           ", in " + (entry.is_coroutine ? "async " : "") + entry.function() + "()";
}

// A loop with a stack of its own, since chains may be long. An indentation that grew for ever would
// make the text of such a chain grow with the square of its length.
std::string format(const FutureCallGraph& graph) {
    constexpr std::size_t deepest_indent = 25;
    struct Item {
        std::size_t index;
        std::size_t level;
    };
    const std::vector<CallGraphNodes::Node>& nodes = graph.nodes().nodes;
    std::vector<bool> told(nodes.size());
    std::vector<Item> items{{graph.index(), 0}};
    std::string text;
    while (!items.empty()) {
        const Item item = items.back();
        items.pop_back();
        const CallGraphNodes::Node& node = nodes[item.index];
        const auto add_line = [&](const std::string& line) {
            if (!text.empty()) text += '\n';
            text.append(4 * std::min(item.level, deepest_indent), ' ');
            text += line;
        };
        std::string title = title_of(node.future.state());
        if (item.level >= deepest_indent) title += " at level " + std::to_string(item.level);
        if (told[item.index] && !node.awaited_by.empty()) {
            add_line(title + ", see above");
            continue;
        }
        told[item.index] = true;
        add_line(title);
        if (!node.call_stack.empty()) add_line("  + Call stack:");
        for (const FrameCallGraphEntry& entry : node.call_stack) add_line(line_of(entry));
        if (!node.awaited_by.empty()) add_line("  + Awaited by:");
        for (std::size_t i = node.awaited_by.size(); i-- > 0;) {
            items.push_back({node.awaited_by[i], item.level + 1});
        }
    }
    return text;
}

void print(std::FILE* file, std::string text) {
    text += '\n';
    if (std::fwrite(text.data(), 1, text.size(), file) != text.size())
        throw std::system_error(errno, std::generic_category(), "print_call_graph()");
}

} // namespace
} // namespace detail

std::string FrameCallGraphEntry::function() const { return detail::Location(frame).function(); }

const AnyFuture& FutureCallGraph::future() const noexcept { return nodes_->nodes[index_].future; }

AnyTask FutureCallGraph::task() const {
    return future().state().is_task() ? AnyTask::of(future().state()) : AnyTask();
}

const std::vector<FrameCallGraphEntry>& FutureCallGraph::call_stack() const noexcept {
    return nodes_->nodes[index_].call_stack;
}

std::vector<FutureCallGraph> FutureCallGraph::awaited_by() const {
    std::vector<FutureCallGraph> graphs;
    for (const std::size_t index : nodes_->nodes[index_].awaited_by) {
        graphs.emplace_back(nodes_, index);
    }
    return graphs;
}

FutureCallGraph capture_call_graph(const AnyFuture& future, const CallGraphOptions& options,
                                   std::source_location where) {
    return detail::capture(future.state(), options, where);
}
std::optional<FutureCallGraph> capture_call_graph(const CallGraphOptions& options,
                                                  std::source_location where) {
    detail::TaskBase* task = get_running_loop().core().current_task;
    if (task == nullptr) return std::nullopt;
    return detail::capture(*task, options, where);
}

std::string format_call_graph(const AnyFuture& future, const CallGraphOptions& options,
                              std::source_location where) {
    return detail::format(capture_call_graph(future, options, where));
}
std::string format_call_graph(const CallGraphOptions& options, std::source_location where) {
    const std::optional<FutureCallGraph> graph = capture_call_graph(options, where);
    return graph ? detail::format(*graph) : std::string();
}

void print_call_graph(const CallGraphOptions& options, std::source_location where) {
    print_call_graph(stdout, options, where);
}
void print_call_graph(const AnyFuture& future, const CallGraphOptions& options,
                      std::source_location where) {
    print_call_graph(stdout, future, options, where);
}
void print_call_graph(std::FILE* file, const CallGraphOptions& options,
                      std::source_location where) {
    detail::print(file, format_call_graph(options, where));
}
void print_call_graph(std::FILE* file, const AnyFuture& future, const CallGraphOptions& options,
                      std::source_location where) {
    detail::print(file, format_call_graph(future, options, where));
}

ASYNCIO_END_NAMESPACE
