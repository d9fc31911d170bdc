"""Record runs in a process of their own: a framework that crashes, hangs or misbehaves is one row of the report.

One protocol for one run and for many (importing a framework takes longer than a run of a small model): the runs as JSON lists
on the child's stdin, a line each; for each run a line of JSON on its stdout, "" or why it could not be recorded.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from ...backends.blas import thread_variables, variables
from ...backends.installing import in_words
from ...backends.interpreters import FOLDER, interpreter
from ...files.atomic import remove_leftovers
from ..options import Run
from ..trace import Outcome
from .patience import Patience

PROGRAM = ("-m", "polymae.compare.record.child")
POLL = 0.2  # seconds between two looks at `stop`
LAST_WORDS = (
    10.0  # seconds for reading them, which only a child that left the worker's session takes: it keeps the pipe open
)
KEPT = 1 << 16  # bytes of a worker's last words
_QUIET = {"GLOG_v": "3", "GLOG_minloglevel": "3"}
_HERE = {FOLDER: os.devnull}  # a worker records by itself: it knows of no other interpreter
LONGEST = 500  # characters of them in a reason


def record_in_process(
    run: Run, python: str | None = None, time_limit: float | None = None, stop: threading.Event | None = None
) -> Outcome:
    """How one run ended, recorded in a process of its own; the rest as record_batch."""
    return record_batch([run], python, time_limit, stop)[0]


def record_batch(
    runs: Sequence[Run],
    python: str | None = None,
    time_limit: float | None = None,
    stop: threading.Event | None = None,
    program: Sequence[str] = PROGRAM,
) -> list[Outcome]:
    """How every run of one framework ended, in their order. Never raises for a failure of the process.

    A run at which the process dies has that as its reason, and the rest are recorded in a new process. python: the path of
    an interpreter; None: that which runs the framework (backends/interpreters.py). time_limit: seconds of real time for each
    process; None: as long as it gets on (patience.Patience). stop: set by another thread, it ends all. program: what the
    interpreter runs, which calls `serve`.
    """
    outcomes: list[Outcome] = []
    while len(outcomes) < len(runs):
        rest = runs[len(outcomes) :]
        for run in rest:
            run.out.unlink(missing_ok=True)  # an older trace must not pass for this run's
        try:
            reasons, ending, hopeless = _process(rest, python, program, time_limit, stop or threading.Event())
        finally:
            for run in rest:
                remove_leftovers(run.out)  # of a writer that was killed
        outcomes += [_outcome(run, reason) for run, reason in zip(rest, reasons)]
        lost = rest[len(reasons) :] if hopeless else rest[len(reasons) : len(reasons) + 1]
        outcomes += [_outcome(run, ending) for run in lost]
    return outcomes


def _outcome(run: Run, reason: str) -> Outcome:
    if not reason and not run.out.is_file():
        reason = "the process said that it wrote a trace, and there is none"
    return Outcome(run.framework, None if reason else run.out, reason)


def _process(
    runs: Sequence[Run],
    python: str | None,
    program: Sequence[str],
    time_limit: float | None,
    stop: threading.Event,
) -> tuple[list[str], str, bool]:
    """A process's reasons for the runs that it finished ("" for success), how it ended, and not to start another."""
    # Files, and not pipes, which would have to be filled and emptied at the same time.
    with tempfile.TemporaryFile() as request, tempfile.TemporaryFile() as answers:
        request.write(json.dumps([run.as_dict() for run in runs]).encode())
        request.seek(0)
        command = [python or interpreter(runs[0].framework), *program]
        process = finished(command, runs[0], time_limit, stop, request, answers)
        answers.seek(0)
        reasons = [reason for line in answers if (reason := _reason_of(line)) is not None]
    # One that says nothing at all would say nothing a second time.
    return reasons, process.reason, not process.in_time or not reasons


def _reason_of(line: bytes) -> str | None:
    """A child's line on one run; None for a line of anybody else's, or one that was cut."""
    try:
        reason = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return _one_line(reason) if isinstance(reason, str) else None


def serve(record: Callable[[Run], None], kind: type[Run] = Run) -> None:
    """The child: record the runs of the JSON lists on stdin until it ends, and say of each how it went."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a framework prints to stderr, not among the answers
    for described in (described for line in sys.stdin for described in json.loads(line)):
        try:
            record(kind.from_dict(described))
            reason = ""
        except Exception as problem:  # whatever it is, it is a row of the report
            reason = in_words(problem)
        # A line of its own, whatever an interpreter has printed before.
        print(f"\n{json.dumps(reason)}", file=out, flush=True)


@dataclass(frozen=True)
class Process:
    """How a worker ended. in_time: by itself, before its time was up. reason: why there is no trace."""

    in_time: bool
    status: int
    reason: str


def finished(
    command: Sequence[str],
    run: Run,
    time_limit: float | None,
    stop: threading.Event | None = None,
    stdin: IO[bytes] | int = subprocess.DEVNULL,
    stdout: IO[bytes] | int = subprocess.DEVNULL,
) -> Process:
    """Run a worker's command, with a run's threads and in its folder, until it ends or has to be ended."""
    threads = thread_variables(run.threads)
    stop = stop or threading.Event()
    try:
        worker = subprocess.Popen(
            command,
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            env=os.environ | variables(run.framework) | threads | _QUIET | _HERE,
            cwd=run.out.parent,  # not the caller's: `-m` puts it on the path, where a folder called torch would win
            start_new_session=True,  # so that a worker's own children end with it
        )
    except OSError as problem:
        return Process(False, 1, f"the interpreter {command[0]} does not start: {problem}")
    words = _LastWords(worker)
    try:
        ended = _wait(worker, words, Patience(worker.pid, time_limit), stop)
    finally:
        status = _end(worker)
        words.join(LAST_WORDS)
    if ended:
        return Process(False, status, f"{ended}; the process was ended")
    return Process(True, status, _reason(status, words.text(), command[0]))


class _LastWords(threading.Thread):
    """Reads a worker's output, however long it is, and keeps the end."""

    def __init__(self, worker: subprocess.Popen[bytes]):
        super().__init__(daemon=True)  # a child that outlives its group would keep it waiting
        assert worker.stderr is not None
        self.pipe, self.end = worker.stderr, b""
        self.start()

    def run(self) -> None:
        with self.pipe:
            while chunk := self.pipe.read1(KEPT):  # type: ignore[attr-defined]
                self.end = (self.end + chunk)[-KEPT:]

    def text(self) -> str:
        """The end of it, without control characters."""
        decoded = self.end.decode(errors="replace")
        return "".join(letter if letter.isprintable() else "\n" if letter in "\r\n" else " " for letter in decoded)


def _wait(worker: subprocess.Popen[bytes], words: _LastWords, patience: Patience, stop: threading.Event) -> str:
    """Why the worker is to be ended, or "" where it ends by itself; it is left for `_end` to collect."""
    while os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if why := "stopped" if stop.is_set() else patience.over():
            return why
        if words.is_alive():
            words.join(min(POLL, patience.left))  # until it falls silent: mostly its end
        time.sleep(0.01)
    return ""


def _end(worker: subprocess.Popen[bytes]) -> int:
    """End a worker that may have ended, and its children. Returns its status."""
    with suppress(OSError):
        os.killpg(worker.pid, signal.SIGKILL)  # its number is its own as long as nobody has waited for it
    return worker.wait()


def _reason(status: int, output: str, python: str) -> str:
    if status < 0:
        named = {item.value: item.name for item in signal.Signals}
        name = named.get(-status, f"signal {-status}")
        hint = " (out of memory?)" if name == "SIGKILL" else ""
        return f"the process was killed by {name}{hint}"
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    last = lines[-1] if lines else "no message"
    last = _one_line(last)
    if "No module named" in last and "polymae" in last:
        return f"{python} has no polymae; install it there: {python} -m pip install -e FOLDER"
    if status == 0:
        return f"the process ended well but wrote no trace; its last words: {last}"
    return f"{last} (exit status {status})"


def _one_line(text: str) -> str:
    """A text of a child's in one printable line, cut where it is long."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return line if len(line) <= LONGEST else line[: LONGEST - 3] + "..."


if __name__ == "__main__":
    from .record import record

    serve(record)
