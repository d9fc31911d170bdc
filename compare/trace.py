"""A trace: every tensor of one recorded run, in one .npz file, with a manifest that says how it came about.

Members: each tap by its name, `input/<name>`, `grad/<parameter>` and `manifest` (JSON text). NumPy alone reads it.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backends.config import Config, MAEConfig, ViTConfig
from ..backends.errors import Problem
from ..convert.atomic import replacing

MANIFEST = "manifest"
FORMAT = 1
# What every manifest says; `judge` and `compare_traces` read these.
FIELDS = (
    "framework", "config", "mask_ratio", "dtype", "gradients", "environment", "inputs", "source", "weights",
    "twin", "kernel_noise", "fault",
)  # fmt: skip


class TraceProblem(Problem, ValueError):
    """A file that is not a whole trace."""


def write_trace(path: Path, manifest: dict[str, Any], tensors: Iterable[tuple[str, NDArray[Any]]]) -> None:
    """Write a trace tensor by tensor to a temporary file beside the target, then rename it: never a half-written file."""
    text = json.dumps({"format": FORMAT, **manifest})
    with replacing(path) as new, zipfile.ZipFile(new, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in ((MANIFEST, np.array(text)), *tensors):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)  # type: ignore[no-untyped-call]


def _config(values: dict[str, Any]) -> Config:
    """The model's configuration, from the manifest."""
    kinds = {"MAEConfig": MAEConfig, "ViTConfig": ViTConfig}
    given = {name: value for name, value in values.items() if name != "kind"}
    config: Config = kinds[values["kind"]](**given | {"img_size": tuple(given["img_size"])})
    return config


class Trace:
    """A recorded run, read tensor by tensor. Raises TraceProblem for a file that is no trace."""

    def __init__(self, path: Path):
        self.path = path
        try:
            self._arrays = np.load(path, allow_pickle=False)
            self.manifest: dict[str, Any] = json.loads(str(self._arrays[MANIFEST][()]))
        except FileNotFoundError:
            raise TraceProblem(f"No trace {path}; record one with `polymae record`.") from None
        except (ValueError, LookupError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as problem:
            raise TraceProblem(
                f"{path} is not a whole trace ({problem}); record it again with `polymae record`."
            ) from None
        if not isinstance(self.manifest, dict):
            raise TraceProblem(f"{path} has a manifest that is no JSON object; record it again with `polymae record`.")
        if self.manifest.get("format") != FORMAT:
            raise TraceProblem(f"{path} has trace format {self.manifest.get('format')}; this version reads {FORMAT}.")
        if absent := [name for name in FIELDS if name not in self.manifest]:
            raise TraceProblem(f"{path} does not say its {', '.join(absent)}; record it again with `polymae record`.")
        try:
            _config(self.manifest["config"])
            if not all(isinstance(self.manifest[name], dict) for name in ("environment", "inputs", "weights")):
                raise TypeError("environment, inputs and weights must be objects")
        except (TypeError, ValueError, LookupError, AttributeError) as problem:
            raise TraceProblem(
                f"{path} has a wrong manifest ({problem}); record it again with `polymae record`."
            ) from None
        names = list(self._arrays.files)
        if len(set(names)) != len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise TraceProblem(f"{path} holds {', '.join(twice)} twice; record it again with `polymae record`.")
        self.names = [name for name in names if name != MANIFEST]

    @property
    def config(self) -> Config:
        """The model's configuration; settings newer than the trace have their defaults."""
        return _config(self.manifest["config"])

    @property
    def label(self) -> str:
        """What a report calls this run."""
        return str(self.manifest["framework"])

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def __getitem__(self, name: str) -> NDArray[Any]:
        try:
            return np.asarray(self._arrays[name])
        except KeyError:
            raise TraceProblem(f"{self.path} holds no {name}; record it again with `polymae record`.") from None
        except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as problem:
            raise TraceProblem(f"{name} in {self.path} is damaged ({problem}); record it again.") from None

    def close(self) -> None:
        """Close the file."""
        self._arrays.close()
