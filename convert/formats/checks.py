"""The checks of every format: before a file's description of a tensor is trusted, and before one is written."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..tensors import DTYPES, CheckpointProblem, State, Tensor, to_bytes

# NumPy's own spelling of a dtype, without the byte order: "f4".
CODES = {np.dtype(code).str[1:]: name for name, code in DTYPES.items() if name != "bfloat16"}
LONGEST_JSON = 5_000_000  # bytes, a hundred times the largest model's header; parsed, it takes 30 times this
MOST_TENSORS = 20_000  # a huge model has 520, its training file 2,000
_MOST_DIMENSIONS = 16
_MOST_BYTES = 2**60  # NumPy cannot count further; no file comes near


def bytes_needed(shape: Any, dtype: str) -> int | None:
    """How many bytes a tensor of this shape takes; None if that is no shape (whatever type a file gave it)."""
    if not isinstance(shape, (tuple, list)) or len(shape) > _MOST_DIMENSIONS:
        return None
    # bool is an int to Python, and no size; sizes beside a 0 are bounded too, for NumPy multiplies them
    if any(type(size) is not int or not 0 <= size < 2**63 for size in shape):
        return None
    itemsize = np.dtype(DTYPES[dtype]).itemsize
    if math.prod(max(size, 1) for size in shape) * itemsize > _MOST_BYTES:
        return None
    return math.prod(shape) * itemsize


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Within this context, an OSError for a folder becomes a CheckpointProblem."""
    try:
        yield
    except OSError as problem:
        raise CheckpointProblem(f"Cannot read {path}: {problem}; check its permissions.", code="cannot-read") from None


def shown(name: str) -> str:
    """A name from a file, fit for a terminal."""
    return name if name.isprintable() and len(name) <= 200 else ascii(name[:100])


def proper_name(name: Any, where: str) -> str:
    """The name itself. Raises CheckpointProblem for an impossible name: not text, too long, unprintable."""
    if not isinstance(name, str) or not 0 < len(name) <= 500 or not name.isprintable():
        raise CheckpointProblem(
            f"{where} is damaged: a tensor in it is called {ascii(name)[:100] if isinstance(name, str) else 'nothing'}, "
            "which is no name. Download or save it again.",
            code="damaged",
        )
    return name


def bounded_count(count: int, where: str) -> None:
    """Raise CheckpointProblem for more tensors than any model has: reading them would take too long."""
    if count > MOST_TENSORS:
        raise CheckpointProblem(
            f"{where} is damaged, or no checkpoint: it lists {count:,} tensors; models have up to {MOST_TENSORS:,}.",
            code="too-large",
        )


def bounded_json(path: Path, where: str) -> dict[str, Any]:
    """The JSON object in a small file. Raises CheckpointProblem for anything else, and OSError."""
    with path.open("rb") as file:
        raw = file.read(LONGEST_JSON + 1)
    try:
        content = json.loads(str(raw, "utf-8")) if len(raw) <= LONGEST_JSON else None
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise CheckpointProblem(
            f"{where}: {path.name} is no JSON object of at most {LONGEST_JSON:,} bytes.", code="damaged"
        )
    return content


def not_supported(where: str, kind: str) -> CheckpointProblem:
    """The problem of a sound tensor of a kind that no model here has. where: file and tensor."""
    return CheckpointProblem(
        f"{where} is {kind}, which is not read here; nothing is wrong with the file. Save it as plain bfloat16 or float32 "
        "first, with the library that wrote it.",
        code="unsupported",
    )


def stored_bytes(name: str, tensor: Tensor) -> memoryview:
    """Load a tensor: its little-endian bytes in C order, not copied if they already lie so."""
    array = tensor.load()
    if array.shape != tensor.shape or array.dtype.newbyteorder("<") != np.dtype(DTYPES[tensor.dtype]):
        raise ValueError(f"{name} loads as {array.dtype} {array.shape}, not as {tensor.dtype} {tensor.shape}")
    return to_bytes(array)


def require_dtypes(state: State, known: Collection[str], form: str) -> None:
    """Raise CheckpointProblem for the first tensor of a dtype that a format has no way to express."""
    for name, tensor in state.tensors.items():
        if tensor.dtype not in known:
            raise CheckpointProblem(
                f"{form} cannot hold {tensor.dtype} ({name}); it holds {', '.join(known)}. Convert to one of these "
                "(--dtype float32), or write .safetensors, which holds every dtype.",
                code="not-expressible",
            )
