"""What people who carry on rely on: workflows, issue forms, the citation, metadata, and pages that name files which exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest
import pythons
from repository import ROOT, repository_files
from ruamel.yaml import YAML
from trove_classifiers import classifiers

from polymae.backends import FRAMEWORKS
from polymae.backends.installing import spelled
from polymae.files.version import __version__

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

GITHUB = ROOT / ".github"
WORKFLOWS = {path.stem: YAML(typ="safe", pure=True).load(path) for path in sorted(GITHUB.glob("workflows/*.yml"))}
METADATA = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
HOOKS = YAML(typ="safe", pure=True).load(ROOT / ".pre-commit-config.yaml")["repos"]
CONFIG = GITHUB / "ISSUE_TEMPLATE" / "config.yml"
FORMS = sorted(set(CONFIG.parent.iterdir()) - {CONFIG})
# Schemas that check-jsonschema brings along, and the files that each is for.
SCHEMAS = {
    "github-workflows": sorted(GITHUB.glob("workflows/*")),
    "github-issue-forms": FORMS,
    "github-issue-config": [CONFIG],
    "citation-file-format": [ROOT / "CITATION.cff"],
}


def fits(schema: str, *paths: Path) -> str:
    """What a schema has against files; "" for nothing."""
    command = [Path(sys.executable).with_name("check-jsonschema"), "--builtin-schema", f"vendor.{schema}", *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.parametrize("schema", SCHEMAS)
def test_files_for_the_hosting_site_fit_their_schemas(schema: str, tmp_path: Path) -> None:
    paths = SCHEMAS[schema]
    assert fits(schema, *paths) == ""
    (tmp_path / "planted.yml").write_text(paths[0].read_text() + "\nplanted: [1]\n")
    assert "planted" in fits(schema, tmp_path / "planted.yml")


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_every_issue_form_asks_for_what_the_commands_say(path: Path) -> None:
    labels = {field["attributes"].get("label") for field in YAML(typ="safe", pure=True).load(path)["body"]}
    assert {"`polymae doctor --json`", "`polymae inspect --json FILE`"} <= labels


def steps(workflow: dict[str, Any]) -> Iterator[str]:
    """Every command of a workflow, once for each place of its matrix."""
    for job in workflow["jobs"].values():
        matrix = dict(job.get("strategy", {}).get("matrix", {}))
        more = matrix.pop("include", [])
        places = [dict(zip(matrix, values)) for values in product(*matrix.values())] + more
        for step in job["steps"]:
            for place in places or [{}]:
                text = step.get("run", "")
                for name, value in place.items():
                    text = text.replace(f"${{{{ matrix.{name} }}}}", str(value))
                yield from text.splitlines()


def absent(line: str) -> list[str]:
    """What a command names that is not there: files of the repository, targets of the Makefile."""
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    words = shlex.split(line)
    wrong = [f"make {word}" for before, word in pairwise(words) if before == "make" and word not in targets]
    for word in words:
        named = re.fullmatch(r"(\./)?\.?[\w-]+(\.\w+)*(/[\w.-]+)*", word) and ("/" in word or "." in word)
        made = word.startswith((".venv/", "dist/")) or re.fullmatch(r"[\d.]+", word)
        if named and not made and not (ROOT / word).exists():
            wrong.append(word)
    return wrong


@pytest.mark.parametrize("name", WORKFLOWS)
def test_workflows_run_what_exists(name: str) -> None:
    lines = list(steps(WORKFLOWS[name]))
    assert lines
    assert [word for line in lines for word in absent(line)] == []
    assert not any("${{ matrix." in line for line in lines)


def test_a_workflow_that_runs_what_is_not_there_would_be_seen() -> None:
    step = {"run": "pip install -r requirements/${{ matrix.pins }}.txt"}
    found = {"jobs": {"a": {"strategy": {"matrix": {"pins": ["newest", "older"]}}, "steps": [step]}}}
    assert [absent(line) for line in steps(found)] == [[], ["requirements/older.txt"]]
    assert absent("make tests") == ["make tests"]
    assert absent(".ci/runs") == [".ci/runs"]
    assert absent(".venv/bin/python tests/pythonz.py | xargs") == ["tests/pythonz.py"]


def test_what_the_workflows_are_for() -> None:
    versions = [spelled(version) for version in (pythons.JOINT, *pythons.OTHERS)]
    numpy = WORKFLOWS["numpy"]["jobs"]["numpy"]
    assert numpy["strategy"]["matrix"]["python"] == versions
    assert numpy["steps"][-1]["env"] == {"CI": "", "POLYMAE_FRAMEWORKS": "numpy"}
    for name in ("lint", "numpy"):
        assert set(WORKFLOWS[name]["on"]) == {"push", "pull_request"}
    assert "make lint" in steps(WORKFLOWS["lint"])
    assert "schedule" in WORKFLOWS["nightly"]["on"]
    assert ".ci/run" in steps(WORKFLOWS["nightly"])
    release = WORKFLOWS["release"]
    assert release["on"] == {"push": {"tags": ["v*"]}}
    # Only the job that publishes may ask for the index's trust, and it runs nothing of the repository.
    assert release["jobs"]["publish"]["permissions"] == {"id-token": "write"}
    assert not any("run" in step for step in release["jobs"]["publish"]["steps"])
    for workflow in WORKFLOWS.values():
        assert workflow["permissions"] == {"contents": "read"}


def test_the_tag_is_held_against_the_version(tmp_path: Path) -> None:
    (line,) = [line for line in steps(WORKFLOWS["release"]) if "GITHUB_REF_NAME" in line]
    for tag, status in ((f"v{__version__}", 0), ("v9.9.9", 1)):
        done = subprocess.run(["bash", "-ec", line], cwd=ROOT, env={"GITHUB_REF_NAME": tag, "PATH": "/usr/bin:/bin"})
        assert done.returncode == status


def test_the_list_of_tests_that_need_numpy_alone_can_be_printed() -> None:
    done = subprocess.run([sys.executable, "tests/pythons.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == pythons.NUMPY_ALONE
    assert all((ROOT / path).is_file() for path in pythons.NUMPY_ALONE)


def test_the_hooks_are_what_make_lint_runs() -> None:
    entries = {hook["entry"].split()[0] for repo in HOOKS for hook in repo["hooks"]}
    linters = re.search(r"^LINT = (.*\\\n.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert linters
    assert entries == set(re.findall(r"\.venv/bin/[\w-]+", linters[0]))


def test_metadata_and_citation_say_the_same() -> None:
    citation = YAML(typ="safe", pure=True).load(ROOT / "CITATION.cff")
    assert citation["version"] == __version__
    assert citation["license"] == METADATA["license"]
    assert citation["authors"] == METADATA["authors"] == [{"name": "The PolyMAE authors"}]
    assert set(METADATA["classifiers"]) <= classifiers
    listed = {line.rpartition(" ")[2] for line in METADATA["classifiers"] if re.search(r":: 3\.\d+$", line)}
    assert listed == {spelled(version) for version in (pythons.JOINT, *pythons.OTHERS)}


PAGES = [path for path in repository_files("*.md") if path.name != "CHANGELOG.md" and path.parts[:1] != (".github",)]
_PATH = re.compile(
    r"(?<![\w/.<-])((?:\.ci|\.github|backends|benchmarks|cli|compare|convert|demo|docs|files|hub|requirements|src|tests)"
    r"/[\w./<>*{},-]*[\w>*}])"
)


def missing(page: Path, text: str) -> list[str]:
    """The links and the paths of the repository on a page that lead nowhere."""
    links = [target for target in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in target]
    wrong = [target for target in links if not (ROOT / page.parent / target).exists()]
    for name in _PATH.findall(re.sub(r"\]\([^)]*\)", "]", text)):
        found = [part for framework in FRAMEWORKS for part in ROOT.glob(name.replace("<framework>", framework))]
        wrong += [] if found or "<" in name.replace("<framework>", "") else [name]
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_pages_name_files_that_exist(page: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    assert missing(page, prose) == []


def test_a_file_that_is_gone_would_be_seen() -> None:
    page = Path("docs/decisions/x.md")
    assert missing(page, "see convert/atomic.py and [why](gone.md), `backends/<framework>/runtime.py`, tests/*/test_*.py") == [
        "gone.md", "convert/atomic.py",
    ]  # fmt: skip


# What was true "so far" or not "yet" when it was written, and is not any more.
_STALE = re.compile(r"\b(so far|yet|until now|at the moment|currently|for now)\b", re.IGNORECASE)


@pytest.mark.parametrize("page", [page for page in PAGES if page.parts[:2] == ("docs", "decisions")], ids=str)
def test_decisions_say_what_is_and_not_what_is_not_yet(page: Path) -> None:
    assert _STALE.findall((ROOT / page).read_text()) == []
    assert _STALE.findall("refused so far; there is none yet") == ["so far", "yet"]
