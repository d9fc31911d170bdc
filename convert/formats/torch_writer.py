"""The pickle of a state dict, as both of torch's file formats have it: each tensor refers to a storage by its number."""

from __future__ import annotations

import math

from ..tensors import State
from . import pickle_writer as pickle
from .torch_tensors import STORAGES, TENSOR, TENSOR_OF_BYTES, UNTYPED

TYPED = {dtype: name for name, dtype in STORAGES.items()}


def pickled(state: State, views: bool = False) -> bytes:
    """An OrderedDict of tensors, alone or in a dict. views: each storage says of which other it is a part: of none."""
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
