"""Recording a run of a backend in which a fault is planted."""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from unittest.mock import patch

from polymae.backends.config import Config
from polymae.compare.levels import curve, small
from polymae.compare.options import Options, Run
from polymae.compare.record.environment import neutralise
from polymae.compare.record.record import record
from polymae.compare.record.source import ModelSource, model_source

from . import plant


@dataclass(frozen=True, kw_only=True)
class Mutant(Run):
    """A run of a backend with a fault; None: without one. steps: of the level curve; None: as many as a comparison has."""

    fault: str | None = None
    steps: int | None = None


def record_mutant(run: Run, source: ModelSource | None = None) -> None:
    """Record it with the fault planted for that time. Raises Problem as `record` and `plant` do.

    source: the run's model and weights, where they are opened already.
    """
    neutralise()  # before planting loads the framework
    source = source or model_source(run)
    with (
        patch.object(small, "STEPS", getattr(run, "steps", None) or small.STEPS),
        plant(getattr(run, "fault", None), run.framework, source.config) as planted,
    ):
        record(run, planted.apply, source=source)


def record_of_many(run: Run) -> None:
    """The same, in a process that records nothing else: what costs as much as a run of a small model is done once for each.

    The files of its models and the batches of training, which no fault changes.
    """

    def digest(config: Config, given: Collection[str] = ()) -> str:
        return _digest(small.STEPS, config, frozenset(given))

    with patch.object(sys.modules[record.__module__], "training_digest", digest):
        record_mutant(run, _source(run.weights, run.model, run.norm_pix_loss, run.seed))


@cache
def _source(weights: Path | None, model: str | None, norm_pix_loss: bool, seed: int) -> ModelSource:
    return model_source(Options(weights=weights, model=model, norm_pix_loss=norm_pix_loss, seed=seed))


@cache
def _digest(steps: int, config: Config, given: frozenset[str]) -> str:
    return curve.training_digest(config, given)
