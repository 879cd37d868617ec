// SPDX-License-Identifier: MIT
#include <asyncio/runners.hpp>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {
namespace {

// --- Control-C ---

// The first SIGINT of a run, as it comes to the loop: cancels main. A block of its own, since it
// may still be queued when the run has ended.
class Interrupt final : public Runnable {
  public:
    Interrupt(EventLoop& l, TaskBase& m, pid_t p) noexcept : loop(l), main(&m), process(p) {}
    ~Interrupt() = default;

    void run() override {
        if (main == nullptr) {
            discard();
            return;
        }
        arrived = true;
        cancelled_main = main->cancel(std::string());
    }
    void discard() noexcept override { delete this; }

    EventLoop& loop;
    TaskBase* main; // null: its run has ended
    const pid_t process;
    std::atomic<int> signals = 0; // how many came
    bool arrived = false;         // the first of them is not queued any more
    bool cancelled_main = false;
};

// What the handler finds. It may run on any thread, and anywhere in this one: it touches nothing
// else but the Interrupt, and the door of its loop. Both live while `current` points there, and
// while a handler that has seen them runs.
constinit std::atomic<Interrupt*> current = nullptr;
constinit std::atomic<int> handlers_running = 0;
static_assert(std::atomic<Interrupt*>::is_always_lock_free && std::atomic<int>::is_always_lock_free,
              "a lock has no place in a signal handler");

void end_process_by_sigint() noexcept {
    struct sigaction action = {};
    action.sa_handler = SIG_DFL;
    ::sigaction(SIGINT, &action, nullptr);
    ::raise(SIGINT); // in the handler of SIGINT: comes when that returns
}

void on_sigint(int) {
    const int error = errno;
    // Both are sequentially consistent, as in ~InterruptScope: either this is seen to be running
    // there, or `current` is null here.
    handlers_running.fetch_add(1);
    Interrupt* interrupt = current.load();
    // A forked child has a copy of all this and of no loop that runs.
    const bool is_first = interrupt != nullptr && interrupt->process == ::getpid() &&
                          interrupt->signals.fetch_add(1) == 0;
    if (!is_first || !interrupt->loop.enter_from_signal_handler(*interrupt)) {
        end_process_by_sigint();
    }
    handlers_running.fetch_sub(1);
    errno = error;
}

// Handles SIGINT for as long as it lives, if that is ours to handle.
class InterruptScope {
  public:
    InterruptScope(EventLoop& loop, TaskBase& main, bool wanted) {
        if (!wanted) return;
        const pid_t process = ::getpid();
        if (::syscall(SYS_gettid) != process) return; // not the main thread
        if (::sigaction(SIGINT, nullptr, &former_) != 0 || former_.sa_handler != SIG_DFL) return;
        interrupt_ = new Interrupt(loop, main, process);
        current.store(interrupt_);
        struct sigaction action = {};
        action.sa_handler = &on_sigint;
        // The loop's wait ends by a signal all the same; system calls of the user's should not.
        action.sa_flags = SA_RESTART | SA_ONSTACK;
        ::sigaction(SIGINT, &action, nullptr);
    }
    ~InterruptScope() {
        if (interrupt_ == nullptr) return;
        restore();
        interrupt_->main = nullptr;
        const bool is_queued = interrupt_->signals.load() != 0 && !interrupt_->arrived;
        if (!is_queued) delete interrupt_; // else the queue's to delete
    }
    InterruptScope(const InterruptScope&) = delete;
    InterruptScope& operator=(const InterruptScope&) = delete;

    // Whether Control-C is what ended main. Requires: main is done. SIGINT is not handled any more.
    bool ended_main() {
        if (interrupt_ == nullptr) return false;
        restore();
        if (interrupt_->signals.load() == 0) return false;
        TaskBase& main = *interrupt_->main;
        if (interrupt_->cancelled_main) {
            return main.state() == FutureBase::cancelled_state && main.uncancel() == 0;
        }
        // It came while main took its last step. In asyncio that would have cancelled main, though
        // too late to be thrown; only an exception would have stood.
        return main.state() == FutureBase::finished ||
               (main.state() == FutureBase::cancelled_state && main.cancelling() == 0);
    }

  private:
    // Puts the former action back, unless the user has set another one meanwhile.
    void restore() noexcept {
        if (is_restored_) return;
        is_restored_ = true;
        struct sigaction now = {};
        if (::sigaction(SIGINT, nullptr, &now) == 0 && now.sa_handler == &on_sigint) {
            ::sigaction(SIGINT, &former_, nullptr);
        }
        current.store(nullptr);
        while (handlers_running.load() != 0) ::sched_yield(); // on other threads
    }

    Interrupt* interrupt_ = nullptr; // null: SIGINT is left alone
    bool is_restored_ = false;
    struct sigaction former_ = {};
};

std::terminate_handler terminate_otherwise = nullptr;

// An uncaught KeyboardInterrupt is no crash: the process ends as it would by SIGINT.
[[noreturn]] void on_terminate() {
    try {
        if (std::current_exception() != nullptr) throw;
    } catch (const KeyboardInterrupt&) {
        std::fflush(stdout);
        sigset_t interrupt;
        sigemptyset(&interrupt);
        sigaddset(&interrupt, SIGINT);
        ::pthread_sigmask(SIG_UNBLOCK, &interrupt, nullptr);
        end_process_by_sigint();
    } catch (...) { // NOLINT(bugprone-empty-catch): it is for the other handler
    }
    terminate_otherwise();
    std::abort();
}

[[noreturn]] void throw_keyboard_interrupt() {
    // Once, and only on the main thread.
    if (terminate_otherwise == nullptr) terminate_otherwise = std::set_terminate(&on_terminate);
    throw KeyboardInterrupt();
}

} // namespace

void run_until_done(EventLoop& loop, FutureBase& future) {
    // A KeyboardInterrupt may leave the loop when the callback is scheduled already: then it must
    // not stop the next run.
    struct StopWhenDone {
        std::shared_ptr<bool> running;
        AnyFuture future;
        DoneCallbackId id;
        ~StopWhenDone() {
            *running = false;
            future.remove_done_callback(id);
        }
    };
    if (&future.loop() != &loop) {
        throw ValueError("the future belongs to a different loop than the one that is to run: run "
                         "its own, future.get_loop(); " +
                         future.describe());
    }
    const AnyFuture handle = AnyFuture::of(future);
    const auto running = std::make_shared<bool>(true);
    const StopWhenDone stop{running, handle, handle.add_done_callback([&loop, running] {
                                if (*running) loop.stop();
                            })};
    try {
        loop.run_forever();
    } catch (...) {
        // KeyboardInterrupt, perhaps the future's own: then it counts as seen.
        if (future.done()) static_cast<void>(future.retrieve());
        throw;
    }
    if (!future.done())
        throw RuntimeError("Event loop stopped before Future completed. " + future.describe());
}

RunnerCore::RunnerCore(const RunOptions& options, const char* caller)
    : options_(options), caller_(caller) {}

RunnerCore::~RunnerCore() { close_and_report(); }

EventLoop& RunnerCore::loop() {
    if (closed_) {
        throw RuntimeError("Runner is closed: it runs nothing more; make another Runner");
    }
    if (loop_ == nullptr) {
        EventLoopOwner made = new_event_loop(options_.loop_options());
        context_ = copy_context();
        loop_ = std::move(made);
    }
    return *loop_;
}

EventLoop& RunnerCore::loop_for_main() {
    if (get_running_loop_or_null() != nullptr) {
        throw RuntimeError(std::string(caller_) +
                           " cannot be called from a running event loop: co_await the coroutine, "
                           "or make it a task with create_task()");
    }
    return loop();
}

TaskOptions RunnerCore::options_for_main(const Context* context) const {
    TaskOptions options;
    options.context(context != nullptr ? *context : *context_);
    return options;
}

void RunnerCore::run(TaskBase& main) {
    InterruptScope interrupts(*loop_, main, options_.handles_sigint());
    run_until_done(*loop_, main);
    if (interrupts.ended_main()) throw_keyboard_interrupt();
}

void RunnerCore::run_and_close(TaskBase& main) {
    try {
        run(main);
    } catch (...) {
        close_and_report();
        throw;
    }
    close();
}

void RunnerCore::close() {
    if (closed_ || loop_ == nullptr) return;
    if (!loop_->is_closed()) loop_->throw_if_cannot_run();
    closed_ = true;
    // Whatever fails, what comes after it is done all the same, and the first failure is thrown.
    std::exception_ptr failure;
    const auto attempt = [&](auto stage) {
        try {
            stage();
        } catch (...) {
            if (failure == nullptr) {
                failure = std::current_exception();
                return;
            }
            loop_->report([] {
                return ExceptionContext{.message = "closing the runner failed once more",
                                        .exception = std::current_exception()};
            });
        }
    };
    attempt([this] { cancel_all_tasks(); });
    for (const auto& step : loop_->core().shutdown_steps) {
        if (step != nullptr) attempt([&] { shut_down(*step); });
    }
    loop_->close();
    if (failure != nullptr) std::rethrow_exception(failure);
}

void RunnerCore::close_and_report() noexcept {
    // One that is running says so, and aborts, when its owner goes.
    if (loop_ == nullptr || loop_->is_running()) return;
    try {
        close();
    } catch (...) {
        loop_->report([] {
            return ExceptionContext{.message = "closing the runner failed",
                                    .exception = std::current_exception()};
        });
    }
}

void RunnerCore::shut_down(ShutdownStep& step) {
    try {
        step.shut_down(*loop_);
    } catch (const KeyboardInterrupt&) {
        throw;
    } catch (const SystemExit&) {
        throw;
    } catch (...) {
        loop_->call_exception_handler({
            .message = "unhandled exception during the shutdown of an event loop",
            .exception = std::current_exception(),
        });
    }
}

void RunnerCore::cancel_all_tasks() {
    const std::vector<AnyTask> left = all_tasks(*loop_);
    if (left.empty()) return;
    for (const AnyTask& task : left) task.cancel();
    const auto all = create_future(*loop_); // done when the last of them is
    const auto unfinished = std::make_shared<std::size_t>(left.size());
    for (const AnyTask& task : left) {
        task.add_done_callback([unfinished, all] {
            if (--*unfinished == 0) all.set_result();
        });
    }
    run_until_done(*loop_, all.state());
    for (const AnyTask& task : left) {
        if (task.cancelled()) continue;
        const ReportScope in_its_context(task.state());
        if (std::exception_ptr exception = task.exception()) {
            loop_->call_exception_handler({
                .message = "unhandled exception during asyncio::run() shutdown",
                .exception = exception,
                .details = {{"task", task.state().describe()}},
            });
        }
    }
}

} // namespace detail
ASYNCIO_END_NAMESPACE
