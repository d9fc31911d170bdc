"""The page's plots: what has no error falls down no axis, and what fails the reference's tolerance is outlined."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from pathlib import Path

import pytest
from made_reports import made_report

from polymae.compare.limits.findings import Finding
from polymae.compare.report.html import write_page
from polymae.compare.report.plots import curve_plots, depth_plot, introduced_plot
from polymae.compare.report.report import Reference, Report

ZERO = ("tokens", "latent", "decoder_norm")
SERIES = "var(--series2)"  # of the framework that has no error at these


def with_zeros() -> Report:
    report = made_report()
    for finding in report.judgements[2].findings:
        if finding.name in ZERO:
            finding.error, finding.introduced, finding.verdict = 0.0, 0.0, "exact"
    assert report.pictures
    report.pictures.distances["megengine"][40] = 0.0
    return report


def forward(finding: Finding) -> bool:
    return finding.level == "forward" and bool(finding.limit)


def plotted(report: Report) -> dict[str, str]:
    assert report.pictures
    return {
        "depth": depth_plot(report.judgements, forward, "depth", "d-"),
        "introduced": introduced_plot(report.judgements, False, "i-"),
        "curve": curve_plots(report.pictures, "c-")[1],
    }


def lines(svg: str, colour: str) -> list[str]:
    """The paths that are drawn in a colour, without the samples of the legend, which nothing clips."""
    return re.findall(rf'<path d="([^"]+)" clip-path="[^"]+" style="fill: none;[^"]*stroke: {re.escape(colour)}', svg)


@pytest.mark.parametrize("name", ["depth", "introduced", "curve"])
def test_where_there_is_no_error_a_line_has_a_gap_and_a_dot(name: str) -> None:
    svg = plotted(with_zeros())[name]
    (line,) = lines(svg, SERIES)
    (other,) = lines(svg, "var(--series1)")
    assert line.count("M") > other.count("M") == 1
    bottom = float(re.search(r'viewBox="0 0 [\d.]+ ([\d.]+)"', svg)[1])  # type: ignore[index]
    highest, lowest = (f([float(y) for y in re.findall(r"[ML] -?[\d.]+ (-?[\d.]+)", other + line)]) for f in (min, max))
    assert 0 < highest < lowest < bottom - 25  # where the names along the axis are
    assert "no error at all" in svg
    dots = re.findall(rf'<use [^>]*y="([\d.]+)"[^>]*fill: {re.escape(SERIES)}', svg)
    assert len(dots) >= (1 if name == "curve" else 2)
    assert max(map(float, dots)) > lowest  # below every line
    assert "no error at all" not in plotted(made_report())[name]


def test_a_number_between_two_gaps_is_seen() -> None:
    report = made_report()
    findings = [finding for finding in report.judgements[2].findings if forward(finding)]
    for finding in findings[3:8]:
        finding.error = 0.0
    findings[5].error = 4.0
    names = "".join(lines(plotted(report)["depth"], SERIES))
    assert names.count("M") == 3  # before, at and after it
    dots = re.findall(rf'<use [^>]*y="([\d.]+)"[^>]*fill: {re.escape(SERIES)}', plotted(report)["depth"])
    assert len(dots) == 5
    assert len(set(dots)) == 2  # four along the bottom


def test_an_error_far_below_roundoff_runs_along_the_bottom() -> None:
    report = made_report()
    for finding in report.judgements[2].findings:
        finding.error *= 1e-9  # as where the framework computes in float64
    (line,) = lines(plotted(report)["depth"], SERIES)
    (other,) = lines(plotted(made_report())["depth"], "var(--series1)")
    heights = set(re.findall(r"[ML] -?[\d.]+ (-?[\d.]+)", line))
    assert len(heights) == 1
    assert float(heights.pop()) >= max(float(y) for y in re.findall(r"[ML] -?[\d.]+ (-?[\d.]+)", other))


@pytest.mark.parametrize("asked", [True, False])
def test_what_fails_the_tolerance_that_was_asked_for_is_outlined(asked: bool, tmp_path: Path) -> None:
    report = made_report()
    row = {
        "max_abs": 1.0,
        "max_rel": 1.0,
        "atol_needed": 0.25,
        "tensor": "grad/norm.bias",
        "share": 0.5,
        "passed": False,
    }
    passed = row | {"passed": True}
    report.reference = Reference("torch", 1e-4, 1e-5, asked, stored={"numpy": row, "oneflow": passed})
    write_page(report, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    verdicts, beside = (text[text.index(f'id="{name}"') :].split("</table>")[0] for name in ("verdicts", "reference"))
    cells = dict(re.findall(r'<tr><th scope="row">(\w+)<td>(.*?)</tr>', verdicts, re.S))
    outlined = {label: cell.count('class="n over"') for label, cell in cells.items()}
    assert outlined == {"numpy": int(asked), "torch": 0, "megengine": 0, "mindspore": 0, "oneflow": 0}
    if asked:
        gradients = cells["numpy"].split("<td")[5]  # after the verdict, weights, inputs, forward and loss
        assert 'title="grad/norm.bias: needs atol 0.25 beside torch, more than 1e-05"' in gradients
        assert "over" in gradients
    assert re.findall(r'<td( class="over")?>(pass|fail)</tr>', beside) == [
        (' class="over"' if asked else "", "fail"), ("", "pass"),
    ]  # fmt: skip


@pytest.mark.parametrize("model", ["mae_vit_test_patch8", "mae_vit_base_patch16", "mae_vit_huge_patch14"])
def test_names_along_an_axis_do_not_overlap(model: str) -> None:
    report = made_report(model)
    angle = math.radians(40)
    for svg in (
        depth_plot(report.judgements, forward, "depth", "d-"),
        depth_plot(report.judgements, lambda f: f.name.startswith("grad/"), "depth", "g-"),
        depth_plot(report.judgements, lambda f: f.level == "optimizer" and bool(f.limit), "depth", "o-"),
        introduced_plot(report.judgements, False, "i-"),
        introduced_plot(report.judgements, True, "b-"),
    ):
        texts = re.findall(r'font-size: (\d+)px[^>]*transform="translate\(([\d.]+) ([\d.]+)\) rotate\(-40\)"', svg)
        # How far the line on which a name stands is from the axis' beginning, across the direction of writing.
        lines = sorted(float(x) * math.sin(angle) + float(y) * math.cos(angle) for _, x, y in texts)
        assert len(lines) > 3
        assert min(b - a for a, b in pairwise(lines)) >= 0.95 * float(texts[0][0])
