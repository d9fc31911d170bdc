"""What a checkpoint is, by the names and shapes of its tensors: its contents, and the named model it fits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from ..backends.config import Config, MAEConfig, ViTConfig
from ..backends.presets import PRESETS
from ..backends.spec import Param, Shape, encoder_params, params
from .tensors import CheckpointProblem

Contents = Literal["mae", "encoder", "classifier"]
Shapes = Mapping[str, Shape]

# What the names of tensors begin with in each kind of file; neither means an encoder alone.
_SIGNS: dict[Contents, tuple[str, ...]] = {"mae": ("decoder_",), "classifier": ("head.", "fc_norm.")}


def contents_of(names: Mapping[str, object], where: str) -> Contents:
    """What kind of model a file holds. Raises CheckpointProblem where it holds signs of two kinds."""
    found = [kind for kind, starts in _SIGNS.items() if any(name.startswith(starts) for name in names)]
    if len(found) > 1:
        raise CheckpointProblem(
            f"{where} holds both a decoder and a classifier's head; it can be {' or '.join(found)}."
        )
    return found[0] if found else "encoder"


def expected_params(config: Config, encoder_only: bool = False) -> tuple[Param, ...]:
    """What a file of this model holds. encoder_only counts for autoencoders."""
    return encoder_params(config) if encoder_only and isinstance(config, MAEConfig) else params(config)


def fitting_models(shapes: Shapes, contents: Contents) -> dict[str, Config]:
    """The presets whose parameters have exactly these names and shapes."""
    found: dict[str, Config] = {}
    for name, preset in PRESETS.items():
        if isinstance(preset, MAEConfig) == (contents == "classifier"):
            continue
        config = adapted(preset, shapes)
        if {p.name: p.shape for p in expected_params(config, contents == "encoder")} == dict(shapes):
            found[name] = config
    return found


def adapted(config: Config, shapes: Shapes) -> Config:
    """A classifier's config with the classes and the pooling that a file's shapes show; others as they are."""
    if not isinstance(config, ViTConfig):
        return config
    head = shapes.get("head.weight", ())
    return replace(
        config,
        num_classes=head[0] if len(head) == 2 and head[0] else config.num_classes,
        pooling="gap" if "fc_norm.weight" in shapes else "cls" if "norm.weight" in shapes else config.pooling,
    )


def settings(shapes: Shapes) -> str:
    """What `--model` needs for these shapes, as far as they tell; head counts never show, so they are question marks."""
    D, C, p, _ = [*shapes.get("patch_embed.proj.weight", ()), 0, 0, 0, 0][:4]
    side = math.isqrt(max([*shapes.get("pos_embed", ()), 0, 0][1] - 1, 0))
    found: dict[str, object] = {"img_size": side * p, "patch_size": p, "in_chans": C, "embed_dim": D}
    found |= {"depth": _depth(shapes, "blocks."), "num_heads": "?"}
    if "decoder_embed.bias" in shapes:
        found["decoder_embed_dim"] = shapes["decoder_embed.bias"][0]
        found |= {"decoder_depth": _depth(shapes, "decoder_blocks."), "decoder_num_heads": "?"}
    if "head.bias" in shapes:
        found |= {"num_classes": shapes["head.bias"][0], "pooling": "gap" if "fc_norm.weight" in shapes else "cls"}
    return ",".join(f"{key}={value}" for key, value in found.items())


def _depth(shapes: Shapes, stack: str) -> int:
    return len({name.split(".")[1] for name in shapes if name.startswith(stack)})
