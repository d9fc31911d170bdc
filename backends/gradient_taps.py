"""What a run records of its backward pass: the loss's gradient at the taps (`dy/<tap>`) and for the parameters."""

from __future__ import annotations

from collections.abc import Iterator

from .config import Config, MAEConfig, ViTConfig
from .spec import Param, Tap, params


def gradient_taps(config: Config) -> tuple[Tap, ...]:
    """The taps whose gradient is recorded, in the order of the backward pass; those of a copy are left out.

    The operation is the one that the gradient has just passed.
    """
    return tuple(_mae(config) if isinstance(config, MAEConfig) else _vit(config))


def backward_taps(config: Config) -> Iterator[Tap]:
    """`dy/<tap>` and `grad/<parameter>` in the order of the backward pass, which ends where the forward began."""
    listed = gradient_taps(config)
    names = {tap.name for tap in listed}
    belonging: dict[str, list[Param]] = {}
    for param in reversed(params(config)):
        belonging.setdefault(_output(param, names), []).append(param)
    for tap in listed:
        yield Tap(f"dy/{tap.name}", f"{tap.operation} backward")
        for param in belonging.get(tap.name, ()):
            yield Tap(f"grad/{param.name}", param.role)


def _mae(config: MAEConfig) -> Iterator[Tap]:
    yield Tap("pred", "loss")
    above = "linear"
    if config.head == "conv":
        yield Tap("patch_norm", "transposed convolution")
        yield Tap("decoder_pred", "layer norm")
    if config.decoder_norm:
        yield Tap("decoder_norm", "linear")
        above = "layer norm"
    yield from _stack("decoder_blocks", config.decoder_depth, above)
    yield Tap("decoder_tokens", "layer norm")
    yield Tap("decoder_embed", "gather")
    yield Tap("latent", "linear")
    yield from _stack("blocks", config.depth, "layer norm")
    yield Tap("tokens", "layer norm")
    yield Tap("pos_embed", "gather")


def _vit(config: ViTConfig) -> Iterator[Tap]:
    yield Tap("logits", "cross entropy")
    if config.head_norm:
        yield Tap("head_norm", "linear")
    yield Tap("latent", "batch norm" if config.head_norm else "linear")
    yield from _stack("blocks", config.depth, "layer norm")
    yield Tap("tokens", "layer norm")


def _stack(name: str, depth: int, above: str) -> Iterator[Tap]:
    inside = (
        ("mlp.gelu", "linear"), ("mlp.fc1", "gelu"), ("norm2", "linear"), ("residual", "layer norm"),
        ("attn.softmax", "linear"), ("attn.qkv", "softmax"), ("norm1", "linear"),
    )  # fmt: skip
    for i in reversed(range(depth)):
        yield Tap(f"{name}.{i}", "layer norm" if i < depth - 1 else above)
        for tap, operation in inside:
            yield Tap(f"{name}.{i}.{tap}", operation)


# The taps behind what has none of its own name.
_BEHIND = {
    "unconv": ("pred",),
    "decoder_pred": ("pred",),
    "mask_token": ("decoder_tokens",),
    "decoder_pos_embed": ("decoder_tokens",),
    "norm": ("latent",),
    "fc_norm": ("latent",),
    "head": ("logits",),
    "cls_token": ("tokens",),
    "pos_embed": ("tokens",),
    "patch_embed.proj": ("pos_embed", "tokens"),
}


def _output(param: Param, names: set[str]) -> str:
    """The tap whose gradient gives that of a parameter."""
    module = param.name.rpartition(".")[0] if "." in param.role else param.name
    for inner, behind in ((".attn.proj", ".residual"), (".mlp.fc2", "")):
        if module.endswith(inner):
            return module.removesuffix(inner) + behind
    return next(name for name in (module, *_BEHIND.get(module, ())) if name in names)
