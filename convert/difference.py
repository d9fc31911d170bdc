"""Whether two checkpoints hold the same weights, and how each tensor differs, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..backends.config import Config
from .checkpoint import Checkpoint, open_checkpoint
from .diff_hints import permuted, transposed
from .hashing import hash_tensors
from .tensors import Array, Tensor, cast, of_array

ROUNDOFF = 2.0**-24  # the largest relative error of rounding to float32
_NEAR = 16  # units of roundoff in which two computations of the same weights may differ
_HALVES = ("float16", "bfloat16")


@dataclass(frozen=True)
class Difference:
    """How one tensor differs."""

    name: str  # in the spec
    kind: str  # one word or two, for machines
    said: str  # the sentence


@dataclass(frozen=True)
class Comparison:
    """How two files differ."""

    hashes: tuple[str, str]  # the content hash of each file's tensors
    count: int  # of the tensors that either file holds
    differences: tuple[Difference, ...]

    @property
    def same(self) -> bool:
        """Whether both hold the same weights, bit for bit."""
        return self.hashes[0] == self.hashes[1]

    def summary(self) -> str:
        """How many tensors differ how, in a line."""
        if self.same:
            return f"the same weights: {self.count} tensors, hash {self.hashes[0]}"
        kinds = Counter(difference.kind for difference in self.differences)
        listed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        return f"different weights: {len(self.differences)} of {self.count} tensors differ ({listed})"


def compare_files(
    a: str | Path, b: str | Path, model: str | None = None, from_a: str | None = None, from_b: str | None = None
) -> Comparison:
    """Compare two checkpoints of any format and dialect, tensor by tensor; one tensor of each is in memory at a time.

    model: as --model takes it, for both; from_a, from_b: their dialects, if the names do not tell. Raises
    CheckpointProblem if one cannot be read.
    """
    first, second = (_opened(Path(path), dialect, model) for path, dialect in ((a, from_a), (b, from_b)))
    config = first[1] or second[1]
    tensors, others = (checkpoint.tensors_of(model_of_one or config) for checkpoint, model_of_one in (first, second))
    hashed, hashed_too = hash_tensors(tensors), hash_tensors(others)
    if hashed.content == hashed_too.content:
        return Comparison((hashed.content, hashed_too.content), len(tensors), ())
    unlike = {n: t for n, t in tensors.items() if hashed.tensors[n] != hashed_too.tensors.get(n)}
    unequal = differences(unlike, {n: t for n, t in others.items() if n in unlike or n not in tensors}, config)
    return Comparison((hashed.content, hashed_too.content), len({*tensors, *others}), tuple(unequal))


def _opened(path: Path, dialect: str | None, model: str | None) -> tuple[Checkpoint, Config | None]:
    checkpoint = open_checkpoint(path, dialect)
    return checkpoint, checkpoint.resolve(model).config if model else checkpoint.config


def differences(a: Mapping[str, Tensor], b: Mapping[str, Tensor], config: Config | None = None) -> Iterator[Difference]:
    """A Difference for every tensor that is not the same in both, in the order of a and then of b."""
    for name in {**a, **b}:
        if name not in a or name not in b:
            where, tensors = ("A", b) if name not in a else ("B", a)
            yield Difference(name, f"missing in {where}", f"missing in {where}; {_what(tensors[name])} in the other")
        else:
            difference = describe(name, a[name], b[name], config)
            if difference is not None:
                yield difference


def _what(tensor: Tensor) -> str:
    return f"{tensor.dtype} {tuple(tensor.shape)}"


def describe(name: str, a: Tensor, b: Tensor, config: Config | None = None) -> Difference | None:
    """How the tensor b differs from a; None if both have the same dtype, shape and bits. Loads both."""
    first, second = a.load(), b.load()
    if a.dtype != b.dtype:
        return Difference(name, "dtype", f"{a.dtype} in A, {b.dtype} in B; {_other_dtype(a, b)}")
    if a.shape == b.shape and first.tobytes() == second.tobytes():
        return None
    if a.shape == b.shape and np.array_equal(_values(first, a.dtype), _values(second, a.dtype)):
        return Difference(name, "sign of zero", "equal, but zeros have another sign")
    hint = transposed(first, second)
    if hint:
        shapes = "" if a.shape == b.shape else f": {tuple(a.shape)} in A, {tuple(b.shape)} in B"
        return Difference(name, "transposed", hint + shapes)
    if a.shape != b.shape:
        same = a.nbytes == b.nbytes and np.array_equal(first.reshape(-1), second.reshape(-1))
        values = "the same values in the same order" if same else "other values"
        return Difference(name, "shape", f"{tuple(a.shape)} in A, {tuple(b.shape)} in B; {values}")
    hint = permuted(first, second, config, name)
    if hint:
        return Difference(name, "permuted", hint)
    return Difference(name, *_other_values(_wide(first, a.dtype), _wide(second, b.dtype), a, b))


def _values(array: Array, dtype: str) -> Array:
    """As numbers that NumPy compares: bfloat16 is only bits to it."""
    return cast(Tensor(array.shape, dtype, lambda: array), "float32").load() if dtype == "bfloat16" else array


def _wide(array: Array, dtype: str) -> Array:
    """In float64, exactly (but for whole numbers above 2^53)."""
    return _values(array, dtype).astype(np.float64)


def _other_dtype(a: Tensor, b: Tensor) -> str:
    if a.shape != b.shape:
        return f"{tuple(a.shape)} in A, {tuple(b.shape)} in B"
    narrow, wide = sorted((a, b), key=lambda t: (t.nbytes, t.dtype))
    floats = "float" in narrow.dtype and "float" in wide.dtype
    if floats and narrow.load().tobytes() == cast(wide, narrow.dtype).load().tobytes():
        return f"the same after rounding to {narrow.dtype}"
    return _other_values(_wide(a.load(), a.dtype), _wide(b.load(), b.dtype), a, b)[1]


def _other_values(x: Array, y: Array, a: Tensor, b: Tensor) -> tuple[str, str]:
    """Kind and sentence for two float64 arrays of one shape. Elementwise; every bound is in units of the value itself."""
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        counts = [f"{int((~np.isfinite(array)).sum()):,}" for array in (x, y)]
        return "not finite", f"{counts[0]} values in A and {counts[1]} in B are NaN or infinite"
    off, unlike = np.abs(x - y), int((x != y).sum())
    if not unlike:
        return "dtype", "the same values"
    size = np.maximum(np.abs(x), np.abs(y))
    units = float(np.max(off / np.where(size > 0, size, 1.0))) / ROUNDOFF
    if units <= _NEAR:
        return "roundoff", f"equal within roundoff: relative difference at most {units:.1f} units of 2^-24"
    if np.array_equal(x, -y):
        return "sign", "the sign is the other one, everywhere"
    for half in _HALVES if "float32" == a.dtype == b.dtype else ():
        for one, other, direction in ((x, y, "B is A"), (y, x, "A is B")):
            start = (slice(64),) * one.ndim  # enough to see, for nearly all, that they are not
            if all(np.array_equal(_rounded(one[at], half), other[at]) for at in (start, ...)):
                return "rounded", f"{direction} rounded to {half}"
    factor, shift = _factor(x, y), _shift(x, y, size)
    if factor is not None:
        return "scaled", f"B is A times {factor:.9g}"
    if shift is not None:
        return "shifted", f"B is A plus {shift:.9g}"
    return "values", f"other values: {unlike:,} of {x.size:,} differ, by at most {float(off.max()):.3g}"


def _rounded(values: Array, half: str) -> Array:
    return _wide(cast(of_array(values.astype(np.float32)), half).load(), half)


def _factor(x: Array, y: Array) -> float | None:
    """The constant factor from x to y, within roundoff; None without one, and for a single value."""
    at = int(np.argmax(np.abs(x)))
    largest = float(x.flat[at])
    if not largest or not np.any((x != 0) & (np.abs(x) != abs(largest))):
        return None
    factor = float(y.flat[at]) / largest
    return factor if factor and np.all(np.abs(y - factor * x) <= 4 * ROUNDOFF * np.abs(factor * x)) else None


def _shift(x: Array, y: Array, size: Array) -> float | None:
    """The constant difference from x to y, within roundoff; None without one, and for a single value."""
    shift: Any = np.median(y - x)
    if x.size < 2 or not shift:
        return None
    return float(shift) if np.all(np.abs(y - x - shift) <= 4 * ROUNDOFF * np.maximum(size, abs(shift))) else None
