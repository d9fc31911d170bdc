"""Set-up, and that a missing framework fails the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from repository import ROOT

# Stands in for uv: makes an environment that answers as Python 3.10 does, and notes how it was called.
UV = f"""#!/bin/bash
echo "$*" >>"$CALLS"
case "$1 $2" in
    "--version ") exit 0 ;;
    "venv "*) mkdir -p .venv/bin && ln -s "{sys.executable}" .venv/bin/python ;;
    "pip install")
        if [[ $* == *--dry-run* ]]; then exit "${{DRY_RUN:-0}}"; fi
        if [[ -n ${{INTERRUPT:-}} ]]; then kill -INT $PPID; exit 2; fi
        cp /bin/true .venv/bin/polymae
        exit "${{FAIL:-0}}" ;;
esac
"""


@pytest.fixture
def clone(tmp_path):
    """The set-up script and what it reads, in a folder with a space in its name, with a stand-in for uv."""
    home = tmp_path / "a clone"
    shutil.copytree(ROOT / "requirements", home / "requirements")
    shutil.copy(ROOT / "pyproject.toml", home)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "uv").write_text(UV)
    (tmp_path / "bin" / "uv").chmod(0o755)
    return home


def set_up(home, path=None, **variables):
    """Run set-up from another folder. Returns its status, its stderr and the calls of uv that were made."""
    tools = home.parent / "bin"
    calls = home.parent / "calls"
    calls.write_text("")
    env = os.environ | {"CALLS": str(calls), "PATH": path or f"{tools}:{os.environ['PATH']}"} | variables
    script = home / "requirements" / "setup.sh"
    done = subprocess.run(["bash", str(script)], cwd="/", env=env, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr, calls.read_text().splitlines()


def stamp(home):
    return home / ".venv" / "polymae.stamp"


def test_unchanged_set_up_does_nothing(clone):
    status, _, calls = set_up(clone)
    assert status == 0
    assert any(call.startswith("venv") for call in calls)
    assert any("requirements/all.txt" in call and "requirements/dev.txt" in call for call in calls)
    assert any(call.endswith("-e .") for call in calls)
    assert set_up(clone) == (0, "", [])


def test_all_txt_names_every_framework():
    named = (ROOT / "requirements" / "all.txt").read_text()
    for path in sorted((ROOT / "requirements").glob("*.txt")):
        assert path.name in ("all.txt", "dev.txt", "lowest.txt", "newest.txt") or f"-r {path.name}\n" in named


@pytest.mark.parametrize("name", ["requirements/core.txt", "requirements/dev.txt", "pyproject.toml"])
def test_a_changed_requirement_updates_the_same_environment(clone, name):
    set_up(clone)
    (clone / ".venv" / "kept").touch()
    with (clone / name).open("a") as file:
        file.write("# changed\n")
    status, _, calls = set_up(clone)
    assert status == 0
    assert any("requirements/all.txt" in call for call in calls)
    assert (clone / ".venv" / "kept").exists()
    assert set_up(clone) == (0, "", [])


def test_a_moved_repository_gets_a_new_environment(clone):
    set_up(clone)
    (clone / ".venv" / "old").touch()
    moved = clone.rename(clone.with_name("moved"))
    assert set_up(moved)[0] == 0
    assert not (moved / ".venv" / "old").exists()


@pytest.mark.parametrize("how", ["FAIL", "INTERRUPT"])
def test_a_set_up_cut_short_leaves_no_stamp_and_starts_afresh(clone, how):
    # With plain pip out of the way too, so that the failure is final.
    status, _, _ = set_up(clone, **{how: "1"}, PIP_NO_INDEX="1", PIP_FIND_LINKS="", PIP_CONFIG_FILE=os.devnull)
    assert status == (130 if how == "INTERRUPT" else 1)
    assert not stamp(clone).exists()
    (clone / ".venv").mkdir(exist_ok=True)
    (clone / ".venv" / "half").touch()
    assert set_up(clone)[0] == 0
    assert not (clone / ".venv" / "half").exists()
    assert stamp(clone).exists()


def test_a_working_environment_outlives_an_update_that_cannot_be_had(clone):
    set_up(clone)
    before = stamp(clone).read_text()
    with (clone / "requirements" / "dev.txt").open("a") as file:
        file.write("# changed\n")
    status, said, _ = set_up(clone, DRY_RUN="1", PIP_NO_INDEX="1", PIP_FIND_LINKS="", PIP_CONFIG_FILE=os.devnull)
    assert status == 1
    assert "mend what it says above" in said
    assert (clone / ".venv" / "bin" / "polymae").exists()
    assert stamp(clone).read_text() == before
    assert set_up(clone)[0] == 0


def test_without_python_310_it_says_how_to_get_one(clone):
    tools = clone.parent / "tools"
    tools.mkdir()
    for name in ("bash", "cat", "dirname", "flock", "head", "mkdir", "mv", "rm", "sha256sum", "touch", "uname"):
        (tools / name).symlink_to(shutil.which(name))
    status, said, _ = set_up(clone, path=str(tools), HOME=str(tools), PYENV_ROOT=str(tools))
    assert status == 1
    assert "found no Python 3.10" in said
    assert "uv python install 3.10" in said


def run_pytest(folder, hidden="", **variables):
    """Run one test that uses the `framework` fixture, hiding one framework."""
    for path in (ROOT / "tests").glob("*.py"):
        shutil.copy(path, folder)
    (folder / "test_inner.py").write_text("def test_inner(framework):\n    assert framework\n")
    (folder / "hide").mkdir()
    (folder / "hide" / "sitecustomize.py").write_text(
        "import importlib.util\n"
        "find = importlib.util.find_spec\n"
        f"importlib.util.find_spec = lambda name, *rest: None if name == {hidden!r} else find(name, *rest)\n"
    )
    env = {name: value for name, value in os.environ.items() if name not in ("CI", "POLYMAE_FRAMEWORKS")}
    env |= {"PYTHONPATH": str(folder / "hide")} | variables
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(folder), str(folder)]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("variables", "hidden", "status", "summary"),
    [
        ({}, "", 0, "5 passed"),
        ({}, "oneflow", 1, "4 passed, 1 error"),
        ({"POLYMAE_FRAMEWORKS": "numpy, torch"}, "oneflow", 0, "2 passed"),
        ({"POLYMAE_FRAMEWORKS": "numpy,oneflow"}, "oneflow", 1, "1 passed, 1 error"),
        ({"POLYMAE_FRAMEWORKS": "numpy", "CI": "true"}, "oneflow", 1, "4 passed, 1 error"),
        ({"POLYMAE_FRAMEWORKS": "numpy,jax"}, "", 4, "it must list some of"),
        ({"POLYMAE_FRAMEWORKS": ""}, "", 4, "it must list some of"),
    ],
    ids=["all", "missing", "fewer", "listed but missing", "CI tests all", "unknown", "none"],
)
def test_a_missing_framework_fails_and_never_skips(tmp_path, variables, hidden, status, summary):
    done = run_pytest(tmp_path, hidden, **variables)
    said = done.stdout + done.stderr
    assert (done.returncode, summary in said) == (status, True), said
    assert "skipped" not in said
