"""The numbers that the page draws beside the verdicts: error histogram, error of each patch, loss curves. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...backends.config import MAEConfig
from ...data.images import MEAN, STD
from ..levels import expected
from ..limits.curves import curve_limit, distance
from ..limits.metrics import U
from ..trace import Trace, TraceProblem

BINS = tuple(range(-12, 41))  # of log2(|d| / (u rms)); nearer or further ones count in the first or the last
SAMPLE = 1 << 16  # elements of a tensor that are enough for the histogram
IMAGES = 4  # that are drawn
SIDE = 128  # pixels of a thumbnail at most
TWINS = "float32 twins"  # the name of their row in the histogram


@dataclass
class Pictures:
    """The data of the plots. Every dictionary is by framework."""

    bins: list[int] = field(default_factory=lambda: list(BINS))  # lower ends, in powers of two
    histogram: dict[str, list[float]] = field(default_factory=dict)  # share of the forward elements in each bin
    grid: list[int] = field(default_factory=list)  # patches down and across
    masks: list[list[int]] = field(default_factory=list)  # of each image, 1 is removed
    patch_errors: dict[str, list[list[float]]] = field(default_factory=dict)  # of pred, in u, by image and patch
    oracle_curve: list[float] = field(default_factory=list)  # the oracle's training loss
    curves: dict[str, list[float]] = field(default_factory=dict)  # the others'
    distances: dict[str, list[float]] = field(default_factory=dict)  # |loss - oracle's| / |oracle's|
    curve_limit: list[float] = field(default_factory=list)  # on the distance, for as long as it is judged
    thumbnails: list[NDArray[np.uint8]] = field(default_factory=list)  # [height, width, 3]; not in JSON

    def as_dict(self) -> dict[str, Any]:
        """Everything but the images, as JSON holds it."""
        return {name: value for name, value in asdict(self).items() if name != "thumbnails"}

    @classmethod
    def read(cls, values: dict[str, Any]) -> Pictures:
        """From JSON."""
        return cls(**{name: _numbers(value) for name, value in values.items()})


def _numbers(value: Any) -> Any:
    """With the infinite and NaN numbers that JSON holds as text."""
    if isinstance(value, dict):
        return {name: _numbers(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return float(value) if isinstance(value, str) else value


def pictures(oracle: Trace, twins: Sequence[Trace], traces: Mapping[str, Trace]) -> Pictures:
    """The data of the page's plots for these runs of one comparison; traces are the candidates, by label."""
    drawn = Pictures()
    _histogram(drawn, oracle, twins, traces)
    if isinstance(oracle.config, MAEConfig):
        _patches(drawn, oracle, traces)
    _curves(drawn, oracle, twins, traces)
    return drawn


def _histogram(drawn: Pictures, oracle: Trace, twins: Sequence[Trace], traces: Mapping[str, Trace]) -> None:
    counts: dict[str, NDArray[np.int64]] = {}
    for _, tap in expected(oracle.config, ("forward",)):
        if tap.exact or tap.name not in oracle:
            continue
        reference = oracle[tap.name]
        every = max(1, reference.size // SAMPLE)
        sample = reference.ravel()[::every]
        rms = float(np.sqrt(np.mean(np.square(sample)))) if sample.size else 0.0
        for label, trace in (*traces.items(), *((TWINS, twin) for twin in twins)):
            actual = _same(trace, tap.name, reference.shape)
            if rms and actual is not None:
                row = counts.setdefault(label, np.zeros(len(BINS), np.int64))
                with np.errstate(all="ignore"):  # a candidate may hold anything
                    distance = actual.ravel()[::every] - sample
                    row += _binned(np.abs(distance) / (U * rms))
    drawn.histogram = {label: _rounded(row / row.sum()) for label, row in counts.items() if row.any()}


def _binned(sizes: NDArray[np.float64]) -> NDArray[np.int64]:
    sizes = sizes[np.isfinite(sizes)]
    powers = np.frexp(sizes)[1] - 1  # floor of log2; 0 has none, and belongs to the first bin
    powers = np.where(sizes > 0, powers, BINS[0])
    return np.bincount(np.clip(powers, BINS[0], BINS[-1]) - BINS[0], minlength=len(BINS))


def _patches(drawn: Pictures, oracle: Trace, traces: Mapping[str, Trace]) -> None:
    config = oracle.config
    wanted = ("pred", "mask", "input/imgs")
    if not all(name in oracle for name in wanted):
        return
    height, width = (side // config.patch_size for side in config.img_size)
    drawn.grid = [height, width]
    drawn.masks = [[int(value) for value in mask] for mask in oracle["mask"][:IMAGES]]
    drawn.thumbnails = [_thumbnail(image) for image in oracle["input/imgs"][:IMAGES]]
    reference = oracle["pred"][:IMAGES]
    norms = np.linalg.norm(reference, axis=-1)
    scale = U * np.maximum(norms, np.sqrt(np.mean(norms**2, axis=1, keepdims=True)))
    for label, trace in traces.items():
        actual = _same(trace, "pred", oracle["pred"].shape)
        if actual is not None:
            with np.errstate(all="ignore"):  # a candidate may hold anything
                errors = np.linalg.norm(actual[:IMAGES] - reference, axis=-1) / scale
            drawn.patch_errors[label] = [_rounded(row) for row in errors]


def _thumbnail(image: NDArray[Any]) -> NDArray[np.uint8]:
    """A normalised image [C, height, width] as pixels [h, w, 3], made smaller by averaging squares."""
    image = np.asarray(image, np.float64).transpose(1, 2, 0)
    if image.shape[2] == 3:
        image = image * STD + MEAN
    else:
        grey = image.mean(axis=2, keepdims=True)
        image = np.repeat((grey - grey.min()) / ((grey.max() - grey.min()) or 1.0), 3, axis=2)
    by = -(-max(image.shape[:2]) // SIDE)
    height, width = (side // by for side in image.shape[:2])
    image = image[: height * by, : width * by].reshape(height, by, width, by, 3).mean(axis=(1, 3))
    return (np.clip(image, 0, 1) * 255).round().astype(np.uint8)


def _curves(drawn: Pictures, oracle: Trace, twins: Sequence[Trace], traces: Mapping[str, Trace]) -> None:
    name = "curve/loss"
    if name not in oracle:
        return
    reference = np.asarray(oracle[name], np.float64)
    drawn.oracle_curve = _rounded(reference, 9)
    curves = [twin[name] for twin in twins if name in twin]
    drawn.curve_limit = _rounded(curve_limit(reference, curves))
    for label, trace in traces.items():
        losses = _same(trace, name, reference.shape)
        if losses is not None:
            drawn.curves[label] = _rounded(losses, 9)
            drawn.distances[label] = _rounded(distance(losses, reference))


def _same(trace: Trace, name: str, shape: tuple[int, ...]) -> NDArray[Any] | None:
    """A tensor of a run, or nothing where it is missing or of another shape."""
    if name not in trace:
        return None
    try:
        actual = trace[name]
    except TraceProblem:
        return None  # the verdict says so
    return actual if actual.shape == shape else None


def _rounded(values: NDArray[Any], digits: int = 4) -> list[float]:
    """To so many significant digits, as many as can be drawn."""
    return [float(f"{value:.{digits}g}") for value in values.tolist()]
