"""A run's folder: its recipe, a line for each step and each epoch, and the rule that one process at a time writes it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ..files.atomic import BusyProblem, alone, replacing
from ..files.errors import Problem
from .checkpoints import FOLDER, facts_of, steps_of

RECIPE, STEPS, LOG, PICTURES, BOARD, NOT_FINITE, BROKEN = (
    "recipe.yaml", "steps.jsonl", "log.txt", "pictures", "tensorboard", "not-finite", "broken-images.txt",
)  # fmt: skip


@contextmanager
def held(run: Path) -> Iterator[None]:
    """Keep other processes out of a run's folder. Raises Problem where one is in it."""
    try:
        with alone(run, patience=0.0):
            yield
    except BusyProblem:
        raise Problem(
            f"Another process trains in {run}; wait for it or stop it, or give another folder as --out."
        ) from None


def require_new(run: Path) -> None:
    """Raise Problem where a folder holds a run already, or is a file."""
    if run.exists() and not run.is_dir():
        raise Problem(f"{run} is a file; give a folder for the run as --out.")
    done = steps_of(run)
    if done:
        raise Problem(
            f"{run} holds a run of {facts_of(run / FOLDER / str(done[-1])).framework}, {done[-1]} steps long. To go on with it: "
            f"--resume {run}; to begin another, give another folder as --out."
        )


class Lines:
    """A file of JSON lines that grows: whole lines, each on its way to the disk when it is added."""

    def __init__(self, path: Path):
        self.path = path
        self.file: IO[str] = path.open("a", encoding="utf-8")

    def add(self, values: Mapping[str, Any]) -> None:
        """Add a line. Raises Problem where the disk is full."""
        try:
            self.file.write(json.dumps(values) + "\n")
            self.file.flush()
        except OSError as problem:
            raise Problem(
                f"{self.path} could not be written: {problem.strerror or problem}. Make room, then go on with --resume."
            ) from None

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of such a file; one that a killed process left incomplete, at its end, is left out. Raises Problem."""
    if not path.is_file():
        return []
    values = []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        try:
            value = json.loads(line)
            if not isinstance(value, dict):
                raise ValueError("no JSON object")
        except ValueError as problem:
            if number == len(lines):
                break
            raise Problem(
                f"Line {number} of {path} is not of a run ({problem}); remove it, or give another run."
            ) from None
        values.append(value)
    return values


def cut_lines(path: Path, source: Path, name: str, below: int) -> None:
    """Begin a file with the lines of another (or of itself) whose value of a name is below a number."""
    lines = [line for line in read_lines(source) if line[name] < below]
    with replacing(path) as new:
        new.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
