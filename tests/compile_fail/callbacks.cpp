// SPDX-License-Identifier: MIT
//
// What is refused of callbacks, each with one sentence.

// CASE_soon_coroutine_function: fails only with "a callback that is a coroutine"
// CASE_soon_coroutine: fails only with "a callback that is a coroutine"
// CASE_soon_coroutine_with_arguments: fails only with "a callback that is a coroutine"
// CASE_later_coroutine: fails only with "a callback that is a coroutine"
// CASE_at_coroutine: fails only with "a callback that is a coroutine"
// CASE_threadsafe_coroutine: fails only with "a callback that is a coroutine"
// CASE_reader_coroutine: fails only with "a callback that is a coroutine"
// CASE_writer_coroutine: fails only with "a callback that is a coroutine"
// CASE_soon_with_missing_argument: fails only with "a callback is called without arguments"
// CASE_soon_with_wrong_argument: fails only with "a callback is called without arguments"
// CASE_reader_with_argument: fails only with "a callback is called without arguments"
// CASE_handler: fails only with "an exception handler is called as handler(EventLoop&,"
// CASE_right: compiles

#include <asyncio/asyncio.hpp>

#include <memory>
#include <string>

using asyncio::Coro;
using asyncio::EventLoop;
using namespace std::chrono_literals;

Coro<> coroutine();
Coro<> coroutine_of(int);

#ifdef CASE_soon_coroutine_function
void f(EventLoop& loop) { loop.call_soon(coroutine); }
#endif
#ifdef CASE_soon_coroutine
void f(EventLoop& loop) { loop.call_soon(coroutine()); }
#endif
#ifdef CASE_soon_coroutine_with_arguments
void f(EventLoop& loop) { loop.call_soon(coroutine_of, 1); }
#endif
#ifdef CASE_later_coroutine
void f(EventLoop& loop) { loop.call_later(1s, coroutine); }
#endif
#ifdef CASE_at_coroutine
void f(EventLoop& loop) { loop.call_at(loop.time() + 1s, coroutine); }
#endif
#ifdef CASE_threadsafe_coroutine
void f(EventLoop& loop) { loop.call_soon_threadsafe(coroutine); }
#endif
#ifdef CASE_reader_coroutine
void f(EventLoop& loop) { loop.add_reader(0, coroutine); }
#endif
#ifdef CASE_writer_coroutine
void f(EventLoop& loop) { loop.add_writer(0, coroutine); }
#endif
#ifdef CASE_soon_with_missing_argument
void f(EventLoop& loop) {
    loop.call_soon([](int) {});
}
#endif
#ifdef CASE_soon_with_wrong_argument
void f(EventLoop& loop) {
    loop.call_soon([](int) {}, std::string());
}
#endif
#ifdef CASE_reader_with_argument
void f(EventLoop& loop) {
    loop.add_reader(0, [](int) {});
}
#endif
#ifdef CASE_handler
void f(EventLoop& loop) {
    loop.set_exception_handler([](int) {});
}
#endif
#ifdef CASE_right
struct Object {
    void method(int);
};
void f(EventLoop& loop, Object& object) {
    loop.call_soon([] {});
    loop.call_soon([] { return 1; });
    loop.call_soon([](int, std::unique_ptr<int>) {}, 1, std::make_unique<int>(1));
    loop.call_soon(&Object::method, &object, 1);
    loop.call_later(1s, [p = std::make_unique<int>(1)]() mutable { p.reset(); });
    loop.call_soon([] { asyncio::create_task(coroutine()); });
    loop.set_exception_handler([](EventLoop&, const asyncio::ExceptionContext&) {});
    loop.set_exception_handler(nullptr);
}
#endif
