"""Checkpoints that any framework goes on from: a folder of weights, moments and what else a step depends on.

RUN/checkpoints/<steps done>/ holds weights.safetensors (official names), optimizer.safetensors (m/<name>, v/<name>), where an
average of the weights is kept ema.safetensors (official names), and state.json; `last` is a link to the newest, `best` to the
best that is kept. A folder is put in place complete, or not at all.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backends.averaging import Averaged, changed
from ..backends.config import Config
from ..backends.optimization import Settings, trainable
from ..backends.optimization import State as Moments
from ..convert.checkpoint import open_checkpoint
from ..convert.formats import safetensors
from ..convert.hashing import hash_tensors
from ..convert.tensors import CheckpointProblem, State, of_array
from ..convert.writing import write_checkpoint
from ..files.atomic import hidden_beside, remove, replacing
from ..files.errors import Problem
from ..files.version import __version__

FOLDER, LAST, BEST = "checkpoints", "last", "best"
WEIGHTS, MOMENTS, AVERAGE, STATE = "weights.safetensors", "optimizer.safetensors", "ema.safetensors", "state.json"
_FORMAT = 1  # of state.json
_ADAMW = Settings()


class TrainingState(Problem, ValueError):
    """A checkpoint of training that is missing, damaged or of another run."""


@dataclass(frozen=True)
class Facts:
    """What state.json holds beside the tensors' hashes."""

    step: int  # steps of the run that are done
    epoch: int  # epochs that are done
    updates: int  # of the optimizer: fewer than steps where gradients overflowed
    framework: str
    versions: Mapping[str, str]
    dtype: str  # of weights and moments
    scale: Mapping[str, Any] | None = None  # of the loss, where the precision has one
    data: Mapping[str, Any] = field(default_factory=dict)  # path, images, fingerprint, digest of the first batch
    recipe: Mapping[str, Any] = field(default_factory=dict)  # as it ran
    loss: float | None = None  # mean of the last whole epoch
    score: float | None = None  # top-1 in percent, where it was measured at just this step
    averaged: int | None = None  # updates of the weights' average, where one is kept
    config: Mapping[str, Any] | None = None  # of a classifier, whose norms may be those of the file that it began with


@dataclass(frozen=True)
class Snapshot:
    """Everything that the next step depends on. weights and moments: by spec name, in the spec's shapes."""

    facts: Facts
    config: Config
    weights: Mapping[str, NDArray[Any]]
    moments: Moments
    averaged: Averaged | None = None


def save(run: Path, snapshot: Snapshot) -> Path:
    """Write a snapshot as the newest checkpoint of a run; returns its folder. Raises CheckpointProblem, OSError."""
    facts, averaged = snapshot.facts, snapshot.averaged
    target = run / FOLDER / str(facts.step)
    task = facts.recipe.get("task", "pretrain")
    source = {"name": f"polymae {task}, step {facts.step}", "framework": facts.framework}
    try:
        with replacing(target) as new:
            new.mkdir()
            content = write_checkpoint("torch", new / WEIGHTS, snapshot.config, snapshot.weights, source=source)
            moments = {f"m/{name}": of_array(array) for name, array in snapshot.moments.m.items()}
            moments |= {f"v/{name}": of_array(array) for name, array in snapshot.moments.v.items()}
            safetensors.write(new / MOMENTS, State(moments), lambda done: None)
            hashes = {"weights": content, "moments": hash_tensors(moments, finite=False).content}
            if averaged is not None:
                facts = replace(facts, averaged=averaged.updates)
                whole = {**snapshot.weights, **averaged.weights}
                average = {
                    "name": f"polymae {task}, step {facts.step}, average of weights",
                    "framework": facts.framework,
                }
                hashes["average"] = write_checkpoint("torch", new / AVERAGE, snapshot.config, whole, source=average)
            described = {"format": _FORMAT, "polymae": __version__, **asdict(facts), "hashes": hashes}
            (new / STATE).write_text(json.dumps(described, indent=1) + "\n")
        point(run / FOLDER / LAST, target.name)
    except (OSError, CheckpointProblem) as problem:
        raise TrainingState(
            f"The checkpoint {target} could not be written: {getattr(problem, 'strerror', None) or problem} Those before it are "
            f"untouched; make room, then go on with --resume {run}."
        ) from None
    return target


def load(path: Path, config: Config, settings: Settings = _ADAMW) -> Snapshot:
    """The snapshot in a checkpoint's folder, of a model and its optimizer's settings.

    Raises TrainingState where it is damaged, or of another model or optimizer.
    """
    facts, hashes = _described(path)
    try:
        loaded = open_checkpoint(path / WEIGHTS).select(config)
        stored = safetensors.read(path / MOMENTS).tensors
        averaged = open_checkpoint(path / AVERAGE).select(config) if facts.averaged is not None else {}
    except CheckpointProblem as problem:
        raise TrainingState(f"The checkpoint {path} cannot be gone on from: {problem}{_before(path)}") from None
    expected = {param.name: param.shape for param in trainable(config)}
    wrong = [
        name
        for kind in settings.moments
        for name, shape in expected.items()
        if f"{kind}/{name}" not in stored or stored[f"{kind}/{name}"].shape != shape
    ]
    if wrong or len(stored) != len(settings.moments) * len(expected):
        raise TrainingState(
            f"The moments in {path / MOMENTS} are not the model's ({wrong[0] if wrong else 'there are more'}).{_before(path)}"
        )
    for kind, tensors in (("weights", loaded), ("moments", stored), ("average", averaged)):
        if tensors and hash_tensors(tensors, finite=False).content != hashes.get(kind):
            raise TrainingState(
                f"The {kind} in {path} are not those that were written: the file was changed or damaged.{_before(path)}"
            )
    moments: list[dict[str, NDArray[Any]]] = [
        {name: np.array(stored[f"{kind}/{name}"].load()).reshape(shape) for name, shape in expected.items()}
        if kind in settings.moments
        else {}
        for kind in "mv"
    ]
    weights = {name: np.array(tensor.load()) for name, tensor in loaded.items()}
    average = None
    if facts.averaged is not None:
        average = Averaged(facts.averaged, {one.name: np.array(averaged[one.name].load()) for one in changed(config)})
    return Snapshot(facts, config, weights, Moments(facts.updates, *moments), average)


def facts_of(path: Path) -> Facts:
    """What is written in a checkpoint's state.json. Raises TrainingState."""
    return _described(path)[0]


def find(path: Path) -> Path:
    """The checkpoint's folder that --resume means: the folder itself, or the newest of a run. Raises TrainingState."""
    if (path / STATE).is_file():
        return Path(os.path.realpath(path))
    there = steps_of(path)
    if there:
        return path / FOLDER / str(there[-1])
    if not path.exists():
        raise TrainingState(f"There is no {path}; --resume takes a run's folder, or a checkpoint's in it.")
    raise TrainingState(
        f"{path} holds no checkpoint to go on from: a run has {FOLDER}/<steps>/{STATE}. "
        "A run that was ended before it wrote one is begun again, without --resume."
    )


def meant_by(path: Path) -> Path | None:
    """The checkpoint's folder that the path of a run, or its own, means; None for another path, as a file of weights.

    Raises TrainingState for a run that has none yet.
    """
    return find(path) if (path / FOLDER).is_dir() or (path / STATE).is_file() else None


def steps_of(run: Path) -> list[int]:
    """The steps of a run's complete checkpoints, ascending."""
    folder = run / FOLDER
    if not folder.is_dir():
        return []
    return sorted(
        int(one.name) for one in folder.iterdir() if re.fullmatch(r"\d+", one.name) and (one / STATE).is_file()
    )


def prune(run: Path, keep_last: int, kept: set[int]) -> list[int]:
    """Remove all but the newest checkpoints and those to be kept; returns the steps of those removed.

    That of a run's beginning goes as soon as there is another.
    """
    there = steps_of(run)
    gone = [step for step in there[:-1] if step == 0 or (step in there[:-keep_last] and step not in kept)]
    for step in gone:
        remove(run / FOLDER / str(step))
    return gone


def remove_leftovers(run: Path) -> None:
    """Remove from a run, which nobody else writes, everything that a killed process left half made."""
    for left in (run / FOLDER).glob(".*.polymae-*"):
        remove(left)


def _described(path: Path) -> tuple[Facts, Mapping[str, str]]:
    try:
        told = json.loads((path / STATE).read_text())
        if told["format"] != _FORMAT:
            raise TrainingState(
                f"{path / STATE} has format {told['format']}, and this version of PolyMAE ({__version__}) reads {_FORMAT}; "
                f"go on with version {told.get('polymae')}."
            )
        return Facts(**{one.name: told[one.name] for one in fields(Facts) if one.name in told}), dict(told["hashes"])
    except (OSError, ValueError, KeyError, TypeError) as problem:
        if isinstance(problem, TrainingState):
            raise
        raise TrainingState(f"{path / STATE} cannot be read ({problem}).{_before(path)}") from None


def _before(path: Path) -> str:
    """Where else to go on from, as a sentence."""
    run = path.parent.parent
    others = [step for step in steps_of(run) if str(step) != path.name]
    return f" Go on from another: --resume {run / FOLDER / str(others[-1])}" if others else ""


def point(link: Path, name: str) -> None:
    """Let a link lead to a folder beside it, in one step."""
    new = hidden_beside(link, "new")
    new.unlink(missing_ok=True)
    new.symlink_to(name)
    new.replace(link)
