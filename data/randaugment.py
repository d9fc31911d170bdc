"""RandAugment with magnitudes that increase: which operations, how strong and in which direction, as data; then Pillow.

Source: Cubuk et al. 2019 (arXiv 1909.13719). Policies are written as timm writes them ("rand-m9-mstd0.5-inc1"), and the
operations, their ranges and their order are those of timm's set for `inc1`, which the official fine-tuning uses.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files.errors import Problem
from .draws import standard_normal

if TYPE_CHECKING:
    from PIL import Image

_MOST = 10.0  # the largest magnitude
_DARK = 128  # SolarizeAdd brightens the values below
_SECTION = re.compile(r"([a-z]+)(\d+(?:\.\d+)?)")
_KNOWN = {
    "m": "magnitude, 0 to 10",
    "n": "operations an image",
    "p": "probability of each",
    "mstd": "deviation of the magnitude",
    "inc": "1: magnitudes increase",
}


@dataclass(frozen=True)
class Applied:
    """One operation on one image. op: its name in OPS. magnitude: from 0 to 10. negative: where it has a direction."""

    op: str
    magnitude: float
    negative: bool


@dataclass(frozen=True)
class Canvas:
    """What geometric operations need. fill: the colour of what comes in from outside. resample: Pillow's filter."""

    fill: tuple[int, ...] | int
    resample: int


@dataclass(frozen=True)
class Policy:
    """magnitude and std: mean and standard deviation of the magnitudes. layers: operations that are drawn for an image.

    prob: of each of them to be applied.
    """

    magnitude: float = 10
    std: float = 0.0
    layers: int = 2
    prob: float = 0.5

    def drawn(self, drawn: np.random.Generator) -> list[Applied]:
        """The operations on one image in their order; each is any of the fifteen, with replacement."""
        names, applied = tuple(OPS), []
        for which, happens, share, sign in drawn.random((self.layers, 4)).tolist():
            magnitude = self.magnitude + self.std * standard_normal(share)
            if happens < self.prob:
                applied.append(Applied(names[int(which * len(names))], max(0.0, min(magnitude, _MOST)), sign >= 0.5))
        return applied


@lru_cache
def policy(text: str) -> Policy:
    """The policy that a text such as "rand-m9-mstd0.5-inc1" describes. Raises Problem for any other text."""
    kind, *sections = text.split("-")
    values: dict[str, float] = {}
    for section in sections:
        match = _SECTION.fullmatch(section)
        if match is None or match[1] not in _KNOWN:
            known = ", ".join(f"{name}... ({meaning})" for name, meaning in _KNOWN.items())
            raise _refusal(text, f"{section!r} is no part of a policy; the parts are {known}")
        if match[1] in values:
            raise _refusal(text, f"{match[1]} is given twice")
        values[match[1]] = float(match[2])
    if kind != "rand":
        raise _refusal(text, f"it begins with {kind!r}, and only 'rand' is known here")
    if values.get("inc") != 1:
        raise _refusal(text, "it lacks inc1; the older set, where some operations weaken as m grows, is not here")
    made = Policy(values.get("m", 10), values.get("mstd", 0), int(values.get("n", 2)), values.get("p", 0.5))
    for words, wrong in _mistakes(made, values).items():
        if wrong:
            raise _refusal(text, words)
    return made


def augmented(image: Image.Image, operations: list[Applied], canvas: Canvas) -> Image.Image:
    """The image (RGB or L) after these operations: of the same mode and size."""
    for applied in operations:
        argument, apply = OPS[applied.op]
        image = apply(image, argument(applied.magnitude, -1 if applied.negative else 1), canvas)
    return image


def fill_colour(mean: tuple[float, ...]) -> tuple[int, ...] | int:
    """The colour of a channel's mean, of values in [0, 1], as Pillow takes it: a number for each channel, or one."""
    values = tuple(min(255, round(255 * value)) for value in mean)
    return values if len(values) > 1 else values[0]


def _refusal(text: str, reason: str) -> Problem:
    return Problem(
        f'auto_augment is {text!r}: {reason}. The official fine-tuning\'s is "rand-m9-mstd0.5-inc1".',
        code="bad-argument",
    )


def _mistakes(given: Policy, values: dict[str, float]) -> dict[str, bool]:
    """What may be wrong with a policy's numbers, in words, and whether it is."""
    return {
        f"m is {given.magnitude:g}; magnitudes go from 0 to 10": given.magnitude > _MOST,
        f"n is {values.get('n')}; it is a whole number of operations, 1 or more": (
            given.layers < 1 or given.layers != values.get("n", 2)
        ),
        f"p is {given.prob:g}; it is a probability, from 0 to 1": given.prob > 1,
        f"mstd is {given.std:g}; a deviation of more than 100 means uniform magnitudes to timm, which are not here": (
            given.std > 100
        ),
    }


def _none(magnitude: float, sign: int) -> None:
    return None


def _signed(share: float) -> Callable[[float, int], float]:
    """So much of a thing at magnitude 10, in either direction."""
    return lambda magnitude, sign: sign * (magnitude / _MOST * share)


def _factor(magnitude: float, sign: int) -> float:
    """Of Pillow's enhancements: 1 changes nothing."""
    return max(0.1, 1.0 + sign * (magnitude / _MOST * 0.9))


def _bits(magnitude: float, sign: int) -> int:
    """Bits that are kept; at magnitude 10 none is, and the image black, as in timm."""
    return 4 - int(magnitude / _MOST * 4)


def _threshold(magnitude: float, sign: int) -> int:
    return 256 - min(256, int(magnitude / _MOST * 256))


def _added(magnitude: float, sign: int) -> int:
    return min(128, int(magnitude / _MOST * 110))


def _of_pillows(name: str) -> Callable[..., Any]:
    """A function of ImageOps, with the argument if there is one."""

    def apply(image: Image.Image, argument: int | None, canvas: Canvas) -> Any:
        from PIL import ImageOps

        function = getattr(ImageOps, name)
        return function(image) if argument is None else function(image, argument)

    return apply


def _enhanced(name: str) -> Callable[..., Any]:
    """An enhancement of ImageEnhance, by the factor."""

    def apply(image: Image.Image, factor: float, canvas: Canvas) -> Any:
        from PIL import ImageEnhance

        return getattr(ImageEnhance, name)(image).enhance(factor)

    return apply


def _brightened(image: Image.Image, added: int, canvas: Canvas) -> Image.Image:
    """The dark values brighter by so much."""
    table = [min(255, value + added) if value < _DARK else value for value in range(256)]
    return image.point(table * len(image.getbands()))


def _rotated(image: Image.Image, degrees: float, canvas: Canvas) -> Image.Image:
    return image.rotate(degrees, canvas.resample, fillcolor=canvas.fill)  # type: ignore[arg-type]


def _moved(matrix: Callable[[float, Image.Image], tuple[float, ...]]) -> Callable[..., Any]:
    """An affine map, by the coefficients that Pillow takes: of an output pixel (x, y) the input's x and y."""

    def apply(image: Image.Image, argument: float, canvas: Canvas) -> Any:
        from PIL import Image as Pillow

        return image.transform(
            image.size, Pillow.Transform.AFFINE, matrix(argument, image), resample=canvas.resample, fillcolor=canvas.fill
        )  # fmt: skip

    return apply


# By name: the argument at a magnitude and in a direction, and what is done with it. The order is part of the draws.
OPS: dict[str, tuple[Callable[[float, int], Any], Callable[..., Any]]] = {
    "AutoContrast": (_none, _of_pillows("autocontrast")),
    "Equalize": (_none, _of_pillows("equalize")),
    "Invert": (_none, _of_pillows("invert")),
    "Rotate": (_signed(30.0), _rotated),  # degrees
    "PosterizeIncreasing": (_bits, _of_pillows("posterize")),
    "SolarizeIncreasing": (_threshold, _of_pillows("solarize")),
    "SolarizeAdd": (_added, _brightened),
    "ColorIncreasing": (_factor, _enhanced("Color")),
    "ContrastIncreasing": (_factor, _enhanced("Contrast")),
    "BrightnessIncreasing": (_factor, _enhanced("Brightness")),
    "SharpnessIncreasing": (_factor, _enhanced("Sharpness")),
    "ShearX": (_signed(0.3), _moved(lambda shear, image: (1, shear, 0, 0, 1, 0))),
    "ShearY": (_signed(0.3), _moved(lambda shear, image: (1, 0, 0, shear, 1, 0))),
    "TranslateXRel": (_signed(0.45), _moved(lambda share, image: (1, 0, share * image.width, 0, 1, 0))),
    "TranslateYRel": (_signed(0.45), _moved(lambda share, image: (1, 0, 0, 0, 1, share * image.height))),
}
