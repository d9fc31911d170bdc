"""What a classifier is given in fine-tuning beside images: soft targets and the factors of drop path, drawn in NumPy.

Not by data/: a fault there is seen there, and not here again.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from ...backends.config import Config, MAEConfig, ViTConfig
from ..trace import Inputs

SMOOTHING = 0.1  # of the label that each part of a soft target is of


def input_names(config: Config, given: Collection[str] = ()) -> tuple[str, ...]:
    """The inputs of a model's run, in their order: given are those that a run has, of which a classifier's may differ."""
    if isinstance(config, MAEConfig):
        return "imgs", "noise"
    dropped = ("drop_path",) if "drop_path" in given else ()
    return "imgs", "targets" if "targets" in given else "labels", *dropped


def in_training(
    rng: np.random.Generator, labels: NDArray[np.int64], config: ViTConfig, drop_path: float, soft: bool
) -> Inputs:
    """labels [N] int64, or soft targets of them [N, classes] float32, and drop_path [N, depth, 2] float32 for a rate above 0."""
    inputs: Inputs = {"labels": labels}
    if soft:
        inputs = {"targets": soft_targets(rng, labels, config.num_classes)}
    if drop_path:
        inputs["drop_path"] = drop_path_factors(rng, len(labels), config.depth, drop_path)
    return inputs


def soft_targets(rng: np.random.Generator, labels: NDArray[np.int64], classes: int) -> NDArray[np.float32]:
    """Labels [N] as mixup leaves them [N, classes] float32: each and that of its partner in random parts, both smoothed."""
    smooth = np.full((len(labels), classes), SMOOTHING / classes)
    smooth[np.arange(len(labels)), labels] += 1 - SMOOTHING
    part = rng.random((len(labels), 1))
    mixed: NDArray[np.float32] = (part * smooth + (1 - part) * smooth[::-1]).astype(np.float32)
    return mixed


def drop_path_factors(rng: np.random.Generator, images: int, depth: int, rate: float) -> NDArray[np.float32]:
    """Factors [N, depth, 2] float32 of each image's branches, attention and MLP: 0 for a dropped one, 1/keep for the others.

    The rate of a block rises from 0 in the first to `rate` in the last (timm's DropPath, of arXiv:1603.09382).
    """
    keep = 1 - np.linspace(0, rate, depth)[:, None]  # [depth, 1]
    return np.where(rng.random((images, depth, 2)) < keep, 1 / keep, 0).astype(np.float32)
