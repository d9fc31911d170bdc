"""What is asked of the loop, and how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files.errors import Problem
from . import checkpoints
from .official import recipe_in
from .reading import kind_of, read_recipe
from .recipe import Common, Recipe


@dataclass(frozen=True)
class Request:
    """A training to be done.

    data: a folder, list or file of images. out: the run's folder. recipe: of any task. weights: a checkpoint to begin with, of
    any framework, or a run's folder. resume: a run, or a checkpoint in it, to go on from. changed: go on although recipe or data
    differ. threads: None leaves the framework's default. dtype: float64 for the oracle. eval_data: the images that are measured
    on, where they are not the val part of data.
    """

    framework: str
    data: Path
    out: Path
    recipe: Any
    weights: Path | None = None
    resume: Path | None = None
    changed: bool = False
    device: str = "cpu"
    threads: int | None = None
    dtype: str = "float32"
    eval_data: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """How a run ended. stopped: by which signal, "" where it came to its end. score: the last measured top-1, in percent."""

    step: int
    loss: float | None
    stopped: str
    checkpoint: Path
    score: float | None = None


def resumed(
    path: Path,
    settings: Sequence[str] = (),
    recipe: str | None = None,
    framework: str | None = None,
    data: Path | None = None,
    out: Path | None = None,
    kind: type[Common] = Recipe,
    eval_data: Path | None = None,
    **options: Any,
) -> Request:
    """The request that goes on from a run, or a checkpoint in it, as it was, but for what is given. kind: the task.

    Raises Problem where it cannot be gone on from, as a run of another task.
    """
    if path.is_file():
        missing = [name for name, value in (("framework", framework), ("data", data), ("out", out)) if value is None]
        if framework is None or data is None or out is None:
            raise Problem(
                f"{path} is a checkpoint of the official code; to go on from it also give --{' --'.join(missing)}."
            )
        if kind is not Recipe:
            raise Problem(
                f"{path} is one file; {kind.task} goes on from a run of its own. To begin with the file's weights: --weights "
                f"{path}"
            )
        return Request(framework, data, out, read_recipe(recipe or recipe_in(path), settings), resume=path, **options)
    start = checkpoints.find(path)
    facts = checkpoints.facts_of(start)
    then = kind_of(facts.recipe, str(start))
    if then is not kind:
        raise Problem(
            f"{path} is a run of {then.task}, and {kind.task} was asked for. To go on with it: polymae {then.task} --resume "
            f"{path}; to begin with its weights: polymae {kind.task} --weights {path}"
        )
    known = facts.data.get("eval_data")
    return Request(
        framework or facts.framework, data or Path(facts.data["path"]), out or start.parent.parent,
        read_recipe(recipe or facts.recipe, settings, kind), resume=start, dtype=facts.dtype,
        eval_data=eval_data or (Path(known) if known else None), **options,
    )  # fmt: skip
