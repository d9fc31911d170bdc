"""The page's plots as SVG elements: drawn by matplotlib, coloured by the page, so that they are dark where it is."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..limits.findings import Finding, Judgement
from .drawing import BAD, BAND, INK, LEAST, at_most, figure, lines, style
from .plot_data import TWINS, Pictures

TICK = 8  # points, of the names along an axis: 11 pixels at least, where a phone scrolls the plot (report.css)
NAMES = 40  # that find room along an axis


def depth_plot(judgements: Sequence[Judgement], chosen: Callable[[Finding], bool], along: str, prefix: str) -> str:
    """E of every chosen tensor along the depth, for all frameworks, and the band from floor to limit.

    along: the label of the horizontal axis. prefix: of the ids in the SVG, which must differ between a page's plots.
    Gives "" where nothing was judged.
    """
    rows = {judgement.label: {f.name: f for f in judgement.findings if chosen(f)} for judgement in judgements}
    names = max((list(row) for row in rows.values()), key=len, default=[])
    bands = [next(row[name] for row in rows.values() if name in row) for name in names]
    if len(names) < 2:
        return ""
    top = max(finding.limit for finding in bands) * 1e6
    errors = {
        label: [at_most(row[name].error, top) if name in row else math.nan for name in names]
        for label, row in rows.items()
        if row
    }

    def draw(axes: Any) -> None:
        x = range(len(names))
        floors, limits = [finding.floor for finding in bands], [finding.limit for finding in bands]
        axes.fill_between(x, floors, limits, color=BAND, linewidth=0, label="floor to limit")
        axes.set_yscale("log")
        lines(axes, x, errors, least=LEAST)
        for judgement in judgements:
            wrong = judgement.first_wrong
            if wrong and wrong.name in names and judgement.label in errors:
                at = names.index(wrong.name), max(errors[judgement.label][names.index(wrong.name)], LEAST)
                axes.plot(*zip(at), "X", color=BAD, markersize=7)
                text = f"{judgement.label}: {wrong.name}"
                axes.annotate(text, at, textcoords="offset points", xytext=(7, 3), color=BAD, annotation_clip=False)
        axes.set_ylabel("E  [u]")
        _mark_blocks(axes, [name.removeprefix("grad/").removeprefix("dy/") for name in names])
        axes.set_xlabel(along)

    return figure(draw, prefix, len(errors) + 1, f"Error along the depth: {along}. {_worst(rows)}")


def _worst(rows: Mapping[str, Mapping[str, Finding]]) -> str:
    phrases = []
    for label, row in rows.items():
        if row:
            worst = max(row.values(), key=lambda finding: finding.ratio)
            phrases.append(f"{label} is at most {worst.ratio:.2g} of its limit, at {worst.name}")
    return "; ".join(phrases) + "."


def introduced_plot(judgements: Sequence[Judgement], backward: bool, prefix: str) -> str:
    """For every block, the largest introduced error of its operations in the one pass or the other, and its limit."""
    rows: dict[str, dict[str, float]] = {}
    limits: dict[str, float] = {}
    for judgement in judgements:
        for finding in judgement.findings:
            if finding.introduced_limit and finding.name.startswith(("dy/", "grad/")) == backward:
                block = block_of(finding.name) or _module_of(finding.name)
                row = rows.setdefault(judgement.label, {})
                row[block] = max(row.get(block, 0.0), at_most(finding.introduced, 1e9))
                limits[block] = max(limits.get(block, 0.0), finding.introduced_limit)
    names = list(limits)
    if len(names) < 2:
        return ""

    def draw(axes: Any) -> None:
        x = range(len(names))
        axes.plot(x, [limits[name] for name in names], color=BAD, linewidth=0.8, label="limit")
        axes.set_yscale("log")
        lines(axes, x, {label: [row.get(name, math.nan) for name in names] for label, row in rows.items()}, least=LEAST)
        axes.set_ylabel("introduced E  [u]")
        shown = range(0, len(names), math.ceil(len(names) / NAMES))
        axes.set_xticks(shown, [names[i] for i in shown], rotation=40, ha="right", fontsize=TICK)

    words = "; ".join(f"{label} at most {max(row.values()):.3g} u at {max(row, key=row.__getitem__)}"
                      for label, row in rows.items())  # fmt: skip
    which = "backward" if backward else "forward"
    return figure(draw, prefix, len(rows) + 1, f"Error that each block introduces by itself, {which}: {words}.")


def curve_plots(pictures: Pictures, prefix: str) -> list[str]:
    """The training loss, and its distance from the oracle's with the limit on it."""
    if not pictures.curves:
        return []
    steps = range(1, len(pictures.oracle_curve) + 1)

    def losses(axes: Any) -> None:
        axes.plot(steps, pictures.oracle_curve, color=INK, linewidth=2.4, alpha=0.35, label="oracle")
        for i, (label, values) in enumerate(pictures.curves.items()):
            axes.plot(steps, values, **style(i), label=label)
        axes.set_ylabel("loss")
        axes.set_xlabel("training step")

    def distances(axes: Any) -> None:
        if pictures.curve_limit:
            judged = steps[: len(pictures.curve_limit)]
            axes.fill_between(judged, 1e-12, pictures.curve_limit, color=BAND, linewidth=0, label="up to the limit")
        axes.set_yscale("log")
        rows = {label: [at_most(value, 1e3) for value in values] for label, values in pictures.distances.items()}
        lines(axes, steps, rows, least=1e-9)
        axes.set_ylabel("|loss - oracle| / oracle")
        axes.set_xlabel("training step")

    last = "; ".join(f"{label} ends at {values[-1]:.6g}" for label, values in pictures.curves.items())
    most = "; ".join(f"{label} at most {max(values):.2g}" for label, values in pictures.distances.items())
    count = len(pictures.curves) + 1
    return [
        figure(
            losses, f"{prefix}a", count, f"Training loss by step: {last}; the oracle {pictures.oracle_curve[-1]:.6g}."
        ),
        figure(distances, f"{prefix}b", count, f"Relative distance of the training loss from the oracle's: {most}."),
    ]


def histogram_plot(pictures: Pictures, prefix: str) -> str:
    """How large the errors of single elements are, for every framework."""
    rows = pictures.histogram
    if not rows:
        return ""
    used = [i for i in range(len(pictures.bins)) if any(row[i] > 1e-6 for row in rows.values())]
    low, high = used[0], used[-1] + 1

    def draw(axes: Any) -> None:
        edges = [*pictures.bins, pictures.bins[-1] + 1][low : high + 1]
        number = 0
        for label, row in rows.items():
            if label == TWINS:
                axes.stairs([100 * share for share in row[low:high]], edges, fill=True, color=BAND, label=label)
                continue
            axes.stairs([100 * share for share in row[low:high]], edges, baseline=None, **style(number), label=label)
            number += 1
        axes.set_xlabel("log2 of |d| / (u rms) of single elements; those without error count at the left end")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylabel("% of elements")
        axes.set_yscale("log")
        axes.set_ylim(1e-4, 100)

    most = "; ".join(
        f"{label} most often 2^{pictures.bins[max(range(len(row)), key=row.__getitem__)]}"
        for label, row in rows.items()
    )
    return figure(draw, prefix, len(rows), f"Histogram of errors: {most}.")


def block_of(name: str) -> str:
    """The block that a tensor or parameter is of, or nothing."""
    match = re.search(r"(decoder_)?blocks\.\d+", name)
    return match.group() if match else ""


def _module_of(name: str) -> str:
    """The part of the model that a tensor outside the blocks belongs to."""
    return name.removeprefix("dy/").removeprefix("grad/").removesuffix(".weight").removesuffix(".bias")


def _case_of(name: str) -> str:
    """The case of an optimizer step and the kind of its record, or nothing."""
    return " ".join(name.split("/")[1:3]) if name.startswith("optimizer/") else ""


def _mark_blocks(axes: Any, names: Sequence[str]) -> None:
    """A tick where each block begins; where there are none, at some of the tensors."""
    ticks: list[tuple[int, str]] = []
    for i, name in enumerate(names):
        label = _case_of(name) or block_of(name) or name.removesuffix(".weight").removesuffix(".bias")
        if not ticks or ticks[-1][1] != label:
            if ticks and i - ticks[-1][0] < len(names) / NAMES:
                if not block_of(label) or block_of(ticks[-1][1]):
                    continue
                ticks.pop()  # a block's name says more than that of a lone tensor before it
            ticks.append((i, label))
    axes.set_xticks([place for place, _ in ticks], [name for _, name in ticks], rotation=40, ha="right", fontsize=TICK)
    axes.margins(x=0.01)
