"""Measure how accurate each framework's kernels are, on the tensors that a model really gives them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..backends.errors import Problem
from ..convert.checkpoint import open_checkpoint
from .judging.introduced import OwnTaps, by_operation, introduced, oracle_model
from .judging.kernels import operations
from .recording.trace import Trace
from .run import compare
from .verdict import Comparison

KERNELS = Path(__file__).parent / "judging" / "kernels.json"
TWIN = "twin1"
NOTABLE = 2.0  # a kernel whose own error exceeds this many times that of NumPy's float32 is worth naming
WRONG = 50.0  # units of roundoff: no float32 kernel that computes the right function is this far off


def profile(frameworks: Sequence[str], model: str, device: str, seed: int = 0) -> list[dict[str, Any]]:
    """A row for each framework and operation: its own rms error and that of NumPy's float32 twin, in units of roundoff."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="polymae-") as name:
        folder = Path(name)
        comparison = Comparison(frameworks=frameworks, model=model, device=device, seed=seed, keep=folder)
        report = compare(replace(comparison, levels=("weights", "forward", "gradients"), reference=None))
        checkpoint = open_checkpoint(folder / "torch-weights.pth")
        oracle = Trace(folder / "oracle.npz")
        config = oracle.config
        weights = checkpoint.weights(config)
        oracle_parts = oracle_model(config, weights)
        known = operations(config)

        def measured(label: str) -> dict[str, float]:
            return by_operation(dict(introduced(OwnTaps(Trace(folder / f"{label}.npz")), oracle_parts, True)), known)

        twin = measured(TWIN)
        for judgement in report.judgements:
            if judgement.problem:
                raise Problem(f"{judgement.label} could not be measured: {judgement.problem}")
            errors = measured(judgement.label)
            where = {key: judgement.environment[key] for key in ("framework", "version", "device")}
            rows += [
                {
                    **where,
                    "operation": operation,
                    "error": round(size, 2),
                    "twin": round(twin[operation], 2),
                    "model": model,
                }
                for operation, size in errors.items()
            ]
    return rows


def notable(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of kernels that are clearly less accurate than NumPy's."""
    return [row for row in rows if row["error"] > NOTABLE * row["twin"]]


def remember(rows: Sequence[dict[str, Any]]) -> None:
    """Put the notable rows into kernels.json, in place of older ones of the same operation, framework and device.

    Raises Problem for an operation so far off that it is wrong, not inaccurate: it would be explained for ever.
    """
    for row in rows:
        if row["error"] > WRONG:
            raise Problem(
                f"{row['operation']} of {row['framework']} is {row['error']} u off: a fault, not a kernel to remember."
            )
    measured = {_kernel(row) for row in rows}
    kept = [row for row in json.loads(KERNELS.read_text()) if _kernel(row) not in measured]
    KERNELS.write_text(json.dumps([*kept, *notable(rows)], indent=1) + "\n")


def _kernel(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(row[key] for key in ("framework", "version", "device", "operation"))
