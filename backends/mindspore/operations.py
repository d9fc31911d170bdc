"""The operations that people build networks of, as they spell them in MindSpore.

The operations.py of the frameworks read alike line for line: the names of backends/operations.py in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops
from numpy.typing import NDArray

from ..operations import Gradients, differentiated, require_operation
from .weights import to_numpy


def _transposed_convolution(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """As nn.Conv2dTranspose computes it; ops.conv_transpose2d has no kernel for a CPU."""
    N, C, height, width = x.shape
    kernel = ops.Conv2DTranspose(C, 4, pad_mode="pad", pad=1, stride=2)
    return ops.BiasAdd()(kernel(x, w, (N, w.shape[1], 2 * height, 2 * width)), b)


OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "linear": ops.dense,
    "matrix product": ops.matmul,
    "batched matrix product": ops.matmul,
    "convolution": lambda x, w, b: ops.conv2d(x, w, b, stride=8),
    "convolution of 3 x 3": lambda x, w, b: ops.conv2d(x, w, b, pad_mode="pad", padding=1),
    "strided convolution": lambda x, w, b: ops.conv2d(x, w, b, stride=2, pad_mode="pad", padding=1),
    "depthwise convolution": lambda x, w, b: ops.conv2d(x, w, b, pad_mode="pad", padding=1, groups=x.shape[1]),
    "transposed convolution": _transposed_convolution,
    "embedding": lambda ids, w: ops.gather(w, ids, 0),  # that of nn.Embedding
    "layer norm": lambda x, w, b: ops.LayerNorm(-1, -1, 1e-5)(x, w, b)[0],  # that of nn.LayerNorm
    "batch norm": lambda x, m, v, w, b: ops.batch_norm(x, m, v, w, b, training=False, eps=1e-5),
    "batch norm in training": lambda x, m, v, w, b: ops.batch_norm(x, m, v, w, b, training=True, eps=1e-5),
    "group norm": lambda x, w, b: ops.group_norm(x, 4, w, b, eps=1e-5),
    "softmax": lambda x: ops.softmax(x, axis=-1),
    "log softmax": lambda x: ops.log_softmax(x, axis=-1),
    "logsumexp": lambda x: ops.logsumexp(x, -1),
    "cross entropy": ops.cross_entropy,
    "negative log likelihood": ops.nll_loss,
    "mean squared error": ops.mse_loss,
    "mean absolute error": ops.l1_loss,
    "smooth l1 loss": lambda x, target: ops.smooth_l1_loss(x, target, reduction="mean"),
    "binary cross entropy": ops.binary_cross_entropy_with_logits,
    "exp": ops.exp,
    "log": ops.log,
    "log1p": ops.log1p,
    "expm1": ops.expm1,
    "square root": ops.sqrt,
    "reciprocal square root": ops.rsqrt,
    "reciprocal": ops.reciprocal,
    "division": ops.div,
    "power": ops.pow,
    "cube": lambda x: x**3,
    "erf": ops.erf,
    "sin": ops.sin,
    "cos": ops.cos,
    "tanh": ops.tanh,
    "sigmoid": ops.sigmoid,
    "log sigmoid": ops.logsigmoid,
    "softplus": ops.softplus,
    "silu": ops.silu,
    "gelu": ops.gelu,
    "tanh gelu": lambda x: ops.gelu(x, approximate="tanh"),
    "quick gelu": ops.fast_gelu,
    "hard sigmoid": ops.hardsigmoid,
    "hard swish": ops.hardswish,
    "mish": ops.mish,
    "elu": ops.elu,
    "leaky relu": lambda x: ops.leaky_relu(x, 0.01),
    "relu": ops.relu,
    "max pool": lambda x: ops.max_pool2d(x, 3, stride=2, padding=1),
    "average pool": lambda x: ops.avg_pool2d(x, 2, stride=2),
    "adaptive average pool": lambda x: ops.adaptive_avg_pool2d(x, 7),
    "bilinear interpolation": lambda x: ops.interpolate(x, (24, 24), mode="bilinear", align_corners=False),
    "bilinear interpolation of corners": lambda x: ops.interpolate(x, (24, 24), mode="bilinear", align_corners=True),
    "bicubic interpolation": lambda x: ops.interpolate(x, (24, 24), mode="bicubic", align_corners=False),
    "mean": lambda x: x.mean(axis=-1),
    "sum": lambda x: x.sum(axis=-1),
    "variance": lambda x: ops.var(x, axis=-1, ddof=0),
    "standard deviation": lambda x: ops.std(x, axis=-1, ddof=0),
    "norm": lambda x: ops.norm(x, dim=-1),
    "normalize": lambda x: ops.L2Normalize(axis=-1)(x),
    "cumulative sum": lambda x: ops.cumsum(x, axis=-1),
}
ABSENT = {
    "einsum": "it has no kernel there",
    "attention": "people compose it",
}


def value_and_gradients(
    operation: str, arrays: Mapping[str, NDArray[Any]], dy: NDArray[Any] | None = None, double: bool = False
) -> Gradients:
    """An operation's output and, given the gradient dy for it, those for its arguments, by their names.

    arrays: by the names of backends/operations.py. Computed in float32, double: in float64. Raises OperationProblem for
    an operation that MindSpore lacks.
    """
    function = require_operation("mindspore", OPERATIONS, ABSENT, operation, arrays)
    dtype = ms.float64 if double else ms.float32
    tensors = {name: _tensor(array, dtype) for name, array in arrays.items()}
    if dy is None:
        return to_numpy(function(*tensors.values())), {}
    positions = tuple(list(arrays).index(name) for name in differentiated(arrays))
    dy_tensor = _tensor(dy, dtype)
    out = []

    def weighted(*arguments: Tensor) -> Tensor:
        out.append(function(*arguments))
        return (out[0] * dy_tensor).sum()  # whose gradient is dy, exactly

    gradients = ms.grad(weighted, positions)(*tensors.values())
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    return to_numpy(out[0]), {name: to_numpy(gradient) for name, gradient in zip(differentiated(arrays), gradients)}


def _tensor(array: NDArray[Any], dtype: Any) -> Tensor:
    return Tensor(np.array(array), dtype if np.issubdtype(array.dtype, np.floating) else ms.int32)
