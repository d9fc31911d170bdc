"""Hugging Face's folder: model.safetensors, or several of them and an index that says which tensor is in which.

Beside them lies config.json, kept as text in the note.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..tensors import CheckpointProblem, Progress, State, Tensor
from . import pth, pth_legacy, safetensors
from .checks import LONGEST_JSON, bounded_json, readable, shown

NAME, ENDINGS, FOLDER, HAS_ROOM = "safetensors folder", ("",), True, True

_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
SHARD_SIZE = 5_000_000_000  # bytes of tensors in one file, transformers' own limit
WHOLE, CONFIG = "model.safetensors", "config.json"
_INDEX_ENDING = ".safetensors.index.json"
_INDEX = f"model{_INDEX_ENDING}"
_PICKLED, _PICKLED_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"


def matches(path: Path) -> bool:
    """Whether a folder, or the index in it, is of this format."""
    return is_index(path) or any((path / name).is_file() for name in (WHOLE, _INDEX, _PICKLED, _PICKLED_INDEX))


def is_index(path: Path) -> bool:
    """Whether a file is the index of such a folder, by its name."""
    return path.name.endswith(_INDEX_ENDING) and path.is_file()


def read(path: Path) -> State:
    """The tensors of a folder, or of the index in it, lazily. Raises CheckpointProblem."""
    with readable(path):
        return _read(path)


def _read(path: Path) -> State:
    folder, index = (path.parent, path) if is_index(path) else (path, path / _INDEX)
    if not is_index(path) and (folder / WHOLE).is_file():
        if index.is_file():
            raise CheckpointProblem(
                f"{folder} holds both {WHOLE} and {_INDEX}: name the one that you mean.", code="ambiguous"
            )
        state = safetensors.read(_inside(folder, WHOLE))
    elif not index.is_file() and (folder / _PICKLED).is_file():  # the file of older versions of transformers
        pickled = _inside(folder, _PICKLED)
        with pickled.open("rb") as file:
            state = (pth_legacy if pth_legacy.matches(file.read(64)) else pth).read(pickled)
    elif not index.is_file():
        raise CheckpointProblem(
            f"{folder} holds pickled shards ({_PICKLED_INDEX}), which are not read here. Load and save it once with "
            "transformers (save_pretrained), which writes safetensors.",
            code="unsupported",
        )
    else:
        state = _read_shards(folder, _inside(folder, index.name))
    metadata = dict(state.metadata)
    if (folder / CONFIG).exists():
        metadata[CONFIG] = _text(_inside(folder, CONFIG))
    return State(state.tensors, state.extras, metadata=metadata)


def _inside(folder: Path, name: str) -> Path:
    """A file of the folder, through symbolic links. Raises CheckpointProblem for one that lies elsewhere, or nowhere."""
    problem = f"{folder} names {shown(name)}, which is no file inside it; copy the whole folder again."
    if "\0" in name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise CheckpointProblem(problem, code="incomplete")
    home = Path(os.path.realpath(folder))
    file = Path(os.path.realpath(home / name))
    # Hugging Face's cache holds a snapshot as links to files shared by all snapshots of the same model.
    shared = home.parent.parent / "blobs" if home.parent.name == "snapshots" else home
    if not (file.is_relative_to(home) or file.is_relative_to(shared)) or not file.is_file():
        raise CheckpointProblem(problem, code="incomplete")
    return file


def _text(path: Path) -> str:
    with path.open("rb") as file:
        raw = file.read(LONGEST_JSON + 1)
    try:
        if len(raw) <= LONGEST_JSON:
            return raw.decode()
    except UnicodeDecodeError:
        pass
    raise CheckpointProblem(
        f"{path} is no text of at most {LONGEST_JSON:,} bytes; is it the right folder?", code="damaged"
    )


def _read_shards(folder: Path, index: Path) -> State:
    """All tensors that an index lists, in the order of the files."""
    listed = bounded_json(index, str(folder)).get("weight_map")
    if not isinstance(listed, dict) or not listed or not all(isinstance(name, str) for name in listed.values()):
        raise CheckpointProblem(
            f"{index} is damaged: it maps no tensors to files. Download or copy it again.", code="damaged"
        )
    tensors: dict[str, Tensor] = {}
    metadata: Mapping[str, str] = {}
    for name in sorted(set(listed.values())):
        state = safetensors.read(_inside(folder, name))
        metadata = metadata or state.metadata
        for tensor in state.tensors:
            if listed.get(tensor) != name or tensor in tensors:
                other = shown(str(listed.get(tensor, "no file")))
                raise CheckpointProblem(
                    f"{folder} is damaged: {shown(name)} holds {tensor}, for which the index names {other}.",
                    code="damaged",
                )
        tensors.update(state.tensors)
    missing = [shown(name) for name in listed if name not in tensors]
    if missing:
        where = shown(listed[missing[0]]) if missing[0] in listed else "its file"
        raise CheckpointProblem(
            f"{folder} is damaged: {missing[0]} is not in {where}, where the index has it.", code="damaged"
        )
    return State(tensors, metadata=metadata)


def write(path: Path, state: State, progress: Progress, shard_size: int = SHARD_SIZE) -> None:
    """Write a folder that transformers' from_pretrained reads. `path` is made and must not exist.

    The text "config.json" of the metadata becomes that file; every .safetensors file gets the rest. shard_size: bytes; a
    larger model is split into files of at most this size, and a larger tensor has a file of its own.
    """
    path.mkdir()
    metadata, settle = _without_config(state.metadata), state.finalize
    finalize = None if settle is None else lambda: _without_config(settle())
    if CONFIG in state.metadata:
        (path / CONFIG).write_text(state.metadata[CONFIG], encoding="utf-8")
    shards = list(_split(state.tensors, shard_size))
    listed: dict[str, Any] = {}
    for i, shard in enumerate(shards):
        name = WHOLE if len(shards) == 1 else f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        safetensors.write(path / name, State(shard, metadata=metadata, finalize=finalize), progress)
        listed |= dict.fromkeys(shard, name)
    if len(shards) > 1:
        size = sum(tensor.nbytes for tensor in state.tensors.values())
        index = {"metadata": {"total_size": size}, "weight_map": listed}
        (path / _INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _without_config(metadata: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in metadata.items() if name != CONFIG}


def _split(tensors: Mapping[str, Tensor], shard_size: int) -> Iterator[dict[str, Tensor]]:
    shard: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors.items():
        if shard and size + tensor.nbytes > shard_size:
            yield shard
            shard, size = {}, 0
        shard[name] = tensor
        size += tensor.nbytes
    yield shard


def replaceable(path: Path) -> bool:
    """Whether an existing folder is nothing but an earlier save, so that nothing else is lost with it."""
    names = {inside.name for inside in path.iterdir()}
    shards = {name for name in names if _SHARD.fullmatch(name)}
    known = shards | {WHOLE, _INDEX, CONFIG}
    return names <= known and (not names or bool(names & {WHOLE, _INDEX})) and all((path / n).is_file() for n in names)
