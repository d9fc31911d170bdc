"""Reports: verdicts of recorded traces in the terminal, as JSON and as a page; what explains a fault and what does not."""

import json
import re
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from made_reports import made_report
from runs import MODEL, Edited, oracle, plain, recorded, report, twins, verdicts

from polymae.cli import main
from polymae.compare import LEVELS
from polymae.compare.judge.not_compared import not_compared
from polymae.compare.limits.findings import Finding, Judgement
from polymae.compare.offline import compare_traces
from polymae.compare.options import Comparison
from polymae.compare.report.report import Report
from polymae.compare.report.terminal import print_report
from polymae.compare.trace import Trace
from polymae.files.errors import Problem

ODD = 'a "b" <i>c</i> [red]d[/] $e$ \\f'  # a name that is neither HTML nor markup nor a pattern


def as_framework(folder: Path, name: str, tensors: Any = None, **manifest: Any) -> Path:
    """The correct trace under another framework's name, with something changed."""
    environment = Trace(plain()).manifest["environment"] | {"framework": name}
    fields = {"framework": name, "environment": environment, **manifest}
    return Edited(plain(), tensors, **fields).save(folder / f"{len(list(folder.iterdir()))}.npz")


@pytest.fixture
def mixed(tmp_path: Path) -> Report:
    """A report with every kind of verdict in it."""
    pred = Trace(plain())["pred"].copy()
    pred[0, 0, 0] += 1
    (tmp_path / "broken.npz").write_text("<html>")
    return report(
        tmp_path / "broken.npz",
        plain(),
        as_framework(tmp_path, "torch"),
        as_framework(tmp_path, "megengine", {"pred": pred}),
        as_framework(tmp_path, "oneflow", {"blocks.0.norm1": None}),
        as_framework(tmp_path, ODD, mask_ratio=0.5),
        reference="torch",
    )


def test_every_trace_is_judged(mixed: Report, tmp_path: Path) -> None:
    assert verdicts(mixed) == {
        str(tmp_path / "broken.npz"): "not comparable", "numpy": "roundoff", "torch": "roundoff",
        "megengine": "fault", "oneflow": "coverage hole", ODD: "not comparable",
    }  # fmt: skip
    assert mixed.exit_status == 1
    assert mixed.twins == 2


def test_two_traces_of_one_framework_are_both_judged(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    wrong = as_framework(tmp_path / "one", "torch", {"pred": Trace(plain())["pred"] * 2})
    right = as_framework(tmp_path / "two", "torch")
    assert wrong.name == right.name
    found = verdicts(report(wrong, right, right, reference=None))
    assert found == {str(wrong): "fault", str(right): "roundoff"}


def test_a_twin_of_another_run_sets_no_limit() -> None:
    with pytest.raises(Problem, match="cannot set a limit: source differs"):
        report(recorded("twin of other weights", twin=1, seed=5), plain())


def test_without_an_oracle_the_reference_takes_its_place(tmp_path: Path) -> None:
    torch, right = as_framework(tmp_path, "torch"), as_framework(tmp_path, "oneflow")
    found = compare_traces([right, torch, *twins()], Comparison())
    assert (found.oracle, found.twins) == ("torch float32, limits a priori", 0)
    assert verdicts(found) == {"oneflow": "exact"}
    with pytest.raises(Problem, match="are all oracles"):
        compare_traces([oracle(), Edited(oracle(), {}).save(tmp_path / "again.npz"), right], Comparison())
    with pytest.raises(Problem, match="nothing to judge"):
        compare_traces([oracle(), *twins()], Comparison())
    with pytest.raises(Problem, match="holds no pred"):
        compare_traces([Edited(oracle(), {"pred": None}).save(tmp_path / "part.npz"), right], Comparison())


def test_what_all_runs_share_is_said(tmp_path: Path) -> None:
    alone = "whether the NumPy model is right: oracle and candidate are the same code"
    assert alone in report(plain()).not_compared
    said = report(plain(), as_framework(tmp_path, "torch")).not_compared
    assert alone not in said
    assert "mask ratios other than 0.75 (the losses also at 0.5, 0.9)" in said
    assert any("every framework runs PolyMAE's" in words for words in said)
    assert not any("decay groups" in words for words in said)  # the optimizer was not recorded
    optimizer = Judgement("torch", [Finding("optimizer/lr", "optimizer", "schedule", "exact")])
    assert any("decay groups" in words for words in not_compared(Trace(oracle()), {}, [optimizer], LEVELS))


def test_frameworks_that_are_wrong_at_the_same_tensor_make_the_oracle_suspect(tmp_path: Path) -> None:
    wrong = {"pred": Trace(plain())["pred"] * 2}
    one, two = as_framework(tmp_path, "torch", wrong), as_framework(tmp_path, "oneflow", wrong)
    said = "oneflow, torch are first wrong at pred: the oracle itself is suspect"
    rows = {judgement.label: judgement for judgement in report(one, two, plain()).judgements}
    assert [said in rows[name].notices for name in ("torch", "oneflow", "numpy")] == [True, True, False]
    elsewhere = as_framework(tmp_path, "oneflow", {"latent": Trace(plain())["latent"] * 2})
    for others in ([one, elsewhere], [one, one], [one, as_framework(tmp_path, "numpy", wrong)]):
        assert not any("suspect" in " ".join(judgement.notices) for judgement in report(*others).judgements)


def test_a_tolerance_counts_only_where_it_is_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch = as_framework(tmp_path, "torch")
    words = ["compare", "--traces", *map(str, (oracle(), *twins(), recorded("third", twin=3), torch))]
    words[-2] = str(Edited(recorded("third", twin=3), twin=None).save(tmp_path / "numpy.npz"))
    assert main(words) == 0
    assert "fail" not in capsys.readouterr().out
    assert main([*words, "--atol", "1e-12", "--rtol", "0", "--json"]) == 1
    row = next(row for row in json.loads(capsys.readouterr().out)["frameworks"] if row["framework"] == "numpy")
    assert (row["verdict"], row["first_wrong"], row["reference"]["passed"]) == ("fault", None, False)
    assert "needs atol" in row["reason"]
    assert main([*words, "--atol", "1e-3"]) == 0
    capsys.readouterr()
    for reference in ("oneflow", "none"):  # nothing to hold it against is no success
        assert main([*words, "--atol", "1e-3", "--reference", reference]) == 2
        assert "--reference" in capsys.readouterr().err
    assert main(["compare", "-m", MODEL, "--frameworks", "torch", "--atol", "1e-3"]) == 2
    assert "there is only torch" in capsys.readouterr().err


def test_the_oracle_can_be_the_reference(tmp_path: Path) -> None:
    found = report(as_framework(tmp_path, "torch"), reference="numpy", atol=1e-12)
    assert verdicts(found) == {"torch": "fault"}
    assert report(as_framework(tmp_path, "torch"), reference="numpy", atol=1e-3).exit_status == 0


def test_json(mixed: Report) -> None:
    def refuse(token: str) -> None:
        raise AssertionError(f"{token} is no JSON")

    found = json.loads(mixed.as_json(), parse_constant=refuse)
    schema = json.loads(resources.files("polymae.compare.report").joinpath("report.schema.json").read_text())
    jsonschema.validate(found, schema, jsonschema.Draft202012Validator)
    assert found["exit_status"] == 1
    rows = {row["framework"]: row for row in found["frameworks"]}
    assert {name: row["verdict"] for name, row in rows.items()} == verdicts(mixed)
    assert rows["megengine"]["first_wrong"] == "pred"
    tensors = {tensor["name"]: tensor for tensor in rows["megengine"]["tensors"]}
    assert tensors["pred"]["error"] > tensors["pred"]["limit"] > 0
    assert 0.9 < rows["megengine"]["reference"]["atol_needed"] < 1
    assert rows["oneflow"]["coverage"] == ["blocks.0.norm1 is missing"]
    assert rows["numpy"]["worst"].keys() == set(found["levels"])


def printed(found: Report, capsys: pytest.CaptureFixture[str]) -> str:
    print_report(found, [Path("reports/report.html"), Path("reports/report.json")])
    return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)


def words(said: str) -> set[str]:
    """What was printed, without rules and line breaks."""
    return set(re.findall(r"[^\s─]+", re.sub(r"---+", "", said)))


def test_the_table_in_a_pipe(
    mixed: Report, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")  # a pipe has no width
    mixed.judgements[0].problem = 'to install it: pip install -e ".[torch]"'
    mixed.judgements[1].notices.append("denormals are flushed to zero")
    said = printed(mixed, capsys)
    assert "…" not in said
    assert '".[torch]"' in said
    assert ODD in said
    for found in verdicts(mixed).values():
        assert f" {found} " in said
    assert "first wrong: pred" in said
    assert "denormals are flushed to zero" in said
    assert "not compared: the levels optimizer, curve; the frameworks mindspore; anything of " in " ".join(said.split())
    assert "reports/report.html" in said
    lines = said.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("not compared: "))
    assert lines[start + 1].startswith(" " * len("not compared: "))


@pytest.mark.parametrize("columns", [60, 80, 100, 160])
def test_the_table_in_a_terminal(
    mixed: Report, columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # Rich takes it for a terminal
    monkeypatch.setenv("COLUMNS", str(columns))
    del mixed.judgements[0]  # its label, a path, is as long as it is
    said = printed(mixed, capsys)
    tables = said.splitlines()[:-1]  # the last line is the paths', which can be longer
    for line in tables:  # a path that is longer than the line is not cut, so that it can be copied
        longest = max(map(len, line.split()), default=0)
        assert len(line) <= columns or (longest > 40 and len(line.split()) == 1), line
    assert "…" not in said
    for found in verdicts(mixed).values():
        assert f" {found} " in said


def test_seven_levels_fit_in_100_columns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    found = made_report(wrong="blocks.1.norm2")
    found.judgements[3].problem = "the process ended"
    lines = printed(found, capsys).splitlines()
    head = next(i for i, line in enumerate(lines) if line.split()[:1] == ["framework"])
    assert lines[head].split() == ["framework", "verdict", *LEVELS]
    rows = lines[head + 2 : head + 2 + len(found.judgements)]
    assert [row.split()[0] for row in rows] == [judgement.label for judgement in found.judgements]
    assert {len(row.replace("not c", "c").split()) for row in rows} == {2 + len(LEVELS)}  # no cell is broken
    assert rows[1].split()[1] == "fault"
    assert "1.2e3/" in rows[1]


def test_a_terminal_without_rich(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    found = made_report(wrong="blocks.1.norm2")
    with_rich = words(printed(found, capsys))
    for name in [name for name in sys.modules if name.split(".")[0] == "rich"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rich", None)  # importing it fails
    plain_text = printed(found, capsys)
    assert "─" not in plain_text
    assert words(plain_text) == with_rich
