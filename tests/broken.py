"""Traces taken to pieces and put together again."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TINY = (
    "img_size=16,patch_size=8,embed_dim=8,depth=1,num_heads=2,decoder_embed_dim=8,decoder_depth=1,decoder_num_heads=2"
)


def members(path: Path) -> dict[str, bytes]:
    """The members of a trace, as bytes."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def npy(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def rewritten(path: Path, out: Path, **changes: bytes | None) -> Path:
    """A copy with other members (None: without them). Names are those of the tensors, with a dot as two underscores."""
    with zipfile.ZipFile(out, "w") as archive:
        found = members(path) | {f"{name.replace('__', '.')}.npy": content for name, content in changes.items()}
        for name, content in found.items():
            if content is not None:
                archive.writestr(name, content)
    return out


def small_inputs(where: Path) -> Path:
    rng = np.random.default_rng(0)
    path = where / "inputs" / "small.npz"
    path.parent.mkdir(exist_ok=True)
    np.savez(path, imgs=rng.standard_normal((2, 3, 16, 16)).astype("f4"), noise=rng.random((2, 4)).astype("f4"))
    return path
