"""The nets as they were first written, in PyTorch, with their losses and gradients: in float64 the reference.

Shapes: N batch, T tokens, D width, H heads. `x = out["name"] = ...` records a tap.
The *_nets.py files read alike line for line: `diff` one against another to see what a port has to change.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import torch
import torch.nn.functional as F
from torch import Tensor

from .settings import DATA, HEADS, Arrays, depth

Tensors = dict[str, Tensor]


def recorded(forward: Callable[[Tensors, Tensors], Tensor]) -> Callable[[Arrays], Arrays]:
    """A net of tensors by name and taps by name that returns its loss, as arrays by name to arrays by name."""

    @wraps(forward)
    def run(inputs: Arrays) -> Arrays:
        t = {name: torch.tensor(array) for name, array in inputs.items()}
        weights = {name: tensor.requires_grad_() for name, tensor in t.items() if name not in DATA}
        out: Tensors = {}
        loss = out["loss"] = forward(t, out)
        derivatives = torch.autograd.grad(loss, list(weights.values()))
        gradients = {f"{name}.grad": gradient for name, gradient in zip(weights, derivatives)}
        return {name: tensor.detach().numpy() for name, tensor in (out | gradients).items()}

    return run


@recorded
def conv(t: Tensors, out: Tensors) -> Tensor:
    """Convolution, relu, pool, convolution, linear."""
    x = out["conv1"] = conv2d(t["images"], t, "conv1", stride=2, padding=1)  # [N, 8, 9, 9]
    x = out["relu"] = F.relu(x)
    x = out["pool"] = F.max_pool2d(x, 2)  # [N, 8, 4, 4]
    x = out["conv2"] = conv2d(x, t, "conv2", stride=1, padding=1)  # [N, 16, 4, 4]
    x = out["logits"] = linear(x.flatten(1), t, "linear")
    return F.cross_entropy(x, t["labels"])


@recorded
def mixer(t: Tensors, out: Tensors) -> Tensor:
    """MLP-mixer: tokens are mixed, then channels."""
    x = out["embed"] = linear(t["patches"], t, "embed")  # [N, T, D]
    for i in range(depth(t)):
        b = f"blocks.{i}"
        y = out[f"{b}.norm1"] = layer_norm(x, t, f"{b}.norm1")
        y = out[f"{b}.tokens.fc1"] = linear(y.transpose(1, 2), t, f"{b}.tokens.fc1")  # [N, D, hidden]
        y = out[f"{b}.tokens.gelu"] = F.gelu(y)
        y = out[f"{b}.tokens.fc2"] = linear(y, t, f"{b}.tokens.fc2")  # [N, D, T]
        x = out[f"{b}.residual"] = x + y.transpose(1, 2)
        y = out[f"{b}.norm2"] = layer_norm(x, t, f"{b}.norm2")
        y = out[f"{b}.channels.fc1"] = linear(y, t, f"{b}.channels.fc1")  # [N, T, hidden]
        y = out[f"{b}.channels.gelu"] = F.gelu(y)
        y = out[f"{b}.channels.fc2"] = linear(y, t, f"{b}.channels.fc2")
        x = out[b] = x + y
    x = out["norm"] = layer_norm(x, t, "norm")
    x = out["pooled"] = x.mean(dim=1)  # [N, D]
    x = out["logits"] = linear(x, t, "head")
    return F.cross_entropy(x, t["labels"])


@recorded
def transformer(t: Tensors, out: Tensors) -> Tensor:
    """Pre-norm transformer on words, whose outputs are averaged and classified."""
    x = out["embed"] = F.embedding(t["ids"], t["table"]) + t["positions"]  # [N, T, D]
    N, T, D = x.shape
    for i in range(depth(t)):
        b = f"blocks.{i}"
        y = out[f"{b}.norm1"] = layer_norm(x, t, f"{b}.norm1")
        y = out[f"{b}.attn.qkv"] = linear(y, t, f"{b}.attn.qkv")  # [N, T, 3D]
        q, k, v = y.reshape(N, T, 3, HEADS, D // HEADS).permute(2, 0, 3, 1, 4)  # each [N, H, T, D/H]
        y = q @ k.transpose(2, 3) * (D // HEADS) ** -0.5
        y = out[f"{b}.attn.softmax"] = F.softmax(y, dim=-1)  # [N, H, T, T]
        y = out[f"{b}.attn.heads"] = (y @ v).transpose(1, 2).reshape(N, T, D)
        y = out[f"{b}.attn.proj"] = linear(y, t, f"{b}.attn.proj")
        x = out[f"{b}.residual"] = x + y
        y = out[f"{b}.norm2"] = layer_norm(x, t, f"{b}.norm2")
        y = out[f"{b}.mlp.fc1"] = linear(y, t, f"{b}.mlp.fc1")  # [N, T, hidden]
        y = out[f"{b}.mlp.gelu"] = F.gelu(y)
        y = out[f"{b}.mlp.fc2"] = linear(y, t, f"{b}.mlp.fc2")
        x = out[b] = x + y
    x = out["norm"] = layer_norm(x, t, "norm")
    x = out["pooled"] = x.mean(dim=1)  # [N, D]
    x = out["logits"] = linear(x, t, "head")
    return F.cross_entropy(x, t["labels"])


def conv2d(x: Tensor, t: Tensors, name: str, stride: int, padding: int) -> Tensor:
    """x [N, C, height, width] to [N, out, rows, columns]."""
    return F.conv2d(x, t[f"{name}.weight"], t[f"{name}.bias"], stride=stride, padding=padding)


def linear(x: Tensor, t: Tensors, name: str) -> Tensor:
    """x [..., in] to [..., out]."""
    return F.linear(x, t[f"{name}.weight"], t[f"{name}.bias"])


def layer_norm(x: Tensor, t: Tensors, name: str) -> Tensor:
    """x [..., D] to [..., D]."""
    return F.layer_norm(x, x.shape[-1:], t[f"{name}.weight"], t[f"{name}.bias"], eps=1e-6)
