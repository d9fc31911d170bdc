"""The twins that set the limits sum in one chain: the same bits on every machine, whatever its BLAS does."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from runs import MODEL, inputs

from polymae.backends.numpy.sums import Array, chained_matmul, matmul, summed_in_chains
from polymae.compare.options import Run
from polymae.compare.record.child import record_in_process
from polymae.compare.trace import Trace

RNG = np.random.default_rng(0)
LEVELS = ("forward", "loss", "gradients")


def normal(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def by_the_book(a: Array, b: Array) -> Array:
    """One multiplication and one addition after the other, each rounded to float32."""
    total = np.zeros((*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1]), np.float32)
    for k in range(a.shape[-1]):
        total += a[..., k, None] * b[..., k, None, :]
    return total


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (normal(5, 700), normal(700, 9)),
        (normal(1, 700), normal(700, 9)),
        (normal(5, 700), normal(700, 1)),  # a sum over the innermost axis, which NumPy would take in several lanes
        (normal(1, 700), normal(700, 1)),
        (normal(5, 1), normal(1, 9)),
        (normal(700, 5).T, normal(9, 700).T),
        (normal(700, 5).T, normal(1, 700).T),
        (normal(2, 3, 5, 64), normal(2, 3, 7, 64).swapaxes(-2, -1)),
        (normal(2, 3, 5, 64), normal(64, 7)),
        (normal(3, 2, 64, 5).transpose(1, 0, 3, 2), normal(2, 3, 64, 1)),
    ],
)
def test_a_chain_is_one_addition_after_the_other(a: Array, b: Array) -> None:
    assert np.array_equal(chained_matmul(a, b), by_the_book(a, b))


def test_a_twin_sums_in_a_chain_in_an_order_of_its_own() -> None:
    a, b = normal(50, 2048), normal(2048, 60)
    exact = a.astype(np.float64) @ b
    found = []
    for seed in (1, 2):
        with summed_in_chains(seed):
            found.append(matmul(a, b))
    errors = [np.linalg.norm(product - exact) / np.linalg.norm(exact) * 2**24 for product in found]
    assert not np.array_equal(*found)
    # 0.4 sqrt(2048 / 2) = 12.8; any BLAS that sums in blocks or lanes is below 10.
    assert all(11 < error < 15 for error in errors)


def recorded_under(core: str, folder: Path, twin: int | None, monkeypatch: pytest.MonkeyPatch) -> Trace:
    monkeypatch.setitem(os.environ, "OPENBLAS_CORETYPE", core)
    run = Run("numpy", folder / f"{core}-{twin}.npz", inputs(), model=MODEL, levels=LEVELS, twin=twin)
    outcome = record_in_process(run)
    assert outcome.trace, outcome.reason
    return Trace(outcome.trace)


def test_a_twin_has_the_same_bits_under_every_blas_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def differing(twin: int | None) -> int:
        one, other = (recorded_under(core, tmp_path, twin, monkeypatch) for core in ("Prescott", "Haswell"))
        assert one.names == other.names
        return sum(not np.array_equal(one[name], other[name]) for name in one.names)

    assert differing(twin=None) > 100  # the kernels do differ
    assert differing(twin=1) == 0
