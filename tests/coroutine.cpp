// SPDX-License-Identifier: MIT
#include <asyncio/asyncio.hpp>
#include <asyncio/testing/virtual_time.hpp>

#include "support/reports.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

using asyncio::Coro;
using asyncio::create_task;
using asyncio::get_running_loop;
using asyncio::RuntimeError;
using asyncio_test::Reports;

namespace {

Coro<int> answer() { co_return 42; }

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

// Notes its end of life.
struct Notes {
    Notes(std::string& log, char name) : log_(&log), name_(name) {}
    Notes(Notes&& other) noexcept : log_(std::exchange(other.log_, nullptr)), name_(other.name_) {}
    ~Notes() {
        if (log_ != nullptr) *log_ += name_;
    }
    std::string* log_;
    char name_;
};

// --- being awaited ---

TEST(Coro, does_nothing_before_it_is_awaited) {
    const auto main = []() -> Coro<> {
        bool ran = false;
        const auto body = [](bool& flag) -> Coro<> {
            flag = true;
            co_return;
        };
        auto coroutine = body(ran);
        co_await asyncio::sleep(0);
        EXPECT_FALSE(ran);
        co_await coroutine;
        EXPECT_TRUE(ran);
    };
    asyncio::run(main());
}

// What awaiting it throws, as a RuntimeError.
template <class T> Coro<std::string> refusal(Coro<T>& coroutine) {
    try {
        co_await coroutine;
        co_return "none";
    } catch (const RuntimeError& error) {
        co_return error.what();
    }
}

TEST(Coro, is_awaited_once) {
    const auto main = []() -> Coro<> {
        auto coroutine = answer();
        const int value = co_await coroutine;
        EXPECT_EQ(value, 42);
        const std::string text = co_await refusal(coroutine);
        EXPECT_TRUE(contains(text, "cannot reuse already awaited coroutine")) << text;
        auto task_of = answer();
        const auto task = create_task(std::move(task_of));
        co_await task;
    };
    asyncio::run(main());
}

TEST(Coro, is_not_awaited_after_a_move) {
    const auto main = []() -> Coro<> {
        auto coroutine = answer();
        auto other = std::move(coroutine);
        const std::string text = co_await refusal(coroutine); // NOLINT(bugprone-use-after-move)
        EXPECT_TRUE(contains(text, "moved away")) << text;
        EXPECT_THROW(create_task(std::move(coroutine)), RuntimeError);
        const int value = co_await other;
        EXPECT_EQ(value, 42);
    };
    asyncio::run(main());
}

TEST(Coro, is_not_awaited_after_close) {
    const auto main = []() -> Coro<> {
        auto coroutine = answer();
        coroutine.close();
        coroutine.close();
        const std::string text = co_await refusal(coroutine);
        EXPECT_NE(text, "none");
    };
    asyncio::run(main());
}

TEST(Coro, moves_into_vectors) {
    const auto main = []() -> Coro<> {
        const auto number = [](int n) -> Coro<int> {
            co_await asyncio::sleep(0);
            co_return n;
        };
        std::vector<Coro<int>> coroutines;
        for (int i = 0; i < 50; ++i) coroutines.push_back(number(i));
        coroutines.erase(coroutines.begin() + 10, coroutines.begin() + 10);
        std::swap(coroutines[0], coroutines[49]);
        int sum = 0;
        for (auto& coroutine : coroutines) {
            const int n = co_await coroutine;
            sum = sum * 3 % 1'000'003 + n;
        }
        int expected = 0;
        for (int i = 0; i < 50; ++i)
            expected = expected * 3 % 1'000'003 + (i == 0 ? 49 : i == 49 ? 0 : i);
        EXPECT_EQ(sum, expected);
    };
    asyncio::run(main());
}

// --- never awaited ---

Coro<> forgotten_by_its_author() { co_return; }

TEST(Coro, that_is_never_awaited_is_reported_with_its_function) {
    Reports reports;
    const auto main = [](Reports& all) -> Coro<> {
        all.watch(get_running_loop());
        {
            const auto coroutine = forgotten_by_its_author();
            EXPECT_EQ(all.count(), 0u);
        }
        EXPECT_EQ(all.count(), 1u);
        EXPECT_EQ(all.count("forgotten_by_its_author"), 1u) << all.text();
        EXPECT_EQ(all.count("was never awaited"), 1u) << all.text();
        EXPECT_EQ(all.count("coroutine.cpp:"), 1u) << all.text();
        auto moved = forgotten_by_its_author();
        auto to = std::move(moved);
        moved = std::move(to); // and back
        co_await moved;
        EXPECT_EQ(all.count(), 1u);
    };
    asyncio::run(main(reports));
    EXPECT_EQ(reports.count(), 1u) << reports.text();
}

TEST(Coro, that_is_never_awaited_outside_of_a_loop_is_reported_too) {
    testing::internal::CaptureStderr();
    {
        const auto coroutine = forgotten_by_its_author();
    }
    const std::string text = testing::internal::GetCapturedStderr();
    EXPECT_TRUE(contains(text, "forgotten_by_its_author")) << text;
    EXPECT_TRUE(contains(text, "was never awaited")) << text;
}

TEST(Coro, that_is_closed_destroys_its_parameters_without_a_report) {
    testing::internal::CaptureStderr();
    std::string log;
    const auto body = [](Notes) -> Coro<> { co_return; };
    {
        auto coroutine = body(Notes(log, 'p'));
        EXPECT_EQ(log, "");
        coroutine.close();
        EXPECT_EQ(log, "p");
    }
    EXPECT_EQ(log, "p");
    EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

// --- results and exceptions ---

Coro<int> fails(int depth, std::string& log) {
    const Notes local(log, static_cast<char>('0' + depth));
    if (depth == 3) {
        co_await asyncio::sleep(0);
        throw std::runtime_error("from below");
    }
    co_return co_await fails(depth + 1, log) + 1;
}

TEST(Coro, lets_exceptions_through_three_frames) {
    const auto main = []() -> Coro<> {
        std::string log;
        try {
            co_await fails(1, log);
            ADD_FAILURE();
        } catch (const std::runtime_error& error) {
            EXPECT_STREQ(error.what(), "from below");
        }
        EXPECT_EQ(log, "321");
    };
    asyncio::run(main());
}

TEST(Coro, may_catch_and_throw_something_else) {
    const auto main = []() -> Coro<> {
        const auto translates = [](std::string& log) -> Coro<> {
            try {
                co_await fails(3, log);
            } catch (const std::runtime_error& error) {
                throw std::logic_error(std::string("translated ") + error.what());
            }
        };
        std::string log;
        for (int i = 0; i < 3; ++i) {
            try {
                co_await translates(log);
                ADD_FAILURE();
            } catch (const std::logic_error& error) {
                EXPECT_STREQ(error.what(), "translated from below");
            }
        }
        EXPECT_EQ(log, "333");
    };
    asyncio::run(main());
}

TEST(Coro, gives_references) {
    const auto main = []() -> Coro<> {
        const auto same = [](std::string& text) -> Coro<std::string&> {
            co_await asyncio::sleep(0);
            co_return text;
        };
        const auto same_const = [](const std::string& text) -> Coro<const std::string&> {
            co_return text;
        };
        std::string text = "x";
        std::string& result = co_await same(text);
        EXPECT_EQ(&result, &text);
        const std::string& constant = co_await same_const(text);
        EXPECT_EQ(&constant, &text);
    };
    asyncio::run(main());
}

struct OnlyExplicit {
    explicit OnlyExplicit(int n) : number(n) {}
    OnlyExplicit(OnlyExplicit&&) = default;
    OnlyExplicit& operator=(OnlyExplicit&&) = delete;
    int number;
};

TEST(Coro, gives_results_without_default_constructor_or_assignment) {
    const auto main = []() -> Coro<> {
        const auto make = []() -> Coro<OnlyExplicit> { co_return OnlyExplicit(3); };
        const auto result = co_await make();
        EXPECT_EQ(result.number, 3);
        const auto make_optional = []() -> Coro<std::optional<std::string>> { co_return "text"; };
        const auto text = co_await make_optional();
        EXPECT_EQ(text, "text");
        const auto nothing = []() -> Coro<std::optional<std::string>> { co_return std::nullopt; };
        const auto none = co_await nothing();
        EXPECT_FALSE(none.has_value());
    };
    asyncio::run(main());
}

// --- lifetimes ---

TEST(Coro, destroys_its_frame_before_the_awaiting_one_goes_on) {
    const auto main = []() -> Coro<> {
        std::string log;
        const auto body = [](Notes, std::string& text) -> Coro<int> {
            const Notes local(text, 'l');
            co_await asyncio::sleep(0);
            co_return 1;
        };
        const int value = co_await body(Notes(log, 'p'), log);
        log += 'm';
        EXPECT_EQ(value, 1);
        EXPECT_EQ(log, "lpm");
        log.clear();
        auto named = body(Notes(log, 'p'), log);
        co_await named;
        log += 'm';
        EXPECT_EQ(log, "lpm");
    };
    asyncio::run(main());
}

TEST(Coro, keeps_temporaries_of_the_call_until_the_await_is_over) {
    const auto main = []() -> Coro<> {
        const auto length = [](const std::string& text) -> Coro<std::size_t> {
            co_await asyncio::sleep(0);
            co_return text.size();
        };
        const std::size_t size = co_await length(std::string(100, 'x'));
        EXPECT_EQ(size, 100u);
        std::string log;
        const auto reads = [](const Notes&, std::string& text) -> Coro<> {
            co_await asyncio::sleep(0);
            text += 'b';
        };
        co_await reads(Notes(log, 't'), log);
        log += 'm';
        EXPECT_EQ(log, "btm");
    };
    asyncio::run(main());
}

TEST(Coro, is_as_deep_as_memory_allows) {
    const auto main = []() -> Coro<> {
        struct Deep {
            static Coro<int> down(int depth) {
                if (depth == 0) {
                    co_await asyncio::sleep(0);
                    co_return 0;
                }
                const int below = co_await down(depth - 1);
                co_return below + 1;
            }
        };
        const int depth = co_await Deep::down(20'000);
        EXPECT_EQ(depth, 20'000);
    };
    asyncio::run(main());
}

// --- where it stands ---

Coro<> stands_here(int& line) {
    // clang-format off
    line = __LINE__; co_await asyncio::sleep(1000);
    // clang-format on
}
Coro<> awaits_it(int& line) { co_await stands_here(line); }

template <class Make> void expect_place_in_report(Make make) {
    auto loop = asyncio::new_event_loop();
    const Reports reports(*loop);
    int line = 0;
    // clang-format off
    const auto task = create_task(*loop, make(line)); const int made = __LINE__;
    // clang-format on
    asyncio::run_until_complete(*loop, answer());
    loop.reset();
    EXPECT_EQ(reports.count(), 1u);
    EXPECT_EQ(reports.count("coroutine.cpp:" + std::to_string(line) + " in "), 1u)
        << line << reports.text();
    EXPECT_EQ(reports.count("created at "), 1u);
    EXPECT_EQ(reports.count("coroutine.cpp:" + std::to_string(made) + ">"), 1u)
        << made << reports.text();
}

TEST(Coro, tells_the_innermost_await_at_which_its_task_stands) {
    expect_place_in_report([](int& line) { return awaits_it(line); });
}

TEST(Coro, tells_the_line_of_each_kind_of_await) {
    // clang-format off
    expect_place_in_report([](int& line) -> Coro<> { line = __LINE__; static_cast<void>(co_await asyncio::sleep(1000, 1)); });
    expect_place_in_report([](int& line) -> Coro<> { line = __LINE__; co_await asyncio::create_future(); });
    expect_place_in_report([](int& line) -> Coro<> { for (line = __LINE__;;) co_await asyncio::sleep(0); });
    expect_place_in_report([](int& line) -> Coro<> { line = __LINE__; static_cast<void>(co_await asyncio::as_result(asyncio::sleep(5))); });
    expect_place_in_report([](int& line) -> Coro<> {
        co_await asyncio::sleep(0); co_await answer(); line = __LINE__; co_await asyncio::sleep(9);
    });
    // clang-format on
}

} // namespace
