"""Precision and gradients in NumPy. Every backend's runtime.py has these same functions."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..blas import openblas_cores
from ..config import Config, MAEConfig
from ..gradient_taps import gradient_taps
from ..naming import to_spec
from ..optimization import Settings
from ..runtime import Recorded, RuntimeProblem, forward, objective, require_dtype
from .backward import gradients as hand_derived
from .model import MAE, ViT
from .optimizer import AdamW
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

DTYPES = ("float32", "float64")


def devices() -> list[str]:
    """Devices this process can use, the first being the default."""
    return ["cpu"]


def setup(device: str = "cpu", threads: int | None = None, seed: int = 0, allow_tf32: bool = False) -> None:
    """Prepare the process for exact work: a seed. NumPy has nothing to switch: its threads are those of its BLAS.

    Raises RuntimeProblem for a device that is not there.
    """
    if device not in devices():
        raise RuntimeProblem(f"NumPy has no {device!r}; it computes on the cpu alone.")
    np.random.seed(seed)


def environment(device: str) -> dict[str, Any]:
    """What numbers may depend on: version, device name, threads, TF32, whether every run gives the same bits."""
    return {
        "framework": "numpy",
        "version": np.__version__,
        "device": "cpu",
        "threads": int(os.environ["OPENBLAS_NUM_THREADS"]) if "OPENBLAS_NUM_THREADS" in os.environ else None,
        "tf32": False,
        "deterministic": True,
        "kernels": {"openblas": openblas_cores().get("numpy", "")},
    }


def build(config: Config, weights: Weights | None = None, device: str = "cpu", dtype: str = "float32") -> MAE | ViT:
    """A model in the given precision. weights: arrays by spec name; None gives initial ones."""
    require_dtype("numpy", DTYPES, dtype)
    model = MAE(config, weights) if isinstance(config, MAEConfig) else ViT(config, weights)
    for name, parameter in list(model.named_parameters()):
        model.set_parameter(name, parameter.astype(dtype))
    return model


def from_numpy(array: NDArray[Any], like: Any) -> NDArray[Any]:
    """A copy; floating point gets the model's dtype."""
    return np.array(array, like.cls_token.dtype if np.issubdtype(array.dtype, np.floating) else array.dtype)


def to_numpy(tensor: NDArray[Any]) -> NDArray[Any]:
    """A copy."""
    return np.array(tensor)


def run(
    model: MAE | ViT,
    inputs: Mapping[str, NDArray[Any]],
    mask_ratio: float = 0.75,
    gradients: bool = False,
    out: dict[str, NDArray[Any]] | None = None,
    dy: dict[str, NDArray[Any]] | None = None,
) -> Recorded:
    """Run a model on NumPy inputs and return its taps and, if asked, the loss's gradients by spec name.

    The frozen position tables get a gradient too: it costs nothing and shows more. out, dy: dictionaries to
    record in, which may spoil what they are given (compare/judging/kernels.py).
    """
    tensors = {name: from_numpy(array, model) for name, array in inputs.items()}
    out = {} if out is None else out
    forward(model, tensors, mask_ratio, out)
    if not gradients:
        return Recorded(out, {}, {})
    native, dy = hand_derived(model, tensors, out, dy)
    dy = {tap.name: dy[tap.name] for tap in gradient_taps(model.config)}
    return Recorded(out, to_spec("numpy", model.config, native), dy)


def optimizer(model: MAE | ViT, settings: Settings) -> AdamW:
    """An AdamW for the model's parameters."""
    return AdamW(model, settings)


def train_step(
    model: MAE | ViT, optimizer: AdamW, inputs: Mapping[str, NDArray[Any]], mask_ratio: float, lr: float
) -> float:
    """One step of training from NumPy inputs, at this learning rate. Returns the loss before it."""
    tensors = {name: from_numpy(array, model) for name, array in inputs.items()}
    out: dict[str, NDArray[Any]] = {}
    loss = objective(model, tensors, mask_ratio, out)
    optimizer.step(hand_derived(model, tensors, out)[0], lr)
    return float(to_numpy(loss))
