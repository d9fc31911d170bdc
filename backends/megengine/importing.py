"""How MegEngine is started: this package imports it here first, before any other module does."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

from ..denormals import keep_denormals


def import_megengine() -> None:
    """Import MegEngine without its warning and log, and make its CPU kernels safe. Raises ImportError as it does."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"megengine\._env")  # it imports pkg_resources, which complains
        mge = importlib.import_module("megengine")
    # Queued CPU kernels may read parameters that the next call has overwritten (F.linspace and what is built on it),
    # and hold every temporary. Running each at once is right and takes a quarter of the memory.
    mge.config.async_level = 0
    use(mge, "cpu")
    # Loading it and its first kernel have this thread flush denormal numbers to zero, whatever else computes there.
    # (Its kernels go on doing so for themselves, which every trace says.)
    (mge.tensor(1.0) + 1).numpy()
    keep_denormals()


def use(mge: Any, device: str) -> None:
    """Make a device MegEngine's default: cpu or cuda.

    On the CPU kernels run in the thread that calls them. "cpu0" would be a thread of its own, which spins while it waits:
    four to eight times slower where kernels are small and cores are busy.
    """
    if device == "cpu":
        mge.device.CompNode._set_default_device("cpu:default")  # mge.set_default_device knows no such name
    else:
        mge.set_default_device("gpu0")
