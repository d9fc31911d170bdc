"""Which Python runs a framework: this one where the framework is installed here, else the one that `polymae env` remembers."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from ..files.errors import Problem
from .installing import installed

FOLDER = "POLYMAE_ENVIRONMENTS"  # the variable that puts the environments elsewhere


def home() -> Path:
    """The folder of the environments made for frameworks, and of the file that remembers the interpreters.

    It lies in the environment that PolyMAE is installed in, so that one goes with the other; where that is the system's
    Python, in the user's data folder (docs/decisions/environments.md).
    """
    if named := os.environ.get(FOLDER):
        return Path(named).absolute()
    if sys.prefix != sys.base_prefix or (Path(sys.prefix) / "conda-meta").is_dir():
        return Path(sys.prefix) / "polymae-environments"
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data).absolute() / "polymae" / "environments"


def memory() -> Path:
    """The file that remembers: a JSON object with the path of an interpreter for each framework."""
    return home() / "interpreters.json"


def remembered() -> dict[str, str]:
    """The interpreter of each framework that has one. Raises Problem where the file cannot be read."""
    path = memory()
    try:
        interpreters = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as problem:
        raise Problem(f"{path} cannot be read ({problem}); remove it, and add the environments again.") from None
    if not isinstance(interpreters, dict) or not all(isinstance(python, str) for python in interpreters.values()):
        raise Problem(f"{path} is not what `polymae env` writes; remove it, and add the environments again.")
    return interpreters


def interpreter(framework: str) -> str:
    """The Python that runs a framework; this one, which then reports the missing package, where none is known."""
    if installed(framework):
        return sys.executable
    return remembered().get(framework, sys.executable)
