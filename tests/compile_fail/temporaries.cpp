// SPDX-License-Identifier: MIT
//
// GCC 12 destroys a temporary closure or aggregate twice if it owns something and stands in one
// expression with a co_await. What can see such a temporary refuses it there; everything that is
// safe passes everywhere. tests/traps.cpp runs the safe spellings.

// Refused on GCC 12 only:

// CASE_create_task: compiles
// CASE_create_task [gcc < 13]: fails only with "name it first and pass it as it is"
// CASE_create_task_with_loop: compiles
// CASE_create_task_with_loop [gcc < 13]: fails only with "name it first and pass it as it is"
// CASE_create_task_with_options: compiles
// CASE_create_task_with_options [gcc < 13]: fails only with "name it first and pass it as it is"
// CASE_mixed_captures: compiles
// CASE_mixed_captures [gcc < 13]: fails only with "name it first and pass it as it is"
// CASE_mutable_generic: compiles
// CASE_mutable_generic [gcc < 13]: fails only with "name it first and pass it as it is"
// CASE_in_an_operator: compiles
// CASE_in_an_operator [gcc < 13]: fails only with "name it first and pass it as it is"
// CASE_in_a_lambda: compiles
// CASE_in_a_lambda [gcc < 13]: fails only with "name it first and pass it as it is"
// CASE_in_a_template: compiles
// CASE_in_a_template [gcc < 13]: fails only with "name it first and pass it as it is"
// CASE_an_argument: compiles
// CASE_an_argument [gcc < 13]: fails only with "name it first and pass it as it is"
// CASE_array_argument: compiles
// CASE_array_argument [gcc < 13]: fails only with "name it first and pass it as it is"
// CASE_gather: compiles
// CASE_gather [gcc < 13]: fails only with "name it first and pass it as it is"
// CASE_gather_return_exceptions: compiles
// CASE_gather_return_exceptions [gcc < 13]: fails only with "name it first and pass it as it is"
// CASE_gather_array: compiles
// CASE_gather_array [gcc < 13]: fails only with "name it first and pass it as it is"
// CASE_try_finally: compiles
// CASE_try_finally [gcc < 13]: fails only with "name it first and pass it as it is"
// CASE_try_finally_cleanup: compiles
// CASE_try_finally_cleanup [gcc < 13]: fails only with "name it first and pass it as it is"
// CASE_sleep: compiles
// CASE_sleep [gcc < 13]: fails only with "name it first and pass it as it is"
// CASE_queue: compiles
// CASE_queue [gcc < 13]: fails only with "name it first and pass it as it is"
// CASE_condition: compiles
// CASE_condition [gcc < 13]: fails only with "name it first and pass it as it is"
// CASE_awaiter: compiles
// CASE_awaiter [gcc < 13]: fails only with "name it first and pass it as it is"
// CASE_awaitable: compiles
// CASE_awaitable [gcc < 13]: fails only with "name it first and pass it as it is"
// CASE_as_result: compiles
// CASE_as_result [gcc < 13]: fails only with "name it first and pass it as it is"
// CASE_task_of_awaiter: compiles
// CASE_task_of_awaiter [gcc < 13]: fails only with "name it first and pass it as it is"
// CASE_task_of_awaiter_with_options: compiles
// CASE_task_of_awaiter_with_options [gcc < 13]: fails only with "name it first and pass it"
// CASE_task_of_awaiter_with_loop: compiles
// CASE_task_of_awaiter_with_loop [gcc < 13]: fails only with "name it first and pass it"
// CASE_task_group: compiles
// CASE_task_group [gcc < 13]: fails only with "name it first and pass it"
// CASE_task_group_of_ours: compiles
// CASE_task_group_of_ours [gcc < 13]: fails only with "name it first and pass it"
// CASE_task_of_a_group: compiles
// CASE_task_of_a_group [gcc < 13]: fails only with "name it first and pass it"
// CASE_task_of_a_group_with_options: compiles
// CASE_task_of_a_group_with_options [gcc < 13]: fails only with "name it first and pass it"
// CASE_timeout: compiles
// CASE_timeout [gcc < 13]: fails only with "name it first and pass it"
// CASE_timeout_at: compiles
// CASE_timeout_at [gcc < 13]: fails only with "name it first and pass it"
// CASE_wait_for: compiles
// CASE_wait_for [gcc < 13]: fails only with "name it first and pass it"
// CASE_wait_for_awaiter: compiles
// CASE_wait_for_awaiter [gcc < 13]: fails only with "name it first and pass it"
// CASE_wait_array: compiles
// CASE_wait_array [gcc < 13]: fails only with "name it first and pass it"
// CASE_as_completed_array: compiles
// CASE_as_completed_array [gcc < 13]: fails only with "name it first and pass it"
// CASE_shield: compiles
// CASE_shield [gcc < 13]: fails only with "name it first and pass it"
// CASE_ensure_future: compiles
// CASE_ensure_future [gcc < 13]: fails only with "name it first and pass it"
// CASE_ensure_future_with_loop: compiles
// CASE_ensure_future_with_loop [gcc < 13]: fails only with "name it first and pass it"

// Safe, so taken everywhere:

// CASE_named: compiles
// CASE_moved: compiles
// CASE_by_move: compiles
// CASE_no_owning_captures: compiles
// CASE_owning_arguments: compiles
// CASE_classes: compiles
// CASE_std_function: compiles
// CASE_trivial_aggregate: compiles
// CASE_named_aggregate: compiles
// CASE_run: compiles
// CASE_callbacks: compiles
// CASE_scopes: compiles

#include <asyncio/asyncio.hpp>

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

using asyncio::Coro;
using Owner = std::shared_ptr<int>;

struct Aggregate {
    Owner owner;
    int number = 0;
};
struct Trivial {
    const char* name;
    int number;
};
class Options {
  public:
    Options() = default;
    Options& name(std::string text) {
        name_ = std::move(text);
        return *this;
    }

  private:
    std::string name_;
};
struct Functor {
    explicit Functor(Owner o) : owner(std::move(o)) {}
    Coro<int> operator()() const { co_return *owner; }
    Owner owner;
};
struct OwningAwaiter {
    Owner owner;
    bool await_ready() const { return true; }
    void await_suspend(std::coroutine_handle<>) const {}
    int await_resume() const { return *owner; }
};
struct OwningAwaitable {
    Owner owner;
    OwningAwaiter operator co_await() const { return OwningAwaiter{owner}; }
};
template <class T> Coro<> take(T) { co_return; }
Coro<int> plain() { co_return 1; }

#ifdef CASE_create_task
Coro<> f(Owner p) {
    co_await asyncio::create_task([p]() -> Coro<int> { co_return *p; });
}
#endif
#ifdef CASE_create_task_with_loop
Coro<> f(Owner p) {
    co_await asyncio::create_task(asyncio::get_running_loop(),
                                  [p]() -> Coro<int> { co_return *p; });
}
#endif
#ifdef CASE_create_task_with_options
Coro<> f(Owner p) {
    co_await asyncio::create_task(asyncio::TaskOptions().name("n"),
                                  [p]() -> Coro<int> { co_return *p; });
}
#endif
#ifdef CASE_mixed_captures
Coro<> f(Owner p) {
    int n = 1;
    co_await asyncio::create_task([&, p]() -> Coro<int> { co_return *p + n; });
}
#endif
#ifdef CASE_mutable_generic
Coro<> f(Owner p) {
    co_await asyncio::create_task([p](auto... n) mutable -> Coro<int> { co_return (*p + ... + n); },
                                  1, 2L);
}
#endif
#ifdef CASE_in_an_operator
struct Comparable {
    Coro<> operator<(Owner p) {
        co_await asyncio::create_task([p]() -> Coro<int> { co_return *p; });
    }
    Coro<> operator->*(Owner p) {
        co_await asyncio::create_task([p]() -> Coro<int> { co_return *p; });
    }
};
#endif
#ifdef CASE_in_a_lambda
auto outer = [](Owner p) -> Coro<> {
    co_await asyncio::create_task([p]() -> Coro<int> { co_return *p; });
};
auto use() { return outer; }
#endif
#ifdef CASE_in_a_template
template <bool b> struct Template {
    template <class T> static Coro<> f(T p) {
        co_await asyncio::create_task([p]() -> Coro<int> { co_return *p; });
    }
};
auto used = &Template<(3 > 2)>::f<Owner>;
#endif
#ifdef CASE_an_argument
Coro<> f(Owner p) { co_await asyncio::create_task(take<Aggregate>, Aggregate{p, 1}); }
#endif
#ifdef CASE_array_argument
Coro<> f(std::string s) {
    co_await asyncio::create_task(take<std::array<std::string, 2>>,
                                  std::array<std::string, 2>{s, s});
}
#endif
#ifdef CASE_gather
Coro<> f(Owner p) {
    co_await asyncio::gather(plain(), [p]() -> Coro<int> { co_return *p; });
}
#endif
#ifdef CASE_gather_return_exceptions
Coro<> f(Owner p) {
    co_await asyncio::gather(asyncio::return_exceptions, [p]() -> Coro<int> { co_return *p; });
}
#endif
#ifdef CASE_gather_array
Coro<> f() { co_await asyncio::gather(std::array<Coro<int>, 2>{plain(), plain()}); }
#endif
#ifdef CASE_try_finally
Coro<> f(Owner p) {
    co_await asyncio::try_finally([p]() -> Coro<int> { co_return *p; }, [] {});
}
#endif
#ifdef CASE_try_finally_cleanup
Coro<> f(Owner p) {
    co_await asyncio::try_finally(plain, [p] {});
}
#endif
#ifdef CASE_sleep
Coro<> f(Owner p) { co_await asyncio::sleep(1, Aggregate{p, 1}); }
#endif
#ifdef CASE_queue
asyncio::Queue<Aggregate> queue;
Coro<> f(Owner p) { co_await queue.put(Aggregate{p, 1}); }
#endif
#ifdef CASE_condition
asyncio::Condition condition;
Coro<> f(Owner p) {
    co_await condition.wait_for([p] { return *p > 0; });
}
#endif
#ifdef CASE_awaiter
Coro<> f(Owner p) { co_await OwningAwaiter{p}; }
#endif
#ifdef CASE_awaitable
Coro<> f(Owner p) { co_await OwningAwaitable{p}; }
#endif
#ifdef CASE_as_result
Coro<> f(Owner p) { static_cast<void>(co_await asyncio::as_result(OwningAwaiter{p})); }
#endif
#ifdef CASE_task_of_awaiter
Coro<> f(Owner p) { co_await asyncio::create_task(OwningAwaiter{p}); }
#endif
#ifdef CASE_task_of_awaiter_with_options
Coro<> f(Owner p) {
    co_await asyncio::create_task(asyncio::TaskOptions().name("n"), OwningAwaiter{p});
}
#endif
#ifdef CASE_task_of_awaiter_with_loop
Coro<> f(Owner p) { co_await asyncio::create_task(asyncio::get_running_loop(), OwningAwaiter{p}); }
#endif
#ifdef CASE_task_group
Coro<> f(Owner p) {
    co_await asyncio::task_group([p](asyncio::TaskGroup&) -> Coro<int> { co_return *p; });
}
#endif
#ifdef CASE_task_group_of_ours
Coro<> f(asyncio::TaskGroup& group, Owner p) {
    co_await asyncio::task_group(group, [p](asyncio::TaskGroup&) -> Coro<int> { co_return *p; });
}
#endif
#ifdef CASE_task_of_a_group
Coro<> f(asyncio::TaskGroup& group, Owner p) {
    co_await group.create_task([p]() -> Coro<int> { co_return *p; });
}
#endif
#ifdef CASE_task_of_a_group_with_options
Coro<> f(asyncio::TaskGroup& group, Owner p) {
    co_await group.create_task(asyncio::TaskOptions().name("n"), OwningAwaiter{p});
}
#endif
#ifdef CASE_timeout
Coro<> f(Owner p) {
    co_await asyncio::timeout(1, [p](asyncio::Timeout&) -> Coro<int> { co_return *p; });
}
#endif
#ifdef CASE_timeout_at
Coro<> f(Owner p, asyncio::TimePoint when) {
    co_await asyncio::timeout_at(when, [p]() -> Coro<int> { co_return *p; });
}
#endif
#ifdef CASE_wait_for
Coro<> f(Owner p) {
    co_await asyncio::wait_for([p]() -> Coro<int> { co_return *p; }, 1);
}
#endif
#ifdef CASE_wait_for_awaiter
Coro<> f(Owner p) { co_await asyncio::wait_for(OwningAwaiter{p}, 1); }
#endif
#ifdef CASE_wait_array
Coro<> f(asyncio::Task<> a, asyncio::Task<> b) {
    co_await asyncio::wait(std::array<asyncio::Task<>, 2>{a, b});
}
#endif
#ifdef CASE_as_completed_array
Coro<> f(asyncio::Task<> a, asyncio::Task<> b) {
    co_await asyncio::as_completed(std::array<asyncio::Task<>, 2>{a, b}).next();
}
#endif
#ifdef CASE_shield
Coro<> f(Owner p) {
    co_await asyncio::shield([p]() -> Coro<int> { co_return *p; });
}
#endif
#ifdef CASE_ensure_future
Coro<> f(Owner p) {
    co_await asyncio::ensure_future([p]() -> Coro<int> { co_return *p; });
}
#endif
#ifdef CASE_ensure_future_with_loop
Coro<> f(Owner p) {
    co_await asyncio::ensure_future(asyncio::get_running_loop(), OwningAwaiter{p});
}
#endif

#ifdef CASE_named
Coro<> f(Owner p) {
    auto named = [p]() -> Coro<int> { co_return *p; };
    auto cleanup = [p] {};
    co_await named();
    co_await asyncio::create_task(named);
    co_await asyncio::create_task(asyncio::get_running_loop(), named);
    co_await asyncio::create_task(asyncio::TaskOptions().name("n"), named);
    co_await asyncio::gather(named, std::as_const(named));
    co_await asyncio::try_finally(named, cleanup);
    OwningAwaiter awaiter{p};
    co_await awaiter;
    static_cast<void>(co_await asyncio::as_result(awaiter));
    co_await asyncio::create_task(awaiter);
}
#endif
#ifdef CASE_moved
Coro<> f(std::unique_ptr<int> p) {
    auto named = [q = std::move(p)]() -> Coro<int> { co_return *q; };
    co_await asyncio::create_task(asyncio::moved(named));
    co_await asyncio::gather(asyncio::moved(named));
    auto cleanup = [] {};
    co_await asyncio::try_finally(asyncio::moved(named), asyncio::moved(cleanup));
}
#endif
#ifdef CASE_by_move // only for what is not a closure or aggregate: it cannot be told from a
                    // temporary
Coro<> f(Owner p) {
    Functor named(p);
    co_await asyncio::create_task(std::move(named));
}
#endif
#ifdef CASE_no_owning_captures
struct Object {
    int member = 1;
    Coro<> f() {
        int n = 1;
        co_await asyncio::create_task([&]() -> Coro<int> { co_return n; });
        co_await asyncio::create_task([this]() -> Coro<int> { co_return member; });
        co_await asyncio::create_task([n]() -> Coro<int> { co_return n; });
        co_await asyncio::create_task([]() -> Coro<int> { co_return 1; });
        co_await asyncio::gather([&]() -> Coro<int> { co_return n; }, plain, plain());
        co_await asyncio::try_finally([&]() -> Coro<int> { co_return n; }, [&] { ++n; });
    }
};
#endif
#ifdef CASE_owning_arguments
Coro<> f(Owner p, std::string s) {
    co_await asyncio::create_task([](Owner q, std::string) -> Coro<int> { co_return *q; }, p, s);
    co_await asyncio::create_task([](Owner q, std::string) -> Coro<int> { co_return *q; },
                                  std::move(p), s + "!");
}
#endif
#ifdef CASE_classes
Coro<> f(Owner p, std::string s) {
    co_await asyncio::create_task(Functor(p));
    co_await asyncio::gather(Functor(p), Functor(p));
    co_await asyncio::create_task(take<std::pair<Owner, std::string>>, std::pair(p, s));
    co_await asyncio::create_task(take<std::string>, s + "!");
    co_await asyncio::create_task(take<std::unique_ptr<int>>, std::make_unique<int>(1));
    co_await asyncio::create_task(take<Options>, Options().name(s));
    co_await asyncio::sleep(1, s + "!");
    std::vector<Coro<int>> several;
    several.push_back(plain());
    co_await asyncio::gather(std::move(several));
}
#endif
#ifdef CASE_std_function
Coro<> f(std::function<Coro<int>()> function) {
    co_await asyncio::create_task(function);
    co_await asyncio::gather(function, std::move(function));
}
#endif
#ifdef CASE_trivial_aggregate
Coro<> f() {
    co_await asyncio::create_task(take<Trivial>, Trivial{"a", 1});
    co_await asyncio::sleep(1, Trivial{"a", 1});
}
#endif
#ifdef CASE_named_aggregate
Coro<> f(Owner p) {
    Aggregate named{p, 1};
    co_await asyncio::create_task(take<Aggregate>, named);
    co_await asyncio::sleep(1, named);
}
#endif
#ifdef CASE_run // never in a coroutine, since it runs a loop of its own
int f(Owner p) {
    return asyncio::run([p]() -> Coro<int> { co_return *p; });
}
#endif
#ifdef CASE_callbacks // nobody awaits these
void f(Owner p, asyncio::EventLoop& loop, asyncio::Future<int> future) {
    loop.call_soon([p] {});
    loop.call_later(1, [p] {});
    future.add_done_callback([p] {});
}
#endif
#ifdef CASE_scopes
Coro<> f(Owner p) {
    int n = 1;
    co_await asyncio::task_group([&](asyncio::TaskGroup& group) -> Coro<> {
        group.create_task([&n]() -> Coro<int> { co_return n; });
        group.create_task([](Owner q) -> Coro<int> { co_return *q; }, p);
        group.create_task(asyncio::sleep(1));
        co_return;
    });
    co_await asyncio::timeout(1, [&]() -> Coro<int> { co_return n; });
    co_await asyncio::wait_for([&]() -> Coro<int> { co_return n; }, 1);
    co_await asyncio::shield(plain);
    co_await asyncio::ensure_future(Functor(p));
    auto body = [p](asyncio::TaskGroup&) -> Coro<int> { co_return *p; };
    co_await asyncio::task_group(body);
    co_await asyncio::task_group(asyncio::moved(body));
    auto named = [p]() -> Coro<int> { co_return *p; };
    co_await asyncio::timeout(1, named);
    co_await asyncio::timeout_at(asyncio::get_running_loop().time(), asyncio::moved(named));
    OwningAwaiter awaiter{p};
    co_await asyncio::wait_for(awaiter, 1);
    co_await asyncio::create_task(asyncio::get_running_loop(), asyncio::TaskOptions(), awaiter);
    std::array<asyncio::Task<int>, 1> tasks{asyncio::create_task(plain)};
    co_await asyncio::wait(tasks);
    co_await asyncio::as_completed(tasks).next();
}
#endif
