"""Record a run in a process of its own: a framework that crashes, hangs or misbehaves is one row of the report."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from ...backends.blas import variables
from ...backends.interpreters import FOLDER, interpreter
from ...files.atomic import remove_leftovers
from ...files.errors import REPORT_IT
from .patience import Patience
from .record import Run
from .trace import Outcome

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
    """Run `polymae record` in a fresh interpreter and say how it went. Never raises for what the worker does.

    python: its path; None: the interpreter that runs the framework (backends/interpreters.py). time_limit: seconds of real
    time; None: as long as it gets on (patience.Patience). stop: set by another thread, it ends the worker.
    """
    run.out.unlink(missing_ok=True)  # an older trace must not pass for this run's
    try:
        python = python or interpreter(run.framework)
        process = finished([python, "-m", "polymae", *_arguments(run)], run, time_limit, stop)
    except BaseException:
        remove_leftovers(run.out)
        raise
    if process.status or not run.out.exists():
        remove_leftovers(run.out)  # of a writer that was killed
    if process.in_time and process.status == 0 and run.out.is_file():
        return Outcome(run.framework, run.out)
    return Outcome(run.framework, None, process.reason)


@dataclass(frozen=True)
class Process:
    """How a worker ended. in_time: by itself, before its time was up. reason: what to say where it left no trace."""

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
    threads = {f"{library}_NUM_THREADS": str(run.threads) for library in ("OMP", "OPENBLAS", "MKL")}
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
    """Reads what a worker says, however much it is, and keeps the end."""

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
        """The end of it, without what no terminal should be sent."""
        said = self.end.decode(errors="replace")
        return "".join(letter if letter.isprintable() else "\n" if letter in "\r\n" else " " for letter in said)


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


def _arguments(run: Run) -> list[str]:
    options: dict[str, object] = {
        "--framework": run.framework,
        "--inputs": run.inputs.resolve(),
        "--out": run.out.resolve(),
        "--weights": run.weights and run.weights.resolve(),
        "--model": run.model,
        "--device": run.device,
        "--dtype": run.dtype,
        "--mask-ratio": run.mask_ratio,
        "--level": ",".join(run.levels),
        "--threads": run.threads,
        "--seed": run.seed,
        "--twin": run.twin,
        "--kernel-noise": run.kernel_noise,
        "--fault": run.fault,
    }
    given = [part for name, value in options.items() if value is not None for part in (name, str(value))]
    flags = {"--norm-pix-loss": run.norm_pix_loss, "--allow-tf32": run.allow_tf32}
    given += [name for name, on in flags.items() if on]
    lists = {"--taps": run.taps, "--images": [str(path.resolve()) for path in run.images]}
    return ["record", *given, *(part for name, values in lists.items() if values for part in (name, *values))]


def _reason(status: int, said: str, python: str) -> str:
    if status < 0:
        named = {item.value: item.name for item in signal.Signals}
        name = named.get(-status, f"signal {-status}")
        hint = " (out of memory?)" if name == "SIGKILL" else ""
        return f"the process was killed by {name}{hint}"
    lines = [line.strip() for line in said.splitlines() if line.strip() and not line.strip().startswith("usage:")]
    last = lines[-1] if lines else "no message"
    if last.startswith(REPORT_IT):
        last = " ".join(lines[-2:])  # the problem itself is the line before
    last = last if len(last) <= LONGEST else last[: LONGEST - 3] + "..."
    if "No module named" in last and "polymae" in last:
        return f"{python} has no polymae; install it there: {python} -m pip install -e FOLDER"
    if status == 0:
        return f"the process ended well but wrote no trace; its last words: {last}"
    said_by_us = last.startswith("polymae record: ")
    return last.removeprefix("polymae record: ") if said_by_us else f"{last} (exit status {status})"
