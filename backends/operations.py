"""The operations that people build networks of, by name: what every backend's operations.py spells in its framework.

Names are those of the spec's taps where it has them, and plain field terms else. Each comes with the names of its arguments,
in the order in which a framework's function takes them; docs/benchmarks/operations.md lists how accurate each one is.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from ..files.errors import Problem
from .runtime import load_backend

X, XY = ("x",), ("x", "y")
AFFINE, NORM = ("x", "weight", "bias"), ("x", "mean", "variance", "weight", "bias")
WITH_TARGET, WITH_LABELS = ("x", "target"), ("x", "labels")

# Shapes: x is [rows, width] where an operation works on the last axis and [N, C, height, width] on images; the rest is said.
OPERATIONS: dict[str, tuple[str, ...]] = {
    "linear": AFFINE,  # weight [out, width]
    "matrix product": XY,  # [M, K] and [K, N]
    "batched matrix product": XY,  # [B, M, K] and [B, K, N]
    "einsum": XY,  # [B, M, K] and [B, N, K] to [B, M, N]
    "convolution": AFFINE,  # of patches: 8 x 8, its stride being its kernel
    "convolution of 3 x 3": AFFINE,  # padding 1
    "strided convolution": AFFINE,  # 3 x 3, stride 2, padding 1
    "depthwise convolution": AFFINE,  # 3 x 3, padding 1; weight [C, 1, 3, 3]
    "transposed convolution": AFFINE,  # 4 x 4, stride 2, padding 1; weight [in, out, 4, 4]
    "attention": ("q", "k", "v"),  # each [N, heads, T, width]
    "embedding": ("ids", "weight"),  # ids [N, T], weight [count, width]
    "layer norm": AFFINE,  # over the last axis, eps 1e-5
    "batch norm": NORM,  # by the given mean and variance [C], as in evaluation, eps 1e-5
    "batch norm in training": NORM,  # by the batch's, eps 1e-5
    "group norm": AFFINE,  # 4 groups, eps 1e-5
    "softmax": X,
    "log softmax": X,
    "logsumexp": X,
    "cross entropy": WITH_LABELS,  # labels [rows]; the mean over rows, as all losses here are the mean of their elements
    "negative log likelihood": WITH_LABELS,  # of x, which holds logarithms of probabilities
    "mean squared error": WITH_TARGET,
    "mean absolute error": WITH_TARGET,
    "smooth l1 loss": WITH_TARGET,
    "binary cross entropy": WITH_TARGET,  # of logits; targets are probabilities
    "exp": X,
    "log": X,
    "log1p": X,
    "expm1": X,
    "square root": X,
    "reciprocal square root": X,
    "reciprocal": X,
    "division": XY,
    "power": XY,
    "cube": X,  # x to the power of the number 3
    "erf": X,
    "sin": X,
    "cos": X,
    "tanh": X,
    "sigmoid": X,
    "log sigmoid": X,
    "softplus": X,
    "silu": X,
    "gelu": X,
    "tanh gelu": X,
    "quick gelu": X,  # x sigmoid(1.702 x), where a framework has it
    "hard sigmoid": X,
    "hard swish": X,
    "mish": X,
    "elu": X,
    "leaky relu": X,  # slope 0.01
    "relu": X,
    "max pool": X,  # 3 x 3, stride 2, padding 1
    "average pool": X,  # 2 x 2, stride 2
    "adaptive average pool": X,  # to 7 x 7
    "bilinear interpolation": X,  # to 24 x 24; corners of pixels are aligned, as with align_corners=False
    "bilinear interpolation of corners": X,  # the same with align_corners=True
    "bicubic interpolation": X,  # to 24 x 24, align_corners=False
    "mean": X,
    "sum": X,
    "variance": X,  # biased, as in a norm
    "standard deviation": X,  # biased
    "norm": X,  # the Euclidean one
    "normalize": X,  # to a Euclidean norm of 1
    "cumulative sum": X,
}  # fmt: skip

# Arguments without a gradient; integers have none either.
CONSTANTS = ("mean", "variance", "target")
# Sums of products: in which order these are added is free, and limits allow for it.
PRODUCTS = (
    "linear", "matrix product", "batched matrix product", "einsum", "convolution", "convolution of 3 x 3",
    "strided convolution", "depthwise convolution", "transposed convolution", "attention",
)  # fmt: skip

Gradients = tuple[NDArray[Any], dict[str, NDArray[Any]]]  # an operation's output, and gradients by argument


class Operations(Protocol):
    """A backend's operations.py: its functions by name, why it lacks the other names, and one run with its gradient."""

    OPERATIONS: Mapping[str, Callable[..., Any]]
    ABSENT: Mapping[str, str]

    def value_and_gradients(
        self, operation: str, arrays: Mapping[str, NDArray[Any]], dy: NDArray[Any] | None = ..., double: bool = ...
    ) -> Gradients: ...


class OperationProblem(Problem, ValueError):
    """An operation that a framework does not have, or that was given other arguments than it takes."""


def load_operations(framework: str) -> Operations:
    """Import one backend's operations. Raises RuntimeProblem, as load_backend does, where its framework does not work."""
    load_backend(framework)
    return cast(Operations, importlib.import_module(f"..{framework}.operations", __name__))


def differentiated(arrays: Mapping[str, NDArray[Any]]) -> list[str]:
    """The arguments of which a gradient is taken."""
    return [name for name, array in arrays.items() if np.issubdtype(array.dtype, np.floating) and name not in CONSTANTS]


def require_operation(
    framework: str, operations: Mapping[str, Any], absent: Mapping[str, str], operation: str, arrays: Mapping[str, Any]
) -> Any:
    """A framework's function for an operation. Raises OperationProblem where there is none or it takes other arguments."""
    if operation not in OPERATIONS:
        raise OperationProblem(f"Unknown operation {operation!r}; there are {', '.join(OPERATIONS)}.")
    if operation in absent:
        raise OperationProblem(f"{framework} has no {operation} on a CPU: {absent[operation]}. Leave it out.")
    if tuple(arrays) != OPERATIONS[operation]:
        raise OperationProblem(
            f"{operation} was given {', '.join(arrays) or 'nothing'}; give {', '.join(OPERATIONS[operation])}, in this order."
        )
    return operations[operation]
