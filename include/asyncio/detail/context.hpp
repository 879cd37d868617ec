// SPDX-License-Identifier: MIT
// The current context, as the loop sees it: one opaque pointer to a counted map. What is in it is
// contextvars.hpp's business.
//
// A map is immutable, so that a task or callback inherits it for the price of a reference. Only a
// context that a Context names is a box round such a map: all who run in it see what is set.
#pragma once

#include <asyncio/detail/config.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#if __has_include(<sys/single_threaded.h>)
#include <sys/single_threaded.h>
#endif
#include <utility>

ASYNCIO_BEGIN_NAMESPACE

class Context;

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

    bool is_box() const noexcept { return is_box_; }

  protected:
    explicit ContextMap(bool is_box = false) noexcept : is_box_(is_box) {}
    virtual ~ContextMap();

  private:
    std::atomic<std::size_t> references_ = 1;
    const bool is_box_;
};

class ContextBox;

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
    ContextBox* box() const noexcept;
    // What is inherited: the variables as they are now.
    ContextRef variables() const noexcept;

  private:
    ContextMap* map_ = nullptr;
};

// The context that a Context names.
class ASYNCIO_API ContextBox final : public ContextMap {
  public:
    ContextBox(ContextRef initial, std::uint64_t number) noexcept
        : ContextMap(true), variables(std::move(initial)), id(number) {}
    ~ContextBox() override;

    ContextRef variables; // never a box
    std::uint64_t id;     // of the context: see current_context_id
    // Something that runs in it has entered another context, and not left that yet.
    bool displaced = false;
};

inline ContextBox* ContextRef::box() const noexcept {
    return map_ != nullptr && map_->is_box() ? static_cast<ContextBox*>(map_) : nullptr;
}
inline ContextRef ContextRef::variables() const noexcept {
    const ContextBox* named = box();
    return named != nullptr ? named->variables : *this;
}

// The context of a callback, or of a thread while no loop runs in it.
struct OwnContext {
    ContextRef variables;
    std::uint64_t id = 0; // given when it is asked for
};

} // namespace detail
ASYNCIO_END_NAMESPACE
