// SPDX-License-Identifier: MIT
// Fault injection: lets chosen system calls of a loop fail, or do less than they were asked for.
//
//     asyncio::testing::Faults faults;
//     faults.make({asyncio::testing::SystemCall::recv, ECONNRESET}, 3); // its fourth call
//     asyncio::run(main(), asyncio::RunOptions().loop(
//         asyncio::LoopOptions().system_calls(asyncio::testing::Faults::table())));
//     EXPECT_EQ(faults.fired(), 1);
//
// A call that fails is not made. What would be a lie to who asks is kept true all the same: close()
// and the removal of a descriptor from epoll are made and then fail, since Linux lets go of it
// whatever it says; a connect() that is interrupted, or in progress, goes on; and a descriptor that
// is watched at its edges is armed again after an EAGAIN or a short count that the kernel knows
// nothing of, so that the edge which ends the wait comes. Sees only descriptors that were
// registered while it lived: make it before the loop.
//
// There is one Faults in a thread at a time, for the calls that are made in that thread; calls that
// other threads make through the table, to wake a loop, are the kernel's own. See fail_everywhere()
// for a run with each fault that there can be.
#pragma once

#include <asyncio/kernel/system_calls.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <vector>

ASYNCIO_BEGIN_NAMESPACE
namespace testing {

// The entries of SystemCalls, by their names.
enum class SystemCall : std::uint8_t {
    epoll_create1,
    epoll_ctl,
    epoll_wait,
    epoll_pwait2,
    eventfd,
    read,
    write,
    close,
    fcntl,
    open,
    stat,
    unlink,
    socket,
    socketpair,
    bind,
    listen,
    accept4,
    connect,
    shutdown,
    getsockname,
    getpeername,
    getsockopt,
    setsockopt,
    recv,
    recvmsg,
    recvmmsg,
    send,
    sendmsg,
    sendmmsg,
    // What getsockopt() gives for SO_ERROR, by which a connection that is being made fails later.
    so_error,
};

// All of them, in this order.
ASYNCIO_API std::span<const SystemCall> all_system_calls() noexcept;
// "recv"
ASYNCIO_API const char* name_of(SystemCall call) noexcept;
// The errors that its manual page lists, with those that tcp(7), udp(7), unix(7) and ip(7) add.
ASYNCIO_API std::span<const int> errors_of(SystemCall call) noexcept;

// What a call is to do instead of what it was asked for.
class ASYNCIO_API Fault {
  public:
    // Fails with this errno, which must not be 0.
    Fault(SystemCall call, int error) noexcept : call_(call), error_(error) {}
    // Is asked for no more than so many bytes, at least 1: read, write, recv, recvmsg, send and
    // sendmsg of a stream; for so many messages: recvmmsg and sendmmsg. A call that asks for no
    // more anyway is not counted.
    static Fault shortened(SystemCall call, std::size_t most) noexcept {
        Fault fault(call, 0);
        fault.most_ = most;
        return fault;
    }

    SystemCall call() const noexcept { return call_; }
    // 0 if the call is shortened.
    int error() const noexcept { return error_; }
    // 0 if the call fails.
    std::size_t most() const noexcept { return most_; }
    // "recv fails: Connection reset by peer", "recv of at most 3 bytes"
    std::string text() const;

  private:
    SystemCall call_;
    int error_;
    std::size_t most_ = 0;
};

// A Fault for each error of the call.
ASYNCIO_API std::vector<Fault> faults_of(SystemCall call);

class ASYNCIO_API Faults {
  public:
    // Throws RuntimeError if there is another one in this thread.
    Faults();
    ~Faults();
    Faults(const Faults&) = delete;
    Faults& operator=(const Faults&) = delete;

    // For LoopOptions().system_calls(): the kernel's own calls, with the faults of the Faults that
    // lives. Outlives it.
    static const SystemCalls& table() noexcept;

    static constexpr long always = std::numeric_limits<long>::max();
    // Of the calls that are made from now on, those numbered first, first + 1, ...,
    // first + count - 1 are met by the fault; the first call is number 0. A call that is met by
    // several has the one that was made first. Throws ValueError for a fault that cannot be.
    void make(const Fault& fault, long first = 0, long count = 1);
    // No more faults. The counts stay.
    void clear() noexcept { rules_.clear(); }

    // How many calls were made, those that failed included, and how many met a fault.
    long calls(SystemCall call) const noexcept { return counts_[index(call)].calls; }
    long fired(SystemCall call) const noexcept { return counts_[index(call)].fired; }
    long fired() const noexcept;

  private:
    friend struct FaultyCalls;

    struct Rule {
        Fault fault;
        long skipped; // so many come before
        long left;
    };
    struct Counts {
        long calls = 0;
        long fired = 0;
    };
    struct Registrations; // what epoll was told of each descriptor
    static constexpr std::size_t kinds = static_cast<std::size_t>(SystemCall::so_error) + 1;
    static std::size_t index(SystemCall call) noexcept { return static_cast<std::size_t>(call); }

    std::vector<Rule> rules_;
    Counts counts_[kinds];
    std::unique_ptr<Registrations> registrations_;
};

} // namespace testing
ASYNCIO_END_NAMESPACE
