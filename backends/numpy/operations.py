"""The operations that people build networks of in NumPy, with gradients derived by hand.

Beside PyTorch's they show how accurate float32 can be. The names are those of backends/operations.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf, ndtr

from ..operations import Gradients, differentiated, require_operation
from .layers import gelu, log_softmax, softmax
from .sums import Array

EPS = 1e-5
DENSITY = (2 * np.pi) ** -0.5  # of the standard normal distribution at 0
Derived = tuple[Array, ...]  # a gradient for each argument that has one


def _sigmoid(x: Array) -> Array:
    with np.errstate(over="ignore"):  # where it is 0
        return 1 / (1 + np.exp(-x))


def _softplus(x: Array) -> Array:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _mean(x: Array) -> Array:
    return x.mean(-1, keepdims=True)


def _logsumexp(x: Array) -> Array:
    top = x.max(-1, keepdims=True)
    return np.log(np.exp(x - top).sum(-1)) + top[..., 0]


def _tanh_gelu(x: Array) -> Array:
    return x / 2 * (1 + np.tanh(_inner(x)))


def _inner(x: Array) -> Array:
    return (2 / np.pi) ** 0.5 * (x + 0.044715 * x * x * x)


def _tanh_gelu_backward(dy: Array, y: Array, x: Array) -> Derived:
    t = np.tanh(_inner(x))
    slope = (2 / np.pi) ** 0.5 * (1 + 3 * 0.044715 * x * x)
    return (dy * ((1 + t) / 2 + x / 2 * (1 - t * t) * slope),)


def _sigmoid_times(x: Array, scale: float = 1) -> Array:
    return x * _sigmoid(scale * x)


def _sigmoid_times_backward(dy: Array, y: Array, x: Array, scale: float = 1) -> Derived:
    s = _sigmoid(scale * x)
    return (dy * s * (1 + scale * x * (1 - s)),)


def _mish_backward(dy: Array, y: Array, x: Array) -> Derived:
    t = np.tanh(_softplus(x))
    return (dy * (t + x * (1 - t * t) * _sigmoid(x)),)


def _axes(x: Array) -> tuple[int, ...]:
    """All axes but that of the channels."""
    return (0, *range(2, x.ndim))


def _channels(a: Array, x: Array) -> Array:
    """Numbers [C] beside x [N, C, ...]."""
    return a.reshape(-1, *[1] * (x.ndim - 2))


def _normalised(x: Array, axes: Any) -> tuple[Array, Array]:
    """x with mean 0 and variance 1 over some axes, and 1 / standard deviation."""
    x = x - x.mean(axes, keepdims=True)
    rstd = 1 / np.sqrt((x * x).mean(axes, keepdims=True) + EPS)
    return x * rstd, rstd


def _through_norm(d: Array, z: Array, rstd: Array, axes: Any) -> Array:
    return rstd * (d - d.mean(axes, keepdims=True) - z * (d * z).mean(axes, keepdims=True))


def _layer_norm(x: Array, weight: Array, bias: Array) -> Array:
    return _normalised(x, -1)[0] * weight + bias


def _layer_norm_backward(dy: Array, y: Array, x: Array, weight: Array, bias: Array) -> Derived:
    z, rstd = _normalised(x, -1)
    return _through_norm(dy * weight, z, rstd, -1), (dy * z).sum(0), dy.sum(0)


def _batch_norm(x: Array, mean: Array, variance: Array, weight: Array, bias: Array) -> Array:
    rstd = 1 / np.sqrt(variance + EPS)
    return (x - _channels(mean, x)) * _channels(rstd, x) * _channels(weight, x) + _channels(bias, x)


def _batch_norm_backward(
    dy: Array, y: Array, x: Array, mean: Array, variance: Array, weight: Array, bias: Array
) -> Derived:
    rstd = _channels(1 / np.sqrt(variance + EPS), x)
    z = (x - _channels(mean, x)) * rstd
    return dy * rstd * _channels(weight, x), (dy * z).sum(_axes(x)), dy.sum(_axes(x))


def _batch_norm_in_training(x: Array, mean: Array, variance: Array, weight: Array, bias: Array) -> Array:
    return _normalised(x, _axes(x))[0] * _channels(weight, x) + _channels(bias, x)


def _batch_norm_in_training_backward(
    dy: Array, y: Array, x: Array, mean: Array, variance: Array, weight: Array, bias: Array
) -> Derived:
    z, rstd = _normalised(x, _axes(x))
    return (
        _through_norm(dy * _channels(weight, x), z, rstd, _axes(x)),
        (dy * z).sum(_axes(x)),
        dy.sum(_axes(x)),
    )


def _group_norm(x: Array, weight: Array, bias: Array) -> Array:
    z = _normalised(x.reshape(len(x), 4, -1), -1)[0].reshape(x.shape)
    return z * _channels(weight, x) + _channels(bias, x)


def _group_norm_backward(dy: Array, y: Array, x: Array, weight: Array, bias: Array) -> Derived:
    grouped = (len(x), 4, -1)
    z, rstd = _normalised(x.reshape(grouped), -1)
    dx = _through_norm((dy * _channels(weight, x)).reshape(grouped), z, rstd, -1).reshape(x.shape)
    return dx, (dy * z.reshape(x.shape)).sum(_axes(x)), dy.sum(_axes(x))


def _picked(x: Array, labels: Array) -> Array:
    return x[np.arange(len(x)), labels]


def _one_hot(x: Array, labels: Array) -> Array:
    return np.asarray(labels[:, None] == np.arange(x.shape[-1]), x.dtype)


def _embedding_backward(dy: Array, y: Array, ids: Array, weight: Array) -> Derived:
    d_weight = np.zeros_like(weight)
    np.add.at(d_weight, ids, dy)
    return (d_weight,)


def _shared(x: Array) -> float:
    """How many elements a mean is over, in Python's float: an integer as large as this would make float32 float64."""
    return float(x.size)


# Each with its gradient, as a function of the gradient dy for its output, the output y, and its arguments.
_PAIRS: dict[str, tuple[Callable[..., Array], Callable[..., Derived]]] = {
    "linear": (
        lambda x, w, b: x @ w.T + b,
        lambda dy, y, x, w, b: (dy @ w, dy.T @ x, dy.sum(0)),
    ),
    "matrix product": (np.matmul, lambda dy, y, a, b: (dy @ b.T, a.T @ dy)),
    "batched matrix product": (np.matmul, lambda dy, y, a, b: (dy @ b.swapaxes(1, 2), a.swapaxes(1, 2) @ dy)),
    "einsum": (lambda a, b: a @ b.swapaxes(1, 2), lambda dy, y, a, b: (dy @ b, dy.swapaxes(1, 2) @ a)),
    "embedding": (lambda ids, w: w[ids], _embedding_backward),
    "layer norm": (_layer_norm, _layer_norm_backward),
    "batch norm": (_batch_norm, _batch_norm_backward),
    "batch norm in training": (_batch_norm_in_training, _batch_norm_in_training_backward),
    "group norm": (_group_norm, _group_norm_backward),
    "softmax": (softmax, lambda dy, y, x: (y * (dy - (dy * y).sum(-1, keepdims=True)),)),
    "log softmax": (log_softmax, lambda dy, y, x: (dy - softmax(x) * dy.sum(-1, keepdims=True),)),
    "logsumexp": (_logsumexp, lambda dy, y, x: (dy[..., None] * softmax(x),)),
    "cross entropy": (
        lambda x, labels: (_logsumexp(x) - _picked(x, labels)).mean(),
        lambda dy, y, x, labels: ((softmax(x) - _one_hot(x, labels)) * (dy / np.float32(len(x))).astype(x.dtype),),
    ),
    "negative log likelihood": (
        lambda x, labels: -_picked(x, labels).mean(),
        lambda dy, y, x, labels: (-_one_hot(x, labels) * dy / len(x),),
    ),
    "mean squared error": (
        lambda x, target: ((x - target) ** 2).mean(),
        lambda dy, y, x, target: (2 * (x - target) * dy / _shared(x),),
    ),
    "mean absolute error": (
        lambda x, target: np.abs(x - target).mean(),
        lambda dy, y, x, target: (np.sign(x - target) * dy / _shared(x),),
    ),
    "smooth l1 loss": (
        lambda x, target: _smooth(x - target).mean(),
        lambda dy, y, x, target: (np.clip(x - target, -1, 1) * dy / _shared(x),),
    ),
    "binary cross entropy": (
        lambda x, target: (_softplus(x) - x * target).mean(),
        lambda dy, y, x, target: ((_sigmoid(x) - target) * dy / _shared(x),),
    ),
    "exp": (np.exp, lambda dy, y, x: (dy * y,)),
    "log": (np.log, lambda dy, y, x: (dy / x,)),
    "log1p": (np.log1p, lambda dy, y, x: (dy / (1 + x),)),
    "expm1": (np.expm1, lambda dy, y, x: (dy * np.exp(x),)),
    "square root": (np.sqrt, lambda dy, y, x: (dy / (2 * y),)),
    "reciprocal square root": (lambda x: 1 / np.sqrt(x), lambda dy, y, x: (-dy * y / (2 * x),)),
    "reciprocal": (np.reciprocal, lambda dy, y, x: (-dy / (x * x),)),
    "division": (np.divide, lambda dy, y, a, b: (dy / b, -dy * a / (b * b))),
    "power": (np.power, lambda dy, y, a, b: (dy * b * np.power(a, b - 1), dy * y * np.log(a))),
    "cube": (lambda x: x * x * x, lambda dy, y, x: (3 * x * x * dy,)),
    "erf": (erf, lambda dy, y, x: (dy * (2 * np.pi**-0.5) * np.exp(-x * x),)),
    "sin": (np.sin, lambda dy, y, x: (dy * np.cos(x),)),
    "cos": (np.cos, lambda dy, y, x: (-dy * np.sin(x),)),
    "tanh": (np.tanh, lambda dy, y, x: (dy * (1 - y * y),)),
    "sigmoid": (_sigmoid, lambda dy, y, x: (dy * y * _sigmoid(-x),)),
    "log sigmoid": (lambda x: -_softplus(-x), lambda dy, y, x: (dy * _sigmoid(-x),)),
    "softplus": (_softplus, lambda dy, y, x: (dy * _sigmoid(x),)),
    "silu": (_sigmoid_times, _sigmoid_times_backward),
    "gelu": (gelu, lambda dy, y, x: (dy * (ndtr(x) + x * (DENSITY * np.exp(-x * x / 2))),)),
    "tanh gelu": (_tanh_gelu, _tanh_gelu_backward),
    "quick gelu": (partial(_sigmoid_times, scale=1.702), partial(_sigmoid_times_backward, scale=1.702)),
    "hard sigmoid": (
        lambda x: np.clip(x / 6 + 0.5, 0, 1),
        lambda dy, y, x: (np.where(np.abs(x) < 3, dy / 6, 0 * dy),),
    ),
    "hard swish": (
        lambda x: x * np.clip(x + 3, 0, 6) / 6,
        lambda dy, y, x: (dy * np.where(x < -3, 0 * x, np.where(x > 3, 0 * x + 1, x / 3 + 0.5)),),
    ),
    "mish": (lambda x: x * np.tanh(_softplus(x)), _mish_backward),
    "elu": (
        lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
        lambda dy, y, x: (dy * np.exp(np.minimum(x, 0)),),
    ),
    "leaky relu": (lambda x: np.where(x > 0, x, x * 0.01), lambda dy, y, x: (np.where(x > 0, dy, dy * 0.01),)),
    "relu": (lambda x: np.maximum(x, 0), lambda dy, y, x: (np.where(x > 0, dy, 0 * dy),)),
    "mean": (
        lambda x: x.mean(-1),
        lambda dy, y, x: (np.broadcast_to(dy[..., None] / x.shape[-1], x.shape),),
    ),
    "sum": (lambda x: x.sum(-1), lambda dy, y, x: (np.broadcast_to(dy[..., None], x.shape),)),
    "variance": (lambda x: x.var(-1), lambda dy, y, x: (2 * dy[..., None] * (x - _mean(x)) / x.shape[-1],)),
    "standard deviation": (
        lambda x: x.std(-1),
        lambda dy, y, x: ((dy / y)[..., None] * (x - _mean(x)) / x.shape[-1],),
    ),
    "norm": (lambda x: np.sqrt((x * x).sum(-1)), lambda dy, y, x: ((dy / y)[..., None] * x,)),
    "normalize": (
        lambda x: x / np.sqrt((x * x).sum(-1, keepdims=True)),
        lambda dy, y, x: ((dy - y * (dy * y).sum(-1, keepdims=True)) / np.sqrt((x * x).sum(-1, keepdims=True)),),
    ),
    "cumulative sum": (
        lambda x: np.cumsum(x, -1),
        lambda dy, y, x: (np.cumsum(dy[..., ::-1], -1)[..., ::-1],),
    ),
}  # fmt: skip


def _smooth(d: Array) -> Array:
    return np.where(np.abs(d) < 1, d * d / 2, np.abs(d) - 0.5)


OPERATIONS = {name: forward for name, (forward, _) in _PAIRS.items()}
ABSENT = dict.fromkeys(
    (
        "convolution", "convolution of 3 x 3", "strided convolution", "depthwise convolution", "transposed convolution",
        "attention", "max pool", "average pool", "adaptive average pool", "bilinear interpolation",
        "bilinear interpolation of corners", "bicubic interpolation",
    ),
    "NumPy has nothing of the kind",
)  # fmt: skip


def value_and_gradients(
    operation: str, arrays: Mapping[str, NDArray[Any]], dy: NDArray[Any] | None = None, double: bool = False
) -> Gradients:
    """An operation's output and, given the gradient dy for it, those for its arguments, by their names.

    arrays: by the names of backends/operations.py. Computed in float32, double: in float64. Raises OperationProblem for
    an operation that NumPy lacks.
    """
    require_operation("numpy", OPERATIONS, ABSENT, operation, arrays)
    forward, backward = _PAIRS[operation]
    dtype = np.dtype(np.float64 if double else np.float32)
    operands = [_array(array, dtype) for array in arrays.values()]
    out = forward(*operands)
    if dy is None:
        return np.array(out), {}
    gradients = backward(_array(dy, dtype), out, *operands)
    return np.array(out), {name: np.array(gradient) for name, gradient in zip(differentiated(arrays), gradients)}


def _array(array: NDArray[Any], dtype: np.dtype[Any]) -> Array:
    return array.astype(dtype) if np.issubdtype(array.dtype, np.floating) else np.array(array)
