"""The memory that a process has taken."""

from __future__ import annotations

import resource
import sys


def peak_memory() -> int:
    """The most bytes of main memory that this process has held so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
