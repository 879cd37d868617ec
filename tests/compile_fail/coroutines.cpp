// SPDX-License-Identifier: MIT
//
// What is refused of coroutines, and of what they await, each with one sentence.

// CASE_await_int: fails only with "co_await takes a Coro, a Task, a Future"
// CASE_await_int_for_a_value: fails only with "co_await takes a Coro, a Task, a Future"
// CASE_await_function: fails only with "A function must be called first;"
// CASE_await_lambda: fails only with "A function must be called first;"
// CASE_await_unistd_sleep: fails only with "sleep must be asyncio::sleep, not"
// CASE_await_unqualified_sleep: fails only with "not the one of <unistd.h>"
// CASE_await_qualified_sleep: compiles

// CASE_over_aligned: fails only with "a coroutine cannot be aligned to more than 16 bytes"
// CASE_aligned_to_16: compiles
// CASE_rvalue_reference: fails only with "a coroutine returns a value, an lvalue"
// CASE_reference_to_temporary: fails only with "an object for it that outlives the coroutine"
// CASE_reference_to_converted: fails only with "an object for it that outlives the coroutine"
// CASE_reference_to_base: compiles
// CASE_other_results: compiles

// CASE_copy: fails with "it is awaited once: hand it on with std::move"
// CASE_copy_to_create_task: fails with "it is awaited once: hand it on with std::move"
// CASE_move: compiles

// CASE_drop_coroutine: fails only with "a coroutine does nothing until"
// CASE_drop_sleep: fails only with "nobody sleeps until it is awaited"
// CASE_drop_sleep_of_seconds: fails only with "nobody sleeps until it is awaited"
// CASE_drop_sleep_with_result: fails only with "nobody sleeps until it is awaited"
// CASE_drop_as_result: fails only with "nothing is awaited without co_await"
// CASE_drop_task: compiles

// CASE_without_rtti flags: -fno-rtti
// CASE_without_rtti: compiles

#include <asyncio/asyncio.hpp>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

using asyncio::Coro;
using namespace std::chrono_literals;

Coro<int> one() { co_return 1; }

#ifdef CASE_await_int
Coro<> f() { co_await 1; }
#endif
#ifdef CASE_await_int_for_a_value
Coro<std::string> f() {
    int i = co_await 1;
    std::string s = co_await i;
    co_return s;
}
#endif
#ifdef CASE_await_function
Coro<> f() { co_await one; }
#endif
#ifdef CASE_await_lambda
Coro<> f() {
    co_await []() -> Coro<> { co_return; };
}
#endif
#ifdef CASE_await_unistd_sleep
Coro<> f() { co_await ::sleep(1); }
#endif
#ifdef CASE_await_unqualified_sleep
Coro<> f() { co_await sleep(1); }
#endif
#ifdef CASE_await_qualified_sleep
Coro<> f() { co_await asyncio::sleep(1); }
#endif

struct alignas(32) OverAligned {
    int number;
};
struct alignas(16) Aligned {
    int number;
};
#ifdef CASE_over_aligned
Coro<OverAligned> f() { co_return OverAligned{1}; }
#endif
#ifdef CASE_aligned_to_16
Coro<Aligned> f() { co_return Aligned{1}; }
Coro<> g() { co_await asyncio::create_task(f()); }
#endif
#ifdef CASE_rvalue_reference
Coro<int&&> f() { co_return 1; }
#endif
#ifdef CASE_other_results
Coro<std::unique_ptr<int>> a() { co_return std::make_unique<int>(1); }
Coro<std::string&> b(std::string& s) { co_return s; }
Coro<const int> c() { co_return 1; }
Coro<const std::string&> d(const std::string& s) { co_return s; }
Coro<std::vector<std::unique_ptr<int>>> e() { co_return std::vector<std::unique_ptr<int>>(); }
Coro<> f(std::string s) {
    co_await a();
    co_await b(s);
    co_await c();
    co_await d(s);
    co_await e();
    co_await asyncio::create_task(a());
    co_await asyncio::create_task(b(s));
    co_await asyncio::create_task(c());
    co_await asyncio::create_task(d(s));
    co_await asyncio::create_task(e());
    std::vector<Coro<std::unique_ptr<int>>> range;
    co_await asyncio::gather(std::move(range));
}
#endif

#ifdef CASE_reference_to_temporary
Coro<const std::string&> f() { co_return std::string("gone"); }
#endif
#ifdef CASE_reference_to_converted
Coro<const long&> f(int& i) { co_return i; }
#endif
#ifdef CASE_reference_to_base
struct Base {};
struct Derived : Base {};
Coro<const Base&> f(Derived& derived) { co_return derived; }
#endif

#ifdef CASE_copy
Coro<> f() {
    auto a = one();
    auto b = a;
    co_await std::move(b);
}
#endif
#ifdef CASE_copy_to_create_task
void f() {
    auto a = one();
    asyncio::create_task(a);
}
#endif
#ifdef CASE_move
Coro<> f() {
    auto a = one();
    auto b = std::move(a);
    co_await b;
    auto c = one();
    co_await asyncio::create_task(std::move(c));
}
#endif

#ifdef CASE_drop_coroutine
void f() { one(); }
#endif
#ifdef CASE_drop_sleep
void f() { asyncio::sleep(1s); }
#endif
#ifdef CASE_drop_sleep_of_seconds
void f() { asyncio::sleep(1.5); }
#endif
#ifdef CASE_drop_sleep_with_result
void f() { asyncio::sleep(1s, 1); }
#endif
#ifdef CASE_drop_as_result
void f() { asyncio::as_result(one()); }
#endif
#ifdef CASE_drop_task // the loop keeps it
void f() { asyncio::create_task(one()); }
#endif

#ifdef CASE_without_rtti
Coro<> f() { co_await asyncio::gather(asyncio::create_task(one), one(), asyncio::sleep(1s)); }
void g() { asyncio::run(f()); }
#endif
