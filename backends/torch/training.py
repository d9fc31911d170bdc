"""Training in PyTorch. The five training.py files read alike: what they share is in ../training.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..optimization import Optimizer
from ..runtime import objective
from ..spec import NoTaps
from ..training import PRECISIONS, replaced
from ..training import Training as Shared
from .fused import fused_forwards

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Training(Shared):
    """A model in training in PyTorch: eager, with fused attention, in mixed precision by its autocast.

    Compiled it is torch.compile's: a minute of a C++ compiler before the first step.
    """

    PRECISIONS = dict.fromkeys(("cpu", "cuda"), PRECISIONS)
    COMPILED = False

    def __init__(self, runtime: Any, model: Any, optimizer: Optimizer, **options: Any):
        super().__init__(runtime, model, optimizer, **options)
        self.objective = torch.compile(objective) if self.compiled else objective
        self.names, self.parameters = zip(*runtime.trained(model).items())
        self.fused = fused_forwards(model)
        self.device = self.parameters[0].device.type

    def gradients(self, inputs: Mapping[str, Tensor], factor: float) -> tuple[float, list[Tensor]]:
        """The loss of a batch of tensors, and the packed gradients of factor times it, in the parameters' precision."""
        mixed = torch.autocast(self.device, DTYPES[self.precision], enabled=self.precision != "float32")
        with replaced(self.fused), mixed:
            loss, statistics = self.objective(self.model, inputs, NoTaps(), self.mask_ratio)
        self.statistics = tuple(each.detach() for each in statistics)
        scaled = loss if factor == 1.0 else loss * factor
        gradients = torch.autograd.grad(scaled, self.parameters, allow_unused=True, materialize_grads=True)
        return loss.item(), self.optimizer.packed(dict(zip(self.names, gradients)))

    def add(self, held: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
        """The sum of packed gradients, in the memory of those that are held."""
        torch._foreach_add_(held, gradients)
        return held
