"""NumPy's .npz: a zip of .npy files, each a header in Python's spelling and the values."""

from __future__ import annotations

import ast
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

from ..tensors import DTYPES, CheckpointProblem, Progress, State, Tensor, from_bytes
from .checks import CODES, bytes_needed, proper_name, require_dtypes, shown, stored_bytes
from .numpy_arrays import unknown_dtype
from .zips import Archive, add

NAME, ENDINGS, FOLDER, HAS_ROOM = "NumPy .npz", (".npz",), False, False

_ENDING = ".npy"
_LONGEST_HEADER = 10_000  # bytes, NumPy's own limit
# Only the characters of the header of an array of numbers: one dict, one tuple, no arithmetic, nothing nested.
_HEADER = re.compile(r"\{[\w\s'\"<>|=,:]*\([\d\sL,]*\)[\w\s'\"<>|=,:]*\}\s*")


def matches(head: bytes) -> bool:
    """Whether a file that begins with these bytes is of this format."""
    if not head.startswith(b"PK\x03\x04") or len(head) < 30:
        return False
    length = struct.unpack("<H", head[26:28])[0]
    return head[30 : 30 + length].endswith(_ENDING.encode())


def read(path: Path) -> State:
    """The arrays of a file written by numpy.savez or savez_compressed, lazily. Raises CheckpointProblem."""
    archive = Archive(path, ".npz")
    tensors: dict[str, Tensor] = {}
    extras = []
    for entry in archive.entries:
        if entry.endswith(_ENDING):
            name = proper_name(entry.removesuffix(_ENDING), str(path))
            tensors[name] = _tensor(archive, entry, name)
        else:
            extras.append(shown(entry))
    if not tensors:
        raise CheckpointProblem(f"{path} holds no arrays; is it the right file?", code="not-a-checkpoint")
    return State(tensors, tuple(extras))


def _tensor(archive: Archive, entry: str, name: str) -> Tensor:
    damaged = archive.damaged(f"the header of array {name} makes no sense")
    start = bytes(archive.entry(entry, deflated=True, start=_LONGEST_HEADER))
    if start[:6] != b"\x93NUMPY" or len(start) < 12:
        raise damaged
    # One length more in version 2; version 3 allows other letters in the names of fields.
    wide = start[6] >= 2
    begin = 12 if wide else 10
    data_begin = begin + struct.unpack("<I" if wide else "<H", start[8:begin])[0]
    if data_begin > len(start):
        raise damaged
    descr, shape, fortran = _header(start[begin:data_begin].decode("latin-1"), name, archive)
    if not isinstance(descr, str) or not re.fullmatch(r"[<>|=]\w{1,9}", descr) or type(fortran) is not bool:
        raise damaged
    if descr[1:] not in CODES:
        raise unknown_dtype(name, descr[1:], str(archive.path))
    dtype = CODES[descr[1:]]
    if bytes_needed(shape, dtype) != archive.entries[entry].file_size - data_begin:
        raise archive.damaged(f"array {name} of shape {shape} is not there with all its values"[:300])
    return Tensor(
        shape,
        dtype,
        lambda: from_bytes(archive.entry(entry, deflated=True)[data_begin:], dtype, shape, descr[0] == ">", fortran),
    )


def _header(text: str, name: str, archive: Archive) -> tuple[Any, Any, Any]:
    """The header's values of descr, shape and fortran_order."""
    if not _HEADER.fullmatch(text):
        raise CheckpointProblem(
            f"{archive.path}: array {name} is damaged or no plain array of numbers: its header is {text[:80]!r}.",
            code="damaged",
        )
    try:
        header = ast.literal_eval(re.sub(r"(\d)L\b", r"\1", text).strip())  # Python 2 wrote 10L
        return header["descr"], header["shape"], header["fortran_order"]
    except (ValueError, SyntaxError, TypeError, KeyError):
        raise archive.damaged(f"the header of array {name} makes no sense") from None


def write(path: Path, state: State, progress: Progress) -> None:
    """Write arrays that numpy.load reads, uncompressed, without dates. `path` is made and must not exist."""
    require_dtypes(state, CODES.values(), NAME)
    with path.open("xb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, tensor in state.tensors.items():
            add(archive, name + _ENDING, _described(tensor), stored_bytes(name, tensor))
            progress(tensor.nbytes)


def _described(tensor: Tensor) -> bytes:
    """Everything of a .npy file that stands before the values."""
    text = f"{{'descr': '{DTYPES[tensor.dtype]}', 'fortran_order': False, 'shape': {tensor.shape}, }}".encode()
    padded = text + b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded
