// SPDX-License-Identifier: MIT
// Runs a test's body in a process of its own, for what signals do to a process.
//
//     Process child([](Process::Parent& parent) -> int { parent.tell("ready"); ... return 0; });
//     EXPECT_EQ(child.line(), "ready");
//     child.interrupt();
//     EXPECT_EQ(child.wait(), "killed by SIGINT");
//
// The body begins with SIGINT at its default action, whatever the test was started with. What it
// throws is caught by nobody, as in main(). A child that hangs is killed after a minute, and with
// the test.
#pragma once

#include <gtest/gtest.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <utility>

#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

extern "C" __attribute__((weak)) int __lsan_do_recoverable_leak_check();

namespace asyncio_test {

inline void set_sigint(void (*handler)(int), int flags = 0) {
    struct sigaction action = {};
    action.sa_handler = handler;
    action.sa_flags = flags;
    ::sigaction(SIGINT, &action, nullptr);
}
inline struct sigaction sigint_action() {
    struct sigaction action = {};
    ::sigaction(SIGINT, nullptr, &action);
    return action;
}
inline void block_sigint(bool blocked) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    ::pthread_sigmask(blocked ? SIG_BLOCK : SIG_UNBLOCK, &set, nullptr);
}

class Process {
  public:
    // The way back to the test.
    class Parent {
      public:
        explicit Parent(int descriptor) noexcept : descriptor_(descriptor) {}
        void tell(const std::string& text) const {
            const std::string line = text + "\n";
            if (::write(descriptor_, line.data(), line.size()) < 0) ::_exit(98);
        }
        int descriptor() const noexcept { return descriptor_; }

      private:
        int descriptor_;
    };

    template <class Body> explicit Process(Body body) {
        int ends[2] = {-1, -1};
        if (::pipe(ends) != 0) std::abort();
        std::fflush(nullptr);
        pid_ = ::fork();
        if (pid_ == 0) {
            ::close(ends[0]);
            child(Parent(ends[1]), body);
        }
        ::close(ends[1]);
        from_child_ = ends[0];
        EXPECT_GT(pid_, 0);
    }
    ~Process() {
        if (!waited_) {
            ::kill(pid_, SIGKILL);
            wait();
        }
        ::close(from_child_);
    }
    Process(const Process&) = delete;
    Process& operator=(const Process&) = delete;

    // The next line that the child has told; empty when it has ended.
    std::string line() const {
        std::string text;
        for (;;) {
            char c = 0;
            const ssize_t count = ::read(from_child_, &c, 1);
            if (count < 0 && errno == EINTR) continue;
            if (count <= 0 || c == '\n') return text;
            text += c;
        }
    }
    // All that is left, when the child has ended: "first second".
    std::string rest() const {
        std::string all;
        for (std::string text = line(); !text.empty(); text = line()) {
            all += (all.empty() ? "" : " ") + text;
        }
        return all;
    }
    void interrupt() const { ::kill(pid_, SIGINT); }
    // Returns when the child blocks in the kernel, having told what it had to tell.
    void wait_until_blocked() const {
        for (;;) {
            std::ifstream file("/proc/" + std::to_string(pid_) + "/stat");
            std::string text;
            std::getline(file, text);
            const std::size_t end = text.rfind(')');
            if (end == std::string::npos || text.substr(end + 2, 1) == "S") return;
            ::sched_yield();
        }
    }
    // "exited with 0", "killed by SIGINT", "killed by signal 11".
    std::string wait() {
        int status = 0;
        waited_ = true;
        while (::waitpid(pid_, &status, 0) < 0) {
            if (errno != EINTR) return "lost";
        }
        if (WIFEXITED(status)) return "exited with " + std::to_string(WEXITSTATUS(status));
        if (WTERMSIG(status) == SIGINT) return "killed by SIGINT";
        return "killed by signal " + std::to_string(WTERMSIG(status));
    }

  private:
    template <class Body> [[gnu::noinline]] static int call(Body& body, Parent& parent) {
        return body(parent);
    }
    // In a function of its own: GCC 12 forgets the exception on its way to std::terminate if what
    // throws is inlined into what must not.
    template <class Body> [[gnu::noinline]] static int run(Body& body, Parent& parent) noexcept {
        return call(body, parent);
    }
    template <class Body> [[noreturn]] static void child(Parent parent, Body& body) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        ::alarm(60);
        const rlimit no_core = {0, 0};
        ::setrlimit(RLIMIT_CORE, &no_core);
        set_sigint(SIG_DFL);
        block_sigint(false);
        int status = run(body, parent);
        if (__lsan_do_recoverable_leak_check != nullptr && __lsan_do_recoverable_leak_check() != 0)
            status = 97;
        std::fflush(nullptr);
        ::_exit(status);
    }

    pid_t pid_ = -1;
    int from_child_ = -1;
    bool waited_ = false;
};

} // namespace asyncio_test
