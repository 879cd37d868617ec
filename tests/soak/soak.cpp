// SPDX-License-Identifier: MIT
// A soak: connections come and go for a long time, in every way that they can end, while the
// process has few descriptors. At the end descriptors, memory and tasks must be as they were.
//
//     asyncio_soak [SECONDS] [--seed N]
//
// Servers of streams, plain and with TLS, of protocols and of UDP are in this process, and so are
// their clients, some of which behave, and others reset, break off in a handshake, never read, or
// are cancelled at any of their awaits. It goes by rounds: after each everything is closed and
// counted, and in some of them there is no descriptor left for a while. Real sockets, real time;
// what is random comes from the seed, which is printed.
//
// To see that it can fail: --leak-descriptor, --leak-memory, --leak-task, --spin.
#include <asyncio/asyncio.hpp>
#include <asyncio/ssl.hpp>

#include "support/certificates.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fcntl.h>
#include <fstream>
#include <malloc.h>
#include <map>
#include <memory>
#include <netinet/in.h>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <sys/resource.h>
#include <sys/socket.h>
#include <system_error>
#include <unistd.h>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SOAK_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SOAK_SANITIZED 1
#endif
#endif
#ifndef SOAK_SANITIZED
#define SOAK_SANITIZED 0
#endif

using namespace std::chrono_literals;
using asyncio::Address;
using asyncio::Coro;
using asyncio::Server;
using asyncio::Socket;
using asyncio::StreamReader;
using asyncio::StreamWriter;
using asyncio::SystemCalls;
namespace ssl = asyncio::ssl;

namespace {

int most_descriptors = 64; // --descriptors N
// What the heap may have grown by between the end of the warm-up and the end: pools and tables grow
// with the largest crowd so far, not with time.
constexpr std::size_t memory_bound = 256 * 1024;
constexpr int warm_up_rounds = 2;

[[noreturn]] void fail(const std::string& what) {
    std::fflush(stdout);
    std::fprintf(stderr, "soak: FAILED: %s\n", what.c_str());
    std::_Exit(1);
}

int open_descriptors() {
    int count = 0;
    for (int i = 0; i < most_descriptors; ++i) count += ::fcntl(i, F_GETFD) >= 0 ? 1 : 0;
    return count;
}
std::size_t heap_in_use() {
    const struct mallinfo2 info = ::mallinfo2();
    return info.uordblks + info.hblkhd;
}
long resident_kib() {
    std::ifstream file("/proc/self/statm");
    long size = 0;
    long resident = 0;
    file >> size >> resident;
    return resident * (::sysconf(_SC_PAGESIZE) / 1024);
}
std::int64_t cpu_us() {
    rusage used{};
    ::getrusage(RUSAGE_SELF, &used);
    const auto us = [](const timeval& t) { return std::int64_t{t.tv_sec} * 1000000 + t.tv_usec; };
    return us(used.ru_utime) + us(used.ru_stime);
}

// How often the loop has asked the kernel what is ready.
long turns = 0;
int counted_epoll_wait(int epoll, epoll_event* events, int capacity, int timeout) {
    ++turns;
    return SystemCalls::real().epoll_wait(epoll, events, capacity, timeout);
}
int counted_epoll_pwait2(int epoll, epoll_event* events, int capacity, const timespec* timeout,
                         const sigset_t* mask) {
    ++turns;
    return SystemCalls::real().epoll_pwait2(epoll, events, capacity, timeout, mask);
}
const SystemCalls& counted_calls() {
    static const SystemCalls calls = [] {
        SystemCalls made = SystemCalls::real();
        made.epoll_wait = counted_epoll_wait;
        made.epoll_pwait2 = counted_epoll_pwait2;
        return made;
    }();
    return calls;
}

struct Settings {
    double seconds = 600;
    std::uint64_t seed = 0;
    bool leak_descriptor = false;
    bool leak_memory = false;
    bool leak_task = false;
    bool spin = false;
};

// What is there in each round, and what is counted over all of them.
struct Soak {
    explicit Soak(const Settings& s) : settings(s), random(s.seed) {}

    Settings settings;
    std::mt19937_64 random;
    asyncio_test::Authority authority;
    asyncio_test::Issued issued = authority.issue({.names = {"DNS:localhost"}});
    int descriptors = 0; // without anything of a round's

    std::optional<ssl::Context> server_context;
    std::optional<ssl::Context> client_context;
    std::uint16_t plain = 0;
    std::uint16_t secure = 0;
    std::uint16_t protocols = 0;
    Address udp;
    std::vector<asyncio::AnyTask> handlers; // some of them, to be cancelled

    std::map<std::string, long> ended;    // clients, by what they ended with
    std::map<std::string, long> reported; // to the exception handler
    std::vector<long> finished;           // clients that got what they wanted, by their kind
    std::vector<std::unique_ptr<char[]>> leaked;

    // 0 ... below - 1
    std::size_t draw(std::size_t below) { return static_cast<std::size_t>(random() % below); }
    asyncio::Delay short_time(int most_ms) {
        return std::chrono::microseconds(draw(static_cast<std::size_t>(most_ms) * 1000));
    }
    std::string text(std::size_t most) {
        std::string made(1 + draw(most), ' ');
        for (char& byte : made) byte = static_cast<char>('a' + draw(26));
        return made;
    }
};

void insist(bool good, const char* what) {
    if (!good) fail(what);
}

// --- the servers

Coro<> echo(StreamReader reader, StreamWriter writer) {
    for (;;) {
        const std::string data = co_await reader.read(4000);
        if (data.empty()) co_return;
        writer.write(data);
        co_await writer.drain();
    }
}

Coro<> obey(Soak* soak, StreamReader reader, StreamWriter writer) {
    const std::string command = co_await reader.readline();
    if (command == "echo\n") {
        co_await echo(reader, writer);
    } else if (command == "lines\n") {
        while (std::optional<std::string> line = co_await reader.next()) {
            writer.write(*line);
            co_await writer.drain();
        }
    } else if (command == "flood\n") {
        const std::string much(64 * 1024, 'x');
        for (int i = 0; i < 200; ++i) {
            writer.write(much);
            co_await writer.drain();
        }
    } else if (command == "sink\n") {
        co_await asyncio::sleep(soak->short_time(20));
        if (soak->draw(2) == 0) writer.abort();
    } else if (command == "tls\n") {
        writer.write("go\n");
        co_await writer.start_tls(
            *soak->server_context,
            asyncio::StartTlsOptions().ssl_handshake_timeout(300ms).ssl_shutdown_timeout(200ms));
        co_await echo(reader, writer);
    }
}

Coro<> serve(Soak* soak, StreamReader reader, StreamWriter writer) {
    if (soak->handlers.size() >= 16) soak->handlers.erase(soak->handlers.begin());
    soak->handlers.push_back(asyncio::current_task());
    try {
        co_await obey(soak, std::move(reader), std::move(writer));
    } catch (const std::system_error&) { // it was reset, or TLS has failed
    } catch (const asyncio::TimeoutError&) {
    } catch (const asyncio::ValueError&) { // a line over the limit
    }
}

// Echoes, and closes of itself now and then.
class EchoProtocol final : public asyncio::Protocol {
  public:
    explicit EchoProtocol(Soak* soak) : soak_(*soak) {}
    void connection_made(asyncio::Transport transport) override {
        transport_ = std::move(transport);
    }
    void data_received(std::string_view data) override {
        transport_.write(data);
        switch (soak_.draw(64)) {
        case 0:
            transport_.abort();
            break;
        case 1:
            transport_.close();
            break;
        default:
            break;
        }
    }
    bool eof_received() override { return soak_.draw(2) == 0 && close_later(); }
    void connection_lost(std::exception_ptr) override { transport_ = {}; }

  private:
    bool close_later() {
        transport_.close();
        return true;
    }
    Soak& soak_;
    asyncio::Transport transport_;
};

class EchoDatagrams final : public asyncio::DatagramProtocol {
  public:
    void connection_made(asyncio::DatagramTransport transport) override {
        transport_ = std::move(transport);
    }
    void datagram_received(std::string_view data, const Address& address) override {
        transport_.sendto(data, address);
    }
    void connection_lost(std::exception_ptr) override { transport_ = {}; }

  private:
    asyncio::DatagramTransport transport_;
};

// --- the clients

asyncio::ConnectionOptions plainly() { return {}; }
asyncio::ConnectionOptions securely(const Soak& soak) {
    asyncio::ConnectionOptions options;
    options.ssl(*soak.client_context)
        .server_hostname("localhost")
        .ssl_handshake_timeout(2s)
        .ssl_shutdown_timeout(200ms);
    return options;
}
Coro<asyncio::Streams> connect(Soak* soak, std::uint16_t port, bool tls) {
    asyncio::ConnectionOptions options = tls ? securely(*soak) : plainly();
    co_return co_await asyncio::open_connection("127.0.0.1", port, std::move(options));
}
// From now on a close resets the connection.
void reset_at_close(int descriptor) {
    const linger at_once{1, 0};
    ::setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
}
void reset_at_close(const StreamWriter& writer) {
    reset_at_close(writer.get_extra_info(asyncio::socket_info).fileno());
}

Coro<> talk(Soak* soak, StreamReader reader, StreamWriter writer) {
    const std::size_t messages = 1 + soak->draw(5);
    for (std::size_t i = 0; i < messages; ++i) {
        const std::string message = soak->text(i == 3 ? 30000 : 300);
        writer.write(message);
        co_await writer.drain();
        const std::string answer = co_await reader.readexactly(message.size());
        insist(answer == message, "an echo differs from what was sent");
    }
}

Coro<> echo_client(Soak* soak, bool tls) {
    auto streams = co_await connect(soak, tls ? soak->secure : soak->plain, tls);
    auto& [reader, writer] = streams;
    writer.write("echo\n");
    co_await talk(soak, reader, writer);
    if (soak->draw(8) == 0 && !tls) reset_at_close(writer);
    writer.close();
    co_await writer.wait_closed();
}

Coro<> half_close_client(Soak* soak) {
    auto streams = co_await connect(soak, soak->plain, false);
    auto& [reader, writer] = streams;
    std::string sent;
    writer.write("lines\n");
    for (int i = 0; i < 5; ++i) {
        const std::string line = soak->text(200) + "\n";
        sent += line;
        writer.write(line);
    }
    const std::string first = co_await reader.read(10);
    writer.write_eof();
    const std::string rest = co_await reader.read();
    // Not all of it, if the handler was cancelled.
    insist(sent.starts_with(first + rest), "after a half-close something else came back");
}

Coro<> reset_client(Soak* soak) {
    auto streams = co_await connect(soak, soak->plain, false);
    auto& [reader, writer] = streams;
    writer.write("echo\n" + soak->text(2000));
    static_cast<void>(co_await reader.read(static_cast<std::ptrdiff_t>(1 + soak->draw(500))));
    reset_at_close(writer);
    writer.abort();
}

Coro<> client_that_never_reads(Soak* soak, bool tls) {
    auto streams = co_await connect(soak, tls ? soak->secure : soak->plain, tls);
    auto& [reader, writer] = streams;
    writer.write("flood\n");
    co_await asyncio::sleep(soak->short_time(15));
    if (soak->draw(2) == 0 && !tls) reset_at_close(writer);
    writer.abort();
}

Coro<> drained(StreamWriter writer) { co_await writer.drain(); }
Coro<> client_that_nobody_reads(Soak* soak) {
    auto streams = co_await connect(soak, soak->plain, false);
    auto& [reader, writer] = streams;
    writer.write("sink\n");
    const std::string much(1 << 20, 'x');
    for (int i = 0; i < 8; ++i) writer.write(much);
    bool late = false;
    try {
        co_await asyncio::wait_for(drained(writer), soak->short_time(10));
    } catch (const asyncio::TimeoutError&) {
        late = true;
    }
    if (late || soak->draw(2) == 0) writer.abort();
}

Coro<> start_tls_client(Soak* soak, bool break_off) {
    auto streams = co_await connect(soak, soak->plain, false);
    auto& [reader, writer] = streams;
    writer.write("tls\n");
    const std::string go = co_await reader.readline();
    if (go != "go\n") co_return;
    if (break_off) {
        // The beginning of a record of a handshake, and no more.
        writer.write(std::string_view("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11));
        co_await asyncio::sleep(soak->short_time(3));
        if (soak->draw(2) == 0) reset_at_close(writer);
        writer.abort();
        co_return;
    }
    co_await writer.start_tls(*soak->client_context, asyncio::StartTlsOptions()
                                                         .server_hostname("localhost")
                                                         .ssl_handshake_timeout(2s)
                                                         .ssl_shutdown_timeout(200ms));
    co_await talk(soak, reader, writer);
}

Coro<> plain_text_to_tls(Soak* soak) {
    auto streams = co_await connect(soak, soak->secure, false);
    auto& [reader, writer] = streams;
    writer.write("GET / HTTP/1.0\r\n\r\n");
    static_cast<void>(co_await reader.read());
}

Coro<> handshake_that_breaks_off(Soak* soak) {
    auto streams = co_await connect(soak, soak->secure, false);
    auto& [reader, writer] = streams;
    writer.write(std::string_view("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11));
    co_await asyncio::sleep(soak->short_time(5));
    if (soak->draw(2) == 0) reset_at_close(writer);
    writer.abort();
}

Coro<> tls_to_plain(Soak* soak) {
    // Its first flight is a line over the limit, or no command; the answer is the end.
    bool refused = false;
    try {
        auto streams = co_await connect(soak, soak->plain, true);
    } catch (const std::system_error&) {
        refused = true;
    }
    insist(refused, "TLS with a server that speaks none");
}

class Counting final : public asyncio::Protocol {
  public:
    explicit Counting(asyncio::Future<> lost) : lost_(std::move(lost)) {}
    void data_received(std::string_view data) override { count += data.size(); }
    void connection_lost(std::exception_ptr) override {
        if (!lost_.done()) lost_.set_result();
    }
    std::size_t count = 0;

  private:
    asyncio::Future<> lost_;
};

Coro<> protocol_client(Soak* soak) {
    const auto lost = asyncio::create_future<void>();
    const auto make = [&lost] { return std::make_unique<Counting>(lost); };
    auto created = co_await asyncio::create_connection(make, "127.0.0.1", soak->protocols);
    for (int i = 0; i < 4; ++i) {
        created.transport.write(soak->text(3000));
        co_await asyncio::sleep(soak->short_time(2));
    }
    switch (soak->draw(3)) {
    case 0:
        created.transport.close();
        break;
    case 1:
        created.transport.abort();
        break;
    default:
        if (!created.transport.is_closing()) created.transport.write_eof();
        break;
    }
    co_await lost;
}

Coro<> socket_client(Soak* soak) {
    const Socket socket(AF_INET, SOCK_STREAM);
    const Address address("127.0.0.1", soak->plain);
    co_await asyncio::sock_connect(socket, address);
    const std::string message = soak->text(500);
    co_await asyncio::sock_sendall(socket, "echo\n" + message);
    std::string got;
    while (got.size() < message.size()) {
        const std::string more = co_await asyncio::sock_recv(socket, 200);
        if (more.empty()) co_return; // turned away
        got += more;
    }
    insist(got == message, "a socket got another echo than it has sent");
    if (soak->draw(2) == 0) reset_at_close(socket.fileno());
}

Coro<> datagram_client(Soak* soak) {
    auto endpoint =
        co_await asyncio::open_datagram_endpoint(asyncio::DatagramOptions().remote_addr(soak->udp));
    const std::string message = soak->text(1000);
    co_await endpoint.send(message);
    const std::string answer = co_await endpoint.recv();
    insist(answer == message, "a datagram came back changed");
}

Coro<> refused_client(Soak*) {
    Socket bound(AF_INET, SOCK_STREAM); // a port at which nobody listens
    bound.bind(Address("127.0.0.1", 0));
    bool refused = false;
    try {
        auto streams = co_await asyncio::open_connection("127.0.0.1", bound.getsockname().port());
    } catch (const std::system_error&) {
        refused = true;
    }
    insist(refused, "a connection with nobody");
}

Coro<> client(Soak* soak, std::size_t kind) {
    switch (kind) {
    case 0:
        return echo_client(soak, false);
    case 1:
        return echo_client(soak, true);
    case 2:
        return half_close_client(soak);
    case 3:
        return reset_client(soak);
    case 4:
        return client_that_never_reads(soak, false);
    case 5:
        return client_that_never_reads(soak, true);
    case 6:
        return client_that_nobody_reads(soak);
    case 7:
        return start_tls_client(soak, false);
    case 8:
        return start_tls_client(soak, true);
    case 9:
        return plain_text_to_tls(soak);
    case 10:
        return handshake_that_breaks_off(soak);
    case 11:
        return tls_to_plain(soak);
    case 12:
        return protocol_client(soak);
    case 13:
        return socket_client(soak);
    case 14:
        return datagram_client(soak);
    default:
        return refused_client(soak);
    }
}
constexpr std::size_t kinds = 16;

// One client, and what befalls it.
Coro<> trouble(Soak* soak, std::size_t kind) {
    switch (soak->draw(4)) {
    case 0: {
        const std::size_t count = soak->draw(12);
        auto task = asyncio::create_task(client(soak, kind));
        for (std::size_t i = 0; i < count; ++i) co_await asyncio::sleep(0);
        task.cancel();
        co_await task;
        break;
    }
    case 1: {
        auto task = asyncio::create_task(client(soak, kind));
        co_await asyncio::sleep(soak->short_time(5));
        task.cancel();
        co_await task;
        break;
    }
    case 2:
        co_await asyncio::wait_for(client(soak, kind), soak->short_time(20));
        break;
    default:
        co_await asyncio::wait_for(client(soak, kind), 3s);
        break;
    }
}

std::string name_of(const std::system_error& error) {
    if (dynamic_cast<const ssl::Error*>(&error) != nullptr) return "ssl::Error";
    return error.code().message();
}

Coro<> worker(Soak* soak, std::chrono::steady_clock::time_point until) {
    while (std::chrono::steady_clock::now() < until) {
        const std::size_t kind = soak->draw(kinds);
        std::string how = "done";
        try {
            co_await trouble(soak, kind);
            ++soak->finished.at(kind);
        } catch (const asyncio::CancelledError&) {
            how = "cancelled";
        } catch (const asyncio::TimeoutError&) {
            how = "timed out";
        } catch (const asyncio::IncompleteReadError&) {
            how = "incomplete";
        } catch (const std::system_error& error) {
            how = name_of(error);
        }
        ++soak->ended[how];
        if (soak->settings.leak_memory) soak->leaked.push_back(std::make_unique<char[]>(8192));
        if (soak->draw(8) == 0 && !soak->handlers.empty())
            soak->handlers[soak->draw(soak->handlers.size())].cancel();
        co_await asyncio::sleep(0);
    }
}

// --- rounds

// Nothing happens, so the loop must not turn.
Coro<> stay_idle(Soak* soak, const char* when) {
    co_await asyncio::sleep(0);
    const long turns_before = turns;
    const std::int64_t cpu_before = cpu_us();
    auto spinner = asyncio::create_task([]() -> Coro<> {
        for (;;) co_await asyncio::sleep(0);
    });
    if (!soak->settings.spin) spinner.cancel();
    co_await asyncio::sleep(100ms);
    spinner.cancel();
    const long turned = turns - turns_before;
    const std::int64_t used = cpu_us() - cpu_before;
    if (turned > 60)
        fail("the loop has turned " + std::to_string(turned) + " times in 100 ms, " + when);
    if (used > 80000) fail(std::to_string(used) + " us of CPU in 100 ms, " + when);
}

// No descriptor is left: who comes is turned away, the loop does not spin, and it all goes on when
// there are some again.
Coro<> run_out(Soak* soak) {
    Socket last(AF_INET, SOCK_STREAM);
    const Address address("127.0.0.1", soak->plain);
    std::vector<int> taken;
    for (;;) {
        const int descriptor = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
        if (descriptor < 0) break;
        taken.push_back(descriptor);
    }
    insist(errno == EMFILE, "opening /dev/null failed, and not for want of descriptors");
    const std::string out = "socket.accept() out of system resource";
    const auto count_of = [&] {
        long count = 0;
        for (const auto& [message, times] : soak->reported)
            count += message.starts_with(out) ? times : 0;
        return count;
    };
    const long before = count_of();
    co_await asyncio::sock_connect(last, address);
    std::string got = "x";
    try {
        got = co_await asyncio::wait_for(asyncio::sock_recv(last, 10), 5s);
    } catch (const std::system_error&) { // a reset
        got.clear();
    }
    insist(got.empty(), "a server has answered without a descriptor");
    insist(count_of() > before, "a server had no descriptor and did not say so");
    co_await stay_idle(soak, "with no descriptor left");
    for (const int descriptor : taken) ::close(descriptor);
    last.close();
    co_await asyncio::wait_for(echo_client(soak, false), 10s);
}

// Everything of a round's must be gone, which may take a turn or two, or the end of TLS.
Coro<> settle(Soak* soak) {
    const auto deadline = std::chrono::steady_clock::now() + 10s;
    for (;;) {
        const std::size_t tasks = asyncio::all_tasks().size();
        const int descriptors = open_descriptors();
        if (tasks == 1 && descriptors == soak->descriptors) co_return;
        if (std::chrono::steady_clock::now() > deadline) {
            for (const asyncio::AnyTask& task : asyncio::all_tasks())
                std::fprintf(stderr, "    %s\n", task.get_name().c_str());
            fail("10 s after a round: " + std::to_string(tasks) + " tasks instead of 1, " +
                 std::to_string(descriptors) + " descriptors instead of " +
                 std::to_string(soak->descriptors));
        }
        co_await asyncio::sleep(5ms);
    }
}

Coro<> one_round(Soak* soak, int number, std::chrono::steady_clock::duration time) {
    soak->server_context.emplace(ssl::create_default_context(ssl::Purpose::CLIENT_AUTH));
    soak->server_context->load_cert_chain(soak->issued.certificate, soak->issued.key);
    soak->client_context.emplace(
        ssl::create_default_context(ssl::Purpose::SERVER_AUTH, {.cafile = soak->authority.file()}));
    const auto handle = [soak](StreamReader reader, StreamWriter writer) {
        return serve(soak, std::move(reader), std::move(writer));
    };
    const auto make = [soak] { return std::make_unique<EchoProtocol>(soak); };
    const auto make_datagrams = [] { return std::make_shared<EchoDatagrams>(); };
    auto plain = co_await asyncio::start_server(handle, "127.0.0.1", 0,
                                                asyncio::ServerOptions().limit(16 * 1024));
    auto secure = co_await asyncio::start_server(handle, "127.0.0.1", 0,
                                                 asyncio::ServerOptions()
                                                     .ssl(*soak->server_context)
                                                     .ssl_handshake_timeout(300ms)
                                                     .ssl_shutdown_timeout(200ms));
    auto protocols = co_await asyncio::create_server(make, "127.0.0.1", 0);
    auto udp = co_await asyncio::create_datagram_endpoint(
        make_datagrams, asyncio::DatagramOptions().local_addr(Address("127.0.0.1", 0)));
    soak->plain = plain.sockets().at(0).port();
    soak->secure = secure.sockets().at(0).port();
    soak->protocols = protocols.sockets().at(0).port();
    soak->udp = udp.transport.sockname();

    // A crowd now and then, for which there are not descriptors enough.
    const std::size_t crowd = number % 3 == 2 ? 40 : 10;
    std::vector<asyncio::Task<>> workers;
    const auto until = std::chrono::steady_clock::now() + time;
    for (std::size_t i = 0; i < crowd; ++i)
        workers.push_back(asyncio::create_task(worker(soak, until)));
    for (const asyncio::Task<>& one : workers) co_await one;

    soak->handlers.clear();
    for (Server* server : {&plain, &secure, &protocols}) server->abort_clients();
    if (number % 4 == 1) {
        // After the crowd's connections are gone; the wait is for those that still close.
        co_await asyncio::sleep(400ms);
        co_await stay_idle(soak, "with servers that nobody calls");
        co_await run_out(soak);
    }
    udp.transport.close();
    for (Server* server : {&plain, &secure, &protocols}) {
        server->close();
        server->abort_clients();
        co_await asyncio::wait_for(server->wait_closed(), 10s);
    }
    soak->handlers.clear();
}

void note(Soak* soak, const asyncio::ExceptionContext& context) {
    constexpr std::array known = {"the TLS handshake with a client failed",
                                  "socket.accept() out of system resource", "SSL handshake failed",
                                  "writing to a connection that is closed"};
    ++soak->reported[context.message];
    for (const std::string_view one : known) {
        if (context.message.starts_with(one)) return;
    }
    std::string text = context.message;
    try {
        if (context.exception != nullptr) std::rethrow_exception(context.exception);
    } catch (const std::exception& error) {
        text += std::string(": ") + error.what();
    }
    fail("the exception handler was told: " + text);
}

Coro<> soak_main(Soak* soak) {
    asyncio::get_running_loop().set_exception_handler(
        [soak](asyncio::EventLoop&, const asyncio::ExceptionContext& context) {
            note(soak, context);
        });
    soak->finished.assign(kinds, 0);
    const auto start = std::chrono::steady_clock::now();
    const auto end = start + std::chrono::duration_cast<std::chrono::steady_clock::duration>(
                                 std::chrono::duration<double>(soak->settings.seconds));
    const auto time = std::max<std::chrono::steady_clock::duration>(300ms, (end - start) / 60);
    std::size_t warm = 0;
    int rounds = 0;
    while (rounds < warm_up_rounds + 2 || std::chrono::steady_clock::now() < end) {
        co_await one_round(soak, rounds, time);
        soak->server_context.reset();
        soak->client_context.reset();
        ++rounds;
        if (soak->settings.leak_descriptor && rounds == 3) static_cast<void>(::dup(0));
        if (soak->settings.leak_task && rounds == 3) {
            static_cast<void>(asyncio::create_task([]() -> Coro<> {
                for (;;) co_await asyncio::sleep(1h);
            }));
        }
        co_await settle(soak);
        // The crowd of the third round has been there by then.
        if (rounds == warm_up_rounds + 1) warm = heap_in_use();
        if (rounds % 10 == 0) {
            std::printf("round %d: %zu KiB in use, %ld KiB resident\n", rounds,
                        heap_in_use() / 1024, resident_kib());
            std::fflush(stdout);
        }
    }
    const std::size_t at_end = heap_in_use();
    std::printf("%d rounds, seed %llu\nclients:", rounds,
                static_cast<unsigned long long>(soak->settings.seed));
    for (const auto& [how, count] : soak->ended) std::printf(" %ld %s;", count, how.c_str());
    std::printf("\nfinished, of each kind:");
    for (const long count : soak->finished) std::printf(" %ld", count);
    std::printf("\nreported:");
    for (const auto& [message, count] : soak->reported)
        std::printf(" %ld \"%s\";", count, message.c_str());
    std::printf("\nheap: %zu KiB after the warm-up, %zu KiB at the end (bound: %zu KiB more); "
                "%ld KiB resident; %d descriptors\n",
                warm / 1024, at_end / 1024, memory_bound / 1024, resident_kib(),
                open_descriptors());
    // A sanitizer's allocator tells nothing, and looks for leaks itself.
    if (SOAK_SANITIZED == 0 && at_end > warm + memory_bound)
        fail("the heap has grown by " + std::to_string((at_end - warm) / 1024) + " KiB");
    long clients = 0;
    for (const auto& [how, count] : soak->ended) clients += count;
    if (soak->ended["done"] == 0) fail("no client has come to its end");
    if (clients < 3000) co_return; // too few for each kind to have had its luck
    for (std::size_t kind = 0; kind < kinds; ++kind) {
        if (soak->finished[kind] == 0)
            fail("no client of kind " + std::to_string(kind) + " has come to its end");
    }
}

Settings settings_of(int count, char** arguments) {
    Settings settings;
    settings.seed = std::random_device()();
    for (int i = 1; i < count; ++i) {
        const std::string_view argument = arguments[i];
        const auto value = [](std::string_view text, auto& into) {
            const auto read = std::from_chars(text.data(), text.data() + text.size(), into);
            return read.ec == std::errc() && read.ptr == text.data() + text.size();
        };
        if (argument == "--leak-descriptor") {
            settings.leak_descriptor = true;
        } else if (argument == "--leak-memory") {
            settings.leak_memory = true;
        } else if (argument == "--leak-task") {
            settings.leak_task = true;
        } else if (argument == "--spin") {
            settings.spin = true;
        } else if (argument == "--seed" && i + 1 < count &&
                   value(arguments[i + 1], settings.seed)) {
            ++i;
        } else if (argument == "--descriptors" && i + 1 < count &&
                   value(arguments[i + 1], most_descriptors) && most_descriptors > 0) {
            ++i;
        } else if (!value(argument, settings.seconds)) {
            fail("cannot read '" + std::string(argument) +
                 "'; asyncio_soak [SECONDS] [--seed N] [--descriptors N]");
        }
    }
    return settings;
}

} // namespace

int main(int count, char** arguments) {
    Soak soak(settings_of(count, arguments));
    std::printf("soak: %.0f s with %d descriptors, seed %llu\n", soak.settings.seconds,
                most_descriptors, static_cast<unsigned long long>(soak.settings.seed));
    std::fflush(stdout);
    const auto most = static_cast<rlim_t>(most_descriptors);
    rlimit limit{most, most};
    if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) fail("cannot set the limit of descriptors");
    const int before = open_descriptors();
    {
        const auto loop =
            asyncio::new_event_loop(asyncio::LoopOptions().system_calls(counted_calls()));
        soak.descriptors = open_descriptors();
        asyncio::run_until_complete(*loop, soak_main(&soak));
    }
    const int after = open_descriptors();
    if (after != before)
        fail(std::to_string(after) + " descriptors at the end, " + std::to_string(before) +
             " at the start");
    std::puts("soak: passed");
}
