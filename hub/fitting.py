"""Weights from a checkpoint for the model that is asked for: another image size, other classes, a classifier on an encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backends.config import Config, ViTConfig
from ..backends.initial import initial_weights
from ..backends.presets import model_config
from ..backends.spec import params
from ..convert.changes import Weights, encoder_config
from ..convert.checkpoint import Checkpoint, open_checkpoint
from ..convert.choice import classifier_on, model_of
from ..convert.tensors import CheckpointProblem

# What a classifier may begin without, as official fine-tuning does from a pre-trained encoder.
_OF_HEAD = ("head.", "head_norm.", "fc_norm.")


@dataclass(frozen=True)
class Fitted:
    """A model's configuration and all its weights, float32 by spec name.

    initialised: the parameters that the checkpoint has not, which are initial ones. dropped: its tensors that the model has
    not. done: what else was changed, in words.
    """

    config: Config
    weights: Mapping[str, NDArray[np.float32]]
    initialised: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    done: tuple[str, ...] = ()


def fit(path: str | Path, model: str, image_size: tuple[int, int] | None = None, **settings: Any) -> Fitted:
    """The weights of a checkpoint, of any format and dialect, for a model.

    model: a preset, a JSON file or "img_size=32,...". image_size: (height, width) in pixels, to which the position tables are
    interpolated as official fine-tuning does. settings: of the configuration, in its names; num_classes other than the
    file's drops the file's head. A classifier on an autoencoder's file takes its encoder: exactly head.* is missing then,
    and with pooling gap also fc_norm.*, and norm.* is left over.
    Raises CheckpointProblem, with every problem at once, for any other difference, and ConfigError for unusable settings.
    """
    checkpoint = open_checkpoint(path)
    asked = model_config(model, **settings)
    if isinstance(asked, ViTConfig) and checkpoint.contents in ("mae", "encoder"):
        config: Config = (classifier := classifier_on(checkpoint, model, settings))
        encoder = encoder_config(classifier)
        chosen = Weights(encoder, "encoder", checkpoint.select(encoder, encoder_only=True))
    else:
        _, config = model_of(checkpoint, model, {n: v for n, v in settings.items() if n != "num_classes"})
        _require_pooling(checkpoint, config, settings)
        chosen = Weights(config, checkpoint.contents, checkpoint.select(config))
    changed = _changed(chosen, settings.get("num_classes"), image_size)
    if image_size is not None:
        config = replace(config, img_size=image_size)
    if isinstance(config, ViTConfig) and "num_classes" in settings:
        head_norm = config.head_norm and config.num_classes == settings["num_classes"]
        config = replace(config, num_classes=settings["num_classes"], head_norm=head_norm)
    return _filled(checkpoint, config, changed, changed.tensors != chosen.tensors)


def _changed(weights: Weights, num_classes: int | None, image_size: tuple[int, int] | None) -> Weights:
    if num_classes is not None:
        weights = weights.with_classes(num_classes)
    return weights if image_size is None else weights.with_image_size(image_size)


def _filled(checkpoint: Checkpoint, config: Config, weights: Weights, changed: bool) -> Fitted:
    """With initial values for the head that a checkpoint has not, and without what the model has not."""
    names = [param.name for param in params(config)]
    missing = tuple(name for name in names if name not in weights.tensors)
    left_over = tuple(name for name in weights.tensors if name not in names)
    if not all(name.startswith(_OF_HEAD) for name in missing) or not all(n.startswith("norm.") for n in left_over):
        raise AssertionError(f"selected wrongly: missing {missing}, left over {left_over}")
    found = checkpoint.loaded(weights.config, weights.tensors, changed)
    initial = initial_weights(config) if missing else {}
    filled = {name: found[name] if name in found else initial[name] for name in names}
    return Fitted(config, filled, missing, left_over, weights.done)


def _require_pooling(checkpoint: Checkpoint, config: Config, settings: Mapping[str, Any]) -> None:
    """Raise CheckpointProblem where a classifier's file has the norm of another pooling than what was asked for."""
    asked = settings.get("pooling")
    if isinstance(config, ViTConfig) and asked not in (None, config.pooling):
        raise CheckpointProblem(
            f"{checkpoint.path} is a classifier with pooling={config.pooling}, not {asked}: it has no trained norm for that. "
            "Leave out pooling, or begin from a pre-trained encoder."
        )
