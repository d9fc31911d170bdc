"""Reconstructions to be looked at: fixed images under fixed masks, as a grid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..backends.runtime import Runtime
from ..data.batches import Batches
from ..data.draws import mask_noise

if TYPE_CHECKING:
    from PIL import Image

_GAP = 2  # pixels between two panels
_GREY = 0.5  # of removed patches
_SIDE = 112  # pixels that a panel has at least: smaller images are enlarged


def reconstruction_grid(runtime: Runtime, model: Any, batches: Batches, mask_ratio: float, count: int) -> Image.Image:
    """A row for each image: it, what the encoder saw, the reconstruction, and that with the seen patches put in.

    The images are the first of the data set's own order and the masks those of seed 0: the same in every run.
    """
    from PIL import Image

    augmentation = batches.augmentation
    count = min(count, len(batches.dataset))
    imgs = Batches(batches.dataset, augmentation.plain, count, 0, shuffle=False).batch(0)["imgs"]
    noise = np.stack([mask_noise(0, 0, place, model.config.num_patches) for place in range(count)])
    panels = reconstructed(runtime, model, imgs, noise, mask_ratio)
    mean, std = (np.array(each)[:, None, None] for each in (augmentation.mean, augmentation.std))
    shown = [np.clip(panel * std + mean, 0, 1) for panel in panels]
    removed = np.broadcast_to(panels[4], shown[0].shape) > 0.5
    shown[1] = np.where(removed, _GREY, shown[0])
    rows = [[panel[place] for panel in shown[:4]] for place in range(count)]
    grid = _tiled(rows)
    pixels = np.rint(255 * grid).astype(np.uint8)
    image = Image.fromarray(pixels if pixels.shape[2] == 3 else np.repeat(pixels[:, :, :1], 3, axis=2))
    times = max(1, _SIDE // min(imgs.shape[2:]))
    return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)


def reconstructed(
    runtime: Runtime, model: Any, imgs: NDArray[np.float32], noise: NDArray[np.float32], mask_ratio: float
) -> list[NDArray[Any]]:
    """Images, images, reconstruction, reconstruction with the seen patches, and mask, each [n, C or 1, height, width].

    Where the loss is of normalised patches, the reconstruction has the mean and variance of the true ones.
    """
    tensors = runtime.tensors(model, {"imgs": imgs, "noise": noise})
    with runtime.no_grad():
        _, pred, mask = model(tensors["imgs"], tensors["noise"], mask_ratio)
        target = runtime.to_numpy(model.patchify(tensors["imgs"])).astype(np.float32)
        pred, mask = (runtime.to_numpy(tensor).astype(np.float32) for tensor in (pred, mask))
        if model.config.norm_pix_loss:
            pred = pred * np.sqrt(target.var(axis=-1, ddof=1, keepdims=True) + 1e-6) + target.mean(
                axis=-1, keepdims=True
            )
        whole = [pred, np.where(mask[:, :, None] > 0.5, pred, target), np.broadcast_to(mask[:, :, None], pred.shape)]
        found = [runtime.to_numpy(model.unpatchify(runtime.from_numpy(np.ascontiguousarray(x), model))) for x in whole]
    return [imgs, imgs, found[0], found[1], found[2][:, :1]]


def _tiled(rows: list[list[NDArray[Any]]]) -> NDArray[Any]:
    """Panels [C, height, width] beside and below each other, as [height, width, C]."""
    channels, height, width = rows[0][0].shape
    whole = np.ones((len(rows) * (height + _GAP) - _GAP, len(rows[0]) * (width + _GAP) - _GAP, channels))
    for i, row in enumerate(rows):
        for j, panel in enumerate(row):
            top, left = i * (height + _GAP), j * (width + _GAP)
            whole[top : top + height, left : left + width] = panel.transpose(1, 2, 0)
    return whole
