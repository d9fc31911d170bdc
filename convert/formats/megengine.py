"""MegEngine's .pkl: a pickle of an OrderedDict of NumPy arrays, as megengine.save writes a state dict."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..tensors import DTYPES, Array, CheckpointProblem, Progress, State, Tensor, from_bytes, map_file, to_bytes
from . import pickle_writer as pickle
from .pickle_reader import Record, read_pickle
from .state import find_state

NAME, ENDINGS, FOLDER = "MegEngine .pkl", (".pkl",), False

_ARRAYS = frozenset(f"{module}.multiarray._reconstruct" for module in ("numpy.core", "numpy._core"))
_ALLOWED = _ARRAYS | {
    "numpy.ndarray", "numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar",
    "collections.OrderedDict", "collections.defaultdict", "argparse.Namespace", "pathlib.PosixPath",
}  # fmt: skip
# How NumPy's own pickles call a dtype.
_CODES = {np.dtype(code).str[1:]: name for name, code in DTYPES.items() if name != "bfloat16"}
# The first bytes of what torch.save wrote before version 1.6: a pickle too, but of several parts.
_OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


def matches(head: bytes) -> bool:
    """Whether a file that begins with these bytes is of this format."""
    return len(head) > 1 and head[0] == 0x80 and 2 <= head[1] <= 5


def read(path: Path) -> State:
    """The arrays of a file written by megengine.save, lazily. Raises CheckpointProblem."""
    data = map_file(path)
    if bytes(data[: len(_OLD_TORCH)]) == _OLD_TORCH:
        raise CheckpointProblem(
            f"{path} is in the format of torch before 1.6, which is not read here. With torch: "
            "torch.save(torch.load(file, weights_only=True), new_file)."
        )
    value = read_pickle(data, _ALLOWED, str(path))
    return find_state(value, lambda name, stored: _tensor(name, stored, path), str(path))


def _tensor(name: str, value: Any, path: Path) -> Tensor | None:
    if not isinstance(value, Record) or str(value.of) not in _ARRAYS:
        return None
    try:
        _, shape, dtype_record, fortran, data = value.state
        code, order = dtype_record.args[0], dtype_record.state[1]
        if not re.fullmatch(r"[fiub][1248]", code) or order not in ("<", ">", "|", "="):
            raise TypeError
        dtype = _CODES[code]
        needed = math.prod(shape) * int(code[1])
        if any(type(n) is not int or n < 0 for n in shape) or len(shape) > 16 or len(data) != needed:
            raise TypeError
        if not isinstance(data, memoryview):
            raise TypeError
    except (TypeError, ValueError, KeyError, IndexError, AttributeError):
        raise CheckpointProblem(f"{path} is damaged: the record of array {name} makes no sense.") from None
    return Tensor(shape, dtype, lambda: from_bytes(data, dtype, shape, order == ">", bool(fortran)))


def write(path: Path, arrays: Mapping[str, Array], progress: Progress) -> None:
    """Write an OrderedDict of float32 arrays, one after the other. `path` is made and must not exist."""
    empty = pickle.name("numpy.core.multiarray", "_reconstruct") + pickle.items(
        [pickle.name("numpy", "ndarray"), pickle.integers([0]), pickle.byte_string(1) + b"b"]
    )
    float32 = pickle.name("numpy", "dtype") + pickle.items([pickle.text("f4"), pickle.FALSE, pickle.TRUE])
    byte_order = pickle.items(
        [pickle.integer(3), pickle.text("<"), *[pickle.NONE] * 3, *map(pickle.integer, (-1, -1, 0))]
    )
    float32 += pickle.REDUCE + byte_order + pickle.BUILD
    with path.open("xb") as file:
        file.write(pickle.protocol(4) + pickle.ORDERED_DICT)
        for name, array in arrays.items():
            file.write(pickle.text(name) + empty + pickle.REDUCE + pickle.MARK)
            file.write(pickle.integer(1) + pickle.integers(array.shape) + float32 + pickle.FALSE)
            file.write(pickle.byte_string(array.nbytes))
            file.write(to_bytes(array))
            file.write(b"t" + pickle.BUILD + pickle.SETITEM)
            progress(array.nbytes)
        file.write(pickle.STOP)
