"""Recording a run of a backend in which a fault is planted."""

from __future__ import annotations

from dataclasses import dataclass

from polymae.compare.options import Run
from polymae.compare.record.environment import neutralise
from polymae.compare.record.record import record
from polymae.compare.record.source import model_source

from . import plant


@dataclass(frozen=True, kw_only=True)
class Mutant(Run):
    """A run of a backend with a fault; None: without one."""

    fault: str | None = None


def record_mutant(run: Run) -> None:
    """Record it with the fault planted for that time. Raises Problem as `record` and `plant` do."""
    neutralise()  # before planting loads the framework
    config = model_source(run).config
    with plant(getattr(run, "fault", None), run.framework, config) as planted:
        record(run, planted.apply)
