"""The page: it stands alone, is well-formed, small, and says everything in words too."""

import copy
import re
from pathlib import Path

import html5lib
import pytest
from made_reports import made_report
from mutants import FAULTS

from polymae.compare import LEVELS
from polymae.compare.report.baseline import against
from polymae.compare.report.html import _power, write_page
from polymae.compare.report.power import remember, remembered
from polymae.compare.report.report import Reference, Report

WRONG = "blocks.1.norm2"
ODD = 'a "b" <i>c</i> [red]d[/] $e$ \\f &amp;'  # a name that is neither HTML nor markup nor a pattern
XLINK = "{http://www.w3.org/1999/xlink}href"


@pytest.fixture
def report() -> Report:
    found = made_report(wrong=WRONG)
    found.judgements[2].coverage = ["latent is missing"]
    found.judgements[3].findings, found.judgements[3].problem = [], "the process ended by signal 11"
    found.judgements[4].label = ODD
    found.judgements[4].findings[-1].error = float("inf")
    found.judgements[4].notices = ["threads could not be set"]
    found.against = against(found, made_report(), "old.json")
    return found


def written(report: Report, folder: Path) -> str:
    write_page(report, folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


def elements(text: str) -> list[tuple[str, dict[str, str]]]:
    """Every element and its attributes; a page with an error in it fails here."""
    tree = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(text)
    found = []
    for element in tree.iter():
        attributes = {name if isinstance(name, str) else name[1]: value for name, value in element.attrib.items()}
        found.append((str(element.tag).split("}")[-1], attributes))
    return found


def test_the_page_stands_alone(report: Report, tmp_path: Path) -> None:
    text = written(report, tmp_path)
    found = elements(text)
    ids = [attributes["id"] for _, attributes in found if "id" in attributes]
    assert len(ids) == len(set(ids)) > 20
    names = ("src", "href", XLINK, "srcset", "action", "data", "poster")
    links = {attributes[name] for _, attributes in found for name in names if name in attributes}
    links |= set(re.findall(r"url\(([^)]*)\)", text))
    assert {link.split(",")[0].split("/")[0] for link in links if not link.startswith("#")} == {"data:image"}
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    assert not {tag for tag, _ in found} & {"script", "link", "iframe", "object", "embed", "i", "foreignObject", "form"}
    assert "@import" not in text
    assert not [name for _, attributes in found for name in attributes if name.startswith("on")]


def test_every_verdict_and_reason_is_in_words(report: Report, tmp_path: Path) -> None:
    text = written(report, tmp_path)
    words = "".join(html5lib.parse(text, namespaceHTMLElements=False).itertext())
    for judgement in report.judgements:
        assert judgement.label in words
        assert f" {report.verdict(judgement)}" in words
        assert f"{judgement.label}: {report.reason(judgement)}" in words
    for said in (
        "threads could not be set",
        "Not covered: latent is missing",
        *report.not_compared,
        *LEVELS,
        "old.json",
    ):
        assert said in words
    assert f"first wrong: {WRONG}" in words
    assert "torch: roundoff -> fault, worse" in words
    assert words.count("blocks.0.norm1") > 1  # of the power table


def test_every_plot_has_a_description(report: Report, tmp_path: Path) -> None:
    plots = [attributes for tag, attributes in elements(written(report, tmp_path)) if tag == "svg"]
    assert len(plots) == 4 + 2 + 2 + 1 + 1 + 2 * 5  # depths, introduced, curves, histogram, definitions, patches
    shown = [attributes for attributes in plots if attributes.get("aria-hidden") != "true"]
    assert {attributes["role"] for attributes in shown} == {"img"}
    assert len({attributes["aria-label"] for attributes in shown}) == len(shown)
    forward = shown[0]["aria-label"]
    assert "torch is at most" in forward
    assert "Error along the depth" in forward


def test_colours_are_the_pages(report: Report, tmp_path: Path) -> None:
    text = written(report, tmp_path)
    for svg in re.findall(r"<svg role.*?</svg>", text, re.S):
        assert set(re.findall(r"#[0-9a-f]{6}\b", re.sub(r"data:[^\"]*", "", svg))) <= {"#ffffff"}
    style = text[text.index("<style>") : text.index("</style>")]
    variables = set(re.findall(r"var\((--[\w-]+)", text)) - {"--v"}
    light, dark = style.split("prefers-color-scheme: dark")[:2]
    for part in (light, dark[: dark.index("* {")]):
        assert variables <= set(re.findall(r"(--[\w-]+):", part))


def test_a_base_model_with_five_frameworks_is_small(tmp_path: Path) -> None:
    found = made_report("mae_vit_base_patch16", wrong="decoder_blocks.3.norm1")
    found.against = against(found, made_report("mae_vit_base_patch16"), "old.json")
    text = written(found, tmp_path)
    assert elements(text)
    assert len(text.encode()) < 1_000_000


def test_what_is_not_there_leaves_no_heading(tmp_path: Path) -> None:
    found = made_report()
    row = {"max_abs": 1.0, "max_rel": 1.0, "atol_needed": 1.0, "tensor": "pred", "share": 0.5, "passed": False}
    found.reference = Reference("torch", 1e-4, 1e-5, False, stored={"numpy": row})
    full = written(found, tmp_path)
    for judgement in found.judgements:
        judgement.findings = [finding for finding in judgement.findings if finding.level in ("weights", "inputs")]
    found.pictures, found.power, found.not_compared, found.reference = None, [], [], None
    bare = written(found, tmp_path)
    elements(bare)
    headings = [re.findall('<h2 id="([^"]+)"', text) for text in (full, bare)]
    assert headings[1] == ["verdicts", "environment", "frameworks"]
    assert set(headings[0]) - set(headings[1]) == {
        "not-compared", "depth", "introduced", "gradients", "curves", "histogram", "images", "power", "reference",
    }  # fmt: skip
    links = [set(re.findall('<a href="#([^"]+)"', text)) for text in (full, bare)]
    assert links == [set(headings[0]), set(headings[1])]


def test_where_something_is_wrong_it_is_marked(tmp_path: Path) -> None:
    assert "✕" not in written(made_report(), tmp_path)
    captions = re.findall("<figcaption>(E of every.*?)</figcaption>", written(made_report(wrong=WRONG), tmp_path))
    assert ["✕" in caption for caption in captions] == [True, False, False, False]  # the forward pass's


def test_a_long_name_breaks_behind_its_dots_and_is_text(tmp_path: Path) -> None:
    found = made_report()
    found.judgements[1].findings = [found.judgements[1].findings[-1]]
    found.judgements[1].findings[0].name = "a.b<i>/c_d&amp;"
    text = written(found, tmp_path)
    assert "<code>a.<wbr>b&lt;i&gt;/<wbr>c_<wbr>d&amp;amp;</code>" in text
    assert "i" not in {tag for tag, _ in elements(text)}


def test_patches_are_counted_as_images_are(tmp_path: Path) -> None:
    found = made_report()
    assert found.pictures
    found.pictures.patch_errors["torch"][1][0] = 99.0
    said = html5lib.parse(written(found, tmp_path), namespaceHTMLElements=False).itertext()
    assert "torch: 99 u at row 1, column 1" in list(said)


def test_without_a_measured_power_the_page_shows_that_of_this_version(tmp_path: Path) -> None:
    found, place = made_report(), tmp_path / "power.json"
    measured = remembered()
    assert measured
    assert {row["name"] for row in measured["faults"]} == set(FAULTS)  # else measure it again (make power)
    assert _power(measured["faults"]) == {**(_power(None) or {}), "source": ""}
    found.power = None
    text = written(found, tmp_path)
    elements(text)
    assert f"Measured on small models with version {measured['version']}" in text
    rows = [
        {"name": "a", "framework": "numpy", "level": "forward", "margin": 2.34567, "located_at": "x", "expected": "x",
         "size": None, "smallest": 0.5, "problem": "", "margins": {}},
        {"name": "b", "framework": "numpy", "level": "loss", "margin": 1e9, "located_at": "x", "expected": "y",
         "size": 2.0, "smallest": None, "problem": "", "margins": {}, "notice": True},
    ]  # fmt: skip
    remember(rows, place)
    assert (remembered(place) or {})["faults"] == [
        {"name": "a", "framework": "numpy", "level": "forward", "margin": 2.35, "located_at": "x", "smallest": 0.5},
        {"name": "b", "framework": "numpy", "level": "loss", "margin": 1e9, "located_at": "x", "smallest": None,
         "size": 2.0, "notice": True, "expected": "y"},
    ]  # fmt: skip


def test_the_heat_map_says_which_is_over(tmp_path: Path) -> None:
    found = made_report()
    right = copy.deepcopy(found)
    wrong = next(f for f in found.judgements[1].findings if f.name == "grad/blocks.1.mlp.fc1.weight")
    wrong.error, wrong.verdict = 3 * wrong.limit, "fault"
    text = written(found, tmp_path)
    assert '<td style="--v:100" class="over" title="blocks.1.mlp.fc1.weight: linear.weight">3.00' in text
    assert 'class="over"' not in written(right, tmp_path).replace('<td class="n over"', "").split('id="power"')[0]
