"""A report as JSON with its schema, as JUnit XML and as Markdown, and what NumPy alone can write."""

import html
import json
import os
import re
import subprocess
import sys
from dataclasses import fields
from importlib import resources
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as xml

import jsonschema
import pytest
from made_reports import made_report
from runs import oracle, plain, twins

from polymae.cli import main
from polymae.compare import LEVELS
from polymae.compare.limits.findings import Finding, Judgement
from polymae.compare.report import html as page
from polymae.compare.report.baseline import against
from polymae.compare.report.files import require_places, write_files
from polymae.compare.report.junit import as_junit
from polymae.compare.report.markdown import as_markdown
from polymae.compare.report.report import SCHEMA, Reference, Report, ReportProblem
from polymae.files.errors import Problem

TEXT = resources.files("polymae.compare.report").joinpath("report.schema.json").read_text()
WRONG = "blocks.1.norm2"
ODD = 'a "b" <i>c</i> | *d* \x07 `e`'


@pytest.fixture
def report() -> Report:
    """A report with every part and every kind of verdict."""
    found = made_report(wrong=WRONG)
    _, _, third, fourth, fifth = found.judgements
    third.coverage = ["latent is missing"]
    fourth.findings, fourth.problem = [], "the process ended by signal 11 (SIGSEGV)"
    fifth.label = ODD
    fifth.notices = ["threads could not be set"]
    fifth.findings[-1].error = float("nan")
    assert found.pictures
    found.pictures.patch_errors["torch"][0][0] = float("inf")
    found.against = against(found, made_report(), "old.json")
    row = {"max_abs": 1e-6, "max_rel": float("inf"), "atol_needed": 0.0, "tensor": "pred", "share": 1.0, "passed": True}
    found.reference = Reference("torch", 1e-4, 1e-5, False, stored={"numpy": row})
    return found


def validator() -> Any:
    schema = json.loads(TEXT)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_schema_is_the_reports(report: Report) -> None:
    schema = json.loads(TEXT)
    assert schema["properties"]["schema"]["const"] == SCHEMA
    assert schema["$defs"]["level"]["enum"] == list(LEVELS)
    assert schema["$defs"]["tensor"]["required"] == [item.name for item in fields(Finding)]
    validator().validate(json.loads(report.as_json()))


@pytest.mark.parametrize("part", ["schema", "not_compared", "frameworks", "exit_status"])
def test_the_schema_wants_every_part(report: Report, part: str) -> None:
    values = json.loads(report.as_json())
    assert list(validator().iter_errors(values)) == []
    del values[part]
    assert [error.message for error in validator().iter_errors(values)] == [f"'{part}' is a required property"]


def test_the_schema_knows_every_field(report: Report) -> None:
    values = json.loads(report.as_json())
    values["frameworks"][0]["tensors"][0]["colour"] = "blue"
    values["frameworks"][0]["tensors"][1]["error"] = None
    where = {error.json_path for error in validator().iter_errors(values)}
    assert where == {"$.frameworks[0].tensors[0]", "$.frameworks[0].tensors[1].error"}


def test_every_number_has_its_reason(report: Report) -> None:
    for framework in json.loads(report.as_json())["frameworks"]:
        assert framework["reason"]
        assert all(tensor["reason"] for tensor in framework["tensors"])


def test_json_there_and_back(report: Report) -> None:
    again = Report.from_json(report.as_json())
    assert again.as_json() == report.as_json()
    assert again.exit_status == report.exit_status
    assert again.judgements[1].first_wrong == report.judgements[1].first_wrong


def test_half_a_report_is_refused(report: Report) -> None:
    values = json.loads(report.as_json())
    del values["frameworks"][0]["tensors"][0]["name"]
    with pytest.raises(ReportProblem, match="not a whole report"):
        Report.from_json(json.dumps(values))
    with pytest.raises(ReportProblem, match="old.json is not JSON"):
        Report.from_json(report.as_json()[:-9], "old.json")


def test_junit(report: Report) -> None:
    suites = xml.fromstring(as_junit(report).encode())
    assert [suite.get("name") for suite in suites] == [
        *(j.label for j in report.judgements[:4]),
        ODD.replace("\x07", "?"),
    ]
    for element in (suites, *suites):
        cases = list(element.iter("testcase"))
        assert element.get("tests") == str(len(cases))
        for name, kind in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert element.get(name) == str(len(list(element.iter(kind))))
    numpy, torch, megengine, mindspore, _ = suites
    assert [case.get("name") for case in numpy] == [None, *LEVELS, "run"]
    assert {numpy.get("failures"), numpy.get("errors")} == {"0"}
    failed = {
        case.get("name"): case.find("failure") for case in torch.iter("testcase") if case.find("failure") is not None
    }
    assert "weights" not in failed
    assert (
        str(failed["forward"].get("message"))
        .split(", the first is ")[1]
        .startswith(f"{WRONG}: layer norm in block 1 introduces 321 u")
    )
    assert "kappa" in str(failed[f"forward: {WRONG}"].text)
    assert [case.get("name") for case in megengine.iter("testcase") if case.find("failure") is not None] == ["run"]
    assert {error.get("message") for error in mindspore.iter("error")} == {report.judgements[3].problem}


def test_junit_says_which_levels_were_skipped() -> None:
    found = made_report()
    found.levels = ("weights", "inputs", "forward")
    for judgement in found.judgements:
        judgement.findings = [finding for finding in judgement.findings if finding.level in found.levels]
    suites = xml.fromstring(as_junit(found))
    skipped = [case.get("name") for case in suites[0] if case.find("skipped") is not None]
    assert skipped == list(LEVELS[3:])
    assert suites.get("failures") == suites.get("errors") == "0"


def test_junit_fails_where_the_exit_status_does() -> None:
    found = made_report()
    found.judgements = [Judgement("torch")]
    assert found.exit_status == 2
    assert int(xml.fromstring(as_junit(found)).get("errors", "0")) > 0
    found = made_report()
    row = {"max_abs": 1.0, "max_rel": 1.0, "atol_needed": 1.0, "tensor": "pred", "share": 0.5, "passed": False}
    found.reference = Reference("torch", 0, 1e-5, True, stored={"numpy": row})
    assert found.exit_status == 1
    assert xml.fromstring(as_junit(found)).get("failures") == "1"


def test_markdown(report: Report) -> None:
    text = as_markdown(report)
    lines = text.splitlines()
    assert lines[0].startswith(
        "### ❌ Parity of mae\\_vit\\_test\\_patch8: fault in torch; not comparable in mindspore"
    )
    assert lines[2].startswith("Since old.json: ")
    assert lines[4] == "- torch: roundoff -\\> fault, worse"
    rows = [line for line in lines if re.match(r"\| \w", line)]
    assert rows[0] == f"| framework | verdict | {' | '.join(LEVELS)} |"
    table = lines[lines.index(rows[0]) : lines.index(rows[0]) + 2 + len(report.judgements)]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {len(LEVELS) + 3}
    assert (
        f"- **torch**: first wrong: {WRONG.replace('_', chr(92) + '_')} (layer norm in block 1 introduces 321 u" in text
    )
    assert "<i>" not in text
    assert text.count("<details>") == text.count("</details>") == 1 + 4
    assert len(text) < 20_000
    assert html.escape("<i>c") in text


def test_numpy_alone_judges_and_writes(tmp_path: Path) -> None:
    """Where no other library is installed: everything but the page."""
    script = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in {"numpy", "polymae", *sys.stdlib_module_names}:
            raise ImportError(name)
sys.meta_path.insert(0, Missing())
from polymae.cli import main
sys.exit(main(sys.argv[1:]))
"""
    words = [
        "compare",
        "--level",
        "weights,inputs,forward",
        "--out",
        tmp_path / "out",
        "--junit",
        tmp_path / "junit.xml",
    ]
    command = [sys.executable, "-c", script, *words, "--markdown", tmp_path / "report.md", "--traces"]
    done = subprocess.run([*command, oracle(), *twins(), plain()], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert "No report.html" in done.stderr
    assert "numpy      roundoff" in done.stdout
    assert Report.from_json((tmp_path / "out" / "report.json").read_text()).exit_status == 0
    assert {path.name for path in tmp_path.iterdir()} == {"out", "junit.xml", "report.md"}


def test_files_by_the_command_line(tmp_path: Path) -> None:
    require_places(tmp_path / "new", tmp_path / "also" / "junit.xml", tmp_path / "report.md")
    (tmp_path / "file").write_text("")
    with pytest.raises(Problem, match="Cannot write to"):
        require_places(None, tmp_path / "file" / "junit.xml", None)
    with pytest.raises(Problem, match="is a folder"):
        require_places(None, None, tmp_path)
    assert main(["compare", "-m", "mae_vit_test_patch8", "--markdown", str(tmp_path)]) == 2


def test_without_the_pages_libraries_there_is_no_page(
    report: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "NEEDED", ("jinja2", "no_such_library"))
    (tmp_path / "report.html").write_text("of an older comparison")
    written = write_files(report, tmp_path, tmp_path / "junit.xml", tmp_path / "report.md")
    assert written == [tmp_path / "report.json"]
    assert "No report.html: it needs no_such_library" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"report.json", "junit.xml", "report.md"}
