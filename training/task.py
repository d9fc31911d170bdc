"""What a task of training, as pre-training, brings to the loop (loop.py): its model, its batches, its measurements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from numpy.typing import NDArray

from ..backends.averaging import Average
from ..backends.config import Config
from ..backends.optimization import State as Moments
from ..backends.runtime import Runtime
from ..data.batches import Batches

if TYPE_CHECKING:
    from PIL import Image

    from .checkpoints import Facts
    from .request import Request

Weights = Mapping[str, NDArray[Any]]


class Official(NamedTuple):
    """What a training checkpoint of the official code gives. epoch: the last that was finished, from 0."""

    weights: Weights
    moments: Moments
    epoch: int
    scaler: Mapping[str, float]


@dataclass(frozen=True)
class Looked:
    """What was measured after an epoch.

    line: values for log.txt. scalars: the same for TensorBoard, by tag. picture: of reconstructions. score: by which the
    best checkpoint is told, the higher the better; None: not measured.
    """

    line: Mapping[str, Any] = field(default_factory=dict)
    scalars: Mapping[str, float] = field(default_factory=dict)
    picture: Image.Image | None = None
    score: float | None = None


class Task(ABC):
    """One run's model, batches and measurements; made from its request before anything is computed.

    loss_tag, lr_tag: TensorBoard's tags, as the official script has them.
    """

    loss_tag, lr_tag = "loss", "lr"
    batches: Batches
    config: Config

    def __init__(self, request: Request):
        self.request = request

    @abstractmethod
    def weights(self) -> Weights:
        """The weights that a new run begins with, by spec name. Raises Problem for a file that does not fit."""

    @abstractmethod
    def official(self, path: Path) -> Official:
        """A training checkpoint of the official code. Raises Problem where it cannot be gone on from."""

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """The options of backends' Training."""

    @abstractmethod
    def look(self, runtime: Runtime, model: Any, epoch: int, last: bool, average: Average | None) -> Looked:
        """Measure after an epoch, counted from 0. last: of the run. average: of the weights, if there is one."""

    @abstractmethod
    def rank(self, facts: Facts) -> float | None:
        """The higher the better, of a checkpoint at an epoch's end; None: not measured."""

    def resumed(self, facts: Facts) -> Config:
        """The model of a checkpoint that is gone on from."""
        return self.config

    def describe(self) -> dict[str, Any]:
        """More facts of the data, that a resumed run is held against."""
        return {}
