"""What a checkpoint is, by the names and shapes of its tensors: its contents, and the named model it fits."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import fields, replace
from typing import Any

from ...backends.config import Config, ConfigError, Encoder, MAEConfig, ViTConfig
from ...backends.presets import FAMILY_PRESETS, PRESETS
from ...backends.spec import Param, Shape, encoder_params, params
from ..tensors import CheckpointProblem
from .dialect import OF_CLASSIFIERS, Contents

Shapes = Mapping[str, Shape]


def contents_of(names: Mapping[str, object], where: str) -> Contents:
    """What kind of model a file holds. Raises CheckpointProblem where it holds signs of two kinds."""
    decoder, head, pooled = (any(n.startswith(s) for n in names) for s in ("decoder_", "head.", "fc_norm."))
    if decoder and (head or pooled):
        raise CheckpointProblem(f"{where} holds both a decoder and a classifier's head; it can be mae or classifier.")
    if any(name.startswith("head_norm.") for name in names):
        return "probe"
    return "mae" if decoder else "classifier" if head else "headless" if pooled else "encoder"


def expected_params(config: Config, contents: Contents | None = None) -> tuple[Param, ...]:
    """What a file of this model holds; contents None means all of the model."""
    if contents == "encoder" and isinstance(config, MAEConfig):
        return encoder_params(config)
    whole = params(config)
    return (
        tuple(p for p in whole if not p.name.startswith(("head.", "head_norm."))) if contents == "headless" else whole
    )


def settings_in(contents: Contents) -> frozenset[str]:
    """The settings of a configuration that a file of this kind is of.

    An encoder has no decoder and no loss, and what is left of a classifier without its head has no classes: what a
    configuration says of those came from somewhere else, and no two sayings of it contradict each other.
    """
    kind = ViTConfig if contents in OF_CLASSIFIERS else Encoder if contents == "encoder" else MAEConfig
    of_head = {"num_classes", "head_norm"} if contents == "headless" else set()
    return frozenset(f.name for f in fields(kind)) - of_head


def fitting_models(
    shapes: Shapes, contents: Contents, settings: Mapping[str, Any] | None = None, derived: Collection[str] = ()
) -> dict[str, Config]:
    """The presets whose parameters have exactly these names and shapes, as configurations.

    settings: what else is known of the model, as the eps that its dialect computes with. derived: tensors that need not
    be there.
    """
    found: dict[str, Config] = {}
    # A convolution as head is FlyEgle's, whatever spells it.
    presets = (
        {n: p for n, p in FAMILY_PRESETS.items() if n.startswith("flyegle_")} if "unconv.weight" in shapes else PRESETS
    )
    for name, preset in presets.items():
        if isinstance(preset, MAEConfig) == (contents in OF_CLASSIFIERS):
            continue
        try:
            config = adapted(preset, shapes, settings)
        except ConfigError:  # shapes that no model can have
            continue
        if {p.name: p.shape for p in expected_params(config, contents) if p.name not in derived} == dict(shapes):
            found[name] = config
    return found


def adapted(config: Config, shapes: Shapes, settings: Mapping[str, Any] | None = None) -> Config:
    """A config with what a file's tensors show (classes, pooling, kind of head) and with the settings it can have."""
    shown: dict[str, Any] = dict(settings or {})
    if isinstance(config, ViTConfig):
        head = shapes.get("head.weight", ())
        if len(head) == 2 and head[0]:
            shown["num_classes"] = head[0]
        shown["head_norm"] = any(name.startswith("head_norm.") for name in shapes)
        if "fc_norm.weight" in shapes:
            shown["pooling"] = "gap"
        elif "norm.weight" in shapes and config.pooling == "gap":
            shown["pooling"] = "cls"
    elif any(name.startswith("decoder_") for name in shapes):
        shown["head"] = "conv" if "unconv.weight" in shapes else "linear"
        shown["decoder_norm"] = "decoder_norm.weight" in shapes or "decoder_norm.bias" in shapes
        if not shown["decoder_norm"] and shown["head"] == "linear" and config.decoder_norm:
            shown["decoder_norm"] = True  # rather a missing tensor than a rare family
    return replace(config, **{name: value for name, value in shown.items() if hasattr(config, name)})


def settings(shapes: Shapes) -> str:
    """What `--model` needs for these shapes, as far as they tell; head counts never show, so they are question marks."""
    D, C, p, _ = [*shapes.get("patch_embed.proj.weight", ()), 0, 0, 0, 0][:4]
    patches = max([*shapes.get("pos_embed", ()), 0, 0][1] - 1, 0)
    side = math.isqrt(patches)
    found: dict[str, object] = {
        "img_size": side * p if side and side**2 == patches else "?",
        "patch_size": p,
        "in_chans": C,
        "embed_dim": D,
    }
    found |= {"depth": _depth(shapes, "blocks."), "num_heads": "?"}
    if "decoder_embed.bias" in shapes:
        found["decoder_embed_dim"] = shapes["decoder_embed.bias"][0]
        found |= {"decoder_depth": _depth(shapes, "decoder_blocks."), "decoder_num_heads": "?"}
    if "head.bias" in shapes:
        found |= {"num_classes": shapes["head.bias"][0], "pooling": "gap" if "fc_norm.weight" in shapes else "cls"}
    return ",".join(f"{key}={value}" for key, value in found.items())


def _depth(shapes: Shapes, stack: str) -> int:
    return len({name.split(".")[1] for name in shapes if name.startswith(stack)})
