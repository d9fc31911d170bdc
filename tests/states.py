"""States of arbitrary tensors, written and read through the formats themselves, without a model."""

import struct

import numpy as np

from polymae.convert.formats import FORMATS, find_format
from polymae.convert.formats import pickle_writer as pickle
from polymae.convert.tensors import DTYPES, State, Tensor, to_bytes

SHAPES = {"matrix": (5, 7), "scalar": (), "empty": (0, 3), "one": (1, 1, 1), "large": (70, 33)}


def state_of(arrays, wrapper=None, metadata=None):
    """A State of arrays in memory; one of uint16 called bfloat16... is of that dtype."""
    tensors = {}
    for name, array in arrays.items():
        dtype = "bfloat16" if name.startswith("bfloat16") else array.dtype.name
        tensors[name] = Tensor(array.shape, dtype, lambda array=array: array)
    return State(tensors, wrapper=wrapper, metadata=metadata or {})


def every_kind(dtypes=tuple(DTYPES), seed=0):
    """Arrays of every dtype and shape, of any bits that make a number."""
    draw = np.random.default_rng(seed)
    arrays = {}
    for dtype in dtypes:
        for kind, shape in SHAPES.items():
            values = draw.integers(0, 2 if dtype == "bool" else 100, shape)
            arrays[f"{dtype}.{kind}"] = np.asarray(values, np.dtype(DTYPES[dtype]).newbyteorder("="))
    return arrays


def write(form, path, state):
    """Write a state and return the path; progress must sum up to all of it."""
    done = []
    FORMATS[form].write(path, state, done.append)
    assert sum(done) == sum(tensor.nbytes for tensor in state.tensors.values())
    return path


def read(path):
    """The state of any file or folder, its format found by itself."""
    return find_format(path)[1].read(path)


def bits(tensors):
    """Everything that matters of tensors, to compare: dtype, shape and bytes."""
    return {n: (t.dtype, t.shape, bytes(to_bytes(t.load()))) for n, t in tensors.items()}


def write_legacy(path, state):
    """A training file in the format of torch before 1.6, float32 only, written apart from our own writer."""
    counts = {name: tensor.load().size for name, tensor in state.tensors.items()}
    keys = sorted(f"{94000 + i}" for i in range(len(counts)))

    def tensor(key, shape, count):
        storage = [pickle.text("storage"), pickle.name("torch", "FloatStorage"), pickle.text(key)]
        storage += [pickle.text("cpu"), pickle.integer(count), pickle.NONE]
        strides = [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
        args = [pickle.items(storage) + pickle.PERSISTENT, pickle.integer(0), pickle.integers(shape)]
        args += [pickle.integers(strides), pickle.FALSE, pickle.ORDERED_DICT]
        return pickle.name("torch._utils", "_rebuild_tensor_v2") + pickle.items(args) + pickle.REDUCE

    start, end = pickle.protocol(2), pickle.STOP
    parts = [start, pickle.integer(0x1950A86A20F9469CFC6C), end, start, pickle.integer(1001), end]
    parts += [start, pickle.EMPTY_DICT, pickle.text("little_endian"), pickle.TRUE, pickle.SETITEM, end]
    parts += [start, pickle.EMPTY_DICT, pickle.text("model"), pickle.ORDERED_DICT, pickle.MARK]
    for key, (name, stored) in zip(keys, state.tensors.items()):
        parts += [pickle.text(name), tensor(key, stored.shape, counts[name])]
    parts += [pickle.SETITEMS, pickle.SETITEM, pickle.text("epoch"), pickle.integer(3), pickle.SETITEM, end]
    parts += [start, b"]", pickle.MARK, *map(pickle.text, keys), b"e", end]
    for stored in state.tensors.values():
        parts += [struct.pack("<Q", stored.load().size), bytes(to_bytes(stored.load()))]
    path.write_bytes(b"".join(parts))
    return path
