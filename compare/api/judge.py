"""Judging the runs of somebody's own model, of which nothing is known but the names of its tensors. NumPy only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...backends.spec import Tap
from ...files.errors import Problem
from ..judge.each import Candidates, Rule, Source, judge_each
from ..limits.findings import Finding, Judgement
from ..limits.floors import Floors
from ..limits.tensors import judge_tensor, measure_null
from ..limits.tolerance import NULL, APriori
from .arrays import Tensors
from .callables import Listed, is_exact
from .floor import Floor
from .infinities import finite_part, judge_infinities, note_infinities
from .names import by_name, holes
from .narrow import excuse_the_narrow

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


def all_taps(oracle: Source, gradients: Listed, inputs: Sequence[str]) -> Listed:
    """All that the reference returns, the gradients last: those listed, or where none is those that are called so.

    inputs: their names, in order. Raises Problem where there is nothing.
    """
    named = {tap.name for _, tap in gradients}
    listed = [("forward", Tap(name, "")) for name in oracle.names if name not in named] + gradients
    if not listed:
        raise Problem("The reference returned no tensor; there is nothing to compare.")
    return listed if gradients else by_name(oracle, inputs)


def require_alike(who: str, run: Tensors, oracle: Tensors) -> None:
    """Raise Problem where one side gives names and the other numbers its tensors."""
    if bool(run.numbered) == bool(oracle.numbered):
        return
    bare, kind, named, names = who, run.numbered, "the reference", oracle.names
    if oracle.numbered:
        bare, kind, named, names = "the reference", oracle.numbered, who, run.names
    example = ", ".join(f'"{name}": ...' for name in names[:3]) + (", ..." if len(names) > 3 else "")
    raise Problem(f"{bare} returned a {kind}, {named} tensors by name; return {{{example}}} from {bare}, too.")


def require_float64(oracle: Source, listed: Listed) -> None:
    """Raise Problem for a tensor of the oracle's that comes in less than float64."""
    for _, tap in listed:
        if narrow := getattr(oracle, "narrow", {}).get(tap.name):
            raise Problem(f"The reference returned {tap.name} in {narrow}; it must compute in float64.")
        if tap.name in oracle and oracle[tap.name].dtype.kind == "f" and oracle[tap.name].dtype.itemsize < 8:
            raise Problem(f"The reference returned {tap.name} in {oracle[tap.name].dtype}; it must compute in float64.")


@np.errstate(all="ignore")  # a candidate may hold anything, and the verdict says so
def judge(candidates: Candidates, oracle: Source, floor: Floor, listed: Listed, depth: int | None) -> None:
    """Fill the judgements, tensor by tensor."""
    for judgement, run in candidates:
        judgement.notices += floor.why
        judgement.coverage += holes(listed, oracle, run)
    siblings = _gradients(oracle, listed)
    a_priori = APriori(depth or max(1, sum(level == "forward" for level, _ in listed)), floor.terms)
    floors = Floors(a_priori)

    def rule_of(level: str, tap: Tap, expected: NDArray[Any]) -> Rule:
        finite = finite_part(expected)
        tap = replace(tap, exact=is_exact(tap, expected))
        level = "loss" if level == "forward" and expected.ndim == 0 else level
        null = level == "gradients" and not tap.exact and _is_null(expected, siblings[0])
        runs = {} if tap.exact else {f"float32 run {i}": run[tap.name][finite] for i, run in enumerate(floor.runs, 1)}
        twins = list(runs.values()) if null else floors.fit(level, tap, expected[finite], runs)
        if floor.slack > 1 and not tap.exact:
            twins = [expected[finite] + floor.slack * (twin - expected[finite]) for twin in twins]

        def rule(judgement: Judgement, run: Source) -> Finding:
            finding = Finding(tap.name, level, tap.operation, "not comparable", size=expected.size)
            if (actual := _actual(finding, run, expected, floor)) is None:
                return finding  # it says why there is no number
            if null and actual.shape == expected.shape:
                measure_null(finding, actual, twins, siblings[1])
                return finding
            return _finding(level, tap, actual, expected, twins, a_priori)

        return rule

    judge_each((one for one in listed if one[1].name in oracle), oracle, candidates, rule_of)
    for judgement, run in candidates:
        excuse_the_narrow(judgement, run, oracle)
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


def _actual(finding: Finding, run: Source, expected: NDArray[Any], floor: Floor) -> NDArray[Any] | None:
    """The candidate's tensor; None where the finding is complete without any distance."""
    try:
        actual = run[finding.name]
    except Problem as problem:
        finding.reason = str(problem)
        return None
    if actual.shape == expected.shape:
        if not expected.size:
            finding.reason = "it has no elements"
            return None
        if judge_infinities(finding, actual, expected, finding.name in floor.overflowing):
            return None
    return actual


def _finding(
    level: str, tap: Tap, actual: NDArray[Any], expected: NDArray[Any], twins: Sequence[NDArray[Any]], a_priori: APriori
) -> Finding:
    finite = finite_part(expected) if actual.shape == expected.shape else ...
    oracle = expected if tap.exact else expected.astype(np.float64)
    finding = judge_tensor(level, tap, actual[finite], oracle[finite], twins, a_priori)
    if finite is not ...:
        note_infinities(finding, actual, expected)
    return finding


def null_gradients(oracle: Source, listed: Listed) -> frozenset[str]:
    """The gradients all of whose elements are zero in exact arithmetic."""
    largest, _ = _gradients(oracle, listed)
    names = [tap.name for level, tap in listed if level == "gradients" and tap.name in oracle]
    return frozenset(name for name in names if _is_null(oracle[name], largest))


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
    return notices
