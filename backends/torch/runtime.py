"""Devices, precision and gradients in PyTorch. Every backend's runtime.py has these same functions."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..config import Config, MAEConfig
from ..gradient_taps import gradient_taps
from ..naming import to_spec
from ..optimization import Settings
from ..runtime import Recorded, RuntimeProblem, forward, objective, require_dtype
from .model import MAE, ViT
from .optimizer import AdamW, trained
from .weights import Weights, load_file, load_weights, to_numpy, weights

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

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}


def devices() -> list[str]:
    """Devices this process can use, the first being the default."""
    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def setup(device: str = "cpu", threads: int | None = None, seed: int = 0, allow_tf32: bool = False) -> None:
    """Prepare the process for exact work: TF32 off (unless allowed), deterministic kernels, a seed.

    Raises RuntimeProblem for a device that is not there.
    """
    if device != "cpu" and device not in devices():  # asking for CUDA takes seconds
        raise RuntimeProblem(f"PyTorch {torch.__version__} sees no {device!r} here; it has {', '.join(devices())}.")
    if device == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what deterministic cuBLAS asks for
        torch.use_deterministic_algorithms(True, warn_only=True)  # kernels for the cpu are, and this would slow them
    torch.set_float32_matmul_precision("high" if allow_tf32 else "highest")
    torch.backends.cuda.matmul.allow_tf32 = allow_tf32
    torch.backends.cudnn.allow_tf32 = allow_tf32
    torch.manual_seed(seed)
    if threads:
        torch.set_num_threads(threads)


def environment(device: str) -> dict[str, Any]:
    """What numbers may depend on: version, device name, threads, TF32, whether every run gives the same bits, oneDNN."""
    return {
        "framework": "torch",
        "version": torch.__version__,
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "tf32": bool(torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32),
        "deterministic": device == "cpu" or torch.are_deterministic_algorithms_enabled(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "onednn": torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled,
        "kernels": {"aten": torch.backends.cpu.get_cpu_capability(), "blas": _blas()},
    }


def _blas() -> str:
    """The library behind matrix products on a CPU, as PyTorch was built with it; it has no function to ask for its kernels."""
    built = torch.__config__.show()
    version = re.search(r"Math Kernel Library Version (\S+)", built)
    return f"MKL {version[1]}" if version else next(iter(re.findall(r"BLAS_INFO=(\w+)", built)), "")


def build(config: Config, weights: Weights | None = None, device: str = "cpu", dtype: str = "float32") -> MAE | ViT:
    """A model on a device. weights: arrays by spec name; None gives initial ones."""
    require_dtype("torch", DTYPES, dtype)
    model = MAE(config, weights) if isinstance(config, MAEConfig) else ViT(config, weights)
    return model.to(device, DTYPES[dtype]).eval()


def from_numpy(array: NDArray[Any], like: Any) -> Tensor:
    """A tensor on the model's device; floating point gets the model's dtype."""
    parameter: Tensor = like.cls_token
    tensor = torch.from_numpy(np.array(array)).to(parameter.device)
    return tensor.to(parameter.dtype) if tensor.is_floating_point() else tensor


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
    with torch.set_grad_enabled(gradients):
        loss = forward(model, tensors, mask_ratio, out)
    names, parameters = zip(*model.named_parameters())
    watched = [tap.name for tap in gradient_taps(model.config)]
    wanted = (*parameters, *(out[name] for name in watched))
    found = torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True) if gradients else ()
    for parameter, before in zip(parameters, trainable):
        parameter.requires_grad_(before)
    native = {name: to_numpy(gradient) for name, gradient in zip(names, found)}
    dy = {name: to_numpy(gradient) for name, gradient in zip(watched, found[len(names) :])}
    taps = {name: to_numpy(out.pop(name)) for name in list(out)}  # a tensor goes when its copy is made
    return Recorded(taps, to_spec("torch", model.config, native) if gradients else {}, dy)


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
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True, materialize_grads=True)
    optimizer.step(dict(zip(parameters, found)), lr)
    return float(to_numpy(loss))
