"""The error that each operation introduces by itself: its output against float64 on the very inputs the framework had.

The inputs of every operation are in the trace too, so that one recorded run is enough: nothing is run in the framework
again, and the trace may come from another machine (docs/decisions/localisation.md).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...backends.config import Config
from ...backends.naming import Arrays
from ...backends.runtime import load_backend
from ...backends.spec import Shape
from ..limits.metrics import error, not_finite, unequal
from ..trace import Trace, TraceProblem
from .local_error_backward import backward_expected
from .local_error_forward import forward_expected

Array = NDArray[Any]


class OwnTaps(Mapping[str, Array]):
    """The tensors that one run had, in float64, read at their first use.

    Raises TraceProblem for one that is not there, is damaged, is one of `without` or, where shapes are given, has another.
    """

    def __init__(self, trace: Trace, shapes: Mapping[str, Shape] | None = None, without: Collection[str] = ()):
        self.trace, self.expected, self.without = trace, shapes or {}, without
        self.shapes: dict[str, Shape] = {}  # of the tensors read

    def __getitem__(self, name: str) -> Array:
        if name in self.without:
            raise TraceProblem(f"{name} cannot be compared")
        array = self.trace[name]
        self.shapes[name] = array.shape
        if array.shape != self.expected.get(name, array.shape):
            raise TraceProblem(f"{name} is {array.shape}, not {self.expected[name]}")
        return array.astype(np.float64) if np.issubdtype(array.dtype, np.floating) else array

    def __contains__(self, name: object) -> bool:
        return name in self.trace.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.trace.names)

    def __len__(self) -> int:
        return len(self.trace.names)


def oracle_model(config: Config, weights: Arrays) -> Any:
    """The float64 model whose parts are run on the framework's tensors. weights: by spec name."""
    return load_backend("numpy").build(config, weights, dtype="float64")


def introduced(run_taps: OwnTaps, model: Any, gradients: bool = False) -> list[tuple[str, float]]:
    """Tensor and introduced error, in units of roundoff (for integers: unequal elements), in the order of computation.

    Tensors with an input that is missing, misshapen or not finite are left out.
    """
    trace, sizes = run_taps.trace, list[tuple[str, float]]()

    def measure(name: str, expected: Array) -> None:
        sizes.extend(_measured(trace, name, expected))

    with np.errstate(all="ignore"):
        forward_expected(run_taps, model, trace.manifest["mask_ratio"], measure)
        for name, expected in backward_expected(run_taps, model) if gradients else ():
            measure(name, expected)
    return sizes


def _measured(trace: Trace, name: str, expected: Array) -> Iterator[tuple[str, float]]:
    try:
        actual = trace[name]
    except TraceProblem:
        return
    if not np.isfinite(expected).all():
        return
    if actual.shape != expected.shape or not_finite(actual, expected):
        yield name, float("inf")
    elif np.issubdtype(expected.dtype, np.floating):
        yield name, error(actual, expected)
    else:
        yield name, float(unequal(actual, expected))


def by_operation(errors: Mapping[str, float], operations: Mapping[str, str]) -> dict[str, float]:
    """The root mean square of the introduced errors of each kind of operation."""
    kinds: dict[str, list[float]] = {}
    for name, value in errors.items():
        if name in operations:
            kinds.setdefault(operations[name], []).append(value)
    return {kind: float(np.sqrt(np.mean(np.square(values)))) for kind, values in kinds.items()}
