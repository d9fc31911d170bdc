"""Which kernels OpenBLAS chose for this CPU, and which it should take where it does not know the CPU. NumPy only.

OpenBLAS picks its kernels by the CPU's model number. A release older than the CPU falls back to kernels for CPUs of twenty
years ago (Prescott, Barcelona), three to five times slower. NumPy, SciPy and OneFlow each bring an OpenBLAS of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path

CORETYPE = "OPENBLAS_CORETYPE"  # read by every OpenBLAS when it is loaded
# The instruction sets that the kernels of each generation need, the newest first, and the cores to try for it, the fastest first.
GENERATIONS: dict[str, tuple[frozenset[str], tuple[str, ...]]] = {
    "AVX-512": (frozenset({"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}), ("SkylakeX", "Haswell")),
    "AVX2": (frozenset({"avx2", "fma"}), ("Haswell",)),
    "AVX": (frozenset({"avx"}), ("Sandybridge",)),
    "SSE": (frozenset({"sse2"}), ()),
}
# The generation of OpenBLAS's own names of x86-64 cores; others are left alone.
CORES = {
    "SSE": (
        "Katmai", "Coppermine", "Northwood", "Prescott", "Banias", "Atom", "Core2", "Penryn", "Dunnington", "Nehalem",
        "Athlon", "Opteron", "Opteron_SSE3", "Barcelona", "Nano", "Bobcat",
    ),
    "AVX": ("Sandybridge", "Bulldozer", "Piledriver", "Steamroller"),
    "AVX2": ("Haswell", "Zen", "Excavator"),
    "AVX-512": ("SkylakeX", "Cooperlake", "SapphireRapids"),
}  # fmt: skip
# oneDNN's names of the kernels that it takes on each generation, and the variable that caps them (before its release 2.5).
ONEDNN = {"SSE": "sse41", "AVX": "avx", "AVX2": "avx2", "AVX-512": "avx512_core"}
ONEDNN_CAP = "DNNL_MAX_CPU_ISA"
# Frameworks that bring an OpenBLAS which has no call for its core.
BRING_OPENBLAS = ("oneflow",)
# Of /proc/cpuinfo's flags those that kernels are chosen by.
_CHOSEN_BY = ("sse2", "sse4_2", "avx", "avx2", "fma", "avx512", "avx_vnni", "amx")
# A product whose sums are long and its edges ragged; the error of a right kernel is below 13 u.
_CHECK = """
import numpy as np
rng = np.random.default_rng(0)
for m, k, n in ((394, 2048, 517), (3, 5, 7), (64, 64, 64), (1, 999, 1)):
    a, b = rng.standard_normal((m, k)), rng.standard_normal((k, n))
    exact = np.einsum("mk,kn->mn", a, b)
    for dtype, roundoff in ((np.float32, 2.0**-24), (np.float64, 2.0**-53)):
        a, b = a.astype(dtype), b.astype(dtype)
        error = np.linalg.norm(a @ b - np.einsum("mk,kn->mn", a.astype(float), b)) / np.linalg.norm(exact)
        assert error < 64 * roundoff, (m, k, n, dtype, error / roundoff)
"""


@cache
def cpuinfo() -> dict[str, str]:
    """Linux's facts on this machine's first core, by its names; none on other systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in reversed(lines))
    return {name.strip(): value.strip() for name, _, value in pairs}


@cache
def cpu_flags() -> tuple[str, ...]:
    """The instruction sets of this CPU that kernels are chosen by, sorted; none where the system does not say."""
    return tuple(sorted(flag for flag in cpuinfo().get("flags", "").split() if flag.startswith(_CHOSEN_BY)))


def generation(flags: Collection[str]) -> str:
    """The newest generation of kernels that a CPU with these flags can run; "" where it is no x86-64."""
    return next((name for name, (needed, _) in GENERATIONS.items() if needed <= set(flags)), "")


def onednn_kernels(environ: Mapping[str, str] = os.environ) -> str:
    """The kernels that a oneDNN without such a query takes on this CPU; "" where it is no x86-64."""
    newest = ONEDNN.get(generation(cpu_flags()), "")
    names = list(ONEDNN.values())
    cap = environ.get(ONEDNN_CAP, "").lower()
    return min(cap, newest, key=names.index) if newest and cap in names else newest


def openblas_cores() -> dict[str, str]:
    """The core whose kernels each OpenBLAS in this process takes, by the library that brings it (numpy, scipy)."""
    from threadpoolctl import threadpool_info

    cores = {}
    for library in threadpool_info():
        owner = next((name for name in ("numpy", "scipy") if f"/{name}." in library["filepath"]), "")
        if owner and library["internal_api"] == "openblas" and library.get("architecture"):
            cores[owner] = str(library["architecture"])
    return cores


def is_fallback(core: str, flags: Collection[str]) -> bool:
    """Whether a core is one that OpenBLAS falls back to on a CPU with these flags: for a CPU without AVX2, and it has it."""
    mine = next((name for name, cores in CORES.items() if core in cores), "")
    return mine in ("SSE", "AVX") and generation(flags) in ("AVX2", "AVX-512")


@cache
def fallback() -> str:
    """The core that NumPy's OpenBLAS fell back to in this process because it does not know the CPU; "" where it did not."""
    core = openblas_cores().get("numpy", "")
    return core if CORETYPE not in os.environ and is_fallback(core, cpu_flags()) else ""


def slow_kernels(whose: str, core: str, environ: Mapping[str, str] = os.environ) -> str:
    """A warning and its remedy where an OpenBLAS takes kernels for an older CPU than this one; "" where it does not."""
    flags = cpu_flags()
    if not is_fallback(core, flags):
        return ""
    library = f"{whose} OpenBLAS"
    if CORETYPE in environ:
        assignment = f"{CORETYPE}={environ[CORETYPE]}"
        return (
            f"{library} takes the kernels for {core}, as {assignment} asks; this CPU has {generation(flags)}: unset it."
        )
    return (
        f"{library} does not know this CPU, which has {generation(flags)}, and fell back to the kernels for {core}, which are "
        f"slow. To mend it: set {CORETYPE}={fitting_core(flags)} before Python starts; the processes that `polymae compare` "
        "starts have it by themselves."
    )


@cache
def fitting_core(flags: tuple[str, ...], python: str = sys.executable) -> str:
    """The fastest core for a CPU with these flags whose products are right here; "" where there is none.

    Old kernels compute wrong numbers, or die, on some CPUs: each is tried in a process of its own.
    """
    needed = generation(flags)
    candidates = GENERATIONS[needed][1] if needed else ()
    return next((core for core in candidates if _is_right(core, python)), "")


def _is_right(core: str, python: str) -> bool:
    environment = os.environ | {CORETYPE: core, "OPENBLAS_NUM_THREADS": "1"}
    child = subprocess.run([python, "-c", _CHECK], env=environment, capture_output=True, check=False)
    return child.returncode == 0


def thread_variables(threads: int) -> dict[str, str]:
    """The environment variables by which the libraries of a process that is to start take so many threads."""
    return {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "OPENBLAS", "MKL")}


def variables(framework: str, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment variables with which a process of a framework should start, for the right kernels.

    A core that the user has chosen stays. So do NumPy's kernels, unless its OpenBLAS fell back; a framework that brings an
    OpenBLAS of its own, as old as itself, gets the kernels for AVX2, which each release since 2014 has.
    """
    if CORETYPE in environ:
        return {}
    core = fitting_core(cpu_flags()) if fallback() else ""
    if not core and framework in BRING_OPENBLAS and generation(cpu_flags()) in ("AVX2", "AVX-512"):
        core = "Haswell"
    return {CORETYPE: core} if core else {}
