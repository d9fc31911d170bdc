"""MegEngine's .pkl: a pickle of an OrderedDict of NumPy arrays, as megengine.save writes a state dict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..tensors import DTYPES, Progress, State, Tensor, map_file
from . import pickle_writer as pickle
from .checks import CODES, require_dtypes, stored_bytes
from .numpy_arrays import KNOWN, array_tensor
from .pickle_names import Names
from .pickle_reader import read_pickle
from .pickle_values import Global, Record
from .state_dict import find_state

NAME, ENDINGS, FOLDER, HAS_ROOM = "MegEngine .pkl", (".pkl",), False, False

_TENSORS = [Global("megengine.tensor", name) for name in ("Tensor", "Parameter")]
_KNOWN = KNOWN | set(map(str, _TENSORS))


def matches(head: bytes) -> bool:
    """Whether a file that begins with these bytes is of this format."""
    return len(head) > 1 and head[0] == 0x80 and 2 <= head[1] <= 5


def read(path: Path) -> State:
    """The arrays, or MegEngine's own tensors, of a file written by megengine.save, lazily. Raises CheckpointProblem."""
    data = map_file(path)
    names = Names(_KNOWN)
    value = read_pickle(data, names, str(path))
    return find_state(
        value, lambda name, stored: _tensor(name, stored, path), str(path), lambda: len(data), names.unknown
    )


def _tensor(name: str, value: Any, path: Path) -> Tensor | None:
    if isinstance(value, Record) and value.of in _TENSORS:  # wrapped around an array, which older versions kept inside
        inside = value.state.get("data") if isinstance(value.state, dict) and not value.args else value.args[:1]
        value = inside[0] if isinstance(inside, tuple) and inside else inside
    return array_tensor(name, value, str(path))


def write(path: Path, state: State, progress: Progress) -> None:
    """Write an OrderedDict of arrays, alone or in a dict, one after the other. `path` is made and must not exist."""
    require_dtypes(state, CODES.values(), NAME)
    empty = pickle.name("numpy.core.multiarray", "_reconstruct") + pickle.items(
        [pickle.name("numpy", "ndarray"), pickle.integers([0]), pickle.byte_string(1) + b"b"]
    )
    with path.open("xb") as file:
        file.write(pickle.protocol(4))
        if state.wrapper is not None:
            file.write(pickle.EMPTY_DICT + pickle.text(state.wrapper))
        file.write(pickle.ORDERED_DICT)
        for name, tensor in state.tensors.items():
            file.write(pickle.text(name) + empty + pickle.REDUCE + pickle.MARK)
            file.write(pickle.integer(1) + pickle.integers(tensor.shape) + _pickled(tensor.dtype) + pickle.FALSE)
            file.write(pickle.byte_string(tensor.nbytes))
            file.write(stored_bytes(name, tensor))
            file.write(b"t" + pickle.BUILD + pickle.SETITEM)
            progress(tensor.nbytes)
        if state.wrapper is not None:
            file.write(pickle.SETITEM)
        file.write(pickle.STOP)


def _pickled(dtype: str) -> bytes:
    """A NumPy dtype, as NumPy pickles it."""
    code = np.dtype(DTYPES[dtype]).str
    made = pickle.name("numpy", "dtype") + pickle.items([pickle.text(code[1:]), pickle.FALSE, pickle.TRUE])
    order = [pickle.integer(3), pickle.text(code[0]), *[pickle.NONE] * 3, *map(pickle.integer, (-1, -1, 0))]
    return made + pickle.REDUCE + pickle.items(order) + pickle.BUILD
