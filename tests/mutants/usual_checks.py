"""Faults that pass the checks that are usual elsewhere, beside our verdict on the same runs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polymae.compare.limits.findings import Judgement
from polymae.compare.trace import Trace

from .harness import CORRECT, Bench

Check = Callable[[NDArray[Any], NDArray[Any]], bool]
# Each passes an atol of 1e-4 or a cosine of 0.9999, or both.
PASSING = ("last norm eps ten times larger", "attention scale off by 1e-5", "quick gelu")
OUTPUT = "pred"  # what the usual checks look at


def _assert_close(actual: NDArray[Any], expected: NDArray[Any]) -> bool:
    import torch

    try:
        torch.testing.assert_close(torch.from_numpy(actual.copy()), torch.from_numpy(expected.copy()))
    except AssertionError:
        return False
    return True


def _cosine(actual: NDArray[Any], expected: NDArray[Any]) -> bool:
    a, b = actual.astype(np.float64).ravel(), expected.astype(np.float64).ravel()
    return bool(a @ b > 0.9999 * np.linalg.norm(a) * np.linalg.norm(b))


# By the words of a table's head: of an output and the reference's, whether it is right.
USUAL: dict[str, Check] = {
    "torch.testing.assert_close (its defaults)": _assert_close,
    "numpy.allclose (rtol 1e-4, atol 1e-4)": lambda a, b: bool(np.allclose(a, b, rtol=1e-4, atol=1e-4)),
    "cosine above 0.9999": _cosine,
}


@dataclass(frozen=True)
class Line:
    """One run: what the usual checks say of its prediction, and what we say."""

    name: str
    passes: dict[str, bool]
    max_abs: float  # from the reference's prediction
    judgement: Judgement


def side_by_side(port: str = "numpy", reference: str = "torch", time_limit: float | None = None) -> list[Line]:
    """A correct port and faulty ones against a reference framework, on the small model as training starts it."""
    with (
        tempfile.TemporaryDirectory(prefix="polymae-elsewhere-") as folder,
        Bench(Path(folder), PASSING, time_limit, fresh=True) as bench,
    ):
        (subject,) = bench.subjects
        ((_, judgements),) = bench.judged(port, keep=True)
        reference_run = subject.run(reference, CORRECT)
        if reference != port:
            bench.record([reference_run])
        expected = Trace(reference_run.out)[OUTPUT]
        lines = []
        for name in (CORRECT, *PASSING):
            actual = Trace(subject.run(port, name).out)[OUTPUT]
            passes = {words: check(actual, expected) for words, check in USUAL.items()}
            distance = np.abs(actual.astype(np.float64) - expected)
            lines.append(Line(name, passes, float(distance.max()), judgements[name]))
        return lines
