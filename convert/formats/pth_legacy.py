"""The format of torch.save before version 1.6, which it still writes on request: five pickles, then every storage's bytes.

The pickles: a magic number, the protocol (1001), facts of the machine, the object, the keys of the storages in order.
Then, for each key, a count of values (8 bytes) and the values, little-endian on every machine.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np

from ...files.errors import Code
from ..tensors import DTYPES, CheckpointProblem, Progress, State, Tensor, map_file
from . import pickle_writer as pickle
from .checks import require_dtypes, stored_bytes
from .pickle_names import Names
from .pickle_reader import MAX_OPCODES, read_first_pickle
from .pickle_values import Persistent
from .state_dict import find_state
from .torch_tensors import KNOWN, TYPED, Place, pickled, rebuild, storage_dtype

NAME, ENDINGS, FOLDER, HAS_ROOM = "PyTorch .pth (before 1.6)", (".pth", ".pt", ".bin"), False, False

_MAGIC = 0x1950A86A20F9469CFC6C
_PICKLED_MAGIC = b"\x8a\x0a" + _MAGIC.to_bytes(10, "little") + b"."
_PROTOCOL = 1001
_FEW_OPCODES = 50_000  # those around the object: three for each storage


def matches(head: bytes) -> bool:
    """Whether a file that begins with these bytes is of this format."""
    return head[:1] == b"\x80" and _PICKLED_MAGIC in head[:32]


def read(path: Path) -> State:
    """The tensors of a file, lazily. Raises CheckpointProblem."""
    data, references, at = map_file(path), list[Persistent](), 0
    names, values = Names(KNOWN), []
    for i in range(5):
        of_object = i == 3
        value, at = read_first_pickle(
            data, at, names, str(path), references if of_object else None, MAX_OPCODES if of_object else _FEW_OPCODES
        )
        values.append(value)
    magic, protocol, _, value, keys = values
    if (magic, protocol) != (_MAGIC, _PROTOCOL) or not isinstance(keys, list):
        raise _damaged(path, "its first parts are not what torch writes")
    places = _places(path, data, at, keys, references)

    def find(storage: Any) -> Place:
        key, dtype, _, part = _storage(storage)
        values, itemsize = places[key], _itemsize(dtype)
        if part is not None:  # of another storage
            _, begin, size = part
            if type(begin) is not int or type(size) is not int or not 0 <= begin <= begin + size <= len(values):
                raise TypeError
            values = values[begin * itemsize : (begin + size) * itemsize]
        return Place(dtype, len(values) // itemsize, lambda: values)

    def tensor(name: str, value: Any) -> Tensor | None:
        return rebuild(name, value, find, str(path), lambda why: _damaged(path, why))

    return find_state(value, tensor, str(path), lambda: len(data), names.unknown)


def _damaged(path: Path, why: str, code: Code = "damaged") -> CheckpointProblem:
    return CheckpointProblem(f"{path} is a damaged .pth file: {why}. Download or copy it again.", code=code)


def _itemsize(dtype: str | None) -> int:
    return np.dtype(DTYPES[dtype]).itemsize if dtype else 1


def _storage(storage: Any) -> tuple[str, str | None, int, tuple[Any, Any, Any] | None]:
    """A storage's key, dtype, count, and (key, begin, count) of the part of it that is meant. Raises TypeError."""
    if not isinstance(storage, Persistent) or not isinstance(storage.id, tuple) or len(storage.id) not in (5, 6):
        raise TypeError
    kind, storage_type, key, _, count, *view = storage.id
    if kind != "storage" or not isinstance(key, str) or type(count) is not int or not 0 <= count < 2**60:
        raise TypeError
    if view and view[0] is not None and (not isinstance(view[0], tuple) or len(view[0]) != 3):
        raise TypeError
    return key, storage_dtype(storage_type), count, view[0] if view else None


def _places(
    path: Path, data: memoryview, at: int, keys: list[Any], references: list[Persistent]
) -> dict[str, memoryview]:
    """Each storage's bytes; `at` is where the first one begins."""
    # Torch goes by the first mention of a storage.
    known: dict[str, tuple[str | None, int]] = {}
    for storage in references:
        try:
            key, dtype, count, _ = _storage(storage)
        except TypeError:
            raise _damaged(path, "it refers to something that is no storage") from None
        known.setdefault(key, (dtype, count))
    if not all(isinstance(key, str) for key in keys) or sorted(keys) != sorted(known):
        raise _damaged(path, "its list of storages does not name those that its tensors use")
    places: dict[str, memoryview] = {}
    for key in keys:
        dtype, count = known[key]
        begin = at + 8
        end = begin + count * _itemsize(dtype)
        if end > len(data) or struct.unpack("<Q", data[at:begin])[0] != count:
            raise _damaged(
                path,
                f"storage {key[:40]} is not there with the {count:,} values that its tensors need",
                "truncated" if end > len(data) else "damaged",
            )
        places[key], at = data[begin:end], end
    if at != len(data):
        raise _damaged(path, f"{len(data) - at:,} bytes follow its last storage")
    return places


def write(path: Path, state: State, progress: Progress) -> None:
    """Write an OrderedDict of tensors, alone or in a dict, as torch.load reads. `path` is made and must not exist."""
    require_dtypes(state, TYPED, NAME)
    facts = {"short": 2, "int": 4, "long": 4}  # torch's values on every machine
    sizes = b"".join(pickle.text(name) + pickle.integer(size) for name, size in facts.items())
    machine = pickle.text("protocol_version") + pickle.integer(_PROTOCOL) + pickle.text("little_endian") + pickle.TRUE
    machine += pickle.text("type_sizes") + pickle.EMPTY_DICT + pickle.MARK + sizes + pickle.SETITEMS
    keys = b"".join(pickle.text(str(i)) for i in range(len(state.tensors)))
    start = pickle.protocol(2)
    with path.open("xb") as file:
        file.write(start + pickle.integer(_MAGIC) + pickle.STOP)
        file.write(start + pickle.integer(_PROTOCOL) + pickle.STOP)
        file.write(start + pickle.EMPTY_DICT + pickle.MARK + machine + pickle.SETITEMS + pickle.STOP)
        file.write(pickled(state, views=True))
        file.write(start + pickle.EMPTY_LIST + pickle.MARK + keys + pickle.APPENDS + pickle.STOP)
        for name, tensor in state.tensors.items():
            file.write(struct.pack("<Q", math.prod(tensor.shape)))
            file.write(stored_bytes(name, tensor))
            progress(tensor.nbytes)
