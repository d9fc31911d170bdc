"""Tensors that hold infinities on purpose, such as masked attention scores: the same ones agree, the rest is judged."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..limits.findings import Finding
from ..limits.metrics import worst_row

LARGEST = float(np.finfo(np.float32).max)


def finite_part(expected: NDArray[Any]) -> Any:
    """An index that leaves out the infinities of the oracle; of all elements where it has NaN or none."""
    if expected.dtype.kind != "f" or not np.isinf(expected).any() or np.isnan(expected).any():
        return ...
    return np.isfinite(expected)


def same_infinities(actual: NDArray[Any], expected: NDArray[Any]) -> bool:
    """Whether both have the same infinities and no NaN; shapes are the same."""
    return not np.isnan(actual).any() and not _unlike(actual, expected).any()


def _unlike(actual: NDArray[Any], expected: NDArray[Any]) -> NDArray[np.bool_]:
    return np.asarray((np.isinf(actual) | np.isinf(expected)) & (actual != expected))


def judge_infinities(finding: Finding, actual: NDArray[Any], expected: NDArray[Any], overflowing: bool) -> bool:
    """Whether elements that are not finite settle the verdict; the finding is then filled.

    An infinity on one side only is a fault, the same ones agree, and a NaN is not comparable; nor are numbers that float32
    cannot hold, or (overflowing) that the reference itself does not compute in float32. Shapes are the same.
    """
    if expected.dtype.kind != "f" or actual.dtype.kind != "f":
        return False
    large = np.abs(expected) > LARGEST
    unlike = _unlike(actual, expected)
    if np.isnan(expected).any():
        finding.reason = f"the reference's is not finite itself: NaN at {_first(np.isnan(expected))}"
    elif (large & np.isfinite(expected)).any() and actual.dtype == np.float32:
        place = _first(large & np.isfinite(expected))
        finding.reason = (
            f"the reference has {expected[place]:.3g} at {place}, and float32 no number above {LARGEST:.3g}; "
            "scale the inputs, or mask with an infinity on both sides"
        )
    elif nan := int(np.count_nonzero(np.isnan(actual))):
        finding.error, place = float("inf"), _first(np.isnan(actual))
        finding.reason = f"{nan} of {expected.size} elements are NaN, the first at {place}; mend what makes them"
    elif unlike.any() and overflowing:
        finding.error = float("inf")
        finding.reason = (
            f"float32 overflows at {_first(unlike)} in the reference's own float32 run, too; scale the inputs"
        )
    elif unlike.any():
        finding.verdict, finding.error, place = "fault", float("inf"), _first(unlike)
        more = f", and {np.count_nonzero(unlike) - 1} more like it" if np.count_nonzero(unlike) > 1 else ""
        finding.reason = f"{actual[place]:.3g} at {place}, where the reference has {expected[place]:.3g}{more}"
        if np.isinf(expected[place]) and np.isfinite(actual[place]):
            finding.reason += "; where that is a mask, mask with the same number on both sides"
    elif expected.size and np.isinf(expected).all():
        finding.verdict = "exact"
        finding.reason = f"all of the {expected.size} elements are the same infinities, which says nothing of numbers"
    else:
        return False
    return True


def note_infinities(finding: Finding, actual: NDArray[Any], expected: NDArray[Any]) -> None:
    """Complete a finding on the finite elements: how many are infinite, and the worst row by its place in the whole."""
    infinite = np.isinf(expected)
    finding.reason += f"; {np.count_nonzero(infinite)} of {expected.size} elements are the same infinities"
    if not finding.limit:
        return
    numbers = [np.where(infinite, 0.0, array.astype(np.float64)) for array in (actual, expected)]
    finding.worst_row, finding.worst_row_error = worst_row(*numbers)


def _first(where: NDArray[Any]) -> tuple[int, ...]:
    """The index of the first element that is true."""
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(where)), where.shape))
