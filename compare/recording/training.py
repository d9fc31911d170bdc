"""The levels optimizer and curve: one update from injected gradients and moments, and a hundred steps of training.

Both run on a small model of the same family, so that they cost the same whatever is compared. NumPy and Pillow only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...backends.config import Config, MAEConfig
from ...backends.initial import initial_weights
from ...backends.optimization import Schedule, Settings, State, trainable
from ...backends.runtime import Runtime
from ...backends.spec import Tap, params
from .inputs import Inputs, digest
from .preprocessing import MEAN, STD, demo_photographs

Named = tuple[str, NDArray[Any]]

STEPS, BATCH, MASK_RATIO, SEED = 100, 8, 0.75, 0
SCHEDULE = Schedule(lr=1e-3, warmup_epochs=2, epochs=10, steps_per_epoch=10)
SETTINGS = Settings(clip=1.0)  # of the curve


@dataclass(frozen=True)
class Case:
    """One injected update: the step of the schedule, the steps taken before it, and the typical gradient."""

    name: str
    step: int
    taken: int
    gradient: float
    clip: float | None


CASES = (
    Case("first", 15, 0, 1e-3, None),
    Case("later", 60, 6, 1e-3, 0.1),  # clipped to a fraction of its norm
    Case("tiny", 30, 1, 1e-8, 1.0),  # as large as Adam's eps, and far below where clipping begins
)


def training_config(config: Config) -> Config:
    """A small model with the settings of the same family, for 32 x 32 crops of photographs."""
    small = replace(
        config, img_size=(32, 32), patch_size=8, in_chans=3, embed_dim=48, depth=2, num_heads=3, mlp_ratio=4.0
    )
    if isinstance(small, MAEConfig):
        return replace(small, decoder_embed_dim=32, decoder_depth=1, decoder_num_heads=4)
    return replace(small, num_classes=10)


def optimizer_taps(config: Config) -> Iterator[Tap]:
    """What optimizer_steps records, in the order in which a fault would show."""
    yield Tap("optimizer/decay", "weight decay", exact=True)
    yield Tap("optimizer/lr", "learning rate")
    names = [param.name for param in trainable(training_config(config))]
    for case in CASES:
        yield Tap(f"optimizer/{case.name}/norm", "gradient norm")
        for kind, operation in (("m", "first moment"), ("v", "second moment"), ("update", "update")):
            yield from (Tap(f"optimizer/{case.name}/{kind}/{name}", operation) for name in names)


def curve_taps(config: Config) -> Iterator[Tap]:
    """What training_curve records."""
    yield Tap("curve/lr", "learning rate")
    yield Tap("curve/loss", "training")


def optimizer_steps(runtime: Runtime, config: Config, device: str, dtype: str) -> Iterator[Named]:
    """Each case's update of the small model's parameters, from injected gradients and moments.

    Yields the decay of every parameter of the spec [params] (-1 where the optimizer does not hold it), the learning
    rate of every step as the optimizer gives it back [STEPS], and for each case the gradients' norm [], the moments
    after the step, and p' - p in float64, of every trained parameter.
    """
    small = training_config(config)
    model = runtime.build(small, initial_weights(small, SEED), device, dtype)
    optimizer = runtime.optimizer(model, SETTINGS)
    held = optimizer.decay
    yield "optimizer/decay", np.array([held.get(param.name, -1.0) for param in params(small)])
    rates = []
    for step in range(STEPS):
        optimizer.lr = SCHEDULE.rate(step)
        rates.append(optimizer.lr)
    yield "optimizer/lr", np.array(rates)
    for case in CASES:
        weights, gradients, state = injected(small, case)
        runtime.load_weights(model, weights)
        before = runtime.weights(model)
        optimizer = runtime.optimizer(model, replace(SETTINGS, clip=case.clip))
        optimizer.load_state(state)
        norm = optimizer.step(optimizer.tensors(gradients), SCHEDULE.rate(case.step))
        yield f"optimizer/{case.name}/norm", np.array(norm)
        after, state = runtime.weights(model), optimizer.state()
        for kind, moments in (("m", state.m), ("v", state.v)):
            yield from ((f"optimizer/{case.name}/{kind}/{name}", array) for name, array in moments.items())
        for name in state.m:
            change = after[name].astype(np.float64) - before[name]  # of two float32 numbers: exact
            yield f"optimizer/{case.name}/update/{name}", change


def injected(config: Config, case: Case) -> tuple[Inputs, Inputs, State]:
    """Weights, gradients and moments of a case for every parameter of a model, float32, by spec name."""
    rng = np.random.Generator(np.random.Philox(key=[SEED, CASES.index(case)]))
    weights: Inputs = {}
    gradients: Inputs = {}
    m: Inputs = {}
    v: Inputs = {}
    for param in params(config):
        # Weights as small as their updates: else the roundoff of the sum p + update hides an error of the update.
        weights[param.name] = _normal(rng, param.shape, 2e-4)
        size = case.gradient * 10 ** rng.uniform(-0.5, 0.5)  # tensors differ, so that each one's own norm would show
        gradients[param.name] = _normal(rng, param.shape, size)
        m[param.name] = _normal(rng, param.shape, size / 2 if case.taken else 0)
        # Bounded below: elements of small v would be all there is in the norm of the update.
        square = np.float32(size**2 if case.taken else 0)
        v[param.name] = square * (rng.random(param.shape, np.float32) + np.float32(0.5))
    return weights, gradients, State(case.taken, m, v)


def _normal(rng: np.random.Generator, shape: tuple[int, ...], std: float) -> NDArray[np.float32]:
    return rng.standard_normal(shape, np.float32) * np.float32(std)


def training_curve(runtime: Runtime, config: Config, device: str, dtype: str) -> Iterator[Named]:
    """Train the small model from its initial weights. Yields learning rates and losses [STEPS], float64."""
    small = training_config(config)
    model = runtime.build(small, initial_weights(small, SEED), device, dtype)
    optimizer = runtime.optimizer(model, SETTINGS)
    rates, losses = [], []
    for step in range(STEPS):
        batch = training_batch(small, step)
        losses.append(runtime.train_step(model, optimizer, batch, MASK_RATIO, SCHEDULE.rate(step)))
        rates.append(optimizer.lr)
    yield "curve/lr", np.array(rates)
    yield "curve/loss", np.array(losses)


def training_batch(config: Config, step: int) -> Inputs:
    """The batch of a step: imgs [BATCH, 3, height, width], crops of photographs, normalised, with noise or labels."""
    rng = np.random.Generator(np.random.Philox(key=[SEED, step]))
    crops = [_crop(rng, config.img_size) for _ in range(BATCH)]
    # Not by preprocessing.normalise: a fault there is found there, and not here again.
    imgs = (np.stack(crops) / np.float32(255) - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    batch: Inputs = {"imgs": np.ascontiguousarray(imgs.transpose(0, 3, 1, 2))}
    if isinstance(config, MAEConfig):
        return batch | {"noise": rng.random((BATCH, config.num_patches), np.float32)}
    return batch | {"labels": rng.integers(config.num_classes, size=BATCH, dtype=np.int64)}


def _crop(rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.float32]:
    photographs = _photographs()
    photograph = photographs[rng.integers(len(photographs))]
    top, left = (int(rng.integers(whole - part + 1)) for whole, part in zip(photograph.shape, size))
    return photograph[top : top + size[0], left : left + size[1]].astype(np.float32)


@lru_cache(maxsize=1)
def _photographs() -> list[NDArray[np.uint8]]:
    from PIL import Image

    found = []
    for path in demo_photographs():
        with Image.open(path) as image:
            found.append(np.asarray(image.convert("RGB")))
    return found


def training_digest(config: Config) -> str:
    """SHA-256 of everything the two levels are fed with: batches, initial weights, injected gradients and moments."""
    small = training_config(config)
    whole = hashlib.sha256()
    fed = [training_batch(small, step) for step in range(STEPS)] + [initial_weights(small, SEED)]
    for case in CASES:
        weights, gradients, state = injected(small, case)
        fed += [weights, gradients, dict(state.m), dict(state.v)]
    for arrays in fed:
        for name, array in arrays.items():
            whole.update(f"{name} {digest(array)} ".encode())
    return whole.hexdigest()
