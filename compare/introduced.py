"""The error that each operation introduces by itself: its output against float64 on the very inputs the framework had.

Every tap's inputs are taps too, so one recorded trace is enough: nothing is run in the framework again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backends.config import Config
from ..backends.numpy.layers import gelu, softmax
from ..backends.numpy.model import MAE
from ..backends.numpy.parts import Attention, Block
from ..backends.numpy.runtime import build
from ..backends.spelling import Arrays
from .metrics import error
from .trace import Trace

Array = NDArray[np.float64]


def introduced_errors(trace: Trace, config: Config, weights: Arrays) -> Iterator[tuple[str, float]]:
    """Tap name and introduced error, in units of roundoff, in the order of the forward pass.

    Covers the layers of every block, the patch embedding and the final norms; weights are float32, by spec name.
    """
    model: Any = build(config, weights, dtype="float64")

    def tap(name: str) -> Array:
        return trace[name].astype(np.float64)

    def check(name: str, expected: Array) -> tuple[str, float]:
        return name, error(trace[name], expected)

    yield check("patch_embed", model.patch_embed(tap("input/imgs")))
    yield from _stack(check, tap, model.blocks, "blocks", "tokens")
    last = tap(f"blocks.{config.depth - 1}")
    if not isinstance(model, MAE):
        x = tap("latent")
        if model.config.head_norm:
            yield check("head_norm", model.head_norm(x))
            x = tap("head_norm")
        yield check("logits", model.head(x))
        return
    yield check("latent", model.norm(last))
    yield check("decoder_embed", model.decoder_embed(tap("latent")))
    yield from _stack(check, tap, model.decoder_blocks, "decoder_blocks", "decoder_tokens")
    x = tap(f"decoder_blocks.{len(model.decoder_blocks) - 1}")
    if model.config.decoder_norm:
        yield check("decoder_norm", model.decoder_norm(x))
        x = tap("decoder_norm")
    pred = model.decoder_pred(x)[:, 1:]
    if model.config.head == "linear":
        yield check("pred", pred)
        return
    yield check("decoder_pred", pred)
    yield check("patch_norm", model.patch_norm(tap("decoder_pred")))
    yield check("pred", model.unconv(tap("patch_norm")))


def _stack(check: Any, tap: Any, blocks: list[Block], name: str, tokens: str) -> Iterator[tuple[str, float]]:
    for i, block in enumerate(blocks):
        at = f"{name}.{i}"
        x = tap(f"{name}.{i - 1}" if i else tokens)
        yield check(f"{at}.norm1", block.norm1(x))
        yield check(f"{at}.attn.qkv", block.attn.qkv(tap(f"{at}.norm1")))
        scores, v = _scores(block.attn, tap(f"{at}.attn.qkv"))
        yield check(f"{at}.attn.softmax", softmax(scores))
        mixed = np.matmul(tap(f"{at}.attn.softmax"), v).swapaxes(1, 2).reshape(x.shape)
        yield check(f"{at}.attn.proj", block.attn.proj(mixed))
        yield check(f"{at}.residual", x + tap(f"{at}.attn.proj"))
        yield check(f"{at}.norm2", block.norm2(tap(f"{at}.residual")))
        yield check(f"{at}.mlp.fc1", block.mlp.fc1(tap(f"{at}.norm2")))
        yield check(f"{at}.mlp.gelu", gelu(tap(f"{at}.mlp.fc1")))
        yield check(f"{at}.mlp.fc2", block.mlp.fc2(tap(f"{at}.mlp.gelu")))
        yield check(at, tap(f"{at}.residual") + tap(f"{at}.mlp.fc2"))


def _scores(attn: Attention, qkv: Array) -> tuple[Array, Array]:
    N, T, width = qkv.shape
    q, k, v = qkv.reshape(N, T, 3, attn.num_heads, -1).transpose(2, 0, 3, 1, 4)
    return np.matmul(q, k.swapaxes(-2, -1)) * attn.scale, v


def by_operation(errors: Mapping[str, float], operations: Mapping[str, str]) -> dict[str, float]:
    """The root mean square of the introduced errors of each kind of operation."""
    kinds: dict[str, list[float]] = {}
    for name, value in errors.items():
        kinds.setdefault(operations[name], []).append(value)
    return {kind: float(np.sqrt(np.mean(np.square(values)))) for kind, values in kinds.items()}
