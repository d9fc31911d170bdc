"""Environments for frameworks that have no wheels for this Python: made with uv, tried, and remembered."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ...backends.installing import NEWEST_PYTHON, ROOT, has_wheels, requirements, spelled
from ...backends.interpreters import home, memory, remembered
from ...files.atomic import alone, hidden_beside, remove, replacing
from ...files.errors import Problem
from .examine import WORKS, examine

UV = "uv"
PACKAGE = "polymae"


def make(framework: str) -> str:
    """Make a framework's environment anew, try it, remember it, and return its interpreter's path.

    The older one, where there is one, stays until the new one has computed. uv's progress goes to stderr. Raises Problem.
    """
    uv = _uv()
    version = sys.version_info[:2] if has_wheels(framework) else NEWEST_PYTHON[framework]
    base = find_python(version) or spelled(version)  # a version: uv looks for it, or downloads it
    wanted = [str(one) for one in requirements(framework, version)]
    if not wanted:
        raise Problem(
            f"What {framework} needs is in PolyMAE's metadata, and it is not installed here: pip install -e {ROOT}"
        )
    place = home() / framework
    home().mkdir(parents=True, exist_ok=True)
    with alone(place):
        new = hidden_beside(place, "new")
        remove(new)
        try:
            _run(uv, "venv", "--quiet", "--relocatable", "--python", base, str(new))
            _run(uv, "pip", "install", "--python", str(_python(new)), *wanted)
            _link(new)
            _require_working(framework, str(_python(new)))
            remove(place)
            new.rename(place)
        finally:
            remove(new)
    return _remember(framework, str(_python(place)))


def use(framework: str, python: str) -> str:
    """Try an interpreter that is there already, remember it, and return its path. Raises Problem where it does not work."""
    program = shutil.which(python)
    if program is None:
        raise Problem(
            f"{python} is no program that can be started; give the path of a Python, such as ENVIRONMENT/bin/python."
        )
    path = str(Path(program).absolute())  # not resolved: a link into an environment says which environment it is
    _require_working(framework, path)
    return _remember(framework, path)


def forget(framework: str) -> list[str]:
    """Remove a framework's environment where `make` made it, and forget its interpreter. Returns the removed paths."""
    known, place = remembered(), home() / framework
    removed = [str(place)] if place.exists() else []
    if framework not in known and not removed:
        raise Problem(f"No environment is known for {framework}; `polymae env list` shows those that are.")
    remove(place)
    if known.pop(framework, None) is not None:
        _write(known)
    return removed


def find_python(version: tuple[int, int]) -> str | None:
    """The path of an interpreter of a version: this one, one on PATH, or pyenv's, which uv does not look through."""
    name = f"python{spelled(version)}"
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    named = [shutil.which(name), *map(str, sorted(pyenv.glob(f"{spelled(version)}*/bin/{name}")))]
    here = [sys.executable] if sys.version_info[:2] == version else []
    # A shim of pyenv's may lead nowhere, so each is asked for its version.
    version_check = f"import sys; raise SystemExit(sys.version_info[:2] != {version})"
    for path in filter(None, here + named):
        if not _asked([path, "-c", version_check]).returncode:
            return path
    return None


def _remember(framework: str, python: str) -> str:
    _write(remembered() | {framework: python})
    return python


def _write(known: dict[str, str]) -> None:
    with replacing(memory()) as new:
        new.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _require_working(framework: str, python: str) -> None:
    examined = examine(framework, python=python)
    if examined.state != WORKS:
        hint = (
            f"; install PolyMAE there: {python} -m pip install -e {ROOT}" if f"'{PACKAGE}" in examined.problem else ""
        )
        raise Problem(f"{framework} does not compute in {python}: {examined.problem}{hint}")


def _python(folder: Path) -> Path:
    return folder / "bin" / "python"


def _link(folder: Path) -> None:
    """The environment runs this very PolyMAE: its traces are never another version's."""
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / PACKAGE).symlink_to(ROOT, target_is_directory=True)


def _uv() -> str:
    """The program uv: on PATH, or beside this Python."""
    program = shutil.which(UV) or shutil.which(UV, path=str(Path(sys.executable).parent))
    if program is None:
        raise Problem(
            f"Environments are made with uv, which is not here. To install it: {sys.executable} -m pip install uv"
        )
    return program


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, env=os.environ | pip_index(), stdin=subprocess.DEVNULL, check=False)
    except OSError as problem:
        raise Problem(f"{command[0]} does not start: {problem.strerror}") from None
    if done.returncode:
        raise Problem(f"uv did not manage (see above): {' '.join(command[1:])}")


def _asked(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)


def pip_index() -> dict[str, str]:
    """The address of a package index from pip's settings, which uv does not read, and where many keep a nearby mirror."""
    if os.environ.get("UV_DEFAULT_INDEX") or os.environ.get("UV_INDEX_URL"):
        return {}
    command = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    setting = _asked(command)
    index = os.environ.get("PIP_INDEX_URL") or (setting.stdout.strip() if setting.returncode == 0 else "")
    return {"UV_DEFAULT_INDEX": index} if index else {}
