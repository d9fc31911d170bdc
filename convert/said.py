"""What is said of a model beside its tensors: by its dialect, by a config.json, by an earlier conversion."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ..backends.config import Config, MAEConfig, ViTConfig
from ..backends.presets import NAMED, preset_name
from ..files.errors import option
from .dialects import OF_CLASSIFIERS, Contents, Dialect
from .dialects.contents import settings_in
from .huggingface import FILE as HF_CONFIG
from .identify import Identified
from .tensors import CheckpointProblem, map_file

# The settings that decide how a program computes, and not which parameters there are.
COMPUTED = ("norm_eps", "block_norm_eps", "positions", "masking", "loss_over", "train_positions")
_LONGEST_TEXT = 1 << 20  # bytes of a config.json or a provenance


def settings_of(dialect: Dialect, contents: Contents) -> dict[str, Any]:
    """The settings of a model's configuration that a dialect's program fixes."""
    fixed = dialect.function(contents)
    if fixed.get("block_norm_eps") == fixed.get("norm_eps"):
        fixed.pop("block_norm_eps", None)
    kind = ViTConfig if contents in OF_CLASSIFIERS else MAEConfig
    return {name: value for name, value in fixed.items() if hasattr(kind, name)}


def name_of(config: Config, contents: Contents) -> str | None:
    """The preset that a configuration is, or that it differs from only in how it computes, pools and classifies.

    contents: what the file holds of it; of an encoder's file, the preset with such an encoder.
    """
    usual: dict[str, Any] = {f.name: f.default for f in fields(config) if f.name in COMPUTED}
    likely = [config, replace(config, **usual)]
    if isinstance(config, ViTConfig):
        likely += [replace(config, num_classes=n, pooling="gap", head_norm=False, **usual) for n in (1000, 10)]
    names = [name for one in likely if (name := preset_name(one)) in NAMED]
    if contents == "encoder":
        presets = {name: preset for name, preset in NAMED.items() if isinstance(preset, MAEConfig)}
        names += [name for one in likely for name, preset in presets.items() if not unlike(one, preset, contents, ())]
    return next(iter(names), None)


def unlike(
    one: Config, other: Config, contents: Contents, aside: Collection[str] = COMPUTED
) -> dict[str, tuple[Any, Any]]:
    """What two configurations of such a file say differently, by setting, but for the settings set aside.

    Only what the file is of counts (shapes.settings_in); and two ratios that give the same hidden layers are the same.
    Nothing is said of configurations of two kinds of model: their tensors tell.
    """
    if type(one) is not type(other):
        return {}
    counted = settings_in(contents) - {*aside}
    found = {f.name: (getattr(one, f.name), getattr(other, f.name)) for f in fields(one) if f.name in counted}
    widths = [getattr(one, name) for name in ("embed_dim", "decoder_embed_dim") if name in settings_in(contents)]
    if all(one.mlp_dim(width) == other.mlp_dim(width) for width in widths):
        found.pop("mlp_ratio", None)
    return {name: pair for name, pair in found.items() if pair[0] != pair[1]}


def config_beside(path: Path) -> str | None:
    """The config.json in the folder of a single file."""
    beside = path.parent / HF_CONFIG
    if path.is_dir() or not beside.is_file() or beside.stat().st_size > _LONGEST_TEXT:
        return None
    return bytes(map_file(beside)).decode(errors="replace")


def require_same(said: Config, noted: Config, found: Identified, where: str) -> None:
    """Raise CheckpointProblem where a config.json and what an earlier conversion noted of the same file contradict."""
    pairs = unlike(said, noted, found.contents)
    if said.norm_eps != noted.eps_of_blocks:  # the one that a config.json has
        pairs["norm eps"] = (said.norm_eps, noted.eps_of_blocks)
    differ = [f"{name} {one}, not {other}" for name, (one, other) in pairs.items()]
    if differ:
        raise CheckpointProblem(
            f"{where}: {HF_CONFIG} says otherwise than the provenance of the conversion that wrote the weights: "
            f'{"; ".join(differ)}. Undo the change, or take the provenance ("polymae") out of the file\'s metadata.'
        )


def require_plausible(config: Config, found: Identified, where: str, said: str) -> None:
    """Raise CheckpointProblem where a file says something of its model that its tensors cannot be.

    said: what says it, a config.json or a provenance.
    """
    decoder = config.decoder_depth if isinstance(config, MAEConfig) and found.contents == "mae" else 0
    depth, count = config.depth + decoder, len(found.readings)
    if depth > count or (found.contents in OF_CLASSIFIERS) != isinstance(config, ViTConfig):
        raise CheckpointProblem(
            f"What the {said} of {where} says of the model ({type(config).__name__}, {depth} blocks) does not fit its "
            f"{count} tensors ({found.contents}). Remove it, and say with {option('-m')} what the model is."
        )
