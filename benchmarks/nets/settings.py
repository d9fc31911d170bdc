"""What each net runs on, its weights among the inputs, and what is compared. NumPy only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]
Shapes = dict[str, tuple[int, ...]]

DATA = ("images", "patches", "ids", "labels")  # inputs that have no gradient
HEADS = 4
CLASSES = 10
SMALL = 0.003  # the size of biases that are nearly zero, so that a port without them looks right
# Biases of that size: as many models begin training.
NEARLY_ZERO = ("conv2.bias", "embed.bias", "mlp.fc2.bias", "channels.fc2.bias")


@dataclass(frozen=True)
class Net:
    """One net and what it is run on.

    function: its name in every *_nets.py. data: inputs without a gradient, drawn at random. shapes: weights by name, in the
    order of the forward pass. taps: what is recorded, in the order of computation.
    """

    function: str
    data: Callable[[np.random.Generator], Arrays]
    shapes: Shapes
    taps: tuple[str, ...]

    @property
    def gradients(self) -> tuple[str, ...]:
        """The weights' gradients, in the order of the backward pass, which ends where the forward pass began."""
        return tuple(f"{name}.grad" for name in reversed(self.shapes))

    def inputs(self, seed: int) -> Arrays:
        """Data and weights by name, floating point in float64: other numbers for every seed."""
        rng = np.random.default_rng(seed)
        return self.data(rng) | {name: _weight(name, shape, rng) for name, shape in self.shapes.items()}


def depth(names: Iterable[str]) -> int:
    """How many blocks a net has, from the names of its weights."""
    return len({name.split(".")[1] for name in names if name.startswith("blocks.")})


def _weight(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[Any]:
    """A weight as training leaves it: matrices keep the size of their inputs, norms' scales are about 1, biases not zero."""
    drawn = rng.standard_normal(shape)
    if name.endswith("bias"):
        return drawn * (SMALL if name.endswith(NEARLY_ZERO) else 0.1)
    if len(shape) == 1:
        return 1 + 0.1 * drawn
    if name in ("table", "positions"):
        return 0.5 * drawn
    return drawn / float(np.sqrt(np.prod(shape[1:])))


def _images(rng: np.random.Generator) -> Arrays:
    """Of 18 pixels, so that the first convolution leaves 9: pooling by 2 drops the last row and column."""
    return {"images": rng.standard_normal((4, 3, 18, 18)), "labels": rng.integers(0, CLASSES, 4)}


def _patches(rng: np.random.Generator) -> Arrays:
    return {"patches": rng.standard_normal((4, 16, 48)), "labels": rng.integers(0, CLASSES, 4)}


def _ids(batch: int, tokens: int, words: int) -> Callable[[np.random.Generator], Arrays]:
    def data(rng: np.random.Generator) -> Arrays:
        return {"ids": rng.integers(0, words, (batch, tokens)), "labels": rng.integers(0, CLASSES, batch)}

    return data


def _layers(**sizes: tuple[int, int]) -> Shapes:
    """Weights and biases of linear layers; sizes: into and out of each, by name, in which _ stands for a dot."""
    shapes: Shapes = {}
    for name, (before, behind) in sizes.items():
        shapes |= {f"{name.replace('_', '.')}.weight": (behind, before), f"{name.replace('_', '.')}.bias": (behind,)}
    return shapes


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _blocks(count: int, block: Mapping[str, tuple[int, ...]]) -> Shapes:
    return {f"blocks.{i}.{name}": shape for i in range(count) for name, shape in block.items()}


def _block_taps(count: int, inside: str) -> list[str]:
    return [tap for i in range(count) for tap in (*(f"blocks.{i}.{name}" for name in inside.split()), f"blocks.{i}")]


def _mixer(tokens: int, patch: int, width: int, hidden: tuple[int, int], blocks: int) -> Net:
    block = _norm("norm1", width) | _layers(tokens_fc1=(tokens, hidden[0]), tokens_fc2=(hidden[0], tokens))
    block |= _norm("norm2", width) | _layers(channels_fc1=(width, hidden[1]), channels_fc2=(hidden[1], width))
    inside = "norm1 tokens.fc1 tokens.gelu tokens.fc2 residual norm2 channels.fc1 channels.gelu channels.fc2"
    return Net(
        "mixer",
        _patches,
        _layers(embed=(patch, width)) | _blocks(blocks, block) | _norm("norm", width) | _layers(head=(width, CLASSES)),
        ("embed", *_block_taps(blocks, inside), "norm", "pooled", "logits", "loss"),
    )


def _transformer(batch: int, tokens: int, words: int, width: int, hidden: int, blocks: int) -> Net:
    block = _norm("norm1", width) | _layers(attn_qkv=(width, 3 * width), attn_proj=(width, width))
    block |= _norm("norm2", width) | _layers(mlp_fc1=(width, hidden), mlp_fc2=(hidden, width))
    inside = "norm1 attn.qkv attn.softmax attn.heads attn.proj residual norm2 mlp.fc1 mlp.gelu mlp.fc2"
    return Net(
        "transformer",
        _ids(batch, tokens, words),
        {"table": (words, width), "positions": (tokens, width)}
        | _blocks(blocks, block)
        | _norm("norm", width)
        | _layers(head=(width, CLASSES)),
        ("embed", *_block_taps(blocks, inside), "norm", "pooled", "logits", "loss"),
    )


NETS = {
    "conv": Net(
        "conv",
        _images,
        {
            "conv1.weight": (8, 3, 3, 3), "conv1.bias": (8,), "conv2.weight": (16, 8, 3, 3), "conv2.bias": (16,),
            "linear.weight": (CLASSES, 256), "linear.bias": (CLASSES,),
        },
        ("conv1", "relu", "pool", "conv2", "logits", "loss"),
    ),
    "mixer": _mixer(tokens=16, patch=48, width=32, hidden=(24, 64), blocks=2),
    "transformer": _transformer(batch=4, tokens=12, words=50, width=32, hidden=128, blocks=2),
    "wide": _transformer(batch=2, tokens=16, words=64, width=512, hidden=2048, blocks=1),  # sums of up to 2048 terms
}  # fmt: skip
