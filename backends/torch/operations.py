"""The operations that people build networks of, as they spell them in PyTorch.

The operations.py of the frameworks read alike line for line: the names of backends/operations.py in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..operations import Gradients, differentiated, require_operation

OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "linear": F.linear,
    "matrix product": torch.matmul,
    "batched matrix product": torch.matmul,
    "einsum": lambda x, y: torch.einsum("bmk,bnk->bmn", x, y),
    "convolution": lambda x, w, b: F.conv2d(x, w, b, stride=8),
    "convolution of 3 x 3": lambda x, w, b: F.conv2d(x, w, b, padding=1),
    "strided convolution": lambda x, w, b: F.conv2d(x, w, b, stride=2, padding=1),
    "depthwise convolution": lambda x, w, b: F.conv2d(x, w, b, padding=1, groups=x.shape[1]),
    "transposed convolution": lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2, padding=1),
    "attention": F.scaled_dot_product_attention,
    "embedding": F.embedding,
    "layer norm": lambda x, w, b: F.layer_norm(x, x.shape[-1:], w, b, eps=1e-5),
    "batch norm": lambda x, m, v, w, b: F.batch_norm(x, m, v, w, b, training=False, eps=1e-5),
    "batch norm in training": lambda x, m, v, w, b: F.batch_norm(x, m, v, w, b, training=True, eps=1e-5),
    "group norm": lambda x, w, b: F.group_norm(x, 4, w, b, eps=1e-5),
    "softmax": lambda x: F.softmax(x, dim=-1),
    "log softmax": lambda x: F.log_softmax(x, dim=-1),
    "logsumexp": lambda x: torch.logsumexp(x, dim=-1),
    "cross entropy": F.cross_entropy,
    "negative log likelihood": F.nll_loss,
    "mean squared error": F.mse_loss,
    "mean absolute error": F.l1_loss,
    "smooth l1 loss": F.smooth_l1_loss,
    "binary cross entropy": F.binary_cross_entropy_with_logits,
    "exp": torch.exp,
    "log": torch.log,
    "log1p": torch.log1p,
    "expm1": torch.expm1,
    "square root": torch.sqrt,
    "reciprocal square root": torch.rsqrt,
    "reciprocal": torch.reciprocal,
    "division": torch.div,
    "power": torch.pow,
    "cube": lambda x: x**3,
    "erf": torch.erf,
    "sin": torch.sin,
    "cos": torch.cos,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "log sigmoid": F.logsigmoid,
    "softplus": F.softplus,
    "silu": F.silu,
    "gelu": F.gelu,
    "tanh gelu": lambda x: F.gelu(x, approximate="tanh"),
    "quick gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "hard sigmoid": F.hardsigmoid,
    "hard swish": F.hardswish,
    "mish": F.mish,
    "elu": F.elu,
    "leaky relu": lambda x: F.leaky_relu(x, 0.01),
    "relu": F.relu,
    "max pool": lambda x: F.max_pool2d(x, 3, stride=2, padding=1),
    "average pool": lambda x: F.avg_pool2d(x, 2),
    "adaptive average pool": lambda x: F.adaptive_avg_pool2d(x, 7),
    "bilinear interpolation": lambda x: F.interpolate(x, (24, 24), mode="bilinear", align_corners=False),
    "bilinear interpolation of corners": lambda x: F.interpolate(x, (24, 24), mode="bilinear", align_corners=True),
    "bicubic interpolation": lambda x: F.interpolate(x, (24, 24), mode="bicubic", align_corners=False),
    "mean": lambda x: x.mean(dim=-1),
    "sum": lambda x: x.sum(dim=-1),
    "variance": lambda x: x.var(dim=-1, unbiased=False),
    "standard deviation": lambda x: x.std(dim=-1, unbiased=False),
    "norm": lambda x: torch.linalg.vector_norm(x, dim=-1),
    "normalize": lambda x: F.normalize(x, dim=-1),
    "cumulative sum": lambda x: torch.cumsum(x, dim=-1),
}
ABSENT: dict[str, str] = {}


def value_and_gradients(
    operation: str, arrays: Mapping[str, NDArray[Any]], dy: NDArray[Any] | None = None, double: bool = False
) -> Gradients:
    """An operation's output and, given the gradient dy for it, those for its arguments, by their names.

    arrays: by the names of backends/operations.py. Computed in float32, double: in float64. Raises OperationProblem for
    an operation that PyTorch lacks.
    """
    function = require_operation("torch", OPERATIONS, ABSENT, operation, arrays)
    dtype = torch.float64 if double else torch.float32
    tensors = {name: _tensor(array, dtype) for name, array in arrays.items()}
    wanted = [tensors[name].requires_grad_() for name in differentiated(arrays)] if dy is not None else []
    out = function(*tensors.values())
    if dy is None:
        return out.detach().numpy().copy(), {}
    gradients = torch.autograd.grad(out, wanted, _tensor(dy, dtype))
    return out.detach().numpy().copy(), {
        name: gradient.numpy().copy() for name, gradient in zip(differentiated(arrays), gradients)
    }


def _tensor(array: NDArray[Any], dtype: torch.dtype) -> Tensor:
    tensor = torch.from_numpy(np.array(array))
    return tensor.to(dtype) if tensor.is_floating_point() else tensor
