"""A confusion matrix as a picture: a row for each true class, its images' shares by predicted class."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..files.atomic import replacing
from ..files.errors import Problem
from .scores import Result

_NAMED, _COUNTED = 60, 20  # classes: so many have their names beside them, and so many their counts in the fields
_LONGEST = 24  # characters of a name


def draw_confusion(result: Result, path: Path) -> None:
    """Write the picture of the classes that occur, as .png. Raises Problem for another ending, OSError."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    require_png(path)
    shown = result.shown
    counts = result.confusion[np.ix_(shown, shown)]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(max(4.0, 0.24 * len(shown) + 2.5), 16.0)  # inches
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues", interpolation="nearest")
    figure.colorbar(image, ax=axes, label="share of the true class's images", shrink=0.8)
    axes.set(xlabel="predicted class", ylabel="true class", title=f"top-1 {result.top1:.3f} %, {result.n} images")
    if len(shown) <= _NAMED:
        names = [_shortened(result.name(int(number))) for number in shown]
        axes.set_xticks(range(len(shown)), names, rotation=90, parse_math=False)
        axes.set_yticks(range(len(shown)), names, parse_math=False)
    if len(shown) <= _COUNTED:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                dark = shares[row, column] > 0.5
                axes.text(column, row, count, ha="center", va="center", fontsize=8, color="white" if dark else "black")
    with replacing(path) as new, new.open("wb") as file:
        FigureCanvasAgg(figure).print_png(file)


def require_png(path: Path) -> None:
    """Raise Problem where a picture's name does not end in .png."""
    if path.suffix.lower() != ".png":
        raise Problem(f"The picture of the confusion matrix is {path}; it is written as .png only, so end its name so.")


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
