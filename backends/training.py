"""Training, a step at a time: what the five training.py files share. A framework adds how it compiles the gradients of a batch.

Source: facebookresearch/mae engine_pretrain.py (accumulation, loss scale); the step is compiled and records no taps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .averaging import Average
from .naming import Arrays
from .optimization import Optimizer, clip_scale
from .runtime import RuntimeProblem, Watched, objective
from .spec import NoTaps

if TYPE_CHECKING:
    from .runtime import Runtime

PRECISIONS = ("float32", "bfloat16", "float16")


class Training:
    """A model in training: the gradients of a batch, whole or in parts, then the update, then that of the weights' average.

    A batch norm goes by the statistics of each part (docs/decisions/batch-norm-of-the-probe.md); its running statistics change
    with the update. Raises RuntimeProblem for a precision that the framework does not train in here.
    """

    # What a framework computes in while weights, moments and updates stay float32, and why it has no other.
    PRECISIONS: Mapping[str, tuple[str, ...]] = {"cpu": ("float32",)}  # by device
    REASON = "Its gradients are computed in the precision of its weights."
    statistics: tuple[Any, ...] = ()  # of the last batch whose gradients were taken: mean and variance at a batch norm
    COMPILED = True  # whether it pays to compile the gradients, where nobody says so

    def __init__(
        self,
        runtime: Runtime,
        model: Any,
        optimizer: Optimizer,
        mask_ratio: float = 0.75,
        precision: str = "float32",
        device: str = "cpu",
        compiled: bool | None = None,
        average: Average | None = None,
    ):
        there = self.PRECISIONS.get(device, ("float32",))
        if precision not in there:
            raise RuntimeProblem(
                f"{runtime.framework} trains in {', '.join(there)} on the {device} here, not in {precision}. {self.REASON} "
                "Set precision to one of these."
            )
        self.runtime = runtime
        self.model = model
        self.optimizer = optimizer
        self.mask_ratio = mask_ratio
        self.precision = precision
        self.compiled = self.COMPILED if compiled is None else compiled
        self.average = average
        self._held: list[Any] | None = None  # packed gradients of the parts so far
        self._normed: list[tuple[Any, Any, int]] = []  # mean and variance of each, and its number of images

    def accumulate(self, inputs: Arrays, share: float = 1.0, scale: float = 1.0) -> float:
        """Add the gradients of a part of the batch; returns the part's loss.

        inputs: imgs [n, C, height, width] float32 with noise [n, L] float32 or labels [n]. share: of the batch's images
        that are in this part. scale: the loss scale, by which all gradients are larger until `update`.
        """
        count = len(inputs["imgs"])
        if getattr(self.model.config, "head_norm", False) and count < 2:
            raise RuntimeProblem(
                "A batch norm in training takes mean and variance over the images of each part of a batch, and got a part of "
                "one image. Give a larger batch_size, or fewer parts (accumulate)."
            )
        loss, gradients = self.gradients(self.runtime.tensors(self.model, inputs), share * scale)
        if self.statistics:
            self._normed.append((*self.statistics, count))
        self._held = gradients if self._held is None else self.add(self._held, gradients)
        return loss

    def update(self, lr: float, scale: float = 1.0) -> float:
        """Clip the gradients, change the weights; returns the gradients' norm before clipping.

        Where the norm is not finite, weights, moments, running statistics and average stay as they were.
        """
        assert self._held is not None, "accumulate comes first"
        gradients, self._held = self._held, None
        normed, self._normed = self._normed, []
        norm = self.optimizer.norm(gradients) / scale
        if math.isfinite(norm):
            self.optimizer.update(gradients, lr, clip_scale(norm, self.optimizer.settings) / scale)
            for mean, var, count in normed:
                self.model.head_norm.follow(mean, var, count)
            if self.average is not None:
                self.average.update()
        return norm

    def discard(self) -> None:
        """Forget the gradients of the parts so far; the next part begins another batch."""
        self._held, self._normed = None, []

    def gradients(self, inputs: Mapping[str, Any], factor: float) -> tuple[float, list[Any]]:
        """The loss of a batch of tensors, and the packed gradients of factor times it. This one is eager.

        The batch's mean and variance at a batch norm are left in `statistics`.
        """

        def scaled(model: Any, inputs: Mapping[str, Any], out: dict[str, Any]) -> Any:
            value, self.statistics = objective(model, inputs, out, self.mask_ratio)
            losses.append(value)
            return value if factor == 1.0 else value * factor

        losses: list[Any] = []
        trained = self.runtime.trained(self.model)
        _, gradients = self.runtime.differentiate(scaled, self.model, inputs, trained, Watched(NoTaps(), (), {}))
        return float(self.runtime.to_numpy(losses[0])), self.optimizer.packed(gradients)

    def add(self, held: list[Any], gradients: list[Any]) -> list[Any]:
        """The sum of packed gradients, tensor by tensor; those that are held may be changed."""
        return [a + b for a, b in zip(held, gradients)]


@contextmanager
def replaced(forwards: Mapping[Any, Callable[..., Any]]) -> Iterator[None]:
    """Within this context these layers are computed by other functions of the same meaning.

    The layers are as they were afterwards: a model in training can be recorded, copied and pickled.
    """
    for layer, forward in forwards.items():
        vars(layer)["forward"] = forward  # which is looked up before the class's
    try:
        yield
    finally:
        for layer in forwards:
            del vars(layer)["forward"]
