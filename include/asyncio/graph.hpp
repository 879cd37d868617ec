// SPDX-License-Identifier: MIT
// capture_call_graph, format_call_graph and print_call_graph: who waits for whom, and at which
// line.
//
//     asyncio::print_call_graph();        // of the task that runs
//     asyncio::print_call_graph(task);    // of another task, or of a future
//
//     * Task(name='Task-2', id=0x5581e0c3a1c0)
//       + Call stack:
//       |   File 'shop.cpp', line 12, in async pay()
//       + Awaited by:
//         * Task(name='Task-1', id=0x5581e0c3a0c0)
//           + Call stack:
//           |   File 'shop.cpp', line 20, in async async_main()
//
// A task awaits a future also by way of gather, shield, wait, as_completed, a TaskGroup or
// wait_for: these do not stand in between. Nothing is recorded for this: it is found from who
// waits, when it is asked for. So a gather or a shield that nobody awaits yet awaits nothing, and
// as_completed what is left while its next() is awaited; CPython shows the task that called them
// all the while.
//
// To be called on the thread of the loop.
#pragma once

#include <asyncio/tasks.hpp>

#include <cstddef>
#include <cstdio>
#include <memory>
#include <optional>
#include <source_location>
#include <string>
#include <vector>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {
struct CallGraphNodes;
} // namespace detail

// How much of a call graph is wanted. Chained setters: `CallGraphOptions().limit(-3)`.
class CallGraphOptions {
  public:
    // Of the task that runs: 1, the default, begins with the function that asks, 2 with the one
    // that awaits it, and so on. Of others it says nothing. (`depth`)
    CallGraphOptions& depth(std::size_t depth) noexcept {
        depth_ = depth;
        return *this;
    }
    // At most so many entries of each call stack: a positive number leaves the outermost, a
    // negative one the innermost; 0 none at all. Default: all. (`limit`)
    CallGraphOptions& limit(std::optional<std::ptrdiff_t> limit) noexcept {
        limit_ = limit;
        return *this;
    }
    std::size_t depth() const noexcept { return depth_; }
    std::optional<std::ptrdiff_t> limit() const noexcept { return limit_; }

  private:
    std::size_t depth_ = 1;
    std::optional<std::ptrdiff_t> limit_;
};

// One function of a call stack. (asyncio.FrameCallGraphEntry)
struct FrameCallGraphEntry {
    // The await at which a coroutine stands, or the place that asked for the graph; of a coroutine
    // that has not begun, where it is defined.
    std::source_location frame;
    bool is_coroutine = false;
    // It runs just now, and not this line: `frame` is the await that it passed last.
    bool has_gone_on = false;

    // "shop::Cart::pay", without parameters and template arguments.
    ASYNCIO_API std::string function() const;
};

// A future or task, where it stands, and who waits for it. A copy is cheap; all that hang together
// keep the futures in them alive. (asyncio.FutureCallGraph)
class ASYNCIO_API FutureCallGraph {
  public:
    const AnyFuture& future() const noexcept;
    // The same, if it is a task; else not valid().
    AnyTask task() const;
    // The innermost first. Empty for what is no task, and once its coroutine has ended.
    const std::vector<FrameCallGraphEntry>& call_stack() const noexcept;
    // The tasks that wait for it, each once, in the order in which they came. Tasks that wait for
    // each other in a ring lead back to where one began.
    std::vector<FutureCallGraph> awaited_by() const;

    // For the library.
    FutureCallGraph(std::shared_ptr<const detail::CallGraphNodes> nodes, std::size_t index) noexcept
        : nodes_(std::move(nodes)), index_(index) {}
    const detail::CallGraphNodes& nodes() const noexcept { return *nodes_; }
    std::size_t index() const noexcept { return index_; }

  private:
    std::shared_ptr<const detail::CallGraphNodes> nodes_;
    std::size_t index_;
};

// The graph of the task that runs; nothing in a callback, where none does. Its call stack begins
// with the function that calls this: its coroutine, or a plain function that the coroutine has
// called (what stands between these two, C++ cannot know). Throws RuntimeError if no loop runs.
// (asyncio.capture_call_graph)
[[nodiscard]] ASYNCIO_API std::optional<FutureCallGraph>
capture_call_graph(const CallGraphOptions& options = {},
                   std::source_location where = std::source_location::current());
// That of any future or task; no loop has to run. Throws RuntimeError for an empty handle.
[[nodiscard]] ASYNCIO_API FutureCallGraph
capture_call_graph(const AnyFuture& future, const CallGraphOptions& options = {},
                   std::source_location where = std::source_location::current());

// The same as text, in lines as they stand above; empty in a callback. What has been told with all
// that awaits it is only named when it comes again. From the 25th level on, lines are indented no
// more and the level is written out. (asyncio.format_call_graph)
[[nodiscard]] ASYNCIO_API std::string
format_call_graph(const CallGraphOptions& options = {},
                  std::source_location where = std::source_location::current());
[[nodiscard]] ASYNCIO_API std::string
format_call_graph(const AnyFuture& future, const CallGraphOptions& options = {},
                  std::source_location where = std::source_location::current());

// Writes that, and the end of a line, to stdout or to a file that comes first. Throws
// std::system_error if it cannot. (asyncio.print_call_graph)
ASYNCIO_API void print_call_graph(const CallGraphOptions& options = {},
                                  std::source_location where = std::source_location::current());
ASYNCIO_API void print_call_graph(const AnyFuture& future, const CallGraphOptions& options = {},
                                  std::source_location where = std::source_location::current());
ASYNCIO_API void print_call_graph(std::FILE* file, const CallGraphOptions& options = {},
                                  std::source_location where = std::source_location::current());
ASYNCIO_API void print_call_graph(std::FILE* file, const AnyFuture& future,
                                  const CallGraphOptions& options = {},
                                  std::source_location where = std::source_location::current());

ASYNCIO_END_NAMESPACE
