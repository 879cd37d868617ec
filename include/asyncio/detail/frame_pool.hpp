// SPDX-License-Identifier: MIT
// The pool that coroutine frames, task states and callbacks come from.
//
// Blocks of one size stand side by side in chunks that belong to the thread which made them. Taking
// and giving back on that thread touches no atomic; a block may also be given back on any other
// thread, and a chunk is unmapped only when none of its blocks lives.
#pragma once

#include <asyncio/detail/config.hpp>

#include <cstddef>
#include <new>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

// Memory for `size` bytes, aligned to 16 (to 8 where size is not a multiple of 16).
// Throws std::bad_alloc.
ASYNCIO_API void* pool_allocate(std::size_t size);
// `size` as it was asked for. Any thread.
ASYNCIO_API void pool_deallocate(void* block, std::size_t size) noexcept;

// Bytes that the calling thread's pool holds from the system now (0 in a build without the pool).
ASYNCIO_API std::size_t pool_mapped_bytes() noexcept;

// Base of classes that live in the pool.
struct Pooled {
    static void* operator new(std::size_t size) { return pool_allocate(size); }
    static void operator delete(void* block, std::size_t size) noexcept {
        pool_deallocate(block, size);
    }
    // What needs more than 16, such as a callback that holds a vector register's type, is none of
    // the pool's business.
    static void* operator new(std::size_t size, std::align_val_t alignment) {
        return ::operator new(size, alignment);
    }
    static void operator delete(void* block, std::size_t, std::align_val_t alignment) noexcept {
        ::operator delete(block, alignment);
    }
};

// For containers whose blocks come and go as frames do.
template <class T> class PoolAllocator {
  public:
    using value_type = T;

    PoolAllocator() = default;
    template <class U> explicit PoolAllocator(const PoolAllocator<U>&) noexcept {}

    // Requires: the bytes can be counted. Throws std::bad_alloc.
    T* allocate(std::size_t count) {
        if constexpr (alignof(T) > 16) {
            return static_cast<T*>(Pooled::operator new(count * sizeof(T), alignment));
        } else {
            return static_cast<T*>(Pooled::operator new(count * sizeof(T)));
        }
    }
    void deallocate(T* block, std::size_t count) noexcept {
        if constexpr (alignof(T) > 16) {
            Pooled::operator delete(block, count * sizeof(T), alignment);
        } else {
            Pooled::operator delete(block, count * sizeof(T));
        }
    }
    bool operator==(const PoolAllocator&) const = default;

  private:
    static constexpr std::align_val_t alignment{alignof(T)};
};

// Base of promises. GCC's frames need an alignment of 16 only if their size is a multiple of it;
// Clang's always may. The number tells the two apart for the linker.
template <std::size_t Rounding> struct PooledFrameBy {
    static constexpr std::size_t round_up(std::size_t size) {
        return (size + Rounding - 1) / Rounding * Rounding;
    }
    static void* operator new(std::size_t size) { return pool_allocate(round_up(size)); }
    static void operator delete(void* block, std::size_t size) noexcept {
        pool_deallocate(block, round_up(size));
    }
};
#if defined(__clang__)
using PooledFrame = PooledFrameBy<16>;
#else
using PooledFrame = PooledFrameBy<1>;
#endif

} // namespace detail
ASYNCIO_END_NAMESPACE
