"""Modules of somebody's own in MegEngine. Every framework's modules.py has these same functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import megengine as mge
import megengine.module as M
import numpy as np
from megengine import Parameter, Tensor
from megengine.autodiff import GradManager
from numpy.typing import NDArray

from ...files.errors import Problem


def named_modules(module: M.Module) -> dict[str, M.Module]:
    """Every module inside it by its dotted name, and itself as "", each once."""
    return dict(module.named_modules())


def tensors(module: M.Module) -> dict[str, Tensor]:
    """Its parameters and buffers by dotted name; one that is tied is there by each of its names."""
    named = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    for path, part in named_modules(module).items():  # MegEngine names a tied one once
        of_part = {name: value for name, value in vars(part).items() if isinstance(value, Parameter)}
        named |= {f"{path}.{name}".lstrip("."): value for name, value in of_part.items()}
    return named


def is_trained(tensor: Tensor) -> bool:
    """Whether it has a gradient: a parameter."""
    return isinstance(tensor, Parameter)


def set_dtype(module: M.Module, dtype: str) -> None:
    """Make it compute in float32, which it does. Raises Problem for float64."""
    if dtype != "float32":
        raise Problem(
            f"MegEngine has no {dtype}, so that its module cannot be the reference; give the same model in NumPy, "
            "PyTorch or OneFlow as the reference, and this one as the candidate."
        )


def set_tensor(tensor: Tensor, array: NDArray[Any]) -> None:
    """Copy an array of its shape into a parameter or buffer, which keeps its type and device."""
    tensor._reset(mge.tensor(np.array(array, tensor.dtype, order="C"), device=tensor.device))


def to_tensor(module: M.Module, array: NDArray[Any]) -> Tensor:
    """An array as a tensor, where the module's are; integers become int32, which its operations take."""
    whole = np.array(array, "<i4" if array.dtype.kind in "iu" else array.dtype, order="C")
    device = next((tensor.device for tensor in tensors(module).values()), None)
    return mge.tensor(whole, device=device)


def watch(module: M.Module, seen: Callable[[Any], None]) -> Callable[[], None]:
    """Show every output of a module, as it comes, until the returned function is called."""
    return module.register_forward_hook(lambda _module, _inputs, output: seen(output)).remove


def differentiate(function: Callable[[], Any], tensors: list[Tensor]) -> tuple[Any, list[Any]]:
    """A function's value, and its gradient for each tensor: zeros for one without influence. No tensors: no tape."""
    if not tensors:
        return function(), []
    before = [tensor.grad for tensor in tensors]
    for tensor in tensors:
        tensor.grad = None  # a backward adds to it
    manager = GradManager().attach(tensors)
    with manager:
        loss = function()
        manager.backward(loss)
    gradients = [np.zeros(tensor.shape, np.float32) if tensor.grad is None else tensor.grad for tensor in tensors]
    for tensor, gradient in zip(tensors, before):
        tensor.grad = gradient
    return loss, gradients
