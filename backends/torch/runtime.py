"""Devices, precision and gradients in PyTorch. The five runtime.py files read alike: what they share is in ../runtime.py."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..averaging import Averaging
from ..config import Config, MAEConfig
from ..optimization import Optimizer, Settings
from ..runtime import Loss, Runtime, RuntimeProblem, Watched, require_dtype, unfrozen
from .model import MAE, ViT
from .optimizer import EMA, LARS, AdamW
from .training import Training
from .weights import Weights, load_file, load_weights, named_parameters, to_numpy

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}


class Backend(Runtime):
    """PyTorch."""

    framework = "torch"
    DTYPES = DTYPES
    named_parameters = staticmethod(named_parameters)
    load_weights = staticmethod(load_weights)
    load_file = staticmethod(load_file)
    to_numpy = staticmethod(to_numpy)

    def devices(self) -> list[str]:
        return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]

    def setup(self, device: str = "cpu", threads: int | None = None, seed: int = 0, allow_tf32: bool = False) -> None:
        if device != "cpu" and device not in self.devices():  # asking for CUDA takes seconds
            raise RuntimeProblem(
                f"PyTorch {torch.__version__} sees no {device!r} here; it has {', '.join(self.devices())}."
            )
        if device == "cuda":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what deterministic cuBLAS asks for
            torch.use_deterministic_algorithms(
                True, warn_only=True
            )  # kernels for the cpu are, and this would slow them
        torch.set_float32_matmul_precision("high" if allow_tf32 else "highest")
        torch.backends.cuda.matmul.allow_tf32 = allow_tf32
        torch.backends.cudnn.allow_tf32 = allow_tf32
        torch.manual_seed(seed)
        if threads:
            torch.set_num_threads(threads)

    def environment(self, device: str) -> dict[str, Any]:
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

    def build(
        self, config: Config, weights: Weights | None = None, device: str = "cpu", dtype: str = "float32"
    ) -> MAE | ViT:
        require_dtype("torch", DTYPES, dtype)
        model = MAE(config, weights) if isinstance(config, MAEConfig) else ViT(config, weights)
        return model.to(device, DTYPES[dtype]).eval()

    def from_numpy(self, array: NDArray[Any], like: Any) -> Tensor:
        parameter: Tensor = like.cls_token
        tensor = torch.from_numpy(np.array(array)).to(parameter.device)
        return tensor.to(parameter.dtype) if tensor.is_floating_point() else tensor

    def no_grad(self) -> AbstractContextManager[Any]:
        return torch.no_grad()

    def differentiate(
        self, loss: Loss, model: Any, inputs: Mapping[str, Any], parameters: Mapping[str, Any], watched: Watched
    ) -> tuple[Any, dict[str, Any]]:
        """PyTorch keeps the graph, and is asked for the gradients at any of its tensors afterwards."""
        with unfrozen(parameters.values()):
            value = loss(model, inputs, watched.out)
            wanted = [*parameters.values(), *(watched.out[name] for name in watched.names)]
            gradients = torch.autograd.grad(value, wanted, allow_unused=True, materialize_grads=True)
        watched.dy.update(zip(watched.names, gradients[len(parameters) :]))
        return value, dict(zip(parameters, gradients))

    def optimizer(self, model: Any, settings: Settings) -> Optimizer:
        return LARS(self, model, settings) if settings.kind == "lars" else AdamW(self, model, settings)

    def average(self, model: Any, averaging: Averaging) -> EMA:
        return EMA(self, model, averaging)

    def training(self, model: Any, optimizer: Optimizer, **options: Any) -> Training:
        return Training(self, model, optimizer, **options)


def _blas() -> str:
    """The library behind matrix products on a CPU, as PyTorch was built with it; it has no function to ask for its kernels."""
    built = torch.__config__.show()
    version = re.search(r"Math Kernel Library Version (\S+)", built)
    return f"MKL {version[1]}" if version else next(iter(re.findall(r"BLAS_INFO=(\w+)", built)), "")
