"""MindSpore's .ckpt: protobuf messages one after the other, written and read by hand.

The messages (mindspore/train/checkpoint.proto), with the field numbers that stand in the file:
    Checkpoint  { repeated Value value = 1; }
    Value       { string tag = 1; TensorProto tensor = 2; MapTensorProto maptensor = 3; }
    TensorProto { repeated int64 dims = 1; string tensor_type = 2; bytes tensor_content = 3; }
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..tensors import DTYPES, Array, CheckpointProblem, Progress, State, Tensor, from_bytes, map_file, to_bytes

NAME, ENDINGS, FOLDER = "MindSpore .ckpt", (".ckpt",), False

SLICE_SIZE = 512 * 1024 * 1024  # bytes; a longer tensor is several values with the same tag, as MindSpore writes it
_DTYPES = {
    "Float32": "float32", "Float64": "float64", "Float16": "float16", "BFloat16": "bfloat16", "Int64": "int64",
    "Int32": "int32", "Int16": "int16", "Int8": "int8", "UInt64": "uint64", "UInt32": "uint32", "UInt16": "uint16",
    "UInt8": "uint8", "Bool": "bool",
}  # fmt: skip
_VARINT, _BYTES = 0, 2  # protobuf wire types
_CHECKSUM = b"crc_num"  # followed by ten bytes, big-endian, at the end of a file saved with crc_check=True


def matches(head: bytes) -> bool:
    """Whether a file that begins with these bytes is of this format."""
    return head[:1] == b"\x0a"


@dataclass
class _Value:
    """One tensor, gathered from the slices it was written in."""

    shape: tuple[int, ...]
    dtype: str
    slices: list[memoryview] = field(default_factory=list)
    stored: int = 0

    @property
    def needed(self) -> int:
        return math.prod(self.shape) * np.dtype(DTYPES[self.dtype]).itemsize

    def tensor(self) -> Tensor:
        return Tensor(self.shape, self.dtype, self._load)

    def _load(self) -> Array:
        data = self.slices[0] if len(self.slices) == 1 else memoryview(b"".join(self.slices))
        return from_bytes(data, self.dtype, self.shape)


def read(path: Path) -> State:
    """The tensors of a file written by mindspore.save_checkpoint, lazily. Raises CheckpointProblem.

    Values that are not tensors (maps, texts) are extras.
    """
    data = map_file(path)
    end = len(data)
    if bytes(data[-17:-10]) == _CHECKSUM:
        end -= 17
        if zlib.crc32(data[:end]) != int.from_bytes(data[-10:], "big"):
            raise _damaged(path, "its checksum is wrong")
    values: dict[str, _Value] = {}
    extras: list[str] = []
    last = ""
    for tag, value in _values(data[:end], path):
        if value is None:
            extras.append(tag)
            continue
        known = values.setdefault(tag, value)
        if known is not value:
            if tag != last or known.stored == known.needed or (known.shape, known.dtype) != (value.shape, value.dtype):
                raise _damaged(path, f"{tag} is there twice")
            known.slices += value.slices
            known.stored += value.stored
        last = tag
    for tag, value in values.items():
        if value.stored != value.needed:
            raise _damaged(path, f"{tag} of shape {value.shape} has {value.stored:,} bytes, not {value.needed:,}")
    if not values:
        raise CheckpointProblem(f"{path} holds no tensors; is it the right file?")
    return State({tag: value.tensor() for tag, value in values.items()}, tuple(extras))


def _damaged(path: Path, why: str) -> CheckpointProblem:
    return CheckpointProblem(f"{path} is not a MindSpore .ckpt file, or a damaged one: {why}. Save or copy it again.")


def _values(data: memoryview, path: Path) -> Iterator[tuple[str, _Value | None]]:
    for number, message in _fields(data, path):
        if number != 1 or isinstance(message, int):
            raise _damaged(path, f"it has a field {number} where only values are expected")
        parts = dict(_fields(message, path))
        tag, tensor = parts.get(1), parts.get(2)
        if not isinstance(tag, memoryview):
            raise _damaged(path, "a value in it has no name")
        yield _text(tag, path), None if not isinstance(tensor, memoryview) else _value(tensor, path)


def _value(message: memoryview, path: Path) -> _Value | None:
    shape: list[int] = []
    kind, content = "", memoryview(b"")
    for number, found in _fields(message, path):
        if number == 1:
            shape += [found] if isinstance(found, int) else _packed(found[:160], path)
            if len(shape) > 16 or max(shape, default=0) >= 2**63:
                raise _damaged(path, f"a tensor in it has shape {tuple(shape[:16])}")
        elif number == 2 and isinstance(found, memoryview):
            kind = _text(found, path)
        elif number == 3 and isinstance(found, memoryview):
            content = found
    if kind not in _DTYPES:
        return None  # a text, for example: something else that was saved along
    dtype = _DTYPES[kind]
    if shape == [0] and len(content) == np.dtype(DTYPES[dtype]).itemsize:
        shape = []  # MindSpore's older spelling of a scalar
    return _Value(tuple(shape), dtype, [content], len(content))


def _fields(data: memoryview, path: Path) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of one protobuf message: number and value."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at, path)
        value, at = _varint(data, at, path)
        if key & 7 == _VARINT:
            yield key >> 3, value
        elif key & 7 == _BYTES:
            if value > len(data) - at:
                raise _damaged(path, "it ends too early")
            yield key >> 3, data[at : at + value]
            at += value
        else:
            raise _damaged(path, f"it has a field of unknown kind {key & 7}")


def _varint(data: memoryview, at: int, path: Path) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise _damaged(path, "it ends too early")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _damaged(path, "a number in it has no end")


def _packed(data: memoryview, path: Path) -> list[int]:
    found, at = [], 0
    while at < len(data):
        value, at = _varint(data, at, path)
        found.append(value)
    return found


def _text(data: memoryview, path: Path) -> str:
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError:
        raise _damaged(path, "a name in it is not text") from None


def _number(value: int) -> bytes:
    """A protobuf varint."""
    raw = bytearray()
    while value > 0x7F:
        raw.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*raw, value])


def _field(number: int, length: int) -> bytes:
    """The opening of a field of bytes; they must follow."""
    return _number(number << 3 | _BYTES) + _number(length)


def write(path: Path, arrays: Mapping[str, Array], progress: Progress) -> None:
    """Write float32 arrays byte for byte as mindspore.save_checkpoint does. `path` is made and must not exist."""
    with path.open("xb") as file:
        for name, array in arrays.items():
            content = to_bytes(array)
            for start in range(0, max(len(content), 1), SLICE_SIZE):
                piece = content[start : start + SLICE_SIZE]
                file.write(_opening(name, array.shape, len(piece)))
                file.write(piece)
            progress(array.nbytes)


def _opening(name: str, shape: tuple[int, ...], length: int) -> bytes:
    """Everything of a one-value message that stands before the tensor's bytes."""
    tag = name.encode()
    tensor = b"".join(_number(1 << 3 | _VARINT) + _number(size) for size in shape)
    tensor += _field(2, len(b"Float32")) + b"Float32" + _field(3, length)
    value = _field(1, len(tag)) + tag + _field(2, len(tensor) + length) + tensor
    return _field(1, len(value) + length) + value
