#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The oracle of tests/random_locks.cpp: random programs of locks and queues on CPython's asyncio.

    python3.13 tests/support/random_locks.py            the golden hashes, to be put into the test
    python3.13 tests/support/random_locks.py THEME N    the trace of one program

The C++ test makes the same programs from the same numbers. Needs Python 3.13 or newer.
"""

import asyncio
import sys

# What the tasks do, and what the main task does meanwhile so that they come out again.
THEMES = {
    "lock": ("yacrkaryl", "ry"),
    "semaphore": ("ysqSQsqyl", "qQy"),
    "event": ("ywwexw", "exy"),
    "condition": ("yAAwRnWNARWWV", "RnNy"),
    "barrier": ("ybbbbz!", "yyyyyyyz"),
    "queue": ("yggpPGtjgpg", "PGt"),
    "shutdown": ("yggppPGtjhH", "PGt"),
    "mixed": ("yarsqwexAWRnNbzgpPGtj", "rqeRNPGt"),
}
PROGRAMS = 200
TASKS = 5
STEPS = 10
TURNS = 40


class Random:
    def __init__(self, seed):
        self.x = seed & (2**64 - 1)

    def below(self, n):
        self.x = (self.x * 6364136223846793005 + 1442695040888963407) & (2**64 - 1)
        return (self.x >> 33) % n


class Loop(asyncio.SelectorEventLoop):
    turn = 0

    def _run_once(self):
        self.turn += 1
        super()._run_once()


class Program:
    def __init__(self, theme, number):
        self.random = Random(number * 1000 + len(theme))
        self.lines = []
        self.tasks = []
        self.cancels = 0
        self.stopping = False
        self.lock = asyncio.Lock()
        self.semaphore = asyncio.Semaphore(1)
        self.bounded = asyncio.BoundedSemaphore(2)
        self.event = asyncio.Event()
        self.condition = asyncio.Condition()
        self.barrier = asyncio.Barrier(3)
        self.queue = asyncio.Queue(1 + self.random.below(2))
        self.asked = 0
        steps, self.helps = THEMES[theme]
        self.plans = []
        for _ in range(TASKS):
            plan = []
            for _ in range(STEPS):
                kind = self.random.below(5)
                step = "cCuY"[self.random.below(4)] if kind == 0 else steps[self.random.below(len(steps))]
                plan.append((step, self.random.below(TASKS)))
            self.plans.append(plan)

    def log(self, who, text):
        turn = asyncio.get_running_loop().turn
        self.lines.append(f"{turn}{who}{text}")

    def predicate(self):
        self.asked += 1
        return self.asked % 3 == 0

    async def step(self, who, step, n):
        """Gives what is logged."""
        if step == "y":
            await asyncio.sleep(0)
        elif step == "Y":
            for _ in range(n + 1):
                await asyncio.sleep(0)
        elif step in "cC":  # once, or twice
            task = self.tasks[n]
            for _ in range(1 + (step == "C")):
                self.cancels += 1
                task.cancel(f"m{self.cancels}")
            return f"{n}{task.cancelling()}"
        elif step == "u":
            return str(asyncio.current_task().uncancel())
        elif step == "a":
            await self.lock.acquire()
        elif step == "r":
            self.lock.release()
        elif step == "l":
            return (f"{self.lock.locked():d}{self.semaphore.locked():d}{self.bounded.locked():d}")
        elif step == "s":
            await self.semaphore.acquire()
        elif step == "q":
            self.semaphore.release()
        elif step == "S":
            await self.bounded.acquire()
        elif step == "Q":
            self.bounded.release()
        elif step == "w":
            await self.event.wait()
        elif step == "e":
            self.event.set()
        elif step == "x":
            self.event.clear()
        elif step == "A":
            await self.condition.acquire()
        elif step == "R":
            self.condition.release()
        elif step == "k":  # held over some turns
            async with self.lock:
                for _ in range(n):
                    await asyncio.sleep(0)
        elif step == "W":
            await self.condition.wait()
        elif step == "V":
            await self.condition.wait_for(self.predicate)
        elif step == "n":
            self.condition.notify(n)
        elif step == "N":
            self.condition.notify_all()
        elif step == "b":
            return str(await self.barrier.wait())
        elif step == "z":
            await self.barrier.reset()
        elif step == "!":
            await self.barrier.abort()
        elif step == "p":
            await self.queue.put(who * 10 + n)
        elif step == "P":
            self.queue.put_nowait(who * 10 + n)
        elif step == "g":
            return str(await self.queue.get())
        elif step == "G":
            return str(self.queue.get_nowait())
        elif step == "t":
            self.queue.task_done()
        elif step == "j":
            await self.queue.join()
        elif step == "h":
            self.queue.shutdown()
        elif step == "H":
            self.queue.shutdown(immediate=True)
        return ""

    async def take(self, who, step, n):
        try:
            return step + await self.step(who, step, n)
        except asyncio.CancelledError as error:
            return step + "-" + (error.args[0] if error.args else "")
        except asyncio.BrokenBarrierError:
            return step + "B"
        except RuntimeError:
            return step + "R"
        except ValueError:
            return step + "V"
        except asyncio.QueueEmpty:
            return step + "E"
        except asyncio.QueueFull:
            return step + "F"
        except asyncio.QueueShutDown:
            return step + "D"

    async def worker(self, who):
        for step, n in self.plans[who]:
            result = await self.take(who, step, n)
            if self.stopping:
                return
            self.log(who, result)
        self.log(who, ".")

    async def main(self):
        self.tasks = [asyncio.create_task(self.worker(who)) for who in range(TASKS)]
        for _ in range(TURNS):
            await asyncio.sleep(0)
            help = self.helps[self.random.below(len(self.helps))]
            self.log("*", await self.take(0, help, 1))
        self.log("=", "".join(str(int(task.done())) for task in self.tasks)
                 + f"{self.lock.locked():d}{self.semaphore.locked():d}{self.bounded.locked():d}"
                 + f"{self.event.is_set():d}{self.condition.locked():d}{self.barrier.n_waiting}"
                 + f"{self.barrier.broken:d}{self.queue.qsize()}")
        self.stopping = True
        for _ in range(5):
            for task in self.tasks:
                task.cancel()
            await asyncio.sleep(0)


def trace(theme, number):
    loop = Loop()
    loop.set_exception_handler(lambda loop, context: None)
    program = Program(theme, number)
    loop.run_until_complete(program.main())
    loop.close()
    return " ".join(program.lines)


def hash_of(text):
    value = 14695981039346656037
    for c in text.encode():
        value = ((value ^ c) * 1099511628211) & (2**64 - 1)
    return value


if __name__ == "__main__":
    if len(sys.argv) > 2:
        print(trace(sys.argv[1], int(sys.argv[2])))
    else:
        for theme in THEMES:
            value = 0
            print(f"// {theme}")
            for number in range(PROGRAMS):
                print(f"0x{hash_of(trace(theme, number)) >> 32:08x},", end="\n" if number % 8 == 7 else " ")
