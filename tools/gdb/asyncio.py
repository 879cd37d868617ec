# SPDX-License-Identifier: MIT
"""The event loops and tasks of a stopped process, or of a core file, in gdb.

    (gdb) source asyncio.py
    (gdb) asyncio tasks

The library tells where things are, in lists that are found by their symbols (see
asyncio/detail/debugger.hpp). So this needs no debug information, and calls nothing in the process.
"""

import re
import time

import gdb

# asyncio::v0::detail::DebuggerFacts::loops and so on: mangled, to be found in every language.
FACTS = "_ZN7asyncio2v06detail13DebuggerFacts"


class Memory:
    """What the process has in its memory, and what the library says about that."""

    def __init__(self):
        self.inferior = gdb.selected_inferior()
        if not self.inferior.threads():
            raise gdb.GdbError("asyncio: there is no process: run the program, attach to it, or "
                               "open a core file")
        self.pointer_size = gdb.lookup_type("char").pointer().sizeof
        self.order = "big" if "big" in gdb.execute("show endian", to_string=True) else "little"
        self.facts = {}
        if not self.read_facts("5loopsE"):
            raise gdb.GdbError("asyncio: there is no asyncio in this process, or its symbols are "
                               "stripped: load them with symbol-file or add-symbol-file")
        self.read_facts("5tasksE")
        self.read_facts("7gathersE")
        self.locations = {}
        self.classes = {}

    def read_facts(self, symbol):
        try:
            fact = int(gdb.parse_and_eval("&" + FACTS + symbol))
        except gdb.error:
            return False
        while True:
            name, number, address = (self.pointer(fact + i * self.pointer_size) for i in range(3))
            if name == 0:
                return True
            self.facts[self.text(name)] = address or number
            fact += 3 * self.pointer_size

    def has(self, fact):
        return fact in self.facts

    def __getitem__(self, fact):
        return self.facts[fact]

    def integer(self, address, size, signed=False):
        data = bytes(self.inferior.read_memory(address, size))
        return int.from_bytes(data, self.order, signed=signed)

    def pointer(self, address):
        return self.integer(address, self.pointer_size)

    def field(self, address, name):
        """The pointer that stands in this field of the object."""
        return self.pointer(address + self[name])

    def text(self, address):
        """A string that ends with a zero."""
        data = b""
        while b"\0" not in data:
            size = 64 - address % 64  # never over the end of a page
            data += bytes(self.inferior.read_memory(address, size))
            address += size
        return data[: data.index(b"\0")].decode(errors="backslashreplace")

    def string(self, address):
        """A std::string."""
        size = self.pointer(address + self.pointer_size)
        data = bytes(self.inferior.read_memory(self.pointer(address), size)) if size else b""
        return data.decode(errors="backslashreplace")

    def location(self, address):
        """Function and place of a std::source_location, which is a pointer to what it says."""
        if address == 0:
            return "", "an unknown place"
        if address not in self.locations:
            line = self.integer(address + 2 * self.pointer_size, 4)
            place = "%s:%d" % (self.text(self.pointer(address)), line)
            function = readable_function(self.text(self.pointer(address + self.pointer_size)))
            self.locations[address] = function, place
        return self.locations[address]

    def class_of(self, address):
        """The class of an object with virtual functions, or an empty string."""
        table = self.pointer(address)
        if table not in self.classes:
            symbol = gdb.execute("info symbol 0x%x" % table, to_string=True)
            found = re.match(r"vtable for (.*?)( \+ \d+)?( in section .*)?$", symbol.strip())
            self.classes[table] = found.group(1).replace("asyncio::v0::", "asyncio::") if found else ""
        return self.classes[table]


def end_of_brackets(text, at):
    depth = 0
    while at < len(text):
        depth += (text[at] in "(<[{") - (text[at] in ")>]}")
        at += 1
        if depth == 0:
            break
    return at


def readable_function(name):
    """What a compiler writes for a function, cut to "shop::Cart::pay" or "shop::pay::<lambda>"."""
    text = name.replace("(anonymous namespace)::", "").replace("{anonymous}::", "")
    text = text.replace("(anonymous class)", "<lambda>").replace("asyncio::v0::", "asyncio::")
    result = ""
    at = 0
    while at < len(text):
        operator = re.match(r"operator\b(\(\)|[^(]*)", text[at:])
        if text.startswith("<lambda", at):
            result += "<lambda>"
            at = end_of_brackets(text, at)
        elif operator and not re.search(r"\w$", result):
            result += operator.group(0)
            at += operator.end()
        elif text[at] == "(":
            at = end_of_brackets(text, at)
            if result == "decltype":
                continue
            inner = re.match(r"[ a-z&]*(?=::)", text[at:])  # "f() const::<lambda()>"
            if not inner:
                break
            at += inner.end()
        elif text[at] == "<":
            at = end_of_brackets(text, at)
        elif text[at] == " ":
            result = ""  # a word of the result's type
            at += 1
        else:
            result += text[at]
            at += 1
    return result.lstrip("*&").replace("<lambda>::operator()", "<lambda>") or name


class Task:
    def __init__(self, memory, loop, address):
        self.memory = memory
        self.loop = loop
        self.address = address
        self.flags = memory.integer(address + memory["FutureBase.flags"], 2)
        self.next = memory.field(address, "TaskBase.next_task")

    def has(self, flag):
        return self.flags & self.memory["TaskBase." + flag] != 0

    def name(self):
        memory = self.memory
        number = memory.field(self.address, "TaskBase.identity")
        if self.has("details_flag"):
            details = number
            if memory.integer(details + memory["TaskDetails.named"], 1):
                return memory.string(details + memory["TaskDetails.name"])
            number = memory.field(details, "TaskDetails.number")
        return "Task-%d" % number

    def frames(self):
        """Where each of its coroutines stands, the innermost first; and where it was created."""
        memory = self.memory
        frames = []
        frame = memory.field(self.address, "TaskBase.resume")
        seen = set()
        while frame not in seen:  # memory may be corrupt
            seen.add(frame)
            promise = frame + memory["frame.promise"]
            frames.append(memory.location(memory.field(promise, "PromiseBase.where")))
            frame = memory.field(promise, "PromiseBase.outer")
            if frame & 1:  # the outermost
                return frames, memory.location(frame & ~1)[1]
        return frames, "an unknown place"

    def state(self):
        """Its state, and what it waits for or None."""
        wait = None
        if self.has("returned_flag"):
            state = "finishing"
        elif self.address == self.loop.current_task:
            state = "running"
        elif not self.has("started_flag"):
            state = "ready, not begun"
        elif not self.has("suspended_flag"):
            state = "running, put aside for an eager task"
        else:
            wait = self.wait()
            state = "waiting" if wait else "ready"
        if self.memory.integer(self.address + self.memory["TaskBase.cancelling"], 2):
            state += ", cancelling"
        return state, wait

    def wait(self):
        """What it waits for; None if that has come already."""
        memory = self.memory
        operation = memory.field(self.address, "TaskBase.waiting_for")
        if operation == 0:
            return None
        if self.has("awaits_flag"):
            return self.loop.describe_future(memory.field(operation, "TaskWaiter.future"))
        kind = memory.class_of(operation)
        if kind.startswith("asyncio::detail::SleepAwaiter"):
            if memory.integer(operation + memory["Timer.sequence"], 8) == 0:
                return None
            return self.loop.describe_timer(operation)
        if not kind and operation in self.loop.timers():
            return self.loop.describe_timer(operation)
        return kind or "what has no symbol"

    def show(self, indent):
        try:
            state, wait = self.state()
            name = self.name()
            frames, created = [], None
            if not self.has("returned_flag"):
                frames, created = self.frames()
        except gdb.MemoryError as error:
            print("%sTask at 0x%x: %s" % (indent, self.address, error))
            return
        print("%sTask '%s': %s%s" % (indent, name, state, ", created at " + created if created else ""))
        if wait:
            print("%s  waits for %s" % (indent, wait))
        for number, (function, place) in enumerate(frames):
            # A frame that runs stands at no await: this is where it was last seen.
            word = "after" if number == 0 and state.startswith("running") else "at"
            print("%s  #%d %s %s %s" % (indent, number, function, word, place))


class Loop:
    def __init__(self, memory, number, node):
        self.memory = memory
        self.number = number
        self.address = node - memory["EventLoop.living"]
        self.thread = memory.field(node, "LivingLoop.thread")
        self.closed = memory.integer(self.address + memory["EventLoop.closed"], 1) != 0
        self.current_task = memory.field(self.address, "EventLoop.current_task")
        self.gathers = None
        self.armed = None

    def tasks(self):
        """The oldest first."""
        tasks = []
        address = self.memory.field(self.address, "EventLoop.tasks")
        seen = set()
        while address != 0 and address not in seen:
            seen.add(address)
            tasks.append(Task(self.memory, self, address))
            address = tasks[-1].next
        return tasks[::-1]

    def show(self, threads, tasks):
        if self.thread:
            state = "running"
            if self.thread in threads:
                state += " in thread %d" % threads[self.thread]
        else:
            state = "closed" if self.closed else "not running"
        count = "%d task%s" % (len(tasks), "" if len(tasks) == 1 else "s")
        print("Loop %d at 0x%x: %s, %s" % (self.number, self.address, state, count))

    def timers(self):
        """The addresses of those that are armed: a heap, see asyncio/detail/timer_heap.hpp."""
        if self.armed is None:
            self.armed = set()
            left = [self.memory.field(self.address, "EventLoop.timers")]
            while left:
                timer = left.pop()
                if timer != 0 and timer not in self.armed:
                    self.armed.add(timer)
                    left.append(self.memory.field(timer, "Runnable.next_link"))
                    left.append(self.memory.field(timer, "Timer.child"))
        return self.armed

    def describe_timer(self, timer):
        memory = self.memory
        when_ns = memory.integer(timer + memory["Timer.when_ns"], 8, signed=True)
        connection = getattr(memory.inferior, "connection", None)
        if memory.field(self.address, "EventLoop.own_clock") and connection and \
                connection.type == "native":
            left_ns = when_ns - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
            return "a timer, %.3f s left" % (left_ns / 1e9) if left_ns > 0 else "a timer that is due"
        return "a timer, at %.3f s of the loop's clock" % (when_ns / 1e9)

    def describe_future(self, future):
        """None if it is done."""
        memory = self.memory
        flags = memory.integer(future + memory["FutureBase.flags"], 2)
        if flags & memory["FutureBase.state_mask"]:
            return None
        if flags & memory["FutureBase.task_flag"]:
            return "task '%s'" % Task(memory, self, future).name()
        children = self.children_of_gathers().get(future)
        if children:
            return "a gather of " + ", ".join("task '%s'" % name for name in children)
        return "a gather" if memory.class_of(future).startswith("asyncio::detail::Gather") else "a future"

    def children_of_gathers(self):
        """For each gather's future, the names of the tasks that it waits for."""
        if self.gathers is None:
            self.gathers = {}
            memory = self.memory
            for task in self.tasks() if memory.has("GatherChild.gather") else ():
                waiter = memory.field(task.address, "FutureBase.first_waiter")
                seen = set()
                while waiter != 0 and waiter not in seen:
                    seen.add(waiter)
                    if memory.class_of(waiter) == "asyncio::detail::GatherChild":
                        gather = memory.field(waiter, "GatherChild.gather")
                        future = memory.field(gather, "GatherBase.outer")
                        self.gathers.setdefault(future, []).append(task.name())
                    waiter = memory.field(waiter, "Runnable.next_link")
        return self.gathers


def all_loops(memory):
    """The oldest first."""
    nodes = {}
    node = memory.pointer(memory["newest_loop"])
    while node != 0 and node not in nodes:
        nodes[node] = True
        node = memory.field(node, "LivingLoop.next")
    return [Loop(memory, i + 1, node) for i, node in enumerate(reversed(nodes))]


def threads_by_pointer():
    """gdb's number of each thread, by its thread pointer."""
    selected, frame = gdb.selected_thread(), gdb.selected_frame()
    numbers = {}
    try:
        for thread in gdb.selected_inferior().threads():
            thread.switch()
            for register in ("fs_base", "tpidr"):  # of x86-64, of aarch64
                try:
                    numbers[int(gdb.newest_frame().read_register(register))] = thread.num
                except (ValueError, gdb.error):
                    pass
    finally:
        if selected is not None:
            selected.switch()
            frame.select()
    return numbers


class AsyncioPrefix(gdb.Command):
    """Show the event loops and tasks of asyncio-cpp."""

    def __init__(self):
        super().__init__("asyncio", gdb.COMMAND_STATUS, prefix=True)


class AsyncioCommand(gdb.Command):
    def __init__(self, name):
        super().__init__(name, gdb.COMMAND_STATUS)

    def invoke(self, argument, from_tty):
        try:
            self.show(argument.strip())
        except gdb.MemoryError as error:
            raise gdb.GdbError("asyncio: %s: the process has not come to main() yet, or its memory "
                               "is corrupt" % error)


class LoopsCommand(AsyncioCommand):
    """List the event loops of the process: who runs them, and how many tasks they have."""

    def show(self, argument):
        memory = Memory()
        threads = threads_by_pointer()
        for loop in all_loops(memory):
            loop.show(threads, loop.tasks() if memory.has("TaskBase.size") else [])


class TasksCommand(AsyncioCommand):
    """List the tasks of each event loop that are not done, in the order in which they were made.

With each: its state, where it was created, what it waits for, and the await at which each of its
coroutines stands, the innermost first. asyncio tasks N: those of loop N."""

    def show(self, argument):
        if argument and not argument.isdecimal():
            raise gdb.GdbError("asyncio tasks takes the number of a loop, or nothing; for one task: "
                               "asyncio task NAME")
        memory = Memory()
        threads = threads_by_pointer()
        loops = all_loops(memory)
        if argument and not 1 <= int(argument) <= len(loops):
            raise gdb.GdbError("asyncio: there is no loop %s: see asyncio loops" % argument)
        for loop in loops:
            if argument and loop.number != int(argument):
                continue
            tasks = loop.tasks() if memory.has("TaskBase.size") else []
            loop.show(threads, tasks)
            for task in tasks:
                task.show("  ")


class TaskCommand(AsyncioCommand):
    """Show the tasks of this name, as asyncio tasks does: asyncio task NAME"""

    def show(self, argument):
        name = argument.strip("'\"")
        if not name:
            raise gdb.GdbError("asyncio task takes the name of a task; for all of them: asyncio tasks")
        memory = Memory()
        found = False
        for loop in all_loops(memory) if memory.has("TaskBase.size") else ():
            for task in loop.tasks():
                if task.name() == name:
                    task.show("")
                    found = True
        if not found:
            raise gdb.GdbError("asyncio: no task that is not done is called '%s'" % name)


AsyncioPrefix()
LoopsCommand("asyncio loops")
TasksCommand("asyncio tasks")
TaskCommand("asyncio task")
