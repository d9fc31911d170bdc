"""Modules of somebody's own in PyTorch. Every framework's modules.py has these same functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn


def named_modules(module: nn.Module) -> dict[str, nn.Module]:
    """Every module inside it by its dotted name, and itself as "", each once."""
    return dict(module.named_modules())


def tensors(module: nn.Module) -> dict[str, Tensor]:
    """Its parameters and buffers by dotted name; one that is tied is there by each of its names."""
    return {name: tensor for name, tensor in module.state_dict(keep_vars=True).items() if isinstance(tensor, Tensor)}


def is_trained(tensor: Tensor) -> bool:
    """Whether it has a gradient: a parameter that is not frozen."""
    return isinstance(tensor, nn.Parameter) and tensor.requires_grad


def set_dtype(module: nn.Module, dtype: str) -> None:
    """Make it compute in float32 or float64. Raises Problem where the framework cannot."""
    module.to(getattr(torch, dtype))


def set_tensor(tensor: Tensor, array: NDArray[Any]) -> None:
    """Copy an array of its shape into a parameter or buffer, which keeps its type and device."""
    with torch.no_grad():
        tensor.copy_(torch.from_numpy(array))


def to_tensor(module: nn.Module, array: NDArray[Any]) -> Tensor:
    """An array as a tensor of its type, where the module's are."""
    converted = torch.from_numpy(array)
    return next((converted.to(tensor.device) for tensor in tensors(module).values()), converted)


def watch(module: nn.Module, seen: Callable[[Any], None]) -> Callable[[], None]:
    """Show every output of a module, as it comes, until the returned function is called. Raises Problem without hooks."""
    return module.register_forward_hook(lambda _module, _inputs, output: seen(output)).remove


def differentiate(function: Callable[[], Any], tensors: list[Tensor]) -> tuple[Any, list[Tensor]]:
    """A function's value, and its gradient for each tensor: zeros for one without influence. No tensors: no tape."""
    if not tensors:
        with torch.no_grad():
            return function(), []
    with torch.enable_grad():
        loss = function()
    gradients = torch.autograd.grad(loss, tensors, allow_unused=True)
    return loss, [torch.zeros_like(t) if gradient is None else gradient for t, gradient in zip(tensors, gradients)]
