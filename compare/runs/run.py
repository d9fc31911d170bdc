"""A run's files as arrays: its steps, its recipe, and the data that it was fed with. A run that goes on can be read, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...files.errors import Problem
from ...training.checkpoints import FOLDER, Facts, TrainingState, facts_of, steps_of
from ...training.reading import read_any_recipe
from ...training.recipe import Common
from ...training.run import RECIPE, STEPS, read_lines

COLUMNS = ("step", "epoch", "loss", "lr", "grad_norm")


@dataclass(frozen=True)
class Run:
    """The numbers of a run so far. Every array has a value for each of its n steps, in ascending order.

    steps (counted from 1) and epochs (from 0): int64 [n]. loss, lr, grad_norm: float64 [n]. frameworks: those that its
    checkpoints are of, in order. data: path, images, fingerprint and first_batch; empty before the first checkpoint.
    """

    label: str
    path: Path
    recipe: Common
    steps: NDArray[np.int64]
    epochs: NDArray[np.int64]
    loss: NDArray[np.float64]
    lr: NDArray[np.float64]
    grad_norm: NDArray[np.float64]
    frameworks: tuple[str, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def epoch_means(self) -> dict[int, float]:
        """The mean loss of every epoch, by its number; of the last one so far, if it is not over."""
        return {int(epoch): float(self.loss[self.epochs == epoch].mean()) for epoch in np.unique(self.epochs)}


def read_run(path: Path, label: str | None = None) -> Run:
    """A run's folder. Raises Problem where it holds no run, no step yet, or lines that are of none."""
    if not path.is_dir():
        raise Problem(f"{path} is no run's folder; give one that `polymae pretrain --out` made, with a {STEPS} in it.")
    columns = _columns(path / STEPS)
    if not columns["step"].size:
        raise Problem(f"{path} holds no step: {STEPS} is missing or empty. Give a run that has made its first step.")
    facts = _facts(path)
    return Run(
        label or path.resolve().name, path, _recipe(path, facts), columns["step"].astype(np.int64),
        columns["epoch"].astype(np.int64), columns["loss"], columns["lr"], columns["grad_norm"],
        tuple(dict.fromkeys(one.framework for one in facts)), dict(facts[-1].data) if facts else {},
    )  # fmt: skip


def labels_of(paths: Sequence[Path]) -> list[str]:
    """A name for each run: its folder's, or the whole path where two have the same."""
    names = [path.resolve().name for path in paths]
    return [name if names.count(name) == 1 else str(path) for name, path in zip(names, paths)]


def _columns(path: Path) -> dict[str, NDArray[np.float64]]:
    """The values of every line, by name, in the order of their steps."""
    lines = read_lines(path)
    for number, line in enumerate(lines, 1):
        for name in COLUMNS:
            value = line.get(name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise Problem(f"Line {number} of {path} has {value!r} as {name}, and not a number; give another run.")
    arrays = {name: np.array([line[name] for line in lines], np.float64) for name in COLUMNS}
    if arrays["step"].size and arrays["step"][0] < 1:
        raise Problem(f"Line 1 of {path} is of step {lines[0]['step']}; steps are counted from 1. Give another run.")
    wrong = np.flatnonzero(np.diff(arrays["step"]) <= 0)
    if wrong.size:
        at = int(wrong[0])
        raise Problem(
            f"Line {at + 2} of {path} is of step {lines[at + 1]['step']}, after step {lines[at]['step']}: two runs were "
            "written into one folder. Give a run whose steps ascend."
        )
    return arrays


def _facts(path: Path) -> list[Facts]:
    """The facts in its checkpoints, in order; a removed or damaged one gives none."""
    facts = []
    for step in steps_of(path):
        try:
            facts.append(facts_of(path / FOLDER / str(step)))
        except TrainingState:
            continue
    return facts


def _recipe(path: Path, facts: Sequence[Facts]) -> Common:
    if (path / RECIPE).is_file():
        return read_any_recipe(path / RECIPE)
    if facts:
        return read_any_recipe(facts[-1].recipe)
    raise Problem(f"{path} holds no {RECIPE}, which says how the run was made; put it back, or give another run.")
