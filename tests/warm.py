"""Runs that one process of each framework records, for all tests: importing a framework costs more than a run of a small model.

What comes of them is what `polymae record` and `polymae compare` give; the processes that these start are tested by
tests/compare/test_worker.py, and for every framework by test_parity.py and test_record.py.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from polymae.backends.blas import thread_variables, variables
from polymae.backends.interpreters import interpreter
from polymae.compare import run as comparing
from polymae.compare.options import Run
from polymae.compare.record.child import PROGRAM
from polymae.compare.record.patience import Patience
from polymae.compare.trace import Outcome


class Warm:
    """A process that records the runs of one framework, one after the other; use as a context manager."""

    def __init__(self, framework: str, folder: Path):
        self.alone, self.said = threading.Lock(), folder / f"{framework}.log"
        env = os.environ | variables(framework) | thread_variables(1)
        with self.said.open("wb") as said:
            self.process = subprocess.Popen(
                [interpreter(framework), *PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, bufsize=0,
                env=env, cwd=folder, start_new_session=True,
            )  # fmt: skip

    def __enter__(self) -> Warm:
        return self

    def __exit__(self, *_: Any) -> None:
        self.process.kill()
        self.process.communicate()

    def record(self, run: Run) -> Outcome:
        """How one run ended. A process that ends or hangs fails the test."""
        assert self.process.stdin
        assert self.process.stdout
        with self.alone:
            self.process.stdin.write(json.dumps([run.as_dict()]).encode() + b"\n")
            patience = Patience(self.process.pid)
            answer = b"\n"
            while answer == b"\n":  # in front of each answer
                while not select.select([self.process.stdout], [], [], 0.2)[0]:
                    assert not (why := patience.over()), why
                answer = self.process.stdout.readline()
            assert answer, self.said.read_text(errors="replace")[-3000:]
        reason = json.loads(answer)
        return Outcome(run.framework, None if reason else run.out, reason)


Record = Callable[[Run], Outcome]


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Record]:
    """A function that records a run in the process of its framework, which is started when it is first needed."""
    folder, began = tmp_path_factory.mktemp("warm"), threading.Lock()
    with ExitStack() as stack:
        processes: dict[str, Warm] = {}

        def record(run: Run) -> Outcome:
            assert run.threads == 1
            with began:
                if run.framework not in processes:
                    processes[run.framework] = stack.enter_context(Warm(run.framework, folder))
            return processes[run.framework].record(run)

        yield record


@pytest.fixture(scope="module")
def warm(recording: Record) -> Iterator[None]:
    """Comparisons in a file's tests have their runs recorded by processes that stay."""

    def record(run: Run, python: str | None = None, *_: Any) -> Outcome:
        assert python == interpreter(run.framework)
        return recording(run)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparing, "record_in_process", record)
        yield
