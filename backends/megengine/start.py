"""How MegEngine is started: this package imports it here first, before any other module does."""

from __future__ import annotations

import importlib
import warnings


def import_megengine() -> None:
    """Import MegEngine without its warning and log, and make its CPU kernels safe. Raises ImportError as it does."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"megengine\._env")  # it imports pkg_resources, which complains
        mge = importlib.import_module("megengine")
    # Queued CPU kernels may read parameters that the next call has overwritten (F.linspace and what is built on it),
    # and hold every temporary. Running each at once is right and takes a quarter of the memory.
    mge.config.async_level = 0
    mge.set_default_device("cpu0")  # the default, "any device", logs eight lines where there is no GPU
