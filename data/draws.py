"""Random numbers by place: whoever asks for the same seed, purpose, epoch and index gets the same, in any order.

NumPy's Philox is a counter-based generator: its key is the seed and the purpose, its counter begins at the epoch and the
index. Nothing is carried from one draw to the next, so that nothing depends on workers, processes or where a run began.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..files.errors import Problem

# What is drawn, and its number in the key. A number that was used once keeps its meaning.
PURPOSES = {"order": 0, "crop": 1, "flip": 2, "mask": 3, "augment": 4, "erase": 5, "mix": 6, "drop_path": 7, "split": 8}
_SEEDS = 2**64
_STEP = 2.0**-53  # of the doubles
_GRID = 2.0**32  # steps of 1 in a number that decides for itself: coarser than what releases of SciPy differ by


def generator(seed: int, purpose: str, epoch: int, index: int) -> np.random.Generator:
    """The random numbers of one purpose at one place of an epoch. index: of the image in the epoch, or of the step.

    Two of them never overlap: each has 2**128 steps of the counter for itself. Take doubles of it (`random()`): NumPy
    promises that these stay as they are from release to release, which it does not of other distributions.
    Raises Problem for a seed that is not from 0 to 2**64 - 1.
    """
    if not 0 <= seed < _SEEDS:
        raise Problem(f"The seed is {seed}; it must be a whole number from 0 to 2**64 - 1.")
    key = np.array([seed, PURPOSES[purpose]], np.uint64)
    counter = np.array([0, 0, index, epoch], np.uint64)  # the least significant word first
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """The indices 0 to count - 1 in the order of an epoch: int64 [count]."""
    keys = generator(seed, "order", epoch, 0).random(count)
    return np.argsort(keys, kind="stable").astype(np.int64, copy=False)


def mask_noise(seed: int, epoch: int, index: int, num_patches: int) -> NDArray[np.float32]:
    """The masking noise of one image: 0, 1/L, ..., (L-1)/L in random order, float32 [L].

    No two are alike: of numbers drawn in float32 two are equal in one image of a thousand, and frameworks sort equal
    numbers in orders of their own.
    """
    keys = generator(seed, "mask", epoch, index).random(num_patches)
    noise = np.empty(num_patches, np.float32)
    noise[np.argsort(keys, kind="stable")] = np.arange(num_patches, dtype=np.float32) / np.float32(num_patches)
    return noise


def drop_path(seed: int, epoch: int, index: int, depth: int, rate: float) -> NDArray[np.float32]:
    """The factors of one image's branches: float32 [depth, 2] (attention, MLP), each 0 or 1/keep of its block.

    keep goes from 1 in the first block to 1 - rate in the last. Source: Huang et al. 2016 (arXiv 1603.09382), as timm's DropPath.
    """
    keep = 1 - np.linspace(0, rate, depth)[:, None]
    kept = generator(seed, "drop_path", epoch, index).random((depth, 2)) < keep
    return np.where(kept, 1 / keep, 0).astype(np.float32)


def normals(drawn: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Numbers of the standard normal distribution, each from one double: float64 of a shape."""
    from scipy.special import ndtri

    return np.asarray(ndtri(np.maximum(drawn.random(shape), _STEP)))  # of 0 it would be minus infinity


def standard_normal(share: float) -> float:
    """The number below which this share of the standard normal distribution is, to 32 bits after the point."""
    from scipy.special import ndtri

    return round(float(ndtri(max(share, _STEP))) * _GRID) / _GRID


def beta(share: float, alpha: float) -> float:
    """The number below which this share of Beta(alpha, alpha) is, to 32 bits after the point."""
    from scipy.special import betaincinv

    return round(float(betaincinv(alpha, alpha, share)) * _GRID) / _GRID
