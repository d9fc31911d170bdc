"""The nets ported to MindSpore, by its own functions.

Shapes: N batch, T tokens, D width, H heads. `x = out["name"] = ...` records a tap.
The *_nets.py files read alike line for line: `diff` one against another to see what a port has to change.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import mindspore as ms
from mindspore import Tensor, ops

from .settings import DATA, HEADS, Arrays, depth

Tensors = dict[str, Tensor]


def recorded(forward: Callable[[Tensors, Tensors], Tensor]) -> Callable[[Arrays], Arrays]:
    """A net of tensors by name and taps by name that returns its loss, as arrays by name to arrays by name."""

    @wraps(forward)
    def run(inputs: Arrays) -> Arrays:
        t = {
            name: Tensor(array.astype("int32") if array.dtype.kind == "i" else array) for name, array in inputs.items()
        }
        weights = {name: tensor for name, tensor in t.items() if name not in DATA}

        def objective(*given: Tensor) -> tuple[Tensor, Tensors]:
            out: Tensors = {}
            loss = out["loss"] = forward(t | dict(zip(weights, given)), out)
            return loss, out

        positions = tuple(range(len(weights)))
        (_, out), derivatives = ms.value_and_grad(objective, positions, None, has_aux=True)(*weights.values())
        gradients = {f"{name}.grad": gradient for name, gradient in zip(weights, derivatives)}
        return {name: tensor.asnumpy() for name, tensor in (out | gradients).items()}

    return run


@recorded
def conv(t: Tensors, out: Tensors) -> Tensor:
    """Convolution, relu, pool, convolution, linear."""
    x = out["conv1"] = conv2d(t["images"], t, "conv1", stride=2, padding=1)  # [N, 8, 9, 9]
    x = out["relu"] = ops.relu(x)
    x = out["pool"] = ops.max_pool2d(x, 2, 2)  # [N, 8, 4, 4]
    x = out["conv2"] = conv2d(x, t, "conv2", stride=1, padding=1)  # [N, 16, 4, 4]
    x = out["logits"] = linear(ops.flatten(x), t, "linear")
    return ops.cross_entropy(x, t["labels"])


@recorded
def mixer(t: Tensors, out: Tensors) -> Tensor:
    """MLP-mixer: tokens are mixed, then channels."""
    x = out["embed"] = linear(t["patches"], t, "embed")  # [N, T, D]
    for i in range(depth(t)):
        b = f"blocks.{i}"
        y = out[f"{b}.norm1"] = layer_norm(x, t, f"{b}.norm1")
        y = out[f"{b}.tokens.fc1"] = linear(y.swapaxes(1, 2), t, f"{b}.tokens.fc1")  # [N, D, hidden]
        y = out[f"{b}.tokens.gelu"] = ops.gelu(y)
        y = out[f"{b}.tokens.fc2"] = linear(y, t, f"{b}.tokens.fc2")  # [N, D, T]
        x = out[f"{b}.residual"] = x + y.swapaxes(1, 2)
        y = out[f"{b}.norm2"] = layer_norm(x, t, f"{b}.norm2")
        y = out[f"{b}.channels.fc1"] = linear(y, t, f"{b}.channels.fc1")  # [N, T, hidden]
        y = out[f"{b}.channels.gelu"] = ops.gelu(y)
        y = out[f"{b}.channels.fc2"] = linear(y, t, f"{b}.channels.fc2")
        x = out[b] = x + y
    x = out["norm"] = layer_norm(x, t, "norm")
    x = out["pooled"] = x.mean(axis=1)  # [N, D]
    x = out["logits"] = linear(x, t, "head")
    return ops.cross_entropy(x, t["labels"])


@recorded
def transformer(t: Tensors, out: Tensors) -> Tensor:
    """Pre-norm transformer on words, whose outputs are averaged and classified."""
    x = out["embed"] = ops.gather(t["table"], t["ids"], 0) + t["positions"]  # [N, T, D]
    N, T, D = x.shape
    for i in range(depth(t)):
        b = f"blocks.{i}"
        y = out[f"{b}.norm1"] = layer_norm(x, t, f"{b}.norm1")
        y = out[f"{b}.attn.qkv"] = linear(y, t, f"{b}.attn.qkv")  # [N, T, 3D]
        q, k, v = y.reshape(N, T, 3, HEADS, D // HEADS).permute(2, 0, 3, 1, 4)  # each [N, H, T, D/H]
        y = q @ k.swapaxes(2, 3) * (D // HEADS) ** -0.5
        y = out[f"{b}.attn.softmax"] = ops.softmax(y, axis=-1)  # [N, H, T, T]
        y = out[f"{b}.attn.heads"] = (y @ v).swapaxes(1, 2).reshape(N, T, D)
        y = out[f"{b}.attn.proj"] = linear(y, t, f"{b}.attn.proj")
        x = out[f"{b}.residual"] = x + y
        y = out[f"{b}.norm2"] = layer_norm(x, t, f"{b}.norm2")
        y = out[f"{b}.mlp.fc1"] = linear(y, t, f"{b}.mlp.fc1")  # [N, T, hidden]
        y = out[f"{b}.mlp.gelu"] = ops.gelu(y)
        y = out[f"{b}.mlp.fc2"] = linear(y, t, f"{b}.mlp.fc2")
        x = out[b] = x + y
    x = out["norm"] = layer_norm(x, t, "norm")
    x = out["pooled"] = x.mean(axis=1)  # [N, D]
    x = out["logits"] = linear(x, t, "head")
    return ops.cross_entropy(x, t["labels"])


def conv2d(x: Tensor, t: Tensors, name: str, stride: int, padding: int) -> Tensor:
    """x [N, C, height, width] to [N, out, rows, columns]."""
    return ops.conv2d(x, t[f"{name}.weight"], t[f"{name}.bias"], stride, "pad", padding)


def linear(x: Tensor, t: Tensors, name: str) -> Tensor:
    """x [..., in] to [..., out]."""
    return ops.dense(x, t[f"{name}.weight"], t[f"{name}.bias"])


def layer_norm(x: Tensor, t: Tensors, name: str) -> Tensor:
    """x [..., D] to [..., D]."""
    norm = ops.LayerNorm(
        begin_norm_axis=-1, begin_params_axis=-1, epsilon=1e-6
    )  # ops.layer_norm has no CPU kernel in 2.9
    return norm(x, t[f"{name}.weight"], t[f"{name}.bias"])[0]
