"""Probe checkpoints: every element is its own number in the model, so that a conversion shows the new place of each.

The number of an element is its place when the parameters of the whole model are laid one after the other, in the spec's
order and each in C order. float32 holds whole numbers exactly up to 2^24; of a larger model there are two probes, of the
numbers' lower 24 bits ("low") and of the rest ("high"): together they name every element.

Tensors that FlyEgle's program derives, and its files lack, have the program's values: its 1-D tables, and a mask token that
has one value for every L entries, which is the number of the first of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..backends.config import Config, MAEConfig
from ..backends.initial import sinusoid_table
from ..backends.presets import NAMED, model_config
from ..backends.spec import Param, params
from .checkpoint import open_checkpoint
from .dialects import DIALECTS, Contents, expected_params
from .difference import Difference, differences
from .identify import dialect_named
from .tensors import CheckpointProblem, Tensor
from .transform import WeightSet
from .writing import write_weights

Part = Literal["low", "high"]
_PART = 1 << 24


def probe_tensors(config: Config, contents: Contents, part: Part = "low") -> dict[str, Tensor]:
    """The probe of a model by spec name, float32, each tensor made when it is loaded."""
    starts = first_numbers(config)
    made = {}
    for param in expected_params(config, contents):
        load = partial(_values, config, param, starts[param.name], part)
        made[param.name] = Tensor(param.shape, "float32", load)
    return made


def first_numbers(config: Config) -> dict[str, int]:
    """The number of each parameter's first element."""
    starts, number = {}, 0
    for param in params(config):
        starts[param.name] = number
        number += param.size
    return starts


def _values(config: Config, param: Param, start: int, part: Part) -> NDArray[np.float32]:
    if param.role == "position" and config.positions == "1d":
        return sinusoid_table(param.shape[2], param.shape[1])
    numbers = np.arange(start, start + param.size)
    if param.name == "mask_token" and isinstance(config, MAEConfig) and config.head == "conv":
        numbers = start + (numbers - start) // config.num_patches * config.num_patches
    halves = {"low": numbers % _PART, "high": numbers // _PART}
    return halves[part].astype(np.float32).reshape(param.shape)


def parts_of(config: Config) -> tuple[Part, ...]:
    """Which probes it takes to tell all elements of a model apart."""
    return ("low", "high") if sum(param.size for param in params(config)) > _PART else ("low",)


def usual_model(dialect: str, contents: Contents | None = None) -> tuple[Config, Contents]:
    """A small model that the dialect can express, and the contents asked for (else the first that it has).

    Raises CheckpointProblem if the dialect has no such contents.
    """
    row = dialect_named(dialect)
    kind: Contents = next(iter(row.spellings)) if contents is None else contents
    name = "mae_vit_test_patch8" if kind in ("mae", "encoder") else "vit_test_patch8"
    family = f"{dialect.partition('-')[0]}_{name}"
    config = NAMED[family if family in NAMED else name]
    poolings = row.allows.get("pooling", ())
    if not isinstance(config, MAEConfig) and poolings and (config.pooling not in poolings or kind == "headless"):
        config = replace(config, pooling=poolings[0])
    return config, kind


def write_probe(
    dialect: str, form: str, path: Path, model: str | None = None, contents: Contents | None = None, part: Part = "low"
) -> WeightSet:
    """Write a probe as the dialect's own program would write a checkpoint, with nothing of ours in it or beside it.

    model: as --model takes it, else a small one. Raises CheckpointProblem as write_weights, for a model and
    contents that do not go together, and for "high" of a model that needs no second part.
    """
    kind: Contents
    if model is None:
        config, kind = usual_model(dialect, contents)
    else:
        config = model_config(model)
        kind = contents or ("mae" if isinstance(config, MAEConfig) else "classifier")
    if isinstance(config, MAEConfig) != (kind in ("mae", "encoder")):
        raise CheckpointProblem(f"The model {model} has no {kind}; name another model with -m.", code="bad-argument")
    if part not in parts_of(config):
        raise CheckpointProblem(
            f"This model has fewer than 2^24 elements: the part low tells them all apart, not {part}.",
            code="bad-argument",
        )
    weights = WeightSet(config, kind, probe_tensors(config, kind, part))
    write_weights(weights, DIALECTS[dialect], form, path, None)
    return weights


def check(
    path: str | Path, model: str | None = None, dialect: str | None = None, part: Part = "low"
) -> tuple[int, list[Difference]]:
    """How many elements a file that came from a probe holds, and every tensor that is in a wrong place.

    model: that of the probe, if the file does not tell. Raises CheckpointProblem if it cannot be read.
    """
    checkpoint = open_checkpoint(path, dialect)
    config = checkpoint.resolve(model).config
    actual = checkpoint.tensors_of(config)
    expected = probe_tensors(config, checkpoint.contents, part)
    misplaced = [
        replace(one, said=f"{one.said}{_whose(one.name, actual, config, part)}")
        for one in differences(expected, actual, config)
    ]
    return sum(math.prod(tensor.shape) for tensor in actual.values()), misplaced


def _whose(name: str, actual: Mapping[str, Tensor], config: Config, part: Part) -> str:
    """The tensor whose elements a wrong tensor holds, in words; "" if they show none, as in the high part alone."""
    if name not in actual or actual[name].dtype != "float32" or part == "high":
        return ""
    values = actual[name].load()
    starts, here = first_numbers(config), {param.name: param.size for param in params(config)}
    if not values.size or not np.isfinite(values).all() or len(parts_of(config)) > 1:
        return ""
    lowest, highest = float(values.min()), float(values.max())
    owner = next((n for n, start in starts.items() if start <= lowest and highest < start + here[n]), name)
    return "" if owner == name or lowest != int(lowest) else f"; these are the elements of {owner}"
