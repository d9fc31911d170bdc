"""The level optimizer: single AdamW steps from injected gradients and moments, and the decay and rate of every parameter.

Of classifiers by the settings of fine-tuning, and with what the linear probe has (probe.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ...backends.config import Config, ViTConfig
from ...backends.initial import initial_weights
from ...backends.optimization import State, trainable
from ...backends.runtime import Runtime
from ...backends.spec import Tap, params
from ..trace import Inputs
from . import probe, small
from .small import settings_of, training_config
from .subject import Named, Subject


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


def taps(config: Config) -> Iterator[Tap]:
    """What optimizer_steps records, in the order in which a fault would show."""
    yield Tap("optimizer/decay", "weight decay", exact=True)
    yield Tap("optimizer/lr", "learning rate")
    if isinstance(config, ViTConfig):
        yield Tap("optimizer/rates", "learning rate")
    names = [param.name for param in trainable(training_config(config))]
    for case in CASES:
        yield Tap(f"optimizer/{case.name}/norm", "gradient norm")
        for kind, operation in (("m", "first moment"), ("v", "second moment"), ("update", "update")):
            yield from (Tap(f"optimizer/{case.name}/{kind}/{name}", operation) for name in names)
    if isinstance(config, ViTConfig):
        yield from probe.taps(config)


def record(subject: Subject) -> Iterator[Named]:
    """What `taps` lists, of one framework."""
    run, config = subject.run, subject.config
    yield from optimizer_steps(subject.runtime, config, run.device, run.dtype)
    if isinstance(config, ViTConfig):
        yield from probe.probe_steps(subject.runtime, config, run.device, run.dtype)


def optimizer_steps(runtime: Runtime, config: Config, device: str, dtype: str) -> Iterator[Named]:
    """Each case's update of the small model's parameters, from injected gradients and moments.

    Yields the decay of every parameter of the spec [params] (-1 where the optimizer does not hold it), the learning
    rate of every step as the optimizer gives it back [STEPS], of classifiers that of every parameter at the highest
    [params], and for each case the gradients' norm [], the moments after the step, and p' - p in float64, of every trained
    parameter.
    """
    config, settings = training_config(config), settings_of(config)
    model = runtime.build(config, initial_weights(config, small.SEED), device, dtype)
    optimizer = runtime.optimizer(model, settings)
    decay = optimizer.decay
    yield "optimizer/decay", np.array([decay.get(param.name, -1.0) for param in params(config)])
    rates = []
    for step in range(small.STEPS):
        optimizer.lr = small.rate(step)
        rates.append(optimizer.lr)
    yield "optimizer/lr", np.array(rates)
    if isinstance(config, ViTConfig):
        optimizer.lr = small.SCHEDULE.lr
        yield "optimizer/rates", np.array([optimizer.rates.get(param.name, -1.0) for param in params(config)])
    for case in CASES:
        weights, gradients, state = injected(config, case)
        runtime.load_weights(model, weights)
        before = runtime.weights(model)
        optimizer = runtime.optimizer(model, replace(settings, clip=case.clip))
        optimizer.load_state(state)
        norm = optimizer.step(optimizer.tensors(gradients), small.rate(case.step))
        yield f"optimizer/{case.name}/norm", np.array(norm)
        after, state = runtime.weights(model), optimizer.state()
        for kind, moments in (("m", state.m), ("v", state.v)):
            yield from ((f"optimizer/{case.name}/{kind}/{name}", array) for name, array in moments.items())
        for name in state.m:
            change = after[name].astype(np.float64) - before[name]  # of two float32 numbers: exact
            yield f"optimizer/{case.name}/update/{name}", change


def injected(config: Config, case: Case) -> tuple[Inputs, Inputs, State]:
    """Weights, gradients and moments of a case for every parameter of a model, float32, by spec name."""
    rng = np.random.Generator(np.random.Philox(key=[small.SEED, CASES.index(case)]))
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
