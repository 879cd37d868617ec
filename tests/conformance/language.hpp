// SPDX-License-Identifier: MIT
// The language of the conformance programs: a tree of statements, written as
// "(name number... (child) ...)". README.md says what each means.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace conformance {

// name, numbers, children.
// Asynchronous statements may suspend; the others also stand in callbacks.
#define CONFORMANCE_ASYNCHRONOUS(X)                                                                \
    X(sleep)                                                                                       \
    X(await)                                                                                       \
    X(gather)                                                                                      \
    X(wait)                                                                                        \
    X(wait_for)                                                                                    \
    X(timeout)                                                                                     \
    X(timeout_at)                                                                                  \
    X(group)                                                                                       \
    X(shield)                                                                                      \
    X(as_completed)                                                                                \
    X(return_)                                                                                     \
    X(try_)                                                                                        \
    X(finally)                                                                                     \
    X(repeat)                                                                                      \
    X(next)                                                                                        \
    X(aclose)                                                                                      \
    X(for_each)                                                                                    \
    X(acquire)                                                                                     \
    X(with_lock)                                                                                   \
    X(event_wait)                                                                                  \
    X(cond_acquire)                                                                                \
    X(cond_wait)                                                                                   \
    X(cond_wait_for)                                                                               \
    X(with_cond)                                                                                   \
    X(sem_acquire)                                                                                 \
    X(with_sem)                                                                                    \
    X(barrier_wait)                                                                                \
    X(barrier_reset)                                                                               \
    X(barrier_abort)                                                                               \
    X(put)                                                                                         \
    X(get)                                                                                         \
    X(join)

#define CONFORMANCE_SYNCHRONOUS(X)                                                                 \
    X(spawn)                                                                                       \
    X(group_spawn)                                                                                 \
    X(future)                                                                                      \
    X(gather_to)                                                                                   \
    X(shield_to)                                                                                   \
    X(set_result)                                                                                  \
    X(set_exception)                                                                               \
    X(cancel)                                                                                      \
    X(cancel_self)                                                                                 \
    X(uncancel)                                                                                    \
    X(uncancel_self)                                                                               \
    X(status)                                                                                      \
    X(add_callback)                                                                                \
    X(remove_callback)                                                                             \
    X(call_soon)                                                                                   \
    X(call_later)                                                                                  \
    X(call_at)                                                                                     \
    X(cancel_handle)                                                                               \
    X(raise)                                                                                       \
    X(set_var)                                                                                     \
    X(get_var)                                                                                     \
    X(reset_var)                                                                                   \
    X(run_in_context)                                                                              \
    X(reschedule)                                                                                  \
    X(expired)                                                                                     \
    X(generator)                                                                                   \
    X(release)                                                                                     \
    X(locked)                                                                                      \
    X(event_set)                                                                                   \
    X(event_clear)                                                                                 \
    X(cond_release)                                                                                \
    X(notify)                                                                                      \
    X(notify_all)                                                                                  \
    X(sem_release)                                                                                 \
    X(barrier_state)                                                                               \
    X(put_nowait)                                                                                  \
    X(get_nowait)                                                                                  \
    X(task_done)                                                                                   \
    X(shutdown)                                                                                    \
    X(queue_state)

// What is no statement: a program, a sequence, what gather and its like take, and co_yield.
#define CONFORMANCE_PARTS(X) X(program) X(do_) X(coro) X(task) X(slot) X(sleeping) X(yield)

enum class Op {
#define CONFORMANCE_OP(name) name,
    CONFORMANCE_ASYNCHRONOUS(CONFORMANCE_OP) CONFORMANCE_SYNCHRONOUS(CONFORMANCE_OP)
        CONFORMANCE_PARTS(CONFORMANCE_OP)
#undef CONFORMANCE_OP
};

inline constexpr std::size_t statement_count = static_cast<std::size_t>(Op::program);

// "try" for Op::try_.
std::string_view name_of(Op op);
// Of all statements, that is of the first statement_count operations.
inline bool is_asynchronous(Op op) { return op < Op::spawn; }

struct Node {
    Op op;
    std::vector<long> numbers;
    std::vector<Node> children;
    int id = 0; // in the order in which they stand in the text, from 0

    long number(std::size_t i) const { return numbers.at(i); }
    const Node& child(std::size_t i) const { return children.at(i); }
};

// Throws std::runtime_error that says where.
Node parse(std::string_view text);
std::string print(const Node& node);
// Numbers the nodes as parse() does.
void number_nodes(Node& program);

// A random program; the same on every machine.
Node generate(std::size_t seed);

// Runs it on the library, and gives its log, a line each. Debug mode changes nothing in it.
std::vector<std::string> run(const Node& program, bool debug = false);

} // namespace conformance
