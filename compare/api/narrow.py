"""A candidate in half precision: an error of its type's roundoff says nothing about the port."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..judge.each import Source
from ..limits.findings import Finding, Judgement
from .arrays import NARROW

ENOUGH = 16  # numbers that are all of a narrower type are so by no chance


def excuse_the_narrow(judgement: Judgement, run: Source, oracle: Source) -> None:
    """No fault of a port where it ran in half precision and is off by no more than that costs: it is not comparable.

    In half precision are tensors of such a type, and float32 tensors that hold numbers of such a type only, as far off as
    that costs: the difference of two numbers that cancel has few digits too. One tensor of it is enough to make the others
    inaccurate.
    """
    narrow: dict[str, str] = dict(getattr(run, "narrow", {}))
    wrong = [finding for finding in judgement.findings if finding.verdict == "fault"]
    for finding in wrong:
        kind = "" if finding.name in narrow else narrow_type(run[finding.name], oracle[finding.name])
        if kind and (math.isinf(finding.error) or _accounts(kind, finding)):
            narrow[finding.name] = kind
    if not narrow:
        return
    name, kind = max(narrow.items(), key=lambda item: NARROW[item[1]])
    for finding in wrong:
        _excuse(finding, kind)
    more = f" (and {len(narrow) - 1} more)" if len(narrow) > 1 else ""
    came = "came in" if name in getattr(run, "narrow", {}) else "came in float32 but holds numbers of"
    judgement.notices.append(f"{name}{more} {came} {kind}, whose unit roundoff is 2^{NARROW[kind]} u")


def _excuse(finding: Finding, kind: str) -> None:
    power = NARROW[kind]
    if math.isinf(finding.error):
        if kind == "bfloat16":  # its exponents are those of float32
            return
        finding.reason += f"; {kind} overflows where float32 does not: run the port in float32 to judge it"
    elif not finding.limit:
        finding.reason += f"; {kind}'s roundoff may decide otherwise: run the port in float32 to judge it"
    elif _accounts(kind, finding):
        size = f"E {finding.error:.3g} u is the size of {kind}'s roundoff (2^{power} u)"
        finding.reason = f"{size}: run the port in float32 to judge it"
    else:
        finding.reason += f"; {kind}'s roundoff accounts for no more than {2.0**power * finding.limit:.2g} u"
        return
    finding.verdict = "not comparable"


def _accounts(kind: str, finding: Finding) -> bool:
    """Whether roundoff of a type makes an error of that size."""
    return finding.error <= 2.0 ** NARROW[kind] * finding.limit


def narrow_type(actual: NDArray[Any], expected: NDArray[Any]) -> str:
    """The half precision that holds every number of a float32 tensor, but not the oracle's; "" for none."""
    if actual.dtype != np.float32 or expected.dtype.kind != "f":
        return ""
    for kind in ("bfloat16", "float16"):  # numbers that fit the first may fit the second too
        if _fits(actual, kind) and not _fits(expected.astype(np.float32), kind):
            return kind
    return ""


def _fits(array: NDArray[np.float32], kind: str) -> bool:
    numbers = array[np.isfinite(array) & (array != 0)]
    if numbers.size < ENOUGH:
        return False
    if kind == "bfloat16":
        return not (np.ascontiguousarray(numbers).view(np.uint32) & 0xFFFF).any()
    with np.errstate(over="ignore"):
        return bool(np.array_equal(numbers.astype(np.float16).astype(np.float32), numbers))
