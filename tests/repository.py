"""The repository that is tested, and its files."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def repository_files(*patterns: str) -> list[Path]:
    """Files of the repository, relative to its root: tracked ones, and new ones that git does not ignore."""
    # The setting is for containers, where another user owns the checkout.
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run([*command, *patterns], cwd=ROOT, capture_output=True, check=True).stdout
    paths = {Path(os.fsdecode(name)) for name in listed.split(b"\0") if name}
    found = sorted(path for path in paths if (ROOT / path).is_file() and not (ROOT / path).is_symlink())
    assert found, f"git lists no {patterns} in {ROOT}"
    return found
