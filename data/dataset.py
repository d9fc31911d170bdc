"""What every data set has, whatever its format: images by index, with a name and, where there are any, a label."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ..files.errors import Problem
from .images import decode_bytes

if TYPE_CHECKING:
    from PIL import Image

# The endings of image files, as torchvision's ImageFolder has them.
ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
_MOST_CLASSES = 1_000_000


class Dataset(ABC):
    """A set of images in a fixed order, which several threads may read at once.

    path: where it lies. classes: by label the class's name; empty where images have no labels.
    """

    format: ClassVar[str]
    path: Path
    classes: tuple[str, ...] = ()

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, index: int) -> bytes:
        """The encoded image. Raises Problem where it cannot be read."""

    @abstractmethod
    def name(self, index: int) -> str:
        """What the image is called: its path relative to the data set's, or its place in a file."""

    def label(self, index: int) -> int | None:
        """The number of its class; None where the set has no labels."""
        return None

    def image(self, index: int, channels: int = 3, upright: bool = False) -> Image.Image:
        """The decoded image, of mode RGB (3 channels) or L (1). upright: apply an EXIF rotation.

        Raises BrokenImage, with its name, for one that cannot be decoded.
        """
        return decode_bytes(self.read(index), self.name(index), channels, upright)

    def fingerprint(self) -> str:
        """SHA-256 of the format, the classes and each image's name, size in bytes and label, in order.

        It changes where images were added, removed, renamed, moved to another class or rewritten in another size; it
        does not look at pixels, so that it takes the time of listing the files rather than that of reading them.
        """
        whole = hashlib.sha256(repr((self.format, self.classes)).encode(errors="surrogateescape"))
        for index, size in enumerate(self.sizes()):
            line = f"{self.name(index)}\0{size}\0{self.label(index)}\n"
            whole.update(line.encode(errors="surrogateescape"))
        return whole.hexdigest()

    @abstractmethod
    def sizes(self) -> Iterator[int]:
        """The size of each encoded image in bytes, in order. Raises Problem where one is missing."""


class Named(Dataset):
    """A set whose names, and labels if it has any, are in memory."""

    names: list[str]
    labels: list[int] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        return self.names[index]

    def label(self, index: int) -> int | None:
        return None if self.labels is None else self.labels[index]


def whole_number(text: str) -> int | None:
    """A label that is a number from 0; None for other text."""
    return int(text) if text.isascii() and text.isdigit() else None


def numbered_classes(labels: Collection[int], source: str) -> tuple[str, ...]:
    """The names of classes that have only numbers: "0", "1" .... Raises Problem for numbers that are too large for labels."""
    largest = max(labels, default=-1)
    if largest >= _MOST_CLASSES:
        raise Problem(
            f"A label of {source} is {largest}; the classes are numbered from 0, and {_MOST_CLASSES} are the most."
        )
    return tuple(map(str, range(largest + 1)))


def labels_and_classes(given: list[str], source: str) -> tuple[list[int], tuple[str, ...]]:
    """Labels as numbers, and the name of each class, from labels as they are written.

    Numbers are labels as they are; other text is the name of a class, which are numbered in sorted order.
    Raises Problem for numbers and names mixed.
    """
    numbers = [whole_number(text) for text in given]
    known = [number for number in numbers if number is not None]
    if len(known) == len(given):
        return known, numbered_classes(known, source)
    if known:
        name = next(text for text, number in zip(given, numbers) if number is None)
        raise Problem(
            f"The labels of {source} are numbers and others: {name!r} beside {known[0]}; give numbers from 0, or names "
            "that are no numbers."
        )
    classes = sorted(set(given))
    place = {text: number for number, text in enumerate(classes)}
    return [place[text] for text in given], tuple(classes)
