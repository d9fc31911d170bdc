"""The power of a comparison: how margins are taken, what fails the gate, and how it is told."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from mutants import FAULTS, harness
from mutants import __main__ as command
from mutants import power as module
from mutants.harness import Bench
from mutants.power import Power, Row, margin, power, power_of
from mutants.power_table import complaints, markdown
from mutants.usual_checks import PASSING, USUAL, side_by_side

from polymae.compare.limits.findings import Finding, Judgement
from polymae.compare.options import Run
from polymae.compare.report.power import EXACT
from polymae.compare.trace import Outcome

FEW = (
    "last norm eps ten times larger", "mask of the kept", "attention scale off by 1e-5", "q and k swapped",
    "denormal numbers flushed", "twice the decoder's heads",
)  # fmt: skip


def finding(**fields: object) -> Finding:
    return replace(Finding("pred", "forward", "linear", "fault", error=10.0, limit=4.0), **fields)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, 2.5),
        ({"verdict": "roundoff"}, 0.0),
        ({"verdict": "explained"}, 0.0),
        ({"introduced": 12.0, "introduced_limit": 3.0}, 4.0),
        ({"introduced": 3.0, "introduced_limit": 3.0}, 2.5),
        ({"limit": 0.0, "error": 1.0}, EXACT),
        ({"error": math.inf}, EXACT),
        ({"verdict": "not comparable", "error": math.inf, "limit": 0.0}, EXACT),
        ({"verdict": "not comparable"}, 0.0),
    ],
)
def test_a_margin_is_error_over_limit(fields: dict[str, object], expected: float) -> None:
    assert margin(finding(**fields)) == expected


@pytest.fixture(scope="module")
def found() -> Power:
    return power(("numpy",), FEW)


def test_rows_say_where_and_by_how_much(found: Power) -> None:
    rows = {row.name: row for row in found.rows}
    assert rows.keys() == set(FEW)
    assert found.exit_status == 0, complaints(found)
    assert rows["mask of the kept"].margin == rows["twice the decoder's heads"].margin == EXACT
    assert rows["q and k swapped"].level == "weights"
    assert rows["denormal numbers flushed"].located_at == "environment/denormals"
    assert rows["denormal numbers flushed"].smallest is None
    assert [row.name for row in found.rows if row.notice] == ["denormal numbers flushed"]
    scale = rows["attention scale off by 1e-5"]
    assert scale.smallest == pytest.approx(1e-5 / scale.margin)
    assert rows["q and k swapped"].smallest == pytest.approx(
        1 / max(m for m in rows["q and k swapped"].margins.values() if m < EXACT)
    )


def test_traces_are_gone_once_they_are_judged(found: Power, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of base/16 has 0.9 GB, and there are some fifty faults for it."""
    monkeypatch.setattr(harness, "ROOM", 1)
    with Bench(tmp_path, FEW) as small:
        at_work = small.record
        waiting: list[int] = []

        def counted(runs: list[Run]) -> list[Outcome]:
            outcomes = at_work(runs)
            waiting.append(len(list(tmp_path.rglob("numpy*.npz"))))
            return outcomes

        small.record = counted
        one_by_one = power_of(small, "numpy")
        assert set(waiting) == {1}
        assert not list(tmp_path.rglob("numpy*.npz"))
    assert {row.name: row for row in one_by_one.rows} == {row.name: row for row in found.rows}


def test_a_fault_is_found_where_a_report_says() -> None:
    inf, judgement = math.inf, Judgement("torch")
    unlike = finding(name="softmax", verdict="not comparable", error=inf, limit=0.0, reason="shape (2, 6), not (2, 3)")
    of_oracle = replace(unlike, name="loss", reason="the oracle's is not finite itself")
    wrong, to_blame = finding(name="blocks.0"), finding(name="proj", introduced=9.0, introduced_limit=3.0)
    for findings, name in (
        ([unlike, wrong, to_blame], "softmax"),
        ([wrong, unlike, to_blame], "softmax"),
        ([to_blame, unlike], "proj"),
        ([wrong, unlike], "blocks.0"),
        ([of_oracle, to_blame], "proj"),
        ([finding(name="weights/a", level="weights"), unlike, to_blame], "weights/a"),
    ):
        judgement.findings = findings
        assert judgement.first_wrong
        assert judgement.first_wrong.name == name
        correct = Judgement("none", [finding(verdict="roundoff")])
        assert module._row(FAULTS["q and k swapped"], judgement, correct, "torch", "a model").located_at == name
    judgement.findings = [unlike]  # nothing has a distance: not comparable, and not a fault
    assert judgement.first_wrong is None


def test_what_fails_the_gate_is_told(found: Power) -> None:
    row, alarm = found.rows[0], Judgement("none", [finding()])
    for bad, words in (
        (replace(row, margin=1.9), "which is below 2"),
        (replace(row, located_at="pred"), "found at pred, planted at"),
        (replace(row, margin=0.0, margins={}, problem="it crashed"), "not judged: it crashed"),
    ):
        spoilt = replace(found, rows=[bad, *found.rows[1:]])
        assert spoilt.exit_status == 1
        assert any(words in sentence for sentence in complaints(spoilt))
        assert words in markdown(spoilt)
    spoilt = replace(found, correct=[("numpy", "a model", alarm)])
    assert spoilt.exit_status == 1
    assert complaints(spoilt) == ["numpy, correct run of a model: fault at pred (2.5 of its limit)"]


def test_the_command_writes_what_it_prints(
    found: Power, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    asked: list[object] = []
    kept: list[object] = []
    monkeypatch.setattr(command, "power", lambda frameworks, **options: asked.append((frameworks, options)) or found)
    monkeypatch.setattr(command, "remember", kept.append)
    numbers, page = tmp_path / "power.json", tmp_path / "power.md"
    words = ["--frameworks", "numpy", "--json", str(numbers), "--markdown", str(page), "--remember"]
    assert command.main(words) == 0
    assert asked == [(("numpy",), {"time_limit": None, "model": None})]
    printed = json.loads(numbers.read_text(), parse_constant=lambda text: pytest.fail(f"{text} is not JSON"))
    assert list(printed) == ["faults"]
    assert kept == [printed["faults"]]
    assert {"name", "framework", "level", "margin", "located_at"} <= printed["faults"][0].keys()
    assert all(2 <= row["margin"] <= EXACT for row in printed["faults"])
    said = capsys.readouterr().out
    (line,) = [line for line in said.splitlines() if line.startswith("denormal numbers flushed")]
    assert "notice" in line
    assert "| notice |" in page.read_text()
    assert "*notice*:" in page.read_text()
    assert "(1 of them by a notice alone)" in page.read_text()
    for row in found.rows:
        assert f"| {row.name} |" in page.read_text()
        assert row.expected in page.read_text()
    assert "6 of 6 planted faults" in " ".join(said.split())
    spoilt = replace(found, rows=[Row("tanh gelu", "numpy", "a model", problem="it crashed")])
    monkeypatch.setattr(command, "power", lambda frameworks, **options: spoilt)
    assert command.main([]) == 1
    assert "it crashed" in capsys.readouterr().err


def test_faults_that_pass_elsewhere_do_not_pass_here() -> None:
    correct, eps, scale, gelu = side_by_side(port="numpy", reference="torch")
    assert [eps.name, scale.name, gelu.name] == list(PASSING)
    assert all(correct.passes.values())
    assert correct.judgement.verdict == "roundoff"
    assert all(eps.passes.values())
    assert all(scale.passes.values())
    assert gelu.passes == dict.fromkeys(USUAL, False) | {"cosine above 0.9999": True}
    first = [line.judgement.first_wrong for line in (eps, scale, gelu)]
    assert [wrong and wrong.name for wrong in first] == ["latent", "blocks.0.attn.softmax", "blocks.0.mlp.gelu"]
    assert all(line.judgement.verdict == "fault" for line in (eps, scale, gelu))
