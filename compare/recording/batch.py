"""Record many runs of one framework in one process: importing a framework takes longer than a run of a small model."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from ...backends.interpreters import interpreter
from .record import Run, record
from .trace import Outcome
from .worker import finished

_PATHS = ("out", "inputs", "weights")


def record_batch(
    runs: Sequence[Run],
    python: str | None = None,
    time_limit: float | None = None,
    stop: threading.Event | None = None,
) -> list[Outcome]:
    """How every run ended, in their order. Never raises for what the process does.

    A run at which the process dies has that as its reason, and the rest are recorded in a new process. time_limit, in
    seconds, is for each process (None: as long as it gets on, patience.Patience): what is not recorded by then is not
    recorded. stop: set by another thread, it ends all.
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


def _process(
    runs: Sequence[Run], python: str | None, time_limit: float | None, stop: threading.Event
) -> tuple[list[str], str, bool]:
    """What one process said of the runs that it finished ("" or a reason), how it ended, and not to start another."""
    # Files, and not pipes, which would have to be filled and emptied at the same time.
    with tempfile.TemporaryFile() as told, tempfile.TemporaryFile() as heard:
        told.write(json.dumps([asdict(run) for run in runs], default=str).encode())
        told.seek(0)
        command = [python or interpreter(runs[0].framework), "-m", "polymae.compare.recording.batch"]
        process = finished(command, runs[0], time_limit, stop, told, heard)
        heard.seek(0)
        said = [reason for line in heard if (reason := _said(line)) is not None]
    # One that says nothing at all would say nothing a second time.
    return said, process.reason, not process.in_time or not said


def _said(line: bytes) -> str | None:
    """What a worker says of one run; None for a line of anybody else's, or one that was cut."""
    try:
        reason = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return reason if isinstance(reason, str) else None


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
