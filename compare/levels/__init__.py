"""The levels of a comparison, one file each: the tensors that it judges (`taps`), and how a run records them (`record`).

Every level has its own injected inputs, so that a fault of one does not blur the next (docs/decisions/levels.md). Tensors are
judged by compare/limits: exact ones by their bits, a training curve at every step, all others by their relative error.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from ...backends.config import Config
from ...backends.spec import Tap
from ..options import LEVELS
from . import curve, forward, gradients, inputs, loss, optimizer, weights
from .subject import Named, Subject


class Level(NamedTuple):
    """A level's two functions."""

    taps: Callable[[Config], Iterator[Tap]]
    record: Callable[[Subject], Iterator[Named]]


BY_NAME = {
    name: Level(module.taps, module.record)
    for name, module in zip(LEVELS, (weights, inputs, forward, loss, gradients, optimizer, curve), strict=True)
}


def expected(
    config: Config, levels: Collection[str] = LEVELS, given: Collection[str] = ()
) -> Iterator[tuple[str, Tap]]:
    """Level and tensor of everything that a whole trace of these levels holds, in the order of computation.

    given: the names of the run's inputs, where a classifier's are not images and labels alone.
    """
    for name, level in BY_NAME.items():
        if name in levels:
            for tap in inputs.taps(config, given) if name == "inputs" else level.taps(config):
                yield name, tap


def recorded(subject: Subject) -> Iterator[Named]:
    """Every tensor of a run's levels, by name; each is computed or given away when the one before it is written."""
    if "inputs" in subject.run.levels:
        yield from inputs.record(subject)
    yield from inputs.received(subject)
    for name, level in BY_NAME.items():
        if name in subject.run.levels and name != "inputs":
            yield from level.record(subject)
