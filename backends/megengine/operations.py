"""The operations that people build networks of, as they spell them in MegEngine.

The operations.py of the frameworks read alike line for line: the names of backends/operations.py in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import megengine as mge
import megengine.functional as F
import numpy as np
from megengine import Tensor
from megengine.autodiff import GradManager
from numpy.typing import NDArray

from ..operations import Gradients, OperationProblem, differentiated, require_operation
from .weights import to_numpy

C1 = (1, -1, 1, 1)  # the shape of a number for each channel

OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "linear": F.linear,
    "matrix product": F.matmul,
    "batched matrix product": F.matmul,
    "convolution": lambda x, w, b: F.conv2d(x, w, b.reshape(C1), stride=8),
    "convolution of 3 x 3": lambda x, w, b: F.conv2d(x, w, b.reshape(C1), padding=1),
    "strided convolution": lambda x, w, b: F.conv2d(x, w, b.reshape(C1), stride=2, padding=1),
    "depthwise convolution": lambda x, w, b: F.conv2d(
        x, w.reshape(-1, 1, 1, 3, 3), b.reshape(C1), padding=1, groups=x.shape[1]
    ),
    "transposed convolution": lambda x, w, b: F.conv_transpose2d(x, w, b.reshape(C1), stride=2, padding=1),
    "embedding": F.embedding,
    "layer norm": lambda x, w, b: F.layer_norm(x, x.shape[-1:], True, w, b, eps=1e-5),
    "batch norm": lambda x, m, v, w, b: F.batch_norm(
        x, m.reshape(C1), v.reshape(C1), w.reshape(C1), b.reshape(C1), training=False, eps=1e-5
    ),
    "batch norm in training": lambda x, m, v, w, b: F.batch_norm(
        x, m.reshape(C1), v.reshape(C1), w.reshape(C1), b.reshape(C1), training=True, eps=1e-5
    ),
    "group norm": lambda x, w, b: F.nn.group_norm(x, 4, True, w, b, eps=1e-5),
    "softmax": lambda x: F.softmax(x, axis=-1),
    "log softmax": lambda x: F.logsoftmax(x, axis=-1),
    "logsumexp": lambda x: F.logsumexp(x, axis=-1),
    "cross entropy": F.nn.cross_entropy,
    "mean squared error": F.nn.square_loss,
    "mean absolute error": F.nn.l1_loss,
    "binary cross entropy": F.nn.binary_cross_entropy,
    "exp": F.exp,
    "log": F.log,
    "log1p": F.log1p,
    "expm1": F.expm1,
    "square root": F.sqrt,
    "reciprocal": lambda x: 1 / x,
    "division": F.div,
    "power": F.pow,
    "cube": lambda x: x**3,
    "sin": F.sin,
    "cos": F.cos,
    "tanh": F.tanh,
    "sigmoid": F.sigmoid,
    "log sigmoid": F.logsigmoid,
    "softplus": F.softplus,
    "silu": F.silu,
    "gelu": F.gelu,
    "quick gelu": lambda x: x * F.sigmoid(1.702 * x),
    "hard sigmoid": F.hsigmoid,
    "hard swish": F.hswish,
    "leaky relu": lambda x: F.leaky_relu(x, 0.01),
    "relu": F.relu,
    "max pool": lambda x: F.max_pool2d(x, 3, stride=2, padding=1),
    "average pool": lambda x: F.avg_pool2d(x, 2),
    "adaptive average pool": lambda x: F.adaptive_avg_pool2d(x, 7),
    "bilinear interpolation": lambda x: F.vision.interpolate(x, (24, 24), mode="bilinear", align_corners=False),
    "bilinear interpolation of corners": lambda x: F.vision.interpolate(
        x, (24, 24), mode="bilinear", align_corners=True
    ),
    "bicubic interpolation": lambda x: F.vision.interpolate(x, (24, 24), mode="bicubic"),
    "mean": lambda x: F.mean(x, axis=-1),
    "sum": lambda x: F.sum(x, axis=-1),
    "variance": lambda x: F.var(x, axis=-1),
    "standard deviation": lambda x: F.std(x, axis=-1),
    "norm": lambda x: F.norm(x, axis=-1),
    "normalize": lambda x: F.normalize(x, axis=-1),
    "cumulative sum": lambda x: F.cumsum(x, axis=-1),
}
ABSENT = {
    "einsum": "there is no function for it",
    "attention": "people compose it",
    "negative log likelihood": "F.nn.cross_entropy takes probabilities instead",
    "smooth l1 loss": "people compose it",
    "reciprocal square root": "people compose it",
    "erf": "there is no function for it",
    "tanh gelu": "people compose it",
    "mish": "people compose it",
    "elu": "people compose it",
}


def value_and_gradients(
    operation: str, arrays: Mapping[str, NDArray[Any]], dy: NDArray[Any] | None = None, double: bool = False
) -> Gradients:
    """An operation's output and, given the gradient dy for it, those for its arguments, by their names.

    arrays: by the names of backends/operations.py. Computed in float32. Raises OperationProblem for an operation that MegEngine
    lacks, which includes float64 (double).
    """
    if double:
        raise OperationProblem("MegEngine computes in float32, not in float64; leave out double.")
    function = require_operation("megengine", OPERATIONS, ABSENT, operation, arrays)
    tensors = {name: _tensor(array) for name, array in arrays.items()}
    if dy is None:
        return to_numpy(function(*tensors.values())), {}
    wanted = [tensors[name] for name in differentiated(arrays)]
    manager = GradManager().attach(wanted)
    with manager:
        out = function(*tensors.values())
        manager.backward(out, _tensor(dy))
    gradients = [tensor.grad for tensor in wanted]
    return to_numpy(out), {name: to_numpy(gradient) for name, gradient in zip(differentiated(arrays), gradients)}


def _tensor(array: NDArray[Any]) -> Tensor:
    return mge.tensor(np.array(array, "<f4" if np.issubdtype(array.dtype, np.floating) else "<i4", order="C"))
