// SPDX-License-Identifier: MIT
#include "harness.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <spawn.h>
#include <stdexcept>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

// ---- Counting allocations: malloc itself is replaced, which catches operator new too

namespace {
// A plain increment, not an atomic one: the rows that count have one thread.
std::atomic<std::uint64_t> allocation_count;
void count_allocation() {
    allocation_count.store(allocation_count.load(std::memory_order_relaxed) + 1,
                           std::memory_order_relaxed);
}
} // namespace

#if defined(__GLIBC__)
extern "C" {
// glibc's own entry points, which stay reachable when a program replaces the public ones.
void* __libc_malloc(std::size_t size);
void* __libc_calloc(std::size_t count, std::size_t size);
void* __libc_realloc(void* block, std::size_t size);
void* __libc_memalign(std::size_t alignment, std::size_t size);

void* malloc(std::size_t size) {
    count_allocation();
    return __libc_malloc(size);
}
void* calloc(std::size_t count, std::size_t size) {
    count_allocation();
    return __libc_calloc(count, size);
}
void* realloc(void* block, std::size_t size) {
    count_allocation();
    return __libc_realloc(block, size);
}
void* aligned_alloc(std::size_t alignment, std::size_t size) {
    count_allocation();
    return __libc_memalign(alignment, size);
}
int posix_memalign(void** block, std::size_t alignment, std::size_t size) {
    count_allocation();
    *block = __libc_memalign(alignment, size);
    return *block == nullptr ? ENOMEM : 0;
}
}
#endif

namespace bench {
namespace {

constexpr const char* compiler =
#if defined(__clang__)
    "clang " __clang_version__;
#else
    "gcc " __VERSION__;
#endif

bool quick = false;
std::string_view running_side;
std::string_view running_row;

void print(const Measurement& measurement) {
    std::printf("{\"name\":\"%.*s\",\"side\":\"%.*s\",\"compiler\":\"%s\",\"quick\":%s,\"value\":%."
                "6g,\"unit\":\"%s\",\"raw\":[",
                static_cast<int>(running_row.size()), running_row.data(),
                static_cast<int>(running_side.size()), running_side.data(), compiler,
                quick ? "true" : "false", measurement.value, measurement.unit.c_str());
    const char* comma = "";
    for (double value : measurement.raw) {
        std::printf("%s%.6g", comma, value);
        comma = ",";
    }
    std::puts("]}");
    std::fflush(stdout);
}

std::string own_directory() {
    char path[4096];
    const ssize_t length = readlink("/proc/self/exe", path, sizeof path);
    if (length <= 0) throw std::runtime_error("cannot read /proc/self/exe");
    const std::string whole(path, static_cast<std::size_t>(length));
    return whole.substr(0, whole.rfind('/') + 1);
}

} // namespace

int run_program(int argc, char** argv, std::string_view side, std::span<const Row> rows) {
    running_side = side;
    for (int i = 1; i < argc; ++i) {
        if (std::string_view(argv[i]) == "--quick") quick = true;
    }
    if (argc > 1 && std::string_view(argv[1]) == "--list") {
        for (const Row& row : rows)
            std::printf("%.*s\n", static_cast<int>(row.name.size()), row.name.data());
        return 0;
    }
    if (argc > 3 && std::string_view(argv[1]) == "--start") {
        running_side = argv[2];
        running_row = "start";
        try {
            print(start_of_process(std::vector<std::string>(argv + 3, argv + argc)));
            return 0;
        } catch (const std::exception& error) {
            std::fprintf(stderr, "%s\n", error.what());
            return 1;
        }
    }
    for (const Row& row : rows) {
        if (argc < 2 || row.name != argv[1]) continue;
        running_row = row.name;
        try {
            print(row.measure());
            return 0;
        } catch (const std::exception& error) {
            std::fprintf(stderr, "%s %s: %s\n", argv[0], argv[1], error.what());
            return 1;
        }
    }
    std::fprintf(stderr, "usage: %s ROW [--quick] | --list\n", argv[0]);
    return 2;
}

void report_and_exit(const Measurement& measurement) {
    print(measurement);
    _exit(0);
}

std::size_t scaled(std::size_t count) {
    return quick ? std::max<std::size_t>(count / 10, 1) : count;
}

double resident_bytes() {
    std::FILE* file = std::fopen("/proc/self/statm", "r");
    if (file == nullptr) throw std::runtime_error("cannot open /proc/self/statm");
    long total = 0;
    long resident = 0;
    const int fields = std::fscanf(file, "%ld %ld", &total, &resident);
    std::fclose(file);
    if (fields != 2) throw std::runtime_error("cannot read /proc/self/statm");
    return static_cast<double>(resident) * static_cast<double>(sysconf(_SC_PAGESIZE));
}

std::uint64_t allocations() { return allocation_count.load(std::memory_order_relaxed); }

std::int64_t write_calls() {
    std::FILE* file = std::fopen("/proc/self/io", "r");
    if (file == nullptr) return -1;
    char line[128];
    long long calls = -1;
    while (std::fgets(line, sizeof line, file) != nullptr) {
        if (std::strncmp(line, "syscw: ", 7) == 0) calls = std::atoll(line + 7);
    }
    std::fclose(file);
    return calls;
}

IdleSocket::IdleSocket() {
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends_) != 0) {
        throw std::runtime_error("socketpair failed");
    }
}

IdleSocket::~IdleSocket() {
    close(ends_[0]);
    close(ends_[1]);
}

Measurement start_of_process(std::vector<std::string> command) {
    if (command[0].find('/') == std::string::npos) command[0].insert(0, own_directory());
    const std::string& path = command[0];
    std::vector<char*> arguments;
    for (std::string& word : command) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    std::vector<double> raw;
    for (int i = 0; i < 21; ++i) {
        int ends[2];
        if (pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("pipe2 failed");
        posix_spawn_file_actions_t actions;
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
        pid_t child = 0;
        const std::int64_t began = monotonic_ns();
        const int failed =
            posix_spawn(&child, path.c_str(), &actions, nullptr, arguments.data(), environ);
        posix_spawn_file_actions_destroy(&actions);
        close(ends[1]);
        std::int64_t reached = 0;
        const bool reported =
            failed == 0 && read(ends[0], &reached, sizeof reached) == sizeof reached;
        close(ends[0]);
        if (failed == 0) waitpid(child, nullptr, 0);
        if (!reported) throw std::runtime_error("cannot start " + path);
        if (i > 0) raw.push_back(static_cast<double>(reached - began) * 1e-6);
    }
    return Measurement{median(raw), "ms", raw};
}

void report_first_callback() {
    const std::int64_t now = monotonic_ns();
    if (write(STDOUT_FILENO, &now, sizeof now) != sizeof now) _exit(1);
}

double median(std::vector<double> values) {
    if (values.empty()) return 0;
    std::sort(values.begin(), values.end());
    const std::size_t middle = values.size() / 2;
    return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

} // namespace bench
