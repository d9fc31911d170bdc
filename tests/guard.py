"""Reading a file under guard, in a child process: what it does besides reading is seen, and its memory is limited."""

from __future__ import annotations

import codecs
import json
import mmap
import os
import resource
import signal
import sys
import time
import traceback
import unicodedata  # noqa: F401
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from polymae.convert.provenance import beside
from polymae.convert.tensors import CheckpointProblem

# What reading one file may take, memory in bytes. On a slow machine the slowest takes 4 s of CPU time; what has no end takes any.
CPU_SECONDS, MEMORY = 30.0, 256 * 2**20
WALL_SECONDS = 600.0  # in which only what hangs does not use up the others: a busy machine takes time, too
# What a reader may do, as Python's audit events; "open" only to read, and only inside the checkpoint.
_EVENTS = {
    "open", "mmap.__new__", "os.scandir", "os.listdir", "compile", "object.__getattr__", "builtins.id",
    "_thread.start_new_thread", "_thread.start_joinable_thread",  # told from Python 3.12 on: values are hashed side by side
}  # fmt: skip
codecs.lookup("cp437")  # Python itself imports this and unicodedata in the middle of reading, when first needed

Read = Callable[[Path], str]


@dataclass
class Seen:
    """How one reading went. outcome: what the reader gave; "" where it raised. wrong: what must never happen, or ""."""

    outcome: str
    wrong: str
    seconds: float = 0.0  # of CPU time


class Guard:
    """Sees what Python does, by its audit events, while it reads below one path. For a child process: it stays."""

    def __init__(self, path: Path):
        self.path, self.on, self.broken = os.path.realpath(path), False, ""
        sys.addaudithook(self)

    def __call__(self, event: str, args: tuple[object, ...]) -> None:
        if not self.on:
            return
        self.on = False  # what is asked here is no event of the reader's
        if event not in _EVENTS:
            self.broken = f"did {event} {args!r}"[:200]
        elif event == "open" and not isinstance(args[0], int):
            place = os.path.realpath(os.fsdecode(args[0]))
            if args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND):
                self.broken = f"opened {place} to write"
            elif place not in (self.path, str(beside(Path(self.path)))) and not place.startswith(self.path + os.sep):
                self.broken = f"opened {place}, outside the checkpoint"
        self.on = True
        if self.broken:
            raise PermissionError(self.broken)

    def watch(self, read: Read) -> Seen:
        """Call read(path). Kills the process where it takes more time than a file may."""
        outcome = wrong = ""
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        signal.setitimer(signal.ITIMER_REAL, WALL_SECONDS)
        self.broken, began, self.on = "", time.process_time(), True
        try:
            outcome = read(Path(self.path))
        except BaseException as raised:
            self.on = False
            frames = traceback.extract_tb(raised.__traceback__)
            where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
            wrong = f"{type(raised).__name__} at {where}: {str(raised)[:200]}"
        finally:
            self.on = False
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
        # Even where the reader caught what the guard raised.
        return Seen(outcome, self.broken or wrong, time.process_time() - began)


def limit() -> None:
    """Let this process die by what it must not do: take MEMORY more than now, or more time than Guard.watch gives."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * mmap.PAGESIZE + MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)


def in_child(work: Callable[[], None]) -> str:
    """Do something in a forked child; how it died, or "" where it came to its end."""
    child = os.fork()
    if not child:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if not status:
        return ""
    ended = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"status {status >> 8}"
    known = {"SIGPROF": f"took more than {CPU_SECONDS:g} s", "SIGALRM": f"hung for {WALL_SECONDS:g} s"}
    return known.get(ended, f"the process died ({ended})")


def refusal(path: Path, read: Callable[[Path], object]) -> tuple[str, str]:
    """The code and the message with which a file is refused; asserts that it is, and that nothing else happened."""
    answer, send = os.pipe()

    def refused(path: Path) -> str:
        try:
            read(path)
        except CheckpointProblem as problem:
            return f"{problem.code} {problem}"
        raise AssertionError(f"{path} was read")

    def work() -> None:
        guard = Guard(path)
        limit()
        seen = guard.watch(refused)
        os.write(send, json.dumps([seen.outcome[:4000], seen.wrong]).encode())

    died = in_child(work)
    os.close(send)
    with os.fdopen(answer, "rb") as file:
        said = file.read()
    assert not died, died
    outcome, wrong = json.loads(said)
    assert not wrong
    code, _, message = str(outcome).partition(" ")
    return code, message
