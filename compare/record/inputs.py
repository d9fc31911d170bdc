"""The inputs of every framework in a comparison: images, masking noise and labels, made once, in NumPy and Pillow."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...backends.config import Config, ViTConfig
from ...data.images import evaluation_pixels, normalise
from ...files.errors import Problem
from ..trace import Inputs


def photographs(paths: Sequence[Path], config: Config, seed: int = 0) -> Inputs:
    """Inputs from image files: imgs [N, 3, height, width] float32, normalised, with noise and labels from a seed.

    The official evaluation transform (preprocessing.py). Raises Problem for a file that is not an image, or a
    model without three channels.
    """
    if config.in_chans != 3:
        raise Problem(f"The model takes {config.in_chans} channels and photographs have 3; give --inputs instead.")
    pixels = np.stack([evaluation_pixels(path, config.img_size) for path in paths])
    return _with_choices(normalise(pixels), config, seed)


def random_inputs(config: Config, batch: int = 2, seed: int = 0) -> Inputs:
    """Inputs from a seed alone: normally distributed imgs [N, C, height, width] float32."""
    rng = np.random.Generator(np.random.Philox(seed))
    imgs = rng.standard_normal((batch, config.in_chans, *config.img_size), np.float32)
    return _with_choices(imgs, config, seed)


def _with_choices(imgs: NDArray[np.float32], config: Config, seed: int) -> Inputs:
    rng = np.random.Generator(np.random.Philox(seed + 1))
    if isinstance(config, ViTConfig):
        return {"imgs": imgs, "labels": rng.integers(config.num_classes, size=len(imgs), dtype=np.int64)}
    return {"imgs": imgs, "noise": rng.random((len(imgs), config.num_patches), np.float32)}


def read_inputs(path: Path, config: Config) -> Inputs:
    """An .npz file with imgs [N, C, height, width] and noise [N, L] (autoencoder) or labels [N] (classifier).

    Floating point becomes float32, labels int64. Raises Problem where something is missing or does not fit the model.
    """
    try:
        arrays = np.load(path, allow_pickle=False)
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise ValueError("it holds one array without a name")
        with arrays:
            inputs = {name: np.asarray(arrays[name]) for name in arrays.files}
    except FileNotFoundError:
        raise Problem(f"No inputs file {path}; give an .npz with imgs and noise (or labels).") from None
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as problem:
        raise Problem(f"{path} is not a readable .npz file ({problem}); write it with numpy.savez.") from None
    return check_inputs(inputs, config, str(path))


def check_inputs(inputs: Inputs, config: Config, source: str) -> Inputs:
    """Inputs in the shapes and types that the model takes. Raises Problem, which names the array that does not fit."""
    second = "labels" if isinstance(config, ViTConfig) else "noise"
    for name in ("imgs", second):
        if name not in inputs:
            raise Problem(f"{source} holds {', '.join(inputs) or 'nothing'}; this model needs imgs and {second}.")
        kinds = "iu" if name == "labels" else "fiu"
        if inputs[name].dtype.kind not in kinds:
            wanted = "whole numbers" if name == "labels" else "real numbers, best float32"
            raise Problem(f"{name} in {source} is of type {inputs[name].dtype}; it must hold {wanted}.")
    imgs = inputs["imgs"]
    expected = ("N", config.in_chans, *config.img_size)
    if imgs.ndim != 4 or imgs.shape[1:] != expected[1:] or len(imgs) == 0:
        raise Problem(
            f"imgs in {source} is {imgs.shape}; the model takes [{', '.join(map(str, expected))}]. "
            "Crop the images, or choose the model with --model img_size=..."
        )
    other = inputs[second]
    shape = (len(imgs),) if second == "labels" else (len(imgs), config.num_patches)
    if other.shape != shape:
        raise Problem(f"{second} in {source} is {other.shape}; for these images it must be {shape}.")
    imgs = _finite("imgs", imgs, source)
    if isinstance(config, ViTConfig):
        labels = other.astype(np.int64)
        if labels.min() < 0 or labels.max() >= config.num_classes:
            raise Problem(
                f"labels in {source} go from {labels.min()} to {labels.max()}; 0 to {config.num_classes - 1} fit."
            )
        return {"imgs": imgs, "labels": labels}
    return {"imgs": imgs, "noise": _finite("noise", other, source)}


def _finite(name: str, array: NDArray[Any], source: str) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # overflows are counted below
        array = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(array).all():
        raise Problem(f"{name} in {source} holds {np.count_nonzero(~np.isfinite(array))} NaN or infinite values.")
    return array
