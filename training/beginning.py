"""The weights that a run begins with: of a file, or of another run; a classifier on the encoder of an autoencoder's file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..backends.config import ViTConfig
from ..backends.initial import initial_weights
from ..backends.spec import params
from ..convert.checkpoint import open_checkpoint
from ..convert.conversion import Wish, prepare
from ..files.errors import Problem
from . import checkpoints
from .task import Weights

OF_HEAD = ("head.", "head_norm.", "fc_norm.")  # parameters that a classifier may begin without


def weights_file(path: Path) -> Path:
    """The file of weights that a path means: of a run's folder, or of a checkpoint's in it, the file in it; else the path.

    Raises TrainingState for a run that has no checkpoint yet.
    """
    folder = checkpoints.meant_by(path)
    return path if folder is None else folder / checkpoints.WEIGHTS


def classifier_weights(
    path: Path,
    model: str,
    config: ViTConfig,
    settings: dict[str, Any],
    seed: int,
    head_std: float | None = None,
    norm_from_encoder: bool = False,
) -> tuple[ViTConfig, Weights]:
    """The weights of a classifier from a file of any format: an autoencoder's, whose encoder is taken, or a classifier's.

    model: as the recipe has it, with these settings; config: what it comes to. Position tables are resized for its images; a
    head that the file lacks, or has for other classes, is a fresh one from the seed, of this standard deviation (None: the
    official one). norm_from_encoder: a norm behind the pooled patches that it lacks is the encoder's, and no fresh one. Returns
    the configuration as the file's program computes (norms' eps), and the weights by spec name. Raises CheckpointProblem with
    everything that does not fit.
    """
    file = weights_file(path)
    head = open_checkpoint(file).identified.spec_shapes.get("head.weight", ())
    if len(head) == 2:  # the file's, of which the requested number may differ
        settings = {**settings, "num_classes": head[0]}
    wish = Wish(model, image_size=config.img_size, num_classes=config.num_classes, settings=settings, adapt=True)
    prepared = prepare(file, wish)
    of_file = prepared.config
    if not isinstance(of_file, ViTConfig):
        raise Problem(f"{path} gives no classifier; leave out what is not of {model}, or begin without --weights.")
    loaded = prepared.load().weights
    names = [param.name for param in params(of_file)]
    missing = [name for name in names if name not in loaded]
    if wrong := [name for name in missing if not name.startswith(OF_HEAD)]:
        raise Problem(f"{path} lacks {', '.join(wrong[:3])} of {model}; give the model that it was trained as.")
    fresh = initial_weights(of_file, seed, head_std) if missing else {}
    if norm_from_encoder and "fc_norm.weight" in missing:
        there = prepared.checkpoint.tensors
        if "norm.weight" not in there:
            raise Problem(f"{path} has no norm of the encoder to begin with; set norm_from_encoder=false.")
        fresh |= {f"fc_{name}": there[name].load().astype(np.float32) for name in ("norm.weight", "norm.bias")}
    return of_file, {name: loaded[name] if name in loaded else fresh[name] for name in names}
