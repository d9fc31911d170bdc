"""Weights in and out of a MegEngine model, always verified against the spec."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import megengine as mge
import megengine.module as M
import numpy as np
from numpy.typing import NDArray

from ..initial import initial_weights
from ..naming import Arrays, native_shapes, to_native
from ..spec import SpecError, verify

Weights = Arrays


def finish(model: Any, weights: Weights | None) -> None:
    """End a model's construction: check its parameters against the spec, then load the weights (None: initial ones)."""
    actual = {name: tuple(parameter.shape) for name, parameter in named_parameters(model).items()}
    verify(native_shapes("megengine", model.config), actual, "The MegEngine model")
    load_weights(model, initial_weights(model.config) if weights is None else weights)


def named_parameters(model: M.Module) -> dict[str, mge.Tensor]:
    """The model's parameters by their names in its state dict."""
    return dict(model.named_parameters())


def load_weights(model: Any, weights: Weights) -> None:
    """Copy weights, by spec name, into a model. Raises SpecError where they are not exactly its parameters."""
    native = to_native("megengine", model.config, weights)
    # MegEngine takes an array's bytes as they lie, and its type for the parameter's.
    model.load_state_dict({name: np.array(array, "<f4", order="C") for name, array in native.items()}, strict=True)


def to_numpy(tensor: mge.Tensor) -> NDArray[Any]:
    """A copy in NumPy."""
    return np.array(tensor.numpy())


def load_file(model: M.Module, path: Path) -> None:
    """Load a native .pkl file with megengine.load, strictly.

    Raises SpecError where its arrays are not exactly the model's float32 parameters: MegEngine itself would take
    any type, and would have written some of them before it stopped at a wrong shape.
    """
    checkpoint = mge.load(str(path))
    state = checkpoint.get("model", checkpoint)
    shapes = {name: tuple(array.shape) for name, array in state.items()}
    verify(native_shapes("megengine", model.config), shapes, f"{path}")
    wrong = [f"dtype: {name} is {array.dtype}" for name, array in state.items() if array.dtype != np.dtype("<f4")]
    if wrong:
        raise SpecError(f"{path} does not hold float32 little-endian arrays only:\n  " + "\n  ".join(wrong))
    model.load_state_dict({name: np.ascontiguousarray(array) for name, array in state.items()}, strict=True)
