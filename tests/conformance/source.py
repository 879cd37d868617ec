# SPDX-License-Identifier: MIT
"""Writes a program as a person would, in Python and in C++, to be read: what the interpreters add (the
log, timers that never end together, slots that may hold nothing) is left out."""

import textwrap

WHEN = ("FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED")
CAUGHT = (("Exception", "std::exception"), ("asyncio.CancelledError", "asyncio::CancelledError"),
          ("BaseException", "..."), ("ValueError", "asyncio::ValueError"),
          ("TimeoutError", "asyncio::TimeoutError"), ("ExceptionGroup", "asyncio::ExceptionGroup"))
RAISED = ("ValueError", "RuntimeError", "LookupError", "TimeoutError", "asyncio.CancelledError",
          "SystemExit")
NO_TIME = -1000

# Statements without bodies: Python, C++. {0} is the first number.
SIMPLE = {
    "await": ("await s{0}", "co_await s{0};"),
    "return": ("return", "co_return;"),
    "next": ("await anext(g{0})", "co_await g{0}.next();"),
    "aclose": ("await g{0}.aclose()", "co_await g{0}.aclose();"),
    "acquire": ("await lock{0}.acquire()", "co_await lock{0}.acquire();"),
    "event_wait": ("await event{0}.wait()", "co_await event{0}.wait();"),
    "cond_acquire": ("await condition.acquire()", "co_await condition.acquire();"),
    "cond_wait": ("await condition.wait()", "co_await condition.wait();"),
    "cond_wait_for": ("await condition.wait_for(every_{0}th_time)",
                      "co_await condition.wait_for(every_{0}th_time);"),
    "sem_acquire": ("await semaphore{0}.acquire()", "co_await semaphore{0}.acquire();"),
    "barrier_wait": ("await barrier.wait()", "co_await barrier.wait();"),
    "barrier_reset": ("await barrier.reset()", "co_await barrier.reset();"),
    "barrier_abort": ("await barrier.abort()", "co_await barrier.abort();"),
    "put": ("await queue{0}.put(item)", "co_await queue{0}.put(item);"),
    "get": ("await queue{0}.get()", "co_await queue{0}.get();"),
    "join": ("await queue{0}.join()", "co_await queue{0}.join();"),
    "future": ("s{0} = loop.create_future()", "s{0} = asyncio::create_future<std::string>();"),
    "set_result": ("s{0}.set_result('...')", 's{0}.set_result("...");'),
    "cancel_self": ("asyncio.current_task().cancel('...')",
                    'asyncio::current_task().cancel("...");'),
    "uncancel": ("s{0}.uncancel()", "s{0}.uncancel();"),
    "uncancel_self": ("asyncio.current_task().uncancel()", "asyncio::current_task().uncancel();"),
    "status": ("s{0}.exception()  # if it is done", "s{0}.exception(); // if it is done"),
    "remove_callback": ("s{0}.remove_done_callback(called)", "s{0}.remove_done_callback(called);"),
    "cancel_handle": ("h{0}.cancel()", "h{0}.cancel();"),
    "set_var": ("token{0} = var{0}.set(...)", "auto token{0} = var{0}.set(...);"),
    "get_var": ("var{0}.get()", "var{0}.get();"),
    "reset_var": ("var{0}.reset(token{0})", "var{0}.reset(token{0});"),
    "expired": ("timeout.expired(), timeout.when()", "timeout.expired(), timeout.when();"),
    "release": ("lock{0}.release()", "lock{0}.release();"),
    "locked": ("lock0.locked()  # and all the others", "lock0.locked(); // and all the others"),
    "event_set": ("event{0}.set()", "event{0}.set();"),
    "event_clear": ("event{0}.clear()", "event{0}.clear();"),
    "cond_release": ("condition.release()", "condition.release();"),
    "notify": ("condition.notify({0})", "condition.notify({0});"),
    "notify_all": ("condition.notify_all()", "condition.notify_all();"),
    "sem_release": ("semaphore{0}.release()", "semaphore{0}.release();"),
    "barrier_state": ("barrier.n_waiting, barrier.broken", "barrier.n_waiting(), barrier.broken();"),
    "put_nowait": ("queue{0}.put_nowait(item)", "queue{0}.put_nowait(item);"),
    "get_nowait": ("queue{0}.get_nowait()", "queue{0}.get_nowait();"),
    "task_done": ("queue{0}.task_done()", "queue{0}.task_done();"),
    "queue_state": ("queue{0}.qsize()", "queue{0}.qsize();"),
    "yield": ("yield '...'", 'co_yield "...";'),
}


class Writer:
    def __init__(self, cpp):
        self.cpp = cpp
        self.dot = "::" if cpp else "."
        self.await_ = "co_await" if cpp else "await"
        self.end = ";" if cpp else ""
        self.count = 0

    def time(self, units):
        if units == NO_TIME:
            return "std::nullopt" if self.cpp else "None"
        return f"{units}s" if self.cpp else str(units)

    def block(self, lines):
        return textwrap.indent("\n".join(lines) or ("" if self.cpp else "pass"), "    ")

    def body(self, do):
        return [line for child in do.children for line in self.statement(child)]

    def function(self, do, kind="Coro<std::string>", asynchronous=True):
        """Its definition, and its name."""
        self.count += 1
        name = f"f{self.count}"
        lines = self.block(self.body(do))
        if self.cpp:
            returns = f" -> {kind}" if asynchronous else ""
            return [f"auto {name} = [&]{'()' if returns else ''}{returns} {{", lines, "};"], name
        return [f"{'async ' if asynchronous else ''}def {name}():", lines], name

    def awaitable(self, part):
        """What must stand before it, and the expression."""
        if part.op == "slot":
            return [], f"s{part.numbers[0]}"
        if part.op == "sleeping":
            return [], f"asyncio{self.dot}sleep({self.time(part.numbers[0])})"
        before, name = self.function(part.children[0])
        if part.op == "coro":
            return before, name + "()"
        return before, f"asyncio{self.dot}create_task({name}())"

    def awaitables(self, node):
        before, texts = [], []
        for child in node.children:
            lines, text = self.awaitable(child)
            before += lines
            texts.append(text)
        return before, texts

    def gather(self, node):
        before, texts = self.awaitables(node)
        if node.numbers[-1]:
            texts = (["asyncio::return_exceptions", *texts] if self.cpp else
                     [*texts, "return_exceptions=True"])
        return before, f"asyncio{self.dot}gather({', '.join(texts)})"

    def scope(self, python, cpp, do):
        """`async with`, or a block with what stands for it."""
        if self.cpp:
            return ["{", self.block([cpp, *self.body(do)]), "}"]
        return [python, self.block(self.body(do))]

    def structured(self, name, argument, type, do):
        """timeout and its like: `async with`, or a function with a body."""
        short = name.split("_")[0] if name != "task_group" else "group"
        if self.cpp:
            self.count += 1
            body = f"f{self.count}"
            return [f"auto {body} = [&](asyncio::{type}& {short}) -> Coro<> {{",
                    self.block(self.body(do)), "};",
                    f"co_await asyncio::{name}({argument}{', ' if argument else ''}{body});"]
        call = "TaskGroup()" if name == "task_group" else f"{name}({argument})"
        return [f"async with asyncio.{call} as {short}:", self.block(self.body(do))]

    def statement(self, node):
        op, numbers, children, cpp = node.op, node.numbers, node.children, self.cpp
        if op in SIMPLE:
            return [SIMPLE[op][cpp].format(*numbers)]
        return getattr(self, op + "_")(node, numbers, children)

    def sleep_(self, node, numbers, children):
        return [f"{self.await_} asyncio{self.dot}sleep({self.time(numbers[0])}){self.end}"]

    def gather_(self, node, numbers, children):
        before, text = self.gather(node)
        return [*before, f"{self.await_} {text}{self.end}"]

    def gather_to_(self, node, numbers, children):
        before, text = self.gather(node)
        return [*before, f"s{numbers[0]} = {text}{self.end}"]

    def wait_(self, node, numbers, children):
        before, texts = self.awaitables(node)
        when, time = f"asyncio{self.dot}{WHEN[numbers[0]]}", self.time(numbers[1])
        some = ", ".join(texts)
        if self.cpp:
            return [*before, f"co_await asyncio::wait(std::vector{{{some}}}, {when}, {time});"]
        return [*before, f"await asyncio.wait([{some}], return_when={when}, timeout={time})"]

    def as_completed_(self, node, numbers, children):
        before, texts = self.awaitables(node)
        time, some = self.time(numbers[0]), ", ".join(texts)
        if self.cpp:
            return [*before, f"auto ended = asyncio::as_completed(std::vector{{{some}}}, {time});",
                    "while (auto future = co_await ended.next()) {}"]
        return [*before, f"async for future in asyncio.as_completed([{some}], timeout={time}):",
                self.block([])]

    def wait_for_(self, node, numbers, children):
        before, text = self.awaitable(children[0])
        return [*before,
                f"{self.await_} asyncio{self.dot}wait_for({text}, {self.time(numbers[0])}){self.end}"]

    def shield_(self, node, numbers, children):
        before, text = self.awaitable(children[0])
        return [*before, f"{self.await_} asyncio{self.dot}shield({text}){self.end}"]

    def shield_to_(self, node, numbers, children):
        before, text = self.awaitable(children[0])
        return [*before, f"s{numbers[0]} = asyncio{self.dot}shield({text}){self.end}"]

    def timeout_(self, node, numbers, children):
        return self.structured("timeout", self.time(numbers[0]), "Timeout", children[0])

    def timeout_at_(self, node, numbers, children):
        now = "loop.time() + " + self.time(numbers[0])
        return self.structured("timeout_at", now, "Timeout", children[0])

    def group_(self, node, numbers, children):
        return self.structured("task_group", "", "TaskGroup", children[0])

    def reschedule_(self, node, numbers, children):
        time = self.time(numbers[0])
        when = time if numbers[0] == NO_TIME else f"loop.time() + {time}"
        return [f"timeout.reschedule({when}){self.end}"]

    def try_(self, node, numbers, children):
        caught = CAUGHT[numbers[0]][self.cpp]
        tried, handler = self.body(children[0]), self.body(children[1])
        if self.cpp:
            again = ["std::rethrow_exception(error);"] if numbers[1] else []
            return ["std::exception_ptr error;", "try {", self.block(tried),
                    f"}} catch ({caught if caught == '...' else f'const {caught}&'}) {{",
                    self.block(["error = std::current_exception();"]), "}",
                    "if (error != nullptr) {", self.block(handler + again), "}"]
        return ["try:", self.block(tried), f"except {caught}:",
                self.block(handler + (["raise"] if numbers[1] else []))]

    def finally_(self, node, numbers, children):
        tried, last = self.body(children[0]), self.body(children[1])
        if self.cpp:
            return ["co_await asyncio::try_finally([&]() -> Coro<> {", self.block(tried),
                    "}, [&]() -> Coro<> {", self.block(last), "});"]
        return ["try:", self.block(tried), "finally:", self.block(last)]

    def repeat_(self, node, numbers, children):
        if self.cpp:
            return [f"for (int i = 0; i < {numbers[0]}; ++i) {{", self.block(self.body(children[0])),
                    "}"]
        return [f"for _ in range({numbers[0]}):", self.block(self.body(children[0]))]

    def for_each_(self, node, numbers, children):
        slot, count = numbers
        body = self.body(children[0])
        if self.cpp:
            return [f"for (int i = 0; i < {count} && co_await g{slot}.next(); ++i) {{",
                    self.block(body), "}", f"co_await g{slot}.aclose();"]
        return [f"async for value in first({count}, g{slot}):", self.block(body),
                f"await g{slot}.aclose()"]

    def with_lock_(self, node, numbers, children):
        name = f"lock{numbers[0]}"
        return self.scope(f"async with {name}:", f"auto held = co_await {name}.scoped();",
                          children[0])

    def with_cond_(self, node, numbers, children):
        return self.scope("async with condition:", "auto held = co_await condition.scoped();",
                          children[0])

    def with_sem_(self, node, numbers, children):
        name = f"semaphore{numbers[0]}"
        return self.scope(f"async with {name}:", f"auto held = co_await {name}.scoped();",
                          children[0])

    def spawn_(self, node, numbers, children):
        before, name = self.function(children[0])
        slot, mode = numbers
        call = f"s{slot} = asyncio{self.dot}create_task("
        if self.cpp:
            options = (".eager_start(true)" if mode in (1, 3) else "") + (
                ".context(context)" if mode in (2, 3) else "")
            return [*before, call + (f"TaskOptions(){options}, " if mode else "") + f"{name}());"]
        return [*before, call + f"{name}()" + (", eager_start=True" if mode in (1, 3) else "") + (
            ", context=context" if mode in (2, 3) else "") + ")"]

    def group_spawn_(self, node, numbers, children):
        before, name = self.function(children[0])
        return [*before, f"s{numbers[0]} = group.create_task({name}()){self.end}"]

    def set_exception_(self, node, numbers, children):
        return [f"s{numbers[0]}.set_exception({self.exception(numbers[1])}){self.end}"]

    def raise_(self, node, numbers, children):
        return [f"{'throw' if self.cpp else 'raise'} {self.exception(numbers[0])}{self.end}"]

    def exception(self, kind):
        name = RAISED[kind].removeprefix("asyncio.")
        text = "3" if kind == 5 else '"..."' if self.cpp else "'...'"
        return f"asyncio::{name}({text})" if self.cpp else f"{RAISED[kind]}({text})"

    def cancel_(self, node, numbers, children):
        text = "" if not numbers[1] else '"..."' if self.cpp else "'...'"
        return [f"s{numbers[0]}.cancel({text}){self.end}"]

    def callback(self, node, call):
        before, name = self.function(node.children[0], asynchronous=False)
        return [*before, call.format(name) + self.end]

    def add_callback_(self, node, numbers, children):
        return self.callback(node, f"s{numbers[0]}.add_done_callback({{}})")

    def call_soon_(self, node, numbers, children):
        arrow = "->" if self.cpp else "."
        return self.callback(node, f"h{numbers[0]} = loop{arrow}call_soon({{}})")

    def call_later_(self, node, numbers, children):
        arrow = "->" if self.cpp else "."
        return self.callback(
            node, f"h{numbers[0]} = loop{arrow}call_later({self.time(numbers[1])}, {{}})")

    def call_at_(self, node, numbers, children):
        arrow = "->" if self.cpp else "."
        return self.callback(
            node, f"h{numbers[0]} = loop{arrow}call_at(now + {self.time(numbers[1])}, {{}})")

    def run_in_context_(self, node, numbers, children):
        return self.callback(node, "context.run({})")

    def shutdown_(self, node, numbers, children):
        now = "" if not numbers[1] else "true" if self.cpp else "immediate=True"
        return [f"queue{numbers[0]}.shutdown({now}){self.end}"]

    def generator_(self, node, numbers, children):
        self.count += 1
        name = f"f{self.count}"
        items, last = children
        tried, after = self.body(items), self.body(last)
        if self.cpp:
            body = [*tried, *(["// and in any case:", *after] if after else [])]
            return [f"auto {name} = [&]() -> AsyncGenerator<std::string> {{", self.block(body), "};",
                    f"auto g{numbers[0]} = {name}();"]
        body = ["try:", self.block(tried), "finally:", self.block(after)] if after else tried
        return [f"async def {name}():", self.block(body), f"g{numbers[0]} = {name}()"]


# Objects: how statements on them begin, their name, type and size (a number of the program's).
OBJECTS = [
    *((("acquire {i}", "with_lock {i}", "release {i}"), f"lock{i}", "Lock", None, i) for i in (0, 1)),
    *((("event_wait {i}", "event_set {i}", "event_clear {i}"), f"event{i}", "Event", None, i)
      for i in (0, 1)),
    (("cond_", "with_cond", "notify"), "condition", "Condition", None, 0),
    *((("sem_acquire {i}", "sem_release {i}", "with_sem {i}"), f"semaphore{i}", type, i, i)
      for i, type in enumerate(("Semaphore", "BoundedSemaphore"))),
    (("barrier",), "barrier", "Barrier", 2, 0),
    *((("put {i}", "get {i}", "join {i}", "put_nowait {i}", "get_nowait {i}", "task_done {i}",
        "shutdown {i}", "queue_state {i}"), f"queue{i}", type, 3, i)
      for i, type in enumerate(("Queue", "PriorityQueue", "LifoQueue"))),
]


def header(program, cpp):
    """The objects that it uses."""
    text = str(program)
    made = []
    for words, name, type, size, i in OBJECTS:
        if not any("(" + word.format(i=i) in text for word in words):
            continue
        argument = "" if size is None else program.numbers[size]
        if cpp:
            of = "<int>" if "Queue" in type else ""
            made.append(f"asyncio::{type}{of} {name}" + (f"({argument})" if argument != "" else "") + ";")
        else:
            made.append(f"{name} = asyncio.{type}({argument})")
    return made


def python(program):
    writer = Writer(False)
    return "\n".join([*header(program, False), "async def main():",
                      writer.block(writer.body(program.children[0])), ""])


def cpp(program):
    writer = Writer(True)
    return "\n".join([*header(program, True), "Coro<> main_() {",
                      writer.block(writer.body(program.children[0])), "}", ""])
