"""One step of training: a batch, whole or in parts, its gradients, the update."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from ..backends.naming import Arrays
from ..backends.training import Training


class Taken(NamedTuple):
    """What one step tells: the loss before it, and the global norm of its gradients before clipping."""

    loss: float
    norm: float


def take(training: Training, batch: Arrays, lr: float, accumulate: int = 1, scale: float = 1.0) -> Taken:
    """One step at a learning rate. batch: imgs [N, C, height, width] with noise [N, L] or labels [N].

    accumulate: the number of parts whose gradients are added up, of sizes that differ by one at most. scale: the loss scale.
    Where loss or norm is not finite, the weights stay as they were.
    """
    size = len(batch["imgs"])
    loss = 0.0
    for part in parts(size, accumulate):
        share = (part.stop - part.start) / size
        loss += share * training.accumulate({name: array[part] for name, array in batch.items()}, share, scale)
    if not math.isfinite(loss):
        training.discard()
        return Taken(loss, math.nan)
    return Taken(loss, training.update(lr, scale))


def parts(size: int, count: int) -> Iterator[slice]:
    """`size` images cut into `count` runs of them, at most one image longer than others; none is left out."""
    for part in range(count):
        yield slice(size * part // count, size * (part + 1) // count)
