// SPDX-License-Identifier: MIT
// Each system call of a connection fails once, with each error, at each position: then either all
// bytes are there, or the error is; nothing hangs and nothing leaks.
#include <asyncio/asyncio.hpp>
#include <asyncio/testing/fail_everywhere.hpp>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <ostream>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <unistd.h>

using asyncio::Address;
using asyncio::Coro;
using asyncio::Socket;
using asyncio::testing::Fault;
using asyncio::testing::FaultOptions;
using asyncio::testing::FaultReport;
using asyncio::testing::Faults;
using asyncio::testing::FaultTally;
using asyncio::testing::SystemCall;

namespace {

constexpr std::size_t mebibyte = 1 << 20;
constexpr int small_buffer = 200'000; // in the kernel, so that who sends has to wait

// Bytes of which no two pieces are alike, so that none can be lost, doubled or moved unseen.
const std::string& known_bytes(bool of_client) {
    static const std::array<std::string, 2> both = [] {
        std::array<std::string, 2> made;
        std::uint64_t state = 1;
        for (std::string& bytes : made) {
            bytes.resize(mebibyte);
            for (char& byte : bytes) {
                state = state * 6364136223846793005 + 1442695040888963407;
                byte = static_cast<char>(state >> 56);
            }
        }
        return made;
    }();
    return both[of_client ? 1 : 0];
}
std::string_view from_client(std::size_t size) {
    return std::string_view(known_bytes(true)).substr(0, size);
}
std::string_view from_server(std::size_t size) {
    return std::string_view(known_bytes(false)).substr(0, size);
}

// What was received before the peer has ended. Throws if it is not all: then something went wrong
// in silence, unless the peer has failed before.
void expect_all(std::string_view received, std::string_view expected) {
    if (received == expected) return;
    throw std::runtime_error("the peer has ended, and of " + std::to_string(expected.size()) +
                             " bytes there are " + std::to_string(received.size()) +
                             (expected.starts_with(received) ? "" : ", and others"));
}

// What a group of tasks has thrown first.
[[noreturn]] void rethrow_first(const std::exception_ptr& exception) {
    try {
        std::rethrow_exception(exception);
    } catch (const asyncio::ExceptionGroup& group) {
        rethrow_first(group.exceptions().front());
    }
}

// Runs two coroutines at the same time; if one fails the other is cancelled, and that failure is
// thrown.
Coro<> together(Coro<> first, Coro<> second) {
    const auto result =
        co_await asyncio::as_result(asyncio::task_group([&](asyncio::TaskGroup& group) -> Coro<> {
            group.create_task(std::move(first));
            group.create_task(std::move(second));
            co_return;
        }));
    if (result.exception() != nullptr) rethrow_first(result.exception());
}

// --- over sockets ---

// Reads into three pieces at a time until the peer ends.
Coro<> receive_scattered(const Socket& socket, std::string_view expected) {
    std::string all;
    std::vector<char> pieces(30000);
    const std::array<asyncio::WritableBytes, 3> buffers = {
        asyncio::WritableBytes(pieces.data(), 10),
        asyncio::WritableBytes(pieces.data() + 10, 1000),
        asyncio::WritableBytes(pieces.data() + 1010, 28990),
    };
    for (;;) {
        const std::size_t count = co_await asyncio::sock_recv_into(
            socket, std::span<const asyncio::WritableBytes>(buffers));
        if (count == 0) break;
        all.append(pieces.data(), count);
    }
    expect_all(all, expected);
}
// By turns by sock_recv and sock_recv_into.
Coro<> receive_by_turns(const Socket& socket, std::string_view expected) {
    std::string all;
    std::vector<char> buffer(20000);
    for (;;) {
        const std::string data = co_await asyncio::sock_recv(socket, 65536);
        if (data.empty()) break;
        all += data;
        const std::size_t count = co_await asyncio::sock_recv_into(socket, buffer);
        if (count == 0) break;
        all.append(buffer.data(), count);
    }
    expect_all(all, expected);
}
Coro<> send_and_end(Socket& socket, std::string_view data) {
    co_await asyncio::sock_sendall(socket, data);
    socket.shutdown(SHUT_WR);
}
Coro<> send_gathered_and_end(Socket& socket, std::string_view data) {
    const std::array<asyncio::ReadableBytes, 4> parts = {data.substr(0, 1), data.substr(1, 0),
                                                         data.substr(1, 999), data.substr(1000)};
    co_await asyncio::sock_sendall(socket, std::span<const asyncio::ReadableBytes>(parts));
    socket.shutdown(SHUT_WR);
}

Coro<> serve_one(Socket& server, std::size_t size) {
    asyncio::Accepted accepted = co_await asyncio::sock_accept(server);
    Socket& socket = accepted.socket;
    socket.setsockopt(SOL_SOCKET, SO_SNDBUF, small_buffer);
    co_await together(receive_by_turns(socket, from_client(size)),
                      send_gathered_and_end(socket, from_server(size)));
}
Coro<> ask_one(Address address, std::size_t size) {
    Socket socket(AF_INET, SOCK_STREAM);
    socket.setsockopt(SOL_SOCKET, SO_SNDBUF, small_buffer);
    co_await asyncio::sock_connect(socket, address);
    EXPECT_EQ(socket.getpeername(), address);
    co_await together(receive_scattered(socket, from_server(size)),
                      send_and_end(socket, from_client(size)));
}
Coro<> over_tcp(std::size_t size) {
    Socket server(AF_INET, SOCK_STREAM);
    server.bind(Address("127.0.0.1", 0));
    server.listen();
    const Address address = server.getsockname();
    co_await together(serve_one(server, size), ask_one(address, size));
}

Coro<> over_a_pair(std::size_t size) {
    auto both = Socket::pair();
    both.second.setsockopt(SOL_SOCKET, SO_SNDBUF, small_buffer);
    const auto first = [](Socket& socket, std::size_t amount) -> Coro<> {
        co_await together(receive_by_turns(socket, from_client(amount)),
                          send_gathered_and_end(socket, from_server(amount)));
    };
    const auto second = [](Socket& socket, std::size_t amount) -> Coro<> {
        co_await together(receive_scattered(socket, from_server(amount)),
                          send_and_end(socket, from_client(amount)));
    };
    co_await together(first(both.first, size), second(both.second, size));
}

// Messages, each of which is answered before the next one is sent, since UDP may lose one.
Coro<> answer_messages(const Socket& socket, std::size_t count) {
    std::array<char, 2000> buffer;
    for (std::size_t i = 0; i < count; ++i) {
        if (i % 2 == 0) {
            const asyncio::ReceivedFrom message = co_await asyncio::sock_recvfrom(socket, 2000);
            co_await asyncio::sock_sendto(socket, message.data, message.address);
        } else {
            const asyncio::CountFrom message = co_await asyncio::sock_recvfrom_into(socket, buffer);
            co_await asyncio::sock_sendto(socket, {buffer.data(), message.count}, message.address);
        }
    }
}
Coro<> send_messages(Address address, std::size_t count) {
    const Socket socket(AF_INET, SOCK_DGRAM);
    for (std::size_t i = 0; i < count; ++i) {
        const std::string_view message = from_client(mebibyte).substr(i * 1000, 1000);
        co_await asyncio::sock_sendto(socket, message, address);
        const asyncio::ReceivedFrom answer = co_await asyncio::sock_recvfrom(socket, 2000);
        EXPECT_EQ(answer.data, message);
        EXPECT_EQ(answer.address, address);
    }
}
Coro<> over_udp(std::size_t size) {
    Socket server(AF_INET, SOCK_DGRAM);
    server.bind(Address("127.0.0.1", 0));
    const std::size_t count = std::min<std::size_t>(size / 1000, 20);
    const Address address = server.getsockname();
    co_await together(answer_messages(server, count), send_messages(address, count));
}

// --- over streams ---

Coro<> read_stream(asyncio::StreamReader reader, std::string_view expected) {
    std::string all;
    for (;;) {
        const std::string data = co_await reader.read(65536);
        if (data.empty()) break;
        all += data;
    }
    expect_all(all, expected);
}
Coro<> write_stream(asyncio::StreamWriter writer, std::string_view data) {
    // The first half in pairs of pieces, the second in single ones.
    constexpr std::size_t most = 50'000;
    const std::size_t half = data.size() / 2;
    for (std::size_t done = 0; done < half; done += most) {
        const std::string_view both = data.substr(done, std::min(most, half - done));
        const std::array<asyncio::ReadableBytes, 2> parts = {both.substr(0, 10), both.substr(10)};
        writer.writelines(std::span<const asyncio::ReadableBytes>(parts));
        co_await writer.drain();
    }
    for (std::size_t done = half; done < data.size(); done += most) {
        writer.write(data.substr(done, most));
        co_await writer.drain();
    }
    writer.write_eof();
}

Coro<> ask_by_stream(std::uint16_t port, std::size_t size) {
    auto streams = co_await asyncio::open_connection("127.0.0.1", port);
    auto& [reader, writer] = streams;
    writer.get_extra_info(asyncio::socket_info).setsockopt(SOL_SOCKET, SO_SNDBUF, small_buffer);
    co_await together(read_stream(reader, from_server(size)),
                      write_stream(writer, from_client(size)));
    writer.close();
    co_await writer.wait_closed();
}
Coro<> over_streams(std::size_t size) {
    // What has failed first, on whichever side. What outlives this body may still tell.
    const auto failure = std::make_shared<std::exception_ptr>();
    const auto handle = [failure, size](asyncio::StreamReader reader,
                                        asyncio::StreamWriter writer) -> Coro<> {
        const auto result = co_await asyncio::as_result(together(
            read_stream(reader, from_client(size)), write_stream(writer, from_server(size))));
        if (*failure == nullptr) *failure = result.exception();
    };
    auto server = co_await asyncio::start_server(handle, "127.0.0.1", 0);
    const auto port = server.sockets().at(0).port();
    const auto result = co_await asyncio::as_result(ask_by_stream(port, size));
    if (*failure == nullptr) *failure = result.exception();
    server.close();
    if (*failure != nullptr) server.abort_clients();
    co_await server.wait_closed();
    if (*failure != nullptr) rethrow_first(*failure);
}

// --- the loops ---

// A way of moving `size` known bytes in both directions, and the calls that it makes.
struct Way {
    const char* name;
    Coro<> (*exchange)(std::size_t size);
    std::vector<SystemCall> calls;
    // Which of these are shortened at a stream.
    std::vector<SystemCall> transfers;
    // What goes wrong on the way to a connection may be told to the exception handler alone, so
    // that the body only sees what comes of it.
    bool may_fail_otherwise = false;
};

const std::vector<Way>& ways() {
    using enum SystemCall;
    static const std::vector<Way> all = {
        {"tcp",
         &over_tcp,
         {epoll_create1, epoll_ctl,  epoll_wait, epoll_pwait2, eventfd,  close,    socket,
          bind,          listen,     accept4,    connect,      so_error, shutdown, getsockname,
          getpeername,   getsockopt, setsockopt, recv,         recvmsg,  send,     sendmsg},
         {recv, recvmsg, send, sendmsg}},
        {"pair",
         &over_a_pair,
         {epoll_ctl, epoll_wait, epoll_pwait2, close, socketpair, shutdown, recv, recvmsg, send,
          sendmsg},
         {recv, recvmsg, send, sendmsg}},
        {"udp", &over_udp, {epoll_ctl, socket, bind, getsockname, recvmsg, sendmsg}, {}},
        {"streams",
         &over_streams,
         {epoll_ctl, epoll_wait, epoll_pwait2, close, socket, bind, listen, accept4, connect,
          so_error, shutdown, getsockname, getsockopt, setsockopt, recv, send, sendmsg},
         {recv, send, sendmsg},
         true},
    };
    return all;
}

// What the library deals with by itself.
bool is_absorbed(const Fault& fault) {
    using enum SystemCall;
    const int error = fault.error();
    switch (fault.call()) {
    case close: // nobody can do anything about it
        return true;
    case accept4: // the connection is gone already: the next one, please
        for (const int gone : {ECONNABORTED, EPROTO, ENETDOWN, ENOPROTOOPT, EHOSTDOWN, ENONET,
                               EHOSTUNREACH, ENETUNREACH}) {
            if (error == gone) return true;
        }
        return error == EINTR || error == EAGAIN;
    case connect:
        return error == EINTR || error == EINPROGRESS;
    case epoll_pwait2:
        return error == EINTR || error == ENOSYS || error == EPERM;
    case epoll_wait:
        return error == EINTR;
    case recv:
    case recvmsg:
    case send:
    case sendmsg:
        return error == EINTR || error == EAGAIN;
    default:
        return false;
    }
}
// What is in the text of the error, besides that of the errno. A peer that has gone has no address
// any more, so that who reads after it is not told that.
std::string operation_of(SystemCall call, std::string_view way) {
    using enum SystemCall;
    switch (call) {
    case accept4:
        return "sock_accept: ";
    case bind:
        return "bind to 127.0.0.1:0: ";
    case connect:
    case getsockopt:
    case so_error:
        return "sock_connect to 127.0.0.1:";
    case epoll_ctl: // "watching descriptor 7", or of the loop's own "epoll_ctl for"
        return "descriptor";
    case epoll_wait:
    case epoll_pwait2:
        return "epoll_wait: ";
    case setsockopt:
        return "setsockopt 7 of level 1: ";
    case recv:
        return "sock_recv";
    case recvmsg:
        return way == "udp" ? "sock_recvfrom" : "sock_recv_into";
    case send:
    case sendmsg:
        return way == "udp"   ? "sock_sendto to 127.0.0.1:"
               : way == "tcp" ? "sock_sendall to 127.0.0.1:"
                              : "sock_sendall: ";
    default:
        return asyncio::testing::name_of(call) + std::string(": ");
    }
}

struct Case {
    const Way* way;
    SystemCall call;
};
std::string name_of_case(const testing::TestParamInfo<Case>& info) {
    return std::string(info.param.way->name) + "_" + asyncio::testing::name_of(info.param.call);
}
void PrintTo(const Case& one, std::ostream* stream) {
    *stream << one.way->name << " " << asyncio::testing::name_of(one.call);
}

std::vector<Case> cases(std::vector<SystemCall> Way::* calls) {
    std::vector<Case> all;
    for (const Way& way : ways()) {
        for (const SystemCall call : way.*calls) all.push_back({&way, call});
    }
    return all;
}

// What spins without end is killed.
struct SocketFaults : testing::TestWithParam<Case> {
    SocketFaults() { ::alarm(250); }
    ~SocketFaults() override { ::alarm(0); }
    SocketFaults(const SocketFaults&) = delete;
    SocketFaults& operator=(const SocketFaults&) = delete;

    static FaultReport fail(std::span<const Fault> faults, std::size_t size,
                            FaultOptions options = {}) {
        const Way& way = *GetParam().way;
        options.may_fail_otherwise(way.may_fail_otherwise).may_report(way.may_fail_otherwise);
        return asyncio::testing::fail_everywhere(
            faults, [&way, size] { return way.exchange(size); }, options);
    }
};
struct SocketErrors : SocketFaults {};
struct ShortTransfers : SocketFaults {};

} // namespace

// A descriptor that cannot be made non-blocking stays the caller's.
TEST(SocketFaults, of_fcntl_leave_a_descriptor_to_who_has_given_it) {
    const auto faults = asyncio::testing::faults_of(SystemCall::fcntl);
    const FaultReport report = asyncio::testing::fail_everywhere(faults, []() -> Coro<> {
        struct Ends {
            std::array<int, 2> both = {-1, -1};
            ~Ends() {
                for (const int end : both) ::close(end);
            }
        } ends;
        EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.both.data()), 0);
        Socket socket = Socket::from_descriptor(ends.both[0]);
        ends.both[0] = -1;
        const auto waits = co_await asyncio::as_result(
            asyncio::wait_for(asyncio::sock_recv(socket, 1), std::chrono::milliseconds(1)));
        EXPECT_TRUE(waits.failed_with<asyncio::TimeoutError>());
    });
    EXPECT_EQ(report.faults(), static_cast<long>(2 * faults.size())); // get and set
    for (const FaultTally& tally : report.tallies()) {
        EXPECT_EQ(tally.survived, 0);
        EXPECT_EQ(tally.texts.size(), 1U);
        EXPECT_TRUE(tally.texts.at(0).starts_with("making a socket non-blocking: "));
    }
}

TEST_P(SocketErrors, of_each_call_lose_no_byte_or_are_thrown) {
    const auto faults = asyncio::testing::faults_of(GetParam().call);
    const FaultReport report = fail(faults, mebibyte);
    for (const FaultTally& tally : report.tallies()) {
        const std::string text = tally.fault.text();
        EXPECT_GT(tally.survived + tally.failed, 0) << text;
        if (is_absorbed(tally.fault)) {
            EXPECT_EQ(tally.failed, 0)
                << text << ": " << (tally.texts.empty() ? "" : tally.texts.front());
        } else if (GetParam().way->may_fail_otherwise) {
            continue;
        } else if (tally.fault.call() != SystemCall::epoll_ctl) { // of which removals are absorbed
            EXPECT_EQ(tally.survived, 0) << text;
        }
        const std::string operation = operation_of(GetParam().call, GetParam().way->name);
        for (const std::string& thrown : tally.texts) {
            EXPECT_NE(thrown.find(operation), std::string::npos) << thrown;
            EXPECT_NE(thrown.find(std::generic_category().message(tally.fault.error())),
                      std::string::npos)
                << thrown;
        }
    }
}

TEST_P(ShortTransfers, lose_no_byte) {
    const SystemCall call = GetParam().call;
    // Each call once.
    const std::vector<Fault> once = {Fault::shortened(call, 1), Fault::shortened(call, 5000),
                                     Fault::shortened(call, 9999)};
    const auto expect_all = [](const FaultReport& report) {
        for (const FaultTally& tally : report.tallies()) {
            EXPECT_GT(tally.survived, 0) << tally.fault.text();
            EXPECT_EQ(tally.failed, 0) << tally.fault.text();
        }
    };
    expect_all(fail(once, mebibyte));
    // And all of them.
    const FaultOptions always = FaultOptions().at_once(Faults::always).every(1'000'000'000);
    for (std::size_t size = 1; size < 1000; size = size + size / 2 + 1) {
        const std::vector<Fault> fault = {Fault::shortened(call, size)};
        expect_all(fail(fault, 2000 + 100 * size, always));
    }
    for (const std::size_t size : {9999UL, 19999UL}) {
        const std::vector<Fault> fault = {Fault::shortened(call, size)};
        expect_all(fail(fault, mebibyte, always));
    }
}

TEST_P(ShortTransfers, lose_no_byte_while_calls_would_block_or_are_interrupted_again_and_again) {
    const SystemCall call = GetParam().call;
    const std::vector<Fault> faults = {{call, EAGAIN}, {call, EINTR}};
    for (const long count : {2, 3, 7}) {
        const FaultReport report = fail(faults, mebibyte, FaultOptions().at_once(count));
        for (const FaultTally& tally : report.tallies()) EXPECT_EQ(tally.failed, 0);
    }
}

INSTANTIATE_TEST_SUITE_P(, SocketErrors, testing::ValuesIn(cases(&Way::calls)), name_of_case);
INSTANTIATE_TEST_SUITE_P(, ShortTransfers, testing::ValuesIn(cases(&Way::transfers)), name_of_case);
