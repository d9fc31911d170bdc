"""One tensor of a run against the float64 oracle's. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...backends.spec import Tap
from .curves import judge_curve
from .findings import Finding
from .metrics import U, coherence, error, not_finite, unequal, worst_row
from .tolerance import ALONE, FACTORS, HIGHEST_FLOOR, NULL, APriori, Limit, null_limit, scalar_limit, tensor_limit


def judge_tensor(
    level: str, tap: Tap, actual: NDArray[Any], oracle: NDArray[Any], twins: Sequence[NDArray[Any]], a_priori: APriori
) -> Finding:
    """One tensor against the oracle's."""
    if tap.operation == "training":
        return judge_curve(tap, actual, oracle, twins, level)
    finding = Finding(tap.name, level, tap.operation, "fault", size=oracle.size)
    if why := _unlike(actual, oracle):
        finding.verdict, finding.error, finding.reason = "not comparable", float("inf"), why
    elif tap.exact:
        finding.error = unequal(actual, oracle)
        finding.reason = f"{finding.error:.0f} of {oracle.size} elements differ; all must be equal"
        finding.verdict = "fault" if finding.error else "exact"
    else:
        _measure(finding, actual, oracle, twins, a_priori)
    return finding


def _unlike(actual: NDArray[Any], oracle: NDArray[Any]) -> str:
    """Why there is no distance between two tensors, and what to do; nothing where there is one."""
    if actual.shape != oracle.shape:
        return (
            f"shape {actual.shape}, the oracle's is {oracle.shape}; mend what gives another shape and record it again"
        )
    if (actual.dtype.kind == "f") != (oracle.dtype.kind == "f"):
        return f"type {actual.dtype}, the oracle's is {oracle.dtype}; record it again in a type of that kind"
    if not np.isfinite(oracle).all():
        return "the oracle's is not finite itself (a mask that removes no patch has no loss)"
    if wrong := not_finite(actual, oracle):
        return f"{wrong} of {oracle.size} elements are NaN or infinite; mend what makes them and record it again"
    return ""


def _measure(
    finding: Finding, actual: NDArray[Any], oracle: NDArray[Any], twins: Sequence[NDArray[Any]], a_priori: APriori
) -> None:
    null = null_elements(oracle) if finding.level == "gradients" else None
    if null is not None and null.any():
        measure_null(finding, actual[null], [twin[null] for twin in twins], rms(oracle[~null]))
        if finding.verdict == "fault" or null.all():
            return
        actual, oracle, twins = actual[~null], oracle[~null], [twin[~null] for twin in twins]
    actual = actual.astype(np.float64)  # once, for all the measures below
    finding.error = error(actual, oracle)
    errors = [error(twin, oracle) for twin in twins]
    limit = end_to_end_limit(finding, errors, oracle.ndim == 0, a_priori)
    finding.limit, finding.floor, finding.reason = limit.value, limit.floor, limit.reason
    finding.worst_row, finding.worst_row_error = worst_row(actual, oracle)
    finding.coherence = coherence(actual, oracle, finding.error)
    if finding.error == 0:
        finding.verdict = "exact"
    elif not finding.floor <= HIGHEST_FLOOR:
        finding.verdict = "not comparable"
        finding.reason = "float32 says nothing about it on these inputs: its twins are as far from the oracle"
    else:
        finding.verdict = "roundoff" if finding.error <= finding.limit else "fault"


def end_to_end_limit(finding: Finding, floors: Sequence[float], scalar: bool, a_priori: APriori) -> Limit:
    """The limit on the error of a tensor that all operations before it share in. floors: each twin's E."""
    if scalar:
        return scalar_limit(floors, a_priori)
    return tensor_limit(finding.size, floors, a_priori, FACTORS.get(finding.level, ALONE))


def null_elements(oracle: NDArray[Any]) -> NDArray[np.bool_]:
    """Which elements of a gradient are zero in exact arithmetic."""
    null: NDArray[np.bool_] = np.abs(oracle) <= NULL * np.abs(oracle).max(initial=0)
    return null


def measure_null(finding: Finding, actual: NDArray[Any], twins: Sequence[NDArray[Any]], typical: float) -> None:
    """Judge elements whose gradient is zero in exact arithmetic by their size beside the rms of their siblings."""
    size, *sizes = (
        rms(array) / (U * typical) if typical else float("inf") if array.any() else 0.0 for array in (actual, *twins)
    )
    limit = null_limit(actual.size, sizes if typical else [])
    finding.error, finding.limit, finding.floor, finding.reason = size, limit.value, limit.floor, limit.reason
    finding.verdict = "roundoff" if size <= limit.value else "fault"


def rms(array: NDArray[Any]) -> float:
    """The root mean square; of nothing, 0."""
    return float(np.sqrt(np.mean(array.astype(np.float64) ** 2))) if array.size else 0.0
