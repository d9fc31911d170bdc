"""What every backend's optimizer.py shares: the settings of AdamW, its decay groups, and the learning-rate schedule.

Source: facebookresearch/mae main_pretrain.py and util/lr_sched.py; timm 0.3.2 `add_weight_decay`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from .config import Config
from .spec import Param, params


@dataclass(frozen=True)
class Settings:
    """The numbers of AdamW, by default those of official pre-training.

    clip: the global norm to which larger gradients are scaled down; None leaves them.
    """

    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.05
    clip: float | None = None


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up from 0, then half a cosine down to min_lr; the rate changes with every step.

    lr is the highest rate; warmup_epochs and epochs are counted in passes over the data, steps_per_epoch steps each.
    """

    lr: float
    warmup_epochs: float
    epochs: float
    steps_per_epoch: int
    min_lr: float = 0.0

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0: the very first is 0 where there is a warm-up, as upstream."""
        epoch = step / self.steps_per_epoch
        if epoch < self.warmup_epochs:
            return self.lr * epoch / self.warmup_epochs
        done = (epoch - self.warmup_epochs) / (self.epochs - self.warmup_epochs)
        return self.min_lr + (self.lr - self.min_lr) * 0.5 * (1.0 + math.cos(math.pi * done))


class State(NamedTuple):
    """What AdamW remembers: steps taken, and the moments of the gradients by spec name, in the spec's shapes."""

    step: int
    m: Mapping[str, NDArray[Any]]
    v: Mapping[str, NDArray[Any]]


class Optimizer(Protocol):
    """A backend's AdamW. The docstrings are in backends/torch/optimizer.py; the other four mean the same."""

    lr: float

    @property
    def decay(self) -> dict[str, float]: ...
    def step(self, gradients: Mapping[str, Any], lr: float) -> float: ...
    def tensors(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]: ...
    def state(self) -> State: ...
    def load_state(self, state: State) -> None: ...


def trainable(config: Config) -> tuple[Param, ...]:
    """The parameters that training changes, in the spec's order."""
    return tuple(param for param in params(config) if param.trainable)


def decay_of(config: Config, settings: Settings) -> dict[str, float]:
    """The weight decay of every parameter that training changes, by spec name.

    The official rule spares vectors and biases; so the class and mask tokens, of three axes, do decay.
    """
    spared = {p.name for p in trainable(config) if len(p.shape) == 1 or p.name.endswith(".bias")}
    return {p.name: 0.0 if p.name in spared else settings.weight_decay for p in trainable(config)}


def clip_scale(norm: float, settings: Settings) -> float:
    """The factor by which clipping shrinks gradients of this global norm, at most 1 (torch adds the 1e-6)."""
    return 1.0 if settings.clip is None else min(1.0, settings.clip / (norm + 1e-6))
