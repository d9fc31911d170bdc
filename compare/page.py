"""The report as one self-contained HTML page: no network, no script, plots as inline SVG."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from . import LEVELS
from .judge import Finding, Judgement
from .report import Report

OUTLIERS = 12  # rows shown for each framework: those nearest to, or over, their limit


def write_page(report: Report, path: Path) -> None:
    """Write report.html."""
    from jinja2 import Environment

    template = resources.files(__package__).joinpath("report.html").read_text()
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["short"] = _short
    frameworks = [
        {
            "judgement": judgement,
            "verdict": report.verdict(judgement),
            "reason": report.reason(judgement),
            "worst": {level: judgement.worst(level) for level in LEVELS},
            "reference": report.reference.summary(judgement.label) if report.reference else None,
            "forward": _plot(judgement, ("forward", "loss"), "tensors in the order of the forward pass", f"f{i}-"),
            "gradients": _plot(judgement, ("gradients",), "gradients in the order of the backward pass", f"g{i}-"),
            "outliers": sorted(judgement.findings, key=lambda finding: -finding.ratio)[:OUTLIERS],
        }
        for i, judgement in enumerate(report.judgements)
    ]
    path.write_text(environment.from_string(template).render(report=report, levels=LEVELS, frameworks=frameworks))


def _short(value: float) -> str:
    return f"{value:.3g}"


def _plot(judgement: Judgement, levels: Sequence[str], along: str, prefix: str) -> str:
    """E of every tensor along the depth, its floor and its limit, as an SVG element; nothing where nothing was judged.

    prefix: of the ids in it, which must differ between the page's plots.
    """
    findings = [finding for finding in judgement.findings if finding.level in levels and finding.limit]
    if not findings:
        return ""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    with mpl.rc_context(
        {"svg.hashsalt": "polymae", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9}
    ):
        figure, axes = plt.subplots(figsize=(9.5, 2.9), layout="constrained")
        _draw(axes, findings)
        axes.set_xlabel(along)
        axes.set_ylabel("E  [u]")
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
        plt.close(figure)
    svg = text.getvalue()[text.getvalue().index("<svg") :]
    return re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{prefix}", svg)


def _draw(axes: Any, findings: Sequence[Finding]) -> None:
    x = range(len(findings))
    top = max(finding.limit for finding in findings) * 1e6
    errors = [min(finding.error, top) if finding.error else math.nan for finding in findings]  # a log axis has no zero
    floors, limits = [finding.floor for finding in findings], [finding.limit for finding in findings]
    axes.fill_between(x, floors, limits, color="#9ecae1", alpha=0.5, linewidth=0, label="floor to limit")
    axes.plot(x, errors, color="#08519c", linewidth=0.9, marker=".", markersize=3, label="error")
    wrong = [(i, errors[i]) for i in x if findings[i].verdict == "fault"]
    if wrong:
        axes.plot(*zip(*wrong), "o", color="#cb181d", markersize=4, linestyle="none", label="fault")
        axes.annotate(
            findings[wrong[0][0]].name, wrong[0], textcoords="offset points", xytext=(6, -12), color="#cb181d"
        )
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.3)
    marks = _marks([finding.name.removeprefix("grad/") for finding in findings])
    axes.set_xticks([place for place, _ in marks], [name for _, name in marks], rotation=40, ha="right", fontsize=7)
    axes.margins(x=0.01)
    axes.grid(axis="y", color="#dddddd", linewidth=0.5)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), fontsize=7, frameon=False, ncols=3, borderaxespad=0)


def _marks(names: Sequence[str]) -> list[tuple[int, str]]:
    """Where along the axis each block or top-level module begins."""
    found: list[tuple[int, str]] = []
    for i, name in enumerate(names):
        block = re.match(r"(decoder_)?blocks\.\d+", name)
        label = block.group() if block else name.removesuffix(".weight").removesuffix(".bias")
        if not found or found[-1][1] != label:
            if found and i - found[-1][0] < len(names) / 50:
                if not block:
                    continue
                found.pop()  # a block's name says more than that of a lone tensor before it
            found.append((i, label))
    return found
