"""Torch's pickled tensors, as both of its file formats have them: a storage, and the tensor's place in it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..tensors import DTYPES, Array, CheckpointProblem, State, Tensor, from_bytes
from . import pickle_writer as pickle
from .checks import bytes_needed, not_supported
from .pickle_values import Global, Persistent, Record

STORAGES = {
    "FloatStorage": "float32", "DoubleStorage": "float64", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool",
}  # fmt: skip
TYPED = {dtype: name for name, dtype in STORAGES.items()}
UNTYPED = Global("torch.storage", "UntypedStorage")
OLDEST, TENSOR, TENSOR_OF_BYTES = (Global("torch._utils", f"_rebuild_tensor{v}") for v in ("", "_v2", "_v3"))
_AROUND_A_TENSOR = [Global("torch._utils", f"_rebuild_parameter{rest}") for rest in ("", "_with_state")]
_OF_A_TYPE = [Global("torch._tensor", f"_rebuild_from_type{version}") for version in ("", "_v2")]
# Functions of torch._utils that build other tensors than plain ones.
_OTHER_KINDS = {
    "_rebuild_qtensor": "quantized", "_rebuild_sparse_tensor": "sparse", "_rebuild_sparse_csr_tensor": "sparse",
    "_rebuild_nested_tensor": "a nested tensor", "_rebuild_wrapper_subclass": "a tensor of another library",
    "_rebuild_meta_tensor_no_storage": "on the device meta, without values",
    "_rebuild_device_tensor_from_numpy": "of another device", "_rebuild_xla_tensor": "of another device",
}  # fmt: skip
# The names in files of torch itself: tensors, and NumPy's scalars and arrays, which training scripts save beside them.
KNOWN = frozenset(
    [f"torch.{name}" for name in (*STORAGES, *DTYPES, "Tensor", "Size", "device", "UntypedStorage")]
    + list(map(str, (UNTYPED, OLDEST, TENSOR, TENSOR_OF_BYTES, *_AROUND_A_TENSOR, *_OF_A_TYPE)))
    + ["torch.nn.parameter.Parameter", "torch.serialization._get_layout"]
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
    if not isinstance(kind, Global) or kind.module != "torch" or not kind.name.endswith("Storage"):
        raise TypeError
    if kind.name not in STORAGES:
        raise NotSupported(kind.name.removesuffix("Storage"))
    return STORAGES[kind.name]


class NotSupported(TypeError):
    """A tensor of a kind that no model here has; the message names the kind."""


def rebuild(
    name: str, value: Any, find: Callable[[Persistent], Place], where: str, broken: Callable[[str], CheckpointProblem]
) -> Tensor | None:
    """The tensor that a record stands for, None for another object. `find` raises TypeError for no storage.

    where: the file. Raises CheckpointProblem; for damage the one that `broken` makes of a sentence.
    """

    def damaged(why: str) -> CheckpointProblem:
        return broken(f"tensor {name}: {why}")

    for _ in range(4):  # a parameter of a subclass of a tensor
        if isinstance(value, Record) and value.of in _AROUND_A_TENSOR and value.args:
            value = value.args[0]
        elif isinstance(value, Record) and value.of in _OF_A_TYPE and len(value.args) == 4:
            function, _, arguments, _ = value.args
            value = Record(function, arguments)
    if isinstance(value, Record) and value.of.module == "torch._utils" and value.of.name in _OTHER_KINDS:
        raise not_supported(f"{where}: {name}", _OTHER_KINDS[value.of.name])
    if not isinstance(value, Record) or value.of not in (OLDEST, TENSOR, TENSOR_OF_BYTES):
        return None
    try:
        storage, offset, shape, strides, *rest = value.args
        place = find(storage)
        dtype = place.dtype
        if value.of == TENSOR_OF_BYTES:
            if not isinstance(rest[2], Global) or rest[2].module != "torch":
                raise TypeError
            if rest[2].name not in DTYPES:
                raise NotSupported(rest[2].name)
            dtype, bits = rest[2].name, rest[3:4]
        else:
            bits = rest[2:3]
        if dtype is None or bytes_needed(shape, dtype) is None or bytes_needed((offset,), dtype) is None:
            raise TypeError
        if len(shape) != len(strides) or any(type(step) is not int or not 0 <= step < 2**50 for step in strides):
            raise TypeError
    except CheckpointProblem:  # a ValueError too
        raise
    except NotSupported as kind:
        raise not_supported(f"{where}: {name}", str(kind)) from None
    except (TypeError, ValueError, IndexError, AttributeError):
        raise damaged("its record makes no sense") from None
    if bits and bits[0] and (not isinstance(bits[0], dict) or any(bits[0].values())):
        raise CheckpointProblem(
            f"{where}: tensor {name}: it is marked as negated or conjugated, not stored so; save tensor.resolve_neg().",
            code="unsupported",
        )
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


def pickled(state: State, views: bool = False) -> bytes:
    """The pickle of an OrderedDict of tensors, alone or in a dict; each tensor names its storage by a number.

    views: whether each storage also names the storage that it is a part of: none.
    """
    parts = [pickle.protocol(2)]
    if state.wrapper is not None:
        parts += [pickle.EMPTY_DICT, pickle.text(state.wrapper)]
    parts += [pickle.ORDERED_DICT, pickle.MARK]
    for i, (name, tensor) in enumerate(state.tensors.items()):
        strides = [math.prod(tensor.shape[axis + 1 :]) for axis in range(len(tensor.shape))]
        # A dtype younger than torch's typed storages stands beside a storage of bytes.
        typed = TYPED.get(tensor.dtype)
        count = math.prod(tensor.shape) if typed else tensor.nbytes
        storage_type = pickle.name("torch", typed) if typed else pickle.name(*UNTYPED)
        storage = [pickle.text("storage"), storage_type, pickle.text(str(i)), pickle.text("cpu"), pickle.integer(count)]
        storage += [pickle.NONE] if views else []
        arguments = [pickle.items(storage) + pickle.PERSISTENT, pickle.integer(0), pickle.integers(tensor.shape)]
        arguments += [pickle.integers(strides), pickle.FALSE, pickle.ORDERED_DICT]
        if not typed:
            arguments.append(pickle.name("torch", tensor.dtype))
        function = pickle.name(*(TENSOR if typed else TENSOR_OF_BYTES))
        parts += [pickle.text(name), function, pickle.items(arguments), pickle.REDUCE]
    parts.append(pickle.SETITEMS)
    if state.wrapper is not None:
        parts.append(pickle.SETITEM)
    return b"".join([*parts, pickle.STOP])
