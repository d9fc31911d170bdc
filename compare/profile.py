"""Measure how accurate each framework's kernels are, on the tensors that a model really gives them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from ..convert.checkpoint import open_checkpoint
from ..files.errors import Problem
from .judge.local_error import OwnTaps, by_operation, introduced, oracle_model
from .limits.findings import Finding
from .options import Comparison
from .record.noise import operations
from .run import compare
from .trace import Trace

KERNELS = Path(__file__).parent / "judge" / "kernels.json"
TWIN = "twin1"
NOTABLE = 2.0  # a kernel whose own error exceeds this many times that of NumPy's float32 is worth naming
CONCENTRATED = 3.0  # how many times further off than its typical call the worst call of a kernel may be
WRONG = 20.0  # units of roundoff: the least accurate kernel measured that computes the right function has 10.6


def profile(frameworks: Sequence[str], model: str, device: str, seed: int = 0) -> list[dict[str, Any]]:
    """A row for each framework and operation: its own rms error and that of NumPy's float32 twin, in units of roundoff.

    "suspect" is in a row why it looks like a fault in some of the operation's calls, if it does.
    """
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="polymae-") as name:
        folder = Path(name)
        comparison = Comparison(tuple(frameworks), model=model, device=device, seed=seed, keep=folder)
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
            calls: dict[str, list[Finding]] = {}
            for finding in judgement.findings:
                if finding.introduced_limit and finding.name in known:
                    calls.setdefault(known[finding.name], []).append(finding)
            where = {key: judgement.environment[key] for key in ("framework", "version", "device")}
            rows += [
                {
                    **where,
                    "operation": operation,
                    "error": round(size, 2),
                    "twin": round(twin[operation], 2),
                    "model": model,
                    "suspect": suspect(calls.get(operation, [])),
                }
                for operation, size in errors.items()
            ]
    return rows


def notable(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of kernels that are clearly less accurate than NumPy's."""
    return [row for row in rows if row["error"] > NOTABLE * row["twin"]]


def suspect(calls: Sequence[Finding]) -> str:
    """Why an operation's error is that of some of its calls, as a fault's is and a kernel's is not; or nothing."""
    if not calls:
        return ""
    typical, worst = median(call.introduced for call in calls), max(calls, key=lambda call: call.introduced)
    if worst.introduced > max(CONCENTRATED * typical, worst.introduced_limit):
        return f"{worst.name} is {worst.introduced:.3g} u off, its typical call {typical:.3g}"
    wrong = [call.name for call in calls if call.introduces]
    return (
        f"only {len(wrong)} of its {len(calls)} calls are over their limits ({wrong[0]})"
        if 0 < len(wrong) < len(calls)
        else ""
    )


def remember(rows: Sequence[dict[str, Any]]) -> None:
    """Put the notable rows into kernels.json, in place of older ones of the same operation, framework and device.

    Raises Problem for an operation so far off, or in so few of its calls, that it is wrong, not inaccurate: it would be
    explained for ever.
    """
    for row in rows:
        if row["error"] > WRONG:
            raise Problem(
                f"{row['operation']} of {row['framework']} is {row['error']} u off: a fault, not a kernel to remember."
            )
    for row in notable(rows):
        if why := row.get("suspect"):
            raise Problem(f"{row['operation']} of {row['framework']}: {why}: a fault, not a kernel to remember.")
    measured = {_kernel(row) for row in rows}
    kept = [row for row in json.loads(KERNELS.read_text()) if _kernel(row) not in measured]
    new = [{key: value for key, value in row.items() if key != "suspect"} for row in notable(rows)]
    KERNELS.write_text(json.dumps([*kept, *new], indent=1) + "\n")


def _kernel(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(row[key] for key in ("framework", "version", "device", "operation"))
