"""What PyTorch computes in one kernel where the models take several steps: for training, which records no taps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from .blocks import Attention


def fused_forwards(model: Any) -> Mapping[Attention, Callable[..., Tensor]]:
    """For each of a model's attention layers what takes its forward's place; made once, or torch.compile begins anew.

    It is PyTorch's scaled dot-product attention, which keeps no scores [N, H, T, T].
    """
    return {layer: partial(_attend, layer) for layer in model.modules() if isinstance(layer, Attention)}


def _attend(layer: Attention, x: Tensor, out: dict[str, Tensor], name: str) -> Tensor:
    """What Attention.forward computes, x [N, T, D] to [N, T, D], without its taps."""
    N, T, D = x.shape
    x = layer.qkv(x).reshape(N, T, 3, layer.num_heads, D // layer.num_heads)
    q, k, v = x.permute(2, 0, 3, 1, 4)  # each [N, H, T, D/H]
    x = F.scaled_dot_product_attention(q, k, v, scale=layer.scale)
    return layer.proj(x.transpose(1, 2).reshape(N, T, D))
