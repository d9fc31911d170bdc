"""What is done to an image before the model sees it, with everything random drawn by place (data/draws.py).

The law of the crops is that of torchvision's RandomResizedCrop, which the official pre-training uses and timm's follows; pixels
are Pillow's. Order: crop, flip, RandAugment, standardising, random erasing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..files.errors import Problem
from .draws import generator
from .erasing import erase
from .images import MEAN, STD, centre_crop, normalise_into, resize, resized_sides
from .randaugment import Canvas, augmented, fill_colour, policy

if TYPE_CHECKING:
    from PIL import Image

Crop = Literal["random_resized", "first_box", "centre", "shift", "none"]
CROPS = get_args(Crop)
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
_TRIES = 10  # boxes that are drawn before the middle is taken


@dataclass(frozen=True)
class Augmentation:
    """From a decoded image to the model's input. The defaults are the official pre-training's.

    input_size: a side, or height and width, in pixels.
    crop: "random_resized" (a box of random area and shape, resized), "first_box" (the official probe's: the same, but of a box
        that does not fit the sides are cut off, and no other is drawn), "centre" (the official evaluation's: the shorter side is
        resized to 256/224 of the input, or above 224 to the input's, then the middle cropped), "shift" (the whole image,
        resized where it has another size, moved by up to `shift` pixels each way over black), "none" (images that have the
        input's size).
    scale, ratio: least and largest share of the area, and width by height, of a random box.
    crop_ratio: of "centre", the share of the resized image that is kept along each side; None: the official evaluation's.
    flip: the probability that left and right are exchanged.
    auto_augment: RandAugment's policy, such as "rand-m9-mstd0.5-inc1" (data/randaugment.py).
    erase: the probability that boxes become noise (data/erasing.py). erase_count: boxes at most.
    mean, std: of each channel, of values in [0, 1].
    channels: 3 (RGB) or 1 (grey). upright: apply EXIF rotations, which the official code does not.
    """

    input_size: int | tuple[int, int] = 224
    crop: Crop = "random_resized"
    scale: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bicubic"
    shift: int = 2
    crop_ratio: float | None = None
    flip: float = 0.5
    auto_augment: str | None = None
    erase: float = 0.0
    erase_count: int = 1
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    channels: int = 3
    upright: bool = False

    def __post_init__(self) -> None:
        """Raises Problem for values that no image could be prepared with."""
        for words, wrong in _mistakes(self).items():
            if wrong:
                raise Problem(f"The augmentation's {words}.")
        if self.auto_augment is not None:
            policy(self.auto_augment)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the model's input."""
        side = self.input_size
        return (side, side) if isinstance(side, int) else (side[0], side[1])

    @property
    def plain(self) -> Augmentation:
        """The same with nothing random in it, for images that are looked at or classified."""
        crop: Literal["centre", "none"] = "none" if self.crop == "none" else "centre"
        return replace(self, crop=crop, flip=0.0, auto_augment=None, erase=0.0)

    def pixels(self, image: Image.Image, seed: int, epoch: int, index: int) -> NDArray[np.uint8]:
        """The image at a place of an epoch: uint8 [height, width, C]. image: of mode RGB or L, as `channels` says.

        Raises Problem for an image of another size where nothing is cropped.
        """
        array = np.asarray(self._cropped(image, seed, epoch, index))
        array = array.reshape(*self.size, self.channels)
        if self.flip and generator(seed, "flip", epoch, index).random() < self.flip:
            array = array[:, ::-1]
        return array if self.auto_augment is None else self._varied(array, self.auto_augment, seed, epoch, index)

    def __call__(self, image: Image.Image, seed: int, epoch: int, index: int) -> NDArray[np.float32]:
        """The same, standardised: float32 [C, height, width]."""
        imgs = np.empty((self.channels, *self.size), np.float32)
        self.into(imgs, image, seed, epoch, index)
        return imgs

    def into(self, imgs: NDArray[np.float32], image: Image.Image, seed: int, epoch: int, index: int) -> None:
        """The same into an array float32 [C, height, width], such as a row of a batch."""
        normalise_into(imgs, self.pixels(image, seed, epoch, index), self.mean, self.std)
        if self.erase:
            erase(imgs, generator(seed, "erase", epoch, index), self.erase, self.erase_count)

    def _varied(self, array: NDArray[np.uint8], text: str, seed: int, epoch: int, index: int) -> NDArray[np.uint8]:
        """Pixels uint8 [height, width, C] after RandAugment."""
        from PIL import Image

        operations = policy(text).drawn(generator(seed, "augment", epoch, index))
        if not operations:
            return array
        image = Image.fromarray(np.ascontiguousarray(array if self.channels > 1 else array[..., 0]))
        canvas = Canvas(fill_colour(self.mean), Image.Resampling[self.interpolation.upper()])
        return np.asarray(augmented(image, operations, canvas)).reshape(array.shape)

    def _cropped(self, image: Image.Image, seed: int, epoch: int, index: int) -> Image.Image:
        if self.crop in ("random_resized", "first_box"):
            drawn, box = generator(seed, "crop", epoch, index), _BOXES[self.crop]
            top, left, height, width = box(drawn, image.height, image.width, self.scale, self.ratio)
            return self._resized(image.crop((left, top, left + width, top + height)))
        if self.crop == "centre":
            sides = resized_sides((image.height, image.width), self.size, self.crop_ratio)
            return centre_crop(resize(image, sides, self.interpolation), self.size)
        if self.crop == "shift":
            down, right = random_shift(generator(seed, "crop", epoch, index), self.shift)
            height, width = self.size
            return self._resized(image).crop((-right, -down, width - right, height - down))  # outside is black
        if (image.height, image.width) != self.size:
            raise Problem(
                f"An image of {image.width} x {image.height} pixels was given, and the model takes {self.size[1]} x "
                f'{self.size[0]}; crop "none" crops and resizes nothing. Choose another: random_resized, centre or shift.'
            )
        return image

    def _resized(self, image: Image.Image) -> Image.Image:
        return image if (image.height, image.width) == self.size else resize(image, self.size, self.interpolation)


def random_resized_crop_box(
    drawn: np.random.Generator,
    height: int,
    width: int,
    scale: Sequence[float] = (0.2, 1.0),
    ratio: Sequence[float] = (3 / 4, 4 / 3),
) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random box within an image, by the law of torchvision's RandomResizedCrop.

    The area's share is uniform in `scale`, the logarithm of width by height uniform in that of `ratio`; the first of ten
    boxes that fits is put anywhere with equal probability. Where none fits: the largest box in the middle whose shape is
    within `ratio`.
    """
    for share, shape, down, right in drawn.random((_TRIES, 4)).tolist():
        rows, columns = _sides(share, shape, height * width, scale, ratio)
        if 0 < rows <= height and 0 < columns <= width:
            return int(down * (height - rows + 1)), int(right * (width - columns + 1)), rows, columns
    rows, columns = height, width
    if width < height * min(ratio):
        rows = round(width / min(ratio))
    elif width > height * max(ratio):
        columns = round(height * max(ratio))
    return (height - rows) // 2, (width - columns) // 2, rows, columns


def first_box(
    drawn: np.random.Generator, height: int, width: int, scale: Sequence[float], ratio: Sequence[float]
) -> tuple[int, int, int, int]:
    """The same by the law of the official probe's util/crop.py, which draws one box and cuts off sides longer than the image's.

    From the same draws it is random_resized_crop_box's first try.
    """
    share, shape, down, right = drawn.random(4).tolist()
    sides = zip(_sides(share, shape, height * width, scale, ratio), (height, width))
    rows, columns = (max(1, min(side, whole)) for side, whole in sides)  # of 0 pixels upstream's would end in an error
    return int(down * (height - rows + 1)), int(right * (width - columns + 1)), rows, columns


def _sides(share: float, shape: float, area: int, scale: Sequence[float], ratio: Sequence[float]) -> tuple[int, int]:
    """Height and width of a box in an image of so many pixels, from two doubles in [0, 1)."""
    narrowest, widest = (math.log(side) for side in ratio)
    pixels = area * (scale[0] + share * (scale[1] - scale[0]))
    aspect = math.exp(narrowest + shape * (widest - narrowest))
    return round(math.sqrt(pixels / aspect)), round(math.sqrt(pixels * aspect))


def random_shift(drawn: np.random.Generator, most: int) -> tuple[int, int]:
    """Pixels down and to the right, each uniform from -most to most."""
    down, right = drawn.random(2).tolist()
    return int(down * (2 * most + 1)) - most, int(right * (2 * most + 1)) - most


_BOXES = {"random_resized": random_resized_crop_box, "first_box": first_box}


def _mistakes(given: Augmentation) -> dict[str, bool]:
    """What may be wrong with the settings, in words, and whether it is."""
    low, high = given.scale
    narrow, wide = given.ratio
    return {
        f"crop is {given.crop!r}; it must be one of {', '.join(CROPS)}": given.crop not in CROPS,
        f"interpolation is {given.interpolation!r}; it must be one of {', '.join(INTERPOLATIONS)}": (
            given.interpolation not in INTERPOLATIONS
        ),
        f"input_size is {given.input_size}; it must be a side, or height and width, of 1 pixel at least": (
            min(given.size) < 1
        ),
        f"channels is {given.channels}; images have 3 (RGB) or 1 (grey)": given.channels not in (1, 3),
        f"scale is {given.scale}; it must go from more than 0 to at most 1": not 0 < low <= high <= 1,
        f"ratio is {given.ratio}; it must go from a width by height of more than 0 to a larger one": (
            not 0 < narrow <= wide < math.inf
        ),
        f"crop_ratio is {given.crop_ratio}; it is a share of the resized image's sides, more than 0 and at most 1": (
            given.crop_ratio is not None and not 0 < given.crop_ratio <= 1
        ),
        f"erase is {given.erase}; it is a probability, from 0 to 1": not 0 <= given.erase <= 1,
        f"erase_count is {given.erase_count}; an image has 1 box at least that may be erased": given.erase_count < 1,
        "interpolation is lanczos, which RandAugment cannot turn images by; give bicubic, or no auto_augment": (
            given.interpolation == "lanczos" and given.auto_augment is not None
        ),
        f"flip is {given.flip}; it is a probability, from 0 to 1": not 0 <= given.flip <= 1,
        f"shift is {given.shift}; it must be 0 pixels or more, and less than the input's side": (
            not 0 <= given.shift < min(given.size)
        ),
        f"mean {given.mean} and std {given.std} must hold a number for each of {given.channels} channels, std above 0": (
            not len(given.mean) == len(given.std) == given.channels or min(given.std) <= 0
        ),
    }
