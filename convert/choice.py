"""Which model a checkpoint is: the one that was asked for, or the one that its shapes show."""

from __future__ import annotations

from ..backends.config import Config
from ..backends.presets import ALIASES, PRESETS, model_config
from .checkpoint import Checkpoint
from .shapes import adapted, settings
from .tensors import CheckpointProblem


def model_of(checkpoint: Checkpoint, asked: str | None = None) -> tuple[str, Config]:
    """A model's name and configuration, for a checkpoint; `asked` is what --model takes.

    A preset's name says the size, and the file says how many classes and which pooling a classifier has.
    Raises CheckpointProblem where nothing was asked for and no named model has the file's shapes.
    """
    shapes = {name: tensor.shape for name, tensor in checkpoint.tensors.items()}
    if asked is not None:
        config = model_config(asked)
        return asked, adapted(config, shapes) if asked in PRESETS or asked in ALIASES else config
    if checkpoint.model is None or checkpoint.config is None:
        raise CheckpointProblem(
            f"{checkpoint.path} has the shapes of no named model; say which it is with -m. If one is close, name it to see "
            f"every difference; if it is your own, fill in the head counts: -m '{settings(shapes)}'"
        )
    return checkpoint.model, checkpoint.config
