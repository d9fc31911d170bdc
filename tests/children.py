"""Processes and conditions that tests wait for: as long as it takes on a busy machine, and not for ever where something hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from untested import require

from polymae.compare.record.patience import GivenUp, Patience, run_patiently

LONG = 600.0  # seconds that only what hangs takes: for what a thread waits for in the kernel


def run(
    command: Sequence[str | os.PathLike[str]], check: bool = False, **options: Any
) -> subprocess.CompletedProcess[Any]:
    """As subprocess.run(command, capture_output=True), where what hangs fails the test, and what is slow does not."""
    try:
        done = run_patiently(command, **options)
    except GivenUp as why:
        pytest.fail(f"{' '.join(map(str, command))[:200]}: {why}")
    assert not check or not done.returncode, f"status {done.returncode}: {done.stderr}"
    return done


def run_in(framework: str, script: str) -> str:
    """What a script prints, run in a process of its own with the framework it needs; skips without that one."""
    require(framework)
    # MindSpore's import, in another test, leaves a variable in the environment with which OneFlow cannot be imported.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PROTOCOL_BUFFERS_")}
    return str(run([sys.executable, "-c", script], check=True, text=True, env=clean).stdout)


def heard(process: subprocess.Popen[Any]) -> tuple[Any, Any]:
    """As process.communicate(), for one that was started with start_new_session=True."""
    patience = Patience(process.pid)
    while True:
        try:
            return process.communicate(timeout=0.2)
        except subprocess.TimeoutExpired:
            if why := patience.over():
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                pytest.fail(f"{process.args!r}: {why}")


def comes(condition: Callable[[], bool]) -> bool:
    """Whether a condition becomes true. Looks are counted, which are late where this process is kept waiting."""
    for _ in range(30_000):
        if condition():
            return True
        time.sleep(0.01)
    return False


def gone(process: int) -> bool:
    """Whether a process ends (a zombie that nobody has waited for has)."""

    def ended() -> bool:
        try:
            return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            return True

    return comes(ended)
