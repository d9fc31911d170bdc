"""Which model a checkpoint is: the one that was asked for, or the one that the file shows."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

from ..backends.config import Config, MAEConfig, ViTConfig
from ..backends.presets import ALIASES, NAMED, PRESETS, model_config
from ..backends.spec import differences
from ..files.errors import option
from .checkpoint import Checkpoint
from .dialects import OF_CLASSIFIERS, Contents
from .dialects.contents import adapted, expected_params, settings
from .problems import oddities
from .relatives import relative
from .said import COMPUTED, settings_of, unlike
from .tensors import CheckpointProblem
from .transform import encoder_config

AnyConfig = TypeVar("AnyConfig", bound=Config)

_FEW = 12  # differences from a named model that are worth listing


def model_of(checkpoint: Checkpoint, asked: str | None = None, overrides: Mapping[str, Any] = {}) -> tuple[str, Config]:
    """A model's name and configuration, for a checkpoint; `asked` is what --model takes, overrides what else was asked for.

    The name says the size; the file says how many classes and which pooling a classifier has, and how its program
    computes where `asked` does not. Raises CheckpointProblem where nothing was asked for and the file does not tell, and
    where the two contradict each other.
    """
    if asked is None:
        if checkpoint.config is None:
            raise CheckpointProblem(_unknown(checkpoint))
        return checkpoint.model or "own model", checkpoint.config
    shapes = {spec: reading.shape for spec, reading in checkpoint.identified.readings.items()}
    asked_config, named = model_config(asked, **overrides), asked.partition(",")[0] in {*NAMED, *ALIASES}
    config = adapted(asked_config, shapes) if named or isinstance(asked_config, MAEConfig) else asked_config
    _require_family(checkpoint, asked, asked_config, config)
    written = {*_given(asked, asked_config)}
    config = replace(config, **{name: getattr(asked_config, name) for name in written & {"num_classes", "pooling"}})
    given = {*written, *overrides}
    config = _as_computed(checkpoint, config, given)
    if checkpoint.told and checkpoint.config is not None:
        # Which loss it is scored by is nothing that weights are of.
        aside = {"norm_pix_loss"} & overrides.keys()
        _require_agreement(checkpoint, asked, config, checkpoint.config, checkpoint.contents, aside)
    return asked, config


def classifier_on(checkpoint: Checkpoint, asked: str, overrides: Mapping[str, Any]) -> ViTConfig:
    """The classifier that is asked for, as it computes on the encoder of an autoencoder's checkpoint.

    Raises CheckpointProblem where the file says of itself that it is of another model.
    """
    asked_config = model_config(asked, **overrides)
    if not isinstance(asked_config, ViTConfig):
        raise TypeError(f"{asked} is no classifier")
    # Whether fine-tuning trains the positions is the classifier's own.
    given = {*_given(asked, asked_config), *overrides, "train_positions"}
    config = _as_computed(checkpoint, asked_config, given)
    if checkpoint.told and checkpoint.config is not None:
        _require_agreement(checkpoint, asked, encoder_config(config), checkpoint.config, "encoder")
    return config


def own_size(checkpoint: Checkpoint, asked: Config, wanted: tuple[int, int] | None) -> tuple[int, int]:
    """The image size in pixels that a file's position table is for: what it tells, or the one of its length that is likeliest."""
    if checkpoint.told and checkpoint.config is not None:
        return checkpoint.config.img_size
    table = checkpoint.identified.readings.get("pos_embed")
    patches = table.shape[1] - 1 if table is not None and len(table.shape) == 3 else asked.num_patches
    for size in (asked.img_size, wanted):
        if size is not None and _patches(size, asked.patch_size) == patches:
            return size
    side = math.isqrt(max(patches, 0))
    return (side * asked.patch_size,) * 2 if side and side**2 == patches else asked.img_size


def _patches(size: tuple[int, int], patch_size: int) -> int:
    return (size[0] // patch_size) * (size[1] // patch_size)


def _as_computed(checkpoint: Checkpoint, config: AnyConfig, given: Collection[str]) -> AnyConfig:
    """With what the file tells of how its program computes, where nothing else was asked for."""
    known = {name: value for name, value in _known(checkpoint).items() if hasattr(config, name)}
    return replace(config, **{name: value for name, value in known.items() if name not in given})


def _known(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a file's dialect, config.json or provenance tells of how its program computes."""
    if checkpoint.config is None:
        return {**settings_of(checkpoint.identified.dialect, checkpoint.contents), **checkpoint.options}
    names = (*COMPUTED, "norm_pix_loss") if checkpoint.told else COMPUTED
    found = {name: getattr(checkpoint.config, name) for name in names if hasattr(checkpoint.config, name)}
    return {**checkpoint.options, **found}


def _given(asked: str, config: Config) -> Collection[str]:
    """The settings that --model gives itself: those that are written there, or that make a preset a family's own."""
    if "=" in asked:
        return {part.partition("=")[0].strip() for part in asked.split(",") if "=" in part}
    if asked.endswith(".json"):
        return set(json.loads(Path(asked).read_text()))
    return {f.name for f in fields(config) if f.name in COMPUTED and getattr(config, f.name) != f.default}


def _require_family(checkpoint: Checkpoint, asked: str, wanted: Config, shown: Config) -> None:
    """Raise CheckpointProblem where the name means another kind of autoencoder than the file's tensors are of."""
    if asked not in NAMED or checkpoint.contents != "mae" or not isinstance(wanted, MAEConfig):
        return
    differ = [words for name, words in _differing(shown, wanted, "mae").items() if name in ("head", "decoder_norm")]
    if differ:
        raise CheckpointProblem(
            f"{checkpoint.path} is not of {asked}'s family: its tensors show {' and '.join(differ)}. Leave out -m, or name "
            "another model (`polymae models`)."
        )


def _require_agreement(
    checkpoint: Checkpoint, asked: str, config: Config, told: Config, contents: Contents, aside: Collection[str] = ()
) -> None:
    """Raise CheckpointProblem where --model contradicts what the file says of itself, but for the settings set aside.

    contents: what of the file is to be used.
    """
    differ = _differing(told, config, contents, aside).values()
    if differ:
        raise CheckpointProblem(
            f"{checkpoint.path} says of itself (in its config.json or provenance) {', '.join(differ)} as in {asked}. Leave out "
            f"{option('-m')} to take it for what it says; if that is wrong, correct it there."
        )


def _differing(one: Config, other: Config, contents: Contents, aside: Collection[str] = ()) -> dict[str, str]:
    """What two configurations of such a file say differently, in words, by setting."""
    found = unlike(one, other, contents, {*COMPUTED, *aside})
    return {name: f"{name}={here}, not {there}" for name, (here, there) in found.items()}


def _unknown(checkpoint: Checkpoint) -> str:
    if odd := oddities(checkpoint.identified):
        looks_like = relative({name: tensor.shape for name, tensor in checkpoint.stored.items()})
        listed = "\n  ".join([*odd, *checkpoint.identified.problems.values(), *([looks_like] if looks_like else [])])
        return f"{checkpoint.path} is of no model here:\n  {listed}"
    shapes = {spec: reading.shape for spec, reading in checkpoint.identified.readings.items()}
    found: dict[str, list[str]] = {}
    for name, preset in PRESETS.items():
        if isinstance(preset, MAEConfig) != (checkpoint.contents in OF_CLASSIFIERS):
            expected = expected_params(adapted(preset, {}), checkpoint.contents)
            known = {p.name: p.shape for p in expected if p.name not in checkpoint.identified.dialect.derived}
            found[name] = differences(known, shapes)
    nearest = min(found, key=lambda name: len(found[name]))
    if len(found[nearest]) <= _FEW:
        listed = "\n  ".join([*found[nearest], *checkpoint.identified.problems.values()])
        return f"{checkpoint.path} is of no named model. It is nearest to {nearest}, but for:\n  {listed}"
    return (
        f"{checkpoint.path} has the shapes of no named model; say which it is with {option('-m')}. If one is close, name it to "
        f"see every difference; if it is your own, put in what does not show in a file: {option('-m')} '{settings(shapes)}'"
    )
