"""Record many runs of one framework in one process: importing a framework takes longer than a run of a small model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from .. import TIME_LIMIT
from .record import Run, record
from .trace import Outcome
from .worker import POLL

_PATHS = ("out", "inputs", "weights")


def record_batch(
    runs: Sequence[Run],
    python: str = sys.executable,
    time_limit: float = TIME_LIMIT,
    stop: threading.Event | None = None,
) -> list[Outcome]:
    """How every run ended, in their order. Never raises for what the process does.

    A run at which the process dies has that as its reason, and the rest are recorded in a new process. time_limit, in
    seconds, is for each process: what is not recorded by then is not recorded. stop: set by another thread, it ends all.
    """
    outcomes: list[Outcome] = []
    while len(outcomes) < len(runs):
        rest = runs[len(outcomes) :]
        for run in rest:
            run.out.unlink(missing_ok=True)  # an older trace must not pass for this run's
        said, ending, hopeless = _process(rest, python, time_limit, stop or threading.Event())
        outcomes += [_outcome(run, reason) for run, reason in zip(rest, said)]
        lost = rest[len(said) :] if hopeless else rest[len(said) : len(said) + 1]
        outcomes += [_outcome(run, ending) for run in lost]
    return outcomes


def _outcome(run: Run, reason: str) -> Outcome:
    return Outcome(run.framework, None if reason else run.out, reason)


def _process(runs: Sequence[Run], python: str, time_limit: float, stop: threading.Event) -> tuple[list[str], str, bool]:
    """What one process said of the runs that it finished ("" or a reason), how it ended, and not to start another."""
    threads = {f"{library}_NUM_THREADS": str(runs[0].threads) for library in ("OMP", "OPENBLAS", "MKL")}
    environment = os.environ | threads | {"GLOG_v": "3", "GLOG_minloglevel": "3"}
    hopeless = False
    with tempfile.TemporaryFile("w+") as heard:  # a pipe would have to be emptied while it fills
        try:
            worker = subprocess.Popen(
                [python, "-m", "polymae.compare.recording.batch"],
                stdin=subprocess.PIPE, stdout=heard, stderr=subprocess.DEVNULL, text=True,
                env=environment, cwd=runs[0].out.parent, start_new_session=True,
            )  # fmt: skip
        except OSError as problem:
            return [], f"the interpreter {python} does not start: {problem}", True
        try:
            hopeless = not _finishes(worker, json.dumps([asdict(run) for run in runs], default=str), time_limit, stop)
            ending = f"the process ended with status {worker.returncode} at this run"
            if hopeless:
                why = "stopped" if stop.is_set() else f"no result within {time_limit:.0f} s"
                ending = f"{why}; the process was ended"
        finally:
            with suppress(OSError):
                os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
        heard.seek(0)
        return [json.loads(line) for line in heard if line.endswith("\n")], ending, hopeless


def _finishes(worker: subprocess.Popen[str], text: str, time_limit: float, stop: threading.Event) -> bool:
    """Whether a worker that is told a text ends by itself before its time is up."""
    until = time.monotonic() + time_limit
    told: str | None = text
    while True:
        try:
            worker.communicate(told, timeout=max(0.0, min(POLL, until - time.monotonic())))
        except subprocess.TimeoutExpired:
            if stop.is_set() or time.monotonic() >= until:
                return False
            told = None
        else:
            return True


def main() -> None:
    """Record the runs of the JSON list on stdin; for each a line on stdout, "" or why it could not be recorded."""
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a framework prints is not ours
    for described in json.load(sys.stdin):
        try:
            record(_run(described))
            reason = ""
        except Exception as problem:  # whatever it is, it is a row of the table
            reason = f"{type(problem).__name__}: {problem}"
        print(json.dumps(reason), file=told, flush=True)


def _run(described: dict[str, Any]) -> Run:
    given = {field.name: described[field.name] for field in fields(Run)}
    given |= {name: Path(given[name]) for name in _PATHS if given[name] is not None}
    given |= {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    return Run(**given | {"images": tuple(Path(path) for path in given["images"])})


if __name__ == "__main__":
    main()
