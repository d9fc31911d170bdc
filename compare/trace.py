"""A trace: every tensor of one recorded run, in one .npz file, with a manifest that says how it came about.

Members: `manifest` (JSON text) and the tensors of every recorded level by the names of compare/levels/: each tap by its
own, `input/<name>`, `grad/<parameter>`, `optimizer/...`, `curve/...`. NumPy alone reads it.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backends.config import Config, MAEConfig, ViTConfig
from ..files.atomic import replacing
from ..files.errors import Problem
from .manifest import is_own, require_manifest

MANIFEST = "manifest"
FORMAT = 3  # 3: twins sum in chains; the kernels that ran are in the environment
Inputs = dict[str, NDArray[Any]]  # of one run, by name
KEPT = 16_000_000  # bytes of a file whose tensors are kept once they are read, which a judgement does four times
LARGE = 1 << 20  # bytes from which a float64 tensor is shortened: only those of the oracle of a large model


class TraceProblem(Problem, ValueError):
    """A file that is not a whole trace."""


@dataclass(frozen=True)
class Outcome:
    """How a recording ended: with a trace, or with a reason why there is none."""

    label: str
    trace: Path | None
    reason: str = ""


def digest(array: NDArray[Any]) -> str:
    """SHA-256 of an array's type, shape and little-endian bytes: equal exactly where the bits are."""
    array = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    head = f"{array.dtype.str}{array.shape}".encode()
    return hashlib.sha256(head + array.tobytes()).hexdigest()


def require_folder(folder: Path) -> None:
    """Say now, not after minutes of work, that nothing can be written to a folder (which may not exist yet)."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise Problem(f"Cannot write to {folder}: {existing} is not a folder that you may write to; give another.")


def write_trace(path: Path, manifest: dict[str, Any], tensors: Iterable[tuple[str, NDArray[Any]]]) -> None:
    """Write a trace to a temporary file beside the target, then rename it: never a half-written file.

    tensors: drawn one by one, each when the one before it is written.
    """
    text = np.array(json.dumps({"format": FORMAT, **manifest}))
    with replacing(path) as new, zipfile.ZipFile(new, "w", compresslevel=1) as archive:
        for name, array in chain([(MANIFEST, text)], tensors):
            array = np.asanyarray(array)
            large = array.dtype == np.float64 and array.nbytes > LARGE
            archive.compression = zipfile.ZIP_DEFLATED if large else zipfile.ZIP_STORED
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                kept = _shortened(array) if large else array
                np.lib.format.write_array(member, kept, allow_pickle=False)  # type: ignore[no-untyped-call]


def _shortened(array: NDArray[np.float64]) -> NDArray[np.float64]:
    """Numbers of 37 bits instead of 53, whose last two bytes are zeros: a quarter less on disk.

    The cut part is below 2^-36, or u / 4096 in the unit in which errors are counted.
    """
    return (np.ascontiguousarray(array).view(np.uint64) & np.uint64(0xFFFF_FFFF_FFFF_0000)).view(np.float64)


def selects(patterns: Iterable[str] | None, name: str) -> bool:
    """Whether a tensor is to be recorded, under the patterns of `polymae record --taps` (None: all are)."""
    return patterns is None or any(fnmatchcase(name, pattern) for pattern in patterns)


def _config(values: dict[str, Any]) -> Config:
    """The model's configuration, from the manifest."""
    kinds = {"MAEConfig": MAEConfig, "ViTConfig": ViTConfig}
    settings = {name: value for name, value in values.items() if name != "kind"}
    config: Config = kinds[values["kind"]](**settings | {"img_size": tuple(settings["img_size"])})
    return config


class Trace:
    """A recorded run, read tensor by tensor; a small one is kept in memory. Raises TraceProblem for a file that is no trace."""

    def __init__(self, path: Path):
        self.path = path
        again = "record it again with `polymae record`"
        try:
            archive = np.load(path, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it holds one array without a name")
            self._arrays = archive
            self.manifest: dict[str, Any] = json.loads(str(archive[MANIFEST][()]))
        except FileNotFoundError:
            raise TraceProblem(f"No trace {path}; record one with `polymae record`.") from None
        except PermissionError:
            raise TraceProblem(f"{path} may not be read; ask its owner, or change its permissions.") from None
        except Exception as problem:  # zipfile and NumPy raise a dozen kinds for damaged bytes
            raise TraceProblem(f"{path} is not a whole trace ({_said(problem)}); {again}.") from None
        if not isinstance(self.manifest, dict):
            raise TraceProblem(f"{path} has a manifest that is no JSON object; {again}.")
        if self.manifest.get("format") != FORMAT:
            raise TraceProblem(
                f"{path} has trace format {self.manifest.get('format')}, and this version reads {FORMAT}; {again} "
                "of this version."
            )
        try:
            require_manifest(self.manifest)
            if not is_own(self.manifest):
                _config(self.manifest["config"])
        except Exception as problem:  # whatever a configuration of other types leads to
            raise TraceProblem(f"{path} has a wrong manifest ({_said(problem)}); {again}.") from None
        names = list(self._arrays.files)
        if len(set(names)) != len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise TraceProblem(f"{path} holds {', '.join(twice)} twice; {again}.")
        self.names = [name for name in names if name != MANIFEST]
        self._kept: dict[str, NDArray[Any]] | None = {} if path.stat().st_size <= KEPT else None

    @property
    def config(self) -> Config:
        """The model's configuration; settings newer than the trace have their defaults."""
        if is_own(self.manifest):
            raise TraceProblem(
                f"{self.path} is of a model of your own; judge it with polymae.compare.parity_of_traces."
            )
        return _config(self.manifest["config"])

    @property
    def levels(self) -> tuple[str, ...]:
        """The levels that were recorded."""
        return tuple(self.manifest["levels"])

    def selects(self, name: str) -> bool:
        """Whether a tensor was to be recorded (`polymae record --taps` leaves others out)."""
        return selects(self.manifest["taps"], name)

    @property
    def label(self) -> str:
        """The name of this run in a report."""
        return str(self.manifest["framework"])

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self.names:
            raise TraceProblem(f"{self.path} holds no {name}; record it again with `polymae record`.")
        if self._kept is not None and name in self._kept:
            return self._kept[name]
        array = self._read(name)
        if self._kept is not None:
            array.flags.writeable = False
            self._kept[name] = array
        return array

    def _read(self, name: str) -> NDArray[Any]:
        try:
            array = np.asarray(self._arrays[name])
        except Exception as problem:  # as above
            raise TraceProblem(f"{name} in {self.path} is damaged ({_said(problem)}); record it again.") from None
        if array.dtype.kind not in "biu" and array.dtype.newbyteorder("=") not in (np.float32, np.float64):
            raise TraceProblem(
                f"{name} in {self.path} is of type {array.dtype}; a trace holds float32, float64 and whole numbers: "
                "record it again."
            )
        return array.astype(array.dtype.newbyteorder("="), copy=False)  # it may come from a big-endian machine

    def close(self) -> None:
        """Close the file."""
        self._arrays.close()


def _said(problem: Exception) -> str:
    """The message of an exception, in one line."""
    return " ".join(str(problem).split())[:200] or type(problem).__name__
