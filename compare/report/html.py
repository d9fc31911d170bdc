"""The report as one self-contained HTML page: no network, no script, plots as inline SVG."""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Callable, Iterable
from importlib import import_module, resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..limits.findings import Finding, Judgement
from ..options import LEVELS
from .format import level_cell, short
from .plot_data import Pictures
from .plots import block_of, curve_plots, depth_plot, histogram_plot, introduced_plot
from .power import ENOUGH, EXACT, remembered
from .report import Report

OUTLIERS = 12  # rows shown for each framework: those nearest to, or over, their limit
CHANGES = 200  # since the older report, of which
SHOWN = 8  # are not folded away
HEAT = (232, 89, 12)  # of the patches; report.css has it as --heat
NEEDED = ("jinja2", "matplotlib", "PIL")
# The marks beside the verdicts: nobody has to tell colours apart.
MARKS = {"exact": "✓", "roundoff": "✓", "explained": "✓", "fault": "✗", "not comparable": "?", "coverage hole": "?"}


def missing_libraries() -> list[str]:
    """The page's packages that are not installed; judging needs none of them."""
    absent = []
    for name in NEEDED:
        try:
            import_module(name)
        except ImportError:
            absent.append(name)
    return absent


def write_page(report: Report, path: Path) -> None:
    """Write report.html."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, loader=PackageLoader(str(__package__), ".")
    )
    environment.filters |= {"short": short, "ratio": _ratio, "breakable": _breakable}
    environment.globals |= {"cell": level_cell, "style": stylesheet(), "marks": MARKS, "shown": SHOWN}
    pictures = report.pictures or Pictures()
    text = environment.get_template("report.html").render(
        report=report,
        levels=LEVELS,
        frameworks=[_framework(report, judgement) for judgement in report.judgements],
        depths=list(_depths(report.judgements)),
        introduced=[introduced_plot(report.judgements, backward, f"i{backward:d}-") for backward in (False, True)],
        curves=curve_plots(pictures, "c-"),
        histogram=histogram_plot(pictures, "h-"),
        images=_images(pictures),
        changes=report.against.changes[:CHANGES] if report.against else [],
        power=_power(report.power),
        environment=_environment(report.judgements),
    )
    path.write_text(text, encoding="utf-8")


def stylesheet() -> str:
    """The style of every page, as CSS."""
    return _resource("report.css")


def _resource(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _framework(report: Report, judgement: Judgement) -> dict[str, Any]:
    """The page's section on one framework."""
    return {
        "judgement": judgement,
        "label": judgement.label,
        "gate": _gate(report, judgement),
        "verdict": report.verdict(judgement),
        "reason": report.reason(judgement),
        "reference": report.reference.summary(judgement.label) if report.reference else None,
        "gradients": _heat(
            ((f.name.removeprefix("grad/"), f) for f in judgement.findings if f.limit and f.name.startswith("grad/")),
            backward=True,
        ),
        "introduced": [_introduced(judgement, backward) for backward in (False, True)],
        "outliers": sorted(judgement.findings, key=lambda finding: -finding.ratio)[:OUTLIERS],
    }


def _gate(report: Report, judgement: Judgement) -> dict[str, str]:
    """The level of the tensor that fails an explicit --atol or --rtol, and how; else nothing."""
    reference = report.reference
    summary = reference.summary(judgement.label) if reference and reference.asked else None
    if not reference or not summary or summary["passed"]:
        return {}
    levels = {finding.name: finding.level for finding in judgement.findings}
    distance = f"{summary['tensor']}: needs atol {short(summary['atol_needed'])} beside {reference.label}, "
    return {"level": levels.get(summary["tensor"], "forward"), "why": f"{distance}more than {short(reference.atol)}"}


def _introduced(judgement: Judgement, backward: bool) -> dict[str, Any] | None:
    """The introduced errors of the one pass or the other."""
    named = [
        (finding.name.removeprefix("dy/"), finding)
        for finding in judgement.findings
        if finding.introduced_limit and finding.name.startswith("dy/") == backward
    ]
    named = [(name, finding) for name, finding in named if not name.startswith("grad/")]
    return _heat(named, lambda finding: finding.introduced / finding.introduced_limit, backward)


def _heat(
    named: Iterable[tuple[str, Finding]],
    ratio: Callable[[Finding], float] = lambda finding: finding.ratio,
    backward: bool = False,
) -> dict[str, Any] | None:
    """Error over limit by block (rows) and part of the block (columns), and of the tensors outside the blocks."""
    rows: dict[str, dict[str, dict[str, Any]]] = {}
    others = []
    for name, finding in named:
        value = ratio(finding)
        tile = {"value": value, "heat": _heat_of(value), "name": name, "operation": finding.operation}
        if block := block_of(name):
            kind = name[name.index(block) + len(block) + 1 :] or "output"
            rows.setdefault(block, {})[kind] = tile
        else:
            others.append(tile)
    if not rows and not others:
        return None
    order = dict(sorted(rows.items(), key=lambda row: (row[0].startswith("decoder"), int(row[0].split(".")[-1]))))
    kinds = list(dict.fromkeys(kind for row in rows.values() for kind in row))
    if backward:
        kinds, others = kinds[::-1], others[::-1]
    tiles = [tile for row in rows.values() for tile in row.values()] + others
    return {
        "rows": order,
        "kinds": kinds,
        "others": others,
        "worst": max(tiles, key=lambda tile: _number(tile["value"])),
    }


def _ratio(value: float) -> str:
    """.43, 2.50, 128"""
    return f"{value:.2f}".removeprefix("0") if value < 10 else short(value)


def _breakable(name: str) -> str:
    """A name as HTML that may go over to another line behind a dot, a slash or an underscore."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"([./_])", r"\1<wbr>", str(escape(name))))


def _number(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _heat_of(ratio: float) -> int:
    """Per cent of the full colour: linear up to the limit."""
    return round(100 * min(1.0, _number(ratio)))


def _depths(judgements: list[Judgement]) -> Iterable[dict[str, Any]]:
    """The plots of E along the depth, each with its title."""
    plots: dict[str, tuple[Callable[[Finding], bool], str]] = {
        "Forward pass": (
            lambda f: f.level in ("forward", "loss") and not f.name.startswith("injected/"),
            "tensors in the order of the forward pass",
        ),
        "Backward pass": (lambda f: f.name.startswith("dy/"), "gradients of the taps in the order of the backward pass"),
        "Gradients of the parameters": (lambda f: f.name.startswith("grad/"), "parameters in the order of the backward pass"),
        "Optimizer step": (lambda f: f.level == "optimizer", "updates and moments, by case and parameter"),
    }  # fmt: skip
    for i, (title, (chosen, along)) in enumerate(plots.items()):
        measured = lambda finding, chosen=chosen: bool(finding.limit) and chosen(finding)  # noqa: E731
        if svg := depth_plot(judgements, measured, along, f"d{i}-"):
            yield {"title": title, "svg": svg, "marked": "var(--bad)" in svg}


def _images(pictures: Pictures) -> list[dict[str, Any]]:
    """Each image with the error of every patch, by framework, scaled to the worst patch of any framework."""
    everywhere = [value for rows in pictures.patch_errors.values() for row in rows for value in row]
    worst = max(filter(math.isfinite, everywhere), default=0.0)
    if not worst or not pictures.thumbnails:
        return []
    height, width = pictures.grid
    images = []
    for i, thumbnail in enumerate(pictures.thumbnails):
        drawn = []
        for label, rows in pictures.patch_errors.items():
            errors = np.array(rows[i])
            errors[~np.isfinite(errors)] = np.inf
            row, column = divmod(int(errors.argmax()), width)
            heat = np.minimum(1, errors / worst).reshape(height, width)
            drawn.append({
                "label": label, "worst": errors.max(), "at": (row, column), "uri": _data_uri(_overlay(heat), "PNG")
            })  # fmt: skip
        masked = [divmod(j, width) for j, removed in enumerate(pictures.masks[i]) if removed]
        outline = "".join(f"M{x}.06 {y}.06h.88v.88h-.88z" for y, x in masked)
        uri = _data_uri(thumbnail.mean(axis=2).astype(np.uint8), "JPEG")  # grey, so that only the error has a colour
        images.append(
            {"number": i, "uri": uri, "grid": pictures.grid, "drawn": drawn, "scale": worst, "outline": outline}
        )
    return images


def _overlay(heat: NDArray[np.float64]) -> NDArray[np.uint8]:
    """One pixel for each patch, less transparent where its heat, from 0 to 1, is larger: [height, width, 4]."""
    pixels = np.empty((*heat.shape, 4), np.uint8)
    pixels[..., :3] = HEAT
    pixels[..., 3] = np.round(0.8 * 255 * heat)
    return pixels


def _data_uri(pixels: NDArray[np.uint8], kind: str) -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, quality=85)
    return f"data:image/{kind.lower()};base64," + base64.b64encode(file.getvalue()).decode()


def _power(rows: list[dict[str, Any]] | None) -> dict[str, Any] | None:
    """A row for each planted fault, with its margin in every framework. None: those that came with this version."""
    source = ""
    if rows is None and (measured := remembered()):
        rows = measured["faults"]
        source = f"Measured on small models with version {measured['version']}, by planting faults (make power). "
    faults: dict[str, dict[str, Any]] = {}
    for row in rows or []:
        new = {"name": row["name"], "level": {}, "located_at": {}, "margins": {}, "seen": 0.0, "unit": ""}
        fault = faults.setdefault(row["name"], new)
        fault["seen"] = max(fault["seen"], row.get("smallest") or 0.0)  # in the worst framework
        fault["unit"] = "" if row.get("size") else " of it"
        for name in ("level", "located_at"):
            fault[name][row[name] or "-"] = None  # a set in the order of its items
        right = row["located_at"] == row.get("expected", row["located_at"])
        margin = "notice" if row.get("notice") else _margin(row["margin"])
        tile = {"margin": margin, "passed": right and row["margin"] >= ENOUGH}
        fault["margins"][row.get("framework", "")] = tile
    names = list(dict.fromkeys(row.get("framework", "") for row in rows or []))
    return {"frameworks": names, "rows": list(faults.values()), "source": source} if faults else None


def _margin(value: float) -> str:
    return "exact" if value >= EXACT else short(value)


def _environment(judgements: list[Judgement]) -> dict[str, list[str]]:
    """Every field of the recorded environments, by framework."""
    names = dict.fromkeys(name for judgement in judgements for name in judgement.environment)
    return {name: [_said(judgement.environment.get(name)) for judgement in judgements] for name in names}


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_said(item)}" for name, item in value.items())
    return "-" if value is None else str(value)
