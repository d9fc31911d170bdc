"""Mixup, CutMix and label smoothing: two images of a batch into one, and labels into soft targets.

Sources: Zhang et al. 2017 (arXiv 1710.09412, mixup), Yun et al. 2019 (arXiv 1905.04899, CutMix), Szegedy et al. 2015 (arXiv
1512.00567, section 7, label smoothing). The laws of what is drawn are those of timm 1.0's Mixup in its mode "batch": one
lambda for all images of a step, image i with image N-1-i.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..files.errors import Problem
from .draws import beta

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Mix:
    """How the images of one step are mixed.

    lam: the share of an image's own label; 1: nothing is mixed. box: top, bottom, left and right (excluded) of the part that
    CutMix takes from the other image; None: mixup.
    """

    lam: float = 1.0
    box: Box | None = None

    @property
    def pairs(self) -> bool:
        """Whether an image has anything of its partner."""
        return self.lam != 1

    def images(self, one: NDArray[np.float32], other: NDArray[np.float32]) -> None:
        """Mix two images float32 [C, height, width] with each other, in place."""
        if not self.pairs:
            return
        if self.box is not None:
            top, bottom, left, right = self.box
            part = one[:, top:bottom, left:right].copy()
            one[:, top:bottom, left:right] = other[:, top:bottom, left:right]
            other[:, top:bottom, left:right] = part
            return
        mine, theirs = np.float32(self.lam), np.float32(1 - self.lam)
        from_one, from_other = one * theirs, other * theirs
        one *= mine
        one += from_other
        other *= mine
        other += from_one


@dataclass(frozen=True)
class Mixing:
    """What becomes of the labels and the images of a classifier's batch. The defaults are the official fine-tuning's without
    mixup and CutMix.

    classes: of the model; 0: the images have no targets, as in pre-training. smoothing: the share of a target that is spread
    over all classes.
    mixup, cutmix: alpha of the Beta(alpha, alpha) that lambda is drawn from; 0: never. cutmix_minmax: instead of `cutmix`,
    the least and largest share of height and of width that a box has.
    prob: of a step to be mixed at all. switch_prob: of CutMix where there is mixup as well.
    mode: "batch", one lambda for a step.
    """

    classes: int
    smoothing: float = 0.1
    mixup: float = 0.0
    cutmix: float = 0.0
    cutmix_minmax: tuple[float, float] | None = None
    prob: float = 1.0
    switch_prob: float = 0.5
    mode: Literal["batch"] = "batch"

    def __post_init__(self) -> None:
        """Raises Problem for values that mean nothing, with the name of the option."""
        for words, wrong in _mistakes(self).items():
            if wrong:
                raise Problem(f"The mixing's {words}.", code="bad-argument")

    @property
    def pairs(self) -> bool:
        """Whether images are ever mixed."""
        return self.prob > 0 and (self.mixup > 0 or self._cuts)

    @property
    def _cuts(self) -> bool:
        return self.cutmix > 0 or self.cutmix_minmax is not None

    def drawn(self, drawn: np.random.Generator, height: int, width: int) -> Mix:
        """How a step is mixed. height, width: of the images, in pixels."""
        happens, which, share, *place = drawn.random(7).tolist()
        if not self.pairs or happens >= self.prob:
            return Mix()
        if not self._cuts or (self.mixup > 0 and which >= self.switch_prob):
            return Mix(beta(share, self.mixup))
        if self.cutmix_minmax is not None:
            box = box_within(place, height, width, self.cutmix_minmax)
        else:
            box = box_of_share(place, height, width, beta(share, self.cutmix))
        top, bottom, left, right = box
        return Mix(1 - (bottom - top) * (right - left) / (height * width), box)

    def target(self, label: int, partner: int, lam: float) -> NDArray[np.float32]:
        """The soft target of an image and its partner, by their labels: float32 [classes], its sum 1.

        Raises Problem for a label that is not one of the classes.
        """
        return self._smoothed(label) * np.float32(lam) + self._smoothed(partner) * np.float32(1 - lam)

    def _smoothed(self, label: int) -> NDArray[np.float32]:
        if not 0 <= label < self.classes:
            raise Problem(
                f"A label is {label}, and the model has {self.classes} classes, numbered from 0; give a model of as many "
                "classes as the data has (num_classes=...).",
                code="does-not-fit",
            )
        rest = self.smoothing / self.classes
        target = np.full(self.classes, rest, np.float32)
        target[label] = 1 - self.smoothing + rest
        return target


def box_of_share(place: list[float], height: int, width: int, lam: float) -> Box:
    """CutMix's box: of a share 1 - lam of the area, its middle anywhere in the image, cut at the image's sides.

    place: doubles in [0, 1), of which the first two are used. Returns top, bottom, left and right (excluded).
    """
    side = math.sqrt(1 - lam)
    box = []
    for number, length in zip(place[:2], (height, width)):
        cut, middle = int(length * side), int(number * length)
        box += [max(0, middle - cut // 2), min(length, middle + (cut + 1) // 2)]
    top, bottom, left, right = box
    return top, bottom, left, right


def box_within(place: list[float], height: int, width: int, shares: tuple[float, float]) -> Box:
    """A box wholly in the image, of sides from the first share of the image's to the second (excluded).

    place: four doubles in [0, 1). Returns top, bottom, left and right (excluded).
    """
    box = []
    for size, number, length in zip(place[:2], place[2:], (height, width)):
        least, most = (int(length * share) for share in shares)
        cut = least + int(size * max(1, most - least))
        first = int(number * (length - cut + 1))
        box += [first, first + cut]
    top, bottom, left, right = box
    return top, bottom, left, right


def check_fit(mixing: Mixing, source: str, classes: int, sizes: tuple[int, ...]) -> None:
    """Raises Problem where a data set's labels or the sizes of its batches do not fit.

    classes: of the data set. sizes: those that its batches have.
    """
    if mixing.classes and classes == 0:
        raise Problem(f"{source} has no labels, and a classifier learns from labels; give a data set of classes.")
    if mixing.classes and classes == 1:
        raise Problem(f"{source} has one class only; a classifier needs images of at least 2.")
    if mixing.classes and classes > mixing.classes:
        raise Problem(
            f"{source} has {classes} classes, and the model {mixing.classes}; give a model of {classes} "
            f"(num_classes={classes}).",
            code="does-not-fit",
        )
    odd = [size for size in sizes if size % 2]
    if mixing.pairs and odd:
        option = "mixup" if mixing.mixup > 0 else "cutmix_minmax" if mixing.cutmix_minmax is not None else "cutmix"
        raise Problem(
            f"A batch has {odd[0]} images, and {option} mixes them in pairs; give an even batch_size (and drop the last "
            f"batch of an epoch), or {option}={'null' if option == 'cutmix_minmax' else 0}.",
            code="bad-argument",
        )


def _mistakes(given: Mixing) -> dict[str, bool]:
    """What may be wrong with the settings, in words, and whether it is."""
    low, high = given.cutmix_minmax or (0, 1)
    return {
        f"classes is {given.classes}; a classifier has at least 2": given.classes < 2 and given.classes != 0,
        f"smoothing is {given.smoothing}; it is a share, from 0 to less than 1": not 0 <= given.smoothing < 1,
        f"mixup is {given.mixup}; it is the alpha of a Beta distribution, 0 (never) or more": (
            not 0 <= given.mixup < math.inf
        ),
        f"cutmix is {given.cutmix}; it is the alpha of a Beta distribution, 0 (never) or more": (
            not 0 <= given.cutmix < math.inf
        ),
        f"cutmix_minmax is {given.cutmix_minmax}; it must go from 0 or more to a larger share, at most 1": (
            not 0 <= low < high <= 1
        ),
        f"prob is {given.prob}; it is a probability, from 0 to 1": not 0 <= given.prob <= 1,
        f"switch_prob is {given.switch_prob}; it is a probability, from 0 to 1": not 0 <= given.switch_prob <= 1,
        f"mode is {given.mode!r}; images are mixed by 'batch'": given.mode != "batch",
    }
