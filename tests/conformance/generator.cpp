// SPDX-License-Identifier: MIT
// Random programs: few objects, so that tasks meet, and in each program only some kinds of
// statements, so that those meet often.
#include "language.hpp"

#include <cstdint>
#include <utility>

namespace conformance {
namespace {

constexpr long no_time = -1000;

// splitmix64 (Steele, Lea and Flood, 2014).
class Random {
  public:
    explicit Random(std::uint64_t seed) : state_(seed) {}
    long below(long n) {
        state_ += 0x9e3779b97f4a7c15U;
        std::uint64_t x = state_;
        x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
        x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
        x ^= x >> 31;
        return static_cast<long>(x % static_cast<std::uint64_t>(n));
    }
    bool one_in(long n) { return below(n) == 0; }

  private:
    std::uint64_t state_;
};

// How often a statement stands in a program that has its theme.
struct Weight {
    Op op;
    long weight;
};
using Theme = std::vector<Weight>;

const Theme& basics() {
    static const Theme theme = {{Op::sleep, 20},      {Op::spawn, 12}, {Op::await, 8},
                                {Op::cancel, 9},      {Op::raise, 2},  {Op::try_, 6},
                                {Op::finally, 3},     {Op::repeat, 2}, {Op::return_, 1},
                                {Op::cancel_self, 2}, {Op::status, 2}, {Op::uncancel_self, 2},
                                {Op::uncancel, 1}};
    return theme;
}

const std::vector<Theme>& themes() {
    static const std::vector<Theme> all = {
        {{Op::future, 6},
         {Op::set_result, 8},
         {Op::set_exception, 5},
         {Op::add_callback, 3},
         {Op::await, 10},
         {Op::shield, 3}},
        {{Op::add_callback, 16},
         {Op::remove_callback, 14},
         {Op::future, 5},
         {Op::set_result, 4},
         {Op::call_soon, 4}},
        {{Op::gather, 10}, {Op::gather_to, 7}, {Op::future, 3}, {Op::set_result, 4}},
        {{Op::wait, 12}, {Op::as_completed, 10}, {Op::set_exception, 3}, {Op::future, 3}},
        {{Op::wait_for, 14}, {Op::shield, 5}, {Op::shield_to, 4}, {Op::uncancel_self, 4}},
        {{Op::timeout, 12},
         {Op::timeout_at, 5},
         {Op::reschedule, 8},
         {Op::expired, 7},
         {Op::uncancel_self, 2},
         {Op::cancel_self, 2}},
        {{Op::group, 10}, {Op::group_spawn, 18}, {Op::raise, 5}, {Op::cancel_self, 2}},
        {{Op::shield, 10}, {Op::shield_to, 10}, {Op::future, 3}, {Op::raise, 3}},
        {{Op::call_soon, 9}, {Op::call_later, 8}, {Op::call_at, 5}, {Op::cancel_handle, 5}},
        {{Op::set_var, 9}, {Op::get_var, 10}, {Op::reset_var, 5}, {Op::run_in_context, 5}},
        {{Op::generator, 6}, {Op::next, 14}, {Op::aclose, 10}, {Op::for_each, 8}},
        {{Op::acquire, 10}, {Op::release, 8}, {Op::with_lock, 10}, {Op::locked, 3}},
        {{Op::event_wait, 14}, {Op::event_set, 8}, {Op::event_clear, 7}, {Op::locked, 2}},
        {{Op::cond_acquire, 4},
         {Op::cond_release, 4},
         {Op::cond_wait, 8},
         {Op::cond_wait_for, 5},
         {Op::with_cond, 16},
         {Op::notify, 8},
         {Op::notify_all, 4}},
        {{Op::sem_acquire, 12}, {Op::sem_release, 9}, {Op::with_sem, 10}, {Op::locked, 2}},
        {{Op::barrier_wait, 20},
         {Op::barrier_reset, 3},
         {Op::barrier_abort, 2},
         {Op::barrier_state, 3}},
        {{Op::get, 20}, {Op::put_nowait, 9}, {Op::cancel, 9}, {Op::queue_state, 2}},
        {{Op::put, 10},
         {Op::get, 12},
         {Op::put_nowait, 5},
         {Op::get_nowait, 4},
         {Op::task_done, 6},
         {Op::join, 5},
         {Op::shutdown, 2},
         {Op::queue_state, 3}},
    };
    return all;
}

class Generator {
  public:
    explicit Generator(std::size_t seed) : random_(seed * 2 + 1) {
        add(basics(), 1);
        const long count = 2 + random_.below(2);
        for (long i = 0; i < count; ++i)
            add(themes()[static_cast<std::size_t>(
                    random_.below(static_cast<long>(themes().size())))],
                2);
        left_ = 12 + random_.below(40);
        units_ = random_.one_in(3) ? 2 : 5; // many things at nearly the same time, or few
        slots_ = 2 + random_.below(5);
        one_of_each_ = random_.one_in(2);
        queue_ = random_.below(3);
        eager_ = random_.one_in(4);
    }

    Node program() {
        Node main = Node{Op::do_, {}, {}};
        long permits = random_.below(3);
        if (random_.one_in(3)) permits = contest(main);
        const long tasks = 1 + random_.below(4);
        for (long i = 0; i < tasks; ++i) main.children.push_back(spawn(0));
        const long statements = 2 + random_.below(8);
        for (long i = 0; i < statements; ++i) main.children.push_back(statement(0, false));
        if (random_.one_in(2)) main.children.push_back(Node{Op::sleep, {units_ * 2}, {}});
        Node program = Node{Op::program,
                            {permits, 1 + random_.below(2), 2 + random_.below(2), random_.below(3)},
                            {}};
        program.children.push_back(std::move(main));
        number_nodes(program);
        return program;
    }

  private:
    void add(const Theme& theme, long factor) {
        for (const Weight& one : theme) {
            weights_.push_back({one.op, one.weight * factor});
            total_ += one.weight * factor;
        }
    }

    long slot() { return random_.below(slots_); }
    long one_of_two() { return one_of_each_ ? 0 : random_.below(2); }
    long queue() { return one_of_each_ ? queue_ : random_.below(3); }
    // Nodes are written in braces, in which the order of the calls is that of the text.
    // Of a sleep: 0 as often as all others, and sometimes less.
    long length() {
        if (random_.one_in(2)) return 0;
        if (random_.one_in(20)) return -1;
        return 1 + random_.below(units_);
    }
    long limit() { return random_.one_in(12) ? no_time : length(); }
    long timer() { return random_.one_in(6) ? 0 : 1 + random_.below(units_); }
    long timer_or_none() { return random_.one_in(2) ? no_time : timer(); }
    long exception() {
        if (random_.one_in(24)) return 5;
        return random_.below(5);
    }

    Node body(int depth, bool in_callback, long most = 4) {
        Node made = Node{Op::do_, {}, {}};
        const long count = 1 + random_.below(most);
        for (long i = 0; i < count; ++i) made.children.push_back(statement(depth + 1, in_callback));
        return made;
    }
    // Some tasks wait for the same thing, and then one of them is cancelled in the turn in which it
    // was woken, or nearly. Gives the permits that the semaphore must have.
    long contest(Node& main) {
        const auto add = [&main](Node statement) { main.children.push_back(std::move(statement)); };
        const long kind = random_.below(7);
        if (kind == 6) {
            cancel_group(main);
            return random_.below(3);
        }
        const long kind_of_queue = random_.below(3);
        Node waits;
        Node wakes;
        switch (kind) {
        case 0:
            add(Node{Op::acquire, {0}, {}});
            waits = Node{Op::with_lock, {0}, {body(2, false, 2)}};
            wakes = Node{Op::release, {0}, {}};
            break;
        case 1:
            waits = Node{Op::event_wait, {0}, {}};
            wakes = Node{Op::event_set, {0}, {}};
            break;
        case 2: {
            const Node inside{Op::do_, {}, {Node{Op::cond_wait, {}, {}}}};
            waits = Node{Op::with_cond, {}, {inside}};
            const Node notify{Op::do_, {}, {Node{Op::notify, {1 + random_.below(2)}, {}}}};
            wakes = Node{Op::with_cond, {}, {notify}};
            break;
        }
        case 3:
            waits = Node{Op::sem_acquire, {0}, {}};
            wakes = Node{Op::sem_release, {0}, {}};
            break;
        case 4:
            waits = Node{Op::get, {kind_of_queue}, {}};
            wakes = Node{Op::put_nowait, {kind_of_queue}, {}};
            break;
        default:
            add(Node{Op::put_nowait, {kind_of_queue}, {}});
            waits = Node{Op::put, {kind_of_queue}, {}};
            wakes = Node{Op::get_nowait, {kind_of_queue}, {}};
            break;
        }
        const long tasks = 2 + random_.below(2);
        for (long i = 0; i < tasks; ++i) {
            Node inside{Op::do_, {}, {waits}};
            if (random_.one_in(2)) inside.children.push_back(statement(2, false));
            add(Node{Op::spawn, {i, 0}, {std::move(inside)}});
        }
        add(Node{Op::sleep, {0}, {}});
        const long times = 1 + random_.below(2);
        for (long i = 0; i < times; ++i) add(wakes);
        if (random_.one_in(4)) add(Node{Op::sleep, {0}, {}});
        const long place = random_.below(tasks);
        add(Node{Op::cancel, {place, random_.below(2)}, {}});
        return 0;
    }
    // A group whose tasks fail is cancelled from outside, and what runs it awaits again after that.
    void cancel_group(Node& main) {
        const auto add = [&main](Node statement) { main.children.push_back(std::move(statement)); };
        Node inside{Op::do_, {}, {}};
        const long tasks = 1 + random_.below(2);
        for (long i = 0; i < tasks; ++i) {
            Node fails{Op::do_, {}, {}};
            const long turns = random_.below(3);
            for (long turn = 0; turn < turns; ++turn)
                fails.children.push_back(Node{Op::sleep, {0}, {}});
            fails.children.push_back(Node{Op::raise, {random_.below(4)}, {}});
            inside.children.push_back(Node{Op::group_spawn, {1 + i}, {std::move(fails)}});
        }
        if (random_.one_in(2)) inside.children.push_back(Node{Op::sleep, {2}, {}});
        const Node group{Op::do_, {}, {Node{Op::group, {}, {std::move(inside)}}}};
        Node body{Op::do_, {}, {Node{Op::try_, {5, 0}, {group, Node{Op::do_, {}, {}}}}}};
        body.children.push_back(Node{Op::status, {0}, {}});
        body.children.push_back(Node{Op::sleep, {random_.below(2)}, {}});
        body.children.push_back(statement(2, false));
        add(Node{Op::spawn, {0, 0}, {std::move(body)}});
        const long turns = 1 + random_.below(4);
        for (long turn = 0; turn < turns; ++turn) add(Node{Op::sleep, {0}, {}});
        add(Node{Op::cancel, {0, random_.below(2)}, {}});
    }
    Node spawn(int depth) {
        long mode = 0;
        if (eager_ && random_.one_in(2)) mode = 1;
        if (random_.one_in(10)) mode = 2 + random_.below(2);
        const long place = slot();
        return Node{Op::spawn, {place, mode}, {body(depth, false, 6)}};
    }
    Node coro(int depth) { return Node{Op::coro, {}, {body(depth, false)}}; }
    Node slot_node() { return Node{Op::slot, {slot()}, {}}; }
    // What is awaited by one: a slot mostly, since others meet there.
    Node awaitable(int depth, bool may_sleep) {
        const long kind = random_.below(8);
        if (kind == 0 && may_sleep) return Node{Op::sleeping, {length()}, {}};
        if (kind <= 2) return coro(depth);
        if (kind == 3) return Node{Op::task, {}, {body(depth, false)}};
        return slot_node();
    }
    std::vector<Node> awaitables(int depth, bool coros) {
        std::vector<Node> all;
        const long kind = random_.below(3);
        const long count = random_.one_in(20) ? 0 : 1 + random_.below(4);
        for (long i = 0; i < count; ++i) {
            if (coros && (kind == 0 || (kind == 1 && random_.one_in(2)))) {
                all.push_back(coro(depth));
            } else if (random_.one_in(5)) {
                all.push_back(Node{Op::task, {}, {body(depth, false)}});
            } else {
                all.push_back(slot_node());
            }
        }
        return all;
    }
    Node generator(int depth) {
        Node made =
            Node{Op::generator, {one_of_two()}, {Node{Op::do_, {}, {}}, Node{Op::do_, {}, {}}}};
        const long count = 1 + random_.below(4);
        for (long i = 0; i < count; ++i) {
            made.children[0].children.push_back(random_.one_in(2) ? Node{Op::yield, {}, {}}
                                                                  : statement(depth + 1, false));
        }
        if (random_.one_in(3)) made.children[1].children.push_back(statement(depth + 1, false));
        return made;
    }

    // Deep ones, and those after a program is long enough, are short.
    bool is_enough(int depth) const { return depth > 5 || left_ <= 0; }

    Op choose(int depth, bool in_callback) {
        if (is_enough(depth)) return in_callback ? Op::status : Op::sleep;
        for (;;) {
            long at = random_.below(total_);
            for (const Weight& one : weights_) {
                at -= one.weight;
                if (at >= 0) continue;
                if (in_callback && is_asynchronous(one.op)) break;
                return one.op;
            }
        }
    }

    Node statement(int depth, bool in_callback) {
        --left_;
        const Op op = choose(depth, in_callback);
        switch (op) {
        case Op::sleep:
            return Node{op, {length()}, {}};
        case Op::await:
        case Op::future:
        case Op::set_result:
        case Op::uncancel:
        case Op::status:
            return Node{op, {slot()}, {}};
        case Op::remove_callback:
            return Node{op, {random_.one_in(3) ? slot() : called_}, {}};
        case Op::set_exception: {
            const long place = slot();
            return Node{op, {place, exception()}, {}};
        }
        case Op::cancel: {
            const long place = slot();
            return Node{op, {place, random_.below(2)}, {}};
        }
        case Op::raise:
            return Node{op, {exception()}, {}};
        case Op::spawn:
            return spawn(depth);
        case Op::group_spawn:
            return Node{op, {slot()}, {body(depth, false)}};
        case Op::gather:
            return Node{op, {random_.below(2)}, awaitables(depth, true)};
        case Op::gather_to: {
            const long place = slot();
            const long exceptions = random_.below(2);
            return Node{op, {place, exceptions}, awaitables(depth, true)};
        }
        case Op::wait: {
            const long when = random_.below(3);
            const long time = timer_or_none();
            return Node{op, {when, time}, awaitables(depth, false)};
        }
        case Op::as_completed:
            return Node{op, {timer_or_none()}, awaitables(depth, true)};
        case Op::wait_for:
            return Node{op, {limit()}, {awaitable(depth, true)}};
        case Op::shield:
            return Node{op, {}, {awaitable(depth, false)}};
        case Op::shield_to:
            return Node{op, {slot()}, {awaitable(depth, false)}};
        case Op::timeout:
            return Node{op, {limit()}, {body(depth, false)}};
        case Op::timeout_at:
            return Node{op, {length()}, {body(depth, false)}};
        case Op::reschedule:
            return Node{op, {limit()}, {}};
        case Op::group: {
            Node inside = body(depth, false);
            const long tasks = random_.below(4);
            for (long i = 0; i < tasks && !is_enough(depth); ++i) {
                const long place = slot();
                inside.children.insert(inside.children.begin(),
                                       Node{Op::group_spawn, {place}, {body(depth + 1, false)}});
            }
            return Node{op, {}, {std::move(inside)}};
        }
        case Op::with_cond:
            return Node{op, {}, {body(depth, false, 5)}};
        case Op::run_in_context:
            return Node{op, {}, {body(depth, true, 2)}};
        case Op::try_: {
            const long kind = random_.one_in(2) ? random_.below(3) : random_.below(6);
            const long raises = random_.one_in(4) ? 1 : 0;
            Node tried = body(depth, false);
            return Node{op, {kind, raises}, {std::move(tried), body(depth, false, 2)}};
        }
        case Op::finally: {
            Node tried = body(depth, false);
            return Node{op, {}, {std::move(tried), body(depth, false, 2)}};
        }
        case Op::repeat:
            return Node{op, {2 + random_.below(2)}, {body(depth, false, 3)}};
        case Op::add_callback: {
            called_ = slot();
            const long place = called_;
            return Node{op, {place}, {body(depth, true, 2)}};
        }
        case Op::call_soon:
            return Node{op, {random_.below(3)}, {body(depth, true, 2)}};
        case Op::call_later:
        case Op::call_at: {
            const long place = random_.below(3);
            const long time = timer();
            return Node{op, {place, time}, {body(depth, true, 2)}};
        }
        case Op::cancel_handle:
            return Node{op, {random_.below(3)}, {}};
        case Op::set_var:
        case Op::get_var:
        case Op::reset_var:
            return Node{op, {random_.below(2)}, {}};
        case Op::generator:
            return generator(depth);
        case Op::for_each: {
            const long place = one_of_two();
            const long count = 1 + random_.below(3);
            return Node{op, {place, count}, {body(depth, false, 2)}};
        }
        case Op::with_lock:
        case Op::with_sem:
            return Node{op, {one_of_two()}, {body(depth, false)}};
        case Op::next:
        case Op::aclose:
        case Op::acquire:
        case Op::release:
        case Op::event_wait:
        case Op::event_set:
        case Op::event_clear:
        case Op::sem_acquire:
        case Op::sem_release:
            return Node{op, {one_of_two()}, {}};
        case Op::notify:
            return Node{op, {1 + random_.below(2)}, {}};
        case Op::cond_wait_for:
            return Node{op, {1 + random_.below(3)}, {}};
        case Op::put:
        case Op::get:
        case Op::put_nowait:
        case Op::get_nowait:
        case Op::task_done:
        case Op::join:
        case Op::queue_state:
            return Node{op, {queue()}, {}};
        case Op::shutdown: {
            const long place = queue();
            return Node{op, {place, random_.below(2)}, {}};
        }
        default:
            return Node{op, {}, {}};
        }
    }

    Random random_;
    std::vector<Weight> weights_;
    long total_ = 0;
    long left_;
    long units_;
    long slots_;
    bool one_of_each_;
    long queue_;
    bool eager_;
    long called_ = 0; // the slot to which a callback was added last
};

} // namespace

Node generate(std::size_t seed) { return Generator(seed).program(); }

} // namespace conformance
