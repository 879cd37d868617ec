// SPDX-License-Identifier: MIT
#include <asyncio/asyncio.hpp>
#include <gtest/gtest.h>

#include "support/sockets.hpp"

#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <netinet/tcp.h>
#include <unistd.h>

using namespace std::chrono_literals;
using asyncio::Address;
using asyncio::Coro;
using asyncio::ReadableBytes;
using asyncio::Socket;
using asyncio::WritableBytes;
using asyncio_test::connected;
using asyncio_test::failure_of;
using asyncio_test::listening;
using asyncio_test::receive;
using asyncio_test::receive_all;
using asyncio_test::thrown_by;

namespace {

Coro<> echo(Socket& socket) {
    for (;;) {
        const std::string data = co_await asyncio::sock_recv(socket, 1000);
        if (data.empty()) break;
        co_await asyncio::sock_sendall(socket, data);
    }
    socket.close();
}

bool is_descriptor(int number) { return ::fcntl(number, F_GETFD) >= 0; }

} // namespace

TEST(Sockets, echo_what_they_get_until_the_peer_ends) {
    asyncio::run([]() -> Coro<> {
        auto both = co_await connected();
        auto task = asyncio::create_task(echo(both.second));
        for (const std::string text : {"hello", "again", "and again"}) {
            co_await asyncio::sock_sendall(both.first, text);
            const std::string answer = co_await asyncio::sock_recv(both.first, 100);
            EXPECT_EQ(answer, text);
        }
        both.first.shutdown(SHUT_WR);
        const std::string end = co_await asyncio::sock_recv(both.first, 100);
        EXPECT_EQ(end, "");
        co_await task;
    });
}

TEST(Sockets, refuse_to_await_an_operation_again) {
    asyncio::run([]() -> Coro<> {
        auto both = co_await connected();
        co_await asyncio::sock_sendall(both.first, "twice");
        auto receiving = asyncio::sock_recv(both.second, 2);
        const std::string first = co_await receiving;
        EXPECT_EQ(first, "tw");
        const auto again = co_await asyncio::as_result(std::move(receiving));
        EXPECT_EQ(failure_of(again),
                  "RuntimeError: cannot reuse already awaited operation: call the function again");
        const std::string rest = co_await asyncio::sock_recv(both.second, 10);
        EXPECT_EQ(rest, "ice");
    });
}

TEST(Sockets, are_kept_by_an_operation_that_is_not_awaited_yet) {
    asyncio::run([]() -> Coro<> {
        auto both = co_await connected();
        auto receiving = asyncio::sock_recv(both.second, 10);
        auto moved = std::move(receiving);
        both.second = Socket();
        const auto result = co_await asyncio::as_result(std::move(moved));
        EXPECT_NE(failure_of(result).find("sock_recv: the socket was closed"), std::string::npos)
            << failure_of(result);
        static_cast<void>(asyncio::sock_recv(both.first, 10)); // awaited never
    });
}

TEST(Sockets, move_a_mebibyte_both_ways_at_the_same_time) {
    asyncio::run([]() -> Coro<> {
        auto both = co_await connected();
        const std::string data(1 << 20, 'x');
        const auto receive_into = [&](Socket& socket) -> Coro<std::size_t> {
            std::size_t total = 0;
            std::array<char, 4096> buffer;
            while (total < data.size()) {
                const std::size_t count = co_await asyncio::sock_recv_into(socket, buffer);
                if (count == 0) break;
                total += count;
            }
            co_return total;
        };
        auto results = co_await asyncio::gather(
            asyncio::sock_sendall(both.first, data), asyncio::sock_sendall(both.second, data),
            receive_into(both.first), receive_into(both.second));
        EXPECT_EQ(std::get<2>(results), data.size());
        EXPECT_EQ(std::get<3>(results), data.size());
    });
}

TEST(Sockets, send_whatever_is_made_of_bytes) {
    asyncio::run([]() -> Coro<> {
        auto both = co_await connected();
        const std::vector<std::byte> bytes = {std::byte{'b'}, std::byte{0}};
        const std::array<unsigned char, 2> array = {'c', 'd'};
        const std::string string = "e";
        co_await asyncio::sock_sendall(both.first, "a");
        co_await asyncio::sock_sendall(both.first, bytes);
        co_await asyncio::sock_sendall(both.first, array);
        co_await asyncio::sock_sendall(both.first, string);
        co_await asyncio::sock_sendall(both.first, std::string_view("fg").substr(1));
        co_await asyncio::sock_sendall(both.first, std::span(bytes).first(1));
        const std::array<ReadableBytes, 4> parts = {"h", bytes, "", string};
        co_await asyncio::sock_sendall(both.first, std::span<const ReadableBytes>(parts));
        both.first.close();
        const std::string all = co_await receive_all(both.second);
        EXPECT_EQ(all, std::string("ab\0cdegbhb\0e", 12).erase(7, 0));
    });
}

TEST(Sockets, receive_into_whatever_can_be_written_to) {
    asyncio::run([]() -> Coro<> {
        auto both = co_await connected();
        co_await asyncio::sock_sendall(both.first, "abcdefghij");
        std::vector<std::byte> bytes(1);
        std::array<unsigned char, 2> array = {};
        char plain[2] = {};
        std::string string(1, ' ');
        std::size_t count = co_await asyncio::sock_recv_into(both.second, bytes);
        EXPECT_EQ(count, 1U);
        EXPECT_EQ(bytes[0], std::byte{'a'});
        count = co_await asyncio::sock_recv_into(both.second, array);
        EXPECT_EQ(count, 2U);
        EXPECT_EQ(array[1], 'c');
        count = co_await asyncio::sock_recv_into(both.second, plain);
        EXPECT_EQ(count, 2U);
        EXPECT_EQ(plain[0], 'd');
        count = co_await asyncio::sock_recv_into(both.second, string);
        EXPECT_EQ(string, "f");
        std::array<char, 2> first = {};
        std::array<char, 10> second = {};
        const std::array<WritableBytes, 3> buffers = {WritableBytes(first), WritableBytes(),
                                                      WritableBytes(second)};
        count =
            co_await asyncio::sock_recv_into(both.second, std::span<const WritableBytes>(buffers));
        EXPECT_EQ(count, 4U);
        EXPECT_EQ(std::string_view(first.data(), 2), "gh");
        EXPECT_EQ(std::string_view(second.data(), 2), "ij");
    });
}

TEST(Sockets, scatter_and_gather_more_pieces_than_one_call_takes) {
    asyncio::run([]() -> Coro<> {
        auto both = co_await connected();
        std::string sent;
        std::vector<std::string> pieces;
        for (std::size_t i = 0; i < 1000; ++i) {
            pieces.emplace_back(i % 7, static_cast<char>('a' + i % 26)); // some are empty
            sent += pieces.back();
        }
        const std::vector<ReadableBytes> parts(pieces.begin(), pieces.end());
        const std::vector<ReadableBytes> nothing(200);
        std::string received;
        const auto read = [&]() -> Coro<> {
            std::vector<char> memory(1000);
            std::vector<WritableBytes> buffers;
            for (std::size_t i = 0; i < 500; ++i) buffers.emplace_back(&memory[2 * i], i % 3);
            while (received.size() < sent.size()) {
                const std::size_t count = co_await asyncio::sock_recv_into(
                    both.second, std::span<const WritableBytes>(buffers));
                EXPECT_GT(count, 0U);
                if (count == 0) break;
                std::size_t left = count;
                for (const WritableBytes& buffer : buffers) {
                    const std::size_t here = std::min(left, buffer.size());
                    received.append(buffer.data(), here);
                    left -= here;
                }
            }
        };
        auto task = asyncio::create_task(read);
        co_await asyncio::sock_sendall(both.first, std::span<const ReadableBytes>(nothing));
        co_await asyncio::sock_sendall(both.first, std::span<const ReadableBytes>(parts));
        co_await task;
        EXPECT_EQ(received, sent);
    });
}

TEST(Sockets, do_not_take_a_row_of_empty_buffers_for_the_end) {
    asyncio::run([]() -> Coro<> {
        auto both = co_await connected();
        std::array<char, 10> last = {};
        std::vector<WritableBytes> buffers(200);
        buffers.emplace_back(last);
        co_await asyncio::sock_sendall(both.first, "hello");
        const std::size_t count =
            co_await asyncio::sock_recv_into(both.second, std::span<const WritableBytes>(buffers));
        EXPECT_EQ(count, 5U);
        EXPECT_STREQ(last.data(), "hello");
    });
}

// As in asyncio: nothing was asked for, so nothing is waited for.
TEST(Sockets, read_and_write_nothing_at_once) {
    asyncio::run([]() -> Coro<> {
        auto tcp = co_await connected();
        auto pair = Socket::pair();
        for (const Socket* socket : {&tcp.first, &pair.first}) {
            const std::string data = co_await asyncio::sock_recv(*socket, 0);
            EXPECT_EQ(data, "");
            std::size_t count = co_await asyncio::sock_recv_into(*socket, WritableBytes());
            EXPECT_EQ(count, 0U);
            count = co_await asyncio::sock_recv_into(*socket, std::span<const WritableBytes>());
            EXPECT_EQ(count, 0U);
            const std::array<WritableBytes, 2> empty = {};
            count =
                co_await asyncio::sock_recv_into(*socket, std::span<const WritableBytes>(empty));
            EXPECT_EQ(count, 0U);
            co_await asyncio::sock_sendall(*socket, "");
            co_await asyncio::sock_sendall(*socket, std::span<const ReadableBytes>());
        }
        // Of messages, none is taken.
        auto messages = Socket::pair(SOCK_DGRAM);
        co_await asyncio::sock_sendall(messages.first, "kept");
        const std::string nothing = co_await asyncio::sock_recv(messages.second, 0);
        EXPECT_EQ(nothing, "");
        const std::string message = co_await asyncio::sock_recv(messages.second, 10);
        EXPECT_EQ(message, "kept");
    });
}

TEST(Sockets, receive_more_than_a_block_at_once) {
    asyncio::run([]() -> Coro<> {
        auto pair = Socket::pair(SOCK_SEQPACKET);
        const std::string large(150'000, 'x');
        pair.first.setsockopt(SOL_SOCKET, SO_SNDBUF, 1'000'000);
        co_await asyncio::sock_sendall(pair.first, large);
        const std::string message = co_await asyncio::sock_recv(pair.second, 200'000);
        EXPECT_EQ(message.size(), large.size());
        EXPECT_TRUE(message == large);
    });
}

TEST(Sockets, refused_say_who_was_asked) {
    asyncio::run([]() -> Coro<> {
        const Address address = listening().getsockname();
        const Socket client(AF_INET, SOCK_STREAM);
        auto result = co_await asyncio::as_result(asyncio::sock_connect(client, address));
        EXPECT_EQ(failure_of(result),
                  "exception: sock_connect to " + address.text() + ": Connection refused");
        try {
            result.value();
        } catch (const std::system_error& error) {
            EXPECT_EQ(error.code(), std::errc::connection_refused);
        }
    });
}

TEST(Sockets, that_were_refused_may_try_again) {
    asyncio::run([]() -> Coro<> {
        const Address address = listening().getsockname();
        const Socket client(AF_INET, SOCK_STREAM);
        // The kernel takes back the attempt of before by failing every second one.
        for (int i = 0; i < 4; ++i) {
            auto result = co_await asyncio::as_result(asyncio::sock_connect(client, address));
            EXPECT_EQ(failure_of(result), "exception: sock_connect to " + address.text() +
                                              (i % 2 == 0 ? ": Connection refused"
                                                          : ": Software caused connection abort"));
        }
        const Socket server = listening();
        co_await asyncio::sock_connect(client, server.getsockname());
        asyncio::Accepted accepted = co_await asyncio::sock_accept(server);
        auto reader = asyncio::create_task(receive(client, 10));
        co_await asyncio::sleep(0);
        co_await asyncio::sock_sendall(accepted.socket, "hello");
        const std::string data = co_await reader;
        EXPECT_EQ(data, "hello");
        auto waits = co_await asyncio::as_result(asyncio::wait_for(receive(client, 10), 1ms));
        EXPECT_TRUE(waits.failed_with<asyncio::TimeoutError>()); // and not spinning, nor at an end
    });
}

// Who reads a socket that is still being connected may be told of the failure first.
TEST(Sockets, are_not_connected_because_a_reader_took_the_error) {
    asyncio::run([]() -> Coro<> {
        const Address address = listening().getsockname();
        const Socket client(AF_INET, SOCK_STREAM);
        const auto connect = [](const Socket& socket, Address to) -> Coro<> {
            co_await asyncio::sock_connect(socket, to);
        };
        auto connecting = asyncio::create_task(connect, std::ref(client), address);
        auto reading = asyncio::create_task(receive(client, 10));
        const auto read = co_await asyncio::as_result(reading);
        EXPECT_EQ(failure_of(read), "exception: sock_recv: Connection refused");
        const auto result = co_await asyncio::as_result(asyncio::wait_for(connecting, 10s));
        EXPECT_EQ(failure_of(result).find("exception: sock_connect to " + address.text() + ": "),
                  0U)
            << failure_of(result);
    });
}

TEST(Sockets, accept_many_that_come_at_once) {
    asyncio::run([]() -> Coro<> {
        const Socket server = listening();
        std::vector<Socket> clients;
        std::vector<Address> addresses;
        for (int i = 0; i < 200; ++i) {
            clients.emplace_back(AF_INET, SOCK_STREAM);
            co_await asyncio::sock_connect(clients.back(), server.getsockname());
            addresses.push_back(clients.back().getsockname());
        }
        for (int i = 0; i < 200; ++i) {
            const asyncio::Accepted accepted = co_await asyncio::sock_accept(server);
            EXPECT_EQ(std::count(addresses.begin(), addresses.end(), accepted.address), 1);
            EXPECT_EQ(accepted.socket.getpeername(), accepted.address);
            EXPECT_EQ(accepted.socket.family(), AF_INET);
            EXPECT_EQ(accepted.socket.type(), SOCK_STREAM);
        }
        const auto none =
            co_await asyncio::as_result(asyncio::wait_for(asyncio::sock_accept(server), 1ms));
        EXPECT_TRUE(none.failed_with<asyncio::TimeoutError>());
    });
}

TEST(Sockets, have_descriptors_that_do_not_block_and_are_not_inherited) {
    asyncio::run([]() -> Coro<> {
        auto both = co_await connected();
        auto pair = Socket::pair();
        for (const Socket* socket : {&both.first, &both.second, &pair.first, &pair.second}) {
            EXPECT_NE(::fcntl(socket->fileno(), F_GETFL) & O_NONBLOCK, 0);
            EXPECT_NE(::fcntl(socket->fileno(), F_GETFD) & FD_CLOEXEC, 0);
            EXPECT_TRUE(socket->is_open());
        }
        EXPECT_EQ(both.first.family(), AF_INET);
        EXPECT_EQ(both.first.type(), SOCK_STREAM);
        EXPECT_EQ(pair.first.family(), AF_UNIX);
        EXPECT_EQ(Socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC).type(), SOCK_DGRAM);
        EXPECT_EQ(Socket::pair(SOCK_SEQPACKET | SOCK_NONBLOCK).first.type(), SOCK_SEQPACKET);
    });
}

TEST(Sockets, take_and_tell_options) {
    Socket socket(AF_INET, SOCK_STREAM);
    socket.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1);
    EXPECT_EQ(socket.getsockopt(IPPROTO_TCP, TCP_NODELAY), 1);
    EXPECT_EQ(socket.getsockopt(SOL_SOCKET, SO_TYPE), SOCK_STREAM);
    EXPECT_EQ(thrown_by([&] { socket.setsockopt(IPPROTO_TCP, 12345, 1); }),
              "exception: setsockopt 12345 of level 6: Protocol not available");
    EXPECT_EQ(thrown_by([&] { return socket.getsockopt(SOL_SOCKET, 12345); }),
              "exception: getsockopt 12345 of level 1: Protocol not available");
}

TEST(Sockets, can_be_made_of_a_descriptor_that_blocks) {
    asyncio::run([]() -> Coro<> {
        std::array<int, 2> ends = {};
        EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
        const Socket socket = Socket::from_descriptor(ends[0]);
        EXPECT_EQ(socket.fileno(), ends[0]);
        EXPECT_EQ(socket.family(), AF_UNIX);
        EXPECT_EQ(socket.type(), SOCK_STREAM);
        EXPECT_NE(::fcntl(ends[0], F_GETFL) & O_NONBLOCK, 0);
        const auto waits =
            co_await asyncio::as_result(asyncio::wait_for(asyncio::sock_recv(socket, 1), 1ms));
        EXPECT_TRUE(waits.failed_with<asyncio::TimeoutError>());
        EXPECT_EQ(::write(ends[1], "x", 1), 1);
        const std::string data = co_await asyncio::sock_recv(socket, 1);
        EXPECT_EQ(data, "x");
        ::close(ends[1]);
    });
}

TEST(Sockets, are_not_made_of_what_is_no_socket) {
    const int file = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    EXPECT_EQ(thrown_by([&] { return Socket::from_descriptor(file).fileno(); }),
              "exception: descriptor " + std::to_string(file) +
                  " as a Socket: Socket operation on non-socket");
    EXPECT_EQ(thrown_by([&] { return Socket::from_descriptor(-1).fileno(); }),
              "exception: descriptor -1 as a Socket: Bad file descriptor");
    EXPECT_TRUE(is_descriptor(file)); // still the caller's
    ::close(file);
    EXPECT_EQ(thrown_by([&] { return Socket(AF_INET, 12345).fileno(); }),
              "exception: socket: Invalid argument");
}

TEST(Sockets, give_up_their_descriptor) {
    asyncio::run([]() -> Coro<> {
        auto both = co_await connected();
        auto task = asyncio::create_task(receive(both.first, 10));
        co_await asyncio::sleep(0);
        const int descriptor = both.first.detach();
        EXPECT_FALSE(both.first.is_open());
        EXPECT_EQ(both.first.fileno(), -1);
        EXPECT_EQ(both.first.detach(), -1);
        const auto result = co_await asyncio::as_result(task);
        EXPECT_EQ(failure_of(result),
                  "exception: sock_recv: the socket was closed meanwhile: Bad file descriptor");
        // The loop has let go of it, so that it can be somebody else's.
        const Socket again = Socket::from_descriptor(descriptor);
        co_await asyncio::sock_sendall(both.second, "hello");
        const std::string data = co_await asyncio::sock_recv(again, 10);
        EXPECT_EQ(data, "hello");
        EXPECT_EQ(Socket().detach(), -1);
    });
}

TEST(Sockets, move_while_somebody_waits_for_them) {
    asyncio::run([]() -> Coro<> {
        auto both = co_await connected();
        auto task = asyncio::create_task(receive(both.first, 10));
        co_await asyncio::sleep(0);
        Socket moved = std::move(both.first);
        EXPECT_FALSE(both.first.is_open()); // NOLINT(bugprone-use-after-move)
        Socket assigned;
        assigned = std::move(moved);
        co_await asyncio::sock_sendall(both.second, "hello");
        const std::string data = co_await task;
        EXPECT_EQ(data, "hello");
        EXPECT_EQ(thrown_by([&] { static_cast<void>(asyncio::sock_recv(both.first, 1)); }),
                  "exception: sock_recv: the socket is closed: Bad file descriptor");
        const int descriptor = assigned.fileno();
        assigned = Socket();
        EXPECT_FALSE(is_descriptor(descriptor));
    });
}

TEST(Sockets, of_nothing_and_closed_ones_say_so) {
    asyncio::run([]() -> Coro<> {
        Socket closed(AF_INET, SOCK_STREAM);
        closed.close();
        closed.close();
        Socket nothing;
        const Address address("127.0.0.1", 1);
        std::array<char, 1> buffer = {};
        const std::array<WritableBytes, 1> buffers = {buffer};
        const std::array<ReadableBytes, 1> parts = {"x"};
        for (Socket* socket : {&closed, &nothing}) {
            const auto error = [&](auto use) { return thrown_by([&] { use(*socket); }); };
            using S = Socket;
            const std::pair<std::string, std::string> errors[] = {
                {"bind", error([&](S& s) { s.bind(address); })},
                {"listen", error([&](S& s) { s.listen(); })},
                {"shutdown", error([&](S& s) { s.shutdown(SHUT_WR); })},
                {"getsockname", error([&](S& s) { static_cast<void>(s.getsockname()); })},
                {"getpeername", error([&](S& s) { static_cast<void>(s.getpeername()); })},
                {"setsockopt", error([&](S& s) { s.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1); })},
                {"getsockopt", error([&](S& s) { s.getsockopt(SOL_SOCKET, SO_TYPE); })},
                {"sock_recv", error([&](S& s) { static_cast<void>(asyncio::sock_recv(s, 1)); })},
                {"sock_recv_into",
                 error([&](S& s) { static_cast<void>(asyncio::sock_recv_into(s, buffer)); })},
                {"sock_recv_into", error([&](S& s) {
                     static_cast<void>(
                         asyncio::sock_recv_into(s, std::span<const WritableBytes>(buffers)));
                 })},
                {"sock_recvfrom",
                 error([&](S& s) { static_cast<void>(asyncio::sock_recvfrom(s, 1)); })},
                {"sock_recvfrom_into",
                 error([&](S& s) { static_cast<void>(asyncio::sock_recvfrom_into(s, buffer)); })},
                {"sock_sendall",
                 error([&](S& s) { static_cast<void>(asyncio::sock_sendall(s, "x")); })},
                {"sock_sendall", error([&](S& s) {
                     static_cast<void>(
                         asyncio::sock_sendall(s, std::span<const ReadableBytes>(parts)));
                 })},
                {"sock_sendto",
                 error([&](S& s) { static_cast<void>(asyncio::sock_sendto(s, "x", address)); })},
                {"sock_connect",
                 error([&](S& s) { static_cast<void>(asyncio::sock_connect(s, address)); })},
                {"sock_accept", error([&](S& s) { static_cast<void>(asyncio::sock_accept(s)); })},
            };
            for (const auto& [operation, text] : errors) {
                EXPECT_EQ(text, "exception: " + operation +
                                    ": the socket is closed: Bad file descriptor");
            }
            EXPECT_EQ(socket->fileno(), -1);
        }
        EXPECT_EQ(nothing.family(), AF_UNSPEC);
        EXPECT_EQ(nothing.type(), 0);
        EXPECT_EQ(nothing.protocol(), 0);
        co_return;
    });
}

TEST(Sockets, are_not_connected_to_no_address) {
    asyncio::run([]() -> Coro<> {
        Socket stream(AF_INET, SOCK_STREAM);
        const auto refused = co_await asyncio::as_result(asyncio::sock_connect(stream, Address()));
        EXPECT_EQ(asyncio_test::text_of(refused.exception()),
                  "ValueError: sock_connect to no address: Address() is none");
        // One of datagrams is not connected any more.
        Socket datagrams(AF_INET, SOCK_DGRAM);
        co_await asyncio::sock_connect(datagrams, Address("127.0.0.1", 9));
        EXPECT_EQ(datagrams.getpeername(), Address("127.0.0.1", 9));
        co_await asyncio::sock_connect(datagrams, Address());
        EXPECT_THROW(datagrams.getpeername(), std::system_error);
    });
}

// The kernel does not know the peer of a socket that was reset any more.
TEST(Sockets, say_who_has_reset_them) {
    asyncio::run([]() -> Coro<> {
        const auto expect_told = [](const Socket& socket, const std::string& peer) -> Coro<> {
            auto read = co_await asyncio::as_result(asyncio::sock_recv(socket, 1));
            EXPECT_EQ(failure_of(read),
                      "exception: sock_recv from " + peer + ": Connection reset by peer");
            EXPECT_THROW(socket.getpeername(), std::system_error);
            auto sent = co_await asyncio::as_result(asyncio::sock_sendall(socket, "x"));
            EXPECT_EQ(failure_of(sent), "exception: sock_sendall to " + peer + ": Broken pipe");
        };
        for (const bool is_server : {false, true}) {
            auto both = co_await connected();
            Socket& socket = is_server ? both.second : both.first;
            Socket& other = is_server ? both.first : both.second;
            const std::string peer = other.getsockname().text();
            asyncio_test::reset(other);
            co_await expect_told(socket, peer);
        }
        // Of a descriptor it is asked for at once.
        auto both = co_await connected();
        const Socket taken = Socket::from_descriptor(both.first.detach());
        const std::string peer = both.second.getsockname().text();
        asyncio_test::reset(both.second);
        co_await expect_told(taken, peer);
    });
}

TEST(Sockets, say_what_has_failed_and_where) {
    asyncio::run([]() -> Coro<> {
        const Socket taken = listening();
        const Address address = taken.getsockname();
        EXPECT_EQ(thrown_by([&] { Socket(AF_INET, SOCK_STREAM).bind(address); }),
                  "exception: bind to " + address.text() + ": Address already in use");
        Socket fresh(AF_INET, SOCK_STREAM);
        EXPECT_EQ(thrown_by([&] { return fresh.getpeername(); }),
                  "exception: getpeername: Transport endpoint is not connected");
        EXPECT_EQ(thrown_by([&] { fresh.shutdown(SHUT_WR); }),
                  "exception: shutdown: Transport endpoint is not connected");
        EXPECT_EQ(thrown_by([&] { Socket(AF_INET, SOCK_DGRAM).listen(); }),
                  "exception: listen: Operation not supported");
        auto recv = co_await asyncio::as_result(asyncio::sock_recv(fresh, 1));
        EXPECT_EQ(failure_of(recv), "exception: sock_recv: Transport endpoint is not connected");
        auto sent = co_await asyncio::as_result(asyncio::sock_sendall(fresh, "x"));
        EXPECT_EQ(failure_of(sent), "exception: sock_sendall: Broken pipe");
        auto accepted = co_await asyncio::as_result(asyncio::sock_accept(fresh));
        EXPECT_EQ(failure_of(accepted), "exception: sock_accept: Invalid argument");
        auto both = co_await connected();
        // The first one that is too many only tells the kernel that we know.
        co_await asyncio::sock_connect(both.first, both.second.getsockname());
        auto again = co_await asyncio::as_result(asyncio::sock_connect(both.first, address));
        EXPECT_EQ(failure_of(again), "exception: sock_connect to " + address.text() +
                                         ": Transport endpoint is already connected");
        both.first.shutdown(SHUT_WR);
        auto ended = co_await asyncio::as_result(asyncio::sock_sendall(both.first, "x"));
        EXPECT_EQ(failure_of(ended), "exception: sock_sendall to " +
                                         both.first.getpeername().text() + ": Broken pipe");
        // Another family.
        auto sixth = co_await asyncio::as_result(asyncio::sock_connect(fresh, Address("::1", 80)));
        EXPECT_EQ(failure_of(sixth), "exception: sock_connect to [::1]:80: Address family not "
                                     "supported by protocol");
    });
}
