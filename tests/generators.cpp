// SPDX-License-Identifier: MIT
// Asynchronous generators. The logs were taken from CPython 3.13.
#include "support/in_virtual_time.hpp"

#include <asyncio/asyncio.hpp>
#include <asyncio/testing/cancel_everywhere.hpp>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

using namespace std::chrono_literals;
using asyncio::AsyncGenerator;
using asyncio::Coro;
using asyncio::create_task;
using asyncio::GeneratorExit;
using asyncio_test::in_virtual_time;
using asyncio_test::Reports;

namespace {

using Log = std::vector<std::string>;

struct OnExit {
    Log& log;
    std::string text;
    ~OnExit() { log.push_back(text); }
};

AsyncGenerator<int> make(Log& log, std::string name, int count) {
    const OnExit finally{log, name + " finally"};
    try {
        for (int i = 0; i < count; ++i) {
            log.push_back(name + " makes " + std::to_string(i));
            co_yield i;
            co_await asyncio::sleep(0);
        }
    } catch (const GeneratorExit&) {
        log.push_back(name + " exit");
        throw;
    }
}

TEST(Generators, run_inside_of_who_awaits_them) {
    Log log;
    in_virtual_time([&]() -> Coro<> {
        const auto other = [&]() -> Coro<> {
            for (int i = 0; i < 4; ++i) {
                log.push_back("other " + std::to_string(i));
                co_await asyncio::sleep(0);
            }
        };
        auto task = create_task(other());
        auto a = make(log, "a", 3);
        while (auto x = co_await a.next()) log.push_back("got " + std::to_string(*x));
        auto b = make(log, "b", 5);
        const auto first = co_await b.next();
        log.push_back("got " + std::to_string(first.value_or(-1)));
        co_await b.aclose();
        log.emplace_back("closed");
        co_await b.aclose();
        EXPECT_EQ(co_await b.next(), std::nullopt);
        co_await task;
    });
    EXPECT_EQ(log, (Log{"a makes 0", "got 0", "other 0", "a makes 1", "got 1", "other 1",
                        "a makes 2", "got 2", "other 2", "a finally", "b makes 0", "got 0",
                        "b exit", "b finally", "closed", "other 3"}));
}

AsyncGenerator<std::string> words() {
    const std::string named = "a word that is too long to be kept inside";
    co_yield named;
    co_yield "another " + named;
    std::string moved = named;
    co_yield std::move(moved);
}
AsyncGenerator<std::unique_ptr<int>> owners(int count) {
    for (int i = 0; i < count; ++i) {
        co_await asyncio::sleep(1s);
        co_yield std::make_unique<int>(i);
    }
}

TEST(Generators, give_values_of_any_type) {
    in_virtual_time([]() -> Coro<> {
        auto texts = words();
        std::string all;
        while (auto text = co_await texts.next()) all += *text + "\n";
        EXPECT_EQ(all, "a word that is too long to be kept inside\n"
                       "another a word that is too long to be kept inside\n"
                       "a word that is too long to be kept inside\n");
        auto numbers = owners(3);
        int sum = 0;
        while (auto number = co_await numbers.next()) sum += **number;
        EXPECT_EQ(sum, 3);
    });
}

TEST(Generators, throw_what_their_body_throws_and_have_ended_then) {
    in_virtual_time([]() -> Coro<> {
        const auto failing = []() -> AsyncGenerator<int> {
            co_yield 1;
            throw std::runtime_error("broken");
        };
        auto generator = failing();
        EXPECT_EQ(co_await generator.next(), 1);
        bool thrown = false;
        try {
            co_await generator.next();
        } catch (const std::runtime_error& error) {
            thrown = std::string(error.what()) == "broken";
        }
        EXPECT_TRUE(thrown);
        EXPECT_EQ(co_await generator.next(), std::nullopt);
        auto again = failing();
        co_await again.next();
        const auto result = co_await asyncio::as_result(again.next());
        EXPECT_FALSE(result.has_value());
    });
}

AsyncGenerator<int> waiting(Log& log) {
    const OnExit finally{log, "ended"};
    co_await asyncio::sleep(1s);
    co_yield 1;
    co_await asyncio::sleep(1s);
    co_yield 2;
}

TEST(Generators, are_ended_by_a_cancel_that_their_body_lets_pass) {
    Log log;
    in_virtual_time([&]() -> Coro<> {
        auto generator = waiting(log);
        const auto next = [&]() -> Coro<> { co_await generator.next(); };
        auto task = create_task(next());
        co_await asyncio::sleep(0);
        task.cancel();
        const auto result = co_await asyncio::as_result(task);
        EXPECT_TRUE(task.cancelled());
        EXPECT_EQ(log, Log{"ended"});
        EXPECT_EQ(co_await generator.next(), std::nullopt);
    });
    EXPECT_GT(asyncio::testing::cancel_everywhere([&]() -> Coro<> {
                  auto generator = waiting(log);
                  while (co_await generator.next()) co_await asyncio::sleep(1s);
              }),
              4);
}

TEST(Generators, refuse_a_second_task_while_they_run) {
    Log log;
    in_virtual_time([&]() -> Coro<> {
        auto generator = waiting(log);
        const auto next = [&]() -> Coro<std::optional<int>> {
            co_return co_await generator.next();
        };
        auto task = create_task(next());
        co_await asyncio::sleep(0);
        std::string text;
        try {
            co_await generator.next();
        } catch (const asyncio::RuntimeError& error) {
            text = error.what();
        }
        EXPECT_NE(text.find("next(): the asynchronous generator is already running"),
                  std::string::npos);
        text.clear();
        try {
            co_await generator.aclose();
        } catch (const asyncio::RuntimeError& error) {
            text = error.what();
        }
        EXPECT_NE(text.find("aclose(): the asynchronous generator is already running"),
                  std::string::npos);
        EXPECT_EQ(co_await task, 1);
        EXPECT_EQ(co_await generator.next(), 2);
    });
}

TEST(Generators, may_not_ignore_that_they_are_closed) {
    in_virtual_time([]() -> Coro<> {
        const auto stubborn = []() -> AsyncGenerator<int> {
            for (int i = 0; i < 3; ++i) {
                try {
                    co_yield i;
                } catch (const GeneratorExit&) { // NOLINT(bugprone-empty-catch)
                }
            }
        };
        auto generator = stubborn();
        co_await generator.next();
        std::string text;
        try {
            co_await generator.aclose();
        } catch (const asyncio::RuntimeError& error) {
            text = error.what();
        }
        EXPECT_NE(text.find("ignored GeneratorExit"), std::string::npos);
        EXPECT_EQ(co_await generator.next(), 2);
    });
}

TEST(Generators, clean_up_with_awaits_when_they_are_closed) {
    Log log;
    in_virtual_time([&]() -> Coro<> {
        const auto careful = [](Log& to) -> AsyncGenerator<int> {
            bool closed = false;
            try {
                co_yield 1;
            } catch (const GeneratorExit&) {
                closed = true;
            }
            co_await asyncio::sleep(1s);
            to.push_back(closed ? "cleaned" : "went on");
        };
        auto generator = careful(log);
        co_await generator.next();
        co_await generator.aclose();
        EXPECT_EQ(log, Log{"cleaned"});
        auto unused = careful(log);
        co_await unused.aclose();
        EXPECT_EQ(co_await unused.next(), std::nullopt);
        EXPECT_EQ(log, Log{"cleaned"});
    });
}

TEST(Generators, are_destroyed_at_once_with_their_locals) {
    Log log;
    in_virtual_time([&]() -> Coro<> {
        {
            auto generator = make(log, "a", 3);
            co_await generator.next();
        }
        log.emplace_back("after");
        {
            auto never = make(log, "b", 3);
        }
        auto moved = make(log, "c", 3);
        co_await moved.next();
        auto to = std::move(moved);
        EXPECT_EQ(co_await to.next(), 1);
        to = make(log, "d", 1);
        log.emplace_back("assigned");
        EXPECT_EQ(co_await to.next(), 0);
    });
    EXPECT_EQ(log, (Log{"a makes 0", "a finally", "after", "c makes 0", "c makes 1", "c finally",
                        "assigned", "d makes 0", "d finally"}));
}

TEST(Generators, may_be_moved_or_destroyed_while_their_body_runs) {
    Log log;
    in_virtual_time([&]() -> Coro<> {
        std::optional<AsyncGenerator<int>> generator = waiting(log);
        const auto next = [&]() -> Coro<std::optional<int>> {
            co_return co_await generator->next();
        };
        auto task = create_task(next());
        co_await asyncio::sleep(0);
        AsyncGenerator<int> moved = std::move(*generator);
        EXPECT_EQ(co_await task, 1);
        std::optional<AsyncGenerator<int>> second = std::move(moved);
        const auto again = [&]() -> Coro<std::optional<int>> { co_return co_await second->next(); };
        auto other = create_task(again());
        co_await asyncio::sleep(0);
        second.reset();
        EXPECT_EQ(log, Log{}) << "its body still runs";
        EXPECT_EQ(co_await other, std::nullopt);
        EXPECT_EQ(log, Log{"ended"});
    });
}

TEST(Generators, that_are_left_are_closed_by_run) {
    Log log;
    std::vector<AsyncGenerator<int>> kept;
    Reports reports;
    in_virtual_time([&]() -> Coro<> {
        reports.watch(asyncio::get_running_loop());
        const auto slow = [](Log& to, std::string name) -> AsyncGenerator<int> {
            bool closed = false;
            try {
                co_yield 1;
                co_yield 2;
            } catch (const GeneratorExit&) {
                closed = true;
            }
            to.push_back(name + " cleans");
            co_await asyncio::sleep(0);
            to.push_back(name + " cleaned");
            if (closed && name == "y") throw std::runtime_error("y is broken");
        };
        for (const char* name : {"x", "y"}) {
            kept.push_back(slow(log, name));
            co_await kept.back().next();
        }
        kept.push_back(slow(log, "never begun"));
        log.emplace_back("main ends");
    });
    EXPECT_EQ(log, (Log{"main ends", "x cleans", "y cleans", "x cleaned", "y cleaned"}));
    EXPECT_EQ(reports.count(), 1U) << reports.text();
    EXPECT_EQ(reports.count("an error occurred during closing of an asynchronous generator"), 1U);
    kept.clear();
}

TEST(Generators, are_closed_by_run_also_when_main_and_the_task_that_used_them_fail) {
    Log log;
    Reports reports;
    std::optional<AsyncGenerator<int>> kept;
    const auto endless = [](Log& to) -> AsyncGenerator<int> {
        const OnExit finally{to, "closed"};
        for (;;) {
            co_yield 1;
            co_await asyncio::sleep(1s);
        }
    };
    const auto main = [&]() -> Coro<> {
        reports.watch(asyncio::get_running_loop());
        create_task([&]() -> Coro<> {
            kept = endless(log);
            bool cancelled = false;
            try {
                while (co_await kept->next()) {
                }
            } catch (const asyncio::CancelledError&) {
                cancelled = true;
            }
            if (cancelled) throw asyncio::ValueError("clean-up");
        });
        co_await asyncio::sleep(0);
        throw asyncio::LookupError("main");
    };
    EXPECT_THROW(in_virtual_time(main), asyncio::LookupError);
    EXPECT_EQ(log, Log{"closed"});
    EXPECT_EQ(reports.count("unhandled exception during asyncio::run() shutdown"), 1U);
    EXPECT_EQ(reports.count(), 1U) << reports.text();
}

TEST(Generators, outlive_their_loop) {
    Log log;
    std::optional<AsyncGenerator<int>> kept;
    const auto loop = asyncio::new_event_loop();
    const auto begin = [&]() -> Coro<> {
        kept = make(log, "a", 3);
        co_await kept->next();
    };
    asyncio::run_until_complete(*loop, begin());
    loop->close();
    EXPECT_EQ(log, Log{"a makes 0"});
    kept.reset();
    EXPECT_EQ(log, (Log{"a makes 0", "a finally"}));
}

TEST(Generators, are_destroyed_with_a_loop_that_closes_while_they_wait) {
    Log log;
    const auto loop = asyncio::new_event_loop();
    Reports reports(*loop);
    const auto consume = [&]() -> Coro<> {
        auto generator = waiting(log);
        const auto inner = [&]() -> Coro<> {
            while (co_await generator.next()) log.emplace_back("got");
        };
        co_await inner();
    };
    create_task(*loop, consume());
    loop->call_soon([&] { loop->stop(); });
    loop->run_forever();
    loop->close();
    EXPECT_EQ(log, Log{"ended"});
    EXPECT_EQ(reports.count("destroyed but it is pending"), 1U) << reports.text();
}

AsyncGenerator<int> counting(int to) {
    for (int i = 0; i < to; ++i) co_yield i;
}
AsyncGenerator<int> doubled(AsyncGenerator<int> numbers) {
    while (auto number = co_await numbers.next()) co_yield 2 * *number;
}

TEST(GeneratorsDepth, yield_a_million_values_on_a_flat_stack) {
    in_virtual_time([]() -> Coro<> {
        auto numbers = doubled(counting(1'000'000));
        long long sum = 0;
        while (auto number = co_await numbers.next()) sum += *number;
        EXPECT_EQ(sum, 999'999LL * 1'000'000);
    });
}

} // namespace
