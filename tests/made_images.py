"""Images and data sets that tests make."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def picture(number: int, height: int = 24, width: int = 32, mode: str = "RGB") -> Image.Image:
    """An image of a number: smooth, with noise, different from that of any other number."""
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((width, height))
    noisy = np.asarray(coarse, np.int16) + rng.integers(-20, 20, (height, width, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).convert(mode)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """An image as the bytes of a file."""
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def write(path: Path, number: int = 0, **sizes: int) -> Path:
    """An image file, with the folders that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = {".jpg": "JPEG", ".jpeg": "JPEG"}.get(path.suffix.lower(), path.suffix[1:].upper())
    path.write_bytes(encoded(picture(number, **sizes), kind))
    return path


def folder_of_classes(path: Path, count: int = 5, classes: tuple[str, ...] = ("cat", "dog", "eel")) -> Path:
    """A folder with a folder for each class, and in each so many images."""
    for number in range(count * len(classes)):
        write(path / classes[number // count] / f"{number % count}.png", number)
    return path
