// SPDX-License-Identifier: MIT
#include <asyncio/exceptions.hpp>
#include <asyncio/kernel/backend.hpp>

#include <cerrno>
#include <pthread.h>
#include <string>
#include <sys/eventfd.h>
#include <system_error>
#include <unordered_map>
#include <vector>

ASYNCIO_BEGIN_NAMESPACE

Backend::~Backend() = default;

namespace {

[[noreturn]] void fail(int error, const std::string& what) {
    throw std::system_error(error, std::generic_category(), what);
}

// How many forks lie between the first process and this one.
int generation = 0;

class EpollBackend final : public Backend {
  public:
    explicit EpollBackend(const SystemCalls& calls) : Backend(calls) {
        static const int child_is_another =
            ::pthread_atfork(nullptr, nullptr, [] { ++generation; });
        static_cast<void>(child_is_another);
        generation_ = generation;
        epoll_ = calls_.epoll_create1(EPOLL_CLOEXEC);
        if (epoll_ < 0) fail(errno, "epoll_create1");
        wake_ = calls_.eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (wake_ < 0) {
            const int error = errno;
            calls_.close(epoll_);
            fail(error, "eventfd");
        }
        // Edge-triggered: a wake-up is seen once and the counter need never be read back.
        epoll_event event{.events = EPOLLIN | EPOLLET, .data = {.u64 = number(wake_)}};
        if (calls_.epoll_ctl(epoll_, EPOLL_CTL_ADD, wake_, &event) != 0) {
            const int error = errno;
            calls_.close(wake_);
            calls_.close(epoll_);
            fail(error, "epoll_ctl for the wake-up descriptor");
        }
        poll_ = calls_.epoll_wait;
        poll_descriptor_ = epoll_;
        poll_events_ = events_;
        poll_capacity_ = capacity;
    }

    ~EpollBackend() override {
        calls_.close(wake_);
        calls_.close(epoll_);
    }

    EpollBackend(const EpollBackend&) = delete;
    EpollBackend& operator=(const EpollBackend&) = delete;

    const char* name() const noexcept override { return "epoll"; }

    void watch(int descriptor, Watcher* reader, Watcher* writer) override {
        if (reader == nullptr && writer == nullptr) {
            forget(descriptor);
            return;
        }
        if (is_attached(descriptor)) throw_in_use(descriptor);
        const auto [entry, is_new] = watched_.try_emplace(descriptor);
        const std::uint32_t events = (reader != nullptr ? std::uint32_t{EPOLLIN} : 0U) |
                                     (writer != nullptr ? std::uint32_t{EPOLLOUT} : 0U);
        if (const int error = control(is_new ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, descriptor, events)) {
            if (is_new) watched_.erase(entry);
            std::string what = "watching descriptor " + std::to_string(descriptor);
            if (error == EPERM) what += " (a regular file is always ready; read it directly)";
            fail(error, what);
        }
        entry->second = {reader, writer};
        if (is_new) ++watched_count_;
    }

    void attach(int descriptor, detail::Edges& edges) override {
        const auto index = static_cast<std::size_t>(descriptor);
        if (watched_.contains(descriptor) || is_attached(descriptor)) throw_in_use(descriptor);
        if (index >= attached_.size()) attached_.resize(index + index / 2 + 16);
        epoll_event event{.events = EPOLLIN | EPOLLPRI | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                          .data = {.ptr = &edges}};
        if (calls_.epoll_ctl(epoll_, EPOLL_CTL_ADD, descriptor, &event) != 0) {
            fail(errno, "watching descriptor " + std::to_string(descriptor));
        }
        attached_[index] = true;
        ++watched_count_;
    }

    void detach(int descriptor) noexcept override {
        attached_[static_cast<std::size_t>(descriptor)] = false;
        --watched_count_;
        // Not left to close(): the socket may live on in a copy of the descriptor, in a child.
        remove(descriptor);
    }

    void wake() noexcept override {
        const std::uint64_t one = 1;
        // EAGAIN means that the counter is full: then the write of 1 is no new edge, and the
        // counter is emptied first.
        while (calls_.write(wake_, &one, sizeof one) < 0) {
            if (errno == EINTR) continue;
            if (errno != EAGAIN) break;
            std::uint64_t drained = 0;
            if (calls_.read(wake_, &drained, sizeof drained) < 0 && errno != EAGAIN &&
                errno != EINTR)
                break;
        }
    }

  private:
    // How an event tells a descriptor that is watched from Edges, whose address is even.
    static std::uint64_t number(int descriptor) noexcept {
        return static_cast<std::uint64_t>(descriptor) << 1 | 1;
    }
    bool is_attached(int descriptor) const noexcept {
        const auto index = static_cast<std::size_t>(descriptor);
        return index < attached_.size() && attached_[index];
    }
    [[noreturn]] static void throw_in_use(int descriptor) {
        throw RuntimeError("descriptor " + std::to_string(descriptor) +
                           " is in use already, by a socket, a stream or a transport, or by "
                           "add_reader() or add_writer()");
    }

    struct Watchers {
        Watcher* reader = nullptr;
        Watcher* writer = nullptr;
    };

    void tell_each(int count, detail::ReadyQueue& ready) override {
        if (count < 0) {
            if (errno == EINTR) return;
            fail(errno, "epoll_wait");
        }
        tell_edges(events_, events_ + count, ready);
    }

    // The events that are the way of every message. Calls nobody, but for the rest at the first
    // that is another one.
    void tell_edges(const epoll_event* next, const epoll_event* end, detail::ReadyQueue& ready) {
        static_assert(detail::Edges::unreadable == EPOLLIN &&
                      detail::Edges::unwritable == EPOLLOUT);
        for (; next != end; ++next) {
            const std::uint64_t data = next->data.u64;
            const std::uint32_t events = next->events;
            if ((data & 1) != 0 || (events & ~std::uint32_t{EPOLLIN | EPOLLOUT}) != 0)
                [[unlikely]] {
                tell_rest(next, end, ready);
                return;
            }
            auto& edges = *reinterpret_cast<detail::Edges*>(data);
            edges.clear(events);
            if ((events & EPOLLIN) != 0) edges.lists[0].queue_all(ready);
            if (edges.lists[1].first != nullptr && (events & EPOLLOUT) != 0)
                edges.lists[1].queue_all(ready);
        }
    }

    ASYNCIO_NOINLINE void tell_rest(const epoll_event* next, const epoll_event* end,
                                    detail::ReadyQueue& ready) {
        for (; next != end; ++next) {
            const std::uint64_t data = next->data.u64;
            if ((data & 1) != 0) {
                tell_watchers(static_cast<int>(data >> 1), next->events, ready);
            } else {
                tell_both(*reinterpret_cast<detail::Edges*>(data), next->events, ready);
            }
        }
    }

    // An error is told to both, who learn it from their own calls; it ends nothing by itself: a
    // socket of datagrams goes on, and a reset hangs up as well.
    static void tell_both(detail::Edges& edges, std::uint32_t events,
                          detail::ReadyQueue& ready) noexcept {
        if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLPRI)) != 0) edges.set(detail::Edges::reads_on);
        if ((events & (EPOLLRDHUP | EPOLLHUP)) != 0) edges.set(detail::Edges::hangup);
        if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0)
            edges.became_readable(ready);
        if ((events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0) edges.became_writable(ready);
    }

    void tell_watchers(int descriptor, std::uint32_t events, detail::ReadyQueue& ready) {
        const auto entry = watched_.find(descriptor);
        if (entry == watched_.end()) return;
        // An error or a hang-up is told to both, who learn it from their own calls.
        if ((events & ~std::uint32_t{EPOLLOUT}) != 0 && entry->second.reader != nullptr)
            entry->second.reader->descriptor_ready(ready);
        if ((events & ~std::uint32_t{EPOLLIN}) != 0 && entry->second.writer != nullptr)
            entry->second.writer->descriptor_ready(ready);
    }

    int wait_for(std::int64_t timeout_ns) override {
        if (has_pwait2_) {
            const timespec timeout{.tv_sec = timeout_ns / 1'000'000'000,
                                   .tv_nsec = timeout_ns % 1'000'000'000};
            const int count = calls_.epoll_pwait2(epoll_, events_, capacity, &timeout, nullptr);
            // ENOSYS: Linux 5.10. EPERM: a system-call filter older than the call.
            if (count >= 0 || (errno != ENOSYS && errno != EPERM)) return count;
            has_pwait2_ = false;
        }
        constexpr std::int64_t most = 86'400'000; // a day; the loop comes round again
        const std::int64_t rounded = timeout_ns / 1'000'000 + (timeout_ns % 1'000'000 != 0 ? 1 : 0);
        return calls_.epoll_wait(epoll_, events_, capacity,
                                 static_cast<int>(rounded < most ? rounded : most));
    }

    // 0 or an errno. A descriptor that was closed without being forgotten has left epoll by itself,
    // and its number may have come back: then what the table believes is put right.
    int control(int operation, int descriptor, std::uint32_t events) noexcept {
        epoll_event event{.events = events, .data = {.u64 = number(descriptor)}};
        if (calls_.epoll_ctl(epoll_, operation, descriptor, &event) == 0) return 0;
        if (operation == EPOLL_CTL_MOD && errno == ENOENT) {
            operation = EPOLL_CTL_ADD;
        } else if (operation == EPOLL_CTL_ADD && errno == EEXIST) {
            operation = EPOLL_CTL_MOD;
        } else {
            return errno;
        }
        return calls_.epoll_ctl(epoll_, operation, descriptor, &event) == 0 ? 0 : errno;
    }

    void forget(int descriptor) noexcept {
        const auto entry = watched_.find(descriptor);
        if (entry == watched_.end()) return;
        watched_.erase(entry);
        --watched_count_;
        remove(descriptor);
    }

    // Fails if the descriptor is closed already, which is as good. Not in a forked child, which
    // has a copy of the descriptor and of this, but shares the epoll itself with its parent.
    void remove(int descriptor) noexcept {
        if (generation_ != generation) return;
        epoll_event unused{};
        calls_.epoll_ctl(epoll_, EPOLL_CTL_DEL, descriptor, &unused);
    }

    int epoll_ = -1;
    int wake_ = -1;
    int generation_ = 0;
    bool has_pwait2_ = true;
    std::unordered_map<int, Watchers> watched_;
    std::vector<bool> attached_; // by descriptor
    static constexpr int capacity = 256;
    epoll_event events_[capacity]; // what one wait() finds
};

} // namespace

std::unique_ptr<Backend> make_epoll_backend(const SystemCalls& calls) {
    return std::make_unique<EpollBackend>(calls);
}

ASYNCIO_END_NAMESPACE
