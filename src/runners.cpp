// SPDX-License-Identifier: MIT
#include <asyncio/runners.hpp>

#include <memory>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

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

RunScope::RunScope(const RunOptions& options) {
    if (get_running_loop_or_null() != nullptr) {
        throw RuntimeError(
            "asyncio::run() cannot be called from a running event loop: co_await the coroutine, "
            "or make it a task with create_task()");
    }
    loop_ = new_event_loop(options.loop_options());
}

void RunScope::run(FutureBase& main) {
    try {
        run_until_done(*loop_, main);
    } catch (...) {
        cancel_all_tasks();
        loop_->close();
        throw;
    }
    cancel_all_tasks();
    loop_->close();
}

void RunScope::cancel_all_tasks() {
    const std::vector<AnyTask> left = all_tasks(*loop_);
    if (left.empty()) return;
    for (const AnyTask& task : left) task.cancel();
    const auto all = create_future(*loop_); // done when the last of them is
    std::size_t unfinished = left.size();
    for (const AnyTask& task : left) {
        task.add_done_callback([&unfinished, all] {
            if (--unfinished == 0) all.set_result();
        });
    }
    run_until_done(*loop_, all.state());
    for (const AnyTask& task : left) {
        if (task.cancelled()) continue;
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
