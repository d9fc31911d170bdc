"""Judging recorded runs against the float64 oracle; for a model of your own: `from polymae.compare import parity`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..files.lazy import lazily

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

_LIBRARY = ("assert_parity", "parity", "parity_of_traces", "save_trace")
__getattr__, __dir__ = lazily(
    __name__,
    {
        "LEVELS": ".options", "OF_ONE_RUN": ".options", "Comparison": ".options", "Run": ".options",
        "Finding": ".limits.findings", "Judgement": ".limits.findings", "Problem": "..files.errors", "Tap": "..backends.spec",
        "Parity": ".api.result", "chained": ".api.chained", "displaced": ".api.callables", "rounded": ".api.callables",
        "tapped": ".api.modules", "widened": ".api.callables", **dict.fromkeys(_LIBRARY, ".api.library"),
    },
)  # fmt: skip
