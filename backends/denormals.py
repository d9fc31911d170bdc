"""Numbers below 1.2e-38 (2.2e-308 in float64): whether they are kept or flushed to zero, and how to have them kept.

The processor has a switch for it in every thread. A library built with -ffast-math turns it when it is loaded, for the
thread that loads it and all that are started from there.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FLUSHING = 0x8040  # bits of MXCSR: flush to zero, denormals are zero


class _FloatingPoint(ctypes.Structure):
    """C's fenv_t on x86-64 Linux: the old unit's 28 bytes, then MXCSR, which SSE and AVX obey."""

    _fields_ = (("x87", ctypes.c_uint8 * 28), ("mxcsr", ctypes.c_uint32))


def tiny(dtype: str) -> NDArray[Any]:
    """Denormal numbers [64, 64] of a type: float64, or else float32. Kernels for small matrices may be others."""
    return np.full((64, 64), 1e-310) if dtype == "float64" else np.full((64, 64), 1e-40, np.float32)


def denormals() -> str:
    """Whether this thread keeps denormal numbers or flushes them to zero."""
    return "kept" if np.float32(1e-40) * np.float32(1) else "flushed"


def keep_denormals() -> None:
    """Have this thread keep them. Elsewhere than on x86-64 Linux nothing happens."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return
    state, library = _FloatingPoint(), ctypes.CDLL(None)
    library.fegetenv(ctypes.byref(state))
    state.mxcsr &= ~_FLUSHING
    library.fesetenv(ctypes.byref(state))
