"""The framework-neutral spec: every parameter and every tap of a model, by name and shape.

Enumerated, not interpreted: each backend is written by hand, and its parameters are verified against
`params(config)` when a model is constructed. A spec that built the models could not check them.
Names, shapes and order are those of the official state dict (facebookresearch/mae, models_mae.py and models_vit.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..files.errors import Problem
from .config import Config, MAEConfig, ViTConfig

Shape = tuple[int, ...]
Role = Literal[
    "token", "position", "conv.weight", "conv.bias", "unconv.weight",
    "linear.weight", "linear.bias", "norm.weight", "norm.bias", "norm.mean", "norm.var",
]  # fmt: skip


@dataclass(frozen=True)
class Param:
    """One parameter. Its role decides its layout in a framework and its initial value."""

    name: str
    shape: Shape
    role: Role
    trainable: bool = True

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Tap:
    """One intermediate tensor, recorded by assignment in the forward pass of every backend.

    `exact` taps hold decisions (which patch is kept, in which order), not sums: they must agree bit for bit.
    """

    name: str
    operation: str
    exact: bool = False


class NoTaps(dict[str, Any]):
    """The tap dictionary of a run that records nothing: it forgets what is assigned to it."""

    def __setitem__(self, name: str, value: Any) -> None:
        pass


class SpecError(Problem, ValueError):
    """Parameters that are not those of the spec; the message lists every difference."""


def params(config: Config) -> tuple[Param, ...]:
    """Every parameter of a model, in the official state dict's order."""
    return _mae_params(config) if isinstance(config, MAEConfig) else _vit_params(config)


def encoder_params(config: MAEConfig) -> tuple[Param, ...]:
    """What the published encoder-only files hold: everything but mask_token, decoder_* and the rest of a conv head."""
    decoder = ("mask_token", "decoder_", "patch_norm.", "unconv.")
    return tuple(p for p in params(config) if not p.name.startswith(decoder))


def taps(config: Config) -> tuple[Tap, ...]:
    """Every tap, in the order of the forward pass."""
    return _mae_taps(config) if isinstance(config, MAEConfig) else _vit_taps(config)


def differences(expected: Mapping[str, Shape], actual: Mapping[str, Shape]) -> list[str]:
    """What separates two sets of named shapes: a sentence for each missing, unexpected or mis-shaped tensor."""
    found = [f"missing: {name} {shape}" for name, shape in expected.items() if name not in actual]
    found += [f"unexpected: {name} {shape}" for name, shape in actual.items() if name not in expected]
    for name, shape in expected.items():
        if name in actual and tuple(actual[name]) != tuple(shape):
            found.append(f"shape: {name} is {tuple(actual[name])}, expected {tuple(shape)}")
    return found


def verify(expected: Mapping[str, Shape], actual: Mapping[str, Shape], what: str) -> None:
    """Raise SpecError, listing all of them, where the named shapes in `actual` are not exactly the expected ones."""
    found = differences(expected, actual)
    if found:
        raise SpecError(f"{what} does not match the spec ({len(found)} differences):\n  " + "\n  ".join(found))


def _linear(name: str, out_dim: int, in_dim: int) -> list[Param]:
    return [
        Param(f"{name}.weight", (out_dim, in_dim), "linear.weight"),
        Param(f"{name}.bias", (out_dim,), "linear.bias"),
    ]


def _norm(name: str, dim: int) -> list[Param]:
    return [Param(f"{name}.weight", (dim,), "norm.weight"), Param(f"{name}.bias", (dim,), "norm.bias")]


def _running_statistics(name: str, dim: int) -> list[Param]:
    return [
        Param(f"{name}.mean", (dim,), "norm.mean", trainable=False),
        Param(f"{name}.var", (dim,), "norm.var", trainable=False),
    ]


def _blocks(name: str, depth: int, dim: int, hidden: int) -> list[Param]:
    listed: list[Param] = []
    for i in range(depth):
        listed += [
            *_norm(f"{name}.{i}.norm1", dim),
            *_linear(f"{name}.{i}.attn.qkv", 3 * dim, dim),
            *_linear(f"{name}.{i}.attn.proj", dim, dim),
            *_norm(f"{name}.{i}.norm2", dim),
            *_linear(f"{name}.{i}.mlp.fc1", hidden, dim),
            *_linear(f"{name}.{i}.mlp.fc2", dim, hidden),
        ]
    return listed


def _encoder(config: Config) -> list[Param]:
    D, p = config.embed_dim, config.patch_size
    return [
        Param("patch_embed.proj.weight", (D, config.in_chans, p, p), "conv.weight"),
        Param("patch_embed.proj.bias", (D,), "conv.bias"),
        *_blocks("blocks", config.depth, D, config.mlp_dim(D)),
    ]


def _conv_head(config: MAEConfig) -> list[Param]:
    P, C, p = config.patch_dim, config.in_chans, config.patch_size
    weight, bias = Param("unconv.weight", (P, C, p, p), "unconv.weight"), Param("unconv.bias", (C,), "conv.bias")
    return [*_norm("patch_norm", P), weight, bias]


def _mae_params(config: MAEConfig) -> tuple[Param, ...]:
    L, D, E = config.num_patches, config.embed_dim, config.decoder_embed_dim
    return (
        Param("cls_token", (1, 1, D), "token"),
        Param("pos_embed", (1, L + 1, D), "position", trainable=config.train_positions),
        Param("mask_token", (1, 1, E), "token"),
        Param("decoder_pos_embed", (1, L + 1, E), "position", trainable=config.train_positions),
        *_encoder(config),
        *_norm("norm", D),
        *_linear("decoder_embed", E, D),
        *_blocks("decoder_blocks", config.decoder_depth, E, config.mlp_dim(E)),
        *(_norm("decoder_norm", E) if config.decoder_norm else []),
        *_linear("decoder_pred", config.patch_dim, E),
        *(_conv_head(config) if config.head == "conv" else []),
    )


def _vit_params(config: ViTConfig) -> tuple[Param, ...]:
    D = config.embed_dim
    norm = _running_statistics("head_norm", D) if config.head_norm else []
    head = [*norm, *_linear("head", config.num_classes, D)]
    return (
        Param("cls_token", (1, 1, D), "token"),
        Param("pos_embed", (1, config.num_patches + 1, D), "position", trainable=config.train_positions),
        *_encoder(config),
        *([*head, *_norm("fc_norm", D)] if config.pooling == "gap" else [*_norm("norm", D), *head]),
    )


def _block_taps(name: str, depth: int) -> list[Tap]:
    inside = (
        ("norm1", "layer norm"), ("attn.qkv", "linear"), ("attn.softmax", "softmax"), ("attn.proj", "linear"),
        ("residual", "add"), ("norm2", "layer norm"),
        ("mlp.fc1", "linear"), ("mlp.gelu", "gelu"), ("mlp.fc2", "linear"),
    )  # fmt: skip
    listed: list[Tap] = []
    for i in range(depth):
        listed += [Tap(f"{name}.{i}.{tap}", operation) for tap, operation in inside]
        listed.append(Tap(f"{name}.{i}", "add"))
    return listed


_CONV_HEAD_TAPS = (
    Tap("decoder_pred", "linear"),  # [N, L, p*p*C], as all of these
    Tap("patch_norm", "layer norm"),
    Tap("pred", "transposed convolution"),
)


def _mae_taps(config: MAEConfig) -> tuple[Tap, ...]:
    return (
        Tap("patch_embed", "convolution"),  # [N, L, D]
        Tap("pos_embed", "add"),  # [N, L, D]
        Tap("ids_restore", "argsort", exact=True),  # [N, L]
        Tap("mask", "compare", exact=True),  # [N, L], 0 is kept, 1 is removed
        Tap("tokens", "gather"),  # [N, K+1, D]
        *_block_taps("blocks", config.depth),
        Tap("latent", "layer norm"),  # [N, K+1, D]
        Tap("decoder_embed", "linear"),  # [N, K+1, E]
        Tap("decoder_tokens", "gather"),  # [N, L+1, E]
        *_block_taps("decoder_blocks", config.decoder_depth),
        *([Tap("decoder_norm", "layer norm")] if config.decoder_norm else []),  # [N, L+1, E]
        *(_CONV_HEAD_TAPS if config.head == "conv" else [Tap("pred", "linear")]),  # [N, L, p*p*C]
        Tap("target", "patchify"),  # [N, L, p*p*C]
        Tap("loss", "mean"),  # []
    )


def loss_taps(config: Config) -> tuple[Tap, ...]:
    """What a recorded run holds beside the taps: targets and values of both losses, from the same prediction."""
    if isinstance(config, ViTConfig):
        return ()
    return (
        Tap("pixel.target", "patchify"),
        Tap("pixel.loss", "mean"),
        Tap("norm_pix.target", "patchify"),
        Tap("norm_pix.loss", "mean"),
    )


def _vit_taps(config: ViTConfig) -> tuple[Tap, ...]:
    return (
        Tap("patch_embed", "convolution"),  # [N, L, D]
        Tap("tokens", "add"),  # [N, L+1, D]
        *_block_taps("blocks", config.depth),
        Tap("latent", "layer norm"),  # [N, D]
        *([Tap("head_norm", "batch norm")] if config.head_norm else []),  # [N, D]
        Tap("logits", "linear"),  # [N, classes]
        Tap("loss", "cross entropy"),  # []
    )
