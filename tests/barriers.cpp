// SPDX-License-Identifier: MIT
// Barriers that are reset, aborted and left while tasks come and go, as CPython's own tests have
// it: see cpython.md, and locks.cpp for others.
#include <asyncio/asyncio.hpp>

#include "support/in_virtual_time.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

using namespace std::chrono_literals;
using asyncio::as_result;
using asyncio::Barrier;
using asyncio::BrokenBarrierError;
using asyncio::CancelledError;
using asyncio::Coro;
using asyncio::create_task;
using asyncio::gather;
using asyncio::sleep;
using asyncio::Task;
using asyncio_test::in_virtual_time;
using asyncio_test::thrown_by;

namespace {

constexpr int parties = 5;

// So many tasks of it.
template <class F> std::vector<Task<>> start(int count, const F& function) {
    std::vector<Task<>> tasks;
    for (int i = 0; i < count; ++i) tasks.push_back(create_task(function));
    return tasks;
}

// False if the barrier was broken.
Coro<bool> pass(Barrier& barrier) {
    const auto result = co_await as_result(barrier.wait());
    if (result) co_return true;
    if (!result.failed_with<BrokenBarrierError>()) result.value();
    co_return false;
}

void expect_as_new(const Barrier& barrier) {
    EXPECT_EQ(barrier.n_waiting(), 0);
    EXPECT_FALSE(barrier.broken());
}

} // namespace

TEST(Barriers, have_parties) {
    for (const int none : {0, -4})
        EXPECT_EQ(thrown_by([&] { return Barrier(none).parties(); }).substr(0, 10), "ValueError");
    EXPECT_EQ(Barrier(parties).parties(), parties);
}

TEST(Barriers, of_one_let_it_go_at_once) {
    in_virtual_time([]() -> Coro<> {
        Barrier barrier(1);
        for (int i = 0; i < 2; ++i) {
            const auto number = co_await barrier.wait();
            EXPECT_EQ(number, 0);
            expect_as_new(barrier);
        }
        auto task = create_task(barrier.wait());
        co_await sleep(0);
        EXPECT_TRUE(task.done());
    });
}

TEST(Barriers, count_those_who_wait) {
    in_virtual_time([]() -> Coro<> {
        Barrier barrier(3);
        std::vector<Task<std::ptrdiff_t>> tasks;
        for (int i = 0; i < 3; ++i) {
            EXPECT_EQ(barrier.n_waiting(), i);
            tasks.push_back(create_task(barrier.wait()));
            co_await sleep(0);
        }
        co_await asyncio::wait(tasks);
        expect_as_new(barrier);
    });
}

TEST(Barriers, are_passed_again_and_again_with_all_the_numbers) {
    in_virtual_time([]() -> Coro<> {
        Barrier barrier(parties);
        std::vector<std::ptrdiff_t> first;
        std::vector<std::ptrdiff_t> second;
        const auto party = [&]() -> Coro<> {
            const auto one = co_await barrier.wait();
            first.push_back(one);
            const auto two = co_await barrier.wait();
            EXPECT_EQ(first.size(), std::size_t{parties}); // nobody is a round ahead
            second.push_back(two);
        };
        co_await gather(start(parties, party));
        for (auto* numbers : {&first, &second}) {
            std::sort(numbers->begin(), numbers->end());
            EXPECT_EQ(*numbers, (std::vector<std::ptrdiff_t>{0, 1, 2, 3, 4}));
        }
        expect_as_new(barrier);
    });
}

TEST(Barriers, keep_who_comes_again_until_all_have_gone) {
    in_virtual_time([]() -> Coro<> {
        Barrier barrier(parties);
        Barrier others(parties - 2);
        int again = 2;
        const auto party = [&]() -> Coro<> {
            co_await barrier.wait();
            if (again > 0) {
                --again;
            } else {
                co_await others.wait(); // for the three who do not come again at once
            }
            co_await barrier.wait();
        };
        co_await gather(start(parties, party));
        expect_as_new(barrier);
        expect_as_new(others);
    });
}

TEST(Barriers, go_on_without_one_who_was_cancelled) {
    in_virtual_time([]() -> Coro<> {
        Barrier barrier(3);
        int passed = 0;
        const auto party = [&]() -> Coro<> {
            co_await barrier.wait();
            ++passed;
        };
        auto tasks = start(2, party);
        co_await sleep(0);
        EXPECT_EQ(barrier.n_waiting(), 2);
        tasks[0].cancel();
        co_await sleep(0);
        EXPECT_EQ(barrier.n_waiting(), 1);
        EXPECT_TRUE(tasks[0].cancelled());
        const auto more = start(1, party);
        co_await sleep(0);
        EXPECT_EQ(barrier.n_waiting(), 2);
        const auto last = start(1, party);
        co_await gather(tasks[1], more[0], last[0]);
        EXPECT_EQ(passed, 3);
        expect_as_new(barrier);
    });
}

TEST(Barriers, that_nobody_waits_for_are_reset_and_aborted) {
    in_virtual_time([]() -> Coro<> {
        Barrier barrier(1);
        co_await barrier.reset();
        expect_as_new(barrier);
        co_await barrier.abort();
        EXPECT_TRUE(barrier.broken());
        EXPECT_EQ(barrier.n_waiting(), 0);
        co_await barrier.reset();
        expect_as_new(barrier);
    });
}

TEST(Barriers, reset_break_for_all_who_wait) {
    in_virtual_time([]() -> Coro<> {
        Barrier barrier(parties);
        int broken = 0;
        const auto party = [&]() -> Coro<> {
            const bool passed = co_await pass(barrier);
            if (!passed) ++broken;
        };
        const auto tasks = start(parties - 1, party);
        co_await sleep(0);
        create_task(barrier.reset());
        co_await gather(tasks);
        EXPECT_EQ(broken, parties - 1);
        expect_as_new(barrier);
    });
}

TEST(Barriers, reset_when_some_have_gone_break_for_those_who_have_not) {
    in_virtual_time([]() -> Coro<> {
        Barrier barrier(parties);
        int gone = 0;
        int broken = 0;
        const auto party = [&]() -> Coro<> {
            const bool passed = co_await pass(barrier);
            if (!passed) {
                ++broken;
            } else if (++gone == 3) {
                co_await barrier.reset();
            }
        };
        co_await gather(start(parties, party));
        EXPECT_EQ(gone, 3);
        EXPECT_EQ(broken, 2);
        expect_as_new(barrier);
    });
}

TEST(Barriers, reset_when_some_have_come_again_keep_these) {
    in_virtual_time([]() -> Coro<> {
        Barrier barrier(parties);
        int gone = 0;
        int broken = 0;
        int broken_again = 0;
        const auto party = [&]() -> Coro<> {
            const bool passed = co_await pass(barrier);
            if (!passed) {
                ++broken;
                co_await barrier.wait();
                co_return;
            }
            if (++gone > parties / 2) {
                co_await barrier.reset();
                co_await barrier.wait();
                co_return;
            }
            const bool passed_again = co_await pass(barrier);
            if (!passed_again) ++broken_again;
        };
        co_await gather(start(parties, party));
        EXPECT_EQ(broken, parties / 2);
        EXPECT_EQ(broken_again, 0);
        expect_as_new(barrier);
    });
}

TEST(Barriers, reset_can_be_waited_for_anew) {
    in_virtual_time([]() -> Coro<> {
        Barrier barrier(parties);
        int broken = 0;
        int passed = 0;
        const auto party = [&]() -> Coro<> {
            const bool at_once = co_await pass(barrier);
            if (!at_once) ++broken;
            co_await barrier.wait();
            ++passed;
        };
        const auto tasks = start(parties - 1, party);
        create_task(barrier.reset());
        co_await sleep(0);
        create_task([&]() -> Coro<> {
            co_await barrier.wait();
            ++passed;
        });
        co_await gather(tasks);
        EXPECT_EQ(broken, parties - 1);
        EXPECT_EQ(passed, parties);
        expect_as_new(barrier);
    });
}

TEST(Barriers, reset_by_the_last_who_goes_break_for_nobody) {
    in_virtual_time([]() -> Coro<> {
        Barrier barrier(parties);
        int gone = 0;
        int broken = 0;
        int ended = 0;
        const auto party = [&]() -> Coro<> {
            co_await barrier.wait();
            if (++gone == parties) co_await barrier.reset();
            const bool passed = co_await pass(barrier);
            if (!passed) ++broken;
            co_await barrier.wait();
            ++ended;
        };
        co_await gather(start(parties, party));
        EXPECT_EQ(broken, 0);
        EXPECT_EQ(ended, parties);
        expect_as_new(barrier);
    });
}

TEST(Barriers, aborted_break_also_for_those_who_have_come_again) {
    in_virtual_time([]() -> Coro<> {
        Barrier barrier(parties);
        int gone = 0;
        int broken = 0;
        int broken_again = 0;
        const auto party = [&]() -> Coro<> {
            const bool passed = co_await pass(barrier);
            if (!passed) {
                ++broken;
            } else if (++gone > parties / 2) {
                co_await barrier.abort();
            } else {
                const bool passed_again = co_await pass(barrier);
                if (!passed_again) ++broken_again;
            }
        };
        co_await gather(start(parties, party));
        EXPECT_TRUE(barrier.broken());
        EXPECT_EQ(broken, parties / 2);
        EXPECT_EQ(broken_again, parties - parties / 2 - 1);
        EXPECT_EQ(barrier.n_waiting(), 0);
    });
}

TEST(Barriers, aborted_by_one_who_fails_are_as_new_once_reset) {
    in_virtual_time([]() -> Coro<> {
        Barrier barrier(parties);
        Barrier together(parties);
        int passed_twice = 0;
        int broken = 0;
        int ended = 0;
        const auto party = [&]() -> Coro<> {
            const auto number = co_await as_result(barrier.wait());
            if (number && number.value() == parties / 2) {
                co_await barrier.abort(); // some have not gone yet
            } else if (number) {
                const bool passed = co_await pass(barrier);
                ++(passed ? passed_twice : broken);
            } else {
                EXPECT_TRUE(number.failed_with<BrokenBarrierError>());
                ++broken;
            }
            const auto other = co_await together.wait();
            EXPECT_EQ(passed_twice, 0);
            if (other == parties / 2) {
                EXPECT_TRUE(barrier.broken());
                co_await barrier.reset();
            }
            co_await together.wait();
            co_await barrier.wait();
            ++ended;
        };
        co_await gather(start(parties, party));
        EXPECT_EQ(broken, parties - 1);
        EXPECT_EQ(ended, parties);
        expect_as_new(barrier);
    });
}
