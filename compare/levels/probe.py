"""What the level optimizer records of classifiers alone: LARS, the batch norm in training and the average of weights.

The small model's head is trained on a frozen encoder, as in the official linear probe.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ...backends.averaging import Averaging, changed
from ...backends.config import ViTConfig
from ...backends.initial import initial_weights
from ...backends.optimization import PROBING, State, trainable
from ...backends.runtime import Runtime
from ...backends.spec import Tap, params
from ...training.steps import take
from ..trace import Inputs
from . import small
from .small import training_config
from .subject import Named

# Not upstream's 0: a trust ratio without weight decay would not show.
SETTINGS = replace(PROBING, weight_decay=0.1)
LARS_RATE = 500.0  # updates half as large as the weights, whose roundoff hides nothing then
STEPS, RATE = 2, 10.0  # of the training
AVERAGING = Averaging(0.75)
WARMUP, UPDATES = Averaging(0.999, warmup=True), 20


def taps(config: ViTConfig) -> Iterator[Tap]:
    """What probe_steps records, in the order in which a fault would show."""
    config = probe_config(config)
    yield Tap("optimizer/probe/decay", "weight decay", exact=True)
    for step in ("first", "second"):
        for kind, operation in (("m", "first moment"), ("update", "update")):
            yield from (Tap(f"optimizer/lars/{step}/{kind}/{param.name}", operation) for param in trainable(config))
    yield Tap("optimizer/probe/loss", "cross entropy")
    yield from (Tap(f"optimizer/probe/{param.name}", "update") for param in changed(config))
    yield Tap("optimizer/ema/decay", "average")
    yield from (Tap(f"optimizer/ema/{param.name}", "average") for param in changed(config))


def probe_steps(runtime: Runtime, config: ViTConfig, device: str, dtype: str) -> Iterator[Named]:
    """Updates of the small model's head from injected gradients, then training steps of it on images.

    Yields the decay of every parameter of the spec [params] (-1 where the optimizer does not hold it), LARS's momentum and
    p' - p after each of two updates, losses [STEPS], running statistics and head behind the steps, the average's decay at
    each update [UPDATES], and the average.
    """
    config = probe_config(config)
    model = runtime.build(config, probe_weights(config), device, dtype)
    optimizer = runtime.optimizer(model, SETTINGS)
    yield "optimizer/probe/decay", np.array([optimizer.decay.get(param.name, -1.0) for param in params(config)])
    names = [param.name for param in trainable(config)]
    optimizer.load_state(State(0, {param.name: np.zeros(param.shape) for param in trainable(config)}, {}))
    for number, step in enumerate(("first", "second")):
        before = runtime.weights(model)
        gradients = {p.name: _normal(number, p.shape, 1e-3) for p in trainable(config)}
        optimizer.step(optimizer.tensors(gradients), LARS_RATE)
        after, state = runtime.weights(model), optimizer.state()
        yield from ((f"optimizer/lars/{step}/m/{name}", state.m[name]) for name in names)
        for name in names:
            yield f"optimizer/lars/{step}/update/{name}", after[name].astype(np.float64) - before[name]
    runtime.load_weights(model, probe_weights(config))
    average = runtime.average(model, AVERAGING)
    training = runtime.training(
        model, runtime.optimizer(model, SETTINGS), device=device, compiled=False, average=average
    )
    yield "optimizer/probe/loss", np.array([take(training, probe_batch(config, i), RATE).loss for i in range(STEPS)])
    after = runtime.weights(model)
    yield from ((f"optimizer/probe/{param.name}", after[param.name]) for param in changed(config))
    yield "optimizer/ema/decay", np.array([WARMUP.at(update) for update in range(1, UPDATES + 1)])
    yield from ((f"optimizer/ema/{name}", array) for name, array in average.state().weights.items())


def probe_config(config: ViTConfig) -> ViTConfig:
    """The small model of a classifier's family as a linear probe."""
    small_one = training_config(config)
    assert isinstance(small_one, ViTConfig)
    return replace(small_one, head_norm=True, train_encoder=False)


def fed(config: ViTConfig) -> list[Inputs]:
    """Everything that probe_steps feeds a framework with."""
    config = probe_config(config)
    head = [param for param in params(config) if param.module == "head"]
    gradients = [{p.name: _normal(number, p.shape, 1e-3) for p in head} for number in range(2)]
    return [probe_weights(config), *gradients, *(probe_batch(config, step) for step in range(STEPS))]


def probe_weights(config: ViTConfig) -> Inputs:
    """Initial weights by spec name, with a head that is not near 0."""
    shapes = {"head.weight": (config.num_classes, config.embed_dim), "head.bias": (config.num_classes,)}
    head = {name: _normal(10 + i, shape, 0.1) for i, (name, shape) in enumerate(shapes.items())}
    return {**initial_weights(config, small.SEED), **head}


def probe_batch(config: ViTConfig, step: int) -> Inputs:
    """A step's imgs [N, C, height, width] and labels [N]: random, and of different contrast, so that features differ."""
    imgs = _normal(20 + step, (small.BATCH, config.in_chans, *config.img_size), 1)
    imgs *= np.linspace(0.25, 2, small.BATCH, dtype=np.float32)[:, None, None, None]
    return {"imgs": imgs, "labels": np.arange(small.BATCH, dtype=np.int64) % config.num_classes}


def _normal(key: int, shape: tuple[int, ...], std: float) -> NDArray[np.float32]:
    rng = np.random.Generator(np.random.Philox(key=[small.SEED, 1000 + key]))
    return rng.standard_normal(shape, np.float32) * np.float32(std)
