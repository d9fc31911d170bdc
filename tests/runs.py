"""Recorded runs of the small model, made once in this process, and copies of them with something changed."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mutants.recording import Mutant, record_mutant
from numpy.typing import NDArray

from polymae.backends.presets import model_config
from polymae.cli import main
from polymae.compare import LEVELS, OF_ONE_RUN
from polymae.compare.judge.traces import Judgement, judge
from polymae.compare.offline import compare_traces
from polymae.compare.options import Comparison
from polymae.compare.record.inputs import random_inputs
from polymae.compare.report.report import Report
from polymae.compare.trace import Trace, write_trace

MODEL = "mae_vit_test_patch8"
CONFIG = model_config(MODEL)
_KEPT = tempfile.TemporaryDirectory(prefix="polymae-tests-")  # removed when the tests end
FOLDER = Path(_KEPT.name)


@cache
def inputs() -> Path:
    """The inputs of every run here."""
    np.savez(FOLDER / "inputs.npz", **random_inputs(CONFIG))
    return FOLDER / "inputs.npz"


@cache
def recorded(name: str, **fields: Any) -> Path:
    """NumPy's run with these fields of Run, perhaps with a planted fault, recorded when it is first asked for."""
    path = FOLDER / f"{name}.npz"
    record_mutant(Mutant("numpy", path, inputs(), **{"model": MODEL, "levels": (*OF_ONE_RUN, "gradients"), **fields}))
    return path


def oracle() -> Path:
    """The run in float64."""
    return recorded("oracle", dtype="float64")


def twins() -> list[Path]:
    """Two runs in float32 that sum in other orders."""
    return [recorded(f"twin{seed}", twin=seed) for seed in (1, 2)]


def plain() -> Path:
    """The run in float32: a correct candidate."""
    return recorded("plain")


class Edited(Trace):
    """A trace with other tensors (None: without them) and other fields of the manifest, in memory."""

    def __init__(self, path: Path, tensors: Mapping[str, NDArray[Any] | None] | None = None, **manifest: Any):
        super().__init__(path)
        self.tensors = dict(tensors or {})
        self.manifest |= manifest
        gone = {name for name, array in self.tensors.items() if array is None}
        self.names = [name for name in dict.fromkeys([*self.names, *self.tensors]) if name not in gone]

    def __getitem__(self, name: str) -> NDArray[Any]:
        array = self.tensors.get(name)
        return super().__getitem__(name) if array is None else array

    def save(self, path: Path) -> Path:
        """Write it as a trace file."""
        write_trace(path, self.manifest, ((name, self[name]) for name in self.names))
        return path


def judged(candidate: Trace, levels: tuple[str, ...] = LEVELS, a_priori: bool = False) -> Judgement:
    """One candidate against the oracle and its twins (a_priori: without them)."""
    others = [] if a_priori else [Trace(path) for path in twins()]
    (judgement,) = judge(Trace(oracle()), others, {"candidate": candidate}, levels)
    return judgement


def changed(name: str, edit: Any) -> Judgement:
    """The correct candidate, judged with one tensor edited: edit(array) gives or makes the other one."""
    array = Trace(plain())[name].copy()
    result = edit(array)
    return judged(Edited(plain(), {name: array if result is None else result}))


def report(*paths: Path, **fields: Any) -> Report:
    """These traces, judged beside the oracle and its twins."""
    return compare_traces([oracle(), *twins(), *paths], Comparison(**fields))


def verdicts(found: Report) -> dict[str, str]:
    """Label and verdict."""
    return {judgement.label: found.verdict(judgement) for judgement in found.judgements}


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Run a command, see it fail with status 2, and give what it said."""
    capsys.readouterr()
    try:
        status = main([str(word) for word in words])
    except SystemExit as left:
        status = int(left.code or 0)
    said = capsys.readouterr()
    assert status == 2, words
    assert "Traceback" not in said.err
    assert not said.out
    return said.err
