// SPDX-License-Identifier: MIT
#include "support/datagrams.hpp"
#include "support/in_virtual_time.hpp"

#include <asyncio/asyncio.hpp>
#include <asyncio/testing/cancel_everywhere.hpp>
#include <gtest/gtest.h>

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

using namespace std::chrono_literals;
using asyncio::Address;
using asyncio::Coro;
using asyncio::create_task;
using asyncio::DatagramEndpoint;
using asyncio::DatagramOptions;
using asyncio::DatagramProtocol;
using asyncio::DatagramTransport;
using asyncio::open_datagram_endpoint;
using asyncio::ReceivedFrom;
using asyncio::sleep;
using asyncio::Socket;
using asyncio_test::connected_to;
using asyncio_test::FullKernel;
using asyncio_test::nobody;
using asyncio_test::on_loopback;
using asyncio_test::Reports;
using asyncio_test::run_with_full_kernel;
using asyncio_test::text_of;
using asyncio_test::thrown_by;

namespace {

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

} // namespace

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

TEST(DatagramTransports, may_send_again_when_they_are_told_of_an_error) {
    struct Stubborn : Recorder {
        int errors = 0;
        void error_received(const std::system_error&) override {
            if (++errors < 100'000) transport.sendto(std::string(70'000, 'x'), from);
        }
    };
    asyncio::run([]() -> Coro<> {
        const auto made = co_await asyncio::create_datagram_endpoint(
            [] { return std::make_shared<Stubborn>(); }, on_loopback());
        made.protocol->from = nobody();
        made.transport.sendto(std::string(70'000, 'x'), made.protocol->from);
        EXPECT_EQ(made.protocol->errors, 1) << "the second in a turn of its own";
        while (made.protocol->errors < 1000) co_await sleep(0);
        made.transport.abort();
        co_await until(*made.protocol, 2);
        EXPECT_EQ(made.protocol->log, (Log{"made", "lost null"}));
        const int errors = made.protocol->errors;
        co_await sleep(0);
        EXPECT_EQ(made.protocol->errors, errors);
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
