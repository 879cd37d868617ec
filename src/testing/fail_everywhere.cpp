// SPDX-License-Identifier: MIT
#include <asyncio/sleep.hpp>
#include <asyncio/testing/fail_everywhere.hpp>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <dirent.h>
#include <exception>
#include <memory>
#include <set>
#include <sys/eventfd.h>
#include <system_error>
#include <unistd.h>

ASYNCIO_BEGIN_NAMESPACE
namespace testing {

FaultFailure::FaultFailure(const FaultFailure&) noexcept = default;
FaultFailure& FaultFailure::operator=(const FaultFailure&) noexcept = default;
FaultFailure::~FaultFailure() = default;

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
    } catch (const CancelledError& error) {
        return error.what();
    } catch (...) {
        return "what is no std::exception";
    }
}

bool is_of(const std::exception_ptr& exception, int error) {
    try {
        std::rethrow_exception(exception);
    } catch (const std::system_error& failure) {
        return failure.code() == std::error_code(error, std::generic_category());
    } catch (...) {
        return false;
    }
}

// The descriptors of this process.
std::set<int> open_descriptors() {
    DIR* directory = ::opendir("/proc/self/fd");
    if (directory == nullptr) {
        throw std::system_error(errno, std::generic_category(),
                                "fail_everywhere: looking for open descriptors in /proc/self/fd");
    }
    std::set<int> open;
    while (const dirent* entry = ::readdir(directory)) {
        if (entry->d_name[0] != '.') open.insert(std::atoi(entry->d_name));
    }
    open.erase(::dirfd(directory));
    ::closedir(directory);
    return open;
}

// "descriptor 7, which is socket:[1234]"
std::string description_of(int descriptor) {
    char target[256];
    const std::string link = "/proc/self/fd/" + std::to_string(descriptor);
    const ssize_t size = ::readlink(link.c_str(), target, sizeof target);
    return "descriptor " + std::to_string(descriptor) +
           (size > 0 ? ", which is " + std::string(target, static_cast<std::size_t>(size)) : "");
}

// Stops the loop, whatever it waits for, when its patience is at an end; and again, if it is run
// again.
class Watchdog {
  public:
    Watchdog(EventLoop& loop, Delay patience) : loop_(loop), patience_(patience) { arm(); }
    ~Watchdog() { timer_.cancel(); }
    Watchdog(const Watchdog&) = delete;
    Watchdog& operator=(const Watchdog&) = delete;

    bool has_barked() const noexcept { return has_barked_; }

  private:
    void arm() {
        timer_ = loop_.call_later(patience_, [this] {
            has_barked_ = true;
            loop_.stop();
            arm();
        });
    }

    EventLoop& loop_;
    Delay patience_;
    TimerHandle timer_;
    bool has_barked_ = false;
};

// What every loop can do: callbacks, timers, tasks, descriptors.
Coro<> serve() {
    EventLoop& loop = get_running_loop();
    const auto called = create_future(loop);
    loop.call_soon([&] { called.set_result(); });
    co_await called;
    co_await sleep(std::chrono::microseconds(1));
    struct Ready {
        int descriptor = ::eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
        ~Ready() { ::close(descriptor); }
    } ready;
    const auto readable = create_future(loop);
    loop.add_reader(ready.descriptor, [&] {
        loop.remove_reader(ready.descriptor);
        readable.set_result();
    });
    co_await readable;
}

} // namespace

FaultReport FaultRuns::run(std::span<const Fault> faults) {
    FaultReport report;
    std::string kinds;
    const Fault* former = nullptr;
    for (const Fault& fault : faults) {
        if (former == nullptr || former->call() != fault.call())
            kinds += std::string(former == nullptr ? "" : ", ") + name_of(fault.call());
        former = &fault;
        FaultTally& tally = report.tallies_.emplace_back(FaultTally{fault});
        for (long first = 0;; first += options_.every()) {
            const long met = run_with(tally, first);
            report.faults_ += met;
            if (met == 0) break;
        }
    }
    if (report.faults_ == 0) {
        throw FaultFailure("fail_everywhere: no fault was met, since the body makes no such call"
                           " (of " +
                           kinds + "): give it one, or ask for others");
    }
    std::printf("fail_everywhere: %ld faults, in calls of %s\n", report.faults_, kinds.c_str());
    return report;
}

long FaultRuns::run_with(FaultTally& tally, long first) {
    const std::string when = "fail_everywhere: where call number " + std::to_string(first) +
                             " of " + tally.fault.text() + ", the body ";
    const auto fail = [&](const std::string& what) { throw FaultFailure(when + what); };
    const LeakToken token = std::make_shared<const int>(0);
    const std::set<int> before = open_descriptors();
    std::vector<std::string> reports;
    std::exception_ptr failure;
    long met = 0;
    {
        Faults faults;
        std::unique_ptr<Watchdog> watchdog; // goes last: it also looks after the runner's end
        Runner runner(
            RunOptions().loop(LoopOptions().system_calls(Faults::table())).handle_sigint(false));
        faults.make(tally.fault, first, options_.at_once());
        const auto make_loop = [&] {
            EventLoop& loop = runner.get_loop();
            loop.set_exception_handler([&reports](EventLoop&, const ExceptionContext& context) {
                reports.push_back(text_of(context));
            });
            watchdog = std::make_unique<Watchdog>(loop, options_.patience());
        };
        const auto attempt = [](auto step) -> std::exception_ptr {
            try {
                step();
            } catch (...) {
                return std::current_exception();
            }
            return nullptr;
        };
        failure = attempt([&] {
            make_loop();
            run_body(runner, token);
        });
        const auto fail_if_it_hangs = [&](const std::string& what) {
            if (watchdog == nullptr || !watchdog->has_barked()) return;
            const asyncio::detail::Runnable* tasks = runner.get_loop().core().tasks;
            const std::string left = tasks != nullptr ? ":" + tasks->describe_tasks() : "";
            fail(what + left);
        };
        fail_if_it_hangs("hangs");
        met = faults.fired();
        faults.clear();
        if (watchdog == nullptr) make_loop();
        if (const auto other = attempt([&] { runner.run(serve()); })) {
            fail_if_it_hangs("leaves a loop behind that does not serve any more");
            fail("leaves a loop behind that does not serve any more: " + text_of(other));
        }
        if (const auto other = attempt([&] { runner.close(); })) {
            if (watchdog->has_barked()) fail("leaves tasks behind that do not end when cancelled");
            fail("leaves a loop behind that cannot be closed: " + text_of(other));
        }
    }
    for (const int descriptor : open_descriptors()) {
        if (!before.contains(descriptor)) fail("leaks " + description_of(descriptor));
    }
    if (token.use_count() != 1) fail("did not destroy all copies of its LeakToken");
    if (!reports.empty() && !options_.may_report())
        fail("had this reported to the exception handler: " + reports.front());
    if (failure != nullptr && !options_.may_fail_otherwise() &&
        (met == 0 || tally.fault.error() == 0 || !is_of(failure, tally.fault.error())))
        fail("failed" + std::string(met == 0 ? " although the fault was not met: " : ": ") +
             text_of(failure));
    if (met == 0) return 0;
    ++(failure == nullptr ? tally.survived : tally.failed);
    if (failure != nullptr) {
        const std::string text = text_of(failure);
        if (std::find(tally.texts.begin(), tally.texts.end(), text) == tally.texts.end())
            tally.texts.push_back(text);
    }
    return met;
}

} // namespace detail
} // namespace testing
ASYNCIO_END_NAMESPACE
