// SPDX-License-Identifier: MIT
#include <asyncio/gather.hpp>

#include <algorithm>
#include <cstddef>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

GatherChild::GatherChild(GatherChild&& other) noexcept
    : future_(std::exchange(other.future_, nullptr)), owned_(other.owned_) {}

GatherChild::~GatherChild() {
    if (future_ == nullptr) return;
    // The gather was dropped before it was done, and does not wait for futures that are not tasks.
    if (watching_) future_->remove_waiter(*this);
    future_->release();
}

// A child that is a task ends for certain, so that it may keep the gather alive until then: then
// its failure is seen, also if nobody holds the gather. A future may never end, and must not.
void GatherChild::watch(GatherBase& gather) noexcept {
    gather_ = &gather;
    watching_ = true;
    if (future_->is_task()) gather.outer().retain();
    future_->add_waiter(*this, true);
}

void GatherChild::scheduled(FutureBase&) noexcept {
    watching_ = false;
    if (!future_->is_task()) gather_->outer().retain();
}

void GatherChild::run() {
    struct AtEnd {
        FutureBase& outer;
        ~AtEnd() { outer.release(); }
    };
    const AtEnd at_end{gather_->outer()};
    gather_->child_done(*future_);
}

void GatherChild::discard() noexcept { gather_->outer().release(); }

void GatherChild::find_awaiters(Awaiters& awaiters) const {
    awaiters.stand_ins.push_back(&gather_->outer());
}

void GatherBase::begin() {
    std::size_t count = 0;
    GatherChild* all = children(count);

    // Children that are given twice are watched once: the later appearances are left out.
    std::vector<GatherChild*> given; // those that may appear twice
    for (std::size_t i = 0; i < count; ++i) {
        if (!all[i].owned()) given.push_back(&all[i]);
    }
    std::sort(given.begin(), given.end(), [](const GatherChild* a, const GatherChild* b) {
        return a->future_ != b->future_ ? std::less<>()(a->future_, b->future_)
                                        : std::less<>()(a, b);
    });
    std::vector<const GatherChild*> repeated;
    for (std::size_t i = 1; i < given.size(); ++i) {
        if (given[i]->future_ == given[i - 1]->future_) repeated.push_back(given[i]);
    }
    std::sort(repeated.begin(), repeated.end(), std::less<const GatherChild*>());

    // In the order of the arguments, which is that of asyncio's callbacks; those that are done
    // already count at the end, so that a gather of done futures is done on return.
    unfinished_ = count - repeated.size();
    const auto is_repeated = [&](const GatherChild& child) {
        return !repeated.empty() && std::binary_search(repeated.begin(), repeated.end(), &child,
                                                       std::less<const GatherChild*>());
    };
    for (std::size_t i = 0; i < count; ++i) {
        if (all[i].future_->done() || is_repeated(all[i])) continue;
        all[i].watch(*this);
    }
    if (count == 0) {
        collect();
        return;
    }
    for (std::size_t i = 0; i < count; ++i) {
        if (all[i].future_->done() && !is_repeated(all[i])) child_done(*all[i].future_);
    }
}

bool GatherBase::cancel_children(const std::string& message) {
    if (outer_->done()) return false;
    cancel_message_ = message; // first, since it may throw
    if (cancelling_) {         // a ring: a child waits for this gather. It is broken open here.
        outer_->finish_with_exception(std::make_exception_ptr(CancelledError(message)),
                                      FutureBase::failed);
        return true;
    }
    struct Cancelling {
        bool& flag;
        explicit Cancelling(bool& f) noexcept : flag(f) { flag = true; }
        ~Cancelling() { flag = false; }
    };
    const Cancelling cancelling(cancelling_);
    std::size_t count = 0;
    GatherChild* all = children(count);
    bool any = false;
    for (std::size_t i = 0; i < count; ++i) {
        if (all[i].future_->cancel(message)) any = true;
    }
    if (any) cancel_requested_ = true;
    return any;
}

void GatherBase::child_done(FutureBase& child) {
    --unfinished_;
    if (outer_->done()) {
        static_cast<void>(child.retrieve()); // nobody else will look at it
        return;
    }
    if (!return_exceptions_ && child.state() != FutureBase::finished) {
        // Also for a cancelled child: the gather itself counts as failed, not as cancelled.
        outer_->finish_with_exception(child.retrieve(), FutureBase::failed);
        return;
    }
    if (unfinished_ != 0) return;
    if (cancel_requested_) {
        std::size_t count = 0;
        GatherChild* all = children(count);
        for (std::size_t i = 0; i < count; ++i) { // as asyncio does; nobody else will look at them
            static_cast<void>(all[i].future_->retrieve());
        }
        outer_->finish_with_exception(make_cancelled([this] { return cancel_message_; }),
                                      FutureBase::failed);
        return;
    }
    try {
        collect();
    } catch (...) { // copying a result threw
        outer_->finish_with_exception(std::current_exception(), FutureBase::failed);
    }
}

void throw_different_loop(const FutureBase& future) {
    throw ValueError("gather() got a future that belongs to a different loop: gather it on its own "
                     "loop; " +
                     future.describe());
}

// See debugger.cpp.
#pragma GCC diagnostic ignored "-Winvalid-offsetof"
ASYNCIO_KEEP_FOR_DEBUGGER const DebuggerFact DebuggerFacts::gathers[] = {
    {"GatherChild.gather", offsetof(GatherChild, gather_)},
    {"GatherBase.outer", offsetof(GatherBase, outer_)},
    {nullptr},
};

} // namespace detail
ASYNCIO_END_NAMESPACE
