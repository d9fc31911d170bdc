"""How NumPy's model sums: as its BLAS does, or, in the float32 twins that set the limits, in chains. NumPy only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_order: np.random.Generator | None = None


@contextmanager
def summed_in_chains(seed: int) -> Iterator[None]:
    """Within this context every product adds its terms one after the other: a float32 twin, whose error sets the limits.

    A chain is the order of summation that costs most of those that a right kernel takes: blocks and lanes, of any size,
    cost less. It needs no BLAS, so that its bits are the same on every machine. The seed shuffles the terms, so that
    several twins are independent. Those of a convolution keep their order, and so do the mean and variance of a patch:
    on smooth images their neighbours are alike, which costs several roundoffs more.
    """
    global _order
    _order = np.random.default_rng(seed)
    try:
        yield
    finally:
        _order = None


def matmul(a: Array, b: Array) -> Array:
    """a [..., M, K] times b [..., K, M']."""
    if _order is None:
        return np.matmul(a, b)
    order = _order.permutation(a.shape[-1])
    return chained_matmul(a[..., order], b[..., order, :])


def chained_matmul(a: Array, b: Array) -> Array:
    """a [..., M, K] times b [..., K, M'], every element's terms rounded and added one after the other, without FMA."""
    if b.shape[-1] == 1:  # einsum's inner loop would run over the terms, in several lanes
        return np.add.accumulate(a * b.swapaxes(-2, -1), axis=-1)[..., -1:]
    product: Array = np.einsum("...mk,...kn->...mn", a, np.ascontiguousarray(b), optimize=False)
    return product


def ordered_matmul(a: Array, b: Array) -> Array:
    """The same, but in a twin the terms keep their order."""
    return np.matmul(a, b) if _order is None else chained_matmul(a, b)


def row_mean(x: Array) -> Array:
    """Mean [..., 1] over the last axis of x [..., n]; a twin adds in one chain, as some frameworks do."""
    if _order is None:
        return x.mean(axis=-1, keepdims=True)
    return np.cumsum(x, axis=-1)[..., -1:] / x.shape[-1]
