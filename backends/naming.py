"""How a framework or a project spells the spec in its own state dict: names and layouts, as data.

Plain data, so that a checkpoint can be converted without the framework. Only the way from the spec to the spelling is
written, and only what differs from the official names; whoever reads a state dict derives the way back from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Union

import numpy as np
from numpy.typing import NDArray

from .config import Config
from .spec import Param, Shape, params, verify

Arrays = Mapping[str, NDArray[np.floating]]
Names = Mapping[str, Union[str, tuple[str, ...]]]


class Spelled(NamedTuple):
    """A parameter in a spelling: its name, or the names of its equal parts along the first axis, and its layout."""

    names: tuple[str, ...]
    layout: str | None


@dataclass(frozen=True)
class Spelling:
    """One way to spell the spec.

    names: the spec's tensors, or modules (a tensor's name without weight or bias), and how they are called here; several
    names mean that the tensor is cut into as many equal parts along its first axis. block: the same for what is inside a
    block. stacks: how the stacks of blocks are called. leaves: the last part of a name, by role. layouts: by the tensor's
    name in the spec (inside a block: the part after its number), the pattern that brings it from the spec's layout to
    this one, in the notation of einops. What is not listed is as in the spec.
    """

    names: Names = field(default_factory=dict)
    stacks: Mapping[str, str] = field(default_factory=dict)
    block: Names = field(default_factory=dict)
    leaves: Mapping[str, str] = field(default_factory=dict)
    layouts: Mapping[str, str] = field(default_factory=dict)

    def spell(self, param: Param) -> Spelled:
        """The parameter's names and layout."""
        stack, _, rest = param.name.partition(".")
        if stack in ("blocks", "decoder_blocks"):
            number, _, name = rest.partition(".")
            start, table = f"{self.stacks.get(stack, stack)}.{number}.", self.block
        else:
            name, start, table = param.name, "", self.names
        layout = self.layouts.get(name)
        if name in table:
            names, end = table[name], ""
        else:
            module, dot, leaf = name.rpartition(".") if "." in param.role else (name, "", "")
            names, end = table.get(module, module), dot + self.leaves.get(param.role, leaf)
        return Spelled(tuple(start + n + end for n in ((names,) if isinstance(names, str) else names)), layout)


# What differs from the official spelling in each framework's own state dict.
NATIVE = {
    "torch": Spelling(),
    "oneflow": Spelling(),
    "numpy": Spelling(),
    # MindSpore's LayerNorm calls its scale and shift gamma and beta.
    "mindspore": Spelling(leaves={"norm.weight": "gamma", "norm.bias": "beta"}),
    # MegEngine adds a convolution's bias to [N, C, H, W] by broadcasting.
    "megengine": Spelling(layouts={"patch_embed.proj.bias": "d -> 1 d 1 1", "unconv.bias": "d -> 1 d 1 1"}),
}


@dataclass(frozen=True)
class Native:
    """One parameter as a framework spells it."""

    name: str
    shape: Shape
    param: Param


def native(framework: str, param: Param) -> Native:
    """The parameter's name and shape in the framework's own state dict."""
    (name,), layout = NATIVE[framework].spell(param)
    return Native(name, (1, *param.shape, 1, 1) if layout else param.shape, param)


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
