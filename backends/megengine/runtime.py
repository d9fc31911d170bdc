"""Devices, precision and gradients in MegEngine. Every backend's runtime.py has these same functions."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from typing import Any

import megengine as mge
import numpy as np
from megengine import Tensor
from megengine.autodiff import GradManager
from numpy.typing import NDArray

from ..config import Config, MAEConfig
from ..runtime import RuntimeProblem, denormals, forward
from ..spelling import to_spec
from .model import MAE, ViT
from .weights import Weights, load_file, load_weights, weights

__all__ = [
    "build",
    "devices",
    "environment",
    "from_numpy",
    "load_file",
    "load_weights",
    "run",
    "setup",
    "to_numpy",
    "weights",
]

DTYPES = {"float32": "float32"}
NATIVE_DEVICES = {"cpu": "cpu0", "cuda": "gpu0"}


def devices() -> list[str]:
    """Devices this process can use, the first being the default."""
    try:
        ctypes.CDLL("libcuda.so.1")  # asked without a driver, MegEngine fills stderr
    except OSError:
        return ["cpu"]
    return ["cpu"] + (["cuda"] if mge.is_cuda_available() else [])


def setup(device: str = "cpu", threads: int | None = None, seed: int = 0) -> None:
    """Prepare the process for exact work: TF32 off, deterministic kernels, a seed.

    MegEngine has no setting for its threads. Raises RuntimeProblem for a device that is not there.
    """
    if device not in devices():
        raise RuntimeProblem(f"MegEngine {mge.__version__} sees no {device!r} here; it has {', '.join(devices())}.")
    os.environ["NVIDIA_TF32_OVERRIDE"] = "0"  # cuBLAS and cuDNN read it when they start
    mge.config.deterministic_kernel = True
    mge.set_default_device(NATIVE_DEVICES[device])
    mge.random.seed(seed)


def environment(device: str) -> dict[str, Any]:
    """What numbers may depend on: version, device name, threads (MegEngine does not tell), TF32, denormals."""
    return {
        "framework": "megengine",
        "version": mge.__version__,
        "device": mge.get_cuda_device_property(0).name if device == "cuda" else "cpu",
        "threads": None,
        "tf32": device == "cuda" and os.environ.get("NVIDIA_TF32_OVERRIDE") != "0",
        "denormals": denormals(),
    }


def build(config: Config, weights: Weights | None = None, device: str = "cpu", dtype: str = "float32") -> MAE | ViT:
    """A model on a device, which becomes MegEngine's default. weights: arrays by spec name; None gives initial ones."""
    if dtype not in DTYPES:
        raise RuntimeProblem(f"MegEngine runs {', '.join(DTYPES)} here, not {dtype!r}; it has no float64 tensors.")
    mge.set_default_device(NATIVE_DEVICES[device])
    model = MAE(config, weights) if isinstance(config, MAEConfig) else ViT(config, weights)
    model.eval()
    return model


def from_numpy(array: NDArray[Any], like: Any) -> Tensor:
    """A tensor on the model's device; floating point becomes float32, and integers int32."""
    parameter: Tensor = like.cls_token
    dtype = "<f4" if np.issubdtype(array.dtype, np.floating) else "<i4"
    return mge.tensor(np.array(array, dtype, order="C"), device=parameter.device)


def to_numpy(tensor: Tensor) -> NDArray[Any]:
    """A copy in NumPy."""
    return np.array(tensor.numpy())


def run(
    model: MAE | ViT, inputs: Mapping[str, NDArray[Any]], mask_ratio: float = 0.75, gradients: bool = False
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """Run a model on NumPy inputs and return its taps and, if asked, the loss's gradients by spec name.

    The frozen position tables get a gradient too: it costs nothing and shows more.
    """
    tensors = {name: from_numpy(array, model) for name, array in inputs.items()}
    out: dict[str, Tensor] = {}
    if not gradients:
        forward(model, tensors, mask_ratio, out)
        return {name: to_numpy(tensor) for name, tensor in out.items()}, {}
    names, parameters = zip(*model.named_parameters())
    manager = GradManager().attach(list(parameters))
    with manager:
        loss = forward(model, tensors, mask_ratio, out)
        manager.backward(loss)
    taps = {name: to_numpy(tensor) for name, tensor in out.items()}
    native = {name: to_numpy(parameter.grad) for name, parameter in zip(names, parameters)}
    for parameter in parameters:
        parameter.grad = None  # another backward would add to it
    return taps, to_spec("megengine", model.config, native)
