"""Many CPUs on one machine: environment variables under which the frameworks take the kernels for other CPUs.

A setting's variables are read when a library is loaded, so a new process is needed for each.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from polymae.backends.blas import cpu_flags
from polymae.compare.operations.settings import Setting

# OpenBLAS (NumPy, OneFlow), oneDNN (MindSpore, PyTorch's convolution and GELU), MKL (PyTorch, MegEngine), PyTorch's own kernels.
_NAMES = ("OPENBLAS_CORETYPE", "ONEDNN_MAX_CPU_ISA", "MKL_CBWR", "ATEN_CPU_CAPABILITY")


def _machine(name: str, *values: str, needs: str = "SSE") -> Setting:
    return Setting("", name, dict(zip(_NAMES, values, strict=True)), needs)


SETTINGS = {
    setting.name: setting
    for setting in (
        _machine("as the libraries choose", "", "", "", ""),
        _machine("Prescott, SSE4.1", "Prescott", "SSE41", "COMPATIBLE", "default"),
        _machine("Nehalem, AVX", "Nehalem", "AVX", "SSE4_2", "default", needs="AVX"),
        _machine("Haswell, AVX2", "Haswell", "AVX2", "AVX2", "avx2", needs="AVX2"),
        _machine("SkylakeX, AVX-512", "SkylakeX", "AVX512_CORE", "AVX512", "avx512", needs="AVX-512"),
        # An OpenBLAS older than the CPU, and newer libraries.
        _machine("Prescott beside newer", "Prescott", "", "COMPATIBLE", ""),
        _machine("Sandybridge beside AVX2", "Sandybridge", "AVX2", "", "avx2", needs="AVX2"),
    )
}
# Kernels for instructions that this CPU lacks end the process.
HERE = [name for name, setting in SETTINGS.items() if setting.fits(cpu_flags())]
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
    return tuple(SETTINGS[setting].variables[name] for name in READ_BY[framework])


def variables_table(names: Collection[str]) -> list[str]:
    """Lines of Markdown: the variables of these settings."""
    rows = (" | ".join(value or "-" for value in SETTINGS[name].variables.values()) for name in names)
    head = ["| setting | OpenBLAS | oneDNN | MKL | ATen |", "|---|---|---|---|---|"]
    return head + [f"| {name} | {row} |" for name, row in zip(names, rows)]


@contextmanager
def under(setting: str) -> Iterator[None]:
    """Processes that are started in this context take the kernels of a setting; "" leaves the choice to the library."""
    before = {name: os.environ.get(name) for name in _NAMES}
    _put({name: value or None for name, value in SETTINGS[setting].variables.items()})
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
