"""Named models, and what `--model` understands: a preset's name, a JSON file, or the constructor's own names."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from .config import Config, ConfigError, MAEConfig, ViTConfig

# width, depth, heads, patch size. Base, large and huge are the paper's (table 8); tiny and small are DeiT's sizes.
_SIZES = {
    "tiny_patch16": (192, 12, 3, 16),
    "small_patch16": (384, 12, 6, 16),
    "base_patch16": (768, 12, 12, 16),
    "large_patch16": (1024, 24, 16, 16),
    "huge_patch14": (1280, 32, 16, 14),
}


def _presets() -> dict[str, Config]:
    named: dict[str, Config] = {}
    for size, (dim, depth, heads, patch) in _SIZES.items():
        named[f"mae_vit_{size}"] = MAEConfig(embed_dim=dim, depth=depth, num_heads=heads, patch_size=patch)
        named[f"vit_{size}"] = ViTConfig(embed_dim=dim, depth=depth, num_heads=heads, patch_size=patch)
    # Small enough to run in every framework in a second; what the tests and the quick comparison use.
    test = MAEConfig(
        img_size=(32, 32), patch_size=8, embed_dim=48, depth=3, num_heads=3,
        decoder_embed_dim=32, decoder_depth=2, decoder_num_heads=4,
    )  # fmt: skip
    named["mae_vit_test_patch8"] = test
    named["vit_test_patch8"] = ViTConfig(
        img_size=(32, 32), patch_size=8, embed_dim=48, depth=3, num_heads=3, num_classes=10
    )
    return named


PRESETS = _presets()
# The official factories' long names: decoder of width 512 and 8 blocks.
ALIASES = {f"mae_vit_{size}_dec512d8b": f"mae_vit_{size}" for size in ("base_patch16", "large_patch16", "huge_patch14")}


def model_config(model: str, **overrides: Any) -> Config:
    """The configuration that `--model` names.

    model: a preset ("mae_vit_base_patch16"), the path of a JSON object, or "img_size=32,patch_size=8,...".
    A JSON object or a list of names means a ViTConfig where it holds `num_classes` or `pooling`, else an MAEConfig.
    Raises ConfigError for an unknown model, with the nearest names, or an unknown or unusable value.
    """
    name = ALIASES.get(model, model)
    if name in PRESETS:
        return replace(PRESETS[name], **overrides)
    if "=" in model:
        parts = re.split(r",(?![^\[(]*[\])])", model)  # commas outside brackets
        return _from_values(dict(_assignment(part) for part in parts if part.strip()) | overrides)
    if model.endswith(".json"):
        return _from_values(_read_json(Path(model)) | overrides)
    known = [*PRESETS, *ALIASES]
    near = get_close_matches(model, known, n=3) or known
    raise ConfigError(
        f"Unknown model {model!r}. Nearest names: {', '.join(near)}. "
        "`polymae models` lists them all; a JSON file or 'img_size=32,patch_size=8,...' also works."
    )


def preset_name(config: Config) -> str:
    """The preset of this configuration, whichever loss it has, or "own model"."""
    if isinstance(config, MAEConfig):
        config = replace(config, norm_pix_loss=False)
    return next((name for name, preset in PRESETS.items() if preset == config), "own model")


def _assignment(part: str) -> tuple[str, Any]:
    key, _, text = (side.strip() for side in part.partition("="))
    text = {"True": "true", "False": "false"}.get(text, text).replace("(", "[").replace(")", "]")
    try:
        return key, json.loads(text)
    except json.JSONDecodeError:
        return key, text


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(
            f"No model file {path}; give the path of a JSON object with the constructor's names."
        ) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as problem:
        raise ConfigError(f"{path} is not a JSON model file ({problem}); it must hold one JSON object.") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds a {type(values).__name__}; a model file holds one JSON object.")
    return values


def _from_values(values: dict[str, Any]) -> Config:
    kind = ViTConfig if {"num_classes", "pooling"} & values.keys() else MAEConfig
    kinds = {f.name: type(f.default) for f in fields(kind)}
    for key, value in values.items():
        if key not in kinds:
            near = get_close_matches(key, kinds, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the names are {', '.join(kinds)}."
            raise ConfigError(f"Unknown model setting {key!r}; {hint}")
        if kinds[key] is float and isinstance(value, int) and not isinstance(value, bool):
            values[key] = float(value)
        elif key != "img_size" and type(value) is not kinds[key]:
            raise ConfigError(f"{key} is {value!r}; it must be a {kinds[key].__name__}.")
        elif key == "img_size" and not _is_size(value):
            raise ConfigError(f"img_size is {value!r}; it must be one number or [height, width], in pixels.")
    return kind(**values)


def _is_size(value: Any) -> bool:
    sides = value if isinstance(value, list) else [value]
    return 1 <= len(sides) <= 2 and all(isinstance(side, int) and not isinstance(side, bool) for side in sides)
