"""Features of images as a file: .npy, or .parquet with the images' names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..files.atomic import replacing
from ..files.errors import Problem

ENDINGS = (".npy", ".parquet")


def require_writable(path: Path) -> None:
    """Raise Problem where features cannot be written to a file of this name: another ending, or pyarrow is missing."""
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise Problem(f"Features go to a file that ends in {' or '.join(ENDINGS)}, not to {path}.")
    if ending == ".parquet":
        _pyarrow()


def write_features(path: Path, images: Sequence[str], features: NDArray[np.float32]) -> None:
    """Write features float32 [n, D] of n images, complete or not at all.

    .npy: the array, its rows in the order of the images. .parquet: the columns image (text) and features (fixed-size list of
    float32). Raises as require_writable, and OSError.
    """
    require_writable(path)
    with replacing(path) as new:
        if path.suffix.lower() == ".npy":
            with new.open("wb") as file:
                np.save(file, features)
            return
        pyarrow = _pyarrow()
        values = pyarrow.array(np.ascontiguousarray(features).reshape(-1))
        column = pyarrow.FixedSizeListArray.from_arrays(values, features.shape[1])
        names = [
            name.encode(errors="backslashreplace").decode() for name in images
        ]  # a file's name may be in no encoding
        pyarrow.parquet.write_table(pyarrow.table({"image": names, "features": column}), new)


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise Problem(
            "Parquet files are written by pyarrow, which is not installed: pip install 'polymae[parquet]'. A name that ends in "
            ".npy needs nothing."
        ) from None
    return pyarrow
