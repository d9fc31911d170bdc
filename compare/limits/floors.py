"""Which float32 twins may set a limit, and what a reader should know of the floors that they give. NumPy only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...backends.spec import Tap
from .curves import A_PRIORI, furthest
from .metrics import U, error
from .tensors import null_elements
from .tolerance import FEW_DIGITS, HIGHEST_FLOOR, APriori, outliers

Array = NDArray[Any]
HIGH = 3.0  # times the a-priori bound: a floor of the forward pass from which on a reader should know of it


class Floors:
    """The floors of one comparison. a_priori: the model's, beyond which a twin is suspect."""

    def __init__(self, a_priori: APriori):
        self.bound = a_priori.floor
        self._formula = str(a_priori)
        self._outliers: dict[str, list[str]] = {}  # by twin
        self._worst = ("", 0.0)  # tensor and floor

    def fit(self, level: str, tap: Tap, oracle: Array, twins: Mapping[str, Array]) -> list[Array]:
        """The twins' tensors, by the twins' names, that may set this one's limit; the rest is remembered for notices.

        A twin far beyond the bound and the other twins has a fault of its own, and would hide a candidate's.
        """
        curve = tap.operation == "training"
        if tap.exact or not twins or not (curve or np.isfinite(oracle).all()):
            return list(twins.values())
        errors = _errors(level, oracle, twins, curve)
        bound, bound_in_words = (A_PRIORI / U, f"{A_PRIORI / U:.3g}") if curve else (self.bound, self._formula)
        out = {list(twins)[index] for index in outliers(list(errors.values()), oracle.size, bound)}
        for twin in out:
            sentence = (
                f"{tap.name} is {errors[twin]:.3g} u from the oracle, beyond {bound_in_words} and the other twins"
            )
            self._outliers.setdefault(twin, []).append(sentence)
        if not curve:
            self._remember(level, tap.name, [errors[twin] for twin in twins if twin not in out])
        return [array for twin, array in twins.items() if twin not in out]

    def _remember(self, level: str, name: str, errors: list[float]) -> None:
        high = level in ("forward", "loss") and min(errors) > HIGH * self.bound
        if (high or max(errors) > FEW_DIGITS) and self._worst[1] < max(errors) <= HIGHEST_FLOOR:
            self._worst = name, max(errors)

    @property
    def notices(self) -> list[str]:
        """A sentence for each twin that set no limit somewhere, and one on the highest floor where that is high."""
        sentences = []
        for twin, tensors in self._outliers.items():
            more = f"; nor do {len(tensors) - 1} other tensors of it" if len(tensors) > 1 else ""
            sentences.append(f"{twin}'s {tensors[0]}: it sets no limit{more}")
        name, floor = self._worst
        if floor > FEW_DIGITS:
            digits = int(-math.log10(floor * U))
            sentences.append(
                f"only about the first {digits} digits of {name} are judged: its float32 floor is {floor:.3g} u"
            )
        elif floor:
            sentences.append(
                f"the float32 floor of {name} is {floor:.3g} u, beyond {HIGH:.0f} x ({self._formula}): its limit is wide"
            )
        return sentences


def _errors(level: str, oracle: Array, twins: Mapping[str, Array], curve: bool) -> dict[str, float]:
    if curve:
        return {twin: furthest(array, oracle) for twin, array in twins.items()}
    kept = ~null_elements(oracle) if level == "gradients" else np.ones(oracle.shape, bool)
    if kept.all():
        return {twin: error(array, oracle) for twin, array in twins.items()}
    return {twin: error(array[kept], oracle[kept]) for twin, array in twins.items()}
