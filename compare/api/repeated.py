"""Whether a callable gives the same numbers twice: where it does not, nobody's port is to blame for them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...files.errors import Problem
from ..judge.each import Source
from ..limits.findings import Judgement
from ..limits.metrics import U
from ..limits.tolerance import HIGHEST_FLOOR
from .arrays import NARROW
from .callables import Arrays, Function, Listed, call

# Two calls that differ by less, in roundoffs of their own type, may have summed in another order: of float32 and of float64
# alike, a model so badly conditioned that this makes more of a difference could not be judged by its float32 runs either.
MOST = HIGHEST_FLOOR
# An error of no more than so many times the difference between two calls may be that difference.
SHARE = 4.0


@dataclass
class Repeated:
    """How two calls on the same inputs differ: by tensor, relative to its size (infinite for exact tensors)."""

    who: str
    differences: dict[str, float] = field(
        default_factory=dict
    )  # of those that differ at all, in the order of computation
    notices: list[str] = field(default_factory=list)


def call_again(
    who: str, function: Function, inputs: Arrays, first: Source, listed: Listed, roundoff: float = U
) -> Repeated:
    """Call a model a second time, on the inputs of the first. Raises Problem where other numbers than roundoff come out.

    roundoff: the unit roundoff of its computation.
    """
    try:
        again = call(f"{who}, called a second time on the same inputs,", function, inputs)
    except Problem as problem:
        raise Problem(f"{problem}; let every call begin from the same state.") from problem.__cause__
    repeated = Repeated(who)
    worst, most, decided = "", 0.0, []
    for name, difference, unit in _differences(first, again, listed, roundoff):
        if difference <= MOST * unit:
            if difference / unit > most:
                worst, most = name, difference / unit
        elif worst and _is_whole(first[name]):  # an index, say, that two scores of nearly the same size decide
            decided.append(name)
        else:
            raise Problem(_unsteady(who, name, difference, _is_doubled(first, again, name)))
        repeated.differences[name] = difference
    if worst:
        also = f", and in what they decide at {', '.join(decided)}" if decided else ""
        repeated.notices.append(
            f"two calls of {who} on the same inputs differ by roundoff, at most by {most:.2g} times its unit, at {worst}"
            f"{also}: its kernels do not sum in the same order every time"
        )
    return repeated


def _unsteady(who: str, name: str, difference: float, doubled: bool) -> str:
    size = f", by {100 * difference:.2g} %" if math.isfinite(difference) else ""
    if doubled:
        return (
            f"{who} gives other numbers at every call: {name} is twice as large at the second, as gradients are that add up; "
            "clear them (zero_grad) where the call begins"
        )
    return (
        f"{who} gives other numbers at every call (dropout in training mode? a seed drawn inside? a state that a call "
        f"leaves behind, as an optimizer step or running statistics do?): {name} differs first{size}; "
        "call .eval(), pass the noise in as an input, or let every call begin from the same state"
    )


def _is_doubled(first: Source, again: Source, name: str) -> bool:
    """Whether a tensor of the second call is twice that of the first."""
    if not (_judged(first, name) and _judged(again, name)) or _is_whole(first[name]):
        return False
    twice = 2 * first[name].astype(np.float64)
    return again[name].shape == twice.shape and bool(_difference(twice, again[name].astype(np.float64), 0.0) < 1e-3)


def _differences(first: Source, again: Source, listed: Listed, roundoff: float) -> Iterator[tuple[str, float, float]]:
    """Name, relative difference and unit roundoff of every tensor that is not the same in both calls."""
    typical = _typical(first, [tap.name for level, tap in listed if level == "gradients"])
    for level, tap in listed:
        if not _judged(first, tap.name):
            continue  # the judge says why it has no numbers
        unit = roundoff
        if narrow := getattr(first, "narrow", {}).get(tap.name):
            unit = U * 2.0 ** NARROW[narrow]
        difference = math.inf
        if _judged(again, tap.name):
            difference = _difference(first[tap.name], again[tap.name], typical if level == "gradients" else 0.0)
        if difference:
            yield tap.name, difference, unit


def _typical(run: Source, gradients: list[str]) -> float:
    """The root mean square of all gradients: one that is zero in exact arithmetic has no size of its own."""
    squares, count = 0.0, 0
    for name in gradients:
        if _judged(run, name) and run[name].dtype.kind == "f" and np.isfinite(run[name]).all():
            array = run[name].astype(np.float64).ravel()
            squares, count = squares + float(array @ array), count + array.size
    return math.sqrt(squares / count) if count else 0.0


def _difference(one: NDArray[Any], other: NDArray[Any], typical: float) -> float:
    """||one - other|| / ||one||, or over the norm of so many typical elements; infinite where there is no distance."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return math.inf
    if np.array_equal(one, other, equal_nan=one.dtype.kind == "f"):
        return 0.0
    finite = np.isfinite(one)
    if _is_whole(one) or not np.array_equal(finite, np.isfinite(other)):
        return math.inf
    if not np.array_equal(one[~finite], other[~finite], equal_nan=True):
        return math.inf
    wide = one[finite].astype(np.float64)
    scale = max(float(np.linalg.norm(wide)), typical * math.sqrt(wide.size))
    distance = float(np.linalg.norm(wide - other[finite].astype(np.float64)))
    return distance / scale if scale else math.inf


def _judged(run: Source, name: str) -> bool:
    if name not in run:
        return False
    try:
        return run[name] is not None
    except Problem:
        return False


def _is_whole(array: NDArray[Any]) -> bool:
    return array.dtype.kind in "iub"


def excuse_the_unrepeatable(judgement: Judgement, repeated: Repeated) -> None:
    """No fault of a port where two calls of it differ by as much as it is off: it is not comparable there."""
    for finding in judgement.findings:
        difference = repeated.differences.get(finding.name, 0.0)
        if finding.verdict != "fault" or not difference:
            continue
        if finding.limit and finding.error > SHARE * difference / U:
            continue
        finding.verdict = "not comparable"
        size = f"by {difference / U:.3g} u" if math.isfinite(difference) else "in what they decide"
        finding.reason = (
            f"E {finding.error:.3g} u, and two calls of {repeated.who} on the same inputs differ {size}: "
            "make its kernels deterministic, or take away what is random in it"
        )
