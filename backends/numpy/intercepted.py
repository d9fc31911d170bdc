"""NumPy's matrix products intercepted and summed in one chain, for a reference of anybody's own in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .sums import Array, matmul


class ChainedArray(np.ndarray[Any, Any]):
    """An array whose float32 products add their terms one after the other; arrays computed from it are such ones, too.

    np.matmul (also as @), dot, inner, vdot, tensordot, and einsum of two operands. Within `summed_in_chains`.
    """

    products = 0  # how many there were, of all such arrays

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **kwargs: Any) -> Any:
        """Compute with plain arrays."""
        plain = [_plain(value) for value in inputs]
        if ufunc is np.matmul and method == "__call__" and out is None and not kwargs and _narrow(plain):
            return _chained(np.matmul, plain)
        if out is not None:
            kwargs["out"] = tuple(_plain(value) for value in out)
        result = getattr(ufunc, method)(*plain, **kwargs)
        if out is not None:
            return out[0] if len(out) == 1 else out
        return tuple(map(_wrapped, result)) if isinstance(result, tuple) else _wrapped(result)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        """Intercept the functions that multiply and add."""
        plain = [_plain(value) for value in args]
        if func in _PRODUCTS and _narrow(plain[1:] if func is np.einsum else plain[:2]):
            return _chained(func, plain, kwargs)
        result = super().__array_function__(func, types, args, kwargs)
        return type(result)(map(_wrapped, result)) if type(result) in (tuple, list) else _wrapped(result)

    def dot(self, b: Any, out: Any = None) -> Any:
        """As np.dot."""
        return np.dot(self, b) if out is None else np.dot(self, b, out)


def _plain(value: Any) -> Any:
    return value.view(np.ndarray) if isinstance(value, ChainedArray) else value


def _wrapped(value: Any) -> Any:
    return value.view(ChainedArray) if isinstance(value, np.ndarray) else value


def _narrow(values: list[Any]) -> bool:
    return len(values) == 2 and all(isinstance(value, np.ndarray) and value.dtype == np.float32 for value in values)


def _chained(func: Any, arguments: list[Any], kwargs: Mapping[str, Any] | None = None) -> Any:
    product = _PRODUCTS[func](*arguments, **(kwargs or {}))
    if product is None:
        return func(*arguments, **(kwargs or {}))
    ChainedArray.products += 1
    return _wrapped(product)


def _matmul(a: Array, b: Array) -> Array | None:
    if a.ndim == 0 or b.ndim == 0:
        return None  # NumPy names the fault
    product = matmul(a[None] if a.ndim == 1 else a, b[:, None] if b.ndim == 1 else b)
    if b.ndim == 1:
        product = product[..., 0]
    return product[..., 0] if a.ndim == 1 and b.ndim == 1 else product[..., 0, :] if a.ndim == 1 else product


def _dot(a: Array, b: Array, out: None = None) -> Array | None:
    if out is not None or a.ndim == 0 or b.ndim == 0:
        return None
    return _tensordot(a, b, ([a.ndim - 1], [max(b.ndim - 2, 0)]))


def _inner(a: Array, b: Array) -> Array | None:
    return None if a.ndim == 0 or b.ndim == 0 else _tensordot(a, b, ([a.ndim - 1], [b.ndim - 1]))


def _vdot(a: Array, b: Array) -> Array:
    return matmul(a.reshape(1, -1), b.reshape(-1, 1))[0, 0]


def _tensordot(a: Array, b: Array, axes: Any = 2) -> Array:
    left, right = (range(a.ndim - axes, a.ndim), range(axes)) if isinstance(axes, int) else map(np.atleast_1d, axes)
    summed = [axis % a.ndim for axis in left], [axis % b.ndim for axis in right]
    free = [[axis for axis in range(x.ndim) if axis not in gone] for x, gone in zip((a, b), summed)]
    terms = int(np.prod([a.shape[axis] for axis in summed[0]]))
    rows = a.transpose(*free[0], *summed[0]).reshape(-1, terms)
    columns = b.transpose(*summed[1], *free[1]).reshape(terms, -1)
    shape = [x.shape[axis] for x, axes in zip((a, b), free) for axis in axes]
    return matmul(rows, columns).reshape(shape)


def _einsum(subscripts: str, a: Array, b: Array, **options: Any) -> Array | None:
    """As a product of matrices [batch, free of a, summed] and [batch, summed, free of b]."""
    left, comma, rest = subscripts.replace(" ", "").partition(",")
    right, arrow, result = rest.partition("->")
    simple = all(len(set(part)) == len(part) and part.isalpha() for part in (left, right, result) if part)
    if not (comma and arrow and simple and set(options) <= {"optimize"} and set(left) ^ set(right) <= set(result)):
        return None
    sizes = dict(zip(left + right, a.shape + b.shape))
    batch = [letter for letter in left if letter in right and letter in result]
    summed = [letter for letter in left if letter in right and letter not in result]
    free = [[letter for letter in part if letter not in batch + summed] for part in (left, right)]
    length = {
        name: int(np.prod([sizes[letter] for letter in letters])) for name, letters in (("b", batch), ("s", summed))
    }
    x = a.transpose([left.index(letter) for letter in batch + free[0] + summed]).reshape(length["b"], -1, length["s"])
    y = b.transpose([right.index(letter) for letter in batch + summed + free[1]]).reshape(length["b"], length["s"], -1)
    order = batch + free[0] + free[1]
    product = matmul(x, y).reshape([sizes[letter] for letter in order])
    return product.transpose([order.index(letter) for letter in result])


_PRODUCTS: dict[Any, Callable[..., Array | None]] = {
    np.matmul: _matmul,
    np.dot: _dot,
    np.inner: _inner,
    np.vdot: _vdot,
    np.tensordot: _tensordot,
    np.einsum: _einsum,
}
