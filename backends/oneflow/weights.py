"""Weights in and out of a OneFlow model, always verified against the spec."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import oneflow as flow
from numpy.typing import NDArray
from oneflow import Tensor, nn

from ..initial import initial_weights
from ..naming import Arrays, native_params, native_shapes, to_native
from ..spec import SpecError, verify

Weights = Arrays


def finish(model: Any, weights: Weights | None) -> None:
    """End a model's construction: check its parameters against the spec, freeze some, load the weights (None: initial ones)."""
    parameters = named_parameters(model)
    actual = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    verify(native_shapes("oneflow", model.config), actual, "The OneFlow model")
    for native in native_params("oneflow", model.config):
        parameters[native.name].requires_grad = native.param.trainable
    load_weights(model, initial_weights(model.config) if weights is None else weights)


def named_parameters(model: nn.Module) -> dict[str, Tensor]:
    """The model's parameters by their names in its state dict."""
    return dict(model.named_parameters())


def load_weights(model: Any, weights: Weights) -> None:
    """Copy weights, by spec name, into a model. Raises SpecError where they are not exactly its parameters."""
    native = to_native("oneflow", model.config, weights)
    # OneFlow copies an array only into a parameter of the same type.
    dtype = model.cls_token.detach().cpu().numpy().dtype
    model.load_state_dict({name: np.array(array, dtype) for name, array in native.items()}, strict=True)


def to_numpy(tensor: Tensor) -> NDArray[Any]:
    """A copy in NumPy."""
    return np.array(tensor.detach().cpu().numpy())


def load_file(model: nn.Module, path: Path) -> None:
    """Load a native folder with oneflow.load, strictly. Raises SpecError where it does not hold the model exactly."""
    if not Path(path).is_dir():
        raise SpecError(f"{path} is not a folder, as oneflow.save writes them; give the folder itself.")
    checkpoint = flow.load(str(path), map_location="cpu")
    state = checkpoint.get("model", checkpoint)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    verify(native_shapes("oneflow", model.config), shapes, f"{path}")
    model.load_state_dict(state, strict=True)
