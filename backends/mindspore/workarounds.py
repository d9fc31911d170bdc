"""What MindSpore's own layers lack for exact work in float32 and float64, made of operations that have both.

Measured on MindSpore 2.9 for CPU: a Python number that meets a float64 tensor is rounded to float32 first;
nn.LayerNorm computes in float32 inside; nn.Conv2d refuses float64; ops.log_softmax is 6e-6 off in any precision.
Slow: `/` takes six times as long as the RealDiv beneath it, and cutting a tensor in an assignment six times as long as unbind.
Written so that ms.jit compiles a model too, where tensor.transpose(0, 1) is a permutation and expand(2, 3) fails.
"""

from __future__ import annotations

import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from .. import config

divide = ops.operations.RealDiv()

# Python, even where ms.jit compiles the model: a compiled function may not raise errors of our own kind.
keep_length = ops.constexpr(config.keep_length)


def zeros(*shape: int) -> Tensor:
    """A float32 tensor of zeros. Made by NumPy: a kernel run here would fix the device before one is chosen."""
    return Tensor(np.zeros(shape, np.float32))


def constant(value: float, like: Tensor) -> Tensor:
    """A number [] in the dtype of `like`."""
    return Tensor(value, like.dtype)


def unbiased_variance(x: Tensor) -> Tensor:
    """Variance [..., 1] over the last axis of x [..., n], divided by n - 1."""
    centred = x - x.mean(axis=-1, keep_dims=True)
    return ops.square(centred).sum(axis=-1, keepdims=True) / constant(x.shape[-1] - 1, x)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy [] of logits [N, classes] against labels [N]; ops.cross_entropy has log_softmax's error."""
    picked = ops.gather_elements(logits, 1, labels[:, None])[:, 0]
    return (ops.logsumexp(logits, -1) - picked).mean()


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross entropy [] of logits [N, classes] against soft targets [N, classes], composed for the same reason."""
    return (targets * (ops.logsumexp(logits, -1, True) - logits)).sum(axis=-1).mean()


class LayerNorm(nn.Cell):
    """Layer norm over the last axis, from its mean and variance; parameters gamma and beta [dim] as in nn.LayerNorm."""

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.eps = eps
        self.gamma = Parameter(Tensor(np.ones(dim, np.float32)))
        self.beta = Parameter(zeros(dim))

    def construct(self, x: Tensor) -> Tensor:
        """x [..., dim] to [..., dim]."""
        centred = x - x.mean(axis=-1, keep_dims=True)
        var = ops.square(centred).mean(axis=-1, keep_dims=True)
        return divide(centred, ops.sqrt(var + constant(self.eps, x))) * self.gamma + self.beta


class PatchConv(nn.Cell):
    """A convolution whose stride is its kernel, as one matrix product; weight [dim, C, p, p], bias [dim]."""

    def __init__(self, in_chans: int, dim: int, patch_size: int):
        super().__init__()
        self.weight = Parameter(zeros(dim, in_chans, patch_size, patch_size))
        self.bias = Parameter(zeros(dim))

    def construct(self, imgs: Tensor) -> Tensor:
        """imgs [N, C, height, width] to [N, dim, rows, columns]."""
        N, C, height, width = imgs.shape
        dim, _, p, _ = self.weight.shape
        rows, columns = height // p, width // p
        x = imgs.reshape(N, C, rows, p, columns, p).permute(0, 2, 4, 1, 3, 5).reshape(N, rows * columns, C * p * p)
        x = ops.matmul(x, self.weight.reshape(dim, C * p * p).swapaxes(0, 1)) + self.bias  # [N, L, dim]
        return x.swapaxes(1, 2).reshape(N, dim, rows, columns)
