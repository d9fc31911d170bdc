"""What a data set holds, in numbers; whether each of its images can be decoded."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any

from .dataset import Dataset
from .images import BrokenImage

SAMPLE = 64  # images, evenly spaced, that are looked at
_AT_ONCE = 256  # images whose results are waited for


def summary(dataset: Dataset) -> dict[str, Any]:
    """Format, number of images, classes, bytes; of a sample the sides in pixels and a digest of the decoded pixels.

    Two machines with the same fingerprint and digest decode the same images to the same pixels. Raises BrokenImage where
    an image of the sample cannot be decoded, and Problem where a file is missing.
    """
    count = len(dataset)
    labels = Counter(dataset.label(index) for index in range(count)) if dataset.classes else Counter[int | None]()
    chosen = sorted({index * count // SAMPLE for index in range(SAMPLE)})
    pixels, heights, widths = hashlib.sha256(), [], []
    for index in chosen:
        image = dataset.image(index)
        heights.append(image.height)
        widths.append(image.width)
        pixels.update(image.tobytes())
    return {
        "path": str(dataset.path),
        "format": dataset.format,
        "images": count,
        "bytes": sum(dataset.sizes()),
        "classes": {name: labels[number] for number, name in enumerate(dataset.classes)},
        "sample": len(chosen),
        "heights": [min(heights), median(heights), max(heights)],
        "widths": [min(widths), median(widths), max(widths)],
        "digest": pixels.hexdigest(),
        "fingerprint": dataset.fingerprint(),
    }


def broken_images(
    dataset: Dataset, workers: int = 2, looked_at: Callable[[int], object] = lambda count: None
) -> dict[str, str]:
    """By name, why an image cannot be decoded, of all images. looked_at: called with how many were looked at so far."""
    broken: dict[str, str] = {}

    def look(index: int) -> str | None:
        try:
            dataset.image(index)
        except BrokenImage as problem:
            return str(problem)
        return None

    with ThreadPoolExecutor(workers) as pool:
        for part in _parts(range(len(dataset))):
            for index, problem in zip(part, pool.map(look, part)):
                if problem is not None:
                    broken[dataset.name(index)] = problem
            looked_at(part[-1] + 1)
    return broken


def _parts(whole: Sequence[int]) -> Iterator[Sequence[int]]:
    for first in range(0, len(whole), _AT_ONCE):
        yield whole[first : first + _AT_ONCE]
