# SPDX-License-Identifier: MIT
# Prints the public names of Python's asyncio, for tests/docs/asyncio_names.txt: all of __all__, what
# the classes have besides, and names of other modules that belong to it. Made with Python 3.14.
import asyncio
import asyncio.subprocess
import contextvars

names = set(asyncio.__all__)


def add(cls, prefix=None, beyond=object, also=()):
    prefix = prefix or cls.__name__
    for name in {n for n in dir(cls) if not n.startswith("_") and not hasattr(beyond, n)} | set(also):
        names.add(f"{prefix}.{name}")


add(asyncio.AbstractEventLoop, "loop", also=["slow_callback_duration"])
add(asyncio.Future)
add(asyncio.Task, beyond=asyncio.Future)
# These have them as attributes of the object, not of the class.
add(asyncio.Condition, also=["acquire", "release", "locked"])
for cls in (asyncio.Runner, asyncio.TaskGroup, asyncio.Timeout, asyncio.Lock, asyncio.Event,
            asyncio.Semaphore, asyncio.Barrier, asyncio.Queue, asyncio.Handle, asyncio.Server,
            asyncio.StreamReader, asyncio.StreamWriter):
    add(cls)
add(asyncio.TimerHandle, beyond=asyncio.Handle)
for cls in (asyncio.BaseTransport, asyncio.BaseProtocol):
    add(cls)
for cls in (asyncio.ReadTransport, asyncio.WriteTransport, asyncio.DatagramTransport,
            asyncio.SubprocessTransport):
    add(cls, beyond=asyncio.BaseTransport)
for cls in (asyncio.Protocol, asyncio.BufferedProtocol, asyncio.DatagramProtocol,
            asyncio.SubprocessProtocol):
    add(cls, beyond=asyncio.BaseProtocol)
add(asyncio.subprocess.Process, "subprocess.Process", also=["pid", "stdin", "stdout", "stderr"])
names |= {"subprocess.PIPE", "subprocess.STDOUT", "subprocess.DEVNULL"}
names.add("contextvars.copy_context")
for cls in (contextvars.ContextVar, contextvars.Context, contextvars.Token):
    names.add(f"contextvars.{cls.__name__}")
    add(cls, f"contextvars.{cls.__name__}")
names |= {"agen.__anext__", "agen.aclose", "agen.asend", "agen.athrow"}
names |= {"coroutine.close", "coroutine.send", "coroutine.throw"}
names |= {"ExceptionGroup", "BaseExceptionGroup", "ExceptionGroup.message", "ExceptionGroup.exceptions",
          "ExceptionGroup.split", "ExceptionGroup.subgroup", "ExceptionGroup.derive"}
names |= {f"concurrent.futures.Future.{n}" for n in
          ("add_done_callback", "cancel", "cancelled", "done", "exception", "result", "running")}
print("\n".join(sorted(names)))
