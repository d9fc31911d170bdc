"""Where a callable of somebody's failed: the lines of their own code in a traceback, without ours and their libraries'."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
OURS = (HERE, HERE.parents[1] / "backends")  # modules that call somebody's code, and may themselves be called by it
INSTALLED = ("site-packages", "dist-packages")


def place(problem: BaseException) -> str:
    """The last line of somebody's own code, in words: " (net.py, line 12, in forward)"; "" where none is known."""
    frames = own_frames(problem)
    if not frames:
        return ""
    last = frames[-1]
    return f" ({Path(last.filename).name}, line {last.lineno}, in {last.name})"


def shown(problem: BaseException) -> str:
    """The lines of somebody's own code that led there, as Python shows them, and the whole message; "" for nothing new."""
    frames = own_frames(problem)
    if not frames and len(str(problem).splitlines()) < 2:
        return ""  # its one line is the reason already
    lines = traceback.format_list(frames) + traceback.format_exception_only(type(problem), problem)
    return "".join(lines).rstrip()


def own_frames(problem: BaseException) -> list[traceback.FrameSummary]:
    """A traceback without our part of it, and without that of installed packages where anything else remains."""
    outside = [
        frame
        for frame in traceback.extract_tb(problem.__traceback__)
        if not any(Path(frame.filename).resolve().is_relative_to(folder) for folder in OURS)
    ]
    return [frame for frame in outside if not _installed(frame.filename)] or outside


def _installed(filename: str) -> bool:
    path = Path(filename)
    standard = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
    return (
        any(name in path.parts for name in INSTALLED)
        or any(path.is_relative_to(folder) for folder in standard)
        or filename.startswith("<frozen ")
    )
