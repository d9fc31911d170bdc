"""The .safetensors format: a length, a JSON header with every tensor's place, then the bytes.

Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...files.errors import Code
from ..tensors import DTYPES, CheckpointProblem, Progress, State, Tensor, from_bytes, map_file
from .checks import LONGEST_JSON, bounded_count, bytes_needed, not_supported, proper_name, stored_bytes

NAME, ENDINGS, FOLDER, HAS_ROOM = "safetensors", (".safetensors",), False, True

_DTYPES = {
    "F32": "float32", "F64": "float64", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
_SMALL_OR_COMPLEX = re.compile(r"F[468]_\w+|F4|C64")  # dtypes of the format that no weights of a model here have
_SPELLED = {dtype: name for name, dtype in _DTYPES.items()}
_METADATA = "__metadata__"
_Damaged = Callable[[str], CheckpointProblem]


def matches(head: bytes) -> bool:
    """Whether a file that begins with these bytes is of this format."""
    return len(head) > 8 and head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] <= 100_000_000  # the format's limit


def read(path: Path) -> State:
    """The tensors of a file, lazily, and the file's metadata. Raises CheckpointProblem."""
    data = map_file(path)

    def damaged(why: str, code: Code = "damaged") -> CheckpointProblem:
        return CheckpointProblem(f"{path} is a damaged .safetensors file: {why}. Download or copy it again.", code=code)

    length = struct.unpack("<Q", data[:8])[0] if len(data) >= 8 else 0
    if not 2 <= length <= min(LONGEST_JSON, len(data) - 8):
        raise damaged(
            f"its header of {length:,} bytes does not fit in its {len(data):,} bytes, or is beyond all need",
            "too-large" if length > LONGEST_JSON else "truncated",
        )
    try:
        header = json.loads(str(data[8 : 8 + length], "utf-8"), object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as problem:
        raise damaged(f"its header is not JSON ({problem})") from None
    if not isinstance(header, dict):
        raise damaged("its header is not a JSON object")
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise damaged("its metadata are not texts")
    bounded_count(len(header), str(path))
    places = [_place(proper_name(name, str(path)), entry, str(path), damaged) for name, entry in header.items()]
    # As the official reader insists: one tensor after the other, no bytes twice, none left over.
    at = 0
    for name, _, _, begin, end in sorted(places, key=lambda place: place[3:]):
        if begin != at:
            raise damaged(f"{name} begins at byte {begin:,}, not where the tensor before it ends ({at:,})")
        at = end
    body = data[8 + length :]
    if at != len(body):
        raise damaged(f"its tensors end at byte {at:,} of {len(body):,}", "truncated" if at > len(body) else "damaged")
    if not places:
        raise CheckpointProblem(f"{path} holds no tensors; is it the right file?", code="not-a-checkpoint")
    tensors = {name: _tensor(shape, dtype, body[begin:end]) for name, shape, dtype, begin, end in places}
    return State(tensors, metadata=metadata)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a name appears twice")
    return values


def _place(name: str, entry: Any, where: str, damaged: _Damaged) -> tuple[str, tuple[int, ...], str, int, int]:
    """A tensor's name, shape and dtype, and the begin and end of its bytes in the data."""
    try:
        spelled, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        if type(begin) is not int or type(end) is not int or not isinstance(spelled, str):
            raise TypeError
    except (KeyError, TypeError, ValueError):
        raise damaged(f"the entry of {name} makes no sense") from None
    if _SMALL_OR_COMPLEX.fullmatch(spelled):
        raise not_supported(f"{where}: {name}", spelled)
    if spelled not in _DTYPES:
        raise damaged(f"{name} has dtype {spelled[:20]!r}, known are {', '.join(_DTYPES)}")
    needed = bytes_needed(shape, _DTYPES[spelled])
    if needed is None or end - begin != needed:
        raise damaged(f"{name} of shape {str(shape)[:80]} needs {needed or 0:,} bytes, its place is {begin} to {end}")
    return name, tuple(shape), _DTYPES[spelled], begin, end


def _tensor(shape: tuple[int, ...], dtype: str, data: memoryview) -> Tensor:
    return Tensor(shape, dtype, lambda: from_bytes(data, dtype, shape))


def write(path: Path, state: State, progress: Progress) -> None:
    """Write tensors and metadata. `path` is made and must not exist.

    They stand in the given order, those of wide dtypes first, so that each is aligned, as readers in place need it.
    """
    ordered = sorted(state.tensors.items(), key=lambda item: -np.dtype(DTYPES[item[1].dtype]).itemsize)
    with path.open("xb") as file:
        opening = _opening(ordered, state.metadata)
        file.write(opening)
        for name, tensor in ordered:
            file.write(stored_bytes(name, tensor))
            progress(tensor.nbytes)
        if state.finalize:
            file.seek(0)
            settled = _opening(ordered, state.finalize())
            if len(settled) != len(opening):
                raise ValueError(f"the metadata of {path} changed their length")
            file.write(settled)


def _opening(ordered: list[tuple[str, Tensor]], metadata: Mapping[str, str]) -> bytes:
    """Everything that stands before the tensors' bytes."""
    header: dict[str, Any] = {_METADATA: {"format": "pt", **metadata}}  # transformers asks for "format"
    offset = 0
    for name, tensor in ordered:
        place = [offset, offset + tensor.nbytes]
        header[name] = {"dtype": _SPELLED[tensor.dtype], "shape": tensor.shape, "data_offsets": place}
        offset += tensor.nbytes
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)  # keeps the data aligned
    return struct.pack("<Q", len(raw)) + raw
