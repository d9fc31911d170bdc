"""The nets ported to PyTorch once more, written otherwise: matrix products for convolutions, sums in two parts, no fused layers.

Shapes: N batch, T tokens, D width, H heads. `x = out["name"] = ...` records a tap.
"""

from __future__ import annotations

import math
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
    x = out["relu"] = x.clamp(min=0)
    x = out["pool"] = F.max_pool2d(x, 2)  # [N, 8, 4, 4]
    x = out["conv2"] = conv2d(x, t, "conv2", stride=1, padding=1)  # [N, 16, 4, 4]
    x = out["logits"] = linear(x.flatten(1), t, "linear")
    return cross_entropy(x, t["labels"])


@recorded
def mixer(t: Tensors, out: Tensors) -> Tensor:
    """MLP-mixer: tokens are mixed, then channels."""
    x = out["embed"] = linear(t["patches"], t, "embed")  # [N, T, D]
    for i in range(depth(t)):
        b = f"blocks.{i}"
        y = out[f"{b}.norm1"] = layer_norm(x, t, f"{b}.norm1")
        y = out[f"{b}.tokens.fc1"] = linear(y.transpose(1, 2), t, f"{b}.tokens.fc1")  # [N, D, hidden]
        y = out[f"{b}.tokens.gelu"] = gelu(y)
        y = out[f"{b}.tokens.fc2"] = linear(y, t, f"{b}.tokens.fc2")  # [N, D, T]
        x = out[f"{b}.residual"] = x + y.transpose(1, 2)
        y = out[f"{b}.norm2"] = layer_norm(x, t, f"{b}.norm2")
        y = out[f"{b}.channels.fc1"] = linear(y, t, f"{b}.channels.fc1")  # [N, T, hidden]
        y = out[f"{b}.channels.gelu"] = gelu(y)
        y = out[f"{b}.channels.fc2"] = linear(y, t, f"{b}.channels.fc2")
        x = out[b] = x + y
    x = out["norm"] = layer_norm(x, t, "norm")
    x = out["pooled"] = x.mean(dim=1)  # [N, D]
    x = out["logits"] = linear(x, t, "head")
    return cross_entropy(x, t["labels"])


@recorded
def transformer(t: Tensors, out: Tensors) -> Tensor:
    """Pre-norm transformer on words, whose outputs are averaged and classified."""
    x = out["embed"] = t["table"][t["ids"]] + t["positions"]  # [N, T, D]
    N, T, D = x.shape
    for i in range(depth(t)):
        b = f"blocks.{i}"
        y = out[f"{b}.norm1"] = layer_norm(x, t, f"{b}.norm1")
        y = out[f"{b}.attn.qkv"] = linear(y, t, f"{b}.attn.qkv")  # [N, T, 3D]
        q, k, v = y.reshape(N, T, 3, HEADS, D // HEADS).unbind(2)  # each [N, T, H, D/H]
        y = torch.einsum("nqhd,nkhd->nhqk", q * (D // HEADS) ** -0.5, k)
        y = out[f"{b}.attn.softmax"] = softmax(y, dim=-1)  # [N, H, T, T]
        y = out[f"{b}.attn.heads"] = torch.einsum("nhqk,nkhd->nqhd", y, v).reshape(N, T, D)
        y = out[f"{b}.attn.proj"] = linear(y, t, f"{b}.attn.proj")
        x = out[f"{b}.residual"] = x + y
        y = out[f"{b}.norm2"] = layer_norm(x, t, f"{b}.norm2")
        y = out[f"{b}.mlp.fc1"] = linear(y, t, f"{b}.mlp.fc1")  # [N, T, hidden]
        y = out[f"{b}.mlp.gelu"] = gelu(y)
        y = out[f"{b}.mlp.fc2"] = linear(y, t, f"{b}.mlp.fc2")
        x = out[b] = x + y
    x = out["norm"] = layer_norm(x, t, "norm")
    x = out["pooled"] = x.mean(dim=1)  # [N, D]
    x = out["logits"] = linear(x, t, "head")
    return cross_entropy(x, t["labels"])


def conv2d(x: Tensor, t: Tensors, name: str, stride: int, padding: int) -> Tensor:
    """Every window as a column, the last channel first. x [N, C, height, width] to [N, out, rows, columns]."""
    weight, rows = t[f"{name}.weight"], (x.shape[2] + 2 * padding - t[f"{name}.weight"].shape[2]) // stride + 1
    columns = F.unfold(x.flip(1), weight.shape[2:], stride=stride, padding=padding)  # [N, C * k * k, rows * columns]
    x = weight.flip(1).flatten(1) @ columns + t[f"{name}.bias"][:, None]
    return x.reshape(x.shape[0], x.shape[1], rows, -1)


def linear(x: Tensor, t: Tensors, name: str) -> Tensor:
    """x [..., in] to [..., out], summed in two parts, as where a matrix is divided between devices."""
    weight, half = t[f"{name}.weight"], x.shape[-1] // 2
    parts = [torch.einsum("...i,oi->...o", x[..., at], weight[:, at]) for at in (slice(half), slice(half, None))]
    return parts[0] + parts[1] + t[f"{name}.bias"]


def layer_norm(x: Tensor, t: Tensors, name: str) -> Tensor:
    """x [..., D] to [..., D]."""
    centred = x - x.mean(-1, keepdim=True)
    return centred * (centred.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * t[f"{name}.weight"] + t[f"{name}.bias"]


def gelu(x: Tensor) -> Tensor:
    """By the error function."""
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def softmax(x: Tensor, dim: int) -> Tensor:
    """By exponentials of what is at most zero."""
    x = torch.exp(x - x.amax(dim, keepdim=True))
    return x / x.sum(dim, keepdim=True)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean of logits [N, classes] against labels [N]."""
    return (logits.logsumexp(1) - logits.gather(1, labels[:, None]).squeeze(1)).mean()
