"""OneFlow's folder, as oneflow.save writes it: `pickled_data`, and a folder with `meta` and `out` for each tensor.

Also read: LiBai's folder, which holds such a one called `model` beside others, and the older layout: a folder for
each variable, by its name, and the empty file `snapshot_done`.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..tensors import Array, CheckpointProblem, Progress, State, Tensor, from_bytes, map_file
from . import pickle_writer as pickle
from .checks import bounded_json, bytes_needed, proper_name, readable, require_dtypes, shown, stored_bytes
from .numpy_arrays import KNOWN
from .pickle_names import Names
from .pickle_reader import read_pickle
from .pickle_values import Record
from .state_dict import as_mapping, find_state

NAME, ENDINGS, FOLDER, HAS_ROOM = "OneFlow folder", ("",), True, True

PICKLE, META, OUT, NOTE = "pickled_data", "meta", "out", "polymae.json"
MODEL = "model"  # LiBai's name for the folder of the weights
_DONE = "snapshot_done"
_TENSORS = frozenset(["oneflow.Tensor", "oneflow.nn.Parameter", "oneflow._oneflow_internal.Tensor"])
# The dtypes that oneflow.load takes, and those it only has a name for.
_LOADABLE = {
    "kFloat": "float32", "kDouble": "float64", "kFloat16": "float16", "kInt64": "int64", "kInt32": "int32",
    "kInt8": "int8", "kUInt8": "uint8", "kBool": "bool",
}  # fmt: skip
_KINDS = _LOADABLE | {
    "kBFloat16": "bfloat16", "kInt16": "int16", "kUInt16": "uint16", "kUInt32": "uint32", "kUInt64": "uint64",
}  # fmt: skip
_META = re.compile(r"\s*shape\s*\{((?:\s*dim\s*:\s*\d{1,18})*)\s*\}\s*data_type\s*:\s*(\w+)\s*")


def matches(path: Path) -> bool:
    """Whether a folder is of this format."""
    return any((folder / file).is_file() for folder in (path, path / MODEL) for file in (PICKLE, _DONE))


def read(path: Path) -> State:
    """The tensors of a folder written by oneflow.save or by LiBai, lazily. Raises CheckpointProblem."""
    with readable(path):
        return _read(path)


def _read(path: Path) -> State:
    extras: list[str] = []
    folder, wrapper = path, None
    if not any((path / file).is_file() for file in (PICKLE, _DONE)):
        folder, wrapper = path / MODEL, MODEL
        extras = sorted(shown(beside.name) for beside in path.iterdir() if beside.name != MODEL)
    state = _pickled(folder) if (folder / PICKLE).is_file() else _one_folder_each(folder)
    return replace(state, extras=(*extras, *state.extras), wrapper=wrapper, metadata=_metadata(folder))


def _pickled(folder: Path) -> State:
    pickled = map_file(_inside(folder, PICKLE))
    names = Names(_TENSORS | KNOWN)
    saved = as_mapping(read_pickle(pickled, names, str(folder / PICKLE)))
    if saved is None or saved.get("protocol_version") != 1 or "data" not in saved:
        raise CheckpointProblem(
            f"{folder} is no folder that oneflow.save (protocol 1) wrote; save it again with oneflow.save.",
            code="not-a-checkpoint",
        )
    tensors: dict[str, Tensor] = {}  # by folder: two names may share one

    def tensor(name: str, value: Any) -> Tensor | None:
        if not isinstance(value, Record) or str(value.of) not in _TENSORS:
            return None
        inside = value.state.get("path") if isinstance(value.state, dict) else None
        # Only a folder beside the pickle: a crafted name must not lead elsewhere on the disk.
        if not isinstance(inside, str) or not re.fullmatch(r"[\w.-]{1,200}", inside) or inside in (".", ".."):
            raise CheckpointProblem(f"{folder} is damaged: tensor {name} has no folder of its own.", code="incomplete")
        if inside not in tensors:
            tensors[inside] = _tensor(folder, inside, name)
        return tensors[inside]

    size = lambda: sum(tensor.nbytes for tensor in tensors.values())  # noqa: E731
    return find_state(saved["data"], tensor, str(folder), size, names.unknown)


def _one_folder_each(folder: Path) -> State:
    tensors: dict[str, Tensor] = {}
    extras = []
    for inside in sorted(path.name for path in folder.iterdir()):
        if (folder / inside / OUT).is_file():
            tensors[proper_name(inside, str(folder))] = _tensor(folder, inside, inside)
        elif inside not in (_DONE, NOTE):
            extras.append(shown(inside))
    if not tensors:
        raise CheckpointProblem(f"{folder} holds no tensors; is it the right folder?", code="not-a-checkpoint")
    return State(tensors, tuple(extras))


def _inside(folder: Path, name: str) -> Path:
    """A file of the folder. Raises CheckpointProblem for a symbolic link out of it, and without a file."""
    file = Path(os.path.realpath(folder / name))
    if not file.is_file() or not file.is_relative_to(os.path.realpath(folder)):
        raise CheckpointProblem(
            f"{folder} is incomplete: {shown(name)} is not there, or lies elsewhere. Copy it again.", code="incomplete"
        )
    return file


def _tensor(folder: Path, inside: str, name: str) -> Tensor:
    meta, out = _inside(folder, f"{inside}/{META}"), _inside(folder, f"{inside}/{OUT}")
    with meta.open("rb") as file:
        description = _META.fullmatch(file.read(4096).decode("latin-1"))
    size = out.stat().st_size
    if not description or description[2] not in _KINDS:
        raise CheckpointProblem(
            f"{folder} is damaged: {inside}/{META} does not describe a tensor. Copy it again.", code="damaged"
        )
    shape = tuple(int(size) for size in re.findall(r"\d+", description[1]))
    dtype = _KINDS[description[2]]
    needed = bytes_needed(shape, dtype)
    if needed != size:
        raise CheckpointProblem(
            f"{folder} is damaged: {inside}/{OUT} has {size:,} bytes, {name} of shape {shape} needs {needed or 0:,}. "
            "Copy it again.",
            code="damaged" if needed is None or size > needed else "truncated",
        )

    def load() -> Array:
        data = map_file(out) if needed else memoryview(b"")
        if len(data) != needed:
            raise CheckpointProblem(f"{out} changed while it was read.", code="damaged")
        return from_bytes(data, dtype, shape)

    return Tensor(shape, dtype, load)


def _metadata(folder: Path) -> dict[str, str]:
    if not (folder / NOTE).exists():
        return {}
    texts = bounded_json(_inside(folder, NOTE), str(folder))
    if not all(isinstance(text, str) for text in texts.values()):
        raise CheckpointProblem(
            f"{folder / NOTE} is damaged: it must hold texts only. Remove it or copy it again.", code="bad-note"
        )
    return texts


def write(path: Path, state: State, progress: Progress) -> None:
    """Write an OrderedDict of tensors as a folder that oneflow.load reads, or LiBai's folder around one.

    The tensors' folders are numbered in order, where OneFlow uses a counter of the process. `path` is made and must not
    exist.
    """
    require_dtypes(state, _LOADABLE.values(), NAME)
    path.mkdir()
    if state.wrapper is not None:
        path = path / state.wrapper
        path.mkdir()
    parts = [pickle.protocol(4), pickle.EMPTY_DICT, pickle.MARK, pickle.text("protocol_version"), pickle.integer(1)]
    parts += [pickle.text("data"), pickle.ORDERED_DICT, pickle.MARK]
    kinds = {dtype: kind for kind, dtype in _LOADABLE.items()}
    for i, (name, tensor) in enumerate(state.tensors.items()):
        folder = f"tensor_{i}"
        (path / folder).mkdir()
        dims = "".join(f"  dim: {size}\n" for size in tensor.shape)
        (path / folder / META).write_text(f"shape {{\n{dims}}}\ndata_type: {kinds[tensor.dtype]}\n")
        (path / folder / OUT).write_bytes(stored_bytes(name, tensor))
        parts += [
            pickle.text(name), pickle.name("oneflow", "Tensor"), pickle.EMPTY_TUPLE, pickle.NEWOBJ,
            pickle.EMPTY_DICT, pickle.text("path"), pickle.text(folder), pickle.SETITEM, pickle.BUILD,
        ]  # fmt: skip
        progress(tensor.nbytes)
    (path / PICKLE).write_bytes(b"".join([*parts, pickle.SETITEMS, pickle.SETITEMS, pickle.STOP]))
    metadata = state.finalize() if state.finalize else state.metadata
    if metadata:
        (path / NOTE).write_text(json.dumps(dict(metadata), indent=1, sort_keys=True) + "\n", encoding="utf-8")


def replaceable(path: Path) -> bool:
    """Whether an existing folder is nothing but an earlier save, so that nothing else is lost with it."""
    for inside in path.iterdir():
        if inside.name in (PICKLE, NOTE, _DONE) and inside.is_file():
            continue
        if not inside.is_dir() or inside.is_symlink():
            return False
        whole_save = inside.name == MODEL and (inside / PICKLE).is_file() and replaceable(inside)
        if not whole_save and {file.name for file in inside.iterdir()} - {META, OUT}:
            return False
    return True
