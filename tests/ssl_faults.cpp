// SPDX-License-Identifier: MIT
// The system calls of streams over TLS fail, each at each position, or do less than they were asked
// for: then either all bytes are there, or an error is; nothing hangs and nothing leaks.
#include "support/some_bytes.hpp"
#include "support/tls_contexts.hpp"

#include <asyncio/asyncio.hpp>
#include <asyncio/ssl.hpp>
#include <asyncio/testing/fail_everywhere.hpp>
#include <gtest/gtest.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <unistd.h>

namespace ssl = asyncio::ssl;
using asyncio::Coro;
using asyncio::StreamReader;
using asyncio::StreamWriter;
using asyncio::testing::fail_everywhere;
using asyncio::testing::Fault;
using asyncio::testing::FaultOptions;
using asyncio::testing::FaultReport;
using asyncio::testing::Faults;
using asyncio::testing::FaultTally;
using asyncio::testing::SystemCall;

namespace {

std::string_view known_bytes(std::size_t size) {
    static const std::string all = asyncio_test::some_bytes(std::size_t{1} << 20);
    return std::string_view(all).substr(0, size);
}

struct Contexts {
    ssl::Context client = asyncio_test::client_context();
    ssl::Context server = asyncio_test::server_context();
};
const Contexts& contexts() {
    static const Contexts made;
    return made;
}

Coro<> write_all(StreamWriter writer, std::string_view data) {
    constexpr std::size_t most = 50'000;
    for (std::size_t done = 0; done < data.size(); done += most) {
        writer.write(data.substr(done, most));
        co_await writer.drain();
    }
}
Coro<> read_all(StreamReader reader, std::string_view expected) {
    const std::string all = co_await reader.readexactly(expected.size());
    if (all != expected) throw std::runtime_error("other bytes came than were sent");
}
// Both at once; if one fails, so does this.
Coro<> exchange(StreamReader reader, StreamWriter writer, std::size_t size) {
    co_await asyncio::task_group([&](asyncio::TaskGroup& group) -> Coro<> {
        group.create_task(read_all(reader, known_bytes(size)));
        group.create_task(write_all(writer, known_bytes(size)));
        co_return;
    });
}

Coro<> ask(std::uint16_t port, std::size_t size) {
    asyncio::ConnectionOptions options;
    options.ssl(contexts().client).server_hostname("localhost");
    auto [reader, writer] = co_await asyncio::open_connection("127.0.0.1", port, options);
    writer.get_extra_info(asyncio::socket_info).setsockopt(SOL_SOCKET, SO_SNDBUF, 50'000);
    co_await exchange(reader, writer, size);
    writer.close();
    co_await writer.wait_closed();
}

Coro<> over_tls(std::size_t size) {
    // What has failed first, on whichever side. What outlives this body may still tell.
    const auto failure = std::make_shared<std::exception_ptr>();
    const auto handle = [failure, size](StreamReader reader, StreamWriter writer) -> Coro<> {
        const auto result = co_await asyncio::as_result(exchange(reader, writer, size));
        if (*failure == nullptr) *failure = result.exception();
        if (*failure != nullptr) co_return;
        // All has been said: an end that is none would be a byte too few.
        const auto end = co_await asyncio::as_result(reader.read());
        if (*failure == nullptr) *failure = end.exception();
    };
    asyncio::ServerOptions options;
    options.ssl(contexts().server);
    auto server = co_await asyncio::start_server(handle, "127.0.0.1", 0, options);
    const auto result = co_await asyncio::as_result(ask(server.sockets().at(0).port(), size));
    if (*failure == nullptr) *failure = result.exception();
    server.close();
    if (*failure != nullptr) server.abort_clients();
    co_await server.wait_closed();
    if (*failure != nullptr) std::rethrow_exception(*failure);
}

FaultReport fail(const std::vector<Fault>& faults, std::size_t size, FaultOptions options = {}) {
    options.may_fail_otherwise(true).may_report(true);
    return fail_everywhere(faults, [size] { return over_tls(size); }, options);
}

// What spins without end is killed.
struct SslFaults : testing::TestWithParam<SystemCall> {
    SslFaults() { ::alarm(250); }
    ~SslFaults() override { ::alarm(0); }
    SslFaults(const SslFaults&) = delete;
    SslFaults& operator=(const SslFaults&) = delete;
};
struct SslErrors : SslFaults {};
struct SslShortTransfers : SslFaults {};

std::string name_of(const testing::TestParamInfo<SystemCall>& info) {
    return asyncio::testing::name_of(info.param);
}

} // namespace

TEST_P(SslErrors, of_each_call_lose_no_byte_or_are_thrown) {
    const FaultReport report = fail(asyncio::testing::faults_of(GetParam()), 200'000);
    for (const FaultTally& tally : report.tallies()) {
        EXPECT_GT(tally.survived + tally.failed, 0) << tally.fault.text();
        const bool is_absorbed =
            tally.fault.error() == EINTR ||
            (tally.fault.error() == EAGAIN && GetParam() != SystemCall::connect &&
             GetParam() != SystemCall::epoll_ctl);
        if (is_absorbed && GetParam() != SystemCall::shutdown) {
            EXPECT_EQ(tally.failed, 0) << tally.fault.text();
        }
        for (const std::string& text : tally.texts) {
            EXPECT_EQ(text.find("other bytes came"), std::string::npos) << tally.fault.text();
        }
    }
}

TEST_P(SslShortTransfers, lose_no_byte) {
    const auto expect_all = [](const FaultReport& report) {
        for (const FaultTally& tally : report.tallies()) {
            EXPECT_GT(tally.survived, 0) << tally.fault.text();
            EXPECT_EQ(tally.failed, 0)
                << tally.fault.text() << (tally.texts.empty() ? "" : tally.texts.front());
        }
    };
    const SystemCall call = GetParam();
    expect_all(fail({Fault::shortened(call, 1), Fault::shortened(call, 5000)}, 200'000));
    const FaultOptions always = FaultOptions().at_once(Faults::always).every(1'000'000'000);
    for (const std::size_t size : {1UL, 2UL, 5UL, 100UL, 5000UL})
        expect_all(fail({Fault::shortened(call, size)}, 3000 + 30 * size, always));
}

TEST_P(SslShortTransfers, lose_no_byte_while_calls_would_block_or_are_interrupted) {
    for (const long count : {2, 7}) {
        const FaultReport report = fail({{GetParam(), EAGAIN}, {GetParam(), EINTR}}, 100'000,
                                        FaultOptions().at_once(count));
        for (const FaultTally& tally : report.tallies()) EXPECT_EQ(tally.failed, 0);
    }
}

INSTANTIATE_TEST_SUITE_P(, SslErrors,
                         testing::Values(SystemCall::recv, SystemCall::send, SystemCall::close,
                                         SystemCall::epoll_wait, SystemCall::accept4,
                                         SystemCall::connect, SystemCall::epoll_ctl),
                         name_of);
INSTANTIATE_TEST_SUITE_P(, SslShortTransfers, testing::Values(SystemCall::recv, SystemCall::send),
                         name_of);
