"""What a masked autoencoder paints, in any framework: of images the masked picture, the reconstruction, and both put together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..backends.config import MAEConfig, keep_length
from ..backends.runtime import Runtime
from ..data.augment import Augmentation
from ..data.draws import mask_noise
from ..files.atomic import replacing
from ..files.errors import Problem
from .given import Images, distinct, images_of, made_of
from .measured import Asked, Ready, asked_of, ready

if TYPE_CHECKING:
    from PIL import Image

Pixels = NDArray[np.uint8]
_GAP = 2  # pixels between two panels
_GREY = 128  # of removed patches
_SIDE = 112  # pixels that a panel has at least: smaller images are enlarged
_PANELS = ("original", "masked", "reconstruction", "pasted")
_MASK = "mask.npy"


def _nothing() -> Any:
    return np.empty((0, 0, 3), np.uint8)


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """What was painted of an image. image: its path as it was given, or below the folder that was.

    original, masked (removed patches grey), reconstruction, pasted (the reconstruction with the seen patches in it): uint8
    [height, width, C], as the model sees the image. mask: bool [rows, columns] of patches, True where one was removed.
    problem: why it could not be decoded, and then it has no pixels; "" else.
    """

    image: str
    original: Pixels = field(default_factory=_nothing, repr=False)
    masked: Pixels = field(default_factory=_nothing, repr=False)
    reconstruction: Pixels = field(default_factory=_nothing, repr=False)
    pasted: Pixels = field(default_factory=_nothing, repr=False)
    mask: NDArray[np.bool_] = field(default_factory=lambda: np.empty((0, 0), bool), repr=False)
    problem: str = ""

    @property
    def panels(self) -> tuple[Pixels, ...]:
        """The four pictures, in the order above."""
        return self.original, self.masked, self.reconstruction, self.pasted


@dataclass(frozen=True)
class Reconstructing:
    """A reconstruction to be made.

    asked: the model, to be loaded or loaded. images: files, folders, patterns, and images in memory (given.py). mask_ratio:
    the share of the patches that is removed; None: as in the model's training. seed: of the masks; an image's mask is that of
    the seed and its place among the images.
    """

    asked: Asked | Ready
    images: Any
    mask_ratio: float | None = None
    seed: int = 0
    batch_size: int = 64
    workers: int = 2


def reconstruct(framework: str, images: Any, weights: str | Path, **options: Any) -> list[Reconstruction]:
    """Reconstructions of images by the checkpoint of an autoencoder.

    options: those of Asked and Reconstructing. Raises Problem for anything that a person can mend; an image that cannot be
    decoded is none of these: its reconstruction says what is wrong with it.
    """
    asked = asked_of(framework, weights, options)
    return list(reconstructions(Reconstructing(asked, images, **options))[1])


def reconstructions(reconstructing: Reconstructing) -> tuple[int, Iterator[Reconstruction]]:
    """How many images there are, and the reconstruction of each in order, made as they are asked for. Raises as reconstruct."""
    images = images_of(reconstructing.images)
    model = ready(reconstructing.asked)
    config = model.config
    if not isinstance(config, MAEConfig) or model.encoder_only:
        held = "an encoder without its decoder" if isinstance(config, MAEConfig) else "a classifier"
        raise Problem(
            f"{model.origin} holds {held} ({model.name}), which paints nothing; give an autoencoder's file: one that "
            "`polymae inspect` calls encoder and decoder.",
            code="does-not-fit",
        )
    ratio = model.mask_ratio if reconstructing.mask_ratio is None else reconstructing.mask_ratio
    keep_length(config.num_patches, ratio)  # refuses one that keeps nothing, before anything is decoded
    return len(images), _made(reconstructing, model, images, ratio)


def _made(asked: Reconstructing, model: Ready, images: Images, ratio: float) -> Iterator[Reconstruction]:
    def made(imgs: NDArray[np.float32], places: list[int]) -> Iterator[Reconstruction]:
        patches = model.config.num_patches
        noise = np.stack([mask_noise(asked.seed, 0, place, patches) for place in places])
        names = [images.name(place) for place in places]
        yield from painted(model.runtime, model.model, model.augmentation, imgs, noise, ratio, names)

    def broken(name: str, problem: str) -> Reconstruction:
        return Reconstruction(name, problem=problem)

    return made_of(images, model.augmentation, asked.batch_size, asked.workers, made, broken)


def painted(
    runtime: Runtime,
    model: Any,
    augmentation: Augmentation,
    imgs: NDArray[np.float32],
    noise: NDArray[np.float32],
    mask_ratio: float,
    names: Sequence[str],
) -> list[Reconstruction]:
    """Reconstructions of images float32 [n, C, height, width], as augmentation standardised them, under noise [n, L].

    Where the loss is of normalised patches, the reconstruction has the mean and variance of the true ones. Values beyond
    black and white are cut off.
    """
    tensors = runtime.tensors(model, {"imgs": imgs, "noise": noise})
    with runtime.no_grad():
        _, pred, mask = model(tensors["imgs"], tensors["noise"], mask_ratio)
        target = runtime.to_numpy(model.patchify(tensors["imgs"])).astype(np.float32)
        pred, mask = (runtime.to_numpy(tensor).astype(np.float32) for tensor in (pred, mask))
        removed = mask > 0.5  # [n, L]
        if model.config.norm_pix_loss:
            deviation = np.sqrt(target.var(axis=-1, ddof=1, keepdims=True) + 1e-6)
            pred = pred * deviation + target.mean(axis=-1, keepdims=True)
        whole = runtime.from_numpy(np.ascontiguousarray(pred), model)
        reconstruction = _pixels(runtime.to_numpy(model.unpatchify(whole)), augmentation)
    original = _pixels(imgs, augmentation)
    (rows, columns), side = model.config.grid, model.config.patch_size
    masks = removed.reshape(-1, rows, columns)
    hidden = masks.repeat(side, axis=1).repeat(side, axis=2)[..., None]  # [n, height, width, 1]
    masked = np.where(hidden, np.uint8(_GREY), original)
    pasted = np.where(hidden, reconstruction, original)
    return [Reconstruction(*each) for each in zip(names, original, masked, reconstruction, pasted, masks)]


def _pixels(imgs: NDArray[Any], augmentation: Augmentation) -> Pixels:
    """Standardised images [n, C, height, width] as they are looked at: uint8 [n, height, width, C]."""
    mean, std = (np.array(each)[:, None, None] for each in (augmentation.mean, augmentation.std))
    shown = np.rint(255 * np.clip(imgs * std + mean, 0, 1)).astype(np.uint8)
    return np.ascontiguousarray(shown.transpose(0, 2, 3, 1))


def grid(made: Sequence[Reconstruction]) -> Image.Image:
    """A row for each: the image, what the encoder saw, the reconstruction, and that with the seen patches put in."""
    from PIL import Image

    height, width, channels = made[0].original.shape
    whole = np.full((len(made) * (height + _GAP) - _GAP, len(_PANELS) * (width + _GAP) - _GAP, channels), 255, np.uint8)
    for i, one in enumerate(made):
        for j, panel in enumerate(one.panels):
            top, left = i * (height + _GAP), j * (width + _GAP)
            whole[top : top + height, left : left + width] = panel
    times = max(1, _SIDE // min(height, width))
    image = _image(whole)
    return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)


def save(made: Sequence[Reconstruction], folder: Path) -> list[Path]:
    """Write FOLDER/<image>.png, the four panels, and FOLDER/<image>/ with each as a file and mask.npy; returns the former.

    Names are told apart (given.distinct). An image that could not be decoded has no file. Each file and folder is put in
    place complete. Raises Problem for a folder of such a name that holds anything else, before anything is written.
    """
    painted_ones = [one for one in made if not one.problem]
    named = dict(zip(distinct([one.image for one in painted_ones]), painted_ones))
    ours = {_MASK, *(f"{panel}.png" for panel in _PANELS)}
    for name in named:
        place = folder / name
        if place.exists() and (not place.is_dir() or {one.name for one in place.iterdir()} - ours):
            raise Problem(
                f"{place} is there, and is no reconstruction's folder; name another folder to save in. Nothing was written.",
                code="cannot-write",
            )
    written = []
    for name, one in named.items():
        path = folder / f"{name}.png"
        with replacing(folder / name) as new:
            new.mkdir(parents=True)
            for panel, pixels in zip(_PANELS, one.panels):
                _image(pixels).save(new / f"{panel}.png")
            np.save(new / _MASK, one.mask)
        with replacing(path) as new:
            grid([one]).save(new, "PNG")
        written.append(path)
    return written


def _image(pixels: Pixels) -> Image.Image:
    """uint8 [height, width, C] as an image; of other than three channels the first, in grey."""
    from PIL import Image

    return Image.fromarray(pixels if pixels.shape[2] == 3 else np.ascontiguousarray(pixels[..., 0]))
