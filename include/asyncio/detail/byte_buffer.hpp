// SPDX-License-Identifier: MIT
// Bytes that go in at the end and out at the beginning, in one piece.
//
// Its memory is a block of the loop's while that is enough, and goes back as soon as the buffer is
// empty and nobody is about to fill it, so that what is idle holds none.
#pragma once

#include <asyncio/detail/config.hpp>

#include <cstddef>
#include <cstring>
#include <span>
#include <string_view>
#include <utility>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

// `Blocks` has take_block(), give_block() and block_size.
template <class Blocks> class ByteBuffer {
  public:
    ByteBuffer() = default;
    ByteBuffer(const ByteBuffer&) = delete;
    ByteBuffer& operator=(const ByteBuffer&) = delete;
    ~ByteBuffer() { release(nullptr); }

    bool empty() const noexcept { return begin_ == end_; }
    // What has none is empty.
    bool has_memory() const noexcept { return memory_ != nullptr; }
    std::size_t size() const noexcept { return end_ - begin_; }
    std::string_view view() const noexcept { return {memory_ + begin_, size()}; }

    // Requires: count <= size().
    void consume(std::size_t count) noexcept {
        begin_ += count;
        if (begin_ == end_) begin_ = end_ = 0;
    }
    void clear() noexcept { begin_ = end_ = 0; }

    // Room at the end, for at least so many bytes; filled() says how many were written there.
    // Throws std::bad_alloc.
    std::span<char> room(Blocks& blocks, std::size_t at_least) {
        if (capacity_ - end_ < at_least) [[unlikely]] {
            make_room(blocks, at_least);
        }
        return {memory_ + end_, capacity_ - end_};
    }
    void filled(std::size_t count) noexcept { end_ += count; }
    // The same with a block that is filled already. Requires: it has no memory.
    void adopt(char* block, std::size_t count) noexcept {
        memory_ = block;
        capacity_ = Blocks::block_size;
        end_ = count;
    }

    void append(Blocks& blocks, std::string_view bytes) {
        std::memcpy(room(blocks, bytes.size()).data(), bytes.data(), bytes.size());
        filled(bytes.size());
    }

    // Drops what is in it, and its memory: without the blocks, which may be gone, that is freed.
    void release(Blocks* blocks) noexcept {
        char* memory = std::exchange(memory_, nullptr);
        const std::size_t capacity = std::exchange(capacity_, 0);
        begin_ = end_ = 0;
        if (memory == nullptr) return;
        if (blocks != nullptr && capacity == Blocks::block_size) {
            blocks->give_block(memory);
        } else {
            ::operator delete(memory, capacity);
        }
    }

  private:
    void make_room(Blocks& blocks, std::size_t at_least) {
        if (memory_ == nullptr && at_least <= Blocks::block_size) {
            memory_ = blocks.take_block();
            capacity_ = Blocks::block_size;
            return;
        }
        // Moved to the front only if that is at least as much as what is moved: so each byte is
        // moved a bounded number of times.
        if (memory_ != nullptr && begin_ >= size() && capacity_ - size() >= at_least) {
            std::memmove(memory_, memory_ + begin_, size());
            end_ = size();
            begin_ = 0;
            return;
        }
        std::size_t capacity =
            capacity_ > Blocks::block_size / 2 ? capacity_ * 2 : Blocks::block_size;
        if (capacity < size() + at_least) capacity = size() + at_least;
        // Exactly a block's size stands for a block.
        if (capacity == Blocks::block_size) ++capacity;
        char* memory = static_cast<char*>(::operator new(capacity));
        const std::size_t kept = size();
        if (memory_ != nullptr) std::memcpy(memory, memory_ + begin_, kept);
        release(&blocks);
        memory_ = memory;
        capacity_ = capacity;
        end_ = kept;
    }

    char* memory_ = nullptr;
    std::size_t capacity_ = 0;
    std::size_t begin_ = 0;
    std::size_t end_ = 0;
};

} // namespace detail
ASYNCIO_END_NAMESPACE
