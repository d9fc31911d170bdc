"""What a training step in OneFlow, which records no taps, computes another way than the models: their layer norms on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import oneflow as flow
from oneflow import Tensor, nn


def fused_forwards(model: Any) -> Mapping[nn.LayerNorm, Callable[..., Tensor]]:
    """For each of a model's layer norms on a CPU what takes its forward's place; on a device OneFlow's kernel stays.

    That of the CPU takes five times as long for the same roundoff (docs/benchmarks/training.md). As a function with a
    gradient of its own it cannot stand in the models: nn.Graph takes none.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, nn.LayerNorm)]
    return {layer: partial(_normed, layer) for layer in layers if not layer.weight.is_cuda}


def _normed(layer: nn.LayerNorm, x: Tensor) -> Tensor:
    """x [..., D] to [..., D], with the layer's scale and shift [D]."""
    rows = x.reshape(-1, x.shape[-1])
    ones = flow.ones(1, x.shape[-1], dtype=x.dtype)
    eps = flow.tensor([layer.eps], dtype=x.dtype)  # a function with a gradient takes tensors alone
    return _LayerNorm.apply(rows, layer.weight, layer.bias, ones, eps).reshape(*x.shape)


class _LayerNorm(flow.autograd.Function):
    """Layer norm of rows (Ba et al. 2016) and its gradients.

    A column is spread over its row by a product with ones: exact, and where OneFlow broadcasts a column many times faster.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, ones: Tensor, eps: Tensor) -> Tensor:
        """x [n, D], weight and bias [D], ones [1, D], eps [1] to [n, D]."""
        x = x - x.mean(dim=1, keepdim=True) @ ones
        scale = flow.rsqrt((x * x).mean(dim=1, keepdim=True) + eps) @ ones
        x = x * scale
        ctx.save_for_backward(x, scale, weight, ones)
        return x * weight + bias

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        """dy [n, D] to the gradients of x, weight and bias."""
        x, scale, weight, ones = ctx.saved_tensors
        dx = dy * weight
        dx = scale * (dx - dx.mean(dim=1, keepdim=True) @ ones - x * ((dx * x).mean(dim=1, keepdim=True) @ ones))
        return dx, (dy * x).sum(dim=0), dy.sum(dim=0), None, None
