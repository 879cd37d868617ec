// SPDX-License-Identifier: MIT
#include <asyncio/detail/frame_pool.hpp>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <thread>
#include <utility>
#include <vector>

using asyncio::detail::pool_allocate;
using asyncio::detail::pool_deallocate;
using asyncio::detail::pool_mapped_bytes;

namespace {

// A block that is filled with its own pattern: if two blocks overlap, or somebody writes into one
// that is handed out, the pattern breaks.
struct Filled {
    unsigned char* memory = nullptr;
    std::size_t size = 0;
    unsigned char pattern = 0;
};

Filled take(std::size_t size, unsigned char pattern) {
    Filled block{static_cast<unsigned char*>(pool_allocate(size)), size, pattern};
    if (size > 0) std::memset(block.memory, pattern, size);
    return block;
}

bool intact(const Filled& block) {
    return std::all_of(block.memory, block.memory + block.size,
                       [&](unsigned char byte) { return byte == block.pattern; });
}

// True if it was intact.
bool give_back(const Filled& block) {
    const bool good = intact(block);
    pool_deallocate(block.memory, block.size);
    return good;
}

bool aligned(const void* memory, std::size_t size) {
    return reinterpret_cast<std::uintptr_t>(memory) % (size % 16 == 0 ? 16 : 8) == 0;
}

// Whether this build has the pool at all.
bool has_pool() {
    void* block = pool_allocate(64);
    const bool has = pool_mapped_bytes() != 0;
    pool_deallocate(block, 64);
    return has;
}

void run_in_thread(auto body) { std::thread(body).join(); }

} // namespace

TEST(FramePool, every_size_up_to_64_KiB_is_usable_to_its_last_byte_and_aligned) {
    std::vector<Filled> blocks;
    unsigned char pattern = 0;
    for (std::size_t size = 0; size <= 65536; size += size < 4200 ? 1 : 97) {
        blocks.push_back(take(size, ++pattern));
        EXPECT_TRUE(aligned(blocks.back().memory, size)) << size;
    }
    for (const std::size_t edge : {1024U, 2048U, 4096U, 8192U, 16384U, 32768U, 65536U}) {
        for (const std::size_t size : {edge - 1, edge, edge + 1}) {
            blocks.push_back(take(size, ++pattern));
            EXPECT_TRUE(aligned(blocks.back().memory, size)) << size;
        }
    }
    std::size_t broken = 0;
    for (const Filled& block : blocks) broken += give_back(block) ? 0U : 1U;
    EXPECT_EQ(broken, 0U);
}

TEST(FramePool, random_use_never_hands_a_byte_out_twice) {
    for (const unsigned int seed : {1U, 2U, 3U}) {
        std::mt19937 random(seed);
        std::vector<Filled> blocks;
        std::size_t broken = 0;
        for (int i = 0; i < 200'000; ++i) {
            if (blocks.size() > 2000 || (!blocks.empty() && random() % 2 == 0)) {
                std::swap(blocks[random() % blocks.size()], blocks.back());
                broken += give_back(blocks.back()) ? 0U : 1U;
                blocks.pop_back();
            } else {
                const unsigned int limit = random() % 16 == 0 ? 40'000 : 600;
                blocks.push_back(take(random() % limit, static_cast<unsigned char>(random())));
            }
        }
        for (const Filled& block : blocks) broken += give_back(block) ? 0U : 1U;
        EXPECT_EQ(broken, 0U) << "seed " << seed;
    }
}

TEST(FramePool, a_block_that_was_given_back_is_used_again) {
    if (!has_pool()) GTEST_SKIP() << "built without the pool";
    void* first = pool_allocate(200);
    pool_deallocate(first, 200);
    void* second = pool_allocate(200);
    EXPECT_EQ(first, second);
    pool_deallocate(second, 200);
}

TEST(FramePool, the_memory_of_a_peak_of_a_million_blocks_goes_back_to_the_system) {
    if (!has_pool()) GTEST_SKIP() << "built without the pool";
    constexpr std::size_t count = 1'000'000;
    constexpr std::size_t size = 96;
    const std::size_t before = pool_mapped_bytes();
    std::vector<void*> blocks(count);
    for (void*& block : blocks) block = pool_allocate(size);
    EXPECT_GE(pool_mapped_bytes(), count * size);
    EXPECT_LE(pool_mapped_bytes(), before + count * size + count * size / 50 + 512 * 1024);
    std::mt19937 random(7);
    std::shuffle(blocks.begin(), blocks.end(), random);
    for (void* block : blocks) pool_deallocate(block, size);
    EXPECT_LE(pool_mapped_bytes(), before + 2 * 1024 * 1024);
}

TEST(FramePool, memory_of_one_size_serves_other_sizes_later) {
    if (!has_pool()) GTEST_SKIP() << "built without the pool";
    std::size_t highest = 0;
    for (std::size_t size = 16; size <= 32 * 1024; size += 16) {
        std::vector<void*> blocks(10);
        for (void*& block : blocks) block = pool_allocate(size);
        for (void* block : blocks) pool_deallocate(block, size);
        highest = std::max(highest, pool_mapped_bytes());
    }
    EXPECT_LE(highest, 8U * 1024 * 1024);
}

TEST(FramePool, going_up_and_down_at_a_chunks_edge_does_not_map_and_unmap) {
    if (!has_pool()) GTEST_SKIP() << "built without the pool";
    std::vector<void*> blocks;
    const std::size_t start = pool_mapped_bytes();
    while (pool_mapped_bytes() == start) blocks.push_back(pool_allocate(4096));
    for (int i = 0; i < 1000; ++i) {
        const std::size_t mapped = pool_mapped_bytes();
        pool_deallocate(blocks.back(), 4096);
        EXPECT_EQ(pool_mapped_bytes(), mapped);
        blocks.back() = pool_allocate(4096);
        EXPECT_EQ(pool_mapped_bytes(), mapped);
    }
    for (void* block : blocks) pool_deallocate(block, 4096);
}

TEST(FramePool, objects_with_a_large_alignment_are_aligned) {
    struct alignas(64) Wide : asyncio::detail::Pooled {
        char bytes[64] = {};
    };
    struct Base : asyncio::detail::Pooled {
        virtual ~Base() = default;
    };
    struct alignas(256) Derived final : Base {
        char bytes[24] = {};
    };
    std::vector<std::unique_ptr<Wide>> wide;
    std::vector<std::unique_ptr<Base>> derived;
    for (int i = 0; i < 20; ++i) {
        wide.push_back(std::make_unique<Wide>());
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(wide.back().get()) % 64, 0U);
        derived.push_back(std::make_unique<Derived>());
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(derived.back().get()) % 256, 0U);
    }
}

// ---- across threads

TEST(FramePool, blocks_given_back_on_another_thread_come_home) {
    constexpr std::size_t size = 128;
    std::size_t broken = 0;
    const std::size_t before = pool_mapped_bytes();
    for (int round = 0; round < 50; ++round) {
        std::vector<Filled> blocks;
        for (std::size_t i = 0; i < 10'000; ++i)
            blocks.push_back(take(size, static_cast<unsigned char>(i)));
        run_in_thread([&] {
            for (const Filled& block : blocks) broken += give_back(block) ? 0U : 1U;
        });
    }
    EXPECT_EQ(broken, 0U);
    EXPECT_LE(pool_mapped_bytes(), before + 3 * 10'000 * size);
}

TEST(FramePool, threads_that_hand_blocks_round_in_a_ring_never_overlap) {
    constexpr std::size_t thread_count = 4;
    constexpr std::size_t slots = 256;
    constexpr int rounds = 40'000;
    std::array<std::array<std::atomic<Filled*>, slots>, thread_count> boxes = {};
    std::atomic<std::size_t> broken = 0;
    const auto body = [&](std::size_t me) {
        std::mt19937 random(static_cast<unsigned int>(me));
        for (int i = 0; i < rounds; ++i) {
            const std::size_t size = sizeof(Filled) + random() % 700;
            auto* memory = static_cast<unsigned char*>(pool_allocate(size));
            auto* block = new (memory) Filled{memory + sizeof(Filled), size - sizeof(Filled),
                                              static_cast<unsigned char>(random())};
            std::memset(block->memory, block->pattern, block->size);
            // Into a box of the next thread; what was there is given back here or stays there.
            const std::size_t to = (me + random() % thread_count) % thread_count;
            Filled* old = boxes[to][random() % slots].exchange(block, std::memory_order_acq_rel);
            if (old == nullptr) continue;
            if (!intact(*old)) ++broken;
            pool_deallocate(old, sizeof(Filled) + old->size);
        }
    };
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < thread_count; ++i) threads.emplace_back(body, i);
    for (std::thread& thread : threads) thread.join();
    for (auto& row : boxes) {
        for (auto& box : row) {
            Filled* old = box.load();
            if (old == nullptr) continue;
            if (!intact(*old)) ++broken;
            pool_deallocate(old, sizeof(Filled) + old->size);
        }
    }
    EXPECT_EQ(broken.load(), 0U);
}

TEST(FramePool, blocks_outlive_the_thread_that_took_them) {
    std::vector<Filled> blocks;
    run_in_thread([&] {
        for (std::size_t i = 0; i < 5000; ++i)
            blocks.push_back(take(16 + i % 900, static_cast<unsigned char>(i)));
    });
    std::size_t broken = 0;
    for (const Filled& block : blocks) broken += give_back(block) ? 0U : 1U;
    EXPECT_EQ(broken, 0U);
}

TEST(FramePool, the_next_thread_adopts_what_a_thread_left_behind) {
    if (!has_pool()) GTEST_SKIP() << "built without the pool";
    std::vector<Filled> blocks;
    std::size_t left_behind = 0;
    run_in_thread([&] {
        for (std::size_t i = 0; i < 20'000; ++i)
            blocks.push_back(take(64, static_cast<unsigned char>(i)));
        left_behind = pool_mapped_bytes();
    });
    EXPECT_GE(left_behind, 20'000U * 64);
    std::size_t broken = 0;
    for (const Filled& block : blocks) broken += give_back(block) ? 0U : 1U;
    EXPECT_EQ(broken, 0U);
    std::size_t adopted = 0;
    std::size_t later = 0;
    run_in_thread([&] {
        pool_deallocate(pool_allocate(8), 8);
        adopted = pool_mapped_bytes();
        std::vector<void*> more(20'000);
        for (void*& block : more) block = pool_allocate(64);
        later = pool_mapped_bytes();
        for (void* block : more) pool_deallocate(block, 64);
    });
    EXPECT_GT(adopted, 0U);
    EXPECT_LE(later, left_behind + 512 * 1024); // the same memory, used again
}

TEST(FramePool, many_short_threads_do_not_gather_memory) {
    if (!has_pool()) GTEST_SKIP() << "built without the pool";
    std::size_t mapped = 0;
    Filled kept = take(48, 1);
    for (int i = 0; i < 500; ++i) {
        run_in_thread([&] {
            const Filled next = take(48, static_cast<unsigned char>(i));
            EXPECT_TRUE(give_back(kept)); // of the thread before
            kept = next;
            mapped = pool_mapped_bytes();
        });
    }
    EXPECT_TRUE(give_back(kept));
    EXPECT_LE(mapped, 8U * 256 * 1024);
}

TEST(FramePool, threads_that_end_while_others_give_their_blocks_back_lose_nothing) {
    std::atomic<std::size_t> broken = 0;
    for (int round = 0; round < 200; ++round) {
        std::vector<Filled> first;
        std::vector<Filled> second;
        std::atomic<bool> ready = false;
        std::thread owner([&] {
            for (std::size_t i = 0; i < 300; ++i)
                (i % 2 == 0 ? first : second).push_back(take(100, static_cast<unsigned char>(i)));
            ready.store(true, std::memory_order_release);
        }); // and ends at once
        std::thread one([&] {
            while (!ready.load(std::memory_order_acquire)) std::this_thread::yield();
            for (const Filled& block : first) broken += give_back(block) ? 0U : 1U;
        });
        std::thread two([&] {
            while (!ready.load(std::memory_order_acquire)) std::this_thread::yield();
            for (const Filled& block : second) broken += give_back(block) ? 0U : 1U;
            // Adopts, perhaps, the pool while the first still gives back to it.
            for (int i = 0; i < 300; ++i) broken += give_back(take(100, 7)) ? 0U : 1U;
        });
        owner.join();
        one.join();
        two.join();
    }
    EXPECT_EQ(broken.load(), 0U);
}

TEST(FramePool, a_destructor_that_runs_as_the_thread_ends_may_take_and_give_back) {
    struct AtEnd {
        bool touched = false;
        void* block = nullptr;
        ~AtEnd() {
            if (block != nullptr) pool_deallocate(block, 40);
            pool_deallocate(pool_allocate(72), 72);
        }
    };
    for (int i = 0; i < 20; ++i) {
        run_in_thread([] {
            static thread_local AtEnd at_end; // made before the pool, so destroyed after it
            at_end.touched = true;
            at_end.block = pool_allocate(40);
        });
    }
}
