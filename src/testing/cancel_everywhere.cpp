// SPDX-License-Identifier: MIT
#include <asyncio/testing/cancel_everywhere.hpp>
#include <asyncio/testing/virtual_time.hpp>

#include <cstdint>
#include <exception>
#include <string>

ASYNCIO_BEGIN_NAMESPACE
namespace testing {

CancelFailure::CancelFailure(const CancelFailure&) noexcept = default;
CancelFailure& CancelFailure::operator=(const CancelFailure&) noexcept = default;
CancelFailure::~CancelFailure() = default;

namespace detail {
namespace {

std::string text_of(const ExceptionContext& context) {
    std::string text = context.message;
    for (const ExceptionContext::Detail& detail : context.details) {
        text += "\n" + detail.key + ": " + detail.text;
    }
    return text;
}

std::string text_of(const std::exception_ptr& exception) {
    try {
        std::rethrow_exception(exception);
    } catch (const std::exception& error) {
        return error.what();
    } catch (...) {
        return "what is no std::exception";
    }
}

// Where the task stands: "at file.cpp:12 in fetch".
std::string place_of(const Task<>& task) {
    const auto& state = static_cast<const asyncio::detail::TaskBase&>(task.state());
    const auto chain = state.await_chain();
    return "at " + chain.front().text() + " in " + chain.front().function();
}

// How long the kernel may take, in real time, if nothing but descriptors is waited for.
constexpr std::int64_t patience_ns = 10'000'000'000;

// One turn, in which time jumps if nothing else is to be done. False if nothing ever will be.
bool run_a_turn(EventLoop& loop, VirtualClock& clock) {
    asyncio::detail::ReadyQueue& ready = loop.core().ready;
    const bool watches = loop.backend().watches_any();
    if (ready.empty() && watches) loop.backend().wait(0, ready);
    if (ready.empty()) {
        if (!loop.core().timers.empty()) {
            clock.jump_to(loop.core().timers.earliest()->when_ns);
        } else {
            if (watches) loop.backend().wait(patience_ns, ready);
            if (ready.empty()) return false;
        }
    }
    loop.stop();
    loop.run_forever();
    return true;
}

} // namespace

int CancelRuns::run() {
    int turn = 0;
    while (run_with_cancel_in(turn)) ++turn;
    if (turn <= 1) {
        throw CancelFailure("cancel_everywhere: no cancel was made, since the body never waits: "
                            "give it something to await that takes a turn");
    }
    return turn - 1; // without the one before the first step
}

bool CancelRuns::run_with_cancel_in(int turn) {
    const LeakToken token = std::make_shared<const int>(turn);
    std::vector<std::string> reports;
    VirtualClock clock;
    auto loop = new_event_loop(LoopOptions().clock(clock));
    loop->set_exception_handler([&reports](EventLoop&, const ExceptionContext& context) {
        reports.push_back(text_of(context));
    });
    std::string when = "without a cancel";
    const auto fail = [&](const std::string& what) {
        throw CancelFailure("cancel_everywhere: " + when + ", the body " + what);
    };
    const auto left = [&] {
        return loop->core().tasks == nullptr ? std::string()
                                             : ":" + loop->core().tasks->describe_tasks();
    };

    const Task<> task = start(*loop, token);
    bool cancelled = false;
    int turns = 0;
    for (; !task.done(); ++turns) {
        if (turns == turn) {
            when = turn == 0 ? "cancelled before its first step"
                             : "cancelled in turn " + std::to_string(turn) + ", " + place_of(task);
            cancelled = task.cancel("cancel_everywhere");
        }
        if (!run_a_turn(*loop, clock)) {
            fail("hangs: it is not done, nothing is ready and no timer is armed" +
                 std::string(loop->backend().watches_any()
                                 ? ", and no descriptor has become ready in 10 seconds"
                                 : "") +
                 left());
        }
        if (turns >= options_.most_turns()) {
            fail("is not done after " + std::to_string(turns) + " turns" + left());
        }
    }
    // What it has started and not waited for comes to its end if it needs no time for that, or may
    // take it.
    for (int i = 0; i < options_.most_turns() && loop->core().tasks != nullptr &&
                    (options_.may_leave_tasks() || !loop->core().ready.empty());
         ++i) {
        if (!run_a_turn(*loop, clock)) break;
    }
    for (int i = 0; i < options_.most_turns() && !loop->core().ready.empty(); ++i) {
        run_a_turn(*loop, clock);
    }

    if (!task.cancelled() && task.exception() != nullptr && !(cancelled && options_.may_catch()))
        fail("failed: " + text_of(task.exception()));
    if (!cancelled && task.cancelled()) fail("ended with a CancelledError");
    if (cancelled && !task.cancelled() && !options_.may_catch()) {
        fail("ended as if it had not been: it caught the CancelledError; if that is meant, say so "
             "by CancelOptions().may_catch(true)");
    }
    if (loop->core().tasks != nullptr) fail("left tasks behind" + left());
    if (!loop->core().timers.empty()) fail("left a timer behind: cancel() its handle");
    if (!loop->core().ready.empty()) fail("left callbacks behind that call each other for ever");
    if (loop->backend().watches_any())
        fail("left a reader or writer behind: remove_reader() it, remove_writer() it");
    if (token.use_count() != 1) fail("did not destroy all copies of its LeakToken");
    if (!reports.empty()) fail("had this reported to the exception handler: " + reports.front());
    return cancelled;
}

} // namespace detail
} // namespace testing
ASYNCIO_END_NAMESPACE
