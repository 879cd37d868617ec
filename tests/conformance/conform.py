#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Holds the library against CPython's asyncio: the same random programs on both, log against log.

    conform.py PROGRAM --seed N --count M     compare; the first difference is shrunk and printed
    conform.py PROGRAM --text "(program ...)" the logs of one program, side by side
    conform.py PROGRAM --record FILE          write the golden traces that CI compares with

PROGRAM is asyncio_conformance, the C++ side. `./dev conform` builds it, finds a CPython 3.14 to run
this with, and passes the rest on. See README.md.
"""

import argparse
import difflib
import gc
import itertools
import os
import re
import subprocess
import sys
import time

import oracle
import source
from oracle import Node, parse

ORACLE = (3, 14)
GOLDEN_COUNT = 2000


class Ours:
    """The C++ side, as a process that runs what it is given."""

    def __init__(self, program, *arguments):
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONHOME"}
        self.process = subprocess.Popen([program, *arguments], stdin=subprocess.PIPE, text=True,
                                        stdout=subprocess.PIPE, env=environment)

    def read_log(self):
        """None when it has died."""
        lines = []
        for line in self.process.stdout:
            if line == ".\n":
                return lines
            lines.append(line[:-1])
        return None

    def run(self, text):
        try:
            self.process.stdin.write(text + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return None
        return self.read_log()


def without_messages(lines):
    return [re.sub(r"CancelledError\([^()]*\)", "CancelledError()", line) for line in lines]


def theirs(text):
    """The log of CPython; None of a ring. Twice: with CPython's own tasks, in C, where only the
    message of a CancelledError may differ from that with tasks that remember it."""
    try:
        native = oracle.run(parse(text), oracle.Loop)
        remembering = oracle.run(parse(text))
    except oracle.Ring:
        return None
    if without_messages(native) != without_messages(remembering):
        sys.exit(f"CPython's tasks in C and in Python differ:\n{text}\n" +
                 "\n".join(difflib.unified_diff(remembering, native, "Python", "C", lineterm="")))
    return remembering


# --- Shrinking ------------------------------------------------------------------------------------

def nodes_of(node):
    yield node
    for child in node.children:
        yield from nodes_of(child)


def smaller(program):
    """Programs that are a little smaller, the boldest first."""
    for node in list(nodes_of(program)):
        if node.op == "do" or node.op in ("gather", "gather_to", "wait", "as_completed"):
            old = node.children
            size = len(old)
            while size > 0:
                for at in range(0, len(old) - size + 1, size):
                    node.children = old[:at] + old[at + size:]
                    yield
                size //= 2
            node.children = old
        if node.op == "do":
            old = node.children
            for i, child in enumerate(old):
                for body in child.children:  # in place of a statement, what stands in it
                    if body.op == "do":
                        inner = [one for one in body.children if one.op != "yield"]
                        node.children = old[:i] + inner + old[i + 1:]
                        yield
            node.children = old
        for i, child in enumerate(node.children):
            if child.op in ("coro", "task") and node.op != "program":
                old = child
                for slot in range(2):
                    node.children[i] = Node("slot", [slot], [])
                    yield
                node.children[i] = old
        for i, number in enumerate(node.numbers):
            for less in (0, 1, 2):
                if node.op == "program" or (less == 0 and node.op == "cond_wait_for"):
                    continue
                if less < number or number < 0:
                    node.numbers[i] = less
                    yield
            node.numbers[i] = number


def shrink(text, differs):
    """A program of which no part can be left out without the difference."""
    again = True
    while again:
        again = False
        program = parse(text)
        for _ in smaller(program):
            shorter = str(program)
            if len(shorter) <= len(text) and shorter != text and differs(shorter):
                text = shorter
                again = True
                break
    return text


# --- The comparison -------------------------------------------------------------------------------

def side_by_side(ours, theirs):
    for line in difflib.ndiff(theirs, ours if ours is not None else ["(it died)"]):
        if line[0] != "?":
            yield {" ": "    both ", "+": "    ours ", "-": " CPython "}[line[0]] + line[2:]


def show_difference(program, seed, text):
    ours = Ours(program, "--serve")

    def differs(candidate):
        nonlocal ours
        expected = theirs(candidate)
        if expected is None:
            return False
        log = ours.run(candidate)
        if log is None:
            ours = Ours(program, "--serve")
        return log != expected

    print(f"\nSeed {seed} differs.")
    if not differs(text):
        print("Run alone, it does not: what ran before it has left something behind.")
    text = shrink(text, differs)
    print(f"The smallest program that does: {text}\n")
    print(source.python(parse(text)))
    print(source.cpp(parse(text)))
    log = Ours(program, "--serve").run(text)
    print("\n".join(side_by_side(log, theirs(text))))


def batches(program, seed, count):
    """(seed, text, our log) of each program, and in the end what the C++ side says of them all."""
    ours = Ours(program, "--run", str(seed), str(count))
    for number in range(seed, seed + count):
        text = ours.process.stdout.readline()[:-1]
        yield number, text, ours.read_log()
    yield None, ours.process.stdout.read(), None


def compare(program, seed, count, keep_going):
    start = time.monotonic()
    rings = 0
    different = []
    summary = ""
    for number, text, log in batches(program, seed, count):
        if number is None:
            summary = text
            break
        expected = theirs(text)
        if expected is None:
            rings += 1
        elif log != expected:
            different.append(number)
            if log is None or not keep_going or len(different) == 1:
                show_difference(program, number, text)
            if log is None or not keep_going:
                break
        if (number - seed + 1) % 10000 == 0:
            print(f"{number - seed + 1} programs, {time.monotonic() - start:.0f} s", flush=True)
    print(summary, end="")
    version = ".".join(map(str, sys.version_info[:3]))
    compared = (different[-1] if different and not keep_going else seed + count - 1) - seed + 1
    print(f"{compared} programs from seed {seed}, against CPython {version}: {len(different)} differ, "
          f"{rings} left out (rings); {time.monotonic() - start:.1f} s")
    if different:
        print("seeds:", *different)
    return not different


# --- Golden traces --------------------------------------------------------------------------------

def hash_of(line):
    """FNV-1a, 32 bits."""
    value = 2166136261
    for byte in line.encode():
        value = ((value ^ byte) * 16777619) & 0xffffffff
    return value


DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def golden(lines):
    """A letter for each line, and the hash of all."""
    if lines is None:
        return "ring"
    return "".join(DIGITS[hash_of(line) % 64] for line in lines) + f" {hash_of(chr(10).join(lines)):08x}"


def record(program, path):
    with open(path, "w") as file:
        for number, text, _ in batches(program, 1, GOLDEN_COUNT):
            if number is not None:
                file.write(golden(theirs(text)) + "\n")
    print(f"{path}: {GOLDEN_COUNT} programs, as CPython {sys.version.split()[0]} runs them")
    return True


def main():
    if sys.version_info[:2] != ORACLE:
        sys.exit(f"the oracle is CPython {ORACLE[0]}.{ORACLE[1]}, and this is {sys.version.split()[0]}")
    options = argparse.ArgumentParser(usage=__doc__)
    options.add_argument("program")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--count", type=int, default=2000)
    options.add_argument("--keep-going", action="store_true")
    options.add_argument("--text")
    options.add_argument("--record")
    given = options.parse_args()
    gc.freeze()
    if given.record:
        good = record(given.program, given.record)
    elif given.text:
        text = str(parse(given.text))
        log, expected = Ours(given.program, "--serve").run(text), theirs(text)
        print(source.python(parse(text)))
        print(source.cpp(parse(text)))
        if expected is None:
            sys.exit("a ring of futures that wait for each other: CPython cannot run it")
        print("\n".join(side_by_side(log, expected)))
        good = log == expected
    else:
        good = compare(given.program, given.seed, given.count, given.keep_going)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
