"""How far a tensor is from the oracle, in units of roundoff, and in the familiar absolute and relative terms.

u = 2^-24 is the unit roundoff of float32. All sums are accumulated in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

U = 2.0**-24


def error(actual: NDArray[Any], oracle: NDArray[np.float64]) -> float:
    """E = ||actual - oracle|| / (u ||oracle||), the error of a whole tensor in units of roundoff."""
    distance = float(np.linalg.norm((actual.astype(np.float64, copy=False) - oracle).ravel()))
    scale = float(np.linalg.norm(oracle.ravel()))
    if scale == 0:
        return 0.0 if distance == 0 else float("inf")
    return distance / (U * scale)


def worst_row(actual: NDArray[Any], oracle: NDArray[np.float64]) -> tuple[tuple[int, ...], float]:
    """The row (token, or channel of a weight) furthest from the oracle, and its error in units of roundoff.

    A row's error is taken relative to its own norm or the typical row's, whichever is larger.
    """
    if oracle.ndim < 2:
        return (), error(actual, oracle)
    distance = np.linalg.norm(actual.astype(np.float64, copy=False) - oracle, axis=-1)
    norms = np.linalg.norm(oracle, axis=-1)
    typical = float(np.sqrt(np.mean(norms**2))) or 1.0
    rows = distance / (U * np.maximum(norms, typical))
    index = np.unravel_index(int(np.argmax(rows)), rows.shape)
    return tuple(int(i) for i in index), float(rows[index])


def coherence(actual: NDArray[Any], oracle: NDArray[np.float64], e: float) -> float:
    """|gain| / (E u): near 1 where the whole tensor is scaled (a wrong eps, ddof or scale), near 0 for roundoff."""
    flat, reference = actual.astype(np.float64, copy=False).ravel(), oracle.ravel()
    power = float(reference @ reference)
    if power == 0 or e == 0 or not np.isfinite(e):
        return 0.0
    gain = float(flat @ reference) / power - 1
    return min(1.0, abs(gain) / (e * U))


def not_finite(actual: NDArray[Any], oracle: NDArray[Any]) -> int:
    """Elements that are NaN or infinite in one of the two only, or not the same of these in both."""
    both = np.isnan(actual) & np.isnan(oracle)
    suspect = ~(np.isfinite(actual) & np.isfinite(oracle)) & ~both
    return int(np.count_nonzero(suspect & (actual != oracle)))


def unequal(actual: NDArray[Any], expected: NDArray[Any]) -> int:
    """Elements that are not the same number."""
    return int(np.count_nonzero(actual != expected))


@dataclass(frozen=True)
class Closeness:
    """Two runs of the same precision in the familiar terms of allclose."""

    max_abs: float
    max_rel: float
    atol_needed: float  # the smallest atol that passes at the given rtol
    share: float  # of elements within atol + rtol * |expected|
    passed: bool


def closeness(actual: NDArray[Any], expected: NDArray[Any], rtol: float, atol: float) -> Closeness:
    """max |a - e|, max |a - e| / |e| where e is not 0, and whether |a - e| <= atol + rtol |e| everywhere.

    What is NaN in both, or the same infinity, is equal.
    """
    a, e = actual.astype(np.float64, copy=False).ravel(), expected.astype(np.float64, copy=False).ravel()
    if a.size == 0:
        return Closeness(0.0, 0.0, 0.0, 1.0, True)
    special = ~np.isfinite(e) & ((a == e) | (np.isnan(a) & np.isnan(e)))
    distance, size = np.abs(np.where(special, 0, a) - np.where(special, 0, e)), np.where(special, 0, np.abs(e))
    with np.errstate(invalid="ignore"):  # other infinities have no relative distance
        relative = np.divide(distance, size, out=np.zeros_like(distance), where=size > 0)
        needed = distance - rtol * size
    share = float(np.mean(needed <= atol))  # a NaN in one of them is not within any tolerance
    top = float(np.max(distance))
    lacking = float(np.maximum(0.0, np.max(needed)))  # NumPy's maximum keeps a NaN, Python's max does not
    return Closeness(top, float(np.max(relative)), lacking, share, share == 1.0)
