// SPDX-License-Identifier: MIT
#include <asyncio/detail/frame_pool.hpp>

#include <new>

#ifdef ASYNCIO_NO_FRAME_POOL

ASYNCIO_BEGIN_NAMESPACE
namespace detail {
void* pool_allocate(std::size_t size) { return ::operator new(size); }
void pool_deallocate(void* block, std::size_t) noexcept { ::operator delete(block); }
std::size_t pool_mapped_bytes() noexcept { return 0; }
} // namespace detail
ASYNCIO_END_NAMESPACE

#else

#include <atomic>
#include <bit>
#include <cstdint>
#include <mutex>

#include <sys/mman.h>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {
namespace {

// A chunk is aligned to its size, so that a block finds its chunk by masking its address.
constexpr std::size_t chunk_size = 256 * 1024;
constexpr std::size_t small_limit = 1024;      // classes of 8 bytes up to here,
constexpr std::size_t large_limit = 32 * 1024; // then four classes for each power of two
constexpr std::size_t small_classes = small_limit / 8;
constexpr std::size_t class_count = small_classes + 4 * 5;
constexpr std::size_t idle_chunks_kept = 4; // empty chunks that a pool keeps for the next peak

struct Block {
    Block* next;
};

struct Pool;

struct Chunk {
    Pool* owner;
    Block* free; // given back on the owner's thread
    char* fresh; // never handed out yet, up to `end`
    char* end;
    std::uint32_t block_size;
    std::uint32_t used; // handed out, and not yet given back to `free`
    std::uint32_t size_class;
    bool listed; // in the owner's list of chunks that have room
    Chunk* next;
    Chunk* previous;
    Chunk* all_next; // all chunks of the owner
    Chunk* all_previous;
};
constexpr std::size_t header_size = (sizeof(Chunk) + 63) / 64 * 64;

std::size_t class_of(std::size_t size) noexcept {
    if (size <= small_limit) return size == 0 ? 0 : (size - 1) / 8;
    const auto bits = static_cast<std::size_t>(std::bit_width(size - 1)); // 11 for 1025..2048
    const std::size_t quarter = (size - 1) >> (bits - 3) & 3;
    return small_classes + (bits - 11) * 4 + quarter;
}

std::size_t size_of(std::size_t size_class) noexcept {
    if (size_class < small_classes) return (size_class + 1) * 8;
    const std::size_t step = size_class - small_classes;
    const std::size_t base = small_limit << (step / 4);
    return base + base / 4 * (step % 4 + 1);
}

Chunk* chunk_of(void* block) noexcept {
    return reinterpret_cast<Chunk*>(reinterpret_cast<std::uintptr_t>(block) & ~(chunk_size - 1));
}

void* map_chunk() {
    // Twice the size holds an aligned chunk for certain; what stands over is given back. The next
    // chunk then mostly lies aligned just below, which the first attempt finds.
    void* first =
        ::mmap(nullptr, chunk_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (first == MAP_FAILED) throw std::bad_alloc();
    if (chunk_of(first) == first) return first;
    ::munmap(first, chunk_size);
    void* wide =
        ::mmap(nullptr, 2 * chunk_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (wide == MAP_FAILED) throw std::bad_alloc();
    const auto begin = reinterpret_cast<std::uintptr_t>(wide);
    const std::uintptr_t aligned = (begin + chunk_size - 1) & ~(chunk_size - 1);
    if (aligned > begin) ::munmap(wide, aligned - begin);
    const std::size_t tail = begin + 2 * chunk_size - (aligned + chunk_size);
    if (tail > 0) ::munmap(reinterpret_cast<void*>(aligned + chunk_size), tail);
    return reinterpret_cast<void*>(aligned);
}

// What one thread allocates from. A pool outlives its thread while blocks of it live; the next
// thread that needs one adopts it, together with what was given back in the meantime.
struct Pool {
    Chunk* with_room[class_count] = {}; // the first of each list serves the next request
    Chunk* all = nullptr;
    std::size_t chunks = 0;
    std::size_t empty_chunks = 0;
    Pool* next_abandoned = nullptr;
    std::atomic<Block*> foreign = nullptr; // given back on other threads

    void* allocate(std::size_t size_class) {
        for (;;) {
            Chunk* chunk = with_room[size_class];
            if (chunk == nullptr) [[unlikely]] {
                chunk = find_room(size_class);
            }
            if (Block* block = chunk->free; block != nullptr) {
                chunk->free = block->next;
                if (chunk->used++ == 0) --empty_chunks;
                return block;
            }
            if (chunk->fresh != chunk->end) {
                char* block = chunk->fresh;
                chunk->fresh += chunk->block_size;
                if (chunk->used++ == 0) --empty_chunks;
                return block;
            }
            unlist(*chunk);
        }
    }

    void give_back(Chunk& chunk, void* memory) noexcept {
        auto* block = static_cast<Block*>(memory);
        block->next = chunk.free;
        chunk.free = block;
        if (!chunk.listed) [[unlikely]] {
            list(chunk);
        }
        if (--chunk.used == 0) [[unlikely]] {
            emptied(chunk);
        }
    }

    // Takes home what other threads gave back. True if there was anything.
    bool collect() noexcept {
        // acquire: pairs with the release in give_back_from_elsewhere, so that the other thread's
        // last writes to a block come before ours.
        Block* block = foreign.exchange(nullptr, std::memory_order_acquire);
        if (block == nullptr) return false;
        while (block != nullptr) {
            Block* next = block->next;
            give_back(*chunk_of(block), block);
            block = next;
        }
        return true;
    }

    ASYNCIO_NOINLINE Chunk* find_room(std::size_t size_class) {
        if (collect() && with_room[size_class] != nullptr) return with_room[size_class];
        if (empty_chunks > 0) {
            for (Chunk* chunk = all; chunk != nullptr; chunk = chunk->all_next) {
                if (chunk->used != 0) continue;
                if (chunk->listed) unlist(*chunk);
                shape(*chunk, size_class);
                list(*chunk);
                return chunk;
            }
        }
        auto* chunk = new (map_chunk()) Chunk();
        chunk->owner = this;
        chunk->all_next = all;
        if (all != nullptr) all->all_previous = chunk;
        all = chunk;
        ++chunks;
        ++empty_chunks;
        shape(*chunk, size_class);
        list(*chunk);
        return chunk;
    }

    static void shape(Chunk& chunk, std::size_t size_class) noexcept {
        const std::size_t size = size_of(size_class);
        chunk.size_class = static_cast<std::uint32_t>(size_class);
        chunk.block_size = static_cast<std::uint32_t>(size);
        chunk.free = nullptr;
        chunk.fresh = reinterpret_cast<char*>(&chunk) + header_size;
        chunk.end = chunk.fresh + (chunk_size - header_size) / size * size;
    }

    void list(Chunk& chunk) noexcept {
        Chunk*& head = with_room[chunk.size_class];
        chunk.next = head;
        chunk.previous = nullptr;
        if (head != nullptr) head->previous = &chunk;
        head = &chunk;
        chunk.listed = true;
    }

    void unlist(Chunk& chunk) noexcept {
        if (chunk.next != nullptr) chunk.next->previous = chunk.previous;
        (chunk.previous != nullptr ? chunk.previous->next : with_room[chunk.size_class]) =
            chunk.next;
        chunk.listed = false;
    }

    ASYNCIO_NOINLINE void emptied(Chunk& chunk) noexcept {
        ++empty_chunks;
        if (empty_chunks > idle_chunks_kept) release(chunk);
    }

    void release(Chunk& chunk) noexcept {
        if (chunk.listed) unlist(chunk);
        if (chunk.all_next != nullptr) chunk.all_next->all_previous = chunk.all_previous;
        (chunk.all_previous != nullptr ? chunk.all_previous->all_next : all) = chunk.all_next;
        --empty_chunks;
        --chunks;
        ::munmap(&chunk, chunk_size);
    }

    void release_empty() noexcept {
        collect();
        for (Chunk* chunk = all; chunk != nullptr;) {
            Chunk* next = chunk->all_next;
            if (chunk->used == 0) release(*chunk);
            chunk = next;
        }
    }
};

// Any thread but the owner's. The pool outlives the call: until it has collected the block, the
// block counts as used, and its chunk and the pool stay.
void give_back_from_elsewhere(Pool& pool, void* memory) noexcept {
    auto* block = static_cast<Block*>(memory);
    block->next = pool.foreign.load(std::memory_order_relaxed);
    // release: pairs with the acquire in Pool::collect.
    while (!pool.foreign.compare_exchange_weak(block->next, block, std::memory_order_release,
                                               std::memory_order_relaxed)) {
    }
}

constinit std::mutex abandoned_lock;
constinit Pool* abandoned = nullptr;

constinit thread_local Pool* this_threads_pool = nullptr;

// Runs when the thread ends. Blocks given back on it later count as given back from elsewhere.
struct AtThreadExit {
    bool armed = false;
    ~AtThreadExit() {
        Pool* pool = this_threads_pool;
        if (pool == nullptr) return;
        this_threads_pool = nullptr;
        pool->release_empty();
        if (pool->all == nullptr) {
            delete pool;
            return;
        }
        const std::lock_guard held(abandoned_lock);
        pool->next_abandoned = abandoned;
        abandoned = pool;
    }
};
thread_local AtThreadExit at_thread_exit;

ASYNCIO_NOINLINE Pool& make_pool() {
    Pool* pool = nullptr;
    {
        const std::lock_guard held(abandoned_lock);
        pool = abandoned;
        if (pool != nullptr) abandoned = pool->next_abandoned;
    }
    if (pool == nullptr) pool = new Pool();
    this_threads_pool = pool;
    at_thread_exit.armed = true; // constructs it, and so registers its destructor
    return *pool;
}

} // namespace

ASYNCIO_NOINLINE void* pool_allocate(std::size_t size) {
    if (size > large_limit) [[unlikely]] {
        return ::operator new(size);
    }
    Pool* pool = this_threads_pool;
    return (pool != nullptr ? *pool : make_pool()).allocate(class_of(size));
}

ASYNCIO_NOINLINE void pool_deallocate(void* block, std::size_t size) noexcept {
    if (size > large_limit) [[unlikely]] {
        ::operator delete(block);
        return;
    }
    Chunk& chunk = *chunk_of(block);
    if (Pool* pool = this_threads_pool; chunk.owner == pool) [[likely]] {
        pool->give_back(chunk, block);
    } else {
        give_back_from_elsewhere(*chunk.owner, block);
    }
}

std::size_t pool_mapped_bytes() noexcept {
    const Pool* pool = this_threads_pool;
    return pool == nullptr ? 0 : pool->chunks * chunk_size;
}

} // namespace detail
ASYNCIO_END_NAMESPACE

#endif
