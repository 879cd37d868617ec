// SPDX-License-Identifier: MIT
#include <asyncio/shield.hpp>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

Shield::Shield(FutureBase& outer, FutureBase& inner) noexcept : outer_(outer), inner_(inner) {
    inner.retain();
}

Shield::~Shield() {
    if (!outer_.done()) outer_.remove_waiter(outer_waiter_);
    if (watching_) inner_.remove_waiter(inner_waiter_);
    inner_.release();
}

// A task ends for certain, so that it may keep the outer future until then. A future may never
// end, and must not.
void Shield::begin() {
    watching_ = true;
    if (inner_.is_task()) outer_.retain();
    inner_.add_waiter(inner_waiter_, true);
    outer_.add_waiter(outer_waiter_, true);
}

void Shield::Inner::scheduled(FutureBase&) noexcept {
    shield.watching_ = false;
    if (!shield.inner_.is_task()) shield.outer_.retain();
}
void Shield::Inner::run() {
    struct AtEnd {
        FutureBase& outer;
        ~AtEnd() { outer.release(); }
    };
    const AtEnd at_end{shield.outer_};
    shield.inner_done();
}
void Shield::Inner::discard() noexcept { shield.outer_.release(); }

void Shield::Outer::scheduled(FutureBase&) noexcept { shield.outer_.retain(); }
void Shield::Outer::run() {
    struct AtEnd {
        FutureBase& outer;
        ~AtEnd() { outer.release(); }
    };
    const AtEnd at_end{shield.outer_};
    shield.outer_done();
}
void Shield::Outer::discard() noexcept { shield.outer_.release(); }

void Shield::inner_done() {
    if (outer_.state() == FutureBase::cancelled_state) return;
    if (inner_.state() == FutureBase::cancelled_state) {
        outer_.cancel({});
        return;
    }
    const std::exception_ptr failure = inner_.retrieve();
    if (outer_.done()) {
        outer_.loop().report([] {
            return ExceptionContext{
                .message = "Exception in callback: somebody else has set the result of a shield()",
                .exception = std::make_exception_ptr(
                    InvalidStateError("invalid state: the future has its result already, and takes "
                                      "no other")),
            };
        });
    } else if (failure != nullptr) {
        outer_.set_exception(failure);
    } else {
        try {
            copy_value(inner_);
        } catch (...) { // copying it threw
            outer_.set_exception(std::current_exception());
        }
    }
}

// If it fails now, that is told as of any future: when it goes, unless somebody has looked.
void Shield::outer_done() {
    if (inner_.done() || !watching_) return;
    watching_ = false;
    inner_.remove_waiter(inner_waiter_);
    if (inner_.is_task()) outer_.release();
}

} // namespace detail
ASYNCIO_END_NAMESPACE
