// SPDX-License-Identifier: MIT
#include <asyncio/detail/wait_list.hpp>

#include <string>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {
namespace {

RuntimeError other_loop(const char* primitive) {
    return RuntimeError(std::string(primitive) +
                        " is bound to a different event loop: the one in which somebody first had "
                        "to wait for it; make one for each loop");
}

} // namespace

bool Waiter::begin(TaskBase& task, std::coroutine_handle<> frame, WaitList& owner) noexcept {
    task_ = &task;
    if (!owner.bind(task.loop())) [[unlikely]] {
        state_ = refused;
        return false;
    }
    list_->append(*this);
    task.suspend(frame, *this);
    return true;
}

CancelOutcome Waiter::try_cancel() noexcept {
    if (state_ != waiting) return CancelOutcome::already_done;
    state_ = cancelled;
    --list_->living_;
    list_->skip(*this);
    return CancelOutcome::done_now;
}

void Waiter::unlink() noexcept { list_->remove(*this); }

void Waiter::wait_again() noexcept {
    list_->remove(*this);
    list_->append(*this);
}

bool Waiter::leave_if_had() noexcept {
    if (state_ != woken || list_ == nullptr || task_->cancel_due()) return false;
    list_->unlink(*this);
    state_ = fresh;
    return true;
}

std::exception_ptr Waiter::leave(const char* primitive) {
    if (state_ == refused) return std::make_exception_ptr(other_loop(primitive));
    if (list_ == nullptr) {
        if (task_->cancel_due()) return task_->take_cancelled();
        return std::make_exception_ptr(RuntimeError(
            std::string(primitive) + " was destroyed while a task waited for it: keep it until "
                                     "the tasks that use it have ended"));
    }
    list_->remove(*this);
    state_ = fresh;
    return nullptr;
}

WaitList::~WaitList() {
    for (Waiter* waiter = first_; waiter != nullptr; waiter = waiter->next_) {
        waiter->list_ = nullptr;
        if (waiter->state_ != Waiter::waiting) continue; // its task is on its way
        waiter->state_ = Waiter::orphaned;
        waiter->task_->loop().core().ready.push(*waiter);
    }
    if (loop_ != nullptr) loop_->release();
}

bool WaitList::bind(EventLoop& loop) noexcept {
    if (loop_ == nullptr) [[unlikely]] {
        loop_ = &loop;
        loop.retain();
    }
    return loop_ == &loop;
}

void WaitList::bind_or_throw(EventLoop& loop, const char* primitive) {
    if (!bind(loop)) throw other_loop(primitive);
}

void WaitList::append(Waiter& waiter) noexcept {
    waiter.state_ = Waiter::waiting;
    waiter.next_ = nullptr;
    waiter.previous_ = last_;
    (last_ != nullptr ? last_->next_ : first_) = &waiter;
    last_ = &waiter;
    if (next_to_wake_ == nullptr) next_to_wake_ = &waiter;
    ++living_;
}

void WaitList::remove(Waiter& waiter) noexcept {
    skip(waiter);
    if (waiter.state_ == Waiter::cancelled) ++living_; // counted out already
    unlink(waiter);
}

// Requires: it is not the next to be woken.
void WaitList::unlink(Waiter& waiter) noexcept {
    --living_;
    (waiter.previous_ != nullptr ? waiter.previous_->next_ : first_) = waiter.next_;
    (waiter.next_ != nullptr ? waiter.next_->previous_ : last_) = waiter.previous_;
}

// This one will not be woken.
void WaitList::skip(const Waiter& waiter) noexcept {
    if (next_to_wake_ != &waiter) return;
    do {
        next_to_wake_ = next_to_wake_->next_;
    } while (next_to_wake_ != nullptr && next_to_wake_->state_ != Waiter::waiting);
}

// Requires: it is the next to be woken.
void WaitList::wake(Waiter& waiter) noexcept {
    skip(waiter);
    waiter.state_ = Waiter::woken;
    waiter.task_->loop().core().ready.push(waiter);
}

} // namespace detail
ASYNCIO_END_NAMESPACE
