"""The levels of a comparison, and the tensors that each of them judges.

Every level has its own injected inputs, so that a fault of one does not blur the next (docs/decisions/levels.md).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from ...backends.config import Config, ViTConfig
from ...backends.gradient_taps import backward_taps
from ...backends.spec import Tap, loss_taps, taps
from .. import LEVELS
from ..recording.injected import injected_taps
from ..recording.preprocessing import preprocessing_taps
from ..recording.training import curve_taps, optimizer_taps


def expected(config: Config, levels: Collection[str] = LEVELS) -> Iterator[tuple[str, Tap]]:
    """Level and tensor of everything that a whole trace of these levels holds, in the order of computation."""
    for level, tap in _all(config):
        if level in levels:
            yield level, tap


def _all(config: Config) -> Iterator[tuple[str, Tap]]:
    for tap in preprocessing_taps(config):
        yield "inputs", tap
    second = "labels" if isinstance(config, ViTConfig) else "noise"
    for name in ("imgs", second):
        yield "inputs", Tap(f"input/{name}", "copy", exact=True)
    for tap in (*taps(config), *loss_taps(config)):
        yield ("loss" if tap.name.split(".")[-1] in ("loss", "target") else "forward"), tap
    others = {
        "loss": injected_taps(config),
        "gradients": backward_taps(config),
        "optimizer": optimizer_taps(config),
        "curve": curve_taps(config),
    }
    for level, listed in others.items():
        for tap in listed:
            yield level, tap
