"""Drawing for the pages: an SVG element by matplotlib, coloured by the page, so that it is dark where the page is."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# matplotlib knows only fixed colours: these stand for the page's, and are replaced by its CSS variables.
INK, GRID, BAND, BAD = "#00000a", "#00000b", "#00000c", "#00000d"
SERIES = tuple(f"#0000{i:02x}" for i in range(0x10, 0x16))
STYLES = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (6, 1.5, 1.5, 1.5)), (0, (1, 1)), (0, (9, 3)))
LEAST = 0.3  # u: smaller errors are as good as none
VARIABLES = {INK: "--ink", GRID: "--grid", BAND: "--band", BAD: "--bad"} | {
    colour: f"--series{i}" for i, colour in enumerate(SERIES)
}


def at_most(value: float, top: float) -> float:
    """Infinity has no place on an axis: the top. A NaN is drawn nowhere."""
    return min(value, top)


def lines(axes: Any, x: Sequence[int], rows: Mapping[str, Sequence[float]], least: float) -> None:
    """A line for each row on a logarithmic axis that begins at `least`, where smaller values run along the bottom.

    A logarithm has no zero: the line has a gap there, and a dot below it, in a row of its own for every line.
    """
    for i, (label, values) in enumerate(rows.items()):
        drawn = [max(value, least) if value > 0 else math.nan for value in values]
        axes.plot(x, drawn, **style(i), label=label)
        dots = {place: least * 0.5 ** ((1 + i % len(SERIES)) / len(SERIES)) for place, v in zip(x, values) if v == 0}
        for place, before, value, after in zip(x, [math.nan, *drawn[:-1]], drawn, [*drawn[1:], math.nan]):
            if value > 0 and not (before > 0 or after > 0):  # between two gaps there is no line
                dots[place] = value
        axes.plot(list(dots), list(dots.values()), "o", color=SERIES[i % len(SERIES)], markersize=1.8)
    exact = any(value == 0 for values in rows.values() for value in values)
    if exact:
        axes.plot([], [], "o", color=INK, markersize=1.8, label="no error at all")
    axes.set_ylim(bottom=least / 2.2 if exact else least)


def style(number: int) -> dict[str, Any]:
    """How the line of a number looks."""
    return {"color": SERIES[number % len(SERIES)], "linestyle": STYLES[number % len(STYLES)], "linewidth": 1.2}


def figure(draw: Callable[[Any], None], prefix: str, columns: int, words: str) -> str:
    """A drawing as an SVG element with its description."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    colours = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK)
    settings = {"svg.hashsalt": "polymae", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9, **colours,
                "text.parse_math": False, "axes.unicode_minus": False}  # fmt: skip
    with mpl.rc_context(settings):
        sheet, axes = plt.subplots(figsize=(9.5, 3.3), layout="constrained")
        draw(axes)
        if axes.get_yscale() == "log":
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.grid(axis="y", color=GRID, linewidth=0.5)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        # At the left and three in a row: there it is seen on a phone too, where the rest is scrolled to.
        sheet.legend(
            loc="outside upper left", fontsize=8, frameon=False, ncols=min(columns, 3), handlelength=2.6,
            columnspacing=1.0, handletextpad=0.5, borderaxespad=0.2, borderpad=0,
        )  # fmt: skip
        text = io.StringIO()
        sheet.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
        plt.close(sheet)
    return _themed(text.getvalue(), prefix, words)


def _themed(text: str, prefix: str, words: str) -> str:
    from markupsafe import escape

    svg = text[text.index("<svg") :]
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.S)
    # A tenth of a point is as fine as a screen is. Between the tags is text.
    svg = re.sub(r"<[^>]+>", lambda tag: re.sub(r"(\d\.\d)\d+", r"\1", tag.group()), svg)
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda match: match.group() if match[1] in used else "", svg)
    svg = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{prefix}", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(words)}" ', 1)
