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
    const SystemCalls& calls() const noexcept { return calls_; }

    // Awaits of I/O that complete at once may be so many in a row; then the next one takes a turn,
    // so that others run too. An await that has to wait begins the count anew.
    static constexpr unsigned budget = 64;
    bool spend() noexcept { return at_once_++ < budget; }
    void refresh_budget() noexcept { at_once_ = 0; }

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

  private:
    friend class Channel;

    explicit Io(EventLoop& loop) noexcept : loop_(loop), calls_(loop.backend().calls()) {}
    static Io& make(EventLoop& loop);
    static char* make_block();
    static void drop_block(char* block) noexcept;

    EventLoop& loop_;
    const SystemCalls& calls_;
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

class ASYNCIO_API Channel : private Edges {
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
    bool believed(Direction direction) const noexcept {
        return direction == Direction::read ? readable : writable;
    }
    void would_block(Direction direction) noexcept {
        (direction == Direction::read ? readable : writable) = false;
    }
    // A call has read less than it could have. That was all, unless the peer has ended the
    // connection, which comes as one edge with the last data, or has sent urgent data.
    void read_short() noexcept { readable = reads_on; }
    bool has_hung_up() const noexcept { return hangup; }
    // Before connect(): a socket that is not connected hangs up, as the kernel sees it.
    void forget_hangup() noexcept { hangup = reads_on = false; }

    // Queues those who wait, as an edge would.
    void wake(Direction direction) noexcept;

  protected:
    virtual ~Channel();
    // The loop is closing: must detach().
    virtual void loop_closed() noexcept { detach(); }

  private:
    friend class Io;

    void attach_first(EventLoop& loop, int descriptor);

    Io* io_ = nullptr;
    int watched_ = -1;        // the descriptor, while attached
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
    explicit IoOperation(Channel& channel) noexcept : channel_(channel) {}
    ~IoOperation() = default;

    enum class Attempt : std::uint8_t {
        done,
        blocked, // would block: waits for `direction`
    };
    // One try. Throws what fails, also that the channel was closed meanwhile. After `blocked`, the
    // channel is attached, and its belief is gone.
    virtual Attempt attempt() = 0;

    // In await_ready(): whether it is done, or has failed.
    bool is_ready() noexcept {
        if (channel_.is_attached() && !channel_.io().spend()) [[unlikely]] {
            put_off_ = true;
            return false;
        }
        return try_once();
    }
    // Which direction attempt() has found blocked. Default: to read.
    Direction direction = Direction::read;

    Channel& channel_;
    TaskBase* task_ = nullptr; // set once the task has waited
    std::exception_ptr failure_;
    bool done_ = false;

    // In await_resume().
    void check() {
        if (!done_) [[unlikely]] {
            throw_failure();
        }
    }
    // The same without throwing; null if it is done.
    std::exception_ptr take_failure() noexcept;

  private:
    void begin(TaskBase& task, std::coroutine_handle<> frame) noexcept {
        task_ = &task;
        channel_.io().refresh_budget();
        if (put_off_) [[unlikely]] {
            put_off_ = false;
            wait_a_turn(channel_);
        } else {
            wait_for(channel_.edges(), direction);
        }
        task.suspend(frame, *this);
    }
    bool try_once() noexcept; // false: must wait
    bool go_on() noexcept;
    void run() override;
    void run_in_debug() override;
    [[noreturn]] ASYNCIO_COLD void throw_failure();

    bool put_off_ = false; // the budget is spent
};

// An argument of an operation. What is counted is kept: its socket or stream may be gone before the
// operation is made.
template <class T> class Argument {
  public:
    explicit Argument(T&& value) noexcept : value_(std::move(value)) {}
    T take() noexcept { return std::move(value_); }

  private:
    T value_;
};
template <class T>
    requires requires(T& counted) { counted.retain(); }
class Argument<T*> {
  public:
    explicit Argument(T* counted) noexcept : counted_(counted) { counted->retain(); }
    Argument(const Argument& other) noexcept : Argument(other.counted_) {}
    Argument& operator=(const Argument&) = delete;
    ~Argument() { counted_->release(); }
    T* take() const noexcept { return counted_; }

  private:
    T* counted_;
};

// What a function like sock_recv() gives: what the operation is made of as it is awaited.
template <class Op, class... Args>
class [[nodiscard("nothing is done until it is awaited")]] Deferred {
  public:
    explicit Deferred(Args... arguments) noexcept : arguments_(std::move(arguments)...) {}
    Op operator co_await() {
        return std::apply([](auto&... arguments) { return Op(arguments.take()...); }, arguments_);
    }

  private:
    std::tuple<Argument<Args>...> arguments_;
};

} // namespace detail
ASYNCIO_END_NAMESPACE
