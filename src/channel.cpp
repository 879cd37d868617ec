// SPDX-License-Identifier: MIT
#include <asyncio/detail/channel.hpp>

#include <new>
#include <system_error>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

const SystemCalls& current_system_calls() noexcept {
    const EventLoop* loop = get_running_loop_or_null();
    return loop != nullptr && !loop->is_closed() ? loop->backend().calls() : SystemCalls::real();
}

std::exception_ptr make_system_error(int error, const std::string& what) {
    return std::make_exception_ptr(std::system_error(error, std::generic_category(), what));
}

void throw_system_error(int error, const std::string& what) {
    throw std::system_error(error, std::generic_category(), what);
}

Io& Io::make(EventLoop& loop) {
    loop.throw_if_closed();
    auto* io = new Io(loop);
    loop.core().io.reset(io);
    return *io;
}

Io::~Io() {
    while (channels_ != nullptr) channels_->loop_closed();
    while (spare_blocks_ > 0) drop_block(spare_[--spare_blocks_]);
}

char* Io::make_block() { return static_cast<char*>(::operator new(block_size)); }

void Io::drop_block(char* block) noexcept { ::operator delete(block, block_size); }

void ChannelWaiter::unlink() noexcept {
    Edges::List& list = edges_->lists[static_cast<std::size_t>(direction_)];
    auto* next = static_cast<ChannelWaiter*>(next_link);
    if (list.first == this) {
        list.first = next;
    } else {
        previous_->next_link = next;
    }
    if (list.first != nullptr) (next != nullptr ? next : list.first)->previous_ = previous_;
    state_ = idle;
}

void ChannelWaiter::wait_a_turn() noexcept {
    state_ = queued;
    Channel::of(*edges_).loop().core().ready.push(*this);
}

Channel::~Channel() { detach(); }

void Channel::attach_first(EventLoop& loop, int descriptor) {
    if (io_ != nullptr) {
        throw RuntimeError("descriptor " + std::to_string(descriptor) +
                           " is used in another event loop: a socket stays in the loop in which it "
                           "was first awaited");
    }
    Io& io = Io::of(loop);
    loop.backend().attach(descriptor, *this);
    io_ = &io;
    watched_ = descriptor;
    next_ = io.channels_;
    previous_ = nullptr;
    if (next_ != nullptr) next_->previous_ = this;
    io.channels_ = this;
}

void Channel::detach() noexcept {
    if (io_ == nullptr) return;
    EventLoop& loop = io_->loop();
    (previous_ != nullptr ? previous_->next_ : io_->channels_) = next_;
    if (next_ != nullptr) next_->previous_ = previous_;
    loop.backend_while_closing().detach(watched_);
    io_ = nullptr;
    watched_ = -1;
    clear(unreadable | unwritable | hangup | reads_on);
    if (!loop.is_closed()) {
        lists[0].queue_all(loop.core().ready);
        lists[1].queue_all(loop.core().ready);
        return;
    }
    ReadyQueue waiters;
    lists[0].queue_all(waiters);
    lists[1].queue_all(waiters);
    // Nobody runs any more. Who waited may own the channel, which is not touched from here on.
    while (!waiters.empty()) {
        auto& waiter = static_cast<ChannelWaiter&>(waiters.pop());
        waiter.begin_run();
        waiter.discard();
    }
}

void Channel::wake(Direction direction) noexcept {
    lists[static_cast<std::size_t>(direction)].queue_all(io_->loop().core().ready);
}

bool IoOperation::try_once() noexcept {
    try {
        if (attempt() == Attempt::blocked) return false;
        set_done();
    } catch (...) {
        set_failed(std::current_exception());
    }
    return true;
}

void IoOperation::set_failed(std::exception_ptr failure) noexcept {
    ::new (static_cast<void*>(failure_)) std::exception_ptr(std::move(failure));
    outcome_ = Outcome::failed;
}

CancelOutcome IoOperation::try_cancel() noexcept {
    // In the ready queue: it makes no attempt any more, and the await throws.
    return stop_waiting() ? CancelOutcome::done_now : CancelOutcome::already_done;
}

bool IoOperation::go_on() noexcept {
    begin_run();
    if (task_->cancel_due() || try_once()) return true;
    wait_on(direction);
    return false;
}

void IoOperation::run() {
    if (go_on()) task_->step_here();
}

void IoOperation::run_in_debug() {
    if (go_on()) task_->step_in_debug();
}

void IoOperation::throw_failure() { std::rethrow_exception(take_failure()); }

std::exception_ptr IoOperation::take_failure() noexcept {
    if (is_done()) return nullptr;
    if (std::exchange(outcome_, Outcome::told) != Outcome::failed) return task_->take_cancelled();
    auto& failure = *std::launder(reinterpret_cast<std::exception_ptr*>(failure_));
    std::exception_ptr taken;
    taken.swap(failure);
    failure.~exception_ptr();
    return taken;
}

void IoOperation::refuse_second_await() noexcept {
    clean_up();
    try {
        throw RuntimeError("cannot reuse already awaited operation: call the function again");
    } catch (...) {
        set_failed(std::current_exception());
    }
}

std::exception_ptr of_another_loop() noexcept {
    try {
        throw RuntimeError("a connection or socket of another event loop is awaited: it stays in "
                           "the loop in which it was made");
    } catch (...) {
        return std::current_exception(); // or std::bad_alloc
    }
}

// In its own loop nobody would run it while this one does, and it would wait for ever.
void IoOperation::refuse_other_loop(std::coroutine_handle<> frame) noexcept {
    put_off = false;
    set_failed(of_another_loop());
    task_->yield(frame);
}

// It has failed and nobody was told; was never awaited; or its frame is destroyed while it waits.
void IoOperation::clean_up() noexcept {
    stop_waiting();
    if (outcome_ == Outcome::failed) static_cast<void>(take_failure());
}

} // namespace detail
ASYNCIO_END_NAMESPACE
