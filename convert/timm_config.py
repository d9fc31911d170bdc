"""The config.json of a timm model on the Hugging Face Hub: which encoder or classifier it is."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

from ..backends.config import Config, ConfigError, ViTConfig
from ..backends.presets import PRESETS
from .dialects import OF_CLASSIFIERS, Contents
from .transform import encoder_config

_ARGUMENTS = ("img_size", "patch_size", "in_chans", "embed_dim", "depth", "num_heads", "mlp_ratio")
_POOLING = {"token": "cls", "avg": "gap"}


def read_timm_config(text: str, contents: Contents) -> Config | None:
    """The model that timm's config.json describes by `architecture` and `model_args`; None where it is none of a ViT here.

    The names of architectures are timm's: vit_base_patch16_224 is our vit_base_patch16 for images of 224 pixels.
    """
    try:
        said = json.loads(text)
        arguments = dict(said.get("model_args") or {})
        name = re.fullmatch(r"(vit_\w+_patch\d+)_(\d+)\w*", str(said["architecture"]))
        preset = PRESETS.get(name[1]) if name else None
        if name is None or not isinstance(preset, ViTConfig):
            return None
        channels, *size = (said.get("pretrained_cfg") or said).get("input_size") or (3, int(name[2]), int(name[2]))
        values: dict[str, Any] = {"img_size": tuple(size), "in_chans": channels, "norm_eps": 1e-6}
        values |= {name: arguments[name] for name in _ARGUMENTS if name in arguments}
        values["img_size"] = tuple(values["img_size"]) if isinstance(values["img_size"], list) else values["img_size"]
        config = replace(preset, **values)
        if contents not in OF_CLASSIFIERS:
            return encoder_config(config)
        pooling = _POOLING.get(said.get("global_pool", ""), config.pooling)
        return replace(config, pooling=pooling, num_classes=said.get("num_classes") or config.num_classes)  # type: ignore[arg-type]
    except (ValueError, TypeError, KeyError, AttributeError, ConfigError, RecursionError):
        return None
