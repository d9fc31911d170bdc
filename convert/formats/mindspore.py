"""MindSpore's .ckpt: protobuf messages one after the other, written and read by hand.

The messages (mindspore/train/checkpoint.proto), with the field numbers that stand in the file:
    Checkpoint  { repeated Value value = 1; }
    Value       { string tag = 1; TensorProto tensor = 2; MapTensorProto maptensor = 3; }
    TensorProto { repeated int64 dims = 1; string tensor_type = 2; bytes tensor_content = 3; }
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from ...files.errors import Code
from ..tensors import Array, CheckpointProblem, Progress, State, Tensor, from_bytes, map_file
from .checks import bytes_needed, proper_name, shown, stored_bytes

NAME, ENDINGS, FOLDER, HAS_ROOM = "MindSpore .ckpt", (".ckpt",), False, False

SLICE_SIZE = 512 * 1024 * 1024  # bytes; a longer tensor is several values with the same tag, as MindSpore writes it
MAX_FIELDS = 200_000  # in all messages: bounds the time; a huge model's training file needs about 20,000
_DTYPES = {
    "Float32": "float32", "Float64": "float64", "Float16": "float16", "BFloat16": "bfloat16", "Int64": "int64",
    "Int32": "int32", "Int16": "int16", "Int8": "int8", "UInt64": "uint64", "UInt32": "uint32", "UInt16": "uint16",
    "UInt8": "uint8", "Bool": "bool",
}  # fmt: skip
_SPELLED = {dtype: name for name, dtype in _DTYPES.items()}
_TEXT = "str"  # a dtype too: something else that was saved along
_VARINT, _BYTES = 0, 2  # protobuf wire types
_CHECKSUM = b"crc_num"  # followed by ten bytes, big-endian, at the end of a file saved with crc_check=True
_ENCRYPTED = (b"\xd8\x5e\x3a\x7f", b"\xd9\x5e\x3a\x7f", b"\xda\x5e\x3a\x7f")  # AES-GCM, AES-CBC, SM4-CBC


def matches(head: bytes) -> bool:
    """Whether a file that begins with these bytes is of this format."""
    return head[:1] == b"\x0a" or head.startswith(_ENCRYPTED)


@dataclass
class _Value:
    """One tensor, gathered from the slices it was written in."""

    shape: tuple[int, ...]
    dtype: str
    needed: int
    slices: list[memoryview] = field(default_factory=list)
    stored: int = 0

    def load(self) -> Array:
        data = self.slices[0] if len(self.slices) == 1 else memoryview(b"".join(self.slices))
        return from_bytes(data, self.dtype, self.shape)


def read(path: Path) -> State:
    """The tensors of a file written by mindspore.save_checkpoint, lazily. Raises CheckpointProblem.

    Numbers that were appended (epoch_num) are tensors too; maps and texts are extras.
    """
    data = map_file(path)
    if bytes(data[:4]).startswith(_ENCRYPTED):
        raise CheckpointProblem(
            f"{path} is encrypted; its key is not asked for here. Decrypt it with MindSpore: "
            "save_checkpoint(load_checkpoint(file, dec_key=..., dec_mode=...), new_file).",
            code="unsupported",
        )
    end = len(data)
    if bytes(data[-17:-10]) == _CHECKSUM:
        end -= 17
        if zlib.crc32(data[:end]) != int.from_bytes(data[-10:], "big"):
            raise _damaged(path, "its checksum is wrong", "checksum")
    values: dict[str, _Value] = {}
    extras: list[str] = []
    last = ""
    for tag, value in _Messages(path).values(data[:end]):
        if value is None:
            extras.append(shown(tag))
            continue
        known = values.setdefault(proper_name(tag, str(path)), value)
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
        raise CheckpointProblem(f"{path} holds no tensors; is it the right file?", code="not-a-checkpoint")
    return State({tag: Tensor(value.shape, value.dtype, value.load) for tag, value in values.items()}, tuple(extras))


def _damaged(path: Path, why: str, code: Code = "damaged") -> CheckpointProblem:
    return CheckpointProblem(
        f"{path} is not a MindSpore .ckpt file, or a damaged one: {why}. Save or copy it again.", code=code
    )


class _Messages:
    """Reads a file's messages, and counts their fields."""

    def __init__(self, path: Path):
        self.path, self.fields = path, 0

    def damaged(self, why: str, code: Code = "damaged") -> CheckpointProblem:
        return _damaged(self.path, why, code)

    def values(self, data: memoryview) -> Iterator[tuple[str, _Value | None]]:
        """Each value's tag and tensor; None for another value."""
        for number, message in self.each(data):
            if number != 1 or isinstance(message, int):
                raise self.damaged(f"it has a field {number} where only values are expected")
            parts = dict(self.each(message))
            tag, tensor = parts.get(1), parts.get(2)
            if not isinstance(tag, memoryview):
                raise self.damaged("a value in it has no name")
            name = self.text(tag)
            yield name, self.value(tensor, name) if isinstance(tensor, memoryview) else None

    def value(self, message: memoryview, name: str) -> _Value | None:
        shape: list[int] = []
        kind, content = "", memoryview(b"")
        for number, entry in self.each(message):
            if number == 1:
                shape += [entry] if isinstance(entry, int) else self.packed(entry[:160])
                if len(shape) > 16:
                    raise self.damaged(f"a tensor in it has {len(shape)} dimensions")
            elif number == 2 and isinstance(entry, memoryview):
                kind = self.text(entry)
            elif number == 3 and isinstance(entry, memoryview):
                content = entry
        if kind == _TEXT:
            return None
        if kind not in _DTYPES:
            raise CheckpointProblem(
                f"{self.path}: {shown(name)} has dtype {kind[:20]!r}; known are {', '.join(_DTYPES)}.",
                code="unsupported",
            )
        dtype = _DTYPES[kind]
        if shape == [0] and len(content) == bytes_needed((), dtype):
            shape = []  # MindSpore's older spelling of a scalar
        needed = bytes_needed(shape, dtype)
        if needed is None:
            raise self.damaged(f"a tensor in it has shape {tuple(shape)}")
        return _Value(tuple(shape), dtype, needed, [content], len(content))

    def each(self, data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
        """The fields of one protobuf message: number and value."""
        at = 0
        while at < len(data):
            self.fields += 1
            if self.fields > MAX_FIELDS:
                raise self.damaged(f"it has more than {MAX_FIELDS:,} fields", "too-large")
            key, at = self.varint(data, at)
            value, at = self.varint(data, at)
            if key & 7 == _VARINT:
                yield key >> 3, value
            elif key & 7 == _BYTES:
                if value > len(data) - at:
                    raise self.damaged("it ends too early", "truncated")
                yield key >> 3, data[at : at + value]
                at += value
            else:
                raise self.damaged(f"it has a field of unknown kind {key & 7}")

    def varint(self, data: memoryview, at: int) -> tuple[int, int]:
        """The number at a place, and the place of its end."""
        value = 0
        for shift in range(0, 70, 7):
            if at >= len(data):
                raise self.damaged("it ends too early", "truncated")
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
        raise self.damaged("a number in it has no end")

    def packed(self, data: memoryview) -> list[int]:
        """The numbers of a field that holds them one after the other."""
        numbers, at = [], 0
        while at < len(data):
            value, at = self.varint(data, at)
            numbers.append(value)
        return numbers

    def text(self, data: memoryview) -> str:
        """A short text. Raises CheckpointProblem for anything else."""
        try:
            return str(data[:4096], "utf-8")
        except UnicodeDecodeError:
            raise self.damaged("a name in it is not text") from None


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


def write(path: Path, state: State, progress: Progress) -> None:
    """Write tensors byte for byte as mindspore.save_checkpoint does. `path` is made and must not exist."""
    with path.open("xb") as file:
        for name, tensor in state.tensors.items():
            _write_value(file, name, tensor)
            progress(tensor.nbytes)


def _write_value(file: BinaryIO, name: str, tensor: Tensor) -> None:
    content = stored_bytes(name, tensor)
    for start in range(0, max(len(content), 1), SLICE_SIZE):
        piece = content[start : start + SLICE_SIZE]
        file.write(_opening(name, tensor, len(piece)))
        file.write(piece)


def _opening(name: str, tensor: Tensor, length: int) -> bytes:
    """Everything of a one-value message that stands before the tensor's bytes."""
    tag, kind = name.encode(), _SPELLED[tensor.dtype].encode()
    message = b"".join(_number(1 << 3 | _VARINT) + _number(size) for size in tensor.shape)
    message += _field(2, len(kind)) + kind + _field(3, length)
    value = _field(1, len(tag)) + tag + _field(2, len(message) + length) + message
    return _field(1, len(value) + length) + value
