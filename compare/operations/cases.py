"""The inputs that every operation is measured on: as networks have them, drawn in NumPy, the same in every process."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...backends.operations import OPERATIONS

WIDTHS = (10, 50, 197, 768, 1000, 3072)  # classes, tokens, channels and hidden channels as networks have them
ELEMENTS = 16384  # of an input, about
DRAWS = 8  # of an operation whose output is one number: the error of one says little
IMAGE = (2, 16, 14, 14)

Array = NDArray[Any]
Drawn = dict[str, Array]
Draw = Callable[[np.random.Generator], Drawn]


@dataclass(frozen=True)
class Case:
    """An operation and one of its inputs.

    inputs: which, in words. width: of a row, where the operation works on rows, else 0. draws: how often it is measured, on
    other numbers.
    """

    operation: str
    inputs: str
    draw: Draw
    width: int = 0
    draws: int = 1

    def arrays(self, draw: int) -> Drawn:
        """float32 arrays (int64 for labels and ids) by argument, always the same ones."""
        drawn = self.draw(self._rng(draw))
        return {name: drawn[name] for name in OPERATIONS[self.operation]}

    def dy(self, draw: int, shape: tuple[int, ...]) -> Array:
        """The gradient for the output, float32 of its shape: 1 for a single number."""
        return np.ones((), np.float32) if shape == () else _float32(self._rng(draw + 1000).standard_normal(shape))

    def _rng(self, draw: int) -> np.random.Generator:
        return np.random.default_rng([zlib.crc32(f"{self.operation}: {self.inputs}".encode()), draw])


def cases(operation: str) -> list[Case]:
    """Every input that an operation is measured on."""
    draws = DRAWS if operation in _LOSSES else 1
    return [Case(operation, words, draw, width, draws) for words, draw, width in _KINDS[operation]()]


def _float32(array: Any) -> Array:
    return np.asarray(array, np.float32)


def _normal(rng: np.random.Generator, shape: tuple[int, ...], deviation: float = 1, mean: float = 0) -> Array:
    return _float32(mean + deviation * rng.standard_normal(shape))


Input = tuple[str, Draw, int]  # in words, the numbers, the width of a row
Kind = Iterator[Input]


def _given(words: str, deviation: float, mean: float = 0, shape: tuple[int, ...] = (ELEMENTS,)) -> Input:
    return words, lambda rng: {"x": _normal(rng, shape, deviation, mean)}, shape[1] if len(shape) == 2 else 0


def _real() -> Kind:
    yield _given("normal, deviation 1", 1)
    yield _given("normal, deviation 4", 4)
    yield _given("near zero: normal, deviation 0.01", 0.01)


def _activation() -> Kind:
    yield from _real()
    yield _given("large: normal, deviation 20", 20)


def _exponents() -> Kind:
    yield from _real()
    yield "below zero, as in a softmax: to -20", lambda rng: {"x": _float32(-20 * rng.random(ELEMENTS))}, 0


def _angles() -> Kind:
    yield from _real()
    yield "angles of positions: to 1000", lambda rng: {"x": _float32(1000 * rng.random(ELEMENTS))}, 0


def _positive() -> Kind:
    yield "uniform in 0 to 1", lambda rng: {"x": _float32(1 - rng.random(ELEMENTS))}, 0
    yield "log-normal", lambda rng: {"x": _float32(np.exp(rng.standard_normal(ELEMENTS)))}, 0
    yield "near one: within 0.1", lambda rng: {"x": _float32(1 + 0.2 * (rng.random(ELEMENTS) - 0.5))}, 0
    yield "probabilities: from 3e-7 to 1", lambda rng: {"x": _float32(np.exp(-15 * rng.random(ELEMENTS)))}, 0


def _above_minus_one() -> Kind:
    yield "uniform in 0 to 1", lambda rng: {"x": _float32(rng.random(ELEMENTS))}, 0
    yield "log-normal", lambda rng: {"x": _float32(np.exp(rng.standard_normal(ELEMENTS)))}, 0
    yield _given("near zero: normal, deviation 0.01", 0.01)


def _divided() -> Kind:
    def draw(rng: np.random.Generator) -> Drawn:
        return {"x": _normal(rng, (ELEMENTS,)), "y": _float32(np.exp(rng.standard_normal(ELEMENTS)))}

    yield "normal by log-normal", draw, 0


def _powers() -> Kind:
    def draw(rng: np.random.Generator) -> Drawn:
        return {
            "x": _float32(np.exp(rng.standard_normal(ELEMENTS))),
            "y": _float32(6 * rng.random(ELEMENTS) - 3),
        }

    yield "log-normal to the power of -3 to 3", draw, 0


def _rows(*kinds: tuple[str, float, float]) -> Kind:
    for width in WIDTHS:
        for words, deviation, mean in kinds:
            yield _given(f"rows of {width}: {words}", deviation, mean, (max(16, ELEMENTS // width), width))


def _logits() -> Kind:
    yield from _rows(("normal, deviation 1", 1, 0), ("normal, deviation 4", 4, 0))
    yield _given("rows of 1000: large, deviation 20", 20, 0, (16, 1000))
    yield _given("rows of 1000: near zero, deviation 0.01", 0.01, 0, (16, 1000))


def _reduced() -> Kind:
    yield from _rows(("normal, deviation 1", 1, 0), ("normal, deviation 1, mean 3", 1, 3))


def _normed() -> Kind:
    kinds = (("normal, deviation 1", 1, 0), ("normal, deviation 4", 4, 0), ("normal, deviation 1, mean 3", 1, 3))
    for words, draw, width in [*_rows(*kinds), *_rows(("near zero, deviation 0.01", 0.01, 0))]:
        yield words, lambda rng, draw=draw: _affine(rng, draw(rng)), width  # type: ignore[misc]


def _affine(rng: np.random.Generator, drawn: Drawn) -> Drawn:
    width = drawn["x"].shape[-1]
    return drawn | {"weight": _normal(rng, (width,), 0.2, 1), "bias": _normal(rng, (width,), 0.2)}


def _channels() -> Kind:
    for shape in ((8, 16, 14, 14), (64, 768)):
        for words, deviation, mean in (
            ("normal, deviation 1", 1, 0),
            ("normal, deviation 4", 4, 0),
            ("normal, deviation 1, mean 3", 1, 3),
            ("near zero, deviation 0.01", 0.01, 0),
        ):

            def draw(
                rng: np.random.Generator, shape: Any = shape, deviation: float = deviation, mean: float = mean
            ) -> Drawn:
                x = _normal(rng, shape, deviation, mean)
                channels = shape[1:2]
                return {
                    "x": x,
                    "mean": _normal(rng, channels, 0.2 * deviation, mean),
                    "variance": _float32(deviation**2 * np.exp(0.3 * rng.standard_normal(channels))),
                    "weight": _normal(rng, channels, 0.2, 1),
                    "bias": _normal(rng, channels, 0.2),
                }

            size = " x ".join(map(str, shape))
            yield f"{size}: {words}", draw, 0


def _grouped() -> Kind:
    yield from (case for case in _channels() if case[0].count("x") == 3)


def _images() -> Kind:
    yield _given("normal, deviation 1", 1, 0, IMAGE)
    yield "uniform in 0 to 1", lambda rng: {"x": _float32(rng.random(IMAGE))}, 0


def _classified() -> Kind:
    for width in (10, 1000):
        for deviation in (1, 4, 20):

            def draw(rng: np.random.Generator, width: int = width, deviation: float = deviation) -> Drawn:
                return {"x": _normal(rng, (64, width), deviation), "labels": rng.integers(0, width, 64)}

            yield f"64 rows of {width}: normal, deviation {deviation}", draw, width


def _log_probabilities() -> Kind:
    for words, draw, width in _classified():

        def logs(rng: np.random.Generator, draw: Draw = draw) -> Drawn:
            drawn = draw(rng)
            x = drawn["x"].astype(np.float64)
            return drawn | {"x": _float32(x - np.log(np.exp(x).sum(-1, keepdims=True)))}

        yield words, logs, width


def _regressed() -> Kind:
    for size in (64, 1000, 150528):

        def draw(rng: np.random.Generator, size: int = size) -> Drawn:
            return {"x": _normal(rng, (8, size // 8)), "target": _normal(rng, (8, size // 8))}

        yield f"{size} numbers: normal, deviation 1", draw, 0


def _binary() -> Kind:
    for deviation in (1, 4, 20):

        def draw(rng: np.random.Generator, deviation: float = deviation) -> Drawn:
            return {"x": _normal(rng, (64, 50), deviation), "target": _float32(rng.random((64, 50)) < 0.5)}

        yield f"64 x 50 logits: normal, deviation {deviation}", draw, 0


def _product(*shapes: tuple[int, ...]) -> Callable[[], Kind]:
    def kind() -> Kind:
        def draw(rng: np.random.Generator, mean: float = 0) -> Drawn:
            names = ("x", "y") if len(shapes) == 2 else ("x", "weight", "bias")
            drawn = {name: _normal(rng, shape, 1, mean) for name, shape in zip(names, shapes)}
            return drawn | {"x": _normal(rng, shapes[0], 1, mean)}

        yield "normal, deviation 1", draw, 0
        yield "normal, deviation 1, mean 3", lambda rng: draw(rng, 3), 0

    return kind


def _attended() -> Kind:
    for tokens in (50, 197):

        def draw(rng: np.random.Generator, tokens: int = tokens) -> Drawn:
            return {name: _normal(rng, (2, 2, tokens, 64)) for name in ("q", "k", "v")}

        yield f"{tokens} tokens of 64: normal, deviation 1", draw, 0


def _embedded() -> Kind:
    def draw(rng: np.random.Generator) -> Drawn:
        return {"ids": rng.integers(0, 50, (4, 197)), "weight": _normal(rng, (50, 64))}

    yield "ids that come many times", draw, 0


_LOSSES = (
    "cross entropy", "negative log likelihood", "mean squared error", "mean absolute error", "smooth l1 loss",
    "binary cross entropy",
)  # fmt: skip
_ON_IMAGES = (
    "max pool", "average pool", "adaptive average pool", "bilinear interpolation", "bilinear interpolation of corners",
    "bicubic interpolation",
)  # fmt: skip
_KINDS: dict[str, Callable[[], Kind]] = {
    **dict.fromkeys(OPERATIONS, _activation),  # all that are not named below
    **dict.fromkeys(("exp", "expm1"), _exponents),
    **dict.fromkeys(("sin", "cos"), _angles),
    **dict.fromkeys(("cube", "erf"), _real),
    **dict.fromkeys(("log", "square root", "reciprocal square root", "reciprocal"), _positive),
    **dict.fromkeys(("softmax", "log softmax", "logsumexp"), _logits),
    **dict.fromkeys(("mean", "sum", "variance", "standard deviation", "norm", "normalize", "cumulative sum"), _reduced),
    **dict.fromkeys(("batch norm", "batch norm in training"), _channels),
    **dict.fromkeys(("mean squared error", "mean absolute error", "smooth l1 loss"), _regressed),
    **dict.fromkeys(_ON_IMAGES, _images),
    "log1p": _above_minus_one,
    "division": _divided,
    "power": _powers,
    "layer norm": _normed,
    "group norm": _grouped,
    "cross entropy": _classified,
    "negative log likelihood": _log_probabilities,
    "binary cross entropy": _binary,
    "embedding": _embedded,
    "attention": _attended,
    "linear": _product((64, 768), (256, 768), (256,)),
    "matrix product": _product((64, 768), (768, 256)),
    "batched matrix product": _product((8, 50, 64), (8, 64, 50)),
    "einsum": _product((8, 50, 64), (8, 50, 64)),
    "convolution": _product((2, 3, 64, 64), (64, 3, 8, 8), (64,)),
    "convolution of 3 x 3": _product((2, 64, 14, 14), (64, 64, 3, 3), (64,)),
    "strided convolution": _product((2, 64, 14, 14), (64, 64, 3, 3), (64,)),
    "depthwise convolution": _product((2, 64, 14, 14), (64, 1, 3, 3), (64,)),
    "transposed convolution": _product((2, 64, 7, 7), (64, 32, 4, 4), (32,)),
}
