"""Whether one array holds the values of another in a different order, and which order, in words."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from ..backends.config import Config
from .layouts import heads_of
from .tensors import Array

_MOST_AXES = 5


def transposed(a: Array, b: Array) -> str:
    """The order of a's axes that gives exactly b, in words; "" without one. Axes of size 1 do not count."""
    moving = [axis for axis, size in enumerate(a.shape) if size > 1]
    if len(moving) < 2 or len(moving) > _MOST_AXES:
        return ""
    squeezed = a.reshape([a.shape[axis] for axis in moving])
    target = tuple(size for size in b.shape if size > 1)
    for order in permutations(range(len(moving))):
        if order == tuple(range(len(moving))) or tuple(squeezed.shape[i] for i in order) != target:
            continue
        if np.array_equal(squeezed.transpose(order), b.reshape(target)):
            return "transposed" if len(moving) == 2 else f"axes in the order {tuple(moving[i] for i in order)}"
    return ""


def permuted(a: Array, b: Array, config: Config | None, name: str) -> str:
    """The order of a's rows (or columns, or slices along another axis) that gives b, in words; "" without one.

    a, b: of one shape. config and name: the model, if it is known, and the tensor's name in the spec. They tell the number
    of heads and pixels.
    """
    for axis, size in enumerate(a.shape):
        if size < 2:
            continue
        rows_a, rows_b = (np.moveaxis(array, axis, 0) for array in (a, b))
        order = _named(rows_a, rows_b, config, name) or _any(rows_a, rows_b)
        if order:
            return f"{_called(a, axis)} {order}"
    return ""


def _called(array: Array, axis: int) -> str:
    """The word for the slices along an axis."""
    first = sum(size > 1 for size in array.shape[:axis]) == 0
    if first:
        return "values" if sum(size > 1 for size in array.shape) == 1 else "rows"
    return "columns" if axis == array.ndim - 1 else f"slices along axis {axis}"


def _named(a: Array, b: Array, config: Config | None, name: str) -> str:
    for name_of_order, order in _orders(len(a), config, name):
        # The ends first: for two unlike tensors nearly every order ends there.
        if all(np.array_equal(a[order[i]], b[i]) for i in (0, -1)) and np.array_equal(a[order], b):
            return name_of_order
    return ""


def _orders(length: int, config: Config | None, name: str) -> Iterator[tuple[str, NDArray[np.intp]]]:
    """The usual orders: of q, k and v, heads, pixels. Row i of the result is row order[i] of the source."""
    rows = np.arange(length)
    yield "reversed", rows[::-1]
    if ".qkv." in name and length % 3 == 0:
        parts = rows.reshape(3, -1)
        for order in permutations(range(3)):
            if order != (0, 1, 2):
                yield (
                    f"permuted: {', '.join('qkv'[i] for i in order)} in place of q, k, v",
                    parts[list(order)].reshape(-1),
                )
        for heads in _heads(length // 3, config, name):
            cut = rows.reshape(3, heads, -1)
            yield (
                f"permuted: q, k and v interleaved head by head ({heads} heads)",
                cut.transpose(1, 0, 2).reshape(-1),
            )
            back = rows.reshape(heads, 3, -1)
            yield f"permuted: q, k and v taken apart ({heads} heads)", back.transpose(1, 0, 2).reshape(-1)
    if config is not None and length == config.patch_dim:
        p, c = config.patch_size, config.in_chans
        pixels = rows.reshape(p, p, c)
        yield (
            "permuted: pixels from row, column, channel to channel, row, column",
            pixels.transpose(2, 0, 1).reshape(-1),
        )
        first = rows.reshape(c, p, p)
        yield "permuted: pixels from channel, row, column to row, column, channel", first.transpose(1, 2, 0).reshape(-1)


def _heads(width: int, config: Config | None, name: str) -> list[int]:
    known = [] if config is None else [heads_of(config, name)]
    return [h for h in dict.fromkeys([*known, *range(2, min(width, 64) + 1)]) if width % h == 0 and h > 1]


def _any(a: Array, b: Array) -> str:
    """Whether the slices of b are those of a in any order: both are sorted by their bytes."""
    first, second = (_bytes_of_rows(array) for array in (a, b))
    if not (first == second[0]).any():
        return ""
    sorted_a, sorted_b = np.argsort(first, kind="stable"), np.argsort(second, kind="stable")
    if not np.array_equal(first[sorted_a], second[sorted_b]):
        return ""
    source = np.empty(len(a), np.intp)
    source[sorted_b] = sorted_a
    moved = np.flatnonzero(first != second)
    i = int(moved[0])
    return f"permuted: {len(moved):,} of {len(a):,} moved, the first {i}, where {int(source[i])} was"


def _bytes_of_rows(array: Array) -> Array:
    rows = np.ascontiguousarray(array.reshape(len(array), -1))
    return rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).reshape(-1)
