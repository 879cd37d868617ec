// SPDX-License-Identifier: MIT
// The current context, as the loop sees it: one opaque pointer to an immutable, counted map. What
// is in it is contextvars.hpp's business.
#pragma once

#include <asyncio/detail/config.hpp>

#include <atomic>
#include <cstddef>
#if __has_include(<sys/single_threaded.h>)
#include <sys/single_threaded.h>
#endif
#include <utility>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

// True only if no other thread exists: then a locked instruction is spared.
inline bool process_has_one_thread() noexcept {
#if __has_include(<sys/single_threaded.h>)
    return ::__libc_single_threaded != 0;
#else
    return false;
#endif
}

// Counted with atomics, since a context goes along with what is handed to another thread.
class ASYNCIO_API ContextMap {
  public:
    void retain() noexcept {
        if (process_has_one_thread()) {
            references_.store(references_.load(std::memory_order_relaxed) + 1,
                              std::memory_order_relaxed);
        } else {
            references_.fetch_add(1, std::memory_order_relaxed);
        }
    }
    void release() noexcept {
        if (process_has_one_thread()) {
            const std::size_t left = references_.load(std::memory_order_relaxed) - 1;
            references_.store(left, std::memory_order_relaxed);
            if (left == 0) delete this;
            return;
        }
        // acq_rel: the last owner must see what the others did before it destroys the map.
        if (references_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
    }

    ContextMap(const ContextMap&) = delete;
    ContextMap& operator=(const ContextMap&) = delete;

  protected:
    ContextMap() = default;
    virtual ~ContextMap();

  private:
    std::atomic<std::size_t> references_ = 1;
};

// An owning pointer to a ContextMap; null is the empty context.
class ContextRef {
  public:
    ContextRef() = default;
    explicit ContextRef(ContextMap* adopted) noexcept : map_(adopted) {}
    ContextRef(const ContextRef& other) noexcept : map_(other.map_) {
        if (map_ != nullptr) map_->retain();
    }
    ContextRef(ContextRef&& other) noexcept : map_(std::exchange(other.map_, nullptr)) {}
    ContextRef& operator=(ContextRef other) noexcept {
        swap(other);
        return *this;
    }
    ~ContextRef() {
        if (map_ != nullptr) map_->release();
    }
    void swap(ContextRef& other) noexcept { std::swap(map_, other.map_); }
    ContextMap* get() const noexcept { return map_; }

  private:
    ContextMap* map_ = nullptr;
};

} // namespace detail
ASYNCIO_END_NAMESPACE
