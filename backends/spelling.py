"""How each framework spells the spec in its own state dict: native names and shapes.

Plain data, so that a checkpoint can be converted without the framework. Only what differs from the official
spelling is listed; the values are the same bytes in the same order in every framework.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .config import Config
from .spec import Param, Shape, params, verify

Arrays = Mapping[str, NDArray[np.floating]]

# MindSpore's LayerNorm calls its scale and shift gamma and beta.
_SUFFIX = {"mindspore": {"norm.weight": ("weight", "gamma"), "norm.bias": ("bias", "beta")}}


@dataclass(frozen=True)
class Native:
    """One parameter as a framework spells it."""

    name: str
    shape: Shape
    param: Param


def native(framework: str, param: Param) -> Native:
    """The parameter's name and shape in the framework's own state dict."""
    name, shape = param.name, param.shape
    if param.role in _SUFFIX.get(framework, {}):
        suffix, spelled = _SUFFIX[framework][param.role]
        name = name.removesuffix(suffix) + spelled
    if framework == "megengine" and param.role == "conv.bias":
        shape = (1, *shape, 1, 1)  # MegEngine adds a convolution's bias to [N, C, H, W] by broadcasting
    return Native(name, shape, param)


def native_params(framework: str, config: Config) -> tuple[Native, ...]:
    """Every parameter of a model as the framework spells it, in the spec's order."""
    return tuple(native(framework, param) for param in params(config))


def native_shapes(framework: str, config: Config) -> dict[str, Shape]:
    """Native name to native shape."""
    return {n.name: n.shape for n in native_params(framework, config)}


def to_native(framework: str, config: Config, weights: Arrays) -> dict[str, NDArray[np.floating]]:
    """Weights by spec name, in the framework's spelling (views where the layout allows).

    Raises SpecError, listing every difference, where they are not exactly the model's parameters.
    """
    verify({p.name: p.shape for p in params(config)}, {n: a.shape for n, a in weights.items()}, "These weights")
    return {n.name: weights[n.param.name].reshape(n.shape) for n in native_params(framework, config)}


def to_spec(framework: str, config: Config, state: Arrays) -> dict[str, NDArray[np.floating]]:
    """The inverse of to_native."""
    verify(native_shapes(framework, config), {n: a.shape for n, a in state.items()}, f"This {framework} state")
    return {n.param.name: state[n.name].reshape(n.param.shape) for n in native_params(framework, config)}
