// SPDX-License-Identifier: MIT
// Programs of others, for tests that speak with them.
//
//     ASYNCIO_NEED("socat", "socat");
//     run_limited([]() -> Coro<> {
//         auto socat = start("socat - TCP4:127.0.0.1:" + std::to_string(port));
//         co_await socat->open();
//         socat->in().write("hello");
//         std::string answer = co_await socat->out().readexactly(5);
//         co_await expect_success(*socat);
//     });
//
// Standard input and output of the program are a pair of streams; what it says on standard error is
// kept for messages, or comes with its output. It is killed with its Program, with the test, and
// after a minute.
#pragma once

#include "support/some_bytes.hpp"

#include <asyncio/asyncio.hpp>
#include <gtest/gtest.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <memory>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

// Skips the test where a program is missing: its name, and the Debian package that has it.
#define ASYNCIO_NEED(program, package)                                                             \
    if (asyncio_test::path_of(program).empty())                                                    \
    GTEST_SKIP() << program << " is not installed; on Debian: apt-get install " << (package)

namespace asyncio_test {

// Where a program is; empty: nowhere. The system's own comes first, since a python3 of somebody's
// may be a script that starts another.
inline std::string path_of(std::string_view program) {
    const char* const path = std::getenv("PATH");
    std::istringstream folders("/usr/bin:/usr/sbin:/usr/local/sbin:" +
                               std::string(path != nullptr ? path : ""));
    for (std::string folder; std::getline(folders, folder, ':');) {
        const std::string file = folder + "/" + std::string(program);
        if (::access(file.c_str(), X_OK) == 0) return file;
    }
    return {};
}

// No test of these waits longer than this for anything.
inline constexpr std::chrono::seconds time_limit{20};

// asyncio.run() of a coroutine function, which must come to its end in time.
template <class Main> void run_limited(Main main) {
    asyncio::run([&]() -> asyncio::Coro<> { co_await asyncio::wait_for(main(), time_limit); });
}

// One that nobody listens on, as far as one can know.
inline std::uint16_t free_port(int type = SOCK_STREAM) {
    asyncio::Socket socket(AF_INET, type);
    socket.bind(asyncio::Address("127.0.0.1", 0));
    return socket.getsockname().port();
}

enum class Errors { kept, with_output };

class Program {
  public:
    // Words with blanks between them; the first is searched by path_of().
    explicit Program(const std::string& command, Errors errors = Errors::kept) : command_(command) {
        std::vector<std::string> words;
        std::istringstream text(command);
        for (std::string word; text >> word;) words.push_back(word);
        words.at(0) = path_of(words.at(0));
        std::vector<char*> arguments;
        for (std::string& word : words) arguments.push_back(word.data());
        arguments.push_back(nullptr);

        errors_ = ::memfd_create("standard error", MFD_CLOEXEC);
        auto [ours, theirs] = asyncio::Socket::pair();
        const int end = theirs.fileno();
        const int flags = ::fcntl(end, F_GETFL);
        if (errors_ < 0 || ::fcntl(end, F_SETFL, flags & ~O_NONBLOCK) != 0)
            throw std::system_error(errno, std::system_category(), command_);
        pid_ = ::fork();
        if (pid_ == 0) { // from here on only what is safe though other threads were forked away
            ::prctl(PR_SET_PDEATHSIG, SIGKILL);
            ::alarm(60);
            ::signal(SIGINT, SIG_DFL);
            ::signal(SIGPIPE, SIG_DFL);
            ::dup2(end, 0);
            ::dup2(end, 1);
            ::dup2(errors == Errors::kept ? errors_ : end, 2);
            ::execv(arguments[0], arguments.data());
            ::_exit(127);
        }
        if (pid_ < 0) throw std::system_error(errno, std::system_category(), command_);
        socket_ = std::move(ours);
    }
    ~Program() {
        if (pid_ > 0) {
            ::kill(pid_, SIGKILL);
            reap();
        }
        ::close(errors_);
    }
    Program(const Program&) = delete;
    Program& operator=(const Program&) = delete;

    // Before anything else.
    asyncio::Coro<> open() {
        asyncio::ConnectionOptions options;
        options.sock(std::move(socket_)).limit(1 << 20);
        streams_ = co_await asyncio::open_connection(options);
    }
    // What it says, and what it hears.
    const asyncio::StreamReader& out() const { return streams_.value().first; }
    const asyncio::StreamWriter& in() const { return streams_.value().second; }

    // The next line that contains this. Throws, with all it has said, if there is none.
    asyncio::Coro<std::string> line_with(std::string text) {
        std::string all;
        while (auto line = co_await out().next()) {
            if (line->find(text) != std::string::npos) co_return *line;
            all += *line;
        }
        throw std::runtime_error(command_ + " has not said \"" + text + "\" but: " + all +
                                 errors());
    }
    void signal(int number) const { ::kill(pid_, number); }
    // Waits until it has ended, with all that it still says in rest(): "exited with 0", "killed by
    // signal 9". It hears the end of its input first.
    asyncio::Coro<std::string> end() {
        if (!in().is_closing()) in().write_eof();
        rest_ = co_await out().read();
        co_return reap();
    }
    const std::string& rest() const noexcept { return rest_; }
    // What it has said on standard error so far.
    std::string errors() const {
        std::string text(1 << 16, '\0');
        const ssize_t count = ::pread(errors_, text.data(), text.size(), 0);
        text.resize(count > 0 ? static_cast<std::size_t>(count) : 0);
        return text;
    }

  private:
    std::string reap() {
        int status = 0;
        const pid_t pid = std::exchange(pid_, -1);
        while (::waitpid(pid, &status, 0) < 0) {
            if (errno != EINTR) return "lost";
        }
        if (WIFEXITED(status)) return "exited with " + std::to_string(WEXITSTATUS(status));
        return "killed by signal " + std::to_string(WTERMSIG(status));
    }

    std::string command_;
    pid_t pid_ = -1;
    int errors_ = -1;
    asyncio::Socket socket_;
    std::optional<asyncio::Streams> streams_;
    std::string rest_;
};

inline asyncio::Coro<std::unique_ptr<Program>> start(std::string command,
                                                     Errors errors = Errors::kept) {
    auto program = std::make_unique<Program>(command, errors);
    co_await program->open();
    co_return program;
}

// It ends well when it hears the end of its input, unless it has ended before.
inline asyncio::Coro<> expect_success(Program& program) {
    const std::string status = co_await program.end();
    EXPECT_EQ(status, "exited with 0") << program.errors() << program.rest();
}
// The same, and this line is the last that it says.
inline asyncio::Coro<> expect_last(Program& program, std::string line) {
    const std::string said = co_await program.out().readline();
    EXPECT_EQ(said, line);
    co_await expect_success(program);
    EXPECT_EQ(program.rest(), "");
}

// The number that follows the last of these characters in a line: "127.0.0.1:4711", "port 4711".
inline std::uint16_t number_after(const std::string& line, char character) {
    return static_cast<std::uint16_t>(std::stoi(line.substr(line.rfind(character) + 1)));
}

} // namespace asyncio_test
