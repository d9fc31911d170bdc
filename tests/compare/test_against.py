"""A report beside an older one: what got better and worse, what is new or gone, and reports of another run."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_reports import made_report
from runs import oracle, plain, twins

from polymae.cli import main
from polymae.compare.limits.findings import Finding, Judgement
from polymae.compare.report.baseline import against
from polymae.compare.report.files import read_report
from polymae.compare.report.report import Report
from polymae.files.errors import Problem

NAME = "blocks.1.norm2"


@pytest.fixture
def older() -> Report:
    return made_report()


@pytest.fixture
def newer(older: Report) -> Report:
    return copy.deepcopy(older)


def tensor(report: Report, name: str = NAME, framework: int = 1) -> Finding:
    return next(finding for finding in report.judgements[framework].findings if finding.name == name)


def said(newer: Report, older: Report) -> list[tuple[str, str, str, str]]:
    changes = against(newer, older, "old.json").changes
    return [(change.framework, change.kind, change.name, change.direction) for change in changes]


def test_nothing_changed(older: Report, newer: Report) -> None:
    assert said(newer, older) == []


@pytest.mark.parametrize(("factor", "direction"), [(1.4, ""), (1.8, "worse"), (1 / 1.4, ""), (1 / 1.8, "better")])
def test_only_more_than_noise_counts(older: Report, newer: Report, factor: float, direction: str) -> None:
    tensor(older).error = 5.0
    tensor(newer).error = 5.0 * factor
    assert said(newer, older) == ([("torch", "tensor", NAME, direction)] if direction else [])
    tensor(newer).size = 20  # an error of so few elements is mostly luck
    assert said(newer, older) == []


def test_below_one_unit_of_roundoff_all_errors_are_the_same(older: Report, newer: Report) -> None:
    tensor(older).error, tensor(newer).error = 0.01, 0.9
    assert said(newer, older) == []


def test_a_level_that_moved_as_a_whole(older: Report, newer: Report) -> None:
    for finding in newer.judgements[2].findings:
        if finding.level == "gradients":
            finding.error *= 3
    found = against(newer, older, "old.json").changes
    level = next(change for change in found if change.kind == "level")
    assert (level.framework, level.name, level.direction) == ("megengine", "gradients", "worse")
    assert level.ratio == pytest.approx(3, rel=0.3)


def test_the_verdict_that_became_worse_comes_first(older: Report, newer: Report) -> None:
    tensor(older, framework=4).verdict = "fault"  # oneflow was mended
    tensor(newer).verdict, tensor(newer).error = "fault", 500.0
    for finding in newer.judgements[2].findings:
        finding.error *= 9
    found = against(newer, older, "old.json")
    assert str(found.changes[0]) == "torch: roundoff -> fault, worse"
    kinds = [(change.direction, change.kind) for change in found.changes]
    assert kinds.index(("worse", "level")) < kinds.index(("worse", "tensor")) < kinds.index(("better", "verdict"))
    wrong = next(change for change in found.changes if change.name == NAME and change.framework == "torch")
    assert wrong.before.startswith("roundoff, E ")
    assert wrong.after.startswith("fault, E 500 u of ")


def test_new_and_gone(older: Report, newer: Report) -> None:
    newer.judgements[1].findings.remove(tensor(newer))
    older.judgements[1].findings.remove(tensor(older, "latent"))
    newer.judgements = [*newer.judgements[:4], Judgement("paddle")]
    assert sorted(said(newer, older)) == sorted(
        [
            ("torch", "gone", NAME, ""),
            ("torch", "new", "latent", ""),
            ("oneflow", "gone", "", ""),
            ("paddle", "new", "", ""),
        ]
    )


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"model": "mae_vit_base_patch16"}, "model is mae_vit_base_patch16"),
        ({"content_hash": "1" * 64}, "content hash"),
        ({"mask_ratio": 0.5}, "mask ratio is 0.5, this one's 0.75"),
        ({"oracle": "torch float32, limits a priori"}, "oracle"),
        ({"config": {"patch_size": 4}}, "setting patch_size is 4"),
        ({"digests": {"imgs": "b" * 64}}, "input imgs"),
    ],
)
def test_another_run_is_refused(older: Report, newer: Report, change: dict[str, Any], field: str) -> None:
    if change.keys() <= vars(older.about).keys():
        other = replace(older, about=replace(older.about, **change))
    else:
        other = replace(older, **change)
    with pytest.raises(Problem, match=field):
        against(newer, other, "old.json")


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", "--level", "weights,inputs,forward,loss", "--traces", *map(str, (oracle(), *twins(), plain()))]
    assert main([*words, "--out", str(tmp_path / "old")]) == 0
    old = tmp_path / "old" / "report.json"
    capsys.readouterr()
    assert main([*words, "--against", str(old)]) == 0
    assert "0 worse, 0 better" in capsys.readouterr().out

    values = json.loads(old.read_text())
    finding = next(t for t in values["frameworks"][0]["tensors"] if t["name"] == NAME)
    finding["error"], finding["verdict"] = 500.0, "fault"
    old.write_text(json.dumps(values))
    markdown = tmp_path / "report.md"
    assert main([*words, "--against", str(old), "--json", "--markdown", str(markdown)]) == 0
    changes = json.loads(capsys.readouterr().out)["against"]["changes"]
    assert [(change["kind"], change["name"], change["direction"]) for change in changes] == [
        ("verdict", "", "better"), ("tensor", NAME, "better"),
    ]  # fmt: skip
    assert "fault -\\> roundoff, better" in markdown.read_text()

    values["mask_ratio"] = 0.5
    old.write_text(json.dumps(values))
    assert main([*words, "--against", str(old), "--out", str(tmp_path / "new")]) == 2
    shown = capsys.readouterr()
    assert "its mask ratio is 0.5, this one's 0.75" in shown.err
    assert "roundoff" in shown.out  # what was compared is there all the same
    assert read_report(tmp_path / "new" / "report.json").exit_status == 0


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": "polymae-compare-1"}', '{"schema": "polymae-compare-2"}'])
def test_what_is_no_report_is_refused_before_the_work(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "report.json"
    path.write_text(text)
    assert main(["compare", "-m", "mae_vit_test_patch8", "--against", str(path)]) == 2
    shown = capsys.readouterr()
    assert str(path) in shown.err
    assert "recorded" not in shown.err


def test_a_report_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="No report"):
        read_report(tmp_path / "none.json")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Problem, match="Cannot read"):
        read_report(tmp_path / "binary")
