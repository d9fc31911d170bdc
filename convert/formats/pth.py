"""PyTorch's .pth: a zip of one pickle, which lists the tensors, and one uncompressed entry for each storage."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..tensors import DTYPES, CheckpointProblem, Progress, State, Tensor
from .checks import stored_bytes
from .pickle_names import Names
from .pickle_reader import read_pickle
from .pickle_values import Persistent
from .state_dict import ToTensor, find_state
from .torch_tensors import KNOWN, Place, pickled, rebuild, storage_dtype
from .zips import Archive, add

NAME, ENDINGS, FOLDER, HAS_ROOM = "PyTorch .pth", (".pth", ".pt", ".bin"), False, False


def matches(head: bytes) -> bool:
    """Whether a file that begins with these bytes is of this format."""
    return head.startswith(b"PK\x03\x04")


def read(path: Path) -> State:
    """The tensors of a file written by torch.save (1.6 or newer), lazily. Raises CheckpointProblem."""
    opened = read_object(path)
    return find_state(opened.value, opened.tensor, str(path), opened.size, opened.unknown)


class Opened(NamedTuple):
    """The object in a file, of inert records, and how its tensors are read."""

    value: Any
    tensor: ToTensor
    size: Callable[[], int]  # of the file in bytes
    unknown: tuple[str, ...]  # names of classes that PolyMAE does not know


def read_object(path: Path) -> Opened:
    """The whole object that torch.save (1.6 or newer) wrote; nothing in it is made or run. Raises CheckpointProblem."""
    archive = Archive(path, ".pth")
    if any(name.endswith("/constants.pkl") for name in archive.entries):
        raise CheckpointProblem(
            f"{path} is a TorchScript program, not a checkpoint. In Python: "
            "torch.save(torch.jit.load(path, 'cpu').state_dict(), 'weights.pth'), then give that file.",
            code="unsupported",
        )
    pickles = [name for name in archive.entries if re.fullmatch(r"[^/]+/data\.pkl", name)]
    if len(pickles) != 1:
        raise CheckpointProblem(
            f"{path} is a zip file, but not one that torch.save writes: it must hold one data.pkl. "
            "Give the checkpoint itself, unpacked.",
            code="not-a-checkpoint",
        )
    root = pickles[0].removesuffix("data.pkl")
    order = bytes(archive.entry(f"{root}byteorder")) if f"{root}byteorder" in archive.entries else b"little"

    def find(storage: Any) -> Place:
        if not isinstance(storage, Persistent):
            raise TypeError
        kind, storage_type, key, _, count = storage.id
        dtype = storage_dtype(storage_type)
        if kind != "storage" or not isinstance(key, str) or type(count) is not int or count < 0:
            raise TypeError
        entry, size = f"{root}data/{key}", count * (np.dtype(DTYPES[dtype]).itemsize if dtype else 1)
        stored = archive.entries.get(entry)
        if stored is None or stored.file_size != size:
            raise archive.damaged(
                f"its entry data/{key[:40]} is not there with the {size:,} bytes that its tensors need"
            )
        return Place(dtype, count, lambda: archive.entry(entry), big_endian=order == b"big")

    def tensor(name: str, value: Any) -> Tensor | None:
        return rebuild(name, value, find, str(path), archive.damaged)

    names = Names(KNOWN)
    value = read_pickle(archive.entry(pickles[0]), names, str(path), references=[])
    return Opened(value, tensor, lambda: len(archive.data), names.unknown)


def write(path: Path, state: State, progress: Progress) -> None:
    """Write an OrderedDict of tensors, alone or in a dict, as torch.load reads. `path` is made and must not exist."""
    with path.open("xb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        add(archive, "archive/data.pkl", pickled(state))
        add(archive, "archive/byteorder", b"little")
        for i, (name, tensor) in enumerate(state.tensors.items()):
            add(archive, f"archive/data/{i}", stored_bytes(name, tensor))
            progress(tensor.nbytes)
        add(archive, "archive/version", b"3\n")
