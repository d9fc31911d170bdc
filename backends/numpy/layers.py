"""The few layers that the NumPy model is made of, and the base class that names their parameters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.special import ndtr

from .sums import Array, matmul, ordered_matmul, row_mean


class Module:
    """Attributes that are arrays are parameters; modules and lists of modules are searched in order of assignment."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run forward."""
        return self.forward(*args, **kwargs)  # type: ignore[attr-defined]

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Array]]:
        """Every parameter's name and array."""
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray):
                yield prefix + name, value
            elif isinstance(value, Module):
                yield from value.named_parameters(f"{prefix}{name}.")
            elif isinstance(value, list):
                for i, child in enumerate(value):
                    yield from child.named_parameters(f"{prefix}{name}.{i}.")

    def set_parameter(self, name: str, array: Array) -> None:
        """Replace one parameter, by its name."""
        *path, last = name.split(".")
        owner: Any = self
        for step in path:
            owner = owner[int(step)] if isinstance(owner, list) else getattr(owner, step)
        setattr(owner, last, array)


class Linear(Module):
    """y = x W^T + b, with weight [out, in]."""

    def __init__(self, in_dim: int, out_dim: int):
        self.weight: Array = np.zeros((out_dim, in_dim), np.float32)
        self.bias: Array = np.zeros(out_dim, np.float32)

    def forward(self, x: Array) -> Array:
        """x [..., in] to [..., out]."""
        return matmul(x, self.weight.T) + self.bias


class LayerNorm(Module):
    """Normalise the last axis by its mean and biased variance, then scale and shift."""

    def __init__(self, dim: int, eps: float):
        self.eps = eps
        self.weight: Array = np.zeros(dim, np.float32)
        self.bias: Array = np.zeros(dim, np.float32)

    def forward(self, x: Array) -> Array:
        """x [..., D] to [..., D]."""
        return self.normalised(x)[0] * self.weight + self.bias

    def normalised(self, x: Array) -> tuple[Array, Array]:
        """x with mean 0 and variance 1, and 1 / standard deviation [..., 1]."""
        x = x - x.mean(axis=-1, keepdims=True)
        rstd = 1 / np.sqrt((x * x).mean(axis=-1, keepdims=True) + self.eps)
        return x * rstd, rstd


class Conv2d(Module):
    """A convolution whose stride is its kernel size, as one matrix product over patches."""

    def __init__(self, in_chans: int, dim: int, patch_size: int):
        self.weight: Array = np.zeros((dim, in_chans, patch_size, patch_size), np.float32)
        self.bias: Array = np.zeros(dim, np.float32)

    def forward(self, imgs: Array) -> Array:
        """imgs [N, C, height, width] to [N, D, rows, columns]."""
        D, p = self.weight.shape[0], self.weight.shape[-1]
        x = ordered_matmul(patch_columns(imgs, p), self.weight.reshape(D, -1).T) + self.bias  # [N, L, D]
        return x.transpose(0, 2, 1).reshape(-1, D, imgs.shape[2] // p, imgs.shape[3] // p)


def patch_columns(imgs: Array, p: int) -> Array:
    """imgs [N, C, height, width] to the convolution's input matrix [N, L, C*p*p], each row channel first."""
    N, C, height, width = imgs.shape
    x = imgs.reshape(N, C, height // p, p, width // p, p)
    return x.transpose(0, 2, 4, 1, 3, 5).reshape(N, -1, C * p * p)


def unbiased_variance(x: Array) -> Array:
    """Variance [..., 1] over the last axis of x [..., n], divided by n - 1."""
    centred = x - row_mean(x)
    return row_mean(centred * centred) * (x.shape[-1] / (x.shape[-1] - 1))


def softmax(x: Array) -> Array:
    """Softmax over the last axis."""
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


def log_softmax(x: Array) -> Array:
    """The logarithm of softmax, finite where softmax itself underflows."""
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def gelu(x: Array) -> Array:
    """Exact GELU: x times the standard normal distribution function (the erf form, not the tanh approximation)."""
    return x * ndtr(x)
