"""The training that is tried: the recipe's own loop, data and optimizer, with a model and batches that take seconds."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

from ...backends.config import MAEConfig
from ...backends.spec import params
from ...data.dataset import Dataset
from ...training.recipe import Batch, Recipe, Saving, Watching
from . import law

MOST = 300_000  # parameters of a model that is tried as it is
BATCH = 8
LONG = 2000  # steps that a run has at least, so that it is killed before it ends
EVERY = 2  # steps between two checkpoints


def trial_recipe(recipe: Recipe, dataset: Dataset, folder: Path) -> Recipe:
    """The recipe with a small model of the same family and images, batches of 8, its rates and a checkpoint every 2 steps."""
    path = folder / "trial-model.json"
    path.write_text(json.dumps(asdict(_small(recipe.config))))
    size = min(BATCH, recipe.batch.batch_size, len(dataset))
    size -= size % 2 if recipe.cutmix else 0  # which mixes pairs of images
    steps_per_epoch = len(dataset) // size
    return replace(
        recipe,
        model=str(path),
        input_size=None,
        optimizer=replace(recipe.optimizer, lr=law.peak_rate(recipe)),
        schedule=replace(recipe.schedule, epochs=max(recipe.schedule.epochs, -(-LONG // steps_per_epoch)), steps=None),
        batch=Batch(size, min(recipe.batch.parts, size)),
        checkpoints=Saving(save_every_steps=EVERY, save_every_epochs=None, keep_last=LONG),
        watching=Watching(tensorboard=False, pictures_every_epochs=None, knn_every_epochs=None),
    )


def _small(config: MAEConfig) -> MAEConfig:
    """A model of the same family for the same images and patches."""
    if sum(param.size for param in params(config)) <= MOST:
        return config
    return replace(
        config, embed_dim=48, depth=2, num_heads=3, mlp_ratio=4.0, decoder_embed_dim=32, decoder_depth=1, decoder_num_heads=4
    )  # fmt: skip


def stopped_at(recipe: Recipe, steps: int) -> Recipe:
    """A trial that ends after so many steps, on the same schedule."""
    return replace(recipe, schedule=replace(recipe.schedule, steps=steps))
