"""Named models, and the values of `--model`: a preset's name, a JSON file, or the constructor's own names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from difflib import get_close_matches
from pathlib import Path
from reprlib import repr as shortened
from typing import Any

from .config import Config, ConfigError, MAEConfig, ViTConfig

# width, depth, heads, patch size. Base, large and huge are the paper's (table 8); tiny and small are DeiT's sizes.
_SIZES: dict[str, dict[str, Any]] = {
    f"{size}_patch{patch}": {"embed_dim": dim, "depth": depth, "num_heads": heads, "patch_size": patch}
    for size, dim, depth, heads, patch in (
        ("tiny", 192, 12, 3, 16),
        ("small", 384, 12, 6, 16),
        ("base", 768, 12, 12, 16),
        ("large", 1024, 24, 16, 16),
        ("huge", 1280, 32, 16, 14),
        ("test", 48, 3, 3, 8),
    )
}
# Small enough to run in every framework in a second; for the tests and the quick comparison.
_TEST = "test_patch8"
_SIZES[_TEST]["img_size"] = (32, 32)
_TEST_DECODER: dict[str, Any] = {"decoder_embed_dim": 32, "decoder_depth": 2, "decoder_num_heads": 4}


def _presets(
    prefix: str = "", sizes: Iterable[str] = tuple(_SIZES), mae: Mapping[str, Any] = {}, vit: Mapping[str, Any] = {}
) -> dict[str, Config]:
    """An autoencoder and a classifier of each size, with the settings that a family has in common."""
    named: dict[str, Config] = {}
    for size in sizes:
        named[f"{prefix}mae_vit_{size}"] = MAEConfig(**_SIZES[size], **(_TEST_DECODER if size == _TEST else {}), **mae)
        named[f"{prefix}vit_{size}"] = ViTConfig(**_SIZES[size], num_classes=10 if size == _TEST else 1000, **vit)
    return named


_FLYEGLE: dict[str, Any] = {"norm_eps": 1e-5, "positions": "1d"}

PRESETS = _presets()
# Other projects' models: FlyEgle/MAE-pytorch and LiBai. Apart from PRESETS, because a file's shapes do not tell
# LiBai's from the official ones.
FAMILY_PRESETS = _presets(
    "flyegle_", ("tiny_patch16", "base_patch16", _TEST),
    mae={**_FLYEGLE, "decoder_norm": False, "head": "conv", "masking": "raster", "loss_over": "all"},
    vit={**_FLYEGLE, "pooling": "cls", "train_positions": False},
) | _presets(
    "libai_", ("base_patch16", "large_patch16", "huge_patch14", _TEST),
    mae={"block_norm_eps": 1e-5, "train_positions": True}, vit={"norm_eps": 1e-5},
)  # fmt: skip
NAMED = PRESETS | FAMILY_PRESETS
FOR_TESTS = frozenset(name for name in NAMED if name.endswith(_TEST))
# The official factories' long names: decoder of width 512 and 8 blocks.
ALIASES = {f"mae_vit_{size}_dec512d8b": f"mae_vit_{size}" for size in ("base_patch16", "large_patch16", "huge_patch14")}


def model_config(model: str, **overrides: Any) -> Config:
    """The configuration that `--model` names.

    model: a preset ("mae_vit_base_patch16"), the path of a JSON object, "img_size=32,patch_size=8,...", or a preset with
    other settings ("vit_tiny_patch16,num_heads=12").
    config_of gives the meaning of a JSON object or a list of names.
    Raises ConfigError for an unknown model, with the nearest names, or an unknown or unusable value.
    """
    name = ALIASES.get(model, model)
    if name in NAMED:
        _require_settings(type(NAMED[name]), overrides)
        return replace(NAMED[name], **overrides)
    if "=" in model:
        first, *rest = parts = re.split(r",(?![^\[(]*[\])])", model)  # commas outside brackets
        if "=" in first:
            return config_of(_assigned(parts) | overrides)
        preset, settings = model_config(first.strip()), _assigned(rest) | overrides
        _require_settings(type(preset), settings)
        return config_of({f.name: getattr(preset, f.name) for f in fields(preset)} | settings)
    if model.endswith(".json"):
        return config_of(_read_json(Path(model)) | overrides)
    known = [*NAMED, *ALIASES]
    near = get_close_matches(model, known, n=3) or known
    raise ConfigError(
        f"Unknown model {model!r}. Nearest names: {', '.join(near)}. "
        "`polymae models` lists them all; a JSON file or 'img_size=32,patch_size=8,...' also works."
    )


def preset_name(config: Config) -> str:
    """The preset of this configuration, whichever loss it has, or "own model"."""
    if isinstance(config, MAEConfig):
        config = replace(config, norm_pix_loss=False)
    return next((name for name, preset in NAMED.items() if preset == config), "own model")


def _assigned(parts: Iterable[str]) -> dict[str, Any]:
    return dict(_assignment(part) for part in parts if part.strip())


def _assignment(part: str) -> tuple[str, Any]:
    key, _, text = (side.strip() for side in part.partition("="))
    text = {"True": "true", "False": "false", "None": "null"}.get(text, text).replace("(", "[").replace(")", "]")
    try:
        return key, json.loads(text)
    except (ValueError, RecursionError):  # not JSON, too many digits, nested too deep
        return key, text


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"No model file {path}; give the path of a JSON object with the constructor's names."
        ) from None
    except (OSError, ValueError, RecursionError) as problem:
        raise ConfigError(f"{path} is not a JSON model file ({problem}); it must hold one JSON object.") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds a {type(values).__name__}; a model file holds one JSON object.")
    return values


def config_of(values: Mapping[str, Any]) -> Config:
    """The ViTConfig of named settings where they hold one of a classifier's own, else their MAEConfig.

    Raises ConfigError for an unknown setting or an unusable value.
    """
    kind = ViTConfig if {"num_classes", "pooling", "head_norm"} & values.keys() else MAEConfig
    kinds = {f.name: float if f.default is None else type(f.default) for f in fields(kind)}
    optional = {f.name for f in fields(kind) if f.default is None}
    settings = dict(values)
    _require_settings(kind, values)
    for key, value in values.items():
        if value is None and key in optional:
            continue
        if kinds[key] is float and isinstance(value, int) and not isinstance(value, bool):
            try:
                settings[key] = float(value)
            except OverflowError:
                raise ConfigError(f"{key} is {shortened(value)}, which is too large.") from None
        elif key != "img_size" and type(value) is not kinds[key]:
            raise ConfigError(f"{key} is {shortened(value)}; its type must be {kinds[key].__name__}.")
        elif key == "img_size" and not _is_size(value):
            raise ConfigError(f"img_size is {shortened(value)}; it must be one number or [height, width], in pixels.")
    return kind(**settings)


def _require_settings(kind: type[Config], names: Iterable[str]) -> None:
    known = [f.name for f in fields(kind)]
    for name in names:
        if name not in known:
            raise ConfigError(f"Unknown model setting {name!r}; {_hint(kind, name, known)}")


def _hint(kind: type[Config], name: str, known: Sequence[str]) -> str:
    """What may have been meant by a setting that a kind of model has not."""
    if kind is MAEConfig and name in ViTConfig.__dataclass_fields__:
        return "an autoencoder has none; it is one of classifiers."
    if kind is ViTConfig and name in MAEConfig.__dataclass_fields__:
        return "a classifier has none; it is one of autoencoders."
    if name == "mask_ratio":
        return "it is an argument of the call: model(imgs, mask_ratio=0.75)."
    near = get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"the names are {', '.join(known)}."


def _is_size(value: Any) -> bool:
    sides = value if isinstance(value, (list, tuple)) else [value]
    return 1 <= len(sides) <= 2 and all(isinstance(side, int) and not isinstance(side, bool) for side in sides)
