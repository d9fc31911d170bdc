"""The optimizer's part of a training checkpoint in the official layout: moments by spec name, the steps taken, the options.

Source: facebookresearch/mae util/misc.py `save_model` ({model, optimizer, epoch, scaler, args}) and main_pretrain.py: AdamW with
the two groups of timm 0.3.2 `add_weight_decay`, without decay first, each in the order of the model's parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..backends.config import MAEConfig
from ..backends.optimization import State as Moments
from ..backends.optimization import trainable
from .checkpoint import Weights, open_checkpoint
from .formats import pth
from .formats.state_dict import as_mapping, find_state
from .tensors import Array, CheckpointProblem, Tensor

_ADVICE = "To begin a new run from its weights alone, give it as --weights."


@dataclass(frozen=True)
class TrainingCheckpoint:
    """The contents of such a file. epoch: the last that was finished, from 0. scaler: of the loss, where there was one."""

    weights: Weights
    moments: Moments
    epoch: int
    options: Mapping[str, Any]  # of the script that saved it: numbers, texts and truth values by name
    scaler: Mapping[str, float]


class _Parts(NamedTuple):
    model: Mapping[Any, Any]
    state: Mapping[Any, Any]
    groups: list[Mapping[Any, Any]]
    epoch: int


def options_of(path: Path) -> Mapping[str, Any]:
    """The options that the script saved in the file. Raises CheckpointProblem."""
    opened = pth.read_object(path)
    return find_state(opened.value, opened.tensor, str(path), opened.size, opened.unknown).settings


def read_training_checkpoint(path: Path, config: MAEConfig) -> TrainingCheckpoint:
    """Weights, moments and options of a model's training checkpoint. Nothing in the file is run.

    Raises CheckpointProblem where it holds no optimizer, or that of another model or in another order.
    """
    opened = pth.read_object(path)
    parts = _parts(opened.value, path)
    names = _in_groups(parts, config, path)
    moments: tuple[dict[str, Array], dict[str, Array]] = ({}, {})
    shapes = {param.name: param.shape for param in trainable(config)}
    steps = set()
    for index, name in names.items():
        entry = as_mapping(parts.state.get(index))
        if entry is None:
            raise CheckpointProblem(
                f"{path} holds no moments of {name} (its optimizer's state {index}). {_ADVICE}", code="incomplete"
            )
        steps.add(_number(entry.get("step"), opened.tensor, path))
        for kind, arrays in zip(("exp_avg", "exp_avg_sq"), moments):
            tensor = opened.tensor(f"{kind} of {name}", entry.get(kind))
            if tensor is None or tensor.shape != shapes[name] or tensor.dtype != "float32":
                actual = "missing" if tensor is None else f"{tensor.dtype} {list(tensor.shape)}"
                raise CheckpointProblem(
                    f"The {kind} of {name} in {path} is {actual}, and the model's is float32 {list(shapes[name])}: its "
                    f"optimizer is of another model, or in another order. {_ADVICE}",
                    code="does-not-fit",
                )
            arrays[name] = np.array(tensor.load())
    if len(steps) != 1:
        raise CheckpointProblem(
            f"The parameters in {path} have taken {sorted(steps)} steps, not all as many. {_ADVICE}",
            code="does-not-fit",
        )
    scaler = as_mapping((as_mapping(opened.value) or {}).get("scaler")) or {}
    return TrainingCheckpoint(
        open_checkpoint(path).weights(config),
        Moments(steps.pop(), *({name: arrays[name] for name in shapes} for arrays in moments)),
        parts.epoch,
        options_of(path),
        {str(name): value for name, value in scaler.items() if isinstance(value, (int, float))},
    )


def _parts(value: Any, path: Path) -> _Parts:
    outer = as_mapping(value) or {}
    model, optimizer, epoch = as_mapping(outer.get("model")), as_mapping(outer.get("optimizer")), outer.get("epoch")
    state = as_mapping((optimizer or {}).get("state"))
    groups = [as_mapping(group) for group in (optimizer or {}).get("param_groups") or []]
    if model is None or not state or not groups or None in groups or type(epoch) is not int or epoch < 0:
        raise CheckpointProblem(
            f"{path} is no training checkpoint in the official layout: a dict with model, optimizer (of AdamW, at least one "
            f"step taken) and epoch; it holds {', '.join(map(str, list(outer)[:8])) or 'something else'}. {_ADVICE}",
            code="incomplete",
        )
    return _Parts(model, state, [group for group in groups if group is not None], epoch)


def _in_groups(parts: _Parts, config: MAEConfig, path: Path) -> dict[Any, str]:
    """The name of the parameter at every index of the optimizer's state."""
    trained = {param.name: param for param in trainable(config)}
    order = [str(name) for name in parts.model if str(name) in trained]  # state dicts keep the order of the parameters
    spared = [name for name in order if len(trained[name].shape) == 1 or name.endswith(".bias")]
    expected = [spared, [name for name in order if name not in spared]]
    indices = [list(group.get("params") or []) for group in parts.groups]
    if len(order) != len(trained) or [len(each) for each in indices] != [len(each) for each in expected]:
        raise CheckpointProblem(
            f"The optimizer in {path} has groups of {', '.join(str(len(each)) for each in indices)} parameters; official "
            f"pre-training has {len(expected[0])} without weight decay and then {len(expected[1])} with it. {_ADVICE}",
            code="does-not-fit",
        )
    return {index: name for group, names in zip(indices, expected) for index, name in zip(group, names)}


def _number(value: Any, tensor: Any, path: Path) -> int:
    """Steps taken: a number, or a tensor [] in files of newer versions of torch."""
    stored: Tensor | None = None if isinstance(value, (int, float)) else tensor("step", value)
    steps = value if stored is None else stored.load().reshape(-1)[0]
    if not isinstance(steps, (int, float, np.number)) or steps < 1:
        raise CheckpointProblem(f"The optimizer's steps in {path} cannot be read. {_ADVICE}", code="damaged")
    return int(steps)
