"""Devices, precision and gradients in OneFlow. Every backend's runtime.py has these same functions."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import oneflow as flow
from numpy.typing import NDArray
from oneflow import Tensor

from ..blas import onednn_kernels
from ..config import Config, MAEConfig
from ..gradient_taps import gradient_taps
from ..naming import to_spec
from ..optimization import Settings
from ..runtime import Recorded, RuntimeProblem, forward, objective, require_dtype
from . import importing
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

DTYPES = {"float32": flow.float32, "float64": flow.float64}

_threads: int | None = None  # what was asked for: OneFlow cannot be asked


def devices() -> list[str]:
    """Devices this process can use, the first being the default."""
    return ["cpu"] + (["cuda"] if flow.cuda.is_available() else [])


def setup(device: str = "cpu", threads: int | None = None, seed: int = 0, allow_tf32: bool = False) -> None:
    """Prepare the process for exact work: TF32 off (unless allowed), deterministic kernels, a seed.

    Raises RuntimeProblem for a device that is not there.
    """
    if device not in devices():
        raise RuntimeProblem(f"OneFlow {flow.__version__} sees no {device!r} here; it has {', '.join(devices())}.")
    if device == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what deterministic cuBLAS asks for
    # OneFlow's own switch, read at the first CUDA stream, and that of cuBLAS and cuDNN.
    os.environ["ONEFLOW_EP_CUDA_ENABLE_TF32_EXECUTION"] = str(int(allow_tf32))
    if allow_tf32:
        os.environ.pop("NVIDIA_TF32_OVERRIDE", None)
    else:
        os.environ["NVIDIA_TF32_OVERRIDE"] = "0"
    flow.manual_seed(seed)
    global _threads
    if threads:
        _threads = threads
        with contextlib.redirect_stdout(io.StringIO()):  # it warns there where that is every core
            flow.set_num_threads(threads)


def environment(device: str) -> dict[str, Any]:
    """What numbers may depend on: version, device name, threads, TF32, whether every run gives the same bits."""
    return {
        "framework": "oneflow",
        "version": flow.__version__,
        "device": flow.cuda.get_device_name() if device == "cuda" else "cpu",
        "threads": _threads,
        "tf32": device == "cuda" and os.environ.get("ONEFLOW_EP_CUDA_ENABLE_TF32_EXECUTION") != "0",
        "deterministic": device == "cpu",  # it has no switch for its CUDA kernels
        "kernels": {"openblas": importing.openblas_core, "onednn": onednn_kernels()},
    }


def build(config: Config, weights: Weights | None = None, device: str = "cpu", dtype: str = "float32") -> MAE | ViT:
    """A model on a device. weights: arrays by spec name; None gives initial ones."""
    require_dtype("oneflow", DTYPES, dtype)
    model = MAE(config, weights) if isinstance(config, MAEConfig) else ViT(config, weights)
    return model.to(device, DTYPES[dtype]).eval()


def from_numpy(array: NDArray[Any], like: Any) -> Tensor:
    """A tensor on the model's device; floating point gets the model's dtype."""
    parameter: Tensor = like.cls_token
    tensor = flow.tensor(np.array(array)).to(parameter.device)
    return tensor.to(parameter.dtype) if tensor.is_floating_point() else tensor


def to_numpy(tensor: Tensor) -> NDArray[Any]:
    """A copy in NumPy."""
    return np.array(tensor.detach().cpu().numpy())


def run(
    model: MAE | ViT, inputs: Mapping[str, NDArray[Any]], mask_ratio: float = 0.75, gradients: bool = False
) -> Recorded:
    """Run a model on NumPy inputs and return its taps and, if asked, the loss's gradients by spec name.

    The frozen position tables get a gradient too: it costs nothing and shows more.
    """
    tensors = {name: from_numpy(array, model) for name, array in inputs.items()}
    out: dict[str, Tensor] = {}
    trainable = [parameter.requires_grad for parameter in model.parameters()]
    model.requires_grad_(gradients)
    with flow.set_grad_enabled(gradients):
        loss = forward(model, tensors, mask_ratio, out)
    names, parameters = zip(*model.named_parameters())
    watched = [tap.name for tap in gradient_taps(model.config)]
    wanted = (*parameters, *(out[name] for name in watched))
    found = flow.autograd.grad(loss, wanted) if gradients else ()
    for parameter, before in zip(parameters, trainable):
        parameter.requires_grad_(before)
    native = {name: to_numpy(gradient) for name, gradient in zip(names, found)}
    dy = {name: to_numpy(gradient) for name, gradient in zip(watched, found[len(names) :])}
    taps = {name: to_numpy(out.pop(name)) for name in list(out)}  # a tensor goes when its copy is made
    return Recorded(taps, to_spec("oneflow", model.config, native) if gradients else {}, dy)


def optimizer(model: MAE | ViT, settings: Settings) -> AdamW:
    """An AdamW for the model's parameters."""
    return AdamW(model, settings)


def train_step(
    model: MAE | ViT, optimizer: AdamW, inputs: Mapping[str, NDArray[Any]], mask_ratio: float, lr: float
) -> float:
    """One step of training from NumPy inputs, at this learning rate. Returns the loss before it."""
    tensors = {name: from_numpy(array, model) for name, array in inputs.items()}
    parameters = trained(model)
    loss = objective(model, tensors, mask_ratio)
    found = flow.autograd.grad(loss, list(parameters.values()))
    optimizer.step(dict(zip(parameters, found)), lr)
    return float(to_numpy(loss))
