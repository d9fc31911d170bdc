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
from ..backends.presets import NAMED, model_config
from ..backends.spec import params
from ..convert.checkpoint import Checkpoint, open_checkpoint
from ..convert.conversion import selected
from ..convert.dialects import DIALECTS
from ..convert.resolve import classifier_on, model_of, own_size
from ..convert.tensors import CheckpointProblem
from ..convert.transform import WeightSet, encoder_config, notices

# What a classifier may begin without, as official fine-tuning does from a pre-trained encoder.
_OF_HEAD = ("head.", "head_norm.", "fc_norm.")


@dataclass(frozen=True)
class Fitted:
    """A model's configuration and all its weights, float32 by spec name.

    initialised: the parameters that the checkpoint has not, which are initial ones. dropped: its tensors that the model has
    not. done: what else was changed, and what the weights were trained for that no model here computes, in words.
    """

    config: Config
    weights: Mapping[str, NDArray[np.float32]]
    initialised: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    done: tuple[str, ...] = ()


def fit(
    path: str | Path,
    model: str,
    image_size: tuple[int, int] | None = None,
    seed: int = 0,
    *,
    prefix: str | None = None,
    dialect: str | None = None,
    **settings: Any,
) -> Fitted:
    """The weights of a checkpoint, of any format and dialect, for a model.

    model: a preset, a JSON file or "img_size=32,...". image_size: (height, width) in pixels, to which the position tables are
    interpolated as official fine-tuning does; None: the file's own. seed: of what is newly initialised. prefix, dialect: as
    open_checkpoint takes them. settings: of the configuration, in its names; num_classes other than the file's drops the
    file's head. A classifier on an autoencoder's file takes its encoder: exactly head.* is missing then, and with pooling gap
    also fc_norm.*, and norm.* is left over. Raises CheckpointProblem, with every problem at once, for any other difference,
    and ConfigError for unusable settings.
    """
    checkpoint = open_checkpoint(path, dialect, prefix)
    asked = model_config(model, **settings)
    if image_size is None and (model not in NAMED or "img_size" in settings):
        image_size = asked.img_size
    own = {"img_size": own_size(checkpoint, asked, image_size)}
    if isinstance(asked, ViTConfig) and checkpoint.contents in ("mae", "encoder"):
        config: Config = (classifier := classifier_on(checkpoint, model, {**settings, **own}))
        chosen = selected(checkpoint, encoder_config(classifier), encoder_only=True)
        if checkpoint.contents == "mae":
            chosen = replace(chosen, done=("without the decoder",))
    else:
        _, config = model_of(checkpoint, model, {n: v for n, v in settings.items() if n != "num_classes"} | own)
        chosen = selected(checkpoint, config)
        config = _with_head(checkpoint, config, settings)
    changed = chosen
    if "num_classes" in settings:
        changed = changed.with_classes(settings["num_classes"])
    if image_size is not None:
        changed = changed.with_image_size(image_size)
        config = replace(config, img_size=image_size)
    elif config.img_size != asked.img_size:
        changed = replace(
            changed, done=(*changed.done, "for images of {}x{} pixels, as the file".format(*config.img_size))
        )
    return _filled(checkpoint, config, changed, changed.tensors != chosen.tensors, seed)


def _with_head(checkpoint: Checkpoint, config: Config, settings: Mapping[str, Any]) -> Config:
    """With the classes that are asked for. Raises CheckpointProblem where the file has another kind of head or pooling."""
    if not isinstance(config, ViTConfig):
        return config
    told = checkpoint.config
    if checkpoint.contents == "headless" and isinstance(told, ViTConfig) and checkpoint.told:
        config = replace(config, num_classes=told.num_classes)
    classes = settings.get("num_classes", config.num_classes)
    if classes != config.num_classes:  # a new head, of the usual kind unless another one is asked for
        config = replace(config, num_classes=classes, head_norm=settings.get("head_norm", False))
    for name in ("pooling", "head_norm"):
        asked, own = settings.get(name), getattr(config, name)
        if asked not in (None, own):
            raise CheckpointProblem(
                f"{checkpoint.path} is a classifier with {name}={own}, not {asked}: it has nothing trained for that. Leave out "
                f"{name}, or begin from a pre-trained encoder."
            )
    return config


def _filled(checkpoint: Checkpoint, config: Config, weights: WeightSet, changed: bool, seed: int) -> Fitted:
    """With initial values for the head that a checkpoint has not, and without what the model has not."""
    names = [param.name for param in params(config)]
    missing = tuple(name for name in names if name not in weights.tensors)
    left_over = tuple(name for name in weights.tensors if name not in names)
    if not all(name.startswith(_OF_HEAD) for name in missing) or not all(n.startswith("norm.") for n in left_over):
        raise AssertionError(f"selected wrongly: missing {missing}, left over {left_over}")
    found = checkpoint.loaded(weights.config, weights.tensors, changed)
    initial = initial_weights(config, seed) if missing else {}
    filled = {name: found[name] if name in found else initial[name] for name in names}
    return Fitted(config, filled, missing, left_over, (*weights.done, *notices(DIALECTS["polymae"], weights)))
