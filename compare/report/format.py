"""Findings in few words, as every kind of report writes them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..limits.findings import Finding, Judgement
from ..options import LEVELS


def amount(finding: Finding) -> str:
    """The operation that introduces the error, or else the error and the limit of a finding, or its reason where it has none."""
    if finding.cause:
        return finding.cause
    if math.isinf(finding.error) or not finding.limit or finding.error <= finding.limit:
        return finding.reason
    return f"E {finding.error:.3g} u, limit {finding.limit:.3g}"


def level_cell(judgement: Judgement, level: str, compared: Sequence[str] = LEVELS) -> str:
    """The worst of a level's tensors: E / limit, its verdict where there is no limit, or - where nothing was judged."""
    worst = judgement.worst(level)
    if worst is None:
        return "none" if level in compared and not judgement.problem else "-"
    error, limit = worst.measure
    if not limit or (worst.verdict == "exact" and level in ("weights", "inputs")):
        return worst.verdict
    return f"{short(error)}/{limit:.2g}" if error >= 1000 else f"{short(error)}/{short(limit)}"


def short(value: float) -> str:
    """Two or three digits, in few characters: 0.85, 8.07, 14.4, 1.2e3."""
    if abs(value) < 1000:
        return f"{value:.2g}" if abs(value) < 1 else f"{value:.3g}"
    return f"{value:.1e}".replace("e+0", "e").replace("e+", "e")
