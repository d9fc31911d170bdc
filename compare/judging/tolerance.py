"""Where roundoff ends and a fault begins: limits derived from float32 twins of the oracle, each with its reason.

A twin is the NumPy model in float32 with the terms of every matrix product summed in another order. Its distance
from the float64 oracle is the floor F: what any right float32 implementation costs on these weights and inputs.
A candidate passes where its error E is at most kappa(n) * F (docs/decisions/tolerance.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_low

# A sixteenth of a tensor's elements count as independent: its rows share their inputs.
DEPENDENCE = 16
# Elements of the oracle's gradient this far below its largest are zero in exact arithmetic (the key bias: softmax
# does not change when all scores of a row shift). Relative error means nothing there; they get an absolute limit.
NULL = 1e-12
# A gradient's elements share the errors of all that they came through, and three twins do not show how these vary: the worst
# of 250 right runs had 2.9 times its twins'. What each operation introduces by itself keeps the narrow limit.
SPREAD = {"gradients": 1.5}
# Twins further from the oracle than this leave only three digits (6e-4): too few to tell a fault by.
HIGHEST_FLOOR = 1e4
FEW_DIGITS = 1e3  # a floor from which on a reader should know how few digits are judged
# What cannot be a null element's own size in a right run, in u of its siblings, where no twin says more.
NULL_BOUND = 8.0


@dataclass(frozen=True)
class Limit:
    """The largest error that still counts as roundoff, and why."""

    value: float
    floor: float
    reason: str


def a_priori_floor(blocks: int) -> float:
    """The floor of a float32 model of this many blocks, where no twin was recorded: 3 sqrt(blocks) + 6."""
    return 3 * math.sqrt(blocks) + 6


def kappa(size: int) -> float:
    """The safety factor, larger for tensors of few elements, whose error fluctuates: 2 (1 + 3 / sqrt(2 n / 16))."""
    return 2 * (1 + 3 / math.sqrt(2 * max(size, 1) / DEPENDENCE))


def outliers(twins: Sequence[float], size: int, bound: float) -> list[int]:
    """Which twins, by their E, may set no limit for a tensor of `size` elements: those beyond the bound and the others.

    Beyond the others is more than 1.5 kappa times their (lower) median, and at least 1.5 kappa: three times for large
    tensors, more for few elements, whose E fluctuates.
    """
    if not twins:
        return []
    highest = max(bound, 1.5 * kappa(size) * max(1.0, median_low(twins)))
    return [index for index, e in enumerate(twins) if e > highest]


def tensor_limit(size: int, twins: Sequence[float], blocks: int, spread: float = 1.0) -> Limit:
    """The limit on E for a tensor of `size` elements, from the E of each float32 twin; spread: more for shared errors."""
    factor = spread * kappa(size)
    floor = max(1.0, *twins) if twins else a_priori_floor(blocks)
    source = f"worst of {len(twins)} twins" if twins else f"a priori for {blocks} blocks"
    return Limit(factor * floor, floor, f"kappa {factor:.2f} (n={size}) x floor {floor:.2f} ({source})")


def scalar_limit(twins: Sequence[float], blocks: int) -> Limit:
    """The limit on E for a loss.

    One number has no average to lean on, and a reduction that sums in one chain is right too: 3.1 u were measured
    where the twins stay below 1.
    """
    floor = max(1.0, *twins) if twins else a_priori_floor(blocks)
    return Limit(4 * (floor + 1), floor, f"4 x (floor {floor:.2f} + 1) (scalar)")


def null_limit(size: int, twins: Sequence[float]) -> Limit:
    """The limit on the rms of gradient elements that are zero in exact arithmetic, in u times that of their siblings.

    twins: the same ratio in each float32 twin.
    """
    out = outliers(twins, size, NULL_BOUND)
    floor = max([1.0, *(e for index, e in enumerate(twins) if index not in out)])
    value = max(NULL_BOUND, kappa(size) * floor)
    return Limit(value, floor, f"zero in exact arithmetic: at most {value:.1f} u of its siblings")
