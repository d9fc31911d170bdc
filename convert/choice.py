"""Which model a checkpoint is: the one that was asked for, or the one that the file shows."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from ..backends.config import Config, MAEConfig
from ..backends.presets import ALIASES, NAMED, model_config
from .checkpoint import Checkpoint
from .said import COMPUTED, settings_of
from .shapes import adapted, settings
from .tensors import CheckpointProblem


def model_of(checkpoint: Checkpoint, asked: str | None = None) -> tuple[str, Config]:
    """A model's name and configuration, for a checkpoint; `asked` is what --model takes.

    The name says the size; the file says how many classes and which pooling a classifier has, and how its program
    computes where `asked` does not. Raises CheckpointProblem where nothing was asked for and the file does not tell.
    """
    shapes = {spec: reading.shape for spec, reading in checkpoint.identified.readings.items()}
    if asked is not None:
        config = model_config(asked)
        if asked in NAMED or asked in ALIASES or isinstance(config, MAEConfig):
            config = adapted(config, shapes)
        return asked, _computing(config, _known(checkpoint))
    if checkpoint.config is None:
        raise CheckpointProblem(
            f"{checkpoint.path} has the shapes of no named model; say which it is with -m. If one is close, name it to see "
            f"every difference; if it is your own, fill in the head counts: -m '{settings(shapes)}'"
        )
    return checkpoint.model or "own model", checkpoint.config


def _known(checkpoint: Checkpoint) -> dict[str, Any]:
    if checkpoint.config is None:
        return settings_of(checkpoint.identified.dialect, checkpoint.contents)
    return {name: getattr(checkpoint.config, name) for name in COMPUTED if hasattr(checkpoint.config, name)}


def _computing(config: Config, known: dict[str, Any]) -> Config:
    """The configuration with what is known, where it was left at its default."""
    left = {f.name for f in fields(config) if getattr(config, f.name) == f.default}
    return replace(config, **{name: value for name, value in known.items() if name in left})
