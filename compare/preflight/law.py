"""The laws that a run must obey, in plain NumPy from the recipe's numbers: nothing here calls the code that is checked.

Sources: He et al. 2021, tables 8 and appendix A; facebookresearch/mae main_pretrain.py, util/lr_sched.py; Loshchilov and
Hutter 2019, algorithm 2; Salmon et al. 2011 for Philox, whose raw numbers NumPy promises to keep.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ...training.recipe import Recipe

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and deviation of each channel, of values in [0, 1]
_ORDER, _MASK, _MIX = 0, 3, 6  # the purposes' numbers in the key, which never change
Floats = NDArray[np.float64]


def uniform(seed: int, purpose: int, epoch: int, index: int, count: int) -> Floats:
    """Doubles in [0, 1) at one place of Philox: the upper 53 bits of each raw number. float64 [count]."""
    key = np.array([seed, purpose], np.uint64)
    raw = np.random.Philox(key=key, counter=np.array([0, 0, index, epoch], np.uint64)).random_raw(count)
    doubles: Floats = (raw >> np.uint64(11)) * 2.0**-53
    return doubles


def order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """Which image has which place of an epoch: int64 [count]."""
    return np.argsort(uniform(seed, _ORDER, epoch, 0, count), kind="stable").astype(np.int64)


def noise(seed: int, epoch: int, place: int, patches: int) -> NDArray[np.float32]:
    """The masking noise of the image at a place of an epoch: the ranks of drawn numbers over L, float32 [L]."""
    ranks = np.argsort(np.argsort(uniform(seed, _MASK, epoch, place, patches), kind="stable"), kind="stable")
    return ranks.astype(np.float32) / np.float32(patches)


def cut(recipe: Recipe, epoch: int, position: int, height: int, width: int) -> tuple[slice, slice]:
    """The rows and columns of a step's images that are those of the image as far from the batch's other end (CutMix).

    The share of the area that stays is drawn from Beta(cutmix, cutmix), rounded to 32 bits after the point.
    """
    from scipy.special import betaincinv

    _, _, drawn, *middle = uniform(recipe.seed, _MIX, epoch, position, 5)
    side = math.sqrt(1 - round(float(betaincinv(recipe.cutmix, recipe.cutmix, drawn)) * 2**32) / 2**32)
    rows, columns = (
        slice(
            max(0, int(at * whole) - int(whole * side) // 2), min(whole, int(at * whole) + (int(whole * side) + 1) // 2)
        )
        for at, whole in zip(middle, (height, width))
    )
    return rows, columns


def mean_and_deviation(recipe: Recipe, channels: int) -> tuple[Floats, Floats]:
    """Of each channel: the recipe's, else ImageNet's; for other numbers of channels the mean over ImageNet's."""
    statistics = []
    for values, imagenet in zip((recipe.images.mean, recipe.images.std), IMAGENET):
        usual = imagenet if channels == 3 else (math.fsum(imagenet) / 3,) * channels
        statistics.append(np.array(usual if values is None else values, np.float64))
    return statistics[0], statistics[1]


def standardised(pixels: NDArray[np.uint8], recipe: Recipe) -> Floats:
    """pixels [..., height, width, C] as (p / 255 - mean) / deviation: float64 [..., C, height, width]."""
    mean, deviation = mean_and_deviation(recipe, pixels.shape[-1])
    return np.moveaxis((pixels.astype(np.float64) / 255.0 - mean) / deviation, -1, -3)


def peak_rate(recipe: Recipe) -> float:
    """The highest learning rate."""
    settings = recipe.optimizer
    return settings.blr * recipe.batch.batch_size / 256 if settings.lr is None else settings.lr


def rate(recipe: Recipe, per_epoch: int, step: int) -> float:
    """The learning rate of a step, counted from 0: a line from 0 to the peak, then half a cosine to min_lr."""
    schedule, peak = recipe.schedule, peak_rate(recipe)
    warm, all_steps = schedule.warmup_epochs * per_epoch, schedule.epochs * per_epoch
    if step < warm:
        return peak * (step / warm)
    first = 0.0 if schedule.shape == "cosine_from_start" else warm
    angle = math.pi * (step - first) / (all_steps - warm)
    return schedule.min_lr + (peak - schedule.min_lr) * (1 + math.cos(angle)) / 2


def decays(name: str, axes: int, recipe: Recipe) -> bool:
    """Whether a trained parameter is decayed: vectors and biases are not, so that tokens, of three axes, are; or all are.

    Groups of layers, by which mindformers' mistake tells parameters apart, are fine-tuning's.
    """
    return recipe.optimizer.decayed == "all" or (axes != 1 and not name.endswith(".bias"))


def clipped(norm: float, recipe: Recipe) -> float:
    """The factor that gradients of a global norm are scaled by before the update."""
    most = recipe.optimizer.clip_grad
    return 1.0 if most is None or norm <= most else most / (norm + 1e-6)


def first_update(gradient: Floats, weight: Floats, decay: float, lr: float, recipe: Recipe) -> tuple[Floats, ...]:
    """Both moments after AdamW's first step, and the step itself, by which the weight changes; all float64."""
    (beta1, beta2), eps = recipe.optimizer.betas, recipe.optimizer.eps
    m, v = (1 - beta1) * gradient, (1 - beta2) * gradient**2
    direction = (m / (1 - beta1)) / (np.sqrt(v / (1 - beta2)) + eps)
    return m, v, -lr * (direction + decay * weight)
