"""From the image file to the model's input: the official evaluation transform, step by step.

Resize (bicubic, shorter side), CenterCrop, ToTensor, Normalize of torchvision, in Pillow and NumPy: the same bits.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..files.errors import Problem

if TYPE_CHECKING:
    from PIL import Image

# ImageNet statistics, as in the official transforms.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
# What Pillow may open: of its other formats some start a program (EPS) or are no pictures.
FORMATS = ("JPEG", "JPEG2000", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM")
# What Pillow raises for a damaged file; beside its own, what its readers of formats stumble over.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError, struct.error)
# Of a resized image: a line of one pixel by thousands would become gigabytes.
_MOST_PIXELS = 2**26


class BrokenImage(Problem):
    """An image of a data set that cannot be decoded. The message begins with its name."""


def demo_photographs() -> list[Path]:
    """The photographs that come with the package (demo/photos). Raises Problem where they are missing."""
    folder = Path(__file__).resolve().parents[1] / "demo" / "photos"
    photographs = sorted(folder.glob("*.jpg"))
    if not photographs:
        raise Problem(f"This installation holds no photographs ({folder}); give your own with --images.")
    return photographs


def evaluation_pixels(path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    """An image file, resized and cropped to size (height, width): uint8 [height, width, 3].

    Raises Problem for a file that is not an image, or whose values or sides do not fit.
    """
    image = decode(path)
    sides = resized_sides((image.height, image.width), size)
    if sides[0] * sides[1] > _MOST_PIXELS:
        raise Problem(
            f"{path} is {image.width} x {image.height} pixels, which to cover {size[1]} x {size[0]} would have to be "
            f"resized to {sides[1]} x {sides[0]}; crop it first."
        )
    return np.array(centre_crop(resize(image, sides), size))


def decode(path: Path) -> Image.Image:
    """An image file in RGB, as torchvision's ImageFolder reads it: alpha is dropped, an EXIF rotation not applied.

    Raises Problem for a file that is not an image, or holds more than 8 bits in its one channel.
    """
    from PIL import Image

    try:
        with Image.open(path, formats=FORMATS) as image:
            mode = image.mode
            if mode.startswith(("I", "F")):  # RGB would cut every value at 255
                raise Problem(f"{path} holds values of more than 8 bits (mode {mode}); save it with 8 bits.")
            return image.convert("RGB")
    except IsADirectoryError:
        raise Problem(f"{path} is a folder; give the images in it, as in {path}/*.jpg.") from None
    except FileNotFoundError:
        raise Problem(f"No image {path}; give a JPEG or PNG file.") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as problem:
        raise Problem(f"{path} is not an image that Pillow can read ({problem}); give a JPEG or PNG file.") from None


def decode_bytes(data: bytes, name: str, channels: int = 3, upright: bool = False) -> Image.Image:
    """An encoded image of a data set, in RGB (3 channels) or grey (1), decoded to the last pixel.

    As torchvision's ImageFolder reads it: alpha is dropped, and an EXIF rotation is not applied unless `upright` says so.
    16-bit grey becomes 8 bits by its higher byte (value // 256), which is how Pillow reads 16-bit colour.
    Raises BrokenImage, with the image's name, for bytes that are not a whole image, or hold more than 16 bits.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(BytesIO(data), formats=FORMATS) as opened:
            opened.load()
            image = ImageOps.exif_transpose(opened) if upright else opened
            if image.mode.startswith(("I", "F")):
                image = _high_bytes(image, opened.format, name)
            wanted = "RGB" if channels == 3 else "L"
            return image if image.mode == wanted else image.convert(wanted)
    except (*_DAMAGED, Image.DecompressionBombError) as problem:
        if not data:
            raise BrokenImage(f"{name} is empty; it must be a JPEG, PNG or WebP image.") from None
        said = f"its format is none of {', '.join(FORMATS)}" if isinstance(problem, UnidentifiedImageError) else problem
        raise BrokenImage(f"{name} is not a whole image ({said}); mend or remove it, or skip broken images.") from None


def _high_bytes(image: Image.Image, kind: str | None, name: str) -> Image.Image:
    """16-bit grey as 8 bits. Raises BrokenImage for values of more bits."""
    from PIL import Image

    # Of 32-bit modes only those of formats that have 16 bits at most: Pillow opens their 16-bit files so, by release.
    if not image.mode.startswith("I;16") and not (image.mode == "I" and kind in ("PNG", "PPM", "JPEG2000")):
        raise BrokenImage(f"{name} holds values of more than 16 bits (mode {image.mode}); save it with 8 or 16 bits.")
    return Image.fromarray((np.asarray(image) // 256).astype(np.uint8))


def resized_sides(image: tuple[int, int], size: tuple[int, int], crop_ratio: float | None = None) -> tuple[int, int]:
    """Height and width to resize an image to before it is cropped to size, all (height, width).

    The side that covers less becomes the target's by crop_ratio (None: as official, 224/256, or 1 where the target is
    above 224); the other follows, rounded down, as in torchvision.
    """
    height, width = image
    share = crop_ratio or (224 / 256 if max(size) <= 224 else 1.0)
    rows, columns = (int(side / share) for side in size)
    if width * rows >= height * columns:
        return rows, int(rows * width / height)
    return int(columns * height / width), columns


def resize(image: Image.Image, sides: tuple[int, int], interpolation: str = "bicubic") -> Image.Image:
    """Pillow's bicubic (a = -0.5, antialiased), or another of its filters by name, to (height, width)."""
    from PIL import Image

    other = interpolation != "bicubic"
    return image.resize(sides[::-1], Image.Resampling[interpolation.upper()] if other else Image.Resampling.BICUBIC)


def centre_crop(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The middle of an image that is at least (height, width); half pixels round to even, as in torchvision."""
    height, width = size
    top, left = round((image.height - height) / 2), round((image.width - width) / 2)
    return image.crop((left, top, left + width, top + height))


def normalise(
    pixels: NDArray[np.uint8],
    dtype: str = "float32",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> NDArray[Any]:
    """pixels uint8 [..., height, width, C] to [..., C, height, width] of a dtype: scaled to [0, 1], then standardised.

    mean, std: of each channel; None: ImageNet's. Every step in that dtype: float32 gives torchvision's bits.
    """
    scaled = pixels.astype(dtype) / np.array(255, dtype)
    standard = (scaled - np.array(mean or MEAN, dtype)) / np.array(std or STD, dtype)
    return np.ascontiguousarray(np.moveaxis(standard, -1, -3))


def normalise_into(
    imgs: NDArray[np.float32], pixels: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float]
) -> None:
    """The same of one image, in float32 and into imgs [C, height, width], a plane at a time: a third of the time."""
    for channel, plane in enumerate(imgs):
        np.divide(pixels[..., channel], np.float32(255), out=plane, dtype=np.float32)
        plane -= np.float32(mean[channel])
        plane /= np.float32(std[channel])
