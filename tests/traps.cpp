// SPDX-License-Identifier: MIT
//
// Compilers get coroutines wrong in known ways. Each test here runs a shape that some compiler is
// known to miscompile, spelled as we tell users to spell it, or a place where the library rounds a
// bug. Instances are counted; under AddressSanitizer a second destruction is also seen as such.
// What must not compile at all is in tests/compile_fail/temporaries.cpp.

#include <asyncio/asyncio.hpp>
#include <asyncio/testing/virtual_time.hpp>
#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace {

using asyncio::Coro;
using asyncio::testing::VirtualClock;

// Owns memory, and counts how often one of its kind begins and ends.
class Counted {
  public:
    Counted() : value_(std::make_unique<int>(7)) { ++begun; }
    Counted(const Counted& other) : value_(std::make_unique<int>(*other.value_)) { ++begun; }
    Counted(Counted&& other) noexcept : value_(std::move(other.value_)) { ++begun; }
    Counted& operator=(const Counted&) = delete;
    Counted& operator=(Counted&&) = delete;
    ~Counted() { ++ended; }
    int value() const { return *value_; }

    static inline int begun = 0;
    static inline int ended = 0;

  private:
    std::unique_ptr<int> value_;
};

struct Aggregate {
    Counted first;
    Counted second;
};

// Runs the coroutine function with virtual time, and checks that all that was begun has ended.
template <class Body> void run_counted(Body body) {
    Counted::begun = Counted::ended = 0;
    VirtualClock clock;
    asyncio::run(body(), asyncio::RunOptions().clock(clock));
    EXPECT_EQ(Counted::begun, Counted::ended);
    EXPECT_GT(Counted::begun, 0);
}
template <class Body> void run_plain(Body body) {
    VirtualClock clock;
    asyncio::run(body(), asyncio::RunOptions().clock(clock));
}

Coro<int> take(Counted counted) {
    co_await asyncio::sleep(0);
    co_return counted.value();
}
Coro<int> look(const Counted& counted) {
    co_await asyncio::sleep(0);
    co_return counted.value();
}
Coro<Aggregate> aggregate() {
    co_await asyncio::sleep(0);
    co_return Aggregate{Counted(), Counted()};
}
Coro<int> number(int n) {
    co_await asyncio::sleep(0);
    co_return n;
}

} // namespace

// --- Closures that own something, in the spellings that are safe everywhere
// -----------------------

TEST(Traps, a_named_closure_is_destroyed_once) {
    run_counted([]() -> Coro<> {
        const Counted counted;
        auto named = [counted]() -> Coro<int> {
            co_await asyncio::sleep(0);
            co_return counted.value();
        };
        auto cleanup = [counted] { EXPECT_EQ(counted.value(), 7); };
        int sum = co_await named();
        sum += co_await asyncio::create_task(named);
        sum += co_await asyncio::create_task(asyncio::get_running_loop(), named);
        sum += co_await asyncio::create_task(asyncio::TaskOptions().name("named"), named);
        sum += co_await asyncio::try_finally(named, cleanup);
        auto both = co_await asyncio::gather(named, std::as_const(named));
        auto& [first, second] = both;
        EXPECT_EQ(sum + first + second, 7 * 7);
    });
}

TEST(Traps, a_moved_closure_is_destroyed_once) {
    run_counted([]() -> Coro<> {
        const Counted counted;
        auto for_task = [counted, p = std::make_unique<int>(1)]() -> Coro<int> {
            co_await asyncio::sleep(0);
            co_return counted.value() + *p;
        };
        const int from_task = co_await asyncio::create_task(asyncio::moved(for_task));
        auto for_gather = [counted, p = std::make_unique<int>(1)]() -> Coro<int> {
            co_await asyncio::sleep(0);
            co_return counted.value() + *p;
        };
        auto gathered = co_await asyncio::gather(asyncio::moved(for_gather));
        EXPECT_EQ(from_task + std::get<0>(gathered), 16);
    });
}

TEST(Traps, a_closure_that_refers_may_be_a_temporary) {
    run_counted([]() -> Coro<> {
        Counted counted;
        int sum = co_await asyncio::create_task([&]() -> Coro<int> {
            co_await asyncio::sleep(0);
            co_return counted.value();
        });
        sum += co_await [&]() -> Coro<int> { co_return counted.value(); }();
        sum += co_await asyncio::try_finally([&]() -> Coro<int> { return take(counted); }, [&] {});
        EXPECT_EQ(sum, 21);
    });
}

TEST(Traps, owning_arguments_stand_beside_a_closure_without_captures) {
    run_counted([]() -> Coro<> {
        Counted counted;
        int sum = co_await asyncio::create_task(
            [](Counted c, std::string s) -> Coro<int> {
                co_await asyncio::sleep(0);
                co_return c.value() + static_cast<int>(s.size());
            },
            counted, std::string("short"));
        sum += co_await asyncio::create_task([](Counted c) -> Coro<int> { co_return c.value(); },
                                             std::move(counted));
        EXPECT_EQ(sum, 19);
    });
}

TEST(Traps, a_closure_that_owns_may_be_a_temporary_where_nothing_is_awaited) {
    run_counted([]() -> Coro<> {
        auto function = std::function<Coro<int>()>();
        {
            const Counted counted;
            auto named = [counted]() -> Coro<int> {
                co_await asyncio::sleep(0);
                co_return counted.value();
            };
            function = named;
        }
        const int copied = co_await asyncio::create_task(function);
        const int moved = co_await asyncio::create_task(std::move(function));
        EXPECT_EQ(copied + moved, 14);
    });
    // run() takes a temporary on every compiler.
    Counted::begun = Counted::ended = 0;
    const int result = asyncio::run([counted = Counted()]() -> Coro<int> {
        co_await asyncio::sleep(0);
        co_return counted.value();
    });
    EXPECT_EQ(result, 7);
    EXPECT_EQ(Counted::begun, Counted::ended);
}

#if !ASYNCIO_DESTROYS_TEMPORARIES_TWICE
TEST(Traps, where_they_are_not_refused_temporaries_that_own_are_destroyed_once) {
    run_counted([]() -> Coro<> {
        const Counted counted;
        int sum = co_await asyncio::create_task([counted]() -> Coro<int> {
            co_await asyncio::sleep(0);
            co_return counted.value();
        });
        sum += co_await asyncio::try_finally(
            [counted]() -> Coro<int> { co_return counted.value(); }, [counted] {});
        auto gathered = co_await asyncio::gather([counted]() -> Coro<int> {
            co_await asyncio::sleep(0);
            co_return counted.value();
        });
        sum += std::get<0>(gathered);
        sum += co_await asyncio::create_task(
            [](Aggregate a) -> Coro<int> { co_return a.first.value(); },
            Aggregate{counted, counted});
        const Aggregate slept = co_await asyncio::sleep(0, Aggregate{counted, counted});
        EXPECT_EQ(sum + slept.second.value(), 35);
    });
}
#endif

// --- Temporaries and results that own something
// ---------------------------------------------------

TEST(Traps, temporaries_of_an_awaited_expression_live_until_its_end_and_no_longer) {
    run_counted([]() -> Coro<> {
        const int sum = co_await look(Counted()) + co_await take(Counted()) + co_await take({});
        EXPECT_EQ(sum, 21);
        EXPECT_EQ(Counted::begun, Counted::ended);
    });
}

TEST(Traps, pairs_tuples_and_strings_may_be_temporaries) {
    run_counted([]() -> Coro<> {
        const Counted counted;
        int sum = co_await asyncio::create_task(
            [](std::pair<Counted, std::string> p) -> Coro<int> {
                co_await asyncio::sleep(0);
                co_return p.first.value();
            },
            std::pair(counted, std::string(100, 'x')));
        const auto slept = co_await asyncio::sleep(0, std::tuple(counted, std::string(100, 'y')));
        sum += std::get<0>(slept).value();
        EXPECT_EQ(sum, 14);
    });
}

TEST(Traps, an_aggregate_that_was_returned_is_destroyed_once) {
    run_counted([]() -> Coro<> {
        auto whole = co_await aggregate();
        auto& [first, second] = whole;
        const int member = (co_await aggregate()).second.value();
        auto task = asyncio::create_task(aggregate());
        auto copy = co_await task;
        auto last = co_await std::move(task);
        EXPECT_EQ(
            first.value() + second.value() + member + copy.first.value() + last.second.value(), 35);
        auto both = co_await asyncio::gather(aggregate(), aggregate());
        auto& [one, other] = both;
        EXPECT_EQ(one.first.value() + other.second.value(), 14);
        co_await aggregate(); // dropped
    });
}

TEST(Traps, short_strings_as_parameters_are_moved_not_copied_bit_by_bit) {
    struct Texts {
        static Coro<std::string> join(std::string a, std::string b) {
            co_await asyncio::sleep(0);
            a += b; // a short string that was copied bit by bit points into the caller's
            co_return a;
        }
    };
    run_plain([]() -> Coro<> {
        std::string short_text = "ab";
        const std::string joined = co_await Texts::join(std::move(short_text), "cd");
        EXPECT_EQ(joined, "abcd");
        const std::string from_task = co_await asyncio::create_task(Texts::join, "x", "y");
        EXPECT_EQ(from_task, "xy");
        const std::string slept = co_await asyncio::sleep(0, std::string("short"));
        EXPECT_EQ(slept, "short");
    });
}

TEST(Traps, options_are_classes_whose_temporaries_are_safe) {
    run_plain([]() -> Coro<> {
        const std::string long_name(100, 'n');
        auto name = [&]() -> Coro<std::string> { co_return asyncio::current_task().get_name(); };
        const std::string seen =
            co_await asyncio::create_task(asyncio::TaskOptions().name(long_name), name);
        EXPECT_EQ(seen, long_name);
    });
}

TEST(Traps, a_range_is_built_before_it_is_awaited) {
    run_plain([]() -> Coro<> {
        const std::vector<int> numbers{1, 2, 3}; // braces do not compile inside of co_await on GCC
        std::vector<Coro<int>> coroutines;
        for (const int n : numbers) coroutines.push_back(number(n));
        const auto results = co_await asyncio::gather(std::move(coroutines));
        EXPECT_EQ(results, numbers);
        auto pair = std::array<Coro<int>, 2>{number(1), number(2)};
        const auto two = co_await asyncio::gather(pair);
        EXPECT_EQ(two, (std::vector<int>{1, 2}));
    });
}

// --- Order of destruction, conditions, calls through pointers
// -------------------------------------

TEST(Traps, locals_and_parameters_are_destroyed_in_order) {
    struct Logged {
        std::string& log;
        char name;
        Logged(std::string& l, char n) : log(l), name(n) {}
        Logged(Logged&& other) noexcept : log(other.log), name(std::exchange(other.name, '-')) {}
        Logged(const Logged&) = delete;
        Logged& operator=(const Logged&) = delete;
        ~Logged() {
            if (name != '-') log += name;
        }
    };
    std::string log;
    auto inner = [&log](Logged) -> Coro<> {
        const Logged first(log, 'a');
        co_await asyncio::sleep(0);
        const Logged second(log, 'b');
        {
            const Logged nested(log, 'c');
            co_await asyncio::sleep(0);
        }
        log += '.';
    };
    run_plain([&]() -> Coro<> {
        const Logged outer(log, 'o');
        co_await inner(Logged(log, 'p'));
        log += ';';
    });
    EXPECT_EQ(log, "c.bap;o");
}

TEST(Traps, a_condition_takes_values_that_were_awaited_before) {
    run_counted([]() -> Coro<> {
        for (const bool which : {true, false}) {
            int chosen = 0;
            if (which) {
                chosen = co_await take(Counted());
            } else {
                chosen = co_await number(3);
            }
            EXPECT_EQ(chosen, which ? 7 : 3);
        }
    });
}

TEST(Traps, member_functions_are_called_through_pointers) {
    struct Object {
        int member = 5;
        Coro<int> method(int n) {
            co_await asyncio::sleep(0);
            co_return member + n;
        }
    };
    run_plain([]() -> Coro<> {
        Object object;
        auto owner = std::make_shared<Object>();
        int sum = co_await asyncio::create_task(&Object::method, &object, 1);
        sum += co_await asyncio::create_task(&Object::method, std::ref(object), 1);
        sum += co_await asyncio::create_task(&Object::method, owner, 1);
        sum += co_await asyncio::create_task(&Object::method, object, 1);
        auto pointer = &Object::method;
        auto direct = std::invoke(pointer, object, 1);
        sum += co_await std::move(direct);
        EXPECT_EQ(sum, 30);
    });
}

// --- What the compiler may cache or leave out across a suspension
// ---------------------------------

TEST(Traps, the_running_loop_is_read_anew_after_a_suspension) {
    // One coroutine, driven by two loops of one thread in turn: it must never see the other's.
    struct Steps {
        static Coro<> look(asyncio::EventLoop& mine, int& wrong) {
            for (int i = 0; i < 3; ++i) {
                if (&asyncio::get_running_loop() != &mine) ++wrong;
                if (!asyncio::current_task().valid()) ++wrong;
                co_await asyncio::sleep(0);
            }
        }
    };
    int wrong = 0;
    auto first = asyncio::new_event_loop();
    auto second = asyncio::new_event_loop();
    auto one = asyncio::create_task(*first, Steps::look(*first, wrong));
    auto two = asyncio::create_task(*second, Steps::look(*second, wrong));
    while (!one.done() || !two.done()) {
        for (auto* loop : {first.get(), second.get()}) {
            loop->stop();
            loop->run_forever();
        }
    }
    EXPECT_EQ(wrong, 0);
    EXPECT_EQ(asyncio::get_running_loop_or_null(), nullptr);
}

TEST(Traps, frames_that_escape_are_not_placed_in_the_frame_of_the_caller) {
    struct Holder {
        Coro<int> kept;
    };
    struct Make {
        static Holder holder(int n) { return Holder{number(n)}; }
        static Coro<int> later(Coro<int> other) {
            co_await asyncio::sleep(0);
            co_return co_await std::move(other);
        }
        static asyncio::Task<int> task(int n) { return asyncio::create_task(number(n)); }
    };
    run_plain([]() -> Coro<> {
        auto stored = number(1);
        co_await asyncio::sleep(0);
        int sum = co_await std::move(stored);
        Holder holder = Make::holder(2);
        auto shared = std::make_shared<Holder>(std::move(holder));
        co_await asyncio::sleep(0);
        sum += co_await std::move(shared->kept);
        sum += co_await Make::later(number(3));
        auto gathered = asyncio::gather(number(4), Make::later(number(5)));
        co_await asyncio::sleep(0);
        auto results = co_await std::move(gathered);
        sum += std::get<0>(results) + std::get<1>(results);
        auto task = Make::task(6);
        sum += co_await task;
        std::vector<Coro<int>> several;
        for (int i = 0; i < 3; ++i) several.push_back(number(i));
        for (Coro<int>& one : several) sum += co_await one;
        EXPECT_EQ(sum, 24);
    });
}

TEST(Traps, a_frame_is_not_destroyed_while_it_suspends) {
    // A task that drops the last handle of itself, and one that is cancelled as it begins to wait.
    run_counted([]() -> Coro<> {
        asyncio::Task<> self;
        auto drops_itself = [&](Counted counted) -> Coro<> {
            self = asyncio::Task<>();
            co_await asyncio::sleep(0);
            EXPECT_EQ(counted.value(), 7);
        };
        self = asyncio::create_task(drops_itself, Counted());
        auto cancels_itself = [](Counted counted) -> Coro<> {
            asyncio::current_task().cancel();
            co_await asyncio::sleep(3600);
            ADD_FAILURE() << counted.value();
        };
        auto cancelled = asyncio::create_task(cancels_itself, Counted());
        static_cast<void>(co_await asyncio::as_result(cancelled));
        EXPECT_TRUE(cancelled.cancelled());
        EXPECT_EQ(Counted::begun, Counted::ended);
    });
}

// --- Foreign awaiters
// -----------------------------------------------------------------------------

namespace {

struct Throwing {
    Counted counted = {};
    bool ready = true;
    explicit Throwing(bool is_ready) : ready(is_ready) {}
    bool await_ready() const { return ready; }
    void await_suspend(std::coroutine_handle<> frame) const { frame.resume(); }
    int await_resume() const { throw asyncio::RuntimeError("from await_resume"); }
};
struct ThrowsAtSuspension {
    Counted counted = {};
    ThrowsAtSuspension() = default;
    explicit ThrowsAtSuspension(int) {}
    bool await_ready() const { return false; }
    void await_suspend(std::coroutine_handle<>) const {
        throw asyncio::RuntimeError("from await_suspend");
    }
    void await_resume() const { ADD_FAILURE(); }
};

} // namespace

TEST(Traps, exceptions_of_a_leaf_awaiter_arrive_and_destroy_it_once) {
    run_counted([]() -> Coro<> {
        std::string caught;
        for (const bool ready : {true, false}) {
            try {
                co_await Throwing(ready);
            } catch (const asyncio::RuntimeError& error) {
                caught += error.what();
            }
            EXPECT_EQ(Counted::begun, Counted::ended);
        }
        try {
            co_await ThrowsAtSuspension(1);
        } catch (const asyncio::RuntimeError& error) {
            caught += error.what();
        }
        EXPECT_EQ(Counted::begun, Counted::ended);
        EXPECT_EQ(caught, "from await_resumefrom await_resumefrom await_suspend");
        const auto result = co_await asyncio::as_result(Throwing(false));
        EXPECT_TRUE(result.failed_with<asyncio::RuntimeError>());
    });
}

TEST(Traps, a_foreign_awaiter_outlives_its_resumption) {
    // It is destroyed when the awaited expression ends, not when it resumes its handle; and what it
    // holds is still there in await_resume.
    struct Late {
        Counted counted = {};
        std::coroutine_handle<>& kept;
        explicit Late(std::coroutine_handle<>& k) : kept(k) {}
        bool await_ready() const { return false; }
        void await_suspend(std::coroutine_handle<> frame) { kept = frame; }
        int await_resume() const { return counted.value(); }
    };
    run_counted([]() -> Coro<> {
        std::coroutine_handle<> kept;
        int got = 0;
        auto waits = [&]() -> Coro<> { got = co_await Late(kept); };
        auto task = asyncio::create_task(waits);
        co_await asyncio::sleep(0);
        EXPECT_EQ(Counted::begun, Counted::ended + 1);
        kept.resume();
        EXPECT_EQ(Counted::begun, Counted::ended + 1);
        EXPECT_EQ(got, 0);
        co_await task;
        EXPECT_EQ(got, 7);
        EXPECT_EQ(Counted::begun, Counted::ended);
    });
}

TEST(Traps, a_foreign_awaiter_that_is_never_resumed_goes_with_its_loop) {
    struct Never {
        Counted counted = {};
        explicit Never(int) {}
        bool await_ready() const { return false; }
        void await_suspend(std::coroutine_handle<>) const {}
        void await_resume() const {}
    };
    Counted::begun = Counted::ended = 0;
    {
        auto loop = asyncio::new_event_loop();
        loop->set_exception_handler([](asyncio::EventLoop&, const asyncio::ExceptionContext&) {});
        auto waits = [](Counted counted) -> Coro<> {
            co_await Never(1);
            ADD_FAILURE() << counted.value();
        };
        asyncio::create_task(*loop, waits, Counted());
        loop->stop();
        loop->run_forever();
    }
    EXPECT_EQ(Counted::begun, Counted::ended);
    EXPECT_GT(Counted::begun, 0);
}

// --- GCC 12 awaits a copy of a temporary awaiter that await_transform() gives back by reference

TEST(Traps, an_operation_is_awaited_where_it_was_made) {
    run_plain([]() -> Coro<> {
        struct Here {
            using AsyncioAwaiter = void;
            explicit Here(const Here** place) : place_(place) { *place = this; }
            Here(Here&& other) noexcept : place_(other.place_) {}
            Here& operator=(Here&&) = delete;
            ~Here() { EXPECT_EQ(this, *place_); }
            bool await_ready() const noexcept { return true; }
            void await_suspend(std::coroutine_handle<>) const noexcept {}
            const Here* await_resume() const noexcept { return this; }

            const Here** place_;
        };
        const Here* made = nullptr;
        const Here* awaited = co_await Here(&made);
        EXPECT_EQ(awaited, made);
    });
}
