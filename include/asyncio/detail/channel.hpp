// SPDX-License-Identifier: MIT
// What waits for a descriptor, and what is believed of it.
//
// A Channel is one descriptor's registration with a loop: made once, edge-triggered, for both
// directions. As long as it is believed to be readable (writable), an operation makes its system
// call at once; a call that would block, or that gets less than it asked for, ends the belief, and
// the next edge brings it back. Who must wait is linked in a list of the channel's, inside its own
// frame, and is queued by the edge: it then makes its call in the same turn, and a task goes on
// with the result at once.
#pragma once

#include <asyncio/coroutine.hpp>
#include <asyncio/detail/task_state.hpp>
#include <asyncio/events.hpp>
#include <asyncio/kernel/backend.hpp>

#include <concepts>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <source_location>
#include <span>
#include <string>
#include <tuple>
#include <utility>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

class Channel;

// The system calls of the loop that runs in this thread; without one, the kernel's own.
ASYNCIO_API const SystemCalls& current_system_calls() noexcept;

// Throws the std::system_error of an errno: "what: text of the error".
[[noreturn]] ASYNCIO_API ASYNCIO_COLD void throw_system_error(int error, const std::string& what);
ASYNCIO_API ASYNCIO_COLD std::exception_ptr make_system_error(int error, const std::string& what);

// What the channels of a loop share. Lives in the loop, until that is closed.
class ASYNCIO_API Io final : public LoopExtra {
  public:
    // Made at the first call. Throws RuntimeError if the loop is closed.
    static Io& of(EventLoop& loop) {
        LoopExtra* io = loop.core().io.get();
        return io != nullptr ? static_cast<Io&>(*io) : make(loop);
    }
    ~Io() override;

    EventLoop& loop() const noexcept { return loop_; }
    const SystemCalls& calls() const noexcept { return loop_.backend_while_closing().calls(); }

    // Awaits of I/O that complete at once may be so many in a row; then the next one takes a turn,
    // so that others run too. An await that has to wait begins the count anew.
    static constexpr unsigned budget = 64;
    bool spend() noexcept { return at_once_++ < budget; }
    void refresh_budget() noexcept { at_once_ = 0; }

    // Blocks for what is received, kept for the next who needs one. Throws std::bad_alloc.
    static constexpr std::size_t block_size = 64 * 1024;
    char* take_block();
    void give_block(char* block) noexcept;

  private:
    friend class Channel;

    explicit Io(EventLoop& loop) noexcept : loop_(loop) {}
    static Io& make(EventLoop& loop);

    EventLoop& loop_;
    Channel* channels_ = nullptr;
    unsigned at_once_ = 0;
    static constexpr std::size_t most_spare_blocks = 16;
    std::size_t spare_blocks_ = 0;
    char* spare_[most_spare_blocks];
};

// A block for a while.
class IoBlock {
  public:
    // Throws std::bad_alloc.
    explicit IoBlock(Io& io) : io_(io), memory_(io.take_block()) {}
    IoBlock(const IoBlock&) = delete;
    IoBlock& operator=(const IoBlock&) = delete;
    ~IoBlock() { io_.give_block(memory_); }
    std::span<char> span() const noexcept { return {memory_, Io::block_size}; }

  private:
    Io& io_;
    char* memory_;
};

enum class Direction : std::uint8_t { read, write };

// Who waits for a channel. When an edge comes it is queued, and its run() tries again.
class ASYNCIO_API ChannelWaiter : public Operation {
  public:
    bool is_waiting() const noexcept { return state_ != idle; }

    // Ends the wait: what stands in a list leaves it; what stands in the ready queue comes up
    // there, is then idle, and must find that it has nothing to do. True if it is out already.
    bool stop_waiting() noexcept {
        if (state_ == linked) unlink();
        return state_ == idle;
    }

  protected:
    ChannelWaiter() = default;
    ~ChannelWaiter() {
        if (state_ == linked) [[unlikely]]
            unlink();
    }

    // Waits for the next edge. Requires: idle, and the channel is open.
    void wait_for(Channel& channel, Direction direction) noexcept;
    // Runs in the next turn, without waiting.
    void wait_a_turn(Channel& channel) noexcept;
    // First in run().
    void begin_run() noexcept { state_ = idle; }
    bool is_queued() const noexcept { return state_ == queued; }

  private:
    friend class Channel;

    enum State : std::uint8_t { idle, linked, queued };

    void unlink() noexcept;

    Channel* waited_for_; // while linked
    ChannelWaiter* previous_;
    State state_ = idle;
    Direction direction_;
};

// While it is linked, Runnable::next_link is the next one.
class ASYNCIO_API Channel : public EdgeWatcher {
  public:
    Channel() = default;
    Channel(const Channel&) = delete;
    Channel& operator=(const Channel&) = delete;

    // The descriptor belongs to this loop until detach(). Throws RuntimeError if it is used in
    // another loop or by add_reader(), std::system_error if the kernel cannot watch it.
    void attach(EventLoop& loop, int descriptor) {
        if (io_ == nullptr || &io_->loop() != &loop) [[unlikely]] {
            attach_first(loop, descriptor);
        }
    }
    // Before the descriptor is closed: forgets the loop. Who waits is queued, and finds that the
    // channel is_attached() no more.
    void detach() noexcept;
    bool is_attached() const noexcept { return io_ != nullptr; }
    // Requires: attached.
    Io& io() const noexcept { return *io_; }
    EventLoop& loop() const noexcept { return io_->loop(); }

    bool believed(Direction direction) const noexcept {
        return direction == Direction::read ? readable_ : writable_;
    }
    void would_block(Direction direction) noexcept {
        (direction == Direction::read ? readable_ : writable_) = false;
    }
    // A call has read less than it could have. That was all, unless the peer has ended the
    // connection, which comes as one edge with the last data.
    void read_short() noexcept { readable_ = hangup_; }
    bool hangup() const noexcept { return hangup_; }
    // Before connect(): a socket that is not connected hangs up, as the kernel sees it.
    void forget_hangup() noexcept { hangup_ = false; }

    // Queues those who wait, as an edge would.
    void wake(Direction direction) noexcept;

  protected:
    virtual ~Channel();
    // The loop is closing: must detach().
    virtual void loop_closed() noexcept { detach(); }

  private:
    friend class Io;
    friend class ChannelWaiter;

    struct List {
        ChannelWaiter* first = nullptr;
        ChannelWaiter* last = nullptr;
    };

    void attach_first(EventLoop& loop, int descriptor);
    void edges(bool readable, bool writable, bool hangup, ReadyQueue& ready) noexcept override;
    static void queue_all(List& list, ReadyQueue& ready) noexcept;

    Io* io_ = nullptr;
    int watched_ = -1; // the descriptor, while attached
    bool readable_ = true;
    bool writable_ = true;
    bool hangup_ = false;
    List lists_[2];           // by Direction
    Channel* next_ = nullptr; // in Io
    Channel* previous_ = nullptr;
};

// An operation on a channel that a task awaits. Derived: attempt(), and what the await gives.
class ASYNCIO_API IoOperation : public ChannelWaiter {
  public:
    using AsyncioAwaiter = void;

    template <std::derived_from<PromiseBase> Promise>
    void await_suspend(std::coroutine_handle<Promise> frame,
                       std::source_location where = std::source_location::current()) noexcept {
        frame.promise().where = where;
        begin(*frame.promise().task, frame);
    }
    CancelOutcome try_cancel() noexcept override;

  protected:
    IoOperation() = default;
    ~IoOperation() = default;

    enum class Attempt : std::uint8_t {
        done,
        blocked, // would block: waits for `direction`
    };

    // What is waited for; null once it is closed, which fails the operation. Asked again before
    // each attempt.
    virtual Channel* channel() noexcept = 0;
    // One try. Throws what fails. After `blocked`, the channel's belief must be gone.
    virtual Attempt attempt() = 0;
    // "sock_recv: the socket was closed while a task waited for it"
    virtual std::exception_ptr closed() const = 0;

    // In await_ready(): whether it is done, or has failed.
    bool is_ready() noexcept;
    // Which direction attempt() has found blocked. Default: to read.
    Direction direction = Direction::read;

    // In await_resume().
    void check() {
        if (failure_ != nullptr || !done_) [[unlikely]]
            throw_failure();
    }
    // The same without throwing; null if it is done.
    std::exception_ptr take_failure() noexcept;

  private:
    void begin(TaskBase& task, std::coroutine_handle<> frame) noexcept;
    bool try_once() noexcept; // false: must wait
    bool go_on() noexcept;
    void run() override {
        if (go_on()) task_->step();
    }
    void run_in_debug() override {
        if (go_on()) task_->step_in_debug();
    }
    [[noreturn]] ASYNCIO_COLD void throw_failure();

    TaskBase* task_ = nullptr;
    std::exception_ptr failure_;
    bool done_ = false;
    bool put_off_ = false; // the budget is spent
};

// What a function like sock_recv() gives: what the operation is made of as it is awaited.
template <class Op, class... Args>
class [[nodiscard("nothing is done until it is awaited")]] Deferred {
  public:
    explicit Deferred(Args... arguments) noexcept : arguments_(std::move(arguments)...) {}
    Op operator co_await() { return std::make_from_tuple<Op>(std::move(arguments_)); }

  private:
    std::tuple<Args...> arguments_;
};

} // namespace detail
ASYNCIO_END_NAMESPACE
