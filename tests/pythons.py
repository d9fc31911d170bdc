"""Environments of other Pythons, with PolyMAE's wheel and what it needs, and nothing of the joint environment.

As a script it prints the files of tests that need NumPy alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import children
from repository import repository_files

from polymae.backends.installing import spelled
from polymae.compare.record.venvs import find_python, pip_index

ROOT = Path(__file__).resolve().parent.parent
JOINT = sys.version_info[:2]
OTHERS = ((3, 11), (3, 12), (3, 13), (3, 14))
# More interpreters, where they are neither on PATH nor pyenv's: paths with colons between them.
LISTED = "POLYMAE_PYTHONS"
# Files of tests that need no other framework than NumPy, and none of the tools that only the joint environment has.
NUMPY_ALONE = [
    f"tests/{folder}/test_{name}.py"
    for folder, names in {
        "files": ("atomic",),
        "data": ("augment", "batches", "decoding", "draws", "known", "summary",),
        "backends": ("chains", "encode", "models_in_use", "spec",),
        "convert": ("convert", "files_people_have", "formats", "hostile", "problems",),
        "hub": ("download", "hub",),
        "compare": ("injected", "inputs", "judge", "library", "library_names", "options", "record", "trace",),
    }.items()
    for name in names
]  # fmt: skip


def others() -> dict[tuple[int, int], str]:
    """The interpreters that this machine has of the other Pythons, by their version."""
    listed = [path for path in os.environ.get(LISTED, "").split(os.pathsep) if path]
    found = {_version(path): path for path in listed}
    for version in OTHERS:
        if version not in found and (path := find_python(version)):
            found[version] = path
    return dict(sorted(found.items()))


def told() -> str:
    """Which other Pythons the tests ran under, as a sentence."""
    there = others()
    absent = [spelled(version) for version in OTHERS if version not in there]
    said = f"Other Pythons: {', '.join(map(spelled, there)) or 'none'}"
    return f"{said}; this machine has no {', '.join(absent)} (paths in {LISTED} add to them)" if absent else said


def _version(python: str) -> tuple[int, int]:
    code = "import sys; print(*sys.version_info[:2])"
    major, minor = children.run([python, "-c", code], check=True, text=True).stdout.split()
    return int(major), int(minor)


def uv(*words: str | Path) -> None:
    """Run uv, which the development tools bring along."""
    children.run([Path(sys.executable).with_name("uv"), *words], check=True, text=True, env=os.environ | pip_index())


def copied(folder: Path) -> Path:
    """A copy of what is the repository's: building leaves files beside it."""
    for path in repository_files():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, folder / path)
    return folder


def build(kind: str, source: Path) -> Path:
    """Build a "wheel" or an "sdist" of a copy, beside it, and return its path."""
    code = f"import sys; from hatchling import build; print(build.build_{kind}(sys.argv[1]))"
    printed = str(
        children.run([sys.executable, "-c", code, str(source.parent)], check=True, text=True, cwd=source).stdout
    )
    return source.parent / printed.splitlines()[-1]


def base() -> str:
    """The Python that this environment was made from."""
    return str(Path(sys.base_prefix) / "bin" / f"python{spelled(JOINT)}")


def environment(folder: Path, python: str, wheel: Path, oldest: bool = False) -> Path:
    """Make an environment with the wheel, and the oldest or the newest of what it needs. Returns its Python.

    The oldest are pinned for Python 3.10; for others they are the oldest that have wheels.
    """
    uv("venv", "--quiet", "--python", python, folder)
    path, pins = folder / "bin" / "python", ROOT / "requirements"
    listed: tuple[str | Path, ...] = ("-r", pins / ("lowest.txt" if oldest else "newest.txt"))
    if oldest and _version(python) != JOINT:
        options = ("--resolution", "lowest-direct", "--only-binary", ":all:")
        listed = (*options, "-r", ROOT / "pyproject.toml", "-r", pins / "pythons.in")
    uv("pip", "install", "--quiet", "--python", path, *listed)
    uv("pip", "install", "--quiet", "--python", path, "--no-deps", wheel)
    return path


def run(python: Path, *words: str | Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run an environment's Python on its own: nothing of this process's settings for Python or the tests."""
    ours = ("PYTHON", "POLYMAE", "PYTEST", "CI", "VIRTUAL_ENV")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return children.run([python, *words], text=True, cwd=cwd, env=clean | variables)


if __name__ == "__main__":
    print(*NUMPY_ALONE, sep="\n")
