// SPDX-License-Identifier: MIT
//
// What the benchmark programs share. A program is a list of rows; `program ROW` measures one row in
// a process of its own and prints one line of JSON. Costs of one operation are CPU time of the
// process, not wall time: a machine that is shared with others stretches the second, and hardly the
// first.
//
//     bench::Samples samples("ns");
//     while (samples.more()) {
//         samples.start();
//         do_something(n);
//         samples.stop(n);
//     }
//     return samples.median();
#pragma once

#include <cstddef>
#include <cstdint>
#include <ctime>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace bench {

// One figure: the value that counts, and what it was taken from.
struct Measurement {
    double value = 0;
    std::string unit;
    std::vector<double> raw;
};

struct Row {
    std::string_view name;
    Measurement (*measure)();
};

// Runs the row that the command line names. `--list` prints the names, `--quick` makes `scaled`
// divide by ten. `--start SIDE COMMAND...` measures the row `start` of any program.
int run_program(int argc, char** argv, std::string_view side, std::span<const Row> rows);

// Prints the line of the row that is running and leaves at once, without destructors: for a row
// that would have to wait for ten seconds of sleep otherwise.
[[noreturn]] void report_and_exit(const Measurement& measurement);

// `count`, or a tenth of it when the program was started with `--quick`.
std::size_t scaled(std::size_t count);

inline double seconds(clockid_t clock) {
    timespec now{};
    clock_gettime(clock, &now);
    return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

// User plus system time of all threads of this process, in seconds.
inline double cpu_seconds() { return seconds(CLOCK_PROCESS_CPUTIME_ID); }

inline std::int64_t monotonic_ns() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

// Resident bytes of this process.
double resident_bytes();

// Calls of malloc and its kin so far, those of `operator new` included.
std::uint64_t allocations();

// System calls so far that wrote something (to a file, a socket or an eventfd), all threads; -1
// where the kernel does not count them.
std::int64_t write_calls();

// One end of this pair can be registered as a socket on which nothing ever arrives.
class IdleSocket {
  public:
    IdleSocket();
    ~IdleSocket();
    IdleSocket(const IdleSocket&) = delete;
    IdleSocket& operator=(const IdleSocket&) = delete;
    int fd() const { return ends_[0]; }

  private:
    int ends_[2];
};

// Milliseconds from the start of a process to the moment that it reports with
// `report_first_callback`. A program without a slash is looked for beside this one.
Measurement start_of_process(std::vector<std::string> command);
void report_first_callback();

double median(std::vector<double> values);

// Keeps the compiler from carrying memory in registers across this point, or from leaving a store
// out.
inline void clobber() { asm volatile("" ::: "memory"); }

// A few batches of one operation; the first warms up and is not counted.
class Samples {
  public:
    explicit Samples(std::string unit, int batches = 7)
        : unit_(std::move(unit)), left_(batches + 1) {}

    bool more() { return left_-- > 0; }
    void start() { began_ = cpu_seconds(); }
    // Takes the time since `start`, in nanoseconds for each of `operations`.
    void stop(std::size_t operations) {
        add((cpu_seconds() - began_) * 1e9 / static_cast<double>(operations));
    }
    void add(double value) {
        if (warm_) raw_.push_back(value);
        warm_ = true;
    }
    Measurement median() const { return Measurement{bench::median(raw_), unit_, raw_}; }

  private:
    std::string unit_;
    std::vector<double> raw_;
    int left_;
    double began_ = 0;
    bool warm_ = false;
};

// A fast generator of numbers that look random: the rows ask for them between operations.
class Random {
  public:
    std::uint64_t next() {
        state_ ^= state_ << 13;
        state_ ^= state_ >> 7;
        state_ ^= state_ << 17;
        return state_;
    }

  private:
    std::uint64_t state_ = 0x9e3779b97f4a7c15;
};

} // namespace bench
