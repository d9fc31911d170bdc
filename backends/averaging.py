"""The exponential moving average of a model's weights in training (EMA): what the five optimizer.py files share.

Source: timm 1.0 `ModelEmaV2`, and `get_decay` of `ModelEmaV3` for the warm-up. The official code has none.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from numpy.typing import NDArray

from .config import Config
from .naming import native
from .packing import Packing
from .spec import Param, params

if TYPE_CHECKING:
    from .runtime import Runtime


@dataclass(frozen=True)
class Averaging:
    """The numbers of an average: after each update it is decay times itself and 1 - decay times the weights.

    warmup: the decay rises to `decay` as 1 - (1 + s / gamma) ** -power, where s counts updates after the first, which copies
    the weights; power 2/3 is for long runs, 3/4 for short ones.
    """

    decay: float = 0.9999
    warmup: bool = False
    gamma: float = 1.0
    power: float = 2 / 3

    def at(self, update: int) -> float:
        """The decay at an update, counted from 1."""
        if not self.warmup:
            return self.decay
        return min(1 - (1 + (update - 1) / self.gamma) ** -self.power, self.decay)


class Averaged(NamedTuple):
    """What is kept of an average in a checkpoint: its updates, and its tensors by spec name, in the spec's shapes.

    They are those that training changes; the others are the model's own.
    """

    updates: int
    weights: Mapping[str, NDArray[Any]]


class Average(Packing):
    """The average of what training changes in a model: its trained parameters, and the batch norm's running statistics.

    It begins as a copy of the model's. Each framework's optimizer.py adds its packing and the update.
    """

    def __init__(self, runtime: Runtime, model: Any, averaging: Averaging):
        self.runtime, self.model, self.averaging = runtime, model, averaging
        self.names = [param.name for param in changed(model.config)]
        self.updates = 0
        self.vector = self._own()

    @abstractmethod
    def move(self, own: Any, decay: float) -> None:
        """Make the vector [n] decay times itself and 1 - decay times `own`, the model's."""

    def update(self) -> None:
        """Take the model's weights in, after each of the optimizer's updates."""
        self.updates += 1
        self.move(self._own(), self.averaging.at(self.updates))

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Within this context the model has the average's weights; afterwards its own again, bit for bit."""
        own = self._own()
        self._put(self.vector)
        try:
            yield
        finally:
            self._put(own)

    def state(self) -> Averaged:
        """A copy of what is to be kept."""
        shapes = {param.name: param.shape for param in changed(self.model.config)}
        tensors = zip(self.names, self.unpack(self.vector, self._tensors()))
        return Averaged(self.updates, {n: self.runtime.to_numpy(t).reshape(shapes[n]) for n, t in tensors})

    def load_state(self, state: Averaged) -> None:
        """Go on from what was kept."""
        shapes = [tuple(tensor.shape) for tensor in self._tensors()]
        tensors = [
            self.runtime.from_numpy(state.weights[name].reshape(shape), self.model)
            for name, shape in zip(self.names, shapes)
        ]
        self.updates = state.updates
        self.vector = self.pack(tensors)

    def _tensors(self) -> list[Any]:
        parameters = self.runtime.named_parameters(self.model)
        return [parameters[native(self.runtime.framework, p).name] for p in changed(self.model.config)]

    def _own(self) -> Any:
        """The model's, as one vector [n]: a copy."""
        return self.pack(self._tensors())

    def _put(self, vector: Any) -> None:
        tensors = self._tensors()
        self.assign(tensors, self.unpack(vector, tensors))


def changed(config: Config) -> tuple[Param, ...]:
    """What training changes, in the spec's order: the trained parameters, and running statistics."""
    return tuple(p for p in params(config) if p.trainable or p.role in ("norm.mean", "norm.var"))
