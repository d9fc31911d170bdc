"""Judging recorded runs against the float64 oracle; for a model of your own: `from polymae.compare import parity`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..backends.spec import Tap
    from ..files.errors import Problem
    from .api.callables import displaced, rounded, widened
    from .api.chained import chained
    from .api.library import assert_parity, parity, parity_of_traces, save_trace
    from .api.modules import tapped
    from .api.result import Parity
    from .limits.findings import Finding, Judgement
    from .options import LEVELS, OF_ONE_RUN, Comparison, Run

__all__ = [
    "LEVELS", "OF_ONE_RUN", "Comparison", "Finding", "Judgement", "Parity", "Problem", "Run", "Tap",
    "assert_parity", "chained", "displaced", "parity",
    "parity_of_traces", "rounded", "save_trace", "tapped", "widened",
]  # fmt: skip

# Where the library's names are; they are imported when first asked for, so that this package stays instant.
_LIBRARY = {
    "LEVELS": ".options",
    "OF_ONE_RUN": ".options",
    "Comparison": ".options",
    "Run": ".options",
    "Finding": ".limits.findings",
    "Judgement": ".limits.findings",
    "Parity": ".api.result",
    "Problem": "..files.errors",
    "Tap": "..backends.spec",
    "chained": ".api.chained",
    "displaced": ".api.callables",
    "rounded": ".api.callables",
    "tapped": ".api.modules",
    "widened": ".api.callables",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LIBRARY.get(name, ".api.library"), __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
