// SPDX-License-Identifier: MIT
//
// The floor: the least code that does the same thing as the library, so that a figure of ours can
// be quoted as a multiple of what the machine and the compiler allow. One loop, one thread,
// everything in plain globals; no safety, no callbacks, no results. What it keeps is what asyncio's
// rules ask for: what was ready at the start of a turn runs in that turn, then the poll, then
// timers; a task takes a hop to start and a hop to wake its waiter; an exception travels through
// every frame; a frame is destroyed by the driver of the steps when it ends.
#pragma once

#include <algorithm>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <ctime>
#include <exception>
#include <sys/epoll.h>
#include <type_traits>
#include <utility>

namespace bare {

// ---- Memory: free lists of blocks, one for each multiple of 16 bytes

struct Pool {
    static constexpr std::size_t largest = 1024;
    static constexpr std::size_t chunk = std::size_t{1} << 20;
    struct Block {
        Block* next;
    };
    static inline constinit Block* free[largest / 16 + 1] = {};
    static inline constinit char* fresh = nullptr;
    static inline constinit char* end = nullptr;

    static void* take(std::size_t size) {
        const std::size_t list = (size + 15) / 16;
        if (size > largest) return std::malloc(size);
        if (Block* block = free[list]) {
            free[list] = block->next;
            return block;
        }
        return carve(list * 16);
    }
    static void give(void* memory, std::size_t size) {
        if (size > largest) return std::free(memory);
        free[(size + 15) / 16] = new (memory) Block{free[(size + 15) / 16]};
    }
    [[gnu::noinline]] static void* carve(std::size_t size) {
        if (static_cast<std::size_t>(end - fresh) < size) {
            fresh = static_cast<char*>(std::malloc(chunk));
            if (fresh == nullptr) std::abort();
            end = fresh + chunk;
        }
        return std::exchange(fresh, fresh + size);
    }
};

struct Pooled {
    static void* operator new(std::size_t size) { return Pool::take(size); }
    static void operator delete(void* memory, std::size_t size) { Pool::give(memory, size); }
};

// ---- The ready queue: a FIFO of nodes that live in the frames that wait

struct Node {
    Node* next = nullptr;
    std::coroutine_handle<> frame;
};

struct Queue {
    Node* head = nullptr;
    Node* last = nullptr;

    void push(Node* node) {
        node->next = nullptr;
        (head == nullptr ? head : last->next) = node;
        last = node;
    }
    Node* take_all() { return std::exchange(head, nullptr); }
    Node* pop() {
        Node* node = head;
        head = node->next;
        return node;
    }
    void append_all_of(Queue& other) {
        if (other.head == nullptr) return;
        (head == nullptr ? head : last->next) = other.head;
        last = other.last;
        other.head = nullptr;
    }
};

inline constinit Queue ready;

// ---- Timers: a pairing heap of nodes, from which any node can leave

struct Timer : Node { // `next` is the right sibling
    std::int64_t when = 0;
    std::uint64_t order = 0; // equal deadlines fire in the order in which they were armed
    Timer* child = nullptr;
    Timer* previous = nullptr; // the left sibling, or the parent of a first child
};

struct Heap {
    Timer* root = nullptr;
    std::uint64_t armed = 0;

    void insert(Timer* timer) {
        timer->order = armed++;
        timer->child = nullptr;
        timer->next = nullptr;
        timer->previous = nullptr;
        root = root == nullptr ? timer : meld(root, timer);
    }
    void remove(Timer* timer) {
        Timer* rest = timer->child == nullptr ? nullptr : pair(timer->child);
        if (timer == root) {
            root = rest;
            return;
        }
        Timer* right = static_cast<Timer*>(timer->next);
        if (timer->previous->child == timer) {
            timer->previous->child = right;
        } else {
            timer->previous->next = right;
        }
        if (right != nullptr) right->previous = timer->previous;
        if (rest != nullptr) root = meld(root, rest);
    }

    static bool before(const Timer* a, const Timer* b) {
        return a->when != b->when ? a->when < b->when : a->order < b->order;
    }
    static Timer* meld(Timer* a, Timer* b) {
        if (before(b, a)) std::swap(a, b);
        b->previous = a;
        b->next = a->child;
        if (a->child != nullptr) a->child->previous = b;
        a->child = b;
        return a;
    }
    // Two passes: neighbours from the left, then all of those from the right.
    static Timer* pair(Timer* first) {
        Timer* stack = nullptr;
        while (first != nullptr) {
            Timer* second = static_cast<Timer*>(first->next);
            Timer* rest = second == nullptr ? nullptr : static_cast<Timer*>(second->next);
            Timer* both = second == nullptr ? first : meld(first, second);
            both->next = stack;
            stack = both;
            first = rest;
        }
        Timer* root = stack;
        stack = static_cast<Timer*>(stack->next);
        while (stack != nullptr) {
            Timer* rest = static_cast<Timer*>(stack->next);
            root = meld(root, stack);
            stack = rest;
        }
        root->next = nullptr;
        root->previous = nullptr;
        return root;
    }
};

inline constinit Heap timers;
inline constinit int poll_fd = -1; // an epoll descriptor, where one is to be polled each turn

inline std::int64_t clock_ns(clockid_t clock = CLOCK_MONOTONIC) {
    timespec now{};
    clock_gettime(clock, &now);
    return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

// ---- The driver of steps

// What is to happen after a frame has suspended: another one runs in the same step (GCC, whose
// symmetric transfer is no tail call at every level of optimisation), or a frame that has ended is
// destroyed.
struct After {
    std::coroutine_handle<> frame;
    bool destroy = false;
};
inline constinit After after;

inline void step(std::coroutine_handle<> frame) {
    frame.resume();
    while (after.frame) [[unlikely]] {
        const auto next = std::exchange(after.frame, nullptr);
        if (std::exchange(after.destroy, false)) return next.destroy();
        next.resume();
    }
}

#if defined(__clang__)
using Transfer = std::coroutine_handle<>;
inline Transfer transfer(std::coroutine_handle<> frame) { return frame; }
inline Transfer nowhere() { return std::noop_coroutine(); }
#else
using Transfer = void;
inline void transfer(std::coroutine_handle<> frame) { after.frame = frame; }
inline void nowhere() {}
#endif

inline void poll_once(int timeout) {
    epoll_event events[64];
    epoll_wait(poll_fd, events, 64, timeout);
}

// The clock of the last tick costs a third of the exact one, and is never behind it by more than a
// tick: enough to see that a far deadline has not come.
inline constexpr std::int64_t longest_tick = 20'000'000;

[[gnu::noinline]] inline void wait_for_timers() {
    if (ready.head != nullptr &&
        clock_ns(CLOCK_MONOTONIC_COARSE) + longest_tick < timers.root->when)
        return;
    std::int64_t now = clock_ns();
    if (ready.head == nullptr && timers.root != nullptr && timers.root->when > now) {
        const std::int64_t left = timers.root->when - now;
        const timespec time{left / 1'000'000'000, left % 1'000'000'000};
        nanosleep(&time, nullptr);
        now = clock_ns();
    }
    while (timers.root != nullptr && timers.root->when <= now) {
        Timer* due = timers.root;
        timers.remove(due);
        ready.push(due);
    }
}

// Runs turns until nothing is ready and no timer is armed, or `stop` is set.
inline void run_until(const bool& stop) {
    while (!stop) {
        for (Node* node = ready.take_all(); node != nullptr;) {
            // The node belongs to the frame, which may be gone after its step.
            Node* next = node->next;
            step(node->frame);
            node = next;
        }
        if (stop) return;
        if (poll_fd >= 0) poll_once(0);
        if (timers.root != nullptr) {
            wait_for_timers();
        } else if (ready.head == nullptr) {
            return;
        }
    }
}

// ---- Coroutines and tasks

struct Cancelled {};
struct Sleep;

// A task's state, in a block of its own, with what asyncio asks every task to carry: a place among
// all tasks, a number for its name, a context (none here), the leaf that a cancel has to find. The
// base is the node that starts it.
struct State : Node, Pooled {
    State* older = nullptr;
    State* newer = nullptr;
    std::uint64_t number;
    const void* context = nullptr;
    Node* waiter = nullptr;
    Sleep* asleep = nullptr;
    std::exception_ptr failure;
    std::uint32_t references = 2; // the handle's and the running coroutine's
    bool done = false;

    static inline constinit State* newest = nullptr;
    static inline constinit std::uint64_t created = 0;

    State() : older(newest), number(++created) {
        if (newest != nullptr) newest->newer = this;
        newest = this;
    }
    void finish() {
        (newer == nullptr ? newest : newer->older) = older;
        if (older != nullptr) older->newer = newer;
        done = true;
        if (waiter != nullptr) ready.push(waiter);
        release();
    }
    void release() { // the handle of a OneBlock never lets go: its row ends before
        if (--references == 0) delete this;
    }
};

struct Coro {
    struct promise_type : Pooled {
        // The frame that awaits; none for the outermost frame of a task.
        std::coroutine_handle<> continuation;
        State* task = nullptr;
        std::exception_ptr failure;

        struct Final {
            bool await_ready() noexcept { return false; }
            Transfer await_suspend(std::coroutine_handle<promise_type> ended) noexcept {
                promise_type& promise = ended.promise();
                if (promise.continuation) return transfer(promise.continuation);
                State* owner = promise.task;
                if (promise.failure) [[unlikely]]
                    owner->failure = std::move(promise.failure);
                owner->finish();
                after = After{ended, true};
                return nowhere();
            }
            void await_resume() noexcept {}
        };

        Coro get_return_object() {
            return Coro{std::coroutine_handle<promise_type>::from_promise(*this)};
        }
        std::suspend_always initial_suspend() noexcept { return {}; }
        Final final_suspend() noexcept { return {}; }
        void return_void() noexcept {}
        void unhandled_exception() noexcept { failure = std::current_exception(); }
    };

    explicit Coro(std::coroutine_handle<promise_type> handle) : frame(handle) {}
    Coro(Coro&& other) noexcept : frame(std::exchange(other.frame, nullptr)) {}
    Coro& operator=(Coro&&) = delete;
    ~Coro() {
        if (frame) frame.destroy();
    }

    bool await_ready() noexcept { return false; }
    Transfer await_suspend(std::coroutine_handle<promise_type> parent) noexcept {
        frame.promise().continuation = parent;
        frame.promise().task = parent.promise().task;
        return transfer(frame);
    }
    void await_resume() {
        if (frame.promise().failure) [[unlikely]]
            std::rethrow_exception(std::move(frame.promise().failure));
    }

    std::coroutine_handle<promise_type> frame;
};

struct Yield : Node {
    bool await_ready() noexcept { return false; }
    void await_suspend(std::coroutine_handle<> handle) noexcept {
        frame = handle;
        ready.push(this);
    }
    void await_resume() noexcept {}
};

struct Sleep : Timer {
    explicit Sleep(std::int64_t nanoseconds) { when = nanoseconds; }
    bool await_ready() noexcept { return false; }
    template <class Promise> void await_suspend(std::coroutine_handle<Promise> handle) noexcept {
        frame = handle;
        if constexpr (std::is_base_of_v<State, Promise>) {
            task = &handle.promise();
        } else {
            task = handle.promise().task;
        }
        task->asleep = this;
        when += clock_ns();
        timers.insert(this);
    }
    void await_resume() {
        if (task->asleep == nullptr) [[unlikely]]
            throw Cancelled{};
        task->asleep = nullptr;
    }
    State* task = nullptr;
};

// A handle to a running task; awaiting it wakes the waiter through the ready queue.
class Task {
  public:
    explicit Task(Coro coro) : state_(new State) {
        const auto frame = std::exchange(coro.frame, nullptr);
        frame.promise().task = state_;
        state_->frame = frame;
        ready.push(state_);
    }
    Task(Task&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
    Task& operator=(Task&&) = delete;
    ~Task() {
        if (state_ != nullptr) state_->release();
    }

    bool done() const { return state_->done; }
    const bool& done_flag() const { return state_->done; }
    void cancel() {
        Sleep* asleep = std::exchange(state_->asleep, nullptr);
        timers.remove(asleep);
        ready.push(asleep);
    }

    struct Join : Node {
        explicit Join(State* state) : task(state) {}
        bool await_ready() noexcept { return task->done; }
        void await_suspend(std::coroutine_handle<> handle) noexcept {
            frame = handle;
            task->waiter = this;
        }
        void await_resume() {
            if (task->failure) [[unlikely]]
                std::rethrow_exception(task->failure);
        }
        State* task;
    };
    Join operator co_await() const noexcept { return Join{state_}; }

  private:
    State* state_;
};

inline void run(Coro main) {
    const Task task(std::move(main));
    run_until(task.done_flag());
}

// ---- Locks, events and queues

// Permits: what is given back goes to the first who waits, so that nobody comes in between. A lock
// is one permit.
class Semaphore {
  public:
    explicit Semaphore(std::size_t permits) : permits_(permits) {}

    struct Acquire : Node {
        explicit Acquire(Semaphore& s) : semaphore(s) {}
        bool await_ready() noexcept {
            if (semaphore.permits_ == 0) return false;
            --semaphore.permits_;
            return true;
        }
        void await_suspend(std::coroutine_handle<> handle) noexcept {
            frame = handle;
            semaphore.waiting_.push(this);
        }
        void await_resume() noexcept {}
        Semaphore& semaphore;
    };
    Acquire acquire() { return Acquire(*this); }
    void release() {
        if (waiting_.head != nullptr) {
            ready.push(waiting_.pop());
        } else {
            ++permits_;
        }
    }

  private:
    std::size_t permits_;
    Queue waiting_;
};

class Event {
  public:
    struct Wait : Node {
        explicit Wait(Event& e) : event(e) {}
        bool await_ready() noexcept { return event.is_set_; }
        void await_suspend(std::coroutine_handle<> handle) noexcept {
            frame = handle;
            event.waiting_.push(this);
        }
        void await_resume() noexcept {}
        Event& event;
    };
    Wait wait() { return Wait(*this); }
    void set() {
        is_set_ = true;
        ready.append_all_of(waiting_);
    }
    void clear() { is_set_ = false; }

  private:
    bool is_set_ = false;
    Queue waiting_;
};

// A ring, the room in it and what is in it. `capacity` is a power of two.
template <class T, std::size_t capacity> class Channel {
  public:
    struct Put : Semaphore::Acquire {
        Put(Channel& c, T i) : Semaphore::Acquire(c.room_), channel(c), item(i) {}
        void await_resume() noexcept {
            channel.ring_[channel.last_++ % capacity] = item;
            channel.items_.release();
        }
        Channel& channel;
        T item;
    };
    struct Get : Semaphore::Acquire {
        explicit Get(Channel& c) : Semaphore::Acquire(c.items_), channel(c) {}
        T await_resume() noexcept {
            const T item = channel.ring_[channel.first_++ % capacity];
            channel.room_.release();
            return item;
        }
        Channel& channel;
    };
    Put put(T item) { return Put(*this, item); }
    Get get() { return Get(*this); }

  private:
    T ring_[capacity];
    std::size_t first_ = 0;
    std::size_t last_ = 0;
    Semaphore room_{capacity};
    Semaphore items_{0};
};

// A task in one block, state and frame together, for the row that counts bytes: the handle keeps
// the frame alive.
struct OneBlock {
    struct promise_type : State {
        OneBlock get_return_object() {
            frame = std::coroutine_handle<promise_type>::from_promise(*this);
            ready.push(this);
            return OneBlock{this};
        }
        std::suspend_always initial_suspend() noexcept { return {}; }
        std::suspend_always final_suspend() noexcept {
            finish();
            return {};
        }
        void return_void() noexcept {}
        void unhandled_exception() noexcept { failure = std::current_exception(); }
    };
    State* task;
};

} // namespace bare
