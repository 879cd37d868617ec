// SPDX-License-Identifier: MIT
// A loop's threads, for what would block it.
//
//     class Sum final : public ThreadJob {
//         void work() noexcept override { sum_ = add_up(numbers_); } // on a thread of the pool
//         void finished() override { future_.set_result(sum_); }     // on the loop's thread
//         ...
//     };
//     ThreadPool::of(loop).submit(std::make_unique<Sum>(...), ThreadPool::AtShutdown::wait);
//
// A job goes to a thread, works there, and comes back by the loop's door; the pool owns it from
// submit() on. A thread starts when there is a job and none is idle. A loop that closes meanwhile
// drops the jobs that no thread has begun. It waits for no other: such a job's thread works on, and
// then finds nobody to come back to.
#pragma once

#include <asyncio/detail/operation.hpp>
#include <asyncio/events.hpp>
#include <asyncio/futures.hpp>

#include <cstddef>
#include <memory>
#include <sys/types.h>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {

class ThreadPool;

class ASYNCIO_API ThreadJob : public Runnable {
  public:
    // On a thread of the pool or, if no thread has begun it, on the loop's.
    virtual ~ThreadJob();

    // On a thread of the pool, in which signals are blocked. May take as long as it likes, and
    // touches nothing of the loop.
    virtual void work() noexcept = 0;
    // On the loop's thread, in a turn after work() has returned; then the job is destroyed. Lets
    // nothing out but KeyboardInterrupt and SystemExit.
    virtual void finished() = 0;
    // On the loop's thread, in place of finished(): the loop closes, and work() may run meanwhile.
    // The job gives up what belongs to the loop, and is destroyed when its thread has done with it.
    // Must not call the pool.
    virtual void let_go() noexcept {}

  protected:
    ThreadJob() = default;

  private:
    friend class ThreadPool;

    void run() override;
    void discard() noexcept override;

    ThreadPool* pool_ = nullptr;
    ThreadJob* next_ = nullptr; // in the queue of those that no thread has begun
    ThreadJob* previous_ = nullptr;
    bool queued_ = false;
    bool waited_for_ = false;
};

// Belongs to the loop's thread. (concurrent.futures.ThreadPoolExecutor)
class ASYNCIO_API ThreadPool final : public ShutdownStep {
  public:
    // What the end of asyncio::run() does about a job that has not come back: a function of the
    // user's is waited for, as in Python, and keeps virtual time from passing; a look-up is not.
    enum class AtShutdown { wait, leave };

    // The pool of this loop, made by the first call.
    static ThreadPool& of(EventLoop& loop);

    explicit ThreadPool(EventLoop& loop);
    ~ThreadPool() override;

    // Throws RuntimeError once the pool is shut down, and std::system_error if there is no thread
    // and none can be started. If there are some but fewer than there might be, they have to do.
    void submit(std::unique_ptr<ThreadJob> job, AtShutdown at_shutdown);
    // Destroys a job that has not come back, if no thread has begun it yet.
    bool withdraw(ThreadJob& job) noexcept;

    // How many threads there may be: min(32, processors + 4).
    std::size_t limit() const noexcept { return limit_; }
    // How many there are.
    std::size_t thread_count() const noexcept;

    // Waits for the jobs that want it, but for no longer than five minutes, while the loop runs.
    void shut_down(EventLoop& loop) override;

  private:
    friend class ThreadJob;
    struct Shared; // what the threads know; outlives the pool if one of them is still at work

    // Of a process that was forked: the threads are not here.
    bool is_copy() const noexcept;
    int start_thread();
    void came_back(ThreadJob& job) noexcept;

    EventLoop& loop_;
    std::size_t limit_;
    pid_t process_;
    std::shared_ptr<Shared> shared_;
    std::size_t waited_for_ = 0; // jobs that a shutdown waits for
    Future<> all_are_back_;      // of a shutdown that waits
    bool is_shut_down_ = false;
};

} // namespace detail
ASYNCIO_END_NAMESPACE
