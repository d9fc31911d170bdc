"""Which framework a candidate runs in, seen while it runs: its known kernels depend on it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from ...backends import FRAMEWORKS

NAMED = tuple(name for name in FRAMEWORKS if name != "numpy")


@contextmanager
def frameworks_called() -> Iterator[set[str]]:
    """The names of the frameworks whose functions this thread calls within the context; filled while it lasts.

    A profiler that is at work goes on: it hears of every call, too.
    """
    called: set[str] = set()
    before = sys.getprofile()

    def look(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            module = frame.f_globals.get("__name__")
        else:  # a function written in C
            module = getattr(argument, "__module__", None) if event == "c_call" else None
        if isinstance(module, str) and (name := module.partition(".")[0]) in NAMED:
            called.add(name)
        if before is not None:
            before(frame, event, argument)  # type: ignore[arg-type]

    sys.setprofile(look)
    try:
        yield called
    finally:
        sys.setprofile(before)


def environments(called: set[str], declared: dict[str, Any]) -> list[dict[str, Any]]:
    """Framework, version and device of everything that a candidate ran in.

    called: seen while it ran; declared: by the user, which counts where it names a framework. A framework that was
    only called to read or write arrays looks like the one that computed.
    """
    if declared.get("framework"):
        return [{"device": "cpu", "version": _version(str(declared["framework"])), **declared}]
    return [{**declared, "framework": name, "version": _version(name), "device": "cpu"} for name in sorted(called)]


def _version(name: str) -> str:
    return str(getattr(sys.modules.get(name), "__version__", ""))
