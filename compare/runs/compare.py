"""Read runs and judge each: beside a reference, or beside the first of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...files.errors import Problem
from .judging import against_reference, against_run
from .reference import Reference, read_reference
from .result import Judged, Runs
from .run import Run, labels_of, read_run


def compare_runs(paths: Sequence[Path], reference: Reference | str | Path | None = None) -> tuple[Runs, list[Run]]:
    """The judgement of runs, and those that could be read (without a reference the first, which others are judged by, too).

    paths: folders of runs. reference: one, or the name or file of one. Raises Problem for an unknown reference, for one
    run without a reference, and where the first of several cannot be read.
    """
    labels = labels_of(paths)
    if reference is None:
        if len(paths) < 2:
            raise Problem("One run alone cannot be compared: give another one, or a reference (--reference small-cpu).")
        first = read_run(paths[0], labels[0])
        runs, judged = [first], []
        for path, label in zip(paths[1:], labels[1:]):
            run = _read(path, label)
            judged.append(run if isinstance(run, Judged) else against_run(run, first))
            runs += [] if isinstance(run, Judged) else [run]
        return Runs(first.label, judged, of_reference=False), runs
    if not isinstance(reference, Reference):
        reference = read_reference(reference)
    runs, judged = [], []
    for path, label in zip(paths, labels):
        run = _read(path, label)
        judged.append(run if isinstance(run, Judged) else against_reference(run, reference))
        runs += [] if isinstance(run, Judged) else [run]
    return Runs(reference.name, judged, of_reference=True, made=dict(reference.made)), runs


def _read(path: Path, label: str) -> Run | Judged:
    """A run, or the judgement that it cannot be read."""
    try:
        return read_run(path, label)
    except Problem as problem:
        return Judged(label, str(path), reason=str(problem))
