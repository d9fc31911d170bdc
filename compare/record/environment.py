"""The causes of a run's numbers beside the model: recorded, set to be exact where possible, and reported."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...backends.blas import cpu_flags, cpuinfo, openblas_cores
from ...backends.denormals import denormals, tiny
from ...backends.runtime import Runtime
from ...files.version import __version__

# Variables that libraries read for threads, precision and order of summation begin with these.
VARIABLES = (
    "CUBLAS_", "CUDNN_", "DNNL_", "KMP_", "MEGENGINE_", "MGB_", "MKL_", "MS_", "NVIDIA_TF32", "OMP_", "ONEDNN_", "ONEFLOW_",
    "ATEN_", "NPY_", "OPENBLAS_", "TORCH_",
)  # fmt: skip
# Both names of oneDNN's switch that lets it round float32 to bfloat16 or TF32; read when the library is loaded.
MATH_MODES = ("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE")


def neutralise() -> None:
    """Have libraries compute float32 in float32, whatever this process was started with. Before any of them is loaded."""
    for name in MATH_MODES:
        os.environ[name] = "STRICT"


def recorded_environment(runtime: Runtime, device: str, model: Any, dtype: str = "float32") -> dict[str, Any]:
    """The backend's facts, the handling of denormal numbers by its kernels, and this machine's facts."""
    facts = runtime.environment(device)
    return facts | {
        "kernels": _kernels(runtime, model, dtype) | facts.get("kernels", {}),
        "denormals": _denormals(runtime, model, dtype),
        "numpy": np.__version__,
        "polymae": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "blas": _blas(),
        "variables": {name: value for name, value in sorted(os.environ.items()) if name.startswith(VARIABLES)},
    }


def suspects(environment: Mapping[str, Any]) -> list[str]:
    """The settings that may have changed a recorded run's numbers, a sentence each."""
    sentences = []
    if environment.get("tf32"):
        sentences.append("TF32 was on, which rounds what is multiplied to 11 bits; record without --allow-tf32")
    handling = str(environment.get("denormals", "kept"))
    if handling != "kept":
        sentences.append(f"denormal numbers (below 1.2e-38) were {handling}")
    threads = environment.get("threads")
    if isinstance(threads, int) and threads > 1:
        sentences.append(f"{threads} threads: sums may be taken in another order than with one")
    if environment.get("deterministic") is False:
        sentences.append("its kernels are not deterministic: another run may give other bits")
    variables = environment.get("variables")
    if isinstance(variables, Mapping):
        modes = {name: str(variables.get(name, "STRICT")) for name in MATH_MODES}
        loose = [f"{name}={mode}" for name, mode in modes.items() if mode.upper() != "STRICT"]
        sentences += [f"{setting} lets oneDNN round float32 to fewer bits" for setting in loose]
    return sentences


def _denormals(runtime: Runtime, model: Any, dtype: str) -> str:
    """Whether sums and products of denormal numbers come out of the framework's kernels, or zeros."""
    if denormals() != "kept":
        return "flushed to zero"
    array = tiny(dtype)
    tensor, one = runtime.from_numpy(array, model), runtime.from_numpy(np.eye(len(array), dtype=array.dtype), model)
    kernels = {"sum": tensor + tensor, "matrix product": tensor @ one}
    flushing = [name for name, outcome in kernels.items() if not runtime.to_numpy(outcome).all()]
    return f"flushed to zero by its kernels ({', '.join(flushing)})" if flushing else "kept"


def _kernels(runtime: Runtime, model: Any, dtype: str) -> dict[str, str]:
    """Which kernels ran: the CPU's instruction sets, the cores that each OpenBLAS chose, and a product's fingerprint."""
    numpys = {f"{owner}'s openblas": core for owner, core in openblas_cores().items()}
    return {"cpu": " ".join(cpu_flags()), **numpys, "product": _fingerprint(runtime, model, dtype)}


def _fingerprint(runtime: Runtime, model: Any, dtype: str) -> str:
    """The framework's error in a product of 2,048 terms, in units of roundoff, and a digest of its bits.

    Two kernels that sum in another order have other bits, and the error tells how long their chains are, also where a
    library has no function for it.
    """
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((64, 2048), (2048, 64)))
    product = runtime.to_numpy(runtime.from_numpy(a, model) @ runtime.from_numpy(b, model))
    exact = np.einsum("mk,kn->mn", a.astype(np.float64), b)
    distance = np.linalg.norm(product - exact) / np.linalg.norm(exact) * 2**24
    return f"{distance:.2f} u of 2048 terms, {hashlib.sha256(np.ascontiguousarray(product).tobytes()).hexdigest()[:8]}"


def processor() -> str:
    """The name of this machine's processor, with its family and model where it says them: a virtual one is "AMD EPYC" only."""
    core = cpuinfo()
    name = core.get("model name") or core.get("Model") or platform.processor() or platform.machine()
    if "cpu family" not in core:  # it is no x86
        return name
    return f"{name} (family {core['cpu family']}, model {core['model']})"


def _blas() -> str:
    """The library behind NumPy's matrix products."""
    try:
        describe: Any = np.show_config
        blas = describe(mode="dicts")["Build Dependencies"]["blas"]
        return f"{blas['name']} {blas['version']}"
    except (TypeError, LookupError):  # NumPy before 1.25
        return "unknown"
