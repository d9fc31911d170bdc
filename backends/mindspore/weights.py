"""Weights in and out of a MindSpore model, always verified against the spec."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn
from numpy.typing import NDArray

from ..initial import initial_weights
from ..naming import Arrays, native_params, native_shapes, to_native
from ..spec import SpecError, verify

Weights = Arrays


def finish(model: Any, weights: Weights | None) -> None:
    """End a model's construction: check its parameters against the spec, freeze some, load the weights (None: initial ones)."""
    parameters = named_parameters(model)
    actual = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    verify(native_shapes("mindspore", model.config), actual, "The MindSpore model")
    for native in native_params("mindspore", model.config):
        parameters[native.name].requires_grad = native.param.trainable
    load_weights(model, initial_weights(model.config) if weights is None else weights)


def named_parameters(model: nn.Cell) -> dict[str, Tensor]:
    """The model's parameters by their names in its state dict."""
    return dict(model.parameters_and_names())


def load_weights(model: Any, weights: Weights) -> None:
    """Copy weights, by spec name, into a model. Raises SpecError where they are not exactly its parameters."""
    native = to_native("mindspore", model.config, weights)
    for name, parameter in model.parameters_and_names():
        parameter.set_data(Tensor(np.array(native[name]), parameter.dtype))


def to_numpy(tensor: Tensor) -> NDArray[Any]:
    """A copy in NumPy (asnumpy shares the tensor's memory)."""
    return np.array(tensor.asnumpy())


def load_file(model: nn.Cell, path: Path) -> None:
    """Load a native .ckpt file with mindspore.load_checkpoint, strictly.

    Raises SpecError for a file that MindSpore cannot read or whose names, shapes or dtypes are not the model's.
    """
    path.stat()  # a missing file is an OSError here as everywhere, not MindSpore's ValueError
    try:
        checkpoint = ms.load_checkpoint(str(path))
    except ValueError as problem:
        raise SpecError(f"MindSpore does not read {path} as a .ckpt file: {problem}") from problem
    actual = {name: tuple(parameter.shape) for name, parameter in checkpoint.items()}
    verify(native_shapes("mindspore", model.config), actual, str(path))
    own = {name: parameter.dtype for name, parameter in model.parameters_and_names()}
    wrong = [
        f"{name} is {p.dtype}, the model's is {own[name]}" for name, p in checkpoint.items() if p.dtype != own[name]
    ]
    if wrong:
        raise SpecError(
            f"{path} does not have the model's precision; convert one or the other:\n  " + "\n  ".join(wrong)
        )
    # Without strict_load MindSpore strips common prefixes, and decoder weights end up in the encoder unnoticed;
    # with it, names that are missing or left over are still only returned, not raised.
    missing, unexpected = ms.load_param_into_net(model, checkpoint, strict_load=True)
    if missing or unexpected:
        raise SpecError(f"{path} was not loaded whole: missing {missing}, unexpected {unexpected}.")
