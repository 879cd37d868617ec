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
// From this number on a class takes an empty chunk from another class, before it maps one. Not from
// the first on: classes that take turns would take it from each other at each request.
constexpr std::size_t many_chunks = 24;

struct Block {
    Block* next;
};

struct Pool;

struct Chunk {
    Block* free = nullptr; // given back on the owner's thread
    char* fresh = nullptr; // never handed out yet, up to `end`
    char* end = nullptr;
    Pool* owner = nullptr;
    std::uint32_t block_size = 0;
    std::uint32_t used = 0; // handed out, and not yet back in `free`
    std::uint32_t size_class = 0;
    bool has_room = false; // in the owner's list for its class
    Chunk* next = nullptr; // in that list, or in the list of idle chunks
    Chunk* previous = nullptr;
    Chunk* all_next = nullptr; // all chunks of the owner
    Chunk* all_previous = nullptr;
};
constexpr std::size_t header_size = (sizeof(Chunk) + 63) / 64 * 64;

std::size_t class_of_large(std::size_t size) noexcept {
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

void* map(std::size_t size) {
    void* memory =
        ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    return memory;
}

void* map_chunk() {
    // The kernel mostly puts a chunk just below the last one, and so aligned as that is. If not,
    // twice the size holds an aligned chunk for certain, and what stands over is given back.
    void* first = map(chunk_size);
    if (chunk_of(first) == first) return first;
    ::munmap(first, chunk_size);
    const auto begin = reinterpret_cast<std::uintptr_t>(map(2 * chunk_size));
    const std::uintptr_t aligned = (begin + chunk_size - 1) & ~(chunk_size - 1);
    if (aligned > begin) ::munmap(reinterpret_cast<void*>(begin), aligned - begin);
    const std::size_t tail = begin + chunk_size - aligned;
    if (tail > 0) ::munmap(reinterpret_cast<void*>(aligned + chunk_size), tail);
    return reinterpret_cast<void*>(aligned);
}

Chunk no_chunk; // never has room: the first of each list that is empty

// What one thread allocates from. A pool outlives its thread while blocks of it live; the next
// thread that needs one adopts it, together with what was given back in the meantime.
struct Pool {
    Chunk* with_room[class_count]; // the first of each list serves the next request
    Chunk* idle = nullptr;         // chunks without a block in use, for any class
    std::size_t idle_count = 0;
    Chunk* all = nullptr;
    std::size_t chunks = 0;
    Pool* next_abandoned = nullptr;
    std::atomic<Block*> foreign = nullptr; // given back on other threads

    Pool() noexcept {
        for (Chunk*& list : with_room) list = &no_chunk;
    }

    void* allocate(std::size_t size_class) {
        Chunk& chunk = *with_room[size_class];
        Block* block = chunk.free;
        if (block == nullptr) [[unlikely]] {
            return allocate_fresh(size_class);
        }
        chunk.free = block->next;
        ++chunk.used;
        return block;
    }

    ASYNCIO_NOINLINE void* allocate_fresh(std::size_t size_class) {
        Chunk* chunk = with_room[size_class];
        while (chunk->free == nullptr && chunk->fresh == chunk->end) {
            if (chunk != &no_chunk) {
                take_from_list(*chunk); // full
            } else if (!collect()) {
                add_room(size_class);
            }
            chunk = with_room[size_class];
        }
        if (chunk->free != nullptr) return allocate(size_class);
        char* block = chunk->fresh;
        chunk->fresh += chunk->block_size;
        ++chunk->used;
        return block;
    }

    void give_back(Chunk& chunk, void* memory) noexcept {
        chunk.free = ::new (memory) Block{chunk.free};
        if (--chunk.used == 0 || !chunk.has_room) [[unlikely]] {
            // The chunk that serves the next request stays where it is.
            if (with_room[chunk.size_class] != &chunk) room_came_back(chunk);
        }
    }

    ASYNCIO_NOINLINE void room_came_back(Chunk& chunk) noexcept {
        if (!chunk.has_room) put_in_list(chunk);
        if (chunk.used != 0 || with_room[chunk.size_class] == &chunk) return;
        take_from_list(chunk);
        if (idle_count == idle_chunks_kept) {
            unmap(chunk);
            return;
        }
        chunk.next = idle;
        idle = &chunk;
        ++idle_count;
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

    void add_room(std::size_t size_class) {
        Chunk* chunk = idle;
        if (chunk != nullptr) {
            idle = chunk->next;
            --idle_count;
        } else if (Chunk* other = chunks < many_chunks ? nullptr : find_empty(); other != nullptr) {
            take_from_list(*other);
            chunk = other;
        } else {
            chunk = ::new (map_chunk()) Chunk();
            chunk->owner = this;
            chunk->all_next = all;
            if (all != nullptr) all->all_previous = chunk;
            all = chunk;
            ++chunks;
        }
        const std::size_t size = size_of(size_class);
        chunk->size_class = static_cast<std::uint32_t>(size_class);
        chunk->block_size = static_cast<std::uint32_t>(size);
        chunk->free = nullptr;
        chunk->fresh = reinterpret_cast<char*>(chunk) + header_size;
        chunk->end = chunk->fresh + (chunk_size - header_size) / size * size;
        put_in_list(*chunk);
    }

    // A chunk without a block in use that stands ready for the next request of its class.
    Chunk* find_empty() noexcept {
        for (Chunk* chunk : with_room) {
            if (chunk != &no_chunk && chunk->used == 0) return chunk;
        }
        return nullptr;
    }

    // Behind the first, which goes on serving.
    void put_in_list(Chunk& chunk) noexcept {
        Chunk* first = with_room[chunk.size_class];
        chunk.has_room = true;
        if (first == &no_chunk) {
            chunk.next = chunk.previous = nullptr;
            with_room[chunk.size_class] = &chunk;
            return;
        }
        chunk.next = first->next;
        chunk.previous = first;
        if (first->next != nullptr) first->next->previous = &chunk;
        first->next = &chunk;
    }

    void take_from_list(Chunk& chunk) noexcept {
        chunk.has_room = false;
        if (chunk.next != nullptr) chunk.next->previous = chunk.previous;
        if (chunk.previous != nullptr) {
            chunk.previous->next = chunk.next;
        } else {
            with_room[chunk.size_class] = chunk.next != nullptr ? chunk.next : &no_chunk;
        }
    }

    void unmap(Chunk& chunk) noexcept {
        if (chunk.all_next != nullptr) chunk.all_next->all_previous = chunk.all_previous;
        (chunk.all_previous != nullptr ? chunk.all_previous->all_next : all) = chunk.all_next;
        --chunks;
        ::munmap(&chunk, chunk_size);
    }

    // The thread ends: keeps only what is in use.
    void shrink() noexcept {
        collect();
        idle = nullptr;
        idle_count = 0;
        for (Chunk* chunk = all; chunk != nullptr;) {
            Chunk* next = chunk->all_next;
            if (chunk->used == 0) {
                if (chunk->has_room) take_from_list(*chunk);
                unmap(*chunk);
            }
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
        pool->shrink();
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
    Pool* pool = this_threads_pool;
    if (pool == nullptr || size - 1 >= small_limit) [[unlikely]] {
        if (size > large_limit) return ::operator new(size);
        if (pool == nullptr) pool = &make_pool();
        if (size == 0) size = 1;
        if (size > small_limit) return pool->allocate(class_of_large(size));
    }
    return pool->allocate((size - 1) / 8);
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
