#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Proves the proof: breaks a rule of the library at a time, in a copy, and sees whether the golden
traces notice.

    mutants.py SOURCES SCRATCH [NAME...]     all, or those that are named; ./dev conform --mutants
"""

import pathlib
import subprocess
import sys
import time

# Name, what is broken, file, what stands there, and what is put in its place.
MUTANTS = [
    ("extra_hop", "a sleep of 0 takes the way of a timer, which is a turn longer",
     "include/asyncio/sleep.hpp",
     "        if (when_ns <= 0) {\n            task_->yield(frame);",
     "        if (when_ns < 0) {\n            task_->yield(frame);"),
    ("lost_uncancel", "a TaskGroup does not take back the cancel by which it woke its own task",
     "src/taskgroups.cpp",
     "    if (parent_cancel_requested_) parent_->uncancel();\n", ""),
    ("swallowed_sibling", "a TaskGroup keeps the first failure of its tasks only",
     "src/taskgroups.cpp",
     "        errors.push_back(watch->future().retrieve());\n",
     "        if (errors.empty()) errors.push_back(watch->future().retrieve());\n"),
    ("lost_outside_cancel", "a TaskGroup with failures forgets the cancel that came from outside",
     "src/taskgroups.cpp",
     "        parent_->uncancel();\n        parent_->cancel({});\n", ""),
    ("barging_lock", "a lock that is free is taken before those who wait for it",
     "include/asyncio/locks.hpp",
     "        if (locked_ || waiters_.has_living()) return false;\n",
     "        if (locked_) return false;\n"),
    ("timeout_eats_cancel", "a cancel from outside becomes a TimeoutError if the time is up too",
     "src/timeouts.cpp",
     "    if (task_->uncancel() <= cancelling_ && detail::is_a<CancelledError>(failure)) {",
     "    task_->uncancel();\n    if (detail::is_a<CancelledError>(failure)) {"),
    ("lost_permit", "a semaphore's waiter that is cancelled after it was woken keeps the permit",
     "include/asyncio/locks.hpp",
     "        if (cancelled && has_permit) ++value_;\n",
     "        if (cancelled && has_permit) value_ += 0;\n"),
    ("lost_item_wake", "a queue's getter that is cancelled after it was woken wakes no other",
     "src/queues.cpp",
     "        if (!puts_ && !queue_->empty()) queue_->getters_.wake_next();\n", ""),
    ("lost_notify", "a Condition's waiter that is cancelled after it was told tells no other",
     "src/locks.cpp",
     "    notify_any(1); // this task may have been the one that was told\n", ""),
    ("cancel_stays", "uncancel() to 0 does not withdraw a cancel that was not delivered",
     "src/tasks.cpp",
     "    if (cancelling_ > 0 && --cancelling_ == 0)\n"
     "        flags_ &= static_cast<std::uint16_t>(~must_cancel_flag);\n",
     "    if (cancelling_ > 0) --cancelling_;\n"),
    ("body_runs", "a task that is cancelled before its first step begins all the same",
     "src/tasks.cpp",
     "        if (cancel_due()) [[unlikely]] { // before its first step: the body never runs",
     "        if (false) {"),
    ("lost_message", "the message of a cancel is lost on its way",
     "src/tasks.cpp",
     "    return make_cancelled([this] { return cancel_message(); });",
     "    return make_cancelled([] { return std::string(); });"),
    ("shield_breaks", "shield() passes a cancel on to what it shields",
     "src/shield.cpp",
     "    if (inner_.done() || !watching_) return;\n",
     "    if (inner_.done() || !watching_) return;\n"
     "    inner_.loop().call_soon([inner = AnyFuture::of(inner_)] { inner.cancel(); });\n"),
    ("barrier_leaks", "the last to leave a barrier does not open it for those who come",
     "src/locks.cpp",
     "    if (state_ == resetting || state_ == draining) state_ = filling;\n",
     "    if (state_ == draining) state_ = filling;\n"),
    ("join_forgets", "a queue that is shut down at once forgets to count its items as done",
     "src/queues.cpp",
     "        unfinished_ -= std::min(unfinished_, size_);\n", ""),
]


def run(command, directory):
    return subprocess.run(command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True)


def copy_sources(sources, scratch):
    """Files keep their times, so that a second run builds little."""
    for path in sources.iterdir():
        if path.name not in ("build", ".git"):
            subprocess.run(["cp", "-r", "-p", "-u", path, scratch], check=True)


def build(scratch):
    return run(["cmake", "--build", "build", "--target", "asyncio_conformance"], scratch)


def main():
    sources, scratch = (pathlib.Path(one).resolve() for one in sys.argv[1:3])
    names = sys.argv[3:]
    scratch.mkdir(parents=True, exist_ok=True)
    copy_sources(sources, scratch)
    for mutant in MUTANTS:  # what a run that was broken off has left
        text = (sources / mutant[2]).read_text()
        if (scratch / mutant[2]).read_text() != text:
            (scratch / mutant[2]).write_text(text)
    configured = run(["cmake", "--preset", "gcc", "-B", "build", "-DASYNCIO_BUILD_EXAMPLES=OFF",
                      "-DASYNCIO_INSTALL=OFF", "-DCMAKE_CXX_FLAGS_RELWITHDEBINFO=-O1"], scratch)
    built = build(scratch) if configured.returncode == 0 else configured
    golden = [scratch / "build/tests/conformance/asyncio_conformance", "--golden",
              sources / "tests/conformance/golden.txt"]
    if built.returncode != 0 or run(golden, scratch).returncode != 0:
        sys.exit(f"the library as it is does not pass:\n{built.stdout[-3000:]}")

    passed = failed = 0
    for name, what, file, old, new in MUTANTS:
        if names and name not in names:
            continue
        start = time.monotonic()
        path = scratch / file
        text = path.read_text()
        if text.count(old) != 1:
            verdict = f"does not apply any more: {file} has changed"
        else:
            path.write_text(text.replace(old, new))
            try:
                built = build(scratch)
                if built.returncode != 0:
                    verdict = "does not compile:\n" + built.stdout[-2000:]
                else:
                    try:
                        found = subprocess.run(golden, stdout=subprocess.PIPE, timeout=300, text=True,
                                               stderr=subprocess.STDOUT)
                        verdict = None if found.returncode != 0 else "is NOT found"
                        first = next((line for line in found.stdout.splitlines()
                                      if line.startswith("Seed ")), "it died")
                    except subprocess.TimeoutExpired:
                        verdict, first = None, "it never ended"
            finally:
                path.write_text(text)
        if verdict is None:
            passed += 1
            print(f"{name:20} found: {first} ({time.monotonic() - start:.0f} s)\n    {what}",
                  flush=True)
        else:
            failed += 1
            print(f"{name:20} {verdict}\n    {what}", flush=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(0 if failed == 0 and passed > 0 else 1)


if __name__ == "__main__":
    main()
