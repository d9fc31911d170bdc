"""Which model a comparison or a run is of, and its weights: from a checkpoint that is opened once, or from a seed."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...backends.config import Config, MAEConfig
from ...backends.initial import initial_weights
from ...backends.presets import model_config
from ...convert.checkpoint import Checkpoint, Loaded, content_hash, open_checkpoint
from ...files.errors import Problem
from ..options import Options


@dataclass(frozen=True)
class ModelSource:
    """A model's configuration, and where its weights are."""

    config: Config
    checkpoint: Checkpoint | None  # None: initial weights from the seed
    seed: int

    def load(self) -> Loaded:
        """The weights, float32 by spec name, and their content hash. Raises CheckpointProblem for a file that does not fit."""
        if self.checkpoint is not None:
            return self.checkpoint.load(self.config)
        initial = initial_weights(self.config, self.seed)
        return Loaded(initial, content_hash(initial))


def model_source(options: Options) -> ModelSource:
    """The model that `--model` names, or else the preset whose shapes are those of the file. Raises Problem for none."""
    checkpoint = None
    if options.weights is not None:
        checkpoint = open_checkpoint(options.weights)
        config = checkpoint.resolve(options.model).config
    elif options.model is not None:
        config = model_config(options.model)
    else:
        raise Problem("Neither weights nor a model were given; name the model with --model (`polymae models`).")
    if options.norm_pix_loss:
        if not isinstance(config, MAEConfig):
            raise Problem("--norm-pix-loss is for masked autoencoders, and this is a classifier; leave it out.")
        config = replace(config, norm_pix_loss=True)
    return ModelSource(config, checkpoint, options.seed)
