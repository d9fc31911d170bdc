"""Modules (cells) of somebody's own in MindSpore. Every framework's modules.py has these same functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn
from numpy.typing import NDArray

from ...files.errors import Problem


def named_modules(module: nn.Cell) -> dict[str, nn.Cell]:
    """Every module inside it by its dotted name, and itself as "", each once."""
    return dict(module.cells_and_names())


def tensors(module: nn.Cell) -> dict[str, Parameter]:
    """Its parameters and buffers by dotted name; one that is tied is there by each of its names."""
    named = dict(module.parameters_and_names())
    for path, part in named_modules(module).items():  # MindSpore names a tied one once
        named |= {f"{path}.{name}".lstrip("."): value for name, value in part._params.items() if value is not None}
    return named


def is_trained(tensor: Parameter) -> bool:
    """Whether it has a gradient: a parameter that is not frozen."""
    return bool(tensor.requires_grad)


def set_dtype(module: nn.Cell, dtype: str) -> None:
    """Make its parameters float32 or float64; some of MindSpore's operations take no float64, and say so."""
    for parameter in tensors(module).values():
        if parameter.dtype in (ms.float32, ms.float64) and parameter.dtype != getattr(ms, dtype):
            parameter.set_dtype(getattr(ms, dtype))


def set_tensor(tensor: Parameter, array: NDArray[Any]) -> None:
    """Copy an array of its shape into a parameter or buffer, which keeps its type and device."""
    tensor.set_data(Tensor(np.array(array), tensor.dtype))


def to_tensor(module: nn.Cell, array: NDArray[Any]) -> Tensor:
    """An array as a tensor of its type."""
    return Tensor(np.array(array))


def watch(module: nn.Cell, seen: Callable[[Any], None]) -> Callable[[], None]:
    """Show every output of a module, as it comes, until the returned function is called. Raises Problem in graph mode."""
    if ms.get_context("mode") != ms.PYNATIVE_MODE:
        raise Problem(
            "MindSpore calls no hooks in graph mode; first call mindspore.set_context(mode=mindspore.PYNATIVE_MODE)."
        )
    # What a hook returns would take the output's place.
    return module.register_forward_hook(lambda _module, _inputs, output: seen(output)).remove


def differentiate(function: Callable[[], Any], tensors: list[Parameter]) -> tuple[Any, list[Tensor]]:
    """A function's value, and its gradient for each tensor: zeros for one without influence. No tensors: no tape."""
    if not tensors:
        return function(), []
    loss, gradients = ms.value_and_grad(function, None, ParameterTuple(tensors))()
    return loss, list(gradients)
