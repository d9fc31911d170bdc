"""The level curve: a hundred steps of training on crops of photographs, judged within the envelope of the oracle's twins."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...backends.config import Config, MAEConfig, ViTConfig
from ...backends.initial import initial_weights
from ...backends.runtime import Runtime
from ...backends.spec import Tap
from ...data.images import MEAN, STD, demo_photographs
from ...training.steps import take
from ..trace import Inputs, digest
from . import probe, small
from .choices import in_training
from .optimizer import CASES, injected
from .small import training_config
from .subject import Named, Subject


def taps(config: Config) -> Iterator[Tap]:
    """Learning rates and losses [steps], float64."""
    yield Tap("curve/lr", "learning rate")
    yield Tap("curve/loss", "training")


def record(subject: Subject) -> Iterator[Named]:
    """What `taps` lists, of one framework."""
    return training_curve(subject.runtime, subject.config, subject.run.device, subject.run.dtype, given=subject.inputs)


def training_curve(
    runtime: Runtime,
    config: Config,
    device: str,
    dtype: str,
    steps: int | None = None,
    given: Collection[str] = (),
    **options: Any,
) -> Iterator[Named]:
    """Train the small model from its initial weights. Yields learning rates and losses [steps], float64.

    steps: None: small.STEPS of them. given: as `training_batch` has it. options: more of Training's.
    """
    config = training_config(config)
    model = runtime.build(config, initial_weights(config, small.SEED), device, dtype)
    training = runtime.training(
        model, runtime.optimizer(model, small.SETTINGS), mask_ratio=small.MASK_RATIO, device=device, **options
    )
    rates, losses = [], []
    for step in range(small.STEPS if steps is None else steps):
        batch = training_batch(config, step, given)
        losses.append(take(training, batch, small.rate(step)).loss)
        rates.append(training.optimizer.lr)
    yield "curve/lr", np.array(rates)
    yield "curve/loss", np.array(losses)


def training_batch(config: Config, step: int, given: Collection[str] = ()) -> Inputs:
    """The batch of a step: imgs [N, 3, height, width], crops of photographs, normalised, with noise or labels.

    given: with targets among them a classifier's are soft, and with drop_path it has the factors of that.
    """
    rng = np.random.Generator(np.random.Philox(key=[small.SEED, step]))
    crops = [_crop(rng, config.img_size) for _ in range(small.BATCH)]
    # Not by data/images.py: a fault there is found there, and not here again.
    imgs = (np.stack(crops) / np.float32(255) - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    batch: Inputs = {"imgs": np.ascontiguousarray(imgs.transpose(0, 3, 1, 2))}
    if isinstance(config, MAEConfig):
        return batch | {"noise": rng.random((small.BATCH, config.num_patches), np.float32)}
    labels = rng.integers(config.num_classes, size=small.BATCH, dtype=np.int64)
    rate = small.DROP_PATH if "drop_path" in given else 0.0
    return batch | in_training(rng, labels, config, rate, "targets" in given)


def _crop(rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.float32]:
    photographs = _photographs()
    photograph = photographs[rng.integers(len(photographs))]
    top, left = (int(rng.integers(whole - part + 1)) for whole, part in zip(photograph.shape, size))
    return photograph[top : top + size[0], left : left + size[1]].astype(np.float32)


@lru_cache(maxsize=1)
def _photographs() -> list[NDArray[np.uint8]]:
    from PIL import Image

    images = []
    for path in demo_photographs():
        with Image.open(path) as image:
            images.append(np.asarray(image.convert("RGB")))
    return images


def training_digest(config: Config, given: Collection[str] = ()) -> str:
    """SHA-256 of everything the two levels are fed with: batches, initial weights, injected gradients and moments.

    given: as `training_batch` has it.
    """
    config = training_config(config)
    whole = hashlib.sha256()
    fed = [training_batch(config, step, given) for step in range(small.STEPS)] + [initial_weights(config, small.SEED)]
    for case in CASES:
        weights, gradients, state = injected(config, case)
        fed += [weights, gradients, dict(state.m), dict(state.v)]
    if isinstance(config, ViTConfig):
        fed += probe.fed(config)
    for arrays in fed:
        for name, array in arrays.items():
            whole.update(f"{name} {digest(array)} ".encode())
    return whole.hexdigest()
