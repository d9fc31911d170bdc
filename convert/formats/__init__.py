"""How weights lie on disk: one module for each file format, reading and writing. Found through the table FORMATS."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from ..tensors import Array, CheckpointProblem, Progress, State
from . import megengine, mindspore, oneflow, pth, safetensors


class Format(Protocol):
    """What each module here offers."""

    @property
    def NAME(self) -> str:
        """For people."""

    @property
    def ENDINGS(self) -> tuple[str, ...]:
        """How its files end, the usual ending first."""

    @property
    def FOLDER(self) -> bool:
        """Whether it is a folder of files."""

    def matches(self, start: Any, /) -> bool:
        """Whether a file with these first bytes (a folder format: this folder) is of this format."""

    def read(self, path: Path) -> State:
        """The tensors, lazily."""

    def write(self, path: Path, arrays: Mapping[str, Array], progress: Progress) -> None:
        """Write float32 arrays, tensor by tensor, to a path that must not exist; same arrays, same bytes."""


FORMATS: dict[str, Format] = {
    "pth": pth,
    "safetensors": safetensors,
    "megengine": megengine,
    "mindspore": mindspore,
    "oneflow": oneflow,
}
# Which formats a framework's own loader reads, the first being the default.
NATIVE = {
    "torch": ("pth", "safetensors"),
    "megengine": ("megengine",),
    "mindspore": ("mindspore",),
    "oneflow": ("oneflow",),
}
# What people have in place of a checkpoint, by its first bytes (lower case, without leading blanks).
_STRANGERS = {
    b"<!doctype html": "an HTML page, probably the error page of a failed download",
    b"<html": "an HTML page, probably the error page of a failed download",
    b"<?xml": "an XML page, probably the error message of a failed download",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself; run `git lfs pull`",
    b"\x1f\x8b": "compressed with gzip; unpack it first",
    b"\x93numpy": "a single NumPy array",
    b"\x89hdf": "an HDF5 file",
}


def find_format(path: Path) -> tuple[str, Format]:
    """Name and module of the format of a file or folder, by its first bytes. Raises CheckpointProblem for none."""
    try:
        folder, regular = path.is_dir(), path.is_file() or not path.exists()
        head = b"" if folder or not regular else _first_bytes(path)
    except FileNotFoundError:
        raise CheckpointProblem(f"There is no file {path}; check the path.") from None
    except (OSError, ValueError) as problem:  # ValueError: a null character in the name
        raise CheckpointProblem(f"Cannot read {path}: {problem}; check the path and its permissions.") from None
    if folder:
        return _find_folder_format(path)
    if not regular:  # a pipe would make us wait for ever
        raise CheckpointProblem(f"{path} is neither a file nor a folder; save the checkpoint to a file first.")
    if not head:
        raise CheckpointProblem(f"{path} is empty (0 bytes); was the download or the copy interrupted?")
    start = head.lstrip().lower()
    for sign, what in _STRANGERS.items():
        if start.startswith(sign):
            raise CheckpointProblem(f"{path} is not a checkpoint: it is {what}.")
    for name, form in FORMATS.items():
        if not form.FOLDER and form.matches(head):
            return name, form
    known = ", ".join(form.NAME for form in FORMATS.values())
    raise CheckpointProblem(f"{path} is none of the known formats ({known}); it begins with {head[:16]!r}.")


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(512)


def _find_folder_format(path: Path) -> tuple[str, Format]:
    for name, form in FORMATS.items():
        if form.FOLDER and form.matches(path):
            return name, form
    inside = path / "model"
    hint = f" Did you mean {inside}?" if oneflow.matches(inside) else ""
    raise CheckpointProblem(f"{path} is a folder, but not one that oneflow.save wrote (no pickled_data in it).{hint}")
