"""Measure how accurate each framework's kernels are, on the tensors that a model really gives them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..backends.errors import Problem
from ..backends.spec import taps
from ..convert.checkpoint import open_checkpoint
from .introduced import by_operation, introduced_errors
from .run import compare
from .trace import Trace
from .verdict import Comparison

KERNELS = Path(__file__).with_name("kernels.json")
TWIN = "twin1"
NOTABLE = 2.0  # a kernel whose own error exceeds this many times that of NumPy's float32 is worth naming
WRONG = 50.0  # units of roundoff: no float32 kernel that computes the right function is this far off


def profile(frameworks: Sequence[str], model: str, device: str, seed: int = 0) -> list[dict[str, Any]]:
    """A row for each framework and operation: its own rms error and that of NumPy's float32 twin, in units of roundoff."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="polymae-") as name:
        folder = Path(name)
        comparison = Comparison(frameworks=frameworks, model=model, device=device, seed=seed, keep=folder)
        report = compare(replace(comparison, levels=("weights", "forward"), reference=None))
        checkpoint = open_checkpoint(folder / "torch-weights.pth")
        oracle = Trace(folder / "oracle.npz")
        config = oracle.config
        weights = checkpoint.weights(config)
        operations = {tap.name: tap.operation for tap in taps(config)}
        twin = by_operation(dict(introduced_errors(Trace(folder / f"{TWIN}.npz"), config, weights)), operations)
        for judgement in report.judgements:
            if judgement.problem:
                raise Problem(f"{judgement.label} could not be measured: {judgement.problem}")
            trace = Trace(folder / f"{judgement.label}.npz")
            errors = by_operation(dict(introduced_errors(trace, config, weights)), operations)
            where = {key: trace.manifest["environment"][key] for key in ("framework", "version", "device")}
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
    """Put the notable rows into kernels.json, in place of older ones of the same framework, version and device.

    Raises Problem for an operation so far off that it is wrong, not inaccurate: it would be explained for ever.
    """
    for row in rows:
        if row["error"] > WRONG:
            raise Problem(
                f"{row['operation']} of {row['framework']} is {row['error']} u off: a fault, not a kernel to remember."
            )
    measured = {(row["framework"], row["version"], row["device"]) for row in rows}
    kept = [r for r in json.loads(KERNELS.read_text()) if (r["framework"], r["version"], r["device"]) not in measured]
    KERNELS.write_text(json.dumps([*kept, *notable(rows)], indent=1) + "\n")
