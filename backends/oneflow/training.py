"""Training in OneFlow. The five training.py files read alike: what they share is in ../training.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from oneflow import Tensor

from ..optimization import Optimizer
from ..training import Training as Shared
from ..training import replaced
from .fused import fused_forwards


class Training(Shared):
    """A model in training in OneFlow, always eager."""

    REASON = "OneFlow 0.9 ignores autocast on the CPU, without an error; on a GPU it was not tried."

    def __init__(self, runtime: Any, model: Any, optimizer: Optimizer, **options: Any):
        super().__init__(runtime, model, optimizer, **options)
        self.fused = fused_forwards(model)

    def gradients(self, inputs: Mapping[str, Tensor], factor: float) -> tuple[float, list[Tensor]]:
        """The loss of a batch of tensors, and the packed gradients of factor times it."""
        with replaced(self.fused):
            return super().gradients(inputs, factor)
