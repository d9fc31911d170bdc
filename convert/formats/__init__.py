"""How weights lie on disk: one module for each file format, reading and writing. Found through the table FORMATS."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Protocol

from ..tensors import CheckpointProblem, Progress, State
from . import megengine, mindspore, npz, oneflow, pth, pth_legacy, safetensors, shards


class Format(Protocol):
    """The functions of each module here."""

    @property
    def NAME(self) -> str:
        """For people."""

    @property
    def ENDINGS(self) -> tuple[str, ...]:
        """How its files end, the usual ending first."""

    @property
    def FOLDER(self) -> bool:
        """Whether it is a folder of files."""

    @property
    def HAS_ROOM(self) -> bool:
        """Whether it keeps a State's metadata."""

    def matches(self, start: Any, /) -> bool:
        """Whether a file with these first bytes (a folder format: this folder) is of this format."""

    def read(self, path: Path) -> State:
        """The tensors, lazily."""

    def write(self, path: Path, state: State, progress: Progress) -> None:
        """Write a state, loading one tensor at a time, to a path that must not exist; same state, same bytes.

        progress is given the bytes of each tensor once it is written. Raises CheckpointProblem for a dtype that the
        format has no way to express.
        """


class FolderFormat(Format, Protocol):
    """The further functions of each module of a folder format."""

    def replaceable(self, path: Path) -> bool:
        """Whether an existing folder is nothing but an earlier save, so that nothing else is lost with it."""


FOLDERS: dict[str, FolderFormat] = {"shards": shards, "oneflow": oneflow}
FORMATS: dict[str, Format] = {
    "npz": npz,  # a zip too: tried before .pth
    "pth": pth,
    "pth_legacy": pth_legacy,  # a pickle too: tried before MegEngine
    "safetensors": safetensors,
    "shards": shards,
    "megengine": megengine,
    "mindspore": mindspore,
    "oneflow": oneflow,
}
# Files that people take for checkpoints, by their first bytes (lower case, without leading blanks).
_STRANGERS = {
    b"<!doctype html": "an HTML page, probably the error page of a failed download",
    b"<html": "an HTML page, probably the error page of a failed download",
    b"<?xml": "an XML page, probably the error message of a failed download",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself; run `git lfs pull`",
    b"\x1f\x8b": "compressed with gzip; unpack it first",
    b"\x93numpy": "a single NumPy array",
    b"\x89hdf": "an HDF5 file, as Keras and TensorFlow write them; load it there and save the arrays with numpy.savez",
}
# The contents of folders of other programs, by a file in it, and the line that makes a readable file of it.
_FOREIGN = {
    "tf_model.h5": "a Hugging Face folder with TensorFlow's weights; in transformers 4: "
    "ViTMAEForPreTraining.from_pretrained(folder, from_tf=True).save_pretrained(new_folder)",
    "flax_model.msgpack": "a Hugging Face folder with Flax's weights; in transformers 4: "
    "ViTMAEForPreTraining.from_pretrained(folder, from_flax=True).save_pretrained(new_folder)",
    ".metadata": "a folder of torch.distributed.checkpoint; run: "
    "python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER weights.pth",
    "zero_to_fp32.py": "a folder of DeepSpeed; run in it: python zero_to_fp32.py . pytorch_model.bin",
    "saved_model.pb": "a TensorFlow SavedModel; load it there and save the arrays with numpy.savez",
    "checkpoint": "a folder of TensorFlow's checkpoints; load one there and save the arrays with numpy.savez",
    "_METADATA": "a folder of Orbax; restore it there and save the arrays with numpy.savez",
}


def find_format(path: Path) -> tuple[str, Format]:
    """Name and module of the format of a file or folder, by its first bytes. Raises CheckpointProblem for none."""
    try:
        return _find_format(path)
    except CheckpointProblem:  # a ValueError too
        raise
    except FileNotFoundError:
        hint = "check the path"
        if re.match(r"https?:", str(path)):
            hint = "web addresses are not read, download it first"
        elif re.fullmatch(r"[\w-]+/[\w.-]+", str(path)) and not path.parent.is_dir():
            hint = "if it is the name of a model on a hub, download it first"
        raise CheckpointProblem(f"There is no file {path}; {hint}.", code="no-such-file") from None
    except (OSError, ValueError) as problem:  # ValueError: a null character in the name
        raise CheckpointProblem(
            f"Cannot read {path}: {problem}; check the path and its permissions.", code="cannot-read"
        ) from None


def _find_format(path: Path) -> tuple[str, Format]:
    folder, regular = path.is_dir(), path.is_file() or not path.exists()
    head = b"" if folder or not regular else _first_bytes(path)
    if folder or shards.is_index(path):
        return _find_folder_format(path)
    if not regular:  # a pipe would make us wait for ever
        raise CheckpointProblem(
            f"{path} is neither a file nor a folder; save the checkpoint to a file first.", code="cannot-read"
        )
    if not head:
        raise CheckpointProblem(
            f"{path} is empty (0 bytes); was the download or the copy interrupted?", code="truncated"
        )
    start = head.lstrip().lower()
    for sign, description in _STRANGERS.items():
        if start.startswith(sign):
            raise CheckpointProblem(f"{path} is not a checkpoint: it is {description}.", code="not-a-checkpoint")
    for name, form in FORMATS.items():
        if not form.FOLDER and form.matches(head):
            return name, form
    known = ", ".join(form.NAME for form in FORMATS.values())
    raise CheckpointProblem(
        f"{path} is none of the known formats ({known}); it begins with {head[:16]!r}.", code="not-a-checkpoint"
    )


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(512)


def _find_folder_format(path: Path) -> tuple[str, Format]:
    for name, form in FORMATS.items():
        if form.FOLDER and form.matches(path):
            return name, form
    for file, description in _FOREIGN.items():
        if (path / file).exists():
            raise CheckpointProblem(
                f"{path} holds {file}: it is {description}. Then give what that wrote.{_hint(path)}", code="unsupported"
            )
    raise CheckpointProblem(
        f"{path} is a folder, but not one that oneflow.save wrote (no pickled_data in it), nor LiBai (no model folder), "
        f"nor Hugging Face (no model.safetensors).{_hint(path)}",
        code="not-a-checkpoint",
    )


def _hint(path: Path) -> str:
    """Where in a folder of checkpoints one lies."""
    names = sorted(inside.name for inside in path.iterdir() if inside.is_dir())[:1000]
    fitting = [name for name in names if oneflow.matches(path / name) or shards.matches(path / name)]
    return f" Did you mean {path / fitting[-1]}?" if fitting else ""
