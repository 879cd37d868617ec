// SPDX-License-Identifier: MIT
// Runs a program on the library. oracle.py is the same, line by line, on CPython's asyncio.
#include "language.hpp"

#include "../support/turns.hpp"

#include <asyncio/asyncio.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace conformance {
namespace {

using asyncio::AnyFuture;
using asyncio::AnyTask;
using asyncio::Coro;
using asyncio::Future;

using Value = std::string;
using Generator = asyncio::AsyncGenerator<Value>;

// Both sides count with it exactly: 2^-9 s is a round number of nanoseconds, and of a double's.
constexpr std::int64_t tick_ns = 1'953'125;
constexpr std::int64_t ticks_per_unit = 64;
constexpr long no_time = -1000;
constexpr int most_rounds = 20;

// --- Texts ------------------------------------------------------------------------------------

// What objects look like is not compared: "<...>" becomes "<>".
std::string without_objects(const std::string& message) {
    std::string text;
    int depth = 0;
    for (const char c : message) {
        if (c == '>' && depth > 0) --depth;
        if (depth == 0) text += c;
        if (c == '<') ++depth;
    }
    return text;
}

std::string describe(const std::exception_ptr& exception);

std::string describe_group(const asyncio::ExceptionGroup& group) {
    std::string text = "Group(" + group.message() + ")[";
    for (const std::exception_ptr& one : group)
        text += (text.back() == '[' ? "" : ", ") + describe(one);
    return text + "]";
}

std::string describe(const std::exception_ptr& exception) {
    const auto named = [](const char* name, const std::exception& error) {
        return std::string(name) + "(" + without_objects(error.what()) + ")";
    };
    try {
        std::rethrow_exception(exception);
    } catch (const asyncio::CancelledError& error) {
        return std::string("CancelledError(") + error.message() + ")";
    } catch (const asyncio::SystemExit& error) {
        return "SystemExit(" + std::to_string(error.code()) + ")";
    } catch (const asyncio::GeneratorExit&) {
        return "GeneratorExit()";
    } catch (const asyncio::ExceptionGroup& group) {
        return describe_group(group);
    } catch (const asyncio::BrokenBarrierError& error) {
        return named("BrokenBarrierError", error);
    } catch (const asyncio::RuntimeError& error) {
        return named("RuntimeError", error);
    } catch (const asyncio::ValueError& error) {
        return named("ValueError", error);
    } catch (const asyncio::LookupError& error) {
        return named("LookupError", error);
    } catch (const asyncio::TimeoutError& error) {
        return named("TimeoutError", error);
    } catch (const asyncio::InvalidStateError& error) {
        return named("InvalidStateError", error);
    } catch (const asyncio::QueueEmpty& error) {
        return named("QueueEmpty", error);
    } catch (const asyncio::QueueFull& error) {
        return named("QueueFull", error);
    } catch (const asyncio::QueueShutDown& error) {
        return named("QueueShutDown", error);
    } catch (const std::exception& error) {
        return named("std::exception", error);
    }
}

std::exception_ptr make_exception(long kind, int id) {
    const std::string text = std::to_string(id);
    switch (kind) {
    case 0:
        return std::make_exception_ptr(asyncio::ValueError(text));
    case 1:
        return std::make_exception_ptr(asyncio::RuntimeError(text));
    case 2:
        return std::make_exception_ptr(asyncio::LookupError(text));
    case 3:
        return std::make_exception_ptr(asyncio::TimeoutError(text));
    case 4:
        return std::make_exception_ptr(asyncio::CancelledError(text));
    default:
        return std::make_exception_ptr(asyncio::SystemExit(id));
    }
}

// What `try` catches.
bool catches(long kind, const std::exception_ptr& exception) {
    try {
        std::rethrow_exception(exception);
    } catch (const asyncio::SystemExit&) {
        return false;
    } catch (const asyncio::GeneratorExit&) {
        return false;
    } catch (const asyncio::CancelledError&) {
        return kind == 1 || kind == 2;
    } catch (const asyncio::ExceptionGroup&) {
        return kind == 0 || kind == 2 || kind == 5;
    } catch (const asyncio::ValueError&) {
        return kind == 0 || kind == 2 || kind == 3;
    } catch (const asyncio::TimeoutError&) {
        return kind == 0 || kind == 2 || kind == 4;
    } catch (const std::exception&) {
        return kind == 0 || kind == 2;
    }
}

std::string text_of(const Value& value) { return value; }
std::string text_of(const asyncio::Result<Value>& result) {
    return result ? result.value() : describe(result.exception());
}
template <class T> std::string text_of(const std::vector<T>& values) {
    std::string text = "[";
    for (const T& value : values) text += (text.size() == 1 ? "" : ", ") + text_of(value);
    return text + "]";
}
template <class... T> std::string text_of(const std::tuple<T...>& values) {
    std::vector<std::string> texts;
    std::apply([&](const auto&... value) { (texts.push_back(text_of(value)), ...); }, values);
    return text_of(texts);
}

std::string digit(bool value) { return value ? "1" : "0"; }

// --- What programs have -----------------------------------------------------------------------

// A future by which something is known.
struct Slot {
    AnyFuture any;
    AnyTask task;                       // valid if it is one
    Future<Value> typed;                // valid unless it is a gather's
    std::function<std::string()> value; // of a gather's
    std::vector<asyncio::DoneCallbackId> callbacks;
};

Slot slot_of(const Future<Value>& future) { return {future, {}, future, {}, {}}; }
Slot slot_of(const asyncio::Task<Value>& task) { return {task, task, task, {}, {}}; }
template <class T> Slot slot_of_gather(const Future<T>& future) {
    return {future, {}, {}, [future] { return text_of(future.result()); }, {}};
}

// What gather and its like take: exactly one of the two.
struct Element {
    std::optional<Coro<Value>> coro;
    Future<Value> future;
    bool is_coro() const { return coro.has_value(); }
};

// Where a statement stands.
struct Env {
    asyncio::TaskGroup* group = nullptr;
    asyncio::Timeout* timeout = nullptr;
};

class Interpreter {
  public:
    Interpreter(const Node& program, bool debug)
        : program_(program),
          loop_(asyncio::new_event_loop(asyncio::LoopOptions().clock(turns_).debug(debug))),
          semaphore_(program.number(0)), bounded_(program.number(1)), barrier_(program.number(2)),
          queue_(program.number(3)), priorities_(program.number(3)), stack_(program.number(3)) {
        context_.run([this] { in_context_.set(1); });
    }

    std::vector<std::string> run() {
        loop_->set_exception_handler(
            [this](asyncio::EventLoop&, const asyncio::ExceptionContext& c) { reported(c); });
        arm_end_of_time();
        {
            auto main = asyncio::create_task(*loop_, task_body(program_.child(0), nullptr));
            first_number_ = number_of(main);
            main.add_done_callback([this] { loop_->stop(); });
            run_loop();
            line("main " + status(slot_of(main)));
        }
        cancel_all();
        auto closer = asyncio::create_task(*loop_, close_generators());
        closer.add_done_callback([this] { loop_->stop(); });
        run_loop();
        cancel_all();

        end_.cancel();
        loop_->close();
        for (Slot& slot : slots_) slot = {};
        for (asyncio::Handle& handle : handles_) handle = {};
        kept_.clear();
        completed_.clear();
        generators_.clear();
        // What is left for ever may hold things, in Python.
        if (is_left_for_ever_) unretrieved_.clear();
        std::sort(unretrieved_.begin(), unretrieved_.end());
        for (const std::string& one : unretrieved_) line("unretrieved " + one);
        is_over_ = true;
        return std::move(lines_);
    }

  private:
    // --- The log ---

    void line(const std::string& text) {
        if (!is_over_) lines_.push_back(text);
    }
    void log(const Node& node, const std::string& text) {
        const AnyTask task = asyncio::current_task();
        line(std::to_string(turns_.now()) + " " +
             (task.valid() ? std::to_string(number_of(task)) : "cb") + " " +
             std::to_string(node.id) + " " + std::string(name_of(node.op)) +
             (text.empty() ? "" : " ") + text);
    }
    std::uint64_t number_of(const AnyTask& task) const {
        return std::stoull(task.get_name().substr(5)) - first_number_;
    }
    static std::string name_in(const std::string& text) {
        const std::size_t at = text.find("name='");
        return at == std::string::npos ? "" : text.substr(at + 6, text.find('\'', at + 6) - at - 6);
    }
    void reported(const asyncio::ExceptionContext& context) {
        const std::string exception =
            context.exception != nullptr ? describe(context.exception) : "-";
        const auto says = [&](const char* text) {
            return context.message.find(text) != std::string::npos;
        };
        if (says("destroyed but it is pending")) {
            // Of what is left for ever.
        } else if (says("never retrieved")) {
            std::string who = "future";
            for (const auto& detail : context.details) {
                if (detail.key == "task")
                    who =
                        std::to_string(std::stoull(name_in(detail.text).substr(5)) - first_number_);
            }
            unretrieved_.push_back(who + " " + exception);
        } else {
            line(std::to_string(turns_.now()) + " handler " +
                 (says("callback") ? "callback" : context.message) + " " + exception);
        }
    }

    // --- Time ---

    std::int64_t now_ns() const { return loop_->time().time_since_epoch().count(); }
    // That many units from now, but no time at which another timer ends.
    std::int64_t moment(long units) {
        std::int64_t when = now_ns() + units * ticks_per_unit * tick_ns;
        while (!moments_.insert(when).second) when += tick_ns;
        return when;
    }
    // Not positive: as it is.
    std::chrono::nanoseconds delay(long units) {
        return std::chrono::nanoseconds(units > 0 ? moment(units) - now_ns() : units * tick_ns);
    }
    std::optional<asyncio::Delay> timer_or_none(long units) { // for what arms a timer also for 0
        if (units == no_time) return std::nullopt;
        return asyncio::Delay(std::chrono::nanoseconds(moment(units) - now_ns()));
    }
    std::optional<asyncio::Delay> delay_or_none(long units) {
        if (units == no_time) return std::nullopt;
        return asyncio::Delay(delay(units));
    }
    asyncio::TimePoint point(long units) {
        return asyncio::TimePoint(
            std::chrono::nanoseconds(units > 0 ? moment(units) : now_ns() + units * tick_ns));
    }
    // When nothing else will ever happen.
    void arm_end_of_time() {
        end_ = loop_->call_later(50000.0, [this] {
            line(std::to_string(turns_.now()) + " deadlock");
            arm_end_of_time();
            loop_->stop();
        });
    }

    // --- The run as a whole ---

    void run_loop() {
        for (int i = 0; i < most_rounds; ++i) {
            try {
                loop_->run_forever();
                return;
            } catch (const asyncio::SystemExit& error) {
                line(std::to_string(turns_.now()) + " escaped SystemExit(" +
                     std::to_string(error.code()) + ")");
            }
        }
    }
    void cancel_all() {
        for (int i = 0; i < most_rounds; ++i) {
            std::vector<AnyTask> tasks = asyncio::all_tasks(*loop_);
            if (tasks.empty()) return;
            std::sort(tasks.begin(), tasks.end(), [this](const AnyTask& a, const AnyTask& b) {
                return number_of(a) < number_of(b);
            });
            std::string names;
            auto left = std::make_shared<std::size_t>(tasks.size());
            for (const AnyTask& task : tasks) {
                names += " " + std::to_string(number_of(task));
                task.cancel("end");
                task.add_done_callback([this, left] {
                    if (--*left == 0) loop_->stop();
                });
            }
            line("left" + names);
            run_loop();
        }
        line("left for ever");
        is_left_for_ever_ = true;
    }
    Coro<Value> close_generators() {
        for (std::size_t i = 0; i < generators_.size(); ++i) {
            std::string text;
            try {
                co_await generators_[i]->aclose();
            } catch (...) {
                text = describe(std::current_exception());
            }
            line(std::to_string(turns_.now()) + " closed " + text);
        }
        co_return "";
    }

    // --- Bodies ---

    // True if it has returned before its end.
    Coro<bool> run_body(const Node& body, Env env) {
        for (const Node& statement : body.children) {
            const bool returned = co_await execute(statement, env);
            if (returned) co_return true;
        }
        co_return false;
    }
    Coro<bool> execute(const Node& node, Env env) {
        std::string text;
        bool returned = false;
        std::exception_ptr failure;
        try {
            if (is_asynchronous(node.op)) {
                text = co_await start(node, env, returned);
            } else {
                text = act(node, env);
            }
        } catch (...) {
            failure = std::current_exception();
        }
        log(node, failure != nullptr ? "!" + describe(failure) : text);
        if (failure != nullptr) std::rethrow_exception(failure);
        co_return returned;
    }
    // Of a callback.
    void act_all(const Node& body) {
        for (const Node& node : body.children) {
            std::string text;
            try {
                text = act(node, Env());
            } catch (...) {
                log(node, "!" + describe(std::current_exception()));
                throw;
            }
            log(node, text);
        }
    }
    Coro<Value> task_body(const Node& body, asyncio::TaskGroup* group) {
        log(body, "begins");
        const bool returned = co_await run_body(body, Env{group, nullptr});
        co_return (returned ? "v" : "r") + std::to_string(body.id);
    }
    Generator generator_body(const Node& node) {
        std::exception_ptr failure;
        try {
            for (const Node& statement : node.child(0).children) {
                if (statement.op == Op::yield) {
                    co_yield "y" + std::to_string(statement.id);
                    log(statement, "goes on");
                } else {
                    const bool returned = co_await execute(statement, Env());
                    if (returned) break;
                }
            }
        } catch (...) {
            failure = std::current_exception();
        }
        log(node.child(1), "finally");
        co_await run_body(node.child(1), Env());
        if (failure != nullptr) std::rethrow_exception(failure);
    }

    // --- Parts ---

    Slot& slot(const Node& node, std::size_t i = 0) {
        return slots_.at(static_cast<std::size_t>(node.number(i)));
    }
    void put(Slot& slot, Slot value) {
        kept_.push_back(value.any);
        slot = std::move(value);
    }
    std::string status(const Slot& slot) const {
        std::string text;
        if (!slot.any.done()) {
            text = "pending";
        } else if (slot.any.cancelled()) {
            text = "cancelled";
        } else if (const std::exception_ptr exception = slot.any.exception()) {
            text = "!" + describe(exception);
        } else {
            text = slot.value ? slot.value() : slot.typed.result();
        }
        if (slot.task.valid()) text += " " + std::to_string(slot.task.cancelling());
        return text;
    }

    asyncio::Task<Value> create_task(const Node& body, long mode = 0) {
        asyncio::TaskOptions options;
        // CPython's eager task that cannot enter its context stays the current one (3.14.10).
        if (mode == 3 && in_context_.get() != 0) mode = 1;
        if (mode == 0) return asyncio::create_task(task_body(body, nullptr));
        if (mode == 1 || mode == 3) options.eager_start(true);
        if (mode == 2 || mode == 3) options.context(context_);
        return asyncio::create_task(options, task_body(body, nullptr));
    }
    // Slots that hold nothing, or a gather's future, are left out.
    std::vector<Element> elements(const Node& node) {
        std::vector<Element> all;
        for (const Node& child : node.children) {
            Element element;
            if (child.op == Op::coro) {
                element.coro.emplace(task_body(child.child(0), nullptr));
            } else if (child.op == Op::task) {
                element.future = create_task(child.child(0));
            } else {
                element.future = slot(child).typed;
                if (!element.future.valid()) continue;
            }
            all.push_back(std::move(element));
        }
        return all;
    }
    // Three and more of both kinds: coroutines become tasks first.
    static bool is_all_coros(std::vector<Element>& all) {
        const auto is_coro = [](const Element& element) { return element.is_coro(); };
        if (std::all_of(all.begin(), all.end(), is_coro)) return true;
        make_all_futures(all);
        return false;
    }
    static void make_all_futures(std::vector<Element>& all) {
        for (Element& element : all) {
            if (element.is_coro()) element.future = asyncio::create_task(*std::move(element.coro));
        }
    }
    // CPython's as_completed() gives those that are done already in no particular order.
    static void drop_done_but_first(std::vector<Element>& all) {
        bool seen = false;
        std::erase_if(all, [&](const Element& element) {
            return element.future.done() && std::exchange(seen, true);
        });
    }
    static std::vector<Coro<Value>> coros_of(std::vector<Element>& all) {
        std::vector<Coro<Value>> coros;
        coros.reserve(all.size());
        for (Element& element : all) coros.push_back(*std::move(element.coro));
        return coros;
    }
    static std::vector<Future<Value>> futures_of(const std::vector<Element>& all) {
        std::vector<Future<Value>> futures;
        for (const Element& element : all) futures.push_back(element.future);
        return futures;
    }

    template <class... A> static Slot gather_these(bool exceptions, A&&... awaitables) {
        if (exceptions)
            return slot_of_gather(
                asyncio::gather(asyncio::return_exceptions, std::forward<A>(awaitables)...));
        return slot_of_gather(asyncio::gather(std::forward<A>(awaitables)...));
    }
    Slot gather(const Node& node, bool exceptions) {
        std::vector<Element> all = elements(node);
        if (all.empty()) return gather_these(exceptions);
        Element& a = all[0];
        if (all.size() == 1) {
            return a.is_coro() ? gather_these(exceptions, *std::move(a.coro))
                               : gather_these(exceptions, a.future);
        }
        Element& b = all[1];
        if (all.size() == 2) {
            if (a.is_coro() && b.is_coro())
                return gather_these(exceptions, *std::move(a.coro), *std::move(b.coro));
            if (a.is_coro()) return gather_these(exceptions, *std::move(a.coro), b.future);
            if (b.is_coro()) return gather_these(exceptions, a.future, *std::move(b.coro));
            return gather_these(exceptions, a.future, b.future);
        }
        if (is_all_coros(all)) return gather_these(exceptions, coros_of(all));
        return gather_these(exceptions, futures_of(all));
    }

    Future<Value> shield(const Node& what) {
        if (what.op == Op::coro) return asyncio::shield(task_body(what.child(0), nullptr));
        if (what.op == Op::task) return asyncio::shield(create_task(what.child(0)));
        const Future<Value> future = slot(what).typed;
        return future.valid() ? asyncio::shield(future) : future;
    }

    asyncio::Lock& lock(const Node& node) {
        return locks_.at(static_cast<std::size_t>(node.number(0)));
    }
    asyncio::Event& event(const Node& node) {
        return events_.at(static_cast<std::size_t>(node.number(0)));
    }
    asyncio::Semaphore& semaphore(const Node& node) {
        if (node.number(0) == 0) return semaphore_;
        return bounded_;
    }
    template <class F> auto with_queue(const Node& node, F function) {
        if (node.number(0) == 0) return function(queue_);
        if (node.number(0) == 1) return function(priorities_);
        return function(stack_);
    }
    int next_item() { return items_++ * 7 % 10; }

    // --- Statements that do not suspend ---

    std::string act(const Node& node, Env env) {
        switch (node.op) {
        case Op::spawn:
            put(slot(node), slot_of(create_task(node.child(0), node.number(1))));
            return "";
        case Op::group_spawn:
            if (env.group == nullptr) return "-";
            put(slot(node), slot_of(env.group->create_task(task_body(node.child(0), env.group))));
            return "";
        case Op::future:
            put(slot(node), slot_of(asyncio::create_future<Value>()));
            return "";
        case Op::gather_to:
            put(slot(node), gather(node, node.number(1) != 0));
            return "";
        case Op::shield_to: {
            const Future<Value> future = shield(node.child(0));
            if (!future.valid()) return "-";
            put(slot(node), slot_of(future));
            return "";
        }
        case Op::set_result:
            if (!slot(node).typed.valid()) return "-";
            slot(node).typed.set_result("f" + std::to_string(node.id));
            return "";
        case Op::set_exception:
            if (!slot(node).typed.valid()) return "-";
            slot(node).typed.set_exception(make_exception(node.number(1), node.id));
            return "";
        case Op::cancel: {
            const Slot& to = slot(node);
            if (!to.any.valid()) return "-";
            const bool can =
                node.number(1) != 0 ? to.any.cancel(std::to_string(node.id)) : to.any.cancel();
            return digit(can) + (to.task.valid() ? " " + std::to_string(to.task.cancelling()) : "");
        }
        case Op::cancel_self: {
            const AnyTask self = asyncio::current_task();
            if (!self.valid()) return "-";
            const bool can = self.cancel(std::to_string(node.id));
            return digit(can) + " " + std::to_string(self.cancelling());
        }
        case Op::uncancel:
            if (!slot(node).task.valid()) return "-";
            return std::to_string(slot(node).task.uncancel());
        case Op::uncancel_self: {
            const AnyTask self = asyncio::current_task();
            return self.valid() ? std::to_string(self.uncancel()) : "-";
        }
        case Op::status:
            return slot(node).any.valid() ? status(slot(node)) : "-";
        case Op::add_callback: {
            Slot& to = slot(node);
            if (!to.any.valid()) return "-";
            to.callbacks.push_back(to.any.add_done_callback([this, &node](const AnyFuture& future) {
                log(node, std::string("called ") + (future.cancelled() ? "cancelled" : "done"));
                act_all(node.child(0));
            }));
            return "";
        }
        case Op::remove_callback: {
            Slot& to = slot(node);
            if (to.callbacks.empty()) return "-";
            const std::size_t count = to.any.remove_done_callback(to.callbacks.back());
            to.callbacks.pop_back();
            return std::to_string(count);
        }
        case Op::call_soon:
            handle(node) = loop_->call_soon(callback(node));
            return "";
        case Op::call_later:
            handle(node) = loop_->call_later(*timer_or_none(node.number(1)), callback(node));
            return "";
        case Op::call_at:
            handle(node) =
                loop_->call_at(asyncio::TimePoint(std::chrono::nanoseconds(moment(node.number(1)))),
                               callback(node));
            return "";
        case Op::cancel_handle:
            handle(node).cancel();
            return "";
        case Op::raise:
            std::rethrow_exception(make_exception(node.number(0), node.id));
        case Op::set_var:
            token(node).emplace(var(node).set(node.id));
            return "";
        case Op::get_var:
            return std::to_string(var(node).get());
        case Op::reset_var:
            if (!token(node)) return "-";
            var(node).reset(*token(node));
            return "";
        case Op::run_in_context:
            context_.run([&] { act_all(node.child(0)); });
            return "";
        case Op::reschedule:
            if (env.timeout == nullptr) return "-";
            if (node.number(0) == no_time) {
                env.timeout->reschedule(std::nullopt);
            } else {
                env.timeout->reschedule(point(node.number(0)));
            }
            return "";
        case Op::expired: {
            if (env.timeout == nullptr) return "-";
            const auto when = env.timeout->when();
            return digit(env.timeout->expired()) + " " +
                   (when ? std::to_string((when->time_since_epoch().count() - 1'000'000'000'000) /
                                          tick_ns)
                         : "None");
        }
        case Op::generator:
            generators_.push_back(std::make_unique<Generator>(generator_body(node)));
            generator_slots_.at(static_cast<std::size_t>(node.number(0))) =
                generators_.back().get();
            return "";
        case Op::release:
            lock(node).release();
            return "";
        case Op::locked:
            return digit(locks_[0].locked()) + digit(locks_[1].locked()) +
                   digit(condition_.locked()) + digit(semaphore_.locked()) +
                   digit(bounded_.locked()) + digit(events_[0].is_set()) +
                   digit(events_[1].is_set());
        case Op::event_set:
            event(node).set();
            return "";
        case Op::event_clear:
            event(node).clear();
            return "";
        case Op::cond_release:
            condition_.release();
            return "";
        case Op::notify:
            condition_.notify(static_cast<std::size_t>(node.number(0)));
            return "";
        case Op::notify_all:
            condition_.notify_all();
            return "";
        case Op::sem_release:
            semaphore(node).release();
            return "";
        case Op::barrier_state:
            return std::to_string(barrier_.n_waiting()) + " " + digit(barrier_.broken());
        case Op::put_nowait:
            with_queue(node, [this](auto& queue) { queue.put_nowait(next_item()); });
            return "";
        case Op::get_nowait:
            return std::to_string(with_queue(node, [](auto& queue) { return queue.get_nowait(); }));
        case Op::task_done:
            with_queue(node, [](auto& queue) { queue.task_done(); });
            return "";
        case Op::shutdown:
            with_queue(node, [&](auto& queue) { queue.shutdown(node.number(1) != 0); });
            return "";
        case Op::queue_state:
            return with_queue(node, [](auto& queue) {
                return std::to_string(queue.qsize()) + " " + digit(queue.empty()) +
                       digit(queue.full());
            });
        default:
            throw std::logic_error("not a statement: " + print(node));
        }
    }
    asyncio::Handle& handle(const Node& node) {
        return handles_.at(static_cast<std::size_t>(node.number(0)));
    }
    const asyncio::ContextVar<int>& var(const Node& node) {
        return *vars_.at(static_cast<std::size_t>(node.number(0)));
    }
    std::optional<asyncio::ContextVar<int>::Token>& token(const Node& node) {
        return tokens_.at(static_cast<std::size_t>(node.number(0)));
    }
    std::function<void()> callback(const Node& node) {
        return [this, &node] {
            log(node, "called");
            act_all(node.child(0));
        };
    }

    // --- Statements that may suspend ---

    Coro<std::string> start(const Node& node, Env env, bool& returned) {
        switch (node.op) {
        case Op::sleep:
            return sleep(node);
        case Op::await:
            return await(slot(node));
        case Op::gather:
            return await_gather(node);
        case Op::wait:
            return wait(node);
        case Op::wait_for:
            return wait_for(node);
        case Op::timeout:
            return timeout(node, env, returned);
        case Op::timeout_at:
            return timeout_at(node, env, returned);
        case Op::group:
            return group(node, env, returned);
        case Op::shield:
            return await_shield(node);
        case Op::as_completed:
            return as_completed(node);
        case Op::return_:
            return return_now(returned);
        case Op::try_:
            return try_it(node, env, returned);
        case Op::finally:
            return finally(node, env, returned);
        case Op::repeat:
            return repeat(node, env, returned);
        case Op::next:
            return next(node);
        case Op::aclose:
            return aclose(node);
        case Op::for_each:
            return for_each(node, env, returned);
        case Op::acquire:
            return acquire(lock(node));
        case Op::with_lock:
            return with(lock(node), node, env, returned);
        case Op::event_wait:
            return event_wait(node);
        case Op::cond_acquire:
            return acquire(condition_);
        case Op::cond_wait:
            return cond_wait();
        case Op::cond_wait_for:
            return cond_wait_for(node);
        case Op::with_cond:
            return with(condition_, node, env, returned);
        case Op::sem_acquire:
            return acquire(semaphore(node));
        case Op::with_sem:
            return with(semaphore(node), node, env, returned);
        case Op::barrier_wait:
            return barrier_wait();
        case Op::barrier_reset:
            return barrier_reset();
        case Op::barrier_abort:
            return barrier_abort();
        case Op::put:
            return with_queue(node, [this](auto& queue) { return put_item(queue); });
        case Op::get:
            return with_queue(node, [](auto& queue) { return get_item(queue); });
        case Op::join:
            return with_queue(node, [](auto& queue) { return join(queue); });
        default:
            throw std::logic_error("not a statement: " + print(node));
        }
    }

    Coro<std::string> sleep(const Node& node) {
        co_await asyncio::sleep(delay(node.number(0)));
        co_return "";
    }
    // NOLINTNEXTLINE(performance-unnecessary-value-param): the slot may get another meanwhile
    static Coro<std::string> await(Slot slot) {
        if (!slot.any.valid() || slot.any == asyncio::current_task()) co_return "-";
        if (slot.typed.valid()) {
            Value value = co_await slot.typed;
            co_return value;
        }
        co_await slot.any;
        co_return slot.value();
    }
    Coro<std::string> await_gather(const Node& node) {
        Slot gathered = gather(node, node.number(0) != 0);
        kept_.push_back(gathered.any);
        co_await gathered.any;
        co_return gathered.value();
    }
    Coro<std::string> wait(const Node& node) {
        std::vector<AnyFuture> futures;
        for (const Node& child : node.children) {
            if (child.op == Op::task) {
                futures.push_back(create_task(child.child(0)));
            } else if (slot(child).any.valid()) {
                futures.push_back(slot(child).any);
            }
        }
        const auto when = static_cast<asyncio::ReturnWhen>(node.number(0));
        const auto timeout = timer_or_none(node.number(1));
        const auto result = co_await asyncio::as_result(asyncio::wait(futures, when, timeout));
        // CPython's wait() for the first exception may look at one yet when it has ended.
        for (const AnyFuture& future : futures) {
            if (future.done() && !future.cancelled()) static_cast<void>(future.exception());
        }
        const auto& waited = result.value();
        const auto places = [&](const std::vector<AnyFuture>& some) {
            std::string text;
            for (std::size_t i = 0; i < futures.size(); ++i) {
                const auto same = [&](const AnyFuture& future) { return future == futures[i]; };
                if (std::any_of(some.begin(), some.end(), same)) text += std::to_string(i);
            }
            return text;
        };
        co_return "done " + places(waited.done) + " pending " + places(waited.pending);
    }
    Coro<std::string> wait_for(const Node& node) {
        const Node& what = node.child(0);
        const auto limit = delay_or_none(node.number(0));
        Value value;
        if (what.op == Op::coro) {
            value = co_await asyncio::wait_for(task_body(what.child(0), nullptr), limit);
        } else if (what.op == Op::sleeping) {
            const auto length = delay(what.number(0));
            value = co_await asyncio::wait_for(asyncio::sleep(length, Value("slept")), limit);
        } else if (what.op == Op::task) {
            auto task = create_task(what.child(0));
            value = co_await asyncio::wait_for(task, limit);
        } else {
            const Future<Value> future = slot(what).typed;
            // After a task that awaits itself, CPython lets nobody else await it (3.14.10).
            if (!future.valid() || future == asyncio::current_task()) co_return "-";
            value = co_await asyncio::wait_for(future, limit);
        }
        co_return value;
    }
    Coro<std::string> timeout(const Node& node, Env env, bool& returned) {
        const auto body = [&](asyncio::Timeout& inner) -> Coro<> {
            returned = co_await run_body(node.child(0), Env{env.group, &inner});
        };
        const auto limit = delay_or_none(node.number(0));
        co_await asyncio::timeout(limit, body);
        co_return "";
    }
    Coro<std::string> timeout_at(const Node& node, Env env, bool& returned) {
        const auto body = [&](asyncio::Timeout& inner) -> Coro<> {
            returned = co_await run_body(node.child(0), Env{env.group, &inner});
        };
        const auto limit = point(node.number(0));
        co_await asyncio::timeout_at(limit, body);
        co_return "";
    }
    Coro<std::string> group(const Node& node, Env env, bool& returned) {
        const auto body = [&](asyncio::TaskGroup& inner) -> Coro<> {
            returned = co_await run_body(node.child(0), Env{&inner, env.timeout});
        };
        co_await asyncio::task_group(body);
        co_return "";
    }
    Coro<std::string> await_shield(const Node& node) {
        const Future<Value> future = shield(node.child(0));
        if (!future.valid()) co_return "-";
        kept_.push_back(future);
        Value value = co_await future;
        co_return value;
    }
    template <class F>
    Coro<> log_completed(const Node& node, asyncio::AsCompleted<F> ended,
                         std::vector<Future<Value>> given) {
        while (const auto future = co_await ended.next()) {
            const auto place = std::find(given.begin(), given.end(), *future) - given.begin();
            log(node,
                "gives " + std::to_string(place) + " " + status(slot_of(Future<Value>(*future))));
        }
    }
    Coro<std::string> as_completed(const Node& node) {
        std::vector<Element> all = elements(node);
        const auto limit = timer_or_none(node.number(0));
        if (all.size() == 1 && all[0].is_coro()) {
            const auto ended = asyncio::as_completed(coros_of(all), limit);
            completed_.emplace_back([ended] {});
            co_await log_completed(node, ended, {});
        } else {
            make_all_futures(all);
            drop_done_but_first(all);
            const std::vector<Future<Value>> futures = futures_of(all);
            const auto ended = asyncio::as_completed(futures, limit);
            completed_.emplace_back([ended] {});
            co_await log_completed(node, ended, futures);
        }
        co_return "";
    }
    static Coro<std::string> return_now(bool& returned) {
        returned = true;
        co_return "";
    }
    Coro<std::string> try_it(const Node& node, Env env, bool& returned) {
        std::exception_ptr caught;
        try {
            returned = co_await run_body(node.child(0), env);
        } catch (...) {
            caught = std::current_exception();
            if (!catches(node.number(0), caught)) throw;
        }
        if (caught == nullptr) co_return "";
        returned = co_await run_body(node.child(1), env);
        if (node.number(1) != 0) std::rethrow_exception(caught);
        co_return "caught " + describe(caught);
    }
    Coro<std::string> finally(const Node& node, Env env, bool& returned) {
        const auto result = co_await asyncio::as_result(run_body(node.child(0), env));
        co_await run_body(node.child(1), env);
        returned = result.value();
        co_return "";
    }
    Coro<std::string> repeat(const Node& node, Env env, bool& returned) {
        for (long i = 0; i < node.number(0) && !returned; ++i)
            returned = co_await run_body(node.child(0), env);
        co_return "";
    }
    Coro<std::string> next(const Node& node) {
        Generator* generator = generator_slot(node);
        if (generator == nullptr) co_return "-";
        const auto value = co_await generator->next();
        co_return value ? *value : "end";
    }
    Coro<std::string> aclose(const Node& node) {
        Generator* generator = generator_slot(node);
        if (generator == nullptr) co_return "-";
        co_await generator->aclose();
        co_return "";
    }
    Coro<std::string> for_each(const Node& node, Env env, bool& returned) {
        Generator* generator = generator_slot(node);
        if (generator == nullptr) co_return "-";
        for (long i = 0; i < node.number(1) && !returned; ++i) {
            const auto value = co_await generator->next();
            if (!value) co_return "end";
            log(node, *value);
            returned = co_await run_body(node.child(0), env);
        }
        co_await generator->aclose();
        co_return "closed";
    }
    Generator* generator_slot(const Node& node) {
        return generator_slots_.at(static_cast<std::size_t>(node.number(0)));
    }

    template <class Primitive> static Coro<std::string> acquire(Primitive& primitive) {
        co_await primitive.acquire();
        co_return "";
    }
    // As `async with`, whose release may fail in place of the body.
    template <class Primitive>
    Coro<std::string> with(Primitive& primitive, const Node& node, Env env, bool& returned) {
        auto held = co_await primitive.scoped();
        log(node, "entered");
        std::exception_ptr failure;
        try {
            returned = co_await run_body(node.children.back(), env);
        } catch (...) {
            failure = std::current_exception();
        }
        held.release();
        if (failure != nullptr) std::rethrow_exception(failure);
        co_return "";
    }
    Coro<std::string> event_wait(const Node& node) {
        co_await event(node).wait();
        co_return "";
    }
    Coro<std::string> cond_wait() {
        co_await condition_.wait();
        co_return "";
    }
    Coro<std::string> cond_wait_for(const Node& node) {
        co_await condition_.wait_for([this, &node] { return ++asked_ % node.number(0) == 0; });
        co_return "";
    }
    Coro<std::string> barrier_wait() {
        const auto place = co_await barrier_.wait();
        co_return std::to_string(place);
    }
    Coro<std::string> barrier_reset() {
        co_await barrier_.reset();
        co_return "";
    }
    Coro<std::string> barrier_abort() {
        co_await barrier_.abort();
        co_return "";
    }
    template <class Queue> Coro<std::string> put_item(Queue& queue) {
        const int item = next_item();
        co_await queue.put(item);
        co_return std::to_string(item);
    }
    template <class Queue> static Coro<std::string> get_item(Queue& queue) {
        const int item = co_await queue.get();
        co_return std::to_string(item);
    }
    template <class Queue> static Coro<std::string> join(Queue& queue) {
        co_await queue.join();
        co_return "";
    }

    const Node& program_;
    asyncio_test::Turns turns_;
    asyncio::EventLoopOwner loop_;
    std::vector<std::string> lines_;
    std::vector<std::string> unretrieved_;
    std::uint64_t first_number_ = 0;
    std::set<std::int64_t> moments_;
    asyncio::TimerHandle end_;
    bool is_over_ = false;
    bool is_left_for_ever_ = false;
    int items_ = 0;
    long asked_ = 0;

    std::array<asyncio::Lock, 2> locks_;
    std::array<asyncio::Event, 2> events_;
    asyncio::Condition condition_;
    asyncio::Semaphore semaphore_;
    asyncio::BoundedSemaphore bounded_;
    asyncio::Barrier barrier_;
    asyncio::Queue<int> queue_;
    asyncio::PriorityQueue<int> priorities_;
    asyncio::LifoQueue<int> stack_;

    asyncio::ContextVar<int> a_{"a", 0};
    asyncio::ContextVar<int> b_{"b", 0};
    std::array<const asyncio::ContextVar<int>*, 2> vars_{&a_, &b_};
    std::array<std::optional<asyncio::ContextVar<int>::Token>, 2> tokens_;
    asyncio::ContextVar<int> in_context_{"in_context", 0};
    asyncio::Context context_ = asyncio::copy_context();

    std::array<Slot, 6> slots_;
    // What is not retrieved is reported in the end. A gather or shield that nobody has is gone here
    // at once; CPython's stays until what it watches has ended.
    std::vector<AnyFuture> kept_;
    std::vector<std::function<void()>> completed_; // kept: their timers run on, as CPython's
    std::array<asyncio::Handle, 3> handles_;
    std::vector<std::unique_ptr<Generator>> generators_;
    std::array<Generator*, 2> generator_slots_{};
};

} // namespace

std::vector<std::string> run(const Node& program, bool debug) {
    return Interpreter(program, debug).run();
}

} // namespace conformance
