"""What to say of values that are finite in the file, but not in the dtype that was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .tensors import Array, CheckpointProblem, Tensor, cast, of_array

_FLOATS = ("float16", "bfloat16", "float32", "float64")


def overflow_problem(path: Path, dtype: str, tensors: Mapping[str, Tensor]) -> CheckpointProblem:
    """Which of a file's finite tensors have values beyond `dtype`, and which dtypes hold them all.

    tensors: by spec name, in the file's own dtype. Loads one after the other.
    """
    found, largest = [], 0.0
    for name, tensor in tensors.items():
        sizes = np.abs(cast(tensor, "float64").load())
        count = int((~_fits(sizes, dtype)).sum())
        largest = max(largest, float(sizes.max(initial=0)))
        if count:
            found.append(
                f"too large: {name} has {count:,} of {sizes.size:,} values beyond {dtype}, up to {sizes.max():g}"
            )
    holds = " or ".join(other for other in _FLOATS if _fits(np.array([largest]), other).all())
    return CheckpointProblem(
        f"{path} holds values that do not fit {dtype}, in {len(found)} tensors; {holds} holds them all (--dtype).\n  "
        + "\n  ".join(found),
        tuple(found),
    )


def _fits(sizes: Array, dtype: str) -> Array:
    """Which float64 values stay finite in another dtype."""
    return np.isfinite(cast(cast(of_array(sizes), dtype), "float64").load())
