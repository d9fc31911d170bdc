"""Weights from a checkpoint for a requested model: another image size, other classes, a classifier on an encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backends.config import Config
from ..backends.initial import initial_weights
from ..backends.presets import NAMED, model_config
from ..backends.spec import params
from ..convert.conversion import Prepared, Wish, prepare
from ..convert.dialects import DIALECTS
from ..convert.transform import notices

# The parameters that a classifier may begin without, as official fine-tuning does from a pre-trained encoder.
_OF_HEAD = ("head.", "head_norm.", "fc_norm.")


@dataclass(frozen=True)
class Fitted:
    """A model's configuration and all its weights."""

    config: Config
    weights: Mapping[str, NDArray[np.float32]]  # by spec name
    initialised: tuple[str, ...] = ()  # the parameters that the checkpoint does not hold: they have initial values
    dropped: tuple[str, ...] = ()  # the checkpoint's tensors that the model does not have
    # A phrase for each other change, and for each setting that the weights were trained with and no model here computes.
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
    interpolated as official fine-tuning does; None: the file's own. seed: of newly initialised parameters. prefix, dialect: as
    open_checkpoint takes them. settings: of the configuration, in its names; num_classes other than the file's drops the
    file's head. A classifier on an autoencoder's file takes its encoder: exactly head.* is missing then, and with pooling gap
    also fc_norm.*, and norm.* is left over. Raises CheckpointProblem, with every problem at once, for any other difference,
    and ConfigError for unusable settings.
    """
    requested = model_config(model, **settings)
    if image_size is None and (model not in NAMED or "img_size" in settings):
        image_size = requested.img_size
    classes = settings.pop("num_classes", None)
    wish = Wish(model, dialect, False, None, image_size, classes, prefix, settings, adapt=True)
    prepared = prepare(path, wish)
    done: tuple[str, ...] = ()
    if image_size is None and prepared.config.img_size != requested.img_size:
        done = ("for images of {}x{} pixels, as the file".format(*prepared.config.img_size),)
    return _filled(prepared, seed, done)


def _filled(prepared: Prepared, seed: int, done: tuple[str, ...]) -> Fitted:
    """With initial values for the head that a checkpoint lacks, and without tensors that the model lacks."""
    config, weights = prepared.config, prepared.weights
    names = [param.name for param in params(config)]
    missing = tuple(name for name in names if name not in weights.tensors)
    left_over = tuple(name for name in weights.tensors if name not in names)
    if not all(name.startswith(_OF_HEAD) for name in missing) or not all(n.startswith("norm.") for n in left_over):
        raise AssertionError(f"selected wrongly: missing {missing}, left over {left_over}")
    loaded = prepared.load().weights
    initial = initial_weights(config, seed) if missing else {}
    filled = {name: loaded[name] if name in loaded else initial[name] for name in names}
    return Fitted(config, filled, missing, left_over, (*weights.done, *done, *notices(DIALECTS["polymae"], weights)))
