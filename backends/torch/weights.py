"""Weights in and out of a PyTorch model, always verified against the spec."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..initial import initial_weights
from ..naming import Arrays, native_params, native_shapes, to_native
from ..runtime import RuntimeProblem
from ..spec import verify

Weights = Arrays


def finish(model: Any, weights: Weights | None) -> None:
    """End a model's construction: check its parameters against the spec, freeze some, load the weights (None: initial ones)."""
    parameters = named_parameters(model)
    actual = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    verify(native_shapes("torch", model.config), actual, "The PyTorch model")
    for native in native_params("torch", model.config):
        parameters[native.name].requires_grad = native.param.trainable
    load_weights(model, initial_weights(model.config) if weights is None else weights)


def named_parameters(model: nn.Module) -> dict[str, torch.Tensor]:
    """The model's parameters by their names in its state dict."""
    return dict(model.named_parameters())


def load_weights(model: Any, weights: Weights) -> None:
    """Copy weights, by spec name, into a model. Raises SpecError where they are not exactly its parameters."""
    native = to_native("torch", model.config, weights)
    # A copy: the arrays may be read-only views of a memory-mapped file, which torch warns about.
    model.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in native.items()}, strict=True)


def to_numpy(tensor: torch.Tensor) -> NDArray[Any]:
    """A copy in NumPy; bfloat16 becomes float32, which holds it exactly."""
    tensor = tensor.detach().cpu()
    return np.array(tensor.float() if tensor.dtype == torch.bfloat16 else tensor)


def load_file(model: nn.Module, path: Path) -> None:
    """Load a native .pth file with torch.load, strictly. Raises RuntimeProblem where torch refuses it."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(checkpoint.get("model", checkpoint), strict=True)
    except (RuntimeError, UnpicklingError) as problem:
        raise RuntimeProblem(f"torch.load does not take {path}: {str(problem).splitlines()[0]}") from problem
