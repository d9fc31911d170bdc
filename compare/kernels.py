"""Kernels known to be less accurate than others, as measured by `polymae profile`, and what they explain.

An error above its limit is explained where the oracle, run again in float64 with noise of the kernel's measured size
behind each of its calls, predicts it. The measurements are data: kernels.json, by framework, version and device.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backends.errors import Problem
from .judge import Finding, Judgement
from .metrics import U, error
from .tolerance import scalar_limit, tensor_limit
from .trace import Trace


def known_kernels(environment: Mapping[str, Any]) -> dict[str, float]:
    """Operation and error in units of roundoff of the inaccurate kernels of a recorded environment."""
    rows = json.loads(resources.files(__package__).joinpath("kernels.json").read_text())
    same = ("framework", "version", "device")
    return {row["operation"]: row["error"] for row in rows if all(row[key] == environment.get(key) for key in same)}


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
    """A tap dictionary that spoils what is recorded in it, in place: relative noise behind every call of some operations."""

    def __init__(self, noise: Mapping[str, float], operations: Mapping[str, str]):
        super().__init__()
        self.noise, self.operations = noise, operations
        self.rng = np.random.default_rng(0)

    def __setitem__(self, name: str, value: NDArray[Any]) -> None:
        size = self.noise.get(self.operations.get(name, ""))
        if size:
            value *= 1 + size * U * self.rng.standard_normal(value.shape)
        super().__setitem__(name, value)


def explain(judgement: Judgement, oracle: Trace, noisy: Trace, noise: Mapping[str, float]) -> None:
    """Turn the faults that the named kernels account for into "explained", with the limit that they raise."""
    kernels = ", ".join(f"{operation} kernel ({size:.3g} u)" for operation, size in noise.items())
    judgement.explained_by = f"{kernels} of {judgement.environment['framework']} {judgement.environment['version']}"
    for finding in judgement.findings:
        if finding.verdict == "fault" and finding.limit:
            _explain_one(finding, error(noisy[finding.name], oracle[finding.name]), judgement.explained_by)


def _explain_one(finding: Finding, extra: float, kernels: str) -> None:
    size = finding.size
    floor = float(np.hypot(finding.floor, extra))
    limit = scalar_limit([floor], 0) if size == 1 else tensor_limit(size, [floor], 0)
    if finding.error <= limit.value:
        finding.verdict, finding.limit = "explained", limit.value
        finding.reason = f"{kernels} adds {extra:.2f} to the floor {finding.floor:.2f} (in quadrature)"
