"""The right output of each operation of the backward pass, in float64, for the tensors that a run had.

It starts from the run's own gradients for the taps behind it (`dy/<tap>`) and the run's own taps, and gives the gradient
for the tap in front of it and for its parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from numpy.typing import NDArray

from ...backends.numpy.backward import steps
from ...backends.numpy.model import MAE, ViT
from ..trace import TraceProblem

Array = NDArray[Any]


class _Behind(Mapping[str, Array]):
    """The gradients for the taps, by the taps' names."""

    def __init__(self, run_taps: Mapping[str, Array]):
        self.run_taps = run_taps

    def __getitem__(self, name: str) -> Array:
        return self.run_taps[f"dy/{name}"]

    def __iter__(self) -> Iterator[str]:
        return (name.removeprefix("dy/") for name in self.run_taps if name.startswith("dy/"))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def backward_expected(run_taps: Mapping[str, Array], model: MAE | ViT) -> Iterator[tuple[str, Array]]:
    """`grad/<parameter>` or `dy/<tap>` and its expected value, in the order of the backward pass.

    Those that lack one of their own inputs are left out.
    """
    grads: dict[str, Array] = {}
    for name, compute in steps(model, _Behind(run_taps), run_taps, grads):
        grads.clear()
        try:
            dy = compute()
        except (TraceProblem, IndexError):  # a label may be out of range
            continue
        for param in reversed(grads):
            yield f"grad/{param}", grads[param]
        yield f"dy/{name}", dy
