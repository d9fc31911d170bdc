"""Training in NumPy. The five training.py files read alike: what they share is in ../training.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from ..training import Training as Shared


class Training(Shared):
    """A model in training in NumPy: nothing is compiled, and nothing is cast."""

    REASON = "It is the oracle, whose gradients are computed in the precision of its weights."
    COMPILED = False

    def gradients(self, inputs: Mapping[str, Any], factor: float) -> tuple[float, list[NDArray[Any]]]:
        """The loss of a batch, and the packed gradients of factor times it."""
        loss, found = super().gradients(inputs, 1.0)  # the backward pass, by hand, is that of the loss itself
        return loss, [factor * vector for vector in found]
