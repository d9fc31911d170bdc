"""Devices, precision and gradients in MegEngine. The five runtime.py files read alike: what they share is in ../runtime.py."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import megengine as mge
import numpy as np
from megengine import Tensor
from megengine.autodiff import GradManager
from numpy.typing import NDArray

from ..averaging import Averaging
from ..config import Config, MAEConfig
from ..optimization import Optimizer, Settings
from ..runtime import Loss, Runtime, RuntimeProblem, ShownTaps, Watched, require_dtype
from .importing import use
from .model import MAE, ViT
from .optimizer import EMA, LARS, AdamW
from .training import Training
from .weights import Weights, load_file, load_weights, named_parameters, to_numpy

DTYPES = {"float32": "float32"}


class Backend(Runtime):
    """MegEngine."""

    framework = "megengine"
    DTYPES = DTYPES
    named_parameters = staticmethod(named_parameters)
    load_weights = staticmethod(load_weights)
    load_file = staticmethod(load_file)
    to_numpy = staticmethod(to_numpy)

    def devices(self) -> list[str]:
        try:
            ctypes.CDLL("libcuda.so.1")  # asked without a driver, MegEngine fills stderr
        except OSError:
            return ["cpu"]
        return ["cpu"] + (["cuda"] if mge.is_cuda_available() else [])

    def setup(self, device: str = "cpu", threads: int | None = None, seed: int = 0, allow_tf32: bool = False) -> None:
        """MegEngine has no setting for its threads."""
        if device not in self.devices():
            raise RuntimeProblem(
                f"MegEngine {mge.__version__} sees no {device!r} here; it has {', '.join(self.devices())}."
            )
        if allow_tf32:
            os.environ.pop("NVIDIA_TF32_OVERRIDE", None)
        else:
            os.environ["NVIDIA_TF32_OVERRIDE"] = "0"  # cuBLAS and cuDNN read it when they start
        mge.config.deterministic_kernel = True
        use(mge, device)
        mge.random.seed(seed)

    def environment(self, device: str) -> dict[str, Any]:
        return {
            "framework": "megengine",
            "version": mge.__version__,
            "device": mge.get_cuda_device_property(0).name if device == "cuda" else "cpu",
            "threads": None if device == "cuda" else 1,  # that of the caller; a device of more has another name
            "tf32": device == "cuda" and os.environ.get("NVIDIA_TF32_OVERRIDE") != "0",
            "deterministic": bool(mge.config.deterministic_kernel),
        }

    def build(
        self, config: Config, weights: Weights | None = None, device: str = "cpu", dtype: str = "float32"
    ) -> MAE | ViT:
        """The device becomes MegEngine's default."""
        require_dtype("megengine", DTYPES, dtype)
        use(mge, device)
        model = MAE(config, weights) if isinstance(config, MAEConfig) else ViT(config, weights)
        model.eval()
        return model

    def from_numpy(self, array: NDArray[Any], like: Any) -> Tensor:
        """Floating point becomes float32, and integers int32."""
        parameter: Tensor = like.cls_token
        dtype = "<f4" if np.issubdtype(array.dtype, np.floating) else "<i4"
        return mge.tensor(np.array(array, dtype, order="C"), device=parameter.device)

    def no_grad(self) -> AbstractContextManager[Any]:
        return nullcontext()  # a graph is kept inside a GradManager alone

    def differentiate(
        self, loss: Loss, model: Any, inputs: Mapping[str, Any], parameters: Mapping[str, Any], watched: Watched
    ) -> tuple[Any, dict[str, Any]]:
        """MegEngine's manager has to know each tensor before it is used, and leaves its gradient in it."""
        manager = GradManager().attach(list(parameters.values()))
        with manager:
            value = loss(model, inputs, ShownTaps(watched, lambda name, tensor: manager.attach(tensor)))
            manager.backward(value)
        gradients = {name: parameter.grad for name, parameter in parameters.items()}
        for parameter in parameters.values():
            parameter.grad = None  # another backward would add to it
        watched.dy.update((name, watched.out[name].grad) for name in watched.names)
        return value, gradients

    def optimizer(self, model: Any, settings: Settings) -> Optimizer:
        return LARS(self, model, settings) if settings.kind == "lars" else AdamW(self, model, settings)

    def average(self, model: Any, averaging: Averaging) -> EMA:
        return EMA(self, model, averaging)

    def training(self, model: Any, optimizer: Optimizer, **options: Any) -> Training:
        return Training(self, model, optimizer, **options)
