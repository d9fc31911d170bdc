"""Pre-training as a task of the loop: a masked autoencoder, its images and noise, reconstructions and nearest neighbours."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..backends.averaging import Average
from ..backends.config import MAEConfig
from ..backends.initial import initial_weights
from ..backends.runtime import Runtime
from ..convert.checkpoint import open_checkpoint
from ..convert.training_state import read_training_checkpoint
from ..data.batches import Batches
from ..data.datasets import open_dataset
from .beginning import weights_file
from .knn import knn_top1
from .pictures import reconstruction_grid
from .recipe import Recipe
from .task import Looked, Official, Task, Weights

if TYPE_CHECKING:
    from .checkpoints import Facts
    from .request import Request


def open_batches(data: Path, recipe: Recipe) -> Batches:
    """The batches of a run. Raises Problem for a data set that cannot be read, or fills none."""
    return Batches(
        open_dataset(data, recipe.data.data_format, recipe.data.split), recipe.augmentation, recipe.batch.batch_size,
        recipe.seed, recipe.config.num_patches, skip_broken=recipe.data.skip_broken, mixing=recipe.mixing,
    )  # fmt: skip


def training_options(recipe: Recipe, device: str) -> dict[str, Any]:
    """The options of backends' Training that a recipe asks for."""
    return {"mask_ratio": recipe.mask_ratio, **recipe.computing.options(device)}


class Autoencoding(Task):
    """The pre-training of a masked autoencoder."""

    loss_tag = "train_loss"
    config: MAEConfig

    def __init__(self, request: Request):
        super().__init__(request)
        self.recipe: Recipe = request.recipe
        self.config = self.recipe.config
        self.batches = open_batches(request.data, self.recipe)

    def weights(self) -> Weights:
        """Initial ones, or those of a file of any format that holds the whole autoencoder."""
        if self.request.weights is None:
            return initial_weights(self.config, self.recipe.seed)
        return open_checkpoint(weights_file(self.request.weights)).weights(self.config)

    def official(self, path: Path) -> Official:
        """A training checkpoint in the official layout, which is saved at an epoch's end."""
        found = read_training_checkpoint(path, self.config)
        return Official(found.weights, found.moments, found.epoch, found.scaler)

    def options(self) -> dict[str, Any]:
        """The options of backends' Training."""
        return training_options(self.recipe, self.request.device)

    def look(self, runtime: Runtime, model: Any, epoch: int, last: bool, average: Average | None) -> Looked:
        """Reconstructions and nearest neighbours, after some epochs."""
        watching = self.recipe.watching
        line = {}
        if due(watching.knn_every_epochs, epoch, last) and self.batches.dataset.classes:
            line["knn_top1"] = knn_top1(runtime, model, self.batches, watching.knn_images)
        picture = None
        if due(watching.pictures_every_epochs, epoch, last):
            picture = reconstruction_grid(runtime, model, self.batches, self.recipe.mask_ratio, watching.pictures)
        return Looked(line, line, picture)

    def rank(self, facts: Facts) -> float | None:
        """The lower the mean loss of the epoch, the better."""
        return None if facts.loss is None else -facts.loss


def due(every: int | None, epoch: int, last: bool) -> bool:
    """Whether what is done after each so many epochs is done after this one, counted from 0; after the last it always is."""
    return bool(every and (last or (epoch + 1) % every == 0))
