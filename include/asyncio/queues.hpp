// SPDX-License-Identifier: MIT
// Queue, PriorityQueue and LifoQueue: how tasks of one loop hand things to each other.
//
//     asyncio::Queue<Job> jobs(100);                  // puts wait while there are 100 in it
//     co_await jobs.put(Job("first"));
//     Job job = co_await jobs.get();
//
// Who waits waits inside its own frame, so that waiting allocates nothing. A cancel that comes
// after an item was there for a task leaves that item in the queue, for another. Items need not be
// copyable. A queue belongs to one loop and stays where it is, as locks do: see locks.hpp.
#pragma once

#include <asyncio/coroutine.hpp>
#include <asyncio/detail/frame_pool.hpp>
#include <asyncio/detail/temporaries.hpp>
#include <asyncio/detail/wait_list.hpp>
#include <asyncio/locks.hpp>
#include <asyncio/result.hpp>

#include <algorithm>
#include <concepts>
#include <coroutine>
#include <cstddef>
#include <deque>
#include <exception>
#include <source_location>
#include <type_traits>
#include <utility>
#include <vector>

ASYNCIO_BEGIN_NAMESPACE

// get_nowait() has nothing to give. (asyncio.QueueEmpty)
class ASYNCIO_API QueueEmpty : public std::exception {
  public:
    const char* what() const noexcept override;
};
// put_nowait() has no room. (asyncio.QueueFull)
class ASYNCIO_API QueueFull : public std::exception {
  public:
    const char* what() const noexcept override;
};
// The queue was shut down. (asyncio.QueueShutDown)
class ASYNCIO_API QueueShutDown : public std::exception {
  public:
    const char* what() const noexcept override;
};

namespace detail {

class QueueWaiter;

// What all queues share, whatever their items are and how they are kept.
class ASYNCIO_API QueueBase {
  public:
    QueueBase(const QueueBase&) = delete;
    QueueBase& operator=(const QueueBase&) = delete;

    // (Queue.qsize, Queue.maxsize, Queue.empty, Queue.full)
    std::size_t qsize() const noexcept { return size_; }
    std::ptrdiff_t maxsize() const noexcept { return maxsize_; }
    bool empty() const noexcept { return size_ == 0; }
    // Never, if there is no limit.
    bool full() const noexcept {
        return maxsize_ > 0 && size_ >= static_cast<std::size_t>(maxsize_);
    }

    // One item that was taken has been dealt with. Throws ValueError if called more often than
    // there were items. (Queue.task_done)
    void task_done();
    // Waits until each item that was put has had its task_done(). (Queue.join)
    WaitToAcquire<Event> join() noexcept { return finished_.wait(); }

  protected:
    explicit QueueBase(std::ptrdiff_t maxsize) noexcept : maxsize_(maxsize) { finished_.set(); }
    ~QueueBase() = default;

    bool put_must_wait() const noexcept { return full() && !is_shut_down_; }
    bool get_must_wait() const noexcept { return empty() && !is_shut_down_; }
    void check_put() const {
        if (is_shut_down_ || full()) [[unlikely]] {
            throw_cannot_put();
        }
    }
    void check_get() const {
        if (empty()) [[unlikely]] {
            throw_cannot_get();
        }
    }
    void was_put() noexcept {
        ++size_;
        ++unfinished_;
        finished_.clear();
        getters_.wake_next();
    }
    void was_taken() noexcept {
        --size_;
        putters_.wake_next();
    }
    void shut_down(bool dropped_all) noexcept;

  private:
    friend class QueueWaiter;
    [[noreturn]] ASYNCIO_COLD void throw_cannot_put() const;
    [[noreturn]] ASYNCIO_COLD void throw_cannot_get() const;

    WaitList getters_;
    WaitList putters_;
    Event finished_; // set while unfinished_ is 0
    std::size_t unfinished_ = 0;
    std::size_t size_ = 0;
    std::ptrdiff_t maxsize_;
    bool is_shut_down_ = false;
};

// Waits until it can put, or get. Woken, it looks again, since another may have come in between:
// then it waits on, behind the others.
class ASYNCIO_API QueueWaiter : public Waiter {
  public:
    template <std::derived_from<PromiseBase> Promise>
    bool await_suspend(std::coroutine_handle<Promise> frame,
                       std::source_location where = std::source_location::current()) noexcept {
        frame.promise().where = where;
        return begin(*frame.promise().task, frame, queue_->getters_); // one loop for the queue
    }
    bool await_ready() const noexcept { return !must_wait(); }

  protected:
    QueueWaiter(QueueBase& queue, bool puts) noexcept
        : Waiter(puts ? queue.putters_ : queue.getters_), puts_(puts), queue_(&queue) {}
    ~QueueWaiter() = default;

    void finish();
    // Null if it can put, or get, now.
    std::exception_ptr take_failure();

  private:
    bool puts_;

  protected:
    QueueBase* queue_;

  private:
    void run() override;
    void run_in_debug() override;
    bool waits_on() noexcept;
    bool must_wait() const noexcept {
        return puts_ ? queue_->put_must_wait() : queue_->get_must_wait();
    }
};

template <class Queue, class T> class QueuePutWaiter final : public QueueWaiter {
  public:
    QueuePutWaiter(Queue& queue, T& item) noexcept : QueueWaiter(queue, true), item_(&item) {}

    void await_resume() {
        if (has_waited()) finish();
        put();
    }
    Result<void> take_result() {
        if (has_waited()) {
            if (std::exception_ptr failure = take_failure())
                return Result<void>(std::move(failure));
        }
        put();
        return {};
    }

  private:
    void put() { static_cast<Queue*>(queue_)->put_nowait(std::move(*item_)); }

    T* item_;
};

// What put() gives: the item, and where it goes.
template <class Queue, class T> class [[nodiscard("nothing is put until it is awaited")]] QueuePut {
  public:
    template <class U>
    QueuePut(Queue& queue, U&& item) : queue_(&queue), item_(std::forward<U>(item)) {}
    QueuePutWaiter<Queue, T> operator co_await() noexcept {
        return QueuePutWaiter<Queue, T>(*queue_, item_);
    }

  private:
    Queue* queue_;
    T item_;
};

template <class Queue, class T> class QueueGetWaiter final : public QueueWaiter {
  public:
    explicit QueueGetWaiter(Queue& queue) noexcept : QueueWaiter(queue, false) {}

    T await_resume() {
        if (has_waited()) finish();
        return static_cast<Queue*>(queue_)->get_nowait();
    }
    Result<T> take_result() {
        if (has_waited()) {
            if (std::exception_ptr failure = take_failure()) return Result<T>(std::move(failure));
        }
        return Result<T>(static_cast<Queue*>(queue_)->get_nowait());
    }
};

// How a queue keeps its items, which it counts itself: the next one comes out of take(), which
// requires that there is one.

template <class T> class FifoItems {
  public:
    template <class U> void push(U&& item) { items_.emplace_back(std::forward<U>(item)); }
    auto take_all() { return std::exchange(items_, {}); }
    T take() {
        T item = std::move(items_.front());
        items_.pop_front();
        return item;
    }

  private:
    // It takes and gives back a block as often as a few messages pass.
    std::deque<T, PoolAllocator<T>> items_;
};

template <class T> class LifoItems {
  public:
    template <class U> void push(U&& item) { items_.emplace_back(std::forward<U>(item)); }
    std::vector<T> take_all() noexcept { return std::exchange(items_, {}); }
    T take() {
        T item = std::move(items_.back());
        items_.pop_back();
        return item;
    }

  private:
    std::vector<T> items_;
};

template <class T, class Compare> class PriorityItems {
  public:
    explicit PriorityItems(Compare compare) : later_{std::move(compare)} {}
    template <class U> void push(U&& item) {
        items_.emplace_back(std::forward<U>(item));
        try {
            std::push_heap(items_.begin(), items_.end(), later_);
        } catch (...) {
            items_.pop_back();
            throw;
        }
    }
    std::vector<T> take_all() noexcept { return std::exchange(items_, {}); }
    T take() {
        std::pop_heap(items_.begin(), items_.end(), later_);
        T item = std::move(items_.back());
        items_.pop_back();
        return item;
    }

  private:
    struct Later {
        Compare compare;
        bool operator()(const T& a, const T& b) { return compare(b, a); }
    };
    Later later_;
    std::vector<T> items_;
};

template <class T, class Items> class BasicQueue : public QueueBase {
  public:
    using value_type = T;
    static_assert(std::is_object_v<T> && std::is_move_constructible_v<T>,
                  "the items of a queue are objects that can be moved: for references, take "
                  "pointers or std::reference_wrapper");

    // Waits while the queue is full, then puts the item in. Throws QueueShutDown once the queue is
    // shut down. A cancel ends the wait, and the item is destroyed. (Queue.put)
    template <class U = T>
        requires std::is_constructible_v<T, U&&>
    QueuePut<BasicQueue, T> put(U&& item) {
        ASYNCIO_REFUSE_UNSAFE_TEMPORARIES(U);
        return QueuePut<BasicQueue, T>(*this, std::forward<U>(item));
    }
    // The same without waiting: throws QueueFull instead; the item is not moved from if it throws
    // that or QueueShutDown. (Queue.put_nowait)
    template <class U = T>
        requires std::is_constructible_v<T, U&&>
    void put_nowait(U&& item) {
        check_put();
        items_.push(std::forward<U>(item));
        was_put();
    }
    // Waits until there is an item, and takes it. Throws QueueShutDown once the queue is shut down
    // and empty. A cancel ends the wait, with nothing taken. (Queue.get)
    WaitFor<BasicQueue, QueueGetWaiter<BasicQueue, T>> get() noexcept {
        return WaitFor<BasicQueue, QueueGetWaiter<BasicQueue, T>>(*this);
    }
    // The same without waiting: throws QueueEmpty instead. (Queue.get_nowait)
    T get_nowait() {
        check_get();
        T item = items_.take();
        was_taken();
        return item;
    }
    // From now on put() throws QueueShutDown, to those who wait too, and get() as soon as the queue
    // is empty; `immediate` drops the items that are in it, which counts as their task_done().
    // (Queue.shutdown)
    void shutdown(bool immediate = false) {
        if (immediate) {
            const auto dropped = items_.take_all(); // their destructors come last
            shut_down(true);
        } else {
            shut_down(false);
        }
    }

  protected:
    template <class... Args>
    explicit BasicQueue(std::ptrdiff_t maxsize, Args&&... arguments)
        : QueueBase(maxsize), items_(std::forward<Args>(arguments)...) {}
    ~BasicQueue() = default;

  private:
    Items items_;
};

} // namespace detail

// First in, first out. At most `maxsize` items are in it at a time; 0 or less: no limit.
// (asyncio.Queue)
template <class T> class Queue : public detail::BasicQueue<T, detail::FifoItems<T>> {
  public:
    explicit Queue(std::ptrdiff_t maxsize = 0)
        : detail::BasicQueue<T, detail::FifoItems<T>>(maxsize) {}
};

// Last in, first out. (asyncio.LifoQueue)
template <class T> class LifoQueue : public detail::BasicQueue<T, detail::LifoItems<T>> {
  public:
    explicit LifoQueue(std::ptrdiff_t maxsize = 0)
        : detail::BasicQueue<T, detail::LifoItems<T>>(maxsize) {}
};

// The smallest first: an item x of which compare(y, x) holds for no other y. Two that are equal
// come in the order that Python's heapq gives them. An item may be lost if the comparison throws.
// (asyncio.PriorityQueue)
template <class T, class Compare = std::less<T>>
class PriorityQueue : public detail::BasicQueue<T, detail::PriorityItems<T, Compare>> {
  public:
    explicit PriorityQueue(std::ptrdiff_t maxsize = 0, Compare compare = Compare())
        : detail::BasicQueue<T, detail::PriorityItems<T, Compare>>(maxsize, std::move(compare)) {}
};

ASYNCIO_END_NAMESPACE
