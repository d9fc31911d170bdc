"""Reconstructions to be looked at while a run goes on: fixed images under fixed masks, as a grid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..backends.runtime import Runtime
from ..data.batches import Batches
from ..data.draws import mask_noise
from .reconstruct import grid, painted

if TYPE_CHECKING:
    from PIL import Image


def reconstruction_grid(runtime: Runtime, model: Any, batches: Batches, mask_ratio: float, count: int) -> Image.Image:
    """A row for each image: it, what the encoder saw, the reconstruction, and that with the seen patches put in.

    The images are the first of the data set's own order and the masks those of seed 0: the same in every run.
    """
    augmentation = batches.augmentation
    count = min(count, len(batches.dataset))
    imgs = Batches(batches.dataset, augmentation.plain, count, 0, shuffle=False).batch(0)["imgs"]
    noise = np.stack([mask_noise(0, 0, place, model.config.num_patches) for place in range(count)])
    names = [batches.dataset.name(place) for place in range(count)]
    return grid(painted(runtime, model, augmentation, imgs, noise, mask_ratio, names)).convert("RGB")
