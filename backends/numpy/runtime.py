"""Precision and gradients in NumPy. The five runtime.py files read alike: what they share is in ../runtime.py."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..averaging import Averaging
from ..blas import openblas_cores
from ..config import Config, MAEConfig
from ..optimization import Optimizer, Settings
from ..runtime import Loss, Runtime, RuntimeProblem, Watched, require_dtype
from ..spec import NoTaps
from .backward import gradients
from .model import MAE, ViT
from .optimizer import EMA, LARS, AdamW
from .training import Training
from .weights import Weights, load_file, load_weights, named_parameters, to_numpy

DTYPES = ("float32", "float64")


class Backend(Runtime):
    """NumPy."""

    framework = "numpy"
    DTYPES = DTYPES
    named_parameters = staticmethod(named_parameters)
    load_weights = staticmethod(load_weights)
    load_file = staticmethod(load_file)
    to_numpy = staticmethod(to_numpy)

    def devices(self) -> list[str]:
        return ["cpu"]

    def setup(self, device: str = "cpu", threads: int | None = None, seed: int = 0, allow_tf32: bool = False) -> None:
        """NumPy has nothing to switch: its threads are those of its BLAS."""
        if device not in self.devices():
            raise RuntimeProblem(f"NumPy has no {device!r}; it computes on the cpu alone.")
        np.random.seed(seed)

    def environment(self, device: str) -> dict[str, Any]:
        return {
            "framework": "numpy",
            "version": np.__version__,
            "device": "cpu",
            "threads": int(os.environ["OPENBLAS_NUM_THREADS"]) if "OPENBLAS_NUM_THREADS" in os.environ else None,
            "tf32": False,
            "deterministic": True,
            "kernels": {"openblas": openblas_cores().get("numpy", "")},
        }

    def build(
        self, config: Config, weights: Weights | None = None, device: str = "cpu", dtype: str = "float32"
    ) -> MAE | ViT:
        require_dtype("numpy", DTYPES, dtype)
        model = MAE(config, weights) if isinstance(config, MAEConfig) else ViT(config, weights)
        for name, parameter in list(model.named_parameters()):
            model.set_parameter(name, parameter.astype(dtype))
        return model

    def from_numpy(self, array: NDArray[Any], like: Any) -> NDArray[Any]:
        return np.array(array, like.cls_token.dtype if np.issubdtype(array.dtype, np.floating) else array.dtype)

    def no_grad(self) -> AbstractContextManager[Any]:
        return nullcontext()  # there is no graph

    def differentiate(
        self, loss: Loss, model: Any, inputs: Mapping[str, Any], parameters: Mapping[str, Any], watched: Watched
    ) -> tuple[Any, dict[str, Any]]:
        """NumPy has no autograd: the backward pass is written by hand, and starts from the taps."""
        out = {} if isinstance(watched.out, NoTaps) else watched.out
        value = loss(model, inputs, out)
        derived = gradients(model, inputs, out, watched.dy, None if watched.names else parameters)
        return value, {name: derived[name] for name in parameters}

    def optimizer(self, model: Any, settings: Settings) -> Optimizer:
        return LARS(self, model, settings) if settings.kind == "lars" else AdamW(self, model, settings)

    def average(self, model: Any, averaging: Averaging) -> EMA:
        return EMA(self, model, averaging)

    def training(self, model: Any, optimizer: Optimizer, **options: Any) -> Training:
        return Training(self, model, optimizer, **options)
