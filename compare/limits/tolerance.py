"""Where roundoff ends and a fault begins: limits derived from float32 twins of the oracle, each with its reason.

A twin is the NumPy model in float32 with the terms of every product added one after the other, in its own order. That
is the order of summation that costs most of those that a right implementation takes, and it is the same on every machine.
Its distance from the float64 oracle is the floor F. A candidate passes where its error E is at most kappa(n) * F
(docs/decisions/tolerance.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_low

from ...backends.config import Config, MAEConfig

# How many times the floor a right run may be from the oracle, for a tensor of many elements. Of 1,450 runs under the kernels of
# many CPUs (benchmarks/false_alarms.py) the furthest came to 1.3 floors, end to end. An operation by itself has the error of few
# roundings, not of a whole model's, so that it fluctuates more: 1.6 floors were seen.
END_TO_END = 1.5
ALONE = 2.0
BEYOND = 3.0  # times the median of the twins: from there on one of them has a fault of its own
# A sixteenth of a tensor's elements count as independent: its rows share their inputs.
DEPENDENCE = 16
# Elements of the oracle's gradient this far below its largest are zero in exact arithmetic (the key bias: softmax
# does not change when all scores of a row shift). Relative error means nothing there; they get an absolute limit.
NULL = 1e-12
# A gradient's elements share the errors of all that they came through, and three twins do not show how these vary: the worst of
# those runs (grad/pos_embed) came to 2.1 floors. What each operation introduces by itself keeps the narrow limit.
# The other levels run few operations, none of which sums products.
FACTORS = {"forward": END_TO_END, "loss": END_TO_END, "gradients": 2 * END_TO_END}
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


@dataclass(frozen=True)
class APriori:
    """The floor of a float32 model of which no twin was recorded, and the bound beyond which a twin is suspect.

    blocks: layers in a row; terms: of the longest sum of products, 0 where it is not known.
    """

    blocks: int
    terms: int = 0

    @property
    def floor(self) -> float:
        """3 sqrt(blocks) + 6 for kernels that sum in blocks, and the error of the longest sum in one chain."""
        return 3 * math.sqrt(self.blocks) + 6 + 0.4 * math.sqrt(self.terms / 2)

    def __str__(self) -> str:
        chain = f" + 0.4 sqrt({self.terms} / 2)" if self.terms else ""
        return f"3 sqrt({self.blocks}) + 6{chain} = {self.floor:.3g}"


def longest_sum(config: Config) -> int:
    """The number of terms of the longest sum of products in a model's forward pass."""
    widths = [config.embed_dim, config.mlp_dim(config.embed_dim), config.in_chans * config.patch_size**2]
    if isinstance(config, MAEConfig):
        widths += [config.decoder_embed_dim, config.mlp_dim(config.decoder_embed_dim)]
    return max(widths)


def kappa(size: int, factor: float = END_TO_END) -> float:
    """The safety factor, larger for tensors of few elements, whose error fluctuates: factor (1 + 3 / sqrt(2 n / 16))."""
    return factor * (1 + 3 / math.sqrt(2 * max(size, 1) / DEPENDENCE))


def outliers(twins: Sequence[float], size: int, bound: float) -> list[int]:
    """Which twins, by their E, may set no limit for a tensor of `size` elements: those beyond the bound and the others.

    Beyond the others is more than three times their (lower) median, and at least three; more for few elements, whose E
    fluctuates.
    """
    if not twins:
        return []
    highest = max(bound, kappa(size, BEYOND) * max(1.0, median_low(twins)))
    return [index for index, e in enumerate(twins) if e > highest]


def tensor_limit(size: int, twins: Sequence[float], a_priori: APriori, factor: float = END_TO_END) -> Limit:
    """The limit on E for a tensor of `size` elements: kappa times the worst E of the float32 twins, at least 1.

    Without twins the floor is the one a priori. factor: kappa's, for a tensor of many elements.
    """
    safety = kappa(size, factor)
    floor = max(1.0, *twins) if twins else a_priori.floor
    source = f"worst of {len(twins)} twins" if twins else f"a priori: {a_priori}"
    return Limit(safety * floor, floor, f"kappa {safety:.2f} (n={size}) x floor {floor:.2f} ({source})")


def scalar_limit(twins: Sequence[float], a_priori: APriori) -> Limit:
    """The limit on E for a loss.

    One number has no average to lean on, and a reduction that sums in one chain is right too: 3.1 u were measured
    where the twins stay below 1.
    """
    floor = max(1.0, *twins) if twins else a_priori.floor
    return Limit(4 * (floor + 1), floor, f"4 x (floor {floor:.2f} + 1) (scalar)")


def null_limit(size: int, twins: Sequence[float]) -> Limit:
    """The limit on the rms of gradient elements that are zero in exact arithmetic, in u times that of their siblings.

    twins: the same ratio in each float32 twin.
    """
    out = outliers(twins, size, NULL_BOUND)
    floor = max([1.0, *(e for index, e in enumerate(twins) if index not in out)])
    value = max(NULL_BOUND, kappa(size) * floor)
    return Limit(value, floor, f"zero in exact arithmetic: at most {value:.1f} u of its siblings")
