"""Weights in and out of a NumPy model, always verified against the spec."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..initial import initial_weights
from ..naming import Arrays, native_shapes, to_native
from ..spec import verify

Weights = Arrays


def finish(model: Any, weights: Weights | None) -> None:
    """End a model's construction: check its parameters against the spec, then load the weights (None: initial ones)."""
    actual = {name: parameter.shape for name, parameter in named_parameters(model).items()}
    verify(native_shapes("numpy", model.config), actual, "The NumPy model")
    load_weights(model, initial_weights(model.config) if weights is None else weights)


def named_parameters(model: Any) -> dict[str, NDArray[Any]]:
    """The model's parameters by their names in its state dict."""
    return dict(model.named_parameters())


def load_weights(model: Any, weights: Weights) -> None:
    """Put weights, by spec name, into a model. Raises SpecError where they are not exactly its parameters."""
    for name, array in to_native("numpy", model.config, weights).items():
        model.set_parameter(name, np.array(array, model.cls_token.dtype))


def to_numpy(tensor: NDArray[Any]) -> NDArray[Any]:
    """A copy."""
    return np.array(tensor)


def load_file(model: Any, path: Path) -> None:
    """Load an .npz file whose arrays bear the spec's names, strictly."""
    with np.load(path, allow_pickle=False) as arrays:
        load_weights(model, {name: arrays[name] for name in arrays.files})
