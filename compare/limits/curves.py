"""Judge a training curve: at every step the loss against the float64 oracle's, within the envelope of its twins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...backends.spec import Tap
from .findings import Finding
from .metrics import U

FACTOR = 4.0  # how many times further than the twins a right curve may be
A_PRIORI = 8 * U  # the envelope where no twin was recorded: of 25 measured, the widest after 100 steps was 7.7 u
CHAOTIC = 1e-3  # a relative distance of the twins from which on their curves only tell how chaotic training is


def furthest(losses: NDArray[Any], oracle: NDArray[Any]) -> float:
    """The largest distance of a curve from the oracle's at any step, in units of roundoff."""
    return float(distance(losses, oracle).max(initial=0) / U)


def judge_curve(
    tap: Tap, actual: NDArray[Any], oracle: NDArray[Any], twins: Sequence[NDArray[Any]], level: str = "curve"
) -> Finding:
    """Losses [steps] against the oracle's: |actual - oracle| / |oracle| <= 4 (envelope + u) at every step.

    The envelope is the largest distance of a twin from the oracle up to that step, and at least u, as for one loss.
    Where float32 leaves less than half of the steps to judge, and none of them is over, it is not comparable.
    The finding has the error, limit and floor, in u, of the step that is nearest to its limit or furthest over it.
    """
    finding = Finding(tap.name, level, tap.operation, "fault", size=oracle.size)
    if actual.shape != oracle.shape:
        finding.reason = f"shape {actual.shape}, the oracle's is {oracle.shape}"
        return finding
    lost = np.isfinite(oracle) & ~np.isfinite(actual)
    if lost.any():
        finding.error, finding.reason = float("inf"), f"the loss is not finite at step {int(np.argmax(lost)) + 1}"
        return finding
    limit = curve_limit(oracle, twins)
    judged = limit.size
    if not judged:
        finding.verdict = "not comparable"
        finding.reason = _stopped(0)
        return finding
    off = distance(actual, oracle)[:judged]
    ratio = off / limit
    worst = int(np.argmax(ratio))
    finding.error, finding.limit = float(off[worst] / U), float(limit[worst] / U)
    finding.floor = finding.limit / FACTOR - 1  # the envelope
    over = ratio > 1
    if over.any():
        finding.reason = f"first over its limit at step {int(np.argmax(over)) + 1} of {oracle.size}, "
        finding.reason += f"furthest at step {worst + 1}: "
    else:
        finding.verdict = "roundoff" if off.any() else "exact"
        if judged < oracle.size / 2:
            finding.verdict = "not comparable"
        finding.reason = f"nearest to its limit at step {worst + 1} of {oracle.size}: "
    finding.reason += f"{FACTOR:.0f} x (envelope {finding.floor:.2f} + 1)"
    finding.reason += f" (worst of {len(twins)} twins)" if twins else " (a priori)"
    if judged < oracle.size:
        finding.reason += f"; {_stopped(judged)}"
    return finding


def _stopped(judged: int) -> str:
    return f"from step {judged + 1} on float32 says nothing: its twins are more than {CHAOTIC:g} from the oracle"


def curve_limit(oracle: NDArray[Any], twins: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    """How far a curve may be from the oracle's, relatively, at every step that can be judged [steps or fewer]."""
    envelope = np.maximum(_envelope(oracle, twins), U)
    chaotic = ~(np.isfinite(oracle) & (envelope <= CHAOTIC))
    judged = int(np.argmax(chaotic)) if chaotic.any() else oracle.size
    return FACTOR * (envelope[:judged] + U)


def _envelope(oracle: NDArray[Any], twins: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    """The running maximum [steps] of the twins' distances from the oracle."""
    if not twins:
        return np.full(oracle.shape, A_PRIORI)
    return np.maximum.accumulate(np.max([distance(twin, oracle) for twin in twins], axis=0))


def distance(losses: NDArray[Any], oracle: NDArray[Any]) -> NDArray[np.float64]:
    """|losses - oracle| / |oracle| [steps]; infinite where either is not finite."""
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = np.abs(losses.astype(np.float64) - oracle) / np.abs(oracle)
    return np.where(losses == oracle, 0.0, np.where(np.isnan(relative), np.inf, relative))
