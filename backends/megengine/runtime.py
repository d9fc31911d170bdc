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
from ..gradient_taps import gradient_taps
from ..naming import to_spec
from ..optimization import Settings
from ..runtime import Recorded, RuntimeProblem, WatchedTaps, forward, objective, require_dtype
from .importing import use
from .model import MAE, ViT
from .optimizer import AdamW, trained
from .weights import Weights, load_file, load_weights, weights

__all__ = [
    "build",
    "devices",
    "environment",
    "from_numpy",
    "load_file",
    "load_weights",
    "optimizer",
    "run",
    "setup",
    "to_numpy",
    "train_step",
    "weights",
]

DTYPES = {"float32": "float32"}


def devices() -> list[str]:
    """Devices this process can use, the first being the default."""
    try:
        ctypes.CDLL("libcuda.so.1")  # asked without a driver, MegEngine fills stderr
    except OSError:
        return ["cpu"]
    return ["cpu"] + (["cuda"] if mge.is_cuda_available() else [])


def setup(device: str = "cpu", threads: int | None = None, seed: int = 0, allow_tf32: bool = False) -> None:
    """Prepare the process for exact work: TF32 off (unless allowed), deterministic kernels, a seed.

    MegEngine has no setting for its threads. Raises RuntimeProblem for a device that is not there.
    """
    if device not in devices():
        raise RuntimeProblem(f"MegEngine {mge.__version__} sees no {device!r} here; it has {', '.join(devices())}.")
    if allow_tf32:
        os.environ.pop("NVIDIA_TF32_OVERRIDE", None)
    else:
        os.environ["NVIDIA_TF32_OVERRIDE"] = "0"  # cuBLAS and cuDNN read it when they start
    mge.config.deterministic_kernel = True
    use(mge, device)
    mge.random.seed(seed)


def environment(device: str) -> dict[str, Any]:
    """What numbers may depend on: version, device name, threads, TF32, whether every run gives the same bits."""
    return {
        "framework": "megengine",
        "version": mge.__version__,
        "device": mge.get_cuda_device_property(0).name if device == "cuda" else "cpu",
        "threads": None if device == "cuda" else 1,  # that of the caller; a device of more has another name
        "tf32": device == "cuda" and os.environ.get("NVIDIA_TF32_OVERRIDE") != "0",
        "deterministic": bool(mge.config.deterministic_kernel),
    }


def build(config: Config, weights: Weights | None = None, device: str = "cpu", dtype: str = "float32") -> MAE | ViT:
    """A model on a device, which becomes MegEngine's default. weights: arrays by spec name; None gives initial ones."""
    require_dtype("megengine", DTYPES, dtype)
    use(mge, device)
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
) -> Recorded:
    """Run a model on NumPy inputs and return its taps and, if asked, the loss's gradients by spec name.

    The frozen position tables get a gradient too: it costs nothing and shows more.
    """
    tensors = {name: from_numpy(array, model) for name, array in inputs.items()}
    if not gradients:
        out: dict[str, Tensor] = {}
        forward(model, tensors, mask_ratio, out)
        return Recorded({name: to_numpy(out.pop(name)) for name in list(out)}, {}, {})
    names, parameters = zip(*model.named_parameters())
    manager = GradManager().attach(list(parameters))
    watched = [tap.name for tap in gradient_taps(model.config)]
    out = WatchedTaps(watched, lambda name, tensor: manager.attach(tensor))
    with manager:
        loss = forward(model, tensors, mask_ratio, out)
        manager.backward(loss)
    native = {name: to_numpy(parameter.grad) for name, parameter in zip(names, parameters)}
    for parameter in parameters:
        parameter.grad = None  # another backward would add to it
    dy = {name: to_numpy(out[name].grad) for name in watched}
    taps = {name: to_numpy(out.pop(name)) for name in list(out)}  # a tensor goes when its copy is made
    return Recorded(taps, to_spec("megengine", model.config, native), dy)


def optimizer(model: MAE | ViT, settings: Settings) -> AdamW:
    """An AdamW for the model's parameters."""
    return AdamW(model, settings)


def train_step(
    model: MAE | ViT, optimizer: AdamW, inputs: Mapping[str, NDArray[Any]], mask_ratio: float, lr: float
) -> float:
    """One step of training from NumPy inputs, at this learning rate. Returns the loss before it."""
    tensors = {name: from_numpy(array, model) for name, array in inputs.items()}
    parameters = trained(model)
    manager = GradManager().attach(list(parameters.values()))
    with manager:
        loss = objective(model, tensors, mask_ratio)
        manager.backward(loss)
    found = [parameter.grad for parameter in parameters.values()]
    for parameter in parameters.values():
        parameter.grad = None  # another backward would add to it
    optimizer.step(dict(zip(parameters, found)), lr)
    return float(to_numpy(loss))
