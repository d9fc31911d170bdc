"""Modules of somebody's own in OneFlow. Every framework's modules.py has these same functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import oneflow as flow
from numpy.typing import NDArray
from oneflow import Tensor, nn


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
    """Make it compute in float32 or float64."""
    module.to(getattr(flow, dtype))


def set_tensor(tensor: Tensor, array: NDArray[Any]) -> None:
    """Copy an array of its shape into a parameter or buffer, which keeps its type and device."""
    with flow.no_grad():
        tensor.copy_(flow.tensor(array))


def to_tensor(module: nn.Module, array: NDArray[Any]) -> Tensor:
    """An array as a tensor of its type, where the module's are."""
    converted = flow.tensor(array)
    return next((converted.to(tensor.device) for tensor in tensors(module).values()), converted)


def watch(module: nn.Module, seen: Callable[[Any], None]) -> Callable[[], None]:
    """Show every output of a module, as it comes, until the returned function is called."""
    module.register_forward_hook(lambda _module, _inputs, output: seen(output))
    hooks = module._forward_hooks  # OneFlow gives no handle for the hook, and numbers it by how many there are
    number = next(reversed(hooks))
    return lambda: hooks.pop(number, None)


def differentiate(function: Callable[[], Any], tensors: list[Tensor]) -> tuple[Any, list[Tensor]]:
    """A function's value, and its gradient for each tensor: zeros for one without influence. No tensors: no tape."""
    if not tensors:
        with flow.no_grad():
            return function(), []
    before = [tensor.grad for tensor in tensors]
    for tensor in tensors:
        tensor.grad = None
    with flow.enable_grad():
        loss = function()
    loss.backward()  # autograd.grad does not take a tensor that does not matter
    gradients = [flow.zeros_like(tensor) if tensor.grad is None else tensor.grad for tensor in tensors]
    for tensor, gradient in zip(tensors, before):
        tensor.grad = gradient
    return loss, gradients
