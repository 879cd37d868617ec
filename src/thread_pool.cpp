// SPDX-License-Identifier: MIT
#include <asyncio/detail/thread_pool.hpp>
#include <asyncio/runners.hpp>

#include <algorithm>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <mutex>
#include <pthread.h>
#include <sched.h>
#include <string>
#include <system_error>
#include <unistd.h>
#include <utility>
#include <vector>

ASYNCIO_BEGIN_NAMESPACE
namespace detail {
namespace {

constexpr int shutdown_limit_s = 300; // constants.THREAD_JOIN_TIMEOUT

std::size_t count_processors() noexcept {
    cpu_set_t ours;
    if (::sched_getaffinity(0, sizeof ours, &ours) == 0) {
        return static_cast<std::size_t>(CPU_COUNT(&ours));
    }
    const long online = ::sysconf(_SC_NPROCESSORS_ONLN); // more of them than a cpu_set_t has
    return online > 0 ? static_cast<std::size_t>(online) : 1;
}

// All but those by which a thread is told of its own faults.
sigset_t signals_to_block() noexcept {
    sigset_t set;
    ::sigfillset(&set);
    for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT}) {
        ::sigdelset(&set, fault);
    }
    return set;
}

} // namespace

struct ThreadPool::Shared {
    struct Worker {
        pthread_t thread = {};
        ThreadJob* job = nullptr; // at which it works
        bool detached = false;    // it works on when the loop is gone
    };
    struct Start {
        std::shared_ptr<Shared> shared;
        Worker& self;
        std::size_t number;
    };

    // Requires the mutex.
    void append(ThreadJob& job) noexcept {
        job.queued_ = true;
        job.next_ = nullptr;
        job.previous_ = last;
        (last != nullptr ? last->next_ : first) = &job;
        last = &job;
        ++queued;
    }
    void remove(ThreadJob& job) noexcept {
        job.queued_ = false;
        (job.previous_ != nullptr ? job.previous_->next_ : first) = job.next_;
        (job.next_ != nullptr ? job.next_->previous_ : last) = job.previous_;
        --queued;
    }

    void serve(Worker& self) noexcept;
    static void* thread_main(void* argument) noexcept;

    std::mutex mutex; // guards all of this
    std::condition_variable changed;
    EventLoop* loop; // null: it is gone, or just about to go
    ThreadJob* first = nullptr;
    ThreadJob* last = nullptr;
    std::size_t queued = 0;
    std::size_t idle = 0;
    ReadyQueue returned; // when the loop's door was closed already
    std::vector<Worker> workers;
};

void* ThreadPool::Shared::thread_main(void* argument) noexcept {
    const std::unique_ptr<Start> start(static_cast<Start*>(argument));
    char name[16];
    std::snprintf(name, sizeof name, "asyncio_%zu", start->number);
    ::pthread_setname_np(::pthread_self(), name);
    start->shared->serve(start->self);
    return nullptr;
}

void ThreadPool::Shared::serve(Worker& self) noexcept {
    std::unique_lock lock(mutex);
    for (;;) {
        while (first == nullptr && loop != nullptr) {
            ++idle;
            changed.wait(lock);
            --idle;
        }
        if (loop == nullptr) return;
        ThreadJob& job = *first;
        remove(job);
        self.job = &job;
        lock.unlock();
        job.work();
        lock.lock();
        self.job = nullptr;
        if (loop == nullptr) {
            lock.unlock();
            delete &job;
            return;
        }
        // With the mutex, which a loop needs before it may go.
        if (!loop->enter_from_any_thread(job)) returned.push(job);
    }
}

ThreadJob::~ThreadJob() = default;

void ThreadJob::run() {
    const std::unique_ptr<ThreadJob> at_end(this);
    pool_->came_back(*this);
    finished();
}

void ThreadJob::discard() noexcept {
    const std::unique_ptr<ThreadJob> at_end(this);
    pool_->came_back(*this);
    let_go();
}

ThreadPool& ThreadPool::of(EventLoop& loop) {
    auto& step = loop.core().shutdown_steps[shutdown_default_executor];
    if (step == nullptr) step = std::make_unique<ThreadPool>(loop);
    return static_cast<ThreadPool&>(*step);
}

ThreadPool::ThreadPool(EventLoop& loop)
    : loop_(loop), limit_(std::min<std::size_t>(32, count_processors() + 4)), process_(::getpid()),
      shared_(std::make_shared<Shared>()) {
    shared_->loop = &loop;
    shared_->workers.reserve(limit_); // they must not move
}

ThreadPool::~ThreadPool() {
    if (is_copy()) return; // nobody can tell in which state the threads' fork left what they share
    ReadyQueue dropped;
    {
        const std::lock_guard lock(shared_->mutex);
        shared_->loop = nullptr;
        while (!shared_->returned.empty()) dropped.push(shared_->returned.pop());
        while (shared_->first != nullptr) {
            ThreadJob& job = *shared_->first;
            shared_->remove(job);
            dropped.push(job);
        }
        for (Shared::Worker& worker : shared_->workers) {
            if (worker.job == nullptr) continue;
            came_back(*worker.job);
            worker.job->let_go();
            worker.detached = true;
            ::pthread_detach(worker.thread);
        }
    }
    shared_->changed.notify_all();
    for (const Shared::Worker& worker : shared_->workers) {
        if (!worker.detached) ::pthread_join(worker.thread, nullptr); // idle: it ends at once
    }
    while (!dropped.empty()) dropped.pop().discard();
}

bool ThreadPool::is_copy() const noexcept { return process_ != ::getpid(); }

std::size_t ThreadPool::thread_count() const noexcept { return shared_->workers.size(); }

// Returns 0, or an error number. Requires the mutex.
int ThreadPool::start_thread() {
    auto& workers = shared_->workers;
    auto& self = workers.emplace_back();
    std::unique_ptr<Shared::Start> start;
    try {
        start.reset(new Shared::Start{shared_, self, workers.size() - 1});
    } catch (...) {
        workers.pop_back();
        throw;
    }
    const sigset_t blocked = signals_to_block();
    sigset_t before;
    ::pthread_sigmask(SIG_BLOCK, &blocked, &before);
    const int error = loop_.backend().calls().pthread_create(&self.thread, nullptr,
                                                             &Shared::thread_main, start.get());
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    if (error != 0) {
        workers.pop_back();
    } else {
        static_cast<void>(start.release()); // NOLINT(bugprone-unused-return-value): the thread's
    }
    return error;
}

void ThreadPool::submit(std::unique_ptr<ThreadJob> job, AtShutdown at_shutdown) {
    loop_.throw_if_closed();
    if (is_copy()) {
        throw RuntimeError("this loop belongs to the process that was forked, and has no threads "
                           "here: make another with new_event_loop()");
    }
    if (is_shut_down_) {
        throw RuntimeError("Executor shutdown has been called: the loop is about to close, and "
                           "starts no more work on threads");
    }
    job->pool_ = this;
    job->waited_for_ = at_shutdown == AtShutdown::wait;
    {
        const std::lock_guard lock(shared_->mutex);
        if (shared_->queued >= shared_->idle && shared_->workers.size() < limit_) {
            const int error = start_thread();
            if (error != 0 && shared_->workers.empty()) {
                throw std::system_error(error, std::generic_category(),
                                        "cannot start a thread for work that would block the loop "
                                        "(see ulimit -u, and the limits of the container)");
            }
        }
        if (job->waited_for_) {
            ++waited_for_;
            ++loop_.core().outside_jobs;
        }
        shared_->append(*job.release());
    }
    shared_->changed.notify_one();
}

bool ThreadPool::withdraw(ThreadJob& job) noexcept {
    if (is_copy()) return false;
    {
        const std::lock_guard lock(shared_->mutex);
        if (!job.queued_) return false;
        shared_->remove(job);
    }
    came_back(job);
    delete &job;
    return true;
}

void ThreadPool::came_back(ThreadJob& job) noexcept {
    if (!std::exchange(job.waited_for_, false)) return;
    --loop_.core().outside_jobs;
    if (--waited_for_ == 0 && all_are_back_.valid() && !all_are_back_.done()) {
        all_are_back_.set_result();
    }
}

void ThreadPool::shut_down(EventLoop& loop) {
    is_shut_down_ = true;
    if (waited_for_ == 0 || is_copy()) return;
    struct AtEnd {
        ThreadPool& pool;
        TimerHandle limit;
        ~AtEnd() {
            limit.cancel();
            pool.all_are_back_ = Future<>();
        }
    };
    const Future<> done = create_future(loop);
    all_are_back_ = done;
    const AtEnd at_end{*this, loop.call_later(shutdown_limit_s, [done] {
                           if (!done.done()) done.set_result();
                       })};
    run_until_complete(loop, done);
    if (waited_for_ == 0) return;
    loop.call_exception_handler({
        .message = "the executor did not finish joining its threads within " +
                   std::to_string(shutdown_limit_s) +
                   " seconds: what they do goes on, and nobody waits for it any more",
    });
}

} // namespace detail
ASYNCIO_END_NAMESPACE
