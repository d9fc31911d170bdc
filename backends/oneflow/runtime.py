"""Devices, precision and gradients in OneFlow. The five runtime.py files read alike: what they share is in ../runtime.py."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import oneflow as flow
from numpy.typing import NDArray
from oneflow import Tensor

from ..averaging import Averaging
from ..blas import onednn_kernels
from ..config import Config, MAEConfig
from ..optimization import Optimizer, Settings
from ..runtime import Loss, Runtime, RuntimeProblem, Watched, require_dtype, unfrozen
from . import importing
from .model import MAE, ViT
from .optimizer import EMA, LARS, AdamW
from .training import Training
from .weights import Weights, load_file, load_weights, named_parameters, to_numpy

DTYPES = {"float32": flow.float32, "float64": flow.float64}

_threads: int | None = None  # what was asked for: OneFlow cannot be asked


class Backend(Runtime):
    """OneFlow."""

    framework = "oneflow"
    DTYPES = DTYPES
    named_parameters = staticmethod(named_parameters)
    load_weights = staticmethod(load_weights)
    load_file = staticmethod(load_file)
    to_numpy = staticmethod(to_numpy)

    def devices(self) -> list[str]:
        return ["cpu"] + (["cuda"] if flow.cuda.is_available() else [])

    def setup(self, device: str = "cpu", threads: int | None = None, seed: int = 0, allow_tf32: bool = False) -> None:
        if device not in self.devices():
            raise RuntimeProblem(
                f"OneFlow {flow.__version__} sees no {device!r} here; it has {', '.join(self.devices())}."
            )
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

    def environment(self, device: str) -> dict[str, Any]:
        return {
            "framework": "oneflow",
            "version": flow.__version__,
            "device": flow.cuda.get_device_name() if device == "cuda" else "cpu",
            "threads": _threads,
            "tf32": device == "cuda" and os.environ.get("ONEFLOW_EP_CUDA_ENABLE_TF32_EXECUTION") != "0",
            "deterministic": device == "cpu",  # it has no switch for its CUDA kernels
            "kernels": {"openblas": importing.openblas_core, "onednn": onednn_kernels()},
        }

    def build(
        self, config: Config, weights: Weights | None = None, device: str = "cpu", dtype: str = "float32"
    ) -> MAE | ViT:
        require_dtype("oneflow", DTYPES, dtype)
        model = MAE(config, weights) if isinstance(config, MAEConfig) else ViT(config, weights)
        return model.to(device, DTYPES[dtype]).eval()

    def from_numpy(self, array: NDArray[Any], like: Any) -> Tensor:
        parameter: Tensor = like.cls_token
        tensor = flow.tensor(np.array(array)).to(parameter.device)
        return tensor.to(parameter.dtype) if tensor.is_floating_point() else tensor

    def no_grad(self) -> AbstractContextManager[Any]:
        return flow.no_grad()

    def differentiate(
        self, loss: Loss, model: Any, inputs: Mapping[str, Any], parameters: Mapping[str, Any], watched: Watched
    ) -> tuple[Any, dict[str, Any]]:
        """OneFlow keeps the graph, and is asked for the gradients at any of its tensors afterwards."""
        with unfrozen(parameters.values()):
            value = loss(model, inputs, watched.out)
            wanted = [*parameters.values(), *(watched.out[name] for name in watched.names)]
            gradients = flow.autograd.grad(value, wanted)
        watched.dy.update(zip(watched.names, gradients[len(parameters) :]))
        return value, dict(zip(parameters, gradients))

    def optimizer(self, model: Any, settings: Settings) -> Optimizer:
        return LARS(self, model, settings) if settings.kind == "lars" else AdamW(self, model, settings)

    def average(self, model: Any, averaging: Averaging) -> EMA:
        return EMA(self, model, averaging)

    def training(self, model: Any, optimizer: Optimizer, **options: Any) -> Training:
        return Training(self, model, optimizer, **options)
