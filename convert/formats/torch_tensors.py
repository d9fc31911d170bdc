"""Torch's pickled tensors, as both of its file formats have them: a storage, and where in it the tensor lies."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..tensors import DTYPES, Array, CheckpointProblem, Tensor, from_bytes
from .checks import bytes_needed
from .pickle_values import Global, Persistent, Record

STORAGES = {
    "FloatStorage": "float32", "DoubleStorage": "float64", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool",
}  # fmt: skip
UNTYPED = Global("torch.storage", "UntypedStorage")
OLDEST, TENSOR, TENSOR_OF_BYTES = (Global("torch._utils", f"_rebuild_tensor{v}") for v in ("", "_v2", "_v3"))
_AROUND_A_TENSOR = [Global("torch._utils", f"_rebuild_parameter{rest}") for rest in ("", "_with_state")]
_OF_A_TYPE = [Global("torch._tensor", f"_rebuild_from_type{version}") for version in ("", "_v2")]
# What a checkpoint mentions: tensors, and what training scripts save beside them (args, scaler, optimizer), kept inert.
ALLOWED = frozenset(
    [f"torch.{name}" for name in (*STORAGES, *DTYPES, "Tensor", "Size", "device", "UntypedStorage")]
    + list(map(str, (UNTYPED, OLDEST, TENSOR, TENSOR_OF_BYTES, *_AROUND_A_TENSOR, *_OF_A_TYPE)))
    + ["torch.nn.parameter.Parameter", "argparse.Namespace", "_codecs.encode"]
    + [f"collections.{name}" for name in ("OrderedDict", "defaultdict", "Counter", "deque")]
    + [f"{module}.{name}" for module in ("builtins", "__builtin__") for name in ("set", "frozenset", "bytes", "dict", "list")]
    + [f"{module}.{kind}Path" for module in ("pathlib", "pathlib._local") for kind in ("Posix", "Windows", "PurePosix")]
    + [f"numpy.{name}" for name in ("dtype", "ndarray", "core.multiarray.scalar", "_core.multiarray.scalar")]
    + [f"numpy.{core}.multiarray._reconstruct" for core in ("core", "_core")]
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where a storage's values lie: `load` gives `count` values of `dtype` (None: bytes) as they are in the file."""

    dtype: str | None
    count: int
    load: Callable[[], memoryview]
    big_endian: bool = False


def storage_dtype(kind: Any) -> str | None:
    """The dtype of a storage class, by its name; None for one of bytes. Raises TypeError for any other name."""
    if kind == UNTYPED or kind == Global("torch", "UntypedStorage"):
        return None
    if not isinstance(kind, Global) or kind.module != "torch" or kind.name not in STORAGES:
        raise TypeError
    return STORAGES[kind.name]


def rebuild(
    value: Any, find: Callable[[Persistent], Place], damaged: Callable[[str], CheckpointProblem]
) -> Tensor | None:
    """The tensor that a record stands for, None for what is no tensor. `find` raises TypeError for no storage.

    Raises what `damaged` makes of a sentence about "this tensor".
    """
    for _ in range(4):  # a parameter of a subclass of a tensor
        if isinstance(value, Record) and value.of in _AROUND_A_TENSOR and value.args:
            value = value.args[0]
        elif isinstance(value, Record) and value.of in _OF_A_TYPE and len(value.args) == 4:
            function, _, arguments, _ = value.args
            value = Record(function, arguments)
    if not isinstance(value, Record) or value.of not in (OLDEST, TENSOR, TENSOR_OF_BYTES):
        return None
    try:
        storage, offset, shape, strides, *rest = value.args
        place = find(storage)
        dtype = place.dtype
        if value.of == TENSOR_OF_BYTES:
            if not isinstance(rest[2], Global) or rest[2].module != "torch" or rest[2].name not in DTYPES:
                raise TypeError
            dtype, bits = rest[2].name, rest[3:4]
        else:
            bits = rest[2:3]
        if dtype is None or bytes_needed(shape, dtype) is None or bytes_needed((offset,), dtype) is None:
            raise TypeError
        if len(shape) != len(strides) or any(type(step) is not int or not 0 <= step < 2**50 for step in strides):
            raise TypeError
    except CheckpointProblem:  # a ValueError too
        raise
    except (TypeError, ValueError, IndexError, AttributeError):
        raise damaged("its record makes no sense") from None
    if bits and bits[0] and (not isinstance(bits[0], dict) or any(bits[0].values())):
        raise damaged("it is marked as negated or conjugated, not stored so; save tensor.resolve_neg()")
    return Tensor(tuple(shape), dtype, _view(place, dtype, offset, tuple(shape), tuple(strides), damaged))


def _view(
    place: Place, dtype: str, offset: int, shape: tuple[int, ...], strides: tuple[int, ...],
    damaged: Callable[[str], CheckpointProblem],
) -> Callable[[], Array]:  # fmt: skip
    """How to load a tensor, once it is sure to lie within its storage."""
    itemsize = np.dtype(DTYPES[dtype]).itemsize
    stored = place.count * (1 if place.dtype is None else np.dtype(DTYPES[place.dtype]).itemsize)
    count, size = stored // itemsize, math.prod(shape)
    last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides))
    if size and last >= count:
        raise damaged(f"its shape {shape} does not fit in its storage of {count:,} values")

    def load() -> Array:
        flat = from_bytes(place.load()[: count * itemsize], dtype, (count,), place.big_endian)
        if not size:
            return np.zeros(shape, flat.dtype)
        steps = [stride * itemsize for stride in strides]
        return np.lib.stride_tricks.as_strided(flat[offset:], shape, steps, writeable=False)

    return load
