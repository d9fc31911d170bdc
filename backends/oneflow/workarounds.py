"""What OneFlow computes less accurately than the other frameworks, or many times slower."""

from __future__ import annotations

import oneflow as flow
import oneflow.nn.functional as F
from oneflow import Tensor, nn


class PatchConv2d(nn.Conv2d):
    """A convolution whose stride is its kernel; on the CPU one matrix product, which OneFlow's kernel is 10 times slower than."""

    def forward(self, x: Tensor) -> Tensor:
        """x [N, C, height, width] to [N, D, rows, columns]."""
        if x.is_cuda:
            return super().forward(x)
        N, C, height, width = x.shape
        D, _, p, _ = self.weight.shape
        rows, columns = height // p, width // p
        x = x.reshape(N, C, rows, p, columns, p).permute(0, 2, 4, 1, 3, 5).reshape(-1, C * p * p)
        x = F.linear(x, self.weight.reshape(D, -1), self.bias)  # [N * rows * columns, D]
        return x.reshape(N, rows, columns, D).permute(0, 3, 1, 2)


def gelu(x: Tensor) -> Tensor:
    """The exact (erf) GELU.

    Times 1: OpenBLAS's AVX2 kernels leave the upper halves of the registers in use, with which OneFlow's gradient of GELU, of
    older instructions, is many times slower. The product's gradient, which comes between the two, clears them.
    """
    return F.gelu(x) * 1.0


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy of logits [N, classes] against labels [N], composed.

    OneFlow's own log_softmax is off by up to 13 units of roundoff in float32 on the CPU.
    """
    return (flow.logsumexp(logits, dim=-1) - flow.gather(logits, 1, labels[:, None])[:, 0]).mean()


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross entropy of logits [N, classes] against soft targets [N, classes], composed for the same reason."""
    return (targets * (flow.logsumexp(logits, dim=-1, keepdim=True) - logits)).sum(dim=-1).mean()
