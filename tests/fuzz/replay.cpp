// SPDX-License-Identifier: MIT
// Runs a fuzzer's function without libFuzzer, so that it is a test with every compiler:
//
//     asyncio_fuzz_streams_replay COUNT [SEED] [FILE...]
//
// calls it with each of the files, which libFuzzer has written down, and then with COUNT inputs
// that are drawn from the seed. Prints how many ran; none is a failure. An input that aborts is
// kept in the file found.input.
#include <charconv>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <unistd.h>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

std::vector<std::uint8_t> input;
const char* const found = "found.input";

// Async-signal-safe: keeps what has crashed, for the replay and for libFuzzer.
void keep(int) {
    const int file = ::open(found, O_CREAT | O_WRONLY | O_TRUNC, 0644);
    if (file >= 0 && ::write(file, input.data(), input.size()) >= 0) {
        constexpr char text[] = "the input was written to found.input\n";
        static_cast<void>(!::write(STDERR_FILENO, text, sizeof text - 1));
    }
    std::signal(SIGABRT, SIG_DFL);
}

void draw(std::mt19937_64& random) {
    const std::size_t size = 1 + random() % (random() % 4 == 0 ? 400 : 60);
    input.resize(size);
    for (std::uint8_t& byte : input) byte = static_cast<std::uint8_t>(random());
}

bool number(const char* text, std::uint64_t& value) {
    const char* const end = text + std::strlen(text);
    const auto read = std::from_chars(text, end, value);
    return read.ec == std::errc() && read.ptr == end;
}

} // namespace

int main(int count, char** arguments) {
    std::uint64_t inputs = 0;
    std::uint64_t seed = 1;
    if (count < 2 || !number(arguments[1], inputs) || (count > 2 && !number(arguments[2], seed))) {
        std::fprintf(stderr, "%s COUNT [SEED] [FILE...]\n", arguments[0]);
        return 2;
    }
    std::signal(SIGABRT, keep);
    std::uint64_t ran = 0;
    for (int i = 3; i < count; ++i) {
        std::ifstream file(arguments[i], std::ios::binary);
        if (!file) {
            std::fprintf(stderr, "cannot read %s\n", arguments[i]);
            return 2;
        }
        input.assign(std::istreambuf_iterator<char>(file), {});
        LLVMFuzzerTestOneInput(input.data(), input.size());
        ++ran;
    }
    std::mt19937_64 random(seed);
    for (std::uint64_t i = 0; i < inputs; ++i) {
        draw(random);
        LLVMFuzzerTestOneInput(input.data(), input.size());
        ++ran;
    }
    std::printf("%llu inputs, seed %llu\n", static_cast<unsigned long long>(ran),
                static_cast<unsigned long long>(seed));
    return ran > 0 ? 0 : 1;
}
