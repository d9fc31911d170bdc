"""The page of runs: it stands alone, is well-formed, and draws long runs, unlike runs and names of any kind."""

from __future__ import annotations

import re
from pathlib import Path

import html5lib
import numpy as np
import pytest
from made_runs import tiny_recipe

from polymae.compare.limits.metrics import U
from polymae.compare.report import html as report
from polymae.compare.runs.judging import against_reference, against_run
from polymae.compare.runs.page import PAGE, POINTS, page, write_files
from polymae.compare.runs.reference import Reference
from polymae.compare.runs.result import Judged, Runs
from polymae.compare.runs.run import Run

ODD = 'a "b" <i>c</i> [red]d[/] $e$ \\f &amp;'  # a name that is neither HTML nor markup nor a pattern
STEPS, PER_EPOCH = 3000, 100
DATA = {"images": 800, "fingerprint": "f", "first_batch": "b"}


def made(label: str, off: float = 0.0, settings: tuple[str, ...] = (), begin: int = 1, at: int = STEPS) -> Run:
    """A run whose losses are off by a relative distance from a step on."""
    steps = np.arange(begin, STEPS + 1)
    loss = 2 / np.sqrt(steps) * np.where(steps < at, 1 + 2 * U, 1 + off)
    rate = np.full(steps.shape, 1e-3)
    return Run(
        label,
        Path(label),
        tiny_recipe(*settings),
        steps,
        (steps - 1) // PER_EPOCH,
        loss,
        rate,
        2 * loss,
        ("torch",),
        DATA,
    )


def made_reference() -> Reference:
    run = made("tiny")
    oracle = run.loss[:150] * (1 - U)
    means = np.array(list(run.epoch_means.values()))
    return Reference(
        "tiny", tiny_recipe(), DATA, oracle, 2 * oracle, [oracle * (1 + 3 * U)], [2 * oracle * (1 + 3 * U)], run.lr, run.loss,
        means, np.array([means * 1.01, means * 0.99]), {"oracle": "tests"},
    )  # fmt: skip


def elements(text: str) -> list[tuple[str, dict[str, str]]]:
    """Every element and its attributes; a page with an error in it fails here."""
    tree = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(text)
    return [
        (str(one.tag).split("}")[-1], {name if isinstance(name, str) else name[1]: v for name, v in one.attrib.items()})
        for one in tree.iter()
    ]


@pytest.mark.parametrize("by_reference", [True, False])
def test_the_page_stands_alone(by_reference: bool, tmp_path: Path) -> None:
    first = made("first")
    runs = [made(ODD, 1e-3, at=40), made("late", 3 * U, begin=120), made("other", 0.1, settings=("seed=1",), at=1)]
    if by_reference:
        reference = made_reference()
        judged = [against_reference(run, reference) for run in runs]
        assert [one.verdict for one in judged] == ["parts", "roundoff", "not comparable"]
        found, drawn = Runs("tiny", judged, of_reference=True, made=dict(reference.made)), runs
    else:
        judged = [against_run(run, first) for run in runs]
        assert [one.verdict for one in judged] == ["parts", "roundoff", "parts"]
        found, drawn, reference = Runs("first", judged, of_reference=False), [first, *runs], None
    assert [one.parts for one in judged] == [40, None, None if by_reference else 1]
    found.judged.append(Judged("none", "none", reason="there is none"))
    written, lacking = write_files(found, drawn, tmp_path, reference)
    assert (lacking, [path.name for path in written]) == ("", [PAGE, "runs.json"])
    text = (tmp_path / PAGE).read_text(encoding="utf-8")
    assert len(text) < 1_500_000
    every = elements(text)
    ids = [attributes["id"] for _, attributes in every if "id" in attributes]
    assert len(ids) == len(set(ids)) > 10
    names = ("src", "href", "srcset", "action", "data", "poster")
    links = {attributes[name] for _, attributes in every for name in names if name in attributes}
    links |= set(re.findall(r"url\(([^)]*)\)", text))
    assert {link[1:] for link in links} <= set(ids)
    assert all(link.startswith("#") for link in links)
    assert not {tag for tag, _ in every} & {
        "script",
        "link",
        "iframe",
        "object",
        "embed",
        "i",
        "foreignObject",
        "form",
        "img",
    }
    assert [tag for tag, _ in every].count("svg") == 4
    assert all(attributes["aria-label"] for tag, attributes in every if tag == "svg")
    headings = re.findall("<h2[^>]*>([^<]*)", text)
    assert headings == ["Verdicts", "Settings and data that differ", "Curves", "Mean loss of each epoch"]
    assert "✗" in text
    assert found.exit_status == 1


def test_what_is_wide_scrolls_by_itself(tmp_path: Path) -> None:
    """At the width of a phone: every table and plot is in a box of its own, which the style sheet has scroll."""
    reference = made_reference()
    run = made("run", U)
    tree = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(
        page(Runs("tiny", [against_reference(run, reference)], of_reference=True), [run], reference)
    )
    above = {child: parent for parent in tree.iter() for child in parent}
    wide = [one for one in tree.iter() if str(one.tag).split("}")[-1] in ("table", "svg")]
    assert len(wide) == 6
    assert [above[one].get("class") for one in wide] == ["wide"] * 6
    assert re.search(r"\.wide \{[^}]*overflow-x: auto", report.stylesheet())


def test_a_long_run_is_thinned_and_its_peak_stays(tmp_path: Path) -> None:
    first, run = made("first"), made("run", 2 * U)
    for one in (first, run):
        one.loss[:] *= np.random.default_rng(0).uniform(0.5, 1.5, STEPS)  # nothing is on a line with its neighbours
    run.loss[1234] *= 1.5
    found = Runs("first", [against_run(run, first)], of_reference=False)
    assert found.judged[0].parts == 1235
    svg = re.findall(r"<svg.*?</svg>", page(found, [first, run]), re.S)
    points = max(line.count("L") for line in re.findall(r'<path d="([^"]*)"', svg[0]))
    assert POINTS / 2 < points <= POINTS
    assert "at most 8.4e6 u" in svg[1]


def test_without_a_library_for_the_page_there_is_the_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "NEEDED", ("no_such_library",))
    (tmp_path / PAGE).write_text("older")
    run, reference = made("run", U), made_reference()
    found = Runs("tiny", [against_reference(run, reference)], of_reference=True)
    written, lacking = write_files(found, [run], tmp_path, reference)
    assert [path.name for path in written] == ["runs.json"]
    assert "no_such_library" in lacking
    assert not (tmp_path / PAGE).exists()
