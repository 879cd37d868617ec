// SPDX-License-Identifier: MIT
// Control-C, with processes and signals that are real: see runners.hpp for what it does.
#include "support/process.hpp"

#include <asyncio/asyncio.hpp>
#include <asyncio/testing/virtual_time.hpp>
#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <functional>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__has_feature)
#define HAS_THREAD_SANITIZER __has_feature(thread_sanitizer)
#elif defined(__SANITIZE_THREAD__)
#define HAS_THREAD_SANITIZER 1
#else
#define HAS_THREAD_SANITIZER 0
#endif

using asyncio::Coro;
using asyncio::KeyboardInterrupt;
using asyncio::Runner;
using asyncio::RunOptions;
using asyncio_test::block_sigint;
using asyncio_test::Process;
using asyncio_test::set_sigint;
using asyncio_test::sigint_action;
using Parent = Process::Parent;

namespace {

// "value", or what was thrown; and with a word more if SIGINT is not as it was at the beginning.
template <class F> std::string outcome_of(F function) {
    const struct sigaction before = sigint_action();
    std::string outcome = "value";
    try {
        function();
    } catch (const KeyboardInterrupt&) {
        outcome = "KeyboardInterrupt";
    } catch (const asyncio::CancelledError&) {
        outcome = "CancelledError";
    } catch (const std::exception& error) {
        outcome = error.what();
    }
    const struct sigaction after = sigint_action();
    if (after.sa_handler != before.sa_handler || after.sa_flags != before.sa_flags ||
        sigismember(&after.sa_mask, SIGUSR1) != sigismember(&before.sa_mask, SIGUSR1)) {
        outcome += ", and SIGINT is not as before";
    }
    return outcome;
}

Coro<> cleans_up(const Parent& parent, std::string name) {
    parent.tell(name);
    try {
        co_await asyncio::sleep(1000);
    } catch (const asyncio::CancelledError&) {
        parent.tell("cancelled:" + name);
        throw;
    }
}

// Two tasks that clean up, main first.
Coro<> two_tasks(const Parent& parent) {
    const auto task = asyncio::create_task(cleans_up, std::cref(parent), std::string("child"));
    co_await cleans_up(parent, "main");
}

[[noreturn]] void spin(const Parent& parent) {
    parent.tell("ready");
    for (volatile int i = 0;;) static_cast<void>(i);
}

// --- the first ---

TEST(CtrlC, the_first_cancels_main_then_the_rest_and_run_throws_keyboard_interrupt) {
    Process child([](Parent& parent) {
        parent.tell(outcome_of([&] { asyncio::run(two_tasks(parent)); }));
        return 7; // main() goes on
    });
    EXPECT_EQ(child.line(), "main");
    EXPECT_EQ(child.line(), "child");
    child.interrupt();
    EXPECT_EQ(child.rest(), "cancelled:main cancelled:child KeyboardInterrupt");
    EXPECT_EQ(child.wait(), "exited with 7");
}

TEST(CtrlC, wakes_a_loop_that_blocks_in_the_kernel) {
    Process child([](Parent& parent) {
        parent.tell(outcome_of([&] { asyncio::run(cleans_up(parent, "ready")); }));
        return 0;
    });
    EXPECT_EQ(child.line(), "ready");
    child.wait_until_blocked();
    child.interrupt();
    EXPECT_EQ(child.rest(), "cancelled:ready KeyboardInterrupt");
    EXPECT_EQ(child.wait(), "exited with 0");
}

TEST(CtrlC, wakes_a_loop_that_waits_for_descriptors_alone) {
    Process child([](Parent& parent) {
        parent.tell(outcome_of([&] {
            asyncio::run([](const Parent& p) -> Coro<> {
                int ends[2] = {-1, -1};
                EXPECT_EQ(::pipe(ends), 0);
                auto& loop = asyncio::get_running_loop();
                loop.add_reader(ends[0], [] {});
                p.tell("ready");
                co_await asyncio::create_future();
            }(parent));
        }));
        return 0;
    });
    EXPECT_EQ(child.line(), "ready");
    child.wait_until_blocked();
    child.interrupt();
    EXPECT_EQ(child.rest(), "KeyboardInterrupt");
    EXPECT_EQ(child.wait(), "exited with 0");
}

TEST(CtrlC, uncaught_ends_the_process_as_sigint_does_after_the_clean_up_and_with_its_output) {
    int ends[2] = {-1, -1};
    ASSERT_EQ(::pipe(ends), 0);
    Process child([&](Parent& parent) {
        ::dup2(ends[1], STDOUT_FILENO);
        std::fputs("written ", stdout); // to a pipe: it stays in the buffer
        std::cout << "and ";
        asyncio::run(two_tasks(parent));
        return 0;
    });
    ::close(ends[1]);
    EXPECT_EQ(child.line(), "main");
    EXPECT_EQ(child.line(), "child");
    child.interrupt();
    EXPECT_EQ(child.rest(), "cancelled:main cancelled:child");
    EXPECT_EQ(child.wait(), "killed by SIGINT");
    char text[64] = {};
    EXPECT_GT(::read(ends[0], text, sizeof text - 1), 0);
    EXPECT_STREQ(text, "written and ");
    ::close(ends[0]);
}

TEST(CtrlC, leaves_the_end_by_other_uncaught_exceptions_to_who_was_asked_before) {
    Process child([](Parent& parent) {
        std::set_terminate([] { ::_exit(43); });
        outcome_of([&] { asyncio::run(cleans_up(parent, "ready")); });
        throw std::runtime_error("not Control-C");
        return 0;
    });
    EXPECT_EQ(child.line(), "ready");
    child.interrupt();
    EXPECT_EQ(child.wait(), "exited with 43");
}

TEST(CtrlC, that_comes_just_before_the_loop_blocks_keeps_it_from_blocking) {
    Process child([](Parent& parent) {
        asyncio::SystemCalls calls = asyncio::SystemCalls::real();
        calls.epoll_wait = [](int epoll, epoll_event* events, int capacity, int timeout) {
            if (timeout < 0) ::raise(SIGINT);
            return ::epoll_wait(epoll, events, capacity, timeout);
        };
        parent.tell(outcome_of([&] {
            asyncio::run([]() -> Coro<> { co_await asyncio::create_future(); }(),
                         RunOptions().loop(asyncio::LoopOptions().system_calls(calls)));
        }));
        return 0;
    });
    EXPECT_EQ(child.rest(), "KeyboardInterrupt");
    EXPECT_EQ(child.wait(), "exited with 0");
}

// --- what main makes of it ---

std::string outcome_of_one_interrupt(std::function<Coro<>(const Parent&)> main,
                                     const RunOptions& options = {}) {
    Process child([&](Parent& parent) {
        parent.tell(outcome_of([&] { asyncio::run(main(parent), options); }));
        return 0;
    });
    EXPECT_EQ(child.line(), "ready");
    child.interrupt();
    const std::string told = child.rest();
    EXPECT_EQ(child.wait(), "exited with 0");
    return told;
}

TEST(CtrlC, a_main_that_catches_it_and_returns_has_its_result) {
    EXPECT_EQ(outcome_of_one_interrupt([](const Parent& parent) -> Coro<> {
                  parent.tell("ready");
                  try {
                      co_await asyncio::sleep(1000);
                  } catch (const asyncio::CancelledError&) {
                      parent.tell("caught");
                  }
              }),
              "caught value");
}

TEST(CtrlC, a_main_that_fails_while_it_is_cancelled_has_its_exception) {
    EXPECT_EQ(outcome_of_one_interrupt([](const Parent& parent) -> Coro<> {
                  parent.tell("ready");
                  try {
                      co_await asyncio::sleep(1000);
                  } catch (const asyncio::CancelledError&) {
                      throw std::runtime_error("clean-up failed");
                  }
              }),
              "clean-up failed");
}

TEST(CtrlC, is_no_keyboard_interrupt_if_somebody_else_has_cancelled_main_too) {
    EXPECT_EQ(outcome_of_one_interrupt([](const Parent& parent) -> Coro<> {
                  parent.tell("ready");
                  try {
                      co_await asyncio::sleep(1000);
                  } catch (const asyncio::CancelledError&) {
                      asyncio::current_task().cancel();
                      throw;
                  }
              }),
              "CancelledError");
}

TEST(CtrlC, cancels_a_main_that_only_ever_yields_and_counts_a_cancelled_error_of_its_own) {
    EXPECT_EQ(outcome_of_one_interrupt([](const Parent& parent) -> Coro<> {
                  parent.tell("ready");
                  bool cancelled = false;
                  while (!cancelled) {
                      const auto turn = co_await asyncio::as_result(asyncio::sleep(0));
                      cancelled = turn.failed_with<asyncio::CancelledError>();
                  }
                  throw asyncio::CancelledError();
              }),
              "KeyboardInterrupt");
}

TEST(CtrlC, cancels_the_future_that_main_waits_for) {
    Process child([](Parent& parent) {
        Runner runner;
        const auto future = asyncio::create_future(runner.get_loop());
        const auto main = [&]() -> Coro<> {
            parent.tell("ready");
            const auto waited = co_await asyncio::as_result(future);
            if (waited.failed_with<asyncio::CancelledError>()) throw asyncio::CancelledError();
        };
        parent.tell(outcome_of([&] { runner.run(main()); }));
        parent.tell(future.cancelled() ? "cancelled" : "pending");
        return 0;
    });
    EXPECT_EQ(child.line(), "ready");
    child.interrupt();
    EXPECT_EQ(child.rest(), "KeyboardInterrupt cancelled");
    EXPECT_EQ(child.wait(), "exited with 0");
}

TEST(CtrlC, that_comes_while_main_takes_its_only_step_is_not_lost) {
    Process child([](Parent& parent) {
        const auto main = [](bool fails) -> Coro<> {
            ::raise(SIGINT);
            if (fails) throw std::runtime_error("failed");
            co_return;
        };
        parent.tell(outcome_of([&] { asyncio::run(main(false)); }));
        parent.tell(outcome_of([&] { asyncio::run(main(true)); }));
        return 0;
    });
    EXPECT_EQ(child.rest(), "KeyboardInterrupt failed");
    EXPECT_EQ(child.wait(), "exited with 0");
}

// --- servers ---

// A client in the same process, which never reads. Without a word of it to the loop.
struct SilentClient {
    explicit SilentClient(const asyncio::Server& server) {
        const asyncio::Address address = server.sockets().at(0);
        EXPECT_EQ(::connect(descriptor, address.data(), address.size()), 0);
    }
    ~SilentClient() { ::close(descriptor); }
    SilentClient(const SilentClient&) = delete;
    SilentClient& operator=(const SilentClient&) = delete;
    int descriptor = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
};

// Each handler tells when it begins, and how it ends.
auto reads(const Parent& parent) {
    return [&parent](asyncio::StreamReader reader, asyncio::StreamWriter) -> Coro<> {
        parent.tell("begins");
        const auto data = co_await asyncio::as_result(reader.read());
        parent.tell(data ? "end" : "fails");
    };
}
auto writes_much(const Parent& parent) {
    return [&parent](asyncio::StreamReader, asyncio::StreamWriter writer) -> Coro<> {
        writer.write(std::string(std::size_t{32} << 20, 'x'));
        parent.tell("begins");
        const auto drained = co_await asyncio::as_result(writer.drain());
        parent.tell(drained ? "drained" : "fails");
    };
}

// Tells that the server is closed, and that it has still to wait after a while.
Coro<> tells_of_the_end(const Parent& parent, asyncio::Server server) {
    while (!server.sockets().empty()) co_await asyncio::sleep(0.001);
    parent.tell("closed");
    co_await asyncio::sleep(0.1);
    parent.tell("waits");
    co_await asyncio::sleep(1000);
}

TEST(CtrlC, ends_a_server_at_once_though_its_clients_are_silent) {
    Process child([](Parent& parent) {
        parent.tell(outcome_of([&] {
            asyncio::run([](Parent& told) -> Coro<> {
                auto server = co_await asyncio::start_server(reads(told), "127.0.0.1", 0);
                const SilentClient one(server);
                const SilentClient two(server);
                co_await server.serve_forever();
            }(parent));
        }));
        return 0;
    });
    EXPECT_EQ(child.line(), "begins");
    EXPECT_EQ(child.line(), "begins");
    child.interrupt();
    EXPECT_EQ(child.rest(), "end end KeyboardInterrupt");
    EXPECT_EQ(child.wait(), "exited with 0");
}

// As in asyncio: what was written still goes out, for as long as that takes.
TEST(CtrlC, lets_serve_forever_wait_for_a_client_that_does_not_read_and_the_second_ends_that) {
    Process child([](Parent& parent) {
        asyncio::run([](Parent& told) -> Coro<> {
            auto server = co_await asyncio::start_server(writes_much(told), "127.0.0.1", 0);
            const SilentClient client(server);
            const auto watches = asyncio::create_task(tells_of_the_end(told, server));
            co_await server.serve_forever();
        }(parent));
        return 0;
    });
    EXPECT_EQ(child.line(), "begins");
    child.interrupt();
    EXPECT_EQ(child.line(), "closed");
    EXPECT_EQ(child.line(), "waits");
    child.interrupt();
    EXPECT_EQ(child.rest(), "");
    EXPECT_EQ(child.wait(), "killed by SIGINT");
}

// What the guide's chapter on streams has for this.
Coro<> serve_with_a_grace_period(asyncio::Server server, asyncio::Delay grace) {
    co_await asyncio::try_finally(
        []() -> Coro<> {
            asyncio::Event forever;
            co_await forever.wait();
        },
        [&]() -> Coro<> {
            server.close();
            server.close_clients();
            const auto all_sent =
                co_await asyncio::as_result(asyncio::wait_for(server.wait_closed(), grace));
            if (all_sent.failed_with<asyncio::TimeoutError>()) server.abort_clients();
        });
}

// Serves a client that never reads, and is interrupted while main goes on so: that must end it.
void expect_the_end_of(Coro<> (*main)(asyncio::Server server)) {
    Process child([main](Parent& parent) {
        parent.tell(outcome_of([&] {
            asyncio::run([](Parent& told, Coro<> (*then)(asyncio::Server)) -> Coro<> {
                auto server = co_await asyncio::start_server(writes_much(told), "127.0.0.1", 0);
                const SilentClient client(server);
                co_await then(server);
                told.tell("never");
            }(parent, main));
        }));
        return 0;
    });
    EXPECT_EQ(child.line(), "begins");
    child.interrupt();
    EXPECT_EQ(child.rest(), "fails KeyboardInterrupt");
    EXPECT_EQ(child.wait(), "exited with 0");
}

TEST(CtrlC, ends_a_server_after_a_grace_period_that_is_its_own) {
    expect_the_end_of([](asyncio::Server server) -> Coro<> {
        co_await serve_with_a_grace_period(server, std::chrono::milliseconds(50));
    });
}

// Nor does what is kept hold the process, if nobody waits for it: run() cancels the handlers, and
// the loop drops their connections.
TEST(CtrlC, ends_a_main_that_does_not_wait_for_its_server_at_once) {
    expect_the_end_of([](asyncio::Server) -> Coro<> {
        asyncio::Event forever;
        co_await forever.wait();
    });
}

// --- the second ---

TEST(CtrlC, the_second_ends_the_process_during_the_clean_up) {
    Process child([](Parent& parent) {
        asyncio::run([](const Parent& p) -> Coro<> {
            p.tell("ready");
            try {
                co_await asyncio::sleep(1000);
            } catch (const asyncio::CancelledError&) {
                p.tell("cancelled");
            }
            co_await asyncio::sleep(1000); // a slow clean-up, or a main that goes on
        }(parent));
        return 0;
    });
    EXPECT_EQ(child.line(), "ready");
    child.interrupt();
    EXPECT_EQ(child.line(), "cancelled");
    child.interrupt();
    EXPECT_EQ(child.wait(), "killed by SIGINT");
    EXPECT_EQ(child.rest(), "");
}

TEST(CtrlC, the_second_ends_the_process_while_the_other_tasks_clean_up) {
    Process child([](Parent& parent) {
        asyncio::run([](const Parent& p) -> Coro<> {
            const auto slow = [](const Parent& q) -> Coro<> {
                try {
                    co_await asyncio::sleep(1000);
                } catch (const asyncio::CancelledError&) {
                    q.tell("cancelled");
                }
                co_await asyncio::sleep(1000);
            };
            const auto task = asyncio::create_task(slow(p));
            co_await asyncio::sleep(0);
            p.tell("ready");
            co_await asyncio::sleep(1000);
        }(parent));
        return 0;
    });
    EXPECT_EQ(child.line(), "ready");
    child.interrupt();
    EXPECT_EQ(child.line(), "cancelled");
    child.interrupt();
    EXPECT_EQ(child.wait(), "killed by SIGINT");
}

TEST(CtrlC, the_second_ends_a_process_that_is_stuck_in_code_without_awaits) {
#if HAS_THREAD_SANITIZER
    GTEST_SKIP() << "ThreadSanitizer keeps signals back until the code calls something";
#endif
    Process child([](Parent& parent) {
        asyncio::run([](const Parent& p) -> Coro<> {
            p.tell("main");
            try {
                co_await asyncio::sleep(1000);
            } catch (const asyncio::CancelledError&) {
                spin(p);
            }
        }(parent));
        return 0;
    });
    EXPECT_EQ(child.line(), "main");
    child.interrupt();
    EXPECT_EQ(child.line(), "ready");
    child.interrupt();
    EXPECT_EQ(child.wait(), "killed by SIGINT");
}

TEST(CtrlC, two_end_a_main_that_never_awaits) {
    Process child([](Parent& parent) {
        // Both are sent from here: two that are sent from outside may be merged to one.
        asyncio::run([](const Parent& p) -> Coro<> {
            ::raise(SIGINT);
            p.tell("alive");
            ::raise(SIGINT);
            spin(p);
            co_return;
        }(parent));
        return 0;
    });
    EXPECT_EQ(child.rest(), "alive");
    EXPECT_EQ(child.wait(), "killed by SIGINT");
}

// --- wherever it comes ---

int calls_until_signal = -1;
void count_call() {
    if (calls_until_signal-- == 0) ::raise(SIGINT);
}

// SIGINT before or after the k-th system call of a loop, for each k.
TEST(CtrlC, may_come_at_any_system_call_of_the_loop) {
    Process child([](Parent& parent) {
        asyncio::SystemCalls calls = asyncio::SystemCalls::real();
        calls.epoll_wait = [](int epoll, epoll_event* events, int capacity, int timeout) {
            count_call();
            const int count = ::epoll_wait(epoll, events, capacity, timeout);
            const int error = errno;
            count_call();
            errno = error;
            return count;
        };
        calls.epoll_pwait2 = [](int, epoll_event*, int, const timespec*, const sigset_t*) {
            count_call();
            errno = ENOSYS;
            return -1;
        };
        calls.epoll_ctl = [](int epoll, int operation, int descriptor, epoll_event* event) {
            count_call();
            return ::epoll_ctl(epoll, operation, descriptor, event);
        };
        const auto main = [](bool& begun) -> Coro<> {
            begun = true;
            int ends[2] = {-1, -1};
            EXPECT_EQ(::pipe(ends), 0);
            auto& loop = asyncio::get_running_loop();
            const auto readable = asyncio::create_future();
            loop.add_reader(ends[0], [&loop, readable, ends] {
                loop.remove_reader(ends[0]);
                if (!readable.done()) readable.set_result();
            });
            const auto body = [](int end, asyncio::Future<> f) -> Coro<> {
                for (int i = 0; i < 3; ++i) co_await asyncio::sleep(0);
                co_await asyncio::sleep(0.001);
                const ssize_t count = ::write(end, "x", 1);
                EXPECT_EQ(count, 1);
                co_await f;
                co_await asyncio::sleep(0.001);
            };
            auto clean_up = [&loop, ends]() -> Coro<> {
                loop.remove_reader(ends[0]);
                ::close(ends[0]);
                ::close(ends[1]);
                co_return;
            };
            auto run_body = [&]() -> Coro<> { co_await body(ends[1], readable); };
            co_await asyncio::try_finally(run_body, clean_up);
            calls_until_signal = -1; // from here on it would come too late
        };
        int injected = 0;
        for (int k = 0; k < 1000; ++k) {
            // The calls that make the loop come first: the run has not begun.
            Runner runner(
                RunOptions().loop(asyncio::LoopOptions().system_calls(calls)).handle_sigint(true));
            runner.get_loop();
            bool begun = false;
            calls_until_signal = k;
            const std::string outcome = outcome_of([&] { runner.run(main(begun)); });
            const bool was_sent = outcome != "value";
            calls_until_signal = -1;
            if (!was_sent) break;
            if (outcome != "KeyboardInterrupt") {
                parent.tell(std::to_string(k) + ":" + outcome);
                return 1;
            }
            ++injected;
        }
        parent.tell(injected >= 10 ? "enough" : std::to_string(injected) + " are too few");
        return 0;
    });
    EXPECT_EQ(child.rest(), "enough");
    EXPECT_EQ(child.wait(), "exited with 0");
}

TEST(CtrlC, that_comes_when_main_is_done_and_its_run_is_not_is_left_over_without_harm) {
    Process child([](Parent& parent) {
        Runner runner;
        const auto main = []() -> Coro<int> {
            // Runs after the main task is done, in the turn in which the loop is told to stop.
            asyncio::current_task().add_done_callback([] { ::raise(SIGINT); });
            co_return 1;
        };
        parent.tell(outcome_of([&] { runner.run(main()); }));
        // What is still in the queue of the loop must not cancel the next main.
        parent.tell(outcome_of([&] {
            runner.run([]() -> Coro<> {
                co_await asyncio::sleep(0);
                co_await asyncio::sleep(0);
            }());
        }));
        parent.tell(outcome_of([&] { runner.run(main()); }));
        runner.close(); // drops it
        return 0;
    });
    EXPECT_EQ(child.rest(), "KeyboardInterrupt value KeyboardInterrupt");
    EXPECT_EQ(child.wait(), "exited with 0");
}

int errno_after_signal = 0;

TEST(CtrlC, leaves_errno_as_it_was) {
    Process child([](Parent& parent) {
        asyncio::SystemCalls calls = asyncio::SystemCalls::real();
        calls.write = [](int, const void*, std::size_t) -> ssize_t {
            errno = EIO; // the handler's wake-up fails
            return -1;
        };
        calls.epoll_wait = [](int, epoll_event*, int, int) {
            errno = EXDEV;
            ::raise(SIGINT);
            errno_after_signal = errno;
            errno = EINTR;
            return -1;
        };
        parent.tell(outcome_of([&] {
            asyncio::run([]() -> Coro<> { co_await asyncio::create_future(); }(),
                         RunOptions().loop(asyncio::LoopOptions().system_calls(calls)));
        }));
        parent.tell(errno_after_signal == EXDEV ? "kept" : std::to_string(errno_after_signal));
        return 0;
    });
    EXPECT_EQ(child.rest(), "KeyboardInterrupt kept");
    EXPECT_EQ(child.wait(), "exited with 0");
}

TEST(CtrlC, does_not_disturb_system_calls_of_the_users) {
    Process child([](Parent& parent) {
        parent.tell(outcome_of([&] {
            asyncio::run([](const Parent& p) -> Coro<> {
                int ends[2] = {-1, -1};
                EXPECT_EQ(::pipe(ends), 0);
                p.tell("ready");
                const pid_t sender = ::fork();
                if (sender == 0) {
                    // The signal comes while the parent is in read() or before, the byte after.
                    ::kill(::getppid(), SIGINT);
                    const ssize_t count = ::write(ends[1], "x", 1);
                    ::_exit(count == 1 ? 0 : 1);
                }
                char c = 0;
                const ssize_t count = ::read(ends[0], &c, 1);
                p.tell(count == 1 ? "read" : "disturbed");
                while (::waitpid(sender, nullptr, 0) < 0 && errno == EINTR) {
                }
                co_await asyncio::sleep(1000);
            }(parent));
        }));
        return 0;
    });
    EXPECT_EQ(child.rest(), "ready read KeyboardInterrupt");
    EXPECT_EQ(child.wait(), "exited with 0");
}

TEST(CtrlC, ends_a_forked_child_of_main_at_once_and_leaves_main_alone) {
    Process child([](Parent& parent) {
        parent.tell(outcome_of([&] {
            asyncio::run([](const Parent& p) -> Coro<> {
                const pid_t forked = ::fork();
                if (forked == 0) {
                    ::raise(SIGINT);
                    ::_exit(0);
                }
                int status = 0;
                while (::waitpid(forked, &status, 0) < 0 && errno == EINTR) {
                }
                p.tell(WIFSIGNALED(status) && WTERMSIG(status) == SIGINT ? "killed" : "survived");
                co_await asyncio::sleep(0.001);
            }(parent));
        }));
        return 0;
    });
    EXPECT_EQ(child.rest(), "killed value");
    EXPECT_EQ(child.wait(), "exited with 0");
}

TEST(CtrlC, in_virtual_time_cancels_main_before_the_clock_jumps) {
    Process child([](Parent& parent) {
        asyncio::testing::VirtualClock clock;
        parent.tell(outcome_of([&] {
            asyncio::run(
                []() -> Coro<> {
                    ::raise(SIGINT);
                    co_await asyncio::sleep(1000);
                }(),
                RunOptions().clock(clock));
        }));
        parent.tell(std::to_string(clock.now_ns() / 1'000'000'000));
        return 0;
    });
    EXPECT_EQ(child.rest(), "KeyboardInterrupt 1000");
}

// --- several mains ---

TEST(CtrlC, a_runner_handles_each_main_anew_and_nothing_between_them) {
    Process child([](Parent& parent) {
        Runner runner;
        const auto main = []() -> Coro<> {
            ::raise(SIGINT);
            co_await asyncio::sleep(1000);
        };
        for (int i = 0; i < 3; ++i) parent.tell(outcome_of([&] { runner.run(main()); }));
        parent.tell("ready");
        ::raise(SIGINT);
        return 0;
    });
    EXPECT_EQ(child.rest(), "KeyboardInterrupt KeyboardInterrupt KeyboardInterrupt ready");
    EXPECT_EQ(child.wait(), "killed by SIGINT");
}

// --- whose SIGINT it is ---

TEST(CtrlC, that_is_ignored_stays_ignored) {
    Process child([](Parent& parent) {
        set_sigint(SIG_IGN);
        parent.tell(outcome_of([&] {
            asyncio::run([](const Parent& p) -> Coro<> {
                p.tell(sigint_action().sa_handler == SIG_IGN ? "ignored" : "handled");
                ::raise(SIGINT);
                co_await asyncio::sleep(0.001);
            }(parent));
        }));
        return 0;
    });
    EXPECT_EQ(child.rest(), "ignored value");
    EXPECT_EQ(child.wait(), "exited with 0");
}

int caught = 0;
void catch_it(int) { caught = caught + 1; }

TEST(CtrlC, with_a_handler_of_the_users_is_the_users) {
    Process child([](Parent& parent) {
        struct sigaction action = {};
        action.sa_handler = &catch_it;
        sigaddset(&action.sa_mask, SIGUSR1);
        action.sa_flags = SA_NODEFER;
        ::sigaction(SIGINT, &action, nullptr);
        parent.tell(outcome_of([&] {
            asyncio::run([]() -> Coro<> {
                ::raise(SIGINT);
                ::raise(SIGINT);
                co_await asyncio::sleep(0.001);
            }());
        }));
        parent.tell(std::to_string(caught));
        return 0;
    });
    EXPECT_EQ(child.rest(), "value 2");
    EXPECT_EQ(child.wait(), "exited with 0");
}

TEST(CtrlC, a_handler_that_main_sets_is_left_in_place) {
    Process child([](Parent& parent) {
        asyncio::run([]() -> Coro<> {
            set_sigint(&catch_it, SA_RESTART);
            co_await asyncio::sleep(0);
        }());
        parent.tell(sigint_action().sa_handler == &catch_it ? "left" : "replaced");
        return 0;
    });
    EXPECT_EQ(child.rest(), "left");
    EXPECT_EQ(child.wait(), "exited with 0");
}

TEST(CtrlC, restores_flags_and_mask_also_when_main_fails) {
    Process child([](Parent& parent) {
        struct sigaction action = {};
        action.sa_handler = SIG_DFL;
        sigaddset(&action.sa_mask, SIGUSR1);
        action.sa_flags = SA_NODEFER;
        ::sigaction(SIGINT, &action, nullptr);
        const auto main = [](const Parent& p, int how) -> Coro<> {
            p.tell(sigint_action().sa_handler == SIG_DFL ? "default" : "handled");
            if (how == 1) throw std::runtime_error("failed");
            if (how == 2) throw asyncio::SystemExit(1);
            if (how == 3) asyncio::get_running_loop().stop();
            co_await asyncio::create_future();
        };
        parent.tell(outcome_of([&] { asyncio::run(main(parent, 1)); }));
        parent.tell(outcome_of([&] {
            try {
                asyncio::run(main(parent, 2));
            } catch (const asyncio::SystemExit&) {
            }
        }));
        parent.tell(outcome_of([&] {
            try {
                asyncio::run(main(parent, 3));
            } catch (const asyncio::RuntimeError&) {
            }
        }));
        return 0;
    });
    EXPECT_EQ(child.rest(), "handled failed handled value handled value");
    EXPECT_EQ(child.wait(), "exited with 0");
}

TEST(CtrlC, is_left_alone_when_told_so) {
    Process child([](Parent& parent) {
        asyncio::run(
            [](const Parent& p) -> Coro<> {
                p.tell(sigint_action().sa_handler == SIG_DFL ? "default" : "handled");
                ::raise(SIGINT);
                co_await asyncio::sleep(0);
            }(parent),
            RunOptions().handle_sigint(false));
        return 0;
    });
    EXPECT_EQ(child.rest(), "default");
    EXPECT_EQ(child.wait(), "killed by SIGINT");
}

// --- threads ---

TEST(CtrlC, delivered_to_another_thread_cancels_main) {
    Process child([](Parent& parent) {
        // Only this thread takes it.
        std::atomic<bool> done = false;
        std::thread other([&] {
            while (!done) std::this_thread::yield();
        });
        block_sigint(true);
        parent.tell(outcome_of([&] { asyncio::run(cleans_up(parent, "ready")); }));
        done = true;
        other.join();
        return 0;
    });
    EXPECT_EQ(child.line(), "ready");
    child.wait_until_blocked();
    child.interrupt();
    EXPECT_EQ(child.rest(), "cancelled:ready KeyboardInterrupt");
    EXPECT_EQ(child.wait(), "exited with 0");
}

TEST(CtrlC, delivered_to_another_thread_twice_ends_the_process) {
    Process child([](Parent& parent) {
        std::thread other([] {
            for (;;) ::pause();
        });
        block_sigint(true);
        asyncio::run([](const Parent& p) -> Coro<> {
            try {
                co_await cleans_up(p, "ready");
            } catch (const asyncio::CancelledError&) {
                spin(p);
            }
        }(parent));
        other.join();
        return 0;
    });
    EXPECT_EQ(child.line(), "ready");
    child.interrupt();
    EXPECT_EQ(child.line(), "cancelled:ready");
    EXPECT_EQ(child.line(), "ready");
    child.interrupt();
    EXPECT_EQ(child.wait(), "killed by SIGINT");
}

TEST(CtrlC, is_not_handled_by_a_loop_of_another_thread_than_main) {
    Process child([](Parent& parent) {
        std::thread other([&] {
            parent.tell(outcome_of([&] {
                asyncio::run([](const Parent& p) -> Coro<> {
                    p.tell(sigint_action().sa_handler == SIG_DFL ? "default" : "handled");
                    co_await asyncio::sleep(0);
                }(parent));
            }));
        });
        other.join();
        return 0;
    });
    EXPECT_EQ(child.rest(), "default value");
    EXPECT_EQ(child.wait(), "exited with 0");
}

TEST(CtrlC, with_loops_in_several_threads_cancels_the_main_of_the_main_thread_alone) {
    Process child([](Parent& parent) {
        parent.tell(outcome_of([&] {
            asyncio::run([](const Parent& p) -> Coro<> {
                std::atomic<int> slept = 0;
                std::thread other([&] {
                    asyncio::run([](std::atomic<int>& count) -> Coro<> {
                        for (int i = 0; i < 10; ++i) co_await asyncio::sleep(0.001);
                        count = 10;
                    }(slept));
                });
                try {
                    co_await cleans_up(p, "ready");
                } catch (const asyncio::CancelledError&) {
                    other.join();
                    p.tell(std::to_string(slept));
                    throw;
                }
            }(parent));
        }));
        return 0;
    });
    EXPECT_EQ(child.line(), "ready");
    child.interrupt();
    EXPECT_EQ(child.rest(), "cancelled:ready 10 KeyboardInterrupt");
    EXPECT_EQ(child.wait(), "exited with 0");
}

// The handler on another thread, while main's run ends: either it came in time, or the default
// action ends the process; never does it touch what is gone.
TEST(CtrlC, on_another_thread_may_meet_the_end_of_the_run) {
    for (int i = 0; i < 20; ++i) {
        Process child([](Parent& parent) {
            for (int round = 0; round < 100; ++round) {
                std::atomic<bool> begun = false;
                std::thread other([&] {
                    while (!begun) {
                    }
                    ::raise(SIGINT);
                });
                outcome_of([&] {
                    asyncio::run([](std::atomic<bool>& flag) -> Coro<> {
                        flag = true;
                        co_await asyncio::sleep(0);
                    }(begun));
                });
                other.join();
            }
            parent.tell("survived");
            return 0;
        });
        const std::string end = child.wait();
        EXPECT_TRUE(end == "killed by SIGINT" || end == "exited with 0") << end;
    }
}

} // namespace
