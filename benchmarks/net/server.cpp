// SPDX-License-Identifier: MIT
#include "server.hpp"

#include <cerrno>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sstream>
#include <stdexcept>
#include <string_view>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>
#include <utility>

namespace net {
namespace {

std::system_error failed(const std::string& what) { return {errno, std::generic_category(), what}; }

std::string in_words(const std::vector<std::string>& command) {
    std::string text;
    for (const std::string& word : command) text += (text.empty() ? "" : " ") + word;
    return text;
}

// The processors that this process may use, in their order.
const std::vector<std::size_t>& processors() {
    static const std::vector<std::size_t> list = [] {
        std::vector<std::size_t> allowed;
        cpu_set_t set;
        CPU_ZERO(&set);
        if (sched_getaffinity(0, sizeof set, &set) != 0) return allowed;
        for (std::size_t i = 0; i < CPU_SETSIZE; ++i) {
            if (CPU_ISSET(i, &set)) allowed.push_back(i);
        }
        return allowed;
    }();
    return list;
}
void use_processor(std::size_t number) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(number, &set);
    sched_setaffinity(0, sizeof set,
                      &set); // a machine that refuses has other figures, no wrong ones
}

// Starts a command with its standard output to `out`. It dies with this process, whatever happens.
pid_t start(const std::vector<std::string>& command, int out, bool is_server = false) {
    std::vector<char*> words;
    for (const std::string& word : command) words.push_back(const_cast<char*>(word.c_str()));
    words.push_back(nullptr);
    const pid_t child = fork();
    if (child < 0) throw failed("cannot start " + command[0]);
    if (child > 0) return child;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(out, STDOUT_FILENO);
    if (is_server && !processors().empty()) use_processor(processors().back());
    execvp(words[0], words.data());
    _exit(127);
}

struct Pipe {
    explicit Pipe(int flags) {
        int ends[2];
        if (pipe2(ends, flags) != 0) throw failed("cannot make a pipe");
        read = ends[0];
        write = ends[1];
    }
    ~Pipe() {
        if (read >= 0) close(read);
        close_write();
    }
    Pipe(const Pipe&) = delete;
    Pipe& operator=(const Pipe&) = delete;
    // Else who reads would never see the end.
    void close_write() {
        if (write >= 0) close(std::exchange(write, -1));
    }
    int read;
    int write;
};

} // namespace

ScratchFolder::ScratchFolder() {
    const char* where = std::getenv("TMPDIR");
    path_ = std::string(where != nullptr ? where : "/tmp") + "/asyncio_net.XXXXXX";
    if (mkdtemp(path_.data()) == nullptr) throw failed("cannot make a folder like " + path_);
}
ScratchFolder::~ScratchFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
}

bool on_path(const std::string& program) {
    const char* path = std::getenv("PATH");
    std::istringstream folders(path != nullptr ? path : "");
    for (std::string folder; std::getline(folders, folder, ':');) {
        if (access((folder + "/" + program).c_str(), X_OK) == 0) return true;
    }
    return false;
}

std::string output_of(const std::vector<std::string>& command) {
    Pipe out(O_CLOEXEC);
    const pid_t child = start(command, out.write);
    out.close_write();
    std::string text;
    char part[4096];
    ssize_t length = 0;
    while ((length = read(out.read, part, sizeof part)) > 0) {
        text.append(part, static_cast<std::size_t>(length));
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (status != 0) throw std::runtime_error("this command failed: " + in_words(command));
    return text;
}

void place_generator(bool beside_the_server) {
    const std::vector<std::size_t>& list = processors(); // before it is narrowed down
    if (!list.empty()) use_processor(beside_the_server ? list.back() : list.front());
}

Server::Server(std::vector<std::string> command, const std::string& mode, Under under)
    : under_(under) {
    command.push_back(mode);
    if (mode.starts_with("tls")) {
        // The same for all: a key on P-256, made anew.
        const std::string file = scratch_ / "certificate.pem";
        output_of({"openssl", "genpkey", "-algorithm", "EC", "-pkeyopt",
                   "ec_paramgen_curve:prime256v1", "-out", file});
        std::ofstream(file, std::ios::app)
            << output_of({"openssl", "req", "-x509", "-new", "-key", file, "-days", "2", "-subj",
                          "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"});
        command.push_back(file);
    }
    std::vector<std::string> whole;
    if (under == Under::callgrind) {
        whole = {"valgrind", "--tool=callgrind", "--callgrind-out-file=" + (scratch_ / "counts"),
                 "--log-file=" + (scratch_ / "valgrind.log")};
    } else if (under == Under::strace) {
        // -D: the server stays the child, and strace is one of its own, which ends after it.
        whole = {"strace", "-D", "-c", "-f", "-q", "-o", scratch_ / "counts"};
    }
    whole.insert(whole.end(), command.begin(), command.end());

    Pipe alive(0); // inherited, by what watches the server too
    fcntl(alive.read, F_SETFD, FD_CLOEXEC);
    Pipe out(O_CLOEXEC);
    process_ = start(whole, out.write, true);
    out.close_write();
    alive_ = std::exchange(alive.read, -1);
    try {
        port_ = read_port(out.read);
    } catch (const std::exception& error) {
        stop();
        throw std::runtime_error(in_words(whole) + ": " + error.what());
    }
    clock_getcpuclockid(process_, &clock_);
}

Server::~Server() { stop(); }

std::uint16_t Server::read_port(int out) const {
    std::string line;
    char letter = 0;
    pollfd readable{out, POLLIN, 0};
    while (true) {
        if (poll(&readable, 1, 30'000) != 1)
            throw std::runtime_error("prints no port in 30 seconds");
        if (read(out, &letter, 1) != 1) throw std::runtime_error("ended before it printed a port");
        if (letter == '\n') break;
        line += letter;
    }
    const int port = std::atoi(line.c_str());
    if (port <= 0 || port > 65535) throw std::runtime_error("prints no port, but '" + line + "'");
    return static_cast<std::uint16_t>(port);
}

double Server::cpu_seconds() const {
    timespec used{};
    if (clock_gettime(clock_, &used) != 0) throw failed("the server is gone");
    return static_cast<double>(used.tv_sec) + static_cast<double>(used.tv_nsec) * 1e-9;
}

void Server::stop() {
    if (process_ < 0) return;
    kill(process_, SIGTERM);
    pollfd gone{alive_, POLLIN, 0};
    if (poll(&gone, 1, 10'000) == 0) kill(process_, SIGKILL);
    waitpid(std::exchange(process_, -1), nullptr, 0);
    close(alive_);
}

double Server::stop_and_count() {
    stop();
    std::ifstream file(scratch_ / "counts");
    double counted = 0;
    for (std::string line; std::getline(file, line);) {
        std::istringstream words(line);
        std::string word;
        if (under_ == Under::callgrind && line.starts_with("totals:")) {
            words >> word >> counted;
        } else if (under_ == Under::strace && line.ends_with(" total")) {
            words >> word >> word >> word >> counted; // % time, seconds, usecs/call, calls
        }
    }
    if (counted == 0) {
        throw std::runtime_error("nothing was counted: does the server run under " +
                                 std::string(under_ == Under::strace ? "strace?" : "valgrind?"));
    }
    return counted;
}

} // namespace net
