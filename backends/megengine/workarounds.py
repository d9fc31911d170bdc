"""What MegEngine lacks, or computes less accurately than the other frameworks."""

from __future__ import annotations

import megengine as mge
import megengine.functional as F
import megengine.module as M
import numpy as np
from megengine import Tensor


class LayerNorm(M.Module):
    """Layer normalisation over the last axis, composed.

    MegEngine's fused operator takes mean and variance in one chain of float32 sums: 3.6 u off on rows of 768, 18 u where the
    mean is three deviations (docs/benchmarks/operations.md).
    """

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.eps = eps
        self.weight = mge.Parameter(F.ones((dim,)))
        self.bias = mge.Parameter(F.zeros((dim,)))

    def forward(self, x: Tensor) -> Tensor:
        """x [..., D] to [..., D]."""
        d = x - F.mean(x, axis=-1, keepdims=True)
        return d / F.sqrt(F.mean(d * d, axis=-1, keepdims=True) + self.eps) * self.weight + self.bias


class PatchConv2d(M.Conv2d):
    """A convolution whose stride is its kernel, as one matrix product.

    MegEngine's CPU kernel for the gradient of a convolution's weight takes as long as all blocks of a small model together.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x [N, C, height, width] to [N, D, rows, columns]."""
        N, C, height, width = x.shape
        D, _, p, _ = self.weight.shape
        rows, columns = height // p, width // p
        x = x.reshape(N, C, rows, p, columns, p).transpose(0, 2, 4, 1, 3, 5).reshape(-1, C * p * p)
        x = F.linear(x, self.weight.reshape(D, -1), self.bias.reshape(-1))  # [N * rows * columns, D]
        return x.reshape(N, rows, columns, D).transpose(0, 3, 1, 2)


def contiguous(x: Tensor) -> Tensor:
    """x in memory of its own, where it may be a slice that is to meet a tensor without its first axis.

    MegEngine 1.13's CPU kernel for that reads the slice as if its rows lay one after another: wrong numbers, no error.
    F.copy and reshape return the slice again, and a compiled model drops x * 1; an index by a tensor makes a tensor.
    """
    return x[arange(x.shape[0], x)]


def take_tokens(x: Tensor, ids: Tensor) -> Tensor:
    """Tokens ids [N, K] of x [N, L, D], as [N, K, D].

    Not F.gather: it builds its indices with F.linspace (see arange).
    """
    return x[arange(x.shape[0], x)[:, None], ids]


def arange(count: int, like: Tensor) -> Tensor:
    """The numbers 0 to count - 1, int32, on the device of `like`.

    Not F.arange: F.linspace, which it calls, has a queued CPU kernel that can read another call's bounds.
    """
    return mge.tensor(np.arange(count, dtype="<i4"), device=like.device)
