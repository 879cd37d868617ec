// SPDX-License-Identifier: MIT
// The current context, as the loop sees it: one opaque pointer to an immutable, counted map. What
// is in it is contextvars.hpp's business.
#pragma once

#include <asyncio/detail/config.hpp>

#include <atomic>
#include <cstddef>
#include <utility>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

// Counted with atomics, since a context goes along with what is handed to another thread.
class ASYNCIO_API ContextMap {
  public:
    void retain() noexcept { references_.fetch_add(1, std::memory_order_relaxed); }
    // acq_rel: the last owner must see what the others did before it destroys the map.
    void release() noexcept {
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
