"""Random erasing: boxes of a standardised image that become noise.

Source: Zhong et al. 2017 (arXiv 1708.04896). The law of the boxes is that of timm's RandomErasing in its mode "pixel", which the
official fine-tuning uses.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .draws import normals

_AREA = (0.02, 1 / 3)  # share of the image, least and most, of all boxes together
_ASPECT = (math.log(0.3), math.log(1 / 0.3))  # of height by width
_TRIES = 10


def erase(img: NDArray[np.float32], drawn: np.random.Generator, prob: float, count: int = 1) -> None:
    """With probability `prob` fill boxes of an image float32 [C, height, width] with normal noise, in place.

    count: boxes at most; of more than one, the number is uniform from 1 on. A box whose ten tries are all too large for
    the image is left out.
    """
    happens, number = drawn.random(2).tolist()
    if happens >= prob:
        return
    boxes = 1 + int(number * count)
    channels, height, width = img.shape
    for _ in range(boxes):
        box = erased_box(drawn, height, width, boxes)
        if box is not None:
            top, left, rows, columns = box
            img[:, top : top + rows, left : left + columns] = normals(drawn, (channels, rows, columns))


def erased_box(drawn: np.random.Generator, height: int, width: int, boxes: int) -> tuple[int, int, int, int] | None:
    """Top, left, height and width of one of so many boxes; None where no try fits."""
    for share, shape, down, right in drawn.random((_TRIES, 4)).tolist():
        area = (_AREA[0] + (_AREA[1] - _AREA[0]) * share) * (height * width) / boxes
        aspect = math.exp(_ASPECT[0] + (_ASPECT[1] - _ASPECT[0]) * shape)
        rows, columns = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if rows < height and columns < width:
            return int(down * (height - rows + 1)), int(right * (width - columns + 1)), rows, columns
    return None
