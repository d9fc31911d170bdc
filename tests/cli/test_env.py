"""`polymae env`: environments of frameworks are made, tried and remembered, or nothing changes."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from repository import ROOT
from runs import MODEL, inputs

from polymae.backends import interpreters, runtime
from polymae.backends.interpreters import FOLDER, home, interpreter, memory, remembered
from polymae.cli import main
from polymae.compare.options import Run
from polymae.compare.record import venvs
from polymae.compare.record.child import record_in_process
from polymae.files.errors import Problem

# Stands in for uv: its environments run this Python, and it notes how it was called.
UV = f"""#!/bin/bash
echo "$*" >>"$CALLS"
case "$1" in
    venv)
        folder="${{@: -1}}"
        mkdir -p "$folder/bin" "$folder/lib/python3.10/site-packages"
        printf '#!/bin/bash\\nexec "{sys.executable}" "$@"\\n' >"$folder/bin/python"
        chmod +x "$folder/bin/python" ;;
    pip) echo "no such version" >&2; exit "${{FAIL:-0}}" ;;
esac
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for environments, and a stand-in for uv that writes its calls to this file."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "uv").write_text(UV)
    (tmp_path / "bin" / "uv").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv(FOLDER, str(tmp_path / "environments"))
    return tmp_path / "calls"


def polymae(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> str:
    capsys.readouterr()
    assert main(list(words)) == status
    said = capsys.readouterr()
    return said.err if status else said.out


def test_an_environment_is_made_and_tried_and_removed(calls: Path, capsys: pytest.CaptureFixture[str]) -> None:
    python = home() / "torch" / "bin" / "python"
    assert f"torch computes in {python}" in polymae(capsys, "env", "add", "torch")
    made, installed = calls.read_text().splitlines()
    assert made.startswith("venv")
    assert "torch>=" in installed
    assert "numpy>=" in installed
    assert "oneflow" not in installed
    assert remembered() == {"torch": str(python)}
    (link,) = (home() / "torch").glob("lib/*/site-packages/polymae")
    assert link.resolve() == ROOT
    assert polymae(capsys, "env", "path", "torch").strip() == str(python)
    assert str(python) in polymae(capsys, "env", "list")
    assert json.loads(polymae(capsys, "env", "list", "--json"))["interpreters"] == remembered()
    assert str(python.parent.parent) in polymae(capsys, "env", "remove", "torch")
    assert remembered() == {}
    assert sorted(path.name for path in home().iterdir()) == ["interpreters.json"]


@pytest.mark.parametrize("why", ["uv", "framework"])
def test_what_does_not_work_changes_nothing(
    why: str, calls: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    polymae(capsys, "env", "add", "torch")
    (home() / "torch" / "older").touch()
    if why == "uv":
        monkeypatch.setenv("FAIL", "2")
    else:
        calls.parent.joinpath("bin", "uv").write_text(UV.replace("exec", "exit 3 #"))
    said = polymae(capsys, "env", "add", "torch", status=2)
    assert ("uv did not manage" if why == "uv" else "torch does not compute in") in said
    assert (home() / "torch" / "older").exists()
    assert set(remembered()) == {"torch"}
    assert sorted(path.name for path in home().iterdir()) == ["interpreters.json", "torch"]


def test_an_interpreter_that_is_there_is_tried_and_remembered(
    calls: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = polymae(capsys, "env", "use", "torch", sys.executable)
    assert f"torch computes in {sys.executable}" in said
    assert "is installed here, too, which comes first" in said
    assert remembered() == {"torch": sys.executable}
    assert "is no program" in polymae(capsys, "env", "use", "torch", str(tmp_path / "none"), status=2)
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/bash\nexec "{sys.executable}" -S "$@"\n')
    bare.chmod(0o755)
    said = polymae(capsys, "env", "use", "torch", str(bare), status=2)
    assert "No module named 'polymae" in said
    assert f"install PolyMAE there: {bare} -m pip install -e {ROOT}" in said
    assert remembered() == {"torch": sys.executable}
    assert not calls.exists()


def test_what_is_installed_here_comes_first(calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home().mkdir()
    memory().write_text(json.dumps({"numpy": "/elsewhere/python", "oneflow": "/elsewhere/python"}))
    assert interpreter("numpy") == sys.executable
    monkeypatch.setattr(interpreters, "installed", lambda name: name != "oneflow")
    assert interpreter("oneflow") == "/elsewhere/python"
    assert interpreter("torch") == sys.executable
    outcome = record_in_process(Run("oneflow", calls.with_name("t.npz"), inputs(), model=MODEL))
    assert "the interpreter /elsewhere/python does not start" in outcome.reason


def test_a_missing_framework_is_told_where_it_can_run(calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "installed", lambda name: False)
    monkeypatch.setattr("polymae.backends.installing.sys.version_info", (3, 13, 0))
    with pytest.raises(
        Problem, match=r"no wheels for Python 3\.13, but for 3\.10 at most\. `polymae env add oneflow` makes"
    ):
        runtime.load_backend("oneflow")
    with pytest.raises(Problem, match="To install it: pip install -e"):
        runtime.load_backend("torch")
    home().mkdir()
    memory().write_text(json.dumps({"oneflow": "/elsewhere/python"}))
    with pytest.raises(Problem, match="It is in another one: /elsewhere/python runs it"):
        runtime.load_backend("oneflow")


@pytest.mark.parametrize("text", ["{", "[]", '{"oneflow": 1}'])
def test_a_memory_that_cannot_be_read_is_told(calls: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    home().mkdir()
    memory().write_text(text)
    for words in (["env", "list"], ["env", "path", "oneflow"], ["env", "remove", "oneflow"]):
        assert f"{memory()} " in polymae(capsys, *words, status=2)


def test_what_is_not_known_is_told(calls: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert polymae(capsys, "env", "list") == ""
    assert "`polymae env add oneflow` makes one" in polymae(capsys, "env", "path", "oneflow", status=2)
    assert "`polymae env list` shows those" in polymae(capsys, "env", "remove", "oneflow", status=2)
    with pytest.raises(SystemExit, match="2"):
        main(["env", "add", "numpy"])  # its backend runs wherever PolyMAE does


def test_without_uv_it_says_how_to_get_it(
    calls: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(venvs.shutil, "which", lambda name, path=None: None)
    assert "-m pip install uv" in polymae(capsys, "env", "add", "oneflow", status=2)
    assert not home().exists()


def test_environments_lie_in_the_one_that_polymae_is_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(FOLDER, raising=False)
    monkeypatch.setattr(interpreters.sys, "prefix", str(tmp_path / "venv"))
    assert home() == tmp_path / "venv" / "polymae-environments"
    monkeypatch.setattr(interpreters.sys, "base_prefix", str(tmp_path / "venv"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert home() == tmp_path / "data" / "polymae" / "environments"
    monkeypatch.setenv(FOLDER, str(tmp_path / "named"))
    assert home() == tmp_path / "named"


def test_pips_mirror_is_uvs(calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "file:///mirror")
    assert venvs.pip_index() == {"UV_DEFAULT_INDEX": "file:///mirror"}
    monkeypatch.setenv("UV_DEFAULT_INDEX", "file:///other")
    assert venvs.pip_index() == {}
