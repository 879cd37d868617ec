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
#include <asyncio/detail/tls.hpp>
#include <asyncio/events.hpp>
#include <asyncio/kernel/backend.hpp>
#include <asyncio/result.hpp>

#include <concepts>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <source_location>
#include <span>
#include <string>
#include <type_traits>
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
    const SystemCalls& calls() const noexcept { return calls_; }

    // Awaits of I/O that complete at once may be so many in a row; then the next one takes a turn,
    // so that others run too. An await that has to wait begins the count anew.
    static constexpr int budget = 64;
    bool spend() noexcept { return --left_ >= 0; }
    void refresh_budget() noexcept { left_ = budget; }

    // Blocks for what is received, kept for the next who needs one. Throws std::bad_alloc.
    static constexpr std::size_t block_size = 64 * 1024;
    char* take_block() { return spare_blocks_ > 0 ? spare_[--spare_blocks_] : make_block(); }
    void give_block(char* block) noexcept {
        if (spare_blocks_ < most_spare_blocks) {
            spare_[spare_blocks_++] = block;
        } else {
            drop_block(block);
        }
    }

    WarmSessions& warm_sessions() noexcept { return warm_sessions_; }

  private:
    friend class Channel;

    explicit Io(EventLoop& loop) noexcept : loop_(loop), calls_(loop.backend().calls()) {}
    static Io& make(EventLoop& loop);
    static char* make_block();
    static void drop_block(char* block) noexcept;

    EventLoop& loop_;
    const SystemCalls& calls_;
    Channel* channels_ = nullptr;
    int left_ = budget; // of it
    static constexpr std::size_t most_spare_blocks = 16;
    std::size_t spare_blocks_ = 0;
    char* spare_[most_spare_blocks];
    WarmSessions warm_sessions_;
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

class ASYNCIO_API Channel : protected Edges {
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

    Edges& edges() noexcept { return *this; }
    static Channel& of(Edges& edges) noexcept { return static_cast<Channel&>(edges); }
    bool believed(Direction direction) const noexcept {
        return !has(direction == Direction::read ? unreadable : unwritable);
    }
    void would_block(Direction direction) noexcept {
        set(direction == Direction::read ? unreadable : unwritable);
    }
    // A call has read less than it could have. That was all, unless the peer has ended the
    // connection, which comes as one edge with the last data, or has sent urgent data.
    void read_short() noexcept {
        if (!has(reads_on)) set(unreadable);
    }
    bool has_hung_up() const noexcept { return has(hangup); }
    // Before connect(): a socket that is not connected hangs up, as the kernel sees it.
    void forget_hangup() noexcept { clear(hangup | reads_on); }

    // Queues those who wait, as an edge would.
    void wake(Direction direction) noexcept;

  protected:
    virtual ~Channel();
    // The loop is closing: must detach().
    virtual void loop_closed() noexcept { detach(); }

  private:
    friend class Io;
    friend class ChannelWaiter;

    void attach_first(EventLoop& loop, int descriptor);

    Io* io_ = nullptr;
    int watched_ = -1;        // the descriptor, while attached
    Channel* next_ = nullptr; // in Io
    Channel* previous_ = nullptr;
};

// An operation on a channel that a task awaits. Derived: attempt(), and what the await gives; see
// IoAwaiter.
//
// It is made with its await, moved as long as that has not begun, and ended by end() instead of a
// destructor: a class with virtual functions that has one pays for it at each await.
class ASYNCIO_API IoOperation : public ChannelWaiter {
  public:
    CancelOutcome try_cancel() noexcept override;

    // --- for IoAwaiter ---

    bool was_awaited() const noexcept { return outcome_ != Outcome::fresh; }
    ASYNCIO_COLD void refuse_second_await() noexcept;
    // In await_suspend(). `way` is `direction`, for those that have only one.
    void begin(TaskBase& task, std::coroutine_handle<> frame, Direction way) noexcept {
        task_ = &task;
        Io& io = channel().io();
        if (&io.loop() != &task.loop()) [[unlikely]] {
            refuse_other_loop(frame);
            return;
        }
        io.refresh_budget();
        wait_on(way);
        task.suspend(frame, *this);
    }
    void begin(TaskBase& task, std::coroutine_handle<> frame) noexcept {
        begin(task, frame, direction);
    }
    // In await_resume().
    void check() {
        if (!is_done()) [[unlikely]] {
            throw_failure();
        }
    }
    // The same without throwing; null if it is done.
    std::exception_ptr take_failure() noexcept;
    // At the end, whether it was awaited or not.
    void end() noexcept {
        if (!is_done()) [[unlikely]] {
            clean_up();
        }
    }

  protected:
    explicit IoOperation(Channel& channel) noexcept : ChannelWaiter(channel.edges()) {}
    IoOperation(IoOperation&& other) noexcept
        : ChannelWaiter(*other.edges_),
          outcome_(other.was_awaited() ? Outcome::told : Outcome::fresh) {}
    ~IoOperation() = default;

    enum class Attempt : std::uint8_t {
        done,
        blocked, // would block: waits for `direction`
    };
    // One try. Throws what fails, also that the channel was closed meanwhile. After `blocked`, the
    // channel is attached, and its belief is gone, unless this is put_off.
    virtual Attempt attempt() = 0;

    // In await_ready(): whether it is done, or has failed.
    bool is_ready() noexcept {
        if (channel().is_attached() && !channel().io().spend()) [[unlikely]] {
            put_off = true;
            return false;
        }
        return try_once();
    }
    void wait_on(Direction way) noexcept {
        if (put_off) [[unlikely]] {
            put_off = false;
            wait_a_turn();
        } else {
            wait_for(way);
        }
    }
    Channel& channel() const noexcept { return Channel::of(*edges_); }
    bool is_done() const noexcept { return outcome_ == Outcome::done; }
    void set_done() noexcept { outcome_ = Outcome::done; }
    void set_failed(std::exception_ptr failure) noexcept;
    bool try_once() noexcept; // false: must wait

  private:
    enum class Outcome : std::uint8_t {
        fresh,
        done,
        failed,
        told, // of a failure or a cancel
    };

    bool go_on() noexcept;
    void run() override;
    void run_in_debug() override;
    [[noreturn]] ASYNCIO_COLD void throw_failure();
    ASYNCIO_COLD void refuse_other_loop(std::coroutine_handle<> frame) noexcept;
    ASYNCIO_COLD void clean_up() noexcept;

    Outcome outcome_ = Outcome::fresh;

  protected:
    // It is to go on in the next turn, and not to wait: the budget is spent, or the peer is fast.
    bool put_off = false;
    // Which direction attempt() has found blocked. Default: to read.
    Direction direction = Direction::read;
    // For derived classes: it stands where others have to wait for it.
    bool has_place = false;

  private:
    // With those before it and two of ChannelWaiter's these are eight bytes, which one store makes.
    [[maybe_unused]] bool filler_[2] = {false, false};

  protected:
    TaskBase* task_; // set once the task has waited

  private:
    // A std::exception_ptr, if it has failed.
    alignas(std::exception_ptr) std::byte failure_[sizeof(std::exception_ptr)];
};

// The RuntimeError of who awaits what belongs to a loop that is not the running one.
std::exception_ptr of_another_loop() noexcept;

// What a function like sock_recv() gives: moved at will, and awaited once. An Op is an IoOperation
// with await_ready() and result(), and a constructor that moves what has not been awaited.
template <class Op> class [[nodiscard("nothing is done until it is awaited")]] IoAwaiter {
  public:
    using AsyncioAwaiter = void;
    using T = decltype(std::declval<Op&>().result());

    template <class... Args>
        requires std::constructible_from<Op, Args...>
    explicit IoAwaiter(Args&&... arguments) noexcept : op_(std::forward<Args>(arguments)...) {}
    IoAwaiter(IoAwaiter&& other) noexcept : op_(std::move(other.op_)) {}
    IoAwaiter& operator=(IoAwaiter&&) = delete;
    ~IoAwaiter() { op_.end(); }

    bool await_ready() noexcept {
        if (op_.was_awaited()) [[unlikely]] {
            op_.refuse_second_await();
            return true;
        }
        return op_.await_ready();
    }
    template <std::derived_from<PromiseBase> Promise>
    void await_suspend(std::coroutine_handle<Promise> frame,
                       std::source_location where = std::source_location::current()) noexcept {
        frame.promise().where = where;
        op_.begin(*frame.promise().task, frame);
    }
    T await_resume() {
        op_.check();
        return op_.result();
    }
    Result<T> take_result() {
        if (std::exception_ptr failure = op_.take_failure()) return Result<T>(std::move(failure));
        if constexpr (std::is_void_v<T>) {
            return {};
        } else {
            return Result<T>(op_.result());
        }
    }

  private:
    Op op_;
};

} // namespace detail
ASYNCIO_END_NAMESPACE
