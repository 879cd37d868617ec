// SPDX-License-Identifier: MIT
// What a debugger reads of the library: where the loops are, and where in a loop, a task and a
// frame the things stand that it shows. tools/gdb/asyncio.py is who reads it, from a stopped
// process or a core file, without debug information and without calling anything.
#pragma once

#include <asyncio/detail/config.hpp>

#include <cstddef>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

// "EventLoop.core" is so many bytes into an EventLoop, "FutureBase.task_flag" is this bit, the list
// of loops begins there.
struct DebuggerFact {
    const char* name;
    std::size_t number = 0;
    const void* address = nullptr;
};

// Each list ends with a fact that has no name. A program that has no tasks, or no gathers, has no
// list of these.
struct ASYNCIO_API DebuggerFacts {
    static const DebuggerFact loops[];
    static const DebuggerFact tasks[];
    static const DebuggerFact gathers[];
};

// Nobody refers to the lists but the debugger, by their symbols.
#if defined(__has_attribute) && __has_attribute(retain)
#define ASYNCIO_KEEP_FOR_DEBUGGER __attribute__((used, retain))
#else
#define ASYNCIO_KEEP_FOR_DEBUGGER __attribute__((used))
#endif

// An event loop's place in the list of all that exist, whichever thread they belong to.
class ASYNCIO_API LivingLoop {
  public:
    LivingLoop();
    ~LivingLoop();
    LivingLoop(const LivingLoop&) = delete;
    LivingLoop& operator=(const LivingLoop&) = delete;

    // Of the thread that runs the loop: its thread pointer, a register that a debugger can read.
    // Null while the loop does not run.
    const void* thread = nullptr;

  private:
    friend struct DebuggerFacts;

    LivingLoop* next_ = nullptr;
    LivingLoop* previous_ = nullptr;
};

} // namespace detail
ASYNCIO_END_NAMESPACE
