// SPDX-License-Identifier: MIT
#include <asyncio/wait.hpp>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

void WaitForMany::add(FutureBase& future) {
    if (&future.loop() != get_running_loop_or_null()) throw_not_of_loop(future);
    auto* watch = new FutureWatch(*this);
    watches_.push(*watch);
    watch->begin(future);
}

void WaitForMany::future_done(FutureWatch& watch) {
    FutureBase& future = watch.future();
    watches_.remove(watch);
    bool enough = watches_.empty() || return_when_ == FIRST_COMPLETED;
    if (!enough && return_when_ == FIRST_EXCEPTION && future.state() == FutureBase::failed) {
        static_cast<void>(future.retrieve()); // it was looked at
        enough = true;
    }
    delete &watch;
    if (enough) gate.open();
}

void WaitForMany::future_dropped(FutureWatch& watch) noexcept {
    watches_.remove(watch);
    delete &watch;
}

} // namespace detail
ASYNCIO_END_NAMESPACE
