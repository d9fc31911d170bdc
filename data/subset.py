"""Some images of a data set, in an order of their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .dataset import Dataset

if TYPE_CHECKING:
    from PIL import Image


class Subset(Dataset):
    """The images of `dataset` at these places, int64 [n], in their order; its names, labels and classes."""

    def __init__(self, dataset: Dataset, places: NDArray[np.int64]):
        self.dataset, self.places = dataset, places
        self.path, self.classes = dataset.path, dataset.classes

    @property
    def format(self) -> str:  # type: ignore[override]
        """Of the whole set."""
        return self.dataset.format

    def __len__(self) -> int:
        return len(self.places)

    def read(self, index: int) -> bytes:
        return self.dataset.read(int(self.places[index]))

    def name(self, index: int) -> str:
        return self.dataset.name(int(self.places[index]))

    def label(self, index: int) -> int | None:
        return self.dataset.label(int(self.places[index]))

    def image(self, index: int, channels: int = 3, upright: bool = False) -> Image.Image:
        return self.dataset.image(int(self.places[index]), channels, upright)

    def sizes(self) -> Iterator[int]:
        chosen = {int(place): 0 for place in self.places}
        for place, size in enumerate(self.dataset.sizes()):
            if place in chosen:
                chosen[place] = size
        return (chosen[int(place)] for place in self.places)
