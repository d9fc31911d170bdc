"""Which frameworks are under test."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from polymae.backends import FRAMEWORKS


def frameworks_under_test() -> tuple[str, ...]:
    """Those that POLYMAE_FRAMEWORKS lists ("torch,oneflow"), else all; in CI always all, so that it cannot pass by
    testing less."""
    listed = os.environ.get("POLYMAE_FRAMEWORKS")
    if os.environ.get("CI") or listed is None:
        return FRAMEWORKS
    names = tuple(dict.fromkeys(name.strip() for name in listed.split(",") if name.strip()))
    unknown = [name for name in names if name not in FRAMEWORKS]
    if unknown or not names:
        raise pytest.UsageError(
            f"POLYMAE_FRAMEWORKS={listed!r}: it must list some of {', '.join(FRAMEWORKS)}, separated by commas."
        )
    return names


def run_in(framework: str, script: str) -> str:
    """What a script prints, run in a process of its own with the framework it needs; skips without that one."""
    if framework not in frameworks_under_test():
        pytest.skip(f"POLYMAE_FRAMEWORKS does not list {framework}")
    # MindSpore's import, in another test, leaves a variable in the environment with which OneFlow cannot be imported.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PROTOCOL_BUFFERS_")}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, env=clean)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
