"""Checks of the batches: their order, their images, the arithmetic on their pixels and their masks' noise."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.dataset import Dataset
from ...data.images import BrokenImage
from ...files.errors import Problem
from ...training.recipe import Recipe
from ..limits.metrics import U
from . import law
from .jobs import STEPS, WORKERS
from .result import Check

Arrays = Mapping[str, NDArray[Any]]
ANOTHER = 1e-3  # rms distance, in deviations of the pixels, of an image that is a multiple of no right one
MIXED_UP = 8.0  # roundings of float32 that a standardised value has at most


@dataclass
class Expected:
    """The first batches as they must be. places: images of each that are looked at."""

    recipe: Recipe
    dataset: Dataset
    places: int
    _orders: dict[int, NDArray[np.int64]] = field(default_factory=dict)

    @property
    def per_epoch(self) -> int:
        """Whole batches of an epoch."""
        return len(self.dataset) // self.recipe.batch.batch_size

    def place(self, step: int, row: int) -> tuple[int, int]:
        """The epoch of an image, and its place there."""
        epoch, position = divmod(step, self.per_epoch)
        return epoch, position * self.recipe.batch.batch_size + row

    def index(self, step: int, row: int) -> int:
        """Which image it is."""
        epoch, place = self.place(step, row)
        return int(self.order(epoch)[place])

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Which image has which place of an epoch: int64 [images]; drawn once."""
        if epoch not in self._orders:
            self._orders[epoch] = law.order(self.recipe.seed, epoch, len(self.dataset))
        return self._orders[epoch]

    @cached_property
    def pixels(self) -> NDArray[np.uint8]:
        """uint8 [STEPS, places, height, width, C]. Raises Problem for an image that cannot be prepared."""
        return np.stack([
            np.stack([self._mixed(step, row) for row in range(self.places)]) for step in range(STEPS)
        ])  # fmt: skip

    def _mixed(self, step: int, row: int) -> NDArray[np.uint8]:
        pixels = self._pixels(step, row)
        if self.recipe.cutmix:
            part = law.cut(self.recipe, *divmod(step, self.per_epoch), *pixels.shape[:2])
            pixels = pixels.copy()
            pixels[part] = self._pixels(step, self.recipe.batch.batch_size - 1 - row)[part]
        return pixels

    def _pixels(self, step: int, row: int) -> NDArray[np.uint8]:
        augmentation, count = self.recipe.augmentation, len(self.dataset)
        first = self.index(step, row)
        for offset in range(count):
            try:
                image = self.dataset.image((first + offset) % count, augmentation.channels, augmentation.upright)
            except BrokenImage:
                if not self.recipe.data.skip_broken:
                    raise
                continue
            return augmentation.pixels(image, self.recipe.seed, *self.place(step, row))
        raise Problem(f"None of the {count} images of {self.dataset.path} can be decoded.")

    @cached_property
    def imgs(self) -> NDArray[np.float64]:
        """[STEPS, places, C, height, width]."""
        return law.standardised(self.pixels, self.recipe)

    @cached_property
    def noise(self) -> NDArray[np.float32]:
        """[STEPS, places, L]."""
        L = self.recipe.config.num_patches
        return np.stack([
            np.stack([law.noise(self.recipe.seed, *self.place(step, row), L) for row in range(self.places)])
            for step in range(STEPS)
        ])  # fmt: skip


def first_batches(arrays: Arrays, name: str, workers: int = WORKERS[0]) -> NDArray[Any]:
    """One array of the batches that a loader gave: [STEPS, places, ...]."""
    return np.stack([arrays[f"{workers}/{step}/{name}"] for step in range(STEPS)])


def check_batches(arrays: Arrays, expected: Expected) -> Check:
    """Every image once in an epoch, in the order of the seed; the same bytes by any loader; and these images."""
    count, size = len(expected.dataset), expected.recipe.batch.batch_size
    digest = hashlib.sha256()
    for name in ("imgs", "noise"):
        one, other = (np.ascontiguousarray(first_batches(arrays, name, workers)) for workers in WORKERS)
        if one.tobytes() != other.tobytes():
            step = [a.tobytes() == b.tobytes() for a, b in zip(one, other)].index(False)
            return _failed("batches", f"the {name} of step {step} are others with {WORKERS[1]} workers than with none")
        digest.update(one.tobytes())
    for epoch in (0, 1):
        order = arrays[f"order/{epoch}"]
        times = np.bincount(order, minlength=count)
        if order.size != expected.per_epoch * size or times.max() > 1:
            repeated = f"image {int(times.argmax())} comes {times.max()} times among {order.size}"
            return _failed("batches", f"epoch {epoch} is no order of the {count} images: {repeated}")
        if not np.array_equal(order, expected.order(epoch)[: order.size]):
            return _failed("batches", f"the order of epoch {epoch} is not that of the seed {expected.recipe.seed}")
    imgs = first_batches(arrays, "imgs")
    right = _is_right_image(imgs, expected.pixels)
    if not right.all():
        step, row = map(int, np.argwhere(~right)[0])
        reason = f"place {row} of step {step} does not hold {expected.dataset.name(expected.index(step, row))}"
        same = np.argwhere((imgs[:step] == imgs[step, row]).all((-1, -2, -3)))
        repeated = f"; it repeats place {same[0][1]} of step {same[0][0]}" if len(same) else ""
        return _failed("batches", reason + repeated)
    figures = {"digest": digest.hexdigest(), "images": count, "steps_per_epoch": expected.per_epoch}
    return Check(
        "batches", "passed",
        f"digest {digest.hexdigest()[:16]} of {STEPS} x {expected.places} images with 0 and {WORKERS[1]} workers; each of "
        f"{count} images at most once an epoch, in the seed's order",
        figures,
    )  # fmt: skip


def _is_right_image(imgs: NDArray[Any], pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether each image is a line through its pixels, whatever mean and deviation: [STEPS, places]."""
    x = np.moveaxis(pixels, -1, -3).reshape(*pixels.shape[:2], pixels.shape[-1], -1).astype(np.float64)
    y = imgs.reshape(x.shape).astype(np.float64)
    x, y = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    xx, xy = (x * x).sum(-1, keepdims=True), (x * y).sum(-1, keepdims=True)
    left = y - x * np.divide(xy, xx, out=np.zeros_like(xy), where=xx > 0)
    right: NDArray[np.bool_] = (np.sqrt((left**2).mean(-1)) < ANOTHER).all(-1)
    return right


def check_normalisation(arrays: Arrays, expected: Expected) -> Check:
    """Every value against (p / 255 - mean) / deviation in float64."""
    imgs, pixels, recipe = first_batches(arrays, "imgs"), expected.pixels, expected.recipe
    right = _is_right_image(imgs, pixels)
    if not right.any():
        return Check("normalisation", "could not run", "no image that came is the one that was expected (batches)")
    mean, deviation = law.mean_and_deviation(recipe, pixels.shape[-1])
    wanted = expected.imgs[right]
    # Each of the three operations rounds once, the difference relative to what it is taken from.
    room = MIXED_UP * U * (np.abs(wanted) + ((1 + np.abs(mean)) / deviation)[:, None, None])
    off = np.abs(imgs[right] - wanted)
    ratio = float((off / room).max())
    words = f"({_listed(mean)}; {_listed(deviation)})"
    figures = {"largest_error": float(off.max()), "mean": mean.tolist(), "std": deviation.tolist()}
    if ratio <= 1:
        return Check(
            "normalisation", "passed",
            f"{off.size:,} values at most {off.max():.1g} from (p / 255 - mean) / std in float64, {words}", figures,
        )  # fmt: skip
    fitted = _fitted(imgs[right], pixels[right])
    return _failed(
        "normalisation",
        f"values are up to {off.max():.3g} from (p / 255 - mean) / std with the recipe's mean and std {words}; they fit "
        f"({_listed(fitted[0])}; {_listed(fitted[1])})",
        figures | {"fitted_mean": fitted[0].tolist(), "fitted_std": fitted[1].tolist()},
    )


def _fitted(imgs: NDArray[Any], pixels: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The mean and deviation of each channel with which the values were made."""
    statistics = []
    for channel in range(pixels.shape[-1]):
        x, y = pixels[..., channel].ravel() / 255.0, imgs[:, channel].ravel().astype(np.float64)
        slope, start = np.polyfit(x, y, 1) if np.ptp(x) else (1.0, 0.0)
        statistics.append((-start / slope if slope else np.inf, 1 / slope if slope else np.inf))
    return np.array([each[0] for each in statistics]), np.array([each[1] for each in statistics])


def _listed(values: NDArray[Any]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def wrong_noise(arrays: Arrays, expected: Expected) -> str:
    """Which noise is not the seed's, as a sentence; "" where all is."""
    noise = first_batches(arrays, "noise")
    wrong = (noise != expected.noise).any(-1)
    if not wrong.any():
        return ""
    step, row = map(int, np.argwhere(wrong)[0])
    return (
        f"the masking noise at place {row} of step {step} is not what the seed {expected.recipe.seed} gives there "
        f"({int(wrong.sum())} of {wrong.size} differ): it comes from another generator, or from another place"
    )


def _failed(name: str, reason: str, figures: Mapping[str, Any] | None = None) -> Check:
    return Check(name, "failed", reason, figures or {})
