"""Noise behind the operations of NumPy's float64 run, as large as inaccurate kernels': the errors that they explain."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...backends.config import Config
from ...backends.gradient_taps import backward_taps
from ...backends.spec import taps
from ...files.errors import Problem
from ..limits.metrics import U


def operations(config: Config) -> dict[str, str]:
    """The operation behind every tap that is not exact, and behind every `dy/<tap>` ("gelu backward")."""
    forward = {tap.name: tap.operation for tap in taps(config) if not tap.exact}
    return forward | {tap.name: tap.operation for tap in backward_taps(config) if tap.name.startswith("dy/")}


def parse_noise(text: str, operations: Collection[str] = ()) -> dict[str, float]:
    """ "softmax=10.9,gelu=3" as a dictionary. Raises Problem for anything else, or for none of these operations."""
    try:
        noise = {name: float(size) for name, size in (part.split("=") for part in text.split(","))}
        if not all(0 <= size < math.inf for size in noise.values()):
            raise ValueError
    except ValueError:
        raise Problem(f"--kernel-noise {text!r} is not OPERATION=SIZE,...; sizes are in units of roundoff.") from None
    for name in noise:
        if operations and name not in operations:
            raise Problem(f"--kernel-noise {text!r}: this model has no {name!r}, but {', '.join(sorted(operations))}.")
    return noise


class NoisyTaps(dict[str, NDArray[Any]]):
    """A tap dictionary that spoils its arrays, in place: relative noise behind every call of some operations.

    prefix: of the names of `operations`, which its names lack.
    """

    def __init__(self, noise: Mapping[str, float], operations: Mapping[str, str], prefix: str = ""):
        super().__init__()
        self.noise, self.operations, self.prefix = noise, operations, prefix
        self.rng = np.random.default_rng(0)

    def __setitem__(self, name: str, value: NDArray[Any]) -> None:
        size = self.noise.get(self.operations.get(self.prefix + name, ""))
        if size:
            value *= 1 + size * U * self.rng.standard_normal(value.shape)
        super().__setitem__(name, value)
