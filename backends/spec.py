"""The framework-neutral spec: every parameter and every tap of a model, by name and shape.

Enumerated, not interpreted: each backend is written by hand, and its parameters are verified against
`params(config)` when a model is constructed. A spec that built the models could not check them.
Names, shapes and order are those of the official state dict (facebookresearch/mae, models_mae.py and models_vit.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
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
        """How many values it has."""
        return math.prod(self.shape)

    @property
    def module(self) -> str:
        """The module that it belongs to; its own name where it belongs to the model itself."""
        return self.name.rpartition(".")[0] if "." in self.role else self.name


@dataclass(frozen=True)
class Tap:
    """One intermediate tensor, recorded by assignment in the forward pass of every backend."""

    name: str
    operation: str
    exact: bool = False  # a decision (which patch is kept, in which order), not a sum: it must agree bit for bit
    of: tuple[str, ...] = ()  # the taps that the operation takes, and inputs of the model as `input/<name>`
    by: tuple[str, ...] = ()  # the modules and parameters that it uses; none: a module of its own name, if there is one


class NoTaps(dict[str, Any]):
    """The tap dictionary of a run that records nothing: it forgets what is assigned to it."""

    def __setitem__(self, name: str, value: Any) -> None:
        pass


class SpecError(Problem, ValueError):
    """Parameters that are not those of the spec; the message lists every difference."""


@lru_cache
def params(config: Config) -> tuple[Param, ...]:
    """Every parameter of a model, in the official state dict's order."""
    return _mae_params(config) if isinstance(config, MAEConfig) else _vit_params(config)


def encoder_params(config: MAEConfig) -> tuple[Param, ...]:
    """What the published encoder-only files hold: everything but mask_token, decoder_* and the rest of a conv head."""
    decoder = ("mask_token", "decoder_", "patch_norm.", "unconv.")
    return tuple(p for p in params(config) if not p.name.startswith(decoder))


@lru_cache
def taps(config: Config) -> tuple[Tap, ...]:
    """Every tap, in the order of the forward pass."""
    return tuple(_mae_taps(config) if isinstance(config, MAEConfig) else _vit_taps(config))


def differences(expected: Mapping[str, Shape], actual: Mapping[str, Shape]) -> list[str]:
    """What separates two sets of named shapes: a sentence for each missing, unexpected or mis-shaped tensor."""
    problems = [f"missing: {name} {shape}" for name, shape in expected.items() if name not in actual]
    problems += [f"unexpected: {name} {shape}" for name, shape in actual.items() if name not in expected]
    for name, shape in expected.items():
        if name in actual and tuple(actual[name]) != tuple(shape):
            problems.append(f"shape: {name} is {tuple(actual[name])}, expected {tuple(shape)}")
    return problems


def verify(expected: Mapping[str, Shape], actual: Mapping[str, Shape], what: str) -> None:
    """Raise SpecError, listing all of them, where the named shapes in `actual` are not exactly the expected ones."""
    problems = differences(expected, actual)
    if problems:
        raise SpecError(f"{what} does not match the spec ({len(problems)} differences):\n  " + "\n  ".join(problems))


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
    listed = (
        Param("cls_token", (1, 1, D), "token"),
        Param("pos_embed", (1, config.num_patches + 1, D), "position", trainable=config.train_positions),
        *_encoder(config),
        *([*head, *_norm("fc_norm", D)] if config.pooling == "gap" else [*_norm("norm", D), *head]),
    )
    if config.train_encoder:
        return listed
    return tuple(replace(param, trainable=param.module == "head") for param in listed)


def _block_taps(name: str, depth: int, tokens: str, factors: tuple[str, ...] = ()) -> Iterator[Tap]:
    """A stack of blocks on the tap `tokens`; factors: the input that both branches of a block are multiplied by."""
    x = tokens
    for block in (f"{name}.{i}" for i in range(depth)):
        qkv, softmax, proj = f"{block}.attn.qkv", f"{block}.attn.softmax", f"{block}.attn.proj"
        fc1, gelu, fc2 = f"{block}.mlp.fc1", f"{block}.mlp.gelu", f"{block}.mlp.fc2"
        norm1, norm2, residual = f"{block}.norm1", f"{block}.norm2", f"{block}.residual"
        yield Tap(norm1, "layer norm", of=(x,))
        yield Tap(qkv, "linear", of=(norm1,))
        yield Tap(softmax, "softmax", of=(qkv,))
        yield Tap(proj, "linear", of=(softmax, qkv))
        yield Tap(residual, "add", of=(x, proj, *factors))
        yield Tap(norm2, "layer norm", of=(residual,))
        yield Tap(fc1, "linear", of=(norm2,))
        yield Tap(gelu, "gelu", of=(fc1,))
        yield Tap(fc2, "linear", of=(gelu,))
        yield Tap(block, "add", of=(residual, fc2, *factors))
        x = block


def _mae_taps(config: MAEConfig) -> Iterator[Tap]:
    yield Tap("patch_embed", "convolution", of=("input/imgs",), by=("patch_embed.proj",))  # [N, L, D]
    yield Tap("pos_embed", "add", of=("patch_embed",))  # [N, L, D]
    yield Tap("ids_restore", "argsort", exact=True, of=("input/noise",))  # [N, L]
    yield Tap("mask", "compare", exact=True, of=("ids_restore",))  # [N, L], 0 is kept, 1 is removed
    yield Tap("tokens", "gather", of=("pos_embed", "ids_restore"), by=("cls_token", "pos_embed"))  # [N, K+1, D]
    yield from _block_taps("blocks", config.depth, "tokens")
    yield Tap("latent", "layer norm", of=(f"blocks.{config.depth - 1}",), by=("norm",))  # [N, K+1, D]
    yield Tap("decoder_embed", "linear", of=("latent",))  # [N, K+1, E]
    yield Tap(
        "decoder_tokens", "gather", of=("decoder_embed", "ids_restore"), by=("mask_token", "decoder_pos_embed")
    )  # [N, L+1, E]
    yield from _block_taps("decoder_blocks", config.decoder_depth, "decoder_tokens")
    x = f"decoder_blocks.{config.decoder_depth - 1}"
    if config.decoder_norm:
        yield Tap("decoder_norm", "layer norm", of=(x,))  # [N, L+1, E]
        x = "decoder_norm"
    if config.head == "conv":
        yield Tap("decoder_pred", "linear", of=(x,))  # [N, L, p*p*C], as the next two
        yield Tap("patch_norm", "layer norm", of=("decoder_pred",))
        yield Tap("pred", "transposed convolution", of=("patch_norm",), by=("unconv",))
    else:
        yield Tap("pred", "linear", of=(x,), by=("decoder_pred",))  # [N, L, p*p*C]
    yield from _loss_taps("")


def loss_taps(config: Config) -> tuple[Tap, ...]:
    """What a recorded run holds beside the taps: targets and values of both losses, from the same prediction."""
    return () if isinstance(config, ViTConfig) else (*_loss_taps("pixel."), *_loss_taps("norm_pix."))


def _loss_taps(kind: str) -> Iterator[Tap]:
    yield Tap(f"{kind}target", "patchify", of=("input/imgs",))  # [N, L, p*p*C]
    yield Tap(f"{kind}loss", "mean", of=("pred", f"{kind}target", "mask"))  # []


def _vit_taps(config: ViTConfig) -> Iterator[Tap]:
    """`of` names all inputs that there can be: labels or soft targets, and drop_path where a run has it."""
    norm = "fc_norm" if config.pooling == "gap" else "norm"
    yield Tap("patch_embed", "convolution", of=("input/imgs",), by=("patch_embed.proj",))  # [N, L, D]
    yield Tap("tokens", "add", of=("patch_embed",), by=("cls_token", "pos_embed"))  # [N, L+1, D]
    yield from _block_taps("blocks", config.depth, "tokens", ("input/drop_path",))
    yield Tap("latent", "layer norm", of=(f"blocks.{config.depth - 1}",), by=(norm,))  # [N, D]
    if config.head_norm:
        yield Tap("head_norm", "batch norm", of=("latent",))  # [N, D]
    yield Tap("logits", "linear", of=("head_norm" if config.head_norm else "latent",), by=("head",))  # [N, classes]
    yield Tap("loss", "cross entropy", of=("logits", "input/labels", "input/targets"))  # []
