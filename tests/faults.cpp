// SPDX-License-Identifier: MIT
#include <asyncio/events.hpp>
#include <asyncio/exceptions.hpp>
#include <asyncio/testing/faults.hpp>
#include <gtest/gtest.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

using asyncio::SystemCalls;
using asyncio::testing::Fault;
using asyncio::testing::Faults;
using asyncio::testing::SystemCall;
using namespace std::chrono_literals;

namespace {

const SystemCalls& table() { return Faults::table(); }

struct Pair {
    explicit Pair(int type = SOCK_STREAM) {
        EXPECT_EQ(::socketpair(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends.data()), 0);
    }
    ~Pair() {
        for (const int end : ends) ::close(end);
    }
    Pair(const Pair&) = delete;
    Pair& operator=(const Pair&) = delete;
    std::array<int, 2> ends = {};
};

// The events of a descriptor that is watched by itself, at its edges; 0 if there are none.
struct Watched {
    explicit Watched(int descriptor) {
        epoll_event event{.events = EPOLLIN | EPOLLOUT | EPOLLET, .data = {.u64 = 4711}};
        EXPECT_EQ(table().epoll_ctl(epoll, EPOLL_CTL_ADD, descriptor, &event), 0);
    }
    ~Watched() { ::close(epoll); }
    Watched(const Watched&) = delete;
    Watched& operator=(const Watched&) = delete;
    std::uint32_t events() const {
        epoll_event event{};
        const int count = table().epoll_wait(epoll, &event, 1, 0);
        EXPECT_TRUE(count == 0 || event.data.u64 == 4711);
        return count > 0 ? event.events : 0;
    }
    int epoll = ::epoll_create1(EPOLL_CLOEXEC);
};

struct Received {
    ssize_t count;
    int error;
    std::string data;
};
Received receive(int descriptor, std::size_t size) {
    std::string data(size, ' ');
    errno = 0;
    const ssize_t count = table().recv(descriptor, data.data(), size, 0);
    return {count, errno, count > 0 ? data.substr(0, static_cast<std::size_t>(count)) : ""};
}

} // namespace

TEST(Faults, know_each_call_of_the_table_by_its_name_and_its_errors) {
    const auto calls = asyncio::testing::all_system_calls();
    // A call that is new in the table wants a kind, a name and its errors here. so_error is none of
    // the table; the resolver's three and pthread_create are in it, and have no errno.
    EXPECT_EQ(calls.size(), sizeof(SystemCalls) / sizeof(void (*)()) + 1 - 4);
    for (std::size_t i = 0; i < calls.size(); ++i) {
        EXPECT_EQ(static_cast<std::size_t>(calls[i]), i);
        EXPECT_FALSE(std::string(asyncio::testing::name_of(calls[i])).empty());
        EXPECT_FALSE(asyncio::testing::errors_of(calls[i]).empty());
        EXPECT_EQ(asyncio::testing::faults_of(calls[i]).size(),
                  asyncio::testing::errors_of(calls[i]).size());
    }
    EXPECT_STREQ(asyncio::testing::name_of(SystemCall::epoll_pwait2), "epoll_pwait2");
    EXPECT_STREQ(asyncio::testing::name_of(SystemCall::sendmmsg), "sendmmsg");
    EXPECT_STREQ(asyncio::testing::name_of(SystemCall::unlink), "unlink");
    EXPECT_EQ(Fault(SystemCall::recv, ECONNRESET).text(), "recv fails: Connection reset by peer");
    EXPECT_EQ(Fault::shortened(SystemCall::sendmsg, 3).text(), "sendmsg of at most 3 bytes");
    EXPECT_EQ(Fault::shortened(SystemCall::recvmmsg, 3).text(), "recvmmsg of at most 3 messages");
}

TEST(Faults, meet_the_calls_that_they_were_made_for_and_no_others) {
    const Pair pair;
    Faults faults;
    ASSERT_EQ(table().send(pair.ends[1], "abcdef", 6, 0), 6);
    faults.make({SystemCall::recv, ECONNRESET}, 1, 2);
    std::string log;
    for (int i = 0; i < 5; ++i) {
        const Received received = receive(pair.ends[0], 1);
        log += received.count == 1 ? received.data : received.error == ECONNRESET ? "!" : "?";
    }
    EXPECT_EQ(log, "a!!bc");
    EXPECT_EQ(faults.calls(SystemCall::recv), 5);
    EXPECT_EQ(faults.fired(SystemCall::recv), 2);
    EXPECT_EQ(faults.calls(SystemCall::send), 1);
    EXPECT_EQ(faults.fired(SystemCall::send), 0);
    EXPECT_EQ(faults.fired(), 2);
    faults.make({SystemCall::recv, ENOMEM}, 0, Faults::always);
    EXPECT_EQ(receive(pair.ends[0], 1).error, ENOMEM);
    EXPECT_EQ(receive(pair.ends[0], 1).error, ENOMEM);
    faults.clear();
    EXPECT_EQ(receive(pair.ends[0], 1).data, "d");
    EXPECT_EQ(faults.fired(), 4);
}

TEST(Faults, of_two_that_meet_a_call_the_first_counts) {
    const Pair pair;
    Faults faults;
    faults.make({SystemCall::recv, ENOMEM}, 1);
    faults.make({SystemCall::recv, EINTR}, 0, 3);
    EXPECT_EQ(receive(pair.ends[0], 1).error, EINTR);
    EXPECT_EQ(receive(pair.ends[0], 1).error, ENOMEM);
    EXPECT_EQ(receive(pair.ends[0], 1).error, EINTR);
    EXPECT_EQ(receive(pair.ends[0], 1).error, EAGAIN);
    EXPECT_EQ(faults.fired(), 3);
}

TEST(Faults, shorten_what_streams_move_and_leave_messages_whole) {
    const Pair stream;
    const Pair messages(SOCK_DGRAM);
    Faults faults;
    for (const SystemCall call : {SystemCall::recv, SystemCall::send, SystemCall::recvmsg,
                                  SystemCall::sendmsg, SystemCall::read, SystemCall::write})
        faults.make(Fault::shortened(call, 3), 0, Faults::always);

    EXPECT_EQ(table().send(stream.ends[1], "abcdef", 6, 0), 3);
    EXPECT_EQ(table().write(stream.ends[1], "defghi", 6), 3);
    char one[] = "gh";
    char two[] = "ij";
    std::array<iovec, 2> parts = {iovec{one, 2}, iovec{two, 2}};
    msghdr message{};
    message.msg_iov = parts.data();
    message.msg_iovlen = parts.size();
    EXPECT_EQ(table().sendmsg(stream.ends[1], &message, 0), 3);
    EXPECT_EQ(parts[1].iov_len, 2U); // the caller's
    EXPECT_EQ(receive(stream.ends[0], 6).data, "abc");
    char data[8] = {};
    EXPECT_EQ(table().read(stream.ends[0], data, 6), 3);
    EXPECT_STREQ(data, "def");
    EXPECT_EQ(table().recvmsg(stream.ends[0], &message, 0), 3);
    EXPECT_EQ(std::string(one) + two, "ghij");
    EXPECT_EQ(faults.fired(), 6);
    EXPECT_EQ(table().send(stream.ends[1], "xyz", 3, 0), 3);
    EXPECT_EQ(faults.fired(), 6); // it asks for no more
    EXPECT_EQ(faults.calls(SystemCall::send), 2);

    EXPECT_EQ(table().send(messages.ends[1], "abcdef", 6, 0), 6);
    EXPECT_EQ(receive(messages.ends[0], 10).data, "abcdef");
    const int counter = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    const std::uint64_t number = 5;
    EXPECT_EQ(table().write(counter, &number, sizeof number), 8);
    ::close(counter);
    EXPECT_EQ(faults.fired(), 6);
}

TEST(Faults, shorten_calls_of_several_messages_by_messages) {
    const Pair pair(SOCK_DGRAM);
    Faults faults;
    faults.make(Fault::shortened(SystemCall::sendmmsg, 2));
    faults.make(Fault::shortened(SystemCall::recvmmsg, 1));
    std::array<char, 3> bytes = {'a', 'b', 'c'};
    std::array<iovec, 3> parts = {iovec{&bytes[0], 1}, iovec{&bytes[1], 1}, iovec{&bytes[2], 1}};
    std::array<mmsghdr, 3> messages = {};
    for (std::size_t i = 0; i < 3; ++i) {
        messages[i].msg_hdr.msg_iov = &parts[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    EXPECT_EQ(table().sendmmsg(pair.ends[1], messages.data(), 3, 0), 2);
    EXPECT_EQ(table().sendmmsg(pair.ends[1], &messages[2], 1, 0), 1);
    EXPECT_EQ(table().recvmmsg(pair.ends[0], messages.data(), 3, 0, nullptr), 1);
    EXPECT_EQ(table().recvmmsg(pair.ends[0], messages.data(), 3, 0, nullptr), 2);
    EXPECT_EQ(faults.fired(), 2);
}

TEST(Faults, arm_an_edge_again_after_an_invented_eagain_or_short_read) {
    const Pair pair;
    Faults faults;
    const Watched watched(pair.ends[0]);
    EXPECT_EQ(watched.events(), EPOLLOUT);
    EXPECT_EQ(watched.events(), 0U);
    ASSERT_EQ(table().send(pair.ends[1], "abc", 3, 0), 3);
    EXPECT_EQ(watched.events(), EPOLLIN | EPOLLOUT);
    EXPECT_EQ(watched.events(), 0U);

    faults.make({SystemCall::recv, EAGAIN});
    EXPECT_EQ(receive(pair.ends[0], 3).error, EAGAIN);
    EXPECT_EQ(watched.events(), EPOLLIN | EPOLLOUT);
    EXPECT_EQ(watched.events(), 0U);
    faults.make({SystemCall::recv, EINTR}); // who was interrupted asks again at once
    EXPECT_EQ(receive(pair.ends[0], 3).error, EINTR);
    EXPECT_EQ(watched.events(), 0U);
    faults.make(Fault::shortened(SystemCall::recv, 1));
    EXPECT_EQ(receive(pair.ends[0], 3).data, "a");
    EXPECT_EQ(watched.events(), EPOLLIN | EPOLLOUT);
    faults.make({SystemCall::send, EAGAIN});
    EXPECT_EQ(table().send(pair.ends[0], "abc", 3, 0), -1);
    EXPECT_EQ(watched.events(), EPOLLIN | EPOLLOUT);

    // Once it is removed, there is nothing to be armed.
    epoll_event unused{};
    EXPECT_EQ(table().epoll_ctl(watched.epoll, EPOLL_CTL_DEL, pair.ends[0], &unused), 0);
    faults.make({SystemCall::recv, EAGAIN});
    EXPECT_EQ(receive(pair.ends[0], 3).error, EAGAIN);
    EXPECT_EQ(watched.events(), 0U);
    EXPECT_EQ(receive(pair.ends[0], 3).data, "bc");
}

TEST(Faults, let_go_of_a_descriptor_even_when_they_say_otherwise) {
    const Pair pair;
    Faults faults;
    const int copy = ::dup(pair.ends[0]);
    const Watched watched(copy);
    faults.make({SystemCall::epoll_ctl, ENOMEM});
    epoll_event unused{};
    EXPECT_EQ(table().epoll_ctl(watched.epoll, EPOLL_CTL_DEL, copy, &unused), -1);
    EXPECT_EQ(errno, ENOMEM);
    EXPECT_EQ(watched.events(), 0U);
    faults.make({SystemCall::close, EIO});
    EXPECT_EQ(table().close(copy), -1);
    EXPECT_EQ(errno, EIO);
    EXPECT_EQ(::fcntl(copy, F_GETFD), -1);
}

TEST(Faults, let_a_connect_that_is_interrupted_go_on) {
    const int server = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* plain = reinterpret_cast<sockaddr*>(&address);
    ASSERT_GE(server, 0);
    ASSERT_EQ(::bind(server, plain, size), 0);
    ASSERT_EQ(::listen(server, 1), 0);
    ASSERT_EQ(::getsockname(server, plain, &size), 0);
    const int client = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    Faults faults;
    faults.make({SystemCall::connect, EINTR});
    EXPECT_EQ(table().connect(client, plain, size), -1);
    EXPECT_EQ(errno, EINTR);
    EXPECT_EQ(faults.fired(), 1);
    const int accepted = ::accept4(server, nullptr, nullptr, SOCK_CLOEXEC);
    EXPECT_GE(accepted, 0);

    int error = -1;
    socklen_t error_size = sizeof error;
    faults.make({SystemCall::so_error, ETIMEDOUT});
    EXPECT_EQ(table().getsockopt(client, SOL_SOCKET, SO_ERROR, &error, &error_size), 0);
    EXPECT_EQ(error, ETIMEDOUT);
    EXPECT_EQ(table().getsockopt(client, SOL_SOCKET, SO_ERROR, &error, &error_size), 0);
    EXPECT_EQ(error, 0);
    EXPECT_EQ(faults.calls(SystemCall::so_error), 2);
    for (const int descriptor : {server, client, accepted}) ::close(descriptor);
}

TEST(Faults, each_call_of_the_table_can_fail) {
    const Pair pair;
    Faults faults;
    // On descriptors that fail otherwise too: what counts is that the errno is the invented one.
    const SystemCalls& calls = table();
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    int value = 0;
    int two[2] = {-1, -1};
    msghdr message{};
    mmsghdr messages{};
    epoll_event event{};
    struct stat status{};
    const timespec no_time{};
    char byte = 0;
    auto* plain = reinterpret_cast<sockaddr*>(&address);
    const auto make = [&](SystemCall call) -> long {
        switch (call) {
        case SystemCall::epoll_create1:
            return calls.epoll_create1(0);
        case SystemCall::epoll_ctl:
            return calls.epoll_ctl(-1, EPOLL_CTL_ADD, 0, &event);
        case SystemCall::epoll_wait:
            return calls.epoll_wait(-1, &event, 1, 0);
        case SystemCall::epoll_pwait2:
            return calls.epoll_pwait2(-1, &event, 1, &no_time, nullptr);
        case SystemCall::eventfd:
            return calls.eventfd(0, 0);
        case SystemCall::read:
            return calls.read(-1, &byte, 1);
        case SystemCall::write:
            return calls.write(-1, &byte, 1);
        case SystemCall::close:
            return calls.close(-1);
        case SystemCall::fcntl:
            return calls.fcntl(-1, F_GETFL, 0);
        case SystemCall::open:
            return calls.open("", O_RDONLY);
        case SystemCall::stat:
            return calls.stat("", &status);
        case SystemCall::unlink:
            return calls.unlink("");
        case SystemCall::socket:
            return calls.socket(AF_INET, SOCK_STREAM, 0);
        case SystemCall::socketpair:
            return calls.socketpair(AF_UNIX, SOCK_STREAM, 0, two);
        case SystemCall::bind:
            return calls.bind(-1, plain, size);
        case SystemCall::listen:
            return calls.listen(-1, 1);
        case SystemCall::accept4:
            return calls.accept4(-1, plain, &size, 0);
        case SystemCall::connect:
            return calls.connect(-1, plain, size);
        case SystemCall::shutdown:
            return calls.shutdown(-1, SHUT_WR);
        case SystemCall::getsockname:
            return calls.getsockname(-1, plain, &size);
        case SystemCall::getpeername:
            return calls.getpeername(-1, plain, &size);
        case SystemCall::getsockopt:
            return calls.getsockopt(-1, SOL_SOCKET, SO_TYPE, &value, &size);
        case SystemCall::setsockopt:
            return calls.setsockopt(-1, SOL_SOCKET, SO_REUSEADDR, &value, sizeof value);
        case SystemCall::recv:
            return calls.recv(-1, &byte, 1, 0);
        case SystemCall::recvmsg:
            return calls.recvmsg(-1, &message, 0);
        case SystemCall::recvmmsg:
            return calls.recvmmsg(-1, &messages, 1, 0, nullptr);
        case SystemCall::send:
            return calls.send(-1, &byte, 1, 0);
        case SystemCall::sendmsg:
            return calls.sendmsg(-1, &message, 0);
        case SystemCall::sendmmsg:
            return calls.sendmmsg(-1, &messages, 1, 0);
        case SystemCall::so_error:
            size = sizeof value;
            if (calls.getsockopt(pair.ends[0], SOL_SOCKET, SO_ERROR, &value, &size) != 0) return 0;
            errno = value;
            return -1;
        }
        return 0;
    };
    long fired = 0;
    for (const SystemCall call : asyncio::testing::all_system_calls()) {
        faults.make({call, ELIBACC}); // what none of them ever says
        errno = 0;
        EXPECT_EQ(make(call), -1) << asyncio::testing::name_of(call);
        EXPECT_EQ(errno, ELIBACC) << asyncio::testing::name_of(call);
        EXPECT_EQ(faults.fired(call), 1) << asyncio::testing::name_of(call);
        EXPECT_EQ(faults.fired(), ++fired);
    }
}

TEST(Faults, are_those_of_one_thread_and_end_with_their_object) {
    const Pair pair;
    {
        Faults faults;
        faults.make({SystemCall::send, EPIPE}, 0, Faults::always);
        EXPECT_EQ(table().send(pair.ends[1], "a", 1, 0), -1);
        std::thread([&] {
            EXPECT_EQ(table().send(pair.ends[1], "a", 1, 0), 1);
            const Faults of_that_thread;
        }).join();
        EXPECT_EQ(faults.calls(SystemCall::send), 1);
        EXPECT_THROW(Faults(), asyncio::RuntimeError);
        EXPECT_EQ(table().send(pair.ends[1], "a", 1, 0), -1);
    }
    EXPECT_EQ(table().send(pair.ends[1], "a", 1, 0), 1);
}

TEST(Faults, refuse_what_cannot_be) {
    Faults faults;
    EXPECT_THROW(faults.make({SystemCall::recv, 0}), asyncio::ValueError);
    EXPECT_THROW(faults.make(Fault::shortened(SystemCall::recv, 0)), asyncio::ValueError);
    EXPECT_THROW(faults.make(Fault::shortened(SystemCall::connect, 1)), asyncio::ValueError);
}

TEST(Faults, reach_the_loop_that_has_the_table) {
    Faults faults;
    faults.make({SystemCall::epoll_wait, EINTR}, 0, 3);
    const auto loop = asyncio::new_event_loop(asyncio::LoopOptions().system_calls(Faults::table()));
    const Pair pair;
    ASSERT_EQ(::send(pair.ends[1], "a", 1, 0), 1);
    loop->add_reader(pair.ends[0], [&] { loop->stop(); });
    loop->run_forever();
    loop->remove_reader(pair.ends[0]);
    EXPECT_EQ(faults.fired(SystemCall::epoll_wait), 3);
    EXPECT_GE(faults.calls(SystemCall::epoll_ctl), 3);
}
