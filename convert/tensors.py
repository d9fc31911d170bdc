"""A checkpoint's tensors, described without being loaded, and their files, memory-mapped."""

from __future__ import annotations

import math
import mmap
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backends.spec import Shape
from ..files.errors import Code, Problem

Array = NDArray[Any]
Progress = Callable[[int], None]  # called with the number of bytes just done

# How each dtype lies on disk, little-endian. NumPy has no bfloat16: its bits are shown as uint16.
DTYPES = {
    "float32": "<f4", "float64": "<f8", "float16": "<f2", "bfloat16": "<u2",
    "int64": "<i8", "int32": "<i4", "int16": "<i2", "int8": "|i1",
    "uint64": "<u8", "uint32": "<u4", "uint16": "<u2", "uint8": "|u1", "bool": "|b1",
}  # fmt: skip


class CheckpointProblem(Problem, ValueError):
    """A checkpoint that cannot be read, understood or written; `problems` lists every difference."""

    def __init__(self, message: str, problems: tuple[str, ...] = (), *, code: Code):
        super().__init__(message, code=code)
        self.problems = problems


@dataclass(frozen=True)
class Tensor:
    """One stored tensor. `load()` gives a read-only array over the mapped file, without a copy if the layout allows it."""

    shape: Shape
    dtype: str  # a key of DTYPES; bfloat16 loads as uint16 bits
    load: Callable[[], Array]  # raises CheckpointProblem for a damaged file
    parts: tuple[Tensor, ...] = ()  # if the file holds it in pieces along its first axis: these, which need no copy

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * np.dtype(DTYPES[self.dtype]).itemsize


@dataclass(frozen=True)
class State:
    """A file's state dict, read or to be written: tensors by the file's names, and the facts beside them."""

    tensors: Mapping[str, Tensor]
    extras: tuple[str, ...] = ()  # the names of everything else in the file
    # The key that holds the tensors, as "model" in a .pth; in a folder format, the folder that holds them. None: no wrapper.
    wrapper: str | None = None
    # Short texts by name, if the format has room for them (its HAS_ROOM).
    metadata: Mapping[str, str] = field(default_factory=dict)
    # Gives the final metadata, each text as long as before. Writers call it after they have loaded every tensor, since only
    # then the tensors' hash is known.
    finalize: Callable[[], Mapping[str, str]] | None = None
    # The options that training saved in the file, as `args`: numbers, texts and truth values by name.
    settings: Mapping[str, Any] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()  # names of classes in the file that PolyMAE does not know


def of_array(array: Array) -> Tensor:
    """A tensor that is in memory already."""
    return Tensor(array.shape, array.dtype.name, lambda: array)


def cast(tensor: Tensor, dtype: str) -> Tensor:
    """The tensor in another floating dtype, rounded to nearest, ties to even; itself if it has that dtype."""
    if tensor.dtype == dtype:
        return tensor
    return replace(tensor, dtype=dtype, parts=(), load=lambda: _narrowed(_widened(tensor.load(), tensor.dtype), dtype))


def _widened(array: Array, dtype: str) -> Array:
    """bfloat16's bits are the upper half of a float32's."""
    return (array.astype(np.uint32) << 16).view(np.float32) if dtype == "bfloat16" else array


def _narrowed(array: Array, dtype: str) -> Array:
    if dtype != "bfloat16":
        with np.errstate(over="ignore"):  # values that do not fit become infinite, and hashing refuses them
            return array.astype(dtype)
    bits = _to_odd(array).view(np.uint32)
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(array), np.uint16(0x7FC0), rounded)


def _to_odd(array: Array) -> Array:
    """In float32; a value between two of its numbers becomes the odd one of them, so that rounding again is exact."""
    with np.errstate(over="ignore"):
        single = array.astype(np.float32)
    if array.dtype != np.float64:
        return single
    wide, bits = single.astype(np.float64), single.view(np.uint32)
    away, inexact = np.abs(wide) > np.abs(array), (wide != array) & ~np.isnan(array)
    odd: Array = (bits - away.astype(np.uint32)) | inexact
    return odd.view(np.float32)


_COLUMNS = 16  # a cache line of float32; measured 4 to 8 times as fast as one copy of the whole
_maps: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()
_MADV_POPULATE_READ = 22  # Linux 5.14; not yet in Python's mmap


def map_file(path: Path) -> memoryview:
    """A read-only view of a whole file, memory-mapped. Raises CheckpointProblem if it cannot be read."""
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:
        raise CheckpointProblem(
            f"{path} is empty (0 bytes); was the download or the copy interrupted?", code="truncated"
        ) from None
    except OSError as problem:
        raise CheckpointProblem(
            f"Cannot read {path}: {problem.strerror}; check the path and its permissions.", code="cannot-read"
        ) from None
    _maps.add(mapped)
    return memoryview(mapped)


def populate_pages() -> None:
    """Have the open files' pages mapped at once, which costs less than one page fault after the other."""
    for mapped in tuple(_maps):
        with suppress(OSError, ValueError):  # an older kernel, or closed by now
            mapped.madvise(_MADV_POPULATE_READ)


def from_bytes(view: memoryview, dtype: str, shape: Shape, big_endian: bool = False, fortran: bool = False) -> Array:
    """Bytes as a read-only array. The caller has checked that there are exactly as many as the shape needs."""
    kind = np.dtype(DTYPES[dtype])
    array = np.frombuffer(view, kind.newbyteorder(">") if big_endian else kind)
    return array.reshape(shape, order="F" if fortran else "C")


def to_bytes(array: Array) -> memoryview:
    """An array's little-endian bytes in C order (a view if they already lie so)."""
    little = array.dtype.newbyteorder("<")
    if array.ndim == 2 and array.strides[0] < array.strides[1]:
        array = _untransposed(array)
    return np.ascontiguousarray(array, little).reshape(-1).view(np.uint8).data


def _untransposed(array: Array) -> Array:
    """A transposed matrix in C order, a few of its columns at a time: they fit in the cache, the whole does not."""
    copy = np.empty(array.shape, array.dtype)
    for start in range(0, array.shape[1], _COLUMNS):
        copy[:, start : start + _COLUMNS] = array[:, start : start + _COLUMNS]
    return copy
