// SPDX-License-Identifier: MIT
#include "support/datagrams.hpp"
#include "support/in_virtual_time.hpp"

#include <asyncio/asyncio.hpp>
#include <asyncio/testing/cancel_everywhere.hpp>
#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

using namespace std::chrono_literals;
using asyncio::Address;
using asyncio::as_result;
using asyncio::Coro;
using asyncio::create_task;
using asyncio::DatagramEndpoint;
using asyncio::DatagramOptions;
using asyncio::DatagramSlot;
using asyncio::open_datagram_endpoint;
using asyncio::OutgoingDatagram;
using asyncio::ReceivedFrom;
using asyncio::sleep;
using asyncio::Socket;
using asyncio_test::code_of;
using asyncio_test::connected_to;
using asyncio_test::FullKernel;
using asyncio_test::nobody;
using asyncio_test::on_loopback;
using asyncio_test::run_with_full_kernel;
using asyncio_test::text_of;
using asyncio_test::thrown_by;

namespace {

bool has_ipv6() {
    try {
        Socket socket(AF_INET6, SOCK_DGRAM);
        socket.bind(Address("::1", 0));
        return true;
    } catch (const std::system_error&) {
        return false;
    }
}

} // namespace

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

TEST(Datagrams, that_come_one_by_one_are_soon_many_at_once_again) {
    asyncio::run([]() -> Coro<> {
        DatagramEndpoint server = co_await open_datagram_endpoint(on_loopback());
        DatagramEndpoint client = co_await open_datagram_endpoint(connected_to(server.sockname()));
        std::vector<Room> rooms(64);
        std::vector<DatagramSlot> slots = slots_in(rooms);
        for (int i = 0; i < 10; ++i) {
            co_await client.send("one");
            const std::size_t one = co_await server.recvmany(slots);
            EXPECT_EQ(one, 1U);
        }
        const std::vector<OutgoingDatagram> all(64, OutgoingDatagram{"many"});
        std::vector<std::size_t> counts;
        for (int i = 0; i < 2; ++i) {
            const std::size_t sent = co_await client.sendmany(all);
            EXPECT_EQ(sent, 64U);
            for (std::size_t got = 0; got < sent; got += counts.back()) {
                const std::size_t count = co_await server.recvmany(slots);
                counts.push_back(count);
            }
        }
        EXPECT_EQ(counts, (std::vector<std::size_t>{4, 16, 44, 64}));
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

TEST(Datagrams, go_to_hosts_that_are_looked_up) {
    asyncio::run([]() -> Coro<> {
        DatagramEndpoint server = co_await open_datagram_endpoint(
            DatagramOptions().local_addr("localhost", 0).family(AF_INET));
        EXPECT_EQ(server.sockname().host(), "127.0.0.1");
        const int port = server.sockname().port();
        // Of the remote addresses, which may begin with one of IPv6, that of the local one's
        // family.
        DatagramEndpoint client = co_await open_datagram_endpoint(
            DatagramOptions().local_addr(Address("127.0.0.1", 0)).remote_addr("localhost", port));
        EXPECT_EQ(client.peername(), server.sockname());
        co_await client.send("hello");
        const ReceivedFrom got = co_await server.recvfrom();
        EXPECT_EQ(got.data, "hello");
        EXPECT_EQ(got.address, client.sockname());

        // What is bound to every interface, by an empty host.
        DatagramEndpoint everywhere =
            co_await open_datagram_endpoint(DatagramOptions().local_addr("", 0).family(AF_INET));
        EXPECT_EQ(everywhere.sockname().host(), "0.0.0.0");

        auto created = co_await asyncio::create_datagram_endpoint(
            [] { return std::make_shared<asyncio::DatagramProtocol>(); },
            DatagramOptions().remote_addr("127.0.0.1", port));
        EXPECT_EQ(created.transport.peername(), server.sockname());
        created.transport.sendto("by callbacks");
        const ReceivedFrom second = co_await server.recvfrom();
        EXPECT_EQ(second.data, "by callbacks");
        created.transport.close();
    });
}

TEST(Datagrams, to_hosts_that_cannot_be_had_say_so) {
    const auto opened = [](const DatagramOptions& options) {
        return thrown_by([&] { return asyncio::run(open_datagram_endpoint(options)).is_closed(); });
    };
    EXPECT_EQ(opened(DatagramOptions().remote_addr("nope.invalid", 1)).substr(0, 40),
              "exception: getaddrinfo for 'nope.invalid");
    EXPECT_EQ(opened(DatagramOptions().remote_addr("127.0.0.1", 65536)),
              "ValueError: a port is a number from 0 to 65535, and not 65536");
    EXPECT_EQ(opened(on_loopback().remote_addr("::1", 1)),
              "ValueError: local_addr and remote_addr have no address of the same family");
    // The first failure of several.
    Socket taken(AF_INET, SOCK_DGRAM);
    taken.bind(Address("127.0.0.1", 0));
    EXPECT_EQ(opened(DatagramOptions().local_addr("127.0.0.1", taken.getsockname().port())),
              "exception: bind to " + taken.getsockname().text() + ": Address already in use");
    // The last that was said counts.
    EXPECT_EQ(
        opened(DatagramOptions().local_addr("nope.invalid", 1).local_addr(Address("127.0.0.1", 0))),
        "nothing");
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
