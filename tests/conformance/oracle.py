# SPDX-License-Identifier: MIT
"""Runs a program of the conformance suite on CPython's asyncio. interpreter.cpp is the same, line by
line, on the library; README.md says what the statements mean."""

import asyncio
import contextvars
import gc
import re
import sys
import warnings

TICK = 1 / 512  # both sides count with it exactly
TICKS_PER_UNIT = 64
NO_TIME = -1000
MOST_ROUNDS = 20

warnings.simplefilter("ignore")  # coroutines that never began, as where a TaskGroup refuses one
sys.unraisablehook = lambda what: None  # of frames that are left for ever


# --- The language ---------------------------------------------------------------------------------

class Node:
    __slots__ = ("op", "numbers", "children", "id")

    def __init__(self, op, numbers, children, id=0):
        self.op, self.numbers, self.children, self.id = op, numbers, children, id

    def __str__(self):
        return "(" + " ".join([self.op, *map(str, self.numbers), *map(str, self.children)]) + ")"


def parse(text):
    tokens = re.findall(r"[()]|[^\s()]+", text)
    at = 0
    count = 0

    def node():
        nonlocal at, count
        at += 2
        made = Node(tokens[at - 1], [], [], count)
        count += 1
        while tokens[at] != ")":
            if tokens[at] == "(":
                made.children.append(node())
            else:
                made.numbers.append(int(tokens[at]))
                at += 1
        at += 1
        return made

    return node()


# --- Texts ----------------------------------------------------------------------------------------

FINAL = "invalid state: the future has its result already, and takes no other"

# Where our messages are others than CPython's, on purpose: they tell what to do. Each stands here
# in full; what no line names must be the same.
OURS = {
    ("TimeoutError", ""): "the time is up",
    ("QueueEmpty", ""): "the queue is empty: await get() to wait for an item",
    ("QueueFull", ""): "the queue is full: await put() to wait for room",
    ("QueueShutDown", ""):
        "the queue was shut down: it takes no more items, and gives what is left in it",
    ("InvalidStateError", "invalid state"): FINAL,
    ("InvalidStateError", "FINISHED: <>"): FINAL,  # of a future in Python
    ("InvalidStateError", "CANCELLED: <>"): FINAL,
    ("RuntimeError", "cannot enter context: <> is already entered"):
        "cannot enter context: something runs in it already; enter a copy()",
    ("ValueError", "<> was created in a different Context"):
        "the token was created in a different Context: reset() belongs in the task or callback that "
        "called set()",
    ("RuntimeError", "anext(): asynchronous generator is already running"):
        "next(): the asynchronous generator is already running: another task awaits it; wait for that "
        "one first",
    ("RuntimeError", "aclose(): asynchronous generator is already running"):
        "aclose(): the asynchronous generator is already running: another task awaits it; wait for "
        "that one first",
    ("RuntimeError", "<> has already been used once"): "the token has already been used once",
    ("RuntimeError", "TaskGroup <> is shutting down"):
        "TaskGroup is shutting down: it is cancelling its tasks, and takes no more",
    ("RuntimeError", "TaskGroup <> is finished"): "TaskGroup is finished: it takes no more tasks",
    ("ValueError", "Set of Tasks/Futures is empty."):
        "wait() got no futures: there must be at least one to wait for",
}


def without_objects(message):
    """What objects look like is not compared: "<...>" becomes "<>"."""
    text = ""
    depth = 0
    for c in message:
        if c == ">" and depth > 0:
            depth -= 1
        if depth == 0:
            text += c
        if c == "<":
            depth += 1
    return text


def describe(exception):
    name = type(exception).__name__
    if isinstance(exception, asyncio.CancelledError):
        return f"CancelledError({exception.args[0] if exception.args else ''})"
    if isinstance(exception, SystemExit):
        return f"SystemExit({exception.code})"
    if isinstance(exception, GeneratorExit):
        return "GeneratorExit()"
    if isinstance(exception, BaseExceptionGroup):
        return f"Group({exception.message})[{', '.join(map(describe, exception.exceptions))}]"
    message = without_objects(str(exception))
    return f"{name}({OURS.get((name, message), message)})"


def make_exception(kind, id):
    if kind >= 5:
        return SystemExit(id)
    kinds = (ValueError, RuntimeError, LookupError, TimeoutError, asyncio.CancelledError)
    return kinds[kind](str(id))


def catches(kind, exception):
    if isinstance(exception, (SystemExit, GeneratorExit)):
        return False
    if isinstance(exception, asyncio.CancelledError):
        return kind in (1, 2)
    if isinstance(exception, BaseExceptionGroup):
        return kind in (0, 2, 5)
    if isinstance(exception, ValueError):
        return kind in (0, 2, 3)
    if isinstance(exception, TimeoutError):
        return kind in (0, 2, 4)
    return kind in (0, 2)


def text_of(value):
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(text_of, value))}]"
    if isinstance(value, BaseException):
        return describe(value)
    return value


# --- Virtual time ---------------------------------------------------------------------------------

class Loop(asyncio.BaseEventLoop):
    """Counts its turns, and jumps to the next deadline when nothing is ready."""

    def __init__(self):
        super().__init__()
        self.now = 1000.0
        self.turn = 0
        self._clock_resolution = 1e-9
        self._selector = self

    def time(self):
        return self.now

    def select(self, timeout):
        self.now += timeout
        return ()

    def _run_once(self):
        self.turn += 1
        super()._run_once()

    def _process_events(self, events):
        pass

    def _write_to_self(self):
        pass


class Remembering:
    """CPython's future gives the message of its CancelledError only to the first who asks; ours, on
    purpose, to all. This one too."""

    message = None

    @property
    def _cancel_message(self):
        if self._cancelled_exc is not None:
            return self._cancelled_exc.args[0] if self._cancelled_exc.args else None
        return self.message

    @_cancel_message.setter
    def _cancel_message(self, message):
        self.message = message

    def _make_cancelled_error(self):
        error = super()._make_cancelled_error()
        self.message = error.args[0] if error.args else None
        return error


class RememberingFuture(Remembering, asyncio.futures._PyFuture):
    pass


class RememberingTask(Remembering, asyncio.tasks._PyTask):
    pass


class RememberingGather(asyncio.tasks._GatheringFuture):
    """CPython's gather that was cancelled takes the message from the last of its children, which may
    have none; ours, on purpose, from who cancelled it. This one too."""

    return_exceptions = False
    message = None

    def cancel(self, msg=None):
        if not self.done():
            self.message = msg
        return super().cancel(msg)

    def set_exception(self, exception):
        if self._cancel_requested and isinstance(exception, asyncio.CancelledError) and (
                self.return_exceptions or not any(child.cancelled() for child in self._children)):
            exception = asyncio.CancelledError(*([] if self.message is None else [self.message]))
        super().set_exception(exception)


# The tasks in Python tell of themselves where those in C do, so that current_task() knows them.
for name in ("register_task", "register_eager_task", "unregister_task", "unregister_eager_task",
             "enter_task", "leave_task", "swap_current_task"):
    setattr(asyncio.tasks, "_py_" + name, getattr(asyncio.tasks, "_c_" + name))


class RememberingLoop(Loop):
    def __init__(self):
        super().__init__()
        self.set_task_factory(
            lambda loop, coroutine, **options: RememberingTask(coroutine, loop=loop, **options))

    def create_future(self):
        return RememberingFuture(loop=self)

    def run_forever(self):
        native = asyncio.tasks._GatheringFuture
        asyncio.tasks._GatheringFuture = RememberingGather
        try:
            super().run_forever()
        finally:
            asyncio.tasks._GatheringFuture = native


class InOrder(dict):
    """For the set of a TaskGroup's tasks: CPython cancels them in no particular order."""

    def add(self, task):
        self[task] = None

    def discard(self, task):
        self.pop(task, None)


def set_in_order(*futures):
    """For the set() of wait(): whether it looks at an exception may hang on the order."""
    return list(dict.fromkeys(*futures)) if futures else set()


asyncio.tasks.set = set_in_order


def is_task(future):
    return isinstance(future, (asyncio.Task, RememberingTask))


class Slot:
    """A future by which something is known."""

    def __init__(self, future=None, typed=True):
        self.future = future
        self.task = future if is_task(future) else None
        self.typed = future if typed else None  # None for that of a gather
        self.callbacks = []


class Env:
    def __init__(self, group=None, timeout=None):
        self.group, self.timeout = group, timeout


class Interpreter:
    def __init__(self, program, loop):
        self.program = program
        self.loop = loop
        self.lines = []
        self.unretrieved = []
        self.first_number = 0
        self.moments = set()
        self.end = None
        self.items = 0
        self.asked = 0
        semaphore, bounded, parties, room = program.numbers
        self.locks = [asyncio.Lock(), asyncio.Lock()]
        self.events = [asyncio.Event(), asyncio.Event()]
        self.condition = asyncio.Condition()
        self.semaphores = [asyncio.Semaphore(semaphore), asyncio.BoundedSemaphore(bounded)]
        self.barrier = asyncio.Barrier(parties)
        self.queues = [asyncio.Queue(room), asyncio.PriorityQueue(room), asyncio.LifoQueue(room)]
        self.vars = [contextvars.ContextVar("a", default=0), contextvars.ContextVar("b", default=0)]
        self.tokens = [None, None]
        self.in_context = contextvars.ContextVar("in_context", default=False)
        self.context = contextvars.copy_context()
        self.context.run(self.in_context.set, True)
        self.slots = [Slot() for _ in range(6)]
        self.kept = []  # what is not retrieved is reported in the end
        self.handles = [None] * 3
        self.generators = []
        self.generator_slots = [None, None]

    def run(self):
        self.loop.set_exception_handler(self.reported)
        self.arm_end_of_time()
        main = self.loop.create_task(self.task_body(self.program.children[0], None))
        self.first_number = int(main.get_name()[5:])
        main.add_done_callback(lambda _: self.loop.stop())
        self.run_loop()
        self.lines.append(f"main {self.status(Slot(main))}")
        del main
        self.cancel_all()
        closer = self.loop.create_task(self.close_generators())
        closer.add_done_callback(lambda _: self.loop.stop())
        self.run_loop()
        del closer
        self.cancel_all()

        self.end.cancel()
        self.loop.close()
        self.slots = self.handles = self.generators = self.generator_slots = self.kept = None
        gc.collect()
        log = self.lines
        if "left for ever" not in log:  # that may hold things
            log += [f"unretrieved {one}" for one in sorted(self.unretrieved)]
        self.log = self.run_body = None  # of what is left for ever, nothing more
        return log

    # --- The log ---

    def log(self, node, text):
        task = asyncio.current_task()
        who = self.number_of(task) if task is not None else "cb"
        self.lines.append(f"{self.loop.turn} {who} {node.id} {node.op}{' ' if text else ''}{text}")

    def number_of(self, task):
        return int(task.get_name()[5:]) - self.first_number

    def reported(self, loop, context):
        exception = describe(context["exception"]) if "exception" in context else "-"
        message = context["message"]
        if "never retrieved" in message:
            future = context["future"]
            who = self.number_of(future) if is_task(future) else "future"
            self.unretrieved.append(f"{who} {exception}")
        else:
            if "destroyed but it is pending" in message:
                return  # only by CPython: ours keeps a task until it has ended
            kind = "callback" if "callback" in message else message
            self.lines.append(f"{self.loop.turn} handler {kind} {exception}")

    # --- Time ---

    def moment(self, units):
        """That many units from now, but no time at which another timer ends."""
        when = self.loop.now + units * TICKS_PER_UNIT * TICK
        while when in self.moments:
            when += TICK
        self.moments.add(when)
        return when

    def delay(self, units):
        return self.moment(units) - self.loop.now if units > 0 else units * TICK

    def timer_or_none(self, units):
        return None if units == NO_TIME else self.moment(units) - self.loop.now

    def delay_or_none(self, units):
        return None if units == NO_TIME else self.delay(units)

    def point(self, units):
        return self.moment(units) if units > 0 else self.loop.now + units * TICK

    def arm_end_of_time(self):
        self.end = self.loop.call_later(50000.0, self.end_of_time)

    def end_of_time(self):
        self.lines.append(f"{self.loop.turn} deadlock")
        self.arm_end_of_time()
        self.loop.stop()

    # --- The run as a whole ---

    def run_loop(self):
        for _ in range(MOST_ROUNDS):
            try:
                self.loop.run_forever()
                return
            except SystemExit as error:
                self.lines.append(f"{self.loop.turn} escaped SystemExit({error.code})")

    def cancel_all(self):
        for _ in range(MOST_ROUNDS):
            tasks = sorted(asyncio.all_tasks(self.loop), key=self.number_of)
            if not tasks:
                return
            left = set(tasks)

            def one_less(task, left=left):  # those of this round
                left.discard(task)
                if not left:
                    self.loop.stop()

            names = ""
            for task in tasks:
                names += f" {self.number_of(task)}"
                task.cancel("end")
                task.add_done_callback(one_less)
            self.lines.append("left" + names)
            del tasks, task
            self.run_loop()
        self.lines.append("left for ever")

    async def close_generators(self):
        for generator in self.generators:
            try:
                await generator.aclose()
                text = ""
            except BaseException as error:
                text = describe(error)
            self.lines.append(f"{self.loop.turn} closed {text}")
        return ""

    # --- Bodies ---

    async def run_body(self, body, env):
        for statement in body.children:
            if await self.execute(statement, env):
                return True
        return False

    async def execute(self, node, env):
        try:
            asynchronous = getattr(self, "start_" + node.op, None)
            if asynchronous is not None:
                text, returned = await asynchronous(node, env)
            else:
                text, returned = self.act(node, env), False
        except BaseException as error:
            self.log(node, "!" + describe(error))
            raise
        self.log(node, text)
        return returned

    def act_all(self, body):
        for node in body.children:
            try:
                text = self.act(node, Env())
            except BaseException as error:
                self.log(node, "!" + describe(error))
                raise
            self.log(node, text)

    async def task_body(self, body, group):
        self.log(body, "begins")
        returned = await self.run_body(body, Env(group))
        return f"{'v' if returned else 'r'}{body.id}"

    async def generator_body(self, node):
        items, last = node.children
        try:
            for statement in items.children:
                if statement.op == "yield":
                    yield f"y{statement.id}"
                    self.log(statement, "goes on")
                elif await self.execute(statement, Env()):
                    break
        finally:
            self.log(last, "finally")
            await self.run_body(last, Env())

    # --- Parts ---

    def put(self, slot, future, typed=True):
        self.kept.append(future)
        self.slots[slot] = Slot(future, typed)

    def status(self, slot):
        future = slot.future
        if not future.done():
            text = "pending"
        elif future.cancelled():
            text = "cancelled"
        elif future.exception() is not None:
            text = "!" + describe(future.exception())
        else:
            text = text_of(future.result())
        if slot.task is not None:
            text += f" {slot.task.cancelling()}"
        return text

    def create_task(self, body, mode=0):
        options = {}
        # CPython's eager task that cannot enter its context stays the current one (3.14.10).
        if mode == 3 and self.in_context.get():
            mode = 1
        if mode in (1, 3):
            options["eager_start"] = True
        if mode in (2, 3):
            options["context"] = self.context
        return asyncio.create_task(self.task_body(body, None), **options)

    def elements(self, node):
        """Slots that hold nothing, or a gather's future, are left out."""
        all = []
        for child in node.children:
            if child.op == "coro":
                all.append(self.task_body(child.children[0], None))
            elif child.op == "task":
                all.append(self.create_task(child.children[0]))
            elif (future := self.slots[child.numbers[0]].typed) is not None:
                all.append(future)
        return all

    @staticmethod
    def make_all_futures(all):
        for i, one in enumerate(all):
            if not asyncio.isfuture(one):
                all[i] = asyncio.create_task(one)

    @staticmethod
    def drop_done_but_first(all):
        """as_completed() gives those that are done already in no particular order."""
        first = next((i for i, future in enumerate(all) if future.done()), None)
        return [future for i, future in enumerate(all) if not future.done() or i == first]

    def gather(self, node, exceptions):
        all = self.elements(node)
        if len(all) > 2 and any(map(asyncio.isfuture, all)):  # in C++ a range is of one type
            self.make_all_futures(all)
        outer = asyncio.gather(*all, return_exceptions=exceptions)
        if isinstance(outer, RememberingGather):
            outer.return_exceptions = exceptions
        return outer

    def shield(self, what):
        if what.op == "coro":
            return asyncio.shield(self.task_body(what.children[0], None))
        if what.op == "task":
            return asyncio.shield(self.create_task(what.children[0]))
        future = self.slots[what.numbers[0]].typed
        return asyncio.shield(future) if future is not None else None

    def next_item(self):
        self.items += 1
        return (self.items - 1) * 7 % 10

    # --- Statements that do not suspend ---

    def act(self, node, env):
        return getattr(self, "act_" + node.op)(node, env) or ""

    def act_spawn(self, node, env):
        slot, mode = node.numbers
        self.put(slot, self.create_task(node.children[0], mode))

    def act_group_spawn(self, node, env):
        if env.group is None:
            return "-"
        self.put(node.numbers[0], env.group.create_task(self.task_body(node.children[0], env.group)))

    def act_future(self, node, env):
        self.put(node.numbers[0], self.loop.create_future())

    def act_gather_to(self, node, env):
        self.put(node.numbers[0], self.gather(node, node.numbers[1] != 0), typed=False)

    def act_shield_to(self, node, env):
        future = self.shield(node.children[0])
        if future is None:
            return "-"
        self.put(node.numbers[0], future)
        self.slots[node.numbers[0]].task = None  # known as a future, also if it is a task

    def act_set_result(self, node, env):
        future = self.slots[node.numbers[0]].typed
        if future is None:
            return "-"
        future.set_result(f"f{node.id}")

    def act_set_exception(self, node, env):
        future = self.slots[node.numbers[0]].typed
        if future is None:
            return "-"
        future.set_exception(make_exception(node.numbers[1], node.id))

    def act_cancel(self, node, env):
        slot = self.slots[node.numbers[0]]
        if slot.future is None:
            return "-"
        can = slot.future.cancel(str(node.id)) if node.numbers[1] else slot.future.cancel()
        return f"{can:d}" + (f" {slot.task.cancelling()}" if slot.task is not None else "")

    def act_cancel_self(self, node, env):
        task = asyncio.current_task()
        if task is None:
            return "-"
        return f"{task.cancel(str(node.id)):d} {task.cancelling()}"

    def act_uncancel(self, node, env):
        task = self.slots[node.numbers[0]].task
        return str(task.uncancel()) if task is not None else "-"

    def act_uncancel_self(self, node, env):
        task = asyncio.current_task()
        return str(task.uncancel()) if task is not None else "-"

    def act_status(self, node, env):
        slot = self.slots[node.numbers[0]]
        return self.status(slot) if slot.future is not None else "-"

    def act_add_callback(self, node, env):
        slot = self.slots[node.numbers[0]]
        if slot.future is None:
            return "-"

        def called(future):
            self.log(node, "called " + ("cancelled" if future.cancelled() else "done"))
            self.act_all(node.children[0])

        slot.future.add_done_callback(called)
        slot.callbacks.append(called)

    def act_remove_callback(self, node, env):
        slot = self.slots[node.numbers[0]]
        if not slot.callbacks:
            return "-"
        return str(slot.future.remove_done_callback(slot.callbacks.pop()))

    def callback(self, node):
        def called():
            self.log(node, "called")
            self.act_all(node.children[0])

        return called

    def act_call_soon(self, node, env):
        self.handles[node.numbers[0]] = self.loop.call_soon(self.callback(node))

    def act_call_later(self, node, env):
        delay = self.timer_or_none(node.numbers[1])
        self.handles[node.numbers[0]] = self.loop.call_later(delay, self.callback(node))

    def act_call_at(self, node, env):
        when = self.moment(node.numbers[1])
        self.handles[node.numbers[0]] = self.loop.call_at(when, self.callback(node))

    def act_cancel_handle(self, node, env):
        handle = self.handles[node.numbers[0]]
        if handle is not None:
            handle.cancel()

    def act_raise(self, node, env):
        raise make_exception(node.numbers[0], node.id)

    def act_set_var(self, node, env):
        self.tokens[node.numbers[0]] = self.vars[node.numbers[0]].set(node.id)

    def act_get_var(self, node, env):
        return str(self.vars[node.numbers[0]].get())

    def act_reset_var(self, node, env):
        token = self.tokens[node.numbers[0]]
        if token is None:
            return "-"
        self.vars[node.numbers[0]].reset(token)

    def act_run_in_context(self, node, env):
        self.context.run(self.act_all, node.children[0])

    def act_reschedule(self, node, env):
        if env.timeout is None:
            return "-"
        units = node.numbers[0]
        env.timeout.reschedule(None if units == NO_TIME else self.point(units))

    def act_expired(self, node, env):
        if env.timeout is None:
            return "-"
        when = env.timeout.when()
        ticks = "None" if when is None else int((when - 1000.0) / TICK)
        return f"{env.timeout.expired():d} {ticks}"

    def act_generator(self, node, env):
        generator = self.generator_body(node)
        self.generators.append(generator)
        self.generator_slots[node.numbers[0]] = generator

    def act_release(self, node, env):
        self.locks[node.numbers[0]].release()

    def act_locked(self, node, env):
        states = [one.locked() for one in (*self.locks, self.condition, *self.semaphores)]
        return "".join(f"{one:d}" for one in (*states, *(one.is_set() for one in self.events)))

    def act_event_set(self, node, env):
        self.events[node.numbers[0]].set()

    def act_event_clear(self, node, env):
        self.events[node.numbers[0]].clear()

    def act_cond_release(self, node, env):
        self.condition.release()

    def act_notify(self, node, env):
        self.condition.notify(node.numbers[0])

    def act_notify_all(self, node, env):
        self.condition.notify_all()

    def act_sem_release(self, node, env):
        self.semaphores[node.numbers[0]].release()

    def act_barrier_state(self, node, env):
        return f"{self.barrier.n_waiting} {self.barrier.broken:d}"

    def act_put_nowait(self, node, env):
        self.queues[node.numbers[0]].put_nowait(self.next_item())

    def act_get_nowait(self, node, env):
        return str(self.queues[node.numbers[0]].get_nowait())

    def act_task_done(self, node, env):
        self.queues[node.numbers[0]].task_done()

    def act_shutdown(self, node, env):
        self.queues[node.numbers[0]].shutdown(immediate=node.numbers[1] != 0)

    def act_queue_state(self, node, env):
        queue = self.queues[node.numbers[0]]
        return f"{queue.qsize()} {queue.empty():d}{queue.full():d}"

    # --- Statements that may suspend: the text, and whether the body returns ---

    async def start_sleep(self, node, env):
        await asyncio.sleep(self.delay(node.numbers[0]))
        return "", False

    async def start_await(self, node, env):
        future = self.slots[node.numbers[0]].future
        if future is None or future is asyncio.current_task():
            return "-", False
        return text_of(await future), False

    async def start_gather(self, node, env):
        outer = self.gather(node, node.numbers[0] != 0)
        self.kept.append(outer)
        return text_of(await outer), False

    async def start_wait(self, node, env):
        futures = []
        for child in node.children:
            if child.op == "task":
                futures.append(self.create_task(child.children[0]))
            elif (future := self.slots[child.numbers[0]].future) is not None:
                futures.append(future)
        when = (asyncio.FIRST_COMPLETED, asyncio.FIRST_EXCEPTION, asyncio.ALL_COMPLETED)[node.numbers[0]]
        timeout = self.timer_or_none(node.numbers[1])
        try:
            done, pending = await asyncio.wait(futures, return_when=when, timeout=timeout)
        finally:
            # CPython's wait() for the first exception may look at one yet when it has ended.
            for future in futures:
                if future.done() and not future.cancelled():
                    future.exception()

        def places(some):
            return "".join(str(i) for i, future in enumerate(futures) if future in some)

        return f"done {places(done)} pending {places(pending)}", False

    async def start_wait_for(self, node, env):
        what = node.children[0]
        limit = self.delay_or_none(node.numbers[0])
        if what.op == "coro":
            value = await asyncio.wait_for(self.task_body(what.children[0], None), limit)
        elif what.op == "sleeping":
            value = await asyncio.wait_for(
                asyncio.sleep(self.delay(what.numbers[0]), "slept"), limit)
        elif what.op == "task":
            value = await asyncio.wait_for(self.create_task(what.children[0]), limit)
        else:
            future = self.slots[what.numbers[0]].typed
            # After a task that awaits itself, CPython lets nobody else await it (3.14.10).
            if future is None or future is asyncio.current_task():
                return "-", False
            value = await asyncio.wait_for(future, limit)
        return value, False

    async def start_timeout(self, node, env):
        async with asyncio.timeout(self.delay_or_none(node.numbers[0])) as timeout:
            returned = await self.run_body(node.children[0], Env(env.group, timeout))
        return "", returned

    async def start_timeout_at(self, node, env):
        async with asyncio.timeout_at(self.point(node.numbers[0])) as timeout:
            returned = await self.run_body(node.children[0], Env(env.group, timeout))
        return "", returned

    async def start_group(self, node, env):
        group = asyncio.TaskGroup()
        group._tasks = InOrder()
        async with group:
            returned = await self.run_body(node.children[0], Env(group, env.timeout))
        return "", returned

    async def start_shield(self, node, env):
        future = self.shield(node.children[0])
        if future is None:
            return "-", False
        self.kept.append(future)
        return await future, False

    async def start_as_completed(self, node, env):
        all = self.elements(node)
        limit = self.timer_or_none(node.numbers[0])
        given = []
        if len(all) != 1 or asyncio.isfuture(all[0]):
            self.make_all_futures(all)
            given = all = self.drop_done_but_first(all)
        async for future in asyncio.as_completed(all, timeout=limit):
            place = given.index(future) if future in given else 0
            slot = Slot(future)
            slot.task = None
            self.log(node, f"gives {place} {self.status(slot)}")
        return "", False

    async def start_return(self, node, env):
        return "", True

    async def start_try(self, node, env):
        try:
            return "", await self.run_body(node.children[0], env)
        except BaseException as error:
            if not catches(node.numbers[0], error):
                raise
            returned = await self.run_body(node.children[1], env)
            if node.numbers[1]:
                raise
            return f"caught {describe(error)}", returned

    async def start_finally(self, node, env):
        try:
            returned = await self.run_body(node.children[0], env)
        finally:
            await self.run_body(node.children[1], env)
        return "", returned

    async def start_repeat(self, node, env):
        for _ in range(node.numbers[0]):
            if await self.run_body(node.children[0], env):
                return "", True
        return "", False

    async def start_next(self, node, env):
        generator = self.generator_slots[node.numbers[0]]
        if generator is None:
            return "-", False
        try:
            return await anext(generator), False
        except StopAsyncIteration:
            return "end", False

    async def start_aclose(self, node, env):
        generator = self.generator_slots[node.numbers[0]]
        if generator is None:
            return "-", False
        await generator.aclose()
        return "", False

    async def start_for_each(self, node, env):
        slot, count = node.numbers
        generator = self.generator_slots[slot]
        if generator is None:
            return "-", False
        returned = False
        for _ in range(count):
            try:
                value = await anext(generator)
            except StopAsyncIteration:
                return "end", False
            self.log(node, value)
            returned = await self.run_body(node.children[0], env)
            if returned:
                break
        await generator.aclose()
        return "closed", returned

    async def start_acquire(self, node, env):
        await self.locks[node.numbers[0]].acquire()
        return "", False

    async def hold(self, primitive, node, env):
        async with primitive:
            self.log(node, "entered")
            returned = await self.run_body(node.children[0], env)
        return "", returned

    async def start_with_lock(self, node, env):
        return await self.hold(self.locks[node.numbers[0]], node, env)

    async def start_with_cond(self, node, env):
        return await self.hold(self.condition, node, env)

    async def start_with_sem(self, node, env):
        return await self.hold(self.semaphores[node.numbers[0]], node, env)

    async def start_event_wait(self, node, env):
        await self.events[node.numbers[0]].wait()
        return "", False

    async def start_cond_acquire(self, node, env):
        await self.condition.acquire()
        return "", False

    async def start_cond_wait(self, node, env):
        await self.condition.wait()
        return "", False

    async def start_cond_wait_for(self, node, env):
        def predicate():
            self.asked += 1
            return self.asked % node.numbers[0] == 0

        await self.condition.wait_for(predicate)
        return "", False

    async def start_sem_acquire(self, node, env):
        await self.semaphores[node.numbers[0]].acquire()
        return "", False

    async def start_barrier_wait(self, node, env):
        return str(await self.barrier.wait()), False

    async def start_barrier_reset(self, node, env):
        await self.barrier.reset()
        return "", False

    async def start_barrier_abort(self, node, env):
        await self.barrier.abort()
        return "", False

    async def start_put(self, node, env):
        item = self.next_item()
        await self.queues[node.numbers[0]].put(item)
        return str(item), False

    async def start_get(self, node, env):
        return str(await self.queues[node.numbers[0]].get()), False

    async def start_join(self, node, env):
        await self.queues[node.numbers[0]].join()
        return "", False


class Ring(Exception):
    """Futures of the program wait for each other in a ring: cancelling one exhausts CPython's stack,
    where ours breaks the ring open."""


def run(program, loop=RememberingLoop):
    """The log. With loop=Loop, CPython's tasks in C."""
    gc.disable()
    runs = loop()
    try:
        lines = Interpreter(program, runs).run()
        if not any("RecursionError" in line for line in lines):
            return lines
    except RecursionError:
        pass
    asyncio._set_running_loop(runs)  # no task runs any more
    asyncio.tasks._swap_current_task(runs, None)
    asyncio._set_running_loop(None)
    raise Ring
