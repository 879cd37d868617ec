// SPDX-License-Identifier: MIT
#include "support/in_virtual_time.hpp"

#include <asyncio/asyncio.hpp>
#include <asyncio/testing/cancel_everywhere.hpp>
#include <asyncio/testing/faults.hpp>
#include <asyncio/testing/virtual_time.hpp>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <unistd.h>
#include <utility>
#include <vector>

using namespace std::chrono_literals;
using asyncio::Address;
using asyncio::as_result;
using asyncio::Coro;
using asyncio::create_task;
using asyncio::DatagramEndpoint;
using asyncio::DatagramOptions;
using asyncio::DatagramProtocol;
using asyncio::DatagramSlot;
using asyncio::DatagramTransport;
using asyncio::open_datagram_endpoint;
using asyncio::OutgoingDatagram;
using asyncio::ReceivedFrom;
using asyncio::sleep;
using asyncio::Socket;
using asyncio::SystemCalls;
using asyncio::testing::Faults;
using asyncio::testing::SystemCall;
using asyncio_test::Reports;
using asyncio_test::text_of;
using asyncio_test::thrown_by;

namespace {

DatagramOptions on_loopback() { return DatagramOptions().local_addr(Address("127.0.0.1", 0)); }
DatagramOptions connected_to(const Address& address) {
    return DatagramOptions().remote_addr(address);
}

// A port at which nobody listens.
Address nobody() {
    Socket socket(AF_INET, SOCK_DGRAM);
    socket.bind(Address("127.0.0.1", 0));
    return socket.getsockname();
}

bool has_ipv6() {
    try {
        Socket socket(AF_INET6, SOCK_DGRAM);
        socket.bind(Address("::1", 0));
        return true;
    } catch (const std::system_error&) {
        return false;
    }
}

// The code of a failure; 0 for none.
template <class T> std::errc code_of(const asyncio::Result<T>& result) {
    if (result) return {};
    try {
        std::rethrow_exception(result.exception());
    } catch (const std::system_error& error) {
        return static_cast<std::errc>(error.code().value());
    } catch (...) {
        return std::errc::not_supported;
    }
}

// A loop whose kernel has no room to send, for as long as it is told to.
struct FullKernel {
    static inline int blocks_left = 0;
    static inline int blocked = 0;
    static inline int epoll = -1;
    static inline int descriptor = -1;
    static inline epoll_event event{};

    static const SystemCalls& calls() {
        static const SystemCalls table = [] {
            SystemCalls t = SystemCalls::real();
            t.epoll_ctl = [](int e, int operation, int d, epoll_event* what) {
                if (operation == EPOLL_CTL_ADD && (what->events & EPOLLET) != 0 &&
                    (what->events & EPOLLOUT) != 0) {
                    epoll = e;
                    descriptor = d;
                    event = *what;
                }
                return ::epoll_ctl(e, operation, d, what);
            };
            t.sendmsg = [](int d, const msghdr* message, int flags) -> ssize_t {
                return refuses(d) ? -1 : ::sendmsg(d, message, flags);
            };
            t.sendmmsg = [](int d, mmsghdr* messages, unsigned count, int flags) {
                return refuses(d) ? -1 : ::sendmmsg(d, messages, count, flags);
            };
            return t;
        }();
        return table;
    }
    // The last descriptor that was attached; -1: for ever.
    static bool refuses(int d) {
        if (d != descriptor || blocks_left == 0) return false;
        ++blocked;
        if (blocks_left > 0) {
            --blocks_left;
            make_edge();
        }
        errno = EAGAIN;
        return true;
    }
    // What the kernel does when there is room again.
    static void make_edge() { ::epoll_ctl(epoll, EPOLL_CTL_MOD, descriptor, &event); }
    static void reset(int blocks) {
        blocks_left = blocks;
        blocked = 0;
        descriptor = -1;
    }
};

template <class Body> void run_with_full_kernel(Body body) {
    FullKernel::reset(0);
    auto loop = asyncio::new_event_loop(asyncio::LoopOptions().system_calls(FullKernel::calls()));
    asyncio::run_until_complete(*loop, body());
}

TEST(Datagrams, go_there_and_back) {
    asyncio::run([]() -> Coro<> {
        DatagramEndpoint server = co_await open_datagram_endpoint(on_loopback());
        DatagramEndpoint client = co_await open_datagram_endpoint(on_loopback());
        auto task = create_task(
            [](DatagramEndpoint& s) -> Coro<> {
                for (int i = 0; i < 3; ++i) {
                    ReceivedFrom got = co_await s.recvfrom();
                    got.data += "!";
                    co_await s.sendto(got.data, got.address);
                }
            },
            std::ref(server));
        for (const std::string text : {"one", "two", "three"}) {
            co_await client.sendto(text, server.sockname());
            const ReceivedFrom answer = co_await client.recvfrom();
            EXPECT_EQ(answer.data, text + "!");
            EXPECT_EQ(answer.address, server.sockname());
        }
        co_await task;
    });
}

TEST(Datagrams, go_over_ipv6) {
    if (!has_ipv6()) GTEST_SKIP() << "this machine has no ::1";
    asyncio::run([]() -> Coro<> {
        const DatagramOptions options =
            DatagramOptions().local_addr(Address("::1", 0)).ipv6_only(true);
        DatagramEndpoint server = co_await open_datagram_endpoint(options);
        DatagramEndpoint client = co_await open_datagram_endpoint(connected_to(server.sockname()));
        EXPECT_EQ(client.peername(), server.sockname());
        co_await client.send("hello");
        const ReceivedFrom got = co_await server.recvfrom();
        EXPECT_EQ(got.data, "hello");
        EXPECT_EQ(got.address, client.sockname());
        EXPECT_EQ(got.address.host(), "::1");
    });
}

TEST(Datagrams, of_ipv4_reach_an_ipv6_endpoint_that_is_not_ipv6_only) {
    if (!has_ipv6()) GTEST_SKIP() << "this machine has no ::1";
    asyncio::run([]() -> Coro<> {
        DatagramEndpoint both = co_await open_datagram_endpoint(
            DatagramOptions().local_addr(Address("::", 0)).ipv6_only(false));
        DatagramEndpoint client = co_await open_datagram_endpoint(on_loopback());
        co_await client.sendto("4", Address("127.0.0.1", both.sockname().port()));
        const ReceivedFrom got = co_await both.recvfrom();
        EXPECT_EQ(got.address.host(), "::ffff:127.0.0.1");
    });
}

TEST(Datagrams, of_strangers_do_not_reach_a_connected_endpoint) {
    asyncio::run([]() -> Coro<> {
        DatagramEndpoint server = co_await open_datagram_endpoint(on_loopback());
        DatagramEndpoint stranger = co_await open_datagram_endpoint(on_loopback());
        DatagramEndpoint client = co_await open_datagram_endpoint(connected_to(server.sockname()));
        co_await stranger.sendto("from a stranger", client.sockname());
        co_await server.sendto("from the peer", client.sockname());
        const std::string got = co_await client.recv();
        EXPECT_EQ(got, "from the peer");
    });
}

TEST(Datagrams, to_nobody_fail_the_await_that_receives_and_the_endpoint_goes_on) {
    asyncio::run([]() -> Coro<> {
        const Address address = nobody();
        DatagramEndpoint client = co_await open_datagram_endpoint(connected_to(address));
        auto task = create_task(
            [](DatagramEndpoint& c) -> Coro<std::string> { co_return co_await c.recv(); },
            std::ref(client));
        co_await sleep(0);
        co_await client.send("anyone?");
        const auto result = co_await as_result(task);
        EXPECT_EQ(code_of(result), std::errc::connection_refused);
        EXPECT_EQ(text_of(result.exception()),
                  "exception: recv from " + address.text() + ": Connection refused");
        EXPECT_FALSE(client.socket().state("test").has_hung_up());

        DatagramEndpoint server =
            co_await open_datagram_endpoint(DatagramOptions().local_addr(address));
        co_await client.send("and now?");
        const ReceivedFrom got = co_await server.recvfrom();
        EXPECT_EQ(got.data, "and now?");
        co_await server.sendto("yes", got.address);
        const std::string answer = co_await client.recv();
        EXPECT_EQ(answer, "yes");
    });
}

TEST(Datagrams, to_nobody_fail_the_next_send_and_the_one_after_is_made) {
    asyncio::run([]() -> Coro<> {
        const Address address = nobody();
        DatagramEndpoint client = co_await open_datagram_endpoint(connected_to(address));
        co_await client.send("anyone?");
        const auto refused = co_await as_result(client.send("anyone?"));
        EXPECT_EQ(code_of(refused), std::errc::connection_refused);
        EXPECT_EQ(text_of(refused.exception()),
                  "exception: send to " + address.text() + ": Connection refused");
        DatagramEndpoint server =
            co_await open_datagram_endpoint(DatagramOptions().local_addr(address));
        co_await client.send("here");
        const ReceivedFrom got = co_await server.recvfrom();
        EXPECT_EQ(got.data, "here");
    });
}

TEST(Datagrams, that_come_back_tell_where_they_were_sent_if_errors_are_reported) {
    asyncio::run([]() -> Coro<> {
        const Address first = nobody();
        const Address second = nobody();
        DatagramEndpoint server = co_await open_datagram_endpoint(on_loopback());
        DatagramEndpoint client =
            co_await open_datagram_endpoint(on_loopback().report_errors(true));
        // The sends do not fail, though the errors are there already.
        co_await client.sendto("1", first);
        co_await client.sendto("2", second);
        co_await client.sendto("3", server.sockname());
        const ReceivedFrom got = co_await server.recvfrom();
        EXPECT_EQ(got.data, "3");
        co_await server.sendto("answer", client.sockname());

        std::vector<Address> destinations;
        std::string answer;
        while (answer.empty()) {
            auto result = co_await as_result(client.recvfrom());
            if (result) {
                answer = result.value().data;
                continue;
            }
            try {
                std::rethrow_exception(result.exception());
            } catch (const asyncio::DatagramError& error) {
                EXPECT_EQ(error.code(), std::errc::connection_refused);
                EXPECT_EQ(std::string(error.what()), "recvfrom: of a datagram to " +
                                                         error.destination().text() +
                                                         ": Connection refused");
                destinations.push_back(error.destination());
            }
            if (destinations.size() > 5) break;
        }
        EXPECT_EQ(answer, "answer");
        EXPECT_EQ(destinations, (std::vector<Address>{first, second}));

        // And so to who waits already.
        auto task = create_task(
            [](DatagramEndpoint& c) -> Coro<ReceivedFrom> { co_return co_await c.recvfrom(); },
            std::ref(client));
        co_await sleep(0);
        co_await client.sendto("4", second);
        const auto late = co_await as_result(task);
        EXPECT_TRUE(late.failed_with<asyncio::DatagramError>());
        // One that fails by itself does so, and leaves nothing behind for who receives.
        const std::string huge(70'000, 'x');
        const auto too_large = co_await as_result(client.sendto(huge, server.sockname()));
        EXPECT_EQ(code_of(too_large), std::errc::message_size);
        co_await server.sendto("still there", client.sockname());
        const ReceivedFrom last = co_await client.recvfrom();
        EXPECT_EQ(last.data, "still there");
    });
}

TEST(Datagrams, of_ipv6_that_come_back_tell_where_they_were_sent) {
    if (!has_ipv6()) GTEST_SKIP() << "this machine has no ::1";
    asyncio::run([]() -> Coro<> {
        Address gone;
        {
            Socket socket(AF_INET6, SOCK_DGRAM);
            socket.bind(Address("::1", 0));
            gone = socket.getsockname();
        }
        DatagramEndpoint client = co_await open_datagram_endpoint(
            DatagramOptions().local_addr(Address("::1", 0)).report_errors(true));
        co_await client.sendto("x", gone);
        const auto result = co_await as_result(client.recvfrom());
        try {
            std::rethrow_exception(result.exception());
        } catch (const asyncio::DatagramError& error) {
            EXPECT_EQ(error.destination().host(), "::1");
            EXPECT_EQ(error.destination().port(), gone.port());
        }
    });
}

TEST(Datagrams, are_broadcast_only_where_that_is_allowed) {
    asyncio::run([]() -> Coro<> {
        DatagramEndpoint server = co_await open_datagram_endpoint(
            DatagramOptions().local_addr(Address("127.255.255.255", 0)));
        DatagramEndpoint client = co_await open_datagram_endpoint(on_loopback());
        const auto denied = co_await as_result(client.sendto("all", server.sockname()));
        EXPECT_EQ(code_of(denied), std::errc::permission_denied);

        // Not connected: it hears anyone who answers, and knows where to send.
        DatagramEndpoint allowed = co_await open_datagram_endpoint(
            on_loopback().allow_broadcast(true).remote_addr(server.sockname()));
        EXPECT_EQ(thrown_by([&] { return allowed.peername(); }),
                  "exception: getpeername: Transport endpoint is not connected");
        co_await allowed.send("all");
        const ReceivedFrom got = co_await server.recvfrom();
        EXPECT_EQ(got.data, "all");
        EXPECT_EQ(got.address, allowed.sockname());
        co_await client.sendto("me", allowed.sockname());
        const ReceivedFrom answer = co_await allowed.recvfrom();
        EXPECT_EQ(answer.address, client.sockname());
    });
}

Coro<std::string> to_a_group(Address any, Address group) {
    DatagramEndpoint receiver =
        co_await open_datagram_endpoint(DatagramOptions().local_addr(any).reuse_port(true));
    DatagramEndpoint sender =
        co_await open_datagram_endpoint(DatagramOptions().family(any.family()));
    try {
        join_group(receiver.socket(), group, "lo");
        set_multicast_interface(sender.socket(), "lo");
    } catch (const std::system_error& error) {
        co_return std::string("skipped: ") + error.what();
    }
    set_multicast_ttl(sender.socket(), 0);
    set_multicast_loop(sender.socket(), true);
    const Address to = group.with_port(receiver.sockname().port());
    const auto sent = co_await as_result(sender.sendto("to the group", to));
    if (!sent) co_return "skipped: " + text_of(sent.exception());
    const ReceivedFrom got = co_await receiver.recvfrom();
    leave_group(receiver.socket(), group, "lo");
    EXPECT_EQ(thrown_by([&] { leave_group(receiver.socket(), group, "lo"); }),
              "exception: leave_group " + group.host() + ": Cannot assign requested address");
    // Nobody is in the group now.
    co_await sender.sendto("to nobody", to);
    co_await sender.sendto("to one", Address(any.family() == AF_INET ? "127.0.0.1" : "::1",
                                             receiver.sockname().port()));
    const ReceivedFrom next = co_await receiver.recvfrom();
    EXPECT_EQ(next.data, "to one");
    co_return got.data;
}

TEST(Datagrams, reach_who_has_joined_their_group) {
    const std::string got =
        asyncio::run(to_a_group(Address("0.0.0.0", 0), Address("239.255.77.1", 0)));
    if (got.starts_with("skipped")) GTEST_SKIP() << got;
    EXPECT_EQ(got, "to the group");
}

TEST(Datagrams, of_ipv6_reach_who_has_joined_their_group) {
    if (!has_ipv6()) GTEST_SKIP() << "this machine has no ::1";
    const std::string got = asyncio::run(to_a_group(Address("::", 0), Address("ff02::4d01%lo", 0)));
    if (got.starts_with("skipped")) GTEST_SKIP() << got;
    EXPECT_EQ(got, "to the group");
}

TEST(Datagrams, are_refused_for_what_is_no_group_and_no_interface) {
    asyncio::run([]() -> Coro<> {
        DatagramEndpoint endpoint = co_await open_datagram_endpoint(on_loopback());
        EXPECT_EQ(thrown_by([&] { join_group(endpoint.socket(), Address("127.0.0.1", 1)); }),
                  "ValueError: 127.0.0.1:1 is no multicast group: these are from 224.0.0.0 to "
                  "239.255.255.255, or begin with ff");
        EXPECT_EQ(
            thrown_by([&] { join_group(endpoint.socket(), Address("239.255.77.1", 0), "none0"); }),
            "ValueError: there is no network interface 'none0'");
    });
}

struct Room {
    std::array<char, 100> bytes;
};
std::vector<DatagramSlot> slots_in(std::vector<Room>& rooms) {
    std::vector<DatagramSlot> slots;
    slots.reserve(rooms.size());
    for (Room& room : rooms) slots.emplace_back(room.bytes);
    return slots;
}

TEST(Datagrams, go_in_batches) {
    asyncio::run([]() -> Coro<> {
        DatagramEndpoint server = co_await open_datagram_endpoint(on_loopback());
        DatagramEndpoint client = co_await open_datagram_endpoint(connected_to(server.sockname()));
        DatagramEndpoint other = co_await open_datagram_endpoint(on_loopback());
        std::vector<std::string> texts;
        for (int i = 0; i < 100; ++i) texts.push_back(std::to_string(i));
        std::vector<OutgoingDatagram> outgoing;
        for (const std::string& text : texts) outgoing.push_back({text});

        std::span<const OutgoingDatagram> rest(outgoing);
        std::vector<std::size_t> counts;
        while (!rest.empty()) {
            const std::size_t sent = co_await client.sendmany(rest);
            counts.push_back(sent);
            rest = rest.subspan(sent);
        }
        EXPECT_EQ(counts, (std::vector<std::size_t>{64, 36}));
        co_await other.sendto("last", server.sockname());

        std::vector<Room> rooms(128);
        std::vector<DatagramSlot> slots = slots_in(rooms);
        std::vector<std::string> got;
        while (got.size() < 101) {
            const std::size_t count = co_await server.recvmany(slots);
            EXPECT_GE(count, 1U);
            for (std::size_t i = 0; i < count; ++i) {
                const bool is_last = got.size() == 100;
                got.emplace_back(slots[i].data());
                EXPECT_EQ(slots[i].address(), is_last ? other.sockname() : client.sockname());
                EXPECT_FALSE(slots[i].truncated());
            }
        }
        texts.emplace_back("last");
        EXPECT_EQ(got, texts);

        // It waits, and takes what is there when something is.
        auto task = create_task(
            [](DatagramEndpoint& s, std::span<DatagramSlot> into) -> Coro<std::size_t> {
                co_return co_await s.recvmany(into);
            },
            std::ref(server), std::span(slots).first(3));
        co_await sleep(0);
        co_await other.sendto("a", server.sockname());
        co_await other.sendto(std::string(150, 'b'), server.sockname());
        const std::size_t two = co_await task;
        EXPECT_EQ(two, 2U);
        EXPECT_EQ(slots[0].data(), "a");
        EXPECT_EQ(slots[1].data(), std::string(100, 'b'));
        EXPECT_TRUE(slots[1].truncated());
        EXPECT_EQ(slots[1].full_size(), 150U);

        const std::size_t none_received = co_await server.recvmany(std::span<DatagramSlot>());
        const std::size_t none_sent = co_await client.sendmany(std::span<OutgoingDatagram>());
        EXPECT_EQ(none_received, 0U);
        EXPECT_EQ(none_sent, 0U);
    });
}

TEST(Datagrams, of_a_batch_are_sent_up_to_the_one_that_fails) {
    asyncio::run([]() -> Coro<> {
        DatagramEndpoint server = co_await open_datagram_endpoint(on_loopback());
        DatagramEndpoint client = co_await open_datagram_endpoint(on_loopback());
        const std::string huge(70'000, 'x');
        const Address to = server.sockname();
        const std::vector<OutgoingDatagram> outgoing = {
            {"first", to}, {"second", to}, {huge, to}, {"fourth", to}};
        const std::span<const OutgoingDatagram> all(outgoing);
        const std::size_t sent = co_await client.sendmany(all);
        EXPECT_EQ(sent, 2U);
        const auto failed = co_await as_result(client.sendmany(all.subspan(sent)));
        EXPECT_EQ(text_of(failed.exception()),
                  "exception: sendmany to " + to.text() + ": Message too long");
        const std::size_t rest = co_await client.sendmany(all.subspan(sent + 1));
        EXPECT_EQ(rest, 1U);
        for (const std::string text : {"first", "second", "fourth"}) {
            const std::string got = co_await server.recv();
            EXPECT_EQ(got, text);
        }
    });
}

TEST(Datagrams, may_have_65507_bytes_and_not_one_more) {
    asyncio::run([]() -> Coro<> {
        DatagramEndpoint server = co_await open_datagram_endpoint(on_loopback());
        DatagramEndpoint client = co_await open_datagram_endpoint(connected_to(server.sockname()));
        std::string data(65'507, 'x');
        data.back() = 'y';
        co_await client.send(data);
        const std::string got = co_await server.recv();
        EXPECT_EQ(got, data);
        data += 'z';
        const auto result = co_await as_result(client.send(data));
        EXPECT_EQ(text_of(result.exception()),
                  "exception: send to " + server.sockname().text() + ": Message too long");
        co_await client.send("after");
        const std::string after = co_await server.recv();
        EXPECT_EQ(after, "after");
    });
}

TEST(Datagrams, that_do_not_fit_tell_it) {
    asyncio::run([]() -> Coro<> {
        DatagramEndpoint server = co_await open_datagram_endpoint(on_loopback());
        DatagramEndpoint client = co_await open_datagram_endpoint(connected_to(server.sockname()));
        std::array<char, 4> buffer{};
        co_await client.send("123456");
        const asyncio::ReceivedInto cut = co_await server.recvfrom_into(buffer);
        EXPECT_EQ(cut.count, 4U);
        EXPECT_EQ(cut.full_size, 6U);
        EXPECT_TRUE(cut.truncated());
        EXPECT_EQ(std::string_view(buffer.data(), cut.count), "1234");
        co_await client.send("abcd");
        const asyncio::ReceivedInto whole = co_await server.recvfrom_into(buffer);
        EXPECT_EQ(whole.count, 4U);
        EXPECT_FALSE(whole.truncated());
        EXPECT_EQ(whole.address, client.sockname());
        EXPECT_EQ(std::string_view(buffer.data(), whole.count), "abcd");
    });
}

TEST(Datagrams, may_be_empty) {
    asyncio::run([]() -> Coro<> {
        DatagramEndpoint server = co_await open_datagram_endpoint(on_loopback());
        DatagramEndpoint client = co_await open_datagram_endpoint(connected_to(server.sockname()));
        co_await client.send("");
        const ReceivedFrom got = co_await server.recvfrom();
        EXPECT_EQ(got.data, "");
        EXPECT_EQ(got.address, client.sockname());
        co_await client.send("");
        const asyncio::ReceivedInto nothing =
            co_await server.recvfrom_into(asyncio::WritableBytes());
        EXPECT_EQ(nothing.full_size, 0U);
        EXPECT_FALSE(nothing.truncated());
    });
}

namespace {

// So that there is no room for another one: gives how many it has taken.
int fill(const Address& address) {
    int count = 0;
    for (;;) {
        const Socket socket(AF_UNIX, SOCK_DGRAM); // each has a buffer of its own
        if (::sendto(socket.fileno(), "x", 1, MSG_DONTWAIT, address.data(), address.size()) != 1)
            break;
        ++count;
    }
    EXPECT_EQ(errno, EAGAIN);
    return count;
}

} // namespace

TEST(Datagrams, of_unix_are_whole_though_they_are_large) {
    const std::string path = testing::TempDir() + "asyncio_datagrams_" + std::to_string(::getpid());
    asyncio::run([&]() -> Coro<> {
        const Address address = Address::unix_path(path);
        {
            Socket left_over(AF_UNIX, SOCK_DGRAM);
            left_over.bind(address);
        }
        DatagramEndpoint server =
            co_await open_datagram_endpoint(DatagramOptions().local_addr(address));
        DatagramEndpoint client = co_await open_datagram_endpoint(connected_to(address));
        const std::string large(100'000, 'x');
        co_await client.send(large);
        co_await client.send("small");
        const ReceivedFrom got = co_await server.recvfrom();
        EXPECT_EQ(got.data, large);
        EXPECT_EQ(got.address.family(), AF_UNSPEC);
        const std::string small = co_await server.recv();
        EXPECT_EQ(small, "small");

        // It waits for room.
        fill(address);
        auto waiting = create_task([](DatagramEndpoint& c) -> Coro<> { co_await c.send("last"); },
                                   std::ref(client));
        for (int i = 0; i < 5; ++i) co_await sleep(0);
        EXPECT_FALSE(waiting.done());
        std::string data = "x";
        while (data == "x") data = co_await server.recv();
        EXPECT_EQ(data, "last");
        co_await waiting;
    });
    std::filesystem::remove(path);
}

// A Unix socket whose receiver, to which it is not connected, has no room. There are three ways in
// which coroutines send, and each is to wait in the same way.
namespace {

Address abstract_address() {
    static int number = 0;
    return Address::unix_path(std::string(1, '\0') + "asyncio_datagrams_" +
                              std::to_string(::getpid()) + "_" + std::to_string(++number));
}
struct ReceiverWithoutRoom {
    Address address = abstract_address();
    DatagramEndpoint receiver{make(address)};
    DatagramEndpoint sender{Socket(AF_UNIX, SOCK_DGRAM), address};
    int filled = fill(address);

    static Socket make(const Address& address) {
        Socket socket(AF_UNIX, SOCK_DGRAM);
        socket.bind(address);
        return socket;
    }
    Coro<> make_room(int count) const {
        for (int i = 0; i < count; ++i) {
            const std::string data = co_await receiver.recv();
            EXPECT_EQ(data, "x");
        }
    }
};
Coro<> send_by(int way, DatagramEndpoint& sender, std::string data, Address address) {
    if (way == 0) {
        co_await asyncio::sock_sendto(sender.socket(), data, address);
    } else if (way == 1) {
        co_await sender.sendto(data, address);
    } else {
        const std::array<OutgoingDatagram, 1> one = {OutgoingDatagram{data, address}};
        const std::size_t count = co_await sender.sendmany(one);
        EXPECT_EQ(count, 1U);
    }
}
constexpr int ways = 3;
long sends(const Faults& faults) {
    return faults.calls(SystemCall::sendmsg) + faults.calls(SystemCall::sendmmsg);
}
template <class Body> void run_counted(Body body) {
    asyncio::testing::VirtualClock clock;
    Faults faults;
    asyncio::run(body(faults), asyncio::RunOptions().clock(clock).loop(
                                   asyncio::LoopOptions().system_calls(Faults::table())));
}

} // namespace

TEST(Datagrams, of_unix_wait_for_room_without_being_connected_and_do_not_spin) {
    run_counted([](Faults& faults) -> Coro<> {
        for (int way = 0; way < ways; ++way) {
            SCOPED_TRACE(way);
            ReceiverWithoutRoom ends;
            const long before = sends(faults);
            auto task = create_task(send_by(way, ends.sender, "last", ends.address));
            co_await sleep(1s);
            EXPECT_FALSE(task.done());
            const long tries = sends(faults) - before;
            EXPECT_GE(tries, 40);
            EXPECT_LE(tries, 60);
            for (int i = 0; i < 1000; ++i) co_await sleep(0); // in no time
            EXPECT_EQ(sends(faults) - before, tries);
            co_await ends.make_room(ends.filled);
            co_await asyncio::wait_for(task, 21ms);
            const std::string last = co_await ends.receiver.recv();
            EXPECT_EQ(last, "last");
            // The next one begins with a short while again.
            co_await send_by(way, ends.sender, "x", ends.address);
            ends.filled = fill(ends.address) + 1;
            auto next = create_task(send_by(way, ends.sender, "next", ends.address));
            co_await sleep(0);
            co_await ends.make_room(ends.filled);
            co_await asyncio::wait_for(next, 3ms);
            const std::string text = co_await ends.receiver.recv();
            EXPECT_EQ(text, "next");
        }
    });
}

TEST(Datagrams, of_unix_that_wait_for_room_keep_their_order_though_some_are_cancelled) {
    run_counted([](Faults&) -> Coro<> {
        for (int way = 0; way < ways; ++way) {
            SCOPED_TRACE(way);
            ReceiverWithoutRoom ends;
            std::vector<asyncio::Task<>> tasks;
            for (int i = 0; i < 6; ++i) {
                tasks.push_back(create_task(
                    send_by((way + i) % ways, ends.sender, std::to_string(i), ends.address)));
                co_await sleep(3ms);
            }
            for (const int i : {0, 3, 5}) {
                tasks[static_cast<std::size_t>(i)].cancel(); // the first, one amid, the last
                const auto result = co_await as_result(tasks[static_cast<std::size_t>(i)]);
                EXPECT_TRUE(result.failed_with<asyncio::CancelledError>());
            }
            // Room for one at a time; and there is always one more who comes just then.
            std::vector<asyncio::Task<>> late;
            std::string got;
            for (int i = 0; i < ends.filled + 5; ++i) {
                const std::string data = co_await ends.receiver.recv();
                if (data != "x") got += data;
                if (i < 2)
                    late.push_back(
                        create_task(send_by(way, ends.sender, i == 0 ? "a" : "b", ends.address)));
                co_await sleep(25ms);
            }
            EXPECT_EQ(got, "124ab");
            for (auto& task : tasks) EXPECT_TRUE(task.done());
            for (auto& task : late) co_await task;
        }
    });
}

TEST(Datagrams, of_unix_that_wait_for_room_stand_a_cancel_at_every_await_and_a_close) {
    for (int way = 0; way < ways; ++way) {
        SCOPED_TRACE(way);
        const int cancels =
            asyncio::testing::cancel_everywhere([way](asyncio::testing::LeakToken token) -> Coro<> {
                ReceiverWithoutRoom ends;
                co_await asyncio::task_group([&](asyncio::TaskGroup& group) -> Coro<> {
                    group.create_task([&]() -> Coro<> {
                        const auto kept = token;
                        co_await send_by(way, ends.sender, "last", ends.address);
                    });
                    co_await sleep(5ms);
                    co_await ends.make_room(ends.filled);
                });
                const std::string last = co_await ends.receiver.recv();
                EXPECT_EQ(last, "last");
            });
        EXPECT_GE(cancels, 3);
    }
    run_counted([](Faults&) -> Coro<> {
        for (int way = 0; way < ways; ++way) {
            ReceiverWithoutRoom ends;
            auto task = create_task(send_by(way, ends.sender, "never", ends.address));
            co_await sleep(5ms);
            ends.sender.close();
            const auto result = co_await as_result(task);
            EXPECT_EQ(code_of(result), std::errc::bad_file_descriptor);
        }
    });
    // Left waiting when the loop closes.
    ReceiverWithoutRoom left;
    auto loop = asyncio::new_event_loop();
    const Reports reports(*loop); // of tasks that are destroyed
    for (int way = 0; way < ways; ++way) {
        auto task = asyncio::create_task(*loop, send_by(way, left.sender, "never", left.address));
        asyncio::run_until_complete(*loop, []() -> Coro<> { co_await sleep(5ms); }());
        EXPECT_FALSE(task.done());
    }
    loop.reset();
    EXPECT_EQ(reports.count(), 3U) << reports.text();
}

TEST(Datagrams, refuse_options_that_contradict_each_other) {
    const auto opened = [](const DatagramOptions& options) {
        return thrown_by([&] { return asyncio::run(open_datagram_endpoint(options)).is_closed(); });
    };
    EXPECT_EQ(opened(DatagramOptions()),
              "ValueError: unexpected address family: give the endpoint a local_addr, a "
              "remote_addr, or a family");
    EXPECT_EQ(opened(on_loopback().remote_addr(Address("::1", 5))),
              "ValueError: local_addr, remote_addr and family of an endpoint must be of one "
              "family, and [::1]:5 is of another");
    EXPECT_EQ(opened(on_loopback().ipv6_only(true)),
              "ValueError: ipv6_only is for an endpoint of IPv6");
    EXPECT_EQ(thrown_by([] {
                  DatagramEndpoint endpoint(Socket(AF_INET, SOCK_STREAM));
                  return 0;
              }),
              "ValueError: a datagram socket was expected, and this is one of streams");
    EXPECT_EQ(thrown_by([] {
                  DatagramEndpoint endpoint{Socket()};
                  return 0;
              }),
              "ValueError: a datagram socket was expected, and this is closed");
    const Address taken("127.0.0.1", 0);
    Socket socket(AF_INET, SOCK_DGRAM);
    socket.bind(taken);
    EXPECT_EQ(opened(DatagramOptions().local_addr(socket.getsockname())),
              "exception: bind to " + socket.getsockname().text() + ": Address already in use");
    EXPECT_EQ(opened(DatagramOptions().family(AF_INET)), "nothing");
}

TEST(Datagrams, share_a_port_if_both_ask_for_it) {
    asyncio::run([]() -> Coro<> {
        DatagramEndpoint first = co_await open_datagram_endpoint(on_loopback().reuse_port(true));
        DatagramEndpoint second = co_await open_datagram_endpoint(
            DatagramOptions().local_addr(first.sockname()).reuse_port(true));
        EXPECT_EQ(first.sockname(), second.sockname());
        const auto third = co_await as_result(
            open_datagram_endpoint(DatagramOptions().local_addr(first.sockname())));
        EXPECT_EQ(code_of(third), std::errc::address_in_use);
    });
}

TEST(Datagrams, wake_who_waits_when_the_endpoint_is_closed) {
    asyncio::run([]() -> Coro<> {
        DatagramEndpoint endpoint = co_await open_datagram_endpoint(on_loopback());
        std::vector<Room> rooms(2);
        std::vector<DatagramSlot> slots = slots_in(rooms);
        auto one = create_task([](DatagramEndpoint& e) -> Coro<> { co_await e.recvfrom(); },
                               std::ref(endpoint));
        auto many =
            create_task([](DatagramEndpoint& e,
                           std::vector<DatagramSlot>& s) -> Coro<> { co_await e.recvmany(s); },
                        std::ref(endpoint), std::ref(slots));
        co_await sleep(0);
        endpoint.close();
        EXPECT_TRUE(endpoint.is_closed());
        const auto first = co_await as_result(one);
        const auto second = co_await as_result(many);
        EXPECT_EQ(text_of(first.exception()),
                  "exception: recvfrom: the socket was closed meanwhile: Bad file descriptor");
        EXPECT_EQ(text_of(second.exception()),
                  "exception: recvmany: the socket was closed meanwhile: Bad file descriptor");
        EXPECT_EQ(thrown_by([&] {
                      static_cast<void>(endpoint.recv());
                      return 0;
                  }),
                  "exception: recv: the socket is closed: Bad file descriptor");
    });
}

TEST(Datagrams, are_not_lost_by_a_cancel) {
    asyncio::run([]() -> Coro<> {
        DatagramEndpoint server = co_await open_datagram_endpoint(on_loopback());
        DatagramEndpoint client = co_await open_datagram_endpoint(connected_to(server.sockname()));
        auto task = create_task([](DatagramEndpoint& s) -> Coro<> { co_await s.recvfrom(); },
                                std::ref(server));
        co_await sleep(0);
        co_await client.send("kept");
        task.cancel();
        const auto result = co_await as_result(task);
        EXPECT_TRUE(result.failed_with<asyncio::CancelledError>());
        const std::string kept = co_await server.recv();
        EXPECT_EQ(kept, "kept");
    });
}

TEST(Datagrams, stand_a_cancel_at_every_await) {
    const int cancels =
        asyncio::testing::cancel_everywhere([](asyncio::testing::LeakToken token) -> Coro<> {
            DatagramEndpoint server = co_await open_datagram_endpoint(on_loopback());
            DatagramEndpoint client =
                co_await open_datagram_endpoint(connected_to(server.sockname()));
            std::vector<Room> rooms(3);
            std::vector<DatagramSlot> slots = slots_in(rooms);
            std::array<char, 10> buffer{};
            const std::array<OutgoingDatagram, 2> outgoing = {OutgoingDatagram{"a"},
                                                              OutgoingDatagram{"b"}};
            auto body = [&](asyncio::TaskGroup& group) -> Coro<> {
                // So that the loop has something to do, and looks for the socket's edges.
                group.create_task([]() -> Coro<> {
                    for (int i = 0; i < 30; ++i) co_await sleep(0);
                });
                group.create_task([&]() -> Coro<> {
                    const auto kept = token;
                    const std::string one = co_await server.recv();
                    EXPECT_EQ(one, "1");
                    const asyncio::ReceivedInto two = co_await server.recvfrom_into(buffer);
                    EXPECT_EQ(two.count, 1U);
                    std::size_t three = 0;
                    while (three < 2) three += co_await server.recvmany(slots);
                    EXPECT_EQ(three, 2U);
                });
                for (int i = 0; i < 3; ++i) co_await sleep(0);
                co_await client.send("1");
                for (int i = 0; i < 3; ++i) co_await sleep(0);
                co_await client.send("2");
                for (int i = 0; i < 3; ++i) co_await sleep(0);
                const std::size_t sent = co_await client.sendmany(outgoing);
                EXPECT_EQ(sent, 2U);
            };
            co_await asyncio::task_group(body);
        });
    EXPECT_GE(cancels, 10);
}

TEST(Datagrams, wait_for_room_in_the_kernel) {
    run_with_full_kernel([]() -> Coro<> {
        DatagramEndpoint server = co_await open_datagram_endpoint(on_loopback());
        DatagramEndpoint client = co_await open_datagram_endpoint(connected_to(server.sockname()));
        co_await client.send("first"); // attached last, so it is the one
        FullKernel::blocks_left = 2;
        co_await client.send("second");
        EXPECT_EQ(FullKernel::blocked, 2);
        FullKernel::blocks_left = 1;
        const std::array<OutgoingDatagram, 2> outgoing = {OutgoingDatagram{"third"},
                                                          OutgoingDatagram{"fourth"}};
        const std::size_t sent = co_await client.sendmany(outgoing);
        EXPECT_EQ(sent, 2U);
        EXPECT_EQ(FullKernel::blocked, 3);

        // Cancelled, it has sent nothing.
        FullKernel::blocks_left = -1;
        auto task = create_task(
            [](DatagramEndpoint& c, std::span<const OutgoingDatagram> what) -> Coro<> {
                co_await c.sendmany(what);
            },
            std::ref(client), std::span(outgoing));
        co_await sleep(0);
        EXPECT_FALSE(task.done());
        task.cancel();
        const auto result = co_await as_result(task);
        EXPECT_TRUE(result.failed_with<asyncio::CancelledError>());
        FullKernel::blocks_left = 0;
        FullKernel::make_edge();
        co_await client.send("fifth");
        for (const std::string text : {"first", "second", "third", "fourth", "fifth"}) {
            const std::string got = co_await server.recv();
            EXPECT_EQ(got, text);
        }
    });
}

TEST(Datagrams, in_a_flood_let_others_run) {
    asyncio::run([]() -> Coro<> {
        DatagramEndpoint endpoint = co_await open_datagram_endpoint(on_loopback());
        const Address self = endpoint.sockname();
        int turns = 0;
        bool over = false;
        auto other = create_task(
            [](int& t, bool& o) -> Coro<> {
                while (!o) {
                    ++t;
                    co_await sleep(0);
                }
            },
            std::ref(turns), std::ref(over));
        std::array<char, 10> buffer{};
        // Each receives what it has sent to itself, and never has to wait.
        for (int i = 0; i < 1000; ++i) {
            co_await endpoint.sendto("x", self);
            static_cast<void>(co_await endpoint.recvfrom_into(buffer));
        }
        EXPECT_GE(turns, 2000 / 65);
        turns = 0;
        std::vector<Room> rooms(16);
        std::vector<DatagramSlot> slots = slots_in(rooms);
        const std::vector<OutgoingDatagram> outgoing(16, OutgoingDatagram{"x", self});
        for (int i = 0; i < 100; ++i) {
            const std::size_t sent = co_await endpoint.sendmany(outgoing);
            for (std::size_t got = 0; got < sent;) got += co_await endpoint.recvmany(slots);
        }
        EXPECT_GE(turns, 3200 / 80) << "each datagram of a batch counts";
        over = true;
        co_await other;
    });
}

// --- callbacks ---

struct Recorder : DatagramProtocol {
    std::vector<std::string> log;
    DatagramTransport transport;
    bool throws_at_data = false;

    void connection_made(DatagramTransport t) override {
        transport = std::move(t);
        log.emplace_back("made");
    }
    void datagram_received(std::string_view data, const Address& address) override {
        log.push_back("got " + std::string(data));
        from = address;
        if (throws_at_data) throw std::runtime_error("cannot stand data");
    }
    void error_received(const std::system_error& error) override {
        log.push_back(std::string("error ") + error.what());
    }
    void connection_lost(std::exception_ptr exception) override {
        log.push_back("lost " + text_of(exception));
    }
    void pause_writing() override { log.emplace_back("pause"); }
    void resume_writing() override { log.emplace_back("resume"); }

    Address from;
};
using Log = std::vector<std::string>;

// Turns, until the protocol has this many entries; bounded.
Coro<> until(const Recorder& protocol, std::size_t entries) {
    for (int i = 0; i < 1000 && protocol.log.size() < entries; ++i) co_await sleep(0);
}

TEST(DatagramTransports, tell_a_protocol_what_comes_and_send_what_it_gives) {
    asyncio::run([]() -> Coro<> {
        DatagramEndpoint peer = co_await open_datagram_endpoint(on_loopback());
        const auto made = co_await asyncio::create_datagram_endpoint(
            [] { return std::make_shared<Recorder>(); }, on_loopback());
        Recorder& protocol = *made.protocol;
        EXPECT_EQ(protocol.log, Log{"made"});
        EXPECT_EQ(protocol.transport, made.transport);
        EXPECT_EQ(made.transport.peername().family(), AF_UNSPEC);
        EXPECT_EQ(made.transport.get_protocol(), made.protocol);
        const Address address = made.transport.sockname();
        co_await peer.sendto("one", address);
        co_await peer.sendto("", address);
        co_await until(protocol, 3);
        EXPECT_EQ(protocol.log, (Log{"made", "got one", "got "}));
        EXPECT_EQ(protocol.from, peer.sockname());
        made.transport.sendto("answer", protocol.from);
        const ReceivedFrom answer = co_await peer.recvfrom();
        EXPECT_EQ(answer.data, "answer");
        EXPECT_EQ(answer.address, address);

        made.transport.close();
        EXPECT_TRUE(made.transport.is_closing());
        EXPECT_EQ(protocol.log.size(), 3U) << "not from inside of close()";
        made.transport.close();
        co_await sleep(0);
        EXPECT_EQ(protocol.log, (Log{"made", "got one", "got ", "lost null"}));
        EXPECT_EQ(made.transport.get_protocol(), nullptr);
        EXPECT_FALSE(made.transport.socket().is_open());
        made.transport.abort();
        co_await sleep(0);
        EXPECT_EQ(protocol.log.size(), 4U);
    });
}

TEST(DatagramTransports, are_made_before_who_asked_for_them_goes_on_and_read_after_that) {
    asyncio::run([]() -> Coro<> {
        DatagramEndpoint peer = co_await open_datagram_endpoint(on_loopback());
        Socket socket(AF_INET, SOCK_DGRAM);
        socket.bind(Address("127.0.0.1", 0));
        co_await peer.sendto("early", socket.getsockname());
        const auto made = co_await asyncio::create_datagram_endpoint(
            [] { return std::make_shared<Recorder>(); }, std::move(socket));
        EXPECT_EQ(made.protocol->log, Log{"made"});
        co_await until(*made.protocol, 2);
        EXPECT_EQ(made.protocol->log, (Log{"made", "got early"}));
        made.transport.abort();
    });
}

TEST(DatagramTransports, tell_errors_and_go_on) {
    asyncio::run([]() -> Coro<> {
        const Address address = nobody();
        const auto made = co_await asyncio::create_datagram_endpoint(
            [] { return std::make_shared<Recorder>(); }, connected_to(address));
        Recorder& protocol = *made.protocol;
        EXPECT_EQ(made.transport.peername(), address);
        made.transport.sendto("anyone?");
        co_await until(protocol, 2);
        EXPECT_EQ(protocol.log,
                  (Log{"made", "error recvfrom from " + address.text() + ": Connection refused"}));
        made.transport.sendto(std::string(70'000, 'x'), address);
        EXPECT_EQ(protocol.log.back(), "error sendto to " + address.text() + ": Message too long");
        DatagramEndpoint server =
            co_await open_datagram_endpoint(DatagramOptions().local_addr(address));
        made.transport.sendto("here");
        const ReceivedFrom got = co_await server.recvfrom();
        co_await server.sendto("hello", got.address);
        co_await until(protocol, 4);
        EXPECT_EQ(protocol.log.back(), "got hello");
        EXPECT_FALSE(made.transport.is_closing());
        made.transport.close();
    });
}

TEST(DatagramTransports, tell_where_it_was_sent_what_comes_back) {
    asyncio::run([]() -> Coro<> {
        const Address first = nobody();
        const Address second = nobody();
        const auto made = co_await asyncio::create_datagram_endpoint(
            [] { return std::make_shared<Recorder>(); }, on_loopback().report_errors(true));
        made.transport.sendto("1", first);
        made.transport.sendto("2", second);
        co_await until(*made.protocol, 3);
        EXPECT_EQ(
            made.protocol->log,
            (Log{"made",
                 "error recvfrom: of a datagram to " + first.text() + ": Connection refused",
                 "error recvfrom: of a datagram to " + second.text() + ": Connection refused"}));
        made.transport.close();
    });
}

TEST(DatagramTransports, refuse_another_address_than_the_remote_one) {
    asyncio::run([]() -> Coro<> {
        DatagramEndpoint peer = co_await open_datagram_endpoint(on_loopback());
        const auto factory = [] { return std::make_shared<Recorder>(); };
        const auto connected =
            co_await asyncio::create_datagram_endpoint(factory, connected_to(peer.sockname()));
        const Address other("127.0.0.1", 1);
        EXPECT_EQ(thrown_by([&] {
                      connected.transport.sendto("x", other);
                      return 0;
                  }),
                  "ValueError: Invalid address: this endpoint sends to " + peer.sockname().text() +
                      " only, not to 127.0.0.1:1");
        const auto loose = co_await asyncio::create_datagram_endpoint(factory, on_loopback());
        EXPECT_EQ(thrown_by([&] {
                      loose.transport.sendto("x");
                      return 0;
                  }),
                  "ValueError: sendto() needs an address: this endpoint has no remote_addr");
        // Not connected, but it knows where to send.
        const auto broadcasts = co_await asyncio::create_datagram_endpoint(
            factory, on_loopback().allow_broadcast(true).remote_addr(peer.sockname()));
        broadcasts.transport.sendto("x");
        broadcasts.transport.sendto("y", peer.sockname());
        const std::string x = co_await peer.recv();
        const std::string y = co_await peer.recv();
        EXPECT_EQ(x + y, "xy");
        EXPECT_EQ(thrown_by([&] {
                      DatagramTransport().sendto("x");
                      return 0;
                  }),
                  "RuntimeError: this DatagramTransport is of nothing: keep the one that "
                  "connection_made() or create_datagram_endpoint() gives");
        EXPECT_TRUE(DatagramTransport().is_closing());
        connected.transport.close();
        loose.transport.close();
        broadcasts.transport.close();
    });
}

TEST(DatagramTransports, keep_what_the_kernel_does_not_take_and_pause_the_protocol) {
    run_with_full_kernel([]() -> Coro<> {
        DatagramEndpoint peer = co_await open_datagram_endpoint(on_loopback());
        co_await peer.sendto("", peer.sockname()); // attached before the other
        static_cast<void>(co_await peer.recv());
        const auto made = co_await asyncio::create_datagram_endpoint(
            [] { return std::make_shared<Recorder>(); }, connected_to(peer.sockname()));
        Recorder& protocol = *made.protocol;
        const DatagramTransport& transport = made.transport;
        EXPECT_EQ(transport.get_write_buffer_limits(),
                  (std::pair<std::size_t, std::size_t>(16 * 1024, 64 * 1024)));
        transport.set_write_buffer_limits(40, 18);
        FullKernel::blocks_left = -1;
        std::string first = "first";
        transport.sendto(first);
        first = "other"; // a copy was kept
        EXPECT_EQ(transport.get_write_buffer_size(), 13U);
        transport.sendto("");
        EXPECT_EQ(transport.get_write_buffer_size(), 21U);
        transport.sendto("12345678901"); // 40: not above
        EXPECT_EQ(protocol.log, Log{"made"});
        transport.sendto("");
        EXPECT_EQ(protocol.log, (Log{"made", "pause"}));
        transport.sendto("last");
        EXPECT_EQ(transport.get_write_buffer_size(), 60U);
        EXPECT_EQ(FullKernel::blocked, 1) << "known to be full";
        EXPECT_EQ(protocol.log, (Log{"made", "pause"}));

        FullKernel::blocks_left = 0;
        FullKernel::make_edge();
        co_await until(protocol, 3);
        EXPECT_EQ(protocol.log, (Log{"made", "pause", "resume"}));
        EXPECT_EQ(transport.get_write_buffer_size(), 0U);
        for (const std::string text : {"first", "", "12345678901", "", "last"}) {
            const std::string got = co_await peer.recv();
            EXPECT_EQ(got, text);
        }
        // Lowering the limit pauses at once; and what is wrong is refused.
        FullKernel::blocks_left = -1;
        transport.sendto("x");
        transport.set_write_buffer_limits(0);
        EXPECT_EQ(protocol.log.back(), "pause");
        EXPECT_EQ(thrown_by([&] {
                      transport.set_write_buffer_limits(1, 2);
                      return 0;
                  }),
                  "ValueError: high (1) must be >= low (2)");
        transport.set_write_buffer_limits({}, 100);
        EXPECT_EQ(transport.get_write_buffer_limits(),
                  (std::pair<std::size_t, std::size_t>(100, 400)));

        // close() sends it first.
        transport.close();
        for (int i = 0; i < 3; ++i) co_await sleep(0);
        EXPECT_EQ(protocol.log.back(), "pause");
        FullKernel::blocks_left = 0;
        FullKernel::make_edge();
        co_await until(protocol, 6);
        EXPECT_EQ(protocol.log, (Log{"made", "pause", "resume", "pause", "resume", "lost null"}));
        const std::string x = co_await peer.recv();
        EXPECT_EQ(x, "x");
    });
}

TEST(DatagramTransports, of_unix_keep_what_a_receiver_has_no_room_for) {
    run_counted([](Faults& faults) -> Coro<> {
        ReceiverWithoutRoom ends;
        auto made = co_await asyncio::create_datagram_endpoint(
            [] { return std::make_shared<Recorder>(); }, Socket(AF_UNIX, SOCK_DGRAM));
        const long before = sends(faults);
        made.transport.sendto("one", ends.address);
        made.transport.sendto("two", ends.address);
        EXPECT_EQ(made.transport.get_write_buffer_size(), 2 * (3U + 8U));
        co_await sleep(1s);
        EXPECT_LE(sends(faults) - before, 60);
        co_await ends.make_room(ends.filled);
        made.transport.close();
        const std::string one = co_await ends.receiver.recv();
        const std::string two = co_await ends.receiver.recv();
        EXPECT_EQ(one + " " + two, "one two");
        co_await until(*made.protocol, 2);
        EXPECT_EQ(made.protocol->log, (Log{"made", "lost null"}));
    });
}

TEST(DatagramTransports, drop_what_they_keep_when_they_are_aborted) {
    run_with_full_kernel([]() -> Coro<> {
        const Reports reports(asyncio::get_running_loop());
        DatagramEndpoint peer = co_await open_datagram_endpoint(on_loopback());
        auto made = co_await asyncio::create_datagram_endpoint(
            [] { return std::make_shared<Recorder>(); }, connected_to(peer.sockname()));
        FullKernel::blocks_left = -1;
        made.transport.sendto("dropped");
        made.transport.close();
        made.transport.abort();
        EXPECT_EQ(made.transport.get_write_buffer_size(), 0U);
        co_await until(*made.protocol, 2);
        EXPECT_EQ(made.protocol->log, (Log{"made", "lost null"}));
        for (int i = 0; i < 10; ++i) made.transport.sendto("too late");
        EXPECT_EQ(reports.count("sendto() was called again after the transport was lost"), 6U)
            << reports.text();
        asyncio::get_running_loop().set_exception_handler(nullptr);
    });
}

// Whether connection_lost() was called already, or is still to come.
TEST(DatagramTransports, say_that_data_is_dropped_at_the_fifth_time_and_each_that_follows) {
    asyncio::run([]() -> Coro<> {
        for (const bool is_over : {false, true}) {
            const Reports reports(asyncio::get_running_loop());
            DatagramEndpoint peer = co_await open_datagram_endpoint(on_loopback());
            auto made = co_await asyncio::create_datagram_endpoint(
                [] { return std::make_shared<Recorder>(); }, connected_to(peer.sockname()));
            made.transport.close();
            if (is_over) co_await until(*made.protocol, 2);
            for (std::size_t i = 1; i <= 7; ++i) {
                made.transport.sendto("too late");
                EXPECT_EQ(reports.count(), i < 5 ? 0U : i - 4) << reports.text();
            }
            co_await until(*made.protocol, 2);
            asyncio::get_running_loop().set_exception_handler(nullptr);
        }
    });
}

TEST(DatagramTransports, report_what_callbacks_throw_and_go_on) {
    asyncio::run([]() -> Coro<> {
        const Reports reports(asyncio::get_running_loop());
        DatagramEndpoint peer = co_await open_datagram_endpoint(on_loopback());
        const auto made = co_await asyncio::create_datagram_endpoint(
            [] { return std::make_shared<Recorder>(); }, on_loopback());
        made.protocol->throws_at_data = true;
        co_await peer.sendto("1", made.transport.sockname());
        co_await peer.sendto("2", made.transport.sockname());
        co_await until(*made.protocol, 3);
        EXPECT_EQ(made.protocol->log, (Log{"made", "got 1", "got 2"}));
        EXPECT_EQ(reports.count("Exception in callback\ntransport: <DatagramTransport at " +
                                made.transport.sockname().text() + ">"),
                  2U)
            << reports.text();
        EXPECT_EQ(text_of(reports.all.front().exception), "exception: cannot stand data");
        EXPECT_FALSE(made.transport.is_closing());
        made.transport.close();
        co_await sleep(0);
        asyncio::get_running_loop().set_exception_handler(nullptr);
    });
}

TEST(DatagramTransports, report_what_pausing_and_losing_throw) {
    struct Throws final : DatagramProtocol {
        void pause_writing() override { throw std::runtime_error("no pause"); }
        void resume_writing() override { throw std::runtime_error("no resume"); }
        void connection_lost(std::exception_ptr) override { throw std::runtime_error("no end"); }
    };
    run_with_full_kernel([]() -> Coro<> {
        const Reports reports(asyncio::get_running_loop());
        DatagramEndpoint peer = co_await open_datagram_endpoint(on_loopback());
        auto made = co_await asyncio::create_datagram_endpoint(
            [] { return std::make_shared<Throws>(); }, connected_to(peer.sockname()));
        FullKernel::blocks_left = -1;
        made.transport.set_write_buffer_limits(0);
        made.transport.sendto("x");
        made.transport.close();
        FullKernel::blocks_left = 0;
        FullKernel::make_edge();
        const std::string x = co_await peer.recv();
        EXPECT_EQ(x, "x");
        for (int i = 0; i < 5; ++i) co_await sleep(0);
        EXPECT_EQ(reports.count(), 3U) << reports.text();
        EXPECT_EQ(reports.count("protocol.pause_writing() failed"), 1U);
        EXPECT_EQ(reports.count("protocol.resume_writing() failed"), 1U);
        EXPECT_EQ(reports.count("Exception in callback"), 1U);
        EXPECT_FALSE(made.transport.socket().is_open());
        asyncio::get_running_loop().set_exception_handler(nullptr);
    });
}

TEST(DatagramTransports, may_be_closed_and_changed_by_their_callbacks) {
    struct Once final : Recorder {
        std::shared_ptr<DatagramProtocol> next;
        void datagram_received(std::string_view data, const Address& address) override {
            Recorder::datagram_received(data, address);
            DatagramTransport self = transport;
            if (next != nullptr) {
                self.set_protocol(std::move(next)); // may destroy this
            } else {
                self.abort();
            }
        }
    };
    asyncio::run([]() -> Coro<> {
        DatagramEndpoint peer = co_await open_datagram_endpoint(on_loopback());
        auto made = co_await asyncio::create_datagram_endpoint(
            [] { return std::make_shared<Once>(); }, on_loopback());
        const auto next = std::make_shared<Once>();
        next->transport = made.transport;
        made.protocol->next = next;
        made.protocol.reset();
        for (const char* text : {"1", "2", "3"})
            co_await peer.sendto(text, made.transport.sockname());
        co_await until(*next, 2);
        EXPECT_EQ(next->log, (Log{"got 2", "lost null"}));
        EXPECT_EQ(thrown_by([&] {
                      made.transport.set_protocol(nullptr);
                      return 0;
                  }),
                  "ValueError: set_protocol() needs a protocol, not null");
    });
}

TEST(DatagramTransports, stay_open_without_a_handle_and_go_with_their_loop) {
    std::weak_ptr<Recorder> left;
    Log log;
    {
        auto loop = asyncio::new_event_loop();
        auto kept = std::make_shared<DatagramTransport>();
        asyncio::run_until_complete(
            *loop, [](std::weak_ptr<Recorder>& weak, DatagramTransport& out) -> Coro<> {
                DatagramEndpoint peer = co_await open_datagram_endpoint(on_loopback());
                Address address;
                {
                    const auto made = co_await asyncio::create_datagram_endpoint(
                        [] { return std::make_shared<Recorder>(); }, on_loopback());
                    address = made.transport.sockname();
                    weak = made.protocol;
                    made.protocol->transport = DatagramTransport();
                }
                co_await peer.sendto("still there", address);
                const auto protocol = weak.lock();
                co_await until(*protocol, 2);
                EXPECT_EQ(protocol->log.back(), "got still there");
                // And with one: of those that are open as the loop is closed, nothing is told.
                const auto other = co_await asyncio::create_datagram_endpoint(
                    [] { return std::make_shared<Recorder>(); }, on_loopback());
                out = other.transport;
            }(left, *kept));
        log = left.lock()->log;
        Socket late(AF_INET, SOCK_DGRAM);
        const Address address = kept->sockname();
        EXPECT_EQ(::sendto(late.fileno(), "late", 4, 0, address.data(), address.size()), 4);
        EXPECT_FALSE(kept->is_closing());
        loop->close();
        EXPECT_TRUE(kept->is_closing());
        EXPECT_EQ(kept->get_protocol(), nullptr);
        EXPECT_FALSE(kept->socket().is_open());
        kept->sendto("nowhere", Address("127.0.0.1", 1));
        kept->close();
        kept->abort();
    }
    EXPECT_TRUE(left.expired());
    EXPECT_EQ(log, (Log{"made", "got still there"}));
}

TEST(DatagramTransports, that_are_closing_go_with_their_loop) {
    std::weak_ptr<Recorder> left;
    auto loop = asyncio::new_event_loop();
    asyncio::run_until_complete(*loop, [](std::weak_ptr<Recorder>& weak) -> Coro<> {
        auto made = co_await asyncio::create_datagram_endpoint(
            [] { return std::make_shared<Recorder>(); }, on_loopback());
        weak = made.protocol;
        made.transport.close(); // connection_lost() stands in the ready queue
    }(left));
    loop->close();
    EXPECT_TRUE(left.expired());
}

TEST(DatagramTransports, that_are_not_begun_go_with_their_loop) {
    std::weak_ptr<Recorder> left;
    auto loop = asyncio::new_event_loop();
    auto task = create_task(
        *loop,
        [](std::weak_ptr<Recorder>& weak) -> Coro<> {
            auto factory = [&weak] {
                auto protocol = std::make_shared<Recorder>();
                weak = protocol;
                return protocol;
            };
            static_cast<void>(co_await asyncio::create_datagram_endpoint(factory, on_loopback()));
        },
        std::ref(left));
    loop->set_exception_handler([](asyncio::EventLoop&, const asyncio::ExceptionContext&) {});
    loop->stop();
    loop->run_forever();
    EXPECT_FALSE(left.expired());
    loop->close();
    EXPECT_TRUE(left.expired());
}

TEST(DatagramTransports, whose_socket_was_closed_behind_their_back_are_lost) {
    asyncio::run([]() -> Coro<> {
        const auto made = co_await asyncio::create_datagram_endpoint(
            [] { return std::make_shared<Recorder>(); }, on_loopback());
        for (int i = 0; i < 3; ++i) co_await sleep(0);
        made.transport.socket().close();
        co_await until(*made.protocol, 2);
        EXPECT_EQ(made.protocol->log,
                  (Log{"made", "lost exception: DatagramTransport: the socket was closed "
                               "meanwhile: Bad file descriptor"}));
    });
}

TEST(DatagramTransports, stand_a_cancel_while_they_are_made) {
    const int cancels =
        asyncio::testing::cancel_everywhere([](asyncio::testing::LeakToken token) -> Coro<> {
            struct Holder final : DatagramProtocol {
                explicit Holder(asyncio::testing::LeakToken t) : kept(std::move(t)) {}
                asyncio::testing::LeakToken kept;
            };
            auto factory = [&token] { return std::make_shared<Holder>(token); };
            auto made = co_await asyncio::create_datagram_endpoint(factory, on_loopback());
            made.transport.close();
            co_await sleep(0);
        });
    EXPECT_GE(cancels, 2);
}

TEST(DatagramTransports, survive_an_interrupt_out_of_a_callback) {
    struct Interrupts final : Recorder {
        void datagram_received(std::string_view data, const Address& address) override {
            Recorder::datagram_received(data, address);
            if (data == "1") throw asyncio::KeyboardInterrupt();
        }
    };
    auto loop = asyncio::new_event_loop();
    DatagramTransport transport;
    const auto protocol = std::make_shared<Interrupts>();
    asyncio::run_until_complete(
        *loop, [](const std::shared_ptr<Interrupts>& p, DatagramTransport& t) -> Coro<> {
            const auto made =
                co_await asyncio::create_datagram_endpoint([&p] { return p; }, on_loopback());
            t = made.transport;
        }(protocol, transport));
    const auto send = [](Address address, std::string text) -> Coro<> {
        DatagramEndpoint peer = co_await open_datagram_endpoint(on_loopback());
        co_await peer.sendto(text, address);
        for (int i = 0; i < 5; ++i) co_await sleep(0);
    };
    EXPECT_THROW(asyncio::run_until_complete(*loop, send(transport.sockname(), "1")),
                 asyncio::KeyboardInterrupt);
    asyncio::run_until_complete(*loop, send(transport.sockname(), "2"));
    EXPECT_EQ(protocol->log, (Log{"made", "got 1", "got 2"}));
    transport.close();
    loop->set_exception_handler([](asyncio::EventLoop&, const asyncio::ExceptionContext&) {});
    loop->close();
}

TEST(DatagramTransports, in_a_flood_let_others_run) {
    struct Echo final : Recorder {
        int count = 0;
        void datagram_received(std::string_view data, const Address& address) override {
            if (++count < 2000) transport.sendto(data, address);
        }
    };
    asyncio::run([]() -> Coro<> {
        const auto made = co_await asyncio::create_datagram_endpoint(
            [] { return std::make_shared<Echo>(); }, on_loopback());
        made.protocol->transport.sendto("to itself", made.transport.sockname());
        int turns = 0;
        while (made.protocol->count < 2000) {
            ++turns;
            co_await sleep(0);
        }
        EXPECT_GE(turns, 2000 / 64);
        made.transport.close();
    });
}

TEST(DatagramTransports, call_back_in_the_context_in_which_they_were_made) {
    static asyncio::ContextVar<int> variable("variable", 0);
    struct Reads final : Recorder {
        std::vector<int> values;
        void datagram_received(std::string_view data, const Address& address) override {
            Recorder::datagram_received(data, address);
            values.push_back(variable.get());
            variable.set(variable.get() + 1);
        }
    };
    asyncio::run([]() -> Coro<> {
        DatagramEndpoint peer = co_await open_datagram_endpoint(on_loopback());
        variable.set(5);
        const auto made = co_await asyncio::create_datagram_endpoint(
            [] { return std::make_shared<Reads>(); }, on_loopback());
        variable.set(100);
        co_await peer.sendto("1", made.transport.sockname());
        co_await peer.sendto("2", made.transport.sockname());
        co_await until(*made.protocol, 3);
        EXPECT_EQ(made.protocol->values, (std::vector<int>{5, 6}));
        EXPECT_EQ(variable.get(), 100);
        made.transport.close();
    });
}

TEST(DatagramTransports, that_take_long_are_reported_in_debug_mode) {
    struct Slow final : Recorder {
        void datagram_received(std::string_view data, const Address& address) override {
            const auto until = std::chrono::steady_clock::now() + 2ms;
            while (std::chrono::steady_clock::now() < until) {
            }
            Recorder::datagram_received(data, address);
        }
    };
    auto loop = asyncio::new_event_loop(asyncio::LoopOptions().debug(true));
    loop->set_slow_callback_duration(1ms);
    const Reports reports(*loop);
    asyncio::run_until_complete(*loop, []() -> Coro<> {
        DatagramEndpoint peer = co_await open_datagram_endpoint(on_loopback());
        const auto made = co_await asyncio::create_datagram_endpoint(
            [] { return std::make_shared<Slow>(); }, on_loopback());
        co_await peer.sendto("1", made.transport.sockname());
        co_await until(*made.protocol, 2);
        made.transport.close();
        co_await sleep(0);
    }());
    EXPECT_EQ(reports.count("Executing <DatagramTransport at 127.0.0.1:"), 1U) << reports.text();
    loop->close();
}

} // namespace
