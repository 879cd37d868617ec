# SPDX-License-Identifier: MIT
"""The rows on CPython's own asyncio, under the names of ours.cpp: what a user of it would write.

There is nothing like CPython's cost in the other programs, so it does fewer operations for each
figure; a figure is what one of them takes.
"""
import asyncio
import contextvars
import os
import platform
import random
import socket
import statistics
import sys
import threading
import time

QUICK = "--quick" in sys.argv


def scaled(count):
    return max(count // 10, 1) if QUICK else count


def cpu_ns():
    return time.clock_gettime_ns(time.CLOCK_PROCESS_CPUTIME_ID)


def resident_bytes():
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def report(value, unit, raw=()):
    raw = ",".join(f"{each:.6g}" for each in raw or [value])
    print(
        f'{{"name":"{sys.argv[1]}","side":"cpython","compiler":"CPython {platform.python_version()}",'
        f'"quick":{str(QUICK).lower()},"value":{value:.6g},"unit":"{unit}","raw":[{raw}]}}',
        flush=True,
    )


def report_ns(samples):
    """The first sample warmed up."""
    report(statistics.median(samples[1:]), "ns", samples[1:])


# ---- Sleeping tasks


async def nap(_):
    await asyncio.sleep(10)


async def sleep_in_bulk(count):
    tasks = [None] * count
    before = resident_bytes()
    for i in range(count):
        tasks[i] = asyncio.create_task(nap(i))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    report((resident_bytes() - before) / count, "B")
    os._exit(0)


def bytes_task():
    asyncio.run(sleep_in_bulk(scaled(1_000_000)))


async def short_nap():
    await asyncio.sleep(0.01)


async def spawn_fire_join(count):
    tasks = [asyncio.create_task(short_nap()) for _ in range(count)]
    for task in tasks:
        await task


def sleepers_cpu():
    count = scaled(200_000)
    began = cpu_ns()
    asyncio.run(spawn_fire_join(count))
    report((cpu_ns() - began) * 1e-9 * 1_000_000 / count, "s")


# ---- Cancelling


async def deep_nap(further_frames):
    if further_frames == 0:
        await asyncio.sleep(1000)
    else:
        await deep_nap(further_frames - 1)


async def cancel_all(count, further_frames):
    tasks = [asyncio.create_task(deep_nap(further_frames)) for _ in range(count)]
    await asyncio.sleep(0)
    began = cpu_ns()
    for task in tasks:
        task.cancel()
    while not tasks[-1].done():
        await asyncio.sleep(0)
    return (cpu_ns() - began) * 1e-3 / count


def cancel_asleep():
    report(asyncio.run(cancel_all(scaled(100_000), 0)), "us")


def cancel_frame():
    count = scaled(20_000)
    shallow = asyncio.run(cancel_all(count, 0))
    report((asyncio.run(cancel_all(count, 8)) - shallow) / 8, "us")


# ---- Yield


def yields(count, times, with_socket=False, with_timer=False):
    async def others(stop):
        while not stop:
            await asyncio.sleep(0)

    async def main():
        loop = asyncio.get_running_loop()
        ends = socket.socketpair()
        if with_socket:
            loop.add_reader(ends[0], lambda: None)
        if with_timer:
            loop.call_later(3600, lambda: None)
        stop = []
        tasks = [asyncio.create_task(others(stop)) for _ in range(count - 1)]
        samples = []
        for _ in range(4):
            began = cpu_ns()
            for _ in range(times):
                await asyncio.sleep(0)
            samples.append((cpu_ns() - began) / (times * count))
        stop.append(True)
        for task in tasks:
            await task
        report_ns(samples)

    asyncio.run(main())


# ---- Tasks and children


async def nothing():
    pass


def batches(batch, count, prepare=lambda: None):
    async def main():
        prepare()
        samples = []
        for _ in range(4):
            began = cpu_ns()
            await batch(count)
            samples.append((cpu_ns() - began) / count)
        report_ns(samples)

    asyncio.run(main())


async def create_and_await(count):
    for _ in range(count):
        await asyncio.create_task(nothing())


async def create_dressed_and_await(count):
    for _ in range(count):
        await asyncio.create_task(nothing(), name="x")


async def await_children(count):
    for _ in range(count):
        await nothing()


variable = contextvars.ContextVar("variable")

# ---- Locks, events and queues


def handover(make):
    async def pairs(count):
        async def hand_over(me):
            nonlocal last
            for _ in range(count // 2):
                async with primitive:
                    if last == me:
                        raise RuntimeError("nobody was waiting")
                    last = me

        primitive, last = make(), -1
        async with primitive:
            tasks = [asyncio.create_task(hand_over(me)) for me in range(2)]
            await asyncio.sleep(0)
        for task in tasks:
            await task

    batches(pairs, scaled(100_000))


async def answer(mine, other, times):
    for _ in range(times):
        await mine.wait()
        mine.clear()
        other.set()


async def wake_each_other(count):
    ping, pong = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(answer(pong, ping, count // 2))
    ping.set()
    await answer(ping, pong, count // 2)
    await task


def event_wake_10k(times, waiting=10_000):
    async def wait_again(event, stop):
        nonlocal woken
        while not stop:
            await event.wait()
            woken += 1

    async def main():
        event, stop = asyncio.Event(), []
        tasks = [asyncio.create_task(wait_again(event, stop)) for _ in range(waiting)]
        await asyncio.sleep(0)
        samples = []
        for _ in range(4):
            before = woken
            began = cpu_ns()
            for _ in range(times):
                event.set()
                event.clear()
                await asyncio.sleep(0)
            samples.append((cpu_ns() - began) / (times * waiting))
            if woken != before + times * waiting:
                raise RuntimeError("not all have waited again")
        stop.append(True)
        event.set()
        for task in tasks:
            await task
        report_ns(samples)

    woken = 0
    asyncio.run(main())


def queue(maxsize):
    async def produce(queue, count):
        for _ in range(count):
            await queue.put(1)

    async def pass_messages(count):
        queue = asyncio.Queue(maxsize)
        producer = asyncio.create_task(produce(queue, count))
        for _ in range(count):
            await queue.get()
        await producer

    batches(pass_messages, scaled(100_000))


# ---- Limits and groups


async def limit_many(count):
    for _ in range(count):
        async with asyncio.timeout(10):
            await asyncio.sleep(0)


async def wait_for_many(count):
    for _ in range(count):
        await asyncio.wait_for(asyncio.sleep(0), 10)


async def run_groups(count):
    for _ in range(count // 1000):
        async with asyncio.TaskGroup() as group:
            for _ in range(1000):
                group.create_task(nothing())


async def gather_many(count):
    for _ in range(count // 1000):
        await asyncio.gather(*(nothing() for _ in range(1000)))


# ---- Timers


def resident_timers(count):
    loop = asyncio.new_event_loop()
    last = loop.time() + 3660
    return loop, last, [loop.call_at(last - random.random() * 60, int) for _ in range(count)]


def timer_hot(relative):
    # A cancelled timer stays in the heap until the loop runs and finds that most are such: it runs
    # once in a hundred.
    loop, when, _ = resident_timers(1000)
    count = scaled(100_000)
    samples = []
    for _ in range(4):
        began = cpu_ns()
        for i in range(count):
            when += 1e-9
            handle = loop.call_later(7200, int) if relative else loop.call_at(when, int)
            handle.cancel()
            if i % 100 == 99:
                loop.call_soon(loop.stop)
                loop.run_forever()
        samples.append((cpu_ns() - began) / count)
    report_ns(samples)


def timer_1m():
    loop, when, handles = resident_timers(scaled(1_000_000))
    began = cpu_ns()
    for i, handle in enumerate(handles):
        handle.cancel()
        when += 1e-9
        handles[i] = loop.call_at(when, int)
    loop.call_soon(loop.stop)
    loop.run_forever()
    report((cpu_ns() - began) / len(handles), "ns")


# ---- The door for other threads


def threadsafe_awake():
    async def main():
        loop = asyncio.get_running_loop()
        count, burst = scaled(50_000), 250
        ran = 0

        def run():
            nonlocal ran
            ran += 1

        samples = []
        for _ in range(4):
            began = cpu_ns()
            for _ in range(count // burst):
                ran = 0
                for _ in range(burst):
                    loop.call_soon_threadsafe(run)
                while ran < burst:
                    await asyncio.sleep(0)
            samples.append((cpu_ns() - began) / count)
        report_ns(samples)

    asyncio.run(main())


def knock(count):
    loop = asyncio.new_event_loop()
    took = []

    def knocker():
        for _ in range(count):
            heard = threading.Event()
            time.sleep(0.002)  # by then the loop is asleep
            began = time.monotonic_ns()
            loop.call_soon_threadsafe(heard.set)
            took.append(time.monotonic_ns() - began)
            heard.wait()
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=knocker)
    thread.start()
    loop.run_forever()
    thread.join()
    report(statistics.median(took), "ns")


ROWS = {
    "bytes_task": bytes_task,
    "sleepers_cpu": sleepers_cpu,
    "cancel_asleep": cancel_asleep,
    "cancel_frame": cancel_frame,
    "yield_1": lambda: yields(1, scaled(100_000)),
    "yield_100": lambda: yields(100, scaled(2000)),
    "yield_100k": lambda: yields(100_000, 3),
    "yield_1_timer": lambda: yields(1, scaled(100_000), with_timer=True),
    "yield_1_socket": lambda: yields(1, scaled(100_000), with_socket=True),
    "yield_100_socket": lambda: yields(100, scaled(2000), with_socket=True),
    "yield_1_socket_timer": lambda: yields(1, scaled(100_000), True, True),
    "yield_100_socket_timer": lambda: yields(100, scaled(2000), True, True),
    "create_await": lambda: batches(create_and_await, scaled(50_000)),
    "create_await_dressed": lambda: batches(
        create_dressed_and_await, scaled(50_000), lambda: variable.set(1)
    ),
    "child_await": lambda: batches(await_children, scaled(500_000)),
    "lock_handover": lambda: handover(asyncio.Lock),
    "semaphore_handover": lambda: handover(asyncio.Semaphore),
    "event_wake_1": lambda: batches(wake_each_other, scaled(100_000)),
    "event_wake_10k": lambda: event_wake_10k(scaled(20)),
    "queue_1024": lambda: queue(1024),
    "queue_1": lambda: queue(1),
    "timeout_unexpired": lambda: batches(limit_many, scaled(50_000)),
    "wait_for_unexpired": lambda: batches(wait_for_many, scaled(50_000)),
    "task_group_1000": lambda: batches(run_groups, scaled(50_000)),
    "gather_1000": lambda: batches(gather_many, scaled(50_000)),
    "timer_hot": lambda: timer_hot(False),
    "timer_hot_relative": lambda: timer_hot(True),
    "timer_1m": timer_1m,
    "threadsafe_awake": threadsafe_awake,
    "threadsafe_asleep": lambda: knock(scaled(500)),
}


async def first_callback():
    os.write(1, time.monotonic_ns().to_bytes(8, sys.byteorder))


if sys.argv[1:2] == ["--list"]:
    print("\n".join(ROWS))
elif sys.argv[1:2] == ["--first-callback"]:
    asyncio.run(first_callback())
elif sys.argv[1:2] and sys.argv[1] in ROWS:
    ROWS[sys.argv[1]]()
else:
    sys.exit(f"usage: {sys.argv[0]} ROW [--quick] | --list | --first-callback")
