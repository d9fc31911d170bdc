"""OneFlow's folder, as oneflow.save writes it: `pickled_data`, and a folder with `meta` and `out` for each tensor."""

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
from .state import as_mapping, find_state

NAME, ENDINGS, FOLDER = "OneFlow folder", ("",), True

PICKLE, META, OUT = "pickled_data", "meta", "out"
_TENSORS = frozenset(["oneflow.Tensor", "oneflow.nn.Parameter", "oneflow._oneflow_internal.Tensor"])
_ALLOWED = _TENSORS | {"collections.OrderedDict", "collections.defaultdict", "argparse.Namespace", "pathlib.PosixPath"}
_KINDS = {
    "kFloat": "float32", "kDouble": "float64", "kFloat16": "float16", "kBFloat16": "bfloat16", "kInt64": "int64",
    "kInt32": "int32", "kInt16": "int16", "kInt8": "int8", "kUInt8": "uint8", "kBool": "bool",
}  # fmt: skip
_META = re.compile(r"\s*shape\s*\{((?:\s*dim\s*:\s*\d{1,18})*)\s*\}\s*data_type\s*:\s*(\w+)\s*")


def matches(path: Path) -> bool:
    """Whether a folder is of this format."""
    return (path / PICKLE).is_file()


def read(path: Path) -> State:
    """The tensors of a folder written by oneflow.save, lazily. Raises CheckpointProblem."""
    value = read_pickle(map_file(path / PICKLE), _ALLOWED, str(path / PICKLE))
    saved = as_mapping(value)
    if saved is None or saved.get("protocol_version") != 1 or "data" not in saved:
        raise CheckpointProblem(
            f"{path} is no folder that oneflow.save (protocol 1) wrote; save it again with oneflow.save."
        )
    return find_state(saved["data"], lambda name, stored: _tensor(name, stored, path), str(path))


def _tensor(name: str, value: Any, path: Path) -> Tensor | None:
    if not isinstance(value, Record) or str(value.of) not in _TENSORS:
        return None
    folder = value.state.get("path") if isinstance(value.state, dict) else None
    # Only a folder beside the pickle: a crafted name must not lead elsewhere on the disk.
    if not isinstance(folder, str) or not re.fullmatch(r"[\w.-]+", folder) or folder in (".", ".."):
        raise CheckpointProblem(f"{path} is damaged: tensor {name} has no folder of its own.")
    meta, out = path / folder / META, path / folder / OUT
    try:
        found = _META.fullmatch(meta.read_bytes()[:4096].decode())
        size = out.stat().st_size
    except (OSError, UnicodeDecodeError) as problem:
        raise CheckpointProblem(
            f"{path} is incomplete: tensor {name} cannot be read ({problem}). Copy it again."
        ) from None
    if not found or found[2] not in _KINDS:
        raise CheckpointProblem(f"{path} is damaged: {meta} does not describe a tensor. Copy it again.")
    shape = tuple(int(size) for size in re.findall(r"\d+", found[1]))
    dtype = _KINDS[found[2]]
    needed = math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize
    if len(shape) > 16 or size != needed:
        raise CheckpointProblem(
            f"{path} is damaged: {out} has {size:,} bytes, {name} of shape {shape} needs {needed:,}. Copy it again."
        )

    def load() -> Array:
        data = map_file(out) if needed else memoryview(b"")
        if len(data) != needed:
            raise CheckpointProblem(f"{out} changed while it was read.")
        return from_bytes(data, dtype, shape)

    return Tensor(shape, dtype, load)


def write(path: Path, arrays: Mapping[str, Array], progress: Progress) -> None:
    """Write an OrderedDict of float32 tensors as a folder that oneflow.load reads. `path` is made and must not exist.

    The tensors' folders are numbered in order, where OneFlow uses a counter of the process.
    """
    path.mkdir()
    parts = [pickle.protocol(4), pickle.EMPTY_DICT, pickle.MARK, pickle.text("protocol_version"), pickle.integer(1)]
    parts += [pickle.text("data"), pickle.ORDERED_DICT, pickle.MARK]
    for i, (name, array) in enumerate(arrays.items()):
        folder = f"tensor_{i}"
        (path / folder).mkdir()
        dims = "".join(f"  dim: {size}\n" for size in array.shape)
        (path / folder / META).write_text(f"shape {{\n{dims}}}\ndata_type: kFloat\n")
        (path / folder / OUT).write_bytes(to_bytes(array))
        parts += [
            pickle.text(name), pickle.name("oneflow", "Tensor"), pickle.EMPTY_TUPLE, pickle.NEWOBJ,
            pickle.EMPTY_DICT, pickle.text("path"), pickle.text(folder), pickle.SETITEM, pickle.BUILD,
        ]  # fmt: skip
        progress(array.nbytes)
    (path / PICKLE).write_bytes(b"".join([*parts, pickle.SETITEMS, pickle.SETITEMS, pickle.STOP]))


def replaceable(path: Path) -> bool:
    """Whether an existing folder is nothing but an earlier save, so that nothing else is lost with it."""
    for inside in path.iterdir():
        if inside.name == PICKLE and inside.is_file():
            continue
        if not inside.is_dir() or inside.is_symlink() or {file.name for file in inside.iterdir()} - {META, OUT}:
            return False
    return True
