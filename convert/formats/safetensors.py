"""The .safetensors format: a length, a JSON header with every tensor's place, then the bytes.

Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..tensors import DTYPES, Array, CheckpointProblem, Progress, State, Tensor, from_bytes, map_file, to_bytes

NAME, ENDINGS, FOLDER = "safetensors", (".safetensors",), False

_DTYPES = {
    "F32": "float32", "F64": "float64", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
_LONGEST_HEADER = 100_000_000  # bytes, the format's own limit


def matches(head: bytes) -> bool:
    """Whether a file that begins with these bytes is of this format."""
    return len(head) > 8 and head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] <= _LONGEST_HEADER


def read(path: Path) -> State:
    """The tensors of a file, lazily. Raises CheckpointProblem."""
    data = map_file(path)

    def damaged(why: str) -> CheckpointProblem:
        return CheckpointProblem(f"{path} is a damaged .safetensors file: {why}. Download or copy it again.")

    length = struct.unpack("<Q", data[:8])[0] if len(data) >= 8 else 0
    if not 2 <= length <= min(_LONGEST_HEADER, len(data) - 8):
        raise damaged(f"its header of {length:,} bytes does not fit in its {len(data):,} bytes")
    try:
        header = json.loads(bytes(data[8 : 8 + length]), object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as problem:
        raise damaged(f"its header is not JSON ({problem})") from None
    if not isinstance(header, dict):
        raise damaged("its header is not a JSON object")
    header.pop("__metadata__", None)
    body = data[8 + length :]
    tensors = {name: _tensor(name, entry, body, damaged) for name, entry in header.items()}
    if not tensors:
        raise CheckpointProblem(f"{path} holds no tensors; is it the right file?")
    return State(tensors)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name appears twice")
    return found


def _tensor(name: str, entry: Any, body: memoryview, damaged: Callable[[str], CheckpointProblem]) -> Tensor:
    try:
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        if any(type(n) is not int or n < 0 for n in (*shape, begin, end)) or len(shape) > 16:
            raise TypeError
    except (KeyError, TypeError, ValueError):
        raise damaged(f"the entry of {name} makes no sense") from None
    if dtype not in _DTYPES:
        raise CheckpointProblem(f"{name} has dtype {dtype}; this reader knows {', '.join(_DTYPES)}.")
    dtype = _DTYPES[dtype]
    needed = math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize
    if end - begin != needed or end > len(body):
        raise damaged(
            f"{name} of shape {shape} needs {needed:,} bytes, its place is {begin:,} to {end:,} of {len(body):,}"
        )
    return Tensor(shape, dtype, lambda: from_bytes(body[begin:end], dtype, shape))


def write(path: Path, arrays: Mapping[str, Array], progress: Progress) -> None:
    """Write float32 arrays in the given order. `path` is made and must not exist."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # transformers asks for it
    offset = 0
    for name, array in arrays.items():
        header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)  # keeps the data aligned
    with path.open("xb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        for array in arrays.values():
            file.write(to_bytes(array))
            progress(array.nbytes)
