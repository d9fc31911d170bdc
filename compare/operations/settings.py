"""The settings by which libraries choose their kernels: the causes of an error beside a framework's version."""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import dataclass, field

from ...backends.blas import GENERATIONS, ONEDNN, ONEDNN_CAP, cpu_flags, generation

NEWEST = next(iter(GENERATIONS))


@dataclass(frozen=True)
class Setting:
    """Environment variables that have a library take other kernels.

    library and kernels: as a trace's environment names them where it does. needs: the generation of instruction sets that
    these kernels run on. frameworks: those that bring the library; none listed: any may.
    """

    library: str
    kernels: str
    variables: dict[str, str] = field(hash=False)
    needs: str = "SSE"
    frameworks: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.library} {self.kernels}".strip()

    def fits(self, flags: Collection[str]) -> bool:
        """Whether a CPU with these flags can run these kernels."""
        mine, names = generation(flags), list(GENERATIONS)  # the newest first
        return bool(mine) and names.index(mine) <= names.index(self.needs)


def _onednn(needs: str) -> Setting:
    kernels = ONEDNN[needs]
    # The second name is that of its releases before 2.5, which OneFlow brings.
    variables = dict.fromkeys(("ONEDNN_MAX_CPU_ISA", ONEDNN_CAP), kernels.upper())
    return Setting("onednn", kernels, variables, needs)


def _aten(kernels: str, needs: str) -> Setting:
    return Setting("aten", kernels, {"ATEN_CPU_CAPABILITY": kernels.lower()}, needs, ("torch",))


def _openblas(core: str, needs: str) -> Setting:
    return Setting("openblas", core, {"OPENBLAS_CORETYPE": core}, needs)


AS_IS = Setting("", "", {})  # every library's choice by itself
SETTINGS = (
    _onednn("SSE"),
    _onednn("AVX2"),
    _onednn("AVX-512"),
    Setting("mkl", "compatible", {"MKL_CBWR": "COMPATIBLE"}),
    Setting("mkl", "avx2", {"MKL_CBWR": "AVX2"}, "AVX2"),
    _aten("DEFAULT", "SSE"),
    _aten("AVX2", "AVX2"),
    _aten("AVX512", "AVX-512"),
    _openblas("Prescott", "SSE"),
    _openblas("Nehalem", "SSE"),
    _openblas("Haswell", "AVX2"),
    _openblas("SkylakeX", "AVX-512"),
)
VARIABLES = tuple(dict.fromkeys(name for setting in SETTINGS for name in setting.variables))


def fitting() -> list[Setting]:
    """The settings whose kernels this CPU can run."""
    return [setting for setting in SETTINGS if setting.fits(cpu_flags())]


def command(setting: Setting, module: str, python: str = sys.executable) -> list[str]:
    """A command that runs a module with these variables, and with none of the others that choose kernels."""
    unset = [part for name in VARIABLES if name not in setting.variables for part in ("-u", name)]
    return ["env", *unset, *(f"{name}={value}" for name, value in setting.variables.items()), python, "-m", module]
