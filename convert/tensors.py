"""A checkpoint's tensors, described without being loaded, and the files they lie in, memory-mapped."""

from __future__ import annotations

import mmap
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backends.errors import Problem
from ..backends.spec import Shape

Array = NDArray[Any]
Progress = Callable[[int], None]  # called with the number of bytes just done

# How each dtype lies on disk, little-endian. NumPy has no bfloat16: its bits are shown as uint16.
DTYPES = {
    "float32": "<f4", "float64": "<f8", "float16": "<f2", "bfloat16": "<u2",
    "int64": "<i8", "int32": "<i4", "int16": "<i2", "int8": "|i1",
    "uint64": "<u8", "uint32": "<u4", "uint16": "<u2", "uint8": "|u1", "bool": "|b1",
}  # fmt: skip


class CheckpointProblem(Problem, ValueError):
    """A checkpoint that cannot be read, understood or written; `problems` lists every difference found."""

    def __init__(self, message: str, problems: tuple[str, ...] = ()):
        super().__init__(message)
        self.problems = problems


@dataclass(frozen=True)
class Tensor:
    """One stored tensor. `load()` gives a read-only array over the mapped file, no copy where the layout allows.

    dtype: a key of DTYPES; bfloat16 loads as uint16 bits. load() raises CheckpointProblem for a damaged file.
    """

    shape: Shape
    dtype: str
    load: Callable[[], Array]


@dataclass(frozen=True)
class State:
    """What a file holds: tensors by the names in the file, and the names of everything else in it."""

    tensors: Mapping[str, Tensor]
    extras: tuple[str, ...] = ()


_maps: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()


def map_file(path: Path) -> memoryview:
    """A read-only view of a whole file, memory-mapped. Raises CheckpointProblem where it cannot be read."""
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:
        raise CheckpointProblem(f"{path} is empty (0 bytes); was the download or the copy interrupted?") from None
    except OSError as problem:
        raise CheckpointProblem(
            f"Cannot read {path}: {problem.strerror}; check the path and its permissions."
        ) from None
    _maps.add(mapped)
    return memoryview(mapped)


def forget_pages() -> None:
    """Let go of the file pages read so far, so that a long conversion stays small. Later reads map them again."""
    for mapped in tuple(_maps):
        if hasattr(mapped, "madvise"):  # Linux and macOS, Python 3.8+
            mapped.madvise(mmap.MADV_DONTNEED)


def from_bytes(view: memoryview, dtype: str, shape: Shape, big_endian: bool = False, fortran: bool = False) -> Array:
    """Bytes as a read-only array. The caller has checked that there are exactly as many as the shape needs."""
    kind = np.dtype(DTYPES[dtype])
    array = np.frombuffer(view, kind.newbyteorder(">") if big_endian else kind)
    return array.reshape(shape, order="F" if fortran else "C")


def to_bytes(array: Array) -> memoryview:
    """An array's little-endian bytes in C order (a view where they already lie so)."""
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8).data
