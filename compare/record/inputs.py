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
from ..levels.choices import in_training, input_names
from ..trace import Inputs

SUM_OFF = 1e-4  # of the targets' sum from 1: what adding a thousand float32 shares may round away


def photographs(
    paths: Sequence[Path], config: Config, seed: int = 0, drop_path: float = 0.0, soft_targets: bool = False
) -> Inputs:
    """Inputs from image files: imgs [N, 3, height, width] float32, normalised, with what `random_inputs` draws beside them.

    The official evaluation transform (preprocessing.py). Raises Problem for a file that is not an image, or a
    model without three channels.
    """
    if config.in_chans != 3:
        raise Problem(f"The model takes {config.in_chans} channels and photographs have 3; give --inputs instead.")
    pixels = np.stack([evaluation_pixels(path, config.img_size) for path in paths])
    return _with_choices(normalise(pixels), config, seed, drop_path, soft_targets)


def random_inputs(
    config: Config, batch: int = 2, seed: int = 0, drop_path: float = 0.0, soft_targets: bool = False
) -> Inputs:
    """Inputs from a seed alone: normally distributed imgs [N, C, height, width] float32, with noise [N, L] or labels [N].

    drop_path: above 0, a classifier gets the factors [N, depth, 2] of this rate. soft_targets: targets [N, classes] for
    labels. Raises Problem where an autoencoder is asked for one of them.
    """
    rng = np.random.Generator(np.random.Philox(seed))
    imgs = rng.standard_normal((batch, config.in_chans, *config.img_size), np.float32)
    return _with_choices(imgs, config, seed, drop_path, soft_targets)


def _with_choices(imgs: NDArray[np.float32], config: Config, seed: int, drop_path: float, soft_targets: bool) -> Inputs:
    rng = np.random.Generator(np.random.Philox(seed + 1))
    if isinstance(config, ViTConfig):
        labels = rng.integers(config.num_classes, size=len(imgs), dtype=np.int64)
        return {"imgs": imgs} | in_training(rng, labels, config, drop_path, soft_targets)
    if drop_path or soft_targets:
        raise Problem(
            "Drop path and soft targets are of a classifier's fine-tuning, and this model is an autoencoder; leave out "
            "--drop-path and --soft-targets, or choose a classifier, as -m vit_base_patch16."
        )
    return {"imgs": imgs, "noise": rng.random((len(imgs), config.num_patches), np.float32)}


def read_inputs(path: Path, config: Config) -> Inputs:
    """An .npz file with imgs [N, C, height, width] and noise [N, L] (autoencoder) or labels [N] (classifier).

    A classifier's may hold soft targets [N, classes] in place of labels, and drop_path [N, depth, 2]. Floating point becomes
    float32, labels int64. Raises Problem where something is missing or does not fit the model.
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
    """Inputs in the shapes and types that the model takes. Raises Problem, saying what does not fit."""
    names = input_names(config, inputs)
    second = names[1]
    if second == "targets" and "labels" in inputs:
        raise Problem(f"{source} holds labels and soft targets; give one of them, for the loss is of one.")
    for name in names:
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
    for name, shape in _shapes(config, len(imgs)).items():
        if name in names and inputs[name].shape != shape:
            raise Problem(f"{name} in {source} is {inputs[name].shape}; for these images it must be {shape}.")
    imgs = _finite("imgs", imgs, source)
    if isinstance(config, ViTConfig):
        dropped = {"drop_path": _factors(inputs["drop_path"], source)} if "drop_path" in names else {}
        if second == "targets":
            return {"imgs": imgs, "targets": _distributions(other, source), **dropped}
        labels = other.astype(np.int64)
        if labels.min() < 0 or labels.max() >= config.num_classes:
            raise Problem(
                f"labels in {source} go from {labels.min()} to {labels.max()}; 0 to {config.num_classes - 1} fit."
            )
        return {"imgs": imgs, "labels": labels, **dropped}
    return {"imgs": imgs, "noise": _finite("noise", other, source)}


def _shapes(config: Config, images: int) -> dict[str, tuple[int, ...]]:
    """The shapes of everything but images."""
    if isinstance(config, ViTConfig):
        return {
            "labels": (images,),
            "targets": (images, config.num_classes),
            "drop_path": (images, config.depth, 2),
        }
    return {"noise": (images, config.num_patches)}


def _distributions(targets: NDArray[Any], source: str) -> NDArray[np.float32]:
    """Soft targets [N, classes]: none below 0, and 1 in the sum of each image, but for float32's rounding."""
    targets = _finite("targets", targets, source)
    if targets.min() < 0:
        raise Problem(f"targets in {source} go down to {targets.min():g}; each is the share of a class, 0 to 1.")
    sums = targets.sum(axis=1, dtype=np.float64)
    if (off := np.abs(sums - 1)).max() > SUM_OFF:
        worst = int(off.argmax())
        raise Problem(
            f"targets of image {worst} in {source} sum to {sums[worst]:g}, not to 1; divide each image's by their sum."
        )
    return targets


def _factors(drop_path: NDArray[Any], source: str) -> NDArray[np.float32]:
    """Factors of drop path [N, depth, 2]: in each block 0 and one other value, 1/keep, which is at least 1."""
    drop_path = _finite("drop_path", drop_path, source)
    for i in range(drop_path.shape[1]):
        values = np.unique(drop_path[:, i])
        kept = values[values != 0]
        if len(kept) > 1 or (kept < 1).any():
            raise Problem(
                f"drop_path of block {i} in {source} holds {', '.join(f'{value:g}' for value in values[:5])}; each must be 0 "
                "(the branch is dropped) or the block's 1/keep, one value of at least 1: timm's mask divided by keep."
            )
    return drop_path


def _finite(name: str, array: NDArray[Any], source: str) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # overflows are counted below
        array = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(array).all():
        raise Problem(f"{name} in {source} holds {np.count_nonzero(~np.isfinite(array))} NaN or infinite values.")
    return array
