"""PyTorch's .pth: a zip of one pickle, which says what there is, and one uncompressed entry for each storage."""

from __future__ import annotations

import math
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..tensors import DTYPES, Array, CheckpointProblem, Progress, State, Tensor, from_bytes, map_file, to_bytes
from . import pickle_writer as pickle
from .pickle_reader import Global, Persistent, Record, read_pickle
from .state import find_state

NAME, ENDINGS, FOLDER = "PyTorch .pth", (".pth", ".pt"), False

_STORAGES = {
    "FloatStorage": "float32", "DoubleStorage": "float64", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool",
}  # fmt: skip
_TENSOR, _PARAMETER = Global("torch._utils", "_rebuild_tensor_v2"), Global("torch._utils", "_rebuild_parameter")
# What upstream's training scripts save beside the weights (args, scaler, optimizer), all of it kept inert.
_ALLOWED = frozenset(
    [f"torch.{storage}" for storage in _STORAGES]
    + [str(_TENSOR), str(_PARAMETER), "collections.OrderedDict", "collections.defaultdict", "torch.Size"]
    + ["torch.device", "argparse.Namespace", "pathlib.PosixPath", "pathlib.PurePosixPath", "pathlib.WindowsPath"]
    + ["numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype", "_codecs.encode"]
)
_ALIGNMENT = 64  # bytes, as torch.save: lets storages be used in place


def matches(head: bytes) -> bool:
    """Whether a file that begins with these bytes is of this format."""
    return head.startswith(b"PK\x03\x04")


def read(path: Path) -> State:
    """The tensors of a file written by torch.save (1.6 or newer), lazily. Raises CheckpointProblem."""
    return _Archive(path).state()


class _Archive:
    def __init__(self, path: Path):
        self.path, self.data = path, map_file(path)
        self.sound: set[str] = set()  # entries whose checksum was found right
        try:
            with zipfile.ZipFile(path) as archive:
                entries = archive.infolist()
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as problem:
            raise CheckpointProblem(
                f"{path} is a damaged or cut off .pth file ({len(self.data):,} bytes; {problem}). Download or copy it "
                "again and compare its size."
            ) from None
        self.entries = {entry.filename: entry for entry in entries}
        pickles = [name for name in self.entries if re.fullmatch(r"[^/]+/data\.pkl", name)]
        if len(pickles) != 1 or len(self.entries) != len(entries):
            raise CheckpointProblem(
                f"{path} is a zip file, but not one that torch.save writes: it must hold one data.pkl and no entry twice."
            )
        self.root = pickles[0].removesuffix("data.pkl")
        order = bytes(self.entry("byteorder")) if f"{self.root}byteorder" in self.entries else b"little"
        self.big_endian = order == b"big"

    def entry(self, name: str) -> memoryview:
        """The bytes of an uncompressed entry, in place."""
        info = self.entries.get(self.root + name)
        if info is None:
            raise self.damaged(f"its entry {name} is missing")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise CheckpointProblem(
                f"{self.path}: entry {name} is compressed or encrypted; torch.save writes neither. Save it again with torch."
            )
        # The header in front of the data repeats the name and has padding of its own length.
        header = bytes(self.data[info.header_offset : info.header_offset + 30])
        if len(header) < 30 or not header.startswith(b"PK\x03\x04"):
            raise self.damaged(f"its entry {name} is not where the directory says")
        start = info.header_offset + 30 + sum(struct.unpack("<HH", header[26:]))
        if info.file_size != info.compress_size or start + info.file_size > len(self.data):
            raise self.damaged(f"its entry {name} is cut off")
        data = self.data[start : start + info.file_size]
        # A checksum of 0 means that torch was told to save none.
        if info.CRC and name not in self.sound and zlib.crc32(data) != info.CRC:
            raise self.damaged(f"the checksum of its entry {name} is wrong")
        self.sound.add(name)
        return data

    def damaged(self, why: str) -> CheckpointProblem:
        return CheckpointProblem(f"{self.path} is a damaged .pth file: {why}. Download or copy it again.")

    def state(self) -> State:
        value = read_pickle(self.entry("data.pkl"), _ALLOWED, str(self.path), persistent=True)
        return find_state(value, self.tensor, str(self.path))

    def tensor(self, name: str, value: Any) -> Tensor | None:
        """The tensor that a record rebuilds; None for what is no tensor."""
        if isinstance(value, Record) and value.of == _PARAMETER and value.args:
            value = value.args[0]
        if not isinstance(value, Record) or value.of != _TENSOR:
            return None
        try:
            storage, offset, shape, strides = value.args[:4]
            if not isinstance(storage, Persistent):
                raise TypeError
            kind, storage_type, key, _, count = storage.id
            dtype = _STORAGES[storage_type.name]
            counts = (offset, count, *shape, *strides)
            # bool is an int to Python, and no size
            if kind != "storage" or len(shape) != len(strides) or any(type(n) is not int or n < 0 for n in counts):
                raise TypeError
        except (TypeError, ValueError, KeyError, AttributeError):
            raise self.damaged(f"the record of tensor {name} makes no sense") from None
        entry, itemsize = f"data/{key}", np.dtype(DTYPES[dtype]).itemsize
        stored = self.entries.get(self.root + entry)
        if stored is None or stored.file_size != count * itemsize:
            raise self.damaged(f"its entry {entry} is not there with the {count * itemsize:,} bytes that {name} needs")
        last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides))
        if (math.prod(shape) and last >= count) or len(shape) > 16 or math.prod(shape) > max(count, len(self.data)):
            raise self.damaged(f"tensor {name} of shape {shape} does not fit in its storage of {count:,} values")

        def load() -> Array:
            flat = from_bytes(self.entry(entry), dtype, (count,), self.big_endian)
            if not math.prod(shape):
                return np.zeros(shape, flat.dtype)
            steps = [stride * itemsize for stride in strides]
            return np.lib.stride_tricks.as_strided(flat[offset:], shape, steps, writeable=False)

        return Tensor(tuple(shape), dtype, load)


def write(path: Path, arrays: Mapping[str, Array], progress: Progress) -> None:
    """Write {"model": OrderedDict of float32 tensors}, as the published files. `path` is made and must not exist."""
    with path.open("xb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        _add(archive, "data.pkl", _pickled(arrays))
        _add(archive, "byteorder", b"little")
        for i, array in enumerate(arrays.values()):
            _add(archive, f"data/{i}", to_bytes(array))
            progress(array.nbytes)
        _add(archive, "version", b"3\n")


def _add(archive: zipfile.ZipFile, name: str, data: bytes | memoryview) -> None:
    entry = zipfile.ZipInfo(f"archive/{name}")  # dated 1980, as torch.save dates everything
    entry.file_size = len(data)
    assert archive.fp is not None
    used = archive.fp.tell() + 30 + len(entry.filename) + 4
    padding = -used % _ALIGNMENT
    entry.extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding  # an extra field that readers skip
    with archive.open(entry, "w") as target:
        target.write(data)


def _pickled(arrays: Mapping[str, Array]) -> bytes:
    parts = [pickle.protocol(2), pickle.EMPTY_DICT, pickle.text("model"), pickle.ORDERED_DICT, pickle.MARK]
    for i, (name, array) in enumerate(arrays.items()):
        storage = [
            pickle.text("storage"), pickle.name("torch", "FloatStorage"),
            pickle.text(str(i)), pickle.text("cpu"), pickle.integer(array.size),
        ]  # fmt: skip
        strides = [math.prod(array.shape[axis + 1 :]) for axis in range(array.ndim)]
        parts += [
            pickle.text(name),
            pickle.name(*_TENSOR),
            pickle.items(
                [
                    pickle.items(storage) + pickle.PERSISTENT,
                    pickle.integer(0),
                    pickle.integers(array.shape),
                    pickle.integers(strides),
                    pickle.FALSE,
                    pickle.ORDERED_DICT,
                ]
            ),
            pickle.REDUCE,
        ]
    return b"".join([*parts, pickle.SETITEMS, pickle.SETITEM, pickle.STOP])
