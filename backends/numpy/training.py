"""Training in NumPy. The five training.py files read alike: what they share is in ../training.py."""

from __future__ import annotations

from collections.abc import Mapping

from ..training import Training as Shared
from .sums import Array


class Training(Shared):
    """A model in training in NumPy: in float64 the oracle's."""

    REASON = "Its gradients are written by hand, in the precision of its weights."

    def gradients(self, inputs: Mapping[str, Array], factor: float) -> tuple[float, list[Array]]:
        """The loss of a batch of tensors, and the packed gradients of factor times it.

        The backward pass by hand is that of the loss itself.
        """
        loss, gradients = super().gradients(inputs, 1.0)
        return loss, gradients if factor == 1.0 else [factor * gradient for gradient in gradients]
