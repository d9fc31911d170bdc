"""What is said of a model beside its tensors: by its dialect, by a config.json, by an earlier conversion."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ..backends.config import Config, MAEConfig, ViTConfig
from ..backends.presets import preset_name
from .dialects import OF_CLASSIFIERS, Contents, Dialect
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


def name_of(config: Config) -> str | None:
    """The preset that a configuration is, or that it differs from only in how it computes, pools and classifies."""
    usual: dict[str, Any] = {f.name: f.default for f in fields(config) if f.name in COMPUTED}
    names = [preset_name(config), preset_name(replace(config, **usual))]
    if isinstance(config, ViTConfig):
        classes = (replace(config, num_classes=n, pooling="gap", head_norm=False, **usual) for n in (1000, 10))
        names += [preset_name(one) for one in classes]
    return next((name for name in names if name != "own model"), None)


def config_beside(path: Path) -> str | None:
    """The config.json in the folder of a single file."""
    beside = path.parent / HF_CONFIG
    if path.is_dir() or not beside.is_file() or beside.stat().st_size > _LONGEST_TEXT:
        return None
    return bytes(map_file(beside)).decode(errors="replace")


def require_same(said: Config, noted: Config, found: Identified, where: str) -> None:
    """Raise CheckpointProblem where a config.json and what an earlier conversion noted of the same file contradict."""
    names = [f.name for f in fields(said) if f.name not in (*COMPUTED, "mlp_ratio")]
    if found.contents == "encoder":
        names = [name for name in names if not name.startswith("decoder_") and name != "norm_pix_loss"]
    pairs = {name: (getattr(said, name), getattr(noted, name)) for name in names} if type(said) is type(noted) else {}
    pairs |= {"norm eps": (said.norm_eps, noted.eps_of_blocks)}
    pairs |= {"width of the MLP": (said.mlp_dim(said.embed_dim), noted.mlp_dim(noted.embed_dim))}
    differ = [f"{name} {one}, not {other}" for name, (one, other) in pairs.items() if one != other]
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
            f"{count} tensors ({found.contents}). Remove it, and say with -m what the model is."
        )
