"""Many CPUs on one machine: environment variables under which the frameworks take the kernels for other CPUs.

A setting's variables are read when a library is loaded, so a new process is needed for each.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

# OpenBLAS (NumPy, OneFlow), oneDNN (MindSpore, PyTorch's convolution and GELU), MKL (PyTorch, MegEngine), PyTorch's own kernels.
_NAMES = ("OPENBLAS_CORETYPE", "ONEDNN_MAX_CPU_ISA", "MKL_CBWR", "ATEN_CPU_CAPABILITY")
SETTINGS: dict[str, dict[str, str]] = {
    name: dict(zip(_NAMES, values, strict=True))
    for name, values in {
        "as the libraries choose": ("", "", "", ""),
        "Prescott, SSE4.1": ("Prescott", "SSE41", "COMPATIBLE", "default"),
        "Nehalem, AVX": ("Nehalem", "AVX", "SSE4_2", "default"),
        "Haswell, AVX2": ("Haswell", "AVX2", "AVX2", "avx2"),
        "SkylakeX, AVX-512": ("SkylakeX", "AVX512_CORE", "AVX512", "avx512"),
        "Prescott beside AVX-512": (
            "Prescott",
            "",
            "COMPATIBLE",
            "",
        ),  # an OpenBLAS older than the CPU, and newer libraries
        "Sandybridge beside AVX2": ("Sandybridge", "AVX2", "", "avx2"),
    }.items()
}
# Which of the variables change a framework's numbers.
READ_BY = {
    "numpy": ("OPENBLAS_CORETYPE",),
    "torch": ("ONEDNN_MAX_CPU_ISA", "MKL_CBWR", "ATEN_CPU_CAPABILITY"),
    "megengine": ("MKL_CBWR",),
    "mindspore": ("ONEDNN_MAX_CPU_ISA",),
    "oneflow": ("OPENBLAS_CORETYPE",),
}


def read_by(framework: str, setting: str) -> tuple[str, ...]:
    """The values of the variables that a framework reads in a setting: equal ones mean equal kernels."""
    return tuple(SETTINGS[setting][name] for name in READ_BY[framework])


@contextmanager
def under(setting: str) -> Iterator[None]:
    """Processes that are started in this context take the kernels of a setting; "" leaves the choice to the library."""
    before = {name: os.environ.get(name) for name in _NAMES}
    _put({name: value or None for name, value in SETTINGS[setting].items()})
    try:
        yield
    finally:
        _put(before)


def _put(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
