"""The page in a real browser: nothing sticks out at desktop and phone width, and nothing is loaded or logged.

Needs Chromium (Debian's package), which is no dependency of the project: without it these tests are skipped, which is told,
and a failure in continuous integration (tests/untested.py).
"""

import html
import json
import re
import shutil
from pathlib import Path

import children
import pytest
from made_reports import made_report
from untested import skipped_where

from polymae.compare.report.baseline import against
from polymae.compare.report.html import write_page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = skipped_where(CHROMIUM is None, "Chromium draws the page and is not here", "apt-get install chromium")

# Put into a copy of the page: what is wider than the window (and in no container that scrolls), and what went wrong.
MEASURE = """
<script>
const errors = [];
addEventListener("error", event => errors.push(String(event.message || event.target.tagName)), true);
addEventListener("securitypolicyviolation", event => errors.push(event.blockedURI));
addEventListener("load", () => {
  const wide = [], tiny = [];
  for (const element of document.querySelectorAll("body *")) {
    const box = element.getBoundingClientRect();
    if (element.closest(".wide, svg") && !element.matches(".wide")) continue;
    if (box.right > innerWidth + 0.5) wide.push(element.outerHTML.slice(0, 80));
  }
  for (const element of document.querySelectorAll("p, li, td, th, summary, figcaption"))
    if (parseFloat(getComputedStyle(element).fontSize) < 11) tiny.push(element.outerHTML.slice(0, 80));
  // What is written in a plot grows and shrinks with it.
  for (const svg of document.querySelectorAll("figure svg[viewBox]")) {
    const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
    for (const text of svg.querySelectorAll("text"))
      if (scale && parseFloat(getComputedStyle(text).fontSize) * scale < 11) tiny.push(text.textContent);
  }
  // A first column that stays in place would hide the others if it were as wide as the window.
  const hiding = [...document.querySelectorAll("tbody th")].filter(
    th => th.getBoundingClientRect().width > th.closest(".wide").clientWidth / 2).map(th => th.textContent);
  const plots = [...document.querySelectorAll("figure svg")].filter(svg => svg.getBoundingClientRect().height < 50);
  const result = {scroll: document.documentElement.scrollWidth, width: innerWidth, wide, tiny, hiding, errors,
    flat: plots.filter(svg => !svg.closest("details:not([open])")).length,
    paper: getComputedStyle(document.body).backgroundColor, loaded: performance.getEntriesByType("resource")
      .map(entry => entry.name).filter(name => !name.startsWith("data:"))};
  const out = document.createElement("pre");
  out.id = "measured";
  out.textContent = JSON.stringify(result);
  document.body.append(out);
});
</script>
"""
# A browser window cannot be as narrow as a phone: the page is measured in a frame that is.
FRAME = """<!doctype html><body style="margin:0"><iframe src="page.html" style="width:{width}px;height:900px;border:0">
</iframe><script>addEventListener("load", () => setTimeout(() => {{ document.body.append(
  frames[0].document.getElementById("measured")) }}, 0))</script>"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page")
    found = made_report(wrong="blocks.1.norm2")
    found.judgements[2].coverage = [f"blocks.{i}.norm1 is missing" for i in range(30)]
    found.judgements[3].findings, found.judgements[3].problem = [], "the process said " + "nothing_but_this" * 20
    found.judgements[4].label = "/a/long/path/without/any/space/in/it/to/a/trace/of/oneflow.npz"
    found.against = against(found, made_report(), "old.json")
    write_page(found, path / "report.html")
    text = (path / "report.html").read_text(encoding="utf-8")
    (path / "page.html").write_text(text.replace("<style>", MEASURE + "<style>", 1), encoding="utf-8")
    return path


def chromium(folder: Path, *words: str) -> str:
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
        "--allow-file-access-from-files", f"--user-data-dir={folder / 'profile'}", *words,
    ]  # fmt: skip
    done = children.run(command, text=True, check=True)
    assert "CONSOLE" not in done.stderr, done.stderr  # --enable-logging=stderr
    return done.stdout


@pytest.mark.parametrize("width", [1280, 375])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_sticks_out(folder: Path, width: int, scheme: str) -> None:
    frame = folder / f"frame{width}.html"
    frame.write_text(FRAME.format(width=width))
    dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    words = ["--enable-logging=stderr", f"--window-size={max(width, 600)},900", "--dump-dom", *dark]
    found = re.search('<pre id="measured">(.*?)</pre>', chromium(folder, *words, frame.as_uri()), re.S)
    assert found
    measured = json.loads(html.unescape(found[1]))
    paper = measured.pop("paper")
    assert measured == {
        "scroll": width, "width": width, "wide": [], "tiny": [], "hiding": [], "errors": [], "flat": 0, "loaded": [],
    }  # fmt: skip
    assert paper == ("rgb(20, 23, 26)" if scheme == "dark" else "rgb(255, 255, 255)")


def test_a_picture_of_it(folder: Path) -> None:
    """It is drawn: a screenshot has many colours, and the verdict's green and red are among them."""
    from PIL import Image

    page = (folder / "report.html").as_uri()
    chromium(folder, "--window-size=1280,3000", f"--screenshot={folder / 'page.png'}", page)
    with Image.open(folder / "page.png") as image:
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 24) or []}
    assert len(colours) > 100
    assert (251, 224, 222) in colours  # the headline of a fault
    assert (224, 243, 227) in colours  # parity
