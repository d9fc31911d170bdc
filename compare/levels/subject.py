"""What a level records from: one framework's model, ready to run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from numpy.typing import NDArray

from ...backends.config import Config
from ...backends.runtime import Recorded, Recorder, Runtime, plain
from ..options import Run
from ..trace import Inputs

Named = tuple[str, NDArray[Any]]


@dataclass
class Subject:
    """A model with its weights, and what it is run on."""

    run: Run
    runtime: Runtime
    model: Any
    config: Config
    inputs: Inputs
    recorder: Recorder = plain  # makes the dictionaries of its pass

    @cached_property
    def one_pass(self) -> Recorded:
        """Forward and, for the level gradients, backward: once for the levels forward, loss and gradients.

        What was written is taken out of it, so that no tensor stays in memory for longer than it has to.
        """
        backward = "gradients" in self.run.levels
        return self.runtime.run(self.model, self.inputs, self.run.mask_ratio, backward, self.recorder)


def emptied(prefix: str, arrays: dict[str, NDArray[Any]]) -> Iterator[Named]:
    """Give away what a dictionary holds."""
    for name in list(arrays):
        yield prefix + name, arrays.pop(name)
