// SPDX-License-Identifier: MIT
#include <asyncio/asyncio.hpp>
#include <asyncio/detail/happy_eyeballs.hpp>
#include <asyncio/testing/cancel_everywhere.hpp>
#include <gtest/gtest.h>

#include "support/in_virtual_time.hpp"

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <netdb.h>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

using asyncio::Address;
using asyncio::AddressInfo;
using asyncio::as_result;
using asyncio::CancelledError;
using asyncio::Coro;
using asyncio::create_future;
using asyncio::create_task;
using asyncio::Delay;
using asyncio::ExceptionGroup;
using asyncio::get_running_loop;
using asyncio::Result;
using asyncio::sleep;
using asyncio::Socket;
using asyncio::Task;
using asyncio::detail::AttemptErrors;
using asyncio::detail::connect_to_one_of;
using asyncio::detail::happy_eyeballs;
using asyncio::detail::interleave_addresses;
using asyncio::detail::RaceOptions;
using asyncio_test::in_virtual_time;
using asyncio_test::Reports;
using asyncio_test::text_of;
using namespace std::chrono_literals;

namespace {

// --- Connections that need no network ---

// Counts how many are open.
class Connection {
  public:
    explicit Connection(int number) noexcept : number_(number) {
        ++open;
        ++made;
    }
    Connection(Connection&& other) noexcept : number_(std::exchange(other.number_, 0)) {}
    Connection& operator=(Connection&& other) noexcept {
        std::swap(number_, other.number_);
        return *this;
    }
    Connection(const Connection&) = delete;
    Connection& operator=(const Connection&) = delete;
    ~Connection() {
        if (number_ != 0) --open;
    }
    int number() const noexcept { return number_; }

    static int open;
    static int made;

  private:
    int number_; // 0: moved from
};
int Connection::open = 0;
int Connection::made = 0;

// What an address does: after so long, it answers or fails.
struct Behaviour {
    std::optional<Delay> after; // none: never
    int error = 0;              // 0: it answers
    bool is_other_error = false;
    std::optional<Delay> clean_up = {}; // takes this time to end after a cancel
    bool swallows_cancel = false;       // has connected when the cancel comes
};

// A network in which address N does as the N-th behaviour says.
class Net {
  public:
    explicit Net(std::vector<Behaviour> behaviours) : behaviours_(std::move(behaviours)) {
        Connection::open = 0;
        Connection::made = 0;
    }

    std::vector<AddressInfo> addresses() const {
        std::vector<AddressInfo> all;
        for (std::size_t i = 1; i <= behaviours_.size(); ++i) {
            all.emplace_back(AF_INET, SOCK_STREAM, IPPROTO_TCP,
                             Address("192.0.2." + std::to_string(i), 80));
        }
        return all;
    }
    auto connect() {
        return [this](const AddressInfo* address, AttemptErrors*) -> Coro<Connection> {
            return attempt(this, std::stoi(address->address.host().substr(8)));
        };
    }
    // "1@0 2@250": when each attempt began, in milliseconds.
    std::string begun;
    std::string ended;

  private:
    void note(std::string& log, int number) const {
        if (!log.empty()) log += " ";
        log += std::to_string(number) + "@" +
               std::to_string(
                   std::chrono::duration_cast<std::chrono::milliseconds>(loop_->time() - began_)
                       .count());
    }
    static Coro<Connection> attempt(Net* net, int number) {
        if (net->loop_ == nullptr) {
            net->loop_ = &get_running_loop();
            net->began_ = net->loop_->time();
        }
        net->note(net->begun, number);
        struct AtEnd {
            Net* net;
            int number;
            ~AtEnd() { net->note(net->ended, number); }
        };
        const AtEnd at_end{net, number};
        const Behaviour& behaviour = net->behaviours_[static_cast<std::size_t>(number - 1)];
        Result<void> waited;
        if (behaviour.after) {
            waited = co_await as_result(sleep(*behaviour.after));
        } else {
            waited = co_await as_result(create_future());
        }
        if (!waited) {
            if (behaviour.swallows_cancel) co_return Connection(number);
            if (behaviour.clean_up) co_await sleep(*behaviour.clean_up);
            waited.value();
        }
        if (behaviour.is_other_error) throw std::logic_error("a bug in " + std::to_string(number));
        if (behaviour.error != 0) {
            throw std::system_error(behaviour.error, std::generic_category(),
                                    "connect to " + std::to_string(number));
        }
        co_return Connection(number);
    }

    std::vector<Behaviour> behaviours_;
    asyncio::EventLoop* loop_ = nullptr;
    asyncio::TimePoint began_;
};

Behaviour answers(Delay after) { return {.after = after}; }
Behaviour refuses(Delay after) { return {.after = after, .error = ECONNREFUSED}; }
Behaviour hangs() { return {.after = std::nullopt}; }

// Who wins, or what is thrown: "2", "exception: ...". All that was made is closed afterwards.
struct Outcome {
    std::string text;
    std::string begun;
    std::string ended;
    int made = 0;
};

Outcome race(std::vector<Behaviour> behaviours, std::optional<Delay> delay,
             bool all_errors = false) {
    Net net(std::move(behaviours));
    Outcome outcome;
    in_virtual_time([&]() -> Coro<> {
        auto racing = happy_eyeballs(net.addresses(), net.connect(), delay, all_errors);
        auto result = co_await as_result(std::move(racing));
        if (result) {
            EXPECT_EQ(Connection::open, 1) << "the losers are closed";
            outcome.text = std::to_string(result.value().number());
        } else {
            outcome.text = text_of(result.exception());
        }
    });
    EXPECT_EQ(Connection::open, 0);
    outcome.begun = net.begun;
    outcome.ended = net.ended;
    outcome.made = Connection::made;
    return outcome;
}

std::vector<AddressInfo> of_families(const std::string& families) {
    std::vector<AddressInfo> all;
    std::uint16_t number = 0;
    for (const char c : families) {
        ++number;
        if (c == '4') all.emplace_back(AF_INET, SOCK_STREAM, 0, Address("127.0.0.1", number));
        if (c == '6') all.emplace_back(AF_INET6, SOCK_STREAM, 0, Address("::1", number));
        if (c == 'u')
            all.emplace_back(AF_UNIX, SOCK_STREAM, 0, Address::unix_path(std::string(1, c)));
    }
    return all;
}

// "6:1 4:3 6:2": family and place in the order before.
std::string interleaved(const std::string& families, std::size_t first_family_count) {
    std::string text;
    for (const AddressInfo& one : interleave_addresses(of_families(families), first_family_count)) {
        if (!text.empty()) text += " ";
        text += (one.family == AF_INET    ? "4:"
                 : one.family == AF_INET6 ? "6:"
                                          : "u:") +
                std::to_string(one.address.port());
    }
    return text;
}

// --- Real sockets, on loopback ---

Socket listener(int family = AF_INET) {
    Socket socket(family, SOCK_STREAM);
    socket.bind(Address(family == AF_INET ? "127.0.0.1" : "::1", 0));
    socket.listen();
    return socket;
}

AddressInfo at(const Address& address) {
    return AddressInfo(address.family(), SOCK_STREAM, IPPROTO_TCP, address);
}

// Has an address, at which nobody listens and which nobody else is given meanwhile.
Socket nobody_at_home() {
    Socket socket(AF_INET, SOCK_STREAM);
    socket.bind(Address("127.0.0.1", 0));
    return socket;
}

template <class... More>
std::vector<AddressInfo> list(const AddressInfo& first, const More&... more) {
    std::vector<AddressInfo> all;
    all.reserve(1 + sizeof...(more));
    all.push_back(first);
    (all.push_back(more), ...);
    return all;
}

int descriptors_open() {
    int count = 0;
    for (int descriptor = 0; descriptor < 1024; ++descriptor) {
        if (::fcntl(descriptor, F_GETFD) >= 0) ++count;
    }
    return count;
}

} // namespace

// --- The order of addresses: the expectations are what base_events._interleave_addrinfos gives ---

TEST(HappyEyeballs, families_take_turns_in_the_order_in_which_they_came) {
    EXPECT_EQ(interleaved("666444", 1), "6:1 4:4 6:2 4:5 6:3 4:6");
    EXPECT_EQ(interleaved("644446", 1), "6:1 4:2 6:6 4:3 4:4 4:5");
    EXPECT_EQ(interleaved("446", 1), "4:1 6:3 4:2");
    EXPECT_EQ(interleaved("64u64u", 1), "6:1 4:2 u:0 6:4 4:5 u:0");
}

TEST(HappyEyeballs, so_many_of_the_first_family_come_first) {
    EXPECT_EQ(interleaved("66664444", 2), "6:1 6:2 4:5 6:3 4:6 6:4 4:7 4:8");
    EXPECT_EQ(interleaved("66664444", 3), "6:1 6:2 6:3 4:5 6:4 4:6 4:7 4:8");
    EXPECT_EQ(interleaved("664", 100), "6:1 6:2 4:3");
    EXPECT_EQ(interleaved("664", 0), "6:1 4:3 6:2");
}

TEST(HappyEyeballs, one_address_or_family_or_none_stays_as_it_is) {
    EXPECT_EQ(interleaved("", 1), "");
    EXPECT_EQ(interleaved("", 5), "");
    EXPECT_EQ(interleaved("4", 1), "4:1");
    EXPECT_EQ(interleaved("444", 2), "4:1 4:2 4:3");
}

// --- One after the other ---

TEST(HappyEyeballs, without_a_delay_an_address_is_tried_when_the_one_before_has_failed) {
    const Outcome outcome = race({refuses(1s), refuses(2s), answers(4s), answers(0s)}, {});
    EXPECT_EQ(outcome.text, "3");
    EXPECT_EQ(outcome.begun, "1@0 2@1000 3@3000");
    EXPECT_EQ(outcome.made, 1);
}

TEST(HappyEyeballs, without_a_delay_it_runs_in_the_task_that_awaits_it) {
    in_virtual_time([]() -> Coro<> {
        Net net({refuses(0s), answers(0s)});
        const auto connect = [&net](const AddressInfo* address, AttemptErrors* errors) {
            EXPECT_EQ(asyncio::all_tasks().size(), 1U);
            return net.connect()(address, errors);
        };
        const auto connection = co_await happy_eyeballs(net.addresses(), connect, {}, false);
        EXPECT_EQ(connection.number(), 2);
    });
}

// --- Staggered ---

TEST(HappyEyeballs, the_first_wins_alone_if_it_answers_in_time) {
    const Outcome outcome = race({answers(249ms), answers(0s)}, 250ms);
    EXPECT_EQ(outcome.text, "1");
    EXPECT_EQ(outcome.begun, "1@0");
}

TEST(HappyEyeballs, one_that_does_not_answer_in_time_is_joined_by_the_next) {
    const Outcome outcome = race({hangs(), hangs(), answers(100ms), answers(0s)}, 250ms);
    EXPECT_EQ(outcome.text, "3");
    EXPECT_EQ(outcome.begun, "1@0 2@250 3@500");
    EXPECT_EQ(outcome.ended, "3@600 1@600 2@600");
}

TEST(HappyEyeballs, a_slow_one_may_still_win) {
    const Outcome outcome = race({answers(400ms), answers(1s)}, 250ms);
    EXPECT_EQ(outcome.text, "1");
    EXPECT_EQ(outcome.begun, "1@0 2@250");
    EXPECT_EQ(outcome.made, 1);
}

TEST(HappyEyeballs, one_that_fails_lets_the_next_begin_at_once) {
    const Outcome outcome = race({refuses(10ms), refuses(20ms), answers(5ms)}, 250ms);
    EXPECT_EQ(outcome.text, "3");
    EXPECT_EQ(outcome.begun, "1@0 2@10 3@30");
}

TEST(HappyEyeballs, one_that_fails_when_it_is_not_the_latest_changes_nothing) {
    // The first fails at 300 ms, while the second, of 250 ms, has its time until 500 ms.
    const Outcome outcome = race({refuses(300ms), hangs(), answers(1ms)}, 250ms);
    EXPECT_EQ(outcome.text, "3");
    EXPECT_EQ(outcome.begun, "1@0 2@250 3@500");
}

TEST(HappyEyeballs, with_a_delay_of_nothing_all_are_tried_at_once) {
    const Outcome outcome = race({answers(30ms), answers(20ms), answers(10ms)}, 0s);
    EXPECT_EQ(outcome.text, "3");
    EXPECT_EQ(outcome.begun, "1@0 2@0 3@0");
    EXPECT_EQ(outcome.made, 1);
}

TEST(HappyEyeballs, of_two_that_answer_in_the_same_turn_one_wins_and_the_other_is_closed) {
    const Outcome outcome = race({answers(350ms), answers(100ms)}, 250ms);
    EXPECT_TRUE(outcome.text == "1" || outcome.text == "2") << outcome.text;
    EXPECT_EQ(outcome.made, 2) << "the other is known to have been there";
}

TEST(HappyEyeballs, one_that_answers_although_it_was_cancelled_is_closed) {
    Behaviour stubborn = hangs();
    stubborn.swallows_cancel = true;
    const Outcome outcome = race({stubborn, answers(10ms)}, 250ms);
    EXPECT_EQ(outcome.text, "2");
    EXPECT_EQ(outcome.ended, "2@260 1@260");
}

TEST(HappyEyeballs, losers_are_waited_for_until_they_have_cleaned_up) {
    Behaviour slow = hangs();
    slow.clean_up = 3s;
    const Outcome outcome = race({slow, answers(10ms)}, 250ms);
    EXPECT_EQ(outcome.text, "2");
    EXPECT_EQ(outcome.ended, "2@260 1@3260");
}

TEST(HappyEyeballs, what_is_no_system_error_ends_the_race_and_is_thrown) {
    Behaviour bug = {.after = 10ms, .is_other_error = true};
    const Outcome staggered = race({hangs(), bug, answers(0s)}, 250ms);
    EXPECT_EQ(staggered.text, "exception: a bug in 2");
    EXPECT_EQ(staggered.begun, "1@0 2@250");
    EXPECT_EQ(staggered.ended, "2@260 1@260");
    const Outcome in_turn = race({refuses(1s), bug, answers(0s)}, {});
    EXPECT_EQ(in_turn.text, "exception: a bug in 2");
    EXPECT_EQ(in_turn.begun, "1@0 2@1000");
}

TEST(HappyEyeballs, a_hundred_addresses_that_fail_are_all_tried) {
    for (const std::optional<Delay>& delay : {std::optional<Delay>(), std::optional<Delay>(1ms)}) {
        std::vector<Behaviour> behaviours(100, refuses(0s));
        behaviours.push_back(answers(0s));
        const Outcome outcome = race(std::move(behaviours), delay);
        EXPECT_EQ(outcome.text, "101");
    }
}

// --- What is thrown when none answers ---

TEST(HappyEyeballs, one_error_is_thrown_as_it_is) {
    for (const std::optional<Delay>& delay :
         {std::optional<Delay>(), std::optional<Delay>(250ms)}) {
        EXPECT_EQ(race({refuses(1s)}, delay).text, "exception: connect to 1: Connection refused");
    }
}

TEST(HappyEyeballs, several_errors_are_one_in_the_words_of_all_with_the_code_of_the_first) {
    Behaviour unreachable = {.after = 1s, .error = ENETUNREACH};
    for (const std::optional<Delay>& delay :
         {std::optional<Delay>(), std::optional<Delay>(250ms)}) {
        EXPECT_EQ(race({refuses(2s), unreachable}, delay).text,
                  "exception: Multiple exceptions: connect to 1: Connection refused, connect to 2: "
                  "Network is unreachable");
        in_virtual_time([&]() -> Coro<> {
            Net net({refuses(2s), unreachable});
            auto racing = happy_eyeballs(net.addresses(), net.connect(), delay, false);
            const auto result = co_await as_result(std::move(racing));
            try {
                result.value();
                ADD_FAILURE();
            } catch (const std::system_error& error) {
                EXPECT_EQ(error.code(), std::errc::connection_refused);
                const std::system_error copy = error;
                EXPECT_EQ(copy.code(), error.code());
            }
        });
    }
}

TEST(HappyEyeballs, errors_of_the_same_text_are_thrown_once) {
    in_virtual_time([]() -> Coro<> {
        const auto connect = [](const AddressInfo*, AttemptErrors*) -> Coro<Connection> {
            co_await sleep(1ms);
            throw std::system_error(EHOSTUNREACH, std::generic_category(), "connect");
        };
        const auto result = co_await as_result(
            happy_eyeballs(of_families("4646"), connect, std::optional<Delay>(250ms), false));
        EXPECT_EQ(text_of(result.exception()), "exception: connect: No route to host");
    });
}

TEST(HappyEyeballs, with_all_errors_they_are_a_group_in_the_order_of_the_addresses) {
    for (const std::optional<Delay>& delay :
         {std::optional<Delay>(), std::optional<Delay>(250ms)}) {
        in_virtual_time([&]() -> Coro<> {
            // The second fails before the first.
            Net net({refuses(600ms), {.after = 1ms, .error = ETIMEDOUT}, refuses(0s)});
            auto racing = happy_eyeballs(net.addresses(), net.connect(), delay, true);
            const auto result = co_await as_result(std::move(racing));
            try {
                result.value();
                ADD_FAILURE();
            } catch (const ExceptionGroup& group) {
                EXPECT_EQ(group.message(), "create_connection failed");
                std::vector<std::string> texts;
                for (const auto& one : group) texts.push_back(text_of(one));
                EXPECT_EQ(texts, (std::vector<std::string>{
                                     "exception: connect to 1: Connection refused",
                                     "exception: connect to 2: Connection timed out",
                                     "exception: connect to 3: Connection refused"}));
            }
        });
    }
}

TEST(HappyEyeballs, attempts_that_somebody_else_has_cancelled_are_no_answer) {
    in_virtual_time([]() -> Coro<> {
        Net net({hangs(), hangs()});
        const Task<Connection> task = create_task(
            happy_eyeballs(net.addresses(), net.connect(), std::optional<Delay>(250ms), false));
        co_await sleep(1s);
        for (const asyncio::AnyTask& one : asyncio::all_tasks()) {
            if (one != task && one != asyncio::current_task()) one.cancel();
        }
        const auto result = co_await as_result(asyncio::AnyFuture(task));
        EXPECT_FALSE(task.cancelled());
        EXPECT_THROW(std::rethrow_exception(result.exception()), asyncio::TimeoutError);
    });
}

// --- A cancel from outside ---

TEST(HappyEyeballs, a_cancel_ends_all_attempts_before_it_goes_on) {
    for (const std::optional<Delay>& delay :
         {std::optional<Delay>(), std::optional<Delay>(250ms)}) {
        in_virtual_time([&]() -> Coro<> {
            Behaviour slow = hangs();
            slow.clean_up = 5s;
            Net net({slow, hangs(), answers(10s)});
            const auto task =
                create_task(happy_eyeballs(net.addresses(), net.connect(), delay, false));
            co_await sleep(1s);
            task.cancel("enough");
            const auto result = co_await as_result(asyncio::AnyFuture(task));
            EXPECT_TRUE(task.cancelled());
            EXPECT_EQ(text_of(result.exception()), "CancelledError: enough");
            EXPECT_EQ(net.ended, delay ? "2@1000 3@1000 1@6000" : "1@6000");
            EXPECT_EQ(asyncio::all_tasks().size(), 1U);
        });
        EXPECT_EQ(Connection::open, 0);
    }
}

TEST(HappyEyeballs, a_second_cancel_reaches_attempts_that_clean_up) {
    in_virtual_time([]() -> Coro<> {
        Behaviour slow = hangs();
        slow.clean_up = 1h;
        Net net({slow, slow});
        const auto task = create_task(
            happy_eyeballs(net.addresses(), net.connect(), std::optional<Delay>(250ms), false));
        co_await sleep(1s);
        task.cancel("first");
        co_await sleep(1s);
        EXPECT_FALSE(task.done());
        task.cancel("second");
        const auto result = co_await as_result(asyncio::AnyFuture(task));
        EXPECT_TRUE(task.cancelled());
        EXPECT_EQ(net.ended, "1@2000 2@2000");
    });
}

TEST(HappyEyeballs, a_connection_that_was_made_is_not_lost_by_a_cancel) {
    // The winner is there while a loser cleans up; then the cancel comes.
    in_virtual_time([]() -> Coro<> {
        Behaviour slow = hangs();
        slow.clean_up = 1h;
        Net net({slow, answers(10ms)});
        int number = 0;
        bool cancelled_later = false;
        const auto task = create_task([&]() -> Coro<> {
            auto racing =
                happy_eyeballs(net.addresses(), net.connect(), std::optional<Delay>(250ms), false);
            const auto connection = co_await std::move(racing);
            number = connection.number();
            const auto next = co_await as_result(sleep(1h));
            cancelled_later = !next;
            next.value();
        });
        co_await sleep(1s);
        EXPECT_EQ(number, 0);
        task.cancel();
        EXPECT_EQ(task.cancelling(), 1U);
        const auto result = co_await as_result(asyncio::AnyFuture(task));
        EXPECT_EQ(number, 2);
        EXPECT_TRUE(cancelled_later) << "the cancel is delivered at the next await";
        EXPECT_TRUE(task.cancelled());
    });
    EXPECT_EQ(Connection::open, 0);
}

TEST(HappyEyeballs, a_timeout_of_a_race_is_a_timeout) {
    in_virtual_time([]() -> Coro<> {
        Net net({hangs(), hangs()});
        auto racing =
            happy_eyeballs(net.addresses(), net.connect(), std::optional<Delay>(250ms), false);
        const auto result = co_await as_result(asyncio::wait_for(std::move(racing), 1s));
        EXPECT_THROW(std::rethrow_exception(result.exception()), asyncio::TimeoutError);
        EXPECT_EQ(net.ended, "1@1000 2@1000");
    });
}

TEST(HappyEyeballs, a_cancel_may_come_at_any_await) {
    int cancels = 0;
    for (const std::optional<Delay>& delay :
         {std::optional<Delay>(), std::optional<Delay>(250ms)}) {
        cancels += asyncio::testing::cancel_everywhere([&](asyncio::testing::LeakToken) -> Coro<> {
            Net net({refuses(10ms), hangs(), answers(300ms), refuses(20ms)});
            std::optional<Delay> limit = 5s;
            if (delay) limit = std::nullopt;
            auto racing = happy_eyeballs(net.addresses(), net.connect(), delay, false);
            try {
                const auto connection = co_await asyncio::wait_for(std::move(racing), limit);
                EXPECT_EQ(connection.number(), 3);
            } catch (const asyncio::TimeoutError&) {
                EXPECT_FALSE(delay);
            }
        });
        EXPECT_EQ(Connection::open, 0);
    }
    EXPECT_GT(cancels, 10);
    std::printf("%d cancels\n", cancels);
}

TEST(HappyEyeballs, a_loop_may_be_closed_in_the_middle_of_a_race) {
    Reports reports;
    Net net({hangs(), answers(0s), hangs()});
    {
        asyncio::testing::VirtualClock clock;
        const auto loop = asyncio::new_event_loop(asyncio::LoopOptions().clock(clock));
        reports.watch(*loop);
        const auto task = create_task(
            *loop, happy_eyeballs(net.addresses(), net.connect(), std::optional<Delay>(1s), false));
        for (int i = 0; i < 4; ++i) {
            loop->stop();
            loop->run_forever();
        }
        loop->close();
    }
    EXPECT_EQ(net.begun, "1@0");
    EXPECT_EQ(Connection::open, 0);
    EXPECT_EQ(reports.count("pending"), 2U) << reports.text(); // the race and an attempt
}

TEST(HappyEyeballs, in_every_order_the_same_connection_wins) {
    for (std::uint64_t seed = 0; seed < 50; ++seed) {
        Net net({refuses(10ms), hangs(), answers(300ms), answers(600ms)});
        asyncio::testing::VirtualClock clock;
        asyncio::run(
            [](Net* n) -> Coro<> {
                auto racing = happy_eyeballs(n->addresses(), n->connect(),
                                             std::optional<Delay>(250ms), false);
                const auto connection = co_await std::move(racing);
                EXPECT_EQ(connection.number(), 3);
            }(&net),
            asyncio::RunOptions().clock(clock).shuffle_ready(seed));
        EXPECT_EQ(net.begun, "1@0 2@10 3@260 4@510");
        EXPECT_EQ(Connection::open, 0);
    }
}

TEST(HappyEyeballs, eager_tasks_race_as_others_do) {
    for (const Delay& delay : {Delay(250ms), Delay(0s)}) {
        in_virtual_time([&]() -> Coro<> {
            asyncio::set_task_factory(get_running_loop(), asyncio::eager_task_factory);
            // The first two are done before create_task() returns.
            const auto connect = [](const AddressInfo* address,
                                    AttemptErrors*) -> Coro<Connection> {
                const int port = address->address.port();
                if (port <= 2) {
                    throw std::system_error(ECONNREFUSED, std::generic_category(), "connect");
                }
                if (port == 3) co_await sleep(1s);
                co_return Connection(port);
            };
            auto racing =
                happy_eyeballs(of_families("4444"), connect, std::optional<Delay>(delay), false);
            const auto connection = co_await std::move(racing);
            EXPECT_EQ(connection.number(), 4);
            EXPECT_EQ(Connection::open, 1);
        });
        EXPECT_EQ(Connection::open, 0);
    }
}

// --- Real sockets ---

TEST(HappyEyeballs, a_socket_is_connected_to_the_address_that_listens) {
    for (const std::optional<Delay>& delay : {std::optional<Delay>(), std::optional<Delay>(10s)}) {
        asyncio::run([](std::optional<Delay> given) -> Coro<> {
            const Socket server = listener();
            const Address address = server.getsockname();
            const Socket refuses = nobody_at_home();
            RaceOptions options;
            options.happy_eyeballs_delay(given);
            const Socket socket =
                co_await connect_to_one_of(list(at(refuses.getsockname()), at(address)), options);
            EXPECT_EQ(socket.getpeername(), address);
            const auto accepted = co_await asyncio::sock_accept(server);
            EXPECT_EQ(accepted.address, socket.getsockname());
        }(delay));
    }
}

TEST(HappyEyeballs, refused_addresses_are_named_in_the_error) {
    asyncio::run([]() -> Coro<> {
        const Socket first = nobody_at_home();
        const Socket second = nobody_at_home();
        const Address one = first.getsockname();
        const Address two = second.getsockname();
        const auto single = co_await as_result(connect_to_one_of(list(at(one))));
        EXPECT_EQ(text_of(single.exception()),
                  "exception: sock_connect to " + one.text() + ": Connection refused");
        const auto both = co_await as_result(connect_to_one_of(list(at(one), at(two))));
        EXPECT_EQ(text_of(both.exception()), "exception: Multiple exceptions: sock_connect to " +
                                                 one.text() +
                                                 ": Connection refused, sock_connect "
                                                 "to " +
                                                 two.text() + ": Connection refused");
        const auto same = co_await as_result(connect_to_one_of(list(at(one), at(one))));
        EXPECT_EQ(text_of(same.exception()), text_of(single.exception()));
    });
}

TEST(HappyEyeballs, without_an_address_it_says_so) {
    EXPECT_EQ(asyncio_test::thrown_by([] {
                  connect_to_one_of({}).close();
                  return 0;
              }),
              "ValueError: there is no address to connect to");
}

TEST(HappyEyeballs, a_socket_is_bound_to_the_first_local_address_that_can_be_had) {
    asyncio::run([]() -> Coro<> {
        const Socket server = listener();
        const Socket taken = listener();
        const Address here("127.0.0.1", 0);
        std::vector<AddressInfo> locals;
        locals.push_back(at(Address("::1", 0))); // of another family
        locals.push_back(at(taken.getsockname()));
        locals.push_back(at(Address("127.0.0.2", 0)));
        locals.push_back(at(here));
        RaceOptions options;
        options.local_addresses(std::move(locals));
        const Socket socket = co_await connect_to_one_of(list(at(server.getsockname())), options);
        EXPECT_EQ(socket.getsockname().host(), "127.0.0.2");
    });
}

TEST(HappyEyeballs, local_addresses_that_cannot_be_had_are_told_of) {
    asyncio::run([]() -> Coro<> {
        const Socket server = listener();
        const Socket taken = listener();
        const Socket taken_too = listener();
        RaceOptions options;
        options.local_addresses(list(at(taken.getsockname()), at(taken_too.getsockname())));
        const auto result =
            co_await as_result(connect_to_one_of(list(at(server.getsockname())), options));
        const std::string begin = "error while attempting to bind on address ";
        const std::string end = ": Address already in use";
        EXPECT_EQ(text_of(result.exception()), "exception: Multiple exceptions: " + begin +
                                                   taken.getsockname().text() + end + ", " + begin +
                                                   taken_too.getsockname().text() + end);
        options.local_addresses(list(at(taken.getsockname())));
        const auto one =
            co_await as_result(connect_to_one_of(list(at(server.getsockname())), options));
        EXPECT_EQ(text_of(one.exception()),
                  "exception: " + begin + taken.getsockname().text() + end);
        options.local_addresses(list(at(Address("::1", 0))));
        const auto none =
            co_await as_result(connect_to_one_of(list(at(server.getsockname())), options));
        EXPECT_EQ(text_of(none.exception()),
                  "exception: no matching local address with family=AF_INET found: Cannot assign "
                  "requested address");
    });
}

TEST(HappyEyeballs, an_error_of_binding_is_told_of_when_the_connect_fails_as_well) {
    asyncio::run([]() -> Coro<> {
        const Socket taken = listener();
        const Socket refuses = nobody_at_home();
        const Address refused = refuses.getsockname();
        RaceOptions options;
        options.local_addresses(list(at(taken.getsockname()), at(Address("127.0.0.1", 0))));
        const auto result = co_await as_result(connect_to_one_of(list(at(refused)), options));
        EXPECT_EQ(text_of(result.exception()),
                  "exception: Multiple exceptions: error while attempting to bind on address " +
                      taken.getsockname().text() + ": Address already in use, sock_connect to " +
                      refused.text() + ": Connection refused");
    });
}

TEST(HappyEyeballs, no_descriptor_is_left_open_whatever_happens) {
    asyncio::run([]() -> Coro<> {
        const Socket server = listener();
        const AddressInfo good = at(server.getsockname());
        const Socket refuses = nobody_at_home();
        const AddressInfo bad = at(refuses.getsockname());
        const int before = descriptors_open();
        for (int i = 0; i < 20; ++i) {
            RaceOptions options;
            if (i % 2 == 0) options.happy_eyeballs_delay(Delay(0s));
            // Cancelled before its first step, in a turn of it, or not at all.
            const auto task = create_task(connect_to_one_of(list(bad, good), options));
            for (int turn = 0; turn < i / 2; ++turn) co_await sleep(0);
            task.cancel();
            const auto result = co_await as_result(asyncio::AnyFuture(task));
            static_cast<void>(result);
        }
        for (int i = 0; i < 20; ++i) {
            RaceOptions options;
            options.happy_eyeballs_delay(Delay(0s)); // both connect; one of them wins
            const Socket socket = co_await connect_to_one_of(list(good, good), options);
            EXPECT_TRUE(socket.is_open());
        }
        EXPECT_EQ(descriptors_open(), before);
    });
}

// --- open_connection() ---

namespace {

// A resolver by which each name is 127.0.0.2 and then 127.0.0.1; "local" is 127.0.0.3 alone.
const asyncio::SystemCalls& two_addresses() {
    struct Answer {
        addrinfo info[2];
        sockaddr_in address[2];
    };
    static const asyncio::SystemCalls calls = [] {
        asyncio::SystemCalls table = asyncio::SystemCalls::real();
        table.getaddrinfo = [](const char* host, const char* service, const addrinfo* hints,
                               addrinfo** result) {
            auto* answer = new Answer{};
            const bool is_local = std::string(host) == "local";
            const int count = is_local ? 1 : 2;
            for (int i = 0; i < count; ++i) {
                const Address address("127.0.0." + std::to_string(is_local ? 3 : 2 - i),
                                      static_cast<std::uint16_t>(std::stoi(service)));
                std::memcpy(&answer->address[i], address.data(), address.size());
                answer->info[i].ai_family = AF_INET;
                answer->info[i].ai_socktype = hints->ai_socktype;
                answer->info[i].ai_protocol = IPPROTO_TCP;
                answer->info[i].ai_addr = reinterpret_cast<sockaddr*>(&answer->address[i]);
                answer->info[i].ai_addrlen = address.size();
                if (i > 0) answer->info[i - 1].ai_next = &answer->info[i];
            }
            *result = answer->info;
            return 0;
        };
        table.freeaddrinfo = [](addrinfo* answer) { delete reinterpret_cast<Answer*>(answer); };
        return table;
    }();
    return calls;
}

template <class Body> void with_two_addresses(Body body) {
    asyncio::run(body(),
                 asyncio::RunOptions().loop(asyncio::LoopOptions().system_calls(two_addresses())));
}

Coro<Address> peer_of_connection(std::uint16_t port, asyncio::ConnectionOptions options) {
    auto streams = co_await asyncio::open_connection("two.example", port, std::move(options));
    auto& [reader, writer] = streams;
    const Address peer = writer.get_extra_info(asyncio::peername);
    writer.close();
    co_return peer;
}

} // namespace

TEST(HappyEyeballs, open_connection_comes_to_the_address_that_listens) {
    with_two_addresses([]() -> Coro<> {
        const Socket server = listener(); // at 127.0.0.1, and not at 127.0.0.2
        const std::uint16_t port = server.getsockname().port();
        const Address in_turn = co_await peer_of_connection(port, asyncio::ConnectionOptions());
        EXPECT_EQ(in_turn, server.getsockname());
        asyncio::ConnectionOptions options;
        options.happy_eyeballs_delay(10s);
        const Address staggered = co_await peer_of_connection(port, options);
        EXPECT_EQ(staggered, server.getsockname());
    });
}

TEST(HappyEyeballs, open_connection_does_not_wait_for_an_address_that_does_not_answer) {
    with_two_addresses([]() -> Coro<> {
        const Socket server = listener(); // at 127.0.0.1
        const Address silent("127.0.0.2", server.getsockname().port());
        // A server whose backlog is full lets further connections wait.
        Socket full(AF_INET, SOCK_STREAM);
        full.bind(silent);
        full.listen(0);
        const Socket filler(AF_INET, SOCK_STREAM);
        co_await asyncio::sock_connect(filler, silent);
        asyncio::ConnectionOptions options;
        options.happy_eyeballs_delay(1ms);
        const Address peer = co_await peer_of_connection(silent.port(), options);
        EXPECT_EQ(peer, server.getsockname());
        EXPECT_EQ(asyncio::all_tasks().size(), 1U);
    });
}

TEST(HappyEyeballs, open_connection_binds_to_a_local_address_and_tells_all_errors) {
    with_two_addresses([]() -> Coro<> {
        const Socket server = listener();
        const std::uint16_t port = server.getsockname().port();
        asyncio::ConnectionOptions options;
        options.local_addr("local");
        const Address peer = co_await peer_of_connection(port, options);
        EXPECT_EQ(peer, server.getsockname());
        const auto accepted = co_await asyncio::sock_accept(server);
        EXPECT_EQ(accepted.address.host(), "127.0.0.3");

        const Socket refuses = nobody_at_home(); // 127.0.0.1, and the same port of 127.0.0.2
        const std::uint16_t nobody = refuses.getsockname().port();
        options.all_errors(true);
        const auto result = co_await as_result(peer_of_connection(nobody, options));
        std::string texts;
        try {
            result.value();
        } catch (const ExceptionGroup& group) {
            for (const auto& one : group) texts += text_of(one) + "; ";
        }
        const std::string end = ":" + std::to_string(nobody) + ": Connection refused; ";
        EXPECT_EQ(texts, "exception: sock_connect to 127.0.0.2" + end +
                             "exception: sock_connect to 127.0.0.1" + end);
    });
}
