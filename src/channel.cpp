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
    Edges::List& list = waited_for_->lists[static_cast<std::size_t>(direction_)];
    auto* next = static_cast<ChannelWaiter*>(next_link);
    if (previous_ != nullptr) {
        previous_->next_link = next;
    } else {
        list.first = next;
    }
    (next != nullptr ? next->previous_ : list.last) = previous_;
    state_ = idle;
}

void ChannelWaiter::wait_a_turn(Channel& channel) noexcept {
    state_ = queued;
    channel.loop().core().ready.push(*this);
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
    readable = writable = true;
    forget_hangup();
    ReadyQueue waiters;
    lists[0].queue_all(waiters);
    lists[1].queue_all(waiters);
    if (!loop.is_closed()) {
        loop.core().ready.append(waiters);
        return;
    }
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
        done_ = true;
    } catch (...) {
        failure_ = std::current_exception();
    }
    return true;
}

CancelOutcome IoOperation::try_cancel() noexcept {
    // In the ready queue: it makes no attempt any more, and the await throws.
    return stop_waiting() ? CancelOutcome::done_now : CancelOutcome::already_done;
}

bool IoOperation::go_on() noexcept {
    begin_run();
    if (task_->cancel_due() || try_once()) return true;
    wait_for(channel_.edges(), direction);
    return false;
}

void IoOperation::run() {
    if (go_on()) task_->step();
}

void IoOperation::run_in_debug() {
    if (go_on()) task_->step_in_debug();
}

void IoOperation::throw_failure() { std::rethrow_exception(take_failure()); }

std::exception_ptr IoOperation::take_failure() noexcept {
    if (done_) return nullptr;
    if (failure_ != nullptr) return std::move(failure_);
    return task_->take_cancelled();
}

} // namespace detail
ASYNCIO_END_NAMESPACE
