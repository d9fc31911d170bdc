"""The judgement of runs as one self-contained HTML page: no network, no script, plots as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...backends.installing import install_line
from ...files.atomic import replacing
from ..report.drawing import BAND, INK, LEAST, at_most, figure, lines, style
from ..report.format import short
from ..report.html import MARKS, missing_libraries, stylesheet
from .reference import Reference
from .result import Runs
from .run import Run
from .terminal import epoch_rows

PAGE, DATA = "runs.html", "runs.json"
POINTS = 800  # of a line at most
MARK = {**MARKS, "parts": "✗"}
TOP = 1e9  # u: where infinite distances are drawn


def write_files(
    result: Runs, runs: Sequence[Run], out: Path, reference: Reference | None = None
) -> tuple[list[Path], str]:
    """Write runs.html and runs.json into a folder; returns their paths, and why there is no page where a library is missing."""
    out.mkdir(parents=True, exist_ok=True)
    with replacing(out / DATA) as new:
        new.write_text(result.as_json(), encoding="utf-8")
    if absent := missing_libraries():
        (out / PAGE).unlink(missing_ok=True)
        return [out / DATA], f"No {PAGE}: it needs {', '.join(absent)} ({install_line('core')})."
    text = page(result, runs, reference)
    with replacing(out / PAGE) as new:
        new.write_text(text, encoding="utf-8")
    return [out / PAGE, out / DATA], ""


def page(result: Runs, runs: Sequence[Run], reference: Reference | None = None) -> str:
    """The page's text. runs: those that could be read; reference: where they are judged by one."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, loader=PackageLoader(str(__package__), ".")
    )
    environment.filters["short"] = short
    environment.globals |= {"style": stylesheet(), "marks": MARK}
    return environment.get_template("runs.html").render(
        result=result, plots=_plots(result, runs, reference), epochs=epoch_rows(result)
    )


def _plots(result: Runs, runs: Sequence[Run], reference: Reference | None) -> list[dict[str, str]]:
    """Every plot, with its title and caption."""
    whole = {} if reference is None else {reference.name: reference}
    drawn = [
        ("Loss", "loss of every step", _curve(runs, whole, "loss", lambda one: one.whole, "l-")),
        (
            f"Distance from {result.beside}",
            f"|loss - that of {result.beside}| in units of roundoff u of it; the band is what roundoff explains",
            _distances(result, runs),
        ),
        ("Learning rate", "learning rate of every step", _curve(runs, whole, "lr", lambda one: one.lr, "r-")),
        (
            "Norm of the gradients", "global norm before clipping",
            _curve(runs, whole, "grad_norm", lambda one: one.oracle_norm, "g-"),
        ),
    ]  # fmt: skip
    return [{"title": title, "caption": caption, "svg": svg} for title, caption, svg in drawn if svg]


def _curve(
    runs: Sequence[Run], whole: dict[str, Reference], name: str, of: Callable[[Reference], NDArray[Any]], prefix: str
) -> str:
    """A column of all runs, over the steps."""

    def draw(axes: Any) -> None:
        for label, reference in whole.items():
            values = of(reference)
            axes.plot(
                *_thinned(np.arange(1, values.size + 1), values), color=INK, linewidth=2.4, alpha=0.35, label=label
            )
        for number, run in enumerate(runs):
            axes.plot(*_thinned(run.steps, getattr(run, name)), **style(number), label=run.label)
        axes.set_ylabel(name)
        axes.set_xlabel("step")

    last = "; ".join(f"{run.label} ends at {getattr(run, name)[-1]:.6g}, step {run.steps[-1]}" for run in runs)
    return figure(draw, prefix, len(runs) + len(whole), f"{name} by step: {last}.")


def _distances(result: Runs, runs: Sequence[Run]) -> str:
    """Of every run's losses from the other's, and the part that roundoff explains: of several limits the widest is drawn."""
    rows = {one.label: one for one in result.judged if one.steps}
    if not rows:
        return ""
    widest: dict[int, float] = {}
    every: dict[int, dict[str, float]] = {}
    size = -(-max(one.steps[-1] for one in rows.values()) // POINTS)
    for label, one in rows.items():
        for step, limit in zip(one.steps, one.limits):
            widest[step] = max(widest.get(step, 0.0), limit)
        for step, value in zip(one.steps, one.distances):  # of `size` steps the furthest, at the last of them
            row = every.setdefault(-(-step // size) * size, {})
            row[label] = max(row.get(label, 0.0), value)
    steps = sorted(every)
    labels = [run.label for run in runs]  # all of them, so that each has its colour in every plot

    def draw(axes: Any) -> None:
        judged = sorted(widest)
        axes.fill_between(
            judged, LEAST / 10, [widest[step] for step in judged], color=BAND, linewidth=0, label="roundoff explains"
        )
        axes.set_yscale("log")
        lines(
            axes,
            steps,
            {label: [at_most(every[step].get(label, math.nan), TOP) for step in steps] for label in labels},
            LEAST,
        )
        axes.set_ylabel("distance  [u]")
        axes.set_xlabel("step")

    words = "; ".join(f"{label} at most {short(max(one.distances))} u" for label, one in rows.items())
    return figure(draw, "d-", len(labels) + 1, f"Distance of the losses from {result.beside}: {words}.")


def _thinned(steps: NDArray[Any], values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """At most POINTS of a line: of each part of it the last step, and the mean."""
    size = -(-steps.size // POINTS)
    parts = [slice(part, part + size) for part in range(0, steps.size, size)]
    return np.array([steps[part][-1] for part in parts]), np.array([values[part].mean() for part in parts])
