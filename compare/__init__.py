"""Judging recorded runs against the float64 oracle; for a model of your own: `from polymae.compare import parity`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..backends.spec import Tap
    from ..files.errors import Problem
    from .judging.findings import Finding, Judgement
    from .own.calls import displaced, rounded, widened
    from .own.chained import chained
    from .own.library import assert_parity, parity, parity_of_traces, save_trace
    from .own.modules import tapped
    from .own.result import Parity

__all__ = [
    "Finding", "Judgement", "Parity", "Problem", "Tap", "assert_parity", "chained", "displaced", "parity",
    "parity_of_traces", "rounded", "save_trace", "tapped", "widened",
]  # fmt: skip

LEVELS = ("weights", "inputs", "forward", "loss", "gradients", "optimizer", "curve")
# What one run of the model gives; the gradients, the optimizer and the curve are more work, and asked for by name.
OF_ONE_RUN = ("weights", "inputs", "forward", "loss")

# Where the library's names are; they are imported when first asked for, so that this package stays instant.
_LIBRARY = {
    "Finding": ".judging.findings",
    "Judgement": ".judging.findings",
    "Parity": ".own.result",
    "Problem": "..files.errors",
    "Tap": "..backends.spec",
    "chained": ".own.chained",
    "displaced": ".own.calls",
    "rounded": ".own.calls",
    "tapped": ".own.modules",
    "widened": ".own.calls",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LIBRARY.get(name, ".own.library"), __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
