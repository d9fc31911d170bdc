"""What every backend's optimizer.py shares: settings, groups and state of AdamW and LARS, and the learning-rate schedule.

Source: facebookresearch/mae main_pretrain.py, util/lr_sched.py, util/lr_decay.py and util/lars.py; timm 0.3.2 `add_weight_decay`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .config import Config
from .packing import Packing
from .spec import Param, params

if TYPE_CHECKING:
    from .runtime import Runtime


Decayed = Literal["official", "all", "first_groups"]


@dataclass(frozen=True)
class Settings:
    """Which optimizer, and its numbers: by default the AdamW of official pre-training.

    clip: the global norm to which larger gradients are scaled down; None leaves them. spare_tokens: fine-tuning's rule, by
    which the class token and the position table do not decay. layer_decay: fine-tuning's, by which the learning rate falls
    from the head to the patches; None: one rate for all. kind: lars is the linear probe's, of which betas and eps are not.
    momentum, trust: LARS's. decayed: "official", or one of two mistakes: "all" (FlyEgle's pre-training: vectors and biases as
    well), "first_groups" (mindformers' fine-tuning, decay_of).
    """

    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.05
    clip: float | None = None
    spare_tokens: bool = False
    layer_decay: float | None = None
    kind: Literal["adamw", "lars"] = "adamw"
    momentum: float = 0.9
    trust: float = 0.001
    decayed: Decayed = "official"

    @property
    def moments(self) -> tuple[str, ...]:
        """The fields of State that its optimizer has; another is empty."""
        return ("m",) if self.kind == "lars" else ("m", "v")


# Of official fine-tuning and linear probing.
FINETUNING = Settings(betas=(0.9, 0.999), spare_tokens=True, layer_decay=0.75)
PROBING = Settings(kind="lars", weight_decay=0.0)


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up from 0, then half a cosine down to min_lr; the rate changes with every step.

    lr is the highest rate; warmup_epochs and epochs are counted in passes over the data, steps_per_epoch steps each.
    from_start: LiBai's and FlyEgle's mistake. The cosine, as long, is counted from the run's start: after the warm-up the
    rate jumps down, and at the end it rises again.
    """

    lr: float
    warmup_epochs: float
    epochs: float
    steps_per_epoch: int
    min_lr: float = 0.0
    from_start: bool = False

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0: the very first is 0 where there is a warm-up, as upstream."""
        epoch = step / self.steps_per_epoch
        if epoch < self.warmup_epochs:
            return self.lr * epoch / self.warmup_epochs
        done = (epoch - (0 if self.from_start else self.warmup_epochs)) / (self.epochs - self.warmup_epochs)
        return self.min_lr + (self.lr - self.min_lr) * 0.5 * (1.0 + math.cos(math.pi * done))


class State(NamedTuple):
    """What an optimizer remembers: steps taken, and the moments of the gradients by spec name, in the spec's shapes.

    LARS has one alone, its momentum (upstream's mu), which is m; v is empty.
    """

    step: int
    m: Mapping[str, NDArray[Any]]
    v: Mapping[str, NDArray[Any]]


class Group(NamedTuple):
    """Parameters that are updated together.

    decay: their weight decay. rate: what the learning rate is times. adapted: whether LARS scales their updates.
    names: by the spec.
    """

    decay: float
    rate: float
    adapted: bool
    names: list[str]


class Optimizer(ABC):
    """An update of the model's parameters that are trained, by their gradients.

    Packed gradients are few tensors that hold those of all parameters, so that a step costs few operations.
    """

    lr: float
    decay: dict[str, float]  # the weight decay of every parameter that is held, by spec name
    rates: dict[str, float]  # the learning rate of each, as the optimizer holds it

    def __init__(self, runtime: Runtime, model: Any, settings: Settings):
        self.runtime = runtime
        self.model = model
        self.settings = settings

    @abstractmethod
    def packed(self, gradients: Mapping[str, Any]) -> list[Any]:
        """Gradients by spec name, in the parameters' layout, as `norm` and `update` take them."""

    @abstractmethod
    def norm(self, gradients: list[Any]) -> float:
        """The Euclidean norm of all packed gradients together."""

    @abstractmethod
    def update(self, gradients: list[Any], lr: float, scale: float) -> None:
        """Change the model's parameters by scale times the packed gradients, which may be changed as well."""

    @abstractmethod
    def state(self) -> State:
        """A copy of the steps taken and the moments by spec name; zeros before the first step."""

    @abstractmethod
    def load_state(self, state: State) -> None:
        """Go on from a state."""

    def step(self, gradients: Mapping[str, Any], lr: float) -> float:
        """Change the model's parameters by gradients given by spec name; their global norm before clipping."""
        packed = self.packed(gradients)
        norm = self.norm(packed)
        self.update(packed, lr, clip_scale(norm, self.settings))
        return norm

    def tensors(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        """Arrays by spec name, as tensors in the layout and precision of the parameters."""
        shapes = {name: tuple(tensor.shape) for name, tensor in self.runtime.trained(self.model).items()}
        return {
            name: self.runtime.from_numpy(arrays[name].reshape(shape), self.model) for name, shape in shapes.items()
        }

    def arrays(self, tensors: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """The inverse of tensors: copies in NumPy in the spec's shapes."""
        shapes = {param.name: param.shape for param in trainable(self.model.config)}
        return {name: self.runtime.to_numpy(tensor).reshape(shapes[name]) for name, tensor in tensors.items()}


class HandWritten(Packing, Optimizer):
    """What the optimizers written by hand share; each adds its update.

    Parameters of one group, their gradients and moments are one vector [n], in the spec's order.
    """

    def __init__(self, runtime: Runtime, model: Any, settings: Settings):
        super().__init__(runtime, model, settings)
        self.lr = 0.0
        self.groups = groups_of(model.config, settings)
        self.decay = decay_of(model.config, settings)
        zeros = {param.name: np.zeros(param.shape) for param in trainable(model.config)}
        self.load_state(State(0, zeros, zeros))

    @property
    def rates(self) -> dict[str, float]:  # type: ignore[override]
        """The learning rate of every parameter that is held, by spec name."""
        rates = {name: self.lr * group.rate for group in self.groups for name in group.names}
        return {name: rates[name] for name in self.decay}

    @abstractmethod
    def move(self, gradients: list[Any], lr: Any, scale: Any, *numbers: Any) -> None:
        """The part of update that computes with tensors alone, by the numbers that differ from step to step."""

    def packed(self, gradients: Mapping[str, Any]) -> list[Any]:
        """Gradients by spec name as one vector for each group."""
        return [self.pack([gradients[name] for name in group.names]) for group in self.groups]

    def parameters(self) -> list[Any]:
        """The model's parameters as one vector for each group: a copy."""
        return self.packed(self.runtime.trained(self.model))

    def put(self, vectors: list[Any]) -> None:
        """The inverse of parameters: give the model's parameters the values of one vector for each group."""
        trained = self.runtime.trained(self.model)
        for group, vector in zip(self.groups, vectors):
            parameters = [trained[name] for name in group.names]
            self.assign(parameters, self.unpack(vector, parameters))

    def state(self) -> State:
        """A copy of the steps taken and the moments by spec name; zeros before the first step."""
        return State(self.steps, self._by_name(self.m), self._by_name(self.v) if self.v else {})

    def load_state(self, state: State) -> None:
        """Go on from a state."""
        self.steps = state.step
        self.m = self.packed(self.tensors(state.m))
        self.v = self.packed(self.tensors(state.v)) if "v" in self.settings.moments else []

    def _by_name(self, vectors: list[Any]) -> dict[str, NDArray[Any]]:
        trained = self.runtime.trained(self.model)
        tensors: dict[str, Any] = {}
        for group, vector in zip(self.groups, vectors):
            tensors.update(zip(group.names, self.unpack(vector, [trained[name] for name in group.names])))
        return self.arrays({name: tensors[name] for name in trained})


def trainable(config: Config) -> tuple[Param, ...]:
    """The parameters that training changes, in the spec's order."""
    return tuple(param for param in params(config) if param.trainable)


def decay_of(config: Config, settings: Settings) -> dict[str, float]:
    """The weight decay of every parameter that training changes, by spec name.

    The official rule spares vectors and biases; so the class and mask tokens, of three axes, do decay in pre-training. By
    mindformers' mistake ("first_groups") a layer's parameters decay only if the first of them that decays comes before the
    first parameter that does not, because its program sets its one number to 0 there.
    """
    if settings.decayed == "all":
        return {p.name: settings.weight_decay for p in trainable(config)}
    spared = {p.name for p in trainable(config) if len(p.shape) == 1 or p.name.endswith(".bias")}
    if settings.spare_tokens:
        spared |= {"pos_embed", "cls_token"}
    decay = {p.name: 0.0 if p.name in spared else settings.weight_decay for p in trainable(config)}
    if settings.decayed == "first_groups":
        rates, names = rates_of(config, settings), list(decay)
        before = names[: next((place for place, name in enumerate(names) if name in spared), None)]
        made = {rates[name] for name in before}  # the groups that are there by then
        decay = {name: value if rates[name] in made else 0.0 for name, value in decay.items()}
    return decay


def rates_of(config: Config, settings: Settings) -> dict[str, float]:
    """What the learning rate of every parameter that training changes is times, by spec name: 1 at the head.

    Each layer's is layer_decay times that of the next: the tokens and patch_embed are layer 0, block i is layer i + 1, and
    all behind the blocks is the last.
    """
    decay = 1.0 if settings.layer_decay is None else settings.layer_decay
    last = config.depth + 1
    return {p.name: decay ** (last - _layer(p.name, last)) for p in trainable(config)}


def _layer(name: str, last: int) -> int:
    if name in ("cls_token", "pos_embed") or name.startswith("patch_embed."):
        return 0
    return int(name.split(".")[1]) + 1 if name.startswith("blocks.") else last


def groups_of(config: Config, settings: Settings) -> list[Group]:
    """The parameters that training changes, those together whose update is the same; LARS's, which have a norm each, alone."""
    decay, rates = decay_of(config, settings), rates_of(config, settings)
    lars = settings.kind == "lars"
    groups: dict[Any, Group] = {}
    for param in trainable(config):
        name = param.name
        group = Group(decay[name], rates[name], lars and len(param.shape) > 1, [])
        groups.setdefault((group.decay, group.rate, name if lars else ""), group).names.append(name)
    return list(groups.values())


def clip_scale(norm: float, settings: Settings) -> float:
    """The factor by which clipping shrinks gradients of this global norm, at most 1 (torch adds the 1e-6)."""
    return 1.0 if settings.clip is None else min(1.0, settings.clip / (norm + 1e-6))
