"""Judging the runs of somebody's own model, of which nothing is known but the names of its tensors. NumPy only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...backends.errors import Problem
from ...backends.spec import Tap
from ..judging.findings import Finding, Judgement
from ..judging.floors import Floors
from ..judging.kernels import known_kernels
from ..judging.tensors import judge_tensor, measure_null
from ..judging.tolerance import NULL, APriori
from .calls import Floor, Listed, Source, is_exact

Taps = Iterable["Tap | str"]


def listing(taps: Taps | None, gradients: Taps) -> Listed:
    """Levels and taps as given. Raises Problem for a name that comes twice, or for none at all."""
    if isinstance(taps, str) or isinstance(gradients, str):
        raise Problem("taps and gradients are lists of names, not one name; put it in brackets.")
    forward, backward = (
        [Tap(tap, "") if isinstance(tap, str) else tap for tap in group] for group in (taps or (), gradients)
    )
    names = [tap.name for tap in (*forward, *backward)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise Problem(f"{', '.join(twice)} is listed twice; name every tensor once, among taps or among gradients.")
    if taps is not None and not names:
        raise Problem("There is nothing to compare; list taps or gradients, or leave taps out for all.")
    return [("forward", tap) for tap in forward] + [("gradients", tap) for tap in backward]


def all_taps(oracle: Source, gradients: Listed) -> Listed:
    """All that the reference returns, the gradients last. Raises Problem where that is nothing."""
    named = {tap.name for _, tap in gradients}
    found = [("forward", Tap(name, "")) for name in oracle.names if name not in named] + gradients
    if not found:
        raise Problem("The reference returned no tensor; there is nothing to compare.")
    return found


def require_float64(oracle: Source, listed: Listed) -> None:
    """Raise Problem for a tensor of the oracle's that comes in less than float64."""
    for _, tap in listed:
        if tap.name in oracle and oracle[tap.name].dtype.kind == "f" and oracle[tap.name].dtype.itemsize < 8:
            raise Problem(f"The reference returned {tap.name} in {oracle[tap.name].dtype}; it must compute in float64.")


def judge(
    candidates: Sequence[tuple[Judgement, Source]], oracle: Source, floor: Floor, listed: Listed, depth: int | None
) -> None:
    """Fill the judgements, tensor by tensor."""
    names = {tap.name for _, tap in listed}
    for judgement, run in candidates:
        judgement.notices += floor.why
        judgement.coverage += [
            f"{tap.name} is missing from the reference" for _, tap in listed if tap.name not in oracle
        ]
        judgement.coverage += [f"{tap.name} is missing" for _, tap in listed if tap.name not in run]
        judgement.coverage += [
            f"{name} of the reference is not among the taps" for name in oracle.names if name not in names
        ]
        judgement.coverage += [f"{name} is unknown" for name in run.names if name not in names]
    siblings = _gradients(oracle, listed)
    a_priori = APriori(depth or max(1, sum(level == "forward" for level, _ in listed)))
    floors = Floors(a_priori)
    for level, tap in listed:
        if tap.name not in oracle:
            continue
        expected = oracle[tap.name]
        tap = replace(tap, exact=is_exact(tap, expected))
        level = "loss" if level == "forward" and expected.ndim == 0 else level
        null = level == "gradients" and not tap.exact and _is_null(expected, siblings[0])
        found = {} if tap.exact else {f"float32 run {i}": run[tap.name] for i, run in enumerate(floor.runs, 1)}
        twins = list(found.values()) if null else floors.fit(level, tap, expected, found)
        for judgement, run in candidates:
            if tap.name in run:
                judgement.findings.append(
                    _finding(level, tap, run, expected, twins, a_priori, siblings[1] if null else 0)
                )
    for judgement, run in candidates:
        judgement.notices += [*floors.notices, *_notices(judgement, oracle, run)]


def _gradients(oracle: Source, listed: Listed) -> tuple[float, float]:
    """The largest element of all gradients, and the root mean square of them."""
    largest, squares, count = 0.0, 0.0, 0
    for level, tap in listed:
        if level == "gradients" and tap.name in oracle and oracle[tap.name].size:
            array = np.abs(oracle[tap.name].astype(np.float64))
            if np.isfinite(array).all():
                largest, squares, count = (
                    max(largest, array.max()),
                    squares + float((array**2).sum()),
                    count + array.size,
                )
    return largest, float(np.sqrt(squares / max(count, 1)))


def _finding(
    level: str,
    tap: Tap,
    run: Source,
    expected: NDArray[Any],
    twins: Sequence[NDArray[Any]],
    a_priori: APriori,
    siblings: float,
) -> Finding:
    """siblings: the rms of all gradients, for one that is zero in exact arithmetic; else 0."""
    finding = Finding(tap.name, level, tap.operation, "not comparable", size=expected.size)
    try:
        actual = run[tap.name]
    except Problem as problem:
        finding.reason = str(problem)
        return finding
    if not expected.size and actual.shape == expected.shape:
        finding.reason = "it has no elements"
    elif not tap.exact and not np.isfinite(expected).all():
        finding.reason = "the reference's is not finite itself"
    elif siblings and actual.shape == expected.shape and np.isfinite(actual).all():
        measure_null(finding, actual, twins, siblings)
    else:
        oracle = expected if tap.exact else expected.astype(np.float64)
        finding = judge_tensor(level, tap, actual, oracle, twins, a_priori)
    return finding


def _is_null(expected: NDArray[Any], largest: float) -> bool:
    """Whether a whole gradient is zero in exact arithmetic (a bias before a batch norm), so that no sibling is inside."""
    return largest > 0 and expected.size > 0 and float(np.abs(expected).max()) <= NULL * largest


def _notices(judgement: Judgement, oracle: Source, run: Source) -> list[str]:
    notices = []
    right = [finding.name for finding in judgement.findings if finding.verdict in ("exact", "roundoff")]
    if zero := [name for name in right if not oracle[name].any() and not run[name].any()]:
        notices.append(f"{', '.join(zero)}: zero everywhere on both sides, which proves nothing; give other inputs")
    judged = [run[finding.name] for finding in judgement.findings if finding.limit and finding.size > 1]
    if judged and all(array.dtype.itemsize > 4 for array in judged):
        notices.append(
            "the candidate returned float64: it is judged by float32's limits, and says nothing about float32"
        )
    known = known_kernels(judgement.environment)
    if known and judgement.verdict == "fault":
        sizes = ", ".join(f"{operation} {size:.3g} u" for operation, size in known.items())
        named = " ".join(str(judgement.environment[name]) for name in ("framework", "version", "device"))
        notices.append(
            f"{named} has inaccurate kernels ({sizes}): an error of that size behind them is no fault of a port"
        )
    return notices
