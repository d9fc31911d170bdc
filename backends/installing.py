"""What to type for a framework or a package that is missing, on the Python that asks."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from ..files.errors import REPORT_IT, Problem

if TYPE_CHECKING:
    from packaging.requirements import Requirement

# The newest Python for which the registry has a framework's wheels; the others have them for every one.
# pyproject.toml's markers say the same to pip (tests/project/test_packages.py compares).
NEWEST_PYTHON = {"megengine": (3, 10), "mindspore": (3, 12), "oneflow": (3, 10)}
JOINT = (3, 10)  # the Python of the environment that holds all frameworks, and of the pins in requirements/
ROOT = Path(__file__).resolve().parents[1]


def spelled(version: tuple[int, ...]) -> str:
    """3.12 for (3, 12)."""
    return ".".join(map(str, version))


def installed(framework: str) -> bool:
    """Whether the framework's package is there (it is not imported, so it may still be broken)."""
    return importlib.util.find_spec(framework) is not None


def has_wheels(framework: str, python: tuple[int, int] | None = None) -> bool:
    """Whether a framework can be installed for a version of Python; None: for this one."""
    python = python or sys.version_info[:2]
    return python <= NEWEST_PYTHON.get(framework, python)


def install_line(name: str) -> str:
    """The command that installs a missing framework, or PolyMAE's own needs ("core")."""
    if not has_wheels(name):
        return f"polymae env add {name}"
    listed = ROOT / "requirements" / f"{name}.txt"
    extra = "" if name == "core" else f"[{name}]"
    if not listed.is_file():  # installed from a wheel
        return f"pip install {shlex.quote('polymae' + extra)}"
    if sys.version_info[:2] == JOINT:
        return f"pip install -r {shlex.quote(str(listed))}"
    return f"pip install -e {shlex.quote(str(ROOT) + extra)}"


def in_words(problem: BaseException) -> str:
    """The meaning of an exception to a person, and the remedy."""
    if isinstance(problem, Problem):
        return str(problem)
    if isinstance(problem, MemoryError):
        return "out of memory; use a smaller model or batch."
    if isinstance(problem, OSError):
        where = f" ({problem.filename})" if problem.filename else ""
        return f"{problem.strerror or problem}{where}; check the path, its permissions and the free space."
    if isinstance(problem, ModuleNotFoundError):
        return f"{problem.name} is not installed in this environment: {install_line('core')}"
    return f"{type(problem).__name__}: {problem}\n{REPORT_IT}, with what POLYMAE_DEBUG=1 adds to it."


def requirements(framework: str, python: tuple[int, int] | None = None) -> list[Requirement]:
    """The requirements of PolyMAE and a framework on a version of Python (None: this one), as the installed metadata has it.

    An empty list where PolyMAE is run from a folder, and has no metadata.
    """
    from packaging.requirements import Requirement

    version = spelled(python or sys.version_info[:2])
    target = {"extra": framework, "python_version": version, "python_full_version": f"{version}.0"}
    try:
        listed = metadata.requires("polymae") or []
    except metadata.PackageNotFoundError:
        return []
    every = [Requirement(line) for line in listed]
    wanted = [one for one in every if one.marker is None or one.marker.evaluate(target)]
    for one in wanted:
        one.marker = None
    return wanted
