"""Resizing a position table for another image size, as official fine-tuning does, in NumPy.

Official: torch.nn.functional.interpolate(mode="bicubic", align_corners=False) on float32, no antialiasing. The same
formula, in the same order and in float32, gives the bits of torch's portable kernel; its AVX kernels, which fuse
multiplications with additions, differ from both in the last bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .tensors import CheckpointProblem

Floats = NDArray[np.float32]
Grid = tuple[int, int]  # rows and columns of patches

_A = np.float32(-0.75)  # the slope of the cubic kernel; Pillow, TensorFlow and JAX take -0.5
_HALF, _ONE = np.float32(0.5), np.float32(1)


def resize_positions(table: Floats, old_grid: Grid, new_grid: Grid) -> Floats:
    """A position table [1, 1 + L, D] float32 for another grid of patches: [1, 1 + L', D], a new array.

    The class token's row stays as it is. Raises CheckpointProblem where the table is not float32 or has not one row for
    each patch of old_grid and one for the class token.
    """
    rows, columns = old_grid
    if min(*old_grid, *new_grid) < 1:
        raise CheckpointProblem(
            f"A grid of patches has at least one row and column, not {old_grid} and {new_grid}.", code="bad-argument"
        )
    if table.dtype != np.float32:
        raise CheckpointProblem(
            f"The position table is {table.dtype}; it is resized in float32: convert it first.", code="bad-argument"
        )
    if table.ndim != 3 or table.shape[:2] != (1, 1 + rows * columns):
        raise CheckpointProblem(
            f"The position table has the shape {table.shape}; for {rows} x {columns} patches and a class token it must "
            f"be (1, {1 + rows * columns}, width). Name the model it was trained with (-m).",
            code="does-not-fit",
        )
    if old_grid == new_grid:
        return table.copy()
    patches = table[0, 1:].reshape(rows, columns, -1)
    resized = _resize(_resize(patches, 1, new_grid[1]), 0, new_grid[0])
    return np.concatenate([table[:, :1], resized.reshape(1, -1, table.shape[2])], axis=1)


def _resize(patches: Floats, axis: int, size: int) -> Floats:
    """One axis of a [rows, columns, D] table: each new value from its four old neighbours, summed in their order."""
    old = patches.shape[axis]
    position = np.float32(old) / np.float32(size) * (np.arange(size, dtype=np.float32) + _HALF) - _HALF
    below = np.floor(position)
    fraction = position - below
    shape = (size, 1) if axis == 1 else (size, 1, 1)
    distances = (fraction + _ONE, fraction, _ONE - fraction, (_ONE - fraction) + _ONE)
    parts: list[Floats] = []
    for offset, distance in zip((-1, 0, 1, 2), distances):
        index = np.clip(below.astype(np.int64) + offset, 0, old - 1)  # the border's values repeat outside
        weight = (_outer if offset in (-1, 2) else _inner)(distance)
        parts.append(np.take(patches, index, axis) * weight.reshape(shape))
    return ((parts[0] + parts[1]) + parts[2]) + parts[3]


def _inner(x: Floats) -> Floats:
    """The kernel at distances up to 1."""
    return ((_A + 2) * x - (_A + 3)) * x * x + _ONE


def _outer(x: Floats) -> Floats:
    """The kernel at distances from 1 to 2."""
    return ((_A * x - 5 * _A) * x + 8 * _A) * x - 4 * _A
