"""Reports: verdicts of recorded traces in the terminal, as JSON and as a page; what explains a fault and what does not."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from polymae.backends.errors import Problem
from polymae.cli import main
from polymae.compare.offline import compare_traces
from polymae.compare.page import write_page
from polymae.compare.report import Report, print_report
from polymae.compare.trace import Trace
from polymae.compare.verdict import Comparison
from runs import MODEL, Edited, oracle, plain, recorded, report, twins, verdicts

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
    pred[0, 0, 0] = np.nan
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


def test_a_run_with_a_planted_fault_is_no_oracle(tmp_path: Path) -> None:
    wrong = Edited(oracle(), {"pred": Trace(oracle())["pred"] * 2}, fault="mine").save(tmp_path / "f.npz")
    assert verdicts(report(wrong)) == {"numpy": "fault"}
    with pytest.raises(Problem, match="nothing to judge"):
        compare_traces([wrong], Comparison())


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
    assert found["exit_status"] == 1
    rows = {row["framework"]: row for row in found["frameworks"]}
    assert {name: row["verdict"] for name, row in rows.items()} == verdicts(mixed)
    assert rows["megengine"]["first_wrong"] == "pred"
    tensors = {tensor["name"]: tensor for tensor in rows["megengine"]["tensors"]}
    assert tensors["pred"]["error"] == "inf"
    assert rows["megengine"]["reference"]["atol_needed"] == "nan"
    assert rows["oneflow"]["coverage"] == ["blocks.0.norm1 is missing"]
    assert rows["numpy"]["worst"].keys() == set(found["levels"])


class Page(HTMLParser):
    """What a page holds, and whether its elements end where they should."""

    CLOSED = frozenset({"table", "div", "svg", "g", "defs", "details", "summary", "code", "span", "h1", "h2", "style"})

    def __init__(self, text: str):
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, "str | None"]]) -> None:
        self.tags.add(tag)
        self.open += [tag] if tag in self.CLOSED else []
        for name, value in attrs:
            if name == "id":
                self.ids.append(str(value))
            if name in ("src", "href", "xlink:href", "srcset", "action", "data"):
                self.links.append(str(value))
            self.links += re.findall(r"url\(([^)]*)\)", value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, "str | None"]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.CLOSED:
            assert self.open.pop() == tag


def test_the_page_stands_alone(mixed: Report, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_page(mixed, path)
    text = path.read_text()
    page = Page(text)
    assert not page.open
    assert len(page.ids) == len(set(page.ids)) > 50
    assert page.links
    assert {link for link in page.links if not (link.startswith("#") and link[1:] in page.ids)} == set()
    assert not page.tags & {"script", "link", "img", "iframe", "object", "embed", "i"}
    assert "@import" not in text
    assert path.stat().st_size < 1_000_000
    for label, found in verdicts(mixed).items():
        assert label.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&#34;") in text
        assert f'">{found}</span>' in text
    assert "first wrong: pred" in text
    assert text.count("<svg") == 2 * 4  # forward and backward of each that was judged


def printed(found: Report, capsys: pytest.CaptureFixture[str]) -> str:
    print_report(found, Path("reports"))
    return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)


def test_the_table_in_a_pipe(
    mixed: Report, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")  # a pipe has no width
    mixed.judgements[0].problem = 'to install it: pip install -e ".[torch]"'
    said = printed(mixed, capsys)
    assert "…" not in said
    assert '".[torch]"' in said
    assert ODD in said
    for found in verdicts(mixed).values():
        assert f" {found} " in said
    assert "first wrong: pred" in said
    assert "reports/report.html" in said


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_the_table_in_a_terminal(
    mixed: Report, columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # Rich takes it for a terminal
    monkeypatch.setenv("COLUMNS", str(columns))
    said = printed(mixed, capsys)
    tables = said.splitlines()[:-1]  # the last line is the paths', which can be longer
    assert max(map(len, tables)) <= columns
    assert "…" not in said
    for found in verdicts(mixed).values():
        assert f" {found} " in said
